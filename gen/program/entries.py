"""Entries of store, pre, gather, reduce, mac and post for one strip of a layer (program.hpp)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gen.program.flush import Flush
from gen.program.geometry import Strip
from gen.program.layout import GROUP, Stored
from gen.program.moves import staged_rows
from gen.program.planned import Planned
from gen.program.structs import (
    MAX_SOURCES,
    MAX_TAPS,
    NORM,
    STATS_GROUP,
    STATS_GROUP_ADD,
    STATS_LAYER,
    STATS_NONE,
    STATS_SOFTMAX,
    Addr,
    GatherEntry,
    MacEntry,
    PostEntry,
    PreEntry,
    ReduceEntry,
    Region,
    Shape,
    StoreEntry,
)

Item = TypeVar("Item")


@dataclass(frozen=True)
class Statistics:
    """Places of statistics by tensor: words of sums (group norm) and octets of row statistics."""

    sums: Mapping[str, int]
    rows: Mapping[str, int]

    def kind(self, tensor: Stored, strip: int) -> int:
        """Member of Stats for a strip of the layer that writes ``tensor``."""
        if tensor.name in self.sums:
            return STATS_GROUP_ADD if strip else STATS_GROUP
        if tensor.name in self.rows:
            return STATS_SOFTMAX if tensor.logits else STATS_LAYER
        return STATS_NONE


def padded(values: Sequence[Item], length: int, filler: Item) -> tuple[Item, ...]:
    """``values`` filled up to ``length``."""
    return (*values, *[filler] * (length - len(values)))


@dataclass(frozen=True)
class Entries:
    """Makes the entries of strip ``index`` of a layer. ``staging``: first rows of the staging
    regions of roles that have one.
    """

    made: Planned
    index: int
    statistics: Statistics
    staging: Mapping[str, int]

    @property
    def strip(self) -> Strip:
        """The strip's slots."""
        return self.made.strips[self.index]

    @property
    def shape(self) -> Shape:
        """Work of one execution."""
        return self.made.shape(self.strip)

    @property
    def _stats(self) -> int:
        return self.statistics.kind(self.made.dest, self.index)

    @property
    def _logits(self) -> Stored:
        return self.made.sources[0] if self.made.softmax else self.made.dest

    def _by_item(self, size: int) -> int:
        """Stride of the outer loop for something that has ``size`` units per batch item."""
        return size if self.made.n0 > 1 else 0

    def _copy(self, base: int, size: int) -> Addr:
        """Place of the present item's and head's attention logits, ``size`` units each; of their
        only copy if they exist for one pair at a time.
        """
        heads = self.made.heads
        if self._logits.copies == 1:
            return Addr(base)
        return Addr(
            base + heads.first * size,
            self._by_item(self.made.layer.heads * size),
            heads.step * size if heads.count > 1 else 0,
        )

    def region(self, tensor: Stored, slot: int, groups: int, per_head: bool) -> Region:
        """``groups`` local groups from pixel slot ``slot`` of a tensor on, or of one head."""
        if tensor.logits:
            row, octet = self._copy(tensor.row, tensor.copy_rows), Addr()
        else:
            row = Addr(tensor.row)
            if per_head:
                heads = self.made.heads
                first, second = (
                    tensor.row + tensor.head(head).first * tensor.group_rows
                    for head in (heads.first, heads.first + heads.step)
                )
                row = Addr(first, 0, second - first if heads.count > 1 else 0)
            octet = Addr(slot // GROUP, self._by_item(tensor.item_octets))
        return Region(row, octet, groups, int(tensor.wide), tensor.group_rows)

    def _of_strip(self, role: str, tensor: Stored, slot: int, groups: int) -> Region:
        """What the strip reads or writes, from pixel slot ``slot`` on, in its staging region or in
        the tensor.
        """
        made = self.made
        if role not in self.staging:
            by_head = made.softmax if role == "dest" else made.per_head and role != "residual"
            return self.region(tensor, slot, groups, by_head)
        first, rows = staged_rows(tensor, role, self.strip)
        octet = slot // GROUP - (first if tensor.wide else 2 * first)
        return Region(Addr(self.staging[role]), Addr(octet), groups, int(tensor.wide), rows)

    def _rows(self, tensor: Stored, slot: int) -> Addr:
        """Row statistics from pixel slot ``slot`` of a tensor on."""
        base = self.statistics.rows[tensor.name]
        if tensor.logits:
            return self._copy(base, tensor.octets)
        return Addr(base + slot // GROUP, self._by_item(tensor.item_octets))

    def store(self, flush: Flush, moves: tuple[int, int, int, int]) -> StoreEntry:
        """What the store reads and writes. ``moves``: first, and how many (``StoreEntry``)."""
        made, out_slot = self.made, self.strip.out_slot
        sources = [
            self._of_strip(f"source{s}", tensor, self.strip.fill_slot, groups)
            for s, (tensor, groups) in enumerate(zip(made.sources, made.local_groups, strict=True))
        ]
        weights = residual = Region()
        if made.weight is not None:
            weights = self.region(made.weight, 0, made.head.local_groups, True)
        if made.residual is not None:
            residual = self._of_strip("residual", made.residual, out_slot, made.output_groups)
        return StoreEntry(
            shape=self.shape,
            flush=flush.when,
            pending=flush.pending,
            pending_tile=flush.pending_tile,
            pending_end=flush.pending_end,
            sources=len(sources),
            source=padded(sources, MAX_SOURCES, Region()),
            weights=weights,
            residual=residual,
            dest=self._of_strip("dest", made.dest, out_slot, made.output_groups),
            moves_first=moves[0],
            moves_once=moves[1],
            moves_before=moves[2],
            moves_after=moves[3],
        )

    def pre(self, uniform: bool, pp_once: int) -> PreEntry:
        """What ``pre`` does."""
        made, strip = self.made, self.strip
        read, norm = made.qlayer.read, made.layer.read
        channels = sum(s.channels for s in made.sources)
        source, grouped = made.sources[0], norm.norm == "group"
        group_size = channels // norm.groups if grouped else 0
        sums, rows = self.statistics.sums, self.statistics.rows
        row_in = Addr()
        if norm.norm in ("layer", "softmax"):
            row_in = self._rows(source, strip.fill_slot)
        dest, stats = made.dest, self._stats
        by_group = stats in (STATS_GROUP, STATS_GROUP_ADD)
        return PreEntry(
            shape=self.shape,
            items=strip.items,
            item_octets=source.item_octets,
            sources=len(made.sources),
            groups=padded(made.local_groups, MAX_SOURCES, 0),
            wide=padded([int(s.wide) for s in made.sources], MAX_SOURCES, 0),
            align=padded(read.align if grouped else (), MAX_SOURCES, 0),
            channels=padded([s.channels for s in made.sources] if grouped else [], MAX_SOURCES, 0),
            stats_base=padded(
                [Addr(sums[s.name], self._by_item(s.stats_pitch)) for s in made.sources if grouped],
                MAX_SOURCES,
                Addr(),
            ),
            stats_pitch=padded([s.stats_pitch for s in made.sources if grouped], MAX_SOURCES, 0),
            row_in=row_in,
            norm=NORM[norm.norm],
            norm_groups=norm.groups if grouped else 0,
            group_size=group_size,
            n={"group": group_size * source.pixels, "layer": channels}.get(norm.norm, 0),
            shift=read.shift,
            plain_shift=0,
            table=int(read.table is not None),
            uniform=int(uniform),
            stats=stats,
            stats_out=Addr(sums[dest.name], self._by_item(dest.stats_pitch))
            if by_group
            else Addr(),
            stats_pitch_out=dest.stats_pitch if by_group else 0,
            items_out=strip.items,
            row_out=self._rows(dest, strip.out_slot) if dest.name in rows else Addr(),
            stat_words=self._stat_words(),
            by_item=int(self._by_item_sums),
            sums_left=0,
            sums_before=0,
            rows_ahead=0,
            rows_sent=0,
            rows_first=0,
            pp_once=pp_once,
        )

    def _stat_words(self) -> int:
        stats = self._stats
        if stats in (STATS_GROUP, STATS_GROUP_ADD):
            return self.made.output_groups * self.strip.items
        return self.strip.octets if stats != STATS_NONE else 0

    @property
    def _by_item_sums(self) -> bool:
        """Whether sums leave when their item is finished: no tile may finish two."""
        grouped = self._stats in (STATS_GROUP, STATS_GROUP_ADD)
        octets = self.made.geometry.pitch // GROUP
        return grouped and self.strip.items > 1 and octets >= self.made.engine.tile_octets

    def gather(self) -> GatherEntry:
        """What travels between the ranks."""
        made = self.made
        keys = made.weight is not None and not made.layer.weight.transposed
        head = made.head if keys else None
        return GatherEntry(
            shape=self.shape,
            sources=len(made.sources),
            groups=padded(made.local_groups, MAX_SOURCES, 0),
            ring_groups=head.local_groups if head else 0,
            ring_valid=head.end if head else 0,
            ring_first=head.phase // 2 if head else 0,
            row_sums=int(made.softmax),
        )

    def reduce(self) -> ReduceEntry:
        """Sums that the ranks exchange."""
        return ReduceEntry(self._stat_words())

    def mac(self) -> MacEntry:
        """What ``mac`` does."""
        made, strip, window, shape = self.made, self.strip, self.made.geometry, self.shape
        return MacEntry(
            shape=shape,
            items=strip.items,
            out_slot=strip.out_slot,
            fill_slot=strip.fill_slot,
            height=window.height,
            width=window.width,
            pitch=window.pitch,
            src_height=window.src_height,
            src_width=window.src_width,
            src_pitch=window.src_pitch,
            stride=window.stride,
            up=window.up,
            origin=strip.origin,
            start=strip.start,
            window_slots=made.window_slots(strip),
            plane=strip.plane,
            split=strip.split,
            limit_y=window.limit_y,
            limit_x=window.limit_x,
            taps=len(window.ty),
            subs=sum(made.subs),
            pv_subs=0,
            offset=padded(strip.offset, MAX_TAPS, 0),
            ty=padded(window.ty, MAX_TAPS, 0),
            tx=padded(window.tx, MAX_TAPS, 0),
            pad=made.qlayer.read.pad,
            sources=len(made.sources),
            groups=padded(made.local_groups, MAX_SOURCES, 0),
            source_groups=padded(made.groups, MAX_SOURCES, 0),
            sub_base=padded(made.sub_base, MAX_SOURCES, 0),
            first_rows=0
            if made.weight is not None
            else min(shape.per_round, shape.units) * shape.steps,
            late=shape.lead - strip.lead,
        )

    def post(self) -> PostEntry:
        """What ``post`` does."""
        made, strip = self.made, self.strip
        residual = made.residual is not None
        return PostEntry(
            shape=self.shape,
            items=strip.items,
            out_octet=strip.out_slot // GROUP,
            pixels=made.geometry.pixels,
            item_octets=made.geometry.pitch // GROUP,
            wide=int(made.dest.wide),
            pv_wide=0,
            residual=int(residual),
            residual_shift=made.qlayer.residual_shift if residual else 0,
            row_sums=int(made.softmax),
            gate_shift=made.qlayer.gate_shift,
            stats=self._stats,
            by_item=int(self._by_item_sums),
            table=int(made.gates == 2),
        )
