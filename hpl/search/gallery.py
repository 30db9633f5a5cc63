"""A gallery: pictures encoded once, searched by sentence, by picture or by both.

::

    gallery = Gallery.create("shop.gallery", model="data/model")
    gallery.add("crops")
    for hit in gallery.search(text="A woman in a red coat.", k=10):
        print(hit.score, hit.path)

What its folder holds stands in hpl/search/store.py.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np

from hpl.evaluation.calibration import stranger_words
from hpl.evaluation.composition import composed_scores, mixed_query
from hpl.evaluation.similarity import unit
from hpl.files import HplError
from hpl.pictures import decode_bytes, read_bytes, resize_picture
from hpl.search.engines import Engine, InvertedEngine, NumpyEngine, all_scores, make_engine
from hpl.search.model import SearchModel
from hpl.search.query import Query, QueryPicture, condition, show_time
from hpl.search.sources import Source, read_source
from hpl.search.store import GalleryFiles, NewPicture, Record
from hpl.tasks import I2I, T2I, TASKS, Task

_BATCH = 64  # pictures that are read, then encoded
_SEGMENT_PICTURES, _SEGMENT_SECONDS = 4096, 30.0  # after either, what was encoded is committed
_COLUMNS = "id, path, camera, time, track, columns, segment, row"


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A picture of a gallery, and how well it answers a query.

    Attributes:
        id: of the picture in its gallery; it stays when the gallery is compacted, and is never given to another one.
        path: absolute, of the file that was added.
        score: cosine, -1..1, of the query with v_t2i (a sentence) or v_i2i (pictures); for both together the composed score,
            which has mean 0 over the pictures searched (docs/evaluation.md).
        camera, time, track: None if unknown; the time is ISO 8601 in UTC.
        columns: whatever else the table had, as text.
        probability: of showing the person asked for; None if the model is not calibrated, or for composed queries.
        band: likely, possible or unlikely; None without a probability.
    """

    id: int
    path: str
    score: float
    camera: str | None = None
    time: str | None = None
    track: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    probability: float | None = None
    band: str | None = None


@dataclass(frozen=True, kw_only=True)
class Found(Sequence):
    """Results, best first.

    Attributes:
        searched: pictures that passed the filters; `size`: pictures in the gallery.
        note: why there are no probabilities, or what the query's rate of false alarms means among those searched; else "".
    """

    found: list[Hit]
    searched: int
    size: int
    note: str = ""

    def __getitem__(self, place):  # noqa: ANN001, ANN204
        return self.found[place]

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.found)


@dataclass
class Changes:
    """What `Gallery.add` did: numbers of pictures, and a line for each bad one, which was left out."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    bad: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _State:
    """What a search reads: segments in order, their first rows, which rows live, and one engine a task."""

    version: int
    numbers: list[int]
    starts: dict[int, int]
    alive_N: np.ndarray
    blocks: dict[str, list[np.ndarray]]
    engines: dict[str, Engine] = field(default_factory=dict)


class Gallery:
    """Pictures and their vectors in one folder. Threads may share it; processes may search while one writes."""

    def __init__(self, store: GalleryFiles, model: SearchModel | None, engine: str) -> None:
        """Use `open` or `create`."""
        self.store, self.engine, self._model = store, engine, model
        self._lock = threading.RLock()
        self._state: _State | None = None

    @classmethod
    def create(cls, folder: Path | str, model: Path | str, *, engine: str = "faiss") -> "Gallery":
        """Make an empty gallery for the pictures that a model encodes.

        Args:
            folder: new, or empty.
            model: a model folder, such as data/model.
            engine: faiss, numpy or ivf (hpl.search.engines).

        Raises:
            HplError: there is no such model, or the folder holds other files.
        """
        loaded = SearchModel(model)
        return cls(GalleryFiles.create(Path(folder), _described(loaded)), loaded, engine)

    @classmethod
    def open(cls, folder: Path | str, model: Path | str | None = None, *, engine: str = "faiss") -> "Gallery":
        """Open a gallery. Nothing of the model but its hash is read before something is encoded.

        Args:
            model: its model's folder; None: where it lay when the gallery was made.

        Raises:
            HplError: there is no gallery, it is damaged, or the model is another one.
        """
        store = GalleryFiles(Path(folder))
        gallery = cls(store, None if model is None else SearchModel(model), engine)
        if model is not None:
            gallery._check_model(gallery.model)
        return gallery

    @property
    def model(self) -> SearchModel:
        """The model that made the gallery. HplError if it is not where it was, or is another."""
        if self._model is None:
            found = SearchModel(self.store.about["model_folder"])
            self._check_model(found)
            self._model = found
        return self._model

    def _check_model(self, model: SearchModel) -> None:
        if model.sha256 != self.store.about["model"]:
            raise HplError(
                f"{self.store.folder}: made by another model than {model.folder}; give its own by --model, or encode all "
                f"pictures anew: hpl index upgrade {self.store.folder} --model {model.folder}"
            )

    def __len__(self) -> int:
        with self._lock:
            return self.store.all("SELECT COUNT(*) FROM pictures")[0][0]

    @property
    def version(self) -> int:
        """A number that changes whenever this or another process changes what the gallery holds."""
        with self._lock:
            return self.store.all("PRAGMA data_version")[0][0] + self.store.connection.total_changes * 1_000_000

    def add(self, source: Path | str | Iterable[str], *, camera_pattern: str | None = None, progress: bool = False) -> Changes:
        """Bring the gallery up to date with a source: encode what is new or changed, drop what is gone from it.

        It can be killed at any moment: what was committed stays, and the same call goes on from there.

        Args:
            source: a folder tree; a .csv or .parquet with a column path and, if known, camera, time, track and any others; or an
                iterable of paths, of which only what is listed is looked at.
            camera_pattern: a regular expression whose first group is the camera, searched in paths below the folder.
            progress: show a bar on stderr, and name bad pictures there.

        Raises:
            HplError: no such source, another process writes, another model, a full disk.
        """
        read = read_source(source, camera_pattern)
        with self._lock, self.store.writing():
            return self._add(read, progress)

    def _add(self, source: Source, progress: bool) -> Changes:
        from tqdm import tqdm

        sql = "SELECT id, path, sha256, size, mtime_ns, source, camera, time, track, columns FROM pictures"
        known = {row[1]: row for row in self.store.all(sql)}
        changes, since = Changes(), time.monotonic()
        held: list[NewPicture] = []
        gone: list[int] = []
        with (
            tqdm(total=len(source.records), unit="pictures", desc="add", disable=not progress, file=sys.stderr) as bar,
            ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool,
        ):
            ahead = None
            for part in [*_batches(source.records), None]:
                following = None if part is None else [pool.submit(self._read, each, known.get(each.path)) for each in part]
                if ahead is not None:
                    held += self._take([each.result() for each in ahead], source, known, changes, gone)
                    bar.update(len(ahead))
                ahead = following
                if len(held) >= _SEGMENT_PICTURES or (held and time.monotonic() - since > _SEGMENT_SECONDS):
                    self.store.append(held)
                    held, since = [], time.monotonic()
            self.store.append(held)
        if progress:
            for line in changes.bad:
                print(f"left out: {line}", file=sys.stderr)
        if source.complete:
            listed = {each.path for each in source.records}
            gone += [row[0] for path, row in known.items() if row[5] == source.name and path not in listed]
        self.store.remove(gone)
        changes.removed = len(gone)
        return changes

    def _read(self, record: Record, known: tuple | None) -> tuple:
        """Read a picture unless it is as the catalogue knows it.

        Returns:
            The record, what is known, (size, mtime), the content's hash, and the pixels; None if they are known, a fault if bad.
        """
        try:
            record.path.encode()
            state = os.stat(record.path)
            told = state.st_size, state.st_mtime_ns
            if known and known[3:5] == told:
                return record, known, told, known[2], None
            data = read_bytes(record.path)
            digest = sha256(data).hexdigest()
            if known and known[2] == digest:
                return record, known, told, digest, None
            size = self.model.input
            return record, known, told, digest, resize_picture(decode_bytes(data, record.path), size.height, size.width)
        except UnicodeEncodeError:
            return record, known, (0, 0), "", f"{record.path!r}: name is not UTF-8; rename the file"
        except (OSError, ValueError):
            return record, known, (0, 0), "", f"{record.path}: picture not found"
        except HplError as error:
            return record, known, (0, 0), "", str(error)

    def _take(self, read: list[tuple], source: Source, known: dict, changes: Changes, gone: list[int]) -> list[NewPicture]:
        """Encode what was read anew, note what is only told anew, and count."""
        fresh, told_anew = [], []
        for record, before, state, digest, pixels in read:
            if isinstance(pixels, str):
                changes.bad.append(pixels)
                gone += [before[0]] if before else []
            elif pixels is not None:
                changes.changed += before is not None
                changes.added += before is None
                fresh.append((record, state, digest, pixels))
            else:
                changes.unchanged += 1
                name = before[5] if source.name == "-" else source.name
                if source.name != "-" and before[3:] != (*state, name, *record.told()):
                    told_anew.append((before[0], record, name, state))
        if told_anew:
            self.store.update(told_anew)
        if not fresh:
            return []
        vectors = self.model.encode_pictures(np.stack([pixels for *_, pixels in fresh]))
        return [
            NewPicture(record=record, source=source.name, sha256=digest, size=state[0], mtime_ns=state[1], vectors_2D=pair)
            for (record, state, digest, _), pair in zip(fresh, vectors, strict=True)
        ]

    def remove(self, pictures: Iterable[int | str | Path] = (), *, older_than: float | None = None) -> int:
        """Delete pictures by id, path, or folder above them; and those older than so many seconds. Returns how many went.

        They are in no result from then on; `compact` takes their vectors out of the files too. The age of a picture without a
        time counts from when it was added. Files of pictures themselves are not touched.
        """
        with self._lock, self.store.writing():
            ids: set[int] = set()
            for each in pictures:
                if isinstance(each, int):
                    found = self.store.all("SELECT id FROM pictures WHERE id = ?", (each,))
                else:
                    path = os.path.abspath(each)
                    sql = "SELECT id FROM pictures WHERE path = ? OR substr(path, 1, ?) = ?"
                    found = self.store.all(sql, (path, len(path) + 1, f"{path}/"))
                if not found:
                    raise HplError(f"{each}: not in the gallery; nothing was removed")
                ids |= {number for (number,) in found}
            if older_than is not None:
                sql = "SELECT id FROM pictures WHERE COALESCE(time, added) < ?"
                ids |= {number for (number,) in self.store.all(sql, (time.time() - older_than,))}
            self.store.remove(sorted(ids))
            return len(ids)

    def compact(self) -> int:
        """Rewrite the files without what was deleted. Returns how many vectors' bytes went."""
        with self._lock, self.store.writing():
            dead = self.store.num_dead()
            self.store.compact()
            return dead

    def verify(self) -> list[str]:
        """Compare all files with the catalogue. Returns a line for each fault; none if all is as it was written."""
        with self._lock:
            return self.store.faults()

    def upgrade(self, folder: Path | str, model: Path | str, *, progress: bool = False) -> "Gallery":
        """Make a new gallery of the same pictures with another model. Returns it; this one stays as it is.

        Pictures whose files are gone, or changed to something bad, are left out, as `add` says.
        """
        new = Gallery.create(folder, model, engine=self.engine)
        sources: dict[str, list[Record]] = {}
        for path, source, camera, seconds, track, columns in self.store.all(
            "SELECT path, source, camera, time, track, columns FROM pictures ORDER BY id"
        ):
            record = Record(path=path, camera=camera, time=seconds, track=track, columns=json.loads(columns))
            sources.setdefault(source, []).append(record)
        with new._lock, new.store.writing():
            for name, records in sources.items():
                new._add(Source(name, records, complete=False), progress)
        return new

    def status(self) -> dict:
        """Count what the gallery holds: pictures, cameras, deleted vectors still in bytes, segments, bytes, times, model."""
        with self._lock:
            cameras, first, last = self.store.all("SELECT COUNT(DISTINCT camera), MIN(time), MAX(time) FROM pictures")[0]
            files = [path for path in self.store.folder.rglob("*") if path.is_file()]
            return {
                "pictures": len(self),
                "cameras": cameras,
                "first": show_time(first),
                "last": show_time(last),
                "deleted_in_bytes": self.store.num_dead(),
                "segments": len(self.store.segments()),
                "bytes": sum(path.stat().st_size for path in files),
                "model": self.store.about["model"],
                "model_folder": self.store.about["model_folder"],
            }

    def values(self, column: str) -> list[str]:
        """List the different values of camera, track or a further column, in order. HplError if there is no such column."""
        self._check_column(column)
        name = column if column in ("camera", "track") else "json_extract(columns, ?)"
        with self._lock:
            given = () if column in ("camera", "track") else (f"$.{json.dumps(column)}",)
            found = self.store.all(f"SELECT DISTINCT {name} FROM pictures", given)
            return sorted(str(value) for (value,) in found if value is not None)

    def columns(self) -> list[str]:
        """List the further columns that pictures have, by name."""
        with self._lock:
            rows = self.store.all("SELECT DISTINCT each.key FROM pictures, json_each(pictures.columns) AS each ORDER BY 1")
            return [name for (name,) in rows]

    def _check_column(self, column: str) -> None:
        if column not in ("camera", "track") and column not in (known := self.columns()):
            raise HplError(f"column {column!r}: not in the gallery; expected one of {', '.join(['camera', 'track', *known])}")

    def picture(self, number: int) -> Hit:
        """Return a picture of the gallery by its id, with score 1. HplError if there is none."""
        with self._lock:
            rows = self.store.all(f"SELECT {_COLUMNS} FROM pictures WHERE id = ?", (number,))
        if not rows:
            raise HplError(f"picture {number}: not in the gallery")
        return _result(rows[0], 1.0)

    def pictures(self, count: int) -> list[Hit]:
        """Return the first `count` pictures of the gallery, each with score 1."""
        with self._lock:
            return [_result(row, 1.0) for row in self.store.all(f"SELECT {_COLUMNS} FROM pictures ORDER BY id LIMIT ?", (count,))]

    def search(self, query: Query | None = None, **asked) -> Found:
        """Find the pictures that answer a query best.

        Args:
            query: the question; or its fields one by one: `search(text="...", pictures=["a.jpg"], k=50, cameras=["3"])`. All are
                told at `Query`.

        Raises:
            HplError: an empty gallery, a sentence without a known word, a picture that cannot be read, a filter on no column.
        """
        query = Query(**asked) if query is None else query
        with self._lock:
            state = self._current()
            keep = self._kept(query, state)
            searched = int(np.count_nonzero(keep))
            vectors = self._vectors(query)
            composed = len(vectors) > 1
            if composed:
                rows, scores = self._composed(vectors, keep, query.k, state)
            else:
                ((name, vector),) = vectors.items()
                everything = searched == len(keep)
                rows, scores = self._engine(name, state).search(vector, query.k, None if everything else keep)
            return self._answer(query, vectors, rows, scores, searched)

    def picture_vectors(self) -> tuple[list[str], np.ndarray]:
        """Read the paths of all pictures and their v_i2i, N x D float16 of unit length, in the order they were added."""
        with self._lock:
            state = self._current()
            found = self.store.all("SELECT path, segment, row FROM pictures ORDER BY segment, row")
            rows = np.array([state.starts[segment] + row for _, segment, row in found])
            return [path for path, *_ in found], np.concatenate(state.blocks[I2I.name])[rows]

    def _current(self) -> _State:
        """Return what is to be searched, read anew after another process committed. HplError if the gallery is empty."""
        version = self.version
        if self._state is None or self._state.version != version:
            segments = self.store.segments()
            ends = np.cumsum([0, *segments.values()])
            starts = dict(zip(segments, ends.tolist()))
            alive = np.ones(ends[-1], bool)
            alive[[starts[number] + row for number, row in self.store.all("SELECT segment, row FROM dead")]] = False
            before = self._state
            blocks = {name: [self.store.vectors(number, name) for number in segments] for name in TASKS}
            self._state = _State(
                version=version,
                numbers=list(segments),
                starts=starts,
                alive_N=alive,
                blocks=blocks,
                engines=before.engines if before is not None and before.numbers == list(segments) else {},
            )
        if not self._state.alive_N.any():
            raise HplError(f"{self.store.folder}: empty gallery; to add pictures: hpl index add {self.store.folder} PICTURES")
        return self._state

    def _engine(self, name: str, state: _State) -> Engine:
        if name not in state.engines:
            state.engines[name] = built = make_engine(self.engine, state.blocks[name])
            if isinstance(built, InvertedEngine):
                recall = built.recall(NumpyEngine(state.blocks[name]))
                print(f"inverted file for {name}: finds {recall:.2%} of the exact top 100 (recall)", file=sys.stderr)
        return state.engines[name]

    def _kept(self, query: Query, state: _State) -> np.ndarray:
        """Mark the rows that live and pass the query's filters."""
        for column in query.where:
            self._check_column(column)
        avoided = {camera for each in query.pictures for camera in self._cameras_of(each)} if query.other_cameras else set()
        sql, values = condition(query, avoided)
        if not sql:
            return state.alive_N
        keep = np.zeros(len(state.alive_N), bool)
        places = np.array(self.store.all(f"SELECT segment, row FROM pictures WHERE {sql}", values), np.int64).reshape(-1, 2)
        for number in np.unique(places[:, 0]):
            keep[state.starts[int(number)] + places[places[:, 0] == number, 1]] = True
        return keep

    def _cameras_of(self, picture: QueryPicture) -> list[str]:
        if isinstance(picture, int):
            found = self.store.all("SELECT camera FROM pictures WHERE id = ?", (picture,))
        elif isinstance(picture, np.ndarray):
            found = []
        else:
            data = picture if isinstance(picture, bytes) else read_bytes(picture)
            found = self.store.all("SELECT camera FROM pictures WHERE sha256 = ?", (sha256(data).hexdigest(),))
        cameras = [camera for (camera,) in found if camera is not None]
        if not cameras:
            shown = picture if isinstance(picture, (int, str, Path)) else "the query picture"
            raise HplError(f"{shown}: its camera is not known, as the gallery has it; --other-cameras needs that")
        return cameras

    def _encoded(self, pictures: Sequence[QueryPicture]) -> np.ndarray:
        """Encode query pictures, or take what the gallery has of them: n x 2 x D of unit length."""
        found = []
        for each in pictures:
            if isinstance(each, int):
                where = self.store.all("SELECT segment, row FROM pictures WHERE id = ?", (each,))
                if not where:
                    raise HplError(f"picture {each}: not in the gallery")
                number, row = where[0]
                found.append(np.stack([self.store.vectors(number, name)[row].astype(np.float32) for name in TASKS]))
                continue
            found.append(_encode_files(self.model, [each])[0])
        return np.stack(found) if found else np.empty((0, 2, self.store.about["features"]), np.float32)

    def _vectors(self, query: Query) -> dict[str, np.ndarray]:
        """Make the query's vector for each space that is searched: v_t2i's, v_i2i's or both."""
        pictures, unlike = self._encoded(query.pictures), self._encoded(query.against_pictures)
        sentences = self.model.encode_texts([query.text] if query.text else []) if query.text else None
        refused = self.model.encode_texts(list(query.against)) if query.against else np.empty((0, unlike.shape[2]), np.float32)
        vectors = {}
        if sentences is not None or len(refused):
            picture = unit(pictures[:, 0].mean(axis=0, keepdims=True)) if len(pictures) else None
            joint = picture if sentences is None else sentences
            if sentences is not None and picture is not None:
                joint = mixed_query(sentences, picture, query.weight)
            assert joint is not None  # a query has the one or the other
            vectors[T2I.name] = _without(joint[0], np.concatenate([refused, unlike[:, 0]]), query.aversion)
        if len(pictures):
            vectors[I2I.name] = _without(pictures[:, 1].mean(axis=0), unlike[:, 1], query.aversion)
        return vectors

    @staticmethod
    def _composed(vectors: dict[str, np.ndarray], keep: np.ndarray, k: int, state: _State) -> tuple[np.ndarray, np.ndarray]:
        together, picture = (all_scores(state.blocks[task.name], vectors[task.name]) for task in (T2I, I2I))
        rows = np.flatnonzero(keep)
        scores = composed_scores(together, picture, keep)[rows]
        order = np.lexsort((rows, -scores))[:k]
        return rows[order], scores[order]

    def _answer(self, query: Query, vectors: dict, rows: np.ndarray, scores: np.ndarray, searched: int) -> Found:
        """Name the rows found, with probabilities where the calibration has any."""
        state = self._current()
        numbers, starts = np.array(state.numbers), np.array([state.starts[number] for number in state.numbers])
        which = np.searchsorted(starts, rows, side="right") - 1
        found, (chances, told, enough) = [], calibrated(self.model, query, vectors, scores)
        for place, (segment, row, score) in enumerate(zip(numbers[which], rows - starts[which], scores, strict=True)):
            if not enough[place] or (query.threshold is not None and score < query.threshold):
                continue
            record = self.store.all(f"SELECT {_COLUMNS} FROM pictures WHERE segment = ? AND row = ?", (int(segment), int(row)))
            if record:
                found.append(_result(record[0], float(score), *chances[place]))
        if query.false_alarms is not None:
            told = stranger_words(query.false_alarms, searched)
        return Found(found=found, searched=searched, size=len(self), note=told)

    def compare(self, one: QueryPicture, other: QueryPicture | None = None, *, text: str | None = None) -> Hit:
        """Compare a picture with another picture, or with a sentence. Returns a result of id 0 with score and probability."""
        with self._lock:
            vectors = self._encoded([one] if other is None else [one, other])
            return _compared(self.model, vectors, str(other), text)[0]


def compare_pictures(model: SearchModel, one: str, other: str | None, text: str | None) -> tuple[Hit, str]:
    """Compare a picture file with another, or with a sentence, without a gallery. Returns the result and why no probability."""
    return _compared(model, _encode_files(model, [each for each in (one, other) if each is not None]), str(other), text)


def _compared(model: SearchModel, vectors_N2D: np.ndarray, name: str, text: str | None) -> tuple[Hit, str]:
    if (len(vectors_N2D) == 1) == (text is None):
        raise HplError("expected two pictures, or a picture and a sentence")
    task = I2I if text is None else T2I
    asked = vectors_N2D[1, 1] if text is None else model.encode_texts([text])[0]
    score = np.array([float(vectors_N2D[0, list(TASKS).index(task.name)] @ asked)])
    (chance,), note, _ = calibrated(model, Query(text="compared"), {task.name: asked}, score)
    return _result((0, text or name, None, None, None, "{}"), float(score[0]), *chance), note


def _encode_files(model: SearchModel, pictures: Sequence[str | Path | bytes | np.ndarray]) -> np.ndarray:
    """Read and encode query pictures: n x 2 x D of unit length."""
    pixels = []
    for each in pictures:
        if isinstance(each, bytes):
            whole = decode_bytes(each, "query picture")
        else:
            whole = each if isinstance(each, np.ndarray) else decode_bytes(read_bytes(each), str(each))
        pixels.append(resize_picture(whole, model.input.height, model.input.width))
    return model.encode_pictures(np.stack(pixels))


def calibrated(
    model: SearchModel, query: Query, vectors: dict[str, np.ndarray], scores: np.ndarray
) -> tuple[list[tuple], str, np.ndarray]:
    """Return probability and band of each score, or why there are none; and which reach the query's rate of false alarms."""
    none, every = [(None, None)] * len(scores), np.ones(len(scores), bool)
    reason = ""
    task: Task = TASKS[next(iter(vectors))]
    calibration = model.calibration
    if len(vectors) > 1 or query.against or len(query.against_pictures):
        reason = "a query of sentence and picture, or with what it should not be, has no calibrated probability"
    elif calibration is None:
        reason = "the model has no calibration: scores rank pictures, and no score means that it is the same person"
    elif missing := calibration.missing(task):
        reason = f"the model is not calibrated for {task.name}: {missing}"
    if reason or calibration is None:
        if query.false_alarms is not None:
            raise HplError(f"false alarms {query.false_alarms:g}: {reason}")
        return none, reason, every
    standard = calibration.scores(task, scores[None], vectors[task.name][None])[0]
    chances = calibration.probability(task, standard, query.prior)
    if query.false_alarms is not None:
        every = standard >= calibration.threshold(task, query.false_alarms)
    return [(float(chance), calibration.band(chance)) for chance in chances], "", every


def _batches(records: list[Record]) -> list[list[Record]]:
    return [records[start : start + _BATCH] for start in range(0, len(records), _BATCH)]


def _described(model: SearchModel) -> dict:
    folder = os.path.abspath(model.folder)
    return {"model": model.sha256, "model_folder": folder, "features": model.features, "input": model.input.model_dump()}


def _without(wanted_D: np.ndarray, unlike_ND: np.ndarray, aversion: float) -> np.ndarray:
    """Take the mean of what is not wanted off a vector, to unit length."""
    if len(unlike_ND):
        wanted_D = unit(wanted_D[None])[0] - aversion * unit(unlike_ND.mean(axis=0, keepdims=True))[0]
    return unit(wanted_D[None])[0]


def _result(row: tuple, score: float, probability: float | None = None, band: str | None = None) -> Hit:
    number, path, camera, seconds, track, columns, *_ = row
    return Hit(
        id=number,
        path=path,
        score=score,
        camera=camera,
        time=show_time(seconds),
        track=track,
        columns=json.loads(columns),
        probability=probability,
        band=band,
    )
