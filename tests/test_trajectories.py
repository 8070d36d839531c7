"""Calibration: what is recorded, how much of it, and that it goes on where it was interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel, UNet2DModel
from PIL import Image
from safetensors.torch import save_file

from gen import layergraph_io
from gen.errors import UserError
from gen.floatrun import run_float
from gen.hostgraph import HostGraph
from gen.layers import TensorInfo
from gen.macs import macs_per_step
from gen.model import Model
from gen.passes import lower
from gen.quantise.effort import BUDGET, STEPS, choose_effort
from gen.quantise.pictures import load_latents
from gen.quantise.prompts import DEFAULT_PROMPTS
from gen.quantise.statistics import Statistics
from gen.quantise.subjects import Subjects, read_subjects
from gen.quantise.trajectories import CALIBRATION, STATISTICS, load_runs, record
from gen.stages import ROOT
from gen.trace import trace_unet

SUBJECTS = Subjects(prompts=DEFAULT_PROMPTS[:3])


def small_unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 16),
        layers_per_block=1,
        cross_attention_dim=12,
        attention_head_dim=2,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """Folder with the layer and host graphs of a small conditional U-Net, and its model."""
    folder = tmp_path_factory.mktemp("traced")
    unet = small_unet()
    whole = trace_unet(unet, batch=2, height=8, width=8, tokens=6)
    expected = whole.graph.macs()
    graph, host = lower(whole)
    assert macs_per_step(graph) == expected - host.graph.macs()
    layergraph_io.save(graph, folder)
    host.save(folder)
    return folder, Model("small", "unet", folder, (), 6, 2)


@pytest.fixture(scope="module")
def recorded(traced, tmp_path_factory):
    folder, model = traced
    made = tmp_path_factory.mktemp("recorded")
    record(model, folder, SUBJECTS, made)
    return made


def test_recordings_hold_what_the_unet_saw(traced, recorded):
    folder, _ = traced
    graph, host = layergraph_io.load(folder), HostGraph.load(folder)
    runs = load_runs(recorded / CALIBRATION)
    # three items without guidance make two trajectories, the second filled up with its last item
    assert len(runs) == 2 * STEPS
    timesteps = DDIMScheduler()
    timesteps.set_timesteps(STEPS)
    for index, (latent, values) in enumerate(runs):
        assert set(values) == set(graph.host_tensors)
        expected = host.evaluate_step(float(timesteps.timesteps[index % STEPS]), 2)
        assert all(torch.equal(values[name], value) for name, value in expected.items())
        assert run_float(graph, latent, values).shape == (2, 4, 8, 8)
        assert torch.equal(latent[0], latent[1]) == (index >= STEPS)


def test_latents_follow_the_sampler(traced, recorded):
    """The second step's latent is what DDIM makes of the first and the float result."""
    graph = layergraph_io.load(traced[0])
    (first, values), (second, _) = load_runs(recorded / CALIBRATION)[:2]
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(STEPS)
    noise = run_float(graph, first, values)
    assert torch.equal(second, scheduler.step(noise, scheduler.timesteps[0], first).prev_sample)


def test_statistics_cover_what_the_runs_show(traced, recorded):
    graph = layergraph_io.load(traced[0])
    statistics = Statistics.load(recorded / STATISTICS)
    assert set(statistics.tensors) == set(graph.tensors)
    assert set(statistics.layers) == {layer.name for layer in graph.layers}
    largest = dict.fromkeys(graph.tensors, 0.0)

    def observe(kind, name, values):
        if kind == "tensor":
            largest[name] = max(largest[name], float(values.abs().max()))

    for latent, values in load_runs(recorded / CALIBRATION):
        run_float(graph, latent, values, observe)
    for name, expected in largest.items():
        assert statistics.tensors[name].absmax == pytest.approx(expected, rel=1e-4)
        inside = statistics.tensors[name].values()
        assert np.abs(inside).max() <= statistics.tensors[name].absmax


CHILD = """
import sys, time
from pathlib import Path
import torch
import gen.quantise.trajectories as trajectories
from gen.model import Model
from gen.quantise import statistics
from gen.quantise.statistics import Collector
from gen.quantise.subjects import Subjects
from gen.quantise.trajectories import record

plain = Collector.run
def slow(self, *args):
    time.sleep(float(sys.argv[3]))
    return plain(self, *args)
Collector.run = slow
torch.set_num_threads(1)
trajectories.PIECE_SECONDS = float(sys.argv[4])
folder = Path(sys.argv[1])
model = Model("small", "unet", folder, (), 6, 2)
record(model, folder, Subjects(prompts=tuple(sys.argv[5:])), Path(sys.argv[2]))
"""


@pytest.mark.parametrize(("seconds", "second"), [("100", "0001-0000"), ("0", "0000-0001")])
def test_a_killed_calibration_goes_on(traced, recorded, tmp_path, seconds, second):
    """With the next trajectory, or within one whose steps take long."""
    folder, model = traced
    paths = [str(folder), str(tmp_path)]
    command = [sys.executable, "-c", CHILD, *paths, "0.2", seconds, *SUBJECTS.prompts]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "seen-0000-0000.safetensors").is_file() and time.monotonic() < deadline:
        assert child.poll() is None, "the child must not end before it is killed"
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / CALIBRATION).exists()
    assert not (tmp_path / f"seen-{second}.safetensors").exists()
    first = (tmp_path / "seen-0000-0000.safetensors").stat().st_mtime_ns
    record(model, folder, SUBJECTS, tmp_path)
    assert (tmp_path / "seen-0000-0000.safetensors").stat().st_mtime_ns == first
    for name in (CALIBRATION, STATISTICS):
        assert (tmp_path / name).read_bytes() == (recorded / name).read_bytes()


def test_effort_shrinks_with_the_size_of_the_model():
    small = choose_effort(10**9, 2, 2, 6, all_prompts=False)
    assert (small.prompts, small.steps, small.group, small.batches, small.runs) == (6, 8, 1, 1, 48)
    middle = choose_effort(101 * 10**9, 1, 1, 6, all_prompts=False)
    assert (middle.prompts, middle.steps) == (4, 8)
    # SD 1.5: less than one whole trajectory
    large = choose_effort(803 * 10**9, 2, 1, 6, all_prompts=False)
    assert (large.prompts, large.group, large.steps, large.runs) == (2, 2, 4, 4)
    own = choose_effort(803 * 10**9, 2, 2, 5, all_prompts=True)
    assert (own.prompts, own.steps) == (5, 4)
    assert choose_effort(1, 8, 2, 6, all_prompts=False).group == 4
    assert choose_effort(1, 1, 2, 6, all_prompts=False).batches == 2
    assert 10**9 * small.runs < BUDGET


def picture(path, color, size=(40, 24)):
    Image.new("RGB", size, color).save(path)
    return path


def test_pictures_become_latents_by_the_autoencoder(tmp_path):
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        scaling_factor=0.5,
    ).eval()
    vae.save_pretrained(tmp_path / "vae")
    paths = [picture(tmp_path / "a.png", "red"), picture(tmp_path / "b.jpg", "blue", (16, 16))]
    model = Model("pipe", "pipeline", tmp_path, (), 0, 1)
    entry = TensorInfo("sample", 4, 8, 8, "input")
    latents = load_latents(model, entry, paths)
    red = torch.tensor([1.0, -1.0, -1.0])[None, :, None, None].expand(1, 3, 16, 16)
    with torch.no_grad():
        expected = vae.encode(red).latent_dist.mean * 0.5
    torch.testing.assert_close(latents[:1], expected, rtol=1e-4, atol=1e-5)
    assert latents.shape == (2, 4, 8, 8) and not torch.allclose(latents[0], latents[1])
    with pytest.raises(UserError, match="do not belong together"):
        load_latents(model, replace(entry, channels=3), paths)
    bare = Model("bare", "unet", tmp_path, (), 0, 1)
    with pytest.raises(UserError, match="without an autoencoder"):
        load_latents(bare, entry, paths)


def test_pictures_are_noised_for_a_unet_of_pixels(tmp_path):
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    ).eval()
    graph, host = lower(trace_unet(unet, batch=1, height=8, width=8))
    layergraph_io.save(graph, tmp_path)
    host.save(tmp_path)
    for name, color in (("1.png", "white"), ("2.png", "black")):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        picture(tmp_path / "pictures" / name, color)
    subjects = read_subjects(tmp_path / "pictures")
    assert [path.name for path in subjects.pictures] == ["1.png", "2.png"]
    record(Model("pixels", "unet", tmp_path, (), 0, 1), tmp_path, subjects, tmp_path)
    runs = load_runs(tmp_path / CALIBRATION)
    assert len(runs) == 2 * STEPS
    means = [float(latent.mean()) for latent, _ in runs]
    # from noise to picture: white and black are 1 and -1
    assert abs(means[0]) < 0.3 and means[STEPS - 1] > 0.9 and means[-1] < -0.9


def test_unusable_pictures_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match="holds no picture"):
        read_subjects(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no picture")
    model = Model("pixels", "unet", tmp_path, (), 0, 1)
    with pytest.raises(UserError, match=r"a\.png: cannot be read as a picture"):
        load_latents(model, TensorInfo("sample", 3, 8, 8, "input"), [tmp_path / "a.png"])
    assert read_subjects(None) == Subjects()


def test_damaged_recordings_are_refused(tmp_path):
    path = tmp_path / CALIBRATION
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


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_damaged_statistics_are_refused(recorded, tmp_path, keep):
    data = (recorded / STATISTICS).read_bytes()
    (tmp_path / STATISTICS).write_bytes(data[:keep])
    with pytest.raises(UserError, match="build again"):
        Statistics.load(tmp_path / STATISTICS)
    with pytest.raises(UserError, match="build again"):
        Statistics.load(tmp_path / "missing")
