"""A stand-in for a pipeline's U-Net whose every forward pass is computed by a card::

    pipe = StableDiffusionPipeline.from_pretrained("models/shapes-ldm")
    pipe.unet = AcceleratedUNet("build/shapes-ldm", pipe.unet)

The pipeline keeps its own scheduler, guidance and callbacks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import torch
from diffusers.configuration_utils import FrozenDict
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from numpy.typing import NDArray

from gen.errors import UserError
from host.accelerator import Accelerator, Stepper
from host.conditions import extra_inputs

NOT_DONE = (
    "it computes inference with the weights that it was built from: no gradients, no ControlNet or "
    "adapter residuals, no attention masks, no cross_attention_kwargs, no attention processors, no "
    "LoRA that is not fused into the build"
)


def _refusing(what: str) -> Callable[..., NoReturn]:
    """A method that says that ``what`` is not done."""

    def method(self: torch.nn.Module, *args: object, **options: object) -> NoReturn:
        raise UserError(f"the accelerated U-Net does not do {what}: {NOT_DONE}")

    return method


class AcceleratedUNet(torch.nn.Module):
    """Same call and result as the diffusers U-Net that it stands in for.

    Called as ``UNet2DConditionModel`` is; given a ``UNet2DModel``, an object is made that is called
    as that one (``AcceleratedUNet2D``). What it does not do is said in ``NOT_DONE``. Any batch is
    accepted: it is split into, or padded to, the batch that the accelerator was built for.

    Args:
        accelerator: an opened accelerator, or the folder of a build (opened on card 0).
        unet: the float U-Net that it stands in for; it gives ``config`` and must be the model that
            the build was made from. It is not kept.

    Raises:
        UserError: not a usable build, or one that was made from another model.
    """

    def __new__(cls, accelerator: Accelerator | Path | str, unet: Any) -> AcceleratedUNet:
        """An object of the class whose ``forward`` has the signature of ``unet``'s."""
        conditional = "encoder_hid_dim_type" in unet.config
        return super().__new__(cls if conditional else AcceleratedUNet2D)

    def __init__(self, accelerator: Accelerator | Path | str, unet: Any) -> None:
        super().__init__()
        if not isinstance(accelerator, Accelerator):
            accelerator = Accelerator(Path(accelerator))
        accelerator.check_model(unet)
        self.accelerator: Stepper = accelerator
        _, height, width = accelerator.latent_shape
        # pipelines take the size of their pictures from it
        size = height if height == width else (height, width)
        self.config = FrozenDict({**unet.config, "sample_size": size})
        if getattr(unet, "add_embedding", None) is not None:
            # SDXL's pipelines check the width of their added conditions against it
            width = unet.add_embedding.linear_1.in_features
            self.add_embedding = SimpleNamespace(linear_1=SimpleNamespace(in_features=width))
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
        """Noise prediction [batch, out_channels, height, width] for ``sample`` [batch, in_channels,
        height, width].

        Raises:
            UserError: an input that the accelerator does not take, or a fault of the card.
        """
        refused = {
            "attention_mask": attention_mask,
            "cross_attention_kwargs": cross_attention_kwargs or None,
            "down_block_additional_residuals": down_block_additional_residuals,
            "mid_block_additional_residual": mid_block_additional_residual,
            "down_intrablock_additional_residuals": down_intrablock_additional_residuals,
            "encoder_attention_mask": encoder_attention_mask,
        }
        for name, value in refused.items():
            if value is not None:
                raise UserError(f"the accelerated U-Net does not take {name}: {NOT_DONE}")
        extra = extra_inputs(
            self.config, len(sample), class_labels, timestep_cond, added_cond_kwargs
        )
        noise = self._step(sample, timestep, encoder_hidden_states, extra)
        return UNet2DConditionOutput(sample=noise) if return_dict else (noise,)

    def _step(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        encoder_hidden_states: torch.Tensor | None,
        extra: Mapping[str, NDArray[Any]],
    ) -> torch.Tensor:
        if sample.requires_grad and torch.is_grad_enabled():
            raise UserError(f"the accelerated U-Net has no gradients: {NOT_DONE}")
        prompt = None if encoder_hidden_states is None else _array(encoder_hidden_states)
        # U-Nets without extra inputs are served without them
        options: dict[str, Any] = {"extra": extra} if extra else {}
        result = self.accelerator.step(_array(sample), _timesteps(timestep), prompt, **options)
        noise = torch.from_numpy(result)
        return noise if _is_plain(sample) else noise.to(sample.device, sample.dtype)

    enable_freeu = _refusing("FreeU")
    disable_freeu = _refusing("FreeU")
    set_attn_processor = _refusing("attention processors")
    fuse_qkv_projections = _refusing("fused projections")
    unfuse_qkv_projections = _refusing("fused projections")
    load_attn_procs = _refusing("attention processors")
    load_lora_adapter = _refusing("LoRA after the build (give it to the build by --lora)")
    enable_gradient_checkpointing = _refusing("gradients")


class AcceleratedUNet2D(AcceleratedUNet):
    """An accelerated U-Net that is called as ``UNet2DModel`` is."""

    def forward(  # type: ignore[override]
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        class_labels: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        """Noise prediction [batch, out_channels, height, width] for ``sample`` [batch, in_channels,
        height, width].

        Raises:
            UserError: an input that the accelerator does not take, or a fault of the card.
        """
        extra = extra_inputs(self.config, len(sample), class_labels, None, None)
        noise = self._step(sample, timestep, None, extra)
        return UNet2DOutput(sample=noise) if return_dict else (noise,)


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether the card takes the tensor as it is. Conversions that change nothing cost time."""
    return tensor.dtype is torch.float32 and tensor.is_cpu and not tensor.requires_grad


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    """A tensor as a float32 array, shared where that is possible."""
    if not _is_plain(tensor):
        tensor = tensor.detach().to("cpu", torch.float32)
    array: NDArray[np.float32] = tensor.numpy()
    return array


def _timesteps(timestep: torch.Tensor | float | int) -> NDArray[np.float64]:
    """Timestep(s) as float64 [1] or [batch]."""
    if isinstance(timestep, torch.Tensor):
        if timestep.ndim:
            steps: NDArray[np.float64] = timestep.detach().to("cpu", torch.float64).numpy()
            return steps
        timestep = timestep.item()
    return np.array([timestep], dtype=np.float64)
