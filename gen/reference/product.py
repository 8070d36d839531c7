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


def exact_matmul(left: Int8, right: Int8) -> Int64:
    """``left @ right`` of int8 matrices [..., m, k] and [..., k, n], exact, as int64."""
    outer = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    total = np.zeros((*outer, left.shape[-2], right.shape[-1]), np.int64)
    for span in exact_spans(left):
        part = torch.from_numpy(left[..., span].astype(np.float32))
        part = part @ torch.from_numpy(right[..., span, :].astype(np.float32))
        total += part.to(torch.int64).numpy()
    return total


def exact_spans(left: Int8) -> list[slice]:
    """The last axis of ``left`` in spans whose products with int8 are exact in float32.

    Integers below 2**24 and all their partial sums are, in whatever order they are added. The
    bound is the largest sum of magnitudes in a span of a row, times 128.
    """
    pending, spans = [(0, left.shape[-1])], []
    while pending:
        first, last = pending.pop()
        sums = np.abs(left[..., first:last].astype(np.int16)).sum(axis=-1, dtype=np.int64)
        if int(sums.max(initial=0)) * 128 >= _FLOAT32_EXACT:
            middle = (first + last) // 2
            pending += [(middle, last), (first, middle)]
        elif last > first:
            spans.append(slice(first, last))
    return spans


def patches(x: NDArray[Number], window: Window, pad: int) -> NDArray[Number]:
    """Operands under the window: [batch, channels*kh*kw, output pixels] from [batch, c, h, w].

    The reduction index is channel-major, as in a weight [out, in, kh, kw] flattened.
    """
    batch, channels = x.shape[:2]
    if window.upsample > 1:
        seen = window.seen(*x.shape[2:])
        x = x.repeat(window.upsample, axis=2).repeat(window.upsample, axis=3)
        x = x[:, :, : seen[0], : seen[1]]
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
