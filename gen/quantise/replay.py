"""Calibration inputs run through float and integer layers side by side.

The integer layers are built in execution order, each knowing what the ones before it really
deliver; its roundings and its bias can then make up for their errors as well as its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gen.floatrun import run_float
from gen.hostints import prompt_weight, quantise_latent, step_affine, step_bias
from gen.layers import Layer, LayerGraph
from gen.qlayers import QGraph, QLayer
from gen.quantise.reads import OperandRead
from gen.quantise.statistics import Run
from gen.reference.operand import operand
from gen.reference.product import patches
from gen.reference.run import run_layer
from gen.reference.write import Stored

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_HALF_LIMIT = 6e4
MAX_COLUMNS = 4096  # operand vectors that enter the moments of one layer


@dataclass(frozen=True)
class Moments:
    """Of operand vectors [inputs] in units of the integer operand.

    ``grams`` hold the mean of x x^T for integer operands x, for one span of inputs after the
    other; ``mean`` is that of x, ``float_mean`` that of the float operands.
    """

    grams: list[tuple[slice, Float64]]
    mean: Float64
    float_mean: Float64


@dataclass
class _Item:
    host: Mapping[str, Float32]
    # float operand of every layer with static weights, float16 where its range allows
    operands: dict[str, torch.Tensor]
    stored: dict[str, Stored]


class Replay:
    """State of every replayed run after the layers built so far."""

    def __init__(self, graph: LayerGraph, qgraph: QGraph, runs: list[Run]) -> None:
        self.graph, self.qgraph = graph, qgraph
        self.items: list[_Item] = []
        self.last_use: dict[str, int] = {}
        for index, layer in enumerate(graph.layers):
            for name in (*layer.sources, layer.residual, layer.weight.key):
                if name is not None:
                    self.last_use[name] = index
        static = {layer.name for layer in graph.layers if layer.weight.kind == "static"}
        for sample, host in runs:
            operands: dict[str, torch.Tensor] = {}

            def observe(
                kind: str,
                name: str,
                values: torch.Tensor,
                operands: dict[str, torch.Tensor] = operands,
            ) -> None:
                if kind == "operand" and name in static:
                    small = float(values.abs().max()) < _HALF_LIMIT
                    operands[name] = values.to(torch.float16) if small else values

            run_float(graph, sample, host, observe)
            latent = quantise_latent(qgraph, sample.to(torch.float32).numpy())
            arrays = {n: v.detach().to(torch.float32).numpy() for n, v in host.items()}
            self.items.append(_Item(arrays, operands, {graph.input: latent}))

    def moments(self, layer: Layer, qlayer: QLayer, read: OperandRead, span: int) -> Moments:
        """Moments of the operand vectors under the window of a layer with static weights.

        ``span``: inputs per span of ``grams``; 0 for none.
        """
        window, replicas = layer.window, self._replicas(layer)
        units = read.units.astype(np.float32)[:, None, None]
        offsets = read.offsets.astype(np.float32)[:, None, None]
        rng = np.random.default_rng(0)
        columns = MAX_COLUMNS // max(1, len(self.items))
        integer, real = [], []
        for item in self.items:
            sources = [item.stored[s].astype(np.int64) for s in layer.sources]
            affine = None
            if layer.read.host_affine is not None:
                affine = step_affine(qlayer, item.host)
            x: Float32 = operand(qlayer, sources, affine).astype(np.float32)
            x -= np.float32(read.read.pad)
            f: Float32 = item.operands.pop(layer.name).to(torch.float32).numpy()
            x_columns = _columns(patches(x, window, 0))
            f = (np.tile(f, (1, replicas, 1, 1)) - offsets) / units
            f_columns = _columns(patches(f, window, 0))
            if x_columns.shape[1] > columns:
                keep = rng.choice(x_columns.shape[1], columns, replace=False)
                x_columns, f_columns = x_columns[:, keep], f_columns[:, keep]
            integer.append(x_columns)
            real.append(f_columns)
        x_all = torch.from_numpy(np.concatenate(integer, axis=1))
        f_all = torch.from_numpy(np.concatenate(real, axis=1))
        count = x_all.shape[1]
        grams = []
        for first in range(0, len(x_all), span) if span else ():
            part = x_all[first : first + span]
            gram: Float64 = (part @ part.T / count).numpy().astype(np.float64)
            grams.append((slice(first, first + len(part)), gram))
        return Moments(
            grams,
            x_all.mean(dim=1).numpy().astype(np.float64),
            f_all.mean(dim=1).numpy().astype(np.float64),
        )

    def advance(self, index: int, qlayer: QLayer) -> None:
        """Run the finished layer number ``index`` on every item; drop what nobody reads again."""
        layer = qlayer.layer
        for item in self.items:
            bias = step_bias(qlayer, item.host) if layer.host_bias is not None else None
            affine = None
            if layer.read.host_affine is not None:
                affine = step_affine(qlayer, item.host)
            prompt = {}
            if layer.weight.kind == "host":
                prompt[layer.weight.key] = prompt_weight(qlayer, item.host)
            result = run_layer(self.qgraph, qlayer, item.stored, bias, prompt, affine)
            item.stored[layer.dest] = result
            for name in [n for n in item.stored if self.last_use.get(n, -1) <= index]:
                if name != layer.dest:
                    item.stored.pop(name)

    def _replicas(self, layer: Layer) -> int:
        return self.qgraph.input_replicas if self.graph.input in layer.sources else 1


def _columns(x: Float32) -> Float32:
    """[batch, inputs, pixels] to [inputs, batch * pixels]."""
    result: Float32 = x.transpose(1, 0, 2).reshape(x.shape[1], -1)
    return result
