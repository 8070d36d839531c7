"""Every kind of layer on the generic software card, bit for bit against the integer reference."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest
from generic_card import ROOT, GenericCard, GraphRun
from hypothesis import given, settings
from hypothesis import strategies as st
from layerkit import KINDS, random_inputs, random_qgraph

from gen.program import Engine
from gen.reference import run

PLAIN = ("-O2", "-march=native", "-DLDA_PLAIN")
SEEDS = st.integers(0, 2**32 - 1)


def drawn(kind: str, seed: int, **shape):
    """A random graph of one kind of layer and its inputs."""
    rng = np.random.default_rng(seed)
    if kind == "stride2_asymmetric" and "size" not in shape:
        # other paddings do not divide evenly and are refused by the lowering
        shape["size"] = tuple(int(n) for n in 2 * rng.integers(1, 6, 2))
    qgraph = random_qgraph(kind, rng, batch=int(rng.integers(1, 4)), **shape)
    return qgraph, random_inputs(qgraph, rng)


def first_difference(qgraph, inputs, card: GenericCard, engine: Engine | None = None) -> str | None:
    """Name of the first layer that stores something else than the reference says."""
    expected: dict[str, np.ndarray] = {}
    run(qgraph, *inputs.args(), observe=lambda name, value: expected.update({name: value.copy()}))
    stored = GraphRun(qgraph, inputs, engine).layers_on(card)
    for layer in qgraph.graph.layers:
        assert stored[layer.name].dtype == expected[layer.name].dtype
        if not np.array_equal(stored[layer.name], expected[layer.name]):
            return layer.name
    return None


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(seed=SEEDS)
def test_layer_equals_reference(kind, seed):
    assert first_difference(*drawn(kind, seed), GenericCard()) is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_layer_equals_reference_at_length(kind, seed):
    assert first_difference(*drawn(kind, seed), GenericCard()) is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["conv3x3", "self_attention", "concat_groupnorm_silu", "geglu"])
def test_large_layer_equals_reference(kind):
    size = (16, 24) if kind != "self_attention" else (16, 16)
    assert first_difference(*drawn(kind, 5, size=size, channels=136), GenericCard()) is None


@pytest.mark.parametrize("kind", KINDS)
def test_plain_form_equals_fast_form(kind):
    """Banked memories and one multiply step a cycle: the same numbers in the same cycles."""
    qgraph, inputs = drawn(kind, 3)
    graph = GraphRun(qgraph, inputs)
    fast, plain = GenericCard(), GenericCard(*PLAIN)
    expected = graph.on(fast)
    assert np.array_equal(expected, run(qgraph, *inputs.args()))
    assert np.array_equal(graph.on(plain), expected)
    assert plain.report == fast.report


@pytest.mark.parametrize(
    ("pixels", "flags"),
    [
        (16, ()),
        pytest.param(64, (), marks=pytest.mark.slow),
        pytest.param(16, ("-DLDA_PLAIN",), marks=pytest.mark.slow),
        pytest.param(64, ("-DLDA_PLAIN",), marks=pytest.mark.slow),
    ],
)
def test_other_tile_sizes(pixels, flags):
    card = GenericCard("-O1", "-march=native", f"-DLDA_PP={pixels}", *flags)
    for kind in ("conv3x3", "self_attention", "geglu", "stride2"):
        assert first_difference(*drawn(kind, 21), card, Engine(pixels=pixels)) is None, kind


def test_card_without_vector_instructions():
    for kind in ("conv3x3", "self_attention"):
        assert first_difference(*drawn(kind, 7), GenericCard("-O1")) is None, kind


def test_steps_do_not_depend_on_the_step_before():
    qgraph, inputs = drawn("self_attention", 8)
    graph, card = GraphRun(qgraph, inputs), GenericCard()
    first = graph.on(card)
    cycles = card.cycles
    other = GraphRun(*drawn("concat_groupnorm_silu", 9))
    other.on(card)
    assert np.array_equal(graph.on(card), first)
    assert card.cycles == cycles


FAULTS = {1: "rounding in post", 2: "an address in store", 3: "a lane of the multiplier array"}


@pytest.mark.parametrize("fault", FAULTS, ids=FAULTS.values())
def test_planted_fault_is_located(fault):
    qgraph, inputs = drawn("conv3x3", 12, size=(4, 6), channels=20)
    assert first_difference(qgraph, inputs, GenericCard()) is None
    broken = GenericCard("-O1", "-march=native", "-DLDA_PLANT_FAULTS")
    broken.lib.lda_plant_fault(fault)
    assert first_difference(qgraph, inputs, broken) == qgraph.graph.layers[0].name


def test_fifo_one_too_small_is_a_named_deadlock():
    """The scale of a row comes after its last word: FIFO `rows` has to hold a row and more."""
    graph, card = GraphRun(*drawn("layernorm", 4, channels=136)), GenericCard()
    row = max(sum(e.pre.blocks) for e in graph.program.entries if e.pre.norm == 2)

    def status(depth: int) -> int:
        assert card.set_depth("rows", depth) == 0
        assert card.set_program(graph.blob) == 0
        return card.step(graph.weights, graph.dynamic, graph.latent, graph.result)

    need = next(depth for depth in range(row, 4 * row + 64) if status(depth) == 0)
    assert need > row
    assert status(need - 1) == 1
    assert card.error.startswith("deadlock: ") and f"rows ({need - 1}/{need - 1})" in card.error
    assert status(need) == 0, "the card recovers"


def test_peak_fill_of_a_fifo_suffices_as_its_depth():
    graph = GraphRun(*drawn("cross_attention", 6))
    card = GenericCard()
    card.measure_peaks()
    expected = graph.on(card).copy()
    cycles = card.cycles
    for fifo in card.report["fifos"]:
        assert card.set_depth(fifo["name"], max(1, fifo["peak"])) == 0
    assert np.array_equal(graph.on(card), expected)
    assert card.cycles == cycles


def test_lost_words_are_reported():
    """A program whose mac takes one weight row less than wload sends."""
    graph = GraphRun(*drawn("linear", 2))
    entry = graph.program.entries[0]
    blob = np.frombuffer(graph.blob, np.int32).copy()
    row = np.flatnonzero(blob == entry.mac.next_rows)
    card = GenericCard()
    statuses = set()
    for index in row:
        changed = blob.copy()
        changed[index] -= 1
        if card.set_program(changed.tobytes()) == 0:
            result = np.zeros_like(graph.result)
            statuses.add(card.step(graph.weights, graph.dynamic, graph.latent, result))
    assert statuses & {1, 2}, "no changed count was noticed"


@pytest.mark.parametrize("name", ["weights", "latent", "result"])
def test_short_buffer_is_refused(name):
    graph, card = GraphRun(*drawn("host_bias", 1)), GenericCard()
    assert card.set_program(graph.blob) == 0
    buffers = {n: getattr(graph, n) for n in ("weights", "dynamic", "latent", "result")}
    short = np.ascontiguousarray(buffers[name].reshape(-1)[:-64])
    assert card.step(*{**buffers, name: short}.values()) == 3
    assert card.error.startswith(f"buffer {name}: word ")
    graph.on(card)


def test_bad_program_is_refused():
    graph, card = GraphRun(*drawn("linear", 1)), GenericCard()
    for blob in (b"", graph.blob[:-4], graph.blob + b"\0\0\0\0", b"\0" * len(graph.blob)):
        assert card.set_program(blob) == 3
        assert card.error
    assert card.set_depth("nonsense", 3) == -1
    assert card.set_depth("xs", 0) == -1
    graph.on(card)


def test_struct_sizes_are_those_of_the_generator():
    from gen.program.structs import words

    program = GraphRun(*drawn("linear", 1)).program
    entry = program.entries[0]
    structs = (program.io, program.segments[0], entry.store, entry.pre, entry.mac, entry.post,
               entry.wload)  # fmt: skip
    sizes = np.zeros(7, np.int32)
    pointer = sizes.ctypes.data_as(ctypes.c_void_p)
    assert GenericCard().lib.lda_struct_sizes(pointer, len(sizes)) == len(sizes)
    assert sizes.tolist() == [4 * len(list(words(each))) for each in structs]


SANITISED = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
import test_layers_csim as t
card = t.GenericCard("-O1", "-g", "-march=native", "-fsanitize=address,undefined",
                     "-fno-sanitize-recover=all", *{flags!r})
for kind in t.KINDS:
    assert t.first_difference(*t.drawn(kind, 11), card) is None, kind
print("clean")
"""


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("-DLDA_PLAIN",)], ids=["fast", "plain"])
def test_sanitisers_find_nothing(flags):
    libasan = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    script = SANITISED.format(tests=str(ROOT / "tests"), root=str(ROOT), flags=flags)
    environment = {**os.environ, "LD_PRELOAD": libasan, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "clean", done.stderr[-3000:]
