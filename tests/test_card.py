"""The host's card class, over the software card with a small stand-in for ``card.so``."""

from __future__ import annotations

import os
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from axlf_writer import UUID, write_axlf
from fake_card import fake_container

from gen.errors import UserError
from host import swcard
from host.card import Card
from host.devices import binding
from host.xclbin import Arg, board_mems, engine_units


@pytest.fixture
def card(tmp_path):
    return Card(fake_container(tmp_path))


class Step:
    def __init__(self, card, size=128):
        self.card = card
        (self.store,), (self.wload,) = card.commands("store"), card.commands("wload")
        self.latent = card.buffer(self.store, 0, size)
        self.result = card.buffer(self.store, 1, size)
        self.weights = card.buffer(self.wload, 0, size)
        self.dynamic = card.buffer(self.wload, 1, size)
        self.store.bind(0, self.latent)
        self.store.bind(1, self.result)
        self.wload.bind(0, self.weights)
        self.wload.bind(1, self.dynamic)
        self.wload.set_scalar(2, 1)

    def run(self, code=0):
        self.weights.array[0] = code
        self.weights.push()
        self.card.execute([self.store, self.wload])
        self.result.pull()
        return self.result.array.copy()


def test_buffers_are_whole_words_and_readable_at_once(card):
    buffer = card.buffer(card.commands("store")[0], 1, 100)
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
    buffer = card.buffer(card.commands("store")[0], 0, 128)
    for size, offset in ((129, 0), (64, 65), (1, 128), (None, -1)):
        with pytest.raises(ValueError, match="of a buffer of 128"):
            buffer.push(size, offset)
        with pytest.raises(ValueError, match="of a buffer of 128"):
            buffer.pull(size, offset)


def test_deadlock_is_told_with_its_fifo(card):
    step = Step(card)
    with pytest.raises(UserError, match=r"kernel store_1 did not finish.*FIFO as_1 \(4/4\)"):
        step.run(1)


def test_leftover_tokens_are_told(card):
    with pytest.raises(UserError, match=r"ERT_CMD_STATE_ERROR: FIFO px_1 holds 3 leftover tokens"):
        Step(card).run(2)


def test_a_wait_longer_than_the_binding_counts_is_capped(card, monkeypatch):
    (store,) = card.commands("store")
    limits = []

    class Running:
        def wait(self, milliseconds):
            limits.append(milliseconds)
            return card.completed

    monkeypatch.setattr(store, "_run", Running())
    for timeout_ms in (0, 7, 1 << 40):
        store.wait(timeout_ms)
    assert limits == [1, 7, 2**31 - 1]


def test_half_a_step_times_out(card):
    step = Step(card)
    with pytest.raises(UserError, match="kernel store_1 did not finish within 20 s"):
        card.execute([step.store])
    with pytest.raises(UserError, match="still running"):
        card.execute([step.store])


@pytest.mark.parametrize("index", [2, 5, 6, -1])
def test_arguments_that_are_no_buffers(card, index):
    with pytest.raises(UserError, match="build it"):
        card.buffer(card.commands("store")[0], index, 64)


def test_bank_that_is_not_in_use(tmp_path):
    first, *others = engine_units()
    store = replace(first, args=(Arg("latent", (3,)), *first.args[1:]))
    card = Card(fake_container(tmp_path, units=(store, *others)))
    with pytest.raises(UserError, match="memory 3"):
        card.buffer(card.commands("store")[0], 0, 64)


def test_too_large_a_buffer(card):
    with pytest.raises(UserError, match="no room"):
        card.buffer(card.commands("store")[0], 0, 1 << 50)


def test_kernels_that_cannot_be_started(card):
    with pytest.raises(UserError, match="no kernel nothing"):
        card.commands("nothing")
    with pytest.raises(UserError, match="AP_CTRL_NONE"):
        card.commands("mac")


def test_no_such_card(tmp_path):
    with pytest.raises(UserError, match=r"no card 99 .*--device"):
        Card(fake_container(tmp_path), device=99)


def test_genuine_xclbin_without_pyxrt(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyxrt", None)
    with pytest.raises(UserError, match="install XRT"):
        Card(write_axlf(tmp_path / "a.xclbin"))


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


def genuine_binding(container):
    """A module with pyxrt's portable subset alone over the software card, for a genuine file."""
    pyxrt = types.ModuleType("pyxrt")  # without cycles, report and diagnosis
    for name in ("bo", "ert_cmd_state", "kernel", "run", "xclBOSyncDirection", "xrt_info_device"):
        setattr(pyxrt, name, getattr(swcard, name))
    inside = swcard.xclbin(str(container))

    class File:
        get_kernels, get_mems = inside.get_kernels, inside.get_mems

        def __init__(self, path):
            pass

        def get_uuid(self):
            return swcard.uuid(UUID)

    class Device(swcard.device):
        def load_xclbin(self, file):
            super().load_xclbin(inside)
            return swcard.uuid(UUID)

        def get_xclbin_uuid(self):
            return swcard.uuid(UUID)

        def get_info(self, key):
            return "xilinx_u250_gen3x16_xdma_shell_4_1" if key.name == "name" else "0000:65:00.1"

    class Handle(swcard.kernel):
        def __init__(self, device, uuid, name):
            super().__init__(device, inside.get_uuid(), name)

    pyxrt.xclbin, pyxrt.device, pyxrt.kernel = File, Device, Handle
    return pyxrt


@pytest.fixture
def genuine(tmp_path, monkeypatch):
    monkeypatch.setenv("XRT_INI_PATH", "")
    binding = genuine_binding(fake_container(tmp_path))
    monkeypatch.setitem(sys.modules, "pyxrt", binding)
    return binding


def test_real_card_is_driven_by_pyxrt_and_its_portable_subset_alone(genuine, tmp_path):
    card = Card(write_axlf(tmp_path / "engine.xclbin", clock_mhz=198))
    assert not card.software and card.cycles is None and card.report == ""
    assert card.clock_mhz == 198
    step = Step(card)
    step.latent.array[:] = 4
    step.latent.push()
    np.testing.assert_array_equal(step.run(), np.full(128, 4))
    with pytest.raises(UserError, match=r"did not finish within 20 s; reset it .*0000:65:00\.1"):
        step.run(1)


def test_file_and_card_must_be_the_same_configuration(genuine, tmp_path):
    path = write_axlf(tmp_path / "a.xclbin", identity=UUID.replace("8", "9"))
    with pytest.raises(UserError, match=f"card 0 is configured with {UUID} and not with"):
        Card(path)


def test_other_board_is_named(genuine, tmp_path, monkeypatch):
    monkeypatch.setattr(genuine.device, "get_info", lambda *_: "xilinx_u200_gen3x16_xdma_base_2")
    with pytest.raises(UserError, match=r"linked for xilinx_u250.*has xilinx_u200.*PLATFORM"):
        Card(write_axlf(tmp_path / "a.xclbin"))


def test_driver_that_tells_nothing_is_believed(genuine, tmp_path, monkeypatch):
    def silent(*_):
        raise RuntimeError("No such query request (12)")

    monkeypatch.setattr(genuine.device, "get_info", silent)
    assert Card(write_axlf(tmp_path / "a.xclbin"), device=2).address == "2"


def test_every_load_programs_unless_the_user_has_an_ini(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyxrt", types.ModuleType("pyxrt"))
    monkeypatch.delenv("XRT_INI_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    path = write_axlf(tmp_path / "a.xclbin")
    (tmp_path / "xrt.ini").write_text("")
    binding(path)
    assert "XRT_INI_PATH" not in os.environ
    (tmp_path / "xrt.ini").unlink()
    binding(path)
    assert "force_program_xclbin=true" in Path(os.environ.pop("XRT_INI_PATH")).read_text()


def test_commands_are_guarded(card, tmp_path):
    step = Step(card)
    fresh = card.commands("store")[0]
    with pytest.raises(UserError, match="argument 0 of kernel store_1 was never set"):
        fresh.start()
    for index in (2, 3):  # reload, and a stream
        with pytest.raises(UserError, match="not a buffer"):
            card.commands("wload")[0].bind(index, step.weights)
    for index in (1, 3, 9):
        with pytest.raises(UserError, match=f"argument {index} .* not a scalar"):
            card.commands("wload")[0].set_scalar(index, 1)
    halfway = card.commands("wload")[0]
    halfway.bind(0, step.weights)
    halfway.bind(1, step.dynamic)
    with pytest.raises(UserError, match="argument 2 of kernel wload_1 was never set"):
        halfway.start()
    other = tmp_path / "other"
    other.mkdir()
    elsewhere = Card(fake_container(other), device=1)
    buffer = elsewhere.buffer(elsewhere.commands("store")[0], 0, 64)
    with pytest.raises(UserError, match="another bank or on another card"):
        step.store.bind(0, buffer)


def test_buffer_of_another_bank_is_refused(tmp_path):
    card = Card(fake_container(tmp_path, engine_units(2), board_mems(2)))
    first, second = card.commands("store")
    buffer = card.buffer(second, 0, 64)
    assert buffer.group == 1
    with pytest.raises(UserError, match="another bank"):
        first.bind(0, buffer)
    second.bind(0, buffer)


def test_kernels_of_file_and_binding_must_agree(genuine, tmp_path):
    first, *others = engine_units()
    path = write_axlf(tmp_path / "a.xclbin", units=(replace(first, args=first.args[:-1]), *others))
    with pytest.raises(UserError, match="reads other kernels"):
        Card(path)
