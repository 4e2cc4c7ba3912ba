/* avx512.h: what the AVX-512 sources share. */
#ifndef KERN_X86_AVX512_H
#define KERN_X86_AVX512_H

#include "../internal.h"

#include <immintrin.h>

#define AVX512_FEATURES "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"
#define AVX512_TARGET   __attribute__((target(AVX512_FEATURES)))
#define AVX512_INLINE   AVX512_TARGET KERN_INLINE

enum { AVX512_CELL_ROWS = 5 }; /* kern_table.cell_rows: sums of so many tokens and two panels fit the registers */

/* The mask of the lanes below n. */
AVX512_INLINE __mmask16 avx512_mask(int64_t n) {
    return n >= 16 ? (__mmask16)0xffff : n <= 0 ? (__mmask16)0 : (__mmask16)((1u << n) - 1);
}

#endif
