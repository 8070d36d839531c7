"""Replay of all accesses to the store and to the statistics with marked cells.

A write marks cells with the identity of what is written (tensor, copy, local group, octet); a read
must find the mark of what the layer means to read, and must not come before the write is done
(docs/engine.md, "Micro-slots of store"). This finds overlapping live tensors, wrong strides and
addresses, missing flushes. Moves carry marks from the store to DDR and back, so that what was not
put there, or is overwritten too early, is found where it is read. With a sampler the replay ends
with its update. All ranks run the same program, so one of them is replayed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gen.program.layout import GROUP, Stored
from gen.program.marks import NOTHING, MarkedMemory, Names
from gen.program.products import products
from gen.program.program import Entry, Program
from gen.program.replay_times import Times
from gen.program.structs import (
    FLUSH_ALWAYS,
    FLUSH_FIRST,
    RING_K,
    RING_NONE,
    STATS_GROUP,
    STATS_GROUP_ADD,
    STATS_NONE,
    Addr,
    Move,
    Region,
    StoreEntry,
)

Int64 = NDArray[np.int64]


def replay(program: Program) -> str | None:
    """What the first wrong access is, or None."""
    run = _Replay(program)
    fault = run.exchange(program.input, write=True)
    for segment in program.segments:
        for i0 in range(segment.n0):
            for i1 in range(segment.n1):
                run.enter(i0, i1)
                for entry in program.entries[segment.first : segment.first + segment.count]:
                    fault = fault or run.moves_before(entry.store)
                    fault = fault or run.entry(entry)
                    fault = fault or run.moves_after(entry.store)
                    if fault:
                        return f"layer {entry.layer}: {fault}"
    fault = run.exchange(program.output, write=False)
    if program.has_sampler:
        fault = fault or run.update()
    return fault


class _Replay:
    """State of a replay: marked memories, the current loop, the item and head of the product at
    hand, the number of the micro-slot.

    The store has two cells per row: the planes of a wide octet, or two narrow octets.
    """

    def __init__(self, program: Program) -> None:
        self.program, self.engine = program, program.engine
        names, sums = Names(), Names()
        for name, tensor in program.tensors.items():
            pairs = self._pairs(name) if tensor.logits else 1
            names.add(name, pairs * tensor.local_groups * self._octets(tensor))
            sums.add(name, tensor.stat_words)
        self.store = MarkedMemory(2 * self.engine.store_rows, "half row", names)
        self.sums = MarkedMemory(self.engine.stats_words, "word of sums", sums)
        self.ddr = MarkedMemory(2 * program.spill_rows, "half row of DDR", names)
        self.rows = MarkedMemory(self.engine.row_octets, "octet of row statistics", names)
        # micro-slots of the last write and read of every cell; the first one that may not be done
        self.written = np.full(len(self.store.cells), -1)
        self.last_read = np.full(len(self.store.cells), -1)
        self.flushed = self.slot = 0
        self.enter(0, 0)

    def enter(self, i0: int, i1: int) -> None:
        """The next iteration of a segment."""
        self.loop = (i0, i1)
        self.item = self.head = 0

    def turn_to(self, product: Entry) -> None:
        """One of the products of an execution."""
        self.item = product.item + self.loop[0]
        self.head = product.heads.at(self.loop[1])

    def _pairs(self, logits: str) -> int:
        """Items x heads of an attention."""
        return self.program.batch * self._heads(logits)

    def _heads(self, logits: str) -> int:
        """Heads of an attention."""
        entry = next(e for e in self.program.entries if e.dest == logits)
        return self.program.tensors[entry.sources[0]].heads

    # identities

    @staticmethod
    def _octets(tensor: Stored) -> int:
        return tensor.items * tensor.pitch // GROUP

    def part(self, tensor: Stored, groups: Int64, octets: Int64, head: int = -1) -> Int64:
        """Marks of local groups and octets of the present item; groups of a ``head`` count from its
        first one.
        """
        copy = 0
        item = self.item
        if tensor.logits:
            copy, item = self.item * self._heads(tensor.name) + self.head, 0
        elif head >= 0:
            groups = groups + tensor.head(head).first
        octets = octets + item * tensor.pitch // GROUP
        first = self.store.names.first[tensor.name]
        return first + (copy * tensor.local_groups + groups) * self._octets(tensor) + octets

    # the store

    def cells(self, region: Region, groups: Int64, octets: Int64) -> Int64:
        """Cells of paired local groups and octets of a region."""
        row = region.row.at(*self.loop) + groups * region.group_rows
        at = region.octet.at(*self.loop) + octets
        if region.wide:
            return np.concatenate([2 * (row + at), 2 * (row + at) + 1])
        return 2 * row + at

    def read(
        self,
        name: str,
        region: Region,
        pairs: tuple[Int64, Int64],
        first: int,
        when: Int64 | int,
        flushed: Int64 | int,
        head: int = -1,
    ) -> str | None:
        """Check that (group, octet) pairs hold octets ``first`` + octet of an item, written before
        micro-slot ``when``; those before ``flushed`` are.
        """
        tensor = self.program.tensors[name]
        if region.wide != int(tensor.wide):
            return f"{name} is {'wide' if tensor.wide else 'narrow'}, its region is not"
        groups, octets = pairs
        cells, times = self.cells(region, groups, octets), 1 + region.wide
        marks = np.tile(self.part(tensor, groups, octets + first, head), times)
        fault = self.store.read(name, cells, marks)
        if fault:
            return fault
        due = self.written[cells]
        now, done = (np.tile(np.broadcast_to(n, groups.shape), times) for n in (when, flushed))
        self.last_read[cells] = np.maximum(self.last_read[cells], now)
        late = (due >= done) & (due > now - 2 - self.engine.lag)
        if late.any():
            return f"{name} is read before it is written; a flush is missing"
        return None

    def exchange(self, name: str, write: bool) -> str | None:
        """The latent is written, or the result read."""
        tensor = self.program.tensors[name]
        region = Region(Addr(tensor.row), Addr(), 0, int(tensor.wide), tensor.group_rows)
        groups, octets = _grid(tensor.local_groups, self._octets(tensor))
        self.enter(0, 0)
        cells = self.cells(region, groups, octets)
        marks = np.tile(self.part(tensor, groups, octets), 1 + region.wide)
        return self.store.write(cells, marks) if write else self.store.read(name, cells, marks)

    def update(self) -> str | None:
        """The latent of the next step is written, whole, while the result is read: what the first
        step has found in the store and in DDR, every one finds then.
        """
        name, plan = self.program.input, self.program.updates
        tensor, row = self.program.tensors[name], self.program.io.input_row
        self.store.cells[2 * row : 2 * (row + tensor.rows)] = NOTHING
        for partner in (0, plan.pair_octets):
            groups, octets = _grid(plan.groups, plan.octets)
            octets = octets + partner
            cells = 2 * (row + groups * plan.group_rows) + octets
            fault = self.store.write(cells, self.part(tensor, groups, octets))
            if fault:
                return f"the sampler's update: {fault}"
        fault = self.exchange(name, write=False) or self.exchange(self.program.output, write=False)
        return f"the sampler's update: {fault}" if fault else None

    # moves

    def moves_before(self, store: StoreEntry) -> str | None:
        """Those before an execution."""
        once = 0 if self.loop == (0, 0) else store.moves_once
        return self._moves(store.moves_first, once, store.moves_once + store.moves_before)

    def moves_after(self, store: StoreEntry) -> str | None:
        """Those after it."""
        first = store.moves_once + store.moves_before
        return self._moves(store.moves_first, first, first + store.moves_after)

    def _moves(self, base: int, first: int, end: int) -> str | None:
        if first == end:
            return None
        if min(base, first, end - first) < 0 or base + end > len(self.program.moves):
            return "its moves lie outside of the program's"
        self.flushed = self.slot  # all is written
        for move in self.program.moves[base + first : base + end]:
            fault = self._move(move)
            if fault:
                return fault
        return None

    def _move(self, move: Move) -> str | None:
        if min(move.rows, move.repeat) < 1:
            return "a move of no rows"
        piece, half = _grid(move.repeat, 2 * move.rows)
        store = 2 * (move.store.at(*self.loop) + piece * move.store_stride) + half
        ddr = 2 * (move.ddr.at(*self.loop) + piece * move.ddr_stride) + half
        fault = self.store.outside(store) or self.ddr.outside(ddr)
        if fault is None and move.put:
            return self.ddr.write(ddr, self.store.cells[store])
        return fault or self.store.write(store, self.ddr.cells[ddr])

    # entries

    def entry(self, entry: Entry) -> str | None:
        """All reads of an execution, then its writes."""
        store, first = entry.store, self.loop == (0, 0)
        before = self.flushed
        if store.flush == FLUSH_ALWAYS or (store.flush == FLUSH_FIRST and first):
            self.flushed = max(before, self.slot - store.pending_end)
        times = Times(store, self.engine.tile_octets, self.slot, before, self.flushed)
        fault, unwritten = None, times.writes
        for product in products(entry):
            self.turn_to(product)
            fault = fault or self._reads(product, times)
        for product in products(entry):
            self.turn_to(product)
            groups = product.store.dest.groups
            fault = fault or self._writes(product, unwritten[:groups])
            unwritten = unwritten[groups:]
        self.slot = int(times.writes.max()) + 1
        return fault

    def _reads(self, entry: Entry, times: Times) -> str | None:
        """What a product reads."""
        store, shape = entry.store, entry.store.shape
        fault = self._read_sums(entry)
        for name, region in zip(entry.sources, store.source, strict=False):
            need = self._needed(name, entry)
            if region.groups < need:
                return f"{name}: {region.groups} of {need} local groups are read"
            pairs = _grid(region.groups, shape.fill)
            slot, head = entry.mac.fill_slot, self._head_of(entry, name)
            fault = fault or self.read(
                name, region, pairs, slot // GROUP, *times.reads(pairs[1]), head
            )
        if shape.ring != RING_NONE:
            fault = fault or self._ring(entry, times)
        if entry.residual is not None:
            pairs = _grid(store.dest.groups, shape.octets)
            first_round = pairs[0] < shape.per_round // shape.gates
            flushed = np.where(
                first_round, times.flushed(pairs[1] // times.tile_octets), self.flushed
            )
            octet = entry.post.out_octet
            fault = fault or self.read(
                entry.residual, store.residual, pairs, octet, times.writes[pairs], flushed
            )
        return fault

    def _writes(self, entry: Entry, when: Int64) -> str | None:
        """What a product writes: its output groups, octet by octet, in micro-slots ``when``."""
        pairs = _grid(entry.store.dest.groups, entry.store.shape.octets)
        return self._write(entry, pairs, when[pairs]) or self._write_sums(entry)

    def _needed(self, name: str, entry: Entry) -> int:
        """Local groups of a source that hold channels."""
        tensor, head = self.program.tensors[name], self._head_of(entry, name)
        return tensor.head(head).local_groups if head >= 0 else tensor.local_groups

    def _head_of(self, entry: Entry, name: str) -> int:
        """The head that a product of attention reads of Q, K or V, or writes; -1: all channels."""
        logits = self.program.tensors[entry.dest].logits or entry.post.row_sums
        return self.head if logits and not self.program.tensors[name].logits else -1

    def _ring(self, entry: Entry, times: Times) -> str | None:
        """K: token octets unit*R + rank, all channels; V: local group unit, all tokens."""
        store, shape = entry.store, entry.store.shape
        assert entry.weight is not None
        tensor = self.program.tensors[entry.weight]
        if shape.ring == RING_K:
            local = tensor.head(self.head).local_groups
            groups, octets = _grid(local, shape.units * self.engine.ranks)
            if shape.ring_words != self.engine.ranks * store.weights.groups:
                return f"{shape.ring_words} words of K per unit are sent"
        else:
            octets_of_unit = 2 * shape.steps // self.engine.byte_rows
            groups, octets = _grid(shape.units, octets_of_unit)
            if shape.ring_words != octets_of_unit:
                return f"{shape.ring_words} words of V per unit are sent"
        if octets.max() + 1 < -(-tensor.pixels // GROUP):
            return f"{entry.weight}: {octets.max() + 1} token octets are read"
        fault = self.store.outside(self.cells(store.weights, groups, octets))
        held = octets < tensor.pitch // GROUP
        pairs = (groups[held], octets[held])
        flushed = times.flushed(np.array(-1))
        return fault or self.read(
            entry.weight, store.weights, pairs, 0, times.start, flushed, self.head
        )

    def _write(self, entry: Entry, pairs: tuple[Int64, Int64], when: Int64) -> str | None:
        tensor, region = self.program.tensors[entry.dest], entry.store.dest
        groups, octets = pairs
        cells, times = self.cells(region, groups, octets), 1 + region.wide
        if region.wide != int(tensor.wide):
            return f"{entry.dest} is {'wide' if tensor.wide else 'narrow'}, its region is not"
        head = self._head_of(entry, entry.dest)
        marks = np.tile(self.part(tensor, groups, octets + entry.post.out_octet, head), times)
        fault = self.store.write(cells, marks)
        if fault is None:
            self.written[cells] = np.tile(when, times)
            if (self.last_read[cells] > self.written[cells]).any():
                return f"{entry.dest} is written over what the execution reads later"
        return fault

    # statistics

    def _read_sums(self, entry: Entry) -> str | None:
        pre, fault = entry.pre, None
        if pre.norm == 1:
            for s, name in enumerate(entry.sources):
                tensor = self.program.tensors[name]
                group, item = _grid(tensor.groups, pre.items)
                cells = pre.stats_base[s].at(*self.loop) + item * pre.stats_pitch[s] + group
                marks = self._sum_marks(tensor, item, group)
                fault = fault or self.sums.read(name, cells, marks)
        elif pre.norm > 1:
            fault = self._rows(entry.sources[0], pre.row_in, entry.mac.fill_slot, pre.shape.fill)
        return fault

    def _sum_marks(self, tensor: Stored, item: Int64, group: Int64) -> Int64:
        return self.sums.names.first[tensor.name] + (self.item + item) * tensor.stats_pitch + group

    def _rows(
        self, name: str, place: Addr, slot: int, count: int, write: bool = False
    ) -> str | None:
        tensor = self.program.tensors[name]
        octets = np.arange(count)
        cells = place.at(*self.loop) + octets
        marks = self.part(tensor, np.zeros_like(octets), octets + slot // GROUP)
        return self.rows.write(cells, marks) if write else self.rows.read(name, cells, marks)

    def _write_sums(self, entry: Entry) -> str | None:
        pre, tensor = entry.pre, self.program.tensors[entry.dest]
        if pre.stats == STATS_NONE:
            return None
        if pre.stats not in (STATS_GROUP, STATS_GROUP_ADD):
            slot = entry.mac.out_slot
            return self._rows(entry.dest, pre.row_out, slot, pre.shape.octets, write=True)
        group, item = _grid(tensor.stats_pitch, pre.items_out)
        cells = pre.stats_out.at(*self.loop) + item * pre.stats_pitch_out + group
        marks = self._sum_marks(tensor, item, group)
        if pre.stats == STATS_GROUP_ADD:
            fault = self.sums.read(entry.dest, cells, marks)
            if fault:
                return fault
        elif entry.mac.out_slot:
            return "sums of a later strip replace those of the strips before"
        return self.sums.write(cells, marks)


def _grid(rows: int, columns: int) -> tuple[Int64, Int64]:
    """All pairs (row, column)."""
    return np.repeat(np.arange(rows), columns), np.tile(np.arange(columns), rows)
