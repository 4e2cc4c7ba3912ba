/* speculate.c: what to guess, and how much of it pays.
 *
 * The unit of cost is a step of one row, which yields one token. A step of n rows costs `cost[n]`, a token of the draft
 * model `draft_cost`. With chances p1, p2 ... that the guesses are right, provided those before them were, a step with
 * k guesses yields 1 + p1 + p1 p2 + ... + p1...pk tokens for cost[1 + k]. The k with the most tokens for its cost is
 * taken; it is 0 where guessing does not pay. Rows of others in the same step yield a token each, and make it longer:
 * so the more there are, the surer a guess has to be.
 *
 * Chances come from counting. A guess by lookup belongs to a class by the length of its match, a guess of the draft by
 * the probability that the draft gave it. Lookup is judged at every generated token, whether or not its guess was made:
 * that costs nothing, so it notices by itself when the text begins to repeat. A draft costs a step of its own, so one
 * that was given up is only tried now and then. */
#include "speculate.h"

#include <fenv.h>
#include <math.h>
#include <string.h>

#include "ngram.h"
#include "sample.h"

/* Guesses of a class that were right, of those that were judged; old ones count less and less. */
typedef struct spec_odds {
    float right, judged;
} spec_odds;

enum { SPEC_MEMORY = 64 /* judged guesses after which all counts are halved */ };

/* Classes of matches by their length: from 2, 3, 4, 6, 10, 18 tokens. And what is assumed before anything was seen,
 * as if from SPEC_PRIOR guesses: quotes are long, and most short matches are chance. */
static const size_t spec_match_from[] = {1, 2, 3, 4, 6, 10, 18};
static const float spec_match_prior[] = {0.08f, 0.15f, 0.25f, 0.5f, 0.65f, 0.75f, 0.85f};
enum { SPEC_MATCHES = 7, SPEC_PRIOR = 4 };

/* Classes of drafted tokens by their probability; before anything was seen the draft is believed. */
static const float spec_draft_from[] = {0, 0.3f, 0.5f, 0.7f, 0.8f, 0.9f, 0.97f};
static const float spec_draft_prior[] = {0.2f, 0.4f, 0.6f, 0.75f, 0.85f, 0.93f, 0.98f};
enum { SPEC_DRAFTS = 7 };

/* A draft that does not pay is tried again after so many tokens, then twice as many, up to the last. */
enum { SPEC_FIRST_PAUSE = 32, SPEC_LAST_PAUSE = 512 };

struct speculator {
    minim_seq *seq;
    float cost[SPECULATE_MAX + 2]; /* of the next step if it has so many rows */
    int n_min;                     /* guesses that are made even when they do not pay */

    ngram_index *text; /* NULL = no lookup */
    int n_lookup;
    spec_odds match[SPEC_MATCHES];

    minim_seq *draft;  /* NULL = none */
    int draft_is_full; /* it has reached the end of its context */
    int n_draft;
    float draft_min_p, draft_cost;
    sampler *draft_sampler;
    float *draft_logits;   /* [n_vocab of the draft] */
    minim_row *draft_rows; /* [n_batch of the draft] */
    size_t agreed;         /* the first so many tokens of the draft are known to be those of seq */
    spec_odds draft_class[SPEC_DRAFTS], draft_all;
    int pause, wait; /* the length of the last pause; tokens left of it */

    /* The draft's guesses that were not judged yet: token[judged .. n). */
    speculation made;
    int made_class[SPECULATE_MAX], judged;
};

/* ---- chances ----------------------------------------------------------------------------------------------------- */

static int spec_class_of_match(size_t length) {
    int class = SPEC_MATCHES - 1;
    while (class > 0 && length < spec_match_from[class]) class --;
    return class;
}

static int spec_class_of_draft(float probability) {
    int class = SPEC_DRAFTS - 1;
    while (class > 0 && !(probability >= spec_draft_from[class])) class --;
    return class;
}

static void spec_begin(spec_odds *odds, const float *prior, int n) {
    for (int i = 0; i < n; i++) odds[i] = (spec_odds){prior[i] * SPEC_PRIOR, SPEC_PRIOR};
}

static void spec_judge(spec_odds *odds, int is_right) {
    odds->right += (float)(is_right != 0);
    odds->judged++;
    if (odds->judged >= SPEC_MEMORY) odds->right /= 2, odds->judged /= 2;
}

static float spec_chance(const spec_odds *odds) {
    return odds->right / odds->judged;
}

/* ---- making one -------------------------------------------------------------------------------------------------- */

/* Multiply-adds of a row in attention, by those with the weights. */
static float spec_attention(const minim_model *m, size_t n_keys) {
    const model_shape *p = &m->shape;
    const double keys = (double)n_keys, seen = p->n_window && keys > p->n_window ? p->n_window : keys;
    const double sum = keys * (p->n_layers - p->n_window_layers) + seen * p->n_window_layers;
    return (float)(2 * sum * p->n_heads * p->head_dim / (double)m->n_params);
}

/* A roofline (Williams et al. 2009) with a round corner: a step takes as long as reading the weights or as computing
 * its rows, whichever is longer. With the weights a row computes for a fifth of the time that reading them takes, and
 * a multiply-add of attention, with its share of the softmax, is as long as three of the others. More than one row is a
 * tenth of a step by itself. Measured, see bench/README.md. With the reference kernels there is nothing but computing.
 */
static void spec_set_cost(speculator *s, int beside) {
    const minim_engine *en = s->seq->engine;
    const float weights = strcmp(en->kern.isa, "ref") ? 0.2f : 1000.0f, several = 0.1f;
    const float row = weights * (1 + 3 * spec_attention(en->model, s->seq->length));
    for (int n = 1; n < SPECULATE_MAX + 2; n++) {
        const float rows = (float)(beside + n) * row, plain = (float)(beside + 1) * row;
        s->cost[n] = sqrtf((1 + rows * rows) / (1 + plain * plain)) + (n > 1 && !beside ? several : 0);
    }
}

minim_status speculator_check(const minim_generate_options *o, minim_error *e) {
    const struct {
        const char *name;
        int value;
    } number[] = {{"n_lookup", o->n_lookup}, {"n_draft", o->n_draft}, {"n_draft_min", o->n_draft_min}};
    const struct {
        const char *name;
        float value;
    } probability[] = {{"draft_min_p", o->draft_min_p}, {"accept_min_p", o->accept_min_p}};
    for (size_t i = 0; i < sizeof number / sizeof *number; i++) {
        if (number[i].value < 0 || number[i].value > SPECULATE_MAX)
            return err_set(e, MINIM_ERR_ARGUMENT, "%s is %d, expected 0 to %d", number[i].name, number[i].value,
                           SPECULATE_MAX);
    }
    for (size_t i = 0; i < sizeof probability / sizeof *probability; i++) {
        if (!(probability[i].value >= 0 && probability[i].value <= 1))
            return err_set(e, MINIM_ERR_ARGUMENT, "%s is %g, expected 0..1", probability[i].name,
                           (double)probability[i].value);
    }
    return MINIM_OK;
}

/* Every token that both know has one text; what only one of them has is padding. */
static minim_status spec_check_vocabulary(const vocab *mine, const vocab *other, minim_error *e) {
    const int32_t n_mine = vocab_size(mine), n_other = vocab_size(other), both = n_mine < n_other ? n_mine : n_other;
    for (int32_t i = 0; i < both; i++) {
        size_t n, m;
        const char *text = vocab_text(mine, i, &n), *draft = vocab_text(other, i, &m);
        if (n != m || memcmp(text, draft, n) != 0)
            return err_set(e, MINIM_ERR_ARGUMENT,
                           "the draft model has another vocabulary: its token %d is \"%.40s\", expected \"%.40s\"", i,
                           draft, text);
    }
    for (int32_t i = both; i < n_mine || i < n_other; i++) {
        if (vocab_type(n_mine > n_other ? mine : other, i) != VOCAB_UNUSED)
            return err_set(e, MINIM_ERR_ARGUMENT, "the draft model has another vocabulary: %d tokens, expected %d",
                           n_other, n_mine);
    }
    return MINIM_OK;
}

static minim_status spec_prepare_draft(speculator *s, const minim_generate_options *o, minim_error *e) {
    const minim_engine *mine = s->seq->engine, *en = o->draft->engine;
    const minim_allocator *a = &en->allocator;
    const size_t n_vocab = (size_t)en->model->n_vocab, n_batch = (size_t)en->n_batch;
    const minim_sampling greedy = {.top_p = 1, .repeat_penalty = 1};
    minim_status status = spec_check_vocabulary(mine->model->vocab, en->model->vocab, e);
    if (status) return status;
    s->draft = o->draft;
    s->n_draft = o->n_draft ? o->n_draft : SPECULATE_MAX;
    s->draft_min_p = o->draft_min_p;
    s->draft_cost = (float)((double)en->model->step_bytes / (double)mine->model->step_bytes);
    s->draft_all = (spec_odds){0.6f * SPEC_PRIOR, SPEC_PRIOR};
    spec_begin(s->draft_class, spec_draft_prior, SPEC_DRAFTS);
    s->draft_logits = mem_alloc(a, n_vocab, sizeof *s->draft_logits);
    s->draft_rows = mem_alloc(a, n_batch, sizeof *s->draft_rows);
    if (!s->draft_logits || !s->draft_rows)
        return err_memory(e, "a draft", n_vocab * sizeof *s->draft_logits + n_batch * sizeof *s->draft_rows);
    return sampler_new(a, &en->kern, en->model->n_vocab, &greedy, 0, &s->draft_sampler, e);
}

minim_status speculator_new(minim_seq *seq, const minim_generate_options *o, speculator **out, minim_error *e) {
    const minim_allocator *a = &seq->engine->allocator;
    minim_status status = speculator_check(o, e);
    *out = NULL;
    if (!status && o->draft == seq) return err_set(e, MINIM_ERR_ARGUMENT, "draft: a sequence cannot be its own draft");
    if (status || (!o->n_lookup && !o->draft)) return status;
    speculator *s = mem_zalloc(a, 1, sizeof *s);
    if (!s) return err_memory(e, "a speculator", sizeof *s);
    s->seq = seq;
    s->n_min = o->n_draft_min;
    s->n_lookup = o->n_lookup;
    spec_begin(s->match, spec_match_prior, SPEC_MATCHES);
    *out = s; /* speculator_free() needs what there is */
    if (o->n_lookup) status = ngram_new(a, &s->text, e);
    if (!status && o->draft) status = spec_prepare_draft(s, o, e);
    if (status) {
        speculator_free(s);
        *out = NULL;
    }
    return status;
}

void speculator_free(speculator *s) {
    if (!s) return;
    const minim_allocator a = s->seq->engine->allocator;
    ngram_free(s->text);
    sampler_free(s->draft_sampler);
    if (s->draft) {
        const minim_engine *en = s->draft->engine;
        mem_free(&en->allocator, s->draft_logits, (size_t)en->model->n_vocab, sizeof *s->draft_logits);
        mem_free(&en->allocator, s->draft_rows, (size_t)en->n_batch, sizeof *s->draft_rows);
    }
    mem_free(&a, s, 1, sizeof *s);
}

/* ---- judging ----------------------------------------------------------------------------------------------------- */

/* The token shows whether the draft's next guess was right; those behind a wrong one are never judged. */
static void spec_judge_draft(speculator *s, int32_t token) {
    if (s->judged == s->made.n) return;
    const int is_right = s->made.token[s->judged] == token;
    spec_judge(&s->draft_class[s->made_class[s->judged]], is_right);
    spec_judge(&s->draft_all, is_right);
    s->judged = is_right ? s->judged + 1 : s->made.n;
    if (is_right) s->pause = 0;
}

minim_status speculator_push(speculator *s, int32_t token, int is_generated, minim_error *e) {
    if (is_generated) {
        int32_t guess;
        if (s->text && ngram_guess(s->text, &guess, 1))
            spec_judge(&s->match[spec_class_of_match(ngram_length(s->text))], guess == token);
        spec_judge_draft(s, token);
        if (s->wait) s->wait--;
    }
    return s->text ? ngram_push(s->text, token, e) : MINIM_OK;
}

/* ---- lookup ------------------------------------------------------------------------------------------------------ */

/* How many guesses of the match to make, at most `most`. Each one that is right makes the match longer. */
static int spec_plan_lookup(const speculator *s, int most, int beside) {
    const size_t length = ngram_length(s->text);
    float reach = 1, tokens = (float)(1 + beside), best = tokens;
    int n = 0;
    for (int i = 1; i <= most; i++) {
        reach *= spec_chance(&s->match[spec_class_of_match(length + (size_t)i - 1)]);
        tokens += reach;
        if (tokens / s->cost[1 + i] > best) best = tokens / s->cost[1 + i], n = i;
    }
    return n > s->n_min ? n : s->n_min < most ? s->n_min : most;
}

static void spec_look_up(const speculator *s, int most, int beside, speculation *out) {
    if (!s->text || !ngram_length(s->text)) return;
    if (most > s->n_lookup) most = s->n_lookup;
    out->n = ngram_guess(s->text, out->token, spec_plan_lookup(s, most, beside));
}

/* ---- the draft --------------------------------------------------------------------------------------------------- */

/* One step of the draft. What its context has no room for, or its vocabulary no token, ends drafting. */
static minim_status spec_draft_step(speculator *s, size_t n, minim_error *e) {
    const minim_engine *en = s->draft->engine;
    for (size_t i = 0; i < n; i++) s->draft_is_full |= s->draft_rows[i].token >= en->model->n_vocab;
    if (s->draft_is_full) return MINIM_OK;
    const minim_status status = minim_engine_step(s->draft->engine, s->draft_rows, n, s->draft_logits, e);
    if (status != MINIM_ERR_CONTEXT) return status;
    s->draft_is_full = 1;
    return err_ok(e);
}

/* Brings the draft to all tokens of the text, of which `last` has not been run by seq. */
static minim_status spec_catch_up(speculator *s, int32_t last, minim_error *e) {
    const minim_seq *seq = s->seq;
    minim_seq *d = s->draft;
    const size_t n = seq->length + 1, most = (size_t)d->engine->n_batch;
    while (s->agreed < seq->length && s->agreed < d->length && d->tokens[s->agreed] == seq->tokens[s->agreed])
        s->agreed++;
    minim_status status = minim_seq_truncate(d, s->agreed);
    while (!status && s->agreed < n && !s->draft_is_full && !atomic_load(&seq->cancelled)) {
        size_t rows = 0;
        for (; rows < most && s->agreed + rows < n; rows++) {
            const size_t at = s->agreed + rows;
            s->draft_rows[rows] = (minim_row){d, at < seq->length ? seq->tokens[at] : last, at == n - 1};
        }
        status = spec_draft_step(s, rows, e);
        s->agreed += rows;
    }
    if (status || s->draft_is_full) s->agreed = 0;
    return status;
}

/* Whether a token more, with this chance, brings more for its cost than the step does so far. */
static int spec_pays(const speculator *s, float chance, float extra, float tokens, int rows, float drafting) {
    return chance / (s->cost[rows + 1] - s->cost[rows] + extra) > tokens / (s->cost[rows] + drafting);
}

/* Guesses of the draft, as long as one more can be expected to pay. The caller has decided about the first. */
static minim_status spec_draft(speculator *s, int32_t last, int most, speculation *out, minim_error *e) {
    float reach = 1, tokens = 1, drafting = 0;
    minim_status status = spec_catch_up(s, last, e);
    out->is_drafted = 1;
    for (int i = 0; i < most && !status && !s->draft_is_full && !atomic_load(&s->seq->cancelled); i++) {
        const int is_asked_for = i == 0 || i < s->n_min;
        if (!is_asked_for && !spec_pays(s, reach * spec_chance(&s->draft_all), s->draft_cost, tokens, 1 + i, drafting))
            break;
        if (i > 0) {
            s->draft_rows[0] = (minim_row){s->draft, out->token[i - 1], 1};
            status = spec_draft_step(s, 1, e);
            if (status || s->draft_is_full) break;
        }
        minim_token_event event;
        sampler_choose(s->draft_sampler, s->draft_logits, &event);
        drafting += s->draft_cost;
        const float probability = kern_expf(event.logprob);
        const int class = spec_class_of_draft(probability), is_sure = i < s->n_min || probability >= s->draft_min_p;
        reach *= spec_chance(&s->draft_class[class]);
        if (event.token >= s->seq->engine->model->n_vocab || !is_sure ||
            (!is_asked_for && !spec_pays(s, reach, 0, tokens, 1 + i, drafting))) {
            spec_judge(&s->draft_all, 0); /* a step of the draft for nothing */
            break;
        }
        tokens += reach;
        s->made_class[i] = class;
        out->token[i] = event.token;
        out->n = i + 1;
    }
    return status;
}

/* Whether to draft at all: where that is expected to pay, and as a try after each pause. */
static int spec_wants_draft(speculator *s) {
    if (!s->draft || s->draft_is_full) return 0;
    if (s->n_min || spec_pays(s, spec_chance(&s->draft_all), s->draft_cost, 1, 1, 0)) return 1;
    if (s->wait) return 0;
    s->pause = !s->pause ? SPEC_FIRST_PAUSE : s->pause < SPEC_LAST_PAUSE ? 2 * s->pause : s->pause;
    s->wait = s->pause;
    return 1;
}

minim_status speculator_guess(speculator *s, int32_t last, int most, int beside, speculation *out, minim_error *e) {
    minim_status status = MINIM_OK;
    fenv_t host; /* the same rounding whatever the host has set */
    if (most > SPECULATE_MAX) most = SPECULATE_MAX;
    out->n = out->is_drafted = 0;
    s->made.n = s->judged = 0;
    if (most <= 0) return status;
    fegetenv(&host);
    fesetenv(FE_DFL_ENV);
    spec_set_cost(s, beside);
    spec_look_up(s, most, beside, out);
    if (!out->n && spec_wants_draft(s)) {
        status = spec_draft(s, last, most < s->n_draft ? most : s->n_draft, out, e);
        s->made = *out;
    }
    fesetenv(&host);
    return status;
}
