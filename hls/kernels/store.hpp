// store: owns the activation memory. Sends source pixels to pre (xs), weights that are activations
// to mac (ks), residuals to post (rs), and takes results from post (ys).
//
// Work goes slot by slot (docs/engine.md, "Slots"): slot "lead", one slot per output group and
// tile, then LAG slots that only write. A slot reads its ks words, its xs words, its rs words, one
// a cycle; at the same time it writes the words of the tile LAG slots ago. An entry never reads
// what it writes, and everything is written before the next entry begins, so a read never depends
// on a write of the same loop.
#ifndef LDA_STORE_HPP
#define LDA_STORE_HPP

#include "params.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "store_memory.hpp"
#include "types.hpp"

namespace lda {

// First row, pixel slot and 8-channel group of a region in one iteration of its segment.
struct Place {
    int row;
    int group;
};

inline Place place_of(const Region& region, int i0, int i1) {
#pragma HLS inline
    Place place;
    place.row = at(region.row, i0, i1) + at(region.px, i0, i1);
    place.group = at(region.group, i0, i1);
    return place;
}

// Row of a pixel slot in the block that holds 8-channel group `group`.
inline int row_of(const Region& region, int first_row, int group, int plane) {
#pragma HLS inline
    return first_row + (group >> 3) * region.block_rows + plane * region.plane_rows;
}

// words * planes, planes being 0, 1 or 2
inline int plane_words(int words, int planes) {
#pragma HLS inline
    return planes == 2 ? 2 * words : planes == 1 ? words : 0;
}

// Source words in fill order: phase, item, y, x, source, block, plane.
struct SourceWalk {
    int phase_y, phase_x, item, y, x, source, block, plane;

    void start() { phase_y = phase_x = item = y = x = source = block = plane = 0; }

    void next(const StoreEntry& entry) {
#pragma HLS inline
        const Walk& walk = entry.walk;
        if (++plane < entry.source[source].planes) return;
        plane = 0;
        if (++block < entry.source[source].blocks) return;
        block = 0;
        if (++source < entry.sources) return;
        source = 0;
        if (++x < walk.width) return;
        x = 0;
        if (++y < walk.height) return;
        y = 0;
        if (++item < walk.items) return;
        item = 0;
        if (++phase_x < walk.stride) return;
        phase_x = 0;
        ++phase_y;
    }

    int row(const StoreEntry& entry, const Place* places) const {
#pragma HLS inline
        const Walk& walk = entry.walk;
        const Region& region = entry.source[source];
        const int sy =
            least(y * walk.stride + phase_y, (walk.src_height << walk.up) - 1) >> walk.up;
        int sx = least(x * walk.stride + phase_x, (walk.src_width << walk.up) - 1) >> walk.up;
        if (LDA_FAULT == 2 && sx == 1) sx = 0;
        const int pixel = item * walk.src_pitch + sy * walk.src_width + sx;
        return row_of(region, places[source].row + pixel, places[source].group + 8 * block, plane);
    }
};

// Words of K or V: output group, step, half.
struct WeightWalk {
    int group, step, half;

    void start() { group = step = half = 0; }

    void next(int steps) {
#pragma HLS inline
        if (++half < 2) return;
        half = 0;
        if (++step < steps) return;
        step = 0;
        ++group;
    }
};

// Words of a tile: output group, tile, word of the tile, plane.
struct TileWalk {
    int group, tile, word, plane;

    void start() { group = tile = word = plane = 0; }

    template <class P>
    static int words_in(const Shape& shape, int tile) {
#pragma HLS inline
        return least(P::PP / GROUP, shape.words - tile * (P::PP / GROUP));
    }

    template <class P>
    void next(const Shape& shape, int planes) {
#pragma HLS inline
        if (++plane < planes) return;
        plane = 0;
        if (++word < words_in<P>(shape, tile)) return;
        word = 0;
        if (++tile < shape.tiles) return;
        tile = 0;
        ++group;
    }

    template <class P>
    int row(const Region& region, const Place& place) const {
#pragma HLS inline
        const int pixel = tile * P::PP + word * GROUP;
        return row_of(region, place.row + pixel, place.group + group, plane);
    }
};

template <class P>
void store_entry(const StoreEntry& entry, int i0, int i1, typename StoreTypes<P>::Memory& memory,
                 hls::stream<Word>& xs_s, hls::stream<Word>& ks_s, hls::stream<Word>& rs_s,
                 hls::stream<Word>& ys_s) {
#pragma HLS inline off
#ifndef LDA_FAST
#pragma HLS array_partition variable = memory complete dim = 1
#endif
    const Shape& shape = entry.shape;
    const Place places[MAX_SOURCES] = {place_of(entry.source[0], i0, i1),
                                       place_of(entry.source[1], i0, i1)};
    const Place weights_place = place_of(entry.weights.region, i0, i1);
    const Place residual_place = place_of(entry.residual, i0, i1);
    const Place dest_place = place_of(entry.dest, i0, i1);

    int pixel_words = 0;
SOURCES:
    for (int s = 0; s < MAX_SOURCES; ++s) {
        if (s < entry.sources) pixel_words += entry.source[s].blocks * entry.source[s].planes;
    }
    const int slots = shape.groups * shape.tiles;  // besides the lead slot
    const int weight_share = 2 * ceil_div(entry.weights.words / 2, shape.tiles);

    SourceWalk source;
    WeightWalk weight;
    TileWalk residual, dest;
    source.start();
    weight.start();
    residual.start();
    dest.start();

    // The shortest slot, which is also mac's: while the store waits for a tile, what that tile
    // needs must have left the store's pipeline, and nothing moves in a pipeline that waits.
    const int slot_cycles = P::PP / GROUP;

    // of the current slot: -1 is the lead slot, from `slots` on only writes are left
    int slot = -1, group = 0, tile = 0, cycle = 0;
    const int tile_xs_words = P::PP * pixel_words;
    int ks_words = entry.weights.words, rs_words = 0;
    int xs_words = least(shape.lead, shape.fill) * pixel_words;
    int xs_left = shape.fill * pixel_words - xs_words;
    int ys_words = 0;
    int weights_left = 0;  // of the group that is being loaded during `group`
    bool done = false;
SLOTS:
    while (!done) {
#pragma HLS pipeline II = 1
#pragma HLS dependence variable = memory type = inter false
#pragma HLS loop_tripcount min = 64 max = 65536
        TICK(1);
        if (cycle < ks_words) {
            const StoreWeights& w = entry.weights;
            const int channels = weights_place.group + weight.group * w.ch_group +
                                 weight.step * w.ch_step + weight.half * w.ch_half;
            const int pixel =
                weight.group * w.px_group + weight.step * w.px_step + weight.half * w.px_half;
            const int row = row_of(w.region, weights_place.row + pixel, channels, 0);
            ks_s.write(read_column<P>(memory, row, channels & 7));
            weight.next(shape.steps);
        } else if (cycle < ks_words + xs_words) {
            xs_s.write(read_row<P>(memory, source.row(entry, places)));
            source.next(entry);
        } else if (cycle < ks_words + xs_words + rs_words) {
            const int row = residual.row<P>(entry.residual, residual_place);
            rs_s.write(read_column<P>(memory, row, (residual_place.group + residual.group) & 7));
            residual.next<P>(shape, entry.residual_planes);
        }
        if (cycle < ys_words) {
            const int row = dest.row<P>(entry.dest, dest_place);
            const Word word = ys_s.read();
            write_column<P>(memory, row, (dest_place.group + dest.group) & 7, word);
            dest.next<P>(shape, entry.dest.planes);
        }
        ++cycle;
        if (cycle >= slot_cycles && cycle >= ks_words + xs_words + rs_words && cycle >= ys_words) {
            cycle = 0;
            if (slot >= 0 && slot < slots && ++tile == shape.tiles) {
                tile = 0;
                ++group;
            }
            ++slot;
            const bool computes = slot < slots;
            if (tile == 0) weights_left = group + 1 < shape.groups ? entry.weights.words : 0;
            ks_words = computes ? least(weight_share, weights_left) : 0;
            weights_left -= ks_words;
            xs_words = computes && group == 0 ? least(tile_xs_words, xs_left) : 0;
            xs_left -= xs_words;
            rs_words = computes
                           ? plane_words(TileWalk::words_in<P>(shape, tile), entry.residual_planes)
                           : 0;
            // `dest` stands at the start of the tile that is due
            ys_words = slot >= P::LAG
                           ? plane_words(TileWalk::words_in<P>(shape, dest.tile), entry.dest.planes)
                           : 0;
            done = slot == slots + P::LAG;
        }
    }
    LOOP_EXIT();
}

// Words: anything indexable by row, `const Word*` and `Word*` in hardware.
template <class P, class Source, class Sink, class Hook>
void store(Source latent, Sink result, const StoreIo& io, const Segment* segments,
           int segment_count, const StoreEntry* entries, typename StoreTypes<P>::Memory& memory,
           Hook hook, hls::stream<Word>& xs_s, hls::stream<Word>& ks_s, hls::stream<Word>& rs_s,
           hls::stream<Word>& ys_s) {
#pragma HLS inline
    static_assert(CheckEngine<P>::ok, "engine parameters");
INPUT:
    for (int i = 0; i < io.input_rows; ++i) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount min = 64 max = 8192
        TICK(1);
        write_row<P>(memory, io.input_row + i, latent[i]);
    }
    LOOP_EXIT();
SEGMENTS:
    for (int s = 0; s < segment_count; ++s) {
        const Segment segment = segments[s];
    OUTER:
        for (int i0 = 0; i0 < segment.n0; ++i0) {
        INNER:
            for (int i1 = 0; i1 < segment.n1; ++i1) {
            ENTRIES:
                for (int k = 0; k < segment.count; ++k) {
                    const StoreEntry entry = entries[segment.first + k];
                    store_entry<P>(entry, i0, i1, memory, xs_s, ks_s, rs_s, ys_s);
                    hook(segment.first + k, i0, i1);
                }
            }
        }
    }
OUTPUT:
    for (int i = 0; i < io.output_rows; ++i) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount min = 64 max = 8192
        TICK(1);
        result[i] = read_row<P>(memory, io.output_row + i);
    }
    LOOP_EXIT();
}

}  // namespace lda

#endif
