"""C++ text of constants: the layer program and the engine parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gen.program.engine import Engine
from gen.program.program import Program
from gen.program.structs import initialiser

# member of gen.program.engine.Engine -> constant of lda::EngineDefaults
CONSTANTS = {
    "ranks": "RANKS",
    "pixels": "PP",
    "inputs": "PI",
    "outputs": "PO",
    "weight_bits": "WEIGHT_BITS",
    "stored_bits": "STORED_BITS",
    "fabric_outputs": "FABRIC_OUTPUTS",
    "window_rows": "WINDOW_ROWS",
    "weight_rows": "WEIGHT_ROWS",
    "units": "UNITS",
    "joined_units": "JOINED_UNITS",
    "cache_rows": "CACHE_ROWS",
    "store_rows": "STORE_ROWS",
    "stats_words": "STATS_WORDS",
    "row_octets": "ROW_OCTETS",
    "row_groups": "ROW_GROUPS",
    "sums": "SUMS",
    "normalisers": "NORMALISERS",
    "items": "ITEMS",
    "scales": "SCALES",
    "sampler_pixels": "SAMPLER_PIXELS",
    "sampler_channels": "SAMPLER_CHANNELS",
    "lag": "LAG",
    "guard": "GUARD",
}
# member of gen.program.engine.Timing -> constant that the software card reads
TIMING = {
    "loop_entry": "LOOP_ENTRY",
    "loop_exit": "LOOP_EXIT_CYCLES",
    "fifo_latency": "FIFO_LATENCY",
    "kernel_start": "KERNEL_START",
}


def engine_constants(engine: Engine) -> list[tuple[str, int]]:
    """Names and values of the template parameters."""
    timing = engine.timing
    return [
        *((constant, int(getattr(engine, name))) for name, constant in CONSTANTS.items()),
        *((constant, int(getattr(timing, name))) for name, constant in TIMING.items()),
        *((f"STAGES_{name.upper()}", stages) for name, stages in timing.stages.items()),
        *((f"DEPTH_{name.upper()}", depth) for name, depth in engine.depths.items()),
    ]


def rows(values: Sequence[Any], labels: Sequence[str]) -> list[tuple[str, str]]:
    """(label, initialiser) of every element of a constant array."""
    return [(label, initialiser(value)) for label, value in zip(labels, values, strict=True)]


def segment_rows(program: Program) -> list[tuple[str, str]]:
    """Rows of the segment array, labelled with the layers that they run."""
    labels = [
        f"{program.entries[s.first].layer} .. {program.entries[s.first + s.count - 1].layer}"
        for s in program.segments
    ]
    return rows(program.segments, labels)


def entry_rows(program: Program, kernel: str) -> list[tuple[str, str]]:
    """Rows of a kernel's entry array, labelled with their layers."""
    entries = [getattr(entry, kernel) for entry in program.entries]
    return rows(entries, [entry.layer for entry in program.entries])
