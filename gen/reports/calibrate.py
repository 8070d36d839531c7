"""Timing of the simulation and the cost model out of synthesis reports.

Vitis HLS reports of a pipelined loop: latency = (trip count - 1) * II + depth - 1 cycles, so that
an iteration's writes follow its reads by depth - 1 cycles at most, which is what [timing.stages]
holds.
What a function with one such loop takes besides it is spent on entering and leaving the loop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from gen.errors import UserError
from gen.plan.engine_file import engine_toml
from gen.program.engine import Engine, Timing, engine_from
from gen.reports.measured import Measured, stage_of
from gen.reports.text import read_text
from gen.stages import write_text
from gen.vitis.board import parse_toml

MARK = "# measured: csynth"


@dataclass(frozen=True)
class Calibration:
    """Measured cycles; None or absent where no report tells."""

    stages: dict[str, int]
    loop_entry: int | None
    loop_exit: int | None

    @property
    def empty(self) -> bool:
        """Whether nothing has been measured."""
        return not self.stages and self.loop_entry is None

    def applied(self, timing: Timing) -> Timing:
        """A timing with the measured figures in the place of its own."""
        return replace(
            timing,
            loop_entry=timing.loop_entry if self.loop_entry is None else self.loop_entry,
            loop_exit=timing.loop_exit if self.loop_exit is None else self.loop_exit,
            stages={**timing.stages, **self.stages},
        )

    def settings(self) -> list[tuple[str, str, int]]:
        """(table, key, cycles) of a board or engine file."""
        loops = (("loop_entry", self.loop_entry), ("loop_exit", self.loop_exit))
        return [
            *(("timing", key, value) for key, value in loops if value is not None),
            *(("timing.stages", key, value) for key, value in sorted(self.stages.items())),
        ]


def calibrate(measured: Measured) -> Calibration:
    """What synthesis says of the pipelines: of each kernel the deepest one (gather and reduce
    together), and of entering and leaving a loop the most that any function takes.
    """
    stages: dict[str, int] = {}
    overheads = []
    for name, kernel in measured.kernels.items():
        if kernel.pipeline_depth is not None:
            key = stage_of(name)
            stages[key] = max(stages.get(key, 1), kernel.pipeline_depth - 1)
        overheads += list(kernel.loop_overheads)
    if not overheads:
        return Calibration(stages, None, None)
    both = max(overheads)
    return Calibration(stages, both - both // 2, both // 2)


def calibrated_text(text: str, calibration: Calibration) -> str:
    """Text of a board or engine file with measured figures; everything else stays as it is."""
    lines = text.splitlines()
    for table, key, value in calibration.settings():
        setting = f"{key} = {value}  {MARK}"
        first = next((i for i, line in enumerate(lines) if line.strip() == f"[{table}]"), None)
        if first is None:
            lines += ["", f"[{table}]", setting]
            continue
        end = next(
            (i for i in range(first + 1, len(lines)) if lines[i].lstrip().startswith("[")),
            len(lines),
        )
        known = [i for i in range(first + 1, end) if lines[i].partition("=")[0].strip() == key]
        if known:
            lines[known[0]] = setting
        else:
            lines.insert(first + 1, setting)
    return "\n".join(lines) + "\n"


def write_engine(path: Path, calibration: Calibration, engine: Engine) -> None:
    """Put measured timing into a board or engine file; one that does not exist becomes an engine
    file of ``engine``.

    Raises:
        UserError: nothing has been measured, or the file is no board or engine file.
    """
    if calibration.empty:
        raise UserError("no synthesis report of the build tells a pipeline depth; run make csynth")
    if path.is_file():
        text = read_text(path, "the board or engine file")
    else:
        _, _, text = engine_toml(engine, "", "").partition("\n")
    engine_from(parse_toml(text, path), str(path))
    changed = calibrated_text(text, calibration)
    made = engine_from(parse_toml(changed, path), str(path))
    assert made.timing == calibration.applied(made.timing)
    write_text(path, changed)
