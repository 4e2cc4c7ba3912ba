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

/* How the codes and scales of a type lie in a panel: planes of LOW and HIGH bits, a table of values or NULL, and SIDE
 * bytes besides for each block of GROUPS groups. */
typedef struct unpack_type {
    uint32_t type;
    int low, high;
    const uint8_t *values;
    int groups, side;
} unpack_type;

/* Whether the first-level cache holds 48 KB, as far as the system says. */
int unpack_cache_is_large(void);

extern const uint8_t kern_iq4_unsigned[16]; /* what the codes of IQ4 stand for, + 128 */
extern const uint8_t kern_fp4_unsigned[16]; /* those of MXFP4 and NVFP4, + 12 */

#endif
