"""Where the values of a tensor lie: physical channels, pixel slots, rows of the store.

A logical channel c of a tensor with heads is physical channel (c div d) * pitch + c mod d, with
d channels per head and ``gen.layers.head_pitch`` as pitch; without heads they are the same.
Rows follow docs/engine.md, "Activation store".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gen.layers import TensorInfo, head_pitch

BLOCK = 64  # channels of a row
WORD = 64  # bytes of a row of the store and of a word of DDR
SUB = 16  # channels of one reduction step
GROUP = 8  # channels of one output group, pixels of one word


def up_to(value: int, multiple: int) -> int:
    """``value`` rounded up to a multiple."""
    return (value + multiple - 1) // multiple * multiple


def ceil_div(value: int, by: int) -> int:
    """Quotient rounded up."""
    return -(-value // by)


@dataclass(frozen=True)
class Stored:
    """A tensor in the activation store.

    ``row`` is the first row; ``planes`` 1 (int8) or 2 (int16); ``items`` batch items (1 for
    attention logits, which exist for one item and head at a time).
    """

    name: str
    row: int
    planes: int
    items: int
    channels: int
    height: int
    width: int
    heads: int = 1

    @property
    def pixels(self) -> int:
        """Pixels of one item."""
        return self.height * self.width

    @property
    def pitch(self) -> int:
        """Pixel slots of one item (NPXP)."""
        return up_to(self.pixels, GROUP)

    @property
    def slots(self) -> int:
        """Pixel slots of all items (NPX)."""
        return self.items * self.pitch

    @property
    def head_channels(self) -> int:
        """Logical channels of one head."""
        return self.channels // self.heads

    @property
    def head_pitch(self) -> int:
        """Physical channels from head to head; all channels without heads."""
        return head_pitch(self.head_channels) if self.heads > 1 else self.channels

    @property
    def physical(self) -> int:
        """Physical channels."""
        return self.heads * self.head_pitch if self.heads > 1 else self.channels

    @property
    def blocks(self) -> int:
        """Blocks of 64 physical channels (CB)."""
        return ceil_div(self.physical, BLOCK)

    @property
    def block_rows(self) -> int:
        """Rows from block to block."""
        return self.slots

    @property
    def plane_rows(self) -> int:
        """Rows from plane to plane."""
        return self.blocks * self.slots

    @property
    def rows(self) -> int:
        """Rows in all."""
        return self.planes * self.plane_rows

    def physical_channels(self) -> NDArray[np.int64]:
        """Physical channel of every logical one: int64 [channels]."""
        logical = np.arange(self.channels, dtype=np.int64)
        if self.heads == 1:
            return logical
        return logical // self.head_channels * self.head_pitch + logical % self.head_channels

    def logical_channels(self, lanes: int) -> NDArray[np.int64]:
        """Logical channel of physical lanes 0..lanes-1, -1 for padding: int64 [lanes]."""
        result = np.full(max(lanes, self.blocks * BLOCK), -1, dtype=np.int64)
        result[self.physical_channels()] = np.arange(self.channels)
        return result[:lanes]


def stored(info: TensorInfo, bits: int, batch: int, row: int = 0) -> Stored:
    """Layout of a tensor of the layer graph."""
    return Stored(
        name=info.name,
        row=row,
        planes=bits // 8,
        items=1 if info.role == "scores" else batch,
        channels=info.channels,
        height=info.height,
        width=info.width,
        heads=info.heads,
    )
