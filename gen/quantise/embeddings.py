"""Prompt embeddings for calibration: from the pipeline's own text encoder where it has one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from gen.errors import UserError
from gen.model import Model


def has_text_encoder(model: Model) -> bool:
    """Whether the model comes with what turns prompts into embeddings."""
    return model.kind == "pipeline" and (model.path / "text_encoder" / "config.json").is_file()


def embed(model: Model, prompts: Sequence[str], tokens: int) -> torch.Tensor:
    """Embeddings [prompts, tokens, width] of the first text encoder's last hidden state.

    Raises UserError if tokenizer or text encoder cannot be loaded.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(model.path / "tokenizer"), local_files_only=True
        )
        encoder = _encoder(model.path / "text_encoder")
        encoded = tokenizer(
            list(prompts),
            padding="max_length",
            max_length=tokens,
            truncation=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            hidden: torch.Tensor = encoder(encoded.input_ids)[0]
    except Exception as error:
        # transformers, safetensors and json each raise their own kinds
        raise UserError(
            f"{model.path}: the text encoder cannot be run ({' '.join(str(error).split())[:300]}); "
            "restore its files (weights must be safetensors)"
        ) from error
    return hidden.to(torch.float32)


def _encoder(folder: Path) -> torch.nn.Module:
    """The encoder in the class that its configuration names first, float32, eval mode."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
    name = (config.architectures or ["CLIPTextModel"])[0]
    encoder: torch.nn.Module = getattr(transformers, name).from_pretrained(
        str(folder), dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    return encoder.eval()
