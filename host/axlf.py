"""The metadata of a genuine xclbin, read from the file itself.

The file format is that of XRT's ``xclbin.h`` (structure ``axlf``): a fixed head, section headers,
sections. All numbers are little endian. Where the linker wrote grouped memories, the binding counts
in them, so they are preferred.
"""

from __future__ import annotations

import struct
import uuid
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gen.errors import UserError
from host.xclbin import GENUINE_MAGIC, Arg, Mem, Metadata, Unit

EMBEDDED_METADATA = 2
MEM_TOPOLOGY = 6
CONNECTIVITY = 7
IP_LAYOUT = 8
CLOCK_FREQ_TOPOLOGY = 11
ASK_GROUP_TOPOLOGY = 26
ASK_GROUP_CONNECTIVITY = 27

# offsets in bytes from the start of the file
HEADER = 304
SECTIONS = 456
# length, three time stamps and versions; ROM uuid, platform, uuid, debug name, number of sections
HEAD = struct.Struct("<QQQHBBHH16s64s16s16sI4x")
SECTION = struct.Struct("<I16s4xQQ")
MEMORY = struct.Struct("<BB6xQQ16s")
CONNECTION = struct.Struct("<iii")
IP = struct.Struct("<IIQ64s")
CLOCK = struct.Struct("<HB5x128s")

IP_KERNEL = 1
CLOCK_DATA = 1  # the kernels' ap_clk, which the linker may lower
SCALAR, GLOBAL_MEMORY = 0, 1  # addressQualifier of an argument
PROTOCOLS = {0: "ap_ctrl_hs", 1: "ap_ctrl_chain", 2: "ap_ctrl_none"}


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode()


def _records(section: bytes, start: int, record: struct.Struct) -> list[tuple[Any, ...]]:
    """Records after a count; ``start`` is the offset of the first."""
    count = struct.unpack_from("<h" if start == 2 else "<i", section)[0]
    return [record.unpack_from(section, start + i * record.size) for i in range(count)]


def _sections(data: bytes, count: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for number in range(count):
        kind, _, offset, size = SECTION.unpack_from(data, SECTIONS + number * SECTION.size)
        if offset + size > len(data):
            raise ValueError("a section is past the end")
        found[kind] = data[offset : offset + size]
    return found


def _kernels(xml: bytes) -> dict[str, list[tuple[str, int]]]:
    """Arguments of every kernel: names and address qualifiers, by number."""
    root = ElementTree.fromstring(xml.rstrip(b"\0"))  # noqa: S314  (no entities: written by v++)
    kernels = {}
    for kernel in root.iter("kernel"):
        args = sorted(kernel.findall("arg"), key=lambda arg: int(arg.attrib["id"], 0))
        kernels[kernel.attrib["name"]] = [
            (arg.attrib["name"], int(arg.attrib["addressQualifier"], 0)) for arg in args
        ]
    return kernels


def _mems(section: bytes) -> tuple[Mem, ...]:
    return tuple(
        Mem(_text(tag), index, base, size, bool(used))
        for index, (_, used, size, base, tag) in enumerate(_records(section, 8, MEMORY))
    )


def _units(sections: dict[int, bytes]) -> tuple[Unit, ...]:
    kernels = _kernels(sections[EMBEDDED_METADATA])
    wires: dict[tuple[int, int], set[int]] = {}
    links = sections.get(ASK_GROUP_CONNECTIVITY) or sections[CONNECTIVITY]
    for arg, ip, mem in _records(links, 4, CONNECTION):
        wires.setdefault((ip, arg), set()).add(mem)
    units = []
    for number, (kind, properties, _, name) in enumerate(_records(sections[IP_LAYOUT], 8, IP)):
        if kind != IP_KERNEL:
            continue
        kernel, _, instance = _text(name).partition(":")
        args = tuple(
            Arg(
                arg,
                tuple(sorted(wires.get((number, index), ()))) if qualifier == GLOBAL_MEMORY else (),
                qualifier == SCALAR,
            )
            for index, (arg, qualifier) in enumerate(kernels[kernel])
        )
        protocol = PROTOCOLS.get(properties >> 8 & 0xFF, "unknown")
        units.append(Unit(kernel, instance, protocol, args))
    return tuple(sorted(units, key=lambda unit: (unit.kernel, len(unit.name), unit.name)))


def _clock_mhz(section: bytes | None) -> float | None:
    for mhz, kind, _ in _records(section, 2, CLOCK) if section else ():
        if kind == CLOCK_DATA:
            return float(mhz)
    return None


def read_axlf(path: Path) -> Metadata:
    """Metadata of a genuine xclbin; its ``clock_mhz`` is what the linker achieved.

    Raises:
        UserError: the file cannot be read, or is not an xclbin with kernels.
    """
    try:
        data = path.read_bytes()
        if not data.startswith(GENUINE_MAGIC):
            raise ValueError("no xclbin")
        head = HEAD.unpack_from(data, HEADER)
        sections = _sections(data, head[12])
        memories = sections.get(ASK_GROUP_TOPOLOGY) or sections[MEM_TOPOLOGY]
        return Metadata(
            uuid=str(uuid.UUID(bytes=head[10])),
            platform=_text(head[9]),
            clock_mhz=_clock_mhz(sections.get(CLOCK_FREQ_TOPOLOGY)),
            units=_units(sections),
            mems=_mems(memories),
        )
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name the xclbin") from error
    except (ValueError, KeyError, struct.error, ElementTree.ParseError) as error:
        raise UserError(
            f"{path}: not an xclbin that can be understood ({error}); link it again"
        ) from error
