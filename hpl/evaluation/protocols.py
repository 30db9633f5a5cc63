"""Both retrieval tasks of a data set, by its protocol.

T2I: every test caption is a query, every test picture is in the gallery once, a hit is the same identity; no camera rule.
I2I: queries and gallery as the set marks them; the query's own camera and junk are dropped, distractors stay.
"""

import numpy as np
import pandas as pd

from hpl.evaluation.metrics import RANKS, Rule, stream_scores, summarise


def evaluate_t2i(
    text_features: np.ndarray, image_features: np.ndarray, captions: pd.DataFrame, gallery: pd.DataFrame
) -> dict[str, float]:
    """Figures of text-to-image retrieval: cos(t_eos, v_t2i).

    Args:
        text_features: one row for each row of `captions` (column pid).
        image_features: one row for each row of `gallery` (column pid).
    """
    scores = stream_scores(text_features, image_features, *_rule_columns("t2i", captions, gallery))
    return task_figures("t2i", scores)


def evaluate_i2i(
    query_features: np.ndarray, gallery_features: np.ndarray, queries: pd.DataFrame, gallery: pd.DataFrame
) -> dict[str, float]:
    """Figures of image-to-image retrieval: cos(v_i2i, v_i2i). Both tables have columns pid and camid."""
    scores = stream_scores(query_features, gallery_features, *_rule_columns("i2i", queries, gallery))
    return task_figures("i2i", scores)


def task_figures(task: str, scores: pd.DataFrame) -> dict[str, float]:
    """Figures of a table of scores; text-to-image has the sum of rank1, rank5 and rank10 too, as its papers do."""
    figures = summarise(scores)
    return figures | ({"rsum": sum(figures[f"rank{k}"] for k in RANKS)} if task == "t2i" else {})


def task_rule(task: str, queries: pd.DataFrame, gallery: pd.DataFrame) -> Rule:
    """Who matches whom in a task (t2i | i2i). The tables have columns pid and, for i2i, camid."""
    return Rule(*_rule_columns(task, queries, gallery))


def _rule_columns(task: str, queries: pd.DataFrame, gallery: pd.DataFrame) -> tuple[np.ndarray | None, ...]:
    pids = queries["pid"].to_numpy(), gallery["pid"].to_numpy()
    if task == "t2i":
        return *pids, None, None
    camids = queries["camid"].to_numpy()
    return *pids, np.where(camids < 0, -2, camids), gallery["camid"].to_numpy()  # an unknown camera is that of no gallery picture


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Figures as they are committed: percent with two decimals, counts as integers."""
    return {name: value if isinstance(value, int) else round(value, 2) for name, value in figures.items()}
