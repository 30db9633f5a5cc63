"""Where pictures come from: a folder tree, a CSV or Parquet table, or a list of paths."""

import csv
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hpl.files import HplError, parsing
from hpl.search.query import parse_time
from hpl.search.store import Record

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}


@dataclass(frozen=True)
class Source:
    """Records of pictures, and whether what is missing among them is gone from the gallery too.

    Attributes:
        name: absolute path of the folder or table; "-" for a list.
    """

    name: str
    records: list[Record]
    complete: bool


def read_source(source: Path | str | Iterable[str], camera_pattern: str | None = None) -> Source:
    """Read the records of a folder, of a .csv or .parquet table, or of an iterable of paths.

    Args:
        camera_pattern: a regular expression whose first group is the camera, searched in a picture's path below the folder.
    """
    if not isinstance(source, (str, Path)):
        return Source("-", [Record(path=os.path.abspath(path)) for path in dict.fromkeys(source)], complete=False)
    place = Path(os.path.abspath(source))
    if place.is_dir():
        return Source(str(place), list(_in_folder(place, _pattern(camera_pattern))), complete=True)
    if not place.is_file():
        raise HplError(f"{source}: not found; expected a folder of pictures, a .csv or .parquet table, or - for a list")
    if place.suffix.lower() == ".csv":
        return Source(str(place), _of_rows(place, _csv_rows(place)), complete=True)
    if place.suffix.lower() in (".parquet", ".pq"):
        return Source(str(place), _of_rows(place, _parquet_rows(place)), complete=True)
    return Source("-", [Record(path=str(place))], complete=False)


def _pattern(camera_pattern: str | None) -> re.Pattern | None:
    try:
        pattern = re.compile(camera_pattern) if camera_pattern else None
    except re.error as error:
        raise HplError(f"camera pattern {camera_pattern!r}: {error}; expected a regular expression such as c(\\d+)") from None
    if pattern and not pattern.groups:
        raise HplError(f"camera pattern {camera_pattern!r}: no group; expected one, such as c(\\d+)")
    return pattern


def _in_folder(folder: Path, pattern: re.Pattern | None) -> Iterator[Record]:
    for place, below, files in os.walk(folder, followlinks=False):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in _SUFFIXES and not name.startswith("."):
                path = os.path.join(place, name)
                found = pattern.search(os.path.relpath(path, folder)) if pattern else None
                yield Record(path=path, camera=found[1] if found else None)


def _csv_rows(table: Path) -> list[dict]:
    with (
        parsing(table, "expected a CSV table in UTF-8 with a column `path`"),
        open(table, encoding="utf-8-sig", newline="") as file,
    ):
        return list(csv.DictReader(file, strict=True))


def _parquet_rows(table: Path) -> list[dict]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise HplError(f"{table}: Parquet needs pyarrow; pip install 'hpl-reid[parquet]', or give a .csv") from None
    with parsing(table, "expected a Parquet table with a column `path`"):
        return parquet.read_table(table).to_pylist()


def _of_rows(table: Path, rows: list[dict]) -> list[Record]:
    records: dict[str, Record] = {}
    for number, row in enumerate(rows, 2):
        told = {name: str(value) for name, value in row.items() if name is not None and value not in (None, "")}
        if "path" not in told or None in row:
            what = "more cells than columns" if None in row else "no path"
            raise HplError(
                f"{table}: row {number} has {what}; expected columns path and, if known, camera, time, track and others"
            )
        path = os.path.abspath(table.parent / told.pop("path"))
        if path in records:
            raise HplError(f"{table}: row {number} names {path} again; expected each picture once")
        time = told.pop("time", None)
        try:
            seconds = None if time is None else parse_time(time)
        except HplError as error:
            raise HplError(f"{table}: row {number}: {error}") from None
        camera, track = told.pop("camera", None), told.pop("track", None)
        records[path] = Record(path=path, camera=camera, time=seconds, track=track, columns=told)
    return list(records.values())
