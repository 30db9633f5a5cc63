"""What is retrieved from what: the test split of each set that is evaluated, and the validation split of each that trains."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

from hpl.evaluation.matches import why_unscored
from hpl.files import HplError
from hpl.manifests.tables import Manifests, choose_queries, own_test_split, queries_and_gallery
from hpl.tasks import I2I, T2I, Task


@dataclass(frozen=True)
class RetrievalSet:
    """Queries and gallery of one data set.

    T2I: every caption is a query, every picture is in the gallery once. I2I: both as the set, or its reader, marks them.

    Attributes:
        tasks: those that it is scored for.
        captions: a row a caption; images: a row a picture, junk and distractors among them.
        not_scored: why it is not scored for another task that it was made for, by the task's name.
    """

    name: str
    tasks: list[Task]
    captions: pd.DataFrame
    images: pd.DataFrame
    not_scored: dict[str, str] = field(default_factory=dict)

    def queries_and_gallery(self, task: Task) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the rows that ask and the rows that are searched."""
        return queries_and_gallery(task, self.captions, self.images)


def read_test_sets(tables: Manifests) -> list[RetrievalSet]:
    """Read the data sets that are evaluated, in the order of params.yaml. HplError if there is none.

    `pid` counts a set's own people: a protocol must not depend on what was linked across sets.
    """
    found = []
    for name, account in tables.datasets.items():
        if "test" not in account["use"]:
            continue
        captions, images = own_test_split(tables.images[tables.images["dataset"] == name], tables.captions)
        tasks = [task for task in (T2I, I2I) if task.name in account["scored"]]
        found.append(RetrievalSet(name, tasks, captions, images, account["not_scored"]))
    if not found:
        raise HplError("no data set has `use: [test]`; expected one to evaluate")
    return found


def unscored(sets: Iterable[RetrievalSet]) -> dict[str, dict[str, dict[str, str]]]:
    """Return what metrics.json says beside its figures: `not_scored`, by set and task the reason; empty if all is scored."""
    reasons = {each.name: dict(each.not_scored) for each in sets if each.not_scored}
    return {"not_scored": reasons} if reasons else {}


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
        tasks = [
            task
            for task in (T2I, I2I)
            if name in tables.serving(task.name, "train") and not why_unscored(task, *queries_and_gallery(task, sentences, drawn))
        ]
        if tasks:
            found.append(RetrievalSet(name, tasks, sentences.reset_index(drop=True), drawn.reset_index(drop=True)))
    return found
