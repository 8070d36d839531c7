"""Products with V and with K that share executions (docs/engine.md, "Joined products")."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TypeVar

from gen.program.buffers import heads_differ, pp_words
from gen.program.engine import Engine
from gen.program.geometry import Strip
from gen.program.layout import GROUP, ceil_div, up_to
from gen.program.planned import Planned, late_octets
from gen.program.program import Entry
from gen.program.structs import Addr, MacEntry, Shape

Struct = TypeVar("Struct")

EARLY = 4  # micro-slots that are written early (hls/kernels/store.hpp)
WAIT = 120  # cycles of a drain and of the way back to the array, estimated


def joins(keys: Planned, values: Planned, slots: int) -> bool:
    """Whether the product with V of a pair (item, head) and that with K of the next one shall share
    executions of ``slots`` query slots: where the buffers hold both, every octet of the logits is
    written long enough before the following execution reads it, and it saves cycles.
    """
    engine, pairs = keys.engine, keys.layer.heads * keys.n0
    if keys.weight is None or values.weight is None or pairs < 2:
        return False
    if keys.layer.read.norm != "none" or keys.qlayer.read.table is not None:
        return False
    # all heads are served by the same entry
    tensors = (keys.sources[0], keys.weight, values.weight, values.dest)
    if any(tensor.head_period > 1 for tensor in tensors) or heads_differ(keys):
        return False
    tiles, tile = ceil_div(slots, engine.pixels), engine.tile_octets
    units = keys.units + values.units
    if not (_follows(keys, values, slots) and _fits(keys, values, slots) and _flows(keys, values)):
        return False
    fill = tile * values.local_groups[0]
    of_keys = keys.units * engine.unit_cycles(keys.steps)
    of_values = values.units * engine.unit_cycles(values.steps)
    alone = max(of_keys, keys.units * tile) + max(of_values, fill)
    joined = max(of_keys + of_values, units * tile, fill + tile * keys.local_groups[0])
    # the first joined execution waits for the logits that the only one before it makes
    return (pairs - 1) * tiles * (alone - joined) > WAIT


def _follows(keys: Planned, values: Planned, slots: int) -> bool:
    """Whether no octet of the logits is read sooner than LAG + 2 micro-slots after it was written,
    one execution before, in the shortest strip as well.
    """
    engine, tile = keys.engine, keys.engine.tile_octets
    whole = keys.strips[0]
    groups = keys.local_groups[0] + values.local_groups[0]
    # octets of a tile are read beside the one before it, or farther ahead
    ahead = 1 + ceil_div(late_octets(whole.lead, whole.fill, groups, engine), tile)
    shortest = keys.geometry.pitch % slots or slots
    tiles = ceil_div(shortest, engine.pixels)
    return (tiles - 1 - ahead) * (keys.units + values.units) + 1 >= engine.lag + 2


def _flows(keys: Planned, values: Planned) -> bool:
    """Whether the store can send what the array takes beside the long units of the product with V.

    The array takes a Beat of the next tile in every cycle and waits for it; the store has sent the
    shares of LAG - EARLY micro-slots before it waits for what these units become.
    """
    engine, tile = keys.engine, keys.engine.tile_octets
    beats = tile * (keys.local_groups[0] + values.local_groups[0])
    share = ceil_div(beats, keys.units + values.units)
    cycles, leave = engine.unit_cycles(values.steps), ceil_div(tile, 2)
    lazy = engine.lag - min(EARLY, engine.lag - 2)
    return all(
        min((unit + 1) * cycles + leave, beats) <= share * (lazy + unit)
        for unit in range(values.units)
    )


def _fits(keys: Planned, values: Planned, slots: int) -> bool:
    """Whether the buffers hold the weights of both, a turn of both sources, and all row scales."""
    engine, units = keys.engine, keys.units + values.units
    rows = keys.units * keys.steps + values.units * values.steps
    turn = up_to(keys.shape(keys.strips[0]).lead * GROUP, engine.pixels) + engine.pixels
    window = ceil_div(min(slots, turn), engine.pixels) * (keys.subs[0] + values.subs[0])
    return (
        units <= engine.units
        and rows <= engine.weight_rows
        and window <= engine.window_rows
        and ceil_div(slots, GROUP) <= engine.depths["rw"]
        and keys.local_groups[0] + pp_words(values) <= engine.depths["pp"]
        and keys.local_groups[0] + values.local_groups[0] <= engine.row_groups
        and values.turns(ceil_div(slots, engine.pixels))
    )


def at_item(entry: Entry, item: int) -> Entry:
    """An entry of a product of attention for one batch item instead of a loop over them."""
    return replace(_at_item(entry, item), item=item)


def _at_item(value: Struct, item: int) -> Struct:
    if isinstance(value, Addr):
        return type(value)(value.base + item * value.s0, 0, value.s1)
    if is_dataclass(value) and not isinstance(value, type):
        members = {each.name: _at_item(getattr(value, each.name), item) for each in fields(value)}
        return type(value)(**members)
    if isinstance(value, tuple):
        return type(value)(_at_item(each, item) for each in value)
    return value


def join(values: Entry, keys: Entry, shape: Shape, engine: Engine) -> Entry:
    """The entry of both products. Their words in the static buffer follow each other."""
    pv, qk = values.wload, keys.wload
    for first, second, words in (
        (pv.pp, qk.pp, pv.pp_words),
        (pv.scale, qk.scale, pv.units),
        (pv.bias, qk.bias, pv.units * pv.bias_words),
    ):
        assert second.base == first.base + words and first.s1 == second.s1 == 0, values.layer
    mac = _mac(values.mac, keys.mac, shape, engine)
    groups = mac.groups
    store, pre = values.store, values.pre
    return replace(
        values,
        sources=(*values.sources, *keys.sources),
        store=replace(
            keys.store,
            shape=shape,
            sources=2,
            source=(store.source[0], keys.store.source[0]),
            pv_weights=store.weights,
            pv_dest=store.dest,
        ),
        pre=replace(
            keys.pre,
            shape=shape,
            sources=2,
            groups=groups,
            wide=(pre.wide[0], keys.pre.wide[0]),
            row_in=pre.row_in,
            norm=pre.norm,
            n=pre.n,
            shift=pre.shift,
            plain_shift=keys.pre.shift,
            table=pre.table,
            uniform=pre.uniform,
        ),
        gather=replace(
            keys.gather, shape=shape, sources=2, groups=groups, row_sums=values.gather.row_sums
        ),
        reduce=keys.reduce,
        mac=mac,
        post=replace(
            keys.post, shape=shape, pv_wide=values.post.wide, row_sums=values.post.row_sums
        ),
        wload=replace(
            pv,
            units=shape.units,
            per_round=shape.per_round,
            pp_words=pv.pp_words + qk.pp_words,
        ),
        parts=(values, keys),
    )


def joined_shape(values: Planned, keys: Planned, part: Strip) -> Shape:
    """Work of an execution of both products."""
    engine, shape = keys.engine, keys.shape(part)
    units, groups = values.units + keys.units, values.local_groups[0] + keys.local_groups[0]
    late = late_octets(part.lead, part.fill, groups, engine)
    return replace(
        shape,
        units=units,
        per_round=units,
        lead=part.lead + late,
        pv_units=values.units,
        pv_steps=values.steps,
        pv_words=values.ring_words,
    )


def _mac(values: MacEntry, keys: MacEntry, shape: Shape, engine: Engine) -> MacEntry:
    """The window of both sources, in turns."""
    turn = up_to(shape.lead * GROUP, engine.pixels) + engine.pixels
    return replace(
        keys,
        shape=shape,
        window_slots=min(keys.plane, turn),
        subs=values.subs + keys.subs,
        pv_subs=values.subs,
        sources=2,
        groups=(values.groups[0], keys.groups[0]),
        source_groups=(values.source_groups[0], keys.source_groups[0]),
        sub_base=(values.sub_base[0], values.subs + keys.sub_base[0]),
        late=shape.lead - (keys.shape.lead - keys.late),
    )
