"""Constants of pre that serve several executions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from aheadkit import changed, random_segments, runs_of
from layerkit import random_qgraph

from gen.program import Engine, lower, verify_program
from gen.program.check import ProgramError
from gen.program.constants import keep_constants
from gen.program.structs import (
    Addr,
    Segment,
)


@pytest.fixture(scope="module")
def entry():
    return lower(random_qgraph("linear", np.random.default_rng(1)), Engine()).entries[0]


def constants(entry, place=100, words=12, buffer=0, table=1, uniform=1, groups=5, steps=(0, 0),
              once=0):  # fmt: skip
    pre = replace(entry.pre, table=table, uniform=uniform, groups=(groups, 3), pp_once=once)
    wload = replace(
        entry.wload, pp=Addr(place, *steps), pp_words=words, pp_buffer=buffer, pp_once=once
    )
    return replace(entry, pre=pre, wload=wload)


def kept(segments, entries):
    made = keep_constants(segments, entries)
    assert all(e.pre.pp_once == e.wload.pp_once for e in made)
    return [e.pre.pp_once for e in made]


def test_constants_of_the_execution_before_serve(entry):
    """Product with K, joined ones, which have V's constants in front of K's, product with V."""
    keys = constants(entry, 109, words=3, table=0, uniform=0, groups=3)
    both, values = constants(entry, once=1), constants(entry, words=9)
    entries = [keys, both, both, values, keys]
    loop = [Segment(0, 1), Segment(1, 1, 1, 3), Segment(2, 1), Segment(3, 1), Segment(4, 1)]
    assert kept(loop, entries) == [0, 1, 2, 2, 0]
    assert kept([Segment(0, 5)], entries) == [0, 1, 2, 2, 0]
    # whatever is executed first in a step has nothing before it
    assert kept([Segment(0, 1), Segment(1, 1)], [both, values]) == [1, 2]
    assert kept([Segment(0, 1, 2, 3)], [both]) == [1]
    # not all of its executions follow one that has them
    assert kept([Segment(0, 1), Segment(1, 2, 1, 2)], [both, values, keys]) == [1, 0, 0]


def test_constants_that_are_others_do_not_serve(entry):
    both = constants(entry, once=1)
    for change in (
        {"place": 101}, {"buffer": 1}, {"table": 0}, {"uniform": 0}, {"groups": 4}, {"words": 13},
        {"words": 0}, {"steps": (0, 4)}, {"steps": (4, 0)},
    ):  # fmt: skip
        for n0, n1 in ((1, 1), (2, 2)):
            other = constants(entry, **change)
            same = "steps" in change and (n0, n1) == (1, 1)
            found = kept([Segment(0, 1), Segment(1, 1, n0, n1)], [both, other])
            assert found == [1, 2 if same else 0], change


def test_constants_of_random_programs(entry):
    """Those that serve are in the memory of pre, word for word."""
    rng, some = np.random.default_rng(9), 0
    for _ in range(800):
        segments = random_segments(rng, int(rng.integers(1, 6)))
        entries = []
        for segment in segments:
            for _ in range(segment.count):
                table = int(rng.integers(2))
                slots = 2 + int(rng.integers(0, 3))
                entries.append(constants(
                    entry, int(rng.choice([100, 100, 101])), 32 * table + slots,
                    int(rng.random() < 0.2), table, int(rng.integers(2)), 2,
                    tuple(int(n) for n in rng.choice([0, 0, 0, 1], 2)),
                    int(segment.count == 1 and rng.integers(2)),
                ))  # fmt: skip
        # one that is sent once has one place
        for index, e in enumerate(entries):
            if e.pre.pp_once:
                pp = replace(e.wload.pp, s0=0, s1=0)
                entries[index] = replace(e, wload=replace(e.wload, pp=pp))
        made = keep_constants(segments, entries)
        memory, table = {}, None
        for index, i0, i1 in runs_of(segments):
            e = made[index]
            start, rows = e.wload.pp.at(i0, i1), 32 * e.pre.table
            there = {k: (e.wload.pp_buffer, start + rows + k)
                     for k in range(e.wload.pp_words - rows)}  # fmt: skip
            sends = e.pre.pp_once == 0 or (e.pre.pp_once == 1 and (i0, i1) == (0, 0))
            if sends:
                memory |= there
                table = (e.wload.pp_buffer, start) if rows else table
            assert there.items() <= memory.items()
            assert not rows or table == (e.wload.pp_buffer, start)
            some += not sends and e.pre.pp_once == 2
    assert some > 100


def test_check_finds_constants_that_do_not_arrive():
    program = lower(random_qgraph("self_attention", np.random.default_rng(1)), Engine(ranks=2))
    index = next(k for k, e in enumerate(program.entries) if e.pre.pp_once)
    with pytest.raises(ProgramError, match="disagree about the constants"):
        verify_program(changed(program, index, pp_once=0))
