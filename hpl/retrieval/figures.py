"""The one driver of retrieval, for all who ask for a figure: encode sets, score each of their tasks, arrange the figures."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from hpl.backbones.trained import NeckArrays
from hpl.config import Evaluate
from hpl.evaluation.protocols import Rule, task_rule
from hpl.evaluation.rerank import reranked_blocks
from hpl.evaluation.scores import Blocks, Observer, Scores, rounded
from hpl.evaluation.similarity import cosine_blocks, unit, unit_checked
from hpl.manifests.tables import Manifests
from hpl.retrieval.features import Extractor
from hpl.retrieval.sets import RetrievalSet, read_test_sets, unscored
from hpl.runtime.distributed import gather_rows, rank, world_size
from hpl.tasks import NO_CAMERA, TASKS, Task


@dataclass(frozen=True)
class Encoded:
    """The features of a retrieval set, float32 with D columns: v_t2i and v_i2i of each of its images, t_eos of each caption."""

    dataset: RetrievalSet
    t2i: np.ndarray
    i2i: np.ndarray
    text: np.ndarray  # without rows if the set is not scored for text to image

    def behind(self, neck: NeckArrays) -> "Encoded":
        """Return the same with v_i2i behind the batch-norm neck, as Bag of Tricks and fast-reid rank."""
        scale, shift = neck
        return replace(self, i2i=self.i2i * scale + shift)

    def similarities(self, task: Task, options: Evaluate | None = None) -> tuple[Blocks, Rule]:
        """Compare the task's queries with its gallery, block by block, and make the rule that scores them.

        Args:
            options: say whether, and how, similarities are re-ranked, and whether I2I takes both tokens; None: cosines.
        """
        queries, gallery = self.dataset.queries_and_gallery(task)
        rule = task_rule(task, queries, gallery)
        row_of = pd.Series(np.arange(len(self.dataset.images)), index=self.dataset.images["image_id"])
        pictures = self.t2i if task.by_caption else self.i2i
        if options and options.i2i_tokens == "both" and not task.by_caption:
            pictures = np.concatenate([unit(self.t2i), unit(self.i2i)], axis=1)
        left = self.text if task.by_caption else pictures[row_of[queries["image_id"]]]
        right = pictures[row_of[gallery["image_id"]]]
        left, right = unit_checked(left, "query", len(queries)), unit_checked(right, "gallery picture", len(gallery))
        right = right if rule.kept.all() else right[rule.kept]
        if options and options.rerank:
            return reranked_blocks(left, right, options.rerank_k1, options.rerank_k2, options.rerank_lambda), rule
        return cosine_blocks(left, right), rule


@dataclass(frozen=True)
class Result:
    """The scores of one task on one set, and what observed them."""

    dataset: RetrievalSet
    task: Task
    scores: Scores
    observers: tuple = ()  # of Observer; who asked for them knows which


def encode_sets(extractor: Extractor, tables: Manifests, sets: Iterable[RetrievalSet]) -> list[Encoded]:
    """Encode the pictures of each set, and its captions where they ask. Processes share the work; each gets all features."""
    encoded = []
    for each in sets:
        kept = extractor.named(each.name)
        t2i, i2i = kept.pictures(tables.files(each.images))
        text = kept.captions(each.captions["caption"] if any(task.by_caption for task in each.tasks) else [])
        encoded.append(Encoded(each, t2i.numpy(), i2i.numpy(), text.numpy()))
    return encoded


def score_sets(
    encoded: Iterable[Encoded],
    options: Evaluate | None = None,
    observe: Callable[[Encoded, Task, Rule], Sequence[Observer]] = lambda encoded, task, rule: (),
) -> list[Result]:
    """Score every task of every set, in one pass over its similarities.

    Args:
        options: as in `Encoded.similarities`.
        observe: makes what else shall see the similarities.
    """
    results = []
    for each in encoded:
        for task in each.dataset.tasks:
            blocks, rule = each.similarities(task, options)
            observers = tuple(observe(each, task, rule))
            results.append(Result(each.dataset, task, Scores.of(blocks, rule, task.summed_ranks, observers), observers))
    return results


def arrange(results: Iterable[Result], intervals: bool = False) -> dict:
    """Arrange figures as metrics.json holds them, rounded.

    Those of the first data set that serves a task stand under the task's name; further sets under `others`, by their own.
    """
    arranged: dict = {}
    for result in results:
        figures = result.scores.figures() | (result.scores.intervals() if intervals else {})
        place = arranged
        if result.task.name in arranged:
            place = arranged.setdefault("others", {}).setdefault(result.dataset.name, {})
        place[result.task.name] = rounded(figures)
    return arranged


def scores_tables(results: list[Result]) -> dict[str, pd.DataFrame]:
    """Join the scores of each task, scores_t2i and scores_i2i: who each query is, and how it fared."""
    found: dict[str, list[pd.DataFrame]] = {}
    for result in results:
        queries, _ = result.dataset.queries_and_gallery(result.task)
        camid = queries["camid"].to_numpy() if result.task.by_camera else np.full(len(queries), NO_CAMERA)
        ids = {result.task.query_key: queries[result.task.id_column].to_numpy()}
        who = pd.DataFrame({"dataset": result.dataset.name, **ids, "pid": queries["pid"].to_numpy(), "camid": camid})
        found.setdefault(f"scores_{result.task.name}", []).append(pd.concat([who, result.scores.table], axis=1))
    return {name: pd.concat(tables, ignore_index=True) for name, tables in found.items()}


def evaluate_towers(extractor: Extractor, tables: Manifests, options: Evaluate, neck: NeckArrays | None = None) -> dict:
    """Measure a model on every test set. Of several processes the first alone computes figures; the others return none."""
    encoded = encode_sets(extractor, tables, read_test_sets(tables))
    if neck is not None and options.neck == "after":
        encoded = [each.behind(neck) for each in encoded]
    return {} if rank() else arrange(score_sets(encoded, options)) | unscored(each.dataset for each in encoded)


def validate(extractor: Extractor, tables: Manifests, sets: list[RetrievalSet]) -> dict[str, float]:
    """Measure each task's mAP in percent, the mean over its validation sets; the same on each of several processes."""
    encoded = encode_sets(extractor, tables, sets)
    tasks = [name for name, task in TASKS.items() if any(task in each.tasks for each in sets)]
    means = [np.nan] * len(tasks)
    if not rank():
        results = score_sets(encoded)
        found = [(result.task.name, result.scores.figures()["mAP"]) for result in results]
        means = [float(np.mean([figure for name, figure in found if name == task])) for task in tasks]
    agreed = gather_rows(torch.tensor([means], dtype=torch.float64), [1] * world_size())[0]  # those of the first process
    return dict(zip(tasks, agreed.tolist(), strict=True))
