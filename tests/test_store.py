"""store: what it reads in which order, and that its writes lag behind without a wrong row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from storemodel import (
    JOINED,
    LAGS,
    RANKS,
    RING_K,
    RING_V,
    ROWS,
    TILE,
    WRITTEN,
    Program,
    check,
    entry,
    run,
    wide,
)
from storeprograms import random_program, with_moves

from gen.program.structs import Addr, Move, Region, Segment, Shape, StoreIo


@pytest.mark.parametrize("seed", range(24))
def test_random_programs(seed):
    rng = np.random.default_rng(seed)
    lag = LAGS[seed % 3]
    check(random_program(rng), seed, lag, depth=int(rng.integers(1, 60)))


@pytest.mark.parametrize("seed", range(24))
def test_random_joined_products(seed):
    rng = np.random.default_rng([seed, JOINED])
    lag = LAGS[seed % 3]
    program = random_program(rng, joined=1.0 if seed < 6 else 0.6)
    check(program, seed, lag, depth=int(rng.integers(1, 60)))


def joined_loop(tiles, of_v, of_k, lead=TILE, runs=4):
    """Pairs (item, head) one after the other: logits are read tile by tile as they are written over
    with those of the next pair, and never waited for.
    """
    octets, units = TILE * tiles, of_v + of_k
    shape = Shape(units, units, 1, octets, 2, lead, octets, RING_K, RANKS, pv_units=of_v,
                  pv_steps=8, pv_words=16)  # fmt: skip
    logits = wide(100, of_k, octets)
    one = entry(
        shape, logits, logits, pv_weights=Region(Addr(1400, 0, 8), Addr(0), of_v, 0, 8 * runs),
        weights=Region(Addr(1800, 0, 0), Addr(0, 0, RANKS * of_k), 1, 0, 200),
        pv_dest=Region(Addr(900, 0, octets // 2), Addr(0), of_v, 0, octets // 2 * runs),
    )  # fmt: skip
    one = replace(one, sources=2, source=(logits, wide(0, 1, octets)))
    return Program([Segment(0, 1, 1, runs)], [one], StoreIo(0, 1, 0, 1))


@pytest.mark.parametrize("depth", [0, 1, 16, 80])
@pytest.mark.parametrize(("tiles", "of_v", "of_k", "lag"), [
    (6, 1, 3, 15), (9, 2, 3, 34), (4, 1, 1, 3), (8, 1, 4, 29), (3, 3, 5, 7), (10, 1, 1, 15),
])  # fmt: skip
def test_logits_are_read_as_they_are_written_over(tiles, of_v, of_k, lag, depth):
    """The last of a tile is written (tiles - 2) * units + 1 micro-slots before it is read."""
    assert (tiles - 2) * (of_v + of_k) + 1 >= lag + 2
    check(joined_loop(tiles, of_v, of_k), 3, lag, depth)


@pytest.mark.parametrize(("tiles", "of_v", "of_k"), [(6, 1, 3), (3, 3, 5), (10, 1, 1)])
def test_logits_of_a_tile_too_early_lack_a_flush(tiles, of_v, of_k):
    lag = (tiles - 2) * (of_v + of_k) - 1
    check(joined_loop(tiles, of_v, of_k), 3, lag)
    with pytest.raises(AssertionError, match="lacks a flush"):
        check(joined_loop(tiles, of_v, of_k), 3, lag + 1)
    # and earlier still, a tile is read in the lead
    with pytest.raises(AssertionError, match="lacks a flush"):
        check(joined_loop(tiles, of_v, of_k, lead=2 * TILE), 3, lag)


def test_joined_products_read_as_much_as_they_write():
    """Not all of a tile's fill in one micro-slot: writes would stand still, then reads."""
    cycles = []
    for tiles in (9, 29):
        octets = TILE * tiles
        shape = Shape(10, 10, 1, octets, 2, 4, octets, RING_K, RANKS, pv_units=2, pv_steps=8,
                      pv_words=16)  # fmt: skip
        sources = (wide(0, 7, octets), Region(Addr(900), Addr(0), 3, 0, octets // 2))
        one = entry(
            shape, Region(Addr(1100), Addr(0), 8, 0, octets // 2), sources[0],
            weights=Region(Addr(1800), Addr(0), 1, 0, 100),
            pv_weights=Region(Addr(1900), Addr(0), 2, 0, 8),
            pv_dest=Region(Addr(1600), Addr(0), 2, 0, octets // 2),
        )  # fmt: skip
        one = replace(one, sources=2, source=sources)
        cycles.append(check(Program([Segment(0, 1)], [one], StoreIo(0, 1, 0, 1)), 5))
    # a share is 4 of 40 words
    assert abs(cycles[1] - cycles[0] - 20 * 10 * 4) <= 20


@pytest.mark.parametrize("seed", range(24))
def test_random_moves(seed):
    rng = np.random.default_rng(100 + seed)
    lag = LAGS[seed % 3]
    check(
        with_moves(rng, random_program(rng, joined=0.3 * (seed % 2))),
        seed,
        lag,
        depth=int(rng.integers(1, 60)),
    )


@pytest.mark.parametrize(("put", "cycles_per_row"), [(0, 2 * 1.093), (1, 2 * 1.236)])
def test_moves_run_at_the_speed_of_the_memory(put, cycles_per_row):
    shape = Shape(1, 1, 1, 4, 1, 4, 4, 0, 0)
    one = entry(shape, wide(100, 1, 4), wide(0, 1, 4))
    times = []
    for rows in (40, 540):
        move = Move(put, rows, 1, 0, 0, Addr(1000), Addr(7))
        made = replace(one, moves_before=1)
        times.append(
            check(Program([Segment(0, 1)], [made], StoreIo(0, 1, 0, 1), [move]), 5, depth=4)
        )
    assert abs(times[1] - times[0] - 500 * cycles_per_row) < 0.01 * 500 * cycles_per_row


def test_a_move_beyond_the_spill_buffer_is_refused():
    shape = Shape(1, 1, 1, 4, 1, 4, 4, 0, 0)
    one = replace(entry(shape, wide(100, 1, 4), wide(0, 1, 4)), moves_before=1)
    for put, done in ((0, "read"), (1, "written")):
        move = Move(put, 3, 2, 3, 3, Addr(0), Addr(0))
        program = Program([Segment(0, 1)], [one], StoreIo(0, 1, 0, 1), [move])
        status, text, *_ = run(
            program, np.zeros((ROWS, 2, 64), np.uint8), np.zeros((1, 2, 64), np.uint8),
            WRITTEN, [(4, 0, 0, 0), (0, 0, 4, 1)], 15, 36,
            spill=np.zeros((5, 2, 64), np.uint8),
        )  # fmt: skip
        assert status != 0
        assert text == f"buffer spill: word 11 is {done}, it has 10"


@pytest.mark.parametrize("ring", [RING_K, RING_V])
def test_ring_weights_of_more_words_than_the_fifos_hold(ring):
    """They come as mac loads them: earlier, the store would stand still and fill ys."""
    octets, groups, per_round = 48, 12, 3
    steps = 10 if ring == RING_K else 60
    local = 5
    weights = Region(Addr(1300), Addr(0), local if ring == RING_K else groups, 0, 2 * 30)
    shape = Shape(groups, per_round, 1, octets, steps, 4, octets, ring,
                  RANKS * local if ring == RING_K else 2 * steps)  # fmt: skip
    one = entry(shape, wide(700, groups, octets), wide(0, 2, octets), weights=weights)
    check(Program([Segment(0, 1)], [one], StoreIo(0, 1, 0, 1)), 1, lag=15, depth=16)


def test_rounds_longer_than_the_lag():
    """The fill of a tile arrives although nothing behind it is read for a whole round."""
    octets = 24
    shape = Shape(20, 20, 1, octets, 1, 4, octets, 0, 0)
    one = entry(shape, wide(100, 20, octets), wide(0, 1, octets))
    check(Program([Segment(0, 1)], [one], StoreIo(0, 1, 0, 1)), 1, lag=11, depth=0)


def test_a_planted_fault_is_seen():
    rng = np.random.default_rng(0)
    program = random_program(rng)
    for each in (program, joined_loop(6, 2, 3)):
        check(each, 0, flags=())
        with pytest.raises(AssertionError, match="not equal"):
            check(each, 0, flags=("-DLDA_PLANT_FAULTS",))


def test_a_row_outside_of_the_store_is_refused():
    shape = Shape(1, 1, 1, 4, 1, 4, 4, 0, 0)
    one = entry(shape, wide(ROWS - 2, 1, 4), wide(0, 1, 4))
    program = Program([Segment(0, 1)], [one], StoreIo(0, 1, 0, 1))
    memory = np.zeros((ROWS, 2, 64), np.uint8)
    steps = [(4, 0, 0, 0), (0, 0, 4, 1)]
    status, text, *_ = run(
        program, memory, np.zeros((1, 2, 64), np.uint8), WRITTEN, steps, 15, 36
    )  # fmt: skip
    assert status != 0
    assert "a row outside of the activation store" in text
