"""``python -m gen.reports BUILD``: modelled figures against those that the tools measured.

With ``--engine FILE`` the measured pipeline depths and loop overheads go into a board or engine
file, from which plan, simulation and cost model take them; a new file becomes an engine file for
``python -m gen build --board FILE``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gen.cli import guarded
from gen.program import load_program
from gen.reports.calibrate import calibrate, write_engine
from gen.reports.measured import gather, save
from gen.reports.table import rows, text
from gen.vitis.engine import engine_topology


def _report(build: Path, engine_file: Path | None) -> list[str]:
    program = load_program(build / "program.json")
    engine = engine_topology(program)
    units = {kernel.name: engine.units_of(kernel)[0].name for kernel in engine.kernels}
    measured = gather(build, units)
    path = save(measured, build)
    lines = [*text(rows(program, measured)), f"written to {path}"]
    if engine_file is not None:
        calibration = calibrate(measured)
        write_engine(engine_file, calibration, program.engine)
        changed = [f"{key} = {value}" for _, key, value in calibration.settings()]
        lines.append(f"measured timing written to {engine_file}: {', '.join(changed)}")
    return lines


def main() -> int:
    """Entry point; exit status 2 for a missing build or a damaged report."""
    parser = argparse.ArgumentParser(
        prog="python -m gen.reports",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("build", type=Path)
    parser.add_argument("--engine", type=Path, help="board or engine file to put timing into")
    arguments = parser.parse_args()
    return guarded(
        lambda: print("\n".join(_report(arguments.build, arguments.engine))),
        "stopped by Ctrl-C; run the same goal again",
    )


if __name__ == "__main__":
    sys.exit(main())
