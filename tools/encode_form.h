/* encode_form.h: what the integer types differ in, and the parts that encode.c and encode_search.c share. The formats
 * are those of ggml (ggml-common.h); kernels/quants/ reads them. */
#ifndef TOOLS_ENCODE_FORM_H
#define TOOLS_ENCODE_FORM_H

#include <float.h>
#include <math.h>

#include "encode.h"
#include "gguf_write.h"

struct encode_form {
    int block, n_parts;        /* elements; parts that have a scale */
    int low, high;             /* the first and the last value of a code */
    const int8_t *values;      /* encode_iq4, or NULL: code c stands for c + low */
    int scale_low, scale_high; /* of the whole scales; both 0: there is one part and its scale is d */
    int has_min, min_high;     /* minima are 0..min_high times dmin; min_high 0: there is one, -dmin itself */
    void (*put)(const encode_parts *parts, uint8_t *out); /* to zeros */
};

/* The values of the codes of IQ4_NL and IQ4_XS, the middles between them and their distances. */
static const int8_t encode_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const float encode_iq4_border[15] = {-115.5f, -93.5f, -74,   -57,   -42, -28.5f, -16, -4.5f,
                                            7,       19,     31.5f, 45.5f, 61,  79,     101};
static const float encode_iq4_step[15] = {23, 21, 18, 16, 14, 13, 12, 11, 12, 12, 13, 15, 16, 20, 24};

/* To the nearest whole number between low and high; halves to even. */
static inline int encode_round(float x, int low, int high) {
    const float most = (float)high, least = (float)low;
    x = x > least ? x : least;
    x = x < most ? x : most;
    return (int)((x + 0x1.8p23f) - 0x1.8p23f);
}

/* 1/d, or 0 where that is no number to multiply with. */
static inline float encode_inverse(float d) {
    const float inverse = 1 / d;
    return fabsf(inverse) <= FLT_MAX ? inverse : 0;
}

/* Rounds *d to f16. 0, or -1 when it is too large. */
static inline int encode_to_f16(float *d) {
    *d = gguf_write_from_f16(gguf_write_f16(*d));
    return isfinite(*d) ? 0 : -1;
}

/* The number with the largest magnitude, with its sign; of equal ones the first. */
static inline float encode_largest(const float *x, int n) {
    float largest = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(largest)) largest = x[i];
    return largest;
}

/* The code whose value is nearest to x. */
static inline int encode_nearest_code(const encode_form *form, float x) {
    if (!form->values) return encode_round(x, form->low, form->high) - form->low;
    int code = 0;
    for (int i = 0; i < 15; i++) code += x >= encode_iq4_border[i];
    return code;
}

static inline float encode_value(const encode_form *form, int code) {
    return (float)(form->values ? form->values[code] : code + form->low);
}

static inline float encode_part_scale(const encode_parts *parts, int part) {
    return parts->d * (float)parts->scale[part];
}

static inline float encode_part_min(const encode_parts *parts, int part) {
    return parts->dmin * (float)parts->min[part];
}

/* The codes of a part: the nearest ones for the scale and the minimum it has; q gets their values. */
static inline void encode_set_codes(const encode_form *form, const float *x, int part, encode_parts *parts, float *q) {
    const int n = form->block / form->n_parts;
    const float inverse = encode_inverse(encode_part_scale(parts, part)), min = encode_part_min(parts, part);
    const float low = (float)form->low, high = (float)form->high;
    uint8_t *code = parts->code + part * n;
    x += part * n, q += part * n;
    if (form->values) {
        for (int k = 0; k < n; k++) {
            code[k] = (uint8_t)encode_nearest_code(form, (x[k] + min) * inverse);
            q[k] = (float)form->values[code[k]];
        }
        return;
    }
    for (int k = 0; k < n; k++) {
        float y = (x[k] + min) * inverse;
        y = y > low ? y : low;
        y = y < high ? y : high;
        q[k] = (y + 0x1.8p23f) - 0x1.8p23f;
        code[k] = (uint8_t)(int)(q[k] - low);
    }
}

/* encode.c: plain rounding; 0 or -1. */
int encode_plain(const encode_form *form, const float *x, encode_parts *parts);
/* d and dmin such that the largest scale and minimum get the largest whole numbers. 0, or -1. */
int encode_set_super(const encode_form *form, const float *scales, const float *mins, encode_parts *parts);

/* encode_search.c; weight [block]. 0 or -1. The second does without the instructions that the first looks for; the
 * result is the same. */
int encode_search_parts(const encode_form *form, const float *x, const float *weight, encode_parts *parts);
int encode_search_plain(const encode_form *form, const float *x, const float *weight, encode_parts *parts);

#endif
