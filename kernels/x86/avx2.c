/* avx2.c: the kernels for AVX2 with FMA and F16C (Haswell, Zen and later).
 *
 * A ymm register holds 8 float32 or int32, so a panel takes two. As in avx512vnni.c, lanes never mix. */
#include "../internal.h"

#if defined(KERN_X86)

#include "avx2_int.h"
#include "avx2_math.h"

#include <math.h>

/* ---- integer products -------------------------------------------------------------------------------------------- */

/* The sum is final here. Without it gcc collects all products first and adds them in an order of its own, for which no
 * processor has the registers: half the speed. */
AVX2_INLINE __m256i avx2_keep(__m256i sum) {
    __asm__("" : "+x"(sum));
    return sum;
}

/* 4-bit codes: vpmaddubsw adds pairs of products in int16, where the whole block fits: 8 * 2 * 15 * 127 = 30480. Then
 * one vpmaddwd adds the two pairs of each row. Each of them starts with half of what pays for the offset, and still
 * ends within int16: 16 * (15 - 4) * 127 + 16 * 4 * 127 is 30480, too. */
AVX2_INLINE void avx2_dot_q4_0(const uint32_t layout, const int T, const uint8_t *codes, const int8_t *act, int64_t ld,
                               const int32_t *start, __m256i *dot) {
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) dot[i] = _mm256_set1_epi16((int16_t)start[i / 2]);
    __m256i pair[2];
    KERN_UNROLL
    for (int j = 0; j < 8; j++) {
        __m256i code[2];
        avx2_codes(layout, T, j, codes, pair, code);
        KERN_UNROLL
        for (int i = 0; i < 2 * T; i++) {
            const __m256i pairs = _mm256_maddubs_epi16(code[i % 2], avx2_act(layout, j, act + i / 2 * ld));
            dot[i] = avx2_keep(_mm256_add_epi16(dot[i], pairs));
        }
    }
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) dot[i] = _mm256_madd_epi16(dot[i], _mm256_set1_epi16(1));
}

/* 8-bit codes: code - 128 as |w| (at most 128) times the activation with the sign of w: a pair is at most
 * 2 * 128 * 127 = 32512, which int16 holds; each is widened at once. */
AVX2_INLINE void avx2_dot_q8_0(const uint32_t layout, const int T, const uint8_t *codes, const int8_t *act, int64_t ld,
                               const int32_t *start, __m256i *dot) {
    (void)start; /* the offset is gone with the sign bit */
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) dot[i] = _mm256_setzero_si256();
    __m256i pair[2];
    KERN_UNROLL
    for (int j = 0; j < 8; j++) {
        __m256i w[2], abs[2];
        avx2_codes(layout, T, j, codes, pair, w);
        KERN_UNROLL
        for (int h = 0; h < 2; h++)
            w[h] = _mm256_xor_si256(w[h], _mm256_set1_epi8(-128)), abs[h] = _mm256_abs_epi8(w[h]);
        KERN_UNROLL
        for (int i = 0; i < 2 * T; i++) {
            const __m256i signed_act = _mm256_sign_epi8(avx2_act(layout, j, act + i / 2 * ld), w[i % 2]);
            const __m256i pairs = _mm256_maddubs_epi16(abs[i % 2], signed_act);
            dot[i] = avx2_keep(_mm256_add_epi32(dot[i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
        }
    }
}

enum { AVX2_MANY = 32 }; /* from so many tokens on, panels are unpacked first */

AVX2_TARGET static void avx2_matmul_q4_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,
                                         float *y, int64_t ldy) {
    if (n >= AVX2_MANY)
        kern_quants256_q4_0(panels, rows, cols, act, n, y, ldy);
    else
        avx2_matmul_int(avx2_dot_q4_0, KERN_Q4_0, 4, 4, panels, rows, cols, act, n, y, ldy);
}

AVX2_TARGET static void avx2_matmul_q8_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,
                                         float *y, int64_t ldy) {
    if (n >= AVX2_MANY)
        kern_quants256_q8_0(panels, rows, cols, act, n, y, ldy);
    else
        avx2_matmul_int(avx2_dot_q8_0, KERN_Q8_0, 0, 4, panels, rows, cols, act, n, y, ldy);
}

/* ---- float products ---------------------------------------------------------------------------------------------- */

/* 8 elements of a float type as float32 */
AVX2_INLINE __m256 avx2_load(const uint32_t type, const uint8_t *p) {
    if (type == KERN_F32) return _mm256_loadu_ps((const void *)p);
    const __m128i half = _mm_loadu_si128((const void *)p);
    if (type == KERN_F16) return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16)); /* BF16 */
}

AVX2_INLINE int64_t avx2_bytes(const uint32_t type) {
    return type == KERN_F32 ? 4 : 2;
}

/* C[r][lane] = scale * (C or 0 + sum_i A[r][i] * B[i][lane]), i ascending, one fma each: matmul, qk and pv are all
 * this. B and C are seen as vectors of 8 lanes. */
typedef struct avx2_product {
    const float *a; /* [n_rows][n_i] */
    int64_t lda, n_i;
    const uint8_t *b;              /* [n_vectors / 2][n_i][2][8], strides in bytes */
    int64_t pair_stride, i_stride; /* between pairs of vectors; the two of a pair are neighbours */
    float *c;                      /* [n_rows][n_vectors][8] */
    int64_t ldc;
    int64_t first, end; /* lanes of the tile that are written */
    kern_asking asking;
    float scale;
    int add; /* 1: start from C, 0: from zero */
} avx2_product;

/* NR rows by NV vectors, held in registers while i runs. */
AVX2_INLINE void avx2_float_tile(const uint32_t type, const int NR, const int NV, avx2_product *g, const float *a,
                                 float *c) {
    const uint8_t *b = g->b;
    const int64_t lda = g->lda, ldc = g->ldc, pair_stride = g->pair_stride, half_stride = 8 * avx2_bytes(type);
    __m256 acc[6 * 2];
    KERN_UNROLL
    for (int i = 0; i < NR * NV; i++)
        acc[i] = g->add ? _mm256_loadu_ps(c + i / NV * ldc + i % NV * 8) : _mm256_setzero_ps();

    kern_asking asking = g->asking;
    for (int64_t i = 0; i < g->n_i; i++, b += g->i_stride) {
        __m256 vec[8];
        kern_ask(&asking, NR * NV);
        KERN_UNROLL
        for (int v = 0; v < NV; v++) vec[v] = avx2_load(type, b + v / 2 * pair_stride + v % 2 * half_stride);
        KERN_UNROLL
        for (int r = 0; r < NR; r++) {
            const __m256 x = _mm256_set1_ps(a[r * lda + i]);
            KERN_UNROLL
            for (int v = 0; v < NV; v++) acc[r * NV + v] = _mm256_fmadd_ps(x, vec[v], acc[r * NV + v]);
        }
    }
    g->asking = asking;

    const __m256 scale = _mm256_set1_ps(g->scale);
    KERN_UNROLL
    for (int i = 0; i < NR * NV; i++) {
        float *out = c + i / NV * ldc + i % NV * 8;
        const int64_t first = g->first - i % NV * 8, end = g->end - i % NV * 8;
        const __m256 v = _mm256_mul_ps(scale, acc[i]);
        if (first <= 0 && end >= 8)
            _mm256_storeu_ps(out, v);
        else
            _mm256_maskstore_ps(out, avx2_mask(first, end), v);
    }
}

AVX2_INLINE void avx2_float_rows(const uint32_t type, const int NV, avx2_product *g, int64_t n_rows) {
    const float *a = g->a;
    float *c = g->c;
    if (NV <= 2) {
        for (; n_rows >= 6; n_rows -= 6, a += 6 * g->lda, c += 6 * g->ldc) avx2_float_tile(type, 6, NV, g, a, c);
        for (; n_rows >= 4; n_rows -= 4, a += 4 * g->lda, c += 4 * g->ldc) avx2_float_tile(type, 4, NV, g, a, c);
    }
    if (NV <= 4)
        for (; n_rows >= 2; n_rows -= 2, a += 2 * g->lda, c += 2 * g->ldc) avx2_float_tile(type, 2, NV, g, a, c);
    for (; n_rows >= 1; n_rows -= 1, a += g->lda, c += g->ldc) avx2_float_tile(type, 1, NV, g, a, c);
}

/* All vectors. Few rows take more vectors at once, to hide the latency of the fma. With `whole`, B has whole pairs of
 * vectors and only C is cut (a panel); otherwise lanes >= 8 and the last vector reaches back over lanes that are done:
 * it computes them again but does not write them. */
AVX2_INLINE void avx2_float_product(const uint32_t type, avx2_product *g, int64_t n_rows, int64_t lanes,
                                    const int whole) {
    for (int64_t done = 0; done < lanes;) {
        const int64_t vectors = whole ? (lanes - done + 15) / 16 * 2 : (lanes - done) / 8;
        const int nv = vectors >= 8 && n_rows == 1 ? 8 : vectors >= 4 && n_rows <= 2 ? 4 : vectors >= 2 ? 2 : 1;
        const int64_t back = vectors ? 0 : 8 - (lanes - done);
        g->first = back;
        g->end = vectors ? lanes - done : 8;
        g->b -= back * avx2_bytes(type);
        g->c -= back;
        if (nv == 8)
            avx2_float_rows(type, 8, g, n_rows);
        else if (nv == 4)
            avx2_float_rows(type, 4, g, n_rows);
        else if (nv == 2)
            avx2_float_rows(type, 2, g, n_rows);
        else
            avx2_float_rows(type, 1, g, n_rows);
        g->b += nv == 1 ? 8 * avx2_bytes(type) : nv / 2 * g->pair_stride;
        g->c += nv * 8;
        done += nv * 8 - back;
    }
}

AVX2_INLINE void avx2_matmul_float(const uint32_t type, const void *panels, int64_t rows, int64_t cols,
                                   const kern_act *act, int64_t n, float *y, int64_t ldy) {
    const int64_t bytes = avx2_bytes(type);
    avx2_product g = {.a = act->x,
                      .lda = cols,
                      .n_i = cols,
                      .b = panels,
                      .pair_stride = KERN_PANEL * bytes * cols,
                      .i_stride = KERN_PANEL * bytes,
                      .c = y,
                      .ldc = ldy,
                      .asking = kern_asking_begin(NULL, 1),
                      .scale = 1.0f};
    avx2_float_product(type, &g, n, rows, 1);
}

AVX2_TARGET static void avx2_matmul_f32(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,
                                        float *y, int64_t ldy) {
    avx2_matmul_float(KERN_F32, panels, rows, cols, act, n, y, ldy);
}

AVX2_TARGET static void avx2_matmul_f16(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,
                                        float *y, int64_t ldy) {
    avx2_matmul_float(KERN_F16, panels, rows, cols, act, n, y, ldy);
}

AVX2_TARGET static void avx2_matmul_bf16(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,
                                         float *y, int64_t ldy) {
    avx2_matmul_float(KERN_BF16, panels, rows, cols, act, n, y, ldy);
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

AVX2_INLINE float avx2_load_one(const uint32_t type, const uint8_t *p) {
    return type == KERN_F32 ? kern_load_f32(p) : _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(kern_load_u16(p))));
}

/* qk and pv: fewer than 8 lanes go one by one. */
AVX2_INLINE void avx2_attend(const uint32_t type, avx2_product *g, int64_t n_rows, int64_t lanes) {
    g->pair_stride = 16 * avx2_bytes(type);
    if (lanes >= 8) {
        avx2_float_product(type, g, n_rows, lanes, 0);
        return;
    }
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t l = 0; l < lanes; l++) {
            const uint8_t *b = g->b + l * avx2_bytes(type);
            float acc = g->add ? g->c[r * g->ldc + l] : 0.0f;
            for (int64_t i = 0; i < g->n_i; i++)
                acc = fmaf(g->a[r * g->lda + i], avx2_load_one(type, b + i * g->i_stride), acc);
            g->c[r * g->ldc + l] = g->scale * acc;
        }
}

AVX2_INLINE void avx2_qk(const uint32_t type, const float *q, int64_t ldq, int64_t n_q, const void *k, int64_t ldk,
                         int64_t n_keys, int64_t head_dim, float scale, float *s, int64_t lds,
                         const kern_ahead *ahead) {
    avx2_product g = {.a = q,
                      .lda = ldq,
                      .n_i = head_dim,
                      .b = k,
                      .i_stride = ldk * avx2_bytes(type),
                      .c = s,
                      .ldc = lds,
                      .asking = kern_asking_begin(ahead, head_dim * n_q * ((n_keys + 7) / 8)),
                      .scale = scale};
    avx2_attend(type, &g, n_q, n_keys);
}

AVX2_INLINE void avx2_pv(const uint32_t type, const float *p, int64_t ldp, int64_t n_q, const void *v, int64_t n_keys,
                         int64_t head_dim, float *o, int64_t ldo, const kern_ahead *ahead) {
    avx2_product g = {.a = p,
                      .lda = ldp,
                      .n_i = n_keys,
                      .b = v,
                      .i_stride = head_dim * avx2_bytes(type),
                      .c = o,
                      .ldc = ldo,
                      .asking = kern_asking_begin(ahead, n_keys * n_q * ((head_dim + 7) / 8)),
                      .scale = 1.0f,
                      .add = 1};
    avx2_attend(type, &g, n_q, head_dim);
}

AVX2_TARGET static void avx2_qk_f16(const float *q, int64_t ldq, int64_t n_q, const void *k, int64_t ldk,
                                    int64_t n_keys, int64_t head_dim, float scale, float *s, int64_t lds,
                                    const kern_ahead *ahead) {
    avx2_qk(KERN_F16, q, ldq, n_q, k, ldk, n_keys, head_dim, scale, s, lds, ahead);
}

AVX2_TARGET static void avx2_qk_f32(const float *q, int64_t ldq, int64_t n_q, const void *k, int64_t ldk,
                                    int64_t n_keys, int64_t head_dim, float scale, float *s, int64_t lds,
                                    const kern_ahead *ahead) {
    avx2_qk(KERN_F32, q, ldq, n_q, k, ldk, n_keys, head_dim, scale, s, lds, ahead);
}

AVX2_TARGET static void avx2_pv_f16(const float *p, int64_t ldp, int64_t n_q, const void *v, int64_t n_keys,
                                    int64_t head_dim, float *o, int64_t ldo, const kern_ahead *ahead) {
    avx2_pv(KERN_F16, p, ldp, n_q, v, n_keys, head_dim, o, ldo, ahead);
}

AVX2_TARGET static void avx2_pv_f32(const float *p, int64_t ldp, int64_t n_q, const void *v, int64_t n_keys,
                                    int64_t head_dim, float *o, int64_t ldo, const kern_ahead *ahead) {
    avx2_pv(KERN_F32, p, ldp, n_q, v, n_keys, head_dim, o, ldo, ahead);
}

/* ---- between the products ---------------------------------------------------------------------------------------- */

AVX2_INLINE __m256i avx2_abs_bits(__m256 x) {
    return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}

AVX2_TARGET static void avx2_quantize_block(const float *x, int8_t *codes, float *scale, int32_t *sum) {
    const __m256 v0 = _mm256_loadu_ps(x), v1 = _mm256_loadu_ps(x + 8);
    const __m256 v2 = _mm256_loadu_ps(x + 16), v3 = _mm256_loadu_ps(x + 24);
    const __m256i b0 = _mm256_castps_si256(v0), b1 = _mm256_castps_si256(v1);
    const __m256i b2 = _mm256_castps_si256(v2), b3 = _mm256_castps_si256(v3);
    const __m256i m = _mm256_max_epi32(_mm256_max_epi32(b0, b1), _mm256_max_epi32(b2, b3));
    const __m256i u = _mm256_max_epu32(_mm256_max_epu32(b0, b1), _mm256_max_epu32(b2, b3));
    __m128i m4 = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    __m128i u4 = _mm_max_epu32(_mm256_castsi256_si128(u), _mm256_extracti128_si256(u, 1));
    m4 = _mm_max_epi32(m4, _mm_shuffle_epi32(m4, 0x4e));
    u4 = _mm_max_epu32(u4, _mm_shuffle_epi32(u4, 0x4e));
    m4 = _mm_max_epi32(m4, _mm_shuffle_epi32(m4, 0xb1));
    u4 = _mm_max_epu32(u4, _mm_shuffle_epi32(u4, 0xb1));
    float to_code;
    if (!kern_act_scale_bits((uint32_t)_mm_cvtsi128_si32(m4), (uint32_t)_mm_cvtsi128_si32(u4), &to_code, scale)) {
        _mm256_storeu_si256((void *)codes, _mm256_setzero_si256());
        *sum = 0;
        return;
    }
    const __m256 inv = _mm256_set1_ps(to_code);
    const __m256i i0 = _mm256_cvtps_epi32(_mm256_mul_ps(v0, inv)), i1 = _mm256_cvtps_epi32(_mm256_mul_ps(v1, inv));
    const __m256i i2 = _mm256_cvtps_epi32(_mm256_mul_ps(v2, inv)), i3 = _mm256_cvtps_epi32(_mm256_mul_ps(v3, inv));
    /* The packs work within 128-bit halves; the permutation puts the groups of 4 in order. */
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(i0, i1), _mm256_packs_epi32(i2, i3));
    _mm256_storeu_si256((void *)codes, _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));

    const __m256i s8 = _mm256_add_epi32(_mm256_add_epi32(i0, i1), _mm256_add_epi32(i2, i3));
    __m128i s4 = _mm_add_epi32(_mm256_castsi256_si128(s8), _mm256_extracti128_si256(s8, 1));
    s4 = _mm_add_epi32(s4, _mm_shuffle_epi32(s4, 0x4e));
    s4 = _mm_add_epi32(s4, _mm_shuffle_epi32(s4, 0xb1));
    *sum = _mm_cvtsi128_si32(s4);
}

AVX2_TARGET static void avx2_quantize(const float *x, int64_t n, int8_t *codes, float *scale, int32_t *sum) {
    for (int64_t b = 0; b < n / KERN_BLOCK; b++)
        avx2_quantize_block(x + b * KERN_BLOCK, codes + b * KERN_BLOCK, scale + b, sum + b);
}

AVX2_TARGET static void avx2_rms_norm(const float *x, const float *w, int64_t n, float eps, float *y) {
    __m256 partial[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int64_t i = 0; i < n; i += 16) KERN_UNROLL
    for (int h = 0; h < 2; h++) {
        const __m256 v = avx2_load_n(x + i + 8 * h, n - i - 8 * h); /* missing lanes add 0 * 0: nothing */
        partial[h] = _mm256_fmadd_ps(v, v, partial[h]);
    }
    const __m256 inv = _mm256_set1_ps(1.0f / sqrtf(avx2_fold(partial[0], partial[1]) / (float)n + eps));
    for (int64_t i = 0; i < n; i += 8) {
        const __m256 v = _mm256_mul_ps(avx2_load_n(x + i, n - i), inv);
        avx2_store_n(y + i, n - i, _mm256_mul_ps(v, avx2_load_n(w + i, n - i)));
    }
}

AVX2_TARGET static void avx2_layer_norm(const float *x, const float *w, const float *b, int64_t n, float eps,
                                        float *y) {
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    __m256 squares[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int64_t i = 0; i < n; i += 16) KERN_UNROLL
    for (int h = 0; h < 2; h++) /* a lane that is not there adds +0 to a sum that is never -0: nothing */
        sum[h] = _mm256_add_ps(sum[h], avx2_load_n(x + i + 8 * h, n - i - 8 * h));
    const __m256 mean = _mm256_set1_ps(avx2_fold(sum[0], sum[1]) / (float)n);
    for (int64_t i = 0; i < n; i += 16) KERN_UNROLL
    for (int h = 0; h < 2; h++) {
        const int64_t left = n - i - 8 * h;
        __m256 c = _mm256_sub_ps(avx2_load_n(x + i + 8 * h, left), mean);
        if (left < 8) c = left <= 0 ? _mm256_setzero_ps() : _mm256_and_ps(c, _mm256_castsi256_ps(avx2_mask(0, left)));
        squares[h] = _mm256_fmadd_ps(c, c, squares[h]);
    }
    const __m256 inv = _mm256_set1_ps(1.0f / sqrtf(avx2_fold(squares[0], squares[1]) / (float)n + eps));
    for (int64_t i = 0; i < n; i += 8) {
        const __m256 c = _mm256_mul_ps(_mm256_sub_ps(avx2_load_n(x + i, n - i), mean), inv);
        avx2_store_n(y + i, n - i, _mm256_fmadd_ps(c, avx2_load_n(w + i, n - i), avx2_load_n(b + i, n - i)));
    }
}

AVX2_TARGET static void avx2_add(float *x, const float *y, int64_t n) {
    for (int64_t i = 0; i < n; i += 8)
        avx2_store_n(x + i, n - i, _mm256_add_ps(avx2_load_n(x + i, n - i), avx2_load_n(y + i, n - i)));
}

AVX2_TARGET static void avx2_silu_mul(float *gate, const float *up, int64_t n) {
    const __m256 one = _mm256_set1_ps(1.0f), minus = _mm256_set1_ps(-0.0f);
    for (int64_t i = 0; i < n; i += 8) {
        const __m256 g = avx2_load_n(gate + i, n - i);
        const __m256 silu = _mm256_div_ps(g, _mm256_add_ps(one, avx2_exp(_mm256_xor_ps(g, minus))));
        avx2_store_n(gate + i, n - i, _mm256_mul_ps(silu, avx2_load_n(up + i, n - i)));
    }
}

AVX2_TARGET static void avx2_gelu_mul(float *gate, const float *up, int64_t n) {
    const __m256 one = _mm256_set1_ps(1.0f), minus = _mm256_set1_ps(-0.0f);
    for (int64_t i = 0; i < n; i += 8) {
        const __m256 g = avx2_load_n(gate + i, n - i);
        const __m256 factor =
            _mm256_fmadd_ps(_mm256_mul_ps(g, g), _mm256_set1_ps(KERN_GELU_C3), _mm256_set1_ps(KERN_GELU_C1));
        const __m256 e = avx2_exp(_mm256_xor_ps(_mm256_mul_ps(g, factor), minus));
        const __m256 gelu = _mm256_div_ps(g, _mm256_add_ps(one, e));
        avx2_store_n(gate + i, n - i, up ? _mm256_mul_ps(gelu, avx2_load_n(up + i, n - i)) : gelu);
    }
}

AVX2_TARGET static void avx2_softcap(float *x, int64_t n, float cap) {
    for (int64_t i = 0; i < n; i += 8) avx2_store_n(x + i, n - i, avx2_capped(avx2_load_n(x + i, n - i), cap));
}

/* Four pairs (a, b) side by side, (c, s) likewise: even lanes a*c - b*s, odd lanes a*s + b*c. */
AVX2_TARGET static void avx2_rope_adjacent(float *x, int64_t n_heads, int64_t head_dim, int64_t n_rot,
                                           const float *cs) {
    const int64_t n = n_rot / 2 * 2;
    for (int64_t h = 0; h < n_heads; h++, x += head_dim)
        for (int64_t i = 0; i < n; i += 8) {
            const __m256 v = avx2_load_n(x + i, n - i), turn = avx2_load_n(cs + i, n - i);
            const __m256 a = _mm256_moveldup_ps(v), b = _mm256_movehdup_ps(v);
            const __m256 other = _mm256_mul_ps(b, _mm256_permute_ps(turn, 0xb1)); /* b*s, b*c */
            avx2_store_n(x + i, n - i, _mm256_fmaddsub_ps(a, turn, other));
        }
}

/* Every second of 16 values: the even ones, or with odd the others. */
AVX2_INLINE __m256 avx2_every_second(__m256 low, __m256 high, const int odd) {
    const __m256 v = odd ? _mm256_shuffle_ps(low, high, 0xdd) : _mm256_shuffle_ps(low, high, 0x88);
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xd8));
}

AVX2_TARGET static void avx2_rope_split(float *x, int64_t n_heads, int64_t head_dim, int64_t n_rot, const float *cs) {
    const int64_t half = n_rot / 2;
    for (int64_t h = 0; h < n_heads; h++, x += head_dim)
        for (int64_t i = 0; i < half; i += 8) {
            const int64_t left = half - i;
            const __m256 low = avx2_load_n(cs + 2 * i, 2 * left), high = avx2_load_n(cs + 2 * i + 8, 2 * left - 8);
            const __m256 c = avx2_every_second(low, high, 0), s = avx2_every_second(low, high, 1);
            const __m256 a = avx2_load_n(x + i, left), b = avx2_load_n(x + half + i, left);
            avx2_store_n(x + i, left, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
            avx2_store_n(x + half + i, left, _mm256_fmadd_ps(a, s, _mm256_mul_ps(b, c)));
        }
}

AVX2_TARGET static void avx2_scale(const float *x, float a, int64_t n, float *y) {
    for (int64_t i = 0; i < n; i += 8)
        avx2_store_n(y + i, n - i, _mm256_mul_ps(avx2_load_n(x + i, n - i), _mm256_set1_ps(a)));
}

AVX2_TARGET static void avx2_to_f16(const float *x, int64_t n, uint16_t *y) {
    for (int64_t i = 0; i < n; i += 8) {
        const __m128i h = _mm256_cvtps_ph(avx2_load_n(x + i, n - i), _MM_FROUND_TO_NEAREST_INT);
        if (n - i >= 8)
            _mm_storeu_si128((void *)(y + i), h);
        else
            memcpy(y + i, &h, (size_t)(n - i) * 2);
    }
}

AVX2_TARGET static void avx2_from_f16(const uint16_t *x, int64_t n, float *y) {
    for (int64_t i = 0; i < n; i += 8) {
        __m128i h = _mm_setzero_si128();
        memcpy(&h, x + i, n - i >= 8 ? 16 : (size_t)(n - i) * 2);
        avx2_store_n(y + i, n - i, _mm256_cvtph_ps(h));
    }
}

void kern_table_avx2(kern_table *table) {
    table->quantize = avx2_quantize;
    table->matmul[KERN_F32] = avx2_matmul_f32;
    table->matmul[KERN_F16] = avx2_matmul_f16;
    table->matmul[KERN_BF16] = avx2_matmul_bf16;
    table->matmul[KERN_Q4_0] = avx2_matmul_q4_0;
    table->matmul[KERN_Q8_0] = avx2_matmul_q8_0;
    kern_table_quants256(table);
    table->panel_group = AVX2_STREAMS;
    kern_table_pack_avx2(table);
    table->rms_norm = avx2_rms_norm;
    table->layer_norm = avx2_layer_norm;
    table->add = avx2_add;
    table->silu_mul = avx2_silu_mul;
    table->gelu_mul = avx2_gelu_mul;
    table->softcap = avx2_softcap;
    table->rope_adjacent = avx2_rope_adjacent;
    table->rope_split = avx2_rope_split;
    table->qk[KERN_KV_F16] = avx2_qk_f16;
    table->qk[KERN_KV_F32] = avx2_qk_f32;
    table->pv[KERN_KV_F16] = avx2_pv_f16;
    table->pv[KERN_KV_F32] = avx2_pv_f32;
    table->scale = avx2_scale;
    table->to_f16 = avx2_to_f16;
    table->from_f16 = avx2_from_f16;
    kern_table_avx2_attention(table);
}

#endif
