"""FIFO depths of the links: the very numbers that the simulation of the engine runs with.

They are the constants ``DEPTH_XS = 64`` of the kernels' engine parameters: the defaults of
``hls/kernels/params.hpp``, and what the generated headers of a build put over them.
"""

from __future__ import annotations

import re
from pathlib import Path

from gen.errors import UserError
from gen.stages import ROOT
from gen.vitis.topology import Topology

DEFAULTS = ROOT / "hls" / "kernels" / "params.hpp"
_DEPTH = re.compile(r"\bDEPTH_(?P<stream>\w+)\s*=\s*(?P<depth>\d+)\s*;")


def read_depths(topology: Topology, build: Path, defaults: Path = DEFAULTS) -> dict[str, int]:
    """Elements of the FIFO of every stream of a build; ``link``: of those from rank to rank.

    Raises:
        UserError: a stream has no depth anywhere.
    """
    found: dict[str, int] = {}
    headers = sorted((build / "src").glob("*.hpp")) + sorted((build / "src").glob("*.h"))
    for path in [defaults, *headers]:
        if path.is_file():
            for match in _DEPTH.finditer(path.read_text(errors="replace")):
                found[match["stream"].lower()] = int(match["depth"])
    for stream in topology.streams:
        if stream not in found:
            raise UserError(
                f"stream {stream} has no depth; add DEPTH_{stream.upper()} to {defaults}"
            )
    return {stream: found[stream] for stream in topology.streams}
