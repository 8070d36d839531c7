"""Calibration inputs: what the sampler itself feeds the U-Net, from noise to picture.

A DDIM sampler (Song et al. 2020, eta 0) with classifier-free guidance runs on the float layer
graph; or pictures are noised as for the training of the U-Net. One trajectory after the other is
recorded, into files of some steps each, so that an interrupted calibration goes on with the step
that it was at.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from gen import layergraph_io
from gen.arrayfile import map_arrays, read_metadata, write_arrays
from gen.errors import UserError
from gen.hostgraph import HostGraph
from gen.layers import LayerGraph, TensorInfo
from gen.macs import macs_per_step
from gen.model import Model, read_json
from gen.quantise.effort import Effort, choose_effort
from gen.quantise.embeddings import Embeddings, embed, has_text_encoder
from gen.quantise.pictures import load_latents
from gen.quantise.prompts import DEFAULT_PROMPTS
from gen.quantise.statistics import Collector, Run, Statistics
from gen.quantise.subjects import Subjects

GUIDANCE = 2.5
SEED = 20_000
_LATENTS = "latents"

CALIBRATION = "calibration.safetensors"
STATISTICS = "statistics.safetensors"

# of a trajectory that go into one file, if that long; the step at their end is finished
PIECE_SECONDS = 20.0

_FIXED_INPUTS = ("sample", "timestep", "encoder_hidden_states")
# SDXL's: pooled prompt, and size, cut and wanted size of the picture
POOLED, TIME_IDS = "added_cond_kwargs_text_embeds", "added_cond_kwargs_time_ids"


@dataclass(frozen=True)
class Position:
    """Where in a trajectory its next step begins: number, latents (none yet at the first one) and
    the state of the collector's random numbers.
    """

    step: int = 0
    latents: torch.Tensor | None = None
    random: dict[str, Any] | None = None


@dataclass
class Recording:
    """Inputs of the U-Net as plain tensors, and how to put them together.

    ``arrays`` holds ``sample/i``, ``step/k/NAME`` and ``prompt/p/NAME``; ``runs`` lists
    (i, k, p): sample i of timestep k and prompt batch p. ``end``, of a part of a trajectory: where
    the next part begins.
    """

    arrays: dict[str, torch.Tensor] = field(default_factory=dict)
    runs: list[tuple[int, int, int]] = field(default_factory=list)
    end: Position | None = None

    def keep(self, prefix: str, values: dict[str, torch.Tensor]) -> None:
        """Keep host values."""
        for name, value in values.items():
            self.arrays[f"{prefix}/{name}"] = value.to(torch.float32).contiguous().clone()

    def save(self, path: Path) -> None:
        """Write the recording to ``path`` (safetensors)."""
        arrays = {key: value.numpy() for key, value in self.arrays.items()}
        metadata = {"runs": json.dumps(self.runs)}
        if self.end is not None:
            assert self.end.latents is not None
            arrays[_LATENTS] = self.end.latents.numpy()
            metadata["end"] = json.dumps([self.end.step, self.end.random])
        write_arrays(path, arrays, metadata)

    @classmethod
    def load(cls, path: Path) -> Recording:
        """What :meth:`save` wrote. Raises UserError for a missing or damaged file."""
        try:
            metadata = read_metadata(path)
            runs = [(int(i), int(k), int(p)) for i, k, p in json.loads(metadata["runs"])]
            arrays = {key: torch.from_numpy(value) for key, value in map_arrays(path).items()}
            end = None
            if "end" in metadata:
                step, random = json.loads(metadata["end"])
                end = Position(step, arrays.pop(_LATENTS), random)
            recording = cls(arrays, runs, end)
            recording.assembled()
            return recording
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is not an intact recording ({error}); delete it and build again"
            ) from error

    def assembled(self) -> list[Run]:
        """The (sample, host tensors) pairs of all runs. Raises KeyError for a missing sample."""
        groups: dict[str, dict[str, torch.Tensor]] = {}
        for key, value in self.arrays.items():
            kind, index, *name = key.split("/", 2)
            if name:
                groups.setdefault(f"{kind}/{index}", {})[name[0]] = value
        return [
            (
                self.arrays[f"sample/{i}"],
                {**groups.get(f"step/{k}", {}), **groups.get(f"prompt/{p}", {})},
            )
            for i, k, p in self.runs
        ]


def record(model: Model, folder: Path, subjects: Subjects, scratch: Path) -> None:
    """Calibrate the layer graph in ``folder``: inputs and statistics into ``scratch``.

    Finished steps that lie in ``scratch`` already are taken over. Raises UserError for
    unusable model files, prompts or pictures.
    """
    graph, host = layergraph_io.load(folder), HostGraph.load(folder)
    sampler = Sampler(model, graph, host, subjects)
    total, statistics = Recording(), Statistics()
    effort = sampler.effort
    with tqdm(total=effort.runs, desc="calibrate", unit="run", disable=None) as bar:
        for index in range(effort.trajectories):
            position, piece = Position(), 0
            while position.step < effort.steps:
                inputs, seen = (
                    scratch / f"{stem}-{index:04d}-{piece:04d}.safetensors"
                    for stem in ("in", "seen")
                )
                # the statistics are written last: where they are, the piece is finished
                if not seen.is_file():
                    collector = Collector(graph, effort.runs, (SEED, index), position.random)
                    sampler.piece(index, position, collector).save(inputs)
                    collector.statistics.save(seen)
                part = Recording.load(inputs)
                assert part.end is not None
                total.arrays.update(part.arrays)
                total.runs += part.runs
                statistics.merge(Statistics.load(seen))
                position, piece = part.end, piece + 1
                bar.update(len(part.runs))
    total.save(scratch / CALIBRATION)
    statistics.save(scratch / STATISTICS)


def load_runs(path: Path) -> list[Run]:
    """The (sample, host tensors) pairs that :func:`record` wrote."""
    return Recording.load(path).assembled()


class Sampler:
    """Runs the float layer graph as a sampler does, and keeps what enters it."""

    def __init__(
        self, model: Model, graph: LayerGraph, host: HostGraph, subjects: Subjects
    ) -> None:
        self.graph, self.host = graph, host
        # a U-Net that takes more channels than it gives is shown more than the noisy latent
        entry = graph.tensors[graph.input]
        own = min(entry.channels, graph.tensors[graph.output].channels)
        self.latent = replace(entry, channels=own)
        self.scheduler = _scheduler(model)
        self.pictures: torch.Tensor | None = None
        if subjects.pictures:
            self.pictures = load_latents(model, self.latent, subjects.pictures)
        takes_prompt = host.prompt_shape is not None
        self.guided = takes_prompt and has_text_encoder(model) and self.pictures is None
        prompts: Sequence[str] = subjects.prompts or DEFAULT_PROMPTS
        if self.pictures is not None:
            # a picture comes with one of the prompts, whichever
            prompts = [prompts[i % len(prompts)] for i in range(len(self.pictures))]
        self.effort: Effort = choose_effort(
            macs_per_step(graph),
            graph.batch,
            2 if self.guided else 1,
            len(prompts),
            all_prompts=bool(subjects.prompts or subjects.pictures),
        )
        prompts = prompts[: self.effort.prompts]
        generator = torch.Generator().manual_seed(SEED)
        self.embeddings = _embeddings(model, host, prompts, self.guided, generator)
        self.extra = _extra_inputs(model, host, self.latent, generator)
        self.scheduler.set_timesteps(self.effort.steps)

    @torch.no_grad()
    def piece(self, index: int, begin: Position, collector: Collector) -> Recording:
        """Steps of trajectory number ``index`` from ``begin`` on, to its end or until they have
        taken long enough. What they show depends on nothing but these two.
        """
        started = time.monotonic()
        graph, effort = self.graph, self.effort
        info = self.latent
        generator = torch.Generator().manual_seed(SEED + 1 + index)
        per_prompt = 2 if self.guided else 1
        first = index * effort.group
        count = min(effort.group, effort.prompts - first)
        items = count * per_prompt
        shape = (count, info.channels, info.height, info.width)
        noise = torch.randn(shape, generator=generator)
        latents = begin.latents
        if latents is None:
            latents = noise * float(self.scheduler.init_noise_sigma)
        shown = _shown(info, graph.tensors[graph.input].channels, count, generator)
        recording = Recording()
        fixed, extras = [], []
        for b in range(effort.batches):
            given, extra = None, self.extra
            if self.embeddings is not None:
                rows = [first * per_prompt + row for row in self._rows(b, items)]
                own_prompts = self.embeddings.rows(rows)
                given = own_prompts.hidden
                if own_prompts.pooled is not None and POOLED in extra:
                    extra = {**extra, POOLED: own_prompts.pooled}
            values = self.host.evaluate_prompt(given, extra)
            fixed.append(values)
            extras.append(extra)
            recording.keep(f"prompt/{index * effort.batches + b}", values)
        for k, timestep in list(enumerate(self.scheduler.timesteps.tolist()))[begin.step :]:
            if self.pictures is not None:
                when = torch.tensor([int(timestep)])
                own = self.pictures[first : first + count]
                latents = self.scheduler.add_noise(own, noise, when)
            scaled = self.scheduler.scale_model_input(latents, timestep)
            entering = torch.cat([scaled, shown], dim=1).repeat_interleave(per_prompt, dim=0)
            predictions = []
            for b in range(effort.batches):
                sample = entering[self._rows(b, items)].clone()
                number = (index * effort.steps + k) * effort.batches + b
                step = self.host.evaluate_step(float(timestep), graph.batch, extras[b])
                # the same for all batches unless it depends on their prompts
                kept = k if extras[b] is self.extra else effort.steps + number
                recording.keep(f"step/{kept}", step)
                recording.arrays[f"sample/{number}"] = sample
                recording.runs.append((number, kept, index * effort.batches + b))
                predictions.append(collector.run(sample, {**step, **fixed[b]}))
            if self.pictures is None:
                latents = self._denoised(torch.cat(predictions)[:items], timestep, latents)
            recording.end = Position(k + 1, latents.contiguous(), collector.random)
            if time.monotonic() - started > PIECE_SECONDS:
                break
        return recording

    def _denoised(self, output: torch.Tensor, timestep: Any, latents: torch.Tensor) -> torch.Tensor:
        """The latents after a step, from the U-Net's ``output`` for all items."""
        predicted = output[:, : self.latent.channels]
        if self.guided:
            unconditional, conditional = predicted[0::2], predicted[1::2]
            predicted = unconditional + GUIDANCE * (conditional - unconditional)
        after: torch.Tensor = self.scheduler.step(predicted, timestep, latents).prev_sample
        return after

    def _rows(self, batch: int, items: int) -> list[int]:
        """Items of a batch; the last one fills up what there are no items for."""
        size = self.graph.batch
        return [min(i, items - 1) for i in range(batch * size, (batch + 1) * size)]


def _embeddings(
    model: Model,
    host: HostGraph,
    prompts: Sequence[str],
    guided: bool,
    generator: torch.Generator,
) -> Embeddings | None:
    """Embeddings of all items: (unconditional, conditional) pairs; noise without a text encoder."""
    if host.prompt_shape is None:
        return None
    tokens, width = host.prompt_shape
    if not has_text_encoder(model):
        return Embeddings(torch.randn(len(prompts), tokens, width, generator=generator))
    both = embed(model, ["", *prompts], tokens)
    shape = list(both.hidden.shape[1:])
    if shape != [tokens, width]:
        raise UserError(
            f"{model.path}: the text encoders give {shape} values a prompt, the U-Net takes "
            f"{[tokens, width]}; the parts of this pipeline do not belong together"
        )
    numbers = range(1, len(prompts) + 1)
    return both.rows([each for n in numbers for each in ((0, n) if guided else (n,))])


def _shown(
    latent: TensorInfo, channels: int, count: int, generator: torch.Generator
) -> torch.Tensor:
    """What a U-Net of ``channels`` channels sees besides the latent: [count, rest, height, width].

    In-painting: a mask that is 1 in a rectangle, and the latent of a picture around it. Others,
    such as a depth map or the latent of the picture to change: noise.
    """
    rest, height, width = channels - latent.channels, latent.height, latent.width
    values = torch.randn(count, rest, height, width, generator=generator)
    if rest != latent.channels + 1:
        return values
    values[:, 0] = 0
    values[:, 0, height // 4 : -(-3 * height // 4), width // 4 : -(-3 * width // 4)] = 1
    values[:, 1:] *= 1 - values[:, :1]
    return values


def _extra_inputs(
    model: Model, host: HostGraph, latent: TensorInfo, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Values for what the U-Net takes besides latent, timestep and prompt: labels 0, whole pictures
    of the latent's size, or noise.
    """
    values = {}
    for node in host.graph.nodes:
        if node.op == "input" and node.name not in _FIXED_INPUTS:
            whole = "int" in node.dtype
            noise = torch.randn(node.shape, generator=generator)
            values[node.name] = torch.zeros(node.shape, dtype=torch.int64) if whole else noise
            if node.name == TIME_IDS:
                size = [pixels * _pixels(model) for pixels in (latent.height, latent.width)]
                values[node.name] = torch.tensor([*size, 0, 0, *size]).float().expand(node.shape)
    return values


def _pixels(model: Model) -> int:
    """Pixels of the picture on every side of a latent pixel."""
    path = model.path / "vae" / "config.json"
    if model.kind != "pipeline" or not path.is_file():
        return 8
    return 1 << (len(read_json(path)["block_out_channels"]) - 1)


def _scheduler(model: Model) -> Any:
    """A DDIM scheduler with the betas and prediction type of the model's own."""
    from diffusers import DDIMScheduler

    path = model.path / "scheduler" / "scheduler_config.json"
    if model.kind == "pipeline" and path.is_file():
        return DDIMScheduler.from_config(read_json(path))
    return DDIMScheduler()
