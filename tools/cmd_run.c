/* cmd_run.c: `minim run`: continues a text.
 *
 * The text is taken as it is, unless --chat makes it a user's message, which the model's chat format stands around. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "common.h"
#include "json.h"
#include "speculation.h"

typedef struct run_settings {
    tool_settings tool;
    tool_speculation speculation;
    const char *prompt, *file;
    const char *system, *format; /* with chat */
    const char *cache;           /* a file */
    int json, echo, n_logprobs, chat;
} run_settings;

#define RUN(field) offsetof(run_settings, field)

static const option run_options[] = {
    {"-p, --prompt", "TEXT", OPTION_STRING, RUN(prompt), 0, 0, "the text to continue"},
    {"-f, --file", "FILE", OPTION_STRING, RUN(file), 0, 0, "read it from a file, \"-\" is standard input"},
    {"--chat", NULL, OPTION_FLAG, RUN(chat), 0, 0, "answer the text instead: it is a user's message"},
    {"--chat-format, --chat-template", "NAME", OPTION_STRING, RUN(format), 0, 0,
     "--chat in this format instead of the file's own\n(\"help\" lists the names)"},
    {"-sys, --system-prompt", "TEXT", OPTION_STRING, RUN(system), 0, 0, "--chat with this system message before it"},
    {"--prompt-cache", "FILE", OPTION_STRING, RUN(cache), 0, 0,
     "begin with what this file has of the text, if it is\nthere, and leave all tokens of this run in it"},
    {"--echo", NULL, OPTION_FLAG, RUN(echo), 0, 0, "print the text before what follows it"},
    {"--json", NULL, OPTION_FLAG, RUN(json), 0, 0, "print one JSON object at the end"},
    {"--logprobs", "N", OPTION_INT, RUN(n_logprobs), 0, 64,
     "with --json: log-probability of every token\nand the N best at its place (default 0: none)"},
    {0},
};

static const option_usage run_usage = {
    .command = "run",
    .synopsis = "run [OPTIONS] [TEXT]",
    .about = "Continues a text and prints what follows. Greedy unless --temp says otherwise.\n"
             "The text is taken as it is; a model that was tuned to answer wants --chat.",
    .epilogue = "Without TEXT, -p and -f the text is read from standard input; one newline at its end is dropped.\n"
                "When that is a terminal or empty, the text is \"Once upon a time\", and is printed first.",
    .max_arguments = 1,
};

static const char run_default_prompt[] = "Once upon a time";

/* ---- the prompt -------------------------------------------------------------------------------------------------- */

/* Where the prompt comes from: the command line, a file, a pipe, or the default. Returns -1 or an exit code. */
static int run_read_prompt(run_settings *settings, const option_list *arguments, tool_bytes *prompt) {
    const char *text = arguments->n ? arguments->items[0] : settings->prompt;
    if ((arguments->n != 0) + (settings->prompt != NULL) + (settings->file != NULL) > 1) {
        return options_complain("run", "the text is given more than once (TEXT, -p, -f)");
    }
    if (!text && (settings->file || !isatty(STDIN_FILENO))) {
        int code = tool_read_file(settings->file ? settings->file : "-", prompt);
        if (code >= 0) return code;
        if (prompt->n > 0 && prompt->data[prompt->n - 1] == '\n') prompt->n--;
        if (settings->file || prompt->n > 0) return -1;
    }
    if (!text) {
        text = run_default_prompt;
        settings->echo = 1;
    }
    return tool_bytes_append(prompt, text, strlen(text)) ? EXIT_CODE_FAILED : -1;
}

/* BOS as the vocabulary asks. An EOS that it asks for at the end is left off: the text is to go on. */
static int run_tokenize(const minim_model *model, const tool_bytes *prompt, tool_tokens *tokens) {
    int code = tool_tokenize(model, prompt->data, prompt->n, MINIM_ADD_SPECIAL, tokens);
    if (code >= 0) return code;
    minim_model_info info = {.size = sizeof info};
    minim_model_get_info(model, &info);
    if (tokens->n > 1 && tokens->ids[tokens->n - 1] == info.eos) tokens->n--;
    if (tokens->n == 0) return tool_fail("the text is empty, and this vocabulary puts no token before it");
    return -1;
}

/* The text as a message. */
static int run_tokenize_chat(const run_settings *settings, const minim_model *model, tool_bytes *prompt,
                             tool_tokens *tokens) {
    if (prompt->n && memchr(prompt->data, 0, prompt->n)) return tool_fail("--chat: the text holds a NUL byte");
    if (tool_bytes_append(prompt, "", 1)) return EXIT_CODE_FAILED; /* a NUL behind it */
    prompt->n--;
    const minim_message messages[] = {{.role = "system", .content = settings->system},
                                      {.role = "user", .content = prompt->data}};
    const size_t skip = settings->system ? 0 : 1;
    minim_error error = {.status = MINIM_OK};
    minim_status status = MINIM_ERR_SPACE;
    for (int attempt = 0; attempt < 2 && status == MINIM_ERR_SPACE; attempt++) { /* the first one counts */
        if (attempt && tool_tokens_reserve(tokens, tokens->n)) return EXIT_CODE_FAILED;
        status = minim_chat_tokenize(model, settings->format, messages + skip, 2 - skip, tokens->ids, tokens->capacity,
                                     &tokens->n, &error);
    }
    if (status != MINIM_OK) return tool_fail_error(&error);
    return tokens->n ? -1 : tool_fail("the message makes no tokens");
}

/* A model that was tuned to answer continues a text, too, but that is rarely meant. */
static void run_hint(const run_settings *settings, const minim_model *model) {
    minim_model_info info = {.size = sizeof info};
    minim_model_get_info(model, &info);
    if (!settings->tool.quiet && !settings->chat && strcmp(info.chat_format, "raw") != 0)
        fputs("the text is taken as it is; --chat makes it a message that the model answers\n", stderr);
}

/* ---- the answer -------------------------------------------------------------------------------------------------- */

/* What the callbacks share. With --json everything is kept until the end, else text goes out as it comes. */
typedef struct run_answer {
    const run_settings *settings;
    const minim_model *model;
    tool_bytes text;
    tool_tokens tokens;
    char *logprobs; /* JSON, written through logprobs_file; NULL = not asked for */
    size_t logprobs_n;
    FILE *logprobs_file;
    int failed; /* a callback has failed and said why */
} run_answer;

static int run_on_text(void *user, const char *text, size_t n) {
    run_answer *answer = user;
    if (answer->settings->json) {
        answer->failed |= tool_bytes_append(&answer->text, text, n) != 0;
        return answer->failed || tool_interrupted();
    }
    fwrite(text, 1, n, stdout);
    return tool_flush() || tool_interrupted();
}

static void run_write_logprob(FILE *file, const minim_model *model, int32_t token, double logprob) {
    char piece[512];
    int first = 1;
    json_write_name(file, "token", &first);
    fprintf(file, "%d", (int)token);
    json_write_name(file, "text", &first);
    json_write_string(file, piece, tool_piece(model, token, piece, sizeof piece));
    json_write_name(file, "logprob", &first);
    json_write_number(file, logprob, 9);
}

static void run_write_event(run_answer *answer, const minim_token_event *event) {
    FILE *file = answer->logprobs_file;
    fputs(event->index ? ", {" : "{", file);
    run_write_logprob(file, answer->model, event->token, (double)event->logprob);
    fputs(", \"margin\": ", file);
    json_write_number(file, (double)event->margin, 9);
    fputs(", \"entropy\": ", file);
    json_write_number(file, (double)event->entropy, 9);
    fputs(", \"top\": [", file);
    for (int i = 0; i < event->n_top; i++) {
        fputs(i ? ", {" : "{", file);
        run_write_logprob(file, answer->model, event->top[i].token, (double)event->top[i].logprob);
        putc('}', file);
    }
    fputs("]}", file);
}

static int run_on_token(void *user, const minim_token_event *event) {
    run_answer *answer = user;
    if (answer->settings->json) {
        answer->failed |= tool_tokens_append(&answer->tokens, event->token) != 0;
        if (answer->logprobs_file) run_write_event(answer, event);
    }
    return answer->failed || tool_interrupted();
}

static int run_on_prefill(void *user, size_t done, size_t total) {
    (void)user, (void)done, (void)total;
    return tool_interrupted();
}

static void run_print_json(const run_answer *answer, const tool_bytes *prompt, double load_seconds,
                           const minim_result *result) {
    tool_rates rates = tool_result_rates(result);
    minim_model_info info = {.size = sizeof info};
    minim_model_get_info(answer->model, &info);
    int first = 1;
    putchar('{');
    json_write_name(stdout, "model", &first);
    json_write_string(stdout, info.name, strlen(info.name));
    json_write_name(stdout, "prompt", &first);
    json_write_string(stdout, prompt->data, prompt->n);
    json_write_name(stdout, "text", &first);
    json_write_string(stdout, answer->text.data, answer->text.n);
    json_write_name(stdout, "stop", &first);
    json_write_string(stdout, minim_stop_name(result->stop), strlen(minim_stop_name(result->stop)));
    json_write_name(stdout, "prompt_tokens", &first);
    printf("%zu", result->n_prompt);
    json_write_name(stdout, "generated_tokens", &first);
    printf("%zu", result->n_generated);
    const struct {
        const char *name;
        size_t value;
    } counts[] = {
        {"steps", result->n_steps},
        {"guessed_tokens", result->n_drafted},
        {"accepted_tokens", result->n_accepted},
        {"overruled_tokens", result->n_overruled},
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        json_write_name(stdout, counts[i].name, &first);
        printf("%zu", counts[i].value);
    }
    json_write_name(stdout, "tokens", &first);
    putchar('[');
    for (size_t i = 0; i < answer->tokens.n; i++) printf("%s%d", i ? ", " : "", (int)answer->tokens.ids[i]);
    putchar(']');
    if (answer->logprobs) {
        json_write_name(stdout, "logprobs", &first);
        printf("[%s]", answer->logprobs);
    }
    const struct {
        const char *name;
        double value;
    } timings[] = {
        {"load_seconds", load_seconds},
        {"first_token_seconds", result->first_token_seconds},
        {"prefill_seconds", result->prefill_seconds},
        {"prefill_tokens_per_second", rates.prefill},
        {"decode_seconds", result->decode_seconds},
        {"decode_tokens_per_second", rates.decode},
        {"decode_bytes_per_second", rates.bytes},
    };
    json_write_name(stdout, "timings", &first);
    putchar('{');
    first = 1;
    for (size_t i = 0; i < sizeof timings / sizeof *timings; i++) {
        json_write_name(stdout, timings[i].name, &first);
        json_write_number(stdout, timings[i].value, 6);
    }
    fputs("}}\n", stdout);
}

static int run_generate(run_answer *answer, minim_seq *seq, const tool_draft *draft, const tool_bytes *prompt,
                        const tool_tokens *tokens, double load_seconds) {
    const run_settings *settings = answer->settings;
    minim_generate_options options;
    tool_generate_settings(&settings->tool, &options);
    tool_speculation_settings(&settings->speculation, draft, &options);
    options.user = answer;
    options.n_top = settings->n_logprobs;
    options.on_text = run_on_text;
    options.on_token = run_on_token;
    options.on_prefill = run_on_prefill;
    if (settings->echo && !settings->json) {
        fwrite(prompt->data, 1, prompt->n, stdout);
        tool_flush();
    }
    minim_result result = {.size = sizeof result};
    minim_error error = {.status = MINIM_OK};
    tool_interrupt_target(seq);
    const size_t known = minim_seq_length(seq);
    minim_status status = minim_generate(seq, tokens->ids + known, tokens->n - known, &options, &result, &error);
    result.n_prompt += known, result.n_reused += known;
    tool_interrupt_target(NULL);
    if (answer->failed) return EXIT_CODE_FAILED;
    if (status != MINIM_OK) return tool_fail_error(&error);
    /* The stream's buffer is valid after fflush() and before the next write. */
    if (answer->logprobs_file && fflush(answer->logprobs_file)) return tool_fail("out of memory for log-probabilities");
    if (settings->json)
        run_print_json(answer, prompt, load_seconds, &result);
    else
        putchar('\n');
    if (!tool_flush() && !settings->tool.quiet) tool_print_statistics(load_seconds, &result);
    return tool_interrupted() ? EXIT_CODE_INTERRUPTED : EXIT_CODE_OK;
}

/* The sequence of --prompt-cache, cut to what it has in common with the text; a new one when there is no such file.
 * Returns -1 or an exit code. */
static int run_restore(const run_settings *settings, minim_engine *engine, const tool_tokens *tokens, minim_seq **seq) {
    minim_error error = {.status = MINIM_OK};
    if (!settings->cache || access(settings->cache, F_OK))
        return minim_seq_new(engine, seq, &error) == MINIM_OK ? -1 : tool_fail_error(&error);
    if (minim_seq_restore(engine, settings->cache, seq, &error) != MINIM_OK) return tool_fail_error(&error);
    const int32_t *old = minim_seq_tokens(*seq);
    size_t n = 0;
    /* The last token of the text is computed in any case: its logits are needed. */
    while (n < minim_seq_length(*seq) && n + 1 < tokens->n && old[n] == tokens->ids[n]) n++;
    minim_seq_truncate(*seq, n);
    return -1;
}

static int run_save(const run_settings *settings, minim_seq *seq) {
    minim_error error = {.status = MINIM_OK};
    if (!settings->cache || minim_seq_save(seq, settings->cache, &error) == MINIM_OK) return EXIT_CODE_OK;
    return tool_fail_error(&error);
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int run_with_model(const run_settings *settings, const minim_model *model, double load_seconds,
                          tool_bytes *prompt) {
    run_answer answer = {.settings = settings, .model = model};
    tool_tokens tokens = {0};
    minim_engine *engine = NULL;
    minim_seq *seq = NULL;
    tool_draft draft = {NULL};
    minim_engine_info info = {.size = sizeof info};
    int code =
        settings->chat ? run_tokenize_chat(settings, model, prompt, &tokens) : run_tokenize(model, prompt, &tokens);
    if (code < 0) run_hint(settings, model);
    if (code < 0) code = tool_new_engine(&settings->tool, model, &engine);
    if (code < 0) code = run_restore(settings, engine, &tokens, &seq);
    if (code < 0) minim_engine_get_info(engine, &info);
    if (code < 0) code = tool_new_draft(&settings->speculation, &settings->tool, info.n_ctx, &draft);
    if (code < 0 && settings->n_logprobs > 0) {
        answer.logprobs_file = open_memstream(&answer.logprobs, &answer.logprobs_n);
        if (!answer.logprobs_file) code = tool_fail("log-probabilities: %s", strerror(errno));
    }
    if (code < 0) code = run_generate(&answer, seq, &draft, prompt, &tokens, load_seconds);
    if (code == EXIT_CODE_OK) code = run_save(settings, seq);
    if (answer.logprobs_file) fclose(answer.logprobs_file);
    free(answer.logprobs);
    tool_bytes_free(&answer.text);
    tool_tokens_free(&answer.tokens);
    tool_tokens_free(&tokens);
    tool_free_draft(&draft);
    minim_seq_free(seq);
    minim_engine_free(engine);
    return code;
}

static int run_command(run_settings *settings, const option_list *arguments) {
    tool_bytes prompt = {0};
    minim_model *model = NULL;
    double load_seconds = 0;
    tool_catch_interrupt();
    int code = settings->n_logprobs && !settings->json ? options_complain("run", "--logprobs needs --json") : -1;
    settings->chat |= settings->system || settings->format;
    if (code < 0) code = tool_check_settings("run", &settings->tool);
    if (code < 0) code = tool_check_speculation("run", &settings->speculation);
    if (code < 0) code = tool_check_format("run", settings->format);
    if (code < 0) code = run_read_prompt(settings, arguments, &prompt);
    if (code < 0) code = tool_load_model(&settings->tool, MINIM_LOAD_ALL, &model, &load_seconds);
    if (code < 0) code = run_with_model(settings, model, load_seconds, &prompt);
    minim_model_free(model);
    tool_bytes_free(&prompt);
    return code;
}

int cmd_run(int argc, char **argv) {
    run_settings settings = {0};
    option_list arguments = {0};
    tool_settings_default(&settings.tool);
    const option_table tables[] = {
        {"text", run_options, &settings},
        {"model", tool_model_options, &settings.tool},
        {"generation", tool_sampling_options, &settings.tool},
        {"speculation", tool_speculation_options, &settings.speculation},
        {"engine", tool_engine_options, &settings.tool},
        {0},
    };
    int code = options_parse(&run_usage, tables, argc, argv, &arguments);
    if (code < 0) code = run_command(&settings, &arguments);
    option_list_free(&arguments);
    option_list_free(&settings.tool.stop);
    return code;
}
