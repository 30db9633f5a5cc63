"""How far a figure would move with other people in the test set: bootstrap intervals, by identity.

People are drawn with replacement, and with a person all of its queries (cluster bootstrap, percentiles). Queries of one person succeed and
fail together, so an interval over single queries would be too narrow.
"""

import numpy as np
import pandas as pd

from hpl.evaluation.metrics import RANKS

NUM_RESAMPLES = 1000
SEED = 0
LEVEL = 95  # percent


def draw_people(pids: np.ndarray, seed: int = SEED) -> tuple[np.ndarray, np.ndarray]:
    """For each query the number of its person, and how often each person is in each sample (NUM_RESAMPLES x people)."""
    people, person = np.unique(np.asarray(pids), return_inverse=True)
    share = np.full(len(people), 1 / len(people))
    return person, np.random.default_rng(seed).multinomial(len(people), share, size=NUM_RESAMPLES)


def interval(name: str, figures: np.ndarray) -> dict[str, float]:
    """`name`_ci_low and `name`_ci_high: what LEVEL percent of the figures of all samples lie between."""
    low, high = np.percentile(figures, [50 - LEVEL / 2, 50 + LEVEL / 2])
    return {f"{name}_ci_low": float(low), f"{name}_ci_high": float(high)}


def bootstrap_intervals(scores: pd.DataFrame, pids: np.ndarray, rsum: bool = False) -> dict[str, float]:
    """Intervals of rank1 and mAP, and of rsum if asked for.

    Args:
        scores: a row a query, as `stream_scores` returns it; queries without a match are left out.
        pids: of the queries.

    Returns:
        rank1_ci_low, rank1_ci_high, mAP_ci_low, mAP_ci_high in percent, and of rsum. With one person alone both ends are the figure.
    """
    found = (scores["num_matches"] > 0).to_numpy()
    values = _values(scores[found])
    if rsum:
        values["rsum"] = sum((scores["first_rank"] <= k).to_numpy(float) for k in RANKS)[found]
    return _intervals(values, np.asarray(pids)[found])


def bootstrap_gain(scores: pd.DataFrame, reference: pd.DataFrame, pids: np.ndarray) -> dict[str, float]:
    """rank1 and mAP of `scores` less those of `reference`, on the same queries, with intervals of these differences.

    Args:
        scores, reference, pids: as in `bootstrap_intervals`; a query has a match in both or in neither.

    Returns:
        rank1 and mAP in points of percent, and the ends of their intervals, named as those of `bootstrap_intervals`.
    """
    found = (scores["num_matches"] > 0).to_numpy()
    own, other = _values(scores[found]), _values(reference[found])
    gains = {name: own[name] - other[name] for name in own}
    means = {name: 100 * float(gain.mean()) for name, gain in gains.items()}
    return means | _intervals(gains, np.asarray(pids)[found])


def _values(scores: pd.DataFrame) -> dict[str, np.ndarray]:
    """What the figures are means of, by query."""
    return {"rank1": (scores["first_rank"] == 1).to_numpy(float), "mAP": scores["ap"].to_numpy()}


def _intervals(values: dict[str, np.ndarray], pids: np.ndarray) -> dict[str, float]:
    person, drawn = draw_people(pids)
    num_queries = drawn @ np.bincount(person)
    ends: dict[str, float] = {}
    for name, value in values.items():
        ends |= interval(name, 100 * (drawn @ np.bincount(person, weights=value)) / num_queries)
    return ends
