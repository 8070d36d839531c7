"""Modelled figures beside measured ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gen.plan.resources import Resources as Area
from gen.plan.resources import rank_costs
from gen.program.cost import step_cost
from gen.program.engine import Engine
from gen.program.program import Program
from gen.reports.calibrate import calibrate
from gen.reports.measured import Measured, stage_of


@dataclass(frozen=True)
class Row:
    """One figure: modelled, measured (None: not yet), and its unit."""

    figure: str
    modelled: float | None
    measured: float | None
    unit: str

    @property
    def ratio(self) -> float | None:
        """Measured over modelled."""
        if self.modelled is None or self.measured is None or self.modelled == 0:
            return None
        return self.measured / self.modelled


def _modelled_area(engine: Engine, kernel: str) -> dict[str, int]:
    """LUT, FF and DSP that the planner expects of a kernel, for those that it knows by name."""
    parts = [each for each in rank_costs(engine) if each.part.startswith(f"{kernel}:")]
    total = sum((each.resources for each in parts), start=Area())
    return {unit: getattr(total, unit) for unit in ("lut", "ff", "dsp")} if parts else {}


def rows(program: Program, measured: Measured) -> list[Row]:
    """Clock, cycles and time of a step, and of every kernel pipeline depth, cycles and area.

    A step takes as long as its slowest kernel; the kernels run in lockstep. Its time uses
    measured cycles and clock where both exist, else none. Where pipelines have been synthesised,
    a second row of a step has their depths in the model's place.
    """
    engine = program.engine
    modelled = step_cost(program).cycles
    cosim = [k.cosim_cycles for k in measured.kernels.values() if k.cosim_cycles is not None]
    cycles = max(cosim, default=None)
    clock = measured.clock_mhz
    milliseconds = None if cycles is None or clock is None else cycles / clock / 1000
    found = [
        Row("clock", engine.clock_mhz, clock, "MHz"),
        Row("step", float(modelled), cycles, "cycles"),
    ]
    calibration = calibrate(measured)
    if not calibration.empty:
        timed = replace(engine, timing=calibration.applied(engine.timing))
        modelled = step_cost(replace(program, engine=timed)).cycles
        found.append(Row("step, measured stages", float(modelled), cycles, "cycles"))
    found.append(Row("step", modelled / engine.clock_mhz / 1000, milliseconds, "ms"))
    for name, kernel in measured.kernels.items():
        depth = kernel.pipeline_depth
        stages = None if depth is None else depth - 1
        found.append(Row(f"{name} stages", engine.timing.stages[stage_of(name)], stages, "cycles"))
        slow = [loop.ii for loop in kernel.loops]
        found.append(Row(f"{name} slowest loop", 1, max(slow, default=None), "II"))
        found.append(Row(f"{name} alone", kernel.simulated_cycles, kernel.cosim_cycles, "cycles"))
        area = _modelled_area(engine, name)
        for unit in ("lut", "ff", "dsp", "bram18", "uram"):
            value = getattr(kernel.resources, unit) if kernel.resources else None
            if value is not None:
                found.append(Row(f"{name} area", area.get(unit), value, unit.upper()))
    return found


def text(found: list[Row]) -> list[str]:
    """Lines of a table; a dash stands for what is not known."""

    def figure(value: float | None) -> str:
        return "-" if value is None else f"{value:,.3f}".rstrip("0").rstrip(".")

    lines = [f"{'':22}{'modelled':>14}{'measured':>14}{'ratio':>8}"]
    for row in found:
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append(
            f"{row.figure:22}{figure(row.modelled):>14}{figure(row.measured):>14}{ratio:>8}  "
            f"{row.unit}"
        )
    return lines
