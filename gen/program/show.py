"""Print a program as a table: ``python -m gen.program.show build/NAME``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gen.errors import UserError
from gen.program.cost import StepCost, step_cost
from gen.program.layout import ROW, ceil_div
from gen.program.products import products
from gen.program.program import Entry, Program, moved_rows
from gen.program.program_io import load_program

COLUMNS = (
    "layer",
    "strip",
    "runs",
    "flush",
    "sources",
    "out",
    "taps",
    "norm",
    "units",
    "round",
    "tiles",
    "steps",
    "lead",
    "fill",
    "cycles*",
    "busy",
    "rows",
)
NORMS = ("-", "group", "layer", "softmax")
FLUSHES = ("-", "all", "first")


def table(program: Program, cost: StepCost) -> list[tuple[str, ...]]:
    """One row of text per entry, after the header."""
    rows: list[tuple[str, ...]] = [COLUMNS]
    for entry, spent in zip(program.entries, cost.layers, strict=True):
        shape, dest = entry.mac.shape, program.tensors[entry.dest]
        region = products(entry)[0].store.dest
        inputs = "+".join(str(program.tensors[name].channels) for name in entry.sources)
        strips = 1 + max(program.entries[k].strip for k in program.entries_of(entry.layer))
        rows.append(
            (
                entry.layer,
                f"{entry.strip + 1}/{strips}",
                str(spent.executions),
                FLUSHES[entry.store.flush],
                inputs,
                f"{dest.channels}x{dest.height}x{dest.width}",
                str(entry.mac.taps),
                NORMS[entry.pre.norm],
                f"{shape.units}",
                f"{shape.per_round}",
                str(ceil_div(shape.octets, program.engine.tile_octets)),
                str(shape.steps),
                str(shape.lead),
                str(shape.fill),
                str(spent.cycles),
                f"{100 * spent.multiply / max(1, spent.cycles):.0f}%",
                f"{region.row.base}..{region.row.base + region.groups * region.group_rows - 1}",
            )
        )
    return rows


def useful(program: Program, entry: Entry) -> int:
    """Multiply-accumulates of an entry over all its executions, without any padding."""
    segment = program.segment_of(program.entries.index(entry))
    runs = segment.n0 * segment.n1
    return sum(runs * _useful(program, product) for product in products(entry))


def _useful(program: Program, entry: Entry) -> int:
    """Those of one execution of a product."""
    mac = entry.mac
    dest = program.tensors[entry.dest]
    pixels = min(dest.pixels, mac.out_slot + 8 * mac.shape.octets) - mac.out_slot
    per_head = dest.logits or entry.post.row_sums
    channels = [program.tensors[name] for name in entry.sources]
    inputs = sum(c.channels if c.logits or not per_head else c.head_channels for c in channels)
    outputs = dest.head_channels if per_head and not dest.logits else dest.channels
    return mac.items * pixels * mac.taps * inputs * outputs * mac.shape.gates


def text(program: Program) -> str:
    """The table with totals."""
    engine, cost = program.engine, step_cost(program)
    rows = table(program, cost)
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    macs = sum(useful(program, entry) for entry in program.entries)
    width = engine.ranks * engine.pixels * engine.inputs * engine.outputs
    lines += [
        "",
        f"{len(program.entries)} entries in {len(program.segments)} segments, "
        f"{program.executions} executions a step, on {engine.ranks} ranks",
        f"store: {program.store_peak} of {engine.store_rows} rows used "
        f"(at least {program.store_bound} are alive at once); sums: {program.stats_peak} of "
        f"{engine.stats_words} words; row statistics: {program.rows_peak} of "
        f"{engine.row_octets} octets",
        f"spilled: {len(program.spilled)} tensors lie in DDR for a while, in {program.spill_rows} "
        f"rows; {moved_rows(program)} rows are moved in a step, in {cost.moves} cycles*",
        f"weights: {program.cache_used} of {program.static_rows} rows stay on the card",
        f"buffers of each rank: {program.static_words * 64} bytes static, "
        f"{program.dynamic_words * 64} dynamic, {program.spill_rows * ROW} spilled",
        f"* model: {cost.cycles} cycles a step, {cost.cycles / engine.clock_mhz / 1000:.3f} ms at "
        f"{engine.clock_mhz:g} MHz; {macs / 1e6:.0f} M multiply-accumulates, "
        f"{100 * macs / width / cost.cycles:.0f} % of what the array could do",
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
