/* speculate.h: speculation (Leviathan et al. 2023; Chen et al. 2023): cheap guesses of the next tokens, which the model
 * then verifies all in one step. A step of a few rows reads the weights once, as a step of one does, so every guess
 * that was right is a token nearly for free.
 *
 * Guesses come from the text itself (ngram.h) or from a smaller model, the draft. How many are made, and whether, is
 * decided by counting which ones were right: see speculate.c. No clock is read, so the same text is always guessed in
 * the same way.
 */
#ifndef ENGINE_SPECULATE_H
#define ENGINE_SPECULATE_H

#include "engine.h"

enum { SPECULATE_MAX = 16 /* guesses of a step: no more than a KV page holds, see engine_run() */ };

typedef struct speculator speculator;

/* The tokens that may follow. */
typedef struct speculation {
    int32_t token[SPECULATE_MAX];
    int n;
    int is_drafted; /* they come from the draft model */
} speculation;

/* Speculation options that are out of range are an argument error. */
minim_status speculator_check(const minim_generate_options *o, minim_error *e);

/* For the tokens of seq, under the speculation options in o. *out is NULL when they ask for none. Options that are out
 * of range, and a draft of another vocabulary, are argument errors. */
minim_status speculator_new(minim_seq *seq, const minim_generate_options *o, speculator **out, minim_error *e);
void speculator_free(speculator *s); /* NULL is fine */

/* The next token of the text, in order; is_generated: it was chosen by the model, so it shows whether a guess was
 * right. */
minim_status speculator_push(speculator *s, int32_t token, int is_generated, minim_error *e);

/* Guesses what follows the tokens pushed so far, at most `most` tokens, for a step that has `beside` rows of others.
 *  All of them but the last, which is given here
 * too, have been run by seq. A draft that fails for want of memory is an error; one whose context is full guesses no
 * more. */
minim_status speculator_guess(speculator *s, int32_t last, int most, int beside, speculation *out, minim_error *e);

#endif
