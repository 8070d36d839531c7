// The C functions of card.so (described in card.hpp), for the class LDA_CARD, which is a Card made
// without arguments. Included once, by the card's translation unit:
//     class ThisCard : public lda::Card<Engine> { public: ThisCard() : Card(PROGRAM) {} };
//     #define LDA_CARD ThisCard
//     #define LDA_BUILD_ID "..."
//     #include "card_abi.hpp"
#ifndef LDA_CARD_ABI_HPP
#define LDA_CARD_ABI_HPP

#include <new>

#include "card.hpp"

#if !defined(LDA_CARD) || !defined(LDA_BUILD_ID)
#error "define LDA_CARD and LDA_BUILD_ID before card_abi.hpp"
#endif

extern "C" {

void* lda_card_new() {
    try {
        return new LDA_CARD();
    } catch (const std::exception&) {
        return nullptr;
    }
}

void lda_card_free(void* card) {
    delete static_cast<LDA_CARD*>(card);
}

int lda_card_ranks(void*) {
    return LDA_CARD::RANKS;
}

int lda_card_step(void* card, const lda::CardBuffers* buffers, int ranks, int reload, int steps) {
    return static_cast<LDA_CARD*>(card)->step(buffers, ranks, reload != 0, steps);
}

const char* lda_card_error(void* card) {
    return static_cast<LDA_CARD*>(card)->error();
}

uint64_t lda_card_cycles(void* card) {
    return static_cast<LDA_CARD*>(card)->cycles();
}

const char* lda_card_report(void* card) {
    return static_cast<LDA_CARD*>(card)->report();
}

void lda_card_on_entry(void* card, lda::EntryCallback function, void* context) {
    static_cast<LDA_CARD*>(card)->on_entry(function, context);
}

void lda_card_read_rows(void* card, int rank, int row, int count, uint8_t* bytes) {
    static_cast<LDA_CARD*>(card)->read_rows(rank, row, count, bytes);
}

int lda_card_set_fifo_depth(void* card, const char* name, int depth) {
    return static_cast<LDA_CARD*>(card)->set_fifo_depth(name, depth);
}

void lda_card_measure_peaks(void* card, int on) {
    static_cast<LDA_CARD*>(card)->measure_peaks(on != 0);
}

void lda_card_poison(void* card, int byte) {
    static_cast<LDA_CARD*>(card)->poison(uint8_t(byte));
}

const char* lda_card_build_id() {
    return LDA_BUILD_ID;
}

}  // extern "C"

#endif
