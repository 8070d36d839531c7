"""Static weights in 8 or 4 bits: nearest rounding, or roundings chosen together (GPTQ)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

_BLOCK = 128
# few levels are better spent on the many small weights than on the largest
_CLIPS = np.linspace(0.4, 1.0, 25)


def largest(bits: int) -> int:
    """Largest magnitude of a weight: 127 or 7."""
    return (1 << (bits - 1)) - 1


def row_scales(weight: Float64, floor: Float64, bits: int = 8) -> Float64:
    """Scale [rows] of weight [rows, inputs]; at least ``floor``.

    With 8 bits the largest weight of a row becomes 127; with fewer, the scale is the one of the
    least square error when weights are rounded to nearest and clipped.
    """
    limit = largest(bits)
    top = np.abs(weight).max(axis=1) / limit
    scales = top
    if bits < 8:
        best = np.full(top.shape, np.inf)
        for clip in _CLIPS:
            scale = np.maximum(top * clip, 1e-30)[:, None]
            error = np.square(np.clip(np.rint(weight / scale), -limit, limit) * scale - weight)
            total = error.sum(axis=1)
            scales = np.where(total < best, top * clip, scales)
            best = np.minimum(best, total)
    result: Float64 = np.maximum(scales, np.maximum(floor, 1e-30))
    return result


def round_nearest(weight: Float64, scales: Float64, replicas: int, bits: int = 8) -> Float64:
    """Whole numbers [rows, inputs]; the inputs are ``replicas`` blocks with staggered rounding."""
    steps = (weight / scales[:, None]).reshape(weight.shape[0], replicas, -1)
    offsets = (2 * np.arange(replicas) + 1) / (2 * replicas)
    whole = np.floor(steps + offsets[None, :, None]).reshape(weight.shape)
    return np.clip(whole, -largest(bits), largest(bits))


def round_together(
    weight: Float64, scales: Float64, gram: Float64, damping: float, bits: int = 8
) -> Float64:
    """Whole numbers [rows, inputs] near ``weight / scales`` with the least output error.

    ``gram`` [inputs, inputs] is the sum of x x^T over operands. Inputs are rounded one by one,
    largest energy first, and what an input's rounding did to the output is made good by the ones
    that follow (Frantar et al. 2022, "GPTQ", algorithm 1).
    """
    limit = largest(bits)
    diagonal = np.diag(gram).copy()
    damp = damping * float(diagonal.mean()) + 1e-12
    order = np.argsort(-diagonal)
    h = torch.from_numpy(gram[np.ix_(order, order)].copy())
    h.diagonal().add_(damp)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    upper = torch.linalg.cholesky(inverse, upper=True)
    left = torch.from_numpy((weight / scales[:, None])[:, order].copy())
    whole = torch.zeros_like(left)
    inputs = left.shape[1]
    for start in range(0, inputs, _BLOCK):
        stop = min(start + _BLOCK, inputs)
        block = left[:, start:stop].clone()
        errors = torch.zeros_like(block)
        corner = upper[start:stop, start:stop]
        for i in range(stop - start):
            q = torch.clamp(torch.round(block[:, i]), -limit, limit)
            whole[:, start + i] = q
            errors[:, i] = (block[:, i] - q) / corner[i, i]
            block[:, i:] -= errors[:, i : i + 1] * corner[i, i:]
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    result = np.empty_like(weight)
    result[:, order] = whole.numpy()
    return result
