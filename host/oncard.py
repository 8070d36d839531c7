"""Linear samplers in integers, several steps per start of the card.

A pipeline keeps its own loop: it is given a scheduler whose timesteps are those at which a start
begins, and a stepper. The stepper answers the U-Net's call with 0 for the first half of a guided
pair and 1 for the second, so that what reaches the scheduler is the guidance scale; the
scheduler's ``step`` then runs the start. That also shows whether a pipeline does anything else with
predictions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gen.errors import UserError
from gen.reference.sampler import (
    Coefficients,
    Int32,
    coefficients,
    from_state,
    to_state,
    update,
)
from host.accelerator import Float32, Starter
from host.codec import Extra
from host.linear import LinearStep, linear_steps


class LinearSampler:
    """Steps of a linear sampler on an accelerator: the state from start to start.

    The numbers do not depend on how many steps a start has: all updates are
    ``gen.reference.sampler.update``, on the card or here.

    Args:
        card: what computes.
        steps: all steps of the sampler.
        guidance: scale of a guided pair; None: one prediction per latent.

    Raises:
        UserError: coefficients that the card's numbers do not hold, or a pair where the
            accelerator has none.
    """

    def __init__(self, card: Starter, steps: list[LinearStep], guidance: float | None) -> None:
        self._card, self._steps, self._form = card, steps, card.sampler
        if guidance is not None and not self._form.partner:
            raise UserError(
                "this accelerator computes one sample per step, and a guided pair takes two on the "
                "card; build it with --batch 2, or sample with --guidance 1"
            )
        scales = [*(step.scale for step in steps[1:]), 1.0]
        self.updates = [
            coefficients(
                after * step.a / step.scale,
                after * step.b,
                guidance,
                self._form.input_scale,
                self._form.result_scale,
            )
            for step, after in zip(steps, scales, strict=True)
        ]
        for step, by in zip(steps, self.updates, strict=True):
            if not by.fits:
                raise UserError(
                    f"the sampler cannot run on the card: its step at timestep {step.timestep:g} "
                    "is larger than the card's numbers; take more steps, less guidance, or sample "
                    "without --on-card-sampler"
                )

    def state(self, latent: Float32, first: int) -> Int32:
        """The state of latents [samples, channels, height, width] before step ``first``."""
        return to_state(latent * self._scale(first), self._form.input_scale)

    def latent(self, state: Int32, first: int) -> Float32:
        """The latents of a state before step ``first`` (behind the last one: the sample)."""
        values = from_state(state, self._form.input_scale)
        result: Float32 = values / np.float32(self._scale(first))
        return result

    def _scale(self, step: int) -> np.float32:
        scale: np.float32 = np.float32(self._steps[step].scale if step < len(self._steps) else 1)
        return scale

    def start(
        self, state: Int32, first: int, count: int, prompt: Float32 | None, extra: Extra | None
    ) -> Int32:
        """The state behind ``count`` steps from ``first`` on. All but the last update happen on
        the card.
        """
        by: list[Coefficients] = self.updates[first : first + count]
        times = [step.timestep for step in self._steps[first : first + count]]
        values, left = self._card.run_steps(state, times, by[:-1], prompt, extra)
        samples, partner = self._form.samples, self._form.partner
        return update(left, values[:samples], values[partner : partner + samples], by[-1])


class OnCardScheduler:
    """Stands in for a pipeline's scheduler, and as ``stepper`` for its U-Net's accelerator.

    Args:
        scheduler: the pipeline's own, of any kind whose steps are linear.
        card: what computes.
        steps_per_start: at most so many steps in one start.
    """

    order = 1

    def __init__(self, scheduler: Any, card: Starter, steps_per_start: int) -> None:
        self._scheduler, self._card, self._at_once = scheduler, card, steps_per_start
        self.stepper = _Stepper(card)
        self._firsts: list[int] = []
        self._next = 0
        self._steps: list[LinearStep] = []
        self._samplers: dict[float | None, LinearSampler] = {}  # by guidance, which may change
        self._kept: tuple[int, Float32, Int32] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def set_timesteps(self, num_inference_steps: int | None = None, **options: Any) -> None:
        """Set the timesteps of the scheduler, and of them those at which a start begins.

        Raises:
            UserError: steps that are not linear.
        """
        self._scheduler.set_timesteps(num_inference_steps, **options)
        self._steps = linear_steps(self._scheduler)
        self._firsts = list(range(0, len(self._steps), self._at_once))
        self._samplers = {}
        self._next, self._kept, self.stepper.calls = 0, None, 0

    @property
    def timesteps(self) -> torch.Tensor:
        """Timesteps at which a start begins."""
        values: torch.Tensor = self._scheduler.timesteps[self._firsts]
        return values

    @property
    def last_steps(self) -> int:
        """Steps of the start that the U-Net was called for last, be it over or still to come."""
        return self._count(self._next if self.stepper.calls else self._next - 1)

    def _count(self, start: int) -> int:
        return min(self._at_once, len(self._steps) - self._firsts[start])

    def scale_model_input(self, sample: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """The sample itself: the start scales it."""
        return sample

    def step(
        self,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        eta: float = 0.0,
        return_dict: bool = True,
        **others: Any,
    ) -> Any:
        """Run the start that begins at ``timestep``. ``eta`` is named, for pipelines pass it to
        schedulers that name it only; ``others`` says nothing to a linear step.

        Raises:
            UserError: noise, or a pipeline that does more with predictions than guidance.
            CardFault: the card failed.
        """
        index = self._next
        if eta:
            raise UserError("noise (eta) cannot be added on the card; sample without it")
        if index >= len(self._firsts) or float(timestep) != float(self.timesteps[index]):
            raise UserError(
                f"the pipeline asks for a step at timestep {float(timestep):g} out of order; this "
                "one cannot use a sampler on the card: sample without --on-card-sampler"
            )
        guidance = self.stepper.guidance(model_output, len(sample))
        if guidance not in self._samplers:
            self._samplers[guidance] = LinearSampler(self._card, self._steps, guidance)
        sampler = self._samplers[guidance]
        first = self._firsts[index]
        latent = sample.detach().to("cpu", torch.float32).numpy()
        state = sampler.state(latent, first)
        if self._kept is not None and self._kept[0] == first:
            _, left, kept = self._kept
            # a latent that was not changed in between has more digits than its float32
            state = kept if np.array_equal(left, latent) else state
        count = self._count(index)
        made = sampler.start(state, first, count, self.stepper.prompt, self.stepper.extra)
        after = first + count
        out = sampler.latent(made, after)
        self._next, self._kept = index + 1, (after, out, made)
        result = torch.from_numpy(out.copy()).to(sample.device, sample.dtype)
        if not return_dict:
            return (result,)
        return _Output(result)


def scheduler_for(unet: Any, card: Starter, scheduler: Any, steps_per_start: int) -> Any:
    """Have an ``AcceleratedUNet`` served by ``card``; returns the scheduler that goes with it.

    That is ``scheduler`` itself for 0 ``steps_per_start``.

    Raises:
        UserError: several steps per start of an engine without a sampler.
    """
    if not steps_per_start:
        unet.accelerator = card
        return scheduler
    if steps_per_start > 1 and not card.several:
        raise UserError(
            "this accelerator has no sampler on the card; build the model with --sampler, or "
            "sample with --on-card-sampler 1 or without it"
        )
    made = OnCardScheduler(scheduler, card, steps_per_start)
    unet.accelerator = made.stepper
    return made


class _Output(dict[str, torch.Tensor]):
    """What schedulers return."""

    def __init__(self, sample: torch.Tensor) -> None:
        super().__init__(prev_sample=sample)
        self.prev_sample = sample


class _Stepper:
    """Answers the U-Net's calls, and keeps what else they were given."""

    def __init__(self, card: Starter) -> None:
        self._form = card.sampler
        self._items = 0
        self.calls = 0  # for the start to come
        self.prompt: Float32 | None = None
        self.extra: Extra | None = None

    def step(
        self,
        latent: Float32,
        timestep: float | NDArray[Any],
        encoder_hidden_states: Float32 | None = None,
        extra: Extra | None = None,
    ) -> Float32:
        """0 for the first half of the items, 1 for the second; 1 where there are no pairs."""
        samples, self._items = self._form.samples, len(latent)
        self.calls += 1
        batch = samples + self._form.partner
        if self._items not in (samples, 2 * samples):
            raise UserError(
                f"the pipeline draws {self._items} samples at once, the accelerator's sampler "
                f"{samples}; draw as many, or sample without --on-card-sampler"
            )
        # an accelerator for pairs computes one sample as a pair of twins
        rows = np.resize(np.arange(self._items), max(batch, self._items))
        self.prompt = None if encoder_hidden_states is None else encoder_hidden_states[rows]
        self.extra = None if extra is None else {name: value[rows] for name, value in extra.items()}
        answer = np.ones_like(latent, np.float32)
        if self._items == 2 * samples:
            answer[:samples] = 0
        return answer

    def guidance(self, prediction: torch.Tensor, samples: int) -> float | None:
        """The guidance scale that the pipeline applied to the one call; None: none.

        Raises:
            UserError: it did something else.
        """
        values = prediction.detach().to("cpu", torch.float64)
        scale = float(values.reshape(-1)[0])
        if samples != self._form.samples:
            raise UserError(
                f"the pipeline draws {samples} samples at once, the accelerator's sampler "
                f"{self._form.samples}; draw as many, or sample without --on-card-sampler"
            )
        paired = self._items == 2 * samples
        constant = bool((values == scale).all()) and (paired or scale == 1.0)
        calls, self.calls = self.calls, 0
        if not constant or calls != 1:
            raise UserError(
                "the pipeline does more with predictions than guidance (guidance_rescale, or a "
                "sampler of its own), which the card does not; sample without --on-card-sampler"
            )
        return scale if paired else None
