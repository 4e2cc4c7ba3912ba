/* retry.h: whether a failed request is sent again, and when. The rules are those of the openai client libraries: 2
 * retries, 0.5 s * 2^n capped at 8 s, up to a quarter off at random; a server's Retry-After up to 120 s goes first, a
 * longer one means no retry; x-should-retry overrules the status. Pure functions. */
#ifndef ROUTER_RETRY_H
#define ROUTER_RETRY_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define RETRY_LONGEST_WAIT 120.0

/* What a server says about trying again. All zero: nothing. */
typedef struct retry_hint {
    int has_seconds, from_ms; /* from_ms: it came from retry-after-ms, which goes before retry-after */
    double seconds;
    int should; /* x-should-retry: 0 = not said, 1 = true, -1 = false */
} retry_hint;

/* Takes a header line ("Name: value\r\n" or without the end) into the hint; other headers are ignored. `now` is the
 * time that an HTTP date is compared with. */
void retry_header(retry_hint *hint, const char *line, size_t n, time_t now);

/* Whether an answer with this status is worth another try. */
int retry_status(const retry_hint *hint, int status);

/* Seconds to wait before retry number `attempt` (0 = the first), or -1 = do not. random is in [0, 1). */
double retry_wait(const retry_hint *hint, double base_seconds, int attempt, double random);

#endif
