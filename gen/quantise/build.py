"""From a float layer graph and its statistics to the integer layer graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gen.errors import UserError
from gen.hostints import BIAS_LIMIT, limit_bias
from gen.layers import Layer, LayerGraph
from gen.qgraph_check import check_qgraph
from gen.qlayers import QGraph, QLayer, layer_bits
from gen.quantise.options import Options
from gen.quantise.reads import OperandRead, build_read
from gen.quantise.replay import Moments, Replay
from gen.quantise.scales import tensor_formats
from gen.quantise.statistics import Statistics
from gen.quantise.weights import round_nearest, round_together, row_scales
from gen.quantise.writes import build_write

Float64 = NDArray[np.float64]

INPUT_CHANNELS = 16  # of one reduction step: replicas of the input are free up to there


def quantise(
    graph: LayerGraph,
    statistics: Statistics,
    options: Options | None = None,
    progress: bool = True,
) -> QGraph:
    """The integer form of ``graph`` with scales from ``statistics``.

    Raises UserError for a graph whose numbers do not fit the integer formats.
    """
    options = options or Options()
    formats = tensor_formats(graph, statistics, options)
    stored, replicas = replicate_input(graph, options.replicas)
    qgraph = QGraph(stored, formats, [], replicas)
    replay = None
    if options.replays:
        replay = Replay(graph, qgraph, statistics.replay)
    builder = _Builder(graph, qgraph, statistics, options, replay)
    quiet = None if progress else True  # None: without a terminal
    for index, layer in enumerate(tqdm(graph.layers, "quantise", disable=quiet)):
        try:
            qlayer = builder.build(layer)
        except ValueError as error:
            raise UserError(
                f"{layer.name} does not fit the card's integers ({error}); "
                "check the model's weights and the calibration inputs"
            ) from error
        qgraph.layers.append(qlayer)
        if replay is not None:
            replay.advance(index, qlayer)
    try:
        check_qgraph(qgraph)
    except ValueError as error:
        raise UserError(
            f"the model does not fit the card's integers ({error}); "
            "check the model's weights and the calibration inputs"
        ) from error
    return qgraph


def replicate_input(graph: LayerGraph, wanted: int) -> tuple[LayerGraph, int]:
    """``graph`` with as many copies of the input channels as are wanted and fit, and how many."""
    info = graph.tensors[graph.input]
    replicas = max(1, min(wanted, INPUT_CHANNELS // info.channels))
    for layer in graph.consumers(graph.input):
        if layer.sources != (graph.input,) or layer.read.norm != "none":
            raise UserError(
                f"{layer.name} reads the latent together with other tensors or through a norm; "
                "the accelerator takes models whose latent enters through a convolution"
            )
    tensors = dict(graph.tensors)
    tensors[graph.input] = replace(info, channels=info.channels * replicas)
    return replace(graph, tensors=tensors, arrays=dict(graph.arrays)), replicas


class _Builder:
    def __init__(
        self,
        graph: LayerGraph,
        qgraph: QGraph,
        statistics: Statistics,
        options: Options,
        replay: Replay | None,
    ) -> None:
        self.graph, self.qgraph, self.formats = graph, qgraph, qgraph.tensors
        self.statistics, self.options, self.replay = statistics, options, replay

    def build(self, layer: Layer) -> QLayer:
        read = build_read(self.qgraph.graph, layer, self.formats, self.statistics, self.options)
        if layer.weight.kind == "static":
            return self._static(layer, read)
        return self._attention(layer, read)

    def _finish(
        self,
        layer: Layer,
        read: OperandRead,
        weight: NDArray[np.int8] | None,
        bias: Float64,
        acc_scale: Float64,
        correction: Float64,
        host_weight_scale: float = 0.0,
        weight_bits: int = 8,
    ) -> QLayer:
        seen = self.statistics.layers[layer.name]
        write = build_write(layer, acc_scale, self.formats, seen, self.options)
        return QLayer(
            layer=layer,
            read=read.read,
            weight=weight,
            bias=limit_bias(np.rint(bias / acc_scale) + correction),
            mult=write.mult,
            shift=write.shift,
            acc_scale=acc_scale,
            correction=correction.astype(np.int64),
            residual_shift=write.residual_shift,
            gate_table=write.gate_table,
            gate_shift=write.gate_shift,
            host_weight_scale=host_weight_scale,
            weight_bits=weight_bits,
        )

    def _attention(self, layer: Layer, read: OperandRead) -> QLayer:
        key = layer.weight.key
        host_scale = 0.0
        if layer.weight.kind == "host":
            host_scale = max(self.statistics.host[key].absmax, 1e-12) * 1.05 / 127
            right = host_scale
        else:
            right = self.formats[key].scale
        info = self.qgraph.graph.tensors[layer.dest]
        rows = info.channels if info.role == "scores" else info.channels // layer.heads
        left = 1.0 if layer.read.norm == "softmax" else float(read.units[0])
        acc_scale = np.full(rows, left * right * layer.scale)
        zeros = np.zeros(rows)
        return self._finish(layer, read, None, zeros, acc_scale, zeros, host_scale)

    def _static(self, layer: Layer, read: OperandRead) -> QLayer:
        options = self.options
        weight = self.graph.arrays[layer.weight.key].astype(np.float64)
        replicas = self.qgraph.input_replicas if self.graph.input in layer.sources else 1
        if not np.isfinite(weight).all():
            raise ValueError("its weights are not finite")
        weight = np.tile(weight, (1, replicas, 1, 1)) / replicas
        constant = (weight * read.offsets[:, None, None]).sum(axis=(1, 2, 3)) * layer.scale
        weight = weight * read.units[:, None, None]
        shape, flat = weight.shape, weight.reshape(weight.shape[0], -1)
        bias = np.zeros(shape[0])
        if layer.bias is not None:
            bias = self.graph.arrays[layer.bias].astype(np.float64)
        bias = bias + constant
        moments = None
        if self.replay is not None:
            probe = self._probe(layer, read)
            span_limit = options.joint_inputs if options.rounds_together else 0
            moments = self.replay.moments(layer, probe, read, span_limit)
        largest_bias = np.abs(bias)
        if layer.host_bias is not None:
            largest_bias = largest_bias + self.statistics.host[layer.host_bias].absmax
        bits = layer_bits(self.graph, layer, self.options.weight_bits)
        scales = row_scales(flat, largest_bias / (BIAS_LIMIT / 2), bits)
        whole = round_nearest(flat, scales, replicas, bits)
        for span, gram in moments.grams if moments is not None else ():
            whole[:, span] = round_together(flat[:, span], scales, gram, options.damping, bits)
        correction = -read.read.pad * whole.sum(axis=1)
        if moments is not None and options.correct_bias:
            correction = correction + self._mean_error(weight, whole, scales, moments)
        return self._finish(
            layer,
            read,
            whole.reshape(shape).astype(np.int8),
            bias,
            scales * layer.scale,
            correction,
            weight_bits=bits,
        )

    def _mean_error(
        self, weight: Float64, whole: Float64, scales: Float64, moments: Moments
    ) -> Float64:
        """Mean of the float product minus the integer one, in accumulator units [rows]."""
        flat = weight.reshape(whole.shape)
        wanted = flat @ moments.float_mean / scales
        rounded: Float64 = np.rint(wanted - whole @ moments.mean)
        return rounded

    def _probe(self, layer: Layer, read: OperandRead) -> QLayer:
        """A layer with nothing but its read side, for looking at its operands."""
        none = np.zeros(0, np.int32)
        return QLayer(layer, read.read, None, none, none, none, np.zeros(0), none.astype(np.int64))
