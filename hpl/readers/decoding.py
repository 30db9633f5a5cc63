"""Picture files -> facts, fingerprints and packed copies, in a pool of processes; what was done once is kept and not done again.

The store is a folder outside the pipeline's outputs, keyed by the code and the size (`recipe`) and, inside, by the hash of each
file's bytes. So a rerun after ten new pictures decodes ten, a stopped run goes on where it was, and nothing stale is ever used.
It may be deleted at any time.
"""

import hashlib
import io
import os
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from hpl import pictures
from hpl.files import HplError
from hpl.pictures import decode_bytes, read_bytes, resize_picture
from hpl.readers.links import FINGERPRINT
from hpl.workers import Duty, in_order

_CHUNK_PICTURES = 32  # pictures a task of a worker
_PART_PICTURES = 1024  # pictures a part of the store
_DAY = 86400  # seconds
_DECODES = Duty("decodes pictures", "num_workers")
Size = tuple[int, int]  # height, width
_Chunk = tuple[list[str], list[bool]]  # files, and which get a packed copy


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What is known of a picture once it was decoded."""

    file_sha256: str  # of the file's bytes
    width: int  # pixels, upright
    height: int
    sha256: str  # of the decoded RGB pixels and their size: the same picture in two files
    fingerprint_HW3: np.ndarray  # uint8, FINGERPRINT: what survives re-encoding, resizing and small crops
    packed_3HW: np.ndarray | None  # uint8 at the training size, if asked for


def picture_facts(data: bytes, place: str, size: Size | None) -> PictureFacts:
    """Decode one picture and take its facts; HplError names `place`.

    Args:
        size: of the packed copy; None for no copy.
    """
    pixels = decode_bytes(data, place)
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(np.asarray(pixels.shape, dtype="<i8").tobytes() + pixels.tobytes()).hexdigest()
    thumbnail = np.asarray(Image.fromarray(pixels).resize(FINGERPRINT[::-1], Image.Resampling.BILINEAR))
    packed = resize_picture(pixels, *size) if size else None
    return PictureFacts(hashlib.sha256(data).hexdigest(), width, height, digest, thumbnail, packed)


def recipe(size: Size) -> str:
    """Name what the store's content depends on: this code, the libraries that decode and resize, the packed size."""
    code = [Path(module).read_bytes() for module in (__file__, pictures.__file__)]
    libraries = [f"{name} {version(name)}" for name in ("numpy", "pillow", "simplejpeg")]
    return hashlib.sha256(b"\0".join([*code, repr((libraries, size)).encode()])).hexdigest()[:16]


_ARRAYS = (".fingerprints.npy", ".packed.npy")  # of a part, beside its table


def _array_digest(array: np.ndarray) -> str:
    digest = hashlib.sha256(repr((array.shape, array.dtype.str)).encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class Store:
    """Facts of pictures by the hash of their files: parts of three files each, the table last, so that half a part is none.

    A table is named by a number of its own and the hash of its bytes, and holds those of its arrays: a damaged part is known, and
    is none either.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.fingerprints: list[Path] = []  # a file a part
        self.packed: list[Path] = []
        self._sweep()
        tables = [table for file in sorted(self.folder.glob("*.parquet")) if (table := self._load(file)) is not None]
        self.table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"file_sha256": [], "pack_row": []})
        self.pending: list[PictureFacts] = []

    def _sweep(self) -> None:
        """Delete what a run that was killed while it wrote a part left behind."""
        for file in [*self.folder.glob("*.npy"), *self.folder.glob("*.partial")]:
            table = file.with_name(f"{file.name.partition('.')[0]}.parquet")
            if not table.exists() and time.time() - file.stat().st_mtime > _DAY:
                file.unlink(missing_ok=True)

    def _load(self, file: Path) -> pd.DataFrame | None:
        """Read the table of a part; None, and the part is deleted, if a file of it is damaged: its pictures are decoded again."""
        try:
            content = file.read_bytes()
            if hashlib.sha256(content).hexdigest() != file.stem.partition("-")[2]:
                raise ValueError
            table = pd.read_parquet(io.BytesIO(content)).assign(part=len(self.fingerprints))
            for suffix in _ARRAYS:
                (digest,) = table.pop(suffix).unique()
                if digest and _array_digest(np.load(file.with_suffix(suffix), mmap_mode="r", allow_pickle=False)) != digest:
                    raise ValueError
        except Exception:  # parsers raise nearly anything at damaged bytes
            print(f"{file}: damaged, so not used: its pictures are decoded again", file=sys.stderr)
            for suffix in (".parquet", *_ARRAYS):
                file.with_suffix(suffix).unlink(missing_ok=True)
            return None
        self.fingerprints.append(file.with_suffix(".fingerprints.npy"))
        self.packed.append(file.with_suffix(".packed.npy"))
        return table

    def known(self) -> dict[str, bool]:
        """Tell of each known file, by its hash, whether there is a packed copy."""
        table = self.table.sort_values("pack_row", kind="stable")
        return dict(zip(table["file_sha256"], table["pack_row"] >= 0, strict=True))

    def add(self, facts: PictureFacts) -> None:
        self.pending.append(facts)
        if len(self.pending) == _PART_PICTURES:
            self.flush()

    def flush(self) -> None:
        """Write what was added as a part."""
        if not self.pending:
            return
        packed = [facts.packed_3HW for facts in self.pending if facts.packed_3HW is not None]
        rows = ([facts.fingerprint_HW3 for facts in self.pending], packed)
        arrays = {suffix: np.stack(each) for suffix, each in zip(_ARRAYS, rows, strict=True) if each}
        columns: dict[str, list | np.ndarray | str] = {
            name: [getattr(facts, name) for facts in self.pending] for name in ("file_sha256", "width", "height", "sha256")
        }
        has_copy = np.array([facts.packed_3HW is not None for facts in self.pending])
        columns |= {"row": np.arange(len(has_copy)), "pack_row": np.where(has_copy, np.cumsum(has_copy) - 1, -1)}
        columns |= {suffix: _array_digest(arrays[suffix]) if suffix in arrays else "" for suffix in _ARRAYS}
        self.pending, table = [], io.BytesIO()
        pd.DataFrame(columns).to_parquet(table, index=False)
        file = self.folder / f"{uuid.uuid4().hex}-{hashlib.sha256(table.getvalue()).hexdigest()}.parquet"
        try:
            for suffix, array in arrays.items():
                with open(file.with_suffix(suffix), "wb") as stream:
                    np.save(stream, array)
                    stream.flush()
                    os.fsync(stream.fileno())
            file.with_suffix(".partial").write_bytes(table.getvalue())
            os.replace(file.with_suffix(".partial"), file)
        except OSError as error:
            for suffix in (*arrays, ".partial"):
                file.with_suffix(suffix).unlink(missing_ok=True)
            raise HplError(f"{file}: cannot be written ({error}); expected free disk: decoded pictures are kept there") from None
        written = self._load(file)
        if written is None:
            raise HplError(f"{file}: another was read than was written; expected a disk that keeps what it is given")
        self.table = pd.concat([self.table, written], ignore_index=True) if len(self.table) else written

    def rows(self, digests: pd.Series) -> pd.DataFrame:
        """Look up the table's row for each file, the one with a packed copy if there are two."""
        table = self.table.sort_values(["file_sha256", "pack_row"], kind="stable").drop_duplicates("file_sha256", keep="last")
        return table.set_index("file_sha256").loc[digests].reset_index()


def take(files: list[Path], part: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Read rows, at least one, of the arrays in several files, in order. Each is mapped while it is read and no longer."""
    out = None
    for number in np.unique(part):
        here = part == number
        rows = np.load(files[number], mmap_mode="r", allow_pickle=False)[row[here]]
        out = np.empty((len(part), *rows.shape[1:]), rows.dtype) if out is None else out
        out[here] = rows
    assert out is not None
    return out


def fill_store(files: pd.Series, pack: np.ndarray, size: Size, num_workers: int, store: Store) -> tuple[pd.Series, pd.Series]:
    """Have every picture's facts in the store.

    Args:
        files: path of each picture.
        pack: which of them get a packed copy, at `size`.

    Returns:
        The hash of each file's bytes, and the fault of each bad picture by its place in `files` (its hash is "").
    """
    known = store.known()
    digests, faults = [], {}
    results = _results(files, pack, size, num_workers, known)
    try:
        for row, result in enumerate(tqdm(results, total=len(files), desc="decode", unit="pictures", smoothing=0.02)):
            if isinstance(result, PictureFacts):
                if not known.get(result.file_sha256, False):
                    store.add(result)
                    known[result.file_sha256] = result.packed_3HW is not None
                result = result.file_sha256
            elif isinstance(result, HplError):
                faults[row] = str(result)
                result = ""
            digests.append(result)
    finally:
        store.flush()  # a stopped run keeps what it did
    return pd.Series(digests, dtype="str"), pd.Series(faults, dtype="str")


def _results(
    files: pd.Series, pack: np.ndarray, size: Size, num_workers: int, known: dict[str, bool]
) -> Iterator[PictureFacts | str | HplError]:
    """Yield for each file, in order, its facts, its hash if these are known, or its fault: a few chunks a worker at a time."""
    starts = range(0, len(files), _CHUNK_PICTURES)
    chunks = (
        (files.iloc[start : start + _CHUNK_PICTURES].tolist(), pack[start : start + _CHUNK_PICTURES].tolist()) for start in starts
    )
    facts = partial(_chunk_facts, size, known)
    workers = min(num_workers, len(starts))
    chunked = map(facts, chunks) if workers < 2 else in_order(facts, chunks, workers, _DECODES, "spawn")
    for results in chunked:
        yield from results


def _chunk_facts(size: Size, known: dict[str, bool], chunk: _Chunk) -> list[PictureFacts | str | HplError]:
    results: list[PictureFacts | str | HplError] = []
    for file, packed in zip(*chunk, strict=True):
        try:
            data = read_bytes(Path(file))
            digest = hashlib.sha256(data).hexdigest()
            seen = known.get(digest)
            results.append(
                digest if seen or (seen is False and not packed) else picture_facts(data, file, size if packed else None)
            )
        except HplError as fault:
            results.append(fault)
    return results
