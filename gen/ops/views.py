"""Rearrangements: reshapes, permutations, slices, concatenation, padding, up-sampling."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F

from gen.ops.base import Attr, Attrs, Op, OpError, Tensors, TensorType, Types, broadcast


def _reshape_canonical(
    attrs: dict[str, Attr], inputs: Types, output: TensorType
) -> dict[str, Attr]:
    return {"shape": list(output.shape)}


def _reshape_infer(attrs: Attrs, inputs: Types) -> TensorType:
    if prod(attrs["shape"]) != inputs[0].size:
        raise OpError(f"{inputs[0].shape} viewed as {attrs['shape']}")
    return TensorType(tuple(attrs["shape"]), inputs[0].dtype)


def _reshape(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    return inputs[0].reshape(attrs["shape"])


def _permute_canonical(
    attrs: dict[str, Attr], inputs: Types, output: TensorType
) -> dict[str, Attr]:
    rank = len(inputs[0].shape)
    if "dims" in attrs:
        return {"dims": [d % rank for d in attrs["dims"]]}
    dims = list(range(rank))
    a, b = attrs.get("dim0", 0) % rank, attrs.get("dim1", rank - 1) % rank
    dims[a], dims[b] = dims[b], dims[a]
    return {"dims": dims}


def _permute_infer(attrs: Attrs, inputs: Types) -> TensorType:
    shape = inputs[0].shape
    if sorted(attrs["dims"]) != list(range(len(shape))):
        raise OpError(f"{attrs['dims']} is no permutation of the dimensions of {shape}")
    return TensorType(tuple(shape[d] for d in attrs["dims"]), inputs[0].dtype)


def _permute(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    return inputs[0].permute(attrs["dims"])


def _slice_canonical(attrs: dict[str, Attr], inputs: Types, output: TensorType) -> dict[str, Attr]:
    shape = inputs[0].shape
    dim = attrs["dim"] % len(shape)
    start, end, step = slice(attrs["start"], attrs["end"], attrs["step"]).indices(shape[dim])
    return {"dim": dim, "start": start, "end": end, "step": step}


def _slice_infer(attrs: Attrs, inputs: Types) -> TensorType:
    shape = list(inputs[0].shape)
    if not 0 <= attrs["start"] <= attrs["end"] <= shape[attrs["dim"]]:
        raise OpError(f"slice {attrs['start']}:{attrs['end']} of {shape}")
    shape[attrs["dim"]] = len(range(attrs["start"], attrs["end"], attrs["step"]))
    return TensorType(tuple(shape), inputs[0].dtype)


def _slice(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    index: list[slice] = [slice(None)] * inputs[0].dim()
    index[attrs["dim"]] = slice(attrs["start"], attrs["end"], attrs["step"])
    return inputs[0][tuple(index)]


def _expand_canonical(attrs: dict[str, Attr], inputs: Types, output: TensorType) -> dict[str, Attr]:
    return {"shape": list(output.shape)}


def _expand_infer(attrs: Attrs, inputs: Types) -> TensorType:
    shape = tuple(attrs["shape"])
    if broadcast(inputs[0].shape, shape) != shape:
        raise OpError(f"{inputs[0].shape} expanded to {shape}")
    return TensorType(shape, inputs[0].dtype)


def _expand(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    return inputs[0].expand(attrs["shape"])


def _cat_canonical(attrs: dict[str, Attr], inputs: Types, output: TensorType) -> dict[str, Attr]:
    return {"dim": attrs["dim"] % len(output.shape)}


def _cat_infer(attrs: Attrs, inputs: Types) -> TensorType:
    dim, first = attrs["dim"], inputs[0].shape
    for other in inputs[1:]:
        if len(other.shape) != len(first) or any(
            a != b for d, (a, b) in enumerate(zip(first, other.shape, strict=True)) if d != dim
        ):
            raise OpError(f"{first} and {other.shape} joined along dimension {dim}")
    shape = list(first)
    shape[dim] = sum(t.shape[dim] for t in inputs)
    return TensorType(tuple(shape), inputs[0].dtype)


def _cat(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    return torch.cat(list(inputs), dim=attrs["dim"])


def _pad_infer(attrs: Attrs, inputs: Types) -> TensorType:
    if attrs.get("mode", "constant") != "constant":
        raise OpError(f"padding of mode {attrs['mode']}")
    shape, pad = list(inputs[0].shape), attrs["pad"]
    for i in range(len(pad) // 2):
        shape[-1 - i] += pad[2 * i] + pad[2 * i + 1]
    return TensorType(tuple(shape), inputs[0].dtype)


def _pad(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    return F.pad(inputs[0], attrs["pad"], "constant", attrs["value"] or 0.0)


def _upsample_canonical(
    attrs: dict[str, Attr], inputs: Types, output: TensorType
) -> dict[str, Attr]:
    return {"size": list(output.shape[2:])}


def _upsample_infer(attrs: Attrs, inputs: Types) -> TensorType:
    return TensorType((*inputs[0].shape[:2], *attrs["size"]), inputs[0].dtype)


def _upsample(attrs: Attrs, inputs: Tensors) -> torch.Tensor:
    return F.interpolate(inputs[0], size=attrs["size"], mode="nearest")


ROWS = (
    Op(
        "reshape",
        (1, 1),
        _reshape_infer,
        _reshape,
        "view",
        (
            "aten.view.default",
            "aten.reshape.default",
            "aten._unsafe_view.default",
            "aten.unsqueeze.default",
            "aten.squeeze.dim",
            "aten.flatten.using_ints",
            "aten.unflatten.int",
        ),
        ("shape", "size", "dim", "start_dim", "end_dim", "sizes"),
        _reshape_canonical,
    ),
    Op(
        "permute",
        (1, 1),
        _permute_infer,
        _permute,
        "view",
        ("aten.permute.default", "aten.transpose.int", "aten.t.default"),
        ("dims", "dim0", "dim1"),
        _permute_canonical,
    ),
    Op(
        "slice",
        (1, 1),
        _slice_infer,
        _slice,
        "host",
        ("aten.slice.Tensor",),
        ("dim", "start", "end", "step"),
        _slice_canonical,
    ),
    Op(
        "expand",
        (1, 1),
        _expand_infer,
        _expand,
        "host",
        ("aten.expand.default",),
        ("size",),
        _expand_canonical,
    ),
    Op(
        "cat",
        (1, -1),
        _cat_infer,
        _cat,
        "concat",
        ("aten.cat.default", "aten.concat.default"),
        ("dim",),
        _cat_canonical,
    ),
    Op(
        "pad",
        (1, 1),
        _pad_infer,
        _pad,
        "window",
        ("aten.pad.default", "aten.constant_pad_nd.default"),
        ("pad", "mode", "value"),
    ),
    Op(
        "upsample_nearest",
        (1, 1),
        _upsample_infer,
        _upsample,
        "window",
        ("aten.upsample_nearest2d.vec", "aten.upsample_nearest2d.default"),
        ("output_size", "scale_factors", "scales_h", "scales_w"),
        _upsample_canonical,
    ),
)
