/* remote.h: one server behind libcurl (remote_curl.c), several of them (fallback.c), and when one is left alone. */
#ifndef ROUTER_REMOTE_H
#define ROUTER_REMOTE_H

#include "support.h"

/* A client of config->base_url. The configuration has been checked by router_copy_config(). */
minim_status remote_client_new(const minim_router_config *config, minim_router_backend *backend, minim_error *error);
minim_status remote_client_check(const minim_router_config *config, minim_error *error);

/* A circuit breaker. Closed: requests pass. Open: none does until a time. Half open, after it: exactly one passes, and
 * its outcome closes or opens again. All zero: closed. Times are router_now()'s. Not locked: a router has one thread.
 */
typedef struct remote_breaker {
    int fails;         /* in a row */
    double open_until; /* 0 = closed */
    int probing;       /* half open, and the one request is on its way */
    int refused;       /* the key is not accepted: open until it is configured anew */
} remote_breaker;

int breaker_allows(remote_breaker *breaker, double now);
/* The outcome of an allowed request. MINIM_ROUTE_OK, or why it failed; cancelled ones are not noted but released. */
void breaker_note(remote_breaker *breaker, minim_route_failure failure, int allowed_fails, double cooldown_time,
                  double now);
void breaker_release(remote_breaker *breaker);

#endif
