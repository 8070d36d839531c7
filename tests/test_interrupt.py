"""Ctrl-C while a command imports its libraries: one sentence, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "command",
    [
        ["host.bench", "--build", "none", "--out", "out"],
        ["gen", "build", "none", "--out", "out"],
        ["gen", "verify", "none"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
@pytest.mark.parametrize("later", [0, 0.3])  # seconds
def test_ctrl_c_while_libraries_are_imported(command, later, tmp_path):
    arguments = [str(tmp_path / each) if each in ("none", "out") else each for each in command]
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    maps = Path(f"/proc/{process.pid}/maps")
    end = time.monotonic() + 120
    while process.poll() is None and "libtorch" not in maps.read_text():
        assert time.monotonic() < end
        time.sleep(0.002)
    time.sleep(later)
    assert process.poll() is None, process.stderr.read()
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2, error
    assert error.count("\n") == 1
    assert error.startswith(("error: stopped by Ctrl-C", "error: interrupted"))


@pytest.mark.parametrize("module", ["host.bench", "host.quality", "host.image"])
def test_commands_import_nothing_heavy_before_they_are_guarded(module):
    program = (
        f"import sys, importlib; importlib.import_module({module!r}); "
        "print([m for m in ('torch', 'diffusers', 'transformers', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
