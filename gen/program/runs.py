"""Executions of a step in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from gen.program.structs import Segment

# an execution: entry, loop counters
Run = tuple[int, int, int]


def executions(segments: Sequence[Segment]) -> Iterator[Run]:
    """Entry index and loop counters of every execution of a step, in order."""
    for segment in segments:
        for i0, i1 in product(range(segment.n0), range(segment.n1)):
            yield from ((segment.first + k, i0, i1) for k in range(segment.count))


def steps(segments: Sequence[Segment]) -> Iterator[tuple[Run | None, Run]]:
    """Every execution of a step behind the one before it, if there is one."""
    before: Run | None = None
    for run in executions(segments):
        yield before, run
        before = run


def last_run(segments: Sequence[Segment]) -> Run:
    """The last execution of a step."""
    last = segments[-1]
    return last.first + last.count - 1, last.n0 - 1, last.n1 - 1
