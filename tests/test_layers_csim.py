"""Every kind of layer on the generic software card of one, two and four ranks, bit for bit against
the integer reference.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace

import numpy as np
import pytest
from generic_card import GenericCard, GraphRun, ranked
from hypothesis import given, settings
from hypothesis import strategies as st
from layerkit import KINDS, narrowed, prompted, random_inputs, random_qgraph, shortened

from gen.program import Engine
from gen.program.binary import KERNELS, header
from gen.program.structs import Addr, Move, words
from gen.reference import run

PLAIN = ("-O2", "-march=native", "-DLDA_PLAIN")
SEEDS = st.integers(0, 2**32 - 1)
RANKS = pytest.mark.parametrize("ranks", [1, 2, 4])
# buffers so small that layers are cut into strips and rounds; weights that stay on the card
TIGHT = {
    "window_rows": 40,
    "weight_rows": 100,
    "scores_rows": 150,
    "sums": 64,
    "scales": 8,
    "cache_rows": 4096,
}


def drawn(kind: str, seed: int, **shape):
    """A random graph of one kind of layer and its inputs."""
    rng = np.random.default_rng(seed)
    if kind.startswith("stride2") and "size" not in shape:
        # other paddings do not divide evenly and are refused by the lowering
        shape["size"] = tuple(int(n) for n in 2 * rng.integers(1, 6, 2))
    qgraph = random_qgraph(kind, rng, batch=int(rng.integers(1, 4)), **shape)
    return qgraph, random_inputs(qgraph, rng)


def first_difference(graph, ranks: int, card: GenericCard | None = None, **engine) -> str | None:
    """Name of the first layer that stores something else than the reference says."""
    run_ = GraphRun(*graph, Engine(ranks=ranks, **engine))
    return run_.first_difference(card or GenericCard(*ranked(ranks)))


@RANKS
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(seed=SEEDS)
def test_layer_equals_reference(kind, ranks, seed):
    assert first_difference(drawn(kind, seed), ranks) is None


@RANKS
@pytest.mark.parametrize("kind", KINDS)
def test_layer_in_strips_equals_reference(kind, ranks):
    size = (12, 10) if kind.startswith("stride2") else (12, 9)
    assert first_difference(drawn(kind, 17, size=size, channels=40), ranks, **TIGHT) is None


@RANKS
@pytest.mark.parametrize("heads", [(8, 40), (6, 80), (5, 8), (7, 24), (3, 32)], ids=str)
@pytest.mark.parametrize("kind", ["self_attention", "cross_attention"])
def test_heads_that_begin_at_any_rank(kind, heads, ranks):
    """One head after the other, strip by strip, and all at once."""
    graph = drawn(kind, heads[1], size=(9, 12), heads=heads)
    assert first_difference(graph, ranks) is None
    assert first_difference(graph, ranks, **TIGHT) is None


@RANKS
@pytest.mark.parametrize("kind", ["stride2", "stride2_asymmetric", "upsample", "crop"])
@pytest.mark.parametrize("size", [(26, 18), (17, 24)])
def test_window_of_another_size_in_strips(kind, size, ranks):
    """A window buffer that holds a part of the phases of a strided layer, or of a doubled image."""
    if kind.startswith("stride2"):
        size = tuple(2 * n - (kind == "stride2") for n in size)
    graph = drawn(kind, 23, size=size, channels=40)
    run_ = GraphRun(*graph, Engine(ranks=ranks, window_rows=48, items=4))
    strips = [e for e in run_.program.entries if e.layer in ("down", "up")]
    assert len(strips) > 2 and strips[-1].mac.origin > 0 and strips[-1].mac.fill_slot > 0
    assert run_.first_difference(GenericCard(*ranked(ranks))) is None


@pytest.mark.slow
@RANKS
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_layer_equals_reference_at_length(kind, ranks, seed):
    assert first_difference(drawn(kind, seed), ranks) is None


@pytest.mark.slow
@RANKS
@pytest.mark.parametrize("kind", ["conv3x3", "self_attention", "concat_groupnorm_silu", "geglu"])
def test_large_layer_equals_reference(kind, ranks):
    size = (16, 24) if kind != "self_attention" else (16, 16)
    assert first_difference(drawn(kind, 5, size=size, channels=136), ranks) is None


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_plain_form_equals_fast_form(kind, ranks):
    """Banked memories and one multiply step a cycle: the same numbers in the same cycles."""
    qgraph, inputs = drawn(kind, 3)
    graph = GraphRun(qgraph, inputs, Engine(ranks=ranks))
    fast, plain = GenericCard(*ranked(ranks)), GenericCard(*ranked(ranks, *PLAIN))
    expected = graph.on(fast)
    want = run(qgraph, *inputs.args(), step_affine=inputs.step_affine)
    assert np.array_equal(expected, want)
    assert np.array_equal(graph.on(plain), expected)
    assert plain.report == fast.report


@pytest.mark.parametrize("flags", [(), pytest.param(("-DLDA_PLAIN",), marks=pytest.mark.slow)])
def test_tiles_of_64_pixels(flags):
    card = GenericCard("-O1", "-march=native", "-DLDA_PP=64", "-DLDA_RANKS=2", *flags)
    for kind in ("conv3x3", "self_attention", "geglu", "stride2", "upsample"):
        assert first_difference(drawn(kind, 21), 2, card, pixels=64) is None, kind


def test_card_without_vector_instructions():
    card = GenericCard("-O1", "-DLDA_RANKS=2")
    for kind in ("conv3x3", "self_attention"):
        assert first_difference(drawn(kind, 7), 2, card) is None, kind


NIBBLES = "-DLDA_WEIGHT_BITS=4"
WIDENED = "-DLDA_STORED_BITS=4"
# flags of a card for weights of 4 bits, and members of its engine
FOUR_BIT_KINDS = {
    "narrow": (NIBBLES, {"weight_bits": 4, "stored_bits": 4}),
    "widened": (WIDENED, {"stored_bits": 4}),
}
EACH_FOUR_BIT_KIND = pytest.mark.parametrize(
    ("flag", "members"), FOUR_BIT_KINDS.values(), ids=FOUR_BIT_KINDS
)


def drawn_narrow(kind: str, seed: int, **shape):
    """As ``drawn``, with weights of 4 bits in some layers."""
    qgraph, inputs = drawn(kind, seed, **shape)
    return narrowed(qgraph, seed % 3), inputs


@RANKS
@EACH_FOUR_BIT_KIND
@pytest.mark.parametrize("kind", KINDS)
def test_layer_on_an_engine_of_four_bit_rows(kind, flag, members, ranks):
    """Weights of 8 bits beside those of 4, in a second pass or in the same one: the integers of the
    reference, the same cycles in both forms.
    """
    engine = Engine(ranks=ranks, **members)
    graph = GraphRun(*drawn_narrow(kind, 3 + ranks), engine)
    fast, plain = (GenericCard(*ranked(ranks, *form), flag) for form in ((), PLAIN))
    assert graph.first_difference(fast) is None
    assert np.array_equal(graph.on(plain), graph.on(fast))
    assert plain.report == fast.report


@pytest.mark.parametrize("ranks", [1, 4])
@EACH_FOUR_BIT_KIND
@pytest.mark.parametrize("kind", ["conv3x3", "geglu", "self_attention", "cross_attention"])
def test_strips_and_rounds_of_four_bit_rows(kind, flag, members, ranks):
    engine = Engine(ranks=ranks, **{**TIGHT, "weight_rows": 110, **members})
    graph = GraphRun(*drawn_narrow(kind, 17, size=(12, 9), channels=40), engine)
    assert graph.first_difference(GenericCard(*ranked(ranks), flag)) is None


@pytest.mark.parametrize("ranks", [1, 4])
def test_rows_of_four_bits_stay_on_the_card(ranks):
    """Widened from the cache; rows of 8 bits are read again."""
    qgraph, inputs = drawn_narrow("conv3x3", 8, size=(12, 9), channels=40)
    graph = GraphRun(qgraph, inputs, Engine(ranks=ranks, stored_bits=4, cache_rows=4096))
    kept = {e.layer for e in graph.program.entries if e.wload.cache >= 0}
    assert kept == {q.layer.name for q in qgraph.layers if q.weight_bits == 4}
    card = GenericCard(*ranked(ranks), WIDENED)
    first = graph.on(card)
    graph.weights = [each.copy() for each in graph.weights]
    for entry in graph.program.entries:
        if entry.wload.cache >= 0:
            base = entry.wload.ws.base
            for each in graph.weights:
                each[64 * base : 64 * (base + entry.wload.ws_rows)] ^= 0xFF
    assert np.array_equal(graph.on(card, reload=False), first)
    assert not np.array_equal(graph.on(card), first)


def test_rows_of_four_bits_take_half_the_words():
    def words(**engine: int) -> tuple[int, int]:
        qgraph, inputs = drawn("conv3x3", 8, channels=40)
        program = GraphRun(narrowed(qgraph), inputs, Engine(**engine)).program
        conv = program.entries[program.entries_of("conv")[0]].wload
        first = program.entries[program.entries_of("x")[0]].wload
        return first.ws_rows * first.row_words, conv.ws_rows * conv.row_words

    first, conv = words()
    for _, members in FOUR_BIT_KINDS.values():
        assert words(**members) == (first, conv // 2)


EXTREMES = [(k, x) for k in (-128, -121, -120, -8, -1, 0, 7, 119, 120, 127) for x in (-128, 127)]


@pytest.mark.parametrize("form", [(), PLAIN], ids=["fast", "plain"])
@pytest.mark.parametrize("kind", ["self_attention", "cross_attention"])
def test_extreme_keys_and_values_in_two_passes(kind, form):
    """K, V and queries of one value each, over the whole of int8 and where halves carry over."""
    card = GenericCard(*ranked(2, *form), NIBBLES)
    for weight, operand in EXTREMES:
        qgraph, inputs = drawn(kind, 4, size=(3, 4))
        for q in qgraph.layers:
            if q.layer.name in ("q", "k", "v"):
                value = operand if q.layer.name == "q" else weight
                # y = clamp((0 * x + bias) * 1 >> 1)
                zeros, ones = q.weight * 0, np.ones_like(q.shift)
                q.weight, q.mult, q.shift = zeros, ones, ones
                q.bias = np.full_like(q.bias, 2 * value)
        inputs.prompt_q = {k: np.full_like(v, weight) for k, v in inputs.prompt_q.items()}
        graph = GraphRun(qgraph, inputs, Engine(ranks=2, weight_bits=4, stored_bits=4))
        assert graph.first_difference(card) is None, (weight, operand)


def test_steps_do_not_depend_on_the_step_before():
    qgraph, inputs = drawn("self_attention", 8)
    graph, card = GraphRun(qgraph, inputs), GenericCard()
    first = graph.on(card)
    cycles = card.cycles
    other = GraphRun(*drawn("concat_groupnorm_silu", 9))
    other.on(card)
    assert np.array_equal(graph.on(card), first)
    assert card.cycles == cycles


def test_engine_without_a_cache():
    card = GenericCard("-O2", "-march=native", "-DLDA_RANKS=1", "-DLDA_CACHE=0")
    assert first_difference(drawn("conv3x3", 8), 1, card, cache_rows=0) is None


def test_weights_that_stay_are_read_from_the_card():
    """A second step without loading gives the same result from a buffer whose weights are gone."""
    graph = GraphRun(*drawn("conv3x3", 8), Engine(ranks=2, cache_rows=4096))
    assert graph.program.cache_used == graph.program.static_rows > 0
    card = GenericCard(*ranked(2))
    first = graph.on(card).copy()
    for entry in graph.program.entries:
        start, rows = entry.wload.ws.base, entry.wload.ws_rows
        for rank, buffer in enumerate(graph.weights):
            graph.weights[rank] = buffer.copy()
            graph.weights[rank][64 * start : 64 * (start + 2 * rows)] = 77
    assert np.array_equal(graph.on(card, reload=False), first)
    assert not np.array_equal(graph.on(card, reload=True), first)


FAULTS = {1: "rounding in post", 2: "an address in store", 3: "a lane of the multiplier array"}


@pytest.mark.parametrize("fault", FAULTS, ids=FAULTS.values())
def test_planted_fault_is_located(fault):
    graph = drawn("conv3x3", 12, size=(4, 6), channels=20)
    assert first_difference(graph, 2) is None
    broken = GenericCard("-O1", "-march=native", "-DLDA_PLANT_FAULTS", "-DLDA_RANKS=2")
    broken.lib.lda_plant_fault(fault)
    assert first_difference(graph, 2, broken) == graph[0].graph.layers[0].name


def test_fifo_one_too_small_is_a_named_deadlock():
    """Row sums of the lead and of the first tiles come before post takes any."""
    graph, card = GraphRun(*drawn("cross_attention", 4, size=(8, 8))), GenericCard()

    def status(depth: int) -> int:
        assert card.set_depth("ss_1", depth) == 0
        assert card.set_program(graph.blob) == 0
        return card.step(graph.weights, graph.dynamic, graph.latent, graph.result)

    need = next(depth for depth in range(1, 64) if status(depth) == 0)
    assert need > 1
    assert status(need - 1) == 1
    assert card.error.startswith("deadlock: ") and f"ss_1 ({need - 1}/{need - 1})" in card.error
    assert status(need) == 0, "the card recovers"


def test_peak_fill_of_a_fifo_suffices_as_its_depth():
    graph = GraphRun(*drawn("cross_attention", 6), Engine(ranks=2))
    card = GenericCard(*ranked(2))
    card.measure_peaks()
    expected = graph.on(card).copy()
    cycles = card.cycles
    for fifo in card.report["fifos"]:
        assert card.set_depth(fifo["name"], max(1, fifo["peak"])) == 0
    assert np.array_equal(graph.on(card), expected)
    assert card.cycles == cycles


@pytest.mark.parametrize("kernel", ["gather", "reduce", "post", "wload"])
def test_lost_words_are_reported(kernel):
    """A program in which one kernel counts a word more than the others."""
    graph = GraphRun(*drawn("layernorm", 2), Engine(ranks=2))
    sizes = {k: [len(list(words(getattr(e, k)))) for e in graph.program.entries] for k in KERNELS}
    blob = np.frombuffer(graph.blob, np.int32)
    start = len(header(graph.program)) + 4 * len(graph.program.segments)
    start += sum(sum(sizes[k]) for k in KERNELS[: KERNELS.index(kernel)])
    entry = graph.program.entries[0]
    counted = {
        "gather": entry.gather.groups[0],
        "reduce": entry.reduce.stat_words,
        "post": entry.post.shape.octets,
        "wload": entry.wload.pp_words,
    }
    card = GenericCard(*ranked(2))
    span = blob[start : start + sizes[kernel][0]]
    at = start + int(np.flatnonzero(span == counted[kernel])[0 if kernel != "gather" else -1])
    changed = blob.copy()
    changed[at] += 1
    assert card.set_program(changed.tobytes()) == 0
    result = [np.zeros_like(each) for each in graph.result]
    assert card.step(graph.weights, graph.dynamic, graph.latent, result) != 0
    assert card.error


@pytest.mark.parametrize("name", ["weights", "latent", "result"])
@pytest.mark.parametrize("rank", [0, 1])
def test_short_buffer_is_refused(name, rank):
    graph, card = GraphRun(*drawn("host_bias", 1), Engine(ranks=2)), GenericCard(*ranked(2))
    assert card.set_program(graph.blob) == 0
    buffers = {n: list(getattr(graph, n)) for n in ("weights", "dynamic", "latent", "result")}
    short = buffers[name][rank].reshape(-1)[:-64]
    buffers[name][rank] = np.ascontiguousarray(short)
    assert card.step(**buffers) == 3
    assert f"buffer {name}" in card.error and "word " in card.error
    graph.on(card)


def test_bad_program_is_refused():
    graph, card = GraphRun(*drawn("linear", 1)), GenericCard()
    for blob in (b"", graph.blob[:-4], graph.blob + b"\0\0\0\0", b"\0" * len(graph.blob)):
        assert card.set_program(blob) == 3
        assert card.error
    assert card.set_depth("nonsense", 3) == -1
    assert card.set_depth("xs_1", 0) == -1
    graph.on(card)
    two = GenericCard(*ranked(2))
    assert two.set_program(graph.blob) == 0
    assert two.step(graph.weights, graph.dynamic, graph.latent, graph.result) == 3
    assert "1 ranks" in two.error and "2" in two.error


def test_struct_sizes_are_those_of_the_generator():
    program = GraphRun(*drawn("linear", 1)).program
    entry = program.entries[0]
    structs = (
        program.io, program.updates, program.segments[0],
        *(getattr(entry, kernel) for kernel in KERNELS),
        Move(0, 0, 0, 0, 0, Addr(0), Addr(0)),
    )  # fmt: skip
    sizes = np.zeros(len(structs), np.int32)
    pointer = sizes.ctypes.data_as(ctypes.c_void_p)
    assert GenericCard().lib.lda_struct_sizes(pointer, len(sizes)) == len(sizes)
    assert sizes.tolist() == [4 * len(list(words(each))) for each in structs]


@RANKS
@pytest.mark.parametrize("tight", [False, True])
def test_prompts_of_every_length(ranks, tight):
    """Up to the built one; a tight engine holds the logits of one item and head at a time."""
    qgraph, inputs = prompted(np.random.default_rng(11), 77, (12, 9))
    card = GenericCard(*ranked(ranks))
    engine = Engine(ranks=ranks, scores_rows=5 * -(-10 // ranks) if tight else 8192)
    for tokens in (1, 8, 15, 33, 64, 76):
        here = GraphRun(qgraph, shortened(inputs, tokens), engine)
        assert here.first_difference(card) is None, tokens
    assert (here.program.tensors["scores"].copies == 1) == tight


@pytest.mark.parametrize("ranks", [1, 4])
def test_tokens_that_are_not_there_do_not_count(ranks):
    """Keys of 0 give logits of 0, which would be the largest by far; a step with the masks of the
    whole prompt shows that it is the masks that leave them out.
    """
    qgraph, inputs = prompted(np.random.default_rng(12), 24)
    queries, keys, values = qgraph.layers[:3]
    # all queries are 127, and all logits of the prompt from -16256 to -12192
    queries.weight[:], queries.bias[:] = 0, 1 << 20
    queries.mult[:], queries.shift[:] = 1 << 16, 1
    keys.mult[:], keys.shift[:] = 64, 10
    inputs.prompt_q["k"][:] = -128 + 8 * np.arange(24)[:, None]
    inputs.prompt_q["v"][:, ::2] = 127
    read, steps = values.read, np.arange(2047, -1, -1)
    read.table[:] = np.rint(127 * np.exp(-0.0027 * steps))
    read.gamma[:], read.beta[:], read.shift = 32, 1023 << 10, 10
    values.mult[:], values.shift[:] = 16, 16
    card = GenericCard(*ranked(ranks))
    short = GraphRun(qgraph, shortened(inputs, 5), Engine(ranks=ranks))
    assert short.first_difference(card) is None
    expected = short.on(card).copy()
    whole = {name: np.zeros_like(value) for name, value in inputs.prompt_q.items()}
    for name, value in whole.items():
        value[:, :5] = inputs.prompt_q[name][:, :5]
    unmasked = GraphRun(qgraph, replace(inputs, prompt_q=whole), Engine(ranks=ranks))
    changed = unmasked.on(card).copy()
    assert (changed != expected).any()
    # one of the two masks alone is not enough either
    for place in short.program.host_weights:
        span = slice(64 * place.mask_word, 64 * (place.mask_word + place.mask_words))
        kept = [each[span].copy() for each in short.dynamic]
        for mine, others in zip(short.dynamic, unmasked.dynamic, strict=True):
            mine[span] = others[span]
        assert (short.on(card) != expected).any(), place.layer
        for mine, own in zip(short.dynamic, kept, strict=True):
            mine[span] = own
    np.testing.assert_array_equal(short.on(card), expected)
