#include "hf_writer.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../kernels/kernels.h"

static void hf_fail(const char *what) {
    perror(what);
    exit(1);
}

const char *hf_new_directory(void) {
    static char name[64];
    snprintf(name, sizeof name, "/tmp/minim-hf-XXXXXX");
    if (!mkdtemp(name)) hf_fail(name);
    return name;
}

void hf_remove_directory(const char *directory) {
    char path[512];
    DIR *dir = opendir(directory);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) unlink(path);
    }
    if (dir) closedir(dir);
    rmdir(directory);
}

void hf_write(const char *directory, const char *name, const void *data, size_t n) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, n, file) != n || fclose(file)) hf_fail(path);
}

void hf_write_text(const char *directory, const char *name, const char *text) {
    hf_write(directory, name, text, strlen(text));
}

void hf_write_safetensors(const char *directory, const char *name, const hf_tensors *tensors, size_t from, size_t to) {
    char *text = NULL, path[512];
    size_t size = 0, offset = 0;
    FILE *header = open_memstream(&text, &size);
    if (!header) hf_fail("open_memstream");
    fputs("{\"__metadata__\": {\"format\": \"pt\"}", header);
    for (size_t i = from; i < to; i++) {
        const hf_tensor *t = &tensors->items[i];
        fprintf(header, ", \"%s\": {\"dtype\": \"%s\", \"shape\": [", t->name, t->dtype);
        for (int k = 0; k < t->n_dims; k++) fprintf(header, "%s%llu", k ? ", " : "", (unsigned long long)t->dims[k]);
        fprintf(header, "], \"data_offsets\": [%zu, %zu]}", offset, offset + t->bytes);
        offset += t->bytes;
    }
    fputc('}', header);
    fclose(header);
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)size >> 8 * i);
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "wb");
    if (!file) hf_fail(path);
    fwrite(length, 1, 8, file);
    fwrite(text, 1, size, file);
    for (size_t i = from; i < to; i++) fwrite(tensors->items[i].data, 1, tensors->items[i].bytes, file);
    if (fclose(file)) hf_fail(path);
    free(text);
}

/* ---- from a GGUF file -------------------------------------------------------------------------------------------- */

static const char *hf_architecture(const gguf_file *file) {
    gguf_str s = {"", 0};
    gguf_get_str(file, "general.architecture", &s, NULL, NULL);
    return s.s;
}

static uint32_t hf_number(const gguf_file *file, const char *name, uint32_t missing) {
    char key[128];
    snprintf(key, sizeof key, "%s.%s", hf_architecture(file), name);
    gguf_get_u32(file, key, &missing, NULL, NULL);
    return missing;
}

static int hf_is(const gguf_file *file, const char *architecture) {
    return !strcmp(hf_architecture(file), architecture);
}

/* The name inside "model.layers.N."; NULL: not a tensor of a layer of this kind. */
static const char *hf_layer_name(const gguf_file *file, const char *name) {
    const int gemma = hf_is(file, "gemma2") || hf_is(file, "gemma3"), phi = hf_is(file, "phi3");
    const struct {
        const char *gguf, *hf;
    } names[] = {
        {"attn_norm", "input_layernorm"},
        {"attn_q", "self_attn.q_proj"},
        {"attn_k", "self_attn.k_proj"},
        {"attn_v", "self_attn.v_proj"},
        {"attn_qkv", "self_attn.qkv_proj"},
        {"attn_output", "self_attn.o_proj"},
        {"attn_q_norm", "self_attn.q_norm"},
        {"attn_k_norm", "self_attn.k_norm"},
        {"post_attention_norm", "post_attention_layernorm"},
        {"ffn_norm", gemma ? "pre_feedforward_layernorm" : "post_attention_layernorm"},
        {"post_ffw_norm", "post_feedforward_layernorm"},
        {"ffn_gate", "mlp.gate_proj"},
        {"ffn_up", phi ? "mlp.gate_up_proj" : "mlp.up_proj"},
        {"ffn_down", "mlp.down_proj"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!strcmp(names[i].gguf, name)) return names[i].hf;
    }
    return NULL;
}

/* "blk.0.attn_q.weight" to "model.layers.0.self_attn.q_proj.weight"; 0 when the tensor has no counterpart. */
static int hf_name(const gguf_file *file, const char *name, char *out, size_t size) {
    int layer;
    char inner[64], end[16];
    if (sscanf(name, "blk.%d.%63[a-z_].%15s", &layer, inner, end) == 3 && hf_layer_name(file, inner)) {
        snprintf(out, size, "model.layers.%d.%s.%s", layer, hf_layer_name(file, inner), end);
        return 1;
    }
    const char *hf = !strcmp(name, "token_embd.weight")    ? "model.embed_tokens.weight"
                     : !strcmp(name, "output_norm.weight") ? "model.norm.weight"
                     : !strcmp(name, "output.weight")      ? "lm_head.weight"
                                                           : NULL;
    if (hf) snprintf(out, size, "%s", hf);
    return hf != NULL;
}

/* Rows of heads: [half][2] in the file, [2][half] at Hugging Face. */
static void hf_unpermute(float *data, size_t rows, size_t cols, size_t heads) {
    float *copy = malloc(rows * cols * sizeof *copy);
    const size_t dim = rows / heads, half = dim / 2;
    if (!copy) hf_fail("malloc");
    memcpy(copy, data, rows * cols * sizeof *copy);
    for (size_t h = 0; h < heads; h++) {
        for (size_t i = 0; i < half; i++) {
            for (size_t j = 0; j < 2; j++)
                memcpy(data + (h * dim + j * half + i) * cols, copy + (h * dim + 2 * i + j) * cols,
                       cols * sizeof *copy);
        }
    }
    free(copy);
}

static void hf_undo(const gguf_file *file, const char *name, float *data, const gguf_tensor *t) {
    const int permuted = hf_is(file, "llama") || hf_is(file, "smollm3") || hf_is(file, "mistral3");
    const size_t rows = t->n_dims == 1 ? t->dim[0] : t->dim[1], cols = t->n_dims == 1 ? 1 : t->dim[0];
    const uint32_t heads = hf_number(file, "attention.head_count", 1);
    if (permuted && strstr(name, "attn_q.")) hf_unpermute(data, rows, cols, heads);
    if (permuted && strstr(name, "attn_k."))
        hf_unpermute(data, rows, cols, hf_number(file, "attention.head_count_kv", heads));
    if (!strncmp(hf_architecture(file), "gemma", 5) && strstr(name, "norm.weight")) {
        for (size_t i = 0; i < t->elements; i++) data[i] -= 1;
    }
}

hf_tensors hf_tensors_of(const gguf_file *file) {
    hf_tensors all = {calloc(gguf_tensor_count(file), sizeof(hf_tensor)), 0};
    for (size_t i = 0; i < gguf_tensor_count(file); i++) {
        const gguf_tensor *t = gguf_tensor_at(file, i);
        hf_tensor *out = &all.items[all.n];
        *out = (hf_tensor){.dtype = "F32", .n_dims = (int)t->n_dims, .bytes = t->bytes};
        if (!hf_name(file, t->name.s, out->name, sizeof out->name)) continue;
        out->data = malloc(t->bytes);
        for (int k = 0; k < out->n_dims; k++) out->dims[k] = t->dim[out->n_dims - 1 - k];
        if (t->type != KERN_F32 || !out->data || gguf_read(file, t, 0, out->data, t->bytes, NULL)) hf_fail(t->name.s);
        hf_undo(file, t->name.s, out->data, t);
        all.n++;
    }
    return all;
}

void hf_round(hf_tensors *tensors, const char *dtype) {
    for (size_t i = 0; i < tensors->n; i++) {
        hf_tensor *t = &tensors->items[i];
        float *x = t->data;
        uint16_t *out = t->data;
        for (size_t k = 0; k < t->bytes / 4; k++) {
            uint32_t bits;
            memcpy(&bits, &x[k], 4);
            out[k] = !strcmp(dtype, "F16") ? kern_f32_to_f16(x[k]) : (uint16_t)(bits >> 16);
        }
        t->bytes /= 2;
        t->dtype = dtype;
    }
}

void hf_free(hf_tensors *tensors) {
    for (size_t i = 0; i < tensors->n; i++) free(tensors->items[i].data);
    free(tensors->items);
    *tensors = (hf_tensors){0};
}

static void hf_put_list(FILE *out, const char *name, const gguf_file *file, const char *tensor) {
    const gguf_tensor *t = gguf_find_tensor(file, tensor);
    float *values = malloc(t->bytes);
    if (!values || gguf_read(file, t, 0, values, t->bytes, NULL)) hf_fail(tensor);
    fprintf(out, ", \"%s\": [", name);
    for (size_t i = 0; i < t->elements; i++) fprintf(out, "%s%.9g", i ? ", " : "", (double)values[i]);
    fputc(']', out);
    free(values);
}

static void hf_put_rope(FILE *out, const gguf_file *file) {
    static const struct {
        const char *hf, *key;
    } floats[] = {{"factor", "factor"},
                  {"beta_fast", "yarn_beta_fast"},
                  {"beta_slow", "yarn_beta_slow"},
                  {"mscale_all_dim", "yarn_log_multiplier"}};
    gguf_str type = {"", 0};
    char key[128];
    float x = 0;
    int found;
    snprintf(key, sizeof key, "%s.rope.scaling.type", hf_architecture(file));
    gguf_get_str(file, key, &type, NULL, NULL);
    const int lists = gguf_find_tensor(file, "rope_factors_long.weight") != NULL;
    if (!type.n && !lists) return;
    fprintf(out, ", \"rope_scaling\": {\"rope_type\": \"%s\"", lists ? "longrope" : type.s);
    if (lists) hf_put_list(out, "long_factor", file, "rope_factors_long.weight");
    if (lists) hf_put_list(out, "short_factor", file, "rope_factors_short.weight");
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) {
        snprintf(key, sizeof key, "%s.rope.scaling.%s", hf_architecture(file), floats[i].key);
        gguf_get_f32(file, key, &x, &found, NULL);
        if (found) fprintf(out, ", \"%s\": %.9g", floats[i].hf, (double)x);
    }
    snprintf(key, sizeof key, "%s.attention.temperature_scale", hf_architecture(file));
    gguf_get_f32(file, key, &x, &found, NULL);
    if (found) fprintf(out, ", \"llama_4_scaling_beta\": %.9g", (double)x);
    const uint32_t original = hf_number(file, "rope.scaling.original_context_length", 0);
    if (original) fprintf(out, ", \"original_max_position_embeddings\": %u", original);
    fputc('}', out);
}

void hf_write_config(const char *directory, const gguf_file *file) {
    static const char *const classes[][2] = {
        {"llama", "LlamaForCausalLM"}, {"mistral3", "Ministral3ForCausalLM"}, {"smollm3", "SmolLM3ForCausalLM"},
        {"qwen2", "Qwen2ForCausalLM"}, {"qwen3", "Qwen3ForCausalLM"},         {"phi3", "Phi3ForCausalLM"},
        {"gemma", "GemmaForCausalLM"}, {"gemma2", "Gemma2ForCausalLM"},       {"gemma3", "Gemma3ForCausalLM"},
    };
    static const char *const numbers[][2] = {
        {"num_hidden_layers", "block_count"},
        {"hidden_size", "embedding_length"},
        {"intermediate_size", "feed_forward_length"},
        {"num_attention_heads", "attention.head_count"},
        {"num_key_value_heads", "attention.head_count_kv"},
        {"max_position_embeddings", "context_length"},
        {"head_dim", "attention.key_length"},
        {"sliding_window", "attention.sliding_window"},
    };
    static const char *const floats[][2] = {
        {"rms_norm_eps", "attention.layer_norm_rms_epsilon"},
        {"rope_theta", "rope.freq_base"},
        {"attn_logit_softcapping", "attn_logit_softcapping"},
        {"final_logit_softcapping", "final_logit_softcapping"},
    };
    char *text = NULL, key[128];
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    const char *hf = "?";
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (hf_is(file, classes[i][0])) hf = classes[i][1];
    }
    fprintf(out, "{\"architectures\": [\"%s\"], \"vocab_size\": %llu", hf,
            (unsigned long long)gguf_find_tensor(file, "token_embd.weight")->dim[1]);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const uint32_t n = hf_number(file, numbers[i][1], UINT32_MAX);
        if (n != UINT32_MAX) fprintf(out, ", \"%s\": %u", numbers[i][0], n);
    }
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) {
        float x;
        int found;
        snprintf(key, sizeof key, "%s.%s", hf_architecture(file), floats[i][1]);
        gguf_get_f32(file, key, &x, &found, NULL);
        if (found) fprintf(out, ", \"%s\": %.9g", floats[i][0], (double)x);
    }
    if (hf_is(file, "phi3")) {
        const double heads = hf_number(file, "attention.head_count", 1), width = hf_number(file, "embedding_length", 1);
        fprintf(out, ", \"partial_rotary_factor\": %.9g", hf_number(file, "rope.dimension_count", 1) * heads / width);
    }
    hf_put_rope(out, file);
    fputs(", \"bos_token_id\": 1, \"eos_token_id\": 2, \"torch_dtype\": \"float32\"}", out);
    fclose(out);
    hf_write(directory, "config.json", text, size);
    free(text);
}

/* ---- the vocabulary ---------------------------------------------------------------------------------------------- */

static void hf_put_varint(FILE *out, uint64_t x) {
    for (; x > 127; x >>= 7) fputc((int)(x & 127) | 128, out);
    fputc((int)x, out);
}

void hf_write_spm(const char *directory, const gguf_file *file) {
    const gguf_str *tokens = gguf_find(file, "tokenizer.ggml.tokens")->data;
    const float *scores = gguf_find(file, "tokenizer.ggml.scores")->data;
    const int32_t *types = gguf_find(file, "tokenizer.ggml.token_type")->data;
    const uint64_t n = gguf_find(file, "tokenizer.ggml.tokens")->count;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    for (uint64_t i = 0; i < n; i++) {
        char *piece = NULL;
        size_t length = 0;
        FILE *inner = open_memstream(&piece, &length);
        hf_put_varint(inner, 1 << 3 | 2);
        hf_put_varint(inner, tokens[i].n);
        fwrite(tokens[i].s, 1, tokens[i].n, inner);
        hf_put_varint(inner, 2 << 3 | 5);
        fwrite(&scores[i], 1, 4, inner);
        if (types[i] != 1) { /* "normal" is the default */
            hf_put_varint(inner, 3 << 3 | 0);
            hf_put_varint(inner, (uint64_t)types[i]);
        }
        fclose(inner);
        hf_put_varint(out, 1 << 3 | 2);
        hf_put_varint(out, length);
        fwrite(piece, 1, length, out);
        free(piece);
    }
    /* trainer_spec and normalizer_spec, of which nothing is read */
    fwrite("\x12\x02\x18\x02\x1a\x02\x18\x01", 1, 8, out);
    fclose(out);
    hf_write(directory, "tokenizer.model", text, size);
    free(text);
    hf_write_text(directory, "tokenizer_config.json",
                  "{\"add_bos_token\": true, \"add_eos_token\": false, \"bos_token\": \"<s>\",\n"
                  " \"eos_token\": {\"content\": \"</s>\"}, \"tokenizer_class\": \"LlamaTokenizer\"}");
}

void hf_write_model(const char *directory, const gguf_file *file) {
    hf_tensors tensors = hf_tensors_of(file);
    hf_write_config(directory, file);
    hf_write_spm(directory, file);
    hf_write_safetensors(directory, "model.safetensors", &tensors, 0, tensors.n);
    hf_free(&tensors);
}
