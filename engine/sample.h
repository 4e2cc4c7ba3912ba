/* sample.h: from logits to a token. */
#ifndef ENGINE_SAMPLE_H
#define ENGINE_SAMPLE_H

#include "../kernels/kernels.h"
#include "base.h"

typedef struct sampler sampler;

minim_status sampler_new(const minim_allocator *a, const kern_table *k, int n_vocab, const minim_sampling *s, int n_top,
                         sampler **out, minim_error *e);
void sampler_free(sampler *s);

/* A token that later penalties look back at (prompt and generated ones). */
void sampler_accept(sampler *s, int32_t token);

/* Chooses a token from raw logits[n_vocab] (not changed) and fills every figure of *event except index and is_end.
 * Order of the filters, as llama.cpp's users know it: repetition penalty, top-k, top-p, min-p, temperature, draw.
 * Logits that are NaN count as minus infinity; if none is finite, token 0 is chosen with logprob -inf. */
void sampler_choose(sampler *s, const float *logits, minim_token_event *event);

#endif
