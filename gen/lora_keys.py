"""Names of LoRA tensors: from the key layouts in use to (component, module, part).

Layouts: diffusers and PEFT (``unet.MODULE.lora_A.weight``), older diffusers
(``MODULE.lora.down.weight``, ``ATTENTION.processor.to_q_lora.down.weight``) and kohya-ss
(``lora_unet_MODULE_WITH_UNDERSCORES.lora_down.weight``, for SDXL with the block numbers of the
original latent diffusion code).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Part = Literal["down", "up", "alpha"]

COMPONENTS = ("unet", "text_encoder", "text_encoder_2")

_KOHYA = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
}
_PARTS: dict[str, Part] = {
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora_A.default.weight": "down",
    "lora_B.default.weight": "up",
    "lora.down.weight": "down",
    "lora.up.weight": "up",
    "lora_linear_layer.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "alpha": "alpha",
}
_PROJECTION = re.compile(r"(.*?)(\.processor)?\.to_(q|k|v|out)_lora\.(down|up)\.weight")
# of a residual block, in the original code's names
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


@dataclass(frozen=True)
class Key:
    """What one tensor of a LoRA file is: ``module`` may still have underscores for dots."""

    component: str
    module: str
    part: Part


def parse_key(key: str) -> Key | None:
    """The meaning of a key, None for one of no known layout."""
    for prefix, component in _KOHYA.items():
        if key.startswith(prefix):
            module, _, rest = key.removeprefix(prefix).partition(".")
            return Key(component, module, _PARTS[rest]) if rest in _PARTS else None
    component = next((c for c in reversed(COMPONENTS) if key.startswith(f"{c}.")), "unet")
    name = key.removeprefix(f"{component}.").removeprefix("base_model.model.")
    found = _PROJECTION.fullmatch(name)
    if found:
        attention, _, projection, side = found.groups()
        part: Part = "down" if side == "down" else "up"
        if component == "unet":
            last = "to_out.0" if projection == "out" else f"to_{projection}"
        else:
            last = f"{projection}_proj"
        return Key(component, f"{attention}.{last}", part)
    for suffix, part in _PARTS.items():
        if name.endswith(f".{suffix}"):
            return Key(component, name.removesuffix(f".{suffix}"), part)
    return None


def module_names(component: str, modules: Mapping[str, Any]) -> dict[str, str]:
    """Every name that a LoRA file may have for each of ``modules`` (name -> module): itself, with
    underscores for dots, for a U-Net by the original code's block numbers, and for a text encoder
    below ``text_model``, which not every version of transformers has.
    """
    names = {name: name for name in modules}
    if component != "unet":
        names |= {f"text_model.{name}": name for name in modules}
    names |= {alias.replace(".", "_"): name for alias, name in list(names.items())}
    if component == "unet":
        layers = _layers_per_block(modules)
        attends = {m.partition(".attentions.")[0] for m in modules if ".attentions." in m}
        for name in modules:
            names[_original(name, layers, attends).replace(".", "_")] = name
    return names


def _original(name: str, layers_per_block: dict[str, int], attends: set[str]) -> str:
    """The original code's name of a diffusers U-Net's module; ``attends`` names the blocks that
    have attentions.
    """
    fixed = {
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
    }
    if name in fixed:
        return fixed[name]
    middle = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", name)
    if middle:
        kind, index, rest = middle.groups()
        number = 2 * int(index) + (kind == "attentions")
        return f"middle_block.{number}.{_inner(kind, rest)}"
    block = re.fullmatch(
        r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", name
    )
    if not block:
        return name
    way, index, kind, layer, rest = block.groups()
    layers = layers_per_block[way]
    if way == "down":
        # block 0 is conv_in; every block but the last ends in a down-sampler of its own number
        number = 1 + int(index) * (layers + 1)
        if kind == "downsamplers":
            return f"input_blocks.{number + layers}.0.op"
        blocks = "input_blocks"
    else:
        number, blocks = int(index) * layers, "output_blocks"
        if kind == "upsamplers":
            last = 1 + (f"up_blocks.{index}" in attends)
            return f"{blocks}.{number + layers - 1}.{last}.{rest}"
    return f"{blocks}.{number + int(layer)}.{int(kind == 'attentions')}.{_inner(kind, rest)}"


def _layers_per_block(modules: Mapping[str, Any]) -> dict[str, int]:
    counts = {}
    for way in ("down", "up"):
        prefix = f"{way}_blocks.0.resnets."
        indices = {m.removeprefix(prefix).split(".")[0] for m in modules if m.startswith(prefix)}
        counts[way] = len(indices)
    return counts


def _inner(kind: str, rest: str) -> str:
    if kind == "attentions":
        return rest
    return next((old for old, new in _RESNET.items() if new == rest), rest)
