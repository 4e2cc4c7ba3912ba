/* route_collect.c: `minim route collect`: lets the local model answer prompts and writes down what its sampler saw. */
#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"
#include "route.h"
#include "route_learn.h"

typedef struct collect_settings {
    tool_settings tool;
    const char *output, *match, *format, *pattern;
    int samples;
    float sample_temperature;
} collect_settings;

#define COLLECT(field) offsetof(collect_settings, field)

static const option collect_options[] = {
    {"-o, --output", "FILE", OPTION_STRING, COLLECT(output), 0, 0, "where the answers go (default: standard output)"},
    {"--match", "exact|start|contains", OPTION_CHOICE, COLLECT(match), 0, 0,
     "when an answer is right: it is the text of the\ncolumn expect, starts with it or contains it\n(default exact; "
     "white space around does not count)"},
    {"--samples", "K", OPTION_INT, COLLECT(samples), 2, 16,
     "answer K times, at random: the score is the share\nthat agrees with the most common answer, which is\nthe answer "
     "(for calibrate --method self_consistency)"},
    {"--sample-temp", "T", OPTION_FLOAT, COLLECT(sample_temperature), 0.01, 5,
     "temperature of the samples (default 0.7)"},
    {"--sample-pattern", "REGEX", OPTION_STRING, COLLECT(pattern), 0, 0,
     "what of the samples has to agree: the last match\n(default: everything)"},
    {"--chat-format, --chat-template", "NAME", OPTION_STRING, COLLECT(format), 0, 0,
     "chat format of the model instead of the file's"},
    {0},
};

static const option_usage collect_usage = {
    .command = "route collect",
    .synopsis = "route collect [OPTIONS] PROMPTS.tsv",
    .about = "Lets the local model answer prompts, for `minim route calibrate`.",
    .epilogue = "PROMPTS.tsv has a header line with the column prompt, and expect where there is one right answer. "
                "Written are\n"
                "prompt, answer, expect, correct (empty without expect: judge the answer and write 0 or 1), model, "
                "quantisation,\n"
                "score, local_tokens and the signals. Answers are greedy unless there are --samples. At most 256 "
                "tokens unless -n says otherwise.",
    .max_arguments = 1,
};

static int collect_on_text(void *user, const char *text, size_t n_bytes) {
    return tool_interrupted() || tool_bytes_append(user, text, n_bytes);
}

static int collect_on_progress(void *user, uint64_t n_tokens) {
    (void)user, (void)n_tokens;
    return tool_interrupted();
}

/* A field of a line: what would end it is escaped. */
static void collect_write_text(FILE *file, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        switch (text[i]) {
        case '\t': fputs("\\t", file); break;
        case '\n': fputs("\\n", file); break;
        case '\r': fputs("\\r", file); break;
        case '\\': fputs("\\\\", file); break;
        case 0: break;
        default: putc(text[i], file);
        }
    }
}

static void collect_trim(const char **text, size_t *n) {
    while (*n && strchr(" \t\r\n", **text)) ++*text, --*n;
    while (*n && strchr(" \t\r\n", (*text)[*n - 1])) --*n;
}

static int collect_is_right(const char *match, const char *answer, size_t n, const char *expect) {
    size_t m = strlen(expect);
    collect_trim(&answer, &n);
    collect_trim(&expect, &m);
    if (match && !strcmp(match, "contains")) return memmem(answer, n, expect, m) != NULL;
    if (match && !strcmp(match, "start")) return n >= m && !memcmp(answer, expect, m);
    return n == m && !memcmp(answer, expect, m);
}

static void collect_write(FILE *file, const char *match, const minim_route_label *row, const tool_bytes *answer,
                          const minim_router_reply *reply) {
    const char *text = answer->data ? answer->data : "";
    int right = row->expect[0] && collect_is_right(match, text, answer->n, row->expect);
    double score = reply->has_agreement ? reply->agreement
                   : reply->n_logprobs  ? exp(reply->sum_logprob / (double)reply->n_logprobs)
                                        : 0;
    collect_write_text(file, row->prompt, row->n_prompt);
    putc('\t', file);
    collect_write_text(file, text, answer->n);
    putc('\t', file);
    collect_write_text(file, row->expect, strlen(row->expect));
    fprintf(file, "\t%s\t", row->expect[0] ? right ? "1" : "0" : "");
    collect_write_text(file, reply->model, strlen(reply->model));
    putc('\t', file);
    collect_write_text(file, reply->quantisation, strlen(reply->quantisation));
    fprintf(file, "\t%.9g\t%llu", score > 0 ? score < 1 ? score : 1 : 0,
            (unsigned long long)reply->usage.completion_tokens);
    for (int i = 0; i < MINIM_ROUTE_N_SIGNALS; i++) {
        if (reply->has_signals)
            fprintf(file, "\t%.9g", reply->signals[i]);
        else
            putc('\t', file);
    }
    putc('\n', file);
}

static int collect_answers(const collect_settings *settings, const route_labels *labels, minim_router_backend *backend,
                           const tool_output *output) {
    FILE *file = output->file;
    tool_bytes answer = {0};
    int code = -1;
    fputs("prompt\tanswer\texpect\tcorrect\tmodel\tquantisation\tscore\tlocal_tokens", file);
    for (int i = 0; i < MINIM_ROUTE_N_SIGNALS; i++) {
        fprintf(file, "\t%s", minim_route_signal_name((minim_route_signal)i));
    }
    putc('\n', file);
    for (size_t i = 0; i < labels->n && code < 0; i++) {
        minim_message message = {"user", labels->rows[i]->prompt};
        minim_router_request request;
        minim_router_sink sink = {&answer, collect_on_text, collect_on_progress};
        minim_router_reply reply;
        minim_error error = {.status = MINIM_OK};
        memset(&reply, 0, sizeof reply);
        reply.size = sizeof reply;
        minim_router_request_default(&request);
        request.messages = &message;
        request.n_messages = 1;
        request.max_tokens = settings->tool.n_predict < 0 ? 0 : settings->tool.n_predict;
        request.samples = settings->samples;
        request.sample_temperature = (double)settings->sample_temperature;
        request.sample_pattern = settings->pattern;
        request.stop = settings->tool.stop.items;
        request.n_stop = settings->tool.stop.n;
        answer.n = 0;
        if (!labels->rows[i]->n_prompt) code = tool_fail("prompt %zu is empty", i + 1);
        if (code < 0 && backend->chat(backend->state, &request, &sink, &reply, &error)) code = tool_fail_error(&error);
        if (code < 0) collect_write(file, settings->match, labels->rows[i], &answer, &reply);
        if (code < 0 && ferror(file)) code = tool_fail_output(output);
    }
    tool_bytes_free(&answer);
    return code;
}

/* Before there is any output, and also where no sample needs it. */
static int collect_check_pattern(const char *pattern) {
    char why[128];
    regex_t compiled;
    int code = pattern ? regcomp(&compiled, pattern, REG_EXTENDED | REG_NEWLINE) : 0;
    if (code) {
        regerror(code, &compiled, why, sizeof why);
        return options_complain("route collect", "--sample-pattern is \"%.80s\", expected a regular expression: %s",
                                pattern, why);
    }
    if (pattern) regfree(&compiled);
    return -1;
}

static int collect_run(const collect_settings *settings, const char *path) {
    route_labels labels = {0};
    minim_model *model = NULL;
    minim_engine *engine = NULL;
    minim_router_backend backend = {0};
    tool_output output = {0};
    minim_error error = {.status = MINIM_OK};
    tool_catch_interrupt();
    int code = tool_check_settings("route collect", &settings->tool);
    if (code < 0) code = collect_check_pattern(settings->pattern);
    if (code < 0 &&
        (tool_is_same_file(settings->output, path) || tool_is_same_file(settings->output, settings->tool.model)))
        code = tool_fail("%s: -o would overwrite an input", settings->output);
    if (code < 0) code = route_load_labels(path, &labels);
    if (code < 0) code = tool_load_model(&settings->tool, MINIM_LOAD_ALL, &model, NULL);
    if (code < 0) code = tool_new_engine(&settings->tool, model, &engine);
    if (code < 0 && minim_router_local(model, engine, settings->format, &backend, &error))
        code = tool_fail_error(&error);
    if (code < 0) {
        code = tool_open_output(settings->output ? settings->output : "-", &output);
        if (code < 0) code = collect_answers(settings, &labels, &backend, &output);
        code = tool_close_output(&output, code);
    }
    if (backend.free) backend.free(backend.state);
    minim_engine_free(engine);
    minim_model_free(model);
    route_free_labels(&labels);
    return code < 0 ? EXIT_CODE_OK : code;
}

int route_collect(int argc, char **argv) {
    collect_settings settings = {.sample_temperature = 0.7F};
    option_list arguments = {0};
    tool_settings_default(&settings.tool);
    settings.tool.n_predict = 256;
    const option_table tables[] = {
        {"answers", collect_options, &settings},
        {"model", tool_model_options, &settings.tool},
        {"generation", tool_sampling_options, &settings.tool},
        {"engine", tool_engine_options, &settings.tool},
        {0},
    };
    int code = options_parse(&collect_usage, tables, argc, argv, &arguments);
    if (code < 0 && settings.tool.sampling.temperature > 0)
        code = options_complain("route collect", "--temp: signals and scores are those of greedy answers");
    const char *path = code < 0 ? route_one_file("route collect", &arguments, "a file of prompts") : NULL;
    if (code < 0) code = path ? collect_run(&settings, path) : EXIT_CODE_USAGE;
    option_list_free(&arguments);
    option_list_free(&settings.tool.stop);
    return code;
}
