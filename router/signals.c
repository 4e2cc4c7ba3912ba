/* signals.c: see signals.h. Two floats a token and one sort at the end: next to nothing beside the token itself. */
#include "signals.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Broken logits may give infinities: as bad as it gets, but still a number that a model can be fitted to. */
static float signal_clamp(float x, float low, float high) {
    return x > low ? x < high ? x : high : low; /* NaN is low */
}

static int signal_grow(signal_track *track) {
    size_t capacity = track->capacity ? 2 * track->capacity : 256;
    float *logprob = capacity < SIZE_MAX / (2 * sizeof *logprob) ? malloc(2 * capacity * sizeof *logprob) : NULL;
    if (!logprob) return -1;
    if (track->n) {
        memcpy(logprob, track->logprob, track->n * sizeof *logprob);
        memcpy(logprob + capacity, track->margin, track->n * sizeof *logprob);
    }
    free(track->logprob);
    track->logprob = logprob;
    track->margin = logprob + capacity; /* one piece of memory */
    track->capacity = capacity;
    return 0;
}

void signal_add(signal_track *track, const minim_token_event *event) {
    if (track->failed) return;
    if (track->n == track->capacity && signal_grow(track)) {
        track->failed = 1;
        return;
    }
    float logprob = signal_clamp(event->logprob, -100, 0), margin = signal_clamp(event->margin, 0, 100);
    double entropy = (double)signal_clamp(event->entropy, 0, 100);
    if (!track->n) {
        track->first_logprob = (double)logprob;
        track->first_entropy = entropy;
    }
    track->sum_logprob += (double)logprob;
    track->sum_margin += (double)margin;
    track->sum_entropy += entropy;
    if (entropy > track->max_entropy) track->max_entropy = entropy;
    track->logprob[track->n] = logprob;
    track->margin[track->n++] = margin;
}

static int signal_compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

int signal_finish(signal_track *track, minim_route_finish finish, double *signals) {
    size_t n = track->n;
    if (track->failed || !n) return -1;
    qsort(track->logprob, n, sizeof *track->logprob, signal_compare);
    qsort(track->margin, n, sizeof *track->margin, signal_compare);
    signals[MINIM_ROUTE_SIGNAL_LOGPROB_MEAN] = track->sum_logprob / (double)n;
    signals[MINIM_ROUTE_SIGNAL_LOGPROB_MIN] = (double)track->logprob[0];
    signals[MINIM_ROUTE_SIGNAL_LOGPROB_Q10] = (double)track->logprob[(n - 1) / 10];
    signals[MINIM_ROUTE_SIGNAL_LOGPROB_Q25] = (double)track->logprob[(n - 1) / 4];
    signals[MINIM_ROUTE_SIGNAL_LOGPROB_Q50] = (double)track->logprob[(n - 1) / 2];
    signals[MINIM_ROUTE_SIGNAL_LOGPROB_FIRST] = track->first_logprob;
    signals[MINIM_ROUTE_SIGNAL_MARGIN_MEAN] = track->sum_margin / (double)n;
    signals[MINIM_ROUTE_SIGNAL_MARGIN_Q10] = (double)track->margin[(n - 1) / 10];
    signals[MINIM_ROUTE_SIGNAL_ENTROPY_MEAN] = track->sum_entropy / (double)n;
    signals[MINIM_ROUTE_SIGNAL_ENTROPY_MAX] = track->max_entropy;
    signals[MINIM_ROUTE_SIGNAL_ENTROPY_FIRST] = track->first_entropy;
    signals[MINIM_ROUTE_SIGNAL_LOG_LENGTH] = log1p((double)n);
    signals[MINIM_ROUTE_SIGNAL_CUT_OFF] = finish == MINIM_ROUTE_FINISH_LENGTH || finish == MINIM_ROUTE_FINISH_CONTEXT;
    return 0;
}

void signal_free(signal_track *track) {
    free(track->logprob);
    memset(track, 0, sizeof *track);
}
