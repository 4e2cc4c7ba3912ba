/* matmul.c: the definition of quantize() and of the matrix products.
 *
 * A matrix product is written once per weight type as three loops - token, output row, input - and reads weights from
 * their panels (see kernels.h). The only freedom a faster version has is which outputs it computes at the same time. */
#include "../quants/quants.h"

#include <math.h>

/* ---- activations to int8 ----------------------------------------------------------------------------------------- */

static void ref_quantize_block(const float *x, int8_t *codes, float *scale, int32_t *sum) {
    uint32_t up = 0, down = 0; /* bits: they have the order of the numbers, with infinity and then NaN at the top */
    float inv;
    for (int i = 0; i < KERN_BLOCK; i++) {
        const uint32_t size = kern_f32_to_bits(fabsf(x[i]));
        uint32_t *side = signbit(x[i]) ? &down : &up;
        if (size > *side) *side = size;
    }
    *sum = 0;
    memset(codes, 0, KERN_BLOCK);
    if (!kern_act_scale(up, down, &inv, scale)) return;
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

static int32_t ref_sum(const int8_t *codes, int n) {
    int32_t sum = 0;
    for (int i = 0; i < n; i++) sum += codes[i];
    return sum;
}

/* sum of code * act */
static int32_t ref_dot(const int8_t *code, const int8_t *act, int n) {
    int32_t sum = 0;
    for (int i = 0; i < n; i++) sum += code[i] * act[i];
    return sum;
}

/* acc + 32 inputs: code [32], scale [2] and min [2] of 16 inputs each, act [32] with its scale x */
static float ref_add_group(const kern_format *f, const int8_t *code, const float *scale, const float *min,
                           const int8_t *act, float x, float acc) {
    if (f->halves) {
        float t = (float)ref_dot(code, act, 16) * scale[0];
        t = fmaf((float)ref_dot(code + 16, act + 16, 16), scale[1], t);
        if (f->has_min) {
            t = fmaf((float)ref_sum(act, 16), min[0], t);
            t = fmaf((float)ref_sum(act + 16, 16), min[1], t);
        }
        return fmaf(t, x, acc);
    }
    acc = fmaf((float)ref_dot(code, act, 32), scale[0] * x, acc);
    return f->has_min ? fmaf(min[0], x * (float)ref_sum(act, 32), acc) : acc;
}

/* Every block of every row is taken out of its panel once and meets all tokens; y holds the sums meanwhile. */
void kern_ref_matmul_int(uint32_t type, const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,
                         float *y, int64_t ldy) {
    const kern_format *f = kern_format_of(type);
    const int size = kern_type_get(type).block;
    const size_t panel_bytes = kern_panel_bytes(type, cols);
    for (int64_t row = 0; row < rows; row++) {
        const uint8_t *panel = (const uint8_t *)panels + (size_t)(row / KERN_PANEL) * panel_bytes;
        for (int64_t t = 0; t < n; t++) y[t * ldy + row] = 0;
        for (int64_t b = 0; b < cols / size; b++) {
            uint8_t block[QUANT_MAX_BYTES];
            kern_codes c;
            kern_panel_block(type, cols, panel, b, (int)(row % KERN_PANEL), block);
            kern_decode(type, block, &c);
            for (int64_t t = 0; t < n; t++)
                for (int k = 0; k < size; k += KERN_BLOCK) {
                    const int64_t at = t * cols + b * size + k; /* in [n][cols] */
                    float *out = &y[t * ldy + row];
                    *out = ref_add_group(f, c.code + k, c.scale + k / QUANT_SUB, c.min + k / QUANT_SUB, act->codes + at,
                                         act->scale[at / KERN_BLOCK], *out);
                }
        }
    }
}

#define REF_MATMUL(TYPE)                                                                                               \
    static void ref_matmul_##TYPE(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,      \
                                  float *y, int64_t ldy) {                                                             \
        kern_ref_matmul_int(KERN_##TYPE, panels, rows, cols, act, n, y, ldy);                                          \
    }
KERN_INT_TYPES(REF_MATMUL)

void kern_table_ref_matmul(kern_table *table) {
    table->quantize = ref_quantize;
    table->matmul[KERN_F32] = ref_matmul_f32;
    table->matmul[KERN_F16] = ref_matmul_f16;
    table->matmul[KERN_BF16] = ref_matmul_bf16;
#define REF_ENTRY(TYPE) table->matmul[KERN_##TYPE] = ref_matmul_##TYPE;
    KERN_INT_TYPES(REF_ENTRY)
}
