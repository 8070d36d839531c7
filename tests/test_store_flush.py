"""Flushes of the store: what may be outstanding when an execution reads, and what may not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from storemodel import (
    GUARD,
    LAGS,
    RANKS,
    RING_K,
    ROWS,
    TILE,
    Model,
    Program,
    check,
    entry,
    run,
    wide,
    with_late_writes,
)
from storeprograms import random_program, with_moves, with_pending

from gen.program.structs import Addr, Region, Segment, Shape, StoreIo


@pytest.mark.parametrize("seed", range(24))
def test_random_flushes(seed):
    """Of programs that read much of what they have just written."""
    rng, lag = np.random.default_rng([seed, ROWS]), LAGS[seed % 3]
    program = random_program(rng, 4, joined=0.4 * (seed % 2), rows=300)
    if seed % 4 == 3:
        program = with_moves(rng, program)
    program = with_pending(rng, program, lag)
    assert any(entry.pending_end > 0 for entry in program.entries)
    check(program, seed, lag, depth=int(rng.integers(1, 60)), drain=int(rng.integers(0, 2)) * 60)


def chain(flush):
    """Two layers, the second one of which reads what the first one writes."""
    shape = Shape(2, 2, 1, 8, 3, 4, 8, 0, 0)
    entries = [
        entry(shape, wide(100, 2, 8), wide(0, 2, 8)),
        entry(shape, wide(200, 2, 8), wide(100, 2, 8), flush=flush),
    ]
    return Program([Segment(0, 1), Segment(1, 1)], entries, StoreIo(0, 1, 0, 1))


def test_a_missing_flush_reads_old_rows():
    check(chain(1), 3)
    check(chain(2), 3)
    with pytest.raises(AssertionError, match="lacks a flush"):
        check(chain(0), 3)
    rng = np.random.default_rng(3)
    memory = rng.integers(0, 256, (ROWS, 2, 64), np.uint8)
    latent = rng.integers(0, 256, (1, 2, 64), np.uint8)
    given = memory.copy()
    model = Model(chain(1), memory, latent, rng)
    status, _, xs, *_ = run(chain(0), given, latent, np.array(model.ys), model.steps, 32, 40)
    assert status == 0
    assert (xs != np.array(model.xs)).any()


@pytest.mark.parametrize("pending", [(0, 0), (18, 18), (18, 2), (18, 3), (7, 1)])
@pytest.mark.parametrize("depth", [1, 80])
def test_tiles_follow_the_layer_before(pending, depth):
    """The lead slot reads what the first tile has written, every tile what the next one has."""
    check(long_chain(*pending), 3, lag=32, depth=depth)


def long_chain(pending, pending_tile):
    """Two layers of two output groups and ten tiles."""
    octets = 40
    shape = Shape(2, 2, 1, octets, 3, 4, octets, 0, 0)
    later = {"flush": 1, "pending": pending, "pending_tile": pending_tile}
    entries = [
        entry(shape, wide(100, 2, octets), wide(0, 2, octets)),
        entry(shape, wide(200, 2, octets), wide(100, 2, octets), **later),
    ]
    return Program([Segment(0, 1), Segment(1, 1)], entries, StoreIo(0, 1, 0, 1))


@pytest.mark.parametrize("pending", [(20, 20), (18, 1)])
def test_tiles_that_are_too_early_read_old_rows(pending):
    reads_old_rows(long_chain(*pending), long_chain(18, 2))


def reads_old_rows(program, right):
    """Both the model and the store see that ``program`` waits for too little."""
    with pytest.raises(AssertionError, match="lacks a flush"):
        check(program, 3, lag=32, depth=80)
    with pytest.raises(AssertionError, match="not equal"):
        check(program, 3, lag=32, depth=80, right=right)


FOLLOWS = {"flush": 1, "pending": 14, "pending_tile": 2, "pending_end": 4}


def left_behind(end, follows, between=0):
    """Ten tiles of two output groups, of which the next layer reads four and the last one the other
    six; between those two, as many micro-slots of a layer that reads other rows.
    """
    layers = [
        entry(Shape(2, 2, 1, 40, 3, 4, 40, 0, 0), wide(100, 2, 40), wide(0, 2, 40)),
        entry(Shape(1, 1, 1, 16, 3, 4, 16, 0, 0), wide(300, 1, 16), wide(100, 2, 40), flush=1,
              pending=18, pending_tile=2, pending_end=end),
        entry(Shape(between, between, 1, 4, 1, 4, 4, 0, 0), wide(400, between, 4), wide(0, 1, 4)),
        entry(Shape(1, 1, 1, 24, 3, 4, 24, 0, 0), wide(320, 1, 24),
              Region(Addr(100), Addr(16), 2, 1, 40), **follows),
    ]  # fmt: skip
    if not between:
        del layers[2]
    segments = [Segment(k, 1) for k in range(len(layers))]
    return Program(segments, layers, StoreIo(0, 1, 0, 1))


@pytest.mark.parametrize("drain", [0, 100])
@pytest.mark.parametrize("depth", [1, 80])
@pytest.mark.parametrize("end", [0, 5, 12])
def test_what_an_execution_leaves_behind_is_written_before_a_later_one_reads_it(end, depth, drain):
    """The later one flushes, or comes LAG + 2 micro-slots after those that wrote what it reads."""
    for program in (left_behind(end, FOLLOWS), left_behind(end, {}, between=25)):
        check(program, 3, lag=32, depth=depth, drain=drain)


def test_a_later_execution_that_is_too_early_reads_old_rows():
    reads_old_rows(left_behind(17, FOLLOWS), left_behind(12, FOLLOWS))
    for more in ({"pending": 18}, {"pending_end": 9}):
        reads_old_rows(left_behind(12, {**FOLLOWS, **more}), left_behind(12, FOLLOWS))
    # all is written before the third layer, or nothing
    reads_old_rows(left_behind(12, {}), left_behind(12, {"flush": 1}))
    with pytest.raises(AssertionError, match="lacks a flush"):
        check(left_behind(12, {}, between=24), 3, lag=32)


def with_later_residual(more):
    """The residual of round 1 is that of the last but eighth micro-slot, round 0's was written just
    before.
    """
    return with_residual(100, pending=13 + more, pending_tile=2, pending_end=8 + more)


def with_old_residual(more):
    """Round 0 reads old rows alone, round 1 those of the last but ninth micro-slot."""
    return with_residual(60, pending=20, pending_end=9 + more)


def with_residual(row, **flush):
    layers = [
        entry(Shape(2, 2, 1, 40, 3, 4, 40, 0, 0), wide(100, 2, 40), wide(0, 2, 40)),
        entry(Shape(2, 1, 1, 8, 3, 8, 8, 0, 0), wide(300, 2, 8), wide(0, 1, 8),
              residual=Region(Addr(row), Addr(16), 2, 1, 40), flush=1, **flush),
    ]  # fmt: skip
    return Program([Segment(0, 1), Segment(1, 1)], layers, StoreIo(0, 1, 0, 1))


def relying(more):
    """An execution without a flush reads what the one before has waited for, but not read: of the
    last but eighth micro-slot.
    """
    layers = [
        entry(Shape(2, 2, 1, 40, 3, 4, 40, 0, 0), wide(100, 2, 40), wide(0, 2, 40)),
        entry(Shape(1, 1, 1, 16, 3, 16, 16, 0, 0), wide(300, 1, 16), wide(0, 2, 40), flush=1,
              pending=20, pending_end=8 + more),
        entry(Shape(1, 1, 1, 4, 3, 4, 4, 0, 0), wide(320, 1, 4),
              Region(Addr(140), Addr(20), 1, 1, 40)),
    ]  # fmt: skip
    return Program([Segment(k, 1) for k in range(3)], layers, StoreIo(0, 1, 0, 1))


# least: as many too many show, as the store writes a little earlier than it has to
@pytest.mark.parametrize(
    ("made", "least"), [(with_later_residual, 2), (with_old_residual, 3), (relying, 1)]
)
def test_more_pending_at_the_end_than_is_allowed_reads_old_rows(made, least):
    for depth in (0, 1, 80):
        check(made(0), 3, lag=32, depth=depth)
    for more in range(1, least):
        with pytest.raises(AssertionError, match="lacks a flush"):
            check(made(more), 3, lag=32)
    reads_old_rows(made(least), made(0))


def in_order(runs, tiles, **flush):
    """As products with K, and then as many with V that read their logits in the same order."""
    octets = TILE * tiles
    shape = Shape(1, 1, 1, octets, 8, 4, octets, 0, 0)
    logits = Region(Addr(300, 0, octets), Addr(0), 1, 1, octets)
    keys = entry(shape, logits, wide(0, 1, octets))
    values = entry(shape, Region(Addr(800, 0, octets // 2), Addr(0), 1, 0, octets // 2), logits,
                   **flush)  # fmt: skip
    segments = [Segment(0, 1, 1, runs), Segment(1, 1, 1, runs)]
    return Program(segments, [keys, values], StoreIo(0, 1, 0, 1))


@pytest.mark.parametrize(("runs", "tiles", "least"), [(6, 4, 4), (10, 2, 2), (9, 3, 3), (14, 1, 1)])
def test_executions_that_read_what_was_written_a_while_ago_do_not_wait(runs, tiles, least):
    def program(pending, end):
        return in_order(runs, tiles, flush=1, pending=pending, pending_end=end)

    left, drain = (runs - 1) * tiles, 100
    waiting, going_on = (
        check(program(left, end), 3, lag=32, depth=1, drain=drain) for end in (0, left)
    )
    # all of them but one would wait for the one before
    assert waiting - going_on > 0.4 * drain * (runs - 1)
    reads_old_rows(program(left + least, left + least), program(left, left))


def behind_joined_products(every, more):
    """The result of the product with V is read while the last units with K are still due."""
    units = 10
    shape = Shape(units, units, 1, TILE, 2, TILE, TILE, RING_K, RANKS, pv_units=2, pv_every=every,
                  pv_steps=8, pv_words=16)  # fmt: skip
    result = wide(600, 2, TILE)
    one = entry(
        shape, wide(700, 8, TILE), wide(0, 2, TILE), weights=Region(Addr(1800), Addr(0), 1, 0, 100),
        pv_weights=Region(Addr(1900), Addr(0), 2, 0, 8), pv_dest=result, pv_share=2, share=1,
    )  # fmt: skip
    one = replace(one, sources=2, source=(one.source[0], wide(100, 1, TILE)))
    left = units - 1 - every + more
    later = entry(Shape(1, 1, 1, TILE, 1, TILE, TILE, 0, 0), wide(900, 1, TILE), result, flush=1,
                  pending=left, pending_end=left)  # fmt: skip
    return Program([Segment(0, 1), Segment(1, 1)], [one, later], StoreIo(0, 1, 0, 1))


@pytest.mark.parametrize("every", [1, 3, 8])
def test_results_of_a_product_with_v_lie_between_those_with_k(every):
    right = behind_joined_products(every, 0)
    for depth in (0, 1, 80):
        check(right, 3, lag=32, depth=depth)
    with pytest.raises(AssertionError, match="lacks a flush"):
        check(behind_joined_products(every, 1), 3, lag=32)
    # the store writes up to EARLY micro-slots sooner than it has to
    reads_old_rows(behind_joined_products(every, 5), right)


def independent(runs, octets, **flush):
    """Executions of one tile that read what nobody writes."""
    shape = Shape(1, 1, 1, TILE, 1, octets, octets, 0, 0)
    dest = Region(Addr(100, 0, TILE), Addr(0), 1, 1, TILE)
    one = entry(shape, dest, wide(0, 1, octets), **flush)
    return Program([Segment(0, 1, 1, runs)], [one], StoreIo(0, 1, 0, 1))


def interval(first, end, octets=12, **flush):
    """Cycles from execution to execution; 100 pass from the engine to the store."""
    before, after = (
        check(independent(runs, octets, **flush), 3, lag=32, depth=1, drain=100)
        for runs in (first, end)
    )
    return (after - before) / (end - first)


def test_many_short_executions_take_no_longer_than_few():
    """Results of 16 executions can wait; those of more are written beside the reads."""
    assert interval(20, 40) == interval(4, 12)


@pytest.mark.parametrize(("octets", "pending"), [(12, 8), (12, 12), (40, 4)])
def test_what_must_be_written_soon_is_written_beside_the_lead(octets, pending):
    """An execution that begins with as much as may be pending does not write it in a burst."""
    flush = {"flush": 1, "pending": pending, "pending_end": pending}
    assert interval(20, 40, octets, **flush) == interval(4, 12, octets)


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    root = tmp_path_factory.mktemp("late")
    flag = with_late_writes(root)
    return lambda delay: {"flags": (flag, f"-DLDA_DELAY={delay}"), "root": root}


def short_read():
    """The last octet that a layer writes is all that the next one reads."""
    layers = [
        entry(Shape(1, 1, 1, 8, 3, 4, 8, 0, 0), wide(100, 1, 8), wide(0, 1, 8)),
        entry(Shape(1, 1, 1, 2, 3, 1, 1, 0, 0), wide(200, 1, 2),
              Region(Addr(100), Addr(7), 1, 1, 8), flush=1),
    ]  # fmt: skip
    return Program([Segment(0, 1), Segment(1, 1)], layers, StoreIo(0, 1, 0, 1))


def more_than_tile_by_tile():
    """Round 0 leaves two micro-slots more than the next one may, whose residual they write."""
    later = {"flush": 1, "pending": 3, "pending_tile": 1}
    residual = Region(Addr(500), Addr(0), 2, 1, 138 - 500)  # of group 1: the last octets at 100
    layers = [
        entry(Shape(1, 1, 1, 40, 3, 4, 40, 0, 0), wide(100, 1, 40), wide(0, 1, 40)),
        entry(Shape(2, 1, 1, 2, 3, 1, 4, 0, 0), wide(900, 2, 2), wide(1000, 1, 4),
              residual=residual, **later),
    ]  # fmt: skip
    return Program([Segment(0, 1), Segment(1, 1)], layers, StoreIo(0, 1, 0, 1))


def test_no_read_comes_sooner_than_guard_after_its_write(late):
    """Writes GUARD iterations late change nothing."""
    programs = [
        long_chain(18, 2), long_chain(18, 3), left_behind(12, FOLLOWS), short_read(),
        with_later_residual(0), with_old_residual(0), relying(0),
        in_order(6, 4, flush=1, pending=20, pending_end=20), more_than_tile_by_tile(),
    ]  # fmt: skip
    for seed in range(8):
        rng = np.random.default_rng([seed, GUARD])
        programs.append(with_pending(rng, random_program(rng, 3, 0.3 * (seed % 2), 300), 32))
    for seed, program in enumerate(programs):
        for depth in (0, 40):
            check(program, seed, lag=32, depth=depth, **late(GUARD))
    with pytest.raises(AssertionError, match="not equal"):
        check(short_read(), 3, lag=32, **late(GUARD + 2))


def test_an_execution_that_flushes_leaves_nothing_pending():
    """Later iterations of a segment rely on the flush of its first one."""
    octets = 40
    first = entry(Shape(2, 2, 1, octets, 3, 4, octets, 0, 0), wide(100, 2, octets),
                  wide(0, 2, octets))  # fmt: skip
    source = Region(Addr(100), Addr(0, 0, octets // 2), 2, 1, octets)
    dest = Region(Addr(200), Addr(0, 0, octets // 2), 2, 1, octets)
    half = Shape(2, 2, 1, octets // 2, 3, 4, octets // 2, 0, 0)
    later = entry(half, dest, source, flush=2, pending=18, pending_tile=2)
    program = Program([Segment(0, 1), Segment(1, 1, 1, 2)], [first, later], StoreIo(0, 1, 0, 1))
    check(program, 3, lag=32, depth=80)


def test_following_tile_by_tile_is_faster():
    cycles = [check(long_chain(*each), 3, lag=32, depth=80) for each in ((0, 0), (18, 18), (18, 2))]
    assert cycles[0] > cycles[1] > cycles[2]


def test_without_a_flush_executions_overlap():
    """Independent layers follow each other without waiting for the engine's pipeline."""
    shape = Shape(1, 1, 1, 4, 1, 4, 4, 0, 0)
    source, dest = wide(0, 1, 4), Region(Addr(100, 0, 4), Addr(0), 1, 1, 4)
    overlapping = entry(shape, dest, source)
    loop = [Segment(0, 1, 1, 20)]
    io = StoreIo(0, 1, 0, 1)
    fast = check(Program(loop, [overlapping], io), 5, depth=4)
    slow = check(Program(loop, [replace(overlapping, flush=1)], io), 5, depth=4)
    assert fast < 0.75 * slow
