"""The smallest activation store of a graph."""

from __future__ import annotations

from dataclasses import replace

from gen.errors import UserError
from gen.program import Engine, lower


def least_store(qgraph, engine: Engine) -> int:
    """Rows of the smallest store on which a graph can run, on an engine with others."""
    low, high = 0, lower(qgraph, engine).store_peak
    while high - low > 1:
        middle = (low + high) // 2
        try:
            lower(qgraph, replace(engine, store_rows=middle))
        except UserError:
            low = middle
        else:
            high = middle
    return high
