/* types.c: the weight types and their bytes: facts and exact values. How the blocks of integer types are read is in
 * quants/, panels are in pack.c. */
#include "quants/quants.h"

/* ---- facts ------------------------------------------------------------------------------------------------------- */

static const kern_type_info kern_types[] = {
    /* name, block, bytes, integer, has_kernels, panels */
    [KERN_F32] = {"F32", 1, 4, 0, 1, 1},
    [KERN_F16] = {"F16", 1, 2, 0, 1, 1},
    [KERN_Q4_0] = {"Q4_0", 32, 18, 1, 1, 1},
    [KERN_Q4_1] = {"Q4_1", 32, 20, 1, 1, 1},
    [KERN_Q5_0] = {"Q5_0", 32, 22, 1, 1, 1},
    [KERN_Q5_1] = {"Q5_1", 32, 24, 1, 1, 1},
    [KERN_Q8_0] = {"Q8_0", 32, 34, 1, 1, 1},
    [9] = {"Q8_1", 32, 36, 1, 0, 0},
    [KERN_Q2_K] = {"Q2_K", 256, 84, 1, 1, 1},
    [KERN_Q3_K] = {"Q3_K", 256, 110, 1, 1, 1},
    [KERN_Q4_K] = {"Q4_K", 256, 144, 1, 1, 1},
    [KERN_Q5_K] = {"Q5_K", 256, 176, 1, 1, 1},
    [KERN_Q6_K] = {"Q6_K", 256, 210, 1, 1, 1},
    [15] = {"Q8_K", 256, 292, 1, 0, 0},
    [KERN_IQ2_XXS] = {"IQ2_XXS", 256, 66, 1, 1, 0},
    [KERN_IQ2_XS] = {"IQ2_XS", 256, 74, 1, 1, 0},
    [KERN_IQ3_XXS] = {"IQ3_XXS", 256, 98, 1, 1, 0},
    [KERN_IQ1_S] = {"IQ1_S", 256, 50, 1, 1, 0},
    [KERN_IQ4_NL] = {"IQ4_NL", 32, 18, 1, 1, 1},
    [KERN_IQ3_S] = {"IQ3_S", 256, 110, 1, 1, 0},
    [KERN_IQ2_S] = {"IQ2_S", 256, 82, 1, 1, 0},
    [KERN_IQ4_XS] = {"IQ4_XS", 256, 136, 1, 1, 1},
    [24] = {"I8", 1, 1, 0, 0, 0},
    [25] = {"I16", 1, 2, 0, 0, 0},
    [26] = {"I32", 1, 4, 0, 0, 0},
    [27] = {"I64", 1, 8, 0, 0, 0},
    [28] = {"F64", 1, 8, 0, 0, 0},
    [KERN_IQ1_M] = {"IQ1_M", 256, 56, 1, 1, 0},
    [KERN_BF16] = {"BF16", 1, 2, 0, 1, 1},
    [KERN_TQ1_0] = {"TQ1_0", 256, 54, 1, 1, 0},
    [KERN_TQ2_0] = {"TQ2_0", 256, 66, 1, 1, 1},
    [KERN_MXFP4] = {"MXFP4", 32, 17, 1, 1, 1},
    [KERN_NVFP4] = {"NVFP4", 64, 36, 1, 1, 1},
};

kern_type_info kern_type_get(uint32_t type) {
    if (type >= sizeof kern_types / sizeof *kern_types) return (kern_type_info){NULL, 0, 0, 0, 0, 0};
    return kern_types[type]; /* ids that GGUF has given up (4, 5, 31-33, 36-38) are all zero: not known */
}

size_t kern_panel_bytes(uint32_t type, int64_t cols) {
    kern_type_info info = kern_type_get(type);
    if (!info.has_kernels || cols <= 0 || cols % info.block) return 0;
    uint64_t blocks = (uint64_t)cols / (uint64_t)info.block, bytes = (uint64_t)info.block_bytes * KERN_PANEL;
    return blocks > SIZE_MAX / bytes ? 0 : (size_t)(blocks * bytes);
}

/* ---- values -------------------------------------------------------------------------------------------------------
 */

static void kern_dequantize_block(uint32_t type, int n, const uint8_t *block, float *out) {
    const int has_min = kern_format_of(type)->has_min;
    kern_codes c;
    kern_decode(type, block, &c);
    for (int k = 0; k < n; k++) {
        const float product = c.scale[k / QUANT_SUB] * (float)c.code[k];
        out[k] = has_min ? product + c.min[k / QUANT_SUB] : product; /* + 0 would lose a -0 */
    }
}

void kern_dequantize(uint32_t type, const void *data, int64_t n, float *out) {
    const kern_type_info info = kern_type_get(type);
    const uint8_t *p = data;
    if (!info.has_kernels) return;
    if (type == KERN_F32) memcpy(out, data, (size_t)n * 4);
    for (int64_t k = 0; k < n && type == KERN_F16; k++) out[k] = kern_f16_to_f32(kern_load_u16(p + k * 2));
    for (int64_t k = 0; k < n && type == KERN_BF16; k++) out[k] = kern_bf16_to_f32(kern_load_u16(p + k * 2));
    for (; n >= info.block && info.integer; n -= info.block, p += info.block_bytes, out += info.block)
        kern_dequantize_block(type, info.block, p, out);
}
