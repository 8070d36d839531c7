"""The float meaning of a layer graph, in torch float32: the yardstick of everything integer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F

from gen.errors import UserError
from gen.layers import ActKind, Layer, LayerGraph

# kind, name, values; kinds:
#   tensor      name of a stored tensor: [B, C, H, W]; attention logits: [B, heads, pixels, tokens]
#   normalised  name of a layer: after its norm, before gamma and beta, [B, C, H, W]
#   preact      name of a layer: the input of its activation, [B, C, H, W]
#   operand     name of a layer: what meets the multipliers, [B, C, H, W] before up-sampling;
#               after a softmax exp(logit - row maximum), [B, heads, pixels, tokens]
#   weight      name of an attention layer: its keys or values, [B, heads, tokens, head_dim]
#   product     name of a layer: the product with bias and host bias, before gate and residual,
#               [B, rows, H, W]; after a softmax already divided by the row sums
#   value gate  name of a layer with a GEGLU: its halves, [B, C, H, W]
Observer = Callable[[str, str, torch.Tensor], None]

PART_VALUES = 1 << 22  # logits of one part: 16 MiB, which caches hold


@torch.no_grad()
def run_float(
    graph: LayerGraph,
    sample: torch.Tensor,
    host: Mapping[str, torch.Tensor],
    observe: Observer | None = None,
    parts: bool = False,
) -> torch.Tensor:
    """The U-Net's output [B, C, H, W] for a latent [B, C, H, W] and the host's values.

    ``observe(kind, name, values)`` is shown every intermediate value (kinds above); the values must
    not be written to. With ``parts`` (and whenever nobody observes) logits never exist as a whole:
    they and what the softmax makes of them are shown in parts of some pixels each, in order, which
    last no longer than the call.

    Raises UserError for a latent of the wrong shape or a missing host value.
    """
    entry = graph.tensors[graph.input]
    shape = (graph.batch, entry.channels, entry.height, entry.width)
    if tuple(sample.shape) != shape:
        raise UserError(f"the latent is {list(sample.shape)}; this build needs {list(shape)}")
    for name, tensor in graph.host_tensors.items():
        if name not in host:
            raise UserError(f"the host value {name} is missing")
        given, built = tuple(host[name].shape), tensor.shape
        # a prompt may have fewer tokens
        shorter = tensor.when == "prompt" and len(given) == len(built) and given[1] <= built[1]
        if given != (built[0], given[1], *built[2:]) if shorter else given != built:
            raise UserError(f"{name} is {list(given)}, not {list(built)}")
    run = _Run(graph, host, observe or _unobserved, parts or observe is None)
    run.store(graph.input, sample.to(torch.float32))
    last_use = {name: i for i, layer in enumerate(graph.layers) for name in _reads(layer)}
    for index, layer in enumerate(graph.layers):
        if not run.in_parts(layer):
            run.store(layer.dest, run.layer(layer))
        for name in _reads(layer):
            if last_use[name] == index and name != graph.output:
                run.tensors.pop(name, None)
    return run.tensors[graph.output]


ACTIVATIONS: dict[ActKind, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


def _unobserved(kind: str, name: str, values: torch.Tensor) -> None:
    pass


def _reads(layer: Layer) -> list[str]:
    names = [*layer.sources, *([layer.residual] if layer.residual else [])]
    return [*names, layer.weight.key] if layer.weight.kind == "tensor" else names


class _Run:
    def __init__(
        self,
        graph: LayerGraph,
        host: Mapping[str, torch.Tensor],
        observe: Observer,
        parts: bool,
    ) -> None:
        self.graph = graph
        self.host = host
        self.observe = observe
        self.parts = parts
        self.tensors: dict[str, torch.Tensor] = {}
        # attention results that were computed together with their logits
        self.attended: dict[str, torch.Tensor] = {}

    def store(self, name: str, values: torch.Tensor) -> None:
        self.tensors[name] = values
        self.observe("tensor", name, values)

    def array(self, key: str | None) -> torch.Tensor | None:
        return None if key is None else torch.from_numpy(self.graph.arrays[key])

    def layer(self, layer: Layer) -> torch.Tensor:
        """What ``layer`` stores."""
        x = self.read(layer)
        self.observe("operand", layer.name, x)
        y = self.static(layer, x) if layer.weight.kind == "static" else self.attention(layer, x)
        self.observe("product", layer.name, y)
        if layer.gate == "geglu":
            value, gate = y.chunk(2, dim=1)
            self.observe("value", layer.name, value)
            self.observe("gate", layer.name, gate)
            y = value * F.gelu(gate)
        if layer.residual is not None:
            y = y + self.tensors[layer.residual]
        return y

    def read(self, layer: Layer) -> torch.Tensor:
        """The operand, before up-sampling."""
        read = layer.read
        parts = [self.tensors[name] for name in layer.sources]
        x = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        if read.norm == "softmax":
            return torch.exp(x - x.amax(dim=-1, keepdim=True))
        if read.norm == "group":
            x = F.group_norm(x, read.groups, eps=read.eps)
        elif read.norm == "layer":
            moved = x.permute(0, 2, 3, 1)
            x = F.layer_norm(moved, moved.shape[-1:], eps=read.eps).permute(0, 3, 1, 2)
        if read.norm != "none":
            self.observe("normalised", layer.name, x)
        gamma, beta = self.array(read.gamma), self.array(read.beta)
        if gamma is not None:
            x = x * gamma[:, None, None]
        if beta is not None:
            x = x + beta[:, None, None]
        if read.host_affine is not None:
            affine = self.host[read.host_affine].to(torch.float32)[:, :, None, None]
            scale, shift = affine.chunk(2, dim=1)
            x = x * (1 + scale) + shift
        if read.act != "none":
            self.observe("preact", layer.name, x)
            x = ACTIVATIONS[read.act](x)
        return x

    def static(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        """Convolution by a static weight, with its biases."""
        window = layer.window
        if window.upsample > 1:
            x = F.interpolate(x, scale_factor=float(window.upsample), mode="nearest")
        source = self.graph.tensors[layer.sources[0]]
        rows, columns = window.seen(source.height, source.width)
        x = x[:, :, :rows, :columns]
        top, left, bottom, right = window.pad
        if any(window.pad):
            x = F.pad(x, (left, right, top, bottom))
        weight = self.array(layer.weight.key)
        assert weight is not None
        y = F.conv2d(x, weight, stride=window.stride) * layer.scale
        bias = self.array(layer.bias)
        if bias is not None:
            y = y + bias[:, None, None]
        if layer.host_bias is not None:
            y = y + self.host[layer.host_bias].to(torch.float32)[:, :, None, None]
        return y

    def attention(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        """Logits [B, heads, pixels, tokens] of queries [B, C, H, W], or the other way round."""
        right = self.right_hand(layer)
        self.observe("weight", layer.name, right)
        if layer.weight.transposed:
            return self.image(layer, mixed(layer, x, right))
        return logits(layer, self.by_head(layer, x), right)

    def in_parts(self, layer: Layer) -> bool:
        """Do the work of both attention products at the first one, and none at the second.

        False where that is not wanted, or where the values of the second are not there yet.
        """
        if layer.dest in self.attended:
            self.observe("product", layer.name, self.attended[layer.dest])
            self.store(layer.dest, self.attended.pop(layer.dest))
            return True
        if not self.parts or self.graph.tensors[layer.dest].role != "scores":
            return False
        readers = self.graph.consumers(layer.dest)
        if len(readers) != 1 or not self.is_there(readers[0]):
            return False
        second = readers[0]
        keys, values = self.right_hand(layer), self.right_hand(second)
        self.observe("weight", layer.name, keys)
        self.observe("weight", second.name, values)
        x = self.read(layer)
        self.observe("operand", layer.name, x)
        queries = self.by_head(layer, x)
        rows = max(1, PART_VALUES // (keys.shape[0] * keys.shape[1] * keys.shape[2]))
        done = []
        for part in torch.split(queries, rows, dim=3):
            own = logits(layer, part, keys)
            self.observe("product", layer.name, own)
            self.observe("tensor", layer.dest, own)
            weights = own.sub_(own.amax(dim=-1, keepdim=True)).exp_()
            self.observe("operand", second.name, weights)
            done.append(mixed(second, weights, values))
        self.attended[second.dest] = self.image(second, torch.cat(done, dim=2))
        return True

    def is_there(self, layer: Layer) -> bool:
        """Whether the keys or values of ``layer`` are known."""
        return layer.weight.kind == "host" or layer.weight.key in self.tensors

    def right_hand(self, layer: Layer) -> torch.Tensor:
        """Keys or values [B, heads, tokens, head_dim]."""
        if layer.weight.kind == "host":
            held = self.host[layer.weight.key].to(torch.float32)  # [B, tokens, C]
        else:
            held = self.tensors[layer.weight.key].flatten(2).transpose(1, 2)
        batch, tokens, channels = held.shape
        split = held.reshape(batch, tokens, layer.heads, channels // layer.heads)
        return split.transpose(1, 2)

    def by_head(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        """An image [B, C, H, W] as [B, heads, head_dim, pixels]."""
        return x.reshape(x.shape[0], layer.heads, x.shape[1] // layer.heads, -1)

    def image(self, layer: Layer, y: torch.Tensor) -> torch.Tensor:
        """Results [B, heads, pixels, head_dim] as the image that ``layer`` stores."""
        dest = self.graph.tensors[layer.dest]
        return y.transpose(2, 3).reshape(y.shape[0], dest.channels, dest.height, dest.width)


def logits(layer: Layer, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """[B, heads, pixels, tokens] of queries [.., head_dim, pixels], keys [.., tokens, head_dim]."""
    return torch.matmul(queries.transpose(2, 3) * layer.scale, keys.transpose(2, 3))


def mixed(layer: Layer, weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """[B, heads, pixels, head_dim]: values [.., tokens, head_dim] weighted by [.., pixels, tokens].

    The weights need not add up to 1.
    """
    return torch.matmul(weights, values) / weights.sum(dim=-1, keepdim=True) * layer.scale
