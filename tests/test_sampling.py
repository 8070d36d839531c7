"""Loading and drawing with whole pipelines of several kinds."""

from __future__ import annotations

import json

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_pipeline import FloatAccelerator, tiny_unet, tiny_vae
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from gen.errors import UserError
from gen.lora import Lora
from gen.model import find_model, load_unet, loras_of
from gen.stages import ROOT
from host.sampling import draw, load_pipeline, takes_prompt
from host.settings import SCHEDULERS, Settings
from host.unet import AcceleratedUNet

SETTINGS = Settings(steps=3, guidance=2.0)


def unconditional(folder, scheduler):
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(16,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
    )
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(folder)


def text_pipeline(folder, variant=None):
    """A Stable Diffusion pipeline with the bundled tokenizer."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(ROOT / "models" / "shapes-ldm" / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
    )
    pipe = diffusers.StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=CLIPTextModel(config),
        tokenizer=tokenizer,
        unet=tiny_unet(),
        scheduler=diffusers.PNDMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder, variant=variant)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpm++", "lcm"])
def test_unconditional_pipelines(tmp_path, name):
    unconditional(tmp_path, diffusers.DDPMScheduler())
    pipe = load_pipeline(tmp_path, scheduler=name)
    assert type(pipe.scheduler).__name__ == SCHEDULERS[name]
    assert not takes_prompt(pipe)
    steps = []
    expected = draw(pipe, "unused", SETTINGS, 5, lambda: steps.append(1))
    assert len(expected.step_seconds) == len(steps) >= 3
    assert expected.picture.shape == (8, 8, 3) and expected.picture.std() > 0
    pipe.unet = AcceleratedUNet(FloatAccelerator(pipe.unet), pipe.unet)
    picture = draw(pipe, "unused", SETTINGS, 5).picture
    np.testing.assert_allclose(picture.astype(int), expected.picture.astype(int), atol=1)


def architecture(path, kind, **config):
    described = {"class": kind, "batch": 1, "tokens": 4, "config": config}
    path.write_text(json.dumps(described))
    return path


def test_an_unconditional_architecture_draws_its_latents(tmp_path):
    blocks = {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
    options = {"sample_size": 8, "block_out_channels": [16], "norm_num_groups": 4} | blocks
    path = architecture(tmp_path / "small.json", "UNet2DModel", **options)
    pipe = load_pipeline(path)
    # the weights that a build of it has
    built = load_unet(find_model(str(path)), tmp_path).state_dict()
    assert all(torch.equal(value, built[name]) for name, value in pipe.unet.state_dict().items())
    picture = draw(pipe, "unused", SETTINGS, 5).picture
    assert picture.shape == (8, 8, 3) and picture.std() > 0


def test_an_architecture_that_takes_prompts_is_refused(tmp_path):
    path = architecture(tmp_path / "text.json", "UNet2DConditionModel", **tiny_unet().config)
    with pytest.raises(UserError, match=r"text\.json: an architecture has no text encoder"):
        load_pipeline(path)


def test_schedulers_that_a_pipeline_cannot_use(tmp_path):
    unconditional(tmp_path, diffusers.DDPMScheduler())
    for name in ("euler", "unipc"):
        with pytest.raises(UserError, match=f"DDPMPipeline cannot sample with {name}; choose"):
            load_pipeline(tmp_path, scheduler=name)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_text_pipelines_draw_with_every_scheduler(tmp_path, name):
    text_pipeline(tmp_path)
    pipe = load_pipeline(tmp_path, scheduler=name)
    assert type(pipe.scheduler).__name__ == SCHEDULERS[name]
    expected = draw(pipe, "a red circle", SETTINGS, 5)
    assert len(expected.step_seconds) == 3
    pipe.unet = AcceleratedUNet(FloatAccelerator(pipe.unet), pipe.unet)
    picture = draw(pipe, "a red circle", SETTINGS, 5).picture
    np.testing.assert_allclose(picture.astype(int), expected.picture.astype(int), atol=1)


def test_default_schedulers(tmp_path):
    unconditional(tmp_path / "a", diffusers.DDPMScheduler())
    assert isinstance(load_pipeline(tmp_path / "a").scheduler, diffusers.DDIMScheduler)
    unconditional(tmp_path / "b", diffusers.LCMScheduler())
    assert isinstance(load_pipeline(tmp_path / "b").scheduler, diffusers.LCMScheduler)


def test_text_pipelines_are_loaded_in_float32(tmp_path):
    text_pipeline(tmp_path)
    pipe = load_pipeline(tmp_path)
    assert takes_prompt(pipe)
    assert isinstance(pipe, diffusers.StableDiffusionPipeline)
    assert {pipe.unet.dtype, pipe.text_encoder.dtype, pipe.vae.dtype} == {torch.float32}


def test_size_of_the_build_is_drawn(tmp_path):
    text_pipeline(tmp_path)
    pipe = load_pipeline(tmp_path)
    picture = draw(pipe, "a red circle", SETTINGS, 1, latent=(4, 12)).picture
    assert picture.shape == (8, 24, 3)
    assert (picture != draw(pipe, "a blue star", SETTINGS, 1, latent=(4, 12)).picture).any()


def test_loras_of_a_build_reach_every_component(tmp_path):
    text_pipeline(tmp_path / "model")
    path, query = (
        tmp_path / "a.safetensors",
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
    )
    encoder = "text_model_encoder_layers_0_self_attn_q_proj"
    tensors = {
        f"lora_unet_{query.replace('.', '_')}.lora_down.weight": torch.ones(1, 32),
        f"lora_unet_{query.replace('.', '_')}.lora_up.weight": torch.ones(32, 1),
        f"lora_te_{encoder}.lora_down.weight": torch.ones(1, 16),
        f"lora_te_{encoder}.lora_up.weight": torch.ones(16, 1),
    }
    save_file(tensors, path)
    model = find_model(str(tmp_path / "model"), [f"{path}:0.5"])
    (tmp_path / "model.json").write_text(json.dumps(model.description()))
    assert loras_of(tmp_path) == (Lora(path, 0.5),)
    plain, pipe = load_pipeline(tmp_path / "model"), load_pipeline(tmp_path / "model", model.loras)
    for component in ("unet", "text_encoder"):
        before = dict(getattr(plain, component).named_parameters())
        after = dict(getattr(pipe, component).named_parameters())
        changed = [name for name, value in after.items() if not torch.equal(value, before[name])]
        assert len(changed) == 1 and "q" in changed[0]
        torch.testing.assert_close(after[changed[0]], before[changed[0]] + 0.5)
    # the build and the pipeline that it serves have the same weights
    built = load_unet(model).state_dict()
    assert all(torch.equal(value, built[name]) for name, value in pipe.unet.state_dict().items())


def test_half_precision_only(tmp_path):
    text_pipeline(tmp_path, variant="fp16")
    assert load_pipeline(tmp_path).unet.dtype == torch.float32


def test_pipelines_without_a_unet_are_refused(tmp_path):
    unconditional(tmp_path, diffusers.DDPMScheduler())
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace("DDPMPipeline", "DiTPipeline"))
    with pytest.raises(UserError) as refusal:
        load_pipeline(tmp_path)
    assert "\n" not in str(refusal.value)
