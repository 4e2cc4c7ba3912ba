/* encode_search.c: the scales and minima with the smallest weighted squared error. See encode.h.
 *
 * For given codes the best scale (and minimum) is a matter of least squares; which codes, of trying: 16 candidates at a
 * time, a candidate in each lane of a vector. No sum is ever split differently, so the instruction set decides the
 * speed and not the result. */
#include <string.h>

#include "encode_form.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { LANES = 16 };

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
            const float e = x[i] - (l->scale[k] * q[k] - l->min[k]);
            l->error[k] += weight[i] * (e * e);
        }
    }
}

/* The same with AVX2: the same operations in the same order. */
#if defined(__x86_64__)
#define ENCODE_AVX2 __attribute__((target("avx2")))

ENCODE_AVX2 static inline __m256 encode_round_avx2(const encode_form *form, __m256 y) {
    if (form->values) {
        __m256 q = _mm256_set1_ps((float)form->low);
        for (int i = 0; i < 15; i++) {
            const __m256 border = _mm256_broadcast_ss(encode_iq4_border + i),
                         step = _mm256_broadcast_ss(encode_iq4_step + i);
            q = _mm256_add_ps(q, _mm256_and_ps(_mm256_cmp_ps(y, border, _CMP_GE_OQ), step));
        }
        return q;
    }
    const __m256 magic = _mm256_set1_ps(0x1.8p23f);
    y = _mm256_max_ps(y, _mm256_set1_ps((float)form->low));
    y = _mm256_min_ps(y, _mm256_set1_ps((float)form->high));
    return _mm256_sub_ps(_mm256_add_ps(y, magic), magic);
}

ENCODE_AVX2 static void encode_fit_avx2(const encode_form *form, const float *x, const float *weight, int n,
                                        encode_lanes *l) {
    for (int k = 0; k < LANES; k += 8) {
        const __m256 inverse = _mm256_loadu_ps(l->inverse + k), min = _mm256_loadu_ps(l->min + k);
        __m256 sum_q = _mm256_setzero_ps(), sum_qq = sum_q, sum_xq = sum_q;
        for (int i = 0; i < n; i++) {
            const __m256 xi = _mm256_broadcast_ss(x + i);
            const __m256 q = encode_round_avx2(form, _mm256_mul_ps(_mm256_add_ps(xi, min), inverse));
            const __m256 wq = _mm256_mul_ps(_mm256_broadcast_ss(weight + i), q);
            sum_q = _mm256_add_ps(sum_q, wq);
            sum_qq = _mm256_add_ps(sum_qq, _mm256_mul_ps(wq, q));
            sum_xq = _mm256_add_ps(sum_xq, _mm256_mul_ps(wq, xi));
        }
        _mm256_storeu_ps(l->q + k, sum_q);
        _mm256_storeu_ps(l->qq + k, sum_qq);
        _mm256_storeu_ps(l->xq + k, sum_xq);
    }
}

ENCODE_AVX2 static void encode_error_avx2(const encode_form *form, const float *x, const float *weight, int n,
                                          encode_lanes *l) {
    for (int k = 0; k < LANES; k += 8) {
        const __m256 inverse = _mm256_loadu_ps(l->inverse + k), min = _mm256_loadu_ps(l->min + k);
        const __m256 scale = _mm256_loadu_ps(l->scale + k);
        __m256 sum = _mm256_setzero_ps();
        for (int i = 0; i < n; i++) {
            const __m256 xi = _mm256_broadcast_ss(x + i);
            const __m256 q = encode_round_avx2(form, _mm256_mul_ps(_mm256_add_ps(xi, min), inverse));
            const __m256 e = _mm256_sub_ps(xi, _mm256_sub_ps(_mm256_mul_ps(scale, q), min));
            sum = _mm256_add_ps(sum, _mm256_mul_ps(_mm256_broadcast_ss(weight + i), _mm256_mul_ps(e, e)));
        }
        _mm256_storeu_ps(l->error + k, sum);
    }
}

static void encode_lanes_fit(const encode_form *f, const float *x, const float *w, int n, encode_lanes *l) {
    (__builtin_cpu_supports("avx2") ? encode_fit_avx2 : encode_fit_plain)(f, x, w, n, l);
}

static void encode_lanes_error(const encode_form *f, const float *x, const float *w, int n, encode_lanes *l) {
    (__builtin_cpu_supports("avx2") ? encode_error_avx2 : encode_error_plain)(f, x, w, n, l);
}
#else
#define encode_lanes_fit   encode_fit_plain
#define encode_lanes_error encode_error_plain
#endif

/* ---- one part ---------------------------------------------------------------------------------------------------- */

/* The scale of a part without a minimum: tries to put the largest number near the first or the last value, and beyond.
 */
static float encode_find_scale(const encode_form *form, const float *x, const float *weight, int n) {
    enum { GROUPS = 3 };
    const float largest = encode_largest(x, n);
    float best = 0, best_gain = 0;
    encode_lanes l;
    memset(&l, 0, sizeof l);
    for (int group = 0; group < GROUPS && largest != 0; group++) {
        for (int k = 0; k < LANES; k++) {
            const int step = group * LANES / 2 + k / 2 - GROUPS * LANES / 4;
            l.inverse[k] = (float)(k % 2 ? form->high : form->low) * (1 + (float)step * (1.0f / 80)) / largest;
        }
        encode_lanes_fit(form, x, weight, n, &l);
        for (int k = 0; k < LANES; k++) {
            if (!(l.qq[k] > 0 && l.xq[k] * l.xq[k] > best_gain * l.qq[k])) continue;
            best = l.xq[k] / l.qq[k];
            best_gain = l.xq[k] * best;
        }
    }
    return best;
}

/* Scale and minimum of a part: tries to use a little more and a little less than the codes there are, each time with
 * what is best for these codes by least squares; then once more from there. */
static void encode_find_pair(const encode_form *form, const float *x, const float *weight, int n, float *scale,
                             float *min) {
    enum { ROUNDS = 2 };
    double sum_w = 0, sum_x = 0, sum_xx = 0, best = -1;
    float range, low, high;
    encode_lanes l;
    low = high = x[0];
    for (int i = 0; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
        sum_w += (double)weight[i];
        sum_x += (double)weight[i] * (double)x[i];
        sum_xx += (double)weight[i] * (double)x[i] * (double)x[i];
    }
    if (form->min_high && low > 0) low = 0;
    range = high - low;
    *scale = range / (float)form->high;
    *min = -low;
    for (int round = 0; round<ROUNDS && * scale> 0 && isfinite(encode_inverse(*scale)); round++) {
        const float start = encode_inverse(*scale);
        for (int k = 0; k < LANES; k++) {
            l.inverse[k] = start * (1 + ((float)k - 7) * 0.125f / (float)form->high);
            l.min[k] = *min;
        }
        encode_lanes_fit(form, x, weight, n, &l);
        for (int k = 0; k < LANES; k++) {
            const double q = (double)l.q[k], qq = (double)l.qq[k], xq = (double)l.xq[k], det = sum_w * qq - q * q;
            if (!(det > 0)) continue;
            double s = (sum_w * xq - sum_x * q) / det, m = (q * xq - qq * sum_x) / det;
            if (m < 0 && form->min_high) s = xq / qq, m = 0;
            if (!(s > 0)) continue;
            const double error = sum_xx - 2 * s * xq + 2 * m * sum_x + s * s * qq - 2 * s * m * q + m * m * sum_w;
            if (best >= 0 && error >= best) continue;
            best = error;
            *scale = (float)s;
            *min = (float)m;
        }
    }
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

static void encode_set_codes(const encode_form *form, const float *x, int part, encode_parts *parts) {
    const int n = form->block / form->n_parts;
    const float inverse = encode_inverse(encode_part_scale(parts, part)), min = encode_part_min(parts, part);
    for (int k = part * n; k < (part + 1) * n; k++)
        parts->code[k] = (uint8_t)encode_nearest_code(form, (x[k] + min) * inverse);
}

static double encode_error(const encode_form *form, const float *x, const float *weight, const encode_parts *parts) {
    const int n = form->block / form->n_parts;
    double sum = 0;
    for (int i = 0; i < form->n_parts; i++) {
        const float scale = encode_part_scale(parts, i), min = encode_part_min(parts, i);
        for (int k = i * n; k < (i + 1) * n; k++) {
            const double e = (double)x[k] - (double)(scale * encode_value(form, parts->code[k]) - min);
            sum += (double)weight[k] * e * e;
        }
    }
    return sum;
}

/* A block with one scale; *parts is the plain one. */
static void encode_search_block(const encode_form *form, const float *x, const float *weight, encode_parts *parts) {
    encode_parts next = {0};
    next.scale[0] = next.min[0] = 1;
    next.dmin = 0;
    if (form->has_min)
        encode_find_pair(form, x, weight, form->block, &next.d, &next.dmin);
    else
        next.d = encode_find_scale(form, x, weight, form->block);
    if (encode_to_f16(&next.d) || encode_to_f16(&next.dmin)) return; /* plain has found some that fit */
    encode_set_codes(form, x, 0, &next);
    if (encode_error(form, x, weight, &next) < encode_error(form, x, weight, parts)) *parts = next;
}

/* The whole scale and minimum of a part around those wanted that have the smallest error, for the d and dmin there are.
 */
static void encode_round_part(const encode_form *form, const float *x, const float *weight, int part, float scale,
                              float min, encode_parts *parts) {
    const int n = form->block / form->n_parts;
    const int a = encode_round(scale * encode_inverse(parts->d), form->scale_low, form->scale_high);
    const int b = encode_round(min * encode_inverse(parts->dmin), 0, form->min_high);
    int scales[LANES], mins[LANES], best = 0;
    encode_lanes l;
    for (int k = 0; k < LANES; k++) { /* 5 scales and 3 minima, or 16 scales */
        const int s = form->has_min ? a + k % 5 - 2 : a + k - 7, m = form->has_min ? b + k / 5 - 1 : 0;
        const int top = form->min_high;
        scales[k] = s < form->scale_low ? form->scale_low : s > form->scale_high ? form->scale_high : s;
        mins[k] = m < 0 ? 0 : m > top ? top : m;
        l.scale[k] = parts->d * (float)scales[k];
        l.inverse[k] = encode_inverse(l.scale[k]);
        l.min[k] = parts->dmin * (float)mins[k];
    }
    encode_lanes_error(form, x + part * n, weight + part * n, n, &l);
    for (int k = 1; k < LANES; k++) best = l.error[k] < l.error[best] ? k : best;
    parts->scale[part] = scales[best];
    parts->min[part] = mins[best];
    encode_set_codes(form, x, part, parts);
}

/* d and dmin that are best for the codes by least squares, and the scales that the parts then have. 0 or -1. */
static int encode_improve_super(const encode_form *form, const float *x, const float *weight, encode_parts *parts,
                                float *scales, float *mins) {
    const int n = form->block / form->n_parts;
    double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
    for (int i = 0; i < form->n_parts; i++) {
        double q = 0, qq = 0, xq = 0, sum_w = 0, sum_x = 0;
        for (int k = i * n; k < (i + 1) * n; k++) {
            const double w = (double)weight[k], value = (double)encode_value(form, parts->code[k]);
            q += w * value, qq += w * value * value, xq += w * value * (double)x[k];
            sum_w += w, sum_x += w * (double)x[k];
        }
        const double a = parts->scale[i], b = -parts->min[i];
        aa += a * a * qq, ab += a * b * q, bb += b * b * sum_w, ax += a * xq, bx += b * sum_x;
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

/* A block with whole scales; *parts is the plain one. */
static void encode_search_super(const encode_form *form, const float *x, const float *weight, encode_parts *parts) {
    enum { ROUNDS = 2 };
    const int n = form->block / form->n_parts;
    float scales[16], mins[16] = {0};
    double best = encode_error(form, x, weight, parts);
    for (int i = 0; i < form->n_parts; i++) {
        if (form->has_min)
            encode_find_pair(form, x + i * n, weight + i * n, n, &scales[i], &mins[i]);
        else
            scales[i] = encode_find_scale(form, x + i * n, weight + i * n, n);
    }
    encode_parts next = {0};
    int code = encode_set_super(form, scales, mins, &next);
    for (int round = 0; round < ROUNDS && !code; round++) {
        for (int i = 0; i < form->n_parts; i++) encode_round_part(form, x, weight, i, scales[i], mins[i], &next);
        const double error = encode_error(form, x, weight, &next);
        if (error < best) {
            best = error;
            *parts = next;
        }
        if (round + 1 < ROUNDS) code = encode_improve_super(form, x, weight, &next, scales, mins);
    }
}

int encode_search_parts(const encode_form *form, const float *x, const float *weight, encode_parts *parts) {
    if (encode_plain(form, x, parts)) return -1;
    if (form->scale_high)
        encode_search_super(form, x, weight, parts);
    else
        encode_search_block(form, x, weight, parts);
    return 0;
}
