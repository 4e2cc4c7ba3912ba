/* cmd_convert.c: `minim convert DIR OUT.gguf`: a Hugging Face directory becomes a GGUF file (convert.h says how).
 * Without jansson there is only the message that it is missing. */
#include "commands.h"
#include "common.h"

#ifndef MINIM_WITH_JANSSON

int cmd_convert(int argc, char **argv) {
    (void)argc, (void)argv;
    return tool_fail(
        "this minim was built without jansson (Debian: libjansson-dev): it cannot read the JSON files of a "
        "Hugging Face directory");
}

#else

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "convert.h"
#include "json.h"

/* ---- options ----------------------------------------------------------------------------------------------------- */

typedef struct convert_settings {
    const char *type;
    int dry_run, json, force, quiet;
} convert_settings;

#define CONVERT(field) offsetof(convert_settings, field)

static const option convert_options[] = {
    {"--type, --outtype", "auto|f32|f16|bf16", OPTION_CHOICE, CONVERT(type), 0, 0,
     "of the matrices; vectors are f32. auto (default): bf16 stays\nbf16, everything else becomes f16"},
    {"--dry-run", NULL, OPTION_FLAG, CONVERT(dry_run), 0, 0, "print the list of tensors, write nothing"},
    {"--json", NULL, OPTION_FLAG, CONVERT(json), 0, 0,
     "an object about the file on stdout; with --dry-run, its tensors"},
    {"--force", NULL, OPTION_FLAG, CONVERT(force), 0, 0, "overwrite OUT also when it is no GGUF file"},
    {"-q, --quiet", NULL, OPTION_FLAG, CONVERT(quiet), 0, 0, "only errors on stderr"},
    {0},
};

static const option_usage convert_usage = {
    .command = "convert",
    .synopsis = "convert [OPTIONS] DIR OUT.gguf",
    .about = "Turns a Hugging Face directory into a GGUF file, the same that llama.cpp's converter makes of it:\n"
             "config.json, model.safetensors (or its parts and their index), tokenizer.model or tokenizer.json; where\n"
             "they are there also tokenizer_config.json, chat_template.jinja and generation_config.json.",
    .epilogue =
        "Architectures: Llama, Mistral, Ministral 3, SmolLM 1 to 3, Qwen 2 and 3, Phi-3 and 4, Gemma 1 to 3 (text).\n"
        "OUT appears under its name only when it is complete and was read back; an older one stays until then.",
    .max_arguments = 2,
};

/* ---- the output -------------------------------------------------------------------------------------------------- */

static int convert_is_same(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Nothing that is read may be overwritten, and no file by mistake. */
static int convert_check_output(const convert_settings *settings, const convert_model *model,
                                const convert_sources *sources, const char *name) {
    static const char *const files[] = {"config.json",
                                        "tokenizer.json",
                                        "tokenizer.model",
                                        "tokenizer_config.json",
                                        "generation_config.json",
                                        "chat_template.jinja",
                                        "model.safetensors.index.json"};
    struct stat output, input;
    char path[CONVERT_PATH], magic[4] = "";
    if (stat(name, &output)) return -1;
    for (size_t i = 0; i < sources->n_parts; i++) {
        if (!stat(sources->parts[i].path, &input) && convert_is_same(&output, &input))
            return tool_fail("%s: this file is one of those to be converted", name);
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", model->directory, files[i]);
        if (!stat(path, &input) && convert_is_same(&output, &input))
            return tool_fail("%s: this file is one of those to be converted", name);
    }
    if (settings->force || !S_ISREG(output.st_mode) || output.st_size == 0) return -1;
    FILE *file = fopen(name, "rb");
    const size_t n = file ? fread(magic, 1, sizeof magic, file) : 0;
    if (file) fclose(file);
    if (n == sizeof magic && !memcmp(magic, "GGUF", sizeof magic)) return -1;
    return tool_fail("%s: the file exists already and is no GGUF file; --force overwrites it", name);
}

/* ---- reports ----------------------------------------------------------------------------------------------------- */

static const char *convert_type_title(uint32_t type) {
    return type == GGUF_WRITE_TENSOR_F32 ? "F32" : type == GGUF_WRITE_TENSOR_F16 ? "F16" : "BF16";
}

static const char *convert_origin(const convert_tensor *tensor) {
    return tensor->source ? tensor->source->name : "config.json";
}

static void convert_print_plan(const convert_plan *plan) {
    printf("%-34s %-5s %-15s %-5s %s\n", "tensor", "type", "shape", "from", "name there");
    for (size_t i = 0; i < plan->n; i++) {
        const convert_tensor *tensor = &plan->tensors[i];
        char shape[64];
        int n = snprintf(shape, sizeof shape, "%" PRIu64, tensor->dims[0]);
        for (int k = 1; k < tensor->n_dims && n < 40; k++)
            n += snprintf(shape + n, sizeof shape - (size_t)n, " x %" PRIu64, tensor->dims[k]);
        printf("%-34s %-5s %-15s %-5s %s%s%s\n", tensor->name, convert_type_title(tensor->type), shape,
               tensor->source ? tensor->source->dtype_name : "-", convert_origin(tensor),
               tensor->permute_heads ? ", rows change places" : "", tensor->shift ? ", 1 is added" : "");
    }
}

static void convert_print_json(const convert_settings *settings, const convert_model *model, const convert_plan *plan,
                               const char *name) {
    int first = 1;
    putchar('{');
    json_write_name(stdout, "file", &first);
    json_write_string(stdout, name, strlen(name));
    json_write_name(stdout, "architecture", &first);
    json_write_string(stdout, model->family->architecture, strlen(model->family->architecture));
    json_write_name(stdout, "type", &first);
    json_write_string(stdout, plan->type_name, strlen(plan->type_name));
    json_write_name(stdout, "params", &first);
    printf("%" PRIu64, plan->n_params);
    json_write_name(stdout, "tensor_bytes", &first);
    printf("%" PRIu64, plan->bytes);
    json_write_name(stdout, "n_vocab", &first);
    printf("%d", model->n_tokens);
    json_write_name(stdout, "n_tensors", &first);
    printf("%zu", plan->n);
    if (settings->dry_run) {
        json_write_name(stdout, "tensors", &first);
        for (size_t i = 0; i < plan->n; i++) {
            const convert_tensor *tensor = &plan->tensors[i];
            const char *origin = convert_origin(tensor);
            fputs(i ? ", {\"name\": " : "[{\"name\": ", stdout);
            json_write_string(stdout, tensor->name, strlen(tensor->name));
            printf(", \"type\": \"%s\", \"dims\": [", convert_type_title(tensor->type));
            for (int k = 0; k < tensor->n_dims; k++) printf("%s%" PRIu64, k ? ", " : "", tensor->dims[k]);
            fputs("], \"from\": ", stdout);
            json_write_string(stdout, origin, strlen(origin));
            putchar('}');
        }
        putchar(']');
    }
    puts("}");
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static void convert_put_tensors(const convert_plan *plan, gguf_head *head) {
    for (size_t i = 0; i < plan->n; i++) {
        const convert_tensor *tensor = &plan->tensors[i];
        gguf_head_tensor(head, tensor->name, tensor->n_dims, tensor->dims, tensor->type, tensor->bytes);
    }
}

static int convert_write(const convert_sources *sources, const convert_plan *plan, const gguf_head *head,
                         const char *name, int quiet) {
    gguf_writer writer;
    int code = gguf_writer_open(&writer, head, name, quiet);
    if (code < 0) code = convert_write_tensors(sources, plan, &writer);
    return gguf_writer_close(&writer, code);
}

static void convert_report(const convert_model *model, const convert_plan *plan, const char *name, double seconds) {
    char size[32];
    fprintf(stderr, "%s: %s, %s, %.1f million parameters, %zu tensors, %d tokens, %s in %.1f s\n", name,
            model->family->architecture, plan->type_name, (double)plan->n_params * 1e-6, plan->n, model->n_tokens,
            tool_size_text(plan->bytes, size, sizeof size), seconds);
}

/* Everything that is open or allocated while a directory is converted. */
typedef struct convert_work {
    convert_model model;
    convert_sources sources;
    convert_plan plan;
    gguf_head vocabulary, head;
} convert_work;

static int convert_directory(const convert_settings *settings, convert_work *w, const char *directory,
                             const char *name) {
    const double start = tool_seconds();
    w->model.quiet = settings->quiet;
    int code = convert_read_config(directory, &w->model);
    if (code < 0) code = convert_open_sources(directory, &w->sources);
    if (code < 0 && !settings->dry_run) code = convert_check_output(settings, &w->model, &w->sources, name);
    if (code < 0) code = convert_put_vocab(&w->model, &w->vocabulary);
    if (code < 0) code = convert_make_plan(&w->model, &w->sources, settings->type, &w->plan);
    if (code < 0) code = convert_put_general(&w->model, w->plan.n_params, &w->head);
    if (code < 0) code = convert_put_keys(&w->model, w->plan.file_type, &w->head);
    if (code >= 0) return code;
    gguf_head_u32(&w->head, "general.quantization_version", 2);
    gguf_head_join(&w->head, &w->vocabulary);
    convert_put_tensors(&w->plan, &w->head);
    if (w->head.failed) return EXIT_CODE_FAILED;
    code = settings->dry_run ? EXIT_CODE_OK : convert_write(&w->sources, &w->plan, &w->head, name, settings->quiet);
    if (code != EXIT_CODE_OK) return code;
    if (settings->json)
        convert_print_json(settings, &w->model, &w->plan, name);
    else if (settings->dry_run)
        convert_print_plan(&w->plan);
    if (!settings->quiet) convert_report(&w->model, &w->plan, name, tool_seconds() - start);
    return EXIT_CODE_OK;
}

int cmd_convert(int argc, char **argv) {
    convert_settings settings = {.type = "auto"};
    convert_work work = {0};
    option_list arguments = {0};
    const option_table tables[] = {{"options", convert_options, &settings}, {0}};
    int code = options_parse(&convert_usage, tables, argc, argv, &arguments);
    if (code < 0 && arguments.n < 2 && !(settings.dry_run && arguments.n == 1))
        code = options_complain("convert", "expected a directory and the name of a file");
    if (code < 0) {
        tool_catch_interrupt();
        code =
            convert_directory(&settings, &work, arguments.items[0], arguments.n > 1 ? arguments.items[1] : "(dry run)");
    }
    gguf_head_free(&work.head);
    gguf_head_free(&work.vocabulary);
    convert_free_plan(&work.plan);
    convert_close_sources(&work.sources);
    json_decref(work.model.config);
    option_list_free(&arguments);
    return code;
}

#endif
