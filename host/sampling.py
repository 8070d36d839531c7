"""Runs a diffusers pipeline, float or accelerated, prompt by prompt."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from gen.errors import UserError
from gen.lora import Lora, fuse_loras
from gen.lora_keys import COMPONENTS
from gen.model import find_model, load_unet, read_json, weights_variant
from host.settings import SCHEDULERS, Settings

Picture = NDArray[np.uint8]

# of pipelines that do not scale the U-Net's input, or pass what only some schedulers take
USABLE = {
    "DDPMPipeline": ("ddim", "ddpm", "dpm++", "lcm"),
    "DDIMPipeline": ("ddim",),
}


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


def load_pipeline(model: Path, loras: Sequence[Lora] = (), scheduler: str = "") -> Any:
    """The pipeline in a local diffusers folder, in float32 on the CPU, LoRAs fused.

    The file of an unconditional architecture does as well: random weights, and pictures that are
    the latents themselves. ``scheduler`` is a key of ``SCHEDULERS``; default: DDIM, or LCM for a
    model that was distilled for it.

    Raises:
        UserError: not such a folder, a pipeline without a U-Net, or one that cannot sample with the
            scheduler.
    """
    # diffusers warns of optional packages while it is being imported
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    import diffusers
    from diffusers.utils import logging

    logging.disable_progress_bar()
    pipe = _random_pipeline(model) if model.suffix == ".json" else _stored_pipeline(model)
    if getattr(pipe, "unet", None) is None:
        raise UserError(f"{model}: {type(pipe).__name__} has no U-Net; name a pipeline that has")
    for component in COMPONENTS:
        part = getattr(pipe, component, None)
        if part is not None:
            fuse_loras(part, loras, component)
    if not scheduler:
        scheduler = "lcm" if isinstance(pipe.scheduler, diffusers.LCMScheduler) else "ddim"
    usable = USABLE.get(type(pipe).__name__, tuple(SCHEDULERS))
    if scheduler not in usable:
        raise UserError(
            f"{type(pipe).__name__} cannot sample with {scheduler}; choose {' or '.join(usable)} "
            "by --scheduler"
        )
    pipe.scheduler = getattr(diffusers, SCHEDULERS[scheduler]).from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _stored_pipeline(folder: Path) -> Any:
    import diffusers

    if not (folder / "model_index.json").is_file():
        raise UserError(
            f"{folder}: not a diffusers pipeline (no model_index.json); name its folder by --model"
        )
    try:
        return diffusers.DiffusionPipeline.from_pretrained(str(folder), **_options(folder))
    except UserError:
        raise
    except Exception as error:
        # diffusers, transformers, safetensors and json each raise their own kinds
        raise UserError(
            f"{folder}: the pipeline cannot be loaded ({' '.join(str(error).split())[:300]}); "
            "restore its files"
        ) from error


def _random_pipeline(architecture: Path) -> Any:
    import diffusers

    unet = load_unet(find_model(str(architecture)))
    if not isinstance(unet, diffusers.UNet2DModel):
        raise UserError(
            f"{architecture}: an architecture has no text encoder to draw with; name the folder of "
            "a pipeline by --model"
        )
    return diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler())


def _options(model: Path) -> dict[str, Any]:
    """How to load a pipeline: nothing executed, nothing downloaded, no checker of pictures."""
    options: dict[str, Any] = {
        "local_files_only": True,
        "use_safetensors": True,
        "torch_dtype": torch.float32,
    }
    index = read_json(model / "model_index.json")
    if (model / "unet").is_dir():
        options["variant"] = weights_variant(model / "unet")
    if "safety_checker" in index:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    return options


def takes_prompt(pipe: Any) -> bool:
    """Whether the pipeline draws from a prompt."""
    return _accepts(pipe, "prompt")


def _accepts(pipe: Any, name: str) -> bool:
    parameters = inspect.signature(pipe.__call__).parameters.values()
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)


def draw(
    pipe: Any,
    prompt: str,
    settings: Settings,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
    latent: tuple[int, int] | None = None,
) -> Sample:
    """Sample one prompt from the noise of ``seed``; ``on_step`` is called after every step.

    ``latent`` is its height and width in latent pixels; default: the pipeline's own.
    Pipelines without prompts get none. Where a pipeline has no callback, a step ends with the
    U-Net's evaluation.
    """
    seconds: list[float] = []
    last = time.perf_counter()

    def after_step() -> None:
        nonlocal last
        now = time.perf_counter()
        # a scheduler on the card takes several at once
        count = getattr(pipe.scheduler, "last_steps", 1)
        seconds.extend([(now - last) / count] * count)
        last = now
        for _ in range(count):
            on_step()

    def callback(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        after_step()
        return tensors

    options: dict[str, Any] = {
        "num_inference_steps": settings.steps,
        "generator": torch.Generator("cpu").manual_seed(seed),
        "output_type": "np",
    }
    if _accepts(pipe, "prompt"):
        options["prompt"] = prompt
    if latent is not None and _accepts(pipe, "height") and hasattr(pipe, "vae_scale_factor"):
        options["height"], options["width"] = (n * pipe.vae_scale_factor for n in latent)
    if _accepts(pipe, "guidance_scale"):
        options["guidance_scale"] = settings.guidance
    hook = None
    if _accepts(pipe, "callback_on_step_end"):
        options["callback_on_step_end"] = callback
    else:
        hook = pipe.unet.register_forward_hook(lambda *_: after_step())
    try:
        picture = pipe(**options).images[0]
    finally:
        if hook is not None:
            hook.remove()
    return Sample(np.rint(picture * 255).astype(np.uint8), seconds)
