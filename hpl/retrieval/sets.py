"""What is retrieved from what: the test split of each set that is evaluated, and the validation split of each that trains."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hpl.files import HplError
from hpl.manifests.tables import Manifests, choose_queries
from hpl.tasks import I2I, JUNK_PID, T2I, Task


@dataclass(frozen=True)
class RetrievalSet:
    """Queries and gallery of one data set.

    T2I: every caption is a query, every picture is in the gallery once. I2I: both as the set, or its reader, marks them.

    Attributes:
        tasks: those that it is scored for.
        captions: a row a caption; images: a row a picture, junk and distractors among them.
    """

    name: str
    tasks: list[Task]
    captions: pd.DataFrame
    images: pd.DataFrame

    def queries_and_gallery(self, task: Task) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the rows that ask and the rows that are searched."""
        if task.by_caption:
            return self.captions, self.images[self.images["pid"] != JUNK_PID].reset_index(drop=True)
        queries, gallery = (self.images[self.images["role"] == role].reset_index(drop=True) for role in ("query", "gallery"))
        return queries, gallery


def read_test_sets(tables: Manifests) -> list[RetrievalSet]:
    """Read the data sets that are evaluated, in the order of params.yaml. HplError if there is none.

    `pid` counts a set's own people: a protocol must not depend on what was linked across sets.
    """
    found = []
    for name, account in tables.datasets.items():
        if "test" not in account["use"]:
            continue
        images, captions = (t[(t["dataset"] == name) & (t["split"] == "test")] for t in (tables.images, tables.captions))
        people = np.unique(images.loc[images["person"] != "", "person"].astype(str))
        captions = captions[captions["person"] != ""]  # a distractor's caption asks for nobody
        tasks = [task for task in (T2I, I2I) if task.name in account["scored"]]
        found.append(RetrievalSet(name, tasks, _own_pids(captions, people), _own_pids(images, people)))
    if not found:
        raise HplError("no data set has `use: [test]`; expected one to evaluate")
    return found


def _own_pids(table: pd.DataFrame, people: np.ndarray) -> pd.DataFrame:
    """Give the set's own people numbers from 1; junk and distractors keep their source pid, which is below."""
    pids = np.searchsorted(people, table["person"].astype(str)) + 1
    return table.assign(pid=np.where(table["person"] != "", pids, table["source_pid"])).reset_index(drop=True)


def read_validation_sets(tables: Manifests) -> list[RetrievalSet]:
    """Read the data sets that train and have validation people, without those that no task can be measured for.

    Image-to-image queries are drawn as for a test split without marks (choose_queries).
    """
    pictures = tables.images[tables.images["role"] == "val"]
    captions = tables.captions[tables.captions["role"] == "val"]
    found = []
    for name in pictures["dataset"].unique():
        own, sentences = pictures[pictures["dataset"] == name], captions[captions["dataset"] == name]
        drawn = choose_queries(own.assign(split="test", role="", anonymous=own["person"] == ""), seed=0)
        can_ask = {T2I.name: len(sentences) > 0, I2I.name: (drawn["role"] == "query").any()}
        tasks = [task for task in (T2I, I2I) if can_ask[task.name] and name in tables.serving(task.name, "train")]
        if tasks:
            found.append(RetrievalSet(name, tasks, sentences.reset_index(drop=True), drawn.reset_index(drop=True)))
    return found
