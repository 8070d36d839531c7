"""Entries, executions and programs for mac, with the accumulators and the words that they give."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from cpp import ROOT, compile_cpp

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
        weights = [draw(len(units), e.taps * len(subs), 8, 16) for units, subs in self.products()]
        if self.bits == 4 and e.row_parts == 1:
            weights = [part >> 4 for part in weights]
        acc, valid = self.expected(operands, [part.astype(np.int64) for part in weights])
        rows = np.concatenate([part.reshape(-1, 8, 16) for part in weights])
        if self.bits == 4 and not shape.ring:
            rows = nibble_rows(rows, e.row_parts)
        return Execution(np.concatenate(beats), rows, acc, valid)

    def products(self) -> list[tuple[list[int], range]]:
        """(units, subs of the window that they take) of every product: V's before K's."""
        e, shape = self.entry, self.entry.shape
        if not shape.pv_units:
            return [(list(range(shape.units)), range(e.subs))]
        of_v = [k * shape.pv_every for k in range(shape.pv_units)]
        of_k = [unit for unit in range(shape.units) if unit not in of_v]
        first = e.subs - -(-e.source_groups[0] // 2)  # the subs of source 0 are the last ones
        return [(of_v, range(first, e.subs)), (of_k, range(first))]

    def expected(
        self, operands: np.ndarray, weights: list[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """``weights``: of every product, [units, taps * subs, 8, 16]."""
        e, shape = self.entry, self.entry.shape
        tile_octets = self.pixels // 8
        slot = e.out_slot + np.arange(shape.octets * 8)
        item, rest = np.divmod(slot, e.pitch)
        y, x = np.divmod(rest, e.width)
        valid = y < e.height
        acc = np.zeros((shape.octets * 8, shape.units, 8), np.int64)
        for tap in range(e.taps):
            yy, xx = y * e.stride + e.ty[tap], x * e.stride + e.tx[tap]
            is_open = valid & (yy >= 0) & (yy < e.limit_y) & (xx >= 0) & (xx < e.limit_x)
            source = item * e.src_pitch + (yy >> e.up) * e.src_width + (xx >> e.up) - e.fill_slot
            values = np.full((len(slot), e.subs * 16), e.pad, np.int64)
            values[is_open] = operands[source[is_open]]
            for (units, subs), rows in zip(self.products(), weights, strict=True):
                part = rows[:, tap * len(subs) : (tap + 1) * len(subs)].transpose(1, 3, 0, 2)
                part = part.reshape(-1, len(units) * 8)
                made = values[:, subs.start * 16 : subs.stop * 16] @ part
                acc[:, units] += made.reshape(-1, len(units), 8)
        by_unit = acc.reshape(shape.octets, 8, shape.units, 8)
        order = [
            (octet, unit)
            for first in range(0, shape.units, shape.per_round)
            for tile in range(0, shape.octets, tile_octets)
            for unit in range(first, min(first + shape.per_round, shape.units))
            for octet in range(tile, min(tile + tile_octets, shape.octets))
        ]
        words_made = np.stack([by_unit[octet, :, unit] for octet, unit in order])
        words_kept = np.stack([valid.reshape(-1, 8)[octet] for octet, _ in order])
        return words_made.astype(np.int32), words_kept


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
        taps=len(taps), subs=sum(subs), pv_subs=0,
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


def joined_layer(
    rng: np.random.Generator, ranks: int, pixels: int, bits: int, turns: bool | None = None
) -> Layer:
    """A product with V of source 0 and one with K of source 1; ``turns``: whether the window holds
    a part of them at a time (None: by chance).
    """
    while True:
        layer = drawn_joined(rng, ranks, pixels, bits)
        if layer is not None and turns in (None, in_turns(layer)):
            return layer


def in_turns(layer: Layer) -> bool:
    return layer.entry.window_slots < layer.entry.plane


def drawn_joined(rng: np.random.Generator, ranks: int, pixels: int, bits: int) -> Layer | None:
    height, width = int(rng.integers(1, pixels)), int(rng.integers(1, 15))
    pitch, tile_octets = up_to(height * width, 16), pixels // 8
    # a strip of the queries
    first_tile = int(rng.integers(0, -(-height * width // pixels))) if rng.random() < 0.3 else 0
    first = first_tile * pixels
    left = -(-(pitch - first) // pixels)  # tiles
    slots = min(pitch - first, pixels * int(rng.integers(1, left + 1)))
    # P; the queries, whose head begins with a group of any rank: one or no sub is in front of it
    used = [int(rng.integers(1, 10)) for _ in range(2)]
    phase = int(rng.integers(0, ranks))
    used[1] += phase
    subs = [-(-used[0] // 2), -(-used[1] // 2) - phase // 2]
    parts = 2 if bits == 4 else 1  # ring weights come in halves
    of_v, of_k = int(rng.integers(1, 5)), int(rng.integers(1, 13))
    units = of_v + of_k
    every = int(rng.integers(1, units if of_v == 1 else (units - 2) // (of_v - 1) + 1))
    if parts * (of_v * subs[0] + of_k * subs[1]) > WEIGHT_ROWS:
        return None
    fill = slots // 8
    reach = -(-min(pixels, slots, height * width - first) // 8)
    tiles = -(-slots // pixels)
    lead = min(fill, max(reach, fill - tiles * tile_octets) + int(rng.integers(0, 4)))
    turn = up_to(lead * 8, pixels) + pixels
    window_slots = turn if turn < slots and rng.random() < 0.8 else slots
    if -(-window_slots // pixels) * sum(subs) > WINDOW_ROWS:
        return None
    shape = Shape(
        units=units, per_round=units + int(rng.integers(0, 2)), gates=1, octets=slots // 8,
        steps=parts * subs[1], lead=lead, fill=fill, ring=RING_K, ring_words=0, pv_units=of_v,
        pv_every=every, pv_steps=parts * subs[0], pv_words=0,
    )  # fmt: skip
    entry = MacEntry(
        shape=shape, items=1, out_slot=first, fill_slot=first, height=height, width=width,
        pitch=pitch, src_height=height, src_width=width, src_pitch=pitch, stride=1, up=0,
        origin=first, start=0, window_slots=window_slots, plane=slots, split=1, limit_y=height,
        limit_x=width, taps=1, subs=sum(subs), pv_subs=subs[0], offset=(0,) * 9, ty=(0,) * 9,
        tx=(0,) * 9, pad=int(rng.integers(-128, 128)), sources=2,
        groups=(-(-used[0] // ranks), -(-used[1] // ranks)), source_groups=(used[0], used[1]),
        sub_base=(subs[1], -(phase // 2)), first_rows=0, late=lead - reach,
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
            joined_layer(rng, ranks, pixels, bits) if rng.random() < 0.25 else
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
        plane=pitch, split=1, limit_y=tiles, limit_x=32, taps=1, subs=subs, pv_subs=0,
        offset=(0,) * 9, ty=(0,) * 9, tx=(0,) * 9, pad=0, sources=1,
        groups=(-(-groups // ranks), 0), source_groups=(groups, 0), sub_base=(0, 0),
        first_rows=0 if ring else per_round * steps, late=late,
    )  # fmt: skip
    return Layer(entry, 32, ranks, bits)


def joined(
    ranks: int,
    units: tuple[int, int],
    tiles: int,
    groups: tuple[int, int],
    bits: int = 8,
    every: int = 1,
    phase: int = 0,
) -> Layer:
    """Products with V and with K over ``tiles`` tiles of one item: their units and the groups that
    they read, the queries' behind ``phase`` others; every which unit is one with V.
    """
    one = pointwise(ranks, sum(units), sum(units), tiles, 1, RING_K, bits=bits).entry
    parts = 2 if bits == 4 else 1
    used = groups[0], phase + groups[1]
    subs = [-(-used[0] // 2), -(-used[1] // 2) - phase // 2]
    shape = replace(
        one.shape, steps=parts * subs[1], pv_units=units[0], pv_every=every,
        pv_steps=parts * subs[0],
    )  # fmt: skip
    entry = replace(
        one, shape=shape, subs=sum(subs), pv_subs=subs[0], sources=2, source_groups=used,
        groups=(-(-used[0] // ranks), -(-used[1] // ranks)), sub_base=(subs[1], -(phase // 2)),
    )  # fmt: skip
    return Layer(entry, 32, ranks, bits)


def copied_kernels(folder: Path) -> Path:
    """``folder`` with the kernels and this test's source, to be changed."""
    for name in ("hls/kernels", "tests/kernels"):
        (folder / name).mkdir(parents=True)
    for header in (ROOT / "hls/kernels").glob("*.hpp"):
        (folder / "hls/kernels" / header.name).write_text(header.read_text())
    (folder / "tests/kernels/mac.cpp").write_text(SOURCE.read_text())
    return folder
