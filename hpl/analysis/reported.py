"""What the evaluate stage reports of a model beyond the figures of both tasks, and what stands beside them: settings, tokens, histograms."""

import numpy as np
import pandas as pd
from tqdm import tqdm

from hpl.analysis.composed import evaluate_composed
from hpl.analysis.examine import examine
from hpl.analysis.histogram import VARIANTS, colour_histograms
from hpl.config import Evaluate, Input
from hpl.evaluation.intervals import bootstrap_gain, bootstrap_intervals
from hpl.evaluation.metrics import Rule, score_blocks
from hpl.evaluation.protocols import evaluate_i2i, rounded, task_figures
from hpl.evaluation.similarity import unit
from hpl.manifests.pictures import read_pictures
from hpl.manifests.tables import Manifests
from hpl.retrieval.test_sets import Encoded, compare, gather, read_test_sets
from hpl.tasks import NO_CAMERA

BLOCK = 512  # pictures read at a time for histograms
NUM_TOKENS = 2000  # pictures whose two tokens are kept, at most
TOKEN_SEED = 0  # of the choice of people among them


def evaluate_encoded(encoded: list[Encoded], options: Evaluate) -> tuple[dict, dict[str, pd.DataFrame]]:
    """All figures of a model, and the tables behind them: what the evaluate stage reports.

    Returns:
        What metrics.json holds: `gather`'s figures with bootstrap intervals; `datasets`, the names of the first set of each task;
        `open_set` of these; `composed` of the first set with captions; `settings`, where something is on that is off by default.
        Tables by name: rank_lists_t2i, rank_lists_i2i, scores_t2i, scores_i2i, similarities.
    """
    figures: dict[str, dict[str, dict]] = {}
    headline: dict[str, dict] = {"datasets": {}, "open_set": {}, "composed": {}}
    found: dict[str, list[pd.DataFrame]] = {}
    for each in encoded:
        test = each.test
        for task in test.tasks:
            queries, gallery = test.parts(task)
            blocks, rule = compare(each, task, options)
            examined = examine(blocks, rule, gallery["image_id"].to_numpy(), options.rank_list_length)
            if not any(task in others for others in figures.values()):
                headline["datasets"][task] = test.name
                if examined.open_set:
                    headline["open_set"][task] = rounded(examined.open_set)
                if task == "t2i":
                    composed = evaluate_composed(each.text, each.t2i, each.i2i, queries, test.images, options.composed_weight)
                    headline["composed"] = {kind: rounded(scores) for kind, scores in composed.items()}
            figures.setdefault(test.name, {})[task] = _with_intervals(task, examined.scores, rule)

            key, ids = _query_ids(task, queries)
            lists = examined.lists.assign(**{key: ids[examined.lists["query"]], "dataset": test.name})
            found.setdefault(f"rank_lists_{task}", []).append(lists[["dataset", key, "rank", "image_id", "similarity", "match"]])
            found.setdefault(f"scores_{task}", []).append(_scores_table(test.name, task, queries, examined.scores))
            bins = examined.similarities
            bins.insert(0, "dataset", test.name)
            bins.insert(0, "task", task)
            found.setdefault("similarities", []).append(bins)
    settings = {"settings": {name: 1 for name in ("rerank", "flip") if getattr(options, name)}}
    metrics = gather(figures) | {name: values for name, values in (headline | settings).items() if values}
    return metrics, _joined(found)


def score_encoded(encoded: list[Encoded], options: Evaluate) -> tuple[dict, dict[str, pd.DataFrame]]:
    """`gather`'s figures of a model with bootstrap intervals, and the tables scores_t2i and scores_i2i: what a model to compare with needs."""
    figures: dict[str, dict[str, dict]] = {}
    found: dict[str, list[pd.DataFrame]] = {}
    for each in encoded:
        for task in each.test.tasks:
            blocks, rule = compare(each, task, options)
            scores = score_blocks(blocks, rule)
            figures.setdefault(each.test.name, {})[task] = _with_intervals(task, scores, rule)
            queries, _ = each.test.parts(task)
            found.setdefault(f"scores_{task}", []).append(_scores_table(each.test.name, task, queries, scores))
    return gather(figures), _joined(found)


def _with_intervals(task: str, scores: pd.DataFrame, rule: Rule) -> dict[str, float]:
    return rounded(task_figures(task, scores) | bootstrap_intervals(scores, rule.query_pids, rsum=task == "t2i"))


def _query_ids(task: str, queries: pd.DataFrame) -> tuple[str, np.ndarray]:
    """What the column of a task's queries is called in the tables, and what stands in it."""
    key, column = ("caption_id", "caption_id") if task == "t2i" else ("query_image_id", "image_id")
    return key, queries[column].to_numpy()


def _scores_table(name: str, task: str, queries: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Scores of a data set's queries, and who they are."""
    key, ids = _query_ids(task, queries)
    camid = queries["camid"].to_numpy() if task == "i2i" else np.full(len(queries), NO_CAMERA)
    who = pd.DataFrame({"dataset": name, key: ids, "pid": queries["pid"].to_numpy(), "camid": camid})
    return pd.concat([who, scores], axis=1)


def _joined(found: dict[str, list[pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    return {name: pd.concat(tables, ignore_index=True) for name, tables in found.items()}


def gains(found: dict[str, pd.DataFrame], reference: dict[str, pd.DataFrame]) -> dict[str, dict[str, float]]:
    """What a model has more than another in rank1 and mAP, on the first set of each task, with paired intervals.

    Args:
        found, reference: the tables that `evaluate_encoded` or `score_encoded` returns for them, of the same sets.
    """
    gained = {}
    for task in ("t2i", "i2i"):
        if (name := f"scores_{task}") in found:
            first = found[name]["dataset"] == found[name]["dataset"].iloc[0]
            own, other = found[name][first], reference[name][first]
            gained[task] = rounded(bootstrap_gain(own, other, own["pid"].to_numpy()))
    return gained


def describe_settings(options: Evaluate) -> dict:
    """What evaluation does beyond the bare protocol, for the report: values, what they mean, and a label that is empty by default."""
    labels = []
    if options.flip:
        labels.append("features averaged with those of the mirror image")
    if options.rerank:
        k1, k2, weight = options.rerank_k1, options.rerank_k2, options.rerank_lambda
        labels.append(f"k-reciprocal re-ranking (k1 = {k1}, k2 = {k2}, lambda = {weight:g})")
    names = ("flip", "rerank", "rerank_k1", "rerank_k2", "rerank_lambda", "composed_weight")
    return {
        **{name: getattr(options, name) for name in names},
        "label": "; ".join(labels),
        "meaning": {
            "flip": "features of a picture and of its mirror image are averaged, in all figures",
            "rerank": "k-reciprocal re-ranking (Zhong et al., CVPR 2017) in t2i, i2i, others and open_set; similarities are then "
            "1 minus the re-ranked distance; composed and the histograms are without",
            "composed_weight": "weight of t_eos in its mean with the query picture's v_t2i, where picture and sentence are one query; v_t2i "
            "has the rest",
        },
    }


def choose_tokens(encoded: list[Encoded]) -> dict[str, np.ndarray]:
    """Both tokens of some test pictures of the first set for i2i: whole people, drawn by a fixed seed, at most NUM_TOKENS pictures.

    Returns:
        image_ids (n, ascending); t2i and i2i, n x D float16, of unit length. All without rows if no set is scored for i2i.
    """
    each = next((each for each in encoded if "i2i" in each.test.tasks), None)
    if each is None:
        return {"image_ids": np.empty(0, np.int64), "t2i": np.empty((0, 0), np.float16), "i2i": np.empty((0, 0), np.float16)}
    pids = each.test.images["pid"].to_numpy()
    people, sizes = np.unique(pids[pids > 0], return_counts=True)
    order = np.random.default_rng(TOKEN_SEED).permutation(len(people))
    chosen = people[order[np.cumsum(sizes[order]) <= NUM_TOKENS]]
    rows = np.flatnonzero(np.isin(pids, chosen))
    return {
        "image_ids": each.test.images["image_id"].to_numpy()[rows],
        "t2i": unit(each.t2i[rows]).astype(np.float16),
        "i2i": unit(each.i2i[rows]).astype(np.float16),
    }


def evaluate_histograms(tables: Manifests, size: Input) -> dict[str, tuple[dict, str]]:
    """Image-to-image figures of the best colour histogram, as `gather` arranges them, and which one it is for the first data set.

    Two floors, which say how hard the pictures are: `colour_histogram` counts the whole picture, `colour_histogram_middle` leaves out the
    background at both sides. Each is the best of VARIANTS by its own mAP on the test split, in its favour.
    """
    floors = {"colour_histogram": False, "colour_histogram_middle": True}
    figures: dict[str, dict] = {floor: {} for floor in floors}
    chosen: dict[str, str] = {}
    for test in read_test_sets(tables):
        if "i2i" not in test.tasks:
            continue
        queries, gallery = test.parts("i2i")
        left, right = _histograms(tables, queries, size, floors), _histograms(tables, gallery, size, floors)
        for floor in floors:
            scores = {name: evaluate_i2i(left[floor, name], right[floor, name], queries, gallery) for name in VARIANTS}
            best = max(scores, key=lambda name: scores[name]["mAP"])
            figures[floor][test.name] = {"i2i": rounded(scores[best])}
            chosen.setdefault(floor, best)
    return {floor: (gather(figures[floor]), chosen[floor]) for floor in chosen}


def _histograms(
    tables: Manifests, images: pd.DataFrame, size: Input, floors: dict[str, bool]
) -> dict[tuple[str, str], np.ndarray]:
    """Every variant of both floors for some pictures."""
    parts: dict[tuple[str, str], list] = {(floor, name): [] for floor in floors for name in VARIANTS}
    files = tables.files(images)
    for start in tqdm(range(0, len(files), BLOCK), desc="histograms", unit="blocks"):
        block = read_pictures(files[start : start + BLOCK], size.height, size.width)
        for floor, name in parts:
            parts[floor, name].append(colour_histograms(block, *VARIANTS[name], floors[floor]).astype(np.float16))
    return {key: np.concatenate(part) for key, part in parts.items()}
