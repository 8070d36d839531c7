"""``python -m host.quality``: pictures of the accelerator against the float U-Net's, in figures.

The pictures are kept in ``OUT/quality``.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gen.cli import guarded, importing
from gen.errors import UserError
from host.cli import add_sampling, parser
from host.cli import settings as settings_of
from host.drawing import STOPPED, add_cards, options_of, run
from host.pictures import LABELS, Job, Row, jobs_of
from host.settings import Settings

if TYPE_CHECKING:
    from host.sampling import Picture


@dataclass(frozen=True)
class Verdict:
    """One prompt: closeness of the two pictures, and whether each shows every attribute (None: not
    a picture that the checker knows).
    """

    prompt: str
    seed: int
    psnr: float
    ssim: float
    right: bool | None
    right_float: bool | None


def judged(
    jobs: Sequence[Job],
    rows: Sequence[Row],
    folder: Path,
    judge: Callable[[Picture, str], bool | None],
) -> list[Verdict]:
    """Look at the files of finished pictures; ``judge`` says whether one shows its prompt."""
    import numpy as np
    from PIL import Image

    def right(job: Job, label: str) -> bool | None:
        with Image.open(job.file(folder, label)) as file:
            return judge(np.asarray(file.convert("RGB")), job.prompt)

    verdicts = []
    for job, row in zip(jobs, rows, strict=True):
        right_float, right_card = (right(job, label) for label in LABELS)
        verdicts.append(Verdict(job.prompt, job.seed, row.psnr, row.ssim, right_card, right_float))
    return verdicts


def summary(verdicts: Sequence[Verdict], settings: Settings) -> dict[str, object]:
    """The figures of out/quality.json; accuracies are shares of prompts with all attributes."""
    values = [verdict.psnr for verdict in verdicts]
    mean = statistics.fmean

    def share(rights: Sequence[bool | None]) -> float | None:
        known = [right for right in rights if right is not None]
        return mean(known) if known else None

    return {
        "samples": len(verdicts),
        "steps": settings.steps,
        "guidance": settings.guidance,
        "seed": settings.seed,
        "scheduler": settings.scheduler,
        "steps_per_start": settings.steps_per_start,
        "psnr_median": round(statistics.median(values), 3),
        "psnr_min": round(min(values), 3),
        "ssim_mean": round(mean(verdict.ssim for verdict in verdicts), 5),
        "attribute_accuracy": share([verdict.right for verdict in verdicts]),
        "attribute_accuracy_float": share([verdict.right_float for verdict in verdicts]),
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
    arguments = parser("host.quality", "Compare the accelerator's pictures with the float U-Net's.")
    arguments.add_argument(
        "--prompts", type=int, default=32, help="number of held-out prompts (default: 32)"
    )
    add_cards(arguments)
    add_sampling(arguments)
    parsed = arguments.parse_args(argv)

    def work() -> None:
        settings = settings_of(parsed)
        if parsed.prompts < 1:
            raise UserError("no prompts to compare; give 1 or more by --prompts")
        with importing(STOPPED):
            from models.checker import SIZE, all_right, held_out_prompts

        def judge(picture: Picture, prompt: str) -> bool | None:
            return all_right(picture, prompt) if picture.shape == (SIZE, SIZE, 3) else None

        prompts = held_out_prompts(parsed.prompts)
        folder: Path = parsed.out / "quality"
        options, devices = options_of(parsed, prompts, folder, settings)
        jobs = jobs_of(prompts, settings)
        rows, _ = run(options, jobs, devices)
        figures = summary(judged(jobs, rows, folder, judge), settings)
        path: Path = parsed.out / "quality.json"
        path.write_text(json.dumps(figures, indent=1) + "\n")
        print(
            f"\n{figures['samples']} held-out prompts, {settings.steps} steps, guidance "
            f"{settings.guidance:g}, against the float U-Net from the same noise:"
        )
        print(
            f"  PSNR median         {figures['psnr_median']:6.2f} dB "
            f"(worst {figures['psnr_min']:.2f})"
        )
        print(f"  SSIM mean           {figures['ssim_mean']:6.4f}")
        if figures["attribute_accuracy"] is not None:
            print(f"  every attribute right, accelerator {figures['attribute_accuracy']:6.1%}")
            print(
                f"  every attribute right, float       {figures['attribute_accuracy_float']:6.1%}"
            )
        print(f"written to {path}, pictures in {folder}/")

    return guarded(work, STOPPED)


if __name__ == "__main__":
    sys.exit(main())
