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

AVX2_INLINE uint32_t avx2_row_top(const float *x, int64_t n) {
    __m256i top = _mm256_setzero_si256();
    for (int64_t i = 0; i < n; i += 8) top = _mm256_max_epu32(top, avx2_magnitude(avx2_load_n(x + i, n - i)));
    return avx2_top(top);
}

AVX2_INLINE void avx2_row_codes(const float *x, int64_t n, float inv, int8_t *codes) {
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

AVX2_TARGET static void avx2_quantize_row(const float *x, int64_t n, int8_t *codes, float *scale) {
    avx2_row_codes(x, n, kern_code_scale(avx2_row_top(x, n), 127, scale), codes);
}

AVX2_TARGET static void avx2_quantize_value(const float *x, int64_t n, int8_t *codes, float *level) {
    avx2_row_codes(x, n, kern_value_level(avx2_row_top(x, n), 127, level), codes);
}

/* NR rows by 16 keys. The sign of a key's code goes over to the query's, because vpmaddubsw wants one side without
 * signs.
 */
AVX2_INLINE void avx2_scores_tile(const int NR, const int8_t *q, int64_t ldq, const int8_t *k, int64_t ldk,
                                  int64_t n_groups, const float *k_scale, float *s) {
    __m256i acc[4 * 2];
    KERN_UNROLL
    for (int i = 0; i < NR * 2; i++) acc[i] = _mm256_setzero_si256();
    for (int64_t i = 0; i < n_groups; i++, q += 4, k += 4 * ldk) {
        __m256i key[2], size[2];
        KERN_UNROLL
        for (int v = 0; v < 2; v++) {
            key[v] = _mm256_loadu_si256((const void *)(k + 32 * v));
            size[v] = _mm256_abs_epi8(key[v]);
        }
        KERN_UNROLL
        for (int r = 0; r < NR; r++) {
            const __m256i four = avx2_four_codes(q + r * ldq);
            KERN_UNROLL
            for (int v = 0; v < 2; v++)
                acc[r * 2 + v] = avx2_add_products(acc[r * 2 + v], size[v], _mm256_sign_epi8(four, key[v]));
        }
    }
    KERN_UNROLL
    for (int i = 0; i < NR * 2; i++) {
        const __m256 scale = _mm256_loadu_ps(k_scale + i % 2 * 8);
        _mm256_storeu_ps(s + i / 2 * KERN_RANGE + i % 2 * 8, _mm256_mul_ps(_mm256_cvtepi32_ps(acc[i]), scale));
    }
}

AVX2_TARGET static void avx2_scores_q8(const kern_look *l, int64_t row, int64_t n, const int8_t *k,
                                       const float *k_scale, float *s) {
    const int8_t *q = l->q + row * l->ldq;
    if (n == 4) {
        avx2_scores_tile(4, q, l->ldq, k, l->page_keys, l->n_groups, k_scale, s);
        return;
    }
    for (int64_t r = 0; r < n; r++)
        avx2_scores_tile(1, q + r * l->ldq, l->ldq, k, l->page_keys, l->n_groups, k_scale, s + r * KERN_RANGE);
}

AVX2_TARGET static void avx2_cap_scores(float *s, int64_t n, float q_scale, float cap) {
    for (int64_t i = 0; i < n; i += 8) {
        const __m256 x = _mm256_mul_ps(_mm256_loadu_ps(s + i), _mm256_set1_ps(q_scale));
        _mm256_storeu_ps(s + i, avx2_capped(x, cap));
    }
}

AVX2_TARGET static float avx2_largest(const float *s, int64_t n) {
    return avx2_max(s, n);
}

/* 32 integers as bytes, those below 0 as 0, those above 255 as 255. The packs work within 128-bit halves; the
 * permutation puts the groups of 4 in order. */
AVX2_INLINE __m256i avx2_to_bytes(const __m256i *v) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i low = _mm256_packs_epi32(v[0], v[1]), high = _mm256_packs_epi32(v[2], v[3]);
    return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
}

AVX2_TARGET static void avx2_block_values(const float *const *level, kern_seen k, kern_block_values *out) {
    enum { N = KERN_WEIGHTS / 8 };
    const __m256 least = _mm256_set1_ps(KERN_LEVEL_MIN);
    __m256 v[N], most = least, none = _mm256_setzero_ps();
    KERN_UNROLL
    for (int i = 0; i < N; i++) {
        const __m256i seen = avx2_mask(k.first - 8 * i, k.end - 8 * i);
        const __m256 x = _mm256_loadu_ps(level[i / 2] + i % 2 * 8);
        v[i] = _mm256_blendv_ps(least, x, _mm256_castsi256_ps(seen));
        none = _mm256_or_ps(none, _mm256_cmp_ps(v[i], v[i], _CMP_UNORD_Q));
        most = _mm256_max_ps(most, v[i]);
    }
    const int damaged = _mm256_movemask_ps(none);
    const float top = avx2_max_lane(most);
    out->worth = damaged ? kern_bits_to_f32(KERN_NAN_BITS) : kern_level_scale(top);
    for (int i = 0; i < N; i += 4) {
        __m256i down[4];
        KERN_UNROLL
        for (int h = 0; h < 4; h++) down[h] = _mm256_cvtps_epi32(_mm256_sub_ps(_mm256_set1_ps(top), v[i + h]));
        _mm256_storeu_si256((void *)(out->down + 8 * i), damaged ? _mm256_set1_epi8(-1) : avx2_to_bytes(down));
    }
}

/* kern_weight_code() of 32 numbers: the topmost 32 codes as a table, times 2^-n, rounded. */
AVX2_INLINE __m256i avx2_weight_code(__m256i y) {
    const __m128i *table = (const void *)kern_weight_32nds;
    const __m256i low = _mm256_broadcastsi128_si256(_mm_loadu_si128(table));
    const __m256i high = _mm256_broadcastsi128_si256(_mm_loadu_si128(table + 1));
    const __m256i powers =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(1, 2, 4, 8, 16, 32, 64, -128, 0, 0, 0, 0, 0, 0, 0, 0));
    const __m256i i = _mm256_and_si256(y, _mm256_set1_epi8(15)), even = _mm256_set1_epi16(255);
    const __m256i top = _mm256_blendv_epi8(_mm256_shuffle_epi8(low, i), _mm256_shuffle_epi8(high, i),
                                           _mm256_slli_epi16(y, 3)); /* by bit 4 */
    const __m256i p = _mm256_and_si256(_mm256_srli_epi16(y, 5), _mm256_set1_epi8(7));
    const __m256i power = _mm256_shuffle_epi8(powers, p), to_7 = _mm256_set1_epi16(256); /* (x + 64) / 128 */
    const __m256i a = _mm256_mulhrs_epi16(_mm256_maddubs_epi16(_mm256_and_si256(power, even), top), to_7);
    const __m256i b = _mm256_mulhrs_epi16(_mm256_maddubs_epi16(_mm256_andnot_si256(even, power), top), to_7);
    const __m256i code = _mm256_or_si256(a, _mm256_slli_epi16(b, 8));
    return _mm256_andnot_si256(_mm256_cmpeq_epi8(y, _mm256_setzero_si256()), code);
}

/* 255 for the bytes first <= i < end of 32 */
AVX2_INLINE __m256i avx2_seen_bytes(int64_t first, int64_t end) {
    const __m256i at = _mm256_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                        22, 23, 24, 25, 26, 27, 28, 29, 30, 31);
    const char low = (char)(first < 0 ? 0 : first > 32 ? 32 : first), high = (char)(end < 0 ? 0 : end > 32 ? 32 : end);
    return _mm256_andnot_si256(_mm256_cmpgt_epi8(_mm256_set1_epi8(low), at),
                               _mm256_cmpgt_epi8(_mm256_set1_epi8(high), at));
}

AVX2_TARGET static int32_t avx2_weight_codes(const float *s, kern_seen k, float a, float z, const uint8_t *down,
                                             int8_t *codes) {
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < KERN_WEIGHTS; i += 32) {
        __m256i y[4];
        KERN_UNROLL
        for (int h = 0; h < 4; h++) {
            const __m256 x = _mm256_loadu_ps(s + i + 8 * h);
            y[h] = _mm256_cvtps_epi32(_mm256_fmadd_ps(x, _mm256_set1_ps(a), _mm256_set1_ps(z)));
        }
        __m256i all = avx2_to_bytes(y);
        if (!kern_all_seen(k)) all = _mm256_and_si256(all, avx2_seen_bytes(k.first - i, k.end - i));
        const __m256i with_values = _mm256_subs_epu8(all, _mm256_loadu_si256((const void *)(down + i)));
        _mm256_storeu_si256((void *)(codes + i), avx2_weight_code(with_values));
        sum = _mm256_add_epi64(sum, _mm256_sad_epu8(avx2_weight_code(all), _mm256_setzero_si256()));
    }
    const __m128i half = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    return _mm_cvtsi128_si32(half) + _mm_extract_epi32(half, 2);
}

_Static_assert(KERN_RANGE / KERN_WEIGHTS <= 8, "the blocks of a range are a vector");

AVX2_TARGET static void avx2_few_exps(float *x, int64_t n) {
    __m256 e = avx2_load_n(x, n);
    avx2_exp_below_1(1, &e);
    avx2_store_n(x, n, e);
}

void kern_avx2_weights_q8(const kern_look *l, int8_t *codes, int64_t ld, float *scale, int64_t ld_scale, float *max,
                          float *sum) {
    static const kern_weights_steps steps = {avx2_scores_q8,    avx2_cap_scores,   avx2_largest,
                                             avx2_block_values, avx2_weight_codes, avx2_few_exps};
    kern_weights_by_steps(&steps, l, codes, ld, scale, ld_scale, max, sum);
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
    table->quantize_value = avx2_quantize_value;
    table->weights_q8 = kern_avx2_weights_q8;
    table->pv_q8 = avx2_pv_q8;
}

#endif
