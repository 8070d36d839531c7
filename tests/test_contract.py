"""What the host relies on, against the software card and against the genuine binding.

The genuine one runs with XRT's no-op device (``XCL_EMULATION_MODE=noop``), whose kernels do nothing
and end at once. It needs pyxrt and libxrt_noop.so.2; neither is on a package index.
"""

from __future__ import annotations

import ctypes.util
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from axlf_writer import write_axlf
from fake_card import fake_container

from host import swcard
from host.card import Card
from host.metadata import read_metadata
from host.xclbin import board_mems, engine_units

RANKS = 2


def noop_home(folder):
    """An XRT installation in ``folder`` whose no-op device is the system's; None if it has none."""
    roots = [Path(os.environ.get("XILINX_XRT", "/opt/xilinx/xrt")) / "lib"]
    roots += [Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib64"), Path("/usr/lib")]
    found = next((root for root in roots if (root / "libxrt_noop.so.2").exists()), None)
    if found is None:
        return None
    (folder / "lib").mkdir()
    (folder / "lib" / "libxrt_noop.so.2").symlink_to(found / "libxrt_noop.so.2")
    return folder


@pytest.fixture(scope="module")
def noop(tmp_path_factory):
    """The environment of the no-op device, before the library is first used."""
    if os.environ.get("XCL_EMULATION_MODE", "noop") != "noop":
        pytest.skip("XCL_EMULATION_MODE is set for another device")
    home = noop_home(tmp_path_factory.mktemp("xrt"))
    if home is None:
        pytest.skip("needs XRT's no-op device (Debian: apt install libxrt1)")
    os.environ["XCL_EMULATION_MODE"] = "noop"
    os.environ["XILINX_XRT"] = str(home)
    return home


@pytest.fixture(scope="module", params=["software card", "pyxrt"])
def rig(request, tmp_path_factory):
    """An opened card with one engine per rank."""
    folder = tmp_path_factory.mktemp("contract")
    units, mems = engine_units(RANKS), board_mems(RANKS)
    if request.param == "pyxrt":
        xrt = pytest.importorskip("pyxrt", reason="needs pyxrt, which ships with XRT")
        request.getfixturevalue("noop")
        path = write_axlf(folder / "engine.xclbin", units, mems)
    else:
        xrt, path = swcard, fake_container(folder, units, mems)
    device = xrt.device(0)
    uuid = device.load_xclbin(xrt.xclbin(str(path)))
    return SimpleNamespace(
        xrt=xrt,
        path=path,
        device=device,
        uuid=uuid,
        genuine=request.param == "pyxrt",
        to=xrt.xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE,
        back=xrt.xclBOSyncDirection.XCL_BO_SYNC_BO_FROM_DEVICE,
        states=xrt.ert_cmd_state,
        kernel=lambda unit: xrt.kernel(device, uuid, f"{unit.partition('_')[0]}:{{{unit}}}"),
        bo=lambda size, bank=0: xrt.bo(device, size, xrt.bo.normal, bank),
    )


def test_file_speaks_of_what_is_in_it(rig):
    file = rig.xrt.xclbin(str(rig.path))
    metadata = read_metadata(rig.path)
    assert file.get_uuid().to_string() == rig.uuid.to_string() == metadata.uuid
    assert rig.device.get_xclbin_uuid().to_string() == metadata.uuid
    assert file.get_xsa_name() == metadata.platform
    assert {k.get_name(): k.get_num_args() for k in file.get_kernels()} == {
        unit.kernel: len(unit.args) for unit in metadata.units
    }
    assert [
        (m.get_index(), m.get_tag(), m.get_base_address(), m.get_size_kb(), m.get_used())
        for m in file.get_mems()
    ] == [(m.index, m.tag, m.base, m.size_kb, m.used) for m in metadata.mems]


def test_handles_to_the_same_uuid_are_not_equal(rig):
    assert rig.uuid != rig.xrt.uuid(rig.uuid.to_string())
    assert rig.xrt.uuid(rig.uuid.to_string()).to_string() == rig.uuid.to_string()


def test_banks_of_every_unit(rig):
    for rank in range(RANKS):
        kernel = rig.kernel(f"store_{rank + 1}")
        assert kernel.group_id(0) == kernel.group_id(1) == rank
        for index in (2, 5, 6, 99, -1):
            with pytest.raises(IndexError):
                kernel.group_id(index)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mac", "AP_CTRL_NONE"),
        ("nothing", "No such kernel"),
        ("store:{store_9}", "No compute units matching"),
    ],
)
def test_kernels_that_cannot_be_opened(rig, name, message):
    with pytest.raises(RuntimeError, match=message):
        rig.xrt.kernel(rig.device, rig.uuid, name)


def test_kernel_of_another_xclbin(rig):
    other = rig.xrt.uuid("00000000-0000-0000-0000-000000000001")
    with pytest.raises(RuntimeError, match="id mismatch"):
        rig.xrt.kernel(rig.device, other, "store")


def test_other_access_mode(rig):
    held = rig.kernel("store_1")
    with pytest.raises(RuntimeError, match="Conflicting access mode"):
        rig.xrt.kernel(rig.device, rig.uuid, "store:{store_1}", rig.xrt.kernel.exclusive)
    del held


def test_missing_files_and_bad_handles(rig):
    for call in (rig.xrt.xclbin, rig.device.load_xclbin):
        with pytest.raises(RuntimeError):
            call("/nonexistent.xclbin")
    with pytest.raises(TypeError):
        rig.xrt.kernel(rig.device, "not a uuid", "store")
    with pytest.raises(TypeError):
        rig.xrt.device(1.5)
    with pytest.raises(TypeError):
        rig.device.get_info(0)
    with pytest.raises((RuntimeError, ValueError)):
        rig.xrt.device("no address")


def test_set_arg(rig):
    run = rig.xrt.run(rig.kernel("store_1"))
    buffer = rig.bo(128)
    run.set_arg(0, buffer)
    run.set_arg(1, buffer)
    run.set_arg(2, 5)  # a stream, accepted without a word
    run.set_arg(1, np.int32(7))
    run.set_arg(0, True)
    for bad in (1.5, None, "1", 2**31, -(2**31) - 1, 2**40):
        with pytest.raises(TypeError):
            run.set_arg(0, bad)
    for index in (6, -1, 99):
        with pytest.raises(IndexError):
            run.set_arg(index, 5)
    with pytest.raises(TypeError):
        run.set_arg(0)
    with pytest.raises(TypeError):
        run.set_arg(0, value=1)


def test_wrong_bank_is_cloned_with_a_warning(rig, capfd):
    run = rig.xrt.run(rig.kernel("store_2"))
    run.set_arg(0, rig.bo(128, 0))
    assert "no compute units with connectivity required" in capfd.readouterr().err
    run.set_arg(0, rig.bo(128, 1))
    assert not capfd.readouterr().err


def started_runs(rig):
    """A run of every compute unit that the host starts, with its buffers."""
    runs = []
    for unit, rank in (("store_1", 0), ("store_2", 1), ("wload_1", 0), ("wload_2", 1)):
        run = rig.xrt.run(rig.kernel(unit))
        assert run.state() == rig.states.ERT_CMD_STATE_NEW
        for index in (0, 1):
            buffer = rig.bo(128, rank)
            buffer.sync(rig.to, 128, 0)
            run.set_arg(index, buffer)
        runs.append(run)
    for run in runs:
        assert run.start() is None
    return runs


def test_start_before_the_wait(rig):
    runs = started_runs(rig)
    with pytest.raises(RuntimeError, match="bad command state, can't launch"):
        runs[0].start()
    # the genuine binding has reset the command by now: a wait for it would never end


def test_runs_end_and_start_again(rig):
    runs = started_runs(rig)
    for _ in range(3):
        for run in runs:
            assert run.wait(1000) == rig.states.ERT_CMD_STATE_COMPLETED
            assert run.wait(1000) == rig.states.ERT_CMD_STATE_COMPLETED
            assert run.wait() == run.state() == rig.states.ERT_CMD_STATE_COMPLETED
        for run in runs:
            run.start()
    for run in runs:
        run.wait(1000)
    for bad in (-1, 1.5, None):
        with pytest.raises(TypeError):
            runs[0].wait(bad)


def test_states_have_the_values_of_ert(rig):
    values = {"NEW": 1, "QUEUED": 2, "COMPLETED": 4, "ERROR": 5, "ABORT": 6, "SUBMITTED": 7}
    values |= {"TIMEOUT": 8, "NORESPONSE": 9, "SKERROR": 10, "SKCRASHED": 11}
    for name, value in values.items():
        state = getattr(rig.states, f"ERT_CMD_STATE_{name}")
        assert int(state) == value and state == value
        assert state.name == f"ERT_CMD_STATE_{name}"
    assert not hasattr(rig.states, "ERT_CMD_STATE_RUNNING")


def test_buffer_reads_writes_and_maps(rig):
    buffer = rig.bo(200)
    assert buffer.size() == 200
    assert isinstance(buffer.address(), int)
    view = buffer.map()
    assert (view.format, view.nbytes, view.readonly) == ("B", 200, False)
    data = np.arange(200, dtype=np.uint8)
    buffer.write(data, 0)
    np.testing.assert_array_equal(np.frombuffer(view, np.uint8), data)
    np.frombuffer(view, np.uint8)[7] = 99
    part = buffer.read(3, 6)
    assert part.dtype == np.int8
    np.testing.assert_array_equal(part, [6, 99, 8])
    assert buffer.read(0, 0).size == 0
    buffer.write(np.array([-1], np.int32), 196)
    np.testing.assert_array_equal(buffer.read(4, 196), [-1] * 4)


def test_write_ignores_strides(rig):
    buffer = rig.bo(64)
    matrix = np.arange(16, dtype=np.uint8).reshape(4, 4)
    buffer.write(matrix.T, 0)
    np.testing.assert_array_equal(buffer.read(16, 0), np.arange(16))


def test_buffer_bounds_and_types(rig):
    buffer = rig.bo(200)
    for call in (lambda: buffer.write(b"12", 199), lambda: buffer.read(2, 199)):
        with pytest.raises(RuntimeError):
            call()
    for call in (
        lambda: buffer.write(b"1"),
        lambda: buffer.write([1], 0),
        lambda: buffer.write("s", 0),
        lambda: buffer.write(b"1", -1),
        lambda: buffer.write(b"1", seek=0),
        lambda: buffer.read(-1, 0),
        lambda: buffer.sync(0, 64, 0),
        lambda: buffer.sync(rig.to, -1, 0),
        lambda: buffer.sync(rig.to, 64),
        lambda: buffer.sync(rig.to, size=64, offset=0),
        lambda: rig.xrt.bo(rig.device, 64, 0, 0),
        lambda: rig.xrt.bo(rig.device, 64, rig.xrt.bo.normal, -1),
        lambda: rig.xrt.bo(rig.device, 64),
    ):
        with pytest.raises(TypeError):
            call()


def test_sync_keeps_what_was_written(rig):
    buffer = rig.bo(256)
    buffer.write(np.arange(256, dtype=np.uint8), 0)
    assert buffer.sync(rig.to, 256, 0) is None
    assert buffer.sync(rig.back, 128, 64) is None
    np.testing.assert_array_equal(buffer.read(256, 0).view(np.uint8), np.arange(256))


def test_sub_buffer(rig):
    parent = rig.bo(256)
    part = rig.xrt.bo(parent, 64, 128)
    assert part.size() == 64
    assert part.address() == parent.address() + 128
    part.write(b"\x05", 0)
    assert parent.read(1, 128)[0] == 5
    for size, offset in ((64, 200), (257, 0)):
        with pytest.raises(RuntimeError, match="sub buffer"):
            rig.xrt.bo(parent, size, offset)


def test_portable_names(rig):
    for name in (
        "XCL_BO_FLAGS_NONE", "bo", "device", "ert_cmd_state", "kernel", "run", "uuid", "xclbin",
        "xclBOSyncDirection", "xrt_info_device",
    ):  # fmt: skip
        assert hasattr(rig.xrt, name)
    assert int(rig.to) == 0 and int(rig.back) == 1
    keys = ["bdf", "interface_uuid", "max_clock_frequency_mhz", "name", "offline", "platform"]
    assert all(hasattr(rig.xrt.xrt_info_device, key) for key in keys)


def test_host_drives_it(rig):
    card = Card(rig.path)
    stores, wloads = card.commands("store"), card.commands("wload")
    assert [command.unit.name for command in stores] == ["store_1", "store_2"]
    for command in (*stores, *wloads):
        for index in (0, 1):
            command.bind(index, card.buffer(command, index, 100))
    for command in wloads:
        command.set_scalar(2, 1)
    for _ in range(2):
        card.execute([*stores, *wloads])
    assert card.seconds > 0


def test_our_xclbin_through_the_c_library(noop, tmp_path):
    """The same container without a Python binding, through XRT's C interface."""
    name = ctypes.util.find_library("xrt_coreutil") or "libxrt_coreutil.so.2"
    try:
        lib = ctypes.CDLL(name)
    except OSError:
        pytest.skip("needs libxrt_coreutil.so.2 (Debian: apt install libxrt1)")
    handle, size = ctypes.c_void_p, ctypes.c_size_t
    for function, result, arguments in (
        ("xrtDeviceOpen", handle, [ctypes.c_uint]),
        ("xrtDeviceClose", ctypes.c_int, [handle]),
        ("xrtDeviceLoadXclbinFile", ctypes.c_int, [handle, ctypes.c_char_p]),
        ("xrtDeviceGetXclbinUUID", ctypes.c_int, [handle, ctypes.c_char_p]),
        ("xrtPLKernelOpen", handle, [handle, ctypes.c_char_p, ctypes.c_char_p]),
        ("xrtKernelArgGroupId", ctypes.c_int, [handle, ctypes.c_int]),
        ("xrtKernelClose", ctypes.c_int, [handle]),
        ("xrtBOAlloc", handle, [handle, size, ctypes.c_uint64, ctypes.c_uint]),
        ("xrtBOSync", ctypes.c_int, [handle, ctypes.c_int, size, size]),
        ("xrtBOFree", ctypes.c_int, [handle]),
        ("xrtRunOpen", handle, [handle]),
        ("xrtRunSetArg", ctypes.c_int, [handle, ctypes.c_int, handle]),
        ("xrtRunStart", ctypes.c_int, [handle]),
        ("xrtRunWait", ctypes.c_int, [handle]),
        ("xrtRunClose", ctypes.c_int, [handle]),
    ):
        getattr(lib, function).restype = result
        getattr(lib, function).argtypes = arguments
    path = write_axlf(tmp_path / "engine.xclbin", engine_units(RANKS), board_mems(RANKS))
    device = lib.xrtDeviceOpen(0)
    assert device
    assert lib.xrtDeviceLoadXclbinFile(device, str(path).encode()) == 0
    uuid = ctypes.create_string_buffer(16)
    assert lib.xrtDeviceGetXclbinUUID(device, uuid) == 0
    assert uuid.raw.hex() == read_metadata(path).uuid.replace("-", "")
    for rank in range(RANKS):
        kernel = lib.xrtPLKernelOpen(device, uuid, f"store:{{store_{rank + 1}}}".encode())
        assert kernel
        assert [lib.xrtKernelArgGroupId(kernel, index) for index in (0, 1)] == [rank, rank]
        buffer = lib.xrtBOAlloc(device, 128, 0, rank)
        assert buffer and lib.xrtBOSync(buffer, 0, 128, 0) == 0
        run = lib.xrtRunOpen(kernel)
        assert all(lib.xrtRunSetArg(run, index, buffer) == 0 for index in (0, 1))
        assert lib.xrtRunStart(run) == 0
        assert lib.xrtRunWait(run) == 4  # ERT_CMD_STATE_COMPLETED
        for close, what in (
            (lib.xrtRunClose, run),
            (lib.xrtBOFree, buffer),
            (lib.xrtKernelClose, kernel),
        ):
            assert close(what) == 0
    assert not lib.xrtPLKernelOpen(device, uuid, b"mac")  # runs freely
    assert lib.xrtDeviceClose(device) == 0
