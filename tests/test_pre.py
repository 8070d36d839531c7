"""pre: operands, statistics and their order against a model in Python integers."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cpp import BASE_FLAGS, FAST, ROOT, compile_cpp
from prekit import INCLUDE, PLAIN, RANKS, SOURCE, STAGES, Maker, Model, Program, spread

from gen.program.structs import (
    NORM,
    RING_K,
    RING_V,
    STATS_GROUP,
    STATS_LAYER,
    STATS_SOFTMAX,
    Addr,
    words,
)

pytestmark = [
    pytest.mark.csim,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]


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
@pytest.mark.parametrize(("channels", "size"), [c for c in GROUPS if sum(c[0]) <= 192])
def test_group_norm_of_items_in_turn(libraries, channels, size, ranks):
    maker = Maker(ranks, np.random.default_rng([*channels, size, ranks]))
    for items, per_round in ((2, 1), (2, 3), (3, 2), (4, 64)):
        maker.words = 0
        maker.items_in_turn(channels, size, items, per_round)
    check(libraries, ranks, maker.program)


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("norm", ["layer", "softmax"])
def test_row_norms(libraries, norm, ranks):
    maker = Maker(ranks, np.random.default_rng(ranks))
    for uniform in (0, 1):
        for n0, n1 in ((1, 1), (2, 3)):
            for _ in range(3):
                maker.row_norm(norm, n0, n1, uniform)
    for octets, rows in ((1, 1), (7, 3), (70, 64), (140, 128), (128, 128)):
        maker.rows_ahead(norm, 1, 2, octets, rows)
    for runs, octets in ((2, 128), (5, 1), (7, 31)):
        maker.rows_first(norm, runs, octets)
    if norm == "softmax":
        for n0, n1, octets in ((1, 2, 64), (1, 8, 16), (2, 3, 5), (8, 1, 1), (1, 128, 1)):
            maker.rows_queued(n0, n1, octets)
    check(libraries, ranks, maker.program)


def test_rows_that_are_sent_first_are_kept_already(libraries):
    maker = Maker(2, np.random.default_rng(5))
    maker.rows_first("softmax", 1, 4)  # the first run reads what the last one makes
    for lib in libraries.values():
        assert "sent before they are kept" in run_on(lib, 2, maker.program, 0)[2]


def test_queued_rows_are_sent_once_and_read_in_their_order(libraries):
    for n0, n1, octets in ((1, 5, 4), (2, 3, 7)):
        for rows_sent in (0, octets - 1):
            maker = Maker(2, np.random.default_rng(5))
            maker.rows_queued(n0, n1, octets, rows_sent)
            for lib in libraries.values():
                left = n0 * n1 * (octets - rows_sent)
                message = run_on(lib, 2, maker.program, 0)[2]
                assert f"FIFO rw: {left} tokens left over" in message
        maker = Maker(2, np.random.default_rng(5))
        maker.rows_queued(n0, n1, octets, backwards=True)
        want = wanted(2, maker.program)
        for lib in libraries.values():
            px, _, error = run_on(lib, 2, maker.program, len(want))
            assert error == ""
            assert not np.array_equal(px, want)


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
@pytest.mark.parametrize("uniform", [0, 1])
@pytest.mark.parametrize("table", [0, 1])
def test_joined_products(libraries, ranks, uniform, table):
    maker = Maker(ranks, np.random.default_rng([ranks, uniform, table]))
    for pairs, octets, rows in ((2, 1, 0), (2, 6, 6), (5, 4, 3), (3, 128, 128), (4, 32, 0)):
        maker.joined(pairs, octets, rows, uniform, table)
        maker.plain((0, 1), 1)
    check(libraries, ranks, maker.program)


def test_joined_products_take_a_word_per_cycle(libraries):
    """Ring weights, fill; constants are sent once, so that nothing else takes time."""
    maker, cycles = Maker(2, np.random.default_rng(4)), []
    shape = maker.shape(units=3, per_round=3, fill=40, ring=RING_K, ring_words=4, pv_units=1,
                        pv_every=2, pv_words=6)  # fmt: skip
    entry = maker.entry(
        shape=shape, sources=2, groups=(4, 2), uniform=1, table=1, pp_once=1,
        norm=NORM["softmax"], row_in=Addr(0), row_out=Addr(0), stats=STATS_SOFTMAX, stat_words=40,
    )  # fmt: skip
    for runs in (2, 3):
        maker = Maker(2, np.random.default_rng(4))
        maker.segment([maker.entry(row_out=Addr(0), stats=STATS_SOFTMAX, stat_words=40)])
        maker.segment([entry], 1, runs)
        cycles.append(check(libraries, 2, maker.program))
    assert cycles[1] - cycles[0] <= 40 * (4 + 2) + 2 * 4 + 6 + STAGES + 4


@pytest.mark.parametrize("ranks", RANKS)
def test_programs_of_everything(libraries, ranks):
    for seed in range(6):
        rng = np.random.default_rng([seed, ranks])
        maker = Maker(ranks, rng)
        for _ in range(8):
            kind = int(rng.integers(9))
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
            elif kind == 5:
                maker.rows_ahead("layer", 2, 1, 9, int(rng.integers(1, 10)))
            elif kind == 6:
                maker.rows_first("softmax", int(rng.integers(2, 5)), int(rng.integers(1, 20)))
            elif kind == 7:
                n0, n1, octets = (int(n) for n in rng.integers(1, (3, 5, 17)))
                maker.rows_queued(n0, n1, octets)
            else:
                octets = int(rng.integers(1, 20))
                maker.joined(int(rng.integers(2, 5)), octets, int(rng.integers(octets + 1)))
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


def test_an_octet_of_a_softmax_per_cycle(libraries):
    cycles = []
    for octets in (100, 200):
        maker = Maker(2, np.random.default_rng(5))
        maker.segment([maker.entry(stats=STATS_SOFTMAX, stat_words=octets)])
        maker.segment([maker.entry(shape=maker.shape(fill=1))])
        cycles.append(check(libraries, 2, maker.program))
    assert cycles[1] - cycles[0] == 100


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
        queries = int(rng.random() < 0.2)  # of a joined execution
        x = maker.execution(entry, 0, 0, rng, 1, 1)
        constants = np.frombuffer(x.parameters()[-64:], np.uint8)
        fast, plain = np.zeros(64, np.uint8), np.zeros(64, np.uint8)
        integers = np.array(list(words(entry)), np.int32)
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (
            integers, x.xs, constants, scales, scales[16:].copy(), table, fast, plain,
        )]  # fmt: skip
        libraries["fast"].t_transform(pointers[0], align, queries, *pointers[1:])
        assert np.array_equal(fast, plain)


def test_memories_are_checked(libraries):
    for changed, message in (
        ({"groups": (321, 0)}, "ROW_GROUPS"),
        ({"norm": NORM["layer"], "row_in": Addr(1024)}, "row statistics outside"),
        ({"stats": STATS_LAYER, "row_out": Addr(1024), "stat_words": 1}, "row statistics outside"),
        ({"stats": STATS_GROUP, "stats_out": Addr(1022), "stat_words": 1, "stats_pitch_out": 4},
         "statistics memory"),
        ({"stats": STATS_SOFTMAX, "stat_words": 129, "rows_ahead": 129}, "than FIFO rw holds"),
        ({"norm": NORM["softmax"], "rows_first": 1,
          "shape": Maker(4, None).shape(fill=129)}, "than FIFO rw holds"),
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
    "sums too early": ("pre_sums", "item > 0) keep_group_sums", "item > 1) keep_group_sums"),
    "item of the sums": ("pre_sums", "? entry.stats_pitch_out : P::RANKS", "? 1 : P::RANKS"),
    "round of the sums": ("pre_sums", "round_address += inner_count * ", "round_address += "),
    "last round of sums": ("pre_sums", "inner_count = least(per_round, to_come)",
                           "inner_count = per_round"),
    "next source": ("pre_sums", "if (++source == entry.sources) source = 0;", ""),
    "maximum": ("pre_sums", "other > largest ?", "other < largest ?"),
    "pixel of the maximum": ("pre_rows", "maxima.m[k]", "maxima.m[0]"),
    "row epsilon": ("pre_scale", "int64_at(header, 1)", "int64_at(header, 0)"),
    "pixel": ("pre_rows", "word.s[pixel + k]", "word.s[k]"),
    "rows sent": ("pre_rows", "i = entry.rows_sent", "i = 0"),
    "rows first": ("pre_rows", "reads && !first", "reads"),
    "rows of the execution before": ("pre_rows", "made = rows_made(entry, i0, i1)",
                                     "made = rows_made(entry, i0, 0)"),
    "last rows": ("pre_rows", "if (made.octets > 0) keep_row_scales<P>(made, memory, rk_s, mk_s, "
                  "rw_s);\n}", "}"),
    "rows ahead": ("pre_rows", "octet < made.ahead", "octet <= made.ahead"),
    "parity": ("pre_apply", "item & 1 ? sets : 0", "item & 1 ? 0 : sets"),
    "last block": ("pre_apply", "last_block ? 1 : 0", "last_block ? 0 : 1"),
    "slot": ("pre_apply", ": first_slots + block", ": block"),
    "slots": ("pre_apply", "uniform ? 2 : entry.groups[0]",
              "uniform ? 1 : entry.groups[0]"),
    "uniform queries": ("pre_apply", "entry.uniform && source == 0", "entry.uniform"),
    "plain": ("pre_apply", "joined && source == 1", "joined && source == 2"),
    "plain table": ("pre_apply", "if (entry.table && !place.plain)", "if (entry.table)"),
    "plain shift": ("pre_apply", "place.plain ? entry.plain_shift", "place.plain ? entry.shift"),
    "words of V": ("sequence", "pv * shape.pv_words +", "pv * shape.ring_words +"),
    "constants of the one before": ("pre_apply", "entry.pp_once == 2 ||", ""),
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
        maker.items_in_turn([40, 24], 16, 3, 3)
        maker.items_in_turn([200], 8, 2, 5)
        maker.row_norm("layer", 1, 2, 1)
        maker.row_norm("softmax", 1, 2, 0)
        maker.rows_ahead("layer", 1, 2, 5, 3)
        maker.ring(RING_K, "none")
        maker.ring(RING_V, "softmax")
        maker.joined(3, 4, 2, uniform=seed % 2)
        maker.rows_queued(2, 3, 5)
        maker.rows_first("softmax", 3, 5)
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
