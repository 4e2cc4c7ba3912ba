/* quants256.c: products of integer types for registers of 8 rows: AVX2, and AVX2 with AVX-VNNI. All types but Q4_0 and
 * Q8_0, and these two of many tokens with AVX2. See quants/product.h. Lanes never mix, so every lane does exactly what
 * ref does. */
#include "../internal.h"

#if defined(KERN_X86)

#include "avx2_int.h"
#include "unpack256.h"

#define QUANTS256_TARGET __attribute__((target("avx2,fma,f16c")))
#define QUANTS256_INLINE QUANTS256_TARGET KERN_INLINE

/* How products of codes and activations are added. vpmaddubsw adds pairs of products of unsigned and signed bytes in
 * int16, which must not overflow: of codes up to 15, 8 such pairs fit (8 * 2 * 15 * 127 = 30480), up to 31 four, up to
 * 63 two, up to 128 one; that is 8, 4, 2, 1. EIGHT: codes up to 15 with an offset of 8, half of which is paid in each
 * of the two int16 of a row: what is left of a pair is at most 16 * (15 - 4) * 127 + 16 * 4 * 127 = 30480, too. SIGNED:
 * codes of 8 bits with a sign; their magnitude is multiplied, and the sign goes to the activation (2 * 128 * 127 =
 * 32512). */
enum { QUANTS256_SIGNED = 0, QUANTS256_VNNI = 16, QUANTS256_EIGHT = 32, QUANTS256_TILE = 6 };

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

/* The codes of a group: unpacked, or (u.low is not 0) in their panel. */
typedef struct quants256_codes {
    unpack_type u;
    __m256i table;
    const uint8_t (*code)[64];
    const uint8_t *planes;
} quants256_codes;

QUANTS256_INLINE __m256i quants256_code(const int how, const quants256_codes c, const int j, const int h) {
    if (c.u.low) return unpack_code(c.u, how == QUANTS256_SIGNED, c.table, j, h, c.planes);
    return _mm256_load_si256((const void *)(c.code[j] + 32 * h));
}

/* What tokens bring besides their codes, for the group in question. */
typedef struct quants256_side {
    const int32_t *start; /* halves of a group are `half` apart, tokens `token` */
    const float *weight;  /* likewise */
    const float *scale;   /* tokens are `row` apart */
    int64_t half, token, row;
} quants256_side;

/* dot[T][2] of 8 rows each = start + products of registers j0 .. j0 + n - 1 of a group and T tokens. */
QUANTS256_INLINE void quants256_dot(const int how, const int T, const int j0, const int n, const quants256_codes c,
                                    const int8_t *act, int64_t act_stride, const int32_t *start, int64_t token,
                                    __m256i *dot) {
    const __m256i ones = _mm256_set1_epi16(1);
    const int run = how == QUANTS256_VNNI || how == QUANTS256_SIGNED || how > n ? n : how;
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) {
        if (how == QUANTS256_SIGNED)
            dot[i] = _mm256_setzero_si256();
        else if (how == QUANTS256_EIGHT)
            dot[i] = _mm256_set1_epi16((int16_t)start[i / 2 * token]);
        else
            dot[i] = _mm256_set1_epi32(start[i / 2 * token]);
    }
    KERN_UNROLL
    for (int from = j0; from < j0 + n; from += run) {
        __m256i low[2 * QUANTS256_TILE];
        KERN_UNROLL
        for (int j = from; j < from + run; j++) {
            const __m256i code[2] = {quants256_code(how, c, j, 0), quants256_code(how, c, j, 1)};
            const __m256i size[2] = {_mm256_abs_epi8(code[0]), _mm256_abs_epi8(code[1])};
            KERN_UNROLL
            for (int i = 0; i < 2 * T; i++) {
                const __m256i x = quants256_four(act + i / 2 * act_stride + 4 * j), v = code[i % 2];
                if (how == QUANTS256_VNNI) {
                    dot[i] = quants256_dpbusd(dot[i], v, x);
                } else if (how == QUANTS256_SIGNED) {
                    const __m256i pairs = _mm256_maddubs_epi16(size[i % 2], _mm256_sign_epi8(x, v));
                    dot[i] = quants256_keep(_mm256_add_epi32(dot[i], _mm256_madd_epi16(pairs, ones)));
                } else if (how == QUANTS256_EIGHT) {
                    dot[i] = quants256_keep(_mm256_add_epi16(dot[i], _mm256_maddubs_epi16(v, x)));
                } else {
                    const __m256i pairs = _mm256_maddubs_epi16(v, x);
                    low[i] = quants256_keep(j == from ? pairs : _mm256_add_epi16(low[i], pairs));
                }
            }
        }
        if (how == QUANTS256_VNNI || how == QUANTS256_SIGNED || how == QUANTS256_EIGHT) continue;
        KERN_UNROLL
        for (int i = 0; i < 2 * T; i++)
            dot[i] = quants256_keep(_mm256_add_epi32(dot[i], _mm256_madd_epi16(low[i], ones)));
    }
    if (how != QUANTS256_EIGHT) return;
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) dot[i] = _mm256_madd_epi16(dot[i], ones);
}

/* acc[T][2] += a group of a panel, whose scales are those of group g of `part`, times T tokens. */
QUANTS256_INLINE void quants256_group(const int kind, const int how, const int T, const quants256_codes c,
                                      const quant_part *part, int64_t g, const int8_t *act, int64_t act_stride,
                                      const quants256_side s, __m256 *acc) {
    __m256i dot[2 * QUANTS256_TILE];
    if (kind & QUANT_HALVES) {
        __m256 first[2 * QUANTS256_TILE];
        quants256_dot(how, T, 0, 4, c, act, act_stride, s.start, s.token, dot);
        KERN_UNROLL
        for (int i = 0; i < 2 * T; i++)
            first[i] = _mm256_mul_ps(_mm256_cvtepi32_ps(dot[i]), _mm256_load_ps(part->scale[g][0] + i % 2 * 8));
        quants256_dot(how, T, 4, 4, c, act, act_stride, s.start + s.half, s.token, dot);
        KERN_UNROLL
        for (int i = 0; i < 2 * T; i++) {
            const int t = i / 2, r = i % 2 * 8;
            __m256 v = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[i]), _mm256_load_ps(part->scale[g][1] + r), first[i]);
            if (kind & QUANT_MIN) {
                const float *weight = s.weight + t * s.token;
                v = _mm256_fmadd_ps(_mm256_set1_ps(weight[0]), _mm256_load_ps(part->min[g][0] + r), v);
                v = _mm256_fmadd_ps(_mm256_set1_ps(weight[s.half]), _mm256_load_ps(part->min[g][1] + r), v);
            }
            acc[i] = _mm256_fmadd_ps(v, _mm256_set1_ps(s.scale[t * s.row]), acc[i]);
        }
    } else {
        quants256_dot(how, T, 0, 8, c, act, act_stride, s.start, s.token, dot);
        KERN_UNROLL
        for (int i = 0; i < 2 * T; i++) {
            const int t = i / 2, r = i % 2 * 8;
            const __m256 scale =
                _mm256_mul_ps(_mm256_load_ps(part->scale[g][0] + r), _mm256_set1_ps(s.scale[t * s.row]));
            acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[i]), scale, acc[i]);
            if (kind & QUANT_MIN)
                acc[i] =
                    _mm256_fmadd_ps(_mm256_load_ps(part->min[g][0] + r), _mm256_set1_ps(s.weight[t * s.token]), acc[i]);
        }
    }
}

/* ---- many tokens: unpacked parts --------------------------------------------------------------------------------- */

enum { QUANTS256_CELL_ROWS = 4 }; /* tokens of a tile without VNNI */

/* Whether a product reads cells: codes have an offset of 8 (Q4_0), or none, as all types with minima. */

KERN_INLINE int quants256_by_cells(const int kind, const int how) {
    return how == QUANTS256_EIGHT || how == QUANTS256_SIGNED || (how != QUANTS256_VNNI && kind == QUANT_MIN);
}

/* kern_table.fill_cells. QUANTS256_EIGHT pays for half of the offset of 8 in each int16. */
QUANTS256_TARGET static void quants256_fill_cells(const int8_t *codes, const float *scale, const int32_t *sum,
                                                  int64_t n, kern_act_cell *cells, int64_t step) {
    for (int64_t b = 0; b < n / KERN_BLOCK; b++, cells += step) {
        memcpy(cells->codes, codes + b * KERN_BLOCK, KERN_BLOCK);
        cells->scale = scale[b], cells->weight = scale[b] * (float)sum[b];
        cells->start[0] = -4 * sum[b], cells->start[1] = 0;
    }
}

/* Tokens t0 .. t0 + T - 1 times panel p. */
QUANTS256_INLINE void quants256_tile(const int kind, const int how, const int T, quant_work *w, int p, int64_t t0,
                                     const quant_tokens *s) {
    const int64_t stride = w->row_groups * KERN_BLOCK;
    const int8_t *act = w->codes + t0 * stride;
    const int by_cells = quants256_by_cells(kind, how);
    const kern_act_cell *cell = by_cells ? w->cells + kern_cell_place(w->cell_rows, w->row_groups, t0, 0) : NULL;
    const quant_part *part = &w->part[p];
    __m256 acc[2 * QUANTS256_TILE];
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) acc[i] = _mm256_load_ps(w->sum[t0 + i / 2][p] + i % 2 * 8);
    for (int64_t g = 0; g < w->n_groups; g++, act += KERN_BLOCK) {
        const quants256_codes c = {.code = part->code[g]};
        if (by_cells) {
            const int64_t next = sizeof *cell / sizeof(int32_t);
            const quants256_side side = {
                &cell->start[kind & QUANT_MIN ? 1 : 0], &cell->weight, &cell->scale, 0, next, next};
            quants256_group(kind, how, T, c, part, g, cell->codes, sizeof *cell, side, acc);
            cell += kern_cell_step(T, QUANTS256_CELL_ROWS, w->cell_rows);
        } else {
            const quants256_side side = {s->start[0][0] + g, s->weight[0][0] + g, s->scale[0] + g,
                                         QUANT_GROUPS,       2 * QUANT_GROUPS,    QUANT_GROUPS};
            quants256_group(kind, how, T, c, part, g, act, stride, side, acc);
        }
    }
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) _mm256_store_ps(w->sum[t0 + i / 2][p] + i % 2 * 8, acc[i]);
}

/* T tokens at a time: 4, or 6 where the registers are enough. */
QUANTS256_INLINE void quants256_multiply(const int kind, const int how, const int T, quant_work *w) {
    quant_tokens s = {0};
    for (int64_t t = 0, now; t < w->n; t += now) {
        const int64_t left = w->n - t;
        now = left >= T ? T : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        if (!quants256_by_cells(kind, how)) quant_prepare(kind, T, w, t, &s);
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
QUANTS256_MULTIPLY(plain_eight, 0, QUANTS256_EIGHT, QUANTS256_CELL_ROWS)
QUANTS256_MULTIPLY(plain_signed, 0, QUANTS256_SIGNED, QUANTS256_CELL_ROWS)
QUANTS256_MULTIPLY(plain_15, 0, 8, 4)
QUANTS256_MULTIPLY(plain_31, 0, 4, 4)
QUANTS256_MULTIPLY(plain_128, 0, 1, 4)
QUANTS256_MULTIPLY(min_15, QUANT_MIN, 8, QUANTS256_CELL_ROWS)
QUANTS256_MULTIPLY(min_31, QUANT_MIN, 4, QUANTS256_CELL_ROWS)
QUANTS256_MULTIPLY(halves_31, QUANT_HALVES, 4, 4)
QUANTS256_MULTIPLY(halves_63, QUANT_HALVES, 2, 4)
QUANTS256_MULTIPLY(halves_128, QUANT_HALVES, 1, 4)
QUANTS256_MULTIPLY(both_15, QUANT_HALVES | QUANT_MIN, 4, 4)
QUANTS256_MULTIPLY(vnni_plain, 0, QUANTS256_VNNI, 6)
QUANTS256_MULTIPLY(vnni_min, QUANT_MIN, QUANTS256_VNNI, 6)
QUANTS256_MULTIPLY(vnni_halves, QUANT_HALVES, QUANTS256_VNNI, 6)
QUANTS256_MULTIPLY(vnni_both, QUANT_HALVES | QUANT_MIN, QUANTS256_VNNI, 6)

/* ---- few tokens --------------------------------------------------------------------------------------------------
 *
 * Straight from the panels: codes are unpacked where they are used, only scales pass through the cache. One token goes
 * through panels side by side. Of more there are registers for two; the others find the panel in the cache. */

enum {
    QUANTS256_FEW = 6,          /* most tokens */
    QUANTS256_FEW_GROUPS = 4096 /* most groups of all of them */
};

typedef struct quants256_tokens {
    const int8_t *codes;
    const float *scale;
    int64_t row_groups, follow;             /* follow: of kern_act */
    int32_t start[2][QUANTS256_FEW_GROUPS]; /* [tokens][row_groups], here and below: of the halves of a group */
    float weight[2][QUANTS256_FEW_GROUPS];
} quants256_tokens;

static void quants256_prepare(const int kind, const int32_t offset, const kern_act *act, int64_t n, int64_t row_groups,
                              quants256_tokens *x) {
    x->codes = act->codes, x->scale = act->scale, x->row_groups = row_groups, x->follow = act->follow;
    if (kind & QUANT_HALVES) quant_half_sums(act->codes, n * row_groups, x->start[0]);
    for (int64_t i = 0; i < n * row_groups; i++) {
        const int32_t sum = act->sum[i], first = kind & QUANT_HALVES ? x->start[0][i] : sum;
        x->start[0][i] = -offset * first;
        x->start[1][i] = -offset * (sum - first);
        x->weight[0][i] = kind & QUANT_HALVES ? (float)first : act->scale[i] * (float)first;
        x->weight[1][i] = (float)(sum - first);
    }
}

/* y of tokens t .. t + T - 1 and P panels side by side; `rows` rows are there from the first on, `next` from one to the
 * next. */
QUANTS256_INLINE void quants256_panels(const int kind, const int how, const int T, const int P, const unpack_type u,
                                       const kern_streams *w, const quants256_tokens *x, int64_t t, int64_t rows,
                                       int64_t next, float *y, int64_t ldy) {
    const int64_t row_groups = x->row_groups, group_bytes = 64 * (u.low + u.high);
    quant_part part[UNPACK_STREAMS];
    __m256 acc[UNPACK_STREAMS][2 * 2]; /* of two tokens */
    KERN_UNROLL
    for (int i = 0; i < 2 * T * P; i++) acc[i / (2 * T)][i % (2 * T)] = _mm256_setzero_ps();
    for (int64_t first = 0; first < row_groups; first += QUANT_GROUPS) {
        const int64_t n = row_groups - first < QUANT_GROUPS ? row_groups - first : QUANT_GROUPS;
        for (int p = 0; p < P; p++) unpack_scales(u, w->first + p * w->apart, row_groups, first, n, &part[p]);
        for (int64_t g = 0; g < n; g++) {
            const int64_t at = t * row_groups + first + g;
            const uint8_t *codes = w->first + (first + g) * group_bytes;
            const quants256_side side = {x->start[0] + at,     x->weight[0] + at, x->scale + at,
                                         QUANTS256_FEW_GROUPS, row_groups,        row_groups};
            if (P > 1)
                unpack_fetch_streams(u, w, first + g);
            else if (t == 0)
                unpack_prefetch(u, codes);
            KERN_UNROLL
            for (int p = 0; p < P; p++, codes += w->apart) {
                const int8_t *act = x->codes + at * KERN_BLOCK;
                const quant_part *mine = &part[p];
                int64_t ld = row_groups * KERN_BLOCK;
                /* New to gcc for each panel, or it would keep what they share, for want of registers on the stack. */
                if (P > 1) __asm__("" : "+r"(act), "+r"(ld), "+r"(codes), "+r"(mine));
                const quants256_codes c = {u, unpack_table(u, how == QUANTS256_SIGNED), NULL, codes};
                quants256_group(kind, how, T, c, mine, g, act, ld, side, acc[p]);
            }
        }
    }
    KERN_UNROLL
    for (int i = 0; i < 2 * T * P; i++) {
        const int64_t from = i / (2 * T) * next + i % 2 * 8;
        avx2_store_n(y + (t + i / 2 % T) * ldy + from, rows - from, acc[i / (2 * T)][i % (2 * T)]);
    }
}

/* One token times as many panels as go side by side; says how many. */
QUANTS256_INLINE int64_t quants256_streams(const int kind, const int how, const unpack_type u, const uint8_t *panels,
                                           const quants256_tokens *x, int64_t rows, float *y, int64_t ldy) {
    const int64_t each = (rows + KERN_PANEL - 1) / KERN_PANEL / UNPACK_STREAMS;
    const size_t bytes = kern_panel_bytes(u.type, x->row_groups * KERN_BLOCK);
    for (int64_t i = 0; i < each; i++, rows -= KERN_PANEL, y += KERN_PANEL) {
        const kern_streams w = kern_streams_at(panels, bytes, x->row_groups, UNPACK_STREAMS, each, i, x->follow);
        quants256_panels(kind, how, 1, UNPACK_STREAMS, u, &w, x, 0, rows, each * KERN_PANEL, y, ldy);
    }
    return each * UNPACK_STREAMS;
}

QUANTS256_INLINE void quants256_few(const int kind, const int how, const int32_t offset, const unpack_type u,
                                    const void *panels, int64_t rows, int64_t row_groups, const kern_act *act,
                                    int64_t n, float *y, int64_t ldy) {
    const int64_t panel_bytes = (int64_t)kern_panel_bytes(u.type, row_groups * KERN_BLOCK);
    quants256_tokens x;
    quants256_prepare(kind, offset, act, n, row_groups, &x);
    int64_t panel = 0;
    if (n == 1) panel = quants256_streams(kind, how, u, panels, &x, rows, y, ldy);
    for (; panel * KERN_PANEL < rows; panel++) {
        const kern_streams w = {(const uint8_t *)panels + panel * panel_bytes, 0, row_groups, NULL, 0};
        const int64_t row = panel * KERN_PANEL;
        int64_t t = 0;
        for (; t + 2 <= n; t += 2) quants256_panels(kind, how, 2, 1, u, &w, &x, t, rows - row, 0, y + row, ldy);
        if (t < n) quants256_panels(kind, how, 1, 1, u, &w, &x, t, rows - row, 0, y + row, ldy);
    }
}

/* ---- the types ---------------------------------------------------------------------------------------------------
 *
 * Which product a type takes, by its largest code, its scales and minima. */

/* clang-format off */
#define QUANTS256_WAYS(X)                                                                                              \
    X(Q4_0, 0, QUANTS256_EIGHT, plain_eight)      X(Q8_0, 0, QUANTS256_SIGNED, plain_signed)                           \
    X(IQ4_NL, 0, QUANTS256_SIGNED, plain_signed)  X(IQ4_XS, 0, QUANTS256_SIGNED, plain_signed)                         \
    X(TQ2_0, 0, 8, plain_15)                      X(Q5_0, 0, 4, plain_31)                                              \
    X(MXFP4, 0, 4, plain_31)                      X(TQ1_0, 0, 1, plain_128)                                            \
    X(IQ1_S, 0, 1, plain_128)                     X(IQ2_XXS, 0, 1, plain_128)                                          \
    X(IQ3_XXS, 0, 1, plain_128)                   X(IQ3_S, 0, 1, plain_128)                                            \
    X(Q4_1, QUANT_MIN, 8, min_15)                 X(Q4_K, QUANT_MIN, 8, min_15)                                        \
    X(Q5_1, QUANT_MIN, 4, min_31)                 X(Q5_K, QUANT_MIN, 4, min_31)                                        \
    X(Q3_K, QUANT_HALVES, 4, halves_31)           X(NVFP4, QUANT_HALVES, 4, halves_31)                                 \
    X(Q6_K, QUANT_HALVES, 2, halves_63)           X(IQ1_M, QUANT_HALVES, 1, halves_128)                                \
    X(IQ2_XS, QUANT_HALVES, 1, halves_128)        X(IQ2_S, QUANT_HALVES, 1, halves_128)                                \
    X(Q2_K, QUANT_HALVES | QUANT_MIN, 4, both_15)
/* clang-format on */
#define QUANTS256_WAY(TYPE, KIND, HOW, MULTIPLY) QUANTS256_KIND_##TYPE = (KIND), QUANTS256_HOW_##TYPE = (HOW),
enum { QUANTS256_WAYS(QUANTS256_WAY) };

static void (*const quants256_multiply_of[KERN_TYPE_END])(quant_work *) = {
#define QUANTS256_PRODUCT(TYPE, KIND, HOW, MULTIPLY) [KERN_##TYPE] = quants256_##MULTIPLY,
    QUANTS256_WAYS(QUANTS256_PRODUCT)};

/* Types with 8 bits and a sign: as in unpack.c, but without the offset. */
#define QUANTS256_SIGNED_UNPACKER(TYPE, LOW, HIGH, VALUES, GROUPS, SIDE)                                               \
    QUANTS256_TARGET static void quants256_unpack_##TYPE(const uint8_t *panel, int64_t row_groups, int64_t first,      \
                                                         int64_t n, quant_part *out) {                                 \
        const unpack_type u = {KERN_##TYPE, LOW, HIGH, VALUES, GROUPS, SIDE};                                          \
        unpack_part(u, 1, panel, row_groups, first, n, out);                                                           \
    }
QUANTS256_SIGNED_UNPACKER(Q8_0, 8, 0, NULL, 1, 2)
QUANTS256_SIGNED_UNPACKER(IQ4_NL, 4, 0, kern_iq4_unsigned, 1, 2)
QUANTS256_SIGNED_UNPACKER(IQ4_XS, 4, 0, kern_iq4_unsigned, 8, 8)

/* What pays for the offset of the codes; QUANTS256_EIGHT has that in its cells. */
static int32_t quants256_offset(int how, int32_t offset) {
    return how == QUANTS256_SIGNED ? 0 : offset;
}

static void quants256_many(uint32_t type, int how, const void *panels, int64_t rows, int64_t cols, const kern_act *act,
                           int64_t n, float *y, int64_t ldy) {
    static quant_unpack *const signed_unpacker[KERN_TYPE_END] = {[KERN_Q8_0] = quants256_unpack_Q8_0,
                                                                 [KERN_IQ4_NL] = quants256_unpack_IQ4_NL,
                                                                 [KERN_IQ4_XS] = quants256_unpack_IQ4_XS};
    static void (*const vnni[QUANT_KINDS])(quant_work *) = {quants256_vnni_plain, quants256_vnni_halves,
                                                            quants256_vnni_min, quants256_vnni_both};
    const avx2_unpacker *u = &kern_avx2_unpackers[type];
    const int by_cells = quants256_by_cells(quant_kind(type), how);
    const quant_product p = {how == QUANTS256_SIGNED ? signed_unpacker[type] : u->unpack,
                             how == QUANTS256_VNNI ? vnni[quant_kind(type)] : quants256_multiply_of[type],
                             type,
                             quants256_offset(how, u->offset),
                             by_cells && unpack_cache_is_large() ? 2 * QUANT_TOKENS_FEW : QUANT_TOKENS_FEW,
                             20,
                             QUANT_GROUPS,
                             0,
                             0};
    quant_matmul(&p, panels, rows, cols, act, n, y, ldy);
}

/* A kern_matmul of a type whose codes are planes: few tokens, or what is left to MANY. */
#define QUANTS256_PLANES(NAME, HOW, MANY, TYPE, LOW, HIGH, VALUES, GROUPS, SIDE)                                       \
    QUANTS256_TARGET static void NAME(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,  \
                                      float *y, int64_t ldy) {                                                         \
        const unpack_type u = {KERN_##TYPE, LOW, HIGH, VALUES, GROUPS, SIDE};                                          \
        if (n <= QUANTS256_FEW && n * (cols / KERN_BLOCK) <= QUANTS256_FEW_GROUPS)                                     \
            quants256_few(QUANTS256_KIND_##TYPE, HOW, quants256_offset(HOW, kern_avx2_unpackers[u.type].offset), u,    \
                          panels, rows, cols / KERN_BLOCK, act, n, y, ldy);                                            \
        else                                                                                                           \
            MANY(u.type, HOW, panels, rows, cols, act, n, y, ldy);                                                     \
    }
#define QUANTS256_AVX2_PLANES(TYPE, LOW, HIGH, VALUES, GROUPS, SIDE)                                                   \
    QUANTS256_PLANES(quants256_##TYPE, QUANTS256_HOW_##TYPE, quants256_many, TYPE, LOW, HIGH, VALUES, GROUPS, SIDE)
#define QUANTS256_VNNI_PLANES(TYPE, LOW, HIGH, VALUES, GROUPS, SIDE)                                                   \
    QUANTS256_PLANES(quants256_vnni_##TYPE, QUANTS256_VNNI, quants256_many, TYPE, LOW, HIGH, VALUES, GROUPS, SIDE)
UNPACK_OTHER_PLANE_TYPES(QUANTS256_AVX2_PLANES)
UNPACK_OTHER_PLANE_TYPES(QUANTS256_VNNI_PLANES)

#define QUANTS256_BOOK(TYPE)                                                                                           \
    static void quants256_##TYPE(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,       \
                                 float *y, int64_t ldy) {                                                              \
        quants256_many(KERN_##TYPE, QUANTS256_HOW_##TYPE, panels, rows, cols, act, n, y, ldy);                         \
    }                                                                                                                  \
    static void quants256_vnni_##TYPE(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,  \
                                      float *y, int64_t ldy) {                                                         \
        quants256_many(KERN_##TYPE, QUANTS256_VNNI, panels, rows, cols, act, n, y, ldy);                               \
    }
UNPACK_BOOK_TYPES(QUANTS256_BOOK)

/* Few tokens are the business of avx2.c. */
void kern_quants256_q4_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n, float *y,
                         int64_t ldy) {
    quants256_many(KERN_Q4_0, QUANTS256_HOW_Q4_0, panels, rows, cols, act, n, y, ldy);
}
void kern_quants256_q8_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n, float *y,
                         int64_t ldy) {
    quants256_many(KERN_Q8_0, QUANTS256_HOW_Q8_0, panels, rows, cols, act, n, y, ldy);
}

void kern_table_quants256(kern_table *table) {
    table->panel_group = QUANT_PANELS;
    table->fill_cells = quants256_fill_cells;
    table->cell_rows = QUANTS256_CELL_ROWS;
#define QUANTS256_ENTRY(TYPE) table->matmul[KERN_##TYPE] = quants256_##TYPE;
    KERN_QUANT_TYPES(QUANTS256_ENTRY)
}

void kern_table_quants256_vnni(kern_table *table) {
    table->fill_cells = NULL; /* its tiles have other sizes */
#define QUANTS256_VNNI_ENTRY(TYPE) table->matmul[KERN_##TYPE] = quants256_vnni_##TYPE;
    KERN_QUANT_TYPES(QUANTS256_VNNI_ENTRY)
}

#endif
