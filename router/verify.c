/* verify.c: the third action of a cascade: the remote looks at the local answer and says in one token whether it is
 * right. The way out is that of a question: the same gate, over the answer as well, the same budget, retries, breakers
 * and ledger. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "job.h"
#include "minim_route_learn.h"

static const char verify_question[] =
    "Judge the previous answer. Is it correct and complete? Reply with one word only: "
    "YES or NO.";

/* 1 for a YES or its beginning, -1 for a NO, 0 for neither. Tokenizers may cut the word. */
static int verify_word(const char *text) {
    while (*text && !isalpha((unsigned char)*text)) text++;
    size_t n = 0;
    while (isalpha((unsigned char)text[n])) n++;
    if (n && n <= 3 && !strncasecmp(text, "yes", n)) return 1;
    return n && n <= 2 && !strncasecmp(text, "no", n) ? -1 : 0;
}

/* P(YES), of the mass on YES and NO among the best first tokens; where there are none, by the word that was said. 0, or
 * -1 when that is neither. */
static int verify_read(const minim_router_reply *reply, const char *said, double *verdict) {
    double yes = 0, no = 0;
    for (int i = 0; i < reply->n_top; i++) {
        int word = verify_word(reply->top[i].text);
        double p = exp(reply->top[i].logprob);
        if (word > 0) yes += p;
        if (word < 0) no += p;
    }
    int word = verify_word(said);
    if (yes + no > 0)
        *verdict = yes / (yes + no);
    else if (word)
        *verdict = word > 0;
    else
        return -1;
    return 0;
}

/* What the remote says: a word, of which the beginning is enough. */
typedef struct verify_said {
    router_job *job;
    char text[64];
    size_t n;
} verify_said;

static int verify_on_text(void *user, const char *text, size_t n) {
    verify_said *said = user;
    size_t room = sizeof said->text - 1 - said->n;
    memcpy(said->text + said->n, text, n < room ? n : room);
    said->n += n < room ? n : room;
    said->text[said->n] = 0;
    return atomic_load(&said->job->router->cancelled);
}

static int verify_on_progress(void *user, uint64_t n_tokens) {
    router_job *job = ((verify_said *)user)->job;
    if (atomic_load(&job->router->cancelled)) return 1;
    return job->callbacks.on_progress ? job->callbacks.on_progress(job->callbacks.user, MINIM_ROUTE_REMOTE, n_tokens)
                                      : 0;
}

/* Whether the server itself could not be asked: then it will not answer either. */
static int verify_is_down(minim_route_failure failure) {
    return failure != MINIM_ROUTE_OK && failure != MINIM_ROUTE_FAILED_REQUEST && failure != MINIM_ROUTE_FAILED_EMPTY &&
           failure != MINIM_ROUTE_FAILED_PROTOCOL && failure != MINIM_ROUTE_FAILED_INCOMPLETE &&
           failure != MINIM_ROUTE_FAILED_TOO_LARGE && failure != MINIM_ROUTE_FAILED_CONTEXT;
}

static void verify_note_failure(router_job *job, const minim_router_reply *reply, const minim_error *said) {
    minim_route_state *state = &job->state;
    state->verify = MINIM_ROUTE_FAILED;
    router_line(state->verify_detail, sizeof state->verify_detail, "%s",
                said->text[0] ? said->text : "found neither YES nor NO");
    if (!verify_is_down(reply->failure) || !reply->attempts) return;
    state->remote = MINIM_ROUTE_FAILED;
    router_line(state->remote_detail, sizeof state->remote_detail, "%s", state->verify_detail);
    job->sides[MINIM_ROUTE_REMOTE].reply = *reply;
    job->sides[MINIM_ROUTE_REMOTE].reply.usage = (minim_route_usage){0}; /* which is among the extras */
    job->answer.remote = &job->sides[MINIM_ROUTE_REMOTE].reply;
}

/* Asks once, or twice where the server does not know log-probabilities. */
static minim_status verify_call(router_job *job, minim_router_request *check, verify_said *said,
                                minim_router_reply *reply, minim_error *error) {
    minim_router_sink sink = {said, verify_on_text, verify_on_progress};
    minim_status status;
    for (;;) {
        check->top_logprobs = job->router->no_logprobs ? 0 : 5;
        said->n = 0;
        said->text[0] = 0;
        *reply = (minim_router_reply){.size = sizeof *reply};
        status = router_reach_remote(job, check, reply, error);
        if (status != MINIM_OK) return status;
        status = job->router->remote.chat(job->router->remote.state, check, &sink, reply, error);
        router_add_usage(&job->state.extra_usage, &reply->usage);
        router_count_call(job, reply);
        job->verdicts += reply->attempts > 0;
        int refused = status != MINIM_OK && reply->failure == MINIM_ROUTE_FAILED_REQUEST &&
                      (reply->http_status == 400 || reply->http_status == 422);
        if (!refused || !check->top_logprobs) return status;
        job->router->no_logprobs = 1;
    }
}

minim_status verify_answer(router_job *job, minim_error *error) {
    const minim_router_request *request = &job->request;
    minim_router_request check = *request;
    minim_message *messages = calloc(request->n_messages + 2, sizeof *messages);
    minim_router_reply reply = {.size = sizeof reply};
    minim_error said_error = {MINIM_OK, ""};
    verify_said said = {.job = job};
    if (!messages) return router_fail_memory(error, "the verification");
    memcpy(messages, request->messages, request->n_messages * sizeof *messages);
    messages[request->n_messages] = (minim_message){"assistant", job->sides[MINIM_ROUTE_LOCAL].text.data};
    messages[request->n_messages + 1] = (minim_message){"user", verify_question};
    check.messages = messages;
    check.n_messages = request->n_messages + 2;
    check.max_tokens = 1;
    check.n_stop = 0;
    check.send = 0;
    book_reserve(job, &check);
    minim_status status = MINIM_OK;
    if (!job->state.over_budget) status = verify_call(job, &check, &said, &reply, &said_error);
    free(messages);
    if (job->state.over_budget) return MINIM_OK;
    if (status == MINIM_ERR_CANCELLED) return router_fail(error, status, "cancelled");
    /* A first token that is white space is an empty answer, and may come with log-probabilities all the same. */
    int is_read = (status == MINIM_OK || reply.failure == MINIM_ROUTE_FAILED_EMPTY) &&
                  !verify_read(&reply, said.text, &job->features.verdict);
    if (is_read) {
        const minim_router_reply *local = &job->sides[MINIM_ROUTE_LOCAL].reply;
        job->state.verify = MINIM_ROUTE_ANSWERED;
        job->features.has_verdict = 1;
        minim_route_apply_calibration(job->router->calibration, local->model, local->quantisation,
                                      job->router->config.confidence_method, &job->features);
    } else {
        verify_note_failure(job, &reply, &said_error);
    }
    return MINIM_OK;
}
