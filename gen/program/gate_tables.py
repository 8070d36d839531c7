"""When ``post`` loads the tables of gated layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gen.program.program import Entry
from gen.program.structs import Segment


def load_tables_early(segments: Sequence[Segment], entries: Sequence[Entry]) -> list[Entry]:
    """Entries of which those before a gated layer load its table.

    ``post`` copies a table, row by row, beside the words of whatever comes before the gated layer:
    so it comes with the first entry behind the gated layer before, which must be executed once.
    Without such an entry, and in a loop over several gated layers, it stays with its own entry.
    Strips of one layer share what the first one loads.
    """
    result = list(entries)
    loaded: str | None = None  # the layer whose table post has
    free = 0  # first entry behind the last gated one
    for segment in segments:
        indices = range(segment.first, segment.first + segment.count)
        gated = [k for k in indices if entries[k].post.shape.gates == 2]
        layers = {entries[k].layer for k in gated}
        once = segment.n0 * segment.n1 == 1
        for k in gated:
            if entries[k].layer == loaded:
                _move(result, k, None)
            elif once or len(layers) == 1:
                _move(result, k, next((j for j in range(free, k) if _once(segments, j)), k))
            loaded = entries[k].layer if once or len(layers) == 1 else None
            free = k + 1
    return result


def _once(segments: Sequence[Segment], index: int) -> bool:
    """Whether an entry is executed once."""
    owner = next(s for s in segments if s.first <= index < s.first + s.count)
    return owner.n0 * owner.n1 == 1


def _move(entries: list[Entry], gated: int, to: int | None) -> None:
    """Take the table from a gated entry and give it to entry ``to``, if any."""
    made = entries[gated]
    words, address = made.wload.table_words, made.wload.table
    entries[gated] = replace(
        made, wload=replace(made.wload, table_words=0), post=replace(made.post, table=0)
    )
    if to is not None:
        made = entries[to]
        entries[to] = replace(
            made,
            wload=replace(made.wload, table_words=words, table=address),
            post=replace(made.post, table=1),
        )
