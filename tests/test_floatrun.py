"""The float layer graph equals the U-Net, shows its intermediate values, and notices faults."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
import unets

from gen.errors import UserError
from gen.floatrun import run_float
from gen.passes.verify_layers import verify_layers


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    return ((result - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("make", unets.ALL, ids=lambda make: make.__name__)
def test_layer_graph_equals_the_unet(make):
    case = make()
    for timestep in (1.0, 777.0):
        result = run_float(case.layers, case.sample, case.host_values(timestep))
        assert relative_error(result, case.reference(timestep)) < 2e-5


def observed(case: unets.Case) -> dict[tuple[str, str], torch.Tensor]:
    seen: dict[tuple[str, str], torch.Tensor] = {}

    def observe(kind, name, values):
        assert (kind, name) not in seen, "every value is shown once"
        seen[kind, name] = values.clone()

    run_float(case.layers, case.sample, case.host_values(50.0), observe)
    return seen


def test_every_stored_tensor_is_shown_in_its_own_shape():
    case = unets.tiny()
    seen = observed(case)
    heads = {layer.dest: layer.heads for layer in case.layers.layers}
    for name, info in case.layers.tensors.items():
        shape = (2, info.channels, info.height, info.width)
        if info.role == "scores":
            shape = (2, heads[name], info.pixels, info.channels)
        assert tuple(seen["tensor", name].shape) == shape


def test_shown_values_are_the_modules_own():
    case = unets.tiny()
    seen = observed(case)
    path = "down_blocks.1.resnets.0"
    modules = dict(case.unet.named_modules())
    values: dict[str, torch.Tensor] = {}
    for name in (f"{path}.norm2", f"{path}.conv2"):
        modules[name].register_forward_hook(
            lambda m, args, out, name=name: values.update({f"{name}.in": args[0], name: out})
        )
    case.reference(50.0)
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(seen["preact", f"{path}.conv2"], values[f"{path}.norm2"], **close)
    operand = seen["operand", f"{path}.conv2"]
    torch.testing.assert_close(operand, values[f"{path}.conv2.in"], **close)
    product = seen["product", f"{path}.conv2"]
    torch.testing.assert_close(product, values[f"{path}.conv2"], **close)
    normalised = seen["normalised", f"{path}.conv2"].reshape(2, 8, -1)
    torch.testing.assert_close(normalised.mean(-1), torch.zeros(2, 8), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalised.std(-1, False), torch.ones(2, 8), atol=1e-2, rtol=0)


def test_shown_attention_is_logits_and_unnormalised_weights():
    case = unets.tiny()
    seen = observed(case)
    path = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
    logits = seen["tensor", f"{path}.qk"]
    q = seen["tensor", f"{path}.to_q"].reshape(2, 2, 16, 16).transpose(2, 3)
    k = seen["tensor", f"{path}.to_k"].reshape(2, 2, 16, 16)
    torch.testing.assert_close(logits, q @ k / 4.0, rtol=1e-4, atol=1e-5)
    weights = seen["operand", f"{path}.pv"]
    assert torch.equal(weights.amax(-1), torch.ones(2, 2, 16))
    torch.testing.assert_close(
        weights / weights.sum(-1, keepdim=True), F.softmax(logits, -1), rtol=1e-4, atol=1e-6
    )


def test_shown_gate_makes_the_stored_value():
    seen = observed(unets.tiny())
    name = "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj"
    expected = seen["value", name] * F.gelu(seen["gate", name])
    assert torch.equal(seen["tensor", name], expected)


def test_a_wrong_residual_is_noticed():
    case = unets.tiny()
    graph = case.layers
    index, layer = next((i, x) for i, x in enumerate(graph.layers) if x.residual is not None)
    shape = graph.tensors[layer.residual]
    other = next(
        x.dest
        for x in graph.layers[:index]
        if x.dest != layer.residual and graph.tensors[x.dest] == replace(shape, name=x.dest)
    )
    layers = list(graph.layers)
    layers[index] = replace(layer, residual=other)
    wrong = replace(graph, layers=layers)
    verify_layers(wrong)  # well formed, yet
    result = run_float(wrong, case.sample, case.host_values(50.0))
    assert relative_error(result, case.reference(50.0)) > 1e-3


def test_bad_inputs_are_refused():
    case = unets.tiny()
    host = case.host_values(50.0)
    with pytest.raises(UserError, match=r"latent is \[1, 4, 8, 8\]"):
        run_float(case.layers, case.sample[:1], host)
    name = next(iter(host))
    with pytest.raises(UserError, match="is missing"):
        run_float(case.layers, case.sample, {k: v for k, v in host.items() if k != name})
    with pytest.raises(UserError, match="not"):
        run_float(case.layers, case.sample, host | {name: torch.zeros(1)})
