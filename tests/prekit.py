"""Executions of pre, drawn at random, and what it makes of them in Python integers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np
from cpp import FAST, ROOT

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
)
from gen.reference.normalise import reciprocal_deviation, scale_deviations
from gen.reference.rounding import clamp, rshr

SOURCE = ROOT / "tests/kernels/pre.cpp"
INCLUDE = f"-I{ROOT / 'hls'}"
PLAIN = (*FAST, "-DLDA_PLAIN", INCLUDE)
RANKS = (1, 2, 4)
STAGES = 8  # STAGES_PRE
ROWS_AHEAD = 128  # DEPTH_RW


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
        if self.entry.pp_once == 2 or (self.entry.pp_once and (self.i0 or self.i1)):
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
        words_in = iter(x.xs)
        px = [next(words_in)[0] for _ in range(ring_words(shape, 0))]
        for octet in range(shape.fill):
            slot = 0
            for s in range(e.sources):
                for block in range(groups[s]):
                    last = block == groups[s] - 1
                    at = int(last) if e.uniform and s == 0 else slot
                    px.append(self.operands(x, next(words_in), s, at, octet, z_scales))
                    slot = 2 if e.uniform and s == 0 and last else slot + 1
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
        # the queries of a joined execution
        plain = shape_is_joined(e.shape) and source == 1
        if plain:
            z = q
        elif e.norm == NORM["group"]:
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
        shift = e.plain_shift if plain else e.shift
        t = rshr(z * x.gamma[slot].astype(np.int64) + x.beta[slot], shift)
        looked_up = e.table and not plain
        value = x.table[clamp(t, 11) + 1024] if looked_up else clamp(t, 8).astype(np.int8)
        used = np.unpackbits(x.mask[slot : slot + 1], bitorder="little").astype(bool)
        return np.where(used, value, np.int8(0)).view(np.uint8).reshape(64)

    def keep(self, x: Execution) -> None:
        e = x.entry
        if e.stats in (STATS_GROUP, STATS_GROUP_ADD):
            for k, (local, item) in enumerate(sums_order(e)):
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


def shape_is_joined(shape: Shape) -> bool:
    return shape.pv_units > 0


def ring_words(shape: Shape, round_: int) -> int:
    """Ring weights of a round; V's are in front of K's where the products are joined, whatever the
    order of their units.
    """
    units = [shape.ring_words if shape.ring else 0] * shape.units
    units[: shape.pv_units] = [shape.pv_words] * shape.pv_units
    return sum(units[round_ * shape.per_round : (round_ + 1) * shape.per_round])


def sums_order(e: PreEntry) -> list[tuple[int, int]]:
    """(local group, item) of an execution's sums as they come."""
    groups, gates = e.stat_words // e.items_out, e.shape.gates
    if not e.by_item:
        return [divmod(k, e.items_out) for k in range(e.stat_words)]
    assert groups == e.shape.units // gates
    rounds = range(0, groups, e.shape.per_round // gates)
    return [
        (group, item)
        for first in rounds
        for item in range(e.items_out)
        for group in range(first, min(groups, first + rounds.step))
    ]


def scale_of(total: int, square: int, n: int, eps: int) -> tuple[int, int, int]:
    r, e = reciprocal_deviation(n * square - total * total + eps, n)
    return (total << 4) // n, r, e


def served(x: Execution, before: Execution) -> Execution:
    """With the first of the constants that the execution before has had."""
    slots = len(x.mask)
    assert slots <= len(before.mask)
    assert x.entry.table == before.entry.table
    return replace(
        x, table=before.table, gamma=before.gamma[:slots], beta=before.beta[:slots],
        group=before.group[:slots], mask=before.mask[:slots],
    )  # fmt: skip


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
            "plain_shift": int(self.rng.integers(1, 41)),
            "table": int(self.rng.integers(2)), "uniform": 0, "stats": STATS_NONE,
            "stats_out": Addr(), "stats_pitch_out": 0, "items_out": 1, "row_out": Addr(),
            "stat_words": 0, "by_item": 0, "sums_left": 0, "sums_before": 0, "rows_ahead": 0,
            "rows_sent": 0, "rows_first": 0, "pp_once": 0,
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
        for x in new:
            # words that are not sent are those of the execution before
            kept = x.entry.pp_once and not x.parameters()
            program.executions.append(served(x, program.executions[-1]) if kept else x)

    def execution(self, e, i0, i1, rng, count, row_n) -> Execution:
        groups = sum(e.groups[: e.sources])
        slots = (2 if e.uniform else e.groups[0]) + groups - e.groups[0]
        ring = sum(ring_words(e.shape, k) for k in range(e.shape.units))
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

    def items_in_turn(self, channels: list[int], group_size: int, items: int,
                      per_round: int) -> None:  # fmt: skip
        """A writer whose sums come item by item, and are left to its reader but for one item's;
        the reader normalises sums of its own beside them, and is a writer like that itself.
        """
        rng, pixels = self.rng, int(self.rng.choice([16, 64, 256]))
        first = [
            self.write_group(items, c, int(rng.integers(0, 8)), pixels, False) for c in channels[1:]
        ]
        local, base = self.room(items, channels[0])
        tensors = [
            {"local": local, "channels": channels[0], "align": int(rng.integers(0, 8)),
             "base": base, "pitch": local * self.ranks}, *first,
        ]  # fmt: skip
        if rng.integers(2):
            tensors.reverse()
        gates = int(rng.integers(1, 3))
        writer = self.entry(
            shape=self.shape(units=gates * local, per_round=gates * per_round, gates=gates),
            stats=STATS_GROUP, stats_out=Addr(base), stats_pitch_out=local * self.ranks,
            items_out=items, stat_words=local * items, by_item=1,
        )  # fmt: skip
        each = local - (local - 1) // per_round * per_round
        item_octets, two = int(rng.integers(1, 9)), (tensors * 2)[:2]
        reader = self.entry(
            shape=self.shape(units=local, per_round=per_round, fill=items * item_octets),
            items=items, item_octets=item_octets, sources=len(channels),
            groups=tuple(t["local"] for t in two), align=tuple(t["align"] for t in two),
            channels=tuple(t["channels"] for t in two),
            stats_base=tuple(Addr(t["base"]) for t in two),
            stats_pitch=tuple(t["pitch"] for t in two), norm=NORM["group"],
            norm_groups=sum(channels) // group_size, group_size=group_size, n=group_size * pixels,
        )  # fmt: skip
        middle = replace(
            reader, stats=STATS_GROUP, stats_out=writer.stats_out, items_out=items, by_item=1,
            stats_pitch_out=writer.stats_pitch_out, stat_words=writer.stat_words,
        )  # fmt: skip
        left = each * (items - 1)
        self.segment([
            replace(writer, sums_left=left),
            replace(middle, sums_before=each, sums_left=left),
            replace(reader, sums_before=each),
        ], count=pixels)  # fmt: skip

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

    def rows_first(self, norm: str, runs: int, octets: int) -> None:
        """Executions that make rows, as many that read them, the first of which sends them before
        the last ones are kept, and others that make rows which nobody reads.
        """
        rng = self.rng
        count, local = int(rng.choice([1, 8, 96])), int(rng.integers(1, 4))
        where = Addr(int(rng.integers(0, 300)), 0, octets)
        stats = STATS_LAYER if norm == "layer" else STATS_SOFTMAX
        writer = self.entry(stats=stats, row_out=where, stat_words=octets)
        self.segment([writer], 1, runs, count, self.ranks * count)
        reader = self.entry(
            shape=self.shape(fill=octets), groups=(local, 0), norm=NORM[norm], row_in=where,
            rows_first=1,
        )  # fmt: skip
        self.segment([reader], 1, runs)
        self.segment([writer], 1, 1, count, self.ranks * count)

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

    def rows_queued(self, n0: int, n1: int, octets: int, rows_sent: int | None = None,
                    backwards: bool = False) -> None:  # fmt: skip
        """Products with K, and then as many with V that read their rows in the same order: all of
        them are sent ahead. Wrong are another ``rows_sent`` of the readers, and ``backwards``.
        """
        rng, runs = self.rng, n0 * n1
        assert runs * octets <= ROWS_AHEAD
        step = octets + int(rng.integers(0, 3))
        where = read = Addr(int(rng.integers(0, 300)), n1 * step, step)
        if backwards:
            read = Addr(where.at(n0 - 1, n1 - 1), -n1 * step, -step)
        units, local = int(rng.integers(1, 4)), int(rng.integers(1, 4))
        shape = self.shape(units=units, per_round=int(rng.integers(1, units + 1)), fill=octets)
        keys = replace(shape, ring=RING_K, ring_words=self.ranks * int(rng.integers(1, 3)))
        values = replace(shape, ring=RING_V, ring_words=2 * int(rng.integers(1, 4)))
        writer = self.entry(
            shape=keys, groups=(local, 0), wide=(0, 0), pp_once=int(rng.integers(2)),
            stats=STATS_SOFTMAX, row_out=where, stat_words=octets, rows_ahead=octets,
        )  # fmt: skip
        reader = self.entry(
            shape=values, groups=(local, 0), uniform=int(rng.integers(2)),
            pp_once=int(rng.integers(2)), norm=NORM["softmax"], row_in=read,
            rows_sent=octets if rows_sent is None else rows_sent,
        )  # fmt: skip
        self.segment([writer], n0, n1)
        self.segment([reader], n0, n1)

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

    def joined(self, pairs: int, octets: int, rows: int = 0, uniform: int | None = None,
               table: int | None = None) -> None:  # fmt: skip
        """Products of ``pairs`` pairs (item, head): the first with K, executions of both products,
        the constants of which come once, and the last one with V, which takes its part of them.
        ``rows`` of the maxima are sent ahead.
        """
        rng = self.rng
        uniform = int(rng.integers(2)) if uniform is None else uniform
        table = int(rng.integers(2)) if table is None else table
        of_v, of_k = (int(n) for n in rng.integers(1, 5, 2))
        every = int(rng.integers(1, 4))
        of_k += (of_v - 1) * (every - 1)
        groups = tuple(int(n) for n in rng.integers(1, 6, 2))
        pv_words, k_words = 2 * int(rng.integers(1, 9)), self.ranks * int(rng.integers(1, 4))
        keys = self.shape(
            units=of_k, per_round=of_k, octets=octets, fill=octets, ring=RING_K, ring_words=k_words
        )
        both = replace(
            keys, units=of_v + of_k, per_round=of_v + of_k, pv_units=of_v, pv_every=every,
            pv_steps=pv_words // 2, pv_words=pv_words,
        )  # fmt: skip
        values = replace(
            keys, units=of_v, per_round=int(rng.integers(1, of_v + 1)), ring=RING_V,
            ring_words=pv_words,
        )  # fmt: skip
        base = int(rng.integers(0, 1024 - pairs * octets + 1))
        # pairs of two batch items have entries of their own
        first = int(rng.integers(1, pairs))
        wide = tuple(int(n) for n in rng.integers(0, 2, 2))

        def made(pair: int) -> dict:
            return {"stats": STATS_SOFTMAX, "stat_words": octets, "rows_ahead": rows,
                    "row_out": Addr(base + pair * octets, 0, octets)}  # fmt: skip

        def read(pair: int) -> dict:
            return {"norm": NORM["softmax"], "row_in": Addr(base + pair * octets, 0, octets),
                    "groups": groups, "wide": wide, "uniform": uniform, "table": table,
                    "rows_sent": rows}  # fmt: skip

        self.segment([self.entry(
            shape=keys, groups=groups[1:] * 2, wide=wide[1:] * 2, table=0, **made(0)
        )])  # fmt: skip
        joined = self.entry(shape=both, sources=2, **made(1), **read(0), pp_once=1)
        self.segment([joined], 1, first)
        if first < pairs - 1:
            # the same constants serve: but for them, nothing need be the same
            other = self.entry(
                shape=replace(both, fill=octets), sources=2, **made(first + 1), **read(first),
                pp_once=2,
            )  # fmt: skip
            self.segment([other], 1, pairs - 1 - first)
        self.segment([self.entry(shape=values, **read(pairs - 1), pp_once=2)])
