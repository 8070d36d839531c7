"""A card in software behind the portable subset of pyxrt.

Names, positional-only signatures and errors are those of XRT's Python binding; the kernels are the
generated C++ compiled to ``card.so``. What the binding lets pass and the hardware punishes
(memory that was never written, a missing sync, a wrong bank, a start without its partner) shows
here in the same way, or as an error.

``cycles``, ``report``, ``diagnosis`` and ``pci_functions`` are the software card's own: the binding
has no such calls. Faults are injected by ``LDA_CARD_FAULTS`` (``host.swcard.faults``).
"""

from __future__ import annotations

from host.swcard.buffers import bo
from host.swcard.commands import kernel, run
from host.swcard.containers import uuid, xclbin
from host.swcard.devices import device, loaded, pci_functions
from host.swcard.enums import (
    XCL_BO_FLAGS_NONE,
    ert_cmd_state,
    xclBOSyncDirection,
    xrt_info_device,
)


def cycles(card: device, /) -> int:
    """Modelled clock cycles of the card's last step."""
    return loaded(card.board)[1].cycles


def report(card: device, /) -> str:
    """The card's own report of its last step."""
    return loaded(card.board)[1].report


def diagnosis(card: device, /) -> str:
    """Why the card's last step failed (a deadlock names its FIFO), or an empty string."""
    return card.board.diagnosis


__all__ = [
    "XCL_BO_FLAGS_NONE",
    "bo",
    "cycles",
    "device",
    "diagnosis",
    "ert_cmd_state",
    "kernel",
    "pci_functions",
    "report",
    "run",
    "uuid",
    "xclBOSyncDirection",
    "xclbin",
    "xrt_info_device",
]
