"""``python -m host.image``: pictures from prompts, by the float U-Net and by the accelerator."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from gen.cli import guarded
from host.cli import add_sampling, parser
from host.cli import settings as settings_of
from host.drawing import STOPPED, add_cards, options_of, run
from host.pictures import Job, Row, jobs_of
from host.settings import DEFAULT_PROMPTS


def table(rows: Sequence[Row], clock_mhz: float) -> str:
    """The closing table, with medians over prompts in its last line."""
    width = max(len("median"), *(len(row.prompt) for row in rows))
    lines = [
        f"{'':{width}}  steps  wall time per step     card (modelled)          against float",
        f"{'prompt':{width}}         float  accelerator   cycles  ms at {clock_mhz:g} MHz   "
        "PSNR     SSIM",
    ]
    median = statistics.median
    everything = Row(
        "median",
        rows[0].steps,
        median(row.float_step for row in rows),
        median(row.accelerated_step for row in rows),
        None if rows[0].cycles is None else int(median(row.cycles or 0 for row in rows)),
        median(row.psnr for row in rows),
        median(row.ssim for row in rows),
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


def draw_grid(rows: Sequence[tuple[Job, Row]], out: Path) -> None:
    """``grid.png`` from the files of finished pictures."""
    import numpy as np
    from PIL import Image

    from host.grid import Pair, grid

    def picture(job: Job, label: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        with Image.open(job.file(out, label)) as file:
            return np.asarray(file.convert("RGB"))

    grid(
        [
            Pair(
                row.prompt, picture(job, "float"), picture(job, "accelerator"), f"{row.psnr:.1f} dB"
            )
            for job, row in rows
        ]
    ).save(out / "grid.png")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    arguments = parser("host.image", "Draw pictures: every denoising step on the card.")
    arguments.add_argument(
        "--prompt", action="append", help="may be given several times (default: six)"
    )
    add_cards(arguments)
    add_sampling(arguments)
    parsed = arguments.parse_args(argv)

    def work() -> None:
        settings = settings_of(parsed)
        prompts = parsed.prompt or list(DEFAULT_PROMPTS)
        out: Path = parsed.out
        options, devices = options_of(parsed, prompts, out, settings)
        jobs = jobs_of(prompts, settings)
        rows, clock = run(options, jobs, devices, lambda finished: draw_grid(finished, out))
        print()
        print(table(rows, clock))
        print(f"\n{len(rows)} pairs of pictures in {out}/, together in {out}/grid.png")

    return guarded(work, STOPPED)


if __name__ == "__main__":
    sys.exit(main())
