"""Picture files -> pixels, fingerprints and packed arrays of the training size."""

import hashlib
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy.fft import dctn

from hpl.files import HplError

THUMBNAIL = (32, 16)  # height, width; what two linked pictures are compared on
CHUNK = 64  # pictures a task of a worker


@dataclass(frozen=True)
class PictureFacts:
    """What is known of a picture once it was decoded."""

    width: int  # pixels, as stored
    height: int
    sha256: str  # of the decoded RGB pixels and their size: the same picture in two files
    phash: int  # 64-bit perceptual hash
    thumbnail_HW3: np.ndarray  # uint8, THUMBNAIL
    packed_3HW: np.ndarray | None  # uint8 at the training size, if asked for


def decode_picture(path: Path) -> Image.Image:
    """Open a picture as RGB. Raises HplError naming the file if it is missing, truncated or no picture."""
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except FileNotFoundError:
        raise HplError(f"{path}: picture not found") from None
    except UnidentifiedImageError:
        raise HplError(f"{path}: not a picture ({os.path.getsize(path)} bytes); expected JPEG or PNG") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise HplError(f"{path}: damaged picture ({error}); expected a complete JPEG or PNG") from None


def resize_picture(picture: Image.Image, height: int, width: int) -> np.ndarray:
    """Bicubic, antialiased (CLIP's own resize). Returns uint8 3 x height x width."""
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def read_pictures(paths: list[Path], height: int, width: int) -> np.ndarray:
    """Decode and resize pictures straight from their files. Returns uint8 len(paths) x 3 x height x width."""
    return np.stack([resize_picture(decode_picture(path), height, width) for path in paths])


def perceptual_hash(picture: Image.Image) -> int:
    """64 signs of the low-frequency cosine transform of the 32 x 32 grey picture (pHash); survives re-encoding and resizing."""
    grey = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=np.float64)
    low = dctn(grey, norm="ortho")[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return int(np.packbits(bits).view(">u8")[0])


def examine_picture(path: Path, size: tuple[int, int] | None) -> PictureFacts:
    """Decode one picture and take its facts; `size` is (height, width) of the packed copy or None for no copy."""
    picture = decode_picture(path)
    pixels = np.asarray(picture)
    digest = hashlib.sha256(np.asarray(pixels.shape, dtype="<i8").tobytes() + pixels.tobytes()).hexdigest()
    thumbnail = np.asarray(picture.resize(THUMBNAIL[::-1], Image.Resampling.BOX))
    packed = resize_picture(picture, *size) if size else None
    return PictureFacts(picture.width, picture.height, digest, perceptual_hash(picture), thumbnail, packed)


def examine_pictures(jobs: list[tuple[Path, tuple[int, int] | None]], num_workers: int) -> Iterator[PictureFacts]:
    """Facts of many pictures, in the order of `jobs`, by a pool of processes; memory stays bounded by a few chunks a worker."""
    chunks = [jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK)]
    if num_workers == 1 or len(chunks) < 2:
        for chunk in chunks:
            yield from _examine_chunk(chunk)
        return
    with ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = iter(chunks)
        running = [pool.submit(_examine_chunk, chunk) for chunk in islice(waiting, 4 * num_workers)]
        try:
            while running:
                facts = running.pop(0).result()
                running.extend(pool.submit(_examine_chunk, chunk) for chunk in islice(waiting, 1))
                yield from facts
        finally:
            pool.shutdown(cancel_futures=True)


def _examine_chunk(chunk: list[tuple[Path, tuple[int, int] | None]]) -> list[PictureFacts]:
    return [examine_picture(path, size) for path, size in chunk]
