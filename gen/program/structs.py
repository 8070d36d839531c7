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

RING_NONE, RING_K, RING_V = range(3)
NORM = {"none": 0, "group": 1, "layer": 2, "softmax": 3}
STATS_NONE, STATS_GROUP, STATS_GROUP_ADD, STATS_LAYER, STATS_SOFTMAX = range(5)
# of rows: those that read their scales, and those that make them
ROW_NORMS, ROW_STATS = (NORM["layer"], NORM["softmax"]), (STATS_LAYER, STATS_SOFTMAX)
BUFFER_STATIC, BUFFER_DYNAMIC = range(2)
FLUSH_NEVER, FLUSH_ALWAYS, FLUSH_FIRST = range(3)


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


def of_v(unit: int, pv_units: int, every: int) -> bool:
    """Whether a unit of joined products is one of the ``pv_units`` with V, one in ``every``."""
    turn, rest = divmod(unit, every)
    return rest == 0 and turn < pv_units


@dataclass(frozen=True)
class Shape:
    """Work of one execution, the same in every kernel."""

    units: int
    per_round: int
    gates: int
    octets: int
    steps: int
    lead: int
    fill: int
    ring: int
    ring_words: int
    pv_units: int = 0
    pv_every: int = 0
    pv_steps: int = 0
    pv_words: int = 0

    @property
    def joined(self) -> bool:
        """Whether a product with V is computed beside the one with K."""
        return self.pv_units > 0

    def of_v(self, unit: int) -> bool:
        """Whether a unit is one of the product with V."""
        return self.joined and of_v(unit, self.pv_units, self.pv_every)

    def place(self, unit: int) -> int:
        """Where what is kept by unit lies for this one: those with V come before those with K."""
        if not self.joined:
            return unit
        if self.of_v(unit):
            return unit // self.pv_every
        return self.pv_units + unit - min(self.pv_units, unit // self.pv_every + 1)

    @property
    def by_place(self) -> list[int]:
        """The unit of every place."""
        return sorted(range(self.units), key=self.place)

    def rows(self, units: int) -> int:
        """Weight rows of the first ``units`` places of units."""
        pv = min(units, self.pv_units)
        return pv * self.pv_steps + (units - pv) * self.steps

    def weight_words(self, units: int) -> int:
        """Words on px of the ring weights of the first ``units`` places of units."""
        if self.ring == RING_NONE:
            return 0
        pv = min(units, self.pv_units)
        return pv * self.pv_words + (units - pv) * self.ring_words


@dataclass(frozen=True)
class Region:
    """A tensor, a head or a strip of it, in the store."""

    row: Addr = Addr()
    octet: Addr = Addr()
    groups: int = 0
    wide: int = 0
    group_rows: int = 0


@dataclass(frozen=True)
class Move:
    """Rows from the store to DDR (``put``) or back."""

    put: int
    rows: int
    repeat: int
    store_stride: int
    ddr_stride: int
    store: Addr
    ddr: Addr


@dataclass(frozen=True)
class StoreEntry:
    """What the store reads and writes."""

    shape: Shape
    flush: int
    pending: int
    pending_tile: int
    pending_end: int
    sources: int
    source: tuple[Region, ...] = field(metadata={"length": MAX_SOURCES})
    weights: Region
    residual: Region
    dest: Region
    pv_weights: Region = Region()
    pv_dest: Region = Region()
    pv_share: int = 0
    share: int = 0
    moves_first: int = 0
    moves_once: int = 0
    moves_before: int = 0
    moves_after: int = 0


@dataclass(frozen=True)
class StoreIo:
    """Rows copied from the latent before the first entry and to the result after the last."""

    input_row: int
    input_rows: int
    output_row: int
    output_rows: int


@dataclass(frozen=True)
class Updates:
    """What several steps of one start need to know of each other (hls/kernels/program.hpp)."""

    step_word: int
    step_words: int
    octets: int
    pair_octets: int
    groups: int
    group_rows: int


@dataclass(frozen=True)
class PreEntry:
    """What happens to every value on its way to the multipliers, and which sums are kept."""

    shape: Shape
    items: int
    item_octets: int
    sources: int
    groups: tuple[int, ...] = field(metadata={"length": MAX_SOURCES})
    wide: tuple[int, ...] = field(metadata={"length": MAX_SOURCES})
    align: tuple[int, ...] = field(metadata={"length": MAX_SOURCES})
    channels: tuple[int, ...] = field(metadata={"length": MAX_SOURCES})
    stats_base: tuple[Addr, ...] = field(metadata={"length": MAX_SOURCES})
    stats_pitch: tuple[int, ...] = field(metadata={"length": MAX_SOURCES})
    row_in: Addr
    norm: int
    norm_groups: int
    group_size: int
    n: int
    shift: int
    plain_shift: int
    table: int
    uniform: int
    stats: int
    stats_out: Addr
    stats_pitch_out: int
    items_out: int
    row_out: Addr
    stat_words: int
    by_item: int
    sums_left: int
    sums_before: int
    rows_ahead: int
    rows_sent: int
    rows_first: int
    pp_once: int


@dataclass(frozen=True)
class GatherEntry:
    """What travels between the ranks on its way to the multipliers."""

    shape: Shape
    sources: int
    groups: tuple[int, ...] = field(metadata={"length": MAX_SOURCES})
    ring_groups: int
    ring_valid: int
    ring_first: int
    row_sums: int


@dataclass(frozen=True)
class ReduceEntry:
    """How many sums the ranks exchange."""

    stat_words: int


@dataclass(frozen=True)
class MacEntry:
    """Window geometry and weight order of the multiplier array."""

    shape: Shape
    items: int
    out_slot: int
    fill_slot: int
    height: int
    width: int
    pitch: int
    src_height: int
    src_width: int
    src_pitch: int
    stride: int
    up: int
    origin: int
    start: int
    window_slots: int
    plane: int
    split: int
    limit_y: int
    limit_x: int
    taps: int
    subs: int
    pv_subs: int
    offset: tuple[int, ...] = field(metadata={"length": MAX_TAPS})
    ty: tuple[int, ...] = field(metadata={"length": MAX_TAPS})
    tx: tuple[int, ...] = field(metadata={"length": MAX_TAPS})
    pad: int
    sources: int
    groups: tuple[int, ...] = field(metadata={"length": MAX_SOURCES})
    source_groups: tuple[int, ...] = field(metadata={"length": MAX_SOURCES})
    sub_base: tuple[int, ...] = field(metadata={"length": MAX_SOURCES})
    first_rows: int
    late: int

    @property
    def row_parts(self) -> int:
        """Weight rows of a step of 16 inputs: two where they hold halves of its weights."""
        return self.shape.steps // (self.taps * (self.subs - self.pv_subs))


@dataclass(frozen=True)
class PostEntry:
    """What happens to every accumulator on its way to the store."""

    shape: Shape
    items: int
    out_octet: int
    pixels: int
    item_octets: int
    wide: int
    pv_wide: int
    residual: int
    residual_shift: int
    row_sums: int
    gate_shift: int
    stats: int
    by_item: int
    table: int


@dataclass(frozen=True)
class WloadEntry:
    """Which words of DDR go to whom."""

    units: int
    per_round: int
    ws_rows: int
    round_rows: int
    row_words: int
    ws_buffer: int
    ws: Addr
    cache: int
    hd: Addr
    pp_words: int
    pp_buffer: int
    pp: Addr
    table_words: int
    table: Addr
    scale_buffer: int
    scale: Addr
    bias_words: int
    bias_buffer: int
    bias: Addr
    pp_once: int


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
