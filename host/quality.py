"""``python -m host.quality``: pictures of the accelerator against the float U-Net's, in figures."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen.cli import guarded
from gen.errors import UserError
from host.cli import add_sampling, importing, make_folder, parser
from host.cli import settings as settings_of
from host.settings import Settings

if TYPE_CHECKING:
    from host.accelerator import Accelerator
    from host.sampling import Picture

STOPPED = "stopped by Ctrl-C before all prompts were drawn; nothing was written"


@dataclass(frozen=True)
class Verdict:
    """One prompt: closeness of the two pictures, and whether each shows every attribute."""

    prompt: str
    seed: int
    psnr: float
    ssim: float
    right: bool
    right_float: bool


def compare(
    pipe: Any,
    accelerator: Accelerator,
    prompts: Sequence[str],
    settings: Settings,
    judge: Callable[[Picture, str], bool],
) -> list[Verdict]:
    """Draw every prompt with both U-Nets from the same noise and compare."""
    from tqdm import tqdm

    from host.metrics import psnr, ssim
    from host.sampling import draw
    from host.unet import AcceleratedUNet

    float_unet = pipe.unet
    card_unet = AcceleratedUNet(accelerator, float_unet)
    verdicts: list[Verdict] = []
    with tqdm(total=2 * settings.steps * len(prompts), unit="step", disable=None) as bar:
        for number, prompt in enumerate(prompts):
            bar.set_description(f"prompt {number + 1} of {len(prompts)}")
            seed = settings.seed + number
            pipe.unet = float_unet
            expected = draw(pipe, prompt, settings, seed, bar.update).picture
            pipe.unet = card_unet
            picture = draw(pipe, prompt, settings, seed, bar.update).picture
            verdicts.append(
                Verdict(
                    prompt,
                    seed,
                    psnr(expected, picture),
                    ssim(expected, picture),
                    judge(picture, prompt),
                    judge(expected, prompt),
                )
            )
    pipe.unet = float_unet
    return verdicts


def summary(verdicts: Sequence[Verdict], settings: Settings) -> dict[str, object]:
    """The figures of out/quality.json; accuracies are shares of prompts with all attributes."""
    values = [verdict.psnr for verdict in verdicts]
    mean = statistics.fmean
    return {
        "samples": len(verdicts),
        "steps": settings.steps,
        "guidance": settings.guidance,
        "seed": settings.seed,
        "psnr_median": round(statistics.median(values), 3),
        "psnr_min": round(min(values), 3),
        "ssim_mean": round(mean(verdict.ssim for verdict in verdicts), 5),
        "attribute_accuracy": mean(verdict.right for verdict in verdicts),
        "attribute_accuracy_float": mean(verdict.right_float for verdict in verdicts),
        "prompts": [
            {
                "prompt": verdict.prompt,
                "seed": verdict.seed,
                "psnr": round(verdict.psnr, 3),
                "ssim": round(verdict.ssim, 5),
                "right": verdict.right,
                "right_float": verdict.right_float,
            }
            for verdict in verdicts
        ],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    arguments = parser("Compare the accelerator's pictures with the float U-Net's.")
    arguments.add_argument("--prompts", type=int, default=32, help="number of held-out prompts")
    add_sampling(arguments)
    parsed = arguments.parse_args(argv)

    def work() -> None:
        settings = settings_of(parsed)
        if parsed.prompts < 1:
            raise UserError("no prompts to compare; give 1 or more by --prompts")
        make_folder(parsed.out)

        with importing(STOPPED):
            import host.unet  # noqa: F401
            from gen.model import loras_of
            from host.accelerator import Accelerator
            from host.sampling import load_pipeline
            from models.checker import all_right, held_out_prompts

        accelerator = Accelerator(parsed.build, parsed.xclbin, parsed.device)
        model = parsed.model or accelerator.model
        pipe = load_pipeline(model, loras_of(parsed.build), settings.scheduler)
        prompts = held_out_prompts(parsed.prompts)
        figures = summary(compare(pipe, accelerator, prompts, settings, all_right), settings)
        path: Path = parsed.out / "quality.json"
        path.write_text(json.dumps(figures, indent=1) + "\n")
        print(
            f"\n{figures['samples']} held-out prompts, {settings.steps} DDIM steps, guidance "
            f"{settings.guidance:g}, against the float U-Net from the same noise:"
        )
        print(
            f"  PSNR median         {figures['psnr_median']:6.2f} dB "
            f"(worst {figures['psnr_min']:.2f})"
        )
        print(f"  SSIM mean           {figures['ssim_mean']:6.4f}")
        print(f"  every attribute right, accelerator {figures['attribute_accuracy']:6.1%}")
        print(f"  every attribute right, float       {figures['attribute_accuracy_float']:6.1%}")
        print(f"written to {path}")

    return guarded(work, STOPPED)


if __name__ == "__main__":
    sys.exit(main())
