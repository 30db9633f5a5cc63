"""Picture files -> RGB pixels, and pixels of the training size.

Content decides, not the suffix; what is wrong with a file is said in one HplError. Plain JPEG goes through simplejpeg, the rest
through Pillow. At 384 x 128 simplejpeg takes 0.26 ms, torchvision.io 0.33 ms (and torch), Pillow 0.53 ms, for the same pixels.
"""

import io
import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from hpl.files import HplError

MAX_PIXELS = 50_000_000
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # not those that start other programs, as EPS does
_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"  # how the files start
_BAD_FILE = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, struct.error, zlib.error)


def decode_picture(path: Path | str) -> np.ndarray:
    """Decode a picture file. Returns uint8 H x W x 3, RGB; HplError names a file that is missing or no whole picture."""
    return decode_bytes(read_bytes(path), str(path))


def read_bytes(path: Path | str) -> bytes:
    """Read a picture file whole. HplError names it if it is missing, a link to nothing, or cannot be read."""
    try:
        if not os.path.isfile(path):  # a folder, or a pipe that would never end
            raise FileNotFoundError
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a ValueError: no file system knows such a name
        raise HplError(f"{path}: picture not found") from None
    except OSError as error:
        raise HplError(f"{path}: picture cannot be read ({error.strerror})") from None


def decode_bytes(data: bytes, place: str) -> np.ndarray:
    """Decode the content of a picture file to uint8 H x W x 3, RGB, upright by its EXIF orientation.

    Of an animation the first frame; transparency is dropped; 16-bit grey is scaled to 8 bits.

    Args:
        place: the file's name, for messages.

    Raises:
        HplError: `data` is empty, no picture, damaged, or by its header larger than MAX_PIXELS (then it is not decoded).
    """
    if not data:
        raise HplError(f"{place}: empty file (0 bytes); expected JPEG or PNG")
    if data.startswith(_JPEG):
        size, colours, metadata = _jpeg_header(data)
        _check_size(size, place)
        if colours:
            try:
                pixels = simplejpeg.decode_jpeg(data, colours, strict=True)
                if colours == "RGB":
                    return _stood_up(pixels, data) if metadata else pixels
            except ValueError as error:
                if "premature end" in str(error).lower():  # pixels are missing, which Pillow passes if the end mark is there
                    raise HplError(f"{place}: damaged picture ({error}); expected a complete JPEG or PNG") from None
                # else Pillow decides: it lets stray bytes between segments pass
    elif data.startswith(_PNG) and len(data) >= 24:
        _check_size(struct.unpack(">2I", data[16:24]), place)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on pictures that it opens nevertheless
            return _decode_by_pillow(data, place)
    except UnidentifiedImageError:
        if data.startswith((_JPEG, _PNG)):
            raise HplError(f"{place}: damaged picture (unreadable header); expected a complete JPEG or PNG") from None
        raise HplError(f"{place}: not a picture ({len(data)} bytes); expected JPEG or PNG") from None
    except Image.DecompressionBombError as error:
        raise HplError(f"{place}: picture of too many pixels; expected at most {MAX_PIXELS} ({error})") from None
    except _BAD_FILE as error:
        raise HplError(f"{place}: damaged picture ({error}); expected a complete JPEG or PNG") from None


def _decode_by_pillow(data: bytes, place: str) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
        _check_size(picture.size, place)
        picture.load()
        _stand_up(picture)
        if picture.mode == "F":
            raise HplError(f"{place}: picture of floating-point values; expected 8 or 16 bits")
        if picture.mode.startswith("I"):
            grey = np.asarray(picture, dtype=np.float32) / 257  # 65535 -> 255
            return np.repeat(grey.round().clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
        return np.array(picture.convert("RGB"))


def _stand_up(picture: Image.Image) -> None:
    """Turn a loaded picture as its EXIF or XMP says, where that can be read."""
    try:
        picture.getexif()
    except _BAD_FILE:
        return
    picture.info.clear()  # else Pillow would write the other tags anew, which fails if they are damaged
    ImageOps.exif_transpose(picture, in_place=True)


def _check_size(size: tuple[int, int] | None, place: str) -> None:
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise HplError(f"{place}: picture of {size[0]} x {size[1]} pixels; expected at most {MAX_PIXELS} pixels")


def _stood_up(pixels_HW3: np.ndarray, data: bytes) -> np.ndarray:
    """Turn the pixels of a JPEG as its metadata says."""
    decoded = Image.fromarray(pixels_HW3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            decoded.info = picture.info
        _stand_up(decoded)
    return np.array(decoded)


def _jpeg_header(data: bytes) -> tuple[tuple[int, int] | None, str, bool]:
    """Read (width, height) of a JPEG, its colours and whether there is EXIF or XMP, which may turn the picture.

    The size is None if it is not found; the colours are as simplejpeg calls them, "" if they are of no usual kind.
    """
    at, metadata = 2, False
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in (0xC0, 0xC1, 0xC2):  # start of a frame: baseline, extended, progressive
            bits, height, width, components = struct.unpack(">BHHB", data[at + 4 : at + 10])
            return (width, height), {1: "RGB", 3: "RGB", 4: "CMYK"}.get(components, "") if bits == 8 else "", metadata
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if not 0xC0 <= marker <= 0xFE or 0xD0 <= marker <= 0xDA:  # no segment that may stand here
            break
        metadata |= marker == 0xE1
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None, "", False


def resize_picture(pixels_HW3: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize by Pillow's antialiased bicubic filter (CLIP's own). Takes and returns uint8; the result is 3 x height x width."""
    return np.asarray(Image.fromarray(pixels_HW3).resize((width, height), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def read_pictures(paths: Sequence[Path | str], height: int, width: int) -> np.ndarray:
    """Decode and resize picture files to uint8, len(paths) x 3 x height x width. HplError names a file that is no picture."""
    pictures = np.empty((len(paths), 3, height, width), np.uint8)
    for picture, path in zip(pictures, paths, strict=True):
        picture[:] = resize_picture(decode_picture(path), height, width)
    return pictures
