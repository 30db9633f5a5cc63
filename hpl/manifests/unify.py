"""One label for one person across data sets, and no test person in training (the paper's rule, made checkable).

Names do not carry over between sets, so the same picture is found by its content: first by the hash of its decoded pixels, then by a
perceptual hash that survives re-encoding and resizing, confirmed on thumbnails. Linked pictures link their people.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

BLOCK = 2048  # pictures compared at a time


@dataclass(frozen=True)
class Link:
    """Two pictures, of different data sets, that show the same shot. `left` and `right` are rows of the picture table."""

    left: int
    right: int
    kind: str  # exact | perceptual
    distance: int  # bits in which the perceptual hashes differ
    correlation: float  # of the thumbnails


def find_links(pictures: pd.DataFrame, thumbnails_NHW3: np.ndarray, max_distance: int, min_correlation: float) -> list[Link]:
    """Link equal pictures across data sets.

    Args:
        pictures: columns dataset, sha256, phash (uint64); one row a picture.
        thumbnails_NHW3: uint8, one for each row.
        max_distance: bits of 64 in which two perceptual hashes may differ.
        min_correlation: least Pearson correlation of two thumbnails.
    """
    hashes = pictures["phash"].to_numpy(np.uint64)
    digests = pictures["sha256"].to_numpy()
    signals = _standardise(thumbnails_NHW3)
    rows_of = {name: np.flatnonzero(pictures["dataset"] == name) for name in sorted(pictures["dataset"].unique())}
    names = list(rows_of)
    links = []
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            for start in range(0, len(rows_of[first]), BLOCK):
                left = rows_of[first][start : start + BLOCK]
                for begin in range(0, len(rows_of[second]), BLOCK):
                    right = rows_of[second][begin : begin + BLOCK]
                    distance = np.bitwise_count(hashes[left][:, None] ^ hashes[right][None])
                    for i, j in np.argwhere(distance <= max_distance):
                        correlation = float(signals[left[i]] @ signals[right[j]])
                        exact = digests[left[i]] == digests[right[j]]
                        if exact or correlation >= min_correlation:
                            kind = "exact" if exact else "perceptual"
                            links.append(Link(int(left[i]), int(right[j]), kind, int(distance[i, j]), round(correlation, 4)))
    return links


def _standardise(thumbnails_NHW3: np.ndarray) -> np.ndarray:
    """Each thumbnail as a vector of zero mean and unit length, float32."""
    signals = thumbnails_NHW3.reshape(len(thumbnails_NHW3), -1).astype(np.float32)
    signals -= signals.mean(axis=1, keepdims=True)
    return signals / np.maximum(np.linalg.norm(signals, axis=1, keepdims=True), 1e-6)


def unify_identities(pictures: pd.DataFrame, links: list[Link]) -> pd.DataFrame:
    """Give each person one `pid` from 1 and take people of any test split out of training.

    Args:
        pictures: columns dataset, source_pid, split, role, anonymous.
        links: pairs of rows that show the same shot.

    Returns:
        The table with `pid` added (anonymous rows keep their source pid) and `role` set to "dropped" where a linked person leaves:
        from training and validation if it occurs in a test split, from validation alone if it occurs in training.
    """
    named = ~pictures["anonymous"].to_numpy()
    person = pd.factorize(pd.MultiIndex.from_frame(pictures[["dataset", "source_pid"]]), sort=True)[0]
    pairs = [(person[link.left], person[link.right]) for link in links if named[link.left] and named[link.right]]
    left, right = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    size = person.max() + 1
    _, component = connected_components(coo_array((np.ones(len(left)), (left, right)), shape=(size, size)), directed=False)
    component = component[person]

    labels = np.unique(component[named])
    pid = np.where(named, np.searchsorted(labels, component) + 1, pictures["source_pid"])
    linked_to_junk = {
        person[a] for link in links for a, b in ((link.left, link.right), (link.right, link.left)) if named[a] and not named[b]
    }

    split, role = pictures["split"].to_numpy(), pictures["role"].to_numpy(copy=True)
    in_test = set(component[named & (split == "test")]) | set(component[np.isin(person, list(linked_to_junk)) & named])
    in_training = set(component[named & (role == "train")])
    leaks = np.isin(component, list(in_test)) & np.isin(split, ["train", "val", "pretrain"])
    overlaps = np.isin(component, list(in_training)) & (split == "val")
    role[named & (leaks | overlaps)] = "dropped"
    return pictures.assign(pid=pid.astype(np.int64), role=role)
