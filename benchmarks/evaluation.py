"""Time and memory of scoring at the sizes of Market-1501 and MSMT17, beside the bare matrix product and a full sort.

    python benchmarks/evaluation.py [--sizes market msmt17] [--width 512]

The features are drawn: a direction for each person plus noise, so that mAP is neither 0 nor 100. Product, sort and scoring take
turns, block by block, in one run, so that whatever else the machine does weighs on all alike. The sort (an argsort of each row,
from which everything else would follow) is run on a few queries of each block and its time scaled to all. Memory is what numpy
and Python hold beyond the features, at its peak, in a run of its own. Every picture has pixels of its own,
which the rule asks for.
"""

import argparse
import time
import tracemalloc

import numpy as np
import pandas as pd

from hpl.evaluation.metrics import score_block
from hpl.evaluation.protocols import Rule
from hpl.evaluation.scores import Scores
from hpl.evaluation.similarity import QUERY_BLOCK, cosine_blocks, unit_checked
from hpl.tasks import JUNK_PID

# queries, gallery pictures, people, of the gallery junk and distractors, cameras
SIZES = {"market": (3368, 19732, 750, 3819, 2793, 6), "msmt17": (11659, 82161, 3060, 0, 0, 15)}
NOISE = 2.0  # length of the noise relative to the person's direction
NUM_SORTED = 8  # queries of each block that are sorted in full


def draw(name: str, width: int) -> tuple[np.ndarray, ...]:
    """Features, pids, camids and numbers of the pixels, of queries and gallery."""
    num_queries, num_gallery, num_people, num_junk, num_distractors, num_cameras = SIZES[name]
    generator = np.random.default_rng(0)
    people = generator.standard_normal((num_people + 1, width), dtype=np.float32)
    query_pids = generator.integers(1, num_people + 1, num_queries)
    gallery_pids = generator.integers(1, num_people + 1, num_gallery)
    gallery_pids[:num_junk], gallery_pids[num_junk : num_junk + num_distractors] = JUNK_PID, 0
    features = []
    for pids in (query_pids, gallery_pids):
        drawn = generator.standard_normal((len(pids), width), dtype=np.float32)
        drawn *= NOISE
        for start in range(0, len(pids), 1024):
            own = pids[start : start + 1024, None]
            drawn[start : start + 1024] += np.where(own > 0, people[np.maximum(own[:, 0], 0)], 0)
        features.append(drawn)
    camids = (generator.integers(0, num_cameras, count) for count in (num_queries, num_gallery))
    pixels = np.arange(num_queries), num_queries + np.arange(num_gallery)
    return *features, query_pids, gallery_pids, *camids, *pixels


def score(queries: np.ndarray, gallery: np.ndarray, *people: np.ndarray) -> Scores:
    """What the driver of hpl/retrieval does with the features of a task."""
    rule = Rule(*people)
    left, right = unit_checked(queries, "query", len(queries)), unit_checked(gallery, "picture", len(gallery))
    right = right if rule.kept.all() else right[rule.kept]
    return Scores.of(cosine_blocks(left, right), rule)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--width", type=int, default=512)
    arguments = parser.parse_args()
    for name in arguments.sizes:
        data = draw(name, arguments.width)
        tracemalloc.start()
        streamed = score(*data)
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

        queries, gallery, *people = data
        now = time.perf_counter()
        rule = Rule(*people)
        left, right = unit_checked(queries, "query", len(queries)), unit_checked(gallery, "picture", len(gallery))
        blocks, scores = cosine_blocks(left, right[rule.kept]), []
        bare = np.zeros((QUERY_BLOCK, len(right)), np.float32)
        spent = {"product": 0.0, "sort": 0.0, "cosines": 0.0, "scores": time.perf_counter() - now}
        for start in range(0, len(left), QUERY_BLOCK):
            part = left[start : start + QUERY_BLOCK]
            times = [time.perf_counter()]
            product = np.matmul(part, right.T, out=bare[: len(part)])
            times.append(time.perf_counter())
            for row in product[:NUM_SORTED]:
                np.argsort(-row)
            times.append(time.perf_counter())
            _, similarity = next(blocks)
            times.append(time.perf_counter())
            scores.append(score_block(similarity, rule, start))
            times.append(time.perf_counter())
            for what, seconds in zip(spent, np.diff(times) * [1, len(part) / len(product[:NUM_SORTED]), 1, 1]):
                spent[what] += seconds
        assert pd.concat(scores, ignore_index=True).equals(streamed.table)

        product, held = spent["product"], sum(part.nbytes for part in data[:2])
        print(f"{name}: {len(left):,} x {len(right):,} x {arguments.width}, mAP {streamed.figures()['mAP']:.1f}")
        print(f"  bare product                {1:5.2f}   {product:6.1f} s")
        for what, seconds in (
            ("our cosines and scores", spent["cosines"] + spent["scores"]),
            ("  of this, the scores", spent["scores"]),
            ("bare product and full sort", product + spent["sort"]),
        ):
            print(f"  {what:26}  {seconds / product:5.2f}   {seconds:6.1f} s")
        print(f"  peak memory beyond the {held / 2**20:,.0f} MiB of features: {memory / 2**20:,.0f} MiB\n", flush=True)


if __name__ == "__main__":
    main()
