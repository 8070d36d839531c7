"""The structs of ``hls/kernels/program.hpp``, field for field.

Every member there is an ``int32_t``, so a struct is a flat run of int32 in declaration order:
``words`` gives that run (the binary of the generic card) and ``initialiser`` the C++ text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

MAX_TAPS = 9
MAX_SOURCES = 2

NORM = {"none": 0, "group": 1, "layer": 2, "softmax": 3}
BUFFER_STATIC = 0
BUFFER_DYNAMIC = 1


@dataclass(frozen=True)
class Segment:
    """Entries ``first`` .. ``first + count - 1`` executed n0 x n1 times, n1 inner."""

    first: int
    count: int
    n0: int = 1
    n1: int = 1


@dataclass(frozen=True)
class Addr:
    """base + i0 * s0 + i1 * s1."""

    base: int = 0
    s0: int = 0
    s1: int = 0

    def at(self, i0: int, i1: int) -> int:
        """Value in loop iteration (i0, i1)."""
        return self.base + i0 * self.s0 + i1 * self.s1


@dataclass(frozen=True)
class Shape:
    """Work of one entry, the same in every kernel."""

    groups: int
    tiles: int
    words: int
    gates: int
    steps: int
    lead: int
    fill: int


@dataclass(frozen=True)
class Walk:
    """Walk over the window pixels: phase, item, y, x."""

    items: int
    height: int
    width: int
    stride: int
    up: int
    src_height: int
    src_width: int
    src_pitch: int


@dataclass(frozen=True)
class Region:
    """A tensor, or one head of a tensor, in the store."""

    row: Addr = Addr()
    group: Addr = Addr()
    px: Addr = Addr()
    planes: int = 0
    blocks: int = 0
    subs: int = 0
    block_rows: int = 0
    plane_rows: int = 0


@dataclass(frozen=True)
class StoreWeights:
    """Weights read from the store (K or V); words == 0: none."""

    region: Region = Region()
    words: int = 0
    px_group: int = 0
    px_step: int = 0
    px_half: int = 0
    ch_group: int = 0
    ch_step: int = 0
    ch_half: int = 0


@dataclass(frozen=True)
class StoreEntry:
    """What the store reads and writes."""

    shape: Shape
    walk: Walk
    sources: int
    source: tuple[Region, ...] = field(metadata={"length": MAX_SOURCES})
    weights: StoreWeights
    residual_planes: int
    residual: Region
    dest: Region


@dataclass(frozen=True)
class StoreIo:
    """Rows copied from the latent before the first entry and to the result after the last."""

    input_row: int
    input_rows: int
    output_row: int
    output_rows: int


@dataclass(frozen=True)
class PreEntry:
    """What happens to every value on its way to the multipliers."""

    fill: int
    items: int
    pixels: int
    sources: int
    blocks: tuple[int, ...] = field(metadata={"length": MAX_SOURCES})
    planes: tuple[int, ...] = field(metadata={"length": MAX_SOURCES})
    align: tuple[int, ...] = field(metadata={"length": MAX_SOURCES})
    channels: tuple[int, ...] = field(metadata={"length": MAX_SOURCES})
    stats_base: tuple[int, ...] = field(metadata={"length": MAX_SOURCES})
    norm: int
    norm_groups: int
    group_size: int
    n: int
    valid: int
    shift: int
    table: int
    row_sums: int
    stats_out: int
    groups_out: int
    items_out: int


@dataclass(frozen=True)
class MacEntry:
    """Window geometry and weight order of the multiplier array."""

    shape: Shape
    items: int
    height: int
    width: int
    pitch: int
    stride: int
    limit_y: int
    limit_x: int
    taps: int
    subs: int
    offset: tuple[int, ...] = field(metadata={"length": MAX_TAPS})
    ty: tuple[int, ...] = field(metadata={"length": MAX_TAPS})
    tx: tuple[int, ...] = field(metadata={"length": MAX_TAPS})
    pad: int
    sources: int
    group: tuple[Addr, ...] = field(metadata={"length": MAX_SOURCES})
    source_subs: tuple[int, ...] = field(metadata={"length": MAX_SOURCES})
    from_store: int
    transposed: int
    load_first: int
    next_rows: int


@dataclass(frozen=True)
class PostEntry:
    """What happens to every accumulator on its way to the store."""

    shape: Shape
    items: int
    pixels: int
    words_per_item: int
    planes: int
    residual_planes: int
    residual_shift: int
    row_sums: int
    gate_shift: int
    stats: int


@dataclass(frozen=True)
class WloadEntry:
    """Which words of DDR go to whom."""

    groups: int
    gates: int
    load_first: int
    ws_words: int
    ws_buffer: int
    ws: Addr
    pp_words: int
    pp_buffer: int
    pp: Addr
    table_words: int
    table: Addr
    scale: Addr
    bias_words: int
    bias_buffer: int
    bias: Addr
    prefetch_next: int


def words(value: Any) -> Iterator[int]:
    """The int32 run of a struct, in declaration order.

    Raises:
        AssertionError: an array member has the wrong length, or a value does not fit int32.
    """
    if is_dataclass(value) and not isinstance(value, type):
        for member in fields(value):
            item = getattr(value, member.name)
            length = member.metadata.get("length")
            assert length is None or len(item) == length, f"{member.name}: {item}"
            yield from words(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from words(item)
    else:
        assert -(2**31) <= value < 2**31, value
        yield int(value)


def initialiser(value: Any) -> str:
    """C++ aggregate initialiser of a struct, nested as its type is."""
    if is_dataclass(value) and not isinstance(value, type):
        return "{" + ", ".join(initialiser(getattr(value, m.name)) for m in fields(value)) + "}"
    if isinstance(value, tuple):
        return "{" + ", ".join(initialiser(item) for item in value) + "}"
    return str(int(value))
