// wload: reads weights and parameters from memory and sends them in the order in which they are
// used. Four processes in a dataflow region:
//
//     plan --static runs---> fetch(weights) --words--v
//      | \---dynamic runs--> fetch(dynamic) --words--> route -> hd, pp, ws, qp
//      \----------------------runs-------------------^
//
// fetch asks for a run FETCH_AHEAD runs before it reads its words, so that the latency of the
// memory passes while earlier words arrive, whatever they belong to. Cached weight rows come from
// the card's own memory, one a cycle.
#ifndef LDA_WLOAD_HPP
#define LDA_WLOAD_HPP

#include "params.hpp"
#include "port.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "types.hpp"
#include "weights.hpp"
#include "wload_plan.hpp"

namespace lda {

// plan passes on a run while fetch waits for those FETCH_AHEAD runs later, and its pipeline holds
// some back.
static_assert(RUNS_DEPTH >= 2 * FETCH_AHEAD, "plan stays ahead of those who fetch");

// Rows of weights that stay on the card, of STORED_BITS: those of more bits do not.
template <class P>
struct CacheMemory {
    WeightRow<P::STORED_BITS> rows[P::CACHE_ROWS > 0 ? P::CACHE_ROWS : 1];
};

// An engine without a cache has one row, which nobody asks for.
template <class P>
inline int cache_row(int row) {
#pragma HLS inline
    LDA_CHECK(row >= 0 && row < P::CACHE_ROWS, "wload: a row outside of the cache");
    return P::CACHE_ROWS > 0 ? row : 0;
}

// Port: a memory of 64-byte words, read in bursts: hls::burst_maxi<PortWord> in hardware.
template <class P, class Port>
void wload_fetch(Port port, hls::stream<Fetch>& fetch_s, hls::stream<Word>& words_s) {
#pragma HLS inline off
    static_assert(BURST_WORDS <= 127 && LAST_RUN >= -128, "a run's words fit 8 bits");
    int8_t requested[FETCH_AHEAD];  // words of the runs asked for, a ring
#pragma HLS array_partition variable = requested complete
    for (int k = 0; k < FETCH_AHEAD; ++k) {
#pragma HLS unroll
        requested[k] = 0;
    }
    int oldest = 0, left = 0;
    bool done = false;
WORDS:
    while (!done) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 64 max = 65536
        TICK(1);
        if (left > 0) {
            words_s.write(word_of(port.read()));
            --left;
        } else {
            const Fetch fetch = fetch_s.read();
            if (fetch.words > 0) port.read_request(fetch.word, fetch.words);
            left = requested[oldest];
            done = left == LAST_RUN;
            requested[oldest] = int8_t(fetch.words);
            oldest = oldest + 1 == FETCH_AHEAD ? 0 : oldest + 1;
        }
    }
    LOOP_EXIT();
}

template <class P>
void wload_route(CacheMemory<P>& cache, hls::stream<Run>& runs_s, hls::stream<Word>& static_s,
                 hls::stream<Word>& dynamic_s, hls::stream<Word>& hd_s, hls::stream<Word>& pp_s,
                 hls::stream<WeightRow<P::WEIGHT_BITS>>& ws_s, hls::stream<Word>& qp_s) {
#pragma HLS inline off
    Word scales[BURST_WORDS];  // of a batch, which are one run
#pragma HLS bind_storage variable = scales type = ram_s2p impl = lutram
    const bool WIDENS = P::STORED_BITS < P::WEIGHT_BITS;
    Word before;  // the word before: of a row of two words, its first one
    for (int i = 0; i < WORD_BYTES; ++i) {
#pragma HLS unroll
        before.b[i] = 0;
    }
    Run run = {0, 0, 0, 0, 1};
    int left = 0, index = 0;   // words of the run, to come and seen
    int unit = 0, biases = 0;  // next scale word, bias words left of its unit
    bool done = false;
RUNS:
    while (!done) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS dependence variable = scales type = inter direction = RAW distance = 2 true
// A step either fills the cache or reads it, and a row comes again a whole step later.
#pragma HLS dependence variable = cache.rows type = inter false
#pragma HLS loop_tripcount min = 64 max = 65536
        TICK(1);
        if (left == 0) {
            run = runs_s.read();
            done = run.words == LAST_RUN;
            left = run.words;
            index = 0;
            if (run.target == SCALES) unit = 0;
        } else if (run.target == CACHED) {
            const WeightRow<P::STORED_BITS> stored = cache.rows[cache_row<P>(run.detail + index)];
            WeightRow<P::WEIGHT_BITS> row;
            widen(stored, row);
            ws_s.write(row);
            ++index;
            --left;
        } else if (run.target == BIASES && biases == 0) {
            qp_s.write(scales[unit]);
            ++unit;
            biases = run.detail;
        } else {
            const Word word = run.buffer == BUFFER_STATIC ? static_s.read() : dynamic_s.read();
            const bool two = run.row_words == 2;
            WeightRow<P::STORED_BITS> stored;
            WeightRow<P::WEIGHT_BITS> row;
            switch (run.target) {
                case TO_NORM:
                    hd_s.write(word);
                    break;
                case TO_APPLY:
                    pp_s.write(word);
                    break;
                case TO_POST:
                    qp_s.write(word);
                    break;
                case SCALES:
                    LDA_CHECK(index < BURST_WORDS, "wload: a batch of too many units");
                    scales[index] = word;
                    break;
                case BIASES:
                    qp_s.write(word);
                    --biases;
                    break;
                default:
                    LDA_CHECK(4 * run.row_words == P::STORED_BITS ||
                                  (4 * run.row_words == P::WEIGHT_BITS && run.detail < 0),
                              "wload: a row of other words than the engine has");
                    if (!two || index % 2 == 1) {
                        row_from(before, word, stored);
                        widen(stored, row);
                        if (WIDENS && two) row_from(before, word, row);
                        ws_s.write(row);
                        if (run.detail >= 0) {
                            const int at = two ? index / 2 : index;
                            cache.rows[cache_row<P>(run.detail + at)] = stored;
                        }
                    }
                    break;
            }
            before = word;
            ++index;
            --left;
        }
    }
    LOOP_EXIT();
}

// Simulations run the four processes by themselves, with streams of these depths.
template <class P, class Port>
void wload(Port weights, Port dynamic, int reload, int steps, const Updates& updates,
           const Segment* segments, int segment_count, const WloadEntry* entries,
           CacheMemory<P>& cache, hls::stream<Word>& hd_s, hls::stream<Word>& pp_s,
           hls::stream<WeightRow<P::WEIGHT_BITS>>& ws_s, hls::stream<Word>& qp_s) {
#pragma HLS dataflow
    static_assert(CheckEngine<P>::ok, "engine parameters");
    hls::stream<Fetch, RUNS_DEPTH> static_runs("static_runs");
    hls::stream<Fetch, RUNS_DEPTH> dynamic_runs("dynamic_runs");
    hls::stream<Run, RUNS_DEPTH> runs("runs");
    hls::stream<Word, WORDS_DEPTH> static_words("static_words");
    hls::stream<Word, WORDS_DEPTH> dynamic_words("dynamic_words");
    wload_plan<P>(reload, steps, updates, segments, segment_count, entries, static_runs,
                  dynamic_runs, runs);
    wload_fetch<P>(weights, static_runs, static_words);
    wload_fetch<P>(dynamic, dynamic_runs, dynamic_words);
    wload_route<P>(cache, runs, static_words, dynamic_words, hd_s, pp_s, ws_s, qp_s);
}

}  // namespace lda

#endif
