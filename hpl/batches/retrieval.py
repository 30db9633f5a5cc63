"""A model, or no model, on the test split of every data set that is to be evaluated."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from hpl.backbones.distributed import rank
from hpl.backbones.towers import ImageTower, TextTower
from hpl.batches.checkpoint import NOTHING_KEPT, Checkpoint
from hpl.batches.extract import extract_image_features, extract_text_features
from hpl.config import Evaluate, Input
from hpl.evaluation.composed import evaluate_composed
from hpl.evaluation.histogram import VARIANTS, colour_histograms
from hpl.evaluation.intervals import bootstrap_intervals
from hpl.evaluation.metrics import Rule, score_blocks
from hpl.evaluation.protocols import evaluate_i2i, examine, rounded, task_figures, task_rule
from hpl.evaluation.rerank import reranked_blocks
from hpl.evaluation.similarity import cosine_blocks, unit, unit_checked
from hpl.files import HplError
from hpl.manifests.pictures import read_pictures
from hpl.manifests.records import JUNK_PID, NO_CAMERA
from hpl.manifests.tables import Manifests

BLOCK = 512  # pictures read at a time for histograms
NUM_TOKENS = 2000  # pictures whose two tokens are kept, at most
TOKEN_SEED = 0  # of the choice of people among them


@dataclass(frozen=True)
class TestSet:
    """The test split of one data set. `pid` counts the set's own people: a protocol must not depend on what was linked across sets.

    T2I: every caption is a query, every picture is in the gallery once. I2I: queries and gallery as the set, or its reader, marks them.
    """

    name: str
    tasks: list[str]  # that it is scored for
    captions: pd.DataFrame  # one row a caption
    images: pd.DataFrame  # one row a picture, junk and distractors among them

    def parts(self, task: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Queries and gallery of a task."""
        if task == "t2i":
            return self.captions, self.images[self.images["pid"] != JUNK_PID].reset_index(drop=True)
        return tuple(self.images[self.images["role"] == role].reset_index(drop=True) for role in ("query", "gallery"))


def read_test_sets(tables: Manifests) -> list[TestSet]:
    """The data sets that are evaluated, in the order of params.yaml. HplError if there is none."""
    found = []
    for name, account in tables.datasets.items():
        if "test" not in account["use"]:
            continue
        images, captions = (
            table[(table["dataset"] == name) & (table["split"] == "test")] for table in (tables.images, tables.captions)
        )
        people = np.unique(images.loc[images["person"] != "", "person"].astype(str))
        captions = captions[captions["person"] != ""]  # a distractor's caption asks for nobody
        found.append(TestSet(name, account["scored"], _own_pids(captions, people), _own_pids(images, people)))
    if not found:
        raise HplError("no data set has `use: [test]`; expected one to evaluate")
    return found


def _own_pids(table: pd.DataFrame, people: np.ndarray) -> pd.DataFrame:
    """`pid` from the set's own people, from 1; junk and distractors keep their source pid, which is below."""
    pids = np.searchsorted(people, table["person"].astype(str)) + 1
    return table.assign(pid=np.where(table["person"] != "", pids, table["source_pid"])).reset_index(drop=True)


def gather(figures: dict[str, dict[str, dict]]) -> dict:
    """Figures by data set and task -> what metrics.json holds.

    `t2i` and `i2i` are those of the first data set that serves the task; further sets stand under `others`, by name.
    """
    gathered: dict = {}
    for name, tasks in figures.items():
        for task, values in tasks.items():
            if task in gathered:
                gathered.setdefault("others", {}).setdefault(name, {})[task] = values
            else:
                gathered[task] = values
    return gathered


@dataclass(frozen=True)
class Encoded:
    """The features of a test set, float32 with D columns: v_t2i and v_i2i for each row of `test.images`, t_eos for each of `test.captions`."""

    test: TestSet
    t2i: np.ndarray
    i2i: np.ndarray
    text: np.ndarray  # without rows if the set is not scored for t2i

    def parts(self, task: str) -> tuple[np.ndarray, np.ndarray]:
        """Features of `test.parts(task)`."""
        row_of = pd.Series(np.arange(len(self.test.images)), index=self.test.images["image_id"])
        queries, gallery = self.test.parts(task)
        if task == "t2i":
            return self.text, self.t2i[row_of[gallery["image_id"]]]
        return self.i2i[row_of[queries["image_id"]]], self.i2i[row_of[gallery["image_id"]]]


def encode_test_sets(
    images: ImageTower,
    texts: TextTower,
    tables: Manifests,
    size: Input,
    options: Evaluate,
    device: torch.device,
    checkpoint: Checkpoint = NOTHING_KEPT,
    name: str = "",
) -> list[Encoded]:
    """Features of every data set that `read_test_sets` finds. Several processes share the encoding; each gets all features.

    Args:
        name: of the model, by which the checkpoint keeps its features.
    """
    images.to(device), texts.to(device)
    encoded = []
    for test in read_test_sets(tables):
        shape = (size.height, size.width)
        kept = checkpoint.within(f"{name}-{test.name}")
        files = tables.files(test.images)
        t2i, i2i = extract_image_features(images, files, shape, options.batch_size, device, kept, options.flip)
        captions = test.captions["caption"] if "t2i" in test.tasks else []
        text = extract_text_features(texts, captions, size.context_length, options.batch_size, device, kept)
        encoded.append(Encoded(test, t2i.numpy(), i2i.numpy(), text.numpy()))
    return encoded


def evaluate_towers(
    images: ImageTower,
    texts: TextTower,
    tables: Manifests,
    size: Input,
    options: Evaluate,
    device: torch.device,
    checkpoint: Checkpoint = NOTHING_KEPT,
    name: str = "",
) -> dict:
    """Figures of both tasks in percent, as `gather` arranges them, and nothing else. Args as `encode_test_sets`.

    Several processes share the encoding; the first alone computes figures, the others return none.
    """
    encoded = encode_test_sets(images, texts, tables, size, options, device, checkpoint, name)
    if rank():
        return {}
    figures: dict[str, dict[str, dict]] = {}
    for each in encoded:
        for task in each.test.tasks:
            scores = score_blocks(*_compare(each, task, options))
            figures.setdefault(each.test.name, {})[task] = rounded(task_figures(task, scores))
    return gather(figures)


def evaluate_encoded(encoded: list[Encoded], options: Evaluate) -> tuple[dict, dict[str, pd.DataFrame]]:
    """All figures of a model, and the tables behind them: what the evaluate stage reports.

    Returns:
        What metrics.json holds: `gather`'s figures, the first set of each task with bootstrap intervals; `open_set` of those sets;
        `composed` of the first set with captions; `settings`, where something is on that is off by default.
        Tables by name: rank_lists_t2i, rank_lists_i2i, scores_t2i, scores_i2i, similarities.
    """
    figures: dict[str, dict[str, dict]] = {}
    headline: dict[str, dict] = {"open_set": {}, "composed": {}}
    found: dict[str, list[pd.DataFrame]] = {}
    for each in encoded:
        test = each.test
        for task in test.tasks:
            queries, gallery = test.parts(task)
            blocks, rule = _compare(each, task, options)
            examined = examine(blocks, rule, gallery["image_id"].to_numpy(), options.rank_list_length)
            values = task_figures(task, examined.scores)
            if not any(task in others for others in figures.values()):
                values |= bootstrap_intervals(examined.scores, rule.query_pids)
                if examined.open_set:
                    headline["open_set"][task] = rounded(examined.open_set)
                if task == "t2i":
                    composed = evaluate_composed(each.text, each.t2i, each.i2i, queries, test.images, options.composed_weight)
                    headline["composed"] = {kind: rounded(scores) for kind, scores in composed.items()}
            figures.setdefault(test.name, {})[task] = rounded(values)

            key, column = ("caption_id", "caption_id") if task == "t2i" else ("query_image_id", "image_id")
            ids = queries[column].to_numpy()
            lists = examined.lists.assign(**{key: ids[examined.lists["query"]], "dataset": test.name})
            found.setdefault(f"rank_lists_{task}", []).append(lists[["dataset", key, "rank", "image_id", "similarity", "match"]])
            camid = queries["camid"].to_numpy() if task == "i2i" else np.full(len(queries), NO_CAMERA)
            who = pd.DataFrame({"dataset": test.name, key: ids, "pid": rule.query_pids, "camid": camid})
            found.setdefault(f"scores_{task}", []).append(pd.concat([who, examined.scores], axis=1))
            bins = examined.similarities
            bins.insert(0, "dataset", test.name)
            bins.insert(0, "task", task)
            found.setdefault("similarities", []).append(bins)
    settings = {"settings": {name: 1 for name in ("rerank", "flip") if getattr(options, name)}}
    metrics = gather(figures) | {name: values for name, values in (headline | settings).items() if values}
    return metrics, {name: pd.concat(tables, ignore_index=True) for name, tables in found.items()}


def _compare(each: Encoded, task: str, options: Evaluate) -> tuple[Iterator[tuple[int, np.ndarray]], Rule]:
    """Similarities of a task in blocks, and the rule that scores them."""
    queries, gallery = each.test.parts(task)
    rule = task_rule(task, queries, gallery)
    left, right = each.parts(task)
    left, right = unit_checked(left, "query", len(queries)), unit_checked(right, "gallery picture", len(gallery))[rule.kept]
    if options.rerank:
        return reranked_blocks(left, right, options.rerank_k1, options.rerank_k2, options.rerank_lambda), rule
    return cosine_blocks(left, right), rule


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
            "composed_weight": "weight of the sentence where picture and sentence are one query; the picture has the rest",
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
