"""Rows of a layer norm or softmax that go to their reader at once: who may, and how many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from layerkit import random_qgraph

from gen.program import Engine, lower, verify_program
from gen.program.ahead import send_rows_ahead
from gen.program.check import ProgramError
from gen.program.structs import NORM, STATS_GROUP, STATS_LAYER, STATS_SOFTMAX, Addr, Segment


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
    ):
        with pytest.raises(ProgramError, match=words):
            verify_program(wrong)


def test_check_finds_constants_that_do_not_arrive():
    program = lower(random_qgraph("self_attention", np.random.default_rng(1)), Engine(ranks=2))
    index = next(k for k, e in enumerate(program.entries) if e.pre.pp_once)
    with pytest.raises(ProgramError, match="disagree about the constants"):
        verify_program(changed(program, index, pp_once=0))
