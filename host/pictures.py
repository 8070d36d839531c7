"""Pictures of a run: what is to be drawn, what is finished, and the drawing of one."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen.stages import write_json
from host.settings import Settings

if TYPE_CHECKING:
    from gen.lora import Lora
    from host.accelerator import Accelerator

UNFINISHED = ".unfinished"
LABELS = ("float", "accelerator")


@dataclass(frozen=True)
class Job:
    """A picture to draw; ``number`` counts from 1."""

    number: int
    prompt: str
    seed: int

    @property
    def stem(self) -> str:
        """Name of the picture's files: ``01-a-red-circle``."""
        words = re.sub(r"[^a-z0-9]+", "-", self.prompt.lower()).strip("-")
        return f"{self.number:02d}-{words[:60].rstrip('-')}" if words else f"{self.number:02d}"

    def file(self, out: Path, label: str) -> Path:
        """File of the picture with one of ``LABELS``, in a folder for results."""
        return out / f"{self.stem}.{label}.png"


@dataclass(frozen=True)
class Row:
    """A finished pair of pictures. Wall times in seconds per step; ``cycles`` are modelled clock
    cycles per step (None: real card).
    """

    prompt: str
    steps: int
    float_step: float
    accelerated_step: float
    cycles: int | None
    psnr: float
    ssim: float


def jobs_of(prompts: Sequence[str], settings: Settings) -> list[Job]:
    """One job per prompt, with seeds that count up."""
    return [
        Job(number, prompt, settings.seed + number - 1) for number, prompt in enumerate(prompts, 1)
    ]


class RunState:
    """What is known of a run that has not ended: finished rows, and a journal per picture.

    It lies in ``OUT/.unfinished`` and belongs to one run: another model, build, prompt list or
    setting empties it.

    Args:
        out: folder for results.
        identity: whatever the pictures depend on.
    """

    def __init__(self, out: Path, identity: dict[str, object]) -> None:
        self.out, self._folder = out, out / UNFINISHED
        text = json.dumps(identity, sort_keys=True, default=str)
        self.identity = hashlib.sha256(text.encode()).hexdigest()
        note = self._folder / "run.json"
        if not note.is_file() or _read(note).get("identity") != self.identity:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)
            write_json(note, {"identity": self.identity, "of": json.loads(text)})

    def journal(self, job: Job) -> Path:
        """File of the journal of a picture."""
        return self._folder / f"{job.number:02d}.journal"

    def finish(self, job: Job, row: Row) -> None:
        """Keep the row of a picture whose files are written."""
        write_json(self._folder / f"{job.number:02d}.json", asdict(row))

    def finished(self, job: Job) -> Row | None:
        """The row of a picture, if it is finished and its files are there."""
        note = self._folder / f"{job.number:02d}.json"
        if not all(job.file(self.out, label).is_file() for label in LABELS):
            return None
        try:
            return Row(**_read(note))
        except TypeError:
            return None

    def clear(self) -> None:
        """Forget the run: it is complete."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


class Painter:
    """Draws pictures both ways: by the float U-Net and by the accelerator.

    Args:
        accelerator: an opened accelerator.
        model: folder of its diffusers pipeline.
        settings: of the sampler.
        state: where finished steps and pictures are kept.
        loras: what the accelerator's model has fused.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: Path,
        settings: Settings,
        state: RunState,
        loras: Sequence[Lora] = (),
    ) -> None:
        from host.sampling import load_pipeline
        from host.unet import AcceleratedUNet

        self._accelerator, self._settings, self._state = accelerator, settings, state
        self._pipe = load_pipeline(model, loras, settings.scheduler)
        self._float, self._scheduler = self._pipe.unet, self._pipe.scheduler
        self._card = AcceleratedUNet(accelerator, self._float)
        # the float picture has the build's size, too
        self._float.register_to_config(sample_size=self._card.config["sample_size"])

    def paint(self, job: Job, on_step: Callable[[int, int], None]) -> Row:
        """Draw a picture, write its files and keep its row.

        ``on_step`` is called after every step with the steps drawn so far (of both pictures) and
        how many of them the card computed just now.

        Raises:
            UserError: the model cannot be drawn with, or a fault of the card.
        """
        import numpy as np
        from PIL import Image

        from host.journal import Journal, Journaled
        from host.metrics import psnr, ssim
        from host.oncard import scheduler_for
        from host.sampling import draw

        pipe, settings, out = self._pipe, self._settings, self._state.out
        journal = Journal(self._state.journal(job), self._state.identity)
        card = Journaled(self._accelerator, journal)
        drawn = 0

        def after_step() -> None:
            nonlocal drawn
            drawn += 1
            on_step(drawn, sum(card.computed))

        schedulers = (
            self._scheduler,
            scheduler_for(self._card, card, self._scheduler, settings.steps_per_start),
        )
        samples, size = [], self._accelerator.latent_shape[1:]
        try:
            both = zip(LABELS, (self._float, self._card), schedulers, strict=True)
            for label, pipe.unet, pipe.scheduler in both:
                sample = draw(pipe, job.prompt, settings, job.seed, after_step, size)
                Image.fromarray(sample.picture).save(job.file(out, label))
                samples.append(sample)
        finally:
            pipe.unet, pipe.scheduler = self._float, self._scheduler
        reference, accelerated = samples
        times = [t for t, new in zip(accelerated.step_seconds, card.computed, strict=False) if new]
        row = Row(
            job.prompt,
            settings.steps,
            reference.median_step,
            float(np.median(times or accelerated.step_seconds)),
            self._accelerator.cycles,
            psnr(reference.picture, accelerated.picture),
            ssim(reference.picture, accelerated.picture),
        )
        self._state.finish(job, row)
        journal.remove()
        return row
