"""A real denoising trajectory, step by step, whoever predicts the noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from gen.errors import UserError
from gen.hostgraph import HostGraph
from gen.layers import LayerGraph
from gen.model import Model
from gen.quantise.embeddings import embed, has_text_encoder

Float32 = NDArray[np.float32]
# (latents [batch, channels, height, width], timestep, host values) -> noise prediction
Predict = Callable[[torch.Tensor, float, dict[str, torch.Tensor]], torch.Tensor]

DEFAULT_PROMPT = "a red circle and a blue star on a forest background"


@torch.no_grad()
def denoise(
    model: Model,
    graph: LayerGraph,
    host: HostGraph,
    predict: Predict,
    *,
    steps: int,
    prompt: str = DEFAULT_PROMPT,
    seed: int = 1,
    guidance: float = 2.5,
    progress: bool = True,
) -> torch.Tensor:
    """The final latent of a sampler run in which ``predict`` stands for the U-Net.

    A pipeline brings its scheduler and text encoder; a bare U-Net gets DDIM and, if it takes a
    prompt, random embeddings. An even batch with a prompt is a guided pair (unconditional first).

    Raises:
        UserError: a pipeline whose parts cannot be loaded.
    """
    generator = torch.Generator().manual_seed(seed)
    scheduler = _scheduler(model)
    scheduler.set_timesteps(steps)
    embedding = _embedding(model, host, prompt, graph.batch, generator)
    guided = embedding is not None and graph.batch % 2 == 0
    info = graph.tensors[graph.input]
    items = graph.batch // 2 if guided else graph.batch
    latents = torch.randn(items, info.channels, info.height, info.width, generator=generator)
    latents = latents * scheduler.init_noise_sigma
    fixed = host.evaluate_prompt(embedding)
    for t in tqdm(scheduler.timesteps, "verify", disable=not progress):
        pair = torch.cat([latents, latents]) if guided else latents
        pair = scheduler.scale_model_input(pair, t)
        values = {**host.evaluate_step(float(t), graph.batch), **fixed}
        noise = predict(pair, float(t), values)
        if guided:
            without, with_prompt = noise.chunk(2)
            noise = without + guidance * (with_prompt - without)
        latents = scheduler.step(noise, t, latents, return_dict=False)[0]
    result: torch.Tensor = latents
    return result


def _scheduler(model: Model) -> Any:
    import diffusers

    if model.kind != "pipeline":
        return diffusers.DDIMScheduler()
    folder = model.path / "scheduler"
    try:
        return diffusers.DDIMScheduler.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        raise UserError(
            f"{folder}: the scheduler cannot be loaded ({' '.join(str(error).split())[:200]})"
        ) from error


def _embedding(
    model: Model, host: HostGraph, prompt: str, batch: int, generator: torch.Generator
) -> torch.Tensor | None:
    """Embeddings [batch, tokens, width]: empty prompts first, then ``prompt``."""
    if host.prompt_shape is None:
        return None
    tokens, width = host.prompt_shape
    if not has_text_encoder(model):
        return torch.randn(batch, tokens, width, generator=generator)
    empty = batch // 2 if batch % 2 == 0 else 0
    return embed(model, [""] * empty + [prompt] * (batch - empty), tokens).hidden
