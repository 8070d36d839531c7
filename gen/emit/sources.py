"""``src/``: one header of constants per kernel, one translation unit per kernel, the card."""

from __future__ import annotations

import hashlib
from pathlib import Path

import jinja2

from gen.emit.rom import engine_constants, entry_rows, segment_rows
from gen.program.binary import KERNELS, program_bytes
from gen.program.program import Program
from gen.program.sampler import buffer_words
from gen.program.structs import initialiser

TEMPLATES = Path(__file__).resolve().parent.parent / "templates" / "card"
# translation units of the software card; the kernels' own are for Vitis
SOURCES = ("card.cpp",)


# kernels that differ from rank to rank
LINE_KERNELS = ("gather", "reduce")


def kernel_tops(ranks: int) -> list[tuple[str, str, int | None]]:
    """(name of the top, kernel, rank or None if all ranks have the same one) of every kernel."""
    tops: list[tuple[str, str, int | None]] = []
    for kernel in KERNELS:
        if kernel in LINE_KERNELS:
            tops += [(f"{kernel}_{rank + 1}", kernel, rank) for rank in range(ranks)]
        else:
            tops.append((kernel, kernel, None))
    return tops


def line_ports(rank: int, ranks: int) -> list[tuple[str, int]]:
    """Ports of gather and reduce towards the neighbours of a rank, and of how many ranks each
    carries elements (docs/engine.md, table of streams).
    """
    left, right = rank > 0, rank < ranks - 1
    ports = [
        ("from_left_s", rank, left),
        ("from_right_s", ranks - 1 - rank, right),
        ("to_left_s", ranks - rank, left),
        ("to_right_s", rank + 1, right),
    ]
    return [(name, count) for name, count, exists in ports if exists]


def emit_sources(program: Program, folder: Path) -> list[Path]:
    """Write every generated source below ``folder`` and return their paths.

    engine.hpp and program_rom.hpp hold constants shared by all kernels, NAME_rom.hpp a kernel's
    entries, NAME.cpp its top (gather and reduce: NAME_1.cpp of rank 0, ...), card.cpp the software
    card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "engine.hpp": _render("engine.hpp.j2", constants=engine_constants(program.engine)),
        "program_rom.hpp": _render(
            "program_rom.hpp.j2",
            segments=segment_rows(program),
            io=initialiser(program.io),
            updates=initialiser(program.updates),
        ),
        "card.cpp": _render(
            "card.cpp.j2",
            entries=len(program.entries),
            kernels=KERNELS,
            moves=bool(program.moves),
            identity=hashlib.sha256(program_bytes(program)).hexdigest(),
        ),
    }
    for kernel in KERNELS:
        texts[f"{kernel}_rom.hpp"] = _render(
            "kernel_rom.hpp.j2",
            kernel=kernel,
            entries=entry_rows(program, kernel),
            moves=[initialiser(move) for move in program.moves] if kernel == "store" else [],
        )
    for name, kernel, rank in kernel_tops(program.ranks):
        values: dict[str, object] = {
            "program": program,
            "several": program.updates.octets > 0,
            "depths": buffer_words(program),
        }
        if rank is not None:
            values = {
                "name": name,
                "rank": rank,
                "ranks": program.ranks,
                "place": _place(rank, program.ranks),
                "links": line_ports(rank, program.ranks),
            }
        texts[f"{name}.cpp"] = _render(f"{kernel}.cpp.j2", **values)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]


def _place(rank: int, ranks: int) -> str:
    """Which function template the kernel of a rank is made of, with its arguments."""
    if ranks == 1:
        return "only<Engine>"
    if rank == 0:
        return "first<Engine>"
    return "last<Engine>" if rank == ranks - 1 else f"middle<Engine, {rank}>"


def _render(template: str, **values: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - the output is C++
    )
    return environment.get_template(template).render(**values)
