"""Statistics that go to their reader as they are made: whose, and how many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from layerkit import random_qgraph

from gen.program import Engine, lower, verify_program
from gen.program.ahead import leave_sums, send_rows_ahead, send_rows_first
from gen.program.check import ProgramError, _rows_fault
from gen.program.structs import (
    NORM,
    STATS_GROUP,
    STATS_GROUP_ADD,
    STATS_LAYER,
    STATS_SOFTMAX,
    Addr,
    Segment,
)


@pytest.fixture(scope="module")
def entry():
    return lower(random_qgraph("linear", np.random.default_rng(1)), Engine()).entries[0]


def writer(entry, octets=9, row=5, stats=STATS_LAYER):
    pre = replace(entry.pre, stats=stats, row_out=row, stat_words=octets)
    return replace(entry, pre=replace(pre, row_out=Addr(row)))


def reader(entry, fill=9, row=5, norm="layer"):
    shape = replace(entry.pre.shape, fill=fill)
    return replace(entry, pre=replace(entry.pre, shape=shape, norm=NORM[norm], row_in=Addr(row)))


def sent(segments, entries, capacity=64):
    made = send_rows_ahead(segments, entries, capacity)
    return [(e.pre.rows_ahead, e.pre.rows_sent) for e in made]


def test_rows_go_to_the_next_entry(entry):
    pair = [writer(entry), reader(entry)]
    assert sent([Segment(0, 2)], pair) == [(9, 0), (0, 9)]
    assert sent([Segment(0, 1), Segment(1, 1)], pair) == [(9, 0), (0, 9)]
    assert sent([Segment(0, 2, 3, 4)], pair) == [(9, 0), (0, 9)]


def test_what_the_fifo_holds_limits_them(entry):
    assert sent([Segment(0, 2)], [writer(entry), reader(entry)], 4) == [(4, 0), (0, 4)]
    assert sent([Segment(0, 2)], [writer(entry), reader(entry, fill=3)]) == [(3, 0), (0, 3)]


def test_only_the_first_of_several_readers_gets_them(entry):
    entries = [writer(entry), reader(entry), reader(entry)]
    assert sent([Segment(0, 3)], entries) == [(9, 0), (0, 9), (0, 0)]


def test_chain_of_writers_that_read(entry):
    middle = writer(reader(entry), row=40)
    entries = [writer(entry), middle, reader(entry, row=40)]
    assert sent([Segment(0, 3)], entries) == [(9, 0), (9, 9), (0, 9)]


@pytest.mark.parametrize(
    "segments",
    [
        [Segment(0, 1, 2), Segment(1, 1, 2)],  # each run of the writer is followed by another
        [Segment(0, 1, 1), Segment(1, 1, 2)],
        [Segment(0, 1, 2), Segment(1, 1, 1)],
    ],
)
def test_runs_apart_send_nothing(entry, segments):
    assert sent(segments, [writer(entry), reader(entry)]) == [(0, 0)] * 2


def test_other_rows_send_nothing(entry):
    for first, second in (
        (writer(entry), reader(entry, row=6)),
        (writer(entry), reader(entry, norm="none")),
        (writer(entry), reader(entry, norm="group")),
        (writer(entry, stats=STATS_GROUP), reader(entry)),
    ):
        assert sent([Segment(0, 2)], [first, second]) == [(0, 0)] * 2
    softmax = [writer(entry, stats=STATS_SOFTMAX), reader(entry, norm="softmax")]
    assert sent([Segment(0, 2)], softmax) == [(9, 0), (0, 9)]


def pairs(entry, fill=4, stats=STATS_SOFTMAX):
    """Products with K of 2 items x 3 heads, and with V."""
    keys, values = writer(entry, 4, stats=stats), reader(entry, fill, norm="softmax")
    where = Addr(5, 12, 4)
    return [replace(each, pre=replace(each.pre, row_in=where, row_out=where))
            for each in (keys, values)]  # fmt: skip


def first(segments, entries, capacity=64):
    return [e.pre.rows_first for e in send_rows_first(segments, entries, capacity)]


def test_rows_that_are_kept_long_since_are_sent_first(entry):
    several = [Segment(0, 1, 2, 3), Segment(1, 1, 2, 3)]
    assert first(several, pairs(entry)) == [0, 1]
    assert first(several, pairs(entry, stats=STATS_LAYER)) == [0, 1]
    # what the FIFO does not hold would wait for the layer behind
    assert first(several, pairs(entry), capacity=3) == [0, 0]


def test_rows_of_the_execution_before_are_not_sent_first(entry):
    one = [Segment(0, 1), Segment(1, 1)]
    assert first(one, pairs(entry)) == [0, 0]
    assert first([Segment(0, 2, 2, 3)], pairs(entry)) == [0, 0]
    # no statistics are waited for
    several = [Segment(0, 1, 2, 3), Segment(1, 1, 2, 3)]
    assert first(several, pairs(entry, stats=STATS_GROUP)) == [0, 0]
    # the execution before has rows of its own on the way
    keys, values = pairs(entry)
    keys = replace(keys, pre=replace(keys.pre, norm=NORM["layer"]))
    assert first(several, [keys, values]) == [0, 0]


def adds_up(entry, groups=11, per_round=4, items=3, by_item=1, stats=STATS_GROUP, steps=64):
    shape = replace(entry.pre.shape, units=groups, per_round=per_round, steps=steps)
    post = replace(entry.post, item_octets=8)
    return replace(entry, post=post, pre=replace(
        entry.pre, shape=shape, stats=stats, by_item=by_item, items_out=items, stats_out=Addr(8),
        stats_pitch_out=groups, stat_words=items * groups,
    ))  # fmt: skip


def normalises(entry, place=8, items=3, norm="group", pitch=11):
    return replace(entry, pre=replace(
        entry.pre, norm=NORM[norm], items=items, sources=2, stats_base=(Addr(400), Addr(place)),
        stats_pitch=(5, pitch), norm_groups=8, group_size=16,
    ))  # fmt: skip


def left(segments, entries, **engine):
    made = leave_sums(segments, entries, Engine(**engine))
    return [(e.pre.sums_left, e.pre.sums_before) for e in made]


def test_sums_of_items_are_left_to_the_reader(entry):
    pair = [adds_up(entry), normalises(entry)]
    # 11 groups in rounds of 4: those of the last round are 3
    assert left([Segment(0, 2)], pair) == [(6, 0), (0, 3)]
    assert left([Segment(0, 1), Segment(1, 1)], pair) == [(6, 0), (0, 3)]
    one_round = [adds_up(entry, per_round=64, stats=STATS_GROUP_ADD), normalises(entry)]
    assert left([Segment(0, 2)], one_round) == [(22, 0), (0, 11)]


def test_sums_are_left_where_the_reader_gains_by_it(entry):
    """Not where an item takes less than pre.sums for it: here 2 tiles of 3 groups against 20 cycles
    between loops, 3 sums and 8 norm groups of 16 channels.
    """
    for steps, sums in ((6, (6, 0)), (5, (0, 0))):
        pair = [adds_up(entry, steps=steps), normalises(entry)]
        assert left([Segment(0, 2)], pair)[0] == sums


def test_sums_are_left_where_no_scale_holds_them_up(entry):
    """FIFO sc holds the scales of all items: 3 times 2 sets."""
    pair = [adds_up(entry), normalises(entry)]
    for depth, sums in ((6, (6, 0)), (5, (0, 0))):
        depths = {**Engine().depths, "sc": depth}
        assert left([Segment(0, 2)], pair, depths=depths)[0] == sums


def test_sums_that_nobody_normalises_item_by_item_are_not_left(entry):
    for first, second in (
        (adds_up(entry, by_item=0), normalises(entry)),
        (adds_up(entry), normalises(entry, place=9)),
        (adds_up(entry), normalises(entry, pitch=12)),
        (adds_up(entry), normalises(entry, items=1)),
        (adds_up(entry), normalises(entry, norm="layer")),
        (adds_up(entry, stats=STATS_LAYER), normalises(entry)),
    ):
        assert left([Segment(0, 2)], [first, second]) == [(0, 0)] * 2
    apart = [adds_up(entry), entry, normalises(entry)]
    assert left([Segment(0, 3)], apart) == [(0, 0)] * 3


def changed(program, index, **values):
    entry = program.entries[index]
    entries = list(program.entries)
    entries[index] = replace(entry, pre=replace(entry.pre, **values))
    return replace(program, entries=entries)


def test_check_finds_rows_that_do_not_arrive():
    program = lower(random_qgraph("layernorm", np.random.default_rng(1)), Engine(ranks=2))
    verify_program(program)
    (index,) = [k for k, e in enumerate(program.entries) if e.pre.rows_ahead]
    rows = program.entries[index].pre.rows_ahead
    assert program.entries[index + 1].pre.rows_sent == rows
    for wrong, words in (
        (changed(program, index, rows_ahead=rows - 1), "come ahead"),
        (changed(program, index + 1, rows_sent=0), "come ahead"),
        (changed(program, len(program.entries) - 1, rows_ahead=1), "more rows ahead"),
        (
            changed(changed(program, index, rows_ahead=0), index + 1, rows_sent=0, rows_first=1),
            "sent before they are kept",
        ),
    ):
        with pytest.raises(ProgramError, match=words):
            verify_program(wrong)


def test_check_finds_rows_that_would_fill_their_fifo():
    """The products with K read rows of their own, which are on the way with those of the products
    with V: a FIFO of fewer than both could hold up the very statistics that the former make.
    """
    rng = np.random.default_rng(1)
    program = lower(random_qgraph("self_attention", rng, batch=2), Engine(ranks=2))
    verify_program(program)
    (index,) = [k for k, e in enumerate(program.entries) if e.pre.rows_first]
    keys, values = program.entries[index - 1].pre, program.entries[index].pre
    both = keys.shape.fill + values.shape.fill
    entries = list(program.entries)
    own = replace(keys, norm=NORM["layer"], row_in=Addr(900))
    entries[index - 1] = replace(entries[index - 1], pre=own)
    for depth, fault in ((both, None), (both - 1, f"{both} rows on the way in FIFO rw")):
        engine = replace(program.engine, depths={**program.engine.depths, "rw": depth})
        found = _rows_fault(replace(program, engine=engine, entries=entries))
        assert found is None if fault is None else fault in found


def guided_convs():
    """Two 3x3 convolutions, the second of which normalises what the first one has written."""
    rng = np.random.default_rng(4)
    qgraph = random_qgraph("concat_groupnorm_silu", rng, batch=2, size=(16, 16), channels=64)
    return lower(qgraph, Engine(ranks=2))


def test_check_finds_sums_that_are_not_kept():
    program = guided_convs()
    verify_program(program)
    index = next(k for k, e in enumerate(program.entries) if e.pre.sums_left)
    pre, each = program.entries[index].pre, program.entries[index + 1].pre.sums_before
    assert pre.sums_left == each and pre.items_out == 2
    others = tuple(Addr(a.base + 2) for a in program.entries[index + 1].pre.stats_base)
    for wrong, words in (
        (changed(program, index, sums_left=each - 1), "sums are left"),
        (changed(program, index + 1, sums_before=0), "sums are left"),
        (changed(program, index, by_item=0), "disagree about the order of sums"),
        (changed(program, index + 1, norm=NORM["none"]), "that are left are others"),
        (
            changed(changed(program, index, sums_left=each + 1), index + 1, sums_before=each + 1),
            "sums of its first item",
        ),
        (changed(program, len(program.entries) - 1, by_item=1), "disagree about the order of sums"),
    ):
        with pytest.raises(ProgramError, match=words):
            verify_program(wrong)
    wrong = changed(program, index + 1, stats_base=others)
    with pytest.raises(ProgramError):
        verify_program(wrong)


def test_check_finds_constants_that_do_not_arrive():
    program = lower(random_qgraph("self_attention", np.random.default_rng(1)), Engine(ranks=2))
    index = next(k for k, e in enumerate(program.entries) if e.pre.pp_once)
    with pytest.raises(ProgramError, match="disagree about the constants"):
        verify_program(changed(program, index, pp_once=0))
