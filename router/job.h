/* job.h: one prompt on its way through the router: what router.c and book.c share. */
#ifndef ROUTER_JOB_H
#define ROUTER_JOB_H

#include <stdatomic.h>

#include "evidence.h"
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
    evidence_rules *evidence; /* NULL = none */
    double remote_latency;    /* seconds to its first token the last time; 0 = not seen */
    minim_ledger *ledger;     /* NULL = none */
    char local_identity[256]; /* "" = unknown: nothing is cached */
    int no_logprobs;          /* the remote has refused to say any */
    atomic_int cancelled;
};

/* What one side has said. */
typedef struct router_side {
    minim_router_reply reply;
    router_bytes text;
} router_side;

enum { ROUTER_WINDOW = 64 };

/* The last log-probabilities of the local model. */
typedef struct router_window {
    double last[ROUTER_WINDOW]; /* a ring */
    uint64_t n;                 /* tokens so far, and their sum */
    double sum;
} router_window;

/* An answer that is written in parts. */
typedef struct router_hybrid {
    minim_router_session session;
    size_t before[ROUTER_WINDOW]; /* bytes of text before each of the last tokens */
    size_t cut, n_shown;          /* bytes that would stand if it collapsed now; bytes that were shown */
    uint64_t n_cut, n_kept;       /* tokens of this part up to the cut; tokens of the parts before, of both sides */
    int n_parts;                  /* of the local model */
    const char *echo;             /* the text that a span may begin with once more; NULL = it no longer can */
    size_t n_echo;                /* bytes of it that have come again */
} router_hybrid;

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
    minim_router_request request;
    minim_route asking;
    int hold;           /* text of the side that is asked is not shown yet */
    int shown;          /* some text was shown and not withdrawn */
    minim_status broke; /* the job itself failed: memory or size */
    double started;
    int watched; /* race_watch() looks on: the local answer may be replaced */
    router_window window;
    router_hybrid hybrid;
    struct router_race *race; /* the remote that works beside; NULL = none */
    int race_given_up;        /* it was told to stop, and is waited for when that matters */

    /* The ledger's side of it, in book.c. */
    int64_t ticket;                     /* of the reservation; 0 = none */
    minim_router_reply last_call;       /* who said it: model, server, HTTP status */
    uint64_t calls, verdicts, attempts; /* that reached the remote; of these, verdicts; with retries */
    int may_cache;                      /* the request may be looked up and kept */
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

/* In router.c: the only way out. Makes the remote when it is needed for the first time; fails for what is private,
 * whatever the policies have said. */
minim_status router_reach_remote(router_job *job, const minim_router_request *request, minim_router_reply *reply,
                                 minim_error *error);
/* Notes how the remote's answer ended. */
void router_note_remote(router_job *job, minim_status status, const minim_error *said);
/* Shows what was held, and from now on what comes. Non-zero stops. */
int router_release(router_job *job);

/* Counts a call that is over, if it reached the remote. */
void router_count_call(router_job *job, const minim_router_reply *reply);

/* What comes to what was counted before. */
void router_add_usage(minim_route_usage *sum, const minim_route_usage *more);

/* In router.c: shows text; non-zero stops. */
int router_show(router_job *job, minim_route route, const char *text, size_t n);
void router_note_local(router_job *job, minim_status status, const minim_error *said);

/* In hybrid.c. After each token of the local model; shows the first n bytes; asks the local model for the next part,
 * and the remote for a span; frees what was kept between parts. */
void hybrid_note_token(router_job *job);
int hybrid_show(router_job *job, size_t n);
minim_status hybrid_ask_local(router_job *job, const minim_router_request *request, const minim_router_sink *sink,
                              minim_error *said);
minim_status hybrid_ask_span(router_job *job, int span_tokens, minim_error *error);
void hybrid_end(router_job *job);

/* In verify.c: asks the remote whether the local answer is right and notes the outcome. Fails only when the job is
 * over. */
minim_status verify_answer(router_job *job, minim_error *error);

/* In race.c. Called while the local model answers; non-zero stops it: cancelled, or the state says "stopped". */
int race_watch(router_job *job);
/* The remote of a race goes on alone: its text goes to the sink until it ends. */
minim_status race_follow(router_job *job, const minim_router_sink *sink, minim_error *error);
/* A remote that was told to stop is waited for and paid, so that it can be asked anew. */
void race_clear(router_job *job);
/* Stops the remote of a race, if there is one, and waits for it; its cost is the state's. */
void race_stop(router_job *job);

#endif
