"""LoRA files, fused into the weights of a model: weight + scale * alpha / rank * up @ down.

Formula: Hu et al. 2021, "LoRA: low-rank adaptation of large language models".
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from gen.errors import UserError
from gen.lora_keys import COMPONENTS, Part, module_names, parse_key

FILE_NAME = "pytorch_lora_weights.safetensors"
# what other adapters than a plain LoRA are recognised by
_OTHERS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "lora_mid": "a LoRA with a middle tensor",
    "oft_": "OFT",
}


@dataclass(frozen=True)
class Lora:
    """A LoRA file and how much of it is added (1: as it was trained)."""

    path: Path
    scale: float = 1.0

    @staticmethod
    def parse(text: str) -> Lora:
        """``FILE`` or ``FILE:SCALE``; a folder stands for the file that diffusers saves there.

        Raises:
            UserError: no such file, or a scale that is no number.
        """
        name, colon, number = text.rpartition(":")
        if not colon or Path(text).exists():
            name, number = text, "1"
        try:
            scale = float(number)
        except ValueError:
            scale = math.nan
        if not math.isfinite(scale):
            raise UserError(f"{text}: {number} is no scale; write FILE or FILE:0.8")
        path = Path(name).resolve()
        path = path / FILE_NAME if path.is_dir() else path
        if not path.is_file():
            raise UserError(f"{path}: no such LoRA file; name a .safetensors file")
        return Lora(path, scale)


# down, up and maybe alpha of one module
_Adapter = dict[Part, torch.Tensor]


def fuse_loras(model: torch.nn.Module, loras: Sequence[Lora], component: str) -> int:
    """Add the LoRAs' products to the weights of ``model``, which is the pipeline's ``component``
    (unet, text_encoder or text_encoder_2). Returns how many weights were changed.

    Raises:
        UserError: a file that is no LoRA, of a kind that is not supported, or for another model.
    """
    return sum(_fuse(model, lora, component) for lora in loras)


def check_loras(loras: Sequence[Lora]) -> None:
    """Refuse files that are no LoRAs, or have nothing for a U-Net.

    Raises:
        UserError: see :func:`fuse_loras`.
    """
    for lora in loras:
        if not _read(lora.path)[0]["unet"]:
            raise UserError(f"{lora.path}: holds nothing for a U-Net; leave it out")


def _fuse(model: torch.nn.Module, lora: Lora, component: str) -> int:
    adapters, metadata = _read(lora.path)
    modules = {
        name: module
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight", None), torch.Tensor)
    }
    names = module_names(component, modules)
    for key, adapter in adapters[component].items():
        name = names.get(key)
        if name is None:
            raise UserError(
                f"{lora.path}: {component} has no module {key}; use a LoRA that was trained for "
                "this model"
            )
        if not {"down", "up"} <= adapter.keys():
            raise UserError(f"{lora.path}: {key} lacks one of its matrices; restore the file")
        down, up = adapter["down"].float(), adapter["up"].float()
        factor = lora.scale * _factor(adapter, metadata, component, name, rank=down.shape[0])
        module: Any = modules[name]
        module.weight = torch.nn.Parameter(
            _sum(module.weight.detach(), down, up, factor, f"{lora.path}: {key}"),
            requires_grad=module.weight.requires_grad,
        )
    return len(adapters[component])


def _sum(
    weight: torch.Tensor, down: torch.Tensor, up: torch.Tensor, factor: float, what: str
) -> torch.Tensor:
    """The sum weight [out, in, ...] + factor * up [out, rank] @ down [rank, in, ...]."""
    flat_down, flat_up = down.flatten(1), up.flatten(1)
    fits = flat_up.shape[1] == down.shape[0] and flat_up.shape[0] == weight.shape[0]
    if not fits or flat_up.shape[0] * flat_down.shape[1] != weight.numel():
        raise UserError(
            f"{what} has matrices {list(up.shape)} and {list(down.shape)} for a weight of "
            f"{list(weight.shape)}; use a LoRA that was trained for this model"
        )
    product = (flat_up @ flat_down).reshape(weight.shape)
    return (weight.float() + factor * product).to(weight.dtype)


def _factor(
    adapter: _Adapter, metadata: dict[str, Any], component: str, module: str, rank: int
) -> float:
    """The factor alpha / rank; alpha is the rank itself where the file does not tell."""
    own = adapter.get("alpha")
    if own is not None:
        return float(own.item()) / rank
    patterns = metadata.get(f"{component}.alpha_pattern") or {}
    alpha = metadata.get(f"{component}.lora_alpha", rank)
    for pattern, value in patterns.items():
        if module == pattern or module.endswith(f".{pattern}"):
            alpha = value
    root = bool(metadata.get(f"{component}.use_rslora"))
    return float(alpha) / (rank**0.5 if root else rank)


def _read(path: Path) -> tuple[dict[str, dict[str, _Adapter]], dict[str, Any]]:
    """Adapters by component and module, and PEFT's own metadata."""
    adapters: dict[str, dict[str, _Adapter]] = {name: {} for name in COMPONENTS}
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("lora_adapter_metadata", "{}")
            metadata = json.loads(text)
            for key in file.keys():  # noqa: SIM118
                _refuse_others(path, key)
                parsed = parse_key(key)
                if parsed is None:
                    raise UserError(
                        f"{path}: {key} is no tensor of a LoRA; name a LoRA file in the layout of "
                        "diffusers, PEFT or kohya-ss"
                    )
                adapter = adapters[parsed.component].setdefault(parsed.module, {})
                adapter[parsed.part] = file.get_tensor(key)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read as safetensors ({error}); restore the file, or convert it"
        ) from error
    return adapters, metadata


def _refuse_others(path: Path, key: str) -> None:
    for mark, kind in _OTHERS.items():
        if mark in key:
            raise UserError(f"{path}: {key} belongs to {kind}, which is not supported")
