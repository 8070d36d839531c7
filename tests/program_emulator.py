"""A slow reading of docs/engine.md: executes a layer program over store rows and DDR words.

It knows nothing of the layer graph: only entries, addresses and bytes. Arithmetic of single values
comes from ``gen.reference``; what is tested is where values lie and in which order they come.
"""

from __future__ import annotations

import numpy as np

from gen.program import pack_latent, unpack_result
from gen.reference.normalise import reciprocal_deviation, scale_deviations
from gen.reference.rounding import clamp, rshr
from gen.reference.softmax import divide_by_row_sum


class Emulator:
    """Store, statistics memory and DDR buffers of one card."""

    def __init__(self, program, static, dynamic):
        self.program = program
        # unwritten rows hold rubbish: nothing valid may depend on them
        rng = np.random.default_rng(7)
        self.rows = rng.integers(0, 256, (program.engine.store_rows, 64)).astype(np.uint8)
        self.stats = {}
        self.buffers = (
            np.frombuffer(static, np.uint8).reshape(-1, 64),
            np.asarray(dynamic).reshape(-1, 64),
        )

    def step(self, latent, observe=None):
        program = self.program
        start = program.input_row
        self.rows[start : start + program.input_rows] = pack_latent(program, latent)
        for segment in program.segments:
            for i0 in range(segment.n0):
                for i1 in range(segment.n1):
                    for entry in program.entries[segment.first : segment.first + segment.count]:
                        self.entry(entry, i0, i1)
                        if observe:
                            observe(entry, i0, i1)
        start = program.output_row
        return unpack_result(program, self.rows[start : start + program.output_rows])

    def words(self, buffer, address, count, i0, i1):
        start = address.at(i0, i1)
        return self.buffers[buffer][start : start + count]

    def pixels(self, region, slots, i0, i1):
        """Stored values [slots, blocks * 64] from the region's first block."""
        first = region.group.at(i0, i1) >> 3
        planes = []
        for plane in range(region.planes):
            parts = [
                self.rows[
                    region.row.at(i0, i1)
                    + plane * region.plane_rows
                    + (first + block) * region.block_rows
                    + region.px.at(i0, i1)
                    + slots
                ]
                for block in range(region.blocks)
            ]
            planes.append(np.concatenate(parts, axis=1))
        return join(planes)

    def groups8(self, region, group, slots, i0, i1):
        """Stored values [slots, 8] of one relative 8-channel group."""
        absolute = region.group.at(i0, i1) + group
        lane = (absolute & 7) * 8
        row = region.row.at(i0, i1) + (absolute >> 3) * region.block_rows + region.px.at(i0, i1)
        return join(
            [
                self.rows[row + plane * region.plane_rows + slots][:, lane : lane + 8]
                for plane in range(region.planes)
            ]
        )

    def entry(self, entry, i0, i1):
        window = self.fill(entry, i0, i1)
        self.multiply(entry, window, i0, i1)

    def fill(self, entry, i0, i1):
        """The window buffer [window index, subs * 16] and the softmax row sums."""
        walk, pre, mac = entry.store.walk, entry.pre, entry.mac
        phase, item, y, x = (
            grid.reshape(-1)
            for grid in np.meshgrid(
                np.arange(walk.stride**2),
                np.arange(walk.items),
                np.arange(walk.height),
                np.arange(walk.width),
                indexing="ij",
            )
        )
        sy = np.minimum((y * walk.stride + phase // walk.stride) >> walk.up, walk.src_height - 1)
        sx = np.minimum((x * walk.stride + phase % walk.stride) >> walk.up, walk.src_width - 1)
        slots = item * walk.src_pitch + sy * walk.src_width + sx
        parts = self.words(entry.wload.pp_buffer, entry.wload.pp, entry.wload.pp_words, i0, i1)
        eps = int(parts[0, :8].copy().view("<i8")[0])
        at = 1
        table = None
        if pre.table:
            table = parts[1:33].reshape(-1).view(np.int8)
            at = 33
        operands, before = [], 0
        for s in range(pre.sources):
            q = self.pixels(entry.store.source[s], slots, i0, i1)
            blocks = parts[at : at + 6 * pre.blocks[s]].reshape(-1, 384)
            at += 6 * pre.blocks[s]
            gamma = blocks[:, :128].copy().view("<i2").reshape(-1).astype(np.int64)
            beta = blocks[:, 128:].copy().view("<i4").reshape(-1).astype(np.int64)
            z = self.normalised(pre, s, before, q, item, eps)
            t = rshr(z * gamma + beta, pre.shift)
            x8 = clamp(t, 8) if table is None else table[clamp(t, 11) + 1024].astype(np.int64)
            x8[:, pre.channels[s] :] = 0
            first = (mac.group[s].at(i0, i1) & 7) // 2 * 16
            operands.append(x8[:, first : first + 16 * mac.source_subs[s]])
            before += pre.channels[s]
            if pre.row_sums:
                self.sums = x8[:, : pre.valid].sum(axis=1)
        assert at == len(parts)
        window = np.full((walk.stride**2 * walk.items * mac.pitch, mac.subs * 16), 99, np.int64)
        index = (phase * walk.items + item) * mac.pitch + y * walk.width + x
        window[index] = np.concatenate(operands, axis=1)
        return window

    def normalised(self, pre, s, before, q, item, eps):
        if pre.norm == 0:
            return q
        if pre.norm == 3:
            return q - q[:, : pre.valid].max(axis=1, keepdims=True)
        z = np.zeros_like(q)
        if pre.norm == 2:
            for row in range(len(q)):
                v = q[row, : pre.valid]
                total = int(v.sum())
                r, e = reciprocal_deviation(pre.n * int((v * v).sum()) - total * total + eps, pre.n)
                mu = (total << 4) // pre.n
                z[row] = scale_deviations((q[row] << 4) - mu, np.int64(r), np.int64(e))
            return z
        for i in range(pre.items):
            for group in range(pre.norm_groups):
                total = squares = 0
                for channel in range(group * pre.group_size, (group + 1) * pre.group_size):
                    of = 0 if channel < pre.channels[0] else 1
                    c = channel - of * pre.channels[0]
                    sums = self.stats[pre.stats_base[of] // 8 + c // 8 * pre.items + i]
                    total += int(sums[0][c % 8]) << pre.align[of]
                    squares += int(sums[1][c % 8]) << (2 * pre.align[of])
                r, e = reciprocal_deviation(pre.n * squares - total * total + eps, pre.n)
                mu = (total << 4) // pre.n
                low = max(0, group * pre.group_size - before)
                high = min(pre.channels[s], (group + 1) * pre.group_size - before)
                if high > low:
                    d = (q[item == i, low:high] << (4 + pre.align[s])) - mu
                    z[item == i, low:high] = scale_deviations(d, np.int64(r), np.int64(e))
        return z

    def multiply(self, entry, window, i0, i1):
        mac, shape, wload = entry.mac, entry.mac.shape, entry.wload
        lanes = np.arange(shape.words * 8)
        item, inside = lanes // mac.pitch, lanes % mac.pitch
        y, x = inside // mac.width, inside % mac.width
        operands = []
        for tap in range(mac.taps):
            sy, sx = y * mac.stride + mac.ty[tap], x * mac.stride + mac.tx[tap]
            usable = (sy >= 0) & (sy < mac.limit_y) & (sx >= 0) & (sx < mac.limit_x)
            index = np.clip(lanes + mac.offset[tap], 0, len(window) - 1)
            operands.append(np.where(usable[:, None], window[index], mac.pad))
        operands = np.stack(operands, axis=1).reshape(len(lanes), -1)  # [lane, steps * 16]
        for og in range(shape.groups):
            weights = self.group_weights(entry, og, i0, i1)  # [gates, 8, steps * 16]
            acc = [operands @ weights[gate].T for gate in range(shape.gates)]
            self.write(entry, og, acc, lanes, item, inside, i0, i1)
        assert wload.groups == shape.groups

    def group_weights(self, entry, og, i0, i1):
        mac, shape, wload, sw = entry.mac, entry.mac.shape, entry.wload, entry.store.weights
        if not mac.from_store:
            words = self.words(wload.ws_buffer, wload.ws, shape.groups * wload.ws_words, i0, i1)
            words = words[og * wload.ws_words : (og + 1) * wload.ws_words].view(np.int8)
            split = words.reshape(shape.gates, shape.steps, 2, 8, 8).astype(np.int64)
            return split.transpose(0, 3, 1, 2, 4).reshape(shape.gates, 8, -1)
        result = np.zeros((1, 8, shape.steps, 2, 8), np.int64)
        for step in range(shape.steps):
            for half in range(2):
                px = og * sw.px_group + step * sw.px_step + half * sw.px_half + np.arange(8)
                group = og * sw.ch_group + step * sw.ch_step + half * sw.ch_half
                word = self.groups8(sw.region, group, px, i0, i1)  # [pixel, channel]
                result[0, :, step, half] = word.T if mac.transposed else word
        return result.reshape(1, 8, -1)

    def write(self, entry, og, acc, lanes, item, inside, i0, i1):
        post, wload, shape, store = entry.post, entry.wload, entry.mac.shape, entry.store
        rows = shape.groups * shape.gates
        scaled = []
        for gate in range(shape.gates):
            at = og * shape.gates + gate
            scale = self.words(0, wload.scale, rows, i0, i1)[at].copy().view("<i4")
            mult, shift = scale[:8].astype(np.int64), scale[8:].astype(np.int64)
            words = self.words(wload.bias_buffer, wload.bias, rows * wload.bias_words, i0, i1)
            span = words[at * wload.bias_words : (at + 1) * wload.bias_words]
            bias = span.reshape(-1).copy().view("<i4").reshape(-1, 8)[item].astype(np.int64)
            a = acc[gate] + bias
            if post.row_sums:
                sums = np.zeros(len(lanes), np.int64)
                sums[inside < post.pixels] = self.sums
                a = divide_by_row_sum(a.T, sums[None]).T
            v = a * mult
            if post.residual_planes:
                res = self.groups8(store.residual, og, lanes, i0, i1)
                v = v + (res << (shift + post.residual_shift))
            scaled.append(rshr(v, shift))
        if shape.gates == 2:
            table = self.words(0, wload.table, 64, i0, i1).reshape(-1).view("<i2").astype(np.int64)
            picked = table[clamp(scaled[1], 11) + 1024]
            y = clamp(rshr(clamp(scaled[0], 16) * picked, post.gate_shift), 8)
        else:
            y = clamp(scaled[0], 8 * post.planes)
        if post.stats:
            for i in range(post.items):
                mine = y[(item == i) & (inside < post.pixels)]
                word = entry.pre.stats_out // 8 + og * post.items + i
                self.stats[word] = (mine.sum(axis=0), (mine * mine).sum(axis=0))
        absolute = store.dest.group.at(i0, i1) + og
        lane = (absolute & 7) * 8
        row = store.dest.row.at(i0, i1) + (absolute >> 3) * store.dest.block_rows
        for plane in range(store.dest.planes):
            at = row + plane * store.dest.plane_rows + store.dest.px.at(i0, i1) + lanes
            self.rows[at, lane : lane + 8] = (y >> (8 * plane)) & 0xFF


def join(planes):
    """int64 values of a low and maybe a high byte plane; the last plane is signed."""
    if len(planes) == 1:
        return planes[0].view(np.int8).astype(np.int64)
    return planes[0].astype(np.int64) | planes[1].view(np.int8).astype(np.int64) << 8
