"""``kernel`` and ``run``: starting kernels and waiting for them.

The engine's step needs both started kernels: ``store`` and ``wload`` feed each other through the
free-running ones. The step is computed when the second of them is started; one alone stays
running, as it would on the card, and a wait with a limit reports a timeout.
"""

from __future__ import annotations

import operator
import re
import sys
from enum import Enum
from typing import Any

from host.swcard.buffers import bo
from host.swcard.containers import uuid
from host.swcard.devices import Board, device, loaded
from host.swcard.enums import ert_cmd_state
from host.swcard.library import DEADLOCK, DONE, CardLibrary
from host.xclbin import Arg

_RUNNING = "running"
_STEP = {"wload": ("weights", "dynamic"), "store": ("latent", "result")}


class kernel:
    """Handle to a kernel: ``kernel(device, uuid, name[, mode])``.

    Raises:
        RuntimeError: another xclbin is loaded, no such kernel, a free-running kernel, or the
            kernel is open with another mode.
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
        if identity != uuid(container.uuid):
            raise RuntimeError("xclbin uuid does not match the loaded xclbin")
        plain = re.sub(r":\{.*\}$", "", name)
        found = next((entry for entry in container.kernels if entry.name == plain), None)
        if found is None:
            raise RuntimeError(f"No compute units matching '{name}'")
        if found.protocol == "ap_ctrl_none":
            raise RuntimeError("AP_CTRL_NONE is only supported by XRT native API xrt::ip")
        for other, other_mode in owner.board.kernels.items():
            if other.name == plain and other_mode != mode.name:
                raise RuntimeError("Conflicting access mode")
        self.name = plain
        self.board = owner.board
        self.args: tuple[Arg, ...] = found.args
        owner.board.kernels[self] = mode.name

    def group_id(self, argno: int, /) -> int:
        """Memory index that an argument is wired to.

        Raises:
            IndexError: a stream, or no such argument.
        """
        if not 0 <= argno < len(self.args):
            raise IndexError("vector::_M_range_check")
        mem = self.args[argno].mem
        if mem is None:
            raise IndexError("vector::_M_range_check")
        return mem


def _warn(message: str) -> None:
    print(f"[XRT] WARNING: {message}", file=sys.stderr)


class run:
    """One reusable command of a kernel."""

    def __init__(self, owner: kernel, /) -> None:
        if not isinstance(owner, kernel):
            raise TypeError("__init__(): incompatible constructor arguments")
        self.kernel = owner
        self.buffers: dict[int, bo] = {}
        self.outcome: ert_cmd_state | str = ert_cmd_state.ERT_CMD_STATE_NEW
        self.waited = True

    def set_arg(self, index: int, value: Any, /) -> None:
        """Set a buffer, or a scalar in the range of a C int.

        A buffer in another bank than the argument's is copied to that bank, with a warning: what
        the kernel writes does not reach the buffer that was passed.

        Raises:
            TypeError: neither a buffer nor such an integer.
            IndexError: no such argument.
        """
        if not isinstance(value, bo):
            try:
                number = operator.index(value)
            except TypeError as error:
                raise TypeError("set_arg(): incompatible function arguments") from error
            if not -(1 << 31) <= number < 1 << 31:
                raise TypeError("set_arg(): incompatible function arguments")
        if not 0 <= index < len(self.kernel.args):
            raise IndexError("vector::_M_range_check")
        if not isinstance(value, bo):
            # accepted without a word, as the binding does; the register is simply wrong
            self.buffers.pop(index, None)
            return
        if value.board is not self.kernel.board:
            raise RuntimeError("buffer belongs to another device")
        mem = self.kernel.args[index].mem
        if mem is not None and value.group != mem:
            _warn(
                f"kernel {self.kernel.name} has no connection of argument {index} to bank "
                f"{value.group}; the buffer is copied to bank {mem}"
            )
            value = _clone(value, mem)
        self.buffers[index] = value

    def start(self) -> None:
        """Start the kernel.

        Raises:
            RuntimeError: it was started and not waited for.
        """
        if not self.waited or self.outcome == _RUNNING:
            raise RuntimeError("bad command state, can't launch")
        board = self.kernel.board
        if self.kernel.name in board.pending:
            raise RuntimeError("bad command state, can't launch")
        self.outcome, self.waited = _RUNNING, False
        board.pending[self.kernel.name] = self
        if set(_STEP) <= set(board.pending):
            _execute(board)

    def state(self) -> ert_cmd_state:
        """State of the command."""
        if isinstance(self.outcome, ert_cmd_state):
            return self.outcome
        return ert_cmd_state.ERT_CMD_STATE_SUBMITTED

    def wait(self, timeout_ms: int = 0, /) -> ert_cmd_state:
        """State after the command has ended, or TIMEOUT; a wait that cannot end returns at once.

        Raises:
            RuntimeError: no limit was given and the command can never end.
        """
        if isinstance(self.outcome, ert_cmd_state):
            self.waited = True
            return self.outcome
        if timeout_ms == 0:
            raise RuntimeError(
                f"kernel {self.kernel.name} would be waited for without end: "
                + (self.kernel.board.diagnosis or "the other kernel of the step was not started")
            )
        return ert_cmd_state.ERT_CMD_STATE_TIMEOUT


def _clone(source: bo, mem: int) -> bo:
    copy = bo.__new__(bo)
    copy.board, copy.group, copy._address = source.board, mem, source._address
    copy.host, copy.card = source.host.copy(), source.card.copy()
    copy.written, copy._first = source.written.copy(), source._first
    return copy


def _fault(runs: dict[str, run]) -> str:
    """Why the kernels cannot run on their arguments, or an empty string."""
    for name, arguments in _STEP.items():
        for index, argument in enumerate(arguments):
            buffer = runs[name].buffers.get(index)
            if buffer is None:
                return f"argument {index} ({argument}) of kernel {name} is not a buffer"
            if not buffer.aligned:
                return f"{argument} does not start at a multiple of 64 bytes"
            if argument != "result" and not buffer.ready:
                return f"ECC error: {argument} was read where it was never written"
    return ""


def _execute(board: Board) -> None:
    _, library = loaded(board)
    runs: dict[str, run] = dict(board.pending)
    board.pending.clear()
    board.diagnosis = _fault(runs)
    outcome: ert_cmd_state | str = ert_cmd_state.ERT_CMD_STATE_ERROR
    if not board.diagnosis:
        code = _step(library, runs)
        if code == DONE:
            outcome = ert_cmd_state.ERT_CMD_STATE_COMPLETED
        else:
            board.diagnosis = library.error or f"card.so returned {code}"
            if code == DEADLOCK:
                outcome = _RUNNING
    for each in runs.values():
        each.outcome = outcome


def _step(library: CardLibrary, runs: dict[str, run]) -> int:
    wload, store = runs["wload"].buffers, runs["store"].buffers
    return library.step(wload[0].card, wload[1].card, store[0].card, store[1].card)
