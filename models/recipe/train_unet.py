"""Second stage: the denoising U-Net and the text encoder, trained together on cached latents."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from .export import new_scheduler, new_text_encoder, new_unet
from .muon import Muon
from .scenes import Image8
from .schedule import Budget, load_checkpoint, one_cycle, save_checkpoint
from .text_warmup import warm_up_text_encoder
from .train_vae import to_tensor

log = logging.getLogger(__name__)

RATE = 1.2e-3
MATRIX_RATE = 2e-3
SHARE = 16
"""Pictures per worker and step."""

WORKERS = 2
"""Threads that each work on a share of the batch; several beat one step on all cores."""

CAPTION_DROP = 0.1
EMA_DECAY = 0.999
SNAPSHOT_SECONDS = 480.0


@dataclass
class Denoiser:
    """The two networks that are trained together."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel

    def parameters(self) -> list[nn.Parameter]:
        """All weights of both networks."""
        return [*self.unet.parameters(), *self.text_encoder.parameters()]


def encode_pictures(vae: AutoencoderKL, pictures: Image8, path: Path) -> Tensor:
    """Scaled latents ``(n, 4, 16, 16)`` ``float32`` of the pictures, cached at ``path``."""
    if not path.exists():
        parts = []
        with torch.inference_mode():
            for at in tqdm(range(0, len(pictures), 64), desc="latents", mininterval=10):
                parts.append(vae.encode(to_tensor(pictures[at : at + 64])).latent_dist.mode())
        torch.save(torch.cat(parts).contiguous() * vae.config.scaling_factor, path)
    latents: Tensor = torch.load(path, weights_only=True)
    return latents


def tokenise(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Padded token numbers ``(n, 16)`` ``int64``."""
    length = tokenizer.model_max_length
    batch = tokenizer(texts, padding="max_length", max_length=length, truncation=True)
    return torch.tensor(batch.input_ids)


def timestep_weights(alphas: Tensor) -> Tensor:
    """Weight of each timestep's noise error, ``(1000,)``.

    The inverse root of the signal-to-noise ratio, at most 6: what a picture shows is settled at
    ratios of about 0.01, where plain weights (and min-SNR) barely look.
    """
    ratio = alphas / (1 - alphas)
    return ratio.rsqrt().clamp(max=6.0)


def optimisers(net: Denoiser) -> list[torch.optim.Optimizer]:
    """Orthogonalised steps for the U-Net's inner matrices, AdamW for everything else.

    The matrices are dealt out to as many optimisers as there are workers.
    """
    edges = ("conv_in", "conv_out")
    inner = [
        weight
        for name, weight in net.unet.named_parameters()
        if weight.ndim >= 2 and not name.startswith(edges)
    ]
    chosen = {id(weight) for weight in inner}
    rest = [weight for weight in net.parameters() if id(weight) not in chosen]
    inner.sort(key=lambda weight: weight.numel() * min(weight.flatten(1).shape), reverse=True)
    hands = [inner[worker::WORKERS] for worker in range(WORKERS)]
    return [
        *(Muon(hand, lr=MATRIX_RATE) for hand in hands),
        torch.optim.AdamW(rest, lr=RATE, betas=(0.9, 0.99), weight_decay=0.0),
    ]


def replica(net: Denoiser) -> Denoiser:
    """The same networks once more: own gradients, shared weights."""
    twin = copy.deepcopy(net)
    for own, other in zip(twin.parameters(), net.parameters(), strict=True):
        own.data = other.data
    return twin


def gradients(net: Denoiser) -> list[Tensor]:
    """Gradients of all weights."""
    return [weight.grad for weight in net.parameters() if weight.grad is not None]


class Lessons:
    """Noisy latents with their prompts, and the loss of a network on them."""

    def __init__(self, latents: Tensor, numbers: Tensor, empty: Tensor) -> None:
        self.latents, self.numbers, self.empty = latents, numbers, empty
        self.alphas = new_scheduler().alphas_cumprod
        self.weights = timestep_weights(self.alphas)

    def backward(self, net: Denoiser, seed: int) -> float:
        """Loss on a share of a batch; its gradients are left in ``net``."""
        generator = torch.Generator().manual_seed(seed)
        pick = torch.randint(len(self.latents), (SHARE,), generator=generator)
        clean = self.latents[pick].contiguous(memory_format=torch.channels_last)
        tokens = self.numbers[pick]
        tokens[torch.rand(SHARE, generator=generator) < CAPTION_DROP] = self.empty
        strata = (torch.arange(SHARE) + torch.rand(SHARE, generator=generator)) / SHARE
        times = (strata * len(self.alphas)).long()
        noise = torch.randn(clean.shape, generator=generator)
        alpha = self.alphas[times].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        words = net.text_encoder(tokens).last_hidden_state
        error = (net.unet(noisy, times, words).sample - noise).square().mean((1, 2, 3))
        loss = (error * self.weights[times]).mean()
        loss.backward()
        return float(loss.detach())


def train_unet(
    latents: Tensor,
    captions: list[str],
    tokenizer: CLIPTokenizer,
    work: Path,
    minutes: float,
    snapshot: Callable[[Denoiser], None],
) -> Denoiser:
    """Train (or go on training) for ``minutes`` and return the averaged networks.

    Checkpoints lie in ``work``; ``snapshot`` gets the averaged networks every eight minutes.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = Denoiser(new_unet().to(memory_format=torch.channels_last), new_text_encoder(tokenizer))
    net.unet.set_attn_processor(AttnProcessor())
    numbers = tokenise(tokenizer, captions)
    path = work / "unet.ckpt"
    state = load_checkpoint(path)
    if state is None:
        loss = warm_up_text_encoder(net.text_encoder, numbers, captions)
        log.info("text encoder warmed up, loss %.4f", loss)
    average = copy.deepcopy(net)
    steppers = optimisers(net)
    for group in (group for stepper in steppers for group in stepper.param_groups):
        group["peak"] = group["lr"]
    step, spent, mean_loss = 0, 0.0, 0.0
    if state is not None:
        for networks, kept in ((net, state["net"]), (average, state["average"])):
            networks.unet.load_state_dict(kept[0])
            networks.text_encoder.load_state_dict(kept[1])
        for stepper, kept in zip(steppers, state["steppers"], strict=True):
            stepper.load_state_dict(kept)
        step, spent = state["step"], state["spent"]
    twins = [net, *(replica(net) for _ in range(WORKERS - 1))]

    lessons = Lessons(latents, numbers, tokenise(tokenizer, [""])[0])
    budget, last_snapshot, weights = Budget(minutes, spent), time.monotonic(), net.parameters()
    averages: list[Tensor] = [*average.parameters()]
    tensors: list[Tensor] = [*weights]
    bar = tqdm(total=100, desc="unet", bar_format="{desc} {percentage:3.0f}%|{bar}| {postfix}")
    with ThreadPoolExecutor(WORKERS) as pool:
        while budget.share < 1.0:
            for group in (group for stepper in steppers for group in stepper.param_groups):
                group["lr"] = group["peak"] * one_cycle(budget.share)
            seeds = [10_000_000 + step * WORKERS + worker for worker in range(WORKERS)]
            losses = list(pool.map(lessons.backward, twins, seeds))
            grads = gradients(net)
            for twin in twins[1:]:
                torch._foreach_add_(grads, gradients(twin))
            torch._foreach_div_(grads, float(WORKERS))
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            list(pool.map(lambda stepper: stepper.step(), steppers))
            for twin in twins:
                torch._foreach_zero_(gradients(twin))
            step += 1
            decay = min(EMA_DECAY, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(averages, tensors, 1 - decay)

            loss = sum(losses) / WORKERS
            mean_loss = 0.98 * mean_loss + 0.02 * loss if mean_loss else loss
            if step % 25 == 0:
                bar.n = int(100 * budget.share)
                bar.set_postfix_str(f"{budget.spent:.0f} s step {step} loss {mean_loss:.4f}")
            if time.monotonic() - last_snapshot > SNAPSHOT_SECONDS or budget.share >= 1.0:
                kept = [(n.unet.state_dict(), n.text_encoder.state_dict()) for n in (net, average)]
                kept_steppers = [stepper.state_dict() for stepper in steppers]
                checkpoint = {"net": kept[0], "average": kept[1], "steppers": kept_steppers}
                save_checkpoint(path, {**checkpoint, "step": step, "spent": budget.spent})
                snapshot(average)
                last_snapshot = time.monotonic()
    log.info("U-Net trained for %d steps of %d", step, SHARE * WORKERS)
    return average
