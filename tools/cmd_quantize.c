/* cmd_quantize.c: `minim quantize IN OUT --type T`: the same model with smaller weights.
 *
 * Numbers pass through in pieces of a fixed size, so memory does not grow with the model. Keys are copied as they
 * stand, also those that minim does not know. */
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blas.h"
#include "calibrate.h"
#include "commands.h"
#include "common.h"
#include "gguf_source.h"
#include "quantize_work.h"

/* ---- options ----------------------------------------------------------------------------------------------------- */

#define QUANTIZE(field) offsetof(quantize_settings, field)

static const option quantize_options[] = {
    {"--type", "T", OPTION_STRING, QUANTIZE(type), 0, 0,
     "of the matrices: Q8_0 Q6_K Q5_K Q4_K Q3_K Q5_0 Q5_1 Q4_0 Q4_1\nIQ4_NL IQ4_XS F16 BF16 F32, or a mixture: Q5_K_M "
     "Q5_K_S Q4_K_M\nQ4_K_S Q3_K_L Q3_K_M Q3_K_S Q2_K Q2_K_S"},
    {"--pure", NULL, OPTION_FLAG, QUANTIZE(pure), 0, 0, "a mixture without its rules: one type for all matrices"},
    {"--method", "nearest|search|gptq", OPTION_CHOICE, QUANTIZE(method), 0, 0,
     "search (default): for every block the scales with the\nsmallest squared error; nearest: plain rounding; gptq: "
     "the\nweights "
     "still to be rounded make up for the error of those\nthat are, as it counts for a text; needs --calibrate"},
    {"--imatrix", "FILE", OPTION_STRING, QUANTIZE(imatrix), 0, 0,
     "what `minim imatrix` or llama-imatrix has written: the search\nlooks for the smallest error weighted by it"},
    {"--calibrate", "TEXT", OPTION_STRING, QUANTIZE(calibrate), 0, 0,
     "for gptq: a text like those the model is meant for; some 100\nchunks are good"},
    {"-c, --ctx-size", "N", OPTION_INT, QUANTIZE(n_ctx), 4, INT_MAX,
     "tokens in a chunk of that text (default 512, or the context of\nthe model where that is shorter)"},
    {"--chunks", "N", OPTION_INT, QUANTIZE(n_chunks), 1, INT_MAX, "only N chunks (default: all)"},
    {"-t, --threads", "N", OPTION_INT, QUANTIZE(n_threads), 0, QUANTIZE_MAX_THREADS, "default: one for each CPU"},
    {"--dry-run", NULL, OPTION_FLAG, QUANTIZE(dry_run), 0, 0,
     "print the list of tensors and the size of the file, write\nnothing; OUT may be left out"},
    {"-q, --quiet", NULL, OPTION_FLAG, QUANTIZE(quiet), 0, 0, "only errors on stderr"},
    {0},
};

static const option_usage quantize_usage = {
    .command = "quantize",
    .synopsis = "quantize --type T [OPTIONS] IN.gguf OUT.gguf\n       minim quantize [OPTIONS] IN.gguf OUT.gguf T",
    .about = "Rounds the weights of a GGUF file to a smaller type. Vectors and norms stay as they are. Matrices whose\n"
             "rows are no multiple of the type's block (32 numbers; 256 for the K types) stay floats: F32 becomes F16.",
    .epilogue =
        "A mixture gives more bits to the matrices that need them, by the rules of llama-quantize.\n"
        "gptq goes through the model layer by layer, so it needs memory for one of them, and for 4 bytes times the\n"
        "tokens of the text times the width of the model. Files of every method are read by llama.cpp.\n"
        "OUT appears under its name only when it is complete and was read back; an older one stays until then.",
    .max_arguments = 3,
};

/* ---- the plan ---------------------------------------------------------------------------------------------------- */

/* What llama-quantize writes about an importance matrix. */
static void quantize_head_imatrix(quantize_work *w) {
    const imatrix *im = &w->im;
    const char *file = w->settings->imatrix;
    if (!im->n) return;
    gguf_head_string(&w->head, "quantize.imatrix.file", file, strlen(file));
    if (im->n_datasets)
        gguf_head_string(&w->head, "quantize.imatrix.dataset", im->datasets[0], strlen(im->datasets[0]));
    gguf_head_u32(&w->head, "quantize.imatrix.entries_count", (uint32_t)im->n);
    if (im->n_chunks) gguf_head_u32(&w->head, "quantize.imatrix.chunks_count", (uint32_t)im->n_chunks);
}

/* Keys that describe this file are written anew. */
static int quantize_read_header(quantize_work *w) {
    static const char *const own[] = {"general.file_type",
                                      "general.quantization_version",
                                      "general.alignment",
                                      "quantize.imatrix.file",
                                      "quantize.imatrix.dataset",
                                      "quantize.imatrix.entries_count",
                                      "quantize.imatrix.chunks_count",
                                      NULL};
    uint32_t *ids = calloc(w->n ? w->n : 1, sizeof *ids);
    int code = ids ? gguf_source_copy_header(&w->source, own, &w->head, ids) : tool_fail("out of memory");
    for (size_t i = 0; i < w->n && code < 0; i++) w->tensors[i].id = ids[i];
    free(ids);
    if (code >= 0) return code;
    gguf_head_u32(&w->head, "general.quantization_version", 2);
    gguf_head_u32(&w->head, "general.file_type", w->target->file_type);
    quantize_head_imatrix(w);
    return w->head.failed ? EXIT_CODE_FAILED : -1;
}

static int quantize_plan_tensor(quantize_work *w, const quantize_shape *shape, quantize_tensor *tensor) {
    const minim_tensor *from = &tensor->from;
    tensor->elements = from->dims[0] * from->dims[1] * from->dims[2] * from->dims[3];
    tensor->to = quantize_choose(w->target, w->settings->pure, shape, from);
    if (tensor->to && !strcmp(from->layout, "unsupported")) tensor->to = NULL;
    if (tensor->elements > UINT64_MAX / 8) return tool_fail("%s: tensor %s is too large", w->source.name, from->name);
    const encode_type *to = tensor->to;
    tensor->at = w->head.data_bytes;
    tensor->bytes = to ? tensor->elements / (uint64_t)to->block * (uint64_t)to->bytes : from->bytes;
    gguf_head_tensor(&w->head, from->name, from->n_dims, from->dims, to ? to->id : tensor->id, tensor->bytes);
    return w->head.failed ? EXIT_CODE_FAILED : -1;
}

static int quantize_make_plan(quantize_work *w) {
    quantize_shape shape = {0};
    w->n = minim_model_tensor_count(w->source.model);
    if (!w->n) return tool_fail("%s: holds no tensors, there is nothing to quantise", w->source.name);
    w->tensors = calloc(w->n ? w->n : 1, sizeof *w->tensors);
    if (!w->tensors) return tool_fail("out of memory");
    for (size_t i = 0; i < w->n; i++) {
        if (minim_model_tensor(w->source.model, i, &w->tensors[i].from))
            return tool_fail("%s: tensor %zu", w->source.name, i);
        quantize_see(&shape, &w->tensors[i].from);
    }
    int code = quantize_read_header(w);
    for (size_t i = 0; i < w->n && code < 0; i++) code = quantize_plan_tensor(w, &shape, &w->tensors[i]);
    return code;
}

/* ---- the weights ------------------------------------------------------------------------------------------------- */

/* A part of the blocks of a piece, for one thread. */
typedef struct quantize_job {
    const quantize_work *w;
    size_t index, n_blocks;
    uint64_t first; /* element, in its tensor [n_mats][rows][cols] */
    float *x;       /* [n_blocks * block] */
    uint8_t *out;   /* [n_blocks * bytes] */
    minim_error error;
    size_t not_finite, too_large; /* the first such element, behind `first`, or SIZE_MAX */
} quantize_job;

static void *quantize_run_job(void *argument) {
    quantize_job *job = argument;
    const quantize_tensor *tensor = &job->w->tensors[job->index];
    const encode_type *type = tensor->to;
    const uint64_t cols = tensor->from.dims[0], rows = tensor->from.dims[1];
    const size_t block = (size_t)type->block, n = job->n_blocks * block;
    const int search = strcmp(job->w->settings->method, "nearest") != 0;
    if (minim_model_tensor_values(job->w->source.model, job->index, job->first, n, job->x, &job->error)) return NULL;
    const size_t bad = calibrate_find_bad(job->x, n);
    if (bad < n) job->not_finite = bad;
    for (size_t i = 0; i < n && bad == n; i += block) {
        const uint64_t at = job->first + i;
        const float *weight = job->w->weights ? job->w->weights + at / (cols * rows) * cols + at % cols : NULL;
        uint8_t *out = job->out + i / block * (size_t)type->bytes;
        if (!(search ? encode_search(type, job->x + i, weight, out) : encode_nearest(type, job->x + i, out))) continue;
        job->too_large = i;
        break;
    }
    return NULL;
}

/* The message about a number that is none. */
static int quantize_fail_number(const quantize_work *w, size_t index, uint64_t element, float x) {
    char name[256];
    return tool_fail("%s: tensor %s: element %" PRIu64 " is %s, expected a finite number", w->source.name,
                     tool_printable(w->tensors[index].from.name, name, sizeof name), element,
                     isnan(x) ? "NaN" : "infinite");
}

/* Reads n numbers of a tensor from the first-th on into w->values and encodes them to w->raw. */
static int quantize_encode(const quantize_work *w, size_t index, uint64_t first, size_t n) {
    const encode_type *type = w->tensors[index].to;
    quantize_job jobs[QUANTIZE_MAX_THREADS];
    pthread_t threads[QUANTIZE_MAX_THREADS];
    int started[QUANTIZE_MAX_THREADS], code = -1;
    const size_t block = (size_t)type->block, n_blocks = n / block, n_jobs = (size_t)w->settings->n_threads;
    for (size_t i = 0; i < n_jobs; i++) {
        const size_t start = n_blocks * i / n_jobs, end = n_blocks * (i + 1) / n_jobs;
        jobs[i] = (quantize_job){.w = w,
                                 .index = index,
                                 .n_blocks = end - start,
                                 .first = first + start * block,
                                 .x = w->values + start * block,
                                 .out = w->raw + start * (size_t)type->bytes,
                                 .error.status = MINIM_OK,
                                 .not_finite = SIZE_MAX,
                                 .too_large = SIZE_MAX};
        started[i] = i > 0 && !pthread_create(&threads[i], NULL, quantize_run_job, &jobs[i]);
    }
    for (size_t i = 0; i < n_jobs; i++)
        if (!started[i]) quantize_run_job(&jobs[i]);
    for (size_t i = 0; i < n_jobs; i++)
        if (started[i]) pthread_join(threads[i], NULL);
    for (size_t i = 0; i < n_jobs && code < 0; i++) {
        const quantize_job *job = &jobs[i];
        if (job->error.status)
            code = tool_fail_error(&job->error);
        else if (job->not_finite < SIZE_MAX)
            code = quantize_fail_number(w, index, job->first + job->not_finite, job->x[job->not_finite]);
        else if (job->too_large < SIZE_MAX)
            code = quantize_fail_large(w, index, job->first + job->too_large);
    }
    return code;
}

int quantize_read_values(const quantize_work *w, size_t index, uint64_t first, size_t n, float *values) {
    minim_error error = {.status = MINIM_OK};
    if (minim_model_tensor_values(w->source.model, index, first, n, values, &error) != MINIM_OK)
        return tool_fail_error(&error);
    const size_t bad = calibrate_find_bad(values, n);
    return bad < n ? quantize_fail_number(w, index, first + bad, values[bad]) : -1;
}

/* Makes w->weights of a tensor's importance matrix: the mean square of each input, and a little for those that are
 * always zero. NULL where there is no matrix. Returns -1 or an exit code. */
static int quantize_take_weights(quantize_work *w, const quantize_tensor *tensor) {
    const imatrix_entry *entry = imatrix_find(&w->im, tensor->from.name);
    const uint64_t *dims = tensor->from.dims;
    char name[256];
    free(w->weights);
    w->weights = NULL;
    if (!entry || !strcmp(w->settings->method, "nearest")) return -1;
    if (entry->cols != dims[0] || entry->n_mats != dims[2] * dims[3])
        return tool_fail("%s: importance matrix of %s has %zu x %zu inputs, expected %" PRIu64 " x %" PRIu64,
                         w->settings->imatrix, tool_printable(tensor->from.name, name, sizeof name), entry->n_mats,
                         entry->cols, dims[2] * dims[3], dims[0]);
    const size_t n = entry->cols * entry->n_mats;
    w->weights = malloc(n * sizeof *w->weights);
    if (!w->weights) return tool_fail("out of memory");
    for (size_t mat = 0; mat < entry->n_mats; mat++) {
        const double *sums = entry->sums + mat * entry->cols;
        double mean = 0;
        for (size_t i = 0; i < entry->cols; i++) mean += sums[i] / (double)entry->cols;
        for (size_t i = 0; i < entry->cols; i++)
            w->weights[mat * entry->cols + i] = mean > 0 ? (float)(sums[i] / mean + 1e-3) : 1;
    }
    return -1;
}

int quantize_fail_large(const quantize_work *w, size_t index, uint64_t element) {
    char name[256];
    return tool_fail("%s: tensor %s: a number near element %" PRIu64 " is too large for the type %s", w->source.name,
                     tool_printable(w->tensors[index].from.name, name, sizeof name), element,
                     w->tensors[index].to->name);
}

/* To the file, or to memory where there is no writer. */
static int quantize_put(gguf_writer *writer, uint8_t **memory, const uint8_t *data, size_t n) {
    if (writer) return gguf_writer_put(writer, data, n);
    if (tool_interrupted()) return EXIT_CODE_INTERRUPTED;
    memcpy(*memory, data, n);
    *memory += n;
    return -1;
}

static int quantize_write_encoded(quantize_work *w, size_t index, gguf_writer *writer, uint8_t *memory) {
    const quantize_tensor *tensor = &w->tensors[index];
    const size_t block = (size_t)tensor->to->block;
    int code = quantize_take_weights(w, tensor);
    for (uint64_t done = 0; done < tensor->elements && code < 0;) {
        const uint64_t left = tensor->elements - done;
        const size_t n = left < QUANTIZE_PIECE ? (size_t)left : QUANTIZE_PIECE;
        code = quantize_encode(w, index, done, n);
        if (code < 0) code = quantize_put(writer, &memory, w->raw, n / block * (size_t)tensor->to->bytes);
        done += n;
    }
    return code;
}

/* As it stands in the input; numbers are looked at all the same. */
static int quantize_write_copied(quantize_work *w, size_t index, gguf_writer *writer, uint8_t *memory) {
    const quantize_tensor *tensor = &w->tensors[index];
    int code = -1;
    for (uint64_t done = 0; done < tensor->elements && code < 0 && strcmp(tensor->from.layout, "unsupported");) {
        const uint64_t left = tensor->elements - done;
        const size_t n = left < QUANTIZE_PIECE ? (size_t)left : QUANTIZE_PIECE;
        code = quantize_read_values(w, index, done, n, w->values);
        done += n;
    }
    if (code >= 0) return code;
    return writer ? gguf_source_copy_data(&w->source, &tensor->from, writer)
                  : gguf_source_read_data(&w->source, &tensor->from, memory);
}

int quantize_write_tensor(quantize_work *w, size_t index, gguf_writer *writer, uint8_t *memory) {
    return w->tensors[index].to ? quantize_write_encoded(w, index, writer, memory)
                                : quantize_write_copied(w, index, writer, memory);
}

static int quantize_write(quantize_work *w, const char *name) {
    gguf_writer writer;
    const int by_layers = !strcmp(w->settings->method, "gptq"); /* which shows the progress itself */
    int code = gguf_writer_open(&writer, &w->head, name, w->settings->quiet || by_layers);
    if (code < 0 && by_layers) code = quantize_by_layers(w, &writer);
    for (size_t i = 0; i < w->n && code < 0 && !by_layers; i++) {
        code = quantize_write_tensor(w, i, &writer, NULL);
        if (code < 0) code = gguf_writer_end_tensor(&writer);
    }
    return gguf_writer_close(&writer, code);
}

/* ---- reports ----------------------------------------------------------------------------------------------------- */

static void quantize_print_plan(const quantize_work *w) {
    printf("%-34s %-8s %-8s %-20s %s\n", "tensor", "from", "to", "shape", "bytes");
    for (size_t i = 0; i < w->n; i++) {
        const quantize_tensor *tensor = &w->tensors[i];
        char name[256], shape[96];
        int n = snprintf(shape, sizeof shape, "%" PRIu64, tensor->from.dims[0]);
        for (int k = 1; k < tensor->from.n_dims; k++)
            n += snprintf(shape + n, sizeof shape - (size_t)n, " x %" PRIu64, tensor->from.dims[k]);
        printf("%-34s %-8s %-8s %-20s %" PRIu64 "\n", tool_printable(tensor->from.name, name, sizeof name),
               tensor->from.type, tensor->to ? tensor->to->name : tensor->from.type, shape, tensor->bytes);
    }
    printf("file: %" PRIu64 " bytes\n", gguf_head_file_bytes(&w->head));
}

static void quantize_report(const quantize_work *w, const char *name, double seconds) {
    uint64_t elements = 0, bytes = 0;
    size_t n_encoded = 0;
    char size[32];
    for (size_t i = 0; i < w->n; i++) {
        elements += w->tensors[i].elements;
        bytes += w->tensors[i].bytes;
        n_encoded += w->tensors[i].to != NULL;
    }
    fprintf(stderr, "%s: %s by %s, %zu tensors rounded, %zu kept, %s, %.2f bits a weight, in %.1f s\n", name,
            w->target->name, w->settings->method, n_encoded, w->n - n_encoded,
            tool_size_text(gguf_head_file_bytes(&w->head), size, sizeof size),
            elements ? 8 * (double)bytes / (double)elements : 0.0, seconds);
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int quantize_open(quantize_work *w, const char *name) {
    const int code = gguf_source_open(&w->source, name);
    if (code >= 0) return code;
    w->values = malloc(QUANTIZE_PIECE * sizeof *w->values);
    w->raw = malloc((size_t)QUANTIZE_PIECE * 4);
    return w->values && w->raw ? -1 : tool_fail("out of memory");
}

static int quantize_file(quantize_work *w, const char *from, const char *name) {
    const double start = tool_seconds();
    int code = quantize_open(w, from);
    if (code < 0 && name) code = gguf_source_check_output(&w->source, name, "quantized");
    if (code < 0 && (tool_is_same_file(name, w->settings->imatrix) || tool_is_same_file(name, w->settings->calibrate)))
        code = tool_fail("%s: the output would overwrite an input", name);
    if (code < 0 && !strcmp(w->settings->method, "gptq")) code = blas_open();
    if (code < 0 && w->settings->imatrix) code = imatrix_read(&w->im, w->settings->imatrix);
    if (code < 0) code = quantize_make_plan(w);
    if (code >= 0) return code;
    if (w->settings->dry_run) {
        quantize_print_plan(w);
        return EXIT_CODE_OK;
    }
    code = quantize_write(w, name);
    if (code == EXIT_CODE_OK && !w->settings->quiet) quantize_report(w, name, tool_seconds() - start);
    return code;
}

int cmd_quantize(int argc, char **argv) {
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    quantize_settings settings = {.method = "search"};
    settings.n_threads = cpus < 1 ? 1 : cpus > QUANTIZE_MAX_THREADS ? QUANTIZE_MAX_THREADS : (int)cpus;
    quantize_work work = {.settings = &settings};
    option_list arguments = {0};
    const option_table tables[] = {{"options", quantize_options, &settings}, {0}};
    int code = options_parse(&quantize_usage, tables, argc, argv, &arguments);
    if (code < 0 && !settings.type && arguments.n == 3) settings.type = arguments.items[--arguments.n];
    if (code < 0 && arguments.n > 2) code = options_complain("quantize", "expected the names of two files");
    if (code < 0 && arguments.n < 2 && !(settings.dry_run && arguments.n == 1))
        code = options_complain("quantize", "expected the names of two files");
    if (code < 0 && !strcmp(settings.method, "gptq") && !settings.calibrate && !settings.dry_run)
        code = options_complain("quantize", "--method gptq: expected --calibrate TEXT");
    if (code < 0 && strcmp(settings.method, "gptq") != 0 && settings.calibrate)
        code = options_complain("quantize", "--calibrate goes with --method gptq only");
    if (code < 0 && !strcmp(settings.method, "nearest") && settings.imatrix)
        code = options_complain("quantize", "--imatrix means nothing to --method nearest");
    if (code < 0 && !settings.type) code = options_complain("quantize", "expected --type");
    if (code < 0) {
        work.target = quantize_find_target(settings.type);
        if (!work.target) code = options_complain("quantize", "--type: there is no type \"%s\"", settings.type);
    }
    if (code < 0) {
        tool_catch_interrupt();
        code = quantize_file(&work, arguments.items[0], arguments.n > 1 ? arguments.items[1] : NULL);
    }
    gguf_head_free(&work.head);
    gguf_source_close(&work.source);
    free(work.tensors);
    free(work.values);
    free(work.weights);
    imatrix_free(&work.im);
    free(work.raw);
    option_list_free(&arguments);
    return code;
}
