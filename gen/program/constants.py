"""Constants of pre that serve several executions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gen.program.program import Entry
from gen.program.runs import Run, steps
from gen.program.structs import Segment


def keep_constants(segments: Sequence[Segment], entries: Sequence[Entry]) -> list[Entry]:
    """Entries with ``pp_once`` 2: those of which every execution takes the words that the one
    before has taken, as executions of joined products and the product with V behind them do.
    """
    keeps: dict[int, bool] = {}
    for before, now in steps(segments):
        keeps[now[0]] = (
            keeps.get(now[0], True) and before is not None and _same(entries, before, now)
        )
    return [
        replace(entry, pre=replace(entry.pre, pp_once=2), wload=replace(entry.wload, pp_once=2))
        if keeps[index]
        else entry
        for index, entry in enumerate(entries)
    ]


def _same(entries: Sequence[Entry], before: Run, now: Run) -> bool:
    """Whether an execution takes the first of the constants that the one before has taken."""
    (a, *loop_a), (b, *loop_b) = before, now
    first, second = entries[a], entries[b]

    def place(entry: Entry, loop: Sequence[int]) -> tuple[int, ...]:
        w, pre = entry.wload, entry.pre
        groups = pre.groups[: second.pre.sources]
        return w.pp_buffer, w.pp.at(*loop), pre.table, pre.uniform, *groups

    return place(first, loop_a) == place(second, loop_b) and (
        0 < second.wload.pp_words <= first.wload.pp_words
    )
