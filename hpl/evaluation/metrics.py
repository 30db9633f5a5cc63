"""How each query of a task fared: the rank of its first match, AP and INP; and rank lists.

AP: the mean precision at the hits (fast-reid, torchreid, CLIP-ReID, IRRA). mINP: hits over the rank of the last one (Ye et al.,
AGW, TPAMI 2021). Ties are pessimistic: a wrong picture that scores the same as a right one counts as ranked before it.

The rank of a match needs no ranking: it is one more than the number of pictures that score at least as high, found by comparing.
That takes a fraction of the time of the product that gives the similarities, where sorting takes a multiple of it.
"""

import numpy as np
import pandas as pd

from hpl.evaluation.protocols import Rule

SORT_FROM = 200  # matches of a query from which one sort takes less time than that many comparisons


def score_block(similarity: np.ndarray, rule: Rule, start: int = 0) -> pd.DataFrame:
    """Score some queries.

    Args:
        similarity: n x (gallery without junk), higher is more alike; it is left as it is.
        start: number of the first of these queries.

    Returns:
        A row a query: num_matches; first_rank of a match (0: none); ap and inp (0..1; NaN: none).
    """
    rows = []
    for query, row in enumerate(similarity, start):
        matches, ignored = rule.positions(query)
        if not len(matches):
            rows.append((0, 0, np.nan, np.nan))
            continue
        scores, own = np.sort(row[matches])[::-1], np.sort(row[np.concatenate([matches, ignored])])
        reached = np.compress(row >= scores[-1], row)  # what is below every match counts for none
        if len(scores) < SORT_FROM:
            as_high = np.array([np.count_nonzero(reached >= score) for score in scores])
        else:
            as_high = len(reached) - np.searchsorted(np.sort(reached), scores, side="left")
        hits = np.arange(1, len(scores) + 1)
        # a match comes after the better matches, and after all others that score at least as high
        ranks = hits + as_high - (len(own) - np.searchsorted(own, scores, side="left"))
        rows.append((len(scores), ranks[0], np.mean(hits / ranks), len(scores) / ranks[-1]))
    table = pd.DataFrame(rows, columns=["num_matches", "first_rank", "ap", "inp"])
    return table.astype({"num_matches": np.int64, "first_rank": np.int64, "ap": np.float64, "inp": np.float64})


def rank_order(similarity: np.ndarray, rule: Rule, length: int, start: int = 0) -> np.ndarray:
    """List the first `length` gallery pictures of each query, best first, ties in gallery order, without what the rule ignores.

    Args:
        similarity: n x (gallery without junk).
        start: number of the first of these queries.

    Returns:
        n x length columns of `similarity`, -1 where fewer pictures are left.
    """
    found = np.full((len(similarity), length), -1)
    for number, row in enumerate(similarity):
        _, ignored = rule.positions(start + number)
        if len(ignored):
            row = row.copy()
            row[ignored] = -np.inf
        least = np.partition(row, len(row) - length)[len(row) - length] if length < len(row) else -np.inf
        best = np.flatnonzero((row >= least) & (row > -np.inf))
        best = best[np.argsort(-row[best], kind="stable")][:length]
        found[number, : len(best)] = best
    return found
