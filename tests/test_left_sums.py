"""Sums of a group norm that its reader keeps item by item."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from aheadkit import changed
from layerkit import random_qgraph

from gen.program import Engine, lower, verify_program
from gen.program.ahead import leave_sums
from gen.program.check import ProgramError
from gen.program.structs import (
    NORM,
    STATS_GROUP,
    STATS_GROUP_ADD,
    STATS_LAYER,
    Addr,
    Segment,
)


@pytest.fixture(scope="module")
def entry():
    return lower(random_qgraph("linear", np.random.default_rng(1)), Engine()).entries[0]


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
