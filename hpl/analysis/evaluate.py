"""All that the evaluate stage reports of a trained model: figures with intervals, and the tables behind them."""

from pathlib import Path

import numpy as np
import pandas as pd

from hpl.analysis.composed import evaluate_composed
from hpl.analysis.observers import RankLists, SimilarityCounts
from hpl.analysis.open_set import OpenSet
from hpl.config import Evaluate
from hpl.evaluation.protocols import Rule
from hpl.evaluation.scores import Observer, Scores, rounded
from hpl.evaluation.similarity import unit
from hpl.retrieval.figures import Encoded, Result, arrange, score_sets, scores_tables
from hpl.retrieval.sets import unscored
from hpl.tasks import I2I, T2I, TASKS, Task

NUM_TOKENS = 2000  # pictures whose two tokens are kept, at most
_NO_STRANGERS = "queries of both known people and strangers are needed; expected two people or more with something to find"
_NO_PAIRS = "no described person has another picture to ask with that leaves something to find; expected more, or more cameras"
TOKEN_SEED = 0  # of the choice of people among them


def evaluate_model(encoded: list[Encoded], options: Evaluate) -> tuple[dict, dict[str, pd.DataFrame]]:
    """Compute all figures of a model, and the tables behind them.

    Returns:
        What metrics.json holds: `arrange`'s figures with intervals; `datasets`, the names of the first set of each task;
        `open_set` of these; `composed` of the first set with captions; `not_scored`, by set, why it lacks one of these figures;
        `settings`, where something is on that is off by default.
        Tables by name: rank_lists_t2i, rank_lists_i2i, scores_t2i, scores_i2i, similarities.
    """

    def observe(each: Encoded, task: Task, rule: Rule) -> tuple[Observer, ...]:
        _, gallery = each.dataset.queries_and_gallery(task)
        return RankLists(rule, gallery["image_id"].to_numpy(), options.rank_list_length), SimilarityCounts(rule), OpenSet(rule)

    results = score_sets(encoded, options, observe)
    first = {result.task.name: result for result in reversed(results)}
    headline: dict[str, dict] = {"datasets": {name: result.dataset.name for name, result in first.items()}}
    headline["open_set"] = {name: rounded(result.observers[2].figures()) for name, result in first.items()}
    missing = unscored(each.dataset for each in encoded).get("not_scored", {})
    for name in [name for name, figures in headline["open_set"].items() if not figures]:
        missing.setdefault(first[name].dataset.name, {})[f"open_set_{name}"] = _NO_STRANGERS
        del headline["open_set"][name]
    if T2I.name in first:
        asked = next(each for each in encoded if each.dataset is first[T2I.name].dataset)
        composed = evaluate_composed(asked, options.composed_weight)
        headline["composed"] = {kind: rounded(figures) for kind, figures in composed.items()}
        if not composed:
            missing.setdefault(asked.dataset.name, {})["composed"] = _NO_PAIRS
    headline["not_scored"] = missing
    headline["settings"] = options.switched_on
    metrics = arrange(results, intervals=True) | {name: values for name, values in headline.items() if values}
    return metrics, scores_tables(results) | _observed_tables(results)


def _observed_tables(results: list[Result]) -> dict[str, pd.DataFrame]:
    found: dict[str, list[pd.DataFrame]] = {}
    for result in results:
        task, (rank_lists, similarities, _) = result.task, result.observers
        queries, _ = result.dataset.queries_and_gallery(task)
        lists = rank_lists.table()
        ids = queries[task.id_column].to_numpy()[lists["query"]]
        lists = lists.assign(**{task.query_key: ids, "dataset": result.dataset.name})
        columns = ["dataset", task.query_key, "rank", "image_id", "similarity", "match"]
        found.setdefault(f"rank_lists_{task.name}", []).append(lists[columns])
        bins = similarities.table()
        bins.insert(0, "dataset", result.dataset.name)
        bins.insert(0, "task", task.name)
        found.setdefault("similarities", []).append(bins)
    return {name: pd.concat(tables, ignore_index=True) for name, tables in found.items()}


def gains(found: dict[str, pd.DataFrame], reference: dict[str, pd.DataFrame]) -> dict[str, dict[str, float]]:
    """Compare two models in rank1 and mAP, on the first set of each task, with paired intervals.

    Args:
        found, reference: the `scores_tables` of both, of the same sets.
    """
    gained = {}
    for task in TASKS:
        if (name := f"scores_{task}") in found:
            first = found[name]["dataset"] == found[name]["dataset"].iloc[0]
            own, other = (Scores(table[name][first], table[name][first]["pid"].to_numpy()) for table in (found, reference))
            gained[task] = rounded(own.gain_over(other))
    return gained


def read_scores_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Read the scores_t2i and scores_i2i that the baselines stage wrote, those that there are."""
    names = [f"scores_{task}" for task in TASKS]
    return {name: pd.read_parquet(folder / f"{name}.parquet") for name in names if (folder / f"{name}.parquet").is_file()}


def describe_settings(options: Evaluate) -> dict:
    """Say what evaluation does beyond the bare protocol, for the report: values, and a label that is empty by default."""
    labels = []
    if options.flip:
        labels.append("features averaged with those of the mirror image")
    if options.rerank:
        k1, k2, weight = options.rerank_k1, options.rerank_k2, options.rerank_lambda
        labels.append(f"k-reciprocal re-ranking (k1 = {k1}, k2 = {k2}, lambda = {weight:g})")
    if options.neck == "after":
        labels.append("I2I behind the batch-norm neck")
    if options.i2i_tokens == "both":
        labels.append("I2I by both tokens, joined")
    names = ("neck", "i2i_tokens", "flip", "rerank", "rerank_k1", "rerank_k2", "rerank_lambda", "composed_weight")
    return {**{name: getattr(options, name) for name in names}, "label": "; ".join(labels)}


def choose_tokens(encoded: list[Encoded]) -> dict[str, np.ndarray]:
    """Choose both tokens of some test pictures, NUM_TOKENS at most, of the first set for i2i: whole people, by a fixed seed.

    Returns:
        image_ids (n, ascending); t2i and i2i, n x D float16, of unit length. All without rows if no set is scored for i2i.
    """
    each = next((each for each in encoded if I2I in each.dataset.tasks), None)
    if each is None:
        none = np.empty((0, 0), np.float16)
        return {"image_ids": np.empty(0, np.int64), T2I.name: none, I2I.name: none}
    pids = each.dataset.images["pid"].to_numpy()
    people, sizes = np.unique(pids[pids > 0], return_counts=True)
    order = np.random.default_rng(TOKEN_SEED).permutation(len(people))
    chosen = people[order[np.cumsum(sizes[order]) <= NUM_TOKENS]]
    rows = np.flatnonzero(np.isin(pids, chosen))
    return {
        "image_ids": each.dataset.images["image_id"].to_numpy()[rows],
        T2I.name: unit(each.t2i[rows]).astype(np.float16),
        I2I.name: unit(each.i2i[rows]).astype(np.float16),
    }
