"""Both retrieval tasks of a data set, by its protocol: figures and rank lists.

T2I: every test caption is a query, every test picture is in the gallery once, a hit is the same identity; no camera rule.
I2I: queries and gallery as the set marks them; the query's own camera and junk are dropped, distractors stay.
"""

import numpy as np
import pandas as pd

from hpl.evaluation.metrics import JUNK_PID, rank_order, retrieval_metrics

BLOCK = 1024  # queries whose similarities are held at a time


def unit(features: np.ndarray) -> np.ndarray:
    """Rows scaled to length one, float32; their dot product is the cosine."""
    features = np.asarray(features, np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def evaluate_t2i(
    text_features: np.ndarray, image_features: np.ndarray, captions: pd.DataFrame, gallery: pd.DataFrame
) -> dict[str, float]:
    """Figures of text-to-image retrieval: cos(t_eos, v_t2i).

    Args:
        text_features: one row for each row of `captions` (column pid).
        image_features: one row for each row of `gallery` (column pid).
    """
    similarity = unit(text_features) @ unit(image_features).T
    return retrieval_metrics(similarity, captions["pid"].to_numpy(), gallery["pid"].to_numpy())


def evaluate_i2i(
    query_features: np.ndarray, gallery_features: np.ndarray, queries: pd.DataFrame, gallery: pd.DataFrame
) -> dict[str, float]:
    """Figures of image-to-image retrieval: cos(v_i2i, v_i2i). Both tables have columns pid and camid."""
    similarity = unit(query_features) @ unit(gallery_features).T
    return retrieval_metrics(
        similarity, queries["pid"].to_numpy(), gallery["pid"].to_numpy(), _query_camids(queries), gallery["camid"].to_numpy()
    )


def _query_camids(queries: pd.DataFrame) -> np.ndarray:
    """Cameras of the queries; an unknown one (-1) is the camera of no gallery picture."""
    camids = queries["camid"].to_numpy()
    return np.where(camids < 0, -2, camids)


def rank_lists(
    query_features: np.ndarray,
    gallery_features: np.ndarray,
    queries: pd.DataFrame,
    gallery: pd.DataFrame,
    length: int,
    camera_rule: bool,
) -> pd.DataFrame:
    """The best `length` gallery pictures of every query, as the protocol sees them.

    Returns:
        Columns query (row of `queries`), rank from 1, image_id of the gallery picture, similarity (rounded to 4 places), match.
    """
    left, right = unit(query_features), unit(gallery_features)
    gallery_pids, gallery_camids, image_ids = (gallery[name].to_numpy() for name in ("pid", "camid", "image_id"))
    parts = []
    for start in range(0, len(left), BLOCK):
        pids = queries["pid"].to_numpy()[start : start + BLOCK, None]
        ignored = np.broadcast_to(gallery_pids == JUNK_PID, (len(pids), len(gallery_pids)))
        if camera_rule:
            camids = _query_camids(queries)[start : start + BLOCK, None]
            ignored = ignored | ((pids == gallery_pids) & (camids == gallery_camids))
        similarity = left[start : start + BLOCK] @ right.T
        order = rank_order(similarity, ignored, length)
        rows, ranks = np.nonzero(order >= 0)
        found = order[rows, ranks]
        parts.append(
            pd.DataFrame(
                {
                    "query": start + rows,
                    "rank": ranks + 1,
                    "image_id": image_ids[found],
                    "similarity": similarity[rows, found].round(4),
                    "match": gallery_pids[found] == pids[rows, 0],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Figures as they are committed: percent with two decimals, counts as integers."""
    return {name: value if isinstance(value, int) else round(value, 2) for name, value in figures.items()}
