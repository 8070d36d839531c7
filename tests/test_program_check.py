"""Planted faults in finished programs: every one is found and named."""

import dataclasses

import numpy as np
import pytest
from layerkit import random_qgraph

from gen.program import Engine, lower, verify_program
from gen.program.check import ProgramError
from gen.program.structs import (
    BUFFER_DYNAMIC,
    FLUSH_ALWAYS,
    FLUSH_NEVER,
    STATS_GROUP,
    STATS_GROUP_ADD,
    Addr,
)

WINDOW_KINDS = ("conv3x3", "stride2", "upsample")


def some_program(kind="self_attention", seed=5, size=(6, 5), channels=None, **engine):
    qgraph = random_qgraph(kind, np.random.default_rng(seed), size=size, channels=channels)
    program = lower(qgraph, Engine(**{"ranks": 2, **engine}))
    verify_program(program)
    return program


def changed(program, index, kernel, **values):
    entry = program.entries[index]
    part = dataclasses.replace(getattr(entry, kernel), **values)
    entries = list(program.entries)
    entries[index] = dataclasses.replace(entry, **{kernel: part})
    return dataclasses.replace(program, entries=entries)


def index_of(program, layer):
    return program.entries_of(layer)[0]


def moved(region, rows):
    return dataclasses.replace(
        region, row=dataclasses.replace(region.row, base=region.row.base + rows)
    )


def refused(program, words):
    with pytest.raises(ProgramError, match=words):
        verify_program(program)


def test_overlap():
    program = some_program()
    q, k = program.tensors["q.out"], index_of(program, "k")
    dest = program.entries[k].store.dest
    wrong = changed(program, k, "store", dest=moved(dest, q.row - dest.row.base))
    refused(wrong, r"layer qk: reading part \d+ of q\.out finds part \d+ of k\.out")


@pytest.mark.parametrize("rows", [-1, 1])
def test_off_by_one_address(rows):
    program = some_program("concat_groupnorm_silu")
    conv = index_of(program, "conv")
    first, second = program.entries[conv].store.source
    refused(changed(program, conv, "store", source=(first, moved(second, rows))), "layer conv")


def test_strides():
    program = some_program()
    qk = index_of(program, "qk")
    weights = program.entries[qk].store.weights
    for member in ("row", "octet"):
        address = getattr(weights, member)
        wrong = dataclasses.replace(weights, **{member: Addr(address.base, address.s0 + 1, 0)})
        refused(changed(program, qk, "store", weights=wrong), "layer qk")
    wrong = dataclasses.replace(weights, group_rows=weights.group_rows + 1)
    refused(changed(program, qk, "store", weights=wrong), "layer qk")


def test_capacity():
    program = some_program()
    small = dataclasses.replace(program.engine, store_rows=program.store_peak - 8)
    refused(dataclasses.replace(program, engine=small), "is addressed")


@pytest.mark.parametrize("layer", ["qk", "pv", "copy"])
def test_missing_flush(layer):
    program = some_program(lag=64)
    index = index_of(program, layer)
    assert program.entries[index].store.flush != FLUSH_NEVER
    wrong = changed(program, index, "store", flush=FLUSH_NEVER, pending=0)
    refused(wrong, f"layer {layer}: .* is read before it is written; a flush is missing")


def test_flush_is_left_out_where_the_lag_allows_it():
    """Of 16 tiles, a micro-slot each, every one is read beside the one two tiles before it."""
    for lag, flushes in ((12, False), (13, True)):
        program = some_program("concat_groupnorm_silu", size=(16, 16), lag=lag)
        # reads skip.out, written just before
        flush = program.entries[index_of(program, "conv")].store.flush
        assert (flush != FLUSH_NEVER) == flushes
        if flushes:
            wrong = changed(program, index_of(program, "conv"), "store", flush=FLUSH_NEVER)
            refused(wrong, "layer conv: skip.out is read before it is written")
        skip = index_of(program, "skip")
        assert program.entries[skip].store.flush == FLUSH_NEVER


@pytest.mark.parametrize(
    ("kernel", "change", "stream"),
    [
        ("post", {"wide": 0}, "ys"),
        ("pre", {"groups": (9, 0)}, "xs"),
        ("gather", {"groups": (9, 0)}, "px"),
        ("reduce", {"stat_words": 3}, "st"),
        ("wload", {"pp_words": 99}, "pp"),
        ("wload", {"bias_words": 7}, "qp"),
        ("wload", {"ws_rows": 7}, "ws"),
    ],
)
def test_stream_counts(kernel, change, stream):
    program = some_program("conv3x3", seed=2, size=(4, 4))
    wrong = changed(program, index_of(program, "conv"), kernel, **change)
    refused(wrong, f"layer conv: .* elements of {stream} are sent")


def test_kernels_agree():
    program = some_program("conv3x3", seed=2, size=(4, 4))
    conv = index_of(program, "conv")
    shape = program.entries[conv].mac.shape
    other = dataclasses.replace(shape, lead=shape.lead + 1)
    refused(changed(program, conv, "mac", shape=other), "disagree about its shape")
    refused(changed(program, conv, "wload", per_round=99), "other units")
    refused(changed(program, conv, "mac", first_rows=1), "the first one of 1")


@pytest.mark.parametrize("kind", WINDOW_KINDS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": 1}, "reads another pixel|reads outside"),
        ({"origin": 8}, "reads another pixel|reads outside"),
        ({"fill_slot": 8}, "reads another pixel|two source pixels"),
        ({"window_slots": 64}, "64 window pixels are not|tiles that are visited again"),
        ({"window_slots": 64, "plane": 64}, "reads outside|reads another pixel|phases of 64"),
    ],
)
def test_window_geometry(kind, change, words):
    program = some_program(kind, seed=3, size=(12, 12))
    index = len(program.entries) - 1
    refused(changed(program, index, "mac", **change), words)


def test_window_in_turns():
    program = some_program(size=(12, 12))
    values = index_of(program, "pv")
    mac = program.entries[values].mac
    assert 64 <= mac.window_slots < mac.plane == 144
    refused(changed(program, values, "mac", window_slots=32), "too few for a lead of")
    refused(changed(program, values, "mac", window_slots=72), "not whole tiles")
    keys = index_of(program, "qk")
    assert program.entries[keys].mac.shape.units > program.entries[keys].mac.shape.per_round
    refused(changed(program, keys, "mac", window_slots=64), "visited again")


def test_taps():
    program = some_program("conv3x3", seed=3, size=(12, 12))
    conv = index_of(program, "conv")
    offset = program.entries[conv].mac.offset
    for wrong in (offset[1:] + offset[:1], (offset[0] - 1, *offset[1:])):
        refused(changed(program, conv, "mac", offset=wrong), r"tap \d reads")


def test_short_lead():
    program = some_program("conv3x3", seed=3, size=(16, 16))
    conv = index_of(program, "conv")
    entry = program.entries[conv]
    shape = dataclasses.replace(entry.mac.shape, lead=entry.mac.shape.lead - 1)
    for kernel in ("store", "pre", "gather", "mac", "post"):
        program = changed(program, conv, kernel, shape=shape)
    refused(program, "layer conv: tap . reads a pixel before it is filled")


@pytest.mark.parametrize("kind", ["stride2", "upsample"])
def test_half_banks(kind):
    """A larger split is always right, a smaller one never."""
    # two rows of a 6 pixel wide image share an octet
    size = (6, 6) if kind == "stride2" else (8, 8)
    program = some_program(kind, seed=3, size=size, channels=64, ranks=4)
    index = len(program.entries) - 1
    split = program.entries[index].mac.split
    assert split > 1
    verify_program(changed(program, index, "mac", split=8))
    refused(changed(program, index, "mac", split=split // 2), "writes a half bank twice")


def test_statistics():
    program = some_program("concat_groupnorm_silu")
    conv = index_of(program, "conv")
    pre = program.entries[conv].pre
    base = (Addr(pre.stats_base[0].base + 2), *pre.stats_base[1:])
    refused(changed(program, conv, "pre", stats_base=base), "layer conv: reading part .* of x.out")
    base = (Addr(pre.stats_base[0].base + 1), *pre.stats_base[1:])
    refused(changed(program, conv, "pre", stats_base=base), "multiple of the ranks")
    program = some_program("layernorm")
    linear = index_of(program, "linear")
    refused(changed(program, linear, "pre", row_in=Addr(1)), "octet of row statistics")


def test_statistics_of_strips():
    """Sums of later strips are added to those of the first, which are not added to anything."""
    program = some_program("concat_groupnorm_silu", 6, (12, 24), channels=8, window_rows=8)
    strips = program.entries_of("x")
    assert len(strips) > 1
    refused(
        changed(changed(program, strips[0], "pre", stats=STATS_GROUP_ADD), strips[0], "post",
                stats=STATS_GROUP_ADD), "layer x: reading part"
    )  # fmt: skip
    refused(
        changed(changed(program, strips[1], "pre", stats=STATS_GROUP), strips[1], "post",
                stats=STATS_GROUP), "layer x: sums of a later strip replace"
    )  # fmt: skip


def test_buffers_and_cache():
    program = some_program("conv3x3", cache_rows=1000)
    conv = index_of(program, "conv")
    wload = program.entries[conv].wload
    assert wload.cache >= 0
    refused(changed(program, conv, "wload", ws=Addr(program.static_words)), "lie outside buffer 0")
    other = program.entries[1 - conv].wload
    refused(changed(program, conv, "wload", cache=other.cache), "share rows of the weight cache")
    refused(changed(program, conv, "wload", cache=999), "rows 999.. of the weight cache")


def test_words_of_a_weight_row():
    program = some_program("conv3x3", cache_rows=1000)
    conv = index_of(program, "conv")
    refused(changed(program, conv, "wload", row_words=1), "weight rows of 1 words")
    # where rows of both kinds are possible, the cache holds the narrow ones
    engine = dataclasses.replace(program.engine, stored_bits=4)
    refused(dataclasses.replace(program, engine=engine), "rows of 2 words in the weight cache")


def test_words_of_a_row_from_the_host():
    """K and V of the prompt are never stored in 4 bits."""
    rng = np.random.default_rng(1)
    program = lower(random_qgraph("cross_attention", rng), Engine(ranks=2, stored_bits=4))
    verify_program(program)
    index = next(k for k, e in enumerate(program.entries) if e.wload.ws_buffer == BUFFER_DYNAMIC)
    refused(changed(program, index, "wload", row_words=1), "weight rows of 1 words")


def test_segments():
    program = some_program()
    one = program.segments[0]
    wrong = [dataclasses.replace(one, count=one.count - 1), *program.segments[1:]]
    refused(dataclasses.replace(program, segments=wrong), "skipped or repeated")


@pytest.fixture(scope="module")
def joined():
    """Two items and heads: of three joined executions the first two are of both heads of item 0."""
    rng = np.random.default_rng(5)
    qgraph = random_qgraph("self_attention", rng, size=(16, 16), heads=(2, 16))
    program = lower(qgraph, Engine(ranks=2))
    verify_program(program)
    assert [bool(each.parts) for each in program.entries] == 4 * [False] + 3 * [True] + 2 * [False]
    return program


FIRST, LAST = 4, 6  # joined entries; the product with K comes before, the one with V behind them


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ("source0", r"layer pv: reading part \d+ of scores"),
        ("source1", r"layer pv: reading part \d+ of q.out"),
        ("weights", r"layer pv: reading part \d+ of k.out"),
        ("pv_weights", r"layer pv: reading part \d+ of v.out"),
        ("dest", r"layer pv: reading part \d+ of scores"),
        ("pv_dest", r"layer copy: reading part \d+ of attended"),
    ],
)
def test_regions_of_joined_products(joined, region, words):
    store = joined.entries[FIRST].store
    if region.startswith("source"):
        sources = list(store.source)
        sources[int(region[-1])] = moved(sources[int(region[-1])], 1)
        refused(changed(joined, FIRST, "store", source=tuple(sources)), words)
    else:
        wrong = moved(getattr(store, region), 1)
        refused(changed(joined, FIRST, "store", **{region: wrong}), words)


def of_parts(program, index, *parts):
    entries = list(program.entries)
    entries[index] = dataclasses.replace(entries[index], parts=parts)
    return dataclasses.replace(program, entries=entries)


def test_pairs_of_joined_products(joined):
    """The product with V is that of the pair whose logits the execution before has written."""
    values, keys = joined.entries[FIRST].parts
    other = dataclasses.replace(values, item=1)
    refused(of_parts(joined, FIRST, other, keys), r"layer pv: reading part \d+ of scores")
    other = dataclasses.replace(keys, item=1)
    refused(of_parts(joined, FIRST, values, other), r"layer pv: reading part \d+ of q.out")
    heads = dataclasses.replace(keys.heads, first=0)
    other = dataclasses.replace(keys, heads=heads)
    refused(of_parts(joined, FIRST, values, other), r"layer pv: reading part \d+ of q.out")


def test_row_statistics_of_joined_products(joined):
    place = joined.entries[FIRST].pre.row_in
    other = Addr(place.base + 64)
    refused(changed(joined, FIRST, "pre", row_out=other), "the rows that come ahead are others|row")
    refused(changed(joined, FIRST, "pre", row_in=other), r"of scores finds .* of row statistics")


def test_logits_that_are_not_written_yet(joined):
    """Neither those of a tile in the execution before, nor after those of the next pair."""
    wrong = dataclasses.replace(joined, engine=dataclasses.replace(joined.engine, lag=300))
    for index in range(FIRST):
        wrong = changed(wrong, index, "store", flush=FLUSH_ALWAYS, pending=0)
    refused(wrong, "layer pv: scores is read before it is written")
    dest = moved(joined.entries[FIRST].store.dest, 8)
    refused(changed(joined, FIRST, "store", dest=dest), "scores is written over what")


def test_constants_of_joined_products(joined):
    assert [joined.entries[k].pre.pp_once for k in (FIRST, FIRST + 1, LAST, LAST + 1)] == [
        *(joined.entries[FIRST].pre.pp_once, 2, 2, 2)
    ]
    wrong = changed(changed(joined, FIRST, "pre", pp_once=2), FIRST, "wload", pp_once=2)
    refused(wrong, "layer pv: the constants of the execution before are others")
    other = Addr(joined.entries[LAST].wload.pp.base - 1)
    refused(changed(joined, LAST, "wload", pp=other), "execution before are others")
    refused(changed(joined, LAST, "pre", uniform=1 - joined.entries[LAST].pre.uniform), "pp are")


@pytest.mark.parametrize(
    ("kernel", "change", "words"),
    [
        ("post", {"pv_wide": 1}, "elements of ys"),
        ("post", {"row_sums": 0}, "elements of ss"),
        ("pre", {"groups": (16, 2)}, "elements of xs"),
        ("mac", {"pv_subs": 15}, "elements of ks"),
        ("mac", {"sub_base": (0, 0)}, "source 0 fills subs 0..16 of 1..17"),
        ("mac", {"sub_base": (1, 1)}, "source 1 fills subs 1..2 of 0..1"),
        ("store", {"pv_share": 3}, "67 of 68 words of a tile's fill are read"),
        ("store", {"pv_share": 90, "share": -1}, "74 of 68 words of a tile's fill are read"),
        ("mac", {"taps": 2}, "elements of ks"),
        ("mac", {"items": 2}, "joined products with items 2"),
        ("pre", {"norm": 0}, "joined products with norm 0"),
    ],
)
def test_kernels_agree_about_joined_products(joined, kernel, change, words):
    refused(changed(joined, FIRST, kernel, **change), f"layer pv: .*{words}")


def shaped(program, index, **values):
    """With another shape in all kernels."""
    shape = dataclasses.replace(program.entries[index].mac.shape, **values)
    for kernel in ("store", "pre", "gather", "mac", "post"):
        program = changed(program, index, kernel, shape=shape)
    return program


def test_shape_of_joined_products(joined):
    units = joined.entries[FIRST].mac.shape.units
    wrong = changed(shaped(joined, FIRST, per_round=units - 1), FIRST, "wload", per_round=units - 1)
    refused(wrong, f"of {units} units are those with V, {units - 1} at once")
    refused(shaped(joined, FIRST, pv_every=0), f"1 units with V, every 0, of {units}")
    few = dataclasses.replace(joined.engine, joined_units=units - 1)
    refused(dataclasses.replace(joined, engine=few), f"{units} units of a round of {units - 1}")
    rng = np.random.default_rng(5)
    qgraph = random_qgraph("self_attention", rng, size=(16, 16), heads=(2, 16))
    alone = lower(qgraph, Engine())
    shape = alone.entries[FIRST].mac.shape
    assert (shape.pv_units, shape.pv_every, shape.units) == (2, 17, 34)
    assert shaped(alone, FIRST, pv_every=32).entries != alone.entries
    verify_program(shaped(alone, FIRST, pv_every=32))
    refused(shaped(alone, FIRST, pv_every=33), "2 units with V, every 33, of 34")
    refused(of_parts(joined, FIRST), "0 products are joined")
    whole = joined.entries[LAST + 1]
    refused(
        of_parts(joined, LAST + 1, whole, whole), "a product with V is joined to it, of no unit"
    )
    few = dataclasses.replace(joined.engine, weight_rows=31)
    refused(dataclasses.replace(joined, engine=few), "32 weight rows of a round of 31")
