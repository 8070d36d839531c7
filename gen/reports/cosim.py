"""``TOP_cosim.rpt``: the verdict and the measured cycles of a co-simulation.

A table of bars: ``RTL | Status | latency min | avg | max | interval min | avg | max``; newer
versions add the total execution time in cycles.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gen.errors import UserError
from gen.reports.text import integer, read_text


@dataclass(frozen=True)
class CosimReport:
    """Cycles of one co-simulation; ``passed`` is None where the tool did not run that language."""

    language: str
    passed: bool | None
    latency_min: int | None
    latency_average: int | None
    latency_max: int | None
    interval_min: int | None
    interval_average: int | None
    interval_max: int | None
    total_cycles: int | None


_STATUS = {"pass": True, "fail": False, "na": None}
_COLUMNS = 8


def read_cosim(path: Path) -> CosimReport:
    """Read the report; of several rows the one that was run.

    Raises:
        UserError: the file is missing or holds no result row.
    """
    rows: list[CosimReport] = []
    for line in read_text(path, "the co-simulation report").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) < _COLUMNS or cells[1].lower() not in _STATUS:
            continue
        figures = [integer(cell) for cell in cells[2:]] + [None]
        rows.append(CosimReport(cells[0], _STATUS[cells[1].lower()], *figures[:7]))
    ran = [row for row in rows if row.passed is not None]
    if not rows:
        raise UserError(f"{path} holds no co-simulation result; run make cosim again")
    return (ran or rows)[0]
