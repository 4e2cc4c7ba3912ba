/* test_memory.c: an engine takes no more than weights, pages in use and a twentieth; a long context costs nothing until
 * it is used. Counted at the allocator, at its peak, so nothing can hide between two looks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "../engine/minim.h"
#include "../kernels/kernels.h"
#include "count_allocator.h"
#include "synth.h"

enum { N_CTX = 131072, PAGE = 64, PIECE = 32, MOST_SEQS = 8 };

static void ok(minim_status status, const minim_error *e) {
    if (status) fail_msg("%s: %s", minim_status_name(status), e->text);
}

/* ---- the bar ------------------------------------------------------------------------------------------------------
 */

typedef struct world {
    count_allocator count;
    minim_allocator allocator;
    minim_model *model;
    minim_engine *engine;
    minim_seq *seq[MOST_SEQS];
    int n_seqs;
} world;

static minim_model *load(const synth_shape *shape, const minim_model_options *options) {
    size_t size;
    minim_error e;
    minim_model *m;
    void *image = synth_model(shape, &size);
    assert_non_null(image);
    ok(minim_model_load_memory(image, size, "a model", options, &m, &e), &e);
    free(image);
    return m;
}

/* A model large enough beside its vocabulary, and an engine with the context of 128k tokens. */
static void world_begin(world *w, minim_kv_type kv, int n_threads, uint64_t prefix_cache) {
    const synth_shape shape = {.type = KERN_Q4_0,
                               .n_layers = 16,
                               .n_embd = 512,
                               .n_heads = 8,
                               .n_kv_heads = 2,
                               .head_dim = 64,
                               .n_ff = 1408,
                               .n_ctx = N_CTX};
    minim_error e;
    minim_model_options mo;
    minim_engine_options eo;
    *w = (world){.n_seqs = 0};
    w->allocator = count_allocator_get(&w->count);
    minim_model_options_default(&mo);
    minim_engine_options_default(&eo);
    mo.allocator = eo.allocator = &w->allocator;
    mo.n_threads = 1, eo.n_threads = n_threads;
    eo.n_batch = PIECE, eo.page_size = PAGE, eo.kv_type = kv, eo.prefix_cache = prefix_cache;
    w->model = load(&shape, &mo);
    w->count.peak = w->count.bytes; /* what loading takes for a while is another matter */
    ok(minim_engine_new(w->model, &eo, &w->engine, &e), &e);
}

static void world_end(world *w) {
    for (int i = 0; i < w->n_seqs; i++) minim_seq_free(w->seq[i]);
    minim_engine_free(w->engine);
    minim_model_free(w->model);
    assert_true(count_allocator_clean(&w->count));
}

static uint64_t world_pages(const world *w) {
    minim_engine_info info = {.size = sizeof info};
    minim_engine_get_info(w->engine, &info);
    return info.pages_allocated * info.page_bytes;
}

/* To be called when the pages are at their most. */
static void within_the_bar(const world *w, const char *when) {
    minim_model_info info = {.size = sizeof info};
    minim_model_get_info(w->model, &info);
    const uint64_t need = info.weight_bytes + world_pages(w);
    if (w->count.peak > need + need / 20)
        fail_msg("%s: %zu bytes for weights and pages of %llu", when, w->count.peak, (unsigned long long)need);
}

/* n more tokens; `salt` makes them others than those of another sequence. */
static void advance(const world *w, minim_seq *seq, int n, int salt) {
    minim_error e;
    minim_row rows[PIECE];
    while (n > 0) {
        int some = n < PIECE ? n : PIECE;
        for (int i = 0; i < some; i++)
            rows[i] = (minim_row){seq, (int32_t)((minim_seq_length(seq) + (size_t)i) * 31 + (size_t)salt) % 500 + 3, 0};
        ok(minim_engine_step(w->engine, rows, (size_t)some, NULL, &e), &e);
        n -= some;
    }
}

static minim_seq *another(world *w) {
    minim_error e;
    ok(minim_seq_new(w->engine, &w->seq[w->n_seqs], &e), &e);
    return w->seq[w->n_seqs++];
}

/* ---- tests --------------------------------------------------------------------------------------------------------
 */

static void grows_with_what_is_used(minim_kv_type kv, int n_threads) {
    world w;
    world_begin(&w, kv, n_threads, 0);
    assert_int_equal(world_pages(&w), 0);
    within_the_bar(&w, "a new engine");
    minim_seq *first = another(&w);
    advance(&w, first, 1, 0);
    within_the_bar(&w, "a token");
    advance(&w, first, 600, 0);
    within_the_bar(&w, "a long text");
    for (int i = 1; i < MOST_SEQS; i++) advance(&w, another(&w), 60 + 10 * i, i);
    within_the_bar(&w, "several texts");
    const uint64_t most = world_pages(&w);
    minim_seq_truncate(first, 0);
    assert_true(world_pages(&w) < most);
    for (int i = 1; i < MOST_SEQS; i++) minim_seq_truncate(w.seq[i], 0);
    assert_int_equal(world_pages(&w), 0);
    w.count.peak = w.count.bytes;
    within_the_bar(&w, "all given back");
    world_end(&w);
}

static void memory_follows_what_is_used(void **state) {
    (void)state;
    grows_with_what_is_used(MINIM_KV_F16, 1);
    grows_with_what_is_used(MINIM_KV_F16, 2);
    grows_with_what_is_used(MINIM_KV_F32, 1);
    grows_with_what_is_used(MINIM_KV_Q8, 2);
    grows_with_what_is_used(MINIM_KV_Q8_Q4, 1);
}

/* Pages that only the prefix cache holds are no more than it may have, and it needs little to find them. */
static void a_prefix_cache_stays_in_its_bounds(void **state) {
    (void)state;
    enum { CACHE = 4 << 20 };
    world w;
    world_begin(&w, MINIM_KV_F16, 1, CACHE);
    minim_engine_info info = {.size = sizeof info};
    uint64_t most = 0;
    for (int i = 0; i < 12; i++) {
        minim_seq *seq = another(&w);
        advance(&w, seq, 300, i);
        if (world_pages(&w) > most) most = world_pages(&w);
        within_the_bar(&w, "beside cached pages");
        minim_seq_free(seq);
        w.n_seqs--;
        minim_engine_get_info(w.engine, &info);
        assert_int_equal(info.pages_in_use, 0);
        assert_true(info.pages_cached * info.page_bytes <= CACHE);
        w.count.peak = w.count.bytes;
        within_the_bar(&w, "cached pages alone");
    }
    assert_true(info.pages_evicted > 0 && info.pages_cached > 0);
    world_end(&w);
}

/* Scratch memory does not grow with the model: it weighs most beside one layer of TinyLlama's shape, with a short
 * conversation. 22 of them have 618 million bytes. */
static void scratch_memory_fits_a_small_real_model(void **state) {
    (void)state;
    const synth_shape shape = {.type = KERN_Q4_0,
                               .n_layers = 1,
                               .n_embd = 2048,
                               .n_heads = 32,
                               .n_kv_heads = 4,
                               .head_dim = 64,
                               .n_ff = 5632,
                               .n_ctx = N_CTX};
    minim_error e;
    minim_model_options o;
    minim_memory_plan plan = {.size = sizeof plan};
    minim_model_options_default(&o);
    o.level = MINIM_LOAD_HEADER;
    minim_model *m = load(&shape, &o);
    ok(minim_engine_plan(m, NULL, &plan, &e), &e);
    assert_true(plan.scratch < 618000000 / 100 * 3);
    minim_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_follows_what_is_used),
        cmocka_unit_test(a_prefix_cache_stays_in_its_bounds),
        cmocka_unit_test(scratch_memory_fits_a_small_real_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
