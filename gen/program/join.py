"""Products with V and with K that share executions (docs/engine.md, "Joined products")."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TypeVar

from gen.program.buffers import heads_differ, pp_words
from gen.program.engine import Engine
from gen.program.geometry import Strip, strip
from gen.program.joined_tile import Tile
from gen.program.layout import GROUP, HeadLoop, ceil_div, up_to
from gen.program.planned import Planned, late_octets
from gen.program.program import Entry
from gen.program.schedule import head_period
from gen.program.structs import Addr, MacEntry, Shape

Struct = TypeVar("Struct")

# cycles of one more execution beside its tiles and what its lead slot waits for, and of one more
# round, which begins when its ring weights are there; estimated
_EXECUTION, _ROUND = 80, 7


def joins(keys: Planned, values: Planned, slots: int) -> bool:
    """Whether the product with V of a pair (item, head) and that with K of the next one shall share
    executions of ``slots`` query slots: where the buffers hold both, every octet of the logits is
    written long enough before the following execution reads it, and it saves cycles.
    """
    if keys.weight is None or values.weight is None or keys.layer.heads * keys.n0 < 2:
        return False
    if keys.layer.read.norm != "none" or keys.qlayer.read.table is not None or heads_differ(keys):
        return False
    neighbours = _neighbours(keys, values)
    if not all(_fits(k, v, slots) and _follows(k, v, slots) for v, k in neighbours):
        return False
    tiles = [Tile.of(v, k) for v, k in neighbours]
    if not all(tile.idle > 0 and tile.flows(tile.shares) for tile in tiles):
        return False
    return sum(_apart(k, v, slots) - _joined(k, v, slots) for v, k in neighbours) > 0


def _apart(keys: Planned, values: Planned, slots: int) -> int:
    """Cycles of an execution of each product, one after the other."""
    engine, tiles = keys.engine, ceil_div(slots, keys.engine.pixels)
    tile, least = Tile.of(values, keys), engine.tile_octets
    visit = tile.v_units * max(tile.v_cycles, least)
    cycles = _EXECUTION + (tiles - 1) * max(visit, tile.v_beats) + visit
    cycles += tiles * tile.k_units * max(tile.k_cycles, least)
    for made in (keys, values):
        part = strip(made.geometry, 1, 0, slots, engine.pixels, engine.ranks)
        # ring weights do not come early
        shape = replace(made, early=0).shape(part)
        cycles += _exposed(shape, made.local_groups[0], engine)
        cycles += _ROUND * (ceil_div(shape.units, shape.per_round) - 1)
    return cycles


def _joined(keys: Planned, values: Planned, slots: int) -> int:
    """Cycles of an execution of both."""
    engine, tiles = keys.engine, ceil_div(slots, keys.engine.pixels)
    part = strip(keys.geometry, 1, 0, slots, engine.pixels, engine.ranks)
    groups = values.local_groups[0] + keys.local_groups[0]
    lead = _exposed(joined_shape(values, keys, part), groups, engine)
    tile = Tile.of(values, keys)
    return lead + tile.cycles(tile.shares, tiles)


def _exposed(shape: Shape, groups: int, engine: Engine) -> int:
    """Cycles that the array waits for the words of a lead slot, octets of local ``groups`` among
    them: FIFOs are all that the store can be ahead of it there.
    """
    words = shape.weight_words(min(shape.per_round, shape.units)) + shape.lead * groups
    depths = engine.depths
    ahead = depths["xs"] + depths["px"] + depths["gs"] + 2 * engine.timing.stages["pre"]
    return max(0, words - ahead)


def _neighbours(keys: Planned, values: Planned) -> list[tuple[Planned, Planned]]:
    """The product with V and the following one with K, of heads that begin at every rank at which
    one does.
    """
    heads, period = keys.layer.heads, head_period((keys, values))
    pairs = [(head, head + 1) for head in range(min(heads - 1, period))]
    if keys.n0 > 1:
        pairs.append((heads - 1, 0))
    return [(values.of_heads(HeadLoop(v)), keys.of_heads(HeadLoop(k))) for v, k in pairs]


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


def _fits(keys: Planned, values: Planned, slots: int) -> bool:
    """Whether the buffers hold the weights of both, a turn of both sources, and all row scales."""
    engine, units = keys.engine, keys.units + values.units
    rows = keys.units * keys.steps + values.units * values.steps
    turn = up_to(keys.shape(keys.strips[0]).lead * GROUP, engine.pixels) + engine.pixels
    window = ceil_div(min(slots, turn), engine.pixels) * (keys.subs[0] + values.subs[0])
    return (
        units <= engine.joined_units
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
    shares = Tile.of_shape(shape, groups, engine).shares
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
            pv_share=shares[0],
            share=shares[1],
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
        pv_every=Tile.of(values, keys).every,
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
        # a sub of the queries in front of their head is dropped, as it would be the first one
        sub_base=(keys.subs + values.sub_base[0], keys.sub_base[0]),
        late=shape.lead - (keys.shape.lead - keys.late),
    )
