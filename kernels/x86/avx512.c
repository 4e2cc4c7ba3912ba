/* avx512.c: the kernels for AVX-512 F, BW, DQ and VL (Skylake-SP and later) but the integer products, which stand in
 * avx512bw.c and avx512vnni.c: float products, also those of attention, and what lies between the products.
 *
 * A zmm register holds 16 float32: one panel row each, one key each, one dimension each. Lanes never mix, so every lane
 * does exactly what ref does. Tails are masked: nothing outside an array is read or written. */
#include "../internal.h"

#if defined(KERN_X86)

#include "avx512_math.h"

#include <math.h>

/* ---- float products ---------------------------------------------------------------------------------------------- */

/* 16 elements of a float type as float32 */
AVX512_INLINE __m512 avx512_load(const uint32_t type, const uint8_t *p, __mmask16 mask) {
    if (type == KERN_F32) return _mm512_maskz_loadu_ps(mask, p);
    __m256i half = _mm256_maskz_loadu_epi16(mask, p);
    if (type == KERN_F16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)); /* BF16 */
}

/* C[r][lane] = scale * (C or 0 + sum_i A[r][i] * B[i][lane]), i ascending, one fma each: matmul, qk and pv are all
 * this. B and C are seen as vectors of 16 lanes, of which the last of a tile may be cut. */
typedef struct avx512_product {
    const float *a; /* [n_rows][n_i] */
    int64_t lda, n_i;
    const uint8_t *b; /* [n_vectors][n_i][16], strides in bytes */
    int64_t vector_stride, i_stride;
    float *c; /* [n_rows][n_vectors][16] */
    int64_t ldc;
    float scale;
    kern_asking asking;
    int add;                  /* 1: start from C, 0: from zero */
    __mmask16 b_mask, c_mask; /* of the last vector */
} avx512_product;

/* acc += x * b. This and the next in assembly, because gcc 12 moves the fused multiply-adds of a tile about until
 * registers run out, and reads vectors back from the stack: up to 2.5 times slower. */
AVX512_INLINE void avx512_add_product(__m512 *acc, __m512 x, __m512 b) {
    __asm__("vfmadd231ps {%2, %1, %0|%0, %1, %2}" : "+v"(*acc) : "v"(x), "v"(b));
}

AVX512_INLINE __m512 avx512_in_register(__m512 v) {
    __asm__("" : "+v"(v));
    return v;
}

/* NR rows by NV vectors, held in registers while i runs. */
AVX512_INLINE void avx512_float_tile(const uint32_t type, const int NR, const int NV, avx512_product *g, const float *a,
                                     float *c) {
    const uint8_t *b = g->b;
    const int64_t lda = g->lda, ldc = g->ldc, vector_stride = g->vector_stride, i_stride = g->i_stride;
    __m512 acc[12 * 2];
    KERN_UNROLL
    for (int r = 0; r < NR; r++) KERN_UNROLL
    for (int v = 0; v < NV; v++)
        acc[r * NV + v] = _mm512_maskz_loadu_ps(!g->add ? 0 : v < NV - 1 ? 0xffff : g->c_mask, c + r * ldc + v * 16);

    kern_asking asking = g->asking;
    for (int64_t i = 0; i < g->n_i; i++, b += i_stride) {
        __m512 vec[4];
        kern_ask(&asking, NR * NV);
        KERN_UNROLL
        for (int v = 0; v < NV; v++) {
            const __mmask16 mask = v < NV - 1 ? 0xffff : g->b_mask;
            vec[v] = avx512_in_register(avx512_load(type, b + v * vector_stride, mask));
        }
        KERN_UNROLL
        for (int r = 0; r < NR; r++) {
            const __m512 x = _mm512_set1_ps(a[r * lda + i]);
            KERN_UNROLL
            for (int v = 0; v < NV; v++) avx512_add_product(&acc[r * NV + v], x, vec[v]);
        }
    }
    g->asking = asking;

    const __m512 scale = _mm512_set1_ps(g->scale);
    KERN_UNROLL
    for (int r = 0; r < NR; r++) KERN_UNROLL
    for (int v = 0; v < NV; v++)
        _mm512_mask_storeu_ps(c + r * ldc + v * 16, v < NV - 1 ? 0xffff : g->c_mask,
                              _mm512_mul_ps(scale, acc[r * NV + v]));
}

AVX512_INLINE void avx512_float_rows(const uint32_t type, const int NV, avx512_product *g, int64_t n_rows) {
    const float *a = g->a;
    float *c = g->c;
#define TILE(NR) avx512_float_tile(type, NR, NV, g, a, c), n_rows -= (NR), a += (NR)*g->lda, c += (NR)*g->ldc
#define STEP(NR)                                                                                                       \
    while (n_rows >= (NR)) TILE(NR)
    if (NV <= 2) {
        STEP(12);
    } else {
        while (n_rows >= 6 && n_rows != 8) TILE(6);
    }
    STEP(4);
    STEP(2);
    STEP(1);
#undef STEP
#undef TILE
}

/* `lanes` lanes in all; with `padded` the last vector of B is whole (a panel). Few rows need more vectors at once, to
 * hide the latency of the fma; many rows of attention are faster with them, too, because a broadcast that all of them
 * share takes a port that the products need (on Zen 4). For matrices so many panels would be too far apart. */
AVX512_INLINE void avx512_float_product(const uint32_t type, avx512_product *g, int64_t n_rows, int64_t lanes,
                                        int padded) {
    while (lanes > 0) {
        const int64_t n_vectors = (lanes + 15) / 16;
        const int nv = n_vectors >= 4 && (n_rows <= 2 || !padded) ? 4 : n_vectors >= 2 ? 2 : 1;
        g->c_mask = avx512_mask(lanes - 16 * (nv - 1));
        g->b_mask = padded ? (__mmask16)0xffff : g->c_mask;
        if (nv == 4)
            avx512_float_rows(type, 4, g, n_rows);
        else if (nv == 2)
            avx512_float_rows(type, 2, g, n_rows);
        else
            avx512_float_rows(type, 1, g, n_rows);
        g->b += nv * g->vector_stride;
        g->c += nv * 16;
        lanes -= nv * 16;
    }
}

AVX512_INLINE void avx512_matmul_float(const uint32_t type, int64_t bytes, const void *panels, int64_t rows,
                                       int64_t cols, const kern_act *act, int64_t n, float *y, int64_t ldy) {
    avx512_product g = {.a = act->x,
                        .lda = cols,
                        .n_i = cols,
                        .b = panels,
                        .vector_stride = 16 * bytes * cols,
                        .i_stride = 16 * bytes,
                        .c = y,
                        .ldc = ldy,
                        .asking = kern_asking_begin(NULL, 1),
                        .scale = 1};
    avx512_float_product(type, &g, n, rows, 1);
}
AVX512_TARGET static void avx512_matmul_f32(const void *panels, int64_t rows, int64_t cols, const kern_act *act,
                                            int64_t n, float *y, int64_t ldy) {
    avx512_matmul_float(KERN_F32, 4, panels, rows, cols, act, n, y, ldy);
}
AVX512_TARGET static void avx512_matmul_f16(const void *panels, int64_t rows, int64_t cols, const kern_act *act,
                                            int64_t n, float *y, int64_t ldy) {
    avx512_matmul_float(KERN_F16, 2, panels, rows, cols, act, n, y, ldy);
}
AVX512_TARGET static void avx512_matmul_bf16(const void *panels, int64_t rows, int64_t cols, const kern_act *act,
                                             int64_t n, float *y, int64_t ldy) {
    avx512_matmul_float(KERN_BF16, 2, panels, rows, cols, act, n, y, ldy);
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

AVX512_INLINE void avx512_qk(const uint32_t type, int64_t bytes, const float *q, int64_t ldq, int64_t n_q,
                             const void *k, int64_t ldk, int64_t n_keys, int64_t head_dim, float scale, float *s,
                             int64_t lds, const kern_ahead *ahead) {
    avx512_product g = {.a = q,
                        .lda = ldq,
                        .n_i = head_dim,
                        .b = k,
                        .vector_stride = 16 * bytes,
                        .i_stride = ldk * bytes,
                        .c = s,
                        .ldc = lds,
                        .asking = kern_asking_begin(ahead, head_dim * n_q * ((n_keys + 15) / 16)),
                        .scale = scale};
    avx512_float_product(type, &g, n_q, n_keys, 0);
}

AVX512_INLINE void avx512_pv(const uint32_t type, int64_t bytes, const float *p, int64_t ldp, int64_t n_q,
                             const void *v, int64_t n_keys, int64_t head_dim, float *o, int64_t ldo,
                             const kern_ahead *ahead) {
    avx512_product g = {.a = p,
                        .lda = ldp,
                        .n_i = n_keys,
                        .b = v,
                        .vector_stride = 16 * bytes,
                        .i_stride = head_dim * bytes,
                        .c = o,
                        .ldc = ldo,
                        .asking = kern_asking_begin(ahead, n_keys * n_q * ((head_dim + 15) / 16)),
                        .scale = 1.0f,
                        .add = 1};
    avx512_float_product(type, &g, n_q, head_dim, 0);
}

AVX512_TARGET static void avx512_qk_f16(const float *q, int64_t ldq, int64_t n_q, const void *k, int64_t ldk,
                                        int64_t n_keys, int64_t head_dim, float scale, float *s, int64_t lds,
                                        const kern_ahead *ahead) {
    avx512_qk(KERN_F16, 2, q, ldq, n_q, k, ldk, n_keys, head_dim, scale, s, lds, ahead);
}

AVX512_TARGET static void avx512_qk_f32(const float *q, int64_t ldq, int64_t n_q, const void *k, int64_t ldk,
                                        int64_t n_keys, int64_t head_dim, float scale, float *s, int64_t lds,
                                        const kern_ahead *ahead) {
    avx512_qk(KERN_F32, 4, q, ldq, n_q, k, ldk, n_keys, head_dim, scale, s, lds, ahead);
}

AVX512_TARGET static void avx512_pv_f16(const float *p, int64_t ldp, int64_t n_q, const void *v, int64_t n_keys,
                                        int64_t head_dim, float *o, int64_t ldo, const kern_ahead *ahead) {
    avx512_pv(KERN_F16, 2, p, ldp, n_q, v, n_keys, head_dim, o, ldo, ahead);
}

AVX512_TARGET static void avx512_pv_f32(const float *p, int64_t ldp, int64_t n_q, const void *v, int64_t n_keys,
                                        int64_t head_dim, float *o, int64_t ldo, const kern_ahead *ahead) {
    avx512_pv(KERN_F32, 4, p, ldp, n_q, v, n_keys, head_dim, o, ldo, ahead);
}

/* ---- between the products ---------------------------------------------------------------------------------------- */

AVX512_INLINE __m512 avx512_larger_signed(__m512 a, __m512 b) {
    return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}
AVX512_INLINE __m512 avx512_integer_sum(__m512 a, __m512 b) {
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}

/* kern_act_scale_bits() of four blocks; returns those whose codes are not to be 0. */
AVX512_INLINE __mmask8 avx512_act_scales(__m128 most_signed, __m128 most_unsigned, __m128 *inv, __m128 *scale) {
    const __m128 sign = _mm_set1_ps(-0.0f);
    const __m128i s = _mm_castps_si128(most_signed), u = _mm_castps_si128(most_unsigned);
    const __m128i up = _mm_max_epi32(s, _mm_setzero_si128()); /* 0 where no number is above 0 */
    const __m128i down = _mm_maskz_xor_epi32(_mm_movepi32_mask(u), u, _mm_castps_si128(sign));
    const __mmask8 is_up = _mm_cmpgt_epi32_mask(up, down);
    const __m128 most = _mm_castsi128_ps(_mm_max_epi32(up, down)), other = _mm_castsi128_ps(_mm_min_epi32(up, down));
    const __mmask8 finite = _mm_cmplt_epi32_mask(_mm_max_epi32(up, down), _mm_set1_epi32(0x7f800000));
    const __mmask8 good = _mm_mask_cmp_ps_mask(finite, most, _mm_set1_ps(KERN_AMAX_MIN), _CMP_GE_OQ);
    const __mmask8 both =
        _mm_cmp_ps_mask(other, _mm_mul_ps(most, _mm_set1_ps(KERN_CODE_UP / KERN_CODE_DOWN)), _CMP_GT_OQ);
    const __m128 level = _mm_mask_mov_ps(_mm_set1_ps(KERN_CODE_DOWN), both, _mm_set1_ps(KERN_CODE_UP));
    const __m128 size = _mm_xor_ps(_mm_mask_mov_ps(most, both, other), _mm_maskz_mov_ps(is_up, sign));
    const __m128 nan = _mm_castsi128_ps(_mm_set1_epi32((int)KERN_NAN_BITS));
    *inv = _mm_maskz_div_ps(good, level, size);
    *scale = _mm_mask_mov_ps(_mm_maskz_div_ps(good, size, level), (__mmask8)~finite, nan);
    return good;
}

/* NB blocks, 4 or 1. What is to become 0 is multiplied by 0; and the byte of what is no number then is 0, too. */
AVX512_INLINE void avx512_quantize_blocks(const int NB, const float *x, int8_t *codes, float *scale, int32_t *sum) {
    const __mmask8 blocks = (1 << NB) - 1;
    __m512 top[4], bits[4], all[4];
    __m128 inv, scales;
    float to_code[4];
    KERN_UNROLL
    for (int b = 0; b < 4; b++) {
        const float *from = x + (b < NB ? b : 0) * KERN_BLOCK;
        const __m512 v = _mm512_loadu_ps(from), w = _mm512_loadu_ps(from + 16);
        top[b] = avx512_larger_signed(v, w), bits[b] = avx512_larger_bits(v, w);
    }
    const __mmask8 good = avx512_act_scales(avx512_four_folded(avx512_larger_signed, top),
                                            avx512_four_folded(avx512_larger_bits, bits), &inv, &scales);
    _mm_storeu_ps(to_code, inv);
    KERN_UNROLL
    for (int b = 0; b < NB; b++) {
        const __m512 times = _mm512_set1_ps(to_code[b]);
        __m512i v[2];
        KERN_UNROLL
        for (int h = 0; h < 2; h++) {
            v[h] = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + b * KERN_BLOCK + 16 * h), times));
            _mm_storeu_si128((void *)(codes + b * KERN_BLOCK + 16 * h), _mm512_cvtepi32_epi8(v[h]));
        }
        all[b] = _mm512_castsi512_ps(_mm512_add_epi32(v[0], v[1]));
    }
    KERN_UNROLL
    for (int b = NB; b < 4; b++) all[b] = _mm512_setzero_ps();
    _mm_mask_storeu_ps(scale, blocks, scales);
    const __m128i sums = _mm_castps_si128(avx512_four_folded(avx512_integer_sum, all));
    _mm_mask_storeu_epi32(sum, blocks, _mm_maskz_mov_epi32(good, sums));
}

AVX512_TARGET static void avx512_quantize(const float *x, int64_t n, int8_t *codes, float *scale, int32_t *sum) {
    const int64_t blocks = n / KERN_BLOCK;
    int64_t b = 0;
    for (; b + 4 <= blocks; b += 4)
        avx512_quantize_blocks(4, x + b * KERN_BLOCK, codes + b * KERN_BLOCK, scale + b, sum + b);
    for (; b < blocks; b++) avx512_quantize_blocks(1, x + b * KERN_BLOCK, codes + b * KERN_BLOCK, scale + b, sum + b);
}

AVX512_TARGET static void avx512_rms_norm(const float *x, const float *w, int64_t n, float eps, float *y) {
    __m512 partial = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 m = avx512_mask(n - i);
        const __m512 v = _mm512_maskz_loadu_ps(m, x + i);
        partial = _mm512_mask3_fmadd_ps(v, v, partial, m);
    }
    const __m512 inv = _mm512_set1_ps(1.0f / sqrtf(avx512_fold(partial) / (float)n + eps));
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 m = avx512_mask(n - i);
        const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), inv);
        _mm512_mask_storeu_ps(y + i, m, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, w + i)));
    }
}

AVX512_TARGET static void avx512_layer_norm(const float *x, const float *w, const float *b, int64_t n, float eps,
                                            float *y) {
    __m512 sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 m = avx512_mask(n - i);
        sum = _mm512_mask_add_ps(sum, m, sum, _mm512_maskz_loadu_ps(m, x + i));
    }
    const __m512 mean = _mm512_set1_ps(avx512_fold(sum) / (float)n);
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 m = avx512_mask(n - i);
        const __m512 c = _mm512_sub_ps(_mm512_maskz_loadu_ps(m, x + i), mean);
        squares = _mm512_mask3_fmadd_ps(c, c, squares, m);
    }
    const __m512 inv = _mm512_set1_ps(1.0f / sqrtf(avx512_fold(squares) / (float)n + eps));
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 m = avx512_mask(n - i);
        const __m512 c = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(m, x + i), mean), inv);
        _mm512_mask_storeu_ps(y + i, m,
                              _mm512_fmadd_ps(c, _mm512_maskz_loadu_ps(m, w + i), _mm512_maskz_loadu_ps(m, b + i)));
    }
}

AVX512_TARGET static void avx512_add(float *x, const float *y, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 m = avx512_mask(n - i);
        _mm512_mask_storeu_ps(x + i, m,
                              _mm512_add_ps(_mm512_maskz_loadu_ps(m, x + i), _mm512_maskz_loadu_ps(m, y + i)));
    }
}

/* Rows of a prompt come from far, and were written elsewhere: while x[i] of x [n] is worked on, what lies 2 KB on is
 * asked for. Nothing behind the end, which another thread may be writing. */
AVX512_INLINE void avx512_ask_row(const float *x, int64_t i, int64_t n) {
    enum { AHEAD = 512 };
    if (i + AHEAD < n) _mm_prefetch((const char *)(x + i + AHEAD), _MM_HINT_T0);
}

AVX512_TARGET static void avx512_silu_mul(float *gate, const float *up, int64_t n) {
    const __m512 one = _mm512_set1_ps(1.0f), minus = _mm512_set1_ps(-0.0f);
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 m = avx512_mask(n - i);
        avx512_ask_row(gate, i, n), avx512_ask_row(up, i, n);
        const __m512 g = _mm512_maskz_loadu_ps(m, gate + i);
        const __m512 silu = _mm512_div_ps(g, _mm512_add_ps(one, avx512_exp(_mm512_xor_ps(g, minus))));
        _mm512_mask_storeu_ps(gate + i, m, _mm512_mul_ps(silu, _mm512_maskz_loadu_ps(m, up + i)));
    }
}

AVX512_TARGET static void avx512_gelu_mul(float *gate, const float *up, int64_t n) {
    const __m512 one = _mm512_set1_ps(1.0f), minus = _mm512_set1_ps(-0.0f);
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 m = avx512_mask(n - i);
        avx512_ask_row(gate, i, n), avx512_ask_row(up ? up : gate, i, n);
        const __m512 g = _mm512_maskz_loadu_ps(m, gate + i);
        const __m512 factor =
            _mm512_fmadd_ps(_mm512_mul_ps(g, g), _mm512_set1_ps(KERN_GELU_C3), _mm512_set1_ps(KERN_GELU_C1));
        const __m512 e = avx512_exp(_mm512_xor_ps(_mm512_mul_ps(g, factor), minus));
        const __m512 gelu = _mm512_div_ps(g, _mm512_add_ps(one, e));
        _mm512_mask_storeu_ps(gate + i, m, up ? _mm512_mul_ps(gelu, _mm512_maskz_loadu_ps(m, up + i)) : gelu);
    }
}

AVX512_TARGET static void avx512_softcap(float *x, int64_t n, float cap) {
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 m = avx512_mask(n - i);
        _mm512_mask_storeu_ps(x + i, m, avx512_capped(_mm512_maskz_loadu_ps(m, x + i), cap));
    }
}

/* Eight pairs (a, b) side by side, (c, s) likewise: even lanes a*c - b*s, odd lanes a*s + b*c. */
AVX512_TARGET static void avx512_rope_adjacent(float *x, int64_t n_heads, int64_t head_dim, int64_t n_rot,
                                               const float *cs) {
    const int64_t n = n_rot / 2 * 2;
    for (int64_t h = 0; h < n_heads; h++, x += head_dim)
        for (int64_t i = 0; i < n; i += 16) {
            const __mmask16 m = avx512_mask(n - i);
            const __m512 v = _mm512_maskz_loadu_ps(m, x + i), turn = _mm512_maskz_loadu_ps(m, cs + i);
            const __m512 a = _mm512_moveldup_ps(v), b = _mm512_movehdup_ps(v);
            const __m512 other = _mm512_mul_ps(b, _mm512_permute_ps(turn, 0xb1)); /* b*s, b*c */
            _mm512_mask_storeu_ps(x + i, m, _mm512_fmaddsub_ps(a, turn, other));
        }
}

AVX512_TARGET static void avx512_rope_split(float *x, int64_t n_heads, int64_t head_dim, int64_t n_rot,
                                            const float *cs) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    const int64_t half = n_rot / 2;
    for (int64_t h = 0; h < n_heads; h++, x += head_dim)
        for (int64_t i = 0; i < half; i += 16) {
            const __mmask16 m = avx512_mask(half - i);
            const __m512 low = _mm512_maskz_loadu_ps(avx512_mask(2 * (half - i)), cs + 2 * i);
            const __m512 high = _mm512_maskz_loadu_ps(avx512_mask(2 * (half - i) - 16), cs + 2 * i + 16);
            const __m512 c = _mm512_permutex2var_ps(low, even, high), s = _mm512_permutex2var_ps(low, odd, high);
            const __m512 a = _mm512_maskz_loadu_ps(m, x + i), b = _mm512_maskz_loadu_ps(m, x + half + i);
            _mm512_mask_storeu_ps(x + i, m, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
            _mm512_mask_storeu_ps(x + half + i, m, _mm512_fmadd_ps(a, s, _mm512_mul_ps(b, c)));
        }
}

AVX512_TARGET static void avx512_scale(const float *x, float a, int64_t n, float *y) {
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 m = avx512_mask(n - i);
        _mm512_mask_storeu_ps(y + i, m, _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), _mm512_set1_ps(a)));
    }
}

AVX512_TARGET static void avx512_to_f16(const float *x, int64_t n, uint16_t *y) {
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 m = avx512_mask(n - i);
        const __m512 v = _mm512_maskz_loadu_ps(m, x + i);
        _mm256_mask_storeu_epi16(y + i, m, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
}

AVX512_TARGET static void avx512_from_f16(const uint16_t *x, int64_t n, float *y) {
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 m = avx512_mask(n - i);
        _mm512_mask_storeu_ps(y + i, m, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, x + i)));
    }
}

void kern_table_avx512(kern_table *table) {
    table->quantize = avx512_quantize;
    table->matmul[KERN_F32] = avx512_matmul_f32;
    table->matmul[KERN_F16] = avx512_matmul_f16;
    table->matmul[KERN_BF16] = avx512_matmul_bf16;
    table->matmul[KERN_Q4_0] = kern_avx512bw_matmul_q4_0;
    table->matmul[KERN_Q8_0] = kern_avx512bw_matmul_q8_0;
    table->rms_norm = avx512_rms_norm;
    table->layer_norm = avx512_layer_norm;
    table->add = avx512_add;
    table->silu_mul = avx512_silu_mul;
    table->gelu_mul = avx512_gelu_mul;
    table->softcap = avx512_softcap;
    table->rope_adjacent = avx512_rope_adjacent;
    table->rope_split = avx512_rope_split;
    table->qk[KERN_KV_F16] = avx512_qk_f16;
    table->qk[KERN_KV_F32] = avx512_qk_f32;
    table->pv[KERN_KV_F16] = avx512_pv_f16;
    table->pv[KERN_KV_F32] = avx512_pv_f32;
    table->scale = avx512_scale;
    table->to_f16 = avx512_to_f16;
    table->from_f16 = avx512_from_f16;
    kern_table_avx512_attention(table);
}

#endif
