"""The host's share equals what the U-Net's own modules compute."""

from __future__ import annotations

import json

import pytest
import torch
import unets
from diffusers import UNet2DModel

from gen.errors import UserError
from gen.hostgraph import HostGraph
from gen.passes import simplify
from gen.passes.split import split


def module_outputs(case: unets.Case, timestep: float, names: set[str]) -> dict[str, torch.Tensor]:
    """Outputs of the U-Net's modules, by path, in a run of the U-Net."""
    seen: dict[str, torch.Tensor] = {}

    def hook(name):
        return lambda module, args, output: seen.__setitem__(name, output)

    modules = dict(case.unet.named_modules())
    handles = [modules[name].register_forward_hook(hook(name)) for name in names]
    case.reference(timestep)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("make", unets.ALL, ids=lambda make: make.__name__)
def test_host_values_equal_the_modules_own(make):
    case = make()
    for timestep in (0.0, 999.0):
        values = case.host_values(timestep)
        assert values.keys() == case.host.tensors().keys()
        expected = module_outputs(case, timestep, set(values))
        for name, tensor in case.host.tensors().items():
            assert tuple(values[name].shape) == tensor.shape
            torch.testing.assert_close(values[name], expected[name], rtol=1e-5, atol=1e-5)


def test_what_the_host_hands_over():
    tensors = unets.tiny().host.tensors()
    assert tensors["down_blocks.0.resnets.0.time_emb_proj"].when == "step"
    assert tensors["down_blocks.0.resnets.0.time_emb_proj"].shape == (2, 16)
    keys = "up_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k"
    assert tensors[keys].when == "prompt"
    assert tensors[keys].shape == (2, 5, 32)
    kinds = {name.rpartition(".")[2] for name in tensors}
    assert kinds == {"time_emb_proj", "to_k", "to_v"}


def test_card_graph_depends_on_the_latent_alone():
    card, host = split(simplify(unets.tiny().traced.graph))
    assert [node.name for node in card.inputs()] == ["sample"]
    assert "sample" not in {node.name for node in host.graph.inputs()}
    assert not {node.op for node in host.graph.nodes} & {"conv2d", "attention", "group_norm"}


def test_steps_are_cached_and_cheap_to_repeat():
    case = unets.bundled()
    first = case.host.evaluate_step(17, 2)
    assert case.host.evaluate_step(17, 2) is first
    other = case.host.evaluate_step(18, 2)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_step_serves_another_batch():
    host = unets.tiny().host
    two, three = host.evaluate_step(5, 2), host.evaluate_step(5, 3)
    for name, value in two.items():
        assert three[name].shape == (3, value.shape[1])
        assert torch.equal(three[name], value[:1].expand(3, -1))


@pytest.mark.slow
def test_extra_inputs_are_part_of_the_cache_key():
    case = unets.sdxl_like()
    first = case.host.evaluate_step(5, 2, case.extra)
    changed = {name: value + 1 for name, value in case.extra.items()}
    second = case.host.evaluate_step(5, 2, changed)
    assert all(not torch.equal(first[name], second[name]) for name in first)


def test_class_labels_reach_the_host_graph():
    config = unets.DDPM_LIKE | {
        "num_class_embeds": 10,
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
        "block_out_channels": (32,),
    }
    labels = torch.tensor([3, 7])
    extra = {"class_labels": labels}
    case = unets.case(UNet2DModel, config, 2, 8, 8, 0, extra, {"class_labels": labels})
    assert case.host.extra_inputs() == {"class_labels": ((), "int64")}
    assert not unets.tiny().host.extra_inputs()
    values = case.host.evaluate_step(40, 2, extra)
    expected = module_outputs(case, 40.0, set(values))
    for name, value in values.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)
        assert not torch.equal(value[0], value[1])
    with pytest.raises(UserError, match="needs class_labels"):
        case.host.evaluate_step(40, 2)
    with pytest.raises(UserError, match="batch of 2, not 3"):
        case.host.evaluate_step(40, 3, extra)


def test_missing_and_misshapen_inputs_are_refused():
    case = unets.tiny()
    with pytest.raises(UserError, match="needs encoder_hidden_states"):
        case.host.evaluate_prompt(None)
    with pytest.raises(UserError, match="has shape"):
        case.host.evaluate_prompt(torch.zeros(2, 9, 24))


def test_short_prompts():
    """Keys and values are those of the same tokens at the beginning of a longer prompt."""
    case = unets.tiny()
    assert case.host.prompt_shape == (5, 24)
    whole = case.host.evaluate_prompt(case.prompt)
    for tokens in range(1, 6):
        short = case.host.evaluate_prompt(case.prompt[:, :tokens])
        for name, value in short.items():
            assert torch.equal(value, whole[name][:, :tokens])


def test_host_graph_round_trip(tmp_path):
    case = unets.tiny()
    case.host.save(tmp_path)
    loaded = HostGraph.load(tmp_path)
    assert loaded.outputs == case.host.outputs
    expected, result = case.host_values(250.0), loaded.evaluate_step(250.0, 2)
    result |= loaded.evaluate_prompt(case.prompt)
    for name, value in expected.items():
        assert torch.equal(result[name], value)


def test_damaged_host_graphs_are_refused(tmp_path):
    host = unets.tiny().host
    for name in ("host.json", "host.safetensors"):
        host.save(tmp_path)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(UserError, match="build it again"):
            HostGraph.load(tmp_path)
    host.save(tmp_path)
    data = json.loads((tmp_path / "host.json").read_text())
    data["extra"]["outputs"][0].pop("when")
    (tmp_path / "host.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match="build it again"):
        HostGraph.load(tmp_path)
