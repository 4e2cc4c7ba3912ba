/* amx.c: integer products of many tokens on AMX tiles (Sapphire Rapids and later). Everything else is avx512vnni.c's.
 *
 * One tile instruction multiplies 16 tokens with 16 rows over a block of 32 inputs: 8192 products, summed in int32, so
 * the numbers are those of every other version. A panel's block is already what the instruction wants: [8][16 rows][4
 * inputs]. The sums of a block leave the tile through memory and are scaled and added as everywhere else, one fma per
 * block. */
#include "../internal.h"

#if defined(KERN_X86)

#include "chunk.h"

#include <immintrin.h>

#define AMX_TARGET                                                                                                     \
    __attribute__((target("amx-tile,amx-int8,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")))
#define AMX_INLINE AMX_TARGET __attribute__((always_inline)) static inline

enum {
    AMX_TOKENS = 16,                        /* rows of a tile */
    AMX_BLOCKS = CHUNK_PAIRS / CHUNK_TOKENS /* most blocks of a chunk that has a tile's worth of tokens */
};

/* gcc's tile intrinsics do not say which memory they read: without this, stores before them could be left out. */
#define AMX_WILL_READ(pointer) __asm__ volatile("" : : "r"(pointer) : "memory")

/* The operand of LDTILECFG, palette 1 (Intel SDM, volume 1, 18.3). */
typedef struct amx_shapes {
    _Alignas(64) uint8_t palette;
    uint8_t start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} amx_shapes;

/* Tiles 0 and 1: sums [16 tokens][16 rows] int32. 2 and 4: activations [16 tokens][32] int8. 3 and 5: codes [8][16][4].
 */
AMX_INLINE void amx_configure(void) {
    amx_shapes s = {.palette = 1};
    s.rows[0] = s.rows[1] = s.rows[2] = s.rows[4] = AMX_TOKENS;
    s.rows[3] = s.rows[5] = KERN_BLOCK / 4;
    s.row_bytes[0] = s.row_bytes[1] = s.row_bytes[3] = s.row_bytes[5] = KERN_PANEL * 4;
    s.row_bytes[2] = s.row_bytes[4] = KERN_BLOCK;
    AMX_WILL_READ(&s);
    _tile_loadconfig(&s);
}

/* The part of a panel that belongs to a chunk, as signed codes and float32 scales. */
typedef struct amx_part {
    _Alignas(64) int8_t codes[AMX_BLOCKS][8][64];
    _Alignas(64) float scale[AMX_BLOCKS][KERN_PANEL];
} amx_part;

/* The unpackers: block by block from the panel's codes and scales. */
AMX_INLINE void amx_unpack(const uint32_t type, const uint8_t *codes, const uint8_t *scales, int64_t n_blocks,
                           amx_part *part) {
    for (int64_t b = 0; b < n_blocks; b++, scales += 2 * KERN_PANEL) {
        if (type == KERN_Q4_0) {
            const __m512i low = _mm512_set1_epi8(15), offset = _mm512_set1_epi8(8);
            KERN_UNROLL
            for (int j = 0; j < 4; j++, codes += 64) {
                __m512i pair = _mm512_loadu_si512(codes);
                __m512i high = _mm512_and_si512(_mm512_srli_epi16(pair, 4), low);
                _mm512_store_si512(part->codes[b][j], _mm512_sub_epi8(_mm512_and_si512(pair, low), offset));
                _mm512_store_si512(part->codes[b][4 + j], _mm512_sub_epi8(high, offset));
            }
        } else {
            const __m512i offset = _mm512_set1_epi8((char)0x80);
            KERN_UNROLL
            for (int j = 0; j < 8; j++, codes += 64) {
                _mm512_store_si512(part->codes[b][j], _mm512_xor_si512(_mm512_loadu_si512(codes), offset));
            }
        }
        _mm512_store_ps(part->scale[b], _mm512_cvtph_ps(_mm256_loadu_si256((const void *)scales)));
    }
}

/* acc[t] += sums[t] * (scale of the 16 rows * scale of token t) */
AMX_INLINE void amx_add(const int32_t *sums, const float *w_scale, const float *act_scale, __m512 acc[16]) {
    const __m512 w = _mm512_load_ps(w_scale);
    KERN_UNROLL
    for (int t = 0; t < AMX_TOKENS; t++) {
        const __m512 s = _mm512_mul_ps(w, _mm512_set1_ps(act_scale[t]));
        acc[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums + t * KERN_PANEL)), s, acc[t]);
    }
}

/* The sums of block b into a tile: the numbers of the tiles must be constants. */
#define AMX_DOT(SUM, ACT, CODES, b)                                                                                    \
    do {                                                                                                               \
        _tile_zero(SUM);                                                                                               \
        _tile_loadd(ACT, tokens + (b)*c->n_tokens, KERN_BLOCK);                                                        \
        _tile_loadd(CODES, part->codes[b], 64);                                                                        \
        _tile_dpbssd(SUM, ACT, CODES);                                                                                 \
    } while (0)

/* 16 tokens, from the t0-th of the chunk on. Two blocks are on their way through the tiles while the two before them
 * are scaled and added. y [16][16] starts at zero or, behind the first chunk of a row, at what is there. */
AMX_INLINE void amx_tile(const amx_part *part, const chunk *c, int64_t t0, __mmask16 rows, float *y, int64_t ldy) {
    _Alignas(64) int32_t sums[2][AMX_TOKENS * KERN_PANEL];
    const int64_t n = c->n_blocks;
    const int32_t(*tokens)[8] = c->codes + t0;
    const float *scale = c->scale + t0;
    const __mmask16 old = c->first_block > 0 ? rows : 0;
    __m512 acc[AMX_TOKENS];
    KERN_UNROLL
    for (int t = 0; t < AMX_TOKENS; t++) acc[t] = _mm512_maskz_loadu_ps(old, y + t * ldy);

    AMX_DOT(0, 2, 3, 0);
    if (n > 1) AMX_DOT(1, 4, 5, 1);
    int64_t b = 0;
    for (; b + 1 < n; b += 2) {
        _tile_stored(0, sums[0], 64);
        if (b + 2 < n) AMX_DOT(0, 2, 3, b + 2);
        _tile_stored(1, sums[1], 64);
        if (b + 3 < n) AMX_DOT(1, 4, 5, b + 3);
        amx_add(sums[0], part->scale[b], scale + b * c->n_tokens, acc);
        amx_add(sums[1], part->scale[b + 1], scale + (b + 1) * c->n_tokens, acc);
    }
    if (b < n) {
        _tile_stored(0, sums[0], 64);
        amx_add(sums[0], part->scale[b], scale + b * c->n_tokens, acc);
    }
    KERN_UNROLL
    for (int t = 0; t < AMX_TOKENS; t++) _mm512_mask_storeu_ps(y + t * ldy, rows, acc[t]);
}

/* n tokens, a multiple of 16; loops as in avx512vnni.c. */
AMX_INLINE void amx_matmul(const uint32_t type, const void *panels, int64_t rows, int64_t cols, const kern_act *act,
                           int64_t n, float *y, int64_t ldy) {
    const int64_t row_blocks = cols / KERN_BLOCK, code_bytes = type == KERN_Q4_0 ? 256 : 512;
    const int64_t panel_bytes = row_blocks * (code_bytes + 2 * KERN_PANEL);
    chunk c;
    amx_part part;
    amx_configure();
    for (c.first_token = 0; c.first_token < n; c.first_token += c.n_tokens) {
        c.n_tokens = n - c.first_token < CHUNK_TOKENS ? n - c.first_token : CHUNK_TOKENS;
        for (c.first_block = 0; c.first_block < row_blocks; c.first_block += c.n_blocks) {
            c.n_blocks = row_blocks - c.first_block < AMX_BLOCKS ? row_blocks - c.first_block : AMX_BLOCKS;
            chunk_fill(&c, act, row_blocks, 0);
            AMX_WILL_READ(&c);
            const uint8_t *panel = panels;
            for (int64_t row = 0; row < rows; row += KERN_PANEL, panel += panel_bytes) {
                const int64_t left = rows - row;
                const __mmask16 mask = left < KERN_PANEL ? (__mmask16)((1u << left) - 1) : (__mmask16)0xffff;
                amx_unpack(type, panel + c.first_block * code_bytes,
                           panel + row_blocks * code_bytes + c.first_block * 2 * KERN_PANEL, c.n_blocks, &part);
                AMX_WILL_READ(&part);
                for (int64_t t = 0; t < c.n_tokens; t += AMX_TOKENS) {
                    amx_tile(&part, &c, t, mask, y + (c.first_token + t) * ldy + row, ldy);
                }
            }
        }
    }
    _tile_release();
}

/* The tokens behind the last full tile are the business of avx512vnni.c. */
AMX_INLINE void amx_split(const uint32_t type, kern_matmul *rest, const void *panels, int64_t rows, int64_t cols,
                          const kern_act *act, int64_t n, float *y, int64_t ldy) {
    const int64_t tiled = n / AMX_TOKENS * AMX_TOKENS, blocks = cols / KERN_BLOCK;
    if (tiled > 0) amx_matmul(type, panels, rows, cols, act, tiled, y, ldy);
    if (tiled == n) return;
    const kern_act last = {.x = act->x,
                           .codes = act->codes + tiled * cols,
                           .scale = act->scale + tiled * blocks,
                           .sum = act->sum + tiled * blocks};
    rest(panels, rows, cols, &last, n - tiled, y + tiled * ldy, ldy);
}

AMX_TARGET static void amx_matmul_q4_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,
                                       float *y, int64_t ldy) {
    amx_split(KERN_Q4_0, kern_avx512vnni_matmul_q4_0, panels, rows, cols, act, n, y, ldy);
}

AMX_TARGET static void amx_matmul_q8_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,
                                       float *y, int64_t ldy) {
    amx_split(KERN_Q8_0, kern_avx512vnni_matmul_q8_0, panels, rows, cols, act, n, y, ldy);
}

void kern_table_amx(kern_table *table) {
    table->matmul[KERN_Q4_0] = amx_matmul_q4_0;
    table->matmul[KERN_Q8_0] = amx_matmul_q8_0;
}

#endif
