"""One start of the engine on the software card, with the faults that it is told to have."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

from gen.card_library import BUFFERS
from gen.vitis.topology import topology
from host.swcard.buffers import bo
from host.swcard.devices import Board, loaded
from host.swcard.enums import ert_cmd_state
from host.swcard.library import DEADLOCK, DONE
from host.xclbin import Unit

# of every rank, in the order in which card.so takes its buffers
KERNELS = ("wload", "store")
RESULT = BUFFERS.index("result")


def execute(board: Board, units: Sequence[Unit]) -> None:
    """Run the pending runs of all started units; sets their outcomes (None: they never end)."""
    _, library = loaded(board)
    runs: dict[str, Any] = dict(board.pending)
    board.pending.clear()
    scalars = _scalars(units, runs)
    # of kernels without the argument, a start is one step
    steps = max(scalars.get("steps", {1}))
    first, board.steps = board.steps, board.steps + max(steps, 1)
    injected = board.faults.of_steps(first, board.steps)
    if injected == "killed":
        os.kill(os.getpid(), signal.SIGBUS)
    if injected == "lost":
        board.lost = True
        board.reach()
    outcome: ert_cmd_state | None = ert_cmd_state.ERT_CMD_STATE_ERROR
    board.diagnosis = _bad_argument(units, runs, scalars)
    if injected == "timeout":
        outcome = None
    elif not board.diagnosis and injected != "error":
        buffers = _buffers(units, runs)
        (reload,) = scalars["reload"]
        code = library.step([[each.card for each in rank] for rank in buffers], reload, steps)
        if code == DONE:
            outcome = ert_cmd_state.ERT_CMD_STATE_COMPLETED
            if injected == "wrong":
                buffers[0][RESULT].card[0] ^= 1
        else:
            board.diagnosis = library.error or f"card.so returned {code}"
            if code == DEADLOCK:
                outcome = None
    board.failed = outcome is not ert_cmd_state.ERT_CMD_STATE_COMPLETED
    for each in runs.values():
        each.outcome = outcome


def _bad_argument(units: Sequence[Unit], runs: dict[str, Any], scalars: dict[str, set[int]]) -> str:
    """Why the units cannot run on their arguments, or an empty string."""
    for unit in units:
        written = topology(1, spill=True).kernel(unit.kernel).written
        for index, arg in enumerate(unit.args):
            if not arg.mems:
                continue
            buffer: bo | None = runs[unit.name].buffers.get(index)
            if buffer is None:
                return f"argument {index} ({arg.name}) of {unit.name} is not a buffer"
            if not buffer.aligned:
                return f"{arg.name} of {unit.name} does not start at a multiple of 64 bytes"
            if arg.name not in written and not buffer.ready:
                return f"ECC error: {arg.name} of {unit.name} was read where it was never written"
    for name, values in scalars.items():
        if len(values) > 1:
            return f"kernels differ in their scalar argument {name}"
    return ""


def _scalars(units: Sequence[Unit], runs: dict[str, Any]) -> dict[str, set[int]]:
    """Values of every scalar argument in all units; a register that was never set is zero."""
    found: dict[str, set[int]] = {}
    for unit in units:
        for index, arg in enumerate(unit.args):
            if arg.scalar:
                found.setdefault(arg.name, set()).add(runs[unit.name].scalars.get(index, 0))
    return found


def _buffers(units: Sequence[Unit], runs: dict[str, Any]) -> list[list[bo]]:
    """Weights, dynamic, latent, result and, where there are moves, spill of every rank."""
    by_kernel = [[unit for unit in units if unit.kernel == kernel] for kernel in KERNELS]
    return [
        [
            runs[unit.name].buffers[index]
            for unit in rank
            for index, arg in enumerate(unit.args)
            if arg.mems
        ]
        for rank in zip(*by_kernel, strict=True)
    ]
