"""The engine with the fewest cycles per step that fits a board, by CP-SAT (OR-Tools).

Shapes (ranks, pixels, window and weight buffers) are lowered and costed one by one, best bound
first; a shape whose bound is worse than the best engine found is not looked at. What is left to
choose for each shape is decided together by one constraint program: how many of the products are
made in fabric, in which kind of memory each big buffer lies, how many weight rows stay on the card.
The store holds all tensors that are alive at once, or, if that many rows do not fit, as many as do;
then some tensors lie in DDR for a while.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import ceil

from ortools.sat.python import cp_model
from tqdm import tqdm

from gen.errors import EngineTooSmall
from gen.plan.limits import KINDS, Limits
from gen.plan.resources import (
    Resources,
    big_memories,
    big_memory,
    link_wires,
    rank_costs,
)
from gen.program.binary import program_bytes
from gen.program.cost import StepCost, step_cost
from gen.program.engine import Engine
from gen.program.lower import lower
from gen.program.program import Program
from gen.qlayers import QGraph

PIXELS = (32, 64)
WINDOW_ROWS = (512, 1024, 2048, 4096, 8192)
WEIGHT_ROWS = (1024, 2048)  # of 8 bits
# fractions of the static weight rows that stay on the card
CACHE_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
SCORES_ROWS = (16384, 8192, 4096)  # of the store, that attention logits may take
STORE_STEP = 4096  # rows of one UltraRAM
UNLIMITED = 1 << 24
MEMORY_KINDS = ("uram", "bram")


@dataclass(frozen=True)
class Choice:
    """An engine that fits, the program it runs and what it costs.

    ``used``: resources of one rank.
    """

    engine: Engine
    program: Program
    cost: StepCost
    used: Resources


def shapes(base: Engine, limits: Limits) -> Iterator[Engine]:
    """Engines of every shape, most multipliers first, then small buffers first."""
    ranks = [r for r in (4, 2, 1) if r <= limits.slrs]
    order = sorted(((r, p) for r in ranks for p in PIXELS), key=lambda rp: (-rp[0] * rp[1], -rp[0]))
    for rank, pixels in order:
        for window, weight, scores in product(WINDOW_ROWS, WEIGHT_ROWS, SCORES_ROWS):
            yield replace(
                base,
                ranks=rank,
                pixels=pixels,
                window_rows=window,
                weight_rows=weight * base.byte_rows,
                store_rows=UNLIMITED,
                scores_rows=scores,
                stats_words=UNLIMITED,
                row_octets=UNLIMITED,
                cache_rows=0,
            )


def place(engine: Engine, limits: Limits, cache_rows: Sequence[int],
          gain: Sequence[int]) -> Engine | None:  # fmt: skip
    """Fill in what the shape leaves open, or None if it fits in no way.

    ``cache_rows[k]`` rows on the card save ``gain[k]`` cycles per step. Saved cycles come first,
    then the most even use of what is scarce.
    """
    model = cp_model.CpModel()
    fabric = [model.new_bool_var(f"fabric{f}") for f in range(engine.outputs + 1)]
    levels = [model.new_bool_var(f"cache{k}") for k in range(len(cache_rows))]
    model.add_exactly_one(fabric)
    model.add_exactly_one(levels)
    used: dict[str, list[cp_model.LinearExprT]] = {kind: [] for kind in KINDS}

    def charge(literal: cp_model.IntVar, resources: Resources) -> None:
        for kind, amount in resources.as_dict().items():
            if amount:
                used[kind].append(literal * amount)

    for count, literal in enumerate(fabric):
        total = Resources()
        for each in rank_costs(replace(engine, fabric_outputs=count)):
            total += each.resources
        charge(literal, total)
    kinds: dict[str, dict[str, cp_model.IntVar]] = {}
    for name in big_memories(engine):
        kinds[name] = {kind: model.new_bool_var(f"{name}.{kind}") for kind in MEMORY_KINDS}
        model.add_exactly_one(list(kinds[name].values()))
        if name != "cache":
            for kind, literal in kinds[name].items():
                charge(literal, big_memory(engine, name, kind))
    for level, rows in zip(levels, cache_rows, strict=True):
        for kind, literal in kinds["cache"].items():
            both = model.new_bool_var("")
            model.add_bool_and([level, literal]).only_enforce_if(both)
            model.add_bool_or([level.negated(), literal.negated(), both])
            charge(both, big_memory(replace(engine, cache_rows=rows), "cache", kind))
    for kind in KINDS:
        model.add(cp_model.LinearExpr.sum(used[kind]) <= limits.usable(kind))
    # what is scarcest, in thousandths of its limit
    worst = model.new_int_var(0, 1000, "worst")
    for kind in KINDS:
        share = cp_model.LinearExpr.sum(used[kind])
        model.add(1000 * share <= worst * limits.usable(kind))
    saved = cp_model.LinearExpr.weighted_sum(levels, list(gain))
    model.maximize(2000 * saved - worst)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 1
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return replace(
        engine,
        fabric_outputs=next(f for f, v in enumerate(fabric) if solver.value(v)),
        cache_rows=next(r for r, v in zip(cache_rows, levels, strict=True) if solver.value(v)),
        memories={
            name: next(kind for kind, v in each.items() if solver.value(v))
            for name, each in kinds.items()
        },
    )


def used_resources(engine: Engine) -> Resources:
    """Resources of one rank."""
    total = Resources()
    for each in rank_costs(engine):
        total += each.resources
    for name, kind in engine.memories.items():
        total += big_memory(engine, name, kind)
    return total


def fits(engine: Engine, limits: Limits) -> bool:
    """Whether a rank keeps within the limits."""
    used = used_resources(engine).as_dict()
    return all(used[kind] <= limits.usable(kind) for kind in KINDS)


def _sized(engine: Engine, program: Program) -> Engine:
    """The engine with memories as large as the program needs, in whole UltraRAMs."""
    return replace(
        engine,
        store_rows=ceil(program.store_peak / STORE_STEP) * STORE_STEP,
        stats_words=max(64, ceil(program.stats_peak / 64) * 64),
        row_octets=max(64, ceil(program.rows_peak / 64) * 64),
    )


def _most_rows(engine: Engine, limits: Limits) -> int:
    """Rows of the largest store with which the engine fits, below the one that it has."""
    fits, beyond = 0, engine.store_rows // STORE_STEP
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        smaller = replace(engine, store_rows=middle * STORE_STEP)
        if place(smaller, limits, [0], [0]) is None:
            beyond = middle
        else:
            fits = middle
    return fits * STORE_STEP


def search(
    qgraph: QGraph, base: Engine, limits: Limits, macs: int, progress: bool = False
) -> Choice:
    """The best engine for ``qgraph`` with weight rows of as many bits as those of ``base``.

    ``macs``: multiply-accumulates of one step, for the bound. ``progress``: show a bar over the
    shapes.

    Raises:
        EngineTooSmall: no engine fits; says what is missing for the one that comes nearest.
        UserError: a layer that no engine runs.
    """
    best: Choice | None = None
    seen: set[tuple[int, int, int]] = set()
    programs: set[bytes] = set()
    # of shapes that do not even fit alone, that are too small for this model's layers, and that do
    # not fit with what this model needs
    bare: list[str] = []
    narrow: list[str] = []
    refusals: list[str] = []
    for shape in tqdm(list(shapes(base, limits)), "plan", disable=not progress):
        units = shape.ranks * shape.pixels * shape.inputs * shape.outputs
        if best is not None and macs / units >= best.cost.cycles:
            continue
        if link_wires(shape) > limits.link_wires:
            bare.append(
                f"{shape.ranks} ranks need {link_wires(shape)} wires between two SLRs, "
                f"{limits.link_wires} are to be used"
            )
            continue
        small = replace(shape, store_rows=STORE_STEP, stats_words=64, row_octets=64)
        if place(small, limits, [0], [0]) is None:
            bare.append(_missing(small, limits))
            continue
        try:
            largest = lower(qgraph, shape)
        except EngineTooSmall as error:
            narrow.append(str(error))
            continue
        try:
            program = fitting(qgraph, shape, largest, limits)
        except EngineTooSmall as error:
            refusals.append(str(error))
            continue
        # a larger buffer that changes nothing costs more and gives nothing
        bytes_ = hashlib.sha256(program_bytes(program)).digest()
        if bytes_ in programs:
            continue
        programs.add(bytes_)
        cost = step_cost(program)
        plain = (shape.ranks, shape.pixels, cost.cycles)
        if plain in seen:
            continue
        seen.add(plain)
        candidate = _evaluate(qgraph, program, cost, limits)
        if best is None or candidate.cost.cycles < best.cost.cycles:
            best = candidate
    if best is None:
        raise EngineTooSmall(f"no engine fits: {[*refusals, *narrow, *bare][0]}")
    return best


def fitting(qgraph: QGraph, shape: Engine, largest: Program, limits: Limits) -> Program:
    """The program of a shape on an engine that fits: with a store for all tensors that are alive at
    once, or with the largest one that there is room for; with row statistics for as many rows of
    attention logits as ``largest`` has, the program without limits, or for what a layer norm needs.

    Raises:
        EngineTooSmall: not even these fit, or the store is too small for the model.
    """
    tensors = [largest.tensors[name] for name in largest.row_stats]
    norms = max((each.octets for each in tensors if not each.logits), default=0)
    fault = ""
    for octets in (UNLIMITED, max(64, ceil(norms / 64) * 64)):
        sized = _sized(shape, largest)
        sized = replace(sized, row_octets=min(octets, sized.row_octets))
        rows = sized.store_rows
        if place(sized, limits, [0], [0]) is None:
            fault = fault or _missing(sized, limits)
            rows = _most_rows(sized, limits)
        if rows:
            try:
                found = lower(qgraph, replace(sized, store_rows=rows))
            except EngineTooSmall as error:
                fault = str(error)
                continue
            return found
    raise EngineTooSmall(fault)


def _evaluate(qgraph: QGraph, plain: Program, plain_cost: StepCost, limits: Limits) -> Choice:
    """Cost an engine that fits at every level of cached weights that could fit, and place it."""
    sized, rows = plain.engine, plain.static_rows
    cache_rows, gain = [0], [0]
    for level in CACHE_LEVELS[1:]:
        count = ceil(rows * level / STORE_STEP) * STORE_STEP
        if big_memory(replace(sized, cache_rows=count), "cache", "uram").uram > limits.usable(
            "uram"
        ):
            break
        cached = step_cost(lower(qgraph, replace(sized, cache_rows=count)))
        cache_rows.append(count)
        gain.append(max(0, plain_cost.cycles - cached.cycles))
    placed = place(sized, limits, cache_rows, gain)
    assert placed is not None  # without a cache it fits
    program = lower(qgraph, placed)
    cost = step_cost(program) if placed.cache_rows else plain_cost
    return Choice(placed, program, cost, used_resources(placed))


def _missing(engine: Engine, limits: Limits) -> str:
    """What a shape has too much of, at its leanest."""
    engine = replace(engine, memories=dict.fromkeys(big_memories(engine), "uram"))
    lines = []

    def excess(fabric: int) -> float:
        used = used_resources(replace(engine, fabric_outputs=fabric))
        return max(used.as_dict()[kind] / limits.usable(kind) for kind in ("lut", "dsp"))

    lean = replace(engine, fabric_outputs=min(range(engine.outputs + 1), key=excess))
    used = used_resources(lean).as_dict()
    for kind in KINDS:
        if used[kind] > limits.usable(kind):
            lines.append(f"{used[kind]} {kind} of {limits.usable(kind)} per SLR")
    what = ", ".join(lines) or "memories that fit neither in UltraRAM nor in block RAM"
    return (
        f"{engine.ranks} x {engine.pixels}x{engine.inputs}x{engine.outputs} multipliers with a "
        f"store of {engine.store_rows} rows and {engine.window_rows} window rows need {what}"
    )
