/* test_generate.c: minim_generate() with the built-in model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "../engine/minim.h"

/* The beginning of the story of ../shared/models/README.md, word for word. */
static const char story[] =
    ", there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. "
    "She "
    "wanted to play with it, but it was too high.\nLily's mom said, \"Lily, let's go to the park.\" Lily was sad and "
    "didn't know what to do.";

typedef struct world {
    minim_model *model;
    minim_engine *engine;
    minim_seq *seq;
    int32_t prompt[64];
    size_t n_prompt;
    char text[4096];
    size_t n_text;
    minim_token_event events[512];
    size_t n_events, stop_after;
} world;

static void ok(minim_status status, const minim_error *e) {
    if (status) fail_msg("%s: %s", minim_status_name(status), e->text);
}

static int setup(void **state) {
    world *w = calloc(1, sizeof *w);
    minim_error e;
    size_t size;
    assert_non_null(w);
    const void *data = minim_default_model(&size);
    ok(minim_model_load_memory(data, size, "stories", NULL, &w->model, &e), &e);
    minim_engine_options o;
    minim_engine_options_default(&o);
    o.n_threads = 2;
    ok(minim_engine_new(w->model, &o, &w->engine, &e), &e);
    ok(minim_seq_new(w->engine, &w->seq, &e), &e);
    ok(minim_tokenize(w->model, "Once upon a time", 16, MINIM_ADD_SPECIAL, w->prompt, 64, &w->n_prompt, &e), &e);
    *state = w;
    return 0;
}

static int teardown(void **state) {
    world *w = *state;
    minim_seq_free(w->seq);
    minim_engine_free(w->engine);
    minim_model_free(w->model);
    free(w);
    return 0;
}

static int take_text(void *user, const char *text, size_t n) {
    world *w = user;
    assert_true(w->n_text + n < sizeof w->text);
    memcpy(w->text + w->n_text, text, n);
    w->n_text += n;
    return 0;
}

static int take_token(void *user, const minim_token_event *event) {
    world *w = user;
    assert_int_equal(event->index, w->n_events);
    w->events[w->n_events++] = *event;
    return w->stop_after && w->n_events == w->stop_after;
}

static minim_generate_options options_for(world *w) {
    minim_generate_options o;
    minim_generate_options_default(&o);
    o.user = w, o.on_text = take_text, o.on_token = take_token;
    memset(w->text, 0, sizeof w->text);
    w->n_text = w->n_events = 0;
    minim_seq_truncate(w->seq, 0);
    return o;
}

static minim_result generate(world *w, const minim_generate_options *o) {
    minim_error e;
    minim_result r = {.size = sizeof r};
    ok(minim_generate(w->seq, w->prompt, w->n_prompt, o, &r, &e), &e);
    return r;
}

static void greedy_tells_the_story(void **state) {
    world *w = *state;
    minim_generate_options o = options_for(w);
    o.max_tokens = 101;
    minim_result r = generate(w, &o);
    assert_string_equal(w->text, story);
    assert_int_equal(r.stop, MINIM_STOP_LENGTH);
    assert_int_equal(r.n_generated, 101);
    assert_int_equal(r.n_prompt, w->n_prompt);
    assert_int_equal(minim_seq_length(w->seq), w->n_prompt + 100);
    assert_true(r.first_token_seconds > 0 && r.decode_bytes > 0);
}

static void a_full_context_ends_the_text(void **state) {
    world *w = *state;
    minim_generate_options o = options_for(w);
    minim_result r = generate(w, &o);
    assert_int_equal(r.stop, MINIM_STOP_CONTEXT);
    assert_int_equal(minim_seq_length(w->seq), 128);
    assert_memory_equal(w->text, story, sizeof story - 1);
}

static void a_stop_string_is_not_part_of_the_text(void **state) {
    world *w = *state;
    minim_generate_options o = options_for(w);
    const char *stop[] = {"red ball", "park. One"};
    o.stop = stop, o.n_stop = 2;
    minim_result r = generate(w, &o);
    assert_int_equal(r.stop, MINIM_STOP_STRING);
    assert_string_equal(w->text, ", there was a little girl named Lily. She loved to play outside in the ");
}

static void a_callback_stops(void **state) {
    world *w = *state;
    minim_generate_options o = options_for(w);
    w->stop_after = 5;
    minim_result r = generate(w, &o);
    w->stop_after = 0;
    assert_int_equal(r.stop, MINIM_STOP_CALLBACK);
    assert_int_equal(r.n_generated, 5);
}

static void figures_come_from_the_raw_logits(void **state) {
    world *w = *state;
    minim_generate_options o = options_for(w);
    o.max_tokens = 20, o.sampling.temperature = 0.8f, o.sampling.seed = 11, o.sampling.repeat_penalty = 1.3f;
    minim_result r = generate(w, &o);
    /* again, by hand */
    enum { N_VOCAB = 512 };
    minim_error e;
    float logits[N_VOCAB];
    double sum = 0;
    minim_seq *seq;
    ok(minim_seq_new(w->engine, &seq, &e), &e);
    for (size_t i = 0; i < w->n_prompt + 19; i++) {
        int32_t token = i < w->n_prompt ? w->prompt[i] : w->events[i - w->n_prompt].token;
        minim_row row = {seq, token, 1};
        ok(minim_engine_step(w->engine, &row, 1, logits, &e), &e);
        if (i + 1 < w->n_prompt) continue;
        const minim_token_event *event = &w->events[i + 1 - w->n_prompt];
        double max = -INFINITY, total = 0, entropy = 0;
        for (int k = 0; k < N_VOCAB; k++) max = fmax(max, (double)logits[k]);
        for (int k = 0; k < N_VOCAB; k++) total += exp((double)logits[k] - max);
        for (int k = 0; k < N_VOCAB; k++) {
            double logprob = (double)logits[k] - max - log(total);
            entropy -= exp(logprob) * logprob;
        }
        double want = (double)logits[event->token] - max - log(total);
        assert_true(fabs(want - (double)event->logprob) < 1e-4);
        assert_true(fabs(entropy - (double)event->entropy) < 1e-3);
        sum += want;
    }
    assert_true(fabs(sum - r.sum_logprob) < 1e-3);
    minim_seq_free(seq);
}

static void a_seed_gives_one_text_and_another_seed_another(void **state) {
    world *w = *state;
    char first[sizeof w->text];
    for (int run = 0; run < 3; run++) {
        minim_generate_options o = options_for(w);
        o.max_tokens = 60, o.sampling.temperature = 1, o.sampling.seed = run == 2 ? 4 : 3;
        generate(w, &o);
        if (run == 0) memcpy(first, w->text, sizeof first);
        if (run == 1) assert_string_equal(w->text, first);
        if (run == 2) assert_string_not_equal(w->text, first);
    }
}

static void a_sequence_goes_on_where_it_ended(void **state) {
    world *w = *state;
    minim_generate_options o = options_for(w);
    o.max_tokens = 101;
    generate(w, &o);
    char whole[sizeof w->text];
    memcpy(whole, w->text, sizeof whole);
    o = options_for(w);
    o.max_tokens = 30;
    generate(w, &o);
    int32_t last = w->events[29].token; /* generated, but not yet run */
    minim_error e;
    o.max_tokens = 71;
    w->n_events = 0;
    ok(minim_generate(w->seq, &last, 1, &o, NULL, &e), &e);
    assert_string_equal(w->text, whole);
}

static void what_does_not_fit_is_refused_and_changes_nothing(void **state) {
    world *w = *state;
    minim_error e;
    int32_t many[200];
    for (int i = 0; i < 200; i++) many[i] = 5;
    minim_generate_options o = options_for(w);
    assert_int_equal(minim_generate(w->seq, many, 200, &o, NULL, &e), MINIM_ERR_CONTEXT);
    assert_non_null(strstr(e.text, "200 tokens"));
    assert_non_null(strstr(e.text, "128"));
    assert_int_equal(minim_seq_length(w->seq), 0);
    many[3] = 512;
    assert_int_equal(minim_generate(w->seq, many, 10, &o, NULL, &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_generate(w->seq, many, 0, &o, NULL, &e), MINIM_ERR_ARGUMENT);
    o.sampling.temperature = NAN;
    assert_int_equal(minim_generate(w->seq, many, 2, &o, NULL, &e), MINIM_ERR_ARGUMENT);
    assert_non_null(strstr(e.text, "temperature"));
    assert_int_equal(w->n_events, 0);
}

static void *cancel_soon(void *arg) {
    world *w = arg;
    while (__atomic_load_n(&w->n_events, __ATOMIC_RELAXED) < 3) {
    }
    minim_seq_cancel(w->seq);
    return NULL;
}

static int count_token(void *user, const minim_token_event *event) {
    world *w = user;
    (void)event;
    __atomic_fetch_add(&w->n_events, 1, __ATOMIC_RELAXED);
    return 0;
}

static void another_thread_can_cancel(void **state) {
    world *w = *state;
    minim_engine_options eo;
    minim_engine_options_default(&eo);
    eo.n_threads = 1, eo.n_ctx = 4000;
    minim_error e;
    minim_engine *engine = NULL;
    minim_seq *mine = w->seq;
    ok(minim_engine_new(w->model, &eo, &engine, &e), &e);
    ok(minim_seq_new(engine, &w->seq, &e), &e);
    minim_generate_options o = options_for(w);
    o.on_token = count_token, o.on_text = NULL, o.ignore_end = 1;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, w), 0);
    minim_result r = generate(w, &o);
    pthread_join(thread, NULL);
    assert_int_equal(r.stop, MINIM_STOP_CANCELLED);
    assert_true(r.n_generated < 3990);
    minim_seq_free(w->seq);
    minim_engine_free(engine);
    w->seq = mine;
}

/* Cancels again and again, a little later each time, until it is told to stop. */
typedef struct pest {
    minim_seq *seq;
    int delay, stop;
} pest;

static void *pest_main(void *arg) {
    pest *p = arg;
    while (!__atomic_load_n(&p->stop, __ATOMIC_RELAXED)) {
        for (int i = __atomic_load_n(&p->delay, __ATOMIC_RELAXED);
             i > 0 && !__atomic_load_n(&p->stop, __ATOMIC_RELAXED); i--) {
        }
        minim_seq_cancel(p->seq);
    }
    return NULL;
}

/* Whenever it comes: the answer is the beginning of what it would have been, and nothing is lost. */
static void a_cancel_may_come_at_any_moment(void **state) {
    world *w = *state;
    minim_generate_options o = options_for(w);
    o.max_tokens = 60, o.ignore_end = 1;
    minim_seq_truncate(w->seq, 0);
    generate(w, &o);
    int32_t whole[60];
    assert_int_equal(w->n_events, 60);
    for (size_t i = 0; i < 60; i++) whole[i] = w->events[i].token;
    for (int round = 0; round < 150; round++) {
        pest p = {.seq = w->seq, .delay = round * 1500};
        pthread_t thread;
        w->n_events = w->n_text = 0;
        minim_seq_truncate(w->seq, 0);
        assert_int_equal(pthread_create(&thread, NULL, pest_main, &p), 0);
        minim_result r = generate(w, &o);
        __atomic_store_n(&p.stop, 1, __ATOMIC_RELAXED);
        pthread_join(thread, NULL);
        assert_true(r.stop == MINIM_STOP_CANCELLED || (r.stop == MINIM_STOP_LENGTH && r.n_generated == 60));
        assert_int_equal(r.n_generated, w->n_events);
        for (size_t i = 0; i < w->n_events; i++) assert_int_equal(w->events[i].token, whole[i]);
        if (w->n_events) assert_int_equal(minim_seq_length(w->seq), w->n_prompt + w->n_events - 1);
    }
    minim_seq_truncate(w->seq, 0);
    w->n_events = w->n_text = 0;
    assert_int_equal(generate(w, &o).stop, MINIM_STOP_LENGTH); /* the next one starts afresh */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_tells_the_story),
        cmocka_unit_test(a_full_context_ends_the_text),
        cmocka_unit_test(a_stop_string_is_not_part_of_the_text),
        cmocka_unit_test(a_callback_stops),
        cmocka_unit_test(figures_come_from_the_raw_logits),
        cmocka_unit_test(a_seed_gives_one_text_and_another_seed_another),
        cmocka_unit_test(a_sequence_goes_on_where_it_ended),
        cmocka_unit_test(what_does_not_fit_is_refused_and_changes_nothing),
        cmocka_unit_test(another_thread_can_cancel),
        cmocka_unit_test(a_cancel_may_come_at_any_moment),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
