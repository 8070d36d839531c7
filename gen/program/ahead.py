"""Statistics that reach their reader as they are made: rows (``hls/kernels/pre_rows.hpp``), and
sums, item by item (``hls/kernels/pre_sums.hpp``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise, product
from math import ceil

from gen.program.engine import Engine
from gen.program.layout import SUB
from gen.program.program import Entry
from gen.program.rounds import visit_cycles
from gen.program.runs import last_run, steps
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

    Where every execution of an entry is followed by one that reads the rows that it has just
    written, it sends up to ``capacity`` octets of them at once. All entries that follow it, and all
    that these follow, send or leave out as many. Where the executions of a segment read, in their
    order, what those of the segment before have written, as products with V do behind those with K,
    all rows are sent at once if FIFO rw holds them.
    """
    rows: dict[tuple[int | None, int | None], int] = {}  # by writer and reader
    for before, now in [*steps(segments), (last_run(segments), None)]:
        common = 0
        if before and now:
            writer, reader = entries[before[0]].pre, entries[now[0]].pre
            common = _common_rows(writer, before[1:], reader, now[1:])
        pair = (before[0] if before else None, now[0] if now else None)
        rows[pair] = min(rows.get(pair, capacity), common)
    # entries that have to agree get the least that any of them can
    ahead = {writer: capacity for writer, _ in rows}
    sent = {reader: capacity for _, reader in rows}
    changed = True
    while changed:
        changed = False
        for (a, b), count in rows.items():
            least = min(count, ahead[a], sent[b])
            changed |= (ahead[a], sent[b]) != (least, least)
            ahead[a] = sent[b] = least
    for first, second in _queues(segments, entries, capacity):
        ahead[first] = sent[second] = entries[second].pre.shape.fill
    return [
        replace(entry, pre=replace(entry.pre, rows_ahead=ahead[index], rows_sent=sent[index]))
        for index, entry in enumerate(entries)
    ]


def _queues(
    segments: Sequence[Segment], entries: Sequence[Entry], capacity: int
) -> Iterator[tuple[int, int]]:
    """Neighbouring segments of one entry each, the second of which reads all rows of the first."""
    for before, now in pairwise(segments):
        runs = before.n0 * before.n1
        if runs == 1 or (before.count, before.n0, before.n1) != (1, now.n0, now.n1):
            continue
        writer, reader = entries[before.first].pre, entries[now.first].pre
        rows = reader.shape.fill
        alone = writer.norm not in ROW_NORMS and reader.stats not in ROW_STATS
        loops = list(product(range(now.n0), range(now.n1)))
        alike = all(
            writer.stat_words == rows == _common_rows(writer, loop, reader, loop) for loop in loops
        )
        places = sorted(writer.row_out.at(*loop) for loop in loops)
        alike &= all(first + rows <= second for first, second in pairwise(places))
        if now.count == 1 and alone and alike and runs * rows <= capacity:
            yield before.first, now.first


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
    for before, (index, *loop) in steps(segments):
        pre = entries[index].pre
        writer = entries[before[0]].pre if before else None
        if before and writer and pre.norm in ROW_NORMS and writer.stats in ROW_STATS:
            first, made = pre.row_in.at(*loop), writer.row_out.at(*before[1:])
            apart = first + pre.shape.fill <= made or made + writer.stat_words <= first
            fits = pre.shape.fill <= capacity and writer.norm not in ROW_NORMS
            some = pre.rows_sent < pre.shape.fill
            helps[index] = helps.get(index, True) and apart and fits and some
    return [
        replace(entry, pre=replace(entry.pre, rows_first=1)) if helps.get(index) else entry
        for index, entry in enumerate(entries)
    ]


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
    """Cycles of an item's tiles in the last round, of ``groups`` output groups: of the array, or of
    post, which takes a word in each.
    """
    shape = entry.pre.shape
    tiles = entry.post.item_octets // engine.tile_octets
    return tiles * visit_cycles(shape, groups * shape.gates, engine)


def _neighbours(segments: Sequence[Segment]) -> Iterator[tuple[int, int]]:
    """Pairs of entries of which the first is always followed by the second, in the same run."""
    for segment, following in zip(segments, [*segments[1:], None], strict=True):
        last = segment.first + segment.count - 1
        for index in range(segment.first, last):
            yield index, index + 1
        if following and segment.n0 * segment.n1 == following.n0 * following.n1 == 1:
            yield last, following.first


def _common_rows(
    writer: PreEntry, wrote: tuple[int, ...], reader: PreEntry, reads: tuple[int, ...]
) -> int:
    """Octets at the start of the reader's fill that the writer's destination consists of."""
    if writer.stats not in ROW_STATS or reader.norm not in ROW_NORMS:
        return 0
    if writer.row_out.at(*wrote) != reader.row_in.at(*reads):
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
