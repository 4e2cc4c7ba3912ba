/* avx512vnni.c: the integer products for AVX-512 VNNI (Ice Lake, Zen 4 and later).
 *
 * A zmm register holds 16 int32: one panel row each. Lanes never mix, so every lane does exactly what ref does. */
#include "../internal.h"

#if defined(KERN_X86)

#include "avx512.h"
#include "chunk.h"
#include "unpack.h"

#define AVX512VNNI_TARGET __attribute__((target(AVX512_FEATURES ",avx512vnni")))
#define AVX512VNNI_INLINE AVX512VNNI_TARGET KERN_INLINE

enum {
    AVX512_TILE = 16,      /* tokens that share the unpacked codes of a block */
    AVX512_GROUP = 8,      /* tokens whose products alternate: as many as hide the latency of vpdpbusd */
    AVX512_AHEAD = 16384,  /* bytes the prefetch of a decode step runs ahead */
    AVX512_MANY = 48,      /* tokens from which on it pays to unpack panels into the cache first: quants512.c, */
    AVX512_MANY_PAIRS = 20 /* and to multiply by pairs, where types and CPUs do */
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
    for (int i = 0; i < avx512_code_bytes(type); i += 64) _mm_prefetch((const char *)codes + ahead + i, _MM_HINT_T1);
    _mm_prefetch((const char *)scales + ahead, _MM_HINT_T1);
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
    y += t * ldy;
    switch (c->n_tokens - t) { /* what is left goes together: each tile unpacks all codes again */
    case 1: avx512_int_tile(type, 1, part, c, t, y, ldy); break;
    case 2: avx512_int_tile(type, 2, part, c, t, y, ldy); break;
    case 3: avx512_int_tile(type, 3, part, c, t, y, ldy); break;
    case 4: avx512_int_tile(type, 4, part, c, t, y, ldy); break;
    case 5: avx512_int_tile(type, 5, part, c, t, y, ldy); break;
    case 6: avx512_int_tile(type, 6, part, c, t, y, ldy); break;
    case 7: avx512_int_tile(type, 7, part, c, t, y, ldy); break;
    }
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

/* ---- one token, where the CPU's own prefetchers are the better ones ------------------------------------------------
 *
 * Far prefetches, as above, read no more than 22 GB/s a core on a Zen 4; its prefetchers reach 29 if they see a few
 * long streams. So four panels go side by side, which also share the loads of the activations: with a fourth of the
 * panels each, the streams run on from panel to panel. bench/NOTES.md has the figures. */

enum {
    STREAM_PANELS = 4,
    STREAM_NEAR = 1024, /* bytes a prefetch runs ahead in a stream ... */
    STREAM_START = 4    /* ... and blocks that are fetched of its next panel before that begins */
};

/* A pointer the compiler shall take as it is: gcc 12 derives all addresses from few and runs out of registers. */
#define STREAM_PIN(p) __asm__("" : "+r"(p))

/* Panels, `stride` bytes from one to the next. */
typedef struct stream_panels {
    const uint8_t *first;
    int64_t stride, panel_bytes, n_blocks;
    int is_last; /* or each stream has another panel behind this one */
} stream_panels;

AVX512VNNI_INLINE void stream_fetch(const uint32_t type, const uint8_t *codes, const uint8_t *scales, int64_t stride) {
    KERN_UNROLL
    for (int p = 0; p < STREAM_PANELS; p++) {
        STREAM_PIN(codes);
        STREAM_PIN(scales);
        KERN_UNROLL
        for (int i = 0; i < avx512_code_bytes(type); i += 64) _mm_prefetch((const char *)codes + i, _MM_HINT_T1);
        _mm_prefetch((const char *)scales, _MM_HINT_T1);
        codes += stride;
        scales += stride;
    }
}

/* dot[panel] += registers j0 .. j0 + 3 of the codes of a block times 16 activations. Q4_0: the low or high halves of
 * what is loaded. */
AVX512VNNI_INLINE void stream_half(const uint32_t type, const int j0, const uint8_t *codes, int64_t stride,
                                   const int32_t *act, __m512i dot[STREAM_PANELS]) {
    const __m512i low = _mm512_set1_epi8(15);
    const uint8_t *from[STREAM_PANELS];
    KERN_UNROLL
    for (int p = 0; p < STREAM_PANELS; p++) {
        from[p] = codes + p * stride;
        STREAM_PIN(from[p]);
    }
    KERN_UNROLL
    for (int j = j0; j < j0 + 4; j++) {
        const __m512i x = _mm512_set1_epi32(act[j]);
        KERN_UNROLL
        for (int p = 0; p < STREAM_PANELS; p++) {
            __m512i code = _mm512_loadu_si512(from[p] + 64 * (type == KERN_Q4_0 ? j - j0 : j));
            if (type == KERN_Q4_0) code = _mm512_and_si512(j0 ? _mm512_srli_epi16(code, 4) : code, low);
            dot[p] = _mm512_dpbusd_epi32(dot[p], code, x);
        }
    }
}

/* acc[panel] = one panel of each stream times the token of the chunk. */
AVX512VNNI_INLINE void stream_product(const uint32_t type, const stream_panels *w, const chunk *c,
                                      __m512 acc[STREAM_PANELS]) {
    const int bytes = avx512_code_bytes(type), near = (STREAM_NEAR + bytes - 1) / bytes;
    const uint8_t *codes = w->first, *scales = w->first + w->n_blocks * bytes;
    const uint8_t *next_codes = codes + w->panel_bytes, *next_scales = scales + w->panel_bytes;
    const int64_t start = w->is_last ? w->n_blocks : w->n_blocks - STREAM_START;
    KERN_UNROLL
    for (int p = 0; p < STREAM_PANELS; p++) acc[p] = _mm512_setzero_ps();
    for (int64_t b = 0; b < w->n_blocks; b++, codes += bytes, scales += 2 * KERN_PANEL) {
        stream_fetch(type, codes + near * bytes, scales + near * 2 * KERN_PANEL, w->stride);
        if (b >= start) {
            stream_fetch(type, next_codes, next_scales, w->stride);
            next_codes += bytes, next_scales += 2 * KERN_PANEL;
        }
        __m512i dot[STREAM_PANELS];
        KERN_UNROLL
        for (int p = 0; p < STREAM_PANELS; p++) dot[p] = _mm512_set1_epi32(c->start[b]);
        stream_half(type, 0, codes, w->stride, c->codes[b], dot);
        stream_half(type, 4, codes, w->stride, c->codes[b], dot);
        const __m512 x = _mm512_set1_ps(c->scale[b]);
        const uint8_t *s = scales;
        KERN_UNROLL
        for (int p = 0; p < STREAM_PANELS; p++, s += w->stride) {
            STREAM_PIN(s);
            const __m512 scale = _mm512_mul_ps(_mm512_cvtph_ps(_mm256_loadu_si256((const void *)s)), x);
            acc[p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[p]), scale, acc[p]);
        }
    }
}

/* Multiplies as many panels as make whole streams of equal length, and says how many. */
AVX512VNNI_INLINE int64_t stream_matmul(const uint32_t type, int32_t offset, const void *panels, int64_t rows,
                                        int64_t cols, const kern_act *act, float *y) {
    const int64_t n_blocks = cols / KERN_BLOCK, each = (rows + KERN_PANEL - 1) / KERN_PANEL / STREAM_PANELS;
    const int64_t panel_bytes = n_blocks * (avx512_code_bytes(type) + 2 * KERN_PANEL);
    stream_panels w = {.first = panels, .stride = each * panel_bytes, .panel_bytes = panel_bytes, .n_blocks = n_blocks};
    chunk c;
    if (each == 0 || n_blocks > CHUNK_PAIRS || n_blocks < STREAM_START) return 0;
    c.first_token = c.first_block = 0, c.n_tokens = 1, c.n_blocks = n_blocks;
    chunk_fill(&c, act, n_blocks, offset);
    for (int64_t i = 0; i < each; i++, w.first += panel_bytes) {
        __m512 acc[STREAM_PANELS];
        w.is_last = i + 1 == each;
        stream_product(type, &w, &c, acc);
        KERN_UNROLL
        for (int p = 0; p < STREAM_PANELS; p++) {
            const int64_t row = (p * each + i) * KERN_PANEL;
            _mm512_mask_storeu_ps(y + row, avx512_mask(rows - row), acc[p]);
        }
    }
    return each * STREAM_PANELS;
}

/* ---- the table's entries ----------------------------------------------------------------------------------------- */

#define AVX512VNNI_MATMUL(TYPE, NAME, OFFSET)                                                                          \
    AVX512VNNI_TARGET void kern_avx512vnni_matmul_##NAME(const void *panels, int64_t rows, int64_t cols,               \
                                                         const kern_act *act, int64_t n, float *y, int64_t ldy) {      \
        if (n >= (TYPE == KERN_Q4_0 && act->pairs ? AVX512_MANY_PAIRS : AVX512_MANY))                                  \
            kern_quants512_##NAME(panels, rows, cols, act, n, y, ldy);                                                 \
        else                                                                                                           \
            avx512_matmul_int(TYPE, OFFSET, panels, rows, cols, act, n, y, ldy);                                       \
    }                                                                                                                  \
    AVX512VNNI_TARGET static void stream_matmul_##NAME(const void *panels, int64_t rows, int64_t cols,                 \
                                                       const kern_act *act, int64_t n, float *y, int64_t ldy) {        \
        const int64_t done = n == 1 ? stream_matmul(TYPE, OFFSET, panels, rows, cols, act, y) : 0;                     \
        const uint8_t *left = (const uint8_t *)panels + (size_t)done * kern_panel_bytes(TYPE, cols);                   \
        rows -= done * KERN_PANEL;                                                                                     \
        if (rows > 0) kern_avx512vnni_matmul_##NAME(left, rows, cols, act, n, y + done * KERN_PANEL, ldy);             \
    }
AVX512VNNI_MATMUL(KERN_Q4_0, q4_0, 8)
AVX512VNNI_MATMUL(KERN_Q8_0, q8_0, 128)

/* kern_table.pair_row, four blocks at a time. */
AVX512VNNI_TARGET static void avx512_pair_row(const int8_t *codes, const float *scale, const int32_t *sum, int64_t n,
                                              kern_act_pair *pairs, int row) {
    const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
    for (int64_t g = 0; g < n / KERN_BLOCK; g += 4) {
        const int64_t left = n / KERN_BLOCK - g;
        const __mmask8 blocks = (__mmask8)avx512_mask(left);
        const __m512i a = _mm512_maskz_loadu_epi32(avx512_mask(8 * left), codes + g * KERN_BLOCK);
        const __m512i b = _mm512_maskz_loadu_epi32(avx512_mask(8 * left - 16), codes + g * KERN_BLOCK + 64);
        const __m512i low = _mm512_shuffle_i64x2(a, b, 0x88), high = _mm512_shuffle_i64x2(a, b, 0xdd);
        __m512i p = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_xor_si512(high, _mm512_set1_epi8(-128)), low);
        p = _mm512_add_epi32(p, _mm512_shuffle_epi32(p, 0x4e));
        p = _mm512_add_epi32(p, _mm512_shuffle_epi32(p, 0xb1));
        const __m128i sums = _mm_maskz_loadu_epi32(blocks, sum + g);
        const __m128i start = _mm_sub_epi32(sums, _mm512_castsi512_si128(_mm512_permutexvar_epi32(firsts, p)));
        __m128 v[4] = {_mm_maskz_loadu_ps(blocks, scale + g)};
        v[1] = _mm_mul_ps(v[0], _mm_cvtepi32_ps(sums));
        v[2] = _mm_castsi128_ps(_mm_sub_epi32(start, _mm_slli_epi32(sums, 3)));
        v[3] = _mm_castsi128_ps(start);
        _MM_TRANSPOSE4_PS(v[0], v[1], v[2], v[3]);
        KERN_UNROLL
        for (int i = 0; i < 4; i++)
            if (i < left) _mm_storeu_ps(&pairs[(g + i) * KERN_PAIR_TOKENS + row].scale, v[i]);
    }
}

void kern_table_avx512vnni(kern_table *table) {
    const int amd = kern_cpu_is_amd();
    table->panel_group = amd ? STREAM_PANELS : QUANT_PANELS;
    table->matmul[KERN_Q4_0] = amd ? stream_matmul_q4_0 : kern_avx512vnni_matmul_q4_0;
    table->matmul[KERN_Q8_0] = amd ? stream_matmul_q8_0 : kern_avx512vnni_matmul_q8_0;
    /* Where additions have ports of their own, half as many products are worth twice as many additions. */
    table->pair_row = amd ? avx512_pair_row : NULL;
    kern_table_quants512(table);
    kern_table_avx512vnni_attention(table);
}

#endif
