/* amx.c: integer products of many tokens on AMX tiles (Sapphire Rapids and later). Everything else is AVX-512 VNNI's.
 *
 * One tile instruction multiplies 12 tokens with 16 rows over a group of 32 inputs: 6144 products, summed in int32, so
 * the numbers are those of every other version. The codes of a group of a panel are already what it wants: [8][16 rows]
 * [4 inputs]. The sums leave the tile through memory and are scaled and added as everywhere else, one fma per group.
 * Twelve tokens by two panels are 24 sums of 16 lanes, as many as the registers hold beside what they are made of. */
#include "../internal.h"

#if defined(KERN_X86)

#include "quants512.h"

#define AMX_TARGET __attribute__((target(AVX512_FEATURES ",avx512vnni,amx-tile,amx-int8")))
#define AMX_INLINE AMX_TARGET KERN_INLINE

enum {
    AMX_TOKENS = KERN_TILE_TOKENS, /* rows of a tile */
    AMX_MANY = 32,                 /* tokens from which on it pays */
    AMX_GROUPS = 8,                /* groups at a time: so much stays in the first-level cache */
    AMX_MOST = QUANT_TOKENS,       /* tokens at a time, */
    AMX_LEAST = 48,                /* and how many there shall be, even if their */
    AMX_CACHE = 5 << 18            /* bytes of activations do not stay in the second-level cache */
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

/* Tiles 0..3: sums [tokens][16 rows] int32. 4: activations [tokens][k] int8. 5 and 6: codes [k/4][16 rows][4]. k is a
 * group, or half of one. */
AMX_INLINE void amx_configure(const int kind) {
    const int k = kind & QUANT_HALVES ? KERN_BLOCK / 2 : KERN_BLOCK;
    amx_shapes s = {.palette = 1};
    for (int i = 0; i < 7; i++) {
        s.rows[i] = i < 5 ? AMX_TOKENS : (uint8_t)(k / 4);
        s.row_bytes[i] = i == 4 ? (uint16_t)k : KERN_PANEL * 4;
    }
    AMX_WILL_READ(&s);
    _tile_loadconfig(&s);
}

/* kern_table.tile_row */
AMX_TARGET static void amx_tile_row(const int8_t *codes, const float *scale, const int32_t *sum, int64_t n,
                                    kern_act_tile *tiles, int row) {
    for (int64_t g = 0; g < n / KERN_BLOCK; g++, codes += KERN_BLOCK) {
        memcpy(tiles[g].codes[row], codes, KERN_BLOCK);
        tiles[g].scale[row] = scale[g];
        tiles[g].weight[row] = scale[g] * (float)sum[g];
    }
}

/* ---- a tile's tokens times two panels ---------------------------------------------------------------------------- */

/* Codes of a group of a panel, now with their sign. */
typedef struct amx_codes {
    _Alignas(64) int8_t v[8][KERN_PANEL][4];
} amx_codes;

AMX_INLINE void amx_sign(const quant_part *part, int64_t first, int64_t n, int32_t offset, amx_codes *out) {
    const __m512i by = _mm512_set1_epi8((char)offset);
    for (int64_t g = 0; g < n; g++) KERN_UNROLL
    for (int j = 0; j < 8; j++)
        _mm512_store_si512(out[g].v[j], _mm512_sub_epi8(_mm512_load_si512(part->code[first + g][j]), by));
}

typedef struct amx_sums {
    _Alignas(64) int32_t v[AMX_TOKENS][KERN_PANEL];
} amx_sums;

AMX_INLINE __m512 amx_sum(const amx_sums *sums, int t) {
    return _mm512_cvtepi32_ps(_mm512_load_si512(sums->v[t]));
}

/* Half h of a group, or all of it (h = 0), on its way through the tiles: a sum for each panel. The numbers of tiles
 * must be constants. */
#define AMX_BEGIN(SUM0, SUM1, from, codes0, h)                                                                         \
    do {                                                                                                               \
        _tile_loadd(4, (from)->codes[0] + KERN_BLOCK / 2 * (h), KERN_BLOCK);                                           \
        _tile_zero(SUM0);                                                                                              \
        _tile_loadd(5, (codes0)->v[4 * (h)], 64);                                                                      \
        _tile_dpbssd(SUM0, 4, 5);                                                                                      \
        _tile_zero(SUM1);                                                                                              \
        _tile_loadd(6, (codes0)[AMX_GROUPS].v[4 * (h)], 64);                                                           \
        _tile_dpbssd(SUM1, 4, 6);                                                                                      \
    } while (0)

#define AMX_END(SUM0, SUM1, sums)                                                                                      \
    do {                                                                                                               \
        _tile_stored(SUM0, (sums)[0].v, 64);                                                                           \
        _tile_stored(SUM1, (sums)[1].v, 64);                                                                           \
    } while (0)

/* acc[t] += sums[t] times the scales, and the minima: as kernels.h says for each kind. sums [halves][panels] */
AMX_INLINE void amx_add(const int kind, amx_sums sums[][QUANT_PANELS], const quant_part *part, int64_t g,
                        const kern_act_tile *act, __m512 acc[AMX_TOKENS][QUANT_PANELS]) {
    __m512 scale[QUANT_PANELS][2], min[QUANT_PANELS];
    KERN_UNROLL
    for (int p = 0; p < QUANT_PANELS; p++) {
        scale[p][0] = _mm512_load_ps(part[p].scale[g][0]);
        if (kind & QUANT_HALVES) scale[p][1] = _mm512_load_ps(part[p].scale[g][1]);
        if (kind & QUANT_MIN) min[p] = _mm512_load_ps(part[p].min[g][0]);
    }
    KERN_UNROLL
    for (int t = 0; t < AMX_TOKENS; t++) {
        const __m512 x = _mm512_set1_ps(act->scale[t]);
        KERN_UNROLL
        for (int p = 0; p < QUANT_PANELS; p++) {
            __m512 *a = &acc[t][p];
            if (kind & QUANT_HALVES) {
                const __m512 first = _mm512_mul_ps(amx_sum(&sums[0][p], t), scale[p][0]);
                *a = _mm512_fmadd_ps(_mm512_fmadd_ps(amx_sum(&sums[1][p], t), scale[p][1], first), x, *a);
            } else {
                *a = _mm512_fmadd_ps(amx_sum(&sums[0][p], t), _mm512_mul_ps(scale[p][0], x), *a);
            }
            if (kind & QUANT_MIN) *a = _mm512_fmadd_ps(min[p], _mm512_set1_ps(act->weight[t]), *a);
        }
    }
}

/* The tokens from the t-th on, over n groups of what was unpacked. Two groups, or the halves of one, are on their way
 * through the tiles while those before them are scaled and added. Sums end in y behind the last group, before that in
 * w->sum. */
AMX_INLINE void amx_tile(const int kind, quant_work *w, int64_t t, int64_t first, int64_t n, const amx_codes *codes,
                         int is_last) {
    enum { P = QUANT_PANELS, SUMS = AMX_TOKENS * QUANT_PANELS };
    const int halves = kind & QUANT_HALVES;
    const kern_act_tile *act = w->tiles + t / AMX_TOKENS * w->row_groups + first;
    amx_sums sums[2][P];
    __m512 acc[AMX_TOKENS][P];
    KERN_UNROLL
    for (int i = 0; i < SUMS; i++) acc[i / P][i % P] = _mm512_load_ps(w->sum[t + i / P][i % P]);

    AMX_BEGIN(0, 1, act, codes, 0);
    if (halves)
        AMX_BEGIN(2, 3, act, codes, 1);
    else if (n > 1)
        AMX_BEGIN(2, 3, act + 1, codes + 1, 0);
    for (int64_t g = 0; g < n; g += halves ? 1 : 2) {
        const int64_t a = halves ? g + 1 : g + 2, b = halves ? g + 1 : g + 3; /* what follows */
        AMX_END(0, 1, sums[0]);
        if (a < n) AMX_BEGIN(0, 1, act + a, codes + a, 0);
        if (!halves) amx_add(kind, sums, w->part, first + g, act + g, acc);
        if (!halves && g + 1 == n) break;
        AMX_END(2, 3, sums[1]);
        if (b < n) AMX_BEGIN(2, 3, act + b, codes + b, halves ? 1 : 0);
        if (halves)
            amx_add(kind, sums, w->part, first + g, act + g, acc);
        else
            amx_add(kind, sums + 1, w->part, first + g + 1, act + g + 1, acc);
    }

    if (is_last) {
        const __mmask16 mask[P] = {avx512_mask(w->rows), avx512_mask(w->rows - KERN_PANEL)};
        KERN_UNROLL
        for (int i = 0; i < SUMS; i++) {
            if (t + i / P >= w->n) break;
            _mm512_mask_storeu_ps(w->y + (t + i / P) * w->ldy + i % P * KERN_PANEL, mask[i % P], acc[i / P][i % P]);
        }
    } else {
        KERN_UNROLL
        for (int i = 0; i < SUMS; i++) _mm512_store_ps(w->sum[t + i / P][i % P], acc[i / P][i % P]);
    }
}

/* ---- matrices ---------------------------------------------------------------------------------------------------- */

/* A fifth of prefill went by in waiting for lines of y, which are rows apart, when they were written unasked. */
AMX_INLINE void amx_fetch_y(const quant_work *w, int64_t t) {
    for (int64_t end = t + AMX_TOKENS < w->n ? t + AMX_TOKENS : w->n; t < end; t++) {
        _mm_prefetch((const char *)(w->y + t * w->ldy), _MM_HINT_T1);
        if (w->rows > KERN_PANEL) _mm_prefetch((const char *)(w->y + t * w->ldy + KERN_PANEL), _MM_HINT_T1);
    }
}

AMX_INLINE void amx_multiply(const int kind, quant_work *w) {
    amx_codes codes[QUANT_PANELS][AMX_GROUPS];
    const int64_t tiles = (w->n + AMX_TOKENS - 1) / AMX_TOKENS, chunks = (w->n_groups + AMX_GROUPS - 1) / AMX_GROUPS;
    const int64_t step = (w->ahead.n_lines + tiles * chunks - 1) / (tiles * chunks);
    for (int64_t first = 0; first < w->n_groups; first += AMX_GROUPS) {
        const int64_t n = w->n_groups - first < AMX_GROUPS ? w->n_groups - first : AMX_GROUPS;
        const int is_last = w->is_last && first + n == w->n_groups;
        for (int p = 0; p < QUANT_PANELS; p++) amx_sign(&w->part[p], first, n, w->offset, codes[p]);
        AMX_WILL_READ(codes);
        for (int64_t t = 0; t < w->n; t += AMX_TOKENS) {
            if (w->is_last && !is_last && first + n + AMX_GROUPS >= w->n_groups) amx_fetch_y(w, t);
            quant_ask(&w->ahead, step);
            amx_tile(kind, w, t, first, n, codes[0], is_last);
        }
    }
}

AMX_TARGET static void amx_multiply_0(quant_work *w) {
    amx_multiply(0, w);
}
AMX_TARGET static void amx_multiply_1(quant_work *w) {
    amx_multiply(QUANT_HALVES, w);
}
AMX_TARGET static void amx_multiply_2(quant_work *w) {
    amx_multiply(QUANT_MIN, w);
}

/* kern_table.rows_at_once */
static int64_t amx_rows_at_once(int64_t cols) {
    const int64_t tile_row = cols / KERN_BLOCK * (int64_t)sizeof(kern_act_tile);
    const int64_t n = tile_row > 0 ? AMX_CACHE / tile_row * AMX_TOKENS : AMX_MOST;
    return n > AMX_MOST ? AMX_MOST : n < AMX_LEAST ? AMX_LEAST : n;
}

AMX_TARGET static void amx_matmul(uint32_t type, const void *panels, int64_t rows, int64_t cols, const kern_act *act,
                                  int64_t n, float *y, int64_t ldy) {
    static void (*const multiply[])(quant_work *) = {amx_multiply_0, amx_multiply_1, amx_multiply_2};
    const int kind = quant_kind(type);
    if (n < AMX_MANY || !act->tiles) {
        kern_quants512[type].matmul(panels, rows, cols, act, n, y, ldy);
        return;
    }
    const avx2_unpacker *u = &kern_avx2_unpackers[type];
    quant_unpack *unpack = kern_quants512[type].unpack ? kern_quants512[type].unpack : u->unpack;
    const quant_product p = {unpack, multiply[kind], type, u->offset, AMX_MOST, AMX_TOKENS, QUANT_GROUPS, 0, 1};
    amx_configure(kind);
    quant_matmul(&p, panels, rows, cols, act, n, y, ldy);
    _tile_release();
}

#define AMX_TYPE(TYPE)                                                                                                 \
    static void amx_##TYPE(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n, float *y,   \
                           int64_t ldy) {                                                                              \
        amx_matmul(KERN_##TYPE, panels, rows, cols, act, n, y, ldy);                                                   \
    }
KERN_INT_TYPES(AMX_TYPE)

void kern_table_amx(kern_table *table) {
    table->tile_row = amx_tile_row;
    table->fill_cells = NULL; /* parts of rows_at_once() may end within cells */
    table->rows_at_once = amx_rows_at_once;
    /* Minima of halves of a group (Q2_K) are too rare for a product of their own. */
#define AMX_ENTRY(TYPE)                                                                                                \
    if (quant_kind(KERN_##TYPE) != (QUANT_HALVES | QUANT_MIN)) table->matmul[KERN_##TYPE] = amx_##TYPE;
    KERN_INT_TYPES(AMX_ENTRY)
}

#endif
