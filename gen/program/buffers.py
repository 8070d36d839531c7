"""Addresses of every layer's words in the static and the dynamic DDR buffer, of each rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gen.layers import HostTensor
from gen.program.layout import SUB, ceil_div
from gen.program.planned import Planned
from gen.program.program import HostWeight, StepAffine, StepBias
from gen.program.served import Key
from gen.program.structs import BUFFER_DYNAMIC, BUFFER_STATIC, Addr, WloadEntry
from gen.qlayers import TABLE_SIZE

TABLE_WORDS = TABLE_SIZE // 64  # int8
GATE_TABLE_WORDS = TABLE_SIZE * 2 // 64  # int16
UNIFORM_WORDS = 2


@dataclass
class Cursor:
    """Next free word of a buffer."""

    word: int = 0

    def take(self, words: int) -> int:
        """Reserve words and return the first."""
        start = self.word
        self.word += words
        return start


@dataclass(frozen=True)
class Places:
    """Where a layer's words lie. ``uniform``: two pp words serve all local groups."""

    ws_rows: int
    ws: Addr
    hd: int
    pp_words: int
    pp: Addr
    uniform: bool
    table_words: int
    table: int
    scale: Addr
    bias_words: int
    bias: Addr
    step_bias: StepBias | None
    step_affine: StepAffine | None
    host_weight: HostWeight | None


def ws_rows(made: Planned) -> int:
    """Weight rows of one execution that come from DDR."""
    return 0 if made.weight is not None else made.units * made.steps


def _masks(made: Planned) -> str:
    """Which words of an attention product say how many tokens the prompt has: scale words of the
    product with K, pp words of the one with V; none where K and V are the card's own.
    """
    weight = made.layer.weight
    if weight.kind != "host":
        return ""
    return "pp" if weight.transposed else "scale"


def is_uniform(made: Planned) -> bool:
    """Whether all local groups but the last take the same parameters, on every rank.

    So it is where one scale serves all channels: attention, and operands that pass unchanged.
    """
    read = made.qlayer.read
    if len(made.sources) > 1 or made.local_groups[0] <= UNIFORM_WORDS:
        return False
    if made.joined and made.per_head:
        return False  # source 1 of an execution of both products
    if _masks(made) == "pp":
        return False  # a prompt may end in any group
    source = made.sources[0]
    full = not made.head.phase if made.per_head else source.head_pitch == source.head_channels
    plain = made.layer.read.norm in ("none", "softmax") and made.layer.read.host_affine is None
    return full and plain and len(set(read.gamma)) == 1 and len(set(read.beta)) == 1


def heads_differ(made: Planned) -> bool:
    """Whether every head has parameters of its own (product with K)."""
    if not made.per_head:
        return False
    rows = [
        values.reshape(made.sources[0].heads, -1)
        for values in (made.qlayer.read.gamma, made.qlayer.read.beta)
    ]
    return any((each != each[0]).any() for each in rows)


def pp_words(made: Planned) -> int:
    """Words of parameters that ``pre.apply`` reads in one execution."""
    table = TABLE_WORDS if made.qlayer.read.table is not None else 0
    return table + (UNIFORM_WORDS if is_uniform(made) else sum(made.local_groups))


@dataclass
class Static:
    """Parts of the static buffer. Words of a kind lie together, in the order of their layers: those
    of both products that share executions follow each other.
    """

    pp: Cursor
    scale: Cursor
    bias: Cursor
    other: Cursor


def place_all(
    layers: Mapping[Key, Planned], hosts: Sequence[HostWeight | None], dynamic: Cursor
) -> tuple[dict[Key, Places], int]:
    """Places of layers by key, whose layer's ``hosts`` they take, and the words of the static
    buffer. Words of a kind lie in the order of the layers.
    """
    # how many there are of each kind
    static = Static(Cursor(), Cursor(), Cursor(), Cursor())
    for key, made in layers.items():
        place(made, hosts[key.layer], static, Cursor(dynamic.word))
    counts = (static.pp.word, static.scale.word, static.bias.word)
    starts = [sum(counts[:k]) for k in range(len(counts) + 1)]
    static = Static(*(Cursor(start) for start in starts))
    places = {key: place(made, hosts[key.layer], static, dynamic) for key, made in layers.items()}
    return places, static.other.word


def place(made: Planned, host: HostWeight | None, static: Static, dynamic: Cursor) -> Places:
    """Reserve a layer's words in both buffers, but for the weights from the host."""
    rows = ws_rows(made)
    ws = Addr()
    if host is not None:
        heads = made.heads
        first = host.head_word(heads.first)
        following = host.head_word(heads.first + heads.step) if heads.count > 1 else first
        ws = Addr(first, host.item_words, following - first)
    elif rows:
        ws = Addr(static.other.take(made.row_words * rows))
    pp_count = pp_words(made)
    affine = _step_affine(made, pp_count, dynamic)
    if affine is not None:
        pp = Addr(affine.word, affine.item_words if made.n0 > 1 else 0)
    elif host is not None and _masks(made) == "pp":
        pp = Addr(host.mask_word)
    else:
        copies = made.heads.count if heads_differ(made) else 1
        pp = Addr(static.pp.take(pp_count * copies), 0, pp_count if copies > 1 else 0)
    if host is not None and _masks(made) == "scale":
        scale = Addr(host.mask_word)
    else:
        scale = Addr(static.scale.take(made.units))
    table_words = GATE_TABLE_WORDS if made.gates == 2 else 0
    bias_count = ceil_div(made.items, 2)
    step = _step_bias(made, bias_count, dynamic)
    if step is not None:
        bias = Addr(step.word, step.words // step.copies if step.copies > 1 else 0)
    else:
        bias = Addr(static.bias.take(made.units * bias_count))
    return Places(
        ws_rows=rows,
        ws=ws,
        hd=static.other.take(1),
        pp_words=pp_count,
        pp=pp,
        uniform=is_uniform(made),
        table_words=table_words,
        table=static.other.take(table_words) if table_words else 0,
        scale=scale,
        bias_words=bias_count,
        bias=bias,
        step_bias=step,
        step_affine=affine,
        host_weight=host,
    )


def _step_bias(made: Planned, words: int, dynamic: Cursor) -> StepBias | None:
    if made.layer.host_bias is None:
        return None
    count = made.n0 * made.units * words
    return StepBias(
        layer=made.layer.name,
        dest=made.dest.name,
        word=dynamic.take(count),
        words=count,
        groups=made.output_groups,
        gates=made.gates,
        copies=made.n0,
        items=made.items,
        rows=len(made.qlayer.bias),
    )


def _step_affine(made: Planned, words: int, dynamic: Cursor) -> StepAffine | None:
    read = made.layer.read
    if read.host_affine is None:
        return None
    return StepAffine(
        layer=made.layer.name,
        sources=made.layer.sources,
        word=dynamic.take(made.n0 * words),
        words=made.n0 * words,
        item_words=words,
        items=made.n0,
        channels=sum(s.channels for s in made.sources),
        norm_groups=read.groups,
        table=made.qlayer.read.table is not None,
    )


def host_weight(
    made: Planned, hosts: Mapping[str, HostTensor], dynamic: Cursor
) -> HostWeight | None:
    """Reserve the words of a layer whose weights come from the host, for all items and heads, and
    those that say which tokens there are.
    """
    layer = made.layer
    if layer.weight.kind != "host":
        return None
    _, tokens, channels = hosts[layer.weight.key].shape
    tensor = made.dest if made.softmax else made.sources[0]
    places = [tensor.head(head) for head in range(layer.heads)]
    outputs = [each.local_groups if made.softmax else made.output_groups for each in places]
    # a step of the product with K begins with an even group
    lanes = [each.lane if made.softmax else each.lane % SUB for each in places]
    mask_words = pp_words(made) if _masks(made) == "pp" else made.units
    words = made.n0 * sum(outputs) * made.row_words * made.steps + mask_words
    return HostWeight(
        layer=layer.name,
        host=layer.weight.key,
        word=dynamic.take(words),
        words=words,
        items=made.n0,
        heads=layer.heads,
        tokens=tokens,
        head_channels=channels // layer.heads,
        transposed=layer.weight.transposed,
        groups=tuple(outputs),
        lanes=tuple(lanes),
        steps=made.steps // made.engine.byte_rows,
        mask_words=mask_words,
    )


def wload_entry(
    made: Planned, places: Places, per_round: int, cache: int, pp_once: int
) -> WloadEntry:
    """The entry of ``wload`` of any strip of a layer."""
    masks = _masks(made)
    return WloadEntry(
        units=made.units,
        per_round=per_round,
        ws_rows=places.ws_rows,
        round_rows=per_round * made.steps if places.ws_rows else 0,
        row_words=made.row_words,
        ws_buffer=BUFFER_DYNAMIC if places.host_weight else BUFFER_STATIC,
        ws=places.ws,
        cache=cache,
        hd=Addr(places.hd),
        pp_words=places.pp_words,
        pp_buffer=BUFFER_DYNAMIC if places.step_affine or masks == "pp" else BUFFER_STATIC,
        pp=places.pp,
        table_words=places.table_words,
        table=Addr(places.table),
        scale_buffer=BUFFER_DYNAMIC if masks == "scale" else BUFFER_STATIC,
        scale=places.scale,
        bias_words=places.bias_words,
        bias_buffer=BUFFER_DYNAMIC if places.step_bias else BUFFER_STATIC,
        bias=places.bias,
        pp_once=pp_once,
    )
