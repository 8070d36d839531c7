"""Additions and GEGLU: what happens while a layer writes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gen.errors import UserError
from gen.graph import Node
from gen.layers import TensorInfo
from gen.passes.layout import Atom, Layout
from gen.passes.operands import Builder, HostValue, Operand


def addition(builder: Builder, node: Node) -> Operand:
    """A residual or a host bias, carried by the layer that computes the other summand."""
    if len(node.inputs) != 2:
        raise UserError(f"{node.where}: adding a constant on the card is not supported")
    if any(isinstance(builder.values.get(name), HostValue) for name in node.inputs):
        return _host_bias(builder, node)
    a, b = (builder.operand(name, node) for name in node.inputs)
    if a.layout != b.layout or not (a.plain and b.plain):
        raise UserError(f"{node.where}: an addition of values that are not stored alike")
    carrier, residual = sorted((a, b), key=lambda x: builder.writer(x.sources[0]), reverse=True)
    index = builder.writer(carrier.sources[0])
    if carrier.sources == residual.sources or not _open(builder, carrier):
        raise UserError(
            f"{node.where}: this addition cannot ride on a layer, because the later summand "
            f"({carrier.sources[0]}) is used elsewhere too"
        )
    if builder.layers[index].residual is not None:
        raise UserError(f"{node.where}: {carrier.sources[0]} carries an addition already")
    builder.touch(residual, node)
    layer = replace(builder.layers[index], residual=residual.sources[0])
    return builder.rewrite(carrier, index, layer)


def _open(builder: Builder, value: Operand) -> bool:
    """Whether the layer that stores ``value`` may still write something else instead."""
    (name,) = value.sources
    index = builder.writer(name)
    return (
        index >= 0
        and value.plain
        and builder.is_current(value)
        and not builder.is_read(name)
        and builder.layers[index].weight.kind == "static"
        and builder.layers[index].gate == "none"
    )


def _host_bias(builder: Builder, node: Node) -> Operand:
    values = [builder.values.get(name) for name in node.inputs]
    card = next((v for v in values if isinstance(v, Operand)), None)
    host = next(v for v in values if isinstance(v, HostValue))
    if card is None or not _open(builder, card):
        raise UserError(f"{node.where}: a host value is added to something that no layer stores")
    index = builder.writer(card.sources[0])
    layer = builder.layers[index]
    per_channel = tuple(_without_pixels(dim) for dim in card.layout.dims)
    if len(host.shape) != 2 or host.layout.dims != per_channel:
        raise UserError(f"{node.where}: a host value of {list(host.shape)} is no bias per channel")
    if layer.host_bias is not None:
        raise UserError(f"{node.where}: {layer.name} has a host bias already")
    return builder.rewrite(card, index, replace(layer, host_bias=host.name))


def _without_pixels(dim: tuple[Atom, ...]) -> tuple[Atom, ...]:
    return tuple(atom for atom in dim if atom.axis not in "hw")


def geglu(builder: Builder, node: Node) -> Operand:
    """GEGLU, value * gelu(gate), on the result of the layer that computes both halves."""
    x = builder.operand(node.inputs[0], node)
    if not (len(x.sources) == 1 and _open(builder, x)):
        raise UserError(f"{node.where}: a GEGLU of something that no layer stores")
    index = builder.writer(x.sources[0])
    layer = builder.layers[index]
    last = x.layout.dims[-1]
    if layer.residual or layer.host_bias or last != (Atom("c", x.channels),):
        raise UserError(f"{node.where}: a GEGLU over something else than a product's channels")
    out = x.channels // 2
    if not node.attrs["value_first"]:
        for key in (layer.weight.key, layer.bias):
            if key is not None:
                array = builder.arrays[key]
                swapped = f"{key}.value_first"
                builder.arrays[swapped] = _swap_halves(array)
        layer = replace(
            layer,
            weight=replace(layer.weight, key=f"{layer.weight.key}.value_first"),
            bias=None if layer.bias is None else f"{layer.bias}.value_first",
        )
    result = builder.rewrite(x, index, replace(layer, gate="geglu"))
    info = builder.tensors[layer.dest]
    builder.tensors[layer.dest] = TensorInfo(info.name, out, info.height, info.width, info.role)
    layout = Layout.of(*x.layout.dims[:-1], Atom("c", out))
    return replace(result, layout=layout, channels=out)


def _swap_halves(array: NDArray[np.float32]) -> NDArray[np.float32]:
    half = len(array) // 2
    return np.concatenate([array[half:], array[:half]])
