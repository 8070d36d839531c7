"""The verifier of layers catches planted faults."""

from __future__ import annotations

from dataclasses import replace

import pytest
import unets

from gen.graph import GraphError
from gen.layers import LayerGraph, Read, Window
from gen.passes.verify_layers import verify_layers


def mutated(change) -> LayerGraph:
    graph = unets.tiny().layers
    graph = replace(
        graph,
        layers=list(graph.layers),
        tensors=dict(graph.tensors),
        arrays=dict(graph.arrays),
        host_tensors=dict(graph.host_tensors),
    )
    change(graph)
    return graph


def changed(graph: LayerGraph, name: str, **fields) -> None:
    index = next(i for i, layer in enumerate(graph.layers) if layer.name == name)
    graph.layers[index] = replace(graph.layers[index], **fields)


RESNET = "down_blocks.1.resnets.0"
BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"


def wrong_order(g):
    index = next(i for i, layer in enumerate(g.layers) if layer.name == f"{RESNET}.conv2")
    g.layers[index - 1], g.layers[index] = g.layers[index], g.layers[index - 1]


def late_residual(g):
    changed(g, f"{RESNET}.conv_shortcut", residual="mid_block.resnets.0.conv1")


def self_residual(g):
    changed(g, f"{RESNET}.conv_shortcut", residual=f"{RESNET}.conv_shortcut")


def misshapen_residual(g):
    changed(g, f"{RESNET}.conv_shortcut", residual="conv_in")


def narrow_residual(g):
    info = g.tensors[f"{RESNET}.conv2"]
    g.tensors[info.name] = replace(info, role="operand")


def narrow_norm(g):
    g.tensors["conv_in"] = replace(g.tensors["conv_in"], role="operand")


def foreign_dest(g):
    changed(g, f"{RESNET}.conv2", dest="conv_in")


def missing_array(g):
    del g.arrays["conv_in.weight"]


def misshapen_array(g):
    g.arrays["conv_in.weight"] = g.arrays["conv_in.weight"][:, :3]


def wrong_window(g):
    changed(g, "conv_in", window=Window((3, 3), 1, (0, 1, 1, 1)))


def wrong_heads(g):
    info = g.tensors[f"{BLOCK}.attn1.to_k"]
    g.tensors[info.name] = replace(info, heads=1)


def wrong_tokens(g):
    name = f"{BLOCK}.attn2.to_v"
    g.host_tensors[name] = replace(g.host_tensors[name], shape=(2, 6, 32))


def prompt_as_bias(g):
    changed(g, f"{RESNET}.conv1", host_bias=f"{BLOCK}.attn2.to_k")


def affine_without_norm(g):
    time = f"{RESNET}.time_emb_proj"
    g.host_tensors[time] = replace(g.host_tensors[time], shape=(2, 8))
    changed(g, "conv_in", read=Read(host_affine=time))


def narrow_affine(g):
    read = unets.layers_of(g)[f"{RESNET}.conv2"].read
    changed(g, f"{RESNET}.conv2", read=replace(read, host_affine=f"{RESNET}.time_emb_proj"))


def missing_affine(g):
    read = unets.layers_of(g)[f"{RESNET}.conv2"].read
    changed(g, f"{RESNET}.conv2", read=replace(read, host_affine="nobody"))


def deep_crop(g):
    changed(g, "conv_in", window=Window((3, 3), 1, (1, 1, 2, 2), crop=(1, 1)))


def gated_residual(g):
    changed(g, f"{BLOCK}.attn1.qk", residual="conv_in")


def dangling(g):
    g.tensors["nobody"] = replace(g.tensors["conv_in"], name="nobody")


def no_output(g):
    g.layers.pop()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wrong_order, f"^{RESNET}.conv2 reads {RESNET}.conv1 before it is written"),
        (late_residual, f"^{RESNET}.conv_shortcut reads mid_block.* before it is written"),
        (self_residual, "before it is written"),
        (misshapen_residual, "plus a residual of"),
        (narrow_residual, "not streams"),
        (narrow_norm, "not a stream"),
        (foreign_dest, "not its own"),
        (missing_array, "does not exist"),
        (misshapen_array, "the weight is"),
        (wrong_window, "conv_in: .* computed"),
        (wrong_heads, "other heads"),
        (wrong_tokens, "by values"),
        (prompt_as_bias, "no bias per channel"),
        (gated_residual, "carries nothing"),
        (affine_without_norm, "not normalised"),
        (narrow_affine, "no scale and shift per channel"),
        (missing_affine, "does not exist"),
        (deep_crop, r"conv_in: cuts \(1, 1\) off an up-sampling by 1"),
        (dangling, "nobody is never read"),
        (no_output, "never written"),
    ],
)
def test_verifier_catches_planted_faults(change, message):
    with pytest.raises(GraphError, match=message):
        verify_layers(mutated(change))
