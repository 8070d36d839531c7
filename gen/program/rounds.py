"""How many units a visit of a tile computes together."""

from __future__ import annotations

from gen.program.engine import Engine
from gen.program.layout import GROUP, ceil_div, up_to

# cycles between two tile visits that the choice for ring weights assumes
_VISIT = 1
# of a round's cycles, the share that the guard cycles of its last load may take
_GUARD_SHARE = 1 / 32


def per_round(
    units: int, gates: int, steps: int, tiles: int, ring_words: int, fill: int, engine: Engine
) -> int:
    """Units of a round, a multiple of ``gates``; 0 if not even one output group fits.

    ``ring_words`` px words per unit of ring weights, 0 for weights from DDR; ``fill`` cycles that
    the window buffer takes for the octets of a tile.

    A tile is visited once per round, which costs nothing by itself: the window stays filled. The
    first round's rows are loaded during the layer before, or during nothing if that one is short;
    so rounds are as short as they can be while a visit still hides what goes on beside it: the
    next tile's fill in round 0, its share of the next round's rows, and the guard cycles after
    the last of them.

    Ring weights: the words of round 0 are read before the first tile and those of round 1 during
    round 0's last tile, which nothing hides. The sum of those and of the visits is least near
    sqrt(units * tiles / ring_words), as long as a visit hides its own share.
    """
    most = min(units, engine.units, engine.weight_rows // steps) // gates * gates
    if most <= 0:
        return 0
    unit_cycles = max(steps, engine.pixels // GROUP)
    if not ring_words:
        for count in range(gates, most, gates):
            visit = count * unit_cycles
            rows = ceil_div(count * steps, tiles)
            if tiles > 1 and visit >= max(fill, rows) + engine.guard:
                break
            if tiles == 1 and engine.guard <= visit * _GUARD_SHARE:
                break
        else:
            count = most
        return up_to(ceil_div(units, ceil_div(units, count)), gates)

    def exposed(count: int) -> int:
        rounds = ceil_div(units, count)
        share = ceil_div(count * ring_words, tiles) + engine.guard
        wait = max(0, share - count * unit_cycles) * tiles * max(0, rounds - 2)
        second = max(0, count * ring_words + engine.guard - count * unit_cycles)
        return count * ring_words + (second if rounds > 1 else 0) + wait + rounds * tiles * _VISIT

    return min(range(1, most + 1), key=lambda count: (exposed(count), count))
