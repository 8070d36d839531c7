"""``program.json``: the layer program as a file that a person can read.

One line per entry and kernel; member names are those of program.hpp.
"""

from __future__ import annotations

import json
import types
import typing
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from gen.errors import UserError
from gen.program.engine import Engine
from gen.program.layout import Stored
from gen.program.program import Entry, HostWeight, Program, StepAffine, StepBias
from gen.program.structs import Move, Segment, Updates

FORMAT = 11
_LISTS = {
    "segments": Segment,
    "entries": Entry,
    "step_biases": StepBias,
    "step_affines": StepAffine,
    "host_weights": HostWeight,
    "moves": Move,
}
_PLAIN = (
    "batch",
    "input",
    "output",
    "static_words",
    "dynamic_words",
    "store_peak",
    "store_bound",
    "stats_peak",
    "rows_peak",
    "static_rows",
    "cache_used",
    "stats",
    "row_stats",
    "spilled",
    "spill_rows",
)


def _line(value: object) -> str:
    return json.dumps(value, separators=(", ", ": "))


def program_text(program: Program) -> str:
    """The text of ``program.json``."""
    lines = ["{", f' "format": {FORMAT},', f' "engine": {_line(asdict(program.engine))},']
    lines.append(f' "updates": {_line(asdict(program.updates))},')
    for name in _PLAIN:
        lines.append(f' "{name}": {_line(getattr(program, name))},')
    lines.append(' "tensors": {')
    rows = [f"  {_line(name)}: {_line(asdict(each))}" for name, each in program.tensors.items()]
    lines += [",\n".join(rows), " },"]
    for name in ("segments", "step_biases", "step_affines", "host_weights", "moves"):
        rows = [f"  {_line(asdict(each))}" for each in getattr(program, name)]
        lines += [f' "{name}": [', ",\n".join(rows), " ],"]
    blocks = []
    for entry in program.entries:
        members = [f'   "{key}": {_line(value)}' for key, value in asdict(entry).items()]
        blocks.append("  {\n" + ",\n".join(members) + "\n  }")
    lines += [' "entries": [', ",\n".join(blocks), " ]", "}"]
    return "\n".join(lines) + "\n"


def save_program(program: Program, path: Path) -> None:
    """Write ``program.json``."""
    path.write_text(program_text(program))


def load_program(path: Path) -> Program:
    """Read ``program.json``.

    Raises:
        UserError: missing, not JSON, another format, or members that do not fit.
    """
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); build the model again"
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); build the model again") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"{path} has another format than {FORMAT}; build the model again")
    try:
        members: dict[str, Any] = {name: values[name] for name in _PLAIN}
        for name, kind in _LISTS.items():
            members[name] = [_made(kind, each) for each in values[name]]
        tensors = {name: _made(Stored, each) for name, each in values["tensors"].items()}
        members["updates"] = _made(Updates, values["updates"])
        return Program(engine=_made(Engine, values["engine"]), tensors=tensors, **members)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is incomplete ({error}); build the model again") from error


def _made(kind: Any, value: Any) -> Any:
    """Value of a type annotation out of plain JSON."""
    if is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        known = {member.name for member in fields(kind)}
        if set(value) != known:
            raise TypeError(f"members {sorted(set(value) ^ known)} of {kind.__name__}")
        return kind(**{name: _made(hints[name], each) for name, each in value.items()})
    origin = typing.get_origin(kind)
    if origin is tuple:
        inner = typing.get_args(kind)[0]
        return tuple(_made(inner, each) for each in value)
    if origin is dict:
        return {str(name): _made(typing.get_args(kind)[1], each) for name, each in value.items()}
    if origin in (typing.Union, types.UnionType):
        return value
    if not isinstance(value, int if kind is float else kind) and not isinstance(value, kind):
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value
