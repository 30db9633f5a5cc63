"""The native formats, odd cases included, and every bad input: one error that names the file or record."""

import json
from pathlib import Path

import pytest

from hpl.files import HplError
from hpl.manifests.cuhk_pedes import read_cuhk_pedes
from hpl.manifests.market1501 import read_market1501
from tests.conftest import picture, save


def edit(root: Path, number: int, **changes: object) -> None:
    """Change keys of one CUHK-PEDES record; None removes a key."""
    file = root / "reid_raw.json"
    records = json.loads(file.read_text())
    records[number].update(changes)
    records[number] = {key: value for key, value in records[number].items() if value is not None}
    file.write_text(json.dumps(records))


def test_cuhk_pedes(cuhk: Path) -> None:
    records = {record.path: record for record in read_cuhk_pedes(cuhk)}
    assert len(records) == 4
    first = records["imgs/cam_a/000_45.bmp"]
    assert (first.split, first.role, first.source_pid, first.camid) == ("train", "train", 1, -1)
    assert first.captions == ("A man in red.", "He walks.", "Third caption here.")
    assert records["imgs/CUHK01/0001.png"].split == "train"
    assert records["imgs/test_query/p3.jpg"].role == "gallery"


def test_market1501(market: Path) -> None:
    records = {record.path: record for record in read_market1501(market)}
    assert len(records) == 7
    train = records["bounding_box_train/0007_c1s1_000453_01.jpg"]
    assert (train.split, train.role, train.source_pid, train.camid, train.anonymous) == ("train", "train", 7, 1, False)
    junk = records["bounding_box_test/-1_c3s1_000001_00.jpg"]
    distractor = records["bounding_box_test/0000_c4s6_000002_00.jpg"]
    assert (junk.source_pid, junk.anonymous, distractor.source_pid, distractor.anonymous) == (-1, True, 0, True)
    assert records["query/0001_c1s1_001051_00.jpg"].role == "query"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file_path": "../../secret.jpg"}, r"record 1: path '../../secret.jpg' leaves the data set's folder"),
        ({"file_path": "/etc/passwd"}, r"record 1: path '/etc/passwd' leaves the data set's folder"),
        ({"file_path": "CUHK01\\0001.png"}, r"record 1: path .* leaves the data set's folder"),
        ({"file_path": "CUHK01/none.png"}, r"record 1: picture .*none.png not found"),
        ({"file_path": "cam_a/000_45.bmp"}, r"records 0 and 1 name the same picture imgs/cam_a/000_45.bmp"),
        ({"captions": ["fine", "  "]}, r"record 1: empty or broken caption '  ' of 'CUHK01/0001.png'"),
        ({"captions": ["a \ud800 man"]}, r"record 1: empty or broken caption"),
        ({"captions": []}, r"record 1: captions \[\]; expected a non-empty list"),
        ({"split": "holdout"}, r"record 1: split 'holdout'; expected train, val or test"),
        ({"id": "7"}, r"record 1: id '7'; expected an integer >= 1"),
        ({"id": 0}, r"record 1: id 0; expected an integer >= 1"),
        ({"captions": None}, r"record 1: key 'captions' is missing"),
    ],
)
def test_a_bad_record_is_named(cuhk: Path, changes: dict, message: str) -> None:
    edit(cuhk, 1, **changes)
    with pytest.raises(HplError, match=message) as caught:
        read_cuhk_pedes(cuhk)
    assert "\n" not in str(caught.value)


def test_malformed_json_is_named_with_its_place(cuhk: Path) -> None:
    (cuhk / "reid_raw.json").write_text('[{"id": 1,}]')
    with pytest.raises(HplError, match=r"reid_raw.json: line 1, column \d+: malformed JSON"):
        read_cuhk_pedes(cuhk)
    (cuhk / "reid_raw.json").write_bytes(b'["\xff"]')
    with pytest.raises(HplError, match="not UTF-8"):
        read_cuhk_pedes(cuhk)
    (cuhk / "reid_raw.json").write_text("{}")
    with pytest.raises(HplError, match="expected a non-empty list of records, found dict"):
        read_cuhk_pedes(cuhk)


def test_the_official_zip_without_a_split_is_explained(cuhk: Path) -> None:
    (cuhk / "reid_raw.json").rename(cuhk / "caption_all.json")
    with pytest.raises(HplError, match="caption_all.json is there, but it has no split"):
        read_cuhk_pedes(cuhk)


@pytest.mark.parametrize(("reader", "expected"), [(read_cuhk_pedes, "reid_raw.json"), (read_market1501, "bounding_box_train")])
def test_a_missing_folder_names_what_was_expected(tmp_path: Path, reader, expected: str) -> None:
    with pytest.raises(HplError, match=rf"nowhere: folder not found; expected .*{expected}"):
        reader(tmp_path / "nowhere")


def test_a_market_file_name_that_does_not_parse_is_named(market: Path) -> None:
    save(picture(0), market / "query" / "person2.jpg")
    with pytest.raises(HplError, match=r"query/person2.jpg: file name; expected the form 0002_c1s1_000451_03.jpg"):
        read_market1501(market)


def test_an_empty_market_folder_is_named(market: Path) -> None:
    (market / "query" / "0001_c1s1_001051_00.jpg").unlink()
    with pytest.raises(HplError, match=r"query: no picture"):
        read_market1501(market)
