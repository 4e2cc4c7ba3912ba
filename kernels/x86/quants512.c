/* quants512.c: products of all integer types but Q4_0 and Q8_0 for AVX-512 VNNI; see quants/product.h.
 *
 * A zmm register holds 16 int32: one panel row each. Lanes never mix, so every lane does exactly what ref does. */
#include "../internal.h"

#if defined(KERN_X86)

#include "avx512.h"
#include "unpack.h"

#define QUANTS512_TARGET __attribute__((target(AVX512_FEATURES ",avx512vnni")))
#define QUANTS512_INLINE QUANTS512_TARGET KERN_INLINE

enum { QUANTS512_TILE = 5 }; /* most tokens of a tile */

/* dot[T][2] += products of 4 x 4 inputs, from register j0 on, of T tokens and two panels. In assembly, because gcc 12
 * moves the products about until registers run out. */
QUANTS512_INLINE void quants512_dot(const int T, const int j0, const int n, const quant_work *w, int64_t g,
                                    const int8_t *act, int64_t stride, __m512i dot[][QUANT_PANELS]) {
    KERN_UNROLL
    for (int j = j0; j < j0 + n; j++) {
        const __m512i code0 = _mm512_load_si512(w->part[0].code[g][j]);
        const __m512i code1 = _mm512_load_si512(w->part[1].code[g][j]);
        KERN_UNROLL
        for (int t = 0; t < T; t++) {
            int32_t four;
            memcpy(&four, act + t * stride + 4 * j, sizeof four);
            const __m512i x = _mm512_set1_epi32(four);
            __asm__("vpdpbusd %1, %2, %0" : "+v"(dot[t][0]) : "v"(x), "v"(code0));
            __asm__("vpdpbusd %1, %2, %0" : "+v"(dot[t][1]) : "v"(x), "v"(code1));
        }
    }
}

/* Tokens t0 .. t0 + T - 1. */
QUANTS512_INLINE void quants512_tile(const int kind, const int T, quant_work *w, int64_t t0, const quant_tokens *s) {
    enum { P = QUANT_PANELS };
    const int64_t stride = w->row_groups * KERN_BLOCK;
    const int8_t *act = w->codes + t0 * stride;
    __m512 acc[QUANTS512_TILE][P];
    KERN_UNROLL
    for (int i = 0; i < T * P; i++) acc[i / P][i % P] = _mm512_load_ps(w->sum[t0 + i / P][i % P]);

    for (int64_t g = 0; g < w->n_groups; g++, act += KERN_BLOCK) {
        __m512i dot[QUANTS512_TILE][P];
        KERN_UNROLL
        for (int i = 0; i < T * P; i++) dot[i / P][i % P] = _mm512_set1_epi32(s->start[i / P][0][g]);
        if (kind & QUANT_HALVES) {
            __m512 first[QUANTS512_TILE][P];
            quants512_dot(T, 0, 4, w, g, act, stride, dot);
            KERN_UNROLL
            for (int i = 0; i < T * P; i++) {
                const quant_part *part = &w->part[i % P];
                first[i / P][i % P] =
                    _mm512_mul_ps(_mm512_cvtepi32_ps(dot[i / P][i % P]), _mm512_load_ps(part->scale[g][0]));
                dot[i / P][i % P] = _mm512_set1_epi32(s->start[i / P][1][g]);
            }
            quants512_dot(T, 4, 4, w, g, act, stride, dot);
            KERN_UNROLL
            for (int i = 0; i < T * P; i++) {
                const quant_part *part = &w->part[i % P];
                const int t = i / P, p = i % P;
                __m512 v =
                    _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[t][p]), _mm512_load_ps(part->scale[g][1]), first[t][p]);
                if (kind & QUANT_MIN) {
                    v = _mm512_fmadd_ps(_mm512_set1_ps(s->weight[t][0][g]), _mm512_load_ps(part->min[g][0]), v);
                    v = _mm512_fmadd_ps(_mm512_set1_ps(s->weight[t][1][g]), _mm512_load_ps(part->min[g][1]), v);
                }
                acc[t][p] = _mm512_fmadd_ps(v, _mm512_set1_ps(s->scale[t][g]), acc[t][p]);
            }
        } else {
            quants512_dot(T, 0, 8, w, g, act, stride, dot);
            KERN_UNROLL
            for (int i = 0; i < T * P; i++) {
                const quant_part *part = &w->part[i % P];
                const int t = i / P, p = i % P;
                const __m512 scale = _mm512_mul_ps(_mm512_load_ps(part->scale[g][0]), _mm512_set1_ps(s->scale[t][g]));
                acc[t][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[t][p]), scale, acc[t][p]);
                if (kind & QUANT_MIN) {
                    const __m512 weight = _mm512_set1_ps(s->weight[t][0][g]);
                    acc[t][p] = _mm512_fmadd_ps(_mm512_load_ps(part->min[g][0]), weight, acc[t][p]);
                }
            }
        }
    }
    KERN_UNROLL
    for (int i = 0; i < T * P; i++) _mm512_store_ps(w->sum[t0 + i / P][i % P], acc[i / P][i % P]);
}

/* Halves have registers for fewer tokens. What a tile needs of its tokens is made ready one tile ahead: a load that
 * meets a store still under way would wait for it. */
QUANTS512_INLINE void quants512_multiply(const int kind, quant_work *w) {
    const int T = kind & QUANT_HALVES ? 4 : QUANTS512_TILE;
    quant_tokens s[2];
    int64_t t = 0;
    int i = 0;
    quant_prepare(kind, T, w, 0, &s[0]);
    for (; t + T <= w->n; t += T, i ^= 1) {
        if (t + T < w->n) quant_prepare(kind, T, w, t + T, &s[i ^ 1]);
        quants512_tile(kind, T, w, t, &s[i]);
    }
    switch (w->n - t) {
    case 1: quants512_tile(kind, 1, w, t, &s[i]); break;
    case 2: quants512_tile(kind, 2, w, t, &s[i]); break;
    case 3: quants512_tile(kind, 3, w, t, &s[i]); break;
    case 4: quants512_tile(kind, 4, w, t, &s[i]); break;
    }
}

QUANTS512_TARGET static void quants512_multiply_0(quant_work *w) {
    quants512_multiply(0, w);
}
QUANTS512_TARGET static void quants512_multiply_1(quant_work *w) {
    quants512_multiply(QUANT_HALVES, w);
}
QUANTS512_TARGET static void quants512_multiply_2(quant_work *w) {
    quants512_multiply(QUANT_MIN, w);
}
QUANTS512_TARGET static void quants512_multiply_3(quant_work *w) {
    quants512_multiply(QUANT_HALVES | QUANT_MIN, w);
}

static void quants512_matmul(uint32_t type, const void *panels, int64_t rows, int64_t cols, const kern_act *act,
                             int64_t n, float *y, int64_t ldy) {
    static void (*const multiply[QUANT_KINDS])(quant_work *) = {quants512_multiply_0, quants512_multiply_1,
                                                                quants512_multiply_2, quants512_multiply_3};
    const avx2_unpacker *u = &kern_avx2_unpackers[type];
    quant_unpack *const unpack = kern_avx512_unpackers[type];
    const quant_product p = {unpack ? unpack : u->unpack, multiply[quant_kind(type)], type, u->offset};
    quant_matmul(&p, panels, rows, cols, act, n, y, ldy);
}

#define QUANTS512_MATMUL(TYPE)                                                                                         \
    static void quants512_##TYPE(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,       \
                                 float *y, int64_t ldy) {                                                              \
        quants512_matmul(KERN_##TYPE, panels, rows, cols, act, n, y, ldy);                                             \
    }
KERN_QUANT_TYPES(QUANTS512_MATMUL)

void kern_table_quants512(kern_table *table) {
#define QUANTS512_ENTRY(TYPE) table->matmul[KERN_##TYPE] = quants512_##TYPE;
    KERN_QUANT_TYPES(QUANTS512_ENTRY)
}

#endif
