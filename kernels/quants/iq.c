/* iq.c: the types with code books: IQ1, IQ2, IQ3. A code of 8 to 11 bits stands for 8 (IQ3: 4) elements, looked up in
 * grids.c; IQ2 and IQ3 keep the signs beside it. */
#include "quants.h"

/* Eight bytes side by side in a register (the machine is little-endian, as the file is). */
#define QUANT_EACH(byte) ((byte)*0x0101010101010101u)

/* The elements of an entry of 2 bits each, a byte each. */
static uint64_t quant_spread_8(uint64_t entry) {
    uint64_t x = (entry | entry << 24) & 0x000000ff000000ffu;
    x = (x | x << 12) & 0x000f000f000f000fu;
    return (x | x << 6) & 0x0303030303030303u;
}

/* Writes 8 codes given as magnitudes below 64; bit i of `signs` turns element i around. */
static void quant_put_8(uint64_t magnitude, uint8_t signs, int8_t *code) {
    /* bit i to byte i; there it makes the highest bit, and that the whole byte */
    const uint64_t bits = QUANT_EACH((uint64_t)signs) & 0x8040201008040201u;
    const uint64_t negative = (bits + QUANT_EACH(0x7fu)) >> 7 & QUANT_EACH(1u);
    /* 64 + m, or 64 - m: no byte carries into the next */
    uint64_t v = QUANT_EACH(64u) + magnitude - 2 * (magnitude & negative * 0xff);
    v = (v + QUANT_EACH(64u)) ^ QUANT_EACH(128u); /* less 64 */
    memcpy(code, &v, 8);
}

/* 7 signs are stored; the eighth makes the number of negative ones even. */
static uint8_t quant_signs_of_7(uint32_t seven) {
    uint32_t odd = seven ^ seven >> 4;
    odd ^= odd >> 2;
    odd ^= odd >> 1;
    return (uint8_t)(seven | (odd & 1) << 7);
}

static uint32_t quant_load_u32(const uint8_t *p) {
    return kern_load_u16(p) | (uint32_t)kern_load_u16(p + 2) << 16;
}

/* ---- IQ1: -1, 0, 1, all shifted by +1/8 or -1/8: codes are 8 times that, scales an eighth -------------------------
 */

/* Element 0, 1, 2 is -8, 0, 8, and 1 more or less. */
static void quant_put_iq1(uint32_t index, uint32_t down, int8_t *code) {
    const uint64_t v = 8 * quant_spread_8(kern_grid_iq1s[index]) + (down ? QUANT_EACH(128u - 9) : QUANT_EACH(128u - 7));
    const uint64_t flipped = v ^ QUANT_EACH(128u); /* less 128 */
    memcpy(code, &flipped, 8);
}

/* f16 scale; 32 bytes: low 8 bits of the indices; 8 uint16 for 32 elements each: 4 x 3 high bits, 3 bits of scale,
 * 1 of shift */
void quant_codes_iq1_s(const uint8_t *block, int8_t *code) {
    for (int i = 0; i < 32; i++) {
        const uint32_t high = kern_load_u16(block + 34 + i / 4 * 2);
        const uint32_t index = block[2 + i] | (high >> 3 * (i % 4) & 7) << 8;
        quant_put_iq1(index, high & 0x8000, code + 8 * i);
    }
}

void quant_scales_iq1_s(const uint8_t *block, float *scale, float *min) {
    (void)min;
    const float d = kern_f16_to_f32(kern_load_u16(block));
    for (int i = 0; i < 16; i++)
        scale[i] = d * (float)(2 * (kern_load_u16(block + 34 + i / 2 * 2) >> 12 & 7) + 1) * 0.125f;
}

/* 32 bytes: low 8 bits of the indices; 16 bytes: 2 x (3 high bits, 1 of shift); 4 uint16: 4 x 3 bits of scale for 16
 * elements each, and in the highest 4 bits a quarter of the f16 scale */
void quant_codes_iq1_m(const uint8_t *block, int8_t *code) {
    for (int i = 0; i < 32; i++) {
        const uint32_t high = block[32 + i / 2] >> 4 * (i % 2);
        const uint32_t index = block[i] | (high & 7) << 8;
        quant_put_iq1(index, high & 8, code + 8 * i);
    }
}

uint16_t quant_f16_iq1_m(const uint8_t *block) {
    uint32_t bits = 0;
    for (int i = 0; i < 4; i++) bits |= (uint32_t)(kern_load_u16(block + 48 + 2 * i) >> 12) << 4 * i;
    return (uint16_t)bits;
}

void quant_scales_iq1_m(const uint8_t *block, float *scale, float *min) {
    (void)min;
    const float d = kern_f16_to_f32(quant_f16_iq1_m(block));
    for (int i = 0; i < 16; i++)
        scale[i] = d * (float)(2 * (kern_load_u16(block + 48 + i / 4 * 2) >> 3 * (i % 4) & 7) + 1) * 0.125f;
}

/* ---- IQ2 --------------------------------------------------------------------------------------------------------- */

/* Element 0, 1, 2 is 8, 25, 43. */
static uint64_t quant_iq2(uint16_t entry) {
    const uint64_t x = quant_spread_8(entry);
    return QUANT_EACH(8u) + 17 * (x & QUANT_EACH(1u)) + 35 * (x >> 1 & QUANT_EACH(1u));
}

/* f16 scale; for 32 elements each: 4 indices, then 4 x 7 signs and 4 bits of scale in a uint32 */
void quant_codes_iq2_xxs(const uint8_t *block, int8_t *code) {
    for (int i = 0; i < 32; i++) {
        const uint8_t *group = block + 2 + i / 4 * 8;
        const uint8_t signs = quant_signs_of_7(quant_load_u32(group + 4) >> 7 * (i % 4) & 127);
        quant_put_8(quant_iq2(kern_grid_iq2xxs[group[i % 4]]), signs, code + 8 * i);
    }
}

void quant_scales_iq2_xxs(const uint8_t *block, float *scale, float *min) {
    (void)min;
    const float d = kern_f16_to_f32(kern_load_u16(block));
    for (int i = 0; i < 16; i++)
        scale[i] = d * (0.5f + (float)(quant_load_u32(block + 2 + i / 2 * 8 + 4) >> 28)) * 0.25f;
}

/* f16 scale; 32 uint16: index of 9 bits, 7 signs; 8 bytes: 4 bits of scale for 16 elements each */
void quant_codes_iq2_xs(const uint8_t *block, int8_t *code) {
    for (int i = 0; i < 32; i++) {
        const uint32_t both = kern_load_u16(block + 2 + 2 * i);
        quant_put_8(quant_iq2(kern_grid_iq2xs[both & 511]), quant_signs_of_7(both >> 9), code + 8 * i);
    }
}

static void quant_scales_iq2(const uint8_t *block, const uint8_t *nibbles, float *scale) {
    const float d = kern_f16_to_f32(kern_load_u16(block));
    for (int i = 0; i < 16; i++) scale[i] = d * (0.5f + (float)(nibbles[i / 2] >> 4 * (i % 2) & 15)) * 0.25f;
}

void quant_scales_iq2_xs(const uint8_t *block, float *scale, float *min) {
    (void)min;
    quant_scales_iq2(block, block + 66, scale);
}

/* f16 scale; 32 bytes: low 8 bits of the indices; 32 bytes of signs; 8 bytes: 4 x 2 high bits; 8 bytes of scales */
void quant_codes_iq2_s(const uint8_t *block, int8_t *code) {
    for (int i = 0; i < 32; i++) {
        const uint32_t index = block[2 + i] | (uint32_t)(block[66 + i / 4] >> 2 * (i % 4) & 3) << 8;
        quant_put_8(quant_iq2(kern_grid_iq2s[index]), block[34 + i], code + 8 * i);
    }
}

void quant_scales_iq2_s(const uint8_t *block, float *scale, float *min) {
    (void)min;
    quant_scales_iq2(block, block + 74, scale);
}

/* ---- IQ3 --------------------------------------------------------------------------------------------------------- */

/* Two entries of 4 elements of 3 bits each, a byte each. */
static uint64_t quant_spread_4_4(uint64_t a, uint64_t b) {
    const uint64_t x = a | b << 32;
    return (x & 0x0000000700000007u) | (x & 0x0000003800000038u) << 5 | (x & 0x000001c0000001c0u) << 10 |
           (x & 0x00000e0000000e00u) << 15;
}

/* f16 scale; 64 indices; for 32 elements each: 4 x 7 signs and 4 bits of scale in a uint32 */
void quant_codes_iq3_xxs(const uint8_t *block, int8_t *code) {
    for (int i = 0; i < 32; i++) {
        const uint64_t x = quant_spread_4_4(kern_grid_iq3xxs[block[2 + 2 * i]], kern_grid_iq3xxs[block[3 + 2 * i]]);
        const uint64_t is_7 = x & x >> 1 & x >> 2 & QUANT_EACH(1u); /* 4 + 8x, but 62 for 7 */
        const uint8_t signs = quant_signs_of_7(quant_load_u32(block + 66 + i / 4 * 4) >> 7 * (i % 4) & 127);
        quant_put_8(QUANT_EACH(4u) + 8 * x + 2 * is_7, signs, code + 8 * i);
    }
}

void quant_scales_iq3_xxs(const uint8_t *block, float *scale, float *min) {
    (void)min;
    const float d = kern_f16_to_f32(kern_load_u16(block));
    for (int i = 0; i < 16; i++) scale[i] = d * (0.5f + (float)(quant_load_u32(block + 66 + i / 2 * 4) >> 28)) * 0.5f;
}

/* f16 scale; 64 bytes: low 8 bits of the indices; 8 bytes: 8 high bits; 32 bytes of signs; 4 bytes: 2 x 4 bits of
 * scale for 32 elements each */
void quant_codes_iq3_s(const uint8_t *block, int8_t *code) {
    for (int i = 0; i < 32; i++) {
        const uint32_t high = (uint32_t)block[66 + i / 4] >> 2 * (i % 4);
        const uint64_t x = quant_spread_4_4(kern_grid_iq3s[block[2 + 2 * i] | (high & 1) << 8],
                                            kern_grid_iq3s[block[3 + 2 * i] | (high & 2) << 7]);
        quant_put_8(QUANT_EACH(1u) + 2 * x, block[74 + i], code + 8 * i);
    }
}

void quant_scales_iq3_s(const uint8_t *block, float *scale, float *min) {
    (void)min;
    const float d = kern_f16_to_f32(kern_load_u16(block));
    for (int i = 0; i < 16; i++) scale[i] = d * (float)(1 + 2 * (block[106 + i / 4] >> 4 * (i / 2 % 2) & 15));
}
