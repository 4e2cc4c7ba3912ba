/* avx512vnni.c: the integer products for AVX-512 VNNI (Ice Lake, Zen 4 and later).
 *
 * A zmm register holds 16 int32: one panel row each. Lanes never mix, so every lane does exactly what ref does. */
#include "../internal.h"

#if defined(KERN_X86)

#include "avx512.h"
#include "chunk.h"

#define AVX512VNNI_TARGET __attribute__((target(AVX512_FEATURES ",avx512vnni,prfchw")))
#define AVX512VNNI_INLINE AVX512VNNI_TARGET KERN_INLINE

enum {
    AVX512_TILE = 16,    /* tokens that share the unpacked codes of a block */
    AVX512_GROUP = 8,    /* tokens whose products alternate: as many as hide the latency of vpdpbusd */
    AVX512_AHEAD = 16384 /* bytes the prefetch of a decode step runs ahead */
};

AVX512VNNI_INLINE int avx512_code_bytes(const uint32_t type) {
    return type == KERN_Q4_0 ? 256 : 512;
}

/* The unpacker of a type: the codes of a block of a panel as 8 registers [16 rows][4 inputs] of unsigned bytes. */
AVX512VNNI_INLINE void avx512_codes(const uint32_t type, const uint8_t *p, __m512i code[8]) {
    if (type == KERN_Q4_0) {
        const __m512i low = _mm512_set1_epi8(15);
        KERN_UNROLL
        for (int j = 0; j < 4; j++) {
            __m512i pair = _mm512_loadu_si512(p + 64 * j);
            code[j] = _mm512_and_si512(pair, low);
            code[4 + j] = _mm512_and_si512(_mm512_srli_epi16(pair, 4), low);
        }
    } else {
        KERN_UNROLL
        for (int j = 0; j < 8; j++) code[j] = _mm512_loadu_si512(p + 64 * j);
    }
}

/* acc + the products of 16 rows of 4 codes with the same 4 activations. In assembly, because gcc 12 does not put the
 * broadcast into the instruction, which is worth a fifth of the speed. */
AVX512VNNI_INLINE __m512i avx512_dot4(__m512i acc, __m512i code, const int32_t *act) {
    __asm__("vpdpbusd {%2%{1to16%}, %1, %0|%0, %1, %2%{1to16%}}" : "+v"(acc) : "v"(code), "m"(*act));
    return acc;
}

/* One panel, the part of it that belongs to a chunk. */
typedef struct avx512_part {
    const uint8_t *codes, *scales;
    int64_t ahead;       /* what to prefetch, relative to what is read ... */
    const uint8_t *last; /* ... as long as that lies before this: other threads' panels are theirs to fetch */
    __mmask16 rows;      /* the rows that exist */
} avx512_part;

AVX512VNNI_INLINE void avx512_prefetch(const uint32_t type, const uint8_t *codes, const uint8_t *scales,
                                       int64_t ahead) {
    KERN_UNROLL
    for (int i = 0; i < avx512_code_bytes(type); i += 64) _mm_prefetch((const char *)codes + ahead + i, _MM_HINT_T0);
    _mm_prefetch((const char *)scales + ahead, _MM_HINT_T0);
}

/* T tokens, from the t0-th of the chunk on, times a part of a panel. y [T][16] starts at zero or, behind the first
 * chunk of a row, at what is there. */
AVX512VNNI_INLINE void avx512_int_tile(const uint32_t type, const int T, const avx512_part *part, const chunk *c,
                                       int64_t t0, float *y, int64_t ldy) {
    const int G = T < AVX512_GROUP ? T : AVX512_GROUP;
    const int32_t(*act)[8] = c->codes + t0, *start = c->start + t0;
    const float *scale = c->scale + t0;
    const uint8_t *codes = part->codes, *scales = part->scales;
    const __mmask16 old = c->first_block > 0 ? part->rows : 0;
    __m512 acc[AVX512_TILE];
    KERN_UNROLL
    for (int t = 0; t < T; t++) acc[t] = _mm512_maskz_loadu_ps(old, y + t * ldy);

    for (int64_t b = 0; b < c->n_blocks; b++, codes += avx512_code_bytes(type), scales += 32) {
        __m512i code[8];
        avx512_codes(type, codes, code);
        if (t0 == 0 && codes < part->last) avx512_prefetch(type, codes, scales, part->ahead);
        const __m512 w_scale = _mm512_cvtph_ps(_mm256_loadu_si256((const void *)scales));
        KERN_UNROLL
        for (int g = 0; g < T; g += G) {
            __m512i dot[AVX512_GROUP];
            KERN_UNROLL
            for (int t = 0; t < G; t++) dot[t] = _mm512_set1_epi32(start[g + t]);
            KERN_UNROLL
            for (int j = 0; j < 8; j++) {
                KERN_UNROLL
                for (int t = 0; t < G; t++) dot[t] = avx512_dot4(dot[t], code[j], &act[g + t][j]);
            }
            KERN_UNROLL
            for (int t = 0; t < G; t++) {
                const __m512 s = _mm512_mul_ps(w_scale, _mm512_set1_ps(scale[g + t]));
                acc[g + t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[t]), s, acc[g + t]);
            }
        }
        act += c->n_tokens;
        start += c->n_tokens;
        scale += c->n_tokens;
    }
    KERN_UNROLL
    for (int t = 0; t < T; t++) _mm512_mask_storeu_ps(y + t * ldy, part->rows, acc[t]);
}

/* All tokens of a chunk times a part of a panel. */
AVX512VNNI_INLINE void avx512_int_part(const uint32_t type, const avx512_part *part, const chunk *c, float *y,
                                       int64_t ldy) {
    int64_t t = 0;
    for (; t + 16 <= c->n_tokens; t += 16) avx512_int_tile(type, 16, part, c, t, y + t * ldy, ldy);
    for (; t + 8 <= c->n_tokens; t += 8) avx512_int_tile(type, 8, part, c, t, y + t * ldy, ldy);
    for (; t + 4 <= c->n_tokens; t += 4) avx512_int_tile(type, 4, part, c, t, y + t * ldy, ldy);
    for (; t + 2 <= c->n_tokens; t += 2) avx512_int_tile(type, 2, part, c, t, y + t * ldy, ldy);
    for (; t < c->n_tokens; t++) avx512_int_tile(type, 1, part, c, t, y + t * ldy, ldy);
}

/* Chunk by chunk, all panels. A chunk that is a whole row walks the panels from end to end, so the prefetch simply runs
 * ahead; otherwise it fetches the part of the next panel. */
AVX512VNNI_INLINE void avx512_matmul_int(const uint32_t type, int32_t offset, const void *panels, int64_t rows,
                                         int64_t cols, const kern_act *act, int64_t n, float *y, int64_t ldy) {
    const int64_t row_blocks = cols / KERN_BLOCK, code_bytes = avx512_code_bytes(type);
    const int64_t panel_bytes = row_blocks * (code_bytes + 2 * KERN_PANEL);
    const uint8_t *end = (const uint8_t *)panels + (rows + KERN_PANEL - 1) / KERN_PANEL * panel_bytes;
    chunk c;
    for (c.first_token = 0; c.first_token < n; c.first_token += c.n_tokens) {
        c.n_tokens = n - c.first_token < CHUNK_TOKENS ? n - c.first_token : CHUNK_TOKENS;
        for (c.first_block = 0; c.first_block < row_blocks; c.first_block += c.n_blocks) {
            c.n_blocks = chunk_blocks(c.n_tokens, row_blocks - c.first_block);
            chunk_fill(&c, act, row_blocks, offset);
            const uint8_t *panel = panels;
            for (int64_t row = 0; row < rows; row += KERN_PANEL, panel += panel_bytes) {
                const int64_t ahead = c.n_blocks == row_blocks ? AVX512_AHEAD : panel_bytes;
                const avx512_part part = {.codes = panel + c.first_block * code_bytes,
                                          .scales = panel + row_blocks * code_bytes + c.first_block * 2 * KERN_PANEL,
                                          .ahead = ahead,
                                          .last = end - ahead,
                                          .rows = avx512_mask(rows - row)};
                avx512_int_part(type, &part, &c, y + c.first_token * ldy + row, ldy);
            }
        }
    }
}

/* ---- many tokens -------------------------------------------------------------------------------------------------
 *
 * Two panels by some tokens by 16 blocks at a time (Goto & van de Geijn 2008): the blocks of the panels are unpacked
 * into the first-level cache and used by all these tokens, five at a time, whose sums are in registers. */

enum {
    GEMM_PANELS = 2,   /* panels side by side: an activation that is fetched serves both */
    GEMM_TILE = 5,     /* tokens of a tile */
    GEMM_BLOCKS = 16,  /* blocks that are unpacked at a time: 16 KB */
    GEMM_TOKENS = 160, /* tokens that use them before they are overwritten */
    GEMM_FROM = 48     /* tokens from which on unpacking into memory pays */
};

typedef struct gemm_block {
    __m512i code[8][GEMM_PANELS]; /* [4 inputs][panel] of [16 rows][4 inputs] */
    __m512 scale[GEMM_PANELS];
} gemm_block;

typedef struct gemm_part {
    gemm_block w[GEMM_BLOCKS];
    __m512 sum[GEMM_TOKENS][GEMM_PANELS]; /* of the blocks so far */
    int64_t n, n_blocks;
    const int8_t *codes; /* of the first token and block, rows row_blocks * 32 apart */
    const float *scale;  /* rows row_blocks apart */
    const int32_t *sums;
    int64_t row_blocks;
    int32_t offset; /* of the codes of the weights */
    float *y;       /* where the sums will go after the last part, rows ldy apart; NULL before */
    int64_t ldy;
    const uint8_t *ahead[GEMM_PANELS]; /* weights that will be wanted next */
} gemm_part;

/* What a tile needs of the scales of its tokens. It is made ready one tile ahead: a load that meets a store still under
 * way waits for it. */
typedef struct gemm_scales {
    float scale[GEMM_TILE][GEMM_BLOCKS];
    int32_t start[GEMM_TILE][GEMM_BLOCKS]; /* -offset * sum of the codes: where the sum of a block starts */
} gemm_scales;

/* Tokens t0 and following; those that do not exist repeat the last. */
AVX512VNNI_INLINE void gemm_prepare(const gemm_part *g, int64_t t0, gemm_scales *s) {
    const __mmask16 blocks = avx512_mask(g->n_blocks);
    KERN_UNROLL
    for (int t = 0; t < GEMM_TILE; t++) {
        const int64_t from = (t0 + t < g->n ? t0 + t : g->n - 1) * g->row_blocks;
        const __m512i sum = _mm512_maskz_loadu_epi32(blocks, g->sums + from);
        _mm512_storeu_ps(s->scale[t], _mm512_maskz_loadu_ps(blocks, g->scale + from));
        _mm512_storeu_si512(s->start[t], _mm512_mullo_epi32(sum, _mm512_set1_epi32(-g->offset)));
    }
}

/* Tokens t0 .. t0 + T - 1. */
AVX512VNNI_INLINE void gemm_tile(const int T, gemm_part *g, int64_t t0, const gemm_scales *s) {
    enum { P = GEMM_PANELS };
    const int64_t stride = g->row_blocks * KERN_BLOCK;
    const int8_t *act = g->codes + t0 * stride;
    const gemm_block *w = g->w;
    __m512 acc[GEMM_TILE][P];
    KERN_UNROLL
    for (int t = 0; t < T; t++) KERN_UNROLL
    for (int p = 0; p < P; p++) acc[t][p] = g->sum[t0 + t][p];
    for (int t = 0; g->y && t < T; t++) KERN_UNROLL
    for (int p = 0; p < P; p++) __builtin_prefetch(g->y + (t0 + t) * g->ldy + p * KERN_PANEL, 1);

    const uint8_t *ahead[P] = {g->ahead[0] + t0 / GEMM_TILE * 512, g->ahead[1] + t0 / GEMM_TILE * 512};
    for (int64_t b = 0; b < g->n_blocks; b++, w++, act += KERN_BLOCK) {
        __m512i dot[GEMM_TILE][P];
        _mm_prefetch((const char *)ahead[b & 1] + 32 * b, _MM_HINT_T1);
        KERN_UNROLL
        for (int t = 0; t < T; t++) dot[t][0] = dot[t][1] = _mm512_set1_epi32(s->start[t][b]);
        KERN_UNROLL
        for (int j = 0; j < 8; j++) {
            const __m512i code0 = w->code[j][0], code1 = w->code[j][1];
            KERN_UNROLL
            for (int t = 0; t < T; t++) {
                int32_t four;
                memcpy(&four, act + t * stride + 4 * j, sizeof four);
                const __m512i x = _mm512_set1_epi32(four);
                /* In assembly, because gcc 12 moves the products about until registers run out. */
                __asm__("vpdpbusd %1, %2, %0" : "+v"(dot[t][0]) : "v"(x), "v"(code0));
                __asm__("vpdpbusd %1, %2, %0" : "+v"(dot[t][1]) : "v"(x), "v"(code1));
            }
        }
        KERN_UNROLL
        for (int t = 0; t < T; t++) {
            const __m512 scale = _mm512_set1_ps(s->scale[t][b]);
            KERN_UNROLL
            for (int p = 0; p < P; p++)
                acc[t][p] =
                    _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[t][p]), _mm512_mul_ps(w->scale[p], scale), acc[t][p]);
        }
    }
    KERN_UNROLL
    for (int t = 0; t < T; t++) KERN_UNROLL
    for (int p = 0; p < P; p++) g->sum[t0 + t][p] = acc[t][p];
}

AVX512VNNI_TARGET static void gemm_tiles(gemm_part *g) {
    gemm_scales s[2];
    int64_t t = 0;
    int i = 0;
    gemm_prepare(g, 0, &s[0]);
    for (; t + GEMM_TILE <= g->n; t += GEMM_TILE, i ^= 1) {
        gemm_prepare(g, t + GEMM_TILE, &s[i ^ 1]);
        gemm_tile(GEMM_TILE, g, t, &s[i]);
    }
    switch (g->n - t) {
    case 1: gemm_tile(1, g, t, &s[i]); break;
    case 2: gemm_tile(2, g, t, &s[i]); break;
    case 3: gemm_tile(3, g, t, &s[i]); break;
    case 4: gemm_tile(4, g, t, &s[i]); break;
    }
}

AVX512VNNI_INLINE void gemm_unpack(const uint32_t type, const uint8_t *codes, const uint8_t *scales, int64_t n_blocks,
                                   gemm_block *w, int p) {
    for (int64_t b = 0; b < n_blocks; b++, codes += avx512_code_bytes(type), scales += 2 * KERN_PANEL) {
        __m512i code[8];
        avx512_codes(type, codes, code);
        KERN_UNROLL
        for (int j = 0; j < 8; j++) w[b].code[j][p] = code[j];
        w[b].scale[p] = _mm512_cvtph_ps(_mm256_loadu_si256((const void *)scales));
    }
}

/* Tokens by tokens, two panels by two panels, inputs by inputs. */
AVX512VNNI_INLINE void gemm(const uint32_t type, int32_t offset, const void *panels, int64_t rows, int64_t cols,
                            const kern_act *act, int64_t n, float *y, int64_t ldy) {
    const int64_t row_blocks = cols / KERN_BLOCK, code_bytes = avx512_code_bytes(type);
    const int64_t panel_bytes = row_blocks * (code_bytes + 2 * KERN_PANEL);
    /* Parts of about the same size, of whole tiles. */
    const int64_t parts = (n + GEMM_TOKENS - 1) / GEMM_TOKENS;
    const int64_t most = ((n + parts - 1) / parts + GEMM_TILE - 1) / GEMM_TILE * GEMM_TILE;
    gemm_part g;
    g.row_blocks = row_blocks, g.offset = offset;
    for (int64_t t = 0, n_tokens; t < n; t += n_tokens) {
        n_tokens = n - t < most ? n - t : most;
        for (int64_t row = 0; row < rows; row += GEMM_PANELS * KERN_PANEL) {
            memset(g.sum, 0, sizeof *g.sum * (size_t)n_tokens);
            for (int64_t first = 0; first < row_blocks; first += GEMM_BLOCKS) {
                g.codes = act->codes + (t * row_blocks + first) * KERN_BLOCK;
                g.scale = act->scale + t * row_blocks + first;
                g.sums = act->sum + t * row_blocks + first;
                g.n_blocks = row_blocks - first < GEMM_BLOCKS ? row_blocks - first : GEMM_BLOCKS;
                for (int p = 0; p < GEMM_PANELS; p++) {
                    /* A second panel that does not exist: the first once more, and nothing of it is kept. */
                    const int64_t panel = row / KERN_PANEL + (row + p * KERN_PANEL < rows ? p : 0);
                    const uint8_t *codes = (const uint8_t *)panels + panel * panel_bytes;
                    const uint8_t *scales = codes + row_blocks * code_bytes + first * 2 * KERN_PANEL;
                    gemm_unpack(type, codes + first * code_bytes, scales, g.n_blocks, g.w, p);
                    g.ahead[p] = codes + (first + GEMM_BLOCKS < row_blocks ? (first + GEMM_BLOCKS) * code_bytes
                                                                           : GEMM_PANELS * panel_bytes);
                }
                g.y = first + g.n_blocks == row_blocks ? y + t * ldy + row : NULL;
                g.ldy = ldy;
                g.n = n_tokens;
                gemm_tiles(&g);
            }
            for (int64_t i = 0; i < n_tokens; i++)
                for (int p = 0; p < GEMM_PANELS; p++)
                    _mm512_mask_storeu_ps(y + (t + i) * ldy + row + p * KERN_PANEL,
                                          avx512_mask(rows - row - p * KERN_PANEL), g.sum[i][p]);
        }
    }
}

/* ---- the table's entries ----------------------------------------------------------------------------------------- */

AVX512VNNI_TARGET void kern_avx512vnni_matmul_q4_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act,
                                                   int64_t n, float *y, int64_t ldy) {
    if (n >= GEMM_FROM)
        gemm(KERN_Q4_0, 8, panels, rows, cols, act, n, y, ldy);
    else
        avx512_matmul_int(KERN_Q4_0, 8, panels, rows, cols, act, n, y, ldy);
}

AVX512VNNI_TARGET void kern_avx512vnni_matmul_q8_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act,
                                                   int64_t n, float *y, int64_t ldy) {
    if (n >= GEMM_FROM)
        gemm(KERN_Q8_0, 128, panels, rows, cols, act, n, y, ldy);
    else
        avx512_matmul_int(KERN_Q8_0, 128, panels, rows, cols, act, n, y, ldy);
}

void kern_table_avx512vnni(kern_table *table) {
    table->panel_group = GEMM_PANELS;
    table->matmul[KERN_Q4_0] = kern_avx512vnni_matmul_q4_0;
    table->matmul[KERN_Q8_0] = kern_avx512vnni_matmul_q8_0;
    kern_table_quants512(table);
}

#endif
