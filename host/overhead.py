"""What the host's own code costs in a step: everything but the card.

The card is taken out twice: the time spent in the binding (transfers, starts, waits) does not
count, and the software card is replaced by one that does nothing, or waits about as long as a step
takes on a real one. Computing, it would evict the host's code and data from the processor's caches;
so does, while it waits, whatever else the machine has to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from host.card import Buffer, Card
from host.swcard.library import DONE, CardLibrary
from host.unet import AcceleratedUNet

if TYPE_CHECKING:
    from host.accelerator import Accelerator

STEPS = 200
TIMESTEPS = 25
WAIT_S = 0.002


@contextmanager
def waiting_card(seconds: float = WAIT_S) -> Iterator[None]:
    """Software cards that wait instead of computing."""
    compute = CardLibrary.step

    def wait(self: CardLibrary, ranks: Sequence[Any], reload: int, steps: int = 1) -> int:
        if seconds:
            time.sleep(steps * seconds)
        return DONE

    CardLibrary.step = wait  # type: ignore[method-assign]
    try:
        yield
    finally:
        CardLibrary.step = compute  # type: ignore[method-assign]


class _Binding:
    """Processor time in seconds that a thread has spent in the binding."""

    def __init__(self) -> None:
        self.spent = 0.0

    def timed(self, function: Callable[..., None]) -> Callable[..., None]:
        """The function, its time added up."""

        def call(*arguments: Any) -> None:
            started = time.thread_time()
            try:
                function(*arguments)
            finally:
                self.spent += time.thread_time() - started

        return call


@contextmanager
def _binding_time() -> Iterator[_Binding]:
    """Transfers, starts and waits are timed."""
    sync, execute, binding = Buffer._sync, Card.execute, _Binding()
    Buffer._sync, Card.execute = binding.timed(sync), binding.timed(execute)  # type: ignore[method-assign]
    try:
        yield binding
    finally:
        Buffer._sync, Card.execute = sync, execute  # type: ignore[method-assign]


@dataclass(frozen=True)
class Overhead:
    """Medians in microseconds per step: processor time of the host's code, and wall time, in which
    whatever else the machine does counts too.
    """

    processor: float
    wall: float


def host_overhead(accelerator: Accelerator, unet: Any) -> Overhead:
    """Median times of one call of ``AcceleratedUNet`` outside the binding.

    One prompt, and the timesteps of a sampler that has taken them before. ``unet`` is the float
    U-Net of the accelerator's build.
    """
    dropin = AcceleratedUNet(accelerator, unet)
    rng = np.random.default_rng(0)
    shape = (accelerator.batch, *accelerator.latent_shape)
    latent = torch.from_numpy(rng.standard_normal(shape, np.float32))
    prompt = None
    if accelerator.prompt_shape is not None:
        tokens, width = accelerator.prompt_shape
        prompt = torch.from_numpy(
            rng.standard_normal((accelerator.batch, tokens, width), np.float32)
        )
    timesteps = torch.arange(TIMESTEPS)
    taken = []
    with torch.inference_mode(), _binding_time() as binding:
        for step in range(-TIMESTEPS, STEPS):
            timestep = timesteps[step % TIMESTEPS]
            card, spent = accelerator.card_seconds, binding.spent
            started, processor = time.perf_counter(), time.thread_time()
            dropin(latent, timestep, encoder_hidden_states=prompt, return_dict=False)
            processor = time.thread_time() - processor - (binding.spent - spent)
            wall = time.perf_counter() - started - (accelerator.card_seconds - card)
            if step >= 0:
                taken.append((processor * 1e6, wall * 1e6))
    return Overhead(*(float(each) for each in np.median(taken, axis=0)))
