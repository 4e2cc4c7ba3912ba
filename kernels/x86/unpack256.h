/* unpack256.h: the unpackers of unpack.c, to be inlined: parts of panels into codes of one byte and float32 scales. See
 * unpack.h, and kernels.h for the panels. */
#ifndef KERN_X86_UNPACK256_H
#define KERN_X86_UNPACK256_H

#include "streams.h"
#include "unpack.h"

#include <immintrin.h>

#define UNPACK_TARGET __attribute__((target("avx2,fma,f16c")))
#define UNPACK_INLINE UNPACK_TARGET KERN_INLINE

enum { UNPACK_AHEAD = 16384 }; /* bytes the prefetch runs ahead */

/* ---- codes ------------------------------------------------------------------------------------------------------- */

UNPACK_INLINE __m256i unpack_load(const uint8_t *p) {
    return _mm256_loadu_si256((const void *)p);
}

/* Register j, its half h, of a plane of `bits` bits, moved up by `up`. */
UNPACK_INLINE __m256i unpack_plane(const int bits, const int up, const int j, const int h, const uint8_t *plane) {
    const __m256i mask = _mm256_set1_epi8((char)(((1 << bits) - 1) << up));
    const __m256i v = unpack_load(plane + j % bits * 64 + 32 * h);
    const int down = bits * (j / bits) - up;
    if (bits == 8) return v;
    return _mm256_and_si256(down >= 0 ? _mm256_srli_epi16(v, down) : _mm256_slli_epi16(v, -down), mask);
}

/* The types whose codes are planes of bits, as X(name, low, high, values, groups, side), see unpack_type. */
/* clang-format off */
#define UNPACK_PLANE_TYPES(X)                                                                                          \
    X(Q4_0, 4, 0, NULL, 1, 2) X(Q8_0, 8, 0, NULL, 1, 2) UNPACK_OTHER_PLANE_TYPES(X)
#define UNPACK_OTHER_PLANE_TYPES(X)                                                                                    \
    X(Q4_1, 4, 0, NULL, 1, 4) X(Q5_0, 4, 1, NULL, 1, 2) X(Q5_1, 4, 1, NULL, 1, 4) X(Q2_K, 2, 0, NULL, 8, 20)           \
    X(Q3_K, 2, 1, NULL, 8, 14) X(Q4_K, 4, 0, NULL, 8, 16) X(Q5_K, 4, 1, NULL, 8, 16) X(Q6_K, 4, 2, NULL, 8, 18)        \
    X(IQ4_NL, 4, 0, kern_iq4_unsigned, 1, 2) X(IQ4_XS, 4, 0, kern_iq4_unsigned, 8, 8) X(TQ2_0, 2, 0, NULL, 8, 2)       \
    X(MXFP4, 4, 0, kern_fp4_unsigned, 1, 1) X(NVFP4, 4, 0, kern_fp4_unsigned, 2, 4)
/* Those whose codes stand in books. */
#define UNPACK_BOOK_TYPES(X) X(TQ1_0) X(IQ1_S) X(IQ1_M) X(IQ2_XXS) X(IQ2_XS) X(IQ2_S) X(IQ3_XXS) X(IQ3_S)
/* clang-format on */

UNPACK_INLINE __m256i unpack_table(const unpack_type u, const int flip) {
    if (!u.values) return _mm256_setzero_si256();
    const __m256i values = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)u.values));
    return flip ? _mm256_xor_si256(values, _mm256_set1_epi8(-128)) : values;
}

/* Register j of a group, its half h. flip: codes with an offset of 128 lose it, and are signed. */
UNPACK_INLINE __m256i unpack_code(const unpack_type u, const int flip, __m256i table, const int j, const int h,
                                  const uint8_t *codes) {
    __m256i v = unpack_plane(u.low, 0, j, h, codes);
    if (u.high) v = _mm256_or_si256(v, unpack_plane(u.high, u.low, j, h, codes + 64 * u.low));
    if (u.values) return _mm256_shuffle_epi8(table, v);
    return flip ? _mm256_xor_si256(v, _mm256_set1_epi8(-128)) : v;
}

/* Fetches what is needed a little later. */
UNPACK_INLINE void unpack_prefetch(const unpack_type u, const uint8_t *codes) {
    KERN_UNROLL
    for (int i = 0; i < 64 * (u.low + u.high); i += 64)
        _mm_prefetch((const char *)codes + UNPACK_AHEAD + i, _MM_HINT_T1);
}

enum { UNPACK_STREAMS = 4, UNPACK_NEAR = 2048 /* bytes that requests run ahead */ };

/* Asks for codes a little ahead of group g of panels side by side, and for a line of the scales that are unpacked next.
 */
UNPACK_INLINE void unpack_fetch_streams(const unpack_type u, const kern_streams *w, int64_t g) {
    const int64_t bytes = 64 * (u.low + u.high), line = g % QUANT_GROUPS;
    const int64_t near = g + UNPACK_NEAR / bytes, block = g - line + QUANT_GROUPS;
    const int here = near < w->n_blocks, side_here = block < w->n_blocks;
    const uint8_t *codes = here ? w->first : w->next, *scales = side_here ? w->first : w->next;
    if (codes) {
        codes += (here ? near : near - w->n_blocks) * bytes;
        KERN_UNROLL
        for (int p = 0; p < UNPACK_STREAMS; p++, codes += here ? w->apart : w->next_apart) {
            KERN_UNROLL
            for (int i = 0; i < 64 * (u.low + u.high); i += 64) _mm_prefetch((const char *)codes + i, _MM_HINT_T0);
        }
    }
    if (scales && line * 64 < QUANT_GROUPS / u.groups * u.side * KERN_PANEL) {
        scales += w->n_blocks * bytes + (side_here ? block / u.groups * u.side * KERN_PANEL : 0) + line * 64;
        KERN_UNROLL
        for (int p = 0; p < UNPACK_STREAMS; p++, scales += side_here ? w->apart : w->next_apart)
            _mm_prefetch((const char *)scales, _MM_HINT_T0);
    }
}

/* ---- scales ------------------------------------------------------------------------------------------------------
 * 16 rows are two registers of floats. All products are exact (quants/formats.c). */

typedef struct unpack_pair {
    __m256 low, high;
} unpack_pair;

UNPACK_INLINE unpack_pair unpack_f16(const uint8_t *p) {
    return (unpack_pair){_mm256_cvtph_ps(_mm_loadu_si128((const void *)p)),
                         _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 16)))};
}

/* 16 signed bytes as floats, times a */
UNPACK_INLINE unpack_pair unpack_times(unpack_pair a, __m128i bytes) {
    const __m256 low = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    const __m256 high = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)));
    return (unpack_pair){_mm256_mul_ps(a.low, low), _mm256_mul_ps(a.high, high)};
}

UNPACK_INLINE unpack_pair unpack_minus(unpack_pair a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (unpack_pair){_mm256_xor_ps(a.low, sign), _mm256_xor_ps(a.high, sign)};
}

UNPACK_INLINE void unpack_store(float *out, unpack_pair a) {
    _mm256_store_ps(out, a.low);
    _mm256_store_ps(out + 8, a.high);
}

UNPACK_INLINE __m128i unpack_row(const uint8_t *rows, int i) {
    return _mm_loadu_si128((const void *)(rows + KERN_PANEL * i));
}

/* Bits shift .. shift + bits - 1 of 16 bytes, moved up. */
UNPACK_INLINE __m128i unpack_bits(__m128i v, int shift, int bits, int up) {
    const __m128i mask = _mm_set1_epi8((char)((1 << bits) - 1));
    v = _mm_and_si128(_mm_srl_epi16(v, _mm_cvtsi32_si128(shift)), mask);
    return _mm_sll_epi16(v, _mm_cvtsi32_si128(up));
}

/* Group g of a part; rows: what a block of the type has besides the codes, for 16 rows; i: which group of the block. */
UNPACK_INLINE void unpack_scale(const uint32_t type, const uint8_t *rows, int i, int64_t g, quant_part *out) {
    float *scale = out->scale[g][0], *scale1 = out->scale[g][1], *min = out->min[g][0], *min1 = out->min[g][1];
    switch (type) {
    case KERN_Q4_1:
    case KERN_Q5_1: unpack_store(min, unpack_f16(rows + 32)); /* fall through */
    case KERN_Q4_0:
    case KERN_Q5_0:
    case KERN_Q8_0:
    case KERN_IQ4_NL:
    case KERN_TQ2_0: unpack_store(scale, unpack_f16(rows)); break;
    case KERN_Q3_K:
        for (int h = 0; h < 2; h++) {
            const int k = 2 * i + h;
            const __m128i low = unpack_bits(unpack_row(rows + 32, k % 8), 4 * (k / 8), 4, 0);
            const __m128i high = unpack_bits(unpack_row(rows + 32, 8 + k % 4), 2 * (k / 4), 2, 4);
            const __m128i six = _mm_sub_epi8(_mm_or_si128(low, high), _mm_set1_epi8(32));
            unpack_store(out->scale[g][h], unpack_times(unpack_f16(rows), six));
        }
        break;
    case KERN_Q2_K: {
        const __m128i a = unpack_row(rows + 64, 2 * i), b = unpack_row(rows + 64, 2 * i + 1);
        const unpack_pair d = unpack_f16(rows), dmin = unpack_f16(rows + 32);
        unpack_store(scale, unpack_times(d, unpack_bits(a, 0, 4, 0)));
        unpack_store(scale1, unpack_times(d, unpack_bits(b, 0, 4, 0)));
        unpack_store(min, unpack_minus(unpack_times(dmin, unpack_bits(a, 4, 4, 0))));
        unpack_store(min1, unpack_minus(unpack_times(dmin, unpack_bits(b, 4, 4, 0))));
        break;
    }
    case KERN_MXFP4:
        for (int h = 0; h < 2; h++) { /* 2^(e - 128), of which the smallest two are subnormal */
            const __m256i e = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(rows + 8 * h)));
            const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
            const __m256i tiny = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
            const __m256i is_tiny = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
            _mm256_store_si256((void *)(scale + 8 * h), _mm256_blendv_epi8(normal, tiny, is_tiny));
        }
        break;
    case KERN_NVFP4:
        for (int k = 0; k < 4; k++) {
            const uint8_t *p = rows + KERN_PANEL * (2 * i + k / 2) + 8 * (k % 2);
            const __m256i e4m3 = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p));
            const __m256i low = _mm256_and_si256(e4m3, _mm256_set1_epi32(0x7f));
            const __m256i normal = _mm256_add_epi32(_mm256_slli_epi32(low, 20), _mm256_set1_epi32(119 << 23));
            const __m256 tiny = _mm256_mul_ps(_mm256_cvtepi32_ps(low), _mm256_set1_ps(0x1p-10f));
            const __m256i is_tiny = _mm256_cmpgt_epi32(_mm256_set1_epi32(8), low);
            const __m256i none = _mm256_cmpeq_epi32(e4m3, _mm256_set1_epi32(0x7f));
            const __m256i v = _mm256_blendv_epi8(normal, _mm256_castps_si256(tiny), is_tiny);
            _mm256_store_si256((void *)(out->scale[g][k / 2] + 8 * (k % 2)), _mm256_andnot_si256(none, v));
        }
        break;
    }
}

/* 8 unsigned bytes as floats. */
UNPACK_INLINE __m256 unpack_bytes(const uint8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p)));
}

/* Two rows of 16 bytes: bits shift .. shift + bits - 1, moved up. */
UNPACK_INLINE __m256i unpack_two(__m256i v, const int shift, const int bits, const int up) {
    const __m256i mask = _mm256_set1_epi8((char)(((1 << bits) - 1) << up));
    const int down = shift - up;
    return _mm256_and_si256(down >= 0 ? _mm256_srli_epi16(v, down) : _mm256_slli_epi16(v, -down), mask);
}

/* Eight groups of Q4_K or Q5_K, g and following. */
UNPACK_INLINE void unpack_scales_q4_k(const uint8_t *rows, int64_t g, quant_part *out) {
    _Alignas(32) uint8_t six[2][8][KERN_PANEL]; /* scales, minima */
    const unpack_pair d = unpack_f16(rows), m = unpack_minus(unpack_f16(rows + 32));
    KERN_UNROLL
    for (int i = 0; i < 2; i++) {
        const __m256i x = unpack_load(rows + 64 + 32 * i), y = unpack_load(rows + 128 + 32 * i);
        const __m256i z = unpack_load(rows + 192 + 32 * i);
        _mm256_store_si256((void *)six[0][2 * i], unpack_two(x, 0, 6, 0));
        _mm256_store_si256((void *)six[1][2 * i], unpack_two(y, 0, 6, 0));
        _mm256_store_si256((void *)six[0][4 + 2 * i], _mm256_or_si256(unpack_two(z, 0, 4, 0), unpack_two(x, 6, 2, 4)));
        _mm256_store_si256((void *)six[1][4 + 2 * i], _mm256_or_si256(unpack_two(z, 4, 4, 0), unpack_two(y, 6, 2, 4)));
    }
    KERN_UNROLL
    for (int i = 0; i < 8; i++) {
        _mm256_store_ps(out->scale[g + i][0], _mm256_mul_ps(d.low, unpack_bytes(six[0][i])));
        _mm256_store_ps(out->scale[g + i][0] + 8, _mm256_mul_ps(d.high, unpack_bytes(six[0][i] + 8)));
        _mm256_store_ps(out->min[g + i][0], _mm256_mul_ps(m.low, unpack_bytes(six[1][i])));
        _mm256_store_ps(out->min[g + i][0] + 8, _mm256_mul_ps(m.high, unpack_bytes(six[1][i] + 8)));
    }
}

/* Eight groups of Q6_K. */
UNPACK_INLINE void unpack_scales_q6_k(const uint8_t *rows, int64_t g, quant_part *out) {
    const unpack_pair d = unpack_f16(rows);
    KERN_UNROLL
    for (int i = 0; i < 16; i++) unpack_store(out->scale[g + i / 2][i % 2], unpack_times(d, unpack_row(rows + 32, i)));
}

/* Eight groups of IQ4_XS: six bits, less 32. */
UNPACK_INLINE void unpack_scales_iq4_xs(const uint8_t *rows, int64_t g, quant_part *out) {
    const unpack_pair d = unpack_f16(rows);
    const __m256 less = _mm256_set1_ps(-32.0f);
    _Alignas(32) uint8_t six[8][KERN_PANEL];     /* 0, 2, 4, 6, 1, 3, 5, 7 */
    const __m256i high = unpack_load(rows + 32); /* of groups 0 .. 3, of 4 .. 7: two bits each */
    KERN_UNROLL
    for (int i = 0; i < 2; i++) {
        const __m256i low = unpack_load(rows + 64 + 32 * i); /* of groups 4i and 4i + 1, of 4i + 2 and 4i + 3 */
        const __m256i h = i ? _mm256_permute2x128_si256(high, high, 0x11) : _mm256_permute2x128_si256(high, high, 0x00);
        const __m256i two = _mm256_blend_epi32(h, _mm256_srli_epi16(h, 4), 0xf0);
        _mm256_store_si256((void *)six[2 * i], _mm256_or_si256(unpack_two(low, 0, 4, 0), unpack_two(two, 0, 2, 4)));
        _mm256_store_si256((void *)six[4 + 2 * i], _mm256_or_si256(unpack_two(low, 4, 4, 0), unpack_two(two, 2, 2, 4)));
    }
    KERN_UNROLL
    for (int i = 0; i < 8; i++) {
        const uint8_t *row = six[i / 2 + i % 2 * 4];
        _mm256_store_ps(out->scale[g + i][0], _mm256_mul_ps(d.low, _mm256_add_ps(unpack_bytes(row), less)));
        _mm256_store_ps(out->scale[g + i][0] + 8, _mm256_mul_ps(d.high, _mm256_add_ps(unpack_bytes(row + 8), less)));
    }
}

/* The scales of n groups from `first` on. */
UNPACK_INLINE void unpack_scales(const unpack_type u, const uint8_t *panel, int64_t row_groups, int64_t first,
                                 int64_t n, quant_part *out) {
    const uint8_t *rows = panel + row_groups * 64 * (u.low + u.high) + first / u.groups * u.side * KERN_PANEL;
    for (int64_t g = 0; g < n; g += u.groups, rows += u.side * KERN_PANEL) {
        KERN_UNROLL
        for (int i = 0; i < u.side * KERN_PANEL; i += 64)
            _mm_prefetch((const char *)rows + UNPACK_AHEAD + i, _MM_HINT_T1);
        switch (u.type) {
        case KERN_Q4_K:
        case KERN_Q5_K: unpack_scales_q4_k(rows, g, out); break;
        case KERN_Q6_K: unpack_scales_q6_k(rows, g, out); break;
        case KERN_IQ4_XS: unpack_scales_iq4_xs(rows, g, out); break;
        default:
            KERN_UNROLL
            for (int i = 0; i < u.groups; i++) unpack_scale(u.type, rows, i, g + i, out);
        }
    }
}

/* A quant_unpack. */
UNPACK_INLINE void unpack_part(const unpack_type u, const int flip, const uint8_t *panel, int64_t row_groups,
                               int64_t first, int64_t n, quant_part *out) {
    const int64_t group_bytes = 64 * (u.low + u.high);
    const uint8_t *codes = panel + first * group_bytes;
    const __m256i table = unpack_table(u, flip);
    unpack_scales(u, panel, row_groups, first, n, out);
    for (int64_t g = 0; g < n; g++, codes += group_bytes) {
        unpack_prefetch(u, codes);
        KERN_UNROLL
        for (int i = 0; i < 16; i++)
            _mm256_store_si256((void *)(out->code[g][i / 2] + 32 * (i % 2)),
                               unpack_code(u, flip, table, i / 2, i % 2, codes));
    }
}

#endif
