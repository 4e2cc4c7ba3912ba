/* vocab_api.c: the part of minim.h that turns text into tokens and back. */
#include "chat.h"
#include "model.h"

#include <string.h>

static minim_status vocab_api_check(const minim_model *model, minim_error *e) {
    if (!model) return err_set(e, MINIM_ERR_ARGUMENT, "model is NULL");
    if (!model->vocab) return err_set(e, MINIM_ERR_ARGUMENT, "the model was loaded without its vocabulary");
    return MINIM_OK;
}

/* Hands the list over to the caller's buffer and frees it. */
static minim_status vocab_api_give(const minim_model *model, token_list *list, int32_t *tokens, size_t capacity,
                                   size_t *n_tokens, minim_error *e) {
    const size_t n = list->n;
    const int fits = n <= capacity;
    if (fits && n) memcpy(tokens, list->token, n * sizeof *tokens);
    token_list_free(&model->allocator, list);
    *n_tokens = n;
    if (fits) return err_ok(e);
    return err_set(e, MINIM_ERR_SPACE, "%llu tokens do not fit a buffer for %llu", (unsigned long long)n,
                   (unsigned long long)capacity);
}

minim_status minim_tokenize(const minim_model *model, const char *text, size_t n_bytes, unsigned flags, int32_t *tokens,
                            size_t capacity, size_t *n_tokens, minim_error *error) {
    token_list list = {0};
    minim_status status = vocab_api_check(model, error);
    if (status) return status;
    if (!n_tokens || (!tokens && capacity)) return err_set(error, MINIM_ERR_ARGUMENT, "tokens or n_tokens is NULL");
    if (flags & ~(unsigned)(MINIM_ADD_SPECIAL | MINIM_PARSE_SPECIAL))
        return err_set(error, MINIM_ERR_ARGUMENT, "flags is %#x, which has unknown bits", flags);
    status = vocab_tokenize(model->vocab, &model->allocator, text, n_bytes, flags, &list, error);
    if (status) {
        token_list_free(&model->allocator, &list);
        return status;
    }
    return vocab_api_give(model, &list, tokens, capacity, n_tokens, error);
}

minim_status minim_detokenize(const minim_model *model, const int32_t *tokens, size_t n_tokens, unsigned flags,
                              char *buffer, size_t capacity, size_t *n_bytes, minim_error *error) {
    const int special = (flags & MINIM_PARSE_SPECIAL) != 0;
    int at_start = 1;
    size_t n = 0;
    const minim_status status = vocab_api_check(model, error);
    if (status) return status;
    if (!n_bytes || (!tokens && n_tokens) || (!buffer && capacity))
        return err_set(error, MINIM_ERR_ARGUMENT, "tokens, buffer or n_bytes is NULL");
    if (flags & ~(unsigned)(MINIM_ADD_SPECIAL | MINIM_PARSE_SPECIAL))
        return err_set(error, MINIM_ERR_ARGUMENT, "flags is %#x, which has unknown bits", flags);
    for (size_t i = 0; i < n_tokens; i++) {
        if (tokens[i] < 0 || tokens[i] >= vocab_size(model->vocab))
            return err_set(error, MINIM_ERR_ARGUMENT, "token %llu is %d, expected 0..%d", (unsigned long long)i,
                           (int)tokens[i], (int)vocab_size(model->vocab) - 1);
    }
    for (size_t i = 0; i < n_tokens; i++) {
        const size_t used = n < capacity ? n : capacity;
        n += vocab_piece(model->vocab, tokens[i], special, at_start, buffer ? buffer + used : NULL, capacity - used);
        at_start = vocab_next_at_start(model->vocab, tokens[i], special, at_start);
    }
    *n_bytes = n;
    if (n <= capacity) return err_ok(error);
    return err_set(error, MINIM_ERR_SPACE, "%llu bytes do not fit a buffer for %llu", (unsigned long long)n,
                   (unsigned long long)capacity);
}

int minim_token_is_end(const minim_model *model, int32_t token) {
    return model && model->vocab && vocab_is_end(model->vocab, token);
}

minim_status minim_chat_tokenize(const minim_model *model, const char *format, const minim_message *messages,
                                 size_t n_messages, int32_t *tokens, size_t capacity, size_t *n_tokens,
                                 minim_error *error) {
    chat_style style;
    token_list list = {0};
    minim_status status = vocab_api_check(model, error);
    if (status) return status;
    if (!n_tokens || (!tokens && capacity)) return err_set(error, MINIM_ERR_ARGUMENT, "tokens or n_tokens is NULL");
    status = chat_choose(model->file, format, &style, error);
    if (!status) status = chat_tokenize(model->vocab, &model->allocator, &style, messages, n_messages, &list, error);
    if (status) {
        token_list_free(&model->allocator, &list);
        return status;
    }
    return vocab_api_give(model, &list, tokens, capacity, n_tokens, error);
}
