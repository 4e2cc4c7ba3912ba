/* convert_vocab.c: the list of tokens, and what the vocabulary says about them. See convert.h. */
#include <stdlib.h>
#include <string.h>

#include "convert.h"

static const char convert_space_mark[] = "\xE2\x96\x81"; /* the space of SentencePiece */

/* ---- the list ---------------------------------------------------------------------------------------------------- */

int convert_new_tokens(convert_vocab *vocab, int n) {
    char text[32];
    vocab->tokens = calloc((size_t)n, sizeof *vocab->tokens);
    if (!vocab->tokens) return tool_fail("out of memory");
    vocab->n = n;
    for (int i = 0; i < n; i++) {
        const int length = snprintf(text, sizeof text, "[PAD%d]", i);
        const int code = convert_set_token(vocab, i, text, (size_t)length, -10000.0f, CONVERT_UNUSED);
        if (code >= 0) return code;
    }
    return -1;
}

int convert_set_token(convert_vocab *vocab, int id, const char *text, size_t length, float score, int type) {
    convert_token *token = &vocab->tokens[id];
    *token = (convert_token){vocab->text.n, length, score, type};
    return tool_bytes_append(&vocab->text, text, length) ? EXIT_CODE_FAILED : -1;
}

/* Tokens that some models add without the flag of a control token, although they are one. */
static int convert_looks_special(const char *text, size_t n) {
    static const char *const whole[] = {"<pad>", "<mask>", "<2mass>", "[@BOS@]"};
    static const struct {
        const char *start, *end;
    } around[] = {{"<|", "|>"}, {"<\xEF\xBD\x9C", "\xEF\xBD\x9C>"}, {"<unused", ">"}};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        if (strlen(whole[i]) == n && !memcmp(whole[i], text, n)) return 1;
    }
    for (size_t i = 0; i < sizeof around / sizeof *around; i++) {
        const size_t a = strlen(around[i].start), b = strlen(around[i].end);
        if (n >= a && n >= b && !memcmp(text, around[i].start, a) && !memcmp(text + n - b, around[i].end, b)) return 1;
    }
    return 0;
}

int convert_add_token(convert_vocab *vocab, int id, const char *text, size_t length, int special, float score) {
    if (special || convert_looks_special(text, length))
        return convert_set_token(vocab, id, text, length, score, CONVERT_CONTROL);
    convert_token *token = &vocab->tokens[id];
    *token = (convert_token){vocab->text.n, 0, score, CONVERT_USER};
    for (size_t i = 0; i < length;) {
        const int mark = length - i >= 3 && !memcmp(text + i, convert_space_mark, 3);
        if (tool_bytes_append(&vocab->text, mark ? " " : text + i, 1)) return EXIT_CODE_FAILED;
        i += mark ? 3 : 1;
        token->length++;
    }
    return -1;
}

static void convert_put_tokens(const convert_vocab *vocab, gguf_head *head) {
    gguf_head_string(head, "tokenizer.ggml.model", vocab->model, strlen(vocab->model));
    gguf_head_string(head, "tokenizer.ggml.pre", vocab->pre, strlen(vocab->pre));
    gguf_head_array(head, "tokenizer.ggml.tokens", GGUF_WRITE_STRING, (uint64_t)vocab->n);
    for (int i = 0; i < vocab->n; i++)
        gguf_head_put_string(head, vocab->text.data + vocab->tokens[i].text, vocab->tokens[i].length);
    if (vocab->has_scores) {
        gguf_head_array(head, "tokenizer.ggml.scores", GGUF_WRITE_F32, (uint64_t)vocab->n);
        for (int i = 0; i < vocab->n; i++) gguf_head_put_f32(head, vocab->tokens[i].score);
    }
    gguf_head_array(head, "tokenizer.ggml.token_type", GGUF_WRITE_I32, (uint64_t)vocab->n);
    for (int i = 0; i < vocab->n; i++) gguf_head_put_u32(head, (uint32_t)vocab->tokens[i].type);
}

/* ---- which files ------------------------------------------------------------------------------------------------- */

/* tokenizer.model where it is there and meant, else tokenizer.json. */
static int convert_read_tokens(const convert_model *model, convert_vocab *vocab) {
    tool_bytes file = {0};
    int code;
    const char *class = json_string_value(json_object_get(vocab->config, "tokenizer_class"));
    /* Phi-4 has files of both kinds. */
    const int ignored = model->family->style == CONVERT_PHI3 && class && !strcmp(class, "GPT2Tokenizer");
    const int missing = convert_read_file(model->directory, "tokenizer.model", 64 << 20, &file, &code);
    if (code < 0 && !missing && !ignored && (!vocab->tokenizer || (file.n && file.data[0] == '\n')))
        code = convert_read_spm(model, &file, vocab);
    else if (code < 0 && vocab->tokenizer)
        code = convert_read_bpe(model, vocab);
    else if (code < 0)
        code = tool_fail("%s: there is neither tokenizer.json nor tokenizer.model", model->directory);
    tool_bytes_free(&file);
    return code;
}

int convert_put_vocab(convert_model *model, gguf_head *head) {
    convert_vocab vocab = {.space_prefix = -1};
    int code = convert_read_json(model->directory, "tokenizer.json", 0, &vocab.tokenizer);
    if (code < 0) code = convert_read_json(model->directory, "tokenizer_config.json", 0, &vocab.config);
    if (code < 0) code = convert_read_tokens(model, &vocab);
    if (code < 0) {
        json_t *prefix = json_object_get(vocab.config, "add_prefix_space");
        if (model->family->style == CONVERT_LLAMA && json_is_boolean(prefix)) vocab.space_prefix = json_is_true(prefix);
        if (model->family->norm_shift && vocab.has_scores) vocab.space_prefix = 0; /* Gemma */
        model->n_tokens = vocab.n;
        convert_put_tokens(&vocab, head);
        if (vocab.has_merges) code = convert_put_merges(model, &vocab, head);
    }
    if (code < 0) code = convert_put_special(model, &vocab, head);
    if (code < 0 && vocab.space_prefix >= 0)
        gguf_head_bool(head, "tokenizer.ggml.add_space_prefix", vocab.space_prefix);
    json_decref(vocab.tokenizer);
    json_decref(vocab.config);
    tool_bytes_free(&vocab.text);
    free(vocab.tokens);
    return code;
}
