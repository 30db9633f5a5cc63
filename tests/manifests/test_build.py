"""From folders to manifests: schema, links, leaks, determinism, and nothing half-written after a fault."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hpl.config import Data, Input, Preprocess
from hpl.files import HplError
from hpl.manifests.build import build_manifests
from hpl.manifests.pictures import examine_picture
from hpl.manifests.shards import ShardReader, ShardWriter
from hpl.manifests.tables import Manifests
from tests.conftest import picture, save

DATA = Data.model_validate(
    {
        "caption_set": {"format": "cuhk-pedes", "folder": "CUHK-PEDES"},
        "picture_set": {"format": "market-1501", "folder": "Market-1501"},
        "pretrain_set": None,
    }
)
SIZE = Input(height=24, width=12, context_length=32)
OPTIONS = Preprocess(link_hash_distance=12, link_correlation=0.95)


def build(raw: Path, out: Path, num_workers: int = 1) -> Manifests:
    build_manifests(raw, DATA, SIZE, OPTIONS, num_workers, out / "manifests", out / "pictures")
    return Manifests(out / "manifests")


def test_schema_order_and_packed_pictures(cuhk: Path, market: Path, tmp_path: Path) -> None:
    tables = build(tmp_path, tmp_path / "out")
    images = tables.images
    assert images.columns.tolist() == "image_id dataset path split role pid source_pid camid width height sha256 pack_row".split()
    assert len(images) == 11 and images["image_id"].tolist() == list(range(11))
    assert images.sort_values(["dataset", "path"])["image_id"].is_monotonic_increasing
    assert set(images.loc[images["source_pid"] <= 0, "pid"]) == {-1, 0}
    assert (images["width"] == 16).all() and (images["height"] == 32).all()
    packed = ShardReader(tmp_path / "out" / "pictures", "pictures")
    assert len(packed) == (images["split"] != "test").sum() == 6
    assert (images.loc[images["split"] == "test", "pack_row"] == -1).all()
    row = images[images["path"] == "bounding_box_train/0007_c1s1_000453_01.jpg"].iloc[0]
    expected = examine_picture(market / row["path"], (24, 12)).packed_3HW
    np.testing.assert_array_equal(packed[np.array([row["pack_row"]])][0], expected)
    assert tables.captions["caption"].tolist()[0] == "A man, again."  # CUHK01/ sorts before cam_a/
    assert tables.captions["caption_id"].tolist() == list(range(7))


def test_the_bytes_do_not_depend_on_the_number_of_workers(cuhk: Path, market: Path, tmp_path: Path) -> None:
    for number in range(80):  # more than one chunk
        save(picture(500 + number), market / "bounding_box_train" / f"0050_c1s1_{number:06d}_01.jpg")
    for workers in (1, 2):
        build(tmp_path, tmp_path / f"out{workers}", workers)
    files = sorted(path.relative_to(tmp_path / "out1") for path in (tmp_path / "out1").rglob("*.*"))
    assert len(files) == 5
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
    audit = json.loads((tmp_path / "out" / "manifests" / "audit.json").read_text())
    assert audit["links"] == {"exact": 1, "perceptual": 1}
    expected = {"in_all_sets": 6, "unified": 4, "merged": 2, "dropped_from_training": 1, "dropped_from_validation": 1}
    assert audit["people"] == expected
    assert {pair["kind"] for pair in audit["linked_pairs"]} == {"exact", "perceptual"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-200]), "damaged picture"),
        (lambda file: file.write_bytes(b""), r"not a picture \(0 bytes\)"),
        (lambda file: file.write_text("<html>"), "not a picture"),
    ],
)
def test_a_damaged_picture_is_named_and_nothing_is_left(cuhk: Path, market: Path, tmp_path: Path, damage, message: str) -> None:
    damage(market / "bounding_box_test" / "0001_c2s1_001052_00.jpg")
    with pytest.raises(HplError, match=f"0001_c2s1_001052_00.jpg: {message}"):
        build(tmp_path, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_odd_picture_modes_decode(tmp_path: Path) -> None:
    modes = {"CMYK": "jpg", "P": "png", "L": "jpg", "RGBA": "png", "1": "png"}
    for mode, suffix in modes.items():
        file = save(picture(1).convert(mode), tmp_path / f"{mode}.{suffix}")
        facts = examine_picture(file, (24, 12))
        assert (facts.width, facts.height) == (16, 32) and facts.packed_3HW.shape == (3, 24, 12), mode


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


def test_captions_carry_their_picture(cuhk: Path, market: Path, tmp_path: Path) -> None:
    captions = build(tmp_path, tmp_path / "out").captions
    assert captions.loc[captions["caption"] == "A child.", ["split", "role", "dataset"]].values.tolist() == [
        ["test", "gallery", "cuhk-pedes"]
    ]
    assert isinstance(captions, pd.DataFrame)
