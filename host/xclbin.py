"""What a card is configured with: a genuine xclbin, or the software card's container.

The container is a small JSON file beside ``card.so`` that names the same compute units, arguments
and memories as the genuine file's metadata, so that the host checks both in the same way::

    {"format": "lda-software-xclbin", "version": 3, "uuid": "...", "platform": "software card",
     "program": SHA-256 of program.json, "library": {"file": "card.so", "sha256": "..."},
     "mems": [{"tag": "bank0", "index": 0, "base": 0, "size_kb": 16777216, "used": true}, ...],
     "units": [{"kernel": "store", "name": "store_1", "protocol": "ap_ctrl_chain",
                "args": [{"name": "latent", "mems": [0], "scalar": false}, ...,
                         {"name": "xs_s", "mems": [], "scalar": false}]}, ...]}

An argument without ``mems`` is a ``scalar`` or a stream, which keeps its number and is never set.
The uuid is a hash over everything else, as the genuine one changes with every build.
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
VERSION = 3
GENUINE_MAGIC = b"xclbin2\0"
CONTAINER_NAME = "card.xclbin"
PLATFORM = "software card"
BANK_KB = 16 << 20
BANKS = 4
FREE_RUNNING = "ap_ctrl_none"


@dataclass(frozen=True)
class Arg:
    """Kernel argument and the indices of the memories it is wired to; one without memories is a
    stream, or a ``scalar``.
    """

    name: str
    mems: tuple[int, ...]
    scalar: bool = False


@dataclass(frozen=True)
class Unit:
    """Compute unit: an instance (``name``) of a kernel, with its block protocol
    (``ap_ctrl_chain``, ``ap_ctrl_hs`` or ``ap_ctrl_none``).
    """

    kernel: str
    name: str
    protocol: str
    args: tuple[Arg, ...]

    @property
    def started(self) -> bool:
        """Whether the host starts it; the others run freely."""
        return self.protocol != FREE_RUNNING


@dataclass(frozen=True)
class Mem:
    """Memory bank; sizes in KiB."""

    tag: str
    index: int
    base: int
    size_kb: int
    used: bool


@dataclass(frozen=True)
class Metadata:
    """What a file says of itself. ``clock_mhz`` is the achieved kernel clock (None: not told)."""

    uuid: str
    platform: str
    clock_mhz: float | None
    units: tuple[Unit, ...]
    mems: tuple[Mem, ...]

    def units_of(self, kernel: str) -> tuple[Unit, ...]:
        """Compute units of a kernel, one per rank, in the order of their numbers."""
        return tuple(unit for unit in self.units if unit.kernel == kernel)


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
    units: tuple[Unit, ...]

    @property
    def uuid(self) -> str:
        """Identity over all contents, in the usual 8-4-4-4-12 form."""
        text = json.dumps(asdict(self), sort_keys=True)
        return str(uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16]))

    @property
    def metadata(self) -> Metadata:
        """The part that a genuine file has too."""
        return Metadata(self.uuid, self.platform, None, self.units, self.mems)


def engine_units(ranks: int = 1, spill: bool = False, sampler: bool = False) -> tuple[Unit, ...]:
    """Compute units of ``ranks`` engines, named as the link step names them; rank r uses bank r.
    ``spill``: of a layer program with moves; ``sampler``: of an engine with one.
    """
    return tuple(
        Unit(
            unit.kernel.name,
            unit.name,
            unit.kernel.protocol,
            tuple(
                Arg(
                    name,
                    (unit.rank,) if name in unit.kernel.pointers else (),
                    name in {scalar.name for scalar in unit.kernel.scalars},
                )
                for name in unit.kernel.ports
            ),
        )
        for unit in topology(ranks, spill=spill, sampler=sampler).units
    )


def board_mems(ranks: int = 1) -> tuple[Mem, ...]:
    """The board's memory banks, of which the first ``ranks`` are used."""
    return tuple(
        Mem(f"bank{bank}", bank, bank * (BANK_KB << 10), BANK_KB, bank < ranks)
        for bank in range(BANKS)
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
    units: tuple[Unit, ...] | None = None,
    mems: tuple[Mem, ...] | None = None,
) -> Path:
    """Write the container of ``build``'s ``card.so`` and ``program.json``; return its path.

    ``out`` is the folder it is written to (default: ``build``); ``units`` and ``mems`` are those
    of one engine unless given.
    """
    container = Container(
        platform=PLATFORM,
        program=sha256(build / "program.json"),
        library=Library("card.so", sha256(build / "card.so")),
        mems=board_mems() if mems is None else mems,
        units=engine_units() if units is None else units,
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


def _unit(value: dict[str, object]) -> Unit:
    fields = dict(value)
    args = fields.pop("args")
    assert isinstance(args, list)
    made = tuple(
        Arg(str(arg["name"]), tuple(map(int, arg["mems"])), bool(arg["scalar"])) for arg in args
    )
    return Unit(args=made, **fields)  # type: ignore[arg-type]


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
            units=tuple(_unit(unit) for unit in value["units"]),
        )
        stated = value["uuid"]
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise UserError(
            f"{path}: not a software card of this version ({error}); run `make build` again"
        ) from error
    if stated != container.uuid:
        raise UserError(f"{path}: changed after it was built (uuid); run `make build` again")
    return container
