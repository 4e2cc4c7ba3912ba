/* quantize_layers.c: --method gptq: goes through the model layer by layer.
 *
 *     hidden [tokens][n_embd]      what the quantised layers so far have made of the calibration text
 *     for each layer:
 *         run it, as it is in the input, on hidden: H = X^T X of what each matrix gets (gptq.h)
 *         round its matrices, write them
 *         run it, as it is in the output, on hidden: what the next layer gets
 *
 * So a layer is rounded for the inputs it will really have, and no more than one is ever in memory. The layer that was
 * rounded is loaded from a GGUF file in memory that holds nothing else. Embeddings, and what no product uses, are
 * rounded as --method search does it; so is an output matrix that the embeddings stand for. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "blas.h"
#include "calibrate.h"
#include "gptq.h"
#include "progress.h"
#include "quantize_work.h"

enum { LAYERS_ROWS = 512, LAYERS_GROUPS = 16, LAYERS_MEMBERS = 8 };

/* Matrices with the same input. */
typedef struct layers_group {
    size_t n_cols, members[LAYERS_MEMBERS], n_members; /* indices of tensors */
    float *h;                                          /* [n_cols][n_cols], upper triangle */
} layers_group;

typedef struct layers_run {
    quantize_work *w;
    gguf_writer *writer;
    calibrate_text text;
    int n_layers, layer;
    size_t n_embd;
    float *hidden, *scratch; /* [tokens][n_embd], [LAYERS_ROWS][n_embd] */
    minim_row *rows;         /* [LAYERS_ROWS] */
    layers_group groups[LAYERS_GROUPS];
    size_t n_groups;
    int code;       /* of a callback that failed, or -1 */
    uint8_t **made; /* [tensors]: bytes for the output while they are in memory */
    char *written;  /* [tensors] */
    tool_meter meter;
    double phase;               /* where in the layer we are, 0..1 */
    uint64_t rounded, to_round; /* elements of the layer */
} layers_run;

static void layers_show(layers_run *run, double share) {
    char what[64];
    snprintf(what, sizeof what, "layer %d of %d", run->layer + 1, run->n_layers);
    tool_meter_show(&run->meter, (run->layer + run->phase + share / 3) / run->n_layers, what);
}

/* The tensor with this name, or the number of tensors. */
static size_t layers_find(const quantize_work *w, const char *name) {
    size_t i = 0;
    while (i < w->n && strcmp(w->tensors[i].from.name, name) != 0) i++;
    return i;
}

/* ---- Hessians ---------------------------------------------------------------------------------------------------- */

static void layers_free_groups(layers_run *run) {
    for (size_t i = 0; i < run->n_groups; i++) free(run->groups[i].h);
    run->n_groups = 0;
}

/* The group of these matrices; NULL when none of them is to be rounded by Hessian, or with *code set after an error. */
static layers_group *layers_group_of(layers_run *run, const char *const *tensors, size_t n_tensors, size_t n_cols,
                                     int *code) {
    layers_group group = {.n_cols = n_cols};
    for (size_t i = 0; i < n_tensors; i++) {
        const size_t index = layers_find(run->w, tensors[i]);
        if (index == run->w->n || run->written[index] || group.n_members == LAYERS_MEMBERS) continue;
        const encode_type *to = run->w->tensors[index].to;
        if (to && to->form) group.members[group.n_members++] = index;
    }
    if (!group.n_members) return NULL;
    for (size_t i = 0; i < run->n_groups; i++)
        if (run->groups[i].members[0] == group.members[0]) return &run->groups[i];
    if (run->n_groups < LAYERS_GROUPS && n_cols <= SIZE_MAX / n_cols / sizeof *group.h)
        group.h = calloc(n_cols * n_cols, sizeof *group.h);
    if (!group.h) {
        tool_meter_clear(&run->meter);
        *code = tool_fail("out of memory for the Hessian of %s", tensors[0]);
        return NULL;
    }
    run->groups[run->n_groups] = group;
    return &run->groups[run->n_groups++];
}

static void layers_on_input(void *user, const char *const *tensors, size_t n_tensors, const float *x, size_t n_rows,
                            size_t n_cols) {
    layers_run *run = user;
    if (run->code >= 0) return;
    layers_group *group = layers_group_of(run, tensors, n_tensors, n_cols, &run->code);
    if (!group) return;
    const size_t bad = calibrate_find_bad(x, n_rows * n_cols);
    if (bad < n_rows * n_cols) {
        tool_meter_clear(&run->meter);
        run->code = tool_fail("%s: input %zu of tensor %s is %g, expected a finite number", run->w->source.name,
                              bad % n_cols, tensors[0], (double)x[bad]);
        return;
    }
    blas_add_squares(n_cols, n_rows, x, group->h);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static int layers_run_chunk(layers_run *run, minim_engine *engine, minim_seq *seq, size_t chunk, int keep) {
    minim_error error = {.status = MINIM_OK};
    const size_t n_ctx = run->text.n_ctx, bytes = run->n_embd * sizeof *run->hidden;
    if (minim_seq_truncate(seq, 0) != MINIM_OK) return tool_fail("cannot empty the context");
    for (size_t at = 0, n; at < n_ctx; at += n) {
        n = n_ctx - at < LAYERS_ROWS ? n_ctx - at : LAYERS_ROWS;
        float *hidden = run->hidden + (chunk * n_ctx + at) * run->n_embd;
        for (size_t i = 0; i < n; i++)
            run->rows[i] = (minim_row){.seq = seq, .token = run->text.tokens.ids[chunk * n_ctx + at + i]};
        if (!keep) hidden = memcpy(run->scratch, hidden, n * bytes);
        const minim_status status = minim_engine_step_part(engine, run->rows, n, hidden, NULL, &error);
        if (status != MINIM_OK) tool_meter_clear(&run->meter);
        if (status != MINIM_OK) return tool_fail_error(&error);
        if (run->code >= 0) return run->code;
        if (tool_interrupted()) return EXIT_CODE_INTERRUPTED;
    }
    return -1;
}

/* The whole text through a part of a model; keep: hidden becomes what it makes of it. */
static int layers_run_text(layers_run *run, const minim_model *model, int keep, int watch) {
    minim_error error = {.status = MINIM_OK};
    minim_engine_options options;
    minim_engine *engine = NULL;
    minim_seq *seq = NULL;
    int code = -1;
    minim_engine_options_default(&options);
    options.n_threads = run->w->settings->n_threads;
    options.n_ctx = (int)run->text.n_ctx;
    options.n_batch = LAYERS_ROWS;
    options.on_input = watch ? layers_on_input : NULL;
    options.on_input_user = run;
    if (minim_engine_new(model, &options, &engine, &error) != MINIM_OK ||
        minim_seq_new(engine, &seq, &error) != MINIM_OK)
        code = tool_fail_error(&error);
    for (size_t i = 0; i < run->text.n_chunks && code < 0; i++) {
        code = layers_run_chunk(run, engine, seq, i, keep);
        layers_show(run, (double)(i + 1) / (double)run->text.n_chunks);
    }
    minim_seq_free(seq);
    minim_engine_free(engine);
    return code;
}

static void layers_options(const layers_run *run, minim_model_options *options) {
    minim_model_options_default(options);
    options->n_threads = run->w->settings->n_threads;
    options->first_layer = run->layer;
    options->end_layer = run->layer + 1;
}

/* ---- rounding ---------------------------------------------------------------------------------------------------- */

/* A matrix by its Hessian, a few rows at a time. */
static int layers_round_matrix(layers_run *run, const gptq_solver *solver, size_t index) {
    const quantize_tensor *tensor = &run->w->tensors[index];
    const size_t n = solver->n, all = (size_t)(tensor->elements / n), most = QUANTIZE_PIECE / n;
    const size_t row_bytes = n / (size_t)tensor->to->block * (size_t)tensor->to->bytes;
    size_t piece = GPTQ_TILE * (size_t)run->w->settings->n_threads;
    if (piece < most) piece = most / GPTQ_TILE * GPTQ_TILE;
    if (piece > all) piece = all;
    float *x = malloc(piece * n * sizeof *x);
    int code = x ? -1 : tool_fail("out of memory");
    for (size_t first = 0, rows, bad; first < all && code < 0; first += rows) {
        rows = all - first < piece ? all - first : piece;
        code = quantize_read_values(run->w, index, (uint64_t)first * n, rows * n, x);
        if (code < 0)
            code = gptq_encode(solver, tensor->to, x, rows, run->w->settings->n_threads,
                               run->made[index] + first * row_bytes, &bad);
        if (code < 0 && bad < rows * n) code = quantize_fail_large(run->w, index, (uint64_t)first * n + bad);
        run->rounded += rows * n;
        layers_show(run, (double)run->rounded / (double)run->to_round);
    }
    free(x);
    return code;
}

static int layers_round_groups(layers_run *run) {
    int code = -1;
    run->rounded = run->to_round = 0;
    for (size_t g = 0; g < run->n_groups; g++)
        for (size_t i = 0; i < run->groups[g].n_members; i++)
            run->to_round += run->w->tensors[run->groups[g].members[i]].elements;
    for (size_t g = 0; g < run->n_groups && code < 0; g++) {
        layers_group *group = &run->groups[g];
        gptq_solver solver;
        code = gptq_prepare(&solver, run->w->tensors[group->members[0]].from.name, group->n_cols, group->h);
        group->h = NULL; /* the solver's */
        for (size_t i = 0; i < group->n_members && code < 0; i++) {
            const size_t index = group->members[i];
            run->made[index] = malloc((size_t)run->w->tensors[index].bytes);
            code = run->made[index] ? layers_round_matrix(run, &solver, index) : tool_fail("out of memory");
        }
        gptq_free(&solver);
    }
    layers_free_groups(run);
    return code;
}

/* Makes the bytes of a tensor in memory, where they are not yet. */
static int layers_make(layers_run *run, size_t index) {
    if (run->made[index]) return -1;
    const uint64_t bytes = run->w->tensors[index].bytes;
    run->made[index] = malloc(bytes ? (size_t)bytes : 1);
    return run->made[index] ? quantize_write_tensor(run->w, index, NULL, run->made[index]) : tool_fail("out of memory");
}

/* Writes a tensor, from memory if it is there. */
static int layers_write(layers_run *run, size_t index) {
    const quantize_tensor *tensor = &run->w->tensors[index];
    if (run->written[index]) return -1;
    int code = gguf_writer_place(run->writer, tensor->at);
    if (code < 0)
        code = run->made[index] ? gguf_writer_put(run->writer, run->made[index], (size_t)tensor->bytes)
                                : quantize_write_tensor(run->w, index, run->writer, NULL);
    run->written[index] = 1;
    return code < 0 ? gguf_writer_end_tensor(run->writer) : code;
}

/* ---- the rounded layer as a file in memory ----------------------------------------------------------------------- */

/* Whether the engine needs the tensor for the layer. Of other layers it needs none; what belongs to none is needed with
 * the first or with the last. */
static int layers_needs(const layers_run *run, const char *name) {
    if (!strncmp(name, "blk.", 4)) return strtol(name + 4, NULL, 10) == run->layer;
    if (run->layer == 0 || !strncmp(name, "rope_", 5)) return 1;
    return run->layer == run->n_layers - 1 && strncmp(name, "token_embd.", 11) != 0;
}

/* Puts together header and tensors; output.weight as it is in the input, because it is not rounded yet. */
static int layers_make_image(layers_run *run, tool_bytes *image) {
    static const char zeros[GGUF_WRITE_ALIGNMENT];
    const quantize_work *w = run->w;
    gguf_head head = {0};
    uint8_t start[24] = {'G', 'G', 'U', 'F', 3};
    int code = -1;
    gguf_head_join(&head, &w->head);
    for (size_t i = 0; i < w->n; i++) {
        const quantize_tensor *t = &w->tensors[i];
        if (!run->made[i]) continue;
        const int as_is = !run->written[i] || !t->to;
        gguf_head_tensor(&head, t->from.name, t->from.n_dims, t->from.dims, as_is ? t->id : t->to->id,
                         as_is ? t->from.bytes : t->bytes);
    }
    gguf_write_64(start + 8, head.n_tensors);
    gguf_write_64(start + 16, head.n_keys);
    const size_t bytes = sizeof start + head.keys.n + head.tensors.n, aligned = (size_t)gguf_write_aligned(bytes);
    if (head.failed || tool_bytes_reserve(image, aligned + (size_t)head.data_bytes) ||
        tool_bytes_append(image, (const char *)start, sizeof start) ||
        tool_bytes_append(image, head.keys.data, head.keys.n) ||
        tool_bytes_append(image, head.tensors.data, head.tensors.n) || tool_bytes_append(image, zeros, aligned - bytes))
        code = EXIT_CODE_FAILED;
    for (size_t i = 0; i < w->n && code < 0; i++) {
        const quantize_tensor *t = &w->tensors[i];
        if (!run->made[i]) continue;
        const size_t n = (size_t)(!run->written[i] || !t->to ? t->from.bytes : t->bytes);
        if (tool_bytes_append(image, (const char *)run->made[i], n) ||
            tool_bytes_append(image, zeros, (size_t)(gguf_write_aligned(n) - n)))
            code = EXIT_CODE_FAILED;
    }
    gguf_head_free(&head);
    return code;
}

static void layers_forget(layers_run *run) {
    for (size_t i = 0; i < run->w->n; i++) {
        free(run->made[i]);
        run->made[i] = NULL;
    }
}

/* Runs the rounded layer on hidden. */
static int layers_advance(layers_run *run, int watch) {
    minim_error error = {.status = MINIM_OK};
    minim_model_options options;
    minim_model *model = NULL;
    tool_bytes image = {0};
    int code = layers_make_image(run, &image);
    layers_forget(run);
    layers_options(run, &options);
    if (code < 0 && minim_model_load_memory(image.data, image.n, run->w->source.name, &options, &model, &error))
        code = tool_fail_error(&error);
    tool_bytes_free(&image);
    if (code < 0) code = layers_run_text(run, model, 1, watch);
    minim_model_free(model);
    return code;
}

/* ---- all layers -------------------------------------------------------------------------------------------------- */

/* What the last layer's image needs beside the layer: the output matrix as it is in the input, if there is one to be
 * rounded by its Hessian. */
static int layers_take_output(layers_run *run, int *watch) {
    const size_t index = layers_find(run->w, "output.weight");
    if (index == run->w->n) return -1;
    const quantize_tensor *tensor = &run->w->tensors[index];
    *watch = tensor->to && tensor->to->form;
    run->made[index] = malloc(tensor->from.bytes ? (size_t)tensor->from.bytes : 1);
    if (!run->made[index]) return tool_fail("out of memory");
    return gguf_source_read_data(&run->w->source, &tensor->from, run->made[index]);
}

static int layers_one(layers_run *run) {
    minim_error error = {.status = MINIM_OK};
    minim_model_options options;
    minim_model *model = NULL;
    const int is_last = run->layer == run->n_layers - 1;
    int code = -1, watch = 0;
    layers_options(run, &options);
    run->phase = 0;
    if (minim_model_load(run->w->source.name, &options, &model, &error) != MINIM_OK) return tool_fail_error(&error);
    /* The output matrix is looked at behind the rounded layer. */
    const size_t output = layers_find(run->w, "output.weight");
    if (output < run->w->n) run->written[output] = 1;
    code = layers_run_text(run, model, 0, 1);
    if (output < run->w->n) run->written[output] = 0;
    minim_model_free(model);
    run->phase = 1.0 / 3;
    if (code < 0) code = layers_round_groups(run);
    for (size_t i = 0; i < run->w->n && code < 0; i++) {
        const char *name = run->w->tensors[i].from.name;
        if (i == output || !layers_needs(run, name)) continue;
        code = layers_make(run, i);
        if (code < 0) code = layers_write(run, i);
    }
    if (code < 0 && is_last) code = layers_take_output(run, &watch);
    run->phase = 2.0 / 3;
    if (code < 0 && (!is_last || watch)) code = layers_advance(run, watch);
    layers_forget(run);
    if (code < 0 && is_last && watch) code = layers_round_groups(run);
    if (code < 0 && is_last && watch) code = layers_write(run, output);
    return code;
}

static int layers_prepare(layers_run *run) {
    minim_error error = {.status = MINIM_OK};
    minim_model_info info = {.size = sizeof info};
    minim_model_options options;
    minim_model *model = NULL;
    minim_model_options_default(&options);
    options.level = MINIM_LOAD_VOCAB;
    if (minim_model_load(run->w->source.name, &options, &model, &error) != MINIM_OK) return tool_fail_error(&error);
    minim_model_get_info(model, &info);
    run->n_layers = info.n_layers;
    run->n_embd = (size_t)info.n_embd;
    int code =
        info.n_layers > 0 ? -1 : tool_fail("%s: minim cannot run this model, as gptq has to", run->w->source.name);
    if (code < 0) code = calibrate_read(model, &run->text);
    minim_model_free(model);
    if (code >= 0) return code;
    run->rows = calloc(LAYERS_ROWS, sizeof *run->rows);
    run->made = calloc(run->w->n ? run->w->n : 1, sizeof *run->made);
    run->written = calloc(run->w->n ? run->w->n : 1, 1);
    run->scratch = calloc(LAYERS_ROWS * run->n_embd, sizeof *run->scratch);
    if (run->text.tokens.n <= SIZE_MAX / sizeof *run->hidden / run->n_embd)
        run->hidden = calloc(run->text.tokens.n * run->n_embd, sizeof *run->hidden);
    if (run->rows && run->made && run->written && run->scratch && run->hidden) return -1;
    return tool_fail("out of memory for %zu tokens of width %zu", run->text.tokens.n, run->n_embd);
}

int quantize_by_layers(quantize_work *w, gguf_writer *writer) {
    layers_run run = {.w = w, .writer = writer, .code = -1};
    run.text = (calibrate_text){
        .path = w->settings->calibrate, .n_ctx = (size_t)w->settings->n_ctx, .n_chunks = (size_t)w->settings->n_chunks};
    tool_meter_begin(&run.meter, w->settings->quiet);
    blas_set_threads(w->settings->n_threads);
    int code = layers_prepare(&run);
    for (; run.layer < run.n_layers && code < 0; run.layer++) code = layers_one(&run);
    for (size_t i = 0; i < w->n && code < 0; i++) code = layers_write(&run, i);
    tool_meter_clear(&run.meter);
    if (run.made) layers_forget(&run);
    layers_free_groups(&run);
    tool_tokens_free(&run.text.tokens);
    free(run.hidden);
    free(run.scratch);
    free(run.rows);
    free(run.made);
    free(run.written);
    return code;
}
