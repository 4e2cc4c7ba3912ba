/* unpack512.h: the unpackers of unpack.c in registers of 64 bytes, for types whose codes are planes. */
#ifndef KERN_X86_UNPACK512_H
#define KERN_X86_UNPACK512_H

#include "avx512.h"
#include "unpack256.h"

/* Register j of a plane of `bits` bits, moved up by `up`; other bits of a byte are not yet masked. */
AVX512_INLINE __m512i unpack512_plane(const int bits, const int up, const int j, const uint8_t *plane) {
    const __m512i v = _mm512_loadu_si512(plane + j % bits * 64);
    const int down = bits * (j / bits) - up;
    if (down == 0) return v;
    return down > 0 ? _mm512_srli_epi16(v, (unsigned)down) : _mm512_slli_epi16(v, (unsigned)-down);
}

AVX512_INLINE __m512i unpack512_table(const unpack_type u) {
    return u.values ? _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)u.values)) : _mm512_setzero_si512();
}

/* One group of codes. */
AVX512_INLINE void unpack512_group(const unpack_type u, __m512i table, const uint8_t *codes, __m512i out[8]) {
    const __m512i low_mask = _mm512_set1_epi8((char)((1 << u.low) - 1));
    const __m512i high_mask = _mm512_set1_epi8((char)(((1 << u.high) - 1) << u.low));
    KERN_UNROLL
    for (int j = 0; j < 8; j++) {
        __m512i v = _mm512_and_si512(unpack512_plane(u.low, 0, j, codes), low_mask);
        if (u.high) /* v | (plane & mask) */
            v = _mm512_ternarylogic_epi32(v, unpack512_plane(u.high, u.low, j, codes + 64 * u.low), high_mask, 0xf8);
        out[j] = u.values ? _mm512_shuffle_epi8(table, v) : v;
    }
}

AVX512_INLINE __m512 unpack512_f16(const uint8_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}

/* 16 signed bytes as floats */
AVX512_INLINE __m512 unpack512_bytes(__m128i bytes) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}

/* Four rows of 16 bytes: bits shift .. shift + bits - 1, moved up. */
AVX512_INLINE __m512i unpack512_bits(__m512i v, const int shift, const int bits, const int up) {
    const __m512i mask = _mm512_set1_epi8((char)(((1 << bits) - 1) << up));
    const int down = shift - up;
    return _mm512_and_si512(down >= 0 ? _mm512_srli_epi16(v, (unsigned)down) : _mm512_slli_epi16(v, (unsigned)-down),
                            mask);
}

/* ---- scales of a block of 8 groups ------------------------------------------------------------------------------- */

AVX512_INLINE void unpack512_scales_q4_k(const uint8_t *rows, int64_t g, quant_part *out) {
    const __m512 d = unpack512_f16(rows), dmin = unpack512_f16(rows + 32), sign = _mm512_set1_ps(-0.0f);
    const __m512i x = _mm512_loadu_si512(rows + 64), y = _mm512_loadu_si512(rows + 128);
    const __m512i z = _mm512_loadu_si512(rows + 192);
    const __m512i a[2] = {unpack512_bits(x, 0, 6, 0),
                          _mm512_or_si512(unpack512_bits(z, 0, 4, 0), unpack512_bits(x, 6, 2, 4))};
    const __m512i b[2] = {unpack512_bits(y, 0, 6, 0),
                          _mm512_or_si512(unpack512_bits(z, 4, 4, 0), unpack512_bits(y, 6, 2, 4))};
#define UNPACK512_FOUR(HALF, I)                                                                                        \
    _mm512_store_ps(out->scale[g + 4 * (HALF) + (I)][0],                                                               \
                    _mm512_mul_ps(d, unpack512_bytes(_mm512_extracti32x4_epi32(a[HALF], I))));                         \
    _mm512_store_ps(out->min[g + 4 * (HALF) + (I)][0],                                                                 \
                    _mm512_xor_ps(_mm512_mul_ps(dmin, unpack512_bytes(_mm512_extracti32x4_epi32(b[HALF], I))), sign))
    UNPACK512_FOUR(0, 0);
    UNPACK512_FOUR(0, 1);
    UNPACK512_FOUR(0, 2);
    UNPACK512_FOUR(0, 3);
    UNPACK512_FOUR(1, 0);
    UNPACK512_FOUR(1, 1);
    UNPACK512_FOUR(1, 2);
    UNPACK512_FOUR(1, 3);
#undef UNPACK512_FOUR
}

AVX512_INLINE void unpack512_scales_q6_k(const uint8_t *rows, int64_t g, quant_part *out) {
    const __m512 d = unpack512_f16(rows);
    KERN_UNROLL
    for (int i = 0; i < 16; i++) {
        const __m128i s = _mm_loadu_si128((const void *)(rows + 32 + KERN_PANEL * i));
        _mm512_store_ps(out->scale[g + i / 2][i % 2], _mm512_mul_ps(d, unpack512_bytes(s)));
    }
}

AVX512_INLINE void unpack512_scales_iq4_xs(const uint8_t *rows, int64_t g, quant_part *out) {
    const __m512 d = unpack512_f16(rows), offset = _mm512_set1_ps(-32.0f);
    KERN_UNROLL
    for (int i = 0; i < 8; i++) {
        const __m128i l = _mm_loadu_si128((const void *)(rows + 64 + KERN_PANEL * (i / 2)));
        const __m128i h = _mm_loadu_si128((const void *)(rows + 32 + KERN_PANEL * (i / 4)));
        const __m128i low = _mm_and_si128(_mm_srli_epi16(l, 4 * (i % 2)), _mm_set1_epi8(15));
        const __m128i high = _mm_and_si128(_mm_srli_epi16(h, 2 * (i % 4)), _mm_set1_epi8(3));
        const __m128i six = _mm_or_si128(low, _mm_slli_epi16(high, 4));
        _mm512_store_ps(out->scale[g + i][0], _mm512_mul_ps(d, _mm512_add_ps(unpack512_bytes(six), offset)));
    }
}

/* ---- parts of panels --------------------------------------------------------------------------------------------- */

/* The scales of n groups from `first` on. */
AVX512_INLINE void unpack512_scales(const unpack_type u, const uint8_t *panel, int64_t row_groups, int64_t first,
                                    int64_t n, quant_part *out) {
    const uint8_t *rows = panel + row_groups * 64 * (u.low + u.high) + first / u.groups * u.side * KERN_PANEL;
    for (int64_t g = 0; g < n; g += u.groups, rows += u.side * KERN_PANEL) {
        switch (u.type) {
        case KERN_Q4_K:
        case KERN_Q5_K: unpack512_scales_q4_k(rows, g, out); break;
        case KERN_Q6_K: unpack512_scales_q6_k(rows, g, out); break;
        case KERN_IQ4_XS: unpack512_scales_iq4_xs(rows, g, out); break;
        case KERN_Q4_1:
        case KERN_Q5_1: _mm512_store_ps(out->min[g][0], unpack512_f16(rows + 32)); /* fall through */
        case KERN_Q4_0:
        case KERN_Q5_0:
        case KERN_Q8_0:
        case KERN_IQ4_NL: _mm512_store_ps(out->scale[g][0], unpack512_f16(rows)); break;
        default:
            KERN_UNROLL
            for (int i = 0; i < u.groups; i++) unpack_scale(u.type, rows, i, g + i, out);
        }
    }
}

/* A quant_unpack. */
AVX512_INLINE void unpack512_part(const unpack_type u, const uint8_t *panel, int64_t row_groups, int64_t first,
                                  int64_t n, quant_part *out) {
    const int64_t group_bytes = 64 * (u.low + u.high);
    const uint8_t *codes = panel + first * group_bytes;
    const __m512i table = unpack512_table(u);
    unpack512_scales(u, panel, row_groups, first, n, out);
    for (int64_t g = 0; g < n; g++, codes += group_bytes) {
        __m512i code[8];
        unpack512_group(u, table, codes, code);
        KERN_UNROLL
        for (int j = 0; j < 8; j++) _mm512_store_si512(out->code[g][j], code[j]);
    }
}

#endif
