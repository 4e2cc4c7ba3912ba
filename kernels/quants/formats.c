/* formats.c: a row for every integer type: where a block keeps the bits of its codes, and how its scales are read.
 * See quants.h. */
#include "quants.h"

/* ---- scales ------------------------------------------------------------------------------------------------------
 * All products are exact: an f16 has 11 bits, what it is multiplied with at most 8. */

static float quant_f16(const uint8_t *p) {
    return kern_f16_to_f32(kern_load_u16(p));
}

static void quant_fill(float *scale, int n, float value) {
    for (int i = 0; i < n; i++) scale[i] = value;
}

/* Q4_0, Q5_0, Q8_0, IQ4_NL */
static void quant_scales_one(const uint8_t *block, float *scale, float *min) {
    (void)min;
    quant_fill(scale, 2, quant_f16(block));
}

/* Q4_1, Q5_1 */
static void quant_scales_pair(const uint8_t *block, float *scale, float *min) {
    quant_fill(scale, 2, quant_f16(block));
    quant_fill(min, 2, quant_f16(block + 2));
}

static void quant_scales_tq1_0(const uint8_t *block, float *scale, float *min) {
    (void)min;
    quant_fill(scale, 16, quant_f16(block + 52));
}

static void quant_scales_tq2_0(const uint8_t *block, float *scale, float *min) {
    (void)min;
    quant_fill(scale, 16, quant_f16(block + 64));
}

/* 16 bytes: 4 bits of scale, 4 bits of minimum; both have an f16 factor behind the codes */
static void quant_scales_q2_k(const uint8_t *block, float *scale, float *min) {
    const float d = quant_f16(block + 80), dmin = quant_f16(block + 82);
    for (int i = 0; i < 16; i++) {
        scale[i] = d * (float)(block[i] & 15);
        min[i] = -(dmin * (float)(block[i] >> 4));
    }
}

/* 12 bytes: 16 scales of 6 bits; the low four in bytes 0..7, the high two in bytes 8..11 */
static void quant_scales_q3_k(const uint8_t *block, float *scale, float *min) {
    (void)min;
    const uint8_t *s = block + 96;
    const float d = quant_f16(block + 108);
    for (int i = 0; i < 16; i++) {
        const int low = s[i % 8] >> 4 * (i / 8) & 15, high = s[8 + i % 4] >> 2 * (i / 4) & 3;
        scale[i] = d * (float)((low | high << 4) - 32);
    }
}

/* Q4_K, Q5_K. 12 bytes: 8 scales and 8 minima of 6 bits. The first four of each are the low bits of bytes 0..7; of the
 * others, bytes 8..11 have four bits of scale and four of minimum, and the two bits left over in bytes 0..7 the rest.
 */
static void quant_scales_q4_k(const uint8_t *block, float *scale, float *min) {
    const uint8_t *s = block + 4;
    const float d = quant_f16(block), dmin = quant_f16(block + 2);
    for (int i = 0; i < 8; i++) {
        const int a = i < 4 ? s[i] & 63 : (s[4 + i] & 15) | s[i - 4] >> 6 << 4;
        const int b = i < 4 ? s[4 + i] & 63 : s[4 + i] >> 4 | s[i] >> 6 << 4;
        quant_fill(scale + 2 * i, 2, d * (float)a);
        quant_fill(min + 2 * i, 2, -(dmin * (float)b));
    }
}

/* 16 int8 */
static void quant_scales_q6_k(const uint8_t *block, float *scale, float *min) {
    (void)min;
    const float d = quant_f16(block + 208);
    for (int i = 0; i < 16; i++) scale[i] = d * (float)((block[192 + i] ^ 128) - 128);
}

/* 8 scales of 6 bits: the high two in a uint16, the low four in 4 bytes */
static void quant_scales_iq4_xs(const uint8_t *block, float *scale, float *min) {
    (void)min;
    const float d = quant_f16(block);
    const int high = kern_load_u16(block + 2);
    for (int i = 0; i < 8; i++) {
        const int six = (block[4 + i / 2] >> 4 * (i % 2) & 15) | (high >> 2 * i & 3) << 4;
        quant_fill(scale + 2 * i, 2, d * (float)(six - 32));
    }
}

/* E8M0: a power of two, 2^(e - 127); halved, because the codes are doubled (OCP Microscaling Formats 1.0). */
static void quant_scales_mxfp4(const uint8_t *block, float *scale, float *min) {
    (void)min;
    const uint32_t e = block[0];
    quant_fill(scale, 2, kern_bits_to_f32(e < 2 ? 0x00200000u << e : (e - 1) << 23));
}

/* Unsigned E4M3 for 16 elements each, halved; 0x7f is 0. */
static void quant_scales_nvfp4(const uint8_t *block, float *scale, float *min) {
    (void)min;
    for (int i = 0; i < 4; i++) {
        const uint32_t exponent = block[i] >> 3 & 15, mantissa = block[i] & 7;
        if (block[i] == 0x7f)
            scale[i] = 0.0f;
        else if (exponent == 0)
            scale[i] = (float)mantissa * 0x1p-10f;
        else
            scale[i] = kern_bits_to_f32((exponent + 119) << 23 | mantissa << 20);
    }
}

/* ---- codes without planes ---------------------------------------------------------------------------------------- */

/* Five digits to the base 3 in a byte, as a fraction of 256: multiplied by 3, the digit is what runs over. */
static void quant_codes_tq1_0(const uint8_t *block, int8_t *code) {
    static const struct { uint8_t start, n, digits; } part[] = {{0, 32, 5}, {32, 16, 5}, {48, 4, 4}};
    static const uint8_t power[] = {1, 3, 9, 27, 81};
    for (int p = 0; p < 3; p++)
        for (int digit = 0; digit < part[p].digits; digit++)
            for (int i = 0; i < part[p].n; i++) {
                const uint8_t rest = (uint8_t)(block[part[p].start + i] * power[digit]);
                *code++ = (int8_t)((rest * 3 >> 8) - 1);
            }
}

/* ---- the formats ------------------------------------------------------------------------------------------------- */

/* Four-bit codes that are not evenly spaced: IQ4_NL and IQ4_XS, and twice the values of E2M1. */
static const int8_t quant_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const int8_t quant_fp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static const kern_format quant_formats[KERN_TYPE_END] = {
    [KERN_Q4_0] = {.low = {2, 16, 4}, .n_f16 = 1, .offset = 8, .scales = quant_scales_one},
    [KERN_Q4_1] = {.low = {4, 16, 4}, .n_f16 = 2, .has_min = 1, .scales = quant_scales_pair},
    [KERN_Q5_0] = {.low = {6, 16, 4}, .high = {2, 1, 1}, .n_f16 = 1, .offset = 16, .scales = quant_scales_one},
    [KERN_Q5_1] = {.low = {8, 16, 4}, .high = {4, 1, 1}, .n_f16 = 2, .has_min = 1, .scales = quant_scales_pair},
    [KERN_Q8_0] = {.low = {2, 32, 8}, .n_f16 = 1, .offset = 128, .scales = quant_scales_one},
    [KERN_Q2_K] = {.low = {16, 32, 2},
                   .f16_at = 80,
                   .n_f16 = 2,
                   .n_bytes = 16,
                   .halves = 1,
                   .has_min = 1,
                   .scales = quant_scales_q2_k},
    [KERN_Q3_K] = {.low = {32, 32, 2},
                   .high = {0, 32, 1},
                   .f16_at = 108,
                   .n_f16 = 1,
                   .bytes_at = 96,
                   .n_bytes = 12,
                   .halves = 1,
                   .offset = 4,
                   .scales = quant_scales_q3_k},
    [KERN_Q4_K] =
        {.low = {16, 32, 4}, .n_f16 = 2, .bytes_at = 4, .n_bytes = 12, .has_min = 1, .scales = quant_scales_q4_k},
    [KERN_Q5_K] = {.low = {48, 32, 4},
                   .high = {16, 32, 1},
                   .n_f16 = 2,
                   .bytes_at = 4,
                   .n_bytes = 12,
                   .has_min = 1,
                   .scales = quant_scales_q4_k},
    [KERN_Q6_K] = {.low = {0, 64, 4},
                   .high = {128, 32, 2},
                   .f16_at = 208,
                   .n_f16 = 1,
                   .bytes_at = 192,
                   .n_bytes = 16,
                   .halves = 1,
                   .offset = 32,
                   .scales = quant_scales_q6_k},
    [KERN_IQ4_NL] = {.low = {2, 16, 4}, .n_f16 = 1, .values = quant_iq4_values, .scales = quant_scales_one},
    [KERN_IQ4_XS] = {.low = {8, 16, 4},
                     .n_f16 = 1,
                     .bytes_at = 2,
                     .n_bytes = 6,
                     .values = quant_iq4_values,
                     .scales = quant_scales_iq4_xs},
    [KERN_MXFP4] = {.low = {1, 16, 4}, .n_bytes = 1, .values = quant_fp4_values, .scales = quant_scales_mxfp4},
    [KERN_NVFP4] =
        {.low = {4, 8, 4}, .n_bytes = 4, .halves = 1, .values = quant_fp4_values, .scales = quant_scales_nvfp4},
    [KERN_TQ2_0] = {.low = {0, 32, 2}, .f16_at = 64, .n_f16 = 1, .offset = 1, .scales = quant_scales_tq2_0},
    [KERN_TQ1_0] = {.f16_at = 52, .n_f16 = 1, .scales = quant_scales_tq1_0, .codes = quant_codes_tq1_0},
    [KERN_IQ1_S] = {.n_f16 = 1, .scales = quant_scales_iq1_s, .codes = quant_codes_iq1_s},
    [KERN_IQ1_M] = {.halves = 1, .scales = quant_scales_iq1_m, .codes = quant_codes_iq1_m},
    [KERN_IQ2_XXS] = {.n_f16 = 1, .scales = quant_scales_iq2_xxs, .codes = quant_codes_iq2_xxs},
    [KERN_IQ2_XS] = {.n_f16 = 1, .halves = 1, .scales = quant_scales_iq2_xs, .codes = quant_codes_iq2_xs},
    [KERN_IQ2_S] = {.n_f16 = 1, .halves = 1, .scales = quant_scales_iq2_s, .codes = quant_codes_iq2_s},
    [KERN_IQ3_XXS] = {.n_f16 = 1, .scales = quant_scales_iq3_xxs, .codes = quant_codes_iq3_xxs},
    [KERN_IQ3_S] = {.n_f16 = 1, .scales = quant_scales_iq3_s, .codes = quant_codes_iq3_s},
};

const kern_format *kern_format_of(uint32_t type) {
    return &quant_formats[type];
}

/* ---- codes in planes --------------------------------------------------------------------------------------------- */

/* The runs of a plane: elements k .. k+run-1 are `bits` bits of the bytes at the return value, from bit *shift on. */
static int quant_run(kern_plane p, int k, int *shift) {
    const int period = p.run * (8 / p.bits);
    *shift = k % period / p.run * p.bits;
    return p.start + k / period * p.run;
}

/* Puts a plane into the bits `up` and higher of raw, where zeros are; and from there into the plane. */
static void quant_get_plane(kern_plane p, int up, const uint8_t *block, int n, uint8_t *raw) {
    for (int k = 0, shift; k < n && p.run && p.bits; k += p.run) {
        const uint8_t *at = block + quant_run(p, k, &shift);
        int i = 0;
        for (; i + 8 <= p.run; i += 8) { /* eight bytes in one register: nothing passes from one to the next */
            uint64_t from, to;
            memcpy(&from, at + i, sizeof from);
            memcpy(&to, raw + k + i, sizeof to);
            to |= (from >> shift & 0x0101010101010101u * ((1u << p.bits) - 1)) << up;
            memcpy(raw + k + i, &to, sizeof to);
        }
        for (; i < p.run; i++) raw[k + i] |= (uint8_t)((at[i] >> shift & ((1 << p.bits) - 1)) << up);
    }
}

static void quant_put_plane(kern_plane p, int up, const uint8_t *raw, int n, uint8_t *block) {
    for (int k = 0, shift; k < n && p.run && p.bits; k += p.run) {
        uint8_t *at = block + quant_run(p, k, &shift);
        for (int i = 0; i < p.run; i++) at[i] |= (uint8_t)((raw[k + i] >> up & ((1 << p.bits) - 1)) << shift);
    }
}

void kern_raw_get(const kern_format *f, const uint8_t *block, int n, uint8_t *raw) {
    memset(raw, 0, (size_t)n);
    quant_get_plane(f->low, 0, block, n, raw);
    quant_get_plane(f->high, f->low.bits, block, n, raw);
    for (int k = 0; k < n && f->offset == 128; k++) raw[k] ^= 128; /* Q8_0 has signed codes */
}

void kern_raw_put(const kern_format *f, const uint8_t *raw, int n, uint8_t *block) {
    uint8_t plain[QUANT_MAX_BLOCK] = {0};
    for (int k = 0; k < n; k++) plain[k] = raw[k] ^ (f->offset == 128 ? 128 : 0);
    quant_put_plane(f->low, 0, plain, n, block);
    quant_put_plane(f->high, f->low.bits, plain, n, block);
}

void kern_decode(uint32_t type, const uint8_t *block, kern_codes *out) {
    const kern_format *f = &quant_formats[type];
    f->scales(block, out->scale, out->min);
    if (f->codes) {
        f->codes(block, out->code);
        return;
    }
    const int n = kern_type_get(type).block;
    uint8_t raw[QUANT_MAX_BLOCK];
    kern_raw_get(f, block, n, raw);
    for (int k = 0; k < n; k++) out->code[k] = (int8_t)(f->values ? f->values[raw[k]] : raw[k] - f->offset);
}
