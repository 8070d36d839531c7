"""Replay of all store accesses with marked cells.

A cell is one 8-channel group of one row. A write marks it with the identity of what is written
(tensor, plane, channel group, pixel slot); a read must find the mark of what the layer means to
read. This finds overlapping live tensors, wrong strides, planes, blocks and off-by-one addresses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gen.program.layout import GROUP, Stored
from gen.program.program import Entry, Program
from gen.program.structs import Addr, Region, Walk

Int64 = NDArray[np.int64]


@dataclass
class _Marks:
    """First mark of every tensor; marks of a tensor are consecutive."""

    first: dict[str, int]
    tensors: dict[str, Stored]

    @classmethod
    def of(cls, program: Program) -> _Marks:
        first, total = {}, 1
        for name, tensor in program.tensors.items():
            first[name] = total
            total += tensor.rows * GROUP
        return cls(first, program.tensors)

    def mark(self, name: str, plane: Int64, group: Int64, slot: Int64) -> Int64:
        tensor = self.tensors[name]
        groups = tensor.blocks * GROUP
        mark: Int64 = self.first[name] + (plane * groups + group) * tensor.slots + slot
        return mark

    def owner(self, mark: int) -> str:
        if mark == 0:
            return "nothing"
        return max((n for n in self.first if self.first[n] <= mark), key=lambda n: self.first[n])


def _cells(region: Region, i0: int, i1: int, plane: Int64, group: Int64, px: Int64) -> Int64:
    """Store cells of relative channel groups and pixel slots of a region."""
    absolute = region.group.at(i0, i1) + group
    row = (
        region.row.at(i0, i1)
        + plane * region.plane_rows
        + absolute // GROUP * region.block_rows
        + region.px.at(i0, i1)
        + px
    )
    return row * GROUP + absolute % GROUP


def _source_slots(walk: Walk) -> Int64:
    """Source pixel slots in fill order that a result can depend on, duplicates removed."""
    y, x = np.meshgrid(
        np.arange(walk.height * walk.stride), np.arange(walk.width * walk.stride), indexing="ij"
    )
    inside = (y >> walk.up < walk.src_height) & (x >> walk.up < walk.src_width)
    slot = np.unique((y[inside] >> walk.up) * walk.src_width + (x[inside] >> walk.up))
    items = np.arange(walk.items)[:, None] * walk.src_pitch
    slots: Int64 = (items + slot[None, :]).reshape(-1)
    return slots


def replay(program: Program) -> str | None:
    """What the first wrong access is, or None."""
    run = _Replay(program)
    latent = program.tensors[program.input]
    run.write(latent.name, _whole(latent), latent.blocks * GROUP, latent.slots)
    # an attention pair is the only kind of segment whose entries see one head at a time
    attention = [s for s in program.segments if program.entries[s.first + s.count - 1].pre.row_sums]
    for segment in program.segments:
        for i0 in range(segment.n0):
            for i1 in range(segment.n1):
                run.loop, run.looped = (i0, i1), segment in attention
                for entry in program.entries[segment.first : segment.first + segment.count]:
                    fault = run.entry(entry)
                    if fault:
                        return f"layer {entry.layer}: {fault}"
    run.loop, run.looped = (0, 0), False
    result = program.tensors[program.output]
    groups = np.unique(result.physical_channels() // GROUP)
    return run.read(result.name, _whole(result), groups, _slots(result))


def _whole(tensor: Stored) -> Region:
    return Region(
        row=Addr(tensor.row),
        planes=tensor.planes,
        block_rows=tensor.slots,
        plane_rows=tensor.blocks * tensor.slots,
    )


def _slots(tensor: Stored) -> Int64:
    """Pixel slots that hold pixels."""
    items = np.arange(tensor.items)[:, None] * tensor.pitch
    slots: Int64 = (items + np.arange(tensor.pixels)[None, :]).reshape(-1)
    return slots


class _Replay:
    """State of a replay: the marks in the store, the current loop, what this entry has read."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.marks = _Marks.of(program)
        self.cells = np.zeros(program.engine.store_rows * GROUP, dtype=np.int64)
        self.touched = np.zeros(len(self.cells), dtype=bool)
        self.loop = (0, 0)
        self.looped = False

    def meant(self, name: str) -> tuple[int, int]:
        """First channel group and pixel slot that this iteration is meant to use."""
        tensor = self.program.tensors[name]
        item = self.loop[0] if tensor.items > 1 else 0
        head = self.loop[1] if tensor.heads > 1 else 0
        return head * tensor.head_pitch // GROUP, item * tensor.pitch

    def access(
        self, name: str, region: Region, groups: Int64, slots: Int64, want: Int64
    ) -> tuple[Int64, Int64, str | None]:
        """Cells [planes, n] of paired ``groups`` and ``slots``, the marks meant, or a fault."""
        planes = np.arange(self.program.tensors[name].planes)[:, None]
        first_group, first_slot = self.meant(name)
        marks = self.marks.mark(name, planes, first_group + groups, first_slot + want)
        cells = _cells(region, *self.loop, planes, groups, slots)
        if region.planes != self.program.tensors[name].planes:
            return cells, marks, f"{name} has {len(planes)} planes, not {region.planes}"
        if cells.min() < 0 or cells.max() >= len(self.cells):
            rows = self.program.engine.store_rows
            return cells, marks, f"{name}: row {cells.max() // GROUP} of {rows} is addressed"
        return cells, marks, None

    def read(
        self, name: str, region: Region, groups: Int64, slots: Int64, paired: bool = False
    ) -> str | None:
        """Check that ``groups`` x ``slots`` (or pairs of them) hold what was last written."""
        if not paired:
            groups, slots = np.repeat(groups, len(slots)), np.tile(slots, len(groups))
        cells, marks, fault = self.access(name, region, groups, slots, slots)
        if fault:
            return fault
        found = self.cells[cells]
        self.touched[cells] = True
        wrong = np.argwhere(found != marks)
        if not len(wrong):
            return None
        plane, index = wrong[0]
        return (
            f"reading {name} (plane {plane}, channel group {groups[index]}, pixel slot "
            f"{slots[index]}) finds a value of {self.marks.owner(int(found[plane, index]))} "
            f"in row {cells[plane, index] // GROUP}"
        )

    def write(self, name: str, region: Region, groups: int, slots: int) -> str | None:
        """Mark ``groups`` x ``slots`` as written."""
        group = np.repeat(np.arange(groups), slots)
        slot = np.tile(np.arange(slots), groups)
        cells, marks, fault = self.access(name, region, group, slot, slot)
        if fault:
            return fault
        if self.touched[cells].any():
            return f"writing {name} overwrites what the same layer reads"
        self.cells[cells] = marks
        return None

    def entry(self, entry: Entry) -> str | None:
        """All reads of an entry, then its writes."""
        self.touched[:] = False
        store = entry.store
        fault: str | None = None
        for name, region in zip(entry.sources, store.source, strict=False):
            tensor = self.program.tensors[name]
            groups = self.held_groups(name, self.looped and tensor.heads > 1)
            if groups.max() >= 2 * region.subs:
                return f"{name}: {region.subs} subs do not cover its channels"
            if region.blocks * 64 < (region.group.at(*self.loop) % GROUP) * 8 + region.subs * 16:
                return f"{name}: {region.blocks} blocks do not cover {region.subs} subs"
            if store.walk.src_pitch != tensor.pitch:
                return f"{name}: {store.walk.src_pitch} pixel slots per item, not {tensor.pitch}"
            fault = fault or self.read(name, region, groups, _source_slots(store.walk))
        if store.weights.words:
            fault = fault or self.weights(entry)
        if store.residual_planes:
            assert entry.residual is not None
            slots = np.arange(store.shape.words * GROUP)
            groups = np.arange(store.shape.groups)
            fault = fault or self.read(entry.residual, store.residual, groups, slots)
        return fault or self.write(
            entry.dest, store.dest, store.shape.groups, store.shape.words * GROUP
        )

    def held_groups(self, name: str, per_head: bool) -> Int64:
        """Relative 8-channel groups that hold channels, of one head if that is read."""
        tensor = self.program.tensors[name]
        if per_head:
            return np.arange(-(-tensor.head_channels // GROUP))
        return np.unique(tensor.physical_channels() // GROUP)

    def weights(self, entry: Entry) -> str | None:
        """K: token = 8 og + output, channels 16 s + 8 h. V: channels 8 og, token = input."""
        weights, shape = entry.store.weights, entry.store.shape
        assert entry.weight is not None
        tensor = self.program.tensors[entry.weight]
        if weights.words != 2 * shape.steps:
            return f"{entry.weight}: {weights.words} words per group, not {2 * shape.steps}"
        og, step, half, lane = (
            grid.reshape(-1)
            for grid in np.meshgrid(
                np.arange(shape.groups),
                np.arange(shape.steps),
                np.arange(2),
                np.arange(GROUP),
                indexing="ij",
            )
        )
        group = og * weights.ch_group + step * weights.ch_step + half * weights.ch_half
        px = og * weights.px_group + step * weights.px_step + half * weights.px_half + lane
        inputs = 2 * step + half
        want_group, want_px = (
            (og, inputs * GROUP + lane) if entry.mac.transposed else (inputs, og * GROUP + lane)
        )
        lowest = _cells(weights.region, *self.loop, np.zeros(1, np.int64), group, px)
        if lowest.max() >= len(self.cells):
            return f"{entry.weight}: row {lowest.max() // GROUP} of the store is addressed"
        valid = (want_px < tensor.pixels) & (want_group * GROUP < tensor.head_channels)
        if (group[valid] != want_group[valid]).any() or (px[valid] != want_px[valid]).any():
            return f"{entry.weight}: words of another token or channel are read"
        return self.read(entry.weight, weights.region, group[valid], px[valid], paired=True)
