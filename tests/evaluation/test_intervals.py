"""Bootstrap by identity: against a loop, and as wide as people, not queries, make it."""

import numpy as np
import pandas as pd
import pytest

from hpl.evaluation.intervals import BOOTSTRAP_SEED, NUM_RESAMPLES
from hpl.evaluation.scores import Scores


def scores(first_rank: np.ndarray, ap: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"num_matches": (first_rank > 0).astype(int), "first_rank": first_rank, "ap": ap, "inp": ap})


def bootstrap_intervals(table: pd.DataFrame, pids: np.ndarray) -> dict[str, float]:
    return Scores(table, pids).intervals()


def bootstrap_gain(table: pd.DataFrame, reference: pd.DataFrame, pids: np.ndarray) -> dict[str, float]:
    return Scores(table, pids).gain_over(Scores(reference, pids))


def test_against_a_loop_that_draws_people_one_by_one() -> None:
    generator = np.random.default_rng(0)
    pids = generator.integers(5, 25, 100)
    table = scores(generator.integers(0, 3, 100), generator.random(100))
    got = bootstrap_intervals(table, pids)
    kept = table["num_matches"] > 0
    people = np.unique(pids[kept])
    drawn = np.random.default_rng(BOOTSTRAP_SEED).multinomial(
        len(people), np.full(len(people), 1 / len(people)), size=NUM_RESAMPLES
    )
    rows_of = [np.flatnonzero(kept & (pids == pid)) for pid in people]
    hit, ap, figures = (table["first_rank"] == 1).to_numpy(), table["ap"].to_numpy(), []
    for counts in drawn:
        sample = [row for rows, count in zip(rows_of, counts) for row in [*rows] * count]
        figures.append([100 * hit[sample].mean(), 100 * ap[sample].mean()])
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


def test_a_gain_is_paired() -> None:
    """Each query is a little better, however much queries differ: the interval of the gain is narrow, those of both figures are
    wide."""
    generator = np.random.default_rng(1)
    pids, ap = np.repeat(np.arange(30), 4), np.repeat(generator.uniform(0.1, 0.8, 30), 4)
    worse, better = scores(np.full(120, 2), ap), scores(np.full(120, 1), ap + generator.uniform(0.01, 0.03, 120))
    better.loc[7, ["num_matches", "ap"]] = worse.loc[7, ["num_matches", "ap"]] = 0, np.nan
    got = bootstrap_gain(better, worse, pids)
    assert got["rank1"] == got["rank1_ci_low"] == got["rank1_ci_high"] == 100
    assert got["mAP"] == pytest.approx(100 * np.nanmean(better["ap"] - worse["ap"]))
    assert 1.5 < got["mAP_ci_low"] < got["mAP"] < got["mAP_ci_high"] < 2.5
    assert bootstrap_intervals(better, pids)["mAP_ci_high"] - bootstrap_intervals(better, pids)["mAP_ci_low"] > 5
    assert bootstrap_gain(worse, better, pids)["mAP_ci_low"] == pytest.approx(-got["mAP_ci_high"])
