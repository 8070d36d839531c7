"""What calibration remembers of a float layer graph at work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from gen.floatrun import run_float
from gen.layers import LayerGraph

Float = NDArray[np.float32]
Run = tuple[torch.Tensor, Mapping[str, torch.Tensor]]

SAMPLES_PER_RUN = 2048  # values kept of every tensor and run
PIXELS_PER_RUN = 24  # pixels kept of every operand and run


@dataclass
class Range:
    """Extremes of every value seen and a random sample of them."""

    low: float = 0.0
    high: float = 0.0
    samples: list[Float] = field(default_factory=list)

    @property
    def absmax(self) -> float:
        """Largest magnitude."""
        return max(-self.low, self.high)

    def values(self) -> NDArray[np.float64]:
        """The sample with both extremes."""
        extremes = np.array([self.low, self.high], np.float32)
        return np.concatenate([*self.samples, extremes]).astype(np.float64)

    def update(self, tensor: torch.Tensor, rng: np.random.Generator) -> None:
        """Account for the values of ``tensor``, of any shape."""
        values = tensor.detach().to(torch.float32).numpy()
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        flat = values.reshape(-1)
        if flat.size > SAMPLES_PER_RUN:
            flat = flat[rng.integers(0, flat.size, SAMPLES_PER_RUN)]
        self.samples.append(np.array(flat))


@dataclass
class ChannelRange:
    """Extremes of every channel and some random pixels, each with all its channels."""

    low: Float | None = None
    high: Float | None = None
    pixels: list[Float] = field(default_factory=list)

    def limits(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Smallest and largest value of each channel."""
        assert self.low is not None and self.high is not None
        return self.low.astype(np.float64), self.high.astype(np.float64)

    def values(self) -> NDArray[np.float64]:
        """The sample [pixels, channels]."""
        return np.concatenate(self.pixels).astype(np.float64)

    def update(self, tensor: torch.Tensor, rng: np.random.Generator) -> None:
        """Account for a tensor [batch, channels, height, width]."""
        values = tensor.detach().to(torch.float32).numpy()
        low, high = values.min(axis=(0, 2, 3)), values.max(axis=(0, 2, 3))
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)
        flat = values.transpose(0, 2, 3, 1).reshape(-1, values.shape[1])
        self.pixels.append(flat[rng.integers(0, len(flat), PIXELS_PER_RUN)].copy())


@dataclass
class LayerStatistics:
    """Of one layer's reads: before and after the activation; and of a gated layer's rows."""

    preact: Range = field(default_factory=Range)
    operand: Range = field(default_factory=Range)
    operand_channels: ChannelRange = field(default_factory=lambda: ChannelRange())
    value: Range = field(default_factory=Range)
    value_channels: ChannelRange = field(default_factory=lambda: ChannelRange())
    gate: Range = field(default_factory=Range)


@dataclass
class Statistics:
    """Ranges of every tensor, host tensor and layer, and some inputs to replay."""

    tensors: dict[str, Range] = field(default_factory=dict)
    host: dict[str, Range] = field(default_factory=dict)
    layers: dict[str, LayerStatistics] = field(default_factory=dict)
    replay: list[Run] = field(default_factory=list)
    runs: int = 0


def calibrate(
    graph: LayerGraph,
    runs: Iterable[Run],
    progress: bool = True,
    replay_every: int = 1,
    max_replay: int = 32,
) -> Statistics:
    """Run ``graph`` in float on every ``(sample, host tensors)`` and collect statistics.

    ``sample`` is float32 [batch, channels, height, width]. Every ``replay_every``-th run, at most
    ``max_replay``, is kept for :func:`gen.quantise.quantise` to replay in integers.
    """
    statistics = Statistics()
    softmaxes = {layer.name for layer in graph.layers if layer.read.norm == "softmax"}
    rng = np.random.default_rng(0)

    def observe(kind: str, name: str, values: torch.Tensor) -> None:
        if kind == "tensor":
            _range(statistics.tensors, name).update(values, rng)
        elif kind in ("preact", "operand", "value", "gate"):
            seen = statistics.layers.setdefault(name, LayerStatistics())
            getattr(seen, kind).update(values, rng)
            if kind in ("operand", "value") and name not in softmaxes:
                getattr(seen, f"{kind}_channels").update(values, rng)

    for index, (sample, host) in enumerate(tqdm(runs, "calibrate", disable=not progress)):
        if index % replay_every == 0 and len(statistics.replay) < max_replay:
            statistics.replay.append((sample, host))
        for name, value in host.items():
            _range(statistics.host, name).update(value, rng)
        run_float(graph, sample, host, observe)
        statistics.runs += 1
    return statistics


def _range(ranges: dict[str, Range], name: str) -> Range:
    return ranges.setdefault(name, Range())
