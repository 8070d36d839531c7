"""Where the store waits for outstanding writes (docs/engine.md, "Micro-slots of store").

The write of micro-slot m is done when micro-slot m + LAG is over; a micro-slot is one (round,
tile, output group), and the lead slot of an execution counts as none. So an entry may begin
without a flush if everything that it reads was written at least LAG micro-slots earlier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gen.program.layout import GROUP, ceil_div
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

    def needs_flush(self, made: Planned, shape: Shape) -> bool:
        """Whether an execution beginning now reads something that is not written."""
        sources = [*made.layer.sources]
        if made.weight is not None:
            sources.append(made.weight.name)
        if any(self.now - self.last[name] <= self.lag for name in sources if name in self.last):
            return True
        residual = made.layer.residual
        if residual is None or residual not in self.last:
            return False
        return self.now + self._closest(residual, shape) <= self.lag

    def _closest(self, residual: str, shape: Shape) -> int:
        """Least distance from a residual's read to its write, less the present micro-slot."""
        before = self.single.get(residual)
        if before is None or before[1].octets != shape.octets:
            return -self.last[residual]
        start, written = before
        slots = micro_slots(shape, self.pixels) - micro_slots(written, self.pixels)
        return int(slots.min()) - start

    def flush(self) -> None:
        """All writes are done."""
        self.last.clear()
        self.single.clear()

    def run(self, made: Planned, shape: Shape, once: bool) -> None:
        """An execution of a layer; ``once``: the only one that writes its destination."""
        dest = made.dest.name
        self.single.pop(dest, None)
        if once:
            self.single[dest] = (self.now, shape)
        self.now += made.output_groups * ceil_div(shape.octets, self.pixels // GROUP)
        self.last[dest] = self.now - 1


def flushes(plan: Schedule, layers: Sequence[Planned], lag: int, pixels: int) -> list[int]:
    """Flush of every entry, in order."""
    state = Outstanding(lag, pixels)
    result = [FLUSH_NEVER] * len(plan.work)
    shapes = [layers[w.layer].shape(layers[w.layer].strips[w.strip]) for w in plan.work]
    for segment in plan.segments:
        loops = segment.n0 * segment.n1
        for loop in range(loops):
            for index in range(segment.first, segment.first + segment.count):
                made = layers[plan.work[index].layer]
                if state.needs_flush(made, shapes[index]):
                    result[index] = FLUSH_ALWAYS if loop else FLUSH_FIRST
                    state.flush()
                state.run(made, shapes[index], loops == 1 and len(made.strips) == 1)
    return result
