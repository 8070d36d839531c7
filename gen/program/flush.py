"""Where the store waits for outstanding writes (docs/engine.md, "Micro-slots of store").

The write of micro-slot m is done when micro-slot m + LAG is over, and what is read a whole
micro-slot later does not meet it in the pipeline; a micro-slot is one (round, tile, output group),
and the lead slot of an execution counts as none. So an entry may begin without a flush if
everything that it reads was written at least LAG + 2 micro-slots earlier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gen.program.engine import Engine
from gen.program.geometry import Strip
from gen.program.layout import GROUP, ceil_div
from gen.program.moves import Moves
from gen.program.planned import Planned
from gen.program.schedule import Schedule
from gen.program.structs import FLUSH_ALWAYS, FLUSH_FIRST, FLUSH_NEVER, Shape


def micro_slots(shape: Shape, pixels: int) -> NDArray[np.int64]:
    """Number of the micro-slot of every (output group, tile) of an execution, in its order."""
    tiles = ceil_div(shape.octets, pixels // GROUP)
    groups, of_round = shape.units // shape.gates, shape.per_round // shape.gates
    group = np.arange(groups)[:, None]
    first = group // of_round * of_round
    wide = np.minimum(of_round, groups - first)
    slots: NDArray[np.int64] = first * tiles + np.arange(tiles) * wide + group - first
    return slots


@dataclass
class Outstanding:
    """What may not be written yet: by tensor, the micro-slot of its last write, and the first
    micro-slot and shape of the entry that made it if it was a single execution.
    """

    lag: int
    pixels: int
    now: int = 0
    last: dict[str, int] = field(default_factory=dict)
    single: dict[str, tuple[int, Shape]] = field(default_factory=dict)

    @property
    def far(self) -> int:
        """Least distance in micro-slots from a write to a read that needs no flush."""
        return self.lag + 2

    def needs_flush(self, made: Planned, shape: Shape) -> bool:
        """Whether an execution beginning now reads something that is not written."""
        sources = [*made.layer.sources]
        if made.weight is not None:
            sources.append(made.weight.name)
        if any(self.now - self.last[name] < self.far for name in sources if name in self.last):
            return True
        residual = made.layer.residual
        if residual is None or residual not in self.last:
            return False
        return self.now + self._closest(residual, shape) < self.far

    def _closest(self, residual: str, shape: Shape) -> int:
        """Least distance from a residual's read to its write, less the present micro-slot."""
        before = self.single.get(residual)
        if before is None or before[1].octets != shape.octets:
            return -self.last[residual]
        start, written = before
        slots = micro_slots(shape, self.pixels) - micro_slots(written, self.pixels)
        return int(slots.min()) - start

    def follow(self, made: Planned, shape: Shape, strip: Strip) -> tuple[int, int]:
        """(pending, pending_tile): the micro-slots, the last ones, that write nothing which the
        lead slot reads (ring weights of round 0, ``lead`` octets of the sources), and so many
        fewer for every tile of round 0 that the octets and residuals which it reads are written.
        """
        tile = self.pixels // GROUP
        first = strip.fill_slot // GROUP
        rings = self.last.get(made.weight.name, -1) if made.weight is not None else -1

        def room(octets: int) -> int:
            """Micro-slots behind the last one that writes the first ``octets`` of the fill."""
            span = (first, min(octets, shape.fill))
            written = [self._written_until(source.name, span) for source in made.sources]
            return min(self.now - 1 - max(rings, *written), self.lag)

        pending, fewer = room(shape.lead), 0
        for index in range(ceil_div(shape.octets, tile)):
            left = room(shape.lead + (index + 1) * tile)
            if made.layer.residual is not None:
                span = (strip.out_slot // GROUP + index * tile, tile)
                left = min(left, self.now - 1 - self._written_until(made.layer.residual, span))
            fewer = max(fewer, ceil_div(pending - left, index + 1))
        return pending, fewer

    def _written_until(self, name: str, octets: tuple[int, int]) -> int:
        """Micro-slot of the last write to (first, number) octets of a tensor; -1: written."""
        if name not in self.last:
            return -1
        if name not in self.single:
            return self.last[name]
        start, shape = self.single[name]
        tile = self.pixels // GROUP
        slots = micro_slots(shape, self.pixels)
        return start + int(slots[:, octets[0] // tile : ceil_div(sum(octets), tile)].max())

    def flush(self) -> None:
        """All writes are done."""
        self.last.clear()
        self.single.clear()

    def run(self, made: Planned, shape: Shape, once: bool) -> None:
        """An execution of a layer; ``once``: the only one that writes its destination."""
        dest = made.dest.name
        self.single.pop(dest, None)
        if once and made.layer.heads <= 1:
            self.single[dest] = (self.now, shape)
        self.now += made.output_groups * ceil_div(shape.octets, self.pixels // GROUP)
        self.last[dest] = self.now - 1


def flushes(
    plan: Schedule, layers: Sequence[Planned], engine: Engine, moves: Sequence[Moves]
) -> list[tuple[int, int, int]]:
    """(flush, pending, pending_tile) of every entry, in order. All is written before moves."""
    state = Outstanding(engine.lag, engine.pixels)
    result = [(FLUSH_NEVER, 0, 0)] * len(plan.work)
    works = [layers[work.layer].of_heads(work.heads) for work in plan.work]
    strips = [made.strips[work.strip] for made, work in zip(works, plan.work, strict=True)]
    shapes = [made.shape(strip) for made, strip in zip(works, strips, strict=True)]
    for segment in plan.segments:
        loops = segment.n0 * segment.n1
        for loop in range(loops):
            for index in range(segment.first, segment.first + segment.count):
                made, shape = works[index], shapes[index]
                if moves[index].before or (moves[index].once and loop == 0):
                    state.flush()
                if state.needs_flush(made, shape):
                    pending, fewer = state.follow(made, shape, strips[index])
                    if result[index][0]:  # of another iteration as well
                        pending = min(pending, result[index][1])
                        fewer = max(fewer, result[index][2])
                    result[index] = (FLUSH_ALWAYS if loop else FLUSH_FIRST, pending, fewer)
                    state.flush()
                state.run(made, shape, loops == 1 and len(made.strips) == 1)
                if moves[index].after:
                    state.flush()
    return result
