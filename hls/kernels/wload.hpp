// wload: reads weights and parameters from DDR and sends them in the order in which they are used.
//
// Per entry: ws of group 0 if mac loads it first, pp, then per output group: [the gate table, once]
// and for value and gate one scale word and the bias words (qp), then ws of the next group, or
// after the last group those of the next entry's group 0 if mac asks for them.
//
// One flattened loop per entry with one read of 64 bytes an iteration: the reads of the next words
// are outstanding while the first ones arrive, whatever part they belong to.
#ifndef LDA_WLOAD_HPP
#define LDA_WLOAD_HPP

#include "params.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "types.hpp"

namespace lda {

// Destination of a run of words.
enum Target { TO_MAC, TO_PRE, TO_POST };

// A run of consecutive words of one buffer.
struct Run {
    int buffer;
    int word;
    int words;
    int target;
};

// Position in an entry's runs; every run may be empty. Addresses advance by sums alone.
struct RunWalk {
    enum Part { FIRST, PARAMS, TABLE, SCALE, BIAS, NEXT, END };
    int part, group, gate;
    int ws, pp, table, scale, bias;  // next word of each

    void start(const WloadEntry& entry, int i0, int i1) {
#pragma HLS inline
        part = FIRST;
        group = gate = 0;
        ws = at(entry.ws, i0, i1);
        pp = at(entry.pp, i0, i1);
        table = at(entry.table, i0, i1);
        scale = at(entry.scale, i0, i1);
        bias = at(entry.bias, i0, i1);
    }

    void next(const WloadEntry& entry) {
#pragma HLS inline
        if (part == FIRST || part == NEXT) ws += entry.ws_words;
        if (part == SCALE) ++scale;
        if (part == BIAS) bias += entry.bias_words;
        if (part == BIAS && gate + 1 < entry.gates) {
            part = SCALE;
            ++gate;
        } else if (part == NEXT && group + 1 < entry.groups) {
            part = SCALE;
            gate = 0;
            ++group;
        } else {
            ++part;
        }
    }

    // `next_run` is the first group of the following entry.
    Run run(const WloadEntry& entry, const Run& next_run) const {
#pragma HLS inline
        Run run = {BUFFER_STATIC, 0, 0, TO_MAC};
        switch (part) {
            case FIRST:
                run.buffer = entry.ws_buffer;
                run.word = ws;
                run.words = entry.load_first ? entry.ws_words : 0;
                break;
            case PARAMS:
                run.buffer = entry.pp_buffer;
                run.word = pp;
                run.words = entry.pp_words;
                run.target = TO_PRE;
                break;
            case TABLE:
                run.word = table;
                run.words = entry.table_words;
                run.target = TO_POST;
                break;
            case SCALE:
                run.word = scale;
                run.words = 1;
                run.target = TO_POST;
                break;
            case BIAS:
                run.buffer = entry.bias_buffer;
                run.word = bias;
                run.words = entry.bias_words;
                run.target = TO_POST;
                break;
            default:
                if (group + 1 < entry.groups) {
                    run.buffer = entry.ws_buffer;
                    run.word = ws;
                    run.words = entry.ws_words;
                } else if (entry.prefetch_next) {
                    run = next_run;
                }
                break;
        }
        return run;
    }
};

template <class P, class Source>
void wload_entry(const WloadEntry& entry, const Run& next_run, int i0, int i1, Source weights,
                 Source dynamic, hls::stream<Word>& ws_s, hls::stream<Word>& pp_s,
                 hls::stream<Word>& qp_s) {
#pragma HLS inline off
    RunWalk walk;
    walk.start(entry, i0, i1);
    Run run = walk.run(entry, next_run);
    int index = 0;
RUNS:
    while (walk.part != RunWalk::END) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount min = 64 max = 65536
        TICK(1);
        if (index < run.words) {
            const int address = run.word + index;
            const Word word = run.buffer == BUFFER_STATIC ? weights[address] : dynamic[address];
            if (run.target == TO_MAC) {
                ws_s.write(word);
            } else if (run.target == TO_PRE) {
                pp_s.write(word);
            } else {
                qp_s.write(word);
            }
            ++index;
        }
        if (index >= run.words) {
            walk.next(entry);
            run = walk.run(entry, next_run);
            index = 0;
        }
    }
    LOOP_EXIT();
}

template <class P, class Source>
void wload(Source weights, Source dynamic, const Segment* segments, int segment_count,
           const WloadEntry* entries, hls::stream<Word>& ws_s, hls::stream<Word>& pp_s,
           hls::stream<Word>& qp_s) {
#pragma HLS inline
    static_assert(CheckEngine<P>::ok, "engine parameters");
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
                    // where the program goes on, for the weights loaded ahead
                    Run next_run = {BUFFER_STATIC, 0, 0, TO_MAC};
                    const bool inside = k + 1 < segment.count;
                    const bool inner = i1 + 1 < segment.n1, outer = i0 + 1 < segment.n0;
                    const bool again = inside || inner || outer;
                    if (entry.prefetch_next && (again || s + 1 < segment_count)) {
                        const int after =
                            again ? segment.first + (inside ? k + 1 : 0) : segments[s + 1].first;
                        const int n0 = !again ? 0 : inside || inner ? i0 : i0 + 1;
                        const int n1 = !again ? 0 : inside ? i1 : inner ? i1 + 1 : 0;
                        const WloadEntry following = entries[after];
                        next_run.buffer = following.ws_buffer;
                        next_run.word = at(following.ws, n0, n1);
                        next_run.words = following.ws_words;
                    }
                    wload_entry<P>(entry, next_run, i0, i1, weights, dynamic, ws_s, pp_s, qp_s);
                }
            }
        }
    }
}

}  // namespace lda

#endif
