"""Whether the queries of a task have anything to find: told from who asks and what is searched, before any model is."""

import numpy as np
import pandas as pd

from hpl.evaluation.protocols import task_rule
from hpl.tasks import Task


def unmatched(task: Task, queries: pd.DataFrame, gallery: pd.DataFrame) -> np.ndarray:
    """Tell of each query whether it has no match in the gallery; it cannot be scored then. Tables as `task_rule` takes them."""
    rule = task_rule(task, queries, gallery)
    return np.array([not len(rule.positions(query)[0]) for query in range(len(queries))], dtype=bool)


def why_unscored(task: Task, queries: pd.DataFrame, gallery: pd.DataFrame) -> str:
    """Say, with numbers and the way out, why no query of a task has a match; "" if one has."""
    if len(queries) and not unmatched(task, queries, gallery).all():
        return ""
    if task.by_caption:
        return f"none of {len(gallery):,} pictures is of a person and has a caption; expected captions"
    asked, found = set(queries["pid"]), set(gallery.loc[gallery["pid"] > 0, "pid"])
    named = pd.concat([queries, gallery[gallery["pid"] > 0]])
    cameras = named["camid"].unique()
    if asked and not asked & found:
        return (
            f"none of the {len(asked):,} people of {len(queries):,} queries is in the gallery of {len(gallery):,} pictures; "
            "expected other pictures of these people there"
        )
    if len(cameras) == 1 and cameras[0] >= 0:
        return (
            f"all {len(named):,} pictures of people are by camera {cameras[0]}, and what the query's own camera took is left "
            "out; expected two cameras or more, or no cameras if they are not known"
        )
    if not len(queries):
        needed = "pictures by two cameras" if len(named) and named["camid"].max() >= 0 else "two different pictures"
        return f"none of {len(found):,} people has {needed}, one to ask with and one to find; expected some who have"
    return (
        f"none of {len(queries):,} queries has a match: {len(asked - found):,} of {len(asked):,} people asked for are not in the "
        "gallery, and of the others it has only the query itself, or what its own camera took; expected pictures by another "
        "camera there"
    )
