/* sample.h: from logits to a token.
 *
 * The same logits, options and history give the same token and the same figures on every machine: sums have one order
 * (the kernel table's), exp and log are ours, and the random numbers are xoshiro256** (Blackman & Vigna 2018), its
 * state filled from the seed by splitmix64, one number for each token that is drawn.
 */
#ifndef ENGINE_SAMPLE_H
#define ENGINE_SAMPLE_H

#include "../kernels/kernels.h"
#include "base.h"

enum {
    SAMPLER_MAX_TOP = 64,        /* best tokens of an event */
    SAMPLER_MAX_LAST_N = 1 << 20 /* repeat_last_n */
};

typedef struct sampler sampler;

/* n_top: how many of the best tokens events list, 0..SAMPLER_MAX_TOP. An impossible option is MINIM_ERR_ARGUMENT with a
 * text that names it. The kernel table must outlive the sampler. */
minim_status sampler_new(const minim_allocator *a, const kern_table *k, int n_vocab, const minim_sampling *s, int n_top,
                         sampler **out, minim_error *e);
void sampler_free(sampler *s); /* NULL is fine */

/* A token that later penalties look back at (prompt and generated ones). */
void sampler_accept(sampler *s, int32_t token);

/* Chooses a token from raw logits[n_vocab] (not changed) and fills every figure of *event except index and is_end;
 * event->top is valid until the next call. Order of the filters, as llama.cpp's users know it: repetition penalty,
 * top-k, top-p, min-p, temperature, draw. At least one token is always kept. Top-p and min-p look at the probabilities
 * at temperature 1; top-p keeps the fewest best tokens that together reach it, of those that top-k has kept.
 *
 * Logits that are NaN count as minus infinity; if none is finite, token 0 is chosen with logprob -inf, and margin,
 * entropy and n_top are 0. If only one is, the margin is infinite. */
void sampler_choose(sampler *s, const float *logits, minim_token_event *event);

/* The log-probability of another token under the same logits, right after sampler_choose(). */
float sampler_logprob(const sampler *s, const float *logits, int32_t token);

#endif
