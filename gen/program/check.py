"""Checks of a finished program that share no code with the lowering.

``verify_program`` counts the elements of every stream as its producer and as its consumer counts
them, re-enacts the window buffer of every entry, and replays all accesses to the store and to the
statistics with marked cells: every value read must be the last one written for exactly that
tensor, group and pixel.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace

from gen.program.coverage import window_fault
from gen.program.engine import Engine
from gen.program.program import Entry, Program
from gen.program.replay import replay
from gen.program.runs import executions
from gen.program.streams import consumed, produced
from gen.program.structs import (
    BUFFER_STATIC,
    NORM,
    RING_K,
    RING_NONE,
    ROW_NORMS,
    ROW_STATS,
    STATS_NONE,
    STATS_SOFTMAX,
    Addr,
    PreEntry,
)

# constants sent once: before the first execution of the segment, or with an execution before
PP_FIRST, PP_BEFORE = 1, 2


class ProgramError(AssertionError):
    """A program that would compute something else than its graph. A defect of the generator."""


def verify_program(program: Program) -> None:
    """Check a program.

    Raises:
        ProgramError: naming the layer and what does not fit.
    """
    _check_segments(program)
    seen: dict[object, str | None] = {}
    for index, entry in enumerate(program.entries):
        for fault in (
            _streams_fault(program, index),
            _agreement_fault(entry, program.engine),
            _joined_fault(entry, program.engine),
            _limits_fault(program, entry),
            _buffers_fault(program, index),
        ):
            if fault:
                raise ProgramError(f"layer {entry.layer}: {fault}")
        window = replace(entry.mac, pad=0, first_rows=0)
        if window not in seen:
            seen[window] = window_fault(entry.mac, program.engine)
        if seen[window]:
            raise ProgramError(f"layer {entry.layer}: {seen[window]}")
    for check in (_cache_fault, _constants_fault, replay, _rows_fault, _sums_fault):
        fault = check(program)
        if fault:
            raise ProgramError(fault)


def _check_segments(program: Program) -> None:
    expected = 0
    for segment in program.segments:
        if segment.first != expected or min(segment.count, segment.n0, segment.n1) < 1:
            raise ProgramError(f"segment at entry {segment.first}: entries are skipped or repeated")
        expected += segment.count
    if expected != len(program.entries):
        raise ProgramError(f"segments cover {expected} of {len(program.entries)} entries")


def _streams_fault(program: Program, index: int) -> str | None:
    out, into = produced(program, index), consumed(program, index)
    for stream, count in out.items():
        if count != into[stream]:
            return f"{count} elements of {stream} are sent, {into[stream]} are taken"
    return None


def _agreement_fault(entry: Entry, engine: Engine) -> str | None:
    """Kernels that disagree about an execution."""
    mac, wload, shape = entry.mac, entry.wload, entry.mac.shape
    shapes = (entry.store.shape, entry.pre.shape, entry.gather.shape, shape, entry.post.shape)
    if len(set(shapes)) != 1:
        return "the kernels disagree about its shape"
    if (wload.units, wload.per_round) != (shape.units, shape.per_round):
        return "wload counts other units than mac"
    halves = engine.byte_rows if shape.ring != RING_NONE else mac.row_parts
    inputs = mac.taps * (mac.subs - mac.pv_subs)
    if shape.steps != inputs * halves or shape.units % shape.gates:
        return f"{shape.steps} steps, {shape.units} units"
    if shape.octets % 2:
        return f"{shape.octets} octets, which streams as and bs share"
    if halves not in (1, engine.byte_rows):
        return f"{halves} weight rows per step of {engine.weight_bits} bits"
    bits = {engine.weight_bits}
    if wload.ws_buffer == BUFFER_STATIC:
        bits.add(engine.stored_bits)
    if 4 * wload.row_words not in bits:
        return f"weight rows of {wload.row_words} words"
    if shape.per_round % shape.gates or shape.per_round <= 0:
        return f"rounds of {shape.per_round} units"
    own = shape.ring == RING_NONE
    first = min(shape.per_round, shape.units) * shape.steps if own else 0
    if (mac.first_rows, wload.round_rows) != (first, shape.per_round * shape.steps * own):
        return f"rounds of {wload.round_rows} weight rows, the first one of {mac.first_rows}"
    if entry.pre.stats != entry.post.stats:
        return "pre and post disagree about statistics"
    if entry.pre.by_item != entry.post.by_item:
        return "pre and post disagree about the order of sums"
    if entry.pre.pp_once != wload.pp_once:
        return "pre and wload disagree about the constants"
    return None


def _joined_fault(entry: Entry, engine: Engine) -> str | None:
    """A joined execution of two products that no kernel computes, or a part of one elsewhere."""
    store, pre, gather, mac, post = entry.store, entry.pre, entry.gather, entry.mac, entry.post
    shape = mac.shape
    if not shape.joined:
        regions = store.pv_weights.groups, store.pv_dest.groups
        counts = shape.pv_every, shape.pv_steps, shape.pv_words, mac.pv_subs
        shares = store.pv_share, store.share
        if entry.parts or any((*counts, *regions, *shares)):
            return "a product with V is joined to it, of no units"
        return None
    if len(entry.parts) != 2:
        return f"{len(entry.parts)} products are joined"
    keys = entry.parts[1].pre
    if keys.norm != NORM["none"] or keys.table:
        return "queries that are joined are read with a norm or a table"
    if not shape.pv_units < shape.units == shape.per_round:
        return (
            f"{shape.pv_units} of {shape.units} units are those with V, {shape.per_round} at once"
        )
    if shape.pv_every < 1 or (shape.pv_units - 1) * shape.pv_every >= shape.units - 1:
        return f"{shape.pv_units} units with V, every {shape.pv_every}, of {shape.units}"
    others = shape.units - shape.pv_units
    read = shape.pv_units * store.pv_share + others * store.share
    words = engine.tile_octets * sum(region.groups for region in store.source)
    if min(store.pv_share, store.share) < 0 or read < words:
        return f"{read} of {words} words of a tile's fill are read"
    if shape.pv_steps != mac.pv_subs * engine.byte_rows:
        return f"{shape.pv_steps} steps of the product with V"
    alike = {
        "ring": (shape.ring, RING_K),
        "gates": (shape.gates, 1),
        "fill": (shape.fill, shape.octets),
        "taps": (mac.taps, 1),
        "stride": (mac.stride, 1),
        "up": (mac.up, 0),
        "items": (max(pre.items, mac.items, post.items), 1),
        "sources": ({store.sources, pre.sources, gather.sources, mac.sources}, {2}),
        "residual": (post.residual + store.residual.groups, 0),
        "norm": (pre.norm, NORM["softmax"]),
        "row sums": ((gather.row_sums, post.row_sums), (1, 1)),
        "statistics": (pre.stats, STATS_SOFTMAX),
    }
    for what, (found, needed) in alike.items():
        if found != needed:
            return f"joined products with {what} {found}"
    return None


def _rows_fault(program: Program) -> str | None:
    """Row statistics that are sent ahead to an execution that does not read them, or sent before
    they are kept.
    """
    # octets and first rows in FIFO rw, sent ahead to executions to come
    ahead: deque[tuple[int, int]] = deque()
    # of the execution before: the first row that it makes, octets that it makes, and that it reads
    first = made = own = 0
    depth = program.engine.depths["rw"]
    for index, i0, i1 in executions(program.segments):
        entry = program.entries[index]
        pre = entry.pre
        read = pre.row_in.at(i0, i1)
        fill = pre.shape.fill if pre.norm in ROW_NORMS else 0
        sent, row = ahead.popleft() if ahead and (fill or pre.rows_sent) else (0, read)
        if pre.rows_sent != sent:
            return f"layer {entry.layer}: {sent} rows come ahead, not {pre.rows_sent}"
        if row != read:
            return f"layer {entry.layer}: the rows that come ahead are others"
        if max(pre.rows_ahead - pre.stat_words, sent - pre.shape.fill) > 0:
            return f"layer {entry.layer}: more rows ahead than there are"
        if ahead and sent < fill:
            return f"layer {entry.layer}: rows of executions to come are in the way of its own"
        own_first = pre.rows_first and sent < fill
        if own_first and made and read < first + made and first < read + fill:
            return f"layer {entry.layer}: its rows are sent before they are kept"
        if own_first and made and own + fill > depth:
            # or statistics of the execution before are held up, and with them its fill
            return f"layer {entry.layer}: {own + fill} rows on the way in FIFO rw of {depth}"
        first = pre.row_out.at(i0, i1)
        made = pre.stat_words if pre.stats in ROW_STATS else 0
        own = fill
        if any(first < row + octets and row < first + made for octets, row in ahead):
            return f"layer {entry.layer}: it makes rows that others wait for in FIFO rw"
        if pre.rows_ahead:
            ahead.append((pre.rows_ahead, first))
        waiting = sum(octets for octets, _ in ahead)
        if waiting > depth:
            return f"layer {entry.layer}: {waiting} rows ahead in FIFO rw of {depth}"
    return "rows are sent ahead to nobody" if ahead else None


def _sums_fault(program: Program) -> str | None:
    """Sums that are left to an execution that does not wait for them item by item."""
    left, place = 0, (0, 0)  # of the execution before: sums, address and pitch
    for index, i0, i1 in executions(program.segments):
        entry = program.entries[index]
        pre = entry.pre
        takes = pre.sums_before * (pre.items - 1)
        if takes != left:
            return f"layer {entry.layer}: {left} sums are left, not {takes}"
        read = [
            (address.at(i0, i1), pitch)
            for address, pitch in zip(pre.stats_base, pre.stats_pitch, strict=True)
        ]
        if left and (pre.norm != NORM["group"] or place not in read[: pre.sources]):
            return f"layer {entry.layer}: the sums that are left are others"
        left, place = pre.sums_left, (pre.stats_out.at(i0, i1), pre.stats_pitch_out)
        if left > _last_sums(pre):
            return f"layer {entry.layer}: sums of its first item are left"
    return "sums are left to nobody" if left else None


def _last_sums(pre: PreEntry) -> int:
    """Sums that come behind the last one of the first item."""
    if not pre.by_item:
        return 0
    outputs, per_round = (
        each // pre.shape.gates for each in (pre.shape.units, pre.shape.per_round)
    )
    return (outputs % per_round or per_round) * (pre.items_out - 1)


def _scale_sets(pre: PreEntry, normalisers: int) -> int:
    """Sets of scales that wait while the execution makes statistics, or keeps those of the one
    before.
    """
    waits = pre.stats != STATS_NONE or pre.sums_before > 0
    return pre.items * -(-pre.norm_groups // normalisers) if waits else 0


def _own_rows(pre: PreEntry) -> int:
    """Rows' scales that wait while the execution, or the one before, makes row statistics: those
    that were sent ahead are in the way of the others.
    """
    waits = pre.rows_first or pre.stats in ROW_STATS
    return pre.shape.fill if waits and pre.norm in ROW_NORMS else 0


def _limits_fault(program: Program, entry: Entry) -> str | None:
    engine, shape, pre = program.engine, entry.mac.shape, entry.pre
    kept = entry.gather.row_sums and shape.per_round < shape.units
    limits = {
        "weight rows of a round": (
            shape.rows(min(shape.per_round, shape.units)),
            engine.weight_rows,
        ),
        "units of a round": (
            shape.per_round,
            engine.joined_units if shape.joined else engine.units,
        ),
        "row sums": (8 * shape.fill if kept else 0, engine.sums),
        "local groups": (sum(pre.groups), engine.row_groups),
        "items": (max(pre.items, entry.post.items), engine.items),
        "group scales": (pre.items * pre.norm_groups, engine.scales),
        "elements of FIFO pp": (entry.wload.pp_words, engine.depths["pp"]),
        "elements of FIFO sc": (_scale_sets(pre, engine.normalisers), engine.depths["sc"]),
        "elements of FIFO rw": (_own_rows(pre), engine.depths["rw"]),
        "rows ahead in FIFO rw": (pre.rows_ahead, engine.depths["rw"]),
    }
    for what, (need, have) in limits.items():
        if need > have:
            return f"{need} {what} of {have}"
    if pre.items > 1 and pre.items * pre.item_octets != shape.fill:
        return f"{shape.fill} octets are filled of {pre.items} items"
    for address in (*pre.stats_base, pre.stats_out):
        if any(each % engine.ranks for each in (address.base, address.s0, address.s1)):
            return "sums of a group of all ranks do not begin at a multiple of the ranks"
    return None


def _buffers_fault(program: Program, index: int) -> str | None:
    """A DDR word that ``wload`` reads outside of its buffer."""
    w, segment = program.entries[index].wload, program.segment_of(index)
    if w.pp_once == PP_FIRST and (segment.count > 1 or w.pp.s0 or w.pp.s1):
        return "its constants change within the segment, but are sent once"
    sizes = (program.static_words, program.dynamic_words)
    reads = (
        ("ws", w.ws_buffer, w.ws, w.row_words * w.ws_rows),
        ("hd", 0, w.hd, 1),
        ("pp", w.pp_buffer, w.pp, w.pp_words),
        ("table", 0, w.table, w.table_words),
        ("scale", w.scale_buffer, w.scale, w.units),
        ("bias", w.bias_buffer, w.bias, w.units * w.bias_words),
    )
    for what, buffer, address, words in reads:
        low, high = _range(address, segment.n0, segment.n1)
        if low < 0 or high + words > sizes[buffer]:
            return (
                f"{what} words {low}..{high + words} lie outside buffer {buffer} of "
                f"{sizes[buffer]} words"
            )
    return None


def _range(address: Addr, n0: int, n1: int) -> tuple[int, int]:
    corners = [address.at(i, j) for i in (0, n0 - 1) for j in (0, n1 - 1)]
    return min(corners), max(corners)


def _constants_fault(program: Program) -> str | None:
    """An execution served by the constants of the one before, which are others: it may take the
    first ones of those, of as many sources as it has.
    """
    before: tuple[object, ...] | None = None
    there: tuple[int, ...] = ()  # local groups of the sources that have constants
    for index, i0, i1 in executions(program.segments):
        entry = program.entries[index]
        pre, wload = entry.pre, entry.wload
        groups = pre.groups[: pre.sources]
        constants = wload.pp_buffer, wload.pp.at(i0, i1), pre.table, pre.uniform
        if wload.pp_once != PP_BEFORE:
            before, there = constants, groups
        elif constants != before or groups != there[: len(groups)]:
            return f"layer {entry.layer}: the constants of the execution before are others"
    return None


def _cache_fault(program: Program) -> str | None:
    """Different weights in one row of the cache, or rows that do not exist."""
    kept = set()
    for entry in program.entries:
        w = entry.wload
        if w.cache < 0:
            continue
        if w.ws_buffer != BUFFER_STATIC or w.cache + w.ws_rows > program.engine.cache_rows:
            return f"layer {entry.layer}: rows {w.cache}.. of the weight cache"
        if w.row_words != program.engine.kept_words:
            return f"layer {entry.layer}: rows of {w.row_words} words in the weight cache"
        kept.add((w.cache, w.ws_rows, w.ws.base))
    rows = Counter(row for first, count, _ in kept for row in range(first, first + count))
    if any(count > 1 for count in rows.values()):
        return "two layers share rows of the weight cache"
    return None
