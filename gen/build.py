"""The build: from a model to a folder that a host can run, stage by stage.

Every stage's inputs and outputs are files in the build folder (docs/engine.md, "Files of a build").
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gen import layergraph_io
from gen.compile import compile_library, compiler_identity, find_compiler
from gen.emit import SOURCES, emit_sources
from gen.identity import unet_identity
from gen.model import Model, load_unet, prompt_tokens, read_json
from gen.passes import lower as fuse
from gen.plan.fit import fitted
from gen.program import load_program, pack_static, save_program, verify_program
from gen.program.engine import load_engine
from gen.qgraph_io import load_qgraph, save_qgraph
from gen.quantise import Options, Statistics, quantise
from gen.quantise.pictures import ENCODERS
from gen.quantise.subjects import Subjects
from gen.quantise.trajectories import CALIBRATION, STATISTICS, load_runs, record
from gen.stages import FORMAT, MANIFEST, Stage, output_hashes, run_stages, write_json
from gen.trace import trace_unet
from host.xclbin import CONTAINER_NAME, board_mems, engine_units, write_container

LAYERS = ("layers.json", "layers.safetensors")
HOST = ("host.json", "host.safetensors")
QUANT = ("quant.json", "quant.safetensors")
MODEL = "model.json"
PROGRAM = ("program.json", "weights.bin")
CARD = "card.so"

UNTIMED = {"SIM_UNTIMED": "1"}  # hls/sim/mode.hpp
MAX_REPLAY = 32  # recorded runs that the quantiser repeats, if it does

TRACE_SOURCES = (
    "gen/graph.py",
    "gen/hostgraph.py",
    "gen/layers.py",
    "gen/layergraph_io.py",
    "gen/ops",
    "gen/passes",
    "gen/trace.py",
    "gen/trace_inputs.py",
    "gen/lora.py",
    "gen/lora_keys.py",
    "gen/identity.py",
    "gen/random_weights.py",
)
CALIBRATION_SOURCES = (
    "gen/arrayfile.py",
    "gen/floatrun.py",
    "gen/macs.py",
    "gen/quantise/effort.py",
    "gen/quantise/embeddings.py",
    "gen/quantise/pictures.py",
    "gen/quantise/prompts.py",
    "gen/quantise/ranges.py",
    "gen/quantise/statistics.py",
    "gen/quantise/subjects.py",
    "gen/quantise/trajectories.py",
)


@dataclass(frozen=True)
class Settings:
    """What a user may choose of a build.

    ``height``, ``width``: latent pixels, 0 for the model's own; ``batch``: 2 serves a guided pair
    at once; ``tokens``: of the longest prompt, 0 for the pipeline's own. ``subjects``: what to
    calibrate on, nothing for the defaults. ``untimed``: a software card that does not model clock
    cycles, which is faster. ``sampler``: several steps per start.
    """

    board: str = "u250"
    batch: int = 0
    height: int = 0
    width: int = 0
    tokens: int = 0
    subjects: Subjects = field(default_factory=Subjects)
    quantise: Options = field(default_factory=Options)
    untimed: bool = False
    sampler: bool = False


def stages(model: Model, build: Path, settings: Settings) -> list[Stage]:
    """The stages of a build, in order."""
    options = asdict(settings)
    pictures = list(settings.subjects.pictures)
    if pictures:
        parts = [p for name in ENCODERS for p in sorted((model.path / name).glob("*"))]
        pictures += [p for p in parts if p.is_file()]
    return [
        Stage(
            "trace",
            "trace the U-Net",
            TRACE_SOURCES,
            model.files,
            (*LAYERS, *HOST, MODEL),
            lambda _, scratch: _trace(model, build, settings, scratch),
            {key: options[key] for key in ("batch", "height", "width", "tokens")}
            | {"model": model.name},
        ),
        Stage(
            "calibrate",
            "calibrate",
            CALIBRATION_SOURCES,
            [*model.files, *LAYERS, *HOST, *pictures],
            (CALIBRATION, STATISTICS),
            lambda folder, scratch: record(model, folder, settings.subjects, scratch),
            {"prompts": settings.subjects.prompts},
            resumes=True,
        ),
        Stage(
            "quantise",
            "quantise",
            ("gen/quantise", "gen/qgraph_io.py", "gen/reference", "gen/floatrun.py"),
            [*LAYERS, CALIBRATION, STATISTICS],
            QUANT,
            lambda folder, scratch: _quantise(folder, settings, scratch),
            options["quantise"],
        ),
        Stage(
            "program",
            "write the layer program and pack the weights",
            ("gen/program", "gen/plan", "gen/boards"),
            QUANT,
            PROGRAM,
            lambda folder, scratch: _program(folder, settings, scratch),
            {
                "board": settings.board,
                "engine": asdict(load_engine(settings.board)),
                "sampler": settings.sampler,
            },
        ),
        Stage(
            "emit",
            "emit C++",
            ("gen/emit", "gen/templates", "gen/program"),
            [PROGRAM[0]],
            ("src",),
            lambda folder, scratch: _emit(folder, scratch),
        ),
        Stage(
            "compile",
            "compile the software card",
            ("hls", "gen/compile.py", "host/xclbin.py"),
            [PROGRAM[0], *(f"src/{name}" for name in SOURCES)],
            (CARD, CONTAINER_NAME),
            lambda folder, scratch: _compile(folder, settings, scratch),
            {"compiler": compiler_identity(find_compiler()), "untimed": settings.untimed},
        ),
    ]


def run_build(
    model: Model, build: Path, settings: Settings, say: Callable[[str], None] = print
) -> list[str]:
    """Bring a build folder up to date; returns the names of the stages that ran.

    Raises:
        UserError: bad input, a missing compiler, a full disk.
    """
    made = stages(model, build, settings)
    ran = run_stages(made, build, say)
    identity = read_json(build / MODEL)
    manifest = {
        "format": FORMAT,
        "files": output_hashes(build, [name for stage in made for name in stage.outputs]),
        "model": {"path": os.path.relpath(model.path, build), "unet": identity["unet"]},
    }
    write_json(build / MANIFEST, manifest)
    return ran


def _trace(model: Model, build: Path, settings: Settings, scratch: Path) -> None:
    unet = load_unet(model, scratch)
    size = unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    height, width = settings.height or height, settings.width or width
    traced = trace_unet(
        unet,
        batch=settings.batch or model.batch,
        height=height,
        width=width,
        tokens=prompt_tokens(model, settings.tokens),
    )
    graph, host = fuse(traced)
    layergraph_io.save(graph, scratch)
    host.save(scratch)
    write_json(scratch / MODEL, {**model.description(), "unet": unet_identity(unet)})


def _quantise(folder: Path, settings: Settings, scratch: Path) -> None:
    graph = layergraph_io.load(folder)
    statistics = Statistics.load(folder / STATISTICS)
    if settings.quantise.replays:
        statistics.replay = load_runs(folder / CALIBRATION)[:MAX_REPLAY]
    save_qgraph(quantise(graph, statistics, settings.quantise), scratch)


def _program(folder: Path, settings: Settings, scratch: Path) -> None:
    qgraph = load_qgraph(folder)
    program, planned = fitted(qgraph, settings.board, settings.sampler)
    if planned:
        engine = program.engine
        print(
            f"the model needs another engine than {settings.board}'s own; planned: window "
            f"{engine.window_rows} rows, store {engine.store_rows} rows, "
            f"{engine.cache_rows} weight rows on the card"
        )
    verify_program(program)
    save_program(program, scratch / PROGRAM[0])
    (scratch / PROGRAM[1]).write_bytes(pack_static(qgraph, program))


def _emit(folder: Path, scratch: Path) -> None:
    emit_sources(load_program(folder / PROGRAM[0]), scratch / "src")


def _compile(folder: Path, settings: Settings, scratch: Path) -> None:
    sources = [folder / "src" / name for name in SOURCES]
    compile_library(sources, scratch / CARD, defines=UNTIMED if settings.untimed else None)
    for name in PROGRAM[:1]:
        os.link(folder / name, scratch / name)
    program = load_program(folder / PROGRAM[0])
    units = engine_units(program.ranks, bool(program.moves), program.has_sampler)
    write_container(scratch, units=units, mems=board_mems(program.ranks))
