"""post: stored words and statistics of random programs against numpy; both forms agree."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace

import numpy as np
import pytest
from changedsources import changed_sources
from cpp import FAST, ROOT, compile_cpp
from storeprograms import random_turns

from gen.program.structs import (
    STATS_GROUP,
    STATS_GROUP_ADD,
    STATS_LAYER,
    STATS_NONE,
    STATS_SOFTMAX,
    PostEntry,
    Segment,
    Shape,
    words,
)

SOURCE = ROOT / "tests/kernels/post.cpp"
PLAIN = ("-O2", "-DLDA_PLAIN")
FAULTY = (*FAST, "-DLDA_PLANT_FAULTS")
UNITS, JOINED_UNITS, ITEMS, ROW_OCTETS, SUMS, TILE = 16, 160, 8, 64, 512, 4


def library(*flags: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(compile_cpp(SOURCE, flags)))


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def bits(x: np.ndarray) -> np.ndarray:
    return np.array([int(v).bit_length() for v in x.ravel()]).reshape(x.shape)


def rshr(x: np.ndarray, s: np.ndarray) -> np.ndarray:
    return (x + (np.left_shift(np.int64(1), s) >> 1)) >> s


def clamp(x: np.ndarray, width: int) -> np.ndarray:
    return np.clip(x, -(1 << (width - 1)), (1 << (width - 1)) - 1)


# --- one execution ------------------------------------------------------------------------------


@dataclass
class Execution:
    """Streams of one execution: as, rs, qp, ss go in, ys and st have to come out."""

    acc: np.ndarray  # int32 [words, 64]
    rs: np.ndarray  # uint8 [words, 2, 64]
    qp: np.ndarray  # uint8 [words, 64]
    ss: np.ndarray  # int32 [words, 8]
    ys: np.ndarray  # uint8 [words, 129]: two planes, whether they are written
    st: np.ndarray  # uint8 [words, 80]


def planes(values: np.ndarray) -> np.ndarray:
    """Low and high bytes of int16 [..., 64] as uint8 [..., 2, 64]."""
    as_bytes = np.ascontiguousarray(values.astype("<i2")).view(np.uint8)
    return np.moveaxis(as_bytes.reshape(*values.shape, 2), -1, -2)


def stat_word(total: np.ndarray, square: np.ndarray) -> np.ndarray:
    """A StatWord of 8 sums and 8 squares."""
    parts = np.ascontiguousarray(square.astype("<i8")).view(np.uint8).reshape(8, 8)[:, :6]
    return np.concatenate([total.astype("<i4").view(np.uint8), parts.ravel()])


def spread(rng: np.random.Generator, width: int, size: tuple[int, ...]) -> np.ndarray:
    """Integers of a signed format, of all magnitudes, extremes among them."""
    high = (1 << (width - 1)) - 1
    magnitude = rng.integers(0, 1 << 62, size) >> rng.integers(62 - width + 1, 62, size)
    values = np.minimum(magnitude, high) * rng.choice([-1, 1], size)
    return np.where(rng.random(size) < 0.15, rng.choice([-high - 1, high, 0], size), values)


def execution(e: PostEntry, rng: np.random.Generator, table: np.ndarray) -> Execution:
    """``table``: what the gate table holds, or will hold if the entry loads one."""
    shape = e.shape
    slots, outputs = shape.octets * 8, shape.units // shape.gates
    item = (e.out_octet + np.arange(shape.octets)) // e.item_octets
    pixel = (e.out_octet * 8 + np.arange(slots)) % (e.item_octets * 8)
    valid = pixel < e.pixels

    acc = spread(rng, 31, (shape.units, slots, 8))
    bias = spread(rng, 31, (shape.units, e.items, 8)) >> int(rng.integers(0, 2))
    mult = rng.integers(1, 1 << 17, (shape.units, 8))
    low, high = max(1, -e.residual_shift), 46 - max(0, e.residual_shift)
    shift = rng.integers(low, high + 1, (shape.units, 8))
    counts = rng.random((shape.units, 8)) < 0.7
    written = rng.random(shape.units) < 0.8
    residual = spread(rng, 16, (outputs, slots, 8))
    sums = rng.integers(127, 127 * 1024, slots)
    sums[~valid] = 0
    # of joined products those with V alone are divided
    of_v = np.array([shape.of_v(unit) for unit in range(shape.units)])
    divided = of_v if shape.pv_units else np.full(shape.units, bool(e.row_sums))
    if e.row_sums:
        most = 127 * sums[:, None]
        acc[divided] = np.clip(acc[divided], -most, most)
        bias[divided] = 0

    wide = np.where(of_v, e.pv_wide, e.wide).astype(bool)

    # values
    a = (acc + np.repeat(bias[:, item], 8, axis=1)).astype(np.int32).astype(np.int64)
    if e.row_sums:
        k = bits(sums)
        r = np.where(sums > 0, np.left_shift(np.int64(1), k + 16) // np.maximum(sums, 1), 0)
        a[divided] = rshr(a[divided] * r[:, None], (k + 4)[:, None])
    v = a * mult[:, None]
    if e.residual:
        v = v + np.left_shift(residual, (shift + e.residual_shift)[:, None])
    t = rshr(v, np.broadcast_to(shift[:, None], v.shape))
    if shape.gates == 2:
        values, gate = clamp(t[0::2], 16), clamp(t[1::2], 11) + 1024
        y = clamp(rshr(values * table[gate], np.int64(e.gate_shift)), 8)
    else:
        y = np.where(wide[:, None, None], clamp(t, 16), clamp(t, 8))

    # order
    acc_words, rs, qp, ys, st = [], [], [], [], []
    if e.table:
        qp += list(table.astype("<i2").view(np.uint8).reshape(64, 64))
    for first in range(0, shape.units, shape.per_round):
        units = range(first, min(first + shape.per_round, shape.units))
        for unit in sorted(units, key=shape.place):
            flags = 256 * counts[unit] + 512 * (not written[unit])
            word = np.concatenate([mult[unit], shift[unit] + flags])
            qp.append(word.astype("<i4").view(np.uint8))
            pairs = np.zeros((-(-e.items // 2), 2, 8), "<i4")
            pairs.reshape(-1, 8)[: e.items] = bias[unit]
            qp += list(pairs.reshape(len(pairs), 16).view(np.uint8))
        for tile in range(0, shape.octets, TILE):
            octets = range(tile, min(tile + TILE, shape.octets))
            for unit in units:
                acc_words += [acc[unit, o * 8 : o * 8 + 8].ravel() for o in octets]
                if unit % shape.gates < shape.gates - 1:
                    continue
                group = unit // shape.gates
                stored = np.stack([y[group, o * 8 : o * 8 + 8].ravel() for o in octets])
                if e.residual:
                    rs += [residual[group, o * 8 : o * 8 + 8].ravel() for o in octets]
                if not wide[unit]:
                    stored = stored.astype(np.int8).view(np.uint8)
                pairs = (planes(stored) if wide[unit] else stored).reshape(-1, 128)
                ys += list(np.insert(pairs, 128, written[unit], axis=1))
        if e.stats in (STATS_GROUP, STATS_GROUP_ADD):
            groups = [unit // shape.gates for unit in units[shape.gates - 1 :: shape.gates]]
            order = [(g, i) for g in groups for i in range(e.items)]
            if e.by_item:
                order = [(g, i) for i in range(e.items) for g in groups]
            for group, i in order:
                kept = y[group, valid & (np.repeat(item, 8) == i)]
                st.append(stat_word(kept.sum(axis=0), (kept**2).sum(axis=0)))
    if e.stats in (STATS_LAYER, STATS_SOFTMAX):
        for o in range(shape.octets):
            part, mask = y[:, o * 8 : o * 8 + 8], valid[o * 8 : o * 8 + 8]
            if e.stats == STATS_LAYER:
                part = part * mask[:, None]
                st.append(stat_word(part.sum(axis=(0, 2)), (part**2).sum(axis=(0, 2))))
            else:
                kept = counts[shape.gates - 1 :: shape.gates, None, :] & mask[None, :, None]
                kept &= ~of_v[shape.gates - 1 :: shape.gates, None, None]
                st.append(stat_word(np.where(kept, part, -32768).max(axis=(0, 2)), np.zeros(8)))
    return Execution(
        acc=np.array(acc_words, np.int32),
        rs=planes(np.array(rs)) if e.residual else np.zeros((0, 2, 64), np.uint8),
        qp=np.array(qp, np.uint8),
        ss=sums.reshape(-1, 8)[: shape.octets * e.row_sums].astype(np.int32),
        ys=np.array(ys, np.uint8),
        st=np.array(st, np.uint8).reshape(-1, 80),
    )


# --- programs -----------------------------------------------------------------------------------


def random_entry(rng: np.random.Generator, stats: int) -> PostEntry:
    gated = stats == STATS_NONE and rng.random() < 0.4
    gates = 2 if gated else 1
    items = int(rng.integers(1, ITEMS + 1))
    item_octets = 2 * int(rng.integers(1, 8))
    pixels = item_octets * 8 - int(rng.integers(0, 16))
    out_octet, octets = 0, items * item_octets
    if rng.random() < 0.3:  # a strip
        items = 1
        out_octet = TILE * int(rng.integers(0, -(-item_octets // TILE)))
        octets = min(TILE * int(rng.integers(1, 3)), item_octets - out_octet)
    units = gates * int(rng.integers(1, 8))
    per_round = gates * int(rng.integers(1, units // gates + 1))
    if rng.random() < 0.5:
        per_round = min(units, UNITS)
    if stats in (STATS_LAYER, STATS_SOFTMAX) and units > per_round:
        octets = min(octets, ROW_OCTETS)
    row_sums = int(not gated and rng.random() < 0.3)
    residual = int(not gated and not row_sums and rng.random() < 0.5)
    wide = int(not gated and (stats != STATS_NONE or rng.random() < 0.5))
    if row_sums and octets * 8 > SUMS:
        row_sums = 0
    whole = octets == items * item_octets and item_octets >= TILE
    by_item = int(stats in (STATS_GROUP, STATS_GROUP_ADD) and whole and rng.random() < 0.7)
    return PostEntry(
        shape=Shape(units, per_round, gates, octets, 1, 0, 0, 0, 0),
        items=items, out_octet=out_octet, pixels=pixels, item_octets=item_octets, wide=wide,
        pv_wide=0, residual=residual, residual_shift=int(rng.integers(-10, 11)) * residual,
        row_sums=row_sums, gate_shift=int(rng.integers(0, 32)) * gated, stats=stats,
        by_item=by_item, table=int(gated),
    )  # fmt: skip


def joined_entry(rng: np.random.Generator) -> PostEntry:
    """A product with V beside one with K: all units in one round, a strip of one item."""
    item_octets = 2 * int(rng.integers(1, 30))
    out_octet = TILE * int(rng.integers(0, -(-item_octets // TILE)))
    octets = min(2 * int(rng.integers(1, 30)), item_octets - out_octet)
    of_v, of_k = int(rng.integers(1, 5)), int(rng.integers(1, 9))
    if rng.random() < 0.2:
        of_k, octets = int(rng.integers(9, JOINED_UNITS - of_v + 1)), min(octets, 10)
    units = of_v + of_k
    return PostEntry(
        shape=Shape(units, units, 1, octets, 1, 0, 0, 1, 0, pv_units=of_v,
                    pv_every=random_turns(rng, of_v, of_k)),
        items=1, out_octet=out_octet, pixels=item_octets * 8 - int(rng.integers(0, 16)),
        item_octets=item_octets, wide=1, pv_wide=int(rng.integers(2)), residual=0,
        residual_shift=0, row_sums=1, gate_shift=0, stats=STATS_SOFTMAX, by_item=0, table=0,
    )  # fmt: skip


def tables_early(rng: np.random.Generator, entries: list[PostEntry]) -> list[PostEntry]:
    """Some gated entries leave their table to the entry before."""
    result = list(entries)
    for k in range(1, len(entries)):
        if entries[k].shape.gates == 2 and not entries[k - 1].table and rng.random() < 0.7:
            result[k - 1], result[k] = replace(result[k - 1], table=1), replace(result[k], table=0)
    return result


@dataclass
class Run:
    status: int
    text: str
    ys: np.ndarray
    st: np.ndarray
    cycles: int


@dataclass
class Program:
    segments: list[Segment]
    entries: list[PostEntry]
    executions: list[Execution]

    def joined(self, name: str) -> np.ndarray:
        parts = [getattr(e, name) for e in self.executions]
        return np.ascontiguousarray(np.concatenate(parts))

    def run(self, lib: ctypes.CDLL, intervals: tuple[int, ...] = (1,) * 6) -> Run:
        acc, rs, qp, ss = (self.joined(name) for name in ("acc", "rs", "qp", "ss"))
        ys, st = np.zeros_like(self.joined("ys")), np.zeros_like(self.joined("st"))
        counts = np.array([len(a) for a in (acc, rs, qp, ss, ys, st)], np.int32)
        cycles, text = np.zeros(1, np.int64), ctypes.create_string_buffer(600)
        flat = np.array([w for e in self.entries for w in words(e)], np.int32)
        segments = np.array([w for s in self.segments for w in words(s)], np.int32)
        status = lib.t_post(
            pointer(segments), len(self.segments), pointer(flat),
            *(pointer(a) for a in (acc, rs, qp, ss, ys, st, counts)),
            pointer(np.array(intervals, np.int32)), pointer(cycles), text, 600,
        )  # fmt: skip
        return Run(status, text.value.decode(), ys, st, int(cycles[0]))


def program_of(rng: np.random.Generator, entries: list[PostEntry]) -> Program:
    segments, executions, first = [], [], 0
    table = np.zeros(2048, np.int64)
    while first < len(entries):
        count = int(rng.integers(1, len(entries) - first + 1))
        # an entry and the one that has its table are executed in turn
        while first + count < len(entries) and not (
            entries[first + count].table or entries[first + count].shape.gates == 1
        ):
            count += 1
        n0, n1 = int(rng.integers(1, 3)), int(rng.integers(1, 3))
        segments.append(Segment(first, count, n0, n1))
        for _ in range(n0 * n1):
            for e in entries[first : first + count]:
                if e.table:
                    table = spread(rng, 16, (2048,))
                executions.append(execution(e, rng, table))
        first += count
    return Program(segments, entries, executions)


def assert_right(program: Program, run: Run) -> None:
    assert run.status == 0, run.text
    np.testing.assert_array_equal(run.ys, program.joined("ys"))
    np.testing.assert_array_equal(run.st, program.joined("st"))


KINDS = [STATS_NONE, STATS_GROUP, STATS_GROUP_ADD, STATS_LAYER, STATS_SOFTMAX]


def some_entry(rng: np.random.Generator) -> PostEntry:
    kind = int(rng.integers(len(KINDS) + 1))
    return random_entry(rng, KINDS[kind]) if kind < len(KINDS) else joined_entry(rng)


@pytest.mark.parametrize("seed", range(15))
def test_words_statistics_and_cycles_of_both_forms(seed):
    rng = np.random.default_rng(seed)
    fast, plain = library(*FAST), library(*PLAIN)
    for _ in range(4):
        entries = [some_entry(rng) for _ in range(int(rng.integers(1, 5)))]
        program = program_of(rng, tables_early(rng, entries))
        for speed in ((1,) * 6, tuple(int(v) for v in rng.choice([1, 1, 2, 5], 6))):
            one, other = program.run(fast, speed), program.run(plain, speed)
            assert_right(program, one)
            assert_right(program, other)
            assert one.cycles == other.cycles


@pytest.mark.parametrize(
    ("stats", "by_item"), [*((kind, 0) for kind in KINDS), (STATS_GROUP, 1), (STATS_GROUP_ADD, 1)]
)
def test_one_word_a_cycle(stats, by_item):
    """Parameters, words, pipeline: nothing else takes time, whatever the statistics."""
    rng = np.random.default_rng(stats)
    entry = PostEntry(
        shape=Shape(12, 6, 1, 64, 1, 0, 0, 0, 0), items=2, out_octet=0, pixels=256, item_octets=32,
        wide=1, pv_wide=0, residual=1, residual_shift=0, row_sums=0, gate_shift=0, stats=stats,
        by_item=by_item, table=0,
    )  # fmt: skip
    program = program_of(rng, [entry])
    program.segments[:] = [Segment(0, 1, 1, 1)]
    program.executions[1:] = []
    run = program.run(library(*FAST))
    assert_right(program, run)
    # first token, loop entry and exit, pipeline, last token; sums leave POST_DISTANCE later, the
    # last group's two items after one another, unless they go item by item
    sums = 4 - by_item if stats in (STATS_GROUP, STATS_GROUP_ADD) else 0
    assert run.cycles == 12 * 2 + 12 * 64 + sums + OVERHEAD


OVERHEAD = 14


@pytest.mark.parametrize("octets", [2, 4, 6, 42])
@pytest.mark.parametrize("pv_wide", [0, 1])
def test_joined_products(pv_wide, octets):
    """Both forms, one word a cycle; maxima leave beside the words of the last unit."""
    rng = np.random.default_rng([octets, pv_wide])
    for units, every in (
        ((1, 1), 1), ((3, 5), 1), ((3, 5), 2), ((3, 5), 3), ((2, 1), 1), ((1, 15), 4),
        ((4, 156), 52), ((4, 156), 1),
    ):  # fmt: skip
        base = joined_entry(rng)
        shape = replace(base.shape, octets=octets, pv_units=units[0], pv_every=every,
                        units=sum(units), per_round=sum(units))  # fmt: skip
        entry = replace(base, shape=shape, pv_wide=pv_wide, out_octet=4, item_octets=octets + 6,
                        pixels=8 * octets + 31)  # fmt: skip
        runs = [execution(entry, rng, np.zeros(2048, np.int64)) for _ in range(2)]
        program = Program([Segment(0, 1, 1, 2)], [entry], runs)
        one, other = program.run(library(*FAST)), program.run(library(*PLAIN))
        assert_right(program, one)
        assert_right(program, other)
        assert one.cycles == other.cycles
        assert one.cycles <= 2 * (2 * sum(units) + sum(units) * octets + OVERHEAD)


def test_a_table_is_copied_beside_the_words_of_the_entry_before():
    """The gated entry waits for what is left of the rows; with all of them there it does not."""
    rng = np.random.default_rng(9)

    def cycles(octets: int, early: bool) -> int:
        before = PostEntry(
            shape=Shape(8, 8, 1, octets, 1, 0, 0, 0, 0), items=1, out_octet=0, pixels=octets * 8,
            item_octets=octets, wide=1, pv_wide=0, residual=0, residual_shift=0, row_sums=0,
            gate_shift=0, stats=STATS_NONE, by_item=0, table=int(early),
        )  # fmt: skip
        gated = replace(
            before, shape=replace(before.shape, gates=2), wide=0, table=int(not early)
        )  # fmt: skip
        table = spread(rng, 16, (2048,))
        executions = [execution(e, rng, table) for e in (before, gated)]
        run = Program([Segment(0, 2)], [before, gated], executions)
        done = run.run(library(*FAST))
        assert_right(run, done)
        return done.cycles

    # every iteration behind its last word copies a row, those of the 16 parameters too
    assert cycles(128, early=False) - cycles(128, early=True) == 512 + 3 - 16 - 1
    assert cycles(32, early=False) - cycles(32, early=True) == 8 * 32 + 16


def test_sanitized():
    """Both forms under AddressSanitizer are too slow to load here; undefined behaviour is not."""
    rng = np.random.default_rng(77)
    program = program_of(rng, [*(random_entry(rng, stats) for stats in KINDS), joined_entry(rng)])
    flags = ("-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all")
    for form in ((), ("-DLDA_PLAIN",)):
        assert_right(program, program.run(library(*flags, *form)))


@pytest.mark.parametrize("joined", [False, True])
def test_planted_fault_shows(joined):
    rng = np.random.default_rng(3)
    entry = joined_entry(rng) if joined else random_entry(rng, STATS_NONE)
    program = program_of(rng, [entry])
    for form in ((), ("-DLDA_PLAIN",)):
        lib = library(*FAULTY, *form)
        assert_right(program, program.run(lib))
        lib.t_plant_fault(1)
        try:
            run = program.run(lib)
        finally:
            lib.t_plant_fault(0)
        assert run.status == 0
        assert not np.array_equal(run.ys, program.joined("ys"))


@pytest.mark.parametrize(("before", "after"), [
    ("memory.scale[place]", "memory.scale[unit]"),
    ("(joined ? place : unit_bias)", "unit_bias"),
    ("entry.stats != STATS_NONE && !of_v", "entry.stats != STATS_NONE"),
    ("of_v = turns.of_v(shape, unit)", "of_v = unit < shape.pv_units"),
    ("turns.start();\n                    unit =", "unit ="),
])  # fmt: skip
def test_faults_of_joined_products_are_seen(before, after, tmp_path):
    flag = changed_sources(tmp_path, "post.cpp", ("post", 1, before, after))
    lib = ctypes.CDLL(str(compile_cpp(tmp_path / "tests/kernels/post.cpp", (*FAST, flag))))
    rng = np.random.default_rng(7)
    entry = joined_entry(rng)
    shape = replace(entry.shape, units=4, per_round=4, pv_units=2, pv_every=2, octets=10)
    entry = replace(entry, shape=shape, pv_wide=1, out_octet=0, item_octets=12, pixels=90)
    runs = [execution(entry, rng, np.zeros(2048, np.int64)) for _ in range(8)]
    program = Program([Segment(0, 1, 1, 8)], [entry], runs)
    assert_right(program, program.run(library(*FAST)))
    with pytest.raises(AssertionError, match="not equal"):
        assert_right(program, program.run(lib))


def test_joined_products_that_do_not_fit_end_the_run():
    rng = np.random.default_rng(5)
    entry = joined_entry(rng)
    shape = replace(entry.shape, units=5, per_round=5, pv_units=2, pv_every=3)
    some = "post: joined products of several items or rounds, or without row statistics"
    last = "post: the last unit of joined products is not one with K"
    cases = [
        ("post: more units of joined products than JOINED_UNITS",
         {"shape": replace(shape, units=161, per_round=161)}),
        (some, {"items": 2}),
        (some, {"stats": STATS_NONE}),
        (some, {"shape": replace(shape, per_round=4)}),
        (last, {"shape": replace(shape, pv_every=4)}),
        (last, {"shape": replace(shape, pv_every=0)}),
        (last, {"shape": replace(shape, pv_units=5, pv_every=1)}),
    ]  # fmt: skip
    right = execution(entry, rng, np.zeros(2048, np.int64))
    for text, change in cases:
        bad = replace(entry, **{"shape": shape, **change})
        program = Program([Segment(0, 1)], [bad], [right])
        assert program.run(library(*FAST)).text == text


def test_entries_that_do_not_fit_end_the_run():
    rng = np.random.default_rng(4)
    entry = replace(random_entry(rng, STATS_NONE), items=1, row_sums=0, table=0)
    shape = replace(entry.shape, units=4, per_round=2, gates=1, octets=2)
    cases = {
        "post: more batch items than ITEMS": {"items": 9},
        "post: an odd number of octets": {"shape": replace(shape, octets=3)},
        "post: more units in a round than UNITS": {"shape": replace(shape, units=20, per_round=20)},
        "post: a round ends between value and gate": {
            "shape": replace(shape, gates=2, per_round=3)
        },
        "post: more row sums than SUMS": {"row_sums": 1, "shape": replace(shape, octets=66)},
        "post: sums item by item, but a tile of several items": {
            "by_item": 1, "item_octets": 2, "out_octet": 0, "items": 2,
            "shape": replace(shape, octets=4),
        },
        "post: sums item by item of a part of them": {
            "by_item": 1, "item_octets": 8, "out_octet": 0, "items": 2,
            "shape": replace(shape, octets=8),
        },
    }  # fmt: skip
    for text, change in cases.items():
        bad = replace(entry, **{"shape": shape, **change})
        program = Program([Segment(0, 1)], [bad], [execution(entry, rng, np.zeros(2048, np.int64))])
        assert program.run(library(*FAST)).text == text
