"""Test benches of the kernels, and the vectors that they run on.

The vectors of one start are recorded from the software card (vitis/bench/record.cpp), and its
result is compared with the integer reference. The benches then hold each kernel alone, as Vitis
compiles it, against them. RTL simulation starts memories as X, so nothing that is recorded may
depend on memory that no kernel has written: the start is recorded twice, with different contents
of it.
"""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gen import reference
from gen.compile import INCLUDES, compile_library
from gen.csim import CsimCard, CsimError
from gen.emit import emit_sources
from gen.errors import UserError
from gen.hostints import step_affines
from gen.program import DynamicBuffer, Program, load_program, lower, pack_static, save_program
from gen.program.io import pack_latent
from gen.program.sampler import (
    buffer_words,
    dynamic_buffers,
    latent_buffers,
    port_steps,
    result_state,
    samples,
)
from gen.qgraph_io import load_qgraph, save_qgraph
from gen.qlayers import QGraph
from gen.reference.sampler import COEFFICIENT_BITS, Coefficients, quantise_state, update
from gen.stages import ROOT, write_json
from gen.vitis.engine import engine_topology
from gen.vitis.files import render, write_changed
from gen.vitis.topology import Kernel, Topology, Unit

BENCH = ROOT / "vitis" / "bench"
WORD_BYTES = 64
# its presence says that the vectors are complete
MADE = "made"
# modelled cycles of every unit, beside the vectors
CYCLES = "cycles.json"
# of a kernel that all ranks have, how many instances get vectors: the first rank, which is an end
# of the line, and the next
RANKS_RECORDED = 2
RELOAD = 1
# bytes that the card's memories are filled with before each recording
POISONS = (0x5A, 0xA5)
Bytes = NDArray[np.uint8]


def bench_units(engine: Topology, kernel: Kernel) -> tuple[Unit, ...]:
    """Instances of a kernel that are held against their vectors."""
    return engine.units_of(kernel)[:RANKS_RECORDED]


def bench_text(kernel: Kernel, program: Program) -> str:
    """Source of a kernel's test bench."""
    sizes = buffer_words(program)
    return render(
        "bench.cpp.j2",
        kernel=kernel,
        calls=1 if kernel.started else port_steps(program),
        memories=[(memory, sizes[memory.name]) for memory in kernel.memories],
        parameters=[parameter.type for parameter in kernel.parameters],
        arguments=[
            *(f"{memory.name}.data()" for memory in kernel.memories),
            *kernel.ports[len(kernel.memories) :],
        ],
    )


def emit_benches(build: Path, program: Program) -> list[Path]:
    """Write the benches and what they include to ``vitis/bench``; return those that changed."""
    folder = build / "vitis" / "bench"
    kernels = engine_topology(program).kernels
    texts = {f"{kernel.name}_tb.cpp": bench_text(kernel, program) for kernel in kernels}
    texts["bench.hpp"] = (BENCH / "bench.hpp").read_text()
    for path in folder.glob("*_tb.cpp"):
        if path.name not in texts:
            path.unlink()
    return [folder / name for name, text in texts.items() if write_changed(folder / name, text)]


@dataclass(frozen=True)
class Start:
    """A start of the engine: latent and dynamic buffers of every rank, and what the integer
    reference says: the last step's result, and the sampler's state (None: one step).
    """

    latent: list[Bytes]
    dynamic: list[Bytes]
    result: NDArray[np.int16]
    state: NDArray[np.int32] | None


def random_start(qgraph: QGraph, program: Program, seed: int) -> Start:
    """A start of as many steps as the ports are declared for.

    Values are drawn over their whole ranges, so that saturation occurs.
    """
    rng = np.random.default_rng(seed)
    graph = qgraph.graph
    info = graph.tensors[graph.input]
    used = {layer.layer.weight.key for layer in qgraph.layers}
    prompt = {
        name: rng.integers(-127, 128, host.shape).astype(np.int8)
        for name, host in graph.host_tensors.items()
        if host.when == "prompt" and name in used
    }
    if not program.has_sampler:
        shape = (graph.batch, info.channels, info.height, info.width)
        latent = rng.integers(-128, 128, shape).astype(np.int8)
        dynamic, result = _random_step(qgraph, program, rng, latent, prompt)
        rows = [each.reshape(-1, WORD_BYTES) for each in pack_latent(program, latent)]
        return Start(rows, list(dynamic), result, None)
    count, partner = samples(graph)
    channels = info.channels // qgraph.input_replicas
    shape = (count, channels, info.height, info.width)
    state = rng.integers(-(1 << 28), 1 << 28, shape).astype(np.int32)
    first, updates, parts = state, [], []
    for step in range(port_steps(program)):
        if step:
            low, high = 1 << COEFFICIENT_BITS >> 1, 1 << COEFFICIENT_BITS
            c0, c1 = (int(value) for value in rng.integers(-(1 << 37), 1 << 37, 2))
            updates.append(Coefficients(int(rng.integers(low, high)), c0, c1))
            state = update(state, result[:count], result[partner : partner + count], updates[-1])
        latent = quantise_state(state, qgraph.input_replicas)[np.arange(graph.batch) % count]
        dynamic, result = _random_step(qgraph, program, rng, latent, prompt)
        parts.append(dynamic)
    return Start(
        latent_buffers(program, qgraph, first, updates),
        dynamic_buffers(program, parts),
        result,
        state,
    )


def _random_step(
    qgraph: QGraph,
    program: Program,
    rng: np.random.Generator,
    latent: NDArray[np.int8],
    prompt: dict[str, NDArray[np.int8]],
) -> tuple[Bytes, NDArray[np.int16]]:
    """Dynamic buffers uint8 [ranks, bytes] of a step, and what the integer reference gives."""
    graph = qgraph.graph
    biases = {
        each.layer.name: rng.integers(-(1 << 16), 1 << 16, (graph.batch, len(each.bias)))
        .astype(np.int32)
        for each in qgraph.layers
        if each.layer.host_bias
    }  # fmt: skip
    shapes = {name: host.shape for name, host in graph.host_tensors.items()}
    norms = {name for each in qgraph.layers if (name := each.layer.read.host_affine) is not None}
    affines = step_affines(
        qgraph, {name: rng.normal(0, 1, shapes[name]).astype(np.float32) for name in sorted(norms)}
    )
    dynamic = DynamicBuffer(program, qgraph)
    dynamic.set_step(biases)
    dynamic.set_affine(affines)
    dynamic.set_prompt(prompt)
    result = reference.run(qgraph, latent, biases, prompt, step_affine=affines)
    return dynamic.data, result


def record(build: Path, seed: int = 1, progress: bool = True) -> Path:
    """Record one step of a build into ``vitis/vectors`` and return that folder: a folder per
    recorded unit with a file per port, and the cycles that the timed simulation gives every unit.

    Raises:
        UserError: the build is incomplete, or its sources do not compile.
        AssertionError: the kernels differ from the integer reference, or what passes between them
            depends on memory that no kernel has written.
    """
    program, qgraph = load_program(build / "program.json"), load_qgraph(build)
    engine = engine_topology(program)
    weights = np.fromfile(build / "weights.bin", dtype=np.uint8).reshape(program.ranks, -1)
    start = random_start(qgraph, program, seed)
    folder = build / "vitis" / "vectors"
    scratch = build / "vitis" / "vectors.tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    units = {unit.name: unit for kernel in engine.kernels for unit in bench_units(engine, kernel)}
    library = build / "vitis" / "record.so"
    compile_library(
        [BENCH / "record.cpp"],
        library,
        includes=[*INCLUDES, build / "src"],
        jobs=1,
        progress=progress,
    )
    card = CsimCard(library, program)
    takes = (scratch, scratch / "again")
    for take, byte in zip(takes, POISONS, strict=True):
        for name in units:
            (take / name).mkdir(parents=True)
        card.poison(byte)
        results = _recorded_start(card, library, engine, take, weights, start)
        buffers: dict[str, Sequence[Bytes] | Bytes] = {
            "latent": start.latent,
            "weights": weights,
            "dynamic": start.dynamic,
            "result": results,
            "spill": card.spill,
        }
        scalars = {"reload": RELOAD, "steps": port_steps(program)}
        for unit in units.values():
            for memory in unit.kernel.memories:
                data = np.ascontiguousarray(buffers[memory.name][unit.rank])
                assert data.nbytes == buffer_words(program)[memory.name] * WORD_BYTES
                data.tofile(take / unit.name / f"{memory.name}.bin")
            for scalar in unit.kernel.scalars:
                value = np.array([scalars[scalar.name]], "<i4")
                value.tofile(take / unit.name / f"{scalar.name}.bin")
    _compare(*takes)
    shutil.rmtree(takes[1])
    write_json(scratch / CYCLES, unit_cycles(engine, card.report))
    (scratch / MADE).write_text(f"seed {seed}\n")
    shutil.rmtree(folder, ignore_errors=True)
    scratch.replace(folder)
    return folder


def _compare(first: Path, second: Path) -> None:
    """Raise AssertionError for a port of which the two recordings differ."""
    for path in sorted(first.glob("*/*.bin")):
        if path.read_bytes() != (second / path.relative_to(first)).read_bytes():
            raise AssertionError(
                f"{path.stem} of {path.parent.name} depends on memory that no kernel has written"
            )


def _recorded_start(
    card: CsimCard,
    library: Path,
    engine: Topology,
    folder: Path,
    weights: Bytes,
    start: Start,
) -> list[Bytes]:
    """The result buffers of a start, every stream of which has been written to the folders' files.

    Raises:
        UserError: the start fails, or a file cannot be written.
        AssertionError: the kernels differ from the integer reference.
    """
    program = card.program
    functions = ctypes.CDLL(str(library.resolve()))
    functions.lda_record_to.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    for each in engine.connections:
        for unit, port in ((each.source, each.output), (each.sink, each.input)):
            path = folder / unit.name / f"{port.name}.bin"
            if not path.parent.is_dir():
                continue
            if functions.lda_record_to(each.fifo.encode(), str(path).encode()):
                functions.lda_record_end()
                raise UserError(f"{path} cannot be written; make room or repair the folder")
    try:
        result, buffers = card.start(
            weights, start.dynamic, start.latent, port_steps(program), reload=bool(RELOAD)
        )
    except CsimError as error:
        raise UserError(
            f"one step could not be recorded ({error}); run make build again, then make verify"
        ) from error
    finally:
        incomplete = functions.lda_record_end()
    if incomplete:
        raise UserError(f"{folder} could not be filled; make room on the disk")
    same = np.array_equal(result, start.result)
    if start.state is not None:
        same = same and all(
            np.array_equal(result_state(program, each), start.state) for each in buffers
        )
    if not same:
        raise AssertionError("the kernels' result differs from the integer reference")
    return buffers


def unit_cycles(engine: Topology, report: dict[str, object]) -> dict[str, int]:
    """Cycles that every unit would take by itself, fed and drained without a pause: those of its
    slowest process that are not spent waiting for a neighbour, in the timed simulation.
    """
    processes = report["processes"]
    assert isinstance(processes, list)
    busy: dict[str, int] = {}
    for process in processes:
        # "pre.apply_2" belongs to pre_2
        name, _, number = str(process["name"]).rpartition("_")
        unit = f"{name.partition('.')[0]}_{number}"
        own = int(process["cycles"]) - int(process["starved"]) - int(process["blocked"])
        busy[unit] = max(busy.get(unit, 0), own)
    return {unit.name: busy[unit.name] for unit in engine.units}


def first_layers(qgraph: QGraph, layer: str) -> QGraph:
    """The graph up to a layer, or to the next one behind it whose result is 16 bits wide.

    Raises:
        UserError: no such layer.
    """
    names = [each.layer.name for each in qgraph.layers]
    if layer not in names:
        raise UserError(f"there is no layer {layer}; the first ones are {', '.join(names[:4])}")
    end = names.index(layer)
    # a result is 16 bits wide and stays in the store
    while (
        qgraph.tensors[qgraph.layers[end].layer.dest].bits != 16
        or qgraph.graph.tensors[qgraph.layers[end].layer.dest].role == "scores"
    ):
        end += 1
    layers = qgraph.layers[: end + 1]
    kept = {qgraph.graph.input, *(each.layer.dest for each in layers)}
    graph = replace(
        qgraph.graph,
        output=layers[-1].layer.dest,
        tensors={name: info for name, info in qgraph.graph.tensors.items() if name in kept},
        layers=[each.layer for each in layers],
    )
    tensors = {name: fmt for name, fmt in qgraph.tensors.items() if name in kept}
    return replace(qgraph, graph=graph, tensors=tensors, layers=layers)


def build_first_layers(build: Path, layer: str) -> Path:
    """A build of the first layers alone, in ``BUILD/layers/LAYER``: program, weights, sources.

    Files that are the same already stay as they are, so that make resumes.

    Raises:
        UserError: no such layer, or no build.
    """
    program = load_program(build / "program.json")
    qgraph = first_layers(load_qgraph(build), layer)
    folder = build / "layers" / layer
    scratch = folder.with_name(f"{layer}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    # what the first layers make is no prediction
    part = lower(qgraph, replace(program.engine, sampler_pixels=0))
    save_qgraph(qgraph, scratch)
    save_program(part, scratch / "program.json")
    (scratch / "weights.bin").write_bytes(pack_static(qgraph, part))
    emit_sources(part, scratch / "src")
    for made in [path for path in scratch.rglob("*") if path.is_file()]:
        target = folder / made.relative_to(scratch)
        if not target.is_file() or target.read_bytes() != made.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            made.replace(target)
    shutil.rmtree(scratch)
    return folder
