/* test_router_sealed.c: what stays on the device, with every way to a network forbidden by the kernel: each plan,
 * method and meaning of the threshold in the mode "local", and for private requests in every mode, with the real remote
 * at hand. A process that only tries to open a socket is killed. Then the router's test programs that need no server.
 * Left out without libcurl and jansson (MINIM_WITH_ROUTER). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../router/minim_router.h"
#include "router_test.h"

#if defined(__x86_64__) || defined(__aarch64__)

/* From here on whatever leads to a socket that somebody else may hold kills. Pairs of sockets stay in the process. */
static int seal(void) {
    static const int calls[] = {__NR_socket, __NR_connect, __NR_bind, __NR_listen, __NR_accept4};
    enum { N = COUNT(calls) };
    struct sock_filter code[N + 3];
    struct sock_fprog filter = {COUNT(code), code};
    code[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < N; i++)
        code[i + 1] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], (unsigned char)(N - i), 0);
    code[N + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[N + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

/* ---- both sides ---------------------------------------------------------------------------------------------------
 */

enum { FAILED = 1, NO_SEAL = 77 };

static int n_made; /* remotes */

static minim_status make_remote(void *user, const minim_router_config *config, minim_router_backend *backend,
                                minim_error *error) {
    n_made++;
    return minim_router_remote_http(user, config, backend, error);
}

static int sure; /* words that it begins with */

/* Then as unsure as can be, so that whatever looks at it wants the remote. state: what it says. */
static minim_status local_chat(void *state, const minim_router_request *request, const minim_router_sink *sink,
                               minim_router_reply *reply, minim_error *error) {
    const char *words = state;
    (void)request, (void)error;
    for (int i = 0; i < 12; i++) {
        reply->n_logprobs++;
        reply->sum_logprob += i < sure ? -0.01 : -5;
        if (sink->on_progress(sink->user, reply->n_logprobs) || sink->on_text(sink->user, words, strlen(words)))
            return MINIM_ERR_CANCELLED;
    }
    reply->has_agreement = 1;
    reply->usage.prompt_tokens = 5;
    return MINIM_OK;
}

/* ---- one question after another -----------------------------------------------------------------------------------
 */

typedef struct plan {
    minim_router_config config;
    minim_router_request request;
    minim_message messages[3];
    const char *says; /* of the local model */
    minim_ledger *ledger;
} plan;

static void plan_begin(plan *p, const char *path) {
    memset(p, 0, sizeof *p);
    minim_router_config_default(&p->config);
    minim_router_request_default(&p->request);
    minim_router_config *c = &p->config;
    strcpy(c->base_url, "http://127.0.0.1:9/v1");
    strcpy(c->fallbacks[0].base_url, "http://127.0.0.1:10/v1");
    strcpy(c->context_fallbacks[0].base_url, "http://127.0.0.1:11/v1");
    strcpy(c->api_key, "env:OPENAI_API_KEY");
    c->num_retries = 0;
    c->continuation = MINIM_ROUTE_CONTINUE_ASSISTANT;
    c->input_cost_per_token = c->output_cost_per_token = 1e-6;
    c->error_cost = 10;
    c->hedge_delay = 0; /* a race opens the remote at once */
    c->threshold = 1;
    c->complexity_threshold = 0.01;
    c->cache = path ? MINIM_ROUTE_CACHE_ON : MINIM_ROUTE_CACHE_OFF;
    c->ledger_content = 1;
    c->max_budget = path ? 100 : -1;
    p->messages[0] = (minim_message){"system", "Be brief."};
    p->messages[1] = (minim_message){"tool", "{\"result\": 12}"};
    p->messages[2] = (minim_message){"user", "Explain and compare both, step by step."};
    p->request.messages = p->messages;
    p->request.n_messages = 3;
    p->says = "word ";
#ifdef MINIM_WITH_LEDGER
    minim_error error;
    if (path && minim_ledger_open(path, &p->ledger, &error)) _exit(FAILED);
#endif
}

static void plan_end(plan *p) {
#ifdef MINIM_WITH_LEDGER
    minim_ledger_close(p->ledger);
#else
    (void)p;
#endif
}

/* 1 when it is answered locally, without a remote, for this reason. What can not be together is refused: 1, too. */
static int plan_stays(const plan *p, minim_route_reason reason) {
    minim_router_backend local = {.state = (void *)(uintptr_t)p->says, .chat = local_chat};
    minim_router_options options;
    minim_router *router = NULL;
    minim_router_answer *answer = NULL;
    minim_error error;
    minim_router_options_default(&options);
    options.config = &p->config;
    options.local = &local;
    options.remote = make_remote;
    options.ledger = p->ledger;
    options.local_identity = "sealed";
    minim_status status = minim_router_new(&options, &router, &error);
    if (status == MINIM_ERR_ARGUMENT) return 1;
    if (status != MINIM_OK) return 0;
    status = minim_router_ask(router, &p->request, NULL, &answer, &error);
    int is_only_remote = p->config.mode == MINIM_ROUTE_MODE_ONLY_REMOTE;
    int good = is_only_remote
                   ? status == MINIM_ERR_IO
                   : status == MINIM_OK && answer->decision->route == MINIM_ROUTE_LOCAL &&
                         answer->decision->reason == reason && !answer->remote && !answer->decision->degraded;
    good &= !n_made;
    if (!good)
        fprintf(stderr, "# mode %d plan %d method %d: %s\n", (int)p->config.mode, (int)p->config.plan,
                (int)p->config.confidence_method,
                status ? error.text : minim_route_reason_name(answer->decision->reason));
    minim_router_answer_free(answer);
    minim_router_free(router);
    return good;
}

/* Every plan with every method, meaning of the threshold, gate and hand-over. */
static int plan_try_all(plan *p, minim_route_reason reason) {
    int good = 1;
    minim_router_config *c = &p->config;
    for (int which = 0; which < 4 * 6 * 5 * 2; which++) {
        c->plan = (minim_route_plan)(which % 4);
        c->confidence_method = (minim_route_method)(which / 4 % 6);
        c->threshold_semantics = (minim_route_threshold)(which / 24 % 5);
        c->hold_tokens = which / 120 ? 4 : 0;
        c->handover_threshold = which / 120 || c->plan == MINIM_ROUTE_PLAN_HYBRID ? 0.5 : 0;
        good &= plan_stays(p, reason);
    }
    return good;
}

static int local_mode_in_all_plans(const char *path) {
    plan p;
    plan_begin(&p, path);
    p.config.mode = MINIM_ROUTE_MODE_LOCAL;
    p.config.max_budget = -1;
    p.config.cache = MINIM_ROUTE_CACHE_OFF;
    int good = plan_try_all(&p, MINIM_ROUTE_REASON_LOCAL_ONLY);
    p.config.evidence_numbers = 1;
    p.config.stream = 0;
    p.request.sampling.temperature = 1;
    good &= plan_try_all(&p, MINIM_ROUTE_REASON_LOCAL_ONLY);
    plan_end(&p);
    return good;
}

static int private_requests_in_all_plans(const char *path) {
    static const char *const secrets[] = {"alice@example.com",      "+49 30 1234567",     "4111 1111 1111 1111",
                                          "DE89370400440532013000", "password: hunter22", "Bluebird"};
    int good = 1;
    for (int mode = 0; mode < 4; mode++) {
        if (mode == MINIM_ROUTE_MODE_LOCAL) continue;
        for (int field = 0; field < 8; field++) {
            plan p;
            const char *stop = secrets[mode];
            plan_begin(&p, path);
            p.config.mode = (minim_route_mode)mode;
            strcpy(p.config.private_patterns, "Bluebird");
            if (field < 3) p.messages[field].content = secrets[(field + mode) % 6];
            if (field >= 3 && field < 6) p.messages[field - 3].role = secrets[(field + mode) % 6];
            if (field == 6) p.request.stop = &stop, p.request.n_stop = 1;
            if (field == 7) p.request.is_private = 1;
            good &= plan_try_all(&p, MINIM_ROUTE_REASON_PRIVATE);
            plan_end(&p);
        }
    }
    return good;
}

/* The question may leave, the local answer may not: no verdict and no span is asked for; where the question itself
 * would go next the kernel would kill. */
static int private_answers_are_not_judged_elsewhere(const char *path) {
    plan p;
    plan_begin(&p, path);
    p.config.plan = MINIM_ROUTE_PLAN_HYBRID;
    p.config.handover_threshold = 0.5;
    p.config.handover_tokens = 4;
    p.says = "bob@example.com ";
    sure = 6; /* the text that is to be continued holds some */
    int good = plan_stays(&p, MINIM_ROUTE_REASON_PRIVATE);
    plan_end(&p);
    return good;
}

/* What the filter is for: an ordinary question of a cascade dies of it. */
static int an_ordinary_question(const char *path) {
    plan p;
    plan_begin(&p, path);
    plan_stays(&p, MINIM_ROUTE_REASON_SCORE_LOW);
    return 1;
}

/* ---- sealed processes ---------------------------------------------------------------------------------------------
 */

static char folder[] = "/tmp/minim-sealed-XXXXXX";

/* Wait status of a sealed process. */
static int sealed(int (*run)(const char *path)) {
    char path[64];
    snprintf(path, sizeof path, "%s/ledger.db", folder);
    fflush(NULL);
    pid_t child = fork();
    if (!child) {
        setenv("OPENAI_API_KEY", "sk-very-secret", 1);
        if (seal()) _exit(NO_SEAL);
#ifdef MINIM_WITH_LEDGER
        _exit(run(path) ? 0 : FAILED);
#else
        _exit(run(NULL) ? 0 : FAILED);
#endif
    }
    int status = -1;
    waitpid(child, &status, 0);
    return status;
}

static int can_seal(void) {
    int status = sealed(an_ordinary_question);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_SEAL) return 0;
    assert_true(WIFSIGNALED(status)); /* it would be seen */
    return 1;
}

static void the_local_mode_needs_no_socket_in_any_plan(void **state) {
    (void)state;
    if (!can_seal()) skip();
    assert_int_equal(sealed(local_mode_in_all_plans), 0);
}

static void private_requests_need_no_socket_in_any_mode_and_plan(void **state) {
    (void)state;
    if (!can_seal()) skip();
    assert_int_equal(sealed(private_requests_in_all_plans), 0);
    assert_int_equal(sealed(private_answers_are_not_judged_elsewhere), 0);
}

/* The test programs whose remotes are scripts: all that they do passes without a socket. */
static void the_test_programs_without_a_server_pass_sealed(void **state) {
    (void)state;
    static const char *const names[] = {"test_router",       "test_router_private", "test_router_evidence",
                                        "test_router_vote",  "test_router_race",    "test_router_wire",
                                        "test_router_config"};
    const char *build = getenv("B");
    if (!can_seal()) skip();
    for (size_t i = 0; i < COUNT(names); i++) {
        char program[4096];
        int status = -1;
        snprintf(program, sizeof program, "%s/tests/%s", build && build[0] ? build : "build", names[i]);
        if (access(program, X_OK)) continue; /* not built here */
        fflush(NULL);
        pid_t child = fork();
        if (!child) {
            int log = open("/dev/null", O_RDWR);
            dup2(log, 1);
            dup2(log, 2);
            if (seal()) _exit(NO_SEAL);
            execl(program, program, (char *)NULL);
            _exit(78);
        }
        waitpid(child, &status, 0);
        if (status) fail_msg("%s: %s %d", names[i], WIFSIGNALED(status) ? "signal" : "exit code", status);
    }
}

int main(void) {
    char command[80];
    if (!mkdtemp(folder)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_local_mode_needs_no_socket_in_any_plan),
        cmocka_unit_test(private_requests_need_no_socket_in_any_mode_and_plan),
        cmocka_unit_test(the_test_programs_without_a_server_pass_sealed),
    };
    int code = cmocka_run_group_tests(tests, NULL, NULL);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command) ? 1 : code;
}

#else

int main(void) {
    puts("1..0 # SKIP no filter for this processor");
    return 0;
}

#endif
