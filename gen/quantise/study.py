"""``python -m gen.quantise.study BUILD``: what every layer costs in signal to noise.

Two figures a layer: ``alone``, its integers fed with the float tensors rounded to their formats;
and ``so far``, the integer graph from the latent on.  Both against float, on inputs that the
sampler recorded for calibration.  A layer that is bad alone is worth a better format; one that
is only bad so far suffers from what came before.  The two products of an attention are one line,
named as the second, as nobody wants to hold all logits of a large model.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from gen import layergraph_io
from gen.cli import guarded
from gen.floatrun import run_float
from gen.hostints import prompt_weights, quantise_latent, step_affines, step_biases
from gen.layers import LayerGraph
from gen.qgraph_io import load_qgraph
from gen.qlayers import QGraph, QLayer, QTensor
from gen.quantise.statistics import Run
from gen.quantise.trajectories import load_runs
from gen.reference import run, run_layer
from gen.reference.attention import attend
from gen.reference.write import Stored


@dataclass
class Energies:
    """Energy of the float signal and of the two errors, summed over steps."""

    signal: float = 0.0
    alone: float = 0.0
    so_far: float = 0.0

    @staticmethod
    def decibels(signal: float, noise: float) -> float:
        """Signal to noise ratio in dB; infinite without noise."""
        return math.inf if noise == 0 else 10 * math.log10(max(signal, 1e-300) / noise)


@dataclass
class Study:
    """Energies by layer name, in execution order."""

    layers: dict[str, Energies] = field(default_factory=dict)

    def table(self) -> str:
        """One line a layer, the worst alone first, and the output last."""
        rows = [
            (e.decibels(e.signal, e.alone), e.decibels(e.signal, e.so_far), name)
            for name, e in self.layers.items()
        ]
        lines = [f"{alone:8.1f} {so_far:8.1f}  {name}" for alone, so_far, name in sorted(rows)]
        output = f"output: {rows[-1][1]:.1f} dB" if rows else "no layers"
        return "\n".join(["   alone   so far  layer (dB)", *lines, output])


def study(graph: LayerGraph, qgraph: QGraph, runs: list[Run]) -> Study:
    """Compare ``qgraph`` with ``graph`` on every run."""
    result = Study()
    for sample, host in tqdm(runs, "study", unit="step", disable=None):
        floats: dict[str, NDArray[np.float32]] = {}

        def observe(
            kind: str,
            name: str,
            values: torch.Tensor,
            floats: dict[str, NDArray[np.float32]] = floats,
        ) -> None:
            if kind == "tensor" and graph.tensors[name].role != "scores":
                floats[name] = values.numpy()

        run_float(graph, sample, host, observe, parts=True)
        _one_step(qgraph, result, sample, host, floats)
    return result


def round_to(fmt: QTensor, values: NDArray[np.float32]) -> Stored:
    """Float tensor [batch, channels, height, width] or logits in the integers of ``fmt``."""
    scale = np.array(fmt.scale)
    if fmt.channel_scales is not None:
        scale = np.array(fmt.channel_scales)[:, None, None]
    limit = 1 << (fmt.bits - 1)
    whole = np.clip(np.rint(values / scale), -limit, limit - 1)
    stored: Stored = whole.astype(np.int8 if fmt.bits == 8 else np.int16)
    return stored


def _one_step(
    qgraph: QGraph,
    result: Study,
    sample: torch.Tensor,
    host: Mapping[str, torch.Tensor],
    floats: dict[str, NDArray[np.float32]],
) -> None:
    arrays = {name: value.to(torch.float32).numpy() for name, value in host.items()}
    latent = quantise_latent(qgraph, sample.to(torch.float32).numpy())
    biases, prompt = step_biases(qgraph, arrays), prompt_weights(qgraph, arrays)
    affines = step_affines(qgraph, arrays)
    stored: dict[str, Stored] = {}
    run(qgraph, latent, biases, prompt, stored.__setitem__, affines, logits=False)
    entry = qgraph.graph.input
    rounded = {n: round_to(qgraph.tensors[n], v) for n, v in floats.items() if n != entry}
    rounded[entry] = latent
    logits: dict[str, QLayer] = {}
    for qlayer in qgraph.layers:
        name, dest = qlayer.layer.name, qlayer.layer.dest
        if qgraph.graph.tensors[dest].role == "scores":
            logits[dest] = qlayer
            continue
        fmt, exact = qgraph.tensors[dest], floats[dest].astype(np.float64)
        if qlayer.layer.read.norm == "softmax":
            first = logits[qlayer.layer.sources[0]]
            alone = attend(qgraph, first, qlayer, rounded, prompt)
        else:
            bias, affine = biases.get(name), affines.get(name)
            alone = run_layer(qgraph, qlayer, rounded, bias, prompt, affine)
        energies = result.layers.setdefault(name, Energies())
        energies.signal += float(np.sum(exact**2))
        energies.alone += float(np.sum((fmt.values(alone) - exact) ** 2))
        energies.so_far += float(np.sum((fmt.values(stored[name]) - exact) ** 2))


def main(arguments: list[str] | None = None) -> int:
    """Print the table of a build folder; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gen.quantise.study", description=__doc__)
    parser.add_argument("build", type=Path, help="build folder")
    parser.add_argument("--steps", type=int, default=4, help="recorded steps to compare")
    parsed = parser.parse_args(arguments)
    return guarded(lambda: _run(parsed.build, parsed.steps), "interrupted")


def _run(build: Path, steps: int) -> None:
    graph, qgraph = layergraph_io.load(build), load_qgraph(build)
    runs = load_runs(build / "calibration.safetensors")
    every = max(1, len(runs) // max(1, steps))
    print(study(graph, qgraph, runs[every // 2 :: every]).table())


if __name__ == "__main__":
    sys.exit(main())
