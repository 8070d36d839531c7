"""Where the store waits for outstanding writes, and for how many of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from layerkit import random_inputs, random_qgraph
from test_program import compared

from gen.program import Engine, lower, verify_program
from gen.program.check import ProgramError
from gen.program.structs import FLUSH_ALWAYS, FLUSH_FIRST, FLUSH_NEVER, RING_K


def attention(ranks, batch=2, size=(16, 16), heads=(4, 32), **engine):
    rng = np.random.default_rng(7)
    qgraph = random_qgraph("self_attention", rng, batch, size, heads=heads)
    return qgraph, lower(qgraph, Engine(ranks=ranks, **engine))


def products(program):
    """Entries of the product with V, and what reads its result."""
    index = [k for k, entry in enumerate(program.entries) if entry.post.row_sums]
    return index, index[-1] + 1


def changed(program, index, **values):
    entries = list(program.entries)
    entries[index] = replace(entries[index], store=replace(entries[index].store, **values))
    return replace(program, entries=entries)


# heads so wide that their products have executions of their own
@pytest.mark.parametrize(("ranks", "lag"), [(2, 60), (4, 30)])
def test_results_of_early_items_and_heads_are_not_waited_for(ranks, lag):
    """The last head's results are under way when the first item's are read, and so are the last
    logits when the first head's are read.
    """
    qgraph, program = attention(ranks, heads=(2, 64), lag=lag)
    values, reader = products(program)
    assert not any(entry.parts for entry in program.entries)
    assert all(program.entries[index].store.flush == FLUSH_NEVER for index in values)
    store = program.entries[reader].store
    assert (store.flush, store.pending) == (FLUSH_FIRST, program.engine.lag)
    verify_program(program)
    compared(qgraph, program, random_inputs(qgraph, np.random.default_rng(2)))


def test_logits_of_one_head_are_waited_for_tile_by_tile():
    qgraph, program = attention(1, heads=(4, 64), lag=260)
    (index,), _ = products(program)
    assert not program.entries[index].parts
    assert program.entries[index].store.flush == FLUSH_ALWAYS
    assert program.entries[index].store.pending > 0
    verify_program(program)
    compared(qgraph, program, random_inputs(qgraph, np.random.default_rng(2)))


@pytest.mark.parametrize("size", [(8, 8), (4, 4)])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_short_maps(size, batch):
    qgraph, program = attention(4, batch, size)
    verify_program(program)
    compared(qgraph, program, random_inputs(qgraph, np.random.default_rng(3)))


@pytest.mark.parametrize("rows", [64, 128, 1024])
def test_strips_of_logits(rows):
    """Logits of one head at a time, or of all for some queries: their rows are written again."""
    qgraph, program = attention(2, scores_rows=rows)
    verify_program(program)
    compared(qgraph, program, random_inputs(qgraph, np.random.default_rng(4)))


@pytest.mark.parametrize("size", [(16, 16), (8, 8)])
def test_all_that_may_not_be_left_is_written_little_by_little(size):
    _, program = attention(4, size=size)
    left = 0
    for entry in program.entries:
        store, tile = entry.store, program.engine.tile_octets
        if store.flush != FLUSH_NEVER:
            tiles = -(-entry.mac.shape.octets // tile)
            assert 0 <= store.pending_end <= store.pending <= program.engine.lag
            assert store.pending - store.pending_end <= store.pending_tile * tiles
            left += store.pending_end
    assert (left > 0) == (size == (8, 8))


@pytest.mark.parametrize("ranks", [2, 4])
def test_what_is_not_read_may_be_left(ranks):
    """Few micro-slots an execution: products with V begin while the logits of other pairs are on
    their way, and leave them there. None that is read may be left.
    """
    qgraph, program = attention(ranks, size=(8, 8), heads=(4, 32))
    index, _ = products(program)
    inputs = random_inputs(qgraph, np.random.default_rng(2))
    compared(qgraph, program, inputs)
    exact(program)
    for k in index:
        store = program.entries[k].store
        assert store.flush == FLUSH_ALWAYS and 0 < store.pending_end < program.engine.lag
        more = store.pending_end + 1
        for values in (
            {"pending": max(store.pending, more), "pending_end": more},
            {"flush": FLUSH_FIRST},
        ):
            wrong = changed(program, k, **values)
            assert too_early(wrong)
            with pytest.raises(ProgramError, match="read before it is written"):
                verify_program(wrong)
            with pytest.raises(AssertionError):
                compared(qgraph, wrong, inputs)


def test_loops_flush_once_where_every_execution_would_wait():
    """Where few micro-slots are in between, all is written by the end of the first execution."""
    for heads, when in ((3, FLUSH_FIRST), (4, FLUSH_ALWAYS)):
        _, program = attention(4, 1, (4, 4), (heads, 32))
        exact(program)
        (index,), _ = products(program)
        store = program.entries[index].store
        assert (store.flush, store.pending) == (when, heads - 1)
        assert store.pending_end == (heads - 1 if when == FLUSH_ALWAYS else 0)


def test_one_more_pending_is_refused():
    """The reader of a single layer's result waits for no more than it has to."""
    rng = np.random.default_rng(5)
    qgraph = random_qgraph("conv3x3", rng, batch=2, size=(16, 16), channels=64)
    program = lower(qgraph, Engine(ranks=2, lag=60))
    (index,) = [k for k, e in enumerate(program.entries) if e.store.flush != FLUSH_NEVER]
    store = program.entries[index].store
    assert 0 < store.pending < program.engine.lag
    verify_program(program)
    with pytest.raises(ProgramError, match="read before it is written"):
        verify_program(changed(program, index, pending=store.pending + 1))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_joined_products_follow_each_other_without_a_flush(ranks):
    """Logits are read beside those of the next pair that are written over them. The first
    execution waits for the product with K before it, and the last product with V for them all.
    """
    qgraph, program = attention(ranks)
    joined = [k for k, entry in enumerate(program.entries) if entry.parts]
    assert len(joined) == 3 and joined == list(range(joined[0], joined[0] + 3))
    assert [program.entries[k].store.flush for k in joined[1:]] == [FLUSH_NEVER] * 2
    first, last = (program.entries[k].store for k in (joined[0], joined[-1] + 1))
    assert (first.flush, last.flush) == (FLUSH_FIRST, FLUSH_FIRST)
    verify_program(program)
    compared(qgraph, program, random_inputs(qgraph, np.random.default_rng(2)))
    for index in (joined[0], joined[-1] + 1):
        store = program.entries[index].store
        wrongs = [{"flush": FLUSH_NEVER}]
        if store.pending < program.engine.lag:
            wrongs.append({"pending": store.pending + 1})
        for values in wrongs:
            with pytest.raises(ProgramError, match="read before it is written"):
                verify_program(changed(program, index, **values))


def cells(region, group, octet, loop):
    """Halves of rows in which an octet lies (docs/engine.md, "Activation store")."""
    at = region.octet.at(*loop) + octet
    row = region.row.at(*loop) + group * region.group_rows
    return [2 * (row + at), 2 * (row + at) + 1] if region.wide else [2 * row + at]


def slots_of(shape, tile):
    """Micro-slots of an execution by (output group, tile): round, tile, output group."""
    groups, per_round = shape.units // shape.gates, shape.per_round // shape.gates
    found = {}
    for first in range(0, groups, per_round):
        for each in range(-(-shape.octets // tile)):
            for group in range(first, min(groups, first + per_round)):
                found[group, each] = len(found)
    return found


def reads_of(program, entry, loop):
    """(cell, micro-slot of the execution) of what it reads, ring weights all in the lead slot."""
    store, shape, tile = entry.store, entry.store.shape, program.engine.tile_octets
    slots = slots_of(shape, tile)
    for region in store.source[: store.sources]:
        for octet in range(shape.fill):
            behind = (octet - shape.lead) // tile
            slot = slots[0, behind] if octet >= shape.lead else 0
            for group in range(region.groups):
                yield from ((cell, slot) for cell in cells(region, group, octet, loop))
    if shape.ring:
        keys = entry.parts[-1] if entry.parts else entry
        tokens = program.tensors[keys.weight].pitch // 8
        # of K all groups of the head, of V one for every unit
        groups = store.weights.groups if shape.ring == RING_K else shape.units
        for region, count in ((store.weights, groups), (store.pv_weights, shape.pv_units)):
            for group in range(count):
                for octet in range(tokens):
                    yield from ((cell, 0) for cell in cells(region, group, octet, loop))
    if store.residual.groups:
        for (group, each), slot in slots.items():
            for octet in range(tile * each, min(tile * (each + 1), shape.octets)):
                yield from ((cell, slot) for cell in cells(store.residual, group, octet, loop))


def writes_of(program, entry, loop):
    store, shape, tile = entry.store, entry.store.shape, program.engine.tile_octets
    for (group, each), slot in slots_of(shape, tile).items():
        of_v = group < shape.pv_units
        region, group = (store.pv_dest, group) if of_v else (store.dest, group - shape.pv_units)
        for octet in range(tile * each, min(tile * (each + 1), shape.octets)):
            yield from ((cell, slot) for cell in cells(region, group, octet, loop))


def too_early(program, without=-1):
    """Indices of entries that read what may not be written, if entry ``without`` has no flush."""
    now, written, found = 0, {}, set()
    for segment in program.segments:
        for loop in product(range(segment.n0), range(segment.n1)):
            for index in range(segment.first, segment.first + segment.count):
                entry = program.entries[index]
                flush = entry.store.flush
                if index != without and (flush == FLUSH_ALWAYS or (flush and loop == (0, 0))):
                    left = now - entry.store.pending_end
                    written = {cell: slot for cell, slot in written.items() if slot >= left}
                far = now - program.engine.lag - 2
                if any(written.get(cell, far) > far + slot
                       for cell, slot in reads_of(program, entry, loop)):  # fmt: skip
                    found.add(index)
                made = list(writes_of(program, entry, loop))
                written |= {cell: now + slot for cell, slot in made}
                now += 1 + max(slot for _, slot in made)
    return found


def exact(program):
    """Whether there are as few flushes as can be; asserts that none is missing."""
    assert not too_early(program)
    for segment in program.segments:
        for index in range(segment.first, segment.first + segment.count):
            if program.entries[index].store.flush != FLUSH_NEVER:
                early = too_early(program, index)
                # the first entry of a segment may wait for what a later iteration reads
                assert any(segment.first <= k < segment.first + segment.count for k in early)


@pytest.mark.parametrize("lag", [2, 5, 10, 20, 26, 32, 47, 64])
@pytest.mark.parametrize("heads", [(1, 32), (1, 64), (1, 24)])
def test_flushes_are_as_few_as_can_be(lag, heads):
    """Octets behind the lead are read beside their tile, many micro-slots later."""
    for ranks, batch, size in ((2, 1, (16, 16)), (2, 3, (16, 8)), (4, 2, (16, 16))):
        _, program = attention(ranks, batch, size, heads, lag=lag)
        exact(program)
    rng = np.random.default_rng(5)
    for kind in ("conv3x3", "concat_groupnorm_silu", "linear"):
        program = lower(random_qgraph(kind, rng, batch=2, size=(16, 16)), Engine(ranks=2, lag=lag))
        exact(program)


def test_octets_behind_the_lead_are_read_beside_their_tile():
    """The last results are under way when the reader begins, and long written when it comes to
    them: from a lag on that is as long as that takes, it waits.
    """
    found = []
    for lag in range(40, 100):
        _, program = attention(2, heads=(1, 64), lag=lag)
        _, reader = products(program)
        exact(program)
        found.append(program.entries[reader].store.flush)
    assert set(found) == {FLUSH_NEVER, FLUSH_FIRST}
    assert found == sorted(found)


def test_reader_that_waits_for_no_item_is_refused():
    _, program = attention(4, size=(8, 8))
    _, reader = products(program)
    assert program.entries[reader].store.flush != FLUSH_NEVER
    for values in ({"pending": program.engine.lag, "pending_tile": 0}, {"flush": FLUSH_NEVER}):
        with pytest.raises(ProgramError, match="read before it is written"):
            verify_program(changed(program, reader, **values))
