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

/* ---- scores: rows of queries by keys ------------------------------------------------------------------------------
 */

typedef struct vnni_qk {
    const int8_t *q, *k; /* k of the first key of a tile */
    const float *k_scale;
    float *s, *top; /* top of the block of a tile */
    int64_t ldq, ldk, n_groups, lds;
    int begins;           /* 1: nothing of the block has been seen yet */
    __mmask16 mask;       /* of the last vector of keys */
    const int32_t *start; /* [rows], see vnni_qk_start() */
} vnni_qk;

/* Codes of keys get an offset of 128, because the instruction wants one side without sign; a sum starts with what pays
 * for it. Here for rows r .. r + 3 of n_q. */
VNNI_ATTENTION_INLINE void vnni_qk_start(const vnni_qk *g, int64_t r, int64_t n_q, int32_t *start) {
    const int64_t n = 4 * g->n_groups;
    __m512i sum[4];
    KERN_UNROLL
    for (int i = 0; i < 4; i++) {
        sum[i] = _mm512_setzero_si512();
        for (int64_t d = 0; d < n && r + i < n_q; d += 64) {
            const __mmask64 there = n - d >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << (n - d)) - 1;
            const __m512i codes = _mm512_maskz_loadu_epi8(there, g->q + (r + i) * g->ldq + d);
            vnni_attention_add(&sum[i], _mm512_set1_epi8((char)0x80), codes);
        }
    }
    const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(sum[0], sum[1]), _mm512_unpackhi_epi32(sum[0], sum[1]));
    const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(sum[2], sum[3]), _mm512_unpackhi_epi32(sum[2], sum[3]));
    const __m512i c = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    const __m256i d = _mm256_add_epi32(_mm512_castsi512_si256(c), _mm512_extracti64x4_epi64(c, 1));
    const __m128i e = _mm_add_epi32(_mm256_castsi256_si128(d), _mm256_extracti128_si256(d, 1));
    _mm_storeu_si128((void *)(start + r), _mm_sub_epi32(_mm_setzero_si128(), e));
}

/* The largest scores of NR rows, at most 4, lane by lane, go into those of the block; a zero is +0. */
VNNI_ATTENTION_INLINE void vnni_qk_top(const int NR, const vnni_qk *g, int64_t row, __m512 *largest) {
    const __mmask8 rows = (1 << NR) - 1;
    KERN_UNROLL
    for (int r = NR; r < 4; r++) largest[r] = largest[0];
    __m128 top = _mm_add_ps(avx512_four_folded(avx512_larger, largest), _mm_setzero_ps());
    if (!g->begins) top = _mm_max_ps(top, _mm_maskz_loadu_ps(rows, g->top + row));
    _mm_mask_storeu_ps(g->top + row, rows, top);
}

/* NR rows by NV vectors of 16 keys. */
VNNI_ATTENTION_INLINE void vnni_qk_tile(const int NR, const int NV, const vnni_qk *g, int64_t row) {
    const __m512i offset = _mm512_set1_epi8((char)0x80);
    const int8_t *q = g->q + row * g->ldq, *k = g->k;
    __m512i acc[8 * 2];
    KERN_UNROLL
    for (int i = 0; i < NR * NV; i++) acc[i] = _mm512_set1_epi32(g->start[row + i / NV]);
    for (int64_t d = 0; d < g->n_groups; d++, k += 4 * g->ldk) {
        __m512i key[4];
        KERN_UNROLL
        for (int v = 0; v < NV; v++) {
            const __mmask16 mask = v == NV - 1 ? g->mask : (__mmask16)0xffff;
            key[v] = _mm512_xor_si512(_mm512_maskz_loadu_epi32(mask, k + 64 * v), offset);
        }
        KERN_UNROLL
        for (int r = 0; r < NR; r++) {
            const __m512i four = vnni_attention_four(q + r * g->ldq + 4 * d);
            KERN_UNROLL
            for (int v = 0; v < NV; v++) vnni_attention_add(&acc[r * NV + v], key[v], four);
        }
    }
    __m512 largest[4];
    KERN_UNROLL
    for (int r = 0; r < NR; r++) {
        largest[r % 4] = _mm512_set1_ps(-INFINITY);
        KERN_UNROLL
        for (int v = 0; v < NV; v++) {
            const __mmask16 mask = v == NV - 1 ? g->mask : (__mmask16)0xffff;
            const __m512 k_scale = _mm512_maskz_loadu_ps(mask, g->k_scale + 16 * v);
            const __m512 s = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[r * NV + v]), k_scale);
            _mm512_mask_storeu_ps(g->s + (row + r) * g->lds + 16 * v, mask, s);
            largest[r % 4] = _mm512_mask_max_ps(largest[r % 4], mask, largest[r % 4], s);
        }
        if (r % 4 == 3 || r == NR - 1) vnni_qk_top(r % 4 + 1, g, row + r / 4 * 4, largest);
    }
}

VNNI_ATTENTION_INLINE void vnni_qk_rows(const int NV, const vnni_qk *g, int64_t n_q) {
    int64_t r = 0;
    if (NV < 4)
        for (; r + 8 <= n_q; r += 8) vnni_qk_tile(8, NV, g, r);
    for (; r + 4 <= n_q; r += 4) vnni_qk_tile(4, NV, g, r);
    for (; r < n_q; r++) vnni_qk_tile(1, NV, g, r);
}

VNNI_ATTENTION_TARGET static void vnni_qk_q8(const int8_t *q, int64_t ldq, int64_t n_q, const int8_t *const *k,
                                             int64_t page_keys, const float *k_scale, int64_t first, int64_t end,
                                             int64_t n_groups, float *s, int64_t lds, float *top, int64_t ld_top) {
    enum { ROWS = 32 }; /* a multiple of 4 */
    int32_t start[ROWS];
    vnni_qk g = {.ldq = ldq, .ldk = page_keys, .n_groups = n_groups, .lds = lds, .start = start};
    for (int64_t row = 0; row < n_q; row += ROWS) {
        const int64_t rows = n_q - row < ROWS ? n_q - row : ROWS;
        g.q = q + row * ldq;
        for (int64_t r = 0; r < rows; r += 4) vnni_qk_start(&g, r, rows, start);
        for (int64_t j = first; j < end;) {
            const int64_t key = j % page_keys,
                          of_page = kern_least(page_keys - key, end - j, KERN_WEIGHTS - j % KERN_WEIGHTS);
            const int vectors = vnni_attention_vectors(of_page);
            g.k = k[j / page_keys] + 4 * key, g.k_scale = k_scale + j, g.s = s + row * lds + j;
            g.top = top + j / KERN_WEIGHTS * ld_top + row, g.begins = j == first || j % KERN_WEIGHTS == 0;
            g.mask = avx512_mask(of_page - 16 * (vectors - 1));
            if (vectors == 4)
                vnni_qk_rows(4, &g, rows);
            else if (vectors == 2)
                vnni_qk_rows(2, &g, rows);
            else
                vnni_qk_rows(1, &g, rows);
            j += of_page < 16 * vectors ? of_page : 16 * vectors;
        }
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
VNNI_ATTENTION_INLINE void vnni_pv_tile(const int NR, const int NV, const vnni_pv *g, int64_t b, int64_t row) {
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
        const __m512 sum = b > g->first ? _mm512_maskz_loadu_ps(mask, o) : _mm512_setzero_ps();
        _mm512_mask_storeu_ps(o, mask, _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[i]), scale, sum));
    }
}

VNNI_ATTENTION_INLINE void vnni_pv_rows(const int NV, const vnni_pv *g, int64_t end, int64_t n_q) {
    for (int64_t b = g->first; b < end; b++) {
        int64_t r = 0;
        for (; r + 4 <= n_q; r += 4) vnni_pv_tile(4, NV, g, b, r);
        for (; r < n_q; r++) vnni_pv_tile(1, NV, g, b, r);
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
    table->qk_q8 = vnni_qk_q8;
    table->pv_q8 = vnni_pv_q8;
}

#endif
