/* encode_search.c: the scales and minima with the smallest weighted squared error. See encode.h.
 *
 * For given codes the best scale (and minimum) is a matter of least squares; which codes, of trying: 16 candidates at a
 * time, a candidate in each lane of a vector. Sums over the numbers of a part are 16 interleaved ones, added by one
 * tree. So the instruction set decides the speed and not the result: everything below the two steps that are written
 * for it is compiled once for each. */
#include <string.h>

#include "encode_form.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { LANES = 16 };

#define ENCODE_INLINE static inline __attribute__((always_inline))

/* Half of the lanes, wherever they lie. */
typedef float encode_half __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t encode_mask __attribute__((vector_size(32)));
#define ENCODE_HALF(array, k)   (*(encode_half *)((array) + (k)))
#define ENCODE_PICK(mask, a, b) ((encode_half)(((encode_mask)(a) & (mask)) | ((encode_mask)(b) & ~(mask))))

/* For every lane, over the n numbers of a part: */
typedef struct encode_lanes {
    float inverse[LANES], min[LANES];     /* in: code = round((x + min) * inverse) */
    float scale[LANES];                   /* in, for `error` */
    float q[LANES], qq[LANES], xq[LANES]; /* sums of weight times q, q*q, x*q */
    float error[LANES];                   /* sum of weight times (x - (scale * q - min))^2 */
} encode_lanes;

/* The values of the nearest codes. */
static void encode_lanes_round(const encode_form *form, float x, const encode_lanes *l, float *q) {
    const float low = (float)form->low, high = (float)form->high;
    for (int k = 0; k < LANES; k++) {
        float y = (x + l->min[k]) * l->inverse[k];
        if (form->values) {
            q[k] = low;
            for (int i = 0; i < 15; i++) q[k] += y >= encode_iq4_border[i] ? encode_iq4_step[i] : 0;
            continue;
        }
        y = y > low ? y : low;
        y = y < high ? y : high;
        q[k] = (y + 0x1.8p23f) - 0x1.8p23f;
    }
}

static void encode_fit_plain(const encode_form *form, const float *x, const float *weight, int n, encode_lanes *l) {
    float q[LANES];
    for (int k = 0; k < LANES; k++) l->q[k] = l->qq[k] = l->xq[k] = 0;
    for (int i = 0; i < n; i++) {
        encode_lanes_round(form, x[i], l, q);
        for (int k = 0; k < LANES; k++) {
            const float wq = weight[i] * q[k];
            l->q[k] += wq;
            l->qq[k] += wq * q[k];
            l->xq[k] += wq * x[i];
        }
    }
}

static void encode_error_plain(const encode_form *form, const float *x, const float *weight, int n, encode_lanes *l) {
    float q[LANES];
    for (int k = 0; k < LANES; k++) l->error[k] = 0;
    for (int i = 0; i < n; i++) {
        encode_lanes_round(form, x[i], l, q);
        for (int k = 0; k < LANES; k++) {
            const float e = (x[i] + l->min[k]) - l->scale[k] * q[k];
            l->error[k] += weight[i] * (e * e);
        }
    }
}

/* The same with AVX2: the same operations in the same order, two vectors of lanes at a time. */
#if defined(__x86_64__)
#define ENCODE_AVX2 __attribute__((target("avx2")))

/* The values of encode_iq4 that are nearest: four comparisons, each with the middle border of those that are left. */
ENCODE_AVX2 static inline __m256 encode_table_avx2(__m256 y) {
    const float *b = encode_iq4_border;
    const __m256 two = _mm256_setr_ps(b[3], b[11], 0, 0, 0, 0, 0, 0);
    const __m256 four = _mm256_setr_ps(b[1], b[5], b[9], b[13], 0, 0, 0, 0);
    const __m256 eight = _mm256_setr_ps(b[0], b[2], b[4], b[6], b[8], b[10], b[12], b[14]);
    const __m256 even = _mm256_setr_ps(-127, -83, -49, -22, 1, 25, 53, 89);
    const __m256 odd = _mm256_setr_ps(-104, -65, -35, -10, 13, 38, 69, 113);
    __m256 border = _mm256_set1_ps(b[7]);
    __m256i at = _mm256_setzero_si256();
    at = _mm256_sub_epi32(at, _mm256_castps_si256(_mm256_cmp_ps(y, border, _CMP_GE_OQ)));
    border = _mm256_permutevar8x32_ps(two, at);
    at = _mm256_sub_epi32(_mm256_add_epi32(at, at), _mm256_castps_si256(_mm256_cmp_ps(y, border, _CMP_GE_OQ)));
    border = _mm256_permutevar8x32_ps(four, at);
    at = _mm256_sub_epi32(_mm256_add_epi32(at, at), _mm256_castps_si256(_mm256_cmp_ps(y, border, _CMP_GE_OQ)));
    border = _mm256_permutevar8x32_ps(eight, at);
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(even, at), _mm256_permutevar8x32_ps(odd, at),
                            _mm256_cmp_ps(y, border, _CMP_GE_OQ));
}

ENCODE_AVX2 static inline __m256 encode_round_avx2(__m256 y, __m256 low, __m256 high, int table) {
    const __m256 magic = _mm256_set1_ps(0x1.8p23f);
    if (table) return encode_table_avx2(y);
    y = _mm256_min_ps(_mm256_max_ps(y, low), high);
    return _mm256_sub_ps(_mm256_add_ps(y, magic), magic);
}

ENCODE_AVX2 ENCODE_INLINE void encode_fit_any(const encode_form *form, const float *x, const float *weight, int n,
                                              encode_lanes *l, int table) {
    const __m256 low = _mm256_set1_ps((float)form->low), high = _mm256_set1_ps((float)form->high);
    const __m256 inverse0 = _mm256_loadu_ps(l->inverse), inverse1 = _mm256_loadu_ps(l->inverse + 8);
    const __m256 min0 = _mm256_loadu_ps(l->min), min1 = _mm256_loadu_ps(l->min + 8);
    __m256 sum_q0 = _mm256_setzero_ps(), sum_qq0 = sum_q0, sum_xq0 = sum_q0;
    __m256 sum_q1 = sum_q0, sum_qq1 = sum_q0, sum_xq1 = sum_q0;
    for (int i = 0; i < n; i++) {
        const __m256 xi = _mm256_broadcast_ss(x + i), w = _mm256_broadcast_ss(weight + i);
        const __m256 q0 = encode_round_avx2(_mm256_mul_ps(_mm256_add_ps(xi, min0), inverse0), low, high, table);
        const __m256 q1 = encode_round_avx2(_mm256_mul_ps(_mm256_add_ps(xi, min1), inverse1), low, high, table);
        const __m256 wq0 = _mm256_mul_ps(w, q0), wq1 = _mm256_mul_ps(w, q1);
        sum_q0 = _mm256_add_ps(sum_q0, wq0);
        sum_q1 = _mm256_add_ps(sum_q1, wq1);
        sum_qq0 = _mm256_add_ps(sum_qq0, _mm256_mul_ps(wq0, q0));
        sum_qq1 = _mm256_add_ps(sum_qq1, _mm256_mul_ps(wq1, q1));
        sum_xq0 = _mm256_add_ps(sum_xq0, _mm256_mul_ps(wq0, xi));
        sum_xq1 = _mm256_add_ps(sum_xq1, _mm256_mul_ps(wq1, xi));
    }
    _mm256_storeu_ps(l->q, sum_q0);
    _mm256_storeu_ps(l->q + 8, sum_q1);
    _mm256_storeu_ps(l->qq, sum_qq0);
    _mm256_storeu_ps(l->qq + 8, sum_qq1);
    _mm256_storeu_ps(l->xq, sum_xq0);
    _mm256_storeu_ps(l->xq + 8, sum_xq1);
}

ENCODE_AVX2 ENCODE_INLINE void encode_error_any(const encode_form *form, const float *x, const float *weight, int n,
                                                encode_lanes *l, int table) {
    const __m256 low = _mm256_set1_ps((float)form->low), high = _mm256_set1_ps((float)form->high);
    const __m256 inverse0 = _mm256_loadu_ps(l->inverse), inverse1 = _mm256_loadu_ps(l->inverse + 8);
    const __m256 min0 = _mm256_loadu_ps(l->min), min1 = _mm256_loadu_ps(l->min + 8);
    const __m256 scale0 = _mm256_loadu_ps(l->scale), scale1 = _mm256_loadu_ps(l->scale + 8);
    __m256 sum0 = _mm256_setzero_ps(), sum1 = sum0;
    for (int i = 0; i < n; i++) {
        const __m256 xi = _mm256_broadcast_ss(x + i), w = _mm256_broadcast_ss(weight + i);
        const __m256 up0 = _mm256_add_ps(xi, min0), up1 = _mm256_add_ps(xi, min1);
        const __m256 q0 = encode_round_avx2(_mm256_mul_ps(up0, inverse0), low, high, table);
        const __m256 q1 = encode_round_avx2(_mm256_mul_ps(up1, inverse1), low, high, table);
        const __m256 e0 = _mm256_sub_ps(up0, _mm256_mul_ps(scale0, q0));
        const __m256 e1 = _mm256_sub_ps(up1, _mm256_mul_ps(scale1, q1));
        sum0 = _mm256_add_ps(sum0, _mm256_mul_ps(w, _mm256_mul_ps(e0, e0)));
        sum1 = _mm256_add_ps(sum1, _mm256_mul_ps(w, _mm256_mul_ps(e1, e1)));
    }
    _mm256_storeu_ps(l->error, sum0);
    _mm256_storeu_ps(l->error + 8, sum1);
}

/* Not inlined: their sums are to stay in registers. */
ENCODE_AVX2 __attribute__((noinline)) static void encode_fit_avx2(const encode_form *form, const float *x,
                                                                  const float *weight, int n, encode_lanes *l) {
    if (form->values)
        encode_fit_any(form, x, weight, n, l, 1);
    else
        encode_fit_any(form, x, weight, n, l, 0);
}

ENCODE_AVX2 __attribute__((noinline)) static void encode_error_avx2(const encode_form *form, const float *x,
                                                                    const float *weight, int n, encode_lanes *l) {
    if (form->values)
        encode_error_any(form, x, weight, n, l, 1);
    else
        encode_error_any(form, x, weight, n, l, 0);
}
#endif

/* The two steps in one instruction set. */
typedef struct encode_steps {
    void (*fit)(const encode_form *form, const float *x, const float *weight, int n, encode_lanes *l);
    void (*error)(const encode_form *form, const float *x, const float *weight, int n, encode_lanes *l);
} encode_steps;

/* ---- one part ---------------------------------------------------------------------------------------------------- */

ENCODE_INLINE float encode_sum(float *a) {
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++) a[k] += a[k + half];
    return a[0];
}

/* The first of the lanes with the largest number, without branches, which nobody could predict. No number may be NaN.
 */
ENCODE_INLINE int encode_best_lane(float *gain) {
    float most[LANES / 2];
    int best = 0;
    const encode_half a = ENCODE_HALF(gain, 0), b = ENCODE_HALF(gain, 8);
    ENCODE_HALF(most, 0) = ENCODE_PICK(a > b, a, b);
    for (int half = LANES / 4; half > 0; half /= 2)
        for (int k = 0; k < half; k++) most[k] = most[k] > most[k + half] ? most[k] : most[k + half];
    for (int k = LANES - 1; k >= 0; k--) best = gain[k] == most[0] ? k : best;
    return best;
}

/* The scale of a part without a minimum: tries to put the largest number near the first or the last value, and beyond.
 */
ENCODE_INLINE float encode_find_scale(const encode_steps *steps, const encode_form *form, const float *x,
                                      const float *weight, int n) {
    enum { GROUPS = 3 };
    const float largest = encode_largest(x, n);
    const encode_half zero = {0};
    float best = 0, best_gain = 0;
    encode_lanes l;
    memset(&l, 0, sizeof l);
    for (int group = 0; group < GROUPS && largest != 0; group++) {
        float gain[LANES];
        for (int k = 0; k < LANES; k++) {
            const int step = group * LANES / 2 + k / 2 - GROUPS * LANES / 4;
            l.inverse[k] = (float)(k % 2 ? form->high : form->low) * (1 + (float)step * (1.0f / 80)) / largest;
        }
        steps->fit(form, x, weight, n, &l);
        for (int k = 0; k < LANES; k += LANES / 2) {
            const encode_half g = ENCODE_HALF(l.xq, k) * (ENCODE_HALF(l.xq, k) / ENCODE_HALF(l.qq, k));
            ENCODE_HALF(gain, k) = ENCODE_PICK(g > 0, g, zero);
        }
        const int lane = encode_best_lane(gain);
        if (!(gain[lane] > best_gain)) continue;
        best = l.xq[lane] / l.qq[lane];
        best_gain = gain[lane];
    }
    return best;
}

/* Scale and minimum of a part: tries to use a little more and a little less than the codes there are, each time with
 * what is best for these codes by least squares; then once more from there. The error is the sum of weight * x^2 less
 * the gain. */
ENCODE_INLINE void encode_find_pair(const encode_steps *steps, const encode_form *form, const float *x,
                                    const float *weight, int n, float *scale, float *min) {
    enum { ROUNDS = 2 };
    const int32_t is_positive = form->min_high ? -1 : 0;
    const encode_half zero = {0};
    float lows[LANES], highs[LANES], sums_w[LANES] = {0}, sums_x[LANES] = {0}, best = -FLT_MAX;
    encode_lanes l;
    for (int k = 0; k < LANES; k++) lows[k] = highs[k] = x[k];
    for (int i = 0; i < n; i += LANES) {
        for (int k = 0; k < LANES; k++) {
            lows[k] = x[i + k] < lows[k] ? x[i + k] : lows[k];
            highs[k] = x[i + k] > highs[k] ? x[i + k] : highs[k];
            sums_w[k] += weight[i + k];
            sums_x[k] += weight[i + k] * x[i + k];
        }
    }
    const float sum_w = encode_sum(sums_w), sum_x = encode_sum(sums_x);
    float low = lows[0], high = highs[0];
    for (int k = 1; k < LANES; k++) {
        low = lows[k] < low ? lows[k] : low;
        high = highs[k] > high ? highs[k] : high;
    }
    if (form->min_high && low > 0) low = 0;
    *scale = (high - low) / (float)form->high;
    *min = -low;
    for (int round = 0; round<ROUNDS && * scale> 0 && encode_inverse(*scale) > 0; round++) {
        const float start = encode_inverse(*scale);
        float scales[LANES], mins[LANES], gain[LANES];
        for (int k = 0; k < LANES; k++) {
            l.inverse[k] = start * (1 + ((float)k - 7) * 0.125f / (float)form->high);
            l.min[k] = *min;
        }
        steps->fit(form, x, weight, n, &l);
        for (int k = 0; k < LANES; k += LANES / 2) {
            const encode_half q = ENCODE_HALF(l.q, k), qq = ENCODE_HALF(l.qq, k), xq = ENCODE_HALF(l.xq, k);
            const encode_half det = sum_w * qq - q * q;
            encode_half s = (sum_w * xq - sum_x * q) / det, m = (q * xq - qq * sum_x) / det;
            const encode_mask none = (m < 0) & is_positive;
            s = ENCODE_PICK(none, xq / qq, s);
            m = ENCODE_PICK(none, zero, m);
            const encode_half g = s * xq - m * sum_x;
            ENCODE_HALF(scales, k) = s;
            ENCODE_HALF(mins, k) = m;
            ENCODE_HALF(gain, k) = ENCODE_PICK((det > 0) & (s > 0) & (g > -FLT_MAX), g, zero - FLT_MAX);
        }
        const int lane = encode_best_lane(gain);
        if (!(gain[lane] > best)) break;
        best = gain[lane];
        *scale = scales[lane];
        *min = mins[lane];
    }
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* A block that is being tried, with the values of its codes. */
typedef struct encode_trial {
    encode_parts parts;
    float q[ENCODE_MAX_BLOCK];
} encode_trial;

ENCODE_INLINE double encode_error(const encode_form *form, const float *x, const float *weight,
                                  const encode_trial *trial) {
    enum { SUMS = 8 };
    const int n = form->block / form->n_parts;
    double sums[SUMS] = {0};
    for (int i = 0; i < form->n_parts; i++) {
        const float scale = encode_part_scale(&trial->parts, i), min = encode_part_min(&trial->parts, i);
        for (int at = i * n; at < (i + 1) * n; at += SUMS) {
            for (int k = 0; k < SUMS; k++) {
                const double e = (double)x[at + k] - (double)(scale * trial->q[at + k] - min);
                sums[k] += (double)weight[at + k] * e * e;
            }
        }
    }
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

/* A block with one scale; *trial is the plain one. */
ENCODE_INLINE void encode_search_block(const encode_steps *steps, const encode_form *form, const float *x,
                                       const float *weight, encode_trial *trial) {
    encode_trial next = {.parts.scale = {1}, .parts.min = {1}};
    if (form->has_min)
        encode_find_pair(steps, form, x, weight, form->block, &next.parts.d, &next.parts.dmin);
    else
        next.parts.d = encode_find_scale(steps, form, x, weight, form->block);
    if (encode_to_f16(&next.parts.d) || encode_to_f16(&next.parts.dmin)) return; /* plain has found some that fit */
    encode_set_codes(form, x, 0, &next.parts, next.q);
    if (encode_error(form, x, weight, &next) < encode_error(form, x, weight, trial)) *trial = next;
}

/* The whole scale and minimum of a part around those wanted that have the smallest error, for the d and dmin there are.
 */
ENCODE_INLINE void encode_round_part(const encode_steps *steps, const encode_form *form, const float *x,
                                     const float *weight, int part, float scale, float min, encode_trial *trial) {
    static const float near[2][LANES] = {{-7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8},
                                         {-2, -1, 0, 1, 2, -2, -1, 0, 1, 2, -2, -1, 0, 1, 2, -2}};
    static const float near_min[2][LANES] = {{0}, {-1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2}};
    const int n = form->block / form->n_parts;
    const encode_half low = (encode_half){0} + (float)form->scale_low,
                      high = (encode_half){0} + (float)form->scale_high;
    const encode_half zero = {0}, high_min = zero + (float)form->min_high;
    encode_parts *parts = &trial->parts;
    const int a = encode_round(scale * encode_inverse(parts->d), form->scale_low, form->scale_high);
    const int b = encode_round(min * encode_inverse(parts->dmin), 0, form->min_high);
    float scales[LANES], mins[LANES], gain[LANES];
    encode_lanes l;
    for (int k = 0; k < LANES; k += LANES / 2) { /* 16 scales, or 5 scales and 3 minima */
        encode_half s = ENCODE_HALF(near[form->has_min], k) + (float)a,
                    m = ENCODE_HALF(near_min[form->has_min], k) + (float)b;
        s = ENCODE_PICK(s < low, low, s);
        s = ENCODE_PICK(s > high, high, s);
        m = ENCODE_PICK(m < 0, zero, m);
        m = ENCODE_PICK(m > high_min, high_min, m);
        const encode_half one = s * parts->d, inverse = 1 / one;
        ENCODE_HALF(scales, k) = s;
        ENCODE_HALF(mins, k) = m;
        ENCODE_HALF(l.scale, k) = one;
        ENCODE_HALF(l.inverse, k) = ENCODE_PICK((inverse <= FLT_MAX) & (inverse >= -FLT_MAX), inverse, zero);
        ENCODE_HALF(l.min, k) = m * parts->dmin;
    }
    steps->error(form, x + part * n, weight + part * n, n, &l);
    for (int k = 0; k < LANES; k += LANES / 2) {
        const encode_half g = -ENCODE_HALF(l.error, k);
        ENCODE_HALF(gain, k) = ENCODE_PICK(g > -FLT_MAX, g, zero - FLT_MAX);
    }
    const int best = encode_best_lane(gain);
    parts->scale[part] = (int)scales[best];
    parts->min[part] = (int)mins[best];
    encode_set_codes(form, x, part, parts, trial->q);
}

/* d and dmin that are best for the codes by least squares, and the scales that the parts then have. 0 or -1. */
ENCODE_INLINE int encode_improve_super(const encode_form *form, const float *x, const float *weight,
                                       encode_trial *trial, float *scales, float *mins) {
    const int n = form->block / form->n_parts;
    encode_parts *parts = &trial->parts;
    double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
    for (int i = 0; i < form->n_parts; i++) {
        float q[LANES] = {0}, qq[LANES] = {0}, xq[LANES] = {0}, sum_w[LANES] = {0}, sum_x[LANES] = {0};
        for (int at = i * n; at < (i + 1) * n; at += LANES) {
            for (int k = 0; k < LANES; k++) {
                const float w = weight[at + k], wq = w * trial->q[at + k];
                q[k] += wq, qq[k] += wq * trial->q[at + k], xq[k] += wq * x[at + k];
                sum_w[k] += w, sum_x[k] += w * x[at + k];
            }
        }
        const double a = parts->scale[i], b = -parts->min[i];
        aa += a * a * (double)encode_sum(qq), ab += a * b * (double)encode_sum(q);
        bb += b * b * (double)encode_sum(sum_w);
        ax += a * (double)encode_sum(xq), bx += b * (double)encode_sum(sum_x);
        scales[i] = encode_part_scale(parts, i);
        mins[i] = encode_part_min(parts, i);
    }
    const double det = aa * bb - ab * ab;
    if (!(aa > 0)) return -1;
    parts->d = (float)(det > 0 ? (ax * bb - bx * ab) / det : ax / aa);
    parts->dmin = (float)(det > 0 ? (aa * bx - ab * ax) / det : 0);
    if (parts->dmin < 0 || (form->has_min && parts->d < 0)) return -1;
    return encode_to_f16(&parts->d) || encode_to_f16(&parts->dmin) ? -1 : 0;
}

/* A block with whole scales; *trial is the plain one. */
ENCODE_INLINE void encode_search_super(const encode_steps *steps, const encode_form *form, const float *x,
                                       const float *weight, encode_trial *trial) {
    enum { ROUNDS = 2 };
    const int n = form->block / form->n_parts;
    float scales[16], mins[16] = {0};
    double best = encode_error(form, x, weight, trial);
    for (int i = 0; i < form->n_parts; i++) {
        if (form->has_min)
            encode_find_pair(steps, form, x + i * n, weight + i * n, n, &scales[i], &mins[i]);
        else
            scales[i] = encode_find_scale(steps, form, x + i * n, weight + i * n, n);
    }
    encode_trial next = {.parts.d = 0};
    int code = encode_set_super(form, scales, mins, &next.parts);
    for (int round = 0; round < ROUNDS && !code; round++) {
        for (int i = 0; i < form->n_parts; i++) encode_round_part(steps, form, x, weight, i, scales[i], mins[i], &next);
        const double error = encode_error(form, x, weight, &next);
        if (error < best) {
            best = error;
            *trial = next;
        }
        if (round + 1 < ROUNDS) code = encode_improve_super(form, x, weight, &next, scales, mins);
    }
}

ENCODE_INLINE int encode_search_with(const encode_steps *steps, const encode_form *form, const float *x,
                                     const float *weight, encode_parts *parts) {
    encode_trial trial = {.parts.d = 0};
    if (encode_plain(form, x, &trial.parts)) return -1;
    for (int k = 0; k < form->block; k++) trial.q[k] = encode_value(form, trial.parts.code[k]);
    if (form->scale_high)
        encode_search_super(steps, form, x, weight, &trial);
    else
        encode_search_block(steps, form, x, weight, &trial);
    *parts = trial.parts;
    return 0;
}

int encode_search_plain(const encode_form *form, const float *x, const float *weight, encode_parts *parts) {
    static const encode_steps steps = {encode_fit_plain, encode_error_plain};
    return encode_search_with(&steps, form, x, weight, parts);
}

#if defined(__x86_64__)
ENCODE_AVX2 static int encode_search_avx2(const encode_form *form, const float *x, const float *weight,
                                          encode_parts *parts) {
    static const encode_steps steps = {encode_fit_avx2, encode_error_avx2};
    return encode_search_with(&steps, form, x, weight, parts);
}

int encode_search_parts(const encode_form *form, const float *x, const float *weight, encode_parts *parts) {
    return (__builtin_cpu_supports("avx2") ? encode_search_avx2 : encode_search_plain)(form, x, weight, parts);
}
#else
int encode_search_parts(const encode_form *form, const float *x, const float *weight, encode_parts *parts) {
    return encode_search_plain(form, x, weight, parts);
}
#endif
