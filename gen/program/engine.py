"""Engine parameters: the template arguments of the kernels and the timing of the model."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gen.errors import UserError

BOARDS = Path(__file__).resolve().parent.parent / "boards"

# Elements of every FIFO: between two kernels, then inside ``pre``.
DEPTHS = {
    "xs": 64,
    "px": 64,
    "ks": 2048,
    "ws": 128,
    "as": 32,
    "rs": 128,
    "ys": 128,
    "st": 32,
    "ss": 256,
    "pp": 64,
    "qp": 64,
    "rows": 256,
    "params": 64,
    "row_sums": 128,
    "group_sums": 16,
    "scales": 128,
    "eps": 4,
}


@dataclass(frozen=True)
class Timing:
    """Pipeline timing in clock cycles, for the simulation and the cost model."""

    pipeline_depth: int = 8
    loop_entry: int = 1
    loop_exit: int = 1
    fifo_latency: int = 1
    kernel_start: int = 20


@dataclass(frozen=True)
class Engine:
    """Parallelism and buffer sizes (docs/engine.md, "Engine parameters"; params.hpp).

    ``pixels`` x ``inputs`` x ``outputs`` multiply-accumulates per cycle. ``window_rows`` per
    bank, ``weight_rows`` per buffer half, ``store_rows`` of 64 bytes, ``stats_channels``
    pairs of sums, ``row_words`` 64-channel blocks of one pixel, ``sums`` softmax row sums,
    ``items`` of a batch, ``scale_words`` items x blocks of a group-normalised layer, ``lag`` tiles
    between the store's reads and its writes, ``guard`` cycles from a write to the window or weight
    buffer to the first read of the same word, ``depths`` of the FIFOs in elements.
    """

    pixels: int = 32
    inputs: int = 16
    outputs: int = 8
    window_rows: int = 512
    weight_rows: int = 1024
    store_rows: int = 32768
    stats_channels: int = 4096
    row_words: int = 64
    sums: int = 1024
    items: int = 8
    scale_words: int = 128
    lag: int = 8
    guard: int = 4
    depths: dict[str, int] = field(default_factory=lambda: dict(DEPTHS))
    clock_mhz: float = 222.0
    timing: Timing = field(default_factory=Timing)


def load_engine(board: str | Path = "u250") -> Engine:
    """The engine of a board file: a name below gen/boards, or the path of a TOML file.

    Raises:
        UserError: no such board, not TOML, or an unknown key.
    """
    path = Path(board)
    if path.suffix != ".toml":
        path = BOARDS / f"{board}.toml"
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        values = toml.loads(path.read_text())
    except OSError as error:
        known = ", ".join(sorted(p.stem for p in BOARDS.glob("*.toml")))
        raise UserError(f"board {board} was not found; the known boards are {known}") from error
    except toml.TOMLDecodeError as error:
        raise UserError(f"{path} is not a TOML file ({error})") from error
    return engine_from(values, str(path))


def engine_from(values: dict[str, Any], where: str) -> Engine:
    """Engine from the tables ``engine``, ``fifo``, ``timing`` and ``clock`` of a board file.

    Raises:
        UserError: an unknown key.
    """
    made: dict[str, Any] = dict(values.get("engine", {}))
    timing = dict(values.get("timing", {}))
    timing.pop("start_us", None)
    if "target_mhz" in values.get("clock", {}):
        made["clock_mhz"] = float(values["clock"]["target_mhz"])
    fifos = dict(values.get("fifo", {}))
    made["depths"] = {**DEPTHS, **fifos}
    known = {
        "engine": (made, {member.name for member in fields(Engine)}),
        "timing": (timing, {member.name for member in fields(Timing)}),
        "fifo": (fifos, set(DEPTHS)),
    }
    for given, allowed in known.values():
        unknown = set(given) - allowed
        if unknown:
            raise UserError(f"{where}: unknown key {sorted(unknown)[0]}; see gen/boards/u250.toml")
    return Engine(**{**made, "timing": Timing(**timing)})
