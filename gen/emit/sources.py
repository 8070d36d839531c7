"""``src/``: one header of constants per kernel, one translation unit per kernel, the card."""

from __future__ import annotations

import hashlib
from pathlib import Path

import jinja2

from gen.emit.rom import engine_constants, entry_rows, segment_rows
from gen.program.binary import KERNELS, program_bytes
from gen.program.program import Program
from gen.program.structs import initialiser

TEMPLATES = Path(__file__).resolve().parent.parent / "templates" / "card"
# translation units of the software card; the kernels' own are for Vitis
SOURCES = ("card.cpp",)


def emit_sources(program: Program, folder: Path) -> list[Path]:
    """Write every generated source below ``folder`` and return their paths.

    engine.hpp and program_rom.hpp hold constants shared by all kernels, NAME_rom.hpp a kernel's
    entries, NAME.cpp its top, card.cpp the software card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "engine.hpp": _render("engine.hpp.j2", constants=engine_constants(program.engine)),
        "program_rom.hpp": _render(
            "program_rom.hpp.j2", segments=segment_rows(program), io=initialiser(program.io)
        ),
        "card.cpp": _render(
            "card.cpp.j2",
            entries=len(program.entries),
            identity=hashlib.sha256(program_bytes(program)).hexdigest(),
        ),
    }
    for kernel in KERNELS:
        texts[f"{kernel}_rom.hpp"] = _render(
            "kernel_rom.hpp.j2", kernel=kernel, entries=entry_rows(program, kernel)
        )
        texts[f"{kernel}.cpp"] = _render(f"{kernel}.cpp.j2", program=program)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]


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
