"""What calibration remembers of a float layer graph at work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from gen.arrayfile import map_arrays, write_arrays
from gen.errors import UserError
from gen.floatrun import run_float
from gen.layers import LayerGraph
from gen.quantise.ranges import Arrays, ChannelRange, Range

Run = tuple[torch.Tensor, Mapping[str, torch.Tensor]]

# Kept over all runs of a calibration: values of every tensor; of every operand so many values, in
# whole pixels, at least LEAST_PIXELS. Clipping looks at each channel's tail, which few pixels miss.
SAMPLES = 131_072
OPERAND_SAMPLES = 1 << 20
LEAST_PIXELS, MOST_PIXELS = 256, 2048
_SEPARATOR = "|"


@dataclass
class LayerStatistics:
    """Of one layer's reads: before and after the activation; and of a gated layer's rows."""

    preact: Range = field(default_factory=Range)
    operand: Range = field(default_factory=Range)
    operand_channels: ChannelRange = field(default_factory=lambda: ChannelRange())
    value_channels: ChannelRange = field(default_factory=lambda: ChannelRange())
    gate: Range = field(default_factory=Range)


@dataclass
class Statistics:
    """Ranges of every tensor, host tensor and layer.

    ``host``: of all values; ``affine``: of the rows of host tensors that a read multiplies and
    adds. ``replay``: runs for :func:`gen.quantise.quantise` to repeat in integers; they are not
    part of the file.
    """

    tensors: dict[str, Range] = field(default_factory=dict)
    host: dict[str, Range] = field(default_factory=dict)
    affine: dict[str, ChannelRange] = field(default_factory=dict)
    layers: dict[str, LayerStatistics] = field(default_factory=dict)
    replay: list[Run] = field(default_factory=list)

    def merge(self, other: Statistics) -> None:
        """Account for what ``other`` has seen after this one."""
        for mine, others in ((self.tensors, other.tensors), (self.host, other.host)):
            for name, seen in others.items():
                mine.setdefault(name, Range()).merge(seen)
        for name, rows in other.affine.items():
            self.affine.setdefault(name, ChannelRange()).merge(rows)
        for name, layer in other.layers.items():
            own = self.layers.setdefault(name, LayerStatistics())
            for each in fields(LayerStatistics):
                getattr(own, each.name).merge(getattr(layer, each.name))

    def save(self, path: Path) -> None:
        """Write everything but ``replay`` to ``path`` (safetensors)."""
        arrays: dict[str, NDArray[np.float32]] = {}

        def put(kind: str, name: str, seen: Range | ChannelRange) -> None:
            for key, value in seen.arrays().items():
                arrays[_SEPARATOR.join((kind, name, key))] = value

        for name, seen in self.tensors.items():
            put("tensor", name, seen)
        for name, seen in self.host.items():
            put("host", name, seen)
        for name, rows in self.affine.items():
            put("affine", name, rows)
        for name, layer in self.layers.items():
            for each in fields(LayerStatistics):
                put(each.name, name, getattr(layer, each.name))
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """What :meth:`save` wrote. Raises UserError for a missing or damaged file."""
        try:
            groups: dict[tuple[str, str], Arrays] = {}
            for key, value in map_arrays(path).items():
                kind, name, part = key.split(_SEPARATOR)
                groups.setdefault((kind, name), {})[part] = value
            statistics = cls()
            for (kind, name), arrays in groups.items():
                if kind == "tensor":
                    statistics.tensors[name] = Range.of(arrays)
                elif kind == "host":
                    statistics.host[name] = Range.of(arrays)
                elif kind == "affine":
                    statistics.affine[name] = ChannelRange.of(arrays)
                else:
                    layer = statistics.layers.setdefault(name, LayerStatistics())
                    setattr(layer, kind, type(getattr(layer, kind)).of(arrays))
            return statistics
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise UserError(
                f"{path} is not an intact record of a calibration ({error}); delete it and build "
                "again"
            ) from error


class Collector:
    """Collects statistics from runs of a float layer graph.

    ``runs`` is how many there will be: it divides the samples that are kept. ``random``: the state
    of another collector with the same seed, of which this one is the continuation.
    """

    def __init__(
        self,
        graph: LayerGraph,
        runs: int,
        seed: tuple[int, ...] = (0,),
        random: dict[str, Any] | None = None,
    ) -> None:
        self.statistics = Statistics()
        self._graph = graph
        self._rng = np.random.default_rng(seed)
        if random is not None:
            self._rng.bit_generator.state = random
        self._samples = max(1, SAMPLES // max(1, runs))
        self._runs = max(1, runs)
        self._softmaxes = {layer.name for layer in graph.layers if layer.read.norm == "softmax"}
        self._affine = {layer.read.host_affine for layer in graph.layers} - {None}

    @property
    def random(self) -> dict[str, Any]:
        """State of the random numbers, as JSON holds it."""
        return dict(self._rng.bit_generator.state)

    def run(self, sample: torch.Tensor, host: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The graph's result for one latent and the host's values, after a look at everything.

        Raises UserError for values that are not finite.
        """
        for name, value in host.items():
            _range(self.statistics.host, name).update(value, self._rng, 0)
            if name in self._affine:
                rows = self.statistics.affine.setdefault(name, ChannelRange())
                rows.update(value[:, :, None, None], self._rng, 0)
        result = run_float(self._graph, sample, host, self._observe, parts=True)
        if not bool(torch.isfinite(result).all()):
            raise UserError(
                "the float U-Net gives values that are not finite on a calibration input; check "
                "the model's weights"
            )
        return result

    def _observe(self, kind: str, name: str, values: torch.Tensor) -> None:
        rng = self._rng
        if kind == "tensor":
            # nothing but the largest logit is needed, and there are many
            logits = self._graph.tensors[name].role == "scores"
            seen = _range(self.statistics.tensors, name)
            seen.update(values, rng, 0 if logits else self._samples)
        elif kind in ("preact", "operand", "value", "gate") and name not in self._softmaxes:
            layer = self.statistics.layers.setdefault(name, LayerStatistics())
            if kind in ("operand", "value"):
                pixels = min(MOST_PIXELS, max(LEAST_PIXELS, OPERAND_SAMPLES // values.shape[1]))
                kept = max(1, pixels // self._runs)
                getattr(layer, f"{kind}_channels").update(values, rng, kept)
            if kind == "operand":
                low, high = layer.operand_channels.limits()
                extremes = float(low.min()), float(high.max())
                layer.operand.note(values, *extremes, rng, self._samples)
            elif kind != "value":
                getattr(layer, kind).update(values, rng, self._samples)
        elif kind == "operand":
            self.statistics.layers.setdefault(name, LayerStatistics())


def calibrate(
    graph: LayerGraph, runs: Iterable[Run], progress: bool = True, max_replay: int = 32
) -> Statistics:
    """Run ``graph`` in float on every ``(sample, host tensors)`` and collect statistics.

    ``sample`` is float32 [batch, channels, height, width]. The first ``max_replay`` runs are kept
    for :func:`gen.quantise.quantise` to replay in integers.
    """
    given = list(runs)
    collector = Collector(graph, len(given))
    for sample, host in tqdm(given, "calibrate", disable=not progress):
        collector.run(sample, host)
    collector.statistics.replay = given[:max_replay]
    return collector.statistics


def _range(ranges: dict[str, Range], name: str) -> Range:
    return ranges.setdefault(name, Range())
