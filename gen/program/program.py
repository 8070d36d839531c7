"""The layer program of one U-Net on one engine: entries, memory map and buffer maps."""

from __future__ import annotations

from dataclasses import dataclass, field

from gen.program.engine import Engine
from gen.program.layout import Stored
from gen.program.structs import (
    MacEntry,
    PostEntry,
    PreEntry,
    Segment,
    StoreEntry,
    StoreIo,
    WloadEntry,
)


@dataclass(frozen=True)
class Entry:
    """One layer in the ROMs of the five kernels, and the stored tensors that it uses."""

    layer: str
    sources: tuple[str, ...]
    weight: str | None
    residual: str | None
    dest: str
    store: StoreEntry
    pre: PreEntry
    mac: MacEntry
    post: PostEntry
    wload: WloadEntry


@dataclass(frozen=True)
class StepBias:
    """Bias words of one layer in the dynamic buffer.

    ``rows`` weight rows (both halves of a gate) of ``items`` batch items, in the channel order of
    tensor ``dest``; ``word`` is the first 64-byte word.
    """

    layer: str
    dest: str
    word: int
    words: int
    groups: int
    gates: int
    items: int
    rows: int


@dataclass(frozen=True)
class HostWeight:
    """Weights of one attention product in the dynamic buffer, from a host tensor.

    One slice of ``groups`` x ``steps`` x 2 words for each of ``items`` x ``heads``.
    ``transposed``: weight[channel, token] (V), else weight[token, channel] (K).
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
    groups: int
    steps: int


@dataclass
class Program:
    """Everything the kernels and the host need to know besides the weights.

    ``stats`` maps a normalised tensor to its first channel in the statistics memory;
    ``store_peak`` rows are used of the store, ``store_bound`` is the least that would do.
    """

    engine: Engine
    batch: int
    input: str
    output: str
    segments: list[Segment]
    entries: list[Entry]
    tensors: dict[str, Stored]
    stats: dict[str, int]
    static_words: int
    dynamic_words: int
    step_biases: list[StepBias] = field(default_factory=list)
    host_weights: list[HostWeight] = field(default_factory=list)
    store_peak: int = 0
    store_bound: int = 0
    stats_peak: int = 0

    @property
    def input_row(self) -> int:
        """First row of the latent in the store."""
        return self.tensors[self.input].row

    @property
    def input_rows(self) -> int:
        """Rows of the latent buffer."""
        return self.tensors[self.input].rows

    @property
    def output_row(self) -> int:
        """First row of the result in the store."""
        return self.tensors[self.output].row

    @property
    def output_rows(self) -> int:
        """Rows of the result buffer."""
        return self.tensors[self.output].rows

    @property
    def io(self) -> StoreIo:
        """Rows that the store exchanges with the host."""
        return StoreIo(self.input_row, self.input_rows, self.output_row, self.output_rows)

    @property
    def executions(self) -> int:
        """Entries executed in one step, loops counted."""
        return sum(each.count * each.n0 * each.n1 for each in self.segments)

    def segment_of(self, index: int) -> Segment:
        """The segment that holds entry ``index``."""
        return next(s for s in self.segments if s.first <= index < s.first + s.count)
