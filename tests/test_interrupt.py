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


@pytest.mark.parametrize("module", ["host.bench", "host.quality"])
@pytest.mark.parametrize("later", [0, 0.3])  # seconds
def test_ctrl_c_while_libraries_are_imported(module, later, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--build", str(tmp_path / "none"), "--out", str(tmp_path)],
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
    assert error.count("\n") == 1 and error.startswith("error: stopped by Ctrl-C")


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
