"""Whose words in the DDR buffers an entry takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gen.program.layout import HeadLoop
from gen.program.planned import Planned
from gen.program.schedule import Schedule, Work, head_period

# of joined products: heads, of those that begin at the same rank the first one, whose product with
# V and whose product with K share executions; NONE: there is none
Pair = tuple[int, int]
NONE = -1


@dataclass(frozen=True)
class Key:
    """Words of a layer for ``heads``; of joined products for those of a ``pair`` (layout of the
    static buffer: both products' words of a kind lie one behind the other).
    """

    layer: int
    heads: HeadLoop
    pair: Pair | None = None


@dataclass(frozen=True)
class Served:
    """Keys by entry: of its layer, of the product with K that shares its executions; and all of
    them in the order in which their words lie.
    """

    keys: list[Key]
    beside: dict[int, Key]
    ordered: list[Key]


def served_by(plan: Schedule, layers: Sequence[Planned]) -> Served:
    """Whose words every entry of ``plan`` takes.

    Heads that begin at the same rank take the same words. The first product with K and the last
    one with V have executions of their own; they take words of joined ones where there are some.
    """
    pairs: dict[int, list[Pair]] = {}  # by the layer of the product with V

    def of_keys(work: Work) -> int:
        """The product with K of an attention."""
        return work.layer - layers[work.layer].softmax

    def head(work: Work) -> int:
        period = head_period((layers[of_keys(work)], layers[of_keys(work) + 1]))
        return work.heads.first % period

    for work in plan.work:
        if work.beside is not None:
            found = pairs.setdefault(work.layer, [])
            pair = head(work), head(work.beside)
            if pair not in found:
                found.append(pair)

    def key(work: Work, pair: Pair) -> Key:
        return Key(work.layer, HeadLoop(head(work)), pair)

    def alone(work: Work) -> Key:
        made = layers[work.layer]
        if not made.joined:
            return Key(work.layer, work.heads)
        which = 0 if made.softmax else 1
        there = [pair for pair in pairs[of_keys(work) + 1] if pair[which] == head(work)]
        own = (head(work), NONE) if made.softmax else (NONE, head(work))
        return key(work, there[-1] if there else own)

    keys, beside = [], {}
    for index, work in enumerate(plan.work):
        if work.beside is None:
            keys.append(alone(work))
            continue
        pair = head(work), head(work.beside)
        keys.append(key(work, pair))
        beside[index] = key(work.beside, pair)

    def order(each: Key) -> tuple[int, Pair, int, int]:
        """From the last layer to the first; both products of a pair together, V before K; and of
        one layer by head.
        """
        if each.pair is None:
            return -each.layer, (NONE, NONE), 0, each.heads.first
        softmax = layers[each.layer].softmax
        return -(each.layer + 1 - softmax), each.pair, -each.layer, each.heads.first

    return Served(keys, beside, sorted({*keys, *beside.values()}, key=order))
