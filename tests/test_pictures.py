"""Every kind of picture decodes as Pillow has it; every bad file is an HplError that names it, whatever its bytes are."""

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from hpl.files import HplError
from hpl.pictures import MAX_PIXELS, decode_bytes, decode_picture, read_pictures, resize_picture
from tests.support.pictures import picture, save

RGB = picture(1, (18, 30))
EXIF = Image.Exif()
EXIF[0x0112] = 6  # lies on its side


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    with warnings.catch_warnings(action="ignore"):
        return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def with_xmp(data: bytes) -> bytes:
    """A JPEG whose orientation stands in XMP alone."""
    packet = (
        b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    )
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(packet) + 2) + packet + data[2:]


KINDS = {
    "jpeg": encoded(RGB, "JPEG", quality=90),
    "jpeg 4:4:4": encoded(RGB, "JPEG", subsampling=0),
    "jpeg 4:2:2": encoded(RGB, "JPEG", subsampling=1),
    "jpeg 4:2:0": encoded(RGB, "JPEG", subsampling=2),
    "jpeg progressive": encoded(RGB, "JPEG", progressive=True),
    "jpeg restarts": encoded(RGB, "JPEG", restart_marker_rows=1),
    "jpeg grey": encoded(RGB.convert("L"), "JPEG"),
    "jpeg stored as rgb": encoded(RGB, "JPEG", keep_rgb=True),
    "jpeg cmyk": encoded(RGB.convert("CMYK"), "JPEG"),
    "jpeg exif": encoded(RGB, "JPEG", exif=EXIF),
    "jpeg xmp": with_xmp(encoded(RGB, "JPEG")),
    "jpeg, bytes after the end": encoded(RGB, "JPEG") + b"\0\0trailing",
    "jpeg, bytes between segments": encoded(RGB, "JPEG")[:20] + b"abc" + encoded(RGB, "JPEG")[20:],
    "mpo": encoded(RGB, "MPO", save_all=True, append_images=[picture(2, (18, 30))]),
    "png": encoded(RGB, "PNG"),
    "png exif": encoded(RGB, "PNG", exif=EXIF),
    "png 1 bit": encoded(RGB.convert("1"), "PNG"),
    "png grey": encoded(RGB.convert("L"), "PNG"),
    "png grey with alpha": encoded(RGB.convert("LA"), "PNG"),
    "png palette": encoded(RGB.quantize(16), "PNG"),
    "png palette, transparent colour": encoded(RGB.quantize(16), "PNG", transparency=3),
    "png palette, alpha": encoded(RGB.quantize(16), "PNG", transparency=bytes(range(0, 256, 16))),
    "png transparent colour": encoded(RGB, "PNG", transparency=(10, 20, 30)),
    "bmp": encoded(RGB, "BMP"),
    "gif": encoded(RGB, "GIF"),
    "tiff": encoded(RGB, "TIFF", compression="tiff_lzw"),
    "tiff exif": encoded(RGB, "TIFF", exif=EXIF),
    "webp": encoded(RGB, "WEBP"),
    "ppm": encoded(RGB, "PPM"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_pillows(kind: str) -> None:
    with warnings.catch_warnings(action="error"):
        pixels = decode_bytes(KINDS[kind], kind)
    assert pixels.dtype == np.uint8 and pixels.flags.writeable and pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, by_pillow(KINDS[kind]))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (7, 1), (17, 33), (64, 128), (500, 3)])
@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2, "progressive": True}, {"quality": 15}])
def test_jpeg_of_any_size(size: tuple[int, int], options: dict) -> None:
    data = encoded(picture(3, size), "JPEG", **options)
    np.testing.assert_array_equal(decode_bytes(data, "x"), by_pillow(data))


def test_alpha_is_dropped_and_not_blended() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4), dtype=np.uint8)
    np.testing.assert_array_equal(decode_bytes(encoded(Image.fromarray(pixels), "PNG"), "x"), pixels[:, :, :3])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_pictures_stand_upright(orientation: int, form: str) -> None:
    """Red in the corner that each orientation brings to the top left."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(RGB, form, exif=exif)
    pixels = decode_bytes(data, "x")
    assert pixels.shape == ((30, 18, 3) if orientation < 5 else (18, 30, 3))
    np.testing.assert_array_equal(pixels, by_pillow(data))


def test_rotation_by_hand() -> None:
    stored = np.zeros((2, 3, 3), np.uint8)
    stored[0, 0] = 255  # orientation 6: the first stored row is the right-hand column of the upright picture
    assert decode_bytes(encoded(Image.fromarray(stored), "PNG", exif=EXIF), "x")[:, :, 0].tolist() == [[0, 255], [0, 0], [0, 0]]


def test_an_unreadable_exif_block_turns_nothing() -> None:
    data = encoded(RGB, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert decode_bytes(data, "x").shape == (30, 18, 3)


def test_the_first_frame_of_an_animation() -> None:
    frames = [picture(number, (8, 8)).quantize(8) for number in (1, 2)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode_bytes(data, "x"), np.asarray(frames[0].convert("RGB")))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(form: str) -> None:
    values = np.array([[0, 128, 129, 256, 257, 32768, 65278, 65535]], np.uint16)
    pixels = decode_bytes(encoded(Image.fromarray(values), form), "x")
    assert pixels.shape == (1, 8, 3) and (pixels == pixels[:, :, :1]).all()
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 1, 1, 128, 254, 255]


def test_wider_greys_are_read_as_sixteen_bits() -> None:
    values = np.array([[-5, 0, 257, 65535, 70000]], np.int32)
    assert decode_bytes(encoded(Image.fromarray(values), "TIFF"), "x")[0, :, 0].tolist() == [0, 0, 1, 255, 255]


def test_floating_point_pictures_are_refused_for_their_scale_is_anybodys_guess() -> None:
    with pytest.raises(HplError, match="x: picture of floating-point values"):
        decode_bytes(encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), "x")


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    file = save(RGB, tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(decode_picture(file), np.asarray(RGB))


def png_of(width: int, height: int) -> bytes:
    """A small PNG whose header claims a size."""
    data = encoded(RGB, "PNG")
    header = b"IHDR" + struct.pack(">2I", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def jpeg_of(width: int, height: int, **options: object) -> bytes:
    data = encoded(RGB, "JPEG", **options)
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">2H", height, width) + data[at + 4 :]


def bmp_of(width: int, height: int) -> bytes:
    data = encoded(RGB, "BMP")
    return data[:18] + struct.pack("<2i", width, height) + data[26:]


BAD = {
    "empty": (b"", r"empty file \(0 bytes\)"),
    "text": (b"<html>404</html>", r"not a picture \(16 bytes\); expected JPEG or PNG"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    "zeros": (bytes(4000), r"not a picture \(4000 bytes\)"),
    "truncated jpeg": (KINDS["jpeg"][:-60], "damaged picture"),
    "jpeg without its last bytes, padded": (KINDS["jpeg"][:-60] + bytes(60), "damaged picture"),
    "half a jpeg": (KINDS["jpeg"][: len(KINDS["jpeg"]) // 2], "damaged picture"),
    "header of a jpeg": (KINDS["jpeg"][:100], "damaged picture"),
    "two bytes of a jpeg": (b"\xff\xd8", "damaged picture"),
    "truncated progressive jpeg": (KINDS["jpeg progressive"][:-60], "damaged picture"),
    "truncated cmyk": (KINDS["jpeg cmyk"][:-60], "damaged picture"),
    "truncated png": (KINDS["png"][:-60], "damaged picture"),
    "half a png": (KINDS["png"][: len(KINDS["png"]) // 2], "damaged picture"),
    "header of a png": (KINDS["png"][:20], "damaged picture"),
    "png with a wrong checksum": (KINDS["png"][:60] + b"\x55" + KINDS["png"][61:], "damaged picture"),
    "truncated bmp": (KINDS["bmp"][:-60], "damaged picture"),
    "truncated webp": (KINDS["webp"][:-60], "damaged picture"),
    "empty jpeg": (jpeg_of(0, 30), "damaged picture"),
    "empty png": (png_of(18, 0), "damaged picture"),
    "png bomb": (png_of(40_000, 40_000), f"picture of 40000 x 40000 pixels; expected at most {MAX_PIXELS} pixels"),
    "largest png": (png_of(2**31 - 1, 2**31 - 1), f"picture of {2**31 - 1} x {2**31 - 1} pixels"),
    "jpeg bomb": (jpeg_of(65_000, 65_000), "picture of 65000 x 65000 pixels; expected at most"),
    "jpeg bomb with exif": (jpeg_of(65_000, 65_000, exif=EXIF), "picture of 65000 x 65000 pixels; expected at most"),
    "a little too large": (jpeg_of(10_001, 5_000), "picture of 10001 x 5000 pixels; expected at most"),
    "bmp bomb": (bmp_of(10_000, 9_500), "picture of 10000 x 9500 pixels; expected at most"),
    "larger bmp bomb": (bmp_of(40_000, 40_000), f"picture of too many pixels; expected at most {MAX_PIXELS}"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_named_with_what_is_wrong(kind: str, tmp_path: Path) -> None:
    data, message = BAD[kind]
    file = tmp_path / "some where.jpg"
    file.write_bytes(data)
    with warnings.catch_warnings(action="error"), pytest.raises(HplError, match=f"^{file}: {message}"):
        decode_picture(file)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: None, "picture not found"),
        (lambda file: file.symlink_to(file.with_name("gone.jpg")), "picture not found"),
        (lambda file: file.symlink_to(file), "picture not found"),
        (lambda file: file.mkdir(), "picture not found"),
        (os.mkfifo, "picture not found"),
    ],
    ids=["missing", "broken link", "link to itself", "folder", "pipe"],
)
def test_no_file(make: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    make(file)
    with pytest.raises(HplError, match=f"^{file}: {message}"):
        decode_picture(file)


@pytest.mark.parametrize("name", ["a.jpg/b.jpg", "nul\0.jpg", "half \ud800.jpg"])
def test_a_name_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(KINDS["jpeg"])
    with pytest.raises(HplError, match="picture not found"):
        decode_picture(tmp_path / name)


def check_any_bytes(data: bytes) -> None:
    try:
        pixels = decode_bytes(data, "the file")
    except HplError as error:
        assert str(error).startswith("the file: ")
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size


SMALL = st.sampled_from([kind for kind in KINDS if not kind.startswith("tiff")])  # libtiff writes to stderr


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(SMALL, st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8), st.floats(0, 1))
def test_changed_bytes_never_escape(kind: str, changes: list[tuple[float, int]], end: float) -> None:
    data = bytearray(KINDS[kind])
    for place, value in changes:
        data[int(place * len(data))] = value
    check_any_bytes(bytes(data if end > 0.5 else data[: int(2 * end * len(data))]))


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(SMALL, st.integers(2, 64), st.binary(max_size=40))
def test_changed_headers_never_escape(kind: str, length: int, replacement: bytes) -> None:
    check_any_bytes(KINDS[kind][:length] + replacement + KINDS[kind][length + len(replacement) :])


def test_a_truncated_jpeg_never_passes() -> None:
    for kind in ("jpeg", "jpeg progressive", "jpeg grey", "jpeg exif"):
        data = KINDS[kind]
        for length in range(1, len(data) - 8, 7):
            with pytest.raises(HplError):
                decode_bytes(data[:length], "x")


@pytest.mark.parametrize("kind", ["jpeg", "jpeg grey", "jpeg exif", "jpeg xmp", "jpeg cmyk"])
def test_a_jpeg_cut_in_half_with_an_end_mark_never_passes(kind: str) -> None:
    data = KINDS[kind]
    with pytest.raises(HplError, match="damaged picture"):
        decode_bytes(data[: len(data) * 9 // 10] + b"\xff\xd9", "x")


def test_read_pictures(tmp_path: Path) -> None:
    files = [save(picture(number, (10 + number, 20)), tmp_path / f"{number}.png") for number in range(3)]
    pictures = read_pictures([str(file) for file in files], 24, 12)
    assert pictures.shape == (3, 3, 24, 12) and read_pictures([], 24, 12).shape == (0, 3, 24, 12)
    for number, file in enumerate(files):
        np.testing.assert_array_equal(pictures[number], resize_picture(decode_picture(file), 24, 12))
