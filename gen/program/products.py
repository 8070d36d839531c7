"""The products that an execution computes: one, or both of a joined one."""

from __future__ import annotations

from dataclasses import replace

from gen.program.program import Entry
from gen.program.structs import NORM, RING_V, STATS_NONE, Region


def products(entry: Entry) -> tuple[Entry, ...]:
    """The entry itself; of a joined one the product with V and that with K (docs/engine.md, "Joined
    products"), each with the names of its part and with what the joined execution does for it.
    """
    if not entry.parts:
        return (entry,)
    values, keys = entry.parts
    store, shape = entry.store, entry.store.shape
    alone = replace(shape, pv_units=0, pv_every=0, pv_steps=0, pv_words=0)
    of_values = replace(
        alone,
        units=shape.pv_units,
        per_round=shape.pv_units,
        steps=shape.pv_steps,
        ring=RING_V,
        ring_words=shape.pv_words,
    )
    others = shape.units - shape.pv_units
    of_keys = replace(alone, units=others, per_round=others)
    return (
        replace(
            values,
            store=replace(
                store,
                shape=of_values,
                sources=1,
                source=(store.source[0], Region()),
                weights=store.pv_weights,
                dest=store.pv_dest,
            ),
            pre=replace(entry.pre, shape=of_values, stats=STATS_NONE),
            mac=replace(entry.mac, shape=of_values),
            post=replace(entry.post, shape=of_values, wide=entry.post.pv_wide, stats=STATS_NONE),
        ),
        replace(
            keys,
            store=replace(store, shape=of_keys, sources=1, source=(store.source[1], Region())),
            pre=replace(entry.pre, shape=of_keys, norm=NORM["none"]),
            mac=replace(entry.mac, shape=of_keys),
            post=replace(entry.post, shape=of_keys, row_sums=0),
        ),
    )
