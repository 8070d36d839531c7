"""What the Vitis flow needs to know of a board, from ``gen/boards/NAME.toml``."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen.errors import UserError

BOARDS = Path(__file__).resolve().parent.parent / "boards"


@dataclass(frozen=True)
class Rank:
    """Place of one engine: its SLR and the memory (a tag, or a range of tags) of its ports."""

    slr: int
    memory: str


@dataclass(frozen=True)
class Tools:
    """Vitis versions: known to fit, warned against (with the reason), first without the card."""

    known: tuple[str, ...]
    warned: dict[str, str]
    dropped: str | None


@dataclass(frozen=True)
class Vivado:
    """Implementation strategy, alternatives, and run properties of a hardware link."""

    strategy: str
    other_strategies: tuple[str, ...]
    properties: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """A board. Clocks in MHz, resources per SLR, ``memory_slr[i]`` the SLR of bank i,
    ``link_wires`` wires that may cross from one SLR to the next.
    """

    name: str
    part: str
    platform: str
    other_platforms: tuple[str, ...]
    target_mhz: int
    fallback_mhz: tuple[int, ...]
    slrs: int
    resources: dict[str, int]
    link_wires: int
    memory_kind: str
    memory_slr: tuple[int, ...]
    max_masters: int
    ranks: tuple[Rank, ...]
    tools: Tools
    vivado: Vivado

    @property
    def clocks_mhz(self) -> tuple[int, ...]:
        """Target clock, then those to fall back to, fastest first."""
        return (self.target_mhz, *self.fallback_mhz)

    @property
    def memories(self) -> tuple[str, ...]:
        """Tag of every bank."""
        return tuple(f"{self.memory_kind}[{bank}]" for bank in range(len(self.memory_slr)))

    @property
    def platforms(self) -> tuple[str, ...]:
        """Platforms the board is known by, the default first."""
        return (self.platform, *self.other_platforms)


def board_names() -> list[str]:
    """Boards that have a data file."""
    return sorted(path.stem for path in BOARDS.glob("*.toml"))


def read_toml(path: Path) -> dict[str, Any]:
    """Contents of a TOML file.

    Raises:
        UserError: not TOML.
    """
    return parse_toml(path.read_text(), path)


def parse_toml(text: str, path: Path) -> dict[str, Any]:
    """Contents of the text of a TOML file.

    Raises:
        UserError: not TOML.
    """
    parser = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        value: dict[str, Any] = parser.loads(text)
    except parser.TOMLDecodeError as error:
        raise UserError(f"{path} is not a TOML file ({error}); repair it") from error
    return value


def load_board(name: str, folder: Path = BOARDS) -> Board:
    """Read a board's data.

    Raises:
        UserError: no such board, or its file lacks a field.
    """
    path = folder / f"{name}.toml"
    if not path.is_file():
        raise UserError(f"{name} is not a known board; choose one of {', '.join(board_names())}")
    data = read_toml(path)
    try:
        return Board(
            name=data["name"],
            part=data["part"],
            platform=data["platform"],
            other_platforms=tuple(data["other_platforms"]),
            target_mhz=data["clock"]["target_mhz"],
            fallback_mhz=tuple(data["clock"]["fallback_mhz"]),
            slrs=data["slr"]["count"],
            resources={key: value for key, value in data["slr"].items() if key != "count"},
            link_wires=data["headroom"]["link_wires"],
            memory_kind=data["memory"]["kind"],
            memory_slr=tuple(data["memory"]["slr"]),
            max_masters=data["memory"]["max_masters"],
            ranks=tuple(Rank(rank["slr"], rank["memory"]) for rank in data["rank"]),
            tools=Tools(
                tuple(data["tools"]["known"]),
                dict(data["tools"]["warned"]),
                data["tools"].get("dropped"),
            ),
            vivado=Vivado(
                data["vivado"]["strategy"],
                tuple(data["vivado"]["other_strategies"]),
                tuple(data["vivado"]["properties"]),
            ),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} lacks the field {error}; add it as in u250.toml") from error
