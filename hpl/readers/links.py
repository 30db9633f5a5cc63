"""The same shot in two data sets, found by its content, for names do not carry over.

First by the hash of the decoded pixels; then by a fingerprint, a thumbnail of FINGERPRINT pixels, which survives re-encoding,
resizing and crops of up to 5 % at each side: pictures whose coarse colours agree (as they are, or with the border of either cut
off) are candidates, and a candidate is a link if, under the best crop of one of the two, the thumbnails correlate.
benchmarks/linking.py measures both steps.
"""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations, product

import numpy as np
import pandas as pd
from tqdm import tqdm

FINGERPRINT = (48, 24)  # height, width
_COARSE = 6  # pixels of the fingerprint a cell of the coarse colours
_CUT_UNIT = 1 / 160  # of the height or width: crops are counted in it
_COARSE_CUTS = (0, 4, 8)  # units that the search takes off each side at first; 8 are 5 %
_REFINE = (2, 1)  # units by which it then moves one side at a time
_MOST = 11  # no side loses this many units
_FLAT = 2.0  # grey levels of standard deviation under which a picture shows nothing that could be recognised
_BLOCK_ROWS, _BLOCK_COLUMNS = 1024, 4096  # pictures of the two sets compared at a time
_PAIR_BLOCK = 64  # candidates aligned at a time
_MOST_CANDIDATES = 8  # of one picture in another set
Fingerprints = Callable[[np.ndarray], np.ndarray]  # rows of the picture table -> uint8, n x FINGERPRINT x 3


def find_links(pictures: pd.DataFrame, fingerprints: Fingerprints, min_candidate: float, min_correlation: float) -> pd.DataFrame:
    """Find pairs of rows that show the same shot.

    Args:
        pictures: columns dataset and sha256 (of the decoded pixels); one row a picture.
        min_candidate: least correlation of the coarse colours.
        min_correlation: least correlation of the aligned thumbnails.

    Returns:
        Columns left < right (rows), kind (exact | perceptual) and correlation, sorted. Exact pairs inside a data set are among
        them (each picture with the first of its kind), perceptual ones are not: two frames of one camera may look the same.
    """
    exact = _equal_pixels(pictures, fingerprints)
    dataset, names = pd.factorize(pictures["dataset"], sort=True)
    known = pd.MultiIndex.from_arrays([exact["left"], exact["right"]])
    digests = pictures["sha256"].to_numpy(str)
    parts = [exact]
    if len(names) > 1:
        signals, cropped, flat = _coarse_signals(len(pictures), fingerprints)
    for first, second in combinations(range(len(names)), 2):
        left, right = np.flatnonzero((dataset == first) & ~flat), np.flatnonzero((dataset == second) & ~flat)
        title = f"link {names[first]} and {names[second]}"
        for pairs in _candidates(left, right, signals, cropped, min_candidate, title):
            pairs = pairs[~pd.MultiIndex.from_arrays(pairs.T).isin(known)]
            if not len(pairs):
                continue
            found = _align(pairs, fingerprints, min_correlation)
            kept = pairs[found >= min_correlation]
            equal = digests[kept[:, 0]] == digests[kept[:, 1]]  # a further copy, which is not linked to the first of its kind
            frame = pd.DataFrame({"left": kept[:, 0], "right": kept[:, 1], "kind": np.where(equal, "exact", "perceptual")})
            parts.append(frame.assign(correlation=found[found >= min_correlation].round(4)))
    links = pd.concat(parts, ignore_index=True)
    links[["left", "right"]] = np.sort(links[["left", "right"]].to_numpy(np.int64), axis=1)
    return links.sort_values(["left", "right"], ignore_index=True)


def near_copies(
    queries: pd.DataFrame, gallery: pd.DataFrame, fingerprints: Fingerprints, least: tuple[float, float]
) -> pd.DataFrame:
    """Find queries whose shot stands in the gallery once more with other pixels: re-encoded, resized or cropped.

    What scoring ignores is not looked at: the query's person by its own camera.

    Args:
        queries, gallery: of one set: columns image_id (the row that `fingerprints` takes), path, person, camid (below 0:
            unknown), sha256.
        least: correlation of the coarse colours, and of the aligned thumbnails.

    Returns:
        A row a query that has any, with its most likely one: the queries' columns, and path_found.
    """
    ids = np.concatenate([queries["image_id"], gallery["image_id"]]).astype(np.int64)
    signals, cropped, flat = _coarse_signals(len(ids), lambda rows: fingerprints(ids[rows]))
    rows, found = np.flatnonzero(~flat), []
    left, right = rows[rows < len(queries)], rows[rows >= len(queries)]
    for pairs in _candidates(left, right, signals, cropped, least[0], "near-copies"):
        asked, shown = queries.iloc[pairs[:, 0]], gallery.iloc[pairs[:, 1] - len(queries)]
        equal = {name: asked[name].to_numpy(object) == shown[name].to_numpy(object) for name in ("person", "camid", "sha256")}
        other = ~equal["sha256"] & ~(equal["person"] & equal["camid"] & (asked["camid"].to_numpy() >= 0))
        _, best = np.unique(pairs[other, 0], return_index=True)
        asked, shown = asked[other].iloc[best], shown[other].iloc[best]
        alike = _align(ids[pairs[other][best]], fingerprints, least[1]) >= least[1]
        found.append(asked[alike].assign(path_found=shown["path"].to_numpy()[alike]))
    return pd.concat(found) if found else queries[:0].assign(path_found="")


def _align(pairs: np.ndarray, fingerprints: Fingerprints, enough: float) -> np.ndarray:
    """Correlate pairs of rows, n x 2, by aligned_correlation, a block at a time."""
    correlation = np.zeros(len(pairs), np.float32)
    for start in range(0, len(pairs), _PAIR_BLOCK):
        block = slice(start, start + _PAIR_BLOCK)
        correlation[block] = aligned_correlation(fingerprints(pairs[block, 0]), fingerprints(pairs[block, 1]), enough)
    return correlation


def _equal_pixels(pictures: pd.DataFrame, fingerprints: Fingerprints) -> pd.DataFrame:
    """Pair each picture with the first that has the same pixels. A flat picture (a blank frame) links nobody."""
    rows = pd.Series(np.arange(len(pictures)))
    first = rows.groupby(pictures["sha256"].to_numpy(), sort=False).transform("first")
    again = np.flatnonzero(rows != first)
    blocks = [again[start : start + _BLOCK_ROWS] for start in range(0, len(again), _BLOCK_ROWS)]
    flat = [_is_flat(np.moveaxis(fingerprints(block), 3, 1).astype(np.float32)) for block in blocks]
    again = again[~np.concatenate([np.zeros(0, bool), *flat])]
    return pd.DataFrame({"left": first[again].to_numpy(), "right": again, "kind": "exact", "correlation": 1.0})


def _is_flat(thumbnails_N3HW: np.ndarray) -> np.ndarray:
    return thumbnails_N3HW.std(axis=(2, 3)).max(axis=1) < _FLAT


def _coarse_signals(count: int, fingerprints: Fingerprints) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute coarse colours of each picture, whole and without 2.5 % at every side (count x C, unit rows), and who is flat."""
    height, width = FINGERPRINT
    size = height // _COARSE * (width // _COARSE) * 3
    signals, cropped, flat = np.zeros((count, size), np.float32), np.zeros((count, size), np.float32), np.zeros(count, bool)
    down, across = _crop_matrices(height)[4, 4], _crop_matrices(width)[4, 4]
    for start in range(0, count, _BLOCK_ROWS):
        rows = np.arange(start, min(start + _BLOCK_ROWS, count))
        thumbnails = np.moveaxis(fingerprints(rows), 3, 1).astype(np.float32)
        flat[rows] = _is_flat(thumbnails)
        for target, source in ((signals, thumbnails), (cropped, down @ thumbnails @ across.T)):
            cells = source.reshape(len(rows), 3, height // _COARSE, _COARSE, width // _COARSE, _COARSE).mean((3, 5))
            target[rows] = _standardise(cells)
    return signals, cropped, flat


def _candidates(
    left: np.ndarray, right: np.ndarray, signals: np.ndarray, cropped: np.ndarray, least: float, title: str
) -> Iterator[np.ndarray]:
    """Yield pairs of rows, n x 2, whose coarse colours correlate: for each row of `left` the best _MOST_CANDIDATES at most."""
    for start in tqdm(range(0, len(left), _BLOCK_ROWS), desc=title, unit="blocks"):
        own = left[start : start + _BLOCK_ROWS]
        found, scores = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
        for begin in range(0, len(right), _BLOCK_COLUMNS):
            other = right[begin : begin + _BLOCK_COLUMNS]
            similarity = signals[own] @ signals[other].T
            np.maximum(similarity, signals[own] @ cropped[other].T, out=similarity)
            np.maximum(similarity, cropped[own] @ signals[other].T, out=similarity)
            near = np.argwhere(similarity >= least)
            found.append(np.stack([own[near[:, 0]], other[near[:, 1]]], axis=1))
            scores.append(similarity[near[:, 0], near[:, 1]])
        pairs, score = np.concatenate(found), np.concatenate(scores)
        order = np.lexsort((pairs[:, 1], -score, pairs[:, 0]))
        place = pd.Series(pairs[order, 0]).groupby(pairs[order, 0]).cumcount().to_numpy()
        yield pairs[order][place < _MOST_CANDIDATES]


def aligned_correlation(first_NHW3: np.ndarray, second_NHW3: np.ndarray, enough: float = 1.0) -> np.ndarray:
    """Correlate pairs of thumbnails under the best crop of one of the two: N values.

    Args:
        enough: pairs that are already this much alike without a crop are not searched.
    """
    first, second = (np.moveaxis(thumbnails, 3, 1).astype(np.float32) for thumbnails in (first_NHW3, second_NHW3))
    best = (_standardise(first) * _standardise(second)).sum(axis=1)
    search = np.flatnonzero(best < enough)
    for source, target in ((first[search], second[search]), (second[search], first[search])):
        if len(search):
            best[search] = np.maximum(best[search], _best_crop(source, target))
    return best


def _best_crop(source_N3HW: np.ndarray, target_N3HW: np.ndarray) -> np.ndarray:
    """Search the crop of `source` that correlates most with all of `target`: a grid at half the resolution, then side by side."""
    cuts = _coarse_search(_halve(source_N3HW), _halve(target_N3HW))  # top, bottom, left, right, in units of _CUT_UNIT
    signal = _standardise(target_N3HW)
    best = _score(source_N3HW, signal, cuts)
    for step in _REFINE:
        for side, move in product(range(4), (-step, step)):
            trial = cuts.copy()
            trial[:, side] = np.clip(trial[:, side] + move, 0, _MOST - 1)
            score = _score(source_N3HW, signal, trial)
            better = score > best
            best[better], cuts[better] = score[better], trial[better]
    return best


def _coarse_search(source_N3HW: np.ndarray, target_N3HW: np.ndarray) -> np.ndarray:
    """Find the best of all crops by _COARSE_CUTS at the four sides: N x 4."""
    count, _, height, width = source_N3HW.shape
    edges = np.array(list(product(_COARSE_CUTS, repeat=2)))
    down, across = (_crop_matrices(size)[edges[:, 0], edges[:, 1]].reshape(-1, size) for size in (height, width))
    all_crops = (down @ source_N3HW @ across.T).reshape(count, 3, len(edges), height, len(edges), width)
    signal = _standardise(target_N3HW).reshape(count, 3, height, width)
    dot = np.einsum("ncrhkw,nchw->nrk", all_crops, signal, optimize=True)
    total, squares = all_crops.sum((1, 3, 5)), np.einsum("ncrhkw,ncrhkw->nrk", all_crops, all_crops)
    score = dot / np.sqrt(np.maximum(squares - total**2 / signal[0].size, 1e-6))
    row, column = np.divmod(score.reshape(count, -1).argmax(axis=1), len(edges))
    return np.concatenate([edges[row], edges[column]], axis=1)


def _score(source_N3HW: np.ndarray, signal: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Correlate each source, cropped by its own cuts, with its signal."""
    height, width = source_N3HW.shape[2:]
    down = _crop_matrices(height)[cuts[:, 0], cuts[:, 1]][:, None]
    across = _crop_matrices(width)[cuts[:, 2], cuts[:, 3]][:, None]
    return (_standardise(down @ source_N3HW @ np.swapaxes(across, 2, 3)) * signal).sum(axis=1)


@cache
def _crop_matrices(size: int) -> np.ndarray:
    """Build linear interpolations that stretch `size` pixels without a share at each end to `size`: MOST x MOST x size x size."""
    matrices = np.zeros((_MOST, _MOST, size, size), np.float32)
    pixels = np.arange(size)
    for before, after in product(range(_MOST), repeat=2):
        place = _CUT_UNIT * before * size + (pixels + 0.5) * (1 - _CUT_UNIT * (before + after)) - 0.5
        place = np.clip(place, 0, size - 1)
        low = np.minimum(place.astype(np.int64), size - 2)
        matrices[before, after, pixels, low] = 1 - (place - low)
        matrices[before, after, pixels, low + 1] = place - low
    return matrices


def _halve(thumbnails_N3HW: np.ndarray) -> np.ndarray:
    count, _, height, width = thumbnails_N3HW.shape
    return thumbnails_N3HW.reshape(count, 3, height // 2, 2, width // 2, 2).mean((3, 5))


def _standardise(thumbnails: np.ndarray) -> np.ndarray:
    """Make each one a vector of zero mean and unit length, float32."""
    signals = thumbnails.reshape(len(thumbnails), -1)
    signals = signals - signals.mean(axis=1, keepdims=True)
    return signals / np.maximum(np.linalg.norm(signals, axis=1, keepdims=True), 1e-6)
