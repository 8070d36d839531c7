"""Requests that cannot be met end in one sentence before any work begins."""

from __future__ import annotations

import pytest

from gen.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "ddpm-cifar10-32", "--clock", "nan"], "--clock nan"),
        (["plan", "ddpm-cifar10-32", "--clock", "inf"], "--clock inf"),
        (["plan", "ddpm-cifar10-32", "--clock", "-5"], "--clock -5"),
        (["plan", "ddpm-cifar10-32", "--batch", "-1"], "--batch -1"),
        (["plan", "ddpm-cifar10-32", "--height", "-8"], "--height -8"),
        (["plan", "ddpm-cifar10-32", "--out", "/proc/x/plan.json"], "choose another file by --out"),
        (["plan", "ddpm-cifar10-32", "--engine", "/tmp"], "name a file by --engine"),
        (["plan", "nothere", "--out", "made/plan.json"], "nothere"),
        (["plan", "ddpm-cifar10-32", "--board", "nope", "--engine", "made/e.toml"], "nope"),
        (["build", "ddpm-cifar10-32", "--board", "nope"], "nope"),
        (["build", "ddpm-cifar10-32", "--tokens", "-1"], "--tokens -1"),
    ],
)
def test_refused_at_once(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    message = capsys.readouterr().err.strip()
    assert words in message and len(message.splitlines()) == 1
    assert not list(tmp_path.iterdir())
