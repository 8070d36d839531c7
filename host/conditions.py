"""What a U-Net takes besides latent, timestep and prompt: class labels, a guidance embedding, and
SDXL's pooled prompt and picture size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray

from gen.errors import UserError

# added_cond_kwargs of addition_embed_type text_time
ADDED = ("text_embeds", "time_ids")


def extra_inputs(
    config: Mapping[str, Any],
    batch: int,
    class_labels: torch.Tensor | None,
    timestep_cond: torch.Tensor | None,
    added_cond_kwargs: Mapping[str, Any] | None,
) -> dict[str, NDArray[Any]]:
    """Arrays [batch, ...] of the extra inputs that a U-Net of this configuration takes, named as in
    its traced graph (``gen.trace.Traced``); empty for most.

    Raises:
        UserError: an input that is missing, of another batch, or that this U-Net does not take.
    """
    given: dict[str, torch.Tensor] = {}
    classes = config.get("class_embed_type") is not None
    if classes or config.get("num_class_embeds") is not None:
        if class_labels is None:
            raise UserError("this U-Net has a class embedding; give class_labels")
        given["class_labels"] = class_labels
    elif class_labels is not None:
        raise UserError("this U-Net has no class embedding; leave out class_labels")
    width = config.get("time_cond_proj_dim")
    if width is not None:
        # its projection has no bias: zeros stand for none
        given["timestep_cond"] = (
            torch.zeros(batch, width) if timestep_cond is None else timestep_cond
        )
    elif timestep_cond is not None:
        raise UserError("this U-Net has no guidance embedding; leave out timestep_cond")
    added = dict(added_cond_kwargs or {})
    wanted = ADDED if config.get("addition_embed_type") == "text_time" else ()
    for name in wanted:
        if name not in added:
            raise UserError(f"this U-Net needs added_cond_kwargs with {name}, as SDXL's does")
        given[f"added_cond_kwargs_{name}"] = added.pop(name)
    if added:
        raise UserError(
            f"this U-Net does not take added_cond_kwargs {', '.join(added)}: no image prompts or "
            "other adapters"
        )
    return {name: _rows(name, value, batch) for name, value in given.items()}


def _rows(name: str, value: torch.Tensor, batch: int) -> NDArray[Any]:
    tensor = torch.as_tensor(value).detach().to("cpu")
    if tensor.shape[:1] != (batch,):
        raise UserError(f"{name} has shape {list(tensor.shape)} for {batch} samples; give one each")
    if tensor.is_floating_point():
        tensor = tensor.to(torch.float32)
    array: NDArray[Any] = tensor.numpy()
    return array
