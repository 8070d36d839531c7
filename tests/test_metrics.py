import math

import numpy as np
import pytest

from host.metrics import EQUAL_DB, psnr, ssim


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)


def test_equal_pictures(picture):
    assert psnr(picture, picture) == EQUAL_DB
    assert ssim(picture, picture) == pytest.approx(1)


def test_psnr_of_a_known_error():
    black = np.zeros((16, 16, 3), np.uint8)
    assert psnr(black, black + 16) == pytest.approx(20 * math.log10(255 / 16))
    assert psnr(black, black + 255) == pytest.approx(0)


def test_psnr_does_not_wrap_around():
    dark, bright = np.full((8, 8, 3), 3, np.uint8), np.full((8, 8, 3), 250, np.uint8)
    assert psnr(dark, bright) == psnr(bright, dark) == pytest.approx(20 * math.log10(255 / 247))


def test_smallest_error_is_below_the_value_for_equal_pictures(picture):
    other = picture.copy()
    other[0, 0, 0] ^= 1
    assert psnr(picture, other) < EQUAL_DB


def test_ssim_of_flat_pictures_follows_the_formula():
    dark, bright = np.full((32, 32, 3), 100, np.uint8), np.full((32, 32, 3), 120, np.uint8)
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    assert ssim(dark, bright) == pytest.approx(expected, rel=1e-6)


def test_ssim_falls_with_noise(picture):
    noise = np.random.default_rng(1).normal(0, 1, picture.shape)
    levels = [
        ssim(picture, np.clip(picture + noise * sigma, 0, 255).astype(np.uint8))
        for sigma in (0, 8, 32, 128)
    ]
    assert levels == sorted(levels, reverse=True)
    assert levels[3] < 0.6
