/* avx512_attention.c: attention for AVX-512, but the products: those of float keys and values are in avx512.c beside
 * the float matrices, those of int8 in avx512vnni_attention.c. */
#include "../internal.h"

#if defined(KERN_X86)

#include "avx512_math.h"

#include <float.h>

AVX512_TARGET static void avx512_softmax_part(float *s, int64_t n, float *max, float *sum) {
    __m512 largest = _mm512_set1_ps(-INFINITY); /* vmaxps gives its second operand when one is NaN */
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 m = avx512_mask(n - i);
        largest = _mm512_mask_max_ps(largest, m, _mm512_maskz_loadu_ps(m, s + i), largest);
    }
    const float top = _mm512_reduce_max_ps(largest) + 0.0f; /* -0 becomes +0 */

    __m512 partial = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 m = avx512_mask(n - i);
        const __m512 e = avx512_exp(_mm512_sub_ps(_mm512_maskz_loadu_ps(m, s + i), _mm512_set1_ps(top)));
        _mm512_mask_storeu_ps(s + i, m, e);
        partial = _mm512_mask_add_ps(partial, m, partial, e);
    }
    *max = top;
    *sum = avx512_fold(partial);
}

AVX512_TARGET static void avx512_clean(const float *x, int64_t n, float *y, float *top) {
    const __m512 lowest = _mm512_set1_ps(-INFINITY), highest = _mm512_set1_ps(FLT_MAX);
    for (int64_t i = 0; i < n;) {
        const int64_t end = n - i < KERN_CLEAN ? n : i + KERN_CLEAN;
        __m512 largest = lowest;
        float *best = top + i / KERN_CLEAN;
        for (; i < end; i += 16) {
            const __mmask16 m = avx512_mask(end - i);
            const __m512 v = _mm512_maskz_loadu_ps(m, x + i);
            const __mmask16 is_number = _mm512_mask_cmp_ps_mask(m, v, _mm512_set1_ps(-FLT_MAX), _CMP_GE_OQ);
            const __m512 clean = _mm512_mask_min_ps(lowest, is_number, v, highest);
            _mm512_mask_storeu_ps(y + i, m, clean);
            largest = _mm512_max_ps(largest, clean);
        }
        i = end;
        *best = _mm512_reduce_max_ps(largest) + 0.0f;
    }
}

AVX512_TARGET static void avx512_weigh(const float *x, int64_t n, float max, float *w, float *sum, double *dot) {
    __m512 partial = _mm512_setzero_ps();
    __m512d low = _mm512_setzero_pd(), high = _mm512_setzero_pd(); /* lanes 0..7, 8..15 */
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 m = avx512_mask(n - i);
        const __m512 below = _mm512_sub_ps(_mm512_maskz_loadu_ps(m, x + i), _mm512_set1_ps(max));
        const __m512 e = avx512_exp(below);
        _mm512_mask_storeu_ps(w + i, m, e);
        partial = _mm512_mask_add_ps(partial, m, partial, e);
        const __mmask16 counts = _mm512_mask_cmp_ps_mask(m, e, _mm512_setzero_ps(), _CMP_GT_OQ);
        const __m512d e_low = _mm512_cvtps_pd(_mm512_castps512_ps256(e));
        const __m512d e_high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(e, 1));
        const __m512d below_low = _mm512_cvtps_pd(_mm512_castps512_ps256(below));
        const __m512d below_high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(below, 1));
        low = _mm512_mask3_fmadd_pd(e_low, below_low, low, (__mmask8)counts);
        high = _mm512_mask3_fmadd_pd(e_high, below_high, high, (__mmask8)(counts >> 8));
    }
    const __m512d a = _mm512_add_pd(low, high);
    const __m256d b = _mm256_add_pd(_mm512_castpd512_pd256(a), _mm512_extractf64x4_pd(a, 1));
    const __m128d c = _mm_add_pd(_mm256_castpd256_pd128(b), _mm256_extractf128_pd(b, 1));
    *sum = avx512_fold(partial);
    *dot = _mm_cvtsd_f64(_mm_add_sd(c, _mm_unpackhi_pd(c, c)));
}

AVX512_TARGET static void avx512_softmax_join(float *max, float *sum, float *o, float m2, float sum2, const float *o2,
                                              int64_t n) {
    const float m = *max > m2 ? *max : m2;
    const __m128 lanes = _mm_setr_ps(*max - m, m2 - m, 0, 0);
    const __m128 e = _mm512_castps512_ps128(avx512_exp(_mm512_zextps128_ps512(lanes)));
    const __m512 a = _mm512_broadcastss_ps(e), b = _mm512_broadcastss_ps(_mm_movehdup_ps(e));
    *sum = fmaf(*sum, _mm512_cvtss_f32(a), sum2 * _mm512_cvtss_f32(b));
    *max = m;
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 k = avx512_mask(n - i);
        const __m512 later = _mm512_mul_ps(_mm512_maskz_loadu_ps(k, o2 + i), b);
        _mm512_mask_storeu_ps(o + i, k, _mm512_fmadd_ps(_mm512_maskz_loadu_ps(k, o + i), a, later));
    }
}

/* ---- weights of int8 values -------------------------------------------------------------------------------------- */

/* Sixteen numbers of each of four vectors: lane i of the result is the largest of vector i. */
AVX512_INLINE __m128i avx512_four_tops(const __m512i *v) {
    const __m512i a = _mm512_max_epu32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    const __m512i b = _mm512_max_epu32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    const __m512i c = _mm512_max_epu32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    const __m256i d = _mm256_max_epu32(_mm512_castsi512_si256(c), _mm512_extracti64x4_epi64(c, 1));
    return _mm_max_epu32(_mm256_castsi256_si128(d), _mm256_extracti128_si256(d, 1));
}

/* Four blocks at a time, because what gives one number for a block costs hardly more for four. Where a scale is not
 * finite its product with a weight of 0 is not 0, which has to be mended: AVX2's version does, as it does the last
 * blocks. */
AVX512_TARGET static void avx512_quantize_weights(const float *p, const float *v_scale, int64_t n, int8_t *codes,
                                                  float *scale) {
    enum { BLOCKS = 4, NUMBERS = BLOCKS * KERN_BLOCK };
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (; n >= NUMBERS; n -= NUMBERS, p += NUMBERS, v_scale += NUMBERS, codes += NUMBERS, scale += BLOCKS) {
        __m512 w[2 * BLOCKS];
        __m512i top[BLOCKS], v[2 * BLOCKS];
        KERN_UNROLL
        for (int i = 0; i < 2 * BLOCKS; i++)
            w[i] = _mm512_mul_ps(_mm512_loadu_ps(p + 16 * i), _mm512_loadu_ps(v_scale + 16 * i));
        KERN_UNROLL
        for (int b = 0; b < BLOCKS; b++)
            top[b] = _mm512_max_epu32(_mm512_castps_si512(w[2 * b]), _mm512_castps_si512(w[2 * b + 1]));
        const __m128i tops = avx512_four_tops(top);
        if (_mm_cmpge_epu32_mask(tops, _mm_set1_epi32(0x7f800000))) {
            kern_avx2_quantize_weights(p, v_scale, NUMBERS, codes, scale);
            continue;
        }
        const __m128 amax = _mm_castsi128_ps(tops), top_code = _mm_set1_ps(127);
        const __mmask8 there = _mm_cmp_ps_mask(amax, _mm_set1_ps(KERN_AMAX_MIN), _CMP_GE_OQ);
        float inv[BLOCKS];
        _mm_storeu_ps(inv, _mm_maskz_div_ps(there, top_code, amax));
        _mm_storeu_ps(scale, _mm_maskz_div_ps(there, amax, top_code));
        KERN_UNROLL
        for (int i = 0; i < 2 * BLOCKS; i++) v[i] = _mm512_cvtps_epi32(_mm512_mul_ps(w[i], _mm512_set1_ps(inv[i / 2])));
        /* The packs work within 128-bit lanes; the permutation puts the groups of 4 in order. */
        KERN_UNROLL
        for (int i = 0; i < 2 * BLOCKS; i += 4) {
            const __m512i bytes =
                _mm512_packs_epi16(_mm512_packs_epi32(v[i], v[i + 1]), _mm512_packs_epi32(v[i + 2], v[i + 3]));
            _mm512_storeu_si512(codes + 16 * i, _mm512_permutexvar_epi32(order, bytes));
        }
    }
    if (n > 0) kern_avx2_quantize_weights(p, v_scale, n, codes, scale);
}

void kern_table_avx512_attention(kern_table *table) {
    table->quantize_weights = avx512_quantize_weights;
    table->softmax_part = avx512_softmax_part;
    table->clean = avx512_clean;
    table->weigh = avx512_weigh;
    table->softmax_join = avx512_softmax_join;
}

#endif
