"""From graph to layer graph: fusion, roles, refusals."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from math import prod

import pytest
import torch
import unets
from diffusers import UNet2DConditionModel, UNet2DModel
from hypothesis import given, settings
from hypothesis import strategies as st

from gen.errors import UserError
from gen.floatrun import run_float
from gen.graph import Graph, Node, verify
from gen.layers import HostTensor, LayerGraph, Read, TensorInfo, Weight, Window
from gen.passes import lower, simplify
from gen.passes.form_layers import form_layers
from gen.passes.layout import Atom, Layout, LayoutError, image
from gen.passes.verify_layers import verify_layers
from gen.trace import trace_unet

# layouts


def indices(layout: Layout, sizes: dict[str, int]) -> list[int]:
    """Position in the [b, c, h, w] order of every element, in the layout's own order."""
    strides = {}
    step = 1
    for axis in reversed(sizes):
        strides[axis] = step
        step *= sizes[axis]
    result = [0]
    for atom in (atom for dim in layout.dims for atom in dim):
        jump = strides[atom.axis] * atom.stride
        result = [base + i * jump for base in result for i in range(atom.size)]
    return result


def factoring(rng: random.Random, total: int) -> list[int]:
    """A shape of ``total`` elements, at times with dimensions of 1."""
    shape = []
    while total > 1:
        factor = rng.choice([d for d in range(1, total + 1) if total % d == 0])
        shape.append(factor)
        total //= factor
    return shape or [1]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_layouts_follow_torch_through_views_and_permutations(seed):
    rng = random.Random(seed)
    sizes = {axis: rng.choice([1, 2, 3, 4]) for axis in "bchw"}
    tensor = torch.arange(prod(sizes.values())).reshape(*sizes.values())
    layout = image(*sizes.values())
    for _ in range(4):
        if rng.random() < 0.5:
            order = rng.sample(range(tensor.dim()), tensor.dim())
            tensor, layout = tensor.permute(order), layout.permuted(order)
        else:
            shape = factoring(rng, tensor.numel())
            try:
                layout = layout.reshaped(shape)
            except LayoutError:
                continue
            tensor = tensor.reshape(shape)
        assert indices(layout, sizes) == tensor.flatten().tolist()
        assert [prod(a.size for a in dim) for dim in layout.dims] == list(tensor.shape)


def test_layouts_are_equal_when_they_mean_the_same():
    there = image(2, 12, 4, 4).reshaped([2, 3, 4, 16]).permuted([0, 1, 3, 2])
    back = there.permuted([0, 1, 3, 2]).reshaped([2, 12, 4, 4])
    assert back == image(2, 12, 4, 4)
    assert there != image(2, 12, 4, 4).reshaped([2, 4, 3, 16]).permuted([0, 1, 3, 2])
    with pytest.raises(LayoutError, match="unevenly"):
        image(2, 12, 4, 4).reshaped([2, 5, 192])


# what layers look like


def test_a_resnet_becomes_three_layers():
    layers = unets.layers_of(unets.tiny().layers)
    path = "down_blocks.1.resnets.0"
    conv1, conv2 = layers[f"{path}.conv1"], layers[f"{path}.conv2"]
    shortcut = layers[f"{path}.conv_shortcut"]
    gamma, beta = f"{path}.norm1.weight", f"{path}.norm1.bias"
    assert conv1.read == Read("group", 8, 1e-5, gamma, beta, "silu")
    assert conv1.host_bias == f"{path}.time_emb_proj"
    assert conv1.window == Window((3, 3), 1, (1, 1, 1, 1))
    assert conv2.sources == (f"{path}.conv1",)
    assert (conv2.host_bias, conv2.residual) == (None, None)
    assert shortcut.read == Read()
    assert shortcut.residual == f"{path}.conv2"
    assert shortcut.weight == Weight("static", f"{path}.conv_shortcut.weight")


def test_a_skip_connection_is_two_sources():
    graph = unets.tiny().layers
    layer = unets.layers_of(graph)["up_blocks.1.resnets.1.conv1"]
    assert layer.sources == ("up_blocks.1.resnets.0.conv_shortcut", "conv_in")
    assert layer.read.groups == 8
    assert graph.arrays[layer.read.gamma].shape == (32,)


def test_attention_becomes_two_layers():
    graph = unets.tiny().layers
    layers = unets.layers_of(graph)
    path = "down_blocks.1.attentions.0.transformer_blocks.0"
    qk, pv = layers[f"{path}.attn1.qk"], layers[f"{path}.attn1.pv"]
    assert qk.sources == (f"{path}.attn1.to_q",)
    assert qk.weight == Weight("tensor", f"{path}.attn1.to_k", False)
    assert (qk.scale, qk.heads) == (0.25, 2)
    assert pv.read == Read("softmax")
    assert pv.weight == Weight("tensor", f"{path}.attn1.to_v", True)
    assert graph.tensors[qk.dest] == TensorInfo(qk.dest, 16, 4, 4, "scores")
    assert graph.tensors[pv.dest] == TensorInfo(pv.dest, 32, 4, 4, "operand", 2)
    for name in ("to_q", "to_k", "to_v"):
        info = graph.tensors[f"{path}.attn1.{name}"]
        assert (info.role, info.heads) == ("operand", 2)
    assert layers[f"{path}.attn2.qk"].weight == Weight("host", f"{path}.attn2.to_k", False)
    assert layers[f"{path}.attn2.pv"].weight == Weight("host", f"{path}.attn2.to_v", True)
    assert graph.tensors[f"{path}.attn2.qk"].channels == 5


def test_feed_forward_is_gated_and_residuals_follow_each_other():
    graph = unets.tiny().layers
    layers = unets.layers_of(graph)
    path = "down_blocks.1.attentions.0.transformer_blocks.0"
    gated = layers[f"{path}.ff.net.0.proj"]
    assert gated.gate == "geglu"
    assert gated.read.norm == "layer"
    assert graph.arrays[gated.weight.key].shape == (256, 32, 1, 1)
    assert graph.tensors[gated.dest] == TensorInfo(gated.dest, 128, 4, 4, "operand")
    assert layers[f"{path}.ff.net.2"].residual == f"{path}.attn2.to_out.0"
    assert layers[f"{path}.attn2.to_out.0"].residual == f"{path}.attn1.to_out.0"
    out = layers["down_blocks.1.attentions.0.proj_out"]
    assert out.residual == "down_blocks.1.resnets.0.conv_shortcut"


def test_up_and_down_sampling_are_windows():
    layers = unets.layers_of(unets.tiny().layers)
    assert layers["up_blocks.0.upsamplers.0.conv"].window == Window(
        (3, 3), 1, (1, 1, 1, 1), upsample=2
    )
    assert layers["down_blocks.0.downsamplers.0.conv"].window == Window((3, 3), 2, (1, 1, 1, 1))
    layers = unets.layers_of(unets.ddpm_like().layers)
    assert layers["down_blocks.0.downsamplers.0.conv"].window == Window((3, 3), 2, (0, 0, 1, 1))


def test_scale_and_shift_ride_on_the_norm():
    graph = unets.scale_shift().layers
    path = "mid_block.resnets.0"
    layer = unets.layers_of(graph)[f"{path}.conv2"]
    gamma, beta = f"{path}.norm2.weight", f"{path}.norm2.bias"
    time = f"{path}.time_emb_proj"
    assert layer.read == Read("group", 6, 1e-6, gamma, beta, "silu", time)
    assert (graph.host_tensors[time].shape, graph.host_tensors[time].when) == ((2, 96), "step")
    assert not any(each.host_bias for each in graph.layers)


def test_odd_sizes_crop_the_up_sampling():
    graph = unets.odd().layers
    layer = unets.layers_of(graph)["up_blocks.0.upsamplers.0.conv"]
    assert layer.window == Window((3, 3), 1, (1, 1, 1, 1), 2, (1, 1))
    source, dest = (graph.tensors[name] for name in (layer.sources[0], layer.dest))
    assert layer.window.seen(source.height, source.width) == (dest.height, dest.width) == (7, 9)


def test_roles():
    graph = unets.bundled().layers
    for name, info in graph.tensors.items():
        last = name.split(".")[-1]
        if name in (graph.input, graph.output) or last == "qk":
            continue
        operand = last in ("to_q", "to_k", "to_v", "pv") or name.endswith("net.0.proj")
        assert info.role == ("operand" if operand else "stream"), name
    assert graph.tensors["sample"].role == "input"
    assert graph.tensors["conv_out"].role == "output"
    # down-sampled, but a skip connection too
    assert graph.tensors["down_blocks.0.attentions.0.proj_out"].role == "stream"


def test_bundled_layer_count():
    kinds = Counter(layer.weight.kind for layer in unets.bundled().layers.layers)
    assert kinds == {"static": 106, "tensor": 14, "host": 14}


# small graphs by hand


class Sketch:
    """A card graph in the making; ``add`` infers nothing, so that shapes are the test's."""

    def __init__(self, channels: int = 4) -> None:
        self.nodes: list[Node] = []
        self.parameters: dict[str, torch.Tensor] = {}
        shape = [2, channels, 4, 4]
        self.add("sample", "input", [], tuple(shape), shape=shape, dtype="float32")

    def add(self, name, op, inputs, size, /, **attrs) -> str:
        self.nodes.append(
            Node(name, op, tuple(inputs), attrs, tuple(size), "float32", f"at.{name}")
        )
        return name

    def parameter(self, key: str, *shape: int) -> str:
        torch.manual_seed(len(self.nodes))
        self.parameters[key] = torch.randn(*shape)
        return self.add(key, "parameter", [], shape, shape=list(shape), dtype="float32", key=key)

    def conv(self, name: str, source: str, inside: int = 4, out: int = 4) -> str:
        weight = self.parameter(f"{name}.weight", out, inside, 1, 1)
        attrs = {"stride": [1, 1], "pad": [0, 0, 0, 0], "dilation": [1, 1], "groups": 1}
        return self.add(name, "conv2d", [source, weight], (2, out, 4, 4), **attrs)

    def graph(self, output: str) -> Graph:
        graph = Graph(self.nodes, (output,), self.parameters)
        graph = graph.pruned(graph.nodes)
        verify(graph)
        return graph

    def form(self, output: str) -> LayerGraph:
        layers = form_layers(self.graph(output), {})
        verify_layers(layers)
        return layers


IMAGE = (2, 4, 4, 4)


def test_the_later_of_two_layers_carries_the_sum():
    s = Sketch()
    first, second = s.conv("first", "sample"), s.conv("second", "sample")
    total = s.add("total", "add", [second, first], IMAGE)
    graph = s.form(s.conv("last", total))
    assert [layer.residual for layer in graph.layers] == [None, "at.first", None]
    assert graph.layers[2].sources == ("at.second",)
    assert graph.tensors["at.first"].role == graph.tensors["at.second"].role == "stream"


def test_a_gate_before_its_value_is_turned_round():
    s = Sketch()
    tokens = s.add("tokens", "reshape", [s.conv("first", "sample")], (2, 4, 16), shape=[2, 4, 16])
    turned = s.add("turned", "permute", [tokens], (2, 16, 4), dims=[0, 2, 1])
    weight, bias = s.parameter("wide.weight", 8, 4), s.parameter("wide.bias", 8)
    wide = s.add("wide", "linear", [turned, weight, bias], (2, 16, 8))
    half = {"dim": 2, "step": 1}
    gate = s.add("gate", "slice", [wide], (2, 16, 4), start=0, end=4, **half)
    value = s.add("value", "slice", [wide], (2, 16, 4), start=4, end=8, **half)
    act = s.add("act", "gelu", [gate], (2, 16, 4), approximate="none")
    both = s.add("both", "mul", [act, value], (2, 16, 4))
    weight = s.parameter("last.weight", 4, 4)
    last = s.add("last", "linear", [both, weight], (2, 16, 4))
    back = s.add("back", "permute", [last], (2, 4, 16), dims=[0, 2, 1])
    out = s.add("out", "reshape", [back], IMAGE, shape=list(IMAGE))
    graph = form_layers(simplify(s.graph(out)), {})
    verify_layers(graph)
    sample = torch.randn(IMAGE)
    p = s.parameters
    x = torch.nn.functional.conv2d(sample, p["first.weight"]).flatten(2).transpose(1, 2)
    wide_value = x @ p["wide.weight"].T + p["wide.bias"]
    y = torch.nn.functional.gelu(wide_value[..., :4]) * wide_value[..., 4:] @ p["last.weight"].T
    expected = y.transpose(1, 2).reshape(IMAGE)
    torch.testing.assert_close(run_float(graph, sample, {}), expected, rtol=1e-4, atol=1e-5)
    assert set(graph.arrays) == {
        "first.weight",
        "wide.weight.value_first",
        "wide.bias.value_first",
        "last.weight",
    }


@pytest.mark.parametrize(("approximate", "act"), [("none", "gelu"), ("tanh", "gelu_tanh")])
def test_a_plain_gelu_feed_forward(approximate, act):
    s = Sketch()
    first = s.conv("first", "sample", out=6)
    gelu = s.add("gelu", "gelu", [first], (2, 6, 4, 4), approximate=approximate)
    graph = s.form(s.conv("last", gelu, inside=6))
    assert graph.layers[1].read == Read(act=act)
    assert graph.tensors["at.first"].role == "stream"
    sample = torch.randn(IMAGE)
    hidden = torch.nn.functional.conv2d(sample, s.parameters["first.weight"])
    hidden = torch.nn.functional.gelu(hidden, approximate=approximate)
    expected = torch.nn.functional.conv2d(hidden, s.parameters["last.weight"])
    torch.testing.assert_close(run_float(graph, sample, {}), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(5, 5), (5, 4), (6, 7)])
def test_asymmetric_padding_with_stride_2_on_odd_sizes(size):
    s = Sketch()
    s.nodes[0] = replace(
        s.nodes[0], shape=(1, 4, *size), attrs={"shape": [1, 4, *size], "dtype": "float32"}
    )
    padded = s.add(
        "padded",
        "pad",
        ["sample"],
        (1, 4, size[0] + 1, size[1] + 1),
        pad=[0, 1, 0, 1],
        mode="constant",
        value=None,
    )
    weight = s.parameter("w", 4, 4, 3, 3)
    rows, columns = ((n - 2) // 2 + 1 for n in size)
    attrs = {"stride": [2, 2], "pad": [0, 0, 0, 0], "dilation": [1, 1], "groups": 1}
    down = s.add("down", "conv2d", [padded, weight], (1, 4, rows, columns), **attrs)
    graph = form_layers(simplify(s.graph(down)), {})
    verify_layers(graph)
    assert graph.layers[0].window == Window((3, 3), 2, (0, 0, 1, 1))
    sample = torch.randn(1, 4, *size)
    expected = torch.nn.functional.conv2d(
        torch.nn.functional.pad(sample, (0, 1, 0, 1)), s.parameters["w"], stride=2
    )
    torch.testing.assert_close(run_float(graph, sample, {}), expected, rtol=1e-4, atol=1e-5)


def scaled(s: Sketch, *, one: float = 1.0, swapped: bool = False) -> str:
    """norm * (one + scale) + shift, from a host value of both halves."""
    s.add("time", "host", [], (2, 8), shape=[2, 8], dtype="float32", tensor="at.time")
    spread = s.add("spread", "reshape", ["time"], (2, 8, 1, 1), shape=[2, 8, 1, 1])
    half = {"dim": 1, "step": 1}
    first = s.add("first", "slice", [spread], (2, 4, 1, 1), start=0, end=4, **half)
    second = s.add("second", "slice", [spread], (2, 4, 1, 1), start=4, end=8, **half)
    scale, shift = (second, first) if swapped else (first, second)
    factor = s.add("factor", "add", [scale], (2, 4, 1, 1), other=one)
    conv = s.conv("conv", "sample")
    norm = s.add("norm", "group_norm", [conv], IMAGE, num_groups=2, eps=1e-5)
    product = s.add("product", "mul", [factor, norm], IMAGE)
    total = s.add("total", "add", [shift, product], IMAGE)
    return s.conv("last", s.add("act", "silu", [total], IMAGE))


def test_scale_and_shift_in_any_order_of_operands():
    s = Sketch()
    graph = form_layers(
        simplify(s.graph(scaled(s))), {"at.time": HostTensor("at.time", (2, 8), "step")}
    )
    verify_layers(graph)
    assert graph.layers[1].read == Read("group", 2, 1e-5, None, None, "silu", "at.time")
    sample, time = torch.randn(IMAGE), torch.randn(2, 8)
    x = torch.nn.functional.conv2d(sample, s.parameters["conv.weight"])
    x = torch.nn.functional.group_norm(x, 2, eps=1e-5)
    x = x * (1 + time[:, :4, None, None]) + time[:, 4:, None, None]
    x = torch.nn.functional.silu(x)
    expected = torch.nn.functional.conv2d(x, s.parameters["last.weight"])
    result = run_float(graph, sample, {"at.time": time})
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fault", [{"one": 2.0}, {"swapped": True}])
def test_what_is_no_scale_and_shift_is_not_taken_for_one(fault):
    s = Sketch()
    graph = simplify(s.graph(scaled(s, **fault)))
    assert not any(node.op == "scale_shift" for node in graph.nodes)
    with pytest.raises(UserError, match=r"^at\..*: .* is not supported"):
        form_layers(graph, {})


def refused(s: Sketch, output: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        s.form(output)


def test_an_addition_to_a_tensor_that_is_used_elsewhere_is_refused():
    s = Sketch()
    first = s.conv("first", "sample")
    second = s.conv("second", first)
    third = s.conv("third", second)
    total = s.add("total", "add", [first, second], IMAGE)
    both = s.add("both", "cat", [third, total], (2, 8, 4, 4), dim=1)
    refused(s, s.conv("last", both, inside=8), r"^at\.total: this addition cannot ride on a layer")


def test_reading_a_summand_after_the_sum_is_refused():
    s = Sketch()
    first = s.conv("first", "sample")
    second = s.conv("second", first)
    total = s.add("total", "add", [first, second], IMAGE)
    third = s.conv("third", second)
    both = s.add("both", "cat", [third, total], (2, 8, 4, 4), dim=1)
    refused(s, s.conv("last", both, inside=8), r"^at\.third: reads at\.second as it was before")


def test_activations_and_norms_without_a_product_are_refused():
    s = Sketch()
    refused(s, s.add("act", "silu", [s.conv("first", "sample")], IMAGE), r"^at\.act: the output")
    s = Sketch()
    act = s.add("act", "silu", [s.conv("first", "sample")], IMAGE)
    total = s.add("total", "add", [s.conv("second", "sample"), act], IMAGE)
    refused(s, s.conv("last", total), r"^at\.total: an addition of values")
    s = Sketch()
    norm = s.add("norm", "group_norm", [s.conv("a", "sample")], IMAGE, num_groups=2, eps=1e-5)
    again = s.add("again", "group_norm", [norm], IMAGE, num_groups=2, eps=1e-5)
    refused(s, s.conv("last", again), r"^at\.again: a norm after another norm")


def test_other_structures_are_refused():
    s = Sketch()
    scaled = s.add("scaled", "mul", ["sample"], IMAGE, other=2.0)
    refused(s, s.conv("last", scaled), r"^at\.scaled: mul is not supported on the card")
    s = Sketch()
    turned = s.add("turned", "permute", [s.conv("first", "sample")], IMAGE, dims=[0, 1, 3, 2])
    refused(s, s.conv("last", turned), r"^at\.last: a convolution of something that is no image")
    s = Sketch()
    three = s.add("three", "cat", ["sample"] * 3, (2, 12, 4, 4), dim=1)
    refused(s, s.conv("last", three, inside=12), r"^at\.three: only two images")
    s = Sketch()
    up = s.add("up", "upsample_nearest", [s.conv("a", "sample")], (2, 4, 12, 12), size=[12, 12])
    weight = s.parameter("w", 4, 4, 1, 1)
    attrs = {"stride": [1, 1], "pad": [0, 0, 0, 0], "dilation": [1, 1], "groups": 1}
    last = s.add("last", "conv2d", [up, weight], (2, 4, 12, 12), **attrs)
    refused(s, last, r"^at\.up: up-sampling from 4x4 to 12x12")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"mid_block_scale_factor": 2.0}, r"^mid_block\.resnets\.0: div is not supported"),
        ({"center_input_sample": True}, "^the U-Net itself: mul is not supported on the card"),
    ],
)
def test_unsupported_unets_name_the_module(config, message):
    small = unets.DDPM_LIKE | {
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
        "block_out_channels": (32,),
    }
    unet = unets.random_unet(UNet2DModel, small | config)
    traced = trace_unet(unet, batch=1, height=8, width=8)
    with pytest.raises(UserError, match=message):
        lower(traced)


def test_layers_need_no_weights():
    with torch.device("meta"):
        unet = UNet2DConditionModel(**unets.TINY)
    graph, _ = lower(trace_unet(unet, batch=2, height=8, width=8, tokens=5))
    expected = unets.tiny().layers
    assert graph.layers == expected.layers
    assert graph.tensors == expected.tensors
    shapes = {key: array.shape for key, array in graph.arrays.items()}
    assert shapes == {key: array.shape for key, array in expected.arrays.items()}


def test_an_atom_of_one_is_left_out():
    assert Layout.of(Atom("b", 1), Atom("c", 4, 2)).dims == ((), (Atom("c", 4, 2),))
