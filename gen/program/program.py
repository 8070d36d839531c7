"""The layer program of one U-Net on one engine: entries, memory map and buffer maps."""

from __future__ import annotations

from dataclasses import dataclass, field

from gen.program.engine import Engine
from gen.program.layout import HeadLoop, Stored
from gen.program.structs import (
    GatherEntry,
    MacEntry,
    Move,
    PostEntry,
    PreEntry,
    ReduceEntry,
    Segment,
    StoreEntry,
    StoreIo,
    Updates,
    WloadEntry,
)


@dataclass(frozen=True)
class Entry:
    """A strip of a layer (most have one) in the ROMs of the kernels, and the stored tensors that
    it uses; for some heads if it is a product of attention. ``item``: the batch item of loop
    counter i0 = 0.

    ``parts`` of a joined execution (docs/engine.md, "Joined products"): the product with V of one
    pair (item, head), whose names the entry bears, and that with K of the next, each as it would
    be alone.
    """

    layer: str
    strip: int
    sources: tuple[str, ...]
    weight: str | None
    residual: str | None
    dest: str
    heads: HeadLoop
    store: StoreEntry
    pre: PreEntry
    gather: GatherEntry
    reduce: ReduceEntry
    mac: MacEntry
    post: PostEntry
    wload: WloadEntry
    item: int = 0
    parts: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class StepBias:
    """Bias words of one layer in the dynamic buffer of every rank.

    ``rows`` weight rows (both halves of a gate) in the channel order of tensor ``dest``, of
    ``copies`` x ``items`` batch items: one copy per execution of the layer, each of ``groups``
    local groups x ``gates`` units of ceil(items / 2) words. ``word`` is the first 64-byte word.
    """

    layer: str
    dest: str
    word: int
    words: int
    groups: int
    gates: int
    copies: int
    items: int
    rows: int


@dataclass(frozen=True)
class StepAffine:
    """Parameter words of one layer whose norm is scaled and shifted per item and step.

    ``item_words`` per batch item: a table if ``table``, then one word per local group of
    ``sources`` (``channels`` in all, in ``norm_groups`` norm groups).
    """

    layer: str
    sources: tuple[str, ...]
    word: int
    words: int
    item_words: int
    items: int
    channels: int
    norm_groups: int
    table: bool


@dataclass(frozen=True)
class HostWeight:
    """Weights of one attention product in the dynamic buffer of every rank, from a host tensor.

    For each of ``items``, one slice per head of ``groups`` units x ``steps`` of 16 inputs, whose
    first output (``transposed``, V: weight[channel, token]) or input (K: weight[token, channel])
    that belongs to the head is ``lanes``; ``groups`` and ``lanes`` by head. ``tokens`` is how many
    a prompt may have; the last ``mask_words`` of the ``words`` say which ones it has: scale words
    of the units (K), parameters of the probabilities (V).
    """

    layer: str
    host: str
    word: int
    words: int
    items: int
    heads: int
    tokens: int
    head_channels: int
    transposed: bool
    groups: tuple[int, ...]
    lanes: tuple[int, ...]
    steps: int
    mask_words: int

    @property
    def mask_word(self) -> int:
        """First of the words that say which tokens there are."""
        return self.word + self.words - self.mask_words

    def head_word(self, head: int) -> int:
        """First word of a head of the first item; of head ``heads``: the end of the item."""
        unit = self.item_words // sum(self.groups)
        return self.word + unit * sum(self.groups[:head])

    @property
    def item_words(self) -> int:
        """Words of an item."""
        return (self.words - self.mask_words) // self.items


@dataclass
class Program:
    """Everything the kernels and the host need to know besides the weights; the same for all
    ranks.

    ``stats`` maps a tensor that a group norm reads to its first word of sums, ``row_stats`` one
    that a layer norm or a softmax reads to its first octet. ``store_peak`` rows are used of the
    store, ``store_bound`` is the least that would do; ``stats_peak`` words of sums, ``rows_peak``
    octets of row statistics are used. ``cache_used`` of ``static_rows`` weight rows stay on the
    card. ``moves`` between the store and ``spill_rows`` rows of DDR; ``spilled`` maps a tensor that
    lies there for a while to its first row. Buffers have ``static_words`` and ``dynamic_words``
    words of 64 bytes on every rank. ``updates``: for starts of several steps.
    """

    engine: Engine
    batch: int
    input: str
    output: str
    segments: list[Segment]
    entries: list[Entry]
    tensors: dict[str, Stored]
    stats: dict[str, int]
    row_stats: dict[str, int]
    static_words: int
    dynamic_words: int
    updates: Updates
    step_biases: list[StepBias] = field(default_factory=list)
    step_affines: list[StepAffine] = field(default_factory=list)
    host_weights: list[HostWeight] = field(default_factory=list)
    store_peak: int = 0
    store_bound: int = 0
    stats_peak: int = 0
    rows_peak: int = 0
    static_rows: int = 0
    cache_used: int = 0
    moves: list[Move] = field(default_factory=list)
    spilled: dict[str, int] = field(default_factory=dict)
    spill_rows: int = 0

    @property
    def ranks(self) -> int:
        """Number of ranks."""
        return self.engine.ranks

    @property
    def has_sampler(self) -> bool:
        """Whether a start may be several steps."""
        return self.updates.octets > 0

    @property
    def input_row(self) -> int:
        """First row of the latent in the store."""
        return self.tensors[self.input].row

    @property
    def input_rows(self) -> int:
        """Rows of the latent buffer of every rank."""
        return self.tensors[self.input].rows

    @property
    def output_row(self) -> int:
        """First row of the result in the store."""
        return self.tensors[self.output].row

    @property
    def output_rows(self) -> int:
        """Rows of the result buffer of every rank."""
        return self.tensors[self.output].rows

    @property
    def io(self) -> StoreIo:
        """Rows that the store exchanges with the host."""
        return StoreIo(self.input_row, self.input_rows, self.output_row, self.output_rows)

    @property
    def executions(self) -> int:
        """Entries executed in one step, loops counted."""
        return sum(each.count * each.n0 * each.n1 for each in self.segments)

    def entries_of(self, layer: str) -> list[int]:
        """Indices of the entries of a layer, one per strip and loop over heads."""
        return [index for index, each in enumerate(self.entries) if each.layer == layer]

    def segment_of(self, index: int) -> Segment:
        """The segment that holds entry ``index``."""
        return next(s for s in self.segments if s.first <= index < s.first + s.count)


def moved_rows(program: Program) -> int:
    """Rows that a step moves between the store of a rank and DDR."""
    total = 0
    for segment in program.segments:
        for entry in program.entries[segment.first : segment.first + segment.count]:
            store, loops = entry.store, segment.n0 * segment.n1
            each = store.moves_first + store.moves_once
            end = each + store.moves_before + store.moves_after
            once = program.moves[store.moves_first : each]
            total += sum(move.rows * move.repeat for move in once)
            total += loops * sum(m.rows * m.repeat for m in program.moves[each:end])
    return total
