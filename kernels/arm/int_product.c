/* int_product.c: the way through a matrix with integer weights, for every level of Arm; see int_product.h. */
#include "int_product.h"

#if defined(KERN_ARM)

/* A chunk of the activations that stays in the first or second level cache while panels pass by: 40 KB on the stack,
 * and 10 KB for the part of a panel that goes with it. */
enum { NEON_CHUNK_TILES = 16, NEON_CHUNK_BLOCKS = 16 };

typedef struct neon_chunk {
    int64_t first_token, n_tokens, first_block, n_blocks;
    neon_tokens tokens[NEON_CHUNK_TILES][NEON_CHUNK_BLOCKS];
} neon_chunk;

/* ---- few tokens -------------------------------------------------------------------------------------------------- */

static void neon_few_product(const neon_int_kernel *k, const uint8_t *panel, int64_t panel_bytes, int64_t rows,
                             int64_t cols, const kern_act *act, int64_t n, float *y, int64_t ldy) {
    for (; rows >= KERN_PANEL; rows -= KERN_PANEL, panel += panel_bytes, y += KERN_PANEL)
        k->few(panel, cols, act, n, y, ldy);
    if (rows <= 0) return;
    float edge[NEON_FEW][KERN_PANEL]; /* rows that are not there are computed, but not kept */
    k->few(panel, cols, act, n, edge[0], KERN_PANEL);
    for (int64_t t = 0; t < n; t++) memcpy(y + t * ldy, edge[t], (size_t)rows * sizeof(float));
}

/* ---- many tokens ------------------------------------------------------------------------------------------------- */

/* Tokens behind the last are zero. */
static void neon_chunk_fill(const neon_int_kernel *k, neon_chunk *c, const kern_act *act, int64_t row_blocks) {
    static const int8_t zero[KERN_BLOCK] = {0};
    for (int64_t t = 0; t < c->n_tokens; t += 4)
        for (int64_t b = 0; b < c->n_blocks; b++) {
            const int8_t *codes[4];
            float scale[4];
            for (int i = 0; i < 4; i++) {
                const int64_t at = (c->first_token + t + i) * row_blocks + c->first_block + b;
                const int there = t + i < c->n_tokens;
                codes[i] = there ? act->codes + at * KERN_BLOCK : zero;
                scale[i] = there ? act->scale[at] : 0.0f;
            }
            k->arrange(codes, scale, &c->tokens[t / 4][b]);
        }
}

/* A tile of which only some tokens and rows are there. */
static void neon_edge_tile(const neon_int_kernel *k, const neon_rows *w, const neon_tokens *x, int64_t n_blocks,
                           int first, int64_t n_tokens, int64_t n_rows, float *y, int64_t ldy) {
    float edge[4][KERN_PANEL] = {{0}};
    for (int64_t t = 0; t < n_tokens && !first; t++) memcpy(edge[t], y + t * ldy, (size_t)n_rows * sizeof(float));
    k->tile(w, x, n_blocks, first, edge[0], KERN_PANEL);
    for (int64_t t = 0; t < n_tokens; t++) memcpy(y + t * ldy, edge[t], (size_t)n_rows * sizeof(float));
}

/* All tokens of a chunk times the part of a panel that belongs to it. */
static void neon_chunk_product(const neon_int_kernel *k, const neon_chunk *c, const neon_rows *w, int64_t n_rows,
                               float *y, int64_t ldy) {
    const int first = c->first_block == 0;
    for (int64_t t = 0; t < c->n_tokens; t += 4) {
        const neon_tokens *x = c->tokens[t / 4];
        const int64_t n_tokens = c->n_tokens - t;
        if (n_tokens >= 4 && n_rows >= KERN_PANEL)
            k->tile(w, x, c->n_blocks, first, y + t * ldy, ldy);
        else
            neon_edge_tile(k, w, x, c->n_blocks, first, n_tokens < 4 ? n_tokens : 4,
                           n_rows < KERN_PANEL ? n_rows : KERN_PANEL, y + t * ldy, ldy);
    }
}

static void neon_many_product(const neon_int_kernel *k, const uint8_t *panels, int64_t panel_bytes, int64_t rows,
                              int64_t cols, const kern_act *act, int64_t n, float *y, int64_t ldy) {
    const int64_t row_blocks = cols / KERN_BLOCK, code_bytes = neon_code_bytes(k->type);
    neon_rows w[NEON_CHUNK_BLOCKS];
    neon_chunk c;
    for (c.first_token = 0; c.first_token < n; c.first_token += c.n_tokens) {
        c.n_tokens = n - c.first_token < 4 * NEON_CHUNK_TILES ? n - c.first_token : 4 * NEON_CHUNK_TILES;
        for (c.first_block = 0; c.first_block < row_blocks; c.first_block += c.n_blocks) {
            c.n_blocks =
                row_blocks - c.first_block < NEON_CHUNK_BLOCKS ? row_blocks - c.first_block : NEON_CHUNK_BLOCKS;
            neon_chunk_fill(k, &c, act, row_blocks);
            const uint8_t *panel = panels;
            for (int64_t row = 0; row < rows; row += KERN_PANEL, panel += panel_bytes) {
                const uint8_t *codes = panel + c.first_block * code_bytes;
                const uint8_t *scales = panel + row_blocks * code_bytes + c.first_block * 2 * KERN_PANEL;
                for (int64_t b = 0; b < c.n_blocks; b++)
                    k->unpack(codes + b * code_bytes, scales + b * 2 * KERN_PANEL, &w[b]);
                neon_chunk_product(k, &c, w, rows - row, y + c.first_token * ldy + row, ldy);
            }
        }
    }
}

void neon_int_product(const neon_int_kernel *kernel, const void *panels, int64_t rows, int64_t cols,
                      const kern_act *act, int64_t n, float *y, int64_t ldy) {
    const int64_t row_blocks = cols / KERN_BLOCK;
    const int64_t panel_bytes = row_blocks * (neon_code_bytes(kernel->type) + 2 * KERN_PANEL);
    if (n <= kernel->few_tokens)
        neon_few_product(kernel, panels, panel_bytes, rows, cols, act, n, y, ldy);
    else
        neon_many_product(kernel, panels, panel_bytes, rows, cols, act, n, y, ldy);
}

#endif
