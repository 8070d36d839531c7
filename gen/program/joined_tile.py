"""A tile of joined products: what the store reads beside its units, and the cycles it takes."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

from gen.program.cost_clocks import EARLY, Delays
from gen.program.engine import Engine
from gen.program.layout import ceil_div
from gen.program.planned import Planned
from gen.program.structs import Shape, of_v

FOLLOWED = 8  # tiles of an execution; the others take as long as the last one of them

Shares = tuple[int, int]


@dataclass(frozen=True)
class Tile:
    """What passes in the slot of a tile: units with V and with K, the cycles of each in the array,
    and the Beats of the tile that is filled meanwhile, some of them V's.
    """

    engine: Engine
    v_units: int
    k_units: int
    v_cycles: int
    k_cycles: int
    v_beats: int
    beats: int

    @classmethod
    def of(cls, values: Planned, keys: Planned) -> Tile:
        """Of neighbouring pairs (item, head)."""
        groups = values.local_groups[0], keys.local_groups[0]
        units, steps = (values.units, keys.units), (values.steps, keys.steps)
        return cls._of(units, steps, groups, keys.engine)

    @classmethod
    def of_shape(cls, shape: Shape, groups: tuple[int, ...], engine: Engine) -> Tile:
        """Of an execution of both that fills local ``groups`` of their sources."""
        units = shape.pv_units, shape.units - shape.pv_units
        return cls._of(units, (shape.pv_steps, shape.steps), groups, engine)

    @classmethod
    def _of(
        cls, units: tuple[int, int], steps: tuple[int, int], groups: tuple[int, ...], engine: Engine
    ) -> Tile:
        v_cycles, k_cycles = (engine.unit_cycles(each) for each in steps)
        octets = engine.tile_octets
        return cls(engine, *units, v_cycles, k_cycles, octets * groups[0], octets * sum(groups))

    @property
    def every(self) -> int:
        """Units from one with V to the next: they stand apart, so that post catches up with those
        with K beside each.
        """
        return (self.v_units + self.k_units) // self.v_units

    @property
    def idle(self) -> int:
        """Cycles in which the array is idle where the products come one after the other: with K
        post is slower, with V the fill of the next tile.
        """
        of_k = self.k_units * max(0, self.engine.tile_octets - self.k_cycles)
        return of_k + max(0, self.v_beats - self.v_units * self.v_cycles)

    @property
    def shares(self) -> Shares:
        """Words of the fill that the store reads in a micro-slot with V and in one with K: the same
        number, or with V as many as Beats that the array takes beside it, and with K as many as are
        written meanwhile. The former reads evenly, the latter does not let the array wait.
        """
        even = ceil_div(self.beats, self.v_units + self.k_units)
        left = self.beats - self.v_units * self.v_cycles
        least = max(self.k_cycles, self.engine.tile_octets)
        uneven = self.v_cycles, max(least, ceil_div(left, self.k_units))
        flowing = [each for each in ((even, even), uneven) if self.flows(each)]
        return min(flowing or [uneven], key=lambda each: self.cycles(each, FOLLOWED))

    def flows(self, shares: Shares) -> bool:
        """Whether the store can send what the array takes beside the long units with V.

        The array takes a Beat of the next tile in every cycle and waits for it; the store has sent
        the shares of LAG - EARLY micro-slots before it waits for what these units become.
        """
        sent = [0, *accumulate(self._by_unit(shares))]
        leave = ceil_div(self.engine.tile_octets, 2)
        return all(
            min(end + leave, self.beats) <= sent[min(unit + self._lag, len(sent) - 1)]
            for unit, end in enumerate(accumulate(self._by_unit((self.v_cycles, self.k_cycles))))
        )

    def cycles(self, shares: Shares, tiles: int) -> int:
        """Cycles of the ``tiles`` of an execution, unit by unit: in the array, which waits for
        Beats and, where those with K are faster than post, for room in FIFOs as and bs; in post;
        and of the store's reads, which wait for what a unit becomes.
        """
        engine, delays = self.engine, Delays(self.engine)
        there = delays.to_next("store") + delays.to_next("pre") + delays.line
        queued = max(1, (engine.depths["as"] + engine.depths["bs"]) // engine.tile_octets)
        takes, reads = self._by_unit((self.v_cycles, self.k_cycles)), self._by_unit(shares)
        units = len(takes)
        sent = [0, *(min(each, self.beats) for each in accumulate(reads))]
        taken = [min(each, self.beats) for each in accumulate(takes)]
        # the micro-slot that reads the last Beat taken beside a unit
        brings = [bisect_left(sent, each) - 1 for each in taken]
        array, ends = 0, [0]
        post, read = [0], [0]  # when it is through with a unit or micro-slot, behind a 0
        for tile in range(min(tiles, FOLLOWED)):
            fills, first = tile < tiles - 1, tile * units
            for unit in range(units):
                array += takes[unit]
                while fills and len(read) - 1 <= first + brings[unit]:
                    micro = (len(read) - 1) % units
                    written = len(read) - self._lag
                    begin = read[-1]
                    if 0 < written < len(post):
                        begin = max(begin, post[written] + delays.to_next("post"))
                    read.append(begin + max(1, sent[micro + 1] - sent[micro]))
                if fills and tile:  # Beats beside the first tile are read during the lead slot
                    behind = sent[brings[unit] + 1] - taken[unit]
                    array = max(array, read[first + brings[unit] + 1] + there - behind)
                array = max(array, post[max(0, len(post) - queued)])
                left = array + engine.tile_octets + delays.to_next("mac")
                post.append(max(post[-1] + engine.tile_octets, left))
            ends.append(array)
        return ends[-1] + max(0, tiles - FOLLOWED) * (ends[-1] - ends[-2])

    @property
    def _lag(self) -> int:
        """Micro-slots that the store is ahead before it waits."""
        return self.engine.lag - min(EARLY, self.engine.lag - 2)

    def _by_unit(self, values: tuple[int, int]) -> list[int]:
        """The first of ``values`` for units with V, the other one for those with K."""
        units = range(self.v_units + self.k_units)
        return [values[0 if of_v(unit, self.v_units, self.every) else 1] for unit in units]
