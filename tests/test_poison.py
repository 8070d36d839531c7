"""Memory that nobody has written: RTL simulation starts it as X, a card holds whatever was there.

Memories are filled with a byte before a step; in half of the cards local variables without a value
get a pattern from the compiler, too. Results, cycles and every word between the kernels
are the same with any of them.
"""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from generic_card import GenericCard, GraphRun, ranked
from layerkit import KINDS
from test_layers_csim import TIGHT, drawn

from gen.program import Engine
from gen.reference import run

TRACED = "tests/kernels/traced.cpp"
PATTERN = "-ftrivial-auto-var-init=pattern"
FORMS = {"fast": ("-O2", "-march=native"), "plain": ("-O2", "-march=native", "-DLDA_PLAIN")}
SHAPES = ({"size": (6, 4), "channels": 24}, {"size": (12, 10), "channels": 40})
BYTES = (0x00, 0x5A, 0xA5)


def digests(card: GenericCard) -> dict[str, str]:
    """FIFO to the digest of what has passed since the last call."""
    card.lib.lda_digests.restype = ctypes.c_char_p
    return dict(line.split() for line in card.lib.lda_digests().decode().splitlines())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "ranks", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)]
)
def test_nothing_depends_on_unwritten_memory(ranks, form):
    flags = ranked(ranks, *FORMS[form])
    cards = [GenericCard(*flags, *extra, source=TRACED) for extra in ((), (PATTERN,))]
    for kind in KINDS:
        for shape, engine in zip(SHAPES, ({}, TIGHT), strict=True):
            qgraph, inputs = drawn(kind, 31, **shape)
            graph = GraphRun(qgraph, inputs, Engine(ranks=ranks, **engine))
            expected = run(qgraph, *inputs.args(), step_affine=inputs.step_affine)
            seen = []
            for number, byte in enumerate(BYTES):
                card = cards[number % 2]
                digests(card)
                card.poison(byte)
                assert np.array_equal(graph.on(card), expected), (kind, byte)
                seen.append((card.report, digests(card)))
            assert f"px_{ranks}" in seen[0][1]
            assert seen[0] == seen[1] == seen[2], kind


def test_poison_reaches_what_a_step_reads():
    """Weights that stay on the card are read from its memory in a later step."""
    graph = GraphRun(*drawn("conv3x3", 8), Engine(ranks=2, cache_rows=4096))
    card = GenericCard(*ranked(2))
    first = graph.on(card).copy()
    assert np.array_equal(graph.on(card, reload=False), first)
    card.poison(0x5A)
    assert not np.array_equal(graph.on(card, reload=False), first)
    assert np.array_equal(graph.on(card, reload=True), first)
