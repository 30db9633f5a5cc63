"""Cosines of queries and gallery in blocks of queries, with the same bits whatever the size of a block.

What BLAS returns for a pair may depend on the shape of the product it stands in, and on the place in it. So all products have one
shape, a tile of a grid that starts at the first query and the first gallery picture and is filled up with zeros at its ends; a
block is a number of rows of that grid. Rows equal to the bit take what was computed for their first: equal pictures tie.
"""

from collections.abc import Iterator

import numpy as np

from hpl.files import HplError

TILE = 512, 16384  # queries, gallery pictures, at most
QUERY_BLOCK = TILE[0]  # queries whose similarities are held at a time
_UNIT = 64  # sides of tiles are multiples of it
_ROWS_AT_A_TIME = 4096  # that are scaled


def unit(features: np.ndarray) -> np.ndarray:
    """Scale rows to length one, float32; their dot product is the cosine."""
    features = np.asarray(features, np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def unit_checked(features: np.ndarray, what: str, count: int) -> np.ndarray:
    """Scale the features of `count` of something to length one, some rows at a time.

    Raises:
        HplError: there are not as many, or a row holds what is not finite, or what float32 cannot hold or square.
    """
    features = np.asanyarray(features)
    if features.ndim != 2 or len(features) != count:
        raise HplError(f"{what} features have shape {features.shape}; expected {count} rows, one for each {what}")
    scaled = np.empty(features.shape, np.float32)
    for start in range(0, count, _ROWS_AT_A_TIME):
        rows = features[start : start + _ROWS_AT_A_TIME]
        with np.errstate(over="ignore"):
            lengths = np.linalg.norm(rows.astype(np.float32, copy=False), axis=1)
        if not np.isfinite(lengths).all():
            row = int(np.argmin(np.isfinite(lengths)))
            finite = np.isfinite(rows[row])
            value = np.abs(rows[row]).max() if finite.all() else rows[row][~finite][0]
            raise HplError(f"feature of {what} {start + row} holds {value}; expected finite numbers that float32 can square")
        scaled[start : start + len(rows)] = unit(rows)
    return scaled


def cosine_blocks(left: np.ndarray, right: np.ndarray, block: int = QUERY_BLOCK) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the similarities of all queries with the whole gallery, some queries at a time.

    Args:
        left, right: Q x D and G x D, float32, of unit length.
        block: queries held at a time, rounded up to whole tiles; block x G float32 are all the memory this takes, and a row for
            each query that comes again.

    Yields:
        Number of the first query, and n x G similarities, which the next block overwrites.
    """
    if left.shape[1] != right.shape[1]:
        raise HplError(f"queries have {left.shape[1]} features and gallery pictures {right.shape[1]}; expected as many")
    rows, columns = (_side(len(part), most) for part, most in zip((left, right), TILE))
    step = _padded(max(block, 1), rows)
    held = np.empty((min(step, _padded(len(left), rows)), _padded(len(right), columns)), np.float32)
    query_first, picture_first = _repeats(left), _repeats(right)
    again, first = list(picture_first), list(picture_first.values())
    kept: dict[int, np.ndarray] = {}  # rows of queries that come again
    for start in range(0, len(left), step):
        count = min(step, len(left) - start)
        for column in range(0, len(right), columns):
            gallery = _tile(right, column, columns)
            for row in range(0, count, rows):
                out = held[row : row + rows, column : column + columns]
                np.matmul(_tile(left, start + row, rows), gallery.T, out=out)
        similarity = held[:count, : len(right)]
        similarity[:, again] = similarity[:, first]
        kept |= {query: similarity[query - start].copy() for query in set(query_first.values()) if start <= query < start + count}
        for query, same in query_first.items():
            if start <= query < start + count:
                similarity[query - start] = kept[same]
        yield start, similarity


def _repeats(features: np.ndarray) -> dict[int, int]:
    """Map each row that stands earlier with the same bits to the first such row."""
    first, repeats = dict[int, int](), {}
    for number, row in enumerate(features):
        same = first.setdefault(hash(row.tobytes()), number)
        if same != number and np.array_equal(features[same], row):
            repeats[number] = same
    return repeats


def _side(count: int, most: int) -> int:
    """Choose the side of the tiles that `count` is cut into: as few as possible, and as equal as _UNIT allows."""
    num_tiles = max(-(-count // most), 1)
    return _padded(max(-(-count // num_tiles), 1), _UNIT)


def _padded(count: int, tile: int) -> int:
    return -(-count // tile) * tile


def _tile(features: np.ndarray, start: int, count: int) -> np.ndarray:
    part = features[start : start + count]
    return part if len(part) == count else np.pad(part, ((0, count - len(part)), (0, 0)))
