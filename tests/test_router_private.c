/* test_router_private.c: what is private stays: detectors, every field of a request, the mode without a remote. */
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
#include <time.h>
#include <unistd.h>

#include "../router/ledger.h"
#include "router_test.h"

static char program[4096];

/* ---- detectors -------------------------------------------------------------------------------------------------- */

enum {
    EMAIL = MINIM_PRIVATE_EMAIL,
    PHONE = MINIM_PRIVATE_PHONE,
    CARD = MINIM_PRIVATE_CARD,
    IBAN = MINIM_PRIVATE_IBAN,
    KEY = MINIM_PRIVATE_KEY
};

static const struct {
    const char *text;
    unsigned found; /* at least; 0 = nothing at all */
} private_samples[] = {
    {"alice@example.com", EMAIL},
    {"Alice.B+news@mail.example.co.uk", EMAIL},
    {"mailto:bob_1@x-y.org", EMAIL},
    {"j\xc3\xbcrgen@b\xc3\xbc"
     "cher.de",
     EMAIL},
    {"alice\xef\xbc\xa0"
     "example.com",
     EMAIL}, /* full-width @ */
    {"ali\xe2\x80\x8b"
     "ce@exam\xc2\xadple.com",
     EMAIL}, /* zero-width space, soft hyphen */
    {"+49 30 1234567", PHONE},
    {"+1 (555) 123-4567", PHONE},
    {"(030) 123 45 67", PHONE},
    {"555-123-4567", PHONE},
    {"555 123 4567", PHONE},
    {"06 12 34 56 78", PHONE},
    {"0170/1234567", PHONE},
    {"5551234567", PHONE},
    {"004930123456", PHONE},
    {"555-1234", PHONE},
    {"123-45-6789", PHONE}, /* a social security number: not what it is called, but it stays */
    {"+49\xc2\xa0"
     "30\xe2\x80\x93"
     "1234567",
     PHONE},                                                    /* no-break space, en dash */
    {"\xef\xbc\x8b\xef\xbc\x94\xef\xbc\x99 30 1234567", PHONE}, /* full-width +49 */
    {"4111111111111111", CARD},
    {"4111 1111 1111 1111", CARD},
    {"4111-1111-1111-1111 12/29", CARD},
    {"3782 822463 10005", CARD},
    {"6304000000000000", CARD},
    {"DE89370400440532013000", IBAN},
    {"de89 3704 0044 0532 0130 00", IBAN},
    {"GB29 NWBK 6016 1331 9268 19", IBAN},
    {"NO9386011117947", IBAN},
    {"sk-abcdefghijklmnop1234", KEY},
    {"sk-proj-abcdefghij_klmnop1234", KEY},
    {"ghp_16C7e42F292c6912E7710c838347Ae178B4a", KEY},
    {"AKIAIOSFODNN7EXAMPLE", KEY},
    {"-----BEGIN OPENSSH PRIVATE KEY-----", KEY},
    {"Authorization: Bearer abcdef0123456789abcdef", KEY},
    {"password: hunter22", KEY},
    {"My passphrase is hunter22", KEY},
    {"\"api_key\" : \"f00dfeed\"", KEY},
    {"DB_PASSWORD=swordfish", KEY},
    {"wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY1", KEY},
    {"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIn0.x", KEY},
    {"", 0},
    {"Why is the sky blue?", 0},
    {"Add 12 and 30, then multiply by 1000.", 0},
    {"pi is 3.14159265358979 and e is 2.71828", 0},
    {"0.123456789", 0},
    {"On 2026-11-21 or 21.11.2026 or 11/21/2026 at 10:30", 0},
    {"1.000.000 people, 1,000,000 trees", 0},
    {"(12345.678)", 0},
    {"1 2 3 4 5 6 7 8 9", 0},
    {"the 4111111111111112 th number", 0},
    {"DE88370400440532013000", 0},
    {"def f(x): return x @ y", 0},
    {"@app.route('/')", 0},
    {"the password is long", 0},
    {"What does a token mean in NLP? A secret: none.", 0},
    {"commit 7061efd6acb0d5dc48b3c3a7a6a1b6e1f4c7fd3b", 0},
    {"internationalisation_of_documentation_strings", 0},
};

static void detectors_see_what_has_a_form_and_nothing_else(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(private_samples); i++) {
        const char *text = private_samples[i].text;
        unsigned found = minim_private_find(text, strlen(text), MINIM_PRIVATE_ALL), wanted = private_samples[i].found;
        if (wanted ? !(found & wanted) : found) fail_msg("\"%s\": found %u, expected %u", text, found, wanted);
        /* What is not asked for is not told. */
        assert_int_equal(minim_private_find(text, strlen(text), MINIM_PRIVATE_ALL & ~wanted) & wanted, 0);
    }
    assert_int_equal(minim_private_find(NULL, 0, MINIM_PRIVATE_ALL), 0);
    assert_int_equal(minim_private_find("a\0b@example.com", 15, MINIM_PRIVATE_ALL), EMAIL);
    assert_string_equal(minim_private_name(CARD), "card");
    assert_string_equal(minim_private_name(3), "unknown");
}

/* Linear, whatever comes in: a tenth of a second; quadratic would be many minutes. */
static void long_texts_are_looked_through_at_once(void **state) {
    (void)state;
    static char text[1 << 20];
    static const char *const pieces[] = {"a@", "1 ", "12-",          "A1 ",  "secret is ",       "4111 ",
                                         "(",  "+1", "\xe2\x80\x8b", "\xff", "aaaaaaaaaaaaaaaa", "DE89 3704 "};
    for (size_t i = 0; i < COUNT(pieces); i++) {
        size_t n = strlen(pieces[i]);
        for (size_t j = 0; j + n < sizeof text; j += n) memcpy(text + j, pieces[i], n);
        double started = (double)clock() / CLOCKS_PER_SEC;
        minim_private_find(text, sizeof text - n, MINIM_PRIVATE_ALL);
        double seconds = (double)clock() / CLOCKS_PER_SEC - started;
        if (seconds > 2) fail_msg("\"%s\": %g s", pieces[i], seconds);
    }
}

/* ---- the router ------------------------------------------------------------------------------------------------- */

typedef struct watch {
    int made, asked, kept;
} watch;

static const char *local_says = "local";

static minim_status local_chat(void *state, const minim_router_request *request, const minim_router_sink *sink,
                               minim_router_reply *reply, minim_error *error) {
    (void)state, (void)request, (void)error;
    reply->n_logprobs = 1;
    reply->sum_logprob = -100; /* as bad as can be */
    return sink->on_text(sink->user, local_says, strlen(local_says)) ? MINIM_ERR_CANCELLED : MINIM_OK;
}

static minim_status remote_chat(void *state, const minim_router_request *request, const minim_router_sink *sink,
                                minim_router_reply *reply, minim_error *error) {
    (void)request, (void)error, (void)reply;
    ((watch *)state)->asked++;
    return sink->on_text(sink->user, "remote", 6) ? MINIM_ERR_CANCELLED : MINIM_OK;
}

static minim_status make_remote(void *user, const minim_router_config *config, minim_router_backend *backend,
                                minim_error *error) {
    (void)config, (void)error;
    ((watch *)user)->made++;
    *backend = (minim_router_backend){.state = user, .chat = remote_chat};
    return MINIM_OK;
}

/* A ledger that looks for content. */
typedef struct spy {
    minim_ledger head;
    watch *watch;
} spy;

static minim_status spy_reserve(minim_ledger *ledger, double dollars, double max_budget, double since, int64_t *ticket,
                                minim_error *error) {
    (void)ledger, (void)dollars, (void)max_budget, (void)since, (void)ticket, (void)error;
    return MINIM_OK;
}
static minim_status spy_settle(minim_ledger *ledger, int64_t ticket, const ledger_line *line, minim_error *error) {
    (void)ticket, (void)error;
    ((spy *)ledger)->watch->kept += line->prompt || line->answer;
    return MINIM_OK;
}
static minim_status spy_get(minim_ledger *ledger, const uint8_t key[32], double max_age, ledger_cached *cached,
                            minim_error *error) {
    (void)ledger, (void)key, (void)max_age, (void)cached, (void)error;
    return MINIM_OK;
}
static minim_status spy_put(minim_ledger *ledger, const uint8_t key[32], double max_age, const ledger_cached *cached,
                            minim_error *error) {
    (void)key, (void)max_age, (void)cached, (void)error;
    ((spy *)ledger)->watch->kept++;
    return MINIM_OK;
}

/* Asks with every remote, cache and log that there is; what got out or was kept is in the result. */
static watch ask(minim_router_config *config, const minim_router_request *request, minim_route_reason *reason) {
    static const ledger_functions functions = {spy_reserve, spy_settle, spy_get, spy_put};
    watch w = {0};
    spy ledger = {.head.functions = &functions, .watch = &w};
    minim_router_backend local = {.state = NULL, .chat = local_chat};
    minim_router *router = NULL;
    minim_router_answer *answer = NULL;
    minim_error error;
    minim_router_options options;
    minim_router_options_default(&options);
    strcpy(config->base_url, "https://unused.invalid/v1");
    config->ledger_content = 1;
    config->cache = MINIM_ROUTE_CACHE_ON;
    options.config = config;
    options.local = &local;
    options.remote = make_remote;
    options.remote_user = &w;
    options.ledger = &ledger.head;
    options.local_identity = "m";
    if (minim_router_new(&options, &router, &error)) fail_msg("%s", error.text);
    if (minim_router_ask(router, request, NULL, &answer, &error)) fail_msg("%s", error.text);
    if (reason) *reason = answer->decision->reason;
    minim_router_answer_free(answer);
    minim_router_free(router);
    return w;
}

static const char *const roles[] = {"system", "user", "assistant", "tool", "user"};

/* A conversation in which one field holds `secret` amid harmless text. Fields 0..4 are contents, 5..9 roles, 10 a stop
 * string. */
static void fill(minim_message messages[5], const char **stop, int field, const char *secret, char *buffer, size_t n) {
    static const char *const around[] = {"%s", "Write to %s, please.", "{\"result\": [\"%s\"]}", "x\n%s\ny", "(%s)"};
    for (int i = 0; i < 5; i++) messages[i] = (minim_message){roles[i], "Nothing to see."};
    *stop = "END";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(buffer, n, around[rand() % 5], secret);
#pragma GCC diagnostic pop
    if (field < 5) messages[field].content = buffer;
    if (field >= 5 && field < 10) messages[field - 5].role = buffer;
    if (field == 10) *stop = buffer;
}

static void no_field_of_a_request_leads_out(void **state) {
    (void)state;
    static const minim_route_mode modes[] = {MINIM_ROUTE_MODE_CASCADE, MINIM_ROUTE_MODE_REMOTE, MINIM_ROUTE_MODE_LOCAL};
    minim_message messages[5];
    const char *stop;
    char buffer[512];
    srand(7);
    for (size_t i = 0; i < COUNT(private_samples); i++) {
        if (!private_samples[i].found) continue;
        for (int field = 0; field <= 10; field++) {
            for (size_t m = 0; m < COUNT(modes); m++) {
                minim_router_request request;
                minim_router_config config;
                minim_route_reason reason;
                minim_router_request_default(&request);
                minim_router_config_default(&config);
                config.mode = modes[m];
                fill(messages, &stop, field, private_samples[i].text, buffer, sizeof buffer);
                request.messages = messages;
                request.n_messages = 5;
                request.stop = &stop;
                request.n_stop = 1;
                watch w = ask(&config, &request, &reason);
                if (w.made || w.asked) fail_msg("\"%s\" got out through field %d", buffer, field);
                if (w.kept) fail_msg("\"%s\" was kept through field %d", buffer, field);
                assert_int_equal(reason, modes[m] == MINIM_ROUTE_MODE_LOCAL ? MINIM_ROUTE_REASON_LOCAL_ONLY
                                                                            : MINIM_ROUTE_REASON_PRIVATE);
                fill(messages, &stop, field, "nothing", buffer, sizeof buffer);
                w = ask(&config, &request, NULL);
                assert_int_equal(w.asked, modes[m] != MINIM_ROUTE_MODE_LOCAL); /* the test would see it */
            }
        }
    }
}

static void begin(const minim_message *question, minim_router_request *request, minim_router_config *config) {
    minim_router_request_default(request);
    minim_router_config_default(config);
    request->messages = question;
    request->n_messages = 1;
}

/* A question that hides nothing, answered with something that does: nothing of it is kept. */
static void answers_are_looked_through_before_they_are_kept(void **state) {
    (void)state;
    minim_message message = {"user", "Whom do I write to?"};
    minim_router_request request;
    minim_router_config config;
    minim_route_reason reason;
    begin(&message, &request, &config);
    config.threshold = 0;
    for (size_t i = 0; i < COUNT(private_samples); i++) {
        local_says = private_samples[i].text;
        if (!local_says[0]) continue; /* an empty answer goes to the remote */
        watch w = ask(&config, &request, &reason);
        assert_int_equal(reason, MINIM_ROUTE_REASON_SCORE_PASSED);
        if (!w.kept != (private_samples[i].found != 0)) fail_msg("\"%s\" was kept: %d", local_says, w.kept);
    }
    local_says = "local";
}

static void patterns_and_the_request_itself_make_private(void **state) {
    (void)state;
    minim_message message = {"user", "Tell me about Project Bluebird-7."};
    minim_router_request request;
    minim_router_config config;
    minim_route_reason reason;
    begin(&message, &request, &config);
    assert_int_equal(ask(&config, &request, &reason).asked, 1);
    strcpy(config.private_patterns, "^never$\n[Bb]luebird-[0-9]");
    assert_int_equal(ask(&config, &request, &reason).made, 0);
    assert_int_equal(reason, MINIM_ROUTE_REASON_PRIVATE);
    message.content = "Tell me about Project Blue\xe2\x80\x8b"
                      "bird-\xef\xbc\x97."; /* zero-width space, full-width 7 */
    assert_int_equal(ask(&config, &request, &reason).made, 0);
    config.private_patterns[0] = 0;
    request.is_private = 1;
    message.content = "Why is the sky blue?";
    assert_int_equal(ask(&config, &request, &reason).made, 0);
    request.is_private = 0;
    message.content = "alice@example.com";
    config.private_detect = MINIM_PRIVATE_ALL & ~MINIM_PRIVATE_EMAIL; /* as the user wishes */
    assert_int_equal(ask(&config, &request, &reason).asked, 1);
    /* A pattern that is none must not become no pattern. */
    minim_router_backend local = {.state = NULL, .chat = local_chat};
    minim_router *router = NULL;
    minim_error error;
    minim_router_options options;
    minim_router_options_default(&options);
    strcpy(config.private_patterns, "a(b");
    config.ledger_content = 0;
    config.cache = MINIM_ROUTE_CACHE_OFF;
    options.config = &config;
    options.local = &local;
    assert_int_equal(minim_router_new(&options, &router, &error), MINIM_ERR_ARGUMENT);
    assert_has(error.text, "privacy.patterns: \"a(b\"");
}

/* ---- sockets forbidden ------------------------------------------------------------------------------------------ */

#if defined(__x86_64__) || defined(__aarch64__)

/* From here on socket() kills. */
static int forbid_sockets(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_socket, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {COUNT(code), code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

/* Exit status of `minim ask` with a remote nearby, where socket() kills. */
static int ask_without_sockets(const char *route, const char *question) {
    char *const argv[] = {
        program,          (char *)"ask", (char *)"--route", (char *)route,          (char *)"--threshold",
        (char *)"1",      (char *)"-n",  (char *)"5",       (char *)"--remote-url", (char *)"http://127.0.0.1:9/v1",
        (char *)question, NULL};
    pid_t child = fork();
    if (!child) {
        int nothing = open("/dev/null", O_RDWR);
        dup2(nothing, 1);
        dup2(nothing, 2);
        if (forbid_sockets()) _exit(77);
        execv(program, argv);
        _exit(78);
    }
    int status = -1;
    waitpid(child, &status, 0);
    return status;
}

static void what_stays_on_the_device_opens_no_socket(void **state) {
    (void)state;
    int status = ask_without_sockets("cascade", "Once");
    if (WIFEXITED(status)) skip();    /* a sandbox that takes no filters */
    assert_true(WIFSIGNALED(status)); /* it would be seen */
    assert_int_equal(ask_without_sockets("local", "Once"), 0);
    assert_int_equal(ask_without_sockets("cascade", "I am bob@example.com"), 0);
}

#else

static void what_stays_on_the_device_opens_no_socket(void **state) {
    (void)state;
    skip();
}

#endif

int main(void) {
    char name[4096];
    const char *build = getenv("B");
    snprintf(name, sizeof name, "%s/minim", build && build[0] ? build : "build");
    if (!realpath(name, program)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(detectors_see_what_has_a_form_and_nothing_else),
        cmocka_unit_test(long_texts_are_looked_through_at_once),
        cmocka_unit_test(no_field_of_a_request_leads_out),
        cmocka_unit_test(what_stays_on_the_device_opens_no_socket),
        cmocka_unit_test(answers_are_looked_through_before_they_are_kept),
        cmocka_unit_test(patterns_and_the_request_itself_make_private),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
