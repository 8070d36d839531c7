"""The traced graph: equal to the U-Net, verified, saved, and refused where it must be."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import unets
from diffusers import UNet2DConditionModel

from gen.errors import UserError
from gen.graph import Graph, GraphError, Node, verify
from gen.ops import OPS
from gen.passes import PASSES, simplify
from gen.trace import Traced, trace_unet


def evaluate(graph: Graph, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The graph's output by the op table alone; checks every node's recorded type."""
    values: dict[str, torch.Tensor] = {}
    for node in graph.nodes:
        if node.op == "input":
            value = inputs[node.name]
        elif node.op == "parameter":
            value = graph.parameters[node.attrs["key"]]
        else:
            value = OPS[node.op].evaluate(node.attrs, [values[i] for i in node.inputs])
        assert tuple(value.shape) == node.shape, node
        assert str(value.dtype) == f"torch.{node.dtype}", node
        values[node.name] = value
    return values[graph.outputs[0]]


def inputs_of(case: unets.Case, timestep: float) -> dict[str, torch.Tensor]:
    given = {"sample": case.sample, "timestep": torch.tensor(timestep), **case.extra}
    return given if case.prompt is None else given | {"encoder_hidden_states": case.prompt}


@pytest.mark.parametrize("make", unets.ALL, ids=lambda make: make.__name__)
def test_graph_and_simplified_graph_compute_the_unet(make):
    case = make()
    expected = case.reference(433.0)
    with torch.no_grad():
        for graph in (case.traced.graph, simplify(case.traced.graph)):
            result = evaluate(graph, inputs_of(case, 433.0))
            torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_simplified_graph_has_no_identities_pads_or_gelus():
    for make in (unets.tiny, unets.ddpm_like):
        graph = simplify(make().traced.graph)
        ops = {node.op for node in graph.nodes}
        assert not ops & {"identity", "pad", "gelu", "arange", "exp"}
        for apply in PASSES:
            assert not apply(graph)[1], "a second round finds nothing to do"


def test_macs_equal_a_count_by_hooks():
    case = unets.tiny()
    counted = 0

    def hook(module, args, output):
        nonlocal counted
        counted += output.numel() * module.weight[0].numel()

    handles = [
        m.register_forward_hook(hook)
        for m in case.unet.modules()
        if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))
    ]
    case.reference(1.0)
    for handle in handles:
        handle.remove()
    for node in case.traced.graph.nodes:
        if node.op == "attention":
            batch, heads, pixels, width = node.shape
            tokens = pixels if node.path.endswith("attn1") else 5
            counted += 2 * batch * heads * pixels * tokens * width
    assert case.traced.graph.macs() == counted


def test_module_paths_come_with_the_nodes():
    paths = {node.path: node.op for node in unets.tiny().traced.graph.nodes}
    assert paths["down_blocks.0.resnets.0.conv1"] == "conv2d"
    assert paths["down_blocks.1.attentions.0.transformer_blocks.0.norm2"] == "layer_norm"


def test_trace_round_trip(tmp_path):
    traced = unets.tiny().traced
    traced.save(tmp_path)
    loaded = Traced.load(tmp_path)
    assert loaded.graph.nodes == traced.graph.nodes
    assert loaded.graph.outputs == traced.graph.outputs
    assert (loaded.batch, loaded.height, loaded.width, loaded.tokens) == (2, 8, 8, 5)
    assert loaded.graph.parameters.keys() == traced.graph.parameters.keys()
    for key, array in traced.graph.parameters.items():
        assert torch.equal(loaded.graph.parameters[key], array)


@pytest.mark.parametrize("name", ["trace.json", "trace.safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, name, keep):
    unets.tiny().traced.save(tmp_path)
    path = tmp_path / name
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(UserError, match="build it again"):
        Traced.load(tmp_path)


def test_tampered_and_missing_files_are_refused(tmp_path):
    unets.tiny().traced.save(tmp_path)
    path = tmp_path / "trace.json"
    data = json.loads(path.read_text())
    node = next(n for n in data["nodes"] if n["op"] == "conv2d")
    node["attrs"]["stride"] = [2, 2]
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match="damaged"):
        Traced.load(tmp_path)
    (tmp_path / "trace.safetensors").unlink()
    with pytest.raises(UserError, match="missing"):
        Traced.load(tmp_path)


def test_unsupported_op_is_named_with_its_module_path():
    unet = unets.random_unet(UNet2DConditionModel, unets.TINY)
    unet.down_blocks[0].resnets[0].nonlinearity = torch.nn.Mish()
    message = r"^down_blocks\.0\.resnets\.0\.nonlinearity: aten\.mish is not supported"
    with pytest.raises(UserError, match=message):
        trace_unet(unet, batch=1, height=8, width=8, tokens=5)


class Scaled(torch.nn.Module):
    def forward(self, x):
        return torch.add(x, x, alpha=2)


def test_unsupported_argument_is_named_with_its_module_path():
    unet = unets.random_unet(UNet2DConditionModel, unets.TINY)
    unet.mid_block.resnets[0].nonlinearity = Scaled()
    message = r"^mid_block\.resnets\.0\.nonlinearity: .* with alpha=2 is not supported"
    with pytest.raises(UserError, match=message):
        trace_unet(unet, batch=1, height=8, width=8, tokens=5)


class Counted(torch.nn.Module):
    def forward(self, x):
        return x * len(x.nonzero())


def test_shapes_that_depend_on_values_are_refused():
    unet = unets.random_unet(UNet2DConditionModel, unets.TINY)
    unet.mid_block.resnets[0].nonlinearity = Counted()
    with pytest.raises(UserError, match=r"^torch\.export cannot trace UNet2D.* 8x8") as refusal:
        trace_unet(unet, batch=1, height=8, width=8, tokens=5)
    assert "\n" not in str(refusal.value)


def test_bad_requests_are_refused():
    with pytest.raises(UserError, match="Linear is not supported"):
        trace_unet(torch.nn.Linear(2, 2), batch=1, height=8, width=8, tokens=5)
    unet = unets.tiny().unet
    with pytest.raises(UserError, match="multiples of 4"):
        trace_unet(unets.ddpm_like().unet, batch=1, height=9, width=8)
    with pytest.raises(UserError, match="prompt tokens"):
        trace_unet(unet, batch=1, height=8, width=8)


def test_tracing_needs_no_weights_and_leaves_the_mode_alone():
    with torch.device("meta"):
        unet = UNet2DConditionModel(**unets.TINY).train()
    traced = trace_unet(unet, batch=2, height=8, width=8, tokens=5)
    assert unet.training
    assert traced.graph.nodes == unets.tiny().traced.graph.nodes


def faulty(change) -> Graph:
    """The tiny U-Net's graph with one fault."""
    graph = unets.tiny().traced.graph
    nodes, parameters = list(graph.nodes), dict(graph.parameters)
    change(nodes, parameters)
    return Graph(nodes, graph.outputs, parameters)


def index_of(nodes: list[Node], op: str) -> int:
    return next(i for i, node in enumerate(nodes) if node.op == op)


def swap(nodes, parameters):
    i = index_of(nodes, "group_norm")
    nodes[i - 1], nodes[i] = nodes[i], nodes[i - 1]


def unknown(nodes, parameters):
    i = index_of(nodes, "silu")
    nodes[i] = replace(nodes[i], op="mish")


def misshapen(nodes, parameters):
    i = index_of(nodes, "conv2d")
    nodes[i] = replace(nodes[i], shape=(2, 16, 8, 9))


def mistyped(nodes, parameters):
    i = index_of(nodes, "conv2d")
    nodes[i] = replace(nodes[i], dtype="float16")


def starved(nodes, parameters):
    i = index_of(nodes, "attention")
    nodes[i] = replace(nodes[i], inputs=nodes[i].inputs[:2])


def twice(nodes, parameters):
    nodes.append(nodes[index_of(nodes, "conv2d")])


def dangling(nodes, parameters):
    i = index_of(nodes, "conv2d")
    nodes.append(replace(nodes[i], name="nobody"))


def without_array(nodes, parameters):
    del parameters["conv_in.weight"]


def other_array(nodes, parameters):
    parameters["conv_in.weight"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swap, "before it is computed"),
        (unknown, "mish .* is not in the op table"),
        (misshapen, "conv_in: .* should give"),
        (mistyped, "conv_in: .* should give"),
        (starved, "has 2 inputs"),
        (twice, "defined twice"),
        (dangling, "nobody is never used"),
        (without_array, "names no array"),
        (other_array, "in the array file"),
    ],
)
def test_verifier_catches_planted_faults(change, message):
    with pytest.raises(GraphError, match=message):
        verify(faulty(change))
