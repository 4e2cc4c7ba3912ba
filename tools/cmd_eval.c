/* cmd_eval.c: `minim eval`: perplexity over a text, and how far a model is from a reference model.
 *
 * The definitions are those of llama-perplexity, so that figures compare: the text is cut into chunks of n_ctx tokens,
 * a rest is left out; each chunk is run from an empty context, its first token replaced by BOS where the vocabulary
 * asks for one; what is scored is the second half, whose tokens all have some context. One newline at the end of the
 * text is dropped. One difference: the peer keeps reference logits in 16 bits and cuts off what is far below the best;
 * here they are exact, so that figures against a reference agree to two or three digits. Its file can be the reference,
 * too: how far apart the two engines are on one model.
 *
 * Logits are computed, written and compared a piece at a time: memory does not grow with the text's
 * length but for its tokens and one line of figures for each scored position. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "common.h"
#include "output.h"
#include "score.h"

typedef struct score_settings {
    tool_settings tool;
    const char *text, *save, *reference;
    int n_chunks; /* 0 = all */
    int json;
} score_settings;

#define SCORE(field) offsetof(score_settings, field)

static const option score_options[] = {
    {"-f, --file", "FILE", OPTION_STRING, SCORE(text), 0, 0, "the text, \"-\" is standard input"},
    {"-c, --ctx-size", "N", OPTION_INT, SCORE(tool.n_ctx), 4, INT_MAX,
     "tokens a chunk (default 512, or as in the file of\nreference logits)"},
    {"--chunks", "N", OPTION_INT, SCORE(n_chunks), 1, INT_MAX, "only the first N chunks (default: all)"},
    {"--save-logits", "FILE", OPTION_STRING, SCORE(save), 0, 0,
     "write the logits of all scored positions, to be a reference:\n4 bytes for each position and token of the "
     "vocabulary"},
    {"--reference-logits", "FILE", OPTION_STRING, SCORE(reference), 0, 0,
     "compare with the model that wrote FILE on the same text; also\nwhat llama-perplexity --save-all-logits has "
     "written"},
    {"--json", NULL, OPTION_FLAG, SCORE(json), 0, 0, "print one JSON object"},
    {0},
};

static const option_usage score_usage = {
    .command = "eval",
    .synopsis = "eval [-m FILE] -f TEXT [--save-logits FILE | --reference-logits FILE] [OPTIONS]",
    .about = "Measures how well a model predicts a text (perplexity), and against a reference, such as the same model\n"
             "before it was quantised: KL divergence, change of the next token's probability, agreement of the most\n"
             "likely token. Each mean stands with its standard error. The definitions are those of llama-perplexity:\n"
             "chunks of -c tokens, the second half of each is scored.",
    .epilogue = "First the reference, then what is compared with it:\n"
                "  minim eval -m model-f16.gguf  -f text.txt --save-logits f16.logits\n"
                "  minim eval -m model-q4_0.gguf -f text.txt --reference-logits f16.logits",
    .max_arguments = 0,
};

/* Logits that are held in memory at a time, at most (twice that with a reference); tokens that are run together. */
enum { SCORE_PIECE_BYTES = 64 << 20, SCORE_PIECE_TOKENS = 512, SCORE_CTX = 512 };

typedef struct score_run {
    const score_settings *settings;
    minim_engine *engine;
    minim_seq *seq;
    tool_tokens tokens;
    size_t n_vocab, n_ctx, n_chunks;
    int32_t bos;         /* what replaces the first token of a chunk; -1 = nothing */
    FILE *reference;     /* NULL = none, like output */
    score_header header; /* of reference */
    const tool_output *output;
    size_t piece;    /* rows that logits and reference_logits have room for: [piece][n_vocab] */
    minim_row *rows; /* [piece] */
    float *logits, *reference_logits;
    score_values values;
    double start;    /* tool_seconds() at the first chunk */
    double shown_at; /* of the progress line */
    size_t shown;    /* length of the progress line on the terminal */
} score_run;

/* ---- progress ---------------------------------------------------------------------------------------------------- */

static void score_show_progress(score_run *run, size_t done) {
    if (run->settings->tool.quiet || !isatty(STDERR_FILENO)) return;
    double now = tool_seconds();
    if (now - run->shown_at < 0.1) return;
    run->shown_at = now;
    double left = (now - run->start) / (double)done * (double)(run->n_chunks - done);
    unsigned long seconds = left < 1e9 ? (unsigned long)(left + 0.5) : 999999999;
    char line[160];
    int n = snprintf(line, sizeof line, "chunk %zu of %zu, perplexity %.4f, %lu:%02lu:%02lu left", done, run->n_chunks,
                     score_perplexity(&run->values), seconds / 3600, seconds / 60 % 60, seconds % 60);
    size_t length = n > 0 && (size_t)n < sizeof line ? (size_t)n : 0;
    fprintf(stderr, "\r%s%*s", line, length < run->shown ? (int)(run->shown - length) : 0, "");
    run->shown = length;
}

static void score_clear_progress(score_run *run) {
    if (run->shown > 0) fprintf(stderr, "\r%*s\r", (int)run->shown, "");
    run->shown = 0;
}

/* ---- the run ----------------------------------------------------------------------------------------------------- */

/* What becomes of the logits of `n` positions; next[i] is the token that follows the i-th. Returns -1 or an exit code.
 */
static int score_take(score_run *run, const int32_t *next, size_t n) {
    size_t bad = score_not_finite(run->logits, n * run->n_vocab);
    size_t position = run->values.n;
    if (bad < n * run->n_vocab) {
        const char *model = run->settings->tool.model;
        score_clear_progress(run);
        return tool_fail("%s: scored position %zu, token %zu: expected a finite logit, found %g",
                         model ? model : "built-in model", position + bad / run->n_vocab, bad % run->n_vocab,
                         (double)run->logits[bad]);
    }
    if (run->reference) {
        int code =
            score_read_rows(run->reference, run->settings->reference, &run->header, position, n, run->reference_logits);
        if (code >= 0) return code;
    }
    for (size_t i = 0; i < n; i++) {
        const float *reference = run->reference ? run->reference_logits + i * run->n_vocab : NULL;
        score_add(&run->values, run->logits + i * run->n_vocab, reference, run->n_vocab, next[i]);
    }
    if (!run->output) return -1;
    errno = 0;
    if (fwrite(run->logits, run->n_vocab * sizeof *run->logits, n, run->output->file) == n) return -1;
    score_clear_progress(run);
    return tool_fail_output(run->output);
}

/* One chunk from an empty context. Its last token is only looked at, as what follows the one before. */
static int score_run_chunk(score_run *run, const int32_t *tokens) {
    minim_error error = {.status = MINIM_OK};
    size_t first = score_first(run->n_ctx), end = run->n_ctx - 1, n;
    if (minim_seq_truncate(run->seq, 0) != MINIM_OK) return tool_fail("cannot empty the context");
    for (size_t at = 0; at < end; at += n) {
        size_t border = at < first ? first : end;
        n = border - at < run->piece ? border - at : run->piece;
        for (size_t i = 0; i < n; i++) {
            int32_t token = at + i == 0 && run->bos >= 0 ? run->bos : tokens[at + i];
            run->rows[i] = (minim_row){.seq = run->seq, .token = token, .want_logits = at >= first};
        }
        if (minim_engine_step(run->engine, run->rows, n, run->logits, &error) != MINIM_OK) {
            score_clear_progress(run);
            return tool_fail_error(&error);
        }
        int code = at >= first ? score_take(run, tokens + at + 1, n) : -1;
        if (code >= 0) return code;
        if (tool_interrupted()) return EXIT_CODE_INTERRUPTED;
    }
    return -1;
}

static int score_run_chunks(score_run *run) {
    int code = -1;
    run->start = tool_seconds();
    for (size_t i = 0; i < run->n_chunks && code < 0; i++) {
        code = score_run_chunk(run, run->tokens.ids + i * run->n_ctx);
        if (code < 0) score_show_progress(run, i + 1);
    }
    score_clear_progress(run);
    return code;
}

/* Memory and the sequence. */
static int score_prepare(score_run *run) {
    minim_error error = {.status = MINIM_OK};
    size_t row = run->n_vocab * sizeof(float);
    size_t batch = run->settings->tool.n_batch ? (size_t)run->settings->tool.n_batch : SCORE_PIECE_TOKENS;
    size_t most = row < SCORE_PIECE_BYTES ? SCORE_PIECE_BYTES / row : 1;
    run->piece = batch < most ? batch : most;
    run->rows = calloc(run->piece, sizeof *run->rows);
    run->logits = calloc(run->piece, row);
    if (run->reference) run->reference_logits = calloc(run->piece, row);
    if (!run->rows || !run->logits || (run->reference && !run->reference_logits)) {
        return tool_fail("out of memory for the logits of %zu tokens", run->piece);
    }
    size_t positions = run->n_chunks * score_count(run->n_ctx);
    if (score_values_new(&run->values, positions, run->reference != NULL)) {
        return tool_fail("out of memory for the figures of %zu positions", positions);
    }
    return minim_seq_new(run->engine, &run->seq, &error) == MINIM_OK ? -1 : tool_fail_error(&error);
}

static void score_free(score_run *run) {
    minim_seq_free(run->seq);
    minim_engine_free(run->engine);
    score_values_free(&run->values);
    tool_tokens_free(&run->tokens);
    free(run->rows);
    free(run->logits);
    free(run->reference_logits);
    if (run->reference) fclose(run->reference);
}

/* ---- the text ---------------------------------------------------------------------------------------------------- */

/* Tokens of the text with BOS in front where the vocabulary asks for one, but never with EOS behind. */
static int score_read_text(score_run *run, const minim_model *model, int32_t bos) {
    tool_tokens text_tokens = {0};
    tool_bytes text = {0};
    int code = tool_read_file(run->settings->text, &text);
    if (code < 0 && text.n > 0 && text.data[text.n - 1] == '\n') text.n--;
    if (code < 0) code = tool_tokenize(model, "", 0, MINIM_ADD_SPECIAL, &run->tokens); /* only BOS and EOS */
    if (code < 0) code = tool_tokenize(model, text.data, text.n, 0, &text_tokens);
    tool_bytes_free(&text);
    if (code < 0) {
        run->bos = bos >= 0 && run->tokens.n > 0 && run->tokens.ids[0] == bos ? bos : -1;
        run->tokens.n = run->bos >= 0 ? 1 : 0;
        size_t n = run->tokens.n + text_tokens.n;
        if (tool_tokens_reserve(&run->tokens, n)) {
            code = EXIT_CODE_FAILED;
        } else if (text_tokens.n > 0) {
            memcpy(run->tokens.ids + run->tokens.n, text_tokens.ids, text_tokens.n * sizeof *text_tokens.ids);
            run->tokens.n = n;
        }
    }
    tool_tokens_free(&text_tokens);
    return code;
}

/* How long chunks are and how many; from the reference if there is one. */
static int score_plan(score_run *run) {
    const score_settings *settings = run->settings;
    const char *name = strcmp(settings->text, "-") ? settings->text : "standard input";
    run->n_ctx = settings->tool.n_ctx ? (size_t)settings->tool.n_ctx : SCORE_CTX;
    if (settings->reference) {
        run->reference = fopen(settings->reference, "rb");
        if (!run->reference) return tool_fail("%s: %s", settings->reference, strerror(errno));
        int code = score_read_header(run->reference, settings->reference, run->n_vocab, run->tokens.ids, run->tokens.n,
                                     &run->header);
        if (code >= 0) return code;
        if (settings->tool.n_ctx && run->header.n_ctx != run->n_ctx) {
            return tool_fail("%s: context: expected %zu tokens (-c), found %u", settings->reference, run->n_ctx,
                             run->header.n_ctx);
        }
        run->n_ctx = run->header.n_ctx;
    }
    /* The peer's rule: with a single chunk the error of the mean says little. */
    if (run->tokens.n / 2 < run->n_ctx) {
        return tool_fail("%s: expected at least %zu tokens, which are two contexts (-c) of %zu, found %zu", name,
                         2 * run->n_ctx, run->n_ctx, run->tokens.n);
    }
    run->n_chunks = settings->reference ? run->header.n_chunks : run->tokens.n / run->n_ctx;
    if (settings->n_chunks && run->n_chunks > (size_t)settings->n_chunks) run->n_chunks = (size_t)settings->n_chunks;
    if (run->n_chunks <= UINT32_MAX) return -1;
    return tool_fail("%s: expected at most %u chunks, found %zu", name, UINT32_MAX, run->n_chunks);
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int score_save(score_run *run) {
    tool_output output;
    int code = tool_open_output(run->settings->save, &output);
    if (code < 0) {
        const score_header header = {
            .n_vocab = (uint32_t)run->n_vocab, .n_ctx = (uint32_t)run->n_ctx, .n_chunks = (uint32_t)run->n_chunks};
        run->output = &output;
        if (score_write_header(output.file, &header, run->tokens.ids)) code = tool_fail_output(&output);
    }
    if (code < 0) code = score_run_chunks(run);
    run->output = NULL;
    code = tool_close_output(&output, code);
    return code == EXIT_CODE_OK ? -1 : code;
}

static int score_with_model(score_run *run, const minim_model *model) {
    const score_settings *settings = run->settings;
    minim_model_info info = {.size = sizeof info};
    minim_model_get_info(model, &info);
    run->n_vocab = (size_t)info.n_vocab;
    int code = score_read_text(run, model, info.bos);
    if (code < 0) code = score_plan(run);
    if (code < 0) {
        tool_settings tool = settings->tool;
        tool.n_ctx = (int)run->n_ctx;
        code = tool_new_engine(&tool, model, &run->engine);
    }
    if (code < 0) code = score_prepare(run);
    if (code < 0) code = settings->save ? score_save(run) : score_run_chunks(run);
    if (code >= 0) return code;
    const score_subject subject = {
        .model = settings->tool.model ? settings->tool.model : "built-in model",
        .text = settings->text,
        .reference = settings->reference,
        .n_ctx = (int)run->n_ctx,
        .n_chunks = run->n_chunks,
    };
    score_print(&subject, &run->values, settings->json);
    return EXIT_CODE_OK;
}

static int score_check_settings(const score_settings *settings) {
    if (!settings->text) return options_complain("eval", "-f FILE is missing");
    if (!settings->save) return -1;
    if (settings->reference) {
        return options_complain("eval", "--save-logits and --reference-logits do not go together");
    }
    if (!strcmp(settings->save, "-")) {
        return options_complain("eval",
                                "--save-logits: expected a file, found \"-\": standard output is for the figures");
    }
    if (tool_is_same_file(settings->save, settings->tool.model) || tool_is_same_file(settings->save, settings->text)) {
        return tool_fail("%s: --save-logits would overwrite an input", settings->save);
    }
    return -1;
}

/* The engine's options but for -c, which means something else here. */
static void score_engine_options(option *rows, size_t capacity) {
    size_t n = 0;
    for (const option *row = tool_engine_options; row->names && n + 1 < capacity; row++) {
        if (strncmp(row->names, "-c,", 3) != 0) rows[n++] = *row;
    }
    rows[n] = (option){0};
}

int cmd_eval(int argc, char **argv) {
    score_settings settings = {0};
    option_list arguments = {0};
    option engine_options[16];
    minim_model *model = NULL;
    tool_settings_default(&settings.tool);
    score_engine_options(engine_options, sizeof engine_options / sizeof *engine_options);
    const option_table tables[] = {
        {"what is measured", score_options, &settings},
        {"model", tool_model_options, &settings.tool},
        {"engine", engine_options, &settings.tool},
        {0},
    };
    int code = options_parse(&score_usage, tables, argc, argv, &arguments);
    if (code < 0) code = score_check_settings(&settings);
    if (code < 0) {
        score_run run = {.settings = &settings, .bos = -1};
        tool_catch_interrupt();
        code = tool_load_model(&settings.tool, MINIM_LOAD_ALL, &model, NULL);
        if (code < 0) code = score_with_model(&run, model);
        score_free(&run);
        minim_model_free(model);
    }
    option_list_free(&arguments);
    return code;
}
