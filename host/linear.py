"""Samplers whose step is linear: x' = a*x + b*eps, without noise and without memory.

DDIM with eta 0 (Song et al. 2021, equation 12) and Euler (Karras et al. 2022, algorithm 1) are
such, whatever they predict (epsilon, v); so is DPM-Solver++ of order 1. Nothing is assumed of a
scheduler: its own ``step`` is called with random values in float64, and a and b are what fits
them. What does not fit is not linear, and is refused.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gen.errors import UserError

# of the largest value: rounding of a scheduler that computes in float32 stays below
TOLERANCE = 1e-5
_SHAPE = (1, 1, 8, 8)  # of the random values


@dataclass(frozen=True)
class LinearStep:
    """A step: the U-Net reads ``scale`` * x at ``timestep``, and x' = ``a`` * x + ``b`` * eps."""

    timestep: float
    scale: float
    a: float
    b: float


def linear_steps(scheduler: Any) -> list[LinearStep]:
    """The steps of a diffusers scheduler whose timesteps are set. The scheduler is left alone.

    Raises:
        UserError: its steps are not linear in latent and prediction: they add noise, clip, or use
            earlier predictions.
    """
    probe = copy.deepcopy(scheduler)
    draw = torch.Generator().manual_seed(0)
    steps = []
    for timestep in probe.timesteps:
        latent, eps = (torch.randn(_SHAPE, generator=draw, dtype=torch.float64) for _ in range(2))
        ones = probe.scale_model_input(torch.ones(_SHAPE, dtype=torch.float64), timestep)
        made = probe.step(eps, timestep, latent, return_dict=False)[0]
        columns = np.stack([_flat(latent), _flat(eps)], axis=1)
        (a, b), *_ = np.linalg.lstsq(columns, _flat(made), rcond=None)
        wrong = np.abs(columns @ [a, b] - _flat(made)).max()
        if not wrong <= TOLERANCE * np.abs(_flat(made)).max() + 1e-12:
            raise UserError(
                f"{type(scheduler).__name__} cannot run on the card: its step at timestep "
                f"{float(timestep):g} is not linear in latent and prediction (it adds noise, clips "
                "or uses earlier predictions); sample without --on-card-sampler, or by --scheduler "
                "ddim or euler (ddim: where the model's config does not ask for clip_sample)"
            )
        steps.append(LinearStep(float(timestep), float(_flat(ones)[0]), float(a), float(b)))
    return steps


def _flat(values: torch.Tensor) -> NDArray[np.float64]:
    flat: NDArray[np.float64] = values.to(torch.float64).numpy().reshape(-1)
    return flat
