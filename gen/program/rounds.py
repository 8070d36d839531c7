"""How many units a visit of a tile computes together."""

from __future__ import annotations

from gen.program.engine import Engine
from gen.program.layout import ceil_div, up_to

# of the cycles of a layer's only tile, the share that the guard cycles after a load may take
_GUARD_SHARE = 1 / 16


def per_round(
    units: int, gates: int, steps: int, tiles: int, words: int, fill: int, engine: Engine
) -> int:
    """Units of a round, a multiple of ``gates``; 0 if not even one output group fits.

    ``words`` cycles per unit in which its weights arrive (rows from DDR, or px words of ring
    weights); ``fill`` cycles that the window buffer takes for the octets of a tile.

    A tile is visited once per round, which costs nothing by itself: the window stays filled. But
    the first round's weights come during the layer before, or during nothing if that one is
    short; ring weights of round 0 come before the first tile, those of round 1 during round 0's
    last tile. So rounds are as short as they can be while a visit still hides what goes on beside
    it: the next tile's fill in round 0, its share of the next round's weights, and the guard
    cycles after the last of them. Rounds are of equal size as far as possible: a short last one
    would have little to hide the next execution's weights behind.
    """
    most = min(units, engine.units, engine.weight_rows // steps) // gates * gates
    if most <= 0:
        return 0
    # of the array, or of post, which takes a word in each
    unit_cycles = max(steps, engine.tile_octets)
    for count in range(gates, most, gates):
        visit = count * unit_cycles
        if tiles == 1:
            # the whole next round comes during one visit; only the guard cycles are in excess
            hidden = engine.guard <= visit * _GUARD_SHARE
        else:
            hidden = visit >= max(fill, ceil_div(count * words, tiles)) + engine.guard
        if hidden:
            break
    else:
        count = most
    return up_to(ceil_div(units, ceil_div(units, count)), gates)
