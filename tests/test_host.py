"""The accelerator class: what is sent when, batches, prompts, and inputs it refuses."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from fake_card import fake_container

from gen.errors import UserError
from host.accelerator import PROMPTS_ON_CARD, Accelerator
from host.card import Buffer, Card
from host.codec import RankBuffers
from host.xclbin import board_mems, engine_units

LATENT = (2, 4, 4)


class FakeCodec:
    """Values as single bytes: result = latent + timestep, on the second of two ranks (see
    fake_card); nothing lies on the first.
    """

    batch = 2
    latent_shape = LATENT
    prompt_shape = (1, 1)
    result_shape = LATENT
    clock_mhz = 222.0
    ranks = tuple(
        RankBuffers(np.zeros(64, np.uint8), 128, 64, 64, latent=used, result=used)
        for used in (False, True)
    )
    step_range, prompt_range = (64, 0), (64, 64)

    def __init__(self):
        self.calls = Counter()
        self.extra_inputs = {}

    def write_prompt(self, dynamic, prompt, extra):
        self.calls["prompt"] += 1
        for rank in dynamic:
            rank[64:66] = prompt.reshape(-1)

    def write_step(self, dynamic, timesteps, extra, step):
        self.calls["step"] += 1
        for rank in dynamic:
            rank[0] = timesteps[0]

    def write_latent(self, arrays, latent):
        arrays[1][:64] = latent.reshape(-1)

    def read_result(self, arrays):
        return arrays[1][:64].reshape(2, *LATENT).astype(np.float32)


def two_ranks():
    return engine_units(2), board_mems(2)


@pytest.fixture
def traffic(monkeypatch):
    """Numbers of transfers and starts."""
    counts = Counter()
    for name in ("push", "pull"):
        original = getattr(Buffer, name)

        def counted(self, size=None, offset=0, name=name, original=original):
            counts[name] += 1
            counts[f"{name}ed bytes"] += self.size if size is None else size
            return original(self, size, offset)

        monkeypatch.setattr(Buffer, name, counted)
    return counts


@pytest.fixture
def accelerator(tmp_path):
    return Accelerator.from_parts(FakeCodec(), Card(fake_container(tmp_path, *two_ranks())))


def latents(batch, seed=0):
    return np.random.default_rng(seed).integers(0, 50, (batch, *LATENT)).astype(np.float32)


def prompts(*values):
    return np.array(values, np.float32).reshape(-1, 1, 1)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7])
def test_any_batch(accelerator, batch):
    latent = latents(batch)
    result = accelerator.step(latent, 7, prompts(*range(batch)))
    np.testing.assert_array_equal(result, latent + 7)


def test_only_what_changed_is_sent(accelerator, traffic):
    codec = accelerator._codec
    latent, prompt = latents(2), prompts(1, 2)
    accelerator.step(latent, 7, prompt)
    traffic.clear()
    codec.calls.clear()
    accelerator.step(latent, 7, prompt)  # nothing new but the latent
    assert traffic == {"push": 1, "pushed bytes": 64, "pull": 1, "pulled bytes": 64}
    assert not codec.calls
    accelerator.step(latent, 8, prompt.copy())  # another timestep, the same prompt
    assert codec.calls == {"step": 1}
    assert traffic["push"] == 4  # latent on one rank, timestep on both
    result = accelerator.step(latent, 8, prompts(1, 3))  # another prompt
    assert codec.calls == {"step": 2, "prompt": 1}
    np.testing.assert_array_equal(result, latent + 8)


def test_weights_are_read_once_and_after_they_were_sent(accelerator):
    def result():
        return accelerator.step(np.zeros((2, *LATENT)), 0, prompts(0, 0))[0, 0, 0, 0]

    assert result() == 0
    session = accelerator._session
    weights = session.ranks[1].weights
    weights.array[1] = 9
    weights.push()
    assert result() == 0
    session.send_weights()
    assert result() == 9


def test_prompt_changed_in_place_is_noticed(accelerator):
    prompt = prompts(1, 2)
    accelerator.step(latents(2), 1, prompt)
    prompt[0] = 9
    accelerator.step(latents(2), 1, prompt)
    assert accelerator._codec.calls["prompt"] == 2


def test_split_batch_keeps_every_pair_on_the_card(accelerator):
    codec = accelerator._codec
    prompt = prompts(*range(6))
    for timestep in (3, 2, 1):
        latent = latents(6, timestep)
        np.testing.assert_array_equal(accelerator.step(latent, timestep, prompt), latent + timestep)
    assert codec.calls["prompt"] == 3
    assert codec.calls["step"] == 9


def test_more_prompts_than_fit_on_the_card(accelerator):
    count = PROMPTS_ON_CARD + 2
    for _ in range(2):
        for number in range(count):
            latent = latents(2, number)
            result = accelerator.step(latent, number, prompts(number, 0))
            np.testing.assert_array_equal(result, latent + number)
    assert len(accelerator._slots) == PROMPTS_ON_CARD


def test_timesteps_of_every_kind(accelerator):
    latent, prompt = latents(2), prompts(0, 0)
    for timestep in (5, 5.0, np.float32(5), np.array(5), np.array([5]), np.array([5, 5])):
        np.testing.assert_array_equal(accelerator.step(latent, timestep, prompt), latent + 5)
    assert accelerator._codec.calls["step"] == 1


def test_result_does_not_change_with_the_next_step(accelerator):
    first = accelerator.step(latents(2), 1, prompts(0, 0))
    kept = first.copy()
    accelerator.step(latents(2, 5), 2, prompts(0, 0))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("latent", "timestep", "prompt", "message"),
    [
        (np.zeros((2, 2, 4, 5)), 1, prompts(0, 0), r"shape \[2, 2, 4, 5\].*\[batch, 2, 4, 4\]"),
        (np.zeros((2, 3, 4, 4)), 1, prompts(0, 0), "shape"),
        (np.zeros(LATENT), 1, prompts(0, 0), "shape"),
        (np.zeros((0, *LATENT)), 1, prompts(), "shape"),
        (np.full((2, *LATENT), np.nan), 1, prompts(0, 0), "finite"),
        (np.zeros((2, *LATENT)), [1, 2, 3], prompts(0, 0), "3 timesteps for 2 samples"),
        (np.zeros((2, *LATENT)), 1, None, "encoder_hidden_states"),
        (np.zeros((2, *LATENT)), 1, prompts(0), "encoder_hidden_states"),
        (np.zeros((2, *LATENT)), 1, np.zeros((2, 1, 2)), r"\[2, 1, 2\].*\[2, 1 to 1, 1\]"),
    ],
)
def test_inputs_that_are_refused(accelerator, latent, timestep, prompt, message):
    with pytest.raises(UserError, match=message):
        accelerator.step(latent, timestep, prompt)
