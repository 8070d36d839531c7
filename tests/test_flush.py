"""Where the store waits for outstanding writes, and for how many of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from layerkit import random_inputs, random_qgraph
from test_program import compared

from gen.program import Engine, lower, verify_program
from gen.program.check import ProgramError
from gen.program.structs import FLUSH_ALWAYS, FLUSH_FIRST, FLUSH_NEVER


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


@pytest.mark.parametrize("ranks", [2, 4])
def test_results_of_early_items_and_heads_are_not_waited_for(ranks):
    """The last head's results are under way when the first item's are read, and so are the last
    logits when the first head's are read.
    """
    qgraph, program = attention(ranks)
    values, reader = products(program)
    assert all(program.entries[index].store.flush == FLUSH_NEVER for index in values)
    store = program.entries[reader].store
    assert (store.flush, store.pending) == (FLUSH_FIRST, program.engine.lag)
    verify_program(program)
    compared(qgraph, program, random_inputs(qgraph, np.random.default_rng(2)))


def test_logits_of_one_head_are_waited_for_tile_by_tile():
    qgraph, program = attention(1)
    (index,), _ = products(program)
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


def test_all_is_written_little_by_little():
    _, program = attention(4)
    for entry in program.entries:
        store, tile = entry.store, program.engine.tile_octets
        if store.flush != FLUSH_NEVER:
            assert store.pending <= store.pending_tile * -(-entry.mac.shape.octets // tile)


def test_one_more_pending_is_refused():
    """The reader of a single layer's result waits for no more than it has to."""
    rng = np.random.default_rng(5)
    qgraph = random_qgraph("conv3x3", rng, batch=2, size=(16, 16), channels=64)
    program = lower(qgraph, Engine(ranks=2))
    (index,) = [k for k, e in enumerate(program.entries) if e.store.flush != FLUSH_NEVER]
    store = program.entries[index].store
    assert 0 < store.pending < program.engine.lag
    verify_program(program)
    with pytest.raises(ProgramError, match="read before it is written"):
        verify_program(changed(program, index, pending=store.pending + 1))


def test_reader_that_waits_for_no_item_is_refused():
    _, program = attention(4, size=(8, 8))
    _, reader = products(program)
    assert program.entries[reader].store.flush != FLUSH_NEVER
    for values in ({"pending": program.engine.lag, "pending_tile": 0}, {"flush": FLUSH_NEVER}):
        with pytest.raises(ProgramError, match="read before it is written"):
            verify_program(changed(program, reader, **values))
