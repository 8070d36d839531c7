"""What the host's own code costs in a step: everything but the card.

The card is taken out twice: the time spent in the binding (transfers, starts, waits) does not
count, and the software card is replaced by one that waits about as long as a step takes on a real
one. Computing, it would evict the host's code and data from the processor's caches.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

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


def host_microseconds(accelerator: Accelerator, unet: Any) -> float:
    """Median time of one call of ``AcceleratedUNet`` outside the binding, in microseconds.

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
    with torch.inference_mode():
        for step in range(-TIMESTEPS, STEPS):
            timestep = timesteps[step % TIMESTEPS]
            started, card = time.perf_counter(), accelerator.card_seconds
            dropin(latent, timestep, encoder_hidden_states=prompt, return_dict=False)
            spent = time.perf_counter() - started - (accelerator.card_seconds - card)
            if step >= 0:
                taken.append(spent * 1e6)
    return float(np.median(taken))
