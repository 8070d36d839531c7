"""The engine as Vitis sees it: kernels, their ports in order, streams (docs/engine.md).

This is the one list that scripts, link configurations, test benches and the checker work from.
"""

from __future__ import annotations

from dataclasses import dataclass

PORT_SUFFIX = "_s"
WORD_BITS = 512
TARGETS = ("hw", "hw_emu")
CLOCK_KEYS = ("kernel_frequency", "freqHz", "defaultFreqHz")


@dataclass(frozen=True)
class Stream:
    """An AXI stream between two kernels; ``bits`` is the width of one element, of C++ type
    ``element``.
    """

    name: str
    source: str
    sink: str
    bits: int = WORD_BITS
    element: str = "lda::Word"

    @property
    def port(self) -> str:
        """Parameter of that name in both kernels."""
        return self.name + PORT_SUFFIX


@dataclass(frozen=True)
class Kernel:
    """A kernel: pointer arguments (m_axi) first, then streams, in the order of its parameters.

    ``written`` are the pointers that it writes through; it only reads through the others.
    """

    name: str
    pointers: tuple[str, ...]
    streams: tuple[str, ...]
    written: tuple[str, ...] = ()

    @property
    def started(self) -> bool:
        """Whether the host starts it; the others run freely (``ap_ctrl_none``)."""
        return bool(self.pointers)

    @property
    def protocol(self) -> str:
        """Block protocol of the kernel's return port."""
        return "ap_ctrl_chain" if self.started else "ap_ctrl_none"


@dataclass(frozen=True)
class Topology:
    """Kernels of one rank and the streams between them."""

    kernels: tuple[Kernel, ...]
    streams: tuple[Stream, ...]

    def kernel(self, name: str) -> Kernel:
        """The kernel of that name; KeyError if there is none."""
        return {kernel.name: kernel for kernel in self.kernels}[name]

    def stream(self, name: str) -> Stream:
        """The stream of that name; KeyError if there is none."""
        return {stream.name: stream for stream in self.streams}[name]

    def ports(self, kernel: str) -> tuple[str, ...]:
        """Parameter names of a kernel in the order that the host counts."""
        found = self.kernel(kernel)
        return found.pointers + tuple(self.stream(name).port for name in found.streams)


ENGINE = Topology(
    kernels=(
        Kernel("store", ("latent", "result"), ("xs", "ks", "rs", "ys"), ("result",)),
        Kernel("wload", ("weights", "dynamic"), ("ws", "pp", "qp")),
        Kernel("pre", (), ("xs", "pp", "st", "px", "ss")),
        Kernel("mac", (), ("px", "ks", "ws", "as")),
        Kernel("post", (), ("as", "rs", "qp", "ss", "ys", "st")),
    ),
    streams=(
        Stream("xs", "store", "pre"),
        Stream("px", "pre", "mac"),
        Stream("ks", "store", "mac"),
        Stream("ws", "wload", "mac"),
        Stream("as", "mac", "post", 2048, "lda::AccWord"),
        Stream("rs", "store", "post"),
        Stream("ys", "post", "store"),
        Stream("st", "post", "pre", 1024, "lda::StatWord"),
        Stream("ss", "pre", "post", 32, "int32_t"),
        Stream("pp", "wload", "pre"),
        Stream("qp", "wload", "post"),
    ),
)
