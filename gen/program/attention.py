"""How much of the attention logits exists at one time: strips of query slots, all pairs or one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gen.errors import EngineTooSmall
from gen.layers import LayerGraph
from gen.program.engine import Engine
from gen.program.intervals import store_intervals
from gen.program.join import joins
from gen.program.layout import GROUP, HeadLoop, Stored, ceil_div, equal_strips
from gen.program.memory import live_sum
from gen.program.planned import Planned
from gen.program.schedule import Node, schedule

# Cycles that an estimate takes for what an execution loads before its first tile, and for a drain
# and the way back to the array.
_EXECUTION, _WAIT = 80, 120
# Tiles of a turn of the window buffer: one that is read, one that is filled, octets before it.
_TURN = 3


@dataclass(frozen=True)
class Cut:
    """``slots`` query slots of a strip (0: all), of ``copies`` pairs (item, head) at one time;
    ``joined``: the products of neighbouring pairs share executions.
    """

    slots: int
    copies: int
    joined: bool = False


def cuts(
    graph: LayerGraph,
    tensors: Mapping[str, Stored],
    order: list[Node],
    layers: list[Planned],
    engine: Engine,
    spill: bool,
    join: bool,
) -> dict[str, Cut]:
    """How each attention is cut, by name of the logits tensor.

    The logits of all pairs are stored for the slots of one strip, or, where that makes the strips
    short, those of one pair: long strips read K and V less often, but every product with V has
    to wait for its product with K. Logits may take ``engine.scores_rows`` of the store, or half
    of what other tensors leave free at that time; with ``spill``, those that the attention uses.
    ``join``: products may share executions, which need the logits of one pair alone.

    Raises:
        EngineTooSmall: not even one tile of query slots fits.
    """
    plan = schedule(order, layers)
    logits = frozenset(layers[node[0]].dest.name for node in order if layers[node[0]].looped)
    others = store_intervals(graph, tensors, plan, logits)
    found = {}
    for node in order:
        if len(node) == 2:
            used = {t.name for layer in node for _, t in layers[layer].roles}
            alive = [each for each in others if not spill or each.name in used]
            free = engine.store_rows - live_sum(alive, plan.times(node[0])[0])
            keys, values = layers[node[0]], layers[node[1]]
            # one tile at least: the memory map says so if the store is too small even for that
            least = keys.dest.local_groups * engine.tile_octets
            rows = engine.scores_rows or max(free // 2, least)
            cut = _joined(keys, values, rows, engine) if join else None
            found[keys.dest.name] = cut or _best(keys, values, rows, engine)
    return found


def _joined(keys: Planned, values: Planned, rows: int, engine: Engine) -> Cut | None:
    """The cut of products that share executions, if they shall."""
    pitch = keys.geometry.pitch
    most = min(_longest(keys, values, rows, 1, engine), engine.depths["rw"] * GROUP)
    if most < min(engine.pixels, pitch):
        return None
    slots = pitch if most >= pitch else equal_strips(pitch, most, engine.pixels)
    if not joins(keys, values, slots):
        return None
    return Cut(0 if slots == pitch else slots, 1, joined=True)


def _best(keys: Planned, values: Planned, rows: int, engine: Engine) -> Cut:
    """The cheaper cut. The graph's logits have a copy per pair."""
    pairs, pitch = keys.dest.copies, keys.geometry.pitch
    together = _longest(keys, values, rows, pairs, engine)
    if together >= pitch or pairs == 1:
        return _checked(keys, values, together, pairs, rows, engine)
    alone = _longest(keys, values, rows, 1, engine)
    if together < engine.pixels:
        return _checked(keys, values, alone, 1, rows, engine)
    strips = ceil_div(pitch, together)
    waits = strips * 2 * _WAIT + strips * pairs * 2 * _EXECUTION
    longer = ceil_div(pitch, alone)
    waits_alone = longer * pairs * (_WAIT + 2 * _EXECUTION)
    if waits <= waits_alone:
        return _checked(keys, values, together, pairs, rows, engine)
    return _checked(keys, values, alone, 1, rows, engine)


def _limits(
    keys: Planned, values: Planned, rows: int, copies: int, engine: Engine
) -> dict[str, int]:
    """Query slots that each buffer holds."""
    of_keys, of_values = (engine.window_rows // sum(each.subs) for each in (keys, values))
    limits = {
        "rows of the store (scores_rows)": rows // (copies * keys.dest.local_groups) * GROUP,
        "octets of row statistics (row_octets)": engine.row_octets // copies * GROUP,
        "window rows (window_rows)": of_keys * engine.pixels,
    }
    tiles = max(2, min(min(limits.values()), keys.geometry.pitch) // engine.pixels)
    heads = (HeadLoop(head) for head in range(keys.layer.heads))
    if of_values >= _TURN and all(values.of_heads(each).turns(tiles) for each in heads):
        return limits
    window = min(of_keys, of_values) * engine.pixels
    return {**limits, "window rows (window_rows)": window, "row sums (sums)": engine.sums}


def _longest(keys: Planned, values: Planned, rows: int, copies: int, engine: Engine) -> int:
    """Query slots that every buffer holds, in whole tiles unless it is all of them."""
    most = min(_limits(keys, values, rows, copies, engine).values())
    return most if most >= keys.geometry.pitch else most // engine.pixels * engine.pixels


def _checked(
    keys: Planned, values: Planned, most: int, copies: int, rows: int, engine: Engine
) -> Cut:
    """Strips of equal length, of at most ``most`` slots."""
    pitch = keys.geometry.pitch
    if most >= pitch:
        return Cut(0, copies)
    if most < engine.pixels:
        limits = _limits(keys, values, rows, copies, engine)
        tight = min(limits, key=lambda each: limits[each])
        raise EngineTooSmall(
            f"layer {keys.layer.name}: the logits of {engine.pixels} queries and "
            f"{keys.dest.channels} keys need more {tight} than there are; choose an engine with "
            "more, a smaller image or batch 1"
        )
    return Cut(equal_strips(pitch, most, engine.pixels), copies)
