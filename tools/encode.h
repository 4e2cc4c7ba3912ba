/* encode.h: float32 to the weight types of GGUF: pure functions from the numbers of one block to its bytes in a file.
 *
 *     const encode_type *type = encode_find("q4_k");
 *     if (encode_search(type, x, NULL, block)) ...   // x[type->block] to block[type->bytes]
 *
 * Or in steps, for who chooses the codes himself (quantize_gptq.c):
 *
 *     encode_parts parts;
 *     if (encode_scales(type, x, weight, &parts)) ...
 *     for (k = 0; k < type->block; k++) y[k] = encode_code(type, &parts, k, x[k]);
 *     encode_put(type, &parts, block);
 */
#ifndef TOOLS_ENCODE_H
#define TOOLS_ENCODE_H

#include <stdint.h>

enum { ENCODE_MAX_BLOCK = 256 }; /* elements; the block of every type divides it */

typedef struct encode_form encode_form; /* how a block is made: encode_form.h */

typedef struct encode_type {
    const char *name;
    uint32_t id;             /* in GGUF */
    int block, bytes;        /* elements and bytes of a block */
    const encode_form *form; /* NULL for the float types */
} encode_type;

/* A block before it becomes bytes: element k of part i is d*scale[i] * value(code[k]) - dmin*min[i]. */
typedef struct encode_parts {
    float d, dmin; /* exact f16 numbers */
    int scale[16], min[16];
    uint8_t code[ENCODE_MAX_BLOCK];
} encode_parts;

/* By name, in any case ("q4_0", "Q4_K"); NULL when there is no encoder. */
const encode_type *encode_find(const char *name);

/* One block of finite numbers. 0, or -1 when its scale or a number of it is too large for a 16-bit float; the bytes
 * mean nothing then. The result depends on the arguments alone, on every machine.
 * nearest: scales from the largest and smallest number, every number to the nearest code. For Q4_0, Q4_1, Q5_0, Q5_1
 * and Q8_0 the bytes are those of ggml.
 * search: of many scales (and minima) the ones with the smallest sum of weight[k] * error[k]^2; it is never larger than
 * that of nearest. Weights [block] are positive; NULL = all alike. Float types are only rounded. */
int encode_nearest(const encode_type *type, const float *x, uint8_t *out);
int encode_search(const encode_type *type, const float *x, const float *weight, uint8_t *out);

/* The scales and minima of encode_search(), and its codes. 0 or -1. For integer types only, like the following. */
int encode_scales(const encode_type *type, const float *x, const float *weight, encode_parts *parts);

/* Sets code k to the one nearest to x and returns what it stands for. */
float encode_code(const encode_type *type, encode_parts *parts, int k, float x);

void encode_put(const encode_type *type, const encode_parts *parts, uint8_t *out);

#endif
