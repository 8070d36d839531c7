"""The layer program: lowering, memory maps, buffers."""

from __future__ import annotations

from gen.program.check import verify_program
from gen.program.dynamic import DynamicBuffer
from gen.program.engine import Engine, load_engine
from gen.program.io import extract, pack_latent, unpack_result
from gen.program.lower import lower
from gen.program.program import Program
from gen.program.program_io import load_program, save_program
from gen.program.weights import pack_static

__all__ = [
    "DynamicBuffer",
    "Engine",
    "Program",
    "extract",
    "load_engine",
    "load_program",
    "lower",
    "pack_latent",
    "pack_static",
    "save_program",
    "unpack_result",
    "verify_program",
]
