"""Which pictures and captions are scored: each data set by itself, by its own people."""

from pathlib import Path

import pytest
import torch
from open_clip.model import CLIP

from hpl.backbones.towers import ImageTower, TextTower
from hpl.batches.retrieval import (
    encode_test_sets,
    evaluate_encoded,
    evaluate_histograms,
    evaluate_towers,
    gather,
    read_test_sets,
)
from hpl.config import load_params
from hpl.files import HplError
from tests.conftest import picture, save
from tests.imports import ROOT
from tests.manifests.test_build import CUHK, MARKET, SIZE, build

OWN = {"format": "folders", "folder": "people", "use": ["test"]}
OPTIONS = load_params(ROOT / "params.yaml").active.evaluate.model_copy(update={"batch_size": 4, "rank_list_length": 3})
CPU = torch.device("cpu")


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Three people of two captioned pictures each, without cameras."""
    for person in range(3):
        for number in range(2):
            file = save(picture(600 + 10 * person + number), tmp_path / "people" / f"p{person}" / f"{number}.png")
            file.with_suffix(".txt").write_text(f"Person {person}.")
    return tmp_path / "people"


def test_each_set_is_scored_by_its_own_people(icfg: Path, market: Path, tmp_path: Path) -> None:
    source = {"format": "icfg-pedes", "folder": icfg.name, "use": ["test"], "official": False}
    caption_set, picture_set = read_test_sets(build(tmp_path, tmp_path / "out", datasets=(source, MARKET)))
    captions, gallery = caption_set.parts("t2i")
    assert set(captions["pid"]) <= set(gallery["pid"]) and captions["pid"].min() >= 1  # person 0 is a person, no distractor
    queries, gallery = picture_set.parts("i2i")
    assert queries["pid"].tolist() == [1] and sorted(gallery["pid"]) == [-1, 0, 1]


def test_one_set_may_serve_both_tasks_and_cameras_may_be_unknown(clip: CLIP, people: Path, tmp_path: Path) -> None:
    tables = build(tmp_path, tmp_path / "out", datasets=(OWN,))
    (test,) = read_test_sets(tables)
    assert [len(part) for part in test.parts("t2i")] == [6, 6] and [len(part) for part in test.parts("i2i")] == [3, 3]
    towers = ImageTower(clip, task_routing=False), TextTower(clip)
    encoded = encode_test_sets(*towers, tables, SIZE, OPTIONS, CPU)
    figures, found = evaluate_encoded(encoded, OPTIONS)
    assert (figures["t2i"]["num_queries"], figures["i2i"]["num_queries"], figures["i2i"]["num_skipped"]) == (6, 3, 0)
    assert len(found["rank_lists_i2i"]) == 9 and found["rank_lists_i2i"].groupby("query_image_id")["match"].sum().tolist() == [1, 1, 1]


def test_several_sets_are_evaluated_in_one_run(clip: CLIP, cuhk: Path, market: Path, people: Path, tmp_path: Path) -> None:
    tables = build(tmp_path, tmp_path / "out", datasets=(CUHK, MARKET, OWN))
    towers = ImageTower(clip, task_routing=False), TextTower(clip)
    encoded = encode_test_sets(*towers, tables, SIZE, OPTIONS, CPU)
    figures, found = evaluate_encoded(encoded, OPTIONS)
    assert set(figures) == {"t2i", "i2i", "others"} and set(figures["others"]["people"]) == {"t2i", "i2i"}
    assert figures["t2i"]["num_queries"] == 1 and figures["i2i"]["num_queries"] == 1
    alone = evaluate_towers(*towers, build(tmp_path, tmp_path / "alone", datasets=(OWN,)), SIZE, OPTIONS, CPU)
    assert figures["others"]["people"] == alone  # another set in the run changes no figure
    assert set(found["rank_lists_i2i"]["dataset"]) == {"Market-1501", "people"}
    floors = evaluate_histograms(tables, SIZE)
    assert set(floors["colour_histogram"][0]) == {"i2i", "others"}


def test_the_first_set_of_a_task_gives_the_headline() -> None:
    assert gather({"a": {"t2i": {"mAP": 1}}, "b": {"i2i": {"mAP": 2}, "t2i": {"mAP": 3}}}) == {
        "t2i": {"mAP": 1},
        "i2i": {"mAP": 2},
        "others": {"b": {"t2i": {"mAP": 3}}},
    }


def test_nothing_to_evaluate_is_named(cuhk: Path, tmp_path: Path) -> None:
    tables = build(tmp_path, tmp_path / "out", datasets=({**CUHK, "use": ["train"]},))
    with pytest.raises(HplError, match="no data set has `use: .test.`"):
        read_test_sets(tables)
