/* support.h: what every file of the router uses: errors, growing bytes with a cap, UTF-8, secrets, a clock. */
#ifndef ROUTER_SUPPORT_H
#define ROUTER_SUPPORT_H

#include <stddef.h>
#include <stdint.h>

#include "minim_router.h"

#if defined(__GNUC__)
#define ROUTER_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define ROUTER_PRINTF(f, a)
#endif

/* ---- errors ----------------------------------------------------------------------------------------------------- */

/* Sets *error (may be NULL) and returns status. Texts may quote servers and files: they are made one line. */
minim_status router_fail(minim_error *error, minim_status status, const char *format, ...) ROUTER_PRINTF(3, 4);
minim_status router_fail_memory(minim_error *error, const char *what);

/* snprintf into a line: control characters become '?', a cut leaves no half UTF-8 character. Invalid UTF-8 becomes '?'.
 */
void router_line(char *buffer, size_t capacity, const char *format, ...) ROUTER_PRINTF(3, 4);

/* Copies the fields that both the caller's and our version of a sized struct have. `to` holds the defaults of our
 * version, `size` bytes. 0, or -1 when `from` has no plausible size. */
int router_copy_sized(void *to, size_t size, const void *from);

/* The caller's configuration in our version's size, every number in its range. In config.c. */
minim_status router_copy_config(minim_router_config *to, const minim_router_config *from, minim_error *error);

/* ---- bytes ------------------------------------------------------------------------------------------------------ */

/* Bytes that grow up to a limit. data is NUL-terminated as soon as something was appended. */
typedef struct router_bytes {
    char *data;
    size_t n, capacity;
    size_t limit; /* most bytes it may hold */
} router_bytes;

/* MINIM_OK, MINIM_ERR_SPACE past the limit, MINIM_ERR_MEMORY; then nothing has changed. */
minim_status router_bytes_append(router_bytes *bytes, const char *data, size_t n);
void router_bytes_free(router_bytes *bytes);

/* ---- files ------------------------------------------------------------------------------------------------------ */

/* Appends a regular file's bytes, up to text->limit. The error names the file. */
minim_status router_read_file(const char *path, router_bytes *text, minim_error *error);

/* Writes a file beside its place and renames it: who reads the path finds the old bytes or the new ones, never a part.
 * What a link leads to is replaced, not the link; a pipe or a device is written into. Keeps the mode of a file that is
 * there. */
minim_status router_write_file(const char *path, const char *data, size_t n, minim_error *error);

/* ---- UTF-8 ------------------------------------------------------------------------------------------------------ */

/* Length of the valid character at text[0..n), 0 when there is none. Unicode's table of well-formed sequences. */
size_t router_utf8_length(const char *text, size_t n);
/* Appends text with every byte that is not part of a valid character, and every NUL, replaced by U+FFFD. */
minim_status router_utf8_append(router_bytes *bytes, const char *text, size_t n);

/* ---- secrets ---------------------------------------------------------------------------------------------------- */

/* Overwrites memory in a way that is not optimised away. */
void router_wipe(void *memory, size_t n);
/* Replaces every occurrence of the secret in a line by "[key]", in place. An empty secret or NULL: nothing. */
void router_redact(char *line, const char *secret);

/* ---- scores ----------------------------------------------------------------------------------------------------- */

/* What a method other than "learned" makes of signals[MINIM_ROUTE_N_SIGNALS], in 0..1. In policy.c. */
double router_signal_score(minim_route_method method, const double *signals);

/* ---- clock ------------------------------------------------------------------------------------------------------ */

double router_now(void); /* monotonic seconds */

#endif
