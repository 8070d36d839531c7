"""mac: accumulators of random programs against numpy; both forms agree to the cycle."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from cpp import FAST, ROOT, compile_cpp

from gen.program.structs import RING_K, RING_NONE, RING_V, MacEntry, Segment, Shape, words

SOURCE = ROOT / "tests/kernels/mac.cpp"
WINDOW_ROWS, WEIGHT_ROWS, GUARD = 512, 128, 4
STAGES = 8
PLAIN = ("-O2", "-DLDA_PLAIN")
NIBBLES = "-DLDA_WEIGHT_BITS=4"


def library(*flags: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(compile_cpp(SOURCE, flags)))


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def up_to(n: int, step: int) -> int:
    return -(-n // step) * step


# --- one execution ------------------------------------------------------------------------------


def nibble_rows(weights: np.ndarray, parts: int) -> np.ndarray:
    """Rows of 4 bits of weights int8 [rows, 8, 16]: outputs 0-3 in the low half of their byte, 4-7
    in the high one. Two parts: (w - 8) div 16 and (w - 8) mod 16 of the formula w = 16h + l + 8,
    each in -8..7.
    """
    wide = weights.astype(np.int64)
    digits = [wide]
    if parts == 2:
        high = np.floor_divide(wide, 16)
        digits = [high, wide - 16 * high - 8]
    rows = np.stack(digits, axis=1).reshape(-1, 8, 16)
    assert rows.min() >= -8 and rows.max() <= 7
    return (rows[:, :4] % 16 + rows[:, 4:] % 16 * 16).astype(np.uint8).view(np.int8)


@dataclass
class Execution:
    """Streams of one execution, and the accumulators that have to come."""

    beats: np.ndarray  # int8 [beats, ranks, 8 pixels, 8 channels]
    rows: np.ndarray  # int8 [rows, 8 outputs, 16 inputs], or [rows, 4, 16] of nibbles
    acc: np.ndarray  # int32 [words, 8 pixels, 8 outputs]
    valid: np.ndarray  # bool [words, 8]: not a padding slot


@dataclass
class Layer:
    """A random layer; its entry does not change from execution to execution."""

    entry: MacEntry
    pixels: int  # of a tile
    ranks: int
    bits: int = 8  # of a weight row

    def octets_of(self, slot: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(item, y, x) of source slots."""
        e = self.entry
        item, rest = np.divmod(slot, e.src_pitch)
        y, x = np.divmod(rest, e.src_width)
        return item, y, x

    def execution(self, rng: np.random.Generator, extreme: bool) -> Execution:
        e, shape = self.entry, self.entry.shape
        ends = np.array([-128, 127] if extreme else [], np.int8)

        def draw(*size: int) -> np.ndarray:
            wide = rng.integers(-128, 128, size).astype(np.int8)
            return (
                np.where(rng.random(size) < 0.9, rng.choice(ends, size), wide) if extreme else wide
            )

        slots = shape.fill * 8
        sources = [draw(slots, e.groups[s] * self.ranks * 8) for s in range(e.sources)]
        beats = []
        for octet in range(shape.fill):
            for source, values in enumerate(sources):
                part = values[octet * 8 : octet * 8 + 8].reshape(8, e.groups[source], self.ranks, 8)
                beats.append(part.transpose(1, 2, 0, 3))
        operands = np.zeros((slots, e.subs * 16), np.int64)
        for s, values in enumerate(sources):
            used = e.source_groups[s] * 8
            at = e.sub_base[s] * 16
            skipped = max(0, -at)  # in front of the first sub
            operands[:, at + skipped : at + used] = values[:, skipped:used]
        weights = draw(shape.units, e.taps * e.subs, 8, 16)
        if self.bits == 4 and e.row_parts == 1:
            weights >>= 4
        acc, valid = self.expected(operands, weights.astype(np.int64))
        rows = weights.reshape(-1, 8, 16)
        if self.bits == 4 and not shape.ring:
            rows = nibble_rows(rows, e.row_parts)
        return Execution(np.concatenate(beats), rows, acc, valid)

    def expected(self, operands: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        e, shape = self.entry, self.entry.shape
        tile_octets = self.pixels // 8
        slot = e.out_slot + np.arange(shape.octets * 8)
        item, rest = np.divmod(slot, e.pitch)
        y, x = np.divmod(rest, e.width)
        valid = y < e.height
        acc = np.zeros((shape.octets * 8, shape.units * 8), np.int64)
        for tap in range(e.taps):
            yy, xx = y * e.stride + e.ty[tap], x * e.stride + e.tx[tap]
            is_open = valid & (yy >= 0) & (yy < e.limit_y) & (xx >= 0) & (xx < e.limit_x)
            source = item * e.src_pitch + (yy >> e.up) * e.src_width + (xx >> e.up) - e.fill_slot
            values = np.full((len(slot), e.subs * 16), e.pad, np.int64)
            values[is_open] = operands[source[is_open]]
            part = weights[:, tap * e.subs : (tap + 1) * e.subs].transpose(1, 3, 0, 2)
            acc += values @ part.reshape(e.subs * 16, shape.units * 8)
        by_unit = acc.reshape(shape.octets, 8, shape.units, 8)
        order = [
            (octet, unit)
            for first in range(0, shape.units, shape.per_round)
            for tile in range(0, shape.octets, tile_octets)
            for unit in range(first, min(first + shape.per_round, shape.units))
            for octet in range(tile, min(tile + tile_octets, shape.octets))
        ]
        made = np.stack([by_unit[octet, :, unit] for octet, unit in order])
        kept = np.stack([valid.reshape(-1, 8)[octet] for octet, _ in order])
        return made.astype(np.int32), kept


# --- random entries -----------------------------------------------------------------------------


def window_index(e: MacEntry, slot: int, copy: int) -> int | None:
    """Window index of a source slot, by the formulas of the contract."""
    item, rest = divmod(slot, e.src_pitch)
    y, x = divmod(rest, e.src_width)
    if e.stride == 1 and e.up == 0:
        return kept(e, slot)
    if y >= e.src_height:
        return None
    if e.stride == 2:
        phase = y % 2 * 2 + x % 2
        return kept(e, item * e.pitch + y // 2 * e.width + x // 2, phase)
    dy, dx = divmod(copy, 2)
    if 2 * y + dy >= e.limit_y or 2 * x + dx >= e.limit_x:
        return None
    return kept(e, item * e.pitch + (2 * y + dy) * e.width + 2 * x + dx)


def kept(e: MacEntry, index: int, phase: int = 0) -> int | None:
    """Window index of an index plus origin within its phase, if the phase holds it."""
    inside = 0 <= index - e.origin < e.plane
    return index - e.origin + phase * e.plane if inside else None


def reads(e: MacEntry, slots: int) -> list[tuple[int, int, int]]:
    """(output slot, source slot, index plus origin within its phase) of all open taps."""
    found = []
    for slot in range(e.out_slot, e.out_slot + slots):
        item, rest = divmod(slot, e.pitch)
        y, x = divmod(rest, e.width)
        for tap in range(e.taps):
            yy, xx = y * e.stride + e.ty[tap], x * e.stride + e.tx[tap]
            if y < e.height and 0 <= yy < e.limit_y and 0 <= xx < e.limit_x:
                source = item * e.src_pitch + (yy >> e.up) * e.src_width + (xx >> e.up)
                near = e.ty[tap] // e.stride * e.width + e.tx[tap] // e.stride
                found.append((slot, source, slot + near))
    return found


def least_split(e: MacEntry, pixels: int, ranks: int) -> int:
    """The fewest passes in which no half bank is written twice."""

    def collides(split: int) -> bool:
        for octet, copy, turn in product(range(e.shape.fill), range(1 << 2 * e.up), range(split)):
            lanes = []
            for lane in range(8):
                own = lane // (8 // split) if e.up else lane % split
                index = window_index(e, e.fill_slot + octet * 8 + lane, copy)
                if own != turn or index is None:
                    continue
                lanes.append(index)
            for s in range(e.sources):
                for group in range(e.groups[s]):
                    banks: list[tuple[int, int]] = []
                    for k in range(group * ranks, min((group + 1) * ranks, e.source_groups[s])):
                        if e.sub_base[s] + k // 2 < 0:
                            continue
                        halves = [k % 2]
                        if k == e.source_groups[s] - 1 and k % 2 == 0:
                            halves.append(1)
                        for half in halves:
                            sub = e.sub_base[s] + k // 2
                            banks += [((i + 8 * sub) % pixels, half) for i in lanes]
                    if len(banks) != len(set(banks)):
                        return True
        return False

    return next(split for split in (1, 2, 4, 8) if not collides(split))


def random_layer(
    rng: np.random.Generator, ranks: int, pixels: int, kind: str, ring: int, bits: int
) -> Layer:
    while True:
        layer = drawn_layer(rng, ranks, pixels, kind, ring, bits)
        if layer is not None:
            return layer


def drawn_layer(
    rng: np.random.Generator, ranks: int, pixels: int, kind: str, ring: int, bits: int
) -> Layer | None:
    items = int(rng.integers(1, 4))
    src_height, src_width = int(rng.integers(1, 10)), int(rng.integers(1, 10))
    strips = kind == "strip"
    window = str(rng.choice(["plain", "stride", "up"])) if strips else kind
    stride, up = (2 if window == "stride" else 1), int(window == "up")
    limit_y, limit_x = src_height << up, src_width << up
    if up and rng.random() < 0.3:
        limit_y, limit_x = max(1, limit_y - 1), max(1, limit_x - int(rng.integers(0, 2)))
    height, width = -(-limit_y // stride), -(-limit_x // stride)
    pitch, src_pitch = up_to(height * width, 16), up_to(src_height * src_width, 16)
    kh, kw = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    top, left = int(rng.integers(0, kh)), int(rng.integers(0, kw))
    taps = [(ky - top, kx - left) for ky in range(kh) for kx in range(kw)]
    sources = int(rng.integers(1, 3))
    used = [int(rng.integers(1, 8)) for _ in range(sources)]
    subs = [-(-n // 2) for n in used]
    # a head may begin with the second sub of its first local group
    skipped = int(sources == 1 and ranks == 4 and used[0] > 2 and rng.random() < 0.5)
    subs[0] -= skipped
    steps = len(taps) * sum(subs)
    if bits == 4 and (ring or rng.random() < 0.4):
        steps *= 2
    out_slot, slots = 0, items * pitch
    if strips:
        items = 1
        out_slot = int(rng.integers(0, up_to(pitch, pixels) // pixels)) * pixels
        slots = min(pixels * int(rng.integers(1, 3)), pitch - out_slot)
    if steps > WEIGHT_ROWS:
        return None
    units = int(rng.integers(1, 8))
    per_round = int(rng.integers(1, min(units, WEIGHT_ROWS // steps) + 1))
    padded = lambda values, length: tuple(values) + (0,) * (length - len(values))  # noqa: E731
    blank = MacEntry(
        shape=Shape(units, per_round, 1, slots // 8, steps, 0, items * src_pitch // 8, ring, 0),
        items=items, out_slot=out_slot, fill_slot=0, height=height, width=width, pitch=pitch,
        src_height=src_height, src_width=src_width, src_pitch=src_pitch, stride=stride, up=up,
        origin=0, start=0, window_slots=0, plane=0, split=1, limit_y=limit_y, limit_x=limit_x,
        taps=len(taps), subs=sum(subs),
        offset=padded([], 9),
        ty=padded([t[0] for t in taps], 9), tx=padded([t[1] for t in taps], 9),
        pad=int(rng.integers(-128, 128)), sources=sources,
        groups=padded([-(-n // ranks) for n in used], 2), source_groups=padded(used, 2),
        sub_base=padded([sum(subs[:s]) - skipped for s in range(sources)], 2),
        first_rows=0 if ring else min(per_round, units) * steps, late=0,
    )  # fmt: skip
    seen = reads(blank, slots)
    if not seen:
        return None
    first, last = min(r[1] for r in seen) // 8, max(r[1] for r in seen) // 8
    if not strips:
        first, last = 0, items * src_pitch // 8 - 1
    lowest, highest = min(r[2] for r in seen), max(r[2] for r in seen)
    origin = lowest - int(rng.integers(0, 40))
    plane = highest - origin + 1 + int(rng.integers(0, 20))
    window_slots = plane * stride**2
    offset = [
        (ty % stride * 2 + tx % stride) * plane + ty // stride * width + tx // stride
        for ty, tx in taps
    ]
    if -(-window_slots // pixels) * sum(subs) > WINDOW_ROWS:
        return None
    fill, tile_octets = last - first + 1, pixels // 8
    tiles = -(-slots // pixels)
    reach = max(
        source // 8 - first + 1 - (slot - out_slot) // pixels * tile_octets
        for slot, source, _ in seen
    )
    lead = min(fill, max(reach, fill - tiles * tile_octets) + int(rng.integers(0, 4)))
    late = lead - reach
    entry = replace(
        blank, fill_slot=first * 8, origin=origin, start=out_slot - origin,
        window_slots=window_slots, plane=plane, offset=padded(offset, 9), late=late,
        shape=replace(blank.shape, fill=fill, lead=lead),
    )  # fmt: skip
    return Layer(replace(entry, split=least_split(entry, pixels, ranks)), pixels, ranks, bits)


# --- programs -----------------------------------------------------------------------------------


@dataclass
class Run:
    status: int
    text: str
    acc: np.ndarray
    cycles: int


@dataclass
class Program:
    segments: list[Segment]
    layers: list[Layer]
    executions: list[Execution]
    order: list[int]  # entry of every execution

    def run(self, lib: ctypes.CDLL, intervals: tuple[int, int, int, int] = (1, 1, 1, 1)) -> Run:
        entries = [layer.entry for layer in self.layers]
        ring = [entries[k].shape.ring != RING_NONE for k in self.order]
        ranks = self.layers[0].ranks
        streams = [
            [e.beats for e in self.executions],
            [e.rows for e, own in zip(self.executions, ring, strict=True) if own],
            [e.rows for e, own in zip(self.executions, ring, strict=True) if not own],
        ]
        outputs = self.layers[0].bits  # bytes of a row: 16 per bit
        empty = [np.zeros((0, ranks, 8, 8), np.int8), np.zeros((0, 8, 16), np.int8),
                 np.zeros((0, outputs, 16), np.int8)]  # fmt: skip
        gs, ks, ws = (
            np.ascontiguousarray(np.concatenate([none, *some]))
            for none, some in zip(empty, streams, strict=True)
        )
        acc = np.zeros((sum(len(e.acc) for e in self.executions), 8, 8), np.int32)
        counts = np.array([len(gs), len(ks), len(ws), len(acc)], np.int32)
        cycles, text = np.zeros(1, np.int64), ctypes.create_string_buffer(600)
        flat = np.array([w for e in entries for w in words(e)], np.int32)
        segments = np.array([w for s in self.segments for w in words(s)], np.int32)
        status = lib.t_mac(
            pointer(segments), len(self.segments), pointer(flat), pointer(gs), pointer(ks),
            pointer(ws), pointer(acc), pointer(counts), pointer(np.array(intervals, np.int32)),
            pointer(cycles), text, 600,
        )  # fmt: skip
        return Run(status, text.value.decode(), acc, int(cycles[0]))

    def expected(self) -> tuple[np.ndarray, np.ndarray]:
        return (
            np.concatenate([e.acc for e in self.executions]),
            np.concatenate([e.valid for e in self.executions]),
        )


def random_program(
    rng: np.random.Generator,
    ranks: int,
    pixels: int = 32,
    layers: list[Layer] | None = None,
    bits: int = 8,
) -> Program:
    if layers is None:
        kinds = ["plain", "plain", "strip", "stride", "up"]
        layers = [
            random_layer(rng, ranks, pixels, str(rng.choice(kinds)),
                         int(rng.choice([RING_NONE, RING_NONE, RING_K, RING_V])), bits)
            for _ in range(int(rng.integers(1, 6)))
        ]  # fmt: skip
    segments, order, first = [], [], 0
    while first < len(layers):
        count = int(rng.integers(1, len(layers) - first + 1))
        n0, n1 = int(rng.integers(1, 3)), int(rng.integers(1, 3))
        segments.append(Segment(first, count, n0, n1))
        order += [k for _ in range(n0 * n1) for k in range(first, first + count)]
        first += count
    executions = [layers[k].execution(rng, bool(rng.random() < 0.3)) for k in order]
    return Program(segments, layers, executions, order)


def assert_right(program: Program, run: Run) -> None:
    assert run.status == 0, run.text
    want, valid = program.expected()
    np.testing.assert_array_equal(run.acc[valid], want[valid])


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("seed", range(8))
def test_accumulators_and_cycles_of_both_forms(ranks, seed):
    rng = np.random.default_rng([ranks, seed])
    define = f"-DLDA_RANKS={ranks}"
    fast, plain = library(*FAST, define), library(*PLAIN, define, "-DLDA_FABRIC=3")
    for _ in range(4):
        program = random_program(rng, ranks)
        intervals = tuple(int(v) for v in rng.choice([1, 1, 2, 5], 4))
        for speed in ((1, 1, 1, 1), intervals):
            one, other = program.run(fast, speed), program.run(plain, speed)
            assert_right(program, one)
            assert_right(program, other)
            np.testing.assert_array_equal(one.acc, other.acc)
            assert one.cycles == other.cycles


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("seed", range(6))
def test_rows_of_four_bits_in_both_forms(ranks, seed):
    rng = np.random.default_rng([4, ranks, seed])
    defines = f"-DLDA_RANKS={ranks}", NIBBLES
    fast = library(*FAST, *defines)
    plain = library(*PLAIN, *defines, f"-DLDA_FABRIC={({1: 3, 2: 0, 4: 2})[ranks]}")
    for _ in range(4):
        program = random_program(rng, ranks, bits=4)
        intervals = tuple(int(v) for v in rng.choice([1, 1, 2, 5], 4))
        for speed in ((1, 1, 1, 1), intervals):
            one, other = program.run(fast, speed), program.run(plain, speed)
            assert_right(program, one)
            np.testing.assert_array_equal(one.acc, other.acc)
            assert one.cycles == other.cycles


# text of a header, the same with a fault
NIBBLE_FAULTS = {
    "correction": ("multiply.hpp", "? 8 * sum : 0", "? 7 * sum : 0"),
    "every pass": ("multiply.hpp", "part == ROW_LOW ? 8", "part != ROW_HIGH ? 8"),
    "shift": ("multiply.hpp", "? 16 * dot[o]", "? 15 * dot[o]"),
    "lift": ("packed.hpp", "LIFT3 = 1023;", "LIFT3 = 1024;"),
    "halves": ("weights.hpp", "<< 4) ^ 0x88;", "<< 4) ^ 0x80;"),
}


@pytest.mark.parametrize("fault", NIBBLE_FAULTS)
def test_a_wrong_half_is_caught(fault, tmp_path):
    """Ring weights over the whole of int8, in halves, and weights of 4 bits from ws."""
    header, right, wrong = NIBBLE_FAULTS[fault]
    rng = np.random.default_rng(9)
    layers = [
        pointwise(2, 4, 2, 3, 5, RING_V, bits=4), pointwise(2, 4, 2, 3, 5, bits=4),
    ]  # fmt: skip
    program = Program([Segment(0, 2)], layers, [e.execution(rng, True) for e in layers], [0, 1])
    defines = ("-O1", "-DLDA_PLAIN", "-DLDA_RANKS=2", NIBBLES)
    assert_right(program, program.run(library(*defines)))
    folder = copied_kernels(tmp_path / fault.replace(" ", "_"))
    text = (folder / "hls/kernels" / header).read_text()
    assert text.count(right) == 1
    (folder / "hls/kernels" / header).write_text(text.replace(right, wrong))
    source = folder / "tests/kernels/mac.cpp"
    broken = ctypes.CDLL(str(compile_cpp(source, (*defines, f"-DFOLDER={folder.name}"))))
    run = program.run(broken)
    want, valid = program.expected()
    assert run.status == 0
    assert not np.array_equal(run.acc[valid], want[valid])


@pytest.mark.parametrize("form", [(), ("-DLDA_PLAIN", "-DLDA_FABRIC=3"), ("-march=native",)])
def test_no_undefined_behaviour(form):
    rng = np.random.default_rng(11)
    for bits in (8, 4):
        flags = "-fsanitize=undefined", "-fno-sanitize-recover=all", f"-DLDA_WEIGHT_BITS={bits}"
        lib = library("-O1", *flags, *form)
        for _ in range(4):
            program = random_program(rng, 1, bits=bits)
            assert_right(program, program.run(lib))


def test_tiles_of_64_pixels():
    rng = np.random.default_rng(5)
    for _ in range(6):
        program = random_program(rng, 4, pixels=64)
        runs = [
            program.run(library(*form, "-DLDA_RANKS=4", "-DLDA_PP=64")) for form in (FAST, PLAIN)
        ]
        for run in runs:
            assert_right(program, run)
        assert runs[0].cycles == runs[1].cycles


# --- cycles -------------------------------------------------------------------------------------


def single(layer: Layer, ring: bool = False) -> Program:
    execution = layer.execution(np.random.default_rng(1), False)
    return Program([Segment(0, 1)], [layer], [execution], [0])


def pointwise(
    ranks: int,
    units: int,
    per_round: int,
    tiles: int,
    groups: int,
    ring: int = RING_NONE,
    late: int = 0,
    bits: int = 8,
) -> Layer:
    """A linear layer over ``tiles`` tiles of one item, from ``groups`` groups.

    ``late`` octets of the lead are not for the first tile.
    """
    pitch, subs = tiles * 32, -(-groups // 2)
    steps = 2 * subs if bits == 4 and ring else subs
    entry = MacEntry(
        shape=Shape(units, per_round, 1, tiles * 4, steps, 4 + late, tiles * 4, ring, 0),
        items=1, out_slot=0, fill_slot=0, height=tiles, width=32, pitch=pitch, src_height=tiles,
        src_width=32, src_pitch=pitch, stride=1, up=0, origin=0, start=0, window_slots=pitch,
        plane=pitch, split=1, limit_y=tiles, limit_x=32, taps=1, subs=subs, offset=(0,) * 9,
        ty=(0,) * 9, tx=(0,) * 9, pad=0, sources=1, groups=(-(-groups // ranks), 0),
        source_groups=(groups, 0), sub_base=(0, 0), first_rows=0 if ring else per_round * steps,
        late=late,
    )  # fmt: skip
    return Layer(entry, 32, ranks, bits)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_window_in_turns(ranks):
    """A buffer of the tiles that are read and filled: the same numbers in the same cycles as one
    that holds all of them, in both forms.
    """
    rng = np.random.default_rng(ranks)
    for ring, groups, late in ((RING_NONE, 5, 0), (RING_V, 16, 1), (RING_NONE, 3, 4)):
        layer = pointwise(ranks, 2, 2, 9, groups, ring, late)
        turn = 64 if late == 0 else 96
        parts = Layer(replace(layer.entry, window_slots=turn), 32, ranks)
        execution = layer.execution(rng, True)
        for flags in (FAST, PLAIN):
            lib = library(*flags, f"-DLDA_RANKS={ranks}")
            runs = [
                Program([Segment(0, 1, 2)], [each], [execution] * 2, [0, 0]).run(lib)
                for each in (layer, parts)
            ]
            for made, run in zip((layer, parts), runs, strict=True):
                assert_right(Program([Segment(0, 1, 2)], [made], [execution] * 2, [0, 0]), run)
            assert runs[0].cycles == runs[1].cycles


def test_turn_that_is_too_short_gives_wrong_numbers():
    layer = pointwise(4, 2, 2, 9, 16)
    execution = layer.execution(np.random.default_rng(2), False)
    short = Layer(replace(layer.entry, window_slots=32), 32, 4)
    program = Program([Segment(0, 1)], [short], [execution], [0])
    run = program.run(library(*PLAIN, "-DLDA_RANKS=4"))
    with pytest.raises(AssertionError):
        assert_right(program, run)


# Cycles of a run besides its slots: first job, loop entry, pipelines, loop exit, last token.
OVERHEAD = 22


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("units", [1, 2, 5])
def test_slots_follow_each_other_without_a_bubble(units, rounds):
    """lead + rounds * tiles * units * steps + the last words, in both forms."""
    ranks, tiles, groups = 4, 6, 16
    steps, beats = 8, 4
    layer = pointwise(ranks, units * rounds, units, tiles, groups)
    rows = units * steps
    # the first execution's own rows come beside the fill; the first Beat of the fill's last octet
    # is GUARD cycles old when the first tile begins
    lead = max(4 * beats, 3 * beats + GUARD, rows)
    # a tile fills the next one beside its own steps
    tile = max(rows, 4 * beats)
    filled = (tiles - 1) * tile + rows + (rounds - 1) * tiles * rows
    for form in (FAST, PLAIN):
        run = single(layer).run(library(*form, "-DLDA_RANKS=4"))
        assert run.status == 0, run.text
        assert run.cycles == lead + filled + 4 + OVERHEAD


def test_following_rows_are_there_when_an_execution_begins():
    layer = pointwise(4, 4, 4, 4, 16)
    lib = library(*FAST, "-DLDA_RANKS=4")
    rng = np.random.default_rng(1)
    one, two = (
        Program([Segment(0, 1, 1, n)], [layer], [layer.execution(rng, False)] * n, [0] * n).run(lib)
        for n in (1, 2)
    )
    fill, tiles, last = 16, 4 * 4 * 8, 4
    job = 1
    assert two.cycles - one.cycles == fill + tiles + max(job, last)


@pytest.mark.parametrize("late", [0, 1])
def test_a_lead_beyond_the_first_tile_hides_guard(late):
    """Two Beats an octet, eight steps and eight Beats a tile."""
    layer = pointwise(4, 2, 2, 16, 8, late=late)
    run = single(layer).run(library(*FAST, "-DLDA_RANKS=4"))
    assert run.status == 0, run.text
    lead = max(2 * (4 + late), 2 * 3 + GUARD)
    # 15 tiles fill the next one; without the octet that is there already, the first Beat of a
    # slot's last octet comes two cycles before the slot's end
    filling = 15 - late
    assert run.cycles == lead + 16 * 8 + (0 if late else filling * 2) + 4 + OVERHEAD


def test_weights_from_a_slow_memory_do_not_hold_up_a_round_of_many_tiles():
    """A row every fourth cycle hides behind 8 tiles; what the first round waits for is in `one`."""
    layer = pointwise(4, 16, 4, 8, 8)
    lib = library(*FAST, "-DLDA_RANKS=4")
    rng = np.random.default_rng(1)
    runs = [
        Program([Segment(0, 1)], [layer], [layer.execution(rng, False)], [0]).run(
            lib, (1, 1, interval, 1)
        )
        for interval in (1, 4)
    ]
    rows = 4 * 4
    assert runs[1].cycles - runs[0].cycles <= 4 * rows - rows


# --- parts --------------------------------------------------------------------------------------


def test_lanes_equal_divisions():
    lib = library(*FAST)
    rng = np.random.default_rng(0)
    sizes = [(int(h), int(w)) for h, w in rng.integers(1, 40, (200, 2))]
    for height, width in [(1, 1), (1, 16), (17, 1), (128, 128), (3, 5), (4, 4), *sizes]:
        pitch, tiles = up_to(height * width, 16), 8
        first = int(rng.integers(0, pitch)) if rng.random() < 0.5 else 0
        out = [np.zeros(tiles * 32, np.int32) for _ in range(3)]
        lib.t_lanes(height, width, pitch, first, tiles, *map(pointer, out))
        pixel = (first + np.arange(tiles * 32)) % pitch
        np.testing.assert_array_equal(out[0], pixel)
        np.testing.assert_array_equal(out[1], pixel // width)
        np.testing.assert_array_equal(out[2], pixel % width)


@pytest.mark.parametrize("flags", [(), ("-mavx2",), ("-march=native",)])
def test_leaf_equals_matrix_product(flags):
    lib = library("-O2", *flags)
    rng = np.random.default_rng(1)
    for taps, subs in ((1, 1), (3, 2), (9, 24)):
        for low, high in ((-128, 128), (127, 128), (-128, -127)):
            x = rng.integers(low, high, (taps, 32, subs * 16)).astype(np.int8)
            w = rng.integers(low, high, (taps, subs, 8, 16)).astype(np.int8)
            fast, portable = np.zeros((32, 8), np.int32), np.zeros((32, 8), np.int32)
            lib.t_leaf(pointer(x), pointer(w), 32, taps, subs, pointer(fast), pointer(portable))
            wide = x.reshape(taps, 32, subs, 16).astype(np.int64)
            want = np.einsum("tpsi,tsoi->po", wide, w.astype(np.int64))
            np.testing.assert_array_equal(fast, want)
            np.testing.assert_array_equal(portable, want)


# --- what must not pass -------------------------------------------------------------------------


@pytest.mark.parametrize("form", [FAST, PLAIN])
def test_planted_fault_shows(form):
    rng = np.random.default_rng(2)
    lib = library(*form, "-DLDA_PLANT_FAULTS", "-DLDA_RANKS=2")
    program = random_program(rng, 2, layers=[pointwise(2, 4, 2, 3, 5)])
    assert_right(program, program.run(lib))
    lib.t_plant_fault(3)
    try:
        run = program.run(lib)
    finally:
        lib.t_plant_fault(0)
    want, valid = program.expected()
    assert run.status == 0
    assert not np.array_equal(run.acc[valid], want[valid])


def bad_program(layer: Layer, **changes: int) -> Program:
    program = single(layer)
    program.layers = [Layer(replace(layer.entry, **changes), 32, layer.ranks)]
    return program


def test_entries_that_do_not_fit_end_the_run():
    layer = pointwise(4, 4, 4, 6, 16)
    shape = layer.entry.shape
    cases = {
        "mac: steps are not taps x subs": {"taps": 2},
        "mac: more weight rows than the weight buffer has": {
            "shape": replace(shape, units=17, per_round=17), "first_rows": 17 * 8,
        },
        "mac: first_rows are not the rows of round 0": {"first_rows": 1},
        "mac: the pitch of an item is not its pixels rounded up to 16": {"pitch": 6 * 32 + 16},
        "mac: a window pixel outside of the window buffer": {"origin": -(1 << 14), "start": 1 << 14,
            "window_slots": 1 << 15, "plane": 1 << 15},
        "mac: the octets before the first tile are not some of the fill": {"late": 5},
        "mac: a tap reads a window pixel that is not there": {"shape": replace(shape, lead=2)},
        "mac: octets of the fill that no tile waits for": {"shape": replace(shape, octets=16)},
    }  # fmt: skip
    for text, changes in cases.items():
        assert bad_program(layer, **changes).run(library(*FAST, "-DLDA_RANKS=4")).text == text
    # without a second pass the two phases of a row meet: they lie 64 window pixels apart
    layer = pointwise(4, 4, 4, 8, 16)
    strided = replace(
        layer.entry, stride=2, height=4, width=16, pitch=64, plane=64,
        shape=replace(layer.entry.shape, octets=8, lead=32),
    )  # fmt: skip
    program = bad_program(layer)
    program.layers = [replace(layer, entry=strided)]
    text = program.run(library(*PLAIN, "-DLDA_RANKS=4")).text
    assert text == "mac: two lanes of a Beat meet in a window bank"


# --- hardware timing of the memories ------------------------------------------------------------

DELAY = """
#include <deque>
#include <functional>
#include <utility>
// Writes to the memories that come LDA_DELAY iterations late.
struct Late {
    long now = 0;
    std::deque<std::pair<long, std::function<void()>>> waiting;
    void tick() {
        ++now;
        while (!waiting.empty() && waiting.front().first <= now) {
            waiting.front().second();
            waiting.pop_front();
        }
    }
    void later(std::function<void()> write) { waiting.emplace_back(now + LDA_DELAY, write); }
};
inline Late& late() {
    static Late one;
    return one;
}
"""


def copied_kernels(folder: Path) -> Path:
    """``folder`` with the kernels and this test's source, to be changed."""
    for name in ("hls/kernels", "tests/kernels"):
        (folder / name).mkdir(parents=True)
    for header in (ROOT / "hls/kernels").glob("*.hpp"):
        (folder / "hls/kernels" / header.name).write_text(header.read_text())
    (folder / "tests/kernels/mac.cpp").write_text(SOURCE.read_text())
    return folder


def delayed_library(folder, delay: int, ranks: int) -> ctypes.CDLL:
    """The plain form with writes to the window and weight buffers ``delay`` iterations late."""
    kernels = copied_kernels(folder) / "hls/kernels"
    text = (kernels / "mac.hpp").read_text()
    changes = [
        ("namespace lda {", DELAY + "namespace lda {"),
        ("        TICK(span);\n", "        TICK(span);\n        late().tick();\n"),
        (
            "#else\n            fill.place(entry, fill.pass, to);\n"
            "            write_window<P>(memory.window, entry.subs, place, to, beat);\n",
            "#else\n            fill.place(entry, fill.pass, to);\n"
            "            const int subs = entry.subs;\n"
            "            late().later([=, &memory] {\n"
            "                write_window<P>(memory.window, subs, place, to, beat); });\n",
        ),
        (
            "            memory.weights[load_half * P::WEIGHT_ROWS + load.row] = weights;\n",
            "            const int to_row = load_half * P::WEIGHT_ROWS + load.row;\n"
            "            late().later([=, &memory] { memory.weights[to_row] = weights; });\n",
        ),
    ]
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    (kernels / "mac.hpp").write_text(text)
    source = folder / "tests/kernels/mac.cpp"
    flags = (*PLAIN, f"-DLDA_RANKS={ranks}", f"-DLDA_DELAY={delay}", f"-DFOLDER={folder.name}")
    return ctypes.CDLL(str(compile_cpp(source, flags)))


@pytest.mark.parametrize("ranks", [1, 4])
def test_no_read_comes_sooner_than_guard_after_its_write(ranks, tmp_path):
    """Writes GUARD iterations late change nothing; one more iteration does."""
    rng = np.random.default_rng(ranks)
    programs = [random_program(rng, ranks) for _ in range(25)]
    programs += [
        single(pointwise(ranks, 4, per_round, tiles, 2, ring))
        for per_round in (1, 2) for tiles in (1, 2) for ring in (RING_NONE, RING_V)
    ]  # fmt: skip
    late = delayed_library(tmp_path / "late", GUARD, ranks)
    for program in programs:
        assert_right(program, program.run(late))
    later = delayed_library(tmp_path / "later", GUARD + 1, ranks)
    wrong = 0
    for program in programs:
        want, valid = program.expected()
        wrong += not np.array_equal(program.run(later).acc[valid], want[valid])
    assert wrong > 0
