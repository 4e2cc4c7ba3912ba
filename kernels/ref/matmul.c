/* matmul.c: the definition of quantize() and of the matrix products.
 *
 * A matrix product is written once per weight type as three loops - token, output row, input - and reads weights from
 * their panels (see kernels.h). The only freedom a faster version has is which outputs it computes at the same time. */
#include "../internal.h"

#include <math.h>

/* ---- activations to int8 ----------------------------------------------------------------------------------------- */

static void ref_quantize_block(const float *x, int8_t *codes, float *scale, int32_t *sum) {
    float amax = 0;
    int finite = 1;
    for (int i = 0; i < KERN_BLOCK; i++) {
        float a = fabsf(x[i]);
        if (!(a < INFINITY)) finite = 0;
        if (a > amax) amax = a;
    }
    if (!finite || amax < KERN_AMAX_MIN) {
        memset(codes, 0, KERN_BLOCK);
        *scale = finite ? 0.0f : kern_bits_to_f32(KERN_NAN_BITS);
        *sum = 0;
        return;
    }
    float inv = 127.0f / amax;
    *scale = amax / 127.0f;
    *sum = 0;
    for (int i = 0; i < KERN_BLOCK; i++) {
        codes[i] = (int8_t)rintf(x[i] * inv);
        *sum += codes[i];
    }
}

static void ref_quantize(const float *x, int64_t n, int8_t *codes, float *scale, int32_t *sum) {
    for (int64_t b = 0; b < n / KERN_BLOCK; b++)
        ref_quantize_block(x + b * KERN_BLOCK, codes + b * KERN_BLOCK, scale + b, sum + b);
}

/* ---- float weights: panel [cols][16] ----------------------------------------------------------------------------- */

static float ref_weight_f32(const uint8_t *p) {
    return kern_load_f32(p);
}
static float ref_weight_f16(const uint8_t *p) {
    return kern_f16_to_f32(kern_load_u16(p));
}
static float ref_weight_bf16(const uint8_t *p) {
    return kern_bf16_to_f32(kern_load_u16(p));
}

static inline void ref_matmul_float(uint32_t type, float (*weight)(const uint8_t *), int64_t bytes, const void *panels,
                                    int64_t rows, int64_t cols, const kern_act *act, int64_t n, float *y, int64_t ldy) {
    int64_t panel_bytes = (int64_t)kern_panel_bytes(type, cols);
    for (int64_t t = 0; t < n; t++) {
        const float *x = act->x + t * cols; /* [cols] */
        for (int64_t row = 0; row < rows; row++) {
            const uint8_t *panel = (const uint8_t *)panels + row / KERN_PANEL * panel_bytes;
            int64_t r = row % KERN_PANEL;
            float acc = 0;
            for (int64_t k = 0; k < cols; k++) acc = fmaf(weight(panel + (k * KERN_PANEL + r) * bytes), x[k], acc);
            y[t * ldy + row] = acc;
        }
    }
}

static void ref_matmul_f32(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n, float *y,
                           int64_t ldy) {
    ref_matmul_float(KERN_F32, ref_weight_f32, 4, panels, rows, cols, act, n, y, ldy);
}

static void ref_matmul_f16(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n, float *y,
                           int64_t ldy) {
    ref_matmul_float(KERN_F16, ref_weight_f16, 2, panels, rows, cols, act, n, y, ldy);
}

static void ref_matmul_bf16(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n, float *y,
                            int64_t ldy) {
    ref_matmul_float(KERN_BF16, ref_weight_bf16, 2, panels, rows, cols, act, n, y, ldy);
}

/* ---- integer weights --------------------------------------------------------------------------------------------- */

/* sum of (code - 8) * act over a block of 32 inputs of row r; codes [4][64], act [32] */
static int32_t ref_dot_q4_0(const uint8_t *codes, int64_t r, const int8_t *act) {
    int32_t sum = 0;
    for (int i = 0; i < 16; i++) {
        int byte = codes[i / 4 * 64 + 4 * r + i % 4];
        sum += ((byte & 15) - 8) * act[i];
        sum += ((byte >> 4) - 8) * act[16 + i];
    }
    return sum;
}

/* sum of (code - 128) * act; codes [8][64], act [32] */
static int32_t ref_dot_q8_0(const uint8_t *codes, int64_t r, const int8_t *act) {
    int32_t sum = 0;
    for (int i = 0; i < 32; i++) sum += (codes[i / 4 * 64 + 4 * r + i % 4] - 128) * act[i];
    return sum;
}

static inline void ref_matmul_int(uint32_t type, int32_t (*dot)(const uint8_t *, int64_t, const int8_t *),
                                  int64_t code_bytes, const void *panels, int64_t rows, int64_t cols,
                                  const kern_act *act, int64_t n, float *y, int64_t ldy) {
    int64_t panel_bytes = (int64_t)kern_panel_bytes(type, cols), n_blocks = cols / KERN_BLOCK;
    for (int64_t t = 0; t < n; t++) {
        const int8_t *act_codes = act->codes + t * cols;    /* [n_blocks][32] */
        const float *act_scale = act->scale + t * n_blocks; /* [n_blocks] */
        for (int64_t row = 0; row < rows; row++) {
            const uint8_t *codes = (const uint8_t *)panels + row / KERN_PANEL * panel_bytes;
            const uint8_t *scales = codes + n_blocks * code_bytes; /* [n_blocks][16] f16 */
            int64_t r = row % KERN_PANEL;
            float acc = 0;
            for (int64_t b = 0; b < n_blocks; b++) {
                float w_scale = kern_f16_to_f32(kern_load_u16(scales + (b * KERN_PANEL + r) * 2));
                float scale = w_scale * act_scale[b];
                acc = fmaf((float)dot(codes + b * code_bytes, r, act_codes + b * KERN_BLOCK), scale, acc);
            }
            y[t * ldy + row] = acc;
        }
    }
}

static void ref_matmul_q4_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n, float *y,
                            int64_t ldy) {
    ref_matmul_int(KERN_Q4_0, ref_dot_q4_0, 256, panels, rows, cols, act, n, y, ldy);
}

static void ref_matmul_q8_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n, float *y,
                            int64_t ldy) {
    ref_matmul_int(KERN_Q8_0, ref_dot_q8_0, 512, panels, rows, cols, act, n, y, ldy);
}

void kern_table_ref_matmul(kern_table *table) {
    table->quantize = ref_quantize;
    table->matmul[KERN_F32] = ref_matmul_f32;
    table->matmul[KERN_F16] = ref_matmul_f16;
    table->matmul[KERN_BF16] = ref_matmul_bf16;
    table->matmul[KERN_Q4_0] = ref_matmul_q4_0;
    table->matmul[KERN_Q8_0] = ref_matmul_q8_0;
}
