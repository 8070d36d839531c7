"""How much of a sampler calibration records, by the size of the model."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm

STEPS = 8
LEAST_STEPS = 4
# multiply-accumulates that calibration may spend by itself: about a minute of two cores
BUDGET = 4_000_000_000_000


@dataclass(frozen=True)
class Effort:
    """``prompts`` are sampled, in trajectories of ``group`` prompts each, over ``steps`` steps.

    The batches of a trajectory are full, but for the last one of the last trajectory.
    """

    prompts: int
    group: int
    steps: int
    batches: int

    @property
    def trajectories(self) -> int:
        """Trajectories in all."""
        return -(-self.prompts // self.group)

    @property
    def runs(self) -> int:
        """Runs of the U-Net in all."""
        return self.trajectories * self.batches * self.steps


def choose_effort(
    run_macs: int, batch: int, items_per_prompt: int, prompts: int, all_prompts: bool
) -> Effort:
    """The effort for a model of which one run of ``batch`` items costs ``run_macs``.

    A prompt takes ``items_per_prompt`` items (2 with guidance). As many of the ``prompts`` are
    sampled over 8 steps as the budget allows, or all of them if ``all_prompts``. Where it does
    not allow a single trajectory, that one has fewer steps, but at least 4.
    """
    group = lcm(batch, items_per_prompt) // items_per_prompt
    batches = group * items_per_prompt // batch
    affordable = BUDGET // max(1, run_macs * batches)
    trajectories = -(-prompts // group)
    if not all_prompts:
        trajectories = min(trajectories, max(1, affordable // STEPS))
    steps = min(STEPS, max(LEAST_STEPS, affordable // trajectories))
    return Effort(min(prompts, trajectories * group), group, steps, batches)
