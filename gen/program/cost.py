"""Modelled cycles of a program: per slot, the busiest kernel decides (docs/engine.md, "Slots").

A model, not a measurement: it knows no stalls inside a slot. The timed simulation is the reference
for cycles; this is for choosing engines.
"""

from __future__ import annotations

from dataclasses import dataclass

from gen.program.engine import Engine
from gen.program.program import Entry, Program

# processes that a value passes from the store's read to its write
STAGES = 5


@dataclass(frozen=True)
class Cost:
    """Model of one entry, one execution: cycles, and the multiplier steps that are useful work."""

    layer: str
    executions: int
    cycles: int
    busy: int

    @property
    def total(self) -> int:
        """Cycles of all executions in one step."""
        return self.executions * self.cycles


def entry_cycles(entry: Entry, following_ws_words: int, engine: Engine) -> tuple[int, int]:
    """Cycles of one execution and how many of them multiply."""
    store, mac, wload, shape = entry.store, entry.mac, entry.wload, entry.mac.shape
    sources = store.source[: store.sources]
    xs_words = sum(region.blocks * region.planes for region in sources)
    px_words = sum(region.blocks for region in sources)
    group_words = wload.ws_words or store.weights.words
    from_store = store.weights.words > 0
    qp_words = shape.gates * (1 + wload.bias_words)
    per_pixel = max(px_words, xs_words)
    first = group_words if mac.load_first else 0
    # weights of the first group, then the first pixels
    lead = first + shape.lead * per_pixel
    tile_words = engine.pixels // 8
    # results leave during a gate's steps, so those never take less
    multiply = max(shape.steps, tile_words) * shape.gates
    total, busy, filled = lead, 0, shape.lead
    for group in range(shape.groups):
        last = group == shape.groups - 1
        load = following_ws_words if last else group_words
        for tile in range(shape.tiles):
            filling = min(engine.pixels, shape.fill - filled) if group == 0 else 0
            filled += filling
            weights = -(-load // shape.tiles)
            reads = filling * xs_words + tile_words * store.residual_planes
            if from_store and not last:
                reads += weights
            extra = qp_words if tile == 0 else 0
            writes = tile_words * entry.post.planes
            total += max(
                multiply,
                filling * px_words,
                weights + extra,
                reads,
                writes,
                tile_words * shape.gates,
            )
            busy += shape.steps * shape.gates
    timing = engine.timing
    drain = STAGES * (timing.pipeline_depth + timing.fifo_latency + timing.loop_entry)
    return total + drain + timing.loop_exit, busy


def costs(program: Program) -> list[Cost]:
    """Model of every entry, in order."""
    result = []
    for index, entry in enumerate(program.entries):
        ahead = program.entries[index + 1].wload.ws_words if entry.wload.prefetch_next else 0
        cycles, busy = entry_cycles(entry, ahead, program.engine)
        segment = program.segment_of(index)
        result.append(Cost(entry.layer, segment.n0 * segment.n1, cycles, busy))
    return result


def step_cycles(program: Program) -> int:
    """Modelled cycles of one denoising step."""
    copies = program.input_rows + program.output_rows
    return program.engine.timing.kernel_start + copies + sum(c.total for c in costs(program))
