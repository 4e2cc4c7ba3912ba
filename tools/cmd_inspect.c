/* cmd_inspect.c: `minim inspect`: what is in a GGUF file and what running it would take.
 *
 * Reads no weights but for --dump. A file whose vocabulary minim cannot read, or that holds none, is shown too: as far
 * as it goes. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "common.h"
#include "json.h"
#include "output.h"

typedef struct inspect_settings {
    tool_settings tool;
    int brief, meta, tensors, json, all;
    const char *tensor, *dump;
} inspect_settings;

#define INSPECT(field) offsetof(inspect_settings, field)

static const option inspect_options[] = {
    {"--brief", NULL, OPTION_FLAG, INSPECT(brief), 0, 0,
     "one screen: only the model in short and what it\nneeds in memory; a terminal gets no more than this"},
    {"--meta", NULL, OPTION_FLAG, INSPECT(meta), 0, 0, "only the metadata"},
    {"--tensors", NULL, OPTION_FLAG, INSPECT(tensors), 0, 0, "only the list of tensors"},
    {"--full", NULL, OPTION_FLAG, INSPECT(all), 0, 0, "long arrays and texts in full"},
    {"--json", NULL, OPTION_FLAG, INSPECT(json), 0, 0, "print one JSON object"},
    {"--tensor", "NAME", OPTION_STRING, INSPECT(tensor), 0, 0, "only this tensor"},
    {"--dump", "OUT.f32", OPTION_STRING, INSPECT(dump), 0, 0,
     "write the exact values of --tensor, in the order of\nthe file: float32, no header; \"-\" is standard output"},
    {0},
};

static const option_usage inspect_usage = {
    .command = "inspect",
    .synopsis = "inspect [OPTIONS] [FILE]",
    .about = "Shows what a GGUF file holds: the model in short, what it needs in memory, its metadata and its\n"
             "tensors. Works for any valid file, also of models that minim cannot run; reads no weights but\n"
             "for --dump.\n"
             "Without FILE: the built-in model. -c and --kv change the memory plan.",
    .max_arguments = 1,
};

/* What the sections print from. */
typedef struct inspect_file {
    const inspect_settings *settings;
    const minim_model *model;
    const char *name;
    minim_model_info info;
    minim_memory_plan plan;
    minim_error plan_error;  /* status is MINIM_OK when there is a plan */
    minim_error vocab_error; /* status is MINIM_OK when the vocabulary was read */
} inspect_file;

/* ---- values ------------------------------------------------------------------------------------------------------ */

enum { INSPECT_SHORT_ITEMS = 6, INSPECT_SHORT_TEXT = 70 };

/* The value of a metadata entry as JSON, in *buffer. 0 or -1 after a message. */
static int inspect_value(const inspect_file *file, size_t index, size_t max_items, tool_bytes *buffer) {
    for (;;) {
        size_t needed = 0;
        minim_status status =
            minim_model_meta_text(file->model, index, max_items, buffer->data, buffer->capacity, &needed);
        if (status == MINIM_OK) {
            buffer->n = needed;
            return 0;
        }
        if (status != MINIM_ERR_SPACE || needed < buffer->capacity) {
            tool_fail("%s: metadata entry %zu: %s", file->name, index, minim_status_name(status));
            return -1;
        }
        if (tool_bytes_reserve(buffer, needed + 1)) return -1;
    }
}

/* An error text without the file's name in front, which stands above already. */
static const char *inspect_reason(const inspect_file *file, const minim_error *error) {
    size_t n = strlen(file->name);
    return !strncmp(error->text, file->name, n) && !strncmp(error->text + n, ": ", 2) ? error->text + n + 2
                                                                                      : error->text;
}

/* Length of the longest part of text[0..n) that fits `most` bytes and ends between two characters. */
static size_t inspect_cut(const char *text, size_t n, size_t most) {
    if (!text || n <= most) return n;
    while (most > 0 && ((unsigned char)text[most] & 0xC0) == 0x80) most--;
    return most;
}

/* "64 x 512": dims in file order, the contiguous one first. */
static void inspect_shape(const minim_tensor *tensor, char *buffer, size_t size) {
    size_t used = 0;
    buffer[0] = 0;
    for (int i = 0; i < tensor->n_dims && used < size; i++) {
        int n = snprintf(buffer + used, size - used, "%s%" PRIu64, i ? " x " : "", tensor->dims[i]);
        used += n > 0 ? (size_t)n : 0;
    }
}

/* "260 thousand", "1.10 billion" */
static void inspect_count(uint64_t count, char *buffer, size_t size) {
    double n = (double)count;
    if (n >= 1e9)
        snprintf(buffer, size, "%.2f billion", n * 1e-9);
    else if (n >= 1e6)
        snprintf(buffer, size, "%.1f million", n * 1e-6);
    else
        snprintf(buffer, size, "%.0f thousand", n * 1e-3);
}

/* ---- for people -------------------------------------------------------------------------------------------------- */

static void inspect_print_model(const inspect_file *file) {
    const minim_model_info *info = &file->info;
    char count[64], size[32], name[256];
    inspect_count(info->n_params, count, sizeof count);
    printf("%s\n", file->name);
    if (*info->name) printf("  name           %s\n", tool_printable(info->name, name, sizeof name));
    printf("  architecture   %s\n",
           *info->architecture ? tool_printable(info->architecture, name, sizeof name) : "not named");
    if (info->n_params) {
        printf("  parameters     %s, %s in the file (%s)\n", count, tool_size_text(info->file_bytes, size, sizeof size),
               info->weight_types);
    } else {
        printf("  parameters     none: the file holds no tensors\n");
    }
    if (info->panels)
        printf("  packed         by minim pack: matrices in panels (layout %d), used where they lie\n", info->panels);
    if (info->n_layers) {
        printf("  transformer    %d layers of width %d, feed-forward %d\n", info->n_layers, info->n_embd, info->n_ff);
        printf("  attention      %d query heads, %d key/value heads, %d dimensions each\n", info->n_heads,
               info->n_kv_heads, info->head_dim);
    }
    if (file->vocab_error.status != MINIM_OK)
        printf("  vocabulary     %s\n", inspect_reason(file, &file->vocab_error));
    else if (info->n_vocab)
        printf("  vocabulary     %d tokens (begin %d, end %d)\n", info->n_vocab, info->bos, info->eos);
    if (info->n_ctx_train) printf("  context        %d tokens in training\n", info->n_ctx_train);
    if (info->chat_format && *info->chat_format) printf("  chat format    %s\n", info->chat_format);
}

/* The engine's words on the family, a line each. */
static void inspect_print_family(const inspect_file *file) {
    char text[2048];
    if (minim_model_explain(file->model, text, sizeof text, NULL) != MINIM_OK) return;
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        const char *tab = memchr(line, '\t', (size_t)(end - line));
        if (tab) printf("  %-14.*s %.*s\n", (int)(tab - line), line, (int)(end - tab - 1), tab + 1);
    }
}

static void inspect_print_plan(const inspect_file *file) {
    const minim_memory_plan *plan = &file->plan;
    char a[32], b[32];
    const char *kv = file->settings->tool.kv ? file->settings->tool.kv : "f16";
    if (file->plan_error.status != MINIM_OK) {
        printf("\nmemory: no plan, because minim cannot run this file:\n  %s\n",
               inspect_reason(file, &file->plan_error));
        return;
    }
    printf("\nmemory for one conversation of %d tokens, KV cache %s\n", plan->n_ctx, kv);
    printf("  weights        %s\n", tool_size_text(plan->weights, a, sizeof a));
    printf("  KV cache       %s when full, %s a token\n", tool_size_text(plan->kv_full, a, sizeof a),
           tool_size_text(plan->kv_per_token, b, sizeof b));
    printf("  scratch        %s\n", tool_size_text(plan->scratch, a, sizeof a));
    printf("  together       %s\n", tool_size_text(plan->weights + plan->kv_full + plan->scratch, a, sizeof a));
    if (file->info.step_bytes) {
        printf("  a generated token reads %s of weights\n", tool_size_text(file->info.step_bytes, a, sizeof a));
    }
}

static int inspect_print_meta(const inspect_file *file) {
    size_t n = minim_model_meta_count(file->model), items = file->settings->all ? 0 : INSPECT_SHORT_ITEMS;
    tool_bytes value = {0};
    printf("\nmetadata (%zu)\n", n);
    for (size_t i = 0; i < n; i++) {
        minim_meta meta;
        if (minim_model_meta(file->model, i, &meta) != MINIM_OK || inspect_value(file, i, items, &value)) {
            tool_bytes_free(&value);
            return EXIT_CODE_FAILED;
        }
        size_t shown = file->settings->all ? value.n : inspect_cut(value.data, value.n, INSPECT_SHORT_TEXT);
        char type[48], key[256];
        if (meta.count == 1)
            snprintf(type, sizeof type, "%s", meta.type);
        else
            snprintf(type, sizeof type, "%s x%" PRIu64, meta.type, meta.count);
        printf("  %-40s %-14s %.*s%s\n", tool_printable(meta.key, key, sizeof key), type, (int)shown, value.data,
               shown < value.n ? "..." : "");
    }
    tool_bytes_free(&value);
    return -1;
}

static int inspect_is_wanted(const inspect_file *file, const minim_tensor *tensor) {
    return !file->settings->tensor || !strcmp(file->settings->tensor, tensor->name);
}

static int inspect_print_tensors(const inspect_file *file) {
    size_t n = minim_model_tensor_count(file->model);
    printf("\ntensors (%zu); shapes: the contiguous dimension first\n", n);
    if (n) printf("  %-32s %-8s %-20s %10s  %s\n", "name", "type", "shape", "size", "in memory");
    for (size_t i = 0; i < n; i++) {
        minim_tensor tensor;
        char shape[96], size[32], name[256];
        if (minim_model_tensor(file->model, i, &tensor) != MINIM_OK) return EXIT_CODE_FAILED;
        if (!inspect_is_wanted(file, &tensor)) continue;
        inspect_shape(&tensor, shape, sizeof shape);
        printf("  %-32s %-8s %-20s %10s  %s\n", tool_printable(tensor.name, name, sizeof name), tensor.type, shape,
               tool_size_text(tensor.bytes, size, sizeof size), tensor.layout);
    }
    return -1;
}

static int inspect_print(const inspect_file *file) {
    const inspect_settings *settings = file->settings;
    int code = -1, everything = !settings->meta && !settings->tensors && !settings->tensor;
    if (everything) {
        inspect_print_model(file);
        inspect_print_family(file);
        inspect_print_plan(file);
    }
    if (everything && (settings->brief || (!settings->all && isatty(STDOUT_FILENO)))) {
        printf("\n%zu metadata keys: --meta, %zu tensors: --tensors\n", minim_model_meta_count(file->model),
               minim_model_tensor_count(file->model));
        return -1;
    }
    if (everything || settings->meta) code = inspect_print_meta(file);
    if (code < 0 && (everything || settings->tensors || settings->tensor)) code = inspect_print_tensors(file);
    return code;
}

/* ---- for programs ------------------------------------------------------------------------------------------------ */

static void inspect_json_text(const char *name, const char *text, int *first) {
    json_write_name(stdout, name, first);
    json_write_string(stdout, text ? text : "", text ? strlen(text) : 0);
}

static void inspect_json_number(const char *name, int64_t number, int *first) {
    json_write_name(stdout, name, first);
    printf("%" PRId64, number);
}

static void inspect_json_model(const inspect_file *file) {
    const minim_model_info *info = &file->info;
    int first = 1;
    inspect_json_text("file", file->name, &first);
    inspect_json_text("name", info->name, &first);
    inspect_json_text("architecture", info->architecture, &first);
    inspect_json_text("chat_format", info->chat_format, &first);
    inspect_json_text("weight_types", info->weight_types, &first);
    inspect_json_number("n_params", (int64_t)info->n_params, &first);
    inspect_json_number("file_bytes", (int64_t)info->file_bytes, &first);
    inspect_json_number("step_bytes", (int64_t)info->step_bytes, &first);
    inspect_json_number("panels", info->panels, &first);
    inspect_json_number("n_layers", info->n_layers, &first);
    inspect_json_number("n_embd", info->n_embd, &first);
    inspect_json_number("n_heads", info->n_heads, &first);
    inspect_json_number("n_kv_heads", info->n_kv_heads, &first);
    inspect_json_number("head_dim", info->head_dim, &first);
    inspect_json_number("n_ff", info->n_ff, &first);
    inspect_json_number("n_vocab", info->n_vocab, &first);
    if (file->vocab_error.status != MINIM_OK) inspect_json_text("vocabulary_error", file->vocab_error.text, &first);
    inspect_json_number("n_ctx_train", info->n_ctx_train, &first);
    inspect_json_number("bos", info->bos, &first);
    inspect_json_number("eos", info->eos, &first);
    json_write_name(stdout, "memory", &first);
    if (file->plan_error.status != MINIM_OK) {
        fputs("null", stdout);
        inspect_json_text("cannot_run", file->plan_error.text, &first);
        return;
    }
    int inner = 1;
    putchar('{');
    inspect_json_number("n_ctx", file->plan.n_ctx, &inner);
    inspect_json_number("weights", (int64_t)file->plan.weights, &inner);
    inspect_json_number("scratch", (int64_t)file->plan.scratch, &inner);
    inspect_json_number("kv_per_token", (int64_t)file->plan.kv_per_token, &inner);
    inspect_json_number("kv_full", (int64_t)file->plan.kv_full, &inner);
    putchar('}');
}

/* A list of entries and not an object: keys of a damaged file may come twice. */
static int inspect_json_meta(const inspect_file *file) {
    tool_bytes value = {0};
    size_t n = minim_model_meta_count(file->model);
    fputs(", \"metadata\": [", stdout);
    for (size_t i = 0; i < n; i++) {
        minim_meta meta;
        int first = 1;
        if (minim_model_meta(file->model, i, &meta) != MINIM_OK || inspect_value(file, i, 0, &value)) {
            tool_bytes_free(&value);
            return EXIT_CODE_FAILED;
        }
        fputs(i ? ", {" : "{", stdout);
        inspect_json_text("key", meta.key, &first);
        inspect_json_text("type", meta.type, &first);
        json_write_name(stdout, "value", &first);
        printf("%s}", value.data);
    }
    putchar(']');
    tool_bytes_free(&value);
    return -1;
}

static int inspect_json_tensors(const inspect_file *file) {
    size_t n = minim_model_tensor_count(file->model);
    int n_written = 0;
    fputs(", \"tensors\": [", stdout);
    for (size_t i = 0; i < n; i++) {
        minim_tensor tensor;
        int first = 1;
        if (minim_model_tensor(file->model, i, &tensor) != MINIM_OK) return EXIT_CODE_FAILED;
        if (!inspect_is_wanted(file, &tensor)) continue;
        fputs(n_written++ ? ", {" : "{", stdout);
        inspect_json_text("name", tensor.name, &first);
        inspect_json_text("type", tensor.type, &first);
        inspect_json_text("layout", tensor.layout, &first);
        json_write_name(stdout, "shape", &first);
        putchar('[');
        for (int d = 0; d < tensor.n_dims; d++) printf("%s%" PRIu64, d ? ", " : "", tensor.dims[d]);
        putchar(']');
        inspect_json_number("offset", (int64_t)tensor.offset, &first);
        inspect_json_number("bytes", (int64_t)tensor.bytes, &first);
        putchar('}');
    }
    putchar(']');
    return -1;
}

static int inspect_print_json(const inspect_file *file) {
    putchar('{');
    inspect_json_model(file);
    int code = inspect_json_meta(file);
    if (code < 0) code = inspect_json_tensors(file);
    fputs("}\n", stdout);
    return code;
}

/* ---- values of a tensor ------------------------------------------------------------------------------------------ */

static int inspect_write_values(const inspect_file *file, size_t index, const tool_output *output) {
    enum { MANY = 1 << 16 };
    minim_tensor tensor = {0};
    minim_error error = {.status = MINIM_OK};
    float *values = malloc(MANY * sizeof *values);
    int code = values ? -1 : tool_fail("out of memory");
    minim_model_tensor(file->model, index, &tensor);
    const uint64_t elements = tensor.dims[0] * tensor.dims[1] * tensor.dims[2] * tensor.dims[3];
    for (uint64_t at = 0; at < elements && code < 0; at += MANY) {
        const size_t n = elements - at < MANY ? (size_t)(elements - at) : MANY;
        errno = 0;
        if (minim_model_tensor_values(file->model, index, at, n, values, &error) != MINIM_OK)
            code = tool_fail_error(&error);
        else if (fwrite(values, sizeof *values, n, output->file) != n)
            code = tool_fail_output(output);
        else if (tool_interrupted())
            code = EXIT_CODE_INTERRUPTED;
    }
    free(values);
    return code;
}

static int inspect_dump(const inspect_file *file, size_t index) {
    tool_output output;
    if (tool_is_same_file(file->settings->dump, file->settings->tool.model))
        return tool_fail("%s: --dump would overwrite an input", file->settings->dump);
    int code = tool_open_output(file->settings->dump, &output);
    if (code < 0) code = inspect_write_values(file, index, &output);
    return tool_close_output(&output, code);
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int inspect_run(inspect_settings *settings, const option_list *arguments) {
    if (arguments->n && settings->tool.model) return options_complain("inspect", "the file is given twice");
    if (arguments->n) settings->tool.model = arguments->items[0];
    if (settings->dump && !settings->tensor) return options_complain("inspect", "--dump needs --tensor NAME");
    minim_model *model = NULL;
    inspect_file file = {
        .settings = settings,
        .name = settings->tool.model ? settings->tool.model : "built-in model",
        .info = {.size = sizeof file.info},
        .plan = {.size = sizeof file.plan},
    };
    tool_catch_interrupt();
    if (tool_try_load_model(&settings->tool, MINIM_LOAD_VOCAB, &model, NULL, &file.vocab_error) != MINIM_OK) {
        int failed = tool_load_model(&settings->tool, MINIM_LOAD_HEADER, &model, NULL);
        if (failed >= 0) return failed;
    }
    file.model = model;
    minim_engine_options options;
    tool_engine_settings(&settings->tool, &options);
    minim_model_get_info(model, &file.info);
    minim_engine_plan(model, &options, &file.plan, &file.plan_error);
    size_t index = 0, n = minim_model_tensor_count(model);
    minim_tensor tensor;
    while (settings->tensor && index < n &&
           (minim_model_tensor(model, index, &tensor) != MINIM_OK || strcmp(tensor.name, settings->tensor) != 0)) {
        index++;
    }
    int code;
    if (settings->tensor && index == n)
        code = tool_fail("%s: there is no tensor %s, expected one of the %zu that --tensors lists", file.name,
                         settings->tensor, n);
    else if (settings->dump)
        code = inspect_dump(&file, index);
    else
        code = settings->json ? inspect_print_json(&file) : inspect_print(&file);
    tool_flush();
    minim_model_free(model);
    return code < 0 ? EXIT_CODE_OK : code;
}

int cmd_inspect(int argc, char **argv) {
    inspect_settings settings = {0};
    option_list arguments = {0};
    tool_settings_default(&settings.tool);
    const option_table tables[] = {
        {"output", inspect_options, &settings},
        {"model", tool_model_options, &settings.tool},
        {"engine", tool_engine_options, &settings.tool},
        {0},
    };
    int code = options_parse(&inspect_usage, tables, argc, argv, &arguments);
    if (code < 0) code = inspect_run(&settings, &arguments);
    option_list_free(&arguments);
    option_list_free(&settings.tool.stop);
    return code;
}
