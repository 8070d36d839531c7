"""A build on a card: noise predictions from latents, timesteps and prompts.

Buffers, runs and weights are set up once (``host.session``). A step costs one transfer of the
latent, one of the per-timestep biases if the timestep changed, two starts, two waits and one
transfer back, for every rank; the prompt's keys and values are sent when the prompt changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gen.errors import UserError
from gen.reference.sampler import Coefficients, Int32
from host.card import TIMEOUT_MS, Buffer, Card
from host.codec import Codec, Extra, SamplerFormat
from host.folder import BuildFolder
from host.selftest import known_step
from host.session import Session
from host.settings import MAX_STEPS
from host.xclbin import CONTAINER_NAME

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int16 = NDArray[np.int16]

# Sets of dynamic buffers kept on the card: one for each prompt (pair) that a large batch is split
# into.
PROMPTS_ON_CARD = 16


class Stepper(Protocol):
    """Computes noise predictions."""

    def step(
        self,
        latent: Float32,
        timestep: float | NDArray[Any],
        encoder_hidden_states: Float32 | None = None,
        extra: Extra | None = None,
    ) -> Float32:
        """Noise prediction, float32 shaped as ``latent``."""
        ...


class Starter(Stepper, Protocol):
    """Computes several steps in one start, too (``Accelerator.run_steps``)."""

    @property
    def sampler(self) -> SamplerFormat:
        """The latents of a start."""
        ...

    @property
    def several(self) -> bool:
        """Whether a start may be several steps."""
        ...

    def run_steps(
        self,
        state: Int32,
        timesteps: Sequence[float],
        updates: Sequence[Coefficients],
        encoder_hidden_states: Float32 | None = None,
        extra: Extra | None = None,
    ) -> tuple[Int16, Int32]:
        """The last result, and the state that it was computed from."""
        ...


class Slot:
    """Dynamic buffers on the card, one per rank, and what they hold: a prompt, and the timesteps
    (one per item) of every step of a start, of which there is room for ``steps``.
    """

    def __init__(self, buffers: list[Buffer], steps: int) -> None:
        self.buffers, self.steps = buffers, steps
        self.arrays = [buffer.array for buffer in buffers]
        self.context: tuple[bytes, ...] | None = None
        self.timesteps: tuple[tuple[float, ...], ...] | None = None
        self.used = 0

    def push(self, part: tuple[int, int]) -> None:
        """Send a part (size, offset in bytes) of every rank's buffer to the card."""
        size, offset = part
        if size:
            for buffer in self.buffers:
                buffer.push(size, offset)


class Accelerator:
    """The U-Net of a build, served by a card.

    Args:
        build: folder of the build; every file of it is checked against its hash.
        xclbin: configuration of a real card; default: the build's software card.
        device: index or address of the card.
        timeout_ms: limit for one step.
        self_test: run a step whose result is known before the card is used.

    Raises:
        UserError: missing, changed or foreign files, or no card.
        CardFault: the card does not pass its self-test.
    """

    def __init__(
        self,
        build: Path,
        xclbin: Path | None = None,
        device: int | str = 0,
        timeout_ms: int = TIMEOUT_MS,
        self_test: bool = True,
    ) -> None:
        folder = BuildFolder(build)
        path = xclbin or build / CONTAINER_NAME
        folder.check_xclbin(path)
        self.model = folder.model
        self._folder = folder
        codec = folder.codec()
        self._connect(codec, Card(path, device, timeout_ms))
        if self_test:
            known = known_step(build, folder.identity, codec)
            self._session.self_test(known, codec.result_values)

    @classmethod
    def from_parts(cls, codec: Codec, card: Card) -> Accelerator:
        """An accelerator from an opened card, for one whose files do not form a build."""
        self = cls.__new__(cls)
        self._connect(codec, card)
        return self

    def _connect(self, codec: Codec, card: Card) -> None:
        self._codec, self._card = codec, card
        self._session = Session(card, codec.ranks)
        self._slots: list[Slot] = []
        self._clock = 0

    @property
    def clock_mhz(self) -> float:
        """Clock in MHz that turns cycles into time: the one that the linker achieved, or what the
        program was made for on a software card.
        """
        return self._card.clock_mhz or self._codec.clock_mhz

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
        """Tokens, at most, and width of one prompt's embedding; None if the U-Net takes none."""
        return self._codec.prompt_shape

    @property
    def extra_inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape of one sample and dtype of what the U-Net takes besides latent, timestep and
        prompt, by name; empty for most.
        """
        return self._codec.extra_inputs

    @property
    def cycles(self) -> int | None:
        """Modelled clock cycles per step of the last start; None on a real card."""
        cycles = self._card.cycles
        return None if cycles is None else round(cycles / self._card.steps)

    @property
    def report(self) -> str:
        """The software card's report of the last run."""
        return self._card.report

    @property
    def address(self) -> str:
        """PCI address of a real card; ``software`` and its number for one in software."""
        return f"software {self._card.which}" if self._card.software else self._card.address

    @property
    def card_seconds(self) -> float:
        """Wall time in seconds spent in the binding so far: transfers, starts and waits."""
        return self._card.seconds

    @property
    def identity(self) -> str:
        """Hash over what the numbers depend on: program, weights, host values."""
        return self._folder.identity

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
        extra: Extra | None = None,
    ) -> Float32:
        """Noise prediction of the U-Net.

        Args:
            latent: float32 [batch, channels, height, width], any batch.
            timestep: one for all, or one for each sample.
            encoder_hidden_states: float32 [batch, tokens, width], of any number of tokens up to
                ``prompt_shape``'s; None if the U-Net takes none.
            extra: arrays [batch, ...] of ``extra_inputs``, by name.

        Returns:
            float32 [batch, output channels, height, width].

        Raises:
            UserError: wrong shapes.
            CardFault: the card failed; open it again, or another one.
        """
        latent = np.asarray(latent, dtype=np.float32)
        timesteps, prompt = self._check(latent, timestep, encoder_hidden_states)
        others = self._check_extra(extra or {}, len(latent))
        size = self.batch
        if len(latent) == size:
            return self._run(latent, timesteps, prompt, others)
        out = np.empty((len(latent), *self._codec.result_shape), np.float32)
        for part in _parts(len(latent), size):
            rows = np.resize(part, size)
            every = timesteps * size if len(timesteps) == 1 else tuple(timesteps[i] for i in rows)
            context = None if prompt is None else prompt[rows]
            others_here = {name: value[rows] for name, value in others.items()}
            result = self._run(latent[rows], every, context, others_here)
            out[part[0] : part[-1] + 1] = result[: len(part)]
        return out

    def _run(
        self,
        latent: Float32,
        timesteps: tuple[float, ...],
        prompt: Float32 | None,
        extra: Extra,
    ) -> Float32:
        """One run of the layer program; all but the timesteps with its batch."""
        slot = self._slot(prompt, extra)
        wanted = timesteps if len(timesteps) == self.batch else timesteps * self.batch
        self._prepare(slot, (wanted,), extra)
        session = self._session
        self._codec.write_latent(session.latents, latent)
        session.step(slot.buffers)
        return self._codec.read_result(session.results)

    def _prepare(self, slot: Slot, steps: tuple[tuple[float, ...], ...], extra: Extra) -> None:
        """Send what steps with these timesteps have of their own, unless it is there."""
        if slot.timesteps == steps:
            return
        slot.timesteps = None  # until all of it is on the card
        for index, timesteps in enumerate(steps):
            self._codec.write_step(slot.arrays, timesteps, extra, index)
        size, offset = self._codec.step_range
        slot.push((len(steps) * size, offset))
        slot.timesteps = steps

    @property
    def sampler(self) -> SamplerFormat:
        """The latents of a start, for samplers that are a linear recurrence."""
        return self._codec.sampler

    @property
    def several(self) -> bool:
        """Whether a start may be several steps: the engine has a sampler."""
        return self._codec.several

    def run_steps(
        self,
        state: Int32,
        timesteps: Sequence[float],
        updates: Sequence[Coefficients],
        encoder_hidden_states: Float32 | None = None,
        extra: Extra | None = None,
    ) -> tuple[Int16, Int32]:
        """Several steps in one start: one for every timestep, with an update of the latent behind
        each but the last.

        Args:
            state: int32 [samples, channels, height, width] of ``sampler``.
            timesteps: of the steps.
            updates: one fewer.
            encoder_hidden_states: float32 [batch, tokens, width], or None.
            extra: arrays [batch, ...] of ``extra_inputs``.

        Returns:
            The last result int16 [batch, channels, height, width], and the state that it was
            computed from.

        Raises:
            UserError: wrong shapes, or several steps of an engine without a sampler.
            CardFault: the card failed; open it again, or another one.
        """
        steps = len(timesteps)
        shape = (self.sampler.samples, *self._codec.latent_shape)
        if state.shape != shape or len(updates) != steps - 1:
            raise UserError(
                f"a start of {steps} steps takes {steps - 1} updates of a state of shape "
                f"{list(shape)}, not {len(updates)} of {list(state.shape)}"
            )
        if steps > 1 and not self.several:
            raise UserError(
                "this accelerator has no sampler on the card; build the model with --sampler"
            )
        if steps > MAX_STEPS:
            raise UserError(f"{steps} steps in one start; {MAX_STEPS} are possible")
        items = np.broadcast_to(np.float32(0), (self.batch, *self._codec.latent_shape))
        _, prompt = self._check(items, timesteps[0], encoder_hidden_states)
        others = self._check_extra(extra or {}, self.batch)
        slot = self._slot(prompt, others, steps)
        self._prepare(slot, tuple((float(each),) * self.batch for each in timesteps), others)
        session = self._session
        self._codec.write_start(session.latents, state, updates)
        session.start(slot.buffers, steps, *self._codec.start_bytes(steps))
        result = self._codec.result_values(session.results)
        return result, state if steps == 1 else self._codec.read_state(session.results)

    def _slot(self, prompt: Float32 | None, extra: Extra, steps: int = 1) -> Slot:
        """The slot that holds ``prompt`` and ``extra``, filled if none does, with room for
        ``steps`` steps.
        """
        self._clock += 1
        # compared as bytes: faster than as numbers
        given = [] if prompt is None else [prompt]
        content = tuple(value.tobytes() for value in (*given, *extra.values()))
        for slot in self._slots:
            if slot.used and slot.context == content and slot.steps >= steps:
                slot.used = self._clock
                return slot
        slot = self._free_slot(steps)
        slot.context = None  # until all of it is on the card
        if extra:
            slot.timesteps = None  # their biases depend on it too
        if prompt is not None:
            self._codec.write_prompt(slot.arrays, prompt, extra)
            slot.push(self._codec.prompt_range)
        slot.context = content
        slot.used = self._clock
        return slot

    def _free_slot(self, steps: int) -> Slot:
        """A new slot, or the one that was used longest ago, with room for ``steps`` steps."""
        if len(self._slots) == PROMPTS_ON_CARD:
            oldest = min(self._slots, key=lambda each: each.used)
            if oldest.steps >= steps:
                return oldest
            self._slots.remove(oldest)
        size, _ = self._codec.step_range
        slot = Slot(self._session.dynamic((steps - 1) * size), steps)
        self._slots.append(slot)
        return slot

    def _check(
        self, latent: Float32, timestep: float | NDArray[Any], prompt: Float32 | None
    ) -> tuple[tuple[float, ...], Float32 | None]:
        """Timesteps (one, or one for each sample) and prompt, after every shape was checked."""
        shape = self._codec.latent_shape
        if latent.ndim != 4 or latent.shape[1:] != shape or not len(latent):
            raise UserError(
                f"the latent has shape {list(latent.shape)} but this accelerator was built for "
                f"[batch, {', '.join(map(str, shape))}]; sample at that size or build another"
            )
        batch = len(latent)
        # a sum is finite only if all values are; the sum itself may overflow
        if not math.isfinite(np.add.reduce(latent, None)) and not np.isfinite(latent).all():
            raise UserError("the latent holds values that are not finite; check the sampler")
        timesteps = tuple(np.asarray(timestep, dtype=np.float64).reshape(-1).tolist())
        if len(timesteps) not in (1, batch):
            raise UserError(
                f"{len(timesteps)} timesteps for {batch} samples; give one, or one each"
            )
        expected = self._codec.prompt_shape
        if expected is None:
            return timesteps, None
        if prompt is None:
            raise UserError("this U-Net needs encoder_hidden_states; none were given")
        prompt = np.asarray(prompt, dtype=np.float32)
        most, width = expected
        tokens = prompt.shape[1] if prompt.ndim == 3 else 0
        if not tokens or prompt.shape != (batch, tokens, width):
            raise UserError(
                f"encoder_hidden_states have shape {list(prompt.shape)} but this accelerator was "
                f"built for [{batch}, 1 to {most}, {width}]; use its own text encoder"
            )
        if tokens > most:
            raise UserError(
                f"the prompt has {tokens} tokens, this accelerator was built for {most} at most; "
                f"build it with --tokens {tokens}, or shorten the prompt"
            )
        return timesteps, prompt

    def _check_extra(self, extra: Extra, batch: int) -> dict[str, NDArray[Any]]:
        wanted = self._codec.extra_inputs
        if extra.keys() != wanted.keys():
            raise UserError(
                f"this accelerator was built with the inputs {', '.join(wanted) or 'of a prompt'}, "
                f"not with {', '.join(extra) or 'none'}; build it from this U-Net"
            )
        arrays = {}
        for name, (shape, dtype) in wanted.items():
            arrays[name] = np.ascontiguousarray(extra[name], dtype=dtype)
            if arrays[name].shape != (batch, *shape):
                raise UserError(
                    f"{name} has shape {list(arrays[name].shape)} but this accelerator was built "
                    f"for {[batch, *shape]}; give one for each sample"
                )
        return arrays


def _parts(count: int, size: int) -> Iterator[NDArray[np.int64]]:
    """Indices 0..count-1 in parts of ``size``, the last one possibly shorter."""
    for first in range(0, count, size):
        yield np.arange(first, min(first + size, count))
