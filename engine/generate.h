/* generate.h: one answer in the making: what happens between the logits of a token and the token that is run next.
 *
 * It does not step the engine, so that whoever does can run one answer, many of them together, or
 * several tokens at a time:
 *
 *     generate_begin(&g, ...)                   checks and prepares
 *     run the prompt; generate_prefilled(&g, done, total) after each chunk
 *     while (!g.stopped)
 *         generate_take(&g, logits, &token)     samples, tells the caller, counts, decides whether to stop
 *         if (!g.stopped) run token             or generate_stop(&g, MINIM_STOP_CONTEXT) when there is no room;
 *                                               generate_verify() where tokens were guessed
 *     generate_end(&g)                          text that was held back; g.r is complete
 *     generate_free(&g)                         also after an error
 *
 * Nothing here depends on how the logits were come by.
 */
#ifndef ENGINE_GENERATE_H
#define ENGINE_GENERATE_H

#include <stdatomic.h>

#include "engine.h"
#include "sample.h"
#include "speculate.h"
#include "text.h"

typedef struct generate_run {
    minim_engine *engine;
    minim_generate_options o; /* the stop strings are copied: o.stop may be gone after generate_begin() */
    minim_result r;
    sampler *sampler;
    text_stream *text;
    const atomic_int *cancelled; /* looked at after each chunk and token */
    size_t first;                /* tokens before the first generated one */
    double start, packing;       /* when it began; seconds in minim_engine_prepare() */
    int stopped;                 /* r.stop says why */
    int32_t guess; /* o.accept_min_p: generate_take() prefers this token if it is likely enough; -1 = none */
} generate_run;

/* An answer to `prompt`, which goes behind the `history` of n_history tokens that the sequence has. Impossible options,
 * tokens that do not exist or do not fit the context are an error; then, too, generate_free(). */
minim_status generate_begin(generate_run *g, minim_engine *en, const int32_t *history, size_t n_history,
                            const int32_t *prompt, size_t n_prompt, const minim_generate_options *options,
                            const atomic_int *cancelled, minim_error *e);

/* The first reason counts. */
void generate_stop(generate_run *g, minim_stop why);

/* `done` of the prompt's tokens have been run. */
void generate_prefilled(generate_run *g, size_t done);

/* The logits [n_vocab] behind the last token make the next one, which is run next unless g->stopped. */
minim_status generate_take(generate_run *g, const float *logits, int32_t *token, minim_error *e);

/* How many tokens may be guessed behind the one to be run: no more than can become part of the answer. */
int generate_room(const generate_run *g, const minim_seq *seq);

/* Takes tokens from a step that has run a token and the guesses behind it: logits [1 + guess->n][n_vocab]. A row is
 * that of a plain step, to the bit, as long as the tokens before it were guessed right; so each token is chosen as
 * ever, and the first that was not guessed ends the use of the step. seq then loses the rows that were run in vain.
 * *n_right of the guesses have become part of the answer, and *token is to be run next unless g->stopped. s may be
 * NULL. */
minim_status generate_verify(generate_run *g, minim_seq *seq, speculator *s, const speculation *guess,
                             const float *logits, int *n_right, int32_t *token, minim_error *e);

/* Gives out the text that was held back, unless a stop string or the caller ended it, and sets the times. */
minim_status generate_end(generate_run *g, minim_error *e);

/* As much of g->r as the caller's structure holds (NULL is fine). */
void generate_result(const generate_run *g, minim_result *result);

void generate_free(generate_run *g);

#endif
