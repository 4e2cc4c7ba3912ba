/* avx2_math.h: functions of 8 numbers that several of the files for AVX2 need. */
#ifndef KERN_X86_AVX2_MATH_H
#define KERN_X86_AVX2_MATH_H

#include "avx2_int.h"

#include <math.h>

/* kern_expf() of N vectors whose values are not above 0 (or NaN), so that nothing becomes infinite. The vectors advance
 * step by step: one alone would wait for itself most of the time, and a processor does not look far enough ahead to
 * find the next one. */
AVX2_INLINE void avx2_exp_below_1(const int N, __m256 *x) {
#define STEP KERN_UNROLL for (int i = 0; i < N; i++)
    const __m256 round = _mm256_set1_ps(KERN_EXP_ROUND);
    __m256 rounded[4], r[4], p[4], below[4];
    STEP below[i] = _mm256_cmp_ps(x[i], _mm256_set1_ps(KERN_EXP_MIN), _CMP_LT_OQ); /* false for NaN */
    STEP rounded[i] = _mm256_fmadd_ps(x[i], _mm256_set1_ps(KERN_EXP_LOG2E), round);
    STEP p[i] = _mm256_sub_ps(rounded[i], round); /* n */
    STEP r[i] = _mm256_fnmadd_ps(p[i], _mm256_set1_ps(KERN_EXP_LN2HI), x[i]);
    STEP r[i] = _mm256_fnmadd_ps(p[i], _mm256_set1_ps(KERN_EXP_LN2LO), r[i]);
    STEP p[i] = _mm256_fmadd_ps(_mm256_set1_ps(KERN_EXP_C6), r[i], _mm256_set1_ps(KERN_EXP_C5));
    STEP p[i] = _mm256_fmadd_ps(p[i], r[i], _mm256_set1_ps(KERN_EXP_C4));
    STEP p[i] = _mm256_fmadd_ps(p[i], r[i], _mm256_set1_ps(KERN_EXP_C3));
    STEP p[i] = _mm256_fmadd_ps(p[i], r[i], _mm256_set1_ps(KERN_EXP_C2));
    STEP p[i] = _mm256_fmadd_ps(p[i], r[i], _mm256_set1_ps(1.0f));
    STEP p[i] = _mm256_fmadd_ps(p[i], r[i], _mm256_set1_ps(1.0f));
    STEP rounded[i] = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(rounded[i]), 23));
    STEP x[i] = _mm256_andnot_ps(below[i], _mm256_mul_ps(p[i], rounded[i]));
#undef STEP
}

/* kern_expf() of 8 values */
AVX2_INLINE __m256 avx2_exp(__m256 x) {
    const __m256 above = _mm256_cmp_ps(x, _mm256_set1_ps(KERN_EXP_MAX), _CMP_GT_OQ); /* false for NaN */
    avx2_exp_below_1(1, &x);
    return _mm256_blendv_ps(x, _mm256_set1_ps(INFINITY), above);
}

/* kern_tanhf() of 8 values */
AVX2_INLINE __m256 avx2_tanh(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f), two = _mm256_set1_ps(2.0f), minus = _mm256_set1_ps(-0.0f);
    const __m256 a = _mm256_andnot_ps(minus, x), z = _mm256_mul_ps(x, x);
    __m256 p = _mm256_set1_ps(KERN_TANH_C11);
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(KERN_TANH_C9));
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(KERN_TANH_C7));
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(KERN_TANH_C5));
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(KERN_TANH_C3));
    const __m256 small = _mm256_fmadd_ps(_mm256_mul_ps(x, z), p, x);
    const __m256 e = avx2_exp(_mm256_add_ps(a, a));
    const __m256 large = _mm256_sub_ps(one, _mm256_div_ps(two, _mm256_add_ps(e, one)));
    const __m256 is_small = _mm256_cmp_ps(a, _mm256_set1_ps(KERN_TANH_SMALL), _CMP_LT_OQ);
    return _mm256_blendv_ps(_mm256_or_ps(large, _mm256_and_ps(x, minus)), small, is_small);
}

/* softcap() of 8 values */
AVX2_INLINE __m256 avx2_capped(__m256 x, float cap) {
    return _mm256_mul_ps(_mm256_set1_ps(cap), avx2_tanh(_mm256_mul_ps(x, _mm256_set1_ps(1.0f / cap))));
}

/* The tree that ends a reduction of 16 partial results: a[i] += a[i + 8], then 4, 2, 1. */
AVX2_INLINE float avx2_fold(__m256 low, __m256 high) {
    const __m256 b = _mm256_add_ps(low, high);
    const __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

#endif
