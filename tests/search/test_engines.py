"""All engines find what a plain product in float64 finds."""

import subprocess
import sys

import numpy as np
import pytest
from qdrant_client import QdrantClient

from hpl.search.engines import InvertedEngine, NumpyEngine, make_engine
from hpl.search.gallery import Gallery
from hpl.search.qdrant import QdrantEngine, send_gallery
from hpl.tasks import I2I, T2I
from tests.support.imports import ROOT
from tests.support.small_model import draw_pictures, save_small_model


def blocks_of(*counts: int, width: int = 32) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    blocks = [random.standard_normal((count, width)) for count in counts]
    return [(block / np.linalg.norm(block, axis=1, keepdims=True)).astype(np.float16) for block in blocks]


def expected(blocks: list[np.ndarray], query: np.ndarray, k: int, keep: np.ndarray | None) -> np.ndarray:
    scores = (np.concatenate(blocks).astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    order = np.lexsort((np.arange(len(scores)), -scores))
    return (order if keep is None else order[keep[order]])[:k]


@pytest.mark.parametrize("kept", [1.0, 0.3, 0.001, 0.0])
@pytest.mark.parametrize("name", ["numpy", "faiss"])
def test_exact_engines_agree_with_a_plain_product(name: str, kept: float) -> None:
    blocks = blocks_of(700, 1, 1299)
    blocks[2][100:180] = blocks[0][5]  # many equal rows: more ties than candidates to spare
    engine = make_engine(name, blocks)
    keep = None if kept == 1 else np.random.default_rng(1).random(2000) < kept
    for query in [*np.concatenate(blocks)[[0, 5, 1999]].astype(np.float32), np.ones(32, np.float32) / 32**0.5]:
        for k in (1, 50, 5000):
            rows, scores = engine.search(query, k, keep)
            assert rows.tolist() == expected(blocks, query, k, keep).tolist()
            assert (np.diff(scores) <= 0).all()


def test_faiss_filters_where_its_torch_wrappers_are_loaded() -> None:
    """As pytorch-metric-learning loads them, in a process that also trains."""
    code = (
        "import faiss.contrib.torch_utils, numpy as np; from hpl.search.engines import FaissEngine, NumpyEngine;"
        "x = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float16); keep = np.arange(50) % 3 == 0;"
        "found = [engine([x]).search(x[0], 5, keep)[0].tolist() for engine in (FaissEngine, NumpyEngine)];"
        "assert found[0] == found[1], found"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_an_inverted_file_finds_most_and_all_if_it_reads_all_lists() -> None:
    blocks = blocks_of(3000, 1000)
    exact, all_lists, some = NumpyEngine(blocks), InvertedEngine(blocks, nprobe=10**6), InvertedEngine(blocks, nprobe=4)
    assert all_lists.recall(exact) == 1
    assert 0.05 < some.recall(exact) < 1
    keep = np.arange(4000) % 7 == 0
    query = blocks[0][3].astype(np.float32)
    assert all_lists.search(query, 20, keep)[0].tolist() == expected(blocks, query, 20, keep).tolist()


def test_qdrant_finds_what_the_gallery_finds(tmp_path) -> None:
    gallery = Gallery.create(tmp_path / "gallery", save_small_model(tmp_path / "model"))
    draw_pictures(tmp_path / "crops", 30)
    gallery.add(tmp_path / "crops", camera_pattern=r"c(\d)_")
    client = QdrantClient(":memory:")
    assert send_gallery(gallery, client, "people") == 30
    for task, asked in ((T2I, {"text": "a man in red"}), (I2I, {"pictures": [7]})):
        found = gallery.search(k=10, cameras=["1"], **asked)
        vector = gallery._vectors(gallery_query(**asked))[task.name]
        engine = QdrantEngine(client, "people", task.name)
        ids, scores = engine.search(vector, 10, cameras=["1"])
        assert ids.tolist() == [each.id for each in found]
        np.testing.assert_allclose(scores, [each.score for each in found], atol=2e-3)
    engine.remove([7])
    assert 7 not in engine.search(vector, 30)[0]


def gallery_query(**asked):
    from hpl.search.query import Query

    return Query(**asked)
