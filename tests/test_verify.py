"""Planted faults are caught, and located to the layer that they are in."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from generic_card import FAST, ROOT, compile_cpp, ranked
from layerkit import random_inputs, random_qgraph

from gen.compare import CardCheck, Diverged, Integers, Noise, reference_step
from gen.csim import DEADLOCK, CsimCard, CsimError
from gen.program import Engine, lower, pack_static
from gen.trajectory import denoise

pytestmark = pytest.mark.csim


RANKS = 2
ENGINE = Engine(ranks=RANKS)


def generic(*flags):
    # a faulty card is compiled quickly, the right one as everywhere else
    flags = ranked(RANKS, *(("-O0", *flags) if flags else FAST))
    return compile_cpp(ROOT / "hls/card/generic.cpp", flags)


def case(kind="self_attention", seed=4):
    """A graph whose stored values are neither constant nor saturated throughout."""
    for offset in range(100):
        rng = np.random.default_rng(100 * seed + offset)
        qgraph = random_qgraph(kind, rng, size=(4, 5), channels=24)
        inputs = random_inputs(qgraph, rng)
        integers = Integers(*inputs.args())
        _, stored = reference_step(qgraph, integers)
        if all(len(np.unique(values)) > 20 for values in stored.values()):
            return qgraph, integers, stored
    raise AssertionError("no lively graph")


def check(qgraph, program=None, library=None, weights=None):
    program = program or lower(qgraph, ENGINE)
    if weights is None:
        weights = np.frombuffer(pack_static(qgraph, program), np.uint8)
    return CardCheck(CsimCard(library or generic(), program, generic=True), qgraph, weights)


@pytest.mark.parametrize("kind", ["self_attention", "cross_attention", "concat_groupnorm_silu"])
def test_equal_cards_pass_with_every_tensor_compared(kind):
    qgraph, integers, stored = case(kind)
    card = check(qgraph)
    result = card.step(integers, stored)
    np.testing.assert_array_equal(result, stored[qgraph.layers[-1].layer.name])
    assert card.compared >= len(qgraph.layers)


def test_second_step_takes_weights_that_stayed_on_the_card():
    qgraph, integers, stored = case("concat_groupnorm_silu")
    program = lower(qgraph, dataclasses.replace(ENGINE, cache_rows=2048))
    assert program.cache_used
    weights = np.frombuffer(pack_static(qgraph, program), np.uint8).copy()
    card = check(qgraph, program, weights=weights)
    card.step(integers, stored)
    conv = next(e for e in program.entries if e.layer == "conv")
    assert conv.wload.cache >= 0
    start = conv.wload.ws.base * 64
    weights[start : start + 128] ^= 0x55
    card.step(integers, stored)
    with pytest.raises(Diverged):
        check(qgraph, program, weights=weights).step(integers, stored)


def changed(program, layer, **store):
    index = [entry.layer for entry in program.entries].index(layer)
    entries = list(program.entries)
    entry = entries[index]
    entries[index] = dataclasses.replace(entry, store=dataclasses.replace(entry.store, **store))
    return dataclasses.replace(program, entries=entries)


def shifted(region, rows):
    return dataclasses.replace(
        region, row=dataclasses.replace(region.row, base=region.row.base + rows)
    )


@pytest.mark.parametrize("layer", ["k", "qk", "pv"])
def test_off_by_one_address_is_located(layer):
    qgraph, integers, stored = case()
    program = lower(qgraph, ENGINE)
    entry = next(e for e in program.entries if e.layer == layer)
    first, second = entry.store.source
    wrong = changed(program, layer, source=(shifted(first, 1), second))
    with pytest.raises(Diverged, match="stored values differ") as caught:
        check(qgraph, wrong).step(integers, stored)
    assert caught.value.layer == layer


def test_wrong_weight_byte_is_located():
    qgraph, integers, stored = case("concat_groupnorm_silu")
    program = lower(qgraph, ENGINE)
    weights = np.frombuffer(pack_static(qgraph, program), np.uint8).copy()
    conv = next(e for e in program.entries if e.layer == "conv")
    weights[conv.wload.scale.base * 64] ^= 0x40
    with pytest.raises(Diverged) as caught:
        check(qgraph, program, weights=weights).step(integers, stored)
    assert caught.value.layer == "conv"


def test_wrong_rounding_in_post_is_located():
    """LDA_FAULT=1 truncates instead of rounding: the first layer whose result has a fraction."""
    qgraph, integers, stored = case()
    first = qgraph.layers[0].layer.name
    with pytest.raises(Diverged) as caught:
        check(qgraph, library=generic("-DLDA_FAULT=1")).step(integers, stored)
    assert caught.value.layer == first


def test_wrong_address_in_store_is_located():
    """LDA_FAULT=2 reads the neighbour of every second pixel of a row."""
    qgraph, integers, stored = case()
    with pytest.raises(Diverged) as caught:
        check(qgraph, library=generic("-DLDA_FAULT=2")).step(integers, stored)
    assert caught.value.layer == qgraph.layers[0].layer.name


def test_too_small_fifo_is_a_named_deadlock():
    """The array needs every pixel before it starts; each of them sends a row sum first."""
    qgraph, integers, stored = case()
    card = check(qgraph)
    card.card.set_fifo_depth("ss_1", 1)
    with pytest.raises(CsimError, match=r"deadlock: .*write ss_1 \(1/1\)") as caught:
        card.step(integers, stored)
    assert caught.value.code == DEADLOCK
    with pytest.raises(ValueError):
        card.card.set_fifo_depth("nothing", 4)


def test_a_fault_of_the_observer_is_raised():
    qgraph, integers, stored = case()
    card = check(qgraph)
    del stored["pv"]
    with pytest.raises(KeyError, match="pv"):
        card.step(integers, stored)


def test_signal_to_noise():
    noise = Noise()
    exact = np.array([3.0, 4.0], np.float32)
    noise.add(exact, exact.astype(np.float64))
    assert noise.snr_db == math.inf
    noise.add(exact, exact + np.array([0.3, 0.4]))
    assert noise.snr_db == pytest.approx(10 * math.log10(50 / 0.25), abs=1e-5)


class _NoHost:
    """Stands for the host graph of a U-Net without a prompt."""

    prompt_shape = None

    @staticmethod
    def evaluate_prompt(_):
        return {}

    @staticmethod
    def evaluate_step(_timestep, _batch):
        return {}


def test_trajectory_is_driven_by_the_prediction():
    qgraph, _, _ = case("conv3x3")
    model = type("Model", (), {"kind": "unet"})
    seen = []

    def predict(latents, timestep, _):
        seen.append((timestep, latents.clone()))
        return latents * 0.5

    last = denoise(model, qgraph.graph, _NoHost, predict, steps=4, progress=False)
    assert [t for t, _ in seen] == sorted((t for t, _ in seen), reverse=True) and len(seen) == 4
    assert not torch.equal(seen[0][1], seen[1][1]) and last.shape == seen[0][1].shape
