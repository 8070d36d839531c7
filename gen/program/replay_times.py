"""When an execution reads and writes the store, in micro-slots (docs/engine.md, "Micro-slots of
store").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gen.program.structs import Shape, StoreEntry

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Times:
    """When an execution reads and writes, whose first micro-slot is number ``start``. Micro-slots
    before ``before`` are written when it begins, those before ``end`` by its flush.
    """

    store: StoreEntry
    tile_octets: int
    start: int
    before: int
    end: int

    @cached_property
    def writes(self) -> Int64:
        """Micro-slot in which each (output group, octet) is written; in a joined execution groups
        of the product with V come before those of the other one.
        """
        shape = self.store.shape
        slots = micro_slots(shape, self.tile_octets)
        return self.start + (slots[shape.by_place] if shape.joined else slots)

    def flushed(self, tiles: Int64) -> Int64:
        """First micro-slot that may not be written when a tile of round 0 reads; -1: lead."""
        store = self.store
        fewer = np.maximum(store.pending - (tiles + 1) * store.pending_tile, store.pending_end)
        limits: Int64 = np.clip(self.start - fewer, self.before, self.end)
        return limits

    def reads(self, octets: Int64) -> tuple[Int64, Int64]:
        """Micro-slots from which on octets of the fill are read (in a joined execution until the
        tile's last one), and the first ones that may not be written then.
        """
        shape, tile = self.store.shape, self.tile_octets
        last = (shape.octets - 1) // tile
        tiles = np.clip((octets - shape.lead) // tile, -1, last)
        return self.writes[0][np.maximum(tiles, 0) * tile], self.flushed(tiles)


def micro_slots(shape: Shape, tile_octets: int) -> Int64:
    """Number of the micro-slot in which each (output group, octet) is written."""
    groups, tiles = shape.units // shape.gates, -(-shape.octets // tile_octets)
    order = np.zeros((groups, tiles), dtype=np.int64)
    number = 0
    for first in range(0, groups, shape.per_round // shape.gates):
        end = min(groups, first + shape.per_round // shape.gates)
        count = (end - first) * tiles
        order[first:end] = number + np.arange(count).reshape(tiles, -1).T
        number += count
    return np.repeat(order, tile_octets, axis=1)[:, : shape.octets]
