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
class LayerStatistics:
    """Of one layer's reads: before and after the activation; and of a gated layer's rows."""

    preact: Range = field(default_factory=Range)
    operand: Range = field(default_factory=Range)
    # largest magnitude of each channel of the operand
    channel_absmax: NDArray[np.float64] | None = None
    value: Range = field(default_factory=Range)
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
    rng = np.random.default_rng(0)

    def observe(kind: str, name: str, values: torch.Tensor) -> None:
        if kind == "tensor":
            _range(statistics.tensors, name).update(values, rng)
        elif kind in ("preact", "operand", "value", "gate"):
            seen = statistics.layers.setdefault(name, LayerStatistics())
            getattr(seen, kind).update(values, rng)
            if kind == "operand":
                absmax = values.abs().amax(dim=(0, 2, 3)).numpy().astype(np.float64)
                if seen.channel_absmax is not None:
                    absmax = np.maximum(absmax, seen.channel_absmax)
                seen.channel_absmax = absmax

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
