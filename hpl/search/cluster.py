"""Who is who among unlabelled crops: average linkage of their v_i2i, without a matrix of all pairs.

Two clusters are as similar as the mean cosine of their pairs, which is the dot product of their mean vectors. The most similar
two are joined as long as that is at least a threshold, which the calibrate stage chose on validation people. A joined pair of
clusters has at least one pair of crops above the threshold, so clusters never reach beyond the connected components of such
pairs: these are found first, tile by tile, and each is linked by itself (nearest-neighbour chain: Muellner, arXiv 1109.2378).
The result is that of average linkage over all crops.

For N crops with D features this takes a float32 copy of the largest component, some 100 MB and 100 bytes a crop; N x N x D / 2
multiplications for the components, and for linking one of n crops some 3 n products of n x D with a vector.
"""

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from hpl.evaluation.similarity import unit
from hpl.files import HplError

_TILE = 1024, 4096  # crops compared with crops at a time
_SLACK = 1e-5  # a pair so little below the threshold may join components: rounding decides nothing there


def cluster_vectors(vectors_ND: np.ndarray, threshold: float) -> np.ndarray:
    """Tell the people among N crops apart.

    Args:
        vectors_ND: v_i2i of unit length, float16 or float32; may be memory-mapped.
        threshold: least mean cosine of two clusters that are joined, as `Calibration.cluster_threshold` has it.

    Returns:
        N numbers: 0 is the largest cluster, and so on; of equal sizes the one with the earlier crop comes first.

    Raises:
        HplError: vectors are not of unit length, or the threshold is no cosine.
    """
    links, similarities = link(vectors_ND, threshold)
    return cut(len(vectors_ND), links, similarities, threshold)


def link(vectors_ND: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Join the most similar clusters, again and again, down to a similarity.

    Args:
        vectors_ND: as in `cluster_vectors`.
        least: similarity below which nothing is joined.

    Returns:
        L x 2 crops, each one of the two clusters that were joined, and L similarities of these. `cut` reads them.
    """
    if not -1 <= least <= 1:
        raise HplError(f"cluster threshold {least}; expected a cosine, -1 to 1")
    links, similarities = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for members in _components(vectors_ND, least - _SLACK):
        found, at = _chain(unit(vectors_ND[members]), least)
        links.append(members[found])
        similarities.append(at)
    return np.concatenate(links), np.concatenate(similarities)


def cut(count: int, links: np.ndarray, similarities: np.ndarray, threshold: float) -> np.ndarray:
    """Give the clusters that `link` joined at a threshold or above, numbered as in `cluster_vectors`."""
    ends = links[similarities >= threshold].T
    _, labels = connected_components(
        csr_matrix((np.ones(ends.shape[1], bool), tuple(ends)), shape=(count, count)), directed=False
    )
    _, first, label, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    number = np.empty(len(first), np.int64)
    number[np.lexsort((first, -sizes))] = np.arange(len(first))
    return number[label]


def closeness(vectors_ND: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute each crop's mean cosine with the others of its cluster, N float64; NaN for one that is alone."""
    order = np.argsort(labels, kind="stable")
    found = np.full(len(labels), np.nan)
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if len(members) > 1:
            own = unit(vectors_ND[members]).astype(np.float64)
            found[members] = (own @ own.sum(axis=0) - np.einsum("nd,nd->n", own, own)) / (len(members) - 1)
    return found


def _components(vectors_ND: np.ndarray, least: float) -> Iterator[np.ndarray]:
    """Yield the crops, ascending, of each connected component of pairs that are as similar; not those of one crop."""
    count = len(vectors_ND)
    labels, rows, columns = np.arange(count), *_TILE
    for start in tqdm(range(0, count, rows), desc="compare crops", unit="block", disable=None):
        block = np.asarray(vectors_ND[start : start + rows], np.float32)
        lengths = np.linalg.norm(block, axis=1)
        if (wrong := ~(np.abs(lengths - 1) < 0.01)).any():
            row = int(wrong.argmax())
            raise HplError(f"the vector of crop {start + row} has length {lengths[row]:.3g}; expected 1")
        block = block / lengths[:, None]  # half precision is off by some 1e-4
        left, right = [], []
        for column in range(start, count, columns):
            near = np.nonzero(block @ unit(vectors_ND[column : column + columns]).T >= least)
            joined = np.unique(labels[near[0] + start] * count + labels[near[1] + column])  # few, however many pairs
            left.append(joined // count)
            right.append(joined % count)
        ends = np.concatenate(left), np.concatenate(right)
        graph = csr_matrix((np.ones(len(ends[0]), bool), ends), shape=(count, count))
        labels = connected_components(graph, directed=False)[1][labels]
    order = np.argsort(labels, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if len(members) > 1:
            yield members


def _chain(means_ND: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Link crops among themselves, as `link` does; `means_ND` is overwritten.

    A chain goes from a cluster to its nearest one, from that to its own, until two are each other's nearest: these are joined.
    Joining never brings a third one nearer than the nearer of both was, so the rest of the chain stays right, and a cluster whose
    nearest is below `least` is done.
    """
    sizes, crops = np.ones(len(means_ND)), np.arange(len(means_ND))  # a crop of each cluster
    alive = np.ones(len(means_ND), bool)
    links, similarities, chain, reached = [], [], list[int](), list[float]()
    while alive.any():
        if not chain:
            if 2 * alive.sum() < len(alive):  # what is done is not compared any more
                means_ND, sizes, crops, alive = means_ND[alive], sizes[alive], crops[alive], alive[alive]
            chain, reached = [int(alive.argmax())], [-np.inf]
        top = chain[-1]
        similar = np.where(alive, means_ND @ means_ND[top], -np.inf)
        similar[top] = -np.inf
        nearest = int(similar.argmax())
        if similar[nearest] > reached[-1] and similar[nearest] >= least and nearest not in chain:  # in it: by rounding alone
            chain.append(nearest)
            reached.append(float(similar[nearest]))
        elif len(chain) == 1:
            alive[chain.pop()] = False
        else:
            other, similarity = chain[-2], reached[-1]
            links.append((crops[other], crops[top]))
            similarities.append(similarity)
            size = sizes[other] + sizes[top]
            means_ND[other] = (sizes[other] * means_ND[other] + sizes[top] * means_ND[top]) / size
            sizes[other], alive[top] = size, False
            del chain[-2:], reached[-2:]
    return np.array(links, np.int64).reshape(-1, 2), np.array(similarities)
