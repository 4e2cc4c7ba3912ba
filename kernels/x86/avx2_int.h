/* avx2_int.h: the way through a matrix with integer weights for registers of 8 rows: AVX2, and AVX2 with AVX-VNNI. They
 * differ in how the products of a block are formed, which is a function they bring. Lanes never mix, so every lane does
 * exactly what ref does. */
#ifndef KERN_X86_AVX2_INT_H
#define KERN_X86_AVX2_INT_H

#include "chunk.h"
#include "streams.h"

#include <immintrin.h>

#define AVX2_TARGET __attribute__((target("avx2,fma,f16c")))
#define AVX2_INLINE AVX2_TARGET KERN_INLINE

/* All bits set in the lanes first <= lane < end. */
AVX2_INLINE __m256i avx2_mask(int64_t first, int64_t end) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const int low = first > 0 ? (int)first : 0, high = end < 8 ? (int)end : 8;
    return _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(low), lane),
                               _mm256_cmpgt_epi32(_mm256_set1_epi32(high), lane));
}

/* The first n of 8 values; the others read as 0 and are not written. */
AVX2_INLINE __m256 avx2_load_n(const float *p, int64_t n) {
    return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, avx2_mask(0, n));
}

AVX2_INLINE void avx2_store_n(float *p, int64_t n, __m256 v) {
    if (n >= 8)
        _mm256_storeu_ps(p, v);
    else
        _mm256_maskstore_ps(p, avx2_mask(0, n), v);
}

enum { AVX2_TOKENS = 6 /* most tokens that share the unpacked codes of a block */ };

AVX2_INLINE int avx2_code_bytes(const uint32_t type) {
    return type == KERN_Q4_0 ? 256 : 512;
}

/* The j-th (of 8) unsigned codes of a block, 4 inputs of 16 rows, and the 4 activations they are multiplied with. The
 * codes are in the layout of this type. Q4_0: of the two halves of what is loaded, one after the other; `pair` keeps it
 * in between where T tokens leave registers for it. */
AVX2_INLINE void avx2_codes(const uint32_t layout, const int T, const int j, const uint8_t *codes, __m256i pair[2],
                            __m256i code[2]) {
    const int halves = layout == KERN_Q4_0, keep = halves && T <= 2;
    KERN_UNROLL
    for (int h = 0; h < 2; h++) {
        if (!keep || j % 2 == 0)
            pair[h] = _mm256_loadu_si256((const void *)(codes + 64 * (halves ? j / 2 : j) + 32 * h));
        if (keep && j % 2 == 0) __asm__("" : "+x"(pair[h])); /* gcc would load it twice */
        code[h] = pair[h];
        if (halves) code[h] = _mm256_and_si256(j % 2 ? _mm256_srli_epi16(pair[h], 4) : pair[h], _mm256_set1_epi8(15));
    }
}

AVX2_INLINE __m256i avx2_act(const uint32_t layout, const int j, const int8_t *act) {
    int32_t four;
    memcpy(&four, act + 4 * (layout == KERN_Q4_0 ? j / 2 + j % 2 * 4 : j), sizeof four);
    return _mm256_set1_epi32(four);
}

/* dot[T][2] of 8 rows = (code - offset) * activation, summed over a block. act: [T][32], rows are ld apart. `start` is
 * what pays for the offset where codes stay unsigned. Layout and T are constants, and so is the function: it is
 * inlined. */
typedef void avx2_dot(const uint32_t layout, const int T, const uint8_t *codes, const int8_t *act, int64_t ld,
                      const int32_t *start, __m256i *dot);

/* acc[T][2] += dot times both scales. */
AVX2_INLINE void avx2_add_dots(const int T, const uint8_t *scales, const float *scale, const __m256i *dot,
                               __m256 *acc) {
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) {
        const __m256 w_scale = _mm256_cvtph_ps(_mm_loadu_si128((const void *)(scales + i % 2 * 16)));
        const __m256 s = _mm256_mul_ps(w_scale, _mm256_set1_ps(scale[i / 2]));
        acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[i]), s, acc[i]);
    }
}

/* The part of a panel that belongs to a chunk. */
typedef struct avx2_part {
    const uint8_t *codes, *scales;
    int64_t codes_ahead, scales_ahead; /* what to prefetch, relative to what is read */
    int64_t rows;                      /* the rows that exist, or more */
} avx2_part;

AVX2_INLINE void avx2_prefetch(const uint32_t type, const uint8_t *codes, const uint8_t *scales) {
    KERN_UNROLL
    for (int i = 0; i < avx2_code_bytes(type); i += 64) _mm_prefetch((const char *)codes + i, _MM_HINT_T1);
    _mm_prefetch((const char *)scales, _MM_HINT_T1);
}

/* T tokens, from the t0-th of the chunk on, times a part of a panel. y [T][16] starts at zero or, behind the first
 * chunk of a row, at what is there. */
AVX2_INLINE void avx2_int_tile(avx2_dot *block_dot, const uint32_t layout, const int T, const avx2_part *part,
                               const chunk *c, int64_t t0, float *y, int64_t ldy) {
    const int8_t *act = (const int8_t *)c->codes[t0];
    const int32_t *start = c->start + t0;
    const float *scale = c->scale + t0;
    const uint8_t *codes = part->codes, *scales = part->scales;
    const int64_t old = c->first_block > 0 ? part->rows : 0;
    __m256 acc[2 * AVX2_TOKENS];
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) acc[i] = avx2_load_n(y + i / 2 * ldy + i % 2 * 8, old - i % 2 * 8);

    for (int64_t b = 0; b < c->n_blocks; b++, codes += avx2_code_bytes(layout), scales += 32) {
        __m256i dot[2 * AVX2_TOKENS];
        if (t0 == 0) avx2_prefetch(layout, codes + part->codes_ahead, scales + part->scales_ahead);
        block_dot(layout, T, codes, act, KERN_BLOCK, start, dot);
        avx2_add_dots(T, scales, scale, dot, acc);
        act += c->n_tokens * KERN_BLOCK;
        start += c->n_tokens;
        scale += c->n_tokens;
    }
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) avx2_store_n(y + i / 2 * ldy + i % 2 * 8, part->rows - i % 2 * 8, acc[i]);
}

/* All tokens of a chunk times a part of a panel, T at a time. */
AVX2_INLINE void avx2_int_part(avx2_dot *block_dot, const uint32_t type, const int T, const avx2_part *part,
                               const chunk *c, float *y, int64_t ldy) {
    int64_t t = 0;
#define STEP(N)                                                                                                        \
    for (; t + (N) <= c->n_tokens; t += (N)) avx2_int_tile(block_dot, type, N, part, c, t, y + t * ldy, ldy)
    if (T == 6) STEP(6);
    STEP(4);
    STEP(2);
    STEP(1);
#undef STEP
}

/* ---- one and two tokens ------------------------------------------------------------------------------------------
 *
 * By four panels side by side, with a fourth of all panels each: see streams.h. */

enum {
    AVX2_STREAMS = 4,
    AVX2_FEW = 2,    /* most tokens of it */
    AVX2_NEAR = 2048 /* bytes a prefetch runs ahead */
};

/* T tokens times `each` panels of every stream. */
AVX2_INLINE void avx2_streams(avx2_dot *block_dot, const uint32_t type, const int T, int32_t offset, const void *panels,
                              int64_t each, int64_t rows, int64_t cols, const kern_act *act, float *y, int64_t ldy) {
    const int bytes = avx2_code_bytes(type);
    const int64_t n_blocks = cols / KERN_BLOCK;
    const size_t panel_bytes = kern_panel_bytes(type, cols);
    for (int64_t i = 0; i < each; i++, y += KERN_PANEL, rows -= KERN_PANEL) {
        const kern_streams w = kern_streams_at(panels, panel_bytes, n_blocks, AVX2_STREAMS, each, i, act->follow);
        __m256 acc[AVX2_STREAMS][2 * AVX2_FEW];
        KERN_UNROLL
        for (int k = 0; k < AVX2_STREAMS * 2 * T; k++) acc[k / (2 * T)][k % (2 * T)] = _mm256_setzero_ps();
        for (int64_t b = 0; b < n_blocks; b++) {
            const uint8_t *codes = w.first + b * bytes, *scales = w.first + n_blocks * bytes + b * 2 * KERN_PANEL;
            int32_t start[AVX2_FEW];
            float scale[AVX2_FEW];
            KERN_UNROLL
            for (int t = 0; t < T; t++)
                start[t] = -offset * act->sum[t * n_blocks + b], scale[t] = act->scale[t * n_blocks + b];
            kern_streams_fetch(bytes, AVX2_STREAMS, &w, b + AVX2_NEAR / bytes);
            KERN_UNROLL
            for (int p = 0; p < AVX2_STREAMS; p++, codes += w.apart, scales += w.apart) {
                __m256i dot[2 * AVX2_FEW];
                const int8_t *x = act->codes + b * KERN_BLOCK;
                int64_t ld = cols;
                /* All four are new to gcc here, or it would keep what the streams share, for want of registers on
                 * the stack. */
                __asm__("" : "+r"(x), "+r"(ld), "+r"(codes), "+r"(scales));
                block_dot(type, T, codes, x, ld, start, dot);
                avx2_add_dots(T, scales, scale, dot, acc[p]);
            }
        }
        KERN_UNROLL
        for (int k = 0; k < AVX2_STREAMS * 2 * T; k++) {
            const int64_t from = k / (2 * T) * each * KERN_PANEL + k % 2 * 8;
            avx2_store_n(y + k / 2 % T * ldy + from, rows - from, acc[k / (2 * T)][k % (2 * T)]);
        }
    }
}

/* ---- any number -------------------------------------------------------------------------------------------------- */

/* Chunk by chunk, all panels, T tokens at a time (4, or 6 where the registers are enough). */
AVX2_INLINE void avx2_matmul_int(avx2_dot *block_dot, const uint32_t type, int32_t offset, const int T,
                                 const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,
                                 float *y, int64_t ldy) {
    const int64_t row_blocks = cols / KERN_BLOCK, code_bytes = avx2_code_bytes(type);
    const int64_t panel_bytes = row_blocks * (code_bytes + 2 * KERN_PANEL);
    if (n <= AVX2_FEW) {
        const int64_t each = (rows + KERN_PANEL - 1) / KERN_PANEL / AVX2_STREAMS, done = each * AVX2_STREAMS;
        if (n == 1)
            avx2_streams(block_dot, type, 1, offset, panels, each, rows, cols, act, y, ldy);
        else
            avx2_streams(block_dot, type, 2, offset, panels, each, rows, cols, act, y, ldy);
        panels = (const uint8_t *)panels + done * panel_bytes, y += done * KERN_PANEL;
        if ((rows -= done * KERN_PANEL) <= 0) return;
    }
    chunk c;
    for (c.first_token = 0; c.first_token < n; c.first_token += c.n_tokens) {
        c.n_tokens = n - c.first_token < CHUNK_TOKENS ? n - c.first_token : CHUNK_TOKENS;
        for (c.first_block = 0; c.first_block < row_blocks; c.first_block += c.n_blocks) {
            c.n_blocks = chunk_blocks(c.n_tokens, row_blocks - c.first_block);
            chunk_fill(&c, act, row_blocks, offset);
            const uint8_t *panel = panels;
            for (int64_t row = 0; row < rows; row += KERN_PANEL, panel += panel_bytes) {
                const int is_last = rows - row <= KERN_PANEL;
                const int64_t next = is_last ? (const uint8_t *)panels - panel : panel_bytes;
                const int64_t blocks = is_last ? c.n_blocks : 0;
                const avx2_part part = {.codes = panel + c.first_block * code_bytes,
                                        .scales = panel + row_blocks * code_bytes + c.first_block * 2 * KERN_PANEL,
                                        .codes_ahead = next + blocks * code_bytes,
                                        .scales_ahead = next + blocks * 2 * KERN_PANEL,
                                        .rows = rows - row};
                avx2_int_part(block_dot, type, T, &part, &c, y + c.first_token * ldy + row, ldy);
            }
        }
    }
}

#endif
