/* cmd_pack.c: `minim pack IN OUT`: the same model with its matrices in the form that kernels use, so that the file can
 * be used where it is mapped.
 *
 * Panels pass through in pieces of a few megabytes, so memory does not grow with the model. Keys are copied as they
 * stand, also those that minim does not know; so are tensors that are no matrices. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "commands.h"
#include "common.h"
#include "gguf_source.h"

typedef struct pack_settings {
    int dry_run, quiet;
} pack_settings;

#define PACK(field) offsetof(pack_settings, field)

static const option pack_options[] = {
    {"--dry-run", NULL, OPTION_FLAG, PACK(dry_run), 0, 0,
     "print the list of tensors and the size of the file, write\nnothing; OUT may be left out"},
    {"-q, --quiet", NULL, OPTION_FLAG, PACK(quiet), 0, 0, "only errors on stderr"},
    {0},
};

static const option_usage pack_usage = {
    .command = "pack",
    .synopsis = "pack [OPTIONS] IN.gguf OUT.gguf",
    .about = "Writes the weights of a GGUF file as minim keeps them in memory: nothing of it has to be packed, so a\n"
             "model starts at once, and programs that use it at the same time share its memory. The answers stay the\n"
             "same to the bit, on every CPU. Only minim reads the file: keep the original.",
    .epilogue =
        "OUT appears under its name only when it is complete and was read back; an older one stays until then.\n"
        "While programs use it, replace it only like that: cutting or overwriting a mapped file kills them (SIGBUS).\n"
        "--no-mmap, where there is such an option, reads it into memory instead.",
    .max_arguments = 2,
};

/* ---- the plan ---------------------------------------------------------------------------------------------------- */

typedef struct pack_tensor {
    minim_tensor from;
    minim_panels panels; /* .n is 0 when it is copied */
    uint64_t bytes;
} pack_tensor;

/* Everything that is open or allocated while a file is packed. */
typedef struct pack_work {
    const pack_settings *settings;
    gguf_source source;
    gguf_head head;
    pack_tensor *tensors;
    size_t n, n_packed;
} pack_work;

/* The keys that say how the tensors lie come first: then it is known before the first one is read. */
static int pack_read_header(pack_work *w, const minim_panels *panels, uint32_t *ids) {
    static const char *const own[] = {"general.alignment", "minim.panels", NULL};
    gguf_head_alignment(&w->head, panels->alignment);
    gguf_head_u32(&w->head, "minim.panels", panels->layout);
    return gguf_source_copy_header(&w->source, own, &w->head, ids);
}

static int pack_plan_tensor(pack_work *w, size_t index, uint32_t id) {
    pack_tensor *tensor = &w->tensors[index];
    const minim_tensor *from = &tensor->from;
    const int packed = tensor->panels.n > 0;
    /* The panels of a matrix that lies in a file fit an uint64: they are at most 15 rows more. */
    tensor->bytes = packed ? tensor->panels.n * tensor->panels.panel_bytes : from->bytes;
    w->n_packed += (size_t)packed;
    gguf_head_tensor(&w->head, from->name, from->n_dims, from->dims, packed ? tensor->panels.type : id, tensor->bytes);
    return w->head.failed ? EXIT_CODE_FAILED : -1;
}

static int pack_make_plan(pack_work *w) {
    minim_error error = {.status = MINIM_OK};
    w->n = minim_model_tensor_count(w->source.model);
    if (!w->n) return tool_fail("%s: holds no tensors, there is nothing to pack", w->source.name);
    w->tensors = calloc(w->n, sizeof *w->tensors);
    uint32_t *ids = calloc(w->n, sizeof *ids);
    int code = w->tensors && ids ? -1 : tool_fail("out of memory");
    for (size_t i = 0; i < w->n && code < 0; i++) {
        w->tensors[i].panels.size = sizeof w->tensors[i].panels;
        if (minim_model_tensor(w->source.model, i, &w->tensors[i].from))
            code = tool_fail("%s: tensor %zu", w->source.name, i);
        else if (minim_model_panels(w->source.model, i, &w->tensors[i].panels, &error))
            code = tool_fail_error(&error);
    }
    if (code < 0) code = pack_read_header(w, &w->tensors[0].panels, ids);
    for (size_t i = 0; i < w->n && code < 0; i++) code = pack_plan_tensor(w, i, ids[i]);
    free(ids);
    if (code < 0 && !w->n_packed)
        code = tool_fail("%s: has no matrix that can be packed, expected the weights of a model", w->source.name);
    return code;
}

/* ---- the weights ------------------------------------------------------------------------------------------------- */

static int pack_write_panels(pack_work *w, size_t index, gguf_writer *writer) {
    enum { PIECE = 4 << 20 }; /* bytes */
    const minim_panels *panels = &w->tensors[index].panels;
    const uint64_t fit = PIECE / panels->panel_bytes;
    const size_t most = fit ? (size_t)fit : 1;
    uint8_t *piece = malloc(most * panels->panel_bytes);
    int code = piece ? -1 : tool_fail("out of memory");
    for (uint64_t done = 0; done < panels->n && code < 0;) {
        minim_error error = {.status = MINIM_OK};
        const size_t n = panels->n - done < most ? (size_t)(panels->n - done) : most;
        if (minim_model_read_panels(w->source.model, index, done, n, piece, &error))
            code = tool_fail_error(&error);
        else
            code = gguf_writer_put(writer, piece, n * panels->panel_bytes);
        done += n;
    }
    free(piece);
    return code;
}

static int pack_write(pack_work *w, const char *name) {
    gguf_writer writer;
    int code = gguf_writer_open(&writer, &w->head, name, w->settings->quiet);
    for (size_t i = 0; i < w->n && code < 0; i++) {
        code = w->tensors[i].panels.n ? pack_write_panels(w, i, &writer)
                                      : gguf_source_copy_data(&w->source, &w->tensors[i].from, &writer);
        if (code < 0) code = gguf_writer_end_tensor(&writer);
    }
    return gguf_writer_close(&writer, code);
}

/* ---- reports ----------------------------------------------------------------------------------------------------- */

static void pack_print_plan(const pack_work *w) {
    printf("%-34s %-8s %-8s %-20s %s\n", "tensor", "type", "becomes", "shape", "bytes");
    for (size_t i = 0; i < w->n; i++) {
        const pack_tensor *tensor = &w->tensors[i];
        char name[256], shape[96];
        int n = snprintf(shape, sizeof shape, "%" PRIu64, tensor->from.dims[0]);
        for (int k = 1; k < tensor->from.n_dims; k++)
            n += snprintf(shape + n, sizeof shape - (size_t)n, " x %" PRIu64, tensor->from.dims[k]);
        printf("%-34s %-8s %-8s %-20s %" PRIu64 "\n", tool_printable(tensor->from.name, name, sizeof name),
               tensor->from.type, tensor->panels.n ? "panels" : "-", shape, tensor->bytes);
    }
    printf("file: %" PRIu64 " bytes\n", gguf_head_file_bytes(&w->head));
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int pack_file(pack_work *w, const char *from, const char *name) {
    const double start = tool_seconds();
    char size[32];
    int code = gguf_source_open(&w->source, from);
    if (code < 0 && name) code = gguf_source_check_output(&w->source, name, "packed");
    if (code < 0) code = pack_make_plan(w);
    if (code >= 0) return code;
    if (w->settings->dry_run) {
        pack_print_plan(w);
        return EXIT_CODE_OK;
    }
    code = pack_write(w, name);
    if (code == EXIT_CODE_OK && !w->settings->quiet)
        fprintf(stderr, "%s: %zu matrices packed, %zu tensors kept, %s, in %.1f s\n", name, w->n_packed,
                w->n - w->n_packed, tool_size_text(gguf_head_file_bytes(&w->head), size, sizeof size),
                tool_seconds() - start);
    return code;
}

int cmd_pack(int argc, char **argv) {
    pack_settings settings = {0};
    pack_work work = {.settings = &settings};
    option_list arguments = {0};
    const option_table tables[] = {{"options", pack_options, &settings}, {0}};
    int code = options_parse(&pack_usage, tables, argc, argv, &arguments);
    if (code < 0 && arguments.n < 2 && !(settings.dry_run && arguments.n == 1))
        code = options_complain("pack", "expected the names of two files");
    if (code < 0) {
        tool_catch_interrupt();
        code = pack_file(&work, arguments.items[0], arguments.n > 1 ? arguments.items[1] : NULL);
    }
    gguf_head_free(&work.head);
    gguf_source_close(&work.source);
    free(work.tensors);
    option_list_free(&arguments);
    return code;
}
