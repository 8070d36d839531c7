// gather and reduce of the software card: their processes of one rank, by its place in the line
// of ranks, and the streams between neighbours.
#ifndef LDA_LINE_HPP
#define LDA_LINE_HPP

#include <functional>
#include <string>

#include "hls_stream.h"
#include "scheduler.hpp"

#include "../kernels/gather.hpp"
#include "../kernels/reduce.hpp"
#include "rank.hpp"

namespace lda {

// Streams between rank RANK and its right neighbour. "gather.r12" leads from instance 1 to 2.
template <class P, int RANK>
struct Hop {
    static std::string name(const char* kernel, int from, int to) {
        return std::string(kernel) + ".r" + std::to_string(from + 1) + std::to_string(to + 1);
    }
    hls::stream<Beat<RANK + 1>, P::DEPTH_LINK> gather_right{name("gather", RANK, RANK + 1)};
    hls::stream<Beat<P::RANKS - 1 - RANK>, P::DEPTH_LINK> gather_left{
        name("gather", RANK + 1, RANK)};
    hls::stream<StatBeat<RANK + 1>, P::DEPTH_LINK> reduce_right{name("reduce", RANK, RANK + 1)};
    hls::stream<StatBeat<P::RANKS - 1 - RANK>, P::DEPTH_LINK> reduce_left{
        name("reduce", RANK + 1, RANK)};

    // Processes of the end ranks send from their copy and receive in their join.
    void connect(sim::Scheduler& device) {
        const bool first = RANK == 0, last = RANK + 1 == P::RANKS - 1;
        const std::string left = "_" + std::to_string(RANK + 1);
        const std::string right = "_" + std::to_string(RANK + 2);
        const auto both = [&](const std::string& kernel, sim::Fifo& rightward,
                              sim::Fifo& leftward) {
            device.register_fifo(rightward, kernel + (first ? ".copy" : ".right") + left,
                                 kernel + (last ? ".join" : ".right") + right);
            device.register_fifo(leftward, kernel + (last ? ".copy" : ".left") + right,
                                 kernel + (first ? ".join" : ".left") + left);
        };
        both("gather", gather_right, gather_left);
        both("reduce", reduce_right, reduce_left);
    }
};

struct NoHop {
    void connect(sim::Scheduler&) {}
};

enum PlaceInLine { ONLY, FIRST, MIDDLE, LAST };

constexpr PlaceInLine place_in_line(int rank, int ranks) {
    return ranks == 1 ? ONLY : rank == 0 ? FIRST : rank == ranks - 1 ? LAST : MIDDLE;
}

// What the processes of all places have in common.
template <class P>
class LineNames {
  public:
    explicit LineNames(int rank) : rank_(rank) {}

  protected:
    std::string name(const char* of) const { return name_in_rank(of, rank_); }

    void spawn(sim::Scheduler& device, const char* process, std::function<void()> function) {
        device.spawn_free(name(process), std::move(function), P::STAGES_LINK, sim::Style::flp);
    }

    // `entrance`: the process that takes what this rank's pre and post send.
    void connect_rank(sim::Scheduler& device, Rank<P>& rank, const char* gather_entrance,
                      const char* reduce_entrance) {
        device.register_fifo(rank.px, name("pre.apply"), name(gather_entrance));
        device.register_fifo(rank.gs, name("gather.join"), name("mac"));
        device.register_fifo(rank.ks, name("gather.rows"), name("mac"));
        device.register_fifo(rank.ss, name("gather.join"), name("post"));
        device.register_fifo(rank.st, name("post"), name(reduce_entrance));
        device.register_fifo(rank.sg, name("reduce.join"), name("pre.sums"));
        device.register_fifo(kept_, name("gather.join"), name("gather.rows"));
    }

    void spawn_rows(sim::Scheduler& device, const ProgramView* p, Rank<P>& rank) {
        spawn(device, "gather.rows", [this, p, &rank] {
            gather_rows<P>(p->segments, p->segment_count, p->gather, kept_, rank.ks);
        });
    }

  private:
    const int rank_;

  protected:
    hls::stream<Beat<P::RANKS>, P::DEPTH_COPY> kept_{name("gather.kept")};
};

// gather and reduce of rank RANK.
template <class P, int RANK, PlaceInLine PLACE>
class LineProcesses;

template <class P, int RANK>
class LineProcesses<P, RANK, ONLY> : LineNames<P> {
  public:
    LineProcesses() : LineNames<P>(RANK) {}

    void spawn(sim::Scheduler& device, const ProgramView* p, Rank<P>& rank, NoHop&, NoHop&) {
        LineNames<P>::spawn(device, "gather.join", [this, p, &rank] {
            gather_join_only<P>(p->segments, p->segment_count, p->gather, rank.px, rank.gs,
                                this->kept_, rank.ss);
        });
        this->spawn_rows(device, p, rank);
        LineNames<P>::spawn(device, "reduce.join", [p, &rank] {
            reduce_join_only<P>(p->segments, p->segment_count, p->reduce, rank.st, rank.sg);
        });
    }
    void connect(sim::Scheduler& device, Rank<P>& rank) {
        this->connect_rank(device, rank, "gather.join", "reduce.join");
    }
};

// The streams of one's own words to join.
template <class P, int RANK>
class LineCopies : protected LineNames<P> {
  public:
    LineCopies() : LineNames<P>(RANK) {}

    void connect(sim::Scheduler& device, Rank<P>& rank) {
        this->connect_rank(device, rank, "gather.copy", "reduce.copy");
        device.register_fifo(word_, this->name("gather.copy"), this->name("gather.join"));
        device.register_fifo(stat_, this->name("reduce.copy"), this->name("reduce.join"));
    }

  protected:
    hls::stream<Word, P::DEPTH_COPY> word_{this->name("gather.own")};
    hls::stream<StatWord, P::DEPTH_COPY> stat_{this->name("reduce.own")};
};

template <class P, int RANK>
class LineProcesses<P, RANK, FIRST> : public LineCopies<P, RANK> {
  public:
    template <class Right>
    void spawn(sim::Scheduler& device, const ProgramView* p, Rank<P>& rank, NoHop&, Right& right) {
        LineNames<P>::spawn(device, "gather.copy", [this, p, &rank, &right] {
            gather_copy<P>(p->segments, p->segment_count, p->gather, rank.px, right.gather_right,
                           this->word_);
        });
        LineNames<P>::spawn(device, "gather.join", [this, p, &rank, &right] {
            gather_join_first<P>(p->segments, p->segment_count, p->gather, this->word_,
                                 right.gather_left, rank.gs, this->kept_, rank.ss);
        });
        this->spawn_rows(device, p, rank);
        LineNames<P>::spawn(device, "reduce.copy", [this, p, &rank, &right] {
            reduce_copy<P>(p->segments, p->segment_count, p->reduce, rank.st, right.reduce_right,
                           this->stat_);
        });
        LineNames<P>::spawn(device, "reduce.join", [this, p, &rank, &right] {
            reduce_join_first<P>(p->segments, p->segment_count, p->reduce, this->stat_,
                                 right.reduce_left, rank.sg);
        });
    }
};

template <class P, int RANK>
class LineProcesses<P, RANK, LAST> : public LineCopies<P, RANK> {
  public:
    template <class Left>
    void spawn(sim::Scheduler& device, const ProgramView* p, Rank<P>& rank, Left& left, NoHop&) {
        LineNames<P>::spawn(device, "gather.copy", [this, p, &rank, &left] {
            gather_copy<P>(p->segments, p->segment_count, p->gather, rank.px, left.gather_left,
                           this->word_);
        });
        LineNames<P>::spawn(device, "gather.join", [this, p, &rank, &left] {
            gather_join_last<P>(p->segments, p->segment_count, p->gather, left.gather_right,
                                this->word_, rank.gs, this->kept_, rank.ss);
        });
        this->spawn_rows(device, p, rank);
        LineNames<P>::spawn(device, "reduce.copy", [this, p, &rank, &left] {
            reduce_copy<P>(p->segments, p->segment_count, p->reduce, rank.st, left.reduce_left,
                           this->stat_);
        });
        LineNames<P>::spawn(device, "reduce.join", [this, p, &rank, &left] {
            reduce_join_last<P>(p->segments, p->segment_count, p->reduce, left.reduce_right,
                                this->stat_, rank.sg);
        });
    }
};

template <class P, int RANK>
class LineProcesses<P, RANK, MIDDLE> : public LineCopies<P, RANK> {
  public:
    template <class Left, class Right>
    void spawn(sim::Scheduler& device, const ProgramView* p, Rank<P>& rank, Left& left,
               Right& right) {
        LineNames<P>::spawn(device, "gather.copy", [this, p, &rank] {
            gather_copy<P>(p->segments, p->segment_count, p->gather, rank.px, word_rightward_,
                           word_leftward_, this->word_);
        });
        LineNames<P>::spawn(device, "gather.right", [this, p, &left, &right] {
            gather_right<P, RANK>(p->segments, p->segment_count, p->gather, left.gather_right,
                                  word_rightward_, right.gather_right, beats_left_);
        });
        LineNames<P>::spawn(device, "gather.left", [this, p, &left, &right] {
            gather_left<P, RANK>(p->segments, p->segment_count, p->gather, right.gather_left,
                                 word_leftward_, left.gather_left, beats_right_);
        });
        LineNames<P>::spawn(device, "gather.join", [this, p, &rank] {
            gather_join<P, RANK>(p->segments, p->segment_count, p->gather, beats_left_, this->word_,
                                 beats_right_, rank.gs, this->kept_, rank.ss);
        });
        this->spawn_rows(device, p, rank);
        LineNames<P>::spawn(device, "reduce.copy", [this, p, &rank] {
            reduce_copy<P>(p->segments, p->segment_count, p->reduce, rank.st, stat_rightward_,
                           stat_leftward_, this->stat_);
        });
        LineNames<P>::spawn(device, "reduce.right", [this, p, &left, &right] {
            reduce_right<P, RANK>(p->segments, p->segment_count, p->reduce, left.reduce_right,
                                  stat_rightward_, right.reduce_right, stats_left_);
        });
        LineNames<P>::spawn(device, "reduce.left", [this, p, &left, &right] {
            reduce_left<P, RANK>(p->segments, p->segment_count, p->reduce, right.reduce_left,
                                 stat_leftward_, left.reduce_left, stats_right_);
        });
        LineNames<P>::spawn(device, "reduce.join", [this, p, &rank] {
            reduce_join<P, RANK>(p->segments, p->segment_count, p->reduce, stats_left_, this->stat_,
                                 stats_right_, rank.sg);
        });
    }

    void connect(sim::Scheduler& device, Rank<P>& rank) {
        LineCopies<P, RANK>::connect(device, rank);
        connect_inside(device, "gather", word_rightward_, word_leftward_, beats_left_,
                       beats_right_);
        connect_inside(device, "reduce", stat_rightward_, stat_leftward_, stats_left_,
                       stats_right_);
    }

  private:
    void connect_inside(sim::Scheduler& device, const std::string& kernel, sim::Fifo& rightward,
                        sim::Fifo& leftward, sim::Fifo& from_left, sim::Fifo& from_right) {
        const std::string rank = "_" + std::to_string(RANK + 1);
        device.register_fifo(rightward, kernel + ".copy" + rank, kernel + ".right" + rank);
        device.register_fifo(leftward, kernel + ".copy" + rank, kernel + ".left" + rank);
        device.register_fifo(from_left, kernel + ".right" + rank, kernel + ".join" + rank);
        device.register_fifo(from_right, kernel + ".left" + rank, kernel + ".join" + rank);
    }

    static const int RIGHT = P::RANKS - 1 - RANK;  // ranks to the right
    hls::stream<Word, P::DEPTH_COPY> word_rightward_{this->name("gather.rightward")};
    hls::stream<Word, P::DEPTH_COPY> word_leftward_{this->name("gather.leftward")};
    hls::stream<Beat<RANK>, P::DEPTH_COPY> beats_left_{this->name("gather.left")};
    hls::stream<Beat<RIGHT>, P::DEPTH_COPY> beats_right_{this->name("gather.right")};
    hls::stream<StatWord, P::DEPTH_COPY> stat_rightward_{this->name("reduce.rightward")};
    hls::stream<StatWord, P::DEPTH_COPY> stat_leftward_{this->name("reduce.leftward")};
    hls::stream<StatBeat<RANK>, P::DEPTH_COPY> stats_left_{this->name("reduce.left")};
    hls::stream<StatBeat<RIGHT>, P::DEPTH_COPY> stats_right_{this->name("reduce.right")};
};

// Ranks 0 .. RANK with all that is between them.
template <class P, int RANK>
class Line : public Line<P, RANK - 1> {
  public:
    typedef typename std::conditional<RANK + 1 < P::RANKS, Hop<P, RANK>, NoHop>::type Right;

    void spawn(sim::Scheduler& device, const ProgramView& program, const Observer& observer) {
        Line<P, RANK - 1>::spawn(device, program, observer);
        rank_.spawn(device, program, observer);
        processes_.spawn(device, &program, rank_, Line<P, RANK - 1>::before(), right_);
    }
    void connect(sim::Scheduler& device) {
        Line<P, RANK - 1>::connect(device);
        rank_.connect(device);
        processes_.connect(device, rank_);
        right_.connect(device);
    }
    Rank<P>& rank(int rank) { return rank == RANK ? rank_ : Line<P, RANK - 1>::rank(rank); }
    Right& before() { return right_; }

  private:
    Rank<P> rank_{RANK};
    LineProcesses<P, RANK, place_in_line(RANK, P::RANKS)> processes_;
    Right right_;
};

template <class P>
class Line<P, -1> {
  public:
    void spawn(sim::Scheduler&, const ProgramView&, const Observer&) {}
    void connect(sim::Scheduler&) {}
    Rank<P>& rank(int) { throw std::out_of_range("there is no such rank"); }
    NoHop& before() { return none_; }

  private:
    NoHop none_;
};

}  // namespace lda

#endif
