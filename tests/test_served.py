"""Whose words in the DDR buffers an entry takes."""

import numpy as np
import pytest
from layerkit import random_qgraph

from gen.program import Engine, lower
from gen.program.weights import pack_static


def joined(heads, batch, ranks=4, size=(16, 16)):
    qgraph = random_qgraph("self_attention", np.random.default_rng(3), batch, size, heads=heads)
    return qgraph, lower(qgraph, Engine(ranks=ranks))


def pairs(program):
    """(phase of the head of V, of that of K) by joined entry, and the words of both products."""
    q, v = program.tensors["q.out"], program.tensors["attended"]
    found = []
    for entry in program.entries:
        if entry.parts:
            of_v, of_k = entry.parts
            phases = v.head(of_v.heads.first).phase, q.head(of_k.heads.first).phase
            found.append((phases, of_v.wload, of_k.wload))
    return found


@pytest.mark.parametrize(
    "heads, batch, phases",
    [
        ((3, 32), 2, {(0, 0)}),
        ((5, 16), 1, {(0, 2), (2, 0)}),
        ((8, 40), 1, {(0, 1), (1, 2), (2, 3), (3, 0)}),
        # from the last head of an item to the first one of the next
        ((6, 40), 2, {(0, 1), (1, 2), (2, 3), (3, 0), (1, 0)}),
    ],
)
def test_neighbours_of_every_phase(heads, batch, phases):
    _, program = joined(heads, batch)
    found = pairs(program)
    assert {each[0] for each in found} == phases
    words = {}
    for each, of_v, of_k in found:
        # both products' words of a kind are one run
        assert of_k.pp.base == of_v.pp.base + of_v.pp_words
        assert of_k.scale.base == of_v.scale.base + of_v.units
        assert of_k.bias.base == of_v.bias.base + of_v.units * of_v.bias_words
        words.setdefault(each, set()).add((of_v.scale.base, of_k.scale.base))
    # heads of the same phases share them, others do not
    assert all(len(each) == 1 for each in words.values())
    assert len({scale for each in words.values() for scale in each}) == len(phases)


def test_products_alone_take_the_words_of_joined_ones():
    _, program = joined((5, 40), 1)
    first = next(e for e in program.entries if e.layer == "qk" and not e.parts)
    last = [e for e in program.entries if e.layer == "pv" and not e.parts][-1]
    found = pairs(program)
    assert first.wload.scale in [of_k.scale for phases, _, of_k in found if phases[1] == 0]
    # the last of five heads begins where the first one does
    assert last.wload.scale in [of_v.scale for phases, of_v, _ in found if phases[0] == 0]


def test_a_phase_that_no_joined_product_has():
    """The last one of four heads with V, whose phase no other one has."""
    qgraph, program = joined((4, 40), 1)
    last = [e for e in program.entries if e.layer == "pv" and not e.parts][-1]
    found = pairs(program)
    assert {phases for phases, _, _ in found} == {(0, 1), (1, 2), (2, 3)}
    assert last.wload.scale not in [of_v.scale for _, of_v, _ in found]
    # every word of the buffer is written, and once
    assert len(pack_static(qgraph, program)) == 64 * program.static_words * program.ranks
