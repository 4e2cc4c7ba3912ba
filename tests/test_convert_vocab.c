/* test_convert_vocab.c: vocabularies that `minim convert` reads: tokens, merges, types, the pre-tokenizer's name,
 * special tokens, chat templates. */
#include "../engine/minim.h"
#include "convert_test.h"

static const char fixture[] = "tests/data/logits/llama/model.gguf";

/* ---- a model of next to nothing around a vocabulary ---------------------------------------------------------------
 */

static void add_tensor(hf_tensors *all, const char *name, uint64_t rows, uint64_t cols) {
    hf_tensor *t = &all->items[all->n++];
    *t = (hf_tensor){.dtype = "F16", .n_dims = rows ? 2 : 1, .bytes = (rows ? rows : 1) * cols * 2};
    snprintf(t->name, sizeof t->name, "%s", name);
    t->dims[0] = rows ? rows : cols;
    t->dims[1] = cols;
    t->data = calloc(1, t->bytes);
    assert_non_null(t->data);
}

/* One layer of width 32 in the directory; class: "Llama" or "Qwen2". */
static void write_body(const char *class, uint64_t n_vocab) {
    static const struct {
        const char *name;
        uint64_t rows, cols;
    } parts[] = {{"input_layernorm", 0, 32},   {"self_attn.q_proj", 32, 32}, {"self_attn.k_proj", 32, 32},
                 {"self_attn.v_proj", 32, 32}, {"self_attn.o_proj", 32, 32}, {"post_attention_layernorm", 0, 32},
                 {"mlp.gate_proj", 32, 32},    {"mlp.up_proj", 32, 32},      {"mlp.down_proj", 32, 32}};
    hf_tensor items[COUNT(parts) + 2];
    hf_tensors all = {items, 0};
    char text[512], name[64];
    add_tensor(&all, "model.embed_tokens.weight", n_vocab, 32);
    add_tensor(&all, "model.norm.weight", 0, 32);
    for (size_t i = 0; i < COUNT(parts); i++) {
        snprintf(name, sizeof name, "model.layers.0.%s.weight", parts[i].name);
        add_tensor(&all, name, parts[i].rows, parts[i].cols);
    }
    hf_write_safetensors(directory, "model.safetensors", &all, 0, all.n);
    for (size_t i = 0; i < all.n; i++) free(items[i].data);
    snprintf(
        text, sizeof text,
        "{\"architectures\": [\"%sForCausalLM\"], \"vocab_size\": %llu, \"hidden_size\": 32, \"intermediate_size\": 32,"
        " \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"eos_token_id\": 2}",
        class, (unsigned long long)n_vocab);
    hf_write_text(directory, "config.json", text);
}

static gguf_file *converted(void) {
    convert("-q");
    return open_file(output);
}

static const char *text_key(const gguf_file *file, const char *key) {
    gguf_str s = {"(missing)", 0};
    int found;
    gguf_get_str(file, key, &s, &found, NULL);
    return s.s;
}

static long id_key(const gguf_file *file, const char *key) {
    uint32_t x = 0;
    int found;
    gguf_get_u32(file, key, &x, &found, NULL);
    return found ? (long)x : -1;
}

static int bool_key(const gguf_file *file, const char *key) {
    int x = 0, found;
    gguf_get_bool(file, key, &x, &found, NULL);
    return found ? x : -1;
}

static void token_is(const gguf_file *file, int id, const char *text, int type) {
    const gguf_str *tokens = gguf_find(file, "tokenizer.ggml.tokens")->data;
    const int32_t *types = gguf_find(file, "tokenizer.ggml.token_type")->data;
    if (tokens[id].n != strlen(text) || memcmp(tokens[id].s, text, tokens[id].n) != 0 || types[id] != type)
        fail_msg("token %d: \"%s\", type %d; expected \"%s\", type %d", id, tokens[id].s, types[id], text, type);
}

/* ---- byte-level BPE ---------------------------------------------------------------------------------------------- */

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define LLAMA3                                                                                                         \
    CONTRACTIONS "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|"    \
                 "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define QWEN2                                                                                                          \
    CONTRACTIONS "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|"         \
                 "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define UPPER  "[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define LOWER  "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define BEFORE "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?"
#define BEHIND "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define GPT4O                                                                                                          \
    BEFORE UPPER "*" LOWER "+" CONTRACTIONS "?|" BEFORE UPPER "+" LOWER "*" CONTRACTIONS "?|\\\\p{N}{1,3}" BEHIND
#define TEKKEN BEFORE UPPER "*" LOWER "+|" BEFORE UPPER "+" LOWER "*|\\\\p{N}" BEHIND
#define SPLIT(expression)                                                                                              \
    "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"" expression "\"}, \"behavior\": \"Isolated\", \"invert\": "     \
    "false}"
#define SEQUENCE(steps) "{\"type\": \"Sequence\", \"pretokenizers\": [" steps "]}"
#define BYTES           ", {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false}"
#define GPT2            "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}"

/* tokenizer.json of a dozen tokens; more: members behind the others. */
static void write_bpe(const char *merges, const char *pre, const char *model_more, const char *more) {
    char *text = malloc(1 << 16);
    assert_non_null(text);
    snprintf(
        text, 1 << 16,
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 3, \"b\": 4, \"ab\": 5, \"\\u0120\": 6, \"\\u0120a\": 7,"
        " \"\\u010a\": 8}, \"merges\": %s%s}, \"pre_tokenizer\": %s, \"added_tokens\": ["
        " {\"id\": 0, \"content\": \"<unk>\", \"special\": true}, {\"id\": 1, \"content\": \"<s>\", \"special\": true},"
        " {\"id\": 2, \"content\": \"</s>\", \"special\": true}, {\"id\": 9, \"content\": \"<|tool|>\", \"special\": "
        "false},"
        " {\"id\": 10, \"content\": \"two\\u2581words\", \"special\": false}%s}",
        merges, model_more, pre, more);
    hf_write_text(directory, "tokenizer.json", text);
    free(text);
}

static const char merges_as_text[] = "[\"a b\", \"\\u0120 a\"]";

static void both_forms_of_merges_are_read(void **state) {
    (void)state;
    write_body("Llama", 13);
    for (int lists = 0; lists < 2; lists++) {
        write_bpe(lists ? "[[\"a\", \"b\"], [\"\\u0120\", \"a\"], [\"a b\", \"c\"]]" : "[\"a b\", \"\\u0120 a\"]", GPT2,
                  "", "]");
        gguf_file *file = converted();
        const gguf_value *merges = gguf_find(file, "tokenizer.ggml.merges");
        const gguf_str *text = merges->data;
        assert_int_equal(merges->count, lists ? 3 : 2);
        assert_string_equal(text[0].s, "a b");
        assert_string_equal(text[1].s, "\xC4\xA0 a");
        if (lists)
            assert_string_equal(text[2].s, "a\xC4\xA0"
                                           "b c");
        assert_string_equal(text_key(file, "tokenizer.ggml.model"), "gpt2");
        assert_string_equal(text_key(file, "tokenizer.ggml.pre"), "gpt-2");
        assert_null(gguf_find(file, "tokenizer.ggml.scores"));
        token_is(file, 0, "<unk>", 3);
        token_is(file, 5, "ab", 1);
        token_is(file, 9, "<|tool|>", 3); /* looks like one */
        token_is(file, 10, "two words", 4);
        token_is(file, 11, "[PAD11]", 5);
        assert_int_equal(id_key(file, "tokenizer.ggml.eos_token_id"), 2); /* of config.json */
        assert_int_equal(id_key(file, "tokenizer.ggml.bos_token_id"), -1);
        gguf_close(file);
    }
}

static void the_pre_tokenizer_is_recognised(void **state) {
    static const char begin[] = ", {\"id\": 11, \"content\": \"<|begin_of_text|>\", \"special\": true}]";
    static const char begin_first[] =
        ", {\"id\": 11, \"content\": \"<|begin_of_text|>\", \"special\": true}], \"post_processor\": {\"type\": "
        "\"Sequence\","
        " \"processors\": [{\"type\": \"ByteLevel\"}, {\"type\": \"TemplateProcessing\", \"single\":"
        " [{\"SpecialToken\": {\"id\": \"<|begin_of_text|>\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\"}}]}]}";
    static const struct {
        const char *pre, *more, *name;
        int add_bos;
    } cases[] = {
        {SEQUENCE(SPLIT(LLAMA3) BYTES), begin_first, "llama-bpe", 1},
        {SEQUENCE(SPLIT(LLAMA3) BYTES), begin, "smaug-bpe", 0},
        {SEQUENCE(SPLIT(LLAMA3) BYTES), "]", "dbrx", 0},
        {SEQUENCE(SPLIT(QWEN2) BYTES), "]", "qwen2", -1},
        {SEQUENCE(SPLIT(QWEN2) BYTES),
         ", {\"id\": 11, \"content\": \"<\\uff5cbegin\\u2581of\\u2581sentence\\uff5c>\", \"special\": true}]",
         "deepseek-r1-qwen", -1},
        {SEQUENCE(SPLIT(GPT4O) BYTES), "]", "gpt-4o", -1},
        {SEQUENCE(SPLIT(TEKKEN) BYTES), "]", "tekken", -1},
        {SEQUENCE("{\"type\": \"Digits\", \"individual_digits\": true}, " GPT2), "]", "smollm", -1},
        {SEQUENCE(SPLIT("[\\r\\n]") ", " SPLIT("\\\\s?\\\\p{L}+") ", " SPLIT("\\\\s?\\\\p{P}+") ", " SPLIT(
             "[\\u4e00-\\u9fa5\\u0800-\\u4e00\\uac00-\\ud7ff]+") ", {\"type\": \"Digits\", \"individual_digits\": "
                                                                 "true}" BYTES),
         "]", "deepseek-coder", -1},
    };
    (void)state;
    write_body("Llama", 13);
    for (size_t i = 0; i < COUNT(cases); i++) {
        write_bpe(merges_as_text, cases[i].pre, "", cases[i].more);
        gguf_file *file = converted();
        if (strcmp(text_key(file, "tokenizer.ggml.pre"), cases[i].name) != 0)
            fail_msg("case %zu: %s, expected %s", i, text_key(file, "tokenizer.ggml.pre"), cases[i].name);
        if (bool_key(file, "tokenizer.ggml.add_bos_token") != cases[i].add_bos)
            fail_msg("case %zu: add_bos_token %d", i, bool_key(file, "tokenizer.ggml.add_bos_token"));
        gguf_close(file);
    }
    /* A vocabulary that takes whole words without merging them needs the name that says so. */
    write_bpe(merges_as_text, SEQUENCE(SPLIT(LLAMA3) BYTES), ", \"ignore_merges\": true", begin);
    gguf_file *file = converted();
    assert_string_equal(text_key(file, "tokenizer.ggml.pre"), "llama-bpe");
    assert_int_equal(bool_key(file, "tokenizer.ggml.add_bos_token"), 0);
    gguf_close(file);
}

/* ---- roles and templates ----------------------------------------------------------------------------------------- */

static void tokens_get_their_roles(void **state) {
    static const char around[] =
        "], \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\"}},"
        " {\"Sequence\": {\"id\": \"A\"}}, {\"SpecialToken\": {\"id\": \"</s>\"}}], \"pair\": []}";
    (void)state;
    write_body("Qwen2", 13);
    write_bpe(merges_as_text, GPT2, "", around);
    hf_write_text(
        directory, "tokenizer_config.json",
        "{\"model_max_length\": 1000000000000000019884624838656, \"x\": \"\\\\\", \"y\": -12345678901234567890,"
        " \"z\": 0.12345678901234567890, \"1000000000000000019884624838656\": \"\\\"1000000000000000019884624838656\","
        " \"bos_token\": {\"content\": \"<s>\"}, \"pad_token\": \"<|tool|>\", \"unk_token\": \"<unk>\"}");
    gguf_file *file = converted();
    assert_int_equal(id_key(file, "tokenizer.ggml.bos_token_id"), 1);
    assert_int_equal(id_key(file, "tokenizer.ggml.eos_token_id"), 2);
    assert_int_equal(id_key(file, "tokenizer.ggml.unknown_token_id"), 0);
    assert_int_equal(id_key(file, "tokenizer.ggml.padding_token_id"), 9);
    assert_int_equal(bool_key(file, "tokenizer.ggml.add_bos_token"), 1);
    assert_int_equal(bool_key(file, "tokenizer.ggml.add_eos_token"), 1);
    gguf_close(file);
    /* What tokenizer_config.json says in words counts more. An end of turn beside the end of a text is kept. */
    hf_write_text(
        directory, "tokenizer_config.json",
        "{\"bos_token\": \"<s>\", \"eos_token\": \"<|tool|>\", \"add_bos_token\": false, \"add_eos_token\": false}");
    file = converted();
    assert_int_equal(id_key(file, "tokenizer.ggml.eos_token_id"), 2);
    assert_int_equal(id_key(file, "tokenizer.ggml.eot_token_id"), 9);
    assert_int_equal(bool_key(file, "tokenizer.ggml.add_bos_token"), 0);
    assert_int_equal(bool_key(file, "tokenizer.ggml.add_eos_token"), 0);
    gguf_close(file);
}

/* Models that also see pictures have a part for the text in config.json; ids outside it count more. */
static void ids_outside_of_text_config_count(void **state) {
    static const char shape[] =
        "\"vocab_size\": 13, \"hidden_size\": 32, \"intermediate_size\": 32, \"num_hidden_layers\": 1, "
        "\"num_attention_heads\": 2";
    static const struct {
        const char *outside;
        long eos;
    } cases[] = {{"\"eos_token_id\": 2", 2}, {"\"eos_token_id\": null", 9}, {"\"eos_token_id\": [2, 1]", -1}};
    (void)state;
    write_body("Qwen2", 13);
    write_bpe(merges_as_text, GPT2, "", "]");
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[512];
        snprintf(text, sizeof text,
                 "{\"architectures\": [\"Qwen2ForCausalLM\"], %s, \"text_config\": {%s, \"eos_token_id\": 9, "
                 "\"bos_token_id\": 1}}",
                 cases[i].outside, shape);
        hf_write_text(directory, "config.json", text);
        gguf_file *file = converted();
        assert_int_equal(id_key(file, "tokenizer.ggml.eos_token_id"), cases[i].eos);
        assert_int_equal(id_key(file, "tokenizer.ggml.bos_token_id"), 1);
        gguf_close(file);
    }
}

static void chat_templates_come_along(void **state) {
    (void)state;
    write_body("Qwen2", 13);
    write_bpe(merges_as_text, GPT2, "", "]");
    hf_write_text(directory, "chat_template.json", "{\"chat_template\": \"from json\"}");
    gguf_file *file = converted();
    assert_string_equal(text_key(file, "tokenizer.chat_template"), "from json");
    gguf_close(file);
    hf_write_text(directory, "chat_template.jinja", "from jinja");
    file = converted();
    assert_string_equal(text_key(file, "tokenizer.chat_template"), "from jinja");
    gguf_close(file);
    hf_write_text(directory, "tokenizer_config.json", "{\"chat_template\": \"inside\"}");
    file = converted();
    assert_string_equal(text_key(file, "tokenizer.chat_template"), "inside");
    gguf_close(file);
    hf_write_text(directory, "tokenizer_config.json",
                  "{\"chat_template\": [{\"name\": \"tool use\", \"template\": \"T\"}, {\"name\": \"default\", "
                  "\"template\": \"D\"}, {\"name\": \"tool_use\", \"template\": \"twice\"}, "
                  "{\"name\": \"rag\", \"template\": \"R\"}, 7]}");
    file = converted();
    assert_string_equal(text_key(file, "tokenizer.chat_template"), "D");
    assert_string_equal(text_key(file, "tokenizer.chat_template.tool_use"), "T");
    const gguf_value *names = gguf_find(file, "tokenizer.chat_templates");
    assert_true(names && names->elem_type == GGUF_STR && names->count == 2);
    assert_string_equal(((const gguf_str *)names->data)[0].s, "tool_use");
    assert_string_equal(((const gguf_str *)names->data)[1].s, "rag");
    gguf_close(file);
}

static void the_authors_settings_come_along(void **state) {
    float x = 0;
    int found;
    (void)state;
    write_body("Qwen2", 13);
    write_bpe(merges_as_text, GPT2, "", "]");
    hf_write_text(
        directory, "generation_config.json",
        "{\"temperature\": 0.7, \"top_k\": 20, \"top_p\": null, \"repetition_penalty\": 1.05, \"do_sample\": true}");
    gguf_file *file = converted();
    gguf_get_f32(file, "general.sampling.temp", &x, &found, NULL);
    assert_true(found && x == 0.7f);
    gguf_get_f32(file, "general.sampling.penalty_repeat", &x, &found, NULL);
    assert_true(found && x == 1.05f);
    assert_int_equal(id_key(file, "general.sampling.top_k"), 20);
    assert_null(gguf_find(file, "general.sampling.top_p"));
    assert_string_equal(text_key(file, "general.type"), "model");
    gguf_close(file);
}

/* ---- SentencePiece vocabularies in tokenizer.json ---------------------------------------------------------------- */

static void put_json(FILE *out_file, const char *text, size_t n) {
    fputc('"', out_file);
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] < 32)
            fprintf(out_file, "\\u%04x", text[i]);
        else
            fprintf(out_file, text[i] == '"' || text[i] == '\\' ? "\\%c" : "%c", text[i]);
    }
    fputc('"', out_file);
}

static const gguf_str *find_text(const gguf_str *tokens, uint64_t n, const char *text, size_t length) {
    for (uint64_t i = 0; i < n; i++) {
        if (tokens[i].n == length && !memcmp(tokens[i].s, text, length)) return &tokens[i];
    }
    return NULL;
}

/* As Hugging Face turns a SentencePiece vocabulary into merges: every way to make a token of two, best token first. */
static void write_spm_as_json(const gguf_file *file) {
    const gguf_value *list = gguf_find(file, "tokenizer.ggml.tokens");
    const gguf_str *tokens = list->data;
    const int32_t *types = gguf_find(file, "tokenizer.ggml.token_type")->data;
    char *text = NULL;
    size_t size = 0;
    int first = 1;
    FILE *json = open_memstream(&text, &size);
    fputs(
        "{\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": "
        "\"\\u2581\"}]},"
        " \"decoder\": {\"type\": \"Sequence\"}, \"model\": {\"type\": \"BPE\", \"byte_fallback\": true, \"vocab\": {",
        json);
    for (uint64_t i = 0; i < list->count; i++) {
        if (i) fputc(',', json);
        put_json(json, tokens[i].s, tokens[i].n);
        fprintf(json, ": %llu", (unsigned long long)i);
    }
    fputs("}, \"merges\": [", json);
    for (uint64_t i = 0; i < list->count; i++) { /* this vocabulary's ids are in the order of scores */
        for (size_t cut = 1; types[i] == 1 && cut < tokens[i].n; cut++) {
            const gguf_str *a = find_text(tokens, list->count, tokens[i].s, cut);
            const gguf_str *b = find_text(tokens, list->count, tokens[i].s + cut, tokens[i].n - cut);
            if (!a || !b) continue;
            fputs(first ? "[" : ", [", json);
            put_json(json, a->s, a->n);
            fputc(',', json);
            put_json(json, b->s, b->n);
            fputc(']', json);
            first = 0;
        }
    }
    fputs("]}, \"added_tokens\": [{\"id\": 0, \"content\": \"<unk>\", \"special\": true}, {\"id\": 1, \"content\": "
          "\"<s>\","
          " \"special\": true}, {\"id\": 2, \"content\": \"</s>\", \"special\": true}]}",
          json);
    fclose(json);
    hf_write(directory, "tokenizer.json", text, size);
    free(text);
}

static void scores_from_merges_make_the_same_tokens(void **state) {
    static const char *const texts[] = {"Once upon a time, there was a little girl named Lily.",
                                        "The dog didn't like it.\n\n\"No!\" said Tom... 42 \xC3\xA9\xE2\x82\xAC",
                                        "a",
                                        "",
                                        "  two  spaces  ",
                                        "aaaaaaaaaaaaaaaaaaaa"};
    char path[256];
    minim_model *models[2];
    minim_error e;
    minim_model_options options;
    (void)state;
    minim_model_options_default(&options);
    options.level = MINIM_LOAD_VOCAB;
    gguf_file *file = open_file(fixture);
    for (int from_json = 0; from_json < 2; from_json++) {
        hf_write_model(directory, file);
        snprintf(path, sizeof path, "%s/tokenizer.model", directory);
        if (from_json) unlink(path);
        if (from_json) write_spm_as_json(file);
        convert("-q");
        if (minim_model_load(output, &options, &models[from_json], &e)) fail_msg("%s", e.text);
    }
    gguf_close(file);
    gguf_file *found = open_file(output);
    token_is(found, 3, "<0x00>", 6);
    token_is(found, 1, "<s>", 3);
    assert_string_equal(text_key(found, "tokenizer.ggml.model"), "llama");
    gguf_close(found);
    for (size_t i = 0; i < COUNT(texts); i++) {
        int32_t a[256], b[256];
        size_t n, m;
        assert_int_equal(minim_tokenize(models[0], texts[i], strlen(texts[i]), MINIM_ADD_SPECIAL, a, 256, &n, &e),
                         MINIM_OK);
        assert_int_equal(minim_tokenize(models[1], texts[i], strlen(texts[i]), MINIM_ADD_SPECIAL, b, 256, &m, &e),
                         MINIM_OK);
        if (n != m || memcmp(a, b, n * sizeof *a) != 0) fail_msg("other tokens for \"%s\"", texts[i]);
    }
    minim_model_free(models[0]);
    minim_model_free(models[1]);
}

/* ---- published vocabularies -------------------------------------------------------------------------------------- */

/* tokenizer.json of a byte-level vocabulary in GGUF. Two tokens of one text cannot both be in it; padding is left out.
 */
static void write_bpe_of(const gguf_file *file, const char *pre) {
    const gguf_value *list = gguf_find(file, "tokenizer.ggml.tokens"),
                     *merges = gguf_find(file, "tokenizer.ggml.merges");
    const gguf_str *tokens = list->data, *merge = merges->data;
    const int32_t *types = gguf_find(file, "tokenizer.ggml.token_type")->data;
    char *text = NULL;
    size_t size = 0;
    FILE *json = open_memstream(&text, &size);
    fputs("{\"model\": {\"type\": \"BPE\", \"vocab\": {", json);
    int first = 1;
    for (uint64_t i = 0; i < list->count; i++) {
        if (types[i] != 1) continue;
        if (!first) fputc(',', json);
        put_json(json, tokens[i].s, tokens[i].n);
        fprintf(json, ": %llu", (unsigned long long)i);
        first = 0;
    }
    fputs("}, \"merges\": [", json);
    for (uint64_t i = 0; i < merges->count; i++) {
        if (i) fputc(',', json);
        put_json(json, merge[i].s, merge[i].n);
    }
    fprintf(json, "]}, \"pre_tokenizer\": %s, \"added_tokens\": [", pre);
    first = 1;
    for (uint64_t i = 0; i < list->count; i++) {
        if (types[i] != 3 && types[i] != 4) continue;
        fprintf(json, "%s{\"id\": %llu, \"special\": %s, \"content\": ", first ? "" : ",", (unsigned long long)i,
                types[i] == 3 ? "true" : "false");
        put_json(json, tokens[i].s, tokens[i].n);
        fputc('}', json);
        first = 0;
    }
    fputs("]}", json);
    fclose(json);
    hf_write(directory, "tokenizer.json", text, size);
    free(text);
}

/* Texts that are equal but for those of unused tokens, which get a name of their own. */
static void same_vocabulary(const gguf_file *a, const gguf_file *b, const char *key) {
    const gguf_value *x = gguf_find(a, key), *y = gguf_find(b, key);
    const int32_t *types = gguf_find(a, "tokenizer.ggml.token_type")->data;
    if (!x || !y || x->count != y->count || x->elem_type != y->elem_type)
        fail_msg("%s: missing, or of another size", key);
    for (uint64_t i = 0; i < x->count; i++) {
        const gguf_str *s = x->data, *r = y->data;
        if (x->elem_type != GGUF_STR) {
            if (((const uint32_t *)x->data)[i] != ((const uint32_t *)y->data)[i])
                fail_msg("%s[%llu]", key, (unsigned long long)i);
        } else if ((s[i].n != r[i].n || memcmp(s[i].s, r[i].s, s[i].n) != 0) &&
                   !(strstr(key, "tokens") && types[i] == 5)) {
            fail_msg("%s[%llu]: \"%s\", expected \"%s\"", key, (unsigned long long)i, r[i].s, s[i].s);
        }
    }
}

static void published_vocabularies_come_back(void **state) {
    static const struct {
        const char *name, *pre; /* pre: NULL = SentencePiece */
    } cases[] = {{"llama-spm", NULL},
                 {"gpt-2", GPT2},
                 {"qwen2", SEQUENCE(SPLIT(QWEN2) BYTES)},
                 {"llama3", SEQUENCE(SPLIT(LLAMA3) BYTES)},
                 {"starcoder", SEQUENCE("{\"type\": \"Digits\", \"individual_digits\": true}, " GPT2)}};
    const char *shared = getenv("MINIM_SHARED");
    int n = 0;
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/fixtures/vocab/%s.gguf", shared ? shared : "../shared", cases[i].name);
        if (access(path, R_OK)) continue;
        gguf_file *file = open_file(path);
        hf_remove_directory(directory);
        mkdir(directory, 0700);
        write_body("Qwen2", gguf_find(file, "tokenizer.ggml.tokens")->count);
        if (cases[i].pre)
            write_bpe_of(file, cases[i].pre);
        else
            hf_write_spm(directory, file);
        gguf_file *found = converted();
        same_vocabulary(file, found, "tokenizer.ggml.tokens");
        same_vocabulary(file, found, "tokenizer.ggml.token_type");
        same_vocabulary(file, found, cases[i].pre ? "tokenizer.ggml.merges" : "tokenizer.ggml.scores");
        printf("# %-10s %llu tokens come back\n", cases[i].name,
               (unsigned long long)gguf_find(file, "tokenizer.ggml.tokens")->count);
        gguf_close(found);
        gguf_close(file);
        n++;
    }
    if (!n) printf("# SKIP convert: there are no published vocabularies\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(both_forms_of_merges_are_read, setup, teardown),
        cmocka_unit_test_setup_teardown(the_pre_tokenizer_is_recognised, setup, teardown),
        cmocka_unit_test_setup_teardown(tokens_get_their_roles, setup, teardown),
        cmocka_unit_test_setup_teardown(ids_outside_of_text_config_count, setup, teardown),
        cmocka_unit_test_setup_teardown(chat_templates_come_along, setup, teardown),
        cmocka_unit_test_setup_teardown(the_authors_settings_come_along, setup, teardown),
        cmocka_unit_test_setup_teardown(scores_from_merges_make_the_same_tokens, setup, teardown),
        cmocka_unit_test_setup_teardown(published_vocabularies_come_back, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
