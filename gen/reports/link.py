"""What a link achieved: logs of ``v++`` and ``vpl``, and ``xclbinutil --info``.

A design that misses timing is not an error for clocks that XRT can scale: the tool lowers the
clock and writes it into the xclbin. Only what is read back here may turn cycles into time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gen.errors import UserError
from gen.reports.text import read_text

_SCALED = re.compile(
    r"failed timing targeting\s+(?P<asked>[\d.]+)\s*MHz.*?"
    r"automatically changed to\s+(?P<got>[\d.]+)\s*MHz",
    re.IGNORECASE,
)
_SLACK = re.compile(r"\bWNS\s*=\s*(?P<wns>-?[\d.]+)")
_ERROR = re.compile(r"^\s*ERROR:\s*(?P<text>.+)$", re.MULTILINE)
_UNMET = re.compile(r"did not meet timing|timing constraints? (?:are|were) not met", re.IGNORECASE)


@dataclass(frozen=True)
class LinkLog:
    """Clocks in MHz, slack in ns; None or empty where the log does not say."""

    asked_mhz: float | None
    scaled_mhz: float | None
    worst_slack_ns: float | None
    timing_failed: bool
    errors: tuple[str, ...]


@dataclass(frozen=True)
class Clock:
    """A clock of an xclbin: its name, kind (DATA, KERNEL, SYSTEM) and frequency in MHz."""

    name: str
    kind: str
    mhz: float


@dataclass(frozen=True)
class XclbinInfo:
    """What ``xclbinutil --info`` prints of an xclbin."""

    uuid: str | None
    platform: str | None
    clocks: tuple[Clock, ...]
    kernels: tuple[str, ...]

    @property
    def kernel_mhz(self) -> float | None:
        """Clock of the kernels (``ap_clk``): the scalable one of kind DATA."""
        return next((clock.mhz for clock in self.clocks if clock.kind == "DATA"), None)


def parse_link_log(text: str) -> LinkLog:
    """Figures and errors of a log; the last of repeated ones counts."""
    scaled = list(_SCALED.finditer(text))
    slack = _SLACK.findall(text)
    worst = float(slack[-1]) if slack else None
    return LinkLog(
        asked_mhz=float(scaled[-1]["asked"]) if scaled else None,
        scaled_mhz=float(scaled[-1]["got"]) if scaled else None,
        worst_slack_ns=worst,
        timing_failed=bool(scaled) or bool(_UNMET.search(text)),
        errors=tuple(dict.fromkeys(match["text"].strip() for match in _ERROR.finditer(text))),
    )


def read_link_logs(paths: Iterable[Path]) -> LinkLog:
    """All logs of one link together.

    Raises:
        UserError: one of them cannot be read.
    """
    return parse_link_log("\n".join(read_text(path, "the link log") for path in paths))


def _value(line: str) -> str:
    return line.split(":", 1)[1].strip()


def parse_info(text: str) -> XclbinInfo:
    """Read the text of ``xclbinutil --info``.

    Raises:
        UserError: it is not such a text.
    """
    uuid = platform = None
    kernels: list[str] = []
    clocks: list[Clock] = []
    name = kind = ""
    for line in text.splitlines():
        entry = line.strip()
        if entry.startswith("UUID (xclbin):"):
            uuid = _value(entry)
        elif entry.startswith(("Platform VBNV:", "Vbnv:")):
            platform = _value(entry)
        elif entry.startswith("Kernels:"):
            kernels = [part.strip() for part in _value(entry).split(",") if part.strip()]
        elif entry.startswith("Name:"):
            name, kind = _value(entry), ""
        elif entry.startswith("Type:"):
            kind = _value(entry)
        elif entry.startswith("Frequency:") and name:
            match = re.match(r"[\d.]+", _value(entry))
            if match:
                clocks.append(Clock(name, kind, float(match[0])))
            name = ""
    if uuid is None and not clocks:
        raise UserError("xclbinutil --info printed neither a UUID nor clocks; check the xclbin")
    return XclbinInfo(uuid, platform, tuple(clocks), tuple(kernels))


def read_info(path: Path) -> XclbinInfo:
    """Read a saved text of ``xclbinutil --info``.

    Raises:
        UserError: it cannot be read or is not such a text.
    """
    return parse_info(read_text(path, "the xclbin's description"))
