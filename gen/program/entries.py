"""Entries of store, pre, mac and post for one layer (hls/kernels/program.hpp)."""

from __future__ import annotations

from collections.abc import Sequence

from gen.program.layout import GROUP, SUB, Stored
from gen.program.planned import Planned
from gen.program.structs import (
    MAX_SOURCES,
    MAX_TAPS,
    NORM,
    Addr,
    MacEntry,
    PostEntry,
    PreEntry,
    Region,
    StoreEntry,
    StoreWeights,
    Walk,
)


def padded(values: Sequence[int], length: int) -> tuple[int, ...]:
    """``values`` filled up with zeros."""
    return (*values, *[0] * (length - len(values)))


def store_entry(made: Planned) -> StoreEntry:
    """What the store reads and writes for a layer."""
    window = made.geometry
    regions = made.regions
    residual = made.residual
    out_subs = -(-made.groups // 2)
    return StoreEntry(
        shape=made.shape,
        walk=Walk(
            items=window.items,
            height=window.height,
            width=window.width,
            stride=window.stride,
            up=window.up,
            src_height=window.src_height,
            src_width=window.src_width,
            src_pitch=made.sources[0].pitch,
        ),
        sources=len(regions),
        source=(*regions, *[Region()] * (MAX_SOURCES - len(regions))),
        weights=store_weights(made),
        residual_planes=residual.planes if residual else 0,
        residual=made.region(residual, out_subs) if residual else Region(),
        dest=made.region(made.dest, out_subs),
    )


def store_weights(made: Planned) -> StoreWeights:
    """K: outputs are tokens, inputs channels. V: outputs are channels, inputs tokens."""
    if made.weight is None:
        return StoreWeights()
    transposed = made.layer.weight.transposed
    channels = made.groups * GROUP if transposed else made.subs[0] * SUB
    return StoreWeights(
        region=made.region(made.weight, -(-channels // SUB)),
        words=2 * made.shape.steps,
        px_group=0 if transposed else GROUP,
        px_step=SUB if transposed else 0,
        px_half=GROUP if transposed else 0,
        ch_group=1 if transposed else 0,
        ch_step=0 if transposed else 2,
        ch_half=0 if transposed else 1,
    )


def pre_entry(made: Planned, stats: dict[str, int]) -> PreEntry:
    """What ``pre`` does; ``stats`` maps normalised tensors to the statistics memory."""
    read, norm = made.qlayer.read, made.layer.read
    channels = sum(s.channels for s in made.sources)
    source = made.sources[0]
    group_size = channels // norm.groups if norm.norm == "group" else 0
    n = {"group": group_size * source.pixels, "layer": channels}.get(norm.norm, 0)
    measured = made.dest.name in stats
    regions = made.regions
    count = len(regions)
    # per head, the lanes of a block belong to another head in every loop: none are masked
    per_head = made.looped and norm.norm != "softmax"
    lanes = [
        r.blocks * 64 if per_head else s.physical
        for r, s in zip(regions, made.sources, strict=True)
    ]
    return PreEntry(
        fill=made.shape.fill,
        items=made.geometry.items,
        pixels=made.geometry.pixels,
        sources=count,
        blocks=padded([r.blocks for r in regions], MAX_SOURCES),
        planes=padded([r.planes for r in regions], MAX_SOURCES),
        align=padded(read.align if norm.norm == "group" else (), MAX_SOURCES),
        channels=padded(lanes, MAX_SOURCES),
        stats_base=padded(
            [stats[s.name] if norm.norm == "group" else 0 for s in made.sources], MAX_SOURCES
        ),
        norm=NORM[norm.norm],
        norm_groups=norm.groups if norm.norm == "group" else 0,
        group_size=group_size,
        n=n,
        valid=channels if norm.norm in ("layer", "softmax") else 0,
        shift=read.shift,
        table=int(read.table is not None),
        row_sums=int(norm.norm == "softmax"),
        stats_out=stats[made.dest.name] if measured else -1,
        groups_out=made.groups if measured else 0,
        items_out=made.geometry.items if measured else 0,
    )


def mac_entry(made: Planned, prefetched: bool, next_rows: int) -> MacEntry:
    """What ``mac`` does; ``prefetched`` by the previous entry, ``next_rows`` for the next."""
    window = made.geometry
    groups = [region.group for region in made.regions]
    return MacEntry(
        shape=made.shape,
        items=window.items,
        height=window.height,
        width=window.width,
        pitch=window.pitch,
        stride=window.stride,
        limit_y=window.limit_y,
        limit_x=window.limit_x,
        taps=len(window.offset),
        subs=sum(made.subs),
        offset=padded(window.offset, MAX_TAPS),
        ty=padded(window.ty, MAX_TAPS),
        tx=padded(window.tx, MAX_TAPS),
        pad=made.qlayer.read.pad,
        sources=len(groups),
        group=(*groups, *[Addr()] * (MAX_SOURCES - len(groups))),
        source_subs=padded(made.subs, MAX_SOURCES),
        from_store=int(made.weight is not None),
        transposed=int(made.weight is not None and made.layer.weight.transposed),
        load_first=int(not prefetched),
        next_rows=next_rows,
    )


def post_entry(made: Planned, stats: dict[str, int]) -> PostEntry:
    """What ``post`` does."""
    residual: Stored | None = made.residual
    return PostEntry(
        shape=made.shape,
        items=made.geometry.items,
        pixels=made.geometry.pixels,
        words_per_item=made.geometry.pitch // GROUP,
        planes=made.dest.planes,
        residual_planes=residual.planes if residual else 0,
        residual_shift=made.qlayer.residual_shift if residual else 0,
        row_sums=int(made.layer.read.norm == "softmax"),
        gate_shift=made.qlayer.gate_shift,
        stats=int(made.dest.name in stats),
    )
