"""Fixtures of many tests: a tiny CLIP, and miniature data sets in the native formats."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from open_clip.model import CLIP

from tests.support.chromium import CHROMIUM, Browser, browser
from tests.support.pictures import picture, save
from tests.support.tiny import fresh_clip

torch.set_num_threads(1)  # two are several times slower on a machine that is busy


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    """A tab of a real browser."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with browser() as opened:
        yield opened


@pytest.fixture
def clip() -> CLIP:
    """A CLIP of width 16 with 8 patches, random but the same each time."""
    return fresh_clip()


@pytest.fixture
def cuhk(tmp_path: Path) -> Path:
    """A miniature CUHK-PEDES: capital split names, three captions, a one-picture id, stray white space."""
    root = tmp_path / "CUHK-PEDES"
    records = [
        ("cam_a/000_45.bmp", 1, "train", ["A man in red.", "He walks.", "Third  caption\n here."]),
        ("CUHK01/0001.png", 1, "TRAIN", ["A man, again."]),
        ("Market/0002.jpg", 2, "val", ["A woman.", "She stands."]),
        ("test_query/p3.jpg", 3, "Test", ["A child."]),
    ]
    for number, (path, *_) in enumerate(records):
        save(picture(number), root / "imgs" / path)
    entries = [
        {
            "file_path": path,
            "id": pid,
            "split": split,
            "captions": captions,
            "processed_tokens": [caption.split() for caption in captions],
        }
        for path, pid, split, captions in records
    ]
    (root / "reid_raw.json").write_text(json.dumps(entries))
    return root


@pytest.fixture
def market(tmp_path: Path) -> Path:
    """A miniature Market-1501: two training people, one query, a match, junk, a distractor, and a stray file."""
    root = tmp_path / "Market-1501"
    names = [
        "bounding_box_train/0002_c1s1_000451_03.jpg",
        "bounding_box_train/0002_c2s1_000452_01.jpg",
        "bounding_box_train/0007_c1s1_000453_01.jpg",
        "query/0001_c1s1_001051_00.jpg",
        "bounding_box_test/0001_c2s1_001052_00.jpg",
        "bounding_box_test/-1_c3s1_000001_00.jpg",
        "bounding_box_test/0000_c4s6_000002_00.jpg",
    ]
    for number, name in enumerate(names):
        save(picture(100 + number), root / name)
    (root / "bounding_box_test" / "Thumbs.db").write_bytes(b"not a picture")
    return root


@pytest.fixture
def icfg(tmp_path: Path) -> Path:
    """A miniature ICFG-PEDES: id 0, no val, one caption a picture, folders of MSMT17 whose names contradict the split."""
    root = tmp_path / "ICFG-PEDES"
    records = [
        ("test/0000/0000_000_01_0303morning_0015_0.jpg", 0, "train", ["A man in a long coat."]),
        ("test/0000/0000_001_02_0303noon_0020_0.jpg", 0, "train", ["A man, seen from behind."]),
        ("train/0001/0001_000_14_0303morning_0008_0.jpg", 3102, "test", ["A woman with a bag."]),
    ]
    return _caption_set(root, "ICFG-PEDES.json", "file_path", records, 200)


@pytest.fixture
def rstp(tmp_path: Path) -> Path:
    """A miniature RSTPReid: id 0, two captions a picture, one with stray characters, one shared between people."""
    root = tmp_path / "RSTPReid"
    shared = "A person with a black coat."
    records = [
        ("0000_c5_0022.jpg", 0, "train", ["A man \u7684 in red\u200b.", "\ufeffHe walks;\x00 </p> print('x')"]),
        ("0001_c1_0001.jpg", 1, "train", [shared, "A woman."]),
        ("3701_c1_0003.jpg", 3701, "val", [shared, "A child."]),
        ("3901_c14_0007.jpg", 3901, "test", ["A boy runs.", shared]),
    ]
    return _caption_set(root, "data_captions.json", "img_path", records, 300)


def _caption_set(root: Path, annotation: str, path_key: str, records: list[tuple], seed: int) -> Path:
    for number, (path, *_) in enumerate(records):
        save(picture(seed + number), root / "imgs" / path)
    entries = [{path_key: path, "id": pid, "split": split, "captions": texts} for path, pid, split, texts in records]
    (root / annotation).write_text(json.dumps(entries))
    return root


@pytest.fixture
def duke(tmp_path: Path) -> Path:
    """A miniature DukeMTMC-reID: two training people, a query and its match."""
    root = tmp_path / "DukeMTMC-reID"
    names = [
        "bounding_box_train/0001_c2_f0046182.jpg",
        "bounding_box_train/0001_c7_f0046302.jpg",
        "bounding_box_train/0008_c1_f0000110.jpg",
        "query/0005_c2_f0046985.jpg",
        "bounding_box_test/0005_c5_f0051341.jpg",
    ]
    for number, name in enumerate(names):
        save(picture(400 + number), root / name)
    return root


@pytest.fixture
def msmt17(tmp_path: Path) -> Path:
    """A miniature MSMT17 V1: person 0 of training is not person 0 of test; Windows line ends and a byte order mark in one
    list."""
    root = tmp_path / "MSMT17_V1"
    lists = {
        "list_train.txt": ("train", ["0000/0000_000_01_0303morning_0015_0.jpg 0", "0001/0001_000_02_0303noon_0001_0.jpg 1"]),
        "list_val.txt": ("train", ["0000/0000_001_05_0303morning_0020_0.jpg 0"]),
        "list_query.txt": ("test", ["0000/0000_000_14_0303morning_0008_0.jpg 0"]),
        "list_gallery.txt": ("test", ["0000/0000_001_15_0303noon_0033_0.jpg 0", "0001/0001_000_01_0302evening_0001_1.jpg 1"]),
    }
    number = 500
    for name, (folder, lines) in lists.items():
        for line in lines:
            save(picture(number := number + 1), root / folder / line.split()[0])
        (root / name).write_text("\n".join(lines) + "\n")
    (root / "list_gallery.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lists["list_gallery.txt"][1], "", ""]).encode())
    return root
