/* avx512vnni.c: the integer products for AVX-512 VNNI (Ice Lake, Zen 4 and later).
 *
 * A zmm register holds 16 int32: one panel row each. Lanes never mix, so every lane does exactly what ref does. */
#include "../internal.h"

#if defined(KERN_X86)

#include "avx512.h"
#include "chunk.h"
#include "streams.h"
#include "unpack.h"

#define AVX512VNNI_TARGET __attribute__((target(AVX512_FEATURES ",avx512vnni")))
#define AVX512VNNI_INLINE AVX512VNNI_TARGET KERN_INLINE

enum {
    AVX512_TILE = 16,     /* tokens that share the unpacked codes of a block */
    AVX512_GROUP = 8,     /* tokens whose products alternate: as many as hide the latency of vpdpbusd */
    AVX512_AHEAD = 16384, /* bytes the prefetch of a decode step runs ahead */
    AVX512_MANY = 48      /* tokens from which on it pays to unpack panels into the cache first: quants512.c */
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

/* ---- straight from panels side by side, where the CPU's own prefetchers are the better ones ------------------------
 *
 * One token, few tokens, and of Q8_0, which unpacking only copies, any number. Codes are unpacked where they are used,
 * activations read where the engine has put them.
 *
 * Far prefetches, as above, read no more than 22 GB/s a core on a Zen 4; its prefetchers reach 29 if they see a few
 * long streams. So for one token four panels go side by side, with a fourth of all panels each: they run on from panel
 * to panel.
 *
 * For more tokens two panels go side by side, which share the loads of activations; 5 tokens at a time, as their sums
 * fit the registers. Up to four such pairs, neighbours, take turns at a page of memory, and what the next one reads is
 * fetched meanwhile: a pair alone reads a fifth slower. bench/NOTES.md has the figures. */

enum {
    STREAM_ONE = 4,        /* panels side by side for one token, */
    STREAM_FEW = 2,        /* and for more */
    STREAM_PAIRS = 4,      /* most pairs that take turns */
    STREAM_MOST = 240,     /* at a time; of all pairs together, if there are several */
    STREAM_MOST_Q4_0 = 48, /* from so many on products by pairs are better: quants512.c */
    STREAM_PAGE = 4096,    /* bytes of a panel's codes to a turn; */
    STREAM_LONG = 32,      /* from more tokens on, which read from the cache anyway, */
    STREAM_BLOCKS = 16,    /* so many blocks */
    STREAM_NEAR = 1024     /* bytes a prefetch runs ahead for one token */
};

#define STREAM_TARGET __attribute__((target(AVX512_FEATURES ",avx512vnni,gfni")))
#define STREAM_INLINE STREAM_TARGET KERN_INLINE

/* Tokens of a tile. */
typedef struct stream_tokens {
    const kern_act_cell *cells; /* [blocks][cell_rows] */
    int64_t cell_rows;
    /* A block of `ahead` is asked for whenever one was multiplied with all n tokens: the first one, and how many tokens
     * it has had before. */
    const kern_streams *ahead;
    int64_t fetch, credit, n;
} stream_tokens;

/* dot[token][panel] += registers j0 .. j0 + 3 of the codes of a block times 16 activations. Q4_0: the low or high
 * halves of what is loaded. The high ones by a product of each byte with a matrix of bits: one instruction instead of a
 * shift and a mask, and shifts compete with conversions for ports. */
STREAM_INLINE void stream_half(const uint32_t type, const int T, const int P, const int j0, const uint8_t *codes,
                               int64_t stride, const kern_act_cell *act, __m512i dot[]) {
    const __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi64(0x1020408000000000);
    const uint8_t *from[STREAM_ONE];
    KERN_UNROLL
    for (int p = 0; p < P; p++) {
        from[p] = codes + p * stride;
        KERN_STREAMS_PIN(from[p]);
    }
    KERN_UNROLL
    for (int j = j0; j < j0 + 4; j++) {
        __m512i code[STREAM_ONE];
        KERN_UNROLL
        for (int p = 0; p < P; p++) {
            code[p] = _mm512_loadu_si512(from[p] + 64 * (type == KERN_Q4_0 ? j - j0 : j));
            if (type == KERN_Q4_0)
                code[p] = j0 ? _mm512_gf2p8affine_epi64_epi8(code[p], high, 0) : _mm512_and_si512(code[p], low);
        }
        KERN_UNROLL
        for (int t = 0; t < T; t++) {
            int32_t four;
            memcpy(&four, act[t].codes + 4 * j, sizeof four);
            const __m512i x = _mm512_set1_epi32(four);
            KERN_UNROLL
            for (int p = 0; p < P; p++) __asm__("vpdpbusd %1, %2, %0" : "+v"(dot[t * P + p]) : "v"(x), "v"(code[p]));
        }
    }
}

/* acc[token][panel] += blocks `from` .. `end` - 1 of panels side by side times T tokens. */
STREAM_INLINE void stream_product(const uint32_t type, const int T, const int P, const kern_streams *w, int64_t from,
                                  int64_t end, const stream_tokens *x, __m512 acc[]) {
    const int bytes = avx512_code_bytes(type);
    const uint8_t *codes = w->first + from * bytes;
    const uint8_t *scales = w->first + w->n_blocks * bytes + from * 2 * KERN_PANEL;
    const kern_act_cell *cell = x->cells + from * x->cell_rows;
    int64_t fetch = x->fetch, credit = x->credit;
    for (int64_t b = from; b < end; b++, codes += bytes, scales += 2 * KERN_PANEL) {
        if ((credit += T) >= x->n) kern_streams_fetch(bytes, P, x->ahead, fetch++), credit -= x->n;
        __m512i dot[AVX512_CELL_ROWS * STREAM_FEW];
        KERN_UNROLL
        for (int t = 0; t < T; t++) {
            /* fill_cells() has made the difference -8 times the sum of the codes. */
            __m512i start = _mm512_sub_epi32(_mm512_set1_epi32(cell[t].start[0]), _mm512_set1_epi32(cell[t].start[1]));
            if (type == KERN_Q8_0) start = _mm512_slli_epi32(start, 4);
            KERN_UNROLL
            for (int p = 0; p < P; p++) dot[t * P + p] = start;
        }
        stream_half(type, T, P, 0, codes, w->apart, cell, dot);
        stream_half(type, T, P, 4, codes, w->apart, cell, dot);
        __m512 scale[STREAM_ONE];
        const uint8_t *s = scales;
        KERN_UNROLL
        for (int p = 0; p < P; p++, s += w->apart) {
            KERN_STREAMS_PIN(s);
            scale[p] = _mm512_cvtph_ps(_mm256_loadu_si256((const void *)s));
        }
        KERN_UNROLL
        for (int i = 0; i < T * P; i++)
            acc[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[i]),
                                     _mm512_mul_ps(scale[i % P], _mm512_set1_ps(cell[i / P].scale)), acc[i]);
        cell += kern_cell_step(T, AVX512_CELL_ROWS, x->cell_rows);
    }
}

/* Sums of some tokens and P panels: y of the first, and the rows of the matrix from there on. */
typedef struct stream_sums {
    float (*sum)[STREAM_FEW][KERN_PANEL]; /* [tokens] behind some blocks, before the last ones are in y */
    float *y;
    int64_t ldy, rows, next; /* next: rows from a panel to the one beside it */
} stream_sums;

STREAM_INLINE void stream_tile(const uint32_t type, const int T, const int P, const kern_streams *w, int64_t from,
                               int64_t end, const stream_tokens *x, const stream_sums *s) {
    __m512 acc[AVX512_CELL_ROWS * STREAM_FEW];
    KERN_UNROLL
    for (int i = 0; i < T * P; i++) acc[i] = from ? _mm512_loadu_ps(s->sum[i / P][i % P]) : _mm512_setzero_ps();
    stream_product(type, T, P, w, from, end, x, acc);
    KERN_UNROLL
    for (int i = 0; i < T * P; i++) {
        const int64_t row = i % P * s->next;
        if (end == w->n_blocks)
            _mm512_mask_storeu_ps(s->y + i / P * s->ldy + row, avx512_mask(s->rows - row), acc[i]);
        else
            _mm512_storeu_ps(s->sum[i / P][i % P], acc[i]);
    }
}

/* One token times `each` panels of STREAM_ONE streams. */
STREAM_INLINE void stream_one(const uint32_t type, const void *panels, int64_t each, int64_t rows, int64_t cols,
                              const kern_act *act, float *y) {
    const size_t panel_bytes = kern_panel_bytes(type, cols);
    for (int64_t i = 0; i < each; i++, y += KERN_PANEL, rows -= KERN_PANEL) {
        const kern_streams w =
            kern_streams_at(panels, panel_bytes, cols / KERN_BLOCK, STREAM_ONE, each, i, act->follow);
        const stream_tokens x = {act->cells, act->cell_rows, &w, STREAM_NEAR / avx512_code_bytes(type), 0, 1};
        const stream_sums s = {NULL, y, 0, rows, each * KERN_PANEL};
        stream_tile(type, 1, STREAM_ONE, &w, 0, w.n_blocks, &x, &s);
    }
}

/* Pairs of panels first .. end - 1 take turns; one of them at some blocks. */
typedef struct stream_turn {
    int64_t pair, first, end, from;
} stream_turn;

/* Pairs from t->first on, of `all`: at most `most`, and about as many as the others that follow. */
static void stream_group(stream_turn *t, int64_t all, int64_t most) {
    const int64_t left = all - t->first, groups = (left + most - 1) / most;
    t->pair = t->first;
    t->end = t->first + (groups ? (left + groups - 1) / groups : 0);
}

/* Tokens t .. t + n - 1, as many as have room for their sums, times `all` pairs of panels. */
STREAM_INLINE void stream_few(const uint32_t type, const void *panels, int64_t all, int64_t rows, int64_t cols,
                              const kern_act *act, int64_t t, int64_t n, float *y, int64_t ldy) {
    const size_t panel_bytes = kern_panel_bytes(type, cols);
    const int64_t n_blocks = cols / KERN_BLOCK, room = STREAM_MOST / n;
    const int64_t most = room < STREAM_PAIRS ? room : STREAM_PAIRS;
    const int64_t page = n > STREAM_LONG ? STREAM_BLOCKS : STREAM_PAGE / avx512_code_bytes(type);
    const int64_t pages = (n_blocks + page - 1) / page, step = (n_blocks + pages - 1) / pages;
    _Alignas(64) float sum[STREAM_MOST][STREAM_FEW][KERN_PANEL];
    stream_turn now = {0}, next;
    const kern_streams begin = {panels, (int64_t)panel_bytes, all > 0 ? n_blocks : 0, NULL, 0};
    for (int64_t b = 0; b < step; b++) kern_streams_fetch(avx512_code_bytes(type), STREAM_FEW, &begin, b);
    for (stream_group(&now, all, most); now.pair < all; now = next) {
        next = now;
        if (++next.pair == next.end) {
            next.pair = next.first;
            if ((next.from += step) >= n_blocks) {
                next.from = 0, next.first = next.end;
                stream_group(&next, all, most);
            }
        }
        const uint8_t *first = (const uint8_t *)panels + (size_t)(now.pair * STREAM_FEW) * panel_bytes;
        const uint8_t *then = (const uint8_t *)panels + (size_t)(next.pair * STREAM_FEW) * panel_bytes;
        const int has_next = next.pair < all || act->follow >= STREAM_FEW;
        const kern_streams w = {first, (int64_t)panel_bytes, n_blocks, NULL, 0};
        const kern_streams ahead = {then, (int64_t)panel_bytes, has_next ? n_blocks : 0, NULL, 0};
        const int64_t from = now.from, end = n_blocks - from < step ? n_blocks : from + step;
        const int64_t row = now.pair * STREAM_FEW * KERN_PANEL;
        for (int64_t k = 0; k < n; k += AVX512_CELL_ROWS) {
            const int64_t done = k * (end - from);
            const stream_tokens x = {.cells = act->cells + (t + k) * n_blocks,
                                     .cell_rows = act->cell_rows,
                                     .ahead = &ahead,
                                     .fetch = next.from + done / n,
                                     .credit = done % n,
                                     .n = n};
            const stream_sums s = {sum + (now.pair - now.first) * n + k, y + (t + k) * ldy + row, ldy, rows - row,
                                   KERN_PANEL};
            switch (n - k) {
            case 1: stream_tile(type, 1, STREAM_FEW, &w, from, end, &x, &s); break;
            case 2: stream_tile(type, 2, STREAM_FEW, &w, from, end, &x, &s); break;
            case 3: stream_tile(type, 3, STREAM_FEW, &w, from, end, &x, &s); break;
            case 4: stream_tile(type, 4, STREAM_FEW, &w, from, end, &x, &s); break;
            default: stream_tile(type, 5, STREAM_FEW, &w, from, end, &x, &s);
            }
        }
    }
}

/* Multiplies as many panels as go side by side, and says how many. */
STREAM_INLINE int64_t stream_matmul(const uint32_t type, const void *panels, int64_t rows, int64_t cols,
                                    const kern_act *act, int64_t n, float *y, int64_t ldy) {
    const int64_t all = (rows + KERN_PANEL - 1) / KERN_PANEL;
    if (n == 1) {
        stream_one(type, panels, all / STREAM_ONE, rows, cols, act, y);
        return all / STREAM_ONE * STREAM_ONE;
    }
    const int64_t parts = (n + STREAM_MOST - 1) / STREAM_MOST, even = (n + parts - 1) / parts;
    const int64_t part = (even + AVX512_CELL_ROWS - 1) / AVX512_CELL_ROWS * AVX512_CELL_ROWS;
    for (int64_t t = 0; t < n; t += part)
        stream_few(type, panels, all / STREAM_FEW, rows, cols, act, t, n - t < part ? n - t : part, y, ldy);
    return all / STREAM_FEW * STREAM_FEW;
}

/* ---- the table's entries ----------------------------------------------------------------------------------------- */

#define AVX512VNNI_MATMUL(TYPE, NAME, OFFSET)                                                                          \
    AVX512VNNI_TARGET void kern_avx512vnni_matmul_##NAME(const void *panels, int64_t rows, int64_t cols,               \
                                                         const kern_act *act, int64_t n, float *y, int64_t ldy) {      \
        if (n >= AVX512_MANY)                                                                                          \
            kern_quants512_##NAME(panels, rows, cols, act, n, y, ldy);                                                 \
        else                                                                                                           \
            avx512_matmul_int(TYPE, OFFSET, panels, rows, cols, act, n, y, ldy);                                       \
    }                                                                                                                  \
    STREAM_TARGET static void stream_matmul_##NAME(const void *panels, int64_t rows, int64_t cols,                     \
                                                   const kern_act *act, int64_t n, float *y, int64_t ldy) {            \
        const int64_t done =                                                                                           \
            TYPE == KERN_Q8_0 || n < STREAM_MOST_Q4_0 ? stream_matmul(TYPE, panels, rows, cols, act, n, y, ldy) : 0;   \
        const uint8_t *left = (const uint8_t *)panels + (size_t)done * kern_panel_bytes(TYPE, cols);                   \
        rows -= done * KERN_PANEL;                                                                                     \
        if (rows > 0) kern_avx512vnni_matmul_##NAME(left, rows, cols, act, n, y + done * KERN_PANEL, ldy);             \
    }
AVX512VNNI_MATMUL(KERN_Q4_0, q4_0, 8)
AVX512VNNI_MATMUL(KERN_Q8_0, q8_0, 128)

/* kern_table.fill_cells, four blocks at a time. With s the sum of the codes a, start = (1 - offset) * s - the sum over
 * i < 16 of a[i] * (a[i + 16] + 128): what products by pairs want, see quants512.c. */
AVX512VNNI_TARGET static void avx512_fill_cells(const int8_t *codes, const float *scale, const int32_t *sum, int64_t n,
                                                kern_act_cell *cells, int64_t step) {
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
            if (i < left) {
                kern_act_cell *to = &cells[(g + i) * step];
                memcpy(to->codes, codes + (g + i) * KERN_BLOCK, KERN_BLOCK);
                _mm_storeu_ps(&to->scale, v[i]);
            }
    }
}

void kern_table_avx512vnni(kern_table *table) {
    const int amd = kern_cpu_is_amd() && __builtin_cpu_supports("gfni");
    table->panel_group = amd ? STREAM_ONE : QUANT_PANELS;
    table->matmul[KERN_Q4_0] = amd ? stream_matmul_q4_0 : kern_avx512vnni_matmul_q4_0;
    table->matmul[KERN_Q8_0] = amd ? stream_matmul_q8_0 : kern_avx512vnni_matmul_q8_0;
    /* Where additions have ports of their own, half as many products are worth twice as many additions. */
    table->fill_cells = amd ? avx512_fill_cells : NULL;
    table->cell_rows = AVX512_CELL_ROWS;
    kern_table_quants512(table);
    kern_table_avx512vnni_attention(table);
}

#endif
