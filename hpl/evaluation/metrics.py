"""Rank-k, mAP and mINP by the protocols of text-to-image and image-to-image re-identification.

AP is the mean of the precision at each hit (fast-reid, torchreid, CLIP-ReID, IRRA). mINP (Ye et al., AGW, TPAMI 2021) is the number of hits
over the rank of the last hit. Ties are pessimistic: a wrong picture that scores the same as a right one counts as ranked before it.
"""

import numpy as np

from hpl.files import HplError

JUNK_PID = -1  # dropped from every gallery; a distractor, pid 0, stays as a negative
RANKS = (1, 5, 10)


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
            ignored. With neither, the text-to-image rule: nothing is ignored but junk.

    Returns:
        rank1, rank5, rank10, mAP and mINP in percent, num_queries that were scored, and num_skipped that have no match in the gallery.

    Raises:
        HplError: shapes do not fit, a similarity is not finite, or no query has a match.
    """
    similarity, query_pids, gallery_pids = np.asarray(similarity), np.asarray(query_pids), np.asarray(gallery_pids)
    if similarity.shape != (len(query_pids), len(gallery_pids)):
        raise HplError(
            f"similarity has shape {similarity.shape}; expected {len(query_pids)} queries x {len(gallery_pids)} gallery pictures"
        )
    if (query_camids is None) != (gallery_camids is None):
        raise HplError("camids are given for one side alone; expected both (image-to-image) or neither (text-to-image)")
    if not np.isfinite(similarity).all():
        row, column = np.argwhere(~np.isfinite(similarity))[0]
        raise HplError(
            f"similarity of query {row} and gallery picture {column} is {similarity[row, column]}; expected finite numbers"
        )
    scores = []
    for query, pid in enumerate(query_pids):
        ignored = gallery_pids == JUNK_PID
        if query_camids is not None:
            ignored |= (gallery_pids == pid) & (np.asarray(gallery_camids) == query_camids[query])
        match = (gallery_pids == pid) & ~ignored
        if match.any() and (pid > 0 or query_camids is None):
            scores.append(_score_query(similarity[query, match], similarity[query, ~match & ~ignored]))
    if not scores:
        raise HplError(f"none of the {len(query_pids)} queries has a match in the gallery of {len(gallery_pids)} pictures")
    mean = 100 * np.mean(scores, axis=0)
    names = [*(f"rank{k}" for k in RANKS), "mAP", "mINP"]
    return {
        **dict(zip(names, mean.tolist(), strict=True)),
        "num_queries": len(scores),
        "num_skipped": len(query_pids) - len(scores),
    }


def _score_query(matches: np.ndarray, others: np.ndarray) -> list[float]:
    """Rank-k hits, AP and INP of one query from the scores of its matches and of everything else."""
    matches, others = np.sort(matches)[::-1], np.sort(others)
    hits = np.arange(1, len(matches) + 1)
    # each match comes after the better matches and after all others that score at least as high
    ranks = hits + len(others) - np.searchsorted(others, matches, side="left")
    return [*(float(ranks[0] <= k) for k in RANKS), float(np.mean(hits / ranks)), len(matches) / ranks[-1]]


def rank_order(similarity: np.ndarray, ignored: np.ndarray, length: int) -> np.ndarray:
    """The first `length` gallery indices of each query, best first and ties in gallery order, leaving out what is ignored.

    Args:
        similarity: Q x G.
        ignored: Q x G, True where the protocol drops a gallery picture.

    Returns:
        Q x length indices, -1 where fewer pictures are left.
    """
    scores = np.where(ignored, -np.inf, similarity)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :length]
    return np.where(np.isinf(np.take_along_axis(scores, order, axis=1)), -1, order)
