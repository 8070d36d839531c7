"""Values that come from nowhere: inputs, parameters, constants, table look-ups."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from gen.ops.base import Attr, Attrs, Op, OpError, Tensors, TensorType, Types, torch_dtype


def _declared(attrs: Attrs, inputs: Types) -> TensorType:
    return TensorType(tuple(attrs["shape"]), attrs["dtype"])


def _given(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    raise OpError("the value of an input or parameter is given, not computed")


def _filled_canonical(attrs: dict[str, Attr], inputs: Types, output: TensorType) -> dict[str, Attr]:
    return {"shape": list(output.shape), "dtype": output.dtype} | {
        key: attrs[key] for key in ("start", "end", "step", "fill_value") if key in attrs
    }


def _arange(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    start, step = attrs.get("start", 0), attrs.get("step", 1)
    return torch.arange(start, attrs["end"], step, dtype=torch_dtype(attrs["dtype"]))


def _ones(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    return torch.ones(attrs["shape"], dtype=torch_dtype(attrs["dtype"]))


def _zeros(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    return torch.zeros(attrs["shape"], dtype=torch_dtype(attrs["dtype"]))


def _embedding_infer(attrs: Attrs, inputs: Types) -> TensorType:
    table, index = inputs
    if len(table.shape) != 2:
        raise OpError(f"look-up in a table of shape {table.shape}")
    return TensorType((*index.shape, table.shape[1]), table.dtype)


def _embedding(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    return F.embedding(inputs[1], inputs[0])


ROWS = (
    Op("input", (0, 0), _declared, _given, "source"),
    Op("parameter", (0, 0), _declared, _given, "source"),
    # a value that the host computes, as the card's graph sees it
    Op("host", (0, 0), _declared, _given, "source"),
    Op(
        "arange",
        (0, 0),
        _declared,
        _arange,
        "host",
        ("aten.arange.default", "aten.arange.start", "aten.arange.start_step"),
        ("start", "end", "step", "dtype"),
        _filled_canonical,
    ),
    Op(
        "ones",
        (0, 0),
        _declared,
        _ones,
        "host",
        ("aten.ones.default",),
        ("size", "dtype"),
        _filled_canonical,
    ),
    Op(
        "zeros",
        (0, 0),
        _declared,
        _zeros,
        "host",
        ("aten.zeros.default",),
        ("size", "dtype"),
        _filled_canonical,
    ),
    Op(
        "embedding",
        (2, 2),
        _embedding_infer,
        _embedding,
        "host",
        ("aten.embedding.default",),
        ("padding_idx", "scale_grad_by_freq", "sparse"),
    ),
)
