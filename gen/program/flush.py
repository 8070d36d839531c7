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
from gen.program.schedule import Schedule, Work
from gen.program.structs import FLUSH_ALWAYS, FLUSH_FIRST, FLUSH_NEVER, Segment, Shape


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
class Execution:
    """Of an entry: a strip of a layer, for item ``i0`` (of a layer that goes item by item) and the
    head that is number ``i1`` of the entry's. ``beside``: the product with K that shares it, whose
    units come last.
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
        """In the order of their units."""
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
            made = each.made
            for source in made.sources:
                written = self._latest(each, source, each.strip.fill_slot, shape.fill)
                distance = self.now + read[: len(written)] - written
                if len(written) and distance.min() < self.far:
                    return True
            if made.weight is not None:
                written = self._latest(each, made.weight, 0, made.weight.item_octets)
                if len(written) and self.now - written.max() < self.far:
                    return True
        residual = self._residual(run)
        if residual is None:
            return False
        distance = self.now + micro_slots(shape, self.pixels) - residual
        return bool(distance.min() < self.far)

    def follow(self, run: Execution) -> tuple[int, int]:
        """(pending, pending_tile): the micro-slots, the last ones, that write nothing which the
        lead slot reads (ring weights of round 0, ``lead`` octets of the sources), and so many
        fewer for every tile of round 0 that the octets and residuals which it reads are written.
        """
        shape, ring = run.shape, -1
        for each in run.products:
            weight = each.made.weight
            if weight is not None:
                latest = self._latest(each, weight, 0, weight.item_octets)
                ring = max(ring, int(latest.max(initial=-1)))
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
        residual = self._residual(run)
        if residual is not None:
            first_round = residual[: shape.per_round // shape.gates].max(axis=0)
            reads[1:] = np.maximum(reads[1:], first_round)
        left = np.minimum(self.now - 1 - reads, self.lag)
        pending = int(left[0])
        fewer = max(ceil_div(pending - int(each), k + 1) for k, each in enumerate(left[1:]))
        # all are written at the end: little by little, then nothing waits for them there
        return pending, max(fewer, ceil_div(pending, tiles))

    def _latest(self, run: Execution, tensor: Stored, slot: int, count: int) -> NDArray[np.int64]:
        """Last micro-slot that wrote each of the octets that are read; empty: all are written."""
        written = self.written.get(run.copy(tensor))
        if written is None:
            return np.zeros(0, np.int64)
        latest: NDArray[np.int64] = written[:, run.octets(tensor, slot, count)].max(axis=0)
        return latest

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

    def flush(self) -> None:
        """All writes are done."""
        self.written.clear()

    def run(self, run: Execution) -> None:
        """An execution of a layer."""
        tile = self.pixels // GROUP
        slots = self.now + micro_slots(run.shape, self.pixels)
        self.now = int(slots.max()) + 1
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


@dataclass
class Flushes:
    """(flush, pending, pending_tile) of every entry, in order."""

    moves: Sequence[Moves]
    works: Sequence[Execution]
    found: dict[int, tuple[int, int, int]] = field(default_factory=dict)

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
                    pending, fewer = state.follow(run)
                    before = self.found.get(index)
                    if before:  # of another iteration as well
                        pending, fewer = min(pending, before[1]), max(fewer, before[2])
                    self.found[index] = (FLUSH_ALWAYS if loop else FLUSH_FIRST, pending, fewer)
                    state.flush()
                state.run(run)
                if moves.after:
                    state.flush()

    def always(self, segment: Segment) -> bool:
        """Whether an entry of the segment flushes before every execution."""
        entries = range(segment.first, segment.first + segment.count)
        return any(self.found.get(index, (0,))[0] == FLUSH_ALWAYS for index in entries)


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
) -> list[tuple[int, int, int]]:
    """(flush, pending, pending_tile) of every entry, in order. All is written before moves."""
    state = Outstanding(engine.lag, engine.pixels)
    works = [execution(work, layers) for work in plan.work]
    result = Flushes(moves, works)
    for segment in plan.segments:
        before, found = deepcopy(state), dict(result.found)
        result.segment(segment, state, at_once=False)
        if result.always(segment):
            other, again = Flushes(moves, works, found), before
            other.segment(segment, again, at_once=True)
            if not other.always(segment):
                result, state = other, again
    return [result.found.get(index, (FLUSH_NEVER, 0, 0)) for index in range(len(plan.work))]
