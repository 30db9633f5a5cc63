"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) without an (Q + G) x (Q + G) matrix.

Each of the N = Q + G pictures is described by the pictures that it and they see among their nearest: a sparse row of N, some
dozens of numbers. What is held at a time is those rows, and one block of similarities.
"""

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from hpl.evaluation.similarity import QUERY_BLOCK, cosine_blocks


def reranked_blocks(
    left: np.ndarray, right: np.ndarray, k1: int, k2: int, weight: float, block: int = QUERY_BLOCK
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield re-ranked similarities, 1 - (1 - weight) x Jaccard distance - weight x original distance, in place of the cosines.

    The original distance is the squared Euclidean one divided by the largest of its row, as in the authors' code.

    Args:
        left, right: Q x D and G x D, float32, of unit length; for text-to-image, captions and pictures of one embedding space.
        k1: neighbours that are looked at; k2: neighbours whose descriptions are averaged; weight: lambda of the paper.
        block: queries (first: of all) held at a time.

    Yields:
        Number of the first query, and n x G similarities in 0..1, which the next block overwrites.
    """
    everyone = np.concatenate([left, right])
    num_queries, count = len(left), len(everyone)
    near, largest = _neighbours(everyone, max(k1 + 1, k2), block)
    described = _descriptions(everyone, near, largest, k1, block)
    if k2 > 1:
        mean = _rows(near[:, :k2]) / min(k2, count)
        described = sparse.vstack([mean[start : start + block] @ described for start in range(0, count, block)], format="csr")
    by_picture = described[num_queries:].tocsc()
    for start, similarity in cosine_blocks(left, right, block):
        for query, row in enumerate(similarity, start):
            shared = _shared(described[query], by_picture)
            original = np.maximum(2 - 2 * row, 0) / largest[query]
            row[:] = 1 - (1 - weight) * (1 - shared / (2 - shared)) - weight * original
        yield start, similarity


def _neighbours(everyone: np.ndarray, length: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Find N x length nearest pictures of each, itself among them, best first, ties in order; and N largest squared distances."""
    length = min(length, len(everyone))
    near, largest = np.empty((len(everyone), length), np.int64), np.empty(len(everyone))
    for start, similarity in cosine_blocks(everyone, everyone, block):
        for number, row in enumerate(similarity, start):
            least = np.partition(row, len(row) - length)[len(row) - length]
            best = np.flatnonzero(row >= least)
            near[number] = best[np.argsort(-row[best], kind="stable")][:length]
            largest[number] = max(2 - 2 * row.min(), 1e-12)
    return near, largest


def _rows(columns: np.ndarray) -> sparse.csr_matrix:
    """Make an N x N matrix with ones at the given columns of each row."""
    count, length = columns.shape
    ones, ends = np.ones(columns.size, np.float64), np.arange(count + 1) * length
    return sparse.csr_matrix((ones, columns.ravel(), ends), shape=(count, count))


def _descriptions(everyone: np.ndarray, near: np.ndarray, largest: np.ndarray, k1: int, block: int) -> sparse.csr_matrix:
    """Describe each picture by exp(-distance) to its k-reciprocal neighbours and their overlapping ones: N x N, rows sum to 1."""
    full, half = _rows(near[:, : k1 + 1]), _rows(near[:, : round(k1 / 2) + 1])
    full, half = full.multiply(full.T).tocsr(), half.multiply(half.T).tocsr()
    size = np.asarray(half.sum(axis=1)).ravel()
    parts = []
    for start in range(0, len(everyone), block):
        own = full[start : start + block]
        overlap = (own @ half.T).multiply(own).tocoo()
        taken = overlap.data > 2 / 3 * size[overlap.col]
        joins = sparse.csr_matrix((overlap.data[taken], (overlap.row[taken], overlap.col[taken])), shape=own.shape)
        part = (own + joins @ half).tocoo()
        cosine = np.einsum("nd,nd->n", everyone[start + part.row], everyone[part.col])
        part.data = np.exp(-np.maximum(2 - 2 * cosine, 0) / largest[start + part.row])
        part = part.tocsr()
        parts.append(sparse.diags(1 / np.maximum(np.asarray(part.sum(axis=1)).ravel(), 1e-12)) @ part)
    return sparse.vstack(parts, format="csr")


def _shared(row: sparse.csr_matrix, by_picture: sparse.csc_matrix) -> np.ndarray:
    """Sum the smaller of a description and each gallery picture's, over columns."""
    if not row.nnz:  # among more equal pictures than k1, one may not be its own neighbour
        return np.zeros(by_picture.shape[0])
    starts, ends = by_picture.indptr[row.indices], by_picture.indptr[row.indices + 1]
    places = np.concatenate([np.arange(start, end) for start, end in zip(starts, ends)])
    smaller = np.minimum(by_picture.data[places], np.repeat(row.data, ends - starts))
    return np.bincount(by_picture.indices[places], weights=smaller, minlength=by_picture.shape[0])
