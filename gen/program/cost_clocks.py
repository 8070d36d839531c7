"""Clocks of the parts of a rank, for the cost model: the cycle from which each is free again.

A process that leaves its loop after every execution lets its pipeline run empty first. Times at
which something arrives are those from which its reader is free again, if it waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil

from gen.program.engine import Engine
from gen.program.program import Entry
from gen.program.structs import NORM, ROW_NORMS, ROW_STATS, STATS_LAYER, STATS_NONE, Move, PreEntry

GROUP_NORM = NORM["group"]
DDR_LATENCY = 64  # cycles from a request to its first word (hls/sim/timing.hpp)
# time of a word written to DDR in that of one read (13 and 11.5 GB/s), and words that are written
# and not in memory yet (hls/sim/timing.hpp)
WRITE_SHARE, WRITE_BUFFER = 13.0 / 11.5, 256
BURST_WORDS = 64  # of a run, at most (hls/kernels/wload_plan.hpp)
# words that memory is ahead of what passes them on: in a FIFO (WORDS_DEPTH of wload_plan.hpp) and
# in the port (hls/sim/timing.hpp)
WORDS_AHEAD = 64 + 256
SPILL_BURST, SPILL_AHEAD = 64, 8  # hls/kernels/store_moves.hpp
EARLY = 4  # micro-slots that are written early (hls/kernels/store.hpp)
PARAMETER_CYCLES = 2  # from the last parameter of a single unit to its first word
# iterations of post from the last word of a gate table to its use (hls/kernels/post.hpp)
TABLE_CYCLES = 515
STAT_CYCLES = 3  # from the last word of a round to its last sum


@dataclass
class Delays:
    """Cycles between the parts of one engine."""

    engine: Engine

    def to_next(self, kernel: str) -> int:
        """From a read of ``kernel`` to that of the kernel behind it."""
        return self.engine.timing.stages[kernel] + self.engine.timing.fifo_latency

    def between(self, kernel: str) -> int:
        """Between two loops of ``kernel``."""
        timing = self.engine.timing
        return timing.stages[kernel] + timing.loop_entry + timing.loop_exit

    @property
    def line(self) -> int:
        """Through all ranks: copy, hops to the farthest one, join."""
        return self.engine.ranks * self.to_next("link")


@dataclass
class Due:
    """A micro-slot that is not written yet: its ys words, the last of which can be taken at
    ``last``, the others ``step`` cycles apart.
    """

    last: float
    words: int
    step: int


def move_cycles(move: Move, word_cycles: float) -> float:
    """Cycles from the first request of a move to its last word, or to the last answer.

    Bursts are asked for ahead: a word takes as long as the memory takes for it, or one cycle, and
    every burst one more (hls/kernels/store_moves.hpp).
    """
    words = 2 * move.rows * move.repeat
    bursts = ceil(2 * move.rows / SPILL_BURST) * move.repeat
    if move.put:
        return max(words + 2 * bursts, WRITE_SHARE * word_cycles * words + 1) + DDR_LATENCY
    ahead = min(bursts, SPILL_AHEAD)
    return max(words + bursts, word_cycles * words + 1) + DDR_LATENCY - ahead


@dataclass
class StoreClock:
    """The store, micro-slot by micro-slot: what it reads, and what it writes meanwhile."""

    lag: int
    guard: int
    between: int
    time: float = 0.0
    due: deque[Due] = field(default_factory=deque)
    ahead: int = 0  # micro-slots that it has read and the array has not computed
    before: int = 0  # micro-slots of earlier executions that are not written
    allowed: int = 0  # of them, those that may be left now
    next_allowed: int = 0  # and for the next tile
    unhurried: int = 0
    per_tile: int = 0
    at_end: int = 0
    flush: bool = False
    settled: float = 0.0  # when the next tile can read what was written for it

    def begin(self, entry: Entry, run: int) -> None:
        """An execution, number ``run`` of its segment."""
        made = entry.store
        self.flush = made.flush == 1 or (made.flush == 2 and run == 0)
        self.per_tile, self.at_end = made.pending_tile, made.pending_end
        self.time += self.between
        self.before = len(self.due)
        self.allowed = made.pending if self.flush else self.lag
        self.next_allowed, self.settled = 0, 0.0
        self.unhurried = self.lag
        if self.flush:
            self.unhurried = made.pending - min(EARLY, made.pending // 4)
        self._drain()

    @property
    def hurries(self) -> bool:
        """Whether tiles of round 0 wait for writes of earlier executions."""
        return self.flush and self.before > self.at_end

    def tile(self, first_round: bool) -> None:
        """The first micro-slot of a tile is next."""
        if self.flush:
            fewer, end = self.per_tile, self.at_end
            self.allowed = max(end, self.allowed - fewer) if first_round else end
            self.next_allowed = max(end, self.allowed - fewer)
            self.unhurried = max(0, self.allowed - max(EARLY, 2 * fewer))
            self._hold(ceil(self.settled - self.time))
            self._drain()

    def end(self) -> None:
        """All is read."""
        if self.flush:
            self.allowed = self.at_end
            self._drain()

    def read(self, words: int, room: float = 0.0) -> float:
        """Reads of one stream, the last one not before ``room``; returns when they are over."""
        left = words
        while left > 0 and self.due:
            if len(self.due) + self.ahead <= self.lag - EARLY and self.before <= self.unhurried:
                break
            left -= self._write(left)
        self.time = max(self.time + left, room)
        return self.time

    def complete(self, began: float) -> None:
        """The end of a micro-slot."""
        while self.due and len(self.due) + self.ahead >= self.lag:
            self._write(self.due[0].words)
        self.time = max(self.time, began + 1)
        self.ahead += 1

    def computed(self, due: Due) -> None:
        """The oldest micro-slot that it is ahead of the array is ``due``."""
        self.ahead -= 1
        self.due.append(due)

    def move(self, moves: Sequence[Move], word_cycles: float) -> float:
        """All outstanding writes, then moves; returns the cycles that the moves take."""
        if self.due:
            self.finish()
            self.time += self.between
        began = self.time
        for move in moves:
            self.time += self.between + move_cycles(move, word_cycles)
        return self.time - began

    def finish(self) -> float:
        """Writes what is left; returns when it is written."""
        while self.due:
            self._write(self.due[0].words)
        return self.time

    def _write(self, limit: int) -> int:
        oldest = self.due[0]
        words = min(limit, oldest.words)
        oldest.words -= words
        self.time = max(self.time + words, oldest.last - oldest.words * oldest.step)
        if oldest.words == 0:
            self.due.popleft()
            if self.before:
                self.before -= 1
                if self.before >= self.next_allowed:
                    self.settled = self.time + self.guard
        return words

    def _drain(self) -> None:
        if self.before > self.allowed:
            while self.before > self.allowed:
                self._write(self.due[0].words)
            self._hold(self.guard)

    def _hold(self, cycles: int) -> None:
        """Nothing is read for some cycles; what is due soon is written as it is beside reads."""
        self.read(max(0, cycles))

    def advance(self, cycles: float) -> None:
        """All of this ``cycles`` later."""
        self.time += cycles
        self.settled += cycles
        for each in self.due:
            each.last += cycles


@dataclass
class LoadClock:
    """wload: words from memory, and the process that passes them on (``time``)."""

    word_cycles: float
    time: float
    memory: float = 0.0

    def take(self, words: int, runs: int, units: int = 0) -> None:
        """Words that come from memory in some runs, among them scales of some units. What passes
        them on takes a cycle for each, and one more for a run and for a unit's scale, which it
        keeps at first.
        """
        begin = max(self.memory, self.time - WORDS_AHEAD * self.word_cycles)
        self.memory = begin + words * self.word_cycles
        self.time = max(self.time + words + runs + units, self.memory)

    def rows(self, entry: Entry, rows: int) -> None:
        """Weight rows of an entry: of the cache one in a cycle."""
        if entry.wload.cache >= 0:
            self.time += rows
        else:
            words = rows * entry.wload.row_words
            self.take(words, ceil(words / BURST_WORDS))

    def advance(self, cycles: float) -> None:
        """All of this ``cycles`` later."""
        self.time += cycles
        self.memory += cycles


@dataclass
class PostClock:
    """post: parameters, words, sums."""

    delays: Delays
    depth: int  # of FIFOs as and bs together
    time: float = 0.0
    table: float = 0.0  # iterations until the gate table can be used
    words: int = 0
    taken: deque[tuple[int, float]] = field(default_factory=deque)  # words until, and when

    def begin(self) -> None:
        """An execution."""
        self.time += self.delays.between("post")

    def parameters(self, entry: Entry, units: int, first: bool, ready: float) -> None:
        """Those of a round; ``ready``: when the last one can be taken."""
        words = units * (1 + entry.wload.bias_words)
        self.time = max(self.time + words, ready)
        if first and entry.wload.table_words:
            self.time += entry.wload.table_words
            self.table = TABLE_CYCLES
        self.table -= words
        if units == 1:
            self.time += PARAMETER_CYCLES
        if entry.mac.shape.gates == 2 and self.table > 0:
            self.time += self.table
            self.table = 0

    def room(self, words: int) -> float:
        """When ``words`` more words can be written to FIFOs as and bs."""
        until = self.words + words - self.depth
        while len(self.taken) > 1 and self.taken[0][0] < until:
            self.taken.popleft()
        if not self.taken or until <= 0:
            return 0.0
        taken, time = self.taken[0]
        return time - (taken - until) if taken >= until else 0.0

    def take(self, words: int, ready: float) -> None:
        """The words of a micro-slot, the last one not before ``ready``."""
        self.time = max(self.time + words, ready)
        self.table -= words
        self.words += words
        self.taken.append((self.words, self.time))

    def sums(self, entry: Entry) -> None:
        """The end of a round: its last sums leave."""
        if entry.post.stats not in (STATS_NONE, *ROW_STATS):
            self.time += STAT_CYCLES + (1 if entry.pre.by_item else entry.pre.items_out)

    def advance(self, cycles: float) -> None:
        """All of this ``cycles`` later."""
        self.time += cycles
        self.taken = deque((words, time + cycles) for words, time in self.taken)


@dataclass
class ScalesClock:
    """pre.sums, pre.scale and pre.rows: statistics of a destination, scales of a norm."""

    delays: Delays
    sums: float = 0.0
    rows: float = 0.0
    ahead: deque[float] = field(default_factory=deque)  # rows that were sent at once
    items: list[float] = field(default_factory=list)  # when the sums of every item are there
    made: list[float] = field(default_factory=list)  # when the rows of the execution before are
    each: int = 1  # cycles from one of these to the next

    def ready(self, pre: PreEntry) -> Iterator[float]:
        """When pre.apply can read the scales of every octet of its fill."""
        delays = self.delays
        if not pre.rows_first:
            self._keep_rows()
        if pre.norm == GROUP_NORM:
            # per cycle 16 channels, of as many norm groups as there are normalisers
            together = min(delays.engine.normalisers, pre.norm_groups)
            cycles = ceil(pre.norm_groups / together) * ceil(together * pre.group_size / 16)
            behind = delays.to_next("pre") + delays.to_next("scale")
            self.sums += delays.between("pre")
            for item in range(pre.items):
                if item and pre.sums_before:
                    kept = self.sums + delays.between("pre") + pre.sums_before
                    self.sums = max(kept, self.items[item]) + delays.between("pre")
                self.sums += cycles
                octets = pre.item_octets if pre.items > 1 else pre.shape.fill
                yield from [self.sums + behind] * octets
        elif pre.norm in ROW_NORMS:
            for _ in range(pre.rows_sent):
                yield self.ahead.popleft()
            begins = self.rows + delays.between("rows")
            left = pre.shape.fill - pre.rows_sent
            self.rows = begins + left
            for octet in range(left):
                yield begins + octet + 1 + delays.to_next("rows")
        else:
            yield from [0.0] * pre.shape.fill
        self._keep_rows()

    def _keep_rows(self) -> None:
        if self.made:
            least = self.rows + self.delays.between("rows") + self.each * len(self.made)
            self.rows = max(self.made[-1], least)
            self.made = []

    def keep(self, pre: PreEntry, sent: list[float]) -> None:
        """Statistics that post sends at these times: per octet, or the last one of every item."""
        if pre.stats == STATS_NONE:
            return
        delays = self.delays
        way = delays.to_next("post") + delays.line
        begins = self.sums + delays.between("pre")
        if pre.stats not in ROW_STATS:
            self.items = [at + way for at in sent]
            waited = self.items[0 if pre.sums_left else -1]
            self.sums = max(begins + pre.stat_words - pre.sums_left, waited)
            return
        each, behind = 1, delays.to_next("pre")
        if pre.stats == STATS_LAYER:
            each = 8 // delays.engine.normalisers
            behind += delays.to_next("scale")
        kept, time = [], begins
        for at in sent:
            time = max(time, at + way - 1) + each
            kept.append(time + behind)
        self.sums, self.made, self.each = time, kept, each
        self.ahead.extend(at + delays.to_next("rows") for at in kept[: pre.rows_ahead])

    def advance(self, cycles: float) -> None:
        """All of this ``cycles`` later."""
        self.sums += cycles
        self.rows += cycles
        self.ahead = deque(at + cycles for at in self.ahead)
        self.items = [at + cycles for at in self.items]
        self.made = [at + cycles for at in self.made]
