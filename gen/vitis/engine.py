"""The engine that a build is for."""

from __future__ import annotations

import json
from pathlib import Path

from gen.errors import UserError
from gen.program.program import Program
from gen.program.program_io import FORMAT
from gen.vitis.topology import RANKS, WEIGHT_BITS, Kernel, Topology, topology


def engine_of(build: Path) -> Topology:
    """Kernels and streams of a build, by the engine and the moves of its ``program.json``.

    Raises:
        UserError: it is missing or no layer program.
    """
    path = build / "program.json"
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); run make build first") from error
    if isinstance(value, dict) and value.get("format") != FORMAT:
        raise UserError(f"{path} has another format than {FORMAT}; build the model again")
    engine = value.get("engine") if isinstance(value, dict) else None
    known = engine if isinstance(engine, dict) else {}
    ranks, bits = known.get("ranks"), known.get("weight_bits")
    if ranks not in RANKS or bits not in WEIGHT_BITS:
        raise UserError(f"{path} is not a layer program; run make build again")
    sampler = bool(known.get("sampler_pixels"))
    return topology(int(ranks), int(bits), bool(value.get("moves")), sampler)


def engine_topology(program: Program) -> Topology:
    """Kernels and streams of a program's engine."""
    engine = program.engine
    return topology(program.ranks, engine.weight_bits, bool(program.moves), program.has_sampler)


def kernel_of(build: Path, name: str) -> Kernel:
    """A kernel of a build.

    Raises:
        UserError: there is no such kernel.
    """
    engine = engine_of(build)
    names = [kernel.name for kernel in engine.kernels]
    if name not in names:
        raise UserError(f"{name} is no kernel of {build}; there are {', '.join(names)}")
    return engine.kernel(name)
