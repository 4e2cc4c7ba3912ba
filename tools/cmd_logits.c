/* cmd_logits.c: `minim logits`: the raw logits of every position, for research and golden tests.
 *
 * The output is float32 [tokens][n_vocab] without a header, in the byte order of the machine (little endian wherever
 * minim runs). It goes to disk chunk by chunk, so a long text needs no memory for all of its logits. A file appears
 * under its name only when it is complete. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "common.h"
#include "output.h"

typedef struct logits_settings {
    tool_settings tool;
    const char *tokens, *output;
} logits_settings;

#define LOGITS(field) offsetof(logits_settings, field)

static const option logits_options[] = {
    {"--tokens", "FILE", OPTION_STRING, LOGITS(tokens), 0, 0,
     "token ids separated by white space,\n\"-\" is standard input"},
    {"-o, --output", "FILE", OPTION_STRING, LOGITS(output), 0, 0,
     "where the logits go, \"-\" is standard output:\nfloat32 [tokens][vocabulary], no header"},
    {0},
};

static const option_usage logits_usage = {
    .command = "logits",
    .synopsis = "logits [-m FILE] --tokens IDS.txt -o OUT.f32 [OPTIONS]",
    .about = "Runs a sequence of tokens through a model and writes the raw logits of every position.\n"
             "The bytes are the same for every -t, -b, --page-size and --isa.",
    .max_arguments = 0,
};

/* Logits that are held in memory at a time, at most; a chunk is shortened to that. */
enum { LOGITS_CHUNK_BYTES = 64 << 20, LOGITS_CHUNK_TOKENS = 512 };

/* ---- the run ----------------------------------------------------------------------------------------------------- */

/* Runs tokens[0..n) in chunks; logits has room for one: [chunk][n_vocab]. Returns -1 or an exit code. */
static int logits_run_chunks(minim_engine *engine, minim_seq *seq, const tool_tokens *tokens, size_t n_vocab,
                             size_t chunk, minim_row *rows, float *logits, const tool_output *output) {
    for (size_t at = 0; at < tokens->n; at += chunk) {
        size_t n = tokens->n - at < chunk ? tokens->n - at : chunk;
        minim_error error = {.status = MINIM_OK};
        for (size_t i = 0; i < n; i++)
            rows[i] = (minim_row){.seq = seq, .token = tokens->ids[at + i], .want_logits = 1};
        if (minim_engine_step(engine, rows, n, logits, &error) != MINIM_OK) return tool_fail_error(&error);
        errno = 0;
        if (fwrite(logits, n_vocab * sizeof *logits, n, output->file) != n) return tool_fail_output(output);
        if (tool_interrupted()) return EXIT_CODE_INTERRUPTED;
    }
    return -1;
}

static int logits_run(const logits_settings *settings, minim_engine *engine, const tool_tokens *tokens, int n_vocab,
                      const tool_output *output) {
    size_t row = (size_t)n_vocab * sizeof(float);
    size_t chunk = settings->tool.n_batch ? (size_t)settings->tool.n_batch : LOGITS_CHUNK_TOKENS;
    size_t most = row < LOGITS_CHUNK_BYTES ? LOGITS_CHUNK_BYTES / row : 1;
    if (chunk > most) chunk = most;
    if (chunk > tokens->n) chunk = tokens->n;
    minim_error error = {.status = MINIM_OK};
    minim_seq *seq = NULL;
    minim_row *rows = calloc(chunk, sizeof *rows);
    float *logits = calloc(chunk, row);
    int code = rows && logits ? -1 : tool_fail("out of memory for the logits of %zu tokens", chunk);
    if (code < 0 && minim_seq_new(engine, &seq, &error) != MINIM_OK) code = tool_fail_error(&error);
    if (code < 0) code = logits_run_chunks(engine, seq, tokens, (size_t)n_vocab, chunk, rows, logits, output);
    minim_seq_free(seq);
    free(logits);
    free(rows);
    return code;
}

/* Reads the ids, and checks that there are some and that they fit. */
static int logits_read_tokens(const logits_settings *settings, int n_vocab, int n_ctx, tool_tokens *tokens) {
    tool_bytes text = {0};
    const char *name = strcmp(settings->tokens, "-") ? settings->tokens : "standard input";
    int code = tool_read_file(settings->tokens, &text);
    if (code < 0) code = tool_parse_ids(name, text.data, text.n, n_vocab, tokens);
    tool_bytes_free(&text);
    if (code >= 0) return code;
    if (tokens->n == 0) return tool_fail("%s: expected token ids, found none", name);
    if (tokens->n <= (size_t)n_ctx) return -1;
    return tool_fail("%s: expected at most %d tokens, which is the context size (-c), found %zu", name, n_ctx,
                     tokens->n);
}

static int logits_with_model(const logits_settings *settings, const minim_model *model) {
    minim_model_info model_info = {.size = sizeof model_info};
    minim_engine_info engine_info = {.size = sizeof engine_info};
    minim_engine *engine = NULL;
    tool_tokens tokens = {0};
    minim_model_get_info(model, &model_info);
    int code = tool_new_engine(&settings->tool, model, &engine);
    if (code < 0) {
        minim_engine_get_info(engine, &engine_info);
        code = logits_read_tokens(settings, model_info.n_vocab, engine_info.n_ctx, &tokens);
    }
    if (code < 0) {
        tool_output output;
        code = tool_open_output(settings->output, &output);
        if (code < 0) code = logits_run(settings, engine, &tokens, model_info.n_vocab, &output);
        code = tool_close_output(&output, code);
    }
    tool_tokens_free(&tokens);
    minim_engine_free(engine);
    return code;
}

int cmd_logits(int argc, char **argv) {
    logits_settings settings = {0};
    option_list arguments = {0};
    minim_model *model = NULL;
    tool_settings_default(&settings.tool);
    const option_table tables[] = {
        {"input and output", logits_options, &settings},
        {"model", tool_model_options, &settings.tool},
        {"engine", tool_engine_options, &settings.tool},
        {0},
    };
    int code = options_parse(&logits_usage, tables, argc, argv, &arguments);
    if (code < 0 && !settings.tokens) code = options_complain("logits", "--tokens FILE is missing");
    if (code < 0 && !settings.output) code = options_complain("logits", "-o FILE is missing");
    if (code < 0 && (tool_is_same_file(settings.output, settings.tool.model) ||
                     tool_is_same_file(settings.output, settings.tokens)))
        code = tool_fail("%s: -o would overwrite an input", settings.output);
    if (code < 0) {
        tool_catch_interrupt();
        code = tool_load_model(&settings.tool, MINIM_LOAD_ALL, &model, NULL);
        if (code < 0) code = logits_with_model(&settings, model);
        minim_model_free(model);
    }
    option_list_free(&arguments);
    return code;
}
