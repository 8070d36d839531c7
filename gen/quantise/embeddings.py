"""Prompt embeddings for calibration: from the pipeline's own text encoders where it has some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gen.errors import UserError
from gen.lora import fuse_loras
from gen.model import Model, read_json

# folders of (tokenizer, encoder, LoRAs for it): CLIP, the second one of SDXL, latent diffusion's
_ENCODERS = (
    ("tokenizer", "text_encoder", "text_encoder"),
    ("tokenizer_2", "text_encoder_2", "text_encoder_2"),
    ("tokenizer", "bert", "text_encoder"),
)


@dataclass(frozen=True)
class Embeddings:
    """Of some prompts, float32: ``hidden`` [prompts, tokens, width] and, from a pipeline with a
    second text encoder, ``pooled`` [prompts, width].
    """

    hidden: torch.Tensor
    pooled: torch.Tensor | None = None

    def rows(self, numbers: Sequence[int]) -> Embeddings:
        """Those of some prompts, by number."""
        index = list(numbers)
        return Embeddings(self.hidden[index], None if self.pooled is None else self.pooled[index])


def has_text_encoder(model: Model) -> bool:
    """Whether the model comes with what turns prompts into embeddings."""
    return bool(_encoders(model))


def embed(model: Model, prompts: Sequence[str], tokens: int) -> Embeddings:
    """Embeddings of ``prompts`` as the pipeline makes them.

    A single encoder gives its last hidden state. SDXL's two give the last but one, side by side,
    and the second one's projection; an empty prompt is zeros there if the pipeline says so
    (force_zeros_for_empty_prompt). The model's LoRAs are fused into the encoders. More tokens than
    an encoder takes at a time are embedded stretch by stretch, as pipelines for long prompts do;
    what the prompt does not fill is the empty prompt.

    Raises UserError if a tokenizer or text encoder cannot be loaded, or a LoRA does not fit.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    parts = _encoders(model)
    several = any(name == "text_encoder_2" for _, name, _ in parts)
    hidden, pooled = [], None
    try:
        for tokenizer, name, component in parts:
            encoder = _encoder(model.path / name)
            fuse_loras(encoder, model.loras, component)
            own = int(encoder.config.max_position_embeddings)
            stretches = []
            for first in range(0, tokens, own):
                texts = [""] * len(prompts) if first else prompts
                ids = _tokens(model.path / tokenizer, texts, min(own, tokens - first))
                with torch.no_grad():
                    if not several:
                        stretches.append(encoder(ids)[0].float())
                        continue
                    output = encoder(ids, output_hidden_states=True)
                stretches.append(output.hidden_states[-2].float())
                if not first:
                    pooled = output[0].float()
            hidden.append(torch.cat(stretches, dim=1))
    except UserError:
        raise
    except Exception as error:
        # transformers, safetensors and json each raise their own kinds
        raise UserError(
            f"{model.path}: the text encoder cannot be run ({' '.join(str(error).split())[:300]}); "
            "restore its files (weights must be safetensors)"
        ) from error
    made = Embeddings(torch.cat(hidden, dim=-1), pooled)
    if several and read_json(model.path / "model_index.json").get("force_zeros_for_empty_prompt"):
        empty = [i for i, prompt in enumerate(prompts) if not prompt]
        for values in (made.hidden, pooled):
            assert values is not None
            values[empty] = 0
    return made


def _encoders(model: Model) -> list[tuple[str, str, str]]:
    if model.kind != "pipeline":
        return []
    return [part for part in _ENCODERS if (model.path / part[1] / "config.json").is_file()]


def _tokens(folder: Path, prompts: Sequence[str], tokens: int) -> torch.Tensor:
    """Token ids [prompts, tokens], padded and cut."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    encoded = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokens,
        truncation=True,
        return_tensors="pt",
    )
    ids: torch.Tensor = encoded.input_ids
    return ids


def _encoder(folder: Path) -> Any:
    """The encoder in the class that its configuration names first, float32, eval mode."""
    import transformers

    name = (read_json(folder / "config.json").get("architectures") or ["CLIPTextModel"])[0]
    kind: Any = getattr(transformers, name, None)
    if name == "LDMBertModel":
        from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertModel

        kind = LDMBertModel
    encoder = kind.from_pretrained(
        str(folder), dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    return encoder.eval()
