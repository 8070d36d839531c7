"""Rounds of layers whose order is known: what goes on while weights of a first round arrive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gen.program.engine import Engine
from gen.program.flush import execution
from gen.program.layout import ceil_div
from gen.program.planned import Planned
from gen.program.rounds import visit_cycles
from gen.program.schedule import Schedule
from gen.program.structs import RING_NONE, Shape


def with_early(plan: Schedule, layers: Sequence[Planned], cache: Sequence[int]) -> list[Planned]:
    """The layers with ``early``: as many rows as come in the last round of the execution before the
    layer's first one, a row in a cycle from the ``cache`` (its rows; -1: not there), a word in a
    cycle from DDR. None of the ring's come early.
    """
    result = list(layers)
    seen: set[int] = set()
    cycles = 0
    for work in plan.work:
        for each in (work, work.beside):
            if each is not None and each.layer not in seen:
                seen.add(each.layer)
                made = result[each.layer]
                each_row = 1 if cache[each.layer] >= 0 else made.row_words
                early = cycles // each_row if made.ring == RING_NONE else 0
                result[each.layer] = replace(made, early=early)
        run = execution(work, result)
        cycles = last_round(run.shape, run.made.engine)
    return result


def last_round(shape: Shape, engine: Engine) -> int:
    """Cycles of an execution's last round."""
    units = shape.units - (shape.units - 1) // shape.per_round * shape.per_round
    return ceil_div(shape.octets, engine.tile_octets) * visit_cycles(shape, units, engine)
