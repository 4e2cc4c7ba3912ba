/* signals.h: collects what the sampler says about each token of an answer. */
#ifndef ROUTER_SIGNALS_H
#define ROUTER_SIGNALS_H

#include "support.h"

/* All zero at the start. */
typedef struct signal_track {
    size_t n, capacity;
    float *logprob, *margin; /* [n] for the quantiles */
    double sum_logprob, sum_margin, sum_entropy, max_entropy, first_logprob, first_entropy;
    int failed; /* memory was short: there will be no signals */
} signal_track;

void signal_add(signal_track *track, const minim_token_event *event);

/* Writes signals[MINIM_ROUTE_N_SIGNALS] and puts the track's figures in order; 0, or -1 when there are none. */
int signal_finish(signal_track *track, minim_route_finish finish, double *signals);
void signal_free(signal_track *track);

#endif
