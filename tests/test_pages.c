/* test_pages.c: sequences that share pages: each has the bits that it would have alone, and the pool counts right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "../engine/engine.h"
#include "../engine/kv_impl.h"
#include "../engine/minim.h"
#include "../kernels/kernels.h"
#include "family_model.h"
#include "pages.h"
#include "synth.h"

enum { N_VOCAB = 512, N_CTX = 256, PAGE = 16, MAX_SEQS = 12 };

static void ok(minim_status status, const minim_error *e) {
    if (status) fail_msg("%s: %s", minim_status_name(status), e->text);
}

static const synth_shape plain_shape = {.type = KERN_Q4_0,
                                        .n_layers = 2,
                                        .n_embd = 32,
                                        .n_heads = 2,
                                        .n_kv_heads = 1,
                                        .head_dim = 16,
                                        .n_ff = 32,
                                        .n_ctx = N_CTX};

static minim_kv_type world_kv; /* of the worlds to come */

/* An engine whose sequences are watched, and one that says what each of them should be. */
typedef struct world {
    minim_model *model;
    minim_engine *engine, *alone;
    minim_seq *seq[MAX_SEQS], *one; /* `one` belongs to `alone` */
    int32_t tokens[MAX_SEQS][N_CTX];
    size_t length[MAX_SEQS], n;
    uint64_t random;
} world;

/* The plain Llama, or a model of the table of families. */
static minim_model *world_model(const char *family) {
    minim_error e;
    minim_model *m = family_model_load(family, &plain_shape, &e);
    ok(e.status, &e);
    assert_non_null(m);
    return m;
}

static minim_engine *world_engine(const minim_model *m, uint64_t pages, int page_size, uint64_t cache) {
    minim_error e;
    minim_engine *engine;
    minim_engine_options o;
    minim_engine_options_default(&o);
    o.n_threads = 1, o.page_size = page_size, o.n_ctx = N_CTX, o.n_batch = 32;
    o.prefix_cache = cache, o.kv_type = world_kv;
    if (pages) {
        minim_engine_info info = {.size = sizeof info};
        ok(minim_engine_new(m, &o, &engine, &e), &e);
        minim_engine_get_info(engine, &info);
        minim_engine_free(engine);
        o.kv_limit = pages * info.page_bytes;
    }
    ok(minim_engine_new(m, &o, &engine, &e), &e);
    return engine;
}

/* The engine has room for so many pages (0: its default). */
static world *world_new(const char *family, uint64_t pages, uint64_t cache) {
    minim_error e;
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->model = world_model(family);
    w->engine = world_engine(w->model, pages, PAGE, cache);
    w->alone = world_engine(w->model, 0, 64, 0);
    ok(minim_seq_new(w->alone, &w->one, &e), &e);
    w->random = 88172645463325252u;
    return w;
}

static uint64_t pages_in_use(const world *w) {
    minim_engine_info info = {.size = sizeof info};
    minim_engine_get_info(w->engine, &info);
    return info.pages_in_use;
}

static void world_free(world *w) {
    for (size_t i = 0; i < w->n; i++) minim_seq_free(w->seq[i]);
    assert_int_equal(pages_in_use(w), 0);
    minim_seq_free(w->one);
    minim_engine_free(w->engine);
    minim_engine_free(w->alone);
    minim_model_free(w->model);
    free(w);
}

static size_t below(world *w, size_t n) {
    w->random ^= w->random << 13, w->random ^= w->random >> 7, w->random ^= w->random << 17;
    return (size_t)(w->random >> 11) % n;
}

static void check_pages(const world *w) {
    const char *wrong = pages_wrong(w->engine, w->seq, w->n);
    if (wrong) fail_msg("%s", wrong);
}

static void new_seq(world *w) {
    minim_error e;
    assert_true(w->n < MAX_SEQS);
    ok(minim_seq_new(w->engine, &w->seq[w->n], &e), &e);
    w->length[w->n++] = 0;
}

static void fork_seq(world *w, size_t from) {
    minim_error e;
    assert_true(w->n < MAX_SEQS);
    uint64_t before = pages_in_use(w);
    ok(minim_seq_fork(w->seq[from], &w->seq[w->n], &e), &e);
    assert_int_equal(minim_seq_length(w->seq[w->n]), w->length[from]);
    assert_int_equal(pages_in_use(w), before); /* a fork is free */
    memcpy(w->tokens[w->n], w->tokens[from], sizeof w->tokens[from]);
    w->length[w->n++] = w->length[from];
}

static void free_seq(world *w, size_t i) {
    minim_seq_free(w->seq[i]);
    w->n--;
    w->seq[i] = w->seq[w->n], w->length[i] = w->length[w->n];
    memcpy(w->tokens[i], w->tokens[w->n], sizeof w->tokens[i]);
}

static void cut_seq(world *w, size_t i, size_t n) {
    assert_int_equal(minim_seq_truncate(w->seq[i], n), MINIM_OK);
    w->length[i] = n;
}

/* The sequence goes on with the next n of its tokens; its logits are those of a sequence alone. */
static minim_status run_seq(world *w, size_t i, size_t n) {
    static float got[N_VOCAB], want[N_VOCAB];
    minim_error e;
    minim_row rows[N_CTX];
    size_t all = w->length[i] + n;
    for (size_t k = 0; k < n; k++) rows[k] = (minim_row){w->seq[i], w->tokens[i][w->length[i] + k], k + 1 == n};
    minim_status status = minim_engine_step(w->engine, rows, n, got, &e);
    if (status) {
        assert_int_equal(minim_seq_length(w->seq[i]), w->length[i]);
        return status;
    }
    w->length[i] = all;
    for (size_t k = 0; k < all; k++) rows[k] = (minim_row){w->one, w->tokens[i][k], k + 1 == all};
    minim_seq_truncate(w->one, 0);
    ok(minim_engine_step(w->alone, rows, all, want, &e), &e);
    assert_memory_equal(got, want, sizeof got);
    return MINIM_OK;
}

static void write_tokens(world *w, size_t i, size_t n, size_t salt) {
    for (size_t at = w->length[i]; at < w->length[i] + n; at++)
        w->tokens[i][at] = (int32_t)(3 + (salt * 131 + at * 17) % 500);
}

/* With tokens that depend on `salt` and their place. */
static minim_status extend_seq(world *w, size_t i, size_t n, size_t salt) {
    write_tokens(w, i, n, salt);
    return run_seq(w, i, n);
}

/* An empty sequence begins with what is cached of its n tokens; returns their number. */
static size_t reuse(world *w, size_t i, size_t n) {
    minim_error e;
    size_t found;
    ok(minim_seq_reuse(w->seq[i], w->tokens[i], n, &found, &e), &e);
    assert_int_equal(minim_seq_length(w->seq[i]), found);
    w->length[i] = found;
    return found;
}

/* ---- forks ------------------------------------------------------------------------------------------------------- */

static void a_fork_shares_pages_until_one_goes_on(void **state) {
    (void)state;
    world *w = world_new(NULL, 0, 0);
    new_seq(w);
    assert_int_equal(extend_seq(w, 0, 40, 1), MINIM_OK);
    assert_int_equal(pages_in_use(w), 3);
    fork_seq(w, 0);
    fork_seq(w, 0);
    assert_int_equal(extend_seq(w, 1, 1, 2), MINIM_OK); /* copies the page that is begun */
    assert_int_equal(pages_in_use(w), 4);
    assert_int_equal(extend_seq(w, 0, 1, 3), MINIM_OK);
    assert_int_equal(pages_in_use(w), 5);
    assert_int_equal(extend_seq(w, 2, 1, 4), MINIM_OK); /* the last one has it to itself */
    assert_int_equal(pages_in_use(w), 5);
    check_pages(w);
    free_seq(w, 0); /* the fork does not need its origin */
    assert_int_equal(pages_in_use(w), 4);
    assert_int_equal(extend_seq(w, 1, 30, 5), MINIM_OK);
    assert_int_equal(extend_seq(w, 0, 30, 6), MINIM_OK);
    check_pages(w);
    world_free(w);
}

static void a_fork_at_the_end_of_a_page_copies_nothing(void **state) {
    (void)state;
    world *w = world_new(NULL, 0, 0);
    new_seq(w);
    assert_int_equal(extend_seq(w, 0, 32, 1), MINIM_OK);
    fork_seq(w, 0);
    assert_int_equal(extend_seq(w, 1, 1, 2), MINIM_OK);
    assert_int_equal(pages_in_use(w), 3);
    cut_seq(w, 1, 20); /* back into a page of both */
    assert_int_equal(extend_seq(w, 1, 1, 3), MINIM_OK);
    assert_int_equal(pages_in_use(w), 3);
    assert_int_equal(extend_seq(w, 0, 20, 4), MINIM_OK);
    check_pages(w);
    world_free(w);
}

static void a_copy_that_finds_no_room_fails_and_can_be_tried_again(void **state) {
    (void)state;
    world *w = world_new(NULL, 3, 0);
    new_seq(w);
    assert_int_equal(extend_seq(w, 0, 40, 1), MINIM_OK);
    fork_seq(w, 0);
    assert_int_equal(extend_seq(w, 1, 1, 2), MINIM_ERR_CONTEXT);
    check_pages(w);
    cut_seq(w, 0, 32);
    assert_int_equal(extend_seq(w, 1, 1, 2), MINIM_OK);
    assert_int_equal(extend_seq(w, 0, 1, 3), MINIM_ERR_CONTEXT);
    check_pages(w);
    free_seq(w, 1);
    assert_int_equal(extend_seq(w, 0, 1, 3), MINIM_OK);
    world_free(w);
}

static void a_cancelled_sequence_can_be_forked(void **state) {
    (void)state;
    minim_error e;
    world *w = world_new(NULL, 0, 0);
    new_seq(w);
    assert_int_equal(extend_seq(w, 0, 20, 1), MINIM_OK);
    minim_seq_cancel(w->seq[0]);
    fork_seq(w, 0);
    minim_seq_cancel(w->seq[1]);
    assert_int_equal(extend_seq(w, 1, 20, 2), MINIM_OK);
    minim_generate_options o;
    minim_generate_options_default(&o);
    o.max_tokens = 3, o.ignore_end = 1;
    minim_result r = {.size = sizeof r};
    ok(minim_generate(w->seq[1], w->tokens[0], 2, &o, &r, &e), &e);
    assert_int_equal(r.stop, MINIM_STOP_LENGTH);
    minim_seq *out = w->seq[0];
    assert_int_equal(minim_seq_fork(NULL, &out, &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_seq_fork(w->seq[0], NULL, &e), MINIM_ERR_ARGUMENT);
    check_pages(w);
    world_free(w);
}

/* Forks, cuts, continuations, frees and new beginnings in any order. */
static void any_order(const char *family, minim_kv_type kv, uint64_t pages, uint64_t cache, uint64_t hash_mask,
                      int n_steps) {
    world_kv = kv;
    world *w = world_new(family, pages, cache);
    world_kv = MINIM_KV_F16;
    int full = 0, done = 0;
    size_t found = 0;
    w->engine->kv->hash_mask = hash_mask;
    for (int step = 0; step < n_steps; step++) {
        size_t what = below(w, 12), i = w->n ? below(w, w->n) : 0;
        if (!w->n || (what == 0 && w->n < MAX_SEQS)) {
            new_seq(w);
        } else if (what <= 2 && w->n < MAX_SEQS) {
            fork_seq(w, i);
        } else if (what == 3 || w->n == MAX_SEQS) {
            free_seq(w, i);
        } else if (what == 4) {
            cut_seq(w, i, below(w, w->length[i] + 1));
        } else if (what >= 10) { /* begins anew, like another one or as somebody once did */
            size_t other = below(w, w->n), n = 1 + below(w, 100);
            cut_seq(w, i, 0);
            write_tokens(w, i, n, below(w, 3));
            if (what == 10) memcpy(w->tokens[i], w->tokens[other], w->length[other] * sizeof(int32_t));
            found += reuse(w, i, n);
            assert_true(w->length[i] < n);
            minim_status status = run_seq(w, i, n - w->length[i]);
            full += status == MINIM_ERR_CONTEXT, done += status == MINIM_OK;
        } else {
            size_t n = 1 + below(w, what == 5 ? 40 : 6);
            if (w->length[i] + n > N_CTX) n = 0;
            minim_status status = n ? extend_seq(w, i, n, below(w, 3)) : MINIM_OK;
            full += status == MINIM_ERR_CONTEXT, done += status == MINIM_OK;
            assert_true(!status || status == MINIM_ERR_CONTEXT);
        }
        check_pages(w);
    }
    assert_true(done > n_steps / 8);
    if (pages) assert_true(full > 0);
    assert_int_equal(found > 0, cache > 0);
    if (cache) print_message("  %zu tokens were found\n", found);
    world_free(w);
}

static void forks_cuts_and_frees_come_in_any_order(void **state) {
    (void)state;
    any_order(NULL, MINIM_KV_F16, 0, 0, 0, 300);
    any_order(NULL, MINIM_KV_F32, 20, 0, 0, 300);
    any_order(NULL, MINIM_KV_Q8, 20, 0, 0, 300);
    any_order(NULL, MINIM_KV_Q4, 20, 0, 0, 300);
}

/* gemma3 here: pages of windowed layers fall out, of each sequence at its own time. */
static void forks_of_windowed_layers_come_in_any_order(void **state) {
    (void)state;
    any_order("gemma3", MINIM_KV_F16, 0, 0, 0, 200);
    any_order("gemma3", MINIM_KV_Q4, 0, 0, 0, 200);
    any_order("gemma2", MINIM_KV_Q8, 30, 0, 0, 200);
}

/* ---- the prefix cache -------------------------------------------------------------------------------------------- */

enum { ALL = 1 << 28 /* bytes: more than there are */ };

static minim_engine_info info_of(const world *w) {
    minim_engine_info info = {.size = sizeof info};
    minim_engine_get_info(w->engine, &info);
    return info;
}

static void a_sequence_begins_with_the_pages_of_another(void **state) {
    (void)state;
    world *w = world_new(NULL, 0, ALL);
    new_seq(w);
    assert_int_equal(extend_seq(w, 0, 100, 1), MINIM_OK);
    assert_int_equal(pages_in_use(w), 7);
    new_seq(w);
    write_tokens(w, 1, 120, 1);
    assert_int_equal(reuse(w, 1, 120), 96);
    assert_int_equal(pages_in_use(w), 7); /* nothing is copied */
    assert_int_equal(run_seq(w, 1, 24), MINIM_OK);
    assert_int_equal(pages_in_use(w), 9);
    check_pages(w);
    free_seq(w, 0);
    free_seq(w, 0);
    assert_int_equal(pages_in_use(w), 0);
    assert_int_equal(info_of(w).pages_cached, 7); /* full ones */
    new_seq(w);
    write_tokens(w, 0, 112, 1);
    assert_int_equal(reuse(w, 0, 112), 96); /* the last token has to be computed */
    assert_int_equal(run_seq(w, 0, 16), MINIM_OK);
    assert_int_equal(info_of(w).prefix_asked, 119 + 111);
    assert_int_equal(info_of(w).prefix_found, 96 + 96);
    minim_error e;
    assert_int_equal(minim_seq_reuse(w->seq[0], w->tokens[0], 5, NULL, &e), MINIM_ERR_ARGUMENT); /* not empty */
    assert_int_equal(minim_seq_reuse(NULL, w->tokens[0], 5, NULL, &e), MINIM_ERR_ARGUMENT);
    cut_seq(w, 0, 0);
    assert_int_equal(minim_seq_reuse(w->seq[0], NULL, 5, NULL, &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(reuse(w, 0, 0), 0);
    assert_int_equal(reuse(w, 0, 1), 0);
    w->tokens[0][15]++; /* another first page */
    assert_int_equal(reuse(w, 0, 112), 0);
    check_pages(w);
    world_free(w);
}

/* Two that compute the same side by side end with one copy. */
static void equal_pages_become_one(void **state) {
    (void)state;
    world *w = world_new(NULL, 0, ALL);
    for (size_t i = 0; i < 3; i++) {
        new_seq(w);
        assert_int_equal(extend_seq(w, i, 40, 1), MINIM_OK);
    }
    assert_int_equal(pages_in_use(w), 2 + 3);
    for (size_t i = 0; i < 3; i++) assert_int_equal(extend_seq(w, i, 10, i), MINIM_OK);
    check_pages(w);
    world_free(w);
}

static void what_was_used_least_recently_goes_first(void **state) {
    (void)state;
    world *w = world_new(NULL, 8, ALL);
    for (size_t salt = 1; salt <= 3; salt++) {
        new_seq(w);
        assert_int_equal(extend_seq(w, 0, 32, salt), MINIM_OK);
        free_seq(w, 0);
    }
    assert_int_equal(info_of(w).pages_cached, 6);
    new_seq(w);
    write_tokens(w, 0, 33, 1);
    assert_int_equal(reuse(w, 0, 33), 32); /* the oldest is now the newest */
    free_seq(w, 0);
    new_seq(w);
    assert_int_equal(extend_seq(w, 0, 48, 0), MINIM_OK); /* 3 pages, one too many */
    assert_int_equal(info_of(w).pages_evicted, 1);
    const size_t left[] = {48, 32, 16, 32};
    for (size_t salt = 1; salt <= 3; salt++) {
        new_seq(w);
        write_tokens(w, 1, 33, salt);
        assert_int_equal(reuse(w, 1, 33), left[salt]); /* of the second only its end has gone */
        check_pages(w);
        free_seq(w, 1);
    }
    assert_int_equal(extend_seq(w, 0, 80, 0), MINIM_OK); /* all 8 */
    assert_int_equal(info_of(w).pages_cached, 0);
    assert_int_equal(extend_seq(w, 0, 1, 0), MINIM_ERR_CONTEXT);
    check_pages(w);
    world_free(w);
}

static void no_more_is_kept_than_allowed(void **state) {
    (void)state;
    world *w = world_new(NULL, 0, 0);
    uint64_t page = info_of(w).page_bytes;
    world_free(w);
    w = world_new(NULL, 0, 2 * page + page / 2);
    new_seq(w);
    assert_int_equal(extend_seq(w, 0, 100, 1), MINIM_OK);
    free_seq(w, 0);
    assert_int_equal(info_of(w).pages_allocated, 2);
    new_seq(w);
    write_tokens(w, 0, 100, 1);
    assert_int_equal(reuse(w, 0, 100), 32); /* the beginning */
    check_pages(w);
    world_free(w);
}

/* The page of a pool of one is written into again, although the index knows it. */
static void a_pool_of_one_page_is_enough(void **state) {
    (void)state;
    world *w = world_new(NULL, 1, ALL);
    new_seq(w);
    for (size_t n = 16; n < 17; n -= 5) {
        assert_int_equal(extend_seq(w, 0, 16 - w->length[0], n), MINIM_OK);
        assert_int_equal(extend_seq(w, 0, 1, 1), MINIM_ERR_CONTEXT);
        check_pages(w);
        cut_seq(w, 0, n - 1);
    }
    world_free(w);
}

static void a_window_needs_its_pages(void **state) {
    (void)state;
    world *w = world_new("gemma3", 0, ALL); /* 1 layer that sees all, 6 windowed ones */
    new_seq(w);
    assert_int_equal(extend_seq(w, 0, 200, 1), MINIM_OK);
    free_seq(w, 0);
    new_seq(w);
    write_tokens(w, 0, 150, 1);
    assert_int_equal(reuse(w, 0, 150), 144);
    assert_int_equal(run_seq(w, 0, 6), MINIM_OK);
    assert_true(pages_in_use(w) < 10 * 7); /* without the pages that no window reaches */
    check_pages(w);
    cut_seq(w, 0, 30); /* behind what it has of the windows: made again */
    assert_int_equal(extend_seq(w, 0, 30, 2), MINIM_OK);
    check_pages(w);
    world_free(w);

    w = world_new("gemma3", 60, ALL); /* 12 pages of tokens and 48 others */
    new_seq(w);
    for (int i = 0; i < 10; i++) assert_int_equal(extend_seq(w, 0, 16, 1), MINIM_OK);
    new_seq(w);
    for (int i = 0; i < 10; i++)
        assert_int_equal(extend_seq(w, 1, 7, 2), MINIM_OK); /* takes windows that the first has left */
    assert_true(info_of(w).pages_evicted > 0);
    new_seq(w);
    write_tokens(w, 2, 100, 1);
    assert_int_equal(reuse(w, 2, 100), 0);
    check_pages(w);
    world_free(w);
}

static void every_beginning_gives_the_same_bits(void **state) {
    (void)state;
    any_order(NULL, MINIM_KV_F16, 0, ALL, UINT64_MAX, 400);
    any_order(NULL, MINIM_KV_Q8, 0, ALL, UINT64_MAX, 400);
    any_order(NULL, MINIM_KV_F32, 20, ALL, UINT64_MAX, 400);
    any_order(NULL, MINIM_KV_Q4, 20, ALL, UINT64_MAX, 400);
    any_order(NULL, MINIM_KV_Q8, 20, ALL, 0, 400); /* all hashes collide */
    any_order(NULL, MINIM_KV_Q8_Q4, 30, 20000, 1, 400);
    any_order("gemma3", MINIM_KV_Q8, 0, ALL, UINT64_MAX, 300);
    any_order("gemma2", MINIM_KV_Q4, 40, ALL, UINT64_MAX, 400);
    any_order("gemma2", MINIM_KV_F16, 40, ALL, 0, 200);
}

/* The same answers with it and without. */
static void answers_do_not_depend_on_it(void **state) {
    (void)state;
    minim_error e;
    world *w = world_new(NULL, 0, ALL);
    minim_generate_options o;
    minim_generate_options_default(&o);
    o.max_tokens = 30, o.ignore_end = 1, o.sampling.temperature = 1;
    for (size_t i = 0; i < 4; i++) {
        minim_result r = {.size = sizeof r}, plain = {.size = sizeof plain};
        new_seq(w);
        write_tokens(w, 0, 90, 1);
        if (i == 2) w->tokens[0][50]++;
        ok(minim_generate(w->seq[0], w->tokens[0], 90, &o, &r, &e), &e);
        minim_seq_truncate(w->one, 0);
        ok(minim_generate(w->one, w->tokens[0], 90, &o, &plain, &e), &e);
        assert_int_equal(r.n_reused, i == 0 ? 0 : i == 2 ? 48 : 80);
        assert_int_equal(plain.n_reused, 0);
        assert_memory_equal(&r.sum_logprob, &plain.sum_logprob, 4 * sizeof r.sum_logprob);
        assert_int_equal(minim_seq_length(w->seq[0]), 119);
        check_pages(w);
        free_seq(w, 0);
    }
    world_free(w);
}

/* What was stored as 4 bits is there within half a step, wherever heads end. */
static void four_bits_come_back_where_they_were_put(void **state) {
    (void)state;
    static const int dims[] = {1, 7, 8, 16, 18, 20, 64, 128};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        enum { DIM = 128, HEADS = 2, TOKENS = 40, PAGES = 3 };
        const size_t dim = (size_t)dims[i], padded = (dim + 7) / 8 * 8;
        minim_error e;
        kern_table kern;
        kv_pool *pool;
        kv_table table = {0};
        const minim_allocator a = mem_allocator(NULL);
        kv_shape shape = {
            .n_layers = 1, .n_kv_heads = HEADS, .head_dim = dims[i], .page_size = PAGE, .type = KERN_KV_Q4};
        float row[2][TOKENS][HEADS * DIM], scratch[DIM];
        int8_t codes[2][PAGE * DIM + 4];
        kern_table_init(&kern, NULL);
        kv_shape_pages(&shape);
        ok(kv_pool_new(&a, &shape, PAGES, 0, &pool, &e), &e);
        ok(kv_reserve(pool, &table, 0, TOKENS, &e), &e);
        for (size_t t = 0; t < TOKENS; t++) {
            for (size_t d = 0; d < HEADS * dim; d++)
                for (int v = 0; v < 2; v++) row[v][t][d] = (float)((t * 31 + d * 17 + (size_t)v * 7) % 41) - 20.0f;
            kv_store(pool, &kern, &table, 0, TOKENS - 1 - t, row[0][t], row[1][t], scratch); /* in any order */
        }
        for (size_t t = 0; t < TOKENS; t++) {
            const size_t at = TOKENS - 1 - t, column = at % PAGE;
            const kv_page *page = kv_page_at(pool, &table, at / PAGE, 0);
            for (int head = 0; head < HEADS; head++) {
                void *k = kv_keys(pool, page, 0, head), *v = kv_values(pool, page, 0, head);
                kv_unpack_keys(pool, &kern, k, codes[0]);
                kv_unpack_values(pool, &kern, v, codes[1]);
                for (size_t d = 0; d < dim; d++) {
                    const float key =
                        (float)codes[0][(d / 4 * PAGE + column) * 4 + d % 4] * kv_scales(pool, k, 0)[column];
                    const float value = (float)codes[1][(column / 4 * dim + d) * 4 + column % 4] *
                                        kern_level_scale(kv_scales(pool, v, 1)[column]);
                    assert_float_equal(key, row[0][t][(size_t)head * dim + d], 0.501f * kv_scales(pool, k, 0)[column]);
                    assert_float_equal(value, row[1][t][(size_t)head * dim + d],
                                       0.501f * kern_level_scale(kv_scales(pool, v, 1)[column]));
                }
            }
        }
        assert_int_equal(kv_key_dims(pool), padded);
        kv_table_free(pool, &table);
        kv_pool_free(pool);
    }
}

static size_t allocated(void) {
    const struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

/* Pages of a megabyte, which are allocated many at a time, keep what is written into them, begin empty, are no more
 * than the limit, and their memory goes back. */
static void large_pages_are_nobody_elses(void **state) {
    enum { TABLES = 5, LIMIT = 37, SIZE = 64, STEPS = 400, MOST = 20 };
    const minim_allocator a = mem_allocator(NULL);
    kv_shape shape = {.n_layers = 4, .n_kv_heads = 8, .head_dim = 64, .page_size = SIZE, .type = KERN_KV_F32};
    kv_pool *pool;
    kv_table table[TABLES] = {{0}};
    minim_error e;
    uint64_t random = 7;
    int full = 0;
    (void)state;
    kv_shape_pages(&shape);
    const size_t bytes = (size_t)kv_page_bytes(&shape) - KV_HEADER, before = allocated();
    ok(kv_pool_new(&a, &shape, LIMIT, 0, &pool, &e), &e);
    for (size_t step = 0; step < STEPS; step++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        const size_t i = (random >> 33) % TABLES, want = (random >> 40) % (MOST + 1), had = table[i].n;
        kv_table *t = &table[i];
        for (size_t k = 0; k < had; k++) {
            const uint32_t *first = (const uint32_t *)(const void *)((const char *)t->page[k] + KV_HEADER);
            assert_int_equal(first[0], i * MOST + k + 1);
            assert_int_equal(first[bytes / 4 - 1], i * MOST + k + 1);
        }
        if (want <= had)
            kv_shrink(pool, t, want * SIZE);
        else if (kv_reserve(pool, t, had * SIZE, want * SIZE, &e))
            assert_int_equal(e.status, MINIM_ERR_CONTEXT), full++;
        for (size_t k = had; k < t->n; k++) {
            uint32_t *first = (uint32_t *)(void *)((char *)t->page[k] + KV_HEADER);
            assert_int_equal((uintptr_t)first % 64, 0);
            for (size_t at = 0; at < bytes / 4; at += 509) assert_int_equal(first[at], 0);
            assert_int_equal(first[bytes / 4 - 1], 0);
            first[0] = first[bytes / 4 - 1] = (uint32_t)(i * MOST + k + 1);
        }
        assert_true(kv_pool_counts(pool).in_use <= LIMIT);
        assert_true(allocated() <= before + LIMIT * bytes + (9 << 20)); /* rounding to huge pages */
    }
    assert_true(full > 10);
    for (size_t i = 0; i < TABLES; i++) kv_table_free(pool, &table[i]);
    assert_int_equal(kv_pool_counts(pool).in_use, 0);
    assert_true(allocated() <= before + bytes);
    kv_pool_free(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fork_shares_pages_until_one_goes_on),
        cmocka_unit_test(a_fork_at_the_end_of_a_page_copies_nothing),
        cmocka_unit_test(a_copy_that_finds_no_room_fails_and_can_be_tried_again),
        cmocka_unit_test(a_cancelled_sequence_can_be_forked),
        cmocka_unit_test(forks_cuts_and_frees_come_in_any_order),
        cmocka_unit_test(forks_of_windowed_layers_come_in_any_order),
        cmocka_unit_test(a_sequence_begins_with_the_pages_of_another),
        cmocka_unit_test(equal_pages_become_one),
        cmocka_unit_test(what_was_used_least_recently_goes_first),
        cmocka_unit_test(no_more_is_kept_than_allowed),
        cmocka_unit_test(a_pool_of_one_page_is_enough),
        cmocka_unit_test(a_window_needs_its_pages),
        cmocka_unit_test(every_beginning_gives_the_same_bits),
        cmocka_unit_test(answers_do_not_depend_on_it),
        cmocka_unit_test(four_bits_come_back_where_they_were_put),
        cmocka_unit_test(large_pages_are_nobody_elses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
