"""Market-1501, DukeMTMC-reID and MSMT17 in their native layout, odd cases included, and every bad input."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpl.files import HplError
from hpl.readers.picture_sets import read_dukemtmc_reid, read_market1501, read_msmt17

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
LISTS = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt")


def test_market1501(market: Path) -> None:
    reading = read_market1501(market)
    records = {record.path: record for record in reading.records}
    assert len(records) == 7 and reading.tasks == ("i2i",) and reading.notes == []
    train = records["bounding_box_train/0007_c1s1_000453_01.jpg"]
    assert (train.split, train.role, train.person, train.source_pid, train.camid) == ("train", "train", "0007", 7, 1)
    assert not train.anonymous
    junk = records["bounding_box_test/-1_c3s1_000001_00.jpg"]
    distractor = records["bounding_box_test/0000_c4s6_000002_00.jpg"]
    assert (junk.person, junk.source_pid, junk.anonymous) == ("", -1, True)
    assert (distractor.person, distractor.source_pid, distractor.anonymous) == ("", 0, True)
    assert records["query/0001_c1s1_001051_00.jpg"].role == "query"


def test_dukemtmc_reid(duke: Path) -> None:
    reading = read_dukemtmc_reid(duke)
    found = [(record.path, record.role, record.person, record.camid) for record in reading.records]
    assert found == [
        ("bounding_box_train/0001_c2_f0046182.jpg", "train", "0001", 2),
        ("bounding_box_train/0001_c7_f0046302.jpg", "train", "0001", 7),
        ("bounding_box_train/0008_c1_f0000110.jpg", "train", "0008", 1),
        ("query/0005_c2_f0046985.jpg", "query", "0005", 2),
        ("bounding_box_test/0005_c5_f0051341.jpg", "gallery", "0005", 5),
    ]
    (duke / "bounding_box_test" / "-1_c1_f0000001.jpg").touch()
    (duke / "bounding_box_test" / "0000_c1_f0000002.jpg").touch()
    assert [record.source_pid for record in read_dukemtmc_reid(duke).records if record.anonymous] == [-1, 0]


def test_suffixes_of_mirrors_and_files_that_are_no_pictures(market: Path) -> None:
    for name in ("0009_c1s1_000001_00.jpg.jpg", "0009_c1s1_000002_00.JPG", "0009_c1s1_000003_00.jpeg", "0009_c1s1_000004_00.Png"):
        (market / "query" / name).touch()
    for name in ("._0009_c1s1_000001_00.jpg", ".DS_Store", "desktop.ini"):
        (market / "query" / name).touch()
    reading = read_market1501(market)
    assert sum(record.person == "0009" for record in reading.records) == 4
    assert reading.notes == ["3 files that are no pictures were ignored, such as .DS_Store"]


def test_a_person_of_training_and_test_is_noted(market: Path) -> None:
    (market / "bounding_box_test" / "0007_c2s1_000001_00.jpg").touch()
    assert read_market1501(market).notes == [
        "1 people are in training and test, such as 0007; the official Market-1501 shares none"
    ]


@pytest.mark.parametrize(
    "name",
    [
        "person2.jpg",
        "0001_c1s1_001051_00.txt",
        "0001_c1s1_001051_00.png.jpg",
        "0001_c1_f0046182.jpg",
        "0001_cXs1_001051_00.jpg",
        "-2_c1s1_001051_00.jpg",
        "٣_c1s1_001051_00.jpg",
        "0001_c1s1_001051.jpg",
        "9999999999_c1s1_001051_00.jpg",
    ],
)
def test_a_market_file_name_that_does_not_parse_is_named(market: Path, name: str) -> None:
    (market / "query" / name).touch()
    with pytest.raises(HplError) as caught:
        read_market1501(market)
    assert str(caught.value).startswith(
        f"{market / 'query' / name}: the file name does not parse; expected the form 0002_c1s1_000451_03.jpg"
    )
    (market / "bounding_box_test" / name).touch()
    with pytest.raises(HplError, match="does not parse and 1 more; expected the form"):
        read_market1501(market)


@pytest.mark.parametrize("name", ["-1_c3s1_000001_00.jpg", "0000_c3s1_000001_00.jpg"])
@pytest.mark.parametrize("folder", ["query", "bounding_box_train"])
def test_anonymous_pictures_belong_in_the_gallery(market: Path, folder: str, name: str) -> None:
    (market / folder / name).touch()
    with pytest.raises(HplError, match=rf"{folder}/{name}: pid (0|-1) is junk or a distractor"):
        read_market1501(market)


def test_an_empty_or_missing_market_folder_is_named(market: Path) -> None:
    (market / "query" / "0001_c1s1_001051_00.jpg").unlink()
    with pytest.raises(HplError, match=r"query: no picture; expected 0002_c1s1_000451_03.jpg"):
        read_market1501(market)
    (market / "query").rmdir()
    with pytest.raises(HplError, match=r"query: folder not found; expected the query pictures of Market-1501"):
        read_market1501(market)


@pytest.mark.parametrize(
    ("reader", "expected"),
    [(read_market1501, "bounding_box_train"), (read_dukemtmc_reid, "bounding_box_train"), (read_msmt17, "list_train.txt")],
)
def test_a_missing_set_names_what_was_expected(tmp_path: Path, reader, expected: str) -> None:
    with pytest.raises(HplError, match=rf"nowhere: folder not found; expected .*{expected}"):
        reader(tmp_path / "nowhere")
    with pytest.raises(HplError, match=rf"none of .*is there; expected .*{expected}"):
        reader(tmp_path)


@pytest.mark.parametrize(
    ("fixture", "reader"), [("market", read_market1501), ("duke", read_dukemtmc_reid), ("msmt17", read_msmt17)]
)
def test_a_mirror_that_nests_the_set_once_more(request, tmp_path: Path, fixture: str, reader) -> None:
    root = request.getfixturevalue(fixture)
    plain = [record.path for record in reader(root).records]
    reading = reader(tmp_path)
    assert [record.path for record in reading.records] == [f"{root.name}/{path}" for path in plain]
    assert all((tmp_path / record.path).is_file() for record in reading.records)
    assert reading.notes == [f"the set was found one folder deeper, in {root.name}/"]
    (tmp_path / "MSMT17").mkdir()
    root.rename(tmp_path / "MSMT17" / root.name)
    reading = reader(tmp_path)
    assert [record.path for record in reading.records] == [f"MSMT17/{root.name}/{path}" for path in plain]
    assert all((tmp_path / record.path).is_file() for record in reading.records)
    assert reading.notes == [f"the set was found two folders deeper, in MSMT17/{root.name}/"]
    (tmp_path / "MSMT17" / "more").mkdir()
    (tmp_path / "MSMT17" / root.name).rename(tmp_path / "MSMT17" / "more" / root.name)
    with pytest.raises(HplError, match="is there; expected .*; it holds MSMT17$"):
        reader(tmp_path)


@pytest.mark.parametrize("spelling", ["{}", "{}.txt.txt", "{}.TXT"])
def test_msmt17_lists_whose_suffix_a_program_hid_or_repeated(msmt17: Path, spelling: str) -> None:
    plain = read_msmt17(msmt17).records
    for name in LISTS:
        (msmt17 / name).rename(msmt17 / spelling.format(name.removesuffix(".txt")))
    reading = read_msmt17(msmt17)
    assert list(reading.records) == list(plain)
    assert reading.notes == [f"{spelling.format(name.removesuffix('.txt'))} was read for {name}" for name in LISTS]
    first = msmt17 / spelling.format("list_query")
    (msmt17 / "list_query.Txt").write_bytes(first.read_bytes())
    with pytest.raises(HplError, match=r"list_query.txt: file not found; there are .*list_query.Txt.*: rename one"):
        read_msmt17(msmt17)
    first.rename(msmt17 / "list_query.txt")  # the official name decides
    assert len(read_msmt17(msmt17).records) == len(plain)


def test_msmt17(msmt17: Path) -> None:
    reading = read_msmt17(msmt17)
    assert (reading.version, reading.tasks, reading.notes) == ("V1", ("i2i",), [])
    found = [
        (record.path, record.split, record.role, record.person, record.source_pid, record.camid) for record in reading.records
    ]
    assert found == [
        ("train/0000/0000_000_01_0303morning_0015_0.jpg", "train", "train", "train/0000", 0, 1),
        ("train/0001/0001_000_02_0303noon_0001_0.jpg", "train", "train", "train/0001", 1, 2),
        ("train/0000/0000_001_05_0303morning_0020_0.jpg", "train", "train", "train/0000", 0, 5),
        ("test/0000/0000_000_14_0303morning_0008_0.jpg", "test", "query", "test/0000", 0, 14),
        ("test/0000/0000_001_15_0303noon_0033_0.jpg", "test", "gallery", "test/0000", 0, 15),
        ("test/0001/0001_000_01_0302evening_0001_1.jpg", "test", "gallery", "test/0001", 1, 1),
    ]
    assert not any(record.anonymous for record in reading.records)  # person 0 is a person here


def test_msmt17_version_2(msmt17: Path) -> None:
    for side in ("train", "test"):
        (msmt17 / side).rename(msmt17 / f"mask_{side}_v2")
    reading = read_msmt17(msmt17)
    assert reading.version == "V2"
    assert reading.records[-1].path == "mask_test_v2/0001/0001_000_01_0302evening_0001_1.jpg"
    (msmt17 / "test").mkdir()
    with pytest.raises(HplError, match="both V1 .* and V2 .* are there; expected one"):
        read_msmt17(msmt17)


def test_msmt17_both_versions_side_by_side(msmt17: Path, tmp_path: Path) -> None:
    (tmp_path / "MSMT17_V2" / "mask_train_v2").mkdir(parents=True)
    with pytest.raises(
        HplError, match="several folders hold a data set: MSMT17_V1, MSMT17_V2; expected one: point `folder` at it"
    ):
        read_msmt17(tmp_path)


def test_msmt17_without_a_part(msmt17: Path) -> None:
    (msmt17 / "list_val.txt").unlink()
    reading = read_msmt17(msmt17)
    assert len(reading.records) == 5
    assert reading.notes == ["list_val.txt is missing: officially 2,373 of the training pictures"]
    (msmt17 / "list_query.txt").write_text("\n\n")
    with pytest.raises(HplError, match="list_query.txt: no picture; expected lines such as"):
        read_msmt17(msmt17)
    (msmt17 / "list_query.txt").unlink()
    with pytest.raises(HplError, match="list_query.txt: file not found"):
        read_msmt17(msmt17)
    (msmt17 / "train").rename(msmt17 / "pictures")
    with pytest.raises(HplError, match="train: folder not found; expected the train pictures of MSMT17 V1"):
        read_msmt17(msmt17)
    (msmt17 / "test").rename(msmt17 / "more")
    with pytest.raises(HplError, match=r"no pictures; expected the MSMT17 folder with train/ and test/ \(V1\)"):
        read_msmt17(msmt17)


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"0000/0000_000_01_x.jpg", r"has 1 fields; expected path and pid"),
        (b"0000/0000_000_01 x.jpg 0", r"'0000/0000_000_01 x.jpg 0' has 3 fields; expected path and pid"),
        (b"0000/0000_000_01_x.jpg zero", r"pid 'zero'; expected a whole number >= 0"),
        (b"0000/0000_000_01_x.jpg -1", r"pid '-1'; expected a whole number >= 0"),
        (b"0000/0000_000_01_x.jpg 0.0", r"pid '0.0'; expected a whole number >= 0"),
        (b"0000/0000_000_01_x.jpg " + b"9" * 5000, r"expected a whole number >= 0"),
        (b"../secret/0000_000_01_x.jpg 0", r"path '../secret/0000_000_01_x.jpg' leaves the data set's folder"),
        (b"/0000/0000_000_01_x.jpg 0", r"leaves the data set's folder"),
        (b"0000/0000_000_cam_x.jpg 0", r"file name '0000_000_cam_x.jpg'; expected the camera as third field"),
        (b"0000/0000.jpg 0", r"file name '0000.jpg'; expected the camera as third field"),
        (b"0001/0001_000_01_x.jpg 2", r"pid 2 of '0001/0001_000_01_x.jpg'; expected that of its folder, 1"),
    ],
)
def test_a_bad_line_is_named(msmt17: Path, name: str, line: bytes, message: str) -> None:
    (msmt17 / name).write_bytes(b"0000/0000_000_01_a.jpg 0\n\n" + line + b"\n")
    with pytest.raises(HplError, match=message) as caught:
        read_msmt17(msmt17)
    assert str(caught.value).startswith(f"{msmt17 / name}: line 3: ") and "\n" not in str(caught.value)


def test_a_list_that_is_not_utf8_is_named_with_the_byte(msmt17: Path) -> None:
    (msmt17 / "list_gallery.txt").write_bytes(b"\xef\xbb\xbf0000/\xff 0\n")
    with pytest.raises(HplError, match=r"list_gallery.txt: not UTF-8 text \(byte 8\)"):
        read_msmt17(msmt17)


def test_a_folder_that_is_no_number_says_nothing_of_the_person(msmt17: Path) -> None:
    (msmt17 / "list_query.txt").write_text("evening/0000_000_07_x.jpg 12\n0000_000_08_x.jpg 3")
    queries = [record for record in read_msmt17(msmt17).records if record.role == "query"]
    assert [(record.person, record.camid) for record in queries] == [("test/0012", 7), ("test/0003", 8)]


@PROPERTY
@given(
    pid=st.integers(1, 99999),
    camid=st.integers(0, 99),
    numbers=st.tuples(*[st.integers(0, 999999)] * 3),
    suffix=st.sampled_from([".jpg", ".JPG", ".jpeg", ".png", ".jpg.jpg"]),
)
def test_names_are_read_back(market: Path, duke: Path, msmt17: Path, pid: int, camid: int, numbers: tuple, suffix: str) -> None:
    sequence, frame, box = numbers
    for root, reader, name in (
        (market, read_market1501, f"{pid:04d}_c{camid}s{sequence}_{frame:06d}_{box:02d}{suffix}"),
        (duke, read_dukemtmc_reid, f"{pid:04d}_c{camid}_f{frame:07d}{suffix}"),
    ):
        file = root / "query" / name
        file.touch()
        record = next(record for record in reader(root).records if record.path == f"query/{name}")
        assert (record.source_pid, record.person, record.camid, record.role) == (pid, f"{pid:04d}", camid, "query")
        file.unlink()
    line = f"{pid:04d}/{pid:04d}_{sequence:03d}_{camid:02d}_0303morning_{frame:04d}_{box}{suffix} {pid}"
    (msmt17 / "list_query.txt").write_text(line)
    record = next(record for record in read_msmt17(msmt17).records if record.role == "query")
    assert (record.source_pid, record.person, record.camid) == (pid, f"test/{pid:04d}", camid)


@PROPERTY
@given(content=st.binary() | st.text().map(str.encode), name=st.sampled_from(LISTS))
def test_any_list_is_read_or_named(msmt17: Path, content: bytes, name: str) -> None:
    original = (msmt17 / name).read_bytes()
    (msmt17 / name).write_bytes(content)
    try:
        read_msmt17(msmt17)
    except HplError as error:
        assert name in str(error) and "\n" not in str(error)
    (msmt17 / name).write_bytes(original)
