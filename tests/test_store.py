"""store: what it reads in which order, and that its writes lag behind without a wrong row."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from changedsources import changed_sources
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


def joined_loop(tiles, of_v, of_k, lead=TILE, runs=4, every=1):
    """Pairs (item, head) one after the other: logits are read tile by tile as they are written over
    with those of the next pair, and never waited for.
    """
    octets, units = TILE * tiles, of_v + of_k
    shape = Shape(units, units, 1, octets, 2, lead, octets, RING_K, RANKS, pv_units=of_v,
                  pv_every=every, pv_steps=8, pv_words=16)  # fmt: skip
    share = ceil(TILE * (of_k + 1) / units)
    logits = wide(100, of_k, octets)
    one = entry(
        shape, logits, logits, pv_weights=Region(Addr(1400, 0, 8), Addr(0), of_v, 0, 8 * runs),
        weights=Region(Addr(1800, 0, 0), Addr(0, 0, RANKS * of_k), 1, 0, 200),
        pv_dest=Region(Addr(900, 0, octets // 2), Addr(0), of_v, 0, octets // 2 * runs),
        pv_share=share, share=share,
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
    every = (of_v + of_k - 2) // (of_v - 1) if of_v > 1 else 1
    for each in {1, every}:
        check(joined_loop(tiles, of_v, of_k, every=each), 3, lag, depth)


@pytest.mark.parametrize("every", [1, 9, 14])
def test_tiles_longer_than_the_lag(every):
    """Results of a tile are written while it still reads: words of the next one."""
    check(joined_loop(3, 4, 40, runs=2, every=every), 3, lag=32)


@pytest.mark.parametrize(("tiles", "of_v", "of_k"), [(6, 1, 3), (3, 3, 5), (10, 1, 1)])
def test_logits_of_a_tile_too_early_lack_a_flush(tiles, of_v, of_k):
    lag = (tiles - 2) * (of_v + of_k) - 1
    check(joined_loop(tiles, of_v, of_k), 3, lag)
    with pytest.raises(AssertionError, match="lacks a flush"):
        check(joined_loop(tiles, of_v, of_k), 3, lag + 1)
    # and earlier still, a tile is read in the lead
    with pytest.raises(AssertionError, match="lacks a flush"):
        check(joined_loop(tiles, of_v, of_k, lead=2 * TILE), 3, lag)


def joined_products(tiles, of_v, of_k, every, shares):
    """A product with V, of logits of 7 groups, beside one with K, of queries of 3."""
    octets, units = TILE * tiles, of_v + of_k
    shape = Shape(units, units, 1, octets, 2, 4, octets, RING_K, RANKS, pv_units=of_v,
                  pv_every=every, pv_steps=8, pv_words=16)  # fmt: skip
    sources = (wide(0, 7, octets), Region(Addr(900), Addr(0), 3, 0, octets // 2))
    one = entry(
        shape, Region(Addr(1100), Addr(0), of_k, 0, octets // 2), sources[0],
        weights=Region(Addr(1800), Addr(0), 1, 0, 100),
        pv_weights=Region(Addr(1900), Addr(0), of_v, 0, 8),
        pv_dest=Region(Addr(1600), Addr(0), of_v, 0, octets // 2),
        pv_share=shares[0], share=shares[1],
    )  # fmt: skip
    one = replace(one, sources=2, source=sources)
    return Program([Segment(0, 1)], [one], StoreIo(0, 1, 0, 1))


def cycles_per_tile(of_v, of_k, every, shares, **more):
    tiles = 9, 29
    cycles = [check(joined_products(n, of_v, of_k, every, shares), 5, **more) for n in tiles]
    return (cycles[1] - cycles[0]) / (tiles[1] - tiles[0])


@pytest.mark.parametrize("every", [1, 3, 8])
@pytest.mark.parametrize(("shares", "cycles"), [
    ((4, 4), 40),
    ((12, 2), 2 * 12 + 8 * TILE),
    ((0, 5), 2 * TILE + 8 * 5),
    ((40, 0), 40 + 9 * TILE),
])  # fmt: skip
def test_joined_products_read_as_much_as_they_write(every, shares, cycles):
    """Not all of a tile's fill in one micro-slot: writes would stand still, then reads. The engine
    takes a cycle for every octet that it computes or reads.
    """
    assert abs(cycles_per_tile(2, 8, every, shares) - cycles) <= 1


NEW_TILE = "if (slot.group == 0) turns.start();"


@pytest.mark.parametrize(("shares", "change", "seen"), [
    ((4, 4), ("store_writes", 1, "unit - turns.pv", "unit - made.pv_units"), "not equal"),
    ((4, 4), ("store_writes", 1, "turns.of_v(shape, unit)", "unit < 2"), "not equal"),
    ((4, 4), ("store_writes", 1, NEW_TILE, ""), "not equal"),
    # words of a tile are left over
    ((0, 5), ("store", 1, "? entry.pv_share : entry.share", "? entry.share : entry.pv_share"),
     "deadlock"),
    ((8, 3), ("store", 1, NEW_TILE, ""), "deadlock"),
])  # fmt: skip
def test_faults_of_joined_products_are_seen(shares, change, seen, tmp_path):
    flag = changed_sources(tmp_path, "store.cpp", change)
    program = joined_products(9, 2, 8, 3, shares)
    check(program, 5)
    with pytest.raises(AssertionError, match=seen):
        check(program, 5, flags=(flag,), root=tmp_path)


def test_shares_of_less_than_a_tile_are_refused():
    program = joined_products(9, 2, 8, 3, (3, 4))
    status, text, *_ = run(
        program, np.zeros((ROWS, 2, 64), np.uint8), np.zeros((1, 2, 64), np.uint8), WRITTEN,
        [(4, 0, 0, 0), (0, 0, 4, 1)], 15, 16,
    )  # fmt: skip
    assert status != 0
    assert text == "store: a tile's micro-slots do not read all of its fill"


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
