"""Which weights stay on the card."""

from __future__ import annotations

from collections.abc import Sequence

from gen.program.planned import Planned


def cached(layers: Sequence[Planned], rows: Sequence[int], capacity: int) -> list[int]:
    """First row in the weight cache of every layer, or -1.

    ``rows`` weight rows of every layer that come from the static buffer. Layers whose rows serve
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
