"""Journals: what survives a kill, and what is never taken for a result."""

from __future__ import annotations

import numpy as np
import pytest

from host.journal import Journal, Journaled

KEYS = [bytes([n]) * 32 for n in range(3)]


class Doubler:
    def __init__(self):
        self.calls = 0

    def step(self, latent, timestep, encoder_hidden_states=None, extra=None):
        self.calls += 1
        return latent * 2 + np.float32(timestep[0])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.journal"


def filled(path, identity="run"):
    journal = Journal(path, identity)
    for number, key in enumerate(KEYS):
        journal.add(key, bytes(10 + number))
    return journal


def test_results_are_found_again(path):
    filled(path)
    again = Journal(path, "run")
    assert len(again) == 3
    assert [again.find(key) for key in KEYS] == [bytes(10), bytes(11), bytes(12)]
    assert again.find(b"x" * 32) is None


def test_every_truncation_keeps_whole_records_alone(path):
    filled(path)
    data = path.read_bytes()
    sizes = []
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        journal = Journal(path, "run")
        sizes.append(len(journal))
        assert all(journal.find(key) == bytes(10 + n) for n, key in enumerate(KEYS[: sizes[-1]]))
        if length % 7 == 0:
            journal.add(b"n" * 32, b"new")
            assert Journal(path, "run").find(b"n" * 32) == b"new"
            assert len(Journal(path, "run")) == sizes[-1] + 1
    assert sizes[0] == 0 and sizes[-1] == 3 and sizes == sorted(sizes)


def test_every_flipped_byte_is_noticed(path):
    filled(path)
    data = path.read_bytes()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x40
        path.write_bytes(damaged)
        journal = Journal(path, "run")
        for number, key in enumerate(KEYS):
            assert journal.find(key) in (None, bytes(10 + number))
        assert len(journal) < 3


def test_another_run_starts_empty(path):
    filled(path)
    assert len(Journal(path, "other run")) == 0
    assert len(Journal(path, "run")) == 0


def test_steps_are_taken_from_it_by_all_of_their_inputs(path):
    stepper = Doubler()
    latent, prompt = np.ones((2, 1, 1, 3), np.float32), np.ones((2, 1), np.float32)
    time = np.array([4.0])
    first = Journaled(stepper, Journal(path, "run"))
    expected = first.step(latent, time, prompt)
    again = Journaled(stepper, Journal(path, "run"))
    result = again.step(latent, time, prompt)
    np.testing.assert_array_equal(result, expected)
    result[:] = 0  # its own memory
    np.testing.assert_array_equal(again.step(latent, time, prompt), expected)
    assert stepper.calls == 1
    others = {"class_labels": np.ones(2)}
    for inputs in (
        (latent + 1, time, prompt),
        (latent, time + 1, prompt),
        (latent, time, -prompt),
        (latent, time, prompt, others),
    ):
        again.step(*inputs)
    assert stepper.calls == 5
    assert (first.computed, again.computed) == ([True], [False, False, True, True, True, True])


def test_failed_step_is_not_kept(path):
    class Broken:
        def step(self, *_):
            raise RuntimeError

    journaled = Journaled(Broken(), Journal(path, "run"))
    with pytest.raises(RuntimeError):
        journaled.step(np.ones(1, np.float32), np.ones(1))
    assert len(Journal(path, "run")) == 0


def test_removed(path):
    filled(path).remove()
    assert not path.exists()
