"""The engine as Vitis sees it: kernels, their ports in order, units, streams (docs/engine.md).

This is the one list that scripts, link configurations, test benches, the host and the checker work
from. Everything follows from the number of ranks: kernels that differ from rank to rank (gather,
reduce) exist once per rank, the others once, with an instance (compute unit) for every rank.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property

PORT_SUFFIX = "_s"
# the width of an AXI4-Stream port ends here (UG1399)
MAX_PORT_BITS = 4096
# of a stream besides its data, when it crosses from one SLR to the next: TVALID and TREADY
HANDSHAKE_WIRES = 2
TARGETS = ("hw", "hw_emu")
CLOCK_KEYS = ("kernel_frequency", "freqHz", "defaultFreqHz")
RANKS = (1, 2, 4)
WEIGHT_BITS = (8, 4)

# bits of the stream elements of hls/kernels/types.hpp; StatWord has no padding
_BITS = {"Word": 512, "Pair": 1024, "ResultPair": 1032, "AccWord": 2048, "SumWord": 256}
_BITS |= {"WeightRow<8>": 1024, "WeightRow<4>": 512}
_BITS_PER_RANK = {"Beat": 512, "StatBeat": 640}
_BITS["StatWord"] = _BITS_PER_RANK["StatBeat"]

# stream: (source, sink, element; of Beats: those of all ranks; WeightRow: of the engine's bits)
_STREAMS = {
    "xs": ("store", "pre", "Pair"),
    "px": ("pre", "gather", "Word"),
    "gs": ("gather", "mac", "Beat"),
    "ks": ("gather", "mac", "WeightRow<8>"),
    "ws": ("wload", "mac", "WeightRow"),
    "as": ("mac", "post", "AccWord"),
    "bs": ("mac", "post", "AccWord"),
    "rs": ("store", "post", "Pair"),
    "ys": ("post", "store", "ResultPair"),
    "st": ("post", "reduce", "StatWord"),
    "sg": ("reduce", "pre", "StatBeat"),
    "ss": ("gather", "post", "SumWord"),
    "hd": ("wload", "pre", "Word"),
    "pp": ("wload", "pre", "Word"),
    "qp": ("wload", "post", "Word"),
}
# streams from rank to rank, in the line of ranks
LINK = "link"
# kernel: streams in the order of its parameters
_ORDER = {
    "store": ("xs", "rs", "ys"),
    "wload": ("hd", "pp", "ws", "qp"),
    "pre": ("hd", "pp", "xs", "sg", "px"),
    "gather": ("px", LINK, "gs", "ks", "ss"),
    "reduce": ("st", LINK, "sg"),
    "mac": ("gs", "ks", "ws", "as", "bs"),
    "post": ("as", "bs", "rs", "qp", "ss", "ys", "st"),
}
# kernels that know their rank, and what they send to their neighbours
_LINE = {"gather": "Beat", "reduce": "StatBeat"}


@dataclass(frozen=True)
class Memory:
    """A pointer argument (m_axi) of 64-byte words; ``burst``: it asks for its bursts itself."""

    name: str
    written: bool = False
    burst: bool = False

    @property
    def type(self) -> str:
        """C++ type of the parameter."""
        if self.burst:
            return "hls::burst_maxi<lda::PortWord>"
        return "lda::PortWord*" if self.written else "const lda::PortWord*"


@dataclass(frozen=True)
class Scalar:
    """A scalar argument (s_axilite) of a C++ type."""

    name: str
    type: str


@dataclass(frozen=True)
class StreamPort:
    """An AXI4-Stream port. ``stream`` names its FIFO depth (``DEPTH_STREAM``), ``element`` the
    C++ type of its elements, ``bits`` their width.
    """

    name: str
    stream: str
    element: str
    bits: int
    output: bool

    @property
    def type(self) -> str:
        """C++ type of the parameter."""
        return f"hls::stream<{self.element}>&"


SPILL = Memory("spill", written=True, burst=True)
_MEMORIES = {
    "store": (Memory("latent"), Memory("result", written=True)),
    "wload": (Memory("weights", burst=True), Memory("dynamic", burst=True)),
}
_SCALARS = {"wload": (Scalar("reload", "int32_t"),)}
# of kernels that run several steps in one start
_STEPS = Scalar("steps", "int32_t")


@dataclass(frozen=True)
class Kernel:
    """A kernel: its top ``name``, the ``kind`` of docs/engine.md, the rank that it is made for
    (None: every rank has an instance), and its arguments: memories, scalars, streams. ``spill``:
    the layer program moves rows between the store and DDR; ``several``: a start is several steps.
    """

    name: str
    kind: str
    rank: int | None
    streams: tuple[StreamPort, ...]
    spill: bool = False
    several: bool = False

    @property
    def memories(self) -> tuple[Memory, ...]:
        """Pointer arguments."""
        return (*_MEMORIES.get(self.kind, ()), *((SPILL,) if self.spill else ()))

    @property
    def scalars(self) -> tuple[Scalar, ...]:
        """Scalar arguments."""
        steps = (_STEPS,) if self.several and self.started else ()
        return (*_SCALARS.get(self.kind, ()), *steps)

    @property
    def pointers(self) -> tuple[str, ...]:
        """Names of the pointer arguments."""
        return tuple(memory.name for memory in self.memories)

    @property
    def parameters(self) -> tuple[Memory | Scalar | StreamPort, ...]:
        """Everything that its top takes, in the order that the host counts."""
        return (*self.memories, *self.scalars, *self.streams)

    @property
    def written(self) -> tuple[str, ...]:
        """Pointers that it writes through; it only reads through the others."""
        return tuple(memory.name for memory in self.memories if memory.written)

    @property
    def ports(self) -> tuple[str, ...]:
        """Names of its parameters, in their order."""
        return tuple(parameter.name for parameter in self.parameters)

    def stream(self, port: str) -> StreamPort | None:
        """The stream port of that name, if there is one."""
        return next((each for each in self.streams if each.name == port), None)

    @property
    def started(self) -> bool:
        """Whether the host starts it; the others run freely (``ap_ctrl_none``)."""
        return bool(self.memories)

    @property
    def protocol(self) -> str:
        """Block protocol of the kernel's return port."""
        return "ap_ctrl_chain" if self.started else "ap_ctrl_none"


@dataclass(frozen=True)
class Unit:
    """A compute unit: KERNEL_n of rank n - 1."""

    name: str
    kernel: Kernel
    rank: int


@dataclass(frozen=True)
class Connection:
    """A stream between two ports of units; ``fifo`` is its name in the simulation."""

    source: Unit
    output: StreamPort
    sink: Unit
    input: StreamPort
    fifo: str


@dataclass(frozen=True)
class Topology:
    """Kernels, units and streams of a number of ranks."""

    ranks: int
    kernels: tuple[Kernel, ...]

    def kernel(self, name: str) -> Kernel:
        """The kernel of that name; KeyError if there is none."""
        return {kernel.name: kernel for kernel in self.kernels}[name]

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """Compute units, rank by rank."""
        return tuple(
            Unit(f"{kernel.kind}_{rank + 1}", kernel, rank)
            for rank in range(self.ranks)
            for kernel in self.kernels
            if kernel.rank in (None, rank)
        )

    def units_of(self, kernel: Kernel) -> tuple[Unit, ...]:
        """Instances of a kernel."""
        return tuple(unit for unit in self.units if unit.kernel == kernel)

    @cached_property
    def connections(self) -> tuple[Connection, ...]:
        """Streams within every rank, then those between neighbours."""
        places = {(unit.kernel.kind, unit.rank): unit for unit in self.units}

        def connect(source: Unit, output: str, sink: Unit, entrance: str, fifo: str) -> Connection:
            ends = source.kernel.stream(output), sink.kernel.stream(entrance)
            assert ends[0] is not None and ends[1] is not None
            return Connection(source, ends[0], sink, ends[1], fifo)

        found = []
        for rank in range(self.ranks):
            for name, (source, sink, _) in _STREAMS.items():
                port = name + PORT_SUFFIX
                ends = places[source, rank], places[sink, rank]
                found.append(connect(ends[0], port, ends[1], port, f"{name}_{rank + 1}"))
        for rank in range(self.ranks - 1):
            for kind in _LINE:
                left, right = places[kind, rank], places[kind, rank + 1]
                there, back = (rank + 1, rank + 2), (rank + 2, rank + 1)
                for ends, ports, (a, b) in (
                    ((left, right), ("to_right_s", "from_left_s"), there),
                    ((right, left), ("to_left_s", "from_right_s"), back),
                ):
                    fifo = f"{kind}.r{a}{b}"
                    found.append(connect(ends[0], ports[0], ends[1], ports[1], fifo))
        return tuple(found)

    @cached_property
    def streams(self) -> tuple[str, ...]:
        """Names of all FIFO depths that the links need."""
        return tuple(dict.fromkeys(each.output.stream for each in self.connections))

    def crossing_wires(self, rank: int) -> int:
        """Wires between a rank and the next one."""
        crossing = [
            each.output.bits + HANDSHAKE_WIRES
            for each in self.connections
            if {each.source.rank, each.sink.rank} == {rank, rank + 1}
        ]
        return sum(crossing)


def _line_ports(kind: str, rank: int, ranks: int) -> list[StreamPort]:
    """Ports towards the neighbours of a rank, where it has some."""
    many = _LINE[kind]
    ports = []
    for name, count, exists, output in (
        ("from_left_s", rank, rank > 0, False),
        ("from_right_s", ranks - 1 - rank, rank < ranks - 1, False),
        ("to_left_s", ranks - rank, rank > 0, True),
        ("to_right_s", rank + 1, rank < ranks - 1, True),
    ):
        if exists:
            element, bits = f"lda::{many}<{count}>", _BITS_PER_RANK[many] * count
            ports.append(StreamPort(name, LINK, element, bits, output))
    return ports


def _stream_ports(kind: str, rank: int, ranks: int, weight_bits: int) -> tuple[StreamPort, ...]:
    ports: list[StreamPort] = []
    for name in _ORDER[kind]:
        if name == LINK:
            ports += _line_ports(kind, rank, ranks)
            continue
        source, _, element = _STREAMS[name]
        if element == "WeightRow":
            element = f"WeightRow<{weight_bits}>"
        many = element in _BITS_PER_RANK
        bits = _BITS_PER_RANK[element] * ranks if many else _BITS[element]
        text = f"lda::{element}<{ranks}>" if many else f"lda::{element}"
        ports.append(StreamPort(name + PORT_SUFFIX, name, text, bits, source == kind))
    return tuple(ports)


@functools.cache
def topology(
    ranks: int, weight_bits: int = 8, spill: bool = False, sampler: bool = False
) -> Topology:
    """The engine of 1, 2 or 4 ranks with weight rows of 8 or 4 bits; ``spill``: for a layer program
    with moves; with a ``sampler``, a start is several steps.
    """
    assert ranks in RANKS
    kernels: list[Kernel] = []
    for kind in _ORDER:
        if kind in _LINE:
            kernels += [
                Kernel(
                    f"{kind}_{rank + 1}",
                    kind,
                    rank,
                    _stream_ports(kind, rank, ranks, weight_bits),
                    several=sampler,
                )
                for rank in range(ranks)
            ]
        else:
            ports = _stream_ports(kind, 0, ranks, weight_bits)
            moves = spill and kind == "store"
            kernels.append(Kernel(kind, kind, None, ports, moves, sampler))
    return Topology(ranks, tuple(kernels))
