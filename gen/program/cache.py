"""Which weights stay on the card."""

from __future__ import annotations

from collections.abc import Sequence

from gen.program.buffers import ws_rows
from gen.program.planned import Planned


def keepable(made: Planned) -> int:
    """Weight rows of a layer that could stay on the card: they are its own, and of the width of the
    cache.
    """
    alike = made.row_words == made.engine.kept_words
    return ws_rows(made) if alike and not made.looped else 0


def cached(layers: Sequence[Planned], rows: Sequence[int], capacity: int) -> list[int]:
    """First row in the weight cache of every layer, or -1.

    ``rows`` weight rows of every layer that could stay. Layers whose rows serve
    the fewest tiles come first: they need their next rows soonest, and DDR is slower than the
    cache. A layer is kept whole or not at all.
    """
    place = [-1] * len(layers)
    used = 0
    for index in sorted(
        range(len(layers)), key=lambda k: (layers[k].tiles(layers[k].strips[0]), k)
    ):
        if 0 < rows[index] <= capacity - used:
            place[index] = used
            used += rows[index]
    return place
