/* route_explain.c: `minim route explain`: what the router would make of a prompt, without asking anybody. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "route.h"
#include "route_learn.h"

typedef struct explain_settings {
    const char *config, *model;
    int json, parts;
} explain_settings;

#define EXPLAIN(field) offsetof(explain_settings, field)

static const option explain_options[] = {
    {"--prompt-model", "FILE", OPTION_STRING, EXPLAIN(model), 0, 0,
     "what `minim route train` wrote (default:\nprompt_model of minim.json)"},
    {"--parts", "N", OPTION_INT, EXPLAIN(parts), 0, 64, "how many words to name (default 8)"},
    {"--config", "FILE", OPTION_STRING, EXPLAIN(config), 0, 0,
     "instead of ./minim.json or\n$XDG_CONFIG_HOME/minim/minim.json"},
    {"--json", NULL, OPTION_FLAG, EXPLAIN(json), 0, 0, "print one JSON object"},
    {0},
};

static const option_usage explain_usage = {
    .command = "route explain",
    .synopsis = "route explain [OPTIONS] PROMPT",
    .about = "Says what the router would do with a prompt before there is an answer, and why. Asks nobody.",
    .max_arguments = 1,
};

#ifdef MINIM_WITH_ROUTER

enum { EXPLAIN_MOST = 64 };

typedef struct explain_result {
    minim_route_decision decision;
    minim_route_prediction prediction;
    int has_prediction;
    unsigned is_private;
    minim_route_reason_part parts[EXPLAIN_MOST];
    size_t n_parts;
} explain_result;

/* The first decision, as minim_router_ask() makes it. */
static int explain_decide(const minim_router_config *config, explain_result *result, const char *prompt) {
    minim_route_policy policy;
    minim_message message = {"user", prompt};
    minim_route_features features = {.size = sizeof features};
    minim_route_state state = {.size = sizeof state};
    int remote_available = config->mode != MINIM_ROUTE_MODE_LOCAL && config->base_url[0];
    minim_router_config_policy(config, remote_available, config->calibration[0] != 0, &policy);
    result->is_private = minim_private_find(prompt, strlen(prompt), config->private_detect);
    state.is_private = (int)result->is_private;
    features.complexity = minim_route_complexity(&message, 1);
    features.has_prompt_score = result->has_prediction && !result->prediction.abstained;
    features.prompt_score = features.has_prompt_score ? result->prediction.score : 0;
    result->decision.size = sizeof result->decision;
    minim_status status = minim_route_decide(&policy, &features, &state, &result->decision);
    return status ? tool_fail("no decision: %s", minim_status_name(status)) : -1;
}

static void explain_print_json(const explain_result *r, const char *prompt) {
    const minim_route_prediction *p = &r->prediction;
    int first = 1;
    putchar('{');
    json_write_name(stdout, "route", &first);
    printf("\"%s\"", minim_route_name(r->decision.route));
    json_write_name(stdout, "reason", &first);
    printf("\"%s\"", minim_route_reason_name(r->decision.reason));
    json_write_name(stdout, "private", &first);
    fputs(r->is_private ? "true" : "false", stdout);
    if (r->has_prediction) {
        json_write_name(stdout, "weak", &first);
        json_write_number(stdout, p->weak, 9);
        json_write_name(stdout, "strong", &first);
        json_write_number(stdout, p->strong, 9);
        json_write_name(stdout, "prompt_score", &first);
        json_write_number(stdout, p->score, 9);
        json_write_name(stdout, "familiarity", &first);
        json_write_number(stdout, p->familiarity, 9);
        json_write_name(stdout, "abstained", &first);
        fputs(p->abstained ? "true" : "false", stdout);
        json_write_name(stdout, "parts", &first);
        putchar('[');
        for (size_t i = 0; i < r->n_parts; i++) {
            int inner = 1;
            fputs(i ? ",{" : "{", stdout);
            json_write_name(stdout, "text", &inner);
            json_write_string(stdout, prompt + r->parts[i].start, r->parts[i].length);
            json_write_name(stdout, "weak", &inner);
            json_write_number(stdout, r->parts[i].weak, 6);
            json_write_name(stdout, "strong", &inner);
            json_write_number(stdout, r->parts[i].strong, 6);
            putchar('}');
        }
        putchar(']');
    }
    puts("}");
}

/* Bytes of a prompt on one line of a terminal. */
static void explain_print_text(const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) putchar((unsigned char)text[i] < 0x20 || text[i] == 0x7f ? ' ' : text[i]);
}

static void explain_print(const explain_result *r, const char *prompt) {
    char line[512];
    const minim_route_prediction *p = &r->prediction;
    minim_route_describe(&r->decision, line, sizeof line);
    char *rest = strchr(line, ';'); /* costs and times of an answer that there is not */
    if (rest) *rest = 0;
    puts(line);
    if (r->is_private) puts("It looks private: nothing leaves this machine.");
    if (!r->has_prediction) {
        puts(
            "No trained model of prompts is configured (\"prompt_model\", --prompt-model): nothing is known before the "
            "answer.");
        return;
    }
    printf("P(right): local %.3f, remote %.3f; prompt score %.3f; familiarity %.3f%s\n", p->weak, p->strong, p->score,
           p->familiarity, p->abstained ? "\nABSTAINS: this is unlike the prompts it learned from" : "");
    for (size_t i = 0; i < r->n_parts; i++) {
        printf("  %+.3f  local %+.3f, remote %+.3f  ", r->parts[i].strong - r->parts[i].weak, r->parts[i].weak,
               r->parts[i].strong);
        explain_print_text(prompt + r->parts[i].start, r->parts[i].length);
        putchar('\n');
    }
}

static int explain_run(const explain_settings *settings, const char *prompt) {
    minim_router_config config;
    route_learned learned = {0};
    explain_result result;
    minim_error error = {.status = MINIM_OK};
    memset(&result, 0, sizeof result);
    minim_router_config_default(&config);
    if (minim_router_config_load(&config, settings->config, &error)) return tool_fail_error(&error);
    if (config.mode != MINIM_ROUTE_MODE_LOCAL && minim_router_config_environment(&config, &error))
        return tool_fail_error(&error);
    if (settings->model) {
        if (strlen(settings->model) >= sizeof config.prompt_model)
            return tool_fail("--prompt-model: the path is too long");
        memcpy(config.prompt_model, settings->model, strlen(settings->model) + 1);
    }
    int code = route_load_learned(&config, &learned);
    if (code < 0 && learned.prompt_model) {
        result.prediction.size = sizeof result.prediction;
        result.has_prediction = 1;
        if (minim_route_predict(learned.prompt_model, prompt, strlen(prompt), &result.prediction))
            code = tool_fail("out of memory for a score");
        result.n_parts =
            minim_route_explain(learned.prompt_model, prompt, strlen(prompt), result.parts, (size_t)settings->parts);
    }
    if (code < 0) code = explain_decide(&config, &result, prompt);
    if (code < 0 && settings->json)
        explain_print_json(&result, prompt);
    else if (code < 0)
        explain_print(&result, prompt);
    route_free_learned(&learned);
    return code < 0 ? EXIT_CODE_OK : code;
}

#else

static int explain_run(const explain_settings *settings, const char *prompt) {
    (void)settings, (void)prompt;
    return tool_fail("this minim was built without libcurl and jansson");
}

#endif

int route_explain(int argc, char **argv) {
    explain_settings settings = {.parts = 8};
    option_list arguments = {0};
    const option_table tables[] = {{"prompt", explain_options, &settings}, {0}};
    int code = options_parse(&explain_usage, tables, argc, argv, &arguments);
    const char *prompt = code < 0 ? route_one_file("route explain", &arguments, "a prompt") : NULL;
    if (code < 0) code = prompt ? explain_run(&settings, prompt) : EXIT_CODE_USAGE;
    option_list_free(&arguments);
    return code;
}
