"""Modelled figures beside measured ones."""

from __future__ import annotations

from dataclasses import dataclass

from gen.program.cost import step_cycles
from gen.program.program import Program
from gen.reports.measured import Measured


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


def rows(program: Program, measured: Measured) -> list[Row]:
    """Clock, cycles and time of a step, pipeline depths, multipliers, and area per kernel.

    A step takes as long as its slowest kernel; the kernels run in lockstep. Its time uses
    measured cycles and clock where both exist, else none.
    """
    engine = program.engine
    modelled = step_cycles(program)
    cosim = [k.cosim_cycles for k in measured.kernels.values() if k.cosim_cycles is not None]
    cycles = max(cosim, default=None)
    clock = measured.clock_mhz
    milliseconds = None if cycles is None or clock is None else cycles / clock / 1000
    mac = measured.kernels.get("mac")
    multipliers = engine.pixels * engine.inputs * engine.outputs
    found = [
        Row("clock", engine.clock_mhz, clock, "MHz"),
        Row("step", float(modelled), cycles, "cycles"),
        Row("step", modelled / engine.clock_mhz / 1000, milliseconds, "ms"),
        Row(
            "mac multipliers",
            float(multipliers),
            mac.resources.dsp if mac and mac.resources else None,
            "DSP",
        ),
    ]
    for name, kernel in measured.kernels.items():
        depth = kernel.pipeline_depth
        found.append(Row(f"{name} pipeline", engine.timing.pipeline_depth, depth, "cycles"))
        slow = [loop.ii for loop in kernel.loops]
        found.append(Row(f"{name} slowest loop", 1, max(slow, default=None), "II"))
        for unit in ("lut", "ff", "dsp", "bram18", "uram"):
            value = getattr(kernel.resources, unit) if kernel.resources else None
            if value is not None:
                found.append(Row(f"{name} area", None, value, unit.upper()))
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
