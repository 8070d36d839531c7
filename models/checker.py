"""Reads shapes, colours and background back from a picture and compares them with a prompt.

The reader knows how pictures are drawn: it lays every shape, colour and size over every place of
the picture and keeps the best explanation of the pixels.  Nothing in it is learned.

``python -m models.checker --model models/shapes-ldm --prompts 256`` measures the model with it,
and the reader itself on freshly drawn pictures and on pictures passed through the auto-encoder.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .recipe.scenes import (
    BACKGROUNDS,
    COLOURS,
    DARK_OUTLINE,
    LIGHT_OUTLINE,
    OUTLINE_WIDTH,
    SHAPES,
    SIZE,
    FloatArray,
    Image8,
    Rgb,
    Scene,
    Thing,
    backdrop_picture,
    caption,
    draw,
    outline_colour,
    parse_caption,
    sample_scene,
    signed_distance,
)

TOLERANCE = 120.0
"""Distance in RGB beyond which two colours count as wholly different."""

MAX_MISFIT = 0.5
"""Mean disagreement (0..1) over an object's pixels above which no object is read."""

RADII = tuple(range(10, 20))
HORIZONS = tuple(range(46, 52))
FIELD = 96
"""Side of the padded field in which shapes are slid over the picture, in pixels."""

LEFT, MIDDLE, RIGHT = (9, 23), (25, 40), (42, 56)
"""Columns in which the centre of an object is looked for."""


@dataclass(frozen=True)
class SceneAttributes:
    """What a picture shows: its things from left to right (one or two) and its background.

    A thing is ``None`` where no shape explains the pixels.
    """

    things: tuple[Thing | None, ...]
    background: str


@dataclass(frozen=True)
class _Find:
    """Best explanation of an object: gain (negative is better), thing and mean disagreement."""

    gain: float
    thing: Thing
    misfit: float

    @property
    def accepted(self) -> Thing | None:
        """The thing, unless its pixels disagree too much."""
        return self.thing if self.misfit <= MAX_MISFIT else None


@lru_cache(maxsize=1)
def _masks() -> tuple[FloatArray, FloatArray]:
    """Coverage of fill and of line, ``(shapes, radii, 96, 96)``, centred on pixel (0, 0)."""
    axis = (np.arange(FIELD) + FIELD // 2) % FIELD - FIELD // 2 + 0.5
    y, x = np.meshgrid(axis.astype(np.float32), axis.astype(np.float32), indexing="ij")
    fills, lines = [], []
    for shape in SHAPES:
        for radius in RADII:
            distance = signed_distance(shape, x, y, radius)
            fill = np.clip(0.5 - distance, 0, 1)
            fills.append(fill)
            lines.append(np.clip(0.5 + OUTLINE_WIDTH - distance, 0, 1) - fill)
    form = (len(SHAPES), len(RADII), FIELD, FIELD)
    return np.stack(fills).reshape(form), np.stack(lines).reshape(form)


@lru_cache(maxsize=1)
def _mask_spectra() -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Conjugate spectra of the masks, ``(shapes, radii, 96, 49)``."""
    fill, line = (np.conj(np.fft.rfft2(mask)).astype(np.complex64) for mask in _masks())
    return fill, line


def _disagreement(picture: FloatArray, colour: Rgb | FloatArray) -> FloatArray:
    """Squared distance of each pixel to a colour, 0 (same) to 1 (different), ``(64, 64)``."""
    square = np.square(picture - np.asarray(colour, dtype=np.float32)).sum(-1) / TOLERANCE**2
    return np.asarray(np.minimum(square, 1), dtype=np.float32)


def _read_background(picture: FloatArray) -> tuple[str, FloatArray]:
    """Name of the background and the disagreement of each pixel with it."""
    fits = (
        (name, _disagreement(picture, backdrop_picture(name, horizon)))
        for name in BACKGROUNDS
        for horizon in HORIZONS
    )
    return min(fits, key=lambda fit: float(fit[1].sum()))


def _spectrum(field: FloatArray) -> NDArray[np.complex64]:
    return np.fft.rfft2(field, s=(FIELD, FIELD)).astype(np.complex64)


def _read_objects(picture: FloatArray, empty: FloatArray) -> list[_Find]:
    """Best object in the left, middle and right columns, given the background's disagreement."""
    fill_masks, line_masks = _mask_spectra()
    fills = [_disagreement(picture, colour) for colour in COLOURS.values()]
    lines = {rgb: _disagreement(picture, rgb) for rgb in (DARK_OUTLINE, LIGHT_OUTLINE)}
    line_spectra = {rgb: line_masks * _spectrum(field - empty) for rgb, field in lines.items()}
    gains = np.empty((len(COLOURS), len(SHAPES), len(RADII), SIZE, SIZE), np.float32)
    for index, name in enumerate(COLOURS):
        spectrum = fill_masks * _spectrum(fills[index] - empty)
        spectrum += line_spectra[outline_colour(name)]
        gains[index] = np.fft.irfft2(spectrum, s=(FIELD, FIELD))[..., :SIZE, :SIZE]

    finds = []
    for first, last in (LEFT, MIDDLE, RIGHT):
        part = gains[..., 16:52, first:last]
        place = np.unravel_index(int(part.argmin()), part.shape)
        colour, shape, radius, y, x = (int(number) for number in place)
        name = tuple(COLOURS)[colour]
        shift = (y + 16, x + first)
        fill, line = (np.roll(m[shape, radius], shift, (0, 1))[:SIZE, :SIZE] for m in _masks())
        wrong = (fill * fills[colour] + line * lines[outline_colour(name)]).sum()
        misfit = float(wrong / (fill + line).sum())
        finds.append(_Find(float(part[place]), Thing(name, SHAPES[shape]), misfit))
    return finds


def read_attributes(image: Image8) -> SceneAttributes:
    """Shapes, colours and background of a picture, ``(64, 64, 3)`` ``uint8``."""
    if image.shape != (SIZE, SIZE, 3) or image.dtype != np.uint8:
        raise ValueError(f"need a (64, 64, 3) uint8 picture, got {image.shape} {image.dtype}")
    picture = image.astype(np.float32)
    background, empty = _read_background(picture)
    left, middle, right = _read_objects(picture, empty)
    if middle.gain <= min(left.gain, 0) + min(right.gain, 0):
        return SceneAttributes((middle.accepted,), background)
    return SceneAttributes((left.accepted, right.accepted), background)


def matches(image: Image8, prompt: str) -> dict[str, bool]:
    """For each attribute of the prompt, whether the picture shows it.

    Keys: ``count``, ``background``, ``first colour``, ``first shape`` and, for two things,
    ``second colour`` and ``second shape``.
    """
    wanted, seen = parse_caption(prompt), read_attributes(image)
    result = {
        "count": len(wanted.things) == len(seen.things),
        "background": wanted.background == seen.background,
    }
    for place, thing in enumerate(wanted.things):
        found = seen.things[place] if place < len(seen.things) else None
        order = ("first", "second")[place]
        result[f"{order} colour"] = found is not None and found.colour == thing.colour
        result[f"{order} shape"] = found is not None and found.shape == thing.shape
    return result


def all_right(image: Image8, prompt: str) -> bool:
    """Whether the picture shows every attribute of the prompt."""
    return all(matches(image, prompt).values())


def held_out_prompts(count: int, seed: int = 0) -> list[str]:
    """Different prompts, none of whose combinations was trained on (one in five has one thing)."""
    rng = np.random.default_rng(seed)
    prompts: dict[str, None] = {}
    while len(prompts) < count:
        prompts[caption(sample_scene(rng, held_out=True))] = None
    return list(prompts)


# --------------------------------------------------------------------------- measurement


def tally(pairs: Iterator[tuple[Image8, str]]) -> dict[str, tuple[int, int]]:
    """Right and total numbers of each attribute, and of ``everything``, over pictures."""
    counts: dict[str, tuple[int, int]] = {}
    for image, prompt in pairs:
        verdict = matches(image, prompt)
        verdict["everything"] = all(verdict.values())
        for name, right in verdict.items():
            so_far = counts.get(name, (0, 0))
            counts[name] = (so_far[0] + right, so_far[1] + 1)
    return counts


def print_tally(title: str, counts: dict[str, tuple[int, int]]) -> None:
    """Print one line per attribute."""
    print(title)
    for name, (right, total) in counts.items():
        print(f"  {name:14s} {right:5d} / {total:5d}  {100 * right / total:6.2f} %")


def drawn(count: int, seed: int) -> list[tuple[Image8, str]]:
    """Freshly drawn pictures with their captions."""
    rng = np.random.default_rng((seed, 7))
    scenes: list[Scene] = [sample_scene(rng, held_out=i % 2 == 0) for i in range(count)]
    return [(draw(scene, seed + 1000 + i), caption(scene)) for i, scene in enumerate(scenes)]


def main() -> None:
    """Measure the checker and the model from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path(__file__).parent / "shapes-ldm")
    parser.add_argument("--prompts", type=int, default=256, help="held-out prompts to draw")
    parser.add_argument("--drawn", type=int, default=512, help="pictures to check the checker on")
    parser.add_argument("--steps", type=int, default=25, help="DDIM steps")
    parser.add_argument("--guidance", type=float, default=3.0, help="guidance scale")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grid", type=Path, help="write the first 32 pictures here")
    options = parser.parse_args()

    from .sampling import generate, load_pipeline, picture_grid, round_trip

    pipeline = load_pipeline(options.model)
    if options.drawn:
        pairs = drawn(options.drawn, options.seed)
        print_tally(f"checker, {options.drawn} drawn pictures", tally(iter(pairs)))
        again = round_trip(pipeline, np.stack([image for image, _ in pairs]))
        texts = [text for _, text in pairs]
        title = f"checker, {options.drawn} pictures through the auto-encoder"
        print_tally(title, tally(iter(zip(again, texts, strict=True))))
    if options.prompts:
        prompts = held_out_prompts(options.prompts, options.seed)
        images = generate(pipeline, prompts, options.steps, options.guidance, options.seed)
        title = f"model, {options.prompts} held-out prompts"
        title += f", {options.steps} steps, guidance {options.guidance}"
        print_tally(title, tally(iter(zip(images, prompts, strict=True))))
        for image, prompt in zip(images, prompts, strict=True):
            if not all_right(image, prompt):
                wrong = [name for name, right in matches(image, prompt).items() if not right]
                print(f"  wrong {', '.join(wrong)}: {prompt}")
        if options.grid:
            picture_grid(images[:32], 8).save(options.grid, optimize=True)


if __name__ == "__main__":
    main()
