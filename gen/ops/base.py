"""What one row of the op table says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch

Attr = Any  # int, float, str, bool, None or a list of int: whatever JSON holds
Attrs = Mapping[str, Attr]


@dataclass(frozen=True)
class TensorType:
    """Shape and dtype (torch's name without the prefix: "float32") of a value."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


Types = Sequence[TensorType]
Tensors = Sequence[torch.Tensor]

# What an op becomes when it works on values of the card:
#   product   a layer of its own (attention: two)
#   norm act affine  transforms values while a layer reads them
#   window    changes the geometry of the window of the layer that reads
#   concat    two sources of the layer that reads
#   add gate  transforms values while a layer writes them
#   view      only a matter of addressing
#   source    an input, parameter or host value
#   host      cannot run on the card
Fusion = Literal[
    "product", "norm", "act", "affine", "window", "concat", "add", "gate", "view", "source", "host"
]


class OpError(ValueError):
    """An op's inputs or attributes do not fit together."""


def no_macs(attrs: Attrs, inputs: Types, output: TensorType) -> int:
    """Multiply-accumulates of an op that has none."""
    return 0


def keep(attrs: dict[str, Attr], inputs: Types, output: TensorType) -> dict[str, Attr]:
    """Attributes as they come from ATen."""
    return attrs


@dataclass(frozen=True)
class Op:
    """One row of the op table.

    ``aten`` lists the ATen overloads that the op stands for, ``attrs`` the names of their
    arguments that matter (all others must have their default value, see ``IGNORED`` in
    ``gen.trace``), ``canonical`` turns those arguments into the op's own attributes.
    ``arity`` is the least and greatest number of tensor inputs (-1: any).
    """

    name: str
    arity: tuple[int, int]
    infer: Callable[[Attrs, Types], TensorType]
    evaluate: Callable[[Attrs, Tensors], torch.Tensor]
    fusion: Fusion = "host"
    aten: tuple[str, ...] = ()
    attrs: tuple[str, ...] = ()
    canonical: Callable[[dict[str, Attr], Types, TensorType], dict[str, Attr]] = keep
    macs: Callable[[Attrs, Types, TensorType], int] = no_macs


def torch_dtype(name: str) -> torch.dtype:
    """torch.float32 for "float32"."""
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise OpError(f"{name} is not a dtype")
    return dtype


def dtype_name(dtype: torch.dtype) -> str:
    """The name that ``torch_dtype`` turns back."""
    return str(dtype).removeprefix("torch.")


def broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the result of an op on shapes ``a`` and ``b``. Raises OpError if there is none."""
    rank = max(len(a), len(b))
    shape = []
    for x, y in zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True):
        if x != y and 1 not in (x, y):
            raise OpError(f"shapes {a} and {b} do not broadcast")
        shape.append(y if x == 1 else x)
    return tuple(shape)
