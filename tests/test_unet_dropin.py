"""The drop-in in diffusers' own pipeline, with several schedulers and callbacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    LDMPipeline,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DModel,
    UniPCMultistepScheduler,
    VQModel,
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
        DDPMScheduler,
        EulerDiscreteScheduler,
        EulerAncestralDiscreteScheduler,
        DPMSolverMultistepScheduler,
        UniPCMultistepScheduler,
        LCMScheduler,
    ],
)
def test_pipeline_gives_the_same_images(pipe, unet, scheduler, images):
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    expected = sample(pipe, images)
    accelerator = FloatAccelerator(unet)
    pipe.unet = AcceleratedUNet(accelerator, unet)
    np.testing.assert_allclose(sample(pipe, images), expected, atol=1e-5)
    assert len(accelerator.calls) == 4
    assert accelerator.extras == [None] * 4


def test_schedulers_that_evaluate_more_than_once_a_step(pipe, unet):
    pipe.scheduler = PNDMScheduler.from_config(pipe.scheduler.config)
    expected = sample(pipe)
    accelerator = FloatAccelerator(unet)
    pipe.unet = AcceleratedUNet(accelerator, unet)
    np.testing.assert_allclose(sample(pipe), expected, atol=1e-5)
    assert len(accelerator.calls) > 4


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
        {"attention_mask": torch.ones(2, 5)},
        {"encoder_attention_mask": torch.ones(2, 5)},
        {"cross_attention_kwargs": {"scale": 0.5}},
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


def same(make, unet, call, accelerator=None):
    """The pipeline that ``make`` gives draws the same with and without the stand-in."""
    expected = call(make(unet))
    accelerator = accelerator or FloatAccelerator(unet)
    stand_in = AcceleratedUNet(accelerator, unet)
    pipe = make(unet)
    pipe.unet = stand_in
    np.testing.assert_allclose(call(pipe), expected, atol=1e-5)
    assert accelerator.calls
    return accelerator


def embeddings(width=16):
    generator = torch.Generator().manual_seed(7)
    return {
        "prompt_embeds": torch.randn(1, 5, width, generator=generator),
        "negative_prompt_embeds": torch.randn(1, 5, width, generator=generator),
    }


def options(**more):
    return {
        "num_inference_steps": 3,
        "generator": torch.Generator().manual_seed(1),
        "output_type": "np",
        **more,
    }


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_guidance_is_the_pipelines(guidance):
    def call(pipe):
        return pipe(**embeddings(), **options(guidance_scale=guidance)).images

    same(lambda unet: tiny_pipe(unet=unet), tiny_unet(), call)


def test_image_to_image():
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))

    def call(pipe):
        return pipe(image=picture, strength=0.8, **embeddings(), **options()).images

    same(lambda unet: tiny_pipe(StableDiffusionImg2ImgPipeline, unet), tiny_unet(), call)


@pytest.mark.parametrize("channels", [4, 9])
def test_inpainting(channels):
    generator = torch.Generator().manual_seed(2)
    picture = torch.rand(1, 3, 16, 16, generator=generator)
    mask = (torch.rand(1, 1, 16, 16, generator=generator) > 0.5).float()

    def call(pipe):
        return pipe(
            image=picture, mask_image=mask, height=16, width=16, **embeddings(), **options()
        ).images

    unet = tiny_unet(in_channels=channels)
    same(lambda unet: tiny_pipe(StableDiffusionInpaintPipeline, unet), unet, call)


def test_a_pipeline_made_from_anothers_parts(pipe, unet):
    pipe.unet = AcceleratedUNet(FloatAccelerator(unet), unet)
    other = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    assert other.unet is pipe.unet
    again = StableDiffusionPipeline.from_pipe(other)
    assert again.unet is pipe.unet


def sdxl(unet):
    return quiet(
        StableDiffusionXLPipeline(
            vae=tiny_pipe().vae,
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
            unet=unet,
            scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False),
            add_watermarker=False,
        )
    )


def test_sdxl_with_pooled_prompt_and_picture_size():
    unet = tiny_unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=60,
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
    )
    generator = torch.Generator().manual_seed(3)
    pooled = torch.randn(2, 1, 12, generator=generator)

    def call(pipe):
        return pipe(
            pooled_prompt_embeds=pooled[0],
            negative_pooled_prompt_embeds=pooled[1],
            original_size=(64, 32),
            **embeddings(),
            **options(guidance_scale=4.0),
        ).images

    accelerator = same(sdxl, unet, call)
    extra = accelerator.extras[0]
    assert extra["added_cond_kwargs_text_embeds"].shape == (2, 12)
    assert extra["added_cond_kwargs_time_ids"].shape == (2, 6)


def test_latent_consistency_with_a_guidance_embedding():
    def make(unet):
        parts = tiny_pipe(unet=unet).components | {"scheduler": LCMScheduler()}
        return quiet(LatentConsistencyModelPipeline(**parts, requires_safety_checker=False))

    def call(pipe):
        prompt = embeddings()["prompt_embeds"]
        return pipe(prompt_embeds=prompt, **options(guidance_scale=8.0)).images

    accelerator = same(make, tiny_unet(time_cond_proj_dim=24), call)
    assert accelerator.extras[0]["timestep_cond"].shape == (1, 24)
    assert np.abs(accelerator.extras[0]["timestep_cond"]).max() > 0


def unconditional(**more):
    torch.manual_seed(4)
    return UNet2DModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        layers_per_block=1,
        norm_num_groups=8,
        **more,
    ).eval()


@pytest.mark.parametrize(
    ("kind", "scheduler"), [(DDPMPipeline, DDPMScheduler), (DDIMPipeline, DDIMScheduler)]
)
def test_unconditional_pipelines(kind, scheduler):
    def call(pipe):
        return pipe(batch_size=2, **options()).images

    same(lambda unet: quiet(kind(unet, scheduler())), unconditional(), call)


def test_unconditional_latent_diffusion():
    vqvae = VQModel(block_out_channels=(8,), norm_num_groups=4, latent_channels=3).eval()

    def call(pipe):
        return pipe(batch_size=1, **options()).images

    same(lambda unet: quiet(LDMPipeline(vqvae, unet, DDIMScheduler())), unconditional(), call)


def test_class_labels_by_position_and_name():
    unet = unconditional(num_class_embeds=5)
    stand_in = AcceleratedUNet(FloatAccelerator(unet), unet)
    latent, labels = torch.randn(2, 3, 8, 8), torch.tensor([1, 4])
    with torch.no_grad():
        expected = unet(latent, 10, labels).sample
    torch.testing.assert_close(stand_in(latent, 10, labels).sample, expected)
    torch.testing.assert_close(stand_in(latent, 10, class_labels=labels)[0], expected)
    assert isinstance(stand_in(latent, 10, labels, False), tuple)


def test_no_guidance_embedding_is_one_of_zeros():
    unet = tiny_unet(time_cond_proj_dim=24)
    stand_in = AcceleratedUNet(FloatAccelerator(unet), unet)
    latent, prompt = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 16)
    with torch.no_grad():
        expected = unet(latent, 10, prompt).sample
    torch.testing.assert_close(stand_in(latent, 10, prompt).sample, expected)


TEXT_TIME = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 60,
}


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        ({}, {"class_labels": torch.zeros(2)}, "has no class embedding"),
        ({"num_class_embeds": 3}, {}, "give class_labels"),
        ({}, {"timestep_cond": torch.zeros(2, 4)}, "has no guidance embedding"),
        ({}, {"added_cond_kwargs": {"image_embeds": torch.zeros(1)}}, "image_embeds"),
        (TEXT_TIME, {}, "needs added_cond_kwargs with text_embeds"),
        (TEXT_TIME, {"added_cond_kwargs": {"text_embeds": torch.zeros(2, 12)}}, "time_ids"),
        (
            {"num_class_embeds": 3},
            {"class_labels": torch.zeros(3, dtype=torch.int64)},
            r"class_labels has shape \[3\] for 2 samples",
        ),
    ],
)
def test_extra_inputs_are_checked(config, given, message):
    unet = tiny_unet(**config)
    stand_in = AcceleratedUNet(FloatAccelerator(unet), unet)
    with pytest.raises(UserError, match=message):
        stand_in(torch.zeros(2, 4, 8, 8), 7, torch.zeros(2, 5, 16), **given)


@pytest.mark.parametrize(
    "call",
    [
        lambda pipe: pipe.enable_freeu(0.9, 0.2, 1.2, 1.4),
        lambda pipe: pipe.fuse_qkv_projections(),
        lambda pipe: pipe.unet.set_attn_processor(None),
        lambda pipe: pipe.unet.load_lora_adapter({}),
        lambda pipe: pipe.unet.enable_gradient_checkpointing(),
    ],
)
def test_methods_that_are_not_done_are_refused(pipe, unet, call):
    pipe.unet = AcceleratedUNet(FloatAccelerator(unet), unet)
    with pytest.raises(UserError, match="the accelerated U-Net does not do"):
        call(pipe)


def test_a_build_of_another_size_sets_the_pipelines_default(unet):
    class Wide(FloatAccelerator):
        latent_shape = (4, 8, 16)

    stand_in = AcceleratedUNet(Wide(unet), unet)
    assert stand_in.config.sample_size == (8, 16)
    pipe = tiny_pipe(unet=stand_in)
    assert sample(pipe).shape == (1, 16, 32, 3)
