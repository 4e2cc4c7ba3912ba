/* job.h: one prompt on its way through the router: what router.c and book.c share. */
#ifndef ROUTER_JOB_H
#define ROUTER_JOB_H

#include <stdatomic.h>

#include "ledger.h"
#include "private.h"

struct minim_router {
    minim_router_config config;
    minim_router_backend local;
    minim_router_factory factory; /* NULL: there is no remote, or the mode forbids it */
    void *factory_user;
    const minim_route_calibration *calibration; /* NULL = none */
    const minim_route_model *prompt_model;      /* NULL = none */
    minim_router_backend remote;
    int has_remote;
    private_rules *rules;
    minim_ledger *ledger;     /* NULL = none */
    char local_identity[256]; /* "" = unknown: nothing is cached */
    atomic_int cancelled;
};

/* What one side has said. */
typedef struct router_side {
    minim_router_reply reply;
    router_bytes text;
} router_side;

/* The answer is the first member, so that it can be freed by it. */
typedef struct router_job {
    minim_router_answer answer;
    minim_route_decision decision;
    router_side sides[2]; /* by minim_route */
    minim_router *router;
    minim_router_callbacks callbacks;
    minim_route_policy policy;
    minim_route_features features;
    minim_route_state state;
    minim_route asking;
    int hold;           /* text of the side that is asked is not shown yet */
    int shown;          /* some text was shown and not withdrawn */
    minim_status broke; /* the job itself failed: memory or size */
    double started;

    /* The ledger's side of it, in book.c. */
    int64_t ticket; /* of the reservation; 0 = none */
    int may_cache;  /* the request may be looked up and kept */
    uint8_t cache_key[32];
    const char *cache; /* "off", "miss", "hit", "stored" */
    char ledger_error[256];
} router_job;

/* Before anybody is asked: looks for a cached answer, which becomes the side's text and the state's. */
void book_begin(router_job *job, const minim_router_request *request);
/* Before the remote is asked: sets aside what that can cost. Without the money the state says over_budget. A request
 * without max_tokens gets a bound when there is a budget. */
void book_reserve(router_job *job, minim_router_request *request);
/* When all is over: books the line and caches a good answer. status is minim_router_ask()'s. */
void book_end(router_job *job, const minim_router_request *request, minim_status status);

#endif
