"""The plain files of a gallery: vectors in immutable segments, everything else in one SQLite file.

    gallery.json              format, model (its SHA-256 and folder), features a vector
    catalogue.sqlite          pictures, segments, and which rows of segments are dead
    segments/00001.t2i.f16.npy, 00001.i2i.f16.npy    n x D half-precision vectors of unit length

A segment is written to *.tmp, synchronised, renamed, and only then named by one SQLite commit: whatever kills a writer, the last
commit stands, and files that no commit names go when the next writer starts. One writer at a time holds a lock on the folder.
"""

import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hpl.files import HplError, read_json, room, write_json
from hpl.tasks import TASKS

GALLERY_FORMAT = 1
SEGMENT_ROWS = 65536  # at most in a segment that compaction writes
_DESCRIPTION, _CATALOGUE, _SEGMENTS = "gallery.json", "catalogue.sqlite", "segments"
_SCHEMA = """
CREATE TABLE pictures (
  id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL UNIQUE, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL, source TEXT NOT NULL, camera TEXT, time REAL, track TEXT, columns TEXT NOT NULL, added REAL NOT NULL,
  segment INTEGER NOT NULL, row INTEGER NOT NULL, UNIQUE (segment, row));
CREATE INDEX by_camera ON pictures (camera);
CREATE INDEX by_time ON pictures (time);
CREATE TABLE segments (number INTEGER PRIMARY KEY, rows INTEGER NOT NULL, sums TEXT NOT NULL);
CREATE TABLE dead (segment INTEGER NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (segment, row));
"""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A picture as a source tells of it.

    Attributes:
        time: seconds since 1970, UTC; None: unknown, as `camera` and `track`.
        columns: whatever else a table has, as text.
    """

    path: str
    camera: str | None = None
    time: float | None = None
    track: str | None = None
    columns: dict[str, str] = field(default_factory=dict)

    def told(self) -> tuple:
        """Return camera, time, track and columns as the catalogue holds them."""
        return self.camera, self.time, self.track, json.dumps(self.columns, sort_keys=True, ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class NewPicture:
    """A record with what was read from its file: content hash, size, time of change, v_t2i and v_i2i (2 x D)."""

    record: Record
    source: str
    sha256: str
    size: int
    mtime_ns: int
    vectors_2D: np.ndarray


class GalleryFiles:
    """The files of one gallery folder."""

    def __init__(self, folder: Path) -> None:
        """Open a gallery. HplError if there is none, or it is damaged or of another version."""
        self.folder = Path(folder)
        if not (self.folder / _DESCRIPTION).is_file():
            raise HplError(f"{folder}: no gallery (it holds no {_DESCRIPTION}); to make one: hpl index add {folder} PICTURES")
        self.about = read_json(self.folder / _DESCRIPTION)
        if self.about.get("format") != GALLERY_FORMAT:
            raise HplError(f"{folder}: gallery of format {self.about.get('format')!r}; expected {GALLERY_FORMAT}; make it anew")
        self.connection = sqlite3.connect(self.folder / _CATALOGUE, timeout=60, check_same_thread=False, isolation_level=None)
        with self._sqlite():
            self.connection.execute("PRAGMA synchronous = FULL")
            self.connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten with zeros
            if not self.connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'dead'").fetchone():
                raise HplError(f"{self.folder / _CATALOGUE}: damaged: it lacks its tables; make the gallery anew")

    @classmethod
    def create(cls, folder: Path, about: dict) -> "GalleryFiles":
        """Make an empty gallery. HplError if the folder holds anything."""
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - {_CATALOGUE, _SEGMENTS}):
            raise HplError(f"{folder}: holds other files; expected a new folder for the gallery")
        with room(folder):
            (folder / _SEGMENTS).mkdir(parents=True, exist_ok=True)
            (folder / _CATALOGUE).unlink(
                missing_ok=True
            )  # of a creation that was killed: without gallery.json there is no gallery
            connection = sqlite3.connect(folder / _CATALOGUE)
            connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
            connection.close()
            write_json(folder / _DESCRIPTION, {"format": GALLERY_FORMAT, **about})
        return cls(folder)

    @contextmanager
    def _sqlite(self) -> Iterator[None]:
        """Turn what SQLite says of a damaged or busy file, or of a full disk, into an HplError."""
        try:
            with room(self.folder):
                yield
        except sqlite3.Error as error:
            raise HplError(f"{self.folder / _CATALOGUE}: {error}; no change was made since the last commit") from None

    def all(self, sql: str, values: Sequence = ()) -> list[tuple]:
        """Run a query and return its rows."""
        with self._sqlite():
            return self.connection.execute(sql, values).fetchall()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the gallery for writing, cleared of what a killed writer left. HplError if another process writes."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise HplError(f"{self.folder}: index in use: another process writes to it; wait for it or stop it") from None
            except OSError:  # a file system without locks
                pass
            self.clear_strays()
            with self._sqlite():
                yield
        finally:
            os.close(descriptor)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit all or nothing."""
        with self._sqlite():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
            except BaseException:
                self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")

    def strays(self) -> list[Path]:
        """List files in segments/ that the catalogue does not name."""
        named = {self.file(number, task).name for number in self.segments() for task in TASKS}
        return sorted(path for path in (self.folder / _SEGMENTS).iterdir() if path.name not in named)

    def clear_strays(self) -> None:
        """Delete what a killed writer left; only while `writing`."""
        for path in self.strays():
            path.unlink()

    def file(self, number: int, task: str) -> Path:
        """Name the file of a segment's vectors for a task."""
        return self.folder / _SEGMENTS / f"{number:05d}.{task}.f16.npy"

    def segments(self) -> dict[int, int]:
        """Map the number of each segment to its rows, in order."""
        return dict(self.all("SELECT number, rows FROM segments ORDER BY number"))

    def vectors(self, number: int, task: str) -> np.ndarray:
        """Map a segment's vectors into memory: n x D float16. HplError if the file is damaged."""
        file = self.file(number, task)
        try:
            mapped = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise HplError(f"{file}: damaged segment ({error}); delete the gallery and add the pictures again") from None
        rows = self.segments()[number]
        if mapped.shape != (rows, self.about["features"]) or mapped.dtype != np.float16:
            raise HplError(
                f"{file}: {mapped.dtype} {mapped.shape}; expected float16 {(rows, self.about['features'])}; run verify"
            )
        return mapped

    def _write_segment(self, vectors_N2D: np.ndarray) -> tuple[int, str]:
        """Write a segment that no commit names yet. Returns its number and the JSON of its sums."""
        number = max([0, *self.segments()]) + 1
        number = max([number, *(int(path.name.split(".")[0]) + 1 for path in self.strays() if path.name[:5].isdigit())])
        sums = {}
        for place, task in enumerate(TASKS):
            file = self.file(number, task)
            partial = file.with_name(file.name + ".tmp")
            with open(partial, "wb") as out:
                np.save(out, np.ascontiguousarray(vectors_N2D[:, place], np.float16), allow_pickle=False)
                out.flush()
                os.fsync(out.fileno())
            os.replace(partial, file)
            sums[task] = file_sha256(file)
        _synchronise(self.folder / _SEGMENTS)
        return number, json.dumps(sums)

    def append(self, encoded: list[NewPicture]) -> None:
        """Write new or changed pictures as one segment and commit them; a path that is there already gets its new content."""
        if not encoded:
            return
        number, sums = self._write_segment(np.stack([each.vectors_2D for each in encoded]))
        with self.transaction() as connection:
            connection.execute("INSERT INTO segments VALUES (?, ?, ?)", (number, len(encoded), sums))
            self._bury(connection, [(each.record.path,) for each in encoded], "path = ?")
            connection.executemany(
                "INSERT INTO pictures (path, sha256, size, mtime_ns, source, camera, time, track, columns, added, segment, row) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [_row(each) + (time.time(), number, row) for row, each in enumerate(encoded)],
            )

    def remove(self, ids: Sequence[int]) -> None:
        """Take pictures out of every result, in one commit; their vectors' bytes go with `compact`."""
        with self.transaction() as connection:
            self._bury(connection, [(each,) for each in ids], "id = ?")

    @staticmethod
    def _bury(connection: sqlite3.Connection, values: list[tuple], which: str) -> None:
        connection.executemany(f"INSERT INTO dead SELECT segment, row FROM pictures WHERE {which}", values)
        connection.executemany(f"DELETE FROM pictures WHERE {which}", values)

    def update(self, records: list[tuple[int, Record, str, tuple[int, int]]]) -> None:
        """Write what sources say anew of pictures whose pixels stay: id, record, source, (size, mtime_ns)."""
        with self.transaction() as connection:
            connection.executemany(
                "UPDATE pictures SET source = ?, camera = ?, time = ?, track = ?, columns = ?, size = ?, mtime_ns = ? "
                "WHERE id = ?",
                [(source, *record.told(), *state, number) for number, record, source, state in records],
            )

    def compact(self) -> None:
        """Rewrite the segments without dead rows, and SQLite's file without free pages; only while `writing`."""
        old = list(self.segments())
        rows = self.all("SELECT id, segment, row FROM pictures ORDER BY segment, row")
        moved, written = [], []
        for start in range(0, len(rows), SEGMENT_ROWS):
            part = np.array(rows[start : start + SEGMENT_ROWS])
            vectors = np.concatenate([self._rows(number, part[part[:, 1] == number, 2]) for number in np.unique(part[:, 1])])
            number, sums = self._write_segment(vectors)
            written.append((number, len(part), sums))
            moved += [(number, row, int(each)) for row, each in enumerate(part[:, 0])]
        with self.transaction() as connection:
            connection.executemany("UPDATE pictures SET segment = ?, row = ? WHERE id = ?", moved)
            connection.executemany("DELETE FROM segments WHERE number = ?", [(number,) for number in old])
            connection.executemany("INSERT INTO segments VALUES (?, ?, ?)", written)
            connection.execute("DELETE FROM dead")
        self.clear_strays()
        _synchronise(self.folder / _SEGMENTS)
        self.connection.execute("VACUUM")

    def _rows(self, number: int, rows: np.ndarray) -> np.ndarray:
        return np.stack([self.vectors(int(number), task)[rows] for task in TASKS], axis=1)

    def faults(self) -> list[str]:
        """Compare segments with the catalogue, byte by byte. Returns a line for each fault."""
        found = [f"{path}: a file that the catalogue does not name" for path in self.strays()]
        check = self.all("PRAGMA integrity_check")
        found += [] if check == [("ok",)] else [f"{self.folder / _CATALOGUE}: {line}" for (line,) in check[:3]]
        for number, rows, sums in self.all("SELECT number, rows, sums FROM segments"):
            for task in TASKS:
                file = self.file(number, task)
                if not file.is_file() or file_sha256(file) != json.loads(sums)[task]:
                    found.append(f"{file}: {'not as it was written' if file.is_file() else 'missing'}")
            places = {row for (row,) in self.all("SELECT row FROM pictures WHERE segment = ?", (number,))}
            dead = {row for (row,) in self.all("SELECT row FROM dead WHERE segment = ?", (number,))}
            if places & dead or places | dead != set(range(rows)):
                found.append(f"segment {number}: {rows} rows, but {len(places)} pictures and {len(dead)} deleted ones")
        return found

    def num_dead(self) -> int:
        """Count deleted pictures whose vectors' bytes are still there."""
        return self.all("SELECT COUNT(*) FROM dead")[0][0]


def file_sha256(file: Path) -> str:
    """Hash a file's content."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _row(each: NewPicture) -> tuple:
    return each.record.path, each.sha256, each.size, each.mtime_ns, each.source, *each.record.told()


def _synchronise(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
