"""Engine parameters: the template arguments of the kernels and the timing of the model."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from gen.errors import UserError

BOARDS = Path(__file__).resolve().parent.parent / "boards"

# Elements of every FIFO: between two kernels, from rank to rank, inside pre, gather and reduce.
DEPTHS = {
    "xs": 64,
    "px": 16,
    "gs": 64,
    "ks": 16,
    "ws": 64,
    "as": 32,
    "bs": 32,
    "rs": 192,
    "ys": 192,
    "st": 16,
    "sg": 64,
    "ss": 256,
    "hd": 4,
    "pp": 384,
    "qp": 320,
    "link": 16,
    "sm": 16,
    "sc": 64,
    "rk": 16,
    "mk": 16,
    "rw": 128,
    "copy": 16,
}

# Kind of memory of every big buffer (docs/engine.md): uram or bram.
MEMORIES = {"store": "uram", "window": "uram", "weights": "uram", "cache": "uram"}

# units of a round that an engine is given room for, at most
MAX_UNITS = 64

# Values of an engine that the kernels are written for (CheckEngine of hls/kernels/params.hpp).
POSSIBLE: dict[str, Sequence[int]] = {
    "pixels": (32, 64, 128),
    "inputs": (16,),
    "outputs": (8,),
    "fabric_outputs": range(9),
    "normalisers": (1, 2, 4, 8),
    "joined_units": range(2, 256),
    "sampler_channels": range(1, 9),
    "lag": range(2, 1024),
}
# Members that may be 0; others have at least one row, word or cycle. None has more than MOST.
NONE_IS_FINE = ("cache_rows", "scores_rows", "sampler_pixels")
MOST = 1 << 24

SAMPLER_BRAM = 2048  # values of the sampler's state that block RAM holds

# Pipeline stages of every kernel, in cycles; "link" stands for gather and reduce,
# "scale" and "rows" for these processes of pre.
STAGES = {"store": 8, "wload": 8, "pre": 8, "scale": 24, "rows": 4, "link": 2, "mac": 8, "post": 8}


@dataclass(frozen=True)
class Timing:
    """Pipeline timing in clock cycles, for the simulation and the cost model."""

    loop_entry: int = 1
    loop_exit: int = 1
    fifo_latency: int = 1
    kernel_start: int = 20
    stages: dict[str, int] = field(default_factory=lambda: dict(STAGES))


@dataclass(frozen=True)
class Engine:
    """Parallelism and buffer sizes, of each rank (docs/engine.md, "Engine parameters").

    ``ranks`` engines of ``pixels`` x ``inputs`` x ``outputs`` multiply-accumulates per cycle, of
    which ``fabric_outputs`` outputs are made of LUTs. The array takes weight rows of 8 outputs x
    16 inputs of ``weight_bits`` bits (8 or 4); weights of 4 bits are stored in rows of
    ``stored_bits`` (as many, or 4, which are widened on their way). ``window_rows`` of 16 bytes per
    bank, ``weight_rows`` per buffer half, ``units`` of a round, ``joined_units`` of
    one of joined products, ``cache_rows`` weight rows of
    ``stored_bits`` that stay on the card, ``store_rows`` of 128 bytes, ``stats_words`` sums of 8
    channels of an item, ``row_octets`` octets with row statistics, ``row_groups`` local groups of
    one pixel, ``sums`` pixel slots of a softmax layer's fill, ``normalisers`` norm groups or rows
    whose scales a cycle makes, ``items`` of a batch, ``scales`` items x norm
    groups, ``lag`` micro-slots between the store's reads and its writes, ``guard`` cycles from a
    write to the window or weight buffer to the first read of the same word, ``depths`` of the
    FIFOs in elements, ``memories`` the kind of memory (uram, bram) of the big buffers.
    ``scores_rows`` of the store may hold attention logits; 0: half of the rows
    that are free. ``sampler_pixels`` slots of ``sampler_channels`` latent channels are updated
    between the steps of a start; 0: no sampler, every start is one step.
    """

    ranks: int = 1
    pixels: int = 32
    inputs: int = 16
    outputs: int = 8
    weight_bits: int = 8
    stored_bits: int = 8
    fabric_outputs: int = 0
    window_rows: int = 4096
    weight_rows: int = 2048
    units: int = 64
    joined_units: int = 160
    cache_rows: int = 0
    store_rows: int = 16384
    stats_words: int = 1024
    row_octets: int = 1024
    row_groups: int = 320
    sums: int = 1024
    normalisers: int = 4
    items: int = 8
    scales: int = 256
    lag: int = 32
    guard: int = 4
    scores_rows: int = 0
    sampler_pixels: int = 0
    sampler_channels: int = 4
    depths: dict[str, int] = field(default_factory=lambda: dict(DEPTHS))
    memories: dict[str, str] = field(default_factory=lambda: dict(MEMORIES))
    clock_mhz: float = 222.0
    timing: Timing = field(default_factory=Timing)

    def row_words(self, bits: int) -> int:
        """64-byte words of a stored weight row of weights of ``bits``; 8 bits in an array of 4 take
        two rows.
        """
        return (self.stored_bits if bits == 4 else self.weight_bits) // 4

    @property
    def kept_words(self) -> int:
        """64-byte words of a row of the cache; rows of more words are not kept."""
        return self.stored_bits // 4

    @property
    def byte_rows(self) -> int:
        """Weight rows of a step whose weights have 8 bits."""
        return 8 // self.weight_bits

    @property
    def sampler_memory(self) -> str:
        """Kind of memory of the sampler's state: block RAM as long as a few do."""
        return "bram" if self.sampler_pixels * self.sampler_channels <= SAMPLER_BRAM else "uram"

    @property
    def tile_octets(self) -> int:
        """Octets of a tile."""
        return self.pixels // 8

    def unit_cycles(self, steps: int) -> int:
        """Cycles of a unit of ``steps`` in the array: the accumulators of the one before leave
        meanwhile, two words a cycle.
        """
        return max(steps, self.tile_octets // 2)


def widening(engine: Engine) -> Engine:
    """The engine of an array of 8-bit weights that stores those of 4 bits as such: its cache holds
    twice as many rows.
    """
    return replace(engine, stored_bits=4, cache_rows=engine.cache_rows * engine.kept_words)


def narrowed(engine: Engine) -> Engine:
    """The engine of an array of 4-bit weights: its memories hold twice as many weight rows."""
    return replace(
        widening(engine), weight_bits=4, weight_rows=engine.weight_rows * engine.weight_bits // 4
    )


def four_bit_kinds(engine: Engine) -> tuple[Engine, Engine]:
    """The two kinds of engine for weights of 4 bits (docs/plan.md, "W4A8")."""
    return widening(engine), narrowed(engine)


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
        values = toml.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8; see gen/boards/u250.toml") from error
    except (PermissionError, IsADirectoryError) as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a TOML file") from error
    except OSError as error:
        known = ", ".join(sorted(p.stem for p in BOARDS.glob("*.toml")))
        raise UserError(f"board {board} was not found; the known boards are {known}") from error
    except toml.TOMLDecodeError as error:
        raise UserError(f"{path} is not a TOML file ({error})") from error
    return engine_from(values, str(path))


def engine_from(values: dict[str, Any], where: str) -> Engine:
    """Engine from the tables ``engine``, ``fifo``, ``timing`` and ``clock`` of a board file.

    Raises:
        UserError: an unknown key, a value of the wrong kind, or a number of ranks that no card can
            have.
    """
    _check_tables(values, where)
    made: dict[str, Any] = dict(values.get("engine", {}))
    timing = dict(values.get("timing", {}))
    stages = dict(timing.pop("stages", {}))
    if "target_mhz" in values.get("clock", {}):
        made["clock_mhz"] = _clock(values["clock"]["target_mhz"], where)
    fifos = dict(values.get("fifo", {}))
    made["depths"] = {**DEPTHS, **fifos}
    memories = dict(made.get("memories", {}))
    made["memories"] = {**MEMORIES, **memories}
    known = {
        "engine": (made, {member.name for member in fields(Engine)}),
        "timing": (timing, {member.name for member in fields(Timing)}),
        "timing.stages": (stages, set(STAGES)),
        "fifo": (fifos, set(DEPTHS)),
        "engine.memories": (memories, set(MEMORIES)),
    }
    for table, (given, allowed) in known.items():
        unknown = set(given) - allowed
        if unknown:
            raise UserError(
                f"{where}: unknown key {sorted(unknown)[0]} in [{table}]; see gen/boards/u250.toml"
            )
    numbers = {member.name for member in fields(Engine) if isinstance(member.default, int)}
    for table, given, least in (
        ("engine", {name: made[name] for name in made if name in numbers}, 0),
        ("timing", timing, 0),
        ("timing.stages", stages, 0),
        ("fifo", fifos, 1),
    ):
        for name, value in given.items():
            if type(value) is not int or value < least:
                raise UserError(
                    f"{where}: {name} = {value!r} in [{table}]; a whole number of at least {least} "
                    "is needed"
                )
    _check_values({name: made[name] for name in made if name in numbers}, where)
    if made.get("ranks", 1) not in (1, 2, 4):
        raise UserError(f"{where}: ranks = {made['ranks']} in [engine]; 1, 2 or 4 are possible")
    bits = made.get("weight_bits", 8)
    if bits not in (4, 8):
        raise UserError(f"{where}: weight_bits = {bits} in [engine]; 8 or 4 are possible")
    if made.setdefault("stored_bits", bits) not in (4, bits):
        possible = "8 or 4 are" if bits == 8 else "with weight_bits = 4 only 4 is"
        raise UserError(
            f"{where}: stored_bits = {made['stored_bits']} in [engine]; {possible} possible"
        )
    if not 1 <= made.get("units", 64) <= MAX_UNITS:
        raise UserError(
            f"{where}: units = {made['units']} in [engine]; 1 to {MAX_UNITS} are possible"
        )
    for name, kind in made["memories"].items():
        if kind not in ("uram", "bram"):
            raise UserError(f"{where}: [engine.memories] {name} = {kind}; choose uram or bram")
    engine = Engine(**{**made, "timing": Timing(**timing, stages={**STAGES, **stages})})
    _check_depths(engine, where)
    return engine


def _check_depths(engine: Engine, where: str) -> None:
    """Refuse FIFOs that hold less than the kernels count on (CheckEngine of params.hpp)."""
    lagging = (engine.lag + 1) * engine.tile_octets
    parameters = engine.units * (1 + math.ceil(engine.items / 2))
    for name, need, members in (
        ("ys", lagging, "lag and pixels"),
        ("rs", lagging, "lag and pixels"),
        ("qp", parameters, "units and items"),
        ("qp", 2 * engine.joined_units, "joined_units"),
    ):
        if engine.depths[name] < need:
            raise UserError(
                f"{where}: {name} = {engine.depths[name]} in [fifo]; at least {need} are needed "
                f"for {members} of [engine]"
            )


def _check_values(engine: dict[str, int], where: str) -> None:
    """Refuse whole numbers that no engine can have."""
    for name, value in engine.items():
        choices = POSSIBLE.get(name)
        if choices is not None and value not in choices:
            text = f"{choices[0]} to {choices[-1]}" if isinstance(choices, range) else ""
            text = text or ", ".join(map(str, choices))
            raise UserError(f"{where}: {name} = {value} in [engine]; possible: {text}")
        if choices is None and not (0 if name in NONE_IS_FINE else 1) <= value <= MOST:
            raise UserError(
                f"{where}: {name} = {value} in [engine]; a number from "
                f"{0 if name in NONE_IS_FINE else 1} to {MOST} is needed"
            )


def _check_tables(values: dict[str, Any], where: str) -> None:
    """Refuse a number or text where a table belongs."""
    engine, timing = values.get("engine", {}), values.get("timing", {})
    tables = {name: values.get(name, {}) for name in ("engine", "fifo", "timing", "clock")}
    if isinstance(engine, dict):
        tables["engine.memories"] = engine.get("memories", {})
    if isinstance(timing, dict):
        tables["timing.stages"] = timing.get("stages", {})
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UserError(f"{where}: {name} is no table; see gen/boards/u250.toml")


def _clock(value: Any, where: str) -> float:
    """A clock in MHz."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UserError(f"{where}: target_mhz = {value!r} in [clock]; MHz above 0 are needed")
    return float(value)
