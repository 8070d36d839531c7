"""How many units a visit of a tile computes together."""

from __future__ import annotations

from gen.program.engine import Engine
from gen.program.layout import GROUP, ceil_div, up_to

# cycles between two tile visits that the choice for ring weights assumes
_VISIT = 1


def per_round(
    units: int, gates: int, steps: int, tiles: int, ring_words: int, engine: Engine
) -> int:
    """Units of a round, a multiple of ``gates``; 0 if not even one output group fits.

    ``ring_words`` px words per unit of ring weights, 0 for weights from DDR.

    Weights from DDR: as many as half a weight buffer and ``engine.units`` allow, in rounds of
    equal size. The first rows are there when an execution begins, the others arrive beside the
    multiply steps, so long rounds hide most and balanced ones never leave a short last round
    that has to hide the next execution's rows.

    Ring weights: the words of round 0 are read before the first tile and those of round 1 during
    round 0's last tile, which nothing hides; so rounds are short. On the other hand every round
    visits every tile again. The sum of the two is least near sqrt(units * tiles / ring_words),
    as long as a visit hides its own share of the next round's words and the guard cycles.
    """
    most = min(units, engine.units, engine.weight_rows // steps) // gates * gates
    if most <= 0 or not ring_words:
        return most and up_to(ceil_div(units, ceil_div(units, most)), gates)
    unit_cycles = max(steps, engine.pixels // GROUP)

    def exposed(count: int) -> int:
        rounds = ceil_div(units, count)
        share = ceil_div(count * ring_words, tiles) + engine.guard
        wait = max(0, share - count * unit_cycles) * tiles * max(0, rounds - 2)
        second = max(0, count * ring_words + engine.guard - count * unit_cycles)
        return count * ring_words + (second if rounds > 1 else 0) + wait + rounds * tiles * _VISIT

    return min(range(1, most + 1), key=lambda count: (exposed(count), count))
