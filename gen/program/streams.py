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
        + store.shape.weight_words(store.shape.units),
        "px": pre.shape.fill * sum(pre.groups) + pre.shape.weight_words(pre.shape.units),
        "gs": gather.shape.fill * sum(gather.groups),
        "ks": gather.shape.rows(gather.shape.units)
        // program.engine.byte_rows
        * (gather.shape.ring != RING_NONE),
        "ws": wload.ws_rows,
        "as": mac.shape.units * mac.shape.octets // 2,
        "bs": mac.shape.units * mac.shape.octets // 2,
        "rs": store.residual.groups * store.shape.octets,
        "ys": _results(post),
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
    pv_units = mac.shape.pv_units
    rows = mac.taps * (mac.subs - mac.pv_subs) * (mac.shape.units - pv_units)
    rows += mac.taps * mac.pv_subs * pv_units
    ring = mac.shape.ring != RING_NONE
    return {
        "xs": pre.shape.fill * sum(pre.groups) + pre.shape.weight_words(pre.shape.units),
        "px": gather.shape.fill * sum(gather.groups)
        + gather.shape.weight_words(gather.shape.units),
        "gs": mac.shape.fill * sum(mac.groups),
        "ks": rows if ring else 0,
        "ws": 0 if ring else rows * mac.row_parts,
        "as": post.shape.units * post.shape.octets // 2,
        "bs": post.shape.units * post.shape.octets // 2,
        "rs": groups * post.shape.octets * post.residual,
        "ys": sum(
            region.groups * store.shape.octets // (2 - region.wide)
            for region in (store.dest, store.pv_dest)
        ),
        "st": entry.reduce.stat_words,
        "sg": pre.stat_words,
        "ss": post.shape.octets * post.row_sums,
        "pp": TABLE_WORDS * pre.table + (2 if pre.uniform else pre.groups[0]) + pre.groups[1],
        "qp": GATE_TABLE_WORDS * post.table + post.shape.units * (1 + (post.items + 1) // 2),
    }


def _results(post: PostEntry) -> int:
    """ResultPairs that ``post`` sends."""
    shape = post.shape
    others = (shape.units // shape.gates - shape.pv_units) * shape.octets // (2 - post.wide)
    return others + shape.pv_units * shape.octets // (2 - post.pv_wide)


def _sums(post: PostEntry) -> int:
    """StatWords that ``post`` sends."""
    if post.stats in (STATS_GROUP, STATS_GROUP_ADD):
        return post.shape.units // post.shape.gates * post.items
    return post.shape.octets if post.stats != STATS_NONE else 0
