/* types.c: the weight types and their bytes: facts, packing into panels, exact values. */
#include "internal.h"

/* ---- facts ------------------------------------------------------------------------------------------------------- */

static const kern_type_info kern_types[] = {
    /* id     name      block, bytes, integer, has_kernels */
    [0] = {"F32", 1, 4, 0, 1},         [1] = {"F16", 1, 2, 0, 1},         [2] = {"Q4_0", 32, 18, 1, 1},
    [3] = {"Q4_1", 32, 20, 1, 0},      [6] = {"Q5_0", 32, 22, 1, 0},      [7] = {"Q5_1", 32, 24, 1, 0},
    [8] = {"Q8_0", 32, 34, 1, 1},      [9] = {"Q8_1", 32, 36, 1, 0},      [10] = {"Q2_K", 256, 84, 1, 0},
    [11] = {"Q3_K", 256, 110, 1, 0},   [12] = {"Q4_K", 256, 144, 1, 0},   [13] = {"Q5_K", 256, 176, 1, 0},
    [14] = {"Q6_K", 256, 210, 1, 0},   [15] = {"Q8_K", 256, 292, 1, 0},   [16] = {"IQ2_XXS", 256, 66, 1, 0},
    [17] = {"IQ2_XS", 256, 74, 1, 0},  [18] = {"IQ3_XXS", 256, 98, 1, 0}, [19] = {"IQ1_S", 256, 50, 1, 0},
    [20] = {"IQ4_NL", 32, 18, 1, 0},   [21] = {"IQ3_S", 256, 110, 1, 0},  [22] = {"IQ2_S", 256, 82, 1, 0},
    [23] = {"IQ4_XS", 256, 136, 1, 0}, [24] = {"I8", 1, 1, 0, 0},         [25] = {"I16", 1, 2, 0, 0},
    [26] = {"I32", 1, 4, 0, 0},        [27] = {"I64", 1, 8, 0, 0},        [28] = {"F64", 1, 8, 0, 0},
    [29] = {"IQ1_M", 256, 56, 1, 0},   [30] = {"BF16", 1, 2, 0, 1},       [34] = {"TQ1_0", 256, 54, 1, 0},
    [35] = {"TQ2_0", 256, 66, 1, 0},   [39] = {"MXFP4", 32, 17, 1, 0},    [40] = {"NVFP4", 64, 36, 1, 0},
};

kern_type_info kern_type_get(uint32_t type) {
    if (type >= sizeof kern_types / sizeof *kern_types) return (kern_type_info){NULL, 0, 0, 0, 0};
    return kern_types[type]; /* ids that GGUF has given up (4, 5, 31-33, 36-38) are all zero: not known */
}

/* ---- panels ------------------------------------------------------------------------------------------------------ */

/* File layout of a Q4_0 block: f16 scale, 16 bytes (low nibble = element j, high nibble = element 16 + j).
 *             of a Q8_0 block: f16 scale, 32 int8. */
enum { Q4_0_BYTES = 18, Q8_0_BYTES = 34 };

size_t kern_panel_bytes(uint32_t type, int64_t cols) {
    kern_type_info info = kern_type_get(type);
    if (!info.has_kernels || cols <= 0 || cols % info.block) return 0;
    uint64_t blocks = (uint64_t)cols / (uint64_t)info.block, bytes = (uint64_t)info.block_bytes * KERN_PANEL;
    return blocks > SIZE_MAX / bytes ? 0 : (size_t)(blocks * bytes);
}

/* [n_rows][cols] elements of `bytes` bytes to [cols][16] */
static void kern_pack_floats(size_t bytes, int64_t cols, const uint8_t *rows, size_t row_bytes, int n_rows,
                             uint8_t *panel) {
    for (int r = 0; r < n_rows; r++)
        for (int64_t k = 0; k < cols; k++)
            memcpy(panel + ((size_t)k * KERN_PANEL + (size_t)r) * bytes,
                   rows + (size_t)r * row_bytes + (size_t)k * bytes, bytes);
}

/* Both integer types: groups of 4 bytes go side by side, 16 rows of them; scales behind all codes. `flip` turns the
 * signed codes of Q8_0 into code + 128. */
static void kern_pack_codes(int code_bytes, uint8_t flip, int64_t cols, const uint8_t *rows, size_t row_bytes,
                            int n_rows, uint8_t *panel) {
    int64_t n_blocks = cols / KERN_BLOCK;
    uint8_t *scales = panel + (size_t)n_blocks * (size_t)code_bytes * KERN_PANEL;
    for (int r = 0; r < n_rows; r++) {
        const uint8_t *block = rows + (size_t)r * row_bytes;
        for (int64_t b = 0; b < n_blocks; b++, block += 2 + code_bytes) {
            uint8_t *codes = panel + (size_t)b * (size_t)code_bytes * KERN_PANEL;
            memcpy(scales + ((size_t)b * KERN_PANEL + (size_t)r) * 2, block, 2);
            for (int i = 0; i < code_bytes; i++) codes[i / 4 * 64 + 4 * r + i % 4] = block[2 + i] ^ flip;
        }
    }
}

void kern_pack(uint32_t type, int64_t cols, const void *rows, size_t row_bytes, int n_rows, void *panel) {
    size_t bytes = kern_panel_bytes(type, cols);
    if (n_rows < KERN_PANEL) memset(panel, 0, bytes);
    switch (type) {
    case KERN_F32: kern_pack_floats(4, cols, rows, row_bytes, n_rows, panel); break;
    case KERN_F16:
    case KERN_BF16: kern_pack_floats(2, cols, rows, row_bytes, n_rows, panel); break;
    case KERN_Q4_0: kern_pack_codes(16, 0, cols, rows, row_bytes, n_rows, panel); break;
    case KERN_Q8_0: kern_pack_codes(32, 0x80, cols, rows, row_bytes, n_rows, panel); break;
    }
}

void kern_unpack_row(uint32_t type, int64_t cols, const void *panel, int r, float *out) {
    const uint8_t *p = panel;
    int64_t n_blocks = cols / KERN_BLOCK;
    switch (type) {
    case KERN_F32:
        for (int64_t k = 0; k < cols; k++) out[k] = kern_load_f32(p + (k * KERN_PANEL + r) * 4);
        break;
    case KERN_F16:
        for (int64_t k = 0; k < cols; k++) out[k] = kern_f16_to_f32(kern_load_u16(p + (k * KERN_PANEL + r) * 2));
        break;
    case KERN_BF16:
        for (int64_t k = 0; k < cols; k++) out[k] = kern_bf16_to_f32(kern_load_u16(p + (k * KERN_PANEL + r) * 2));
        break;
    case KERN_Q4_0:
        for (int64_t b = 0; b < n_blocks; b++) {
            const uint8_t *codes = p + b * 256;
            float scale = kern_f16_to_f32(kern_load_u16(p + n_blocks * 256 + (b * KERN_PANEL + r) * 2));
            for (int i = 0; i < 16; i++) {
                uint8_t byte = codes[i / 4 * 64 + 4 * r + i % 4];
                out[b * 32 + i] = scale * (float)((byte & 15) - 8);
                out[b * 32 + 16 + i] = scale * (float)((byte >> 4) - 8);
            }
        }
        break;
    case KERN_Q8_0:
        for (int64_t b = 0; b < n_blocks; b++) {
            const uint8_t *codes = p + b * 512;
            float scale = kern_f16_to_f32(kern_load_u16(p + n_blocks * 512 + (b * KERN_PANEL + r) * 2));
            for (int i = 0; i < 32; i++) out[b * 32 + i] = scale * (float)(codes[i / 4 * 64 + 4 * r + i % 4] - 128);
        }
        break;
    }
}

/* ---- file layout ------------------------------------------------------------------------------------------------- */

void kern_dequantize(uint32_t type, const void *data, int64_t n, float *out) {
    const uint8_t *p = data;
    switch (type) {
    case KERN_F32: memcpy(out, data, (size_t)n * 4); break;
    case KERN_F16:
        for (int64_t k = 0; k < n; k++) out[k] = kern_f16_to_f32(kern_load_u16(p + k * 2));
        break;
    case KERN_BF16:
        for (int64_t k = 0; k < n; k++) out[k] = kern_bf16_to_f32(kern_load_u16(p + k * 2));
        break;
    case KERN_Q4_0:
        for (; n >= KERN_BLOCK; n -= KERN_BLOCK, p += Q4_0_BYTES, out += KERN_BLOCK) {
            float scale = kern_f16_to_f32(kern_load_u16(p));
            for (int i = 0; i < 16; i++) {
                out[i] = scale * (float)((p[2 + i] & 15) - 8);
                out[16 + i] = scale * (float)((p[2 + i] >> 4) - 8);
            }
        }
        break;
    case KERN_Q8_0:
        for (; n >= KERN_BLOCK; n -= KERN_BLOCK, p += Q8_0_BYTES, out += KERN_BLOCK) {
            float scale = kern_f16_to_f32(kern_load_u16(p));
            for (int i = 0; i < KERN_BLOCK; i++) {
                int8_t q;
                memcpy(&q, p + 2 + i, 1);
                out[i] = scale * (float)q;
            }
        }
        break;
    }
}
