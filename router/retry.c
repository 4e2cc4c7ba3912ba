/* retry.c: see retry.h. */
#include "retry.h"

#include <curl/curl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Seconds from a number of seconds or an HTTP date; NAN when it is neither. */
static double retry_seconds(const char *value, time_t now) {
    char *end;
    if (strchr("+-.0123456789", value[0])) {
        double seconds = strtod(value, &end);
        if (end != value && !*end) return seconds;
    }
    time_t date = curl_getdate(value, NULL);
    return date == -1 ? NAN : difftime(date, now);
}

void retry_header(retry_hint *hint, const char *line, size_t n, time_t now) {
    char text[128], *colon;
    while (n && strchr("\r\n \t", line[n - 1])) n--;
    if (n >= sizeof text || memchr(line, 0, n)) return; /* none of ours is that long */
    memcpy(text, line, n);
    text[n] = 0;
    if (!(colon = strchr(text, ':'))) return;
    *colon = 0;
    char *value = colon + 1 + strspn(colon + 1, " \t");
    if (!*value) return;
    if (!strcasecmp(text, "x-should-retry")) {
        hint->should = !strcasecmp(value, "true") ? 1 : !strcasecmp(value, "false") ? -1 : 0;
    }
    int in_ms = !strcasecmp(text, "retry-after-ms");
    if (!in_ms && (strcasecmp(text, "retry-after") || hint->from_ms)) return;
    double seconds = retry_seconds(value, now);
    if (isnan(seconds)) return;
    hint->seconds = in_ms ? seconds / 1000 : seconds;
    hint->has_seconds = 1;
    hint->from_ms = in_ms;
}

int retry_status(const retry_hint *hint, int status) {
    if (hint->should) return hint->should > 0;
    return status == 408 || status == 409 || status == 429 || status >= 500;
}

double retry_wait(const retry_hint *hint, double base_seconds, int attempt, double random) {
    if (hint->has_seconds && hint->seconds > RETRY_LONGEST_WAIT) return -1;
    if (hint->has_seconds && hint->seconds > 0) return hint->seconds;
    double seconds = ldexp(base_seconds, attempt < 30 ? attempt : 30);
    if (seconds > 8) seconds = 8;
    return seconds * (1 - 0.25 * random);
}
