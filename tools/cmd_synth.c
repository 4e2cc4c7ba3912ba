/* cmd_synth.c: `minim synth`: a GGUF file with random weights in the true shape of a model, to measure speed with. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "common.h"
#include "synth.h"

typedef struct synth_settings {
    const char *shape, *type, *output_type;
    int layers, embd, heads, kv_heads, head_dim, ff, vocab, ctx; /* 0 = as the shape has it */
    int tied, untied, list, force, quiet;
    uint64_t seed;
} synth_settings;

#define SYNTH(field) offsetof(synth_settings, field)
#define SYNTH_TYPES  "f32|f16|bf16|q8_0|q6_k|q5_1|q5_k|q5_0|q4_1|q4_k|q4_0|iq4_nl|iq4_xs|q3_k|q2_k"

static const option synth_model_options[] = {
    {"--shape", "NAME", OPTION_STRING, SYNTH(shape), 0, 0, "a known model's dimensions (see --list)"},
    {"--type", SYNTH_TYPES, OPTION_CHOICE, SYNTH(type), 0, 0, "type of all matrices (default q4_0)"},
    {"--output-type", SYNTH_TYPES, OPTION_CHOICE, SYNTH(output_type), 0, 0,
     "type of the embedding and the output matrix,\nwhich quantised files often keep at a higher one"},
    {"--seed", "N", OPTION_U64, SYNTH(seed), 0, 0, "the same seed gives the same file (default 0)"},
    {0},
};

static const option synth_shape_options[] = {
    {"--layers", "N", OPTION_INT, SYNTH(layers), 1, 1024, "number of layers"},
    {"--embd", "N", OPTION_INT, SYNTH(embd), 1, 1 << 20, "width of the residual stream"},
    {"--heads", "N", OPTION_INT, SYNTH(heads), 1, 4096, "attention heads"},
    {"--kv-heads", "N", OPTION_INT, SYNTH(kv_heads), 1, 4096, "key-value heads (default: as many as heads)"},
    {"--head-dim", "N", OPTION_INT, SYNTH(head_dim), 2, 1024, "dimensions of a head (default: embd / heads)"},
    {"--ff", "N", OPTION_INT, SYNTH(ff), 1, 1 << 20, "width of the feed-forward layer"},
    {"--vocab", "N", OPTION_INT, SYNTH(vocab), SYNTH_VOCAB_MIN, 1 << 20, "tokens (default 32000)"},
    {"--ctx", "N", OPTION_INT, SYNTH(ctx), 1, 1 << 30, "context length (default 2048)"},
    {"--tied", NULL, OPTION_FLAG, SYNTH(tied), 0, 0, "the embedding is also the output matrix"},
    {"--untied", NULL, OPTION_FLAG, SYNTH(untied), 0, 0, "the output matrix is one of its own (default)"},
    {0},
};

static const option synth_file_options[] = {
    {"--list", NULL, OPTION_FLAG, SYNTH(list), 0, 0, "print the known shapes and the sizes of their files"},
    {"--force", NULL, OPTION_FLAG, SYNTH(force), 0, 0, "overwrite FILE"},
    {"-q, --quiet", NULL, OPTION_FLAG, SYNTH(quiet), 0, 0, "only errors on stderr"},
    {0},
};

static const option_usage synth_usage = {
    .command = "synth",
    .synopsis = "synth --shape NAME [--type TYPE] [OPTIONS] FILE\n       minim synth --list",
    .about =
        "Writes a GGUF file with random weights in the shape of a model, for `minim bench` and for other engines'\n"
        "benchmarks. It computes as much as the real model and says nothing sensible.",
    .epilogue =
        "The architecture is always \"llama\". Shapes of other families get that family's dimensions and nothing else\n"
        "of it: no biases and no norms of queries and keys, and Q, K and V, or gate and up, are separate matrices.\n"
        "Vectors (norms) are f32. The vocabulary is a SentencePiece one of made-up words in the true size.",
    .max_arguments = 1,
};

/* ---- the shape --------------------------------------------------------------------------------------------------- */

/* Every field that an option sets replaces the one of the named shape. Returns -1 or an exit code. */
static int synth_make_shape(const synth_settings *settings, tool_shape *shape) {
    *shape = (tool_shape){
        .name = "custom", .family = "llama", .n_vocab = 32000, .n_ctx = 2048, .rope_base = 10000.0f, .norm_eps = 1e-5f};
    if (settings->shape) {
        const tool_shape *known = tool_shape_find(settings->shape);
        if (!known)
            return options_complain("synth", "--shape: \"%s\" is not known, expected one of minim synth --list",
                                    settings->shape);
        *shape = *known;
    }
    const struct {
        int given, *field;
    } part[] = {
        {settings->layers, &shape->n_layers},   {settings->embd, &shape->n_embd},
        {settings->heads, &shape->n_heads},     {settings->kv_heads, &shape->n_kv_heads},
        {settings->head_dim, &shape->head_dim}, {settings->ff, &shape->n_ff},
        {settings->vocab, &shape->n_vocab},     {settings->ctx, &shape->n_ctx},
        {settings->tied, &shape->tied},
    };
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        if (!part[i].given) continue;
        *part[i].field = part[i].given;
        shape->name = "custom";
    }
    if (settings->untied) {
        shape->tied = 0;
        shape->name = "custom";
    }
    if (!shape->n_kv_heads) shape->n_kv_heads = shape->n_heads;
    if (!shape->head_dim && shape->n_heads && shape->n_embd % shape->n_heads == 0)
        shape->head_dim = shape->n_embd / shape->n_heads;
    return -1;
}

/* What no engine would load is refused here. */
static int synth_check_shape(const synth_settings *settings, const tool_shape *shape) {
    if (settings->tied && settings->untied) return options_complain("synth", "--tied and --untied exclude each other");
    if (!shape->n_layers || !shape->n_embd || !shape->n_heads || !shape->n_ff) {
        return options_complain("synth", "expected --shape, or all of --layers --embd --heads --ff");
    }
    if (!shape->head_dim) {
        return options_complain("synth", "--embd %d is not a multiple of --heads %d: --head-dim is needed",
                                shape->n_embd, shape->n_heads);
    }
    if (shape->head_dim % 2 || shape->head_dim > 1024) {
        return options_complain("synth", "--head-dim: expected an even number up to 1024, found %d", shape->head_dim);
    }
    if (shape->n_heads % shape->n_kv_heads) {
        return options_complain("synth", "--heads %d is not a multiple of --kv-heads %d", shape->n_heads,
                                shape->n_kv_heads);
    }
    tool_matrix matrices[TOOL_LAYER_MATRICES];
    tool_shape_matrices(shape, matrices);
    const synth_type *type = synth_type_find(settings->type), *output = synth_type_find(settings->output_type);
    int block = type->block > output->block ? type->block : output->block;
    for (int i = 0; i < TOOL_LAYER_MATRICES; i++) {
        if (matrices[i].cols % block == 0) continue;
        return options_complain("synth", "%s has rows of %d weights, expected a multiple of %d for %s",
                                matrices[i].name, matrices[i].cols, block,
                                type->block == block ? type->name : output->name);
    }
    return -1;
}

static void synth_print_list(void) {
    static const char *const listed[] = {"f32", "f16", "q8_0", "q5_0", "q4_0"};
    enum { LISTED = sizeof listed / sizeof *listed };
    const tool_shape *shape;
    printf("%-16s %-7s %6s %5s %5s %8s %8s %5s %6s %7s %5s", "shape", "family", "layers", "embd", "heads", "kv-heads",
           "head-dim", "ff", "vocab", "ctx", "tied");
    for (size_t i = 0; i < LISTED; i++) printf(" %7s", listed[i]);
    putchar('\n');
    for (size_t i = 0; (shape = tool_shape_at(i)); i++) {
        printf("%-16s %-7s %6d %5d %5d %8d %8d %5d %6d %7d %5s", shape->name, shape->family, shape->n_layers,
               shape->n_embd, shape->n_heads, shape->n_kv_heads, shape->head_dim, shape->n_ff, shape->n_vocab,
               shape->n_ctx, shape->tied ? "yes" : "no");
        for (size_t k = 0; k < LISTED; k++) {
            const synth_type *type = synth_type_find(listed[k]);
            const synth_plan plan = {.shape = shape, .type = type, .output_type = type};
            char text[32];
            printf(" %7s", tool_size_text(synth_data_bytes(&plan), text, sizeof text));
        }
        putchar('\n');
    }
    puts("\nAll are written as architecture \"llama\": the others' biases, norms and fused matrices are left out.");
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int synth_command(synth_settings *settings, const option_list *arguments) {
    tool_shape shape;
    if (settings->list) {
        synth_print_list();
        return EXIT_CODE_OK;
    }
    if (!settings->type) settings->type = "q4_0";
    if (!settings->output_type) settings->output_type = settings->type;
    int code = synth_make_shape(settings, &shape);
    if (code < 0) code = synth_check_shape(settings, &shape);
    if (code < 0 && !arguments->n) code = options_complain("synth", "FILE is missing");
    if (code >= 0) return code;
    const synth_plan plan = {
        .shape = &shape,
        .type = synth_type_find(settings->type),
        .output_type = synth_type_find(settings->output_type),
        .seed = settings->seed,
        .force = settings->force,
        .quiet = settings->quiet,
    };
    tool_catch_interrupt();
    return synth_write_file(&plan, arguments->items[0]);
}

int cmd_synth(int argc, char **argv) {
    synth_settings settings = {0};
    option_list arguments = {0};
    const option_table tables[] = {
        {"model", synth_model_options, &settings},
        {"dimensions, instead of or on top of --shape", synth_shape_options, &settings},
        {"file", synth_file_options, &settings},
        {0},
    };
    int code = options_parse(&synth_usage, tables, argc, argv, &arguments);
    if (code < 0) code = synth_command(&settings, &arguments);
    option_list_free(&arguments);
    return code;
}
