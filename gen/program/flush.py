"""Where the store waits for outstanding writes (docs/engine.md, "Micro-slots of store").

The write of micro-slot m is done when micro-slot m + LAG is over, and what is read a whole
micro-slot later does not meet it in the pipeline; a micro-slot is one (round, tile, output group),
and the lead slot of an execution counts as none. So an entry may begin without a flush if
everything that it reads was written at least LAG + 2 micro-slots earlier.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gen.program.engine import Engine
from gen.program.geometry import Strip
from gen.program.join import joined_shape
from gen.program.layout import GROUP, Stored, ceil_div
from gen.program.moves import Moves
from gen.program.planned import Planned
from gen.program.rounds import DRAIN, visit_cycles
from gen.program.schedule import Schedule, Work
from gen.program.structs import FLUSH_ALWAYS, FLUSH_FIRST, FLUSH_NEVER, Segment, Shape

OVERHEAD = 20  # cycles of an execution beside its tiles, estimated


def micro_slots(shape: Shape, pixels: int) -> NDArray[np.int64]:
    """Number of the micro-slot of every (output group, tile) of an execution, in its order."""
    tiles = ceil_div(shape.octets, pixels // GROUP)
    groups, of_round = shape.units // shape.gates, shape.per_round // shape.gates
    group = np.arange(groups)[:, None]
    first = group // of_round * of_round
    wide = np.minimum(of_round, groups - first)
    slots: NDArray[np.int64] = first * tiles + np.arange(tiles) * wide + group - first
    return slots


@dataclass(frozen=True)
class Flush:
    """What the store waits for (``StoreEntry``); ``when``: FLUSH_NEVER, _ALWAYS or _FIRST."""

    when: int = FLUSH_NEVER
    pending: int = 0
    pending_tile: int = 0
    pending_end: int = 0

    def left(self, tiles: NDArray[np.int64]) -> NDArray[np.int64]:
        """Micro-slots that need not be written when a tile of round 0 reads; -1: the lead."""
        return np.maximum(self.pending - (tiles + 1) * self.pending_tile, self.pending_end)

    def both(self, other: Flush) -> Flush:
        """One that waits for what either of them waits for, in every execution."""
        return Flush(
            FLUSH_ALWAYS,
            min(self.pending, other.pending),
            max(self.pending_tile, other.pending_tile),
            min(self.pending_end, other.pending_end),
        )


@dataclass(frozen=True)
class Execution:
    """Of an entry: a strip of a layer, for item ``i0`` (of a layer that goes item by item) and the
    head that is number ``i1`` of the entry's. ``beside``: the product with K that shares it, whose
    units have the last places.
    """

    made: Planned
    strip: Strip
    shape: Shape
    i0: int = 0
    i1: int = 0
    beside: Execution | None = None

    def at(self, i0: int, i1: int) -> Execution:
        """The same of another iteration: so many items and heads farther."""
        beside = self.beside.at(i0, i1) if self.beside else None
        return replace(self, i0=self.i0 + i0, i1=self.i1 + i1, beside=beside)

    @property
    def products(self) -> tuple[Execution, ...]:
        """In the order of their units' places."""
        return (self,) if self.beside is None else (self, self.beside)

    @property
    def head(self) -> int:
        """The head of a product of attention."""
        return self.made.heads.at(self.i1)

    def copy(self, tensor: Stored) -> tuple[str, int]:
        """Which tensor it is: logits of several pairs are as many tensors."""
        several = tensor.logits and tensor.copies > 1
        item = self.i0 if self.made.n0 > 1 else 0
        return tensor.name, item * self.made.layer.heads + self.head if several else 0

    def octets(self, tensor: Stored, slot: int, count: int) -> slice:
        """``count`` octets from pixel slot ``slot`` on, in the tensor."""
        if tensor.logits:
            return slice(0, count)
        item = self.i0 if self.made.n0 > 1 else 0
        first = slot // GROUP + item * tensor.item_octets
        return slice(first, first + count)


@dataclass
class Outstanding:
    """What may not be written yet: of every tensor the micro-slots that wrote it last, int64
    [local groups, octets], -1 where there was none.
    """

    lag: int
    pixels: int
    now: int = 0
    settled: int = -1  # the last micro-slot that is known to be written
    pace: float = 1.0  # cycles of a micro-slot of the last execution
    written: dict[tuple[str, int], NDArray[np.int64]] = field(default_factory=dict)

    @property
    def far(self) -> int:
        """Least distance in micro-slots from a write to a read that needs no flush."""
        return self.lag + 2

    def needs_flush(self, run: Execution) -> bool:
        """Whether an execution beginning now reads something that is not written by then."""
        shape, tile = run.shape, self.pixels // GROUP
        first = micro_slots(shape, self.pixels).min(axis=0)  # of every tile
        # octets behind the lead are read beside a tile of round 0
        beside = np.maximum(np.arange(shape.fill) - shape.lead, 0) // tile
        read = np.where(
            np.arange(shape.fill) < shape.lead, 0, first[np.minimum(beside, len(first) - 1)]
        )
        for each in run.products:
            for source in each.made.sources:
                written = self._latest(each, source, each.strip.fill_slot, shape.fill)
                if self._early(written, read[: len(written)]):
                    return True
            weight = each.made.weight
            if weight is not None and self._early(self._all(each, weight), 0):
                return True
        residual = self._residual(run)
        return residual is not None and self._early(residual, micro_slots(shape, self.pixels))

    def _early(self, written: NDArray[np.int64], read: NDArray[np.int64] | int) -> bool:
        """Whether micro-slots of this execution read what those before it may not have written."""
        distance = self.now + read - written
        return bool((distance[written > self.settled] < self.far).any())

    def follow(self, run: Execution, nothing_left: bool) -> Flush:
        """What may be pending: micro-slots, the last ones, that write nothing which the lead slot
        reads (ring weights of round 0, ``lead`` octets of the sources), so many fewer for every
        tile of round 0 that the octets and residuals which it reads are written, and those that
        write nothing which the execution reads at all. ``nothing_left``: all is written at the end.
        """
        shape, ring = run.shape, -1
        for each in run.products:
            if each.made.weight is not None:
                ring = max(ring, int(self._all(each, each.made.weight).max(initial=-1)))
        until = np.full(shape.fill, ring)  # the last write to what is read up to an octet
        for each in run.products:
            for source in each.made.sources:
                latest = self._latest(each, source, each.strip.fill_slot, shape.fill)
                until[: len(latest)] = np.maximum(until[: len(latest)], latest)
        until = np.maximum.accumulate(until)
        tile, tiles = self.pixels // GROUP, ceil_div(shape.octets, self.pixels // GROUP)
        # what the lead slot and every tile of round 0 read
        ends = shape.lead + tile * np.arange(tiles + 1)
        reads = until[np.minimum(ends, shape.fill) - 1]
        last = int(until[-1])
        residual = self._residual(run)
        if residual is not None:
            first_round = residual[: shape.per_round // shape.gates].max(axis=0)
            reads[1:] = np.maximum(reads[1:], first_round)
            last = max(last, int(residual.max()))
        left = self._left(reads)
        end = 0 if nothing_left else int(self._left(np.array([last]))[0])
        return self._followed(run, left, end)

    def _left(self, reads: NDArray[np.int64]) -> NDArray[np.int64]:
        """Micro-slots that may be pending where these are read."""
        left = np.where(reads > self.settled, self.now - 1 - reads, self.lag)
        return np.minimum(left, self.lag)

    def _followed(self, run: Execution, left: NDArray[np.int64], end: int) -> Flush:
        """The least wait for what may be ``left`` (lead slot, tiles of round 0) and at the ``end``:
        the lead slot may wait for more than it needs, so that fewer are left for every tile.
        """
        shape = run.shape
        tiles = np.arange(len(left))
        visit = tile_cycles(shape, run.made.engine)
        best, least = Flush(FLUSH_FIRST), float("inf")
        for pending in range(int(left[0]), -1, -1):
            over = np.maximum(pending - left[1:], 0)
            fewer = int(np.max(-(-over // tiles[1:]), initial=0))
            if nothing := max(0, pending - end):
                # little by little, then nothing waits for them at the end
                fewer = max(fewer, ceil_div(nothing, len(left) - 1))
            made = Flush(FLUSH_FIRST, pending, fewer, min(end, pending))
            allowed = made.left(tiles - 1)
            wait = float((-allowed * self.pace - np.maximum(tiles - 1, 0) * visit).max())
            if wait < least:
                best, least = made, wait
        return best

    def _latest(self, run: Execution, tensor: Stored, slot: int, count: int) -> NDArray[np.int64]:
        """Last micro-slot that wrote each of the octets that are read; empty: all are written."""
        written = self.written.get(run.copy(tensor))
        if written is None:
            return np.zeros(0, np.int64)
        latest: NDArray[np.int64] = written[:, run.octets(tensor, slot, count)].max(axis=0)
        return latest

    def _all(self, run: Execution, tensor: Stored) -> NDArray[np.int64]:
        """The same of all octets of an item."""
        return self._latest(run, tensor, 0, tensor.item_octets)

    def _residual(self, run: Execution) -> NDArray[np.int64] | None:
        """Last micro-slots that wrote what is added, by (output group, tile)."""
        tensor = run.made.residual
        if tensor is None or run.copy(tensor) not in self.written:
            return None
        octets = run.octets(tensor, run.strip.out_slot, run.shape.octets)
        written = self.written[run.copy(tensor)][: run.made.output_groups, octets]
        starts = np.arange(0, written.shape[1], self.pixels // GROUP)
        by_tile: NDArray[np.int64] = np.maximum.reduceat(written, starts, axis=1)
        return by_tile

    def settle(self, pending: int) -> None:
        """All writes are done but those of the last ``pending`` micro-slots."""
        self.settled = max(self.settled, self.now - 1 - pending)

    def flush(self) -> None:
        """All writes are done."""
        self.written.clear()
        self.settled = self.now - 1

    def run(self, run: Execution) -> None:
        """An execution of a layer."""
        tile = self.pixels // GROUP
        slots = self.now + micro_slots(run.shape, self.pixels)
        if run.shape.joined:
            slots = slots[run.shape.by_place]
        self.now = int(slots.max()) + 1
        self.pace = tile_cycles(run.shape, run.made.engine) / (
            min(run.shape.units, run.shape.per_round) // run.shape.gates
        )
        groups = 0
        for each in run.products:
            dest, made = each.made.dest, each.made
            shape = (dest.local_groups, dest.octets)
            written = self.written.setdefault(each.copy(dest), np.full(shape, -1, np.int64))
            octets = each.octets(dest, each.strip.out_slot, run.shape.octets)
            first = dest.head(each.head).first if made.softmax else 0
            own = slots[groups : groups + made.output_groups]
            groups += made.output_groups
            by_octet = np.repeat(own, tile, axis=1)[:, : run.shape.octets]
            written[first : first + len(own), octets] = by_octet


def tile_cycles(shape: Shape, engine: Engine) -> int:
    """Cycles of a visit of a tile in a round that is not a shorter last one."""
    return visit_cycles(shape, min(shape.units, shape.per_round), engine)


@dataclass
class Flushes:
    """Of every entry that has one, in order."""

    moves: Sequence[Moves]
    works: Sequence[Execution]
    found: dict[int, Flush] = field(default_factory=dict)

    def segment(self, segment: Segment, state: Outstanding, at_once: bool) -> None:
        """All executions of a segment. ``at_once``: the first one has everything before it written
        by its end, so that later ones need not wait for it.
        """
        for loop in range(segment.n0 * segment.n1):
            for index in range(segment.first, segment.first + segment.count):
                run = self.works[index].at(*divmod(loop, segment.n1))
                moves = self.moves[index]
                if moves.before or (moves.once and loop == 0):
                    state.flush()
                first = at_once and loop == 0 and index == segment.first
                if first or state.needs_flush(run):
                    made = state.follow(run, first)
                    before = self.found.get(index)
                    if before:  # of another iteration as well
                        made = made.both(before)
                    self.found[index] = replace(made, when=FLUSH_ALWAYS if loop else FLUSH_FIRST)
                    state.settle(made.pending_end)
                state.run(run)
                if moves.after:
                    state.flush()

    def waits(self, segment: Segment, engine: Engine) -> float:
        """Cycles that later executions of a segment wait because few may be pending, estimated."""
        total = 0.0
        for index in range(segment.first, segment.first + segment.count):
            made = self.found.get(index, Flush())
            if made.when == FLUSH_ALWAYS:
                shape = self.works[index].shape
                cycles = OVERHEAD + tile_cycles(shape, engine) * ceil_div(
                    shape.octets, engine.tile_octets
                ) * ceil_div(shape.units, shape.per_round)
                slots = int(micro_slots(shape, engine.pixels).max()) + 1
                wait = max(0.0, DRAIN - made.pending * cycles / slots)
                total += (segment.n0 * segment.n1 - 1) * wait
        return total

    def always(self, segment: Segment) -> bool:
        """Whether an entry of the segment flushes before every execution."""
        entries = range(segment.first, segment.first + segment.count)
        return any(self.found.get(index, Flush()).when == FLUSH_ALWAYS for index in entries)


def execution(work: Work, layers: Sequence[Planned]) -> Execution:
    """The first execution of an entry."""
    made = layers[work.layer].of_heads(work.heads)
    strip, beside = made.strips[work.strip], None
    shape = made.shape(strip)
    if work.beside is not None:
        beside = execution(work.beside, layers)
        shape = joined_shape(made, beside.made, strip)
    return Execution(made, strip, shape, work.item or 0, beside=beside)


def flushes(
    plan: Schedule, layers: Sequence[Planned], engine: Engine, moves: Sequence[Moves]
) -> list[Flush]:
    """Of every entry, in order. All is written before moves."""
    state = Outstanding(engine.lag, engine.pixels)
    works = [execution(work, layers) for work in plan.work]
    result = Flushes(moves, works)
    for segment in plan.segments:
        before, found = deepcopy(state), dict(result.found)
        result.segment(segment, state, at_once=False)
        if result.waits(segment, engine) > DRAIN:
            other, again = Flushes(moves, works, found), before
            other.segment(segment, again, at_once=True)
            if not other.always(segment):
                result, state = other, again
    return [result.found.get(index, Flush()) for index in range(len(plan.work))]
