from __future__ import annotations

import json

import layerkit
import numpy as np
import pytest

from gen.errors import UserError
from gen.hostints import (
    output_to_float,
    prompt_weights,
    quantise_latent,
    step_affines,
    step_biases,
)
from gen.qgraph_io import ARRAYS_NAME, JSON_NAME, load_qgraph, save_qgraph
from gen.reference import run


def graph(kind="conv3x3", seed=3):
    return layerkit.random_qgraph(kind, np.random.default_rng(seed), size=(3, 2), channels=8)


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_replicas_sum_to_a_finer_rounding(replicas):
    qgraph = graph()
    qgraph.input_replicas = replicas
    scale = qgraph.tensors[qgraph.graph.input].scale
    x = np.random.default_rng(0).uniform(-120, 120, (2, 3, 3, 2)).astype(np.float32)
    q = quantise_latent(qgraph, x * np.float32(scale))
    assert q.dtype == np.int8 and q.shape == (2, 3 * replicas, 3, 2)
    total = q.astype(int).reshape(2, replicas, 3, 3, 2).sum(axis=1)
    assert np.abs(total / replicas - x).max() <= 0.5 / replicas + 1e-4


def test_latents_saturate():
    qgraph = graph()
    far = np.array([-1e9, 1e9], np.float32).reshape(2, 1, 1, 1)
    assert quantise_latent(qgraph, far)[:, 0, 0, 0].tolist() == [-128, 127]


def test_step_biases_add_and_saturate():
    qgraph = graph("host_bias")
    layer = qgraph.layers[-1]
    rows = len(layer.bias)
    layer.bias = np.full(rows, 1000, np.int32)
    layer.acc_scale = np.full(rows, 0.5)
    host = np.zeros((2, rows), np.float32)
    host[0] = 1.25
    host[1] = -1e12
    biases = step_biases(qgraph, {layer.layer.host_bias: host})
    assert list(biases) == [layer.layer.name]
    assert biases[layer.layer.name].dtype == np.int32
    assert biases[layer.layer.name][0].tolist() == [1002] * rows  # 2.5 rounds to even
    assert biases[layer.layer.name][1].tolist() == [-(1 << 30)] * rows


def test_gamma_and_beta_follow_the_step_and_saturate():
    qgraph = graph("host_affine")
    layer = qgraph.layers[-1]
    channels = len(layer.read.gamma)
    layer.read.affine = np.repeat([[100.0], [-7.0], [3.0], [40.0]], channels, axis=1)
    host = np.zeros((2, 2 * channels), np.float32)
    host[0, 0], host[0, channels] = 0.5, 2.5
    host[1] = 1e12
    (affine,) = step_affines(qgraph, {"affine": host}).values()
    assert affine.gamma.dtype == np.int32 and affine.beta.dtype == np.int64
    assert affine.gamma[0].tolist() == [150] + [100] * (channels - 1)
    # -7 * 1.5 + 3 * 2.5 + 40
    assert affine.beta[0].tolist() == [37] + [33] * (channels - 1)
    assert affine.gamma[1].tolist() == [(1 << 15) - 1] * channels
    assert affine.beta[1].tolist() == [-(1 << 31)] * channels


def test_prompt_weights_stay_symmetric():
    qgraph = graph("cross_attention")
    values = {n: np.full(h.shape, -99.0, np.float32) for n, h in qgraph.graph.host_tensors.items()}
    values["k"][0, 0, 0] = 0.016  # 1.6 steps of 0.01
    weights = prompt_weights(qgraph, values)
    assert weights["k"][0, 0, 0] == 2
    assert weights["v"].min() == weights["v"].max() == -127


def test_output_scale():
    qgraph = graph()
    exponent = qgraph.tensors[qgraph.graph.output].exponent
    assert output_to_float(qgraph, np.array([-3], np.int16))[0] == -3 * 2.0**exponent


@pytest.mark.parametrize("kind", layerkit.KINDS)
def test_files_hold_everything(kind, tmp_path):
    qgraph = graph(kind)
    save_qgraph(qgraph, tmp_path)
    loaded = load_qgraph(tmp_path)
    inputs = layerkit.random_inputs(qgraph, np.random.default_rng(0))
    results = [run(q, *inputs.args(), step_affine=inputs.step_affine) for q in (loaded, qgraph)]
    np.testing.assert_array_equal(*results)
    assert loaded.graph.tensors == qgraph.graph.tensors
    assert loaded.graph.host_tensors == qgraph.graph.host_tensors
    assert loaded.tensors == qgraph.tensors
    assert [q.layer for q in loaded.layers] == [q.layer for q in qgraph.layers]


def _edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(version=0),
        lambda d: d.pop("layers"),
        lambda d: d["layers"].pop(),
        lambda d: d["layers"][-1].update(read_shift=0),
        lambda d: d["layers"][-1].update(read_shift="1"),
        lambda d: d["layers"][-1].update(align=[9]),
        lambda d: d["layers"][-1].update(weight_bits=4),
        lambda d: d["layers"][-1].update(weight_bits=16),
        lambda d: d["layers"][-1]["layer"].update(gate="other"),
        lambda d: d["layers"][-1]["layer"]["weight"].update(extra=1),
        lambda d: d["tensors"]["latent"].update(bits=16),
        lambda d: d["tensors"]["x.out"].update(scale=0.3),
    ],
)
def test_tampered_structure_is_refused(tmp_path, change):
    save_qgraph(graph(), tmp_path)
    _edit(tmp_path / JSON_NAME, change)
    with pytest.raises(UserError, match="quantise the model again"):
        load_qgraph(tmp_path)


def test_truncated_and_missing_files_are_refused(tmp_path):
    save_qgraph(graph(), tmp_path)
    data = (tmp_path / ARRAYS_NAME).read_bytes()
    (tmp_path / ARRAYS_NAME).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="not an intact integer graph"):
        load_qgraph(tmp_path)
    (tmp_path / ARRAYS_NAME).unlink()
    with pytest.raises(UserError, match="is missing"):
        load_qgraph(tmp_path)


def test_weights_of_minus_128_are_refused(tmp_path):
    qgraph = graph()
    save_qgraph(qgraph, tmp_path)
    qgraph.layers[-1].weight[0, 0, 0, 0] = -128
    with pytest.raises(ValueError, match="-128"):
        save_qgraph(qgraph, tmp_path)
