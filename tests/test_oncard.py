"""Several steps per start behind a pipeline, on the software card of a small model: the pictures
are those of one step per start, whatever happens to the card.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from cpp import ROOT
from diffusers import DDIMScheduler
from storekit import least_store
from tiny_model import save_tiny_model

from gen.build import Settings as BuildSettings
from gen.build import run_build
from gen.errors import UserError
from gen.model import find_model
from gen.plan.engine_file import engine_toml
from gen.program import load_program
from gen.qgraph_io import load_qgraph
from gen.reference.sampler import Coefficients
from host.accelerator import Accelerator
from host.card import Card
from host.codec import Codec, SamplerFormat
from host.faults import CardFault
from host.folder import BuildFolder
from host.journal import Journal, Journaled
from host.oncard import LinearSampler, OnCardScheduler, scheduler_for
from host.sampling import draw, load_pipeline
from host.settings import MAX_STEPS, Settings
from host.swcard.faults import VARIABLE
from host.unet import AcceleratedUNet

pytestmark = pytest.mark.csim
PROMPT = "a red circle on a sky background"
STEPS = 5


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("oncard")
    model = save_tiny_model(folder / "model")
    settings = BuildSettings(sampler=True)
    run_build(find_model(str(model)), folder / "build", settings, lambda _: None)
    return folder / "build"


@pytest.fixture(scope="module")
def accelerator(build):
    return Accelerator(build)


@pytest.fixture(scope="module")
def small_store(build, tmp_path_factory):
    """The same with a store that does not hold all tensors."""
    folder = tmp_path_factory.mktemp("small") / "build"
    shutil.copytree(build, folder)
    engine = load_program(build / "program.json").engine
    rows = least_store(load_qgraph(build), engine)
    board = folder.parent / "small.toml"
    board.write_text(engine_toml(replace(engine, store_rows=rows), "tiny", "u250"))
    settings = BuildSettings(board=str(board), sampler=True)
    run_build(find_model(str(build.parent / "model")), folder, settings, lambda _: None)
    assert load_program(folder / "program.json").moves
    return Accelerator(folder, device=8)


@pytest.fixture
def pipe(build):
    return load_pipeline(build.parent / "model", scheduler="ddim")


def drawn(pipe, accelerator, at_once, guidance=2.5, seed=3, steps=STEPS):
    """The latents of a picture with so many steps per start; 0: the scheduler on the host."""
    unet, scheduler = pipe.unet, pipe.scheduler
    try:
        pipe.unet = card = AcceleratedUNet(accelerator, unet)
        pipe.scheduler = scheduler_for(card, accelerator, scheduler, at_once)
        options = {"num_inference_steps": steps, "guidance_scale": guidance}
        generator = torch.Generator().manual_seed(seed)
        return pipe(PROMPT, output_type="latent", generator=generator, **options).images.numpy()
    finally:
        pipe.unet, pipe.scheduler = unet, scheduler


def test_the_number_of_steps_per_start_changes_nothing(pipe, accelerator):
    one = drawn(pipe, accelerator, 1)
    for at_once in (2, 3, STEPS, 9):
        np.testing.assert_array_equal(drawn(pipe, accelerator, at_once), one)
    plain = drawn(pipe, accelerator, 0)
    # the scheduler rounds to float32; a rounded input may be another integer, seldom
    assert np.abs(one - plain).max() < 0.02 * np.abs(plain).max()
    assert np.median(np.abs(one - plain)) < 1e-5


def test_the_size_of_the_store_changes_nothing(pipe, accelerator, small_store):
    one = drawn(pipe, accelerator, 1)
    for at_once in (1, 2, STEPS):
        np.testing.assert_array_equal(drawn(pipe, small_store, at_once), one)


def test_euler_and_no_guidance(build, accelerator):
    pipe = load_pipeline(build.parent / "model", scheduler="euler")
    for guidance in (1.0, 4.0):
        one = drawn(pipe, accelerator, 1, guidance)
        np.testing.assert_array_equal(drawn(pipe, accelerator, 4, guidance), one)
        plain = drawn(pipe, accelerator, 0, guidance)
        assert np.median(np.abs(one - plain)) < 1e-4


def test_progress_counts_steps(pipe, accelerator):
    card = AcceleratedUNet(accelerator, pipe.unet)
    pipe.unet, inner = card, pipe.scheduler
    pipe.scheduler = scheduler_for(card, accelerator, inner, 2)
    counted = []
    sample = draw(pipe, PROMPT, Settings(steps=STEPS), 1, lambda: counted.append(1))
    assert len(sample.step_seconds) == len(counted) == STEPS


def test_lengths_of_starts_are_known_at_the_call_and_after_it(pipe, accelerator):
    """Pipelines with a callback report a step behind it, others behind the U-Net's call."""
    card = AcceleratedUNet(accelerator, pipe.unet)
    pipe.unet, inner = card, pipe.scheduler
    pipe.scheduler = scheduler = scheduler_for(card, accelerator, inner, 2)
    at_call, after = [], []
    card.register_forward_hook(lambda *_: at_call.append(scheduler.last_steps))

    def callback(_pipe, _index, _time, tensors):
        after.append(scheduler.last_steps)
        return tensors

    pipe(PROMPT, num_inference_steps=5, callback_on_step_end=callback)
    assert at_call == after == [2, 2, 1]


def test_a_run_has_one_sampler(pipe, accelerator, monkeypatch):
    """For every guidance, and others for the next run."""
    made = []

    class Counted(LinearSampler):
        def __init__(self, card, steps, guidance):
            made.append((guidance, len(steps)))
            super().__init__(card, steps, guidance)

    monkeypatch.setattr("host.oncard.LinearSampler", Counted)
    card = AcceleratedUNet(accelerator, pipe.unet)
    pipe.unet, inner = card, pipe.scheduler
    pipe.scheduler = scheduler_for(card, accelerator, inner, 2)

    def more(pipeline, index, _time, tensors):
        pipeline._guidance_scale = 2.5 if index else 4.0
        return tensors

    for steps in (6, 7):
        pipe(PROMPT, num_inference_steps=steps, guidance_scale=2.5, callback_on_step_end=more)
    assert made == [(2.5, 6), (4.0, 6), (2.5, 7), (4.0, 7)]


def test_cycles_are_those_of_a_step(pipe, accelerator):
    """A start of four steps has one start of the kernels, and three updates."""
    cycles = {}
    for at_once in (1, 4):
        drawn(pipe, accelerator, at_once)
        cycles[at_once] = accelerator.cycles
    assert cycles[4] == pytest.approx(cycles[1], rel=0.2)


def test_halves_of_a_pair_in_calls_of_their_own_are_refused(pipe, accelerator):
    scheduler = OnCardScheduler(pipe.scheduler, accelerator, 2)
    scheduler.set_timesteps(4)
    latent = np.zeros((1, *accelerator.latent_shape), np.float32)
    for _ in range(2):
        answer = torch.from_numpy(scheduler.stepper.step(latent, scheduler.timesteps[0]))
    with pytest.raises(UserError, match="does more with predictions than guidance"):
        scheduler.step(answer, scheduler.timesteps[0], torch.from_numpy(latent))


class PairsOfTwo:
    """An accelerator for two guided pairs, as far as the scheduler asks."""

    sampler = SamplerFormat(samples=2, partner=2, input_scale=1.0, result_scale=1.0, replicas=1)


def test_fewer_samples_than_the_accelerators_are_refused():
    scheduler = OnCardScheduler(DDIMScheduler(clip_sample=False), PairsOfTwo(), 2)
    scheduler.set_timesteps(4)
    pair = scheduler.stepper.step(np.zeros((2, 4, 8, 8), np.float32), scheduler.timesteps[0])
    with pytest.raises(UserError, match="draws 1 samples at once, the accelerator's sampler 2"):
        scheduler.step(torch.from_numpy(pair), scheduler.timesteps[0], torch.zeros(1, 4, 8, 8))


def test_latents_changed_by_a_callback_are_taken(pipe, accelerator):
    card = AcceleratedUNet(accelerator, pipe.unet)
    pipe.unet, inner = card, pipe.scheduler
    pipe.scheduler = scheduler_for(card, accelerator, inner, 2)

    def halve(_pipe, index, _time, tensors):
        if index == 0:
            tensors["latents"] = tensors["latents"] / 2
        return tensors

    def run(callback):
        options = {"num_inference_steps": 4, "callback_on_step_end": callback}
        generator = torch.Generator().manual_seed(1)
        return pipe(PROMPT, output_type="latent", generator=generator, **options).images

    assert not torch.equal(run(halve), run(None))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"guidance_rescale": 0.7}, "does more with predictions than guidance"),
        ({"eta": 0.5}, r"noise \(eta\) cannot be added on the card"),
        ({"num_images_per_prompt": 2}, "draws 4 samples at once, the accelerator's sampler 1"),
    ],
)
def test_pipelines_that_do_more_are_refused(pipe, accelerator, options, sentence):
    card = AcceleratedUNet(accelerator, pipe.unet)
    pipe.unet, inner = card, pipe.scheduler
    pipe.scheduler = scheduler_for(card, accelerator, inner, 2)
    with pytest.raises(UserError, match=sentence):
        pipe(PROMPT, num_inference_steps=4, **options)


def test_samplers_with_noise_are_refused(build, accelerator):
    pipe = load_pipeline(build.parent / "model", scheduler="ddpm")
    scheduler = OnCardScheduler(pipe.scheduler, accelerator, 2)
    with pytest.raises(UserError, match="DDPMScheduler cannot run on the card"):
        scheduler.set_timesteps(4)


def test_starts_are_checked(accelerator):
    shape = (1, *accelerator.latent_shape)
    with pytest.raises(UserError, match=r"takes 1 updates of a state of shape \[1, 4, 8, 8\]"):
        accelerator.run_steps(np.zeros(shape, np.int32), [5.0, 4.0], [])
    too_many = [Coefficients(0, 0, 0)] * MAX_STEPS
    with pytest.raises(UserError, match=f"{MAX_STEPS + 1} steps in one start; {MAX_STEPS} are"):
        accelerator.run_steps(np.zeros(shape, np.int32), [5.0] * (MAX_STEPS + 1), too_many)


def test_one_step_is_the_usual_one(accelerator):
    """A start of one step: results of the bytes that a plain step reads."""
    rng = np.random.default_rng(1)
    latent = rng.standard_normal((2, *accelerator.latent_shape)).astype(np.float32)
    latent[1] = latent[0]
    prompt = rng.standard_normal((2, *accelerator.prompt_shape)).astype(np.float32)
    form = accelerator.sampler
    state = np.rint(latent[:1].astype(np.float64) / form.input_scale * 2.0**20).astype(np.int32)
    result, left = accelerator.run_steps(state, [500.0], [], prompt)
    plain = accelerator.step(latent, 500.0, prompt)
    np.testing.assert_array_equal((result * form.result_scale).astype(np.float32), plain)
    assert left is state


def test_a_journal_keeps_whole_starts(tmp_path, accelerator):
    class Counted:
        def __init__(self):
            self.starts = []
            self.sampler, self.several = accelerator.sampler, accelerator.several

        def run_steps(self, state, timesteps, *others):
            self.starts.append(len(timesteps))
            return accelerator.run_steps(state, timesteps, *others)

    rng = np.random.default_rng(1)
    shape = (1, *accelerator.latent_shape)
    state = rng.integers(-(1 << 25), 1 << 25, shape).astype(np.int32)
    prompt = rng.standard_normal((2, *accelerator.prompt_shape)).astype(np.float32)
    by = Coefficients(1 << 26, 1 << 30, -(1 << 31))
    path, card = tmp_path / "a.journal", Counted()
    first = Journaled(card, Journal(path, "x"))
    expected = first.run_steps(state, [500.0, 400.0], [by], prompt)
    again = Journaled(card, Journal(path, "x"))
    got = again.run_steps(state, [500.0, 400.0], [by], prompt)
    for one, other in zip(expected, got, strict=True):
        np.testing.assert_array_equal(one, other)
    assert card.starts == [2]
    assert (first.computed, again.computed) == ([True, True], [False, False])
    again.run_steps(state, [500.0, 401.0], [by], prompt)
    again.run_steps(state, [500.0, 400.0], [Coefficients(by.a, by.c0 + 1, by.c1)], prompt)
    assert card.starts == [2, 2, 2]


# 0 and 1 are plain steps of the self-test, 2 and 3 its start of two
@pytest.mark.parametrize(
    ("card", "fault", "sentence"),
    [
        (9, "wrong@3", "1 values of its self-test over 2 steps of one start differ"),
        (10, "timeout@2", "did not finish within 40 s"),
    ],
)
def test_the_self_test_covers_starts(build, monkeypatch, card, fault, sentence):
    monkeypatch.setenv(VARIABLE, f"{fault}:{card}")
    with pytest.raises(CardFault, match=sentence):
        Accelerator(build, device=card)


def test_kernels_that_differ_in_their_steps_end_in_an_error(build):
    folder = BuildFolder(build)
    codec: Codec = folder.codec()
    accelerator = Accelerator.from_parts(codec, Card(build / "card.xclbin", 2))
    session = accelerator._session
    session._set("steps", 1)
    store = session.ranks[1].store
    store.set_scalar(store.scalars["steps"], 2)
    with pytest.raises(CardFault, match="kernels differ in their scalar argument steps"):
        session.step(session.dynamic())


def image(build, out, *extra, faults=""):
    return subprocess.run(
        [sys.executable, "-m", "host.image", "--build", str(build), "--out", str(out), "--steps",
         str(STEPS), "--prompt", PROMPT, *extra],
        cwd=ROOT, env={**os.environ, VARIABLE: faults, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def test_pictures_survive_a_timeout_in_the_middle_of_a_start(build, tmp_path):
    """Steps 4 to 8 of the card are the picture's, two per start: the second start times out."""
    results = {}
    for name, faults in (("undisturbed", ""), ("timeout", "timeout@7")):
        out = tmp_path / name
        done = image(build, out, "--on-card-sampler", "2", faults=faults)
        assert done.returncode == 0, done.stderr
        results[name] = (out / f"01-{PROMPT.replace(' ', '-')}.accelerator.png").read_bytes()
        opened_again = "card 0 is opened again: card 0: kernel store_1 did not finish within 40 s"
        assert (opened_again in done.stderr) == bool(faults)
    assert results["timeout"] == results["undisturbed"]
    refused = image(build, tmp_path / "no", "--on-card-sampler", "2", "--scheduler", "unipc")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "UniPCMultistepScheduler cannot run on the card" in refused.stderr
