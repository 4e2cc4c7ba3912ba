/* attention_q4.c: keys and values of 4 bits (KERN_KV_Q4). They are kept with one scale for each token and head, and
 * become codes of int8 when they are used: the products are those of attention.c. */
#include "../internal.h"

#include <math.h>

/* Codes -8 to 7 for -7.5 to 7.5, both ends half a step off. The scale is not negative, as pv_q8 wants it. */
static void ref_quantize_row_q4(const float *x, int64_t n, int8_t *codes, float *scale) {
    float amax = 0;
    int finite = 1;
    for (int64_t i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        if (!(a < INFINITY)) finite = 0;
        if (a > amax) amax = a;
    }
    int empty = !finite || amax < KERN_AMAX_MIN;
    float inv = empty ? 0.0f : 7.5f / amax;
    *scale = !finite ? kern_bits_to_f32(KERN_NAN_BITS) : empty ? 0.0f : amax / 7.5f;
    for (int64_t i = 0; i < n; i++) {
        float code = empty ? 0.0f : rintf(x[i] * inv);
        codes[i] = (int8_t)(code > 7 ? 7 : code);
    }
}

static void ref_unpack_q4(const uint8_t *packed, int64_t n, int8_t *low, int8_t *high) {
    for (int64_t i = 0; i < n; i++) {
        low[i] = (int8_t)((packed[i] & 15) - 8);
        high[i] = (int8_t)((packed[i] >> 4) - 8);
    }
}

void kern_table_ref_attention_q4(kern_table *table) {
    table->quantize_row_q4 = ref_quantize_row_q4;
    table->unpack_q4 = ref_unpack_q4;
}
