/* avx512vnni_attention.c: int8 keys and values on AVX-512 VNNI. A zmm register holds 16 int32: one key each, or one
 * dimension each; sums of products are exact, so they are those of every other version. */
#include "../internal.h"

#if defined(KERN_X86)

#include "avx512_math.h"

#define VNNI_ATTENTION_TARGET __attribute__((target(AVX512_FEATURES ",avx512vnni")))
#define VNNI_ATTENTION_INLINE VNNI_ATTENTION_TARGET KERN_INLINE

VNNI_ATTENTION_INLINE __m512i vnni_attention_four(const int8_t *codes) {
    int32_t four;
    memcpy(&four, codes, sizeof four);
    return _mm512_set1_epi32(four);
}

/* How many vectors of 16 keys or dimensions a tile takes from what is left: many, because a broadcast that all of them
 * share takes a port that the products need (on Zen 4). */
VNNI_ATTENTION_INLINE int vnni_attention_vectors(int64_t left) {
    return left > 48 ? 4 : left > 16 ? 2 : 1;
}

/* acc + 16 sums of 4 products. In assembly, because gcc 12 moves the products of a tile about until registers run out.
 */
VNNI_ATTENTION_INLINE void vnni_attention_add(__m512i *acc, __m512i no_sign, __m512i sign) {
    __asm__("vpdpbusd {%2, %1, %0|%0, %1, %2}" : "+v"(*acc) : "v"(no_sign), "v"(sign));
}

/* ---- weights: rows of queries by keys ------------------------------------------------------------------------------
 *
 * The scores of a tile of rows and a block of keys wait in memory and become codes while the products of the next tile
 * are computed: those take ports that codes do not need. */

#define VNNI_WEIGHTS_TARGET __attribute__((target(AVX512_FEATURES ",avx512vnni,avx512vbmi")))
#define VNNI_WEIGHTS_INLINE VNNI_WEIGHTS_TARGET KERN_INLINE

enum {
    WEIGHTS_TILE = 4,                          /* rows of a tile, at most */
    WEIGHTS_ROWS = 16,                         /* of one go: a lane each for what there is one of in a row and block */
    WEIGHTS_VECTORS = KERN_WEIGHTS / 16,       /* of a block */
    WEIGHTS_BLOCKS = KERN_RANGE / KERN_WEIGHTS /* at most */
};

/* Scores of a tile that all its rows see, which wait to become codes. What there is one of in a row and block is where
 * it is in vnni_weights, of the first row on. */
typedef struct vnni_weights_tile {
    __m512 s[WEIGHTS_TILE][WEIGHTS_VECTORS], largest[WEIGHTS_TILE];
    float z[WEIGHTS_TILE]; /* added to scores once they are multiplied with a */
    int rows;
    const kern_block_values *block;
    const float *a;
    float *top, *worth, *sum;
    int8_t *codes;
} vnni_weights_tile;

/* Some rows, and all blocks */
typedef struct vnni_weights {
    const kern_look *l;
    int64_t row;   /* the first */
    int8_t *codes; /* those of the first row */
    int64_t ld;
    float top[WEIGHTS_BLOCKS][WEIGHTS_ROWS + WEIGHTS_TILE];   /* the largest score of a row in a block */
    float worth[WEIGHTS_BLOCKS][WEIGHTS_ROWS + WEIGHTS_TILE]; /* the largest scale of a value */
    float sum[WEIGHTS_BLOCKS][WEIGHTS_ROWS + WEIGHTS_TILE];   /* of codes without the values' scales */
    float a[WEIGHTS_ROWS + WEIGHTS_TILE]; /* what scores are multiplied with to count in 32nds of a power */
    int32_t start[WEIGHTS_ROWS];          /* see vnni_weights_start() */
    const int8_t *q;                      /* of the first row */
    const int8_t *k[WEIGHTS_BLOCKS];
    int64_t ldq, stride, n_groups;
    int whole[WEIGHTS_BLOCKS];
    const float *k_scale[WEIGHTS_BLOCKS], *v_level[WEIGHTS_BLOCKS];
    kern_block_values block[WEIGHTS_BLOCKS];
    __m512i code[4]; /* kern_weight_code() of 0..255 */
    vnni_weights_tile waiting;
} vnni_weights;

/* The sums of four times sixteen numbers */
VNNI_ATTENTION_INLINE __m128i vnni_four_sums(const __m512i *v) {
    const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    const __m512i c = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    const __m256i d = _mm256_add_epi32(_mm512_castsi512_si256(c), _mm512_extracti64x4_epi64(c, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(d), _mm256_extracti128_si256(d, 1));
}

/* Codes of keys get an offset of 128, because the instruction wants one side without sign; a sum starts with what pays
 * for it. Here for rows r .. r + 3. */
VNNI_ATTENTION_INLINE void vnni_weights_start(const kern_look *l, int64_t r, int32_t *start) {
    const int64_t n = 4 * l->n_groups;
    __m512i sum[4];
    KERN_UNROLL
    for (int i = 0; i < 4; i++) {
        sum[i] = _mm512_setzero_si512();
        for (int64_t d = 0; d < n && r + i < l->rows; d += 64) {
            const __mmask64 there = n - d >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << (n - d)) - 1;
            const __m512i codes = _mm512_maskz_loadu_epi8(there, l->q + (r + i) * l->ldq + d);
            vnni_attention_add(&sum[i], _mm512_set1_epi8((char)0x80), codes);
        }
    }
    _mm_storeu_si128((void *)start, _mm_sub_epi32(_mm_setzero_si128(), vnni_four_sums(sum)));
}

/* kern_weight_code() of 0 to 255, power by power */
VNNI_WEIGHTS_INLINE void vnni_weights_table(__m512i *code) {
    const __m512i top = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)kern_weight_32nds));
    __m256i power[8];
    KERN_UNROLL
    for (int i = 0; i < 8; i++) {
        const __m512i half = _mm512_set1_epi16((short)((1 << (7 - i)) >> 1));
        power[i] = _mm512_cvtepi16_epi8(_mm512_srli_epi16(_mm512_add_epi16(top, half), (unsigned)(7 - i)));
    }
    KERN_UNROLL
    for (int i = 0; i < 4; i++) code[i] = _mm512_inserti64x4(_mm512_castsi256_si512(power[2 * i]), power[2 * i + 1], 1);
    code[0] = _mm512_maskz_mov_epi8(~(__mmask64)1, code[0]);
}

VNNI_WEIGHTS_INLINE __m512i vnni_weights_look_up(const __m512i *code, __m512i y) {
    const __m512i low = _mm512_permutex2var_epi8(code[0], y, code[1]);
    const __m512i high = _mm512_permutex2var_epi8(code[2], y, code[3]);
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(y), low, high);
}

/* 64 integers as bytes, those below 0 as 0, those above 255 as 255. The packs work within 128-bit lanes; the
 * permutation puts the groups of 4 in order. */
VNNI_WEIGHTS_INLINE __m512i vnni_weights_bytes(const __m512i *v) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i low = _mm512_packs_epi32(v[0], v[1]), high = _mm512_packs_epi32(v[2], v[3]);
    return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
}

/* The levels of a block's values, KERN_LEVEL_MIN for keys that are not seen; *damage: some are none. */
VNNI_WEIGHTS_INLINE __m512 vnni_weights_levels(const float *level, __mmask64 seen, __m512 *v, __mmask16 *damage) {
    const __m512 least = _mm512_set1_ps(KERN_LEVEL_MIN);
    *damage = 0;
    KERN_UNROLL
    for (int i = 0; i < WEIGHTS_VECTORS; i++) {
        v[i] = _mm512_mask_loadu_ps(least, (__mmask16)(seen >> 16 * i), level + 16 * i);
        *damage |= _mm512_cmp_ps_mask(v[i], v[i], _CMP_UNORD_Q);
    }
    return _mm512_max_ps(_mm512_max_ps(v[0], v[1]), _mm512_max_ps(v[2], v[3]));
}

/* How many levels each value is below the top one of its block */
VNNI_WEIGHTS_INLINE void vnni_weights_down(const __m512 *v, float top, __mmask16 damage, kern_block_values *out) {
    __m512i down[WEIGHTS_VECTORS];
    KERN_UNROLL
    for (int i = 0; i < WEIGHTS_VECTORS; i++) down[i] = _mm512_cvtps_epi32(_mm512_sub_ps(_mm512_set1_ps(top), v[i]));
    _mm512_storeu_si512(out->down, damage ? _mm512_set1_epi8(-1) : vnni_weights_bytes(down));
}

/* What a row needs to know of the values of a block, of which it sees some. */
VNNI_WEIGHTS_INLINE void vnni_weights_values(const float *level, __mmask64 seen, kern_block_values *out) {
    __m512 v[WEIGHTS_VECTORS];
    __mmask16 damage;
    const float top = _mm512_reduce_max_ps(vnni_weights_levels(level, seen, v, &damage));
    vnni_weights_down(v, top, damage, out);
    out->worth = damage ? kern_bits_to_f32(KERN_NAN_BITS) : kern_level_scale(top);
}

/* The same of all blocks of a range at once */
VNNI_WEIGHTS_INLINE void vnni_weights_all_values(vnni_weights *g) {
    __m512 v[WEIGHTS_BLOCKS][WEIGHTS_VECTORS], most[WEIGHTS_BLOCKS];
    __mmask16 damage[WEIGHTS_BLOCKS];
    float top[WEIGHTS_BLOCKS], worth[16];
    KERN_UNROLL
    for (int b = 0; b < WEIGHTS_BLOCKS; b++)
        most[b] = vnni_weights_levels(g->v_level[b], ~(__mmask64)0, v[b], &damage[b]);
    const __m128 tops = avx512_four_folded(avx512_larger, most);
    _mm_storeu_ps(top, tops);
    _mm512_storeu_ps(worth, avx512_exp(_mm512_mul_ps(_mm512_castps128_ps512(tops), _mm512_set1_ps(KERN_LEVEL_STEP))));
    KERN_UNROLL
    for (int b = 0; b < WEIGHTS_BLOCKS; b++) {
        vnni_weights_down(v[b], top[b], damage[b], &g->block[b]);
        g->block[b].worth = damage[b] ? kern_bits_to_f32(KERN_NAN_BITS) : worth[b];
    }
}

/* Codes of a row's scores; returns what sums up to their sum without the values' scales. */
VNNI_WEIGHTS_INLINE __m512i vnni_weights_codes(const __m512i *code, const __m512 *s, float a, float z, __mmask64 seen,
                                               const uint8_t *down, int8_t *codes) {
    __m512i y[WEIGHTS_VECTORS], sum = _mm512_setzero_si512();
    KERN_UNROLL
    for (int i = 0; i < WEIGHTS_VECTORS; i++)
        y[i] = _mm512_cvtps_epi32(_mm512_fmadd_ps(s[i], _mm512_set1_ps(a), _mm512_set1_ps(z)));
    const __m512i all = _mm512_maskz_mov_epi8(seen, vnni_weights_bytes(y));
    const __m512i with_values = _mm512_subs_epu8(all, _mm512_loadu_si512(down));
    _mm512_storeu_si512(codes, vnni_weights_look_up(code, with_values));
    vnni_attention_add(&sum, vnni_weights_look_up(code, all), _mm512_set1_epi8(1));
    return sum;
}

/* Row r of those that do not see all of block b, or whose scores have a cap. */
VNNI_WEIGHTS_TARGET static void vnni_weights_edge(vnni_weights *g, int64_t r, int64_t b, __m512 *s) {
    const kern_view view = g->l->seen[g->row + r];
    const kern_seen k = kern_seen_of(b, view.first, view.end);
    int8_t *codes = g->codes + r * g->ld + b * KERN_WEIGHTS;
    g->worth[b][r] = 0, g->top[b][r] = -INFINITY, g->sum[b][r] = 0;
    if (k.first >= k.end) {
        memset(codes, 0, KERN_WEIGHTS);
        return;
    }
    const __mmask64 seen = (~(__mmask64)0 >> (KERN_WEIGHTS - k.end)) & (~(__mmask64)0 << k.first);
    kern_block_values own;
    vnni_weights_values(g->v_level[b], seen, &own);
    __m512 most = _mm512_set1_ps(-INFINITY);
    KERN_UNROLL
    for (int i = 0; i < WEIGHTS_VECTORS; i++) {
        const float q_scale = g->l->q_scale[g->row + r];
        if (g->l->cap > 0) s[i] = avx512_capped(_mm512_mul_ps(s[i], _mm512_set1_ps(q_scale)), g->l->cap);
        most = _mm512_mask_max_ps(most, (__mmask16)(seen >> 16 * i), most, s[i]);
    }
    const float top = _mm512_reduce_max_ps(most) + 0.0f;
    const __m512i sum = vnni_weights_codes(g->code, s, g->a[r], fmaf(-top, g->a[r], 255), seen, own.down, codes);
    g->top[b][r] = top, g->worth[b][r] = own.worth, g->sum[b][r] = (float)_mm512_reduce_add_epi32(sum);
}

/* Looks for the largest scores of the tile that waits. */
VNNI_WEIGHTS_INLINE void vnni_weights_tops(vnni_weights_tile *t) {
    const __m128 top = _mm_add_ps(avx512_four_folded(avx512_larger, t->largest), _mm_setzero_ps());
    _mm_storeu_ps(t->z, _mm_fnmadd_ps(top, _mm_loadu_ps(t->a), _mm_set1_ps(255)));
    _mm_storeu_ps(t->top, top);
    _mm_storeu_ps(t->worth, _mm_set1_ps(t->block->worth));
}

/* Row r of the tile that waits */
VNNI_WEIGHTS_INLINE __m512i vnni_weights_row(const vnni_weights *g, int r) {
    const vnni_weights_tile *t = &g->waiting;
    if (r >= t->rows) return _mm512_setzero_si512();
    return vnni_weights_codes(g->code, t->s[r], t->a[r], t->z[r], ~(__mmask64)0, t->block->down, t->codes + r * g->ld);
}

VNNI_WEIGHTS_INLINE void vnni_weights_sums(vnni_weights_tile *t, const __m512i *sums) {
    _mm_storeu_ps(t->sum, _mm_cvtepi32_ps(vnni_four_sums(sums)));
    t->rows = 0;
}

/* Four dimensions of NR rows and all keys of a block. */
VNNI_WEIGHTS_INLINE void vnni_weights_group(const int NR, __m512i *acc, const int8_t *q, int64_t ldq, const int8_t *k) {
    __m512i key[WEIGHTS_VECTORS];
    KERN_UNROLL
    for (int v = 0; v < WEIGHTS_VECTORS; v++)
        key[v] = _mm512_xor_si512(_mm512_loadu_si512(k + 64 * v), _mm512_set1_epi8((char)0x80));
    KERN_UNROLL
    for (int r = 0; r < NR; r++) {
        const __m512i four = vnni_attention_four(q + r * ldq);
        KERN_UNROLL
        for (int v = 0; v < WEIGHTS_VECTORS; v++) vnni_attention_add(&acc[r * WEIGHTS_VECTORS + v], key[v], four);
    }
}

/* NR rows and block b, while the tile that waits becomes codes. With DIM head_dim is that. */
VNNI_WEIGHTS_INLINE void vnni_weights_tile_of(const int NR, const int DIM, vnni_weights *g, int64_t row, int64_t b) {
    vnni_weights_tile *t = &g->waiting;
    const int8_t *q = g->q + row * g->ldq, *k = g->k[b];
    const int64_t ldq = g->ldq, stride = g->stride, groups = DIM ? DIM / 4 : g->n_groups;
    __m512i acc[WEIGHTS_TILE * WEIGHTS_VECTORS], sums[WEIGHTS_TILE];
    if (t->rows) vnni_weights_tops(t);
    KERN_UNROLL
    for (int i = 0; i < NR * WEIGHTS_VECTORS; i++) acc[i] = _mm512_set1_epi32(g->start[row + i / WEIGHTS_VECTORS]);
    KERN_UNROLL
    for (int part = 0; part < WEIGHTS_TILE; part++) {
        const int64_t end = groups * (part + 1) / WEIGHTS_TILE;
        for (int64_t d = groups * part / WEIGHTS_TILE; d < end; d++, k += stride)
            vnni_weights_group(NR, acc, q + 4 * d, ldq, k);
        sums[part] = vnni_weights_row(g, part);
    }
    if (t->rows) vnni_weights_sums(t, sums);

    KERN_UNROLL
    for (int r = 0; r < NR; r++) {
        __m512 s[WEIGHTS_VECTORS];
        KERN_UNROLL
        for (int v = 0; v < WEIGHTS_VECTORS; v++) {
            const __m512 scale = _mm512_loadu_ps(g->k_scale[b] + 16 * v);
            s[v] = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[r * WEIGHTS_VECTORS + v]), scale);
            t->s[r][v] = s[v];
        }
        t->largest[r] = _mm512_max_ps(_mm512_max_ps(s[0], s[1]), _mm512_max_ps(s[2], s[3]));
    }
    if (!g->whole[b]) {
        for (int r = 0; r < NR; r++) vnni_weights_edge(g, row + r, b, t->s[r]);
        return;
    }
    t->rows = NR, t->block = &g->block[b], t->a = g->a + row, t->top = g->top[b] + row, t->worth = g->worth[b] + row;
    t->sum = g->sum[b] + row, t->codes = g->codes + row * g->ld + b * KERN_WEIGHTS;
}

VNNI_WEIGHTS_TARGET __attribute__((noinline)) static void vnni_weights_tile_4(vnni_weights *g, int64_t row, int64_t b) {
    vnni_weights_tile_of(4, 0, g, row, b);
}
VNNI_WEIGHTS_TARGET __attribute__((noinline)) static void vnni_weights_tile_4_64(vnni_weights *g, int64_t row,
                                                                                 int64_t b) {
    vnni_weights_tile_of(4, 64, g, row, b);
}
VNNI_WEIGHTS_TARGET __attribute__((noinline)) static void vnni_weights_tile_1(vnni_weights *g, int64_t row, int64_t b) {
    vnni_weights_tile_of(1, 0, g, row, b);
}

/* Scales, maxima and sums of the rows, once all of their codes are made. */
VNNI_WEIGHTS_INLINE void vnni_weights_end(const vnni_weights *g, int64_t n, int64_t first, int64_t end, float *scale,
                                          int64_t ld_scale, float *max, float *sum) {
    const __mmask16 rows = avx512_mask(n);
    const __m512 q = g->l->cap > 0 ? _mm512_set1_ps(1) : _mm512_maskz_loadu_ps(rows, g->l->q_scale + g->row);
    __m512 m = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
    __mmask16 any = 0;
    for (int64_t b = first; b < end; b++) m = _mm512_max_ps(_mm512_loadu_ps(g->top[b]), m);
    for (int64_t b = first; b < end; b++) {
        const __m512 worth = _mm512_loadu_ps(g->worth[b]);
        const __mmask16 there = _mm512_cmp_ps_mask(worth, _mm512_setzero_ps(), _CMP_NEQ_UQ);
        __m512 e = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(g->top[b]), m), q);
        avx512_exp_below_1(1, 0, &e);
        _mm512_mask_storeu_ps(scale + b * ld_scale, rows, _mm512_maskz_mul_ps(there, e, worth));
        total = _mm512_mask3_fmadd_ps(_mm512_loadu_ps(g->sum[b]), e, total, there);
        any |= there;
    }
    m = _mm512_mask_mul_ps(_mm512_set1_ps(-INFINITY), any, m, q);
    _mm512_mask_storeu_ps(max, rows, m);
    _mm512_mask_storeu_ps(sum, rows, _mm512_mask_add_ps(total, any, total, _mm512_sub_ps(m, m)));
}

VNNI_WEIGHTS_TARGET static void vnni_weights_q8(const kern_look *l, int8_t *codes, int64_t ld, float *scale,
                                                int64_t ld_scale, float *max, float *sum) {
    if (l->page_keys < KERN_WEIGHTS) {
        kern_avx2_weights_q8(l, codes, ld, scale, ld_scale, max, sum);
        return;
    }
    const kern_view all = kern_seen_by_some(l);
    const int64_t first = all.first / KERN_WEIGHTS, end = kern_blocks(all.end);
    vnni_weights g;
    g.l = l, g.ld = ld, g.ldq = l->ldq, g.stride = 4 * l->page_keys, g.n_groups = l->n_groups, g.waiting.rows = 0;
    vnni_weights_table(g.code);
    for (int64_t b = first; b < end; b++) {
        const int64_t page = b * KERN_WEIGHTS / l->page_keys, at = b * KERN_WEIGHTS % l->page_keys;
        g.k[b] = l->k[page] + 4 * at, g.k_scale[b] = l->k_scale[page] + at, g.v_level[b] = l->v_level[page] + at;
    }
    if (end - first == WEIGHTS_BLOCKS)
        vnni_weights_all_values(&g);
    else
        for (int64_t b = first; b < end; b++) vnni_weights_values(g.v_level[b], ~(__mmask64)0, &g.block[b]);
    for (g.row = 0; g.row < l->rows;
         g.row += WEIGHTS_ROWS, scale += WEIGHTS_ROWS, max += WEIGHTS_ROWS, sum += WEIGHTS_ROWS) {
        const int64_t n = l->rows - g.row < WEIGHTS_ROWS ? l->rows - g.row : WEIGHTS_ROWS;
        kern_view whole = {0, KERN_RANGE};
        g.codes = codes + g.row * ld, g.q = l->q + g.row * l->ldq;
        for (int64_t r = 0; r < n; r++) {
            const kern_view seen = l->seen[g.row + r];
            if (seen.first > whole.first) whole.first = seen.first;
            if (seen.end < whole.end) whole.end = seen.end;
            g.a[r] = (l->cap > 0 ? 1 : l->q_scale[g.row + r]) * KERN_WEIGHT_STEPS;
            if (r % 4 == 0) vnni_weights_start(l, g.row + r, g.start + r);
        }
        for (int64_t b = first; b < end; b++) {
            int64_t r = 0;
            g.whole[b] = kern_all_seen(kern_seen_of(b, whole.first, whole.end)) && l->cap <= 0;
            for (; r + WEIGHTS_TILE <= n && l->n_groups == 16; r += WEIGHTS_TILE) vnni_weights_tile_4_64(&g, r, b);
            for (; r + WEIGHTS_TILE <= n; r += WEIGHTS_TILE) vnni_weights_tile_4(&g, r, b);
            for (; r < n; r++) vnni_weights_tile_1(&g, r, b);
        }
        if (g.waiting.rows) {
            __m512i sums[WEIGHTS_TILE];
            vnni_weights_tops(&g.waiting);
            for (int r = 0; r < WEIGHTS_TILE; r++) sums[r] = vnni_weights_row(&g, r);
            vnni_weights_sums(&g.waiting, sums);
        }
        vnni_weights_end(&g, n, first, end, scale, ld_scale, max, sum);
    }
}

/* ---- weights of keys by their values ------------------------------------------------------------------------------
 */

typedef struct vnni_pv {
    const int8_t *p; /* [rows][ldp], 0..127 */
    const float *scale;
    const int8_t *const *v;
    int64_t ldp, ld_scale, page_keys, first, head_dim, ldo;
    float *o;
    int64_t d;      /* the first dimension of a tile */
    __mmask16 mask; /* of the last vector of dimensions */
} vnni_pv;

/* NR rows by NV vectors of 16 dimensions, one block of keys. */
VNNI_ATTENTION_INLINE void vnni_pv_tile(const int NR, const int NV, const vnni_pv *g, int64_t b, int64_t row,
                                        __mmask16 before) {
    const int8_t *p = g->p + row * g->ldp + b * KERN_WEIGHTS;
    int64_t page = b * KERN_WEIGHTS / g->page_keys, key = b * KERN_WEIGHTS % g->page_keys;
    __m512i acc[4 * 4];
    KERN_UNROLL
    for (int i = 0; i < NR * NV; i++) acc[i] = _mm512_setzero_si512();
    for (int64_t j = 0; j < KERN_WEIGHTS; j += 16) { /* 16 keys are in one page */
        const int8_t *v = g->v[page] + key * g->head_dim + 4 * g->d;
        KERN_UNROLL
        for (int i = 0; i < 4; i++, v += 4 * g->head_dim, p += 4) {
            __m512i value[4];
            KERN_UNROLL
            for (int h = 0; h < NV; h++) {
                const __mmask16 mask = h == NV - 1 ? g->mask : (__mmask16)0xffff;
                value[h] = _mm512_maskz_loadu_epi32(mask, v + 64 * h);
            }
            KERN_UNROLL
            for (int r = 0; r < NR; r++) {
                const __m512i four = vnni_attention_four(p + r * g->ldp);
                KERN_UNROLL
                for (int h = 0; h < NV; h++) vnni_attention_add(&acc[r * NV + h], four, value[h]);
            }
        }
        key += 16;
        if (key == g->page_keys) page++, key = 0;
    }
    KERN_UNROLL
    for (int i = 0; i < NR * NV; i++) {
        const __mmask16 mask = i % NV == NV - 1 ? g->mask : (__mmask16)0xffff;
        float *o = g->o + (row + i / NV) * g->ldo + g->d + i % NV * 16;
        const __m512 scale = _mm512_set1_ps(g->scale[b * g->ld_scale + row + i / NV]);
        const __m512 sum = _mm512_maskz_loadu_ps(mask & before, o);
        _mm512_mask_storeu_ps(o, mask, _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[i]), scale, sum));
    }
}

VNNI_ATTENTION_INLINE void vnni_pv_rows(const int NV, const vnni_pv *g, int64_t end, int64_t n_q) {
    __mmask16 before = 0; /* of the blocks before there are sums, in o */
    for (int64_t b = g->first; b < end; b++, before = 0xffff) {
        int64_t r = 0;
        for (; r + 4 <= n_q; r += 4) vnni_pv_tile(4, NV, g, b, r, before);
        for (; r < n_q; r++) vnni_pv_tile(1, NV, g, b, r, before);
    }
}

VNNI_ATTENTION_TARGET static void vnni_pv_q8(const int8_t *p, int64_t ldp, const float *scale, int64_t ld_scale,
                                             int64_t n_q, const int8_t *const *v, int64_t page_keys, int64_t first,
                                             int64_t end, int64_t head_dim, float *o, int64_t ldo) {
    vnni_pv g = {.p = p,
                 .scale = scale,
                 .v = v,
                 .ldp = ldp,
                 .ld_scale = ld_scale,
                 .page_keys = page_keys,
                 .first = first,
                 .head_dim = head_dim,
                 .ldo = ldo,
                 .o = o};
    while (g.d < head_dim) {
        const int64_t left = head_dim - g.d;
        const int vectors = vnni_attention_vectors(left);
        g.mask = avx512_mask(left - 16 * (vectors - 1));
        if (vectors == 4)
            vnni_pv_rows(4, &g, end, n_q);
        else if (vectors == 2)
            vnni_pv_rows(2, &g, end, n_q);
        else
            vnni_pv_rows(1, &g, end, n_q);
        g.d += 16 * vectors;
    }
}

void kern_table_avx512vnni_attention(kern_table *table) {
    if (__builtin_cpu_supports("avx512vbmi")) table->weights_q8 = vnni_weights_q8;
    table->pv_q8 = vnni_pv_q8;
}

#endif
