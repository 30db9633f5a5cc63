"""A posed pedestrian as polygons, ellipses and tapered limbs, on a picture and on a map of its parts.

Body coordinates: y runs from 0 (crown) to 1 (soles), x from the body's axis, both in body heights. Side views
are drawn facing +x; `BodyCanvas` mirrors them for the left. Whatever is drawn last hides what lies under it, on
the picture and on the map alike, so the map afterwards says what can be seen.
"""

from functools import cache
from math import cos, hypot, pi, sin

from PIL import Image, ImageChops, ImageDraw

from hpl.synthetic.people import CLOTHES_COLOURS, HAIR_COLOURS, SKIN_COLOURS, Identity, Instance

Point = tuple[float, float]
Colour = tuple[int, int, int]

PARTS = (
    "background", "skin", "hair", "hair_shape", "hat", "top", "logo", "inner", "sleeves", "bottom", "shoes",
    "bag", "umbrella", "phone", "bicycle", "occluder",
)  # fmt: skip
_PART_INDEX = {name: index for index, name in enumerate(PARTS)}

_BUILD_WIDTH = {"slim": 0.84, "average": 1.0, "heavy": 1.26}
_HEAD_HEIGHT = {"short": 0.152, "average": 0.137, "tall": 0.124}
_HIP_HEIGHT = {"short": 0.52, "average": 0.505, "tall": 0.485}
_SHOULDER_WIDTH = {"man": 0.122, "woman": 0.104}  # half of it
_HIP_WIDTH = {"man": 0.080, "woman": 0.090}
_HEM = {"t-shirt": 0.04, "shirt": 0.05, "sweater": 0.04, "jacket": 0.06, "coat": 0.22, "vest": 0.03, "dress": 0.20}
_SLEEVE = {"t-shirt": 0.6, "vest": 0.0, "dress": 0.45}  # share of the upper arm; tops not named reach the wrist
_LEG_WIDTH = {"trousers": 0.062, "jeans": 0.056, "shorts": 0.066, "leggings": 0.044, "skirt": 0.04, "none": 0.04}
_UPPER_ARM, _FORE_ARM = 0.155, 0.14
_PATTERN_TILE = 320  # px, no smaller than a canvas


class BodyCanvas:
    """A picture and its map of parts under one body's coordinate frame."""

    def __init__(self, image: Image.Image, parts: Image.Image, *, origin: Point, scale: float, mirror: bool):
        self.image, self.parts = image, parts
        self.origin, self.scale, self.sign = origin, scale, -1 if mirror else 1
        self._paint, self._mark = ImageDraw.Draw(image), ImageDraw.Draw(parts)

    def pixel(self, point: Point) -> Point:
        return (self.origin[0] + self.sign * point[0] * self.scale, self.origin[1] + point[1] * self.scale)

    def polygon(self, points: list[Point], colour: Colour, part: str, *, shaded: bool = False) -> None:
        """Fill a polygon; `shaded` leaves a darker border on its right (the light comes from the left)."""
        pixels = [self.pixel(point) for point in points]
        self._mark.polygon(pixels, fill=_PART_INDEX[part])
        if shaded:
            self._paint.polygon(pixels, fill=shade(colour, 0.68))
            left, right = min(x for x, _ in pixels), max(x for x, _ in pixels)
            keep = 1 - 0.22 * min(1.0, 30 / (right - left + 1))
            pixels = [(left + (x - left) * keep, y) for x, y in pixels]
        self._paint.polygon(pixels, fill=colour)

    def ellipse(self, centre: Point, radii: Point, colour: Colour, part: str) -> None:
        x, y = self.pixel(centre)
        rx, ry = radii[0] * self.scale, radii[1] * self.scale
        self._mark.ellipse((x - rx, y - ry, x + rx, y + ry), fill=_PART_INDEX[part])
        self._paint.ellipse((x - rx, y - ry, x + rx, y + ry), fill=colour)

    def ring(self, centre: Point, radii: Point, colour: Colour, part: str, width: float) -> None:
        x, y = self.pixel(centre)
        box = (x - radii[0] * self.scale, y - radii[1] * self.scale, x + radii[0] * self.scale, y + radii[1] * self.scale)
        thickness = max(1, round(width * self.scale))
        self._mark.ellipse(box, outline=_PART_INDEX[part], width=thickness)
        self._paint.ellipse(box, outline=colour, width=thickness)

    def line(self, points: list[Point], colour: Colour, part: str, width: float) -> None:
        pixels, thickness = [self.pixel(point) for point in points], max(1, round(width * self.scale))
        self._mark.line(pixels, fill=_PART_INDEX[part], width=thickness)
        self._paint.line(pixels, fill=colour, width=thickness)

    def limb(self, points: list[Point], widths: list[float], colour: Colour, part: str) -> None:
        """Draw a chain of tapered segments with round joints, darker on its right."""
        for dark in (True, False):
            tone = shade(colour, 0.7) if dark else colour
            for (start, end), (first, last) in zip(zip(points, points[1:]), zip(widths, widths[1:])):
                self._segment(start, end, first, last, tone, None if not dark else _PART_INDEX[part])

    def pattern(self, part: str, mask: Image.Image, colour: Colour) -> None:
        """Print `colour` through a pattern mask on all that is now visible of `part`."""
        index = _PART_INDEX[part]
        visible = self.parts.point([215 if value == index else 0 for value in range(256)])
        shifted = ImageChops.offset(mask, int(self.origin[0]) % 16, int(self.origin[1]) % 16)
        shifted = shifted.crop((0, 0, *visible.size))
        self.image.paste(colour, (0, 0), ImageChops.multiply(visible, shifted))

    def _segment(self, start: Point, end: Point, first: float, last: float, tone: Colour, index: int | None) -> None:
        (ax, ay), (bx, by) = self.pixel(start), self.pixel(end)
        ra, rb = first * self.scale / 2, last * self.scale / 2
        if index is None:  # the lit side: narrower, moved to the left
            ax, bx, ra, rb = ax - ra * 0.2, bx - rb * 0.2, ra * 0.8, rb * 0.8
        length = hypot(bx - ax, by - ay) or 1.0
        nx, ny = -(by - ay) / length, (bx - ax) / length
        quad = [
            (ax + nx * ra, ay + ny * ra), (bx + nx * rb, by + ny * rb),
            (bx - nx * rb, by - ny * rb), (ax - nx * ra, ay - ny * ra),
        ]  # fmt: skip
        joints = [(ax - ra, ay - ra, ax + ra, ay + ra), (bx - rb, by - rb, bx + rb, by + rb)]
        for draw, fill in ((self._paint, tone), (self._mark, index)):
            if fill is None:
                continue
            draw.polygon(quad, fill=fill)
            for joint in joints:
                draw.ellipse(joint, fill=fill)


def shade(colour: Colour, factor: float) -> Colour:
    """Make `colour` darker (factor < 1) or lighter, clipped to 0..255."""
    red, green, blue = (min(255, max(0, int(channel * factor))) for channel in colour)
    return red, green, blue


def draw_pedestrian(canvas: BodyCanvas, identity: Identity, instance: Instance) -> None:
    """Draw one dressed pedestrian with whatever the sighting adds, in the canvas's frame."""
    _Pedestrian(canvas, identity, instance).draw()


class _Pedestrian:
    """The proportions, pose and dyes of one drawing; each method draws one thing."""

    def __init__(self, canvas: BodyCanvas, identity: Identity, instance: Instance):
        self.canvas, self.who, self.how = canvas, identity, instance
        self.side = instance.viewpoint in ("left", "right")
        self.back = instance.viewpoint == "back"
        self.swing = sin(instance.phase)
        self.wide = _BUILD_WIDTH[identity.build]
        self.head = _HEAD_HEIGHT[identity.height]
        self.hip = _HIP_HEIGHT[identity.height]
        self.shoulder = self.head + 0.04
        self.half_shoulder = _SHOULDER_WIDTH[identity.gender] * (0.5 + 0.5 * self.wide) * (0.62 if self.side else 1)
        self.half_hip = _HIP_WIDTH[identity.gender] * self.wide * (0.9 if self.side else 1)
        tints = identity.tints
        self.top = _dye(CLOTHES_COLOURS[identity.top_colour], tints[0:3])
        self.bottom = _dye(CLOTHES_COLOURS.get(identity.bottom_colour, CLOTHES_COLOURS["black"]), tints[3:6])
        self.hair = _dye(HAIR_COLOURS.get(identity.hair_colour, HAIR_COLOURS["black"]), tints[6:9])
        self.skin = SKIN_COLOURS[identity.skin]
        self.second = CLOTHES_COLOURS.get(identity.second_colour, self.top)
        self.shoes = CLOTHES_COLOURS[identity.shoes_colour]
        self.near_arm, self.far_arm = self._arms()

    def draw(self) -> None:
        if self.how.bicycle_colour != "none" and not self.side:
            self._bicycle()
        if self.how.bag == "backpack" and self.side:
            self._backpack()
        self._arm(self.far_arm, raised=self.how.umbrella_colour != "none")
        if self.back:
            self._arm(self.near_arm, raised=self.how.phone)
        self._legs()
        self._torso()
        if not self.back:
            self._arm(self.near_arm, raised=self.how.phone)
        self._patterns()
        self._head()
        self._bag()
        if self.how.bicycle_colour != "none" and self.side:
            self._bicycle()
        if self.how.umbrella_colour != "none":
            self._umbrella()

    def _arms(self) -> tuple[list[Point], list[Point]]:
        """Place shoulder, elbow and hand of the near (or right) and the far (or left) arm."""
        phone, umbrella = self.how.phone, self.how.umbrella_colour != "none"
        y = self.shoulder + 0.025
        if self.side:
            near = _chain((0.0, y), (-0.5 * self.swing, _UPPER_ARM), (-0.5 * self.swing + 0.35, _FORE_ARM))
            far = _chain((0.0, y), (0.5 * self.swing, _UPPER_ARM), (0.5 * self.swing + 0.35, _FORE_ARM))
            if self.how.bicycle_colour != "none":
                near = far = _chain((0.0, y), (0.5, _UPPER_ARM), (1.0, _FORE_ARM))
            if phone:
                near = _chain((0.0, y), (0.35, _UPPER_ARM), (2.3, _FORE_ARM * 0.9))
            if umbrella:
                far = _chain((0.0, y), (0.4, _UPPER_ARM), (2.4, _FORE_ARM))
            return near, far
        x = self.half_shoulder - 0.012
        spread = 0.10 + 0.10 * (self.wide - 1)
        near = _chain((x, y), (spread, _UPPER_ARM), (0.04 - 0.10 * self.swing, _FORE_ARM * (1 - 0.08 * self.swing)))
        far = _chain((-x, y), (-spread, _UPPER_ARM), (-0.04 - 0.10 * self.swing, _FORE_ARM * (1 + 0.08 * self.swing)))
        if phone:
            near = _chain((x, y), (spread + 0.15, _UPPER_ARM), (pi + 0.55, _FORE_ARM))
        if umbrella:
            far = _chain((-x, y), (-spread - 0.1, _UPPER_ARM), (pi - 0.35, _FORE_ARM))
        return near, far

    def _arm(self, joints: list[Point], *, raised: bool) -> None:
        canvas, width = self.canvas, 0.046 * (0.45 + 0.55 * self.wide)
        reach = _SLEEVE.get(self.who.top, 2.0)
        start, elbow, hand = joints
        canvas.limb([start, elbow, hand], [width, width * 0.85, width * 0.62], self.skin, "skin")
        canvas.ellipse(hand, (0.017, 0.020), self.skin, "skin")
        contrast = self.who.top_pattern == "sleeves"
        colour, part = (self.second, "sleeves") if contrast else (self.top, "top")
        if reach >= 2:
            wrist = _between(elbow, hand, 0.9)
            canvas.limb([start, elbow, wrist], [width * 1.25, width * 1.15, width * 0.9], colour, part)
        elif reach > 0:
            canvas.limb([start, _between(start, elbow, reach)], [width * 1.3, width * 1.3], colour, part)
        if raised and joints is self.near_arm and self.how.phone:
            x, y = hand
            canvas.polygon(_rectangle(x, y - 0.014, 0.014, 0.026), (18, 18, 22), "phone")
            canvas.polygon(_rectangle(x, y - 0.014, 0.009, 0.019), (176, 204, 232), "phone")

    def _legs(self) -> None:
        who, canvas = self.who, self.canvas
        girth = 0.55 + 0.45 * self.wide
        width = _LEG_WIDTH[who.bottom] * girth
        bare = who.bottom in ("shorts", "skirt", "none")
        for joints, toe in self._leg_joints():
            hip, knee, ankle = joints
            tone = 0.86 if joints is self._far_leg else 1.0
            if bare:
                canvas.limb(joints, [0.056 * girth, 0.046 * girth, 0.028 * girth], shade(self.skin, tone), "skin")
            if who.bottom == "shorts":
                canvas.limb([hip, knee], [width * 1.25, width * 1.1], shade(self.bottom, tone), "bottom")
            elif not bare:
                flare = 0.62 if who.bottom == "leggings" else 0.82
                canvas.limb(joints, [width * 1.3, width, width * flare], shade(self.bottom, tone), "bottom")
            self._shoe(knee, ankle, toe, tone)
            if who.bottom_pattern == "side stripe":
                end = [hip, knee] if bare else [hip, knee, ankle]
                out = 0.0 if self.side else (0.3 if hip[0] > 0 else -0.3) * width
                canvas.line([(x + out, y) for x, y in end], CLOTHES_COLOURS["white"], "bottom", 0.013)
        if who.bottom == "skirt":
            half, hem = self.half_hip, self.hip + 0.17
            points = [(-half * 0.85, self.hip - 0.09), (half * 0.85, self.hip - 0.09), (half * 1.35, hem), (-half * 1.35, hem)]
            canvas.polygon(points, self.bottom, "bottom", shaded=True)
        elif who.bottom != "none":
            half = self.half_hip
            points = [(-half, self.hip - 0.08), (half, self.hip - 0.08), (half, self.hip + 0.04), (-half, self.hip + 0.04)]
            canvas.polygon(points, self.bottom, "bottom", shaded=True)
        if who.bottom_pattern == "checks":
            canvas.pattern("bottom", _pattern("checks"), CLOTHES_COLOURS["white"])

    def _leg_joints(self) -> list[tuple[list[Point], Point]]:
        """Place hip, knee and ankle of the far and the near leg, each with the direction of its toes."""
        thigh = shank = (0.955 - self.hip) / 2
        legs = []
        for turn in (-1, 1):
            stride = turn * self.swing
            if self.side:
                bend = 0.12 + 0.35 * max(0.0, -stride)
                joints = _chain((0.0, self.hip), (0.42 * stride, thigh), (0.42 * stride - bend, shank))
                toe = (0.05, 0.012)
            else:
                lift = 1 - 0.05 * max(0.0, stride)
                x = turn * self.half_hip * 0.52
                joints = _chain((x, self.hip), (turn * 0.05, thigh * lift), (turn * 0.01, shank * lift))
                toe = (turn * 0.008, 0.012 if self.back else 0.022)
            legs.append((joints, toe))
        self._far_leg = legs[0][0] if self.side else None
        return legs

    def _shoe(self, knee: Point, ankle: Point, toe: Point, tone: float) -> None:
        canvas, colour, (x, y) = self.canvas, shade(self.shoes, tone), ankle
        if self.who.shoes == "boots":
            canvas.limb([_between(knee, ankle, 0.4), ankle], [0.046, 0.040], colour, "shoes")
        canvas.limb([(x - toe[0] * 0.25, y + 0.014), (x + toe[0], y + 0.014 + toe[1])], [0.040, 0.032], colour, "shoes")
        if self.who.shoes == "sneakers":
            sole = CLOTHES_COLOURS["white"] if self.who.shoes_colour != "white" else CLOTHES_COLOURS["grey"]
            y += 0.032 + toe[1] * 0.6
            canvas.line([(x - 0.02 - toe[0] * 0.2, y), (x + 0.02 + toe[0] * 0.7, y)], sole, "shoes", 0.008)

    def _torso(self) -> None:
        canvas, who = self.canvas, self.who
        shoulder, half, hip_half = self.shoulder, self.half_shoulder, self.half_hip
        hem, waist = self.hip + _HEM[who.top], self.shoulder + 0.20
        waist_half = hip_half * (0.95 if who.gender == "man" else 0.80) * (1.08 if who.build == "heavy" else 1)
        flare = {"dress": 1.4, "coat": 1.25, "jacket": 1.1}.get(who.top, 1.04)
        neck = 0.028 if not self.side else 0.024
        canvas.limb([(0, self.head * 0.8), (0, shoulder + 0.01)], [neck * 2, neck * 2.2], self.skin, "skin")
        lean = 0.75 if who.top == "vest" else 1.0
        outline = [
            (neck * 1.1, shoulder - 0.012), (half * lean, shoulder + 0.018), (half * 0.88, shoulder + 0.11),
            (waist_half, waist), (hip_half * flare, hem),
        ]  # fmt: skip
        canvas.polygon(outline + [(-x, y) for x, y in reversed(outline)], self.top, "top", shaded=True)
        if self.side or self.back:
            return
        if who.top == "shirt":
            canvas.line([(0, shoulder), (0, hem)], shade(self.top, 0.6), "top", 0.006)
        if who.top in ("t-shirt", "vest", "dress"):
            canvas.ellipse((0, shoulder - 0.008), (neck * 1.2, 0.022), self.skin, "skin")
        if who.top in ("jacket", "coat") and who.top_pattern != "inner":
            canvas.line([(0, shoulder), (0, hem)], shade(self.top, 0.5) if sum(self.top) > 150 else (90, 90, 90), "top", 0.008)
        if who.top_pattern == "inner":
            points = [(-0.034, shoulder - 0.01), (0.034, shoulder - 0.01), (0.045, hem - 0.01), (-0.045, hem - 0.01)]
            canvas.polygon(points, self.second, "inner", shaded=True)
        if who.top_pattern == "logo":
            canvas.ellipse((0.0, shoulder + 0.095), (0.045, 0.038), self.second, "logo")
            canvas.ellipse((0.0, shoulder + 0.095), (0.020, 0.016), self.top, "logo")

    def _patterns(self) -> None:
        if self.who.top_pattern in ("stripes", "checks", "dots"):
            self.canvas.pattern("top", _pattern(self.who.top_pattern), self.second)

    def _head(self) -> None:
        canvas, head, hair = self.canvas, self.head, self.hair
        middle = head / 2
        rx, ry = head * (0.42 if self.side else 0.39), middle
        style = self.who.hair
        forward = rx * 0.28 if self.side else 0.0
        if style == "long":
            back = -rx * 0.55 if self.side else 0.0
            half = rx * (0.75 if self.side else 1.12)
            low = head + 0.085
            locks = [
                (back - half * 0.9, middle * 0.7), (back + half * 0.9, middle * 0.7), (back + half, head),
                (back + half * 0.7, low), (back - half * 0.7, low), (back - half, head),
            ]  # fmt: skip
            canvas.polygon(locks, hair, "hair", shaded=True)
            if not self.side and not self.back:
                canvas.polygon(
                    [(-rx * 0.6, head * 0.8), (rx * 0.6, head * 0.8), (rx * 0.5, low), (-rx * 0.5, low)], self.top, "top"
                )
                canvas.polygon(
                    [(-rx * 0.5, head * 0.7), (rx * 0.5, head * 0.7), (rx * 0.4, head + 0.04), (-rx * 0.4, head + 0.04)],
                    self.skin,
                    "skin",
                )
        canvas.ellipse((0, middle), (rx, ry), self.skin, "skin")
        if style != "bald":
            swell = 1.25 if style == "curly" else 1.06
            depth = 1.0 if self.back and style == "long" else 0.80 if self.back or style == "curly" else 0.62
            canvas.ellipse((-forward * 0.4, head * depth / 2), (rx * swell, head * depth / 2 + 0.006), hair, "hair")
            canvas.ellipse((-forward, head * 0.28), (rx * 0.4, head * 0.14), shade(hair, 1.35), "hair")
            if not self.back:
                canvas.ellipse((forward, head * 0.64), (rx * 0.82, head * 0.36), self.skin, "skin")
        if style == "bun":
            canvas.ellipse((-rx * 0.75 if self.side else 0, -0.002), (0.030, 0.028), hair, "hair_shape")
        if style == "ponytail" and self.side:
            canvas.limb(
                [(-rx * 0.9, head * 0.3), (-rx * 1.5, head * 0.8), (-rx * 1.4, head + 0.07)],
                [0.03, 0.04, 0.02],
                hair,
                "hair_shape",
            )
        if style == "ponytail" and self.back:
            canvas.limb([(0, head * 0.4), (0.004, head), (-0.004, head + 0.10)], [0.03, 0.042, 0.022], hair, "hair_shape")
        if not self.back:
            self._face(rx, forward)
        self._hat(rx, forward)

    def _face(self, rx: float, forward: float) -> None:
        dark = shade(self.skin, 0.35)
        eyes = [forward + rx * 0.4] if self.side else [-rx * 0.35, rx * 0.35]
        for x in eyes:
            self.canvas.ellipse((x, self.head * 0.55), (0.006, 0.005), dark, "skin")
        self.canvas.line(
            [(forward - rx * 0.1, self.head * 0.82), (forward + rx * 0.3, self.head * 0.82)],
            shade(self.skin, 0.65),
            "skin",
            0.005,
        )

    def _hat(self, rx: float, forward: float) -> None:
        if self.who.hat == "none":
            return
        canvas, head, colour = self.canvas, self.head, CLOTHES_COLOURS[self.who.hat_colour]
        tall = 0.42 if self.who.hat == "cap" else 0.50
        canvas.ellipse((0, head * 0.16), (rx * 1.1, head * 0.24), colour, "hat")
        canvas.polygon(_rectangle(0, head * (tall + 0.10) / 2, rx * 1.1, head * (tall - 0.10) / 2), colour, "hat", shaded=True)
        if self.who.hat == "cap" and not self.back:
            reach = rx * 0.75 if self.side else 0.0
            canvas.ellipse((forward + reach, head * tall), (rx * 1.0, 0.011), shade(colour, 0.75), "hat")
        if self.who.hat == "beanie":
            canvas.line([(-rx * 1.1, head * tall), (rx * 1.1, head * tall)], shade(colour, 0.7), "hat", 0.018)

    def _bag(self) -> None:
        bag, canvas = self.how.bag, self.canvas
        if bag == "none":
            return
        colour = CLOTHES_COLOURS[self.how.bag_colour]
        if bag == "backpack" and not self.side:
            self._backpack()
        elif bag == "shoulder bag":
            x = self.half_shoulder
            canvas.line([(-x * 0.7, self.shoulder), (x * 0.85, self.hip)], shade(colour, 0.75), "bag", 0.016)
            canvas.polygon(_rectangle(x * 0.95, self.hip + 0.045, 0.058, 0.048), colour, "bag", shaded=True)
            canvas.line(
                [(x * 0.95 - 0.05, self.hip + 0.03), (x * 0.95 + 0.045, self.hip + 0.03)], shade(colour, 0.6), "bag", 0.006
            )
        elif bag in ("handbag", "plastic bag"):
            x, y = self._low_hand()
            if bag == "handbag":
                canvas.ring((x, y + 0.03), (0.026, 0.032), shade(colour, 0.7), "bag", 0.009)
                points = [(x - 0.042, y + 0.045), (x + 0.042, y + 0.045), (x + 0.058, y + 0.13), (x - 0.058, y + 0.13)]
                canvas.polygon(points, colour, "bag", shaded=True)
            else:
                points = [
                    (x - 0.010, y), (x + 0.010, y), (x + 0.052, y + 0.10),
                    (x + 0.040, y + 0.17), (x - 0.040, y + 0.17), (x - 0.052, y + 0.10),
                ]  # fmt: skip
                canvas.polygon(points, shade(colour, 0.96), "bag", shaded=True)
                canvas.line([(x, y + 0.03), (x - 0.02, y + 0.15)], shade(colour, 0.75), "bag", 0.006)
        elif bag == "suitcase":
            x = -0.20 if self.side else self.half_hip + 0.085
            canvas.line([(x - 0.02, 0.74), (x - 0.02, 0.56), (x + 0.02, 0.56), (x + 0.02, 0.74)], (70, 70, 74), "bag", 0.008)
            canvas.polygon(_rectangle(x, 0.845, 0.062, 0.115), colour, "bag", shaded=True)
            for offset in (-0.025, 0.015):
                canvas.line([(x + offset, 0.75), (x + offset, 0.94)], shade(colour, 0.65), "bag", 0.006)
            for offset in (-0.045, 0.045):
                canvas.ellipse((x + offset, 0.97), (0.013, 0.013), (25, 25, 25), "bag")

    def _low_hand(self) -> Point:
        """Find the hand that is free to hang down; with both hands raised, the crook of an elbow."""
        if not self.how.phone:
            return self.near_arm[2]
        return self.far_arm[2] if self.how.umbrella_colour == "none" else self.near_arm[1]

    def _backpack(self) -> None:
        canvas, colour = self.canvas, CLOTHES_COLOURS[self.how.bag_colour]
        high, low = self.shoulder + 0.01, self.shoulder + 0.25
        if self.back:
            canvas.polygon(_rounded(0, (high + low) / 2, 0.088, (low - high) / 2), colour, "bag", shaded=True)
            canvas.polygon(_rectangle(0, low - 0.065, 0.055, 0.04), shade(colour, 0.75), "bag")
            canvas.line([(-0.085, high + 0.07), (0.085, high + 0.07)], shade(colour, 0.55), "bag", 0.006)
        elif self.side:
            x = -self.half_shoulder - 0.035
            canvas.polygon(_rounded(x, (high + low) / 2, 0.068, (low - high) / 2), colour, "bag", shaded=True)
        else:
            for sign in (-1, 1):
                x = sign * self.half_shoulder
                canvas.line([(x * 0.55, high - 0.01), (x * 0.62, high + 0.16), (x * 0.85, high + 0.2)], colour, "bag", 0.024)

    def _umbrella(self) -> None:
        canvas, colour = self.canvas, CLOTHES_COLOURS[self.how.umbrella_colour]
        x, y = self.far_arm[2]
        canvas.line([(x, y + 0.02), (x * 0.6, -0.06)], (60, 60, 62), "umbrella", 0.010)
        centre, half = x * 0.6, 0.215
        arc = [(centre + half * cos(angle * pi / 10), 0.015 - 0.15 * sin(angle * pi / 10)) for angle in range(11)]
        scallops = [(centre - half + half * step / 3, 0.015 - (0.022 if step % 2 else 0)) for step in range(7)]
        canvas.polygon(arc + scallops, colour, "umbrella", shaded=True)
        for step in (2, 4):
            canvas.line([(centre, -0.135), (centre - half + half * step / 3, 0.012)], shade(colour, 0.7), "umbrella", 0.006)

    def _bicycle(self) -> None:
        canvas, colour, tyre = self.canvas, CLOTHES_COLOURS[self.how.bicycle_colour], (30, 30, 32)
        if not self.side:
            x = -self.half_hip - 0.10
            canvas.ring((x, 0.86), (0.024, 0.145), tyre, "bicycle", 0.014)
            canvas.line([(x, 0.86), (x, 0.50)], colour, "bicycle", 0.024)
            canvas.line([(x - 0.075, 0.50), (x + 0.075, 0.50)], tyre, "bicycle", 0.018)
            return
        rear, front = (-0.13, 0.855), (0.25, 0.855)
        for wheel in (rear, front):
            canvas.ring(wheel, (0.135, 0.135), tyre, "bicycle", 0.014)
        saddle, crank, head = (-0.06, 0.60), (0.04, 0.84), (0.19, 0.60)
        for bar in ([rear, saddle, head, crank, rear], [saddle, crank], [head, front]):
            canvas.line(bar, colour, "bicycle", 0.018)
        canvas.line([head, (0.175, 0.51), (0.22, 0.50)], tyre, "bicycle", 0.014)
        canvas.line([(-0.10, 0.59), (-0.02, 0.59)], tyre, "bicycle", 0.022)


@cache
def _pattern(name: str) -> Image.Image:
    """Draw a mask of 0 and 255, `_PATTERN_TILE` px square."""
    mask = Image.new("L", (_PATTERN_TILE, _PATTERN_TILE), 0)
    draw = ImageDraw.Draw(mask)
    steps = range(0, _PATTERN_TILE, 16)
    if name == "dots":
        for row, y in enumerate(range(0, _PATTERN_TILE, 10)):
            for x in range(5 * (row % 2), _PATTERN_TILE, 10):
                draw.ellipse((x, y, x + 4, y + 4), fill=255)
    else:
        for step in steps:
            draw.rectangle((0, step, _PATTERN_TILE, step + (6 if name == "stripes" else 4)), fill=255)
            if name == "checks":
                draw.rectangle((step, 0, step + 4, _PATTERN_TILE), fill=255)
    return mask


def _dye(colour: Colour, tint: tuple[int, ...]) -> Colour:
    red, green, blue = (min(248, max(10, channel + offset)) for channel, offset in zip(colour, tint))
    return red, green, blue


def _chain(start: Point, *segments: tuple[float, float]) -> list[Point]:
    """Place the joints of a chain hung at `start`; a segment is (angle from straight down towards +x, length)."""
    joints = [start]
    for angle, length in segments:
        x, y = joints[-1]
        joints.append((x + length * sin(angle), y + length * cos(angle)))
    return joints


def _between(start: Point, end: Point, share: float) -> Point:
    return (start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share)


def _rectangle(x: float, y: float, half_width: float, half_height: float) -> list[Point]:
    left, right, top, bottom = x - half_width, x + half_width, y - half_height, y + half_height
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _rounded(x: float, y: float, half_width: float, half_height: float) -> list[Point]:
    """Outline an octagon: a rectangle without its corners."""
    w, h = half_width, half_height
    return [
        (x - w * 0.6, y - h), (x + w * 0.6, y - h), (x + w, y - h * 0.65), (x + w, y + h * 0.8),
        (x + w * 0.8, y + h), (x - w * 0.8, y + h), (x - w, y + h * 0.8), (x - w, y - h * 0.65),
    ]  # fmt: skip
