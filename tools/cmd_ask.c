/* cmd_ask.c: `minim ask`: one question, answered by the local model or by a remote one (router/README.md).
 *
 * Without libcurl and jansson the router has no remote, no minim.json and no JSON; `--route local` still works. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../router/minim_router.h"
#include "commands.h"
#include "common.h"
#include "route_learn.h"

typedef struct ask_settings {
    tool_settings tool;
    const char *prompt, *system, *format, *route, *config, *remote_url, *remote_model, *ledger, *calibration;
    float threshold; /* -1 = not given */
    int json, is_private;
} ask_settings;

#define ASK(field) offsetof(ask_settings, field)

static const option ask_options[] = {
    {"-p, --prompt", "TEXT", OPTION_STRING, ASK(prompt), 0, 0, "the question"},
    {"-sys, --system-prompt, --system", "TEXT", OPTION_STRING, ASK(system), 0, 0,
     "what the model is told before the question"},
    {"--chat-format, --chat-template", "NAME", OPTION_STRING, ASK(format), 0, 0,
     "chat format of the local model instead of the\nfile's own (\"help\" lists the names)"},
    {"--json", NULL, OPTION_FLAG, ASK(json), 0, 0, "print one JSON object at the end"},
    {0},
};

static const option ask_route_options[] = {
    {"--route", "cascade|race|context|hybrid|local|remote|only_remote", OPTION_CHOICE, ASK(route), 0, 0,
     "cascade: local first, remote when its score is\ntoo low (default); race: both, the first good\none; context: by "
     "rules over the question;\nhybrid: the remote writes what the local model is\nunsure of; "
     "local: nothing leaves this machine; remote:\nremote first, local when it fails;\nonly_remote: never local"},
    {"--threshold", "X", OPTION_FLOAT, ASK(threshold), 0, 1,
     "lowest score of a local answer that stands\n(default 0.5; a raw score unless there is a\ncalibration, see "
     "router/README.md)"},
    {"--remote-url", "URL", OPTION_STRING, ASK(remote_url), 0, 0,
     "OpenAI-compatible server, up to and including\n/v1 (default: OPENAI_BASE_URL)"},
    {"--remote-model", "NAME", OPTION_STRING, ASK(remote_model), 0, 0, "its model (default: OPENAI_MODEL)"},
    {"--config", "FILE", OPTION_STRING, ASK(config), 0, 0,
     "instead of ./minim.json or\n$XDG_CONFIG_HOME/minim/minim.json"},
    {"--private", NULL, OPTION_FLAG, ASK(is_private), 0, 0,
     "this question may not leave the machine,\nwhatever the route"},
    {"--calibration", "FILE", OPTION_STRING, ASK(calibration), 0, 0,
     "what `minim route calibrate` wrote: the threshold\nbecomes the least P(right)"},
    {"--ledger", "FILE", OPTION_STRING, ASK(ledger), 0, 0,
     "book the decision here (default: ledger.path of\nminim.json; see minim route report)"},
    {0},
};

static const option_usage ask_usage = {
    .command = "ask",
    .synopsis = "ask [OPTIONS] [QUESTION]",
    .about = "Answers one question: the local model, or a remote one when the local answer scores too low.",
    .epilogue =
        "Without QUESTION and -p it is read from standard input. The API key is read from OPENAI_API_KEY or from\n"
        "where minim.json says. At most 256 tokens unless -n says otherwise.\n\n"
        "exit codes:\n"
        "  0    the answer is on stdout\n"
        "  1    no answer, or a degraded one: the remote was wanted and failed, or none is configured for\n"
        "       --route remote, and the local answer is on stdout; one line on stderr says why\n"
        "  2    the command line is wrong\n"
        "  130  ended by Ctrl-C",
    .max_arguments = 1,
};

/* ---- what is asked ----------------------------------------------------------------------------------------------- */

/* The question from the command line or standard input. Returns -1 or an exit code. */
static int ask_read_prompt(const ask_settings *settings, const option_list *arguments, tool_bytes *prompt) {
    const char *text = arguments->n ? arguments->items[0] : settings->prompt;
    if (arguments->n && settings->prompt) return options_complain("ask", "the question is given twice (QUESTION, -p)");
    if (text) {
        if (tool_bytes_append(prompt, text, strlen(text))) return EXIT_CODE_FAILED;
    } else if (isatty(STDIN_FILENO)) {
        return options_complain("ask", "expected a question");
    } else {
        int code = tool_read_file("-", prompt);
        if (code >= 0) return code;
        if (prompt->n > 0 && prompt->data[prompt->n - 1] == '\n') prompt->n--;
    }
    if (!prompt->n) return tool_fail("the question is empty");
    if (memchr(prompt->data, 0, prompt->n)) {
        return tool_fail("the question holds a NUL byte at %zu, expected text",
                         (size_t)((char *)memchr(prompt->data, 0, prompt->n) - prompt->data));
    }
    return tool_bytes_append(prompt, "", 1) ? EXIT_CODE_FAILED : -1; /* messages are NUL-terminated */
}

/* ---- the configuration ------------------------------------------------------------------------------------------- */

/* Returns -1 or an exit code. */
static int ask_name_file(const char *option, const char *path, char *field, size_t capacity) {
    if (!path) return -1;
    if (strlen(path) >= capacity) return tool_fail("%s: the path is too long", option);
    memcpy(field, path, strlen(path) + 1);
    return -1;
}

static int ask_name_files(const ask_settings *settings, minim_router_config *config) {
    int code = ask_name_file("--ledger", settings->ledger, config->ledger, sizeof config->ledger);
    if (code >= 0) return code;
    return ask_name_file("--calibration", settings->calibration, config->calibration, sizeof config->calibration);
}

#ifdef MINIM_WITH_ROUTER

#define ASK_REMOTE minim_router_remote_http

/* "race", "context" and "hybrid" are plans of the mode that prefers the device. */
static void ask_route(const char *word, minim_router_config *config) {
    config->plan = MINIM_ROUTE_PLAN_CASCADE;
    if (!strcmp(word, "race")) config->plan = MINIM_ROUTE_PLAN_RACE;
    if (!strcmp(word, "context")) config->plan = MINIM_ROUTE_PLAN_CONTEXT;
    if (!strcmp(word, "hybrid")) config->plan = MINIM_ROUTE_PLAN_HYBRID;
    if (minim_route_mode_parse(word, &config->mode)) config->mode = MINIM_ROUTE_MODE_CASCADE;
}

/* With a key in memory (and in libcurl's buffers) there is no core dump. A limit of one byte holds for a pipe, too. */
static void ask_protect_key(const minim_router_config *config) {
    struct rlimit limit;
    int has_key = config->api_key[0] != 0;
    for (int i = 0; i < MINIM_ROUTER_FALLBACKS; i++)
        has_key |= config->fallbacks[i].api_key[0] || config->context_fallbacks[i].api_key[0];
    if (!has_key || getrlimit(RLIMIT_CORE, &limit)) return;
    limit.rlim_cur = limit.rlim_max ? 1 : 0;
    setrlimit(RLIMIT_CORE, &limit);
}

/* File, then environment, then flags; in the mode "local" what concerns the remote is not even looked at. Returns -1 or
 * an exit code. */
static int ask_configure(const ask_settings *settings, minim_router_config *config) {
    minim_error error = {.status = MINIM_OK};
    minim_status status = minim_router_config_load(config, settings->config, &error);
    if (settings->route) ask_route(settings->route, config);
    /* 0.7 as a float is 0.69999998807: back to the digits that were typed. */
    if (settings->threshold >= 0) config->threshold = rint((double)settings->threshold * 1e6) / 1e6;
    if (status == MINIM_OK && config->mode != MINIM_ROUTE_MODE_LOCAL) {
        status = minim_router_config_environment(config, &error);
        if (status == MINIM_OK) {
            status = minim_router_config_remote(config, settings->remote_url, settings->remote_model, &error);
        }
        if (status == MINIM_OK) ask_protect_key(config);
        if (status == MINIM_OK && config->base_url[0]) status = minim_router_remote_check(config, &error);
    }
    return status == MINIM_OK ? ask_name_files(settings, config) : tool_fail_error(&error);
}

static int ask_print_json(const minim_router_answer *answer) {
    char *json = NULL;
    minim_error error = {.status = MINIM_OK};
    if (minim_router_answer_json(answer, &json, &error) != MINIM_OK) return tool_fail_error(&error);
    puts(json);
    minim_router_text_free(json);
    return -1;
}

#else

#define ASK_REMOTE NULL

static int ask_configure(const ask_settings *settings, minim_router_config *config) {
    static const char missing[] = "this minim was built without libcurl and jansson (Debian: libcurl4-openssl-dev, "
                                  "libjansson-dev)";
    if (!settings->route || strcmp(settings->route, "local") != 0) {
        return tool_fail("%s: found --route %s, expected --route local", missing,
                         settings->route ? settings->route : "cascade");
    }
    if (settings->json || settings->config) return tool_fail("%s: --json and --config need them", missing);
    config->mode = MINIM_ROUTE_MODE_LOCAL;
    if (settings->threshold >= 0) config->threshold = rint((double)settings->threshold * 1e6) / 1e6;
    return ask_name_files(settings, config);
}

static int ask_print_json(const minim_router_answer *answer) {
    (void)answer;
    return tool_fail("built without JSON");
}

#endif

/* ---- the local model --------------------------------------------------------------------------------------------- */

/* Loaded when it is needed: with --route remote that is only when the remote has failed. */
typedef struct ask_local {
    const ask_settings *settings;
    minim_model *model;
    minim_engine *engine;
    minim_router_backend backend; /* of the engine */
    minim_model *words;           /* only its tokenizer, when all of it is not needed */
    double load_seconds;
} ask_local;

/* Returns -1, or the exit code after a message. */
static int ask_load(ask_local *local) {
    minim_error error = {.status = MINIM_OK};
    if (local->backend.chat) return -1;
    int code = -1;
    if (!local->model)
        code = tool_load_model(&local->settings->tool, MINIM_LOAD_ALL, &local->model, &local->load_seconds);
    if (code < 0 && !local->engine) code = tool_new_engine(&local->settings->tool, local->model, &local->engine);
    if (code < 0 && minim_router_local(local->model, local->engine, local->settings->format, &local->backend, &error)) {
        code = tool_fail_error(&error);
    }
    return code;
}

static minim_status ask_local_chat(void *state, const minim_router_request *request, const minim_router_sink *sink,
                                   minim_router_reply *reply, minim_error *error) {
    ask_local *local = state;
    if (ask_load(local) >= 0) { /* it has said why */
        minim_status status = tool_interrupted() ? MINIM_ERR_CANCELLED : MINIM_ERR_IO;
        if (error) *error = (minim_error){.status = status, .text = "it can not be loaded"};
        return status;
    }
    return local->backend.chat(local->backend.state, request, sink, reply, error);
}

/* For a server that does not say how many tokens there were. A race asks from its own thread, but not before the local
 * model is there. */
static uint64_t ask_local_count(void *state, const char *text, size_t n_bytes) {
    ask_local *local = state;
    minim_error error;
    size_t n = 0;
    if (!local->model && !local->words)
        tool_try_load_model(&local->settings->tool, MINIM_LOAD_VOCAB, &local->words, NULL, &error);
    const minim_model *model = local->model ? local->model : local->words;
    minim_status status = model ? minim_tokenize(model, text, n_bytes, 0, NULL, 0, &n, &error) : MINIM_ERR_IO;
    return status == MINIM_OK || status == MINIM_ERR_SPACE ? n : 0;
}

static void ask_local_free(ask_local *local) {
    minim_model_free(local->words);
    if (local->backend.free) local->backend.free(local->backend.state);
    minim_engine_free(local->engine);
    minim_model_free(local->model);
}

/* ---- what is shown ----------------------------------------------------------------------------------------------- */

typedef struct ask_screen {
    int json, show_progress;
    int has_progress; /* there is a progress line on the terminal */
    int has_text;     /* text of an answer is on the screen */
    int closed;       /* nobody reads standard output any more */
    double last;      /* when the progress line was written */
} ask_screen;

static void ask_clear_progress(ask_screen *screen) {
    if (screen->has_progress) fputs("\r                                        \r", stderr);
    screen->has_progress = 0;
}

static int ask_on_text(void *user, minim_route route, const char *text, size_t n) {
    ask_screen *screen = user;
    (void)route;
    if (screen->json) return tool_interrupted();
    ask_clear_progress(screen);
    screen->has_text = 1;
    fwrite(text, 1, n, stdout);
    screen->closed = tool_flush() != 0;
    return screen->closed || tool_interrupted();
}

/* A stream broke off. What is on the screen stays there, so it has to be told apart from what follows. */
static void ask_on_discard(void *user, const char *reason) {
    ask_screen *screen = user;
    if (screen->json) return;
    fputs("\n\n", stdout);
    tool_flush();
    screen->has_text = 0;
    fprintf(stderr, "minim: the answer above broke off and does not count (%s)\n", reason);
}

static int ask_on_progress(void *user, minim_route route, uint64_t n_tokens) {
    ask_screen *screen = user;
    double now = tool_seconds();
    if (screen->show_progress && !screen->has_text && now - screen->last > 0.1) {
        fprintf(stderr, "\r%s: %llu tokens ...", route == MINIM_ROUTE_LOCAL ? "local model" : "remote",
                (unsigned long long)n_tokens);
        screen->has_progress = 1;
        screen->last = now;
    }
    return tool_interrupted();
}

/* The route line under the answer: always when the answer is degraded. */
static void ask_print_line(const ask_settings *settings, const minim_route_decision *decision) {
    char line[1024];
    if (settings->tool.quiet && !decision->degraded) return;
    minim_route_describe(decision, line, sizeof line);
    fprintf(stderr, "%s\n", line);
}

/* How fast the local model was; its reply counts the time to the first token as the prompt's. */
static void ask_print_statistics(const ask_local *local, const minim_route_usage *usage) {
    minim_model_info info = {.size = sizeof info};
    minim_result result = {.size = sizeof result,
                           .n_prompt = usage->prompt_tokens,
                           .n_generated = usage->completion_tokens,
                           .prefill_seconds = usage->first_token_seconds,
                           .first_token_seconds = usage->first_token_seconds,
                           .decode_seconds = usage->seconds - usage->first_token_seconds};
    if (minim_model_get_info(local->model, &info) || !result.n_generated) return;
    result.decode_bytes = (result.n_generated - 1) * info.step_bytes;
    tool_print_statistics(local->load_seconds, &result);
}

static int ask_print_answer(const ask_settings *settings, const ask_local *local, const minim_router_answer *answer) {
    int code = -1;
    if (settings->json)
        code = ask_print_json(answer);
    else
        putchar('\n');
    if (answer->ledger_error) fprintf(stderr, "minim: %s\n", answer->ledger_error);
    if (code >= 0 || tool_flush()) return code < 0 ? EXIT_CODE_OK : code; /* main() knows about standard output */
    ask_print_line(settings, answer->decision);
    if (answer->local && !settings->tool.quiet) ask_print_statistics(local, &answer->decision->local);
    return answer->decision->degraded ? EXIT_CODE_FAILED : EXIT_CODE_OK;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

/* What is sent to the remote as well is what was asked for: servers are particular about these. */
static void ask_sampling(const ask_settings *settings, minim_router_request *request) {
    minim_sampling sampling = settings->tool.sampling;
    if (sampling.temperature >= 0)
        request->send |= MINIM_ROUTER_SEND_TEMPERATURE;
    else
        sampling.temperature = request->sampling.temperature;
    if (sampling.top_p >= 0)
        request->send |= MINIM_ROUTER_SEND_TOP_P;
    else
        sampling.top_p = request->sampling.top_p;
    if (sampling.seed) request->send |= MINIM_ROUTER_SEND_SEED;
    request->sampling = sampling;
}

static int ask_with_router(const ask_settings *settings, const ask_local *local, minim_router *router,
                           const char *prompt) {
    minim_message messages[2] = {{"system", settings->system}, {"user", prompt}};
    minim_router_request request;
    minim_router_request_default(&request);
    request.messages = settings->system ? messages : messages + 1;
    request.n_messages = settings->system ? 2 : 1;
    request.max_tokens = settings->tool.n_predict < 0 ? 0 : settings->tool.n_predict;
    request.stop = settings->tool.stop.items;
    request.n_stop = settings->tool.stop.n;
    request.is_private = settings->is_private;
    ask_sampling(settings, &request);
    ask_screen screen = {.json = settings->json, .show_progress = !settings->tool.quiet && isatty(STDERR_FILENO)};
    minim_router_callbacks callbacks;
    minim_router_callbacks_default(&callbacks);
    callbacks.user = &screen;
    callbacks.on_text = ask_on_text;
    callbacks.on_discard = ask_on_discard;
    callbacks.on_progress = ask_on_progress;
    minim_router_answer *answer = NULL;
    minim_error error = {.status = MINIM_OK};
    minim_status status = minim_router_ask(router, &request, &callbacks, &answer, &error);
    ask_clear_progress(&screen);
    if (status == MINIM_OK) {
        int code = ask_print_answer(settings, local, answer);
        minim_router_answer_free(answer);
        return code;
    }
    if (screen.closed) return EXIT_CODE_OK; /* `| head -1` has what it wanted */
    if (screen.has_text) putchar('\n');
    return tool_fail_error(&error);
}

#ifdef MINIM_WITH_LEDGER

/* Returns -1, or the exit code after a message. */
static int ask_open_ledger(const minim_router_config *config, minim_ledger **ledger) {
    minim_error error = {.status = MINIM_OK};
    if (!config->ledger[0] || minim_ledger_open(config->ledger, ledger, &error) == MINIM_OK) return -1;
    return tool_fail_error(&error);
}

static void ask_close_ledger(minim_ledger *ledger) {
    minim_ledger_close(ledger);
}

#else

static int ask_open_ledger(const minim_router_config *config, minim_ledger **ledger) {
    (void)ledger;
    if (!config->ledger[0]) return -1;
    return tool_fail_no_ledger();
}

static void ask_close_ledger(minim_ledger *ledger) {
    (void)ledger;
}

#endif

/* Names the local model in the keys of the cache: the file's date besides what it says about itself, which two
 * fine-tunings may have in common. "" when it can not be told. */
static void ask_identity(const ask_local *local, char *identity, size_t n) {
    const char *path = local->settings->tool.model;
    struct stat info;
    char model[65] = "";
    identity[0] = 0;
    if (path && stat(path, &info)) return;
    if (local->model && minim_router_identity(local->model, model, NULL) != MINIM_OK) return;
    if (path)
        snprintf(identity, n, "%s %lld %lld.%09ld", model, (long long)info.st_size, (long long)info.st_mtim.tv_sec,
                 info.st_mtim.tv_nsec);
    else
        snprintf(identity, n, "%s built-in", model);
}

static int ask_with_config(const ask_settings *settings, const minim_router_config *config, const char *prompt) {
    ask_local local = {.settings = settings};
    minim_router_backend backend = {.state = &local, .chat = ask_local_chat, .count = ask_local_count};
    minim_router_options options;
    minim_router *router = NULL;
    minim_ledger *ledger = NULL;
    route_learned learned = {0};
    minim_error error = {.status = MINIM_OK};
    char identity[256];
    minim_router_options_default(&options);
    options.config = config;
    options.local = &backend;
    if (config->mode != MINIM_ROUTE_MODE_LOCAL) options.remote = ASK_REMOTE;
    int remote_first = config->mode == MINIM_ROUTE_MODE_ONLY_REMOTE ||
                       (config->mode == MINIM_ROUTE_MODE_REMOTE && config->base_url[0]);
    int code = ask_open_ledger(config, &ledger);
    if (code < 0) code = route_load_learned(config, &learned);
    if (code < 0 && !remote_first) code = ask_load(&local);
    ask_identity(&local, identity, sizeof identity);
    options.ledger = ledger;
    options.calibration = learned.calibration;
    options.prompt_model = learned.prompt_model;
    options.local_identity = identity;
    if (code < 0 && minim_router_new(&options, &router, &error) != MINIM_OK) code = tool_fail_error(&error);
    if (code < 0) code = ask_with_router(settings, &local, router, prompt);
    minim_router_free(router);
    ask_close_ledger(ledger);
    route_free_learned(&learned);
    ask_local_free(&local);
    return code;
}

static int ask_command(const ask_settings *settings, const option_list *arguments) {
    tool_bytes prompt = {0};
    minim_router_config config;
    minim_router_config_default(&config);
    tool_catch_interrupt();
    int code = tool_check_format("ask", settings->format);
    if (code < 0) code = tool_check_settings("ask", &settings->tool);
    if (code < 0) code = ask_configure(settings, &config);
    if (code < 0) code = ask_read_prompt(settings, arguments, &prompt);
    if (code < 0) code = ask_with_config(settings, &config, prompt.data);
    tool_bytes_free(&prompt);
    return code;
}

int cmd_ask(int argc, char **argv) {
    ask_settings settings = {.threshold = -1};
    option_list arguments = {0};
    tool_settings_default(&settings.tool);
    settings.tool.n_predict = 256;
    settings.tool.sampling.temperature = settings.tool.sampling.top_p = -1; /* not given */
    const option_table tables[] = {
        {"question", ask_options, &settings},
        {"router", ask_route_options, &settings},
        {"model", tool_model_options, &settings.tool},
        {"generation", tool_sampling_options, &settings.tool},
        {"engine", tool_engine_options, &settings.tool},
        {0},
    };
    int code = options_parse(&ask_usage, tables, argc, argv, &arguments);
    if (code < 0) code = ask_command(&settings, &arguments);
    option_list_free(&arguments);
    option_list_free(&settings.tool.stop);
    return code;
}
