"""Elements per execution of an entry on every stream of a rank, counted on either side.

``produced`` uses only the fields of the sending kernel's entry, ``consumed`` only those of the
receiving kernel's.
"""

from __future__ import annotations

from gen.program.program import Program
from gen.program.structs import RING_NONE, STATS_GROUP, STATS_GROUP_ADD, STATS_NONE, PostEntry

Counts = dict[str, int]

TABLE_WORDS = 32
GATE_TABLE_WORDS = 64


def produced(program: Program, index: int) -> Counts:
    """Elements sent by entry ``index``."""
    entry = program.entries[index]
    store, pre, gather, mac, post, wload = (
        entry.store,
        entry.pre,
        entry.gather,
        entry.mac,
        entry.post,
        entry.wload,
    )
    sources = store.source[: store.sources]
    return {
        "xs": store.shape.fill * sum(region.groups for region in sources)
        + store.shape.units * store.shape.ring_words,
        "px": pre.shape.fill * sum(pre.groups) + pre.shape.units * pre.shape.ring_words,
        "gs": gather.shape.fill * sum(gather.groups),
        "ks": gather.shape.units
        * (gather.shape.steps // program.engine.byte_rows)
        * (gather.shape.ring != RING_NONE),
        "ws": wload.ws_rows,
        "as": mac.shape.units * mac.shape.octets,
        "rs": store.residual.groups * store.shape.octets,
        "ys": post.shape.units // post.shape.gates * post.shape.octets // (2 - post.wide),
        "st": _sums(post),
        "sg": entry.reduce.stat_words,
        "ss": gather.shape.fill * gather.row_sums,
        "pp": wload.pp_words,
        "qp": wload.table_words + wload.units * (1 + wload.bias_words),
    }


def consumed(program: Program, index: int) -> Counts:
    """Elements taken by entry ``index``."""
    entry = program.entries[index]
    store, pre, gather, mac, post = entry.store, entry.pre, entry.gather, entry.mac, entry.post
    groups = post.shape.units // post.shape.gates
    rows = mac.taps * mac.subs * mac.shape.units
    ring = mac.shape.ring != RING_NONE
    return {
        "xs": pre.shape.fill * sum(pre.groups) + pre.shape.units * pre.shape.ring_words,
        "px": gather.shape.fill * sum(gather.groups) + gather.shape.units * gather.shape.ring_words,
        "gs": mac.shape.fill * sum(mac.groups),
        "ks": rows if ring else 0,
        "ws": 0 if ring else rows * mac.row_parts,
        "as": post.shape.units * post.shape.octets,
        "rs": groups * post.shape.octets * post.residual,
        "ys": store.dest.groups * store.shape.octets // (2 - store.dest.wide),
        "st": entry.reduce.stat_words,
        "sg": pre.stat_words,
        "ss": post.shape.octets * post.row_sums,
        "pp": TABLE_WORDS * pre.table + (2 if pre.uniform else sum(pre.groups)),
        "qp": GATE_TABLE_WORDS * post.table + post.shape.units * (1 + (post.items + 1) // 2),
    }


def _sums(post: PostEntry) -> int:
    """StatWords that ``post`` sends."""
    if post.stats in (STATS_GROUP, STATS_GROUP_ADD):
        return post.shape.units // post.shape.gates * post.items
    return post.shape.octets if post.stats != STATS_NONE else 0
