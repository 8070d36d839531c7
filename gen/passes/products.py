"""Convolution, linear and attention nodes as layers."""

from __future__ import annotations

from gen.errors import UserError
from gen.graph import Node
from gen.layers import Layer, Read, TensorInfo, Weight, Window
from gen.passes.layout import Atom, Layout, by_head, image, pixels
from gen.passes.operands import Builder, HostValue, Operand


def convolution(builder: Builder, node: Node) -> Operand:
    """A conv2d over an image."""
    x = builder.touch(builder.operand(node.inputs[0], node), node)
    if x.layout != image(builder.batch, x.channels, x.height, x.width):
        raise UserError(f"{node.where}: a convolution of something that is no image")
    if node.attrs["groups"] != 1 or node.attrs["dilation"] != [1, 1]:
        raise UserError(f"{node.where}: grouped or dilated convolutions are not supported")
    stride, across = node.attrs["stride"]
    if stride != across:
        raise UserError(f"{node.where}: stride {stride}x{across} is not supported")
    key, weight = builder.parameter(node.inputs[1], node)
    top, left, bottom, right = node.attrs["pad"]
    height, width = weight.shape[2:]
    window = Window((height, width), stride, (top, left, bottom, right), x.upsample, x.crop)
    builder.keep_array(key, weight, tuple(weight.shape))
    _, out, rows, columns = node.shape
    tensor = TensorInfo(builder.unique(node), out, rows, columns, "operand")
    layout = image(*node.shape)
    return _append(builder, node, x, key, window, tensor, layout)


def linear(builder: Builder, node: Node) -> Operand:
    """A linear layer over the tokens or pixels of an image: a 1x1 convolution."""
    x = builder.touch(builder.operand(node.inputs[0], node), node)
    last = len(x.layout.dims) - 1
    tokens = pixels(builder.batch, x.height, x.width)
    channels = (Atom("c", x.channels),) if x.channels > 1 else ()
    if x.layout.flat(0, last) != tokens or x.layout.dims[last] != channels:
        raise UserError(f"{node.where}: a linear layer over something else than channels")
    key, weight = builder.parameter(node.inputs[1], node)
    out, inner = weight.shape
    builder.keep_array(key, weight, (out, inner, 1, 1))
    window = Window(upsample=x.upsample, crop=x.crop)
    tensor = TensorInfo(builder.unique(node), out, x.height, x.width, "operand")
    layout = Layout.of(*x.layout.dims[:last], Atom("c", out))
    return _append(builder, node, x, key, window, tensor, layout)


def _append(
    builder: Builder,
    node: Node,
    x: Operand,
    key: str,
    window: Window,
    tensor: TensorInfo,
    layout: Layout,
) -> Operand:
    bias = None
    if len(node.inputs) > 2:
        bias, array = builder.parameter(node.inputs[2], node)
        builder.keep_array(bias, array, tuple(array.shape))
    weight = Weight("static", key)
    builder.layers.append(Layer(tensor.name, x.sources, tensor.name, weight, x.read, window, bias))
    return builder.store(tensor, layout)


def attention(builder: Builder, node: Node) -> Operand:
    """Attention, softmax(q k^T * scale) v, as two layers, ``.qk`` and ``.pv``."""
    attrs = node.attrs
    if len(node.inputs) > 3 or attrs["dropout_p"] or attrs["is_causal"]:
        raise UserError(f"{node.where}: attention with a mask or dropout is not supported")
    if len(node.shape) != 4:
        raise UserError(f"{node.where}: attention needs [batch, heads, tokens, head_dim]")
    heads, head_dim = node.shape[1], node.shape[3]
    q = builder.touch(builder.operand(node.inputs[0], node), node)
    image_pixels = (Atom("h", q.height), Atom("w", q.width))
    key_dim = builder.nodes[node.inputs[0]].shape[3]
    if not q.plain or q.layout != by_head(builder.batch, heads, key_dim, image_pixels):
        raise UserError(f"{node.where}: queries are not the channels of an image, head by head")
    _set_heads(builder, q.sources[0], heads, node)
    k, tokens = _right_hand(builder, node, 1, heads, transposed=False)
    v, _ = _right_hand(builder, node, 2, heads, transposed=True)
    scale = key_dim**-0.5 if attrs["scale"] is None else float(attrs["scale"])
    scores = TensorInfo(builder.unique(node, ".qk"), tokens, q.height, q.width, "scores")
    builder.store(scores, Layout.of())
    builder.layers.append(Layer(scores.name, q.sources, scores.name, k, scale=scale, heads=heads))
    result = TensorInfo(
        builder.unique(node, ".pv"), heads * head_dim, q.height, q.width, "operand", heads
    )
    builder.layers.append(
        Layer(result.name, (scores.name,), result.name, v, Read("softmax"), heads=heads)
    )
    return builder.store(result, by_head(builder.batch, heads, head_dim, image_pixels))


def _right_hand(
    builder: Builder, node: Node, index: int, heads: int, *, transposed: bool
) -> tuple[Weight, int]:
    """Keys or values as a weight, and the number of tokens."""
    name = node.inputs[index]
    value = builder.values.get(name)
    _, _, tokens, head_dim = builder.nodes[name].shape
    what = "values" if transposed else "keys"
    if isinstance(value, HostValue):
        batch = value.shape[0]
        stored = by_head(batch, heads, head_dim, (Atom("t", tokens),))
        if len(value.shape) != 3 or value.layout != stored:
            raise UserError(f"{node.where}: {what} are not [batch, tokens, channels], head by head")
        return Weight("host", value.name, transposed), tokens
    held = builder.touch(builder.operand(name, node), node)
    image_pixels = (Atom("h", held.height), Atom("w", held.width))
    if not held.plain or held.layout != by_head(builder.batch, heads, head_dim, image_pixels):
        raise UserError(f"{node.where}: {what} are not the channels of an image, head by head")
    _set_heads(builder, held.sources[0], heads, node)
    return Weight("tensor", held.sources[0], transposed), tokens


def _set_heads(builder: Builder, tensor: str, heads: int, node: Node) -> None:
    info = builder.tensors[tensor]
    if info.heads not in (1, heads):
        raise UserError(f"{node.where}: {tensor} is read with {info.heads} and {heads} heads")
    builder.tensors[tensor] = TensorInfo(
        info.name, info.channels, info.height, info.width, info.role, heads
    )
