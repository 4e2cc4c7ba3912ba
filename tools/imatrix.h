/* imatrix.h: importance matrices: for every input of a matrix the sum of its squares over a text. A rounding error of a
 * weight counts by that.
 *
 * The file is that of llama-imatrix (llama.cpp, tools/imatrix): GGUF with general.type "imatrix", imatrix.datasets,
 * imatrix.chunk_count, imatrix.chunk_size, and for each matrix NAME the float32 tensors NAME.in_sum2 [n_mats][cols] and
 * NAME.counts [n_mats][1]: how many rows were summed. n_mats is 1, or the number of experts in a matrix of three
 * dimensions. */
#ifndef TOOLS_IMATRIX_H
#define TOOLS_IMATRIX_H

#include "common.h"

typedef struct imatrix_entry {
    char *name; /* of the matrix: "blk.0.attn_q.weight" */
    size_t cols, n_mats;
    double *sums;   /* [n_mats][cols] */
    double *counts; /* [n_mats] */
} imatrix_entry;

typedef struct imatrix {
    imatrix_entry *entries;
    size_t n, capacity;
    char **datasets; /* names of the texts */
    size_t n_datasets;
    size_t n_chunks, chunk_size; /* tokens a chunk */
} imatrix;

/* NULL when there is none. */
imatrix_entry *imatrix_find(const imatrix *im, const char *name);

/* The entry of a matrix, made with zeros when there is none. NULL after a message: no memory, or another size. */
imatrix_entry *imatrix_get(imatrix *im, const char *name, size_t cols, size_t n_mats);

int imatrix_add_dataset(imatrix *im, const char *name); /* 0, or -1 after a message */

/* Adds a file to *im; several files are joined by adding what they hold. Returns -1, or the exit code after a message.
 */
int imatrix_read(imatrix *im, const char *path);

/* Writes all of it, by name. Returns the exit code. */
int imatrix_write(const imatrix *im, const char *path);

void imatrix_free(imatrix *im);

#endif
