"""Arithmetic of the kernels against Python integers; fast forms against plain ones."""

from __future__ import annotations

import ctypes
from math import isqrt

import numpy as np
import pytest
from cpp import FAST, ROOT, compile_cpp

from gen.reference.normalise import reciprocal_deviation

SOURCE = ROOT / "tests/kernels/arithmetic.cpp"


@pytest.fixture(scope="module", params=["fast", "plain"])
def lib(request) -> ctypes.CDLL:
    flags = (*FAST, "-DLDA_PLAIN") if request.param == "plain" else FAST
    return ctypes.CDLL(str(compile_cpp(SOURCE, flags)))


def call(function, *values) -> None:
    """Call a C function: arrays as pointers, the rest as int."""
    function(*[v.ctypes.data_as(ctypes.c_void_p) if isinstance(v, np.ndarray) else int(v)
               for v in values])  # fmt: skip


def edges(bits: int) -> list[int]:
    """Integers around the powers of two of a signed format."""
    found = {0}
    for k in range(bits):
        found |= {s * ((1 << k) + d) for s in (1, -1) for d in (-1, 0, 1)}
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return sorted(v for v in found if low <= v <= high)


def test_rshr_rounds_half_up(lib):
    pairs = [(x, s) for x in edges(62) for s in (*range(0, 48), 54, 61)]
    pairs += [((2 * m + 1) << s >> 1, s) for m in range(-4, 4) for s in range(1, 50)]
    x = np.array([p[0] for p in pairs], np.int64)
    s = np.array([p[1] for p in pairs], np.int32)
    plain, offset = np.zeros_like(x), np.zeros_like(x)
    call(lib.t_rshr, x, s, len(x), plain, offset)
    want = [(a + (1 << (b - 1)) >> b) if b else a for a, b in pairs]
    assert plain.tolist() == want
    assert offset.tolist() == want


def test_clamp_saturates(lib):
    x = np.array(edges(64)[1:], np.int64)
    results = {bits: np.zeros(len(x), np.int32) for bits in (8, 11, 16, 18)}
    call(lib.t_clamp, x, len(x), *results.values())
    for bits, got in results.items():
        low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        assert got.tolist() == [min(max(int(v), low), high) for v in x]


def test_isqrt_floors(lib):
    squares = [k * k + d for k in (*range(1, 300), 32768, 46341, 65534, 65535) for d in (-1, 0, 1)]
    x = np.array([0, 1 << 30, 2**32 - 1, *squares], np.uint32)
    root = np.zeros_like(x)
    call(lib.t_isqrt, x, len(x), root)
    assert root.tolist() == [isqrt(int(v)) for v in x]


def test_quotients_by_steps(lib):
    rows = []
    for b in (1, 2, 3, 63, 1023, 65535, 65536, 2**18 - 1, 2**18):
        for q in (0, 1, 2, 3, 2**17 - 1, 2**17, 2**18 - 1, 2**18, 2**26, 2**27 - 1):
            rows += [(q * b + rest, b, q) for rest in {0, b // 2, b - 1}]
    a, b, q = (np.array(v, t) for v, t in zip(zip(*rows, strict=True), ("u8", "u4", "u4"),
                                              strict=True))  # fmt: skip
    wide, narrow = np.zeros_like(q), np.zeros_like(q)
    call(lib.t_quotient, a, b, len(a), wide, narrow)
    assert wide.tolist() == q.tolist()
    assert narrow[q < 2**18].tolist() == q[q < 2**18].tolist()


def sums_of(rng: np.random.Generator) -> tuple[list[int], list[int], list[int], list[int]]:
    """Sums, sums of squares, counts and epsilons that values of 16 + 7 bits can have."""
    rows = []
    for n in (1, 2, 3, 17, 64, 320, 4096, 2560 * 64, 2**18):
        for top in (1, 127, 32767, 32768 << 7):
            for sign in (-1, 1):
                rows.append((sign * n * top, n * top * top, n, 1))  # constant: D = eps
                rows.append((0, n * top * top, n, 1 << 40))
                mean = int(rng.integers(-top, top + 1))
                rows.append((n * mean, n * top * top, n, int(rng.integers(1, 1 << 50))))
        rows.append((0, 0, n, 1))
        rows.append((0, 0, n, (1 << 63) - 1))
    return tuple(map(list, zip(*rows, strict=True)))


def test_normaliser_equals_reference(lib):
    s, q, n, eps = sums_of(np.random.default_rng(1))
    scales = np.zeros((len(s), 3), np.int32)
    arrays = [np.array(v, t) for v, t in ((s, "i8"), (q, "i8"), (n, "i4"), (eps, "i8"))]
    call(lib.t_normaliser, *arrays, len(s), scales)
    for k in range(len(s)):
        mu = (s[k] << 4) // n[k]
        r, e = reciprocal_deviation(n[k] * q[k] - s[k] * s[k] + eps[k], n[k])
        assert scales[k].tolist() == [mu, r, e], (s[k], q[k], n[k], eps[k])


def test_normalise_saturates_at_18_bits(lib):
    values, scales, want = [], [], []
    for v in (-(1 << 22), -32768, -1, 0, 1, 32767, (1 << 22) - 1):
        for mu in (-(1 << 26), -17, 0, 5, 1 << 26):
            for r in (1 << 15, 65535, 1 << 17):
                for e in (-20, -16, -1, 0, 1, 20, 45, 55):
                    y = ((v << 4) - mu) * r
                    z = (y + (1 << e >> 1)) >> e if e >= 0 else y << min(-e, 16)
                    values.append(v)
                    scales.append((mu, r, e))
                    want.append(min(max(z, -(1 << 17)), (1 << 17) - 1))
    z = np.zeros(len(values), np.int32)
    call(lib.t_normalise, np.array(values, "i4"), np.array(scales, "i4"), len(values), z)
    assert z.tolist() == want


def test_row_reciprocal(lib):
    sums = np.array([0, 1, 126, 127, 128, 65535, 127 * 4096, *range(2, 5000, 7)], np.int32)
    r, shift = np.zeros_like(sums), np.zeros_like(sums)
    call(lib.t_reciprocal, sums, len(sums), r, shift)
    digits = [int(v).bit_length() for v in sums]
    assert shift.tolist() == [k + 4 for k in digits]
    assert r.tolist() == [
        (1 << (k + 16)) // int(v) if v else 0 for v, k in zip(sums, digits, strict=True)
    ]


def test_squares_have_48_bits(lib):
    x = np.array([v for v in edges(49) if v >= 0], np.int64)
    kept = np.zeros_like(x)
    call(lib.t_squares, x, len(x), kept)
    assert kept.tolist() == x.tolist()
    assert x.max() == (1 << 48) - 1


def spread(rng: np.random.Generator, bits: int, size) -> np.ndarray:
    """Integers of all magnitudes, extremes among them."""
    pool = np.array(edges(bits), np.int64)
    wide = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), size)
    return np.where(rng.random(size) < 0.5, rng.choice(pool, size), wide)


def test_write_side_fast_equals_plain_and_python(lib):
    rng = np.random.default_rng(5)
    for trial in range(400):
        divide, with_residual = trial % 2, trial // 2 % 2
        acc = spread(rng, 31, 64).astype(np.int32)
        bias = spread(rng, 30, 8).astype(np.int32)
        mult = rng.integers(1, 1 << 17, 8).astype(np.int32)
        residual = spread(rng, 16, 64).astype(np.int16)
        residual_shift = int(rng.integers(-10, 11))
        low, high = max(1, -residual_shift), 46 - max(0, residual_shift)
        shift = rng.integers(low, high + 1, 8).astype(np.int32)
        sums = rng.integers(127, 127 * 1024, 8).astype(np.int32)
        fast, plain = np.zeros(64, np.int64), np.zeros(64, np.int64)
        call(lib.t_scale, acc, bias, mult, shift, divide, sums, with_residual, residual,
             residual_shift, fast, plain)  # fmt: skip
        for lane in range(64):
            o = lane % 8
            a = int(acc[lane]) + int(bias[o])
            if divide:
                k = int(sums[lane // 8]).bit_length()
                a = (a * ((1 << (k + 16)) // int(sums[lane // 8])) + (1 << (k + 3))) >> (k + 4)
                if not -(1 << 31) <= a < 1 << 31:
                    continue
            v = a * int(mult[o])
            if with_residual:
                v += int(residual[lane]) << int(shift[o] + residual_shift)
            assert int(plain[lane]) == (v + (1 << int(shift[o]) >> 1)) >> int(shift[o])
        assert np.array_equal(fast, plain)
