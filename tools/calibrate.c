/* calibrate.c: see calibrate.h. */
#include "calibrate.h"

#include <math.h>
#include <string.h>

/* Tokens of the text behind BOS, where the vocabulary asks for one; *bos is it, or -1. EOS never. */
static int calibrate_tokenize(const minim_model *model, const tool_bytes *bytes, tool_tokens *tokens, int32_t *bos) {
    minim_model_info info = {.size = sizeof info};
    tool_tokens text = {0};
    minim_model_get_info(model, &info);
    int code = tool_tokenize(model, "", 0, MINIM_ADD_SPECIAL, tokens);
    if (code < 0) code = tool_tokenize(model, bytes->data, bytes->n, 0, &text);
    if (code < 0) {
        *bos = info.bos >= 0 && tokens->n > 0 && tokens->ids[0] == info.bos ? info.bos : -1;
        tokens->n = *bos >= 0;
        if (tool_tokens_reserve(tokens, tokens->n + text.n)) code = EXIT_CODE_FAILED;
        if (code < 0 && text.n > 0) memcpy(tokens->ids + tokens->n, text.ids, text.n * sizeof *text.ids);
        if (code < 0) tokens->n += text.n;
    }
    tool_tokens_free(&text);
    return code;
}

int calibrate_read(const minim_model *model, calibrate_text *text) {
    minim_model_info info = {.size = sizeof info};
    tool_bytes bytes = {0};
    int32_t bos = -1;
    minim_model_get_info(model, &info);
    if (!text->n_ctx)
        text->n_ctx =
            info.n_ctx_train > 0 && info.n_ctx_train < CALIBRATE_CTX ? (size_t)info.n_ctx_train : CALIBRATE_CTX;
    int code = tool_read_file(text->path, &bytes);
    if (code < 0) code = calibrate_tokenize(model, &bytes, &text->tokens, &bos);
    tool_bytes_free(&bytes);
    if (code >= 0) return code;
    const size_t n = text->tokens.n / text->n_ctx;
    if (n <= text->skip) {
        return tool_fail("%s: expected at least %zu tokens, %zu for each chunk (-c), found %zu",
                         strcmp(text->path, "-") ? text->path : "standard input", (text->skip + 1) * text->n_ctx,
                         text->n_ctx, text->tokens.n);
    }
    const size_t most = n - text->skip;
    text->n_chunks = text->n_chunks && text->n_chunks < most ? text->n_chunks : most;
    memmove(text->tokens.ids, text->tokens.ids + text->skip * text->n_ctx,
            text->n_chunks * text->n_ctx * sizeof *text->tokens.ids);
    text->tokens.n = text->n_chunks * text->n_ctx;
    for (size_t i = 0; i < text->n_chunks && bos >= 0; i++) text->tokens.ids[i * text->n_ctx] = bos;
    return -1;
}

size_t calibrate_find_bad(const float *x, size_t n) {
    size_t i = 0;
    while (i < n && isfinite(x[i])) i++;
    return i;
}
