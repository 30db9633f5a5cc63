"""Reading and applying a calibration: against definitions, and files that are damaged or of another model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hpl.evaluation.calibration import (
    CALIBRATION_FOLDER,
    LIKELY,
    POSSIBLE,
    UNLIKELY,
    Calibration,
    chance_of_a_stranger,
    cohort_moments,
    load_calibration,
    save_calibration,
    stranger_words,
)
from hpl.evaluation.similarity import unit
from hpl.files import HplError
from hpl.tasks import I2I, T2I

REASON = "2 false alarms are expected among 20,000 comparisons; 30 are needed"
LINE = {"scores": [-1.0, 1.0, 3.0], "log_likelihood_ratios": [-4.0, 0.0, 6.0]}
THRESHOLDS = [{"false_alarm_rate": 0.01, "threshold": 2.5}, {"false_alarm_rate": 0.0001, "threshold": None, "reason": REASON}]
CONTENT = {
    "model": "ab" * 32,
    "prior": 0.01,
    "bands": {LIKELY: 0.66, POSSIBLE: 0.33},
    "tasks": {T2I.name: {**LINE, "thresholds": THRESHOLDS}},
    "missing": {I2I.name: "no validation people"},
}


@pytest.fixture
def cohort() -> np.ndarray:
    """Vectors of 50 pictures of unit length."""
    return unit(np.random.default_rng(0).normal(0.3, 1, (50, 8)))


@pytest.fixture
def model(tmp_path: Path, cohort: np.ndarray) -> Path:
    (tmp_path / CALIBRATION_FOLDER).mkdir()
    save_calibration(tmp_path / CALIBRATION_FOLDER, Calibration(CONTENT, cohort_moments(cohort)))
    return tmp_path


def test_sentences_are_standardised_over_the_cohort_whatever_the_gallery(model: Path, cohort: np.ndarray) -> None:
    calibration = load_calibration(model)
    queries = 3 * np.random.default_rng(1).normal(size=(4, 8))  # not of unit length
    gallery = unit(np.random.default_rng(2).normal(size=(3, 8)))
    cosines = unit(queries) @ gallery.T
    found = calibration.scores(T2I, cosines, queries)
    for query, row, cosine in zip(unit(queries), found, cosines):
        own = [float(query @ picture) for picture in cohort]
        assert row == pytest.approx((cosine - np.mean(own)) / np.std(own), rel=1e-4)
    assert calibration.scores(T2I, cosines[:, :1], queries) == pytest.approx(found[:, :1])  # one picture alone
    assert calibration.scores(I2I, cosines, queries) is cosines


def test_probability_is_bayes_and_flat_beyond_what_was_seen(model: Path) -> None:
    calibration = load_calibration(model)
    for prior in (None, 0.5, 1e-4):
        share = prior or 0.01
        odds = [np.exp(ratio) * share / (1 - share) for ratio in (-4, -2, 0, 3, 6, 6)]
        found = calibration.probability(T2I, np.array([-9, 0, 1, 2, 3, 99]), prior)
        assert found == pytest.approx([each / (1 + each) for each in odds])
    for wrong in (0, 1, -0.1, float("nan")):
        with pytest.raises(HplError, match="prior = "):
            calibration.probability(T2I, np.zeros(1), wrong)


def test_bands(model: Path) -> None:
    calibration = load_calibration(model)
    assert [calibration.band(each) for each in (0, 0.32, 0.33, 0.65, 0.66, 1)] == [
        UNLIKELY,
        UNLIKELY,
        POSSIBLE,
        POSSIBLE,
        LIKELY,
        LIKELY,
    ]


def test_thresholds_and_what_has_none(model: Path) -> None:
    calibration = load_calibration(model, "ab" * 32)
    assert calibration.threshold(T2I, 0.01) == 2.5 and calibration.thresholds(T2I) == {0.01: 2.5}
    with pytest.raises(HplError, match=REASON):
        calibration.threshold(T2I, 1e-4)
    with pytest.raises(HplError, match="expected one of 0.01, 0.0001"):
        calibration.threshold(T2I, 0.02)
    assert calibration.missing(T2I) == "" and calibration.cluster_threshold is None
    for ask in (calibration.thresholds, lambda task: calibration.probability(task, np.zeros(1))):
        with pytest.raises(HplError, match="not calibrated for i2i: no validation people"):
            ask(I2I)


def test_a_chance_of_strangers_against_the_product() -> None:
    assert chance_of_a_stranger(1e-4, 10_000) == pytest.approx(1 - (1 - 1e-4) ** 10_000)
    assert chance_of_a_stranger(1e-12, 10) == pytest.approx(1e-11)
    words = stranger_words(1e-4, 10_000)
    assert "1 false alarm in 10,000 comparisons" in words and "63.2 %" in words and "10,000 pictures" in words
    assert "more than 99.9 %" in stranger_words(0.01, 10_000) and "100 on average" in stranger_words(0.01, 10_000)


def test_a_model_without_calibration_has_none(tmp_path: Path) -> None:
    assert load_calibration(tmp_path) is None


def _broken(content: dict) -> dict:
    line = {"scores": [1.0, -1.0], "log_likelihood_ratios": [0.0, 1.0], "thresholds": []}
    return {**content, "tasks": {T2I.name: line}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: [], "damaged"),
        (lambda content: {**content, "format": 2}, "format 2; expected 1"),
        (lambda content: {**content, "prior": 1.5}, "a prior or bands"),
        (lambda content: {**content, "bands": {LIKELY: 0.1, POSSIBLE: 0.3}}, "a prior or bands"),
        (lambda content: {**content, "tasks": {T2I.name: {}}}, "damaged"),
        (_broken, "no rising line"),
    ],
)
def test_a_damaged_file_is_named_with_the_way_out(model: Path, change, said: str) -> None:
    file = model / CALIBRATION_FOLDER / "calibration.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(HplError, match=said) as raised:
        load_calibration(model)
    assert str(raised.value).startswith(str(file)) and str(raised.value).endswith("run the calibrate stage again")


def test_a_calibration_of_another_model_or_with_a_broken_cohort_is_refused(model: Path) -> None:
    with pytest.raises(HplError, match="of another model"):
        load_calibration(model, "cd" * 32)
    calibration = load_calibration(model)
    with pytest.raises(HplError, match="queries have 3 features and the calibration's cohort 8"):
        calibration.scores(T2I, np.zeros((1, 2)), np.ones((1, 3)))
    cohort = model / CALIBRATION_FOLDER / "cohort.npy"
    for content in (b"no array", None):
        cohort.write_bytes(content) if content else np.save(cohort, np.ones((3, 7)))
        with pytest.raises(HplError, match="cohort.npy"):
            load_calibration(model)


def test_applying_imports_nothing_but_numpy() -> None:
    heavy = ("torch", "pandas", "sklearn", "scipy", "matplotlib", "dvc")
    code = f"import sys, hpl.evaluation.calibration; sys.exit(','.join(name for name in {heavy} if name in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
