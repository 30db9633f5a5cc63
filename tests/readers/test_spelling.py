"""Pictures whose files are spelled otherwise than the list, table or annotation that names them, in every reader that has one."""

import json
import os
import shutil
import unicodedata
from pathlib import Path

import pandas as pd
import pytest

from hpl.files import HplError
from hpl.readers import spelling
from hpl.readers.spelling import Spelling, respelled, what_is_there
from tests.support.native_sets import build

NFC, NFD = "Jos\u00e9", "Jose\u0301"  # `ls` shows the same
USE = {"use": ["train", "test"]}


def composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


SPELLINGS = {"NFC": composed, "NFD": decomposed, "JPEG": lambda path: path.replace(".jpg", ".JPEG")}


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


@pytest.mark.parametrize(("listed", "there"), [(NFC, NFD), (NFD, NFC)])
def test_the_file_of_the_same_composed_name_is_taken(tmp_path: Path, listed: str, there: str) -> None:
    """In a file's name, in a folder's, and in both; a name that is there as it is listed stays."""
    touch(tmp_path, f"a/{there}.jpg", f"{there}/1.jpg", f"{there}/{listed}.jpg", "Jose.jpg")
    paths = [f"a/{listed}.jpg", f"{listed}/1.jpg", f"{listed}/{there}.jpg", f"a/{there}.jpg", "Jose.jpg", f"b/{listed}.jpg"]
    assert respelled(tmp_path, paths) == {
        f"a/{listed}.jpg": f"a/{there}.jpg",
        f"{listed}/1.jpg": f"{there}/1.jpg",
        f"{listed}/{there}.jpg": f"{there}/{listed}.jpg",
    }


def test_two_files_of_one_name_are_an_error_that_names_both(tmp_path: Path) -> None:
    third = "\u1e69", "\u1e63\u0307", "s\u0323\u0307"  # one letter, in three ways
    touch(tmp_path, f"a/{third[0]}.jpg", f"a/{third[1]}.jpg")
    assert respelled(tmp_path, [f"a/{name}.jpg" for name in third[:2]]) == {}  # each is there as it is listed
    with pytest.raises(HplError) as caught:
        respelled(tmp_path, [f"a/{third[2]}.jpg"])
    assert r"'a/\u1e63\u0307.jpg' and 'a/\u1e69.jpg' are one name" in str(caught.value)
    touch(tmp_path, f"{NFC}/1.jpg", f"{NFD}/1.jpg", f"{NFC}/2.jpg")
    assert Spelling(tmp_path).find(f"{NFD}/2.jpg") == f"{NFC}/2.jpg"  # the other folder holds none


def test_a_suffix_of_the_same_kind_is_taken_if_there_is_one_and_no_list_names_it(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpeg", "a/2.JPG", "a/3.Png", "a/4.jpeg", "a/4.JPG", "a/5.png", "a/6.jpeg", "a/B.jpg", f"a/{NFD}.JPEG")
    paths = ["a/1.jpg", "a/2.jpg", "a/3.png", "a/4.jpg", "a/5.jpg", "a/6.jpg", "a/6.jpeg", "a/b.jpg", f"a/{NFC}.jpg"]
    assert respelled(tmp_path, paths) == {
        "a/1.jpg": "a/1.jpeg",
        "a/2.jpg": "a/2.JPG",
        "a/3.png": "a/3.Png",
        f"a/{NFC}.jpg": f"a/{NFD}.JPEG",
    }
    assert what_is_there(f"{tmp_path}/a/4.jpg").startswith("; there is 4.JPG and 4.jpeg in ")
    assert what_is_there(f"{tmp_path}/a/5.jpg") == f"; there is 5.png in {tmp_path}/a: rename it, or what names it"
    assert "there is B.jpg in" in what_is_there(f"{tmp_path}/a/b.jpg")
    assert f"there is a in {tmp_path}:" in what_is_there(f"{tmp_path}/A/1.jpg")
    assert what_is_there(f"{tmp_path}/a/7.jpg") == what_is_there(f"{tmp_path}/c/d/7.jpg") == ""


def test_no_folder_is_listed_where_all_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/1.jpg", f"a/{NFD}.jpg", "b/1.jpg", "b/2.jpeg", "b/3.jpeg")
    asked, listdir = [], os.listdir
    monkeypatch.setattr(spelling.os, "listdir", lambda folder: asked.append(Path(folder).name) or listdir(folder))
    assert respelled(tmp_path, ["a/1.jpg", f"a/{NFD}.jpg"]) == {} and asked == []
    assert len(respelled(tmp_path, ["a/1.jpg", "b/2.jpg", "b/3.jpg"])) == 2 and asked == [tmp_path.name, "b"]  # once each


def write_table(root: Path, rename: dict[str, str]) -> dict:
    """A table of the pictures of Market-1501 under accented names."""
    source, rows = root.parent / "Market-1501", []
    for number, file in enumerate(sorted(source.rglob("0*.jpg"))):
        name = f"crops/{NFC}/{NFC}{number}.jpg"
        there = root / SPELLINGS[rename["file"]](name)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, there)
        rows.append({"path": name if rename["list"] == "NFC" else decomposed(name), "pid": file.name[:4], "camid": number % 3})
    pd.DataFrame(rows * 2).assign(caption="A man.").to_csv(root / "people.csv", index=False)
    return {"format": "table", "folder": root.name, **USE}


@pytest.mark.parametrize(
    "rename", [{"list": "NFC", "file": "NFD"}, {"list": "NFD", "file": "NFC"}, {"list": "NFC", "file": "JPEG"}]
)
def test_a_table_gives_the_same_manifests_however_the_files_are_spelled(market: Path, tmp_path: Path, rename: dict) -> None:
    (tmp_path / "own").mkdir()
    options = {"datasets": (write_table(tmp_path / "own", rename),)}
    tables = build(tmp_path, tmp_path / "out", **options)
    assert all((tmp_path / "own" / path).is_file() for path in tables.images["path"])
    plain = {"list": "NFC", "file": "NFC"}
    shutil.rmtree(tmp_path / "own"), (tmp_path / "own").mkdir()
    write_table(tmp_path / "own", plain)
    expected = build(tmp_path, tmp_path / "plain", **options)
    for column in ("person", "split", "role", "camid", "sha256"):
        assert tables.images[column].tolist() == expected.images[column].tolist(), column
    assert tables.captions["caption"].tolist() == expected.captions["caption"].tolist()
    notes = [
        json.loads((tmp_path / out / "manifests/audit.json").read_text())["datasets"]["own"]["notes"] for out in ("out", "plain")
    ]
    added = [note for note in notes[0] if note not in notes[1]]
    assert len(added) == 1 and added[0].startswith(
        f"{len(tables.images)} pictures are spelled otherwise on disk than in the list"
    )


def test_an_annotation_and_lists_find_files_of_other_spellings(cuhk: Path, msmt17: Path, tmp_path: Path) -> None:
    annotation = cuhk / "reid_raw.json"
    annotation.write_text(annotation.read_text().replace("cam_a/000_45.bmp", f"cam_a/{NFC}.bmp"))
    (cuhk / "imgs/cam_a/000_45.bmp").rename(cuhk / f"imgs/cam_a/{NFD}.BMP")
    for file in msmt17.rglob("*.jpg"):
        file.rename(file.with_suffix(".jpeg"))
    sets = [{"format": "cuhk-pedes", "folder": "CUHK-PEDES"}, {"format": "msmt17", "folder": "MSMT17_V1"}]
    tables = build(tmp_path, tmp_path / "out", datasets=[{**each, **USE, "official": False} for each in sets])
    paths = tables.images["path"].tolist()
    assert f"imgs/cam_a/{NFD}.BMP" in paths and sum(path.endswith(".jpeg") for path in paths) == 6
    assert len(tables.captions) == 7


def test_a_missing_picture_is_told_with_what_is_there(cuhk: Path, tmp_path: Path) -> None:
    (cuhk / "imgs/cam_a/000_45.bmp").rename(cuhk / "imgs/cam_a/000_45.png")
    with pytest.raises(HplError, match=r"000_45.bmp: picture not found; there is 000_45.png in .*cam_a: rename it"):
        build(tmp_path, tmp_path / "out", datasets=[{"format": "cuhk-pedes", "folder": "CUHK-PEDES", **USE, "official": False}])


@pytest.mark.parametrize(("named", "there"), [(NFC, NFD), (NFD, NFC)])
def test_the_folder_of_a_set_is_found_too(cuhk: Path, tmp_path: Path, named: str, there: str) -> None:
    cuhk.rename(tmp_path / there)
    tables = build(
        tmp_path, tmp_path / "out", datasets=[{"format": "cuhk-pedes", "name": "A", "folder": named, **USE, "official": False}]
    )
    assert len(tables.images) == 4
