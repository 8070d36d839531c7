"""An engine as a TOML file that ``python -m gen build --board FILE`` takes."""

from __future__ import annotations

from dataclasses import fields

from gen.program.engine import Engine


def engine_toml(engine: Engine, model: str, board: str) -> str:
    """Text of the file: engine parameters, FIFO depths, timing and clock (gen.program.engine)."""
    lines = [f"# Engine planned for {model} on {board}.", "[engine]"]
    for member in fields(engine):
        value = getattr(engine, member.name)
        if isinstance(value, int):
            lines.append(f"{member.name} = {value}")
    lines += ["", "[engine.memories]"]
    lines += [f'{name} = "{kind}"' for name, kind in engine.memories.items()]
    lines += ["", "[fifo]", *(f"{name} = {depth}" for name, depth in engine.depths.items())]
    timing = engine.timing
    lines += ["", "[timing]"]
    lines += [
        f"{member.name} = {getattr(timing, member.name)}"
        for member in fields(timing)
        if isinstance(getattr(timing, member.name), int)
    ]
    lines += ["", "[timing.stages]", *(f"{name} = {n}" for name, n in timing.stages.items())]
    lines += ["", "[clock]", f"target_mhz = {engine.clock_mhz:g}", ""]
    return "\n".join(lines)
