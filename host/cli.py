"""What the host's commands share: arguments and settings. Free of heavy imports."""

from __future__ import annotations

import argparse
from pathlib import Path

from gen.errors import UserError
from host.settings import SCHEDULERS, Settings


def parser(description: str, out: str = "out") -> argparse.ArgumentParser:
    """Arguments of every command."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--build", type=Path, required=True, help="folder of a build")
    arguments.add_argument("--out", type=Path, default=Path(out), help="folder for results")
    arguments.add_argument("--xclbin", type=Path, help="xclbin of a real card (default: software)")
    arguments.add_argument("--device", type=_device, default=0, help="index or address of the card")
    return arguments


def _device(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def add_sampling(arguments: argparse.ArgumentParser) -> None:
    """Arguments of commands that sample."""
    defaults = Settings()
    arguments.add_argument("--seed", type=int, default=defaults.seed, help="of the first prompt")
    arguments.add_argument("--steps", type=int, default=defaults.steps, help="denoising steps")
    arguments.add_argument("--guidance", type=float, default=defaults.guidance)
    arguments.add_argument(
        "--scheduler", choices=SCHEDULERS, default="", help="default: ddim, or lcm for its models"
    )
    arguments.add_argument("--model", type=Path, help="diffusers folder (default: the build's)")


def settings(parsed: argparse.Namespace) -> Settings:
    """The sampler settings of parsed arguments, checked."""
    chosen = Settings(parsed.seed, parsed.steps, parsed.guidance, parsed.scheduler)
    chosen.check()
    return chosen


def make_folder(path: Path) -> None:
    """Make the folder for results, or say why not."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be made ({error.strerror}); choose another folder by --out"
        ) from error
