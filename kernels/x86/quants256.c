/* quants256.c: products of all integer types but Q4_0 and Q8_0 for registers of 8 rows: AVX2, and AVX2 with AVX-VNNI.
 * See quants/product.h. Lanes never mix, so every lane does exactly what ref does. */
#include "../internal.h"

#if defined(KERN_X86)

#include "unpack.h"

#include <immintrin.h>

#define QUANTS256_TARGET __attribute__((target("avx2,fma,f16c")))
#define QUANTS256_INLINE QUANTS256_TARGET KERN_INLINE

/* How products of unsigned codes and activations are added. vpmaddubsw adds pairs in int16, which must not overflow: of
 * codes up to 15, 8 such pairs fit (8 * 2 * 15 * 127 = 30480), up to 31 four, up to 63 two, up to 128 one. Larger codes
 * (IQ4) are taken in halves of 4 bits. */
enum { QUANTS256_SPLIT = 0, QUANTS256_VNNI = 16, QUANTS256_TILE = 6 };

/* The sum is final here: otherwise gcc collects all products first and adds them in an order of its own, for which no
 * processor has the registers. */
QUANTS256_INLINE __m256i quants256_keep(__m256i sum) {
    __asm__("" : "+x"(sum));
    return sum;
}

QUANTS256_INLINE __m256i quants256_dpbusd(__m256i sum, __m256i code, __m256i x) {
    __asm__("%{vex%} vpdpbusd {%2, %1, %0|%0, %1, %2}" : "+x"(sum) : "x"(code), "x"(x));
    return sum;
}

QUANTS256_INLINE __m256i quants256_four(const int8_t *act) {
    int32_t four;
    memcpy(&four, act, sizeof four);
    return _mm256_set1_epi32(four);
}

/* dot[T][2] of 8 rows each += products of registers j0 .. j0 + n - 1 of a group and T tokens. */
QUANTS256_INLINE void quants256_dot(const int how, const int T, const int j0, const int n, const uint8_t (*code)[64],
                                    const int8_t *act, int64_t stride, __m256i *dot) {
    const __m256i ones = _mm256_set1_epi16(1), sixteen = _mm256_set1_epi16(16), nibble = _mm256_set1_epi8(15);
    const int run = how == QUANTS256_VNNI || how == QUANTS256_SPLIT || how > n ? n : how;
    KERN_UNROLL
    for (int from = j0; from < j0 + n; from += run) {
        __m256i low[2 * QUANTS256_TILE], high[2 * QUANTS256_TILE];
        KERN_UNROLL
        for (int i = 0; i < 2 * T; i++) low[i] = high[i] = _mm256_setzero_si256();
        KERN_UNROLL
        for (int j = from; j < from + run; j++) {
            const __m256i c[2] = {_mm256_load_si256((const void *)code[j]),
                                  _mm256_load_si256((const void *)(code[j] + 32))};
            KERN_UNROLL
            for (int i = 0; i < 2 * T; i++) {
                const __m256i x = quants256_four(act + i / 2 * stride + 4 * j), v = c[i % 2];
                if (how == QUANTS256_VNNI) {
                    dot[i] = quants256_dpbusd(dot[i], v, x);
                } else if (how == QUANTS256_SPLIT) {
                    const __m256i up = _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble);
                    low[i] =
                        quants256_keep(_mm256_add_epi16(low[i], _mm256_maddubs_epi16(_mm256_and_si256(v, nibble), x)));
                    high[i] = quants256_keep(_mm256_add_epi16(high[i], _mm256_maddubs_epi16(up, x)));
                } else {
                    low[i] = quants256_keep(_mm256_add_epi16(low[i], _mm256_maddubs_epi16(v, x)));
                }
            }
        }
        if (how == QUANTS256_VNNI) continue;
        KERN_UNROLL
        for (int i = 0; i < 2 * T; i++) {
            dot[i] = _mm256_add_epi32(dot[i], _mm256_madd_epi16(low[i], ones));
            if (how == QUANTS256_SPLIT) dot[i] = _mm256_add_epi32(dot[i], _mm256_madd_epi16(high[i], sixteen));
        }
    }
}

/* Tokens t0 .. t0 + T - 1 times panel p. */
QUANTS256_INLINE void quants256_tile(const int kind, const int how, const int T, quant_work *w, int p, int64_t t0,
                                     const quant_tokens *s) {
    const int64_t stride = w->row_groups * KERN_BLOCK;
    const int8_t *act = w->codes + t0 * stride;
    const quant_part *part = &w->part[p];
    __m256 acc[2 * QUANTS256_TILE];
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) acc[i] = _mm256_load_ps(w->sum[t0 + i / 2][p] + i % 2 * 8);

    for (int64_t g = 0; g < w->n_groups; g++, act += KERN_BLOCK) {
        __m256i dot[2 * QUANTS256_TILE];
        KERN_UNROLL
        for (int i = 0; i < 2 * T; i++) dot[i] = _mm256_set1_epi32(s->start[i / 2][0][g]);
        if (kind & QUANT_HALVES) {
            __m256 first[2 * QUANTS256_TILE];
            quants256_dot(how, T, 0, 4, part->code[g], act, stride, dot);
            KERN_UNROLL
            for (int i = 0; i < 2 * T; i++) {
                first[i] = _mm256_mul_ps(_mm256_cvtepi32_ps(dot[i]), _mm256_load_ps(part->scale[g][0] + i % 2 * 8));
                dot[i] = _mm256_set1_epi32(s->start[i / 2][1][g]);
            }
            quants256_dot(how, T, 4, 4, part->code[g], act, stride, dot);
            KERN_UNROLL
            for (int i = 0; i < 2 * T; i++) {
                const int t = i / 2, r = i % 2 * 8;
                __m256 v = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[i]), _mm256_load_ps(part->scale[g][1] + r), first[i]);
                if (kind & QUANT_MIN) {
                    v = _mm256_fmadd_ps(_mm256_set1_ps(s->weight[t][0][g]), _mm256_load_ps(part->min[g][0] + r), v);
                    v = _mm256_fmadd_ps(_mm256_set1_ps(s->weight[t][1][g]), _mm256_load_ps(part->min[g][1] + r), v);
                }
                acc[i] = _mm256_fmadd_ps(v, _mm256_set1_ps(s->scale[t][g]), acc[i]);
            }
        } else {
            quants256_dot(how, T, 0, 8, part->code[g], act, stride, dot);
            KERN_UNROLL
            for (int i = 0; i < 2 * T; i++) {
                const int t = i / 2, r = i % 2 * 8;
                const __m256 scale =
                    _mm256_mul_ps(_mm256_load_ps(part->scale[g][0] + r), _mm256_set1_ps(s->scale[t][g]));
                acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[i]), scale, acc[i]);
                if (kind & QUANT_MIN)
                    acc[i] = _mm256_fmadd_ps(_mm256_load_ps(part->min[g][0] + r), _mm256_set1_ps(s->weight[t][0][g]),
                                             acc[i]);
            }
        }
    }
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) _mm256_store_ps(w->sum[t0 + i / 2][p] + i % 2 * 8, acc[i]);
}

/* T tokens at a time: 4, or 6 where the registers are enough. */
QUANTS256_INLINE void quants256_multiply(const int kind, const int how, const int T, quant_work *w) {
    quant_tokens s;
    for (int64_t t = 0, now; t < w->n; t += now) {
        const int64_t left = w->n - t;
        now = left >= T ? T : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        quant_prepare(kind, T, w, t, &s);
        for (int p = 0; p < QUANT_PANELS; p++) {
            if (now == T)
                quants256_tile(kind, how, T, w, p, t, &s);
            else if (now == 4)
                quants256_tile(kind, how, 4, w, p, t, &s);
            else if (now == 2)
                quants256_tile(kind, how, 2, w, p, t, &s);
            else
                quants256_tile(kind, how, 1, w, p, t, &s);
        }
    }
}

#define QUANTS256_MULTIPLY(NAME, KIND, HOW, T)                                                                         \
    QUANTS256_TARGET static void quants256_##NAME(quant_work *w) {                                                     \
        quants256_multiply(KIND, HOW, T, w);                                                                           \
    }
QUANTS256_MULTIPLY(plain_15, 0, 8, 4)
QUANTS256_MULTIPLY(plain_31, 0, 4, 4)
QUANTS256_MULTIPLY(plain_128, 0, 1, 4)
QUANTS256_MULTIPLY(plain_255, 0, QUANTS256_SPLIT, 2)
QUANTS256_MULTIPLY(min_15, QUANT_MIN, 8, 4)
QUANTS256_MULTIPLY(min_31, QUANT_MIN, 4, 4)
QUANTS256_MULTIPLY(halves_31, QUANT_HALVES, 4, 4)
QUANTS256_MULTIPLY(halves_63, QUANT_HALVES, 2, 4)
QUANTS256_MULTIPLY(halves_128, QUANT_HALVES, 1, 4)
QUANTS256_MULTIPLY(both_15, QUANT_HALVES | QUANT_MIN, 4, 4)
QUANTS256_MULTIPLY(vnni_plain, 0, QUANTS256_VNNI, 6)
QUANTS256_MULTIPLY(vnni_min, QUANT_MIN, QUANTS256_VNNI, 6)
QUANTS256_MULTIPLY(vnni_halves, QUANT_HALVES, QUANTS256_VNNI, 6)
QUANTS256_MULTIPLY(vnni_both, QUANT_HALVES | QUANT_MIN, QUANTS256_VNNI, 6)

/* By the largest code of a type, its scales and minima. */
static void (*const quants256_multiply_of[KERN_TYPE_END])(quant_work *) = {
    [KERN_TQ2_0] = quants256_plain_15,    [KERN_Q5_0] = quants256_plain_31,    [KERN_MXFP4] = quants256_plain_31,
    [KERN_TQ1_0] = quants256_plain_128,   [KERN_IQ1_S] = quants256_plain_128,  [KERN_IQ2_XXS] = quants256_plain_128,
    [KERN_IQ3_XXS] = quants256_plain_128, [KERN_IQ3_S] = quants256_plain_128,  [KERN_IQ4_NL] = quants256_plain_255,
    [KERN_IQ4_XS] = quants256_plain_255,  [KERN_Q4_1] = quants256_min_15,      [KERN_Q4_K] = quants256_min_15,
    [KERN_Q5_1] = quants256_min_31,       [KERN_Q5_K] = quants256_min_31,      [KERN_Q3_K] = quants256_halves_31,
    [KERN_NVFP4] = quants256_halves_31,   [KERN_Q6_K] = quants256_halves_63,   [KERN_IQ1_M] = quants256_halves_128,
    [KERN_IQ2_XS] = quants256_halves_128, [KERN_IQ2_S] = quants256_halves_128, [KERN_Q2_K] = quants256_both_15,
};

/* ---- the table's entries ----------------------------------------------------------------------------------------- */

static void quants256_matmul(uint32_t type, int vnni, const void *panels, int64_t rows, int64_t cols,
                             const kern_act *act, int64_t n, float *y, int64_t ldy) {
    static void (*const multiply[QUANT_KINDS])(quant_work *) = {quants256_vnni_plain, quants256_vnni_halves,
                                                                quants256_vnni_min, quants256_vnni_both};
    const avx2_unpacker *u = &kern_avx2_unpackers[type];
    const quant_product p = {u->unpack, vnni ? multiply[quant_kind(type)] : quants256_multiply_of[type], type,
                             u->offset};
    quant_matmul(&p, panels, rows, cols, act, n, y, ldy);
}

#define QUANTS256_MATMUL(TYPE)                                                                                         \
    static void quants256_##TYPE(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,       \
                                 float *y, int64_t ldy) {                                                              \
        quants256_matmul(KERN_##TYPE, 0, panels, rows, cols, act, n, y, ldy);                                          \
    }                                                                                                                  \
    static void quants256_vnni_##TYPE(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,  \
                                      float *y, int64_t ldy) {                                                         \
        quants256_matmul(KERN_##TYPE, 1, panels, rows, cols, act, n, y, ldy);                                          \
    }
KERN_QUANT_TYPES(QUANTS256_MATMUL)

void kern_table_quants256(kern_table *table) {
    table->panel_group = QUANT_PANELS;
#define QUANTS256_ENTRY(TYPE) table->matmul[KERN_##TYPE] = quants256_##TYPE;
    KERN_QUANT_TYPES(QUANTS256_ENTRY)
}

void kern_table_quants256_vnni(kern_table *table) {
#define QUANTS256_VNNI_ENTRY(TYPE) table->matmul[KERN_##TYPE] = quants256_vnni_##TYPE;
    KERN_QUANT_TYPES(QUANTS256_VNNI_ENTRY)
}

#endif
