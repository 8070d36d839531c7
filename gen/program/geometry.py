"""Sliding windows as the multiplier array sees them (docs/engine.md, "Window buffer")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gen.errors import UserError
from gen.layers import Window
from gen.program.layout import GROUP, SUB, ceil_div, up_to
from gen.program.structs import MAX_TAPS


@dataclass(frozen=True)
class Geometry:
    """A window over one source size. ``ty`` and ``tx`` have one element per tap (row-major)."""

    height: int
    width: int
    src_height: int
    src_width: int
    stride: int
    up: int
    limit_y: int
    limit_x: int
    ty: tuple[int, ...]
    tx: tuple[int, ...]

    @property
    def pixels(self) -> int:
        """Output pixels of one item."""
        return self.height * self.width

    @property
    def pitch(self) -> int:
        """Pixel slots of one item of the output."""
        return up_to(self.pixels, SUB)

    @property
    def src_pitch(self) -> int:
        """Pixel slots of one item of the sources."""
        return up_to(self.src_height * self.src_width, SUB)

    @property
    def ordered(self) -> bool:
        """Window pixels are filled in the order in which the tiles use them."""
        return self.stride == 1 and self.up == 0


@dataclass(frozen=True)
class Strip:
    """The slots of one entry of a layer: all items, or output slots of one item.

    ``out_slot`` and ``fill_slot`` are the first ones within their tensor, ``slots`` and
    ``fill`` (octets) count them, ``lead`` octets are filled before the first tile. ``origin``,
    ``start``, ``window_slots``, ``plane``, ``split`` and ``offset`` (per tap) are those of
    MacEntry.
    """

    items: int
    out_slot: int
    slots: int
    fill_slot: int
    fill: int
    lead: int
    origin: int
    start: int
    window_slots: int
    plane: int
    split: int
    offset: tuple[int, ...]

    @property
    def octets(self) -> int:
        """Output octets."""
        return self.slots // GROUP


def geometry(layer: str, window: Window, src_height: int, src_width: int) -> Geometry:
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
    if stride * up not in (1, 2):
        raise UserError(
            f"layer {layer}: stride {stride} over sources up-sampled by {up}; either stride 2 or "
            "up-sampling by 2 is supported"
        )
    limit_y, limit_x = window.seen(src_height, src_width)
    height = (limit_y + top + bottom - kh) // stride + 1
    width = (limit_x + left + right - kw) // stride + 1
    if (height, width) != (ceil_div(limit_y, stride), ceil_div(limit_x, stride)):
        raise UserError(
            f"layer {layer}: a {kh}x{kw} window with padding {window.pad} and stride {stride} "
            f"makes {height}x{width} of {limit_y}x{limit_x}; only padding that keeps the size "
            "(divided by the stride) is supported"
        )
    taps = [(ky - top, kx - left) for ky in range(kh) for kx in range(kw)]
    return Geometry(
        height=height,
        width=width,
        src_height=src_height,
        src_width=src_width,
        stride=stride,
        up=up - 1,
        limit_y=limit_y,
        limit_x=limit_x,
        ty=tuple(y for y, _ in taps),
        tx=tuple(x for _, x in taps),
    )


def tap_offsets(window: Geometry, plane: int) -> tuple[int, ...]:
    """Window slots from a lane's own to the one that each tap reads; phases have ``plane``."""
    stride = window.stride
    return tuple(
        ((y % stride) * stride + x % stride) * plane + (y // stride) * window.width + x // stride
        for y, x in zip(window.ty, window.tx, strict=True)
    )


def window_span(window: Geometry, items: int, out_slot: int, slots: int) -> tuple[int, int]:
    """(origin, window pixels of a phase) of an entry: what taps of valid lanes reach (the halo).

    With stride 2 the size is 16 more than a multiple of 32: neighbours, which belong to different
    phases, then lie in different banks.
    """
    low, high = 0, items * window.pitch
    if items == 1 and slots < window.pitch:
        reach = tap_offsets(window, 0)
        low = max(0, out_slot + min(reach)) // GROUP * GROUP
        high = min(high, up_to(out_slot + slots + max(reach), GROUP))
    plane = high - low
    if window.stride > 1:
        plane = up_to(plane + SUB, 2 * SUB) - SUB
    return low, plane


def fill_span(window: Geometry, items: int, origin: int, plane: int) -> tuple[int, int]:
    """First source slot, and the one behind the last, that fill the window pixels from ``origin``
    on; whole octets.
    """
    if window.ordered:
        return origin, origin + plane
    if items > 1:
        return 0, items * window.src_pitch
    # the source rows whose pixels, doubled or of any phase, lie in the window
    low, high = origin // window.width, (origin + plane - 1) // window.width + 1
    if window.up:
        low, high = low // 2, ceil_div(high, 2)
    else:
        low, high = 2 * low, 2 * high
    first = low * window.src_width // GROUP * GROUP
    return first, min(window.src_pitch, up_to(high * window.src_width, GROUP))


def strip(
    window: Geometry, items: int, out_slot: int, slots: int, pixels: int, ranks: int
) -> Strip:
    """The entry of ``slots`` output slots from ``out_slot`` on, of ``items`` items.

    ``pixels`` per tile; more than one item means all slots. Sources are filled in whole octets.
    """
    origin, plane = window_span(window, items, out_slot, slots)
    first, end = fill_span(window, items, origin, plane)
    start = out_slot - origin
    fill = (end - first) // GROUP
    return Strip(
        items=items,
        out_slot=out_slot,
        slots=slots,
        fill_slot=first,
        fill=fill,
        lead=_lead(window, out_slot, slots, first, fill, pixels),
        origin=origin,
        start=start,
        window_slots=plane * window.stride**2,
        plane=plane,
        split=_split(window, first, fill, origin, plane, pixels, ranks),
        offset=tap_offsets(window, plane),
    )


def _lead(window: Geometry, out_slot: int, slots: int, first: int, fill: int, pixels: int) -> int:
    """Octets to fill before the first tile so that every later tile, for each of which a tile's
    octets more are filled, finds what the taps of its valid lanes read.

    ``fill`` octets in all, from source slot ``first`` on.
    """
    lane, tile_octets = np.arange(slots), pixels // GROUP
    item, inside = np.divmod(out_slot + lane, window.pitch)
    y, x = inside // window.width, inside % window.width
    reach = np.zeros(slots, dtype=np.int64)
    for ty, tx in zip(window.ty, window.tx, strict=True):
        sy, sx = y * window.stride + ty, x * window.stride + tx
        valid = (sy >= 0) & (sy < window.limit_y) & (sx >= 0) & (sx < window.limit_x)
        source = (
            item * window.src_pitch
            + (sy >> window.up) * window.src_width
            + (sx >> window.up)
            - first
        )
        reach = np.maximum(reach, np.where(valid & (y < window.height), source // GROUP + 1, 0))
    need = int((reach - lane // pixels * tile_octets).max())
    # no octet is left over when the last tile has been computed
    return max(need, fill - ceil_div(slots, pixels) * tile_octets)


def window_indices(
    window: Geometry, slots: NDArray[np.int64], origin: int, plane: int
) -> NDArray[np.int64]:
    """Window index of every copy of source ``slots``: int64 [copies, len(slots)], -1 for none."""
    item, inside = slots // window.src_pitch, slots % window.src_pitch
    y, x = inside // window.src_width, inside % window.src_width
    phase = np.zeros_like(slots)
    if window.stride == 2:
        phase = (y % 2) * 2 + x % 2
        index = [item * window.pitch + y // 2 * window.width + x // 2]
    elif window.up:
        index = [
            np.where(
                (2 * y + dy < window.limit_y) & (2 * x + dx < window.limit_x),
                item * window.pitch + (2 * y + dy) * window.width + 2 * x + dx,
                -1,
            )
            for dy in (0, 1)
            for dx in (0, 1)
        ]
    else:
        index = [slots]
    found = np.stack(index) - origin
    kept = (y < window.src_height) & (found >= 0) & (found < plane)
    return np.where(kept, found + phase * plane, -1)


def _split(
    window: Geometry,
    first: int,
    fill: int,
    origin: int,
    plane: int,
    pixels: int,
    ranks: int,
) -> int:
    """Fewest passes of a Beat in which no half bank is written twice.

    A Beat of R words covers R/2 neighbouring subs (both halves), which lie 8 banks apart.
    """
    if window.ordered:
        return 1
    slots = first + np.arange(fill * GROUP)
    index = window_indices(window, slots, origin, plane).reshape(-1, GROUP)
    subs = np.arange(max(1, ranks // 2)) * GROUP
    lane = np.arange(GROUP)
    for split in (1, 2, 4):
        turn = lane // (GROUP // split) if window.up else lane % split
        if not any(_collide(index[:, turn == s], subs, pixels) for s in range(split)):
            return split
    return GROUP


def _collide(index: NDArray[np.int64], subs: NDArray[np.int64], pixels: int) -> bool:
    """Whether lanes [beats, lanes] of a Beat share a bank."""
    bank = (index[:, :, None] + subs) % pixels
    # lanes that go nowhere get banks of their own
    nowhere = -1 - np.arange(index.shape[1])[:, None] - len(subs) * subs
    bank = np.where(index[:, :, None] >= 0, bank, nowhere)
    ordered = np.sort(bank.reshape(len(index), -1), axis=1)
    return bool((ordered[:, 1:] == ordered[:, :-1]).any())
