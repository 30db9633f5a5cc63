"""Calibration: counts, fits and thresholds against naive ones; that it holds on other people; what cannot be calibrated."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from hpl.analysis.calibrate import (
    METHODS,
    MIN_ALARMS,
    count_pairs,
    cross_validated,
    fit_calibration,
    fit_isotonic,
    fit_logistic,
    threshold_at,
)
from hpl.analysis.reliability import evaluate_calibration
from hpl.config import Calibrate, load_params
from hpl.evaluation.similarity import unit
from hpl.retrieval.figures import Encoded
from hpl.retrieval.sets import RetrievalSet
from hpl.search.cluster import cluster_vectors
from hpl.tasks import I2I, T2I, TASKS
from tests.support.imports import ROOT

OPTIONS = load_params(ROOT / "params.yaml").calibrate


def a_set(num_people: int, seed: int, pictures: int = 6, noise: float = 1.0) -> Encoded:
    """People in space, pictures and captions around them; the sentences' own shares of a common direction differ."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(num_people, 16))
    pids = np.repeat(np.arange(1, num_people + 1), pictures)
    count = len(pids)
    role = np.where(np.arange(count) % pictures == 0, "query", "gallery")
    images = pd.DataFrame({"image_id": np.arange(count), "pid": pids, "camid": np.arange(count) % 3, "role": role})
    images["sha256"] = [f"{seed}-{number}" for number in range(count)]
    captions = pd.DataFrame({"caption_id": np.arange(count), "image_id": np.arange(count), "pid": pids})
    t2i, i2i, text = (centres[pids - 1] + noise * generator.normal(size=(count, 16)) for _ in range(3))
    text = text + generator.uniform(-3, 3, (count, 1))
    dataset = RetrievalSet("own", [T2I, I2I], captions, images)
    return Encoded(dataset, (t2i + 1).astype(np.float32), i2i.astype(np.float32), text.astype(np.float32))


@pytest.fixture(scope="module")
def validation() -> Encoded:
    return a_set(40, 0)


@pytest.fixture(scope="module")
def calibration(validation: Encoded):
    return fit_calibration([validation], OPTIONS, "ab" * 32, {})


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_pairs_are_counted_as_a_loop_counts_them(validation: Encoded, task) -> None:
    pairs = count_pairs([validation], task)
    images = validation.dataset.images
    cohort, scores = unit(validation.t2i), {True: [], False: []}
    queries, gallery = validation.dataset.queries_and_gallery(task)
    features = validation.t2i if task.by_caption else validation.i2i
    for query in queries.to_dict("records"):
        asked = unit((validation.text if task.by_caption else validation.i2i)[[query["image_id"]]])[0]
        strangers = cohort[(images["pid"] != query["pid"]).to_numpy()] @ asked
        for found in gallery.to_dict("records"):
            same = found["pid"] == query["pid"]
            if not task.by_caption and same and found["camid"] == query["camid"]:
                continue
            cosine = float(unit(features[[found["image_id"]]])[0] @ asked)
            scores[same].append((cosine - strangers.mean()) / strangers.std() if task.by_caption else cosine)
    for kind, same in enumerate((False, True)):
        assert pairs.total[kind].sum() == len(scores[same])
        counted = np.repeat(pairs.middles, pairs.total[kind])
        assert counted == pytest.approx(np.sort(scores[same]), abs=2 * (pairs.edges[1] - pairs.edges[0]))
    assert pairs.num_people == 40 and len(pairs.counts) == 5
    kept, left = pairs.fold(2)
    assert 0 < left.sum() < kept.sum() < pairs.total.sum()


@pytest.mark.parametrize("name", METHODS)
def test_a_fit_finds_the_likelihood_ratio_that_scores_were_drawn_with(name: str) -> None:
    """Two normal distributions of deviation 1 whose means are 2 apart: the log ratio is 2 s - 2."""
    generator, edges = np.random.default_rng(0), np.linspace(-20, 20, 4001)
    counts = np.stack([np.histogram(generator.normal(mean, 1, size), edges)[0] for mean, size in ((0, 200_000), (2, 50_000))])
    scores, ratios = METHODS[name](counts, (edges[:-1] + edges[1:]) / 2, 0.01)
    assert (np.diff(scores) > 0).all() and (np.diff(ratios) >= 0).all()
    at = np.array([-1, 0, 1, 2, 3])
    assert np.interp(at, scores, ratios) == pytest.approx(2 * at - 2, abs=0.2)
    assert ratios.max() <= np.log(200_001) and ratios.min() >= -np.log(50_001)


def test_scores_that_tell_nothing_or_all() -> None:
    middles = np.arange(100.0)
    counts = np.zeros((2, 100), np.int64)
    counts[0, 60:], counts[1, :40] = 5, 5  # the wrong way round
    for fit in (fit_logistic, fit_isotonic):
        assert np.interp(middles, *fit(counts, middles, 0.01)) == pytest.approx(np.zeros(100), abs=0.02)
    counts = counts[::-1]  # apart
    for fit in (fit_logistic, fit_isotonic):
        ratios = np.interp(middles, *fit(counts, middles, 0.01))
        assert (np.diff(ratios) >= 0).all() and ratios[20] < -1 and ratios[80] > 2
        assert ratios[-1] <= np.log(201) and ratios[0] >= -np.log(301)


def test_the_better_method_is_taken_by_log_loss_on_people_left_out(validation: Encoded, calibration) -> None:
    for task in TASKS.values():
        pairs, found = count_pairs([validation], task), calibration.content["tasks"][task.name]
        losses = {name: cross_validated(fit, pairs, OPTIONS.prior) for name, fit in METHODS.items()}
        assert found["method"] == min(losses, key=losses.get)
        assert max(losses.values()) < 0.9 * found["log_loss"]["prior_alone"]
        naive = []
        for number in range(5):
            kept, left = pairs.fold(number)
            odds = np.interp(pairs.middles, *fit_logistic(kept, pairs.middles, 0.01)) + np.log(0.01 / 0.99)
            p = 1 / (1 + np.exp(-odds))
            same = -np.average(np.log(p), weights=left[1])
            naive.append(0.01 * same - 0.99 * np.average(np.log(1 - p), weights=left[0]))
        assert losses["logistic"] == pytest.approx(np.mean(naive))


def test_a_threshold_is_the_least_that_keeps_the_rate_and_has_enough_behind_it(validation: Encoded, calibration) -> None:
    pairs = count_pairs([validation], I2I)
    others = np.repeat(pairs.middles, pairs.total[0])
    for each in (threshold_at(pairs, rate) for rate in (0.2, 0.05, 0.01)):
        assert (others >= each["threshold"]).mean() <= each["false_alarm_rate"]
        assert (others >= each["threshold"] - 1e-4).mean() > each["false_alarm_rate"] - 0.001
    few = threshold_at(pairs, 0.9 * MIN_ALARMS / len(others))
    assert few["threshold"] is None and "27 false alarms are expected among" in few["reason"] and "30 are needed" in few["reason"]
    assert set(calibration.thresholds(I2I)) | set(calibration.unsupported(I2I)) == set(OPTIONS.false_alarm_rates)


def test_it_holds_on_other_people_whatever_the_share_of_matches_in_their_gallery(calibration) -> None:
    metrics, table = evaluate_calibration([a_set(160, 1, pictures=4)], calibration)
    for name, found in metrics["calibration"].items():
        assert found["ece_ci_low"] <= found["ece"] < 0.002 and found["ece_shown"] < 0.12
        for each in found["false_alarms"].values():
            assert each["reached_ci_low"] <= each["reached"] <= each["reached_ci_high"]
            assert each["promised"] / 2.5 < each["reached"] < 2.5 * each["promised"]
        own = table[table["task"] == name]
        assert own["num_same"].sum() == found["num_same"] and own["num_others"].sum() == found["num_others"]
        mass = own["num_same"] / found["num_same"] * 0.01 + own["num_others"] / found["num_others"] * 0.99
        assert found["ece"] == pytest.approx((mass * (own["expected"] - own["observed"]).abs()).sum(), abs=1e-6)


def test_a_calibration_of_better_features_is_found_out(validation: Encoded) -> None:
    promised = fit_calibration([a_set(40, 0, noise=0.5)], OPTIONS, "", {})
    own = fit_calibration([validation], OPTIONS, "", {})
    test = [a_set(80, 3)]
    wrong, right = (evaluate_calibration(test, each)[0]["calibration"][I2I.name] for each in (promised, own))
    assert wrong["log_loss"] > 1.05 * right["log_loss"]


def test_clusters_have_the_threshold_of_the_best_agreement(validation: Encoded, calibration) -> None:
    vectors, pids = unit(validation.i2i), validation.dataset.images["pid"]
    chosen = calibration.content["clusters"]
    agreement = adjusted_rand_score(pids, cluster_vectors(vectors, chosen["threshold"]))
    assert chosen["ari"] == pytest.approx(agreement, abs=0.02) and chosen["num_people"] == 40
    tried = [adjusted_rand_score(pids, cluster_vectors(vectors, least)) for least in np.linspace(0, 1, 41)]
    assert agreement >= max(tried) - 0.02
    found = evaluate_calibration([a_set(30, 2)], calibration)[0]["clusters"]
    assert found["num_true"] == 30 and found["num_pictures"] == 180 and 0 < found["ari"] <= 1


@pytest.mark.parametrize(("num_people", "said"), [(1, "expected two people or more"), (0, "nobody is in val")])
def test_without_validation_people_it_says_so_and_all_goes_on(num_people: int, said: str) -> None:
    sets = [a_set(num_people, 0)] if num_people else []
    fitted = fit_calibration(sets, OPTIONS, "", dict.fromkeys(TASKS, "nobody is in val") if not sets else {})
    assert fitted.content["tasks"] == {} and fitted.cluster_threshold is None
    assert set(fitted.content["missing"]) == {*TASKS, "clusters"} and said in fitted.missing(T2I)
    metrics, table = evaluate_calibration([a_set(5, 1)], fitted)
    assert set(metrics) == {"calibration"} and set(metrics["calibration"]) == {"missing"} and table.empty
    assert evaluate_calibration([a_set(5, 1)], None)[0] == {}


def test_three_people_are_calibrated_without_a_choice_of_method() -> None:
    fitted = fit_calibration([a_set(3, 0)], OPTIONS, "", {})
    for found in fitted.content["tasks"].values():
        assert found["method"] == "logistic" and found["log_loss"]["isotonic"] is None
        assert all(each["threshold"] is None for each in found["thresholds"] if each["false_alarm_rate"] < 0.01)


def test_bands_and_rates_are_checked() -> None:
    given = OPTIONS.model_dump()
    for wrong, said in (({"possible": 0.7}, "not below likely"), ({"false_alarm_rates": [0.1, 0.1]}, "expected each rate once")):
        with pytest.raises(ValueError, match=said):
            Calibrate(**given | wrong)
