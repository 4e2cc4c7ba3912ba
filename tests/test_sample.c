/* test_sample.c: the sampler chooses as its options say, the same on every machine, and describes what it chose. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "../engine/sample.h"
#include "count_allocator.h"

static kern_table kernels;

static int set_up(void **state) {
    (void)state;
    kern_table_init(&kernels, "ref");
    return 0;
}

static minim_sampling greedy(void) {
    return (minim_sampling){.top_p = 1, .repeat_penalty = 1, .repeat_last_n = 64};
}

static minim_sampling draw(float temperature) {
    minim_sampling s = greedy();
    s.temperature = temperature;
    return s;
}

static sampler *must_make(int n_vocab, minim_sampling o, int n_top) {
    sampler *s = NULL;
    minim_error e = {0};
    if (sampler_new(NULL, &kernels, n_vocab, &o, n_top, &s, &e)) fail_msg("%s", e.text);
    return s;
}

static int32_t choose(sampler *s, const float *logits) {
    minim_token_event event;
    sampler_choose(s, logits, &event);
    return event.token;
}

/* How often each token is drawn. */
static void count_draws(int n_vocab, minim_sampling o, const float *logits, int draws, int *count) {
    sampler *s = must_make(n_vocab, o, 0);
    memset(count, 0, (size_t)n_vocab * sizeof *count);
    for (int i = 0; i < draws; i++) count[choose(s, logits)]++;
    sampler_free(s);
}

/* ---- figures ---------------------------------------------------------------------------------------------------- */

static void random_logits(uint32_t *random, float *logits, int n, float spread) {
    for (int i = 0; i < n; i++) {
        *random = *random * 1664525 + 1013904223;
        logits[i] = spread * ((float)(*random >> 8) / (float)(1 << 24) - 0.5f);
    }
}

static void figures_agree_with_double_arithmetic(void **state) {
    enum { N = 1000 };
    static float logits[N];
    uint32_t random = 1;
    (void)state;
    for (int round = 0; round < 20; round++) {
        sampler *s = must_make(N, greedy(), 5);
        minim_token_event event;
        double sum = 0, entropy = 0, max = -INFINITY;
        int best = 0, second = -1;
        random_logits(&random, logits, N, (float)(1 + 5 * round));
        for (int i = 1; i < N; i++)
            if (logits[i] > logits[best]) best = i;
        for (int i = 0; i < N; i++)
            if (i != best && (second < 0 || logits[i] > logits[second])) second = i;
        max = (double)logits[best];
        for (int i = 0; i < N; i++) sum += exp((double)logits[i] - max);
        for (int i = 0; i < N; i++) {
            const double p = exp((double)logits[i] - max) / sum;
            if (p > 0) entropy -= p * log(p);
        }
        sampler_choose(s, logits, &event);
        assert_int_equal(event.token, best);
        assert_true(fabs((double)event.logprob + log(sum)) < 1e-5);
        assert_true(fabs((double)event.margin - (max - (double)logits[second])) < 1e-5);
        assert_true(fabs((double)event.entropy - entropy) < 1e-4);
        assert_int_equal(event.n_top, 5);
        assert_int_equal(event.top[0].token, best);
        assert_int_equal(event.top[1].token, second);
        assert_true(event.top[0].logprob == event.logprob);
        for (int i = 0; i < 5; i++) {
            int better = 0;
            for (int k = 0; k < N; k++) better += logits[k] > logits[event.top[i].token];
            assert_int_equal(better, i);
            assert_true(fabs((double)event.top[i].logprob - ((double)logits[event.top[i].token] - max - log(sum))) <
                        1e-5);
        }
        sampler_free(s);
    }
}

static void figures_come_from_the_raw_logits(void **state) {
    const float logits[] = {1, 3, 2, 0};
    minim_sampling o = draw(1e-6f);
    sampler *plain = must_make(4, greedy(), 4), *s;
    minim_token_event a, b;
    (void)state;
    o.repeat_penalty = 10;
    o.top_k = 2;
    s = must_make(4, o, 4);
    sampler_accept(s, 1);
    sampler_choose(plain, logits, &a);
    sampler_choose(s, logits, &b);
    assert_int_equal(a.token, 1);
    assert_int_equal(b.token, 2); /* 3 / 10 is less than 2 */
    assert_true(a.margin == b.margin && a.entropy == b.entropy);
    assert_memory_equal(a.top, b.top, 4 * sizeof *a.top);
    assert_true(b.logprob == b.top[1].logprob);
    sampler_free(plain);
    sampler_free(s);
}

static void equal_logits_are_ordered_by_id(void **state) {
    float logits[100];
    sampler *s = must_make(100, greedy(), 64);
    minim_token_event event;
    (void)state;
    for (int i = 0; i < 100; i++) logits[i] = i % 3 == 2 ? 1 : 0;
    sampler_choose(s, logits, &event);
    assert_int_equal(event.token, 2);
    assert_true(event.margin == 0);
    for (int i = 0; i < 33; i++) assert_int_equal(event.top[i].token, 3 * i + 2);
    assert_int_equal(event.top[33].token, 0);
    assert_int_equal(event.top[34].token, 1);
    assert_int_equal(event.top[35].token, 3);
    sampler_free(s);
}

static void logits_that_are_no_numbers_are_never_chosen(void **state) {
    const float mixed[] = {NAN, -INFINITY, -5, NAN, -6}, infinite[] = {INFINITY, 1, NAN};
    const float none[] = {NAN, -INFINITY, INFINITY, NAN}, one[] = {NAN, -INFINITY, 7, NAN};
    int count[5];
    sampler *s = must_make(5, greedy(), 5);
    minim_token_event event;
    (void)state;
    sampler_choose(s, mixed, &event);
    assert_int_equal(event.token, 2);
    assert_int_equal(event.n_top, 2);
    assert_true(fabsf(event.margin - 1) < 1e-6f);
    sampler_free(s);
    count_draws(5, draw(FLT_MAX), mixed, 1000, count);
    assert_int_equal(count[0] + count[1] + count[3], 0);
    assert_true(count[2] > 400 && count[4] > 400);

    s = must_make(3, greedy(), 3); /* infinity is the largest number */
    sampler_choose(s, infinite, &event);
    assert_int_equal(event.token, 0);
    assert_true(event.logprob == 0 && event.entropy == 0);
    sampler_free(s);

    s = must_make(4, draw(1), 4);
    sampler_choose(s, none, &event);
    assert_int_equal(event.token, 0);
    assert_true(event.logprob == -INFINITY && event.margin == 0 && event.entropy == 0 && event.n_top == 0);
    sampler_choose(s, one, &event);
    assert_int_equal(event.token, 2);
    assert_true(event.logprob == 0 && event.margin == INFINITY && event.n_top == 1);
    sampler_free(s);
}

static void a_vocabulary_of_one_token_works(void **state) {
    const float logits[] = {-3e38f};
    minim_sampling o = draw(1);
    sampler *s;
    minim_token_event event;
    (void)state;
    o.repeat_penalty = 1e30f;
    o.top_k = 1;
    o.top_p = 0;
    o.min_p = 1;
    s = must_make(1, o, 64);
    sampler_accept(s, 0);
    sampler_choose(s, logits, &event);
    assert_int_equal(event.token, 0);
    assert_true(event.logprob == 0 && event.margin == INFINITY && event.n_top == 1);
    sampler_free(s);
}

/* ---- filters ---------------------------------------------------------------------------------------------------- */

/* Probabilities 0.5, 0.25, 0.15, 0.1 in the order of tokens 2, 0, 3, 1. */
static const float four[] = {-1.3862944f, -2.3025851f, -0.6931472f, -1.8971200f};

static void assert_kept(minim_sampling o, int expected_mask) {
    int count[4], mask = 0;
    count_draws(4, o, four, 2000, count);
    for (int i = 0; i < 4; i++) mask |= (count[i] > 0) << i;
    assert_int_equal(mask, expected_mask);
}

static void each_filter_keeps_what_it_should(void **state) {
    minim_sampling o = draw(1);
    (void)state;
    assert_kept(o, 15);
    for (int k = 0; k <= 5; k++) {
        static const int masks[] = {15, 4, 5, 13, 15, 15};
        o = draw(1);
        o.top_k = k;
        assert_kept(o, masks[k]);
    }
    o.top_k = 0;
    o.top_p = 0;
    assert_kept(o, 4);
    o.top_p = 0.49f;
    assert_kept(o, 4);
    o.top_p = 0.51f;
    assert_kept(o, 5);
    o.top_p = 0.76f;
    assert_kept(o, 13);
    o.top_p = 0.95f;
    assert_kept(o, 15);
    o.top_k = 2; /* 2/3 and 1/3 of what top-k has kept */
    o.top_p = 0.66f;
    assert_kept(o, 4);
    o.top_p = 0.67f;
    assert_kept(o, 5);
    o = draw(1);
    o.min_p = 0.21f;
    assert_kept(o, 13);
    o.min_p = 0.19f;
    assert_kept(o, 15);
    o.min_p = 1;
    assert_kept(o, 4);
    o = draw(100); /* filters come before temperature */
    o.min_p = 0.4f;
    assert_kept(o, 5);
    o.min_p = 0;
    o.top_p = 0.6f;
    assert_kept(o, 5);
}

static void draws_follow_the_probabilities(void **state) {
    static const double p[] = {0.25, 0.1, 0.5, 0.15};
    static const float temperatures[] = {1, 0.5f, 2, 1e30f, 1e-30f, FLT_MAX};
    (void)state;
    for (size_t t = 0; t < sizeof temperatures / sizeof *temperatures; t++) {
        enum { DRAWS = 20000 };
        int count[4];
        double sum = 0;
        count_draws(4, draw(temperatures[t]), four, DRAWS, count);
        for (int i = 0; i < 4; i++) sum += pow(p[i] / 0.5, 1 / (double)temperatures[t]);
        for (int i = 0; i < 4; i++) {
            const double expected = pow(p[i] / 0.5, 1 / (double)temperatures[t]) / sum;
            /* five standard deviations */
            assert_true(fabs(count[i] - DRAWS * expected) <= 5 * sqrt(DRAWS * expected * (1 - expected)) + 1);
        }
    }
}

static void recent_tokens_are_penalised_once(void **state) {
    const float logits[] = {2, 1.5f, -1, -1.4f};
    minim_sampling o = greedy();
    sampler *s;
    (void)state;
    o.repeat_penalty = 1.5f;
    o.repeat_last_n = 3;
    s = must_make(4, o, 0);
    assert_int_equal(choose(s, logits), 0);
    sampler_accept(s, 0);
    sampler_accept(s, 0); /* 2 / 1.5, not 2 / 2.25 */
    assert_int_equal(choose(s, logits), 1);
    assert_int_equal(choose(s, (const float[]){2, 1.3f, 0, 0}), 0);
    sampler_accept(s, 1);
    sampler_accept(s, 1);
    sampler_accept(s, 1); /* 0 is forgotten */
    assert_int_equal(choose(s, logits), 0);
    sampler_accept(s, -1); /* nonsense changes nothing */
    sampler_accept(s, 4);
    assert_int_equal(choose(s, (const float[]){1.4f, 2, 0, 0}), 0);
    sampler_accept(s, 2); /* below zero the penalty multiplies */
    assert_int_equal(choose(s, (const float[]){-9, -9, -1, -1.4f}), 3);
    sampler_free(s);
    o.repeat_last_n = 0;
    s = must_make(4, o, 0);
    sampler_accept(s, 0);
    assert_int_equal(choose(s, logits), 0);
    sampler_free(s);
}

static void draws_follow_the_penalised_probabilities(void **state) {
    const float logits[] = {2, 2};
    minim_sampling o = draw(1);
    sampler *s;
    int count[2] = {0};
    (void)state;
    o.repeat_penalty = 2;
    s = must_make(2, o, 0);
    sampler_accept(s, 0); /* 2 becomes 1: 1/(1 + e) = 0.269 of the draws */
    for (int i = 0; i < 10000; i++) count[choose(s, logits)]++;
    assert_true(count[0] > 2450 && count[0] < 2930);
    sampler_free(s);
    o = greedy();
    o.repeat_penalty = 1e30f; /* however hard the penalty, what was possible stays possible */
    s = must_make(2, o, 0);
    sampler_accept(s, 1);
    assert_int_equal(choose(s, (const float[]){NAN, -3e38f}), 1);
    sampler_free(s);
}

/* ---- the same everywhere ---------------------------------------------------------------------------------------- */

/* The numbers are from the published algorithms (splitmix64 fills the state of xoshiro256**), computed by hand with
 * another program: with equal weights token floor(u * n) comes out. */
static void the_seed_decides(void **state) {
    enum { N = 1024 };
    static const int expected_0[] = {615, 765, 105, 426, 750, 1023, 432, 548};
    static const int expected_42[] = {85, 388, 696, 946, 1015, 788, 736, 870};
    static float logits[N];
    minim_sampling o = draw(1);
    sampler *a, *b;
    (void)state;
    a = must_make(N, o, 0);
    o.seed = 42;
    b = must_make(N, o, 0);
    for (size_t i = 0; i < sizeof expected_0 / sizeof *expected_0; i++) {
        assert_int_equal(choose(a, logits), expected_0[i]);
        assert_int_equal(choose(b, logits), expected_42[i]);
    }
    sampler_free(a);
    sampler_free(b);
}

static void every_instruction_set_gives_the_same_tokens(void **state) {
    enum { N = 5003, STEPS = 40 };
    static float logits[STEPS][N];
    static minim_token_event first[STEPS];
    uint32_t random = 3;
    const char *isa;
    (void)state;
    for (int i = 0; i < STEPS; i++) random_logits(&random, logits[i], N, 20);
    for (int k = 0; (isa = kern_isa_name(k)); k++) {
        kern_table table;
        minim_sampling o = draw(0.8f);
        sampler *s = NULL;
        if (!kern_isa_available(isa)) continue;
        assert_int_equal(kern_table_init(&table, isa), 0);
        o.top_p = 0.9f;
        o.repeat_penalty = 1.2f;
        assert_int_equal(sampler_new(NULL, &table, N, &o, 3, &s, NULL), MINIM_OK);
        for (int i = 0; i < STEPS; i++) {
            minim_token_event event;
            sampler_choose(s, logits[i], &event);
            sampler_accept(s, event.token);
            if (k == 0) first[i] = event;
            assert_int_equal(event.token, first[i].token);
            assert_true(event.logprob == first[i].logprob && event.margin == first[i].margin);
            assert_true(event.entropy == first[i].entropy);
        }
        sampler_free(s);
    }
}

/* A draw from a large vocabulary must not sort it, and a flat one must not take forever either. */
static void large_vocabularies_are_no_problem(void **state) {
    enum { N = 256000 };
    float *logits = malloc(N * sizeof *logits);
    uint32_t random = 9;
    sampler *s = must_make(N, draw(1), 64);
    const clock_t begin = clock();
    minim_token_event event;
    (void)state;
    random_logits(&random, logits, N, 40);
    for (int i = 0; i < 20; i++) sampler_choose(s, logits, &event);
    for (int i = 0; i < N; i++) logits[i] = (float)i * 1e-5f; /* nearly flat, and the order the worst for top-n */
    for (int i = 0; i < 20; i++) {
        sampler_choose(s, logits, &event);
        assert_int_equal(event.top[63].token, N - 64);
    }
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_true((double)(clock() - begin) / CLOCKS_PER_SEC < 20); /* work that grew with the square would take hours */
#else
    (void)begin;
#endif
    sampler_free(s);
    free(logits);
}

/* ---- options and memory ----------------------------------------------------------------------------------------- */

static void assert_refused(minim_sampling o, int n_top, const char *text) {
    sampler *s = NULL;
    minim_error e = {0};
    assert_int_equal(sampler_new(NULL, &kernels, 10, &o, n_top, &s, &e), MINIM_ERR_ARGUMENT);
    assert_null(s);
    assert_string_equal(e.text, text);
}

static void impossible_options_are_named(void **state) {
    minim_sampling o;
    sampler *s = NULL;
    (void)state;
    assert_refused(draw(-1), 0, "temperature is -1, expected a number from 0");
    assert_refused(draw(INFINITY), 0, "temperature is inf, expected a number from 0");
    o = draw(NAN);
    assert_int_equal(sampler_new(NULL, &kernels, 10, &o, 0, &s, NULL), MINIM_ERR_ARGUMENT);
    o = greedy(), o.top_k = -1;
    assert_refused(o, 0, "top_k is -1, expected 0 (off) or more");
    o = greedy(), o.top_p = 1.5f;
    assert_refused(o, 0, "top_p is 1.5, expected 0..1");
    o = greedy(), o.min_p = -0.5f;
    assert_refused(o, 0, "min_p is -0.5, expected 0..1");
    o = greedy(), o.repeat_penalty = 0;
    assert_refused(o, 0, "repeat_penalty is 0, expected a number above 0");
    o = greedy(), o.repeat_last_n = -1;
    assert_refused(o, 0, "repeat_last_n is -1, expected 0..1048576");
    assert_refused(greedy(), 65, "n_top is 65, expected 0..64");
    assert_refused(greedy(), -1, "n_top is -1, expected 0..64");
    o = greedy(), o.top_k = INT32_MAX, o.repeat_last_n = SAMPLER_MAX_LAST_N, o.repeat_penalty = 2;
    s = must_make(10, o, 64); /* more than there is, but possible */
    sampler_free(s);
}

static void memory_may_fail(void **state) {
    minim_sampling o = draw(1);
    int done = 0;
    (void)state;
    o.repeat_penalty = 2;
    for (size_t at = 1; !done; at++) {
        count_allocator counter = {.fail_at = at};
        const minim_allocator a = count_allocator_get(&counter);
        sampler *s = NULL;
        const minim_status status = sampler_new(&a, &kernels, 100, &o, 3, &s, NULL);
        done = counter.calls < at;
        assert_int_equal(status, done ? MINIM_OK : MINIM_ERR_MEMORY);
        if (!done) assert_null(s);
        sampler_free(s);
        assert_true(count_allocator_clean(&counter));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_agree_with_double_arithmetic),
        cmocka_unit_test(figures_come_from_the_raw_logits),
        cmocka_unit_test(equal_logits_are_ordered_by_id),
        cmocka_unit_test(logits_that_are_no_numbers_are_never_chosen),
        cmocka_unit_test(a_vocabulary_of_one_token_works),
        cmocka_unit_test(each_filter_keeps_what_it_should),
        cmocka_unit_test(draws_follow_the_probabilities),
        cmocka_unit_test(recent_tokens_are_penalised_once),
        cmocka_unit_test(draws_follow_the_penalised_probabilities),
        cmocka_unit_test(the_seed_decides),
        cmocka_unit_test(every_instruction_set_gives_the_same_tokens),
        cmocka_unit_test(large_vocabularies_are_no_problem),
        cmocka_unit_test(impossible_options_are_named),
        cmocka_unit_test(memory_may_fail),
    };
    return cmocka_run_group_tests_name("sample", tests, set_up, NULL);
}
