"""Everything the tools have measured of a build, gathered from the reports that lie there.

``BUILD/vitis/measured.json`` keeps it: per kernel area, estimated period, initiation intervals and
pipeline depths of synthesis, the cycles of co-simulation and, to compare, those of the same kernel
in the timed simulation; and the clock that the link achieved. Figures that nobody has measured yet
are null.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from gen.errors import UserError
from gen.reports.cosim import read_cosim
from gen.reports.csynth import Function, Resources, read_csynth


@dataclass(frozen=True)
class MeasuredLoop:
    """A pipelined loop: its function, initiation interval and depth in cycles."""

    function: str
    name: str
    ii: int
    depth: int | None


@dataclass(frozen=True)
class MeasuredKernel:
    """Reports of one kernel; ``cosim_cycles`` of one whole step, ``simulated_cycles`` what the
    timed simulation expects there. ``loop_overheads``: cycles that functions of one pipelined loop
    take besides that loop.
    """

    resources: Resources | None
    estimated_period_ns: float | None
    loops: tuple[MeasuredLoop, ...]
    loop_overheads: tuple[int, ...]
    cosim_cycles: int | None
    simulated_cycles: int | None

    @property
    def pipeline_depth(self) -> int | None:
        """Depth of the deepest pipelined loop, in cycles."""
        return max((loop.depth for loop in self.loops if loop.depth is not None), default=None)


@dataclass(frozen=True)
class Measured:
    """Reports of a build; clocks in MHz, of the newest link for hardware."""

    kernels: dict[str, MeasuredKernel]
    clock_asked_mhz: float | None
    clock_mhz: float | None


def stage_of(kernel: str) -> str:
    """Key of a kernel in [timing.stages]: gather and reduce have one in common."""
    return "link" if kernel.startswith(("gather", "reduce")) else kernel


def _overhead(function: Function) -> int | None:
    """Cycles of a function besides those of its only loop, which is pipelined."""
    if len(function.loops) != 1 or function.latency_worst is None:
        return None
    (loop,) = function.loops
    if loop.ii is None or loop.latency is None or function.latency_worst < loop.latency:
        return None
    return function.latency_worst - loop.latency


def simulated_cycles(build: Path, unit: str) -> int | None:
    """Cycles of a unit by itself in the timed simulation, recorded with its vectors.

    Raises:
        UserError: the record is damaged.
    """
    path = build / "vitis" / "vectors" / "cycles.json"
    if not path.is_file():
        return None
    try:
        return int(json.loads(path.read_text())[unit])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); run make vectors again") from error


def _kernel(build: Path, name: str, unit: str) -> MeasuredKernel:
    reports = build / "vitis" / "reports"
    synthesis = reports / f"{name}_csynth.xml"
    simulation = reports / f"{name}_cosim.rpt"
    resources, period = None, None
    loops: dict[tuple[str, str], MeasuredLoop] = {}
    overheads: dict[str, int] = {}
    if synthesis.is_file():
        report = read_csynth(synthesis)
        resources, period = report.top.resources, report.top.estimated_period_ns
        parts = [read_csynth(path) for path in sorted((reports / name).glob("*_csynth.xml"))]
        for function in [f for each in (report, *parts) for f in each.functions()]:
            overhead = _overhead(function)
            if overhead is not None:
                overheads[function.name] = overhead
            for loop in function.loops:
                if loop.ii is not None:
                    key = (function.name, loop.name)
                    loops[key] = MeasuredLoop(*key, loop.ii, loop.pipeline_depth)
    cycles = None
    if simulation.is_file():
        result = read_cosim(simulation)
        cycles = result.total_cycles or result.latency_max
    return MeasuredKernel(
        resources,
        period,
        tuple(loops.values()),
        tuple(overheads.values()),
        cycles,
        simulated_cycles(build, unit),
    )


def _link(folder: Path) -> tuple[float | None, float | None]:
    """Clock asked for and achieved by the newest hardware link."""
    found = sorted(folder.glob("hw.*/engine.*.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        return None, None
    try:
        values = json.loads(found[-1].read_text())
        return values["clock_asked_mhz"], values["clock_mhz"]
    except (ValueError, KeyError) as error:
        raise UserError(f"{found[-1]} is damaged ({error}); run make xclbin again") from error


def gather(build: Path, units: Mapping[str, str]) -> Measured:
    """Read every report of a build that exists; ``units``: kernel to the instance of it that is
    co-simulated.

    Raises:
        UserError: a report is damaged.
    """
    folder = build / "vitis"
    asked, achieved = _link(folder)
    kernels = {name: _kernel(build, name, unit) for name, unit in units.items()}
    return Measured(kernels, asked, achieved)


def save(measured: Measured, build: Path) -> Path:
    """Write ``vitis/measured.json``."""
    path = build / "vitis" / "measured.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(measured), indent=1) + "\n")
    return path
