/* bench_router.c: what the router itself costs: before the first token, and beside each token. The sides are scripts
 * that take no time, so all of it is the router's; the sampler's figures are timed on logits of a large vocabulary.
 *
 *     build/bench/bench_router */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../engine/sample.h"
#include "../router/signals.h"

enum { ROUNDS = 300, TOKENS = 4000, VOCAB = 128256, DRAWS = 200 };

static double route_began[2]; /* when the local model was asked, and when it was done */

/* Says TOKENS tokens, one letter each. */
static minim_status route_local(void *state, const minim_router_request *request, const minim_router_sink *sink,
                                minim_router_reply *reply, minim_error *error) {
    int n = *(const int *)state;
    signal_track track = {0};
    (void)request, (void)error;
    route_began[0] = router_now();
    for (int i = 0; i < n; i++) {
        minim_token_event event = {.index = i, .logprob = -0.1F, .margin = 2, .entropy = 0.5F};
        reply->n_logprobs++;
        reply->sum_logprob += (double)event.logprob;
        signal_add(&track, &event);
        if (sink->on_progress(sink->user, reply->n_logprobs) || sink->on_text(sink->user, "a", 1))
            return MINIM_ERR_CANCELLED;
    }
    reply->has_signals = !signal_finish(&track, MINIM_ROUTE_FINISH_END, reply->signals);
    signal_free(&track);
    route_began[1] = router_now();
    return MINIM_OK;
}

static minim_status route_no_remote(void *user, const minim_router_config *config, minim_router_backend *backend,
                                    minim_error *error) {
    (void)user, (void)config, (void)backend, (void)error;
    return MINIM_ERR_UNSUPPORTED;
}

static int route_compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Asks ROUNDS times. Medians: seconds before the local model is asked, beside its tokens, behind them. */
static int route_measure(const minim_router_config *config, minim_ledger *ledger, size_t n_prompt, int n_tokens,
                         double seconds[3]) {
    static const char words[] = "How does the engine read its weights, and why is that so? ";
    static double sample[3][ROUNDS];
    minim_error error = {MINIM_OK, ""};
    minim_router_backend local = {.state = &n_tokens, .chat = route_local};
    minim_router_options options;
    minim_router *router = NULL;
    char *prompt = malloc(n_prompt + 1);
    minim_message message = {"user", prompt};
    minim_router_request request;
    minim_router_request_default(&request);
    request.messages = &message;
    request.n_messages = 1;
    minim_router_options_default(&options);
    options.config = config;
    options.local = &local;
    options.remote = route_no_remote;
    options.ledger = ledger;
    options.local_identity = "bench";
    if (!prompt || minim_router_new(&options, &router, &error) != MINIM_OK) {
        fprintf(stderr, "bench_router: %s\n", prompt ? error.text : "out of memory");
        free(prompt);
        return -1;
    }
    for (size_t i = 0; i < n_prompt; i++) prompt[i] = words[i % (sizeof words - 1)];
    prompt[n_prompt] = 0;
    for (int i = 0; i < ROUNDS; i++) {
        minim_router_answer *answer = NULL;
        prompt[0] = (char)('A' + i % 26); /* or the cache would answer */
        prompt[1] = (char)('a' + i / 26);
        double started = router_now();
        if (minim_router_ask(router, &request, NULL, &answer, &error) != MINIM_OK) break;
        double ended = router_now();
        sample[0][i] = route_began[0] - started;
        sample[1][i] = route_began[1] - route_began[0];
        sample[2][i] = ended - route_began[1];
        minim_router_answer_free(answer);
    }
    minim_router_free(router);
    free(prompt);
    for (int k = 0; k < 3; k++) {
        qsort(sample[k], ROUNDS, sizeof sample[k][0], route_compare);
        seconds[k] = sample[k][ROUNDS / 2];
    }
    return 0;
}

/* The best of the logits and nothing else: what a greedy choice without figures would take. */
static int route_plain(const float *logits, int n) {
    int best = 0;
    for (int i = 0; i < n; i += KERN_LANES) {
        int above = 0;
        for (int lane = 0; lane < KERN_LANES && i + lane < n; lane++) above |= logits[i + lane] > logits[best];
        for (int lane = 0; above && lane < KERN_LANES && i + lane < n; lane++)
            if (logits[i + lane] > logits[best]) best = i + lane;
    }
    return best;
}

/* Median seconds that choosing a token takes, with its log-probability, margin and entropy and without. */
static int route_sampler(int n_vocab, double *with, double *without) {
    const minim_sampling greedy = {.top_p = 1, .repeat_penalty = 1};
    static float logits[VOCAB];
    static double seconds[2][DRAWS];
    kern_table kern;
    sampler *chooser = NULL;
    kern_table_init(&kern, NULL);
    for (int i = 0; i < n_vocab; i++) logits[i] = (float)((i * 2654435761U) >> 20) / 400;
    const minim_allocator memory = mem_allocator(NULL);
    if (sampler_new(&memory, &kern, n_vocab, &greedy, 0, &chooser, NULL) != MINIM_OK) return -1;
    int wrong = 0;
    for (int i = 0; i < DRAWS; i++) {
        minim_token_event event;
        double started = router_now();
        sampler_choose(chooser, logits, &event);
        double chosen = router_now();
        wrong |= route_plain(logits, n_vocab) != event.token;
        seconds[0][i] = chosen - started;
        seconds[1][i] = router_now() - chosen;
    }
    sampler_free(chooser);
    for (int k = 0; k < 2; k++) qsort(seconds[k], DRAWS, sizeof seconds[k][0], route_compare);
    *with = seconds[0][DRAWS / 2];
    *without = seconds[1][DRAWS / 2];
    return wrong;
}

int main(void) {
    double seconds[3] = {0};
    static const size_t sizes[] = {100, 2000, 20000};
    char folder[] = "/tmp/minim-bench-XXXXXX", path[64];
    minim_router_config config;
    minim_ledger *ledger = NULL;
    minim_error error = {MINIM_OK, ""};
    minim_router_config_default(&config);
    strcpy(config.base_url, "https://unused.invalid/v1");
#ifdef MINIM_WITH_LEDGER
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/ledger.db", folder);
    if (minim_ledger_open(path, &ledger, &error) != MINIM_OK) fprintf(stderr, "bench_router: %s\n", error.text);
    if (ledger) config.cache = MINIM_ROUTE_CACHE_ON;
#else
    (void)folder, (void)path, (void)error;
#endif
    printf("prompt, bytes   before the first token, us   after the last one, us (ledger %s)\n",
           ledger ? "on" : "not built in");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (route_measure(&config, ledger, sizes[i], 1, seconds)) return 1;
        printf("%13zu   %26.1f   %22.1f\n", sizes[i], seconds[0] * 1e6, seconds[2] * 1e6);
    }
    config.cache = MINIM_ROUTE_CACHE_OFF;
    config.plan = MINIM_ROUTE_PLAN_RACE;
    config.hold_tokens = TOKENS + 1; /* the gate looks at every token until the end */
    config.gate_delay = config.hedge_delay = 1000;
    if (route_measure(&config, NULL, 100, TOKENS, seconds)) return 1;
    double beside = seconds[1] / TOKENS;
    printf("\na token: signals and gate %.0f ns\n", beside * 1e9);
    static const int vocabularies[] = {512, 32000, VOCAB};
    for (size_t i = 0; i < sizeof vocabularies / sizeof *vocabularies; i++) {
        double with, without;
        if (route_sampler(vocabularies[i], &with, &without)) return 1;
        double more = beside + (with > without ? with - without : 0);
        printf(
            "chosen among %6d: %.2f us with its figures, %.2f us without; all of it more: %.2f us, 2 %% of %.3f ms\n",
            vocabularies[i], with * 1e6, without * 1e6, more * 1e6, more * 50e3);
    }
#ifdef MINIM_WITH_LEDGER
    minim_ledger_close(ledger);
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command) != 0;
#else
    return 0;
#endif
}
