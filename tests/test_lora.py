"""LoRA files of every layout, fused: equal to weights changed by hand, refused where unusable."""

from __future__ import annotations

import json

import pytest
import torch
import unets
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import save_file

from gen.errors import UserError
from gen.lora import FILE_NAME, Lora, fuse_loras
from gen.lora_keys import module_names, parse_key
from gen.model import find_model, load_unet

ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
QUERY, OUT = f"{ATTENTION}.to_q", f"{ATTENTION}.to_out.0"
CONV = "down_blocks.1.resnets.0.conv1"
RANK = 3


def pair(unet, module, seed=0):
    """(down, up) of a linear layer or a convolution."""
    generator = torch.Generator().manual_seed(seed)
    shape = unet.get_submodule(module).weight.shape
    down = torch.randn(RANK, *shape[1:], generator=generator)
    up = torch.randn(shape[0], RANK, *(1,) * (len(shape) - 2), generator=generator)
    return down, up


def delta(down, up):
    """Up after down, by the operators that the matrices stand for."""
    if down.dim() == 2:
        return up @ down
    return torch.nn.functional.conv2d(down.transpose(0, 1), up).transpose(0, 1)


@pytest.fixture
def unet():
    return unets.random_unet(UNet2DConditionModel, unets.TINY)


def fused(unet, path, scale=1.0):
    """Differences of all weights that fusing made."""
    before = {name: p.detach().clone() for name, p in unet.named_parameters()}
    count = fuse_loras(unet, [Lora(path, scale)], "unet")
    changes = {n: p.detach() - before[n] for n, p in unet.named_parameters()}
    changes = {n.removesuffix(".weight"): d for n, d in changes.items() if d.any()}
    assert len(changes) == count
    return changes


LAYOUTS = {
    "peft": ("unet.{}.lora_A.weight", "unet.{}.lora_B.weight"),
    "peft, bare": ("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight"),
    "diffusers": ("unet.{}.lora.down.weight", "unet.{}.lora.up.weight"),
    "kohya": ("lora_unet_{}.lora_down.weight", "lora_unet_{}.lora_up.weight"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(unet, tmp_path, layout):
    tensors, expected = {}, {}
    for seed, module in enumerate((QUERY, OUT, CONV, "conv_in", "time_embedding.linear_1")):
        down, up = pair(unet, module, seed)
        name = module.replace(".", "_") if layout == "kohya" else module
        tensors |= dict(zip((n.format(name) for n in LAYOUTS[layout]), (down, up), strict=True))
        expected[module] = delta(down, up)
    save_file(tensors, tmp_path / "a.safetensors")
    changes = fused(unet, tmp_path / "a.safetensors", 0.5)
    assert changes.keys() == expected.keys()
    for module, change in changes.items():
        torch.testing.assert_close(change, 0.5 * expected[module], rtol=1e-4, atol=1e-5)


def test_attention_processors_of_older_diffusers(unet, tmp_path):
    tensors = {}
    for module, name in ((QUERY, "to_q_lora"), (OUT, "to_out_lora")):
        down, up = pair(unet, module)
        tensors[f"unet.{ATTENTION}.processor.{name}.down.weight"] = down
        tensors[f"unet.{ATTENTION}.processor.{name}.up.weight"] = up
    save_file(tensors, tmp_path / "a.safetensors")
    assert fused(unet, tmp_path / "a.safetensors").keys() == {QUERY, OUT}


def test_alpha(unet, tmp_path):
    down, up = pair(unet, QUERY)
    key = "lora_unet_" + QUERY.replace(".", "_")
    tensors = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
    save_file(tensors | {f"{key}.alpha": torch.tensor(1.5)}, tmp_path / "a.safetensors")
    changes = fused(unet, tmp_path / "a.safetensors")
    torch.testing.assert_close(changes[QUERY], 0.5 * delta(down, up), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("metadata", "factor"),
    [
        ({"unet.lora_alpha": 6}, 2.0),
        ({"unet.lora_alpha": 6, "unet.alpha_pattern": {"attn1.to_q": 12}}, 4.0),
        ({"unet.lora_alpha": 6, "unet.alpha_pattern": {"attn2.to_q": 12}}, 2.0),
        ({"unet.lora_alpha": 3, "unet.use_rslora": True}, 3**0.5),
        ({"text_encoder.lora_alpha": 6}, 1.0),
    ],
)
def test_metadata_of_peft(unet, tmp_path, metadata, factor):
    down, up = pair(unet, QUERY)
    tensors = {f"unet.{QUERY}.lora_A.weight": down, f"unet.{QUERY}.lora_B.weight": up}
    text = {"lora_adapter_metadata": json.dumps(metadata)}
    save_file(tensors, tmp_path / "a.safetensors", text)
    changes = fused(unet, tmp_path / "a.safetensors")
    torch.testing.assert_close(changes[QUERY], factor * delta(down, up), rtol=1e-4, atol=1e-5)


def test_other_components_are_left_to_them(tmp_path):
    text_encoder = torch.nn.ModuleDict({"text_model": torch.nn.ModuleDict()})
    text_encoder["text_model"]["q_proj"] = torch.nn.Linear(4, 4)
    tensors = {
        "lora_te_text_model_q_proj.lora_down.weight": torch.ones(1, 4),
        "lora_te_text_model_q_proj.lora_up.weight": torch.ones(4, 1),
        "lora_te2_text_model_q_proj.lora_down.weight": torch.ones(1, 4),
        "lora_te2_text_model_q_proj.lora_up.weight": torch.ones(4, 1),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    lora = Lora(tmp_path / "a.safetensors", 2.0)
    before = text_encoder["text_model"]["q_proj"].weight.detach().clone()
    assert fuse_loras(text_encoder, [lora], "text_encoder") == 1
    change = text_encoder["text_model"]["q_proj"].weight.detach() - before
    torch.testing.assert_close(change, torch.full((4, 4), 2.0))
    with pytest.raises(UserError, match="holds nothing for a U-Net"):
        find_model("sd15", [str(lora.path)])


def test_original_block_numbers_are_those_of_diffusers_loader():
    """diffusers' own conversion, which is written differently, gives the same modules."""
    config = unets.TINY | {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (16, 32, 32),
        "layers_per_block": 2,
        "attention_head_dim": 2,
    }
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    modules = {
        name: module
        for name, module in unet.named_modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))
    }
    blocks = ("input_blocks", "middle_block", "output_blocks", "out_", "time_embed_")
    originals = {
        alias: name
        for alias, name in module_names("unet", modules).items()
        if alias.startswith(blocks) and "." not in alias
    }
    assert sorted(originals.values()) == sorted(modules)
    tensors = {}
    for number, alias in enumerate(originals):
        for side in ("down", "up"):
            tensors[f"lora_unet_{alias}.lora_{side}.weight"] = torch.tensor(number)
    converted, _ = StableDiffusionXLPipeline.lora_state_dict(tensors, unet_config=unet.config)
    theirs = {int(n): parse_key(key).module for key, n in converted.items() if ".down." in key}
    assert theirs == dict(enumerate(originals.values()))


def test_a_build_takes_several(tmp_path):
    unet = unets.random_unet(UNet2DConditionModel, unets.TINY)
    unet.save_pretrained(tmp_path / "model")
    texts = []
    expected = unet.get_submodule(QUERY).weight.detach().clone()
    for seed, scale in ((1, 0.25), (2, -1.0)):
        down, up = pair(unet, QUERY, seed)
        (tmp_path / f"{seed}").mkdir()
        tensors = {f"unet.{QUERY}.lora_A.weight": down, f"unet.{QUERY}.lora_B.weight": up}
        save_file(tensors, tmp_path / f"{seed}" / FILE_NAME)
        texts.append(f"{tmp_path}/{seed}:{scale}")
        expected += scale * delta(down, up)
    model = find_model(str(tmp_path / "model"), texts)
    assert f"{FILE_NAME}:0.25" in model.name
    assert {lora.path for lora in model.loras} < set(model.files)
    weight = load_unet(model).get_submodule(QUERY).weight
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-5)
    assert find_model(str(tmp_path / "model"), texts[:1]).name != model.name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("missing.safetensors", "no such LoRA file"),
        ("missing.safetensors:0.5", "no such LoRA file"),
        ("missing.safetensors:much", "much is no scale"),
    ],
)
def test_unusable_names(text, message):
    with pytest.raises(UserError, match=message):
        Lora.parse(text)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"unet.nowhere.lora_A.weight": torch.ones(1, 4)}, "unet has no module nowhere"),
        ({f"unet.{QUERY}.lora_A.weight": torch.ones(1, 32)}, "lacks one of its matrices"),
        (
            {
                f"unet.{QUERY}.lora_A.weight": torch.ones(1, 33),
                f"unet.{QUERY}.lora_B.weight": torch.ones(32, 1),
            },
            r"\[32, 1\] and \[1, 33\] for a weight of \[32, 32\]",
        ),
        ({"lora_unet_x.hada_w1_a": torch.ones(1)}, "belongs to LoHa"),
        ({f"unet.{QUERY}.lora_magnitude_vector": torch.ones(1)}, "belongs to DoRA"),
        ({"conv_in.weight": torch.ones(1)}, "conv_in.weight is no tensor of a LoRA"),
    ],
)
def test_unusable_files(unet, tmp_path, tensors, message):
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=message) as refusal:
        fuse_loras(unet, [Lora(tmp_path / "a.safetensors")], "unet")
    assert "\n" not in str(refusal.value) and "a.safetensors" in str(refusal.value)


def test_truncated_file(unet, tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({f"unet.{QUERY}.lora_A.weight": torch.ones(1, 32)}, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        fuse_loras(unet, [Lora(path)], "unet")
