"""The layer graph: what is left of a U-Net once every node is fused into a matrix product.

The accelerator knows one kind of work, the *layer*: read one or two tensors, transform every value
while reading (normalise, activate, requantise), multiply by a weight matrix (possibly over a
sliding window), transform every value while writing (bias, scale, gate, residual) and store one
tensor.  Convolutions, linear layers and both attention products are layers; group norm, layer
norm, SiLU, softmax, GEGLU, skip concatenation, up-sampling and residual additions ride along.

This module holds the float side of that contract.  ``gen.qlayers`` holds the integer side.
Arrays are kept apart from structure: a layer names its arrays by key into ``LayerGraph.arrays``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

NormKind = Literal["none", "group", "layer", "softmax"]
# gelu is the exact form, gelu_tanh its approximation by a hyperbolic tangent
ActKind = Literal["none", "silu", "gelu", "gelu_tanh"]
GateKind = Literal["none", "geglu"]
WeightKind = Literal["static", "tensor", "host"]
Role = Literal["input", "stream", "operand", "scores", "output"]


@dataclass(frozen=True)
class TensorInfo:
    """One activation tensor on the card.

    ``channels`` x ``height`` x ``width`` per batch item; token tensors keep the height and width
    of the image they came from (tokens = height * width, in row-major order).

    ``role`` decides the number format: ``stream`` tensors are normalised or added later and are
    stored wide; ``operand`` tensors feed the multiplier array as they are and are stored in
    int8; ``scores`` hold attention logits of one (item, head) at a time; ``input`` and ``output``
    are exchanged with the host.

    ``heads`` > 1 says that channels are grouped into that many heads, each of which starts with a
    group of its own in the store (``gen.program.layout``).
    """

    name: str
    channels: int
    height: int
    width: int
    role: Role
    heads: int = 1

    @property
    def pixels(self) -> int:
        """Pixels (or tokens) of one batch item."""
        return self.height * self.width


@dataclass(frozen=True)
class Read:
    """What happens to every value between the store and the multiplier array.

    ``group``: group norm over ``groups`` groups of the concatenated sources, then ``act``.
    ``layer``: layer norm over the channels of one pixel.  ``softmax``: over the channels
    (= key tokens) of one pixel, unnormalised; the row sum divides the product afterwards.
    ``gamma`` and ``beta`` are array keys of shape [channels of all sources]; None means 1 and 0.
    ``host_affine`` names a host tensor [batch, 2 * channels of all sources] of each step, scale
    rows first, then shift rows: x = norm * gamma + beta, then x * (1 + scale) + shift, then
    ``act`` (FiLM, Perez et al. 2018; diffusers' ``scale_shift``).
    """

    norm: NormKind = "none"
    groups: int = 0
    eps: float = 0.0
    gamma: str | None = None
    beta: str | None = None
    act: ActKind = "none"
    host_affine: str | None = None


@dataclass(frozen=True)
class Weight:
    """Where the right-hand operand comes from.

    ``static``: ``key`` names a float array [out, in, kh, kw].
    ``tensor``: the tensor ``key`` on the card: K (``transposed`` False: weight[token, channel])
    or V (``transposed`` True: weight[channel, token]), one slice per (item, head).
    ``host``: the same, but the array ``key`` [batch, tokens, heads * head_dim] comes from the
    host once per prompt.
    """

    kind: WeightKind
    key: str
    transposed: bool = False


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window; the default is a 1x1 window (linear layers)."""

    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    # rows/columns of zeros above, left, below, right
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    # nearest-neighbour up-sampling applied to the source before the window
    upsample: int = 1
    # rows and columns cut off the up-sampled source, below and to the right: the window sees
    # zeros there, as it does outside any image
    crop: tuple[int, int] = (0, 0)

    def seen(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of a ``height`` x ``width`` source as the window sees it."""
        return height * self.upsample - self.crop[0], width * self.upsample - self.crop[1]


@dataclass(frozen=True)
class Layer:
    """One pass through the engine. ``name`` is the module path (unique; ``.qk``/``.pv`` appended
    for attention products).
    """

    name: str
    sources: tuple[str, ...]
    dest: str
    weight: Weight
    read: Read = field(default_factory=Read)
    window: Window = field(default_factory=Window)
    # array key [out] or None
    bias: str | None = None
    # name of a host tensor [batch, out] added to the bias each step (time embedding), or None
    host_bias: str | None = None
    # stream tensor added to the result, or None
    residual: str | None = None
    # geglu: the weight has 2 x out rows, value rows first, gate rows second
    gate: GateKind = "none"
    # the product is multiplied by this (1/sqrt(head_dim) for attention logits)
    scale: float = 1.0
    # attention products run once per (item, head)
    heads: int = 0


@dataclass(frozen=True)
class HostTensor:
    """A value that the host computes: ``step`` once per timestep, ``prompt`` once per prompt."""

    name: str
    shape: tuple[int, ...]
    when: Literal["step", "prompt"]


@dataclass
class LayerGraph:
    """Layers in execution order, with the tensors, host tensors and float arrays they name."""

    batch: int
    input: str
    output: str
    tensors: dict[str, TensorInfo]
    host_tensors: dict[str, HostTensor]
    layers: list[Layer]
    arrays: dict[str, NDArray[np.float32]]

    def consumers(self, tensor: str) -> list[Layer]:
        """Layers that read ``tensor`` as source, weight or residual."""
        return [
            layer
            for layer in self.layers
            if tensor in layer.sources
            or layer.residual == tensor
            or (layer.weight.kind == "tensor" and layer.weight.key == tensor)
        ]
