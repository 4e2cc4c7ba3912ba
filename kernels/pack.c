/* pack.c: weights as panels (kernels.h): how rows become a panel and come out of it, and what a damaged one is. This is
 * the definition; what is faster stands in the table (x86/pack.c). */
#include "quants/quants.h"

/* ---- panels of float types: [cols][16] --------------------------------------------------------------------------- */

static void kern_pack_floats(size_t bytes, int64_t cols, const uint8_t *rows, size_t row_bytes, int n_rows,
                             uint8_t *panel) {
    for (int r = 0; r < n_rows; r++)
        for (int64_t k = 0; k < cols; k++)
            memcpy(panel + ((size_t)k * KERN_PANEL + (size_t)r) * bytes,
                   rows + (size_t)r * row_bytes + (size_t)k * bytes, bytes);
}

/* ---- panels of integer types: see kernels.h ---------------------------------------------------------------------- */

panel_place kern_panel_place(const kern_format *f, kern_type_info info, int64_t cols, int64_t b) {
    panel_place p = {.groups = info.block / KERN_BLOCK, .low = f->low.bits, .high = f->high.bits};
    const size_t group_bytes = (size_t)(p.low + p.high) * 64, blocks = (size_t)(cols / info.block);
    if (!info.panels) {
        p.codes = (size_t)b * KERN_PANEL * (size_t)info.block_bytes;
        p.side = blocks * KERN_PANEL * (size_t)info.block_bytes;
        return p;
    }
    p.codes = (size_t)b * (size_t)p.groups * group_bytes;
    p.side = blocks * (size_t)p.groups * group_bytes + (size_t)b * (2u * f->n_f16 + f->n_bytes) * KERN_PANEL;
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
    const panel_place p = kern_panel_place(f, info, cols, b);
    if (!info.panels) {
        memcpy(block, panel + p.codes + (size_t)r * bytes, bytes);
        return;
    }
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
        const panel_place place = kern_panel_place(f, info, cols, b);
        for (int r = 0; r < n_rows; r++) {
            const uint8_t *block = (const uint8_t *)rows + (size_t)r * row_bytes + (size_t)b * bytes;
            if (info.panels)
                kern_pack_block(f, &place, block, r, out);
            else
                memcpy(out + place.codes + (size_t)r * bytes, block, bytes);
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

/* ---- damage ------------------------------------------------------------------------------------------------------ */

static int kern_f16_is_finite(uint16_t h) {
    return (h & 0x7c00) != 0x7c00;
}

/* Of a block as in the file. */
static int kern_block_is_good(uint32_t type, const kern_format *f, const uint8_t *block) {
    if (type == KERN_MXFP4) return block[f->bytes_at] != 0xff;
    if (type == KERN_IQ1_M) return kern_f16_is_finite(quant_f16_iq1_m(block));
    for (int i = 0; i < f->n_f16; i++)
        if (!kern_f16_is_finite(kern_load_u16(block + f->f16_at + 2 * i))) return 0;
    return 1;
}

/* Of block b of row r. */
static int kern_scale_is_good(uint32_t type, const kern_format *f, int64_t cols, const uint8_t *panel, int64_t b,
                              int r) {
    const kern_type_info info = kern_type_get(type);
    const panel_place p = kern_panel_place(f, info, cols, b);
    if (!info.panels) return kern_block_is_good(type, f, panel + p.codes + (size_t)r * (size_t)info.block_bytes);
    const uint8_t *side = panel + p.side;
    if (type == KERN_MXFP4) return side[r] != 0xff;
    for (int i = 0; i < f->n_f16; i++)
        if (!kern_f16_is_finite(kern_load_u16(side + 2 * (KERN_PANEL * i + r)))) return 0;
    return 1;
}

/* 1: all scales of a panel of f16 scales are finite. The first look, which has to be fast: the exponent of what is
 * infinite or NaN is all ones, and one more makes it overflow into the bit above. */
static int kern_f16_scales_are_good(const kern_format *f, kern_type_info info, int64_t cols, const uint8_t *panel) {
    const size_t stride = (2u * f->n_f16 + f->n_bytes) * KERN_PANEL;
    const uint8_t *side = panel + kern_panel_place(f, info, cols, 0).side;
    uint16_t seen[KERN_PANEL] = {0}, bad = 0;
    for (int64_t b = 0; b < cols / info.block; b++, side += stride)
        for (int i = 0; i < f->n_f16; i++)
            for (int r = 0; r < KERN_PANEL; r++)
                seen[r] |= (uint16_t)((kern_load_u16(side + 2 * (KERN_PANEL * i + r)) & 0x7c00) + 0x0400);
    for (int r = 0; r < KERN_PANEL; r++) bad |= seen[r];
    return !(bad & 0x8000);
}

int kern_find_bad_scale(uint32_t type, int64_t cols, const void *panel, int n_rows, int64_t *col) {
    const kern_type_info info = kern_type_get(type);
    if (!info.has_kernels || !info.integer) return -1;
    const kern_format *f = kern_format_of(type);
    if (info.panels && f->n_f16 && kern_f16_scales_are_good(f, info, cols, panel)) return -1;
    for (int r = 0; r < n_rows; r++)
        for (int64_t b = 0; b < cols / info.block; b++) {
            if (kern_scale_is_good(type, f, cols, panel, b, r)) continue;
            *col = b * info.block;
            return r;
        }
    return -1;
}

int kern_find_bad_scale_in_rows(uint32_t type, int64_t cols, const void *rows, int n_rows, int64_t *col) {
    const kern_type_info info = kern_type_get(type);
    if (!info.has_kernels || !info.integer) return -1;
    const kern_format *f = kern_format_of(type);
    const int64_t per_row = cols / info.block, n = per_row * n_rows;
    const uint8_t *block = rows;
    const size_t bytes = (size_t)info.block_bytes;
    uint32_t seen = 0; /* a fast first look, as above */
    for (int64_t b = 0; b < n; b++) {
        __builtin_prefetch(block + (size_t)b * bytes + 4096, 0, 1);
        for (int i = 0; i < f->n_f16; i++)
            seen |= (kern_load_u16(block + (size_t)b * bytes + f->f16_at + 2 * i) & 0x7c00u) + 0x0400;
    }
    if (f->n_f16 && !(seen & 0x8000)) return -1;
    for (int64_t b = 0; b < n; b++, block += info.block_bytes) {
        if (kern_block_is_good(type, f, block)) continue;
        *col = b % per_row * info.block;
        return (int)(b / per_row);
    }
    return -1;
}
