"""The embedded default dataset: photographs of five foods on a table, drawn from a name and a number.

Each food is a body of revolution under one lamp. The numbers that it was drawn from are known: its `factors`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import cos, hypot, pi, sin
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gantool.errors import DataError, unknown

CLASSES: tuple[str, ...] = ("Egg", "Tomato", "Lemon", "Onion", "Carrot")
VERSION: int = 1  # raise when any pixel changes: stores are keyed by it
COUNT: int = 300  # images of each class that make up the dataset

Array = NDArray[Any]  # float32 unless noted; it stays so because only Python's floats are mixed in, not NumPy's
Rng = np.random.Generator

AMBIENT, LAMP = 0.32, 0.90  # strength of the light from everywhere, and of the lamp


class Factors(NamedTuple):
    """Ground truth of an image; lengths are fractions of its side, x to the right, y downwards."""

    kind: str  # variety of the food, such as `brown` for an egg
    x: float  # middle of the body's axis, 0 to 1
    y: float
    size: float  # half of the body's width across its axis
    aspect: float  # length along the axis / width across it
    asymmetry: float  # share by which the width grows from the middle of the axis to its lower end
    angle: float  # radians by which the axis is turned from upright, clockwise
    speckled: bool  # whether an egg has dark speckles
    background: str  # the table: `wood`, `linen` or `slate`
    light_angle: float  # direction in the image towards the lamp, radians from x to y
    light_height: float  # radians of the lamp above the table


class _Body(NamedTuple):
    """A body of revolution seen from the side, in its own frame; arrays [side, side]."""

    u: Array  # across the axis, 1 is half of the width
    v: Array  # along the axis, -1 is the upper end, 1 the lower
    squared: Array  # radius**2 of the body at `v`, in fractions of the image
    lean: Array  # half of how fast `squared` grows along the axis
    inside: Array  # distance to the outline, positive inside, in fractions of the image
    true: Factors

    def turn(self) -> Array:
        """Return radians around the axis, 0 towards the camera."""
        across = self.u * self.true.size
        return np.arctan2(across, np.sqrt(np.maximum(self.squared - across * across, 0)))

    def normal(self) -> tuple[Array, Array, Array]:
        """Return the unit normal: across the axis, along it, towards the camera."""
        across = self.u * self.true.size
        depth = np.maximum(self.squared - across * across, 0)
        scale = 1 / np.sqrt(across * across + self.lean * self.lean + depth + 1e-9)
        return across * scale, -self.lean * scale, np.sqrt(depth) * scale


class _Form(NamedTuple):
    """The differences between classes; ranges are (lowest, highest) of the factor of that name."""

    kinds: dict[str, tuple[float, float, float]]  # display colours, 0 to 1
    size: tuple[float, float]
    aspect: tuple[float, float]
    asymmetry: tuple[float, float]
    angle: tuple[float, float]
    drop: float  # how far the body moves down its axis to leave room for what grows on it
    gloss: tuple[float, float]  # strength and exponent of the highlight
    profile: Callable[[Array], Array]  # squared radius along the axis, -1 to 1, where it is 0
    skin: Callable[[_Body, Array, Rng], Array]  # the kind's light [3, 1, 1] -> every point's [3, side, side]
    trim: Callable[[_Body, Rng], tuple[Array, Array]] | None  # what grows on it: its light and its `inside`


@lru_cache(maxsize=64)
def _places(side: int) -> Array:
    """Return the middles of `side` pixels, 0 to 1."""
    return ((np.arange(side) + 0.5) / side).astype(np.float32)


@lru_cache(maxsize=64)
def _weights(side: int, knots: int) -> Array:
    """Return the Gaussian interpolation from `knots` evenly spaced values to `side` pixels: [side, knots]."""
    weights = np.exp(-1.6 * (_places(side)[:, None] * (knots - 1) - np.arange(knots)) ** 2)
    weights[weights < 1e-6] = 0  # or they become subnormal numbers, which are ten times slower
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def _field(rng: Rng, side: int, rows: int, columns: int) -> Array:
    """Return a smooth random field [side, side] of about unit deviation, with rows x columns features."""
    knots = 1.6 * rng.standard_normal((rows, columns), np.float32)
    field: Array = _weights(side, rows) @ knots @ _weights(side, columns).T
    return field


def _light(red: float, green: float, blue: float) -> Array:
    """Convert a display colour to light, [3, 1, 1]; a display's gamma is near enough to 2."""
    return np.array((red, green, blue), np.float32)[:, None, None] ** 2


def _ramp(value: Array, low: float, high: float) -> Array:
    """Return 0 below `low`, 1 above `high`, smooth between."""
    part = np.clip((value - low) * (1 / (high - low)), 0, 1)
    return part * part * (3 - 2 * part)


def _blend(under: Array, over: Array, cover: Array | float) -> Array:
    """Return `under` where `cover` is 0, `over` where it is 1."""
    return under + (over - under) * cover


def _dots(across: Array, along: Array, rng: Rng, share: float) -> Array:
    """Draw round dots in a `share` of the unit cells: 1 at their middle, 0 at their edge and outside."""
    column, row = np.floor(across), np.floor(along)
    cell = (column.astype(np.int32) & 31) * 32 + (row.astype(np.int32) & 31)
    radius = 0.18 + 0.3 * rng.random(1024, np.float32) ** 2
    # No dot reaches into the next cell, so a pixel depends on its own cell only.
    middle = radius + (1 - 2 * radius) * rng.random((2, 1024), np.float32)
    steepness = np.where(rng.random(1024) < share, 1 / radius**2, np.float32(1e6))
    distance = (across - column - middle[0].take(cell)) ** 2 + (along - row - middle[1].take(cell)) ** 2
    dots: Array = np.maximum(0, 1 - distance * steepness.take(cell))
    return dots


def _egg_skin(body: _Body, colour: Array, rng: Rng) -> Array:
    side = len(body.u)
    skin = colour * (1 + 0.05 * _field(rng, side, 5, 5) + 0.02 * _field(rng, side, 40, 40))
    if body.true.speckled:
        turn, warp = body.turn(), 0.5 * _field(rng, side, 9, 9)  # unwarped, the dots would stand in rows
        fine = _dots(9 * turn + warp, 11 * body.v - warp, rng, 0.5)
        coarse = _dots(4.5 * turn - warp, 6 * body.v + warp, rng, 0.35)
        skin = _blend(skin, _light(0.33, 0.22, 0.15), 0.85 * np.minimum(1, 2 * (fine + coarse)))
    return skin


def _tomato_skin(body: _Body, colour: Array, rng: Rng) -> Array:
    side = len(body.u)
    unripe = _ramp(-body.v + 0.3 * _field(rng, side, 4, 4), 0.1, 1.5) * rng.uniform(0.1, 0.6)
    return _blend(colour, _light(0.93, 0.42, 0.12), unripe) * (1 + 0.06 * _field(rng, side, 6, 6))


def _lemon_skin(body: _Body, colour: Array, rng: Rng) -> Array:
    side = len(body.u)
    warp = 0.4 * _field(rng, side, 9, 9)
    pores = _dots(9 * body.turn() + warp, 12 * body.v - warp, rng, 0.9)
    green = _ramp(np.abs(body.v) + 0.1 * _field(rng, side, 5, 5), 0.7, 1.05) * rng.uniform(0.2, 0.8)
    tone = 1 + 0.05 * _field(rng, side, 6, 6) - 0.25 * pores
    return _blend(colour, _light(0.70, 0.72, 0.16), green) * tone


def _onion_skin(body: _Body, colour: Array, rng: Rng) -> Array:
    side = len(body.u)
    streaks = np.convolve(rng.standard_normal(130), (0.25, 0.5, 0.25), "same").astype(np.float32)
    place = (body.turn() / pi + 0.5) * 128 + 1.5 * _field(rng, side, 4, 4)
    dry = _ramp(-body.v + 0.15 * _field(rng, side, 6, 6), 0.4, 0.95)
    skin = _blend(colour, _light(0.78, 0.60, 0.36), 0.75 * dry)
    strength = 0.3 if body.true.kind != "white" else 0.07  # with more, a white onion looks like garlic
    streak = strength * streaks.take(np.clip(place, 0, 129).astype(np.int32))
    return skin * np.maximum(0.2, 1 + streak + 0.08 * _field(rng, side, 6, 6))


def _carrot_skin(body: _Body, colour: Array, rng: Rng) -> Array:
    side = len(body.u)
    along = np.clip((body.v + 1) * 11 + 0.6 * body.u**2, 0, 39)
    ring = np.floor(along)
    arcs = rng.uniform((-1.2, 0.2), (1.2, 1.0), (40, 2)).astype(np.float32)
    middle, width = (column.take(ring.astype(np.int32)) for column in arcs.T)
    groove = np.maximum(0, 1 - np.abs(along - ring - 0.5) * 3)
    groove *= np.sqrt(np.maximum(0, 1 - np.abs(body.turn() - middle) / width))
    skin = colour * ((1 + 0.07 * _field(rng, side, 6, 6)) * (1 - 0.55 * groove))
    return _blend(skin, _light(0.55, 0.50, 0.20), 0.7 * _ramp(-body.v, 0.9, 1.0))


def _calyx(body: _Body, rng: Rng) -> tuple[Array, Array]:
    sepals, tilt = int(rng.integers(5, 7)), rng.uniform(0.25, 0.8)
    length = rng.uniform(0.45, 0.72, sepals).astype(np.float32)
    along = (body.v + sin(tilt)) * (1 / cos(tilt))
    distance = np.sqrt(body.u**2 + along**2)
    turn = np.arctan2(body.u, along) + rng.uniform(-0.8, 0.8) * distance + rng.uniform(10, 16)
    part = turn * (sepals / (2 * pi))
    sepal = np.floor(part)
    aside = np.abs(part - sepal - 0.5) * (2 * pi / sepals) * distance
    out = distance / length[sepal.astype(np.int32) % sepals]
    width = np.maximum(0, 1 - out) * (0.06 + 0.24 * np.minimum(out, 0.4))
    edge = np.maximum(width - aside, 0.12 - distance) - np.maximum(0, out - 1)
    tone = 0.7 + 5 * aside - 0.4 * _ramp(-distance, -0.1, -0.05)
    return _light(0.34, 0.53, 0.17) * tone, edge * body.true.size


def _roots(body: _Body, rng: Rng) -> tuple[Array, Array]:
    down = body.v - 0.88
    hairs = np.sin(np.arctan2(body.u, down + 0.06) * rng.uniform(15, 22) + rng.uniform(0, 6))
    edge = np.minimum(0.17 + 0.12 * hairs - np.sqrt(body.u**2 + down**2), down)
    return _light(0.70, 0.60, 0.43) * (0.8 + 0.3 * hairs), edge * body.true.size


def _leaves(body: _Body, rng: Rng) -> tuple[Array, Array]:
    across, up = body.u * body.true.size, (-body.v - 0.97) * (body.true.size * body.true.aspect)
    fringe = 0.5 * np.sin(up * 140 + np.abs(across) * 130) + _field(rng, len(up), 40, 40)
    edge = np.full_like(up, -1)
    for lean in (np.linspace(-0.7, 0.7, 6) + rng.uniform(-0.1, 0.1, 6)).tolist():
        length, bend = rng.uniform(0.2, 0.3), rng.uniform(-1.0, 1.0)
        aside = np.abs(across - up * (lean + bend * up))
        blade = np.maximum(0, up - 0.05) * np.maximum(0, length - up)
        edge = np.maximum(edge, 0.007 - aside + blade * (2.6 + 1.8 * fringe) - 9 * np.maximum(0, up - length))
    return _light(0.27, 0.48, 0.13) * np.maximum(0.4, 0.95 + 0.25 * fringe), np.minimum(edge, up)


def _lemon_profile(t: Array) -> Array:
    nipple = 0.09 * np.exp(-(((np.abs(t) - 0.83) / 0.15) ** 2)) * (1 - np.abs(t) ** 8)
    squared: Array = np.maximum(0, 1 - (t / 0.92) ** 2) ** 1.2 + nipple
    return squared


def _onion_profile(t: Array) -> Array:
    above = np.clip((0.25 - t) / 1.25, 0, 1)
    neck = 0.1 + 0.9 * (0.5 + 0.5 * np.cos(pi * np.minimum(1, 1.12 * above**1.7)))
    return np.where(t > 0.25, 1 - (np.abs(t - 0.25) / 0.75) ** 2.2, neck**2 * np.minimum(1, 25 * (t + 1)))


def _carrot_profile(t: Array) -> Array:
    down = (t + 1) / 2
    shoulder, end = 1 - np.maximum(0, 1 - down / 0.09) ** 2, 1 - np.maximum(0, (down - 0.9) / 0.1) ** 2
    squared: Array = (1 - 0.8 * down) ** 2 * shoulder * end
    return squared


def _wood(rng: Rng, side: int) -> Array:
    boards = int(rng.integers(2, 5))
    tones = rng.uniform(0.8, 1.15, boards + 2).astype(np.float32)
    row = (_places(side) * boards + rng.random())[:, None]
    board = np.floor(row)
    tones = tones[board.astype(np.int32)]
    grain = np.sin(row * (34 / boards) + 2.2 * _field(rng, side, 5, 3) + 5 * tones)
    gap = _ramp(np.abs(row - board - 0.5), 0.5 - 0.012 * boards, 0.5)
    tone = tones * (1 + 0.13 * grain + 0.11 * _field(rng, side, 64, 4)) * (1 - 0.75 * gap)
    wood: Array = _blend(_light(0.72, 0.53, 0.34), _light(0.47, 0.31, 0.20), rng.random()) * tone
    return wood if rng.random() < 0.5 else wood.transpose(0, 2, 1)


def _linen(rng: Rng, side: int) -> Array:
    weave = np.sin(_places(side) * (2 * pi * 21))
    threads = _field(rng, side, 60, 5) + _field(rng, side, 5, 60)
    tone = 1 + 0.07 * threads + 0.06 * weave[:, None] * weave + 0.08 * _field(rng, side, 3, 4)
    return _blend(_light(0.86, 0.82, 0.74), _light(0.70, 0.72, 0.72), rng.random()) * tone


def _slate(rng: Rng, side: int) -> Array:
    layers = _field(rng, side, 4, 7) + 0.5 * _field(rng, side, 14, 10) + 0.4 * _field(rng, side, 64, 64)
    vein = np.exp(-30 * np.abs(_field(rng, side, 3, 3) + 0.3))
    tone: Array = np.maximum(0.3, 1 + 0.16 * layers + 0.3 * vein)
    return _blend(_light(0.30, 0.33, 0.36), _light(0.40, 0.39, 0.38), rng.random()) * tone


_TABLES = {"wood": _wood, "linen": _linen, "slate": _slate}
_EGGS = {
    "white": (0.92, 0.90, 0.86),
    "brown": (0.80, 0.55, 0.38),
    "blue": (0.66, 0.80, 0.82),
    "green": (0.70, 0.75, 0.60),
    "speckled": (0.86, 0.77, 0.64),
}
_ONIONS = {"brown": (0.80, 0.50, 0.20), "red": (0.55, 0.16, 0.28), "white": (0.90, 0.88, 0.72)}
# fmt: off
_FORMS = {  # kinds, size, aspect, asymmetry, angle, drop, gloss, profile, skin, trim
    "Egg": _Form(_EGGS, (0.24, 0.34), (1.2, 1.45), (0.10, 0.26), (-0.6, 0.6), 0.0, (0.16, 28),
                 lambda t: 1 - t**2, _egg_skin, None),
    "Tomato": _Form({"red": (0.86, 0.13, 0.07)}, (0.28, 0.37), (0.82, 0.97), (-0.05, 0.05), (-0.6, 0.6), 0.0,
                    (0.55, 60), lambda t: 1 - np.abs(t) ** 2.3, _tomato_skin, _calyx),
    "Lemon": _Form({"yellow": (0.97, 0.82, 0.12)}, (0.22, 0.29), (1.3, 1.55), (-0.08, 0.08), (0.5, 2.6), 0.0,
                   (0.28, 30), _lemon_profile, _lemon_skin, None),
    "Onion": _Form(_ONIONS, (0.28, 0.37), (0.95, 1.15), (-0.04, 0.06), (-0.9, 0.9), 0.0, (0.35, 40),
                   _onion_profile, _onion_skin, _roots),
    "Carrot": _Form({"orange": (0.94, 0.46, 0.10)}, (0.11, 0.14), (2.5, 3.1), (-0.1, 0.0), (-1.3, 1.3), 0.1,
                    (0.22, 22), _carrot_profile, _carrot_skin, _leaves),
}
# fmt: on


def _draw(name: str, index: int, kind: str | None = None) -> tuple[Factors, Rng]:
    """Return the factors of an image, and the generator that its texture continues with."""
    if name not in CLASSES:
        raise DataError(unknown("class", name, CLASSES))
    form, rng = _FORMS[name], np.random.default_rng([VERSION, CLASSES.index(name), index])
    drawn = list(form.kinds)[
        int(rng.integers(len(form.kinds)))
    ]  # drawn in any case, so that all later numbers stay the same
    kind = kind or drawn
    if kind not in form.kinds:
        raise DataError(unknown(f"kind of {name}", kind, form.kinds))
    size, aspect, asymmetry, angle = (rng.uniform(*span) for span in form[1:5])
    wide = 0.49 - hypot(size * cos(angle), size * aspect * sin(angle))  # room beside the turned body
    high = 0.49 - hypot(size * sin(angle), size * aspect * cos(angle))
    x = rng.uniform(-0.08, 0.08) - form.drop * sin(angle)
    y = rng.uniform(-0.08, 0.08) + form.drop * cos(angle)
    x, y = (0.5 + max(-room, min(move, room)) for move, room in ((x, max(wide, 0)), (y, max(high, 0))))
    speckled = bool(rng.random() < 0.12 or kind == "speckled") and name == "Egg"
    background = list(_TABLES)[int(rng.integers(len(_TABLES)))]
    light_angle, light_height = rng.uniform(-2.7, -0.4), rng.uniform(0.65, 1.05)
    return Factors(kind, x, y, size, aspect, asymmetry, angle, speckled, background, light_angle, light_height), rng


def factors(name: str, index: int, kind: str | None = None) -> Factors:
    """Return the ground truth of image `index` (from 0) of the class `name`, one of CLASSES; `kind` as in `render`."""
    return _draw(name, index, kind)[0]


def _body(profile: Callable[[Array], Array], true: Factors, side: int, right: float, down: float) -> _Body:
    """Return the body on a plane of side x side pixels, moved by fractions of the image."""
    half, places = true.size * true.aspect, _places(side)
    east, south = places - (true.x + right), (places - (true.y + down))[:, None]
    across = east * cos(true.angle) + south * sin(true.angle)
    along = (south * cos(true.angle) - east * sin(true.angle)) * (1 / half)
    axis = np.linspace(-1.6, 1.6, 1025)
    within = np.clip(axis, -1, 1)
    # Beyond its ends the profile continues below zero at its last slope, which distances there depend on.
    squared = profile(within) - 1000 * np.abs(axis - within) * profile(0.999 * np.sign(axis))
    squared *= (true.size * (1 + true.asymmetry * axis)) ** 2
    lean = np.gradient(squared, axis) / (2 * half)
    row = (np.clip((along + 1.6) * (1024 / 3.2), 0, 1024) + 0.5).astype(np.int32)
    radius, slope = (table.astype(np.float32).take(row) for table in (squared, lean))
    spread = np.abs(across) + np.sqrt(np.maximum(radius, 0))
    inside = (radius - across * across) / np.sqrt(spread * spread + 4 * slope * slope + 1e-9)
    return _Body(across * (1 / true.size), along, radius, slope, inside, true)


def render(name: str, index: int, size: int = 64, kind: str | None = None) -> NDArray[np.uint8]:
    """Render image `index` (from 0) of the class `name`, one of CLASSES: [size, size, 3], RGB, 0 to 255.

    The same `name` and `index` are the same image at every `size`, but for the grain of its sensor. Another `kind` than
    the image's own, such as `blue`, changes the food and leaves place, shape, table and light the same. So one index in
    two kinds is an image and its right translation.

    Raises:
        DataError: the class does not exist, or has no such kind.
    """
    true, rng = _draw(name, index, kind)
    form, side = _FORMS[name], 2 * size  # four rendered pixels are averaged to one
    places, edge = _places(side) - 0.5, 1 / side
    flat, lamp = cos(true.light_height), sin(true.light_height)
    lamp_x, lamp_y = flat * cos(true.light_angle), flat * sin(true.light_angle)
    body = _body(form.profile, true, side, 0, 0)
    cast = _body(form.profile, true, side, -0.6 * true.size * lamp_x, -0.6 * true.size * lamp_y)

    shadow = 0.8 * _ramp(cast.inside, -0.3 * true.size, 0.25 * true.size)
    contact = 0.85 * _ramp(body.inside, -0.045, 0.03)
    falloff = 1 + 0.35 * (lamp_x * places + lamp_y * places[:, None])
    table = _TABLES[true.background](rng, side)
    glow = AMBIENT * (1 - 0.6 * contact) + LAMP * lamp * (1 - np.maximum(shadow, contact))
    scene = table * (glow * falloff)

    across, along, facing = body.normal()
    turned = true.light_angle - true.angle
    sideways = across * (flat * cos(turned)) + along * (flat * sin(turned))
    lit = np.maximum(0, sideways + facing * lamp)
    # The highlight is around the direction halfway between the lamp and the camera.
    glint = np.maximum(0.3, (sideways + facing * (lamp + 1)) * (2 + 2 * lamp) ** -0.5)
    shine = form.gloss[0] * (0.8 * glint ** form.gloss[1] + 0.2 * glint**6)
    glow = AMBIENT * (0.45 + 0.55 * facing) + LAMP * lit
    colour = _light(*form.kinds[true.kind]) * rng.uniform(0.92, 1.08, (3, 1, 1)).astype(np.float32)
    skin = form.skin(body, colour, rng)
    scene = _blend(scene, skin * glow + shine, _ramp(body.inside, -edge, edge))
    if form.trim:
        growth, inside = form.trim(body, rng)
        scene *= 1 - 0.5 * _ramp(inside, -0.03, 0.01)
        glow = np.where(body.inside > 0, glow, AMBIENT + 0.8 * LAMP * lamp)
        scene = _blend(scene, growth * glow, _ramp(inside, -edge, edge))

    scene = scene[:, ::2] + scene[:, 1::2]
    scene = 0.25 * (scene[:, :, ::2] + scene[:, :, 1::2])
    exposure = (rng.uniform(0.9, 1.1) * rng.uniform(0.96, 1.04, (3, 1, 1))).astype(np.float32)
    photo = np.sqrt(np.clip(scene * exposure, 0, 1)) + 0.008 * rng.standard_normal(scene.shape, np.float32)
    image: NDArray[np.uint8] = np.clip(photo * 255 + 0.5, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(image.transpose(1, 2, 0))
