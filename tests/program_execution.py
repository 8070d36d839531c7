"""One execution of an entry, of ``program_emulator``: what is read, computed and written, of all
ranks.
"""

import numpy as np

from gen.reference.normalise import reciprocal_deviation, scale_deviations
from gen.reference.rounding import clamp, rshr
from gen.reference.softmax import divide_by_row_sum

GROUP, ADD, LAYER, SOFTMAX = 1, 2, 3, 4


class Execution:
    """One execution of an entry."""

    def __init__(self, machine, index, i0, i1):
        self.m, self.index, self.loop = machine, index, (i0, i1)
        self.entry = machine.program.entries[index]
        self.shape = self.entry.mac.shape
        mac, shape = self.entry.mac, self.shape
        # of the product with V that is joined to the one with K: units, and steps of 16 inputs
        self.pv_units, self.pv_steps = shape.pv_units, mac.pv_subs
        # steps of 16 inputs of the other units; of each, weight rows
        self.steps = mac.taps * mac.subs - self.pv_steps
        self.halves = shape.steps // self.steps
        assert self.halves * self.steps == shape.steps
        assert self.halves * self.pv_steps == shape.pv_steps
        if self.pv_units:
            assert (shape.ring, shape.gates, mac.taps, mac.stride) == (1, 1, 1, 1)
            assert shape.per_round == shape.units and not self.entry.post.residual
        self.tile_octets = machine.program.engine.pixels // 8
        flush = self.entry.store.flush
        self.flushes = flush == 1 or (flush == 2 and self.loop == (0, 0))
        self.tiles = -(-self.shape.octets // self.tile_octets)
        self.groups = self.shape.units // self.shape.gates
        self.per_round = self.shape.per_round // self.shape.gates
        # output groups in the order in which they are written; elsewhere those with V come first
        self.in_turn = list(range(self.pv_units, self.groups))
        for turn in range(self.pv_units):
            self.in_turn.insert(turn * shape.pv_every, turn)
        self.hd = self.words(0, 0, self.entry.wload.hd, 1)[0]

    def words(self, rank, buffer, address, count):
        start = address.at(*self.loop)
        found = self.m.buffers[buffer][rank, start : start + count]
        assert len(found) == count
        return found

    def run(self):
        m, shape = self.m, self.shape
        if self.entry.post.table:
            m.gate_tables = [self.words(r, 0, self.entry.wload.table, 64) for r in range(m.ranks)]
        self.parameters = self.pp_words()
        self.start, self.held, self.residuals = m.slot, {}, {}
        m.settle(self.written(-1))
        rings = [[self.ring_rows(rank, 0)] for rank in range(m.ranks)]
        self.hold(0, shape.lead)
        for tile in range(self.tiles):
            m.settle(self.written(tile))
            self.hold(*(shape.lead + (tile + k) * self.tile_octets for k in (0, 1)))
            for group in range(min(self.groups, self.per_round)):
                self.hold_residual(group, tile)
            if tile == self.tiles - 1:
                for rank, rows in enumerate(rings):
                    rows.append(self.ring_rows(rank, 1))
        self.hold(shape.lead + self.tiles * self.tile_octets, shape.fill)
        window = self.fill()
        weights = [
            [*rows[0], *rows[1]] if shape.ring else self.rows_of(rank)
            for rank, rows in enumerate(rings)
        ]
        self.write(self.multiply(window, weights))

    # fill

    def written(self, tile):
        """Last micro-slot that is written when the lead slot (-1) or a tile of round 0 reads."""
        store = self.entry.store
        if self.flushes:
            fewer = store.pending - (tile + 1) * store.pending_tile
            return self.start - 1 - max(store.pending_end, fewer)
        first = max(tile, 0) * min(self.groups, self.per_round)
        return self.start + first - 2 - self.m.program.engine.lag

    def hold_residual(self, group, tile):
        """Read the residual of a micro-slot as the store holds it now."""
        if self.entry.post.residual and (group, tile) not in self.residuals:
            self.residuals[group, tile] = [
                self.octets(rank, self.entry.store.residual, group, self.octets_of(tile))
                for rank in range(self.m.ranks)
            ]

    def octets_of(self, tile):
        """Output octets of a tile."""
        first = tile * self.tile_octets
        return np.arange(first, min(self.shape.octets, first + self.tile_octets))

    def hold(self, first, end):
        """Read octets first .. end - 1 of all sources as the store holds them now."""
        first, end = (min(each, self.shape.fill) for each in (first, end))
        for s in range(self.entry.pre.sources):
            for group in range(self.entry.pre.groups[s]):
                for rank in range(self.m.ranks):
                    region = self.entry.store.source[s]
                    part = self.octets(rank, region, group, np.arange(first, end))
                    self.held.setdefault((rank, s, group), []).append(part)

    def octets(self, rank, region, group, octets):
        """Stored values int64 [octets, 8 pixels, 8 channels] of one local group."""
        assert group < region.groups
        row = region.row.at(*self.loop) + group * region.group_rows
        at = region.octet.at(*self.loop) + octets
        if region.wide:
            words = self.m.rows[rank, row + at]
            low, high = words[:, 0].astype(np.int64), words[:, 1].view(np.int8).astype(np.int64)
            return (low | high << 8).reshape(-1, 8, 8)
        words = self.m.rows[rank, row + at // 2, at % 2]
        return words.view(np.int8).astype(np.int64).reshape(-1, 8, 8)

    def fill(self):
        """Operands in the window [window slot, subs * 16]; keeps the softmax row sums."""
        pre, mac, shape = self.entry.pre, self.entry.mac, self.shape
        slots = mac.fill_slot + np.arange(8 * shape.fill)
        rng = np.random.default_rng(11)
        # of those that the buffer holds in turn, all
        slots_held = max(mac.window_slots, mac.plane)
        window = rng.integers(-128, 128, (slots_held, mac.subs * 16))
        self.row_sums = np.zeros(8 * shape.fill, np.int64)
        assert pre.items * pre.item_octets == shape.fill or pre.items == 1
        scales = self.group_scales() if pre.norm == 1 else None
        places = self.places(slots)
        for s in range(pre.sources):
            base = 16 * mac.sub_base[s]
            for group in range(pre.groups[s]):
                for rank in range(self.m.ranks):
                    q = np.concatenate(self.held[rank, s, group])
                    x = self.operands(rank, s, group, q.reshape(-1, 8), scales)
                    k = group * self.m.ranks + rank
                    if base + 8 * k // 16 * 16 >= 0 and k < mac.source_groups[s]:
                        for index in places:
                            kept = index >= 0
                            window[index[kept], base + 8 * k : base + 8 * k + 8] = x[kept]
                            if k + 1 == mac.source_groups[s] and k % 2 == 0:
                                window[index[kept], base + 8 * k + 8 : base + 8 * k + 16] = 0
                    if s == 0:
                        self.row_sums += x.sum(axis=1)
        return window

    def places(self, slots):
        """Window index of source slots, -1 for none, one array per copy."""
        mac = self.entry.mac
        item, inside = slots // mac.src_pitch, slots % mac.src_pitch
        y, x = inside // mac.src_width, inside % mac.src_width
        phase = 0
        if mac.up:
            found = [
                item * mac.pitch + (2 * y + dy) * mac.width + 2 * x + dx - mac.origin
                for dy in (0, 1)
                for dx in (0, 1)
            ]
        elif mac.stride == 2:
            found = [item * mac.pitch + y // 2 * mac.width + x // 2 - mac.origin]
            phase = (y % 2) * 2 + x % 2
        else:
            found = [slots - mac.origin]
        seen = [y < mac.src_height] * len(found)
        if mac.up:
            seen = [
                each & (2 * y + dy < mac.limit_y) & (2 * x + dx < mac.limit_x)
                for each, (dy, dx) in zip(seen, np.ndindex(2, 2), strict=True)
            ]
        return [
            np.where(kept & (i >= 0) & (i < mac.plane), i + phase * mac.plane, -1)
            for i, kept in zip(found, seen, strict=True)
        ]

    def group_scales(self):
        """(mu, r, e) of every (item, norm group) and the alignment of every source."""
        pre, m = self.entry.pre, self.m
        eps = int(self.hd[:8].copy().view("<i8")[0])
        scales = {}
        for item in range(pre.items):
            for group in range(pre.norm_groups):
                total = squares = 0
                for channel in range(group * pre.group_size, (group + 1) * pre.group_size):
                    s = 0 if channel < pre.channels[0] else 1
                    c = channel - s * pre.channels[0]
                    at = pre.stats_base[s].at(*self.loop) + item * pre.stats_pitch[s] + c // 8
                    sums = m.sums[at]
                    total += int(sums[0][c % 8]) << pre.align[s]
                    squares += int(sums[1][c % 8]) << (2 * pre.align[s])
                r, e = reciprocal_deviation(pre.n * squares - total * total + eps, pre.n)
                scales[item, group] = ((total << 4) // pre.n, r, e)
        return scales

    def pp_words(self):
        """pp words of all ranks: of this execution, or those sent before that serve it."""
        m, wload, once = self.m, self.entry.wload, self.entry.pre.pp_once
        if once == 0 or (once == 1 and self.loop == (0, 0)):
            place = wload.pp_buffer, wload.pp, wload.pp_words
            m.parameters = [self.words(rank, *place) for rank in range(m.ranks)]
        return [words[: wload.pp_words] for words in m.parameters]

    def lane_words(self, rank, s):
        """Of them, those of the local groups of a source."""
        pre, words = self.entry.pre, self.parameters[rank][32 * self.entry.pre.table :]
        assert not pre.uniform or pre.sources == 1 or self.pv_units
        counts = [2 if pre.uniform else pre.groups[0], *pre.groups[1 : pre.sources]]
        assert len(words) == sum(counts)
        mine = words[sum(counts[:s]) : sum(counts[: s + 1])]
        if s == 0 and pre.uniform:
            return [mine[int(group == pre.groups[0] - 1)] for group in range(pre.groups[0])]
        return mine

    def operands(self, rank, s, group, q, scales):
        """x int64 [slots, 8 channels] of stored q."""
        pre, word = self.entry.pre, self.lane_words(rank, s)[group]
        gamma = word[:16].copy().view("<i2").astype(np.int64)
        beta = word[16:48].copy().view("<i4").astype(np.int64)
        # the queries of a joined execution
        plain = self.pv_units and s == 1
        z = q
        if plain:
            assert pre.norm == 3
        elif pre.norm == 1:
            item = np.arange(len(q)) // 8 // pre.item_octets
            z = np.zeros_like(q)
            for lane in range(8):
                for i in range(pre.items):
                    mu, r, e = scales[i, int(word[48 + lane])]
                    d = (q[item == i, lane] << (4 + pre.align[s])) - mu
                    z[item == i, lane] = scale_deviations(d, np.int64(r), np.int64(e))
        elif pre.norm > 1:
            at = pre.row_in.at(*self.loop)
            rows = np.concatenate([self.m.row_stats[at + k] for k in range(len(q) // 8)])
            mu, r, e = rows.T
            if pre.norm == 2:
                z = scale_deviations((q << 4) - mu[:, None], r[:, None], e[:, None])
            else:
                z = q - mu[:, None]
        t = rshr(z * gamma + beta, pre.plain_shift if plain else pre.shift)
        if pre.table and not plain:
            table = self.parameters[rank][:32].reshape(-1).view(np.int8).astype(np.int64)
            x = table[clamp(t, 11) + 1024]
        else:
            x = clamp(t, 8)
        valid = np.unpackbits(word[56:57], bitorder="little")
        return np.where(valid == 1, x, 0)

    # weights

    def rows_of(self, rank):
        """Weights from DDR, int64 [units, 8, steps * 16], of one rank."""
        shape, wload = self.shape, self.entry.wload
        words = self.words(rank, wload.ws_buffer, wload.ws, wload.row_words * wload.ws_rows)
        assert wload.ws_rows == shape.units * shape.steps
        if wload.row_words == 2:
            rows = words.view(np.int8).astype(np.int64)
        else:
            rows = np.stack([words & 15, words >> 4], axis=1).astype(np.int64)
            rows = np.where(rows < 8, rows, rows - 16)
            if self.halves == 2:
                rows = 16 * rows[::2] + rows[1::2] + 8
        rows = rows.reshape(shape.units, self.steps, 8, 16)
        return rows.transpose(0, 2, 1, 3).reshape(shape.units, 8, -1)

    def ring_rows(self, rank, later):
        """Ring weights of round 0, or of all later rounds: by unit, int64 [8, steps * 16]."""
        shape, store, joined = self.shape, self.entry.store, self.pv_units
        if not shape.ring:
            return None
        first = min(shape.units, shape.per_round)
        units = range(first, shape.units) if later else range(first)
        if shape.ring == 2:
            place = store.weights, self.steps, shape.ring_words
            return [self.value_rows(rank, unit, *place) for unit in units]
        place = store.pv_weights, self.pv_steps, shape.pv_words
        return [
            self.value_rows(rank, unit, *place)
            if unit < joined
            else self.key_rows(rank, unit - joined)
            for unit in units
        ]

    def value_rows(self, rank, unit, region, steps, words):
        """V: channels of local group ``unit``, all tokens."""
        assert words == 2 * steps
        tokens = self.octets(rank, region, unit, np.arange(2 * steps))
        return tokens.transpose(2, 0, 1).reshape(8, 16 * steps)

    def key_rows(self, rank, unit):
        """K: the tokens of an octet, all channels of the head."""
        ring, gather, ranks = self.entry.store.weights, self.entry.gather, self.m.ranks
        assert self.shape.ring_words == ranks * ring.groups
        assert ring.groups == gather.ring_groups
        result = np.zeros((8, self.steps, 2, 8), np.int64)
        token_octet = np.array([unit * ranks + rank])
        for group in range(ring.groups):
            for r in range(ranks):
                k = group * ranks + r
                if gather.ring_first <= k // 2 and k < gather.ring_valid:
                    word = self.octets(r, ring, group, token_octet)[0]
                    result[:, k // 2 - gather.ring_first, k % 2] = word
        return result.reshape(8, 16 * self.steps)

    # products

    def multiply(self, window, weights):
        """Accumulators int64 [slots, 8] by rank and unit."""
        mac, shape = self.entry.mac, self.shape
        lanes = np.arange(8 * shape.octets)
        slot = mac.out_slot + lanes
        self.item, self.inside = slot // mac.pitch, slot % mac.pitch
        y, x = self.inside // mac.width, self.inside % mac.width
        operands = []
        for tap in range(mac.taps):
            sy, sx = y * mac.stride + mac.ty[tap], x * mac.stride + mac.tx[tap]
            usable = (sy >= 0) & (sy < mac.limit_y) & (sx >= 0) & (sx < mac.limit_x)
            index = np.clip(mac.start + lanes + mac.offset[tap], 0, len(window) - 1)
            operands.append(np.where(usable[:, None], window[index], mac.pad))
        operands = np.stack(operands, axis=1).reshape(len(lanes), -1)
        assert operands.shape[1] == 16 * (self.pv_steps + self.steps)
        others, of_values = np.split(operands, [16 * self.steps], axis=1)
        return [
            [
                (of_values if unit < self.pv_units else others) @ rows.T
                for unit, rows in enumerate(of_rank)
            ]
            for of_rank in weights
        ]

    # results

    def write(self, accs):
        shape, entry, m = self.shape, self.entry, self.m
        order = [
            (tile, group)
            for first in range(0, self.groups, self.per_round)
            for tile in range(self.tiles)
            for group in self.in_turn[first : first + self.per_round]
        ]
        results = np.zeros((m.ranks, self.groups, 8 * shape.octets, 8), np.int64)
        left = entry.store.pending_end
        for tile, group in order:
            done = self.start - 1 - left if self.flushes and group >= self.per_round else 0
            m.settle(max(done, m.slot - 2 - m.program.engine.lag))
            self.hold_residual(group, tile)
            octets = self.octets_of(tile)
            writes = []
            for rank in range(m.ranks):
                y = self.requantised(rank, group, octets, accs[rank])
                results[rank, group, 8 * octets[0] : 8 * octets[-1] + 8] = y
                writes += self.stored(rank, group, octets, y.reshape(-1, 64))
            done = (self.index, *self.loop) if (tile, group) == order[-1] else None
            m.pending.append((m.slot, writes, done))
            m.slot += 1
        if self.flushes:
            m.settle(self.start - 1 - left)
        self.statistics(results[:, self.pv_units :])
        assert entry.store.dest.groups == self.groups - self.pv_units
        assert entry.store.pv_dest.groups == self.pv_units

    def requantised(self, rank, group, octets, accs):
        """Stored values [slots, 8] of some octets of an output group."""
        post, wload, shape = self.entry.post, self.entry.wload, self.shape
        of_values = group < self.pv_units
        slots = np.arange(8 * octets[0], 8 * octets[-1] + 8)
        item = (8 * post.out_octet + slots) // (8 * post.item_octets)
        item = np.minimum(item, post.items - 1)
        scaled = []
        for gate in range(shape.gates):
            unit = group * shape.gates + gate
            scale = self.words(rank, wload.scale_buffer, wload.scale, shape.units)[unit]
            scale = scale.copy().view("<i4")
            mult, shift = scale[:8].astype(np.int64), scale[8:].astype(np.int64) & 0xFF
            words = self.words(rank, wload.bias_buffer, wload.bias, shape.units * wload.bias_words)
            span_ = words[unit * wload.bias_words : (unit + 1) * wload.bias_words]
            bias = span_.reshape(-1).copy().view("<i4").reshape(-1, 8)[item].astype(np.int64)
            a = accs[unit][slots] + bias
            if post.row_sums and (of_values or not self.pv_units):
                a = divide_by_row_sum(a.T, self.row_sums[slots][None]).T
            v = a * mult
            if post.residual:
                res = self.residuals[group, octets[0] // self.tile_octets][rank].reshape(-1, 8)
                v = v + (res << (shift + post.residual_shift))
            scaled.append(rshr(v, shift))
        if shape.gates == 1:
            return clamp(scaled[0], 16 if (post.pv_wide if of_values else post.wide) else 8)
        table = self.m.gate_tables[rank].reshape(-1).view("<i2").astype(np.int64)
        picked = table[clamp(scaled[1], 11) + 1024]
        return clamp(rshr(clamp(scaled[0], 16) * picked, post.gate_shift), 8)

    def stored(self, rank, group, octets, y):
        """Writes (rank, row, half, word) of octets int64 [octets, 64]."""
        store, shape = self.entry.store, self.shape
        unit = (group + 1) * shape.gates - 1
        wload = self.entry.wload
        words = self.words(rank, wload.scale_buffer, wload.scale, shape.units)
        scale = words[unit].copy().view("<i4")
        if scale[8] & 0x200:
            return []
        dest = store.pv_dest
        if group >= self.pv_units:
            dest, group = store.dest, group - self.pv_units
        row = dest.row.at(*self.loop) + group * dest.group_rows
        at = dest.octet.at(*self.loop) + octets
        if dest.wide:
            return [
                (rank, row + o, half, (value >> (8 * half) & 0xFF).astype(np.uint8))
                for o, value in zip(at, y, strict=True)
                for half in (0, 1)
            ]
        assert at[0] % 2 == 0 and len(at) % 2 == 0
        return [
            (rank, row + o // 2, o % 2, (value & 0xFF).astype(np.uint8))
            for o, value in zip(at, y, strict=True)
        ]

    def statistics(self, results):
        """Sums [ranks, groups, slots, 8] that pre.norm keeps."""
        post, pre, m = self.entry.post, self.entry.pre, self.m
        slot = 8 * post.out_octet + np.arange(results.shape[2])
        item, inside = slot // (8 * post.item_octets), slot % (8 * post.item_octets)
        item, valid = np.minimum(item, post.items - 1), inside < post.pixels
        if pre.stats in (GROUP, ADD):
            for rank in range(m.ranks):
                for group in range(results.shape[1]):
                    for i in range(pre.items_out):
                        mine = results[rank, group][(item == i) & valid]
                        at = pre.stats_out.at(*self.loop) + i * pre.stats_pitch_out
                        at += group * m.ranks + rank
                        sums = (mine.sum(axis=0), (mine * mine).sum(axis=0))
                        if pre.stats == ADD:
                            sums = tuple(a + b for a, b in zip(m.sums[at], sums, strict=True))
                        m.sums[at] = sums
            assert pre.stat_words == results.shape[1] * pre.items_out
        elif pre.stats == LAYER:
            eps = int(self.hd[8:16].copy().view("<i8")[0])
            n = int(self.hd[16:20].copy().view("<i4")[0])
            total = results.sum(axis=(0, 1, 3))
            squares = (results * results).sum(axis=(0, 1, 3))
            found = np.zeros((len(total), 3), np.int64)
            for k in np.flatnonzero(valid):
                s, q = int(total[k]), int(squares[k])
                found[k] = ((s << 4) // n, *reciprocal_deviation(n * q - s * s + eps, n))
            self.keep_rows(found)
        elif pre.stats == SOFTMAX:
            wload = self.entry.wload
            scale = [
                self.words(rank, wload.scale_buffer, wload.scale, self.shape.units)
                for rank in range(m.ranks)
            ]
            scale = [words[self.pv_units :].copy().view("<i4") for words in scale]
            counts = np.stack([words[:, 8:] & 0x100 for words in scale])
            held = np.where(counts[:, :, None, :] != 0, results, -(1 << 15))
            found = np.zeros((results.shape[2], 3), np.int64)
            found[:, 0] = held.max(axis=(0, 1, 3))
            self.keep_rows(found)

    def keep_rows(self, found):
        pre = self.entry.pre
        at = pre.row_out.at(*self.loop)
        assert pre.stat_words == self.shape.octets
        for octet in range(self.shape.octets):
            self.m.row_stats[at + octet] = found[8 * octet : 8 * octet + 8]
