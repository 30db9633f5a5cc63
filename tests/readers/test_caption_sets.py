"""The three caption sets in their native layout, odd cases included, and every bad input: one error that names the record."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpl.files import HplError
from hpl.readers.caption_sets import read_cuhk_pedes, read_icfg_pedes, read_rstpreid
from hpl.readers.records import checked_captions

PROPERTY = settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
SETS = {
    "cuhk": (read_cuhk_pedes, "reid_raw.json", "file_path", 1),
    "icfg": (read_icfg_pedes, "ICFG-PEDES.json", "file_path", 0),
    "rstp": (read_rstpreid, "data_captions.json", "img_path", 0),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=6,
)


@pytest.fixture(params=list(SETS))
def each(request: pytest.FixtureRequest):
    """Root, reader, annotation file, path key and first id of each set."""
    reader, annotation, path_key, first_id = SETS[request.param]
    root = request.getfixturevalue(request.param)
    return root, reader, root / annotation, path_key, first_id


def edit(annotation: Path, number: int, **changes: object) -> None:
    """Change keys of one record; None removes a key."""
    records = json.loads(annotation.read_text())
    records[number].update(changes)
    records[number] = {key: value for key, value in records[number].items() if value is not None}
    annotation.write_text(json.dumps(records))


def test_cuhk_pedes(cuhk: Path) -> None:
    reading = read_cuhk_pedes(cuhk)
    records = {record.path: record for record in reading.records}
    assert len(records) == 4 and reading.tasks == ("t2i",) and reading.notes == []
    first = records["imgs/cam_a/000_45.bmp"]
    assert (first.split, first.role, first.person, first.source_pid, first.camid) == ("train", "train", "1", 1, -1)
    assert first.captions == ("A man in red.", "He walks.", "Third caption here.")
    assert records["imgs/CUHK01/0001.png"].split == "train"
    assert records["imgs/Market/0002.jpg"].role == "val"
    last = records["imgs/test_query/p3.jpg"]
    assert (last.split, last.role, last.number) == ("test", "gallery", 3)
    assert reading.place == f"{cuhk / 'reid_raw.json'}: record"


def test_icfg_pedes_takes_the_split_from_the_annotation_alone(icfg: Path) -> None:
    reading = read_icfg_pedes(icfg)
    assert [(record.split, record.role, record.person) for record in reading.records] == [
        ("train", "train", "0"),
        ("train", "train", "0"),
        ("test", "gallery", "3102"),
    ]
    assert reading.records[0].path == "imgs/test/0000/0000_000_01_0303morning_0015_0.jpg"
    assert reading.notes == []


def test_icfg_pedes_with_a_val_split_is_noted(icfg: Path) -> None:
    edit(icfg / "ICFG-PEDES.json", 1, split="val")
    reading = read_icfg_pedes(icfg)
    assert reading.records[1].role == "val"
    assert reading.notes == ["ICFG-PEDES.json has a val split; the official ICFG-PEDES has none"]


def test_icfg_pedes_of_a_mirror(icfg: Path) -> None:
    (icfg / "ICFG-PEDES.json").rename(icfg / "ICFG_PEDES.json")
    reading = read_icfg_pedes(icfg)
    assert len(reading.records) == 3
    assert reading.notes == ["ICFG_PEDES.json was read, a mirror's spelling of ICFG-PEDES.json"]
    (icfg / "ICFG-PEDES.json").write_text("[]")
    with pytest.raises(HplError, match="both ICFG-PEDES.json and ICFG_PEDES.json are there; expected one"):
        read_icfg_pedes(icfg)


def test_rstpreid_keeps_odd_sentences(rstp: Path) -> None:
    records = read_rstpreid(rstp).records
    assert records[0].captions == ("A man 的 in red.", "He walks; </p> print('x')")
    assert records[1].captions[0] == records[2].captions[0] == records[3].captions[1]
    assert (records[0].path, records[0].person, records[0].source_pid) == ("imgs/0000_c5_0022.jpg", "0", 0)


def test_a_mirror_that_nests_the_set_once_more(each) -> None:
    root, reader, annotation, *_ = each
    plain = reader(root).records
    outer = root.parent / "mirror"
    outer.mkdir()
    root.rename(outer / root.name)
    (outer / "__MACOSX" / "imgs").mkdir(parents=True)
    reading = reader(outer)
    assert [record.path for record in reading.records] == [f"{root.name}/{record.path}" for record in plain]
    assert all((outer / record.path).is_file() for record in reading.records)
    assert reading.notes == [f"the set was found one folder deeper, in {root.name}/"]
    (outer / "copy" / "imgs").mkdir(parents=True)
    with pytest.raises(HplError, match=rf"several folders hold a data set: .*{root.name}"):
        reader(outer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "../../secret.jpg"}, r"record 1: path '../../secret.jpg' leaves the data set's folder"),
        ({"path": "/etc/passwd"}, r"record 1: path '/etc/passwd' leaves the data set's folder"),
        ({"path": "CUHK01\\0001.png"}, r"record 1: path .* has a backslash; expected forward slashes"),
        ({"path": "a\ud800.png"}, r"record 1: path 'a\\ud800.png'; expected the path of a picture"),
        ({"path": 3}, r"record 1: path 3; expected the path of a picture"),
        ({"captions": ["fine", "  "]}, r"record 1: empty or broken caption '  '; expected a sentence"),
        ({"captions": ["\ufeff\u200b\x07"]}, r"record 1: empty or broken caption"),
        ({"captions": ["a \ud800 man"]}, r"record 1: empty or broken caption"),
        ({"captions": [7]}, r"record 1: empty or broken caption 7"),
        ({"captions": []}, r"record 1: captions \[\]; expected a non-empty list"),
        ({"captions": "A man."}, r"record 1: captions 'A man.'; expected a non-empty list"),
        ({"split": "holdout"}, r"record 1: split 'holdout'; expected train, val or test"),
        ({"split": 1}, r"record 1: split 1; expected train, val or test"),
        ({"id": "7"}, r"record 1: id '7'; expected an integer >= \d"),
        ({"id": 7.0}, r"record 1: id 7.0; expected an integer >= \d"),
        ({"id": True}, r"record 1: id True; expected an integer >= \d"),
        ({"id": -1}, r"record 1: id -1; expected an integer >= \d"),
        ({"id": 2**31}, r"record 1: id 2147483648; expected an integer >= \d"),
        ({"id": float("nan")}, r"record 1: id nan; expected an integer >= \d"),
        ({"captions": None}, r"record 1: key 'captions' is missing"),
        ({"path": None}, r"record 1: key '\w+_path' is missing"),
    ],
)
def test_a_bad_record_is_named(each, changes: dict, message: str) -> None:
    root, reader, annotation, path_key, _ = each
    edit(annotation, 1, **{path_key if key == "path" else key: value for key, value in changes.items()})
    with pytest.raises(HplError, match=message) as caught:
        reader(root)
    assert str(annotation) in str(caught.value) and "\n" not in str(caught.value)


def test_the_first_id_is_that_of_the_set(each) -> None:
    root, reader, annotation, _, first_id = each
    edit(annotation, 0, id=first_id)
    assert reader(root).records[0].person == str(first_id)
    edit(annotation, 0, id=first_id - 1)
    with pytest.raises(HplError, match=rf"record 0: id {first_id - 1}; expected an integer >= {first_id}"):
        reader(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"id": 1,}]', r"line 1, column \d+: malformed JSON"),
        (b'["\xff"]', "not UTF-8"),
        (b"{}", "expected a non-empty list of records, found dict"),
        (b"[]", "expected a non-empty list of records, found list"),
        (b"[7]", "record 0: found int; expected"),
    ],
)
def test_a_bad_annotation_is_named(each, content: bytes, message: str) -> None:
    root, reader, annotation, *_ = each
    annotation.write_bytes(content)
    with pytest.raises(HplError, match=message) as caught:
        reader(root)
    assert str(annotation) in str(caught.value)


def test_what_is_missing_is_named(each) -> None:
    root, reader, annotation, *_ = each
    with pytest.raises(HplError, match=rf"nowhere: folder not found; expected .*{annotation.name}"):
        reader(root / "nowhere")
    (root / "empty").mkdir()
    with pytest.raises(HplError, match=rf"empty: none of .*{annotation.name}.* is there; expected .*{annotation.name}"):
        reader(root / "empty")
    annotation.rename(root / "elsewhere.json")
    with pytest.raises(HplError, match=rf"{annotation.name}: file not found; expected .* annotations with splits$"):
        reader(root)
    (root / "elsewhere.json").rename(annotation)
    (root / "imgs").rename(root / "pictures")
    with pytest.raises(HplError, match="imgs: folder not found; expected the pictures of"):
        reader(root)


def test_the_official_zip_without_a_split_is_explained(cuhk: Path) -> None:
    (cuhk / "reid_raw.json").rename(cuhk / "caption_all.json")
    with pytest.raises(HplError, match="caption_all.json is there, but it has no split"):
        read_cuhk_pedes(cuhk)


@PROPERTY
@given(key=st.sampled_from(["path", "id", "split", "captions", "processed_tokens"]), value=JSON)
def test_any_value_of_any_key_is_read_or_named(each, key: str, value: object) -> None:
    root, reader, annotation, path_key, _ = each
    original = annotation.read_text()
    records = json.loads(original)
    records[1][path_key if key == "path" else key] = value
    annotation.write_text(json.dumps(records))
    try:
        assert len(reader(root).records) == len(records)
    except HplError as error:
        assert "record 1: " in str(error) and "\n" not in str(error)
    annotation.write_text(original)


@PROPERTY
@given(caption=st.text(min_size=1))
def test_a_caption_loses_white_space_and_invisible_characters_alone(caption: str) -> None:
    kept = [letter for letter in caption if not letter.isspace() and unicodedata.category(letter) not in ("Cc", "Cf")]
    if kept:
        (sentence,) = checked_captions([caption], "here")
        assert sentence.replace(" ", "") == "".join(kept)
        assert checked_captions([sentence], "here") == (sentence,)
    else:
        with pytest.raises(HplError, match="here: empty or broken caption"):
            checked_captions([caption], "here")
