"""``python -m host.image``: pictures from prompts, by the float U-Net and by the accelerator.

This process imports nothing heavy and touches no card: ``host.workers`` has a process per card.
A run that was interrupted, by Ctrl-C, a kill or a card, goes on when it is started again.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gen.cli import guarded
from gen.errors import UserError
from host.cli import add_sampling, make_folder, parser
from host.cli import settings as settings_of
from host.pictures import Job, Painter, Row, RunState, jobs_of
from host.settings import DEFAULT_PROMPTS, Settings
from host.workers import SILENCE_S, Device, Events, Link, Pool, prepare_processes


@dataclass(frozen=True)
class Options:
    """What a worker needs to know."""

    build: Path
    xclbin: Path | None
    model: Path
    out: Path
    settings: Settings
    identity: dict[str, object]
    timeout_ms: int


def serve(link: Link, device: Device, options: Options) -> None:
    """A worker: opens its card and draws what it is given."""
    from gen.model import loras_of
    from host.accelerator import Accelerator

    state = RunState(options.out, options.identity)
    accelerator = Accelerator(options.build, options.xclbin, device, timeout_ms=options.timeout_ms)
    loras = loras_of(options.build)
    painter = Painter(accelerator, options.model, options.settings, state, loras)
    link.tell("ready", accelerator.address, accelerator.clock_mhz)
    for job in link.jobs():
        painter.paint(job, lambda drawn, computed: link.tell("step", drawn, computed))
        link.tell("done")


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
        with Image.open(out / f"{job.stem}.{label}.png") as file:
            return np.asarray(file.convert("RGB"))

    grid(
        [
            Pair(
                row.prompt, picture(job, "float"), picture(job, "accelerator"), f"{row.psnr:.1f} dB"
            )
            for job, row in rows
        ]
    ).save(out / "grid.png")


def reset_card(address: str) -> None:
    """Reset a real card, known by its PCI address, by XRT's own tool, if that is installed."""
    tool = shutil.which("xbutil") or shutil.which("xrt-smi")
    if tool is not None and ":" in address:
        subprocess.run(
            [tool, "reset", "-d", address],
            input="y\n",
            text=True,
            capture_output=True,
            check=False,
            timeout=120,
        )


def run(
    options: Options, jobs: Sequence[Job], devices: Sequence[Device]
) -> tuple[list[Row], float]:
    """Draw all jobs that are not finished yet; rows of all, and the clock in MHz.

    Raises:
        UserError: bad input, or no card is left.
    """
    from tqdm import tqdm

    state = RunState(options.out, options.identity)
    steps = 2 * options.settings.steps
    drawn = {job.number: steps if state.finished(job) else 0 for job in jobs}
    clock = 0.0
    with tqdm(total=steps * len(jobs), unit="step", disable=None) as bar:

        def show() -> None:
            bar.update(sum(drawn.values()) - bar.n)

        def ready(_: str, mhz: float) -> None:
            nonlocal clock
            clock = mhz

        def progress(job: Job, count: int) -> None:
            drawn[job.number] = count
            bar.set_description(f"picture {job.number} of {len(jobs)}", refresh=False)
            show()

        def done(job: Job) -> None:
            drawn[job.number] = steps
            show()
            finished = [(each, state.finished(each)) for each in jobs]
            draw_grid([(each, row) for each, row in finished if row is not None], options.out)

        def trouble(sentence: str) -> None:
            bar.write(sentence, file=sys.stderr)

        show()
        events = Events(ready, progress, done, trouble, reset_card)
        silence = max(SILENCE_S, 3e-3 * options.timeout_ms)
        pool = Pool(serve, options, devices, events, silence)
        pool.run([job for job in jobs if drawn[job.number] < steps])
    rows = [state.finished(job) for job in jobs]
    state.clear()
    return [row for row in rows if row is not None], clock


def _devices(first: Device, cards: int) -> list[Device]:
    if cards < 1:
        raise UserError(f"{cards} cards cannot draw; give 1 or more by --cards")
    if cards == 1:
        return [first]
    if isinstance(first, str):
        raise UserError("several cards are counted from an index; give a number by --device")
    return [first + index for index in range(cards)]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    arguments = parser("Draw pictures: every denoising step on the card.")
    arguments.add_argument("--prompt", action="append", help="may be given several times")
    arguments.add_argument(
        "--cards", type=int, default=1, help="cards to draw on, from --device on, one picture each"
    )
    arguments.add_argument(
        "--timeout", type=float, default=20.0, help="seconds after which a step is given up"
    )
    add_sampling(arguments)
    parsed = arguments.parse_args(argv)

    def work() -> None:
        from host.folder import BuildFolder

        settings = settings_of(parsed)
        devices = _devices(parsed.device, parsed.cards)
        if parsed.timeout <= 0:
            raise UserError("a step needs time; give a positive number of seconds by --timeout")
        make_folder(parsed.out)
        folder = BuildFolder(parsed.build)
        model = (parsed.model or folder.model).resolve()
        prompts = parsed.prompt or list(DEFAULT_PROMPTS)
        identity = {
            "build": folder.identity,
            "model": str(model),
            "prompts": prompts,
            "settings": vars(settings),
        }
        options = Options(
            parsed.build,
            parsed.xclbin,
            model,
            parsed.out,
            settings,
            identity,
            round(parsed.timeout * 1000),
        )
        prepare_processes(len(devices))
        rows, clock = run(options, jobs_of(prompts, settings), devices)
        print()
        print(table(rows, clock))
        print(
            f"\n{len(rows)} pairs of pictures in {parsed.out}/, together in {parsed.out}/grid.png"
        )

    return guarded(
        work, "stopped by Ctrl-C; what is finished is kept, run the same command to go on"
    )


if __name__ == "__main__":
    sys.exit(main())
