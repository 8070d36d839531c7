"""One card, real or in software, through pyxrt's portable subset.

The kind of the xclbin decides which binding drives it. Everything the binding would let pass is
checked here: argument numbers and banks against the metadata, buffer sizes, alignment, unwritten
memory (every buffer is synced whole when it is made), states and time limits.
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gen.errors import UserError
from host.xclbin import is_genuine

Bytes = NDArray[np.uint8]
WORD = 64
TIMEOUT_MS = 20_000


def _binding(xclbin: Path) -> Any:
    """Pyxrt for a genuine xclbin, the software card for its container."""
    if not is_genuine(xclbin):
        return importlib.import_module("host.swcard")
    try:
        return importlib.import_module("pyxrt")
    except ImportError as error:
        raise UserError(
            f"{xclbin} is for a real card but pyxrt cannot be imported ({error}); install XRT and "
            "run `source /opt/xilinx/xrt/setup.sh`"
        ) from error


class Buffer:
    """Buffer in a kernel argument's bank; ``array`` is its host memory (uint8, 64-byte words).

    Its size is rounded up to whole words; all of it is written to the card once, as zeros.
    """

    def __init__(self, binding: Any, device: Any, size: int, group: int) -> None:
        self.size = max(WORD, -(-size // WORD) * WORD)
        self._direction = binding.xclBOSyncDirection
        self.bo = binding.bo(device, self.size, binding.bo.normal, group)
        self.array: Bytes = np.frombuffer(self.bo.map(), dtype=np.uint8)
        self.array[:] = 0
        self.push()

    def push(self, size: int | None = None, offset: int = 0) -> None:
        """Copy host memory to the card: ``size`` bytes (default: all) from ``offset`` on."""
        self._check(size, offset)
        self.bo.sync(
            self._direction.XCL_BO_SYNC_BO_TO_DEVICE, self.size if size is None else size, offset
        )

    def pull(self, size: int | None = None, offset: int = 0) -> None:
        """Copy card memory to the host: ``size`` bytes (default: all) from ``offset`` on."""
        self._check(size, offset)
        self.bo.sync(
            self._direction.XCL_BO_SYNC_BO_FROM_DEVICE, self.size if size is None else size, offset
        )

    def _check(self, size: int | None, offset: int) -> None:
        # not every version of the library checks this itself
        if offset < 0 or offset + (self.size - offset if size is None else size) > self.size:
            raise ValueError(f"{size} bytes at {offset} of a buffer of {self.size}")


class Command:
    """One reusable run of a kernel whose arguments are checked against the metadata."""

    def __init__(self, name: str, kernel: Any, run: Any, args: int, mems: set[int]) -> None:
        self.name = name
        self._kernel = kernel
        self._run = run
        self._args = args
        self._mems = mems

    def group(self, index: int) -> int:
        """Memory index that argument ``index`` is wired to."""
        if not 0 <= index < self._args:
            raise UserError(
                f"kernel {self.name} has {self._args} arguments, not {index + 1}; the xclbin is "
                "of another version, build it again"
            )
        try:
            group = int(self._kernel.group_id(index))
        except IndexError as error:
            raise UserError(
                f"argument {index} of kernel {self.name} is not a buffer in this xclbin; build it "
                "again"
            ) from error
        if group not in self._mems:
            raise UserError(
                f"argument {index} of kernel {self.name} is wired to memory {group}, which this "
                "xclbin does not use; build it again"
            )
        return group

    def bind(self, index: int, buffer: Buffer) -> None:
        """Set a buffer argument; it stays set for all later starts."""
        self._run.set_arg(index, buffer.bo)

    def start(self) -> None:
        """Start without waiting."""
        self._run.start()

    def wait(self, timeout_ms: int) -> Any:
        """State after the end or after ``timeout_ms`` (at least 1: 0 would mean for ever)."""
        return self._run.wait(max(1, timeout_ms))


class Card:
    """An opened card, configured with ``xclbin``.

    Raises:
        UserError: no binding, no such card, or a file that it refuses.
    """

    def __init__(self, xclbin: Path, device: int | str = 0, timeout_ms: int = TIMEOUT_MS) -> None:
        self._xrt = _binding(xclbin)
        self.software = self._xrt.__name__ == "host.swcard"
        self.timeout_ms = timeout_ms
        try:
            file = self._xrt.xclbin(str(xclbin))
            self._device = self._xrt.device(device)
            self._uuid = self._device.load_xclbin(file)
        except RuntimeError as error:
            raise UserError(f"{xclbin}: the card cannot be opened: {error}") from error
        self.uuid: str = self._uuid.to_string()
        self._kernel_args = {k.get_name(): k.get_num_args() for k in file.get_kernels()}
        self._mems = {mem.get_index() for mem in file.get_mems() if mem.get_used()}

    def command(self, kernel: str) -> Command:
        """A run of ``kernel``."""
        if kernel not in self._kernel_args:
            raise UserError(f"the xclbin has no kernel {kernel}; build it again")
        try:
            handle = self._xrt.kernel(self._device, self._uuid, kernel)
            run = self._xrt.run(handle)
        except RuntimeError as error:
            raise UserError(f"kernel {kernel} cannot be opened: {error}") from error
        return Command(kernel, handle, run, self._kernel_args[kernel], self._mems)

    def buffer(self, command: Command, index: int, size: int) -> Buffer:
        """A buffer of ``size`` bytes in the bank of a command's argument; not bound yet."""
        group = command.group(index)
        try:
            return Buffer(self._xrt, self._device, size, group)
        except RuntimeError as error:
            raise UserError(f"no room for {size} bytes on the card: {error}") from error

    def execute(self, *commands: Command) -> None:
        """Start the commands in order (consumer first) and wait for all of them.

        Raises:
            UserError: a time limit, an error state, or a start that the driver refuses; with the
                software card's own words (a deadlock names its FIFO).
        """
        states = self._xrt.ert_cmd_state
        try:
            for command in commands:
                command.start()
            end = time.monotonic() + self.timeout_ms / 1000
            for command in commands:
                state = command.wait(round((end - time.monotonic()) * 1000))
                if state == states.ERT_CMD_STATE_COMPLETED:
                    continue
                if state == states.ERT_CMD_STATE_TIMEOUT:
                    what = f"did not finish within {self.timeout_ms / 1000:g} s"
                else:
                    what = f"ended in state {getattr(state, 'name', state)}"
                raise UserError(self._fault(f"kernel {command.name} {what}"))
        except RuntimeError as error:
            raise UserError(self._fault(f"the card refused a command ({error})")) from error

    def _fault(self, what: str) -> str:
        why = self._xrt.diagnosis(self._device) if self.software else ""
        if why:
            return f"{what}: {' '.join(why.split())}"
        return f"{what}; reset the card and load its xclbin again"

    @property
    def cycles(self) -> int | None:
        """Modelled clock cycles of the last step; None on a real card."""
        return int(self._xrt.cycles(self._device)) if self.software else None

    @property
    def report(self) -> str:
        """The software card's report of the last step."""
        return str(self._xrt.report(self._device)) if self.software else ""
