"""Who walks through the synthetic world, and what each picture adds to them.

An `Identity` stays with a person for good; an `Instance` is drawn anew for a sighting. Image-to-image
retrieval must ignore the second, text-to-image retrieval needs both. Tables map a value to its weight.
"""

from bisect import bisect
from dataclasses import asdict, dataclass, replace
from itertools import accumulate

import numpy as np

CLOTHES_COLOURS = {
    "black": (28, 28, 31),
    "white": (232, 232, 228),
    "grey": (128, 129, 132),
    "dark blue": (32, 42, 88),
    "blue": (42, 88, 178),
    "light blue": (140, 184, 222),
    "red": (196, 36, 42),
    "dark red": (108, 26, 38),
    "green": (52, 146, 72),
    "dark green": (44, 72, 48),
    "yellow": (226, 196, 48),
    "orange": (224, 118, 34),
    "pink": (228, 142, 172),
    "purple": (112, 62, 142),
    "brown": (98, 66, 44),
    "beige": (198, 178, 142),
}
HAIR_COLOURS = {
    "black": (24, 21, 22),
    "brown": (84, 54, 34),
    "blonde": (204, 168, 98),
    "grey": (158, 156, 154),
    "red": (146, 62, 28),
}
SKIN_COLOURS = {"light": (232, 192, 166), "tan": (196, 148, 112), "dark": (112, 76, 56)}

_GENDERS = {"man": 1, "woman": 1}
_BUILDS = {"slim": 3, "average": 5, "heavy": 2}
_HEIGHTS = {"short": 2, "average": 5, "tall": 2}
_SKINS = {"light": 6, "tan": 3, "dark": 2}
_HAIR = {
    "man": {"short": 14, "bald": 2, "curly": 2, "long": 1},
    "woman": {"long": 8, "ponytail": 5, "bun": 2, "short": 3, "curly": 2},
}
_HAIR_COLOUR = {"black": 10, "brown": 6, "blonde": 3, "grey": 2, "red": 1}
_HATS = {"none": 16, "cap": 3, "beanie": 1}
_HAT_COLOUR = {"black": 6, "white": 3, "grey": 2, "red": 3, "dark blue": 3, "blue": 1, "green": 1, "beige": 1}
_TOPS = {
    "man": {"t-shirt": 10, "shirt": 6, "sweater": 5, "jacket": 6, "coat": 2, "vest": 1},
    "woman": {"t-shirt": 7, "shirt": 4, "sweater": 5, "jacket": 5, "coat": 4, "vest": 2, "dress": 5},
}
_TOP_COLOUR = {
    "black": 22, "white": 15, "grey": 12, "dark blue": 12, "blue": 7, "light blue": 4, "red": 7, "dark red": 4,
    "green": 4, "dark green": 4, "yellow": 4, "orange": 3, "pink": 5, "purple": 3, "brown": 4, "beige": 5,
}  # fmt: skip
_PATTERNS = {
    "t-shirt": {"plain": 8, "stripes": 4, "dots": 1, "logo": 5, "sleeves": 3},
    "shirt": {"plain": 6, "stripes": 2, "checks": 5, "dots": 1},
    "sweater": {"plain": 8, "stripes": 4, "logo": 3, "sleeves": 2},
    "jacket": {"plain": 6, "inner": 8, "sleeves": 3},
    "coat": {"plain": 6, "inner": 3, "checks": 1},
    "vest": {"plain": 5, "stripes": 1, "logo": 1},
    "dress": {"plain": 6, "stripes": 2, "checks": 2, "dots": 3},
}
_SECOND_COLOUR = {"white": 10, "black": 8, "grey": 4, "red": 4, "blue": 3, "yellow": 3, "dark blue": 2, "green": 1}
_BOTTOMS = {
    "man": {"trousers": 9, "jeans": 8, "shorts": 6},
    "woman": {"trousers": 5, "jeans": 7, "shorts": 4, "skirt": 5, "leggings": 4},
}
_BOTTOM_COLOUR = {
    "trousers": {"black": 10, "grey": 5, "dark blue": 4, "beige": 4, "brown": 3, "white": 2, "dark green": 2},
    "jeans": {"blue": 6, "dark blue": 6, "black": 3, "light blue": 4, "grey": 1},
    "shorts": {"black": 5, "grey": 3, "blue": 4, "beige": 4, "white": 2, "red": 2, "dark green": 2},
    "skirt": {"black": 5, "red": 2, "dark blue": 3, "white": 3, "pink": 2, "grey": 2, "yellow": 1},
    "leggings": {"black": 6, "grey": 2, "dark blue": 2, "purple": 1},
}
_BOTTOM_PATTERNS = {
    "trousers": {"plain": 6, "side stripe": 1},
    "jeans": {"plain": 1},
    "shorts": {"plain": 5, "checks": 1, "side stripe": 1},
    "skirt": {"plain": 4, "checks": 1},
    "leggings": {"plain": 5, "side stripe": 1},
}
_SHOES = {"sneakers": 6, "shoes": 4, "boots": 2}
_SHOES_COLOUR = {
    "sneakers": {"white": 8, "black": 5, "grey": 3, "red": 2, "blue": 2, "pink": 1, "yellow": 1},
    "shoes": {"black": 7, "brown": 4, "white": 2, "red": 1},
    "boots": {"black": 5, "brown": 4, "beige": 1},
}

_BAGS = {"none": 38, "backpack": 19, "handbag": 11, "shoulder bag": 13, "plastic bag": 10, "suitcase": 9}
_BAG_COLOUR = {
    "backpack": {"black": 7, "blue": 3, "red": 3, "grey": 2, "green": 2, "yellow": 1, "pink": 1},
    "handbag": {"black": 5, "brown": 4, "red": 3, "white": 2, "beige": 1, "pink": 1},
    "shoulder bag": {"black": 6, "brown": 4, "beige": 2, "red": 1, "blue": 1, "white": 1},
    "plastic bag": {"white": 6, "red": 2, "blue": 1, "yellow": 1, "green": 1},
    "suitcase": {"black": 4, "grey": 2, "red": 2, "blue": 2, "purple": 1, "orange": 1},
}
_UMBRELLA_COLOUR = {"black": 4, "red": 3, "blue": 3, "yellow": 1, "purple": 1, "green": 1, "pink": 1}
_BICYCLE_COLOUR = {"black": 3, "red": 2, "blue": 2, "green": 1, "white": 1}
_VIEWPOINTS = {"front": 3, "back": 3, "left": 2, "right": 2}
_OCCLUSIONS = {"none": 84, "pole": 6, "person": 7, "car": 6, "crop": 7}
_LIGHTS = {"sun": 4, "shade": 4, "night": 1}
_UMBRELLA_RATE, _PHONE_RATE, _BICYCLE_RATE = 0.09, 0.13, 0.06

LOOKALIKE_GROUP = 3  # people in a row, of whom the later may dress like the first
_LOOKALIKE_RATE = 0.1  # share of those who do
_PERSON_STREAM = 9  # first word of the identity seed, apart from the worlds' (see render.WORLDS)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What stays with a person across views; colours are names from the tables above."""

    gender: str
    build: str
    height: str
    skin: str
    hair: str
    hair_colour: str
    hat: str
    hat_colour: str
    top: str
    top_colour: str
    top_pattern: str
    second_colour: str
    bottom: str
    bottom_colour: str
    bottom_pattern: str
    shoes: str
    shoes_colour: str
    tints: tuple[int, ...]  # RGB offsets of this person's own dyes: top, bottom, hair (9 numbers)


@dataclass(frozen=True, kw_only=True)
class Instance:
    """What one sighting adds: things carried, pose, and how the person was caught."""

    bag: str
    bag_colour: str
    umbrella_colour: str
    bicycle_colour: str
    phone: bool
    viewpoint: str
    phase: float  # gait, radians
    occlusion: str
    light: str


def choose(rng: np.random.Generator, table: dict[str, int]) -> str:
    """Draw a key of `table` with probability proportional to its weight."""
    bounds = list(accumulate(table.values()))
    return list(table)[bisect(bounds, rng.random() * bounds[-1])]


def draw_identity(seed: int, number: int) -> Identity:
    """Draw the person `number` of the world `seed`; many differ in little from their group's first."""
    rng = np.random.default_rng([seed, _PERSON_STREAM, number])
    own = _dress(rng)
    if number % LOOKALIKE_GROUP == 0 or rng.random() >= _LOOKALIKE_RATE:
        return own
    double = draw_identity(seed, number - number % LOOKALIKE_GROUP)
    aspects = [
        ("hair", "hair_colour"),
        ("hat", "hat_colour"),
        ("top_colour",),
        ("bottom", "bottom_colour", "bottom_pattern"),
        ("shoes", "shoes_colour"),
        ("build", "height", "skin"),
    ]
    if own.gender != double.gender or "dress" in (own.top, double.top):
        aspects = [aspect for aspect in aspects if aspect[0] not in ("hair", "bottom")]
    picked = rng.choice(len(aspects), size=2, replace=False)
    changes = {name: getattr(own, name) for index in picked for name in aspects[index]}
    if changes.get("top_colour") == double.second_colour:
        changes.pop("top_colour")
    return replace(double, tints=own.tints, **changes)


def draw_instance(rng: np.random.Generator) -> Instance:
    """Draw everything about a sighting that says nothing about who it is."""
    bag = choose(rng, _BAGS)
    bicycle = rng.random() < _BICYCLE_RATE
    umbrella = not bicycle and rng.random() < _UMBRELLA_RATE
    if bicycle and bag not in ("none", "backpack", "shoulder bag"):
        bag = "none"
    return Instance(
        bag=bag,
        bag_colour=choose(rng, _BAG_COLOUR[bag]) if bag != "none" else "none",
        umbrella_colour=choose(rng, _UMBRELLA_COLOUR) if umbrella else "none",
        bicycle_colour=choose(rng, _BICYCLE_COLOUR) if bicycle else "none",
        phone=bool(not bicycle and rng.random() < _PHONE_RATE),
        viewpoint=choose(rng, _VIEWPOINTS),
        phase=round(float(rng.uniform(0, 2 * np.pi)), 3),
        occlusion=choose(rng, _OCCLUSIONS),
        light=choose(rng, _LIGHTS),
    )


def attributes(identity: Identity, instance: Instance) -> dict[str, dict]:
    """Turn both halves into plain dictionaries, for attributes.json."""
    return {"identity": asdict(identity) | {"tints": list(identity.tints)}, "instance": asdict(instance)}


def _dress(rng: np.random.Generator) -> Identity:
    gender = choose(rng, _GENDERS)
    hair, hat, top = choose(rng, _HAIR[gender]), choose(rng, _HATS), choose(rng, _TOPS[gender])
    top_colour, pattern = choose(rng, _TOP_COLOUR), choose(rng, _PATTERNS[top])
    second = {colour: weight for colour, weight in _SECOND_COLOUR.items() if colour != top_colour}
    bottom = "none" if top == "dress" else choose(rng, _BOTTOMS[gender])
    shoes = choose(rng, _SHOES)
    return Identity(
        gender=gender,
        build=choose(rng, _BUILDS),
        height=choose(rng, _HEIGHTS),
        skin=choose(rng, _SKINS),
        hair=hair,
        hair_colour="none" if hair == "bald" else choose(rng, _HAIR_COLOUR),
        hat=hat,
        hat_colour="none" if hat == "none" else choose(rng, _HAT_COLOUR),
        top=top,
        top_colour=top_colour,
        top_pattern=pattern,
        second_colour="none" if pattern == "plain" else choose(rng, second),
        bottom=bottom,
        bottom_colour="none" if bottom == "none" else choose(rng, _BOTTOM_COLOUR[bottom]),
        bottom_pattern="none" if bottom == "none" else choose(rng, _BOTTOM_PATTERNS[bottom]),
        shoes=shoes,
        shoes_colour=choose(rng, _SHOES_COLOUR[shoes]),
        tints=tuple(int(tint) for tint in rng.normal(0, 9, size=9).clip(-20, 20)),
    )
