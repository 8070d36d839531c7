"""Test benches of the kernels, and the vectors that they run on.

The vectors of one step are recorded from the engine's own kernels, run with a tap in every stream
(vitis/bench/record.cpp), after the step's result has been compared with the integer reference. The
benches then hold each kernel alone, as Vitis compiles it, against them.
"""

from __future__ import annotations

import ctypes
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gen import reference
from gen.compile import INCLUDES, compile_library
from gen.emit import emit_sources
from gen.errors import UserError
from gen.program import DynamicBuffer, Program, load_program, lower, pack_static, save_program
from gen.program.io import pack_latent, unpack_result
from gen.qgraph_io import load_qgraph, save_qgraph
from gen.qlayers import QGraph
from gen.stages import ROOT
from gen.vitis.files import render, write_changed
from gen.vitis.topology import ENGINE, Kernel

BENCH = ROOT / "vitis" / "bench"
WORD_BYTES = 64
MESSAGE_BYTES = 4096
# its presence says that the vectors are complete
MADE = "made"
Bytes = NDArray[np.uint8]


def pointer_depths(program: Program) -> dict[str, int]:
    """Words of every DDR buffer, as the kernels' m_axi ports declare them; an empty one has one."""
    sizes = {
        "latent": program.input_rows,
        "result": program.output_rows,
        "weights": program.static_words,
        "dynamic": program.dynamic_words,
    }
    return {name: max(1, words) for name, words in sizes.items()}


def bench_text(kernel: Kernel, program: Program) -> str:
    """Source of a kernel's test bench."""
    streams = [ENGINE.stream(name) for name in kernel.streams]
    sizes = pointer_depths(program)
    pointers = [(name, sizes[name], name in kernel.written) for name in kernel.pointers]
    return render(
        "bench.cpp.j2",
        kernel=kernel,
        pointers=pointers,
        streams=streams,
        inputs=[each for each in streams if each.sink == kernel.name],
        outputs=[each for each in streams if each.source == kernel.name],
        parameters=[
            *(f"{'' if written else 'const '}lda::Word*" for _, _, written in pointers),
            *(f"hls::stream<{each.element}>&" for each in streams),
        ],
        arguments=[
            *(f"{name}.data()" for name, _, _ in pointers),
            *(each.port for each in streams),
        ],
    )


def emit_benches(build: Path, program: Program) -> list[Path]:
    """Write the benches and what they include to ``vitis/bench``; return those that changed."""
    folder = build / "vitis" / "bench"
    texts = {f"{kernel.name}_tb.cpp": bench_text(kernel, program) for kernel in ENGINE.kernels}
    texts["bench.hpp"] = (BENCH / "bench.hpp").read_text()
    return [folder / name for name, text in texts.items() if write_changed(folder / name, text)]


def random_step(
    qgraph: QGraph, program: Program, seed: int
) -> tuple[NDArray[np.int8], Bytes, NDArray[np.int16]]:
    """Latent, dynamic buffer, and the result that the integer reference gives for them.

    Values are drawn over their whole ranges, so that saturation occurs.
    """
    rng = np.random.default_rng(seed)
    graph = qgraph.graph
    info = graph.tensors[graph.input]
    shape = (graph.batch, info.channels, info.height, info.width)
    latent = rng.integers(-128, 128, shape).astype(np.int8)
    used = {layer.layer.weight.key for layer in qgraph.layers}
    prompt = {
        name: rng.integers(-127, 128, host.shape).astype(np.int8)
        for name, host in graph.host_tensors.items()
        if host.when == "prompt" and name in used
    }
    biases = {
        each.layer.name: rng.integers(-(1 << 16), 1 << 16, (graph.batch, len(each.bias)))
        .astype(np.int32)
        for each in qgraph.layers
        if each.layer.host_bias
    }  # fmt: skip
    dynamic = DynamicBuffer(program)
    dynamic.set_step(biases)
    dynamic.set_prompt(prompt)
    return latent, dynamic.data, reference.run(qgraph, latent, biases, prompt)


def record(build: Path, seed: int = 1, progress: bool = True) -> Path:
    """Record one step of a build into ``vitis/vectors`` and return that folder.

    Raises:
        UserError: the build is incomplete, or its sources do not compile.
        AssertionError: the kernels differ from the integer reference.
    """
    program, qgraph = load_program(build / "program.json"), load_qgraph(build)
    weights = np.fromfile(build / "weights.bin", dtype=np.uint8)
    latent, dynamic, expected = random_step(qgraph, program, seed)
    folder = build / "vitis" / "vectors"
    scratch = build / "vitis" / "vectors.tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    for kernel in ENGINE.kernels:
        (scratch / kernel.name).mkdir(parents=True)
    result = np.zeros((program.output_rows, WORD_BYTES), dtype=np.uint8)
    buffers = {
        "latent": np.ascontiguousarray(pack_latent(program, latent)).reshape(-1, WORD_BYTES),
        "weights": weights.reshape(-1, WORD_BYTES),
        "dynamic": dynamic.reshape(-1, WORD_BYTES),
    }
    _run(
        build,
        scratch,
        [buffers[name] for name in ("weights", "dynamic", "latent")],
        result,
        progress,
    )
    if not np.array_equal(unpack_result(program, result), expected):
        raise AssertionError("the kernels' result differs from the integer reference")
    buffers["result"] = result
    sizes = pointer_depths(program)
    for kernel in ENGINE.kernels:
        for name in kernel.pointers:
            padded = np.zeros((sizes[name], WORD_BYTES), dtype=np.uint8)
            padded[: len(buffers[name])] = buffers[name]
            padded.tofile(scratch / kernel.name / f"{name}.bin")
    (scratch / MADE).write_text(f"seed {seed}\n")
    shutil.rmtree(folder, ignore_errors=True)
    scratch.replace(folder)
    return folder


def _run(build: Path, folder: Path, sources: list[Bytes], result: Bytes, progress: bool) -> None:
    library = build / "vitis" / "record.so"
    compile_library(
        [BENCH / "record.cpp"],
        library,
        defines={"SIM_UNTIMED": "1"},
        includes=[*INCLUDES, build / "src"],
        jobs=1,
        progress=progress,
    )
    function = ctypes.CDLL(str(library.resolve())).lda_record
    function.argtypes = [ctypes.c_char_p, *([ctypes.c_void_p] * 4), ctypes.c_char_p, ctypes.c_int]
    message = ctypes.create_string_buffer(MESSAGE_BYTES)
    pointers = [each.ctypes.data for each in (*sources, result)]
    if function(str(folder).encode(), *pointers, message, MESSAGE_BYTES):
        raise UserError(
            f"one step could not be recorded ({message.value.decode(errors='replace')}); run "
            "make build again, then make verify"
        )


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

    Raises:
        UserError: no such layer, or no build.
    """
    program = load_program(build / "program.json")
    qgraph = first_layers(load_qgraph(build), layer)
    folder = build / "layers" / layer
    folder.mkdir(parents=True, exist_ok=True)
    part = lower(qgraph, program.engine)
    save_qgraph(qgraph, folder)
    save_program(part, folder / "program.json")
    (folder / "weights.bin").write_bytes(pack_static(qgraph, part))
    emit_sources(part, folder / "src")
    return folder
