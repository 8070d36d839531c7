"""``python -m host.image``: pictures from prompts, by the float U-Net and by the accelerator."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from gen.cli import guarded
from host.accelerator import Accelerator
from host.cli import add_sampling, make_folder, parser
from host.cli import settings as settings_of
from host.grid import Pair, grid
from host.metrics import psnr, ssim
from host.sampling import DEFAULT_PROMPTS, Sample, Settings, draw, load_pipeline
from host.unet import AcceleratedUNet


@dataclass(frozen=True)
class Row:
    """One line of the table. ``cycles`` are modelled clock cycles per step (None: real card)."""

    prompt: str
    steps: int
    float_step: float
    accelerated_step: float
    cycles: int | None
    psnr: float
    ssim: float


def file_stem(number: int, prompt: str) -> str:
    """Name of a prompt's files: ``01-a-red-circle``."""
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")
    return f"{number:02d}-{words[:60].rstrip('-')}" if words else f"{number:02d}"


def table(rows: Sequence[Row], clock_mhz: float) -> str:
    """The closing table, with means over prompts (median for PSNR) in its last line."""
    width = max(len("median"), *(len(row.prompt) for row in rows))
    lines = [
        f"{'':{width}}  steps  wall time per step     card (modelled)          against float",
        f"{'prompt':{width}}         float  accelerator   cycles  ms at {clock_mhz:g} MHz   "
        "PSNR     SSIM",
    ]
    everything = Row(
        "median",
        rows[0].steps,
        float(np.median([row.float_step for row in rows])),
        float(np.median([row.accelerated_step for row in rows])),
        None if rows[0].cycles is None else int(np.median([row.cycles or 0 for row in rows])),
        float(np.median([row.psnr for row in rows])),
        float(np.median([row.ssim for row in rows])),
    )
    for row in [*rows, everything] if len(rows) > 1 else rows:
        if row is everything:
            lines.append("-" * len(lines[1]))
        cycles, ms = ("", "")
        if row.cycles is not None:
            cycles, ms = f"{row.cycles:,}", f"{row.cycles / clock_mhz / 1e3:.3f}"
        lines.append(
            f"{row.prompt:{width}}  {row.steps:5d}  {row.float_step * 1e3:5.1f} ms"
            f"  {row.accelerated_step * 1e3:8.1f} ms  {cycles:>7}  {ms:>13}  "
            f"{row.psnr:5.1f} dB  {row.ssim:6.4f}"
        )
    return "\n".join(lines)


def run(
    accelerator: Accelerator, model: Path, prompts: Sequence[str], settings: Settings, out: Path
) -> list[Row]:
    """Draw all prompts both ways into ``out``; the grid grows with every finished prompt."""
    pipe = load_pipeline(model)
    float_unet = pipe.unet
    card_unet = AcceleratedUNet(accelerator, float_unet)
    rows: list[Row] = []
    pairs: list[Pair] = []
    with tqdm(total=2 * settings.steps * len(prompts), unit="step", disable=None) as bar:
        for number, prompt in enumerate(prompts, 1):
            stem = file_stem(number, prompt)
            samples: list[Sample] = []
            for label, unet in (("float", float_unet), ("accelerator", card_unet)):
                bar.set_description(f"picture {number} of {len(prompts)}, {label}")
                pipe.unet = unet
                seed = settings.seed + number - 1
                sample = draw(pipe, prompt, settings, seed, bar.update)
                Image.fromarray(sample.picture).save(out / f"{stem}.{label}.png")
                samples.append(sample)
            reference, accelerated = samples
            close = psnr(reference.picture, accelerated.picture)
            rows.append(
                Row(
                    prompt,
                    settings.steps,
                    reference.median_step,
                    accelerated.median_step,
                    accelerator.cycles,
                    close,
                    ssim(reference.picture, accelerated.picture),
                )
            )
            pairs.append(Pair(prompt, reference.picture, accelerated.picture, f"{close:.1f} dB"))
            grid(pairs).save(out / "grid.png")
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    arguments = parser("Draw pictures: every denoising step on the card.")
    arguments.add_argument("--prompt", action="append", help="may be given several times")
    add_sampling(arguments)
    parsed = arguments.parse_args(argv)

    def work() -> None:
        settings = settings_of(parsed)
        make_folder(parsed.out)
        accelerator = Accelerator(parsed.build, parsed.xclbin, parsed.device)
        prompts = parsed.prompt or list(DEFAULT_PROMPTS)
        model = parsed.model or accelerator.model
        rows = run(accelerator, model, prompts, settings, parsed.out)
        print()
        print(table(rows, accelerator.clock_mhz))
        print(
            f"\n{len(rows)} pairs of pictures in {parsed.out}/, together in {parsed.out}/grid.png"
        )

    return guarded(work, f"stopped by Ctrl-C; finished pictures are in {parsed.out}/")


if __name__ == "__main__":
    sys.exit(main())
