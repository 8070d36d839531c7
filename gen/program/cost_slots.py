"""What passes in every tile slot of an execution, for the cost model."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from gen.program.engine import Engine
from gen.program.program import Entry
from gen.program.structs import RING_NONE


@dataclass
class Slot:
    """Words and cycles of one slot of the multiplier array; ``compute`` 0: the lead slot."""

    octets: int = 0  # of the fill
    words: int = 0  # xs words of them
    beats: int = 0  # cycles of them in mac
    needed: int = 0  # of these, those that the next slot waits for
    ring: int = 0  # xs words of ring weights
    rows: int = 0  # weight rows that they make
    # xs words that the store reads in a micro-slot, with V and else, as long as some are left
    pv_share: int = 0
    share: int = 0
    # cycles of a unit in the array, with V and else, and of all of them
    pv_unit: int = 0
    unit: int = 0
    compute: int = 0
    turns: tuple[bool, ...] = ()  # of a joined execution: which units are those with V
    units: int = 0
    outputs: int = 0  # output groups
    width: int = 0  # octets of the tile

    @property
    def least(self) -> int:
        """Cycles from tile to tile: of the array, or of post, which takes a word in each."""
        return max(self.compute, self.units * self.width)


def slots_of(entry: Entry, engine: Engine) -> tuple[Slot, list[list[Slot]]]:
    """The lead slot, and the tile slots of every round (docs/engine.md, "Slots of mac"); rounds of
    the same slots share a list.
    """
    shape, mac, tile = entry.mac.shape, entry.mac, engine.tile_octets
    per_octet = sum(mac.groups[: mac.sources])
    copies = (4 if mac.up else 1) * mac.split
    tiles = ceil(shape.octets / tile)
    ring = shape.ring != RING_NONE
    # gather makes rows of two V words, or of the R words of a K Beat, of which every rank keeps one
    # in R; mac takes a cycle for each, or for each half
    per_row = shape.ring_words / shape.steps if ring else 1.0
    first = min(shape.per_round, shape.units)
    # with one cycle per Beat of several ranks, subs come no slower than the first tap reads them
    chases = engine.ranks > 1 and copies == 1

    def filling(octets: int, room: int) -> Slot:
        beats = octets * per_octet * copies
        needed = min(octets, room) * per_octet * copies
        return Slot(
            octets, octets * per_octet, beats, max(0, needed - (per_octet - 1 if chases else 0))
        )

    turns = tuple(shape.of_v(unit) for unit in range(shape.units)) if shape.joined else ()
    lead = filling(shape.lead, shape.lead - mac.late)
    lead.ring = shape.weight_words(first)
    lead.rows = shape.rows(first) if ring else 0
    rounds: list[list[Slot]] = []
    filled, done, before = shape.lead, 0, (0, 0)
    while done < shape.units:
        units = min(shape.per_round, shape.units - done)
        following = min(shape.units, done + units + shape.per_round)
        left = shape.weight_words(following) - shape.weight_words(done + units)
        alike = (units, left)
        if len(rounds) > 1 and alike == before:
            rounds.append(rounds[-1])
            done += units
            continue
        share, made = ceil(left / tiles), []
        for index in range(tiles):
            slot = filling(min(tile, shape.fill - filled) if done == 0 else 0, tile - mac.late)
            filled += slot.octets
            slot.ring = min(share, left) if done else (left if index == tiles - 1 else 0)
            left -= slot.ring
            slot.rows = ceil(slot.ring / per_row)
            slot.units, slot.outputs = units, units // shape.gates
            slot.share = slot.words + slot.ring
            slot.unit = engine.unit_cycles(shape.steps)
            if shape.joined:
                slot.pv_share, slot.share = entry.store.pv_share, entry.store.share
                slot.pv_unit = engine.unit_cycles(shape.pv_steps)
                slot.turns = turns
            slot.compute = (units - shape.pv_units) * slot.unit + shape.pv_units * slot.pv_unit
            slot.width = min(tile, shape.octets - index * tile)
            made.append(slot)
        rounds.append(made)
        done, before = done + units, alike
    return lead, rounds
