/* test_encode.c: what quantize computes, by itself: tools/encode_search.c finds the same bytes with and without AVX2,
 * whatever the numbers are; tools/gptq.c inverts Hessians. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../tools/blas.h"
#include "../tools/encode_form.h"
#include "../tools/gptq.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static uint32_t seed = 1;

static float uniform(void) {
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) * 0x1p-23f - 1;
}

enum { BELL, OUTLIERS, OFFSET, GRID, TINY, HUGE_, MIXED, SAME, ZERO, ONE_SIDED, N_KINDS };

/* Numbers of which each kind is hard in another way: sums that overflow, scales that are no numbers, many ties. */
static float number(int kind, int k) {
    const float x = uniform() + uniform() + uniform();
    switch (kind) {
    case BELL: return x * 0.02f;
    case OUTLIERS: return k % 37 == 5 ? x * 40 : x * 0.1f;
    case OFFSET: return 100 + x * 0.001f;
    case GRID: return (float)(int)(x * 9) * 0.25f;
    case TINY: return x * 1e-40f;
    case HUGE_: return x * 1e38f;
    case MIXED: return k % 2 ? x * 1e-30f : x * 1e4f;
    case SAME: return -0.7f;
    case ONE_SIDED: return 0.01f + x * x;
    default: return 0;
    }
}

static void the_instruction_set_does_not_change_a_byte(void **state) {
    (void)state;
    static const char *const types[] = {"Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL",
                                        "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"};
    float x[ENCODE_MAX_BLOCK], weight[ENCODE_MAX_BLOCK];
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2")) skip();
#else
    skip();
#endif
    int n_found = 0;
    for (size_t t = 0; t < COUNT(types); t++) {
        const encode_type *type = encode_find(types[t]);
        assert_non_null(type);
        for (int i = 0; i < N_KINDS * 60; i++) {
            encode_parts fast, plain;
            uint8_t a[256], b[256];
            for (int k = 0; k < type->block; k++) {
                x[k] = number(i % N_KINDS, k);
                weight[k] = i % 3 == 0 ? 1 : i % 3 == 1 ? 1e-3f + uniform() * uniform() : (k % 5 ? 1e-3f : 3000);
            }
            memset(&fast, 0, sizeof fast);
            memset(&plain, 0, sizeof plain);
            const int code = encode_search_parts(type->form, x, weight, &fast);
            if (code != encode_search_plain(type->form, x, weight, &plain)) fail_msg("%s, %d: 0 and -1", types[t], i);
            if (code) continue;
            n_found++;
            encode_put(type, &fast, a);
            encode_put(type, &plain, b);
            if (memcmp(a, b, (size_t)type->bytes) != 0)
                fail_msg("%s, kind %d, %d: other bytes", types[t], i % N_KINDS, i);
        }
    }
    assert_true(n_found > (int)COUNT(types) * N_KINDS * 50); /* HUGE_ does not fit */
}

/* H^-1 = U^T U of the columns in falling order of their squares, for H plus so much of its mean on the diagonal:
 * largest difference of H^-1 H from 1. */
static double inverse_error(const gptq_solver *s, const double *h, double damping) {
    const size_t n = s->n;
    double worst = 0, mean = 0;
    for (size_t i = 0; i < n; i++) mean += h[i * n + i] / (double)n;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            double sum = 0;
            for (size_t k = 0; k < n; k++) {
                double inverse = 0;
                for (size_t r = 0; r <= i && r <= k; r++)
                    inverse += (double)s->root[r * n + i] * (double)s->root[r * n + k];
                sum += inverse * (h[s->order[k] * n + s->order[j]] + (k == j ? damping * mean : 0));
            }
            worst = fmax(worst, fabs(sum - (i == j)));
        }
    }
    return worst;
}

/* One whose squares are as large as they are, and one that needs ten times as much on its diagonal. */
static void hessians_are_inverted_in_their_place(void **state) {
    (void)state;
    enum { SIZE = 150 };
    static double h[SIZE * SIZE];
    /* blas_open() complains when there is no OpenBLAS. */
    if (blas_open() >= 0) skip();
    for (int hard = 0; hard < 2; hard++) {
        gptq_solver s;
        float *upper = malloc(sizeof(float) * SIZE * SIZE);
        assert_non_null(upper);
        for (size_t i = 0; i < SIZE; i++) {
            for (size_t j = i; j < SIZE; j++) {
                double x = i == j ? 1 + 0.001 * (double)(i * 37 % SIZE) : j % 7 == i % 7 ? 0.01 : 0;
                if (hard && i == 3 && j == 140) x = 1.2;
                h[i * SIZE + j] = h[j * SIZE + i] = x;
                upper[i * SIZE + j] = (float)x;
                upper[j * SIZE + i] = i == j ? (float)x : NAN;
            }
        }
        const int code = gptq_prepare(&s, "m.weight", SIZE, upper);
        assert_int_equal(code, -1);
        for (size_t i = 1; i < SIZE; i++) assert_true(h[s.order[i] * (SIZE + 1)] <= h[s.order[i - 1] * (SIZE + 1)]);
        const double error = inverse_error(&s, h, hard ? 0.1 : 0.01);
        if (!(error < 1e-3)) fail_msg("%s: error %g", hard ? "hard" : "easy", error);
        gptq_free(&s);
    }
    gptq_solver s;
    float *bad = calloc(4, sizeof *bad);
    assert_non_null(bad);
    bad[0] = bad[3] = INFINITY;
    assert_int_equal(gptq_prepare(&s, "m.weight", 2, bad), 1); /* with a message */
    gptq_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_instruction_set_does_not_change_a_byte),
                                       cmocka_unit_test(hessians_are_inverted_in_their_place)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
