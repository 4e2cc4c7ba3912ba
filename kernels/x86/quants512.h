/* quants512.h: what AVX-512 VNNI has for each integer type, for sets that are filled over it. */
#ifndef KERN_X86_QUANTS512_H
#define KERN_X86_QUANTS512_H

#include "avx512.h"
#include "unpack.h"

typedef struct quants512_type {
    quant_unpack *unpack; /* NULL: the one of kern_avx2_unpackers */
    kern_matmul *matmul;
} quants512_type;

extern const quants512_type kern_quants512[KERN_TYPE_END];

#endif
