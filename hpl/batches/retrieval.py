"""A model, or no model, on the test split of every data set that is to be evaluated."""

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
from hpl.evaluation.histogram import VARIANTS, colour_histograms
from hpl.evaluation.protocols import evaluate_i2i, evaluate_t2i, rank_lists, rounded
from hpl.files import HplError
from hpl.manifests.pictures import read_pictures
from hpl.manifests.records import JUNK_PID
from hpl.manifests.tables import Manifests

BLOCK = 512  # pictures read at a time for histograms


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


def evaluate_towers(
    images: ImageTower,
    texts: TextTower,
    tables: Manifests,
    size: Input,
    options: Evaluate,
    device: torch.device,
    checkpoint: Checkpoint = NOTHING_KEPT,
    name: str = "",
) -> tuple[dict, dict[str, pd.DataFrame]]:
    """Figures of both tasks in percent, as `gather` arranges them, and rank lists of both with dataset and query or caption id.

    Args:
        name: of the model, by which the checkpoint keeps its features.

    Several processes share the encoding; the first alone computes figures, the others return none.
    """
    images.to(device), texts.to(device)
    figures: dict[str, dict[str, dict]] = {}
    ranks: dict[str, list[pd.DataFrame]] = {"t2i": [], "i2i": []}
    for test in read_test_sets(tables):
        shape = (size.height, size.width)
        kept = checkpoint.within(f"{name}-{test.name}")
        both = extract_image_features(images, tables.files(test.images), shape, options.batch_size, device, kept)
        if "t2i" in test.tasks:
            captions = extract_text_features(
                texts, test.parts("t2i")[0]["caption"], size.context_length, options.batch_size, device, kept
            )
        if rank():
            continue
        row_of = pd.Series(np.arange(len(test.images)), index=test.images["image_id"])
        for task in test.tasks:
            queries, gallery = test.parts(task)
            found = both[task == "i2i"].numpy()[row_of[gallery["image_id"]]]
            if task == "t2i":
                asked = captions.numpy()
                scores = evaluate_t2i(asked, found, queries, gallery)
            else:
                asked = both[1].numpy()[row_of[queries["image_id"]]]
                scores = evaluate_i2i(asked, found, queries, gallery)
            figures.setdefault(test.name, {})[task] = rounded(scores)
            lists = rank_lists(asked, found, queries, gallery, options.rank_list_length, camera_rule=task == "i2i")
            key, column = ("caption_id", "caption_id") if task == "t2i" else ("query_image_id", "image_id")
            lists.insert(0, key, queries[column].to_numpy()[lists.pop("query")])
            lists.insert(0, "dataset", test.name)
            ranks[task].append(lists)
    return gather(figures), {task: pd.concat(lists, ignore_index=True) for task, lists in ranks.items() if lists}


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
