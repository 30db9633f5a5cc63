"""From folders to manifests: schema, links, leaks, splits, bad pictures, the store, determinism, and nothing half-written after a
fault."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hpl.config import DataSet
from hpl.files import HplError
from hpl.manifests.shards import ShardReader, ShardWriter
from hpl.manifests.tables import Manifests
from hpl.pictures import read_pictures
from hpl.readers import decoding
from hpl.readers.build import READERS
from hpl.readers.official import OFFICIAL
from tests.support.native_sets import CUHK, MARKET, build
from tests.support.pictures import picture, save


def audit_of(out: Path) -> dict:
    return json.loads((out / "manifests" / "audit.json").read_text())


def test_every_format_of_the_parameters_has_a_reader() -> None:
    assert set(READERS) == set(get_args(DataSet.model_fields["format"].annotation))


def test_schema_order_and_packed_pictures(cuhk: Path, market: Path, tmp_path: Path) -> None:
    tables = build(tmp_path, tmp_path / "out")
    images = tables.images
    assert images.columns.tolist() == (
        "image_id dataset path split role pid source_pid person camid width height file_sha256 sha256 pack_row".split()
    )
    assert len(images) == 11 and images["image_id"].tolist() == list(range(11))
    assert images.sort_values(["dataset", "path"])["image_id"].is_monotonic_increasing
    assert set(images.loc[images["source_pid"] <= 0, "pid"]) == {-1, 0}
    assert (images["width"] == 16).all() and (images["height"] == 32).all()
    packed = ShardReader(tmp_path / "out" / "pictures", "pictures")
    assert len(packed) == (images["split"] != "test").sum() == 6
    assert (images.loc[images["split"] == "test", "pack_row"] == -1).all()
    row = images[images["path"] == "bounding_box_train/0007_c1s1_000453_01.jpg"].iloc[0]
    expected = read_pictures([market / row["path"]], 24, 12)[0]
    np.testing.assert_array_equal(packed[np.array([row["pack_row"]])][0], expected)
    assert tables.captions["caption"].tolist()[0] == "A man, again."  # CUHK01/ sorts before cam_a/
    assert tables.captions["caption_id"].tolist() == list(range(7))


def test_the_bytes_do_not_depend_on_the_number_of_workers(cuhk: Path, market: Path, tmp_path: Path) -> None:
    for number in range(80):  # more than one chunk
        save(picture(500 + number), market / "bounding_box_train" / f"0050_c1s1_{number:06d}_01.jpg")
    for workers in (1, 2):
        build(tmp_path, tmp_path / f"out{workers}", workers)
    files = [
        path.relative_to(tmp_path / "out1")
        for folder in ("manifests", "pictures")
        for path in (tmp_path / "out1" / folder).iterdir()
    ]
    assert len(files) == 8
    for file in files:
        assert (tmp_path / "out1" / file).read_bytes() == (tmp_path / "out2" / file).read_bytes(), file


def test_people_are_linked_by_content_and_leaks_leave_training(cuhk: Path, market: Path, tmp_path: Path) -> None:
    """Market test person 1 = caption train id 1 (re-encoded); Market train person 2 = caption val id 2 (same pixels)."""
    query = Image.open(market / "query" / "0001_c1s1_001051_00.jpg")
    save(query.resize((32, 64), Image.Resampling.BICUBIC), cuhk / "imgs" / "cam_a" / "000_45.bmp")
    shutil.copy(market / "bounding_box_train" / "0002_c1s1_000451_03.jpg", cuhk / "imgs" / "Market" / "0002.jpg")
    tables = build(tmp_path, tmp_path / "out")
    images = tables.images.set_index("path")
    assert images.at["imgs/cam_a/000_45.bmp", "pid"] == images.at["query/0001_c1s1_001051_00.jpg", "pid"]
    # all pictures of the linked person leave, also the one that was not linked itself
    assert images.loc[["imgs/cam_a/000_45.bmp", "imgs/CUHK01/0001.png"], "role"].tolist() == ["dropped", "dropped"]
    assert images.at["query/0001_c1s1_001051_00.jpg", "role"] == "query"
    assert images.at["imgs/Market/0002.jpg", "role"] == "dropped"  # validation gives way to training
    assert images.at["bounding_box_train/0002_c1s1_000451_03.jpg", "role"] == "train"
    assert images["pid"].max() == 4  # 3 + 3 people, two merged
    audit = audit_of(tmp_path / "out")
    assert audit["links"] == {"CUHK-PEDES + Market-1501": {"exact": 1, "perceptual": 1}}
    expected = {"in_all_sets": 6, "unified": 4, "merged": 2, "dropped_from_training": 1, "dropped_from_validation": 1}
    assert audit["people"] == {**expected, "dropped_from_pretraining": 0, "of_one_set_merged": 0}
    links = pd.read_parquet(tmp_path / "out" / "manifests" / "links.parquet")
    assert sorted(links["kind"]) == ["exact", "perceptual"] and (links["left"] < links["right"]).all()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-200]), "damaged picture"),
        (lambda file: file.write_bytes(b""), r"empty file \(0 bytes\)"),
        (lambda file: (file.unlink(), file.symlink_to("nowhere.jpg")), "picture not found"),
        (lambda file: file.write_text("<html>"), "not a picture"),
    ],
)
def test_a_damaged_picture_is_named_and_nothing_is_left(cuhk: Path, market: Path, tmp_path: Path, damage, message: str) -> None:
    damage(market / "bounding_box_test" / "0001_c2s1_001052_00.jpg")
    with pytest.raises(HplError, match=f"0001_c2s1_001052_00.jpg: {message}"):
        build(tmp_path, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["store"]


def test_several_damaged_pictures_are_named_at_once(cuhk: Path, market: Path, tmp_path: Path) -> None:
    for name in ("query/0001_c1s1_001051_00.jpg", "bounding_box_train/0007_c1s1_000453_01.jpg"):
        (market / name).write_bytes(b"<html>")
    with pytest.raises(HplError, match="2 bad pictures .*skip") as caught:
        build(tmp_path, tmp_path / "out")
    assert "query/0001_c1s1_001051_00.jpg: not a picture" in str(caught.value) and "0007_c1s1_000453_01.jpg" in str(caught.value)


def test_skipped_pictures_are_listed_and_nothing_else_is_lost(cuhk: Path, market: Path, tmp_path: Path, capsys) -> None:
    whole = build(tmp_path, tmp_path / "whole")
    bad = market / "bounding_box_train" / "0002_c1s1_000451_03.jpg"
    bad.write_bytes(bad.read_bytes()[:-100])
    (cuhk / "imgs" / "CUHK01" / "0001.png").unlink()
    tables = build(tmp_path, tmp_path / "out", on_bad_image="skip")
    skipped = audit_of(tmp_path / "out")["skipped_pictures"]
    assert [(entry["dataset"], entry["path"]) for entry in skipped] == [
        ("CUHK-PEDES", "imgs/CUHK01/0001.png"),
        ("Market-1501", "bounding_box_train/0002_c1s1_000451_03.jpg"),
    ]
    assert "picture not found" in skipped[0]["fault"] and "damaged picture" in skipped[1]["fault"]
    columns = ["dataset", "path", "split", "role", "source_pid", "person", "camid", "width", "height", "sha256"]
    gone = whole.images["path"].isin([entry["path"] for entry in skipped])
    pd.testing.assert_frame_equal(
        whole.images[~gone][columns].reset_index(drop=True), tables.images[columns].reset_index(drop=True)
    )
    assert tables.captions["caption"].tolist() == [text for text in whole.captions["caption"] if text != "A man, again."]
    packed = ShardReader(tmp_path / "out" / "pictures", "pictures")
    rows = tables.images[tables.images["pack_row"] >= 0]
    expected = read_pictures(tables.files(rows), 24, 12)
    np.testing.assert_array_equal(packed[rows["pack_row"].to_numpy()], expected)
    assert "skipped: " in capsys.readouterr().err


def test_a_picture_that_is_skipped_is_not_drawn_as_a_query(tmp_path: Path) -> None:
    for number in range(6):
        save(picture(number), tmp_path / "people" / "test" / "ann" / f"{number}.png")
    source = {"format": "folders", "folder": "people", "use": ["test"]}
    images = build(tmp_path, tmp_path / "whole", datasets=(source,)).images
    (tmp_path / "people" / images.loc[images["role"] == "query", "path"].item()).write_bytes(b"")
    images = build(tmp_path, tmp_path / "out", datasets=(source,), on_bad_image="skip").images
    assert images["role"].value_counts().to_dict() == {"gallery": 4, "query": 1}
    assert audit_of(tmp_path / "out")["skipped_pictures"][0]["role"] == "query or gallery"


def test_nothing_left_is_an_error(market: Path, tmp_path: Path) -> None:
    for file in market.rglob("*.jpg"):
        file.write_bytes(b"")
    with pytest.raises(HplError, match="none of 7 pictures can be read; the first fault: .*empty file"):
        build(tmp_path, tmp_path / "out", datasets=(MARKET,), on_bad_image="skip")


def test_a_set_of_which_nothing_is_left_is_an_error(cuhk: Path, market: Path, tmp_path: Path) -> None:
    for file in (cuhk / "imgs").rglob("*.*"):
        file.write_bytes(b"no picture")
    with pytest.raises(HplError, match="CUHK-PEDES: none of 4 pictures can be read; the first fault: .*not a picture"):
        build(tmp_path, tmp_path / "out", datasets=({**CUHK, "use": ["train"]}, MARKET), on_bad_image="skip")


def test_one_s_own_people_on_both_sides_are_told(tmp_path: Path) -> None:
    for number, place in enumerate(["train/ann", "train/ben", "test/ann", "query/cy", "gallery/cy"]):
        save(picture(number), tmp_path / "people" / place / "1.png")
    source = {"format": "folders", "folder": "people", "use": ["train", "test"]}
    images = build(tmp_path, tmp_path / "out", datasets=(source,)).images
    assert images.set_index("path").loc[["train/ann/1.png", "train/ben/1.png"], "role"].tolist() == ["dropped", "train"]
    notes = audit_of(tmp_path / "out")["datasets"]["people"]["notes"]
    assert notes == ["1 of 2 people of train, such as ann, leave it: they are in a test split too"]


def test_official_counts_are_a_warning_or_with_strict_an_error(market: Path, tmp_path: Path, capsys) -> None:
    official = {**MARKET, "official": True}
    build(tmp_path, tmp_path / "out", datasets=(official,))
    assert "Market-1501: train: 3 pictures, officially 12,936" in capsys.readouterr().err
    assert audit_of(tmp_path / "out")["datasets"]["Market-1501"]["mismatches"]
    with pytest.raises(HplError, match=r"strict is true(.|\n)*train: 2 people, officially 751"):
        build(tmp_path, tmp_path / "strict", datasets=(official,), strict=True)
    assert not (tmp_path / "strict" / "manifests").exists()


def test_a_set_that_is_only_tested_is_never_trained_on_and_the_reverse(cuhk: Path, market: Path, tmp_path: Path) -> None:
    tables = build(tmp_path, tmp_path / "out", datasets=({**CUHK, "use": ["train"]}, {**MARKET, "use": ["test"]}))
    roles = tables.images.groupby("dataset")["role"].agg(set)
    assert roles["Market-1501"] == {"query", "gallery"} and roles["CUHK-PEDES"] == {"train", "val", "unused"}
    assert tables.serving("i2i", "test") == ["Market-1501"] and tables.serving("t2i", "test") == []


def test_unused_test_people_still_take_people_out_of_training(cuhk: Path, market: Path, tmp_path: Path) -> None:
    shutil.copy(cuhk / "imgs" / "test_query" / "p3.jpg", market / "bounding_box_train" / "0007_c1s1_000453_01.jpg")
    images = build(tmp_path, tmp_path / "out", datasets=({**CUHK, "use": ["train"]}, {**MARKET, "use": ["train"]})).images
    assert images.set_index("path").at["bounding_box_train/0007_c1s1_000453_01.jpg", "role"] == "dropped"


def test_one_s_own_folder_serves_both_tasks(tmp_path: Path) -> None:
    root = tmp_path / "people"
    for person in range(8):
        for number in range(4):
            file = save(picture(10 * person + number), root / f"p{person}" / f"{number}_c{number % 2}.png")
            file.with_suffix(".txt").write_text(f"person {person}\nseen {number}\n")
    own = {"format": "folders", "folder": "people", "use": ["train", "test"], "camera_pattern": r"_c(\d+)"}
    tables = build(tmp_path, tmp_path / "out", datasets=(own,), val_share=0.5)
    people = tables.images.groupby("split")["person"].nunique()
    assert people.to_dict() == {"train": 2, "val": 2, "test": 4}
    assert tables.images.groupby("role").size().to_dict() == {"train": 8, "val": 8, "query": 8, "gallery": 8}
    assert tables.datasets["people"]["tasks"] == ["t2i", "i2i"] and len(tables.captions) == 64
    assert tables.images.groupby("person")["split"].nunique().max() == 1
    alone = build(tmp_path, tmp_path / "alone", datasets=({**own, "use": ["test"]},))
    assert set(alone.images["split"]) == {"test"} and len(alone.images) == 32


def test_a_set_without_validation_gives_up_training_people_of_its_own_after_its_counts(
    cuhk: Path, market: Path, tmp_path: Path
) -> None:
    for person in range(10, 20):  # even people are seen by two cameras
        for number in range(2):
            camid = 1 + number * (person % 2 == 0)
            save(picture(10 * person + number), market / f"bounding_box_train/{person:04d}_c{camid}s1_{number:06d}_00.jpg")
    shutil.copy(market / "bounding_box_train/0010_c1s1_000000_00.jpg", cuhk / "imgs/cam_a/000_45.bmp")
    sets = (CUHK, {**MARKET, "official": True})
    before = build(tmp_path, tmp_path / "none", datasets=sets).images
    images = build(tmp_path, tmp_path / "out", datasets=sets, val_share=0.3).images
    held_out = images[(images["dataset"] == "Market-1501") & (images["split"] == "val")]
    assert set(before.loc[before["dataset"] == "Market-1501", "split"]) == {"train", "test"}
    assert held_out["person"].nunique() == 4 and (held_out["role"] == "val").all()  # of 12 people
    assert held_out.groupby("person")["camid"].nunique().eq(2).all()  # 0002, 0012 .. 0018: 0010 trains in the other set
    assert "0010" not in set(held_out["person"]) and not set(held_out["pid"]) & set(images.loc[images["role"] == "train", "pid"])
    same = images.drop(held_out.index)
    assert same.equals(before.loc[same.index])  # also the caption set, which has a val split
    audits = [audit_of(tmp_path / out)["datasets"]["Market-1501"] for out in ("none", "out")]
    assert audits[0]["mismatches"] == audits[1]["mismatches"] and "train: 12 people" in audits[0]["mismatches"][0]
    assert "held out of training, for validation: 4 people (data.val_share 0.3)" in audits[1]["notes"]


def test_rows_of_one_picture_are_joined_or_the_conflict_is_named(tmp_path: Path) -> None:
    root = tmp_path / "shop"
    for number in range(6):
        save(picture(number), root / f"{number}.png")
    lines = [f"{number}.png,{number // 2},first of {number},train" for number in range(6)]
    (root / "people.csv").write_text("\n".join(["path,pid,caption,split", *lines, "0.png,0,second of 0,train", lines[1]]))
    source = {"format": "table", "folder": "shop", "use": ["train"]}
    tables = build(tmp_path, tmp_path / "out", datasets=(source,))
    assert len(tables.images) == 6
    assert tables.captions.groupby("image_id")["caption"].agg(list).tolist()[:2] == [
        ["first of 0", "second of 0"],
        ["first of 1"],
    ]
    assert "2 rows that name a picture once more" in audit_of(tmp_path / "out")["datasets"]["shop"]["notes"][0]
    (root / "people.csv").write_text("\n".join(["path,pid,caption,split", *lines, "3.png,7,another,train"]))
    with pytest.raises(HplError, match="people.csv: line 5 and 8: the same picture '3.png' with person '1' and '7'"):
        build(tmp_path, tmp_path / "conflict", datasets=(source,))


def test_rows_joined_keep_a_caption_that_their_own_record_repeats(cuhk: Path, tmp_path: Path) -> None:
    records = json.loads((cuhk / "reid_raw.json").read_text())
    records[0]["captions"] = ["Twice.", "Twice."]
    (cuhk / "reid_raw.json").write_text(json.dumps([*records, {**records[0], "captions": ["Twice.", "New."]}]))
    captions = build(tmp_path, tmp_path / "out", datasets=({**CUHK, "use": ["train"]},)).captions
    assert captions.loc[captions["person"] == "1", "caption"].tolist() == ["A man, again.", "Twice.", "Twice.", "New."]


def test_copies_inside_a_set_are_counted_also_when_another_set_has_the_picture(cuhk: Path, market: Path, tmp_path: Path) -> None:
    source = market / "bounding_box_train" / "0002_c1s1_000451_03.jpg"
    for copy in (market / "bounding_box_train" / "0007_c1s1_000453_01.jpg", cuhk / "imgs" / "cam_a" / "000_45.bmp"):
        shutil.copy(source, copy)
    tables = build(tmp_path, tmp_path / "out")
    audit = audit_of(tmp_path / "out")
    assert audit["datasets"]["Market-1501"]["duplicates"]["under_another_person"] == 1
    assert audit["people"]["of_one_set_merged"] == 1  # 2 and 7 are one person now, through the caption set
    assert tables.images.loc[tables.images["person"].isin(["0002", "0007"]), "pid"].nunique() == 1
    assert audit["links"] == {"CUHK-PEDES + Market-1501": {"exact": 2, "perceptual": 0}}


def query_of_nobody(market: Path) -> str:
    """Let the one query ask for somebody who is not in the gallery. Returns what is said of it."""
    (market / "query" / "0001_c1s1_001051_00.jpg").rename(market / "query" / "0009_c1s1_000001_00.jpg")
    return "none of the 1 people of 1 queries is in the gallery of 3 pictures; expected other pictures of these people there"


def test_a_set_whose_queries_match_nothing_is_told_before_training_and_another_is_scored(
    cuhk: Path, market: Path, tmp_path: Path, capsys
) -> None:
    reason = query_of_nobody(market)
    tables = build(tmp_path, tmp_path / "out")
    assert f"Market-1501: the test split cannot be scored for i2i: {reason}" in capsys.readouterr().err
    assert f"the test split cannot be scored for i2i: {reason}" in audit_of(tmp_path / "out")["datasets"]["Market-1501"]["notes"]
    assert tables.datasets["Market-1501"]["not_scored"] == {"i2i": reason} and tables.datasets["CUHK-PEDES"]["not_scored"] == {}
    assert tables.serving("t2i", "test") == ["CUHK-PEDES"] and tables.serving("i2i", "test") == []


def test_no_test_split_that_can_be_scored_is_an_error(market: Path, tmp_path: Path) -> None:
    reason = query_of_nobody(market)
    with pytest.raises(
        HplError, match="no test split can be scored; .*`use` without test\n  Market-1501, i2i: none of"
    ) as caught:
        build(tmp_path, tmp_path / "out", datasets=(MARKET,))
    assert reason in str(caught.value)
    root = tmp_path / "people"
    for person in range(8):
        save(picture(10 * person), root / f"p{person}" / "0.png")
    own = {"format": "folders", "folder": "people", "use": ["train", "test"]}
    with pytest.raises(HplError, match="people, i2i: none of 2 people has two different pictures"):
        build(tmp_path, tmp_path / "own", datasets=(own,), test_share=0.3)


def test_one_camera_everywhere_is_named_with_the_way_out(tmp_path: Path) -> None:
    for person, split in (("a", "train"), ("b", "train"), ("c", "test"), ("d", "test")):
        for number in range(3):
            save(picture(10 * ord(person) + number), tmp_path / "people" / split / person / f"{number}_c4.png")
    own = {"format": "folders", "folder": "people", "use": ["train", "test"]}
    with pytest.raises(
        HplError, match="all 6 pictures of people are by camera 4, .* expected two cameras or more, or no cameras"
    ):
        build(tmp_path, tmp_path / "out", datasets=({**own, "camera_pattern": r"_c(\d)"},))
    build(tmp_path, tmp_path / "unknown", datasets=(own,))


def test_some_queries_without_a_match_are_counted(market: Path, tmp_path: Path) -> None:
    save(picture(7), market / "query" / "0009_c1s1_000001_00.jpg")
    build(tmp_path, tmp_path / "out", datasets=(MARKET,))
    notes = audit_of(tmp_path / "out")["datasets"]["Market-1501"]["notes"]
    assert "i2i: 1 of 2 queries have no match in the gallery and are skipped" in notes


def test_official_counts_are_of_what_could_be_read(cuhk: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    official = {
        "train": {"people": 1, "pictures": 2, "captions": 4},
        "val": {"people": 1, "pictures": 1, "captions": 2},
        "gallery": {"people": 1, "pictures": 1, "captions": 1},
    }
    monkeypatch.setitem(OFFICIAL, "cuhk-pedes", official)
    source = {**CUHK, "official": True}
    build(tmp_path, tmp_path / "whole", datasets=(source,), strict=True)
    shutil.rmtree(cuhk / "imgs" / "CUHK01")
    (cuhk / "imgs" / "Market" / "0002.jpg").write_bytes(b"")
    capsys.readouterr()
    build(tmp_path, tmp_path / "out", datasets=(source,), on_bad_image="skip")
    account = audit_of(tmp_path / "out")["datasets"]["CUHK-PEDES"]
    assert account["mismatches"] == [
        "train: 1 pictures, officially 2: 1 of those listed could not be read",
        "train: 3 captions, officially 4: 1 of those listed could not be read",
        "val: 0 pictures, officially 1 people, 1 pictures, 2 captions: none of 1 could be read",
    ]
    assert f"{cuhk}/imgs/CUHK01: folder not found; expected 1 of the listed pictures in it" in account["notes"]
    said = capsys.readouterr().err
    assert said.count("CUHK01") == 1 and "skipped: " in said and "0002.jpg: empty file" in said
    with pytest.raises(HplError, match=r"3 mismatches \(preprocess.strict is true\)"):
        build(tmp_path, tmp_path / "strict", datasets=(source,), on_bad_image="skip", strict=True)
    assert not (tmp_path / "strict" / "manifests").exists()


def test_counts_hold_for_splits_that_are_not_used_too(cuhk: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(OFFICIAL, "cuhk-pedes", {"train": {"pictures": 2}, "gallery": {"pictures": 1}})
    (cuhk / "imgs" / "cam_a" / "000_45.bmp").unlink()  # of a split that is not read
    build(tmp_path, tmp_path / "out", datasets=({**CUHK, "official": True, "use": ["test"]},), strict=True)


def test_a_folder_that_is_missing_is_named_once_with_its_pictures(cuhk: Path, tmp_path: Path) -> None:
    records = json.loads((cuhk / "reid_raw.json").read_text())
    more = [{**records[0], "file_path": f"gone/{number}/{name}.png"} for number in range(3) for name in "abcd"]
    (cuhk / "reid_raw.json").write_text(json.dumps([*records, *more, {**records[0], "file_path": "cam_a/gone.png"}]))
    with pytest.raises(HplError, match=r"^13 bad pictures .*skip") as caught:
        build(tmp_path, tmp_path / "out", datasets=(CUHK,))
    assert [line.partition(str(cuhk))[2] for line in str(caught.value).splitlines()[1:]] == [
        "/imgs/gone: folder not found; expected 12 of the listed pictures in it",
        "/imgs/cam_a/gone.png: picture not found",
    ]


def test_captions_of_skipped_pictures_alone_leave_the_set_to_pictures(tmp_path: Path) -> None:
    for split, person in (("train", "a"), ("train", "b"), ("test", "c")):
        for number in range(2):
            save(picture(10 * ord(person) + number), tmp_path / "people" / split / person / f"{number}.png")
    captioned = tmp_path / "people" / "train" / "a" / "2.png"
    captioned.write_bytes(b"no picture")
    captioned.with_suffix(".txt").write_text("A person.")
    own = {"format": "folders", "folder": "people", "use": ["train", "test"]}
    tables = build(tmp_path, tmp_path / "out", datasets=(own,), on_bad_image="skip")
    assert tables.datasets["people"]["tasks"] == ["i2i"] and tables.captions.empty


def test_a_val_split_whose_people_train_is_told_by_name_and_number(tmp_path: Path, capsys) -> None:
    for seed, place in enumerate(("train/ann", "train/ben", "val/ann", "val/ben", "test/cy")):
        for number in range(2):
            save(picture(10 * seed + number), tmp_path / "people" / place / f"{number}.png")
    own = {"format": "folders", "folder": "people", "use": ["train", "test"]}
    build(tmp_path, tmp_path / "out", datasets=(own,), val_share=0.5)
    said = (
        "people: 2 of 2 people of val, such as ann, leave it: they are in training or in a test split too; no validation people"
    )
    assert said in capsys.readouterr().err


def test_captions_in_training_alone_leave_the_test_split_to_pictures(tmp_path: Path) -> None:
    for split, person in (("train", "a"), ("train", "b"), ("test", "c")):
        for number in range(2):
            file = save(picture(10 * ord(person) + number), tmp_path / "people" / split / person / f"{number}.png")
            if split == "train":
                file.with_suffix(".txt").write_text("A person.")
    tables = build(tmp_path, tmp_path / "out", datasets=({"format": "folders", "folder": "people", "use": ["train", "test"]},))
    assert tables.serving("t2i", "train") == ["people"] and tables.serving("t2i", "test") == []
    notes = audit_of(tmp_path / "out")["datasets"]["people"]["notes"]
    assert (
        "the test split cannot be scored for t2i: none of 2 pictures is of a person and has a caption; expected captions" in notes
    )


def test_nobody_left_to_train_on_is_an_error(market: Path, tmp_path: Path) -> None:
    sets = ({**MARKET, "use": ["train"]}, {**MARKET, "name": "again", "use": ["test"]})
    for file in (market / "bounding_box_train").glob("*.jpg"):
        shutil.copy(file, market / "query" / f"0100{file.name[4:]}")
    with pytest.raises(HplError, match="no picture is left to train on"):
        build(tmp_path, tmp_path / "out", datasets=sets)


def test_a_pretraining_sets_own_test_people_are_not_learnt_from(cuhk: Path, market: Path, tmp_path: Path) -> None:
    shutil.copy(cuhk / "imgs" / "test_query" / "p3.jpg", market / "bounding_box_train" / "0007_c1s1_000453_01.jpg")
    images = build(tmp_path, tmp_path / "out", datasets=({**CUHK, "use": ["pretrain"]}, MARKET)).images
    assert images.set_index("path").at["bounding_box_train/0007_c1s1_000453_01.jpg", "role"] == "dropped"
    assert images.set_index("path")["role"].to_dict()["imgs/test_query/p3.jpg"] == "unused"


def test_a_linked_folder_is_said_to_be_unseen_by_dvc(market: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(market)
    build(tmp_path, tmp_path / "out", datasets=({**MARKET, "folder": "linked"},))
    assert "DVC does not look behind it" in audit_of(tmp_path / "out")["datasets"]["linked"]["notes"][0]


@pytest.mark.parametrize("suffix", [".parquet", ".packed.npy", ".fingerprints.npy"])
@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-20], lambda data: b"", None, lambda data: data[:-30] + bytes([data[-30] ^ 1]) + data[-29:]],
    ids=["truncated", "empty", "missing", "one bit"],
)
def test_a_damaged_part_of_the_store_is_made_again(market: Path, tmp_path: Path, suffix: str, damage) -> None:
    store = tmp_path / "store"
    build(tmp_path, tmp_path / "out", datasets=(MARKET,), store=store)
    (file,) = store.rglob(f"*{suffix}")
    data = file.read_bytes()
    file.unlink()
    if damage:
        file.write_bytes(damage(data))
    build(tmp_path, tmp_path / "again", datasets=(MARKET,), store=store)
    for name in ("manifests/images.parquet", "manifests/links.parquet", "manifests/audit.json", "pictures/pictures-00000.npy"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_a_full_disk_is_named_and_leaves_no_rest(market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(stream: object, array: np.ndarray) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(HplError, match="parquet: cannot be written .*No space left on device"):
        build(tmp_path, tmp_path / "out", datasets=(MARKET,))
    assert not [file for file in (tmp_path / "out").rglob("*") if file.is_file()]


def test_pictures_may_stay_in_their_files(market: Path, tmp_path: Path) -> None:
    tables = build(tmp_path, tmp_path / "out", datasets=(MARKET,), pack_pictures=False)
    assert (tables.images["pack_row"] == -1).all() and not list((tmp_path / "out" / "pictures").iterdir())


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pictures that are decoded from now on."""
    names: list[str] = []
    real = decoding.picture_facts

    def watch(data: bytes, place: str, size: tuple[int, int] | None) -> decoding.PictureFacts:
        names.append(Path(place).name)
        return real(data, place, size)

    monkeypatch.setattr(decoding, "picture_facts", watch)
    return names


def test_a_rerun_decodes_what_is_new_and_gives_what_a_fresh_run_gives(
    cuhk: Path, market: Path, tmp_path: Path, monkeypatch
) -> None:
    store, names = tmp_path / "store", decoded(monkeypatch)
    build(tmp_path, tmp_path / "out", store=store)
    assert len(names) == 11
    names.clear()
    new = save(picture(900), market / "bounding_box_train" / "0002_c3s1_000999_01.jpg")
    changed = save(picture(901), market / "query" / "0001_c1s1_001051_00.jpg")
    build(tmp_path, tmp_path / "again", store=store)
    assert sorted(names) == sorted([new.name, changed.name])
    build(tmp_path, tmp_path / "fresh")
    for folder in ("manifests", "pictures"):
        for file in (tmp_path / "fresh" / folder).iterdir():
            assert file.read_bytes() == (tmp_path / "again" / folder / file.name).read_bytes(), file


def test_a_test_picture_that_moves_to_training_is_packed(market: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    build(tmp_path, tmp_path / "out", datasets=(MARKET,), store=store)
    shutil.copy(market / "query" / "0001_c1s1_001051_00.jpg", market / "bounding_box_train" / "0009_c1s1_001051_00.jpg")
    tables = build(tmp_path, tmp_path / "again", datasets=(MARKET,), store=store)
    row = tables.images.set_index("path").loc["bounding_box_train/0009_c1s1_001051_00.jpg"]
    packed = ShardReader(tmp_path / "again" / "pictures", "pictures")[np.array([row["pack_row"]])]
    np.testing.assert_array_equal(packed, read_pictures([market / "query" / "0001_c1s1_001051_00.jpg"], 24, 12))


def test_half_a_part_of_the_store_does_not_count(market: Path, tmp_path: Path, monkeypatch) -> None:
    store, names = tmp_path / "store", decoded(monkeypatch)
    build(tmp_path, tmp_path / "out", datasets=(MARKET,), store=store)
    (table,) = store.rglob("*.parquet")
    table.unlink()
    names.clear()
    build(tmp_path, tmp_path / "again", datasets=(MARKET,), store=store)
    assert len(names) == 7


RUN = """
import sys
from pathlib import Path
from hpl.readers import decoding
from hpl.readers.build import READERS
from tests.support.native_sets import MARKET, build
decoding._PART_PICTURES, decoding._CHUNK_PICTURES = 16, 4
root = Path(sys.argv[1])
build(root, root / sys.argv[2], num_workers=2, datasets=(MARKET,), store=root / "store")
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(market: Path, tmp_path: Path) -> None:
    for number in range(600):
        save(picture(2000 + number, (200, 400)), market / "bounding_box_train" / f"0050_c1s1_{number:06d}_01.png")
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    process = subprocess.Popen([*command, "killed"], cwd=Path(__file__).parents[2], start_new_session=True)
    while process.poll() is None and not list((tmp_path / "store").rglob("*.parquet")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = sum(len(pd.read_parquet(file)) for file in (tmp_path / "store").rglob("*.parquet"))
    assert 16 <= kept < 607 and not (tmp_path / "killed" / "manifests").exists()
    subprocess.run([*command, "out"], check=True, cwd=Path(__file__).parents[2])
    build(tmp_path, tmp_path / "fresh", datasets=(MARKET,))
    for folder in ("manifests", "pictures"):
        for file in (tmp_path / "fresh" / folder).iterdir():
            assert file.read_bytes() == (tmp_path / "out" / folder / file.name).read_bytes(), file


def test_shards_hold_any_rows_in_any_order(tmp_path: Path) -> None:
    rows = np.arange(23 * 2).reshape(23, 2)
    with ShardWriter(tmp_path, "rows", 5) as writer:
        for part in (rows[:3], rows[3:4], rows[4:]):
            writer.append(part)
    reader = ShardReader(tmp_path, "rows")
    assert len(reader) == 23 and reader.row_shape == (2,) and len(reader.shards) == 5
    wanted = np.array([22, 0, 7, 7, 14])
    np.testing.assert_array_equal(reader[wanted], rows[wanted])
    assert len(reader[np.array([], dtype=int)]) == 0
    with pytest.raises(IndexError):
        reader[np.array([23])]


def test_manifests_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(HplError, match="images.parquet: file not found; run the preprocess stage"):
        Manifests(tmp_path)


@pytest.mark.parametrize("name", ["images.parquet", "captions.parquet", "links.parquet", "datasets.json", "audit.json"])
def test_a_changed_manifest_is_refused(name: str, market: Path, tmp_path: Path) -> None:
    build(tmp_path, tmp_path / "out", datasets=(MARKET,))
    file = tmp_path / "out" / "manifests" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(HplError, match=rf"manifests: not as the preprocess stage wrote it \({name}\); delete it"):
        Manifests(tmp_path / "out" / "manifests")


def test_captions_carry_their_picture(cuhk: Path, market: Path, tmp_path: Path) -> None:
    captions = build(tmp_path, tmp_path / "out").captions
    assert captions.loc[captions["caption"] == "A child.", ["split", "role", "dataset"]].values.tolist() == [
        ["test", "gallery", "CUHK-PEDES"]
    ]
    assert isinstance(captions, pd.DataFrame)
