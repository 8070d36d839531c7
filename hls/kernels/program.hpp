// The layer program: the ROM entries that the kernels of every rank step through in lockstep.
//
// The generator emits one constant array of Segment and one constant array per kernel of that
// kernel's entries; entry k of every array describes the same layer, and all ranks have the same
// arrays. docs/engine.md defines every term used here. Addresses of the activation store are rows
// (128 bytes); addresses of DDR buffers are 64-byte words. Every member is an int32_t.
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

enum Ring { RING_NONE = 0, RING_K = 1, RING_V = 2 };
enum Norm { NORM_NONE = 0, NORM_GROUP = 1, NORM_LAYER = 2, NORM_SOFTMAX = 3 };
enum Stats {
    STATS_NONE = 0,
    STATS_GROUP = 1,
    STATS_GROUP_ADD = 2,
    STATS_LAYER = 3,
    STATS_SOFTMAX = 4
};
enum Buffer { BUFFER_STATIC = 0, BUFFER_DYNAMIC = 1 };

// Work of one execution, the same in every kernel.
//   units      output groups of this rank x gates
//   per_round  units of a round (even when gates == 2)
//   gates      1, or 2: value and gate units alternate
//   octets     output octets; tiles = ceil(octets / (PP/8))
//   steps      reduction steps per tile and unit, a weight row each: PI inputs, twice where a row
//              holds half of the weights' bits (weights.hpp)
//   lead       fill octets before the first tile
//   fill       fill octets in all
//   ring       Ring: where weights come from besides ws
//   ring_words px words per unit of ring weights: K: R * local groups of a head; V: 2 per
//              PI inputs
// A joined execution (docs/engine.md, "Joined products") has a product with V beside the one with K
// that all of the above is about: its units come between those of K, its ring weights, weight rows
// and parameters before those of K (sequence.hpp, "Turns").
//   pv_units   of `units`, those of the product with V; 0: the execution is not joined
//   pv_every   units 0, pv_every, 2 * pv_every .. are these
//   pv_steps   reduction steps of each
//   pv_words   px words of ring weights of each
struct Shape {
    int32_t units;
    int32_t per_round;
    int32_t gates;
    int32_t octets;
    int32_t steps;
    int32_t lead;
    int32_t fill;
    int32_t ring;
    int32_t ring_words;
    int32_t pv_units;
    int32_t pv_every;
    int32_t pv_steps;
    int32_t pv_words;
};

// A tensor, a head or a strip of it, in the store.
//   row         of its first local group and first octet in the execution (octet 0 of `octet` = 0)
//   octet       first octet; wide rows are row + octet, narrow ones row + octet / 2
//   groups      local groups
//   wide        1: int16
//   group_rows  rows from one local group to the next
struct Region {
    Addr row;
    Addr octet;
    int32_t groups;
    int32_t wide;
    int32_t group_rows;
};

// Rows that go from the store to the rank's DDR bank (put) or back, in `repeat` pieces of `rows`
// rows; the next piece is `store_stride` rows of the store and `ddr_stride` rows of DDR farther.
struct Move {
    int32_t put;
    int32_t rows;
    int32_t repeat;
    int32_t store_stride;
    int32_t ddr_stride;
    Addr store;
    Addr ddr;
};

// flush: 0 never, 1 before every execution, 2 before the first one of the segment.
// pending: micro-slots of earlier executions that need not be written when the lead slot of a
// flushing execution reads; pending_tile: so many fewer for each tile of round 0;
// pending_end: those that never need be, behind round 0 either.
// residual.groups == 0: none.
// pv_weights, pv_dest: V and the result of the product with V in a joined execution; pv_share,
// share: words of a tile's fill that it reads in a micro-slot with V and in one with K, as long as
// some are left.
// moves_first: of the program's moves, from which on follow: moves_once before the first execution
// of the segment, moves_before before every one, moves_after after every one.
struct StoreEntry {
    Shape shape;
    int32_t flush;
    int32_t pending;
    int32_t pending_tile;
    int32_t pending_end;
    int32_t sources;
    Region source[MAX_SOURCES];
    Region weights;  // ring weights
    Region residual;
    Region dest;
    Region pv_weights;
    Region pv_dest;
    int32_t pv_share;
    int32_t share;
    int32_t moves_first;
    int32_t moves_once;
    int32_t moves_before;
    int32_t moves_after;
};

// Rows that the store copies from the latent before the first entry and to the result after the
// last one.
struct StoreIo {
    int32_t input_row;
    int32_t input_rows;
    int32_t output_row;
    int32_t output_rows;
};

// Several steps in one start (docs/engine.md, "Several steps").
//   step_word    first word of the dynamic buffer that a step has of its own
//   step_words   from there on, and from step to step
//   octets       of the latent that is updated between steps; 0: the engine has no sampler
//   pair_octets  from an item's octet to that of its partner in a guided pair; 0: no pairs
//   groups       local groups of the input; group_rows: from one to the next
struct Updates {
    int32_t step_word;
    int32_t step_words;
    int32_t octets;
    int32_t pair_octets;
    int32_t groups;
    int32_t group_rows;
};

// items, item_octets: of the fill (octets of one item; a strip has items == 1)
// first_octet: of the fill within its tensor, without the execution's item
// n: values per group (group norm) or per row (layer norm)
// groups: local groups of each source; channels: logical channels of each (group norm)
// stats_base, stats_pitch: place of a source's sums (group norm), L*R of the source
// row_in: first octet of the source's row statistics (layer norm, softmax), of octet first_octet
// stats, stats_out, stats_pitch_out, row_out: of the destination; items_out
// stat_words: StatBeats that arrive: output groups x items_out, or octets
// by_item: 1: those of a round come item by item, else output group by output group
// sums_left: of stat_words, those that the following execution keeps, which reads the destination;
// sums_before: those that it keeps before it sums up an item (not the first one)
// rows_ahead: of the destination's row statistics, octets that the next execution with rows_sent
// reads and that are sent to it at once; rows_sent: octets of the fill that were sent so
// rows_first: 1: the scales of the fill are sent before those that the execution before makes are
// kept: they are others
// plain_shift: of the operands of source 1 in a joined execution, which are read with neither norm
// nor table
// pp_once: 1: the pp words come before the first execution of the segment (of one entry) only; 2:
// those of the execution before serve
struct PreEntry {
    Shape shape;
    int32_t items;
    int32_t item_octets;
    int32_t sources;
    int32_t groups[MAX_SOURCES];
    int32_t wide[MAX_SOURCES];
    int32_t align[MAX_SOURCES];
    int32_t channels[MAX_SOURCES];
    Addr stats_base[MAX_SOURCES];  // of item 0 of the execution
    int32_t stats_pitch[MAX_SOURCES];
    Addr row_in;
    int32_t norm;
    int32_t norm_groups;
    int32_t group_size;
    int32_t n;
    int32_t shift;
    int32_t plain_shift;
    int32_t table;    // 1: the operand goes through the run-time table
    int32_t uniform;  // 1: two pp words of source 0
    int32_t stats;
    Addr stats_out;
    int32_t stats_pitch_out;
    int32_t items_out;
    Addr row_out;
    int32_t stat_words;
    int32_t by_item;
    int32_t sums_left;
    int32_t sums_before;
    int32_t rows_ahead;
    int32_t rows_sent;
    int32_t rows_first;
    int32_t pp_once;
};

// row_sums: 1: send the sums of every fill octet's operands of source 0 to post
// groups: local groups of each source; ring_groups: local groups of a K head, ring_valid: its
// groups n, two to a row; ring_first: rows in front of the head
struct GatherEntry {
    Shape shape;
    int32_t sources;
    int32_t groups[MAX_SOURCES];
    int32_t ring_groups;
    int32_t ring_valid;
    int32_t ring_first;
    int32_t row_sums;
};

// stat_words as in PreEntry
struct ReduceEntry {
    int32_t stat_words;
};

// The lane of output pixel (y, x) may use tap k where 0 <= y*stride + ty[k] < limit_y, same in x.
// first_rows: weight rows of round 0 from ws (0: from the ring)
// late: every tile finds what it reads even if the last `late` octets filled by then are not there
struct MacEntry {
    Shape shape;
    int32_t items;      // of the fill
    int32_t out_slot;   // first output slot, within its tensor, without the execution's item
    int32_t fill_slot;  // first fill slot, likewise
    int32_t height;     // of the output
    int32_t width;
    int32_t pitch;       // pixel slots per item of the output
    int32_t src_height;  // of the sources
    int32_t src_width;
    int32_t src_pitch;
    int32_t stride;
    int32_t up;  // log2 of the up-sampling factor: 0 or 1
    int32_t origin;
    int32_t start;
    int32_t window_slots;  // in the buffer: all, or in turn (1x1 windows of one round)
    int32_t plane;         // window pixels of a phase (stride 2: of four), else all
    int32_t split;
    int32_t limit_y;
    int32_t limit_x;
    int32_t taps;
    int32_t subs;     // 16-channel subs per window pixel, all sources
    int32_t pv_subs;  // of them, the last ones: those of source 0 in a joined execution
    int32_t offset[MAX_TAPS];
    int32_t ty[MAX_TAPS];
    int32_t tx[MAX_TAPS];
    int32_t pad;  // operand of masked lanes
    int32_t sources;
    int32_t groups[MAX_SOURCES];         // local groups = Beats per octet
    int32_t source_groups[MAX_SOURCES];  // groups n that are used
    int32_t sub_base[MAX_SOURCES];
    int32_t first_rows;
    int32_t late;
};

// by_item: as in PreEntry
// wide, stats: of a joined execution those of the product with K; pv_wide: destination of the other
// table: 1: qp begins with a gate table, for this entry or a later one
struct PostEntry {
    Shape shape;
    int32_t items;        // of the output (biases)
    int32_t out_octet;    // first output octet within its tensor
    int32_t pixels;       // valid pixels per item
    int32_t item_octets;  // octets per item
    int32_t wide;         // destination
    int32_t pv_wide;
    int32_t residual;  // 1: add a residual
    int32_t residual_shift;
    int32_t row_sums;  // 1: divide by the row sums
    int32_t gate_shift;
    int32_t stats;
    int32_t by_item;
    int32_t table;
};

// ws: `ws_rows` rows of the execution, contiguous; first_rows of them in round 0, round_rows per
// round. cache: first row in the URAM cache, or -1. qp: scale words, one per unit; bias_words
// per unit. pp_once as in PreEntry. row_words: of 64 bytes, of a row of ws: 1 or 2.
struct WloadEntry {
    int32_t units;
    int32_t per_round;
    int32_t ws_rows;  // 0: weights come from the ring
    int32_t round_rows;
    int32_t row_words;
    int32_t ws_buffer;
    Addr ws;
    int32_t cache;
    Addr hd;  // static
    int32_t pp_words;
    int32_t pp_buffer;
    Addr pp;
    int32_t table_words;
    Addr table;  // static
    int32_t scale_buffer;
    Addr scale;
    int32_t bias_words;
    int32_t bias_buffer;
    Addr bias;
    int32_t pp_once;
};

}  // namespace lda

#endif
