// The arithmetic of the kernels for tests/test_kernels.py, array by array.
#include <cstring>

#include "../../hls/kernels/arithmetic.hpp"
#include "../../hls/kernels/leaf.hpp"
#include "../../hls/kernels/params.hpp"
#include "../../hls/kernels/post_word.hpp"
#include "../../hls/kernels/pre_apply.hpp"

using namespace lda;

extern "C" {

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

// Number of wrong quotients of all n < limit.
int t_divider(int divisor, int limit) {
    const Divider divider = Divider(uint32_t(divisor));
    int wrong = 0;
    for (int n = 0; n < limit; ++n)
        wrong += divider.quotient(uint32_t(n)) != n / divisor;
    return wrong;
}

// 32 pixels x steps; x: int16 [32][steps*16], w: int16 [steps][128]; both forms add to acc.
void t_leaf(const int16_t* x, const int16_t* w, int steps, int32_t* fast, int32_t* portable) {
    const int16_t* pixel[32];
    for (int p = 0; p < 32; ++p)
        pixel[p] = x + p * steps * SUB;
    multiply_tap<32>(pixel, steps, w, reinterpret_cast<int32_t (*)[GROUP]>(fast));
    multiply_tap_portable<32>(pixel, steps, w, reinterpret_cast<int32_t (*)[GROUP]>(portable));
}

// One weight word in both forms.
void t_pack(const int8_t* word, int transposed, int16_t* fast, int16_t* portable) {
    pack_weights(word, transposed != 0, fast);
    pack_weights_portable(word, transposed != 0, portable);
}

// One word of 64 lanes through the read side; scales: mu, r, e of every lane, then of the row.
void t_transform(int norm, int table, int shift, int align, int valid, const int16_t* q,
                 const int16_t* gamma, const int32_t* beta, const int32_t* scales,
                 const int8_t* lookup, int8_t* fast, int8_t* plain) {
    static ApplyMemory<EngineDefaults> memory;
    PreEntry entry = PreEntry();
    entry.norm = norm;
    entry.table = table;
    entry.shift = shift;
    RowWord word;
    for (int l = 0; l < WORD_BYTES; ++l) {
        word.q[l] = q[l];
        memory.gamma[1][l] = gamma[l];
        memory.beta[1][l] = beta[l];
        memory.mu[2][l] = scales[3 * l];
        memory.r[2][l] = scales[3 * l + 1];
        memory.e[2][l] = scales[3 * l + 2];
    }
    std::memcpy(memory.table, lookup, TABLE_SIZE);
    const Scale row = {scales[192], scales[193], scales[194]};
    Word one, other;
    transform_fast<EngineDefaults>(entry, memory, word, 1, align, 2, row, valid, one);
    transform_plain<EngineDefaults>(entry, memory, word, 1, align, 2, row, valid, other);
    std::memcpy(fast, one.b, WORD_BYTES);
    std::memcpy(plain, other.b, WORD_BYTES);
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
    scale_word_fast(word, biases, rows, divide != 0, reciprocals, with_residual != 0, added,
                    residual_shift, one);
    scale_word_plain(word, biases, rows, divide != 0, reciprocals, with_residual != 0, added,
                     residual_shift, other);
    std::memcpy(fast, one.t, sizeof one.t);
    std::memcpy(plain, other.t, sizeof other.t);
}

}  // extern "C"
