/* avx512_math.h: functions of 16 numbers that several of the files for AVX-512 need. */
#ifndef KERN_X86_AVX512_MATH_H
#define KERN_X86_AVX512_MATH_H

#include "avx512.h"

#include <math.h>

/* kern_expf() of 16 values */
AVX512_INLINE __m512 avx512_exp(__m512 x) {
    const __m512 round = _mm512_set1_ps(KERN_EXP_ROUND);
    const __m512 rounded = _mm512_fmadd_ps(x, _mm512_set1_ps(KERN_EXP_LOG2E), round);
    const __m512 n = _mm512_sub_ps(rounded, round);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(KERN_EXP_LN2HI), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(KERN_EXP_LN2LO), r);

    __m512 p = _mm512_set1_ps(KERN_EXP_C6);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(KERN_EXP_C5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(KERN_EXP_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(KERN_EXP_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(KERN_EXP_C2));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));

    const __m512 power = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(rounded), 23));
    const __mmask16 not_below = _mm512_cmp_ps_mask(x, _mm512_set1_ps(KERN_EXP_MIN), _CMP_NLT_UQ); /* or NaN */
    const __mmask16 above = _mm512_cmp_ps_mask(x, _mm512_set1_ps(KERN_EXP_MAX), _CMP_GT_OQ);
    return _mm512_mask_mov_ps(_mm512_maskz_mul_ps(not_below, p, power), above, _mm512_set1_ps(INFINITY));
}

/* kern_expf() of N vectors, at most 2, whose values are not above 0 (or NaN), so that nothing becomes infinite; with
 * `near` they are not below -86 either, so that nothing becomes 0 or subnormal. The vectors advance step by step, as in
 * avx2_math.h. */
AVX512_INLINE void avx512_exp_below_1(const int N, const int near, __m512 *x) {
#define STEP KERN_UNROLL for (int i = 0; i < N; i++)
    const __m512 round = _mm512_set1_ps(KERN_EXP_ROUND);
    __m512 rounded[2], n[2], r[2], p[2];
    STEP rounded[i] = _mm512_fmadd_ps(x[i], _mm512_set1_ps(KERN_EXP_LOG2E), round);
    STEP n[i] = _mm512_sub_ps(rounded[i], round);
    STEP r[i] = _mm512_fnmadd_ps(n[i], _mm512_set1_ps(KERN_EXP_LN2HI), x[i]);
    STEP r[i] = _mm512_fnmadd_ps(n[i], _mm512_set1_ps(KERN_EXP_LN2LO), r[i]);
    STEP p[i] = _mm512_fmadd_ps(_mm512_set1_ps(KERN_EXP_C6), r[i], _mm512_set1_ps(KERN_EXP_C5));
    STEP p[i] = _mm512_fmadd_ps(p[i], r[i], _mm512_set1_ps(KERN_EXP_C4));
    STEP p[i] = _mm512_fmadd_ps(p[i], r[i], _mm512_set1_ps(KERN_EXP_C3));
    STEP p[i] = _mm512_fmadd_ps(p[i], r[i], _mm512_set1_ps(KERN_EXP_C2));
    STEP p[i] = _mm512_fmadd_ps(p[i], r[i], _mm512_set1_ps(1.0f));
    STEP p[i] = _mm512_fmadd_ps(p[i], r[i], _mm512_set1_ps(1.0f));
    STEP {
        if (near) {
            x[i] = _mm512_scalef_ps(p[i], n[i]); /* neither the ports nor the comparison of a multiplication */
        } else {
            const __m512 power = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(rounded[i]), 23));
            const __mmask16 there = _mm512_cmp_ps_mask(x[i], _mm512_set1_ps(KERN_EXP_MIN), _CMP_NLT_UQ); /* or NaN */
            x[i] = _mm512_maskz_mul_ps(there, p[i], power);
        }
    }
#undef STEP
}

/* kern_tanhf() of 16 values */
AVX512_INLINE __m512 avx512_tanh(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f), two = _mm512_set1_ps(2.0f), minus = _mm512_set1_ps(-0.0f);
    const __m512 a = _mm512_andnot_ps(minus, x), z = _mm512_mul_ps(x, x);
    __m512 p = _mm512_set1_ps(KERN_TANH_C11);
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(KERN_TANH_C9));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(KERN_TANH_C7));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(KERN_TANH_C5));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(KERN_TANH_C3));
    const __m512 small = _mm512_fmadd_ps(_mm512_mul_ps(x, z), p, x);
    const __m512 e = avx512_exp(_mm512_add_ps(a, a));
    const __m512 large = _mm512_sub_ps(one, _mm512_div_ps(two, _mm512_add_ps(e, one)));
    const __mmask16 is_small = _mm512_cmp_ps_mask(a, _mm512_set1_ps(KERN_TANH_SMALL), _CMP_LT_OQ);
    return _mm512_mask_mov_ps(_mm512_or_ps(large, _mm512_and_ps(x, minus)), is_small, small);
}

/* softcap() of 16 values */
AVX512_INLINE __m512 avx512_capped(__m512 x, float cap) {
    return _mm512_mul_ps(_mm512_set1_ps(cap), avx512_tanh(_mm512_mul_ps(x, _mm512_set1_ps(1.0f / cap))));
}

/* The tree that ends a reduction: a[i] += a[i + 8], then 4, 2, 1. */
AVX512_INLINE float avx512_fold(__m512 a) {
    const __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

/* ---- sixteen numbers that become one -------------------------------------------------------------------------------
 */

typedef __m512 avx512_choice(__m512, __m512);

AVX512_INLINE __m512 avx512_larger(__m512 a, __m512 b) {
    return _mm512_max_ps(a, b);
}

/* The larger one as integers without sign */
AVX512_INLINE __m512 avx512_larger_bits(__m512 a, __m512 b) {
    return _mm512_castsi512_ps(_mm512_max_epu32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}

/* Lane i of the result is what is chosen among the sixteen numbers of v[i]. */
AVX512_INLINE __m128 avx512_four_folded(avx512_choice *choose, const __m512 *v) {
    const __m512 a = choose(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    const __m512 b = choose(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    const __m512 c = choose(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
    const __m512 d = choose(c, _mm512_shuffle_f32x4(c, c, 0x4e));
    return _mm512_castps512_ps128(choose(d, _mm512_shuffle_f32x4(d, d, 0xb1)));
}

#endif
