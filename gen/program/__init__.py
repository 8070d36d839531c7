"""The layer program: lowering, memory maps, buffers."""

from __future__ import annotations

from gen.program.engine import Engine, load_engine

__all__ = ["Engine", "load_engine"]
