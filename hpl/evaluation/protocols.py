"""Both retrieval tasks of a data set, by its protocol: figures, scores of every query, rank lists, and how similar right and wrong pictures are.

T2I: every test caption is a query, every test picture is in the gallery once, a hit is the same identity; no camera rule.
I2I: queries and gallery as the set marks them; the query's own camera and junk are dropped, distractors stay.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hpl.evaluation.metrics import RANKS, Rule, rank_order, score_block, stream_scores, summarise
from hpl.evaluation.open_set import OpenSet

NUM_BINS = 60  # of similarities, over their range
FINE = 200  # bins for each 0.01 of similarity, of which those are made


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


@dataclass(frozen=True)
class Examined:
    """What one pass over the similarities of a task gives."""

    scores: pd.DataFrame  # a row a query: see hpl.evaluation.metrics.score_block
    lists: pd.DataFrame  # query (its number), rank from 1, image_id, similarity (4 places), match
    similarities: pd.DataFrame  # low, high (edges of a bin), matches, others (counts)
    open_set: dict[str, float]  # see hpl.evaluation.open_set.OpenSet.figures


def examine(blocks: Iterable[tuple[int, np.ndarray]], rule: Rule, image_ids: np.ndarray, length: int) -> Examined:
    """All that is reported of a task.

    Args:
        blocks: as `cosine_blocks` or `reranked_blocks` yields them, of all queries with the gallery without junk.
        image_ids: of the gallery, with junk.
        length: of a rank list.
    """
    image_ids = np.asarray(image_ids)[rule.kept]
    scores, lists, open_set = [], [], OpenSet(rule)
    counts = np.zeros((2, 200 * FINE + 1), np.int64)  # matches and others
    for start, similarity in blocks:
        scores.append(score_block(similarity, rule, start))
        lists.append(_rank_lists(similarity, rule, image_ids, length, start))
        counts += _count_similarities(similarity, rule, start)
        open_set.add(similarity, start)
    return Examined(
        pd.concat(scores, ignore_index=True),
        pd.concat(lists, ignore_index=True),
        _histogram(counts),
        open_set.figures(),
    )


def _rank_lists(similarity: np.ndarray, rule: Rule, image_ids: np.ndarray, length: int, start: int) -> pd.DataFrame:
    order = rank_order(similarity, rule, length, start)
    rows, ranks = np.nonzero(order >= 0)
    found = order[rows, ranks]
    return pd.DataFrame(
        {
            "query": start + rows,
            "rank": ranks + 1,
            "image_id": image_ids[found],
            "similarity": similarity[rows, found].round(4),
            "match": rule.gallery_pids[found] == rule.query_pids[start + rows],
        }
    )


def _count_similarities(similarity: np.ndarray, rule: Rule, start: int) -> np.ndarray:
    """2 x fine bins from -1 to 1: of matches and of others; what the rule ignores is in neither."""
    num_bins = 200 * FINE + 1

    def bins(values: np.ndarray) -> np.ndarray:
        places = np.clip((values + 1) * (100 * FINE), 0, num_bins - 1).astype(np.int32)
        return np.bincount(places.ravel(), minlength=num_bins)

    positions = [rule.positions(start + number) for number in range(len(similarity))]
    matches, ignored = (
        bins(np.concatenate([row[columns[kind]] for row, columns in zip(similarity, positions)])) for kind in (0, 1)
    )
    return np.stack([matches, sum(bins(row) for row in similarity) - matches - ignored])


def _histogram(counts: np.ndarray) -> pd.DataFrame:
    """Fine bins joined to NUM_BINS over the range that is in use."""
    used = np.flatnonzero(counts.any(axis=0))
    width = -(-(used[-1] + 1 - used[0]) // NUM_BINS)
    padded = np.pad(counts[:, used[0] :], ((0, 0), (0, NUM_BINS * width)))[:, : NUM_BINS * width]
    edges = ((used[0] + width * np.arange(NUM_BINS + 1)) / (100 * FINE) - 1).round(6)
    matches, others = padded.reshape(2, NUM_BINS, width).sum(axis=2)
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "matches": matches, "others": others})


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Figures as they are committed: percent with two decimals, counts as integers."""
    return {name: value if isinstance(value, int) else round(value, 2) for name, value in figures.items()}
