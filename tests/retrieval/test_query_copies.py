"""The query itself in its gallery, under other names, people and cameras: no path takes it for a match, and all say so."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from open_clip.model import CLIP

from hpl.analysis.evaluate import evaluate_model
from hpl.analysis.floors import evaluate_histograms
from hpl.backbones.towers import ImageTower, TextTower
from hpl.config import load_params
from hpl.files import read_json
from hpl.manifests.tables import Manifests
from hpl.reports.results import copies_blocks
from hpl.retrieval.features import Extractor
from hpl.retrieval.figures import encode_sets, score_sets, validate
from hpl.retrieval.sets import read_test_sets, read_validation_sets
from tests.support.imports import ROOT
from tests.support.native_sets import MARKET, build
from tests.support.pictures import picture, save
from tests.support.tiny import SIZE

NUM_PEOPLE = 12
OPTIONS = load_params(ROOT / "params.yaml").active.evaluate.model_copy(update={"batch_size": 64, "rank_list_length": 5})


def random_network(clip: CLIP) -> Extractor:
    towers = {"images": ImageTower(clip, task_routing=False), "texts": TextTower(clip)}
    return Extractor(**towers, size=SIZE, batch_size=64, device=torch.device("cpu"))


def copied_market(root: Path) -> Path:
    """Unrelated pictures of each person by two cameras; each query lies in the gallery again: as its own person by a third
    camera, as a distractor, as junk, and as the next person."""
    for person in range(1, NUM_PEOPLE + 1):
        query = save(picture(40_000 + person), root / "query" / f"{person:04d}_c1s1_000001_00.jpg", format="PNG")
        gallery = root / "bounding_box_test"
        save(picture(50_000 + person), gallery / f"{person:04d}_c2s1_000002_00.jpg", format="PNG")
        save(picture(40_000 + person), gallery / f"{person:04d}_c3s1_000003_00.jpg", format="BMP")  # other bytes, same pixels
        for name in ("0000_c4s1", "-1_c5s1", f"{person % NUM_PEOPLE + 1:04d}_c6s1"):
            shutil.copy(query, gallery / f"{name}_{person:06d}_00.jpg")
    save(picture(60_000), root / "bounding_box_train" / "0100_c1s1_000001_00.jpg")
    return root


@pytest.fixture
def market_tables(tmp_path: Path) -> Manifests:
    source = {**MARKET, "use": ["test"], "folder": copied_market(tmp_path / "Copied").name}
    return build(tmp_path, tmp_path / "out", datasets=(source,))


@pytest.mark.parametrize("rerank", [False, True])
def test_a_random_network_does_not_find_everybody(clip: CLIP, market_tables: Manifests, rerank: bool) -> None:
    encoded = encode_sets(random_network(clip), market_tables, read_test_sets(market_tables))
    figures, found = evaluate_model(encoded, OPTIONS.model_copy(update={"rerank": rerank}))
    assert figures["i2i"]["rank1"] < 60 and figures["open_set"]["i2i"]["detection_rate"] < 60
    assert figures["i2i"]["num_queries"] == NUM_PEOPLE and figures["i2i"]["num_copies_ignored"] == 3 * NUM_PEOPLE  # without junk
    pixels, lists = market_tables.images["sha256"], found["rank_lists_i2i"]
    assert (pixels[lists["query_image_id"]].to_numpy() != pixels[lists["image_id"]].to_numpy()).all()
    pairs = NUM_PEOPLE * 4 * NUM_PEOPLE - 3 * NUM_PEOPLE
    assert found["similarities"][["matches", "others"]].to_numpy().sum() == pairs
    assert found["scores_i2i"]["num_matches"].tolist() == [2] * NUM_PEOPLE  # its own, and its neighbour under its name


def test_it_would_if_pixels_were_not_asked_for(clip: CLIP, tmp_path: Path) -> None:
    for file in (copied_market(tmp_path / "Copied") / "bounding_box_test").iterdir():
        if not ("c2s1" in file.name or "c3s1" in file.name):
            file.unlink()
    tables = build(tmp_path, tmp_path / "out", datasets=({**MARKET, "use": ["test"], "folder": "Copied"},))
    (encoded,) = encode_sets(random_network(clip), tables, read_test_sets(tables))
    unasked = encoded.dataset.images.assign(sha256=encoded.dataset.images["image_id"])
    blind = replace(encoded, dataset=replace(encoded.dataset, images=unasked))
    asked, not_asked = (score_sets([each])[0].scores.figures()["rank1"] for each in (encoded, blind))
    assert not_asked == 100 and asked < 60


def test_histograms_do_not_find_everybody(market_tables: Manifests) -> None:
    floors = evaluate_histograms(market_tables, SIZE)
    for figures, _ in floors.values():
        assert figures["i2i"]["rank1"] < 60 and figures["i2i"]["num_copies_ignored"] == 3 * NUM_PEOPLE


def test_the_audit_tells_of_copies_and_of_near_copies(market_tables: Manifests, tmp_path: Path) -> None:
    def told(folder: str) -> dict:
        return read_json(tmp_path / folder / "manifests" / "audit.json")["datasets"]["Copied"]

    exact = told("out")["query_copies"]
    assert (exact["exact"], exact["near"]) == (3 * NUM_PEOPLE, 0) and exact["examples"]["exact"][0][0].startswith("query/0001")
    assert any("12 (such as query/0001_c1s1_000001_00.jpg and" in note for note in told("out")["notes"])
    gallery = tmp_path / "Copied" / "bounding_box_test"
    for file in gallery.iterdir():
        if "c2s1" not in file.name:
            file.unlink()
    save(picture(40_001), gallery / "0001_c2s1_000004_00.jpg", quality=60)  # re-encoded, under another camera, and as another
    save(picture(40_002).resize((32, 64)), gallery / "0001_c1s1_000004_00.jpg", quality=90)
    save(picture(40_003), gallery / "0003_c1s1_000004_00.jpg", quality=90)  # by the query's own camera: ignored in any case
    save(picture(40_004), gallery / "-1_c3s1_000004_00.jpg", quality=90)  # junk
    build(tmp_path, tmp_path / "near", datasets=({**MARKET, "use": ["test"], "folder": "Copied"},))
    near = told("near")["query_copies"]
    assert (near["exact"], near["near"]) == (0, 2)
    assert {tuple(pair) for pair in near["examples"]["near"]} == {
        ("query/0001_c1s1_000001_00.jpg", "bounding_box_test/0001_c2s1_000004_00.jpg"),
        ("query/0002_c1s1_000001_00.jpg", "bounding_box_test/0001_c1s1_000004_00.jpg"),
    }
    shutil.rmtree(tmp_path / "Copied")
    copied_market(tmp_path / "Copied")
    for file in gallery.iterdir():
        if "c2s1" not in file.name:
            file.unlink()
    build(tmp_path, tmp_path / "clean", datasets=({**MARKET, "use": ["test"], "folder": "Copied"},))
    assert "query_copies" not in told("clean") and not any("queries" in note for note in told("clean")["notes"])


@pytest.mark.parametrize("cameras", [True, False])
def test_drawn_queries_composed_queries_and_validation(clip: CLIP, tmp_path: Path, cameras: bool) -> None:
    """Two unrelated pictures of each person, one of them twice; the last ones' pictures are all the same."""
    rows = ["path,pid,camid,caption,split"]
    for person in range(24):
        split = "test" if person < 16 else "val" if person < 22 else "train"
        for number, shown in enumerate((0, 0, 0 if person in (15, 21) else 1)):
            save(picture(70_000 + 10 * person + shown), tmp_path / "people" / f"{person}_{number}.png")
            rows.append(f"{person}_{number}.png,{person},{number if cameras else ''},Person {person}.,{split}")
    (tmp_path / "people" / "table.csv").write_text("\n".join(rows))
    tables = build(tmp_path, tmp_path / "out", datasets=({"format": "table", "folder": "people", "use": ["train", "test"]},))
    tests, towers = read_test_sets(tables), random_network(clip)
    figures, found = evaluate_model(encode_sets(towers, tables, tests), OPTIONS)
    assert figures["i2i"]["rank1"] < 60 and figures["i2i"]["num_skipped"] == 0
    assert "15" not in set(tables.images.loc[found["scores_i2i"]["query_image_id"], "person"])  # it has nothing to find
    assert figures["t2i"]["num_queries"] == 48 and set(found["scores_t2i"]["num_matches"]) == {3}  # captions are nobody's copy
    assert "num_copies_ignored" not in figures["t2i"]
    assert figures["composed"]["picture"]["rank1"] < 60 and figures["composed"]["counts"]["num_copies_ignored"] > 0
    (validation,) = read_validation_sets(tables)
    drawn = validation.images[validation.images["role"] == "query"]
    assert len(drawn) >= 5 and "21" not in set(drawn["person"])
    assert 0 < validate(towers, tables, [validation])["i2i"] < 90


def test_the_report_says_it_beside_the_figures() -> None:
    metrics = {
        "datasets": {"i2i": "first"},
        "i2i": {"num_copies_ignored": 1200},
        "others": {"<b>": {"i2i": {"mAP": 1}}, "captions": {"t2i": {"mAP": 1}}, "clean": {"i2i": {"mAP": 1}}},
    }
    audit = {"datasets": {"<b>": {"query_copies": {"near": 3}}, "captions": {"query_copies": {"near": 9}}, "first": {}}}
    text, table = copies_blocks(metrics, audit)
    assert "is the query" in text and table.rows == [["first", "1,200", "0"], ["<b>", "0", "3"]]
    assert copies_blocks({"t2i": {}}, {"datasets": {}}) == []
