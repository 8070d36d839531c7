"""Every shipped architecture: narrowed, against torch; at full size, without weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import unets
from diffusers import UNet2DConditionModel, UNet2DModel

from gen.bench_models import OwnPeak
from gen.errors import UserError
from gen.floatrun import run_float
from gen.model import architectures
from gen.passes import lower
from gen.trace import trace_unet

# name -> layers on the card, multiply-accumulates of one image in units of 1e9
FULL = {
    "bk-sdm-tiny": (158, 242.75),
    "ddpm-celebahq-256": (132, 248.51),
    "ddpm-cifar10-32": (101, 6.22),
    "lcm-dreamshaper": (290, 401.64),
    "ldm-celebahq-256": (163, 101.20),
    "ldm-text2im-large-256": (290, 91.04),
    "sd15": (290, 401.64),
    "sd15-256": (290, 90.05),
    "sd21": (290, 402.13),
    "sdxl-base": (913, 3380.62),
    "small-sd": (168, 255.45),
}
# those that differ from another in sizes alone
ALIKE = ("sd15", "sd15-256", "ldm-text2im-large-256")


def named(names, slow=()):
    return [pytest.param(n, marks=pytest.mark.slow if n in slow else ()) for n in names]


def test_every_shipped_architecture_is_tested():
    assert sorted(FULL) == architectures()


def difference(case: unets.Case, timestep: float = 433.0) -> float:
    result = run_float(case.layers, case.sample, case.host_values(timestep))
    expected = case.reference(timestep)
    assert expected.abs().max() > 0.01
    return float((result - expected).abs().max())


@pytest.mark.parametrize("name", named(FULL, slow=(*ALIKE, "lcm-dreamshaper")))
def test_narrowed_architectures_equal_torch(name):
    case = unets.narrow(name)
    assert len(case.layers.layers) == FULL[name][0]
    assert difference(case) <= 1e-5
    if case.prompt is not None:
        # any number of tokens up to the traced one
        assert difference(replace(case, prompt=case.prompt[:, :4])) <= 1e-5


@pytest.mark.parametrize("name", named(FULL, slow=(*ALIKE, "sdxl-base", "lcm-dreamshaper", "sd21")))
def test_full_size_needs_no_memory_for_weights(name):
    with OwnPeak() as before:
        pass
    with OwnPeak() as during:
        traced = unets.on_meta(name)
        layers, host = lower(traced)
    assert round(traced.graph.macs() / traced.batch / 1e9, 2) == FULL[name][1]
    assert len(layers.layers) == FULL[name][0]
    assert {h.when for h in host.tensors().values()} <= {"step", "prompt"}
    # not the 10 GB of SDXL
    assert during.peak_bytes - before.peak_bytes < 1 << 30


def test_half_precision_weights_are_traced_as_float32():
    unet = unets.random_unet(UNet2DConditionModel, unets.TINY).half()
    traced = trace_unet(unet, batch=1, height=8, width=8, tokens=5)
    assert unet.dtype == torch.float16 and unet.conv_in.weight.dtype == torch.float16
    layers, _ = lower(traced)
    array = torch.from_numpy(layers.arrays["conv_in.weight"])
    assert torch.equal(array, unet.conv_in.weight.float())


def test_float32_weights_are_not_copied():
    case = unets.tiny()
    places = {p.data_ptr() for p in case.unet.parameters()}
    arrays = [a for k, a in case.layers.arrays.items() if not k.endswith(".value_first")]
    assert arrays and all(a.__array_interface__["data"][0] in places for a in arrays)


# structures that no shipped architecture has

LABELS = torch.tensor([1, 3])
WIDE, EMBEDDED = torch.randn(2, 20), torch.randn(2, 64)


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        ({"num_class_embeds": 10}, LABELS),
        ({"class_embed_type": "timestep"}, torch.tensor([5.0, 900.0])),
        ({"class_embed_type": "identity"}, EMBEDDED),
        ({"class_embed_type": "identity", "class_embeddings_concat": True}, EMBEDDED),
        (
            {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 20},
            WIDE,
        ),
        (
            {"class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": 20},
            WIDE,
        ),
    ],
    ids=lambda value: str(value.get("class_embed_type")) if isinstance(value, dict) else "",
)
def test_class_labels(config, labels):
    given = {"class_labels": labels}
    case = unets.case(UNet2DConditionModel, unets.TINY | config, 2, 4, 4, 3, given, given)
    assert difference(case) <= 1e-5


def test_guidance_embedding():
    given = {"timestep_cond": torch.randn(2, 6)}
    config = unets.TINY | {"time_cond_proj_dim": 6}
    case = unets.case(UNet2DConditionModel, config, 2, 4, 4, 3, given, given)
    assert difference(case) <= 1e-5


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"act_fn": "gelu"}, (8, 8)),
        ({"resnet_time_scale_shift": "scale_shift"}, (8, 4)),
        ({"downsample_padding": 0}, (8, 12)),
        ({"attention_head_dim": 32, "num_attention_heads": None}, (8, 8)),  # one pixel wide heads
        ({"attention_head_dim": 1}, (8, 8)),  # one head
        ({"block_out_channels": (15, 35), "norm_num_groups": 5, "attention_head_dim": 5}, (8, 8)),
        ({"encoder_hid_dim": 24, "encoder_hid_dim_type": "text_proj"}, (4, 4)),
        ({"conv_in_kernel": 5, "conv_out_kernel": 1, "in_channels": 9}, (4, 4)),
        ({"only_cross_attention": True, "mid_block_type": "UNetMidBlock2D"}, (4, 4)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_other_configurations_equal_torch(config, size):
    case = unets.case(UNet2DConditionModel, unets.TINY | config, 2, *size, 77)
    assert difference(case) <= 1e-5


@pytest.mark.parametrize("size", [(1, 1), (13, 6)])
def test_odd_latents_equal_torch(size):
    case = unets.case(UNet2DConditionModel, unets.SD15_LIKE, 1, *size, 2)
    assert difference(case) <= 1e-5


def test_learned_timesteps():
    config = unets.SCALE_SHIFT | {"time_embedding_type": "learned", "num_train_timesteps": 20}
    traced = trace_unet(unets.random_unet(UNet2DModel, config), batch=1, height=4, width=4)
    assert next(n for n in traced.graph.inputs() if n.name == "timestep").dtype == "int64"
    _, host = lower(traced)
    first, other = host.evaluate_step(3.0, 1), host.evaluate_step(4.0, 1)
    assert all(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"downsample_padding": 0}, r"^up_blocks\.0\.upsamplers\.0: .* from 4x4 to 9x9 is not"),
        ({"addition_embed_type": "text"}, "^addition_embed_type text is not supported"),
        ({"encoder_hid_dim_type": "image_proj", "encoder_hid_dim": 8}, "image_proj is not"),
        (
            {
                "down_block_types": ("DownBlock2D", "SimpleCrossAttnDownBlock2D"),
                "attention_head_dim": 8,
            },
            r"^down_blocks\.1\.attentions\.0: cat of .* is not supported",
        ),
        ({"resnet_out_scale_factor": 1.0, "act_fn": "mish"}, r"act: aten\.mish is not supported"),
    ],
)
def test_what_is_refused_names_module_and_op(config, message):
    unet = unets.random_unet(UNet2DConditionModel, unets.TINY | config)
    with pytest.raises(UserError, match=message) as refusal:
        lower(trace_unet(unet, batch=1, height=9, width=9, tokens=5))
    assert "\n" not in str(refusal.value)
