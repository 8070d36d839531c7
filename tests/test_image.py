"""The image, quality and bench commands around a tiny float pipeline."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel
from PIL import Image
from tiny_pipeline import FloatAccelerator, tiny_pipe, tiny_unet

from gen.cli import guarded
from gen.errors import UserError
from host import bench, image, overhead, quality, sampling
from host.accelerator import Accelerator
from host.faults import CardFault
from host.grid import Pair, grid
from host.pictures import Painter, RunState, jobs_of
from host.sampling import load_pipeline
from host.settings import MAX_SEED, MAX_STEPS, Settings

PROMPTS = ["a red circle on a sky background", "Ünlucky / prompt: ../../etc"]
SETTINGS = Settings(seed=5, steps=3)


class Prompted:
    """The tiny pipeline with a text encoder that knows two prompts by heart."""

    def __init__(self, pipe):
        object.__setattr__(self, "pipe", pipe)

    def __getattr__(self, name):
        return getattr(self.pipe, name)

    def __setattr__(self, name, value):
        setattr(self.pipe, name, value)

    def __call__(self, prompt, **options):
        generator = torch.Generator().manual_seed(PROMPTS.index(prompt))
        embeds = torch.randn(2, 1, 5, 16, generator=generator)
        return self.pipe(prompt_embeds=embeds[0], negative_prompt_embeds=embeds[1], **options)


class TinyAccelerator(FloatAccelerator):
    batch = 2
    latent_shape = (4, 8, 8)
    prompt_shape = (5, 16)
    cycles = 123_456
    card_seconds = 0.0
    clock_mhz = 222.0

    def __init__(self, unet, error=0.0):
        super().__init__(unet)
        self.error = error

    def step(self, latent, timestep, encoder_hidden_states=None, extra=None):
        timestep = np.atleast_1d(np.float64(timestep))
        noise = super().step(latent, timestep, encoder_hidden_states, extra)
        return noise + np.float32(self.error)


@pytest.fixture
def pipe():
    return tiny_pipe()


@pytest.fixture
def tiny(pipe, monkeypatch):
    monkeypatch.setattr(sampling, "load_pipeline", lambda *_: Prompted(pipe))
    return TinyAccelerator(tiny_unet())


def paint(accelerator, out, prompts=PROMPTS, on_step=lambda *_: None):
    """Draw in this process, as a worker does; returns the state and the rows."""
    state = RunState(out, {"prompts": prompts})
    painter = Painter(accelerator, out, SETTINGS, state)
    return state, [painter.paint(job, on_step) for job in jobs_of(prompts, SETTINGS)]


def test_files_grid_and_table(tiny, tmp_path):
    steps = []
    state, rows = paint(tiny, tmp_path, on_step=lambda *counts: steps.append(counts))
    jobs = jobs_of(PROMPTS, SETTINGS)
    assert [state.finished(job) for job in jobs] == rows
    image.draw_grid(list(zip(jobs, rows, strict=True)), tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "01-a-red-circle-on-a-sky-background.accelerator.png",
        "01-a-red-circle-on-a-sky-background.float.png",
        "02-nlucky-prompt-etc.accelerator.png",
        "02-nlucky-prompt-etc.float.png",
        "grid.png",
    ]
    assert [row.psnr for row in rows] == [100.0, 100.0]
    assert steps[:6] == [(1, 0), (2, 0), (3, 0), (4, 1), (5, 2), (6, 3)]
    first, second = (
        np.array(Image.open(tmp_path / f"{stem}.float.png"))
        for stem in ("01-a-red-circle-on-a-sky-background", "02-nlucky-prompt-etc")
    )
    assert (first != second).any()
    text = image.table(rows, 222.0)
    assert "123,456" in text and "0.556" in text and "100.0 dB" in text
    state.clear()
    assert not (tmp_path / ".unfinished").exists()


def test_accelerator_pictures_come_from_the_accelerator(tiny, tmp_path):
    tiny.error = 0.3
    _, rows = paint(tiny, tmp_path, PROMPTS[:1])
    assert rows[0].psnr < 60
    assert len(tiny.calls) == 3


def test_both_pictures_have_the_size_of_the_build(pipe, monkeypatch, tmp_path):
    class Wide(TinyAccelerator):
        latent_shape = (4, 8, 16)

    unet = copy.deepcopy(tiny_unet())
    pipe.unet = unet
    monkeypatch.setattr(sampling, "load_pipeline", lambda *_: Prompted(pipe))
    _, (row,) = paint(Wide(unet), tmp_path, PROMPTS[:1])
    assert row.psnr == 100.0
    assert {Image.open(path).size for path in tmp_path.glob("*.png")} == {(32, 16)}


def test_unconditional_pictures_have_the_size_of_the_build(monkeypatch, tmp_path):
    class Small(TinyAccelerator):
        latent_shape = (3, 16, 16)

    torch.manual_seed(4)
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
    ).eval()
    pipe = DDPMPipeline(unet, DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    monkeypatch.setattr(sampling, "load_pipeline", lambda *_: pipe)
    _, (row,) = paint(Small(unet), tmp_path, [""])
    assert row.psnr == 100.0
    assert {Image.open(path).size for path in tmp_path.glob("*.png")} == {(16, 16)}


def test_interrupted_picture_goes_on_after_its_last_step(tiny, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    whole.mkdir()
    paint(tiny, whole)
    original = TinyAccelerator.step
    tiny.calls.clear()

    def step(self, *arguments):
        if len(self.calls) == 5:  # second picture, third step
            raise CardFault("card 0: No such device")
        return original(self, *arguments)

    monkeypatch.setattr(TinyAccelerator, "step", step)
    with pytest.raises(CardFault):
        paint(tiny, tmp_path)
    monkeypatch.setattr(TinyAccelerator, "step", original)
    tiny.calls.clear()
    jobs = jobs_of(PROMPTS, SETTINGS)
    state = RunState(tmp_path, {"prompts": PROMPTS})
    assert state.finished(jobs[0]) and state.finished(jobs[1]) is None
    Painter(tiny, tmp_path, SETTINGS, state).paint(jobs[1], lambda *_: None)
    assert len(tiny.calls) == 1
    for job in jobs:
        for label in ("float", "accelerator"):
            got, want = (np.array(Image.open(job.file(out, label))) for out in (tmp_path, whole))
            np.testing.assert_array_equal(got, want)


def test_another_run_starts_afresh(tiny, tmp_path):
    state, _ = paint(tiny, tmp_path)
    job = jobs_of(PROMPTS, SETTINGS)[0]
    assert RunState(tmp_path, {"prompts": PROMPTS}).finished(job)
    job.file(tmp_path, "float").unlink()
    assert state.finished(job) is None
    assert RunState(tmp_path, {"prompts": PROMPTS[:1]}).finished(job) is None


def test_quality_figures(tiny, tmp_path):
    _, rows = paint(tiny, tmp_path)
    jobs = jobs_of(PROMPTS, SETTINGS)
    verdicts = quality.judged(jobs, rows, tmp_path, lambda picture, prompt: prompt == PROMPTS[0])
    figures = quality.summary(verdicts, SETTINGS)
    assert figures["samples"] == 2
    assert figures["psnr_median"] == 100 and figures["ssim_mean"] == 1
    assert figures["attribute_accuracy"] == figures["attribute_accuracy_float"] == 0.5
    assert [each["seed"] for each in figures["prompts"]] == [5, 6]
    json.dumps(figures)


def test_quality_judges_each_sides_own_picture(tiny, tmp_path):
    tiny.error = 0.5
    jobs = jobs_of(PROMPTS[:1], SETTINGS)
    _, rows = paint(tiny, tmp_path, PROMPTS[:1])
    files = {
        label: np.asarray(Image.open(jobs[0].file(tmp_path, label)))
        for label in ("float", "accelerator")
    }
    (verdict,) = quality.judged(
        jobs, rows, tmp_path, lambda picture, _: np.array_equal(picture, files["float"])
    )
    assert verdict.right_float and not verdict.right


def test_bench_figures(tiny, monkeypatch):
    monkeypatch.setattr(overhead, "STEPS", 2)
    monkeypatch.setattr(overhead, "TIMESTEPS", 1)
    threads = torch.get_num_threads()
    figures = bench.compare(tiny, tiny_unet(), 3)
    assert torch.get_num_threads() == threads
    assert len(tiny.calls) >= 3 + bench.WARM_UP
    assert figures["host_us_per_step"] > 0
    assert len(figures["ratio_of_each_round"]) == 3
    ratio = figures["card_ms"] / figures["torch_fp32_eager_ms"]
    assert figures["software_card_over_torch_fp32"] == pytest.approx(ratio, abs=2e-3)
    assert figures["ms_per_step_modelled"] == pytest.approx(123_456 / 222e3, abs=1e-4)


def test_measure_alternates():
    order = []
    seconds = bench.measure({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * (2 + bench.WARM_UP)
    assert [np.shape(values) for values in seconds.values()] == [(2, 2), (2, 2)]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_grid_shows_every_pair_where_its_label_is(count):
    def flat(value):
        return np.full((64, 64, 3), value, np.uint8)

    pairs = [Pair("a very " * 12 + "long prompt", flat(9), flat(90), "40 dB")] * count
    colours = {colour for _, colour in grid(pairs).getcolors(1 << 20)}
    assert {(9, 9, 9), (90, 90, 90)} <= colours
    cells = [
        sum(n for n, colour in grid(pairs).getcolors(1 << 20) if colour == (v, v, v))
        for v in (9, 90)
    ]
    assert cells == [count * 256 * 256] * 2


@pytest.mark.parametrize("module", [image, quality, bench])
def test_no_build_is_one_sentence(module, tmp_path, capsys):
    status = module.main(["--build", str(tmp_path / "none"), "--out", str(tmp_path / "out")])
    assert status == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "make build" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "0 steps"),
        (["--seed", "-1"], "seed -1"),
        (["--cards", "0"], "0 cards"),
        (["--cards", "2", "--device", "0000:65:00.1"], "counted from an index"),
        (["--timeout", "0"], "--timeout"),
        (["--timeout", "nan"], "--timeout"),
        (["--timeout", "inf"], "--timeout"),
        (["--guidance", "nan"], "guidance nan"),
        (["--guidance", "inf"], "guidance inf"),
        (["--seed", str(MAX_SEED + 1)], f"give 0 to {MAX_SEED} by --seed"),
        (
            ["--on-card-sampler", str(MAX_STEPS + 1)],
            f"{MAX_STEPS + 1} steps cannot be one start; give 1 to {MAX_STEPS}",
        ),
    ],
)
def test_settings_that_are_refused(arguments, message, capsys):
    assert image.main(["--build", "b", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_out_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert image.main(["--build", "b", "--out", str(tmp_path / "file" / "out")]) == 2
    assert "--out" in capsys.readouterr().err


def test_full_disk_is_one_sentence(capsys):
    def work():
        raise OSError(28, "No space left on device", "out/a.png")

    assert guarded(work, "") == 2
    assert capsys.readouterr().err.startswith("error: out/a.png: No space left")


def test_not_a_pipeline(tmp_path):
    with pytest.raises(UserError, match=r"no model_index\.json"):
        load_pipeline(tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        load_pipeline(tmp_path)


def test_accelerator_needs_a_build(tmp_path):
    with pytest.raises(UserError, match="not a finished build"):
        Accelerator(tmp_path)
