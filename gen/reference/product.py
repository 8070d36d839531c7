"""The sliding window and the matrix product, exact in integers but at floating point speed."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from gen.layers import Window

Int8 = NDArray[np.int8]
Int64 = NDArray[np.int64]
Number = TypeVar("Number", np.int8, np.float32)

_FLOAT32_EXACT = 1 << 24
_FLOAT64_EXACT = 1 << 53


def exact_matmul(left: Int8, right: Int8) -> Int64:
    """``left @ right`` of int8 matrices [..., m, k] and [..., k, n], exact, as int64.

    Every partial sum of integers below 2**24 (2**53) is exact in float32 (float64) in any order
    of summation; the bound used is max|right| times the largest row sum of |left|.
    """
    if left.size == 0 or right.size == 0:
        return np.zeros((*left.shape[:-1], right.shape[-1]), np.int64)
    bound = int(np.abs(left.astype(np.int32)).sum(axis=-1, dtype=np.int64).max()) * 128
    assert bound < _FLOAT64_EXACT
    exact = np.float32 if bound < _FLOAT32_EXACT else np.float64
    product = torch.from_numpy(left.astype(exact)) @ torch.from_numpy(right.astype(exact))
    result: Int64 = product.to(torch.int64).numpy()
    return result


def patches(x: NDArray[Number], window: Window, pad: int) -> NDArray[Number]:
    """Operands under the window: [batch, channels*kh*kw, output pixels] from [batch, c, h, w].

    The reduction index is channel-major, as in a weight [out, in, kh, kw] flattened.
    """
    batch, channels = x.shape[:2]
    if window.upsample > 1:
        x = x.repeat(window.upsample, axis=2).repeat(window.upsample, axis=3)
    kh, kw = window.kernel
    top, left, bottom, right = window.pad
    if kh == kw == 1 and window.stride == 1 and not any(window.pad):
        return x.reshape(batch, channels, -1)
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=pad)
    view = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), axis=(2, 3))
    view = view[:, :, :: window.stride, :: window.stride]  # [batch, channels, y, x, kh, kw]
    columns: NDArray[Number] = view.transpose(0, 1, 4, 5, 2, 3).reshape(
        batch, channels * kh * kw, -1
    )
    return columns


def static_product(x: Int8, weight: Int8, window: Window, pad: int) -> Int64:
    """Accumulators [batch, out, pixels]; x [batch, in, h, w], weight [out, in, kh, kw]."""
    return exact_matmul(weight.reshape(weight.shape[0], -1), patches(x, window, pad))


def attention_product(x: Int8, weight: Int8) -> Int64:
    """Accumulators [batch, heads, out, pixels]; x [.., in, pixels], weight [.., out, in]."""
    return exact_matmul(weight, x)
