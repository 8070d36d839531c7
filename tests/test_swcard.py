"""The software card behaves as pyxrt on a card does, including where that hurts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fake_card import fake_container

from host import swcard
from host.swcard import bo, ert_cmd_state, xclBOSyncDirection
from host.xclbin import board_mems, engine_units

TO = xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE
FROM = xclBOSyncDirection.XCL_BO_SYNC_BO_FROM_DEVICE
TWO_BANKS = board_mems(2)
RELOAD = 2


class Rig:
    """Both kernels of one rank with buffers of 128 bytes, everything synced unless told otherwise;
    weights are read anew in every step.
    """

    def __init__(self, path, sync=("weights", "dynamic", "latent", "result"), bank=0):
        self.device = swcard.device(0)
        self.uuid = self.device.load_xclbin(swcard.xclbin(str(path)))
        self.kernels = {n: swcard.kernel(self.device, self.uuid, n) for n in ("store", "wload")}
        self.runs = {name: swcard.run(kernel) for name, kernel in self.kernels.items()}
        self.buffers = {}
        for kernel, index, name in (
            ("store", 0, "latent"),
            ("store", 1, "result"),
            ("wload", 0, "weights"),
            ("wload", 1, "dynamic"),
        ):
            buffer = bo(self.device, 128, bo.normal, bank)
            self.buffers[name] = buffer
            if name in sync:
                buffer.sync(TO, 128, 0)
            self.runs[kernel].set_arg(index, buffer)
        self.runs["wload"].set_arg(RELOAD, 1)

    def put(self, name, values):
        self.buffers[name].write(np.array(values, dtype=np.uint8), 0)
        self.buffers[name].sync(TO, 128, 0)

    def step(self):
        self.runs["store"].start()
        self.runs["wload"].start()
        return self.runs["store"].wait(1000), self.runs["wload"].wait(1000)


@pytest.fixture
def container(tmp_path):
    return fake_container(tmp_path)


@pytest.fixture
def rig(container):
    return Rig(container)


def test_step_computes_on_device_memory(rig):
    rig.put("latent", range(128))
    rig.put("weights", [0, 5])
    assert rig.step() == (ert_cmd_state.ERT_CMD_STATE_COMPLETED,) * 2
    before = rig.buffers["result"].read(128, 0)
    assert not before.any()  # not synced back yet
    rig.buffers["result"].sync(FROM, 128, 0)
    np.testing.assert_array_equal(
        rig.buffers["result"].read(128, 0).view(np.uint8), np.arange(128, dtype=np.uint8) + 5
    )
    assert swcard.cycles(rig.device) == 1000


def test_weights_that_stay_are_read_anew_when_told(rig):
    def step(reload):
        rig.runs["wload"].set_arg(RELOAD, reload)
        assert rig.step() == (ert_cmd_state.ERT_CMD_STATE_COMPLETED,) * 2
        rig.buffers["result"].sync(FROM, 128, 0)
        return set(bytes(rig.buffers["result"].map()))

    rig.put("weights", [0, 5])
    assert step(1) == {5}
    rig.put("weights", [0, 6])
    assert step(0) == {5}
    assert step(1) == {6}


class Ranks:
    """Kernels of several ranks, each with its own buffers in its own bank."""

    def __init__(self, path, ranks):
        self.device = swcard.device(0)
        identity = self.device.load_xclbin(swcard.xclbin(str(path)))
        self.runs, self.buffers = [], []
        for rank in range(ranks):
            for name, buffers in (
                ("store", ("latent", "result")),
                ("wload", ("weights", "dynamic")),
            ):
                unit = f"{name}:{{{name}_{rank + 1}}}"
                run = swcard.run(swcard.kernel(self.device, identity, unit))
                for index, buffer in enumerate(buffers):
                    made = bo(self.device, 128, bo.normal, rank)
                    made.sync(TO, 128, 0)
                    run.set_arg(index, made)
                    self.buffers.append((rank, buffer, made))
                self.runs.append(run)

    def of(self, name):
        return [made for _, each, made in self.buffers if each == name]

    def step(self):
        for run in self.runs:
            run.start()
        return {run.wait(1000) for run in self.runs}


def test_every_rank_has_its_own_buffers(tmp_path):
    card = Ranks(fake_container(tmp_path, engine_units(4), board_mems(4)), 4)
    for rank, latent in enumerate(card.of("latent")):
        latent.write(bytes([10 * rank] * 128), 0)
        latent.sync(TO, 128, 0)
    assert card.step() == {ert_cmd_state.ERT_CMD_STATE_COMPLETED}
    for rank, result in enumerate(card.of("result")):
        result.sync(FROM, 128, 0)
        assert set(bytes(result.map())) == {10 * rank}


def test_a_step_waits_for_every_rank(tmp_path):
    card = Ranks(fake_container(tmp_path, engine_units(2), board_mems(2)), 2)
    *most, last = card.runs
    for run in most:
        run.start()
    assert {run.wait(5) for run in most} == {ert_cmd_state.ERT_CMD_STATE_TIMEOUT}
    last.start()
    assert {run.wait(5) for run in card.runs} == {ert_cmd_state.ERT_CMD_STATE_COMPLETED}


def test_ranks_that_differ_in_their_scalar_are_an_error(tmp_path):
    card = Ranks(fake_container(tmp_path, engine_units(2), board_mems(2)), 2)
    card.runs[1].set_arg(RELOAD, 1)  # wload_1 alone
    assert card.step() == {ert_cmd_state.ERT_CMD_STATE_ERROR}
    assert "differ in their scalar argument reload" in swcard.diagnosis(card.device)


def test_forgotten_sync_of_new_data_shows(rig):
    rig.put("latent", [1] * 128)
    rig.buffers["latent"].write(b"\x09" * 128, 0)
    rig.step()
    rig.buffers["result"].sync(FROM, 128, 0)
    assert set(bytes(rig.buffers["result"].map())) == {1}


@pytest.mark.parametrize("missing", ["weights", "dynamic", "latent"])
def test_kernel_reading_unwritten_memory_is_an_error(container, missing):
    names = {"weights", "dynamic", "latent", "result"} - {missing}
    rig = Rig(container, sync=names)
    assert rig.step() == (ert_cmd_state.ERT_CMD_STATE_ERROR,) * 2
    assert missing in swcard.diagnosis(rig.device)


def test_reading_back_unwritten_memory_is_an_error(container):
    rig = Rig(container, sync=("weights", "dynamic", "latent"))
    rig.step()
    with pytest.raises(RuntimeError, match="ECC"):
        rig.buffers["result"].sync(FROM, 128, 0)


def test_partly_written_buffer_is_not_ready(rig):
    part = bo(rig.device, 200, bo.normal, 0)
    part.sync(TO, 64, 0)
    part.sync(FROM, 64, 0)
    with pytest.raises(RuntimeError, match="ECC"):
        part.sync(FROM, 65, 0)
    part.sync(TO, 136, 64)
    part.sync(FROM, 200, 0)


def test_start_twice(rig):
    rig.runs["store"].start()
    with pytest.raises(RuntimeError, match="bad command state, can't launch"):
        rig.runs["store"].start()
    rig.runs["wload"].start()
    with pytest.raises(RuntimeError, match="bad command state, can't launch"):
        rig.runs["wload"].start()  # finished, but not waited for
    rig.runs["store"].wait(10)
    rig.runs["wload"].wait(10)
    assert rig.step() == (ert_cmd_state.ERT_CMD_STATE_COMPLETED,) * 2


@pytest.mark.parametrize("name", ["store", "wload"])
def test_one_kernel_alone_times_out(rig, name):
    rig.runs[name].start()
    assert rig.runs[name].wait(5) == ert_cmd_state.ERT_CMD_STATE_TIMEOUT
    with pytest.raises(RuntimeError, match="without end"):
        rig.runs[name].wait()


def test_deadlock_times_out_and_is_explained(rig):
    rig.put("weights", [1, 0])
    assert rig.step()[0] == ert_cmd_state.ERT_CMD_STATE_TIMEOUT
    assert "FIFO as_1 (4/4)" in swcard.diagnosis(rig.device)


@pytest.mark.parametrize("code", [2, 3])
def test_other_faults_are_error_states(rig, code):
    rig.put("weights", [code, 0])
    assert rig.step()[0] == ert_cmd_state.ERT_CMD_STATE_ERROR
    assert swcard.diagnosis(rig.device)


def test_failed_card_is_fresh_after_closing_and_loading(container):
    rig = Rig(container)
    rig.put("weights", [1, 0])
    rig.step()
    del rig
    again = Rig(container)
    assert swcard.diagnosis(again.device) == ""
    assert again.step()[0] == ert_cmd_state.ERT_CMD_STATE_COMPLETED
    assert swcard.cycles(again.device) == 1000


def test_set_arg_types(rig):
    run = rig.runs["store"]
    for bad in (1.5, 2**31, -(2**31) - 1, "latent", None, np.float32(1)):
        with pytest.raises(TypeError):
            run.set_arg(0, bad)
    run.set_arg(2, 7)  # a stream: accepted without a word
    run.set_arg(2, np.int32(7))
    with pytest.raises(IndexError):
        run.set_arg(6, 7)
    for index in (2, 6, -1):
        with pytest.raises(RuntimeError, match="SIGSEGV"):
            run.set_arg(index, rig.buffers["latent"])
    run.set_arg(0, 7)  # accepted, and the kernel runs on a stale register
    assert rig.step()[0] == ert_cmd_state.ERT_CMD_STATE_ERROR
    assert "latent" in swcard.diagnosis(rig.device)


def test_arguments_are_positional_only(rig):
    buffer = rig.buffers["latent"]
    with pytest.raises(TypeError):
        buffer.write(b"1", seek=0)
    with pytest.raises(TypeError):
        buffer.sync(TO, size=1, offset=0)
    with pytest.raises(TypeError):
        buffer.sync(0, 1, 0)
    with pytest.raises(TypeError):
        bo(rig.device, 64, 0, 0)
    with pytest.raises(TypeError):
        buffer.write(b"1")
    with pytest.raises(TypeError):
        rig.kernels["store"](buffer, buffer)


def test_wrong_bank_clones_with_a_warning(tmp_path, capfd):
    rig = Rig(fake_container(tmp_path, mems=TWO_BANKS), bank=1)
    assert "WARNING" in capfd.readouterr().err
    rig.put("latent", [3] * 128)  # goes to the buffer, not to its clone
    assert rig.step()[0] == ert_cmd_state.ERT_CMD_STATE_COMPLETED
    rig.buffers["result"].sync(FROM, 128, 0)
    assert not any(rig.buffers["result"].map())


def test_banks_that_do_not_exist(rig):
    for bank in (1, 99):
        with pytest.raises(RuntimeError, match="bank"):
            bo(rig.device, 64, bo.normal, bank)


def test_write_ignores_strides(rig):
    matrix = np.arange(16, dtype=np.uint8).reshape(4, 4)
    buffer = rig.buffers["latent"]
    buffer.write(matrix.T, 0)
    np.testing.assert_array_equal(buffer.read(16, 0), np.arange(16))
    buffer.write(matrix[:, 1:3], 64)
    np.testing.assert_array_equal(buffer.read(8, 64), np.arange(1, 9))


def test_bounds(rig):
    buffer = rig.buffers["latent"]
    with pytest.raises(RuntimeError, match="past the end"):
        buffer.write(b"12", 127)
    with pytest.raises(RuntimeError, match="past the end"):
        buffer.read(1, 128)
    with pytest.raises(RuntimeError, match="past the end"):
        buffer.sync(TO, 129, 0)


def test_map_is_the_host_memory(rig):
    buffer = rig.buffers["latent"]
    view = buffer.map()
    assert (view.format, view.nbytes, view.readonly) == ("B", 128, False)
    np.frombuffer(view, np.uint8)[3] = 77
    assert buffer.read(1, 3)[0] == 77


def test_sub_buffer_shares_memory_and_must_be_aligned(rig):
    parent = bo(rig.device, 256, bo.normal, 0)
    parent.sync(TO, 256, 0)
    part = bo(parent, 128, 64)
    part.write(b"\x05", 0)
    assert parent.read(1, 64)[0] == 5
    assert part.address() == parent.address() + 64
    rig.runs["store"].set_arg(0, part)
    assert rig.step()[0] == ert_cmd_state.ERT_CMD_STATE_COMPLETED
    rig.runs["store"].set_arg(0, bo(parent, 128, 100))
    assert rig.step()[0] == ert_cmd_state.ERT_CMD_STATE_ERROR
    assert "64" in swcard.diagnosis(rig.device)


def test_metadata(container, rig):
    file = swcard.xclbin(str(container))
    assert {k.get_name(): k.get_num_args() for k in file.get_kernels()} == {
        unit.kernel: len(unit.args) for unit in engine_units()
    }
    assert [m.get_used() for m in file.get_mems()] == [1, 0, 0, 0]
    assert rig.kernels["store"].group_id(1) == 0
    with pytest.raises(IndexError):
        rig.kernels["store"].group_id(2)
    assert rig.device.get_xclbin_uuid().to_string() == file.get_uuid().to_string()
    assert rig.device.get_info(swcard.xrt_info_device.name) == "software card"


def test_opening_fails_as_the_binding_does(container, rig, tmp_path):
    with pytest.raises(RuntimeError, match="Could not open device with index '99'"):
        swcard.device(99)
    with pytest.raises(RuntimeError, match="AP_CTRL_NONE"):
        swcard.kernel(rig.device, rig.uuid, "mac")
    with pytest.raises(RuntimeError, match="No such kernel 'nothing'"):
        swcard.kernel(rig.device, rig.uuid, "nothing")
    with pytest.raises(RuntimeError, match="No compute units"):
        swcard.kernel(rig.device, rig.uuid, "store:{store_9}")
    with pytest.raises(RuntimeError, match="Conflicting access mode"):
        swcard.kernel(rig.device, rig.uuid, "store", swcard.kernel.exclusive)
    with pytest.raises(RuntimeError):
        swcard.xclbin(str(tmp_path / "missing.xclbin"))
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(RuntimeError, match="busy"):
        rig.device.load_xclbin(str(fake_container(other)))


def test_changed_files_are_refused(container):
    value = json.loads(container.read_text())
    value["units"][0]["args"][0]["mems"] = [1]
    container.write_text(json.dumps(value))
    with pytest.raises(RuntimeError, match="changed"):
        swcard.xclbin(str(container))
    container = fake_container(container.parent)
    with (container.parent / "card.so").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(RuntimeError, match="changed"):
        swcard.device(0).load_xclbin(str(container))
