"""First and last stage: the auto-encoder, 64x64 RGB pictures to 4x16x16 latents and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm

from .scenes import Image8
from .schedule import Budget, load_checkpoint, one_cycle, save_checkpoint

RATE = 2e-3
BATCH = 8
KL_WEIGHT = 5e-4
REFINE_RATE = 1e-3
LATENT_NOISE = 0.03
"""Noise on unit-variance latents while the decoder is refined: the U-Net's are not exact."""


def new_vae() -> AutoencoderKL:
    """Untrained auto-encoder, 0.65 M parameters; few groups, so that colours survive the norms."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        mid_block_add_attention=False,
    )


def to_tensor(pictures: Image8) -> Tensor:
    """``(n, 64, 64, 3)`` ``uint8`` to ``(n, 3, 64, 64)`` ``float32`` in -1..1, channels last."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def psnr(vae: AutoencoderKL, pictures: Image8) -> float:
    """Peak signal-to-noise ratio of pictures after a round trip, in decibels."""
    with torch.inference_mode():
        x = to_tensor(pictures)
        error = (vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1) - x) / 2
    return float(-10 * error.square().mean().log10())


def measure_latents(vae: AutoencoderKL, pictures: Image8) -> float:
    """Scaling factor that brings the latents of the pictures to unit standard deviation."""
    with torch.inference_mode():
        return 1.0 / float(vae.encode(to_tensor(pictures)).latent_dist.mode().std())


def train_vae(pictures: Image8, checks: Image8, work: Path, minutes: float) -> AutoencoderKL:
    """Train (or go on training) for ``minutes``; checkpoints lie in ``work``."""
    torch.manual_seed(0)
    vae = new_vae().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.0)
    path = work / "vae.ckpt"
    state = load_checkpoint(path)
    step, spent = 0, 0.0
    if state is not None:
        vae.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    budget = Budget(minutes, spent)
    bar = tqdm(total=100, desc="vae", bar_format="{desc} {percentage:3.0f}%|{bar}| {postfix}")
    while budget.share < 1.0:
        rng = np.random.default_rng((2, step))
        for group in optimiser.param_groups:
            group["lr"] = RATE * one_cycle(budget.share)
        x = to_tensor(pictures[rng.integers(len(pictures), size=BATCH)])
        posterior = vae.encode(x).latent_dist
        error = vae.decode(posterior.sample()).sample - x
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1.0 - posterior.logvar).mean()
        loss = error.abs().mean() + error.square().mean() + KL_WEIGHT * kl
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        step += 1
        if step % 250 == 0:
            bar.n = int(100 * budget.share)
            bar.set_postfix_str(
                f"step {step} loss {loss.item():.4f} kl {kl.item():.2f}"
                f" psnr {psnr(vae, checks):.2f}"
            )
            checkpoint = {"model": vae.state_dict(), "optimiser": optimiser.state_dict()}
            save_checkpoint(path, {**checkpoint, "step": step, "spent": budget.spent})
    vae.register_to_config(scaling_factor=measure_latents(vae, pictures[:2048]))
    return vae.eval()


def refine_decoder(
    vae: AutoencoderKL, latents: Tensor, pictures: Image8, checks: Image8, minutes: float
) -> None:
    """Train the decoder alone for some more ``minutes``: sharper pictures, same latents.

    ``latents`` ``(n, 4, 16, 16)`` are the scaled latents of ``pictures``.
    """
    vae.to(memory_format=torch.channels_last)
    weights = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=REFINE_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    budget, step = Budget(minutes), 0
    bar = tqdm(total=100, desc="decoder", bar_format="{desc} {percentage:3.0f}%|{bar}| {postfix}")
    while budget.share < 1.0:
        rng = np.random.default_rng((3, step))
        optimiser.param_groups[0]["lr"] = REFINE_RATE * one_cycle(budget.share)
        pick = rng.integers(len(pictures), size=BATCH)
        x = to_tensor(pictures[pick])
        z = latents[torch.from_numpy(pick)]
        z = (z + LATENT_NOISE * torch.randn(z.shape)) / vae.config.scaling_factor
        error = vae.decode(z.contiguous(memory_format=torch.channels_last)).sample - x
        loss = error.abs().mean() + error.square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        step += 1
        if step % 250 == 0:
            bar.n = int(100 * budget.share)
            bar.set_postfix_str(f"step {step} psnr {psnr(vae, checks):.2f}")
    vae.eval()
