"""Modelled cycles of a program without simulating it: seconds for the largest U-Nets.

A recurrence over tile slots (docs/engine.md, "Slots of mac") with the times at which each kernel of a
rank is through with a slot: store, pre.apply, mac, post, the weight stream, and the store's writes.
A kernel begins a slot when it is free, when what it reads is there, and when what it writes has room;
all ranks do the same at the same time. Everything inside a slot is counted, not simulated; the timed
simulation is the reference for cycles, and tests hold this model against it.

Executions of a segment are followed until two in a row take equally long, and counted from there on;
so are the tiles of a round.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, fields
from math import ceil

from gen.program.engine import Engine
from gen.program.program import Entry, Program
from gen.program.structs import NORM, RING_K, RING_NONE, STATS_LAYER, STATS_SOFTMAX

GROUP_NORM, ROW_NORMS = NORM["group"], (NORM["layer"], NORM["softmax"])
ROW_STATS = (STATS_LAYER, STATS_SOFTMAX)
WORDS_PER_ROW = 2  # 64-byte DDR words of a weight row
TABLE_CYCLES = 8  # of a 64-byte word of a gate table (hls/kernels/post_word.hpp)
SAME = 0.01  # cycles by which two periods may differ


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
    """Times, in cycles, at which each part of a rank is through with what it has done so far."""

    store: float = 0.0  # last read
    apply: float = 0.0  # last operand
    mac: float = 0.0  # last slot
    rows: float = 0.0  # weight stream: last row due so far
    post: float = 0.0  # last word
    written: float = 0.0  # last write
    stats: float = 0.0  # sums of the last measured destination kept
    norm: float = 0.0  # pre.norm: last scale


@dataclass
class _Slot:
    """One tile slot: words that pass in it."""

    fill: int = 0
    beats: int = 0  # cycles of the fill in mac
    settled: int = 0  # those that must be GUARD cycles old when the next slot begins
    ring: int = 0
    rows: int = 0  # ring weight rows that mac takes
    compute: int = 0
    outputs: int = 0  # output groups
    words: int = 0  # accumulator words
    residual: int = 0


class CostModel:
    """Cost of programs on one engine. ``ddr_gb_per_s``: what one bank achieves; ``followed``: runs
    of a segment after which its period is taken for granted.
    """

    def __init__(
        self,
        engine: Engine,
        weight_bits: int = 8,
        ddr_gb_per_s: float = 13.0,
        followed: int = 8,
    ) -> None:
        self.engine, self.followed = engine, followed
        timing, stages = engine.timing, engine.timing.stages
        self.enter = timing.loop_entry + timing.loop_exit
        self.stages, self.fifo = stages, timing.fifo_latency
        hop = stages["link"] + self.fifo
        # copy, hops to the farthest rank, join
        self.link = (engine.ranks + 1) * hop
        self.to_apply = stages["store"] + self.fifo
        self.to_mac = stages["pre"] + self.fifo + self.link
        self.to_scale = stages["pre"] + stages["scale"] + 2 * self.fifo
        self.to_post = stages["mac"] + self.fifo
        self.to_write = stages["post"] + self.fifo
        depths = engine.depths
        # words between the store's reads and mac
        self.ahead = depths["xs"] + depths["px"] + depths["gs"] + 2 * stages["pre"]
        self.word_cycles = max(1.0, 64.0 * engine.clock_mhz / (ddr_gb_per_s * 1000.0))
        self.row_cycles = max(1.0, WORDS_PER_ROW * self.word_cycles * weight_bits / 8)
        self._written: deque[tuple[int, float, float]] = deque()
        self._micro = 0

    def rows_time(self, entry: Entry, rows: int) -> float:
        """Cycles in which ``rows`` weight rows of an entry arrive."""
        return rows * (1.0 if entry.wload.cache >= 0 else self.row_cycles)

    def slots(self, entry: Entry) -> list[list[_Slot]]:
        """The lead slot (a list of its own), then the tile slots of every round."""
        engine, shape, mac = self.engine, entry.mac.shape, entry.mac
        per_octet = sum(mac.groups[: mac.sources])
        copies = (4 if mac.up else 1) * mac.split
        tiles = ceil(shape.octets / engine.tile_octets)
        ring = shape.ring != RING_NONE
        # gather makes a row of two V words, or of the R words of a K Beat, which every rank keeps
        # one of R of
        per_row = 2.0 if shape.ring != RING_K else shape.ring_words / max(1, shape.steps)
        first = min(shape.per_round, shape.units) * shape.ring_words if ring else 0
        lead = shape.lead * per_octet
        # with one cycle per Beat of several ranks, subs come no slower than the first tap reads them
        chases = engine.ranks > 1 and copies == 1
        late = mac.late * per_octet * copies

        def settled(octets: int) -> int:
            beats = octets * per_octet * copies
            return max(0, beats - late - (per_octet - 1 if chases and octets else 0))

        rounds = [[_Slot(lead, lead * copies, settled(shape.lead), first, ceil(first / per_row))]]
        filled, done = shape.lead, 0
        while done < shape.units:
            units = min(shape.per_round, shape.units - done)
            following = min(shape.per_round, shape.units - done - units) if ring else 0
            left = following * shape.ring_words
            share = ceil(left / tiles)
            made = []
            for tile in range(tiles):
                octets = min(engine.tile_octets, shape.octets - tile * engine.tile_octets)
                fill = min(engine.tile_octets, shape.fill - filled) if done == 0 else 0
                filled += fill
                load = min(share, left) if done else (left if tile == tiles - 1 else 0)
                left -= load
                outputs = units // shape.gates
                made.append(
                    _Slot(
                        fill * per_octet,
                        fill * per_octet * copies,
                        settled(fill),
                        load,
                        ceil(load / per_row),
                        units * max(shape.steps, engine.tile_octets),
                        outputs,
                        units * octets,
                        outputs * octets * entry.post.residual,
                    )
                )
            rounds.append(made)
            done += units
        return rounds

    def _write_time(self, micro: int) -> float:
        """When micro-slot ``micro`` of the step has been written."""
        while len(self._written) > 1 and self._written[1][0] <= micro:
            self._written.popleft()
        if not self._written or micro < self._written[0][0]:
            return 0.0
        first, base, each = self._written[0]
        return base + (micro - first + 1) * each

    def execute(
        self, entry: Entry, following: Entry | None, clock: _Clock, run: int
    ) -> tuple[float, float]:
        """Advance ``clock`` over one execution, number ``run`` of its segment; returns its multiply
        and weight-wait cycles.
        """
        engine, shape = self.engine, entry.mac.shape
        octets = engine.tile_octets
        flush = entry.store.flush == 1 or (entry.store.flush == 2 and run == 0)
        lead, *rounds = self.slots(entry)

        # store: the lead slot, after the flush but for what it may leave
        clock.store += self.enter
        before, allowed = self._micro, entry.store.pending
        if flush:
            clock.store = max(clock.store, self._write_time(before - allowed - 1) + engine.guard)
        ready = self._constants(entry, clock, run)
        words = lead[0].fill + lead[0].ring
        clock.store = max(clock.store, clock.mac - self.ahead) + words
        clock.apply = max(clock.store - words + self.to_apply, clock.apply, ready) + words
        # mac: the last words of the execution before leave first; ring weights before the fill
        start = clock.mac + octets
        late = lead[0].beats - lead[0].settled
        clock.mac = max(start + lead[0].rows + lead[0].beats, clock.apply + self.to_mac)
        clock.mac = max(clock.mac - late + engine.guard, clock.rows)
        # post takes a gate table row by row before its first word, and as holds a few words only
        table = entry.wload.table_words * TABLE_CYCLES
        if table:
            clock.mac = max(clock.mac, clock.post + self.enter + table - self.to_post)

        multiply, waited, began = 0.0, 0.0, clock.mac
        for number, slots in enumerate(rounds):
            last = number == len(rounds) - 1
            follows = (before, allowed, entry.store.pending_tile) if flush else None
            self._round(slots, clock, follows if number == 0 else None)
            if number == 0 and flush and not last:
                clock.store = max(clock.store, self._write_time(before - 1) + engine.guard)
            multiply += sum(slot.compute for slot in slots)
            if last:
                source, due = following or entry, following.mac.first_rows if following else 0
            else:
                units = min(shape.per_round, shape.units - (number + 1) * shape.per_round)
                source, due = entry, 0 if shape.ring != RING_NONE else units * shape.steps
            # rows of the next round come during this one, the scale and bias words among them
            words = slots[0].compute // max(1, max(shape.steps, octets))
            other = words * (1 + entry.wload.bias_words) * self.word_cycles
            begins = max(clock.rows, began)
            clock.rows = begins + self.rows_time(source, due) + other
            if not last and clock.rows > clock.mac:
                waited += clock.rows - clock.mac
                clock.mac = clock.rows
            began = clock.mac
        clock.post = max(clock.post, clock.mac + octets + self.to_post)
        clock.written = clock.post + self.to_write
        self._stats(entry, clock)
        return multiply, waited

    def _constants(self, entry: Entry, clock: _Clock, run: int) -> float:
        """When pre.apply can begin: its constants are loaded, its scales are there."""
        pre = entry.pre
        constants = 0 if pre.pp_once and run else entry.wload.pp_words
        ready = clock.apply + self.enter + constants
        if pre.norm == GROUP_NORM:
            words = sum(ceil(c / 16) for c in pre.channels[: pre.sources])
            # of one item: 16 channels a cycle, and the groups that end in them; the fill of an item
            # begins with its scales
            scales = max(words, ceil(pre.norm_groups / self.engine.normalisers))
            begins = max(clock.stats, clock.norm) + self.enter
            clock.norm = begins + pre.items * scales
            ready = max(ready, begins + scales + self.to_scale)
        elif pre.norm in ROW_NORMS and not pre.rows_sent:
            clock.norm = max(clock.stats, clock.norm) + self.enter
            ready = max(ready, clock.norm + self.stages["rows"] + self.fifo)
            clock.norm += entry.mac.shape.fill
        elif pre.norm in ROW_NORMS:
            # they come tile by tile, as soon as the rows are complete
            behind = self._write_time(self._micro - entry.store.pending - 1)
            ready = max(ready, behind + self.link + self.to_scale)
        return ready

    def _round(
        self, slots: list[_Slot], clock: _Clock, follows: tuple[int, int, int] | None
    ) -> None:
        """Advance over the tiles of a round. ``follows``: micro-slots before the execution, how
        many of them need not be written before the lead slot, and how many fewer per tile.
        """
        period, previous = 0.0, clock.mac
        for index, slot in enumerate(slots):
            if follows:
                before, allowed, fewer = follows
                left = max(0, allowed - (index + 1) * fewer) if fewer else 0
                due = self._write_time(before - left - 1) + self.engine.guard
                clock.store = max(clock.store, due)
            self._slot(slot, clock)
            took, previous = clock.mac - previous, clock.mac
            rest = len(slots) - index - 2
            follows_on = follows and follows[1] > (index + 1) * follows[2] > 0
            if rest > 0 and index >= 4 and not follows_on and slot == slots[-2]:
                if abs(took - period) < SAME:
                    self._advance(clock, took * rest, slot.outputs * rest)
                    self._slot(slots[-1], clock)
                    break
            period = took

    def _advance(self, clock: _Clock, cycles: float, micro: int) -> None:
        """Go on by ``cycles`` in which ``micro`` micro-slots pass as before."""
        for member in fields(clock):
            if member.name not in ("stats", "norm", "rows"):
                setattr(clock, member.name, getattr(clock, member.name) + cycles)
        self._micro += micro
        if micro:
            self._written = deque(
                (first + micro, base + cycles, each) for first, base, each in self._written
            )

    def _slot(self, slot: _Slot, clock: _Clock) -> None:
        """One tile slot in every kernel."""
        engine = self.engine
        octets, load = engine.tile_octets, slot.fill + slot.ring
        # store: micro-slot by micro-slot; the first one reads what mac loads in this slot
        residual = slot.residual // max(1, slot.outputs)
        first = max(octets, residual + load)
        later = max(octets, residual)
        room = clock.mac - self.ahead
        begun = max(clock.store, room)
        begun = max(begun, self._write_time(self._micro - engine.lag) - octets) + first
        loaded = begun
        for micro in range(1, slot.outputs):
            due = self._write_time(self._micro + micro - engine.lag) - octets
            begun = max(begun, due) + later
        clock.store = begun
        if load:
            clock.apply = max(clock.apply + load, loaded + self.to_apply)
            there = clock.apply + self.to_mac
        else:
            there = 0.0
        start = clock.mac
        clock.mac = max(start + slot.compute, start + slot.rows)
        if slot.beats:
            late = slot.beats - slot.settled
            filled = max(start + slot.beats, there)
            clock.mac = max(clock.mac, filled - late + engine.guard)
        # post and writes: the words of a unit leave during the next one
        if slot.outputs:
            unit = (clock.mac - start) / slot.outputs
            clock.post = max(clock.post + slot.words, clock.mac + octets + self.to_post)
            clock.post = max(clock.post, clock.store + self.stages["store"] + self.fifo)
            done = clock.post + self.to_write
            each = min(max(unit, octets), max(0.0, done - clock.written) / slot.outputs)
            self._written.append((self._micro, done - each * slot.outputs, each))
            self._micro += slot.outputs
            clock.written = done

    def _stats(self, entry: Entry, clock: _Clock) -> None:
        """When the destination's statistics are kept."""
        if not entry.pre.stats:
            return
        arrive = clock.post + self.stages["post"] + self.fifo + self.link
        if entry.pre.stats in ROW_STATS:
            octet = 8 / self.engine.normalisers
            clock.stats = max(arrive + octet, clock.stats + octet * entry.pre.stat_words)
            clock.stats += self.to_scale + self.enter
        else:
            # the words of the last tile's last output group are the last to come
            clock.stats = arrive + entry.pre.items_out + self.enter

    def cost(self, program: Program) -> StepCost:
        """Cost of one step."""
        self._written.clear()
        self._micro = 0
        begin = program.engine.timing.kernel_start + 2 * program.input_rows + self.enter
        clock = _Clock(begin, begin, begin, begin, begin, begin, begin, begin)
        first = program.entries[0]
        clock.rows = self.engine.timing.kernel_start + self.rows_time(first, first.mac.first_rows)
        totals = [[0.0, 0.0, 0.0, 0.0] for _ in program.entries]
        for index, segment in enumerate(program.segments):
            beyond = program.segments[index + 1 :]
            after = program.entries[beyond[0].first] if beyond else None
            span = range(segment.first, segment.first + segment.count)
            runs, run, period = segment.n0 * segment.n1, 0, 0.0
            while run < runs:
                before, micro = clock.mac, self._micro
                for where in span:
                    entry = program.entries[where]
                    following = after
                    if where + 1 in span:
                        following = program.entries[where + 1]
                    elif run + 1 < runs:
                        following = program.entries[segment.first]
                    at = clock.mac
                    multiply, waited = self.execute(entry, following, clock, run)
                    spent = (1, clock.mac - at, multiply, waited)
                    totals[where] = [a + b for a, b in zip(totals[where], spent, strict=True)]
                took = clock.mac - before
                same = run >= 2 and abs(took - period) < SAME
                # the last run is followed again: what it loads ahead differs
                skipped = runs - run - 2
                if skipped > 0 and (same or run >= self.followed):
                    self._advance(clock, took * skipped, (self._micro - micro) * skipped)
                    for where in span:
                        done = totals[where][0]
                        totals[where] = [each * (done + skipped) / done for each in totals[where]]
                    run += skipped
                run, period = run + 1, took
        cycles = ceil(clock.written + 2 * program.output_rows + self.enter)
        layers = [
            LayerCost(entry.layer, round(n), round(c), round(m), round(w))
            for entry, (n, c, m, w) in zip(program.entries, totals, strict=True)
        ]
        return StepCost(cycles, layers)


def step_cost(program: Program, weight_bits: int = 8, ddr_gb_per_s: float = 13.0) -> StepCost:
    """Modelled cost of one denoising step of ``program``, weights of 8 or 4 bits in DDR."""
    return CostModel(program.engine, weight_bits, ddr_gb_per_s).cost(program)
