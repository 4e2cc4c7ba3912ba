/* avx512_attention.c: attention for AVX-512, but the products: those of float keys and values are in avx512.c beside
 * the float matrices, those of int8 in avx512vnni_attention.c. */
#include "../internal.h"

#if defined(KERN_X86)

#include "avx512_math.h"

#include <float.h>

/* The largest number of a row, and the least. The least is looked for among the bits, where negative numbers are above
 * all others, and NaN above those: there are more ports for it. */
typedef struct avx512_span {
    __m512 largest, least;
} avx512_span;

AVX512_INLINE avx512_span avx512_no_span(void) {
    return (avx512_span){_mm512_set1_ps(-INFINITY), _mm512_setzero_ps()};
}

AVX512_INLINE void avx512_widen(avx512_span *span, __mmask16 m, __m512 v) {
    span->largest = _mm512_mask_max_ps(span->largest, m, v, span->largest); /* its second operand when one is NaN */
    span->least = avx512_larger_bits(span->least, _mm512_maskz_mov_ps(m, v));
}

/* Of NR rows, at most 4: max[r] and least[r], which may also be 0. */
AVX512_INLINE void avx512_span_ends(const int NR, const avx512_span *span, float *max, float *least) {
    const __mmask8 rows = (1 << NR) - 1;
    __m512 a[4], b[4];
    KERN_UNROLL
    for (int r = 0; r < 4; r++) a[r] = span[r < NR ? r : 0].largest, b[r] = span[r < NR ? r : 0].least;
    const __m128 zero = _mm_setzero_ps(); /* makes +0 of -0 */
    _mm_mask_storeu_ps(max, rows, _mm_add_ps(avx512_four_folded(avx512_larger, a), zero));
    _mm_mask_storeu_ps(least, rows, _mm_min_ps(zero, avx512_four_folded(avx512_larger_bits, b)));
}

AVX512_INLINE void avx512_softmax_max(const int NR, const float *s, int64_t lds, int64_t n, float *max, float *least) {
    avx512_span span[4];
    KERN_UNROLL
    for (int r = 0; r < NR; r++) span[r] = avx512_no_span();
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 m = avx512_mask(n - i);
        KERN_UNROLL
        for (int r = 0; r < NR; r++) avx512_widen(&span[r], m, _mm512_maskz_loadu_ps(m, s + r * lds + i));
    }
    avx512_span_ends(NR, span, max, least);
}

/* So many rows ahead; 4 would be 4 KB in the rows of a range, and two lines that far apart may share their place in a
 * first-level cache (on Zen 4 depending on the address). */
enum { AVX512_ROWS_AHEAD = 3 };

/* s[i] = exp(s[i] - *max), *sum is what they add up to; and the ends of the row `ahead`, if there is one. */
AVX512_INLINE void avx512_softmax_row(const int near, float *s, int64_t n, float *max, float *sum, const int look,
                                      int64_t ahead) {
    const __m512 top = _mm512_set1_ps(*max);
    __m512 partial = _mm512_setzero_ps(), e[2];
    avx512_span span = avx512_no_span();
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        KERN_UNROLL
        for (int h = 0; h < 2; h++) e[h] = _mm512_sub_ps(_mm512_loadu_ps(s + i + 16 * h), top);
        avx512_exp_below_1(2, near, e);
        KERN_UNROLL
        for (int h = 0; h < 2; h++) {
            _mm512_storeu_ps(s + i + 16 * h, e[h]);
            partial = _mm512_add_ps(partial, e[h]);
            if (look) avx512_widen(&span, 0xffff, _mm512_loadu_ps(s + ahead + i + 16 * h));
        }
    }
    for (; i < n; i += 16) {
        const __mmask16 m = avx512_mask(n - i);
        e[0] = _mm512_sub_ps(_mm512_maskz_loadu_ps(m, s + i), top);
        avx512_exp_below_1(1, near, e);
        _mm512_mask_storeu_ps(s + i, m, e[0]);
        partial = _mm512_mask_add_ps(partial, m, partial, e[0]);
        if (look) avx512_widen(&span, m, _mm512_maskz_loadu_ps(m, s + ahead + i));
    }
    *sum = avx512_fold(partial);
    if (look) avx512_span_ends(1, &span, max + AVX512_ROWS_AHEAD, sum + AVX512_ROWS_AHEAD);
}

/* What waits for the end of one row would hold up the next: the maxima are found some rows ahead, while ports are free.
 * Until its row's turn comes sum[r] is the least number, which tells whether exp comes to 0 or a subnormal number. */
AVX512_TARGET static void avx512_softmax_part(float *s, int64_t lds, int64_t n_rows, int64_t n, float *max,
                                              float *sum) {
    const int64_t ahead = AVX512_ROWS_AHEAD * lds;
    int64_t r = 0;
    if (n_rows >= AVX512_ROWS_AHEAD)
        avx512_softmax_max(AVX512_ROWS_AHEAD, s, lds, n, max, sum);
    else
        for (; r < n_rows; r++) avx512_softmax_max(1, s + r * lds, lds, n, max + r, sum + r);
    for (r = 0; r < n_rows; r++, s += lds, max++, sum++) {
        const int near = *sum - *max > -86, look = r + AVX512_ROWS_AHEAD < n_rows;
        if (near && look)
            avx512_softmax_row(1, s, n, max, sum, 1, ahead);
        else if (near)
            avx512_softmax_row(1, s, n, max, sum, 0, 0);
        else
            avx512_softmax_row(0, s, n, max, sum, 0, 0);
        if (!near && look) avx512_softmax_max(1, s + ahead, lds, n, max + AVX512_ROWS_AHEAD, sum + AVX512_ROWS_AHEAD);
    }
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

/* The exponentials of 16 rows at a time. */
AVX512_TARGET static void avx512_softmax_join(float *max, float *sum, float *o, const float *max2, const float *sum2,
                                              const float *o2, int64_t n_rows, int64_t n) {
    for (; n_rows > 0; n_rows -= 16, max += 16, sum += 16, max2 += 16, sum2 += 16) {
        const __mmask16 rows = avx512_mask(n_rows);
        const __m512 m1 = _mm512_maskz_loadu_ps(rows, max), m2 = _mm512_maskz_loadu_ps(rows, max2);
        const __m512 m = _mm512_max_ps(m1, m2); /* its second operand when one is NaN */
        __m512 e[2] = {_mm512_sub_ps(m1, m), _mm512_sub_ps(m2, m)};
        float a[16], b[16];
        avx512_exp_below_1(2, 0, e);
        _mm512_storeu_ps(a, e[0]);
        _mm512_storeu_ps(b, e[1]);
        _mm512_mask_storeu_ps(max, rows, m);
        const __m512 later = _mm512_mul_ps(_mm512_maskz_loadu_ps(rows, sum2), e[1]);
        _mm512_mask_storeu_ps(sum, rows, _mm512_fmadd_ps(_mm512_maskz_loadu_ps(rows, sum), e[0], later));
        for (int64_t r = 0; r < 16 && r < n_rows; r++, o += n, o2 += n)
            for (int64_t i = 0; i < n; i += 16) {
                const __mmask16 k = avx512_mask(n - i);
                const __m512 more = _mm512_mul_ps(_mm512_maskz_loadu_ps(k, o2 + i), _mm512_set1_ps(b[r]));
                const __m512 old = _mm512_maskz_loadu_ps(k, o + i);
                _mm512_mask_storeu_ps(o + i, k, _mm512_fmadd_ps(old, _mm512_set1_ps(a[r]), more));
            }
    }
}

void kern_table_avx512_attention(kern_table *table) {
    table->softmax_part = avx512_softmax_part;
    table->clean = avx512_clean;
    table->weigh = avx512_weigh;
    table->softmax_join = avx512_softmax_join;
}

#endif
