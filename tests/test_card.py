"""The host's card class, over the software card with a small stand-in for ``card.so``."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from fake_card import fake_container

from gen.errors import UserError
from host import swcard
from host.card import Card
from host.xclbin import ENGINE_KERNELS, GENUINE_MAGIC, Arg


@pytest.fixture
def card(tmp_path):
    return Card(fake_container(tmp_path))


class Step:
    def __init__(self, card, size=128):
        self.card = card
        self.store, self.wload = card.command("store"), card.command("wload")
        self.latent = card.buffer(self.store, 0, size)
        self.result = card.buffer(self.store, 1, size)
        self.weights = card.buffer(self.wload, 0, size)
        self.dynamic = card.buffer(self.wload, 1, size)
        self.store.bind(0, self.latent)
        self.store.bind(1, self.result)
        self.wload.bind(0, self.weights)
        self.wload.bind(1, self.dynamic)

    def run(self, code=0):
        self.weights.array[0] = code
        self.weights.push()
        self.card.execute(self.store, self.wload)
        self.result.pull()
        return self.result.array.copy()


def test_buffers_are_whole_words_and_readable_at_once(card):
    buffer = card.buffer(card.command("store"), 1, 100)
    assert buffer.size == 128
    buffer.pull()
    assert not buffer.array.any()


def test_steps_repeat_with_the_same_runs(card):
    step = Step(card)
    for value in (3, 250):
        step.latent.array[:] = value
        step.latent.push()
        step.dynamic.array[0] = 9
        step.dynamic.push(64, 0)
        np.testing.assert_array_equal(step.run(), np.full(128, (value + 9) % 256))
    assert card.cycles == 2000


def test_push_and_pull_stay_inside(card):
    buffer = card.buffer(card.command("store"), 0, 128)
    for size, offset in ((129, 0), (64, 65), (1, 128), (None, -1)):
        with pytest.raises(ValueError, match="of a buffer of 128"):
            buffer.push(size, offset)
        with pytest.raises(ValueError, match="of a buffer of 128"):
            buffer.pull(size, offset)


def test_deadlock_is_told_with_its_fifo(card):
    step = Step(card)
    with pytest.raises(UserError, match=r"kernel store did not finish.*FIFO as \(fill 4 of 4\)"):
        step.run(1)


def test_leftover_tokens_are_told(card):
    with pytest.raises(UserError, match=r"ERT_CMD_STATE_ERROR: FIFO px holds 3 leftover tokens"):
        Step(card).run(2)


def test_half_a_step_times_out(card):
    step = Step(card)
    with pytest.raises(UserError, match="kernel store did not finish within 20 s"):
        card.execute(step.store)
    with pytest.raises(UserError, match="can't launch"):
        card.execute(step.store)


@pytest.mark.parametrize("index", [2, 5, 6, -1])
def test_arguments_that_are_no_buffers(card, index):
    with pytest.raises(UserError, match="build it"):
        card.buffer(card.command("store"), index, 64)


def test_bank_that_is_not_in_use(tmp_path):
    store = replace(ENGINE_KERNELS[0], args=(Arg("latent", 3), *ENGINE_KERNELS[0].args[1:]))
    card = Card(fake_container(tmp_path, kernels=(store, *ENGINE_KERNELS[1:])))
    with pytest.raises(UserError, match="memory 3"):
        card.buffer(card.command("store"), 0, 64)


def test_too_large_a_buffer(card):
    with pytest.raises(UserError, match="no room"):
        card.buffer(card.command("store"), 0, 1 << 50)


def test_kernels_that_cannot_be_started(card):
    with pytest.raises(UserError, match="no kernel nothing"):
        card.command("nothing")
    with pytest.raises(UserError, match="AP_CTRL_NONE"):
        card.command("mac")


def test_no_such_card(tmp_path):
    with pytest.raises(UserError, match="index '3'"):
        Card(fake_container(tmp_path), device=3)


def test_genuine_xclbin_without_pyxrt(tmp_path):
    path = tmp_path / "a.xclbin"
    path.write_bytes(GENUINE_MAGIC + bytes(600))
    with pytest.raises(UserError, match="install XRT"):
        Card(path)


@pytest.mark.parametrize("content", [None, b"", b"something else", b"{}", b"{"])
def test_files_that_are_no_xclbin(tmp_path, content):
    path = tmp_path / "a.xclbin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError):
        Card(path)


def test_missing_or_changed_library(tmp_path):
    path = fake_container(tmp_path)
    library = tmp_path / "card.so"
    library.write_bytes(library.read_bytes()[:-1])
    with pytest.raises(UserError, match="changed"):
        Card(path)
    library.unlink()
    with pytest.raises(UserError, match="no such file"):
        Card(path)


def test_real_card_is_driven_by_pyxrt_and_its_portable_subset_alone(tmp_path, monkeypatch):
    container = fake_container(tmp_path)
    path = tmp_path / "engine.xclbin"
    path.write_bytes(GENUINE_MAGIC + bytes(600))
    pyxrt = types.ModuleType("pyxrt")  # without cycles, report and diagnosis
    for name in ("bo", "device", "ert_cmd_state", "kernel", "run", "uuid", "xclBOSyncDirection"):
        setattr(pyxrt, name, getattr(swcard, name))
    pyxrt.xclbin = lambda _: swcard.xclbin(str(container))
    monkeypatch.setitem(sys.modules, "pyxrt", pyxrt)
    card = Card(path)
    assert not card.software and card.cycles is None and card.report == ""
    step = Step(card)
    step.latent.array[:] = 4
    step.latent.push()
    np.testing.assert_array_equal(step.run(), np.full(128, 4))
    with pytest.raises(UserError, match="did not finish within 20 s; reset the card"):
        step.run(1)
