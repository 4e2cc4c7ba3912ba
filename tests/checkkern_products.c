/* checkkern_products.c: checks of the matrix products of every weight type; then of what comes before them: rows packed
 * into panels and back, damaged scales, the values of the quantised fixtures. */
#include "checkkern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- matrix products --------------------------------------------------------------------------------------------- */

typedef struct product {
    int64_t rows, cols, n, ldy;
} product;

static product random_product(int64_t unit, int64_t most) {
    product p = {.rows = random_between(1, 50), .cols = unit * random_between(1, most), .n = random_between(1, 40)};
    if (random_u32() % 3 == 0)
        p.n = random_between(1, 4), p.rows = random_between(1, 144); /* several panels to a stream, or few */
    if (random_u32() % 200 == 0) p.n = 1, p.cols = unit * 33 * most; /* longer than any chunk */
    if (random_u32() % 12 == 0) p.n = 277, p.cols = unit * 2 * most; /* more tokens than go at a time */
    if (p.cols > unit * most) p.rows = (p.rows - 1) % 34 + 1;        /* there is no room for more */
    p.ldy = p.rows + random_between(0, 3);
    return p;
}

/* The tiles of activations, in slot i, where the table wants them. */
static const kern_act_tile *slot_tiles(int i, const kern_table *k, const kern_act *act, product p) {
    const int64_t groups = p.cols / KERN_BLOCK, n = (p.n + KERN_TILE_TOKENS - 1) / KERN_TILE_TOKENS * groups;
    if (!k->tile_row) return NULL;
    kern_act_tile *tiles = slot_take(i, (size_t)n * sizeof *tiles, _Alignof(kern_act_tile));
    for (int64_t t = 0; t < p.n; t++)
        k->tile_row(act->codes + t * p.cols, act->scale + t * groups, act->sum + t * groups, p.cols,
                    tiles + t / KERN_TILE_TOKENS * groups, (int)(t % KERN_TILE_TOKENS));
    return tiles;
}

/* The same for their cells. */
static const kern_act_cell *slot_cells(int i, const kern_table *k, const kern_act *act, product p) {
    if (!k->fill_cells) return NULL;
    const int64_t groups = p.cols / KERN_BLOCK, rows = act->cell_rows, n = (p.n + rows - 1) / rows * rows;
    kern_act_cell *cells = slot_take(i, (size_t)(n * groups) * sizeof *cells, _Alignof(kern_act_cell));
    /* In two parts, as threads that share a row do. */
    for (int64_t t = 0; t < p.n; t++)
        for (int64_t from = 0, to = groups / 2; from < groups; from = to, to = groups) {
            const int64_t b = t * groups + from;
            k->fill_cells(act->codes + b * KERN_BLOCK, act->scale + b, act->sum + b, (to - from) * KERN_BLOCK,
                          cells + kern_cell_place(rows, groups, t, from), rows);
        }
    return cells;
}

static void check_float_matmul(const kern_table *k, int type, size_t bytes) {
    product p = random_product(1, 130);
    int kind = random_kind();
    int64_t elements = (p.rows + KERN_PANEL - 1) / KERN_PANEL * KERN_PANEL * p.cols;
    uint8_t *panels = slot_take(0, (size_t)elements * bytes, 1);
    for (int64_t i = 0; i < elements; i++) {
        uint32_t v = bits_of_float(random_float(kind));
        uint16_t half = type == KERN_F16 ? random_f16(kind) : (uint16_t)(v >> 16);
        if (bytes == 4)
            memcpy(panels + i * 4, &v, 4);
        else
            memcpy(panels + i * 2, &half, 2);
    }
    kern_act act = {.x = slot_floats(1, p.n * p.cols, kind)};
    float *y = slot_output(2, (p.n - 1) * p.ldy + p.rows);
    k->matmul[type](panels, p.rows, p.cols, &act, p.n, y, p.ldy);
    record_matrix(y, p.n, p.rows, p.ldy);
}

void check_matmul_f32(const kern_table *k) {
    check_float_matmul(k, KERN_F32, 4);
}
void check_matmul_f16(const kern_table *k) {
    check_float_matmul(k, KERN_F16, 2);
}
void check_matmul_bf16(const kern_table *k) {
    check_float_matmul(k, KERN_BF16, 2);
}

/* Panels of integers, in slot 0, times activations of this kind, or at their extremes. */
static void check_int_product(const kern_table *k, int type, const uint8_t *panels, product p, int kind, int extreme) {
    int8_t *codes = slot_take(1, (size_t)(p.n * p.cols), 1), edge = random_u32() % 2 ? 113 : -127;
    for (int64_t i = 0; i < p.n * p.cols; i++) codes[i] = extreme ? edge : (int8_t)random_between(-127, 113);
    const int64_t groups = p.cols / KERN_BLOCK;
    int32_t *sum = slot_take(2, (size_t)(p.n * groups) * sizeof *sum, sizeof *sum);
    for (int64_t b = 0; b < p.n * groups; b++) {
        sum[b] = 0;
        for (int i = 0; i < KERN_BLOCK; i++) sum[b] += codes[b * KERN_BLOCK + i];
    }
    float *scale = slot_floats(3, p.n * groups, kind);
    /* Nothing lies behind the panels: what is said to follow may be asked for, but not read. */
    kern_act act = {
        .codes = codes, .sum = sum, .scale = scale, .cell_rows = kern_cell_rows(k, p.n), .follow = p.rows % 9};
    float *y = slot_output(4, (p.n - 1) * p.ldy + p.rows);
    act.tiles = slot_tiles(5, k, &act, p);
    act.cells = slot_cells(6, k, &act, p);
    k->matmul[type](panels, p.rows, p.cols, &act, p.n, y, p.ldy);
    record_matrix(y, p.n, p.rows, p.ldy);
}

/* One in four cases has all codes and activations at their extremes, where an int16 would overflow. */
static void check_int_matmul(const kern_table *k, int type, int64_t code_bytes) {
    product p = random_product(KERN_BLOCK, 20);
    if (p.n == 1 && random_u32() % 8 == 0) /* about as long as a chunk, and rows enough for streams */
        p.cols = KERN_BLOCK * random_between(511, 513), p.rows = 49 + p.rows % 40;
    int kind = random_kind(), extreme = random_u32() % 4 == 0;
    int64_t blocks = p.cols / KERN_BLOCK, n_panels = (p.rows + KERN_PANEL - 1) / KERN_PANEL;
    size_t panel_bytes = kern_panel_bytes((uint32_t)type, p.cols);
    uint8_t *panels = slot_take(0, panel_bytes * (size_t)n_panels, 1), byte = random_u32() % 2 ? 255 : 0;
    for (int64_t q = 0; q < n_panels; q++) {
        uint8_t *panel = panels + (size_t)q * panel_bytes;
        for (int64_t i = 0; i < blocks * code_bytes; i++) panel[i] = extreme ? byte : (uint8_t)random_u32();
        for (int64_t i = 0; i < blocks * KERN_PANEL; i++) {
            uint16_t scale = random_f16(kind);
            memcpy(panel + blocks * code_bytes + i * 2, &scale, 2);
        }
    }
    check_int_product(k, type, panels, p, kind, extreme);
}

void check_matmul_q4_0(const kern_table *k) {
    check_int_matmul(k, KERN_Q4_0, 256);
}
void check_matmul_q8_0(const kern_table *k) {
    check_int_matmul(k, KERN_Q8_0, 512);
}

/* Where blocks have their f16 scales; the other bytes may be anything. */
static const struct block_scales {
    uint8_t at, n;
} block_scales[KERN_TYPE_END] = {
    [KERN_Q4_0] = {0, 1},    [KERN_Q4_1] = {0, 2},   [KERN_Q5_0] = {0, 1},    [KERN_Q5_1] = {0, 2},
    [KERN_Q8_0] = {0, 1},    [KERN_Q2_K] = {80, 2},  [KERN_Q3_K] = {108, 1},  [KERN_Q4_K] = {0, 2},
    [KERN_Q5_K] = {0, 2},    [KERN_Q6_K] = {208, 1}, [KERN_IQ2_XXS] = {0, 1}, [KERN_IQ2_XS] = {0, 1},
    [KERN_IQ3_XXS] = {0, 1}, [KERN_IQ1_S] = {0, 1},  [KERN_IQ4_NL] = {0, 1},  [KERN_IQ3_S] = {0, 1},
    [KERN_IQ2_S] = {0, 1},   [KERN_IQ4_XS] = {0, 1}, [KERN_TQ1_0] = {52, 1},  [KERN_TQ2_0] = {64, 1},
};

/* n blocks of a type, in file layout; `fill` >= 0: all bytes are that but the f16 scales. */
static void random_blocks(uint32_t type, uint8_t *block, int64_t n, int kind, int fill) {
    const kern_type_info info = kern_type_get(type);
    for (; n > 0; n--, block += info.block_bytes) {
        for (int i = 0; i < info.block_bytes; i++) block[i] = fill >= 0 ? (uint8_t)fill : (uint8_t)random_u32();
        for (int i = 0; i < block_scales[type].n; i++) {
            uint16_t scale = random_f16(kind);
            memcpy(block + block_scales[type].at + 2 * i, &scale, 2);
        }
        if (type == KERN_MXFP4 && kind == TAME) block[0] = (uint8_t)random_between(120, 130);
    }
}

/* Any integer type. One in four cases has all codes and activations at their extremes. */
void check_matmul_blocks(const kern_table *k) {
    const uint32_t type = check_type;
    const kern_type_info info = kern_type_get(type);
    product p = random_product(info.block, info.block == 256 ? 4 : 20);
    const int kind = random_kind(), extreme = random_u32() % 4 == 0,
              fill = extreme ? (int)(random_u32() % 2) * 255 : -1;
    const int64_t blocks = p.cols / info.block;
    const int64_t n_panels = (p.rows + KERN_PANEL - 1) / KERN_PANEL;
    const size_t row_bytes = (size_t)(blocks * info.block_bytes), panel_bytes = kern_panel_bytes(type, p.cols);
    uint8_t *panels = slot_take(0, panel_bytes * (size_t)n_panels, 1), *rows = malloc(row_bytes * KERN_PANEL);
    if (!rows) exit(2);
    for (int64_t row = 0; row < p.rows; row += KERN_PANEL) {
        const int64_t left = p.rows - row, n_rows = left < KERN_PANEL ? left : KERN_PANEL;
        random_blocks(type, rows, blocks * n_rows, kind, fill);
        kern_pack(type, p.cols, rows, row_bytes, (int)n_rows, panels + (size_t)(row / KERN_PANEL) * panel_bytes);
    }
    free(rows);
    check_int_product(k, type, panels, p, kind, extreme);
}

/* ---- packing, and the values of the quantised fixtures ----------------------------------------------------------- */

static int same_values(const float *a, const float *b, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (bits_of_float(a[i]) != bits_of_float(b[i]) && (a[i] == a[i] || b[i] == b[i])) return 0;
    return 1;
}

/* Rows in file layout, packed and unpacked again, are what kern_dequantize makes of them. */
static int round_trip(uint32_t type, const uint8_t *rows, int n_rows, int64_t cols) {
    kern_type_info info = kern_type_get(type);
    size_t row_bytes = (size_t)(cols / info.block * info.block_bytes), bytes = kern_panel_bytes(type, cols);
    float *expected = slot_output(1, cols), *found = slot_output(2, cols);
    uint8_t *panel = slot_take(3, bytes, 1);
    int ok = bytes == row_bytes * KERN_PANEL;
    kern_pack(type, cols, rows, row_bytes, n_rows, panel);
    for (int r = 0; r < n_rows && ok; r++) {
        kern_dequantize(type, rows + (size_t)r * row_bytes, cols, expected);
        kern_unpack_row(type, cols, panel, r, found);
        ok = same_values(expected, found, cols);
    }
    if (n_rows < KERN_PANEL && ok) { /* a missing row is zero */
        kern_unpack_row(type, cols, panel, KERN_PANEL - 1, found);
        for (int64_t i = 0; i < cols; i++) ok = ok && found[i] == 0;
    }
    slots_verify();
    return ok && !check_damage;
}

/* Every instruction set packs to the same bytes. */
void check_packing_of(const kern_table *table) {
    check_isa = table->isa;
    for (uint32_t type = 0; type < KERN_TYPE_END; type++) {
        kern_type_info info = kern_type_get(type);
        if (!info.has_kernels) continue;
        int ok = 1;
        check_damage = 0;
        for (int i = 0; i < 200 && ok; i++) {
            random_state = case_seed(1, 200 + (int)type, i);
            int n_rows = i % 4 ? KERN_PANEL : (int)random_between(1, KERN_PANEL);
            int64_t cols = info.block * random_between(1, i % 2 ? 9 : 40);
            size_t row_bytes = (size_t)(cols / info.block * info.block_bytes);
            size_t stride = row_bytes + (size_t)random_between(0, 5), bytes = kern_panel_bytes(type, cols);
            uint8_t *rows = slot_take(0, stride * (size_t)(n_rows - 1) + row_bytes, 1);
            for (size_t k = 0; k < stride * (size_t)(n_rows - 1) + row_bytes; k++) rows[k] = (uint8_t)random_u32();
            uint8_t *expected = slot_take(1, bytes, 1), *found = slot_take(2, bytes, 1);
            memset(found, 0xa5, bytes);
            kern_pack(type, cols, rows, stride, n_rows, expected);
            table->pack(type, cols, rows, stride, n_rows, found);
            ok = !memcmp(expected, found, bytes);
            slots_verify();
            ok = ok && !check_damage;
        }
        report(ok, "pack", info.name, "");
    }
}

void check_packing(void) {
    check_isa = "";
    for (uint32_t type = 0; type < KERN_TYPE_END; type++) {
        kern_type_info info = kern_type_get(type);
        if (!info.has_kernels) continue;
        int ok = 1;
        check_damage = 0;
        check_op = info.name;
        for (int i = 0; i < 200 && ok; i++) {
            random_state = case_seed(1, 100 + (int)type, i);
            int n_rows = (int)random_between(1, KERN_PANEL);
            int64_t cols = info.block * random_between(1, 9);
            size_t bytes = (size_t)(cols / info.block * info.block_bytes * n_rows);
            uint8_t *rows = slot_take(0, bytes, 1);
            for (size_t k = 0; k < bytes; k++) rows[k] = (uint8_t)random_u32();
            ok = round_trip(type, rows, n_rows, cols);
        }
        ok = ok && kern_panel_bytes(type, 0) == 0 && kern_panel_bytes(type, -256) == 0;
        ok = ok && kern_panel_bytes(type, INT64_MAX / 256 * 256) == 0; /* more than there can be */
        if (info.block > 1) ok = ok && kern_panel_bytes(type, info.block + 1) == 0;
        report(ok, "pack and unpack", info.name, "");
    }
}

/* The column of the first bad scale of a row of n blocks, in a panel whose other rows are good, or count for nothing.
 */
static int64_t find_bad_scale(uint32_t type, const uint8_t *blocks, int n) {
    const kern_type_info info = kern_type_get(type);
    const size_t bytes = (size_t)n * (size_t)info.block_bytes;
    const int row = (int)random_between(0, KERN_PANEL - 1);
    uint8_t *rows = calloc(KERN_PANEL, bytes), *panel = malloc(KERN_PANEL * bytes);
    int64_t col = -1;
    if (!rows || !panel) abort();
    memcpy(rows + (size_t)row * bytes, blocks, bytes);
    kern_pack(type, (int64_t)n * info.block, rows, bytes, KERN_PANEL, panel);
    const int found = kern_find_bad_scale(type, (int64_t)n * info.block, panel, KERN_PANEL, &col);
    const int above = kern_find_bad_scale(type, (int64_t)n * info.block, panel, row, &(int64_t){0});
    free(rows);
    free(panel);
    return above != -1 || (found != -1 && found != row) ? -2 : found < 0 ? -1 : col;
}

/* A scale that is no number is found, and only that. */
void check_bad_scales(void) {
    static const uint16_t bad[] = {0x7c00, 0xfc00, 0x7e00, 0xffff}, good[] = {0x7bff, 0xfbff, 0x8000, 0x0001};
    check_isa = "";
    for (uint32_t type = 0; type < KERN_TYPE_END; type++) {
        const struct block_scales s = block_scales[type];
        const kern_type_info info = kern_type_get(type);
        uint8_t block[3 * 256];
        if (!s.n && type != KERN_MXFP4 && type != KERN_IQ1_M) continue;
        int ok = 1;
        for (int i = 0; i < 4 * (s.n ? s.n : 1) && ok; i++) {
            random_state = case_seed(1, 300 + (int)type, i);
            random_blocks(type, block, 3, TAME, type == KERN_IQ1_M ? 0x11 : -1);
            ok = find_bad_scale(type, block, 3) == -1;
            for (int b = 0; b < 3; b++) {
                uint8_t *at = block + b * info.block_bytes;
                const uint16_t *value = b == 1 ? bad : good;
                if (s.n) memcpy(at + s.at + i / 4 * 2, &value[i % 4], 2);
                if (type == KERN_MXFP4) at[0] = b == 1 ? 0xff : 0xfe;
                for (int k = 0; k < 4 && type == KERN_IQ1_M; k++) /* four bits here and there */
                    at[49 + 2 * k] = (uint8_t)((at[49 + 2 * k] & 15) | (value[i % 4] >> 4 * k & 15) << 4);
            }
            ok = ok && find_bad_scale(type, block, 3) == info.block;
            ok = ok && find_bad_scale(type, block, 1) == -1;
        }
        report(ok, "bad scales", info.name, "");
    }
}

static uint8_t *read_file(const char *folder, const char *type, const char *end, size_t *size) {
    char path[512];
    snprintf(path, sizeof path, "%s/fixtures/quants/%s%s", folder, type, end);
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    uint8_t *p = malloc(1 << 20);
    *size = p ? fread(p, 1, 1 << 20, f) : 0;
    fclose(f);
    return p;
}

/* A fixture holds tensors of 8 x 512, 3 x 256 and 24 x 256 values; each starts at a multiple of 32 bytes and the last
 * is padded too, so their sizes lead back from the end of the file. */
static int fixture_values(uint32_t type, const uint8_t *file, size_t size, const float *expected) {
    static const int64_t shape[3][2] = {{8, 512}, {3, 256}, {24, 256}};
    kern_type_info info = kern_type_get(type);
    size_t total = 0, bytes[3];
    for (int i = 0; i < 3; i++) {
        bytes[i] = (size_t)(shape[i][0] * shape[i][1] / info.block * info.block_bytes);
        total += (bytes[i] + 31) / 32 * 32;
    }
    if (size < total || size - total != 288) return 0; /* so long are the headers of all these files */
    const uint8_t *data = file + (size - total);
    float *found = slot_output(0, 24 * 256);
    for (int i = 0; i < 3; i++) {
        int64_t n = shape[i][0] * shape[i][1];
        if (info.has_kernels) {
            kern_dequantize(type, data, n, found);
            if (!same_values(found, expected, n)) return 0;
            if (!round_trip(type, data, i == 1 ? 3 : 8, shape[i][1])) return 0;
        }
        data += (bytes[i] + 31) / 32 * 32;
        expected += n;
    }
    return 1;
}

void check_fixtures(void) {
    const char *folder = getenv("MINIM_SHARED");
    if (!folder) folder = "../shared";
    int found = 0;
    for (uint32_t type = 0; type < 64; type++) {
        kern_type_info info = kern_type_get(type);
        if (!info.name) continue;
        char name[16] = {0};
        for (size_t i = 0; info.name[i]; i++)
            name[i] = info.name[i] >= 'A' && info.name[i] <= 'Z' ? (char)(info.name[i] + 32) : info.name[i];
        size_t size = 0, values_size = 0;
        uint8_t *file = read_file(folder, name, ".gguf", &size);
        uint8_t *values = read_file(folder, name, ".f32", &values_size);
        if (file && values) {
            found++;
            check_damage = 0;
            check_op = check_isa = info.name;
            int ok = values_size == 11008 * sizeof(float) && fixture_values(type, file, size, (const void *)values);
            report(ok, info.has_kernels ? "fixture values" : "fixture size", info.name, "");
        }
        free(file);
        free(values);
    }
    if (!found) printf("note: no fixtures in %s/fixtures/quants, that part is left out\n", folder);
}
