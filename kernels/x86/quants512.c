/* quants512.c: products of all integer types for AVX-512 VNNI, of Q4_0 and Q8_0 those with many tokens; see
 * quants/product.h.
 *
 * A zmm register holds 16 int32: one panel row each. Lanes never mix, so every lane does exactly what ref does. */
#include "../internal.h"

#if defined(KERN_X86)

#include "quants512.h"
#include "unpack512.h"

#define QUANTS512_TARGET __attribute__((target(AVX512_FEATURES ",avx512vnni")))
#define QUANTS512_INLINE QUANTS512_TARGET KERN_INLINE

enum {
    QUANTS512_TILE = 7,   /* most tokens of a tile: on Intel's cores 10 sums would wait for each other */
    QUANTS512_MOST = 240, /* tokens that share what is unpacked: about a step's */
    QUANTS512_PAIRS = 4   /* a kind of product: half as many multiplications, see below */
};

/* With AVX-512 VNNI only AMD's CPUs want cells: see kern_table_avx512vnni(). */
static inline int quants512_is_amd(const kern_act *act) {
    return act->cells != NULL;
}

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

/* ---- products by pairs -------------------------------------------------------------------------------------------
 *
 * Winograd's inner product (1968). With c the codes of a group less one, -1..14, and a the codes of the activations,
 * -127..113:
 *   u = c[i] + a[i + 16] + 128 is 0..255, v = c[i + 16] + a[i] is -128..127, and
 *   the sum of c * a over 32 inputs = the sum of u * v over i < 16
 *                                   - the sum of c[i + 16] * (c[i] + 128) - the sum of a[i] * (a[i + 16] + 128)
 * The two last are numbers of a row (quant_part.pair) and of a token (kern_act_cell). All of it is exact, so the result
 * is that of 32 products. It takes 4 instead of 8 multiplications of a register, and 8 additions of bytes. Those are
 * free on AMD's cores, where two ports multiply and four add. Codes of more than 4 bits do not fit. */

/* Unpacked codes for it: registers j < 4 hold c + 128, the others c. */
QUANTS512_INLINE void quants512_unpack_pairs(const unpack_type u, const uint8_t *panel, int64_t row_groups,
                                             int64_t first, int64_t n, quant_part *out) {
    const __m512i up = _mm512_set1_epi8(127), down = _mm512_set1_epi8(-1), none = _mm512_setzero_si512();
    const uint8_t *codes = panel + first * 64 * u.low;
    unpack512_scales(u, panel, row_groups, first, n, out);
    for (int64_t g = 0; g < n; g++, codes += 64 * u.low) {
        __m512i code[8], sum = none;
        unpack512_group(u, none, codes, code);
        KERN_UNROLL
        for (int j = 0; j < 4; j++) {
            code[j] = _mm512_add_epi8(code[j], up);
            code[4 + j] = _mm512_add_epi8(code[4 + j], down);
            _mm512_store_si512(out->code[g][j], code[j]);
            _mm512_store_si512(out->code[g][4 + j], code[4 + j]);
            sum = _mm512_dpbusd_epi32(sum, code[j], code[4 + j]);
        }
        _mm512_store_si512(out->pair[g], _mm512_sub_epi32(none, sum));
    }
}

QUANTS512_INLINE void quants512_dot_pair(__m512i *dot, __m512i low, __m512i high, __m512i x0, __m512i x1) {
    __m512i u, v;
    __asm__("vpaddb %3, %6, %1\n\tvpaddb %4, %5, %2\n\tvpdpbusd %2, %1, %0"
            : "+v"(*dot), "=&v"(u), "=&v"(v)
            : "v"(low), "v"(high), "v"(x0), "v"(x1));
}

/* dot[T][2] of a group. */
QUANTS512_INLINE void quants512_dot_pairs(const int T, const quant_work *w, int64_t g, const kern_act_cell *act,
                                          __m512i dot[][QUANT_PANELS]) {
    KERN_UNROLL
    for (int i = 0; i < T * QUANT_PANELS; i++)
        dot[i / QUANT_PANELS][i % QUANT_PANELS] = _mm512_add_epi32(
            dot[i / QUANT_PANELS][i % QUANT_PANELS], _mm512_load_si512(w->part[i % QUANT_PANELS].pair[g]));
    KERN_UNROLL
    for (int j = 0; j < 4; j++) {
        __m512i code[QUANT_PANELS][2];
        KERN_UNROLL
        for (int i = 0; i < QUANT_PANELS * 2; i++)
            code[i / 2][i % 2] = _mm512_load_si512(w->part[i / 2].code[g][4 * (i % 2) + j]);
        KERN_UNROLL
        for (int t = 0; t < T; t++) {
            int32_t four[2];
            memcpy(&four[0], act[t].codes + 4 * j, sizeof four[0]);
            memcpy(&four[1], act[t].codes + 16 + 4 * j, sizeof four[1]);
            const __m512i x0 = _mm512_set1_epi32(four[0]), x1 = _mm512_set1_epi32(four[1]);
            KERN_UNROLL
            for (int p = 0; p < QUANT_PANELS; p++) quants512_dot_pair(&dot[t][p], code[p][0], code[p][1], x0, x1);
        }
    }
}

/* Tokens t0 .. t0 + T - 1. s: what quants512_prepare() made of them, or, by pairs, nothing. */
QUANTS512_INLINE void quants512_tile(const int kind, const int T, quant_work *w, int64_t t0, const quant_tokens *s) {
    enum { P = QUANT_PANELS };
    const int64_t stride = w->row_groups * KERN_BLOCK;
    const int8_t *act = w->codes + t0 * stride;
    const kern_act_cell *cell = kind & QUANTS512_PAIRS ? w->cells + t0 * w->row_groups : NULL;
    int64_t ask = w->ask_tile;
    __m512 acc[QUANTS512_TILE][P];
    KERN_UNROLL
    for (int i = 0; i < T * P; i++)
        acc[i / P][i % P] = w->is_first ? _mm512_setzero_ps() : _mm512_load_ps(w->sum[t0 + i / P][i % P]);

    for (int64_t g = 0; g < w->n_groups; g++, act += KERN_BLOCK) {
        if (ask > 0) quant_ask(&w->ahead, w->ask_group), ask -= w->ask_group;
        __m512i dot[QUANTS512_TILE][P];
        KERN_UNROLL
        for (int i = 0; i < T * P; i++)
            dot[i / P][i % P] = _mm512_set1_epi32(kind & QUANTS512_PAIRS ? cell[i / P].start[kind & QUANT_MIN ? 1 : 0]
                                                                         : s->start[i / P][0][g]);
        if (kind & QUANT_HALVES) {
            __m512i last[QUANTS512_TILE][P];
            KERN_UNROLL
            for (int i = 0; i < T * P; i++) last[i / P][i % P] = _mm512_set1_epi32(s->start[i / P][1][g]);
            KERN_UNROLL
            for (int j = 0; j < 4; j++) {
                quants512_dot(T, j, 1, w, g, act, stride, dot);
                quants512_dot(T, 4 + j, 1, w, g, act, stride, last);
            }
            KERN_UNROLL
            for (int i = 0; i < T * P; i++) {
                const quant_part *part = &w->part[i % P];
                const int t = i / P, p = i % P;
                __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(dot[t][p]), _mm512_load_ps(part->scale[g][0]));
                v = _mm512_fmadd_ps(_mm512_cvtepi32_ps(last[t][p]), _mm512_load_ps(part->scale[g][1]), v);
                if (kind & QUANT_MIN) {
                    v = _mm512_fmadd_ps(_mm512_set1_ps(s->weight[t][0][g]), _mm512_load_ps(part->min[g][0]), v);
                    v = _mm512_fmadd_ps(_mm512_set1_ps(s->weight[t][1][g]), _mm512_load_ps(part->min[g][1]), v);
                }
                acc[t][p] = _mm512_fmadd_ps(v, _mm512_set1_ps(s->scale[t][g]), acc[t][p]);
            }
        } else {
            if (kind & QUANTS512_PAIRS)
                quants512_dot_pairs(T, w, g, cell, dot);
            else
                quants512_dot(T, 0, 8, w, g, act, stride, dot);
            KERN_UNROLL
            for (int i = 0; i < T * P; i++) {
                const quant_part *part = &w->part[i % P];
                const int t = i / P, p = i % P;
                const float act_scale = kind & QUANTS512_PAIRS ? cell[t].scale : s->scale[t][g];
                const __m512 scale = _mm512_mul_ps(_mm512_load_ps(part->scale[g][0]), _mm512_set1_ps(act_scale));
                acc[t][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[t][p]), scale, acc[t][p]);
                if (kind & QUANT_MIN) {
                    const __m512 weight = _mm512_set1_ps(kind & QUANTS512_PAIRS ? cell[t].weight : s->weight[t][0][g]);
                    acc[t][p] = _mm512_fmadd_ps(_mm512_load_ps(part->min[g][0]), weight, acc[t][p]);
                }
            }
        }
        if (kind & QUANTS512_PAIRS) cell += kern_cell_step(T, AVX512_CELL_ROWS, w->cell_rows);
    }
    if (w->is_last) {
        KERN_UNROLL
        for (int i = 0; i < T * P; i++) {
            const int64_t from = i % P * KERN_PANEL;
            _mm512_mask_storeu_ps(w->y + (t0 + i / P) * w->ldy + from, avx512_mask(w->rows - from), acc[i / P][i % P]);
        }
    } else {
        KERN_UNROLL
        for (int i = 0; i < T * P; i++) _mm512_store_ps(w->sum[t0 + i / P][i % P], acc[i / P][i % P]);
    }
}

/* quant_prepare, a row of groups at a time. */
QUANTS512_INLINE void quants512_prepare(const int kind, const int T, const quant_work *w, int64_t t0, quant_tokens *s) {
    const __mmask16 groups = avx512_mask(w->n_groups);
    const __m512i offset = _mm512_set1_epi32(-w->offset);
    for (int t = 0; t < T && t0 + t < w->n; t++) {
        const int64_t from = (t0 + t) * w->row_groups;
        const __m512 scale = _mm512_maskz_loadu_ps(groups, w->scale + from);
        const __m512i sum = _mm512_maskz_loadu_epi32(groups, w->sums + from);
        __m512i first = sum;
        if (kind & QUANT_HALVES) {
            first = _mm512_maskz_loadu_epi32(groups, w->half_sums + from);
            const __m512i last = _mm512_sub_epi32(sum, first);
            _mm512_store_si512(s->start[t][1], _mm512_mullo_epi32(last, offset));
            if (kind & QUANT_MIN) _mm512_store_ps(s->weight[t][1], _mm512_cvtepi32_ps(last));
        }
        if (kind & QUANT_MIN) {
            const __m512 f = _mm512_cvtepi32_ps(first);
            _mm512_store_ps(s->weight[t][0], kind & QUANT_HALVES ? f : _mm512_mul_ps(scale, f));
        }
        _mm512_store_ps(s->scale[t], scale);
        _mm512_store_si512(s->start[t][0], _mm512_mullo_epi32(first, offset));
    }
}

/* Asks for the lines of y of n tokens, if they are written next. All at once would keep the tiles waiting. */
QUANTS512_INLINE void quants512_fetch_y(const quant_work *w, int64_t t, int64_t n) {
    if (!w->fetch_y) return;
    for (const float *y = w->y + t * w->ldy; n > 0; n--, y += w->ldy) {
        _mm_prefetch((const char *)y, _MM_HINT_T1);
        if (w->rows > KERN_PANEL) _mm_prefetch((const char *)(y + KERN_PANEL), _MM_HINT_T1);
    }
}

/* At most T tokens a tile; tiles are of about the same size, because small ones wait for their products, but by pairs,
 * where they are what cells side by side are. What a tile needs of its tokens is made ready one tile ahead: a load that
 * meets a store still under way would wait for it. */
QUANTS512_INLINE void quants512_multiply(const int kind, const int T, quant_work *w) {
    const int by_pairs = kind & QUANTS512_PAIRS;
    quant_tokens s[2];
    int i = 0;
    int64_t t = 0, n, tiles = (w->n + T - 1) / T;
    w->ask_tile = (w->ahead.n_lines + tiles - 1) / tiles;
    w->ask_group = (w->ask_tile + w->n_groups - 1) / w->n_groups;
    if (!by_pairs) quants512_prepare(kind, T, w, 0, &s[0]);
    for (; tiles > 0 && t < w->n; t += n, tiles--, i ^= 1) {
        n = by_pairs && w->n - t > T ? T : (w->n - t + tiles - 1) / tiles;
        if (tiles > 1 && !by_pairs) quants512_prepare(kind, T, w, t + n, &s[i ^ 1]);
        quants512_fetch_y(w, t, n);
        switch (n) {
#define QUANTS512_CASE(N)                                                                                              \
    case N:                                                                                                            \
        if (N <= T) quants512_tile(kind, N, w, t, &s[i]);                                                              \
        break
            QUANTS512_CASE(1);
            QUANTS512_CASE(2);
            QUANTS512_CASE(3);
            QUANTS512_CASE(4);
            QUANTS512_CASE(5);
            QUANTS512_CASE(6);
            QUANTS512_CASE(7);
#undef QUANTS512_CASE
        }
    }
}

/* Halves have registers for four tokens. */
#define QUANTS512_MULTIPLY(NAME, KIND, T)                                                                              \
    QUANTS512_TARGET static void quants512_multiply_##NAME(quant_work *w) {                                            \
        quants512_multiply(KIND, T, w);                                                                                \
    }
QUANTS512_MULTIPLY(plain, 0, QUANTS512_TILE)
QUANTS512_MULTIPLY(min, QUANT_MIN, QUANTS512_TILE)
QUANTS512_MULTIPLY(halves, QUANT_HALVES, 4)
QUANTS512_MULTIPLY(halves_min, QUANT_HALVES | QUANT_MIN, 4)
QUANTS512_MULTIPLY(amd, 0, AVX512_CELL_ROWS)
QUANTS512_MULTIPLY(amd_min, QUANT_MIN, AVX512_CELL_ROWS)
QUANTS512_MULTIPLY(pairs, QUANTS512_PAIRS, AVX512_CELL_ROWS)
QUANTS512_MULTIPLY(pairs_min, QUANTS512_PAIRS | QUANT_MIN, AVX512_CELL_ROWS)

/* ---- few tokens --------------------------------------------------------------------------------------------------
 *
 * Go straight from the panels: codes are unpacked where they are used, only scales pass through the cache. Panels take
 * turns at QUANT_GROUPS groups, and what the next one reads is asked for meanwhile; on AMD's cores one to four tokens
 * go through four panels side by side, with a fourth of all panels each: as in avx512vnni.c, for the same reasons. */

enum {
    QUANTS512_FEW = 8,           /* most tokens, */
    QUANTS512_FEW_RARE = 4,      /* and of types that are not worth so much code */
    QUANTS512_FEW_GROUPS = 4096, /* most groups of all of them */
    QUANTS512_SIDE = 4,          /* most tokens for panels side by side */
    QUANTS512_TURNS = 8          /* panels that take turns */
};

typedef struct quants512_tokens {
    const int8_t *codes;
    const float *scale;
    int64_t row_groups, follow;             /* follow: of kern_act */
    int32_t start[2][QUANTS512_FEW_GROUPS]; /* [tokens][row_groups], here and below: of the halves of a group */
    float weight[2][QUANTS512_FEW_GROUPS];
} quants512_tokens;

/* acc + 16 rows of 4 codes times 4 activations; the broadcast is part of the instruction. */
QUANTS512_INLINE __m512i quants512_dot4(__m512i acc, __m512i code, const int8_t *act) {
    __asm__("vpdpbusd {%2%{1to16%}, %1, %0|%0, %1, %2%{1to16%}}"
            : "+v"(acc)
            : "v"(code), "m"(*(const int32_t(*)[1])act));
    return acc;
}

/* dot[T] += registers j0 .. j0 + 3 of a group times T tokens. */
QUANTS512_INLINE void quants512_dot_few(const int T, const int j0, const __m512i code[8], const int8_t *act,
                                        int64_t stride, __m512i dot[]) {
    KERN_UNROLL
    for (int j = j0; j < j0 + 4; j++) {
        KERN_UNROLL
        for (int t = 0; t < T; t++) dot[t] = quants512_dot4(dot[t], code[j], act + t * stride + 4 * j);
    }
}

/* acc[T] += group `at` of a panel, of which the scales are number i of `part`, times T tokens. */
QUANTS512_INLINE void quants512_group(const int kind, const int T, const unpack_type u, __m512i table,
                                      const uint8_t *codes, const quant_part *part, int64_t i,
                                      const quants512_tokens *x, const int8_t *act, int64_t ld, int64_t at,
                                      __m512 acc[]) {
    const int64_t stride = x->row_groups;
    __m512i code[8], dot[QUANTS512_FEW];
    __m512 half[QUANTS512_FEW];
    unpack512_group(u, table, codes, code);
    KERN_UNROLL
    for (int t = 0; t < T; t++) dot[t] = _mm512_set1_epi32(x->start[0][at + t * stride]);
    quants512_dot_few(T, 0, code, act, ld, dot);
    if (kind & QUANT_HALVES) {
        KERN_UNROLL
        for (int t = 0; t < T; t++) {
            half[t] = _mm512_mul_ps(_mm512_cvtepi32_ps(dot[t]), _mm512_load_ps(part->scale[i][0]));
            dot[t] = _mm512_set1_epi32(x->start[1][at + t * stride]);
        }
    }
    quants512_dot_few(T, 4, code, act, ld, dot);
    KERN_UNROLL
    for (int t = 0; t < T; t++) {
        const __m512 sum = _mm512_cvtepi32_ps(dot[t]), act_scale = _mm512_set1_ps(x->scale[at + t * stride]);
        const __m512 weight0 = _mm512_set1_ps(kind & QUANT_MIN ? x->weight[0][at + t * stride] : 0);
        if (kind & QUANT_HALVES) {
            __m512 v = _mm512_fmadd_ps(sum, _mm512_load_ps(part->scale[i][1]), half[t]);
            if (kind & QUANT_MIN) {
                const __m512 weight1 = _mm512_set1_ps(x->weight[1][at + t * stride]);
                v = _mm512_fmadd_ps(weight0, _mm512_load_ps(part->min[i][0]), v);
                v = _mm512_fmadd_ps(weight1, _mm512_load_ps(part->min[i][1]), v);
            }
            acc[t] = _mm512_fmadd_ps(v, act_scale, acc[t]);
        } else {
            const __m512 scale = _mm512_mul_ps(_mm512_load_ps(part->scale[i][0]), act_scale);
            acc[t] = _mm512_fmadd_ps(sum, scale, acc[t]);
            if (kind & QUANT_MIN) acc[t] = _mm512_fmadd_ps(_mm512_load_ps(part->min[i][0]), weight0, acc[t]);
        }
    }
}

/* Groups of a panel, and where the next ones to be multiplied lie. */
typedef struct quants512_turn {
    int64_t from, end;
    const uint8_t *codes, *scales; /* the next ones, or NULL */
    float (*sum)[KERN_PANEL];      /* [tokens]: behind these groups, if they are not the last; and before them */
} quants512_turn;

QUANTS512_INLINE void quants512_fetch_turn(const unpack_type u, const quants512_turn *turn, int64_t i) {
    KERN_UNROLL
    for (int k = 0; k < 64 * (u.low + u.high); k += 64)
        _mm_prefetch((const char *)turn->codes + i * 64 * (u.low + u.high) + k, _MM_HINT_T0);
    if (i * 64 < QUANT_GROUPS / u.groups * u.side * KERN_PANEL)
        _mm_prefetch((const char *)turn->scales + i * 64, _MM_HINT_T0);
}

/* y of T tokens and P panels side by side, or a turn of one; `rows` rows are there from the first on, `next` from one
 * to the next. */
QUANTS512_INLINE void quants512_panels(const int kind, const int T, const int P, const unpack_type u,
                                       const kern_streams *w, const quants512_turn *turn, const quants512_tokens *x,
                                       int64_t rows, int64_t next, float *y, int64_t ldy) {
    const int64_t group_bytes = 64 * (u.low + u.high), stride = x->row_groups;
    const __m512i table = unpack512_table(u);
    quant_part part[UNPACK_STREAMS];
    __m512 acc[UNPACK_STREAMS][QUANTS512_FEW];
    KERN_UNROLL
    for (int i = 0; i < T * P; i++)
        acc[i / T][i % T] = P == 1 && turn->from ? _mm512_loadu_ps(turn->sum[i]) : _mm512_setzero_ps();
    for (int64_t first = turn->from; first < turn->end; first += QUANT_GROUPS) {
        const int64_t n = turn->end - first < QUANT_GROUPS ? turn->end - first : QUANT_GROUPS;
        for (int p = 0; p < P; p++) unpack512_scales(u, w->first + p * w->apart, stride, first, n, &part[p]);
        for (int64_t i = 0; i < n; i++) {
            const int64_t at = first + i;
            const uint8_t *codes = w->first + at * group_bytes;
            if (P > 1)
                unpack_fetch_streams(u, w, at);
            else if (turn->codes)
                quants512_fetch_turn(u, turn, i);
            KERN_UNROLL
            for (int p = 0; p < P; p++, codes += w->apart) {
                const int8_t *act = x->codes + at * KERN_BLOCK;
                const quant_part *mine = &part[p];
                int64_t ld = stride * KERN_BLOCK;
                /* New to gcc for each panel, or it would keep what they share, for want of registers on the stack. */
                if (P > 1) __asm__("" : "+r"(act), "+r"(ld), "+r"(codes), "+r"(mine));
                quants512_group(kind, T, u, table, codes, mine, i, x, act, ld, at, acc[p]);
            }
        }
    }
    KERN_UNROLL
    for (int i = 0; i < T * P; i++) {
        if (P > 1 || turn->end == stride)
            _mm512_mask_storeu_ps(y + i % T * ldy + i / T * next, avx512_mask(rows - i / T * next), acc[i / T][i % T]);
        else
            _mm512_storeu_ps(turn->sum[i], acc[i / T][i % T]);
    }
}

/* As many panels as go side by side; says how many. */
QUANTS512_INLINE int64_t quants512_streams(const int kind, const int T, const unpack_type u, const uint8_t *panels,
                                           const quants512_tokens *x, int64_t rows, float *y, int64_t ldy) {
    const int64_t each = (rows + KERN_PANEL - 1) / KERN_PANEL / UNPACK_STREAMS;
    const size_t bytes = kern_panel_bytes(u.type, x->row_groups * KERN_BLOCK);
    const quants512_turn all = {0, x->row_groups, NULL, NULL, NULL};
    for (int64_t i = 0; i < each; i++, rows -= KERN_PANEL, y += KERN_PANEL) {
        const kern_streams w = kern_streams_at(panels, bytes, x->row_groups, UNPACK_STREAMS, each, i, x->follow);
        quants512_panels(kind, T, UNPACK_STREAMS, u, &w, &all, x, rows, each * KERN_PANEL, y, ldy);
    }
    return each * UNPACK_STREAMS;
}

/* n <= most tokens, all panels. */
QUANTS512_INLINE void quants512_few(const int kind, const int most, const unpack_type u, const void *panels,
                                    int64_t rows, int64_t row_groups, const kern_act *act, int64_t n, float *y,
                                    int64_t ldy) {
    const int32_t offset = kern_avx2_unpackers[u.type].offset;
    const size_t panel_bytes = kern_panel_bytes(u.type, row_groups * KERN_BLOCK);
    const int64_t group_bytes = 64 * (u.low + u.high);
    const uint8_t *panel = panels;
    quants512_tokens x; /* its arrays are not set to zero first: that would take as long as a small product */
    x.codes = act->codes, x.scale = act->scale, x.row_groups = row_groups, x.follow = act->follow;
    if (kind & QUANT_HALVES) quant_half_sums(act->codes, n * row_groups, x.start[0]);
    for (int64_t i = 0; i < n * row_groups; i++) {
        const int32_t sum = act->sum[i], first = kind & QUANT_HALVES ? x.start[0][i] : sum;
        x.start[0][i] = -offset * first;
        if (kind & QUANT_HALVES) x.start[1][i] = -offset * (sum - first);
        if (kind & QUANT_MIN) x.weight[0][i] = kind & QUANT_HALVES ? (float)first : act->scale[i] * (float)sum;
        if (kind & QUANT_HALVES && kind & QUANT_MIN) x.weight[1][i] = (float)(sum - first);
    }
    int64_t done = 0;
    switch (quants512_is_amd(act) && n <= QUANTS512_SIDE ? n : 0) {
    case 1: done = quants512_streams(kind, 1, u, panels, &x, rows, y, ldy); break;
    case 2: done = quants512_streams(kind, 2, u, panels, &x, rows, y, ldy); break;
    case 3: done = quants512_streams(kind, 3, u, panels, &x, rows, y, ldy); break;
    case 4: done = quants512_streams(kind, 4, u, panels, &x, rows, y, ldy); break;
    }
    const int64_t n_panels = (rows + KERN_PANEL - 1) / KERN_PANEL;
    _Alignas(64) float sum[QUANTS512_TURNS][QUANTS512_FEW][KERN_PANEL];
    for (int64_t begin = done, end; begin < n_panels; begin = end) {
        end = n_panels - begin < QUANTS512_TURNS ? n_panels : begin + QUANTS512_TURNS;
        for (int64_t from = 0, p = begin; from < row_groups;) {
            const kern_streams w = {panel + (size_t)p * panel_bytes, 0, row_groups, NULL, 0};
            const int64_t row = p * KERN_PANEL, stop = from + QUANT_GROUPS;
            quants512_turn turn = {from, stop < row_groups ? stop : row_groups, NULL, NULL, sum[p - begin]};
            if (++p == end) p = begin, from = stop;
            const int64_t next = from < row_groups ? p : end, next_from = from < row_groups ? from : 0;
            if (next < n_panels) {
                turn.codes = panel + (size_t)next * panel_bytes + next_from * group_bytes;
                turn.scales = panel + (size_t)next * panel_bytes + row_groups * group_bytes +
                              next_from / u.groups * u.side * KERN_PANEL;
            }
            switch (n) {
#define QUANTS512_CASE(T)                                                                                              \
    case T:                                                                                                            \
        if (T <= most) quants512_panels(kind, T, 1, u, &w, &turn, &x, rows - row, 0, y + row, ldy);                    \
        break
                QUANTS512_CASE(1);
                QUANTS512_CASE(2);
                QUANTS512_CASE(3);
                QUANTS512_CASE(4);
                QUANTS512_CASE(5);
                QUANTS512_CASE(6);
                QUANTS512_CASE(7);
                QUANTS512_CASE(8);
#undef QUANTS512_CASE
            }
        }
    }
}

/* ---- the types --------------------------------------------------------------------------------------------------- */

#define QUANTS512_PAIR_UNPACKER(TYPE, GROUPS, SIDE)                                                                    \
    QUANTS512_TARGET static void quants512_unpack_pairs_##TYPE(const uint8_t *panel, int64_t row_groups,               \
                                                               int64_t first, int64_t n, quant_part *out) {            \
        const unpack_type u = {KERN_##TYPE, 4, 0, NULL, GROUPS, SIDE};                                                 \
        quants512_unpack_pairs(u, panel, row_groups, first, n, out);                                                   \
    }
QUANTS512_PAIR_UNPACKER(Q4_0, 1, 2)
QUANTS512_PAIR_UNPACKER(Q4_1, 1, 4)
QUANTS512_PAIR_UNPACKER(Q4_K, 8, 16)

static quant_unpack *const quants512_pair_unpacker[KERN_TYPE_END] = {[KERN_Q4_0] = quants512_unpack_pairs_Q4_0,
                                                                     [KERN_Q4_1] = quants512_unpack_pairs_Q4_1,
                                                                     [KERN_Q4_K] = quants512_unpack_pairs_Q4_K};

static void quants512_matmul(uint32_t type, quant_unpack *unpack, const void *panels, int64_t rows, int64_t cols,
                             const kern_act *act, int64_t n, float *y, int64_t ldy) {
    static void (*const multiply[][QUANT_KINDS])(quant_work *) = {
        {quants512_multiply_plain, quants512_multiply_halves, quants512_multiply_min, quants512_multiply_halves_min},
        {quants512_multiply_amd, quants512_multiply_halves, quants512_multiply_amd_min, quants512_multiply_halves_min}};
    const int kind = quant_kind(type), amd = quants512_is_amd(act);
    const int tile = kind & QUANT_HALVES ? 4 : amd ? AVX512_CELL_ROWS : QUANTS512_TILE;
    quant_product p = {.unpack = unpack,
                       .multiply = multiply[amd][kind],
                       .type = type,
                       .offset = kern_avx2_unpackers[type].offset,
                       .most = QUANTS512_MOST,
                       .tile = tile,
                       .groups = QUANT_GROUPS,
                       .writes = 1};
    if (amd && quants512_pair_unpacker[type]) {
        if (unpack_cache_is_large()) p.groups = QUANT_GROUPS_MOST;
        p.unpack = quants512_pair_unpacker[type];
        p.multiply = kind & QUANT_MIN ? quants512_multiply_pairs_min : quants512_multiply_pairs;
    }
    quant_matmul(&p, panels, rows, cols, act, n, y, ldy);
}

#define QUANTS512_UNPACKER(TYPE, LOW, HIGH, VALUES, GROUPS, SIDE)                                                      \
    QUANTS512_TARGET static void quants512_unpack_##TYPE(const uint8_t *panel, int64_t row_groups, int64_t first,      \
                                                         int64_t n, quant_part *out) {                                 \
        const unpack_type u = {KERN_##TYPE, LOW, HIGH, VALUES, GROUPS, SIDE};                                          \
        unpack512_part(u, panel, row_groups, first, n, out);                                                           \
    }

/* Few tokens are the business of avx512vnni.c. */
QUANTS512_UNPACKER(Q4_0, 4, 0, NULL, 1, 2)
QUANTS512_UNPACKER(Q8_0, 8, 0, NULL, 1, 2)
void kern_quants512_q4_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n, float *y,
                         int64_t ldy) {
    quants512_matmul(KERN_Q4_0, quants512_unpack_Q4_0, panels, rows, cols, act, n, y, ldy);
}
void kern_quants512_q8_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n, float *y,
                         int64_t ldy) {
    quants512_matmul(KERN_Q8_0, quants512_unpack_Q8_0, panels, rows, cols, act, n, y, ldy);
}

#define QUANTS512_PLANES(TYPE, KIND, MOST, LOW, HIGH, VALUES, GROUPS, SIDE)                                            \
    QUANTS512_UNPACKER(TYPE, LOW, HIGH, VALUES, GROUPS, SIDE)                                                          \
    QUANTS512_TARGET static void quants512_##TYPE(const void *panels, int64_t rows, int64_t cols, const kern_act *act, \
                                                  int64_t n, float *y, int64_t ldy) {                                  \
        const unpack_type u = {KERN_##TYPE, LOW, HIGH, VALUES, GROUPS, SIDE};                                          \
        if (n <= MOST && n * (cols / KERN_BLOCK) <= QUANTS512_FEW_GROUPS)                                              \
            quants512_few(KIND, MOST, u, panels, rows, cols / KERN_BLOCK, act, n, y, ldy);                             \
        else                                                                                                           \
            quants512_matmul(KERN_##TYPE, quants512_unpack_##TYPE, panels, rows, cols, act, n, y, ldy);                \
    }
QUANTS512_PLANES(Q4_1, QUANT_MIN, QUANTS512_FEW, 4, 0, NULL, 1, 4)
QUANTS512_PLANES(Q5_0, 0, QUANTS512_FEW, 4, 1, NULL, 1, 2)
QUANTS512_PLANES(Q5_1, QUANT_MIN, QUANTS512_FEW, 4, 1, NULL, 1, 4)
QUANTS512_PLANES(Q4_K, QUANT_MIN, QUANTS512_FEW, 4, 0, NULL, 8, 16)
QUANTS512_PLANES(Q5_K, QUANT_MIN, QUANTS512_FEW, 4, 1, NULL, 8, 16)
QUANTS512_PLANES(Q6_K, QUANT_HALVES, QUANTS512_FEW, 4, 2, NULL, 8, 18)
QUANTS512_PLANES(IQ4_NL, 0, QUANTS512_FEW, 4, 0, kern_iq4_unsigned, 1, 2)
QUANTS512_PLANES(IQ4_XS, 0, QUANTS512_FEW, 4, 0, kern_iq4_unsigned, 8, 8)
QUANTS512_PLANES(Q2_K, QUANT_HALVES | QUANT_MIN, QUANTS512_FEW_RARE, 2, 0, NULL, 8, 20)
QUANTS512_PLANES(Q3_K, QUANT_HALVES, QUANTS512_FEW_RARE, 2, 1, NULL, 8, 14)
QUANTS512_PLANES(TQ2_0, 0, QUANTS512_FEW_RARE, 2, 0, NULL, 8, 2)
QUANTS512_PLANES(MXFP4, 0, QUANTS512_FEW_RARE, 4, 0, kern_fp4_unsigned, 1, 1)
QUANTS512_PLANES(NVFP4, QUANT_HALVES, QUANTS512_FEW_RARE, 4, 0, kern_fp4_unsigned, 2, 4)

#define QUANTS512_BOOK(TYPE)                                                                                           \
    static void quants512_##TYPE(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,       \
                                 float *y, int64_t ldy) {                                                              \
        quants512_matmul(KERN_##TYPE, kern_avx2_unpackers[KERN_##TYPE].unpack, panels, rows, cols, act, n, y, ldy);    \
    }
UNPACK_BOOK_TYPES(QUANTS512_BOOK)

const quants512_type kern_quants512[KERN_TYPE_END] = {
    [KERN_Q4_0] = {quants512_unpack_Q4_0, kern_avx512vnni_matmul_q4_0},
    [KERN_Q8_0] = {quants512_unpack_Q8_0, kern_avx512vnni_matmul_q8_0},
    [KERN_Q4_1] = {quants512_unpack_Q4_1, quants512_Q4_1},
    [KERN_Q5_0] = {quants512_unpack_Q5_0, quants512_Q5_0},
    [KERN_Q5_1] = {quants512_unpack_Q5_1, quants512_Q5_1},
    [KERN_Q4_K] = {quants512_unpack_Q4_K, quants512_Q4_K},
    [KERN_Q5_K] = {quants512_unpack_Q5_K, quants512_Q5_K},
    [KERN_Q6_K] = {quants512_unpack_Q6_K, quants512_Q6_K},
    [KERN_IQ4_NL] = {quants512_unpack_IQ4_NL, quants512_IQ4_NL},
    [KERN_IQ4_XS] = {quants512_unpack_IQ4_XS, quants512_IQ4_XS},
    [KERN_Q2_K] = {quants512_unpack_Q2_K, quants512_Q2_K},
    [KERN_Q3_K] = {quants512_unpack_Q3_K, quants512_Q3_K},
    [KERN_MXFP4] = {quants512_unpack_MXFP4, quants512_MXFP4},
    [KERN_NVFP4] = {quants512_unpack_NVFP4, quants512_NVFP4},
    [KERN_TQ1_0] = {NULL, quants512_TQ1_0},
    [KERN_TQ2_0] = {quants512_unpack_TQ2_0, quants512_TQ2_0},
    [KERN_IQ1_S] = {NULL, quants512_IQ1_S},
    [KERN_IQ1_M] = {NULL, quants512_IQ1_M},
    [KERN_IQ2_XXS] = {NULL, quants512_IQ2_XXS},
    [KERN_IQ2_XS] = {NULL, quants512_IQ2_XS},
    [KERN_IQ2_S] = {NULL, quants512_IQ2_S},
    [KERN_IQ3_XXS] = {NULL, quants512_IQ3_XXS},
    [KERN_IQ3_S] = {NULL, quants512_IQ3_S},
};

void kern_table_quants512(kern_table *table) {
#define QUANTS512_ENTRY(TYPE) table->matmul[KERN_##TYPE] = kern_quants512[KERN_##TYPE].matmul;
    KERN_QUANT_TYPES(QUANTS512_ENTRY)
}

#endif
