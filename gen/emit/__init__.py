"""C++ sources of a build: constants of the layer program and tops that only instantiate."""

from __future__ import annotations

from gen.emit.sources import SOURCES, emit_sources, kernel_tops, line_ports

__all__ = ["SOURCES", "emit_sources", "kernel_tops", "line_ports"]
