"""One picture of the synthetic world: a pedestrian before a camera's scene, cropped as a detector would.

Every random choice comes from `default_rng([seed, world, person, index])`, so a picture is a function of its
`Shot` alone: neither the order of rendering nor the number of processes can change it.
"""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from hpl.synthetic.cameras import SCENE_SIZE, SCENES_PER_CAMERA, make_camera, make_scene
from hpl.synthetic.figure import PARTS, BodyCanvas, draw_pedestrian
from hpl.synthetic.people import CLOTHES_COLOURS, Identity, Instance, draw_identity, draw_instance

WORLDS = {"pretrain": 1, "caption": 2, "picture": 3}
_STRENGTHS = {"pretrain": 0.25, "caption": 0.35, "picture": 0.5}  # of the cameras' distortions
_CANVAS_SIZE = (224, 320)  # px, width and height; about twice the finished picture
_BODY_HEIGHT = 236  # px on the canvas
_VISIBLE_SHARE = {
    "skin": 0.004, "hair": 0.003, "hair_shape": 0.0012, "hat": 0.003, "top": 0.04, "logo": 0.002, "inner": 0.006,
    "sleeves": 0.006, "bottom": 0.02, "shoes": 0.003, "bag": 0.007, "umbrella": 0.015, "phone": 0.0008,
    "bicycle": 0.012,
}  # fmt: skip  # of the crop's area, for a part to count as visible
_LIGHT_GAIN = {"sun": (1.14, 1.10, 1.02), "shade": (0.90, 0.92, 0.97), "night": (0.68, 0.65, 0.60)}


@dataclass(frozen=True, kw_only=True)
class Shot:
    """What a picture is a function of. `subject` is person, fragment (a bad box of one) or background."""

    seed: int
    world: str
    person: int
    index: int
    camid: int
    subject: str = "person"


@dataclass(frozen=True)
class Picture:
    """A finished picture (RGB, 100-170 px high) with all that is known of it."""

    image: Image.Image
    quality: int  # JPEG quality it should be stored at
    identity: Identity | None
    instance: Instance | None
    place: str
    visible: dict[str, bool]


def render(shot: Shot) -> Picture:
    """Render one shot; equal shots give equal pixels."""
    world = WORLDS[shot.world]
    rng = np.random.default_rng([shot.seed, world, shot.person, shot.index])
    place, scene = make_scene(shot.seed, world, shot.camid, int(rng.integers(SCENES_PER_CAMERA)))
    image, parts = _window(scene, rng), Image.new("L", _CANVAS_SIZE, 0)
    identity = instance = None
    if shot.subject != "background":
        identity, instance = draw_identity(shot.seed, shot.person), draw_instance(rng)
        _place_person(image, parts, identity, instance, rng)
        _occlude(image, parts, instance, shot, rng)
    box = _box(instance, shot.subject, rng)
    image, parts = image.crop(box), parts.crop(box)
    height = int(rng.integers(110, 161))
    size = (round(height * image.width / image.height * rng.uniform(0.94, 1.06)), height)
    image = _expose(image, size, shot, instance.light if instance else "shade", rng)
    return Picture(image, int(rng.integers(60, 93)), identity, instance, place, _visible(parts))


def _window(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    x = int(rng.integers(SCENE_SIZE[0] - _CANVAS_SIZE[0] + 1))
    y = int(rng.integers(SCENE_SIZE[1] - _CANVAS_SIZE[1] + 1))
    window = scene.crop((x, y, x + _CANVAS_SIZE[0], y + _CANVAS_SIZE[1]))
    return window.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else window


def _place_person(image: Image.Image, parts: Image.Image, identity: Identity, instance: Instance, rng) -> None:
    middle, feet = _CANVAS_SIZE[0] / 2, 302
    if instance.light == "sun":
        reach = int(rng.integers(30, 70))
        ImageDraw.Draw(image).ellipse((middle - 25, feet - 9, middle + reach, feet + 7), fill=(62, 60, 60))
    mirror = instance.viewpoint == "left" or (instance.viewpoint in ("front", "back") and rng.random() < 0.5)
    canvas = BodyCanvas(image, parts, origin=(middle, feet - _BODY_HEIGHT), scale=_BODY_HEIGHT, mirror=mirror)
    draw_pedestrian(canvas, identity, instance)


def _occlude(image: Image.Image, parts: Image.Image, instance: Instance, shot: Shot, rng) -> None:
    """Put a pole, a passer-by or a car between the person and the camera."""
    width, height = _CANVAS_SIZE
    tone = list(CLOTHES_COLOURS.values())[int(rng.integers(len(CLOTHES_COLOURS)))]
    side = -1 if rng.random() < 0.5 else 1
    if instance.occlusion == "person":
        other = Image.new("L", _CANVAS_SIZE, 0)
        origin = (width / 2 + side * rng.uniform(56, 78), 74 + rng.uniform(0, 14))
        stranger = draw_identity(shot.seed, 1_000_000 + int(rng.integers(1_000_000)))
        canvas = BodyCanvas(image, other, origin=origin, scale=_BODY_HEIGHT * 1.05, mirror=side > 0)
        draw_pedestrian(canvas, stranger, _bare(draw_instance(rng)))
        parts.paste(PARTS.index("occluder"), (0, 0), other.point([0] + [255] * 255))
    elif instance.occlusion == "pole":
        x, half = width / 2 + side * rng.uniform(8, 40), rng.uniform(6, 11)
        _block(image, parts, [(x - half, 0), (x + half, 0), (x + half, height), (x - half, height)], (92, 94, 96))
    elif instance.occlusion == "car":
        top = rng.uniform(215, 250)
        _block(image, parts, [(0, top + 12), (30, top), (width, top + 4), (width, height), (0, height)], tone)
        ImageDraw.Draw(image).line((0, top + 26, width, top + 20), fill=(40, 42, 46), width=5)


def _bare(instance: Instance) -> Instance:
    """Repeat a sighting with nothing carried."""
    return replace(instance, bag="none", bag_colour="none", umbrella_colour="none", bicycle_colour="none", phone=False)


def _block(image: Image.Image, parts: Image.Image, points: list[tuple[float, float]], colour) -> None:
    ImageDraw.Draw(image).polygon(points, fill=colour)
    ImageDraw.Draw(parts).polygon(points, fill=PARTS.index("occluder"))


def _box(instance: Instance | None, subject: str, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw a detector's box on the canvas: left, top, right, bottom in px, never quite right."""
    middle, top, bottom, half = _CANVAS_SIZE[0] / 2, 302.0 - _BODY_HEIGHT, 306.0, 58.0
    if instance and instance.umbrella_colour != "none":
        top -= 30
    if instance and instance.bicycle_colour != "none":
        half += 24
    elif instance and instance.bag == "suitcase":
        half += 8
    top, bottom = top + rng.normal(-9, 5), bottom + rng.normal(3, 5)
    left, right = middle - half + rng.normal(0, 8), middle + half + rng.normal(0, 8)
    if instance and instance.occlusion == "crop":
        bottom -= rng.uniform(45, 100)
    if subject == "fragment":
        shift = rng.uniform(55, 95) * (-1 if rng.random() < 0.5 else 1)
        left, right = left + shift, right + shift
        if rng.random() < 0.5:
            top, bottom = top + 110, bottom + 110
    left, right = max(0, int(left)), min(_CANVAS_SIZE[0], int(right))
    return left, max(0, int(top)), max(right, left + 40), min(_CANVAS_SIZE[1], int(bottom))


def _expose(image: Image.Image, size: tuple[int, int], shot: Shot, light: str, rng: np.random.Generator) -> Image.Image:
    """Apply light, then the camera: colour matrix, gamma and lost detail at the sensor; `size` and noise after it."""
    camera = make_camera(shot.seed, WORLDS[shot.world], shot.camid, _STRENGTHS[shot.world])
    detail = camera.detail * rng.uniform(0.8, 1.0)
    image = image.resize((max(24, round(size[0] * detail)), max(48, round(size[1] * detail))), Image.Resampling.BOX)
    gains = np.array(_LIGHT_GAIN[light]) * np.exp(rng.normal(0, 0.06) + rng.normal(0, 0.05, size=3))
    matrix = np.array(camera.matrix).reshape(3, 4) * np.append(gains, 1.0)
    gamma = camera.gamma * np.exp(rng.normal(0, 0.05))
    curve = (255 * (np.arange(256) / 255) ** gamma).astype(int).tolist()
    image = image.convert("RGB", tuple(matrix.ravel())).point(curve * 3).resize(size, Image.Resampling.BILINEAR)
    slope = np.linspace(-1, 1, size[0], dtype=np.float32)[None, :, None] * np.float32(rng.uniform(-0.14, 0.14))
    pixels = np.asarray(image, dtype=np.float32) * (1 + slope)
    sigma = np.float32(camera.noise * (1.6 if light == "night" else 1.0))
    pixels += sigma * rng.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _visible(parts: Image.Image) -> dict[str, bool]:
    """Tell which parts of the person cover enough of the crop to be seen."""
    counts = parts.histogram()
    area = parts.width * parts.height
    return {name: counts[PARTS.index(name)] / area >= share for name, share in _VISIBLE_SHARE.items()}
