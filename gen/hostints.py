"""The edges of the integer domain: what the host computes before and after a step on the card.

Formulas: ``docs/numerics.md``, "Input" and "Host values".
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gen.qlayers import Affine, QGraph, QLayer

Float = NDArray[np.float32]
BIAS_LIMIT = 1 << 30
GAMMA_LIMIT = 1 << 15
BETA_LIMIT = 1 << 31


def quantise_latent(qgraph: QGraph, latent: Float) -> NDArray[np.int8]:
    """Latent float32 [batch, channels, height, width] to int8 [batch, replicas*channels, h, w].

    Replica j of a channel rounds up from fraction 1 - (2j+1)/(2R), so that the replicas' sum is
    the value rounded to 1/R of a step.
    """
    replicas = qgraph.input_replicas
    steps = latent.astype(np.float32) * np.float32(1.0 / qgraph.tensors[qgraph.graph.input].scale)
    offsets = [np.float32((2 * j + 1) / (2 * replicas)) for j in range(replicas)]
    levels = [np.clip(np.floor(steps + offset), -128, 127) for offset in offsets]
    return np.concatenate(levels, axis=1).astype(np.int8)


def step_biases(qgraph: QGraph, host: Mapping[str, Float]) -> dict[str, NDArray[np.int32]]:
    """Biases int32 [batch, rows] of every layer that adds a host tensor [batch, rows]."""
    return {
        qlayer.layer.name: step_bias(qlayer, host)
        for qlayer in qgraph.layers
        if qlayer.layer.host_bias is not None
    }


def step_bias(qlayer: QLayer, host: Mapping[str, Float]) -> NDArray[np.int32]:
    """Bias int32 [batch, rows] of one layer that has a host bias."""
    assert qlayer.layer.host_bias is not None
    steps = np.rint(host[qlayer.layer.host_bias].astype(np.float64) / qlayer.acc_scale)
    return limit_bias(steps + qlayer.bias)


def limit_bias(bias: NDArray[np.float64]) -> NDArray[np.int32]:
    """Whole numbers saturated to the range of a bias, +-2**30."""
    return np.clip(bias, -BIAS_LIMIT, BIAS_LIMIT).astype(np.int32)


def step_affines(qgraph: QGraph, host: Mapping[str, Float]) -> dict[str, Affine]:
    """Gamma and beta of every layer that a host tensor [batch, 2 * channels] scales and shifts."""
    return {
        qlayer.layer.name: step_affine(qlayer, host)
        for qlayer in qgraph.layers
        if qlayer.layer.read.host_affine is not None
    }


def step_affine(qlayer: QLayer, host: Mapping[str, Float]) -> Affine:
    """Gamma and beta of one layer that has a host affine."""
    name, constants = qlayer.layer.read.host_affine, qlayer.read.affine
    assert name is not None and constants is not None
    scale, shift = np.split(host[name].astype(np.float64), 2, axis=1)
    gain, offset, unit, constant = constants
    gamma = np.rint(gain * (1.0 + scale))
    beta = np.rint(offset * (1.0 + scale) + unit * shift + constant)
    return Affine(
        np.clip(gamma, -GAMMA_LIMIT, GAMMA_LIMIT - 1).astype(np.int32),
        np.clip(beta, -BETA_LIMIT, BETA_LIMIT - 1).astype(np.int64),
    )


def prompt_weights(qgraph: QGraph, host: Mapping[str, Float]) -> dict[str, NDArray[np.int8]]:
    """K and V of the prompt, int8 in -127..127 [batch, tokens, heads * head_dim], by name."""
    return {
        qlayer.layer.weight.key: prompt_weight(qlayer, host)
        for qlayer in qgraph.layers
        if qlayer.layer.weight.kind == "host"
    }


def prompt_weight(qlayer: QLayer, host: Mapping[str, Float]) -> NDArray[np.int8]:
    """The K or V that one layer takes from the prompt."""
    steps = np.rint(host[qlayer.layer.weight.key].astype(np.float64) / qlayer.host_weight_scale)
    return np.clip(steps, -127, 127).astype(np.int8)


def output_to_float(qgraph: QGraph, output_q: NDArray[np.int16]) -> Float:
    """The stored output, int16 [batch, channels, height, width], as float32 values."""
    scale = qgraph.tensors[qgraph.graph.output].scale
    return (output_q.astype(np.float64) * scale).astype(np.float32)
