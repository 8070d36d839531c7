"""What the halves of a tensor are, for passes that look for pairs of slices."""

from __future__ import annotations

from gen.graph import Node


def half_of(part: Node, whole: Node, dim: int) -> int:
    """0 or 1 if ``part`` is a slice that is the first or second half of ``whole`` along ``dim``
    (counted from 0), -1 for anything else.
    """
    attrs, size = part.attrs, whole.shape[dim]
    if part.op != "slice" or attrs["dim"] != dim or attrs["step"] != 1 or size % 2:
        return -1
    return {(0, size // 2): 0, (size // 2, size): 1}.get((attrs["start"], attrs["end"]), -1)
