"""``device``: opens a software card and configures it."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

from host.swcard.containers import NO_UUID, uuid, xclbin
from host.swcard.enums import xrt_info_device
from host.swcard.library import CardLibrary
from host.xclbin import Container, sha256

CARDS = 1
BDF = "0000:00:00.1"


@dataclass
class Board:
    """What all handles to one card share."""

    container: Container | None = None
    library: CardLibrary | None = None
    # access mode by kernel name, of the kernels that are open
    kernels: weakref.WeakKeyDictionary[Any, str] = field(default_factory=weakref.WeakKeyDictionary)
    # runs that were started and not yet executed, by kernel name
    pending: weakref.WeakValueDictionary[str, Any] = field(
        default_factory=weakref.WeakValueDictionary
    )
    diagnosis: str = ""
    next_address: int = 0


_boards: dict[int, Board] = {}


class device:
    """Handle to the software card with an index (0), or its address.

    Raises:
        RuntimeError: there is no such card.
    """

    def __init__(self, which: int | str, /) -> None:
        index = 0 if which == BDF else which
        if not isinstance(index, int) or not 0 <= index < CARDS:
            raise RuntimeError(f"Could not open device with index '{which}'")
        self._index = index
        self.board = _boards.setdefault(index, Board())

    def load_xclbin(self, source: str | xclbin, /) -> uuid:
        """Configure the card; loading what is loaded already changes nothing, unless a step failed
        and all kernels are closed: then the kernels start afresh.

        Raises:
            RuntimeError: missing or changed files, or kernels of another xclbin are open.
        """
        file = source if isinstance(source, xclbin) else xclbin(source)
        board = self.board
        stuck = bool(board.diagnosis) and not board.kernels
        if board.container == file.container and board.library is not None and not stuck:
            return file.get_uuid()
        if board.kernels:
            raise RuntimeError("failed to load xclbin: Device or resource busy")
        library = file.path.parent / file.container.library.file
        if not library.exists():
            raise RuntimeError(f"{library}: no such file")
        if sha256(library) != file.container.library.sha256:
            raise RuntimeError(f"{library}: changed after it was built")
        board.library = CardLibrary(library)
        board.container = file.container
        board.diagnosis = ""
        board.pending.clear()
        return file.get_uuid()

    def get_xclbin_uuid(self) -> uuid:
        """Identity of what the card is configured with; all zero if nothing is loaded."""
        container = self.board.container
        return uuid(container.uuid) if container else NO_UUID

    def get_info(self, key: xrt_info_device, /) -> str:
        """A property of the card, always as text."""
        if key is xrt_info_device.name:
            return "software card"
        if key is xrt_info_device.bdf:
            return BDF
        raise RuntimeError("No such query request")


def loaded(board: Board) -> tuple[Container, CardLibrary]:
    """The board's container and library.

    Raises:
        RuntimeError: no xclbin is loaded.
    """
    if board.container is None or board.library is None:
        raise RuntimeError("No xclbin is loaded on the device")
    return board.container, board.library
