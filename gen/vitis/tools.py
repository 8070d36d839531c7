"""Finding the tools of Vitis and XRT, and running them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gen.errors import UserError
from gen.vitis.board import Tools

_VERSION = re.compile(r"v?(?P<version>20\d\d\.\d)")
SOURCE_VITIS = "source <Vitis>/settings64.sh"
SOURCE_XRT = "source /opt/xilinx/xrt/setup.sh"
# vitis-run --tcl and open_component take over here
UNIFIED_FROM = (2024, 2)
PROBE_SECONDS = 60


@dataclass(frozen=True)
class Result:
    """End of a tool run: its status and everything it printed."""

    status: int
    text: str


def version_key(version: str) -> tuple[int, int]:
    """A version such as 2023.2, for comparison."""
    year, minor = version.split(".")[:2]
    return int(year), int(minor)


def probe(command: Sequence[str]) -> Result:
    """Run a command that only prints, with a time limit; status 127 if it cannot run."""
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Result(127, str(error))
    return Result(done.returncode, done.stdout + done.stderr)


def run_logged(
    command: Sequence[str], log: Path, folder: Path, extra: dict[str, str] | None = None
) -> Result:
    """Run a tool in ``folder`` with its output in ``log``; the environment gains ``extra``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        done = subprocess.run(
            list(command),
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env={**os.environ, **(extra or {})},
            check=False,
        )
    return Result(done.returncode, log.read_text(errors="replace"))


def need(tool: str, what: str, remedy: str) -> str:
    """Path of a program.

    Raises:
        UserError: it is not on PATH.
    """
    found = shutil.which(tool)
    if found is None:
        raise UserError(f"{tool} was not found, which {what} needs; {remedy}")
    return found


def _version_in(text: str) -> str | None:
    match = _VERSION.search(text)
    return match["version"] if match else None


def vitis_version() -> str | None:
    """Version of the Vitis on PATH, such as 2023.2; None without one that says."""
    for tool in ("v++", "vitis_hls", "vitis-run"):
        path = shutil.which(tool)
        if path is None:
            continue
        flag = "-version" if tool == "vitis_hls" else "--version"
        found = _version_in(probe([path, flag]).text)
        if found is None:
            found = _version_in(str(Path(path).resolve()))
        if found is not None:
            return found
    return _version_in(os.environ.get("XILINX_VITIS", ""))


def version_remark(version: str, tools: Tools) -> tuple[bool, str]:
    """Whether a version is known to fit the board, and a sentence about it."""
    known = f"known to fit are {', '.join(tools.known)}"
    if version in tools.warned:
        return True, f"Vitis {version}: {tools.warned[version]}; another one is safer ({known})"
    if version in tools.known:
        return True, f"Vitis {version} is known to fit"
    if tools.dropped is not None and version_key(version) >= version_key(tools.dropped):
        return False, f"Vitis {version} no longer supports the card; install an older one ({known})"
    return False, f"Vitis {version} has not been tried with this card; {known}"


def hls_command(script: Path, what: str) -> list[str]:
    """Command that runs an HLS Tcl script with the front end of the installed version.

    Raises:
        UserError: neither front end is on PATH.
    """
    unified, classic = shutil.which("vitis-run"), shutil.which("vitis_hls")
    version = vitis_version()
    prefer_unified = version is not None and version_key(version) >= UNIFIED_FROM
    if unified and (prefer_unified or not classic):
        return [unified, "--mode", "hls", "--tcl", str(script)]
    if classic:
        return [classic, "-f", str(script)]
    raise UserError(
        f"neither vitis_hls nor vitis-run was found, which {what} needs; {SOURCE_VITIS}"
    )


def find_platform(name: str) -> Path | None:
    """The ``.xpfm`` of a platform given by its path or bare name."""
    given = Path(name)
    if given.suffix == ".xpfm":
        return given if given.is_file() else None
    roots = [Path(part) for part in os.environ.get("PLATFORM_REPO_PATHS", "").split(":") if part]
    for root in [*roots, Path("/opt/xilinx/platforms")]:
        for candidate in (root / name / f"{name}.xpfm", root / f"{name}.xpfm"):
            if candidate.is_file():
                return candidate
    return None


def need_platform(name: str) -> Path:
    """The ``.xpfm`` of a platform.

    Raises:
        UserError: it is not installed.
    """
    found = find_platform(name)
    if found is None:
        raise UserError(
            f"the platform {name} was not found in PLATFORM_REPO_PATHS or /opt/xilinx/platforms; "
            "install its development package or name another by PLATFORM=..."
        )
    return found
