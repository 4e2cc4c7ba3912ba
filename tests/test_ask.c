/* test_ask.c: `minim ask` as its users meet it: the program with the built-in model, and a scripted server. Left out
 * without the packages of the router's remote (MINIM_WITH_ROUTER). Runs $B/minim, else build/minim. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "openai_server.h"
#include "router_test.h"

#define STORY_START  ", there was a little" /* what the built-in model says first after "Once upon a time" */
#define CHUNK(text)  "data: {\"choices\":[{\"delta\":{\"content\":\"" text "\"}}]}\n\n"
#define DONE         "data: [DONE]\n\n"
#define EVENT_STREAM "Content-Type: text/event-stream"

static const openai_reply good_stream = {
    .headers = {EVENT_STREAM},
    .pieces = {CHUNK("Hello"), CHUNK(" big"), CHUNK(" world"),
               "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":3}}\n\n", DONE}};

/* ---- running the program ---------------------------------------------------------------------------------------- */

static char program[4096], folder[] = "/tmp/minim-test-ask-XXXXXX";

typedef struct run {
    char out[8192], err[8192];
    size_t n_out, n_err;
    int code;
    unsigned pieces_at_first; /* what the server had sent when the first text came out */
    double seconds;
} run;

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Takes what there is; 0 at the end. */
static int take(int fd, char *text, size_t capacity, size_t *n) {
    ssize_t got = read(fd, text + *n, capacity - 1 - *n);
    if (got <= 0) return 0;
    *n += (size_t)got;
    text[*n] = 0;
    return 1;
}

static void start_child(const char *input, size_t n_input, char *const *argv, int out, int err) {
    char name[] = "/tmp/minim-ask-stdin-XXXXXX";
    int in = mkstemp(name);
    unlink(name);
    if (in < 0 || write(in, input, n_input) != (ssize_t)n_input || lseek(in, 0, SEEK_SET)) _exit(99);
    dup2(in, 0);
    dup2(out, 1);
    dup2(err, 2);
    execv(program, argv);
    _exit(98);
}

/* `minim ask ARGUMENTS...`. interrupt: Ctrl-C as soon as text comes out. server may be NULL. */
static run run_ask(openai_server *server, int interrupt, const char *input, size_t n_input,
                   const char *const *arguments) {
    run r = {.code = -1};
    char *argv[32] = {program, (char *)"ask"};
    for (int i = 0; arguments[i]; i++) argv[i + 2] = (char *)arguments[i];
    int out[2], err[2];
    assert_int_equal(pipe(out) || pipe(err), 0);
    double start = seconds_now();
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) start_child(input, n_input, argv, out[1], err[1]);
    close(out[1]);
    close(err[1]);
    struct pollfd fds[2] = {{out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
    while ((fds[0].fd >= 0 || fds[1].fd >= 0) && seconds_now() - start < 60) {
        poll(fds, 2, 20);
        if (interrupt && r.n_out) {
            kill(child, SIGINT);
            interrupt = 0;
        }
        if (fds[0].revents) {
            if (!r.n_out && server) r.pieces_at_first = openai_server_pieces(server);
            if (!take(out[0], r.out, sizeof r.out, &r.n_out)) fds[0].fd = -1;
        }
        if (fds[1].revents && !take(err[0], r.err, sizeof r.err, &r.n_err)) fds[1].fd = -1;
    }
    int status;
    waitpid(child, &status, 0);
    close(out[0]);
    close(err[0]);
    r.seconds = seconds_now() - start;
    r.code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    return r;
}

#define ASK(server, ...) run_ask(server, 0, "", 0, (const char *const[]){__VA_ARGS__, NULL})

static openai_server *serve(const openai_reply *replies, size_t n) {
    openai_server *server = openai_server_start(replies, n);
    assert_non_null(server);
    return server;
}

static int count_lines(const char *text) {
    int n = 0;
    for (; *text; text++) n += *text == '\n';
    return n;
}

/* ---- tests ------------------------------------------------------------------------------------------------------ */

static void local_prints_the_answer_and_connects_to_nobody(void **state) {
    (void)state;
    openai_server *server = serve(&good_stream, 1);
    setenv("OPENAI_BASE_URL", openai_server_url(server), 1);
    setenv("OPENAI_API_KEY", "sk-very-secret", 1);
    run r = ASK(server, "--route", "local", "--threshold", "1", "-n", "8", "Once upon a time");
    assert_int_equal(r.code, 0);
    assert_int_equal(strncmp(r.out, STORY_START, strlen(STORY_START)), 0);
    assert_int_equal(count_lines(r.out), 1);
    assert_has(r.err, " GB/s of weights");
    assert_int_equal(count_lines(r.err), 2); /* the route, and how fast the local model was */
    assert_has(r.err, "answered by the local model: only the local model may answer; score 0.");
    assert_has(r.err, "uncalibrated");
    assert_has(r.err, "cost $0");
    assert_int_equal(openai_server_connections(server), 0);
    openai_server_stop(server);
}

static void a_good_local_answer_stands(void **state) {
    (void)state;
    openai_server *server = serve(&good_stream, 1);
    run r =
        ASK(server, "--remote-url", openai_server_url(server), "--threshold", "0.01", "-n", "8", "Once upon a time");
    assert_int_equal(r.code, 0);
    assert_has(r.out, STORY_START);
    assert_has(r.err, "answered by the local model: its score reaches the threshold");
    assert_int_equal(openai_server_connections(server), 0);
    openai_server_stop(server);
}

static void below_the_bar_the_remote_answer_streams_out(void **state) {
    (void)state;
    openai_reply slow = good_stream;
    slow.piece_ms = 100;
    openai_server *server = serve(&slow, 1);
    setenv("OPENAI_BASE_URL", openai_server_url(server), 1);
    setenv("OPENAI_API_KEY", "sk-very-secret", 1);
    setenv("OPENAI_MODEL", "big", 1);
    run r = ASK(server, "--threshold", "1", "-n", "8", "--temp", "0.7", "--system", "Be kind.", "Once upon a time");
    assert_int_equal(r.code, 0);
    assert_string_equal(r.out, "Hello big world\n");
    assert_in_range(r.pieces_at_first, 1, 4); /* of 5 */
    assert_int_equal(count_lines(r.err), 2);  /* the route, and how fast the local model was */
    assert_has(r.err, "answered by the remote model: the local score is below the threshold");
    assert_has(r.err, "remote tokens 11 in, 3 out; cost unknown");
    assert_lacks(r.err, "sk-very-secret");
    assert_string_equal(openai_server_header(server, "Authorization"), "Bearer sk-very-secret");
    assert_has(openai_server_body(server),
               "{\"role\":\"system\",\"content\":\"Be kind.\"},{\"role\":\"user\",\"content\":"
               "\"Once upon a time\"}");
    assert_has(openai_server_body(server), "\"model\":\"big\",\"max_tokens\":8,\"temperature\":0.7}");
    openai_server_stop(server);
}

static void a_remote_that_fails_leaves_the_local_answer_and_exit_code_1(void **state) {
    (void)state;
    const openai_reply refused = {.status = 401, .pieces = {"{\"error\":{\"message\":\"bad key sk-very-secret\"}}"}};
    openai_server *server = serve(&refused, 1);
    setenv("OPENAI_BASE_URL", openai_server_url(server), 1);
    setenv("OPENAI_API_KEY", "sk-very-secret", 1);
    static const char *const routes[] = {"cascade", "remote"};
    for (int i = 0; i < 2; i++) {
        run r = ASK(server, "--route", routes[i], "--threshold", "1", "-q", "-n", "8", "Once upon a time");
        assert_int_equal(r.code, 1);
        assert_has(r.out, STORY_START);
        assert_int_equal(count_lines(r.err), 1); /* -q does not hide it */
        assert_has(r.err, "DEGRADED: http://127.0.0.1");
        assert_has(r.err, "HTTP 401: bad key [key]");
    }
    openai_server_stop(server);
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%u/v1", openai_unused_port());
    setenv("OPENAI_BASE_URL", url, 1);
    run r = ASK(NULL, "--route", "remote", "-n", "8", "Once upon a time");
    assert_int_equal(r.code, 1);
    assert_has(r.out, STORY_START);
    assert_has(r.err, "DEGRADED: http://127.0.0.1");
}

static void a_stream_that_breaks_off_is_told_apart_from_the_local_answer(void **state) {
    (void)state;
    const openai_reply cut = {.headers = {EVENT_STREAM}, .pieces = {CHUNK("Hello"), CHUNK(" bi")}};
    openai_server *server = serve(&cut, 1);
    run r = ASK(server, "--remote-url", openai_server_url(server), "--threshold", "1", "-n", "8", "Once upon a time");
    assert_int_equal(r.code, 1);
    assert_int_equal(strncmp(r.out, "Hello bi\n\n" STORY_START, strlen("Hello bi\n\n" STORY_START)), 0);
    assert_int_equal(count_lines(r.err), 3);
    assert_has(r.err, "minim: the answer above broke off and does not count (http://127.0.0.1");
    assert_has(r.err, "ended without [DONE]");
    /* As JSON there is only the answer that counts. */
    r = ASK(server, "--remote-url", openai_server_url(server), "--threshold", "1", "-n", "8", "--json",
            "Once upon a time");
    assert_int_equal(r.code, 1);
    json_t *json = json_loads(r.out, 0, NULL);
    assert_non_null(json);
    assert_int_equal(count_lines(r.out), 1);
    assert_has(json_string_value(json_object_get(json, "answer")), STORY_START);
    assert_true(json_is_true(json_object_get(json, "degraded")));
    assert_has(json_string_value(json_object_get(json, "degraded_reason")), "ended without [DONE]");
    assert_true(json_is_false(json_object_get(json, "calibrated")));
    assert_true(json_real_value(json_object_get(json, "threshold")) == 1);
    assert_true(json_real_value(json_object_get(json, "score")) > 0.1);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(json, "local"), "completion_tokens")), 8);
    assert_true(json_is_object(json_object_get(json, "remote")));
    json_decref(json);
    openai_server_stop(server);
}

/* The built-in model's tokenizer, although the model itself is not needed: 13 letters, a token each, and the space
 * that it puts before a text. */
static void what_a_server_does_not_count_is_counted_here(void **state) {
    (void)state;
    const openai_reply silent = {.headers = {EVENT_STREAM}, .pieces = {CHUNK("QQQQ"), DONE}};
    openai_server *server = serve(&silent, 1);
    run r = ASK(server, "--route", "remote", "--remote-url", openai_server_url(server), "QXQXQXQXQXQXQ");
    assert_int_equal(r.code, 0);
    assert_has(r.err, "remote tokens 14 in, 5 out (estimated)");
    openai_server_stop(server);
}

/* While a key is in memory the process leaves no core, neither in a file nor in a pipe. */
static void with_a_key_there_is_no_core_dump(void **state) {
    (void)state;
    const openai_reply stall = {.headers = {EVENT_STREAM}, .pieces = {CHUNK("Hello")}, .end = OPENAI_END_STALL};
    openai_server *server = serve(&stall, 1);
    char name[64], limit[4096] = "";
    setenv("OPENAI_API_KEY", "sk-very-secret", 1);
    char *const argv[] = {program,
                          (char *)"ask",
                          (char *)"--route",
                          (char *)"remote",
                          (char *)"--remote-url",
                          (char *)openai_server_url(server),
                          (char *)"Once",
                          NULL};
    int out[2];
    assert_int_equal(pipe(out), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) start_child("", 0, argv, out[1], out[1]);
    close(out[1]);
    assert_int_equal(read(out[0], limit, 1), 1); /* the answer has begun: the key was sent */
    snprintf(name, sizeof name, "/proc/%d/limits", (int)child);
    FILE *file = fopen(name, "r");
    size_t n = file ? fread(limit, 1, sizeof limit - 1, file) : 0;
    limit[n] = 0;
    if (file) fclose(file);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(out[0]);
    openai_server_stop(server);
    const char *line = strstr(limit, "Max core file size");
    if (!line) skip();
    unsigned long bytes = 99;
    assert_int_equal(sscanf(line, "Max core file size %lu", &bytes), 1);
    assert_true(bytes <= 1);
}

static void without_a_remote_it_says_so(void **state) {
    (void)state;
    run r = ASK(NULL, "-n", "8", "Once upon a time");
    assert_int_equal(r.code, 0);
    assert_has(r.out, STORY_START);
    assert_has(r.err, "answered by the local model: no remote is configured;");
    r = ASK(NULL, "--route", "remote", "-n", "8", "Once upon a time");
    assert_int_equal(r.code, 1);
    assert_has(r.out, STORY_START);
    assert_has(r.err, "no remote is configured; DEGRADED");
}

static void remote_first_does_not_even_read_the_local_model(void **state) {
    (void)state;
    openai_server *server = serve(&good_stream, 1);
    run r = ASK(server, "--route", "remote", "--remote-url", openai_server_url(server), "-m", "nowhere.gguf", "Hello");
    assert_int_equal(r.code, 0);
    assert_string_equal(r.out, "Hello big world\n");
    openai_server_stop(server);
    r = ASK(NULL, "--route", "remote", "--remote-url", "http://127.0.0.1:1/v1", "-m", "nowhere.gguf", "Hello");
    assert_int_equal(r.code, 1);
    assert_string_equal(r.out, "");
    assert_has(r.err, "nowhere.gguf");
    assert_has(r.err, "the local model failed: it can not be loaded; the remote failed: http://127.0.0.1:1");
}

static void mistakes_in_the_configuration_are_one_line_and_exit_code_1(void **state) {
    (void)state;
    static const struct {
        const char *file, *url, *key, *says;
    } rows[] = {
        {"{\"threshhold\":1}", NULL, NULL, "bad.json: unknown key \"threshhold\""},
        {"{\"threshold\":", NULL, NULL, "bad.json:1:"},
        {"{}", "http://example.com/v1", NULL, "found http://example.com, expected https"},
        {"{}", "ftp://example.com/v1", NULL, "expected https"},
        {"{}", "not a url", NULL, "remote URL"},
        {"{}", "https://example.com/v1", "sk-very\nsecret", "OPENAI_API_KEY: found byte 0x0a"},
        {"{\"remote\":{\"base_url\":\"https://example.com\",\"api_key\":\"env:NO_SUCH_KEY\"}}", NULL, NULL,
         "environment variable NO_SUCH_KEY is not set"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        FILE *file = fopen("bad.json", "w");
        assert_non_null(file);
        fputs(rows[i].file, file);
        fclose(file);
        if (rows[i].key) setenv("OPENAI_API_KEY", rows[i].key, 1);
        run r = rows[i].url ? ASK(NULL, "--config", "bad.json", "--remote-url", rows[i].url, "Hello")
                            : ASK(NULL, "--config", "bad.json", "Hello");
        unsetenv("OPENAI_API_KEY");
        assert_int_equal(r.code, 1);
        assert_string_equal(r.out, "");
        assert_int_equal(count_lines(r.err), 1);
        assert_has(r.err, rows[i].says);
        assert_lacks(r.err, "sk-very");
    }
    run r = ASK(NULL, "--config", "nowhere.json", "Hello");
    assert_int_equal(r.code, 1);
    assert_has(r.err, "nowhere.json: No such file");
    assert_int_equal(ASK(NULL, "--threshold", "2", "Hello").code, 2);
    assert_int_equal(ASK(NULL, "--route", "moon", "Hello").code, 2);
    assert_int_equal(ASK(NULL, "one", "two").code, 2);
}

static void a_question_may_come_from_standard_input(void **state) {
    (void)state;
    const char *const arguments[] = {"--route", "local", "-q", "-n", "8", NULL};
    run r = run_ask(NULL, 0, "Once upon a time\n", 17, arguments);
    assert_int_equal(r.code, 0);
    assert_int_equal(strncmp(r.out, STORY_START, strlen(STORY_START)), 0);
    assert_string_equal(r.err, "");
    r = run_ask(NULL, 0, "\n", 1, arguments);
    assert_int_equal(r.code, 1);
    assert_has(r.err, "the question is empty");
    r = run_ask(NULL, 0, "a\0b", 3, arguments);
    assert_int_equal(r.code, 1);
    assert_has(r.err, "NUL byte at 1");
    r = run_ask(NULL, 0, "caf\xe9", 4, arguments); /* invalid UTF-8 is accepted */
    assert_int_equal(r.code, 0);
}

static void ctrl_c_ends_the_waiting(void **state) {
    (void)state;
    const openai_reply stalled = {.headers = {EVENT_STREAM}, .pieces = {CHUNK("Hello")}, .end = OPENAI_END_STALL};
    openai_server *server = serve(&stalled, 1);
    const char *const arguments[] = {"--route", "remote", "--remote-url", openai_server_url(server), "Hello", NULL};
    run r = run_ask(server, 1, "", 0, arguments);
    assert_int_equal(r.code, 130);
    assert_string_equal(r.out, "Hello\n");
    assert_true(r.seconds < 5);
    openai_server_stop(server);
}

/* An empty folder as home and working directory, and none of our variables. */
static int begin_ask(void **state) {
    (void)state;
    static const char *const names[] = {"OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL", "XDG_CONFIG_HOME"};
    for (size_t i = 0; i < COUNT(names); i++) unsetenv(names[i]);
    return 0;
}

static int begin_all(void **state) {
    (void)state;
    const char *build = getenv("B");
    char name[4096];
    snprintf(name, sizeof name, "%s/minim", build && build[0] ? build : "build");
    if (!realpath(name, program)) {
        print_error("%s is not there\n", name);
        return -1;
    }
    if (!mkdtemp(folder) || setenv("HOME", folder, 1) || chdir(folder)) return -1;
    FILE *file = fopen("minim.json", "w"); /* found in the working directory: may not say where, but how fast */
    return !file || fputs("{\"remote\":{\"retry_after\":0.01}}", file) < 0 || fclose(file);
}

static int end_all(void **state) {
    (void)state;
    unlink("bad.json");
    unlink("minim.json");
    return chdir("/") || rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(local_prints_the_answer_and_connects_to_nobody, begin_ask),
        cmocka_unit_test_setup(a_good_local_answer_stands, begin_ask),
        cmocka_unit_test_setup(below_the_bar_the_remote_answer_streams_out, begin_ask),
        cmocka_unit_test_setup(a_remote_that_fails_leaves_the_local_answer_and_exit_code_1, begin_ask),
        cmocka_unit_test_setup(a_stream_that_breaks_off_is_told_apart_from_the_local_answer, begin_ask),
        cmocka_unit_test_setup(what_a_server_does_not_count_is_counted_here, begin_ask),
        cmocka_unit_test_setup(with_a_key_there_is_no_core_dump, begin_ask),
        cmocka_unit_test_setup(without_a_remote_it_says_so, begin_ask),
        cmocka_unit_test_setup(remote_first_does_not_even_read_the_local_model, begin_ask),
        cmocka_unit_test_setup(mistakes_in_the_configuration_are_one_line_and_exit_code_1, begin_ask),
        cmocka_unit_test_setup(a_question_may_come_from_standard_input, begin_ask),
        cmocka_unit_test_setup(ctrl_c_ends_the_waiting, begin_ask),
    };
    return cmocka_run_group_tests(tests, begin_all, end_all);
}
