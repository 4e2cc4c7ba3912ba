/* test_family.c: the forward pass of every family: against golden logits where ../shared lies beside the repository,
 * against a float64 pass of our own everywhere, the same bits on every way to compute them, and what is said of files
 * that are almost right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../engine/engine.h"
#include "../engine/minim.h"
#include "../kernels/kernels.h"
#include "../models/family.h"
#include "family_model.h"
#include "gguf_writer.h"
#include "synth.h"

enum { N_VOCAB = FAMILY_MODEL_VOCAB };

#define COUNT(a) (sizeof(a) / sizeof *(a))

static void family_ok(minim_status status, const minim_error *e) {
    if (status) fail_msg("%s: %s", minim_status_name(status), e->text);
}

static minim_model *family_load(const void *image, size_t size, const char *name) {
    minim_error e;
    minim_model *m;
    minim_model_options o;
    minim_model_options_default(&o);
    o.n_threads = 1;
    family_ok(minim_model_load_memory(image, size, name, &o, &m, &e), &e);
    return m;
}

typedef struct family_setup {
    const char *isa;
    int threads, chunk, page, n_ctx; /* chunk 0: all at once */
    minim_rope_factors factors;
    int q8;   /* 1: int8 keys and values */
    int some; /* logits of rows some - 1, 2 * some - 1 ... only; 0 = of all */
} family_setup;

static int family_wants(const family_setup *s, size_t row) {
    return !s->some || row % (size_t)s->some == (size_t)s->some - 1;
}

/* Logits with F32 keys and values, [rows that want them][N_VOCAB]; free() them. */
static float *family_logits(const minim_model *m, const family_setup *s, const int32_t *tokens, size_t n) {
    minim_error e;
    minim_engine *engine;
    minim_engine_options o;
    minim_engine_options_default(&o);
    o.isa = s->isa, o.n_threads = s->threads, o.n_ctx = s->n_ctx;
    o.kv_type = s->q8 ? MINIM_KV_Q8 : MINIM_KV_F32;
    o.rope_factors = s->factors;
    if (s->page) o.page_size = s->page;
    family_ok(minim_engine_new(m, &o, &engine, &e), &e);
    engine->share_all = 1;
    minim_seq *seq;
    family_ok(minim_seq_new(engine, &seq, &e), &e);
    minim_row *rows = calloc(n, sizeof *rows);
    float *logits = malloc(n * N_VOCAB * sizeof *logits);
    assert_true(rows && logits);
    for (size_t i = 0; i < n; i++) rows[i] = (minim_row){seq, tokens[i], family_wants(s, i)};
    size_t chunk = s->chunk ? (size_t)s->chunk : n, done = 0;
    for (size_t i = 0; i < n; i += chunk) {
        size_t now = n - i < chunk ? n - i : chunk;
        family_ok(minim_engine_step(engine, rows + i, now, logits + done * N_VOCAB, &e), &e);
        for (size_t k = i; k < i + now; k++) done += (size_t)family_wants(s, k);
    }
    free(rows);
    minim_seq_free(seq);
    minim_engine_free(engine);
    return logits;
}

/* ---- the same bits ----------------------------------------------------------------------------------------------- */

/* On every instruction set, with other threads, chunks and pages, and where only some rows want them, the logits are
 * `want`. */
static void family_same_bits(const minim_model *m, const char *name, int n_ctx, const int32_t *tokens, size_t n,
                             const float *want) {
    static const family_setup how[] = {{.threads = 1, .chunk = 1, .page = 16},
                                       {.threads = 2, .chunk = 7, .page = 16},
                                       {.threads = 3, .page = 64},
                                       {.threads = 2, .some = 3}};
    const char *isa;
    for (int i = 0; (isa = kern_isa_name(i)); i++) {
        if (!kern_isa_available(isa)) continue;
        for (size_t k = 0; k < COUNT(how); k++) {
            family_setup s = how[k];
            s.isa = isa, s.n_ctx = n_ctx;
            float *got = family_logits(m, &s, tokens, n);
            for (size_t row = 0, of = 0; row < n; row++) {
                if (!family_wants(&s, row)) continue;
                if (memcmp(got + of++ * N_VOCAB, want + row * N_VOCAB, N_VOCAB * sizeof *got) != 0) {
                    fail_msg("%s: isa %s, %d threads, chunks of %d, pages of %d, row %zu: other bits", name, isa,
                             s.threads, s.chunk, s.page, row);
                }
            }
            free(got);
        }
    }
}

/* ---- golden logits ----------------------------------------------------------------------------------------------- */

static float *read_floats(const char *path, size_t n) {
    FILE *f = fopen(path, "rb");
    float *x = malloc(n * sizeof *x);
    if (!f || !x || fread(x, sizeof *x, n, f) != n) fail_msg("%s can not be read", path);
    fclose(f);
    return x;
}

static void golden_folder(const char *folder, const char *name) {
    char path[1024];
    int32_t tokens[256];
    size_t n = 0;
    minim_error e;
    minim_model *m;
    snprintf(path, sizeof path, "%s/%s/tokens.txt", folder, name);
    FILE *f = fopen(path, "r");
    if (!f) return; /* not a folder of a family */
    for (int id; n < COUNT(tokens) && fscanf(f, "%d", &id) == 1;) tokens[n++] = id;
    fclose(f);
    snprintf(path, sizeof path, "%s/%s/model.gguf", folder, name);
    family_ok(minim_model_load(path, NULL, &m, &e), &e);
    snprintf(path, sizeof path, "%s/%s/logits.f32", folder, name);
    float *want = read_floats(path, n * N_VOCAB);
    float *got = family_logits(m, &(family_setup){.threads = 2, .n_ctx = 256}, tokens, n);
    double worst = 0, bar = strcmp(name, "gemma2-27b") != 0 ? 3e-4 : 1e-3;
    for (size_t k = 0; k < n * N_VOCAB; k++) worst = fmax(worst, fabs((double)got[k] - (double)want[k]));
    print_message("  %-20s largest difference %.1e, allowed %.0e\n", name, worst, bar);
    if (!(worst <= bar)) fail_msg("%s: largest difference %g", name, worst);
    family_same_bits(m, name, 256, tokens, n, got);
    free(got);
    free(want);
    minim_model_free(m);
}

static void every_family_gives_the_golden_logits(void **state) {
    (void)state;
    const char *shared = getenv("MINIM_SHARED");
    char folder[512];
    struct dirent **entry;
    snprintf(folder, sizeof folder, "%s/fixtures/logits", shared ? shared : "../shared");
    int n = scandir(folder, &entry, NULL, alphasort);
    if (n < 0) {
        print_message("%s is not there: only the models of this repository were run\n", folder);
        skip();
    }
    for (int i = 0; i < n; i++) {
        if (entry[i]->d_name[0] != '.') golden_folder(folder, entry[i]->d_name);
        free(entry[i]);
    }
    free(entry);
}

/* ---- models of our own ------------------------------------------------------------------------------------------- */

static void compare_with_reference(const family_model *f, size_t n, double bar) {
    int32_t tokens[320];
    size_t size;
    int n_ctx = f->n_ctx ? f->n_ctx : 512;
    assert_true(n <= COUNT(tokens));
    synth_tokens(tokens, n);
    void *image = family_model_image(f, -1, FAMILY_INTACT, NULL, &size);
    assert_non_null(image);
    minim_model *m = family_load(image, size, f->name);
    double *want = family_model_logits(image, size, tokens, (int)n, n_ctx), worst = 0, square = 0;
    float *got = family_logits(m, &(family_setup){.threads = 2, .n_ctx = n_ctx}, tokens, n);
    for (size_t k = 0; k < n * N_VOCAB; k++) {
        worst = fmax(worst, fabs((double)got[k] - want[k]));
        square += want[k] * want[k] / (double)(n * N_VOCAB);
        if (got[k] != got[k]) worst = INFINITY;
    }
    print_message("  %-28s %3zu tokens, logits of %.1f, largest difference %.1e\n", f->name, n, sqrt(square), worst);
    if (!(worst <= bar)) fail_msg("%s: largest difference %g", f->name, worst);
    family_same_bits(m, f->name, n_ctx, tokens, n, got);
    free(got);
    free(want);
    free(image);
    minim_model_free(m);
}

static void every_family_agrees_with_a_float64_pass(void **state) {
    (void)state;
    for (const family_model *f = family_models; f->name; f++) compare_with_reference(f, 40, 3e-4);
}

/* Integer matrices take other ways through a step than those of floats: activations are quantised wherever they end. */
static void every_family_has_the_same_bits_with_integers(void **state) {
    (void)state;
    int32_t tokens[40];
    synth_tokens(tokens, COUNT(tokens));
    for (const family_model *f = family_models; f->name; f++) {
        size_t size;
        void *image = family_model_image(f, -1, FAMILY_INTEGERS, NULL, &size);
        assert_non_null(image);
        minim_model *m = family_load(image, size, f->name);
        float *want = family_logits(m, &(family_setup){.isa = "ref", .threads = 1, .chunk = 1, .n_ctx = 512}, tokens,
                                    COUNT(tokens));
        family_same_bits(m, f->name, 512, tokens, COUNT(tokens), want);
        free(want);
        free(image);
        minim_model_free(m);
    }
}

/* Past 256 keys attention works in ranges; a window then begins in the middle of one, and leaves some out. */
static void windows_agree_over_several_ranges(void **state) {
    (void)state;
    static const char *const names[] = {"gemma3", "gemma3, own pattern, base", "gemma2", "olmo3", "llama"};
    for (size_t i = 0; i < COUNT(names); i++) {
        const family_model *f = family_models;
        while (f->name && strcmp(f->name, names[i]) != 0) f++;
        assert_non_null(f->name);
        compare_with_reference(f, 300, 3e-4);
    }
}

static void every_family_of_the_table_has_a_model_here(void **state) {
    (void)state;
    const family *row;
    for (size_t i = 0; (row = family_at(i)); i++) {
        const family_model *f = family_models;
        while (f->name && strcmp(f->architecture, row->architecture) != 0) f++;
        if (!f->name) fail_msg("tests/family_model.c has no model of %s", row->architecture);
        assert_true(row->title && row->story);
    }
}

/* The factors of long contexts are chosen by the context of the engine, not by how much of it is used. */
static void the_engines_context_chooses_the_rotary_factors(void **state) {
    (void)state;
    int32_t tokens[20];
    size_t size;
    const family_model *f = family_models;
    while (strcmp(f->name, "phi3, long factors") != 0) f++;
    void *image = family_model_image(f, -1, FAMILY_INTACT, NULL, &size);
    minim_model *m = family_load(image, size, f->name);
    synth_tokens(tokens, COUNT(tokens));
    for (int n_ctx = 127; n_ctx <= 128; n_ctx++) {
        double *want = family_model_logits(image, size, tokens, COUNT(tokens), n_ctx), worst = 0;
        float *got = family_logits(m, &(family_setup){.threads = 1, .n_ctx = n_ctx}, tokens, COUNT(tokens));
        for (size_t k = 0; k < COUNT(tokens) * N_VOCAB; k++) worst = fmax(worst, fabs((double)got[k] - want[k]));
        assert_true(worst <= 3e-4);
        /* or by the caller */
        minim_rope_factors factors = n_ctx == 127 ? MINIM_ROPE_SHORT : MINIM_ROPE_LONG;
        float *chosen = family_logits(m, &(family_setup){.threads = 1, .n_ctx = 255 - n_ctx, .factors = factors},
                                      tokens, COUNT(tokens));
        assert_memory_equal(chosen, got, COUNT(tokens) * N_VOCAB * sizeof *got);
        free(chosen);
        free(got);
        free(want);
    }
    free(image);
    minim_model_free(m);
}

/* ---- files that are almost right --------------------------------------------------------------------------------- */

/* Loading fails with this status and a line that has both words. */
static void family_refused(const void *image, size_t size, const char *what, minim_status status, const char *word,
                           const char *word2) {
    minim_error e;
    minim_model *m = NULL;
    minim_status got = minim_model_load_memory(image, size, "file.gguf", NULL, &m, &e);
    if (got != status || m || !strstr(e.text, "file.gguf") || !strstr(e.text, word) || !strstr(e.text, word2) ||
        strchr(e.text, '\n')) {
        fail_msg("%s: status %s, text \"%s\"; expected %s and \"%s\", \"%s\"", what, minim_status_name(got),
                 got ? e.text : "", minim_status_name(status), word, word2);
    }
}

static int ends_with(const char *text, const char *end) {
    size_t n = strlen(text), k = strlen(end);
    return n >= k && !strcmp(text + n - k, end);
}

/* What a file of the family may lack: it is then another model. */
static int may_be_missing(const family_model *f, const char *name) {
    const family *row = family_find(f->architecture);
    if (!strncmp(name, "rope_", 5)) return 1;
    if (!strcmp(name, "output.weight")) return !row->own_output;
    if (!strcmp(name, "output.bias")) return !(row->biases & FAMILY_BIAS_OUTPUT);
    if (!strcmp(f->architecture, "stablelm") && strstr(name, "_norm.weight") && strstr(name, "blk.")) {
        int sequential = f->keys[0].name && f->keys[0].number == 0;
        return !strstr(name, "attn_norm") && !(strstr(name, "ffn_norm") && sequential);
    }
    if (!ends_with(name, ".bias") || strstr(name, "norm")) return 0;
    if (strstr(name, "attn_output")) return !(row->biases & FAMILY_BIAS_ATTN_OUTPUT);
    return !(row->biases & (strstr(name, "attn_") ? FAMILY_BIAS_QKV : FAMILY_BIAS_FFN));
}

static void every_missing_or_misshapen_tensor_is_named(void **state) {
    (void)state;
    int n = 0;
    for (const family_model *f = family_models; f->name; f++) {
        if (f->n_layers > 10) continue;
        for (int damage = FAMILY_DROP; damage <= FAMILY_QUANTISED; damage++) {
            for (int tensor = 0;; tensor++) {
                char name[64], what[160];
                size_t size;
                void *image = family_model_image(f, tensor, (family_damage)damage, name, &size);
                if (!image && damage != FAMILY_DROP && tensor < 100) continue; /* this one can not be damaged so */
                if (!image) break;
                int is_matrix = ends_with(name, ".weight") && !strstr(name, "norm") && !strstr(name, "rope_");
                minim_status status = damage == FAMILY_QUANTISED ? MINIM_ERR_UNSUPPORTED : MINIM_ERR_FORMAT;
                snprintf(what, sizeof what, "%s, damage %d to %s", f->name, damage, name);
                n++;
                if (damage == FAMILY_QUANTISED && is_matrix) {
                    minim_model_free(family_load(image, size, what));
                } else if (damage == FAMILY_DROP && may_be_missing(f, name)) {
                    minim_model_free(family_load(image, size, what));
                } else {
                    family_refused(image, size, what, status, name, damage == FAMILY_DROP ? "missing" : "expected");
                }
                free(image);
            }
        }
    }
    print_message("  %d damaged files\n", n);
}

/* A family's model with other keys. */
static void refused_with(const char *name, family_key key, minim_status status, const char *word, const char *word2) {
    const family_model *f = family_models;
    while (f->name && strcmp(f->name, name) != 0) f++;
    assert_non_null(f->name);
    family_model changed = *f;
    char what[160];
    size_t i = 0, size;
    while (changed.keys[i].name && strcmp(changed.keys[i].name, key.name) != 0) i++;
    changed.keys[i] = key;
    void *image = family_model_image(&changed, -1, FAMILY_INTACT, NULL, &size);
    snprintf(what, sizeof what, "%s with %s %g", name, key.name, key.number);
    family_refused(image, size, what, status, word, word2);
    free(image);
}

static void impossible_keys_of_a_family_are_named(void **state) {
    (void)state;
    enum { U32 = 4, F32 = 6, BOOL = 7, STR = 8, BITS = 9 };
    static const struct {
        const char *model;
        family_key key;
        minim_status status;
        const char *word, *word2;
    } cases[] = {
        {"llama", {"rope.scaling.type", STR, 0, "dynamic"}, MINIM_ERR_UNSUPPORTED, "dynamic", "linear, yarn, longrope"},
        {"llama", {"rope.scaling.type", U32, 1, NULL}, MINIM_ERR_FORMAT, "llama.rope.scaling.type", "str"},
        {"llama", {"rope.scaling.factor", F32, -4, NULL}, MINIM_ERR_FORMAT, "rope.scaling.factor", "above 0"},
        {"llama", {"rope.scaling.factor", F32, INFINITY, NULL}, MINIM_ERR_FORMAT, "rope.scaling.factor", "above 0"},
        {"llama", {"rope.freq_base", F32, 0, NULL}, MINIM_ERR_FORMAT, "llama.rope.freq_base is 0", "above 0"},
        {"llama", {"rope.freq_base", F32, NAN, NULL}, MINIM_ERR_FORMAT, "llama.rope.freq_base is", "above 0"},
        {"llama", {"rope.dimension_count", U32, 8, NULL}, MINIM_ERR_FORMAT, "rope.dimension_count", "head size"},
        {"llama", {"expert_count", U32, 8, NULL}, MINIM_ERR_UNSUPPORTED, "mixture-of-experts", "dense"},
        {"llama", {"attention.head_count", BITS, 0, NULL}, MINIM_ERR_FORMAT, "attention.head_count is 0", "expected 1"},
        {"llama", {"attention.head_count", BITS, 1, NULL}, MINIM_ERR_UNSUPPORTED, "attention.head_count", "layer"},
        {"llama", {"block_count", U32, 4, NULL}, MINIM_ERR_FORMAT, "blk.3.", "missing"},
        {"llama", {"block_count", BITS, 4, NULL}, MINIM_ERR_FORMAT, "llama.block_count", "integer"},
        {"llama, layers that differ", {"block_count", U32, 4, NULL}, MINIM_ERR_FORMAT, "3 values", "4 layers"},
        {"llama, yarn", {"rope.scaling.yarn_beta_fast", F32, 0, NULL}, MINIM_ERR_FORMAT, "yarn_beta_fast", "above 0"},
        {"llama, yarn", {"rope.scaling.attn_factor", F32, NAN, NULL}, MINIM_ERR_FORMAT, "attn_factor", "above 0"},
        {"llama, yarn",
         {"rope.scaling.original_context_length", U32, 0, NULL},
         MINIM_ERR_FORMAT,
         "original_context_length is 0",
         "expected 1"},
        {"mistral3", {"attention.temperature_scale", F32, -1, NULL}, MINIM_ERR_FORMAT, "temperature_scale", "above 0"},
        {"phi2", {"rope.dimension_count", U32, 7, NULL}, MINIM_ERR_FORMAT, "rope.dimension_count", "even"},
        {"phi2", {"rope.dimension_count", U32, 18, NULL}, MINIM_ERR_FORMAT, "dimension_count is 18", "2 to 16"},
        {"gemma2", {"attn_logit_softcapping", F32, -1, NULL}, MINIM_ERR_FORMAT, "attn_logit_softcapping", "above 0"},
        {"gemma2", {"final_logit_softcapping", F32, NAN, NULL}, MINIM_ERR_FORMAT, "final_logit_softcap", "above 0"},
        {"gemma2", {"attention.sliding_window", F32, 8, NULL}, MINIM_ERR_FORMAT, "attention.sliding_window", "integer"},
        {"gemma2", {"attention.sliding_window", U32, 4294967295.0, NULL}, MINIM_ERR_FORMAT, "sliding_window", "0 to"},
        {"gemma3", {"attention.sliding_window_pattern", STR, 0, "no"}, MINIM_ERR_FORMAT, "window_pattern", "integer"},
        {"gemma3", {"rope.freq_base_swa", F32, 0, NULL}, MINIM_ERR_FORMAT, "gemma3.rope.freq_base_swa", "above 0"},
        {"gemma3", {"attention.key_length", U32, 0, NULL}, MINIM_ERR_FORMAT, "attention.key_length is 0", "expected 1"},
        {"olmo3", {"block_count", U32, 6, NULL}, MINIM_ERR_FORMAT, "sliding_window_pattern has 5", "6 layers"},
        {"olmo", {"attention.clamp_kqv", F32, -1, NULL}, MINIM_ERR_FORMAT, "olmo.attention.clamp_kqv", "above 0"},
        {"granite", {"logit_scale", F32, 0, NULL}, MINIM_ERR_FORMAT, "granite.logit_scale is 0", "above 0"},
        {"granite", {"residual_scale", F32, NAN, NULL}, MINIM_ERR_FORMAT, "granite.residual_scale", "above 0"},
        {"granite", {"rope.scaling.finetuned", U32, 1, NULL}, MINIM_ERR_FORMAT, "rope.scaling.finetuned", "bool"},
        {"stablelm", {"use_parallel_residual", F32, 1, NULL}, MINIM_ERR_FORMAT, "use_parallel_residual", "bool"},
        {"stablelm 12B",
         {"use_parallel_residual", BOOL, 0, NULL},
         MINIM_ERR_FORMAT,
         "blk.0.ffn_norm.weight",
         "missing"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        refused_with(cases[i].model, cases[i].key, cases[i].status, cases[i].word, cases[i].word2);
    }
}

/* A key that the family can not do without, given another name. */
static void missing_keys_of_a_family_are_named(void **state) {
    (void)state;
    static const char *const cases[][2] = {{"gemma3", "gemma3.attention.sliding_window"},
                                           {"granite", "granite.logit_scale"},
                                           {"phi2", "phi2.attention.layer_norm_epsilon"},
                                           {"qwen3", "qwen3.attention.layer_norm_rms_epsilon"},
                                           {"olmo2", "olmo2.context_length"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        const family_model *f = family_models;
        while (strcmp(f->name, cases[i][0]) != 0) f++;
        size_t size, n = strlen(cases[i][1]), at = 0;
        char *image = family_model_image(f, -1, FAMILY_INTACT, NULL, &size);
        while (at + n < size && memcmp(image + at, cases[i][1], n) != 0) at++;
        assert_true(at + n < size);
        image[at] = 'X';
        family_refused(image, size, f->name, MINIM_ERR_FORMAT, cases[i][1], "missing");
        free(image);
    }
}

static void rotary_factors_that_are_no_factors_are_refused(void **state) {
    (void)state;
    static const float wrong[] = {0, -1, NAN, INFINITY};
    const family_model *f = family_models;
    while (!(f->parts & FM_ROPE_FREQS)) f++;
    for (size_t i = 0; i < COUNT(wrong); i++) {
        size_t size;
        char *image = family_model_image(f, -1, FAMILY_INTACT, NULL, &size);
        memcpy(image + size - 8, &wrong[i], sizeof wrong[i]); /* rope_freqs is the last tensor */
        family_refused(image, size, f->name, MINIM_ERR_FORMAT, "rotary factors", "expected > 0");
        free(image);
    }
}

static void count_warnings(void *user, minim_log_level level, const char *text) {
    int *n = user;
    if (level == MINIM_LOG_WARN && strstr(text, "layers")) ++*n;
}

static void a_gemma_2_of_an_unknown_size_is_run_with_a_warning(void **state) {
    (void)state;
    int warnings = 0;
    size_t size;
    const family_model *f = family_models;
    while (strcmp(f->name, "gemma2") != 0) f++;
    void *image = family_model_image(f, -1, FAMILY_INTACT, NULL, &size);
    minim_model *m;
    minim_model_options o;
    minim_model_options_default(&o);
    o.log = count_warnings, o.log_user = &warnings;
    assert_int_equal(minim_model_load_memory(image, size, "x", &o, &m, NULL), MINIM_OK);
    assert_int_equal(warnings, 1);
    minim_model_free(m);
    free(image);
}

static void mixtures_of_experts_are_refused_by_their_name(void **state) {
    (void)state;
    gw w;
    size_t size;
    gw_init(&w);
    gw_str(&w, "general.architecture", "qwen3moe");
    gw_tensor(&w, "token_embd.weight", 0, 1, (uint64_t[]){4}, NULL, 16);
    void *image = gw_finish(&w, &size);
    family_refused(image, size, "qwen3moe", MINIM_ERR_UNSUPPORTED, "mixtures of experts", "llama, mistral3, phi2");
    free(image);
    gw_free(&w);
}

/* ---- pages that fall out of windows ------------------------------------------------------------------------------ */

typedef struct window_run {
    minim_model *m;
    minim_engine *engine;
    minim_seq *seq;
    const float *want; /* [n][N_VOCAB] of the whole sequence */
    const int32_t *tokens;
} window_run;

/* Takes the sequence from its length to n tokens; the logits are those of a run without a break. */
static void window_advance(const window_run *w, size_t n, size_t chunk) {
    minim_error e;
    minim_row rows[64];
    float logits[64 * N_VOCAB];
    for (size_t at = minim_seq_length(w->seq); at < n;) {
        size_t now = n - at < chunk ? n - at : chunk;
        for (size_t i = 0; i < now; i++) rows[i] = (minim_row){w->seq, w->tokens[at + i], 1};
        family_ok(minim_engine_step(w->engine, rows, now, logits, &e), &e);
        assert_memory_equal(logits, w->want + at * N_VOCAB, now * N_VOCAB * sizeof *logits);
        at += now;
    }
}

static uint64_t pages_in_use(minim_engine *engine) {
    minim_engine_info info = {.size = sizeof info};
    assert_int_equal(minim_engine_get_info(engine, &info), MINIM_OK);
    return info.pages_in_use;
}

static window_run window_open_kv(const char *name, const int32_t *tokens, size_t n, uint64_t kv_limit, int q8) {
    minim_error e;
    size_t size;
    const family_model *f = family_models;
    while (f->name && strcmp(f->name, name) != 0) f++;
    assert_non_null(f->name);
    void *image = family_model_image(f, -1, FAMILY_INTACT, NULL, &size);
    window_run w = {.m = family_load(image, size, name), .tokens = tokens};
    free(image);
    w.want = family_logits(w.m, &(family_setup){.threads = 1, .n_ctx = 512, .q8 = q8}, tokens, n);
    minim_engine_options o;
    minim_engine_options_default(&o);
    o.n_threads = 1, o.n_ctx = 512, o.page_size = 16, o.n_batch = 32, o.kv_limit = kv_limit;
    o.kv_type = q8 ? MINIM_KV_Q8 : MINIM_KV_F32;
    family_ok(minim_engine_new(w.m, &o, &w.engine, &e), &e);
    family_ok(minim_seq_new(w.engine, &w.seq, &e), &e);
    return w;
}

static window_run window_open(const char *name, const int32_t *tokens, size_t n, uint64_t kv_limit) {
    return window_open_kv(name, tokens, n, kv_limit, 0);
}

static void window_close(window_run *w) {
    minim_seq_free(w->seq);
    assert_int_equal(pages_in_use(w->engine), 0);
    minim_engine_free(w->engine);
    minim_model_free(w->m);
    free((void *)(uintptr_t)w->want);
}

/* gemma2 here: 2 layers that see everything, 2 with a window of 9; a page of 16 tokens holds 2 layers. */
static void pages_that_fall_out_of_a_window_are_given_back(void **state) {
    (void)state;
    int32_t tokens[300];
    synth_tokens(tokens, COUNT(tokens));
    window_run w = window_open("gemma2", tokens, COUNT(tokens), 0);
    window_advance(&w, 16, 16);
    assert_int_equal(pages_in_use(w.engine), 2);
    window_advance(&w, 300, 7); /* 19 pages of tokens */
    assert_in_range(pages_in_use(w.engine), 19 + 2, 19 + 4);
    minim_memory_plan plan = {.size = sizeof plan};
    minim_engine_options o;
    minim_engine_options_default(&o);
    o.n_ctx = 300, o.kv_type = MINIM_KV_F32, o.page_size = 16, o.n_batch = 32;
    assert_int_equal(minim_engine_plan(w.m, &o, &plan, NULL), MINIM_OK);
    minim_engine_info info = {.size = sizeof info};
    minim_engine_get_info(w.engine, &info);
    assert_true(info.pages_in_use * info.page_bytes <= plan.kv_full);
    assert_true(plan.kv_full < plan.kv_per_token * 300); /* what it would be without windows */
    window_close(&w);
    w = window_open("gemma3", tokens, COUNT(tokens), 0); /* 6 of 7 layers windowed: pages of one layer */
    window_advance(&w, 300, 64);
    assert_in_range(pages_in_use(w.engine), 19 + 6 * 2, 19 + 6 * 4);
    window_close(&w);
}

/* With int8 values a block of keys may reach into a page that is gone. */
static void windows_and_int8_values_give_the_same_bits_in_all_chunks(void **state) {
    (void)state;
    static const char *const names[] = {"gemma2", "gemma3"};
    static const int chunks[] = {1, 7, 64};
    int32_t tokens[300];
    synth_tokens(tokens, COUNT(tokens));
    for (size_t i = 0; i < COUNT(names); i++) {
        window_run w = window_open_kv(names[i], tokens, COUNT(tokens), 0, 1);
        for (size_t c = 0; c < COUNT(chunks); c++) {
            window_advance(&w, COUNT(tokens), (size_t)chunks[c]);
            assert_int_equal(minim_seq_truncate(w.seq, c ? 200 : 0), MINIM_OK);
        }
        window_close(&w);
    }
}

/* Keys that a window needs again after a cut are made again. */
static void a_cut_sequence_goes_on_although_pages_were_given_back(void **state) {
    (void)state;
    static const size_t cuts[] = {299, 290, 250, 33, 16, 1, 0};
    int32_t tokens[300];
    synth_tokens(tokens, COUNT(tokens));
    window_run w = window_open("gemma3", tokens, COUNT(tokens), 0);
    for (size_t i = 0; i < COUNT(cuts); i++) {
        window_advance(&w, 300, 64);
        assert_int_equal(minim_seq_truncate(w.seq, cuts[i]), MINIM_OK);
        if (i % 2) assert_int_equal(minim_seq_truncate(w.seq, cuts[i] / 2), MINIM_OK); /* twice without a step */
        window_advance(&w, 270, 5);
    }
    window_close(&w);
}

/* When there is no room for the keys that have to be made again, the step fails and can be tried later. */
static void a_cut_that_finds_no_room_can_go_on_later(void **state) {
    (void)state;
    int32_t tokens[300];
    minim_error e;
    synth_tokens(tokens, COUNT(tokens));
    window_run w = window_open("gemma2", tokens, COUNT(tokens), 0);
    minim_memory_plan plan = {.size = sizeof plan};
    minim_engine_options o;
    minim_engine_options_default(&o);
    o.n_ctx = 512, o.kv_type = MINIM_KV_F32;
    family_ok(minim_engine_plan(w.m, &o, &plan, &e), &e);
    window_close(&w);
    w = window_open("gemma2", tokens, COUNT(tokens), plan.kv_per_token * 224); /* 28 pages of 16 tokens, 2 layers */
    minim_seq *other;
    family_ok(minim_seq_new(w.engine, &other, &e), &e);
    window_advance(&w, 200, 16);
    minim_row row = {other, 1, 0};
    while (minim_engine_step(w.engine, &row, 1, NULL, &e) == MINIM_OK) {
    }
    assert_int_equal(e.status, MINIM_ERR_CONTEXT);
    assert_int_equal(minim_seq_truncate(w.seq, 180), MINIM_OK);
    row = (minim_row){w.seq, tokens[180], 0};
    assert_int_equal(minim_engine_step(w.engine, &row, 1, NULL, &e), MINIM_ERR_CONTEXT);
    assert_int_equal(minim_seq_length(w.seq), 180);
    minim_seq_free(other);
    window_advance(&w, 200, 16);
    window_close(&w);
}

/* ---- in words ---------------------------------------------------------------------------------------------------- */

static void every_family_is_explained(void **state) {
    (void)state;
    for (const family_model *f = family_models; f->name; f++) {
        char text[2048], small[64];
        size_t size, needed = 0;
        int lines = 0;
        void *image = family_model_image(f, -1, FAMILY_INTACT, NULL, &size);
        minim_model *m = family_load(image, size, f->name);
        assert_int_equal(minim_model_explain(m, text, sizeof text, &needed), MINIM_OK);
        assert_int_equal(needed, strlen(text));
        for (const char *c = text; *c; c++) lines += *c == '\n';
        if (lines < 6 || lines > 12) fail_msg("%s: %d lines", f->name, lines);
        assert_non_null(strstr(text, family_find(f->architecture)->title));
        assert_non_null(strstr(text, family_find(f->architecture)->story));
        assert_int_equal(strstr(text, "a matrix of its own") != NULL, (f->parts & FM_OUTPUT) != 0);
        assert_int_equal(strstr(text, "biases\ton q") != NULL, (f->parts & FM_BIAS_QKV) != 0);
        assert_int_equal(strstr(text, "in parallel on") != NULL, (f->parts & FM_NO_FFN_NORM) != 0);
        assert_int_equal(minim_model_explain(m, small, sizeof small, &needed), MINIM_ERR_SPACE);
        assert_int_equal(needed, strlen(text));
        assert_int_equal(strlen(small), sizeof small - 1);
        assert_int_equal(minim_model_explain(m, NULL, 0, &needed), MINIM_ERR_SPACE);
        minim_model_free(m);
        free(image);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_gives_the_golden_logits),
        cmocka_unit_test(every_family_agrees_with_a_float64_pass),
        cmocka_unit_test(every_family_has_the_same_bits_with_integers),
        cmocka_unit_test(windows_agree_over_several_ranges),
        cmocka_unit_test(every_family_of_the_table_has_a_model_here),
        cmocka_unit_test(the_engines_context_chooses_the_rotary_factors),
        cmocka_unit_test(every_missing_or_misshapen_tensor_is_named),
        cmocka_unit_test(impossible_keys_of_a_family_are_named),
        cmocka_unit_test(missing_keys_of_a_family_are_named),
        cmocka_unit_test(rotary_factors_that_are_no_factors_are_refused),
        cmocka_unit_test(a_gemma_2_of_an_unknown_size_is_run_with_a_warning),
        cmocka_unit_test(mixtures_of_experts_are_refused_by_their_name),
        cmocka_unit_test(pages_that_fall_out_of_a_window_are_given_back),
        cmocka_unit_test(windows_and_int8_values_give_the_same_bits_in_all_chunks),
        cmocka_unit_test(a_cut_sequence_goes_on_although_pages_were_given_back),
        cmocka_unit_test(a_cut_that_finds_no_room_can_go_on_later),
        cmocka_unit_test(every_family_is_explained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
