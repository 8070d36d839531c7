"""Modelled cycles of a program without simulating it: seconds for the largest U-Nets.

A recurrence over tile slots (docs/engine.md, "Slots of mac") and the micro-slots of the store in
them, with the times at which each part of a rank is through: store and its writes, pre.apply, the
scales of norms, mac, the weight stream, post. A part goes on when it is free, when what it reads is
there, and when what it writes has room; all ranks do the same at the same time. Everything inside a
slot is counted, not simulated; the timed simulation is the reference for cycles, and tests hold
this model against it.

Executions of a segment are followed until a few in a row take equally long, and counted from there
on; so are the rounds of an execution and the tiles of a round.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gen.program.cost_clocks import DDR_LATENCY
from gen.program.cost_rank import RankClock, difference, steady
from gen.program.engine import Engine
from gen.program.layout import GROUP
from gen.program.program import Program


@dataclass(frozen=True)
class LayerCost:
    """Cycles of one entry over all its executions in a step.

    ``multiply`` of them compute something, padding of tiles, groups and subs included; ``weights``
    are spent waiting for the weight stream; the rest are fills and drains.
    """

    layer: str
    executions: int
    cycles: int
    multiply: int
    weights: int


@dataclass(frozen=True)
class StepCost:
    """Modelled cycles of one step and of every entry, in order; ``moves`` of them are spent on
    moves between the store and DDR.
    """

    cycles: int
    layers: list[LayerCost] = field(default_factory=list)
    moves: int = 0

    @property
    def multiply(self) -> int:
        """Cycles in which the array multiplies."""
        return sum(layer.multiply for layer in self.layers)

    @property
    def weights(self) -> int:
        """Cycles that wait for the weight stream."""
        return sum(layer.weights for layer in self.layers)


def update_cycles(program: Program) -> int:
    """Cycles of the sampler's update between two steps of a start (hls/kernels/sampler.hpp)."""
    octets = program.updates.octets + 2
    return DDR_LATENCY + octets * GROUP * program.engine.sampler_channels + _loop(program)


def start_cycles(program: Program, step: int, steps: int) -> int:
    """Cycles of a start of ``steps`` steps, one of which takes ``step``: latent and result pass
    once, so does the sampler's state, and the latent is updated between steps.
    """
    if steps == 1:
        return step
    moved = 2 * (program.input_rows + program.output_rows)
    once = program.engine.timing.kernel_start + DDR_LATENCY + moved + 2 * _loop(program)
    values = program.updates.octets * GROUP * program.engine.sampler_channels
    state = DDR_LATENCY + 2 * values + 3 * _loop(program)
    return steps * step + (steps - 1) * (update_cycles(program) - once) + state


def _loop(program: Program) -> int:
    """Cycles until a loop of the store has begun and run empty."""
    timing = program.engine.timing
    return timing.loop_entry + timing.loop_exit + timing.stages["store"]


class CostModel:
    """Cost of programs on one engine. ``ddr_gb_per_s``: what one bank achieves; ``followed``: runs
    of a segment after which its period is taken for granted.
    """

    def __init__(self, engine: Engine, ddr_gb_per_s: float = 13.0, followed: int = 32) -> None:
        self.followed = followed
        self.word_cycles = max(1.0, 64.0 * engine.clock_mhz / (ddr_gb_per_s * 1000.0))

    def cost(self, program: Program) -> StepCost:
        """Cost of one step."""
        rank = RankClock(program, self.word_cycles)
        totals = [[0.0, 0.0, 0.0, 0.0] for _ in program.entries]
        for index, segment in enumerate(program.segments):
            beyond = program.segments[index + 1 :]
            after = program.entries[beyond[0].first] if beyond else None
            span = range(segment.first, segment.first + segment.count)
            runs, run = segment.n0 * segment.n1, 0
            # rows that wait in FIFO rw are few, and counted one by one
            queued = any(program.entries[k].pre.rows_ahead for k in span) or any(
                program.entries[k].pre.rows_sent for k in span
            )
            periods: list[tuple[float, ...]] = []
            while run < runs:
                before, read, moved = rank.times(), rank.read, rank.moved
                for where in span:
                    made = program.entries[where]
                    following = after
                    if where + 1 in span:
                        following = program.entries[where + 1]
                    elif run + 1 < runs:
                        following = program.entries[segment.first]
                    at = rank.mac
                    multiply, waited = rank.execute(made, following, run)
                    spent = (1, rank.mac - at, multiply, waited)
                    totals[where] = [a + b for a, b in zip(totals[where], spent, strict=True)]
                periods.append(difference(before, rank.times()))
                # the last run is followed again: what it loads ahead differs
                skipped = runs - run - 2
                same = len(periods) > 3 and steady(periods)
                if skipped > 0 and (same or run >= self.followed) and not queued:
                    # the first run, which may have waited longer, is not one of those alike
                    last = [period[0] for period in periods[-1 if same else -4 :]]
                    took = sum(last) / len(last) * skipped
                    rank.advance(took, (rank.read - read) * skipped)
                    rank.moved += (rank.moved - moved) * skipped
                    for where in span:
                        done = totals[where][0]
                        totals[where] = [each * (done + skipped) / done for each in totals[where]]
                    run += skipped
                run += 1
        layers = [
            LayerCost(made.layer, round(n), round(c), round(m), round(w))
            for made, (n, c, m, w) in zip(program.entries, totals, strict=True)
        ]
        return StepCost(rank.finish(program), layers, round(rank.moved))


def step_cost(program: Program, ddr_gb_per_s: float = 13.0) -> StepCost:
    """Modelled cost of one denoising step of ``program``."""
    return CostModel(program.engine, ddr_gb_per_s).cost(program)
