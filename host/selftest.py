"""A step whose result is known, so that a card can be tested before it is used.

The inputs are bytes as they lie in DDR, the result is the software card's (``card.so`` of the same
build, called without any host code in between). They are computed once per build and kept beside
it in ``selftest.safetensors``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from gen.errors import UserError
from gen.reference.sampler import coefficients, to_state
from host.swcard.library import DONE, CardLibrary

if TYPE_CHECKING:
    from host.codec import Codec

Bytes = NDArray[np.uint8]
FILE = "selftest.safetensors"
LIBRARY = "card.so"
TIMESTEP = 500.0
SEVERAL = 2  # steps of a start of several


@dataclass(frozen=True)
class Inputs:
    """Bytes of one rank's latent and dynamic buffer."""

    latent: Bytes
    dynamic: Bytes


@dataclass(frozen=True)
class KnownStart:
    """Of a start of several steps from the same inputs: the last result, and the result buffers of
    all ranks [ranks, bytes], which hold the sampler's state.
    """

    steps: int
    result: NDArray[np.int16]
    buffers: Bytes


@dataclass(frozen=True)
class KnownStep:
    """Inputs of every rank, and the result int16 [batch, channels, height, width]; ``several``: of
    an engine with a sampler.
    """

    inputs: tuple[Inputs, ...]
    result: NDArray[np.int16]
    several: KnownStart | None = None


def known_step(build: Path, identity: str, codec: Codec) -> KnownStep:
    """The known step of a build; computed and kept if it is not there yet.

    ``identity`` is a hash over what the result depends on: program, weights and ``card.so``.

    Raises:
        UserError: the software card of the build does not run.
    """
    path = build / FILE
    kept = _read(path, identity, len(codec.ranks))
    if kept is not None:
        return kept
    made = _compute(build, codec)
    tensors: dict[str, NDArray[Any]] = {"result": made.result}
    if made.several is not None:
        tensors["several.result"] = made.several.result
        tensors["several.buffers"] = made.several.buffers
    for rank, inputs in enumerate(made.inputs):
        tensors[f"{rank}.latent"] = inputs.latent
        tensors[f"{rank}.dynamic"] = inputs.dynamic
    scratch = build / f".{FILE}.{os.getpid()}"
    try:
        save_file(tensors, scratch, metadata={"identity": identity})
        scratch.replace(path)
    except OSError:
        # a build that may not be written to, or a full disk: it is computed again next time
        scratch.unlink(missing_ok=True)
    return made


def _read(path: Path, identity: str, ranks: int) -> KnownStep | None:
    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("identity") != identity:
                return None
            return KnownStep(
                tuple(
                    Inputs(file.get_tensor(f"{r}.latent"), file.get_tensor(f"{r}.dynamic"))
                    for r in range(ranks)
                ),
                file.get_tensor("result"),
                KnownStart(
                    SEVERAL, file.get_tensor("several.result"), file.get_tensor("several.buffers")
                )
                if "several.result" in file.keys()  # noqa: SIM118 - not a mapping
                else None,
            )
    except (OSError, SafetensorError):
        return None


def _compute(build: Path, codec: Codec) -> KnownStep:
    rng = np.random.default_rng(0)
    steps = SEVERAL if codec.several else 1
    latent_bytes, result_bytes = codec.start_bytes(steps)
    size, _ = codec.step_range
    latents = [np.zeros(latent_bytes, np.uint8) for _ in codec.ranks]
    dynamics = [np.zeros(each.dynamic_bytes + (steps - 1) * size, np.uint8) for each in codec.ranks]
    results = [_words(np.zeros(result_bytes, np.uint8)) for _ in codec.ranks]
    shape = (codec.batch, *codec.latent_shape)
    latent = rng.standard_normal(shape, np.float32)
    codec.write_latent(latents, latent)
    if codec.several:
        form = codec.sampler
        by = coefficients(
            0.9, -0.3, 2.5 if form.partner else None, form.input_scale, form.result_scale
        )
        codec.write_start(latents, to_state(latent[: form.samples], form.input_scale), [by])
    extra = {
        name: np.zeros((codec.batch, *shape), dtype)
        for name, (shape, dtype) in codec.extra_inputs.items()
    }
    for step in range(steps):
        codec.write_step(dynamics, (TIMESTEP - step,) * codec.batch, extra, step)
    if codec.prompt_shape is not None:
        prompt = rng.standard_normal((codec.batch, *codec.prompt_shape), np.float32)
        codec.write_prompt(dynamics, prompt, extra)
    card = CardLibrary(build / LIBRARY)
    weights = [_words(each.weights) for each in codec.ranks]
    spills = [_words(np.zeros(each.spill_bytes, np.uint8)) for each in codec.ranks]
    buffers = list(zip(weights, dynamics, latents, results, spills, strict=True))

    def run(count: int) -> NDArray[np.int16]:
        if card.step(buffers, reload=1, steps=count) != DONE:
            raise UserError(
                f"{build / LIBRARY} does not run a step ({card.error}); run `make build`"
            )
        return codec.result_values(results)

    known = KnownStep(tuple(map(Inputs, latents, dynamics)), run(1))
    if codec.several:
        known = replace(known, several=KnownStart(steps, run(steps), np.stack(results)))
    card.close()
    return known


def _words(data: Bytes) -> Bytes:
    """The data at a 64-byte boundary, as kernels expect it."""
    raw = np.zeros(data.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    aligned = raw[start : start + data.nbytes]
    aligned[:] = data
    return aligned
