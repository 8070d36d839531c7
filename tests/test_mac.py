"""mac: accumulators of random programs against numpy; both forms agree to the cycle."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from cpp import FAST, compile_cpp
from mackit import (
    NIBBLES,
    PLAIN,
    Layer,
    Program,
    assert_right,
    copied_kernels,
    in_turns,
    joined,
    joined_layer,
    library,
    pointer,
    pointwise,
    random_layer,
    random_program,
    single,
    up_to,
)

from gen.program.structs import RING_K, RING_NONE, RING_V, Segment


def both_forms(ranks: int, bits: int = 8) -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """The fast one and the plain one, with some outputs in the fabric."""
    defines = [f"-DLDA_RANKS={ranks}", *([NIBBLES] if bits == 4 else [])]
    fabric = 3 if bits == 8 else {1: 3, 2: 0, 4: 2}[ranks]
    return library(*FAST, *defines), library(*PLAIN, *defines, f"-DLDA_FABRIC={fabric}")


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("seed", range(8))
def test_accumulators_and_cycles_of_both_forms(ranks, seed):
    rng = np.random.default_rng([ranks, seed])
    fast, plain = both_forms(ranks)
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
    fast, plain = both_forms(ranks, 4)
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


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_joined_products_between_others(ranks, bits, turns):
    """K alone, joined twice, V alone, weights from ws, and all of that again."""
    rng = np.random.default_rng([ranks, bits, turns])
    fast, plain = both_forms(ranks, bits)
    for extreme in (False, True):
        layers = [
            random_layer(rng, ranks, 32, "plain", RING_K, bits),
            joined_layer(rng, ranks, 32, bits, turns),
            random_layer(rng, ranks, 32, "plain", RING_V, bits),
            random_layer(rng, ranks, 32, "stride", RING_NONE, bits),
        ]
        assert in_turns(layers[1]) == turns
        layers.insert(1, layers[1])
        order = [0, 1, 2, 3, 4] * 2
        executions = [layers[k].execution(rng, extreme) for k in order]
        program = Program([Segment(0, 5, 1, 2)], layers, executions, order)
        for speed in ((1, 1, 1, 1), (1, 5, 2, 1), (5, 1, 1, 2), (1, 1, 1, 0)):
            one, other = program.run(fast, speed), program.run(plain, speed)
            assert_right(program, one)
            assert_right(program, other)
            assert one.cycles == other.cycles


@pytest.mark.parametrize("ends", [(-128, -128), (-128, 127), (127, -128), (127, 127)])
@pytest.mark.parametrize("bits", [8, 4])
def test_joined_products_of_extremes(bits, ends):
    """All operands one value, all weights another: the largest sums."""
    layer = joined(2, (2, 3), 3, (15, 4), bits)
    one = layer.execution(np.random.default_rng(0), False)
    beats, rows = np.full_like(one.beats, ends[0]), np.full_like(one.rows, ends[1])
    of_group = ends[0] * ends[1] * 8
    sums = np.repeat([15 * of_group, 4 * of_group], [2 * 4, 3 * 4])  # units x octets of a tile
    acc = np.tile(sums, 3)[:, None, None] * np.ones((1, 8, 8), np.int64)
    execution = replace(one, beats=beats, rows=rows, acc=acc.astype(np.int32))
    program = Program([Segment(0, 1, 2)], [layer], [execution] * 2, [0, 0])
    for lib in both_forms(2, bits):
        assert_right(program, program.run(lib))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_units_with_v_between_those_with_k(ranks, bits):
    """All that is between two with V, queries of heads that begin at any rank, odd groups."""
    rng = np.random.default_rng([ranks, bits])
    libraries = both_forms(ranks, bits)
    for of_v, every, phase in product((1, 2, 4), (1, 2, 3), range(ranks)):
        units = of_v, (of_v - 1) * (every - 1) + int(rng.integers(1, 4))
        groups = int(rng.integers(1, 8)), int(rng.integers(1, 5))
        layer = joined(ranks, units, 3, groups, bits, every, phase)
        assert layer.entry.sub_base[1] == -(phase // 2)
        execution = layer.execution(rng, False)
        program = Program([Segment(0, 1, 2)], [layer], [execution] * 2, [0, 0])
        runs = [program.run(lib) for lib in libraries]
        for run in runs:
            assert_right(program, run)
        assert runs[0].cycles == runs[1].cycles


# text of a header, the same with a fault; in which forms
BOTH = ("-DLDA_PLAIN", "-DLDA_FAST")
JOINED_FAULTS = {
    "subs of V": ("of_v ? job.pv_first_sub : 0;", "of_v ? 0 : 0;", BOTH),
    "sub bases": ("of_v ? job.pv_first_sub : 0;", "of_v ? 0 : entry.pv_subs;", BOTH),
    "rows of K behind those of V": ("weight_row = job.first_row;", "weight_row = 0;", BOTH),
    "rows of V from the start": ("unit = pv_row = 0;", "unit = 0;", BOTH),
    "row of the unit": ("of_v ? pv_row : weight_row", "of_v ? weight_row : pv_row", BOTH),
    "steps of V": ("of_v ? shape.pv_steps : shape.steps", "shape.steps", BOTH),
    "V first": ("products.of_v(shape, unit);", "unit < shape.pv_units;", BOTH),
    "every tile": ("products.start();", "", BOTH),
    "operands of the unit": ("of_v != operands_of_v", "(of_v && !operands_of_v)", BOTH[1:]),
    "odd octets": ("result[(leaving + 1) * GROUP", "result[leaving * GROUP", BOTH[1:]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "form"), [(k, f) for k, v in JOINED_FAULTS.items() for f in v[2]]
)
def test_a_wrong_joined_product_is_caught(fault, form, tmp_path):
    right, wrong, _ = JOINED_FAULTS[fault]
    program = single(joined(4, (3, 7), 3, (7, 2), every=3, phase=3))
    for lib in both_forms(4):
        assert_right(program, program.run(lib))
    folder = copied_kernels(tmp_path / fault.replace(" ", "_"))
    header = folder / "hls/kernels/mac.hpp"
    text = header.read_text()
    assert text.count(right) == 1
    header.write_text(text.replace(right, wrong))
    defines = ("-O1", form, "-DLDA_RANKS=4", f"-DFOLDER={folder.name}")
    broken = ctypes.CDLL(str(compile_cpp(folder / "tests/kernels/mac.cpp", defines)))
    run = program.run(broken)
    want, valid = program.expected()
    assert run.status == 0
    assert not np.array_equal(run.acc[valid], want[valid])


@pytest.mark.parametrize("form", [FAST, PLAIN])
def test_two_words_leave_in_a_cycle(form):
    """A unit takes as many cycles as steps, PP/16 at least: the words of the one before leave."""
    lib = library(*form, "-DLDA_RANKS=1")
    wide = library(*form, "-DLDA_RANKS=1", "-DLDA_PP=64")

    def of_64(tiles: int, groups: int) -> Layer:
        entry = pointwise(1, 20, 20, 2 * tiles, groups).entry
        return Layer(replace(entry, shape=replace(entry.shape, lead=8)), 64, 1)

    def cycles_of_six_tiles(lib, make) -> int:
        runs = [single(make(tiles)).run(lib, (1, 1, 1, 0)) for tiles in (2, 8)]
        assert all(run.status == 0 for run in runs), [run.text for run in runs]
        return runs[1].cycles - runs[0].cycles

    for groups in (1, 3, 5, 6, 9):
        steps = -(-groups // 2)
        # more than the fill of a tile takes
        made = cycles_of_six_tiles(lib, lambda tiles, n=groups: pointwise(1, 20, 20, tiles, n))
        assert made == 6 * 20 * max(steps, 2)
        made = cycles_of_six_tiles(wide, lambda tiles, n=groups: of_64(tiles, n))
        assert made == 6 * 20 * max(steps, 4)
    for units, groups in (((2, 20), (7, 1)), ((20, 2), (1, 7)), ((6, 20), (16, 4))):
        cycles = 6 * sum(n * max(-(-g // 2), 2) for n, g in zip(units, groups, strict=True))
        for every in {1, 1 + units[1] // units[0]}:
            made = cycles_of_six_tiles(
                lib, lambda tiles, u=units, g=groups, e=every: joined(1, u, tiles, g, every=e)
            )
            assert made == cycles


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


@pytest.mark.parametrize(
    "layer",
    [pointwise(2, 4, 2, 3, 5), joined(2, (2, 3), 3, (5, 4), every=2)],
    ids=["alone", "joined"],
)
@pytest.mark.parametrize("form", [FAST, PLAIN])
def test_planted_fault_shows(form, layer):
    rng = np.random.default_rng(2)
    lib = library(*form, "-DLDA_PLANT_FAULTS", "-DLDA_RANKS=2")
    program = random_program(rng, 2, layers=[layer])
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
    layer = joined(4, (2, 3), 4, (8, 16))
    shape = layer.entry.shape
    subs = "mac: subs of joined products that are not those of K, then those of V"
    cases = [
        ("mac: steps of the product with V are not its subs", {"pv_subs": 3, "subs": 11}),
        ("mac: steps are not taps x subs", {"pv_subs": 3}),
        ("mac: products that cannot be joined", {"shape": replace(shape, per_round=4)}),
        ("mac: products that cannot be joined", {"shape": replace(shape, ring=RING_V)}),
        ("mac: more weight rows than the weight buffer has", {
            "shape": replace(shape, units=18, per_round=18),
        }),
        (subs, {"sub_base": (0, 4)}),
        (subs, {"sub_base": (8, 1)}),
        (subs, {"sub_base": (8, -1)}),
        (subs, {"source_groups": (10, 16)}),
    ]  # fmt: skip
    for text, changes in cases:
        assert bad_program(layer, **changes).run(library(*FAST, "-DLDA_RANKS=4")).text == text
    for changes in ({"pv_every": 0}, {"pv_every": 4}, {"pv_units": 4, "pv_every": 2},
                    {"pv_units": 5}):  # fmt: skip
        program = bad_program(layer, shape=replace(shape, **changes))
        text = program.run(library(*FAST, "-DLDA_RANKS=4")).text
        assert text == "mac: units with V that are not followed by one with K"
    last = single(joined(4, (2, 3), 4, (8, 16), every=3))
    assert_right(last, last.run(library(*FAST, "-DLDA_RANKS=4")))
    layer = pointwise(4, 4, 4, 6, 16)
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
