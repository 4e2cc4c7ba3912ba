/* sample.c: see sample.h.
 *
 * Nothing here sorts a vocabulary. The figures of an event need the best few tokens (one pass, a short sorted list); a
 * draw needs tokens in falling order, but rarely many, so they come from a heap one at a time. */
#include "sample.h"

#include <float.h>
#include <math.h>
#include <string.h>

struct sampler {
    minim_allocator allocator;
    const kern_table *kernels;
    minim_sampling options;
    int n_vocab, n_blocks;
    uint64_t random[4];
    int32_t *recent; /* [n_recent_max]: ring of the tokens that the penalty looks at */
    size_t n_recent, next_recent, n_recent_max;
    float *logit;     /* [n_vocab]: cleaned, later penalised */
    float *block_max; /* [n_blocks]: the largest of KERN_CLEAN of them */
    float *weight;    /* [n_vocab]: exp(logit - max), the softmax without its division */
    float max, sum;   /* of the logits, of the weights */
    double log_sum;   /* log of the sum of the exponentials of the last raw logits */
    int32_t *rank;    /* [n_vocab]: the n_ranked best tokens, best first */
    int32_t *heap;    /* [n_vocab]: n_heap more, the best on top */
    int n_ranked, n_heap;
    float floor, band; /* all tokens with a logit of at least floor have been on the heap; width of the next band */
    minim_logprob top[SAMPLER_MAX_TOP];
    int n_top, n_top_max;
};

/* ---- making one ------------------------------------------------------------------------------------------------- */

static minim_status sampler_check(const minim_sampling *s, int n_top, minim_error *e) {
    const minim_status bad = MINIM_ERR_ARGUMENT;
    if (!(s->temperature >= 0 && s->temperature <= FLT_MAX))
        return err_set(e, bad, "temperature is %g, expected a number from 0", (double)s->temperature);
    if (s->top_k < 0) return err_set(e, bad, "top_k is %d, expected 0 (off) or more", s->top_k);
    if (!(s->top_p >= 0 && s->top_p <= 1)) return err_set(e, bad, "top_p is %g, expected 0..1", (double)s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1)) return err_set(e, bad, "min_p is %g, expected 0..1", (double)s->min_p);
    if (!(s->repeat_penalty > 0 && s->repeat_penalty <= FLT_MAX))
        return err_set(e, bad, "repeat_penalty is %g, expected a number above 0", (double)s->repeat_penalty);
    if (s->repeat_last_n < 0 || s->repeat_last_n > SAMPLER_MAX_LAST_N)
        return err_set(e, bad, "repeat_last_n is %d, expected 0..%d", s->repeat_last_n, SAMPLER_MAX_LAST_N);
    if (n_top < 0 || n_top > SAMPLER_MAX_TOP)
        return err_set(e, bad, "n_top is %d, expected 0..%d", n_top, SAMPLER_MAX_TOP);
    return MINIM_OK;
}

/* splitmix64 (Steele, Lea & Flood 2014): spreads any seed over the whole state. */
static void sampler_seed(sampler *s, uint64_t seed) {
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        s->random[i] = z ^ z >> 31;
    }
}

minim_status sampler_new(const minim_allocator *a, const kern_table *k, int n_vocab, const minim_sampling *options,
                         int n_top, sampler **out, minim_error *e) {
    const minim_status status = sampler_check(options, n_top, e);
    sampler *s;
    *out = NULL;
    if (status) return status;
    if (n_vocab < 1) return err_set(e, MINIM_ERR_ARGUMENT, "the vocabulary is empty");
    s = mem_zalloc(a, 1, sizeof *s);
    if (!s) return err_memory(e, "a sampler", sizeof *s);
    s->allocator = mem_allocator(a);
    s->kernels = k;
    s->options = *options;
    s->n_vocab = n_vocab;
    s->n_blocks = (n_vocab - 1) / KERN_CLEAN + 1;
    s->n_top_max = n_top < n_vocab ? n_top : n_vocab;
    if (options->repeat_penalty != 1) s->n_recent_max = (size_t)options->repeat_last_n;
    sampler_seed(s, options->seed);
    s->logit = mem_alloc(a, (size_t)n_vocab, sizeof *s->logit);
    s->block_max = mem_alloc(a, (size_t)s->n_blocks, sizeof *s->block_max);
    s->weight = mem_alloc(a, (size_t)n_vocab, sizeof *s->weight);
    s->rank = mem_alloc(a, (size_t)n_vocab, sizeof *s->rank);
    s->heap = mem_alloc(a, (size_t)n_vocab, sizeof *s->heap);
    s->recent = mem_alloc(a, s->n_recent_max, sizeof *s->recent);
    if (!s->logit || !s->block_max || !s->weight || !s->rank || !s->heap || !s->recent) {
        sampler_free(s);
        return err_memory(e, "a sampler", 16 * (uint64_t)n_vocab);
    }
    *out = s;
    return err_ok(e);
}

void sampler_free(sampler *s) {
    if (!s) return;
    const minim_allocator a = s->allocator;
    const size_t n = (size_t)s->n_vocab;
    mem_free(&a, s->logit, n, sizeof *s->logit);
    mem_free(&a, s->block_max, (size_t)s->n_blocks, sizeof *s->block_max);
    mem_free(&a, s->weight, n, sizeof *s->weight);
    mem_free(&a, s->rank, n, sizeof *s->rank);
    mem_free(&a, s->heap, n, sizeof *s->heap);
    mem_free(&a, s->recent, s->n_recent_max, sizeof *s->recent);
    mem_free(&a, s, 1, sizeof *s);
}

void sampler_accept(sampler *s, int32_t token) {
    if (s->n_recent_max == 0 || token < 0 || token >= s->n_vocab) return;
    s->recent[s->next_recent] = token;
    s->next_recent = (s->next_recent + 1) % s->n_recent_max;
    if (s->n_recent < s->n_recent_max) s->n_recent++;
}

/* ---- the figures of an event ------------------------------------------------------------------------------------ */

/* NaN becomes minus infinity, infinity the largest number. */
static float sampler_clean_one(float x) {
    return x >= -FLT_MAX ? (x <= FLT_MAX ? x : FLT_MAX) : -INFINITY;
}

/* The best tokens so far, best first, lower id first among equals. Logprobs are logits for now. */
typedef struct sampler_top {
    minim_logprob *best; /* [n] */
    int n, used;
} sampler_top;

static void sampler_rank(sampler_top *top, int32_t token, float logit) {
    if (top->used == top->n && !(logit > top->best[top->n - 1].logprob)) return;
    int at = top->used < top->n ? top->used++ : top->n - 1;
    for (; at > 0 && logit > top->best[at - 1].logprob; at--) top->best[at] = top->best[at - 1];
    top->best[at] = (minim_logprob){token, logit};
}

/* Ranks all tokens. Blocks that hold nothing good enough are passed over. */
static void sampler_best(const sampler *s, sampler_top *top) {
    for (int b = 0; b * KERN_CLEAN < s->n_vocab; b++) {
        if (top->used == top->n && !(s->block_max[b] > top->best[top->n - 1].logprob)) continue;
        const int end = (b + 1) * KERN_CLEAN < s->n_vocab ? (b + 1) * KERN_CLEAN : s->n_vocab;
        for (int i = b * KERN_CLEAN; i < end; i++) sampler_rank(top, i, s->logit[i]);
    }
}

/* Whether a token is possible: one logit is finite. */
static int sampler_can_choose(const sampler *s, const float *logits, float best) {
    int finite = best > -INFINITY && best < FLT_MAX;
    for (int i = 0; i < s->n_vocab && !finite && best > -INFINITY; i++) /* the best may have been an infinity */
        finite = logits[i] >= -FLT_MAX && logits[i] <= FLT_MAX;
    return finite;
}

/* The weights of the logits as they are now. */
static void sampler_weigh(sampler *s) {
    memcpy(s->weight, s->logit, (size_t)s->n_vocab * sizeof *s->weight);
    s->kernels->softmax_part(s->weight, s->n_vocab, 1, s->n_vocab, &s->max, &s->sum);
}

/* Everything but the chosen token, from the raw logits, in two passes. s->log_sum becomes the log of the sum of their
 * exponentials. -1 when no token is possible. */
static int sampler_describe(sampler *s, const float *logits, minim_token_event *event) {
    minim_logprob best[SAMPLER_MAX_TOP] = {{0, 0}};
    const int want = s->n_top_max < 2 ? 2 : s->n_top_max, n = want < s->n_vocab ? want : s->n_vocab;
    double dot;
    sampler_top top = {best, n, 0};
    s->kernels->clean(logits, s->n_vocab, s->logit, s->block_max);
    sampler_best(s, &top);
    if (!sampler_can_choose(s, logits, best[0].logprob)) return -1;
    s->max = best[0].logprob + 0.0F; /* no -0, as softmax_part() */
    s->kernels->weigh(s->logit, s->n_vocab, s->max, s->weight, &s->sum, &dot);
    const double log_sum = kern_log((double)s->sum);
    /* -sum p log p = log(sum w) - sum w (logit - max) / sum w */
    const double entropy = log_sum - dot / (double)s->sum;
    event->entropy = entropy > 0 ? (float)entropy : 0; /* rounding can leave a little below 0 */
    event->margin = n > 1 ? (float)((double)best[0].logprob - (double)best[1].logprob) : INFINITY;
    s->n_top = 0;
    for (int i = 0; i < s->n_top_max && best[i].logprob > -INFINITY; i++, s->n_top++) {
        s->top[i].token = best[i].token;
        s->top[i].logprob = (float)((double)best[i].logprob - ((double)s->max + log_sum));
    }
    event->n_top = s->n_top;
    event->top = s->top;
    event->token = best[0].token;
    s->log_sum = (double)s->max + log_sum;
    return 0;
}

/* ---- tokens in falling order ------------------------------------------------------------------------------------ */

/* Tokens come onto the heap in bands of falling logits, the first one this wide, each further one four times as wide as
 * all before: the first holds a few tokens of a large vocabulary, and hardly ever is another one needed. */
#define SAMPLER_BAND      4.0f
#define SAMPLER_LAST_BAND 100.0f

static int sampler_is_better(const sampler *s, int32_t a, int32_t b) {
    if (s->logit[a] != s->logit[b]) return s->logit[a] > s->logit[b];
    return a < b;
}

static void sampler_sift_down(sampler *s, int i) {
    const int32_t token = s->heap[i];
    for (int child; (child = 2 * i + 1) < s->n_heap; i = child) {
        if (child + 1 < s->n_heap && sampler_is_better(s, s->heap[child + 1], s->heap[child])) child++;
        if (!sampler_is_better(s, s->heap[child], token)) break;
        s->heap[i] = s->heap[child];
    }
    s->heap[i] = token;
}

/* Puts the next band on the empty heap. */
static void sampler_fill_heap(sampler *s) {
    const float ceiling = s->floor;
    s->floor = s->band < SAMPLER_LAST_BAND ? s->max - s->band : -INFINITY;
    s->band *= 4;
    for (int32_t i = 0; i < s->n_vocab; i++)
        if (s->logit[i] >= s->floor && s->logit[i] < ceiling) s->heap[s->n_heap++] = i;
    for (int i = s->n_heap / 2 - 1; i >= 0; i--) sampler_sift_down(s, i);
}

static void sampler_start_ranking(sampler *s) {
    s->n_ranked = s->n_heap = 0;
    s->floor = INFINITY;
    s->band = SAMPLER_BAND;
}

/* The token with the i-th best logit, i < n_vocab; of equals the one with the lower id comes first. */
static int32_t sampler_nth(sampler *s, int i) {
    while (s->n_ranked <= i) {
        while (s->n_heap == 0) sampler_fill_heap(s);
        s->rank[s->n_ranked++] = s->heap[0];
        s->heap[0] = s->heap[--s->n_heap];
        if (s->n_heap) sampler_sift_down(s, 0);
    }
    return s->rank[i];
}

/* ---- choosing --------------------------------------------------------------------------------------------------- */

/* Keskar et al. 2019: makes recent tokens less likely, each once. What was finite stays finite. Weights follow later.
 */
static void sampler_penalise(sampler *s, const float *logits) {
    for (size_t i = 0; i < s->n_recent; i++) {
        const int32_t token = s->recent[i];
        const float x = sampler_clean_one(logits[token]); /* not s->logit: the token may come up twice */
        const float y = x > 0 ? x / s->options.repeat_penalty : x * s->options.repeat_penalty;
        if (x >= -FLT_MAX) s->logit[token] = y > FLT_MAX ? FLT_MAX : y < -FLT_MAX ? -FLT_MAX : y;
    }
}

/* Sum of the weights of the n best tokens, best first. */
static double sampler_sum(sampler *s, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)s->weight[sampler_nth(s, i)];
    return sum;
}

/* How many tokens, the best ones, top-k, top-p and min-p keep. */
static int sampler_filter(sampler *s) {
    const minim_sampling *o = &s->options;
    double total = (double)s->sum;
    int kept = s->n_vocab;
    if (o->top_k > 0 && o->top_k < kept) {
        kept = o->top_k;
        total = sampler_sum(s, kept);
    }
    if (o->top_p < 1) {
        double sum = 0;
        for (int i = 0; i < kept; i++) {
            sum += (double)s->weight[sampler_nth(s, i)];
            if (sum >= (double)o->top_p * total) kept = i + 1;
        }
    }
    if (o->min_p > 0) {
        const double least = (double)o->min_p * (double)s->weight[sampler_nth(s, 0)];
        int i = 1;
        while (i < kept && (double)s->weight[sampler_nth(s, i)] >= least) i++;
        kept = i;
    }
    return kept;
}

/* Weights of the kept tokens at the temperature; returns their sum. Dividing what is not above 0 cannot overflow. */
static double sampler_heat(sampler *s, int kept) {
    const float t = s->options.temperature;
    float max, sum;
    if (t == 1) return kept < s->n_vocab ? sampler_sum(s, kept) : (double)s->sum;
    if (kept < s->n_vocab) {
        for (int i = 0; i < kept; i++) {
            const int32_t token = sampler_nth(s, i);
            s->weight[token] = kern_expf((s->logit[token] - s->max) / t);
        }
        return sampler_sum(s, kept);
    }
    for (int i = 0; i < s->n_vocab; i++) s->weight[i] = (s->logit[i] - s->max) / t;
    s->kernels->softmax_part(s->weight, s->n_vocab, 1, s->n_vocab, &max, &sum);
    return (double)sum;
}

/* 0 <= number < 1, a multiple of 2^-53 (xoshiro256**). */
static double sampler_random(sampler *s) {
    uint64_t *r = s->random, x = r[1] * 5, t = r[1] << 17;
    x = (x << 7 | x >> 57) * 9;
    r[2] ^= r[0];
    r[3] ^= r[1];
    r[1] ^= r[2];
    r[0] ^= r[3];
    r[2] ^= t;
    r[3] = r[3] << 45 | r[3] >> 19;
    return (double)(x >> 11) * 0x1p-53;
}

static int32_t sampler_draw(sampler *s) {
    double sum_so_far = 0, target;
    int32_t token;
    int kept;
    sampler_start_ranking(s);
    kept = sampler_filter(s);
    target = sampler_random(s) * sampler_heat(s, kept);
    token = sampler_nth(s, 0);
    for (int i = 0; i < kept && s->weight[sampler_nth(s, i)] > 0; i++) {
        token = sampler_nth(s, i);
        sum_so_far += (double)s->weight[token];
        if (sum_so_far > target) break;
    }
    return token;
}

float sampler_logprob(const sampler *s, const float *logits, int32_t token) {
    return (float)((double)sampler_clean_one(logits[token]) - s->log_sum);
}

void sampler_choose(sampler *s, const float *logits, minim_token_event *event) {
    event->token = 0;
    event->logprob = -INFINITY;
    event->margin = event->entropy = 0;
    event->n_top = 0;
    event->top = s->top;
    s->log_sum = INFINITY; /* no token is possible */
    if (sampler_describe(s, logits, event)) return;
    if (s->n_recent) sampler_penalise(s, logits);
    if (s->options.temperature > 0) {
        if (s->n_recent) sampler_weigh(s);
        event->token = sampler_draw(s);
    } else if (s->n_recent) {
        minim_logprob best = {0, 0};
        sampler_top top = {&best, 1, 0};
        s->kernels->clean(s->logit, s->n_vocab, s->logit, s->block_max);
        sampler_best(s, &top);
        event->token = best.token;
    }
    event->logprob = sampler_logprob(s, logits, event->token);
}
