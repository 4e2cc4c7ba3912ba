/* unpack.h: the unpackers of all integer types, for every x86 instruction set. See quants/product.h. */
#ifndef KERN_X86_UNPACK_H
#define KERN_X86_UNPACK_H

#include "../quants/product.h"

/* The unpacker of a type and the offset its codes get. */
typedef struct avx2_unpacker {
    quant_unpack *unpack;
    int32_t offset;
} avx2_unpacker;

extern const avx2_unpacker kern_avx2_unpackers[KERN_TYPE_END];

extern const uint8_t kern_iq4_unsigned[16]; /* what the codes of IQ4 stand for, + 128 */

#endif
