/* avx2_attention.c: attention for AVX2, but the products of float keys and values, which are in avx2.c beside the
 * float matrices. */
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

AVX2_TARGET static void avx2_softmax_part(float *s, int64_t n, float *max, float *sum) {
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

AVX2_TARGET static void avx2_softmax_join(float *max, float *sum, float *o, float m2, float sum2, const float *o2,
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

void kern_table_avx2_attention(kern_table *table) {
    table->softmax_part = avx2_softmax_part;
    table->softmax_join = avx2_softmax_join;
}

#endif
