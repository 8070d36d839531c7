"""How the dimensions of a torch tensor lie over the axes of an image on the card.

The card stores every tensor pixel by pixel, so that [B, C, H, W], [B, H*W, C] and
[B, heads, H*W, head_dim] are three names for the same bytes. A layout keeps account of which name
is in use: every torch dimension is a product of atoms, each a piece of one axis.
Atoms of size 1 are left out; neighbouring pieces of one axis are merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class LayoutError(ValueError):
    """A view that is not just another name for the stored tensor."""


@dataclass(frozen=True)
class Atom:
    """``size`` steps of ``stride`` along ``axis`` (b, c, h, w, or t for prompt tokens)."""

    axis: str
    size: int
    stride: int = 1


Dim = tuple[Atom, ...]


@dataclass(frozen=True)
class Layout:
    """One entry per torch dimension, outermost first."""

    dims: tuple[Dim, ...]

    @staticmethod
    def of(*dims: Sequence[Atom] | Atom) -> Layout:
        """A layout in normal form: a dimension is one atom or several."""
        return Layout(tuple(_merged((d,) if isinstance(d, Atom) else d) for d in dims))

    def permuted(self, order: Sequence[int]) -> Layout:
        """After torch's ``permute``."""
        return Layout(tuple(self.dims[d] for d in order))

    def reshaped(self, shape: Sequence[int]) -> Layout:
        """After torch's ``reshape``. Raises LayoutError if a dimension would mix axes halfway."""
        rest = [atom for dim in self.dims for atom in dim]
        rest.reverse()
        dims: list[list[Atom]] = []
        for size in shape:
            dim: list[Atom] = []
            need = size
            while need > 1:
                atom = rest.pop()
                if need % atom.size == 0:
                    dim.append(atom)
                    need //= atom.size
                elif atom.size % need == 0:
                    inner = atom.size // need
                    dim.append(Atom(atom.axis, need, atom.stride * inner))
                    rest.append(Atom(atom.axis, inner, atom.stride))
                    need = 1
                else:
                    raise LayoutError(f"a view as {list(shape)} splits {atom.axis} unevenly")
            dims.append(dim)
        return Layout.of(*dims)

    def flat(self, first: int, last: int) -> Dim:
        """Atoms of dimensions ``first`` to ``last - 1`` as one dimension."""
        return _merged([atom for dim in self.dims[first:last] for atom in dim])


def _merged(atoms: Sequence[Atom]) -> Dim:
    merged: list[Atom] = []
    for atom in atoms:
        if atom.size == 1:
            continue
        if merged:
            last = merged[-1]
            if last.axis == atom.axis and last.stride == atom.stride * atom.size:
                merged[-1] = Atom(atom.axis, last.size * atom.size, atom.stride)
                continue
        merged.append(atom)
    return tuple(merged)


def image(batch: int, channels: int, height: int, width: int) -> Layout:
    """[B, C, H, W]."""
    return Layout.of(Atom("b", batch), Atom("c", channels), Atom("h", height), Atom("w", width))


def pixels(batch: int, height: int, width: int) -> Dim:
    """The dimension that runs over every pixel of the batch."""
    return _merged((Atom("b", batch), Atom("h", height), Atom("w", width)))


def by_head(batch: int, heads: int, head_dim: int, tokens: Sequence[Atom]) -> Layout:
    """[B, heads, tokens, head_dim]."""
    return Layout.of(Atom("b", batch), Atom("c", heads, head_dim), tokens, Atom("c", head_dim))
