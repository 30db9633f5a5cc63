"""Cameras of the synthetic worlds: what each looks at, and how it distorts colour and detail.

A camera is a function of (seed, world, camid) alone. Its colour cast is spread over the hue circle by camid,
so that under every seed two cameras disagree on what a colour looks like.
"""

from dataclasses import dataclass
from functools import cache
from math import cos, pi

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

_PLACES = ("street", "grass", "wall", "shop", "crossing", "plaza")
SCENE_SIZE = (480, 380)  # px, width and height; larger than any canvas, so that windows differ
_HORIZON = 170  # px from the top of a scene
SCENES_PER_CAMERA = 3
_CAMERA_STREAM, _SCENE_STREAM = 7, 8  # first words of seeds, apart from the worlds' (see render.WORLDS)
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True, kw_only=True)
class Camera:
    """How a camera distorts: `matrix` maps RGB to RGB in Pillow's 12-number form, the rest follows it."""

    matrix: tuple[float, ...]
    gamma: float
    noise: float  # standard deviation, of 255
    detail: float  # share of the finished picture's resolution that survives


@cache
def make_camera(seed: int, world: int, camid: int, strength: float) -> Camera:
    """Make the camera `camid`; `strength` scales its cast, contrast, gamma, noise and lost detail (0: a perfect one)."""
    rng = np.random.default_rng([seed, _CAMERA_STREAM, world, camid])
    hue = 2.4 * camid + rng.uniform(-0.3, 0.3)  # radians; 2.4 is the golden angle
    cast = np.array([cos(hue + turn * 2 * pi / 3) for turn in range(3)])
    gains = np.exp(strength * (0.10 * cast + rng.uniform(-0.16, 0.16)))
    saturation = 1 + strength * rng.uniform(-0.35, 0.15)
    contrast = 1 + strength * rng.uniform(-0.32, 0.10)
    mix = saturation * np.eye(3) + (1 - saturation) * _LUMA
    matrix = contrast * gains[:, None] * mix
    lift = 128 * (1 - contrast) * gains + strength * 10 * rng.uniform(-1, 1, size=3)
    return Camera(
        matrix=tuple(float(value) for value in np.hstack([matrix, lift[:, None]]).ravel()),
        gamma=float(np.exp(strength * rng.uniform(-0.25, 0.25))),
        noise=2 + strength * rng.uniform(0, 4),
        detail=1 - strength * rng.uniform(0.05, 0.38),
    )


@cache
def make_scene(seed: int, world: int, camid: int, index: int) -> tuple[str, Image.Image]:
    """Draw the place and the empty view number `index` of a camera, `SCENE_SIZE` px. Do not draw on it: copy it."""
    rng = np.random.default_rng([seed, _SCENE_STREAM, world, camid, index])
    place = _PLACES[int(rng.integers(len(_PLACES)))]
    image = Image.new("RGB", SCENE_SIZE, _tone(rng, (120, 118, 114), 34))
    draw = ImageDraw.Draw(image)
    _draw_far(draw, place, rng)
    _draw_ground(draw, place, rng)
    _draw_clutter(draw, rng)
    image = image.filter(ImageFilter.GaussianBlur(1.5))
    grain = rng.normal(0, 5, size=(SCENE_SIZE[1], SCENE_SIZE[0], 1))
    return place, Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def _draw_far(draw: ImageDraw.ImageDraw, place: str, rng: np.random.Generator) -> None:
    width = SCENE_SIZE[0]
    if place == "grass":
        draw.rectangle((0, 0, width, _HORIZON), fill=_tone(rng, (78, 104, 66), 18))
        for _ in range(40):
            x, y, radius = (int(rng.integers(*ends)) for ends in ((0, width), (0, _HORIZON), (12, 50)))
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_tone(rng, (62, 92, 52), 22))
    elif place == "wall":
        brick = _tone(rng, (150, 96, 76), 36)
        draw.rectangle((0, 0, width, _HORIZON + 60), fill=_tone(rng, (170, 160, 150), 12))
        for row, y in enumerate(range(0, _HORIZON + 60, 14)):
            for x in range(-15 * (row % 2), width, 30):
                draw.rectangle((x, y, x + 27, y + 11), fill=_tone(rng, brick, 10))
    elif place == "shop":
        draw.rectangle((0, 0, width, _HORIZON + 40), fill=_tone(rng, (92, 84, 88), 30))
        for x in range(10, width, 110):
            draw.rectangle((x, 40, x + 95, _HORIZON + 25), fill=_tone(rng, (206, 198, 172), 30))
            for _ in range(6):
                left, top = x + int(rng.integers(0, 75)), int(rng.integers(60, _HORIZON))
                draw.rectangle((left, top, left + 18, top + 24), fill=_tone(rng, (140, 120, 120), 80))
    else:
        for x in range(0, width, 80):
            draw.rectangle((x, 0, x + 80, _HORIZON), fill=_tone(rng, (150, 146, 142), 36))
            for y in range(8, _HORIZON - 20, 36):
                draw.rectangle((x + 12, y, x + 32, y + 22), fill=_tone(rng, (86, 96, 112), 24))
                draw.rectangle((x + 46, y, x + 66, y + 22), fill=_tone(rng, (86, 96, 112), 24))


def _draw_ground(draw: ImageDraw.ImageDraw, place: str, rng: np.random.Generator) -> None:
    width, height = SCENE_SIZE
    base = (96, 128, 68) if place == "grass" else (138, 134, 130)
    top = _HORIZON + {"wall": 60, "shop": 40}.get(place, int(rng.integers(-20, 30)))
    ground = _tone(rng, base, 30)
    draw.rectangle((0, top, width, height), fill=ground)
    if place == "crossing":
        for x in range(-40, width, 64):
            draw.polygon([(x, top + 40), (x + 30, top + 40), (x + 10, height), (x - 30, height)], fill=(222, 222, 216))
    elif place == "plaza":
        for y in range(top, height, 26):
            draw.line((0, y, width, y), fill=_tone(rng, (104, 100, 98), 8), width=2)
        for x in range(0, width, 44):
            draw.line((x, top, x - 30, height), fill=_tone(rng, (104, 100, 98), 8), width=2)
    elif place == "street":
        draw.line((0, top + 70, width, top + 95), fill=(206, 200, 168), width=6)
    elif place == "grass":
        for _ in range(140):
            x, y = int(rng.integers(0, width)), int(rng.integers(top, height))
            draw.line((x, y, x + 3, y - 9), fill=_tone(rng, ground, 26), width=2)


def _draw_clutter(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw signs, bins and bollards, in any colour."""
    for _ in range(int(rng.integers(3, 8))):
        x, y = int(rng.integers(0, SCENE_SIZE[0])), int(rng.integers(40, 260))
        w, h = int(rng.integers(8, 40)), int(rng.integers(20, 90))
        draw.rectangle((x, y, x + w, y + h), fill=_tone(rng, (128, 120, 116), 100))


def _tone(rng: np.random.Generator, colour: tuple[int, int, int], spread: int) -> tuple[int, int, int]:
    """Move `colour` by up to `spread` in brightness and a third of it in each channel."""
    common, own = rng.uniform(-spread, spread), rng.uniform(-spread / 3, spread / 3, size=3)
    red, green, blue = (int(min(250, max(5, channel + common + offset))) for channel, offset in zip(colour, own))
    return red, green, blue
