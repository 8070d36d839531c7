"""Float, integer reference and csim, layer by layer, over a real denoising trajectory.

The noise predictions that drive the sampler are the card's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from gen import layergraph_io
from gen.compare import CardCheck, Diverged, Integers, Noise, float_noise, reference_step
from gen.csim import CsimCard, CsimError
from gen.errors import UserError
from gen.hostgraph import HostGraph
from gen.hostints import output_to_float
from gen.model import find_model, read_json
from gen.program import load_program
from gen.qgraph_io import load_qgraph
from gen.stages import FORMAT, MANIFEST, file_hash, write_json
from gen.trajectory import DEFAULT_PROMPT, denoise

REPORT = "verify.json"


def verify(
    build: Path,
    steps: int = 25,
    prompt: str = DEFAULT_PROMPT,
    seed: int = 1,
    say: Callable[[str], None] = print,
    progress: bool = True,
) -> bool:
    """Compare a build's three stages; whether reference and csim agree everywhere.

    Prints the signal to noise ratio of every layer's stored tensor against float, writes
    ``verify.json``, and names the first layer at which the card differs from the reference.

    Raises:
        UserError: not a finished build, a changed file, or a model that is gone.
    """
    check_files(build)
    manifest = read_json(build / MANIFEST)
    origin = (build / manifest["model"]["path"]).resolve()
    if not origin.exists():
        raise UserError(f"{origin}: the model of {build} is gone; restore it or build again")
    model = find_model(str(origin))
    graph, host = layergraph_io.load(build), HostGraph.load(build)
    qgraph, program = load_qgraph(build), load_program(build / "program.json")
    weights = np.fromfile(build / "weights.bin", dtype=np.uint8)
    try:
        check = CardCheck(CsimCard(build / "card.so", program), qgraph, weights)
    except RuntimeError as error:
        raise UserError(f"{error}; build the model again") from error

    noise: dict[str, Noise] = {}
    done = 0
    fault = ""

    def predict(
        pair: torch.Tensor, timestep: float, host_values: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        nonlocal done
        integers = Integers.of(qgraph, pair, host_values)
        expected, stored = reference_step(qgraph, integers)
        float_noise(graph, qgraph, pair, host_values, stored, noise)
        got = check.step(integers, stored)
        if not np.array_equal(got, expected):
            raise Diverged(graph.layers[-1].name, "the result buffer differs from the store")
        done += 1
        return torch.from_numpy(output_to_float(qgraph, got))

    try:
        denoise(
            model, graph, host, predict, steps=steps, prompt=prompt, seed=seed, progress=progress
        )
    except (Diverged, CsimError) as error:
        fault = f"step {done + 1} of {steps}: {error}"
    report(noise, say)
    write_json(
        build / REPORT,
        {
            "steps": done,
            "comparisons_per_step": check.compared,
            "equal": not fault,
            "fault": fault,
            "snr_db": {layer: round(each.snr_db, 2) for layer, each in noise.items()},
        },
    )
    if fault:
        say(f"csim diverges from the integer reference at {fault}")
    else:
        cycles = f", {check.card.cycles} modelled cycles" if check.card.cycles else ""
        say(
            f"csim equals the integer reference in all {done} steps: {check.compared} stored "
            f"parts of tensors a step{cycles}"
        )
    return not fault


def report(noise: dict[str, Noise], say: Callable[[str], None]) -> None:
    """Print every layer's signal to noise ratio, integer reference against float."""
    if not noise:
        return
    width = max(len(layer) for layer in noise)
    say(f"{'layer':<{width}}  SNR dB (integers against float)")
    for layer, each in noise.items():
        say(f"{layer:<{width}}  {each.snr_db:6.1f}")
    worst = sorted(noise, key=lambda layer: noise[layer].snr_db)[:3]
    say("lowest: " + ", ".join(f"{layer} {noise[layer].snr_db:.1f} dB" for layer in worst))


def check_files(build: Path) -> None:
    """Refuse a build folder whose files are not those of its manifest.

    Raises:
        UserError: no manifest, another format, or a missing or changed file.
    """
    if not (build / MANIFEST).is_file():
        raise UserError(f"{build}: not a finished build (no {MANIFEST}); run `make build`")
    manifest = read_json(build / MANIFEST)
    if manifest.get("format") != FORMAT or "model" not in manifest:
        raise UserError(f"{build}: made by another version of the generator; build it again")
    for name, expected in manifest.get("files", {}).items():
        path = build / name
        if not path.is_file() or file_hash(path) != expected:
            raise UserError(
                f"{path}: missing, truncated or changed since it was built; delete it and run "
                "`make build` again"
            )
