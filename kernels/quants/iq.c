/* iq.c: the types with code books: IQ1, IQ2, IQ3. A code of 8 to 11 bits stands for 8 (IQ3: 4) elements, looked up in
 * grids.c; IQ2 and IQ3 keep the signs beside it. */
#include "quants.h"

/* Fills 8 elements of a book of 2 bits an element. */
static void quant_book_8(uint16_t entry, const int8_t values[4], int8_t *code) {
    for (int i = 0; i < 8; i++) code[i] = values[entry >> 2 * i & 3];
}

/* Bit i of `signs` turns element i around. */
static void quant_turn_8(uint8_t signs, int8_t *code) {
    for (int i = 0; i < 8; i++)
        if (signs >> i & 1) code[i] = (int8_t)-code[i];
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

static const int8_t quant_iq1_up[4] = {-7, 1, 9, 0}, quant_iq1_down[4] = {-9, -1, 7, 0};

/* f16 scale; 32 bytes: low 8 bits of the indices; 8 uint16 for 32 elements each: 4 x 3 high bits, 3 bits of scale,
 * 1 of shift */
void quant_codes_iq1_s(const uint8_t *block, int8_t *code) {
    for (int i = 0; i < 32; i++) {
        const uint32_t high = kern_load_u16(block + 34 + i / 4 * 2);
        const uint32_t index = block[2 + i] | (high >> 3 * (i % 4) & 7) << 8;
        quant_book_8(kern_grid_iq1s[index], high & 0x8000 ? quant_iq1_down : quant_iq1_up, code + 8 * i);
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
        quant_book_8(kern_grid_iq1s[index], high & 8 ? quant_iq1_down : quant_iq1_up, code + 8 * i);
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

static const int8_t quant_iq2_values[4] = {8, 25, 43, 0};

/* f16 scale; for 32 elements each: 4 indices, then 4 x 7 signs and 4 bits of scale in a uint32 */
void quant_codes_iq2_xxs(const uint8_t *block, int8_t *code) {
    for (int i = 0; i < 32; i++) {
        const uint8_t *group = block + 2 + i / 4 * 8;
        quant_book_8(kern_grid_iq2xxs[group[i % 4]], quant_iq2_values, code + 8 * i);
        quant_turn_8(quant_signs_of_7(quant_load_u32(group + 4) >> 7 * (i % 4) & 127), code + 8 * i);
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
        quant_book_8(kern_grid_iq2xs[both & 511], quant_iq2_values, code + 8 * i);
        quant_turn_8(quant_signs_of_7(both >> 9), code + 8 * i);
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
        quant_book_8(kern_grid_iq2s[index], quant_iq2_values, code + 8 * i);
        quant_turn_8(block[34 + i], code + 8 * i);
    }
}

void quant_scales_iq2_s(const uint8_t *block, float *scale, float *min) {
    (void)min;
    quant_scales_iq2(block, block + 74, scale);
}

/* ---- IQ3 --------------------------------------------------------------------------------------------------------- */

static void quant_book_4(uint16_t entry, const int8_t values[8], int8_t *code) {
    for (int i = 0; i < 4; i++) code[i] = values[entry >> 3 * i & 7];
}

/* f16 scale; 64 indices; for 32 elements each: 4 x 7 signs and 4 bits of scale in a uint32 */
void quant_codes_iq3_xxs(const uint8_t *block, int8_t *code) {
    static const int8_t values[8] = {4, 12, 20, 28, 36, 44, 52, 62};
    for (int i = 0; i < 64; i++) quant_book_4(kern_grid_iq3xxs[block[2 + i]], values, code + 4 * i);
    for (int i = 0; i < 32; i++)
        quant_turn_8(quant_signs_of_7(quant_load_u32(block + 66 + i / 4 * 4) >> 7 * (i % 4) & 127), code + 8 * i);
}

void quant_scales_iq3_xxs(const uint8_t *block, float *scale, float *min) {
    (void)min;
    const float d = kern_f16_to_f32(kern_load_u16(block));
    for (int i = 0; i < 16; i++) scale[i] = d * (0.5f + (float)(quant_load_u32(block + 66 + i / 2 * 4) >> 28)) * 0.5f;
}

/* f16 scale; 64 bytes: low 8 bits of the indices; 8 bytes: 8 high bits; 32 bytes of signs; 4 bytes: 2 x 4 bits of
 * scale for 32 elements each */
void quant_codes_iq3_s(const uint8_t *block, int8_t *code) {
    static const int8_t values[8] = {1, 3, 5, 7, 9, 11, 13, 15};
    for (int i = 0; i < 64; i++) {
        const uint32_t index = block[2 + i] | (uint32_t)(block[66 + i / 8] >> i % 8 & 1) << 8;
        quant_book_4(kern_grid_iq3s[index], values, code + 4 * i);
    }
    for (int i = 0; i < 32; i++) quant_turn_8(block[74 + i], code + 8 * i);
}

void quant_scales_iq3_s(const uint8_t *block, float *scale, float *min) {
    (void)min;
    const float d = kern_f16_to_f32(kern_load_u16(block));
    for (int i = 0; i < 16; i++) scale[i] = d * (float)(1 + 2 * (block[106 + i / 4] >> 4 * (i / 2 % 2) & 15));
}
