"""Calibration inputs: what the sampler itself feeds the U-Net, from noise to picture.

A DDIM sampler (Song et al. 2020, eta 0) with classifier-free guidance runs on the float layer
graph. Trajectories are advanced together, one timestep after the other, so that every batch of
the graph holds items of one timestep.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from gen import layergraph_io
from gen.errors import UserError
from gen.floatrun import run_float
from gen.hostgraph import HostGraph
from gen.layers import LayerGraph
from gen.model import Model, read_json
from gen.quantise.embeddings import embed, has_text_encoder
from gen.quantise.prompts import DEFAULT_PROMPTS
from gen.quantise.statistics import Run

STEPS = 8
GUIDANCE = 2.5
SEED = 20_000

_FIXED_INPUTS = ("sample", "timestep", "encoder_hidden_states")


@dataclass
class Recording:
    """Inputs of the U-Net as plain tensors, and how to put them together.

    ``arrays`` holds ``sample/i``, ``step/k/NAME`` and ``prompt/p/NAME``; ``runs`` lists
    (i, k, p): sample i of timestep k and prompt batch p.
    """

    arrays: dict[str, torch.Tensor]
    runs: list[tuple[int, int, int]]


def record(model: Model, folder: Path, prompts: Sequence[str], path: Path) -> None:
    """Sample with the layer graph in ``folder`` and write its inputs to ``path`` (safetensors).

    ``prompts``: empty for the defaults. Raises UserError for unusable model files.
    """
    graph, host = layergraph_io.load(folder), HostGraph.load(folder)
    recording = sample(model, graph, host, prompts or DEFAULT_PROMPTS)
    save_file(recording.arrays, path, {"runs": json.dumps(recording.runs)})


def load_runs(path: Path) -> list[Run]:
    """The (sample, host tensors) pairs that :func:`record` wrote."""
    try:
        with safe_open(path, "pt") as file:
            runs = json.loads(file.metadata()["runs"])
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return list(_assemble(Recording(arrays, [(i, k, p) for i, k, p in runs])))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not an intact recording ({error}); delete it and build again"
        ) from error


def _assemble(recording: Recording) -> Iterator[Run]:
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in recording.arrays.items():
        kind, index, *name = key.split("/", 2)
        if name:
            groups.setdefault(f"{kind}/{index}", {})[name[0]] = value
    for i, k, p in recording.runs:
        host = {**groups.get(f"step/{k}", {}), **groups.get(f"prompt/{p}", {})}
        yield recording.arrays[f"sample/{i}"], host


@torch.no_grad()
def sample(model: Model, graph: LayerGraph, host: HostGraph, prompts: Sequence[str]) -> Recording:
    """Run the sampler for every prompt and keep what enters the U-Net."""
    generator = torch.Generator().manual_seed(SEED)
    info = graph.tensors[graph.input]
    scheduler = _scheduler(model)
    scheduler.set_timesteps(STEPS)
    # one entry per item: every prompt, and its unconditional twin where there is guidance
    embeddings = _embeddings(model, graph, host, prompts, generator)
    guided = embeddings is not None and has_text_encoder(model)
    per_latent = 2 if guided else 1
    items = len(prompts) * per_latent
    batches = -(-items // graph.batch)
    latents = torch.randn(
        len(prompts), info.channels, info.height, info.width, generator=generator
    ) * float(scheduler.init_noise_sigma)
    recording = Recording({}, [])
    extra = _extra_inputs(host, generator)
    prompt_values = []
    for p in range(batches):
        rows = [min(i, items - 1) for i in range(p * graph.batch, (p + 1) * graph.batch)]
        given = None if embeddings is None else embeddings[rows]
        values = host.evaluate_prompt(given, extra["prompt"])
        prompt_values.append(values)
        _keep(recording, f"prompt/{p}", values)
    timesteps = scheduler.timesteps.tolist()
    with tqdm(total=len(timesteps) * batches, desc="sample", unit="batch", disable=None) as bar:
        for k, timestep in enumerate(timesteps):
            step_values = host.evaluate_step(float(timestep), graph.batch, extra["step"])
            _keep(recording, f"step/{k}", step_values)
            scaled = scheduler.scale_model_input(latents, timestep)
            entering = scaled.repeat_interleave(per_latent, dim=0)
            noise = []
            for p in range(batches):
                rows = [min(i, items - 1) for i in range(p * graph.batch, (p + 1) * graph.batch)]
                index = len(recording.runs)
                recording.arrays[f"sample/{index}"] = entering[rows].clone()
                recording.runs.append((index, k, p))
                noise.append(run_float(graph, entering[rows], {**step_values, **prompt_values[p]}))
                bar.update()
            predicted = torch.cat(noise)[:items, : info.channels]
            if guided:
                unconditional, conditional = predicted[0::2], predicted[1::2]
                predicted = unconditional + GUIDANCE * (conditional - unconditional)
            latents = scheduler.step(predicted, timestep, latents).prev_sample
    return recording


def _keep(recording: Recording, prefix: str, values: dict[str, torch.Tensor]) -> None:
    for name, value in values.items():
        recording.arrays[f"{prefix}/{name}"] = value.to(torch.float32).contiguous().clone()


def _embeddings(
    model: Model,
    graph: LayerGraph,
    host: HostGraph,
    prompts: Sequence[str],
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
    pairs = [torch.stack([both[0], row]) for row in both[1:]]
    return torch.cat(pairs)


def _extra_inputs(
    host: HostGraph, generator: torch.Generator
) -> dict[str, dict[str, torch.Tensor]]:
    """Values for what the U-Net takes besides latent, timestep and prompt: labels 0, or noise."""
    values = {}
    for node in host.graph.nodes:
        if node.op == "input" and node.name not in _FIXED_INPUTS:
            whole = "int" in node.dtype
            noise = torch.randn(node.shape, generator=generator)
            values[node.name] = torch.zeros(node.shape, dtype=torch.int64) if whole else noise
    return {"step": values, "prompt": values}


def _scheduler(model: Model) -> Any:
    """A DDIM scheduler with the betas and prediction type of the model's own."""
    from diffusers import DDIMScheduler

    path = model.path / "scheduler" / "scheduler_config.json"
    if model.kind == "pipeline" and path.is_file():
        return DDIMScheduler.from_config(read_json(path))
    return DDIMScheduler()
