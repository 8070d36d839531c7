"""A pipeline small enough for tests, and an accelerator that computes in float."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)

from host.accelerator import Accelerator

# layers this small only wait for each other on more threads
torch.set_num_threads(1)


class FloatAccelerator(Accelerator):
    """Computes in float, so that the pipeline's result is known exactly."""

    def __init__(self, unet):
        self.unet = unet
        self.calls = []
        self.extras = []

    @property
    def latent_shape(self):
        size = self.unet.config.sample_size
        return self.unet.config.in_channels, size, size

    def check_model(self, unet):
        assert unet is self.unet

    def step(self, latent, timestep, encoder_hidden_states=None, extra=None):
        assert latent.dtype == np.float32 and timestep.dtype == np.float64
        self.calls.append(timestep.tolist())
        self.extras.append(extra)
        options = {}
        for name, value in (extra or {}).items():
            assert len(value) == len(latent)
            if name.startswith("added_cond_kwargs_"):
                added = options.setdefault("added_cond_kwargs", {})
                added[name.removeprefix("added_cond_kwargs_")] = torch.from_numpy(value)
            else:
                options[name] = torch.from_numpy(value)
        if encoder_hidden_states is not None:
            assert encoder_hidden_states.dtype == np.float32
            options["encoder_hidden_states"] = torch.from_numpy(encoder_hidden_states)
        with torch.no_grad():
            return self.unet(
                torch.from_numpy(latent),
                torch.from_numpy(timestep).float().expand(len(latent)),
                **options,
                return_dict=False,
            )[0].numpy()


CONFIG = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


@cache
def tiny_unet(**options):
    torch.manual_seed(0)
    return UNet2DConditionModel(**CONFIG, **options).eval()


@cache
def tiny_vae():
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval()


def tiny_pipe(kind=StableDiffusionPipeline, unet=None):
    """A Stable Diffusion pipeline without text encoder."""
    pipe = kind(
        vae=tiny_vae(),
        text_encoder=None,
        tokenizer=None,
        unet=unet or tiny_unet(),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
