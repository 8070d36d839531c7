// First process of wload: which words of memory go where, in the order in which they are used
// (docs/engine.md, "wload"). Sends runs of consecutive words to the processes that fetch them and
// to the one that passes them on.
#ifndef LDA_WLOAD_PLAN_HPP
#define LDA_WLOAD_PLAN_HPP

#include "params.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "types.hpp"

namespace lda {

// What happens to the words of a run.
//   TO_NORM, TO_APPLY, TO_POST   they go to hd, pp, qp
//   SCALES                       kept: one for every unit of a batch
//   BIASES                       to qp, behind the scale word of their unit
//   ROWS                         weight rows of one word or two each, to ws
//   CACHED                       rows that come from the cache instead, to ws
enum Target { TO_NORM, TO_APPLY, TO_POST, SCALES, BIASES, ROWS, CACHED };

// Words of `rows` weight rows of one word or two each.
inline int words_of(int rows, int row_words) {
#pragma HLS inline
    return row_words == 2 ? 2 * rows : rows;
}

static const int LAST_RUN = -1;     // in place of a number of words: nothing follows
static const int BURST_WORDS = 64;  // of memory, at most, in one run
static const int FETCH_AHEAD = 15;  // runs asked for behind the one whose words are read: together
                                    // as many bursts as ports allow (num_read_outstanding)
static const int RUNS_DEPTH = 32;   // of the FIFOs from plan, so that plan can be ahead as well
static const int WORDS_DEPTH = 64;  // of the FIFOs of fetched words

// For a process that fetches. 0 words: a run of the other buffer.
struct Fetch {
    int32_t word;
    int32_t words;
};

// For the process that passes on. words: of CACHED, rows. detail: of BIASES, the words of a unit;
// of ROWS and CACHED, the row of the cache, or -1. row_words: of ROWS.
struct Run {
    int32_t words;
    int32_t buffer;
    int32_t target;
    int32_t detail;
    int32_t row_words;
};

// What is sent ahead of an execution.
struct Ahead {
    int hd;
    int pp_words, pp_buffer, pp;
    int rows, row_words, ws_buffer, ws, cache;
};

inline Ahead no_ahead() {
#pragma HLS inline
    const Ahead none = {-1, 0, 0, 0, 0, 1, 0, 0, -1};
    return none;
}

// What a step has of its own: from word `first` of the dynamic buffer on, for the first step;
// `shift` words later for the one at hand.
struct StepPlace {
    int first;
    int shift;

    // Where a step finds the words that the first one finds at `word`.
    int of(int buffer, int word) const {
#pragma HLS inline
        return buffer == BUFFER_DYNAMIC && word >= first ? word + shift : word;
    }
};

inline Ahead ahead_of(const WloadEntry& entry, int i0, int i1, const StepPlace& step) {
#pragma HLS inline
    const Ahead ahead = {
        at(entry.hd, i0, i1),
        entry.pp_once == 2 || (entry.pp_once && (i0 > 0 || i1 > 0)) ? 0 : entry.pp_words,
        entry.pp_buffer,
        step.of(entry.pp_buffer, at(entry.pp, i0, i1)),
        least(entry.round_rows, entry.ws_rows),
        entry.row_words,
        entry.ws_buffer,
        at(entry.ws, i0, i1),
        entry.cache};
    return ahead;
}

// Position in the runs of an execution; every run may be empty. Addresses advance by sums alone.
// Parameters of a round come in batches of units whose scales are one run.
template <class P>
struct RunWalk {
    enum Part { TABLE, SCALE, BIAS, NEXT_ROWS, NEXT_HD, NEXT_PP, FIRST_ROWS, END };
    int part;
    int units;        // whose parameters are to come: of this round and those behind it
    int round_units;  // of this round alone
    int rows;         // of the rounds to come
    int scale, bias;  // next word of each
    int ws, cache;    // next word, next row of the cache or -1

    void start(const WloadEntry& entry, int i0, int i1, const StepPlace& step) {
#pragma HLS inline
        const int first = least(entry.round_rows, entry.ws_rows);
        part = TABLE;
        units = entry.units;
        round_units = least(entry.per_round, units);
        rows = entry.ws_rows - first;
        scale = at(entry.scale, i0, i1);
        bias = step.of(entry.bias_buffer, at(entry.bias, i0, i1));
        ws = at(entry.ws, i0, i1) + words_of(first, entry.row_words);
        cache = entry.cache < 0 ? -1 : entry.cache + first;
    }

    void next(const WloadEntry& entry) {
#pragma HLS inline
        const int batch = least(BURST_WORDS, round_units);
        const int round_rows = least(entry.round_rows, rows);
        if (part == SCALE) scale += batch;
        if (part == BIAS) {
            bias += batch * entry.bias_words;
            units -= batch;
            round_units -= batch;
            part = round_units > 0 ? SCALE : units > 0 ? NEXT_ROWS : NEXT_HD;
        } else if (part == NEXT_ROWS) {
            rows -= round_rows;
            ws += words_of(round_rows, entry.row_words);
            if (cache >= 0) cache += round_rows;
            round_units = least(entry.per_round, units);
            part = SCALE;
        } else {
            ++part;
        }
    }

    // The run at this position and its first word.
    Run run(const WloadEntry& entry, int table, const Ahead& ahead, bool reload, int& word) const {
#pragma HLS inline
        Run run = {0, BUFFER_STATIC, TO_POST, -1, 1};
        int row_count = 0;
        word = 0;
        switch (part) {
            case TABLE:
                run.words = entry.table_words;
                word = table;
                break;
            case SCALE:
                run.words = least(BURST_WORDS, round_units);
                run.buffer = entry.scale_buffer;
                run.target = SCALES;
                word = scale;
                break;
            case BIAS:
                run.words = least(BURST_WORDS, round_units) * entry.bias_words;
                run.buffer = entry.bias_buffer;
                run.target = BIASES;
                run.detail = entry.bias_words;
                word = bias;
                break;
            case NEXT_ROWS:
                row_count = least(entry.round_rows, rows);
                run.buffer = entry.ws_buffer;
                run.detail = cache;
                run.row_words = entry.row_words;
                word = ws;
                break;
            case NEXT_HD:
                run.words = ahead.hd >= 0 ? 1 : 0;
                run.target = TO_NORM;
                word = ahead.hd;
                break;
            case NEXT_PP:
                run.words = ahead.pp_words;
                run.buffer = ahead.pp_buffer;
                run.target = TO_APPLY;
                word = ahead.pp;
                break;
            default:
                row_count = ahead.rows;
                run.buffer = ahead.ws_buffer;
                run.detail = ahead.cache;
                run.row_words = ahead.row_words;
                word = ahead.ws;
                break;
        }
        if (part == NEXT_ROWS || part == FIRST_ROWS) {
            const bool cached = run.detail >= 0 && !reload;
            run.target = cached ? CACHED : ROWS;
            run.words = cached ? row_count : words_of(row_count, run.row_words);
        }
        return run;
    }
};

// The runs of one execution from `part` on, in pieces of a burst each.
template <class P>
void plan_entry(const WloadEntry& entry, const Ahead& ahead, int part, int i0, int i1, bool reload,
                const StepPlace& step, hls::stream<Fetch>& static_s, hls::stream<Fetch>& dynamic_s,
                hls::stream<Run>& runs_s) {
#pragma HLS inline off
    const Fetch nothing = {0, 0};
    const int table = at(entry.table, i0, i1);
    RunWalk<P> walk;
    walk.start(entry, i0, i1, step);
    walk.part = part;
    int done = 0, word = 0;
    Run run = walk.run(entry, table, ahead, reload, word);
RUNS:
    while (walk.part != RunWalk<P>::END) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 8 max = 4096
        TICK(1);
        const bool cached = run.target == CACHED;
        Run piece = run;
        piece.words = cached ? run.words : least(BURST_WORDS, run.words - done);
        if ((run.target == ROWS) && run.detail >= 0)
            piece.detail = run.detail + (run.row_words == 2 ? done / 2 : done);
        if (piece.words > 0) {
            const Fetch fetch = {word + done, piece.words};
            const bool of_static = run.buffer == BUFFER_STATIC;
            static_s.write(!cached && of_static ? fetch : nothing);
            dynamic_s.write(!cached && !of_static ? fetch : nothing);
            runs_s.write(piece);
        }
        done += piece.words;
        if (done >= run.words) {
            walk.next(entry);
            run = walk.run(entry, table, ahead, reload, word);
            done = 0;
        }
    }
    LOOP_EXIT();
}

// The layer program, once.
template <class P>
void plan_step(bool reload, const StepPlace& step, const Segment* segments, int segment_count,
               const WloadEntry* entries, hls::stream<Fetch>& static_s,
               hls::stream<Fetch>& dynamic_s, hls::stream<Run>& runs_s) {
#pragma HLS inline
    const WloadEntry first = entries[segments[0].first];
    plan_entry<P>(first, ahead_of(first, 0, 0, step), RunWalk<P>::NEXT_HD, 0, 0, reload, step,
                  static_s, dynamic_s, runs_s);
SEGMENTS:
    for (int s = 0; s < segment_count; ++s) {
        const Segment segment = segments[s];
    OUTER:
        for (int i0 = 0; i0 < segment.n0; ++i0) {
        INNER:
            for (int i1 = 0; i1 < segment.n1; ++i1) {
            ENTRIES:
                for (int k = 0; k < segment.count; ++k) {
                    const WloadEntry entry = entries[segment.first + k];
                    const Following next = following(segments, segment_count, s, i0, i1, k);
                    Ahead ahead = no_ahead();
                    if (next.entry >= 0) {
                        ahead = ahead_of(entries[next.entry], next.i0, next.i1, step);
                    }
                    plan_entry<P>(entry, ahead, RunWalk<P>::TABLE, i0, i1, reload, step, static_s,
                                  dynamic_s, runs_s);
                }
            }
        }
    }
}

// steps: as often the program is run. reload: of the first one.
template <class P>
void wload_plan(int reload, int steps, const Updates& updates, const Segment* segments,
                int segment_count, const WloadEntry* entries, hls::stream<Fetch>& static_s,
                hls::stream<Fetch>& dynamic_s, hls::stream<Run>& runs_s) {
#pragma HLS inline off
    StepPlace place = {updates.step_word, 0};
STEPS:
    for (int step = 0; step < steps; ++step) {
#pragma HLS loop_tripcount min = 1 max = 50
        plan_step<P>(reload != 0 && step == 0, place, segments, segment_count, entries, static_s,
                     dynamic_s, runs_s);
        place.shift += updates.step_words;
    }
    // Behind the last run as many others as the fetching processes look ahead.
    const Run last_run = {LAST_RUN, 0, 0, 0, 1};
    runs_s.write(last_run);
LAST:
    for (int k = 0; k <= FETCH_AHEAD; ++k) {
#pragma HLS pipeline II = 1 style = flp
        TICK(1);
        const Fetch fetch = {0, k == 0 ? LAST_RUN : 0};
        static_s.write(fetch);
        dynamic_s.write(fetch);
    }
    LOOP_EXIT();
}

}  // namespace lda

#endif
