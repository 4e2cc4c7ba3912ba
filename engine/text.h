/* text.h: turns a stream of bytes into text that can be shown: whole UTF-8 characters, stop strings held back.
 *
 * The result does not depend on how the bytes are cut into pushes. Time is linear in the bytes, for any stop strings.
 */
#ifndef ENGINE_TEXT_H
#define ENGINE_TEXT_H

#include "base.h"

enum {
    TEXT_MAX_STOPS = 64,       /* stop strings of a stream */
    TEXT_MAX_STOP_BYTES = 1024 /* bytes of a stop string */
};

typedef struct text_stream text_stream;

/* Stop strings are copied. More or longer ones than the limits, empty ones and ones that are not UTF-8 are an argument
 * error. */
minim_status text_new(const minim_allocator *a, const char *const *stop, size_t n_stop, text_stream **out,
                      minim_error *e);
void text_free(text_stream *t); /* NULL is fine */

/* Adds bytes. *ready / *n_ready: text that is certain now (valid until the next call): it ends on a character boundary
 * and no suffix of what was seen so far that could still become a stop string is in it. Bytes that can never become
 * valid UTF-8 are replaced by U+FFFD, one for each maximal part of a character (Unicode 15, section 3.9).
 * *stopped = 1 when a stop string was found: the text ends before it, and nothing more is given out. The stop string
 * that is complete first counts; of several that are complete with the same byte, the one that begins first.
 * On failure nothing was added. */
minim_status text_push(text_stream *t, const char *bytes, size_t n, const char **ready, size_t *n_ready, int *stopped,
                       minim_error *e);
/* The end of the stream: what was held back (an incomplete character becomes U+FFFD). */
minim_status text_finish(text_stream *t, const char **ready, size_t *n_ready, minim_error *e);

#endif
