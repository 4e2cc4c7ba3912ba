/* text.h: turns a stream of bytes into text that can be shown: whole UTF-8 characters, stop strings held back. */
#ifndef ENGINE_TEXT_H
#define ENGINE_TEXT_H

#include "base.h"

typedef struct text_stream text_stream;

/* Stop strings are copied; empty ones are an argument error. */
minim_status text_new(const minim_allocator *a, const char *const *stop, size_t n_stop, text_stream **out,
                      minim_error *e);
void text_free(text_stream *t);

/* Adds bytes. *ready / *n_ready: text that is certain now (valid until the next call): it ends on a character boundary
 * and no suffix of what was seen so far that could still become a stop string is in it. Bytes that can never become
 * valid UTF-8 are replaced by U+FFFD. *stopped = 1 when a stop string was found: the earliest match ends the text, nothing
 * behind it is given out. */
minim_status text_push(text_stream *t, const char *bytes, size_t n, const char **ready, size_t *n_ready, int *stopped,
                       minim_error *e);
/* The end of the stream: what was held back (an incomplete character becomes U+FFFD). */
minim_status text_finish(text_stream *t, const char **ready, size_t *n_ready, minim_error *e);

#endif
