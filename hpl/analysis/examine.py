"""What one pass over the similarities of a task gives beside its figures: rank lists, how similar right and wrong pictures are, strangers."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hpl.analysis.open_set import OpenSet
from hpl.evaluation.metrics import Rule, rank_order, score_block

NUM_BINS = 60  # of similarities, over their range
FINE = 20_000  # bins for each 1.0 of similarity, of which those are made


@dataclass(frozen=True)
class Examined:
    """What one pass over the similarities of a task gives."""

    scores: pd.DataFrame  # a row a query: see hpl.evaluation.metrics.score_block
    lists: pd.DataFrame  # query (its number), rank from 1, image_id, similarity (4 places), match
    similarities: pd.DataFrame  # low, high (edges of a bin), matches, others (counts)
    open_set: dict[str, float]  # see hpl.analysis.open_set.OpenSet.figures


def examine(blocks: Iterable[tuple[int, np.ndarray]], rule: Rule, image_ids: np.ndarray, length: int) -> Examined:
    """All that is reported of a task.

    Args:
        blocks: as `cosine_blocks` or `reranked_blocks` yields them, of all queries with the gallery without junk.
        image_ids: of the gallery, with junk.
        length: of a rank list.
    """
    image_ids = np.asarray(image_ids)[rule.kept]
    scores, lists, open_set = [], [], OpenSet(rule)
    counts = np.zeros((2, 2 * FINE + 1), np.int64)  # matches and others
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
    num_bins = 2 * FINE + 1

    def bins(values: np.ndarray) -> np.ndarray:
        places = np.clip((values + 1) * FINE, 0, num_bins - 1).astype(np.int32)
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
    edges = ((used[0] + width * np.arange(NUM_BINS + 1)) / FINE - 1).round(6)
    matches, others = padded.reshape(2, NUM_BINS, width).sum(axis=2)
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "matches": matches, "others": others})
