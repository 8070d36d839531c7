"""Configurations of v++: sections, keys and values with their lines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gen.vitis.board import Board
from gen.vitis.topology import Topology


@dataclass(frozen=True)
class Setting:
    """``key=value`` in a section (empty: at the top), at a line counted from 1."""

    section: str
    key: str
    value: str
    line: int


@dataclass(frozen=True)
class Config:
    """A configuration file; ``broken`` are lines that are no setting."""

    path: Path
    settings: tuple[Setting, ...]
    broken: tuple[tuple[int, str], ...]
    board: Board
    topology: Topology
    compiled_mhz: int | None = None

    def values(self, key: str, section: str | None = None) -> list[Setting]:
        """Settings of a key."""
        return [
            each
            for each in self.settings
            if each.key == key and (section is None or each.section == section)
        ]

    @property
    def is_link(self) -> bool:
        """Whether it configures a link."""
        return any(each.section == "connectivity" for each in self.settings)

    @property
    def is_hls(self) -> bool:
        """Whether it configures Vitis HLS."""
        return bool(self.values("syn.top"))


_LINE = re.compile(r"^(?P<key>[\w.-]+)\s*=\s*(?P<value>.*)$")


def parse_config(
    path: Path, board: Board, topology: Topology, compiled_mhz: int | None = None
) -> Config:
    """Read a configuration file."""
    section = ""
    settings: list[Setting] = []
    broken: list[tuple[int, str]] = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if stripped.startswith("[") and stripped.endswith("]"):
            section = stripped[1:-1]
            continue
        match = _LINE.match(stripped)
        if match:
            settings.append(Setting(section, match["key"], match["value"].strip(), number))
        else:
            broken.append((number, stripped))
    return Config(path, tuple(settings), tuple(broken), board, topology, compiled_mhz)
