"""How many units a visit of a tile computes together."""

from __future__ import annotations

from gen.program.engine import Engine
from gen.program.layout import ceil_div, up_to
from gen.program.structs import Shape

# of the cycles of a layer's only tile, the share that the guard cycles after a load may take
_GUARD_SHARE = 1 / 16
# cycles from the array's last step to the next layer's first one, estimated
DRAIN = 100


def visit_cycles(shape: Shape, units: int, engine: Engine) -> int:
    """Cycles in which a tile passes through ``units``, in a joined execution all of them: those of
    the array, or of post, which takes a word in each and catches up beside the units with V.
    """
    of_v = shape.pv_units * engine.unit_cycles(shape.pv_steps)
    array = of_v + (units - shape.pv_units) * engine.unit_cycles(shape.steps)
    return max(array, units * engine.tile_octets)


def per_round(
    units: int,
    gates: int,
    steps: int,
    tiles: int,
    words: int,
    fill: int,
    engine: Engine,
    early: int | None = None,
) -> int:
    """Units of a round, a multiple of ``gates``; 0 if not even one output group fits.

    ``words`` of a unit's weights, one of which arrives in a cycle (rows of ``ws``, or px words of
    ring weights); ``fill`` cycles that the window buffer takes for the octets of a tile; ``early``
    words of round 0 that arrive before the first tile while something else goes on, None if that is
    not known.

    A tile is visited once per round, which costs nothing by itself: the window stays filled. A
    visit has to hide what goes on beside it: the next tile's fill in round 0, its share of the next
    round's weights, and the guard cycles after the last of them. Beyond that there are two sides
    to it. The longer a round is, the more weights have to be there before the first tile: those
    from DDR come during the execution before, ring weights of round 0 during nothing. And the
    shorter the last one is, the sooner after its first tile is everything over, so that the next
    layer, which reads that tile first, has to wait for it. Rounds are of equal size as far as
    possible: a short last one would have little to hide the next execution's weights behind.
    """
    most = min(units, engine.units, engine.weight_rows // steps) // gates * gates
    if most <= 0:
        return 0
    # of the array, or of post, which takes a word in each
    unit_cycles = max(steps, engine.tile_octets)

    def hidden(count: int) -> bool:
        visit = count * unit_cycles
        if tiles == 1:
            # the whole next round comes during one visit; only the guard cycles are in excess
            return engine.guard <= visit * _GUARD_SHARE
        return visit >= max(fill, ceil_div(count * words, tiles)) + engine.guard

    def equal(count: int) -> int:
        return up_to(ceil_div(units, ceil_div(units, count)), gates)

    def exposed(count: int) -> int:
        """Cycles in which the array waits for weights and for the results of the last round."""
        assert early is not None
        last = units - (units - 1) // count * count
        waits = max(0, count * words - early)
        return waits + max(0, DRAIN - last * unit_cycles * (tiles - 1))

    counts = range(gates, most + 1, gates)
    least = next((count for count in counts if hidden(count)), most)
    if early is None:
        return equal(least)
    return min({equal(count) for count in counts if count >= least}, key=lambda n: (exposed(n), n))
