/* score.h: the parts of `minim eval`: figures over the scored positions of a text, and the file of reference logits. */
#ifndef TOOLS_SCORE_H
#define TOOLS_SCORE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* ---- figures ----------------------------------------------------------------------------------------------------- */

/* One number for each scored position, in the order of the text. Probabilities are of the token that really comes next.
 * Only nll is there without a reference. */
typedef struct score_values {
    double *nll;           /* -ln p */
    double *reference_nll; /* the same of the reference model */
    double *kl;            /* divergence of the model's distribution from the reference's, nats */
    double *delta_p;       /* p of the model minus p of the reference */
    size_t n, capacity;
    double sum_nll;
    size_t n_same; /* positions whose most likely token is the same in both */
} score_values;

/* Room for `capacity` positions. 0, or -1 when there is no memory. */
int score_values_new(score_values *values, size_t capacity, int with_reference);
void score_values_free(score_values *values);

/* Adds the position whose logits are logits[n_vocab] and whose next token is `next`. reference is NULL or the other
 * model's logits. All are finite. */
void score_add(score_values *values, const float *logits, const float *reference, size_t n_vocab, int32_t next);

/* exp(mean nll) up to here. */
double score_perplexity(const score_values *values);

/* The first of values[n] that is infinite or not a number; n when there is none. */
size_t score_not_finite(const float *values, size_t n);

/* What the figures are about. */
typedef struct score_subject {
    const char *model, *text, *reference; /* names of files; reference NULL = none */
    int n_ctx;
    size_t n_chunks;
} score_subject;

/* Prints to stdout, as lines for people or as one JSON object. Sorts the values. */
void score_print(const score_subject *subject, score_values *values, int json);

/* ---- reference logits -------------------------------------------------------------------------------------------- */

/* A file of logits, written by one model and read beside another:
 *
 *   8 bytes   "minimlgt"
 *   uint32    version (1), n_vocab, n_ctx, n_chunks
 *   int32     tokens[n_chunks][n_ctx], as tokenised (BOS is not put at the start of each chunk here)
 *   float32   logits[n_chunks][scored positions][n_vocab]
 *
 * in the byte order of the machine (little endian wherever minim runs) and without padding. */
typedef struct score_header {
    uint32_t version, n_vocab, n_ctx, n_chunks;
    int is_16; /* written by llama-perplexity --save-all-logits, in 16 bits */
} score_header;

/* Positions of a chunk that are scored: those in its second half that have a next token. The first of them, how many.
 */
size_t score_first(size_t n_ctx);
size_t score_count(size_t n_ctx);

/* Writes the header and tokens[n_chunks * n_ctx]. 0, or -1 with errno. */
int score_write_header(FILE *file, const score_header *header, const int32_t *tokens);

/* Reads the header and the tokens from the start of the file and checks them against the model's vocabulary and the
 * tokens of the text, and the length of the file. Returns -1, or the exit code after a message that names the file. */
int score_read_header(FILE *file, const char *name, size_t n_vocab, const int32_t *tokens, size_t n_tokens,
                      score_header *header);

/* Reads the next `rows` rows; `row` of them were read before (for the message). As score_read_header. */
int score_read_rows(FILE *file, const char *name, const score_header *header, size_t row, size_t rows, float *logits);

#endif
