from __future__ import annotations

from dataclasses import replace

import floatkit
import numpy as np
import pytest
import torch
from diffusers import UNet2DModel

from gen.errors import UserError
from gen.floatrun import run_float
from gen.hostints import (
    output_to_float,
    prompt_weights,
    quantise_latent,
    step_affines,
    step_biases,
)
from gen.layers import Read
from gen.passes import lower
from gen.qgraph_check import check_qgraph
from gen.quantise import Options, calibrate, quantise
from gen.quantise.fixedpoint import encode_affine, encode_factors
from gen.quantise.prompts import read_prompts
from gen.quantise.scales import asymmetric_scale, symmetric_scale
from gen.quantise.statistics import Range
from gen.quantise.study import study
from gen.quantise.tables import (
    NOTHING_BELOW,
    activation_table,
    gelu,
    gelu_table,
    gelu_tanh,
    silu,
    softmax_table,
)
from gen.quantise.weights import round_nearest, round_together, row_scales
from gen.reference import run
from gen.trace import trace_unet

PLAIN = Options()


def integer_output(qgraph, sample, host):
    arrays = {name: value.numpy() for name, value in host.items()}
    latent = quantise_latent(qgraph, sample.numpy())
    biases, prompt = step_biases(qgraph, arrays), prompt_weights(qgraph, arrays)
    affines = step_affines(qgraph, arrays)
    return output_to_float(qgraph, run(qgraph, latent, biases, prompt, step_affine=affines))


def snr(expected, actual):
    return 10 * np.log10((expected**2).sum() / ((expected - actual) ** 2).sum())


@pytest.fixture(scope="module")
def unet():
    graph = floatkit.small_unet()
    runs = [floatkit.random_run(graph, seed) for seed in range(24)]
    return graph, calibrate(graph, runs, progress=False, max_replay=6)


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(round_weights=True, correct_bias=True),
    ],
)
def test_integers_follow_the_float_graph(unet, options):
    graph, statistics = unet
    qgraph = quantise(graph, statistics, options, progress=False)
    check_qgraph(qgraph)
    sample, host = floatkit.random_run(graph, 99)
    expected = run_float(graph, sample, host).numpy()
    assert snr(expected, integer_output(qgraph, sample, host)) > 26


def test_weights_of_four_bits(unet):
    graph, statistics = unet
    quality = {}
    for together in (False, None):
        options = Options(weight_bits=4, round_weights=together, joint_inputs=100)
        qgraph = quantise(graph, statistics, options, progress=False)
        check_qgraph(qgraph)
        narrow = {q.layer.name: q.weight for q in qgraph.layers if q.weight_bits == 4}
        static = {q.layer.name for q in qgraph.layers if q.weight is not None}
        assert set(narrow) == static - {"conv_in", "conv_out"}
        assert all(np.abs(weight).max() == 7 for weight in narrow.values())
        found = []
        for seed in range(90, 102):
            sample, host = floatkit.random_run(graph, seed)
            expected = run_float(graph, sample, host).numpy()
            found.append(snr(expected, integer_output(qgraph, sample, host)))
        quality[together] = float(np.mean(found))
    assert quality[None] > quality[False] > 5, quality
    qgraph.layers[1].weight[0, 0, 0, 0] = 8
    with pytest.raises(ValueError, match="reach 8"):
        check_qgraph(qgraph)


@pytest.fixture(scope="module")
def scaled_unet():
    graph = floatkit.small_unet(affine=True)
    runs = [floatkit.random_run(graph, seed) for seed in range(12)]
    return graph, calibrate(graph, runs, progress=False, max_replay=6)


@pytest.mark.parametrize("options", [Options(), Options(round_weights=True, correct_bias=True)])
def test_scales_and_shifts_of_the_host(scaled_unet, options):
    graph, statistics = scaled_unet
    qgraph = quantise(graph, statistics, options, progress=False)
    check_qgraph(qgraph)
    sample, host = floatkit.random_run(graph, 99)
    expected = run_float(graph, sample, host).numpy()
    assert snr(expected, integer_output(qgraph, sample, host)) > 24
    # what is left of the agreement without them
    absent = {**host, "affine": torch.zeros_like(host["affine"])}
    assert snr(expected, integer_output(qgraph, sample, absent)) < 15


def test_a_wrong_zero_point_correction_is_noticed(unet):
    graph, statistics = unet
    qgraph = quantise(graph, statistics, PLAIN, progress=False)
    layer = next(q for q in qgraph.layers if q.layer.name == "conv_out")
    assert layer.read.pad != 0
    layer.bias = (layer.bias - layer.correction).astype(np.int32)
    sample, host = floatkit.random_run(graph, 99)
    expected = run_float(graph, sample, host).numpy()
    assert snr(expected, integer_output(qgraph, sample, host)) < 20


def test_sources_of_a_group_norm_are_brought_within_reach():
    graph = floatkit.small_unet()
    graph.arrays["up.w"] *= 1e-6
    graph.arrays["up.b"] *= 1e-6
    runs = [floatkit.random_run(graph, seed) for seed in range(2)]
    qgraph = quantise(graph, calibrate(graph, runs, progress=False), PLAIN, progress=False)
    merge = next(q for q in qgraph.layers if q.layer.name == "merge")
    assert sorted(merge.read.align) == [0, 7]


def test_a_latent_read_through_a_norm_is_refused(unet):
    graph, statistics = unet
    first = replace(graph.layers[0], read=Read("group", 1, 1e-5))
    bad = replace(graph, layers=[first, *graph.layers[1:]])
    with pytest.raises(UserError, match="conv_in"):
        quantise(bad, statistics, PLAIN, progress=False)


def test_weights_that_are_no_numbers_are_refused(unet):
    _, statistics = unet
    graph = floatkit.small_unet()
    graph.arrays["ff2.w"][0, 0] = np.inf
    with pytest.raises(UserError, match="ff2"):
        quantise(graph, statistics, PLAIN, progress=False)


def test_study_blames_the_layer_that_is_at_fault(unet):
    graph, statistics = unet
    qgraph = quantise(graph, statistics, PLAIN, progress=False)
    guilty = next(q for q in qgraph.layers if q.layer.name == "out1")
    guilty.weight = np.where(guilty.weight > 0, guilty.weight // 2, guilty.weight).astype(np.int8)
    result = study(graph, qgraph, [floatkit.random_run(graph, 5)])
    worst = result.table().splitlines()[1]
    assert worst.split()[-1] == "out1"
    logits = {name for name, info in graph.tensors.items() if info.role == "scores"}
    assert list(result.layers) == [x.name for x in graph.layers if x.dest not in logits]


def test_factors_have_17_bits():
    factors = np.array([1e-9, 3.3e-4, 0.5, 0.999999, 1.0, 60.0])
    mult, shift = encode_factors(factors)
    assert (mult < 2**17).all() and (mult > 0).all() and (shift >= 1).all() and (shift <= 46).all()
    assert np.abs(mult * 2.0**-shift / factors - 1)[1:].max() < 2**-16
    with pytest.raises(ValueError, match="too large"):
        encode_factors(np.array([2.0**17]))


@pytest.mark.parametrize("residual_shift", [-9, 0, 6])
def test_factors_leave_room_for_the_residual(residual_shift):
    _, shift = encode_factors(np.array([1e-13, 1e-3, 100.0]), residual_shift)
    assert (shift + residual_shift >= 0).all() and (shift + residual_shift <= 46).all()


@pytest.mark.parametrize("gamma", [1e-9, 3e-3, 1.0, 900.0])
def test_affine_uses_the_bits_there_are(gamma):
    g, b, shift = encode_affine(np.array([gamma, -gamma / 3]), np.array([5.0, -1000.0]))
    assert np.abs(g).max() < 2**15 and np.abs(b).max() < 2**31 and 1 <= shift <= 40
    assert abs(g[0] * 2.0**-shift / gamma - 1) < max(2**-13, 2.0**-shift / gamma)


def test_tables():
    step, scale = 16 / 2047, 9 / 255
    table = activation_table("silu", -8.0, step, scale, -100)
    x = -8.0 + step * np.arange(2048)
    assert np.abs((table.astype(int) + 100) * scale - silu(x)).max() <= scale / 2 + 1e-9
    assert silu(np.array([1.0]))[0] == pytest.approx(float(torch.nn.functional.silu(torch.ones(1))))
    exponentials, delta = softmax_table()
    assert exponentials[-1] == 127 and exponentials[0] == 0
    assert exponentials[2047 - round(1 / delta)] == round(127 / np.e)
    gates, unit = gelu_table(0.01)
    expected = torch.nn.functional.gelu(torch.arange(-1024, 1024) * 0.01).numpy()
    assert np.abs(gates * unit - expected).max() < unit
    assert gelu(np.array([0.5]))[0] == pytest.approx(0.5 * 0.6914624612740131)


def test_activations_are_torchs_and_nothing_below_their_limits():
    x = np.linspace(-6, 6, 1001)
    functional = torch.nn.functional
    for name, own, theirs in (
        ("silu", silu, functional.silu),
        ("gelu", gelu, functional.gelu),
        ("gelu_tanh", gelu_tanh, lambda t: functional.gelu(t, approximate="tanh")),
    ):
        np.testing.assert_allclose(own(x), theirs(torch.from_numpy(x)).numpy(), atol=1e-12)
        low = NOTHING_BELOW[name]
        assert np.abs(own(np.linspace(3 * low, low, 200))).max() < 0.0012


@pytest.mark.parametrize("act", ["gelu", "gelu_tanh"])
def test_other_activations_follow_the_float_graph(act):
    graph = floatkit.small_unet()
    layers = [
        replace(layer, read=replace(layer.read, act=act)) if layer.read.act == "silu" else layer
        for layer in graph.layers
    ]
    graph = replace(graph, layers=layers)
    runs = [floatkit.random_run(graph, seed) for seed in range(12)]
    qgraph = quantise(graph, calibrate(graph, runs, progress=False), PLAIN, progress=False)
    sample, host = floatkit.random_run(graph, 99)
    expected = run_float(graph, sample, host).numpy()
    assert snr(expected, integer_output(qgraph, sample, host)) > 24


def _range(values):
    seen = Range()
    seen.update(torch.from_numpy(values), np.random.default_rng(0), 4096)
    return seen


def test_scales_trade_clipping_for_resolution():
    values = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    assert symmetric_scale(_range(values)) == pytest.approx(np.abs(values).max() / 127, rel=0.4)
    scale, zero_point = asymmetric_scale(_range(np.abs(values)))
    assert zero_point == -128
    assert scale <= np.abs(values).max() / 254
    assert symmetric_scale(_range(values * 0)) > 0


def test_joint_rounding_beats_nearest_on_correlated_operands():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(40, 6))
    x = mixing @ rng.normal(size=(6, 3000)) * 20 + rng.normal(size=(40, 3000))
    weight = rng.normal(size=(8, 40))
    scales = row_scales(weight, np.zeros(8)) * 8
    error = {}
    for name, whole in (
        ("nearest", round_nearest(weight, scales, 1)),
        ("together", round_together(weight, scales, x @ x.T / 3000, 0.01)),
    ):
        assert np.array_equal(whole, np.rint(whole)) and np.abs(whole).max() <= 127
        error[name] = np.square((whole * scales[:, None] - weight) @ x).mean()
    assert error["together"] < error["nearest"] / 4


def test_four_bits_lose_less_when_the_largest_weights_are_clipped():
    weight = np.random.default_rng(0).standard_t(4, size=(6, 500))
    scales = row_scales(weight, np.zeros(6), 4)
    whole = round_nearest(weight, scales, 1, 4)
    assert np.abs(whole).max() == 7
    widest = np.abs(weight).max(axis=1) / 7
    errors = [
        np.square(round_nearest(weight, s, 1, 4) * s[:, None] - weight).sum()
        for s in (scales, widest)
    ]
    assert errors[0] < 0.7 * errors[1]


def test_replicas_share_the_rounding_of_a_weight():
    weight = np.random.default_rng(0).uniform(-1, 1, (3, 10))
    repeated = np.tile(weight, (1, 4))
    scales = np.full(3, 0.02)
    whole = round_nearest(repeated, scales, 4).reshape(3, 4, 10).sum(axis=1)
    assert np.abs(whole * 0.02 / 4 - weight).max() <= 0.02 / 8 + 1e-12


def test_prompts_are_read_a_line_each(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\n\n  a dog  \n")
    assert read_prompts(path) == ("a cat", "a dog")
    path.write_text("\n")
    with pytest.raises(UserError, match="no prompt"):
        read_prompts(path)
    with pytest.raises(UserError, match="name a text file"):
        read_prompts(tmp_path / "missing.txt")


def test_a_whole_unet_with_scale_and_shift():
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        resnet_time_scale_shift="scale_shift",
    ).eval()
    graph, host = lower(trace_unet(unet, batch=2, height=8, width=8))
    assert any(layer.read.host_affine for layer in graph.layers)
    generator = torch.Generator().manual_seed(1)
    latents = [torch.randn(2, 3, 8, 8, generator=generator) for _ in range(7)]
    runs = [(x, host.evaluate_step(i * 140.0, 2)) for i, x in enumerate(latents)]
    qgraph = quantise(graph, calibrate(graph, runs[:6], progress=False), PLAIN, progress=False)
    with torch.no_grad():
        expected = unet(latents[6], 840.0).sample.numpy()
    assert snr(expected, integer_output(qgraph, *runs[6])) > 25
