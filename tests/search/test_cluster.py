"""Clusters: against scipy's average linkage over all pairs, in tiles and components, and what `hpl cluster` writes."""

import csv
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score
from typer.testing import CliRunner

from hpl.cli import app
from hpl.evaluation.calibration import (
    CALIBRATION_FOLDER,
    LIKELY,
    POSSIBLE,
    UNLIKELY,
    Calibration,
    cohort_moments,
    save_calibration,
)
from hpl.evaluation.similarity import unit
from hpl.files import HplError
from hpl.search import cluster, people
from hpl.search.cluster import closeness, cluster_vectors, cut, link
from hpl.tasks import I2I, T2I
from tests.support.small_model import draw_pictures, save_small_model


def drawn(count: int, num_people: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(num_people, 24))
    return unit(centres[generator.integers(0, num_people, count)] + 0.9 * generator.normal(size=(count, 24)))


def expected(vectors: np.ndarray, threshold: float) -> np.ndarray:
    return fcluster(linkage(vectors.astype(np.float64), "average", metric="cosine"), 1 - threshold, "distance")


@pytest.mark.parametrize("tile", [(1024, 4096), (32, 48)])
@pytest.mark.parametrize("threshold", [-0.2, 0.2, 0.4, 0.6, 0.8])
def test_as_average_linkage_over_all_pairs(threshold: float, tile: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_TILE", tile)
    for seed in range(3):
        vectors = drawn(230, 25, seed)
        found = cluster_vectors(vectors, threshold)
        assert adjusted_rand_score(found, expected(vectors, threshold)) == 1
        sizes = np.bincount(found)
        assert (np.diff(sizes) <= 0).all() and sizes.min() >= 1


def test_one_linkage_can_be_cut_at_every_higher_threshold() -> None:
    vectors = drawn(200, 20)
    links, similarities = link(vectors, 0.1)
    for threshold in (0.1, 0.3, 0.5, 0.7, 0.99):
        assert (cut(200, links, similarities, threshold) == cluster_vectors(vectors, threshold)).all()


def test_equal_pictures_ties_and_half_precision() -> None:
    vectors = np.repeat(drawn(9, 9), 4, axis=0)[np.random.default_rng(1).permutation(36)]
    found = cluster_vectors(vectors, 0.999)
    assert len(np.unique(found)) == 9 and set(np.bincount(found)) == {4}
    assert (cluster_vectors(vectors.astype(np.float16), 0.999) == found).all()
    assert cluster_vectors(np.ones((5, 1), np.float32), 1.0).tolist() == [0] * 5
    assert cluster_vectors(np.empty((0, 8), np.float32), 0.5).tolist() == []
    assert cluster_vectors(vectors[:1], 0.5).tolist() == [0]


def test_closeness_is_the_mean_cosine_with_the_others() -> None:
    vectors, labels = drawn(30, 3), np.random.default_rng(2).integers(0, 9, 30)
    labels[0] = 9  # alone
    for row, found in enumerate(closeness(vectors, labels)):
        others = [vectors[row] @ vectors[other] for other in range(30) if other != row and labels[other] == labels[row]]
        assert found == pytest.approx(np.mean(others), abs=1e-5) if others else np.isnan(found)


def test_what_is_no_unit_vector_or_no_cosine_is_named() -> None:
    vectors = drawn(20, 3)
    vectors[7] *= 2
    with pytest.raises(HplError, match="vector of crop 7 has length 2; expected 1"):
        cluster_vectors(vectors, 0.5)
    vectors[7] = np.nan
    with pytest.raises(HplError, match="crop 7 has length nan"):
        cluster_vectors(vectors, 0.5)
    with pytest.raises(HplError, match="cluster threshold 1.5"):
        cluster_vectors(drawn(3, 1), 1.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, six pictures of which two are one, and their gallery."""
    folder = tmp_path_factory.mktemp("clusters")
    save_small_model(folder / "model")
    files = draw_pictures(folder / "crops", 6)
    files[5].write_bytes(files[0].read_bytes())
    (folder / "crops" / "=1+1.png").write_bytes(files[1].read_bytes())
    assert run("index", "add", folder / "g", folder / "crops", "--model", folder / "model").exit_code == 0
    return folder


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_needs_a_threshold_from_the_calibration_or_the_user(folder: Path) -> None:
    refused = run("cluster", folder / "g")
    assert refused.exit_code == 2 and "no threshold for clusters (it has no calibration); expected --threshold" in refused.stderr
    content = {"model": "", "prior": 0.01, "bands": {LIKELY: 0.66, POSSIBLE: 0.33}, "tasks": {}}
    own = folder / "model" / CALIBRATION_FOLDER
    own.mkdir()
    content["model"] = hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()
    save_calibration(own, Calibration(content | {"missing": {"clusters": "nobody"}}, np.empty((0, 0), np.float32)))
    assert "no threshold for clusters (nobody)" in run("cluster", folder / "g").stderr
    save_calibration(
        own, Calibration(content | {"missing": {}, "clusters": {"threshold": 0.99999}}, np.empty((0, 0), np.float32))
    )
    rows = list(csv.DictReader(io.StringIO(run("cluster", folder / "g").stdout)))
    assert len(rows) == 7 and list(rows[0]) == ["path", "cluster", "size", "closeness"]
    pairs = [{Path(row["path"]).name for row in rows if row["cluster"] == number} for number in ("0", "1")]
    assert sorted(map(sorted, pairs)) == [["=1+1.png", "c1_0001.png"], ["c0_0000.png", "c2_0005.png"]]
    assert [row["size"] for row in rows] == ["2"] * 4 + ["1"] * 3
    assert all((row["closeness"] == "") == (row["size"] == "1") for row in rows)


def test_a_page_is_whole_and_says_what_it_leaves_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = run("cluster", folder / "g", "--threshold", "0.99999", "--format", "html").stdout
    assert page.count("data:image/jpeg;base64,") == 7 and "http" not in page.replace("http-equiv", "")
    assert "7 pictures: 2 clusters of several and 3 alone" in page and "are shown" not in page
    monkeypatch.setattr(people, "_SHOWN_CLUSTERS", 1)
    monkeypatch.setattr(people, "_SHOWN_PICTURES", 1)
    monkeypatch.setattr(people, "_SHOWN_ALONE", 2)
    page = run("cluster", folder / "g", "--threshold", "0.99999", "--format", "html").stdout
    assert page.count("data:image/jpeg;base64,") == 3 and "and 1 more" in page
    assert "largest 1 clusters are shown" in page and "Of those alone, 2 are shown" in page
    assert run("cluster", folder / "g", "--format", "xml").exit_code == 2


def test_a_picture_that_is_gone_is_said_on_the_page(tmp_path: Path) -> None:
    found = people.cluster_pictures(drawn(2, 2), [str(tmp_path / "<b>gone.png"), str(tmp_path / "b.png")], 0.99)
    page = people.write_people(found, "html")
    assert "&lt;b&gt;gone.png: picture not found" in page and "<b>gone" not in page


def test_a_search_with_a_calibration_has_probabilities_at_a_prior_and_says_what_false_alarms_mean(folder: Path) -> None:
    """The line of T2I: log odds 0 from a score of -50 on at a prior of one half; a threshold that all reach."""
    knots = {"scores": [-60.0, -50.0], "log_likelihood_ratios": [-1.0, 0.0]}
    thresholds = [{"false_alarm_rate": 0.01, "threshold": -50.0}]
    content = {"prior": 0.5, "bands": {LIKELY: 0.66, POSSIBLE: 0.33}, "missing": {I2I.name: "nobody"}}
    content["model"] = hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()
    content["tasks"] = {T2I.name: knots | {"thresholds": thresholds}}
    save_calibration(folder / "model" / CALIBRATION_FOLDER, Calibration(content, cohort_moments(drawn(40, 9)[:, :16])))
    asked = ("search", folder / "g", "-t", "a man", "--format", "csv")
    for prior, band in ((), POSSIBLE), (("--prior", "0.01"), UNLIKELY):
        rows = list(csv.DictReader(io.StringIO(run(*asked, *prior).stdout)))
        assert {row["band"] for row in rows} == {band}
        assert {round(float(row["probability"]), 9) for row in rows} == {0.01 if prior else 0.5}
    found = run(*asked, "--false-alarms", "0.01")
    assert (
        len(found.stdout.splitlines()) == 8 and "among 7 pictures of other people, with a probability of 6.79 %" in found.stderr
    )
    assert "not calibrated for i2i: nobody" in run("search", folder / "g", "-i", folder / "crops" / "c0_0000.png").stderr
    assert "prior = 2.0; expected a share" in run(*asked, "--prior", "2").stderr
