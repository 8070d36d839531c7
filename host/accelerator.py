"""A build on a card: noise predictions from latents, timesteps and prompts.

Buffers, runs and weights are set up once. A step costs one transfer of the latent, one of the
per-timestep biases if the timestep changed, two starts, two waits and one transfer back; the
prompt's keys and values are sent when the prompt changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gen.errors import UserError
from host.card import TIMEOUT_MS, Buffer, Card, Command
from host.codec import Codec
from host.folder import BuildFolder
from host.xclbin import CONTAINER_NAME

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# Dynamic buffers kept on the card: one for each prompt (pair) that a large batch is split into.
PROMPTS_ON_CARD = 16


class Slot:
    """A dynamic buffer on the card and what it holds."""

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self.prompt: Float32 | None = None
        self.timesteps: tuple[float, ...] | None = None
        self.used = 0


class Accelerator:
    """The U-Net of a build, served by a card.

    Args:
        build: folder of the build; every file of it is checked against its hash.
        xclbin: configuration of a real card; default: the build's software card.
        device: index or address of the card.
        timeout_ms: limit for one step.

    Raises:
        UserError: missing, changed or foreign files, or no card.
    """

    def __init__(
        self,
        build: Path,
        xclbin: Path | None = None,
        device: int | str = 0,
        timeout_ms: int = TIMEOUT_MS,
    ) -> None:
        folder = BuildFolder(build)
        path = xclbin or build / CONTAINER_NAME
        folder.check_xclbin(path)
        self.model = folder.model
        self._folder = folder
        self._connect(folder.codec(), Card(path, device, timeout_ms))

    @classmethod
    def from_parts(cls, codec: Codec, card: Card) -> Accelerator:
        """An accelerator from an opened card, for one whose files do not form a build."""
        self = cls.__new__(cls)
        self._connect(codec, card)
        return self

    def _connect(self, codec: Codec, card: Card) -> None:
        self._codec, self._card = codec, card
        self.clock_mhz = codec.clock_mhz
        self._store: Command = card.command("store")
        self._wload: Command = card.command("wload")
        self._latent = card.buffer(self._store, 0, codec.latent_bytes)
        self._result = card.buffer(self._store, 1, codec.result_bytes)
        weights = card.buffer(self._wload, 0, codec.weights.nbytes)
        weights.array[: codec.weights.nbytes] = codec.weights
        weights.push()
        self._weights = weights
        self._store.bind(0, self._latent)
        self._store.bind(1, self._result)
        self._wload.bind(0, weights)
        self._slots: list[Slot] = []
        self._bound: Slot | None = None
        self._clock = 0

    @property
    def batch(self) -> int:
        """Samples of one run of the layer program; other batches are split or padded."""
        return self._codec.batch

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one sample's latent."""
        return self._codec.latent_shape

    @property
    def prompt_shape(self) -> tuple[int, int] | None:
        """Tokens and width of one prompt's embedding; None if the U-Net takes none."""
        return self._codec.prompt_shape

    @property
    def cycles(self) -> int | None:
        """Modelled clock cycles of the last run of the layer program; None on a real card."""
        return self._card.cycles

    @property
    def report(self) -> str:
        """The software card's report of the last run."""
        return self._card.report

    def check_model(self, unet: Any) -> None:
        """Refuse a float U-Net that the build was not made from.

        Raises:
            UserError: it is another one.
        """
        self._folder.check_model(unet)

    def step(
        self,
        latent: Float32,
        timestep: float | NDArray[Any],
        encoder_hidden_states: Float32 | None = None,
    ) -> Float32:
        """Noise prediction of the U-Net.

        Args:
            latent: float32 [batch, channels, height, width], any batch.
            timestep: one for all, or one for each sample.
            encoder_hidden_states: float32 [batch, tokens, width]; None if the U-Net takes none.

        Returns:
            float32, shaped as ``latent``.

        Raises:
            UserError: wrong shapes, or a fault of the card.
        """
        latent = np.asarray(latent, dtype=np.float32)
        batch, timesteps, prompt = self._check(latent, timestep, encoder_hidden_states)
        out = np.empty_like(latent)
        for part in _parts(batch, self.batch):
            rows = part if len(part) == self.batch else np.resize(part, self.batch)
            used = slice(part[0], part[-1] + 1)
            context = None if prompt is None else prompt[rows]
            result = self._run(latent[rows], timesteps[rows], context)
            out[used] = result[: len(part)]
        return out

    def _run(self, latent: Float32, timesteps: Float64, prompt: Float32 | None) -> Float32:
        """One run of the layer program, all arguments with its batch."""
        slot = self._slot(prompt)
        wanted = tuple(timesteps.tolist())
        if slot.timesteps != wanted:
            self._codec.write_step(slot.buffer.array, wanted)
            slot.buffer.push(*self._codec.step_range)
            slot.timesteps = wanted
        if self._bound is not slot:
            self._wload.bind(1, slot.buffer)
            self._bound = slot
        self._codec.write_latent(self._latent.array, latent)
        self._latent.push()
        # the consumer first, as the kernels feed each other
        self._card.execute(self._store, self._wload)
        self._result.pull()
        return self._codec.read_result(self._result.array)

    def _slot(self, prompt: Float32 | None) -> Slot:
        """The slot that holds ``prompt``, filled if none does."""
        self._clock += 1
        for slot in self._slots:
            if slot.prompt is prompt or (
                slot.prompt is not None and prompt is not None and _equal(slot.prompt, prompt)
            ):
                slot.used = self._clock
                return slot
        if len(self._slots) < PROMPTS_ON_CARD:
            buffer = self._card.buffer(self._wload, 1, self._codec.dynamic_bytes)
            slot = Slot(buffer)
            self._slots.append(slot)
        else:
            slot = min(self._slots, key=lambda each: each.used)
        if prompt is not None:
            slot.prompt = None  # until it is complete
            self._codec.write_prompt(slot.buffer.array, prompt)
            slot.buffer.push(*self._codec.prompt_range)
            slot.prompt = prompt.copy()
        slot.used = self._clock
        return slot

    def _check(
        self, latent: Float32, timestep: float | NDArray[Any], prompt: Float32 | None
    ) -> tuple[int, Float64, Float32 | None]:
        shape = self._codec.latent_shape
        if latent.ndim != 4 or latent.shape[1:] != shape or not len(latent):
            raise UserError(
                f"the latent has shape {list(latent.shape)} but this accelerator was built for "
                f"[batch, {', '.join(map(str, shape))}]; sample at that size or build another"
            )
        batch = len(latent)
        if not np.isfinite(latent).all():
            raise UserError("the latent holds values that are not finite; check the sampler")
        timesteps = np.asarray(timestep, dtype=np.float64).reshape(-1)
        if timesteps.size not in (1, batch):
            raise UserError(
                f"{timesteps.size} timesteps for {batch} samples; give one, or one each"
            )
        timesteps = np.broadcast_to(timesteps, (batch,))
        expected = self._codec.prompt_shape
        if expected is None:
            return batch, timesteps, None
        if prompt is None:
            raise UserError("this U-Net needs encoder_hidden_states; none were given")
        prompt = np.asarray(prompt, dtype=np.float32)
        if prompt.shape != (batch, *expected):
            raise UserError(
                f"encoder_hidden_states have shape {list(prompt.shape)} but this accelerator was "
                f"built for [{batch}, {', '.join(map(str, expected))}]; use its own text encoder"
            )
        return batch, timesteps, prompt


def _equal(one: Float32, other: Float32) -> bool:
    return one.shape == other.shape and bool((one == other).all())


def _parts(count: int, size: int) -> Iterator[NDArray[np.int64]]:
    """Indices 0..count-1 in parts of ``size``, the last one possibly shorter."""
    for first in range(0, count, size):
        yield np.arange(first, min(first + size, count))
