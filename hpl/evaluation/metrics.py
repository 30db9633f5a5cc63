"""Rank-k, mAP and mINP by the protocols of text-to-image and image-to-image re-identification.

AP is the mean of the precision at each hit (fast-reid, torchreid, CLIP-ReID, IRRA). mINP (Ye et al., AGW, TPAMI 2021) is the number of hits
over the rank of the last hit. Ties are pessimistic: a wrong picture that scores the same as a right one counts as ranked before it.

The rank of a match needs no ranking: it is one more than the number of pictures that score at least as high, found by comparing. That takes
a fraction of the time of the product that gives the similarities, where sorting takes a multiple of it.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from hpl.evaluation.similarity import BLOCK, cosine_blocks, unit_checked
from hpl.files import HplError
from hpl.tasks import JUNK_PID

RANKS = (1, 5, 10)
SORT_FROM = 200  # matches of a query from which one sort takes less time than that many comparisons


class Rule:
    """Who matches whom: for each query, its matches and what it ignores among the gallery pictures that are not junk."""

    def __init__(
        self,
        query_pids: np.ndarray,
        gallery_pids: np.ndarray,
        query_camids: np.ndarray | None = None,
        gallery_camids: np.ndarray | None = None,
    ) -> None:
        """Args as those of `retrieval_metrics`. HplError if camids are given for one side alone, or are not as many as pids."""
        if (query_camids is None) != (gallery_camids is None):
            raise HplError("camids are given for one side alone; expected both (image-to-image) or neither (text-to-image)")
        for what, pids, camids in (("query", query_pids, query_camids), ("gallery", gallery_pids, gallery_camids)):
            if camids is not None and len(camids) != len(pids):
                raise HplError(f"there are {len(camids)} {what} camids for {len(pids)} {what} pids; expected as many")
        self.kept = np.asarray(gallery_pids) != JUNK_PID  # G: the columns that all below is about
        self.query_pids, self.gallery_pids = np.asarray(query_pids), np.asarray(gallery_pids)[self.kept]
        self.query_camids = None if query_camids is None else np.asarray(query_camids)
        self.gallery_camids = None if gallery_camids is None else np.asarray(gallery_camids)[self.kept]
        self._order = np.argsort(self.gallery_pids, kind="stable")
        ordered = self.gallery_pids[self._order]
        self._first, self._last = (np.searchsorted(ordered, self.query_pids, side) for side in ("left", "right"))

    def positions(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """Columns of a query's matches, and of what it ignores: its person seen by its camera."""
        same = self._order[self._first[query] : self._last[query]]
        if self.query_camids is None:
            return same, same[:0]
        if self.query_pids[query] <= 0:  # a distractor is nobody
            return same[:0], same[:0]
        ignored = self.gallery_camids[same] == self.query_camids[query]
        return same[~ignored], same[ignored]


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


def score_blocks(blocks: Iterable[tuple[int, np.ndarray]], rule: Rule) -> pd.DataFrame:
    """Score all queries: `blocks` yields the number of the first query and some similarities, as `score_block` takes them."""
    parts = [score_block(similarity, rule, start) for start, similarity in blocks]
    return pd.concat(parts or [score_block(np.empty((0, 0)), rule)], ignore_index=True)


def summarise(scores: pd.DataFrame) -> dict[str, float]:
    """Figures of a table of scores: what `retrieval_metrics` returns. HplError if no query has a match."""
    found = scores[scores["num_matches"] > 0]
    if found.empty:
        raise HplError(f"none of the {len(scores)} queries has a match in the gallery")
    return {
        **{f"rank{k}": 100 * float((found["first_rank"] <= k).mean()) for k in RANKS},
        "mAP": 100 * float(found["ap"].mean()),
        "mINP": 100 * float(found["inp"].mean()),
        "num_queries": len(found),
        "num_skipped": len(scores) - len(found),
    }


def retrieval_metrics(
    similarity: np.ndarray,
    query_pids: np.ndarray,
    gallery_pids: np.ndarray,
    query_camids: np.ndarray | None = None,
    gallery_camids: np.ndarray | None = None,
) -> dict[str, float]:
    """Score a similarity matrix.

    Args:
        similarity: Q x G, higher is more alike.
        query_pids, gallery_pids: Q and G identities; in the gallery -1 is junk (ignored) and, by the
            image-to-image rule, 0 a distractor (matches nobody); caption sets number people from 0.
        query_camids, gallery_camids: with both, the image-to-image rule: gallery pictures of the query's person **and** camera are
            ignored; equal numbers are one camera, so give unknown cameras different ones on both sides. With neither, the
            text-to-image rule: nothing is ignored but junk.

    Returns:
        rank1, rank5, rank10, mAP and mINP in percent, num_queries that were scored, and num_skipped that have no match in the gallery.

    Raises:
        HplError: shapes do not fit, a similarity is not a finite number, or no query has a match.
    """
    similarity = np.asarray(similarity)
    if not np.issubdtype(similarity.dtype, np.number):
        raise HplError(f"similarity is of type {similarity.dtype}; expected numbers")
    if similarity.shape != (len(query_pids), len(gallery_pids)):
        raise HplError(
            f"similarity has shape {similarity.shape}; expected {len(query_pids)} queries x {len(gallery_pids)} gallery pictures"
        )
    rule = Rule(query_pids, gallery_pids, query_camids, gallery_camids)
    if not np.isfinite(similarity).all():
        row, column = np.argwhere(~np.isfinite(similarity))[0]
        raise HplError(
            f"similarity of query {row} and gallery picture {column} is {similarity[row, column]}; expected finite numbers"
        )
    return summarise(score_block(similarity[:, rule.kept], rule))


def stream_scores(
    query_features: np.ndarray,
    gallery_features: np.ndarray,
    query_pids: np.ndarray,
    gallery_pids: np.ndarray,
    query_camids: np.ndarray | None = None,
    gallery_camids: np.ndarray | None = None,
    block: int = BLOCK,
) -> pd.DataFrame:
    """Score the cosines of features without ever holding all of them: `summarise` of it is `retrieval_metrics` of them.

    Args:
        query_features, gallery_features: Q x D and G x D, of any length.
        block: queries whose similarities are held at a time (n x G float32); it changes no bit of the result.

    Returns:
        A row a query, as `score_block` says.

    Raises:
        HplError: features are not finite or not as many as pids.
    """
    rule = Rule(query_pids, gallery_pids, query_camids, gallery_camids)
    left = unit_checked(query_features, "query", len(query_pids))
    right = unit_checked(gallery_features, "gallery picture", len(gallery_pids))
    right = right if rule.kept.all() else right[rule.kept]
    return score_blocks(cosine_blocks(left, right, block), rule)


def rank_order(similarity: np.ndarray, rule: Rule, length: int, start: int = 0) -> np.ndarray:
    """The first `length` gallery pictures of each query, best first and ties in gallery order, leaving out what the rule ignores.

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
