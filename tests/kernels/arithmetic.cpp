// The arithmetic of the kernels for tests/test_kernels.py, array by array.
#include <cstring>

#include "../../hls/kernels/arithmetic.hpp"
#include "../../hls/kernels/params.hpp"
#include "../../hls/kernels/post_word.hpp"

using namespace lda;

extern "C" {

void t_squares(const int64_t* x, int n, int64_t* kept) {
    for (int i = 0; i < n; ++i) {
        StatWord word = StatWord();
        set_square(word, i % GROUP, x[i]);
        kept[i] = square_at(word, i % GROUP);
    }
}

void t_rshr(const int64_t* x, const int32_t* s, int n, int64_t* plain, int64_t* offset) {
    for (int i = 0; i < n; ++i) {
        plain[i] = rshr(x[i], s[i]);
        offset[i] = rshr_by_offset(x[i], s[i]);
    }
}

void t_clamp(const int64_t* x, int n, int32_t* c8, int32_t* c11, int32_t* c16, int32_t* c18) {
    for (int i = 0; i < n; ++i) {
        c8[i] = clamp<8>(x[i]);
        c11[i] = clamp<11>(x[i]);
        c16[i] = clamp<16>(x[i]);
        c18[i] = clamp<18>(x[i]);
    }
}

void t_quotient(const uint64_t* a, const uint32_t* b, int n, uint32_t* q27, uint32_t* q18) {
    for (int i = 0; i < n; ++i) {
        q27[i] = quotient_by_steps<27>(a[i], b[i]);
        q18[i] = quotient_by_steps<18>(a[i], b[i]);
    }
}

void t_isqrt(const uint32_t* x, int n, uint32_t* root) {
    for (int i = 0; i < n; ++i)
        root[i] = isqrt(x[i]);
}

void t_normaliser(const int64_t* sum, const int64_t* square, const int32_t* count,
                  const int64_t* eps, int n, int32_t* scales) {
    for (int i = 0; i < n; ++i) {
        const Scale scale = normaliser(sum[i], square[i], count[i], eps[i]);
        scales[3 * i] = scale.mu;
        scales[3 * i + 1] = scale.r;
        scales[3 * i + 2] = scale.e;
    }
}

void t_normalise(const int32_t* v, const int32_t* scales, int n, int32_t* z) {
    for (int i = 0; i < n; ++i) {
        const Scale scale = {scales[3 * i], scales[3 * i + 1], scales[3 * i + 2]};
        z[i] = normalise(v[i], scale);
    }
}

void t_reciprocal(const int32_t* sum, int n, int32_t* r, int32_t* shift) {
    for (int i = 0; i < n; ++i) {
        const Reciprocal one = reciprocal(sum[i]);
        r[i] = one.r;
        shift[i] = one.shift;
    }
}

// One word through the write side, before saturation.
void t_scale(const int32_t* acc, const int32_t* bias, const int32_t* mult, const int32_t* shift,
             int divide, const int32_t* row_sums, int with_residual, const int16_t* residual,
             int residual_shift, int64_t* fast, int64_t* plain) {
    AccWord word;
    int32_t biases[GROUP];
    WordScale rows;
    Reciprocal reciprocals[GROUP];
    int16_t added[64];
    std::memcpy(word.a, acc, sizeof word.a);
    std::memcpy(biases, bias, sizeof biases);
    std::memcpy(rows.mult, mult, sizeof rows.mult);
    std::memcpy(rows.shift, shift, sizeof rows.shift);
    std::memcpy(added, residual, sizeof added);
    for (int p = 0; p < GROUP; ++p)
        reciprocals[p] = reciprocal(row_sums[p]);
    ScaledWord one, other;
    // in the plain form there is only one of them
#ifdef LDA_FAST
    scale_word_fast(word, biases, rows, divide != 0, reciprocals, with_residual != 0, added,
                    residual_shift, one);
#else
    scale_word_plain(word, biases, rows, divide != 0, reciprocals, with_residual != 0, added,
                     residual_shift, one);
#endif
    scale_word_plain(word, biases, rows, divide != 0, reciprocals, with_residual != 0, added,
                     residual_shift, other);
    std::memcpy(fast, one.t, sizeof one.t);
    std::memcpy(plain, other.t, sizeof other.t);
}

}  // extern "C"
