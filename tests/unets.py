"""U-Nets with random weights, traced and lowered once per test run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel

from gen.hostgraph import HostGraph
from gen.layers import LayerGraph
from gen.passes import lower
from gen.trace import Traced, trace_unet

BUNDLED = {
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "block_out_channels": (64, 128, 192),
    "attention_head_dim": (2, 4, 6),
    "cross_attention_dim": 64,
    "norm_num_groups": 16,
}
TINY = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "block_out_channels": (16, 32),
    "attention_head_dim": (1, 2),
    "cross_attention_dim": 24,
    "norm_num_groups": 8,
}
SD15_LIKE = {
    "block_out_channels": (32, 64, 64, 64),
    "attention_head_dim": 8,
    "cross_attention_dim": 40,
    "layers_per_block": 1,
    "norm_num_groups": 16,
}
# asymmetric padding, one head as wide as the channels, no prompt
DDPM_LIKE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (32, 48, 64),
    "layers_per_block": 1,
    "downsample_padding": 0,
    "attention_head_dim": None,
    "freq_shift": 1,
    "flip_sin_to_cos": False,
    "norm_num_groups": 16,
    "norm_eps": 1e-6,
}

SCALE_SHIFT = DDPM_LIKE | {
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "block_out_channels": (24, 48),
    "norm_num_groups": 6,
    "resnet_time_scale_shift": "scale_shift",
}
ARCHITECTURES = Path(__file__).parents[1] / "models" / "architectures"

# graphs this small gain nothing from more threads
torch.set_num_threads(1)


@dataclass
class Case:
    """A U-Net with inputs; ``extra`` as the host graph names them, ``kwargs`` as the U-Net does."""

    unet: torch.nn.Module
    traced: Traced
    layers: LayerGraph
    host: HostGraph
    sample: torch.Tensor
    prompt: torch.Tensor | None
    extra: dict[str, torch.Tensor] = field(default_factory=dict)
    kwargs: dict[str, object] = field(default_factory=dict)

    def reference(self, timestep: float) -> torch.Tensor:
        """The U-Net's own output."""
        args = [self.sample, torch.tensor(timestep)]
        if self.prompt is not None:
            args.append(self.prompt)
        with torch.no_grad():
            return self.unet(*args, return_dict=False, **self.kwargs)[0]

    def host_values(self, timestep: float) -> dict[str, torch.Tensor]:
        step = self.host.evaluate_step(timestep, self.layers.batch, self.extra)
        return step | self.host.evaluate_prompt(self.prompt, self.extra)


def random_unet(kind: type[torch.nn.Module], config: dict[str, object]) -> torch.nn.Module:
    """A U-Net whose biases and norms are random too: freshly made ones are 0 and 1."""
    torch.manual_seed(0)
    unet = kind(**config).eval()
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.03)
    return unet


def case(
    kind: type[torch.nn.Module],
    config: dict[str, object],
    batch: int,
    height: int,
    width: int,
    tokens: int,
    extra: dict[str, torch.Tensor] | None = None,
    kwargs: dict[str, object] | None = None,
) -> Case:
    unet = random_unet(kind, config)
    traced = trace_unet(unet, batch=batch, height=height, width=width, tokens=tokens)
    layers, host = lower(traced)
    sample = torch.randn(batch, unet.config.in_channels, height, width)
    prompt = None
    if tokens:
        prompt = torch.randn(batch, tokens, unet.config.cross_attention_dim)
    return Case(unet, traced, layers, host, sample, prompt, extra or {}, kwargs or {})


def architecture(name: str) -> dict[str, object]:
    """A shipped architecture: class, configuration, batch, tokens."""
    return json.loads((ARCHITECTURES / f"{name}.json").read_text())


# by how much an architecture is narrowed; channels keep multiples of odd numbers
NARROWER = 8


@lru_cache
def narrow(name: str) -> Case:
    """A shipped architecture with all its blocks, an eighth of its channels, a small latent and few
    prompt tokens.
    """
    described = architecture(name)
    config = dict(described["config"])
    config["block_out_channels"] = [c // NARROWER for c in config["block_out_channels"]]
    config["norm_num_groups"] = 4
    extra: dict[str, torch.Tensor] = {}
    kwargs: dict[str, object] = {}
    torch.manual_seed(1)
    batch, size = described["batch"], 2 ** (len(config["block_out_channels"]) - 1)
    if described["class"] == "UNet2DModel":
        # a width of heads, not their number
        if config["attention_head_dim"] is not None:
            config["attention_head_dim"] //= NARROWER
        return case(UNet2DModel, config, batch, size, 2 * size, 0)
    config["cross_attention_dim"] //= NARROWER
    if config.get("time_cond_proj_dim"):
        guidance = torch.randn(batch, config["time_cond_proj_dim"])
        extra["timestep_cond"] = kwargs["timestep_cond"] = guidance
    if config.get("addition_embed_type"):
        config["addition_time_embed_dim"] //= NARROWER
        config["projection_class_embeddings_input_dim"] //= NARROWER
        added = {"text_embeds": torch.randn(batch, 160), "time_ids": torch.rand(batch, 6) * 100}
        kwargs["added_cond_kwargs"] = added
        extra |= {f"added_cond_kwargs_{name}": value for name, value in added.items()}
    return case(UNet2DConditionModel, config, batch, size, 2 * size, 9, extra, kwargs)


def on_meta(name: str) -> Traced:
    """A shipped architecture at full size, traced without weights."""
    described = architecture(name)
    with torch.device("meta"):
        unet = getattr(diffusers, described["class"]).from_config(described["config"])
    size = described["config"]["sample_size"]
    return trace_unet(
        unet,
        batch=described["batch"],
        height=size,
        width=size,
        tokens=described.get("tokens", 0),
    )


@lru_cache
def bundled() -> Case:
    return case(UNet2DConditionModel, BUNDLED, 2, 16, 16, 16)


@lru_cache
def tiny() -> Case:
    return case(UNet2DConditionModel, TINY, 2, 8, 8, 5)


@lru_cache
def single_pixel() -> Case:
    """Batch 1, a single prompt token and a single pixel at the bottom."""
    return case(UNet2DConditionModel, TINY, 1, 2, 2, 1)


@lru_cache
def sd15_like() -> Case:
    return case(UNet2DConditionModel, SD15_LIKE, 2, 8, 16, 7)


@lru_cache
def ddpm_like() -> Case:
    return case(UNet2DModel, DDPM_LIKE, 2, 16, 16, 0)


@lru_cache
def scale_shift() -> Case:
    """Group norms scaled and shifted by the time embedding; channels that fill no array."""
    return case(UNet2DModel, SCALE_SHIFT, 2, 8, 8, 0)


@lru_cache
def odd() -> Case:
    """A latent that halves to odd sizes: up-sampling is cropped in both directions."""
    return case(UNet2DConditionModel, TINY, 1, 7, 9, 3)


@lru_cache
def sdxl_like() -> Case:
    """Linear projections, several blocks per transformer, extra time embeddings."""
    config = TINY | {
        "transformer_layers_per_block": (1, 2),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 60,
    }
    torch.manual_seed(1)
    added = {"text_embeds": torch.randn(2, 12), "time_ids": torch.rand(2, 6) * 100}
    extra = {f"added_cond_kwargs_{name}": value for name, value in added.items()}
    kwargs = {"added_cond_kwargs": added}
    return case(UNet2DConditionModel, config, 2, 8, 8, 4, extra, kwargs)


ALL = (
    bundled,
    tiny,
    single_pixel,
    ddpm_like,
    scale_shift,
    odd,
    pytest.param(sd15_like, marks=pytest.mark.slow),
    pytest.param(sdxl_like, marks=pytest.mark.slow),
)


def layers_of(graph: LayerGraph) -> dict[str, object]:
    return {layer.name: layer for layer in graph.layers}
