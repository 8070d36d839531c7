"""``kernel`` and ``run``: starting kernels and waiting for them.

A step needs every compute unit that the host starts: ``store`` and ``wload`` of all ranks feed each
other through the free-running ones. The step is computed when the last of them is started; before
that they stay running, as they would on the card, and a wait with a limit reports a timeout.
"""

from __future__ import annotations

import operator
import re
import sys
from enum import Enum
from typing import Any

from host.swcard import steps
from host.swcard.buffers import bo
from host.swcard.containers import uuid
from host.swcard.devices import device, loaded
from host.swcard.enums import ert_cmd_state
from host.xclbin import Unit

_NAME = re.compile(r"(?P<kernel>\w+)(:\{(?P<units>[\w,]+)\})?")


class kernel:
    """Handle to compute units of a kernel: ``kernel(device, uuid, name[, mode])``.

    ``name`` is the kernel's, for all of its units, or ``"kernel:{unit,unit}"``.

    Raises:
        RuntimeError: another xclbin is loaded, no such kernel or unit, a free-running kernel, or a
            unit is open with another mode.
    """

    class cu_access_mode(Enum):
        """Who else may open the kernel."""

        exclusive = 0
        shared = 1
        none = 2

    exclusive = cu_access_mode.exclusive
    shared = cu_access_mode.shared
    none = cu_access_mode.none

    def __init__(
        self,
        owner: device,
        identity: uuid,
        name: str,
        mode: kernel.cu_access_mode = cu_access_mode.shared,
        /,
    ) -> None:
        container, _ = loaded(owner.board)
        owner.board.reach()
        if not isinstance(identity, uuid):
            raise TypeError("__init__(): incompatible constructor arguments")
        if identity.to_string() != container.uuid:
            raise RuntimeError("xclbin id mismatch: Invalid argument")
        self.units = _matching(container.units, name)
        if not self.units[0].started:
            raise RuntimeError("AP_CTRL_NONE is only supported by XRT native API xrt::ip")
        for other, (other_mode, *units) in owner.board.kernels.items():
            if other_mode != mode.name and {unit.name for unit in self.units} & set(units):
                raise RuntimeError(f"Conflicting access mode for {other.units[0].name}")
        self.board = owner.board
        self.args = self.units[0].args
        owner.board.kernels[self] = (mode.name, *(unit.name for unit in self.units))

    def group_id(self, argno: int, /) -> int:
        """Memory index that an argument is wired to.

        Raises:
            IndexError: a stream, or no such argument.
        """
        if not 0 <= argno < len(self.args) or not self.args[argno].mems:
            raise IndexError("vector::_M_range_check")
        return max(self.args[argno].mems)


def _matching(units: tuple[Unit, ...], name: str) -> tuple[Unit, ...]:
    match = _NAME.fullmatch(name)
    mine = [unit for unit in units if match and unit.kernel == match["kernel"]]
    if not mine:
        raise RuntimeError(f"No such kernel '{name}': Invalid argument")
    assert match is not None
    if match["units"] is None:
        return tuple(mine)
    wanted = match["units"].split(",")
    if not set(wanted) <= {unit.name for unit in mine}:
        raise RuntimeError(f"No compute units matching '{name}'")
    return tuple(unit for unit in mine if unit.name in wanted)


def _warn(message: str) -> None:
    print(f"[XRT] WARNING: {message}", file=sys.stderr)


class run:
    """One reusable command of a kernel."""

    def __init__(self, owner: kernel, /) -> None:
        if not isinstance(owner, kernel):
            raise TypeError("__init__(): incompatible constructor arguments")
        self.kernel = owner
        self.unit = owner.units[0]
        self.buffers: dict[int, bo] = {}
        self.scalars: dict[int, int] = {}
        # None while it runs
        self.outcome: ert_cmd_state | None = ert_cmd_state.ERT_CMD_STATE_NEW
        self.waited = True

    def set_arg(self, index: int, value: Any, /) -> None:
        """Set a buffer, or a scalar in the range of a C int.

        A buffer in another bank than the argument's is copied to that bank, with a warning: what
        the kernel writes does not reach the buffer that was passed.

        Raises:
            TypeError: neither a buffer nor such an integer.
            IndexError: no such argument.
            RuntimeError: a buffer for an argument that takes none: the binding dies of it
                (SIGSEGV).
        """
        if not isinstance(value, bo):
            try:
                number = operator.index(value)
            except TypeError as error:
                raise TypeError("set_arg(): incompatible function arguments") from error
            if not -(1 << 31) <= number < 1 << 31:
                raise TypeError("set_arg(): incompatible function arguments")
        args = self.kernel.args
        if not isinstance(value, bo):
            if not 0 <= index < len(args):
                raise IndexError("vector::_M_range_check")
            # accepted without a word for any argument, as the binding does; the register of a
            # buffer is simply wrong then
            self.buffers.pop(index, None)
            self.scalars[index] = number
            return
        if not 0 <= index < len(args) or not args[index].mems:
            raise RuntimeError(f"a buffer as argument {index} ends the binding's process (SIGSEGV)")
        if value.board is not self.kernel.board:
            raise RuntimeError("buffer belongs to another device")
        mems = self.unit.args[index].mems
        if value.group not in mems:
            _warn(
                f"Kernel {self.unit.kernel} has no compute units with connectivity required for "
                f"global argument at index {index}. The argument is allocated in bank "
                f"{value.group}, the compute unit is connected to bank {max(mems)}. Allocating "
                "local copy of argument buffer in connected bank."
            )
            value = _clone(value, max(mems))
        self.buffers[index] = value

    def start(self) -> None:
        """Start the kernel, on the first of its units that is idle.

        Raises:
            RuntimeError: it was started and not waited for, or the card is gone.
        """
        board = self.kernel.board
        board.reach()
        idle = [unit for unit in self.kernel.units if unit.name not in board.pending]
        if not self.waited or not idle:
            raise RuntimeError("bad command state, can't launch")
        self.unit, self.outcome, self.waited = idle[0], None, False
        board.pending[self.unit.name] = self
        container, _ = loaded(board)
        units = [unit for unit in container.units if unit.started]
        if {unit.name for unit in units} <= set(board.pending):
            steps.execute(board, units)

    def state(self) -> ert_cmd_state:
        """State of the command."""
        return self.outcome or ert_cmd_state.ERT_CMD_STATE_SUBMITTED

    def wait(self, timeout_ms: int = 0, /) -> ert_cmd_state:
        """State after the command has ended, or TIMEOUT; a wait that cannot end returns at once.

        Raises:
            RuntimeError: no limit was given and the command can never end, or the card is gone.
        """
        if not isinstance(timeout_ms, int) or timeout_ms < 0:
            raise TypeError("wait(): incompatible function arguments")
        self.kernel.board.reach()
        if self.outcome is not None:
            self.waited = True
            return self.outcome
        if timeout_ms == 0:
            raise RuntimeError(
                f"kernel {self.unit.kernel} would be waited for without end: "
                + (self.kernel.board.diagnosis or "another kernel of the step was not started")
            )
        return ert_cmd_state.ERT_CMD_STATE_TIMEOUT


def _clone(source: bo, mem: int) -> bo:
    copy = bo.__new__(bo)
    copy.board, copy.group, copy._address = source.board, mem, source._address
    copy.host, copy.card = source.host.copy(), source.card.copy()
    copy.written, copy._first = source.written.copy(), source._first
    return copy
