"""Sliding windows as the multiplier array sees them (docs/engine.md, "Multiplier array")."""

from __future__ import annotations

from dataclasses import dataclass

from gen.errors import UserError
from gen.layers import Window
from gen.program.layout import GROUP, up_to
from gen.program.structs import MAX_TAPS


@dataclass(frozen=True)
class Geometry:
    """A window over one source size.

    ``offset``, ``ty`` and ``tx`` have one element per tap (row-major). ``fill`` window pixels
    are filled in all, ``lead`` of them before the first tile, ``slots`` window pixels are
    addressed.
    """

    items: int
    height: int
    width: int
    src_height: int
    src_width: int
    stride: int
    up: int
    limit_y: int
    limit_x: int
    offset: tuple[int, ...]
    ty: tuple[int, ...]
    tx: tuple[int, ...]

    @property
    def pixels(self) -> int:
        """Output pixels of one item."""
        return self.height * self.width

    @property
    def pitch(self) -> int:
        """Pixel slots of one item of the output."""
        return up_to(self.pixels, GROUP)

    @property
    def phases(self) -> int:
        """Planes into which a strided window sorts the source pixels."""
        return self.stride * self.stride

    @property
    def fill(self) -> int:
        """Window pixels filled."""
        return self.phases * self.items * self.pixels

    @property
    def slots(self) -> int:
        """Window pixels addressed."""
        return self.phases * self.items * self.pitch

    def lead(self, tile: int) -> int:
        """Window pixels to fill before the first tile of ``tile`` pixels."""
        if self.stride > 1:
            return self.fill
        # slots between items make a window index at least as large as the count of filled ones
        return min(self.fill, tile + up_to(max(0, *self.offset, 0), GROUP))


def geometry(layer: str, window: Window, src_height: int, src_width: int, items: int) -> Geometry:
    """Geometry of a layer's window.

    Raises:
        UserError: a window that the buffer's addressing cannot express.
    """
    kh, kw = window.kernel
    top, left, bottom, right = window.pad
    stride, up = window.stride, window.upsample
    if kh * kw > MAX_TAPS:
        raise UserError(
            f"layer {layer}: a {kh}x{kw} window has more than {MAX_TAPS} taps; "
            "this convolution is not supported"
        )
    if up & (up - 1):
        raise UserError(f"layer {layer}: up-sampling by {up} is not a power of two")
    limit_y, limit_x = src_height * up, src_width * up
    height = (limit_y + top + bottom - kh) // stride + 1
    width = (limit_x + left + right - kw) // stride + 1
    if height * stride < limit_y or width * stride < limit_x:
        raise UserError(
            f"layer {layer}: a {kh}x{kw} window with padding {window.pad} and stride {stride} "
            f"makes {height}x{width} of {limit_y}x{limit_x}; only padding that keeps the size "
            "(divided by the stride) is supported"
        )
    pitch = up_to(height * width, GROUP)
    ty, tx, offset = [], [], []
    for ky in range(kh):
        for kx in range(kw):
            y, x = ky - top, kx - left
            phase = (y % stride) * stride + x % stride
            ty.append(y)
            tx.append(x)
            offset.append(phase * items * pitch + (y // stride) * width + x // stride)
    return Geometry(
        items=items,
        height=height,
        width=width,
        src_height=src_height,
        src_width=src_width,
        stride=stride,
        up=up.bit_length() - 1,
        limit_y=limit_y,
        limit_x=limit_x,
        offset=tuple(offset),
        ty=tuple(ty),
        tx=tuple(tx),
    )
