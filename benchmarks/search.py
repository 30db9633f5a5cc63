"""One query against a million vectors: the engines of hpl.search beside a plain float32 product. Medians, one core.

OMP_NUM_THREADS=1 python benchmarks/search.py [COUNT]
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hpl.search.engines import FaissEngine, NumpyEngine

WIDTH, K, QUERIES = 512, 100, 15


def seconds(run, queries: np.ndarray) -> float:
    times = []
    for query in queries:
        start = time.perf_counter()
        run(query)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def anonymous() -> int:
    """Memory of this process that no file backs, in bytes; the mapped segments are the system's page cache."""
    told = Path("/proc/self/smaps_rollup").read_text()
    return int(told.split("Anonymous:")[1].split()[0]) * 1024


def vectors(count: int) -> np.ndarray:
    random = np.random.default_rng(0)
    out = np.empty((count, WIDTH), np.float32)
    for start in range(0, count, 65536):
        part = random.standard_normal((min(65536, count - start), WIDTH), np.float32)
        out[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return out


def main(count: int) -> None:
    exact = vectors(count)
    queries = vectors(QUERIES + 1)[1:] + exact[:QUERIES]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)

    def plain(query: np.ndarray) -> np.ndarray:
        scores = exact @ query
        best = np.argpartition(-scores, K)[:K]
        return best[np.argsort(-scores[best])]

    with tempfile.TemporaryDirectory() as folder:
        blocks = []
        for number, start in enumerate(range(0, count, 65536)):
            np.save(Path(folder) / f"{number}.npy", exact[start : start + 65536].astype(np.float16))
            blocks.append(np.load(Path(folder) / f"{number}.npy", mmap_mode="r"))
        before = anonymous()
        start = time.perf_counter()
        engine = FaissEngine(blocks)
        built = time.perf_counter() - start
        beyond = (anonymous() - before - count * WIDTH * 2) / 1e6
        keep = np.random.default_rng(1).random(count) < 0.05
        base = seconds(plain, queries)
        whole, kept = (seconds(lambda query, mask=mask: engine.search(query, K, mask), queries) for mask in (None, keep))
        slow = seconds(lambda query: NumpyEngine(blocks).search(query, K), queries[:3])
        agreed = np.mean([len(np.intersect1d(plain(query), engine.search(query, K)[0])) / K for query in queries])
    print(f"float32 product and argpartition: {base:.3f} s")
    print(f"faiss, half precision: {whole:.3f} s, ratio {whole / base:.2f} (at most 0.60)")
    print(f"faiss, a filter keeps 5 %: {kept:.3f} s, ratio {kept / base:.2f} (at most 0.15)")
    print(f"numpy, half precision: {slow:.3f} s, ratio {slow / base:.2f}")
    print(f"top {K} as of float32: {agreed:.2%} (at least 99.9 %)")
    print(f"built in {built:.2f} s; {beyond:.0f} MB of own memory beyond the vectors (at most 100)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
