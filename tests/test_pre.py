"""pre: operands, statistics and their order against a model in Python integers."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from cpp import BASE_FLAGS, FAST, ROOT, compile_cpp

from gen.program.structs import (
    NORM,
    RING_K,
    RING_NONE,
    RING_V,
    STATS_GROUP,
    STATS_GROUP_ADD,
    STATS_LAYER,
    STATS_NONE,
    STATS_SOFTMAX,
    Addr,
    PreEntry,
    Segment,
    Shape,
    words,
)
from gen.reference.normalise import reciprocal_deviation, scale_deviations
from gen.reference.rounding import clamp, rshr

pytestmark = [
    pytest.mark.csim,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]

SOURCE = ROOT / "tests/kernels/pre.cpp"
INCLUDE = f"-I{ROOT / 'hls'}"
PLAIN = (*FAST, "-DLDA_PLAIN", INCLUDE)
RANKS = (1, 2, 4)
STAGES = 8  # STAGES_PRE


# --- what goes in -------------------------------------------------------------------------------


@dataclass
class Execution:
    """One execution of an entry, with all that it reads."""

    entry: PreEntry
    i0: int
    i1: int
    eps: int
    row_eps: int
    row_n: int
    table: np.ndarray  # int8 [2048]
    gamma: np.ndarray  # int16 [pp words, 8]
    beta: np.ndarray  # int32 [pp words, 8]
    group: np.ndarray  # uint8 [pp words, 8]
    mask: np.ndarray  # uint8 [pp words]
    xs: np.ndarray  # uint8 [words, plane, byte]
    sums: np.ndarray  # int64 [stat words, rank, 8]
    squares: np.ndarray  # int64 [stat words, rank, 8]

    def header(self) -> bytes:
        values = np.array([self.eps, self.row_eps], "<i8").tobytes()
        return (values + np.array([self.row_n], "<i4").tobytes()).ljust(64, b"\xaa")

    def parameters(self) -> bytes:
        if self.entry.pp_once and (self.i0 or self.i1):
            return b""
        text = self.table.tobytes() if self.entry.table else b""
        for gamma, beta, group, mask in zip(
            self.gamma, self.beta, self.group, self.mask, strict=True
        ):
            one = gamma.tobytes() + beta.tobytes() + group.tobytes() + mask.tobytes()
            text += one.ljust(64, b"\x55")
        return text

    def statistics(self) -> bytes:
        count = self.sums.shape[:2]
        beats = np.zeros((*count, 80), np.uint8)
        beats[..., :32] = self.sums.astype("<i4").view(np.uint8).reshape(*count, 32)
        parts = self.squares.astype("<u8").view(np.uint8).reshape(*count, 8, 8)[..., :6]
        beats[..., 32:] = parts.reshape(*count, 48)
        return beats.tobytes()


@dataclass
class Program:
    segments: list[Segment] = field(default_factory=list)
    entries: list[PreEntry] = field(default_factory=list)
    executions: list[Execution] = field(default_factory=list)


# --- the model ----------------------------------------------------------------------------------


class Model:
    """Keeps sums by channel of the statistics memory, and scales by octet."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self.sums: dict[int, int] = {}  # address * 8 + lane
        self.squares: dict[int, int] = {}
        self.rows: dict[int, list[tuple[int, int, int]]] = {}

    def run(self, x: Execution) -> list[np.ndarray]:
        """The px words of an execution."""
        e = x.entry
        z_scales = self.scales(x)
        groups = [e.groups[s] for s in range(e.sources)]
        shape = e.shape
        unit_words = shape.ring_words if shape.ring else 0
        first = min(shape.per_round, shape.units) * unit_words
        words_in = iter(x.xs)
        px = [next(words_in)[0] for _ in range(first)]
        for octet in range(shape.fill):
            slot = 0
            for s in range(e.sources):
                for block in range(groups[s]):
                    at = slot if not e.uniform else int(block == groups[s] - 1)
                    px.append(self.operands(x, next(words_in), s, at, octet, z_scales))
                    slot += 1
        px += [word[0] for word in words_in]
        self.keep(x)
        return px

    def scales(self, x: Execution):
        e = x.entry
        if e.norm == NORM["group"]:
            return self.group_scales(x)
        if e.norm in (NORM["layer"], NORM["softmax"]):
            first = e.row_in.at(x.i0, x.i1)
            return [self.rows[first + k] for k in range(e.shape.fill)]
        return None

    def group_scales(self, x: Execution) -> dict[tuple[int, int], tuple[int, int, int]]:
        e = x.entry
        found = {}
        for item in range(e.items):
            lanes = [
                (8 * (e.stats_base[s].at(x.i0, x.i1) + item * e.stats_pitch[s]) + c, e.align[s])
                for s in range(e.sources)
                for c in range(e.channels[s])
            ]
            for g in range(e.norm_groups):
                mine = lanes[g * e.group_size : (g + 1) * e.group_size]
                total = sum(self.sums[k] << a for k, a in mine)
                square = sum(self.squares[k] << 2 * a for k, a in mine)
                found[item, g] = scale_of(total, square, e.n, x.eps)
        return found

    def operands(self, x: Execution, stored, source, slot, octet, scales) -> np.ndarray:
        e = x.entry
        low, high = stored[0].reshape(8, 8), stored[1].reshape(8, 8)
        q = low.view(np.int8).astype(np.int64)
        if e.wide[source]:
            q = low.astype(np.int64) + 256 * high.view(np.int8).astype(np.int64)
        if e.norm == NORM["group"]:
            item = octet // e.item_octets if e.items > 1 else 0
            of_channel = np.array([scales[item, int(g)] for g in x.group[slot]], np.int64)
            mu, r, shift = of_channel.T
            z = scale_deviations((q << e.align[source] + 4) - mu, r, shift)
        elif e.norm == NORM["layer"]:
            mu, r, shift = np.array(scales[octet], np.int64).T[:, :, None]
            z = scale_deviations((q << 4) - mu, r, shift)
        elif e.norm == NORM["softmax"]:
            z = q - np.array(scales[octet], np.int64)[:, :1]
        else:
            z = q
        t = rshr(z * x.gamma[slot].astype(np.int64) + x.beta[slot], e.shift)
        value = x.table[clamp(t, 11) + 1024] if e.table else clamp(t, 8).astype(np.int8)
        used = np.unpackbits(x.mask[slot : slot + 1], bitorder="little").astype(bool)
        return np.where(used, value, np.int8(0)).view(np.uint8).reshape(64)

    def keep(self, x: Execution) -> None:
        e = x.entry
        if e.stats in (STATS_GROUP, STATS_GROUP_ADD):
            for k in range(e.stat_words):
                local, item = divmod(k, e.items_out)
                for r in range(self.ranks):
                    group = local * self.ranks + r
                    address = e.stats_out.at(x.i0, x.i1) + item * e.stats_pitch_out + group
                    for lane in range(8):
                        at = 8 * address + lane
                        add = e.stats == STATS_GROUP_ADD
                        self.sums[at] = int(x.sums[k, r, lane]) + add * self.sums.get(at, 0)
                        self.squares[at] = int(x.squares[k, r, lane]) + add * self.squares.get(
                            at, 0
                        )
        for k in range(e.stat_words if e.stats in (STATS_LAYER, STATS_SOFTMAX) else 0):
            rows = []
            for p in range(8):
                total, square = int(x.sums[k, :, p].sum()), int(x.squares[k, :, p].sum())
                if e.stats == STATS_LAYER:
                    rows.append(scale_of(total, square, x.row_n, x.row_eps))
                else:
                    rows.append((int(x.sums[k, :, p].max()), 0, 0))
            self.rows[e.row_out.at(x.i0, x.i1) + k] = rows


def scale_of(total: int, square: int, n: int, eps: int) -> tuple[int, int, int]:
    r, e = reciprocal_deviation(n * square - total * total + eps, n)
    return (total << 4) // n, r, e


# --- random programs ----------------------------------------------------------------------------


def spread(rng: np.random.Generator, bits: int, size) -> np.ndarray:
    """Integers of all magnitudes, extremes among them."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    pool = [v for k in range(bits) for v in ((1 << k) - 1, 1 << k, -(1 << k)) if low <= v <= high]
    values = rng.integers(low, high + 1, size)
    return np.where(rng.random(size) < 0.5, rng.choice(pool, size), values)


def sums_of(rng: np.random.Generator, size: tuple[int, ...], count: int):
    """(sums, sums of squares) that ``count`` int16 values can have; both int64 of ``size``."""
    mean = spread(rng, 16, size).astype(np.int64)
    square = mean * mean * count
    room = (1 << 30) * count - square
    square += (room * rng.choice([0, 0, 1e-6, 0.01, 1], size)).astype(np.int64)
    return mean * count, square


def epsilon(rng: np.random.Generator) -> int:
    return int(rng.choice([1, 2**20, 2**40, 2**62, 2**63 - 1]))


@dataclass
class Maker:
    """Builds a program; segment by segment, with room in the memories as it goes."""

    ranks: int
    rng: np.random.Generator
    program: Program = field(default_factory=Program)
    words: int = 0  # of the statistics memory

    def shape(self, **changed) -> Shape:
        values = {
            "units": 1, "per_round": 1, "gates": 1, "octets": 4, "steps": 1, "lead": 4, "fill": 1,
            "ring": RING_NONE, "ring_words": 0,
        }  # fmt: skip
        return Shape(**(values | changed))

    def entry(self, **changed) -> PreEntry:
        """An entry that reads one word and has no norm and no statistics, but for ``changed``."""
        zero = (0, 0)
        values = {
            "shape": self.shape(), "items": 1, "item_octets": 2, "sources": 1, "groups": (1, 0),
            "wide": (1, 1), "align": zero, "channels": zero, "stats_base": (Addr(), Addr()),
            "stats_pitch": zero, "row_in": Addr(), "norm": NORM["none"], "norm_groups": 0,
            "group_size": 0, "n": 0, "shift": int(self.rng.integers(1, 41)),
            "table": int(self.rng.integers(2)), "uniform": 0, "stats": STATS_NONE,
            "stats_out": Addr(), "stats_pitch_out": 0, "items_out": 1, "row_out": Addr(),
            "stat_words": 0, "rows_ahead": 0, "rows_sent": 0, "pp_once": 0,
        }  # fmt: skip
        return PreEntry(**(values | changed))

    def segment(self, made: list[PreEntry], n0: int = 1, n1: int = 1, count: int = 64,
                row_n: int = 1) -> None:  # fmt: skip
        """``count``: values per statistics lane and rank."""
        program, rng = self.program, self.rng
        program.segments.append(Segment(len(program.entries), len(made), n0, n1))
        program.entries += made
        runs = [(e, i0, i1) for i0 in range(n0) for i1 in range(n1) for e in made]
        new = [self.execution(*run, rng, count, row_n) for run in runs]
        if made[0].pp_once:
            kept = {name: getattr(new[0], name) for name in ("table", "gamma", "beta", "group",
                                                             "mask")}  # fmt: skip
            new = [replace(x, **kept) for x in new]
        program.executions += new

    def execution(self, e, i0, i1, rng, count, row_n) -> Execution:
        groups = sum(e.groups[: e.sources])
        slots = 2 if e.uniform else groups
        ring = e.shape.units * e.shape.ring_words if e.shape.ring else 0
        bytes_in = rng.integers(0, 256, (e.shape.fill * groups + ring, 2, 64)).astype(np.uint8)
        extreme = rng.random(bytes_in.shape) < 0.3
        bytes_in[extreme] = rng.choice([0, 127, 128, 255], int(extreme.sum()))
        sums, squares = sums_of(rng, (e.stat_words, self.ranks, 8), count)
        if e.stats == STATS_SOFTMAX:
            sums = spread(rng, 16, sums.shape).astype(np.int64)
        return Execution(
            e, i0, i1, epsilon(rng), epsilon(rng), row_n,
            rng.integers(-128, 128, 2048).astype(np.int8),
            spread(rng, 16, (slots, 8)).astype(np.int16),
            spread(rng, 32, (slots, 8)).astype(np.int32),
            rng.integers(0, max(1, e.norm_groups), (slots, 8)).astype(np.uint8),
            rng.choice(np.array([255, 0, 1, 0xF0, 0x5B], np.uint8), slots),
            bytes_in, sums, squares,
        )  # fmt: skip

    def room(self, items: int, channels: int) -> tuple[int, int]:
        """(local groups, first address) of a tensor's sums."""
        local = ceil(ceil(channels / 8) / self.ranks)
        base, self.words = self.words, self.words + items * local * self.ranks
        assert self.words <= 1024
        return local, base

    def write_group(self, items, channels, align, pixels, strips: bool) -> dict:
        """Two executions (or segments of them) that make a tensor's sums; what a reader needs."""
        local, base = self.room(items, channels)
        pitch = local * self.ranks
        loops = items if strips else 1
        out = Addr(base, pitch if strips else 0)
        per = 1 if strips else items
        common = {
            "stats_out": out, "stats_pitch_out": pitch, "items_out": per, "stat_words": local * per,
        }  # fmt: skip
        parts = [self.entry(stats=STATS_GROUP, **common),
                 self.entry(stats=STATS_GROUP_ADD, **common)]  # fmt: skip
        self.segment(parts, n0=loops, count=pixels // 2)
        return {"local": local, "channels": channels, "align": align, "base": base, "pitch": pitch}

    def group_norm(self, channels: list[int], group_size: int, items: int, strips: bool) -> None:
        rng = self.rng
        pixels = int(rng.choice([16, 64, 256]))
        assert sum(channels) % group_size == 0
        tensors = [
            self.write_group(items, c, int(rng.integers(0, 8)), pixels, strips) for c in channels
        ]
        item_octets = int(rng.integers(1, 9))
        two = (tensors * 2)[:2]
        fill = int(rng.integers(1, 7)) if strips else items * item_octets
        self.segment([self.entry(
            shape=self.shape(fill=fill),
            items=1 if strips else items, item_octets=item_octets, sources=len(channels),
            groups=tuple(t["local"] for t in two), align=tuple(t["align"] for t in two),
            channels=tuple(t["channels"] for t in two),
            stats_base=tuple(Addr(t["base"], t["pitch"] if strips else 0) for t in two),
            stats_pitch=tuple(t["pitch"] for t in two), norm=NORM["group"],
            norm_groups=sum(channels) // group_size, group_size=group_size, n=group_size * pixels,
        )], n0=items if strips else 1)  # fmt: skip

    def row_norm(self, norm: str, n0: int, n1: int, uniform: int) -> None:
        rng = self.rng
        octets, local = int(rng.integers(1, 6)), int(rng.integers(1, 5))
        base, count = int(rng.integers(0, 900)), int(rng.choice([1, 8, 96]))
        where = Addr(base, n1 * octets, octets)
        stats = STATS_LAYER if norm == "layer" else STATS_SOFTMAX
        self.segment([self.entry(stats=stats, row_out=where, stat_words=octets)], n0, n1, count,
                     self.ranks * count)  # fmt: skip
        skip = int(rng.integers(0, octets))
        reader = self.entry(
            shape=self.shape(fill=octets - skip), groups=(local, 0), norm=NORM[norm],
            row_in=Addr(base + skip, n1 * octets, octets), uniform=uniform,
            pp_once=int(rng.integers(2)),
        )  # fmt: skip
        self.segment([reader], n0, n1)

    def rows_ahead(self, norm: str, n0: int, n1: int, octets: int, rows: int) -> None:
        """Executions each of which reads the rows of the one before; ``rows`` are sent ahead."""
        rng = self.rng
        count, local = int(rng.choice([1, 8, 96])), int(rng.integers(1, 4))
        where = Addr(int(rng.integers(0, 500)), n1 * octets, octets)
        fill = int(rng.integers(rows, octets + 1))
        stats = STATS_LAYER if norm == "layer" else STATS_SOFTMAX
        writer = self.entry(stats=stats, row_out=where, stat_words=octets, rows_ahead=rows)
        reader = self.entry(
            shape=self.shape(fill=fill), groups=(local, 0), norm=NORM[norm], row_in=where,
            rows_sent=rows,
        )  # fmt: skip
        self.segment([writer, reader], n0, n1, count, self.ranks * count)

    def plain(self, wide: tuple[int, int], sources: int) -> None:
        rng = self.rng
        groups = tuple(int(v) for v in rng.integers(1, 6, 2))
        fill = int(rng.integers(1, 10))
        self.segment([self.entry(
            shape=self.shape(fill=fill), sources=sources, groups=groups, wide=wide,
            items=int(rng.integers(1, 4)), pp_once=int(rng.integers(2)),
        )], n0=int(rng.integers(1, 3)))  # fmt: skip

    def ring(self, kind: int, norm: str) -> None:
        rng = self.rng
        units = int(rng.integers(1, 8))
        ring_words = self.ranks * int(rng.integers(1, 4)) if kind == RING_K else 2 * 3
        shape = self.shape(
            units=units, per_round=int(rng.integers(1, units + 2)), fill=int(rng.integers(1, 5)),
            ring=kind, ring_words=ring_words,
        )  # fmt: skip
        where = Addr(0, 0, shape.fill)
        uniform, local = int(rng.integers(2)), int(rng.integers(1, 4))
        if norm == "softmax":
            self.segment([self.entry(stats=STATS_SOFTMAX, row_out=where, stat_words=shape.fill)],
                         1, 2)  # fmt: skip
        self.segment([self.entry(
            shape=shape, groups=(local, 0), uniform=uniform, row_in=where, norm=NORM[norm],
            wide=(1 if norm == "softmax" else 0, 0), pp_once=int(rng.integers(2)),
        )], 1, 2)  # fmt: skip


# --- runs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def libraries() -> dict[str, ctypes.CDLL]:
    return {
        "fast": ctypes.CDLL(str(compile_cpp(SOURCE, (*FAST, INCLUDE)))),
        "plain": ctypes.CDLL(str(compile_cpp(SOURCE, PLAIN))),
    }


def run_on(lib: ctypes.CDLL, ranks: int, program: Program, px_words: int):
    """(px uint8 [words, 64], cycles); asserts that the run ended well."""
    lib.t_pre.restype = ctypes.c_char_p
    segments = np.array([w for s in program.segments for w in words(s)], np.int32)
    entries = np.array([w for e in program.entries for w in words(e)], np.int32)
    assert lib.t_entry_words() * len(program.entries) == len(entries)
    runs = program.executions
    hd, pp, xs, sg = (b"".join(part) for part in (
        (x.header() for x in runs), (x.parameters() for x in runs),
        (x.xs.tobytes() for x in runs), (x.statistics() for x in runs),
    ))  # fmt: skip
    px = np.zeros((px_words, 64), np.uint8)
    sizes = [len(hd) // 64, len(pp) // 64, len(xs) // 128, len(sg) // (80 * ranks), px_words]
    counts, cycles = np.array(sizes, np.int32), np.zeros(1, np.int64)

    def pointer(array: np.ndarray) -> ctypes.c_void_p:
        return ctypes.c_void_p(array.ctypes.data)

    error = lib.t_pre(ranks, pointer(segments), len(program.segments), pointer(entries), hd, pp, xs,
                      sg, pointer(px), pointer(counts), pointer(cycles))  # fmt: skip
    return px, int(cycles[0]), error.decode()


def wanted(ranks: int, program: Program) -> np.ndarray:
    model = Model(ranks)
    return np.array([word for x in program.executions for word in model.run(x)], np.uint8)


def check(libraries, ranks: int, program: Program) -> int:
    """Compares both forms with the model and each other; returns the cycles."""
    want = wanted(ranks, program)
    took = set()
    for name, lib in libraries.items():
        px, cycles, error = run_on(lib, ranks, program, len(want))
        assert error == "", name
        assert np.array_equal(px, want), name
        took.add(cycles)
    assert len(took) == 1
    return took.pop()


# channels of the sources, channels of a norm group
GROUPS = [
    ([8], 1), ([24], 2), ([40], 5), ([64], 64), ([96], 12), ([384], 12), ([30], 3), ([54], 27),
    ([24, 40], 16), ([20, 44], 16), ([12, 12], 8), ([7, 9], 2), ([64, 128], 48), ([33, 31], 1),
    ([128, 64], 6), ([320], 32),
]  # fmt: skip


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize(("channels", "size"), GROUPS)
def test_group_norm(libraries, channels, size, ranks):
    maker = Maker(ranks, np.random.default_rng([*channels, size, ranks]))
    for items, strips in ((1, False), (2, False), (3, False), (2, True)):
        maker.words = 0
        maker.group_norm(channels, size, items, strips)
    check(libraries, ranks, maker.program)


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("norm", ["layer", "softmax"])
def test_row_norms(libraries, norm, ranks):
    maker = Maker(ranks, np.random.default_rng(ranks))
    for uniform in (0, 1):
        for n0, n1 in ((1, 1), (2, 3)):
            for _ in range(3):
                maker.row_norm(norm, n0, n1, uniform)
    for octets, rows in ((1, 1), (7, 3), (70, 64), (64, 64)):
        maker.rows_ahead(norm, 1, 2, octets, rows)
    check(libraries, ranks, maker.program)


@pytest.mark.parametrize("wide", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("sources", [1, 2])
def test_without_norm(libraries, sources, wide):
    maker = Maker(2, np.random.default_rng([sources, *wide]))
    for _ in range(6):
        maker.plain(wide, sources)
    check(libraries, 2, maker.program)


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize(("kind", "norm"), [(RING_K, "none"), (RING_V, "softmax")])
def test_ring_weights_pass_unchanged(libraries, kind, norm, ranks):
    maker = Maker(ranks, np.random.default_rng([kind, ranks]))
    for _ in range(8):
        maker.ring(kind, norm)
    check(libraries, ranks, maker.program)


@pytest.mark.parametrize("ranks", RANKS)
def test_programs_of_everything(libraries, ranks):
    for seed in range(6):
        rng = np.random.default_rng([seed, ranks])
        maker = Maker(ranks, rng)
        for _ in range(8):
            kind = int(rng.integers(6))
            maker.words = 0
            if kind == 0:
                channels, size = GROUPS[rng.integers(len(GROUPS))]
                maker.group_norm(channels, size, int(rng.integers(1, 4)), bool(rng.integers(2)))
            elif kind == 1:
                maker.row_norm(str(rng.choice(["layer", "softmax"])), 1, 2, int(rng.integers(2)))
            elif kind == 2:
                maker.plain((int(rng.integers(2)), int(rng.integers(2))), 2)
            elif kind == 3:
                maker.ring(RING_K, "none")
            elif kind == 4:
                maker.ring(RING_V, "softmax")
            else:
                maker.rows_ahead("layer", 2, 1, 9, int(rng.integers(1, 10)))
        check(libraries, ranks, maker.program)


def test_one_word_per_cycle(libraries):
    maker = Maker(1, np.random.default_rng(1))
    maker.segment([maker.entry(shape=maker.shape(fill=100), groups=(5, 0), table=1)])
    # table, constants, words, then the pipeline runs empty
    assert check(libraries, 1, maker.program) <= 32 + 5 + 500 + STAGES + 4


def test_scales_of_later_items_cost_no_cycle(libraries):
    cycles = {}
    for items in (1, 4):
        maker = Maker(4, np.random.default_rng(2))
        maker.group_norm([256], 8, items, False)
        reader = maker.program.entries[-1]
        reader = type(reader)(**{
            **reader.__dict__, "item_octets": 32, "shape": maker.shape(fill=32 * items),
        })  # fmt: skip
        maker.program.entries[-1] = reader
        last = maker.program.executions.pop()
        maker.program.executions.append(maker.execution(reader, last.i0, last.i1, maker.rng, 64, 1))
        cycles[items] = check(libraries, 4, maker.program)
    # 8 words per octet; the statistics of an item take 8 words twice
    assert cycles[4] - cycles[1] <= 3 * (32 * 8 + 2 * 8) + 4


@pytest.mark.parametrize("normalisers", [1, 8])
def test_more_rows_of_a_layer_norm_per_cycle(libraries, normalisers):
    flag = f"-DLDA_NORMALISERS={normalisers}"
    others = {name: ctypes.CDLL(str(compile_cpp(SOURCE, (*flags, flag, INCLUDE))))
              for name, flags in (("fast", FAST), ("plain", PLAIN))}  # fmt: skip
    maker = Maker(2, np.random.default_rng(5))
    maker.segment([maker.entry(stats=STATS_LAYER, stat_words=100)], row_n=128)
    maker.segment([maker.entry(shape=maker.shape(fill=100), norm=NORM["layer"])])
    cycles = check(others, 2, maker.program), check(libraries, 2, maker.program)
    assert cycles[0] - cycles[1] == 100 * (8 // normalisers - 2)


@pytest.mark.parametrize("norm", NORM)
def test_both_forms_at_the_ends_of_all_ranges(libraries, norm):
    rng = np.random.default_rng(NORM[norm])
    maker = Maker(1, rng)
    table = rng.integers(-128, 128, 2048).astype(np.int8)
    for _ in range(300):
        align = int(rng.integers(0, 8)) if norm == "group" else 0
        scales = np.stack([
            spread(rng, 16 if norm == "softmax" else 20 + align, 24),
            rng.integers((1 << 15) + 1, (1 << 17) + 1, 24), rng.integers(-18, 50, 24),
        ], axis=1).astype(np.int32)  # fmt: skip
        entry = maker.entry(norm=NORM[norm], norm_groups=16, wide=(int(rng.integers(2)), 0))
        x = maker.execution(entry, 0, 0, rng, 1, 1)
        constants = np.frombuffer(x.parameters()[-64:], np.uint8)
        fast, plain = np.zeros(64, np.uint8), np.zeros(64, np.uint8)
        integers = np.array(list(words(entry)), np.int32)
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (
            integers, x.xs, constants, scales, scales[16:].copy(), table, fast, plain,
        )]  # fmt: skip
        libraries["fast"].t_transform(pointers[0], align, *pointers[1:])
        assert np.array_equal(fast, plain)


def test_memories_are_checked(libraries):
    for changed, message in (
        ({"groups": (321, 0)}, "ROW_GROUPS"),
        ({"norm": NORM["layer"], "row_in": Addr(1024)}, "row statistics outside"),
        ({"stats": STATS_LAYER, "row_out": Addr(1024), "stat_words": 1}, "row statistics outside"),
        ({"stats": STATS_GROUP, "stats_out": Addr(1022), "stat_words": 1, "stats_pitch_out": 4},
         "statistics memory"),
        ({"stats": STATS_SOFTMAX, "stat_words": 65, "rows_ahead": 65}, "than FIFO rw holds"),
        ({"stats": STATS_GROUP, "stats_out": Addr(2), "stat_words": 1, "stats_pitch_out": 4},
         "statistics memory"),
        ({"norm": NORM["group"], "norm_groups": 1, "group_size": 8, "channels": (8, 0), "n": 8,
          "stats_base": (Addr(1024), Addr())}, "statistics memory"),
        ({"norm": NORM["group"], "norm_groups": 129, "group_size": 1, "channels": (129, 0),
          "items": 2, "item_octets": 1, "n": 1, "shape": Maker(4, None).shape(fill=2)}, "SCALES"),
    ):  # fmt: skip
        maker = Maker(4, np.random.default_rng(3))
        maker.segment([maker.entry(**changed)])
        for lib in libraries.values():
            assert message in run_on(lib, 4, maker.program, 0)[2]


# --- faults that a test has to notice -----------------------------------------------------------

# (header, right, wrong)
FAULTS = {
    "boundary": ("pre_sums", "l < end", "l <= end"),
    "align": ("pre_sums", "2 * align", "align"),
    "second word": ("pre_sums", "b < first ? 1 : 0", "b < first ? 0 : 0"),
    "set": ("pre_sums", "lane - used + k * size", "lane + k * size"),
    "last set": ("pre_sums", "groups_left <= 0", "groups_left < 0"),
    "add": ("pre_sums", "add = entry.stats == STATS_GROUP_ADD", "add = false"),
    "next source": ("pre_sums", "if (++source == entry.sources) source = 0;", ""),
    "maximum": ("pre_sums", "most(largest,", "least(largest,"),
    "row epsilon": ("pre_scale", "int64_at(header, 1)", "int64_at(header, 0)"),
    "pixel": ("pre_rows", "word.s[pixel + k]", "word.s[k]"),
    "rows sent": ("pre_rows", "i = entry.rows_sent", "i = 0"),
    "rows ahead": ("pre_rows", "octet < entry.rows_ahead", "octet <= entry.rows_ahead"),
    "parity": ("pre_apply", "item & 1 ? sets : 0", "item & 1 ? 0 : sets"),
    "last block": ("pre_apply", "last_block ? 1 : 0", "last_block ? 0 : 1"),
    "slot": ("pre_apply", "source = slot = 0", "source = 0"),
    "mask": ("pre_apply", "mask != 255", "mask == 1"),
    "first ring": ("pre_apply", "least(shape.per_round, shape.units)", "shape.units"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_caught(fault, tmp_path):
    header, right, wrong = FAULTS[fault]
    shutil.copytree(ROOT / "hls/kernels", tmp_path / "kernels")
    path = tmp_path / f"kernels/{header}.hpp"
    text = path.read_text()
    assert text.count(right) == 1
    path.write_text(text.replace(right, wrong))
    lib = compiled(tmp_path)
    for seed in range(4):
        maker = Maker(4, np.random.default_rng([1, seed]))
        maker.group_norm([20, 44], 16, 3, False)
        maker.group_norm([48], 6, 1, False)
        maker.row_norm("layer", 1, 2, 1)
        maker.row_norm("softmax", 1, 2, 0)
        maker.rows_ahead("layer", 1, 2, 5, 3)
        maker.ring(RING_K, "none")
        maker.ring(RING_V, "softmax")
        want = wanted(4, maker.program)
        px, _, error = run_on(lib, 4, maker.program, len(want))
        if error or not np.array_equal(px, want):
            return
    pytest.fail("the fault was not noticed")


def compiled(folder: Path) -> ctypes.CDLL:
    target = folder / "pre.so"
    command = ["g++", *BASE_FLAGS, "-O0", f"-I{folder}", str(SOURCE), "-o", str(target)]
    subprocess.run(command, check=True, timeout=300)
    return ctypes.CDLL(str(target))
