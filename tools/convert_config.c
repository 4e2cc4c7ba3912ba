/* convert_config.c: config.json. See convert.h. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "convert.h"

/* ---- the families ------------------------------------------------------------------------------------------------ */

static const convert_family convert_families[] = {
    /* clang-format off */
    /* hf, architecture, style, permute, norm_shift, qk_norms, heads, kv, head_dim, ctx, vocab, window, eps, rope, local */
    {"LlamaForCausalLM", "llama", CONVERT_LLAMA, 1, 0, 0, 32, 0, 0, 2048, 32000, 0, 1e-6, 1e4, 0},
    {"LLaMAForCausalLM", "llama", CONVERT_LLAMA, 1, 0, 0, 32, 0, 0, 2048, 32000, 0, 1e-6, 1e4, 0},
    {"MistralForCausalLM", "llama", CONVERT_LLAMA, 1, 0, 0, 32, 8, 0, 131072, 32000, 0, 1e-6, 1e4, 0},
    {"Mistral3ForConditionalGeneration", "mistral3", CONVERT_LLAMA, 1, 0, 0, 32, 8, 128, 262144, 131072, 0, 1e-5, 1e6, 0},
    {"Ministral3ForCausalLM", "mistral3", CONVERT_LLAMA, 1, 0, 0, 32, 8, 128, 262144, 131072, 0, 1e-5, 1e6, 0},
    {"SmolLM3ForCausalLM", "smollm3", CONVERT_LLAMA, 1, 0, 0, 16, 4, -1, 32768, 128256, 0, 1e-6, 2e6, 0},
    {"Qwen2ForCausalLM", "qwen2", CONVERT_QWEN, 0, 0, 0, 32, 0, -1, 32768, 151936, 0, 1e-6, 1e4, 0},
    {"Qwen3ForCausalLM", "qwen3", CONVERT_QWEN, 0, 0, 1, 32, 32, 128, 32768, 151936, 0, 1e-6, 1e4, 0},
    {"Phi3ForCausalLM", "phi3", CONVERT_PHI3, 0, 0, 0, 32, 0, -1, 4096, 32064, 0, 1e-5, 1e4, 0},
    {"GemmaForCausalLM", "gemma", CONVERT_GEMMA, 0, 1, 0, 16, 16, 256, 8192, 256000, 0, 1e-6, 1e4, 0},
    {"Gemma2ForCausalLM", "gemma2", CONVERT_GEMMA2, 0, 1, 0, 8, 4, 256, 8192, 256000, 4096, 1e-6, 1e4, 0},
    {"Gemma3ForCausalLM", "gemma3", CONVERT_GEMMA3, 0, 1, 1, 8, 4, 256, 131072, 262208, 4096, 1e-6, 1e6, 1e4},
    {"Gemma3ForConditionalGeneration", "gemma3", CONVERT_GEMMA3, 0, 1, 1, 8, 4, 256, 131072, 262208, 4096, 1e-6, 1e6, 1e4},
    /* clang-format on */
};

const convert_family *convert_family_at(size_t index) {
    return index < sizeof convert_families / sizeof *convert_families ? &convert_families[index] : NULL;
}

static int convert_unknown_family(const char *directory, const char *found) {
    const convert_family *family;
    char known[512];
    size_t n = 0;
    for (size_t i = 0; (family = convert_family_at(i)) && n < sizeof known; i++)
        n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", family->hf);
    return tool_fail("%s/config.json: architectures: \"%.80s\" is not known, expected one of %s", directory, found,
                     known);
}

static const convert_family *convert_find_family(json_t *config) {
    const char *name = json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
    const convert_family *family;
    for (size_t i = 0; name && (family = convert_family_at(i)); i++) {
        if (!strcmp(family->hf, name)) return family;
    }
    return NULL;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static double config_number(const convert_model *model, const char *name, double missing, double min, double max,
                            int *code) {
    char file[CONVERT_PATH + 16];
    snprintf(file, sizeof file, "%s/config.json", model->directory);
    return convert_number(model->config, file, name, missing, min, max, code);
}

/* A whole number from 1 on; missing 0 = it has to be there. */
static int config_count(const convert_model *model, const char *name, int missing, double max, int *code) {
    const double number = config_number(model, name, missing, 1, max, code);
    if (*code < 0 && number == 0) *code = tool_fail("%s/config.json: %s is missing", model->directory, name);
    if (*code < 0 && number != floor(number))
        *code = tool_fail("%s/config.json: %s: expected a whole number, found %g", model->directory, name, number);
    return *code < 0 ? (int)number : 1;
}

json_t *convert_rope(const convert_model *model) {
    json_t *rope = json_object_get(model->config, "rope_parameters");
    if (!json_is_object(rope)) rope = json_object_get(model->config, "rope_scaling");
    json_t *full = json_object_get(rope, "full_attention");
    return json_is_object(full) ? full : json_is_object(rope) ? rope : NULL;
}

const char *convert_rope_type(const convert_model *model) {
    json_t *rope = convert_rope(model);
    const char *type = json_string_value(json_object_get(rope, "rope_type"));
    if (!type) type = json_string_value(json_object_get(rope, "type"));
    return type ? type : "";
}

double convert_rope_number(const convert_model *model, const char *name, double missing, double min, double max,
                           int *code) {
    json_t *value = json_object_get(convert_rope(model), name);
    char file[CONVERT_PATH + 32];
    if (!value || json_is_null(value)) return config_number(model, name, missing, min, max, code);
    snprintf(file, sizeof file, "%s/config.json: rope parameters", model->directory);
    return convert_number(convert_rope(model), file, name, missing, min, max, code);
}

/* ---- the shape --------------------------------------------------------------------------------------------------- */

/* What other engines take for granted and this model has otherwise: the file would be read wrongly. */
static void convert_check_pattern(const convert_model *model) {
    const char *list = model->family->style == CONVERT_GEMMA3            ? "layer_types"
                       : !strcmp(model->family->architecture, "smollm3") ? "no_rope_layers"
                                                                         : NULL;
    const size_t period = model->family->style == CONVERT_GEMMA3 ? 6 : 4;
    json_t *layers = list ? json_object_get(model->config, list) : NULL, *value;
    size_t i;
    json_array_foreach(layers, i, value) {
        const char *type = json_string_value(value);
        const int last = type ? !strcmp(type, "full_attention") : json_integer_value(value) == 0;
        if (last == ((i + 1) % period == 0)) continue;
        convert_warn(model,
                     "%s/config.json: %s: layer %zu is not what the format takes for granted (every %zuth differs)",
                     model->directory, list, i, period);
        return;
    }
}

static int convert_read_shape(convert_model *model) {
    const convert_family *family = model->family;
    convert_shape *shape = &model->shape;
    int code = -1;
    shape->n_layers = config_count(model, "num_hidden_layers", 0, 4096, &code);
    shape->n_embd = config_count(model, "hidden_size", 0, 1 << 20, &code);
    shape->n_ff = config_count(model, "intermediate_size", 0, 1 << 24, &code);
    shape->n_heads = config_count(model, "num_attention_heads", family->n_heads, 65536, &code);
    shape->n_kv_heads = config_count(model, "num_key_value_heads",
                                     family->n_kv_heads ? family->n_kv_heads : shape->n_heads, 65536, &code);
    shape->n_ctx = config_count(model, "max_position_embeddings", family->n_ctx, INT32_MAX, &code);
    shape->n_vocab = config_count(model, "vocab_size", family->n_vocab, 1 << 24, &code);
    const int head_dim = family->head_dim > 0 ? family->head_dim : shape->n_embd / shape->n_heads;
    shape->head_dim = config_count(model, "head_dim", head_dim, 65536, &code);
    const double part = convert_rope_number(model, "partial_rotary_factor", 1, 1e-3, 1, &code);
    shape->n_rot = family->style == CONVERT_PHI3 ? (int)(part * shape->n_embd) / shape->n_heads : shape->head_dim;
    if (code >= 0) return code;
    if (shape->n_heads % shape->n_kv_heads)
        return tool_fail("%s/config.json: num_attention_heads %d is not a multiple of num_key_value_heads %d",
                         model->directory, shape->n_heads, shape->n_kv_heads);
    if (shape->head_dim % 2 || shape->n_rot < 2)
        return tool_fail("%s/config.json: heads of %d dimensions, %d of them rotated: expected even numbers",
                         model->directory, shape->head_dim, shape->n_rot);
    return -1;
}

/* The members of text_config go on top; but ids of tokens that config.json gives outside it are the ones that count. */
static int convert_merge_text(json_t *config, json_t *text) {
    static const char ending[] = "_token_id";
    json_t *outer = json_copy(config), *value;
    const char *key;
    int bad = !outer || json_object_update(config, text);
    json_object_foreach(outer, key, value) {
        const size_t n = strlen(key), end = sizeof ending - 1;
        if (bad || n < end || strcmp(key + n - end, ending) != 0 || json_is_null(value)) continue;
        bad = json_object_set(config, key, value);
    }
    json_decref(outer);
    return bad ? tool_fail("out of memory") : -1;
}

int convert_read_config(const char *directory, convert_model *model) {
    model->directory = directory;
    int code = convert_read_json(directory, "config.json", 1, &model->config);
    if (code >= 0) return code;
    model->family = convert_find_family(model->config);
    json_t *text = json_object_get(model->config, "text_config");
    if (json_is_object(text)) {
        if (!model->family) model->family = convert_find_family(text);
        json_incref(text); /* the update may replace a member of the same name */
        code = convert_merge_text(model->config, text);
        json_decref(text);
        if (code >= 0) return code;
    }
    if (!model->family) {
        const char *found = json_string_value(json_array_get(json_object_get(model->config, "architectures"), 0));
        return convert_unknown_family(directory, found ? found : "");
    }
    json_t *quantised = json_object_get(model->config, "quantization_config");
    if (quantised && !json_is_null(quantised))
        return tool_fail("%s/config.json: quantization_config: the weights are quantised; expected F32, F16 or BF16",
                         directory);
    code = convert_read_shape(model);
    if (code < 0) convert_check_pattern(model);
    return code;
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

typedef struct convert_keys {
    const convert_model *model;
    gguf_head *head;
    char name[128];
} convert_keys;

/* "llama.block_count" from "block_count". Valid until the next call. */
static const char *convert_key(convert_keys *k, const char *name) {
    snprintf(k->name, sizeof k->name, "%s.%s", k->model->family->architecture, name);
    return k->name;
}

static void convert_put_u32(convert_keys *k, const char *name, int value) {
    gguf_head_u32(k->head, convert_key(k, name), (uint32_t)value);
}

static void convert_put_f32(convert_keys *k, const char *name, double value) {
    gguf_head_f32(k->head, convert_key(k, name), (float)value);
}

/* A parameter of rotation, where the directory has it. */
static int convert_put_rope(convert_keys *k, const char *hf, const char *name) {
    int code = -1;
    const double value = convert_rope_number(k->model, hf, NAN, -1e9, 1e9, &code);
    if (code < 0 && !isnan(value)) convert_put_f32(k, name, value);
    return code;
}

static int convert_put_yarn(convert_keys *k) {
    const convert_model *model = k->model;
    int code = -1;
    const double original = convert_rope_number(model, "original_max_position_embeddings", 0, 1, INT32_MAX, &code);
    if (code < 0 && original == 0)
        return tool_fail("%s/config.json: original_max_position_embeddings is missing, which yarn needs",
                         model->directory);
    if (code < 0) convert_put_u32(k, "rope.scaling.original_context_length", (int)original);
    if (code < 0) code = convert_put_rope(k, "extrapolation_factor", "rope.scaling.yarn_ext_factor");
    if (code < 0)
        code = convert_put_rope(
            k, json_object_get(convert_rope(model), "attention_factor") ? "attention_factor" : "attn_factor",
            "rope.scaling.yarn_attn_factor");
    if (code < 0) code = convert_put_rope(k, "beta_fast", "rope.scaling.yarn_beta_fast");
    if (code < 0) code = convert_put_rope(k, "beta_slow", "rope.scaling.yarn_beta_slow");
    if (strcmp(model->family->architecture, "mistral3") != 0) return code;
    if (code < 0) code = convert_put_rope(k, "mscale_all_dim", "rope.scaling.yarn_log_multiplier");
    if (code < 0) code = convert_put_rope(k, "llama_4_scaling_beta", "attention.temperature_scale");
    return code;
}

static int convert_put_rotation(convert_keys *k) {
    const convert_model *model = k->model;
    const char *type = convert_rope_type(model);
    int code = -1;
    const double factor = convert_rope_number(model, "factor", 0, 1e-6, 1e9, &code);
    const int linear = !strcmp(type, "linear"), yarn = !strcmp(type, "yarn"),
              longrope = !strcmp(type, "su") || !strcmp(type, "longrope");
    if (code >= 0) return code;
    if (longrope || ((linear || yarn) && factor > 0)) {
        const char *name = linear ? "linear" : yarn ? "yarn" : "longrope";
        gguf_head_string(k->head, convert_key(k, "rope.scaling.type"), name, strlen(name));
        if (!longrope) convert_put_f32(k, "rope.scaling.factor", factor);
        if (yarn) code = convert_put_yarn(k);
    } else if (*type && strcmp(type, "default") != 0 && strcmp(type, "llama3") != 0) {
        convert_warn(model, "%s/config.json: rotary scaling of type \"%.40s\" is left out", model->directory, type);
    }
    const double base = convert_rope_number(model, "rope_theta", model->family->rope_base, 1e-3, 1e15, &code);
    if (code < 0) convert_put_f32(k, "rope.freq_base", base);
    if (model->family->rope_base_local > 0) {
        json_t *sliding = json_object_get(json_object_get(model->config, "rope_parameters"), "sliding_attention");
        const double local =
            config_number(model, "rope_local_base_freq", model->family->rope_base_local, 1e-3, 1e15, &code);
        const double base_swa = convert_number(sliding, model->directory, "rope_theta", local, 1e-3, 1e15, &code);
        if (code < 0) convert_put_f32(k, "rope.freq_base_swa", base_swa);
    }
    return code;
}

/* Factors of frequencies: with them comes a factor of the attention, known from the two context lengths. */
static int convert_put_phi3(convert_keys *k) {
    const convert_model *model = k->model;
    const char *type = convert_rope_type(model);
    int code = -1;
    const double original = convert_rope_number(model, "original_max_position_embeddings", 4096, 2, INT32_MAX, &code);
    const double base = convert_rope_number(model, "rope_theta", model->family->rope_base, 1e-3, 1e15, &code);
    if (code >= 0) return code;
    convert_put_u32(k, "rope.scaling.original_context_length", (int)original);
    convert_put_u32(k, "rope.dimension_count", model->shape.n_rot);
    convert_put_f32(k, "rope.freq_base", base);
    if (!json_array_size(json_object_get(convert_rope(model), "long_factor"))) return -1;
    const double scale = model->shape.n_ctx / original;
    if (!strcmp(type, "su") || !strcmp(type, "longrope"))
        convert_put_f32(k, "rope.scaling.attn_factor", scale > 1 ? sqrt(1 + log(scale) / log(original)) : 1);
    else if (!strcmp(type, "yarn"))
        convert_put_f32(k, "rope.scaling.attn_factor", scale > 1 ? 0.1 * log(scale) + 1 : 1);
    else
        return tool_fail("%s/config.json: rope parameters: type \"%.40s\" has factors, expected longrope, su or yarn",
                         model->directory, type);
    return -1;
}

/* The window, and the caps of scores and logits. */
static int convert_put_window(convert_keys *k) {
    const convert_model *model = k->model;
    const convert_style style = model->family->style;
    int code = -1;
    const double window = config_number(model, "sliding_window", model->family->window, 0, INT32_MAX, &code);
    const double scores =
        config_number(model, "attn_logit_softcapping", style == CONVERT_GEMMA2 ? 50 : 0, 0, 1e9, &code);
    const double logits =
        config_number(model, "final_logit_softcapping", style == CONVERT_GEMMA2 ? 30 : 0, 0, 1e9, &code);
    const int all_full =
        style == CONVERT_GEMMA3 && config_number(model, "sliding_window_pattern", 0, 0, 4096, &code) == 1;
    if (code >= 0) return code;
    if (style == CONVERT_GEMMA3 && scores > 0)
        return tool_fail("%s/config.json: attn_logit_softcapping: a gemma3 model has none", model->directory);
    if (scores > 0) convert_put_f32(k, "attn_logit_softcapping", scores);
    if (logits > 0) convert_put_f32(k, "final_logit_softcapping", logits);
    if (!all_full) convert_put_u32(k, "attention.sliding_window", (int)window);
    return -1;
}

int convert_put_keys(const convert_model *model, uint32_t file_type, gguf_head *head) {
    const convert_shape *shape = &model->shape;
    const convert_family *family = model->family;
    convert_keys k = {.model = model, .head = head};
    int code = -1;
    convert_put_u32(&k, "block_count", shape->n_layers);
    convert_put_u32(&k, "context_length", shape->n_ctx);
    convert_put_u32(&k, "embedding_length", shape->n_embd);
    convert_put_u32(&k, "feed_forward_length", shape->n_ff);
    convert_put_u32(&k, "attention.head_count", shape->n_heads);
    convert_put_u32(&k, "attention.head_count_kv", shape->n_kv_heads);
    if (family->style == CONVERT_PHI3)
        code = convert_put_phi3(&k);
    else if (family->style != CONVERT_GEMMA && family->style != CONVERT_GEMMA2)
        code = convert_put_rotation(&k);
    const double eps = config_number(model, "rms_norm_eps", family->norm_eps, 1e-12, 1, &code);
    convert_put_f32(&k, "attention.layer_norm_rms_epsilon", eps);
    json_t *head_dim = json_object_get(model->config, "head_dim");
    if (family->head_dim >= 0 || json_is_number(head_dim)) {
        convert_put_u32(&k, "attention.key_length", shape->head_dim);
        convert_put_u32(&k, "attention.value_length", shape->head_dim);
    }
    gguf_head_u32(head, "general.file_type", file_type);
    if (family->style == CONVERT_LLAMA) {
        convert_put_u32(&k, "vocab_size", shape->n_vocab);
        convert_put_u32(&k, "rope.dimension_count", shape->n_rot);
    }
    if (code < 0 && (family->window || family->style == CONVERT_PHI3)) code = convert_put_window(&k);
    return code;
}

/* ---- general keys ------------------------------------------------------------------------------------------------ */

/* The authors' sampling settings. */
static int convert_put_sampling(const convert_model *model, gguf_head *head) {
    static const struct {
        const char *hf, *key;
        int whole;
    } numbers[] = {
        {"top_k", "top_k", 1},
        {"top_p", "top_p", 0},
        {"min_p", "min_p", 0},
        {"xtc_probability", "xtc_probability", 0},
        {"xtc_threshold", "xtc_threshold", 0},
        {"temperature", "temp", 0},
        {"penalty_last_n", "penalty_last_n", 1},
        {"repetition_penalty", "penalty_repeat", 0},
        {"mirostat", "mirostat", 1},
        {"mirostat_tau", "mirostat_tau", 0},
        {"mirostat_eta", "mirostat_eta", 0},
    };
    json_t *config;
    const int code = convert_read_json(model->directory, "generation_config.json", 0, &config);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        json_t *value = json_object_get(config, numbers[i].hf);
        const double number = json_number_value(value);
        char key[64];
        if (!json_is_number(value) || !(fabs(number) <= INT32_MAX)) continue;
        snprintf(key, sizeof key, "general.sampling.%s", numbers[i].key);
        if (numbers[i].whole)
            gguf_head_i32(head, key, (int32_t)number);
        else
            gguf_head_f32(head, key, (float)number);
    }
    json_decref(config);
    return code;
}

/* "llama-3.2-1b-Instruct" becomes "Llama 3.2 1b Instruct": words of small letters get a capital, unless they begin with
 * a digit or are a version like v2. */
static void convert_title(const char *id, char *title, size_t size) {
    size_t n = 0;
    while (*id && n + 1 < size) {
        id += strspn(id, "- \t\r\n");
        const size_t length = strcspn(id, "- \t\r\n");
        int lower = 0, upper = 0;
        for (size_t i = 0; i < length; i++) {
            lower |= islower((unsigned char)id[i]);
            upper |= isupper((unsigned char)id[i]);
        }
        const int version = id[0] == 'v' && length > 1 && strspn(id + 1, "0123456789.") >= length - 1;
        const int as_it_is = !lower || upper || isdigit((unsigned char)id[0]) || version;
        if (length && n) title[n++] = ' ';
        for (size_t i = 0; i < length && n + 1 < size; i++) {
            const int first = !i || !isalpha((unsigned char)id[i - 1]);
            title[n++] = (char)(first && !as_it_is ? toupper((unsigned char)id[i]) : id[i]);
        }
        id += length;
    }
    title[n] = 0;
}

/* "1.2B": two digits at least. */
static void convert_size_label(uint64_t n_params, char *text, size_t size) {
    static const char units[] = "KMBT";
    double value = (double)n_params * 1e-3;
    int unit = 0;
    for (; value > 1000 && unit < 3; unit++) value /= 1000;
    const double whole = rint(value);
    snprintf(text, size, "%.*f%c", whole < 1 ? 2 : whole < 10 ? 1 : 0, value, units[unit]);
}

int convert_put_general(const convert_model *model, uint64_t n_params, gguf_head *head) {
    const char *architecture = model->family->architecture;
    char title[256], label[32];
    gguf_head_string(head, "general.architecture", architecture, strlen(architecture));
    gguf_head_string(head, "general.type", "model", 5);
    const int code = convert_put_sampling(model, head);
    if (code >= 0) return code;
    /* _name_or_path is "owner/name" of the model, or a path on its author's disk, which tells nothing. */
    const char *name = json_string_value(json_object_get(model->config, "_name_or_path"));
    char *real = NULL;
    const char *slash = name ? strchr(name, '/') : NULL;
    if (!name || !*name || (slash && strchr(slash + 1, '/'))) {
        name = real = realpath(model->directory, NULL);
        slash = name ? strrchr(name, '/') : NULL;
    }
    convert_title(slash ? slash + 1 : name ? name : "", title, sizeof title);
    free(real);
    gguf_head_string(head, "general.name", title, strlen(title));
    convert_size_label(n_params, label, sizeof label);
    gguf_head_string(head, "general.size_label", label, strlen(label));
    return -1;
}
