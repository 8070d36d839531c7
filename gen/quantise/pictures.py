"""Pictures of the user's as latents to calibrate on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from gen.errors import UserError
from gen.layers import TensorInfo
from gen.model import Model, read_json

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp"))
ENCODERS = ("vae", "vqvae")


def find_pictures(folder: Path) -> tuple[Path, ...]:
    """The pictures right below ``folder``, by name. Raises UserError if there are none."""
    found = tuple(sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES))
    if not found:
        raise UserError(
            f"{folder}: holds no picture; put files there that end in {', '.join(sorted(SUFFIXES))}"
        )
    return found


@torch.no_grad()
def load_latents(model: Model, entry: TensorInfo, paths: Sequence[Path]) -> torch.Tensor:
    """Pictures as what the sampler would end with, float32 [pictures, channels, height, width].

    They are encoded by the pipeline's autoencoder; a U-Net that works on pixels takes them as they
    are, in -1..1. Raises UserError for unreadable files, or a U-Net that needs an autoencoder
    and comes without one.
    """
    folder = next((model.path / name for name in ENCODERS if (model.path / name).is_dir()), None)
    if model.kind != "pipeline" or folder is None:
        if entry.channels not in (1, 3):
            raise UserError(
                f"{model.name}: comes without an autoencoder, so pictures cannot be made latents "
                f"of {entry.channels} channels; calibrate on prompts, or name a whole pipeline"
            )
        return torch.stack([_read(p, entry.channels, entry.height, entry.width) for p in paths])
    encoder = _encoder(folder)
    blocks = len(encoder.config.block_out_channels) - 1
    height, width = entry.height << blocks, entry.width << blocks
    channels = int(encoder.config.in_channels)
    latents = []
    for path in paths:
        encoded = encoder.encode(_read(path, channels, height, width)[None])
        # a VAE gives a distribution, a VQ model the latent itself
        mean = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latents
        latents.append(mean * encoder.config.scaling_factor)
    result = torch.cat(latents)
    expected = (entry.channels, entry.height, entry.width)
    if tuple(result.shape[1:]) != expected:
        raise UserError(
            f"{folder}: encodes a picture as {list(result.shape[1:])}, the U-Net takes "
            f"{list(expected)}; the parts of this pipeline do not belong together"
        )
    return result


def _read(path: Path, channels: int, height: int, width: int) -> torch.Tensor:
    """A picture's middle, as large as fits, scaled to [channels, height, width] in -1..1."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("L" if channels == 1 else "RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path}: cannot be read as a picture ({error}); remove or replace it"
        ) from error
    scale = max(width / image.width, height / image.height)
    size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.LANCZOS)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    image = image.crop((left, top, left + width, top + height))
    values = np.asarray(image, np.float32).reshape(height, width, channels)
    return torch.from_numpy(values.transpose(2, 0, 1) / np.float32(127.5) - np.float32(1))


def _encoder(folder: Path) -> Any:
    import diffusers

    kind = read_json(folder / "config.json").get("_class_name")
    if kind not in ("AutoencoderKL", "VQModel", "AutoencoderTiny"):
        raise UserError(f"{folder}: {kind} is not supported as an autoencoder; use prompts")
    try:
        loaded = getattr(diffusers, kind).from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True
        )
    except Exception as error:
        # diffusers, safetensors and json each raise their own kinds
        raise UserError(
            f"{folder}: the autoencoder cannot be loaded ({' '.join(str(error).split())[:300]}); "
            "restore its files (weights must be safetensors)"
        ) from error
    return loaded.float().eval()
