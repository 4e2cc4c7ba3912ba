/* quants.h: how the blocks of the integer weight types are to be read: what types.c, ref/ and the slower paths of the
 * instruction sets share.
 *
 * Every type is code * scale, or code * scale + minimum, with whole codes of at most 8 bits and a scale for 16 or 32
 * inputs. Most keep the bits of a code in one or two *planes* and are described by a row of a table; the code books of
 * IQ1, IQ2, IQ3 and the base 3 of TQ1_0 need a function. The formats are those of ggml (ggml-common.h, ggml-quants.c).
 */
#ifndef KERN_QUANTS_H
#define KERN_QUANTS_H

#include "../internal.h"

enum {
    QUANT_MAX_BLOCK = 256, /* most elements of a block */
    QUANT_MAX_BYTES = 210, /* most bytes of a block (Q6_K) */
    QUANT_SUB = 16,        /* elements with a scale in kern_codes */
    QUANT_MAX_SUB = 256 / 16
};

/* A block in the form that all types have in common: element k is scale[k/16] * code[k] + min[k/16]. Types without
 * minima leave min alone; scales of 32 inputs stand there twice. */
typedef struct kern_codes {
    int8_t code[QUANT_MAX_BLOCK];
    float scale[QUANT_MAX_SUB], min[QUANT_MAX_SUB];
} kern_codes;

/* `bits` of every code: elements k .. k+run-1 lie in successive bytes, and 8/bits such runs on top of each other, the
 * first in the lowest bits. Element k: byte start + k / (run * 8/bits) * run + k % run. bits = 0: no plane. */
typedef struct kern_plane {
    uint8_t start, run, bits;
} kern_plane;

typedef struct kern_format {
    kern_plane low, high; /* the code without its offset: low | high << low.bits */
    /* The rest of a block: f16 numbers at f16_at, bytes at bytes_at. For types with a function only the f16. */
    uint8_t f16_at, n_f16, bytes_at, n_bytes;
    uint8_t halves; /* 1: a scale belongs to 16 inputs, 0: to 32 */
    uint8_t has_min;
    int16_t offset;       /* of the codes, or: */
    const int8_t *values; /* a table of them [16] */
    void (*scales)(const uint8_t *block, float *scale, float *min);
    void (*codes)(const uint8_t *block, int8_t *code); /* NULL: planes */
} kern_format;

/* The format of an integer type with kernels. */
const kern_format *kern_format_of(uint32_t type);

/* A block of the file. */
void kern_decode(uint32_t type, const uint8_t *block, kern_codes *out);

/* Codes [n] of a block that has planes, without offset and table, and back; to put, the planes must be zero. */
void kern_raw_get(const kern_format *f, const uint8_t *block, int n, uint8_t *raw);
void kern_raw_put(const kern_format *f, const uint8_t *raw, int n, uint8_t *block);

/* Where block b of all rows of a panel lies; b may be the number of blocks, which gives their ends. Blocks that stay as
 * in the file have all they hold among the codes. */
typedef struct panel_place {
    size_t codes, side;    /* bytes from the panel's beginning on */
    int groups, low, high; /* groups of 32 inputs in the block; bits of the planes */
} panel_place;

panel_place kern_panel_place(const kern_format *f, kern_type_info info, int64_t cols, int64_t b);

/* Block b of row r of a panel, as it stands in the file. */
void kern_panel_block(uint32_t type, int64_t cols, const uint8_t *panel, int64_t b, int r, uint8_t *block);

/* ref/matmul.c: the definition of a product with an integer type. */
void kern_ref_matmul_int(uint32_t type, const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,
                         float *y, int64_t ldy);

/* Code books and their functions: iq.c, grids.c. */
extern const uint16_t kern_grid_iq1s[2048], kern_grid_iq2xxs[256], kern_grid_iq2xs[512], kern_grid_iq2s[1024],
    kern_grid_iq3xxs[256], kern_grid_iq3s[512];
void quant_codes_iq1_s(const uint8_t *block, int8_t *code);
void quant_codes_iq1_m(const uint8_t *block, int8_t *code);
void quant_codes_iq2_xxs(const uint8_t *block, int8_t *code);
void quant_codes_iq2_xs(const uint8_t *block, int8_t *code);
void quant_codes_iq2_s(const uint8_t *block, int8_t *code);
void quant_codes_iq3_xxs(const uint8_t *block, int8_t *code);
void quant_codes_iq3_s(const uint8_t *block, int8_t *code);
void quant_scales_iq1_s(const uint8_t *block, float *scale, float *min);
void quant_scales_iq1_m(const uint8_t *block, float *scale, float *min);
void quant_scales_iq2_xxs(const uint8_t *block, float *scale, float *min);
void quant_scales_iq2_xs(const uint8_t *block, float *scale, float *min);
void quant_scales_iq2_s(const uint8_t *block, float *scale, float *min);
void quant_scales_iq3_xxs(const uint8_t *block, float *scale, float *min);
void quant_scales_iq3_s(const uint8_t *block, float *scale, float *min);
uint16_t quant_f16_iq1_m(const uint8_t *block); /* its f16 scale, which lies in four pieces */

#endif
