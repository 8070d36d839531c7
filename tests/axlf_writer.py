"""An xclbin as the linker writes it, without a bitstream: accepted by the genuine runtime's no-op
device. Layout: XRT's ``xclbin.h``.
"""

from __future__ import annotations

import struct
import uuid
from pathlib import Path
from xml.sax.saxutils import quoteattr

from host.xclbin import Mem, Unit, board_mems, engine_units

PLATFORM = "xilinx_u250_gen3x16_xdma_4_1_202210_1"
UUID = "8f1b8b1e-2f4c-4b52-9a0e-6f8f3d3a9c55"
SCALAR, MEMORY, STREAM = 0, 1, 4  # addressQualifier
CONTROLS = {"ap_ctrl_hs": 0, "ap_ctrl_chain": 1, "ap_ctrl_none": 2}


def _mem_topology(mems: tuple[Mem, ...]) -> bytes:
    records = [
        struct.pack("<BB6xQQ16s", 1, mem.used, mem.size_kb, mem.base, mem.tag.encode())
        for mem in mems
    ]
    return struct.pack("<i4x", len(records)) + b"".join(records)


def _connectivity(units: tuple[Unit, ...]) -> bytes:
    records = [
        struct.pack("<iii", index, number, mem)
        for number, unit in enumerate(units)
        for index, arg in enumerate(unit.args)
        for mem in arg.mems
    ]
    return struct.pack("<i", len(records)) + b"".join(records)


def _ip_layout(units: tuple[Unit, ...]) -> bytes:
    records = [
        struct.pack(
            "<IIQ64s",
            1,
            CONTROLS[unit.protocol] << 8,
            0x1800000 + (number << 16) if unit.started else (1 << 64) - 1,
            f"{unit.kernel}:{unit.name}".encode(),
        )
        for number, unit in enumerate(units)
    ]
    return struct.pack("<i4x", len(records)) + b"".join(records)


def _clocks(mhz: int) -> bytes:
    names = (("DATA_CLK", 1, mhz), ("KERNEL_CLK", 2, 500))
    records = [struct.pack("<HB5x128s", f, kind, name.encode()) for name, kind, f in names]
    return struct.pack("<h", len(records)) + b"".join(records)


def _kernel_xml(unit: Unit, instances: list[str]) -> str:
    lines = [
        f'<kernel name="{unit.kernel}" language="c" type="pl" hwControlProtocol="{unit.protocol}">'
    ]
    if unit.started:
        lines.append('<port name="S_AXI_CONTROL" mode="slave" range="0x1000" dataWidth="32"/>')
    offset = 0x10
    for index, arg in enumerate(unit.args):
        if arg.scalar:
            lines.append(
                f"<arg name={quoteattr(arg.name)} addressQualifier='{SCALAR}' id='{index}' "
                f"port='S_AXI_CONTROL' size='0x4' offset='{offset:#x}' hostOffset='0x0' "
                "hostSize='0x4' type='int'/>"
            )
            offset += 8
            continue
        memory = bool(arg.mems)
        mode = "master" if memory else "read_only"
        lines.append(f"<port name={quoteattr(arg.name)} mode={quoteattr(mode)} dataWidth='512'/>")
        lines.append(
            f"<arg name={quoteattr(arg.name)} addressQualifier='{MEMORY if memory else STREAM}' "
            f"id='{index}' port={quoteattr(arg.name)} size='0x8' "
            f"offset='{offset if memory else 0:#x}' hostOffset='0x0' hostSize='0x8' type='void*'/>"
        )
        offset += 12 if memory else 0
    for name in instances:
        lines.append(
            f"<instance name={quoteattr(name)}><addrRemap base='0x1800000' range='0x10000' "
            "port='S_AXI_CONTROL'/></instance>"
        )
    return "".join([*lines, "</kernel>"])


def _metadata(units: tuple[Unit, ...]) -> bytes:
    kernels = {unit.kernel: unit for unit in units}
    body = "".join(
        _kernel_xml(unit, [u.name for u in units if u.kernel == name])
        for name, unit in kernels.items()
    )
    return (
        '<?xml version="1.0"?><project name="engine"><platform vendor="xilinx" boardid="u250" '
        'name="gen3x16_xdma" featureRomTime="0"><version major="4" minor="1"/>'
        f'<device name="fpga0"><core name="OCL_REGION_0" target="bitstream">{body}</core>'
        "</device></platform></project>"
    ).encode()


def write_axlf(
    path: Path,
    units: tuple[Unit, ...] | None = None,
    mems: tuple[Mem, ...] | None = None,
    clock_mhz: int = 198,
    identity: str = UUID,
) -> Path:
    """Write an xclbin with the given compute units (default: one engine) and return its path."""
    units = engine_units() if units is None else units
    sections = {
        2: _metadata(units),
        6: _mem_topology(board_mems() if mems is None else mems),
        7: _connectivity(units),
        8: _ip_layout(units),
        11: _clocks(clock_mhz),
    }
    offset = 456 + 40 * len(sections)
    headers, bodies = [], []
    for kind, body in sections.items():
        padding = -offset % 8
        bodies.append(bytes(padding) + body)
        offset += padding
        headers.append(struct.pack("<I16s4xQQ", kind, b"", offset, len(body)))
        offset += len(body)
    head = struct.pack(
        "<QQQHBBHH16s64s16s16sI4x",
        *(offset, 1, 0, 0, 2, 1, 0, 0, bytes(16)),
        *(PLATFORM.encode(), uuid.UUID(identity).bytes, b"", len(sections)),
    )
    start = b"xclbin2\0" + struct.pack("<i", -1) + b"\xff" * 28 + bytes(256) + struct.pack("<Q", 7)
    path.write_bytes(start + head + b"".join(headers) + b"".join(bodies))
    return path
