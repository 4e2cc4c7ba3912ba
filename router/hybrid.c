/* hybrid.c: one answer by two hands: the local model writes; where its last tokens collapse, they are taken back, the
 * remote continues the text for a span, and the local model goes on behind it. The text is one, in the local side. */
#include <stdlib.h>
#include <string.h>

#include "job.h"

/* So many tokens may still be made; 0 = no limit, -1 = none are left. */
static int hybrid_left(const router_job *job) {
    int most = job->request.max_tokens;
    uint64_t made = job->hybrid.n_kept;
    if (most <= 0) return 0;
    return made < (uint64_t)most ? most - (int)made : -1;
}

void hybrid_note_token(router_job *job) {
    router_hybrid *h = &job->hybrid;
    uint64_t n = job->sides[MINIM_ROUTE_LOCAL].reply.n_logprobs, held = (uint64_t)job->policy.handover_tokens;
    if (!n) return;
    h->before[n % ROUTER_WINDOW] = job->sides[MINIM_ROUTE_LOCAL].text.n; /* text comes behind its token */
    /* Where the answer would be cut if it collapsed now; what stands before it can be shown. */
    h->cut = n >= held ? h->before[(n - held + 1) % ROUTER_WINDOW] : h->before[1 % ROUTER_WINDOW];
    h->n_cut = n >= held ? n - held : 0;
}

int hybrid_show(router_job *job, size_t n) {
    const router_bytes *text = &job->sides[MINIM_ROUTE_LOCAL].text;
    size_t from = job->hybrid.n_shown;
    if (n <= from || n > text->n) return 0;
    job->hybrid.n_shown = n;
    return router_show(job, MINIM_ROUTE_LOCAL, text->data + from, n - from);
}

/* What the parts of the local answer come to. */
static void hybrid_add(minim_router_reply *sum, const minim_router_reply *before) {
    sum->n_logprobs += before->n_logprobs;
    sum->sum_logprob += before->sum_logprob;
    sum->usage.completion_tokens += before->usage.completion_tokens;
    sum->usage.seconds += before->usage.seconds;
    sum->has_signals = 0; /* those of a part are not those of the answer */
    /* What was read again behind a span is no other prompt. */
    sum->usage.prompt_tokens = before->usage.prompt_tokens;
    sum->usage.first_token_seconds = before->usage.first_token_seconds;
}

minim_status hybrid_ask_local(router_job *job, const minim_router_request *request, const minim_router_sink *sink,
                              minim_error *said) {
    router_side *side = &job->sides[MINIM_ROUTE_LOCAL];
    router_hybrid *h = &job->hybrid;
    minim_router_request part = *request;
    minim_router_reply before = side->reply;
    int continues = h->n_parts++ > 0, left = hybrid_left(job);
    char *prefix = side->text.n ? strdup(side->text.data) : NULL;
    if (side->text.n && !prefix) return router_fail_memory(said, "the answer so far");
    part.prefix = prefix;
    part.session = &h->session;
    part.max_tokens = left > 0 ? left : 0;
    side->reply = (minim_router_reply){.size = sizeof side->reply};
    h->n_shown = side->text.n; /* what was kept has been shown */
    h->cut = side->text.n;
    h->n_cut = 0;
    minim_status status = MINIM_OK;
    if (left < 0) {
        side->reply = before;
        side->reply.finish = MINIM_ROUTE_FINISH_LENGTH;
    } else {
        status = job->router->local.chat(job->router->local.state, &part, sink, &side->reply, said);
    }
    free(prefix);
    if (job->state.local == MINIM_ROUTE_STOPPED) {
        side->reply.failure = MINIM_ROUTE_OK;
        h->n_kept += h->n_cut;
        side->text.n = h->cut;
        while (side->text.n && strchr(" \t\r\n", side->text.data[side->text.n - 1])) side->text.n--;
        if (side->text.data) side->text.data[side->text.n] = 0;
    }
    if (continues && left >= 0) hybrid_add(&side->reply, &before);
    return status;
}

static int hybrid_take(router_job *job, const char *text, size_t n) {
    router_bytes *kept = &job->sides[MINIM_ROUTE_LOCAL].text;
    size_t before = kept->n;
    job->broke = router_utf8_append(kept, text, n);
    if (job->broke != MINIM_OK || atomic_load(&job->router->cancelled)) return 1;
    return router_show(job, MINIM_ROUTE_REMOTE, kept->data + before, kept->n - before);
}

/* The remote's words go behind the local ones. Some servers (llama-server) say the text once more that they were to
 * continue: what has come of it is held back until it is all there, which is left out, or until it differs. */
static int hybrid_on_text(void *user, const char *text, size_t n) {
    router_job *job = user;
    router_hybrid *h = &job->hybrid;
    for (; h->echo && h->echo[h->n_echo] && n && *text == h->echo[h->n_echo]; text++, n--) h->n_echo++;
    if (!n) return 0;
    const char *held = h->echo && h->echo[h->n_echo] ? h->echo : NULL;
    h->echo = NULL;
    if (held && h->n_echo && hybrid_take(job, held, h->n_echo)) return 1;
    return hybrid_take(job, text, n);
}

static int hybrid_on_progress(void *user, uint64_t n_tokens) {
    router_job *job = user;
    if (atomic_load(&job->router->cancelled)) return 1;
    return job->callbacks.on_progress ? job->callbacks.on_progress(job->callbacks.user, MINIM_ROUTE_REMOTE, n_tokens)
                                      : 0;
}

static minim_status hybrid_call(router_job *job, minim_router_request *span, minim_router_reply *reply,
                                minim_error *said) {
    minim_router_sink sink = {job, hybrid_on_text, hybrid_on_progress};
    minim_status status = router_reach_remote(job, span, reply, said);
    job->hybrid.echo = span->prefix;
    job->hybrid.n_echo = 0;
    if (status == MINIM_OK) status = job->router->remote.chat(job->router->remote.state, span, &sink, reply, said);
    router_count_call(job, reply);
    const char *held = job->hybrid.echo; /* a span that was no more than the text's beginning */
    job->hybrid.echo = NULL;
    if (status == MINIM_OK && held && held[job->hybrid.n_echo] && hybrid_take(job, held, job->hybrid.n_echo))
        return router_fail(said, MINIM_ERR_CANCELLED, "cancelled");
    router_add_usage(&job->state.extra_usage, &reply->usage);
    return status;
}

/* How a span ended. The local model goes on unless the remote has ended the answer. */
static void hybrid_note_span(router_job *job, minim_status status, const minim_router_reply *reply,
                             const minim_error *said) {
    router_side *local = &job->sides[MINIM_ROUTE_LOCAL], *remote = &job->sides[MINIM_ROUTE_REMOTE];
    minim_route_state *state = &job->state;
    job->hybrid.n_kept += reply->usage.completion_tokens;
    state->local = MINIM_ROUTE_NOT_ASKED;
    if (status == MINIM_OK) {
        state->spans++;
        if (reply->finish == MINIM_ROUTE_FINISH_LENGTH) return;
        local->reply.finish = reply->finish;
        router_note_local(job, MINIM_OK, said);
        return;
    }
    remote->reply = *reply;
    remote->reply.usage = (minim_route_usage){0}; /* which is among the extras */
    router_note_remote(job, status, said);
}

minim_status hybrid_ask_span(router_job *job, int span_tokens, minim_error *error) {
    router_side *side = &job->sides[MINIM_ROUTE_LOCAL];
    minim_router_request span = job->request;
    minim_router_reply reply = {.size = sizeof reply};
    minim_error said = {MINIM_OK, ""};
    int left = hybrid_left(job), was_shown = hybrid_show(job, side->text.n);
    if (was_shown) return router_fail(error, MINIM_ERR_CANCELLED, "cancelled");
    char *prefix = side->text.n ? strdup(side->text.data) : NULL;
    if (side->text.n && !prefix) return router_fail_memory(error, "the answer so far");
    span.prefix = prefix;
    /* The local model may have written what must not leave: then it goes on alone, as for a private request. */
    job->state.is_private |= private_request(job->router->rules, &span);
    if (job->state.is_private) {
        free(prefix);
        return MINIM_OK;
    }
    span.max_tokens = left > 0 && left < span_tokens ? left : span_tokens;
    span.send &= ~(unsigned)MINIM_ROUTER_SEND_SEED;
    book_reserve(job, &span);
    minim_status status = job->state.over_budget ? MINIM_OK : hybrid_call(job, &span, &reply, &said);
    free(prefix);
    if (job->broke != MINIM_OK) return router_fail(error, job->broke, "no room for the answer's text");
    if (job->state.over_budget) return MINIM_OK; /* the local model goes on alone */
    if (status == MINIM_ERR_CANCELLED) return router_fail(error, status, "cancelled");
    hybrid_note_span(job, status, &reply, &said);
    return MINIM_OK;
}

void hybrid_end(router_job *job) {
    minim_router_session *session = &job->hybrid.session;
    if (session->free) session->free(session->state);
    *session = (minim_router_session){0};
}
