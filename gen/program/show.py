"""Print a program as a table: ``python -m gen.program.show build/NAME``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gen.errors import UserError
from gen.program.cost import costs, step_cycles
from gen.program.program import Program
from gen.program.program_io import load_program

COLUMNS = (
    "layer",
    "runs",
    "sources",
    "out",
    "taps",
    "norm",
    "groups",
    "tiles",
    "steps",
    "lead",
    "fill",
    "cycles*",
    "busy",
    "rows",
)
NORMS = ("-", "group", "layer", "softmax")


def table(program: Program) -> list[tuple[str, ...]]:
    """One row of text per entry, after the header."""
    rows: list[tuple[str, ...]] = [COLUMNS]
    for entry, cost in zip(program.entries, costs(program), strict=True):
        shape, dest = entry.mac.shape, program.tensors[entry.dest]
        inputs = "+".join(str(program.tensors[name].channels) for name in entry.sources)
        rows.append(
            (
                entry.layer,
                str(cost.executions),
                inputs,
                f"{dest.channels}x{dest.height}x{dest.width}",
                str(entry.mac.taps),
                NORMS[entry.pre.norm],
                f"{shape.groups}{'x2' if shape.gates == 2 else ''}",
                str(shape.tiles),
                str(shape.steps),
                str(shape.lead),
                str(shape.fill),
                str(cost.total),
                f"{100 * cost.busy / cost.cycles:.0f}%",
                f"{dest.row}..{dest.row + dest.rows - 1}",
            )
        )
    return rows


def text(program: Program) -> str:
    """The table with totals."""
    rows = table(program)
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    engine, cycles = program.engine, step_cycles(program)
    busy = sum(cost.busy * cost.executions for cost in costs(program))
    lines += [
        "",
        f"{len(program.entries)} entries in {len(program.segments)} segments, "
        f"{program.executions} executions a step",
        f"store: {program.store_peak} of {engine.store_rows} rows used "
        f"(at least {program.store_bound} are alive at once); "
        f"statistics: {program.stats_peak} of {engine.stats_channels} channels",
        f"buffers: {program.static_words * 64} bytes static, {program.dynamic_words * 64} dynamic",
        f"* model: {cycles} cycles a step, {cycles / engine.clock_mhz / 1000:.3f} ms at "
        f"{engine.clock_mhz:g} MHz, array busy {100 * busy / cycles:.0f} %",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description="Print the layer program of a build as a table.")
    parser.add_argument("build", type=Path, help="build folder, or a program.json")
    path: Path = parser.parse_args(arguments).build
    try:
        print(text(load_program(path / "program.json" if path.is_dir() else path)))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
