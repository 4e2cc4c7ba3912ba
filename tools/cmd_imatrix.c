/* cmd_imatrix.c: `minim imatrix`: runs a text through a model and sums the squares of what each matrix gets, for
 * `minim quantize --imatrix` and for llama-quantize. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate.h"
#include "commands.h"
#include "common.h"
#include "imatrix.h"
#include "output.h"
#include "progress.h"

typedef struct importance_settings {
    tool_settings tool;
    const char *text, *output;
    int n_chunks, skip, process_output;
    option_list in_files;
} importance_settings;

#define IMPORTANCE(field) offsetof(importance_settings, field)

static const option importance_options[] = {
    {"-f, --file", "TEXT", OPTION_STRING, IMPORTANCE(text), 0, 0,
     "the text, \"-\" is standard input; without one the files of\n--in-file are only joined"},
    {"-o, --output, --output-file", "FILE", OPTION_STRING, IMPORTANCE(output), 0, 0, "default: imatrix.gguf"},
    {"-c, --ctx-size", "N", OPTION_INT, IMPORTANCE(tool.n_ctx), 4, INT_MAX,
     "tokens a chunk (default 512, or the context of the model\nwhere that is shorter)"},
    {"--chunks", "N", OPTION_INT, IMPORTANCE(n_chunks), 1, INT_MAX, "only N chunks (default: all)"},
    {"--chunk, --from-chunk", "N", OPTION_INT, IMPORTANCE(skip), 0, INT_MAX, "leave out the first N chunks"},
    {"--in-file", "FILE", OPTION_LIST, IMPORTANCE(in_files), 0, 0,
     "add another importance matrix; may be given several times"},
    {"--process-output", NULL, OPTION_FLAG, IMPORTANCE(process_output), 0, 0, "also of the output matrix"},
    {0},
};

static const option_usage importance_usage = {
    .command = "imatrix",
    .synopsis = "imatrix [-m FILE] -f TEXT -o OUT.gguf [OPTIONS]",
    .about = "Runs a text through a model and sums the squares of what goes into each matrix: which weights matter.\n"
             "The file is for `minim quantize --imatrix`; its format is that of llama-imatrix, and either program\n"
             "reads what the other writes. The text has to be as long as one chunk at least; some 100 chunks are good.",
    .max_arguments = 0,
};

typedef struct importance_run {
    const importance_settings *settings;
    imatrix im;
    calibrate_text text;
    minim_engine *engine;
    minim_seq *seq;
    minim_row *rows; /* [IMPORTANCE_ROWS] */
    double *squares; /* [capacity]: of the rows that are being shown */
    size_t capacity;
    int failed; /* the exit code of a callback that failed, or -1 */
    tool_meter meter;
} importance_run;

enum { IMPORTANCE_ROWS = 512 };

static int importance_is_wanted(const importance_run *run, const char *tensor) {
    return run->settings->process_output || !strncmp(tensor, "blk.", 4);
}

/* Sums the squares of the rows shown; the code of an error waits in run->failed, as a callback returns nothing. */
static int importance_add(importance_run *run, const char *const *tensors, size_t n_tensors, const float *x,
                          size_t n_rows, size_t n_cols) {
    if (n_cols > run->capacity) {
        double *more = realloc(run->squares, n_cols * sizeof *more);
        if (!more) return tool_fail("out of memory");
        run->squares = more;
        run->capacity = n_cols;
    }
    const size_t bad = calibrate_find_bad(x, n_rows * n_cols);
    if (bad < n_rows * n_cols) {
        tool_meter_clear(&run->meter);
        return tool_fail("input %zu of tensor %s is %g, expected a finite number", bad % n_cols, tensors[0],
                         (double)x[bad]);
    }
    memset(run->squares, 0, n_cols * sizeof *run->squares);
    for (size_t i = 0; i < n_rows; i++)
        for (size_t k = 0; k < n_cols; k++) run->squares[k] += (double)x[i * n_cols + k] * (double)x[i * n_cols + k];
    for (size_t t = 0; t < n_tensors; t++) {
        if (!importance_is_wanted(run, tensors[t])) continue;
        const imatrix_entry *entry = imatrix_get(&run->im, tensors[t], n_cols, 1);
        if (!entry) return EXIT_CODE_FAILED;
        for (size_t k = 0; k < n_cols; k++) entry->sums[k] += run->squares[k];
        entry->counts[0] += (double)n_rows;
    }
    return -1;
}

static void importance_on_input(void *user, const char *const *tensors, size_t n_tensors, const float *x, size_t n_rows,
                                size_t n_cols) {
    importance_run *run = user;
    if (run->failed < 0) run->failed = importance_add(run, tensors, n_tensors, x, n_rows, n_cols);
}

static int importance_run_chunks(importance_run *run) {
    minim_error error = {.status = MINIM_OK};
    char what[64];
    tool_meter_begin(&run->meter, run->settings->tool.quiet);
    for (size_t chunk = 0; chunk < run->text.n_chunks; chunk++) {
        const int32_t *tokens = run->text.tokens.ids + chunk * run->text.n_ctx;
        if (minim_seq_truncate(run->seq, 0) != MINIM_OK) return tool_fail("cannot empty the context");
        for (size_t at = 0, n; at < run->text.n_ctx; at += n) {
            n = run->text.n_ctx - at < IMPORTANCE_ROWS ? run->text.n_ctx - at : IMPORTANCE_ROWS;
            for (size_t i = 0; i < n; i++) run->rows[i] = (minim_row){.seq = run->seq, .token = tokens[at + i]};
            const minim_status status = minim_engine_step(run->engine, run->rows, n, NULL, &error);
            if (status != MINIM_OK) tool_meter_clear(&run->meter);
            if (status != MINIM_OK) return tool_fail_error(&error);
            if (run->failed >= 0) return run->failed;
            if (tool_interrupted()) {
                tool_meter_clear(&run->meter);
                return EXIT_CODE_INTERRUPTED;
            }
        }
        snprintf(what, sizeof what, "chunk %zu of %zu", chunk + 1, run->text.n_chunks);
        tool_meter_show(&run->meter, (double)(chunk + 1) / (double)run->text.n_chunks, what);
    }
    tool_meter_clear(&run->meter);
    run->im.n_chunks += run->text.n_chunks;
    run->im.chunk_size = run->text.n_ctx;
    return -1;
}

static int importance_collect(importance_run *run, const minim_model *model) {
    minim_error error = {.status = MINIM_OK};
    minim_engine_options options;
    int code = calibrate_read(model, &run->text);
    if (code >= 0) return code;
    tool_engine_settings(&run->settings->tool, &options);
    options.n_ctx = (int)run->text.n_ctx;
    options.on_input = importance_on_input;
    options.on_input_user = run;
    run->rows = calloc(IMPORTANCE_ROWS, sizeof *run->rows);
    if (!run->rows) return tool_fail("out of memory");
    if (minim_engine_new(model, &options, &run->engine, &error) != MINIM_OK ||
        minim_seq_new(run->engine, &run->seq, &error) != MINIM_OK)
        return tool_fail_error(&error);
    if (imatrix_add_dataset(&run->im, run->settings->text)) return EXIT_CODE_FAILED;
    return importance_run_chunks(run);
}

static int importance_main(importance_run *run) {
    const importance_settings *settings = run->settings;
    minim_model *model = NULL;
    int code = -1;
    if (tool_is_same_file(settings->output, settings->tool.model) ||
        tool_is_same_file(settings->output, settings->text))
        return tool_fail("%s: -o would overwrite an input", settings->output);
    for (size_t i = 0; i < settings->in_files.n && code < 0; i++)
        code = imatrix_read(&run->im, settings->in_files.items[i]);
    if (code < 0 && settings->text) code = tool_load_model(&settings->tool, MINIM_LOAD_ALL, &model, NULL);
    if (code < 0 && settings->text) code = importance_collect(run, model);
    if (code < 0) code = imatrix_write(&run->im, settings->output);
    if (code == EXIT_CODE_OK && !settings->tool.quiet)
        fprintf(stderr, "%s: %zu matrices, %zu chunks of %zu tokens\n", settings->output, run->im.n, run->im.n_chunks,
                run->im.chunk_size);
    minim_seq_free(run->seq);
    minim_engine_free(run->engine);
    minim_model_free(model);
    return code;
}

/* The engine's options but for -c, which means something else here. */
static void importance_engine_options(option *rows, size_t capacity) {
    size_t n = 0;
    for (const option *row = tool_engine_options; row->names && n + 1 < capacity; row++)
        if (strncmp(row->names, "-c,", 3) != 0) rows[n++] = *row;
    rows[n] = (option){0};
}

int cmd_imatrix(int argc, char **argv) {
    importance_settings settings = {.output = "imatrix.gguf"};
    option_list arguments = {0};
    option engine_options[16];
    tool_settings_default(&settings.tool);
    importance_engine_options(engine_options, sizeof engine_options / sizeof *engine_options);
    const option_table tables[] = {
        {"importance matrix", importance_options, &settings},
        {"model", tool_model_options, &settings.tool},
        {"engine", engine_options, &settings.tool},
        {0},
    };
    int code = options_parse(&importance_usage, tables, argc, argv, &arguments);
    if (code < 0 && !settings.text && !settings.in_files.n) code = options_complain("imatrix", "-f TEXT is missing");
    if (code < 0) {
        importance_run run = {.settings = &settings, .failed = -1};
        run.text = (calibrate_text){.path = settings.text,
                                    .n_ctx = (size_t)settings.tool.n_ctx,
                                    .skip = (size_t)settings.skip,
                                    .n_chunks = (size_t)settings.n_chunks};
        tool_catch_interrupt();
        code = importance_main(&run);
        tool_tokens_free(&run.text.tokens);
        imatrix_free(&run.im);
        free(run.rows);
        free(run.squares);
    }
    option_list_free(&settings.in_files);
    option_list_free(&arguments);
    return code;
}
