// The layer program: the ROM entries that the five kernels step through in lockstep.
//
// The generator emits one constant array of Segment and one constant array per kernel of that
// kernel's entries; entry k of every array describes the same layer. docs/engine.md defines every
// term used here. All addresses of the activation store are rows (64 bytes) or pixel slots, all
// addresses of DDR buffers are 64-byte words.
#ifndef LDA_PROGRAM_HPP
#define LDA_PROGRAM_HPP

#include <cstdint>

namespace lda {

static const int MAX_TAPS = 9;
static const int MAX_SOURCES = 2;

// A run of entries executed n0 x n1 times (i0 outer, i1 inner).
struct Segment {
    int32_t first;
    int32_t count;
    int32_t n0;
    int32_t n1;
};

// base + i0 * s0 + i1 * s1
struct Addr {
    int32_t base;
    int32_t s0;
    int32_t s1;
};

// Shape of the work of one entry, the same in every kernel.
//   groups     output groups of PO channels (pairs of groups when gates == 2)
//   tiles      pixel tiles of PP pixel slots
//   words      8-pixel words of all tiles (the last tile may be short)
//   gates      1, or 2: value and gate groups alternate
//   steps      reduction steps of PI inputs per tile and group
//   lead       window pixels filled before the first tile
//   fill       window pixels filled in all (phases * items * pixels)
struct Shape {
    int32_t groups;
    int32_t tiles;
    int32_t words;
    int32_t gates;
    int32_t steps;
    int32_t lead;
    int32_t fill;
};

// Walk over the window pixels in fill order: phase, item, y, x.
//   height, width  of one phase plane == of the output
//   stride         phases = stride * stride
//   up             log2 of the up-sampling factor
//   src_*          of the source tensor; src_pitch = its pixel slots per item
struct Walk {
    int32_t items;
    int32_t height;
    int32_t width;
    int32_t stride;
    int32_t up;
    int32_t src_height;
    int32_t src_width;
    int32_t src_pitch;
};

// A tensor (or head of a tensor) in the store.
//   row        of plane 0, block 0, pixel slot 0
//   group      first 8-channel group that is used (even)
//   px         first pixel slot that is used
//   planes     1 (int8) or 2 (int16)
//   blocks     64-channel blocks read per pixel: ceil(((group & 7) / 2 + subs) / 4)
//   subs       16-channel subs used
//   block_rows rows from block to block; plane_rows rows from plane to plane
struct Region {
    Addr row;
    Addr group;
    Addr px;
    int32_t planes;
    int32_t blocks;
    int32_t subs;
    int32_t block_rows;
    int32_t plane_rows;
};

// Weights read from the store (K or V). The word of output group og, step s, half h starts at
//   pixel slot region.px + og*px_group + s*px_step + h*px_half
//   8-channel group region.group + og*ch_group + s*ch_step + h*ch_half
// words == 0: this entry's weights do not come from the store.
struct StoreWeights {
    Region region;
    int32_t words;  // per output group: 2 * steps
    int32_t px_group, px_step, px_half;
    int32_t ch_group, ch_step, ch_half;
};

struct StoreEntry {
    Shape shape;
    Walk walk;
    int32_t sources;
    Region source[MAX_SOURCES];
    StoreWeights weights;
    int32_t residual_planes;  // 0: none
    Region residual;
    Region dest;
};

// Rows that the store copies from the latent before the first entry and to the result after the
// last one.
struct StoreIo {
    int32_t input_row;
    int32_t input_rows;
    int32_t output_row;
    int32_t output_rows;
};

enum Norm { NORM_NONE = 0, NORM_GROUP = 1, NORM_LAYER = 2, NORM_SOFTMAX = 3 };

// group_size channels per group; n values per group (group norm) or per row (layer norm)
// valid: channels (layer norm) or tokens (softmax) of a row that count
// channels: lanes of a source's blocks, counted from the first block's first lane, that are not
//   forced to zero; gamma and beta decide below that
// stats_base: first channel of each source in the statistics memory, which holds channel c of
//   batch item i of a tensor at stats_base + (c / 8 * items + i) * 8 + c % 8
// stats_out: first channel of the destination there, or -1; groups_out, items_out words follow
struct PreEntry {
    int32_t fill;
    int32_t items;   // batch items of the walk
    int32_t pixels;  // window pixels of one item and phase
    int32_t sources;
    int32_t blocks[MAX_SOURCES];
    int32_t planes[MAX_SOURCES];
    int32_t align[MAX_SOURCES];
    int32_t channels[MAX_SOURCES];  // logical channels of each source
    int32_t stats_base[MAX_SOURCES];
    int32_t norm;
    int32_t norm_groups;
    int32_t group_size;
    int32_t n;
    int32_t valid;
    int32_t shift;
    int32_t table;     // 1: the operand goes through the run-time table
    int32_t row_sums;  // 1: send the row sum of every pixel to post
    int32_t stats_out;
    int32_t groups_out;
    int32_t items_out;
};

// The lane of output pixel (y, x) may use tap k where 0 <= y*stride + ty[k] < limit_y, same in x.
struct MacEntry {
    Shape shape;
    int32_t items;
    int32_t height;  // of the output
    int32_t width;
    int32_t pitch;  // pixel slots per item of the output = window item pitch
    int32_t stride;
    int32_t limit_y;
    int32_t limit_x;
    int32_t taps;
    int32_t subs;  // 16-channel subs per window pixel, all sources
    int32_t offset[MAX_TAPS];
    int32_t ty[MAX_TAPS];
    int32_t tx[MAX_TAPS];
    int32_t pad;  // operand of masked lanes
    int32_t sources;
    Addr group[MAX_SOURCES];  // as Region::group: first sub of block 0 = (group & 7) / 2
    int32_t source_subs[MAX_SOURCES];
    int32_t from_store;  // weights arrive on ks instead of ws
    int32_t transposed;  // ks words are 8 inputs x 8 outputs (V)
    int32_t load_first;  // load the weights of group 0 in the lead slot
    int32_t next_rows;   // weight rows (128 bytes) of the next entry to load in the last group
};

struct PostEntry {
    Shape shape;
    int32_t items;
    int32_t pixels;  // valid pixels per item
    int32_t words_per_item;
    int32_t planes;  // of the destination
    int32_t residual_planes;
    int32_t residual_shift;
    int32_t row_sums;  // 1: divide by the row sums (shape.fill of them)
    int32_t gate_shift;
    int32_t stats;  // 1: send statistics
};

enum Buffer { BUFFER_STATIC = 0, BUFFER_DYNAMIC = 1 };

// ws: weights, `ws_words` per output group (2 * steps * gates), groups back to back.
// pp: parameters of pre. qp: [gate table] then per group and gate one scale word; bias words
// (bias_words per group and gate) follow each scale word in the stream but lie in their own array.
struct WloadEntry {
    int32_t groups;
    int32_t gates;
    int32_t load_first;
    int32_t ws_words;  // 0: weights come from the store
    int32_t ws_buffer;
    Addr ws;
    int32_t pp_words;
    int32_t pp_buffer;
    Addr pp;
    int32_t table_words;
    Addr table;  // static buffer
    Addr scale;  // static buffer
    int32_t bias_words;
    int32_t bias_buffer;
    Addr bias;
    int32_t prefetch_next;  // 1: after the last group's qp comes group 0 of the next entry's ws
};

}  // namespace lda

#endif
