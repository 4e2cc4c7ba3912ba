/* types.c: the weight types and their bytes: facts, packing into panels, exact values. How the blocks of integer types
 * are read is in quants/. */
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

/* ---- panels of float types: [cols][16] --------------------------------------------------------------------------- */

static void kern_pack_floats(size_t bytes, int64_t cols, const uint8_t *rows, size_t row_bytes, int n_rows,
                             uint8_t *panel) {
    for (int r = 0; r < n_rows; r++)
        for (int64_t k = 0; k < cols; k++)
            memcpy(panel + ((size_t)k * KERN_PANEL + (size_t)r) * bytes,
                   rows + (size_t)r * row_bytes + (size_t)k * bytes, bytes);
}

/* ---- panels of integer types: see kernels.h ---------------------------------------------------------------------- */

/* Where block b of a panel lies. */
typedef struct panel_place {
    size_t codes, side;    /* of the panel's first byte */
    int groups, low, high; /* groups of 32 inputs in the block; bits of the planes */
} panel_place;

static panel_place kern_panel_place(const kern_format *f, kern_type_info info, int64_t cols, int64_t b) {
    panel_place p = {.groups = info.block / KERN_BLOCK, .low = f->low.bits, .high = f->high.bits};
    const size_t group_bytes = (size_t)(p.low + p.high) * 64;
    p.codes = (size_t)b * (size_t)p.groups * group_bytes;
    p.side = (size_t)(cols / KERN_BLOCK) * group_bytes + (size_t)b * (2u * f->n_f16 + f->n_bytes) * KERN_PANEL;
    return p;
}

static uint32_t kern_load_4(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

/* Adds the four codes [32b + 4j .. +4] of row r to a plane of a group, or takes them out of it; all of them are in the
 * same bits of neighbouring bytes. */
static void kern_plane_add(uint8_t *plane, int bits, int j, int r, uint32_t four) {
    uint8_t *at = plane + j % bits * 64 + 4 * r;
    const uint32_t mask = 0x01010101u * ((1u << bits) - 1), v = kern_load_4(at) | (four & mask) << bits * (j / bits);
    memcpy(at, &v, 4);
}

static uint32_t kern_plane_take(const uint8_t *plane, int bits, int j, int r) {
    const uint32_t mask = 0x01010101u * ((1u << bits) - 1);
    return kern_load_4(plane + j % bits * 64 + 4 * r) >> bits * (j / bits) & mask;
}

static void kern_pack_block(const kern_format *f, const panel_place *p, const uint8_t *block, int r, uint8_t *panel) {
    uint8_t *plane = panel + p->codes, *side = panel + p->side;
    if (p->groups == 1 && p->low == 4 && f->low.run == 16 && !p->high) {
        /* Q4_0 and its like: the file pairs codes as a panel does. */
        for (int j = 0; j < 4; j++) memcpy(plane + 64 * j + 4 * r, block + f->low.start + 4 * j, 4);
    } else {
        uint8_t raw[QUANT_MAX_BLOCK];
        kern_raw_get(f, block, p->groups * KERN_BLOCK, raw);
        for (int g = 0; g < p->groups; g++, plane += (p->low + p->high) * 64)
            for (int j = 0; j < 8; j++) {
                const uint32_t four = kern_load_4(raw + 32 * g + 4 * j);
                kern_plane_add(plane, p->low, j, r, four);
                if (p->high) kern_plane_add(plane + p->low * 64, p->high, j, r, four >> p->low);
            }
    }
    for (int i = 0; i < f->n_f16; i++, side += 2 * KERN_PANEL) memcpy(side + 2 * r, block + f->f16_at + 2 * i, 2);
    for (int i = 0; i < f->n_bytes; i++, side += KERN_PANEL) side[r] = block[f->bytes_at + i];
}

void kern_panel_block(uint32_t type, int64_t cols, const uint8_t *panel, int64_t b, int r, uint8_t *block) {
    const kern_format *f = kern_format_of(type);
    const kern_type_info info = kern_type_get(type);
    const size_t bytes = (size_t)info.block_bytes;
    if (!info.panels) {
        memcpy(block, panel + ((size_t)b * KERN_PANEL + (size_t)r) * bytes, bytes);
        return;
    }
    const panel_place p = kern_panel_place(f, info, cols, b);
    const uint8_t *plane = panel + p.codes, *side = panel + p.side;
    uint8_t raw[QUANT_MAX_BLOCK];
    memset(block, 0, bytes);
    for (int g = 0; g < p.groups; g++, plane += (p.low + p.high) * 64)
        for (int j = 0; j < 8; j++) {
            uint32_t four = kern_plane_take(plane, p.low, j, r);
            if (p.high) four |= kern_plane_take(plane + p.low * 64, p.high, j, r) << p.low;
            memcpy(raw + 32 * g + 4 * j, &four, 4);
        }
    kern_raw_put(f, raw, info.block, block);
    for (int i = 0; i < f->n_f16; i++, side += 2 * KERN_PANEL) memcpy(block + f->f16_at + 2 * i, side + 2 * r, 2);
    for (int i = 0; i < f->n_bytes; i++, side += KERN_PANEL) block[f->bytes_at + i] = side[r];
}

/* ---- all types --------------------------------------------------------------------------------------------------- */

void kern_pack(uint32_t type, int64_t cols, const void *rows, size_t row_bytes, int n_rows, void *panel) {
    const kern_type_info info = kern_type_get(type);
    const size_t bytes = (size_t)info.block_bytes;
    uint8_t *out = panel;
    if (!info.has_kernels) return;
    if (n_rows < KERN_PANEL || info.integer) memset(panel, 0, kern_panel_bytes(type, cols));
    if (!info.integer) {
        kern_pack_floats(bytes, cols, rows, row_bytes, n_rows, panel);
        return;
    }
    const kern_format *f = kern_format_of(type);
    for (int64_t b = 0; b < cols / info.block; b++) {
        const panel_place place = info.panels ? kern_panel_place(f, info, cols, b) : (panel_place){0};
        for (int r = 0; r < n_rows; r++) {
            const uint8_t *block = (const uint8_t *)rows + (size_t)r * row_bytes + (size_t)b * bytes;
            if (info.panels)
                kern_pack_block(f, &place, block, r, out);
            else
                memcpy(out + ((size_t)b * KERN_PANEL + (size_t)r) * bytes, block, bytes);
        }
    }
}

void kern_unpack_row(uint32_t type, int64_t cols, const void *panel, int r, float *out) {
    const kern_type_info info = kern_type_get(type);
    const size_t bytes = (size_t)info.block_bytes;
    uint8_t block[QUANT_MAX_BYTES];
    if (!info.has_kernels) return;
    for (int64_t b = 0; b < cols / info.block; b++, out += info.block) {
        if (info.integer)
            kern_panel_block(type, cols, panel, b, r, block);
        else
            memcpy(block, (const uint8_t *)panel + ((size_t)b * KERN_PANEL + (size_t)r) * bytes, bytes);
        kern_dequantize(type, block, info.block, out);
    }
}

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

/* ---- damage ------------------------------------------------------------------------------------------------------ */

static int kern_f16_is_finite(uint16_t h) {
    return (h & 0x7c00) != 0x7c00;
}

int64_t kern_find_bad_scale(uint32_t type, const void *data, int64_t n) {
    const kern_type_info info = kern_type_get(type);
    if (!info.has_kernels || !info.integer) return -1;
    const kern_format *f = kern_format_of(type);
    const uint8_t *block = data;
    for (int64_t k = 0; k + info.block <= n; k += info.block, block += info.block_bytes) {
        int good =
            type == KERN_MXFP4 ? block[0] != 0xff : type != KERN_IQ1_M || kern_f16_is_finite(quant_f16_iq1_m(block));
        for (int i = 0; i < f->n_f16; i++) good &= kern_f16_is_finite(kern_load_u16(block + f->f16_at + 2 * i));
        if (!good) return k;
    }
    return -1;
}
