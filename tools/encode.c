/* encode.c: see encode.h: plain rounding, and the bytes of blocks. */
#include "encode.h"

#include <string.h>
#include <strings.h>

#include "encode_form.h"

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static void encode_put_f16(float d, uint8_t *out) {
    gguf_write_16(out, gguf_write_f16(d));
}

/* `bits` of each code, from bit `up` on, to a plane of zeros at `out`: run codes lie in successive bytes, 8/bits runs
 * on top of each other. */
static void encode_put_plane(const uint8_t *code, int n, int up, int run, int bits, uint8_t *out) {
    const int period = run * (8 / bits), mask = (1 << bits) - 1;
    for (int k = 0; k < n; k++)
        out[k / period * run + k % run] |= (uint8_t)((code[k] >> up & mask) << k % period / run * bits);
}

/* d, codes: Q4_0 and IQ4_NL; d, high bits, low bits: Q5_0; with m behind d: Q4_1, Q5_1. */
static void encode_put_q4_0(const encode_parts *p, uint8_t *out) {
    encode_put_f16(p->d, out);
    encode_put_plane(p->code, 32, 0, 16, 4, out + 2);
}

static void encode_put_q4_1(const encode_parts *p, uint8_t *out) {
    encode_put_f16(p->d, out);
    encode_put_f16(-p->dmin, out + 2);
    encode_put_plane(p->code, 32, 0, 16, 4, out + 4);
}

static void encode_put_q5_0(const encode_parts *p, uint8_t *out) {
    encode_put_f16(p->d, out);
    encode_put_plane(p->code, 32, 4, 1, 1, out + 2);
    encode_put_plane(p->code, 32, 0, 16, 4, out + 6);
}

static void encode_put_q5_1(const encode_parts *p, uint8_t *out) {
    encode_put_f16(p->d, out);
    encode_put_f16(-p->dmin, out + 2);
    encode_put_plane(p->code, 32, 4, 1, 1, out + 4);
    encode_put_plane(p->code, 32, 0, 16, 4, out + 8);
}

static void encode_put_q8_0(const encode_parts *p, uint8_t *out) {
    encode_put_f16(p->d, out);
    for (int i = 0; i < 32; i++) out[2 + i] = (uint8_t)(p->code[i] - 127);
}

/* 16 bytes of scales (low half) and minima (high half), codes, d, dmin. */
static void encode_put_q2_k(const encode_parts *p, uint8_t *out) {
    for (int i = 0; i < 16; i++) out[i] = (uint8_t)(p->scale[i] | p->min[i] << 4);
    encode_put_plane(p->code, 256, 0, 32, 2, out + 16);
    encode_put_f16(p->d, out + 80);
    encode_put_f16(p->dmin, out + 82);
}

/* High bits of the codes, low bits, 12 bytes of 16 scales of 6 bits, d. */
static void encode_put_q3_k(const encode_parts *p, uint8_t *out) {
    encode_put_plane(p->code, 256, 2, 32, 1, out);
    encode_put_plane(p->code, 256, 0, 32, 2, out + 32);
    for (int i = 0; i < 16; i++) {
        const int scale = p->scale[i] + 32;
        out[96 + i % 8] |= (uint8_t)((scale & 15) << 4 * (i / 8));
        out[104 + i % 4] |= (uint8_t)(scale >> 4 << 2 * (i / 4));
    }
    encode_put_f16(p->d, out + 108);
}

/* d, dmin, 12 bytes with eight scales and eight minima of 6 bits (kernels/quants/formats.c). */
static void encode_put_k_scales(const encode_parts *p, uint8_t *out) {
    encode_put_f16(p->d, out);
    encode_put_f16(p->dmin, out + 2);
    uint8_t *packed = out + 4;
    for (int i = 0; i < 4; i++) {
        packed[i] = (uint8_t)(p->scale[i] | p->scale[i + 4] >> 4 << 6);
        packed[i + 4] = (uint8_t)(p->min[i] | p->min[i + 4] >> 4 << 6);
        packed[i + 8] = (uint8_t)((p->scale[i + 4] & 15) | (p->min[i + 4] & 15) << 4);
    }
}

static void encode_put_q4_k(const encode_parts *p, uint8_t *out) {
    encode_put_k_scales(p, out);
    encode_put_plane(p->code, 256, 0, 32, 4, out + 16);
}

static void encode_put_q5_k(const encode_parts *p, uint8_t *out) {
    encode_put_k_scales(p, out);
    encode_put_plane(p->code, 256, 4, 32, 1, out + 16);
    encode_put_plane(p->code, 256, 0, 32, 4, out + 48);
}

/* Low halves of the codes, high quarters, 16 scales of 8 bits, d. */
static void encode_put_q6_k(const encode_parts *p, uint8_t *out) {
    encode_put_plane(p->code, 256, 0, 64, 4, out);
    encode_put_plane(p->code, 256, 4, 32, 2, out + 128);
    for (int i = 0; i < 16; i++) out[192 + i] = (uint8_t)p->scale[i];
    encode_put_f16(p->d, out + 208);
}

/* d, the high two bits of eight scales, their low four, codes. */
static void encode_put_iq4_xs(const encode_parts *p, uint8_t *out) {
    unsigned high = 0;
    encode_put_f16(p->d, out);
    for (int i = 0; i < 8; i++) {
        const int scale = p->scale[i] + 32;
        high |= (unsigned)(scale >> 4) << 2 * i;
        out[4 + i / 2] |= (uint8_t)((scale & 15) << 4 * (i % 2));
    }
    gguf_write_16(out + 2, (uint16_t)high);
    encode_put_plane(p->code, 256, 0, 16, 4, out + 8);
}

/* ---- plain rounding ---------------------------------------------------------------------------------------------- */

static void encode_ends(const float *x, int n, float *low, float *high) {
    *low = *high = x[0];
    for (int i = 1; i < n; i++) {
        *low = x[i] < *low ? x[i] : *low;
        *high = x[i] > *high ? x[i] : *high;
    }
}

/* ggml's rounding, to the bit: codes for the scale before it becomes f16; halves away from zero for Q8_0, else up. */
static int encode_plain_block(const encode_form *form, const float *x, encode_parts *parts) {
    float low = 0, high = 0;
    if (form->has_min) {
        encode_ends(x, form->block, &low, &high);
        parts->d = (high - low) / (float)form->high;
    } else {
        const float largest = encode_largest(x, form->block);
        parts->d = form->high == 127 ? fabsf(largest) / 127 : largest / (float)form->low;
    }
    parts->dmin = -low;
    parts->scale[0] = parts->min[0] = 1;
    const float inverse = encode_inverse(parts->d);
    for (int i = 0; i < form->block; i++) {
        const float scaled = (x[i] - low) * inverse;
        if (form->values)
            parts->code[i] = (uint8_t)encode_nearest_code(form, scaled);
        else if (form->high == 127)
            parts->code[i] = (uint8_t)(roundf(scaled) + 127);
        else
            parts->code[i] = (uint8_t)fminf((float)(form->high - form->low), scaled + ((float)-form->low + 0.5f));
    }
    return encode_to_f16(&parts->d) || encode_to_f16(&parts->dmin) ? -1 : 0;
}

int encode_set_super(const encode_form *form, const float *scales, const float *mins, encode_parts *parts) {
    parts->d = encode_largest(scales, form->n_parts) / (float)(form->scale_low ? form->scale_low : form->scale_high);
    parts->dmin = form->has_min ? encode_largest(mins, form->n_parts) / (float)form->min_high : 0;
    const int bad = encode_to_f16(&parts->d);
    return encode_to_f16(&parts->dmin) || bad ? -1 : 0;
}

/* Scales of parts from their ends, and these in relation to the largest. */
static int encode_plain_super(const encode_form *form, const float *x, encode_parts *parts) {
    const int n = form->block / form->n_parts;
    float scales[16] = {0}, mins[16] = {0}, values[ENCODE_MAX_BLOCK];
    for (int i = 0; i < form->n_parts; i++) {
        float low, high;
        encode_ends(x + i * n, n, &low, &high);
        low = low < 0 ? low : 0;
        scales[i] = form->has_min ? high / (float)form->high - low / (float)form->high
                                  : encode_largest(x + i * n, n) / (float)form->low;
        mins[i] = form->has_min ? -low : 0;
    }
    if (encode_set_super(form, scales, mins, parts)) return -1;
    const float inverse = encode_inverse(parts->d), inverse_min = encode_inverse(parts->dmin);
    for (int i = 0; i < form->n_parts; i++) {
        parts->scale[i] = encode_round(scales[i] * inverse, form->scale_low, form->scale_high);
        parts->min[i] = encode_round(mins[i] * inverse_min, 0, form->min_high);
        encode_set_codes(form, x, i, parts, values);
    }
    return 0;
}

int encode_plain(const encode_form *form, const float *x, encode_parts *parts) {
    return form->scale_high ? encode_plain_super(form, x, parts) : encode_plain_block(form, x, parts);
}

/* ---- all types --------------------------------------------------------------------------------------------------- */

static const encode_form encode_forms[] = {
    {32, 1, -127, 127, NULL, 0, 0, 0, 0, encode_put_q8_0},
    {32, 1, -8, 7, NULL, 0, 0, 0, 0, encode_put_q4_0},
    {32, 1, 0, 15, NULL, 0, 0, 1, 0, encode_put_q4_1},
    {32, 1, -16, 15, NULL, 0, 0, 0, 0, encode_put_q5_0},
    {32, 1, 0, 31, NULL, 0, 0, 1, 0, encode_put_q5_1},
    {32, 1, -127, 113, encode_iq4, 0, 0, 0, 0, encode_put_q4_0},
    {256, 16, 0, 3, NULL, 0, 15, 1, 15, encode_put_q2_k},
    {256, 16, -4, 3, NULL, -32, 31, 0, 0, encode_put_q3_k},
    {256, 8, 0, 15, NULL, 0, 63, 1, 63, encode_put_q4_k},
    {256, 8, 0, 31, NULL, 0, 63, 1, 63, encode_put_q5_k},
    {256, 16, -32, 31, NULL, -128, 127, 0, 0, encode_put_q6_k},
    {256, 8, -127, 113, encode_iq4, -32, 31, 0, 0, encode_put_iq4_xs},
};

static const encode_type encode_types[] = {
    {"F32", 0, 1, 4, NULL},
    {"F16", 1, 1, 2, NULL},
    {"BF16", 30, 1, 2, NULL},
    {"Q8_0", 8, 32, 34, &encode_forms[0]},
    {"Q4_0", 2, 32, 18, &encode_forms[1]},
    {"Q4_1", 3, 32, 20, &encode_forms[2]},
    {"Q5_0", 6, 32, 22, &encode_forms[3]},
    {"Q5_1", 7, 32, 24, &encode_forms[4]},
    {"IQ4_NL", 20, 32, 18, &encode_forms[5]},
    {"Q2_K", 10, 256, 84, &encode_forms[6]},
    {"Q3_K", 11, 256, 110, &encode_forms[7]},
    {"Q4_K", 12, 256, 144, &encode_forms[8]},
    {"Q5_K", 13, 256, 176, &encode_forms[9]},
    {"Q6_K", 14, 256, 210, &encode_forms[10]},
    {"IQ4_XS", 23, 256, 136, &encode_forms[11]},
};

const encode_type *encode_find(const char *name) {
    for (size_t i = 0; i < sizeof encode_types / sizeof *encode_types; i++) {
        if (!strcasecmp(encode_types[i].name, name)) return &encode_types[i];
    }
    return NULL;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

static int encode_float(const encode_type *type, float x, uint8_t *out) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (type->bytes == 4) {
        gguf_write_32(out, bits);
        return 0;
    }
    const uint16_t half = type->id == GGUF_WRITE_TENSOR_F16 ? gguf_write_f16(x) : gguf_write_bf16(x);
    const uint16_t infinity = type->id == GGUF_WRITE_TENSOR_F16 ? 0x7c00 : 0x7f80;
    gguf_write_16(out, half);
    return (half & infinity) == infinity ? -1 : 0;
}

int encode_nearest(const encode_type *type, const float *x, uint8_t *out) {
    encode_parts parts = {0};
    if (!type->form) return encode_float(type, *x, out);
    if (encode_plain(type->form, x, &parts)) return -1;
    encode_put(type, &parts, out);
    return 0;
}

int encode_search(const encode_type *type, const float *x, const float *weight, uint8_t *out) {
    encode_parts parts = {0};
    if (!type->form) return encode_float(type, *x, out);
    if (encode_scales(type, x, weight, &parts)) return -1;
    encode_put(type, &parts, out);
    return 0;
}

int encode_scales(const encode_type *type, const float *x, const float *weight, encode_parts *parts) {
    float ones[ENCODE_MAX_BLOCK];
    for (int i = 0; i < type->block && !weight; i++) ones[i] = 1;
    return encode_search_parts(type->form, x, weight ? weight : ones, parts);
}

float encode_code(const encode_type *type, encode_parts *parts, int k, float x) {
    const encode_form *form = type->form;
    const int part = k / (form->block / form->n_parts);
    const float scale = encode_part_scale(parts, part), min = form->has_min ? encode_part_min(parts, part) : 0;
    const int code = encode_nearest_code(form, (x + min) * encode_inverse(scale));
    parts->code[k] = (uint8_t)code;
    return scale * encode_value(form, code) - min;
}

void encode_put(const encode_type *type, const encode_parts *parts, uint8_t *out) {
    memset(out, 0, (size_t)type->bytes);
    type->form->put(parts, out);
}
