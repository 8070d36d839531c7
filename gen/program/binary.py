"""The layer program as bytes, for the generic card that takes its program at run time.

int32, little endian: magic, version, counts of segments, entries and moves, the members of StoreIo
and Updates; then all segments, all entries of each kernel in the order of ``KERNELS``, and all
moves, each a run of int32 in the order of program.hpp. The bytes are the same for all ranks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gen.program.program import Program
from gen.program.structs import words

MAGIC = 0x4C444131  # "LDA1"
VERSION = 10
KERNELS = ("store", "pre", "gather", "reduce", "mac", "post", "wload")


def header(program: Program) -> list[int]:
    """The words before the first segment."""
    return [
        MAGIC,
        VERSION,
        len(program.segments),
        len(program.entries),
        len(program.moves),
        *words(program.io),
        *words(program.updates),
    ]


def _run(program: Program) -> Iterator[int]:
    yield from header(program)
    for segment in program.segments:
        yield from words(segment)
    for kernel in KERNELS:
        for entry in program.entries:
            yield from words(getattr(entry, kernel))
    for move in program.moves:
        yield from words(move)


def program_bytes(program: Program) -> bytes:
    """The program of the generic card."""
    return np.fromiter(_run(program), dtype="<i4").tobytes()
