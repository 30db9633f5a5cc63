"""A user's own table or folders: what is read, and every fault named with its line or file."""

import csv
import io
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpl.files import HplError
from hpl.readers.own_data import read_folders, read_table
from tests.support.pictures import picture, save

PROPERTY = settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write_csv(root: Path, text: str | bytes) -> Path:
    (root / "people.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def write_parquet(root: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), root / "people.parquet")
    return root


def read(root: Path) -> list:
    return list(read_table(root).records)


def touch(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_a_csv_table(tmp_path: Path) -> None:
    text = (
        "\ufeffpath,pid,camid,caption,split,width\r\n"
        'a/1.jpg, anna ,0,"A woman, tall.",Train,64\r\n'
        "a/1.jpg,anna,0,She walks.,train,64\r\n"
        "\r\n"
        "b.png,0007,,,TEST,64\r\n"
        'c.png,7,3.0,"Two\nlines.",query,64\r\n'
        "d.png,-1,,,gallery,64\r\n"
        "./e//f.png,Distractor,,,test,64\r\n"
        "g.png,NA,1,,val,64\r\n"
    )
    reading = read_table(write_csv(tmp_path, text))
    records = list(reading.records)
    assert [(record.path, record.person, record.source_pid, record.split, record.role, record.camid) for record in records] == [
        ("a/1.jpg", "anna", None, "train", "train", 0),
        ("a/1.jpg", "anna", None, "train", "train", 0),
        ("b.png", "0007", None, "test", "", -1),
        ("c.png", "7", None, "test", "query", 3),
        ("d.png", "", -1, "test", "gallery", -1),
        ("e/f.png", "", 0, "test", "gallery", -1),
        ("g.png", "NA", None, "val", "val", 1),
    ]
    assert [record.number for record in records] == [2, 3, 5, 6, 8, 9, 10]
    assert [record.captions for record in records[:4]] == [("A woman, tall.",), ("She walks.",), (), ("Two lines.",)]
    assert [record.anonymous for record in records] == [False] * 4 + [True, True, False]
    assert reading.place == f"{tmp_path / 'people.csv'}: line" and reading.tasks == ()
    assert reading.notes == ["people.csv: columns ignored: width"]


def test_a_table_of_two_columns(tmp_path: Path) -> None:
    records = read(write_csv(tmp_path, "PID,Path\nanna,1.jpg\n-1,2.jpg"))
    assert [(record.path, record.person, record.split, record.role, record.camid) for record in records] == [
        ("1.jpg", "anna", "", "", -1),
        ("2.jpg", "", "", "", -1),
    ]


@pytest.mark.parametrize("pid", [pa.array([7, 7], pa.int16()), pa.array([7.0, 7.0]), pa.array(["7", " 7 "]).dictionary_encode()])
def test_a_parquet_table_names_people_by_text_or_whole_number(tmp_path: Path, pid: pa.Array) -> None:
    root = write_parquet(
        tmp_path, path=["a.jpg", "b.jpg"], pid=pid, camid=[1.0, None], caption=["A man.", None], picture=[b"1", b"2"]
    )
    reading = read_table(root)
    records = list(reading.records)
    assert [(record.person, record.camid, record.captions, record.number) for record in records] == [
        ("7", 1, ("A man.",), 1),
        ("7", -1, (), 2),
    ]
    assert reading.place == f"{tmp_path / 'people.parquet'}: row"
    assert reading.notes == ["people.parquet: columns ignored: picture"]


def test_the_rows_are_not_read_before_they_are_asked_for(tmp_path: Path) -> None:
    reading = read_table(write_csv(tmp_path, "path,pid\n1.jpg,anna\n2.jpg,\n"))
    records = iter(reading.records)
    assert next(records).person == "anna"
    with pytest.raises(HplError, match="line 3: pid ''"):
        next(records)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",anna,,,train", r"path ''; expected the path of a picture"),
        ("../1.jpg,anna,,,train", r"path '../1.jpg' leaves the data set's folder"),
        ("1.jpg,,,,train", r"pid ''; expected who the person is"),
        ("1.jpg, ,,,train", r"pid ''; expected who the person is"),
        ("1.jpg,NaN,,,train", r"pid 'NaN'; expected who the person is"),
        ("1.jpg,-2,,,train", r"pid '-2'; expected who the person is"),
        ("1.jpg,-1.5,,,test", r"pid '-1.5'; expected who the person is"),
        ("1.jpg,-1,,,train", r"pid '-1' is junk or a distractor; expected .* test or gallery alone, not train"),
        ("1.jpg,distractor,,,query", r"pid 'distractor' is junk or a distractor; expected .*, not query"),
        ("1.jpg,anna,-1,,train", r"camid '-1'; expected a whole number >= 0"),
        ("1.jpg,anna,1.5,,train", r"camid '1.5'; expected a whole number >= 0"),
        ("1.jpg,anna,left,,train", r"camid 'left'; expected a whole number >= 0"),
        ("1.jpg,anna,99999999999,,train", r"camid '99999999999'; expected a whole number >= 0"),
        ("1.jpg,anna,,\u200b,train", r"empty or broken caption '\\u200b'"),
        ("1.jpg,anna,,,", r"split ''; expected train, val, test, query or gallery in every row"),
        ("1.jpg,anna,,,dev", r"split 'dev'; expected train, val, test, query or gallery"),
        ("1.jpg,anna", r"2 fields; expected 5"),
        ("1.jpg,anna,,,train,more", r"6 fields; expected 5"),
        ('1.jpg,"anna,,,train', r"malformed CSV \(unexpected end of data\)"),
        ('1.jpg,"anna"x,,,train', r"malformed CSV \(',' expected after '\"'\)"),
        ("1.jpg,an\rna,,,train", r"malformed CSV"),
        ("1.jpg,an\0na,,,train", r"a NUL byte"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: str, message: str) -> None:
    write_csv(tmp_path, f"path,pid,camid,caption,split\n0.jpg,anna,0,,train\n\n{row}\n")
    with pytest.raises(HplError, match=message) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'people.csv'}: line 4: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"pid": [1.0, 7.5]}, r"row 2: pid 7.5; expected text or a whole number"),
        ({"pid": [1.0, float("inf")]}, r"row 2: pid inf; expected text or a whole number"),
        ({"pid": [1.0, float("nan")]}, r"row 2: pid ''; expected who the person is"),
        ({"pid": ["anna", None]}, r"row 2: pid ''; expected who the person is"),
        ({"pid": [1, -3]}, r"row 2: pid '-3'; expected who the person is"),
        ({"pid": [True, False]}, r"row 1: pid True; expected text or a whole number"),
        ({"pid": [["anna"], ["bob"]]}, r"row 1: pid \['anna'\]; expected text or a whole number"),
        ({"camid": [0.0, 0.5]}, r"row 2: camid 0.5; expected text or a whole number"),
        ({"path": ["1.jpg", None]}, r"row 2: path None; expected the path of a picture"),
        ({"path": [b"1.jpg", b"2.jpg"]}, r"row 1: path b'1.jpg'; expected the path of a picture"),
        ({"split": ["train", None]}, r"row 2: split None; expected train"),
        ({"caption": [1, 2]}, r"row 1: caption 1; expected one sentence"),
    ],
)
def test_a_bad_row_of_a_parquet_table_is_named(tmp_path: Path, columns: dict, message: str) -> None:
    write_parquet(tmp_path, **{"path": ["1.jpg", "2.jpg"], "pid": ["anna", "bob"], **columns})
    with pytest.raises(HplError, match=message) as caught:
        read(tmp_path)
    assert str(tmp_path / "people.parquet") in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"columns \[\]; expected path and pid"),
        (b"path,person\n1.jpg,anna\n", r"columns \['path', 'person'\]; expected path and pid"),
        (b"path;pid\n1.jpg;anna\n", r"columns \['path;pid'\]; expected path and pid"),
        (b"path,pid,Pid\n1.jpg,anna,anna\n", r"columns \['path', 'pid', 'pid'\]; expected path and pid, each once"),
        (b"path,pid\n", r"people.csv: no row; expected one for each picture"),
        (b"path,pid\n1.jpg,\xff\n", r"line 2: not UTF-8 text \(byte 6 of the line\)"),
        ("path,pid\n1.jpg,anna\n".encode("utf-16"), r"line 1: not UTF-8 text \(byte 0 of the line\)"),
    ],
)
def test_a_bad_table_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(HplError, match=message) as caught:
        read(write_csv(tmp_path, content))
    assert str(tmp_path / "people.csv") in str(caught.value)


def test_a_corrupt_parquet_file_is_named(tmp_path: Path) -> None:
    file = write_parquet(tmp_path, path=["1.jpg"] * 100, pid=["anna"] * 100) / "people.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:-20])
    with pytest.raises(HplError, match=r"people.parquet: malformed Parquet"):
        read(tmp_path)
    file.write_bytes(content[:4] + b"\xff" * 40 + content[44:])
    with pytest.raises(HplError, match=r"people.parquet: malformed Parquet"):
        read(tmp_path)


def test_one_table_is_expected(tmp_path: Path) -> None:
    with pytest.raises(HplError, match="nowhere: folder not found; expected a folder with one .csv or .parquet file"):
        read_table(tmp_path / "nowhere")
    with pytest.raises(HplError, match="tables found: none; expected one .csv or .parquet file"):
        read_table(tmp_path)
    touch(tmp_path, "a.CSV", "b.parquet", "._c.csv")
    with pytest.raises(HplError, match="tables found: a.CSV, b.parquet; expected one"):
        read_table(tmp_path)


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@PROPERTY
@given(caption=TEXT, pid=TEXT)
def test_any_text_that_csv_writes_is_read_back(tmp_path: Path, caption: str, pid: str) -> None:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([["path", "pid", "caption"], ["1.jpg", f"p {pid}", f"c {caption}"]])
    (record,) = read(write_csv(tmp_path, buffer.getvalue()))
    assert record.person == unicodedata.normalize("NFC", f"p {pid}".strip())
    assert record.captions[0] == " ".join(record.captions[0].split())
    if caption.isprintable():
        assert record.captions == (" ".join(f"c {caption}".split()),)


@PROPERTY
@given(st.binary() | TEXT.map(str.encode), st.sampled_from(["", "path,pid\n", "path,pid,split,camid,caption\n"]))
def test_any_csv_file_is_read_or_named(tmp_path: Path, content: bytes, header: str) -> None:
    write_csv(tmp_path, header.encode() + content)
    try:
        read(tmp_path)
    except HplError as error:
        assert "people.csv" in str(error) and "\n" not in str(error)


@PROPERTY
@given(st.binary(min_size=1, max_size=8), st.floats(0, 1, exclude_max=True))
def test_any_parquet_file_is_read_or_named(tmp_path: Path, content: bytes, place: float) -> None:
    file = write_parquet(tmp_path, path=["1.jpg", "2.jpg"], pid=["anna", "bob"], camid=[1, 2]) / "people.parquet"
    whole = file.read_bytes()
    start = int(place * len(whole))
    file.write_bytes(whole[:start] + content + whole[start + len(content) :])
    try:
        read(tmp_path)
    except HplError as error:
        assert "people.parquet" in str(error)


def test_folders_of_people(tmp_path: Path) -> None:
    touch(
        tmp_path, "bob/2.PNG", "anna/day/b_c2.jpg", "anna/a_c1.JPEG", "anna/.hidden/x.jpg", ".git/x/y.jpg", "__MACOSX/anna/a.jpg"
    )
    touch(tmp_path, "anna/Thumbs.db", "anna/notes.json", "readme.txt", "carl/empty.pdf")
    (tmp_path / "anna" / "a_c1.txt").write_bytes("\ufeffA woman.\r\n\r\nShe  walks.\r\n".encode())
    (tmp_path / "bob" / "2.txt").write_text("\n")
    reading = read_folders(tmp_path)
    records = list(reading.records)
    assert [(record.path, record.person, record.split, record.role, record.camid) for record in records] == [
        ("anna/a_c1.JPEG", "anna", "", "", -1),
        ("anna/day/b_c2.jpg", "anna", "", "", -1),
        ("bob/2.PNG", "bob", "", "", -1),
    ]
    assert [record.captions for record in records] == [("A woman.", "She walks."), (), ()]
    assert {record.source_pid for record in records} == {None}
    assert reading.notes == [
        "1 folders of people hold no picture, such as carl",
        "3 files that are no pictures were ignored, such as readme.txt",
        "2 hidden files and folders were ignored, such as .git",
    ]


def test_a_picture_is_one_whatever_its_file_is_called(tmp_path: Path) -> None:
    names = ["0001", "b.dat", "c.jpg_large"]
    for number, name in enumerate(names):
        save(picture(number), tmp_path / "anna" / name, format=("PNG", "JPEG", "WEBP")[number])
    touch(tmp_path, "anna/phone.HEIC", "anna/notes.pdf", "anna/empty")
    paths = [record.path for record in read_folders(tmp_path).records]
    assert paths == [f"anna/{name}" for name in (*names, "phone.HEIC")]


def test_two_caption_files_of_one_picture_are_both_read(tmp_path: Path) -> None:
    touch(tmp_path, "anna/1.jpg")
    for suffix, caption in ((".TXT", "A woman."), (".txt", "She walks.")):
        (tmp_path / "anna" / f"1{suffix}").write_text(caption)
    assert [record.captions for record in read_folders(tmp_path).records] == [("A woman.", "She walks.")]


def test_one_name_in_two_spellings_is_one_person(tmp_path: Path) -> None:
    rows = ["1.jpg,Jose\u0301", "2.jpg,Jos\u00e9", "3.jpg,7", "4.jpg,7.0", "5.jpg,-1.0", "6.jpg,v7.0"]
    people = [record.person for record in read(write_csv(tmp_path, "\n".join(["path,pid", *rows])))]
    assert people == ["Jos\u00e9", "Jos\u00e9", "7", "7", "", "v7.0"]


NFC, NFD = "Jos\u00e9", "Jose\u0301"  # `ls` shows the same


@pytest.mark.parametrize(("picture", "text"), [(NFC, NFD), (NFD, NFC), (NFC, NFC), (NFD, NFD)])
def test_captions_are_found_however_their_accents_are_written(tmp_path: Path, picture: str, text: str) -> None:
    touch(tmp_path, f"anna/{picture}.jpg", "anna/Jose.jpg")
    (tmp_path / "anna" / f"{text}.txt").write_text("A woman.")
    records = {record.path: record.captions for record in read_folders(tmp_path).records}
    assert records == {"anna/Jose.jpg": (), f"anna/{picture}.jpg": ("A woman.",)}  # the path is that of the disk


@pytest.mark.parametrize("suffix", ["jpg", "txt"])
def test_two_files_of_one_name_are_an_error_that_names_both(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path, f"anna/{NFC}.jpg", f"anna/{NFC}.{suffix}", f"anna/{NFD}.{suffix}")
    with pytest.raises(HplError) as caught:
        list(read_folders(tmp_path).records)
    assert rf"anna: 'Jose\u0301.{suffix}' and 'Jos\xe9.{suffix}' are one name" in str(caught.value)


def test_folders_of_splits(tmp_path: Path) -> None:
    files = "train/7/1.jpg Val/8/2.jpg test/9/3.jpg query/10/4.jpg gallery/10/5.jpg gallery/-1/6.jpg test/Distractors/7.jpg"
    records = {record.path: record for record in read_folders(touch(tmp_path, *files.split())).records}
    assert {path: (record.person, record.split, record.role, record.source_pid) for path, record in records.items()} == {
        "Val/8/2.jpg": ("8", "val", "val", None),
        "gallery/-1/6.jpg": ("", "test", "gallery", -1),
        "gallery/10/5.jpg": ("10", "test", "gallery", None),
        "query/10/4.jpg": ("10", "test", "query", None),
        "test/9/3.jpg": ("9", "test", "", None),
        "test/Distractors/7.jpg": ("", "test", "gallery", 0),
        "train/7/1.jpg": ("7", "train", "train", None),
    }
    assert all(record.anonymous == (record.person == "") for record in records.values())


def test_the_camera_stands_in_the_file_name(tmp_path: Path) -> None:
    touch(tmp_path, "anna/x_c12_1.jpg")
    assert [record.camid for record in read_folders(tmp_path, r"_c(\d+)").records] == [12]
    with pytest.raises(HplError, match=r"anna/x_c12_1.jpg: no camera in the file name; expected a number as"):
        list(read_folders(tmp_path, r"_k(\d+)").records)
    with pytest.raises(HplError, match=r"anna/x_c12_1.jpg: no camera in the file name"):
        list(read_folders(tmp_path, r"_(\w)\d").records)
    with pytest.raises(HplError, match=r"anna/x_c12_1.jpg: no camera in the file name"):
        list(read_folders(tmp_path, r"x_(k)?").records)


PEOPLE_IN_CAMERAS = [f"cam0{camera}/{person}/1.jpg" for camera in (1, 2, 3) for person in ("anna", "ben", "carl", "dora")]


def test_cameras_above_the_people_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        HplError, match="3 folders such as cam01 and cam03 hold the same 4 folders, such as anna: cameras above people"
    ):
        read_folders(touch(tmp_path / "alone", *PEOPLE_IN_CAMERAS))
    with pytest.raises(HplError, match="2 folders such as c1 and c2 hold the same 1 folders, such as ben"):
        read_folders(touch(tmp_path / "few", "c1/anna/1.jpg", "c1/ben/1.jpg", "c2/ben/1.jpg", "c2/carl/1.jpg"))
    with pytest.raises(
        HplError, match=f"{tmp_path}/split/train: .* expected <person>/<camera>/<picture>, and camera_pattern, or"
    ):
        read_folders(touch(tmp_path / "split", *(f"train/{file}" for file in PEOPLE_IN_CAMERAS), "test/eve/1.jpg"))


@pytest.mark.parametrize(
    ("files", "note"),
    [
        (
            [file.replace("cam0", "gate") for file in PEOPLE_IN_CAMERAS],
            "every one holds folders such as anna; if those are people",
        ),
        (["cam01/1.jpg", "cam02/2.jpg"], "2 folders such as cam01 and cam02 were taken for people, and are called like cameras"),
        ([f"{person}/cam{camera}/1.jpg" for person in ("anna", "ben") for camera in (1, 2, 3)], ""),
        ([f"p{person}/seq{number}/1.jpg" for person in range(5) for number in range(2)], ""),
        (["anna/day/1.jpg", "ben/1.jpg"], ""),
        (["c1/1.jpg", "bob/1.jpg"], ""),
    ],
)
def test_what_may_be_cameras_or_people_is_told_and_people_are_left_alone(tmp_path: Path, files: list[str], note: str) -> None:
    notes = read_folders(touch(tmp_path, *files)).notes
    assert note in notes[0] if note else notes == []


def test_the_camera_may_be_a_folder_below_the_person(tmp_path: Path) -> None:
    root = touch(tmp_path, "anna/cam1/1.jpg", "anna/cam2/cam7_2.jpg", "ben/1_cam3.jpg")
    assert [record.camid for record in read_folders(root, r"cam(\d+)").records] == [1, 7, 3]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("", r"no folder; expected <person>/<picture>"),
        ("anna/x.pdf", r"no picture; expected <person>/<picture>"),
        ("anna/1.jpg 2.jpg", r"2.jpg: a picture outside a person's folder; expected"),
        ("train/anna/1.jpg train/2.jpg", r"train/2.jpg: a picture outside a person's folder; expected"),
        ("Train/anna/1.jpg bob/2.jpg", r"folder Train bears the name of a split and folder bob does not"),
        ("anna/1.jpg anna/2.txt", r"anna/2.txt: no picture 2 beside it"),
        ("anna/1.jpg anna/a/1.txt", r"anna/a/1.txt: no picture 1 beside it"),
        ("train/-1/1.jpg", r"train/-1: pid '-1' is junk or a distractor; expected .* not train"),
        ("query/distractors/1.jpg", r"query/distractors: pid 'distractors' is junk or a distractor; .* not query"),
        ("-7/1.jpg", r"-7: pid '-7'; expected who the person is"),
        ("anna/a\\b.jpg", r"anna: path .* has a backslash; expected forward slashes"),
        ("anna/\udcff.jpg", r"anna: path 'anna/\\udcff.jpg'; expected the path of a picture"),
    ],
)
def test_folders_that_do_not_fit_are_named(tmp_path: Path, files: str, message: str) -> None:
    touch(tmp_path, *files.split())
    with pytest.raises(HplError, match=message) as caught:
        list(read_folders(tmp_path).records)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_captions_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "anna/1.jpg")
    (tmp_path / "anna" / "1.txt").write_bytes(b"caf\xe9")
    with pytest.raises(HplError, match=r"anna/1.txt: not UTF-8 text \(byte 3\)"):
        list(read_folders(tmp_path).records)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    elsewhere = touch(tmp_path / "elsewhere", "1.jpg").resolve()
    root = touch(tmp_path / "data", "anna/2.jpg")
    (root / "anna" / "3.jpg").symlink_to(elsewhere / "1.jpg")
    (root / "anna" / "loop").symlink_to(root)
    (root / "bob").symlink_to(elsewhere)
    (root / "circle").symlink_to(root)
    reading = read_folders(root)
    assert [record.path for record in reading.records] == ["anna/2.jpg", "anna/3.jpg", "bob/1.jpg"]
    assert "2 links to folders were not followed, such as anna/loop" in reading.notes


@PROPERTY
@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), st.sampled_from([".jpg", ".BMP", ".txt", ".db", ""])
)
def test_any_file_is_read_ignored_or_named(tmp_path_factory, path: str, suffix: str) -> None:
    root = touch(tmp_path_factory.mktemp("data"), f"{path}{suffix}")
    try:
        assert [record.path for record in read_folders(root).records] == [f"{path}{suffix}"]
    except HplError as error:
        assert str(root) in str(error)
    else:
        assert suffix in (".jpg", ".BMP") and "/" in path


def test_people_one_folder_deeper_are_found(tmp_path: Path) -> None:
    touch(tmp_path, "export/train/anna/1.jpg", "export/test/ben/2.jpg")
    reading = read_folders(tmp_path)
    assert [(record.person, record.split) for record in reading.records] == [("ben", "test"), ("anna", "train")]
    assert reading.notes == ["the people were found deeper, in export/"]
    assert read_folders(touch(tmp_path / "two", "a/b/train/anna/1.jpg")).notes == ["the people were found deeper, in a/b/"]
    records = list(read_folders(touch(tmp_path / "more", "a/b/anna/1.jpg", "a/b/ben/2.jpg")).records)
    assert [record.person for record in records] == ["anna", "ben"]  # not one person, b
    lonely = touch(tmp_path / "lonely", "anna/1.jpg", "anna/day/2.jpg")
    assert {record.person for record in read_folders(lonely).records} == {"anna"}


def test_a_split_that_is_not_there_is_named_and_not_made_up(tmp_path: Path) -> None:
    touch(tmp_path, "train/anna/1.jpg")
    (tmp_path / "test").symlink_to("/nowhere/at/all")
    with pytest.raises(HplError, match="test: a link to nothing"):
        read_folders(tmp_path)
    (tmp_path / "test").unlink()
    (tmp_path / "test").mkdir()
    with pytest.raises(HplError, match="test: no person's folder"):
        read_folders(tmp_path)


def test_a_column_that_is_nearly_known_and_other_separators_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,pid,captions\n1.jpg,a,b\n")
    with pytest.raises(HplError, match="column 'captions'; did you mean caption"):
        read_table(tmp_path)
    (tmp_path / "a.csv").write_text("path;pid\n1.jpg;a\n")
    with pytest.raises(HplError, match="cells are separated by commas"):
        read_table(tmp_path)
