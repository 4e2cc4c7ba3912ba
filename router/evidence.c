/* evidence.c: see evidence.h. */
#include "evidence.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { EVIDENCE_NUMBERS = 64, EVIDENCE_ARGUMENTS = 32 };
#define EVIDENCE_SECONDS 10.0 /* that a command may take */

struct evidence_rules {
    char schema[sizeof((minim_router_config *)0)->evidence_schema];
    int has_pattern, spans, numbers;
    regex_t pattern;
    char command[sizeof((minim_router_config *)0)->evidence_command]; /* arguments, each with its NUL */
    char *arguments[EVIDENCE_ARGUMENTS + 1];
};

/* ---- the rules -------------------------------------------------------------------------------------------------- */

minim_status evidence_rules_new(const minim_router_config *config, evidence_rules **out, minim_error *error) {
    int any = config->evidence_schema[0] || config->evidence_pattern[0] || config->evidence_spans ||
              config->evidence_numbers || config->evidence_command[0];
    *out = NULL;
    if (!any) return MINIM_OK;
#ifdef MINIM_WITH_JSON
    minim_status status = config->evidence_schema[0] ? evidence_json_check(config->evidence_schema, error) : MINIM_OK;
    if (status != MINIM_OK) return status;
#else
    if (config->evidence_schema[0]) {
        return router_fail(error, MINIM_ERR_UNSUPPORTED, "evidence.json_schema: this minim was built without jansson");
    }
#endif
    evidence_rules *rules = calloc(1, sizeof *rules);
    if (!rules) return router_fail_memory(error, "the evidence rules");
    memcpy(rules->schema, config->evidence_schema, sizeof rules->schema);
    memcpy(rules->command, config->evidence_command, sizeof rules->command);
    rules->spans = config->evidence_spans;
    rules->numbers = config->evidence_numbers;
    int n = 0;
    char *rest = NULL;
    for (char *line = strtok_r(rules->command, "\n", &rest); line && n < EVIDENCE_ARGUMENTS;
         line = strtok_r(NULL, "\n", &rest)) {
        rules->arguments[n++] = line;
    }
    int code =
        config->evidence_pattern[0] ? regcomp(&rules->pattern, config->evidence_pattern, REG_EXTENDED | REG_NOSUB) : 0;
    if (code) {
        char why[128];
        regerror(code, &rules->pattern, why, sizeof why);
        free(rules);
        return router_fail(error, MINIM_ERR_ARGUMENT, "evidence.pattern: %s", why);
    }
    rules->has_pattern = config->evidence_pattern[0] != 0;
    *out = rules;
    return MINIM_OK;
}

void evidence_rules_free(evidence_rules *rules) {
    if (rules && rules->has_pattern) regfree(&rules->pattern);
    free(rules);
}

/* ---- spans ------------------------------------------------------------------------------------------------------ */

static int evidence_is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Does text[0..) begin with the span, any white space for any? */
static int evidence_begins(const char *text, const char *span, size_t n) {
    for (size_t i = 0; i < n;) {
        if (evidence_is_space(span[i])) {
            if (!evidence_is_space(*text)) return 0;
            while (i < n && evidence_is_space(span[i])) i++;
            while (evidence_is_space(*text)) text++;
        } else {
            if (*text != span[i]) return 0;
            text++, i++;
        }
    }
    return 1;
}

static int evidence_occurs(const minim_router_request *request, const char *span, size_t n) {
    for (size_t i = 0; i < request->n_messages; i++) {
        for (const char *at = request->messages[i].content; *at; at++) {
            if (evidence_begins(at, span, n)) return 1;
        }
    }
    return 0;
}

/* What stands in quotation marks ("", or the typographic ones) has to stand in the source, word for word. */
static int evidence_refuses_spans(const minim_router_request *request, const char *answer, char *detail, size_t n) {
    static const char *const quotes[][2] = {{"\"", "\""}, {"\xe2\x80\x9c", "\xe2\x80\x9d"}, {"\xc2\xab", "\xc2\xbb"}};
    for (const char *at = answer; *at; at++) {
        for (size_t q = 0; q < sizeof quotes / sizeof *quotes; q++) {
            size_t open = strlen(quotes[q][0]);
            if (strncmp(at, quotes[q][0], open) != 0) continue;
            const char *start = at + open, *end = strstr(start, quotes[q][1]);
            if (!end) continue;
            /* A key of JSON is no quotation. */
            const char *behind = end + strlen(quotes[q][1]) + strspn(end + strlen(quotes[q][1]), " \t\r\n");
            if (*behind != ':' && end > start && !evidence_occurs(request, start, (size_t)(end - start))) {
                router_line(detail, n, "evidence: \"%.*s\" is not in the source",
                            (int)(end - start < 80 ? end - start : 80), start);
                return 1;
            }
            at = end + strlen(quotes[q][1]) - 1;
            break;
        }
    }
    return 0;
}

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

/* A number as it is written: 1,234.5 is one; its last digit says how exact it is. */
typedef struct evidence_number {
    double value, half; /* half a unit of the last digit */
} evidence_number;

static int evidence_is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* The next number at or behind *at, which moves on; 0 when there is none. The number of a list item ("2. ") is none. */
static int evidence_next_number(const char *text, const char **at, evidence_number *number) {
    for (const char *p = *at; *p;) {
        if (!evidence_is_digit(*p)) {
            p++;
            continue;
        }
        char digits[64];
        size_t n = 0;
        int decimals = -1;
        const char *start = p;
        for (; evidence_is_digit(*p) || ((*p == '.' || *p == ',') && evidence_is_digit(p[1])); p++) {
            int thousands = *p == ',' && evidence_is_digit(p[1]) && evidence_is_digit(p[2]) &&
                            evidence_is_digit(p[3]) && !evidence_is_digit(p[4]);
            if (*p == ',' && !thousands) break;
            if (*p == '.' && decimals >= 0) break;
            if (*p == '.')
                decimals = 0;
            else if (*p != ',' && decimals >= 0)
                decimals++;
            if (*p != ',' && n + 1 < sizeof digits) digits[n++] = *p;
        }
        digits[n] = 0;
        int in_word = start > text && ((start[-1] >= 'a' && start[-1] <= 'z') ||
                                       (start[-1] >= 'A' && start[-1] <= 'Z') || start[-1] == '_');
        const char *line = start;
        while (line > text && evidence_is_space(line[-1]) && line[-1] != '\n') line--;
        int is_item = (line == text || line[-1] == '\n') && (*p == '.' || *p == ')') && evidence_is_space(p[1]);
        if (in_word || is_item) continue;
        number->value = strtod(digits, NULL);
        number->half = 0.5 * pow(10, decimals > 0 ? -decimals : 0) * (decimals > 0);
        *at = p;
        return 1;
    }
    return 0;
}

static int evidence_equal(double found, const evidence_number *wanted) {
    return fabs(fabs(found) - wanted->value) <= wanted->half * (1 + 1e-9) + 1e-9 * fabs(wanted->value);
}

/* In the source, or one operation on two of its numbers, a percentage of two, or the sum or mean of all. */
static int evidence_is_computed(const evidence_number *source, size_t n, const evidence_number *wanted) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += source[i].value;
    if (n && (evidence_equal(sum, wanted) || evidence_equal(sum / (double)n, wanted))) return 1;
    for (size_t i = 0; i < n; i++) {
        double a = source[i].value;
        if (evidence_equal(a, wanted)) return 1;
        for (size_t j = 0; j < n; j++) {
            double b = source[j].value;
            if (i == j) continue;
            if (evidence_equal(a + b, wanted) || evidence_equal(a - b, wanted) || evidence_equal(a * b, wanted))
                return 1;
            if (b != 0 && (evidence_equal(a / b, wanted) || evidence_equal(100 * a / b, wanted) ||
                           evidence_equal(100 * (a - b) / b, wanted))) {
                return 1;
            }
            if (evidence_equal(a * b / 100, wanted)) return 1;
        }
    }
    return 0;
}

static int evidence_refuses_numbers(const minim_router_request *request, const char *answer, char *detail, size_t n) {
    evidence_number source[EVIDENCE_NUMBERS], number;
    size_t n_source = 0;
    for (size_t i = 0; i < request->n_messages; i++) {
        const char *text = request->messages[i].content, *at = text;
        while (n_source < EVIDENCE_NUMBERS && evidence_next_number(text, &at, &source[n_source])) n_source++;
    }
    for (const char *at = answer; evidence_next_number(answer, &at, &number);) {
        if (evidence_is_computed(source, n_source, &number)) continue;
        router_line(detail, n, "evidence: the number %.10g is neither in the source nor computed from it",
                    number.value);
        return 1;
    }
    return 0;
}

/* ---- a command -------------------------------------------------------------------------------------------------- */

/* Writes the answer to the command's input, as far as it reads it, and waits for its end until the deadline. -1: the
 * time is up. */
static int evidence_feed(pid_t child, int fd, const char *answer, double deadline) {
    size_t left = strlen(answer);
    int status = 0;
    while (left && router_now() < deadline) {
        struct pollfd ready = {fd, POLLOUT, 0};
        if (poll(&ready, 1, 50) < 0 && errno != EINTR) break;
        if (!(ready.revents & (POLLOUT | POLLERR | POLLHUP))) continue;
        ssize_t n = send(fd, answer, left, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN && errno != EINTR) break; /* it does not want to know more */
        if (n > 0) answer += n, left -= (size_t)n;
    }
    shutdown(fd, SHUT_WR);
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (router_now() > deadline) {
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
            return -1;
        }
        nanosleep(&(struct timespec){0, 2000000}, NULL);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* A socket pair instead of a pipe: writing to a command that has gone must not raise SIGPIPE. */
static int evidence_refuses_command(const evidence_rules *rules, const char *answer, char *detail, size_t n) {
    int ends[2];
    pid_t child = 0;
    posix_spawn_file_actions_t actions;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) {
        router_line(detail, n, "evidence: the command can not be started");
        return 1;
    }
    int code = posix_spawn_file_actions_init(&actions);
    if (!code) {
        code = posix_spawn_file_actions_adddup2(&actions, ends[1], 0);
        if (!code) code = posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
        if (!code) code = posix_spawn_file_actions_adddup2(&actions, 1, 2);
        if (!code) code = posix_spawnp(&child, rules->arguments[0], &actions, NULL, rules->arguments, environ);
        posix_spawn_file_actions_destroy(&actions);
    }
    close(ends[1]);
    if (code) {
        router_line(detail, n, "evidence: %s: %s", rules->arguments[0], strerror(code));
        close(ends[0]);
        return 1;
    }
    code = evidence_feed(child, ends[0], answer, router_now() + EVIDENCE_SECONDS);
    close(ends[0]);
    if (code > 0) router_line(detail, n, "evidence: %s: exit code %d", rules->arguments[0], code);
    if (code < 0) router_line(detail, n, "evidence: %s: no end within 10 s", rules->arguments[0]);
    return code != 0;
}

/* ---- all of them ------------------------------------------------------------------------------------------------ */

int evidence_refuses(const evidence_rules *rules, const minim_router_request *request, const char *answer, char *detail,
                     size_t n) {
    if (!rules) return 0;
    if (rules->has_pattern && regexec(&rules->pattern, answer, 0, NULL, 0)) {
        router_line(detail, n, "evidence: the answer does not match evidence.pattern");
        return 1;
    }
#ifdef MINIM_WITH_JSON
    if (rules->schema[0] && evidence_json_refuses(rules->schema, answer, detail, n)) return 1;
#endif
    if (rules->spans && evidence_refuses_spans(request, answer, detail, n)) return 1;
    if (rules->numbers && evidence_refuses_numbers(request, answer, detail, n)) return 1;
    return rules->arguments[0] && evidence_refuses_command(rules, answer, detail, n);
}
