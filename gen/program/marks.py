"""A memory whose cells carry the identity of what was last written to them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

NOTHING = 0


@dataclass
class Names:
    """Consecutive marks for the parts of named things."""

    first: dict[str, int] = field(default_factory=dict)
    total: int = 1

    def add(self, name: str, parts: int) -> None:
        """Reserve the marks of a thing."""
        self.first[name] = self.total
        self.total += parts

    def owner(self, mark: int) -> str:
        """Whose mark it is."""
        if mark == NOTHING:
            return "nothing"
        return max((n for n in self.first if self.first[n] <= mark), key=lambda n: self.first[n])


class MarkedMemory:
    """``size`` cells; ``what`` names them in messages."""

    def __init__(self, size: int, what: str, names: Names) -> None:
        self.cells = np.zeros(size, dtype=np.int64)
        self.what = what
        self.names = names

    def outside(self, cells: Int64) -> str | None:
        """Whether a cell does not exist."""
        if cells.size and (cells.min() < 0 or cells.max() >= len(self.cells)):
            return f"{self.what} {cells.max()} of {len(self.cells)} is addressed"
        return None

    def write(self, cells: Int64, marks: Int64) -> str | None:
        """Mark cells; what is wrong, or None."""
        fault = self.outside(cells)
        if fault is None:
            self.cells[cells] = marks
        return fault

    def read(self, name: str, cells: Int64, marks: Int64) -> str | None:
        """Compare marks; what is wrong, or None. ``name`` is what is meant to be read."""
        fault = self.outside(cells)
        if fault is not None:
            return fault
        wrong = np.flatnonzero(self.cells[cells] != marks)
        if not len(wrong):
            return None
        cell = cells[wrong[0]]
        found = int(self.cells[cell])
        part, want = found - self.names.first.get(self.names.owner(found), 0), marks[wrong[0]]
        return (
            f"reading part {want - self.names.first[name]} of {name} finds part {part} of "
            f"{self.names.owner(found)} in {self.what} {cell}"
        )
