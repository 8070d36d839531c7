"""One card, real or in software, through pyxrt's portable subset.

The kind of the xclbin decides which binding drives it. Everything the binding would let pass, or
die of, is checked here: argument numbers, kinds and banks against the file's metadata, buffer
sizes, unwritten memory (every buffer is synced whole when it is made), starts, states and time
limits.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gen.errors import UserError
from host.devices import SOFTWARE, binding, check_platform, information, load, open_device
from host.faults import CONTINUE, CardFault, CardUnusable, reset_advice
from host.metadata import read_metadata
from host.xclbin import Unit

Bytes = NDArray[np.uint8]
WORD = 64
TIMEOUT_MS = 20_000
MAX_WAIT_MS = 2**31 - 1


class Buffer:
    """Buffer in a kernel argument's bank; ``array`` is its host memory (uint8, 64-byte words).

    Its size is rounded up to whole words; all of it is written to the card once, as zeros.
    """

    def __init__(self, card: Card, size: int, group: int) -> None:
        self.card = card
        self.group = group
        self.size = max(WORD, -(-size // WORD) * WORD)
        direction = card.xrt.xclBOSyncDirection
        self._to = direction.XCL_BO_SYNC_BO_TO_DEVICE
        self._from = direction.XCL_BO_SYNC_BO_FROM_DEVICE
        self.bo = card.xrt.bo(card.device, self.size, card.xrt.bo.normal, group)
        # the view does not keep the binding's memory alive, but this object does
        self.array: Bytes = np.frombuffer(self.bo.map(), dtype=np.uint8)
        self.array[:] = 0
        self.push()

    def push(self, size: int | None = None, offset: int = 0) -> None:
        """Copy host memory to the card: ``size`` bytes (default: all) from ``offset`` on.

        Raises:
            CardFault: the card is gone.
        """
        self._sync(self._to, size, offset)

    def pull(self, size: int | None = None, offset: int = 0) -> None:
        """Copy card memory to the host: ``size`` bytes (default: all) from ``offset`` on.

        Raises:
            CardFault: the card is gone.
        """
        self._sync(self._from, size, offset)

    def _sync(self, direction: Any, size: int | None, offset: int) -> None:
        size = self.size - offset if size is None else size
        # not every version of the library checks this itself
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"{size} bytes at {offset} of a buffer of {self.size}")
        started = time.perf_counter()
        try:
            self.bo.sync(direction, size, offset)
        except RuntimeError as error:
            raise self.card.fault(f"a transfer failed ({error})") from error
        self.card.seconds += time.perf_counter() - started


class Command:
    """One reusable run of one compute unit, whose arguments are checked against the metadata."""

    def __init__(self, card: Card, unit: Unit) -> None:
        self.card, self.unit = card, unit
        xrt = card.xrt
        try:
            self._kernel = xrt.kernel(
                card.device, card.uuid_handle, f"{unit.kernel}:{{{unit.name}}}"
            )
            self._run = xrt.run(self._kernel)
        except RuntimeError as error:
            raise CardUnusable(
                f"kernel {unit.name} of {card.path} cannot be opened: {error}; end other processes "
                "that use the card, or build the file again"
            ) from error
        self._bound: set[int] = set()
        self._buffers = {index for index, arg in enumerate(unit.args) if arg.mems}
        # scalar arguments: number by name
        self.scalars = {arg.name: index for index, arg in enumerate(unit.args) if arg.scalar}
        self._needed = self._buffers | set(self.scalars.values())
        self._running = False

    def group(self, index: int) -> int:
        """Memory index that argument ``index`` is wired to.

        Raises:
            UserError: the argument is no buffer, or file and binding disagree.
        """
        unit = self.unit
        if not 0 <= index < len(unit.args):
            raise UserError(
                f"kernel {unit.name} has {len(unit.args)} arguments, not {index + 1}; the xclbin "
                "is of another version, build it again"
            )
        if index not in self._buffers:
            raise UserError(
                f"argument {index} of kernel {unit.name} is not a buffer in this xclbin; build it "
                "again"
            )
        group = int(self._kernel.group_id(index))
        if group not in unit.args[index].mems or group not in self.card.used_mems:
            raise UserError(
                f"argument {index} of kernel {unit.name} is wired to memory {group}, which this "
                "xclbin does not use for it; build it again"
            )
        return group

    def bind(self, index: int, buffer: Buffer) -> None:
        """Set a buffer argument; it stays set for all later starts.

        Raises:
            UserError: the argument is no buffer, or the buffer is of another card or bank.
        """
        if buffer.card is not self.card or buffer.group != self.group(index):
            raise UserError(
                f"the buffer for argument {index} of kernel {self.unit.name} lies in another bank "
                "or on another card; make it with that argument"
            )
        self._run.set_arg(index, buffer.bo)
        self._bound.add(index)

    def set_scalar(self, index: int, value: int) -> None:
        """Set a scalar argument; it stays set for all later starts.

        Raises:
            UserError: the argument is no scalar.
        """
        if index not in self.scalars.values():
            raise UserError(
                f"argument {index} of kernel {self.unit.name} is not a scalar in this xclbin; "
                "build it again"
            )
        self._run.set_arg(index, value)
        self._bound.add(index)

    def start(self) -> None:
        """Start without waiting.

        Raises:
            UserError: an argument was never set, or the last start was not waited for: the binding
                would raise and then wait for ever.
        """
        if self._bound != self._needed:
            missing = min(self._needed - self._bound)
            raise UserError(f"argument {missing} of kernel {self.unit.name} was never set; bind it")
        if self._running:
            raise UserError(f"kernel {self.unit.name} is still running; wait for it first")
        self._running = True
        self._run.start()

    def wait(self, timeout_ms: int) -> Any:
        """State after the end or after ``timeout_ms`` (at least 1: 0 would mean for ever; at most
        what the binding's int holds).
        """
        state = self._run.wait(min(max(1, timeout_ms), MAX_WAIT_MS))
        if state != self.card.timed_out:
            self._running = False
        return state


class Card:
    """An opened card, configured with ``xclbin``.

    Attributes:
        metadata: what the file says: compute units, memories, achieved clock.
        seconds: wall time in seconds spent in the binding: transfers, starts and waits.

    Raises:
        UserError: no binding, no such card, or a file that it refuses.
    """

    def __init__(self, xclbin: Path, device: int | str = 0, timeout_ms: int = TIMEOUT_MS) -> None:
        self.path, self.which, self.timeout_ms = xclbin, device, timeout_ms
        self.xrt = binding(xclbin)
        self.software = self.xrt.__name__ == SOFTWARE
        self.completed = self.xrt.ert_cmd_state.ERT_CMD_STATE_COMPLETED
        self.timed_out = self.xrt.ert_cmd_state.ERT_CMD_STATE_TIMEOUT
        self.seconds = 0.0
        self.steps = 1  # of the last start
        self.metadata = read_metadata(xclbin)
        try:
            file = self.xrt.xclbin(str(xclbin))
        except RuntimeError as error:
            raise UserError(f"{xclbin}: not to be read as an xclbin: {error}") from error
        self.device = open_device(self.xrt, device)
        check_platform(xclbin, self.metadata, information(self.xrt, self.device, "name"), device)
        self.uuid_handle = load(self.xrt, self.device, xclbin, file, device)
        self._check(file)
        self.used_mems = {mem.index for mem in self.metadata.mems if mem.used}

    def _check(self, file: Any) -> None:
        """File, binding and card must speak of the same configuration."""
        stated = self.metadata.uuid
        for handle in (file.get_uuid(), self.uuid_handle, self.device.get_xclbin_uuid()):
            if handle.to_string() != stated:
                raise CardUnusable(
                    f"card {self.which} is configured with {handle.to_string()} and not with "
                    f"{self.path} ({stated}); another process uses it: end that one, or choose "
                    "another card by --device"
                )
        kernels = {kernel.get_name(): kernel.get_num_args() for kernel in file.get_kernels()}
        if kernels != {unit.kernel: len(unit.args) for unit in self.metadata.units}:
            raise UserError(
                f"{self.path}: the binding reads other kernels from it ({', '.join(kernels)}); "
                "build it again"
            )

    @property
    def address(self) -> str:
        """PCI address, or what the card was opened by where the driver does not tell."""
        return information(self.xrt, self.device, "bdf") or str(self.which)

    @property
    def clock_mhz(self) -> float | None:
        """Clock that the linker achieved, from the file; None on the software card."""
        return self.metadata.clock_mhz

    def commands(self, kernel: str) -> list[Command]:
        """One run of each compute unit of ``kernel``: one per rank.

        Raises:
            UserError: there are none, or they cannot be opened.
        """
        units = self.metadata.units_of(kernel)
        if not units:
            raise UserError(f"the xclbin has no kernel {kernel}; build it again")
        return [Command(self, unit) for unit in units]

    def buffer(self, command: Command, index: int, size: int) -> Buffer:
        """A buffer of ``size`` bytes in the bank of a command's argument, bound to nothing.

        Raises:
            UserError: the argument is no buffer, or there is no room.
        """
        group = command.group(index)
        try:
            return Buffer(self, size, group)
        except RuntimeError as error:
            raise UserError(
                f"no room for {size} bytes on card {self.which}: {error}; end other processes that "
                "use it"
            ) from error

    def execute(self, commands: list[Command], steps: int = 1) -> None:
        """Start the commands in order (consumers first) and wait for all of them, ``steps`` times
        the time limit at most.

        Raises:
            CardFault: a time limit, an error state, or a start that the driver refuses; with the
                software card's own words (a deadlock names its FIFO).
        """
        self.steps = steps
        started = time.perf_counter()
        try:
            for command in commands:
                command.start()
            limit = steps * self.timeout_ms
            end = started + limit / 1000
            for command in commands:
                state = command.wait(round((end - time.perf_counter()) * 1000))
                if state == self.completed:
                    continue
                if state == self.timed_out:
                    what = f"did not finish within {limit / 1000:g} s"
                else:
                    what = f"ended in state {getattr(state, 'name', state)}"
                raise self.fault(f"kernel {command.unit.name} {what}")
        except RuntimeError as error:
            raise self.fault(f"it refused a command ({error})") from error
        self.seconds += time.perf_counter() - started

    def fault(self, what: str) -> CardFault:
        """A fault of this card, with what to do about it."""
        text = f"card {self.which}: {' '.join(what.split())}"
        why = self.xrt.diagnosis(self.device) if self.software else ""
        if why:
            return CardFault(f"{text}: {' '.join(why.split())}; open it again, {CONTINUE}")
        return CardFault(f"{text}; {reset_advice(self.address)}")

    @property
    def cycles(self) -> int | None:
        """Modelled clock cycles of the last start; None on a real card, and on one in software that
        does not model them.
        """
        return int(self.xrt.cycles(self.device)) or None if self.software else None

    @property
    def report(self) -> str:
        """The software card's report of the last start."""
        return str(self.xrt.report(self.device)) if self.software else ""
