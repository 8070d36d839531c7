"""Where the values of a tensor lie: physical channels, groups on ranks, rows of the store.

A logical channel c of a tensor with heads is physical channel (c div d) * pitch + c mod d, with d
channels per head and pitch = d rounded up to whole groups; without heads they are the same. Group
G = physical channels 8G..8G+7 lies on rank G mod R as local group G div R. Rows follow
docs/engine.md, "Activation store".
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

from gen.layers import TensorInfo

GROUP = 8  # channels of a group, pixels of an octet
SUB = 16  # channels of one reduction step, pixel slots that an item is rounded up to
ROW = 128  # bytes of a row of the store
WORD = 64  # bytes of a word of DDR


def up_to(value: int, multiple: int) -> int:
    """``value`` rounded up to a multiple."""
    return (value + multiple - 1) // multiple * multiple


def ceil_div(value: int, by: int) -> int:
    """Quotient rounded up."""
    return -(-value // by)


def equal_strips(slots: int, most: int, pixels: int) -> int:
    """Length of the fewest strips of whole tiles that ``slots`` are cut into, of ``most`` at most
    (at least one tile), all but the last of equal length.
    """
    return up_to(ceil_div(slots, ceil_div(slots, most // pixels * pixels)), pixels)


@dataclass(frozen=True)
class HeadPlace:
    """Where the ``groups`` groups of a head lie: from rank ``phase`` of local group ``first`` on,
    in ``local_groups`` local groups.
    """

    first: int
    phase: int
    groups: int
    local_groups: int

    @property
    def lane(self) -> int:
        """First channel of the head, counted from those of its first local group."""
        return self.phase * GROUP

    @property
    def end(self) -> int:
        """Groups from its first local group on, until the head ends."""
        return self.phase + self.groups


@dataclass(frozen=True)
class HeadLoop:
    """Heads ``first``, ``first + step`` ..: ``count`` of them, one after the other."""

    first: int = 0
    step: int = 0
    count: int = 1

    def at(self, i1: int) -> int:
        """Head of an iteration."""
        return self.first + i1 * self.step


@dataclass(frozen=True)
class Stored:
    """A tensor in the activation stores of ``ranks`` ranks, at the same rows in each.

    ``row`` is the first row; ``wide`` says int16 instead of int8. Attention ``logits`` exist in
    ``copies`` that follow each other, one for every batch item and head or a single one, of one
    item each, and for ``strip`` pixel slots at one time (0: for all).
    """

    name: str
    row: int
    wide: bool
    items: int
    channels: int
    height: int
    width: int
    heads: int = 1
    ranks: int = 1
    logits: bool = False
    copies: int = 1
    strip: int = 0

    @property
    def pixels(self) -> int:
        """Pixels of one item."""
        return self.height * self.width

    @property
    def pitch(self) -> int:
        """Pixel slots of one item."""
        return up_to(self.pixels, SUB)

    @property
    def item_octets(self) -> int:
        """Octets of one item that exist at one time."""
        return (self.strip or self.pitch) // GROUP

    @property
    def octets(self) -> int:
        """Octets of all items (NO)."""
        return self.items * self.item_octets

    @property
    def head_channels(self) -> int:
        """Logical channels of one head."""
        return self.channels // self.heads

    @property
    def head_pitch(self) -> int:
        """Physical channels from head to head; all channels without heads."""
        return self.head_groups * GROUP if self.heads > 1 else self.channels

    @property
    def physical(self) -> int:
        """Physical channels."""
        return self.heads * self.head_pitch

    @property
    def groups(self) -> int:
        """Groups of 8 physical channels (n)."""
        return ceil_div(self.physical, GROUP)

    @property
    def local_groups(self) -> int:
        """Groups on every rank (L)."""
        return ceil_div(self.groups, self.ranks)

    @property
    def head_groups(self) -> int:
        """Groups of one head that hold channels."""
        return ceil_div(self.head_channels, GROUP)

    def head(self, number: int) -> HeadPlace:
        """Where a head lies."""
        first, phase = divmod(number * self.head_groups, self.ranks)
        local = ceil_div(phase + self.head_groups, self.ranks)
        return HeadPlace(first, phase, self.head_groups, local)

    @property
    def head_period(self) -> int:
        """Heads after which one begins at the same rank again."""
        return self.ranks // gcd(self.head_groups, self.ranks)

    @property
    def group_rows(self) -> int:
        """Rows from local group to local group."""
        return self.octets if self.wide else self.octets // 2

    @property
    def copy_rows(self) -> int:
        """Rows of one copy."""
        return self.local_groups * self.group_rows

    @property
    def rows(self) -> int:
        """Rows in all, of each rank."""
        return self.copies * self.copy_rows

    @property
    def stat_words(self) -> int:
        """Places of group norm sums: items x groups of all ranks, padding included."""
        return self.items * self.stats_pitch

    @property
    def stats_pitch(self) -> int:
        """Places of group norm sums of one item."""
        return self.local_groups * self.ranks

    def physical_channels(self) -> NDArray[np.int64]:
        """Physical channel of every logical one: int64 [channels]."""
        logical = np.arange(self.channels, dtype=np.int64)
        return logical // self.head_channels * self.head_pitch + logical % self.head_channels


def stored(info: TensorInfo, bits: int, batch: int, ranks: int, heads: int = 0) -> Stored:
    """Layout of a tensor of the layer graph, at row 0. ``heads``: of attention logits."""
    logits = info.role == "scores"
    return Stored(
        name=info.name,
        row=0,
        wide=bits == 16,
        items=1 if logits else batch,
        channels=info.channels,
        height=info.height,
        width=info.width,
        heads=info.heads,
        ranks=ranks,
        logits=logits,
        copies=batch * heads if logits else 1,
    )
