"""The bench of models of all sizes, on models that are tiny."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gen import bench_models
from gen.bench_models import Cost, Measured, OwnPeak, main, peak_bytes, ratios, reset_peak, table
from gen.errors import UserError

TINY = {
    "sample_size": 8,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}


def architecture(folder, name, channels):
    path = folder / f"{name}.json"
    config = {**TINY, "block_out_channels": channels}
    path.write_text(json.dumps({"class": "UNet2DModel", "batch": 1, "config": config}))
    return str(path)


def measured(name, macs, seconds, fault=""):
    return Measured(name, macs, 8, fault, 1, {"trace": Cost(seconds, seconds, 10**9, 10**8)})


def test_tiny_models_are_measured(tmp_path, capfd):
    models = [architecture(tmp_path, "a", [8, 8]), architecture(tmp_path, "b", [16, 24])]
    out = tmp_path / "out" / "bench.json"
    arguments = ["--models", ",".join(models), "--out", str(out)]
    assert main([*arguments, "--stages", "trace,calibrate,quantise"]) == 0
    first, second = json.loads(out.read_text())["models"]
    assert 0 < first["macs"] < second["macs"]
    for each in (first, second):
        assert set(each["stages"]) == {"trace", "calibrate", "quantise"}
        assert all(c["seconds"] > 0 and c["cpu_seconds"] > 0 for c in each["stages"].values())
        assert 5e7 < each["own_peak_bytes"] <= each["peak_bytes"] < 4e9
        assert each["runs"] == 48
    (ratio,) = json.loads(out.read_text())["ratios"]
    assert ratio["macs"] == pytest.approx(second["macs"] / first["macs"])
    assert "multiply-accumulates" in capfd.readouterr().out
    assert sorted(p.name for p in out.parent.iterdir()) == ["bench.json"]


def test_time_that_grows_faster_than_work_is_noticed():
    small, large = measured("s", 10**9, 100.0), measured("l", 4 * 10**9, 700.0)
    assert ratios([small, large])[0].linear
    assert not ratios([small, measured("l", 4 * 10**9, 900.0)])[0].linear
    assert "grows faster" in table([measured("l", 4 * 10**9, 900.0), small])
    # seconds that any model takes do not count as growth
    assert ratios([measured("s", 10**6, 2.0), measured("l", 2 * 10**6, 15.0)])[0].seconds == 1


def test_a_refused_model_is_told_and_not_compared(tmp_path, monkeypatch, capsys):
    results = {
        "a": measured("a", 10**9, 30.0),
        "b": measured("b", 10**10, 1.0, "program: too wide"),
    }
    monkeypatch.setattr(bench_models, "measure", lambda name, *_: results[name])
    monkeypatch.setattr("gen.model.find_model", lambda name: None)
    out = tmp_path / "bench.json"
    assert main(["--models", "a,b", "--out", str(out)]) == 1
    assert "too wide" in capsys.readouterr().out
    assert json.loads(out.read_text())["ratios"] == []


def test_bad_arguments_are_one_sentence(tmp_path, capsys):
    out = ["--out", str(tmp_path / "bench.json")]
    assert main(["--models", "nothing-of-that-name", *out]) == 2
    assert "nothing-of-that-name" in capsys.readouterr().err
    assert main(["--models", "sd15", "--stages", "tarce", *out]) == 2
    assert "tarce: no stage" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    assert main(["--models", "sd15", "--out", str(tmp_path / "file" / "bench.json")]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_a_failing_child_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_models.sys, "executable", "/bin/false")
    with pytest.raises(UserError, match="failed with status"):
        bench_models.measure("sd15", tmp_path, ["trace"])


def test_mapped_files_are_not_own_memory(tmp_path):
    (tmp_path / "file").write_bytes(bytes(200_000_000))
    with OwnPeak() as before:
        pass
    with OwnPeak() as own:
        mapped = np.memmap(tmp_path / "file", np.uint8, "r")
        assert mapped[::4096].sum() == 0
    assert own.peak_bytes < before.peak_bytes + 50_000_000
    with OwnPeak() as own:
        block = np.ones(200_000_000, np.uint8)
    assert own.peak_bytes > before.peak_bytes + 150_000_000 and block.all()


def test_peaks_can_start_again():
    block = bytearray(300_000_000)
    block[::4096] = b"x" * len(block[::4096])
    high = peak_bytes()
    assert high > 300_000_000
    del block
    reset_peak()
    assert peak_bytes() < high - 150_000_000
