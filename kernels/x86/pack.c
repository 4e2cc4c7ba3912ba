/* pack.c (x86): rows into panels with AVX2. What a panel is stands in kernels.h, how the file keeps codes in quants.h.
 *
 * A panel's codes are, for every group of 32 inputs, a few registers of 16 words of 4 bytes, a word for each row. So
 * each row's group is first brought into the order of its words (for Q4_0 and its like that is what the file has
 * already), and then 16 rows x n words are turned into n words x 16 rows. Every path writes the bytes that kern_pack()
 * writes. */
#include "../internal.h"

#if defined(KERN_X86)

#include "../quants/quants.h"

#include <immintrin.h>

#define PACK256_TARGET __attribute__((target("avx2")))
#define PACK256_INLINE PACK256_TARGET KERN_INLINE

enum { PACK256_WORDS = QUANT_MAX_BLOCK / 4 }; /* most words of a row's block */

/* ---- turning ----------------------------------------------------------------------------------------------------- */

/* 4 words of 8 rows that lie `stride` bytes apart, as 4 registers of 8 words. */
PACK256_INLINE void pack256_turn_8x4(const uint8_t *from, size_t stride, __m256i out[4]) {
    __m256i row[4]; /* rows r and r + 4 */
    KERN_UNROLL
    for (int r = 0; r < 4; r++)
        row[r] =
            _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const void *)(from + (size_t)r * stride))),
                                    _mm_loadu_si128((const void *)(from + ((size_t)r + 4) * stride)), 1);
    const __m256i a = _mm256_unpacklo_epi32(row[0], row[1]), b = _mm256_unpacklo_epi32(row[2], row[3]);
    const __m256i c = _mm256_unpackhi_epi32(row[0], row[1]), d = _mm256_unpackhi_epi32(row[2], row[3]);
    out[0] = _mm256_unpacklo_epi64(a, b);
    out[1] = _mm256_unpackhi_epi64(a, b);
    out[2] = _mm256_unpacklo_epi64(c, d);
    out[3] = _mm256_unpackhi_epi64(c, d);
}

/* n words of 16 rows: from [16][n] to out [n][16]. */
PACK256_TARGET static void pack256_turn(const uint8_t *from, size_t stride, int64_t n, uint8_t *out) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4, from += 16, out += 256)
        for (int half = 0; half < 2; half++) {
            __m256i word[4];
            pack256_turn_8x4(from + 8 * (size_t)half * stride, stride, word);
            KERN_UNROLL
            for (int k = 0; k < 4; k++) _mm256_storeu_si256((void *)(out + 64 * k + 32 * half), word[k]);
        }
    for (; i < n; i++, from += 4)
        for (int r = 0; r < KERN_PANEL; r++, out += 4) memcpy(out, from + (size_t)r * stride, 4);
}

/* The same for 16-bit numbers: words of two, which come apart on the way. */
PACK256_TARGET static void pack256_turn_16bit(const uint8_t *from, size_t stride, int64_t n, uint8_t *out) {
    const __m256i split = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12,
                                           13, 2, 3, 6, 7, 10, 11, 14, 15);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8, from += 16, out += 256)
        for (int half = 0; half < 2; half++) {
            __m256i word[4];
            pack256_turn_8x4(from + 8 * (size_t)half * stride, stride, word);
            KERN_UNROLL
            for (int k = 0; k < 4; k++) {
                const __m256i two = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(word[k], split), 0xd8);
                _mm_storeu_si128((void *)(out + 64 * k + 16 * half), _mm256_castsi256_si128(two));
                _mm_storeu_si128((void *)(out + 64 * k + 32 + 16 * half), _mm256_extracti128_si256(two, 1));
            }
        }
    for (; i < n; i++, from += 2)
        for (int r = 0; r < KERN_PANEL; r++, out += 2) memcpy(out, from + (size_t)r * stride, 2);
}

/* ---- codes of a group -------------------------------------------------------------------------------------------- */

/* The bits that a plane holds of the 32 codes of group g, a byte each. */
PACK256_INLINE __m256i pack256_plane(const int run, const int bits, const uint8_t *plane, int g) {
    const __m256i mask = _mm256_set1_epi8((char)((1 << bits) - 1));
    if (run == 1) { /* a bit for each code, in their order */
        const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2,
                                                3, 3, 3, 3, 3, 3, 3, 3);
        const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
        int32_t all;
        memcpy(&all, plane + 4 * g, sizeof all);
        const __m256i one = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(all), spread), bit);
        return _mm256_and_si256(_mm256_cmpeq_epi8(one, bit), mask);
    }
    if (run < 32) { /* 4 bits, and the 16 bytes of a group in runs of 8 or 16 */
        const __m128i two = _mm_loadu_si128((const void *)(plane + 16 * g));
        const __m128i low = _mm_and_si128(two, _mm_set1_epi8(15));
        const __m128i high = _mm_and_si128(_mm_srli_epi16(two, 4), _mm_set1_epi8(15));
        const __m128i a = run == 8 ? _mm_unpacklo_epi64(low, high) : low;
        const __m128i b = run == 8 ? _mm_unpackhi_epi64(low, high) : high;
        return _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
    }
    const int k = 32 * g, period = run * (8 / bits), shift = k % period / run * bits;
    const __m256i bytes = _mm256_loadu_si256((const void *)(plane + k / period * run + k % run));
    return _mm256_and_si256(_mm256_srl_epi16(bytes, _mm_cvtsi32_si128(shift)), mask);
}

/* Puts 32 codes of `bits` bits together as the row's words of a panel's plane: 4 * bits bytes. */
PACK256_INLINE uint8_t *pack256_words(const int bits, __m256i code, uint8_t *out) {
    if (bits == 8) {
        _mm256_storeu_si256((void *)out, code);
        return out + 32;
    }
    __m128i x = _mm256_castsi256_si128(code);
    x = _mm_or_si128(x, _mm_slli_epi16(_mm256_extracti128_si256(code, 1), 4));
    if (bits <= 2) x = _mm_or_si128(x, _mm_slli_epi16(_mm_srli_si128(x, 8), 2));
    if (bits == 1) x = _mm_or_si128(x, _mm_slli_epi16(_mm_srli_si128(x, 4), 1));
    uint8_t bytes[16];
    _mm_storeu_si128((void *)bytes, x);
    memcpy(out, bytes, bits == 4 ? 16 : bits == 2 ? 8 : 4); /* never more than there is, whatever a compiler thinks */
    return out + 4 * bits;
}

/* All groups of a block. */
PACK256_INLINE void pack256_codes(const int low_run, const int low_bits, const int high_run, const int high_bits,
                                  const kern_format *f, int groups, const uint8_t *block, uint8_t *out) {
    const __m256i flip = _mm256_set1_epi8((char)(low_bits == 8 ? 128 : 0)); /* Q8_0 has signed codes */
    for (int g = 0; g < groups; g++) {
        out = pack256_words(low_bits, _mm256_xor_si256(pack256_plane(low_run, low_bits, block + f->low.start, g), flip),
                            out);
        if (high_bits)
            out = pack256_words(high_bits, pack256_plane(high_run, high_bits, block + f->high.start, g), out);
    }
}

/* The rows of planes that there are; 0 for another one. */
PACK256_TARGET static int pack256_block(const kern_format *f, int groups, const uint8_t *block, uint8_t *out) {
#define PACK256_CASE(low_run, low_bits, high_run, high_bits)                                                           \
    if (f->low.run == (low_run) && f->low.bits == (low_bits) && f->high.run == (high_run) &&                           \
        f->high.bits == (high_bits)) {                                                                                 \
        pack256_codes(low_run, low_bits, high_run, high_bits, f, groups, block, out);                                  \
        return 1;                                                                                                      \
    }
    PACK256_CASE(32, 8, 0, 0)  /* Q8_0 */
    PACK256_CASE(32, 4, 0, 0)  /* Q4_K */
    PACK256_CASE(64, 4, 32, 2) /* Q6_K */
    PACK256_CASE(32, 4, 32, 1) /* Q5_K */
    PACK256_CASE(32, 2, 32, 1) /* Q3_K */
    PACK256_CASE(32, 2, 0, 0)  /* Q2_K, TQ2_0 */
    PACK256_CASE(16, 4, 1, 1)  /* Q5_0, Q5_1 */
    PACK256_CASE(8, 4, 0, 0)   /* NVFP4 */
#undef PACK256_CASE
    return 0;
}

/* ---- panels ------------------------------------------------------------------------------------------------------ */

/* Scales of a block of 16 rows; returns what comes behind them. */
static uint8_t *pack256_side(const kern_format *f, const uint8_t *block, size_t row_bytes, uint8_t *out) {
    if (f->n_f16 == 1 && !f->n_bytes) { /* most types: without counting */
        KERN_UNROLL
        for (int r = 0; r < KERN_PANEL; r++) memcpy(out + 2 * r, block + (size_t)r * row_bytes + f->f16_at, 2);
        return out + 2 * KERN_PANEL;
    }
    for (int r = 0; r < KERN_PANEL; r++, block += row_bytes) {
        uint8_t *to = out;
        for (int i = 0; i < f->n_f16; i++, to += 2 * KERN_PANEL) memcpy(to + 2 * r, block + f->f16_at + 2 * i, 2);
        for (int i = 0; i < f->n_bytes; i++, to += KERN_PANEL) to[r] = block[f->bytes_at + i];
    }
    return out + (2 * f->n_f16 + f->n_bytes) * KERN_PANEL;
}

PACK256_TARGET static int pack256_integers(const kern_format *f, kern_type_info info, int64_t cols, const uint8_t *rows,
                                           size_t row_bytes, uint8_t *panel) {
    const int groups = info.block / KERN_BLOCK, words = groups * (f->low.bits + f->high.bits);
    const int as_in_file = f->low.bits == 4 && f->low.run == 16 && !f->high.bits; /* Q4_0 and its like */
    uint8_t *side = panel + (size_t)(cols / info.block) * (size_t)words * 64;
    _Alignas(32) uint8_t ordered[KERN_PANEL][PACK256_WORDS * 4];
    for (int64_t b = 0; b < cols / info.block; b++, rows += info.block_bytes, panel += (size_t)words * 64) {
        if (as_in_file) {
            pack256_turn(rows + f->low.start, row_bytes, words, panel);
        } else {
            for (int r = 0; r < KERN_PANEL; r++)
                if (!pack256_block(f, groups, rows + (size_t)r * row_bytes, ordered[r])) return 0;
            pack256_turn(ordered[0], sizeof ordered[0], words, panel);
        }
        side = pack256_side(f, rows, row_bytes, side);
    }
    return 1;
}

/* The last panel of a matrix is often not full, but it is only one; types without planes are copied anyhow. */
static void pack256_avx2(uint32_t type, int64_t cols, const void *rows, size_t row_bytes, int n_rows, void *panel) {
    const kern_type_info info = kern_type_get(type);
    if (n_rows == KERN_PANEL && info.panels && info.has_kernels) {
        if (!info.integer && info.block_bytes == 4) {
            pack256_turn(rows, row_bytes, cols, panel);
            return;
        }
        if (!info.integer) {
            pack256_turn_16bit(rows, row_bytes, cols, panel);
            return;
        }
        if (pack256_integers(kern_format_of(type), info, cols, rows, row_bytes, panel)) return;
    }
    kern_pack(type, cols, rows, row_bytes, n_rows, panel);
}

void kern_table_pack_avx2(kern_table *table) {
    table->pack = pack256_avx2;
}

#endif
