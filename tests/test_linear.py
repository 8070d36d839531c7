"""Linear samplers: coefficients against the schedulers' own steps, and the integer recurrence."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch

from gen.errors import UserError
from gen.reference.sampler import (
    COEFFICIENT_BITS,
    FRACTION_BITS,
    Coefficients,
    coefficients,
    from_state,
    offsets,
    quantise_state,
    to_state,
    update,
)
from host.linear import linear_steps
from host.oncard import LinearSampler

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
LINEAR = {
    "ddim": lambda **o: diffusers.DDIMScheduler(**BETAS, clip_sample=False, **o),
    "euler": lambda **o: diffusers.EulerDiscreteScheduler(**BETAS, **o),
    "dpm++ 1": lambda **o: diffusers.DPMSolverMultistepScheduler(**BETAS, solver_order=1, **o),
}
SCALES = (0.1, 2.0**-12)  # of the input, of the result


class Predictor:
    """An accelerator whose results are known beforehand, one for every step."""

    def __init__(self, form, results):
        self.sampler, self.several, self.results, self.at = form, True, results, 0

    def run_steps(self, state, timesteps, updates, prompt=None, extra=None):
        result = None
        for index in range(len(timesteps)):
            result = self.results[self.at]
            self.at += 1
            if index < len(updates):
                n, p = self.sampler.samples, self.sampler.partner
                state = update(state, result[:n], result[p : p + n], updates[index])
        return result, state


def form(samples=1, partner=1, replicas=4):
    from host.codec import SamplerFormat

    return SamplerFormat(samples, partner, *SCALES, replicas)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", LINEAR)
def test_the_recurrence_is_the_schedulers(name, prediction):
    """25 steps of a guided pair: within 2e-6 of the largest latent, the scheduler's in float32."""
    scheduler = LINEAR[name](prediction_type=prediction)
    scheduler.set_timesteps(25)
    steps = linear_steps(scheduler)
    assert [step.timestep for step in steps] == scheduler.timesteps.tolist()
    rng = np.random.default_rng(1)
    shape = (1, 4, 8, 8)
    results = rng.integers(-2500, 2500, (25, 2, *shape[1:])).astype(np.int16)
    start = rng.standard_normal(shape).astype(np.float32) * float(scheduler.init_noise_sigma)
    x = torch.from_numpy(start)
    largest = 0.0
    guidance = 2.5
    for timestep, result in zip(scheduler.timesteps, results, strict=True):
        eps = torch.from_numpy(result.astype(np.float64) * SCALES[1]).float()
        scheduler.scale_model_input(x, timestep)
        x = scheduler.step(eps[:1] + guidance * (eps[1:] - eps[:1]), timestep, x).prev_sample
        largest = max(largest, float(x.abs().max()))
    for at_once in (1, 4, 25):
        sampler = LinearSampler(Predictor(form(), results), steps, guidance)
        state = sampler.state(start, 0)
        for first in range(0, 25, at_once):
            state = sampler.start(state, first, min(at_once, 25 - first), None, None)
        got = sampler.latent(state, 25)
        assert np.abs(got - x.numpy()).max() < 2e-6 * largest


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.DDPMScheduler(clip_sample=False),
        diffusers.DDIMScheduler(clip_sample=True),
        diffusers.DPMSolverMultistepScheduler(),
        diffusers.UniPCMultistepScheduler(),
        diffusers.LCMScheduler(),
        diffusers.EulerAncestralDiscreteScheduler(),
        diffusers.PNDMScheduler(skip_prk_steps=True),
    ],
    ids=lambda each: type(each).__name__,
)
def test_other_samplers_are_refused(scheduler):
    scheduler.set_timesteps(6)
    with pytest.raises(UserError, match=r"^\w+ cannot run on the card: its step at timestep") as e:
        linear_steps(scheduler)
    assert "\n" not in str(e.value) and "--scheduler ddim or euler" in str(e.value)


def test_a_scheduler_is_left_alone():
    scheduler = LINEAR["euler"]()
    scheduler.set_timesteps(5)
    linear_steps(scheduler)
    assert scheduler.step_index is None


def test_update_and_quantisation():
    """Rounding half up, saturation, and the staggered replicas."""
    one, half = 1 << COEFFICIENT_BITS, 1 << (COEFFICIENT_BITS - 1)
    state = np.array([[5, -5, 2**30 - 1, -(2**30)]], np.int32)
    zero = np.zeros_like(state, np.int16)
    np.testing.assert_array_equal(update(state, zero, zero, Coefficients(one, 0, 0)), state)
    halved = update(state, zero, zero, Coefficients(half, 0, 0))
    np.testing.assert_array_equal(halved, [[3, -2, 2**29, -(2**29)]])
    doubled = update(state, zero, zero, Coefficients(2 * one, 0, 0))
    np.testing.assert_array_equal(doubled, [[10, -10, 2**30 - 1, -(2**30)]])
    low = np.full_like(zero, -(2**15))
    extreme = Coefficients(-(2**31) + 1, 2**46 - 1, 2**46 - 1)
    assert extreme.fits and not Coefficients(2**31, 0, 0).fits
    assert update(state, low, low, extreme).tolist() == [[-(2**30)] * 4]
    assert offsets(4) == [(2 * j + 1) << 17 for j in range(4)]
    unit = 1 << FRACTION_BITS
    values = np.array([0.1, 0.2, 0.4, 0.7, 0.9, -0.1, 200, -200]).reshape(1, 1, 8)
    got = quantise_state(np.rint(values * unit).astype(np.int32), 4)[0]
    wanted = [np.clip(np.floor(values[0, 0] + (2 * j + 1) / 8), -128, 127) for j in range(4)]
    np.testing.assert_array_equal(got, wanted)


def test_states_keep_more_than_float32_does():
    rng = np.random.default_rng(2)
    values = rng.standard_normal((1, 4, 64, 64)).astype(np.float32)
    back = from_state(to_state(values, SCALES[0]), SCALES[0])
    assert np.abs(back - values).max() <= SCALES[0] * 2.0**-21 + np.spacing(np.float32(4.0))
    far = np.array([1e9, -1e9], np.float32)
    assert to_state(far, SCALES[0]).tolist() == [2**30 - 1, -(2**30)]


def test_coefficients_of_a_pair():
    by = coefficients(0.5, -0.25, 3.0, *SCALES)
    unit = -0.25 * SCALES[1] / SCALES[0] * 2.0**46
    assert (by.a, by.c0, by.c1) == (1 << 25, round(unit * -2), round(unit * 3))
    assert coefficients(0.5, -0.25, None, *SCALES).c1 == 0


def test_what_the_card_cannot_hold_is_refused():
    scheduler = LINEAR["ddim"]()
    scheduler.set_timesteps(1)
    steps = linear_steps(scheduler)
    card = Predictor(form(), [])
    LinearSampler(card, steps, 7.5)
    with pytest.raises(UserError, match="larger than the card's numbers; take more steps"):
        LinearSampler(card, steps, 1e6)
    with pytest.raises(UserError, match="a guided pair takes two on the card"):
        LinearSampler(Predictor(form(partner=0), []), steps, 2.0)
