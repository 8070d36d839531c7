"""``python -m gen plan MODEL``."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from math import ceil
from pathlib import Path

from gen.errors import EngineTooSmall, UserError
from gen.layers import LayerGraph
from gen.macs import macs_per_step
from gen.model import find_model
from gen.plan.engine_file import engine_toml
from gen.plan.kinds import kinds_of, search_kinds
from gen.plan.limits import load_limits
from gen.plan.report import Plan, as_dict, as_text
from gen.plan.structure import layer_graph, skeleton
from gen.program.engine import Engine, load_engine
from gen.program.sampler import with_sampler
from gen.requests import BITS, check_numbers, make_place
from gen.stages import write_json, write_text


def make_plan(
    name: str,
    board: str = "u250",
    clock_mhz: float = 0.0,
    cards: int = 1,
    bits: str = "w8a8",
    batch: int = 0,
    height: int = 0,
    width: int = 0,
    tokens: int = 0,
    sampler: bool = False,
    progress: bool = False,
) -> Plan:
    """The best engine for a model on ``cards`` boards, each with its share of the batch.

    ``clock_mhz``, ``batch``, ``height``, ``width``, ``tokens``: 0 for the board's and the model's
    own. ``sampler``: the engine updates the latent itself between steps.
    ``progress``: show a bar.

    Raises:
        EngineTooSmall: a model that fits no engine; names what is missing and what would fit.
        UserError: bad input, or a layer that no engine runs.
    """
    started = time.perf_counter()
    if cards < 1:
        raise UserError(f"--cards {cards}: at least one card is needed")
    limits = load_limits(board)
    model = find_model(name)
    whole = batch or model.batch
    graph = layer_graph(model, ceil(whole / cards), height, width, tokens)
    bases = _engines(board, bits, graph, sampler)
    if clock_mhz:
        bases = [replace(base, clock_mhz=clock_mhz) for base in bases]
    try:
        qgraph = skeleton(graph, BITS[bits])
        choice, *others = search_kinds(qgraph, bases, limits, macs_per_step(graph), progress)
    except EngineTooSmall as error:
        size = (graph.batch, height, width, tokens)
        raise EngineTooSmall(
            f"{name}: {error}. {_smaller(name, board, bits, size, sampler)}"
        ) from error
    return Plan(
        model=model.name,
        graph=graph,
        choice=choice,
        limits=limits,
        clock_mhz=choice.engine.clock_mhz,
        cards=cards,
        seconds=time.perf_counter() - started,
        others=tuple(others),
    )


def _engines(board: str, bits: str, graph: LayerGraph, sampler: bool) -> list[Engine]:
    """A board's engine, of every kind that runs weights of the bits asked for."""
    engine = load_engine(board)
    return kinds_of(with_sampler(engine, graph) if sampler else engine, BITS[bits])


def _smaller(
    name: str, board: str, bits: str, size: tuple[int, int, int, int], sampler: bool
) -> str:
    """The nearest request that fits: one sample at a time, then smaller latents. ``size``: batch,
    height, width, tokens.
    """
    batch, height, width, tokens = size
    if batch > 1:
        try:
            make_plan(name, board, 0.0, 1, bits, 1, height, width, tokens, sampler)
        except EngineTooSmall as error:
            return str(error).rpartition(". ")[2]
        return "With --batch 1 (one sample per step, or one card per sample) it fits"
    model = find_model(name)
    limits = load_limits(board)
    tensors = layer_graph(model, 1, height, width, tokens).tensors
    side = max(max(t.height, t.width) for t in tensors.values())
    while side > 8:
        side //= 2
        graph = layer_graph(model, 1, side, side, tokens)
        bases = _engines(board, bits, graph, sampler)
        try:
            search_kinds(skeleton(graph, BITS[bits]), bases, limits, macs_per_step(graph))
        except UserError:
            continue
        return f"With latents of {side}x{side} (--height {side} --width {side}) it fits"
    return "No smaller latent of this model fits either"


def run(
    name: str,
    board: str,
    clock_mhz: float,
    cards: int,
    bits: str,
    batch: int,
    height: int,
    width: int,
    tokens: int,
    sampler: bool,
    as_json: bool,
    out: Path | None,
    engine_file: Path | None,
) -> None:
    """Print a plan; write it as JSON to ``out`` and its engine as TOML to ``engine_file``."""
    check_numbers(clock_mhz, batch=batch, height=height, width=width, tokens=tokens)
    load_limits(board)
    find_model(name)
    make_place(out, "--out")
    make_place(engine_file, "--engine")
    plan = make_plan(
        name, board, clock_mhz, cards, bits, batch, height, width, tokens, sampler, progress=True
    )
    data = as_dict(plan)
    if out:
        write_json(out, data)
    if engine_file:
        write_text(engine_file, engine_toml(plan.choice.engine, plan.model, board))
    print(json.dumps(data, indent=1) if as_json else as_text(plan))
