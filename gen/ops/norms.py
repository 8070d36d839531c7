"""Normalisations."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from gen.ops.base import Attrs, Op, OpError, Tensors, TensorType, Types


def _group_infer(attrs: Attrs, inputs: Types) -> TensorType:
    x = inputs[0]
    if x.shape[1] % attrs["num_groups"]:
        raise OpError(f"{x.shape[1]} channels in {attrs['num_groups']} groups")
    for parameter in inputs[1:]:
        if parameter.shape != (x.shape[1],):
            raise OpError(f"{x.shape[1]} channels meet a parameter of shape {parameter.shape}")
    return x


def _group(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    weight, bias = (*inputs[1:], None, None)[:2]
    return F.group_norm(inputs[0], attrs["num_groups"], weight, bias, attrs["eps"])


def _layer_infer(attrs: Attrs, inputs: Types) -> TensorType:
    x, shape = inputs[0], tuple(attrs["normalized_shape"])
    if x.shape[len(x.shape) - len(shape) :] != shape:
        raise OpError(f"layer norm over {shape} of {x.shape}")
    for parameter in inputs[1:]:
        if parameter.shape != shape:
            raise OpError(f"layer norm over {shape} meets a parameter of shape {parameter.shape}")
    return x


def _layer(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    weight, bias = (*inputs[1:], None, None)[:2]
    return F.layer_norm(inputs[0], attrs["normalized_shape"], weight, bias, attrs["eps"])


ROWS = (
    Op(
        "group_norm",
        (1, 3),
        _group_infer,
        _group,
        "norm",
        ("aten.group_norm.default",),
        ("num_groups", "eps"),
    ),
    Op(
        "layer_norm",
        (1, 3),
        _layer_infer,
        _layer,
        "norm",
        ("aten.layer_norm.default",),
        ("normalized_shape", "eps"),
    ),
)
