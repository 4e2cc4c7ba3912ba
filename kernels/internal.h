/* internal.h: what the sources under kernels/ share. Nobody else includes this. */
#ifndef KERN_INTERNAL_H
#define KERN_INTERNAL_H

#include "kernels.h"

#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define KERN_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(undefined_behavior_sanitizer)
#define KERN_SANITIZED 1
#endif
#endif

/* KERN_INLINE: a function that must become part of its caller, where its parameters are constants.
 * KERN_UNROLL: before a short loop with a constant count whose array should live in registers.
 * Under a sanitizer they mean nothing: with its checks in every copy, compilers take minutes. */
#if defined(KERN_SANITIZED)
#define KERN_INLINE __attribute__((noinline, unused)) static
#define KERN_UNROLL
#elif defined(__clang__)
#define KERN_INLINE __attribute__((always_inline, unused)) static inline
#define KERN_UNROLL _Pragma("clang loop unroll(full)")
#else
#define KERN_INLINE __attribute__((always_inline, unused)) static inline
#define KERN_UNROLL _Pragma("GCC unroll 32")
#endif

/* Cells from a block to the next in a tile of T tokens: a full tile has `most`, which needs no register. */
KERN_INLINE int64_t kern_cell_step(const int T, const int most, int64_t cell_rows) {
    return T == most ? most : cell_rows;
}

/* Weights and KV pages are bytes of any alignment: they are read with memcpy, which compiles to one load. */
static inline uint16_t kern_load_u16(const void *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline float kern_load_f32(const void *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline float kern_bits_to_f32(uint32_t bits) {
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static inline uint32_t kern_f32_to_bits(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static inline double kern_bits_to_f64(uint64_t bits) {
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static inline uint64_t kern_f64_to_bits(double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

/* bfloat16 is the upper half of a float32. */
static inline float kern_bf16_to_f32(uint16_t h) {
    return kern_bits_to_f32((uint32_t)h << 16);
}

/* The tree that ends a reduction, for ref and for what has its partial results in memory. */
static inline float kern_fold(float partial[KERN_LANES]) {
    for (int step = KERN_LANES / 2; step > 0; step /= 2)
        for (int i = 0; i < step; i++) partial[i] += partial[i + step];
    return partial[0];
}

/* A block of keys that share a scale of their weights, and which of them are seen. */
typedef struct kern_seen {
    int64_t begin;      /* its first key */
    int64_t first, end; /* those that are seen, counted from there: first <= i < end */
} kern_seen;

/* Block b, of the keys first <= j < end, of which it has at least one. */
static inline kern_seen kern_seen_of(int64_t b, int64_t first, int64_t end) {
    const int64_t begin = b * KERN_WEIGHTS, low = first - begin, high = end - begin;
    return (kern_seen){begin, low > 0 ? low : 0, high < KERN_WEIGHTS ? high : KERN_WEIGHTS};
}

/* From the first key that some row sees to the last; none: first = end = 0. */
static inline kern_view kern_seen_by_some(const kern_look *l) {
    kern_view all = {KERN_RANGE, 0};
    for (int64_t r = 0; r < l->rows; r++) {
        const kern_view mine = l->seen[r];
        if (mine.first >= mine.end) continue;
        if (mine.first < all.first) all.first = mine.first;
        if (mine.end > all.end) all.end = mine.end;
    }
    return all.end ? all : (kern_view){0, 0};
}

static inline int kern_all_seen(kern_seen k) {
    return k.end - k.first == KERN_WEIGHTS;
}

static inline int64_t kern_blocks(int64_t keys) {
    return (keys + KERN_WEIGHTS - 1) / KERN_WEIGHTS;
}

/* What a product asks for while it computes: each of `price` multiply-adds pays for its share of the lines. */
typedef struct kern_asking {
    const kern_ahead *ahead;
    int64_t line, lines, paid, price;
} kern_asking;

static inline kern_asking kern_asking_begin(const kern_ahead *ahead, int64_t price) {
    return (kern_asking){.ahead = ahead, .lines = ahead ? ahead->lines * KERN_AHEAD : 0, .price = price};
}

/* So many multiply-adds more. Two lines of each stretch in turn. */
KERN_INLINE void kern_ask(kern_asking *q, int64_t multiply_adds) {
    for (q->paid += multiply_adds * q->lines; q->paid >= q->price; q->paid -= q->price, q->line++) {
        const int64_t turn = q->line / 2, there = turn / KERN_AHEAD * 2 + q->line % 2;
        const uintptr_t stretch = (uintptr_t)q->ahead->at[turn % KERN_AHEAD]; /* may be no memory of ours */
        __builtin_prefetch((const void *)(stretch + (uintptr_t)there * KERN_LINE), 0, 2);
    }
}

/* Every integer type, as X(name): to write a function for each. */
/* clang-format off */
#define KERN_INT_TYPES(X) X(Q4_0) X(Q8_0) KERN_QUANT_TYPES(X)
#define KERN_QUANT_TYPES(X)                                                                                            \
    X(Q4_1) X(Q5_0) X(Q5_1) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(IQ4_NL) X(IQ4_XS) X(MXFP4) X(NVFP4)              \
    X(TQ1_0) X(TQ2_0) X(IQ1_S) X(IQ1_M) X(IQ2_XXS) X(IQ2_XS) X(IQ2_S) X(IQ3_XXS) X(IQ3_S)
/* clang-format on */

/* Constants of quantize(). */
#define KERN_AMAX_MIN  1e-30f      /* a block below this is zero */
#define KERN_NAN_BITS  0x7fc00000u /* the scale of a damaged block */
#define KERN_CODE_DOWN 127.0f      /* codes are -127 .. */
#define KERN_CODE_UP   113.0f      /* .. 113 */

/* What quantize() multiplies a block with, and its scale. up and down are the bits of the largest x and of the largest
 * -x, 0 where there is none above zero. 0: the codes are to be 0. */
static inline int kern_act_scale(uint32_t up, uint32_t down, float *inv, float *scale) {
    const uint32_t amax = up > down ? up : down;
    const float most = kern_bits_to_f32(amax), other = kern_bits_to_f32(up > down ? down : up);
    const int finite = amax < 0x7f800000u;
    *inv = 0;
    *scale = finite ? 0.0f : kern_bits_to_f32(KERN_NAN_BITS);
    if (!finite || most < KERN_AMAX_MIN) return 0;
    const int both = other > most * (KERN_CODE_UP / KERN_CODE_DOWN); /* about as large up as down */
    const float level = both ? KERN_CODE_UP : KERN_CODE_DOWN, size = both ? other : most;
    const float sign = up > down ? -1.0f : 1.0f;
    *inv = sign * level / size;
    *scale = sign * size / level;
    return 1;
}

/* The same for the vector versions: the largest of the bits of 32 numbers, as signed and as unsigned integers. Bits of
 * floats have the order of the floats as signed integers where one is positive, and of their size as unsigned ones
 * where one is negative. */
static inline int kern_act_scale_bits(uint32_t most_signed, uint32_t most_unsigned, float *inv, float *scale) {
    const uint32_t sign = 0x80000000u;
    return kern_act_scale(most_signed & sign ? 0 : most_signed, most_unsigned & sign ? most_unsigned ^ sign : 0, inv,
                          scale);
}

/* The scale of numbers whose largest |x| has these bits, as quantize_row() and its relatives want it: `most` is the
 * largest code, 127 or 7.5. Returns what they are multiplied with, 0 for those whose codes are to be 0. */
static inline float kern_code_scale(uint32_t top, float most, float *scale) {
    const float amax = kern_bits_to_f32(top);
    const int finite = top < 0x7f800000u, empty = !finite || amax < KERN_AMAX_MIN;
    *scale = !finite ? kern_bits_to_f32(KERN_NAN_BITS) : empty ? 0.0f : amax / most;
    return empty ? 0.0f : most / amax;
}

/* The same for quantize_value() and its relatives, with the level of the scale. */
float kern_value_level(uint32_t top, float most, float *level);

/* Constants of kern_expf(), explained in ref/math.c; every instruction set uses these. */
#define KERN_EXP_MIN   (-87.3f)
#define KERN_EXP_MAX   88.37f
#define KERN_EXP_LOG2E 1.44269502f       /* 1/ln 2 */
#define KERN_EXP_ROUND 12583039.0f       /* 1.5 * 2^23 + 127 */
#define KERN_EXP_LN2HI 0x1.62e43p-1f     /* ln 2, rounded to float32 */
#define KERN_EXP_LN2LO (-0x1.05c61p-29f) /* ln 2 - LN2HI */
#define KERN_EXP_C6    0x1.6d113cp-10f
#define KERN_EXP_C5    0x1.120ba2p-7f
#define KERN_EXP_C4    0x1.55551ap-5f
#define KERN_EXP_C3    0x1.5554dcp-3f
#define KERN_EXP_C2    0.5f

#define KERN_WEIGHT_STEPS (1.44269502f * 32)  /* log2(e) * 32: of weights of int8 values */
#define KERN_LEVEL_STEP   (0.693147182f / 32) /* ln(2) / 32 */

/* 127 * 2^((i - 31) / 32): kern_weight_code() of the topmost 32 */
extern const uint8_t kern_weight_32nds[32];

/* gelu: 2 sqrt(2/pi) (g + 0.044715 g^3) = g * (C1 + C3 g^2) */
#define KERN_GELU_C1 1.5957691216f
#define KERN_GELU_C3 0.0713548162726f

/* Constants of kern_tanhf(), explained in ref/math.c. */
#define KERN_TANH_SMALL 0.625f
#define KERN_TANH_C11   (-0x1.8f8de4p-8f)
#define KERN_TANH_C9    0x1.58048ep-6f
#define KERN_TANH_C7    (-0x1.b9258ap-5f)
#define KERN_TANH_C5    0x1.110e1cp-3f
#define KERN_TANH_C3    (-0x1.555552p-2f)

/* What a row needs to know of the values of a block of KERN_WEIGHTS keys, of those that it sees */
typedef struct kern_block_values {
    uint8_t down[KERN_WEIGHTS]; /* levels below the largest, at most 255; all 255 if one is none */
    float worth;                /* the scale of the largest level, NaN if one is none */
} kern_block_values;

/* The steps of weights_q8, for instruction sets that take a row and a block after the other. */
typedef struct kern_weights_steps {
    /* s[r * KERN_RANGE + i], r < n <= 4, i < 16: of rows from `row` on and the 16 keys of a page from k on */
    void (*scores)(const kern_look *l, int64_t row, int64_t n, const int8_t *k, const float *k_scale, float *s);
    void (*cap)(float *s, int64_t n, float q_scale, float cap); /* s = softcap(s * q_scale), n a multiple of 16 */
    float (*largest)(const float *s, int64_t n);                /* of n > 0 numbers, a zero as +0 */
    /* of the 64 keys whose levels are in four pieces of 16 */
    void (*values)(const float *const *level, kern_seen k, kern_block_values *out);
    /* Codes of the 64 keys of a block, 0 for those that are not seen; returns their sum without `down`. */
    int32_t (*codes)(const float *s, kern_seen k, float a, float z, const uint8_t *down, int8_t *codes);
    void (*exp)(float *x, int64_t n); /* x[i] = kern_expf(x[i]), x[i] <= 0 or NaN; n <= KERN_RANGE / KERN_WEIGHTS */
} kern_weights_steps;

extern const kern_weights_steps kern_ref_weights_steps;

/* weights_q8 by these steps */
void kern_weights_by_steps(const kern_weights_steps *steps, const kern_look *l, int8_t *codes, int64_t ld, float *scale,
                           int64_t ld_scale, float *max, float *sum);

/* Each overwrites the entries of the table it has a version of. */
void kern_table_ref_matmul(kern_table *table);
void kern_table_ref_attention(kern_table *table);
void kern_table_ref_elementwise(kern_table *table);
#if defined(__x86_64__)
#define KERN_X86 1
void kern_table_avx2(kern_table *table);
void kern_table_pack_avx2(kern_table *table);
void kern_table_avxvnni(kern_table *table);
void kern_table_avx512(kern_table *table);
void kern_table_avx512vnni(kern_table *table);
void kern_table_avx2_attention(kern_table *table);       /* a part of avx2 */
void kern_table_avx512_attention(kern_table *table);     /* a part of avx512 */
void kern_table_avx512vnni_attention(kern_table *table); /* a part of avx512vnni */
/* Parts of avx2, avxvnni and avx512vnni: the types that are not Q4_0 or Q8_0. */
void kern_table_quants256(kern_table *table);
void kern_table_quants256_vnni(kern_table *table);
void kern_table_quants512(kern_table *table);
void kern_table_amx(kern_table *table);
/* For what another one leaves to it: pages of fewer than KERN_WEIGHTS keys */
void kern_avx2_weights_q8(const kern_look *l, int8_t *codes, int64_t ld, float *scale, int64_t ld_scale, float *max,
                          float *sum);
int kern_cpu_is_amd(void); /* decides how memory is read and which of two ways to the same bits is taken */
/* The product functions of one set that another falls back to. */
typedef void kern_matmul(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n, float *y,
                         int64_t ldy);
kern_matmul kern_avx512vnni_matmul_q4_0, kern_avx512vnni_matmul_q8_0;
kern_matmul kern_quants512_q4_0, kern_quants512_q8_0;             /* of many tokens */
kern_matmul kern_quants256_q4_0, kern_quants256_q8_0;             /* the same for avx2 */
kern_matmul kern_avx512bw_matmul_q4_0, kern_avx512bw_matmul_q8_0; /* of the level avx512 */
#elif defined(__aarch64__) && defined(__AARCH64EL__)
#define KERN_ARM 1
void kern_table_neon(kern_table *table);
void kern_neon_cap_scores(float *s, int64_t n, float q_scale, float cap); /* for kern_weights_steps */
float kern_neon_largest(const float *s, int64_t n);
void kern_table_neon_dotprod(kern_table *table);
void kern_table_neon_i8mm(kern_table *table);
/* Parts of neon and neon_dotprod: int8 keys and values. */
void kern_table_neon_attention(kern_table *table);
void kern_table_neon_dotprod_attention(kern_table *table);
/* Parts of neon and neon_dotprod: the types that are not Q4_0 or Q8_0. */
void kern_table_neon_quants(kern_table *table);
void kern_table_neon_dotprod_quants(kern_table *table);
#endif

#endif
