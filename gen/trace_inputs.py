"""Example inputs that a diffusers U-Net's configuration asks for."""

from __future__ import annotations

from typing import Any

import torch

from gen.errors import UserError

CONDITIONAL = "UNet2DConditionModel"
UNCONDITIONAL = "UNet2DModel"


def example_inputs(
    unet: torch.nn.Module, batch: int, height: int, width: int, tokens: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(args, kwargs) to trace the U-Net with; values do not matter, shapes and dtypes do.

    Raises UserError for models that are no U-Net and for configurations that need other inputs.
    """
    kind = type(unet).__name__
    if kind not in (CONDITIONAL, UNCONDITIONAL):
        raise UserError(f"{kind} is not supported; a {CONDITIONAL} or {UNCONDITIONAL} is needed")
    config: Any = unet.config
    device = next(unet.parameters()).device
    channels = int(config.in_channels)
    # a conditional U-Net gives its up-samplers the sizes of the skip connections
    steps = 1 if kind == CONDITIONAL else 2 ** (len(config.down_block_types) - 1)
    if height % steps or width % steps or min(batch, height, width) < 1:
        raise UserError(
            f"a latent of {batch}x{channels}x{height}x{width} does not fit this U-Net; "
            f"choose height and width as multiples of {steps}"
        )
    sample = torch.zeros(batch, channels, height, width, device=device)
    # a learned embedding is a table by timestep
    learned = getattr(config, "time_embedding_type", None) == "learned"
    timestep = torch.tensor(1, dtype=torch.int64 if learned else torch.float32, device=device)
    kwargs: dict[str, Any] = {"return_dict": False}
    labels = _class_labels(config, batch, device)
    if labels is not None:
        kwargs["class_labels"] = labels
    if kind == CONDITIONAL:
        if tokens < 1:
            raise UserError(f"a {CONDITIONAL} needs the number of prompt tokens")
        kwargs["encoder_hidden_states"] = torch.zeros(
            batch, tokens, _prompt_width(config), device=device
        )
        kwargs |= _added(config, batch, device)
    return (sample, timestep), kwargs


def _prompt_width(config: Any) -> int:
    projection = config.encoder_hid_dim_type
    if projection not in (None, "text_proj"):
        raise UserError(f"encoder_hid_dim_type {projection} is not supported")
    width = config.encoder_hid_dim if projection else config.cross_attention_dim
    if isinstance(width, (list, tuple)):
        if len(set(width)) > 1:
            raise UserError(f"cross_attention_dim {list(width)} differs from block to block")
        width = width[0]
    return int(width)


def _class_labels(config: Any, batch: int, device: torch.device) -> torch.Tensor | None:
    kind = config.class_embed_type
    if kind is None and config.num_class_embeds is not None:
        return torch.zeros(batch, dtype=torch.int64, device=device)
    if kind is None:
        return None
    if kind == "timestep":
        return torch.zeros(batch, device=device)
    if kind == "identity":
        return torch.zeros(batch, 4 * config.block_out_channels[0], device=device)
    if kind in ("projection", "simple_projection"):
        return torch.zeros(batch, config.projection_class_embeddings_input_dim, device=device)
    raise UserError(f"class_embed_type {kind} is not supported")


def _added(config: Any, batch: int, device: torch.device) -> dict[str, Any]:
    added: dict[str, Any] = {}
    if config.time_cond_proj_dim is not None:
        added["timestep_cond"] = torch.zeros(batch, config.time_cond_proj_dim, device=device)
    kind = config.addition_embed_type
    if kind == "text_time":
        ids = 6
        pooled = config.projection_class_embeddings_input_dim - ids * config.addition_time_embed_dim
        added["added_cond_kwargs"] = {
            "text_embeds": torch.zeros(batch, pooled, device=device),
            "time_ids": torch.zeros(batch, ids, device=device),
        }
    elif kind is not None:
        raise UserError(f"addition_embed_type {kind} is not supported")
    return added
