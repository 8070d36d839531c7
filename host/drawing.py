"""Pictures on one card or several: by the float U-Net and by the accelerator.

This process imports nothing heavy and touches no card: ``host.workers`` has a process per card.
A run that was interrupted, by Ctrl-C, a kill or a card, goes on when it is started again.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gen.cli import importing
from gen.errors import UserError
from host.cli import make_folder
from host.pictures import Job, Painter, Row, RunState
from host.settings import Settings
from host.workers import SILENCE_S, Device, Events, Link, Pool, prepare_processes

STOPPED = "stopped by Ctrl-C; what is finished is kept, run the same command to go on"


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
    options: Options,
    jobs: Sequence[Job],
    devices: Sequence[Device],
    finished: Callable[[list[tuple[Job, Row]]], None] = lambda _: None,
) -> tuple[list[Row], float]:
    """Draw all jobs that are not finished yet; rows of all, and the clock in MHz.

    ``finished`` is called with everything that is finished whenever a picture is.

    Raises:
        UserError: bad input, or no card is left.
    """
    with importing(STOPPED):
        from tqdm import tqdm

    prepare_processes(len(devices))
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
            rows = [(each, state.finished(each)) for each in jobs]
            finished([(each, row) for each, row in rows if row is not None])

        def trouble(sentence: str) -> None:
            bar.write(sentence, file=sys.stderr)

        show()
        events = Events(ready, progress, done, trouble, reset_card)
        start_ms = max(1, options.settings.steps_per_start) * options.timeout_ms
        silence = max(SILENCE_S, 3e-3 * start_ms)
        pool = Pool(serve, options, devices, events, silence)
        pool.run([job for job in jobs if drawn[job.number] < steps])
    rows = [state.finished(job) for job in jobs]
    state.clear()
    return [row for row in rows if row is not None], clock


def add_cards(arguments: argparse.ArgumentParser) -> None:
    """Arguments of commands that draw on several cards."""
    arguments.add_argument(
        "--cards",
        type=int,
        default=1,
        help="cards to draw on, from --device on, a picture each (default: 1)",
    )
    arguments.add_argument(
        "--timeout",
        type=float,
        default=20.0,
        help="seconds after which a step is given up (default: 20)",
    )


def options_of(
    parsed: argparse.Namespace, prompts: Sequence[str], out: Path, settings: Settings
) -> tuple[Options, list[Device]]:
    """What workers need to know, and the cards, from parsed arguments; makes the folder ``out``.

    Raises:
        UserError: an argument that cannot be, or no finished build.
    """
    from host.folder import BuildFolder

    cards = _devices(parsed.device, parsed.cards)
    if not 0 < parsed.timeout < math.inf:
        raise UserError("a step needs time; give a positive number of seconds by --timeout")
    make_folder(out)
    folder = BuildFolder(parsed.build)
    model = (parsed.model or folder.model).resolve()
    identity: dict[str, object] = {
        "build": folder.identity,
        "model": str(model),
        "prompts": list(prompts),
        "settings": vars(settings),
    }
    timeout_ms = round(parsed.timeout * 1000)
    return (
        Options(parsed.build, parsed.xclbin, model, out, settings, identity, timeout_ms),
        cards,
    )


def _devices(first: Device, cards: int) -> list[Device]:
    if cards < 1:
        raise UserError(f"{cards} cards cannot draw; give 1 or more by --cards")
    if cards == 1:
        return [first]
    if isinstance(first, str):
        raise UserError("several cards are counted from an index; give a number by --device")
    return [first + index for index in range(cards)]
