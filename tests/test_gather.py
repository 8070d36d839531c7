"""gather and reduce: all ranks together against a model of what each of them has to receive."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from cpp import BASE_FLAGS, FAST, ROOT, compile_cpp

from gen.program.structs import (
    RING_K,
    RING_NONE,
    RING_V,
    GatherEntry,
    ReduceEntry,
    Segment,
    Shape,
    words,
)

pytestmark = [
    pytest.mark.csim,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]

SOURCE = ROOT / "tests/kernels/gather.cpp"
INCLUDE = f"-I{ROOT / 'hls'}"
RANKS = (1, 2, 4)


@dataclass
class Program:
    segments: list[Segment] = field(default_factory=list)
    entries: list[GatherEntry] = field(default_factory=list)

    def add(self, entry, n0: int = 1, n1: int = 1) -> None:
        self.segments.append(Segment(len(self.entries), 1, n0, n1))
        self.entries.append(entry)

    def executions(self) -> list[GatherEntry]:
        return [
            self.entries[s.first + k]
            for s in self.segments
            for _ in range(s.n0 * s.n1)
            for k in range(s.count)
        ]


def entry(groups=(1, 0), sources=1, row_sums=0, ring_groups=0, ring_valid=0, ring_first=0, **shape):
    values = {
        "units": 1, "per_round": 1, "gates": 1, "octets": 4, "steps": 1, "lead": 1, "fill": 1,
        "ring": RING_NONE, "ring_words": 0,
    }  # fmt: skip
    return GatherEntry(
        Shape(**(values | shape)), sources, groups, ring_groups, ring_valid, ring_first, row_sums
    )


def k_entry(ranks: int, valid: int, spare: int = 0, first: int = 0, **changed):
    """K weights of a head whose last group is ``valid`` - 1, with ``first`` subs in front of it and
    ``spare`` local groups behind it.
    """
    local = -(-valid // ranks) + spare
    return entry(
        ring=RING_K, ring_groups=local, ring_valid=valid, ring_words=ranks * local,
        ring_first=first, steps=(valid + 1) // 2 - first, **changed,
    )  # fmt: skip


def v_entry(steps: int, **changed):
    return entry(ring=RING_V, ring_words=2 * steps, steps=steps, **changed)


def joined_entry(
    ranks: int,
    units: tuple[int, int],
    steps: int,
    valid: int,
    spare: int = 0,
    every: int = 1,
    **changed,
):
    """V weights of some units, ``steps`` each, then K weights of the others; sources of both."""
    return k_entry(
        ranks, valid, spare, units=sum(units), per_round=sum(units), pv_units=units[0],
        pv_every=every, pv_steps=steps, pv_words=2 * steps, sources=2, row_sums=1, **changed,
    )  # fmt: skip


def random_joined(rng, ranks: int):
    of_v, every = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    of_k = (of_v - 1) * (every - 1) + int(rng.integers(1, 9))
    return joined_entry(
        ranks, (of_v, of_k), int(rng.integers(1, 9)), int(rng.integers(1, 9)),
        int(rng.integers(0, 2)), every, fill=int(rng.integers(1, 40)),
        groups=(int(rng.integers(1, 4)), int(rng.integers(1, 4))),
    )  # fmt: skip


def halves(e: GatherEntry) -> GatherEntry:
    """The same for an array that takes two steps to a weight row of the ring."""
    return replace(
        e, shape=replace(e.shape, steps=2 * e.shape.steps, pv_steps=2 * e.shape.pv_steps)
    )


# --- the model ----------------------------------------------------------------------------------


def beats_of(e: GatherEntry) -> int:
    return sum(e.groups[: e.sources])


def products(e: GatherEntry) -> list[tuple[int, int, int, int]]:
    """(ring, units, rows of a unit, px words of a unit) of the ring weights, as they come."""
    shape = e.shape
    if shape.ring == RING_NONE:
        return []
    if not shape.pv_units:
        return [(shape.ring, shape.units, shape.steps, shape.ring_words)]
    return [
        (RING_V, shape.pv_units, shape.pv_steps, shape.pv_words),
        (RING_K, shape.units - shape.pv_units, shape.steps, shape.ring_words),
    ]


def px_words(e: GatherEntry) -> int:
    ring = sum(units * unit_words for _, units, _, unit_words in products(e))
    return ring + e.shape.fill * beats_of(e)


def first_words(e: GatherEntry) -> int:
    """Ring weights before the fill: those of round 0."""
    if e.shape.pv_units:
        return px_words(e) - e.shape.fill * beats_of(e)
    return min(e.shape.per_round, e.shape.units) * e.shape.ring_words if e.shape.ring else 0


def wanted(ranks: int, program: Program, px: np.ndarray):
    """(gs, ks, ss) of every rank; px: uint8 [rank, word, 64]."""
    gs: list[list[np.ndarray]] = [[] for _ in range(ranks)]
    ks: list[list[np.ndarray]] = [[] for _ in range(ranks)]
    ss: list[list[np.ndarray]] = [[] for _ in range(ranks)]
    at = 0
    for e in program.executions():
        mine = px[:, at : at + px_words(e)]
        at += px_words(e)
        first = first_words(e)
        last = first + e.shape.fill * beats_of(e)
        fill, ring = mine[:, first:last], np.concatenate([mine[:, :first], mine[:, last:]], 1)
        for r in range(ranks):
            gs[r] += list(fill.transpose(1, 0, 2))
            if e.row_sums:
                # [rank, octet, word, pixel, channel]; source 0
                values = fill.view(np.int8).reshape(ranks, e.shape.fill, -1, 8, 8)
                values = values[:, :, : e.groups[0]]
                ss[r] += list(values.astype(np.int32).sum(axis=(0, 2, 4)))
            at_product = 0
            for kind, units, steps, unit_words in products(e):
                end = at_product + units * unit_words
                words_of = ring[:, at_product:end]
                ks[r] += weight_rows(e, kind, units, steps, ranks, r, words_of)
                at_product = end
    return gs, ks, ss


def weight_rows(
    e: GatherEntry, kind: int, units: int, steps: int, ranks: int, rank: int, ring: np.ndarray
) -> list[np.ndarray]:
    rows = []
    for unit in range(units):
        for step in range(steps):
            row = np.zeros((8, 16), np.uint8)  # output, input
            for half in range(2):
                if kind == RING_V:
                    word = ring[rank, (unit * steps + step) * 2 + half]
                    row[:, 8 * half : 8 * half + 8] = word.reshape(8, 8).T
                elif 2 * (step + e.ring_first) + half < e.ring_valid:
                    local, owner = divmod(2 * (step + e.ring_first) + half, ranks)
                    octet = unit * ranks + rank
                    word = ring[owner, octet * e.ring_groups + local]
                    row[:, 8 * half : 8 * half + 8] = word.reshape(8, 8)
            rows.append(row.reshape(128))
    return rows


# --- runs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    return loaded(compile_cpp(SOURCE, (*FAST, INCLUDE)))


def loaded(path: Path) -> ctypes.CDLL:
    lib = ctypes.CDLL(str(path))
    lib.t_gather.restype = lib.t_reduce.restype = ctypes.c_char_p
    return lib


def call(function, ranks, program, *arrays) -> str:
    segments = np.array([w for s in program.segments for w in words(s)], np.int32)
    entries = np.array([w for e in program.entries for w in words(e)], np.int32)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (segments, entries, *arrays)]
    return function(ranks, pointers[0], len(program.segments), *pointers[1:]).decode()


def run(lib, ranks, program, px, intervals=(1, 1, 1, 1), entries=None):
    """(error, whether gs, ks, ss are those of the model, cycles); ``entries``: of the kernel, where
    they are not those of the model.
    """
    want = wanted(ranks, program, px)
    if entries is not None:
        program = replace(program, entries=entries)
    sizes = [px.shape[1], *(len(part[0]) for part in want)]
    gs = np.zeros((ranks, sizes[1], ranks, 64), np.uint8)
    ks = np.zeros((ranks, sizes[2], 128), np.uint8)
    ss = np.zeros((ranks, sizes[3], 8), np.int32)
    cycles = np.zeros(1, np.int64)
    error = call(lib.t_gather, ranks, program, px, gs, ks, ss, np.array(sizes, np.int32),
                 np.array(intervals, np.int32), cycles)  # fmt: skip
    same = all(
        np.array_equal(made[r], np.array(part[r]).reshape(made[r].shape))
        for made, part in zip((gs, ks, ss), want, strict=True)
        for r in range(ranks)
    )
    return error, same, int(cycles[0])


def random_px(rng, ranks: int, program: Program) -> np.ndarray:
    count = sum(px_words(e) for e in program.executions())
    px = rng.integers(0, 256, (ranks, count, 64)).astype(np.uint8)
    extreme = rng.random(px.shape) < 0.3
    px[extreme] = rng.choice([0, 127, 128, 255], int(extreme.sum()))
    return px


def check(lib, ranks: int, program: Program, seed: int = 0, intervals=(1, 1, 1, 1)) -> int:
    px = random_px(np.random.default_rng(seed), ranks, program)
    error, same, cycles = run(lib, ranks, program, px, intervals)
    assert error == ""
    assert same
    return cycles


@pytest.mark.parametrize("ranks", RANKS)
def test_fill_of_all_ranks(library, ranks):
    program = Program()
    program.add(entry(fill=7), 2, 2)
    program.add(entry((3, 0), fill=5))
    program.add(entry((2, 3), sources=2, fill=4))
    check(library, ranks, program)


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("valid", [1, 2, 3, 4, 5, 7, 8, 11])
def test_rows_of_k(library, valid, ranks):
    program = Program()
    for units, per_round in ((1, 1), (4, 4), (5, 2), (3, 5)):
        program.add(k_entry(ranks, valid, units=units, per_round=per_round, fill=3), 1, 2)
    program.add(k_entry(ranks, valid, spare=2, units=3, per_round=2, fill=2))
    if valid > 2:
        program.add(k_entry(ranks, valid, first=1, units=3, per_round=2, fill=2), 1, 2)
    check(library, ranks, program)


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_rows_of_v(library, steps, ranks):
    program = Program()
    for units, per_round in ((1, 1), (4, 4), (5, 2), (3, 5)):
        program.add(
            v_entry(steps, units=units, per_round=per_round, fill=3, groups=(2, 0), row_sums=1),
            2, 1,
        )  # fmt: skip
    check(library, ranks, program)


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("valid", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_rows_of_joined_products(library, steps, valid, ranks):
    """Between those of K alone and of V alone."""
    program = Program()
    program.add(k_entry(ranks, valid, units=3, per_round=2, fill=3))
    program.add(joined_entry(ranks, (1, 1), steps, valid, fill=5, groups=(1, 2)), 2, 2)
    program.add(joined_entry(ranks, (3, 4), steps, valid, 1, 2, fill=4, groups=(3, 1)), 1, 2)
    program.add(joined_entry(ranks, (2, 5), steps, valid, 0, 5, fill=1, groups=(2, 2)))
    program.add(v_entry(steps, units=3, per_round=2, fill=2, groups=(2, 0), row_sums=1))
    check(library, ranks, program)


@pytest.mark.parametrize("ranks", RANKS)
def test_rows_of_an_array_of_four_bits(ranks):
    """The same rows of bytes: mac makes two of each."""
    narrow = loaded(compile_cpp(SOURCE, (*FAST, INCLUDE, "-DLDA_WEIGHT_BITS=4")))
    program = Program()
    program.add(k_entry(ranks, 5, units=3, per_round=2, fill=3))
    program.add(joined_entry(ranks, (2, 3), 3, 5, 1, 2, fill=5, groups=(1, 2)), 2, 2)
    program.add(v_entry(3, units=3, per_round=2, fill=2, groups=(2, 0), row_sums=1))
    px = random_px(np.random.default_rng(ranks), ranks, program)
    entries = [halves(e) for e in program.entries]
    assert run(narrow, ranks, program, px, entries=entries)[:2] == ("", True)


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("value", [127, 128])
def test_row_sums_of_extremes(library, value, ranks):
    program = Program()
    program.add(entry((40, 0), fill=3, row_sums=1))
    program.add(entry((1, 2), sources=2, fill=2, row_sums=1))
    px = np.full((ranks, sum(px_words(e) for e in program.executions()), 64), value, np.uint8)
    assert run(library, ranks, program, px)[:2] == ("", True)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_of_different_speeds(library, ranks, seed):
    rng = np.random.default_rng([seed, ranks])
    program = Program()
    for _ in range(4):
        kind = int(rng.integers(4))
        common = {
            "units": int(rng.integers(1, 9)), "per_round": int(rng.integers(1, 9)),
            "fill": int(rng.integers(1, 40)), "groups": (int(rng.integers(1, 4)), 0),
        }  # fmt: skip
        if kind == 0:
            program.add(k_entry(ranks, int(rng.integers(1, 9)), **common))
        elif kind == 1:
            program.add(v_entry(int(rng.integers(1, 9)), row_sums=1, **common), 2)
        elif kind == 2:
            program.add(random_joined(rng, ranks), 1, 2)
        else:
            program.add(entry(fill=50))
    check(library, ranks, program, seed, rng.integers(1, 5, 4))


@pytest.mark.parametrize("ranks", RANKS)
def test_one_beat_per_cycle(library, ranks):
    program = Program()
    program.add(k_entry(ranks, 4 * ranks, units=20, per_round=20, fill=300))
    program.add(joined_entry(ranks, (5, 20), 16, 4 * ranks, fill=200, groups=(2, 1)))
    count = sum(px_words(e) for e in program.entries)
    # every process on the way: two stages and a FIFO
    assert check(library, ranks, program) <= count + 3 * (ranks + 2) + 8


@pytest.mark.parametrize("ranks", RANKS)
def test_reduce(library, ranks):
    rng = np.random.default_rng(ranks)
    program = Program()
    for count in (3, 0, 70, 1):
        program.add(ReduceEntry(count), 1, 2)
    total = 2 * (3 + 70 + 1)
    st = rng.integers(0, 256, (ranks, total, 80)).astype(np.uint8)
    sg = np.zeros((ranks, total, ranks, 80), np.uint8)
    cycles = np.zeros(1, np.int64)
    error = call(library.t_reduce, ranks, program, st, sg, np.array([total, total, 0, 0], np.int32),
                 np.array([1, 3, 2, 1], np.int32), cycles)  # fmt: skip
    assert error == ""
    for r in range(ranks):
        assert np.array_equal(sg[r], st.transpose(1, 0, 2))


def test_wrong_ring_words_are_found(library):
    program = Program()
    program.add(entry(ring=RING_V, ring_words=5, steps=2))
    px = np.zeros((4, px_words(program.entries[0]), 64), np.uint8)
    assert "two per step" in run(library, 4, program, px)[0]


# --- faults that a test has to notice -----------------------------------------------------------

FAULTS = {
    "own place": ("link", "all.b[RANK] =", "all.b[RANK ? RANK - 1 : 0] ="),
    "order of ranks": ("link", "more.b[AHEAD + r]", "more.b[AHEAD + N - 1 - r]"),
    "turn": ("gather", "turn == RANK", "turn == 0"),
    "padding": ("gather", "word + 1 < valid", "word < valid"),
    "transposed": ("gather", "transposed ? j * GROUP + o", "transposed ? o * GROUP + j"),
    "own V": ("gather", "beat.b[0] = beat.b[RANK]", "beat.b[0] = beat.b[0]"),
    "row sums": ("gather", "beat_of_octet == 0 ? 0 :", "false ? 0 :"),
    "first round": ("gather", "least(shape.per_round, shape.units)", "shape.units"),
    "tokens of V": ("gather", "has_tokens && i >= first_token", "has_tokens"),
    "V first": ("gather", "joined ? product == 0 :", "joined ? product == 1 :"),
    "steps of V": ("gather", "joined ? shape.pv_steps : shape.steps", "shape.steps"),
    "source of row sums": ("gather", "== entry.groups[0] - 1", "== beats - 1"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_caught(fault, tmp_path):
    header, right, wrong = FAULTS[fault]
    shutil.copytree(ROOT / "hls/kernels", tmp_path / "kernels")
    path = tmp_path / f"kernels/{header}.hpp"
    text = path.read_text()
    assert text.count(right) == 1
    path.write_text(text.replace(right, wrong))
    target = tmp_path / "gather.so"
    command = ["g++", *BASE_FLAGS, "-O0", "-w", f"-I{tmp_path}", str(SOURCE), "-o", str(target)]
    subprocess.run(command, check=True, timeout=300)
    program = Program()
    program.add(k_entry(4, 5, units=3, per_round=2, fill=3))
    program.add(v_entry(2, units=3, per_round=2, fill=3, groups=(2, 0), row_sums=1))
    program.add(joined_entry(4, (2, 3), 4, 5, 0, 3, fill=3, groups=(2, 1)))
    px = random_px(np.random.default_rng(7), 4, program)
    error, same, _ = run(loaded(target), 4, program, px)
    assert error or not same
