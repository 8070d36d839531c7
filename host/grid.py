"""The side-by-side picture: float U-Net on the left, accelerator on the right, one row a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]

SCALE = 4
MARGIN = 28
GAP = 20
CAPTION = 40
HEADER = 58
COLUMNS = 3

PAPER = (250, 250, 248)
INK = (28, 30, 36)
FAINT = (120, 124, 134)


@dataclass(frozen=True)
class Pair:
    """One prompt's pictures, and a short line of figures about them."""

    prompt: str
    reference: Picture
    accelerated: Picture
    note: str = ""


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def enlarge(picture: Picture, scale: int = SCALE) -> Image.Image:
    """The picture ``scale`` times as large, smooth."""
    image = Image.fromarray(picture)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.LANCZOS)


def _wrap(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Words of ``text`` in lines of at most ``width`` pixels."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def grid(pairs: Sequence[Pair], title: str = "") -> Image.Image:
    """All pairs on one sheet, in up to three columns of "float U-Net | accelerator"."""
    side = max(pair.reference.shape[1] for pair in pairs) * SCALE
    columns = min(COLUMNS, len(pairs))
    rows = -(-len(pairs) // columns)
    text, small, large = _font(17), _font(14), _font(24)
    lines = max(len(_wrap(pair.prompt, 2 * side + 4, text)) for pair in pairs)
    cell_width, cell_height = 2 * side + 4, side + CAPTION + 22 * lines
    top = MARGIN + (HEADER if title else 0)
    sheet = Image.new(
        "RGB",
        (
            2 * MARGIN + columns * cell_width + (columns - 1) * 2 * GAP,
            top + rows * cell_height + (rows - 1) * GAP + MARGIN,
        ),
        PAPER,
    )
    ink = ImageDraw.Draw(sheet)
    if title:
        ink.text((MARGIN, MARGIN - 4), title, INK, font=large)
    for number, pair in enumerate(pairs):
        left = MARGIN + (number % columns) * (cell_width + 2 * GAP)
        upper = top + (number // columns) * (cell_height + GAP)
        for offset, label, picture in (
            (0, "float U-Net", pair.reference),
            (side + 4, "accelerator", pair.accelerated),
        ):
            ink.text((left + offset, upper), label, FAINT, font=small)
            sheet.paste(enlarge(picture), (left + offset, upper + 20))
        if pair.note:
            ink.text((left + cell_width, upper), pair.note, FAINT, font=small, anchor="ra")
        for row, line in enumerate(_wrap(pair.prompt, cell_width, text)):
            ink.text((left, upper + 20 + side + 6 + 22 * row), line, INK, font=text)
    return sheet
