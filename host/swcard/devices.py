"""``device``: opens a software card and configures it."""

from __future__ import annotations

import itertools
import weakref
from dataclasses import dataclass, field
from typing import Any

from host.swcard.containers import NO_UUID, uuid, xclbin
from host.swcard.enums import xrt_info_device
from host.swcard.faults import Faults
from host.swcard.library import CardLibrary
from host.xclbin import PLATFORM, Container, sha256

# A machine has as many software cards as anyone may want; each process has its own.
CARDS = 16
OTHER_PLATFORM = "xilinx_u200_gen3x16_xdma_base_2"
OTHER_UUID = uuid("00000000-0000-0000-0000-0000000000ff")


def address(index: int) -> str:
    """PCI address of a card's user function."""
    return f"0000:{index + 1:02x}:00.1"


@dataclass
class Board:
    """What all handles to one card share."""

    index: int
    faults: Faults
    container: Container | None = None
    library: CardLibrary | None = None
    # access mode by compute unit, of the handles that are open
    kernels: weakref.WeakKeyDictionary[Any, tuple[str, ...]] = field(
        default_factory=weakref.WeakKeyDictionary
    )
    # runs that were started and not yet executed, by compute unit
    pending: weakref.WeakValueDictionary[str, Any] = field(
        default_factory=weakref.WeakValueDictionary
    )
    diagnosis: str = ""
    failed: bool = False
    lost: bool = False
    steps: int = 0
    next_address: int = 0

    def reach(self) -> None:
        """Raise RuntimeError if the card is gone."""
        if self.lost:
            raise RuntimeError("No such device")


_boards: dict[int, Board] = {}


def pci_functions() -> list[str]:
    """Addresses of the cards on the bus, with or without a shell: those before an absent one."""
    cards = itertools.takewhile(lambda index: not Faults(index).has("absent"), range(CARDS))
    return [address(index) for index in cards]


class device:
    """Handle to the software card with an index, or its address.

    Raises:
        RuntimeError: there is no such card.
    """

    def __init__(self, which: int | str, /) -> None:
        if not isinstance(which, (int, str)):
            raise TypeError("__init__(): incompatible constructor arguments")
        addresses = {address(index): index for index in range(CARDS)}
        index = addresses.get(which, -1) if isinstance(which, str) else which
        faults = Faults(index)
        missing = faults.has("absent") or faults.has("noshell")
        board = _boards.get(index)
        if not 0 <= index < CARDS or missing or (board is not None and board.lost):
            raise RuntimeError(f"Could not open device with index '{which}'")
        self.board = _boards.setdefault(index, Board(index, faults))

    def load_xclbin(self, source: str | xclbin, /) -> uuid:
        """Configure the card; loading what is loaded already changes nothing, unless a step failed
        and all kernels are closed: then the kernels start afresh.

        Raises:
            RuntimeError: missing or changed files, or kernels of another xclbin are open.
        """
        file = source if isinstance(source, xclbin) else xclbin(source)
        board = self.board
        board.reach()
        if board.faults.has("platform"):
            raise RuntimeError("failed to load xclbin: Invalid argument")
        stuck = board.failed and not board.kernels
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
        board.diagnosis, board.failed = "", False
        board.pending.clear()
        return file.get_uuid()

    def get_xclbin_uuid(self) -> uuid:
        """Identity of what the card is configured with; all zero if nothing is loaded."""
        if self.board.faults.has("reconfigured"):
            return OTHER_UUID
        container = self.board.container
        return uuid(container.uuid) if container else NO_UUID

    def get_info(self, key: xrt_info_device, /) -> str:
        """A property of the card, always as text."""
        if not isinstance(key, xrt_info_device):
            raise TypeError("get_info(): incompatible function arguments")
        if key is xrt_info_device.name:
            return OTHER_PLATFORM if self.board.faults.has("platform") else PLATFORM
        if key is xrt_info_device.bdf:
            return address(self.board.index)
        raise RuntimeError("No such query request")


def loaded(board: Board) -> tuple[Container, CardLibrary]:
    """The board's container and library.

    Raises:
        RuntimeError: no xclbin is loaded.
    """
    if board.container is None or board.library is None:
        raise RuntimeError("No xclbin is loaded on the device")
    return board.container, board.library
