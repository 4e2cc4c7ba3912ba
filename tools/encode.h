/* encode.h: float32 to the weight types of GGUF: pure functions from the numbers of one block to its bytes in a file.
 *
 *     const encode_type *type = encode_find("q4_k");
 *     if (type->search(x, block)) ...   // x[type->block] to block[type->bytes]
 */
#ifndef TOOLS_ENCODE_H
#define TOOLS_ENCODE_H

#include <stdint.h>

enum { ENCODE_MAX_BLOCK = 256 }; /* elements; the block of every type divides it */

/* One block of finite numbers. 0, or -1 when its scale or a number of it is too large for a 16-bit float; the bytes
 * mean nothing then. The result depends on the block alone. */
typedef int encode_block(const float *x, uint8_t *out);

typedef struct encode_type {
    const char *name;
    uint32_t id;      /* in GGUF */
    int block, bytes; /* elements and bytes of a block */
    /* nearest: scales from the largest and smallest number, every number to the nearest code. For Q4_0 and Q8_0 the
     * bytes are those of ggml. search: of many scales (and minima) the ones with the smallest sum of squared errors;
     * it is never larger than that of nearest. */
    encode_block *nearest, *search;
} encode_type;

/* By name, in any case ("q4_0", "Q4_K"); NULL when there is no encoder. */
const encode_type *encode_find(const char *name);

#endif
