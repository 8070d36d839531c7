"""Matrix products: convolution, linear, attention."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F

from gen.ops.base import Attr, Attrs, Op, OpError, Tensors, TensorType, Types


def _pair(value: Attr) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _conv_canonical(attrs: dict[str, Attr], inputs: Types, output: TensorType) -> dict[str, Attr]:
    rows, columns = _pair(attrs["padding"])
    return {
        "stride": _pair(attrs["stride"]),
        "pad": [rows, columns, rows, columns],
        "dilation": _pair(attrs["dilation"]),
        "groups": attrs["groups"],
    }


def conv_output(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """Output pixels along one axis of a window that moves over ``size`` pixels."""
    return (size + before + after - kernel) // stride + 1


def _conv_infer(attrs: Attrs, inputs: Types) -> TensorType:
    x, weight = inputs[0], inputs[1]
    if len(x.shape) != 4 or len(weight.shape) != 4:
        raise OpError(f"convolution of {x.shape} with {weight.shape}")
    if x.shape[1] != weight.shape[1] * attrs["groups"]:
        raise OpError(f"{x.shape[1]} channels meet a weight for {weight.shape[1]}")
    top, left, bottom, right = attrs["pad"]
    kernel = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], attrs["dilation"], strict=True)]
    height = conv_output(x.shape[2], kernel[0], attrs["stride"][0], top, bottom)
    width = conv_output(x.shape[3], kernel[1], attrs["stride"][1], left, right)
    return TensorType((x.shape[0], weight.shape[0], height, width), x.dtype)


def _conv(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    top, left, bottom, right = attrs["pad"]
    x = inputs[0]
    padding = [top, left]
    if (top, left) != (bottom, right):
        x, padding = F.pad(x, (left, right, top, bottom)), [0, 0]
    bias = inputs[2] if len(inputs) > 2 else None
    return F.conv2d(
        x, inputs[1], bias, attrs["stride"], padding, attrs["dilation"], attrs["groups"]
    )


def _conv_macs(attrs: Attrs, inputs: Types, output: TensorType) -> int:
    return output.size * prod(inputs[1].shape[1:])


def _linear_infer(attrs: Attrs, inputs: Types) -> TensorType:
    x, weight = inputs[0], inputs[1]
    if len(weight.shape) != 2 or x.shape[-1] != weight.shape[1]:
        raise OpError(f"product of {x.shape} with {weight.shape}")
    return TensorType((*x.shape[:-1], weight.shape[0]), x.dtype)


def _linear(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    return F.linear(inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None)


def _linear_macs(attrs: Attrs, inputs: Types, output: TensorType) -> int:
    return output.size * inputs[1].shape[1]


def _attention_infer(attrs: Attrs, inputs: Types) -> TensorType:
    q, k, v = (t.shape for t in inputs[:3])
    if len(q) < 3 or q[:-2] != k[:-2] or q[-1] != k[-1] or k[:-1] != v[:-1]:
        raise OpError(f"attention of {q}, {k} and {v}")
    return TensorType((*q[:-1], v[-1]), inputs[0].dtype)


def _attention(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    mask = inputs[3] if len(inputs) > 3 else None
    q, k, v = inputs[:3]
    return F.scaled_dot_product_attention(
        q, k, v, mask, attrs["dropout_p"], attrs["is_causal"], scale=attrs["scale"]
    )


def _attention_macs(attrs: Attrs, inputs: Types, output: TensorType) -> int:
    q, k, v = (t.shape for t in inputs[:3])
    return prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


ROWS = (
    Op(
        "conv2d",
        (2, 3),
        _conv_infer,
        _conv,
        "product",
        ("aten.conv2d.default",),
        ("stride", "padding", "dilation", "groups"),
        _conv_canonical,
        _conv_macs,
    ),
    Op(
        "linear",
        (2, 3),
        _linear_infer,
        _linear,
        "product",
        ("aten.linear.default",),
        macs=_linear_macs,
    ),
    Op(
        "attention",
        (3, 4),
        _attention_infer,
        _attention,
        "product",
        ("aten.scaled_dot_product_attention.default",),
        ("dropout_p", "is_causal", "scale"),
        macs=_attention_macs,
    ),
)
