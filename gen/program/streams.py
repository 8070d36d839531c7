"""Elements per execution of an entry on every stream, counted on either side.

``produced`` uses only the fields of the sending kernel's entry, ``consumed`` only those of the
receiving kernel's.
"""

from __future__ import annotations

from gen.program.program import Program

Counts = dict[str, int]


def produced(program: Program, index: int) -> Counts:
    """Elements sent by entry ``index``."""
    entry = program.entries[index]
    store, pre, mac, post, wload = entry.store, entry.pre, entry.mac, entry.post, entry.wload
    walk = store.walk
    fill = walk.stride * walk.stride * walk.items * walk.height * walk.width
    elements = store.shape.groups * store.shape.words
    sources = store.source[: store.sources]
    own = (
        wload.groups * wload.ws_words
        if wload.load_first
        else max(0, wload.groups - 1) * wload.ws_words
    )
    ahead = program.entries[index + 1].wload.ws_words if wload.prefetch_next else 0
    return {
        "xs": fill * sum(region.blocks * region.planes for region in sources),
        "ks": store.shape.groups * store.weights.words,
        "rs": elements * store.residual_planes,
        "px": pre.fill * sum(pre.blocks[: pre.sources]),
        "ss": pre.fill * pre.row_sums,
        "as": mac.shape.groups * mac.shape.words * mac.shape.gates,
        "ys": post.shape.groups * post.shape.words * post.planes,
        "st": post.shape.groups * post.items * post.stats,
        "ws": own + ahead,
        "pp": wload.pp_words,
        "qp": wload.table_words + wload.groups * wload.gates * (1 + wload.bias_words),
    }


def consumed(program: Program, index: int) -> Counts:
    """Elements taken by entry ``index``."""
    entry = program.entries[index]
    store, pre, mac, post = entry.store, entry.pre, entry.mac, entry.post
    steps = mac.taps * mac.subs
    weights = 2 * steps * mac.shape.gates * (mac.shape.groups - 1 + mac.load_first)
    blocks = sum(
        -(-((mac.group[s].base & 7) // 2 + mac.source_subs[s]) // 4) for s in range(mac.sources)
    )
    phases = mac.stride * mac.stride
    rows = post.shape.groups * post.shape.gates
    return {
        "xs": pre.fill * sum(pre.blocks[s] * pre.planes[s] for s in range(pre.sources)),
        "ks": weights if mac.from_store else 0,
        "rs": post.shape.groups * post.items * post.words_per_item * post.residual_planes,
        "px": phases * mac.items * mac.height * mac.width * blocks,
        "ss": post.shape.fill * post.row_sums,
        "as": rows * post.items * post.words_per_item,
        "ys": store.shape.groups * store.shape.words * store.dest.planes,
        "st": pre.groups_out * pre.items_out if pre.stats_out >= 0 else 0,
        "ws": (0 if mac.from_store else weights) + 2 * mac.next_rows,
        "pp": 1 + 32 * pre.table + 6 * sum(pre.blocks[: pre.sources]),
        "qp": (64 if post.shape.gates == 2 else 0) + rows * (1 + (post.items + 1) // 2),
    }
