"""Numbers to bytes and back, against the pieces of the generator that define them."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from layerkit import random_qgraph

from gen.hostints import (
    output_to_float,
    prompt_weights,
    quantise_latent,
    step_affines,
    step_biases,
)
from gen.program import DynamicBuffer, Engine, lower, pack_latent
from gen.program.io import to_rows
from gen.program.layout import Stored
from host import packing
from host.codec import STEPS_KEPT, Codec


class FakeHost:
    """Host values that are a simple function of the timestep or the prompt."""

    def __init__(self, qgraph):
        self.tensors = qgraph.graph.host_tensors.values()
        self.calls = Counter()
        prompted = any(t.when == "prompt" for t in self.tensors)
        self.prompt_shape = (5, 3) if prompted else None

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


def made_codec(qgraph, host, ranks):
    program = lower(qgraph, Engine(ranks=ranks))
    weights = np.zeros(program.ranks * program.static_words * 64, np.uint8)
    return SimpleNamespace(
        qgraph=qgraph,
        program=program,
        host=host,
        codec=Codec(program, qgraph, host, weights),
    )


@pytest.fixture(
    params=[
        ("host_bias", 1),
        ("host_bias", 4),
        ("host_affine", 2),
        ("cross_attention", 1),
        ("cross_attention", 4),
        ("conv3x3", 2),
    ],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def parts(request):
    kind, ranks = request.param
    qgraph = random_qgraph(kind, np.random.default_rng(4))
    return made_codec(qgraph, FakeHost(qgraph), ranks)


def dirty(codec):
    """Dynamic buffers whose untouched bytes are seen."""
    return [np.full(each.dynamic_bytes, 0xA5, np.uint8) for each in codec.ranks]


def latent_buffers(codec):
    return [np.zeros(each.latent_bytes, np.uint8) for each in codec.ranks]


def flat(ranks):
    return [each.reshape(-1) for each in ranks]


def test_latent_and_result(parts):
    codec, rng = parts.codec, np.random.default_rng(0)
    latent = rng.normal(0, 2, (codec.batch, *codec.latent_shape)).astype(np.float32)
    buffers = latent_buffers(codec)
    codec.write_latent(buffers, latent)
    rows = flat(pack_latent(parts.program, quantise_latent(parts.qgraph, latent)))
    np.testing.assert_array_equal(buffers, rows)
    for each, of_rank in zip(rows, codec.ranks, strict=True):
        assert of_rank.latent or not each.any()

    output = parts.program.tensors[parts.program.output]
    shape = (codec.batch, output.channels, output.height, output.width)
    stored = rng.integers(-(1 << 15), 1 << 15, shape).astype(np.int16)
    rows = flat(to_rows(output, stored))
    # what lies on a rank without values is of no account
    rows = [
        each if rank.result else each ^ 0xFF for each, rank in zip(rows, codec.ranks, strict=True)
    ]
    result = codec.read_result(rows)
    np.testing.assert_array_equal(result, output_to_float(parts.qgraph, stored))
    assert result.dtype == np.float32
    np.testing.assert_array_equal(codec.result_values(rows), stored)


@pytest.mark.parametrize("channels", [1, 3, 8, 20, 70])
@pytest.mark.parametrize("size", [(4, 4), (3, 5), (16, 16)])
def test_any_number_of_channels_and_pixels(channels, size):
    """Latents and results over several groups and ranks, and pixels that fill no octet."""
    rng = np.random.default_rng(channels)
    for ranks in (1, 2, 4):
        program = SimpleNamespace(
            ranks=ranks,
            input="x",
            output="y",
            tensors={
                "x": Stored("x", 0, False, 2, channels, *size, ranks=ranks),
                "y": Stored("y", 0, True, 2, channels, *size, ranks=ranks),
            },
        )
        program.input_rows = program.tensors["x"].rows
        program.output_rows = program.tensors["y"].rows
        narrow = rng.integers(-128, 128, (2, channels, *size)).astype(np.int8)
        row_bytes = np.concatenate(flat(to_rows(program.tensors["x"], narrow)))
        taken = row_bytes[packing.latent_map(program)]
        np.testing.assert_array_equal(taken.view(np.int8), narrow)
        wide = rng.integers(-(1 << 15), 1 << 15, (2, channels, *size)).astype(np.int16)
        row_bytes = np.concatenate(flat(to_rows(program.tensors["y"], wide)))
        taken = row_bytes[packing.result_map(program)]
        np.testing.assert_array_equal(taken.view(np.int16)[..., 0], wide)
        found = packing.parts(packing.latent_map(program), program.input_rows * 128)
        assert {part.rank for part in found} == set(range(min(ranks, -(-channels // 8))))


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
        buffers = latent_buffers(codec)
        codec.write_latent(buffers, latent)
        rows = pack_latent(parts.program, quantise_latent(qgraph, latent))
        np.testing.assert_array_equal(buffers, flat(rows))
    output = parts.program.tensors[parts.program.output]
    shape = (codec.batch, output.channels, output.height, output.width)
    stored = rng.choice([-32768, -257, -256, -1, 0, 1, 255, 256, 32767], shape).astype(np.int16)
    result = codec.read_result(flat(to_rows(output, stored)))
    np.testing.assert_array_equal(result, output_to_float(qgraph, stored))


def test_positions_on_a_grid_and_not():
    grid = 7 + np.arange(2)[:, None] * 100 + np.arange(3) * 5
    assert packing.strides(grid) == (7, (100, 5))
    grid[1, 2] += 1
    assert packing.strides(grid) is None
    assert packing.strides(np.array([[9]])) == (9, (0, 0))


def numpy_values(values):
    return {name: value.numpy() for name, value in values.items()}


def test_dynamic_buffer(parts):
    codec, program, qgraph = parts.codec, parts.program, parts.qgraph
    mine = [np.zeros(each.dynamic_bytes, np.uint8) for each in codec.ranks]
    prompt = np.full((codec.batch, 5, 3), 0.01, np.float32)
    codec.write_step(mine, (3.0,) * codec.batch)
    if codec.prompt_shape:
        codec.write_prompt(mine, prompt)

    expected = DynamicBuffer(program, qgraph)
    step = numpy_values(parts.host.evaluate_step(3.0, codec.batch))
    expected.set_step(step_biases(qgraph, step))
    expected.set_affine(step_affines(qgraph, step))
    weights = numpy_values(parts.host.evaluate_prompt(torch.from_numpy(prompt)))
    expected.set_prompt(prompt_weights(qgraph, weights))
    np.testing.assert_array_equal(mine, expected.data)


def test_ranges_hold_all_that_is_written_and_do_not_overlap(parts):
    codec = parts.codec
    step, prompt = dirty(codec), dirty(codec)
    codec.write_step(step, (40.0,) * codec.batch)
    if codec.prompt_shape:
        codec.write_prompt(prompt, np.ones((codec.batch, 5, 3), np.float32))
    for ranks, (size, offset) in ((step, codec.step_range), (prompt, codec.prompt_range)):
        for data in ranks:
            changed = np.flatnonzero(data != 0xA5)
            assert size or not changed.size
            if changed.size:
                assert offset <= changed.min() and changed.max() < offset + size
    (size, offset), (other_size, other) = codec.step_range, codec.prompt_range
    assert not size or not other_size or offset + size <= other or other + other_size <= offset


def test_timesteps_of_single_samples():
    qgraph = next(
        made
        for seed in range(100)
        if (made := random_qgraph("host_bias", np.random.default_rng(seed))).graph.batch == 2
    )
    made = made_codec(qgraph, FakeHost(qgraph), 2)
    codec, host = made.codec, made.host
    mixed = dirty(codec)
    codec.write_step(mixed, (3.0, 70.0))
    values = {
        name: np.stack([host.evaluate_step(3.0, 2)[name][0], host.evaluate_step(70.0, 2)[name][1]])
        for name in host.evaluate_step(3.0, 2)
    }
    expected = DynamicBuffer(made.program, qgraph)
    ((offset, size),) = expected.set_step(step_biases(qgraph, values))
    part = slice(offset, offset + size)
    np.testing.assert_array_equal([each[part] for each in mixed], expected.data[:, part])


def test_timesteps_are_kept_but_not_for_ever(parts):
    codec, host = parts.codec, parts.host
    data = dirty(codec)
    for timestep in [1.0, 2.0, 1.0, 2.0]:
        codec.write_step(data, (timestep,) * codec.batch)
    assert host.calls == {1.0: 1, 2.0: 1}
    for timestep in range(3, STEPS_KEPT + 4):
        codec.write_step(data, (float(timestep),) * codec.batch)
    codec.write_step(data, (1.0,) * codec.batch)
    assert host.calls[1.0] == 2
