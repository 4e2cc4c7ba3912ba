/* test_router_ledger.c: what the ledger remembers, the money it keeps together, the answers it gives again. Both sides
 * are scripts; no network. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../router/ledger.h"
#include "router_test.h"

static char folder[] = "/tmp/minim-ledger-XXXXXX", path[64];

/* ---- two scripts ------------------------------------------------------------------------------------------------ */

typedef struct sides {
    double logprob; /* of the local answer's one token */
    const char *local, *remote, *remote_failure;
    uint64_t prompt_tokens, completion_tokens; /* of the remote */
    minim_route_finish finish;
    int pause_ms;
    int local_asked, remote_asked;
    _Atomic int *calls; /* shared between processes; may be NULL */
} sides;

static minim_status local_chat(void *state, const minim_router_request *request, const minim_router_sink *sink,
                               minim_router_reply *reply, minim_error *error) {
    sides *s = state;
    (void)request, (void)error;
    s->local_asked++;
    reply->n_logprobs = 1;
    reply->sum_logprob = s->logprob;
    reply->usage.prompt_tokens = 20;
    reply->usage.completion_tokens = 10;
    snprintf(reply->model, sizeof reply->model, "small");
    return sink->on_text(sink->user, s->local, strlen(s->local)) ? MINIM_ERR_CANCELLED : MINIM_OK;
}

static minim_status remote_chat(void *state, const minim_router_request *request, const minim_router_sink *sink,
                                minim_router_reply *reply, minim_error *error) {
    sides *s = state;
    (void)request;
    s->remote_asked++;
    if (s->calls) atomic_fetch_add(s->calls, 1);
    if (s->pause_ms) usleep((unsigned)s->pause_ms * 1000);
    reply->attempts = 1;
    reply->http_status = 200;
    reply->finish = s->finish;
    reply->usage.prompt_tokens = s->prompt_tokens;
    reply->usage.completion_tokens = s->completion_tokens;
    snprintf(reply->model, sizeof reply->model, "big");
    if (sink->on_text(sink->user, s->remote, strlen(s->remote))) return MINIM_ERR_CANCELLED;
    if (!s->remote_failure) return MINIM_OK;
    error->status = MINIM_ERR_IO;
    snprintf(error->text, sizeof error->text, "%s", s->remote_failure);
    return MINIM_ERR_IO;
}

static minim_status make_remote(void *user, const minim_router_config *config, minim_router_backend *backend,
                                minim_error *error) {
    (void)config, (void)error;
    *backend = (minim_router_backend){.state = user, .chat = remote_chat};
    return MINIM_OK;
}

typedef struct scene {
    sides sides;
    minim_router_config config;
    minim_router_request request;
    minim_message message;
    minim_ledger *ledger;
    minim_router_answer *answer;
    minim_error error;
    char identity[32];
} scene;

/* A cascade whose local answer is no good, so that the remote is asked: $0.1 a call. */
static scene scene_make(void) {
    scene s = {.sides = {.logprob = log(0.2), .local = "small words", .remote = "big words", .completion_tokens = 10},
               .message = {"user", "what is it?"},
               .identity = "m1 Q8_0"};
    minim_router_config_default(&s.config);
    strcpy(s.config.base_url, "https://unused.invalid/v1");
    s.config.input_cost_per_token = 0;
    s.config.output_cost_per_token = 0.01;
    minim_router_request_default(&s.request);
    s.request.max_tokens = 10;
    s.request.n_messages = 1;
    if (minim_ledger_open(path, &s.ledger, &s.error) != MINIM_OK) fail_msg("%s", s.error.text);
    return s;
}

/* A router for each question, as several programs would have it. */
static minim_status scene_try(scene *s) {
    minim_router_backend local = {.state = &s->sides, .chat = local_chat};
    minim_router *router = NULL;
    minim_router_options options;
    minim_router_options_default(&options);
    options.config = &s->config;
    options.local = &local;
    options.remote = make_remote;
    options.remote_user = &s->sides;
    options.ledger = s->ledger;
    options.local_identity = s->identity;
    s->request.messages = &s->message;
    minim_router_answer_free(s->answer);
    s->answer = NULL;
    minim_status status = minim_router_new(&options, &router, &s->error);
    if (status == MINIM_OK) status = minim_router_ask(router, &s->request, NULL, &s->answer, &s->error);
    minim_router_free(router);
    return status;
}

static const minim_route_decision *scene_ask(scene *s) {
    if (scene_try(s) != MINIM_OK) fail_msg("%s", s->error.text);
    return s->answer->decision;
}

static void scene_end(scene *s) {
    minim_router_answer_free(s->answer);
    minim_ledger_close(s->ledger);
}

/* The first column of the first row, as a number. */
static double query(const char *sql) {
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 10000);
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK) fail_msg("%s", sqlite3_errmsg(db));
    double value = sqlite3_step(statement) == SQLITE_ROW ? sqlite3_column_double(statement, 0) : -1;
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return value;
}

/* All lines of a view, one behind the other. */
typedef struct lines {
    char text[20000];
    size_t n, count;
} lines;

static int take_line(void *user, const char *json, size_t n) {
    lines *l = user;
    json_t *object = json_loadb(json, n, 0, NULL);
    assert_true(json_is_object(object)); /* whatever was asked */
    json_decref(object);
    assert_true(l->n + n + 2 < sizeof l->text);
    memcpy(l->text + l->n, json, n);
    l->n += n;
    l->text[l->n++] = '\n';
    l->text[l->n] = 0;
    l->count++;
    return 0;
}

static lines read_lines(scene *s, minim_ledger_view view) {
    lines l = {.n = 0};
    if (minim_ledger_read(s->ledger, view, 0, take_line, &l, &s->error)) fail_msg("%s", s->error.text);
    return l;
}

/* Do the ledger's files hold these bytes? */
static int files_hold(const char *text) {
    static const char *const tails[] = {"", "-wal", "-shm"};
    int found = 0;
    for (size_t i = 0; i < COUNT(tails); i++) {
        char name[80];
        static char bytes[1 << 20];
        snprintf(name, sizeof name, "%s%s", path, tails[i]);
        FILE *file = fopen(name, "rb");
        size_t n = file ? fread(bytes, 1, sizeof bytes, file) : 0;
        if (file) fclose(file);
        found |= n && memmem(bytes, n, text, strlen(text)) != NULL;
    }
    return found;
}

static int begin(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -f %s/*", folder);
    return system(command);
}

/* ---- lines ------------------------------------------------------------------------------------------------------ */

static void every_decision_leaves_a_line_and_no_content(void **state) {
    (void)state;
    scene s = scene_make();
    assert_int_equal(scene_ask(&s)->route, MINIM_ROUTE_REMOTE);
    s.sides.logprob = log(0.9);
    assert_int_equal(scene_ask(&s)->route, MINIM_ROUTE_LOCAL);
    s.sides.logprob = log(0.2);
    s.sides.remote_failure = "it said: what is it?";
    assert_int_equal(scene_ask(&s)->degraded, 1);
    assert_null(s.answer->ledger_error);
    lines l = read_lines(&s, MINIM_LEDGER_LINES);
    assert_int_equal(l.count, 3);
    json_t *line = json_loads(l.text, JSON_DISABLE_EOF_CHECK, NULL);
    assert_string_equal(json_string_value(json_object_get(line, "route")), "remote");
    assert_string_equal(json_string_value(json_object_get(line, "reason")), "score_low");
    assert_string_equal(json_string_value(json_object_get(line, "gen_ai.response.model")), "big");
    assert_int_equal(json_integer_value(json_object_get(line, "gen_ai.usage.output_tokens")), 10);
    assert_int_equal(json_integer_value(json_object_get(line, "prompt_bytes")), strlen("user") + strlen("what is it?"));
    assert_int_equal(json_integer_value(json_object_get(line, "answer_bytes")), strlen("big words"));
    assert_int_equal(json_string_length(json_object_get(line, "prompt_hash")), 64);
    assert_int_equal(json_string_length(json_object_get(line, "answer_hash")), 64);
    assert_true(fabs(json_real_value(json_object_get(line, "cost")) - 0.1) < 1e-9);
    json_decref(line);
    assert_false(files_hold("what is it"));
    assert_false(files_hold("words"));
    assert_true(query("SELECT count(DISTINCT prompt_hash) FROM line") == 1);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    scene_end(&s);
}

static void hashes_of_two_ledgers_are_not_alike(void **state) {
    (void)state;
    scene s = scene_make();
    scene_ask(&s);
    lines first = read_lines(&s, MINIM_LEDGER_LINES);
    scene_end(&s);
    begin(NULL);
    s = scene_make();
    scene_ask(&s);
    lines second = read_lines(&s, MINIM_LEDGER_LINES);
    const char *a = strstr(first.text, "\"prompt_hash\""), *b = strstr(second.text, "\"prompt_hash\"");
    assert_true(strncmp(a, b, 80) != 0); /* a short prompt could be guessed from a plain hash */
    scene_end(&s);
}

static void content_is_kept_when_asked_for_and_exported_as_pairs(void **state) {
    (void)state;
    scene s = scene_make();
    s.config.ledger_content = 1;
    s.message.content = "say \"hi\"\n\xff";
    scene_ask(&s);
    s.sides.logprob = log(0.9); /* a local answer is no pair */
    scene_ask(&s);
    s.sides.logprob = log(0.2);
    s.sides.finish = MINIM_ROUTE_FINISH_LENGTH; /* nor is half a remote one */
    scene_ask(&s);
    s.sides.finish = MINIM_ROUTE_FINISH_END;
    s.message.content = "my secret";
    s.request.is_private = 1;
    assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_PRIVATE);
    assert_false(files_hold("my secret"));
    lines l = read_lines(&s, MINIM_LEDGER_PAIRS);
    assert_string_equal(l.text, "{\"messages\":[{\"role\":\"user\",\"content\":\"say \\\"hi\\\"\\u000a" U
                                "\"},{\"role\":\"assistant\",\"content\":\"big words\"}]}\n");
    scene_end(&s);
}

static void a_decision_can_be_made_again_from_its_line(void **state) {
    (void)state;
    scene s = scene_make();
    scene_ask(&s);
    lines l = read_lines(&s, MINIM_LEDGER_INPUTS);
    json_t *line = json_loads(l.text, JSON_DISABLE_EOF_CHECK, NULL);
    const char *inputs = json_string_value(json_object_get(line, "inputs"));
    minim_route_policy policy;
    minim_route_features features;
    minim_route_state now;
    minim_route_decision d = {.size = sizeof d};
    char again[2048];
    if (minim_route_inputs_read(inputs, &policy, &features, &now, &s.error)) fail_msg("%s", s.error.text);
    assert_int_equal(minim_route_inputs(&policy, &features, &now, again, sizeof again), strlen(inputs));
    assert_string_equal(again, inputs);
    assert_int_equal(minim_route_decide(&policy, &features, &now, &d), MINIM_OK);
    assert_int_equal(d.route, MINIM_ROUTE_REMOTE);
    assert_int_equal(d.reason, s.answer->decision->reason);
    assert_true(d.score == s.answer->decision->score && d.cost == s.answer->decision->cost);
    policy.threshold = 0.1; /* what if? */
    assert_int_equal(minim_route_decide(&policy, &features, &now, &d), MINIM_OK);
    assert_int_equal(d.route, MINIM_ROUTE_LOCAL);
    json_decref(line);
    static const char *const bad[] = {"mode=what",     "nonsense=1", "threshold=",    "n_tokens=-1",
                                      "over_budget=2", "mode",       "threshold=0.5x"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(minim_route_inputs_read(bad[i], &policy, &features, &now, &s.error), MINIM_ERR_FORMAT);
    }
    scene_end(&s);
}

/* ---- money ------------------------------------------------------------------------------------------------------ */

static void over_budget_means_local_and_no_error(void **state) {
    (void)state;
    scene s = scene_make();
    s.config.max_budget = 0.3;
    for (int i = 0; i < 3; i++) assert_int_equal(scene_ask(&s)->route, MINIM_ROUTE_REMOTE);
    const minim_route_decision *d = scene_ask(&s);
    assert_int_equal(d->route, MINIM_ROUTE_LOCAL);
    assert_int_equal(d->reason, MINIM_ROUTE_REASON_OVER_BUDGET);
    assert_int_equal(d->degraded, 0);
    assert_string_equal(s.answer->text, "small words");
    assert_int_equal(s.sides.local_asked, 4); /* its answer was already there */
    s.config.mode = MINIM_ROUTE_MODE_REMOTE;
    assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_OVER_BUDGET);
    assert_int_equal(s.sides.remote_asked, 3);
    s.config.output_cost_per_token = 0; /* what costs nothing is never blocked */
    assert_int_equal(scene_ask(&s)->route, MINIM_ROUTE_REMOTE);
    scene_end(&s);
}

static void what_was_set_aside_and_not_used_comes_back(void **state) {
    (void)state;
    scene s = scene_make();
    s.config.max_budget = 0.1; /* one call at its worst */
    s.sides.completion_tokens = 1;
    for (int i = 0; i < 10; i++) {
        int affordable = i == 0; /* then 0.01 is gone, and the worst case does not fit */
        assert_int_equal(scene_ask(&s)->route, affordable ? MINIM_ROUTE_REMOTE : MINIM_ROUTE_LOCAL);
    }
    s.config.max_budget = 0.12;
    for (int i = 0; i < 2; i++) assert_int_equal(scene_ask(&s)->route, MINIM_ROUTE_REMOTE);
    assert_int_equal(scene_ask(&s)->route, MINIM_ROUTE_LOCAL);
    s.sides.remote_failure = "connection refused";
    s.sides.completion_tokens = 0; /* costs nothing */
    s.config.max_budget = 0.13;
    for (int i = 0; i < 3; i++) assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_REMOTE_FAILED);
    assert_true(query("SELECT count(*) FROM line WHERE NOT settled") == 0);
    scene_end(&s);
}

static void money_comes_back_when_the_budgets_time_has_passed(void **state) {
    (void)state;
    scene s = scene_make();
    s.config.max_budget = 0.1;
    s.config.budget_duration = 3600;
    assert_int_equal(scene_ask(&s)->route, MINIM_ROUTE_REMOTE);
    assert_int_equal(scene_ask(&s)->route, MINIM_ROUTE_LOCAL);
    query("UPDATE line SET time = time - 3599");
    assert_int_equal(scene_ask(&s)->route, MINIM_ROUTE_LOCAL);
    query("UPDATE line SET time = time - 2");
    assert_int_equal(scene_ask(&s)->route, MINIM_ROUTE_REMOTE);
    s.config.budget_duration = -1; /* a month */
    assert_int_equal(scene_ask(&s)->route, MINIM_ROUTE_LOCAL);
    query("UPDATE line SET time = time - 32 * 86400");
    assert_int_equal(scene_ask(&s)->route, MINIM_ROUTE_REMOTE);
    s.config.budget_duration = 0; /* for ever */
    assert_int_equal(scene_ask(&s)->route, MINIM_ROUTE_LOCAL);
    scene_end(&s);
}

static void a_budget_without_prices_or_ledger_is_refused(void **state) {
    (void)state;
    scene s = scene_make();
    s.config.max_budget = 1;
    s.config.output_cost_per_token = -1;
    assert_int_equal(scene_try(&s), MINIM_ERR_ARGUMENT);
    assert_has(s.error.text, "output_cost_per_token");
    minim_ledger *ledger = s.ledger;
    s.config.output_cost_per_token = 0.01;
    s.ledger = NULL;
    assert_int_equal(scene_try(&s), MINIM_ERR_ARGUMENT);
    assert_has(s.error.text, "ledger");
    s.config.mode = MINIM_ROUTE_MODE_LOCAL; /* spends nothing */
    assert_int_equal(scene_try(&s), MINIM_OK);
    s.ledger = ledger;
    scene_end(&s);
}

static void a_budget_bounds_answers_that_have_no_bound(void **state) {
    (void)state;
    scene s = scene_make();
    s.request.max_tokens = 0;
    s.config.max_budget = 40; /* 4096 tokens at 0.01 are more */
    assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_OVER_BUDGET);
    s.config.max_budget = 41;
    assert_int_equal(scene_ask(&s)->route, MINIM_ROUTE_REMOTE);
    scene_end(&s);
}

enum { PROCESSES = 4, THREADS = 64 };

static void *spend(void *user) {
    scene *s = user;
    minim_status status = scene_try(s);
    int good = status == MINIM_OK && !s->answer->ledger_error &&
               (s->answer->decision->route == MINIM_ROUTE_REMOTE ||
                s->answer->decision->reason == MINIM_ROUTE_REASON_OVER_BUDGET);
    if (!good) fprintf(stderr, "# %s\n", status ? s->error.text : s->answer->ledger_error);
    minim_router_answer_free(s->answer);
    return good ? NULL : s;
}

/* 0 when every thread got an answer. */
static int spend_in_threads(_Atomic int *calls) {
    scene first = scene_make();
    first.config.max_budget = 1;
    first.sides.calls = calls;
    first.sides.pause_ms = 20;
    static scene scenes[THREADS];
    pthread_t threads[THREADS];
    int bad = 0;
    for (int i = 0; i < THREADS; i++) {
        scenes[i] = first;
        if (pthread_create(&threads[i], NULL, spend, &scenes[i])) return 2;
    }
    for (int i = 0; i < THREADS; i++) {
        void *result = NULL;
        pthread_join(threads[i], &result);
        bad |= result != NULL;
    }
    scene_end(&first);
    return bad;
}

static void money_for_ten_calls_is_ten_calls_for_64_threads_in_4_processes(void **state) {
    (void)state;
    _Atomic int *calls = mmap(NULL, sizeof *calls, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(calls != MAP_FAILED);
    pid_t children[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        children[i] = fork();
        if (!children[i]) _exit(spend_in_threads(calls));
    }
    for (int i = 0; i < PROCESSES; i++) {
        int code = -1;
        waitpid(children[i], &code, 0);
        assert_int_equal(code, 0);
    }
    assert_int_equal(atomic_load(calls), 10);
    assert_true(query("SELECT count(*) FROM line WHERE settled") == PROCESSES * THREADS);
    assert_true(query("SELECT count(*) FROM line WHERE route = 'remote'") == 10);
    assert_true(query("SELECT sum(booked) FROM line") == 1e9);
    munmap((void *)calls, sizeof *calls);
}

/* Asks without an end; says so after each answer. */
static void ask_for_ever(int pipe_end) {
    scene s = scene_make();
    for (;;) {
        if (scene_try(&s) != MINIM_OK || s.answer->ledger_error || write(pipe_end, "x", 1) != 1) _exit(1);
    }
}

static void a_killed_process_loses_no_settled_line(void **state) {
    (void)state;
    double settled = 0;
    for (int round = 0; round < 12; round++) {
        int ends[2];
        char said[4096];
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        if (!child) ask_for_ever(ends[1]);
        close(ends[1]);
        assert_int_equal(read(ends[0], said, 1), 1);
        usleep(3000 + (unsigned)round * 1777);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        settled += 1;
        for (ssize_t n; (n = read(ends[0], said, sizeof said)) > 0;) settled += (double)n;
        close(ends[0]);
        double found = query("SELECT count(*) FROM line WHERE settled");
        if (found < settled || found > settled + round + 1) fail_msg("%g settled, %g found", settled, found);
        assert_true(query("SELECT count(*) FROM line WHERE NOT settled AND booked <> 100000000") == 0);
        assert_true(query("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'") == 1);
    }
    /* What a dead process had set aside stays booked: the call may have been made. */
    scene s = scene_make();
    double open = query("SELECT count(*) FROM line WHERE NOT settled");
    minim_ledger_day *days = NULL;
    size_t n = 0;
    assert_int_equal(minim_ledger_report(s.ledger, 0, &days, &n, &s.error), MINIM_OK);
    assert_true((double)days[n - 1].unsettled == open);
    minim_ledger_days_free(days);
    scene_end(&s);
}

/* Opens the ledger, asks, says so, and ends; its parent counts the system calls. */
static void ask_once_under_watch(int pipe_end) {
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL)) _exit(77);
    raise(SIGSTOP);
    scene s = scene_make();
    if (scene_try(&s) != MINIM_OK || s.answer->ledger_error || write(pipe_end, "x", 1) != 1) _exit(1);
    _exit(0);
}

/* Lets a process run until it enters or leaves its n-th system call, and kills it there. *said: it had an answer.
 * Returns 1, 0 when it had ended before, -1 where nobody may be watched. */
static int kill_at_call(int n, int *said) {
    int ends[2], status = 0;
    char byte;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (!child) ask_once_under_watch(ends[1]);
    close(ends[1]);
    waitpid(child, &status, 0);
    int killed = WIFSTOPPED(status) ? 0 : -1;
    for (int i = 0; !killed && !WIFEXITED(status); i++) {
        killed = i == n;
        if (killed)
            kill(child, SIGKILL);
        else
            ptrace(PTRACE_SYSCALL, child, NULL, NULL);
        waitpid(child, &status, 0);
    }
    *said = read(ends[0], &byte, 1) == 1;
    close(ends[0]);
    if (!killed) assert_int_equal(WEXITSTATUS(status), 0);
    return killed;
}

/* Files change in system calls only (and in the memory that they share, in between): a process is killed at each one,
 * from the opening of the ledger on, and the next one finds every line that it has told of. */
static void a_process_may_be_killed_at_each_of_its_system_calls(void **state) {
    (void)state;
    int settled = 0, said, killed = 1, n = 0;
    for (; killed && n < 2000; n++) {
        killed = kill_at_call(n, &said);
        if (killed < 0) skip();
        settled += said;
        if (access(path, F_OK)) continue; /* not even made */
        sqlite3 *db = NULL;
        if (sqlite3_open(path, &db) == SQLITE_OK && settled) {
            double found = query("SELECT count(*) FROM line WHERE settled");
            if (found < settled || found > n + 1) fail_msg("call %d: %d settled, %g found", n, settled, found);
            assert_true(query("SELECT count(*) FROM line WHERE NOT settled AND booked <> 100000000") == 0);
        }
        sqlite3_close(db);
        if (n % 16 == 0 || !killed)
            assert_true(query("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'") == 1);
    }
    assert_true(n > 40 && !killed && settled > 0);
    print_message("  %d calls\n", n - 1);
}

/* ---- the cache -------------------------------------------------------------------------------------------------- */

static void the_same_request_is_answered_from_the_cache(void **state) {
    (void)state;
    scene s = scene_make();
    s.config.cache = MINIM_ROUTE_CACHE_ON;
    scene_ask(&s);
    s.sides.remote = "other words";
    const minim_route_decision *d = scene_ask(&s);
    assert_int_equal(d->reason, MINIM_ROUTE_REASON_CACHED);
    assert_int_equal(d->route, MINIM_ROUTE_REMOTE);
    assert_string_equal(s.answer->text, "big words");
    assert_true(d->cost == 0 && fabs(d->all_remote_cost - 0.1) < 1e-9);
    assert_int_equal(s.sides.local_asked, 1);
    assert_int_equal(s.sides.remote_asked, 1);
    query("UPDATE cache SET time = time - 86401");
    assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_SCORE_LOW);
    assert_string_equal(s.answer->text, "other words");
    s.config.cache = MINIM_ROUTE_CACHE_WRITE_ONLY;
    s.sides.remote = "third words";
    assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_SCORE_LOW);
    s.config.cache = MINIM_ROUTE_CACHE_READ_ONLY;
    assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_CACHED);
    assert_string_equal(s.answer->text, "third words");
    s.message.content = "another question";
    scene_ask(&s);
    assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_SCORE_LOW); /* read_only */
    scene_end(&s);
}

static void every_part_of_a_request_is_in_the_key(void **state) {
    (void)state;
    static const char *const stop[] = {"\n"};
    scene s = scene_make();
    s.config.cache = MINIM_ROUTE_CACHE_ON;
    scene_ask(&s);
    for (int i = 0; i < 16; i++) {
        scene other = s;
        other.answer = NULL;
        switch (i) {
        case 0: other.message.content = "what is it"; break;
        case 1: other.message.role = "system"; break;
        case 2: other.request.max_tokens = 11; break;
        case 3: other.request.stop = stop, other.request.n_stop = 1; break;
        case 4: other.request.send = MINIM_ROUTER_SEND_SEED; break;
        case 5: other.request.sampling.seed = 7; break;
        case 6: other.request.sampling.top_p = 0.5f; break;
        case 7: other.request.sampling.repeat_penalty = 1.5f; break;
        case 8: other.config.threshold = 0.4; break;
        case 9: other.config.mode = MINIM_ROUTE_MODE_REMOTE; break;
        case 10: strcpy(other.config.model, "bigger"); break;
        case 11: strcpy(other.config.base_url, "https://elsewhere.invalid/v1"); break;
        case 12: strcpy(other.identity, "m1 Q4_0"); break;
        case 14: other.config.stream = 0; break;
        case 13: other.message.role = "userwhat", other.message.content = " is it?"; break;
        default: other.request.sampling.min_p = 0.1f;
        }
        if (scene_ask(&other)->reason == MINIM_ROUTE_REASON_CACHED) fail_msg("variant %d", i);
        if (scene_ask(&other)->reason != MINIM_ROUTE_REASON_CACHED) fail_msg("variant %d again", i);
        minim_router_answer_free(other.answer);
    }
    scene_end(&s);
}

static void what_is_broken_private_or_left_to_chance_is_not_cached(void **state) {
    (void)state;
    scene s = scene_make();
    s.config.cache = MINIM_ROUTE_CACHE_ON;
    s.sides.remote_failure = "broke off";
    for (int i = 0; i < 2; i++) assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_REMOTE_FAILED);
    s.sides.remote_failure = NULL;
    s.sides.finish = MINIM_ROUTE_FINISH_OTHER;
    for (int i = 0; i < 2; i++) assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_SCORE_LOW);
    s.sides.finish = MINIM_ROUTE_FINISH_END;
    s.request.is_private = 1;
    for (int i = 0; i < 2; i++) assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_PRIVATE);
    assert_true(query("SELECT count(*) FROM cache") == 0);
    s.request.is_private = 0;
    s.request.sampling.temperature = 0.7f;
    for (int i = 0; i < 2; i++) assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_SCORE_LOW);
    s.config.cache_sampled = 1;
    scene_ask(&s);
    assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_CACHED);
    s.identity[0] = 0; /* nobody knows which model it is */
    for (int i = 0; i < 2; i++) assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_SCORE_LOW);
    s.request.sampling.temperature = 0;
    strcpy(s.identity, "m1");
    s.config.max_budget = 0;
    for (int i = 0; i < 2; i++) assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_OVER_BUDGET);
    scene_end(&s);
}

/* ---- the report ------------------------------------------------------------------------------------------------- */

static void the_report_compares_with_all_remote_and_with_dice(void **state) {
    (void)state;
    scene s = scene_make();
    s.config.input_cost_per_token = 0.001;
    s.sides.prompt_tokens = 20;
    for (int i = 0; i < 4; i++) {
        s.sides.logprob = log(i ? 0.9 : 0.2);
        scene_ask(&s);
    }
    query("UPDATE line SET time = time - 86400 WHERE id = 1");
    s.config.output_cost_per_token = -1; /* what has no price is not compared */
    scene_ask(&s);
    minim_ledger_day *days = NULL;
    size_t n = 0;
    if (minim_ledger_report(s.ledger, 0, &days, &n, &s.error)) fail_msg("%s", s.error.text);
    assert_int_equal(n, 3);
    assert_int_equal(days[0].remote, 1);
    assert_int_equal(days[1].local, 4);
    const minim_ledger_day *t = &days[2];
    assert_string_equal(t->day, "total");
    assert_int_equal(t->requests, 5);
    assert_int_equal(t->unknown_costs, 1);
    assert_int_equal(t->local_tokens, 50);
    assert_true(fabs(t->compared_cost - 0.12) < 1e-9);
    assert_true(fabs(t->all_remote - 0.48) < 1e-9);
    assert_true(fabs(t->random_same_share - 0.12) < 1e-9);
    assert_int_equal(t->has_quality, 0);
    minim_ledger_days_free(days);
    /* Calibrated: ours keeps 0.9 three times, dice would keep (0.9 * 3 + 0.2) / 4 on average. */
    query("DELETE FROM line WHERE id = 5");
    query("UPDATE line SET calibrated = 1");
    assert_int_equal(minim_ledger_report(s.ledger, 0, &days, &n, &s.error), MINIM_OK);
    assert_int_equal(days[n - 1].has_quality, 1);
    double mean = 0.725, ours = (0.9 * 3 + 1) / 4;
    assert_true(fabs(days[n - 1].random_same_quality - 0.48 * (ours - mean) / (1 - mean)) < 1e-6);
    minim_ledger_days_free(days);
    scene_end(&s);
}

/* Answers, verdicts and what dice would have sent away are told apart. */
static void verdicts_are_calls_and_no_answers(void **state) {
    (void)state;
    scene s = scene_make();
    minim_ledger_day *days = NULL;
    size_t n = 0;
    s.config.input_cost_per_token = 0.001;
    s.config.confidence_method = MINIM_ROUTE_VERIFY;
    s.config.threshold = 0.5;
    s.sides.remote = "YES";
    assert_int_equal(scene_ask(&s)->route, MINIM_ROUTE_LOCAL);
    if (minim_ledger_report(s.ledger, 0, &days, &n, &s.error)) fail_msg("%s", s.error.text);
    assert_int_equal(days[n - 1].remote_calls, 1);
    assert_int_equal(days[n - 1].remote_verdicts, 1);
    assert_int_equal(days[n - 1].remote_requests, 0);
    assert_true(days[n - 1].random_same_share == 0);
    minim_ledger_days_free(days);
    s.sides.remote = "NO"; /* to the verdict, and then as its answer */
    assert_int_equal(scene_ask(&s)->route, MINIM_ROUTE_REMOTE);
    s.config.mode = MINIM_ROUTE_MODE_LOCAL;
    scene_ask(&s);
    if (minim_ledger_report(s.ledger, 0, &days, &n, &s.error)) fail_msg("%s", s.error.text);
    assert_int_equal(days[n - 1].remote_calls, 3);
    assert_int_equal(days[n - 1].remote_verdicts, 2);
    assert_int_equal(days[n - 1].remote_requests, 1);
    assert_int_equal(days[n - 1].requests, 3);
    minim_ledger_days_free(days);
    lines l = read_lines(&s, MINIM_LEDGER_LINES);
    assert_has(l.text, "\"gen_ai.provider.name\":\"minim\",\"gen_ai.request.model\":\"small\"");
    assert_has(l.text, "\"remote_calls\":2,\"remote_verdicts\":1,\"attempts\":2");
    assert_has(l.text, "\"remote_calls\":0,\"remote_verdicts\":0,\"attempts\":null");
    scene_end(&s);
}

/* ---- trouble ---------------------------------------------------------------------------------------------------- */

static minim_status no_reserve(minim_ledger *ledger, double dollars, double max_budget, double since, int64_t *ticket,
                               minim_error *error) {
    (void)ledger, (void)dollars, (void)max_budget, (void)since, (void)ticket;
    snprintf(error->text, sizeof error->text, "disk full");
    return MINIM_ERR_IO;
}
static minim_status no_settle(minim_ledger *ledger, int64_t ticket, const ledger_line *line, minim_error *error) {
    (void)ledger, (void)ticket, (void)line;
    snprintf(error->text, sizeof error->text, "disk full");
    return MINIM_ERR_IO;
}
static minim_status no_get(minim_ledger *ledger, const uint8_t key[32], double max_age, ledger_cached *cached,
                           minim_error *error) {
    (void)ledger, (void)key, (void)max_age, (void)cached;
    snprintf(error->text, sizeof error->text, "disk full");
    return MINIM_ERR_IO;
}
static minim_status no_put(minim_ledger *ledger, const uint8_t key[32], double max_age, const ledger_cached *cached,
                           minim_error *error) {
    return no_get(ledger, key, max_age, (ledger_cached *)(uintptr_t)cached, error);
}

static void a_ledger_that_fails_costs_no_answer_and_lets_no_money_go(void **state) {
    (void)state;
    static const ledger_functions broken = {no_reserve, no_settle, no_get, no_put};
    minim_ledger ledger = {.functions = &broken};
    scene s = scene_make();
    minim_ledger_close(s.ledger);
    s.ledger = &ledger;
    s.config.cache = MINIM_ROUTE_CACHE_ON;
    assert_int_equal(scene_ask(&s)->route, MINIM_ROUTE_REMOTE);
    assert_string_equal(s.answer->ledger_error, "disk full");
    s.config.max_budget = 100;
    assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_OVER_BUDGET);
    assert_int_equal(s.sides.remote_asked, 1);
    s.ledger = NULL;
    scene_end(&s);
}

/* A file of version 1 is read and goes on; what its lines do not say is not made up. */
static void an_older_ledger_grows(void **state) {
    (void)state;
    scene s = scene_make();
    scene_ask(&s);
    scene_end(&s);
    query("ALTER TABLE line DROP COLUMN remote_calls");
    query("ALTER TABLE line DROP COLUMN remote_verdicts");
    query("ALTER TABLE line DROP COLUMN remote_server");
    query("ALTER TABLE line DROP COLUMN remote_asked");
    query("PRAGMA user_version = 1");
    s = scene_make();
    scene_ask(&s);
    assert_true(query("PRAGMA user_version") == 2);
    minim_ledger_day *days = NULL;
    size_t n = 0;
    if (minim_ledger_report(s.ledger, 0, &days, &n, &s.error)) fail_msg("%s", s.error.text);
    assert_int_equal(days[n - 1].requests, 2);
    assert_int_equal(days[n - 1].remote_requests, 2);
    assert_int_equal(days[n - 1].remote_calls, 2);
    minim_ledger_days_free(days);
    lines l = read_lines(&s, MINIM_LEDGER_LINES);
    assert_int_equal(l.count, 2);
    assert_has(l.text, "\"remote_calls\":null");
    assert_has(l.text, "\"remote_calls\":1");
    scene_end(&s);
}

static void files_that_are_no_ledger_are_refused(void **state) {
    (void)state;
    minim_ledger *ledger = NULL;
    minim_error error;
    FILE *file = fopen(path, "wb");
    for (int i = 0; i < 1000; i++) fputs("this is no database ", file);
    fclose(file);
    assert_int_equal(minim_ledger_open(path, &ledger, &error), MINIM_ERR_IO);
    assert_has(error.text, path);
    begin(NULL);
    query("CREATE TABLE somebody_elses(x)");
    assert_int_equal(minim_ledger_open(path, &ledger, &error), MINIM_ERR_FORMAT);
    assert_has(error.text, "another program's");
    begin(NULL);
    query("PRAGMA user_version = 77");
    assert_int_equal(minim_ledger_open(path, &ledger, &error), MINIM_ERR_FORMAT);
    assert_int_equal(minim_ledger_open("/nowhere/at/all.db", &ledger, &error), MINIM_ERR_IO);
    assert_has(error.text, "No such file");
    assert_int_equal(minim_ledger_open("", &ledger, &error), MINIM_ERR_ARGUMENT);
    minim_ledger_close(NULL);
}

int main(void) {
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/ledger.db", folder);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(every_decision_leaves_a_line_and_no_content, begin),
        cmocka_unit_test_setup(hashes_of_two_ledgers_are_not_alike, begin),
        cmocka_unit_test_setup(content_is_kept_when_asked_for_and_exported_as_pairs, begin),
        cmocka_unit_test_setup(a_decision_can_be_made_again_from_its_line, begin),
        cmocka_unit_test_setup(over_budget_means_local_and_no_error, begin),
        cmocka_unit_test_setup(what_was_set_aside_and_not_used_comes_back, begin),
        cmocka_unit_test_setup(money_comes_back_when_the_budgets_time_has_passed, begin),
        cmocka_unit_test_setup(a_budget_without_prices_or_ledger_is_refused, begin),
        cmocka_unit_test_setup(a_budget_bounds_answers_that_have_no_bound, begin),
        cmocka_unit_test_setup(money_for_ten_calls_is_ten_calls_for_64_threads_in_4_processes, begin),
        cmocka_unit_test_setup(a_killed_process_loses_no_settled_line, begin),
        cmocka_unit_test_setup(a_process_may_be_killed_at_each_of_its_system_calls, begin),
        cmocka_unit_test_setup(the_same_request_is_answered_from_the_cache, begin),
        cmocka_unit_test_setup(every_part_of_a_request_is_in_the_key, begin),
        cmocka_unit_test_setup(what_is_broken_private_or_left_to_chance_is_not_cached, begin),
        cmocka_unit_test_setup(the_report_compares_with_all_remote_and_with_dice, begin),
        cmocka_unit_test_setup(verdicts_are_calls_and_no_answers, begin),
        cmocka_unit_test_setup(an_older_ledger_grows, begin),
        cmocka_unit_test_setup(a_ledger_that_fails_costs_no_answer_and_lets_no_money_go, begin),
        cmocka_unit_test_setup(files_that_are_no_ledger_are_refused, begin),
    };
    int code = cmocka_run_group_tests(tests, NULL, NULL);
    begin(NULL);
    rmdir(folder);
    return code;
}
