"""What a sampling run may be told. Free of heavy imports: commands read it before anything else."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gen.errors import UserError

DEFAULT_PROMPTS = (
    "a red circle and a blue star on a forest background",
    "a yellow heart and a cyan square on a night background",
    "a white triangle and a pink circle on a sunset background",
    "a green cross and a black star on a snow background",
    "a pink heart on a sky background",
    "a cyan circle and a red cross on a desert background",
)
# of a start with the sampler on the card; progress and resuming go by starts
STEPS_PER_START = 10
# of a start, at most: what the latent buffers have room for
MAX_STEPS = 1000
# of a picture's noise: what a generator of torch takes, with room for prompts that count up
MAX_SEED = 2**63 - 1
# name on the command line -> class of diffusers
SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
}


@dataclass(frozen=True)
class Settings:
    """Sampler settings; ``guidance`` is the classifier-free guidance scale (1 or less: none),
    ``scheduler`` a key of ``SCHEDULERS`` ("": the model's default), ``steps_per_start`` the most
    steps of one start with the sampler on the card (0: the scheduler runs on the host).
    """

    seed: int = 1
    steps: int = 25
    guidance: float = 2.5
    scheduler: str = ""
    steps_per_start: int = 0

    def check(self) -> None:
        """Refuse settings that the sampler cannot run with.

        Raises:
            UserError: no steps, or more than the model was trained with; a guidance scale or a
                seed that is no number to sample with.
        """
        if not 1 <= self.steps <= 1000:
            raise UserError(f"{self.steps} steps cannot be sampled; give 1 to 1000 by --steps")
        if not 0 <= self.steps_per_start <= MAX_STEPS:
            raise UserError(
                f"{self.steps_per_start} steps cannot be one start; give 1 to {MAX_STEPS} by "
                "--on-card-sampler"
            )
        if not math.isfinite(self.guidance):
            raise UserError(
                f"guidance {self.guidance:g} is not finite; give a number by --guidance"
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise UserError(f"seed {self.seed} cannot be used; give 0 to {MAX_SEED} by --seed")
