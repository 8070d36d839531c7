"""Random segments of a program, and programs with another entry of pre."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from gen.program.structs import (
    Segment,
)


def runs_of(segments):
    """(entry, i0, i1) of all executions."""
    return [
        (segment.first + k, i0, i1)
        for segment in segments
        for i0, i1 in product(range(segment.n0), range(segment.n1))
        for k in range(segment.count)
    ]


def random_segments(rng, most):
    segments, entries = [], 0
    while entries < most:
        count = int(rng.integers(1, min(3, most - entries) + 1))
        segments.append(Segment(entries, count, int(rng.integers(1, 3)), int(rng.integers(1, 4))))
        entries += count
    return segments


def changed(program, index, **values):
    entry = program.entries[index]
    entries = list(program.entries)
    entries[index] = replace(entry, pre=replace(entry.pre, **values))
    return replace(program, entries=entries)
