"""The parts of a rank and their clocks: a recurrence over executions, rounds and tile slots.

A part goes on when it is free, when what it reads is there, and when what it writes has room; all
ranks do the same at the same time. Everything inside a slot is counted, not simulated.
"""

from __future__ import annotations

from collections import deque
from math import ceil

from gen.program.cost_clocks import (
    BURST_WORDS,
    DDR_LATENCY,
    WRITE_BUFFER,
    WRITE_SHARE,
    Delays,
    Due,
    LoadClock,
    PostClock,
    ScalesClock,
    StoreClock,
)
from gen.program.cost_slots import Slot, slots_of
from gen.program.program import Entry, Program
from gen.program.structs import RING_NONE, RING_V, ROW_STATS

SAME = 0.01  # cycles by which two periods may differ


def difference(before: tuple[float, ...], after: tuple[float, ...]) -> tuple[float, ...]:
    """What every clock went on by."""
    return tuple(b - a for a, b in zip(before, after, strict=True))


def steady(periods: list[tuple[float, ...]]) -> bool:
    """Whether all clocks went on by the same in the last three periods."""
    spans = [each for period in periods[-3:] for each in period]
    return max(spans) - min(spans) < SAME


class RankClock:
    """A rank in one step of ``program``. ``word_cycles``: of a 64-byte word from DDR."""

    def __init__(self, program: Program, word_cycles: float) -> None:
        self.engine = engine = program.engine
        self.all_moves = program.moves
        self.moved = 0.0  # cycles of moves so far
        self.word_cycles = word_cycles
        self.delays = delays = Delays(engine)
        timing, depths = engine.timing, engine.depths
        self.to_apply = delays.to_next("store")
        self.to_mac = delays.to_next("pre") + delays.line
        self.to_post = delays.to_next("mac")
        self.to_write = delays.to_next("post")
        # words between the store's reads and mac
        self.ahead = depths["xs"] + depths["px"] + depths["gs"] + 2 * timing.stages["pre"]
        if engine.ranks > 1:
            self.ahead += depths["copy"]
        begin = float(timing.kernel_start)
        self.loop = timing.loop_entry + timing.loop_exit
        self.store = StoreClock(engine.lag, engine.guard, delays.between("store"), begin)
        self.store.time += DDR_LATENCY + 2 * program.input_rows * word_cycles + self.loop
        self.post = PostClock(delays, depths["as"] + depths["bs"], begin)
        self.scales = ScalesClock(delays, begin, begin)
        self.apply = self.mac = begin
        self.read = 0  # xs words so far
        # xs words that mac has taken, when, and the cycles from word to word
        self.taken: deque[tuple[int, float, float]] = deque()
        # weight stream: parameters and rows sent so far, through plan, fetch, memory and route
        first = program.entries[0]
        asked = begin + 2 * delays.to_next("wload") + DDR_LATENCY
        self.load = LoadClock(word_cycles, asked, asked)
        self.load.take(1 + first.wload.pp_words, 2)
        # when those of pre.apply are there
        self.constants = self.load.time + delays.to_next("wload")
        self.load.rows(first, first.mac.first_rows)
        self.rows_left = first.mac.first_rows  # of the following execution, for its lead slot
        self.rows = 0  # weight rows from DDR or the cache so far
        # rows that mac had taken before a round, when it began, and its cycles from row to row
        self.rows_taken: deque[tuple[int, float, int]] = deque()

    def finish(self, program: Program) -> int:
        """Cycles of the step: what is left is written, and the result goes to DDR."""
        between, words = self.delays.between("store"), 2 * program.output_rows
        written = self.store.finish() + 2 * between + self.loop
        each = WRITE_SHARE * self.word_cycles
        return ceil(written + max(words, each * (words - WRITE_BUFFER)))

    def _advance(self, cycles: float, words: int) -> None:
        """Go on by ``cycles`` and ``words`` of xs in which tiles pass as before."""
        self.read += words
        self.store.advance(cycles)
        self.post.advance(cycles)
        self.apply += cycles
        self.mac += cycles
        self.taken = deque((n + words, time + cycles, each) for n, time, each in self.taken)

    def advance(self, cycles: float, words: int) -> None:
        """Go on by ``cycles`` and ``words`` in which executions pass as before."""
        self._advance(cycles, words)
        self.scales.advance(cycles)
        self._advance_weights(cycles)

    def _advance_weights(self, cycles: float) -> None:
        self.load.advance(cycles)
        self.constants += cycles
        self.rows_taken = deque((n, time + cycles, pace) for n, time, pace in self.rows_taken)

    def execute(self, entry: Entry, following: Entry | None, run: int) -> tuple[float, float]:
        """Advance over one execution, number ``run`` of its segment; returns its multiply and
        weight-wait cycles.
        """
        lead, rounds = slots_of(entry, self.engine)
        made = entry.store
        once = made.moves_once
        self._move(made.moves_first, once if run else 0, once + made.moves_before)
        self.store.begin(entry, run)
        self.apply = max(self.apply + self.delays.between("pre"), self._constants(entry, run))
        self.ready = deque(self.scales.ready(entry.pre))
        self.each = lead.beats / lead.words if lead.words else 1.0  # mac cycles of an xs word
        multiply, sent = 0.0, [0.0]
        periods: list[tuple[float, ...]]
        waited = self._lead(entry, lead)
        self.post.begin()
        number, periods = 0, []
        while number < len(rounds):
            slots, before, read = rounds[number], self.times(), self.read
            last = number == len(rounds) - 1
            units = slots[0].units
            parameters = units * (1 + entry.wload.bias_words)
            batches = ceil(units / BURST_WORDS)
            if number == 0 and entry.wload.table_words:
                self.load.take(entry.wload.table_words, 1)
            self.load.take(parameters, 2 * batches, units)
            ready = self.load.time + self.delays.to_next("wload")
            self.post.parameters(entry, units, number == 0, ready)
            began = self.mac
            sent = self._round(entry, slots, number == 0, last)
            self.post.sums(entry)
            compute = sum(slot.compute for slot in slots)
            wait = self._weights(entry, following, number, began, compute)
            # rounds of the same slots are one list
            periods = [*periods, difference(before, self.times())]
            alike = sum(each is slots for each in rounds[number + 1 :]) - 1
            skipped = alike if number > 3 and steady(periods) else 0
            if skipped > 0:
                self._advance(periods[-1][0] * skipped, (self.read - read) * skipped)
                self._advance_weights(periods[-1][0] * skipped)
                number += skipped
            multiply += compute * (1 + max(0, skipped))
            waited += wait * (1 + max(0, skipped))
            number += 1
        self.store.end()
        fetched = once + made.moves_before
        self._move(made.moves_first, fetched, fetched + made.moves_after)
        if entry.pre.stats not in ROW_STATS:
            sent = self._items_sent(entry, rounds[-1])
        self.scales.keep(entry.pre, sent)
        return multiply, waited

    def _items_sent(self, entry: Entry, slots: list[Slot]) -> list[float]:
        """When post has sent the sums of every item, the ``slots`` of the last round behind it."""
        if not entry.pre.by_item:
            return [self.post.time]
        end, octets, spent = 0, 0, 0
        total = sum(slot.least for slot in slots)
        sent: list[float] = []
        for slot in slots:
            octets += slot.width
            spent += slot.least
            while end < entry.pre.items_out and (end + 1) * entry.post.item_octets <= octets:
                sent.append(self.post.time - (total - spent))
                end += 1
        return sent

    def _move(self, base: int, first: int, end: int) -> None:
        if first < end:
            moves = self.all_moves[base + first : base + end]
            self.moved += self.store.move(moves, self.word_cycles)

    def _constant_words(self, entry: Entry, again: bool) -> int:
        """Words of pp that come for an execution; ``again``: of the same entry as that before."""
        kept = entry.wload.pp_once == 2 or (entry.wload.pp_once and again)
        return 0 if kept else entry.wload.pp_words

    def _constants(self, entry: Entry, run: int) -> float:
        """When pre.apply has its constants."""
        words = self._constant_words(entry, run > 0)
        return max(self.apply + self.delays.between("pre") + words, self.constants if words else 0)

    def _weights(
        self, entry: Entry, following: Entry | None, number: int, began: float, compute: int
    ) -> float:
        """What the weight stream brings in a round: rows of the next one, or constants and rows of
        the following execution. Returns the cycles that mac waits for.
        """
        shape, source, due = entry.mac.shape, entry, 0
        left = shape.units - (number + 1) * shape.per_round
        if left > 0:
            if shape.ring == RING_NONE:
                due = min(shape.per_round, left) * shape.steps
        elif following:
            source, due = following, following.mac.first_rows
            constants = self._constant_words(following, following is entry)
            self.load.take(1 + constants, 2 if constants else 1)
            self.constants = self.load.time + self.delays.to_next("wload")
        pace = 4 if 4 * due <= compute else 2 if 2 * due <= compute else 1
        # at most as many rows as the round has steps come in it
        now = min(due, compute) if left <= 0 else due
        self.rows_taken.append((self.rows, began, pace))
        self._rows(source, now)
        end = max(self.mac, self.load.time + max(0, compute - pace * now))
        waited, self.mac = end - self.mac, end
        self.rows_left = due - now
        if self.rows_left:
            self.rows_taken.append((self.rows, self.mac, 1))
            self._rows(source, self.rows_left)
        return waited

    def _rows(self, source: Entry, rows: int) -> None:
        """Sends rows of ``source``; FIFO ws is all that they may be ahead of mac."""
        if not rows:
            return
        depth = self.engine.depths["ws"]
        self.load.time = max(self.load.time, self._row_taken(self.rows + 1 - depth))
        self.rows += rows
        self.load.rows(source, rows)
        self.load.time = max(self.load.time, self._row_taken(self.rows - depth))

    def _row_taken(self, row: int) -> float:
        """When mac takes row number ``row`` of the step; rows are asked for in order."""
        while len(self.rows_taken) > 1 and self.rows_taken[1][0] < row:
            self.rows_taken.popleft()
        first, began, pace = self.rows_taken[0]
        return began + pace * (row - first) if row > first else 0.0

    def _lead(self, entry: Entry, slot: Slot) -> float:
        """The lead slot in every part; returns the cycles that mac waits for weight rows."""
        mac, engine = entry.mac, self.engine
        # the last words leave
        begin = max(self.mac + engine.tile_octets // 2, self.post.room(0))
        settled = max(
            (mac.out_slot | (engine.pixels - 1)).bit_length() + 1,
            (mac.fill_slot | 7).bit_length() + 1,
        )
        placed = self.mac + 1 + settled
        if mac.stride > 1 or mac.up:
            begin = max(begin, placed)
        first = self.store.time + self.to_apply + self.to_mac if slot.beats else 0.0
        there = self._read(slot, begin, 0, slot.words + slot.ring)
        if slot.ring:
            # what has not passed the all-gather by then does so word by word
            left = max(0, slot.ring - self._gathered(entry))
            there = max(there, begin + left + slot.words + self.delays.to_next("link"))
        # own rows that are left come before the fill, as far as there are more than Beats
        begin += max(0, self.rows_left - slot.beats) + slot.rows
        # a Beat of several cycles is slower than the store
        filled = max(max(begin, first) + slot.beats, there + self.each - 1)
        # a row that is late holds up the Beat beside it
        late = 0.0
        if self.rows_left:
            late = max(0.0, self.load.time + max(0, slot.beats - self.rows_left) - filled)
            filled += late
        self._take(slot, filled)
        needed = filled - (slot.beats - slot.needed) + engine.guard - 1
        self.mac = max(filled, needed, placed)
        return late

    def _gathered(self, entry: Entry) -> float:
        """Ring words behind the all-gather before mac takes any: those of rows in FIFO ks, and
        Beats that wait to become rows.
        """
        shape, depths = entry.mac.shape, self.engine.depths
        if shape.joined or shape.ring == RING_V:
            return 2 * depths["ks"] / self.engine.byte_rows + depths["copy"]
        rows = depths["ks"] / shape.steps
        return rows * shape.ring_words + depths["copy"] * self.engine.ranks

    def _read(self, slot: Slot, begin: float, first: int, words: int) -> float:
        """The store reads ``words`` of those that mac loads in a slot that begins at ``begin``, the
        first one of which is number ``first``; returns when mac has the last one.
        """
        if not words:
            return 0.0
        self.read += words
        self.store.read(words, self._room(begin))
        apply = max(self.apply + words, self.store.time + self.to_apply)
        each = max(1, slot.words // max(1, slot.octets))
        end = min(first + words, slot.words)
        for word in range(ceil(first / each) * each, end, each):
            apply = max(apply, self.ready.popleft() + end - word)
        self.apply = apply
        # xs is all that the store may be ahead of pre.apply
        self.store.time = max(self.store.time, apply - self.engine.depths["xs"] - self.to_apply)
        return apply + self.to_mac + (self.delays.to_next("link") if slot.rows else 0)

    def _room(self, begin: float) -> float:
        """When the store can have read all words so far: mac has taken all but ``ahead``."""
        until = self.read - self.ahead
        while len(self.taken) > 1 and self.taken[0][0] < until:
            self.taken.popleft()
        if not self.taken or until <= 0:
            return 0.0
        taken, time, each = self.taken[0]
        if taken < until:
            return begin + (until - taken) * self.each
        return time - (taken - until) * each

    def _take(self, slot: Slot, end: float) -> None:
        words = slot.words + slot.ring
        if words:
            each = (slot.beats + slot.rows) / words
            self.taken.append((self.read, end, each))

    def _round(self, entry: Entry, slots: list[Slot], first: bool, last: bool) -> list[float]:
        """Advance over the tiles of a round; returns when post sends the statistics of rows."""
        sent: list[float] = []
        periods: list[tuple[float, ...]] = []
        follows = first and self.store.hurries
        # the time of every row counts
        rows = (last and entry.post.stats in ROW_STATS) or (first and entry.pre.rows_sent > 0)
        index = 0
        while index < len(slots):
            slot = slots[index]
            before = self.times()
            final = last and index == len(slots) - 1
            self._tile(entry, slot, first, final, sent)
            periods.append(difference(before, self.times()))
            skipped = len(slots) - index - 2
            follows = follows and self.store.hurries
            alike = skipped > 0 and not follows and not rows and slot == slots[-2]
            if alike and len(periods) > 3 and steady(periods):
                words = (slot.words + slot.ring) * skipped
                self._advance(periods[-1][0] * skipped, words)
                index += skipped
            index += 1
        return sent

    def times(self) -> tuple[float, ...]:
        """Of mac, post and store."""
        return self.mac, self.post.time, self.store.time

    def _tile(self, entry: Entry, slot: Slot, first: bool, final: bool, sent: list[float]) -> None:
        """One tile slot in every part, micro-slot by micro-slot."""
        store, post, begin, width = self.store, self.post, self.mac, slot.width
        shape, loads = entry.mac.shape, slot.beats + slot.rows
        taken = shape.gates * width  # words that post takes in a micro-slot
        residual = width if entry.post.residual else 0
        words = slot.words + slot.ring
        each = max(1, loads) / max(1, words)  # cycles of an xs word
        store.tile(first)
        time, there, done = begin, 0.0, 0.0
        micros = read = 0  # that the store is through with
        for micro in range(slot.outputs):
            of_v = micro < len(slot.turns) and slot.turns[micro]
            unit = slot.pv_unit if of_v else shape.gates * slot.unit
            wide = entry.post.pv_wide if of_v else entry.post.wide
            done += unit
            # a Beat or row that is late holds up the steps beside it, and the last words of the
            # unit before, which leave meanwhile
            for cycles in (done, done + width / 2):
                while micros <= micro or (read < words and read * each < cycles):
                    reads_v = micros < len(slot.turns) and slot.turns[micros]
                    share = slot.pv_share if reads_v else slot.share
                    began, now = store.time, min(share, words - read)
                    added = store.read(residual) if residual else 0.0
                    if now:
                        there = self._read(slot, begin, read, now) + max(0.0, each - 1)
                    store.complete(began)
                    micros, read = micros + 1, read + now
                loaded = read * each
                late = (cycles - loaded) / each if cycles < loaded else cycles - loaded
                if cycles == done:
                    time = max(time + unit, there + late, post.room(taken) - width / 2)
            left = max(time + width / 2, there + late)
            ready = left + width / 2 + self.to_post
            if residual:
                ready = max(ready, added + self.to_apply)
            post.take(taken, ready)
            made, step = (width, 1) if wide else (ceil(width / 2), 2)
            store.computed(Due(post.time + self.to_write, made, step))
            if entry.post.stats in ROW_STATS and micro == slot.outputs - 1:
                rows = [post.time - left for left in range(width - 1, -1, -1)]
        if entry.post.stats in ROW_STATS:
            sent.extend(rows)
        filled = max(begin + loads, there)
        self.mac = max(time, time + loads - done, there)
        self._take(slot, filled)
        if slot.beats and not final:
            needed = filled - (slot.beats - slot.needed) + self.engine.guard - 1
            self.mac = max(self.mac, needed)
