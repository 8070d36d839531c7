"""What is installed and what is missing: Vitis, platform, XRT, card, and all of it at once."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gen.vitis.board import Board
from gen.vitis.tools import (
    SOURCE_VITIS,
    SOURCE_XRT,
    find_platform,
    probe,
    version_remark,
    vitis_version,
)


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, whether it is in order, and a sentence.

    A finding that is not good but in ``doubt`` does not stop anything: nobody has tried it yet.
    """

    subject: str
    good: bool
    sentence: str
    doubt: bool = False

    @property
    def label(self) -> str:
        """First word of its line."""
        return "ok" if self.good else "DOUBT" if self.doubt else "MISSING"


def check_vitis(board: Board) -> list[Check]:
    """The compilers, and whether their version is known to fit the board."""
    known = ", ".join(board.tools.known)
    compiler = shutil.which("v++")
    front_end = shutil.which("vitis-run") or shutil.which("vitis_hls")
    found = [
        Check("v++", True, f"v++ is {compiler}")
        if compiler
        else Check("v++", False, f"v++ was not found; install Vitis ({known}) and {SOURCE_VITIS}"),
        Check("HLS", True, f"the HLS front end is {front_end}")
        if front_end
        else Check("HLS", False, f"neither vitis_hls nor vitis-run was found; {SOURCE_VITIS}"),
    ]
    version = vitis_version() if compiler or front_end else None
    if version is not None:
        good, sentence = version_remark(version, board.tools)
        found.append(Check("version", good, sentence, doubt=True))
    elif compiler or front_end:
        sentence = f"Vitis does not say its version; known to fit are {known}"
        found.append(Check("version", False, sentence, doubt=True))
    return found


def check_platform(board: Board, platform: str) -> list[Check]:
    """The platform's files, and whether the platform is known for the board."""
    path = find_platform(platform)
    if path is None:
        sentence = (
            f"the platform {platform} was not found in PLATFORM_REPO_PATHS or "
            "/opt/xilinx/platforms; install its development package"
        )
        return [Check("platform", False, sentence)]
    found = [Check("platform", True, f"the platform is {path}")]
    if path.stem not in board.platforms:
        known = ", ".join(board.platforms)
        sentence = f"{path.stem} is not known for {board.name}; known are {known}"
        found.append(Check("platform", False, sentence, doubt=True))
    return found


def check_xrt() -> list[Check]:
    """The run time: its environment, its tools and its Python binding."""
    root = os.environ.get("XILINX_XRT")
    tool = shutil.which("xrt-smi") or shutil.which("xbutil")
    binding = importlib.util.find_spec("pyxrt")
    util = shutil.which("xclbinutil")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return [
        Check("XRT", True, f"XILINX_XRT is {root}")
        if root and Path(root).is_dir()
        else Check("XRT", False, f"XILINX_XRT is not set; install XRT and {SOURCE_XRT}"),
        Check("XRT tools", True, f"the card tool is {tool}")
        if tool
        else Check("XRT tools", False, f"neither xrt-smi nor xbutil was found; {SOURCE_XRT}"),
        Check("xclbinutil", True, f"xclbinutil is {util}")
        if util
        else Check("xclbinutil", False, f"xclbinutil was not found; {SOURCE_XRT}"),
        Check("pyxrt", True, f"pyxrt is {binding.origin}")
        if binding
        else Check(
            "pyxrt",
            False,
            f"Python {python} does not find pyxrt; {SOURCE_XRT}, and use the Python that XRT "
            "was built for",
        ),
    ]


def check_card(board: Board) -> list[Check]:
    """Cards that the run time sees, and whether their shell is loaded."""
    tool = shutil.which("xrt-smi") or shutil.which("xbutil")
    if tool is None:
        return [Check("card", False, f"no card can be looked for without XRT; {SOURCE_XRT}")]
    shown = probe([tool, "examine"])
    family = f"xilinx_{board.name}"
    lines = [line.strip() for line in shown.text.splitlines() if family in line]
    if shown.status != 0 or not lines:
        sentence = f"{tool} examine shows no {board.name}; check the slot, the driver and lspci"
        return [Check("card", False, sentence)]
    found = []
    for line in lines:
        if "_base" in line:
            sentence = (
                f"the card has no shell ({line}); after every boot run sudo xbmgmt program "
                "-d <BDF> --shell /opt/xilinx/firmware/<card>/.../partition.xsabin"
            )
            found.append(Check("card", False, sentence))
        else:
            found.append(Check("card", True, f"card: {line}"))
    return found


def check_host() -> list[Check]:
    """What builds the software card."""
    compiler = shutil.which("g++")
    return [
        Check("Python", sys.version_info >= (3, 10), f"Python is {sys.version.split()[0]}"),
        Check("g++", True, f"g++ is {compiler}")
        if compiler
        else Check("g++", False, "g++ was not found; install it for the software card"),
    ]


def doctor(board: Board, platform: str) -> list[Check]:
    """Everything, in the order in which one would set it up."""
    parts: list[Callable[[], list[Check]]] = [
        check_host,
        lambda: check_vitis(board),
        lambda: check_platform(board, platform),
        check_xrt,
        lambda: check_card(board),
    ]
    return [check for part in parts for check in part()]
