"""What the window buffer holds when a tile reads it, re-enacted octet by octet.

Written from docs/engine.md alone ("Window buffer", "Multiplying"), so that it judges
``gen.program.geometry``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gen.program.engine import Engine
from gen.program.structs import MacEntry

Int64 = NDArray[np.int64]

LANES = 8
NOWHERE = -1


def window_fault(mac: MacEntry, engine: Engine) -> str | None:
    """What is wrong with the window of an entry, or None."""
    rows = -(-mac.window_slots // engine.pixels) * mac.subs
    if rows > engine.window_rows:
        return f"{rows} window rows of {engine.window_rows} are used"
    fault = _subs_fault(mac)
    if fault:
        return fault
    if mac.stride == 1 and mac.window_slots < mac.plane:
        fault = _turns_fault(mac, engine)
        if fault:
            return fault
        mac = replace(mac, window_slots=mac.plane)
    if mac.window_slots != mac.plane * mac.stride**2:
        return f"{mac.window_slots} window pixels are not {mac.stride**2} phases of {mac.plane}"
    slots = mac.fill_slot + np.arange(LANES * mac.shape.fill)
    copies = [_index(mac, slots, c) for c in range(4 if mac.up else 1)]
    held = np.full(mac.window_slots, NOWHERE)
    since = np.zeros(mac.window_slots, dtype=np.int64)
    for index in copies:
        kept = index != NOWHERE
        if (held[index[kept]] != NOWHERE).any():
            return "two source pixels share a window slot"
        held[index[kept]] = slots[kept]
        since[index[kept]] = np.flatnonzero(kept) // LANES
    return _banks_fault(mac, engine, copies) or _taps_fault(mac, engine, held, since)


def _subs_fault(mac: MacEntry) -> str | None:
    """A source that does not fill just the subs of its own; those below 0 are dropped."""
    # of joined products the second source comes first
    middle = mac.subs - mac.pv_subs if mac.pv_subs else mac.sub_base[1]
    first, ends = (0, middle), (middle if mac.sources > 1 else mac.subs, mac.subs)
    if mac.pv_subs:
        first, ends = first[::-1], ends[::-1]
    for s in range(mac.sources):
        end = mac.sub_base[s] + (mac.source_groups[s] + 1) // 2
        if max(mac.sub_base[s], 0) != first[s] or end != ends[s]:
            return f"source {s} fills subs {mac.sub_base[s]}..{end} of {first[s]}..{ends[s]}"
    return None


def _turns_fault(mac: MacEntry, engine: Engine) -> str | None:
    """A tile whose pixels are overwritten before it is computed, as the buffer holds a part."""
    if mac.taps > 1 or mac.up or mac.start or mac.shape.per_round < mac.shape.units:
        return "a part of the window is held for tiles that are visited again"
    if mac.window_slots % engine.pixels:
        return f"{mac.window_slots} window pixels are not whole tiles"
    octets = engine.pixels // LANES
    tiles = np.arange(-(-mac.shape.octets // octets))
    filled = np.minimum(mac.shape.fill, mac.shape.lead + (tiles + 1) * octets)
    if (LANES * filled - mac.window_slots > tiles * engine.pixels).any():
        return f"{mac.window_slots} window pixels are too few for a lead of {mac.shape.lead} octets"
    return None


def _index(mac: MacEntry, slots: Int64, copy: int) -> Int64:
    """Window index of source pixel slots."""
    item, inside = np.divmod(slots, mac.src_pitch)
    y, x = np.divmod(inside, mac.src_width)
    phase = np.zeros_like(y)
    if mac.up:
        dy, dx = divmod(copy, 2)
        index = item * mac.pitch + (2 * y + dy) * mac.width + 2 * x + dx
    elif mac.stride == 2:
        index = item * mac.pitch + y // 2 * mac.width + x // 2
        phase = 2 * (y % 2) + x % 2
    else:
        index = slots
    index = index - mac.origin
    kept = (y < mac.src_height) & (index >= 0) & (index < mac.plane)
    if mac.up:
        kept &= (2 * y + dy < mac.limit_y) & (2 * x + dx < mac.limit_x)
    return np.where(kept, index + phase * mac.plane, NOWHERE)


def _banks_fault(mac: MacEntry, engine: Engine, copies: list[Int64]) -> str | None:
    """A half bank that a Beat writes twice in one cycle."""
    lane = np.arange(LANES)
    turn = lane // (LANES // mac.split) if mac.up else lane % mac.split
    for source in range(mac.sources):
        for group in range(mac.groups[source]):
            k = group * engine.ranks + np.arange(engine.ranks)
            k = k[k < mac.source_groups[source]]
            sub, half = mac.sub_base[source] + k // 2, k % 2
            for index in copies:
                octets = index.reshape(-1, LANES)
                for now in range(mac.split):
                    bank = (octets[:, turn == now, None] + 8 * sub) % engine.pixels
                    place = bank * 2 + half
                    written = np.broadcast_to(octets[:, turn == now, None] != NOWHERE, place.shape)
                    # what is not written gets a place of its own
                    own = -1 - np.arange(place[0].size).reshape(place[0].shape)
                    flat = np.sort(np.where(written, place, own).reshape(len(octets), -1), axis=1)
                    if (flat[:, 1:] == flat[:, :-1]).any():
                        return f"split {mac.split} writes a half bank twice in a cycle"
            if mac.stride == 1 and not mac.up:
                break  # octets of neighbours: every group has the same pattern
    return None


def _taps_fault(mac: MacEntry, engine: Engine, held: Int64, since: Int64) -> str | None:
    """A tap of a valid lane that does not find its source pixel in time."""
    lane = np.arange(LANES * mac.shape.octets)
    item, inside = np.divmod(mac.out_slot + lane, mac.pitch)
    y, x = np.divmod(inside, mac.width)
    filled = mac.shape.lead - mac.late + lane // engine.pixels * (engine.pixels // LANES)
    for tap in range(mac.taps):
        sy, sx = y * mac.stride + mac.ty[tap], x * mac.stride + mac.tx[tap]
        used = (y < mac.height) & (sy >= 0) & (sy < mac.limit_y) & (sx >= 0) & (sx < mac.limit_x)
        index = mac.start + lane[used] + mac.offset[tap]
        if len(index) and (index.min() < 0 or index.max() >= mac.window_slots):
            return f"tap {tap} reads outside of the window"
        source = (
            item[used] * mac.src_pitch + (sy[used] >> mac.up) * mac.src_width + (sx[used] >> mac.up)
        )
        if (held[index] != source).any():
            return f"tap {tap} reads another pixel than its own"
        if (since[index] >= filled[used]).any():
            return (
                f"tap {tap} reads a pixel before it is filled; the lead of {mac.shape.lead} "
                "octets is too short"
            )
    return None
