"""Pictures from the bundled pipeline, as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from .recipe.scenes import SIZE, Image8
from .recipe.train_vae import to_tensor


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """The pipeline, from a local folder only."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(
    pipeline: StableDiffusionPipeline,
    prompts: list[str],
    steps: int = 25,
    guidance: float = 3.0,
    seed: int = 0,
    batch: int = 32,
) -> Image8:
    """Pictures ``(n, 64, 64, 3)`` ``uint8``; picture ``i`` depends on ``seed + i`` alone."""
    parts = []
    for at in range(0, len(prompts), batch):
        chunk = prompts[at : at + batch]
        generators = [torch.Generator().manual_seed(seed + at + i) for i in range(len(chunk))]
        images = pipeline(
            chunk,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            output_type="np",
        ).images
        parts.append(np.rint(images * 255).astype(np.uint8))
    return np.concatenate(parts)


def round_trip(pipeline: StableDiffusionPipeline, pictures: Image8) -> Image8:
    """Pictures after encoding and decoding, ``(n, 64, 64, 3)`` ``uint8``."""
    parts = []
    with torch.inference_mode():
        for at in range(0, len(pictures), 64):
            latents = pipeline.vae.encode(to_tensor(pictures[at : at + 64])).latent_dist.mode()
            again = pipeline.vae.decode(latents).sample.clamp(-1, 1)
            parts.append(again.add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)


def picture_grid(pictures: Image8, columns: int, zoom: int = 2) -> Image.Image:
    """Pictures side by side, row by row."""
    rows = len(pictures) // columns
    sheet = pictures[: rows * columns].reshape(rows, columns, SIZE, SIZE, 3)
    sheet = sheet.transpose(0, 2, 1, 3, 4).reshape(rows * SIZE, columns * SIZE, 3)
    size = (columns * SIZE * zoom, rows * SIZE * zoom)
    return Image.fromarray(sheet).resize(size, Image.Resampling.NEAREST)
