"""Calibration inputs: what the sampler itself feeds the U-Net, from noise to picture.

A DDIM sampler (Song et al. 2020, eta 0) with classifier-free guidance runs on the float layer
graph; or pictures are noised as for the training of the U-Net. One trajectory after the other is
recorded, each into files of its own, so that an interrupted calibration goes on with the
trajectory that it was at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from gen import layergraph_io
from gen.arrayfile import map_arrays, read_metadata, write_arrays
from gen.errors import UserError
from gen.hostgraph import HostGraph
from gen.layers import LayerGraph
from gen.model import Model, read_json
from gen.quantise.effort import Effort, choose_effort, macs
from gen.quantise.embeddings import embed, has_text_encoder
from gen.quantise.pictures import load_latents
from gen.quantise.prompts import DEFAULT_PROMPTS
from gen.quantise.statistics import Collector, Run, Statistics
from gen.quantise.subjects import Subjects

GUIDANCE = 2.5
SEED = 20_000

CALIBRATION = "calibration.safetensors"
STATISTICS = "statistics.safetensors"

_FIXED_INPUTS = ("sample", "timestep", "encoder_hidden_states")


@dataclass
class Recording:
    """Inputs of the U-Net as plain tensors, and how to put them together.

    ``arrays`` holds ``sample/i``, ``step/k/NAME`` and ``prompt/p/NAME``; ``runs`` lists
    (i, k, p): sample i of timestep k and prompt batch p.
    """

    arrays: dict[str, torch.Tensor] = field(default_factory=dict)
    runs: list[tuple[int, int, int]] = field(default_factory=list)

    def keep(self, prefix: str, values: dict[str, torch.Tensor]) -> None:
        """Keep host values."""
        for name, value in values.items():
            self.arrays[f"{prefix}/{name}"] = value.to(torch.float32).contiguous().clone()

    def save(self, path: Path) -> None:
        """Write the recording to ``path`` (safetensors)."""
        arrays = {key: value.numpy() for key, value in self.arrays.items()}
        write_arrays(path, arrays, {"runs": json.dumps(self.runs)})

    @classmethod
    def load(cls, path: Path) -> Recording:
        """What :meth:`save` wrote. Raises UserError for a missing or damaged file."""
        try:
            runs = [(int(i), int(k), int(p)) for i, k, p in json.loads(read_metadata(path)["runs"])]
            arrays = {key: torch.from_numpy(value) for key, value in map_arrays(path).items()}
            recording = cls(arrays, runs)
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

    Finished trajectories that lie in ``scratch`` already are taken over. Raises UserError for
    unusable model files, prompts or pictures.
    """
    graph, host = layergraph_io.load(folder), HostGraph.load(folder)
    sampler = Sampler(model, graph, host, subjects)
    total, statistics = Recording(), Statistics()
    effort = sampler.effort
    with tqdm(total=effort.runs, desc="calibrate", unit="run", disable=None) as bar:
        for index in range(effort.trajectories):
            inputs, seen = (scratch / f"{stem}-{index:04d}.safetensors" for stem in ("in", "seen"))
            # the statistics are written last: where they are, the trajectory is finished
            if seen.is_file():
                bar.update(effort.steps * effort.batches)
            else:
                collector = Collector(graph, effort.runs, (SEED, index))
                sampler.trajectory(index, collector, bar).save(inputs)
                collector.statistics.save(seen)
            part = Recording.load(inputs)
            total.arrays.update(part.arrays)
            total.runs += part.runs
            statistics.merge(Statistics.load(seen))
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
        self.scheduler = _scheduler(model)
        self.pictures: torch.Tensor | None = None
        if subjects.pictures:
            self.pictures = load_latents(model, graph.tensors[graph.input], subjects.pictures)
        takes_prompt = any(n.name == "encoder_hidden_states" for n in host.graph.inputs())
        self.guided = takes_prompt and has_text_encoder(model) and self.pictures is None
        prompts: Sequence[str] = subjects.prompts or DEFAULT_PROMPTS
        if self.pictures is not None:
            # a picture comes with one of the prompts, whichever
            prompts = [prompts[i % len(prompts)] for i in range(len(self.pictures))]
        self.effort: Effort = choose_effort(
            macs(graph),
            graph.batch,
            2 if self.guided else 1,
            len(prompts),
            all_prompts=bool(subjects.prompts or subjects.pictures),
        )
        prompts = prompts[: self.effort.prompts]
        generator = torch.Generator().manual_seed(SEED)
        self.embeddings = _embeddings(model, host, prompts, self.guided, generator)
        self.extra = _extra_inputs(host, generator)
        self.scheduler.set_timesteps(self.effort.steps)

    @torch.no_grad()
    def trajectory(self, index: int, collector: Collector, bar: tqdm[Any]) -> Recording:
        """Sample trajectory number ``index``; the result does not depend on other ones."""
        graph, effort = self.graph, self.effort
        info = graph.tensors[graph.input]
        generator = torch.Generator().manual_seed(SEED + 1 + index)
        per_prompt = 2 if self.guided else 1
        first = index * effort.group
        count = min(effort.group, effort.prompts - first)
        items = count * per_prompt
        shape = (count, info.channels, info.height, info.width)
        noise = torch.randn(shape, generator=generator)
        latents = noise * float(self.scheduler.init_noise_sigma)
        recording = Recording()
        fixed = []
        for b in range(effort.batches):
            rows = self._rows(b, items)
            given = None
            if self.embeddings is not None:
                given = self.embeddings[[first * per_prompt + row for row in rows]]
            values = self.host.evaluate_prompt(given, self.extra)
            fixed.append(values)
            recording.keep(f"prompt/{index * effort.batches + b}", values)
        for k, timestep in enumerate(self.scheduler.timesteps.tolist()):
            if self.pictures is not None:
                when = torch.tensor([int(timestep)])
                own = self.pictures[first : first + count]
                latents = self.scheduler.add_noise(own, noise, when)
            step = self.host.evaluate_step(float(timestep), graph.batch, self.extra)
            recording.keep(f"step/{k}", step)
            scaled = self.scheduler.scale_model_input(latents, timestep)
            entering = scaled.repeat_interleave(per_prompt, dim=0)
            predictions = []
            for b in range(effort.batches):
                sample = entering[self._rows(b, items)].clone()
                number = (index * effort.steps + k) * effort.batches + b
                recording.arrays[f"sample/{number}"] = sample
                recording.runs.append((number, k, index * effort.batches + b))
                predictions.append(collector.run(sample, {**step, **fixed[b]}))
                bar.update()
            if self.pictures is not None:
                continue
            predicted = torch.cat(predictions)[:items, : info.channels]
            if self.guided:
                unconditional, conditional = predicted[0::2], predicted[1::2]
                predicted = unconditional + GUIDANCE * (conditional - unconditional)
            latents = self.scheduler.step(predicted, timestep, latents).prev_sample
        return recording

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
) -> torch.Tensor | None:
    """Embeddings of all items: (unconditional, conditional) pairs; noise without a text encoder."""
    shapes = [n.shape for n in host.graph.nodes if n.name == "encoder_hidden_states"]
    if not shapes:
        return None
    _, tokens, width = shapes[0]
    if not has_text_encoder(model):
        return torch.randn(len(prompts), tokens, width, generator=generator)
    both = embed(model, ["", *prompts], tokens)
    if both.shape[1:] != (tokens, width):
        raise UserError(
            f"{model.path}: the text encoder gives {list(both.shape[1:])} values a prompt, the "
            f"U-Net takes {[tokens, width]}; use a pipeline with a single text encoder"
        )
    if not guided:
        return both[1:]
    pairs = [torch.stack([both[0], row]) for row in both[1:]]
    return torch.cat(pairs)


def _extra_inputs(host: HostGraph, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Values for what the U-Net takes besides latent, timestep and prompt: labels 0, or noise."""
    values = {}
    for node in host.graph.nodes:
        if node.op == "input" and node.name not in _FIXED_INPUTS:
            whole = "int" in node.dtype
            noise = torch.randn(node.shape, generator=generator)
            values[node.name] = torch.zeros(node.shape, dtype=torch.int64) if whole else noise
    return values


def _scheduler(model: Model) -> Any:
    """A DDIM scheduler with the betas and prediction type of the model's own."""
    from diffusers import DDIMScheduler

    path = model.path / "scheduler" / "scheduler_config.json"
    if model.kind == "pipeline" and path.is_file():
        return DDIMScheduler.from_config(read_json(path))
    return DDIMScheduler()
