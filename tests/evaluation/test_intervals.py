"""Bootstrap by identity: against a loop, and as wide as people, not queries, make it."""

import numpy as np
import pandas as pd
import pytest

from hpl.evaluation.intervals import NUM_RESAMPLES, SEED, bootstrap_intervals


def scores(first_rank: np.ndarray, ap: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"num_matches": (first_rank > 0).astype(int), "first_rank": first_rank, "ap": ap, "inp": ap})


def test_against_a_loop_that_draws_people_one_by_one() -> None:
    generator = np.random.default_rng(0)
    pids = generator.integers(5, 25, 100)
    table = scores(generator.integers(0, 3, 100), generator.random(100))
    got = bootstrap_intervals(table, pids)
    kept = table["num_matches"] > 0
    people = np.unique(pids[kept])
    drawn = np.random.default_rng(SEED).multinomial(len(people), np.full(len(people), 1 / len(people)), size=NUM_RESAMPLES)
    figures = []
    for counts in drawn:
        sample = pd.concat([table[kept & (pids == pid)] for pid, count in zip(people, counts) for _ in range(count)])
        figures.append([100 * (sample["first_rank"] == 1).mean(), 100 * sample["ap"].mean()])
    for name, column in zip(("rank1", "mAP"), np.array(figures).T):
        assert got[f"{name}_ci_low"] == pytest.approx(np.percentile(column, 2.5))
        assert got[f"{name}_ci_high"] == pytest.approx(np.percentile(column, 97.5))
    assert got == bootstrap_intervals(table, pids)


def test_queries_of_one_person_do_not_count_as_many() -> None:
    hit = np.repeat(np.arange(20) % 2, 50)
    table = scores(np.where(hit, 1, 9), hit.astype(float))
    by_person = bootstrap_intervals(table, np.repeat(np.arange(20), 50))
    by_query = bootstrap_intervals(table, np.arange(1000))
    assert by_person["rank1_ci_low"] < 35 and by_person["rank1_ci_high"] > 65
    assert 45 < by_query["rank1_ci_low"] < 50 < by_query["rank1_ci_high"] < 55


def test_one_person_and_queries_without_match() -> None:
    got = bootstrap_intervals(scores(np.array([1, 2, 0]), np.array([1.0, 0.5, np.nan])), np.array([3, 3, 4]))
    assert got == {"rank1_ci_low": 50, "rank1_ci_high": 50, "mAP_ci_low": 75, "mAP_ci_high": 75}
