/* gptq.h: error feedback (GPTQ, Frantar et al., arXiv 2210.17323): the weights of a matrix are rounded one column after
 * the other, and what a column loses the columns that are still to come make up for, as far as the inputs X of the
 * matrix go together: what counts is the error of W X, and H = X^T X says how much.
 *
 * Blocks are those of GGUF: their scales are chosen first, by encode_scales(), weighted with the diagonal of H, and
 * stay. So columns can be taken in any order; those with the largest inputs come first. */
#ifndef TOOLS_GPTQ_H
#define TOOLS_GPTQ_H

#include <stddef.h>
#include <stdint.h>

#include "encode.h"

/* Rows that a thread takes at a time: products are quicker with many. */
enum { GPTQ_TILE = 128 };

typedef struct gptq_solver {
    size_t n;        /* columns */
    uint32_t *order; /* [n]: which column is the i-th */
    float *root;     /* [n][n]: U of the permuted and damped H, H^-1 = U^T U */
    float *weight;   /* [n]: of the columns, for the choice of scales */
} gptq_solver;

/* From H [n][n], of which only H[i][j] with i <= j are looked at; it is overwritten, and belongs to the solver
 * (malloc). Returns -1, or the exit code after a message; `name` stands for the matrix. gptq_free() in either case. */
int gptq_prepare(gptq_solver *solver, const char *name, size_t n, float *h);
void gptq_free(gptq_solver *solver);

/* Rounds the rows x [rows][n] of a matrix to out [rows][n / block * bytes], with n_threads. The bytes do not depend on
 * the number of threads, nor on how many rows a call gets as long as they are a multiple of GPTQ_TILE. *bad gets the
 * first element whose block does not fit the type, or rows * n. Returns -1 or an exit code (no memory, Ctrl-C). */
int gptq_encode(const gptq_solver *solver, const encode_type *type, const float *x, size_t rows, int n_threads,
                uint8_t *out, size_t *bad);

#endif
