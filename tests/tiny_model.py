"""A whole pipeline small enough for tests as a diffusers folder, text encoder and tokenizer too."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from tiny_pipeline import tiny_unet, tiny_vae
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

SHAPES = Path(__file__).resolve().parent.parent / "models" / "shapes-ldm"


def save_tiny_model(folder: Path) -> Path:
    """Write the pipeline into ``folder``; it has the bundled model's tokenizer."""
    tokenizer = folder.parent / "tokenizer"
    shutil.copytree(SHAPES / "tokenizer", tokenizer)
    text = CLIPTextConfig.from_pretrained(SHAPES / "text_encoder")
    text.hidden_size, text.intermediate_size = 16, 16
    text.num_hidden_layers, text.num_attention_heads = 1, 2
    torch.manual_seed(2)
    StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=CLIPTokenizer.from_pretrained(tokenizer),
        unet=tiny_unet(),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder
