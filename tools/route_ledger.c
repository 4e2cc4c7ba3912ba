/* route_ledger.c: `minim route report|log|export|replay`: what the ledger tells. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../router/minim_router.h"
#include "common.h"
#include "route.h"

typedef struct ledger_settings {
    const char *ledger, *config;
    int json, days;
    float threshold, gate_threshold; /* -1 = not given */
} ledger_settings;

#define LEDGER(field) offsetof(ledger_settings, field)

static const option ledger_options[] = {
    {"--ledger", "FILE", OPTION_STRING, LEDGER(ledger), 0, 0, "the ledger (default: ledger.path of minim.json)"},
    {"--config", "FILE", OPTION_STRING, LEDGER(config), 0, 0,
     "instead of ./minim.json or\n$XDG_CONFIG_HOME/minim/minim.json"},
    {"--days", "N", OPTION_INT, LEDGER(days), 1, 100000, "only the last N days (default: all)"},
    {0},
};

static const option ledger_report_options[] = {
    {"--json", NULL, OPTION_FLAG, LEDGER(json), 0, 0, "one JSON object a day"},
    {0},
};

static const option ledger_replay_options[] = {
    {"--threshold", "X", OPTION_FLOAT, LEDGER(threshold), 0, 1, "with this threshold instead of the one of the time"},
    {"--gate-threshold", "X", OPTION_FLOAT, LEDGER(gate_threshold), 0, 1, "the same for the gate of streams and races"},
    {0},
};

#ifdef MINIM_WITH_LEDGER

/* Opens the ledger that is named; never makes one. Returns -1 or an exit code. */
static int ledger_open(const ledger_settings *settings, minim_ledger **ledger) {
    minim_error error = {.status = MINIM_OK};
    const char *path = settings->ledger;
    minim_router_config config;
    minim_router_config_default(&config);
#ifdef MINIM_WITH_ROUTER
    if (!path && minim_router_config_load(&config, settings->config, &error)) return tool_fail_error(&error);
#endif
    if (!path && config.ledger[0]) path = config.ledger;
    if (!path) return tool_fail("no ledger is named: expected --ledger FILE, or ledger.path in minim.json");
    FILE *file = fopen(path, "rb");
    if (!file) return tool_fail("ledger %s: there is none", path);
    fclose(file);
    return minim_ledger_open(path, ledger, &error) == MINIM_OK ? -1 : tool_fail_error(&error);
}

static double ledger_since(const ledger_settings *settings) {
    return settings->days ? (double)time(NULL) - 86400.0 * settings->days : 0;
}

/* ---- report ------------------------------------------------------------------------------------------------------ */

/* "$0.0123 (45 %)": what is saved against `against`. */
static void ledger_print_saving(const char *what, double against, double cost, const char *note) {
    printf("%-34s $%-12.6g", what, against);
    if (against > 0) printf(" saved $%.6g (%.1f %%)", against - cost, 100 * (against - cost) / against);
    printf("%s\n", note);
}

static void ledger_print_total(const minim_ledger_day *t) {
    printf("\nremote asked for %llu of %llu requests; calls %llu, %llu of them verdicts; tokens: local %llu, remote "
           "%llu\n",
           (unsigned long long)t->remote_requests, (unsigned long long)t->requests, (unsigned long long)t->remote_calls,
           (unsigned long long)t->remote_verdicts, (unsigned long long)t->local_tokens,
           (unsigned long long)t->remote_tokens);
    if (t->private_requests + t->over_budget + t->degraded + t->failed) {
        printf("private %llu, over budget %llu, degraded %llu, failed %llu\n", (unsigned long long)t->private_requests,
               (unsigned long long)t->over_budget, (unsigned long long)t->degraded, (unsigned long long)t->failed);
    }
    if (t->unsettled) {
        printf("%llu reservations of processes that did not come back; they stay booked\n",
               (unsigned long long)t->unsettled);
    }
    if (t->unknown_costs) {
        printf("%llu requests are left out below: they failed, or the remote has no prices\n",
               (unsigned long long)t->unknown_costs);
    }
    printf("\n%-34s $%.6g\n", "this router", t->compared_cost);
    ledger_print_saving("all-remote (estimated)", t->all_remote, t->compared_cost, "");
    ledger_print_saving("random, as many sent away", t->random_same_share, t->compared_cost, "");
    if (t->has_quality)
        ledger_print_saving("random, as good by confidence", t->random_same_quality, t->compared_cost, "");
    else
        printf("%-34s n/a: not every answer has a calibrated confidence\n", "random, as good by confidence");
}

static void ledger_print_json(const minim_ledger_day *d) {
    printf("{\"day\":\"%s\",\"requests\":%llu,\"local\":%llu,\"remote\":%llu,\"cached\":%llu,\"failed\":%llu,"
           "\"private\":%llu,\"degraded\":%llu,\"over_budget\":%llu,\"unsettled\":%llu,"
           "\"remote_requests\":%llu,\"remote_calls\":%llu,\"remote_verdicts\":%llu,"
           "\"local_tokens\":%llu,\"remote_tokens\":%llu,\"unknown_costs\":%llu,\"cost\":%.10g,\"compared_cost\":%.10g,"
           "\"all_remote\":%.10g,\"random_same_share\":%.10g,\"random_same_quality\":",
           d->day, (unsigned long long)d->requests, (unsigned long long)d->local, (unsigned long long)d->remote,
           (unsigned long long)d->cached, (unsigned long long)d->failed, (unsigned long long)d->private_requests,
           (unsigned long long)d->degraded, (unsigned long long)d->over_budget, (unsigned long long)d->unsettled,
           (unsigned long long)d->remote_requests, (unsigned long long)d->remote_calls,
           (unsigned long long)d->remote_verdicts, (unsigned long long)d->local_tokens,
           (unsigned long long)d->remote_tokens, (unsigned long long)d->unknown_costs, d->cost, d->compared_cost,
           d->all_remote, d->random_same_share);
    if (d->has_quality)
        printf("%.10g}\n", d->random_same_quality);
    else
        puts("null}");
}

static int ledger_report(const ledger_settings *settings) {
    minim_ledger *ledger = NULL;
    minim_ledger_day *days = NULL;
    minim_error error = {.status = MINIM_OK};
    size_t n = 0;
    int code = ledger_open(settings, &ledger);
    if (code >= 0) return code;
    if (minim_ledger_report(ledger, ledger_since(settings), &days, &n, &error) != MINIM_OK) {
        minim_ledger_close(ledger);
        return tool_fail_error(&error);
    }
    if (!settings->json) {
        printf("%-10s %8s %7s %7s %7s %12s %12s %7s %12s\n", "day", "requests", "local", "remote", "cached", "cost",
               "all-remote", "saved", "random");
    }
    for (size_t i = 0; i < n; i++) {
        const minim_ledger_day *d = &days[i];
        if (settings->json) {
            ledger_print_json(d);
            continue;
        }
        printf("%-10s %8llu %7llu %7llu %7llu %12.6g %12.6g ", d->day, (unsigned long long)d->requests,
               (unsigned long long)d->local, (unsigned long long)d->remote, (unsigned long long)d->cached,
               d->compared_cost, d->all_remote);
        if (d->all_remote > 0)
            printf("%5.1f %% %12.6g\n", 100 * (d->all_remote - d->compared_cost) / d->all_remote, d->random_same_share);
        else
            printf("%7s %12.6g\n", "-", d->random_same_share);
    }
    if (!settings->json) ledger_print_total(&days[n - 1]);
    minim_ledger_days_free(days);
    minim_ledger_close(ledger);
    return EXIT_CODE_OK;
}

/* ---- log and export ---------------------------------------------------------------------------------------------- */

static int ledger_print_line(void *user, const char *json, size_t n) {
    (void)user;
    return fwrite(json, 1, n, stdout) != n || putchar('\n') == EOF;
}

static int ledger_print(const ledger_settings *settings, minim_ledger_view view,
                        int (*on_line)(void *user, const char *json, size_t n), void *user) {
    minim_ledger *ledger = NULL;
    minim_error error = {.status = MINIM_OK};
    int code = ledger_open(settings, &ledger);
    if (code >= 0) return code;
    minim_status status = minim_ledger_read(ledger, view, ledger_since(settings), on_line, user, &error);
    minim_ledger_close(ledger);
    if (status == MINIM_ERR_CANCELLED) return tool_output_failed();
    return status == MINIM_OK ? EXIT_CODE_OK : tool_fail_error(&error);
}

static int ledger_log(const ledger_settings *settings) {
    return ledger_print(settings, MINIM_LEDGER_LINES, ledger_print_line, NULL);
}

static int ledger_export(const ledger_settings *settings) {
    return ledger_print(settings, MINIM_LEDGER_PAIRS, ledger_print_line, NULL);
}

/* ---- replay ------------------------------------------------------------------------------------------------------ */

typedef struct ledger_replay_state {
    double threshold, gate_threshold; /* -1 = as it was */
    unsigned long long n, changed;
    int failed;
} ledger_replay_state;

/* The string behind "name": in a line that json_object() of SQLite made; inputs hold nothing to escape. */
static int ledger_string(const char *json, const char *name, char *buffer, size_t capacity) {
    char key[32];
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *at = strstr(json, key);
    if (!at) return -1;
    at += strlen(key);
    if (*at == '"') at++;
    size_t n = strcspn(at, "\",}");
    if (n >= capacity) return -1;
    memcpy(buffer, at, n);
    buffer[n] = 0;
    return 0;
}

/* Whether the gate would have taken another step on what it saw then; what the answer would be nobody knows. */
static int ledger_replay_gate(const char *id, const minim_route_policy *policy, const minim_route_state *state) {
    minim_route_step step = state->gate_step;
    minim_route_reason reason;
    if (state->gate_step == MINIM_ROUTE_STEP_WAIT) return 0;
    if (minim_route_watch(policy, &state->gate, &step, &reason) != MINIM_OK || step == state->gate_step) return 0;
    printf("%s: after %llu tokens the gate would say %s, said %s\n", id, (unsigned long long)state->gate.n_tokens,
           minim_route_step_name(step), minim_route_step_name(state->gate_step));
    return 1;
}

static int ledger_replay_line(void *user, const char *json, size_t n) {
    ledger_replay_state *replay = user;
    minim_error error = {.status = MINIM_OK};
    minim_route_policy policy;
    minim_route_features features;
    minim_route_state state;
    minim_route_decision d = {.size = sizeof d};
    char id[24], inputs[4096], route[32], reason[32];
    (void)n;
    if (ledger_string(json, "inputs", inputs, sizeof inputs) || ledger_string(json, "id", id, sizeof id) ||
        ledger_string(json, "route", route, sizeof route) || ledger_string(json, "reason", reason, sizeof reason) ||
        minim_route_inputs_read(inputs, &policy, &features, &state, &error)) {
        replay->failed = 1;
        tool_fail("a line of the ledger can not be replayed: %s", error.text[0] ? error.text : json);
        return 0;
    }
    if (replay->threshold >= 0) policy.threshold = replay->threshold;
    if (replay->gate_threshold >= 0) policy.gate_threshold = replay->gate_threshold;
    if (minim_route_decide(&policy, &features, &state, &d) != MINIM_OK) {
        replay->failed = 1;
        tool_fail("line %s of the ledger: no decision", id);
        return 0;
    }
    const char *now = d.action == MINIM_ROUTE_FAIL ? "null" : minim_route_name(d.route);
    int same = !strcmp(now, route) && !strcmp(minim_route_reason_name(d.reason), reason);
    replay->n++;
    replay->changed += !same || ledger_replay_gate(id, &policy, &state);
    if (!same) printf("%s: %s (%s), was %s (%s)\n", id, now, minim_route_reason_name(d.reason), route, reason);
    return 0;
}

/* 0.7 as a float is 0.69999998807: back to the digits that were typed. */
static double ledger_digits(float x) {
    return x < 0 ? -1 : rint((double)x * 1e6) / 1e6;
}

static int ledger_replay(const ledger_settings *settings) {
    ledger_replay_state replay = {.threshold = ledger_digits(settings->threshold),
                                  .gate_threshold = ledger_digits(settings->gate_threshold)};
    int code = ledger_print(settings, MINIM_LEDGER_INPUTS, ledger_replay_line, &replay);
    if (code != EXIT_CODE_OK) return code;
    printf("%llu decisions replayed, %llu would be different\n", replay.n, replay.changed);
    return replay.failed ? EXIT_CODE_FAILED : EXIT_CODE_OK;
}

#else

static int ledger_missing(const ledger_settings *settings) {
    (void)settings;
    return tool_fail_no_ledger();
}

#define ledger_report ledger_missing
#define ledger_log    ledger_missing
#define ledger_export ledger_missing
#define ledger_replay ledger_missing

#endif

/* ---- the subcommands --------------------------------------------------------------------------------------------- */

static int ledger_command(const option_usage *usage, const option *own, int (*run)(const ledger_settings *settings),
                          int argc, char **argv) {
    static const option none[] = {{0}};
    ledger_settings settings = {.threshold = -1, .gate_threshold = -1};
    option_list arguments = {0};
    const option_table tables[] = {{"ledger", ledger_options, &settings}, {"output", own ? own : none, &settings}, {0}};
    int code = options_parse(usage, tables, argc, argv, &arguments);
    if (code < 0) code = run(&settings);
    option_list_free(&arguments);
    return code;
}

int route_report(int argc, char **argv) {
    static const option_usage usage = {
        .command = "route report",
        .synopsis = "route report [OPTIONS]",
        .about = "What was asked, who answered and what it cost, by day (UTC), and what was saved against asking the\n"
                 "remote always and against a router that throws dice.",
        .epilogue =
            "Where the remote was not asked its price is an estimate: an answer of the local answer's length.\n"
            "\"as good by confidence\" believes the calibrated confidences, and that the remote is always right.",
    };
    return ledger_command(&usage, ledger_report_options, ledger_report, argc, argv);
}

int route_log(int argc, char **argv) {
    static const option_usage usage = {
        .command = "route log",
        .synopsis = "route log [OPTIONS]",
        .about = "Every line of the ledger as JSON, with the keys of OpenTelemetry's GenAI conventions. No content.",
    };
    return ledger_command(&usage, NULL, ledger_log, argc, argv);
}

int route_export(int argc, char **argv) {
    static const option_usage usage = {
        .command = "route export",
        .synopsis = "route export [OPTIONS]",
        .about =
            "Prompts and complete remote answers as JSON lines {\"messages\": [...]}, for fine-tuning. Only what was\n"
            "asked while ledger.content was true, and nothing private.",
    };
    return ledger_command(&usage, NULL, ledger_export, argc, argv);
}

int route_replay(int argc, char **argv) {
    static const option_usage usage = {
        .command = "route replay",
        .synopsis = "route replay [OPTIONS]",
        .about = "Makes every decision of the ledger again from what it saw then, and prints those that differ.",
    };
    return ledger_command(&usage, ledger_replay_options, ledger_replay, argc, argv);
}
