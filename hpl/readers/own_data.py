"""A user's own pictures: a table (CSV or Parquet) with a row a picture, or a folder a person.

People are named by any text; "-1" is junk and "distractor" a distractor, as in Market-1501.
"""

import csv
import difflib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hpl.files import HplError
from hpl.readers.records import (
    PICTURE_SUFFIXES,
    PictureRecord,
    Reading,
    checked_captions,
    checked_path,
    existing_folder,
    is_hidden,
    is_litter,
    read_utf8,
    whole_number,
)
from hpl.readers.spelling import check_one_spelling, composed
from hpl.tasks import DISTRACTOR_PID, JUNK_PID, NO_CAMERA

_COLUMNS = ("path", "pid", "camid", "caption", "split")  # path and pid are required
_SPLITS = {  # what a user may write -> split, role
    "train": ("train", "train"),
    "val": ("val", "val"),
    "test": ("test", ""),
    "query": ("test", "query"),
    "gallery": ("test", "gallery"),
}
_ANONYMOUS = {"-1": JUNK_PID, "distractor": DISTRACTOR_PID, "distractors": DISTRACTOR_PID}
_NOBODY = {"", "nan", "NaN", "null", "NULL", "None", "N/A", "<NA>"}  # how programs write that a value is missing
_MAGIC = re.compile(rb"\xff\xd8\xff|\x89PNG|GIF8|II\*\0|MM\0\*|RIFF....WEBP", re.DOTALL)  # how pictures begin
_CAMERA_NAME = re.compile(r"(cam|camera|c)[ _-]?\d+", re.IGNORECASE)
_LAYOUT = "<person>/<picture>, or <split>/<person>/<picture> where a split is train, val, test, query or gallery"


def read_table(root: Path) -> Reading:
    """Read the one .csv or .parquet file in `root`, row by row: a table of millions of rows never stands whole in memory.

    Columns: path (relative to `root`) and pid; if wanted camid, split, caption (a sentence; for several there are several rows).
    Raises HplError naming the file, the line (CSV, the header being line 1) or row (Parquet, from 1) and the value.
    """
    existing_folder(root, "a folder with one .csv or .parquet file and the pictures that it names")
    tables = [file for file in sorted(root.iterdir()) if file.suffix.lower() in (".csv", ".parquet") and not is_hidden(file.name)]
    if len(tables) != 1:
        found = ", ".join(file.name for file in tables) or "none"
        raise HplError(f"{root}: tables found: {found}; expected one .csv or .parquet file with the columns path and pid")
    file = tables[0]
    is_csv = file.suffix.lower() == ".csv"
    rows = _csv_rows(file) if is_csv else _parquet_rows(file)
    names = [_column(name) for name in next(rows, (0, []))[1]]
    hint = "; cells are separated by commas" if is_csv and len(names) == 1 else ""
    if "path" not in names or "pid" not in names or len(set(names)) < len(names):
        raise HplError(f"{file}: columns {names}; expected path and pid, each once, and if wanted camid, caption, split{hint}")
    unknown = [name for name in names if name not in _COLUMNS]
    for name in unknown:
        if near := difflib.get_close_matches(name, _COLUMNS, n=1, cutoff=0.8):
            raise HplError(
                f"{file}: column {name!r}; did you mean {near[0]}? A column that means something else needs another name"
            )
    notes = [f"{file.name}: columns ignored: {', '.join(unknown)}"] if unknown else []
    place = f"{file}: {'line' if is_csv else 'row'}"
    return Reading(records=_table_records(rows, names, root, place), place=place, notes=notes, own_data=True)


def _column(name: str) -> str:
    return name.strip().lower()


def _csv_rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line where a row begins, and its cells. The first row is the header."""
    with file.open("rb") as lines:
        reader = csv.reader(_decoded(lines, file), strict=True)
        begin, width = 1, 0
        try:
            for cells in reader:
                width = width or len(cells)
                if cells and len(cells) != width:
                    raise HplError(f"{file}: line {begin}: {len(cells)} fields; expected {width}, as in the header")
                if cells:
                    yield begin, cells
                begin = reader.line_num + 1
        except csv.Error as error:
            raise HplError(f"{file}: line {begin}: malformed CSV ({error})") from None


def _decoded(lines: Iterator[bytes], file: Path) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise HplError(
                f"{file}: line {number}: not UTF-8 text (byte {error.start} of the line); expected a CSV file"
            ) from None
        if "\0" in text:
            raise HplError(f"{file}: line {number}: a NUL byte; expected a CSV file")
        yield text.removeprefix("\ufeff") if number == 1 else text


def _parquet_rows(file: Path) -> Iterator[tuple[int, Sequence]]:
    """Yield the number of a row, and its cells, None in columns that nobody asked for. The first row is the header."""
    try:
        with pq.ParquetFile(file) as table:
            names = table.schema_arrow.names
            yield 0, names
            known = [name for name in names if _column(name) in _COLUMNS]
            number = 0
            for batch in table.iter_batches(batch_size=4096, columns=known):
                cells = [batch.column(name).to_pylist() if name in known else repeat(None) for name in names]
                for row in zip(*cells):
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError, ValueError) as error:
        raise HplError(f"{file}: malformed Parquet ({' '.join(str(error).split())})") from None


def _table_records(rows: Iterator[tuple[int, Sequence]], names: list[str], root: Path, place: str) -> Iterator[PictureRecord]:
    number = None
    for number, cells in rows:
        row = dict(zip(names, cells))
        where = f"{place} {number}"
        split, role = _split(row["split"], where) if "split" in row else ("", "")
        person, source_pid = _person(_whole(_text(row["pid"], "pid", where)), role, where)
        anonymous = source_pid is not None
        path, caption = row["path"], row.get("caption")
        yield PictureRecord(
            path=checked_path(root, path.strip() if isinstance(path, str) else path, where),
            split=split,
            role="gallery" if anonymous and split else role,
            person=person,
            source_pid=source_pid,
            camid=_camera(_text(row.get("camid"), "camid", where), where),
            captions=() if _is_missing(caption) else checked_captions([_sentence(caption, where)], where),
            anonymous=anonymous,
            number=number,
        )
    if number is None:
        raise HplError(f"{place.rpartition(':')[0]}: no row; expected one for each picture")


def _split(value: object, where: str) -> tuple[str, str]:
    key = value.strip().lower() if isinstance(value, str) else None
    if key not in _SPLITS:
        raise HplError(f"{where}: split {value!r}; expected train, val, test, query or gallery in every row, or no such column")
    return _SPLITS[key]


def _person(name: str, role: str, where: str) -> tuple[str, int | None]:
    """Find the key of a person, and the pid of an anonymous picture. `role` is "" where it is not yet known.

    One name is one person, also where two programs wrote its accents as different code points.
    """
    name = composed(name)
    if name in _NOBODY or (name not in _ANONYMOUS and re.fullmatch(r"-[0-9]+(\.[0-9]*)?", name)):
        raise HplError(f"{where}: pid {name!r}; expected who the person is, -1 for junk or the word distractor")
    source_pid = _ANONYMOUS.get(name.lower())
    if source_pid is not None and role not in ("", "gallery"):
        raise HplError(
            f"{where}: pid {name!r} is junk or a distractor; expected such pictures in test or gallery alone, not {role}"
        )
    return ("" if source_pid is not None else name), source_pid


def _camera(text: str, where: str) -> int:
    if text in _NOBODY:
        return NO_CAMERA
    camid = whole_number(_whole(text))
    if camid is None:
        raise HplError(f"{where}: camid {text!r}; expected a whole number >= 0, or an empty cell")
    return camid


def _whole(text: str) -> str:
    """Drop the point of a whole number (`3.0`), which programs write, as pandas does if some of a column are missing."""
    return re.sub(r"^(-?[0-9]+)\.0+$", r"\1", text)


def _text(value: object, key: str, where: str) -> str:
    """Make a cell text: 7 and 7.0 of a numeric column are "7"; a missing value is ""."""
    if _is_missing(value):
        return ""
    if isinstance(value, str):
        return value.strip()
    if type(value) is int or (type(value) is float and value.is_integer()):
        return str(int(value))
    raise HplError(f"{where}: {key} {value!r}; expected text or a whole number")


def _sentence(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise HplError(f"{where}: caption {value!r}; expected one sentence; several captions of a picture are several rows")
    return value


def _is_missing(value: object) -> bool:
    return value is None or (type(value) is float and value != value) or (isinstance(value, str) and not value.strip())


def read_folders(root: Path, camera_pattern: str | None = None) -> Reading:
    """Read <person>/**/<picture> in `root`, or <split>/<person>/**/<picture> if every folder in `root` bears the name of a split.

    The lines of <picture stem>.txt beside a picture are its captions. A link may stand for a split or person, not for one below.

    Args:
        camera_pattern: regular expression with one group, the camera, searched in the file name, and where it is not there in the
            folders between person and picture. None: no cameras.

    Raises:
        HplError: naming the folder or file that does not fit.
    """
    existing_folder(root, f"a folder with {_LAYOUT}")
    strays: list[Path] = []
    hidden = [entry for entry in sorted(root.iterdir()) if is_hidden(entry.name) and not is_litter(entry.name)]
    folders = _folders(root, strays)
    if not folders:
        raise HplError(f"{root}: no folder; expected {_LAYOUT}")
    nested = ""
    while len(folders) == 1 and folders[0].name.lower() not in _SPLITS and _holds_folders_alone(folders[0]):
        nested = f"the people were found deeper, in {folders[0].relative_to(root).as_posix()}/"
        folders = _folders(folders[0], strays)
    in_split = [folder for folder in folders if folder.name.lower() in _SPLITS]
    if in_split and len(in_split) < len(folders):
        other = next(folder for folder in folders if folder not in in_split)
        raise HplError(
            f"{root}: folder {in_split[0].name} bears the name of a split and folder {other.name} does not; expected {_LAYOUT}"
        )
    for part in in_split:
        if not _folders(part, []):
            raise HplError(f"{part}: no person's folder; expected {_LAYOUT}, or no such split")
    people = [(folder, *_SPLITS[part.name.lower()]) for part in in_split for folder in _folders(part, strays)]
    people = people or [(folder, "", "") for folder in folders if not in_split]
    notes = [nested] if nested else []
    for part in in_split or [root]:
        notes += _cameras_above([folder for folder, *_ in people if part in (root, folder.parent)])
    linked = [folder for folder in (*in_split, *(folder for folder, *_ in people)) if folder.is_symlink()]
    if linked:
        notes.append(
            f"{len(linked)} folders are links, such as {linked[0].name}: DVC does not look behind them, "
            "so it does not see a change there"
        )
    return Reading(
        records=_folder_records(root, people, camera_pattern, strays, hidden, notes), notes=notes, listed=False, own_data=True
    )


def _cameras_above(people: list[Path]) -> list[str]:
    """Tell whether folders that should be people are cameras, with the people in them: the same names are inside every one.

    Returns what a user should look at. HplError where the folders are called like cameras too.
    """
    inside = Counter(
        entry.name for folder in people for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry.name)
    )
    named = all(_CAMERA_NAME.fullmatch(folder.name) for folder in people)
    again = sorted(name for name, count in inside.items() if count >= (2 if named else len(people)))
    if len(people) < 2 or any(map(_CAMERA_NAME.fullmatch, again)):
        return []
    names = f"{len(people)} folders such as {people[0].name} and {people[-1].name}"
    moved = "<person>/<camera>/<picture>, and camera_pattern, or format: table with camid"
    if named and again:
        raise HplError(
            f"{people[0].parent}: {names} hold the same {len(again)} folders, such as {again[0]}: cameras above people; "
            f"expected {moved}"
        )
    if named:
        return [f"{names} were taken for people, and are called like cameras; if they are, expected {moved}"]
    if len(again) < len(people):  # few in many: a person's days, or cameras
        return []
    return [
        f"{names} were taken for people, and every one holds folders such as {again[0]}; if those are people, expected {moved}"
    ]


def _holds_folders_alone(folder: Path) -> bool:
    """Tell whether a folder holds folders and no picture: it is no person's, unless it is the only person's."""
    entries = [entry for entry in folder.iterdir() if not is_hidden(entry.name)]
    return any(entry.is_dir() for entry in entries) and not any(entry.suffix.lower() in PICTURE_SUFFIXES for entry in entries)


def _folders(parent: Path, strays: list[Path]) -> list[Path]:
    """List the folders in `parent`. Other files are added to `strays`; a picture is an HplError, for it belongs to nobody."""
    folders = []
    for entry in sorted(entry for entry in parent.iterdir() if not is_hidden(entry.name)):
        if entry.is_symlink() and not entry.exists():
            raise HplError(f"{entry}: a link to nothing; expected {_LAYOUT}")
        if entry.is_dir():
            folders.append(entry)
        elif entry.suffix.lower() in PICTURE_SUFFIXES:
            raise HplError(f"{entry}: a picture outside a person's folder; expected {_LAYOUT}")
        else:
            strays.append(entry)
    return folders


def _folder_records(
    root: Path,
    people: list[tuple[Path, str, str]],
    camera_pattern: str | None,
    strays: list[Path],
    hidden: list[Path],
    notes: list[str],
) -> Iterator[PictureRecord]:
    camera = re.compile(camera_pattern) if camera_pattern else None
    empty, links, num_pictures = [], list[Path](), 0
    for person_folder, split, role in people:
        person, source_pid = _person(person_folder.name, role, str(person_folder))
        anonymous = source_pid is not None
        num_before = num_pictures
        for folder, names in _walk(person_folder, root, links, hidden):
            pictures = [name for name in names if _is_picture(folder / name)]
            texts = [name for name in names if Path(name).suffix.lower() == ".txt"]
            strays += [folder / name for name in names if name not in {*pictures, *texts}]
            check_one_spelling(folder, (*pictures, *texts))
            captions = _captions(folder, texts, {composed(Path(name).stem) for name in pictures})
            num_pictures += len(pictures)
            for name in pictures:
                yield PictureRecord(
                    path=checked_path(root, (folder / name).relative_to(root).as_posix(), str(folder)),
                    split=split,
                    role="gallery" if anonymous and split else role,
                    person=person,
                    source_pid=source_pid,
                    camid=_camera_of_name(camera, folder / name, person_folder) if camera else NO_CAMERA,
                    captions=captions.get(composed(Path(name).stem), ()),
                    anonymous=anonymous,
                )
        if num_pictures == num_before:
            empty.append(person_folder)
    if not num_pictures:
        raise HplError(f"{root}: no picture; expected {_LAYOUT}")
    for paths, what in (
        (empty, "folders of people hold no picture"),
        (links, "links to folders were not followed"),
        (strays, "files that are no pictures were ignored"),
        (hidden, "hidden files and folders were ignored"),
    ):
        if paths:
            notes.append(f"{len(paths)} {what}, such as {paths[0].relative_to(root).as_posix()}")


def _is_picture(file: Path) -> bool:
    """Tell by its suffix or, where that says nothing, by how the file begins."""
    suffix = file.suffix.lower()
    if suffix in PICTURE_SUFFIXES or suffix == ".txt" or not file.is_file():
        return suffix in PICTURE_SUFFIXES
    with file.open("rb") as content:
        return _MAGIC.match(content.read(12)) is not None


def _walk(top: Path, root: Path, links: list[Path], hidden: list[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder from `top` down with the names in it, in order. Links to folders, which may be circles, go to `links`."""
    if top.is_symlink() and root.resolve().is_relative_to(top.resolve()):
        links.append(top)
        return
    for place, folders, files in os.walk(top, onerror=_fail):
        folder = Path(place)
        hidden += [folder / name for name in sorted(folders + files) if is_hidden(name) and not is_litter(name)]
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        links += [folder / name for name in folders if (folder / name).is_symlink()]  # which os.walk does not enter
        yield folder, sorted(name for name in files if not is_hidden(name))


def _fail(error: OSError) -> None:
    raise error


def _captions(folder: Path, texts: list[str], stems: set[str]) -> dict[str, tuple[str, ...]]:
    """Read the captions of each picture by its stem; a file without any says nothing."""
    captions: dict[str, tuple[str, ...]] = {}
    for name in texts:
        stem = composed(Path(name).stem)
        if stem not in stems:
            raise HplError(f"{folder / name}: no picture {stem} beside it; expected captions of a picture in the same folder")
        lines = [line for line in read_utf8(folder / name).split("\n") if line.strip()]
        if lines:  # there may be a second file, for one is called .TXT
            captions[stem] = captions.get(stem, ()) + checked_captions(lines, str(folder / name))
    return captions


def _camera_of_name(pattern: re.Pattern, file: Path, person_folder: Path) -> int:
    match = pattern.search(file.name) or pattern.search(f"{file.parent.relative_to(person_folder).as_posix()}/")
    camid = whole_number(match[1] or "") if match else None
    if camid is None:
        raise HplError(
            f"{file}: no camera in the file name; expected a number as the group of camera_pattern {pattern.pattern!r}"
        )
    return camid
