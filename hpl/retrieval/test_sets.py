"""A model on the test split of every data set that is to be evaluated: features, and the figures of both tasks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from hpl.backbones.towers import ImageTower, TextTower
from hpl.config import Evaluate, Input
from hpl.evaluation.metrics import Rule, score_blocks
from hpl.evaluation.protocols import rounded, task_figures, task_rule
from hpl.evaluation.rerank import reranked_blocks
from hpl.evaluation.similarity import cosine_blocks, unit_checked
from hpl.files import HplError
from hpl.manifests.tables import Manifests
from hpl.retrieval.features import extract_image_features, extract_text_features
from hpl.runtime.checkpoint import NOTHING_KEPT, Checkpoint
from hpl.runtime.distributed import rank
from hpl.tasks import JUNK_PID


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
            scores = score_blocks(*compare(each, task, options))
            figures.setdefault(each.test.name, {})[task] = rounded(task_figures(task, scores))
    return gather(figures)


def compare(each: Encoded, task: str, options: Evaluate) -> tuple[Iterator[tuple[int, np.ndarray]], Rule]:
    """Similarities of a task in blocks, and the rule that scores them."""
    queries, gallery = each.test.parts(task)
    rule = task_rule(task, queries, gallery)
    left, right = each.parts(task)
    left, right = unit_checked(left, "query", len(queries)), unit_checked(right, "gallery picture", len(gallery))[rule.kept]
    if options.rerank:
        return reranked_blocks(left, right, options.rerank_k1, options.rerank_k2, options.rerank_lambda), rule
    return cosine_blocks(left, right), rule
