/* product.h: the way through a matrix of any integer type, for the instruction sets that bring two things: functions
 * that unpack a part of a panel into the first-level cache, and products of such parts with some tokens. An unpacker
 * knows a type, a product only how many scales and minima there are: one micro-kernel, many unpackers. */
#ifndef KERN_QUANTS_PRODUCT_H
#define KERN_QUANTS_PRODUCT_H

#include "quants.h"

enum {
    QUANT_GROUPS = 16, /* groups of 32 inputs that are unpacked at a time: a multiple of what the largest blocks have */
    QUANT_GROUPS_MOST = 24, /* the same where a first-level cache of 48 KB may be filled */
    QUANT_PANELS = 2,       /* panels side by side: an activation that is fetched serves both */
    QUANT_TOKENS = 264,     /* most tokens that use what was unpacked before it is overwritten, */
    QUANT_TOKENS_FEW = 120, /* and where their sums shall stay in a first-level cache of 32 KB (48 KB: two times) */
    QUANT_HALVES = 1,       /* kinds of products: two scales in a group, */
    QUANT_MIN = 2,          /* and minima; 0..3 in all */
    QUANT_KINDS = 4
};

/* A part of a panel. Without QUANT_HALVES only scale[.][0] and min[.][0] are there, without QUANT_MIN no min. */
typedef struct quant_part {
    _Alignas(64) uint8_t code[QUANT_GROUPS_MOST][8][64]; /* code + offset: [4 inputs] of [16 rows][4] */
    _Alignas(64) float scale[QUANT_GROUPS_MOST][2][KERN_PANEL];
    _Alignas(64) float min[QUANT_GROUPS_MOST][2][KERN_PANEL];
    _Alignas(64) int32_t pair[QUANT_GROUPS_MOST][KERN_PANEL]; /* for unpackers and products by pairs, see quants512.c */
} quant_part;

/* What of the panels is unpacked next: lines of codes, then lines of what stands beside them, each of both panels. A
 * product asks for them meanwhile. */
typedef struct quant_ahead {
    const uint8_t *codes, *side; /* of the first panel; */
    int64_t apart;               /* the other one is so far on */
    int64_t n_codes, n_lines;    /* lines of codes; of both */
    int64_t asked;
} quant_ahead;

/* The next n lines. */
KERN_INLINE void quant_ask(quant_ahead *a, int64_t n) {
    for (; n > 0 && a->asked < a->n_lines; n--, a->asked++) {
        const int64_t i = a->asked - a->n_codes;
        const uint8_t *line = i < 0 ? a->codes + a->asked * 64 : a->side + i * 64;
        __builtin_prefetch(line, 0, 2);
        __builtin_prefetch(line + a->apart, 0, 2);
    }
}

/* Two parts, and the activations they are multiplied with. */
typedef struct quant_work {
    quant_part part[QUANT_PANELS];
    _Alignas(64) float sum[QUANT_TOKENS][QUANT_PANELS][KERN_PANEL]; /* y of these panels, so far */
    int64_t n, n_groups;                                            /* tokens, groups */
    const int8_t *codes;        /* of the first token and group; rows are row_groups * 32 apart, */
    const float *scale;         /* here and below row_groups */
    const int32_t *sums;        /* of 32 codes */
    const int32_t *half_sums;   /* of the first 16 of them; NULL without QUANT_HALVES */
    const kern_act_tile *tiles; /* the same activations for tiles, or NULL: the next tile of tokens is row_groups on */
    const kern_act_cell *cells; /* or NULL; token t, a multiple of cell_rows, is t * row_groups on */
    int64_t row_groups, cell_rows;
    int32_t offset;
    /* For products that write y themselves: */
    float *y; /* of the first token and of these panels; rows are ldy apart, and so many rows of the matrix are there */
    int64_t ldy, rows;
    int is_first, is_last; /* these are the first groups, the last ones */
    /* What a product may fetch meanwhile: parts of panels; and y, which the next call writes, or this one if there is
     * no other. */
    quant_ahead ahead;
    int64_t ask_tile, ask_group; /* lines that go with a tile and with each of its groups, for products that count so */
    int fetch_y;
} quant_work;

/* Groups first .. first + n_groups - 1 of a panel; first is a multiple of what a block of the type has. */
typedef void quant_unpack(const uint8_t *panel, int64_t row_groups, int64_t first, int64_t n_groups, quant_part *out);

typedef struct quant_product {
    quant_unpack *unpack;
    void (*multiply)(quant_work *w); /* sum += parts * activations, for all tokens */
    uint32_t type;
    int32_t offset;
    int most, tile; /* tokens at a time, at most QUANT_TOKENS, and what should divide their number */
    int groups;     /* at a time: QUANT_GROUPS or QUANT_GROUPS_MOST */
    int writes;     /* multiply needs no zeros in sum to begin with and writes y itself */
    int tiled;      /* multiply goes by w->tiles, needs no sums of halves, and writes y itself */
} quant_product;

static inline int quant_kind(uint32_t type) {
    const kern_format *f = kern_format_of(type);
    return (f->halves ? QUANT_HALVES : 0) | (f->has_min ? QUANT_MIN : 0);
}

/* kern_table.matmul */
void quant_matmul(const quant_product *p, const void *panels, int64_t rows, int64_t cols, const kern_act *act,
                  int64_t n, float *y, int64_t ldy);

/* What tiles need of the scales of T tokens, t0 and following: start is what pays for
 * the offset before the first product, of the whole group or of its halves; weight is what minima are multiplied with.
 */
typedef struct quant_tokens {
    _Alignas(64) float scale[8][QUANT_GROUPS];
    _Alignas(64) int32_t start[8][2][QUANT_GROUPS];
    _Alignas(64) float weight[8][2][QUANT_GROUPS];
} quant_tokens;

KERN_INLINE void quant_prepare(const int kind, const int T, const quant_work *w, int64_t t0, quant_tokens *out) {
    for (int t = 0; t < T && t0 + t < w->n; t++) {
        const int64_t from = (t0 + t) * w->row_groups;
        const float *scale = w->scale + from;
        const int32_t *sums = w->sums + from;
        for (int64_t g = 0; g < w->n_groups; g++) {
            out->scale[t][g] = scale[g];
            if (kind & QUANT_HALVES) {
                const int32_t first = w->half_sums[from + g], last = sums[g] - first;
                out->start[t][0][g] = -w->offset * first;
                out->start[t][1][g] = -w->offset * last;
                if (kind & QUANT_MIN) out->weight[t][0][g] = (float)first, out->weight[t][1][g] = (float)last;
            } else {
                out->start[t][0][g] = -w->offset * sums[g];
                if (kind & QUANT_MIN) out->weight[t][0][g] = scale[g] * (float)sums[g];
            }
        }
    }
}

/* Sums of the first 16 of 32 codes, n of them. */
void quant_half_sums(const int8_t *codes, int64_t n, int32_t *sums);

/* Types whose codes stand in a book: everything in C, a block at a time. */
void quant_unpack_blocks(uint32_t type, const uint8_t *panel, int64_t row_groups, int64_t first, int64_t n_groups,
                         quant_part *out);
enum { QUANT_BOOK_OFFSET = 64 };

#endif
