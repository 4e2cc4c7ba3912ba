/* blas.h: the few calls of OpenBLAS and its LAPACK that calibration needs. The library is loaded when they are wanted:
 * linked, it would start its threads in every minim, also in one that only tells a story. */
#ifndef TOOLS_BLAS_H
#define TOOLS_BLAS_H

#include <stddef.h>

/* Threads of the calls that follow. 1 when several threads of ours call at a time. */
void blas_set_threads(int n);

/* Loads the library; to be called before all others. Returns -1, or the exit code after a message, which also tells
 * when this minim was built without it. */
int blas_open(void);

/* C [n][n] += X^T X for X [rows][n]; only C[i][j] with i <= j. */
void blas_add_squares(size_t n, size_t rows, const float *x, float *c);

/* C [m][n] (rows ldc apart) -= A [m][k] (lda) times B [k][n] (ldb). */
void blas_subtract_product(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b, size_t ldb,
                           float *c, size_t ldc);

/* The symmetric matrix A [n][n], of which only A[i][j] with i <= j are looked at and written: becomes U with
 * A^-1 = U^T U, U[i][j] = 0 for i > j. 0, or -1 when A is not positive definite; A[i][j] with i <= j mean nothing then,
 * and the others are what they were. */
int blas_inverse_root(size_t n, float *a);

#endif
