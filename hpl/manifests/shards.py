"""Arrays of many rows in .npy files that are memory-mapped: packed pictures and cached features use the same form."""

from pathlib import Path
from types import TracebackType

import numpy as np

from hpl.files import HplError, parsing


class ShardWriter:
    """Writer of rows to `<folder>/<name>-00000.npy`, ..., of at most `shard_rows` rows each; a context manager."""

    def __init__(self, folder: Path, name: str, shard_rows: int) -> None:
        self.folder, self.name, self.shard_rows = Path(folder), name, shard_rows
        self.rows: list[np.ndarray] = []
        self.pending = self.num_shards = 0

    def append(self, rows: np.ndarray) -> None:
        """Add an array whose first axis is rows; all rows have one shape and type."""
        while len(rows):
            taken = rows[: self.shard_rows - self.pending]
            self.rows.append(np.ascontiguousarray(taken))
            self.pending += len(taken)
            rows = rows[len(taken) :]
            if self.pending == self.shard_rows:
                self._flush()

    def _flush(self) -> None:
        np.save(self.folder / f"{self.name}-{self.num_shards:05d}.npy", np.concatenate(self.rows))
        self.rows, self.pending, self.num_shards = [], 0, self.num_shards + 1

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and self.pending:
            self._flush()


class ShardReader:
    """Rows of a sharded array by index, without reading the rest."""

    def __init__(self, folder: Path, name: str) -> None:
        files = sorted(Path(folder).glob(f"{name}-*.npy"))
        if not files:
            raise HplError(f"{folder}/{name}-00000.npy: file not found; run the stage that writes {folder}")
        self.shards: list[np.ndarray] = []
        for file in files:
            with parsing(file, f"delete {folder} and run the stage that writes it"):
                shard = np.load(file, mmap_mode="r", allow_pickle=False)
                first = self.shards[0] if self.shards else shard[:0]
                if shard.dtype.kind not in "iuf" or (shard.dtype, shard.shape[1:]) != (first.dtype, first.shape[1:]):
                    raise ValueError(f"{shard.dtype} of shape {shard.shape}")
                self.shards.append(shard)
        self.starts = np.cumsum([0] + [len(shard) for shard in self.shards])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self.shards[0].shape[1:]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Copy the rows at `indices` (1-D integers), in that order."""
        indices = np.asarray(indices)
        if len(indices) and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"rows {indices.min()}..{indices.max()} of an array of {len(self)} rows")
        out = np.empty((len(indices), *self.row_shape), self.shards[0].dtype)
        shard_of = np.searchsorted(self.starts, indices, side="right") - 1
        for shard in np.unique(shard_of):
            here = shard_of == shard
            out[here] = self.shards[shard][indices[here] - self.starts[shard]]
        return out
