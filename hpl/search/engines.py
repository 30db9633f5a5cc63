"""Nearest vectors: exact search in half precision by faiss or NumPy, and inverted lists for many millions.

All engines have `search(query_D, k, keep_N) -> (rows, scores)` and return the k rows of highest cosine, best first; of equal
scores the earlier row comes first. Candidates are found fast and scored anew in float64, so that exact engines return one list.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from hpl.files import HplError

_BLOCK = 16384  # rows converted at a time
_SPARE = 16  # candidates beyond k
_ROUNDING = 1e-5  # a candidate so close to the k-th might belong before it


class Engine(Protocol):
    """What finds the nearest of N vectors."""

    def search(self, query_D: np.ndarray, k: int, keep_N: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the k nearest rows and their cosines, best first; fewer if `keep_N`, bool, keeps fewer."""


def all_scores(blocks: list[np.ndarray], query_D: np.ndarray) -> np.ndarray:
    """Compute the cosine of every row, float32: N."""
    query, out = np.asarray(query_D, np.float32), [np.empty(0, np.float32)]
    for block in blocks:
        out += [block[start : start + _BLOCK].astype(np.float32) @ query for start in range(0, len(block), _BLOCK)]
    return np.concatenate(out)


class NumpyEngine:
    """Exact, in blocks, without faiss."""

    def __init__(self, blocks: list[np.ndarray]) -> None:
        self.blocks = blocks

    def search(self, query_D: np.ndarray, k: int, keep_N: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        scores = all_scores(self.blocks, query_D)
        rows = np.arange(len(scores)) if keep_N is None else np.flatnonzero(keep_N)
        scores = scores[rows]

        def nearest(count: int) -> tuple[np.ndarray, np.ndarray]:
            best = np.argpartition(-scores, count - 1)[:count]
            return rows[best], scores[best]

        return _settled(self.blocks, query_D, nearest, min(k, len(rows)), len(rows))


class FaissEngine:
    """Exact, by faiss's half-precision scalar quantizer, whose codes are the vectors themselves."""

    def __init__(self, blocks: list[np.ndarray]) -> None:
        import faiss

        self.blocks, count, width = blocks, sum(map(len, blocks)), blocks[0].shape[1]
        self.index = faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        self.index.codes.resize(count * width * 2)
        codes = faiss.rev_swig_ptr(self.index.codes.data(), count * width * 2).view(np.float16).reshape(count, width)
        start = 0
        for block in blocks:
            codes[start : start + len(block)] = block
            start += len(block)
        self.index.ntotal = count

    def search(self, query_D: np.ndarray, k: int, keep_N: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        left = self.index.ntotal if keep_N is None else int(np.count_nonzero(keep_N))
        return _settled(self.blocks, query_D, lambda count: _faiss_search(self.index, query_D, count, keep_N), min(k, left), left)


class InvertedEngine:
    """Approximate, by faiss's inverted file: only the lists nearest to the query are read. `recall` is against exact search."""

    def __init__(self, blocks: list[np.ndarray], nprobe: int = 16) -> None:
        import faiss

        self.blocks, width, self.count = blocks, blocks[0].shape[1], sum(map(len, blocks))
        lists = max(1, int(np.sqrt(self.count)))
        quantizer = faiss.IndexFlatIP(width)
        self.index = faiss.IndexIVFScalarQuantizer(
            quantizer, width, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
        )
        step = max(1, self.count // min(self.count, 64 * lists))
        self.index.train(np.concatenate([block[::step] for block in blocks]).astype(np.float32))
        for block in blocks:
            for start in range(0, len(block), _BLOCK):
                self.index.add(np.asarray(block[start : start + _BLOCK], np.float32))
        self.index.nprobe = min(nprobe, lists)

    def search(self, query_D: np.ndarray, k: int, keep_N: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        rows, _ = _faiss_search(self.index, query_D, min(k + _SPARE, self.count), keep_N)
        return _ordered(self.blocks, query_D, rows, k)

    def recall(self, exact: Engine, k: int = 100, num_queries: int = 50) -> float:
        """Measure the share of the exact top k that is found, with vectors of the gallery, evenly drawn, as queries."""
        places = np.linspace(0, self.count - 1, min(num_queries, self.count)).astype(int)
        found = 0.0
        for query in take_rows(self.blocks, places):
            wanted = exact.search(query, k)[0]
            found += len(np.intersect1d(wanted, self.search(query, k)[0])) / len(wanted)
        return found / len(places)


ENGINES: dict[str, Callable[[list[np.ndarray]], Engine]] = {"faiss": FaissEngine, "numpy": NumpyEngine, "ivf": InvertedEngine}


def make_engine(name: str, blocks: list[np.ndarray]) -> Engine:
    """Build an engine by its name: faiss, numpy or ivf."""
    if name not in ENGINES:
        raise HplError(f"engine {name!r}; expected one of {', '.join(ENGINES)}")
    try:
        return ENGINES[name](blocks)
    except ImportError:
        raise HplError(
            f"engine {name!r} needs faiss, which is not installed; expected --engine numpy, or pip install faiss-cpu"
        ) from None


def take_rows(blocks: list[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Copy some rows of blocks that follow each other: len(rows) x D, float32."""
    ends = np.cumsum([len(block) for block in blocks])
    which = np.searchsorted(ends, rows, side="right")
    out = np.empty((len(rows), blocks[0].shape[1]), np.float32)
    for number in np.unique(which):
        block = blocks[number]
        out[which == number] = block[rows[which == number] - (ends[number] - len(block))]
    return out


def _faiss_search(index: object, query_D: np.ndarray, count: int, keep_N: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    import faiss

    params = faiss.SearchParametersIVF(nprobe=index.nprobe) if hasattr(index, "nprobe") else faiss.SearchParameters()  # type: ignore
    bits = None if keep_N is None else np.packbits(keep_N, bitorder="little")
    if bits is not None:
        params.sel = selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))  # both must outlive the search
    # faiss.contrib.torch_utils, which pytorch-metric-learning imports, puts a search without params in this one's place
    search = getattr(index, "search_numpy", None) or index.search  # type: ignore[attr-defined]
    scores, rows = search(np.asarray(query_D, np.float32)[None], count, params=params)
    if bits is not None:
        del selector
    found = rows[0] >= 0
    return rows[0][found], scores[0][found]


def _settled(
    blocks: list[np.ndarray], query_D: np.ndarray, nearest: Callable[[int], tuple[np.ndarray, np.ndarray]], k: int, left: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ask for more candidates until none that was left out can belong to the k best, then score them exactly."""
    if not k:
        return np.empty(0, np.int64), np.empty(0)
    count = min(k + _SPARE, left)
    while True:
        rows, scores = nearest(count)
        if count == left or scores.min() < np.sort(scores)[-k] - _ROUNDING:
            return _ordered(blocks, query_D, rows, k)
        count = min(2 * count, left)


def _ordered(blocks: list[np.ndarray], query_D: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    exact = (take_rows(blocks, rows).astype(np.float64) * np.asarray(query_D, np.float64)).sum(axis=1)
    order = np.lexsort((rows, -exact))[:k]
    return rows[order], exact[order]
