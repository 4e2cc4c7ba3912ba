/* convert_tensors.c: which tensor becomes which, and how its numbers change. See convert.h.
 *
 * Three changes besides the type:
 *   - q and k of the Llama kind: Hugging Face turns dimensions (i, i + n/2) of a head, the format's engines (2i, 2i+1),
 * so rows change places;
 *   - norms of the Gemma kind get the 1 that Hugging Face adds while it runs;
 *   - the factors of rotary scaling, which the directory only describes, become tensors. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "convert.h"

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* What a dimension has to be. */
typedef enum convert_size {
    SIZE_NONE,
    SIZE_EMBD,
    SIZE_Q,    /* heads * head_dim */
    SIZE_KV,   /* kv_heads * head_dim */
    SIZE_QKV,  /* all three */
    SIZE_HEAD, /* head_dim */
    SIZE_FF,
    SIZE_FF2,  /* gate and up in one */
    SIZE_VOCAB /* or more */
} convert_size;

typedef struct convert_name {
    const char *hf, *gguf;   /* without ".weight"; inside a layer, without its prefix */
    convert_size rows, cols; /* rows SIZE_NONE: a vector of cols */
    int needed;              /* 1: a model without it is damaged */
    int permute;             /* 1: of the query's heads, 2: of the key's, where the family permutes */
} convert_name;

static const convert_name convert_outer[] = {
    {"model.embed_tokens", "token_embd", SIZE_VOCAB, SIZE_EMBD, 1, 0},
    {"model.norm", "output_norm", SIZE_NONE, SIZE_EMBD, 1, 0},
    {"lm_head", "output", SIZE_VOCAB, SIZE_EMBD, 0, 0},
    {0},
};

static const convert_name convert_layer_llama[] = {
    {"input_layernorm", "attn_norm", SIZE_NONE, SIZE_EMBD, 1, 0},
    {"self_attn.q_proj", "attn_q", SIZE_Q, SIZE_EMBD, 1, 1},
    {"self_attn.k_proj", "attn_k", SIZE_KV, SIZE_EMBD, 1, 2},
    {"self_attn.v_proj", "attn_v", SIZE_KV, SIZE_EMBD, 1, 0},
    {"self_attn.o_proj", "attn_output", SIZE_EMBD, SIZE_Q, 1, 0},
    {"post_attention_layernorm", "ffn_norm", SIZE_NONE, SIZE_EMBD, 1, 0},
    {"mlp.gate_proj", "ffn_gate", SIZE_FF, SIZE_EMBD, 1, 0},
    {"mlp.up_proj", "ffn_up", SIZE_FF, SIZE_EMBD, 1, 0},
    {"mlp.down_proj", "ffn_down", SIZE_EMBD, SIZE_FF, 1, 0},
    {"self_attn.q_norm", "attn_q_norm", SIZE_NONE, SIZE_HEAD, 0, 0},
    {"self_attn.k_norm", "attn_k_norm", SIZE_NONE, SIZE_HEAD, 0, 0},
    {0},
};

static const convert_name convert_layer_phi3[] = {
    {"input_layernorm", "attn_norm", SIZE_NONE, SIZE_EMBD, 1, 0},
    {"self_attn.qkv_proj", "attn_qkv", SIZE_QKV, SIZE_EMBD, 1, 0},
    {"self_attn.o_proj", "attn_output", SIZE_EMBD, SIZE_Q, 1, 0},
    {"post_attention_layernorm", "ffn_norm", SIZE_NONE, SIZE_EMBD, 1, 0},
    {"mlp.gate_up_proj", "ffn_up", SIZE_FF2, SIZE_EMBD, 1, 0},
    {"mlp.down_proj", "ffn_down", SIZE_EMBD, SIZE_FF, 1, 0},
    {0},
};

/* Gemma 2 and 3: norms also behind the two halves of a layer. */
static const convert_name convert_layer_gemma2[] = {
    {"input_layernorm", "attn_norm", SIZE_NONE, SIZE_EMBD, 1, 0},
    {"self_attn.q_proj", "attn_q", SIZE_Q, SIZE_EMBD, 1, 0},
    {"self_attn.k_proj", "attn_k", SIZE_KV, SIZE_EMBD, 1, 0},
    {"self_attn.v_proj", "attn_v", SIZE_KV, SIZE_EMBD, 1, 0},
    {"self_attn.o_proj", "attn_output", SIZE_EMBD, SIZE_Q, 1, 0},
    {"post_attention_layernorm", "post_attention_norm", SIZE_NONE, SIZE_EMBD, 1, 0},
    {"pre_feedforward_layernorm", "ffn_norm", SIZE_NONE, SIZE_EMBD, 1, 0},
    {"mlp.gate_proj", "ffn_gate", SIZE_FF, SIZE_EMBD, 1, 0},
    {"mlp.up_proj", "ffn_up", SIZE_FF, SIZE_EMBD, 1, 0},
    {"mlp.down_proj", "ffn_down", SIZE_EMBD, SIZE_FF, 1, 0},
    {"post_feedforward_layernorm", "post_ffw_norm", SIZE_NONE, SIZE_EMBD, 1, 0},
    {"self_attn.q_norm", "attn_q_norm", SIZE_NONE, SIZE_HEAD, 0, 0},
    {"self_attn.k_norm", "attn_k_norm", SIZE_NONE, SIZE_HEAD, 0, 0},
    {0},
};

static const convert_name *convert_layer_names(const convert_family *family) {
    switch (family->style) {
    case CONVERT_PHI3: return convert_layer_phi3;
    case CONVERT_GEMMA2:
    case CONVERT_GEMMA3: return convert_layer_gemma2;
    default: return convert_layer_llama;
    }
}

static int convert_starts_with(const char *text, const char *start) {
    return !strncmp(text, start, strlen(start));
}

static int convert_ends_with(const char *text, const char *end) {
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

/* Weights that are no part of a text model, or that nobody reads. */
static int convert_is_skipped(const convert_family *family, const char *name) {
    static const char *const parts[] = {"visual.", "vision.", "vision_", "audio", "projector.", "patch_merger."};
    static const char *const ends[] = {".rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (strstr(name, parts[i])) return 1;
    }
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        if (convert_ends_with(name, ends[i])) return 1;
    }
    /* Gemma 1 and 2 always use the embedding as output matrix. */
    return (family->style == CONVERT_GEMMA || family->style == CONVERT_GEMMA2) && !strcmp(name, "lm_head.weight");
}

/* A name without "language_model.", which models that also see put before it. */
static void convert_text_name(const char *name, char *out, size_t size) {
    static const char part[] = "language_model.";
    const char *at = strstr(name, part);
    if (at)
        snprintf(out, size, "%.*s%s", (int)(at - name), name, at + sizeof part - 1);
    else
        snprintf(out, size, "%s", name);
}

/* The row of a name, its layer (-1 = none), and whether it is a bias; NULL when it is none of the family's. */
static const convert_name *convert_find_name(const convert_family *family, const char *name, int *layer, int *is_bias) {
    static const char prefix[] = "model.layers.";
    const convert_name *row = convert_outer;
    *layer = -1;
    if (convert_starts_with(name, prefix)) {
        char *end;
        const char *number = name + sizeof prefix - 1;
        const long n = strtol(number, &end, 10);
        if (*number < '0' || *number > '9' || (*number == '0' && end > number + 1) || *end != '.' || n > 4095)
            return NULL;
        *layer = (int)n;
        name = end + 1;
        row = convert_layer_names(family);
    }
    for (; row->hf; row++) {
        if (!convert_starts_with(name, row->hf)) continue;
        const char *rest = name + strlen(row->hf);
        *is_bias = !strcmp(rest, ".bias");
        if (*is_bias || !strcmp(rest, ".weight")) return row;
    }
    return NULL;
}

static uint64_t convert_size_of(const convert_shape *s, convert_size size) {
    const uint64_t head = (uint64_t)s->head_dim, q = head * (uint64_t)s->n_heads, kv = head * (uint64_t)s->n_kv_heads;
    switch (size) {
    case SIZE_EMBD: return (uint64_t)s->n_embd;
    case SIZE_Q: return q;
    case SIZE_KV: return kv;
    case SIZE_QKV: return q + 2 * kv;
    case SIZE_HEAD: return head;
    case SIZE_FF: return (uint64_t)s->n_ff;
    case SIZE_FF2: return 2 * (uint64_t)s->n_ff;
    case SIZE_VOCAB: return (uint64_t)s->n_vocab;
    case SIZE_NONE: break;
    }
    return 1;
}

/* ---- the plan ---------------------------------------------------------------------------------------------------- */

static convert_tensor *convert_new_tensor(convert_plan *plan) {
    if (plan->n == plan->capacity) {
        const size_t capacity = plan->capacity ? 2 * plan->capacity : 256;
        convert_tensor *grown = realloc(plan->tensors, capacity * sizeof *grown);
        if (!grown) return NULL;
        plan->tensors = grown;
        plan->capacity = capacity;
    }
    convert_tensor *tensor = &plan->tensors[plan->n++];
    *tensor = (convert_tensor){0};
    return tensor;
}

static void convert_count_tensor(convert_plan *plan, convert_tensor *tensor) {
    uint64_t n = 1;
    for (int i = 0; i < tensor->n_dims; i++) n *= tensor->dims[i];
    tensor->bytes = n * (tensor->type == GGUF_WRITE_TENSOR_F32 ? 4 : 2);
    plan->n_params += n;
    plan->bytes += gguf_write_aligned(tensor->bytes);
}

/* A tensor of n numbers that are computed here. */
static float *convert_new_values(convert_plan *plan, const char *name, int n) {
    convert_tensor *tensor = convert_new_tensor(plan);
    if (!tensor) return NULL;
    tensor->values = malloc((size_t)n * sizeof *tensor->values);
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
    tensor->n_dims = 1;
    tensor->dims[0] = (uint64_t)n;
    convert_count_tensor(plan, tensor);
    return tensor->values;
}

/* Llama 3: long wavelengths are stretched by a factor, short ones stay, those between are blended (Llama 3.1's
 * reference code). In float32, and with PyTorch's way to divide a number by a tensor: times its reciprocal. */
static int convert_plan_llama3(const convert_model *model, convert_plan *plan) {
    int code = -1;
    const double base = convert_rope_number(model, "rope_theta", model->family->rope_base, 1e-3, 1e15, &code);
    const double factor = convert_rope_number(model, "factor", 8, 1e-6, 1e9, &code);
    const double low = convert_rope_number(model, "low_freq_factor", 1, 1e-6, 1e9, &code);
    const double high = convert_rope_number(model, "high_freq_factor", 4, 1e-6, 1e9, &code);
    const double original = convert_rope_number(model, "original_max_position_embeddings", 8192, 1, 1e9, &code);
    const int n = model->shape.head_dim / 2;
    if (code >= 0) return code;
    float *values = convert_new_values(plan, "rope_freqs.weight", n);
    if (!values) return tool_fail("out of memory");
    for (int i = 0; i < n; i++) {
        const float exponent = (float)(2 * i) / (float)model->shape.head_dim;
        const float frequency = 1.0f / (float)pow((double)(float)base, (double)exponent);
        const float length = 1.0f / frequency * (float)(2 * 3.14159265358979323846);
        if ((double)length < original / high) {
            values[i] = 1;
        } else if ((double)length > original / low) {
            values[i] = (float)factor;
        } else {
            const float smooth = (1.0f / length * (float)original - (float)low) / (float)(high - low);
            values[i] = 1.0f / ((1.0f - smooth) / (float)factor + smooth);
        }
    }
    return -1;
}

/* Phi-3: lists of factors for long and for short contexts. */
static int convert_plan_factors(const convert_model *model, const char *hf, const char *name, convert_plan *plan) {
    json_t *list = json_object_get(convert_rope(model), hf), *value;
    const int n = model->shape.n_rot / 2;
    size_t i;
    if (json_array_size(list) != (size_t)n)
        return tool_fail("%s/config.json: rope parameters: %s has %zu numbers, expected %d", model->directory, hf,
                         json_array_size(list), n);
    float *values = convert_new_values(plan, name, n);
    if (!values) return tool_fail("out of memory");
    json_array_foreach(list, i, value) {
        const double number = json_number_value(value);
        if (!(number > 0 && number < 1e30))
            return tool_fail("%s/config.json: rope parameters: %s[%zu]: expected a number above 0", model->directory,
                             hf, i);
        values[i] = (float)number;
    }
    return -1;
}

static int convert_plan_rotation(const convert_model *model, convert_plan *plan) {
    const convert_style style = model->family->style;
    const char *type = convert_rope_type(model);
    if (style == CONVERT_LLAMA && !strcasecmp(type, "llama3")) return convert_plan_llama3(model, plan);
    if (style != CONVERT_PHI3 || !json_array_size(json_object_get(convert_rope(model), "long_factor"))) return -1;
    const int code = convert_plan_factors(model, "long_factor", "rope_factors_long.weight", plan);
    return code < 0 ? convert_plan_factors(model, "short_factor", "rope_factors_short.weight", plan) : code;
}

/* Vectors, biases and norms stay exact. */
static uint32_t convert_type_of(const convert_tensor *tensor, uint32_t matrices) {
    return tensor->n_dims < 2 || convert_ends_with(tensor->name, "_norm.weight") ||
                   !convert_ends_with(tensor->name, ".weight")
               ? GGUF_WRITE_TENSOR_F32
               : matrices;
}

static int convert_check_shape(const convert_model *model, const char *path, const convert_source *source,
                               const convert_name *name, int is_bias) {
    const uint64_t rows = convert_size_of(&model->shape, name->rows), cols = convert_size_of(&model->shape, name->cols);
    const uint64_t inner = source->n_dims ? source->dims[source->n_dims - 1] : 0;
    const int vector = is_bias || name->rows == SIZE_NONE;
    const uint64_t expected = is_bias ? rows : cols;
    if (vector && source->n_dims == 1 && source->dims[0] == expected) return -1;
    if (vector)
        return tool_fail("%s: %s: %d dimensions, the last %" PRIu64 ", expected a vector of %" PRIu64, path,
                         source->name, source->n_dims, inner, expected);
    /* A matrix may have more rows than there are tokens, for the sake of alignment. */
    if (source->n_dims == 2 && inner == cols && source->dims[0] == rows) return -1;
    if (source->n_dims == 2 && inner == cols && name->rows == SIZE_VOCAB && model->family->style == CONVERT_GEMMA3)
        return -1;
    return tool_fail("%s: %s: %d dimensions, [%" PRIu64 "][%" PRIu64 "], expected [%" PRIu64 "][%" PRIu64
                     "] by config.json",
                     path, source->name, source->n_dims, source->n_dims ? source->dims[0] : 0, inner, rows, cols);
}

/* seen[layer + 1] gets a bit for each row of the family's table. */
static int convert_plan_tensor(const convert_model *model, const convert_sources *sources, const convert_source *source,
                               uint32_t matrices, uint32_t *seen, convert_plan *plan) {
    const convert_family *family = model->family;
    const char *path = sources->parts[source->part].path;
    char text[512];
    int layer, is_bias = 0;
    if (convert_is_skipped(family, source->name)) return -1;
    convert_text_name(source->name, text, sizeof text);
    const convert_name *name = convert_find_name(family, text, &layer, &is_bias);
    if (!name || layer >= model->shape.n_layers)
        return tool_fail("%s: %.100s: a %s of %d layers has no such tensor", path, source->name, family->architecture,
                         model->shape.n_layers);
    if (source->dtype == CONVERT_OTHER)
        return tool_fail("%s: %s: dtype %s, expected F32, F16 or BF16", path, source->name, source->dtype_name);
    const int code = convert_check_shape(model, path, source, name, is_bias);
    if (code >= 0) return code;
    const uint32_t bit = 1u << (name - (layer < 0 ? convert_outer : convert_layer_names(family)));
    if (!is_bias) seen[layer + 1] |= bit;
    convert_tensor *tensor = convert_new_tensor(plan);
    if (!tensor) return tool_fail("out of memory");
    const char *end = is_bias ? "bias" : "weight";
    if (layer < 0)
        snprintf(tensor->name, sizeof tensor->name, "%s.%s", name->gguf, end);
    else
        snprintf(tensor->name, sizeof tensor->name, "blk.%d.%s.%s", layer, name->gguf, end);
    tensor->source = source;
    tensor->n_dims = source->n_dims;
    for (int i = 0; i < source->n_dims; i++) tensor->dims[i] = source->dims[source->n_dims - 1 - i];
    /* Gemma 3: rows without a token are cut off. */
    if (family->style == CONVERT_GEMMA3 && name == convert_outer && tensor->dims[1] > (uint64_t)model->n_tokens)
        tensor->dims[1] = (uint64_t)model->n_tokens;
    if (family->permute && name->permute)
        tensor->permute_heads = name->permute == 1 ? model->shape.n_heads : model->shape.n_kv_heads;
    tensor->shift = family->norm_shift && convert_ends_with(text, "norm.weight");
    tensor->type = convert_type_of(tensor, matrices);
    convert_count_tensor(plan, tensor);
    return -1;
}

/* Of the first matrix, like llama.cpp: "auto" keeps 16 bits as they are. */
static uint32_t convert_auto_type(const convert_model *model, const convert_sources *sources) {
    for (size_t i = 0; i < sources->n_tensors; i++) {
        const convert_source *source = &sources->tensors[i];
        if (source->n_dims < 2 || convert_is_skipped(model->family, source->name)) continue;
        if (source->dtype == CONVERT_BF16) return GGUF_WRITE_TENSOR_BF16;
        if (source->dtype == CONVERT_F16) return GGUF_WRITE_TENSOR_F16;
    }
    return GGUF_WRITE_TENSOR_F16;
}

static int convert_check_complete(const convert_model *model, const uint32_t *seen) {
    for (int layer = -1; layer < model->shape.n_layers; layer++) {
        const convert_name *names = layer < 0 ? convert_outer : convert_layer_names(model->family);
        for (int i = 0; names[i].hf; i++) {
            const int norm = names[i].cols == SIZE_HEAD;
            if (seen[layer + 1] >> i & 1 || !(names[i].needed || (norm && model->family->qk_norms))) continue;
            if (layer < 0) return tool_fail("%s: the weights lack %s.weight", model->directory, names[i].hf);
            return tool_fail("%s: the weights lack model.layers.%d.%s.weight", model->directory, layer, names[i].hf);
        }
    }
    return -1;
}

int convert_make_plan(const convert_model *model, const convert_sources *sources, const char *type,
                      convert_plan *plan) {
    static const struct {
        const char *name, *title;
        uint32_t type, file_type; /* file_type: general.file_type of a file of mostly this type */
    } types[] = {
        {"f32", "F32", GGUF_WRITE_TENSOR_F32, 0},
        {"f16", "F16", GGUF_WRITE_TENSOR_F16, 1},
        {"bf16", "BF16", GGUF_WRITE_TENSOR_BF16, 32},
    };
    uint32_t matrices = convert_auto_type(model, sources);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (!strcmp(type, types[i].name)) matrices = types[i].type;
    }
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (matrices != types[i].type) continue;
        plan->file_type = types[i].file_type;
        plan->type_name = types[i].title;
    }
    uint32_t *seen = calloc((size_t)model->shape.n_layers + 1, sizeof *seen);
    int code = seen ? convert_plan_rotation(model, plan) : tool_fail("out of memory");
    for (size_t i = 0; i < sources->n_tensors && code < 0; i++)
        code = convert_plan_tensor(model, sources, &sources->tensors[i], matrices, seen, plan);
    if (code < 0) code = convert_check_complete(model, seen);
    free(seen);
    return code;
}

void convert_free_plan(convert_plan *plan) {
    for (size_t i = 0; i < plan->n; i++) free(plan->tensors[i].values);
    free(plan->tensors);
    *plan = (convert_plan){0};
}

/* ---- the numbers ------------------------------------------------------------------------------------------------- */

static uint32_t convert_get16(const uint8_t *in) {
    return (uint32_t)in[0] | (uint32_t)in[1] << 8;
}

static float convert_from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static float convert_get(convert_dtype dtype, const uint8_t *in, size_t i) {
    if (dtype == CONVERT_F32) return convert_from_bits(convert_get16(in + 4 * i) | convert_get16(in + 4 * i + 2) << 16);
    if (dtype == CONVERT_F16) return gguf_write_from_f16((uint16_t)convert_get16(in + 2 * i));
    return convert_from_bits(convert_get16(in + 2 * i) << 16);
}

static void convert_put(uint32_t type, uint8_t *out, size_t i, float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (type == GGUF_WRITE_TENSOR_F32)
        gguf_write_32(out + 4 * i, bits);
    else
        gguf_write_16(out + 2 * i, type == GGUF_WRITE_TENSOR_F16 ? gguf_write_f16(x) : gguf_write_bf16(x));
}

/* n numbers of a source to the tensor's type. With a shift, f16 sources are rounded to f16 again, as PyTorch does. */
static void convert_numbers(const convert_tensor *tensor, const uint8_t *in, uint8_t *out, size_t n) {
    static const convert_dtype same[] = {[GGUF_WRITE_TENSOR_F32] = CONVERT_F32,
                                         [GGUF_WRITE_TENSOR_F16] = CONVERT_F16,
                                         [GGUF_WRITE_TENSOR_BF16] = CONVERT_BF16};
    const convert_dtype dtype = tensor->source->dtype;
    if (!tensor->shift && same[tensor->type] == dtype) {
        memcpy(out, in, n * (dtype == CONVERT_F32 ? 4 : 2));
        return;
    }
    for (size_t i = 0; i < n; i++) {
        float x = convert_get(dtype, in, i);
        if (tensor->shift) {
            x += 1.0f;
            if (dtype == CONVERT_F16) x = gguf_write_from_f16(gguf_write_f16(x));
        }
        convert_put(tensor->type, out, i, x);
    }
}

/* Where row r of the output lies in the source: heads of [2][half] rows become [half][2]. */
static uint64_t convert_source_row(const convert_tensor *tensor, uint64_t rows, uint64_t r) {
    if (!tensor->permute_heads) return r;
    const uint64_t head = rows / (uint64_t)tensor->permute_heads, in_head = r % head;
    return r - in_head + in_head % 2 * (head / 2) + in_head / 2;
}

typedef struct convert_buffers {
    uint8_t *in, *out;
    size_t capacity; /* numbers */
} convert_buffers;

static int convert_write_tensor(const convert_sources *sources, const convert_tensor *tensor, convert_buffers *buffers,
                                gguf_writer *writer) {
    const convert_source *source = tensor->source;
    const size_t size = source->dtype == CONVERT_F32 ? 4 : 2, out_size = tensor->type == GGUF_WRITE_TENSOR_F32 ? 4 : 2;
    const uint64_t rows = tensor->n_dims == 2 ? tensor->dims[1] : tensor->permute_heads ? tensor->dims[0] : 1;
    const uint64_t cols = tensor->n_dims == 2 ? tensor->dims[0] : tensor->dims[0] / rows;
    for (uint64_t r = 0; r < rows;) {
        /* Rows that keep their order are read many at a time, long ones in pieces. */
        uint64_t n_rows = tensor->permute_heads || cols >= buffers->capacity ? 1 : buffers->capacity / cols;
        if (n_rows > rows - r) n_rows = rows - r;
        const uint64_t first = convert_source_row(tensor, rows, r) * cols;
        for (uint64_t done = 0; done < n_rows * cols;) {
            const uint64_t left = n_rows * cols - done;
            const size_t n = left < buffers->capacity ? (size_t)left : buffers->capacity;
            int code = convert_read_source(sources, source, (first + done) * size, buffers->in, n * size);
            if (code >= 0) return code;
            convert_numbers(tensor, buffers->in, buffers->out, n);
            code = gguf_writer_put(writer, buffers->out, n * out_size);
            if (code >= 0) return code;
            done += n;
        }
        r += n_rows;
    }
    return gguf_writer_end_tensor(writer);
}

static int convert_write_values(const convert_tensor *tensor, gguf_writer *writer) {
    for (uint64_t i = 0; i < tensor->dims[0]; i++) {
        uint8_t raw[4];
        convert_put(tensor->type, raw, 0, tensor->values[i]);
        const int code = gguf_writer_put(writer, raw, sizeof raw);
        if (code >= 0) return code;
    }
    return gguf_writer_end_tensor(writer);
}

int convert_write_tensors(const convert_sources *sources, const convert_plan *plan, gguf_writer *writer) {
    enum { NUMBERS = 1 << 18 };
    convert_buffers buffers = {malloc(NUMBERS * 4), malloc(NUMBERS * 4), NUMBERS};
    int code = buffers.in && buffers.out ? -1 : tool_fail("out of memory");
    for (size_t i = 0; i < plan->n && code < 0; i++) {
        const convert_tensor *tensor = &plan->tensors[i];
        code = tensor->source ? convert_write_tensor(sources, tensor, &buffers, writer)
                              : convert_write_values(tensor, writer);
    }
    free(buffers.in);
    free(buffers.out);
    return code;
}
