"""The drop-in in diffusers' own pipeline, with several schedulers and callbacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from tiny_pipeline import FloatAccelerator, tiny_pipe, tiny_unet

from gen.errors import UserError
from host.unet import AcceleratedUNet


@pytest.fixture
def unet():
    return tiny_unet()


@pytest.fixture
def pipe():
    return tiny_pipe()


def sample(pipe, images=1, **options):
    generator = torch.Generator().manual_seed(3)
    return pipe(
        prompt_embeds=torch.randn(1, 5, 16, generator=generator),
        negative_prompt_embeds=torch.randn(1, 5, 16, generator=generator),
        num_inference_steps=4,
        guidance_scale=2.5,
        num_images_per_prompt=images,
        generator=generator,
        output_type="np",
        **options,
    ).images


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler,
        EulerDiscreteScheduler,
        DPMSolverMultistepScheduler,
        UniPCMultistepScheduler,
    ],
)
def test_pipeline_gives_the_same_images(pipe, unet, scheduler, images):
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    expected = sample(pipe, images)
    accelerator = FloatAccelerator(unet)
    pipe.unet = AcceleratedUNet(accelerator, unet)
    np.testing.assert_allclose(sample(pipe, images), expected, atol=1e-5)
    assert len(accelerator.calls) == 4


def test_callback_sees_and_changes_every_step(pipe, unet):
    def callback(_, step, timestep, tensors):
        seen.append((step, int(timestep)))
        return {"latents": tensors["latents"] * 0.5}

    seen = []
    expected = sample(pipe, callback_on_step_end=callback)
    first, seen = seen, []
    pipe.unet = AcceleratedUNet(FloatAccelerator(unet), unet)
    np.testing.assert_allclose(sample(pipe, callback_on_step_end=callback), expected, atol=1e-5)
    assert seen == first and len(seen) == 4


def test_pipeline_moves_and_keeps_its_config(pipe, unet):
    pipe.unet = AcceleratedUNet(FloatAccelerator(unet), unet)
    assert pipe.to("cpu") is pipe
    assert pipe.unet.config == unet.config
    assert (pipe.unet.device, pipe.unet.dtype) == (torch.device("cpu"), torch.float32)
    assert not list(pipe.unet.parameters()) and not pipe.unet.state_dict()
    assert not hasattr(pipe.unet, "add_embedding")
    pipe.unet.to(torch.bfloat16)
    assert pipe.unet.dtype == torch.bfloat16


def test_types_and_return_kinds(unet):
    dropin = AcceleratedUNet(FloatAccelerator(unet), unet)
    latent, prompt = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 16)
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        result = dropin(latent.to(dtype), torch.tensor(7), prompt.to(dtype))
        assert result.sample.dtype == dtype and result.sample.shape == latent.shape
        (plain,) = dropin(latent.to(dtype), 7, prompt.to(dtype), return_dict=False)
        torch.testing.assert_close(plain, result[0])


@pytest.mark.parametrize(
    "extra",
    [
        {"class_labels": torch.zeros(2)},
        {"timestep_cond": torch.zeros(2, 4)},
        {"attention_mask": torch.ones(2, 5)},
        {"encoder_attention_mask": torch.ones(2, 5)},
        {"cross_attention_kwargs": {"scale": 0.5}},
        {"added_cond_kwargs": {"image_embeds": torch.zeros(1)}},
        {"down_block_additional_residuals": (torch.zeros(1),)},
        {"mid_block_additional_residual": torch.zeros(1)},
        {"down_intrablock_additional_residuals": (torch.zeros(1),)},
    ],
)
def test_what_is_not_done_is_refused(unet, extra):
    dropin = AcceleratedUNet(FloatAccelerator(unet), unet)
    with pytest.raises(UserError, match=f"does not take {next(iter(extra))}"):
        dropin(torch.zeros(2, 4, 8, 8), 7, torch.zeros(2, 5, 16), **extra)


def test_gradients_are_refused(unet):
    dropin = AcceleratedUNet(FloatAccelerator(unet), unet)
    latent = torch.zeros(2, 4, 8, 8, requires_grad=True)
    with pytest.raises(UserError, match="no gradients"):
        dropin(latent, 7, torch.zeros(2, 5, 16))
    with torch.no_grad():
        dropin(latent, 7, torch.zeros(2, 5, 16))
