"""Which of several kinds of engine runs a model best: weights of 4 bits can be widened on their way
to an array of 8-bit weights, or multiplied as they are (docs/plan.md, "W4A8").
"""

from __future__ import annotations

from collections.abc import Sequence

from gen.errors import EngineTooSmall
from gen.plan.limits import KINDS, Limits
from gen.plan.resources import Resources
from gen.plan.search import Choice, search
from gen.program.engine import Engine, four_bit_kinds
from gen.qlayers import QGraph


def kinds_of(engine: Engine, weight_bits: int) -> list[Engine]:
    """Engines of an engine's shape for weights of 8 or 4 bits."""
    return list(four_bit_kinds(engine)) if weight_bits == 4 else [engine]


def preference(cycles: int, used: Resources, limits: Limits) -> tuple[int, float]:
    """What orders engines of several kinds, best first: cycles of a step, then the share that one
    uses of what is scarcest for it.
    """
    amounts = used.as_dict()
    return cycles, max(amounts[kind] / limits.usable(kind) for kind in KINDS)


def search_kinds(
    qgraph: QGraph, bases: Sequence[Engine], limits: Limits, macs: int, progress: bool = False
) -> tuple[Choice, ...]:
    """The best engine of each kind that has one, the one with the fewest cycles first, of equals
    the one that needs less. Arguments as of :func:`gen.plan.search.search`.

    Raises:
        EngineTooSmall: no engine of any kind fits; says what the first kind lacks.
        UserError: a layer that no engine runs.
    """
    found: list[Choice] = []
    faults: list[EngineTooSmall] = []
    for base in bases:
        try:
            found.append(search(qgraph, base, limits, macs, progress))
        except EngineTooSmall as error:
            faults.append(error)
    if not found:
        raise faults[0]
    found.sort(key=lambda each: preference(each.cost.cycles, each.used, limits))
    return tuple(found)
