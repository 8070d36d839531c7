"""How close two pictures are. Pictures are uint8 [height, width, 3]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

Picture = NDArray[np.uint8]

# equal pictures: an error of one step in one value of a 64 x 64 picture has 89 dB
EQUAL_DB = 100.0


def psnr(reference: Picture, picture: Picture) -> float:
    """Peak signal-to-noise ratio in dB over all channels, peak 255; 100 for equal pictures."""
    if np.array_equal(reference, picture):
        return EQUAL_DB
    return float(peak_signal_noise_ratio(reference, picture, data_range=255))


def ssim(reference: Picture, picture: Picture) -> float:
    """Structural similarity, mean over channels and pixels, with the Gaussian window (sigma 1.5)
    of Wang et al., "Image quality assessment" (2004).
    """
    return float(
        structural_similarity(
            reference,
            picture,
            data_range=255,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )
