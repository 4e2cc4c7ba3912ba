/* kernels.h: the arithmetic of minim. Pure functions on the caller's memory: no malloc, no threads, no I/O, no state.
 *
 * kernels/ref/ defines every operation in plain C; each version in kernels/x86/ gives the same bits. A kern_table is
 * the set of versions for one instruction set; kern_table_init() fills it from what the CPU offers.
 *
 * The numerics contract (why the bits are equal):
 *   1. Activations are quantised to int8 in blocks of 32 (see quantize).
 *   2. Products inside a block are summed in int32, exactly; nothing saturates.
 *   3. An output element adds its blocks in ascending order, one fused multiply-add each.
 *   4. Every reduction has one order. Where there are many outputs, a SIMD lane is an output. Where the result is one
 *      number, it is KERN_LANES interleaved partial sums (element i goes to partial i % 16, ascending, missing elements
 *      of the last group add nothing) folded by a fixed tree: a[i] += a[i+8], then +4, +2, +1.
 *   5. exp and friends are our own polynomials of fused multiply-adds.
 *   6. No product is ever added outside fma (only where the product is exact), so no compiler can fuse what is not
 *      fused here; the pragma below says so too. The host keeps the default floating-point environment: round to
 *      nearest, subnormals on.
 */
#ifndef KERN_KERNELS_H
#define KERN_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* gcc fuses a*b+c by default in its GNU modes, intrinsics included, and clang inside one expression. This is for those
 * who compile minim without its Makefile (-ffp-contract=off). clang -ffp-contract=fast ignores pragmas, hence rule 6.
 */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif
#if defined(__FAST_MATH__)
#error "minim gives the same bits everywhere: compile it without -ffast-math"
#endif

enum {
    KERN_PANEL = 16,            /* output rows of a weight panel */
    KERN_BLOCK = 32,            /* activations that share a scale */
    KERN_WEIGHTS = 64,          /* weights of int8 values that share a scale */
    KERN_RANGE = 256,           /* keys of a range of attention, at most */
    KERN_LEVEL_MIN = -107 * 32, /* the level of int8 values that are nothing, see kern_level_scale() */
    KERN_LANES = 16,            /* partial sums of a scalar reduction */
    KERN_LINE = 64,             /* bytes of a cache line */
    KERN_AHEAD = 4,             /* stretches of memory that a kernel asks for side by side */
    KERN_CLEAN = 256,           /* logits that clean() says the largest of */
    /* The version of the layout of panels. Files keep them (`minim pack`): whoever changes a byte of a layout has to
     * raise it, and tests/test_pack.c says so. */
    KERN_PANEL_LAYOUT = 1
};

/* Weight types; the values are the GGUF tensor type ids. */
enum kern_type {
    KERN_F32 = 0,
    KERN_F16 = 1,
    KERN_Q4_0 = 2,
    KERN_Q4_1 = 3,
    KERN_Q5_0 = 6,
    KERN_Q5_1 = 7,
    KERN_Q8_0 = 8,
    KERN_Q2_K = 10,
    KERN_Q3_K = 11,
    KERN_Q4_K = 12,
    KERN_Q5_K = 13,
    KERN_Q6_K = 14,
    KERN_IQ2_XXS = 16,
    KERN_IQ2_XS = 17,
    KERN_IQ3_XXS = 18,
    KERN_IQ1_S = 19,
    KERN_IQ4_NL = 20,
    KERN_IQ3_S = 21,
    KERN_IQ2_S = 22,
    KERN_IQ4_XS = 23,
    KERN_IQ1_M = 29,
    KERN_BF16 = 30,
    KERN_TQ1_0 = 34,
    KERN_TQ2_0 = 35,
    KERN_MXFP4 = 39,
    KERN_NVFP4 = 40,
    KERN_TYPE_END = 41
};

typedef struct kern_type_info {
    const char *name; /* "Q4_0"; NULL for a type that is not known at all */
    int block;        /* elements of a block, 1 for float types */
    int block_bytes;  /* bytes of a block, in the file and in a panel alike */
    int integer;      /* 1: multiplied with int8 activations, 0: with float32 */
    int has_kernels;  /* 1: minim can compute with it */
    int panels;       /* 1: packed for speed, 0: blocks stay as they are in the file, and take a slower path */
} kern_type_info;

/* Facts about a GGUF tensor type; .name is NULL when the id is not known. Also knows types that minim cannot compute
 * with (has_kernels 0), so that a file can be described. */
kern_type_info kern_type_get(uint32_t type);

/* ---- weights: panels ---------------------------------------------------------------------------------------------
 *
 * A matrix W[rows][cols] is kept as ceil(rows/16) panels of 16 output rows. A panel takes exactly the bytes its rows
 * take in the file; the rows missing in the last panel are zero.
 *
 *   F32          float    [cols][16]                element (k, r) = W[16p + r][k]
 *   F16, BF16    uint16   [cols][16]
 *
 * Integer types: first all codes, then all that scales are made of.
 *
 *   codes        for every group g of 32 inputs, a plane for the low bits of a code and, where there are such, one for
 *                the high bits. A plane of n bits (1, 2, 4 or 8) is uint8 [n][64]: register j of the group, which is
 *                inputs 32g + 4j .. +3 of the 16 rows, is at [j % n], in bits n * (j / n) and up of every byte;
 *                byte 4r + i of it belongs to row r, input 32g + 4j + i.
 *                  4 bits: Q4_0, Q4_1, Q4_K, IQ4_NL, IQ4_XS, MXFP4, NVFP4      8 bits: Q8_0, as code + 128
 *                  4 + 1:  Q5_0, Q5_1, Q5_K     4 + 2: Q6_K     2: Q2_K, TQ2_0     2 + 1: Q3_K
 *   scales       for every block of the type: its f16 numbers, each [16], then its other bytes, each [16], in the order
 *                of the file (quants/formats.c). Q4_0: uint16 [cols/32][16]. Q4_K: for every 256 inputs d [16],
 *                dmin [16], and 12 bytes of 6-bit scales and minima [12][16].
 *
 * The other types (IQ1, IQ2, IQ3, TQ1_0: .panels is 0) keep their blocks: [cols/256][16] blocks of the file.
 *
 * Four consecutive inputs of a row lie side by side because that is what vpdpbusd, vpmaddubsw and sdot consume. The
 * codes of a panel come first, then its scales: code loads stay cache-line aligned.
 */

/* Bytes of one panel; 0 if the type has no kernels or cols is not a multiple of the block. */
size_t kern_panel_bytes(uint32_t type, int64_t cols);

/* Packs up to 16 rows in file layout, row_bytes apart, into one panel. */
void kern_pack(uint32_t type, int64_t cols, const void *rows, size_t row_bytes, int n_rows, void *panel);

/* One row r (0..15) of a panel as float32 [cols]: exact, the value definition of the type. */
void kern_unpack_row(uint32_t type, int64_t cols, const void *panel, int r, float *out);

/* n elements in file layout as float32 (n a multiple of the block). */
void kern_dequantize(uint32_t type, const void *data, int64_t n, float *out);

/* The first row r < n_rows of a panel with a block whose scale or minimum is infinite or not a number; *col is where
 * the block begins. -1 if there is none, and for float types. */
int kern_find_bad_scale(uint32_t type, int64_t cols, const void *panel, int n_rows, int64_t *col);

/* The same of rows in file layout, one behind the other. */
int kern_find_bad_scale_in_rows(uint32_t type, int64_t cols, const void *rows, int n_rows, int64_t *col);

/* ---- activations --------------------------------------------------------------------------------------------------
 * [n][cols] rows, `cols` apart; integer weights read codes, scale and sum, float weights read x. */
enum { KERN_TILE_TOKENS = 12 }; /* two panels of so many sums fit the registers of AVX-512 */

/* A block of neighbouring rows of activations in the form that tiles of matrix instructions want. */
typedef struct kern_act_tile {
    int8_t codes[KERN_TILE_TOKENS][KERN_BLOCK];
    float scale[16];  /* of which KERN_TILE_TOKENS are there, as below: a tile is whole cache lines */
    float weight[16]; /* scale * (float)sum */
} kern_act_tile;

/* A block of a row of activations with what products read beside its codes, so that tokens that are multiplied together
 * are one stream of memory. See fill_cells(). */
typedef struct kern_act_cell {
    int8_t codes[KERN_BLOCK];
    float scale, weight; /* weight: scale * (float)sum */
    int32_t start[2];    /* what a sum begins with if codes of weights have an offset of 8, and if they have none */
} kern_act_cell;

typedef struct kern_act {
    const float *x;             /* [n][cols] */
    const int8_t *codes;        /* [n][cols], -127..113 */
    const float *scale;         /* [n][cols/32] */
    const int32_t *sum;         /* [n][cols/32], sum of the codes of the block */
    const kern_act_cell *cells; /* [ceil(n/cell_rows)][cols/32][cell_rows]: NULL if fill_cells is NULL, and only then */
    int64_t cell_rows;          /* side by side: kern_cell_rows() of all rows there are */
    const kern_act_tile *tiles; /* [ceil(n/KERN_TILE_TOKENS)][cols/32], see tile_row(); or NULL */
    int64_t follow; /* panels right behind those that are multiplied which are likely to be next: a product may ask for
                     * them; or 0 */
} kern_act;

/* Where among the cells block b of row t lies, if rows have `blocks` blocks. */
static inline int64_t kern_cell_place(int64_t cell_rows, int64_t blocks, int64_t t, int64_t b) {
    return t / cell_rows * cell_rows * blocks + b * cell_rows + t % cell_rows;
}

/* The activations from row t on; t is a multiple of KERN_TILE_TOKENS, and of cell_rows where there are cells. */
static inline kern_act kern_act_from(const kern_act *a, int64_t t, int64_t cols) {
    const int64_t blocks = cols / KERN_BLOCK;
    kern_act from = *a;
    if (a->x) from.x += t * cols;
    if (a->codes) from.codes += t * cols;
    if (a->scale) from.scale += t * blocks;
    if (a->sum) from.sum += t * blocks;
    if (a->cells) from.cells += t * blocks;
    if (a->tiles) from.tiles += t / KERN_TILE_TOKENS * blocks;
    return from;
}

enum kern_kv {
    KERN_KV_F16 = 0,
    KERN_KV_F32 = 1,
    KERN_KV_FLOATS = 2,
    KERN_KV_Q8 = 2,
    KERN_KV_Q4 = 3,
    KERN_KV_Q8_Q4 = 4
};

/* Memory that is read soon, for a kernel to ask for a line at a time while it computes: KERN_AHEAD stretches, of each
 * so many lines of KERN_LINE bytes, all side by side. Nothing is read through these, so any address will do. Asked for
 * one after the other, or all at once, they come later: a core has few places for lines that are on their way, and what
 * it computes with needs some of them, too. */
typedef struct kern_ahead {
    const char *at[KERN_AHEAD];
    int64_t lines;
} kern_ahead;

/* Keys of a range that a row sees: first <= j < end, none if first >= end. */
typedef struct kern_view {
    int32_t first, end;
} kern_view;

/* Rows of queries, and the int8 keys of a range that they look at; see weights_q8. */
typedef struct kern_look {
    const int8_t *q;             /* [rows][ldq]: codes */
    const float *q_scale;        /* [rows] */
    const kern_view *seen;       /* [rows] */
    int64_t rows, ldq, n_groups; /* n_groups = ceil(head_dim / 4): dimensions that are not there are 0 in q */
    const int8_t *const *k;      /* pages of codes, each [n_groups][page_keys][4] */
    const float *const *k_scale; /* of pages, each [page_keys] */
    const float *const *v_level; /* of pages, each [page_keys] */
    int64_t page_keys;           /* a multiple of 16 that KERN_RANGE is a multiple of */
    float cap;                   /* of scores, see softcap; 0 = none */
} kern_look;

typedef struct kern_table {
    const char *isa; /* as kern_isa_name() says it: "ref", "avx2" ... */

    /* Panels that matmul computes side by side: whoever cuts a matrix into parts best makes them multiples of it. */
    int panel_group;

    /* What kern_pack() does. */
    void (*pack)(uint32_t type, int64_t cols, const void *rows, size_t row_bytes, int n_rows, void *panel);

    /* x[n] (n a multiple of 32) to codes[n], scale[n/32], sum[n/32].
     * amax = largest |x| of the block. amax < 1e-30: codes 0, scale 0, sum 0. amax inf or NaN (or any NaN): codes 0,
     * sum 0, scale = the canonical quiet NaN 0x7fc00000, so that damage stays visible.
     * Otherwise inv = 127 / amax, code = rint(x * inv) (ties to even), scale = amax / 127. Codes are -127..113, so that
     * products of sums fit into bytes (kernels/README.md, "Products by pairs"): where the largest x is larger than the
     * largest -x, inv and scale are negative; and where the smaller of the two is above amax * (113/127), it takes
     * amax's place, and 113 that of 127. */
    void (*quantize)(const float *x, int64_t n, int8_t *codes, float *scale, int32_t *sum);

    /* Writes row `row` (0..KERN_TILE_TOKENS - 1) of n/32 tiles from what quantize() made of a row of activations. NULL
     * if matmul does not want tiles. */
    void (*tile_row)(const int8_t *codes, const float *scale, const int32_t *sum, int64_t n, kern_act_tile *tiles,
                     int row);

    /* Writes cells[0], cells[step], ..., n/32 of them, from what quantize() made of n columns of a row; step is
     * kern_act.cell_rows. NULL if matmul does not want cells; otherwise it needs them. What start holds depends on how
     * a set adds: its own kernels alone read it. */
    void (*fill_cells)(const int8_t *codes, const float *scale, const int32_t *sum, int64_t n, kern_act_cell *cells,
                       int64_t step);

    /* Rows whose cells lie side by side, if there are so many: as many as a tile of the products has. */
    int cell_rows;

    /* y[t][row] = sum_k W[row][k] * act[t][k] for t < n, row < rows; y rows are ldy floats apart. `panels` points at
     * ceil(rows/16) panels. Only rows < rows are written. Indexed by enum kern_type; NULL where has_kernels is 0.
     *   float types:   acc = 0; for k ascending: acc = fma(w, x, acc)
     *   integer types: acc = 0; for every 32 inputs, ascending, with s, m the scale and minimum of the weights and x, n
     *     the scale and the sum of the codes of the activations (products are rounded to float32, but see kern_format:
     *     those that make s and m are exact)
     *       one scale          i = int32 sum of code * act code
     *                          acc = fma((float)i, s * x, acc)
     *       and a minimum      acc = fma(m, x * (float)n, acc)
     *       two scales         i, j = the sums of the first and the last 16 inputs
     *                          acc = fma(fma((float)j, s1, (float)i * s0), x, acc)
     *       and two minima     acc = fma(fma((float)n1, m1, fma((float)n0, m0, fma((float)j, s1, (float)i * s0))), x,
     *                          acc)
     *     Two scales: Q2_K (with minima), Q3_K, Q6_K, IQ1_M, IQ2_XS, IQ2_S, NVFP4. One and a minimum: Q4_1, Q5_1, Q4_K,
     *     Q5_K. Codes are signed here, without offset; IQ1 counts in eighths. */
    void (*matmul[KERN_TYPE_END])(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,
                                  float *y, int64_t ldy);

    /* With how many rows of activations a product of many is best called, if they have cols numbers each: so many stay
     * in a core's cache while all panels pass by. A multiple of KERN_TILE_TOKENS. NULL: with all. */
    int64_t (*rows_at_once)(int64_t cols);

    /* Root-mean-square norm (Zhang & Sennrich 2019): ss = 16 partial fma sums of x*x; y = (x * (1/sqrtf(ss/n + eps))) *
     * w. y may be x. */
    void (*rms_norm)(const float *x, const float *w, int64_t n, float eps, float *y);

    /* Layer norm (Ba et al. 2016), with 16 partial sums each: mean = sum x / n; c = x - mean; ss = fma sums of c*c;
     * y = fma(c * (1/sqrtf(ss/n + eps)), w, b). y may be x. */
    void (*layer_norm)(const float *x, const float *w, const float *b, int64_t n, float eps, float *y);

    /* x[i] += y[i] */
    void (*add)(float *x, const float *y, int64_t n);

    /* gate[i] = silu(gate[i]) * up[i], silu(g) = g / (1 + exp(-g)) (Shazeer 2020, SwiGLU) */
    void (*silu_mul)(float *gate, const float *up, int64_t n);

    /* gate[i] = gelu(gate[i]) * up[i], or gelu(gate[i]) where up is NULL, in the tanh form (Hendrycks & Gimpel 2016):
     * gelu(g) = g/2 (1 + tanh(sqrt(2/pi) (g + 0.044715 g^3))) = g / (1 + exp(-g * fma(g*g, C3, C1))) */
    void (*gelu_mul)(float *gate, const float *up, int64_t n);

    /* x[i] = cap * tanh(x[i] * (1/cap)), kern_tanhf() (Gemma 2's soft cap) */
    void (*softcap)(float *x, int64_t n, float cap);

    /* Rotary embedding (Su et al. 2021) of n_heads heads of head_dim, in place. cs[n_rot/2][2] = cos, sin.
     * a' = fma(a, c, -(b*s)), b' = fma(a, s, b*c). Pairs: adjacent (2i, 2i+1), or split (i, i + n_rot/2).
     * Dimensions >= n_rot are unchanged. */
    void (*rope_adjacent)(float *x, int64_t n_heads, int64_t head_dim, int64_t n_rot, const float *cs);
    void (*rope_split)(float *x, int64_t n_heads, int64_t head_dim, int64_t n_rot, const float *cs);

    /* Attention over one KV page (or a part of it), one KV head, n_q query rows that share it (grouped queries,
     * neighbouring tokens). K page: [head_dim][ldk], a key is a column (lane = key); V page: [keys][head_dim] (lane =
     * dimension). Indexed by enum kern_kv, the float types.
     *   qk: s[r][j] = scale * (acc = 0; for d ascending: acc = fma(q[r][d], k[d][j], acc)), j < n_keys
     *   pv: for j ascending: o[r][d] = fma(p[r][j], v[j][d], o[r][d])
     * ldq, lds, ldp, ldo: floats between rows. ahead: what a kernel may ask for while it computes, or NULL. */
    void (*qk[KERN_KV_FLOATS])(const float *q, int64_t ldq, int64_t n_q, const void *k, int64_t ldk, int64_t n_keys,
                               int64_t head_dim, float scale, float *s, int64_t lds, const kern_ahead *ahead);
    void (*pv[KERN_KV_FLOATS])(const float *p, int64_t ldp, int64_t n_q, const void *v, int64_t n_keys,
                               int64_t head_dim, float *o, int64_t ldo, const kern_ahead *ahead);

    /* The same with keys and values in int8, a scale for each token and head (KERN_KV_Q8). Four codes that are
     * multiplied and added lie side by side: of K, four dimensions of a key; of V, a dimension of four keys. Keys count
     * from the start of a range of at most KERN_RANGE; of pages, k[i] or v[i] is that of keys i * page_keys.. (all of
     * it is memory, seen or not). Weights of KERN_WEIGHTS keys, a block, share a scale.
     *
     *   quantize_row: as quantize(), but all n numbers share one scale (q and k of a head), and codes are -127..127:
     *          always inv = 127 / amax, scale = amax / 127
     *   quantize_value: the same for v, whose scale is rounded up to kern_level_scale(level), a power of 2^(1/32);
     *          inv is its reciprocal. amax < 1e-30: the level is KERN_LEVEL_MIN; not finite: NaN
     *   weights_q8: for each row; all that is said of keys is said of those that the row sees:
     *            s[j] = (float)i * k_scale[j], i = int32 sum of q code * k code. With a cap s[j] = softcap(s[j] *
     *            q_scale), and q_scale is 1 from there on
     *          for the blocks b that have such keys, ascending, and m, the largest s of all blocks:
     *            t = the largest s[j] of the block, a = q_scale * KERN_WEIGHT_STEPS
     *            y[j] = rint(fma(s[j], a, fma(-t, a, 255))); above 255 it is 255, below 0 or from 2^31 on 0
     *            level = the largest v_level[j] of the block
     *            codes[j] = kern_weight_code(y[j] - (level - v_level[j])), 0 where that is below 0
     *            e = kern_expf((t - m) * q_scale); scale[b] = e * kern_level_scale(level)
     *            sum = fma((float)(int32 sum of kern_weight_code(y[j])), e, sum), from 0 on
     *          max = m * q_scale; where that is not finite, sum is NaN. 127 stands for a weight of 1, in codes and sum.
     *          In blocks of which some row sees a key, codes of keys that a row does not see are 0, and so is its scale
     *          if it sees none of them; a row that sees nothing has max -infinity and sum 0.
     *          codes [rows][ld], scale [blocks][ld_scale], max [rows], sum [rows]; other blocks are left alone
     *
     *   pv_q8: a page of V [page_keys/4][head_dim][4]. Blocks first <= b < end, ascending: o[r][d] = fma((float)i,
     *          scale[b][r], o[r][d]), from 0 on; i = int32 sum of p code * v code. p [n_q][ldp]
     *
     * |q|, |k|, |p|, |v| <= 127: a sum of two products fits int16. */
    void (*quantize_row)(const float *x, int64_t n, int8_t *codes, float *scale);
    void (*quantize_value)(const float *x, int64_t n, int8_t *codes, float *level);
    void (*weights_q8)(const kern_look *look, int8_t *codes, int64_t ld, float *scale, int64_t ld_scale, float *max,
                       float *sum);
    void (*pv_q8)(const int8_t *p, int64_t ldp, const float *scale, int64_t ld_scale, int64_t n_q,
                  const int8_t *const *v, int64_t page_keys, int64_t first, int64_t end, int64_t head_dim, float *o,
                  int64_t ldo);

    /* Keys and values of 4 bits (KERN_KV_Q4; values: KERN_KV_Q8_Q4), which become int8 before the products:
     *   quantize_row_q4: inv = 7.5 / amax, code = min(7, rint(x * inv)), scale = amax / 7.5; the rest as quantize_row
     *   quantize_value_q4: the same with a level
     *   unpack_q4: n bytes of two codes + 8: low[i] from the lower four bits of packed[i], high[i] from the others */
    void (*quantize_row_q4)(const float *x, int64_t n, int8_t *codes, float *scale);
    void (*quantize_value_q4)(const float *x, int64_t n, int8_t *codes, float *level);
    void (*unpack_q4)(const uint8_t *packed, int64_t n, int8_t *low, int8_t *high);

    /* For n_rows rows of s, lds apart, of n > 0 numbers: max[r] = the largest, m; s[r][i] = exp(s[r][i] - m); sum[r] =
     * 16 partial sums of s[r], folded. */
    void (*softmax_part)(float *s, int64_t lds, int64_t n_rows, int64_t n, float *max, float *sum);

    /* For a choice among n tokens, in place or not: y[i] = x[i], but NaN becomes minus infinity and infinity the
     * largest number; top[b] is the largest y of the b-th KERN_CLEAN numbers, of which the last may be fewer; a zero is
     * +0. */
    void (*clean)(const float *x, int64_t n, float *y, float *top);

    /* For a choice among n > 0 tokens, in place or not: x[i] <= max, and no NaN. w[i] = exp(x[i] - max); *sum = 16
     * partial sums of w, folded; *dot = 16 partial sums in float64 of w[i] * (x[i] - max), which is 0 where w[i] is,
     * folded. A product of two float32 is exact in float64, so it may be fused or not. */
    void (*weigh)(const float *x, int64_t n, float max, float *w, float *sum, double *dot);

    /* Joins two softmax parts (online softmax, Milakov & Gimelshein 2018) of n_rows rows, the later into the earlier:
     * m' = max(max[r], max2[r]), a = exp(max[r] - m'), b = exp(max2[r] - m'); sum[r] = fma(sum[r], a, sum2[r]*b);
     * o[r][d] = fma(o[r][d], a, o2[r][d]*b) for d < n; max[r] = m'. Rows of o and of o2 are n apart. */
    void (*softmax_join)(float *max, float *sum, float *o, const float *max2, const float *sum2, const float *o2,
                         int64_t n_rows, int64_t n);

    /* y[i] = x[i] * a */
    void (*scale)(const float *x, float a, int64_t n, float *y);

    /* x[i] within -limit..limit; NaN stays */
    void (*clamp)(float *x, int64_t n, float limit);

    /* float32 to f16, round to nearest even (overflow = inf), and back */
    void (*to_f16)(const float *x, int64_t n, uint16_t *y);
    void (*from_f16)(const uint16_t *x, int64_t n, float *y);
} kern_table;

/* kern_act.cell_rows of n rows: few take no more lines of the cache than they need. */
static inline int64_t kern_cell_rows(const kern_table *table, int64_t n) {
    return n < table->cell_rows ? n : table->cell_rows;
}

/* Fills the table with the best versions up to and including the instruction set `isa` (NULL or "" = no limit).
 * Returns 0, or -1 when isa names no known set or one this CPU does not have: *table is then the best possible. */
int kern_table_init(kern_table *table, const char *isa);

/* Names of the instruction sets this binary knows on this architecture, in rising order; NULL behind the last. */
const char *kern_isa_name(int index);
/* 1 if this CPU (and the operating system) can run it. */
int kern_isa_available(const char *isa);

/* ---- scalar functions that are no hot loops but must give the same bits everywhere (double, no libm) ------------- */

float kern_expf(float x);            /* the exp of silu and softmax; see ref/math.c */
float kern_tanhf(float x);           /* the tanh of soft caps */
float kern_level_scale(float level); /* 2^(level / 32), for the scales of int8 values, KERN_LEVEL_MIN on; NaN stays */
int8_t kern_weight_code(int y);      /* 127 * 2^((y - 255) / 32), roughly, 0 <= y <= 255: 127 at the top, 0 for 0 */
float kern_f16_to_f32(uint16_t h);
uint16_t kern_f32_to_f16(float x);
double kern_exp(double x);
double kern_log(double x);                            /* x > 0 */
double kern_pow(double x, double y);                  /* x > 0: exp(y * log(x)) */
void kern_sincos(double x, double *sin, double *cos); /* |x| < 2^30 */

#endif
