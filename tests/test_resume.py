"""Runs over several pictures, on cards with every kind of fault: the pictures are always the same.

The software card of a small model; the run that is stopped by a signal is started as a person
starts it, the others in forks of one process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from preloaded import Preloaded
from tiny_model import save_tiny_model

from gen.build import Settings, run_build
from gen.model import find_model
from gen.program.engine import BOARDS
from host.swcard.faults import VARIABLE

pytestmark = pytest.mark.csim
ROOT = Path(__file__).resolve().parent.parent
STEPS = 12
PROMPTS = ["a red circle on a sky background", "a blue star on a night background"]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A card of one rank without clock, which is compiled soonest."""
    folder = tmp_path_factory.mktemp("resume")
    model = save_tiny_model(folder / "model")
    board = folder / "one.toml"
    board.write_text((BOARDS / "u250.toml").read_text().replace("\nranks = 4\n", "\nranks = 1\n"))
    settings = Settings(board=str(board), untimed=True)
    run_build(find_model(str(model)), folder / "build", settings, lambda _: None)
    return folder / "build"


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory):
    with Preloaded(tmp_path_factory.mktemp("output")) as process:
        yield process


@pytest.fixture(scope="module")
def run(build, preloaded):
    """Runs ``host.image`` into a folder; what came of it."""

    def image(out, *extra, faults=""):
        return preloaded.run("host.image", arguments(build, out, *extra), {VARIABLE: faults})

    return image


def arguments(build, out, *extra):
    given = ["--build", str(build), "--out", str(out), "--steps", str(STEPS), *extra]
    for prompt in PROMPTS:
        given += ["--prompt", prompt]
    return given


def pictures(out):
    return {path.name: path.read_bytes() for path in out.glob("0*.png")}


@pytest.fixture(scope="module")
def undisturbed(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    result = run(out)
    assert result.returncode == 0, result.stderr
    assert not (out / ".unfinished").exists()
    made = pictures(out)
    assert len(made) == 4
    return made


# in steps of the card: 0 and 1 are the self-test, 2 to 5 the first picture, 6 to 9 the second
@pytest.mark.parametrize(
    ("faults", "extra", "trouble"),
    [
        ("timeout@7", (), "card 0 is opened again: card 0: kernel store_1 did not finish"),
        ("error@4,killed@9", (), "ended in state ERT_CMD_STATE_ERROR"),
        ("lost@3:0,absent:1", ("--cards", "2"), "card 1 is given up: there is no card 1"),
        ("wrong@0:0", ("--cards", "2"), "card 0 computes wrongly"),
    ],
)
def test_same_pictures_whatever_happens(run, tmp_path, undisturbed, faults, extra, trouble):
    result = run(tmp_path, *extra, faults=faults)
    assert result.returncode == 0, result.stderr
    assert trouble in result.stderr and "Traceback" not in result.stderr
    assert pictures(tmp_path) == undisturbed
    assert not (tmp_path / ".unfinished").exists()


def test_no_card_is_left_and_a_later_run_goes_on(run, tmp_path, undisturbed):
    result = run(tmp_path, faults="timeout@4+")
    # every process gets two steps further; the fourth start finishes the first picture
    assert result.returncode == 0
    other = tmp_path / "other"
    result = run(other, faults="error@0+")
    assert result.returncode == 2
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: no card is left (card 0: kernel store_1 ended in state")
    assert "Traceback" not in result.stderr
    assert run(other).returncode == 0
    assert pictures(other) == pictures(tmp_path) == undisturbed


@pytest.mark.parametrize(
    "how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_stopped_run_goes_on_after_its_last_step(build, run, tmp_path, undisturbed, how):
    process = subprocess.Popen(
        [sys.executable, "-m", "host.image", *arguments(build, tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a job in the background of a shell ignores SIGINT, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    journal = tmp_path / ".unfinished" / "01.journal"
    end = time.monotonic() + 120
    while not (journal.exists() and journal.stat().st_size > 1500):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, how)
    error = process.communicate(timeout=60)[1]
    if how == signal.SIGINT:
        assert process.returncode == 2
        assert error.strip().splitlines()[-1].startswith("error: stopped by Ctrl-C")
        assert "Traceback" not in error
    kept = journal.read_bytes() if journal.exists() else b""
    result = run(tmp_path)
    assert result.returncode == 0, result.stderr
    assert kept
    assert pictures(tmp_path) == undisturbed


def test_quality_is_the_same_on_several_cards(build, preloaded, tmp_path):
    found = []
    for name, extra, faults in (("one", [], ""), ("two", ["--cards", "2"], "lost@3:0,absent:0")):
        given = ["--build", str(build), "--out", str(tmp_path / name), "--steps", "2"]
        command = [*given, "--prompts", "3", *extra]
        result = preloaded.run("host.quality", command, {VARIABLE: faults})
        assert result.returncode == 0, result.stderr
        assert ("is given up" in result.stderr) == (name == "two")
        assert len(list((tmp_path / name / "quality").glob("*.png"))) == 6
        found.append((tmp_path / name / "quality.json").read_text())
    assert found[0] == found[1] and '"samples": 3' in found[0]
