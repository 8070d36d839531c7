"""Every fault that the software card can have: one sentence, and what the host does about it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from fake_card import fake_container
from test_host import FakeCodec

from gen.errors import UserError
from host.accelerator import Accelerator
from host.card import Card
from host.codec import RankBuffers
from host.faults import CardFault, CardUnusable
from host.selftest import Inputs, KnownStep
from host.session import Session
from host.swcard import devices
from host.swcard.faults import VARIABLE, Fault, Faults, parse
from host.xclbin import board_mems, engine_units

BUFFERS = RankBuffers(np.zeros(64, np.uint8), 128, 64, 64)
LATENT = np.arange(64, dtype=np.uint8)
KNOWN = KnownStep(
    (Inputs(LATENT, np.full(128, 3, np.uint8)),), (LATENT + np.uint8(3)).view(np.int16)
)


@pytest.fixture(autouse=True)
def fresh_cards(monkeypatch):
    """Cards that no test has used: faults are counted in steps from the first."""
    monkeypatch.setattr(devices, "_boards", {})


@pytest.fixture
def container(tmp_path):
    return fake_container(tmp_path)


def test_lists_of_faults():
    assert parse("") == ()
    assert parse("absent, timeout@12:0,lost@3+") == (
        Fault("absent", None, False, None),
        Fault("timeout", 12, False, 0),
        Fault("lost", 3, True, None),
    )
    for wrong in ("absent@1", "timeout", "nothing", "lost@", "error@x", "timeout@1:"):
        with pytest.raises(ValueError, match="is no fault"):
            parse(f"absent,{wrong}")


def test_steps_of_faults():
    faults = Faults(1, "timeout@2:1,error@4+,wrong@1:0")
    met = [faults.of_steps(step, step + 1) for step in range(6)]
    assert met == ["", "", "timeout", "", "error", "error"]
    # a start of several steps meets the first one
    assert (faults.of_steps(0, 2), faults.of_steps(1, 9), faults.of_steps(3, 9)) == (
        "", "timeout", "error"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("absent", r"there is no card 1 \(.*\); .*--device"),
        ("noshell", r"card 1 is on the PCIe bus.*xbmgmt program -d 0000:.*--shell"),
        ("platform", r"linked for software card but card 1 has xilinx_u200.*PLATFORM"),
        ("reconfigured", r"card 1 is configured with .*another process"),
    ],
)
def test_cards_that_cannot_be_used(container, monkeypatch, fault, sentence):
    monkeypatch.setenv(VARIABLE, f"{fault}:1")
    with pytest.raises(CardUnusable, match=sentence) as caught:
        Card(container, 1)
    assert caught.value.final and "\n" not in str(caught.value)
    Card(container, 0)


def values(results):
    return results[0].view(np.int16)


def session(container, card=0):
    return Session(Card(container, card), [BUFFERS])


def test_self_test_passes_and_leaves_nothing_behind(container):
    made = session(container)
    made.self_test(KNOWN, values)
    assert not made.latents[0].any()


@pytest.mark.parametrize(("step", "weights"), [(0, "in DDR"), (1, "kept in the engines")])
def test_self_test_finds_a_single_wrong_bit(container, monkeypatch, step, weights):
    monkeypatch.setenv(VARIABLE, f"wrong@{step}")
    sentence = rf"card 0 computes wrongly: 1 values .* weights {weights} differ.*xbutil reset"
    with pytest.raises(CardFault, match=sentence):
        session(container).self_test(KNOWN, values)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("timeout@1", r"kernel store_1 did not finish within 20 s.*same command"),
        ("error@1", r"kernel store_1 ended in state ERT_CMD_STATE_ERROR.*same command"),
        ("lost@1", r"refused a command \(No such device\).*same command"),
    ],
)
def test_faults_in_the_middle(container, monkeypatch, fault, sentence):
    monkeypatch.setenv(VARIABLE, fault)
    made = session(container)
    dynamic = made.dynamic()
    made.step(dynamic)
    with pytest.raises(CardFault, match=f"^card 0: .*{sentence}") as caught:
        made.step(dynamic)
    assert not caught.value.final and "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["timeout@1", "error@1"])
def test_opened_again_the_card_goes_on(tmp_path, monkeypatch, fault):
    monkeypatch.setenv(VARIABLE, fault)
    container = fake_container(tmp_path, engine_units(2), board_mems(2))
    accelerator = Accelerator.from_parts(FakeCodec(), Card(container))
    latent = np.ones((2, 2, 4, 4), np.float32)
    prompt = np.zeros((2, 1, 1), np.float32)
    accelerator.step(latent, 5, prompt)
    with pytest.raises(CardFault):
        accelerator.step(latent, 5, prompt)
    del accelerator
    again = Accelerator.from_parts(FakeCodec(), Card(container))
    np.testing.assert_array_equal(again.step(latent, 5, prompt), latent + 5)


def test_lost_card_stays_lost(container, monkeypatch):
    monkeypatch.setenv(VARIABLE, "lost@0")
    made = session(container)
    with pytest.raises(CardFault):
        made.step(made.dynamic())
    for buffer in (made.ranks[0].latent, made.ranks[0].result):
        with pytest.raises(CardFault, match="a transfer failed"):
            buffer.push()
    with pytest.raises(CardUnusable):
        Card(container)


def test_driver_kills_the_process(container):
    program = (
        "import sys\nfrom pathlib import Path\nfrom test_faults import session\n"
        "made = session(Path(sys.argv[1]))\nmade.step(made.dynamic())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(container)],
        env={**os.environ, VARIABLE: "killed@0", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        capture_output=True,
    )
    assert result.returncode == -signal.SIGBUS


def test_two_ranks_start_together(tmp_path):
    path = fake_container(tmp_path, engine_units(2), board_mems(2))
    made = Session(Card(path), [BUFFERS, BUFFERS])
    assert [rank.latent.group for rank in made.ranks] == [0, 1]
    dynamic = made.dynamic()
    assert [buffer.group for buffer in dynamic] == [0, 1]
    made.latents[0][:] = LATENT
    made.latents[1][:] = 7
    made.step(dynamic)
    np.testing.assert_array_equal(made.results, [LATENT, np.full(64, 7)])
    with pytest.raises(UserError, match="2 engines but the layer program is for 1"):
        Session(Card(path), [BUFFERS])
