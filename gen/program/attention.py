"""Strips of query slots: how much of the attention logits exists at one time."""

from __future__ import annotations

from collections.abc import Mapping

from gen.errors import UserError
from gen.layers import LayerGraph
from gen.program.engine import Engine
from gen.program.intervals import store_intervals
from gen.program.layout import GROUP, Stored, ceil_div, up_to
from gen.program.memory import live_sum
from gen.program.planned import Planned
from gen.program.schedule import Node, schedule


def query_slots(
    graph: LayerGraph,
    tensors: Mapping[str, Stored],
    order: list[Node],
    layers: list[Planned],
    engine: Engine,
) -> dict[str, int]:
    """Query slots of a strip by name of the logits tensor; 0: all of them.

    The logits of all items and heads are stored for the slots of one strip. They may take
    ``engine.scores_rows`` of the store, or half of what other tensors leave free at that time.

    Raises:
        UserError: not even one tile of query slots fits.
    """
    plan = schedule(order, layers)
    logits = frozenset(layers[node[0]].dest.name for node in order if layers[node[0]].looped)
    others = store_intervals(graph, tensors, plan, logits)
    slots = {}
    for node in order:
        if len(node) == 2:
            free = engine.store_rows - live_sum(others, plan.times(node[0])[0])
            rows = engine.scores_rows or free // 2
            made = _longest(layers[node[0]], layers[node[1]], max(0, rows), engine)
            slots[layers[node[0]].dest.name] = made
    return slots


def _longest(keys: Planned, values: Planned, rows: int, engine: Engine) -> int:
    """Query slots that every buffer holds, in strips of equal length; 0: all slots."""
    scores, pitch = keys.dest, keys.geometry.pitch
    octet_rows = scores.copies * scores.local_groups  # of the store, per octet of queries
    subs = max(sum(keys.subs), sum(values.subs))
    limits = {
        "rows of the store (scores_rows)": rows // octet_rows * GROUP,
        "row sums (sums)": engine.sums,
        "octets of row statistics (row_octets)": engine.row_octets // scores.copies * GROUP,
        "window rows (window_rows)": engine.window_rows // subs * engine.pixels,
    }
    most = min(limits.values())
    if most >= pitch:
        return 0
    if most < engine.pixels:
        tight = min(limits, key=lambda each: limits[each])
        raise UserError(
            f"layer {keys.layer.name}: the logits of {scores.copies} items x heads, "
            f"{scores.channels} keys and {engine.pixels} queries need more {tight} than there "
            "are; choose an engine with more, a smaller image or batch 1"
        )
    most = most // engine.pixels * engine.pixels
    return up_to(ceil_div(pitch, ceil_div(pitch, most)), engine.pixels)
