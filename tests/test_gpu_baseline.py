"""The GPU baseline: clocking, spread, recorded failures; eager mode on the processor for real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from unets import TINY

from bench import gpu_baseline
from bench.gpu_modes import MODES

TINY_UNET = {"sample_size": 8, **{k: list(v) if isinstance(v, tuple) else v
                                  for k, v in TINY.items()}}  # fmt: skip


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.json"
    described = {"class": "UNet2DConditionModel", "batch": 2, "tokens": 5, "config": TINY_UNET}
    path.write_text(json.dumps(described))
    return path


@pytest.fixture(autouse=True)
def backend_settings():
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.backends.cudnn.benchmark = benchmark


def run(*arguments):
    return gpu_baseline.main([str(argument) for argument in arguments])


def test_one_row_per_batch_precision_and_mode(tiny, tmp_path, capsys):
    out = tmp_path / "new" / "gpu.json"
    assert run("--models", tiny, "--device", "cpu", "--repetitions", 3, "--precisions", "fp16",
               "fp32", "--warm-up", 1, "--out", out) == 0  # fmt: skip
    figures = json.loads(out.read_text())
    assert figures["kind"] == "measured" and figures["device"] == "cpu"
    assert figures["torch"] == torch.__version__
    assert (figures["warm_up"], figures["repetitions"]) == (1, 3)
    rows = figures["rows"]
    assert [(row["batch"], row["precision"], row["mode"]) for row in rows] == [
        (1, "fp32", "eager"), (2, "fp32", "eager"), (1, "fp16", "eager"), (2, "fp16", "eager"),
    ]  # fmt: skip
    for row in rows:
        assert 0 < row["min_ms"] <= row["quartile1_ms"] <= row["median_ms"]
        assert row["median_ms"] <= row["quartile3_ms"] <= row["max_ms"]
        assert row["latent"] == [4, 8, 8] and row["parameters"] > 10000
    assert [row["relative_error"] for row in rows[:2]] == [0, 0]
    assert all(0 < row["relative_error"] < 0.02 for row in rows[2:])
    assert "batch 2, fp16, eager" in capsys.readouterr().out


def test_failures_of_modes_are_rows_and_the_rest_goes_on(tiny, tmp_path, monkeypatch):
    def broken(forward, inputs, on_gpu):
        raise RuntimeError("no such\n  backend")

    def wrong(forward, inputs, on_gpu):
        return lambda: 2 * forward(inputs.sample, inputs.timestep, **inputs.kwargs)[0]

    monkeypatch.setitem(MODES, "compile", broken)
    monkeypatch.setitem(MODES, "compile_cuda_graph", wrong)
    out = tmp_path / "gpu.json"
    assert run("--models", tiny, "--device", "cpu", "--repetitions", 1, "--warm-up", 0,
               "--modes", "eager", "compile", "cuda_graph", "compile_cuda_graph",
               "--out", out) == 0  # fmt: skip
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 8
    assert "failure" not in rows[0] and "failure" not in rows[4]
    assert rows[1]["failure"] == rows[5]["failure"] == "RuntimeError: no such backend"
    assert "cannot be had on the processor" in rows[2]["failure"]
    assert "median_ms" not in rows[1]
    # a mode that computes something else shows
    assert rows[3]["relative_error"] == pytest.approx(1, abs=1e-6)


def test_without_a_gpu_it_says_so_and_succeeds(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "gpu.json"
    assert run("--out", out) == 0
    assert capsys.readouterr().out.startswith("no CUDA GPU is at hand")
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "no-such-model"], "no-such-model: neither a folder"),
        (["--repetitions", "0"], "nothing to measure"),
        (["--warm-up", "-1"], "nothing to measure"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, tmp_path, capsys):
    out = tmp_path / "gpu.json"
    assert run("--device", "cpu", "--out", out, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not out.exists()


def test_every_clock_is_read_behind_a_finished_device():
    """Warm-up is not counted, and neither is work that was still under way before."""
    events, now = [], 0.0

    def work():
        events.append("work")

    def finish():
        nonlocal now
        now += 10 if events and events[-1] == "work" else 1
        events.append("finish")

    def clock():
        events.append("clock")
        return now

    assert gpu_baseline.measure(work, finish, 1, 2, clock) == [10, 10]
    once = ["finish", "clock", "work", "finish"]
    assert events == [*once, *once, "clock", *once, "clock"]


def test_spread_in_milliseconds():
    assert gpu_baseline.spread([0.005, 0.001, 0.1, 0.002, 0.003]) == {
        "min_ms": 1, "quartile1_ms": 2, "median_ms": 3, "quartile3_ms": 5, "max_ms": 100,
    }  # fmt: skip


def test_relative_error():
    one = torch.ones(3)
    assert gpu_baseline.relative_error(one, one) == 0
    assert gpu_baseline.relative_error(one.half() * 1.5, one) == pytest.approx(0.5)
    assert gpu_baseline.relative_error(torch.tensor([1, 1, float("nan")]), one) == float("inf")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_every_mode_on_a_gpu(tiny, tmp_path):
    out = tmp_path / "gpu.json"
    assert run("--models", tiny, "--repetitions", 3, "--warm-up", 1, "--out", out) == 0
    figures = json.loads(out.read_text())
    assert figures["device_name"] == torch.cuda.get_device_name()
    assert len(figures["rows"]) == 2 * 2 * len(MODES)
    for row in figures["rows"]:
        assert "failure" not in row, row
        assert row["relative_error"] < 0.02


def test_the_readme_shows_the_committed_medians():
    root = Path(gpu_baseline.__file__).parent.parent
    figures = json.loads((root / "bench" / "gpu_h100.json").read_text())
    medians = {
        (row["model"], row["batch"], row["precision"], row["mode"]): row["median_ms"]
        for row in figures["rows"]
    }
    section = (root / "README.md").read_text().split("## Against a GPU")[1].split("\n## ")[0]
    assert figures["device_name"].startswith("NVIDIA H100 80GB") and "H100 80GB" in section
    models = {
        "bundled model, guided pair": "models/shapes-ldm",
        "Stable Diffusion 1.5, 64x64": "sd15",
        "Stable Diffusion 1.5, 64x64, guided pair": "sd15",
    }
    columns = [("fp32", "eager"), ("fp16", "eager"), ("fp16", "compile"),
               ("fp16", "compile_cuda_graph")]  # fmt: skip
    lines = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("|")][2:]
    assert len(lines) == 5
    for name, batch, _, *shown in ([cell.strip() for cell in line] for line in lines):
        model = models.get(name, name)
        expected = [medians[(model, int(batch), *column)] for column in columns]
        assert shown == [f"{value:.3f}" for value in expected], name
