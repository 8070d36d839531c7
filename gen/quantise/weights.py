"""Static weights in int8: nearest rounding, or roundings chosen together (GPTQ)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

LIMIT = 127
_BLOCK = 128


def row_scales(weight: Float64, floor: Float64) -> Float64:
    """Scale [rows] of weight [rows, inputs], such that the largest is 127; at least ``floor``."""
    scales: Float64 = np.maximum(np.abs(weight).max(axis=1) / LIMIT, np.maximum(floor, 1e-30))
    return scales


def round_nearest(weight: Float64, scales: Float64, replicas: int) -> Float64:
    """Whole numbers [rows, inputs]; the inputs are ``replicas`` blocks with staggered rounding."""
    steps = (weight / scales[:, None]).reshape(weight.shape[0], replicas, -1)
    offsets = (2 * np.arange(replicas) + 1) / (2 * replicas)
    whole = np.floor(steps + offsets[None, :, None]).reshape(weight.shape)
    return np.clip(whole, -LIMIT, LIMIT)


def round_together(weight: Float64, scales: Float64, gram: Float64, damping: float) -> Float64:
    """Whole numbers [rows, inputs] near ``weight / scales`` with the least output error.

    ``gram`` [inputs, inputs] is the sum of x x^T over operands. Inputs are rounded one by one,
    largest energy first, and what an input's rounding did to the output is made good by the ones
    that follow (Frantar et al. 2022, "GPTQ", algorithm 1).
    """
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
            q = torch.clamp(torch.round(block[:, i]), -LIMIT, LIMIT)
            whole[:, start + i] = q
            errors[:, i] = (block[:, i] - q) / corner[i, i]
            block[:, i:] -= errors[:, i : i + 1] * corner[i, i:]
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    result = np.empty_like(weight)
    result[:, order] = whole.numpy()
    return result
