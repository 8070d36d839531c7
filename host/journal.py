"""What a card has computed for a picture, so that a run can be continued.

Every result is appended to a file as soon as it is there, under a hash of its inputs. A run that
is started again takes the steps that it finds from the file and computes the others: with any
scheduler, and with identical results, as the sampler runs over the same numbers.

The file is a line with the identity of the run, then records: SHA-256 of the inputs, length,
result, and a check sum. A record that was cut short by a kill is dropped, with all after it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gen.reference.sampler import Coefficients, Int32
from host.codec import Extra, SamplerFormat

if TYPE_CHECKING:
    from host.accelerator import Starter

Float32 = NDArray[np.float32]
Int16 = NDArray[np.int16]

_HEAD = struct.Struct("<32sI")
_SUM = 8


def _sum(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=_SUM)
    for part in parts:
        digest.update(part)
    return digest.digest()


class Journal:
    """Results by the hash of their inputs, in a file.

    Args:
        path: the file; made if it is missing, emptied if it is of another run.
        identity: whatever the results depend on besides their inputs, in one line.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        first = f"steps of {identity}\n".encode()
        data = path.read_bytes() if path.exists() else b""
        self._found: dict[bytes, bytes] = {}
        if data.startswith(first):
            end = self._parse(data, len(first))
        else:
            data, end = first, len(first)
        self._file = path.open("r+b" if path.exists() else "x+b")
        self._file.write(data[:end])
        self._file.truncate(end)
        self._file.flush()

    def _parse(self, data: bytes, at: int) -> int:
        """Take the whole records from ``at`` on; returns where they end."""
        while at + _HEAD.size <= len(data):
            key, length = _HEAD.unpack_from(data, at)
            start = at + _HEAD.size
            end = start + length + _SUM
            result = data[start : start + length]
            if end > len(data) or data[end - _SUM : end] != _sum(key, result):
                break
            self._found[key] = result
            at = end
        return at

    def __len__(self) -> int:
        return len(self._found)

    def find(self, key: bytes) -> bytes | None:
        """The result of inputs with this hash, if it is there."""
        return self._found.get(key)

    def add(self, key: bytes, result: bytes) -> None:
        """Keep a result; it survives the end of the process, however that comes about."""
        self._found[key] = result
        self._file.write(_HEAD.pack(key, len(result)) + result + _sum(key, result))
        self._file.flush()

    def remove(self) -> None:
        """Delete the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class Journaled:
    """A stepper that takes what it can from a journal and keeps what it computes.

    ``computed`` says of every step so far whether the card computed it.
    """

    def __init__(self, stepper: Starter, journal: Journal) -> None:
        self._stepper, self._journal = stepper, journal
        self.computed: list[bool] = []

    def step(
        self,
        latent: Float32,
        timestep: float | NDArray[np.float64],
        encoder_hidden_states: Float32 | None = None,
        extra: Extra | None = None,
    ) -> Float32:
        """Noise prediction, float32 [batch, output channels, height, width]."""
        key = _key(np.asarray(timestep, np.float64), latent, encoder_hidden_states, extra)
        kept = self._journal.find(key)
        self.computed.append(kept is None)
        if kept is not None:
            batch, _, height, width = latent.shape
            result: Float32 = np.frombuffer(kept, np.float32).copy()
            return result.reshape(batch, -1, height, width)
        result = self._stepper.step(latent, timestep, encoder_hidden_states, extra)
        self._journal.add(key, result.tobytes())
        return result

    @property
    def sampler(self) -> SamplerFormat:
        """Of the stepper's starts of several steps."""
        return self._stepper.sampler

    @property
    def several(self) -> bool:
        """Whether the stepper's starts may be several steps."""
        return self._stepper.several

    def run_steps(
        self,
        state: Int32,
        timesteps: Sequence[float],
        updates: Sequence[Coefficients],
        encoder_hidden_states: Float32 | None = None,
        extra: Extra | None = None,
    ) -> tuple[Int16, Int32]:
        """A start, as ``Accelerator.run_steps``; it is kept as a whole."""
        numbers = [value for by in updates for value in (by.a, by.c0, by.c1)]
        of_steps = np.array([*timesteps, len(timesteps), *numbers], np.float64)
        key = _key(of_steps, state, encoder_hidden_states, extra)
        kept = self._journal.find(key)
        self.computed += [kept is None] * len(timesteps)
        if kept is not None:
            left = np.frombuffer(kept, np.int32, state.size).reshape(state.shape).copy()
            values = np.frombuffer(kept, np.int16, offset=state.nbytes)
            return values.reshape(-1, *state.shape[1:]).copy(), left
        result, left = self._stepper.run_steps(
            state, timesteps, updates, encoder_hidden_states, extra
        )
        self._journal.add(key, left.tobytes() + result.tobytes())
        return result, left


def _key(
    of_steps: NDArray[np.float64],
    latent: NDArray[Any],
    prompt: Float32 | None,
    extra: Extra | None,
) -> bytes:
    """Hash of all inputs."""
    key = hashlib.sha256(of_steps.tobytes())
    key.update(latent.tobytes())
    if prompt is not None:
        key.update(prompt.tobytes())
    for name, value in (extra or {}).items():
        key.update(name.encode() + value.tobytes())
    return key.digest()
