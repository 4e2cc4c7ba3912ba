/* encode.c: see encode.h. The formats are those of ggml (ggml-common.h); kernels/quants/ reads them. */
#include "encode.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#include "gguf_write.h"

/* ---- small parts ------------------------------------------------------------------------------------------------- */

/* To the nearest whole number between low and high; halves to even. */
static int encode_round(float x, int low, int high) {
    const float most = (float)high, least = (float)low;
    x = x > least ? x : least;
    x = x < most ? x : most;
    return (int)((x + 0x1.8p23f) - 0x1.8p23f);
}

/* 1/d, or 0 where that is no number to multiply with. */
static float encode_inverse(float d) {
    const float inverse = d != 0 ? 1 / d : 0;
    return isfinite(inverse) ? inverse : 0;
}

/* Rounds *d to f16 and puts it at `out`. 0, or -1 when it is too large. */
static int encode_put_scale(float *d, uint8_t *out) {
    const uint16_t half = gguf_write_f16(*d);
    gguf_write_16(out, half);
    *d = gguf_write_from_f16(half);
    return isfinite(*d) ? 0 : -1;
}

/* The number with the largest magnitude, with its sign; of equal ones the first. */
static float encode_largest(const float *x, int n) {
    float largest = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(largest)) largest = x[i];
    return largest;
}

/* `bits` of each code, from bit `up` on, to a plane of zeros at `out`: run codes lie in successive bytes, 8/bits runs
 * on top of each other. */
static void encode_put_plane(const uint8_t *code, int n, int up, int run, int bits, uint8_t *out) {
    const int period = run * (8 / bits), mask = (1 << bits) - 1;
    for (int k = 0; k < n; k++)
        out[k / period * run + k % run] |= (uint8_t)((code[k] >> up & mask) << k % period / run * bits);
}

/* ---- floats ------------------------------------------------------------------------------------------------------ */

static int encode_f32(const float *x, uint8_t *out) {
    uint32_t bits;
    memcpy(&bits, x, sizeof bits);
    gguf_write_32(out, bits);
    return 0;
}

static int encode_f16(const float *x, uint8_t *out) {
    float value = *x;
    return encode_put_scale(&value, out);
}

static int encode_bf16(const float *x, uint8_t *out) {
    const uint16_t bits = gguf_write_bf16(*x);
    gguf_write_16(out, bits);
    return (bits & 0x7f80) == 0x7f80 ? -1 : 0;
}

/* ---- the values of codes ----------------------------------------------------------------------------------------- */

/* Code c stands for c + low, or for values[c]. */
typedef struct encode_book {
    int low, high; /* the first and the last value */
    const int8_t *values;
} encode_book;

static const int8_t encode_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const encode_book encode_book_q4 = {-8, 7, NULL}, encode_book_q8 = {-127, 127, NULL},
                         encode_book_iq4 = {-127, 113, encode_iq4_values}, encode_book_q6 = {-32, 31, NULL};

static int encode_code(const encode_book *book, float x) {
    if (!book->values) return encode_round(x, book->low, book->high) - book->low;
    int code = 0;
    for (int i = 0; i < 15; i++) code += x >= 0.5f * (float)(book->values[i] + book->values[i + 1]);
    return code;
}

static int encode_value(const encode_book *book, int code) {
    return book->values ? book->values[code] : code + book->low;
}

/* The scale with the smallest squared error of n numbers: tries scales that put the largest number near the first or
 * the last value, beyond it too, and improves each by least squares for the codes it leads to. */
static float encode_search_scale(const encode_book *book, const float *x, int n) {
    enum { STEPS = 12 };
    const float largest = encode_largest(x, n);
    float best = 0, best_gain = 0;
    for (int k = 0; k < 2 * (2 * STEPS + 1) && largest != 0; k++) {
        const float end = (float)(k % 2 ? book->high : book->low);
        const float inverse = end * (1 + (float)(k / 2 - STEPS) * (1.0f / 80)) / largest;
        float xq = 0, qq = 0;
        for (int i = 0; i < n; i++) {
            const float q = (float)encode_value(book, encode_code(book, inverse * x[i]));
            xq += x[i] * q;
            qq += q * q;
        }
        if (qq > 0 && xq * xq > best_gain * qq) {
            best = xq / qq;
            best_gain = xq * best;
        }
    }
    return best;
}

/* ---- blocks of 32 with one scale --------------------------------------------------------------------------------- */

/* Q8_0 has its codes signed, the others in a plane. */
static void encode_put_codes(const encode_book *book, const uint8_t *code, uint8_t *out) {
    memset(out, 0, book == &encode_book_q8 ? 32 : 16);
    for (int i = 0; i < 32 && book == &encode_book_q8; i++) out[i] = (uint8_t)encode_value(book, code[i]);
    if (book != &encode_book_q8) encode_put_plane(code, 32, 0, 16, 4, out);
}

static double encode_error(const encode_book *book, const float *x, float d, const uint8_t *code) {
    double sum = 0;
    for (int i = 0; i < 32; i++) {
        const double e = x[i] - (double)(d * (float)encode_value(book, code[i]));
        sum += e * e;
    }
    return sum;
}

/* ggml's rounding, to the bit: codes for the scale before it becomes f16; halves away from zero for Q8_0, else up. */
static int encode_plain(const encode_book *book, const float *x, uint8_t *code, float *d, uint8_t *out) {
    const float largest = encode_largest(x, 32);
    *d = book == &encode_book_q8 ? fabsf(largest) / 127 : largest / (float)book->low;
    const float inverse = encode_inverse(*d);
    for (int i = 0; i < 32; i++) {
        const float scaled = x[i] * inverse;
        if (book == &encode_book_q8)
            code[i] = (uint8_t)(roundf(scaled) + 127);
        else if (book->values)
            code[i] = (uint8_t)encode_code(book, scaled);
        else
            code[i] = (uint8_t)fminf(15, scaled + 8.5f);
    }
    const int status = encode_put_scale(d, out);
    encode_put_codes(book, code, out + 2);
    return status;
}

static int encode_nearest_32(const encode_book *book, const float *x, uint8_t *out) {
    uint8_t code[32];
    float d;
    return encode_plain(book, x, code, &d, out);
}

static int encode_search_32(const encode_book *book, const float *x, uint8_t *out) {
    uint8_t code[32], scale[2];
    float d;
    if (encode_plain(book, x, code, &d, out)) return -1;
    const double plain = encode_error(book, x, d, code);
    d = encode_search_scale(book, x, 32);
    if (encode_put_scale(&d, scale)) return 0; /* plain has found one that fits */
    const float inverse = encode_inverse(d);
    for (int i = 0; i < 32; i++) code[i] = (uint8_t)encode_code(book, x[i] * inverse);
    if (encode_error(book, x, d, code) >= plain) return 0;
    memcpy(out, scale, sizeof scale);
    encode_put_codes(book, code, out + 2);
    return 0;
}

static int encode_q4_0(const float *x, uint8_t *out) {
    return encode_nearest_32(&encode_book_q4, x, out);
}

static int encode_q4_0_search(const float *x, uint8_t *out) {
    return encode_search_32(&encode_book_q4, x, out);
}

static int encode_q8_0(const float *x, uint8_t *out) {
    return encode_nearest_32(&encode_book_q8, x, out);
}

static int encode_q8_0_search(const float *x, uint8_t *out) {
    return encode_search_32(&encode_book_q8, x, out);
}

static int encode_iq4_nl(const float *x, uint8_t *out) {
    return encode_nearest_32(&encode_book_iq4, x, out);
}

static int encode_iq4_nl_search(const float *x, uint8_t *out) {
    return encode_search_32(&encode_book_iq4, x, out);
}

/* ---- blocks of 256 with scales of scales ------------------------------------------------------------------------- */

/* Element k of part i is d*scale[i] * (code[k] + low) - dmin*min[i]. */
typedef struct encode_kind {
    int n_parts, low, high; /* values of codes, from low to high */
    int scale_low, scale_high, has_min;
} encode_kind;

typedef struct encode_super {
    float d, dmin; /* exact f16 numbers */
    int scale[16], min[16];
    uint8_t code[256];
    double error; /* sum of squares */
} encode_super;

static const encode_kind encode_kind_q4 = {8, 0, 15, 0, 63, 1}, encode_kind_q5 = {8, 0, 31, 0, 63, 1},
                         encode_kind_q6 = {16, -32, 31, -128, 127, 0};

/* Codes of a part for whole scales; the squared error. */
static double encode_part(const encode_kind *kind, const float *x, float scale, float min, uint8_t *code) {
    const int n = 256 / kind->n_parts;
    const float inverse = encode_inverse(scale);
    double sum = 0;
    for (int i = 0; i < n; i++) {
        const int q = encode_round((x[i] + min) * inverse, kind->low, kind->high);
        const double e = x[i] - (double)(scale * (float)q - min);
        code[i] = (uint8_t)(q - kind->low);
        sum += e * e;
    }
    return sum;
}

/* Rounds the scales and minima of the parts to whole multiples of s->d and s->dmin, and the numbers to codes. `reach`:
 * how far around the nearest multiple to look for a smaller error. */
static void encode_round_super(const encode_kind *kind, const float *x, const float *scales, const float *mins,
                               int reach, encode_super *s) {
    const int n = 256 / kind->n_parts, reach_min = kind->has_min ? reach : 0;
    const float inverse = encode_inverse(s->d), inverse_min = encode_inverse(s->dmin);
    s->error = 0;
    for (int i = 0; i < kind->n_parts; i++) {
        const int scale = encode_round(scales[i] * inverse, kind->scale_low, kind->scale_high);
        const int min = encode_round(mins[i] * inverse_min, 0, 63);
        double best = -1;
        for (int a = scale - reach; a <= scale + reach; a++) {
            for (int b = min - reach_min; b <= min + reach_min; b++) {
                uint8_t code[32];
                if (a < kind->scale_low || a > kind->scale_high || b < 0 || b > 63) continue;
                const double error = encode_part(kind, x + i * n, s->d * (float)a, s->dmin * (float)b, code);
                if (best >= 0 && error >= best) continue;
                best = error;
                s->scale[i] = a;
                s->min[i] = b;
                memcpy(s->code + i * n, code, (size_t)n);
            }
        }
        s->error += best;
    }
}

/* d and dmin such that the largest scale and minimum get the largest code. 0, or -1 when they are too large for f16. */
static int encode_set_super(const encode_kind *kind, const float *scales, const float *mins, encode_super *s) {
    uint8_t half[2];
    s->d = encode_largest(scales, kind->n_parts) / (float)(kind->scale_low ? kind->scale_low : kind->scale_high);
    s->dmin = encode_largest(mins, kind->n_parts) / 63;
    const int bad = encode_put_scale(&s->d, half);
    return encode_put_scale(&s->dmin, half) || bad ? -1 : 0;
}

/* Scale and minimum of a part from its ends. */
static void encode_plain_part(const encode_kind *kind, const float *x, float *scale, float *min) {
    const int n = 256 / kind->n_parts;
    *min = 0;
    if (!kind->has_min) {
        *scale = encode_largest(x, n) / (float)kind->low;
        return;
    }
    float low = 0, high = x[0];
    for (int i = 0; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    *scale = high / (float)kind->high - low / (float)kind->high;
    *min = -low;
}

/* Better ones: tries to use a little more and a little less than the codes there are, each time with the scale and the
 * minimum that are best for the codes by least squares. */
static void encode_search_part(const encode_kind *kind, const float *x, float *scale, float *min) {
    enum { STEPS = 12 };
    const int n = 256 / kind->n_parts;
    if (!kind->has_min) {
        *scale = encode_search_scale(&encode_book_q6, x, n);
        return;
    }
    uint8_t code[32];
    const float start = encode_inverse(*scale) / (float)kind->high, low = *min;
    double best = encode_part(kind, x, *scale, *min, code);
    for (int k = -STEPS; k <= STEPS; k++) {
        const float inverse = start * ((float)kind->high + 0.1f * (float)k);
        double sum_q = 0, sum_qq = 0, sum_x = 0, sum_xq = 0, error = 0;
        for (int i = 0; i < n; i++) {
            const int q = encode_round((x[i] + low) * inverse, 0, kind->high);
            code[i] = (uint8_t)q;
            sum_q += q, sum_qq += q * q, sum_x += (double)x[i], sum_xq += (double)x[i] * q;
        }
        const double det = n * sum_qq - sum_q * sum_q;
        if (!(det > 0)) continue;
        double s = (n * sum_xq - sum_x * sum_q) / det, m = (sum_q * sum_xq - sum_qq * sum_x) / det;
        if (m < 0) s = sum_xq / sum_qq, m = 0;
        if (!(s > 0)) continue;
        for (int i = 0; i < n; i++) {
            const double e = (double)x[i] - (s * code[i] - m);
            error += e * e;
        }
        if (error >= best) continue;
        best = error;
        *scale = (float)s;
        *min = (float)m;
    }
}

/* d and dmin that are best for the codes by least squares, and the scales that the parts then have. 0 or -1. */
static int encode_improve_super(const encode_kind *kind, const float *x, encode_super *s, float *scales, float *mins) {
    const int n = 256 / kind->n_parts;
    double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
    uint8_t half[2];
    for (int k = 0; k < 256; k++) {
        const double a = s->scale[k / n] * (s->code[k] + kind->low), b = -s->min[k / n];
        aa += a * a, ab += a * b, bb += b * b, ax += a * (double)x[k], bx += b * (double)x[k];
    }
    const double det = aa * bb - ab * ab;
    for (int i = 0; i < kind->n_parts; i++) {
        scales[i] = s->d * (float)s->scale[i];
        mins[i] = s->dmin * (float)s->min[i];
    }
    if (!(aa > 0)) return -1;
    s->d = (float)(det > 0 ? (ax * bb - bx * ab) / det : ax / aa);
    s->dmin = (float)(det > 0 ? (aa * bx - ab * ax) / det : 0);
    if (s->dmin < 0 || (kind->has_min && s->d < 0)) return -1;
    return encode_put_scale(&s->d, half) || encode_put_scale(&s->dmin, half) ? -1 : 0;
}

/* Fills *best; 0, or -1 when the numbers are too large. */
static int encode_make_super(const encode_kind *kind, const float *x, int search, encode_super *best) {
    enum { ROUNDS = 3 };
    const int n = 256 / kind->n_parts;
    float scales[16], mins[16] = {0};
    for (int i = 0; i < kind->n_parts; i++) encode_plain_part(kind, x + i * n, &scales[i], &mins[i]);
    if (encode_set_super(kind, scales, mins, best)) return -1;
    encode_round_super(kind, x, scales, mins, 0, best);
    if (!search) return 0;
    for (int i = 0; i < kind->n_parts; i++) encode_search_part(kind, x + i * n, &scales[i], &mins[i]);
    encode_super next;
    int code = encode_set_super(kind, scales, mins, &next);
    for (int round = 0; round < ROUNDS && !code; round++) {
        encode_round_super(kind, x, scales, mins, 1, &next);
        if (next.error < best->error) *best = next;
        code = encode_improve_super(kind, x, &next, scales, mins);
    }
    return 0;
}

/* Q4_K and Q5_K: d, dmin, 12 bytes with eight scales and eight minima of 6 bits (kernels/quants/formats.c), codes. */
static int encode_min_super(const encode_kind *kind, const float *x, int search, uint8_t *out) {
    encode_super s;
    if (encode_make_super(kind, x, search, &s)) return -1;
    memset(out, 0, kind == &encode_kind_q4 ? 144 : 176);
    encode_put_scale(&s.d, out);
    encode_put_scale(&s.dmin, out + 2);
    uint8_t *packed = out + 4;
    for (int i = 0; i < 4; i++) {
        packed[i] = (uint8_t)(s.scale[i] | s.scale[i + 4] >> 4 << 6);
        packed[i + 4] = (uint8_t)(s.min[i] | s.min[i + 4] >> 4 << 6);
        packed[i + 8] = (uint8_t)((s.scale[i + 4] & 15) | (s.min[i + 4] & 15) << 4);
    }
    encode_put_plane(s.code, 256, 0, 32, 4, out + (kind == &encode_kind_q4 ? 16 : 48));
    if (kind == &encode_kind_q5) encode_put_plane(s.code, 256, 4, 32, 1, out + 16);
    return 0;
}

/* Q6_K: low halves of the codes, high quarters, 16 scales of 8 bits, d. */
static int encode_q6_super(const float *x, int search, uint8_t *out) {
    encode_super s;
    if (encode_make_super(&encode_kind_q6, x, search, &s)) return -1;
    memset(out, 0, 210);
    encode_put_plane(s.code, 256, 0, 64, 4, out);
    encode_put_plane(s.code, 256, 4, 32, 2, out + 128);
    for (int i = 0; i < 16; i++) out[192 + i] = (uint8_t)s.scale[i];
    return encode_put_scale(&s.d, out + 208);
}

static int encode_q4_k(const float *x, uint8_t *out) {
    return encode_min_super(&encode_kind_q4, x, 0, out);
}

static int encode_q4_k_search(const float *x, uint8_t *out) {
    return encode_min_super(&encode_kind_q4, x, 1, out);
}

static int encode_q5_k(const float *x, uint8_t *out) {
    return encode_min_super(&encode_kind_q5, x, 0, out);
}

static int encode_q5_k_search(const float *x, uint8_t *out) {
    return encode_min_super(&encode_kind_q5, x, 1, out);
}

static int encode_q6_k(const float *x, uint8_t *out) {
    return encode_q6_super(x, 0, out);
}

static int encode_q6_k_search(const float *x, uint8_t *out) {
    return encode_q6_super(x, 1, out);
}

/* ---- all types --------------------------------------------------------------------------------------------------- */

static const encode_type encode_types[] = {
    {"F32", 0, 1, 4, encode_f32, encode_f32},
    {"F16", 1, 1, 2, encode_f16, encode_f16},
    {"BF16", 30, 1, 2, encode_bf16, encode_bf16},
    {"Q8_0", 8, 32, 34, encode_q8_0, encode_q8_0_search},
    {"Q6_K", 14, 256, 210, encode_q6_k, encode_q6_k_search},
    {"Q5_K", 13, 256, 176, encode_q5_k, encode_q5_k_search},
    {"Q4_K", 12, 256, 144, encode_q4_k, encode_q4_k_search},
    {"Q4_0", 2, 32, 18, encode_q4_0, encode_q4_0_search},
    {"IQ4_NL", 20, 32, 18, encode_iq4_nl, encode_iq4_nl_search},
};

const encode_type *encode_find(const char *name) {
    for (size_t i = 0; i < sizeof encode_types / sizeof *encode_types; i++) {
        if (!strcasecmp(encode_types[i].name, name)) return &encode_types[i];
    }
    return NULL;
}
