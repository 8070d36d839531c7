"""Memory that nobody has written: RTL simulation starts it as X, a card holds whatever was there.

Memories are filled with a byte before a step; in half of the cards local variables without a value
get a pattern from the compiler, too. Results and cycles are the same with any of them.
"""

from __future__ import annotations

import numpy as np
import pytest
from generic_card import GenericCard, GraphRun, ranked
from layerkit import KINDS
from test_layers_csim import TIGHT, drawn, first_difference

from gen.program import Engine

PATTERN = "-ftrivial-auto-var-init=pattern"
FORMS = {"fast": ("-O2", "-march=native"), "plain": ("-O2", "-march=native", "-DLDA_PLAIN")}
# small enough that all of the store is used, and large ones
SHAPES = ({"size": (6, 4), "channels": 24}, {"size": (12, 10), "channels": 40})
BYTES = (0x5A, 0xA5, 0xFF)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "ranks", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)]
)
def test_results_do_not_depend_on_unwritten_memory(ranks, form):
    cards = [GenericCard(*ranked(ranks, *FORMS[form], *extra)) for extra in ((), (PATTERN,))]
    for kind in KINDS:
        for shape, engine in zip(SHAPES, ({}, TIGHT), strict=True):
            graph = drawn(kind, 31, **shape)
            reports = []
            for number, byte in enumerate(BYTES):
                card = cards[number % 2]
                card.poison(byte)
                assert first_difference(graph, ranks, card, **engine) is None, (kind, byte)
                reports.append(card.report)
            assert reports[0] == reports[1] == reports[2], kind


def test_poison_reaches_what_a_step_reads():
    """Weights that stay on the card are read from its memory in a later step."""
    graph = GraphRun(*drawn("conv3x3", 8), Engine(ranks=2, cache_rows=4096))
    card = GenericCard(*ranked(2))
    first = graph.on(card).copy()
    assert np.array_equal(graph.on(card, reload=False), first)
    card.poison(0x5A)
    assert not np.array_equal(graph.on(card, reload=False), first)
    assert np.array_equal(graph.on(card, reload=True), first)
