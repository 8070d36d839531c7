"""What a card is configured with: a genuine xclbin, or the software card's container.

The container is a small JSON file beside ``card.so`` that names the same kernels, arguments and
memories as the genuine file's metadata, so that the host checks both in the same way::

    {"format": "lda-software-xclbin", "version": 1, "uuid": "...", "platform": "software card",
     "program": SHA-256 of program.json, "library": {"file": "card.so", "sha256": "..."},
     "mems": [{"tag": "bank0", "index": 0, "base": 0, "size_kb": 16777216, "used": true}, ...],
     "kernels": [{"name": "store", "protocol": "ap_ctrl_chain",
                  "args": [{"name": "latent", "mem": 0}, ..., {"name": "xs_s", "mem": null}]}, ...]}

An argument with ``mem`` null is a stream: it keeps its number and is never set. The uuid is a hash
over everything else, as the genuine one changes with every build.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from gen.errors import UserError
from gen.vitis.topology import topology

FORMAT = "lda-software-xclbin"
VERSION = 1
GENUINE_MAGIC = b"xclbin2\0"
CONTAINER_NAME = "card.xclbin"
BANK_KB = 16 << 20


@dataclass(frozen=True)
class Arg:
    """Kernel argument: the memory index it is wired to, or None for a stream."""

    name: str
    mem: int | None


@dataclass(frozen=True)
class Kernel:
    """Kernel with its block protocol (``ap_ctrl_chain``, ``ap_ctrl_hs`` or ``ap_ctrl_none``)."""

    name: str
    protocol: str
    args: tuple[Arg, ...]


@dataclass(frozen=True)
class Mem:
    """Memory bank; sizes in KiB."""

    tag: str
    index: int
    base: int
    size_kb: int
    used: bool


@dataclass(frozen=True)
class Library:
    """The shared object that computes, relative to the container, and its hash."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Container:
    """Contents of a software card's container, without the uuid that follows from them."""

    platform: str
    program: str
    library: Library
    mems: tuple[Mem, ...]
    kernels: tuple[Kernel, ...]

    @property
    def uuid(self) -> str:
        """Identity over all contents, in the usual 8-4-4-4-12 form."""
        text = json.dumps(asdict(self), sort_keys=True)
        return str(uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16]))


# One rank lives in one SLR, with its DDR bank.
RANK_BANK = 0
ENGINE_KERNELS = tuple(
    Kernel(
        kernel.name,
        kernel.protocol,
        tuple(
            Arg(name, RANK_BANK if name in kernel.pointers else None)
            for name in kernel.ports
        ),
    )
    for kernel in topology(1).kernels
)
BOARD_MEMS = tuple(
    Mem(f"bank{bank}", bank, bank * (BANK_KB << 10), BANK_KB, bank == RANK_BANK)
    for bank in range(4)
)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def write_container(
    build: Path,
    out: Path | None = None,
    kernels: tuple[Kernel, ...] = ENGINE_KERNELS,
    mems: tuple[Mem, ...] = BOARD_MEMS,
) -> Path:
    """Write the container of ``build``'s ``card.so`` and ``program.json``; return its path.

    ``out`` is the folder it is written to (default: ``build``).
    """
    container = Container(
        platform="software card",
        program=sha256(build / "program.json"),
        library=Library("card.so", sha256(build / "card.so")),
        mems=mems,
        kernels=kernels,
    )
    path = (out or build) / CONTAINER_NAME
    value = {"format": FORMAT, "version": VERSION, "uuid": container.uuid, **asdict(container)}
    path.write_text(json.dumps(value, indent=1) + "\n")
    return path


def is_genuine(path: Path) -> bool:
    """Whether the file is an xclbin for a real card (True) or a software card's container.

    Raises:
        UserError: the file is missing or neither of the two.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(len(GENUINE_MAGIC))
    except OSError as error:
        raise UserError(
            f"{path}: no xclbin there ({error.strerror}); run `make build` for a software card"
        ) from error
    if head == GENUINE_MAGIC:
        return True
    if head.lstrip()[:1] == b"{":
        return False
    raise UserError(f"{path}: neither an xclbin nor a software card; build it again")


def read_container(path: Path) -> Container:
    """Read a container and check its uuid against its contents.

    Raises:
        UserError: not a container of this version, or changed after it was written.
    """
    try:
        value = json.loads(path.read_text())
        if value["format"] != FORMAT or value["version"] != VERSION:
            raise ValueError("another format")
        container = Container(
            platform=value["platform"],
            program=value["program"],
            library=Library(**value["library"]),
            mems=tuple(Mem(**mem) for mem in value["mems"]),
            kernels=tuple(
                Kernel(k["name"], k["protocol"], tuple(Arg(**arg) for arg in k["args"]))
                for k in value["kernels"]
            ),
        )
        stated = value["uuid"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a software card of this version ({error}); run `make build` again"
        ) from error
    if stated != container.uuid:
        raise UserError(f"{path}: changed after it was built (uuid); run `make build` again")
    return container
