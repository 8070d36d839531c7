from __future__ import annotations

import json

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file

from gen import layergraph_io
from gen.errors import UserError
from gen.floatrun import run_float
from gen.hostgraph import HostGraph
from gen.model import Model
from gen.passes import lower
from gen.quantise.prompts import DEFAULT_PROMPTS
from gen.quantise.trajectories import STEPS, load_runs, record, sample
from gen.trace import trace_unet

PROMPTS = DEFAULT_PROMPTS[:3]


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """Folder with the layer and host graphs of a small conditional U-Net, and its model."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 16),
        layers_per_block=1,
        cross_attention_dim=12,
        attention_head_dim=2,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()
    folder = tmp_path_factory.mktemp("traced")
    graph, host = lower(trace_unet(unet, batch=2, height=8, width=8, tokens=6))
    layergraph_io.save(graph, folder)
    host.save(folder)
    return folder, Model("small", "unet", folder, (), 6, 2)


def test_recordings_hold_what_the_unet_saw(traced, tmp_path):
    folder, model = traced
    path = tmp_path / "calibration.safetensors"
    record(model, folder, PROMPTS, path)
    graph, host = layergraph_io.load(folder), HostGraph.load(folder)
    runs = load_runs(path)
    # three items without guidance make two batches, the second filled up with its last item
    assert len(runs) == 2 * STEPS
    timesteps = DDIMScheduler()
    timesteps.set_timesteps(STEPS)
    for index, (latent, values) in enumerate(runs):
        assert set(values) == set(graph.host_tensors)
        expected = host.evaluate_step(float(timesteps.timesteps[index // 2]), 2)
        assert all(torch.equal(values[name], value) for name, value in expected.items())
        assert run_float(graph, latent, values).shape == (2, 4, 8, 8)
        assert torch.equal(latent[0], latent[1]) == bool(index % 2)


def test_latents_follow_the_sampler(traced):
    """The second step's latent is what DDIM makes of the first and the float result."""
    folder, model = traced
    graph, host = layergraph_io.load(folder), HostGraph.load(folder)
    recording = sample(model, graph, host, PROMPTS[:2])
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(STEPS)
    values = {key.split("/", 2)[2]: v for key, v in recording.arrays.items() if "/0/" in key}
    noise = run_float(graph, recording.arrays["sample/0"], values)
    first = recording.arrays["sample/0"]
    second = scheduler.step(noise, scheduler.timesteps[0], first).prev_sample
    assert torch.equal(recording.arrays["sample/1"], second)


def test_damaged_recordings_are_refused(tmp_path):
    path = tmp_path / "calibration.safetensors"
    arrays = {"sample/0": torch.ones(2), "step/0/a": torch.ones(3), "prompt/0/b": torch.ones(4)}
    save_file(arrays, path, {"runs": json.dumps([[0, 0, 0]])})
    ((latent, host),) = load_runs(path)
    assert latent.shape == (2,) and {n: v.numel() for n, v in host.items()} == {"a": 3, "b": 4}
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="build again"):
        load_runs(path)
    save_file(arrays, path, {"runs": json.dumps([[7, 0, 0]])})
    with pytest.raises(UserError, match="build again"):
        load_runs(path)
    path.unlink()
    with pytest.raises(UserError, match="build again"):
        load_runs(path)
