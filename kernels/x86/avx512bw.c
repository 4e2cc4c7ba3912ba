/* avx512bw.c: the integer products for AVX-512 without VNNI (Skylake-SP). Part of the level that avx512.c fills.
 *
 * A zmm register holds 16 int32: one panel row each. Lanes never mix, so every lane does exactly what ref does. */
#include "../internal.h"

#if defined(KERN_X86)

#include "avx512.h"
#include "chunk.h"

enum {
    AVX512BW_TOKENS = 8,   /* most tokens that share the unpacked codes of a block */
    AVX512BW_AHEAD = 16384 /* bytes the prefetch of a decode step runs ahead */
};

AVX512_INLINE int avx512bw_code_bytes(const uint32_t type) {
    return type == KERN_Q4_0 ? 256 : 512;
}

/* a + b in 16 bits, final: otherwise gcc collects the products and adds them in an order of its own, out of registers.
 */
AVX512_INLINE __m512i avx512bw_add(__m512i a, __m512i b) {
    __m512i sum = _mm512_add_epi16(a, b);
    __asm__("" : "+v"(sum));
    return sum;
}

/* dot[T] of 16 rows = (code - offset) * activation, summed over a block; start pays for the offset. vpmaddubsw adds
 * pairs of products in int16, so codes are taken in halves of 4 bits, of which a whole block fits: 8 * 2 * 15 * 127 =
 * 30480. Then one vpmaddwd adds the two pairs of each row. Both halves of a byte of Q4_0 go into one sum; those of Q8_0
 * into two, of which the upper counts 16 times. */
AVX512_INLINE void avx512bw_dot(const uint32_t type, const int T, const uint8_t *codes, const int32_t (*act)[8],
                                const int32_t *start, __m512i *dot) {
    const __m512i mask = _mm512_set1_epi8(15);
    __m512i upper[AVX512BW_TOKENS];
    KERN_UNROLL
    for (int t = 0; t < T; t++) dot[t] = upper[t] = _mm512_setzero_si512();
    KERN_UNROLL
    for (int j = 0; j < avx512bw_code_bytes(type) / 64; j++) {
        const __m512i code = _mm512_loadu_si512(codes + 64 * j);
        const __m512i low = _mm512_and_si512(code, mask), high = _mm512_and_si512(_mm512_srli_epi16(code, 4), mask);
        KERN_UNROLL
        for (int t = 0; t < T; t++) {
            const __m512i next = _mm512_set1_epi32(act[t][type == KERN_Q4_0 ? 4 + j : j]);
            __m512i *sum = type == KERN_Q4_0 ? &dot[t] : &upper[t];
            dot[t] = avx512bw_add(dot[t], _mm512_maddubs_epi16(low, _mm512_set1_epi32(act[t][j])));
            *sum = avx512bw_add(*sum, _mm512_maddubs_epi16(high, next));
        }
    }
    KERN_UNROLL
    for (int t = 0; t < T; t++) {
        dot[t] = _mm512_add_epi32(_mm512_madd_epi16(dot[t], _mm512_set1_epi16(1)), _mm512_set1_epi32(start[t]));
        if (type == KERN_Q8_0) dot[t] = _mm512_add_epi32(dot[t], _mm512_madd_epi16(upper[t], _mm512_set1_epi16(16)));
    }
}

/* One panel, the part of it that belongs to a chunk. */
typedef struct avx512bw_part {
    const uint8_t *codes, *scales;
    int64_t ahead;  /* what to prefetch, relative to what is read */
    __mmask16 rows; /* the rows that exist */
} avx512bw_part;

/* T tokens, from the t0-th of the chunk on, times a part of a panel. y [T][16] starts at zero or, behind the first
 * chunk of a row, at what is there. */
AVX512_INLINE void avx512bw_tile(const uint32_t type, const int T, const avx512bw_part *part, const chunk *c,
                                 int64_t t0, float *y, int64_t ldy) {
    const int32_t(*act)[8] = c->codes + t0, *start = c->start + t0;
    const float *scale = c->scale + t0;
    const uint8_t *codes = part->codes, *scales = part->scales;
    const __mmask16 old = c->first_block > 0 ? part->rows : 0;
    __m512 acc[AVX512BW_TOKENS];
    KERN_UNROLL
    for (int t = 0; t < T; t++) acc[t] = _mm512_maskz_loadu_ps(old, y + t * ldy);

    for (int64_t b = 0; b < c->n_blocks; b++, codes += avx512bw_code_bytes(type), scales += 32) {
        __m512i dot[AVX512BW_TOKENS];
        if (t0 == 0) {
            KERN_UNROLL
            for (int i = 0; i < avx512bw_code_bytes(type); i += 64)
                _mm_prefetch((const char *)codes + part->ahead + i, _MM_HINT_T1);
            _mm_prefetch((const char *)scales + part->ahead, _MM_HINT_T1);
        }
        avx512bw_dot(type, T, codes, act, start, dot);
        const __m512 w_scale = _mm512_cvtph_ps(_mm256_loadu_si256((const void *)scales));
        KERN_UNROLL
        for (int t = 0; t < T; t++) {
            const __m512 s = _mm512_mul_ps(w_scale, _mm512_set1_ps(scale[t]));
            acc[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[t]), s, acc[t]);
        }
        act += c->n_tokens;
        start += c->n_tokens;
        scale += c->n_tokens;
    }
    KERN_UNROLL
    for (int t = 0; t < T; t++) _mm512_mask_storeu_ps(y + t * ldy, part->rows, acc[t]);
}

/* All tokens of a chunk times a part of a panel. */
AVX512_INLINE void avx512bw_part_product(const uint32_t type, const avx512bw_part *part, const chunk *c, float *y,
                                         int64_t ldy) {
    int64_t t = 0;
    for (; t + 8 <= c->n_tokens; t += 8) avx512bw_tile(type, 8, part, c, t, y + t * ldy, ldy);
    for (; t + 4 <= c->n_tokens; t += 4) avx512bw_tile(type, 4, part, c, t, y + t * ldy, ldy);
    for (; t + 2 <= c->n_tokens; t += 2) avx512bw_tile(type, 2, part, c, t, y + t * ldy, ldy);
    for (; t < c->n_tokens; t++) avx512bw_tile(type, 1, part, c, t, y + t * ldy, ldy);
}

/* Chunk by chunk, all panels; the prefetch as in avx512vnni.c. */
AVX512_INLINE void avx512bw_matmul(const uint32_t type, int32_t offset, const void *panels, int64_t rows, int64_t cols,
                                   const kern_act *act, int64_t n, float *y, int64_t ldy) {
    const int64_t row_blocks = cols / KERN_BLOCK, code_bytes = avx512bw_code_bytes(type);
    const int64_t panel_bytes = row_blocks * (code_bytes + 2 * KERN_PANEL);
    chunk c;
    for (c.first_token = 0; c.first_token < n; c.first_token += c.n_tokens) {
        c.n_tokens = n - c.first_token < CHUNK_TOKENS ? n - c.first_token : CHUNK_TOKENS;
        for (c.first_block = 0; c.first_block < row_blocks; c.first_block += c.n_blocks) {
            c.n_blocks = chunk_blocks(c.n_tokens, row_blocks - c.first_block);
            chunk_fill(&c, act, row_blocks, offset);
            const uint8_t *panel = panels;
            for (int64_t row = 0; row < rows; row += KERN_PANEL, panel += panel_bytes) {
                const avx512bw_part part = {.codes = panel + c.first_block * code_bytes,
                                            .scales = panel + row_blocks * code_bytes + c.first_block * 2 * KERN_PANEL,
                                            .ahead = c.n_blocks == row_blocks ? AVX512BW_AHEAD : panel_bytes,
                                            .rows = avx512_mask(rows - row)};
                avx512bw_part_product(type, &part, &c, y + c.first_token * ldy + row, ldy);
            }
        }
    }
}

AVX512_TARGET void kern_avx512bw_matmul_q4_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act,
                                             int64_t n, float *y, int64_t ldy) {
    avx512bw_matmul(KERN_Q4_0, 8, panels, rows, cols, act, n, y, ldy);
}

AVX512_TARGET void kern_avx512bw_matmul_q8_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act,
                                             int64_t n, float *y, int64_t ldy) {
    avx512bw_matmul(KERN_Q8_0, 128, panels, rows, cols, act, n, y, ldy);
}

#endif
