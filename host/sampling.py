"""Runs the bundled pipeline, float or accelerated, prompt by prompt."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from gen.errors import UserError
from host.settings import Settings

Picture = NDArray[np.uint8]


@dataclass
class Sample:
    """A finished picture (uint8 [height, width, 3]) and the wall time of its steps in seconds
    (the first includes the text encoder).
    """

    picture: Picture
    step_seconds: list[float] = field(default_factory=list)

    @property
    def median_step(self) -> float:
        """Median wall time of one denoising step in seconds, U-Net and scheduler."""
        return float(np.median(self.step_seconds))


def load_pipeline(model: Path) -> Any:
    """The pipeline in a local diffusers folder, with a DDIM scheduler, in float32 on the CPU.

    Raises:
        UserError: not such a folder.
    """
    if not (model / "model_index.json").is_file():
        raise UserError(f"{model}: not a diffusers pipeline (no model_index.json); name its folder")
    # diffusers warns of optional packages while it is being imported
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from diffusers.utils import logging

    logging.disable_progress_bar()
    try:
        pipe = StableDiffusionPipeline.from_pretrained(str(model), local_files_only=True)
    except Exception as error:
        # diffusers, transformers, safetensors and json each raise their own kinds
        raise UserError(
            f"{model}: the pipeline cannot be loaded ({' '.join(str(error).split())[:300]}); "
            "restore its files"
        ) from error
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(
    pipe: Any,
    prompt: str,
    settings: Settings,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
) -> Sample:
    """Sample one prompt from the noise of ``seed``; ``on_step`` is called after every step."""
    seconds: list[float] = []
    last = time.perf_counter()

    def after_step(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        nonlocal last
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
        on_step()
        return tensors

    picture = pipe(
        prompt,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="np",
        callback_on_step_end=after_step,
    ).images[0]
    return Sample(np.rint(picture * 255).astype(np.uint8), seconds)
