/* product.c: see product.h. */
#include "product.h"

enum { QUANT_HALF_SUMS = 12288 }; /* room for the sums of 16 codes, of some tokens: 48 KB */

void quant_unpack_blocks(uint32_t type, const uint8_t *panel, int64_t row_groups, int64_t first, int64_t n_groups,
                         quant_part *out) {
    const int64_t size = kern_type_get(type).block;
    for (int r = 0; r < KERN_PANEL; r++)
        for (int64_t g = 0; g < n_groups; g += size / KERN_BLOCK) {
            uint8_t block[QUANT_MAX_BYTES];
            kern_codes c;
            kern_panel_block(type, row_groups * KERN_BLOCK, panel, (first + g) * KERN_BLOCK / size, r, block);
            kern_decode(type, block, &c);
            uint8_t code[QUANT_MAX_BLOCK];
            for (int k = 0; k < size; k++) code[k] = (uint8_t)(c.code[k] + QUANT_BOOK_OFFSET);
            for (int i = 0; i < size / KERN_BLOCK; i++) {
                for (int j = 0; j < 8; j++) memcpy(out->code[g + i][j] + 4 * r, code + 32 * i + 4 * j, 4);
                for (int h = 0; h < 2; h++) out->scale[g + i][h][r] = c.scale[2 * i + h];
            }
        }
}

/* Codes + 128 are added eight at a time in one register: first neighbours, then what is 16 bits wide now. */
void quant_half_sums(const int8_t *codes, int64_t n, int32_t *sums) {
    const uint64_t even = 0x00ff00ff00ff00ffu;
    for (int64_t g = 0; g < n; g++, codes += KERN_BLOCK) {
        uint64_t v[2];
        memcpy(v, codes, sizeof v);
        v[0] ^= 0x8080808080808080u, v[1] ^= 0x8080808080808080u;
        const uint64_t pairs = (v[0] & even) + (v[0] >> 8 & even) + (v[1] & even) + (v[1] >> 8 & even);
        sums[g] = (int32_t)(pairs * 0x0001000100010001u >> 48) - 16 * 128;
    }
}

/* The rows that exist of what was computed. Nearly always all of them do, and a length known beforehand is copied
 * faster. */
static void quant_store(const quant_work *w) {
    float *y = w->y;
    if (w->rows >= QUANT_PANELS * KERN_PANEL)
        for (int64_t t = 0; t < w->n; t++, y += w->ldy) memcpy(y, w->sum[t][0], sizeof w->sum[t]);
    else
        for (int64_t t = 0; t < w->n; t++, y += w->ldy) memcpy(y, w->sum[t][0], (size_t)w->rows * sizeof *y);
}

/* Asks for the lines that quant_store() will write: they lie a row of y apart, and waiting for them one by one takes
 * long. */
static void quant_fetch(const quant_work *w) {
    for (int64_t t = 0; t < w->n; t++) {
        __builtin_prefetch(w->y + t * w->ldy, 1, 2);
        if (w->rows > KERN_PANEL) __builtin_prefetch(w->y + t * w->ldy + KERN_PANEL, 1, 2);
    }
}

/* Groups first .. first + n - 1 of two panels, of which `there` bytes are left, are unpacked next. */
static void quant_look_ahead(quant_work *w, uint32_t type, const uint8_t *panel, size_t there, int64_t first,
                             int64_t n) {
    const kern_type_info info = kern_type_get(type);
    const int64_t cols = w->row_groups * KERN_BLOCK, block = info.block / KERN_BLOCK;
    const size_t bytes = kern_panel_bytes(type, cols);
    w->ahead = (quant_ahead){0};
    if (there < bytes) return;
    if (first + n > w->row_groups) n = w->row_groups - first;
    const panel_place from = kern_panel_place(kern_format_of(type), info, cols, first / block);
    const panel_place to = kern_panel_place(kern_format_of(type), info, cols, (first + n) / block);
    w->ahead.codes = panel + from.codes, w->ahead.side = panel + from.side;
    w->ahead.apart = there < QUANT_PANELS * bytes ? 0 : (int64_t)bytes;
    w->ahead.n_codes = (int64_t)(to.codes - from.codes + 63) / 64;
    w->ahead.n_lines = w->ahead.n_codes + (int64_t)(to.side - from.side + 63) / 64;
}

/* Tokens w->n, from the t-th on: all panels, two at a time. */
static void quant_rows(const quant_product *p, quant_work *w, int64_t t, const uint8_t *panels, int64_t rows,
                       const kern_act *act, const int32_t *half_sums, float *y) {
    const int64_t row_groups = w->row_groups, step = p->groups;
    const size_t panel_bytes = kern_panel_bytes(p->type, row_groups * KERN_BLOCK);
    const size_t pair_bytes = QUANT_PANELS * panel_bytes;
    const uint8_t *end = panels + (size_t)((rows + KERN_PANEL - 1) / KERN_PANEL + act->follow) * panel_bytes;
    for (int64_t row = 0; row < rows; row += QUANT_PANELS * KERN_PANEL) {
        if (!p->writes) memset(w->sum, 0, sizeof *w->sum * (size_t)w->n);
        const uint8_t *pair = panels + (size_t)(row / KERN_PANEL) * panel_bytes;
        const uint8_t *next = (size_t)(end - pair) > pair_bytes ? pair + pair_bytes : end;
        w->y = y + row, w->rows = rows - row;
        for (int64_t first = 0; first < row_groups; first += step) {
            w->n_groups = row_groups - first < step ? row_groups - first : step;
            w->codes = act->codes + (t * row_groups + first) * KERN_BLOCK;
            w->scale = act->scale + t * row_groups + first;
            w->sums = act->sum + t * row_groups + first;
            w->half_sums = half_sums ? half_sums + first : NULL;
            w->cells = act->cells ? act->cells + t * row_groups + first * act->cell_rows : NULL;
            w->tiles = act->tiles ? act->tiles + t / KERN_TILE_TOKENS * row_groups + first : NULL;
            for (int i = 0; i < QUANT_PANELS; i++) {
                /* A second panel that is not there: something is computed, and nothing of it kept. */
                if (row + i * KERN_PANEL >= rows) break;
                p->unpack(pair + (size_t)i * panel_bytes, row_groups, first, w->n_groups, &w->part[i]);
            }
            w->is_first = first == 0, w->is_last = first + w->n_groups == row_groups;
            if (w->is_last)
                quant_look_ahead(w, p->type, next, (size_t)(end - next), 0, step);
            else
                quant_look_ahead(w, p->type, pair, (size_t)(end - pair), first + step, step);
            w->fetch_y = w->is_last ? w->is_first : first + 2 * step >= row_groups;
            if (w->is_last && !p->tiled && !p->writes) quant_fetch(w);
            p->multiply(w);
        }
        if (!p->writes && !p->tiled) quant_store(w);
    }
}

void quant_matmul(const quant_product *p, const void *panels, int64_t rows, int64_t cols, const kern_act *act,
                  int64_t n, float *y, int64_t ldy) {
    const int halves = kern_format_of(p->type)->halves && !p->tiled;
    const int64_t row_groups = cols / KERN_BLOCK;
    int32_t half_sums[QUANT_HALF_SUMS];
    quant_work w;
    int64_t most = p->most;
    if (halves && most > QUANT_HALF_SUMS / row_groups) most = QUANT_HALF_SUMS / row_groups;
    if (most == 0) { /* more than 393216 inputs */
        kern_ref_matmul_int(p->type, panels, rows, cols, act, n, y, ldy);
        return;
    }
    const int64_t parts = (n + most - 1) / most, even = (n + parts - 1) / parts; /* of about the same size */
    const int64_t tiles = (even + p->tile - 1) / p->tile * p->tile;
    if (tiles < most) most = tiles;
    if (rows <= KERN_PANEL) memset(&w.part[1], 0, sizeof w.part[1]);
    w.row_groups = row_groups, w.offset = p->offset, w.ldy = ldy, w.cell_rows = act->cell_rows;
    for (int64_t t = 0; t < n; t += w.n) {
        w.n = n - t < most ? n - t : most;
        if (halves) quant_half_sums(act->codes + t * cols, w.n * row_groups, half_sums);
        quant_rows(p, &w, t, panels, rows, act, halves ? half_sums : NULL, y + t * ldy);
    }
}
