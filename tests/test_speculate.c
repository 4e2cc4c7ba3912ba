/* test_speculate.c: speculation changes nothing but the speed: every token, figure, text and length is that of plain
 * generation, however guesses are made and wherever it stops. And the index behind prompt lookup finds what is there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../engine/engine.h"
#include "../engine/minim.h"
#include "../engine/ngram.h"
#include "count_allocator.h"
#include "family_model.h"
#include "pages.h"
#include "synth.h"

enum { MOST = 400 /* tokens of an answer */, TOP = 3 };

static void ok(minim_status status, const minim_error *e) {
    if (status) fail_msg("%s: %s", minim_status_name(status), e->text);
}

static uint64_t lot(uint64_t *state, uint64_t n) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (*state >> 33) % n;
}

/* ---- the index --------------------------------------------------------------------------------------------------- */

/* How many tokens before places a < b agree. */
static size_t agree(const int32_t *text, size_t a, size_t b) {
    size_t n = 0;
    while (n < a && text[a - 1 - n] == text[b - 1 - n]) n++;
    return n;
}

/* Few enough equal grams that no chain is longer than what is looked at; then nothing longer exists. */
static void the_longest_match_is_found(void **state) {
    (void)state;
    enum { N = 1500 };
    static int32_t text[N];
    uint64_t seed = 3;
    ngram_index *x;
    minim_error e;
    size_t n = 0, matches = 0;
    while (n < N) { /* new words, and now and then a piece of what was there */
        const size_t length = 1 + (size_t)lot(&seed, 30), from = n > 200 ? (size_t)lot(&seed, n - 40) : 0;
        const int is_copy = n > 200 && lot(&seed, 2);
        for (size_t i = 0; i < length && n < N; i++, n++) text[n] = is_copy ? text[from + i] : (int32_t)lot(&seed, 700);
    }
    ok(ngram_new(NULL, &x, &e), &e);
    for (n = 1; n <= N; n++) {
        ok(ngram_push(x, text[n - 1], &e), &e);
        size_t best = 0, from = 0, ways = 0;
        int32_t guess[40];
        ngram_guess(x, guess, 40);
        for (size_t place = 1; place < n; place++) {
            const size_t equal = agree(text, place, n);
            ways += equal >= NGRAM_SHORT;
            const size_t known = n - place < 40 ? n - place : 40;
            if (equal > best || (equal && equal == best && memcmp(text + place, guess, known * sizeof *guess) == 0))
                best = equal, from = place; /* of several the one that the index has taken */
        }
        if (ways > NGRAM_CANDIDATES) continue;
        assert_int_equal(ngram_length(x), best);
        assert_int_equal(ngram_guess(x, guess, 40), best ? 40 : 0);
        if (!best) continue;
        matches++;
        for (size_t i = 0; i < 40; i++) assert_int_equal(guess[i], from + i < n ? text[from + i] : guess[from + i - n]);
    }
    assert_true(matches > N / 2);
    ngram_free(x);
}

/* Behind a quote goes on what stands shortly behind it, not what came last; without a quote before, the latest. */
static void what_lies_behind_the_last_quote_is_preferred(void **state) {
    (void)state;
    static const int32_t text[] = {1, 2, 3, 4, 5, 6, 100, 50, 60}, later[] = {50, 70, 202},
                         quote[] = {1, 2, 3, 4, 5, 6};
    for (int quotes = 0; quotes < 2; quotes++) {
        ngram_index *x;
        minim_error e;
        int32_t guess;
        ok(ngram_new(NULL, &x, &e), &e);
        for (size_t i = 0; i < sizeof text / sizeof *text; i++) ok(ngram_push(x, text[i], &e), &e);
        for (int32_t i = 0; i < 40; i++) ok(ngram_push(x, 300 + i, &e), &e);
        for (size_t i = 0; i < sizeof later / sizeof *later; i++) ok(ngram_push(x, later[i], &e), &e);
        for (size_t i = 0; quotes && i < sizeof quote / sizeof *quote; i++) ok(ngram_push(x, quote[i], &e), &e);
        ok(ngram_push(x, 99, &e), &e);
        ok(ngram_push(x, 50, &e), &e);
        assert_int_equal(ngram_guess(x, &guess, 1), 1);
        assert_int_equal(guess, quotes ? 60 : 70);
        ngram_free(x);
    }
}

/* Whatever the text, a match is one, and a guess is what followed it. */
static void a_match_is_a_match(void **state) {
    (void)state;
    for (int letters = 1; letters < 6; letters++) {
        enum { N = 2000 };
        static int32_t text[N];
        uint64_t seed = (uint64_t)letters;
        ngram_index *x;
        minim_error e;
        ok(ngram_new(NULL, &x, &e), &e);
        assert_int_equal(ngram_length(x), 0);
        for (size_t n = 1; n <= N; n++) {
            int32_t guess[3];
            size_t places = 0;
            text[n - 1] = (int32_t)lot(&seed, (uint64_t)letters);
            ok(ngram_push(x, text[n - 1], &e), &e);
            const size_t length = ngram_length(x);
            if (!length) continue;
            ngram_guess(x, guess, 3);
            for (size_t place = n > 300 ? n - 300 : length; place < n; place++)
                places += place >= length && agree(text, place, n) >= length && text[place] == guess[0];
            if (n <= 300) assert_true(places > 0);
        }
        if (letters == 1) assert_int_equal(ngram_length(x), N - 1);
        ngram_free(x);
    }
}

static void a_loop_is_guessed_around(void **state) {
    (void)state;
    ngram_index *x;
    minim_error e;
    int32_t guess[16];
    ok(ngram_new(NULL, &x, &e), &e);
    for (int i = 0; i < 40; i++) ok(ngram_push(x, i % 3, &e), &e);
    assert_int_equal(ngram_length(x), 37);
    assert_int_equal(ngram_guess(x, guess, 16), 16);
    for (int i = 0; i < 16; i++) assert_int_equal(guess[i], (40 + i) % 3);
    ngram_free(x);
}

static void the_index_survives_failing_memory(void **state) {
    (void)state;
    for (size_t fail = 1, done = 0; !done; fail++) {
        count_allocator count = {.fail_at = fail};
        const minim_allocator a = count_allocator_get(&count);
        ngram_index *x;
        minim_error e;
        size_t failed = 0;
        if (ngram_new(&a, &x, &e) == MINIM_OK) {
            for (int i = 0; i < 600; i++) {
                const size_t before = ngram_length(x);
                if (ngram_push(x, i % 37, &e) == MINIM_OK) continue;
                failed++;
                assert_int_equal(e.status, MINIM_ERR_MEMORY);
                assert_int_equal(ngram_length(x), before);
                ok(ngram_push(x, i % 37, &e), &e); /* now there is memory again */
            }
            assert_int_equal(ngram_length(x), 600 - 37);
            done = !failed;
        }
        ngram_free(x);
        assert_true(count_allocator_clean(&count));
    }
}

/* ---- models ------------------------------------------------------------------------------------------------------ */

enum kind { STORIES, HURT, WINDOWED, N_KINDS };

static minim_model *models[N_KINDS];

static minim_model *load(const void *image, size_t size) {
    minim_error e;
    minim_model *m;
    ok(minim_model_load_memory(image, size, "model", NULL, &m, &e), &e);
    return m;
}

/* The built-in model with a bad last layer: often right. */
static void *hurt_image(size_t *size) {
    minim_error e;
    minim_model_options o;
    minim_model *m;
    minim_tensor t;
    const void *data = minim_default_model(size);
    char *image = malloc(*size);
    assert_non_null(image);
    memcpy(image, data, *size);
    minim_model_options_default(&o);
    o.level = MINIM_LOAD_HEADER;
    ok(minim_model_load_memory(image, *size, "hurt", &o, &m, &e), &e);
    for (size_t i = 0; minim_model_tensor(m, i, &t) == MINIM_OK; i++)
        if (!strcmp(t.name, "blk.4.ffn_down.weight")) break;
    size_t at = 0; /* of the tensor's data: the last tensor ends with the file */
    for (size_t i = 0; minim_model_tensor(m, i, &t) == MINIM_OK; i++)
        at = t.offset + t.bytes > at ? t.offset + t.bytes : at;
    for (size_t i = 0; minim_model_tensor(m, i, &t) == MINIM_OK; i++) {
        if (strcmp(t.name, "blk.4.ffn_down.weight") != 0) continue;
        assert_true(t.offset + t.bytes <= *size);
        memset(image + t.offset, 0, t.bytes);
        at = 0;
    }
    assert_int_equal(at, 0); /* it was found */
    minim_model_free(m);
    return image;
}

static int setup(void **state) {
    (void)state;
    size_t size;
    const void *data = minim_default_model(&size);
    models[STORIES] = load(data, size);
    void *image = hurt_image(&size);
    models[HURT] = load(image, size);
    free(image);
    const family_model *f = family_models;
    while (f->name && strcmp(f->name, "gemma2") != 0) f++;
    image = family_model_image(f, -1, FAMILY_INTACT, NULL, &size);
    models[WINDOWED] = load(image, size);
    free(image);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    for (int i = 0; i < N_KINDS; i++) minim_model_free(models[i]);
    return 0;
}

static minim_engine *new_engine(const minim_model *m, int n_ctx, const minim_allocator *a) {
    minim_error e;
    minim_engine *engine;
    minim_engine_options o;
    minim_engine_options_default(&o);
    o.n_threads = 1, o.n_ctx = n_ctx, o.page_size = 16, o.n_batch = 32, o.allocator = a;
    ok(minim_engine_new(m, &o, &engine, &e), &e);
    return engine;
}

/* ---- what a generation shows ---------------------------------------------------------------------------------------
 */

typedef struct trace {
    minim_seq *seq;
    int stop_at, cancel_at, stop_text_at; /* index of a token, or of a text; -1 = never */
    minim_token_event events[MOST];
    minim_logprob top[MOST][TOP];
    int n_events;
    char text[16 * MOST];
    size_t n_text, text_ends[MOST]; /* where each call of on_text ended */
    int n_texts;
    minim_result r;
    size_t length;
    int32_t tokens[1024]; /* that the sequence holds */
    int32_t next[8];      /* what it says when it goes on */
} trace;

static int on_token(void *user, const minim_token_event *event) {
    trace *t = user;
    assert_true(t->n_events < MOST);
    assert_int_equal(event->index, t->n_events);
    t->events[t->n_events] = *event;
    t->events[t->n_events].top = NULL;
    memcpy(t->top[t->n_events], event->top, (size_t)event->n_top * sizeof *event->top);
    if (event->index == t->cancel_at) minim_seq_cancel(t->seq);
    return t->n_events++ == t->stop_at;
}

static int on_text(void *user, const char *text, size_t n) {
    trace *t = user;
    assert_true(t->n_text + n < sizeof t->text && t->n_texts < MOST);
    memcpy(t->text + t->n_text, text, n);
    t->n_text += n;
    t->text_ends[t->n_texts] = t->n_text;
    return t->n_texts++ == t->stop_text_at;
}

static int on_next(void *user, const minim_token_event *event) {
    int32_t *next = user;
    next[event->index] = event->token;
    return 0;
}

static const char prompt_text[] =
    "Once upon a time, there was a little girl named Lily. She saw a big, red ball. Lily wanted to play with the ball. "
    "Once upon a time, there was a little boy named Tim. He saw a big, red ball. Tim wanted to play with the ball. "
    "Once upon a time, there was a little dog named Spot.";

static size_t prompt_tokens(int32_t *tokens, size_t most) {
    minim_error e;
    size_t n;
    ok(minim_tokenize(models[STORIES], prompt_text, strlen(prompt_text), MINIM_ADD_SPECIAL, tokens, most, &n, &e), &e);
    return n;
}

/* Generates behind the prompt and fills all of *t but what makes it stop. */
static void generate(trace *t, minim_seq *seq, minim_generate_options o) {
    int32_t prompt[256];
    minim_error e;
    const size_t n = prompt_tokens(prompt, 256);
    t->seq = seq;
    t->r.size = sizeof t->r;
    o.user = t, o.on_token = on_token, o.on_text = on_text, o.n_top = TOP;
    ok(minim_generate(seq, prompt, n, &o, &t->r, &e), &e);
    t->length = minim_seq_length(seq);
    assert_int_equal(t->length, n + (size_t)t->n_events - 1);
    assert_true(t->length <= sizeof t->tokens / sizeof *t->tokens);
    memcpy(t->tokens, seq->tokens, t->length * sizeof *t->tokens);
    assert_int_equal(seq->lost, 0);
    /* Each step gives a token of its own, unless the answer stops before that. */
    const size_t sum = 1 + t->r.n_steps + t->r.n_accepted;
    assert_true(t->r.n_generated == sum || t->r.n_generated + 1 == sum);
    assert_true(t->r.n_accepted <= t->r.n_drafted);
    if (t->length + 9 > (size_t)seq->engine->n_ctx || t->r.stop == MINIM_STOP_CONTEXT) return;
    minim_generate_options more;
    minim_generate_options_default(&more);
    more.n_lookup = 0, more.max_tokens = 8, more.ignore_end = 1, more.user = t->next, more.on_token = on_next;
    ok(minim_generate(seq, &t->events[t->n_events - 1].token, 1, &more, NULL, &e), &e);
}

static void assert_same(const trace *a, const trace *b) {
    assert_int_equal(a->n_events, b->n_events);
    for (int i = 0; i < a->n_events; i++) {
        assert_int_equal(a->events[i].token, b->events[i].token);
        assert_int_equal(a->events[i].is_end, b->events[i].is_end);
        assert_memory_equal(&a->events[i].logprob, &b->events[i].logprob, sizeof(float));
        assert_memory_equal(&a->events[i].margin, &b->events[i].margin, sizeof(float));
        assert_memory_equal(&a->events[i].entropy, &b->events[i].entropy, sizeof(float));
        assert_int_equal(a->events[i].n_top, b->events[i].n_top);
    }
    assert_memory_equal(a->top, b->top, sizeof a->top);
    assert_int_equal(a->n_texts, b->n_texts);
    assert_memory_equal(a->text_ends, b->text_ends, sizeof a->text_ends);
    assert_string_equal(a->text, b->text);
    assert_int_equal(a->r.stop, b->r.stop);
    assert_int_equal(a->r.n_generated, b->r.n_generated);
    assert_memory_equal(&a->r.sum_logprob, &b->r.sum_logprob, sizeof(double));
    assert_memory_equal(&a->r.min_logprob, &b->r.min_logprob, sizeof(double));
    assert_memory_equal(&a->r.sum_margin, &b->r.sum_margin, sizeof(double));
    assert_memory_equal(&a->r.sum_entropy, &b->r.sum_entropy, sizeof(double));
    assert_int_equal(a->length, b->length);
    assert_memory_equal(a->tokens, b->tokens, sizeof a->tokens);
    assert_memory_equal(a->next, b->next, sizeof a->next);
}

/* ---- ways to guess, to sample, to stop ------------------------------------------------------------------------------
 */

typedef struct way {
    const char *name;
    int n_lookup, draft, n_draft, n_min; /* draft: a kind, -1 = none */
    float draft_min_p;
} way;

static const way ways[] = {
    {"lookup", 16, -1, 0, 0, 0},
    {"lookup, always 16", 16, -1, 0, 16, 0},
    {"lookup, always 3", 3, -1, 0, 3, 0},
    {"the model drafts for itself", 0, STORIES, 0, 16, 0},
    {"a hurt draft", 0, HURT, 0, 0, 0},
    {"a hurt draft, always 5", 0, HURT, 5, 5, 0},
    {"a hurt draft, when it is sure", 0, HURT, 8, 0, 0.7f},
    {"a foolish draft, always 16", 0, WINDOWED, 16, 16, 0},
    {"lookup and a draft", 8, HURT, 4, 1, 0.3f},
};

static const minim_sampling samplings[] = {
    {.top_p = 1, .repeat_penalty = 1, .repeat_last_n = 64},
    {.temperature = 1, .top_p = 1, .repeat_penalty = 1, .repeat_last_n = 64, .seed = 5},
    {.temperature = 0.7f, .top_k = 20, .top_p = 0.9f, .repeat_penalty = 1.2f, .repeat_last_n = 30, .seed = 9},
};

enum stop_kind { AT_LENGTH, AT_STRING, AT_TOKEN, AT_TEXT, AT_CANCEL, AT_CONTEXT, AT_POOL, N_STOPS };

/* One generation; how = NULL is a plain one. */
static trace *run(enum kind model, const way *how, const minim_sampling *sampling, enum stop_kind stop) {
    static const char *const strings[] = {"ball", "e day", ". T"};
    minim_error e;
    trace *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->stop_at = stop == AT_TOKEN ? 17 : -1;
    t->stop_text_at = stop == AT_TEXT ? 23 : -1;
    t->cancel_at = stop == AT_CANCEL ? 29 : -1;
    minim_engine_options eo;
    minim_engine_options_default(&eo);
    eo.n_threads = 1, eo.n_ctx = stop == AT_CONTEXT ? 160 : 512, eo.page_size = 16, eo.n_batch = 32;
    minim_engine *engine, *draft_engine = NULL;
    minim_seq *seq, *draft = NULL;
    if (stop == AT_POOL) { /* pages for 160 tokens */
        minim_memory_plan plan = {.size = sizeof plan};
        ok(minim_engine_plan(models[model], &eo, &plan, &e), &e);
        eo.kv_limit = plan.kv_per_token * 160;
    }
    ok(minim_engine_new(models[model], &eo, &engine, &e), &e);
    ok(minim_seq_new(engine, &seq, &e), &e);
    minim_generate_options o;
    minim_generate_options_default(&o);
    o.sampling = *sampling;
    o.n_lookup = 0;
    o.max_tokens = stop == AT_CONTEXT || stop == AT_POOL ? 0 : 70;
    o.ignore_end = stop != AT_LENGTH;
    if (stop == AT_STRING) o.stop = strings, o.n_stop = 3;
    if (how && how->draft >= 0) {
        draft_engine = new_engine(models[how->draft], 512, NULL);
        ok(minim_seq_new(draft_engine, &draft, &e), &e);
        o.draft = draft;
    }
    if (how) o.n_lookup = how->n_lookup, o.n_draft = how->n_draft, o.n_draft_min = how->n_min;
    if (how) o.draft_min_p = how->draft_min_p;
    generate(t, seq, o);
    if (!how) assert_int_equal(t->r.n_drafted, 0);
    if (how && how->n_min && how->draft >= 0) assert_true(t->r.n_drafted > 0);
    const char *wrong = pages_wrong(engine, &seq, 1);
    if (wrong) fail_msg("%s", wrong);
    minim_seq_free(seq);
    minim_seq_free(draft);
    minim_engine_free(engine);
    minim_engine_free(draft_engine);
    return t;
}

/* Each way meets each stop once, with one of the samplings; so every two of the three meet, at a third of the cost of
 * all. */
static void everything_is_as_without(enum kind model) {
    enum { N_WAYS = sizeof ways / sizeof *ways, N_SAMPLINGS = sizeof samplings / sizeof *samplings };
    size_t accepted[N_WAYS] = {0};
    for (size_t s = 0; s < N_SAMPLINGS; s++) {
        for (size_t stop = 0; stop < N_STOPS; stop++) {
            trace *plain = run(model, NULL, &samplings[s], (enum stop_kind)stop);
            for (size_t i = 0; i < N_WAYS; i++) {
                if ((i + stop) % N_SAMPLINGS != s) continue;
                trace *t = run(model, &ways[i], &samplings[s], (enum stop_kind)stop);
                accepted[i] += t->r.n_accepted;
                assert_same(plain, t);
                free(t);
            }
            free(plain);
        }
    }
    for (size_t i = 0; model == STORIES && i < N_WAYS; i++)
        if (ways[i].draft != WINDOWED && accepted[i] < 4) fail_msg("%s: %zu accepted", ways[i].name, accepted[i]);
}

static void everything_is_as_without_speculation(void **state) {
    (void)state;
    everything_is_as_without(STORIES);
}

static void windows_are_no_exception(void **state) {
    (void)state;
    everything_is_as_without(WINDOWED);
}

/* ---- counts ------------------------------------------------------------------------------------------------------ */

/* Generates n tokens with the counts of the result; forced = NULL: what the model says. */
static minim_result count(minim_seq *seq, const int32_t *prompt, size_t n_prompt, const int32_t *forced, size_t n,
                          const way *how, minim_seq *draft, float accept_min_p) {
    minim_error e;
    minim_result r = {.size = sizeof r};
    minim_generate_options o;
    minim_generate_options_default(&o);
    o.n_lookup = how->n_lookup, o.n_draft = how->n_draft, o.n_draft_min = how->n_min, o.draft_min_p = how->draft_min_p;
    o.draft = draft, o.accept_min_p = accept_min_p;
    o.forced = forced, o.n_forced = forced ? n : 0, o.max_tokens = (int)n, o.ignore_end = 1;
    minim_seq_truncate(seq, 0);
    if (draft) minim_seq_truncate(draft, 0);
    ok(minim_generate(seq, prompt, n_prompt, &o, &r, &e), &e);
    return r;
}

static void it_turns_itself_off_where_it_does_not_pay(void **state) {
    (void)state;
    enum { N = 400 };
    int32_t random[N], loop[N];
    uint64_t seed = 1;
    minim_error e;
    minim_seq *seq, *draft;
    minim_engine *engine = new_engine(models[STORIES], 600, NULL), *other = new_engine(models[WINDOWED], 600, NULL);
    ok(minim_seq_new(engine, &seq, &e), &e);
    ok(minim_seq_new(other, &draft, &e), &e);
    for (int i = 0; i < N; i++) random[i] = (int32_t)lot(&seed, 512), loop[i] = 5 + i % 23;
    const way lookup = {.n_lookup = 16}, drafted = {.n_lookup = 0};
    minim_result r = count(seq, random, 100, random + 100, 300, &lookup, NULL, 0);
    assert_true(r.n_drafted <= 12); /* no word in 25 */
    r = count(seq, random, 100, random + 100, 300, &drafted, draft, 0);
    assert_true(r.n_drafted > 0 && r.n_drafted <= 24);
    r = count(seq, random, 100, loop, 300, &lookup, NULL, 0); /* it pays from the second round on */
    assert_true(r.n_accepted > 200 && r.n_steps < 80);
    minim_result again = count(seq, random, 100, loop, 300, &lookup, NULL, 0);
    assert_int_equal(again.n_steps, r.n_steps);
    assert_int_equal(again.n_drafted, r.n_drafted);
    minim_seq_free(seq);
    minim_seq_free(draft);
    minim_engine_free(engine);
    minim_engine_free(other);
}

/* The reference kernels compute row by row: nothing is ever gained. */
static void the_reference_kernels_are_not_asked_to_guess(void **state) {
    (void)state;
    int32_t loop[200];
    minim_error e;
    minim_engine *engine;
    minim_engine_options o;
    minim_engine_options_default(&o);
    o.isa = "ref", o.n_ctx = 400;
    ok(minim_engine_new(models[STORIES], &o, &engine, &e), &e);
    minim_seq *seq;
    ok(minim_seq_new(engine, &seq, &e), &e);
    for (int i = 0; i < 200; i++) loop[i] = 5 + i % 7;
    assert_int_equal(count(seq, loop, 100, loop + 100, 100, &(way){.n_lookup = 16}, NULL, 0).n_drafted, 0);
    minim_seq_free(seq);
    minim_engine_free(engine);
}

/* ---- the draft --------------------------------------------------------------------------------------------------- */

typedef struct pair {
    minim_engine *engine, *draft_engine;
    minim_seq *seq, *draft;
    int32_t prompt[256];
    size_t n_prompt;
} pair;

static pair pair_new(enum kind draft, int draft_ctx) {
    minim_error e;
    pair p = {new_engine(models[STORIES], 512, NULL), new_engine(models[draft], draft_ctx, NULL), NULL, NULL, {0}, 0};
    ok(minim_seq_new(p.engine, &p.seq, &e), &e);
    ok(minim_seq_new(p.draft_engine, &p.draft, &e), &e);
    p.n_prompt = prompt_tokens(p.prompt, 256);
    return p;
}

static void pair_free(pair *p) {
    minim_seq_free(p->seq);
    minim_seq_free(p->draft);
    minim_engine_free(p->engine);
    minim_engine_free(p->draft_engine);
}

/* A threshold of almost nothing: all that is drafted stands. One of 1: nothing that would not stand anyway. Between the
 * two every token is the best one or likely enough. */
static void the_hybrid_of_two_models_follows_its_threshold(void **state) {
    (void)state;
    const way how = {.n_draft = 8, .n_min = 8};
    pair p = pair_new(HURT, 512);
    minim_result plain = count(p.seq, p.prompt, p.n_prompt, NULL, 80, &how, p.draft, 0);
    assert_int_equal(plain.n_overruled, 0);
    assert_true(plain.n_accepted < plain.n_drafted);
    minim_result r = count(p.seq, p.prompt, p.n_prompt, NULL, 80, &how, p.draft, 1);
    assert_int_equal(r.n_overruled, 0);
    assert_memory_equal(&r.sum_logprob, &plain.sum_logprob, sizeof(double));
    r = count(p.seq, p.prompt, p.n_prompt, NULL, 80, &how, p.draft, 1e-30f);
    assert_true(r.n_overruled > 0);
    assert_int_equal(r.n_accepted, r.n_drafted);
    r = count(p.seq, p.prompt, p.n_prompt, NULL, 80, &(way){.n_lookup = 16, .n_min = 16}, NULL, 1e-30f);
    assert_int_equal(r.n_overruled, 0); /* lookup is not a second opinion */

    trace *t[2];
    size_t overruled = 0;
    for (int i = 0; i < 2; i++) {
        t[i] = calloc(1, sizeof **t);
        assert_non_null(t[i]);
        t[i]->stop_at = t[i]->stop_text_at = t[i]->cancel_at = -1;
        minim_generate_options o;
        minim_generate_options_default(&o);
        o.max_tokens = 120, o.ignore_end = 1, o.draft = p.draft, o.n_draft_min = 5, o.accept_min_p = 0.05f;
        o.n_lookup = 0;
        minim_seq_truncate(p.seq, 0);
        generate(t[i], p.seq, o);
        for (int k = 0; k < t[i]->n_events; k++) {
            const minim_token_event *event = &t[i]->events[k];
            if (event->token == t[i]->top[k][0].token) continue;
            overruled += i == 0;
            assert_true(event->logprob >= logf(0.05f) - 1e-4f);
        }
    }
    assert_true(overruled > 0);
    assert_int_equal(overruled, t[0]->r.n_overruled);
    assert_same(t[0], t[1]);
    free(t[0]);
    free(t[1]);
    pair_free(&p);
}

static void a_draft_goes_on_with_the_next_turn(void **state) {
    (void)state;
    pair p = pair_new(HURT, 512);
    trace *t[2];
    for (int with = 0; with < 2; with++) {
        minim_generate_options o;
        minim_generate_options_default(&o);
        o.n_lookup = 0;
        if (with) o.draft = p.draft, o.n_draft_min = 4;
        o.ignore_end = 1, o.max_tokens = 30;
        minim_seq_truncate(p.seq, 0);
        for (int turn = 0; turn < 2; turn++) { /* the prompt is another message, then */
            t[with] = calloc(1, sizeof **t);
            assert_non_null(t[with]);
            t[with]->stop_at = t[with]->stop_text_at = t[with]->cancel_at = -1;
            minim_error e;
            minim_result r = {.size = sizeof r};
            o.user = t[with], o.on_token = on_token, o.on_text = on_text, o.n_top = TOP;
            ok(minim_generate(p.seq, p.prompt, turn ? 20 : p.n_prompt, &o, &r, &e), &e);
            if (with) assert_true(minim_seq_length(p.draft) > p.n_prompt && r.n_accepted > 0);
            if (!turn) free(t[with]);
        }
    }
    for (int i = 0; i < 30; i++) assert_int_equal(t[0]->events[i].token, t[1]->events[i].token);
    free(t[0]);
    free(t[1]);
    pair_free(&p);
}

/* A model that drafts for itself is always right, also with what the draft has left of another text. */
static void a_draft_follows_the_text(void **state) {
    (void)state;
    pair p = pair_new(STORIES, 512);
    for (int i = 0; i < 3; i++) {
        minim_error e;
        minim_result r = {.size = sizeof r};
        minim_generate_options o;
        minim_generate_options_default(&o);
        o.n_lookup = 0, o.draft = p.draft, o.n_draft_min = 6, o.n_draft = 6, o.max_tokens = 60, o.ignore_end = 1;
        p.prompt[20 * i] = 300 + i;
        minim_seq_truncate(p.seq, 0);
        ok(minim_generate(p.seq, p.prompt, p.n_prompt - (size_t)(10 * i), &o, &r, &e), &e);
        assert_true(r.n_drafted > 40);
        assert_int_equal(r.n_accepted, r.n_drafted);
    }
    pair_free(&p);
}

static void a_draft_with_a_full_context_guesses_no_more(void **state) {
    (void)state;
    pair p = pair_new(STORIES, 200);
    const way how = {.n_min = 4};
    const minim_result r = count(p.seq, p.prompt, p.n_prompt, NULL, 200, &how, p.draft, 0);
    const minim_result plain = count(p.seq, p.prompt, p.n_prompt, NULL, 200, &(way){0}, NULL, 0);
    assert_int_equal(r.n_generated, 200);
    assert_true(r.n_drafted > 0 && r.n_drafted < 100);
    assert_memory_equal(&r.sum_logprob, &plain.sum_logprob, sizeof(double));
    pair_free(&p);
}

/* Also pages that others hold: what is cut and written again is a copy. */
static void both_may_live_in_one_engine_beside_a_fork(void **state) {
    (void)state;
    int32_t prompt[256], next[2][8];
    minim_error e;
    minim_engine *engine = new_engine(models[STORIES], 512, NULL);
    minim_seq *all[3] = {NULL};
    const size_t n = prompt_tokens(prompt, 256);
    for (int i = 0; i < 2; i++) ok(minim_seq_new(engine, &all[i], &e), &e);
    minim_generate_options o, plain;
    minim_generate_options_default(&o);
    o.max_tokens = 8, o.ignore_end = 1, o.on_token = on_next;
    plain = o;
    plain.n_lookup = 0;
    o.draft = all[1], o.n_draft_min = 16, o.n_lookup = 16;
    o.user = next[0], plain.user = next[1];
    ok(minim_generate(all[0], prompt, n, &plain, NULL, &e), &e);
    ok(minim_seq_fork(all[0], &all[2], &e), &e);
    ok(minim_generate(all[0], next[1] + 7, 1, &o, NULL, &e), &e);
    const char *wrong = pages_wrong(engine, all, 3);
    if (wrong) fail_msg("%s", wrong);
    ok(minim_generate(all[2], next[1] + 7, 1, &plain, NULL, &e), &e);
    assert_memory_equal(next[0], next[1], sizeof next[0]);
    wrong = pages_wrong(engine, all, 3);
    if (wrong) fail_msg("%s", wrong);
    for (int i = 0; i < 3; i++) minim_seq_free(all[i]);
    minim_engine_free(engine);
}

/* ---- vocabularies ------------------------------------------------------------------------------------------------ */

static minim_status try_draft(minim_seq *seq, const minim_model *draft, size_t *n_drafted, minim_error *e) {
    minim_engine *engine = new_engine(draft, 512, NULL);
    minim_seq *d;
    minim_result r = {.size = sizeof r};
    minim_generate_options o;
    const int32_t prompt[] = {1, 300, 301, 302};
    ok(minim_seq_new(engine, &d, e), e);
    minim_generate_options_default(&o);
    o.n_lookup = 0, o.draft = d, o.n_draft_min = 8, o.max_tokens = 60, o.ignore_end = 1, o.sampling.temperature = 1;
    minim_seq_truncate(seq, 0);
    const minim_status status = minim_generate(seq, prompt, 4, &o, &r, e);
    *n_drafted = status ? 0 : r.n_drafted;
    minim_seq_free(d);
    minim_engine_free(engine);
    return status;
}

static void another_vocabulary_is_refused(void **state) {
    (void)state;
    size_t size, n;
    const void *data = minim_default_model(&size);
    char *image = malloc(size);
    minim_error e;
    assert_non_null(image);
    memcpy(image, data, size);
    static const char word[] = "\xe2\x96\x81little";
    char *found = memmem(image, size, word, strlen(word));
    assert_non_null(found);
    memcpy(found, "\xe2\x96\x81littlo", strlen(word));
    minim_model *other = load(image, size);
    minim_engine *engine = new_engine(models[STORIES], 512, NULL);
    minim_seq *seq;
    ok(minim_seq_new(engine, &seq, &e), &e);
    assert_int_equal(try_draft(seq, other, &n, &e), MINIM_ERR_ARGUMENT);
    assert_non_null(strstr(e.text, "littlo"));
    assert_non_null(strstr(e.text, "little"));
    assert_int_equal(minim_seq_length(seq), 0);
    minim_model_free(other);
    free(image);
    minim_seq_free(seq);
    minim_engine_free(engine);
}

/* Qwen's larger models pad their vocabulary further than its small ones. */
static void padding_may_differ(void **state) {
    (void)state;
    size_t size, n;
    minim_error e;
    const synth_shape shape = {.type = KERN_Q8_0,
                               .n_layers = 1,
                               .n_embd = 64,
                               .n_heads = 2,
                               .n_kv_heads = 2,
                               .head_dim = 32,
                               .n_ff = 64,
                               .n_ctx = 512,
                               .pad = 200};
    void *image = synth_model(&shape, &size);
    assert_non_null(image);
    minim_model *padded = load(image, size);
    minim_model *pairs[2][2] = {{models[STORIES], padded}, {padded, models[STORIES]}};
    for (int i = 0; i < 2; i++) {
        minim_engine *engine = new_engine(pairs[i][0], 512, NULL);
        minim_seq *seq;
        ok(minim_seq_new(engine, &seq, &e), &e);
        ok(try_draft(seq, pairs[i][1], &n, &e), &e);
        assert_true(n > 0);
        minim_seq_free(seq);
        minim_engine_free(engine);
    }
    minim_model_free(padded);
    free(image);
}

/* ---- what is refused, and failing memory ------------------------------------------------------------------------- */

static void impossible_options_are_refused(void **state) {
    (void)state;
    const struct {
        int n_lookup, n_draft, n_min;
        float draft_min_p, accept_min_p;
        int32_t forced;
        const char *says;
    } bad[] = {
        {-1, 0, 0, 0, 0, 5, "n_lookup is -1"},     {17, 0, 0, 0, 0, 5, "n_lookup is 17"},
        {0, 17, 0, 0, 0, 5, "n_draft is 17"},      {0, 0, -3, 0, 0, 5, "n_draft_min is -3"},
        {0, 0, 0, 1.5f, 0, 5, "draft_min_p"},      {0, 0, 0, 0, NAN, 5, "accept_min_p"},
        {0, 0, 0, 0, 0, 512, "forced token 0 is"}, {0, 0, 0, 0, 0, -1, "forced token 0 is -1"},
    };
    pair p = pair_new(HURT, 512);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        minim_error e;
        minim_generate_options o;
        minim_generate_options_default(&o);
        o.n_lookup = bad[i].n_lookup, o.n_draft = bad[i].n_draft, o.n_draft_min = bad[i].n_min;
        o.draft_min_p = bad[i].draft_min_p, o.accept_min_p = bad[i].accept_min_p;
        o.forced = &bad[i].forced, o.n_forced = 1, o.max_tokens = 3;
        assert_int_equal(minim_generate(p.seq, p.prompt, p.n_prompt, &o, NULL, &e), MINIM_ERR_ARGUMENT);
        if (!strstr(e.text, bad[i].says)) fail_msg("%s: %s", bad[i].says, e.text);
        assert_int_equal(minim_seq_length(p.seq), 0);
    }
    minim_error e;
    minim_generate_options o;
    minim_generate_options_default(&o);
    o.draft = p.seq;
    assert_int_equal(minim_generate(p.seq, p.prompt, p.n_prompt, &o, NULL, &e), MINIM_ERR_ARGUMENT);
    o.draft = NULL, o.n_forced = 2;
    assert_int_equal(minim_generate(p.seq, p.prompt, p.n_prompt, &o, NULL, &e), MINIM_ERR_ARGUMENT);
    pair_free(&p);
}

static void a_forced_text_is_said_and_judged(void **state) {
    (void)state;
    pair p = pair_new(HURT, 512);
    const int32_t forced[] = {300, 17, 2, 301, 300, 17, 2, 301};
    trace *t[2];
    for (int i = 0; i < 2; i++) {
        t[i] = calloc(1, sizeof **t);
        assert_non_null(t[i]);
        t[i]->stop_at = t[i]->stop_text_at = t[i]->cancel_at = -1;
        minim_generate_options o;
        minim_generate_options_default(&o);
        o.forced = forced, o.n_forced = 8, o.max_tokens = 20, o.ignore_end = 1;
        o.n_lookup = i ? 16 : 0, o.n_draft_min = i ? 5 : 0;
        minim_seq_truncate(p.seq, 0);
        generate(t[i], p.seq, o);
        for (int k = 0; k < 8; k++) assert_int_equal(t[i]->events[k].token, forced[k]);
    }
    assert_same(t[0], t[1]);
    /* the log-probability is the forced token's own */
    for (int k = 0; k < 8; k++) {
        const float best = t[0]->top[k][0].logprob;
        const int is_best = t[0]->top[k][0].token == forced[k];
        assert_true(is_best ? t[0]->events[k].logprob == best : t[0]->events[k].logprob < best);
    }
    free(t[0]);
    free(t[1]);
    pair_free(&p);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    int32_t want[40], got[40];
    size_t refused = 0;
    for (size_t fail = 0, done = 0; !done; fail++) {
        count_allocator count = {0};
        const minim_allocator a = count_allocator_get(&count);
        minim_engine *engine = new_engine(models[STORIES], 512, &a), *other = new_engine(models[HURT], 512, &a);
        minim_seq *seq, *draft;
        minim_error e;
        int32_t prompt[256];
        const size_t n = prompt_tokens(prompt, 256);
        ok(minim_seq_new(engine, &seq, &e), &e);
        ok(minim_seq_new(other, &draft, &e), &e);
        minim_generate_options o;
        minim_generate_options_default(&o);
        o.max_tokens = 40, o.ignore_end = 1, o.user = fail ? got : want, o.on_token = on_next;
        o.draft = draft, o.n_lookup = 16, o.n_draft_min = 8;
        const size_t before = count.calls;
        if (fail) count.fail_at = before + fail;
        const minim_status status = minim_generate(seq, prompt, n, &o, NULL, &e);
        done = fail && count.calls < count.fail_at;
        count.fail_at = 0;
        refused += status != MINIM_OK;
        if (status) {
            assert_int_equal(status, MINIM_ERR_MEMORY);
            assert_int_equal(minim_seq_length(seq), 0);
            ok(minim_generate(seq, prompt, n, &o, NULL, &e), &e);
        }
        if (fail) assert_memory_equal(got, want, sizeof want);
        minim_seq_free(seq);
        minim_seq_free(draft);
        minim_engine_free(engine);
        minim_engine_free(other);
        assert_true(count_allocator_clean(&count));
    }
    assert_true(refused > 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_longest_match_is_found),
        cmocka_unit_test(what_lies_behind_the_last_quote_is_preferred),
        cmocka_unit_test(a_match_is_a_match),
        cmocka_unit_test(a_loop_is_guessed_around),
        cmocka_unit_test(the_index_survives_failing_memory),
        cmocka_unit_test(everything_is_as_without_speculation),
        cmocka_unit_test(windows_are_no_exception),
        cmocka_unit_test(it_turns_itself_off_where_it_does_not_pay),
        cmocka_unit_test(the_reference_kernels_are_not_asked_to_guess),
        cmocka_unit_test(the_hybrid_of_two_models_follows_its_threshold),
        cmocka_unit_test(a_draft_goes_on_with_the_next_turn),
        cmocka_unit_test(a_draft_follows_the_text),
        cmocka_unit_test(a_draft_with_a_full_context_guesses_no_more),
        cmocka_unit_test(both_may_live_in_one_engine_beside_a_fork),
        cmocka_unit_test(another_vocabulary_is_refused),
        cmocka_unit_test(padding_may_differ),
        cmocka_unit_test(impossible_options_are_refused),
        cmocka_unit_test(a_forced_text_is_said_and_judged),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
