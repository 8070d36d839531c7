"""The pp words of one execution: run-time table and parameters of every lane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gen.program.layout import GROUP, HeadPlace, Stored
from gen.program.words import Bytes, Int, parameter_words

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Lanes:
    """Lanes of the sources of a layer, or of the local groups in which ``head`` lies. Channels are
    numbered over all sources and fall into ``norm_groups`` groups of equal size (0: none).
    """

    sources: tuple[Stored, ...]
    head: HeadPlace | None
    norm_groups: int

    def channels(self, source: Stored) -> Int64:
        """Physical channel of every logical one."""
        if self.head is not None:
            return self.head.lane + np.arange(source.head_channels, dtype=np.int64)
        return source.physical_channels()

    def local_groups(self, source: Stored) -> int:
        """Local groups that are read."""
        return source.local_groups if self.head is None else self.head.local_groups


def parameters(
    lanes: Lanes,
    gamma: Int,
    beta: Int,
    table: NDArray[np.int8] | None,
    rank: int,
    used: int | None = None,
) -> Bytes:
    """Words uint8 [words, 64] of one rank; ``gamma`` and ``beta`` [channels of all sources].

    Operands of all channels but the first ``used`` of every source (default: all) are 0.
    """
    parts = []
    if table is not None:
        parts.append(table.astype(np.int8).view(np.uint8).reshape(-1, 64))
    start = 0
    size = len(gamma) // max(1, lanes.norm_groups)
    for source in lanes.sources:
        physical = lanes.channels(source)
        groups = lanes.local_groups(source) * source.ranks
        span = np.arange(start, start + len(physical))
        start += len(physical)
        values = np.zeros((4, groups * GROUP), dtype=np.int64)
        values[0, physical], values[1, physical] = gamma[span], beta[span]
        values[2, physical] = span // size if lanes.norm_groups else 0
        values[3, physical[:used]] = 1
        mine = values.reshape(4, groups, GROUP)[:, rank :: source.ranks]
        parts.append(parameter_words(*mine))
    assert start == len(gamma), f"{len(gamma)} gammas for {start} channels"
    return np.concatenate(parts)
