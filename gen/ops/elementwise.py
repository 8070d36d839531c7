"""Element by element: activations, arithmetic, casts."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from gen.ops.base import (
    Attr,
    Attrs,
    Op,
    OpError,
    Tensors,
    TensorType,
    Types,
    broadcast,
    dtype_name,
    torch_dtype,
)


def _same(attrs: Attrs, inputs: Types) -> TensorType:
    return inputs[0]


def _binary_infer(attrs: Attrs, inputs: Types) -> TensorType:
    x = inputs[0]
    if len(inputs) == 1:
        scalar = attrs["other"]
        dtype = torch.result_type(torch.empty((1,), dtype=torch_dtype(x.dtype)), scalar)
        return TensorType(x.shape, dtype_name(dtype))
    y = inputs[1]
    shape = broadcast(x.shape, y.shape)
    # a tensor without dimensions does not promote within its category
    one = torch.empty((1,) * min(len(x.shape), 1), dtype=torch_dtype(x.dtype))
    other = torch.empty((1,) * min(len(y.shape), 1), dtype=torch_dtype(y.dtype))
    return TensorType(shape, dtype_name(torch.result_type(one, other)))


def _division_infer(attrs: Attrs, inputs: Types) -> TensorType:
    result = _binary_infer(attrs, inputs)
    if not torch_dtype(result.dtype).is_floating_point:
        return TensorType(result.shape, "float32")
    return result


def _binary(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Callable[[Attrs, Tensors], torch.Tensor]:
    def evaluate(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
        return function(inputs[0], inputs[1] if len(inputs) > 1 else attrs["other"])

    return evaluate


def _unary(
    function: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[Attrs, Tensors], torch.Tensor]:
    def evaluate(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
        return function(inputs[0])

    return evaluate


def _gelu(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    return F.gelu(inputs[0], approximate=attrs["approximate"])


def _geglu_infer(attrs: Attrs, inputs: Types) -> TensorType:
    x = inputs[0]
    if x.shape[-1] % 2:
        raise OpError(f"{x.shape[-1]} channels have no halves")
    return TensorType((*x.shape[:-1], x.shape[-1] // 2), x.dtype)


def _geglu(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    value, gate = inputs[0].chunk(2, dim=-1)
    if not attrs["value_first"]:
        value, gate = gate, value
    return value * F.gelu(gate)


def _scale_shift_infer(attrs: Attrs, inputs: Types) -> TensorType:
    x, factors = inputs
    if factors.shape != (x.shape[0], 2 * x.shape[1]):
        raise OpError(f"{factors.shape} is no scale and shift for {x.shape}")
    return x


def _scale_shift(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    scale, shift = inputs[1][:, :, None, None].chunk(2, dim=1)
    return inputs[0] * (1 + scale) + shift


def _identity_infer(attrs: Attrs, inputs: Types) -> TensorType:
    if attrs.get("train"):
        raise OpError("dropout is switched on; call eval() first")
    return inputs[0]


def _cast_canonical(attrs: dict[str, Attr], inputs: Types, output: TensorType) -> dict[str, Attr]:
    return {"dtype": output.dtype}


def _cast_infer(attrs: Attrs, inputs: Types) -> TensorType:
    return TensorType(inputs[0].shape, attrs["dtype"])


def _cast(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    return inputs[0].to(torch_dtype(attrs["dtype"]))


ROWS = (
    Op("silu", (1, 1), _same, _unary(F.silu), "act", ("aten.silu.default", "aten.silu_.default")),
    Op("gelu", (1, 1), _same, _gelu, "act", ("aten.gelu.default",), ("approximate",)),
    # formed by gen.passes.form_scale_shift; Perez et al. 2018, "FiLM"
    Op("scale_shift", (2, 2), _scale_shift_infer, _scale_shift, "affine"),
    # formed by gen.passes.form_geglu; Shazeer 2020, "GLU variants improve transformer"
    Op("geglu", (1, 1), _geglu_infer, _geglu, "gate"),
    Op(
        "add",
        (1, 2),
        _binary_infer,
        _binary(torch.add),
        "add",
        ("aten.add.Tensor", "aten.add_.Tensor"),
        ("other",),
    ),
    Op("sub", (1, 2), _binary_infer, _binary(torch.sub), "host", ("aten.sub.Tensor",), ("other",)),
    Op("mul", (1, 2), _binary_infer, _binary(torch.mul), "host", ("aten.mul.Tensor",), ("other",)),
    Op(
        "div", (1, 2), _division_infer, _binary(torch.div), "host", ("aten.div.Tensor",), ("other",)
    ),
    Op("exp", (1, 1), _same, _unary(torch.exp), "host", ("aten.exp.default",)),
    Op("sin", (1, 1), _same, _unary(torch.sin), "host", ("aten.sin.default",)),
    Op("cos", (1, 1), _same, _unary(torch.cos), "host", ("aten.cos.default",)),
    Op(
        "identity",
        (1, 1),
        _identity_infer,
        _unary(lambda x: x),
        "view",
        (
            "aten.dropout.default",
            "aten.contiguous.default",
            "aten.clone.default",
            "aten.detach.default",
            "aten.alias.default",
            "aten.lift_fresh_copy.default",
        ),
        ("p", "train"),
    ),
    Op(
        "cast",
        (1, 1),
        _cast_infer,
        _cast,
        "host",
        ("aten.to.dtype", "aten.to.dtype_layout", "aten._to_copy.default"),
        ("dtype",),
        _cast_canonical,
    ),
)
