"""Confidence intervals over other people in the test set: a cluster bootstrap by identity.

People are drawn with replacement, and with a person all of its queries (cluster bootstrap, percentiles). Queries of one person
succeed and fail together, so an interval over single queries would be too narrow.
"""

import numpy as np

NUM_RESAMPLES = 1000
BOOTSTRAP_SEED = 0
LEVEL = 95  # percent


def draw_people(pids: np.ndarray, seed: int = BOOTSTRAP_SEED) -> tuple[np.ndarray, np.ndarray]:
    """Draw people with replacement.

    Returns:
        For each query the number of its person, and how often each person is in each sample (NUM_RESAMPLES x people).
    """
    people, person = np.unique(np.asarray(pids), return_inverse=True)
    share = np.full(len(people), 1 / len(people))
    return person, np.random.default_rng(seed).multinomial(len(people), share, size=NUM_RESAMPLES)


def interval(name: str, figures: np.ndarray) -> dict[str, float]:
    """Return `name`_ci_low and `name`_ci_high, between which LEVEL percent of the figures of all samples lie."""
    low, high = np.percentile(figures, [50 - LEVEL / 2, 50 + LEVEL / 2])
    return {f"{name}_ci_low": float(low), f"{name}_ci_high": float(high)}
