"""Builds with test benches and their vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from cpp import ROOT
from layerkit import random_qgraph

from gen.build import Settings, stages
from gen.emit import emit_sources
from gen.model import find_model
from gen.program import Engine, load_program, lower, pack_static, save_program
from gen.program.program import Program
from gen.qgraph_io import load_qgraph, save_qgraph
from gen.qlayers import QGraph
from gen.quantise.subjects import Subjects
from gen.stages import run_stages
from gen.vitis.bench import build_first_layers, emit_benches, record
from gen.vitis.topology import topology

RANKS = 4
ENGINE = topology(RANKS)
KERNELS = [kernel.name for kernel in ENGINE.kernels]
# rank 0, which is an end of the line, and the middle rank beside it
QUICK = ("wload", "gather_2")
SMALL = replace(Engine(ranks=RANKS), store_rows=4096, window_rows=256, weight_rows=512)
TO_PROGRAM = ("trace", "calibrate", "quantise", "program")


def make_build(folder: Path, kind: str, engine: Engine = SMALL, size=(5, 6)):
    """A build of one kind of layer, with benches; the graph and the program."""
    qgraph = random_qgraph(kind, np.random.default_rng(11), size=size, channels=24)
    program = lower(qgraph, engine)
    write_build(folder, qgraph, program)
    return qgraph, program


def write_build(folder: Path, qgraph: QGraph, program: Program) -> None:
    """What a build leaves of a graph and its program, with benches."""
    folder.mkdir(exist_ok=True)
    save_qgraph(qgraph, folder)
    save_program(program, folder / "program.json")
    (folder / "weights.bin").write_bytes(pack_static(qgraph, program))
    emit_sources(program, folder / "src")
    emit_benches(folder, program)


def with_vectors(folder: Path) -> Path:
    """The build with benches and vectors, as ``make vectors`` leaves it."""
    emit_benches(folder, load_program(folder / "program.json"))
    record(folder, progress=False)
    return folder


def one_layer(folder: Path) -> Path:
    """A program of a single layer, with vectors."""
    qgraph, _ = make_build(folder, "conv3x3")
    part = build_first_layers(folder, qgraph.layers[0].layer.name)
    assert len(load_qgraph(part).layers) == 1
    return with_vectors(part)


def first_blocks(folder: Path) -> Path:
    """The bundled model up to the end of its first attention block, with vectors; ``folder``
    holds the whole model's program.
    """
    model = find_model(str(ROOT / "models" / "shapes-ldm"))
    settings = Settings(subjects=Subjects(prompts=("a red circle",)))
    needed = [each for each in stages(model, folder, settings) if each.name in TO_PROGRAM]
    run_stages(needed, folder, lambda _: None)
    layers = [each.layer.name for each in load_qgraph(folder).layers]
    last = next(name for name in layers if name.endswith("attentions.0.proj_out"))
    return with_vectors(build_first_layers(folder, last))
