/* blas.c: see blas.h. */
#include "blas.h"

#include "common.h"

#ifdef MINIM_WITH_OPENBLAS

#include <cblas.h>
#include <dlfcn.h>
#include <string.h>

/* Not all versions of its header have LAPACK. */
typedef void blas_lapack(const char *uplo, const blasint *n, float *a, const blasint *lda, blasint *info);

static struct {
    __typeof__(&openblas_set_num_threads) set_num_threads;
    __typeof__(&cblas_ssyrk) ssyrk;
    __typeof__(&cblas_sgemm) sgemm;
    blas_lapack *spotrf, *spotri;
} blas_calls;

int blas_open(void) {
    static const char name[] = "libopenblas.so.0";
    const struct {
        const char *name;
        void *call; /* a pointer to a pointer to a function: ISO C has no cast from what dlsym() returns */
    } calls[] = {
        {"openblas_set_num_threads", &blas_calls.set_num_threads},
        {"cblas_ssyrk", &blas_calls.ssyrk},
        {"cblas_sgemm", &blas_calls.sgemm},
        {"spotrf_", &blas_calls.spotrf},
        {"spotri_", &blas_calls.spotri},
    };
    if (blas_calls.spotri) return -1;
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library) return tool_fail("--method gptq: %s", dlerror());
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        void *symbol = dlsym(library, calls[i].name);
        if (!symbol) return tool_fail("--method gptq: %s: expected the function %s", name, calls[i].name);
        *(void **)calls[i].call = symbol;
    }
    return -1;
}

void blas_set_threads(int n) {
    blas_calls.set_num_threads(n);
}

void blas_add_squares(size_t n, size_t rows, const float *x, float *c) {
    blas_calls.ssyrk(CblasRowMajor, CblasUpper, CblasTrans, (blasint)n, (blasint)rows, 1, x, (blasint)n, 1, c,
                     (blasint)n);
}

void blas_subtract_product(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b, size_t ldb,
                           float *c, size_t ldc) {
    blas_calls.sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, -1, a, (blasint)lda,
                     b, (blasint)ldb, 1, c, (blasint)ldc);
}

/* LAPACK counts columns first: its lower triangle is our upper one. */
int blas_inverse_root(size_t n, float *a) {
    const blasint size = (blasint)n;
    blasint info = 0;
    blas_calls.spotrf("L", &size, a, &size, &info);
    if (info) return -1;
    blas_calls.spotri("L", &size, a, &size, &info);
    if (info) return -1;
    blas_calls.spotrf("L", &size, a, &size, &info);
    if (info) return -1;
    for (size_t i = 0; i < n; i++)
        if (!(a[i * n + i] > 0)) return -1;
    for (size_t i = 0; i < n; i++) memset(a + i * n, 0, i * sizeof *a);
    return 0;
}

#else

int blas_open(void) {
    return tool_fail(
        "--method gptq was left out when this minim was built: install libopenblas-dev and build it again");
}

void blas_set_threads(int n) {
    (void)n;
}

void blas_add_squares(size_t n, size_t rows, const float *x, float *c) {
    (void)n, (void)rows, (void)x, (void)c;
}

void blas_subtract_product(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b, size_t ldb,
                           float *c, size_t ldc) {
    (void)m, (void)n, (void)k, (void)a, (void)lda, (void)b, (void)ldb, (void)c, (void)ldc;
}

int blas_inverse_root(size_t n, float *a) {
    (void)n, (void)a;
    return -1;
}

#endif
