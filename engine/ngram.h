/* ngram.h: where has a text said this before? Prompt lookup (Saxena 2023; Yang et al. 2023, "LLMA"): answers that
 * quote, summarise or edit their prompt repeat long stretches of it word for word, so what followed the last few tokens
 * when they stood somewhere before is a good guess at what follows now.
 *
 * The search is that of LZ77 compressors (deflate): chains of places with the same hash, the latest first, of which a
 * bounded number is looked at. Memory is linear in the tokens, time constant for each. Nothing is random: the same
 * tokens give the same guesses.
 */
#ifndef ENGINE_NGRAM_H
#define ENGINE_NGRAM_H

#include "base.h"

enum {
    NGRAM_SHORT = 1,
    NGRAM_MIDDLE = 2,
    NGRAM_LONG = 4,       /* places that share this many are looked for first */
    NGRAM_CANDIDATES = 16 /* places of a chain that are looked at */
};

typedef struct ngram_index ngram_index;

minim_status ngram_new(const minim_allocator *a, ngram_index **out, minim_error *e);
void ngram_free(ngram_index *x); /* NULL is fine */

/* The next token of the text. On failure (memory) the index is unchanged. */
minim_status ngram_push(ngram_index *x, int32_t token, minim_error *e);

/* The longest match: how many tokens at the end of the text also stand somewhere before; 0 = fewer than NGRAM_SHORT. Of
 * equally long ones one that lies shortly behind the last of NGRAM_LONG or more, else the latest. A match is found when
 * it has begun and followed while it lasts, however long. */
size_t ngram_length(const ngram_index *x);

/* Guesses n tokens: what followed the match. Where that reaches the end of the text it goes on with the guesses, so a
 * text in a loop is guessed around the loop. Returns n, or 0 without a match. */
int ngram_guess(const ngram_index *x, int32_t *tokens, int n);

#endif
