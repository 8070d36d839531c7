"""Addresses of every layer's words in the static and the dynamic DDR buffer."""

from __future__ import annotations

from dataclasses import dataclass

from gen.layers import HostTensor
from gen.program.layout import ceil_div
from gen.program.planned import Planned
from gen.program.program import HostWeight, StepBias
from gen.program.structs import BUFFER_DYNAMIC, BUFFER_STATIC, Addr, WloadEntry
from gen.qlayers import TABLE_SIZE

HEADER_WORDS = 1
TABLE_WORDS = TABLE_SIZE // 64  # int8
GATE_TABLE_WORDS = TABLE_SIZE * 2 // 64  # int16
GAMMA_BETA_WORDS = 6  # int16[64] and int32[64] of one block


@dataclass
class Cursor:
    """Next free word of a buffer."""

    word: int = 0

    def take(self, words: int) -> int:
        """Reserve words and return the first."""
        start = self.word
        self.word += words
        return start


def ws_words(made: Planned) -> int:
    """Words of weights per output group that come from DDR."""
    return 0 if made.weight is not None else 2 * made.shape.steps * made.gates


def pp_words(made: Planned) -> int:
    """Words of parameters that ``pre`` reads."""
    table = TABLE_WORDS if made.qlayer.read.table is not None else 0
    return HEADER_WORDS + table + GAMMA_BETA_WORDS * sum(r.blocks for r in made.regions)


def pp_heads(made: Planned) -> int:
    """Copies of the parameters: one per head where the heads lie in different lanes."""
    return made.sources[0].heads if made.regions[0].group.s1 else 1


def bias_words(made: Planned) -> int:
    """Words of biases per output group and gate."""
    return ceil_div(made.geometry.items, 2)


def step_bias(made: Planned, dynamic: Cursor) -> StepBias | None:
    """Room for a layer's biases in the dynamic buffer, if they change per step."""
    if made.layer.host_bias is None:
        return None
    words = made.groups * made.gates * bias_words(made)
    return StepBias(
        layer=made.layer.name,
        dest=made.dest.name,
        word=dynamic.take(words),
        words=words,
        groups=made.groups,
        gates=made.gates,
        items=made.geometry.items,
        rows=len(made.qlayer.bias),
    )


def host_weight(
    made: Planned, hosts: dict[str, HostTensor], batch: int, dynamic: Cursor
) -> HostWeight | None:
    """Room for a layer's host weights in the dynamic buffer."""
    layer = made.layer
    if layer.weight.kind != "host":
        return None
    _, tokens, channels = hosts[layer.weight.key].shape
    words = batch * layer.heads * made.groups * ws_words(made)
    return HostWeight(
        layer=layer.name,
        host=layer.weight.key,
        word=dynamic.take(words),
        words=words,
        items=batch,
        heads=layer.heads,
        tokens=tokens,
        head_channels=channels // layer.heads,
        transposed=layer.weight.transposed,
        groups=made.groups,
        steps=made.shape.steps,
    )


def wload_entry(
    made: Planned,
    static: Cursor,
    bias: StepBias | None,
    weight: HostWeight | None,
    prefetched: bool,
    prefetch_next: bool,
) -> WloadEntry:
    """The layer's entry of ``wload``; reserves its words of the static buffer."""
    group_words = ws_words(made)
    ws = Addr()
    if weight is not None:
        slice_words = made.groups * group_words
        ws = Addr(weight.word, weight.heads * slice_words, slice_words)
    elif group_words:
        ws = Addr(static.take(made.groups * group_words))
    parameters, copies = pp_words(made), pp_heads(made)
    pp = Addr(static.take(parameters * copies), 0, parameters if copies > 1 else 0)
    table_words = GATE_TABLE_WORDS if made.gates == 2 else 0
    table = Addr(static.take(table_words) if table_words else 0)
    rows = made.groups * made.gates
    scale = Addr(static.take(rows))
    where = Addr(bias.word if bias else static.take(rows * bias_words(made)))
    return WloadEntry(
        groups=made.groups,
        gates=made.gates,
        load_first=int(bool(group_words) and not prefetched),
        ws_words=group_words,
        ws_buffer=BUFFER_DYNAMIC if weight else BUFFER_STATIC,
        ws=ws,
        pp_words=parameters,
        pp_buffer=BUFFER_STATIC,
        pp=pp,
        table_words=table_words,
        table=table,
        scale=scale,
        bias_words=bias_words(made),
        bias_buffer=BUFFER_DYNAMIC if bias else BUFFER_STATIC,
        bias=where,
        prefetch_next=int(prefetch_next),
    )
