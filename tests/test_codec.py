"""Numbers to bytes and back, against the pieces of the generator that define them."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from layerkit import random_qgraph

from gen.hostints import output_to_float, prompt_weights, quantise_latent, step_biases
from gen.program import DynamicBuffer, Engine, lower, pack_latent
from gen.program.io import to_rows
from host import packing
from host.codec import STEPS_KEPT, Codec


class FakeHost:
    """Host values that are a simple function of the timestep or the prompt."""

    def __init__(self, qgraph):
        self.tensors = qgraph.graph.host_tensors.values()
        self.calls = Counter()
        node = SimpleNamespace(name="encoder_hidden_states", shape=(2, 5, 3))
        prompt = [node] if any(t.when == "prompt" for t in self.tensors) else []
        self.graph = SimpleNamespace(inputs=lambda: prompt)

    def _values(self, when, scale):
        return {
            tensor.name: torch.linspace(-1, 1, int(np.prod(tensor.shape))).reshape(tensor.shape)
            * scale
            for tensor in self.tensors
            if tensor.when == when
        }

    def extra_inputs(self):
        return {}

    def evaluate_step(self, timestep, batch, extra=None):
        self.calls[timestep] += 1
        return self._values("step", timestep)

    def evaluate_prompt(self, prompt, extra=None):
        return self._values("prompt", float(prompt.sum()))


@pytest.fixture(params=["host_bias", "cross_attention", "conv3x3"])
def parts(request):
    qgraph = random_qgraph(request.param, np.random.default_rng(4))
    program = lower(qgraph, Engine())
    host = FakeHost(qgraph)
    return SimpleNamespace(
        qgraph=qgraph,
        program=program,
        host=host,
        codec=Codec(program, qgraph, host, np.zeros(64, np.uint8)),
    )


def dirty(codec):
    """A dynamic buffer whose untouched bytes are seen."""
    return np.full(codec.ranks[0].dynamic_bytes, 0xA5, np.uint8)


def test_latent_and_result(parts):
    codec, rng = parts.codec, np.random.default_rng(0)
    latent = rng.normal(0, 2, (codec.batch, *codec.latent_shape)).astype(np.float32)
    buffer = np.zeros(codec.ranks[0].latent_bytes, np.uint8)
    codec.write_latent([buffer], latent)
    rows = pack_latent(parts.program, quantise_latent(parts.qgraph, latent))
    np.testing.assert_array_equal(buffer, rows.reshape(-1))

    output = parts.program.tensors[parts.program.output]
    shape = (codec.batch, output.channels, output.height, output.width)
    stored = rng.integers(-(1 << 15), 1 << 15, shape).astype(np.int16)
    result = codec.read_result([to_rows(output, stored).reshape(-1)])
    np.testing.assert_array_equal(result, output_to_float(parts.qgraph, stored))
    assert result.dtype == np.float32


@pytest.mark.parametrize("regular", [True, False])
def test_extreme_latents_and_results(parts, regular, monkeypatch):
    if not regular:  # as if the values lay on no grid
        monkeypatch.setattr(packing, "grid_view", lambda *_: None)
    codec, qgraph = parts.codec, parts.qgraph
    scale = np.float32(qgraph.tensors[qgraph.graph.input].scale)
    shape = (codec.batch, *codec.latent_shape)
    rng = np.random.default_rng(3)
    values = [0.0, -0.0, 1e30, -1e30, 127.5, 126.5, -128.5, -0.5, 0.125, -0.125, 127.4999, 1e-30]
    for _ in range(20):
        steps = rng.choice(values, shape) + rng.integers(-3, 4, shape) / 8
        latent = (steps.astype(np.float32) * scale).astype(np.float32)
        buffer = np.zeros(codec.ranks[0].latent_bytes, np.uint8)
        codec.write_latent([buffer], latent)
        rows = pack_latent(parts.program, quantise_latent(qgraph, latent))
        np.testing.assert_array_equal(buffer, rows.reshape(-1))
    output = parts.program.tensors[parts.program.output]
    shape = (codec.batch, output.channels, output.height, output.width)
    stored = rng.choice([-32768, -257, -256, -1, 0, 1, 255, 256, 32767], shape).astype(np.int16)
    result = codec.read_result([to_rows(output, stored).reshape(-1)])
    np.testing.assert_array_equal(result, output_to_float(qgraph, stored))


def test_positions_on_a_grid_and_not():
    grid = 7 + np.arange(2)[:, None] * 100 + np.arange(3) * 5
    assert packing.strides(grid) == (7, (100, 5))
    grid[1, 2] += 1
    assert packing.strides(grid) is None
    assert packing.strides(np.array([[9]])) == (9, (0, 0))


def test_dynamic_buffer(parts):
    codec, program, qgraph = parts.codec, parts.program, parts.qgraph
    mine = np.zeros(codec.ranks[0].dynamic_bytes, np.uint8)
    prompt = np.full((codec.batch, 5, 3), 0.01, np.float32)
    codec.write_step([mine], (3.0,) * codec.batch)
    if codec.prompt_shape:
        codec.write_prompt([mine], prompt)

    expected = DynamicBuffer(program)
    step = {k: v.numpy() for k, v in parts.host.evaluate_step(3.0, codec.batch).items()}
    expected.set_step(step_biases(qgraph, step))
    weights = parts.host.evaluate_prompt(torch.from_numpy(prompt))
    weights = {name: value.numpy() for name, value in weights.items()}
    expected.set_prompt(prompt_weights(qgraph, weights))
    np.testing.assert_array_equal(mine, expected.data)


def test_ranges_hold_all_that_is_written_and_do_not_overlap(parts):
    codec, rank = parts.codec, parts.codec.ranks[0]
    step, prompt = dirty(codec), dirty(codec)
    codec.write_step([step], (40.0,) * codec.batch)
    if codec.prompt_shape:
        codec.write_prompt([prompt], np.ones((codec.batch, 5, 3), np.float32))
    for data, (size, offset) in ((step, rank.step_range), (prompt, rank.prompt_range)):
        changed = np.flatnonzero(data != 0xA5)
        assert size or not changed.size
        if changed.size:
            assert offset <= changed.min() and changed.max() < offset + size
    (size, offset), (other_size, other) = rank.step_range, rank.prompt_range
    assert not size or not other_size or offset + size <= other or other + other_size <= offset


def test_timesteps_of_single_samples():
    qgraph = next(
        made
        for seed in range(100)
        if (made := random_qgraph("host_bias", np.random.default_rng(seed))).graph.batch == 2
    )
    program, host = lower(qgraph, Engine()), FakeHost(qgraph)
    codec = Codec(program, qgraph, host, np.zeros(64, np.uint8))
    mixed = dirty(codec)
    codec.write_step([mixed], (3.0, 70.0))
    values = {
        name: np.stack([host.evaluate_step(3.0, 2)[name][0], host.evaluate_step(70.0, 2)[name][1]])
        for name in host.evaluate_step(3.0, 2)
    }
    expected = DynamicBuffer(program)
    ((offset, size),) = expected.set_step(step_biases(qgraph, values))
    np.testing.assert_array_equal(
        mixed[offset : offset + size], expected.data[offset : offset + size]
    )


def test_timesteps_are_kept_but_not_for_ever(parts):
    codec, host = parts.codec, parts.host
    data = np.zeros(codec.ranks[0].dynamic_bytes, np.uint8)
    for timestep in [1.0, 2.0, 1.0, 2.0]:
        codec.write_step([data], (timestep,) * codec.batch)
    assert host.calls == {1.0: 1, 2.0: 1}
    for timestep in range(3, STEPS_KEPT + 4):
        codec.write_step([data], (float(timestep),) * codec.batch)
    codec.write_step([data], (1.0,) * codec.batch)
    assert host.calls[1.0] == 2
