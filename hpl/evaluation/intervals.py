"""How far a figure would move with other people in the test set: bootstrap intervals, by identity."""

import numpy as np
import pandas as pd

NUM_RESAMPLES = 1000
SEED = 0
LEVEL = 95  # percent


def bootstrap_intervals(scores: pd.DataFrame, pids: np.ndarray) -> dict[str, float]:
    """Intervals of rank1 and mAP: people are drawn with replacement, and with a person all of its queries (cluster bootstrap, percentiles).

    Queries of one person succeed and fail together, so an interval over single queries would be too narrow.

    Args:
        scores: a row a query, as `stream_scores` returns it; queries without a match are left out.
        pids: of the queries.

    Returns:
        rank1_ci_low, rank1_ci_high, mAP_ci_low, mAP_ci_high in percent. With one person alone both ends are the figure.
    """
    found = (scores["num_matches"] > 0).to_numpy()
    _, person = np.unique(np.asarray(pids)[found], return_inverse=True)
    values = {"rank1": (scores["first_rank"] == 1).to_numpy()[found], "mAP": scores["ap"].to_numpy()[found]}
    num_queries = np.bincount(person)
    num_people = len(num_queries)
    drawn = np.random.default_rng(SEED).multinomial(num_people, np.full(num_people, 1 / num_people), size=NUM_RESAMPLES)
    intervals = {}
    for name, value in values.items():
        figures = 100 * (drawn @ np.bincount(person, weights=value)) / (drawn @ num_queries)
        ends = np.percentile(figures, [50 - LEVEL / 2, 50 + LEVEL / 2])
        intervals |= {f"{name}_ci_{end}": float(figure) for end, figure in zip(("low", "high"), ends)}
    return intervals
