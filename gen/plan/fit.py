"""The engine of a build for which the user named a board and no engine."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from gen.errors import EngineTooSmall, UserError
from gen.macs import attention_macs
from gen.plan.kinds import kinds_of, preference, search_kinds
from gen.plan.limits import load_limits
from gen.plan.search import fits, used_resources
from gen.program.cost import step_cost
from gen.program.engine import Engine, load_engine
from gen.program.lower import lower
from gen.program.program import Program
from gen.program.sampler import with_sampler
from gen.qlayers import QGraph


def qgraph_macs(qgraph: QGraph) -> int:
    """Multiply-accumulates of one step of an integer graph, padding not counted."""
    graph, total = qgraph.graph, 0
    for qlayer in qgraph.layers:
        if qlayer.weight is None:
            total += attention_macs(graph, qlayer.layer)
        else:
            pixels = graph.tensors[qlayer.layer.dest].pixels
            total += int(np.prod(qlayer.weight.shape)) * pixels * graph.batch
    return total


def fitted(qgraph: QGraph, board: str, sampler: bool = False) -> tuple[Program, bool]:
    """The program of ``qgraph`` on the engine of ``board``, and whether that engine was planned.

    ``board`` is an engine file, which is taken as it is, or the name of a board. A board's own
    engine is taken if its store holds the model's tensors and it fits, with the sampler if there is
    to be one, else the best one that fits is searched; for a model with weights of 4 bits the
    faster of both kinds. ``sampler``: with one for the model's latent.

    Raises:
        EngineTooSmall: a layer or a memory that no engine of the board can hold.
        UserError: an engine file without the sampler, or a layer that no engine runs.
    """
    engine: Engine = load_engine(board)
    if Path(board).suffix == ".toml":
        if sampler and not engine.sampler_pixels:
            raise UserError(
                f"{board} is an engine without a sampler; plan it with --sampler, or build without"
            )
        return lower(qgraph, engine), False
    if sampler:
        engine = with_sampler(engine, qgraph.graph)
    kinds = kinds_of(engine, min((q.weight_bits for q in qgraph.layers), default=8))
    programs = []
    for kind in kinds:
        with suppress(EngineTooSmall):
            programs.append(lower(qgraph, kind, spill=False))
    limits = load_limits(board)
    programs = [each for each in programs if fits(each.engine, limits)]

    def order(program: Program) -> tuple[int, float]:
        return preference(step_cost(program).cycles, used_resources(program.engine), limits)

    if programs:
        return programs[0] if len(programs) == 1 else min(programs, key=order), False
    best, *_ = search_kinds(qgraph, kinds, limits, qgraph_macs(qgraph), progress=True)
    return best.program, True
