"""What the host's commands share: arguments and settings. Free of heavy imports."""

from __future__ import annotations

import argparse
from pathlib import Path

from gen.errors import UserError
from host.settings import SCHEDULERS, STEPS_PER_START, Settings


def parser(command: str, description: str, out: str = "out") -> argparse.ArgumentParser:
    """Arguments of every command; ``command``: the module that is run."""
    arguments = argparse.ArgumentParser(prog=f"python -m {command}", description=description)
    arguments.add_argument(
        "--build", type=Path, required=True, help="folder that make build has made: build/NAME"
    )
    arguments.add_argument(
        "--out", type=Path, default=Path(out), help=f"folder for results (default: {out})"
    )
    arguments.add_argument(
        "--xclbin", type=Path, help="linked file of a real card (default: the software card)"
    )
    arguments.add_argument(
        "--device",
        type=_device,
        default=0,
        help="the card: its index, or its PCI address such as 0000:65:00.1 (default: 0)",
    )
    return arguments


def _device(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def add_sampling(arguments: argparse.ArgumentParser) -> None:
    """Arguments of commands that sample."""
    defaults = Settings()
    arguments.add_argument(
        "--seed",
        type=int,
        default=defaults.seed,
        help=f"of the first prompt, others count up (default: {defaults.seed})",
    )
    arguments.add_argument(
        "--steps",
        type=int,
        default=defaults.steps,
        help=f"denoising steps (default: {defaults.steps})",
    )
    arguments.add_argument(
        "--guidance",
        type=float,
        default=defaults.guidance,
        help="how much the prompt counts; 1 and less: no guidance "
        f"(default: {defaults.guidance:g})",
    )
    arguments.add_argument(
        "--scheduler", choices=SCHEDULERS, default="", help="default: ddim, or lcm for its models"
    )
    arguments.add_argument(
        "--on-card-sampler",
        type=int,
        nargs="?",
        const=STEPS_PER_START,
        default=0,
        metavar="STEPS",
        help="the card updates the latent itself, STEPS per start "
        f"({STEPS_PER_START} if no number is given; default: the host does)",
    )
    arguments.add_argument("--model", type=Path, help="diffusers folder (default: the build's)")


def settings(parsed: argparse.Namespace) -> Settings:
    """The sampler settings of parsed arguments, checked."""
    chosen = Settings(
        parsed.seed, parsed.steps, parsed.guidance, parsed.scheduler, parsed.on_card_sampler
    )
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
