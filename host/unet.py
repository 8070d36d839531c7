"""A stand-in for a pipeline's U-Net whose every forward pass is computed by a card::

    pipe = StableDiffusionPipeline.from_pretrained("models/shapes-ldm")
    pipe.unet = AcceleratedUNet("build/shapes-ldm", pipe.unet)

The pipeline keeps its own scheduler, guidance and callbacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

from gen.errors import UserError
from host.accelerator import Accelerator, Stepper

NOT_DONE = (
    "it computes inference with a sample, a timestep and encoder_hidden_states only: no gradients, "
    "no ControlNet or adapter residuals, no attention masks, no class labels, no "
    "cross_attention_kwargs (LoRA scale), no added conditions"
)


class AcceleratedUNet(torch.nn.Module):
    """Same call and result as ``UNet2DConditionModel``; the work is done by an accelerator.

    What it does not do is said in ``NOT_DONE``. Any batch is accepted: it is split into, or
    padded to, the batch that the accelerator was built for.

    Args:
        accelerator: an opened accelerator, or the folder of a build (opened on card 0).
        unet: the float U-Net that it stands in for; it gives ``config`` and must be the model that
            the build was made from. It is not kept.

    Raises:
        UserError: not a usable build, or one that was made from another model.
    """

    def __init__(self, accelerator: Accelerator | Path | str, unet: Any) -> None:
        super().__init__()
        if not isinstance(accelerator, Accelerator):
            accelerator = Accelerator(Path(accelerator))
        accelerator.check_model(unet)
        self.accelerator: Stepper = accelerator
        self.config = unet.config
        # has no values; device and dtype follow ``to``
        self.register_buffer("_place", torch.empty(0, dtype=unet.dtype), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Type that the pipeline hands over and gets back; the card computes in integers."""
        return self._buffers["_place"].dtype  # type: ignore[union-attr]

    @property
    def device(self) -> torch.device:
        """Where the pipeline's tensors are; the card has its own memory."""
        return self._buffers["_place"].device  # type: ignore[union-attr]

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        encoder_hidden_states: torch.Tensor | None = None,
        class_labels: torch.Tensor | None = None,
        timestep_cond: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        added_cond_kwargs: Mapping[str, Any] | None = None,
        down_block_additional_residuals: Any = None,
        mid_block_additional_residual: torch.Tensor | None = None,
        down_intrablock_additional_residuals: Any = None,
        encoder_attention_mask: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DConditionOutput | tuple[torch.Tensor]:
        """Noise prediction [batch, channels, height, width] for ``sample`` of that shape.

        Raises:
            UserError: an input that the accelerator does not take, or a fault of the card.
        """
        refused = {
            "class_labels": class_labels,
            "timestep_cond": timestep_cond,
            "attention_mask": attention_mask,
            "cross_attention_kwargs": cross_attention_kwargs or None,
            "added_cond_kwargs": added_cond_kwargs or None,
            "down_block_additional_residuals": down_block_additional_residuals,
            "mid_block_additional_residual": mid_block_additional_residual,
            "down_intrablock_additional_residuals": down_intrablock_additional_residuals,
            "encoder_attention_mask": encoder_attention_mask,
        }
        for name, value in refused.items():
            if value is not None:
                raise UserError(f"the accelerated U-Net does not take {name}: {NOT_DONE}")
        if sample.requires_grad and torch.is_grad_enabled():
            raise UserError(f"the accelerated U-Net has no gradients: {NOT_DONE}")
        prompt = None
        if encoder_hidden_states is not None:
            prompt = _array(encoder_hidden_states)
        result = self.accelerator.step(_array(sample), _timesteps(timestep), prompt)
        noise = torch.from_numpy(result)
        if not _is_plain(sample):
            noise = noise.to(sample.device, sample.dtype)
        if not return_dict:
            return (noise,)
        return UNet2DConditionOutput(sample=noise)


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether the card takes the tensor as it is. Conversions that change nothing cost time."""
    return tensor.dtype is torch.float32 and tensor.is_cpu and not tensor.requires_grad


def _array(tensor: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A tensor as a float32 array, shared where that is possible."""
    if not _is_plain(tensor):
        tensor = tensor.detach().to("cpu", torch.float32)
    return tensor.numpy()


def _timesteps(timestep: torch.Tensor | float | int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Timestep(s) as float64 [1] or [batch]."""
    if isinstance(timestep, torch.Tensor):
        if timestep.ndim:
            return timestep.detach().to("cpu", torch.float64).numpy()
        timestep = timestep.item()
    return np.array([timestep], dtype=np.float64)
