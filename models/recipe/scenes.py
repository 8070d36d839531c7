"""The drawing domain: scenes of one or two shapes, their captions and their pictures.

A picture is 64x64 RGB (``uint8``).  Lengths are pixels, ``x`` grows to the right and ``y``
downwards.  Everything is drawn from signed distances, so edges are anti-aliased, and every
random choice comes from a ``numpy.random.Generator`` given by the caller.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

SIZE = 64
"""Side of a picture in pixels."""

OUTLINE_WIDTH = 1.5
"""Width of the contrasting line drawn around every shape, in pixels."""

Rgb = tuple[int, int, int]
FloatArray = NDArray[np.float32]
Image8 = NDArray[np.uint8]

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "heart", "cross")

COLOURS: dict[str, Rgb] = {
    "red": (225, 25, 35),
    "green": (30, 190, 50),
    "blue": (30, 60, 235),
    "yellow": (255, 225, 20),
    "cyan": (0, 215, 230),
    "pink": (255, 100, 190),
    "white": (255, 255, 255),
    "black": (15, 15, 18),
}

DARK_OUTLINE: Rgb = (20, 20, 28)
LIGHT_OUTLINE: Rgb = (242, 242, 242)


@dataclass(frozen=True)
class Backdrop:
    """Colours of a background: vertical gradient from ``top`` to ``horizon``, then ``ground``."""

    top: Rgb
    horizon: Rgb
    ground: Rgb


BACKGROUNDS: dict[str, Backdrop] = {
    "forest": Backdrop((20, 70, 40), (60, 120, 70), (78, 52, 30)),
    "sky": Backdrop((95, 165, 240), (185, 220, 250), (120, 175, 80)),
    "desert": Backdrop((238, 200, 140), (250, 226, 184), (200, 145, 80)),
    "night": Backdrop((10, 12, 40), (38, 38, 92), (22, 26, 34)),
    "sunset": Backdrop((110, 50, 120), (250, 140, 70), (75, 38, 60)),
    "snow": Backdrop((160, 172, 190), (208, 216, 228), (245, 248, 252)),
}


@dataclass(frozen=True)
class Thing:
    """One object of a scene, by the names used in captions."""

    colour: str
    shape: str


@dataclass(frozen=True)
class Scene:
    """What a caption says: one or two things (left first) and a background."""

    things: tuple[Thing, ...]
    background: str


@dataclass(frozen=True)
class Placement:
    """Where things are drawn: ``(x, y, radius)`` of each thing, and the horizon's height."""

    discs: tuple[tuple[float, float, float], ...]
    horizon: float


def as_array(colour: Rgb) -> FloatArray:
    """Colour as ``(3,)`` ``float32``."""
    return np.asarray(colour, dtype=np.float32)


def outline_colour(colour: str) -> Rgb:
    """Colour of the line around a thing of the given colour (light around dark colours)."""
    return LIGHT_OUTLINE if colour in ("black", "blue") else DARK_OUTLINE


# ----------------------------------------------------------------------------- captions


def caption(scene: Scene) -> str:
    """Sentence that describes the scene."""
    nouns = " and ".join(f"a {thing.colour} {thing.shape}" for thing in scene.things)
    return f"{nouns} on a {scene.background} background"


_COLOUR = "|".join(COLOURS)
_SHAPE = "|".join(SHAPES)
_CAPTION = re.compile(
    rf"an? ({_COLOUR}) ({_SHAPE})(?: and an? ({_COLOUR}) ({_SHAPE}))?"
    rf" on an? ({'|'.join(BACKGROUNDS)}) background"
)


def parse_caption(text: str) -> Scene:
    """Inverse of :func:`caption`; raises ``ValueError`` for any other sentence."""
    match = _CAPTION.fullmatch(" ".join(text.lower().split()).rstrip("."))
    if match is None:
        raise ValueError(f"not a sentence of the drawing domain: {text!r}")
    first_colour, first_shape, second_colour, second_shape, background = match.groups()
    things = [Thing(first_colour, first_shape)]
    if second_colour is not None:
        things.append(Thing(second_colour, second_shape))
    return Scene(tuple(things), background)


# ------------------------------------------------------------------------------ sampling


def is_held_out(scene: Scene) -> bool:
    """Whether the combination is kept out of training (about one in ten, fixed for ever)."""
    return hashlib.sha256(caption(scene).encode()).digest()[0] < 26


def sample_scene(
    rng: np.random.Generator, held_out: bool = False, single_share: float = 0.2
) -> Scene:
    """Random scene from the training combinations, or from the held-out ones."""
    colours, backgrounds = tuple(COLOURS), tuple(BACKGROUNDS)
    count = 1 if rng.random() < single_share else 2
    while True:
        things = tuple(
            Thing(colours[rng.integers(len(colours))], SHAPES[rng.integers(len(SHAPES))])
            for _ in range(count)
        )
        scene = Scene(things, backgrounds[rng.integers(len(backgrounds))])
        if is_held_out(scene) == held_out:
            return scene


def sample_placement(rng: np.random.Generator, count: int) -> Placement:
    """Random placement: one thing near the middle, or two side by side."""
    if count == 1:
        discs = [(rng.uniform(28, 36), rng.uniform(31, 36), rng.uniform(14, 18))]
    else:
        discs = [
            (middle + rng.uniform(-1.5, 1.5), rng.uniform(31, 37), rng.uniform(11.5, 14))
            for middle in (17.0, 47.0)
        ]
    return Placement(tuple(discs), rng.uniform(47, 50))


# ------------------------------------------------------------------------------- drawing


@cache
def outline_points(shape: str) -> FloatArray:
    """Corners ``(n, 2)`` of a shape of radius one around the origin (empty for a circle)."""
    points: list[tuple[float, float]]
    if shape == "circle":
        points = []
    elif shape == "square":
        points = [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]
    elif shape == "triangle":
        points = [(0.0, -0.98), (1.08, 0.86), (-1.08, 0.86)]
    elif shape == "star":
        points = []
        for corner in range(10):
            reach = 1.14 if corner % 2 == 0 else 0.5
            angle = math.pi * corner / 5
            points.append((reach * math.sin(angle), 0.08 - reach * math.cos(angle)))
    elif shape == "heart":
        points = []
        for step in range(36):
            turn = 2 * math.pi * step / 36
            x = 16 * math.sin(turn) ** 3
            y = sum(c * math.cos(k * turn) for k, c in ((1, 13), (2, -5), (3, -2), (4, -1)))
            points.append((x / 15.5, -(y + 2.5) / 14.5))
    elif shape == "cross":
        arm, end = 0.36, 1.0
        points = [(-arm, -end), (arm, -end), (arm, -arm), (end, -arm), (end, arm), (arm, arm)]
        points += [(-x, -y) for x, y in points]
    else:
        raise ValueError(f"unknown shape {shape!r}")
    return np.asarray(points, dtype=np.float32).reshape(-1, 2)


def signed_distance(shape: str, x: FloatArray, y: FloatArray, radius: float) -> FloatArray:
    """Distance in pixels from points ``x``, ``y`` to the edge, negative inside the shape."""
    corners = outline_points(shape)
    if corners.size == 0:
        return (np.hypot(x, y) - radius).astype(np.float32)
    corners = corners * np.float32(radius)
    best = np.full(x.shape, np.inf, dtype=np.float32)
    inside = np.zeros(x.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = x - ax, y - ay
        along = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        best = np.minimum(best, (wx - ex * along) ** 2 + (wy - ey * along) ** 2)
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (wx < ex * wy / ey)
    distance = np.sqrt(best)
    return np.where(inside, -distance, distance).astype(np.float32)


def backdrop_picture(background: str, horizon: float) -> FloatArray:
    """Empty background, ``(64, 64, 3)`` ``float32`` in 0..255."""
    colours = BACKGROUNDS[background]
    rows = np.arange(SIZE, dtype=np.float32)[:, None] + 0.5
    mix = np.clip(rows / horizon, 0, 1)
    sky = (1 - mix) * as_array(colours.top) + mix * as_array(colours.horizon)
    cover = np.clip(rows - horizon + 0.5, 0, 1)
    column = (1 - cover) * sky + cover * as_array(colours.ground)
    return np.repeat(column[:, None, :], SIZE, axis=1).astype(np.float32)


def render(scene: Scene, placement: Placement) -> Image8:
    """Picture of a scene, ``(64, 64, 3)`` ``uint8``."""
    picture = backdrop_picture(scene.background, placement.horizon)
    for thing, (cx, cy, radius) in zip(scene.things, placement.discs, strict=True):
        reach = radius * 1.3 + OUTLINE_WIDTH + 1
        x0, x1 = max(0, int(cx - reach)), min(SIZE, int(cx + reach) + 1)
        y0, y1 = max(0, int(cy - reach)), min(SIZE, int(cy + reach) + 1)
        y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32) + np.float32(0.5)
        distance = signed_distance(thing.shape, x - np.float32(cx), y - np.float32(cy), radius)
        patch = picture[y0:y1, x0:x1]
        for grow, colour in (
            (OUTLINE_WIDTH, outline_colour(thing.colour)),
            (0.0, COLOURS[thing.colour]),
        ):
            cover = np.clip(0.5 + grow - distance, 0, 1)[..., None]
            patch += cover * (as_array(colour) - patch)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def draw(scene: Scene, seed: int) -> Image8:
    """Picture of a scene with a placement fixed by the seed, ``(64, 64, 3)`` ``uint8``."""
    return render(scene, sample_placement(np.random.default_rng(seed), len(scene.things)))
