"""Norms, activations, concatenation, up-sampling and views: what happens while a layer reads."""

from __future__ import annotations

from dataclasses import replace

from gen.errors import UserError
from gen.graph import Node
from gen.layers import ActKind, Read
from gen.passes.layout import Atom, Layout, LayoutError, image
from gen.passes.operands import Builder, HostValue, Operand, Value

_ACTIVATIONS: dict[tuple[str, str | None], ActKind] = {
    ("silu", None): "silu",
    ("gelu", "none"): "gelu",
    ("gelu", "tanh"): "gelu_tanh",
}
# of an up-sampling by 2; larger factors are not cropped
_CROPS = ((0, 0), (0, 1), (1, 0), (1, 1))


def view(builder: Builder, node: Node) -> Value:
    """A reshape or permute: another name for the same bytes."""
    value = builder.values.get(node.inputs[0])
    if value is None:
        raise UserError(f"{node.where}: {node.op} of a parameter on the card is not supported")
    try:
        if node.op == "reshape":
            layout = value.layout.reshaped(node.attrs["shape"])
        elif node.op == "permute":
            layout = value.layout.permuted(node.attrs["dims"])
        else:
            layout = value.layout
    except LayoutError as error:
        raise UserError(f"{node.where}: {error}") from error
    return replace(value, layout=layout)


def norm(builder: Builder, node: Node) -> Operand:
    """Group norm over an image, or layer norm over the channels of each pixel."""
    x = builder.operand(node.inputs[0], node)
    if x.read != Read() or x.upsample != 1:
        raise UserError(f"{node.where}: a norm after another norm, activation or up-sampling")
    keys: list[str | None] = [None, None]
    for index, name in enumerate(node.inputs[1:3]):
        key, array = builder.parameter(name, node)
        keys[index] = builder.keep_array(key, array, (x.channels,))
    gamma, beta = keys
    eps = float(node.attrs["eps"])
    dims = x.layout.dims
    if node.op == "group_norm":
        whole = image(builder.batch, x.channels, x.height, x.width)
        if dims[:2] != whole.dims[:2] or x.layout.flat(2, len(dims)) != whole.flat(2, 4):
            raise UserError(f"{node.where}: a group norm over something that is no image")
        read = Read("group", int(node.attrs["num_groups"]), eps, gamma, beta)
        return replace(x, read=read)
    channels = (Atom("c", x.channels),)
    if dims[-1] != channels or list(node.attrs["normalized_shape"]) != [x.channels]:
        raise UserError(f"{node.where}: a layer norm over something else than channels")
    if len(x.sources) != 1:
        raise UserError(f"{node.where}: a layer norm of a concatenation is not supported")
    return replace(x, read=Read("layer", 0, eps, gamma, beta))


def activation(builder: Builder, node: Node) -> Operand:
    """SiLU or GELU, after a norm or alone."""
    x = builder.operand(node.inputs[0], node)
    if x.read.act != "none" or x.upsample != 1:
        raise UserError(f"{node.where}: an activation after another, or after up-sampling")
    act = _ACTIVATIONS[node.op, node.attrs.get("approximate")]
    return replace(x, read=replace(x.read, act=act))


def scale_shift(builder: Builder, node: Node) -> Operand:
    """A scale and a shift that the host gives per item and channel, after a norm."""
    x = builder.operand(node.inputs[0], node)
    factors = builder.values.get(node.inputs[1])
    if not isinstance(factors, HostValue):
        raise UserError(f"{node.where}: a scale and shift that depend on the latent")
    if x.read.norm == "none" or x.read.act != "none" or x.read.host_affine is not None:
        raise UserError(f"{node.where}: a scale and shift of something that is not just normalised")
    if factors.layout != Layout.of(Atom("b", builder.batch), Atom("c", 2 * x.channels)):
        raise UserError(f"{node.where}: {list(factors.shape)} is no scale and shift per channel")
    return replace(x, read=replace(x.read, host_affine=factors.name))


def concatenation(builder: Builder, node: Node) -> Operand:
    """Two images side by side in the channels: a skip connection."""
    parts = [builder.operand(name, node) for name in node.inputs]
    first = parts[0]
    channels = sum(part.channels for part in parts)
    if len(parts) != 2 or node.attrs["dim"] != 1:
        raise UserError(f"{node.where}: only two images can be joined, by channels")
    for part in parts:
        own = image(builder.batch, part.channels, first.height, first.width)
        if not part.plain or part.layout != own:
            raise UserError(f"{node.where}: a concatenation of values that are not stored images")
    return Operand(
        tuple(s for part in parts for s in part.sources),
        tuple(v for part in parts for v in part.versions),
        image(builder.batch, channels, first.height, first.width),
        channels,
        first.height,
        first.width,
    )


def upsampling(builder: Builder, node: Node) -> Operand:
    """Nearest-neighbour up-sampling by a power of two, less an odd size's last row or column."""
    if node.op != "upsample_nearest":
        raise UserError(f"{node.where}: padding that no convolution reads is not supported")
    x = builder.operand(node.inputs[0], node)
    if x.layout != image(builder.batch, x.channels, x.height, x.width):
        raise UserError(f"{node.where}: up-sampling of something that is no image")
    height, width = node.attrs["size"]
    if (height, width) == (x.height, x.width):
        return x
    factor = max(-(-height // x.height), -(-width // x.width))
    crop = (x.height * factor - height, x.width * factor - width)
    # torch takes source row i * h // H: from h rows to 2h - 1 that is i // 2, and a cropped
    # doubling; other sizes repeat rows unevenly
    if factor not in (2, 4, 8) or crop not in _CROPS[: 4 if factor == 2 else 1] or any(x.crop):
        raise UserError(
            f"{node.where}: up-sampling from {x.height}x{x.width} to {height}x{width} "
            f"is not supported; choose a latent whose height and width halve evenly"
        )
    return replace(
        x,
        layout=image(builder.batch, x.channels, height, width),
        height=height,
        width=width,
        upsample=x.upsample * factor,
        crop=crop,
    )


def host(builder: Builder, node: Node) -> HostValue:
    """A value of the host: [batch, out] or [batch, tokens, channels]."""
    letters = {2: "bc", 3: "btc"}.get(len(node.shape))
    if letters is None:
        raise UserError(f"{node.where}: the card cannot take a host value of {list(node.shape)}")
    layout = _host_layout(letters, node.shape)
    return HostValue(node.attrs["tensor"], node.shape, layout)


def _host_layout(letters: str, shape: tuple[int, ...]) -> Layout:
    return Layout.of(*(Atom(axis, size) for axis, size in zip(letters, shape, strict=True)))
