"""From the card's graph to the layer graph: one walk over the nodes.

Every node becomes a value (``gen.passes.operands``): a stored tensor and what is done to it on the
way to the next product. A product closes what it reads and opens a layer; additions, biases and
gates close on the layer that is still open.
"""

from __future__ import annotations

from collections.abc import Callable

from gen.errors import UserError
from gen.graph import Graph, Node
from gen.layers import HostTensor, LayerGraph, TensorInfo
from gen.ops import OPS
from gen.passes import products, reads, writes
from gen.passes.assign_roles import assign_roles
from gen.passes.layout import image
from gen.passes.operands import Builder, Operand, Value

Rule = Callable[[Builder, Node], Value]

BY_FUSION: dict[str, Rule] = {
    "norm": reads.norm,
    "act": reads.activation,
    "affine": reads.scale_shift,
    "window": reads.upsampling,
    "concat": reads.concatenation,
    "view": reads.view,
    "add": writes.addition,
    "gate": writes.geglu,
}
PRODUCTS: dict[str, Rule] = {
    "conv2d": products.convolution,
    "linear": products.linear,
    "attention": products.attention,
}


def form_layers(graph: Graph, host_tensors: dict[str, HostTensor]) -> LayerGraph:
    """The layer graph of a card graph (``gen.passes.split``).

    Raises UserError that names the module path of a structure that no layer can carry.
    """
    (latent,) = graph.inputs()
    batch, channels, height, width = latent.shape
    builder = Builder(graph, batch)
    for node in graph.nodes:
        if node.op == "input":
            info = TensorInfo(node.name, channels, height, width, "input")
            builder.values[node.name] = builder.store(info, image(*node.shape))
        elif node.op == "host":
            builder.values[node.name] = reads.host(builder, node)
        elif node.op != "parameter":
            builder.values[node.name] = _rule(node)(builder, node)
    (name,) = graph.outputs
    result = builder.operand(name, graph.by_name()[name])
    _check_output(builder, result, graph.by_name()[name])
    _drop_unread_arrays(builder)
    formed = LayerGraph(
        batch,
        latent.name,
        result.sources[0],
        builder.tensors,
        host_tensors,
        builder.layers,
        builder.arrays,
    )
    return assign_roles(formed)


def _rule(node: Node) -> Rule:
    rule = PRODUCTS.get(node.op) or BY_FUSION.get(OPS[node.op].fusion)
    if rule is None:
        where = node.path or "the U-Net itself"
        raise UserError(f"{where}: {node.op} is not supported on the card")
    return rule


def _check_output(builder: Builder, result: Operand, node: Node) -> None:
    if not result.plain:
        raise UserError(f"{node.where}: the output is not the result of a product")
    whole = image(builder.batch, result.channels, result.height, result.width)
    if result.layout != whole or builder.is_read(result.sources[0]):
        raise UserError(f"{node.where}: the output is not an image of its own")


def _drop_unread_arrays(builder: Builder) -> None:
    read: set[str | None] = set()
    for layer in builder.layers:
        read.update((layer.weight.key, layer.bias, layer.read.gamma, layer.read.beta))
    builder.arrays = {key: array for key, array in builder.arrays.items() if key in read}
