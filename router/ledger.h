/* ledger.h: what the router asks of a ledger. router.c sees these functions only, so that it is the same without
 * SQLite; ledger.c has them. All may be called from any thread. */
#ifndef ROUTER_LEDGER_H
#define ROUTER_LEDGER_H

#include "support.h"

/* What is booked when a request is over. Pointers are the caller's; hashes are salted and in hexadecimal. */
typedef struct ledger_line {
    minim_status status; /* of minim_router_ask() */
    minim_route_mode mode;
    const minim_route_decision *decision;
    const minim_router_reply *local, *remote; /* NULL = not asked */
    uint64_t remote_calls, remote_verdicts;   /* that reached it; of these, verdicts */
    const char *cache;                        /* "off", "miss", "hit", "stored" */
    int is_private, over_budget;
    char prompt_hash[65], answer_hash[65]; /* "" = there is no answer */
    uint64_t n_messages, prompt_bytes, answer_bytes;
    const char *inputs;          /* minim_route_inputs() */
    const char *prompt, *answer; /* NULL unless content is wanted: a JSON array of messages, text */
} ledger_line;

/* An answer from before. */
typedef struct ledger_cached {
    minim_route route;
    minim_route_finish finish;
    minim_route_usage usage; /* tokens that the remote would have been paid for */
    char model[256];
    router_bytes text;
} ledger_cached;

typedef struct ledger_functions {
    /* Sets dollars aside if, together with all that was booked since `since` (Unix time), they fit max_budget.
     * MINIM_ERR_SPACE: they do not. Nothing (0) always fits. *ticket is 0, or a reservation that is to grow. */
    minim_status (*reserve)(minim_ledger *ledger, double dollars, double max_budget, double since, int64_t *ticket,
                            minim_error *error);
    /* Books a line; in place of a reservation when there is a ticket (0 = none). */
    minim_status (*settle)(minim_ledger *ledger, int64_t ticket, const ledger_line *line, minim_error *error);
    /* MINIM_OK with text.n = 0: there is none that is young enough. */
    minim_status (*cache_get)(minim_ledger *ledger, const uint8_t key[32], double max_age, ledger_cached *cached,
                              minim_error *error);
    minim_status (*cache_put)(minim_ledger *ledger, const uint8_t key[32], double max_age, const ledger_cached *cached,
                              minim_error *error);
} ledger_functions;

/* The head of every ledger. */
struct minim_ledger {
    const ledger_functions *functions;
    uint8_t salt[32]; /* of the hashes: a short prompt could be guessed from a plain one */
};

#endif
