/* avx2_attention.c: attention for AVX2, but the products of float keys and values, which are in avx2.c beside the
 * float matrices. */
#include <float.h>

#include "../internal.h"

#if defined(KERN_X86)

#include "avx2_math.h"

/* ---- softmax ----------------------------------------------------------------------------------------------------- */

/* The largest lane, none of which is NaN. */
AVX2_INLINE float avx2_max_lane(__m256 v) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

/* max(s[0..n)), NaN left out, a zero as +0 */
AVX2_INLINE float avx2_max(const float *s, int64_t n) {
    const __m256 lowest = _mm256_set1_ps(-INFINITY);
    __m256 largest[4] = {lowest, lowest, lowest, lowest}; /* vmaxps gives its second operand when one is NaN */
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) KERN_UNROLL
    for (int h = 0; h < 4; h++) largest[h] = _mm256_max_ps(_mm256_loadu_ps(s + i + 8 * h), largest[h]);
    for (; i + 8 <= n; i += 8) largest[0] = _mm256_max_ps(_mm256_loadu_ps(s + i), largest[0]);
    if (i < n) {
        const __m256i mask = avx2_mask(0, n - i);
        const __m256 rest = _mm256_blendv_ps(lowest, _mm256_maskload_ps(s + i, mask), _mm256_castsi256_ps(mask));
        largest[1] = _mm256_max_ps(rest, largest[1]);
    }
    const __m256 low = _mm256_max_ps(largest[0], largest[1]), high = _mm256_max_ps(largest[2], largest[3]);
    return avx2_max_lane(_mm256_max_ps(low, high)) + 0.0f;
}

AVX2_TARGET static void avx2_softmax_row(float *s, int64_t n, float *max, float *sum) {
    const float top = avx2_max(s, n);
    const __m256 tops = _mm256_set1_ps(top);
    __m256 partial[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256 e[4];
        KERN_UNROLL
        for (int h = 0; h < 4; h++) e[h] = _mm256_sub_ps(_mm256_loadu_ps(s + i + 8 * h), tops);
        avx2_exp_below_1(4, e);
        KERN_UNROLL
        for (int h = 0; h < 4; h++) {
            _mm256_storeu_ps(s + i + 8 * h, e[h]);
            partial[h % 2] = _mm256_add_ps(partial[h % 2], e[h]);
        }
    }
    for (int h = 0; i < n; i += 8, h ^= 1) {
        __m256 e = _mm256_sub_ps(avx2_load_n(s + i, n - i), tops);
        avx2_exp_below_1(1, &e);
        avx2_store_n(s + i, n - i, e);
        /* a lane that is not there adds +0 to a sum that is never -0: nothing */
        partial[h] = _mm256_add_ps(partial[h], _mm256_and_ps(e, _mm256_castsi256_ps(avx2_mask(0, n - i))));
    }
    *max = top;
    *sum = avx2_fold(partial[0], partial[1]);
}

AVX2_TARGET static void avx2_softmax_part(float *s, int64_t lds, int64_t n_rows, int64_t n, float *max, float *sum) {
    for (int64_t r = 0; r < n_rows; r++) avx2_softmax_row(s + r * lds, n, max + r, sum + r);
}

AVX2_TARGET static void avx2_clean(const float *x, int64_t n, float *y, float *top) {
    const __m256 lowest = _mm256_set1_ps(-INFINITY), highest = _mm256_set1_ps(FLT_MAX);
    for (int64_t i = 0; i < n;) {
        const int64_t end = n - i < KERN_CLEAN ? n : i + KERN_CLEAN;
        __m256 largest = lowest;
        float *best = top + i / KERN_CLEAN;
        for (; i < end; i += 8) {
            const __m256 v = avx2_load_n(x + i, end - i);
            const __m256 is_number = _mm256_cmp_ps(v, _mm256_set1_ps(-FLT_MAX), _CMP_GE_OQ);
            const __m256 clean = _mm256_blendv_ps(lowest, _mm256_min_ps(v, highest), is_number);
            avx2_store_n(y + i, end - i, clean);
            const __m256 there = _mm256_castsi256_ps(avx2_mask(0, end - i));
            largest = _mm256_max_ps(largest, end - i < 8 ? _mm256_blendv_ps(lowest, clean, there) : clean);
        }
        i = end;
        *best = avx2_max_lane(largest) + 0.0f;
    }
}

/* Lanes 0..3, 4..7, 8..11 and 12..15 of the products are product[0..3]. */
AVX2_TARGET static void avx2_weigh(const float *x, int64_t n, float max, float *w, float *sum, double *dot) {
    __m256 partial[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    __m256d product[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()};
    int64_t i = 0;
    for (; i < n; i += 16) {
        __m256 below[2], e[2];
        const int whole = i + 16 <= n;
        KERN_UNROLL
        for (int h = 0; h < 2; h++) {
            const int64_t left = n - i - 8 * h;
            const __m256 read = whole      ? _mm256_loadu_ps(x + i + 8 * h)
                                : left > 0 ? avx2_load_n(x + i + 8 * h, left)
                                           : _mm256_setzero_ps();
            below[h] = e[h] = _mm256_sub_ps(read, _mm256_set1_ps(max));
        }
        avx2_exp_below_1(2, e);
        KERN_UNROLL
        for (int h = 0; h < 2; h++) {
            const int64_t left = n - i - 8 * h;
            if (whole)
                _mm256_storeu_ps(w + i + 8 * h, e[h]);
            else if (left > 0)
                avx2_store_n(w + i + 8 * h, left, e[h]);
            /* a lane that is not there adds +0 to sums that are never -0: nothing */
            if (!whole)
                e[h] = left > 0 ? _mm256_and_ps(e[h], _mm256_castsi256_ps(avx2_mask(0, left))) : _mm256_setzero_ps();
            partial[h] = _mm256_add_ps(partial[h], e[h]);
            below[h] = _mm256_and_ps(below[h], _mm256_cmp_ps(e[h], _mm256_setzero_ps(), _CMP_GT_OQ));
            product[2 * h] = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(e[h])),
                                             _mm256_cvtps_pd(_mm256_castps256_ps128(below[h])), product[2 * h]);
            product[2 * h + 1] =
                _mm256_fmadd_pd(_mm256_cvtps_pd(_mm256_extractf128_ps(e[h], 1)),
                                _mm256_cvtps_pd(_mm256_extractf128_ps(below[h], 1)), product[2 * h + 1]);
        }
    }
    const __m256d b = _mm256_add_pd(_mm256_add_pd(product[0], product[2]), _mm256_add_pd(product[1], product[3]));
    const __m128d c = _mm_add_pd(_mm256_castpd256_pd128(b), _mm256_extractf128_pd(b, 1));
    *sum = avx2_fold(partial[0], partial[1]);
    *dot = _mm_cvtsd_f64(_mm_add_sd(c, _mm_unpackhi_pd(c, c)));
}

AVX2_TARGET static void avx2_join_row(float *max, float *sum, float *o, float m2, float sum2, const float *o2,
                                      int64_t n) {
    const float m = *max > m2 ? *max : m2;
    __m256 e = _mm256_setr_ps(*max - m, m2 - m, 0, 0, 0, 0, 0, 0);
    avx2_exp_below_1(1, &e);
    const __m128 pair = _mm256_castps256_ps128(e);
    const __m256 a = _mm256_broadcastss_ps(pair), b = _mm256_broadcastss_ps(_mm_movehdup_ps(pair));
    *sum = fmaf(*sum, _mm256_cvtss_f32(a), sum2 * _mm256_cvtss_f32(b));
    *max = m;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 later = _mm256_mul_ps(_mm256_loadu_ps(o2 + i), b);
        _mm256_storeu_ps(o + i, _mm256_fmadd_ps(_mm256_loadu_ps(o + i), a, later));
    }
    if (i < n) {
        const __m256 later = _mm256_mul_ps(avx2_load_n(o2 + i, n - i), b);
        avx2_store_n(o + i, n - i, _mm256_fmadd_ps(avx2_load_n(o + i, n - i), a, later));
    }
}

AVX2_TARGET static void avx2_softmax_join(float *max, float *sum, float *o, const float *max2, const float *sum2,
                                          const float *o2, int64_t n_rows, int64_t n) {
    for (int64_t r = 0; r < n_rows; r++) avx2_join_row(max + r, sum + r, o + r * n, max2[r], sum2[r], o2 + r * n, n);
}

/* ---- int8 keys and values ---------------------------------------------------------------------------------------- */

/* The sum is final here, lest gcc collects all products first, for which there are no registers. */
AVX2_INLINE __m256i avx2_settle(__m256i sum) {
    __asm__("" : "+x"(sum));
    return sum;
}

/* sum + products of 8 times 4 codes: a is not negative, and no pair of products passes 2 * 127 * 127 */
AVX2_INLINE __m256i avx2_add_products(__m256i sum, __m256i a, __m256i b) {
    const __m256i pairs = _mm256_maddubs_epi16(a, b);
    return avx2_settle(_mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
}

AVX2_INLINE __m256i avx2_four_codes(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}

/* As integers, the bits of |x| have the order of |x|, with infinity and then NaN at the top. */
AVX2_INLINE uint32_t avx2_top(__m256i bits) {
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1)));
}

AVX2_INLINE __m256i avx2_magnitude(__m256 x) {
    return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}

AVX2_TARGET static void avx2_quantize_row(const float *x, int64_t n, int8_t *codes, float *scale) {
    __m256i top = _mm256_setzero_si256();
    for (int64_t i = 0; i < n; i += 8) top = _mm256_max_epu32(top, avx2_magnitude(avx2_load_n(x + i, n - i)));
    const float inv = kern_code_scale(avx2_top(top), scale);
    if (inv == 0) {
        memset(codes, 0, (size_t)n);
        return;
    }
    for (int64_t i = 0; i < n; i += 8) {
        const __m256i v = _mm256_cvtps_epi32(_mm256_mul_ps(avx2_load_n(x + i, n - i), _mm256_set1_ps(inv)));
        const __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
        const __m128i bytes = _mm_packs_epi16(half, half);
        if (n - i >= 8)
            _mm_storel_epi64((void *)(codes + i), bytes);
        else
            memcpy(codes + i, &bytes, (size_t)(n - i));
    }
}

/* kern_pow2f() of four vectors, which advance step by step */
AVX2_INLINE void avx2_pow2_4(__m256 *x) {
#define STEP KERN_UNROLL for (int i = 0; i < 4; i++)
    const __m256i fraction = _mm256_set1_epi32(KERN_POW2_FRACTION), one = _mm256_set1_epi32(KERN_POW2_1);
    __m256i fixed[4];
    __m256 m[4], p[4];
    STEP fixed[i] = _mm256_max_epi32(_mm256_cvtps_epi32(x[i]), _mm256_set1_epi32(KERN_POW2_MIN));
    STEP m[i] = _mm256_castsi256_ps(_mm256_or_si256(_mm256_and_si256(fixed[i], fraction), one));
    STEP p[i] = _mm256_fmadd_ps(_mm256_set1_ps(KERN_POW2_C3), m[i], _mm256_set1_ps(KERN_POW2_C2));
    STEP p[i] = _mm256_fmadd_ps(p[i], m[i], _mm256_set1_ps(KERN_POW2_C1));
    STEP p[i] = _mm256_fmadd_ps(p[i], m[i], _mm256_set1_ps(KERN_POW2_C0));
    STEP x[i] = _mm256_xor_ps(_mm256_xor_ps(_mm256_castsi256_ps(fixed[i]), m[i]), p[i]);
#undef STEP
}

/* Codes of 32 weights, which are multiplied with `code` first */
AVX2_INLINE void avx2_weight_codes(const __m256 *p, const float *code, int8_t *codes) {
    __m256i v[4];
    KERN_UNROLL
    for (int i = 0; i < 4; i++) v[i] = _mm256_cvtps_epi32(_mm256_mul_ps(p[i], _mm256_loadu_ps(code + 8 * i)));
    /* The packs work within 128-bit halves; the permutation puts the groups of 4 in order. */
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256((void *)codes, _mm256_permutevar8x32_epi32(bytes, order));
}

AVX2_TARGET void kern_avx2_value_codes(const float *scale, int64_t first, int64_t end, float *code, float *top) {
    enum { N = KERN_WEIGHTS / 8 };
    __m256 v[N];
    __m256i most = _mm256_setzero_si256();
    KERN_UNROLL
    for (int i = 0; i < N; i++) {
        v[i] = _mm256_maskload_ps(scale + 8 * i, avx2_mask(first - 8 * i, end - 8 * i));
        most = _mm256_max_epu32(most, _mm256_castps_si256(v[i]));
    }
    const float inv = kern_code_scale(avx2_top(most), top);
    KERN_UNROLL
    for (int i = 0; i < N; i++)
        _mm256_storeu_ps(code + 8 * i, inv == 0 ? _mm256_setzero_ps() : _mm256_mul_ps(v[i], _mm256_set1_ps(inv)));
}

/* Codes of a block of a row, whose keys are all seen, or those of k; total += e * the lanes of the sum of its weights
 */
AVX2_INLINE void avx2_softmax_block(const int whole, const float *s, kern_seen k, float a, float z, float e,
                                    const float *code, int8_t *codes, __m256 *total) {
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int i = 0; i < KERN_WEIGHTS; i += 32) {
        __m256 p[4];
        __m256i seen[4];
        KERN_UNROLL
        for (int h = 0; h < 4; h++) {
            if (!whole) seen[h] = avx2_mask(k.first - i - 8 * h, k.end - i - 8 * h);
            const __m256 x = whole ? _mm256_loadu_ps(s + i + 8 * h) : _mm256_maskload_ps(s + i + 8 * h, seen[h]);
            p[h] = _mm256_fmadd_ps(x, _mm256_set1_ps(a), _mm256_set1_ps(z));
        }
        avx2_pow2_4(p);
        KERN_UNROLL
        for (int h = 0; h < 4; h++) {
            if (!whole) p[h] = _mm256_and_ps(p[h], _mm256_castsi256_ps(seen[h]));
            sum[h % 2] = _mm256_add_ps(sum[h % 2], p[h]);
        }
        avx2_weight_codes(p, code + i, codes + i);
    }
    KERN_UNROLL
    for (int h = 0; h < 2; h++) total[h] = _mm256_fmadd_ps(sum[h], _mm256_set1_ps(e), total[h]);
}

_Static_assert(KERN_RANGE / KERN_WEIGHTS <= 8, "the blocks of a range are a vector");

AVX2_TARGET static void avx2_softmax_q8_row(const float *s, const float *top, float *scale, int64_t ld_top,
                                            float q_scale, const kern_values *v, int64_t first, int64_t end,
                                            int8_t *codes, float *max, float *sum) {
    const int64_t block = first / KERN_WEIGHTS, stop = kern_blocks(end);
    const float a = q_scale * KERN_POW2_ONE;
    float t[8], e[8], m = -INFINITY; /* of all blocks of a range: a vector */
    __m256 total[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int b = 0; b < 8; b++) t[b] = -INFINITY;
    for (int64_t b = block; b < stop; b++) {
        const kern_seen k = kern_seen_of(b, first, end);
        t[b] = kern_all_seen(k) ? top[b * ld_top] : avx2_max(s + k.begin + k.first, k.end - k.first);
        if (t[b] > m) m = t[b];
    }
    __m256 below = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(t), _mm256_set1_ps(m)), _mm256_set1_ps(q_scale));
    avx2_exp_below_1(1, &below);
    _mm256_storeu_ps(e, below);
    for (int64_t b = block; b < stop; b++) {
        const kern_seen k = kern_seen_of(b, first, end);
        const float z = fmaf(-t[b], a, KERN_POW2_ZERO);
        float worth = v->top[b], some[KERN_WEIGHTS];
        if (kern_all_seen(k)) {
            avx2_softmax_block(1, s + k.begin, k, a, z, e[b], v->code + k.begin, codes + k.begin, total);
        } else {
            kern_avx2_value_codes(v->scale + k.begin, k.first, k.end, some, &worth);
            avx2_softmax_block(0, s + k.begin, k, a, z, e[b], some, codes + k.begin, total);
        }
        scale[b * ld_top] = e[b] * worth;
    }
    *max = m * q_scale;
    *sum = avx2_fold(total[0], total[1]) + (*max - *max);
}

AVX2_TARGET static void avx2_softmax_q8(const float *s, int64_t lds, int64_t n_rows, const float *top, int64_t ld_top,
                                        const float *q_scale, const kern_values *v, int64_t first, int64_t end,
                                        int8_t *codes, float *scale, float *max, float *sum) {
    for (int64_t r = 0; r < n_rows; r++)
        avx2_softmax_q8_row(s + r * lds, top + r, scale + r, ld_top, q_scale[r], v, first, end, codes + r * lds,
                            max + r, sum + r);
}

typedef struct avx2_qk8 {
    const int8_t *q, *k; /* [rows][ldq], [groups][ldk][4] */
    const float *k_scale;
    int64_t ldq, ldk, n_groups, lds, left; /* left: keys of the page and the block from here on */
    float *s, *top;                        /* top of the block of a tile */
    int begins;                            /* 1: nothing of the block has been seen yet */
} avx2_qk8;

/* NR rows by NV vectors of 8 keys, or by the last keys where there are fewer. The sign of a key's code goes over to the
 * query's, because vpmaddubsw wants one side without signs. */
AVX2_INLINE void avx2_qk8_tile(const int NR, const int NV, const int cut, const avx2_qk8 *g, int64_t row) {
    const int8_t *q = g->q + row * g->ldq, *k = g->k;
    const __m256i mask = cut ? avx2_mask(0, g->left) : _mm256_setzero_si256();
    __m256i acc[4 * 2];
    KERN_UNROLL
    for (int i = 0; i < NR * NV; i++) acc[i] = _mm256_setzero_si256();
    for (int64_t i = 0; i < g->n_groups; i++, q += 4, k += 4 * g->ldk) {
        __m256i key[2], size[2];
        KERN_UNROLL
        for (int v = 0; v < NV; v++) {
            key[v] =
                cut ? _mm256_maskload_epi32((const void *)k, mask) : _mm256_loadu_si256((const void *)(k + 32 * v));
            size[v] = _mm256_abs_epi8(key[v]);
        }
        KERN_UNROLL
        for (int r = 0; r < NR; r++) {
            const __m256i four = avx2_four_codes(q + r * g->ldq);
            KERN_UNROLL
            for (int v = 0; v < NV; v++)
                acc[r * NV + v] = avx2_add_products(acc[r * NV + v], size[v], _mm256_sign_epi8(four, key[v]));
        }
    }
    KERN_UNROLL
    for (int r = 0; r < NR; r++) {
        __m256 largest = _mm256_set1_ps(-INFINITY);
        KERN_UNROLL
        for (int v = 0; v < NV; v++) {
            const __m256 k_scale = avx2_load_n(g->k_scale + v * 8, cut ? g->left : 8);
            const __m256 s = _mm256_mul_ps(_mm256_cvtepi32_ps(acc[r * NV + v]), k_scale);
            const __m256 there = cut ? _mm256_blendv_ps(largest, s, _mm256_castsi256_ps(avx2_mask(0, g->left))) : s;
            avx2_store_n(g->s + (row + r) * g->lds + v * 8, cut ? g->left : 8, s);
            largest = _mm256_max_ps(there, largest);
        }
        const float top = avx2_max_lane(largest) + 0.0f;
        if (g->begins || top > g->top[row + r]) g->top[row + r] = top;
    }
}

AVX2_INLINE void avx2_qk8_rows(const int NV, const int cut, const avx2_qk8 *g, int64_t n_q) {
    int64_t r = 0;
    for (; r + 4 <= n_q; r += 4) avx2_qk8_tile(4, NV, cut, g, r);
    for (; r < n_q; r++) avx2_qk8_tile(1, NV, cut, g, r);
}

AVX2_TARGET static void avx2_qk_q8(const int8_t *q, int64_t ldq, int64_t n_q, const int8_t *const *k, int64_t page_keys,
                                   const float *k_scale, int64_t first, int64_t end, int64_t n_groups, float *s,
                                   int64_t lds, float *top, int64_t ld_top) {
    avx2_qk8 g = {.q = q, .ldq = ldq, .ldk = page_keys, .n_groups = n_groups, .lds = lds};
    for (int64_t j = first; j < end;) {
        const int64_t key = j % page_keys;
        g.k = k[j / page_keys] + 4 * key, g.k_scale = k_scale + j, g.s = s + j;
        g.top = top + j / KERN_WEIGHTS * ld_top, g.begins = j == first || j % KERN_WEIGHTS == 0;
        g.left = kern_least(page_keys - key, end - j, KERN_WEIGHTS - j % KERN_WEIGHTS);
        if (g.left >= 16) {
            avx2_qk8_rows(2, 0, &g, n_q);
            j += 16;
        } else {
            avx2_qk8_rows(1, 1, &g, n_q);
            j += g.left < 8 ? g.left : 8;
        }
    }
}

typedef struct avx2_pv8 {
    const int8_t *p; /* [rows][ldp] */
    const float *scale;
    const int8_t *const *v;
    int64_t ldp, ld_scale, page_keys, first, end, head_dim, ldo;
    float *o;
    int64_t d, left; /* dimension, and how many there are from it on */
} avx2_pv8;

/* NR rows by NV vectors of 8 dimensions, or by the last ones where there are fewer. */
AVX2_INLINE void avx2_pv8_tile(const int NR, const int NV, const int cut, const avx2_pv8 *g, int64_t row) {
    const __m256i mask = cut ? avx2_mask(0, g->left) : _mm256_setzero_si256();
    for (int64_t b = g->first; b < g->end; b++) {
        __m256i acc[4 * 2];
        KERN_UNROLL
        for (int i = 0; i < NR * NV; i++) acc[i] = _mm256_setzero_si256();
        for (int64_t j = b * KERN_WEIGHTS; j < (b + 1) * KERN_WEIGHTS; j += 16) {
            const int8_t *v = g->v[j / g->page_keys] + j % g->page_keys * g->head_dim + 4 * g->d;
            const int8_t *p = g->p + row * g->ldp + j;
            KERN_UNROLL
            for (int i = 0; i < 4; i++, v += 4 * g->head_dim, p += 4) {
                __m256i value[2];
                KERN_UNROLL
                for (int h = 0; h < NV; h++)
                    value[h] = cut ? _mm256_maskload_epi32((const void *)v, mask)
                                   : _mm256_loadu_si256((const void *)(v + 32 * h));
                KERN_UNROLL
                for (int r = 0; r < NR; r++) {
                    const __m256i four = avx2_four_codes(p + r * g->ldp);
                    KERN_UNROLL
                    for (int h = 0; h < NV; h++) acc[r * NV + h] = avx2_add_products(acc[r * NV + h], four, value[h]);
                }
            }
        }
        KERN_UNROLL
        for (int i = 0; i < NR * NV; i++) {
            const __m256 scale = _mm256_set1_ps(g->scale[b * g->ld_scale + row + i / NV]);
            float *o = g->o + (row + i / NV) * g->ldo + g->d + i % NV * 8;
            const __m256 old = b > g->first ? avx2_load_n(o, cut ? g->left : 8) : _mm256_setzero_ps();
            avx2_store_n(o, cut ? g->left : 8, _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[i]), scale, old));
        }
    }
}

AVX2_INLINE void avx2_pv8_rows(const int NV, const int cut, const avx2_pv8 *g, int64_t n_q) {
    int64_t r = 0;
    for (; r + 4 <= n_q; r += 4) avx2_pv8_tile(4, NV, cut, g, r);
    for (; r < n_q; r++) avx2_pv8_tile(1, NV, cut, g, r);
}

AVX2_TARGET static void avx2_pv_q8(const int8_t *p, int64_t ldp, const float *scale, int64_t ld_scale, int64_t n_q,
                                   const int8_t *const *v, int64_t page_keys, int64_t first, int64_t end,
                                   int64_t head_dim, float *o, int64_t ldo) {
    avx2_pv8 g = {.p = p,
                  .scale = scale,
                  .v = v,
                  .ldp = ldp,
                  .ld_scale = ld_scale,
                  .page_keys = page_keys,
                  .first = first,
                  .end = end,
                  .head_dim = head_dim,
                  .ldo = ldo,
                  .o = o};
    for (g.d = 0; g.d < head_dim;) {
        g.left = head_dim - g.d;
        if (g.left >= 16) {
            avx2_pv8_rows(2, 0, &g, n_q);
            g.d += 16;
        } else {
            avx2_pv8_rows(1, 1, &g, n_q);
            g.d += 8;
        }
    }
}

void kern_table_avx2_attention(kern_table *table) {
    table->softmax_part = avx2_softmax_part;
    table->clean = avx2_clean;
    table->weigh = avx2_weigh;
    table->softmax_join = avx2_softmax_join;
    table->quantize_row = avx2_quantize_row;
    table->value_codes = kern_avx2_value_codes;
    table->softmax_q8 = avx2_softmax_q8;
    table->qk_q8 = avx2_qk_q8;
    table->pv_q8 = avx2_pv_q8;
}

#endif
