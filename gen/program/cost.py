"""Modelled cycles of a program without simulating it: seconds for the largest U-Nets.

A recurrence over executions with the times at which each kernel of a rank is free; inside an
execution, per tile slot, the busiest of multiplying, filling, loading weights, reading and writing
decides (docs/engine.md, "Slots of mac", "Micro-slots of store"). All ranks do the same at the same
time. The timed simulation is the reference for cycles; tests hold this model against it.

Repeated executions of a segment are followed until two in a row take equally long, and counted from
there on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

from gen.program.engine import Engine
from gen.program.program import Entry, Program
from gen.program.structs import NORM, RING_NONE, STATS_LAYER, STATS_SOFTMAX

GROUP_NORM, ROW_NORMS = NORM["group"], (NORM["layer"], NORM["softmax"])
ROW_STATS = (STATS_LAYER, STATS_SOFTMAX)
WORDS_PER_ROW = 2  # 64-byte DDR words of a weight row
# executions of a loop that are followed before its period is taken for granted
FOLLOWED = 6


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
    """Modelled cycles of one step and of every entry, in order."""

    cycles: int
    layers: list[LayerCost] = field(default_factory=list)

    @property
    def multiply(self) -> int:
        """Cycles in which the array multiplies."""
        return sum(layer.multiply for layer in self.layers)

    @property
    def weights(self) -> int:
        """Cycles that wait for the weight stream."""
        return sum(layer.weights for layer in self.layers)


@dataclass
class _Clock:
    """Times, in cycles, at which each part of a rank is free."""

    read: float = 0.0  # store: next read
    written: float = 0.0  # store: last write done
    apply: float = 0.0  # pre.apply: last operand sent
    mac: float = 0.0  # mac: last slot
    stats: float = 0.0  # pre.norm: sums of the last measured destination kept


class CostModel:
    """Cost of programs on one engine. ``ddr_gb_per_s``: what one bank achieves."""

    def __init__(self, engine: Engine, weight_bits: int = 8, ddr_gb_per_s: float = 13.0) -> None:
        self.engine = engine
        timing, stages = engine.timing, engine.timing.stages
        self.enter = timing.loop_entry + timing.loop_exit
        self.stages = stages
        self.fifo = timing.fifo_latency
        hop = stages["link"] + self.fifo
        # copy, hops to the farthest rank, join
        self.link = (engine.ranks + 1) * hop
        self.to_apply = stages["store"] + self.fifo
        self.to_mac = stages["pre"] + self.fifo + self.link
        self.to_store = stages["mac"] + self.fifo + stages["post"] + self.fifo
        word_cycles = 64.0 * engine.clock_mhz / (ddr_gb_per_s * 1000.0)
        self.word_cycles = max(1.0, word_cycles)
        self.row_cycles = max(1.0, WORDS_PER_ROW * self.word_cycles * weight_bits / 8)

    def rows_time(self, entry: Entry, rows: int) -> float:
        """Cycles in which ``rows`` weight rows of an entry arrive."""
        return rows * (1.0 if entry.wload.cache >= 0 else self.row_cycles)

    def execute(self, entry: Entry, following: Entry | None, clock: _Clock,
                run: int) -> tuple[float, float]:  # fmt: skip
        """Advance ``clock`` over one execution; returns its multiply and weight-wait cycles."""
        engine, shape, mac = self.engine, entry.mac.shape, entry.mac
        flush = entry.store.flush == 1 or (entry.store.flush == 2 and run == 0)
        constants = 0 if entry.pre.pp_once and run else entry.wload.pp_words
        beats = sum(mac.groups[: mac.sources])
        copies = (4 if mac.up else 1) * mac.split
        ring = shape.ring != RING_NONE
        rounds = ceil(shape.units / shape.per_round)
        tiles = ceil(shape.octets / engine.tile_octets)

        # the store begins; pre.apply needs its constants
        start = max(clock.read, clock.written + 1 if flush else 0.0) + self.enter
        arrive = start + self.to_apply
        ready = clock.apply + self.enter + constants
        if entry.pre.norm == GROUP_NORM:
            words = sum(
                entry.pre.items * ceil(c / 8) for c in entry.pre.channels[: entry.pre.sources]
            )
            scales = entry.pre.items * entry.pre.norm_groups
            sums = max(clock.stats, clock.apply if not flush else 0.0) + self.enter
            ready = max(
                ready,
                # norm: sums, normaliser; apply: takes the scales as they come
                sums + words + scales + 2 * self.stages["pre"] + 2 * self.fifo + self.enter,
            )
        elif entry.pre.norm in ROW_NORMS:
            ready = max(ready, clock.stats + self.stages["pre"] + self.fifo + self.enter)
        first = max(arrive, ready)
        first_round = min(shape.per_round, shape.units)
        lead = first_round * shape.ring_words * ring + shape.lead * beats
        lead_there = first + lead + self.to_mac

        # mac: lead slot
        begin = clock.mac + self.enter + self.stages["mac"]
        own = first_round * shape.ring_words * ring + shape.lead * beats * copies
        now = max(begin + own, lead_there) + engine.guard
        began, multiply, waited = now, 0.0, 0.0
        filled = shape.lead
        outputs = shape.gates
        for round_ in range(rounds):
            units = min(shape.per_round, shape.units - round_ * shape.per_round)
            last = round_ == rounds - 1
            if last:
                due = following.mac.first_rows if following else 0
                source = following or entry
            else:
                due = min(shape.per_round, shape.units - (round_ + 1) * shape.per_round)
                due *= shape.ring_words if ring else shape.steps
                source = entry
            compute = units * max(shape.steps, engine.tile_octets)
            groups = units // outputs
            share = ceil(due / tiles)
            busy, left = 0.0, due
            for tile in range(tiles):
                octets = min(engine.tile_octets, shape.octets - tile * engine.tile_octets)
                fill = 0
                if round_ == 0:
                    fill = min(engine.tile_octets, shape.fill - filled)
                    filled += fill
                if ring and round_ == 0 and not last:
                    rows = due if tile == tiles - 1 else 0
                else:
                    rows = min(share, left)
                left -= rows
                reads = fill * beats + groups * octets * entry.post.residual
                loads = max(fill * beats * copies, rows)
                slot = max(
                    compute,
                    loads + engine.guard if loads else 0,
                    reads,
                    groups * engine.tile_octets,
                )
                busy += slot
                if round_ > 0 and not (last and due) and tile >= 2:
                    # nothing but the same from here on
                    busy += slot * (tiles - tile - 1)
                    break
            arrives = 0.0 if ring and not last else self.rows_time(source, due)
            # scale and bias words of the round share the port
            arrives += units * (1 + entry.wload.bias_words) * self.word_cycles
            waited += max(0.0, arrives - busy)
            now += max(busy, arrives)
            multiply += compute * tiles
        now += engine.tile_octets
        clock.mac = now
        ended = now + self.to_store
        micro = max(engine.tile_octets, (now - began) * outputs / max(1, shape.units * tiles))
        clock.read = max(start, ended - engine.lag * micro)
        clock.apply = max(first, clock.read)
        clock.written = ended + 2
        if entry.pre.stats:
            burst = entry.pre.stat_words if entry.pre.stats not in ROW_STATS else 8
            clock.stats = ended + burst + self.link + self.stages["pre"] + self.enter
            if entry.pre.stats in ROW_STATS:
                # one normaliser for 8 pixels of every octet
                clock.stats = max(clock.stats, began + 8 * entry.pre.stat_words + self.link)
        return multiply, waited

    def cost(self, program: Program) -> StepCost:
        """Cost of one step."""
        clock = _Clock(read=program.engine.timing.kernel_start + program.input_rows)
        clock.mac = clock.apply = clock.written = clock.read
        first = program.entries[0]
        clock.mac += self.rows_time(first, first.mac.first_rows)
        totals = [[0, 0.0, 0.0, 0.0] for _ in program.entries]
        for index, segment in enumerate(program.segments):
            runs = segment.n0 * segment.n1
            after = (
                program.entries[program.segments[index + 1].first]
                if index + 1 < len(program.segments)
                else None
            )
            period = 0.0
            for run in range(runs):
                before = clock.mac
                for position in range(segment.count):
                    entry = program.entries[segment.first + position]
                    inside = position + 1 < segment.count
                    if inside or run + 1 < runs:
                        where = segment.first + (position + 1 if inside else 0)
                        following: Entry | None = program.entries[where]
                    else:
                        following = after
                    at = clock.mac
                    multiply, waited = self.execute(entry, following, clock, run)
                    total = totals[segment.first + position]
                    total[0] += 1
                    total[1] += clock.mac - at
                    total[2] += multiply
                    total[3] += waited
                took = clock.mac - before
                rest = runs - run - 1
                if rest > 1 and run >= 2 and (took == period or run >= FOLLOWED):
                    self._skip(clock, totals, segment.first, segment.count, took, rest - 1, run + 1)
                    # the last one is followed again: what it loads ahead differs
                    runs_left = runs - 1
                    self._last(program, segment.first, segment.count, after, clock, totals,
                               runs_left)  # fmt: skip
                    break
                period = took
        cycles = ceil(clock.written + program.output_rows + self.enter)
        layers = [
            LayerCost(entry.layer, int(n), round(c), round(m), round(w))
            for entry, (n, c, m, w) in zip(program.entries, totals, strict=True)
        ]
        return StepCost(cycles, layers)

    def _skip(self, clock: _Clock, totals: list[list[float]], first: int, count: int, took: float,
              runs: int, done: int) -> None:  # fmt: skip
        """Advance over ``runs`` executions of ``took`` cycles each."""
        for name in vars(clock):
            setattr(clock, name, getattr(clock, name) + took * runs)
        for index in range(first, first + count):
            n = totals[index][0]
            for column in range(1, 4):
                totals[index][column] *= (n + runs) / n
            totals[index][0] += runs
        del done

    def _last(self, program: Program, first: int, count: int, after: Entry | None, clock: _Clock,
              totals: list[list[float]], run: int) -> None:  # fmt: skip
        """The last run of a segment."""
        for position in range(count):
            entry = program.entries[first + position]
            inside = position + 1 < count
            following = program.entries[first + position + 1] if inside else after
            at = clock.mac
            multiply, waited = self.execute(entry, following, clock, run)
            total = totals[first + position]
            total[0] += 1
            total[1] += clock.mac - at
            total[2] += multiply
            total[3] += waited


def step_cost(program: Program, weight_bits: int = 8, ddr_gb_per_s: float = 13.0) -> StepCost:
    """Modelled cost of one denoising step of ``program``, weights of 8 or 4 bits in DDR."""
    return CostModel(program.engine, weight_bits, ddr_gb_per_s).cost(program)
