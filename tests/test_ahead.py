"""Row statistics that go to their reader as they are made: whose, and how many."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from aheadkit import changed, random_segments, runs_of
from layerkit import random_qgraph

from gen.program import Engine, lower, verify_program
from gen.program.ahead import send_rows_ahead, send_rows_first
from gen.program.check import ProgramError, _rows_fault
from gen.program.structs import (
    NORM,
    STATS_GROUP,
    STATS_LAYER,
    STATS_NONE,
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


def queue(entry, step=4, fill=4):
    """Products with K of 2 items x 3 heads, and with V, of 4 rows each."""
    where = Addr(5, 3 * step, step)
    keys = writer(entry, 4, stats=STATS_SOFTMAX)
    values = reader(entry, fill, norm="softmax")
    return [
        replace(keys, pre=replace(keys.pre, row_out=where)),
        replace(values, pre=replace(values.pre, row_in=Addr(5, 12, 4))),
    ]


def test_rows_of_a_segment_wait_for_the_next_one(entry):
    """Products with V follow those with K in the same order; FIFO rw holds the rows of all."""
    several = [Segment(0, 1, 2, 3), Segment(1, 1, 2, 3)]
    keys, values = queue(entry)
    assert sent(several, [keys, values], 24) == [(4, 0), (0, 4)]
    assert sent(several, queue(entry), 23) == [(0, 0), (0, 0)]
    # in another order, or not all of them
    assert sent(several, queue(entry, step=8)) == [(0, 0), (0, 0)]
    assert sent(several, queue(entry, fill=3)) == [(0, 0), (0, 0)]
    for counts in ((6, 1), (1, 6), (3, 2)):
        assert sent([several[0], Segment(1, 1, *counts)], queue(entry)) == [(0, 0), (0, 0)]
    # each writes over the rows of the one before
    assert sent(several, [writer(entry, 4, stats=STATS_SOFTMAX),
                           reader(entry, 4, norm="softmax")]) == [(0, 0), (0, 0)]  # fmt: skip
    # something in between
    apart = [Segment(0, 1, 2, 3), Segment(1, 1), Segment(2, 1, 2, 3)]
    assert sent(apart, [keys, entry, values]) == [(0, 0)] * 3
    # products with K that have rows of their own on the way
    keys = replace(keys, pre=replace(keys.pre, norm=NORM["layer"], row_in=Addr(900)))
    assert sent(several, [keys, values]) == [(0, 0), (0, 0)]


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


def joined(entry, octets=9, row_in=0, row_out=0, steps=(0, 0)):
    """An execution that reads rows and makes rows."""
    made = writer(reader(entry, octets, norm="softmax"), octets, stats=STATS_SOFTMAX)
    where = {"row_in": Addr(row_in, *steps), "row_out": Addr(row_out, *steps)}
    return replace(made, pre=replace(made.pre, **where))


def test_entry_that_follows_itself(entry):
    """The first product with K, joined ones, the last product with V: over the same rows."""
    first = writer(entry, row=0, stats=STATS_SOFTMAX)
    last = reader(entry, row=0, norm="softmax")
    entries = [first, joined(entry), joined(entry), last]
    for segments in (
        [Segment(0, 1), Segment(1, 1, 1, 3), Segment(2, 1), Segment(3, 1)],
        [Segment(0, 1), Segment(1, 2, 2, 2), Segment(3, 1)],
        [Segment(0, 4)],
    ):
        assert sent(segments, entries) == [(9, 0), (9, 9), (9, 9), (0, 9)]
        assert sent(segments, entries, 4) == [(4, 0), (4, 4), (4, 4), (0, 4)]
    loop = [Segment(0, 1), Segment(1, 1, 1, 3), Segment(2, 1), Segment(3, 1)]
    # every one gets what the shortest does
    short = [first, joined(entry), joined(entry), reader(entry, 6, row=0, norm="softmax")]
    assert sent(loop, short) == [(9, 0), (9, 9), (6, 9), (0, 6)]
    # nothing reads what the last one makes: it sends none, nor do those that other ones read
    assert sent(loop[:2], entries[:2]) == [(0, 0), (0, 0)]
    # the last one of the loop, by which the entry is followed by itself as well
    other = [first, joined(entry), joined(entry, row_in=40), last]
    assert sent(loop, other) == [(0, 0), (0, 0), (9, 0), (0, 9)]


def test_entry_that_follows_itself_has_rows_of_its_own(entry):
    """Rows of the next iteration are written where that one reads, by steps of i0 and i1."""
    steps = (27, 9)
    loop = [Segment(0, 1, 1, 3), Segment(1, 1)]
    apart = [joined(entry, row_in=0, row_out=9, steps=steps), reader(entry, row=27, norm="softmax")]
    # nothing is before the first of them
    assert sent(loop, apart) == [(0, 0), (0, 0)]
    before = writer(entry, row=0, stats=STATS_SOFTMAX)
    follows = [Segment(0, 1), Segment(1, 1, 1, 3), Segment(2, 1)]
    assert sent(follows, [before, *apart]) == [(9, 0), (9, 9), (0, 9)]
    # only the last iteration of i1 is followed by other rows
    twice = [Segment(0, 1), Segment(1, 1, 2, 3), Segment(2, 1)]
    end = reader(entry, row=54, norm="softmax")
    assert sent(twice, [before, apart[0], end]) == [(9, 0), (9, 9), (0, 9)]
    off = joined(entry, row_in=0, row_out=9, steps=(28, 9))
    assert sent(twice, [before, off, end]) == [(0, 0), (0, 0), (0, 0)]


def most_rows(segments, entries, capacity):
    """Rows between executions: entries that follow one another, by whatever way, send or leave out
    as many; sets of (is a reader, entry), and for each the least that two executions share.
    """
    runs = [None, *runs_of(segments), None]
    sets = []
    for before, now in pairwise(runs):
        shared = 0
        if before and now:
            w, r = entries[before[0]].pre, entries[now[0]].pre
            rows = w.stats in (STATS_LAYER, STATS_SOFTMAX) and r.norm in (
                NORM["layer"],
                NORM["softmax"],
            )
            if rows and w.row_out.at(*before[1:]) == r.row_in.at(*now[1:]):
                shared = min(w.stat_words, r.shape.fill, capacity)
        ends = {(False, before and before[0]), (True, now and now[0])}
        touching = [each for each in sets if each[0] & ends]
        sets = [each for each in sets if not each[0] & ends]
        sets.append((ends.union(*(s for s, _ in touching)),
                     min([shared, *(n for _, n in touching)])))  # fmt: skip
    rows = {end: count for ends, count in sets for end in ends}
    return [(rows[False, k], rows[True, k]) for k in range(len(entries))]


def test_rows_of_random_programs(entry):
    rng, some = np.random.default_rng(8), 0
    for _ in range(600):
        segments = random_segments(rng, int(rng.integers(1, 5)))
        entries = []
        for segment in segments:
            for _ in range(segment.count):
                octets = int(rng.integers(1, 9))
                steps = tuple(int(n) for n in rng.choice([0, 0, 0, 4], 2))
                made = joined(entry, octets, *(int(n) for n in rng.choice([0, 0, 4], 2)), steps)
                pre = replace(
                    made.pre, stats=int(rng.choice([STATS_SOFTMAX] * 6 + [STATS_NONE])),
                    norm=int(rng.choice([NORM["softmax"]] * 6 + [NORM["none"]])),
                    shape=replace(made.pre.shape, fill=int(rng.integers(1, 9))),
                )  # fmt: skip
                entries.append(replace(made, pre=pre))
        capacity = int(rng.integers(1, 10))
        got = sent(segments, entries, capacity)
        assert got == most_rows(segments, entries, capacity)
        some += any(rows for rows, _ in got)
    assert some > 30


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


def test_check_finds_rows_that_wait_in_another_order():
    rng = np.random.default_rng(1)
    program = lower(random_qgraph("self_attention", rng, batch=2), Engine(ranks=2))
    verify_program(program)
    (values,) = [k for k, e in enumerate(program.entries) if e.pre.rows_sent]
    keys = values - 1
    pre, runs = program.entries[values].pre, program.segment_of(values)
    rows = pre.rows_sent
    assert rows == pre.shape.fill == program.entries[keys].pre.rows_ahead and not pre.rows_first
    together = rows * runs.n0 * runs.n1
    assert runs.n0 * runs.n1 > 1
    wrong_order = Addr(pre.row_in.base, pre.row_in.s1, pre.row_in.s0)
    for wrong, words in (
        (changed(program, values, row_in=wrong_order), "come ahead are others"),
        (changed(program, values, rows_sent=0), "come ahead"),
        (changed(changed(program, values, rows_sent=rows - 1), keys, rows_ahead=rows - 1),
         "in the way of its own"),
    ):  # fmt: skip
        assert words in _rows_fault(wrong)
        with pytest.raises(ProgramError):
            verify_program(wrong)
    for depth, fault in ((together, None), (together - 1, f"{together} rows ahead in FIFO rw")):
        engine = replace(program.engine, depths={**program.engine.depths, "rw": depth})
        found = _rows_fault(replace(program, engine=engine))
        assert found is None if fault is None else fault in found


def test_check_finds_rows_that_would_fill_their_fifo():
    """The products with K read rows of their own, which are on the way with those of the products
    with V: a FIFO of fewer than both could hold up the very statistics that the former make.
    """
    rng = np.random.default_rng(1)
    engine = Engine(ranks=2)
    qgraph = random_qgraph("self_attention", rng, batch=2)
    rows = max(e.pre.rows_sent for e in lower(qgraph, engine).entries)
    few = {**engine.depths, "rw": rows}  # those of one pair
    program = lower(qgraph, replace(engine, depths=few))
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
