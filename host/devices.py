"""Opening a card through whichever binding drives it, and saying why one cannot be opened."""

from __future__ import annotations

import atexit
import importlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from gen.errors import UserError
from host.faults import CardUnusable
from host.xclbin import PLATFORM as SOFTWARE_PLATFORM
from host.xclbin import Metadata, is_genuine

SOFTWARE = "host.swcard"
PCI = Path("/sys/bus/pci/devices")
XILINX = "0x10ee"
_INI = "[Runtime]\nforce_program_xclbin=true\n"
# the card in a platform's name: xilinx_u250_gen3x16_xdma_4_1_202210_1
_BOARD = re.compile(r"\b(u\d+[a-z]?|vck\d+)\b")


def binding(xclbin: Path) -> Any:
    """Pyxrt for a genuine xclbin, the software card for its container.

    Raises:
        UserError: there is no pyxrt.
    """
    if not is_genuine(xclbin):
        return importlib.import_module(SOFTWARE)
    _program_at_every_load()
    try:
        return importlib.import_module("pyxrt")
    except ImportError as error:
        raise UserError(
            f"{xclbin} is for a real card but pyxrt cannot be imported ({error}); install XRT and "
            "run `source /opt/xilinx/xrt/setup.sh`"
        ) from error


def _program_at_every_load() -> None:
    """Have XRT load an xclbin that is loaded already: free-running kernels keep what an aborted
    run left in their FIFOs, and only that resets them. A user's own xrt.ini is left alone.
    """
    if "XRT_INI_PATH" in os.environ or Path("xrt.ini").exists():
        return
    descriptor, name = tempfile.mkstemp(prefix="xrt-", suffix=".ini")
    with os.fdopen(descriptor, "w") as stream:
        stream.write(_INI)
    atexit.register(Path(name).unlink, missing_ok=True)
    os.environ["XRT_INI_PATH"] = name


def pci_functions(xrt: Any) -> list[str]:
    """PCI addresses of Xilinx functions on this machine, ascending."""
    if xrt.__name__ == SOFTWARE:
        return list(xrt.pci_functions())
    found = []
    for device in sorted(PCI.glob("*")):
        try:
            if (device / "vendor").read_text().strip() == XILINX:
                found.append(device.name)
        except OSError:
            continue
    return found


def open_device(xrt: Any, which: int | str) -> Any:
    """The binding's handle to card ``which``, an index or a PCI address.

    Raises:
        CardUnusable: there is none, or it has no shell.
    """
    try:
        return xrt.device(which)
    except (RuntimeError, ValueError, TypeError) as error:
        functions = pci_functions(xrt)
        boards = sorted({name.rsplit(".", 1)[0] for name in functions})
        if isinstance(which, str):
            here = [board for board in boards if board == which.rsplit(".", 1)[0]]
        else:
            here = boards[which : which + 1] if which >= 0 else []
        why = " ".join(str(error).split())[:200]
        if here:
            raise CardUnusable(
                f"card {which} is on the PCIe bus but cannot be opened ({why}): after a reboot a "
                f"two-stage card has no shell; load it with `sudo xbmgmt program -d {here[0]}.0 "
                "--shell /opt/xilinx/firmware/u250/gen3x16/xdma-shell/partition.xsabin`"
            ) from error
        raise CardUnusable(
            f"there is no card {which} ({why}); `xbutil examine` lists the cards, --device chooses "
            "one"
        ) from error


def information(xrt: Any, device: Any, key: str) -> str:
    """A property of an opened card, or an empty string where the driver does not tell it."""
    try:
        return str(device.get_info(getattr(xrt.xrt_info_device, key)))
    except (AttributeError, RuntimeError, TypeError):
        return ""


def _board(platform: str) -> str:
    if platform == SOFTWARE_PLATFORM:
        return platform
    match = _BOARD.search(platform.lower().replace("_", " "))
    return match[0] if match else ""


def check_platform(xclbin: Path, metadata: Metadata, shell: str, which: int | str) -> None:
    """Refuse an xclbin for another kind of card. A shell's name and a platform's are alike but
    not equal, so only the card's type is compared.

    Raises:
        CardUnusable: it is for another card.
    """
    wanted, there = (_board(name) for name in (metadata.platform, shell))
    if wanted and there and wanted != there:
        raise CardUnusable(
            f"{xclbin} was linked for {metadata.platform} but card {which} has {shell}; link it "
            "for that platform (`make xclbin PLATFORM=...`), or choose another card by --device"
        )


def load(xrt: Any, device: Any, xclbin: Path, file: Any, which: int | str) -> Any:
    """Configure a card; returns the binding's uuid.

    Raises:
        CardUnusable: the card refuses the file.
    """
    try:
        return device.load_xclbin(file)
    except RuntimeError as error:
        shell = information(xrt, device, "name")
        raise CardUnusable(
            f"card {which}{f' ({shell})' if shell else ''} does not load {xclbin}: "
            f"{' '.join(str(error).split())[:200]}; end other processes that use the card, or link "
            "the file for the card's platform"
        ) from error
