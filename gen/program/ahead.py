"""Statistics that reach their reader as they are made: rows (``hls/kernels/pre_rows.hpp``), and
sums, item by item (``hls/kernels/pre_sums.hpp``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import ceil

from gen.program.engine import Engine
from gen.program.layout import SUB
from gen.program.program import Entry
from gen.program.structs import (
    NORM,
    ROW_NORMS,
    ROW_STATS,
    STATS_GROUP,
    STATS_GROUP_ADD,
    PreEntry,
    Segment,
)

GROUP_STATS = (STATS_GROUP, STATS_GROUP_ADD)


def send_rows_ahead(
    segments: Sequence[Segment], entries: Sequence[Entry], capacity: int
) -> list[Entry]:
    """Entries with ``rows_ahead`` and ``rows_sent``.

    Where every execution of an entry is followed by one of the same other entry, which reads the
    rows that the first has just written, the first sends up to ``capacity`` octets of them at once.
    """
    result = list(entries)
    for writer, reader in _neighbours(segments):
        count = _common_rows(entries[writer].pre, entries[reader].pre)
        rows = min(count, capacity)
        if rows > 0:
            pre = result[writer].pre
            result[writer] = replace(result[writer], pre=replace(pre, rows_ahead=rows))
            pre = result[reader].pre
            result[reader] = replace(result[reader], pre=replace(pre, rows_sent=rows))
    return result


def send_rows_first(
    segments: Sequence[Segment], entries: Sequence[Entry], capacity: int
) -> list[Entry]:
    """Entries with ``rows_first``.

    Where no execution of an entry reads rows that the execution before it makes, but another
    entry's do make some, the entry's own rows are sent before those are waited for: the first
    products with V follow the last products with K at once. Only where FIFO rw, of ``capacity``
    octets, takes them all beside none of the execution before, so that they hold nothing up.
    """
    helps: dict[int, bool] = {}
    before: tuple[PreEntry, int, int] | None = None
    for index, i0, i1 in executions(segments):
        pre = entries[index].pre
        if pre.norm in ROW_NORMS and before and before[0].stats in ROW_STATS:
            writer = before[0]
            first, made = pre.row_in.at(i0, i1), writer.row_out.at(*before[1:])
            apart = first + pre.shape.fill <= made or made + writer.stat_words <= first
            fits = pre.shape.fill <= capacity and writer.norm not in ROW_NORMS
            helps[index] = helps.get(index, True) and apart and fits
        before = pre, i0, i1
    return [
        replace(entry, pre=replace(entry.pre, rows_first=1)) if helps.get(index) else entry
        for index, entry in enumerate(entries)
    ]


def executions(segments: Sequence[Segment]) -> Iterator[tuple[int, int, int]]:
    """Entry index and loop counters of every execution of a step, in order."""
    for segment in segments:
        for i0, i1 in product(range(segment.n0), range(segment.n1)):
            yield from ((segment.first + k, i0, i1) for k in range(segment.count))


def leave_sums(
    segments: Sequence[Segment], entries: Sequence[Entry], engine: Engine
) -> list[Entry]:
    """Entries with ``sums_left`` and ``sums_before``.

    Where an entry is followed by a reader of its destination with a group norm, the sums of the
    first item are all that the reader waits for; those of the others come while it reads: so the
    items of a batch, and the halves of a guided pair, hide each other's drains. Only where FIFO sc
    holds the scales of all items, so that no sum is held up by them, and where an item takes longer
    than ``pre.sums`` for the one before.
    """
    result = list(entries)
    timing = engine.timing
    between = timing.stages["pre"] + timing.loop_entry + timing.loop_exit
    for writer, reader in _neighbours(segments):
        pre = entries[reader].pre
        each = _sums_of_an_item(entries[writer].pre, pre)
        sets = ceil(pre.norm_groups / engine.normalisers)
        taken = 2 * between + each + sets * ceil(engine.normalisers * pre.group_size / SUB)
        if (
            each
            and pre.items * sets <= engine.depths["sc"]
            and _item_cycles(entries[writer], each, engine) >= taken
        ):
            pre = result[writer].pre
            left = each * (pre.items_out - 1)
            result[writer] = replace(result[writer], pre=replace(pre, sums_left=left))
            pre = result[reader].pre
            result[reader] = replace(result[reader], pre=replace(pre, sums_before=each))
    return result


def _item_cycles(entry: Entry, groups: int, engine: Engine) -> int:
    """Multiply cycles of an item's tiles in the last round, of ``groups`` output groups."""
    shape = entry.pre.shape
    tiles = entry.post.item_octets // engine.tile_octets
    return tiles * groups * shape.gates * max(shape.steps, engine.tile_octets)


def _neighbours(segments: Sequence[Segment]) -> Iterator[tuple[int, int]]:
    """Pairs of entries of which the first is always followed by the second, in the same run."""
    for segment, following in zip(segments, [*segments[1:], None], strict=True):
        last = segment.first + segment.count - 1
        for index in range(segment.first, last):
            yield index, index + 1
        if following and segment.n0 * segment.n1 == following.n0 * following.n1 == 1:
            yield last, following.first


def _common_rows(writer: PreEntry, reader: PreEntry) -> int:
    """Octets at the start of the reader's fill that the writer's destination consists of."""
    if writer.stats not in ROW_STATS or reader.norm not in ROW_NORMS:
        return 0
    if writer.row_out != reader.row_in:
        return 0
    return min(writer.stat_words, reader.shape.fill)


def _sums_of_an_item(writer: PreEntry, reader: PreEntry) -> int:
    """Sums of an item that come last and that the reader needs; 0 if it does not go by items."""
    if writer.stats not in GROUP_STATS or reader.norm != NORM["group"] or not writer.by_item:
        return 0
    read = zip(reader.stats_base[: reader.sources], reader.stats_pitch, strict=False)
    place = (writer.stats_out, writer.stats_pitch_out)
    if reader.items != writer.items_out or place not in read:
        return 0
    shape = writer.shape
    outputs, per_round = shape.units // shape.gates, shape.per_round // shape.gates
    return outputs - (outputs - 1) // per_round * per_round
