"""Metadata of what a card is configured with, whichever kind of file it is."""

from __future__ import annotations

from pathlib import Path

from host.axlf import read_axlf
from host.xclbin import Metadata, is_genuine, read_container


def read_metadata(path: Path) -> Metadata:
    """Metadata of a genuine xclbin or of a software card's container.

    Raises:
        UserError: missing, or neither of the two.
    """
    return read_axlf(path) if is_genuine(path) else read_container(path).metadata
