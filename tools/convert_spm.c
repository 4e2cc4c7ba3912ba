/* convert_spm.c: tokens from tokenizer.model. See convert.h.
 *
 * The file is a protobuf, ModelProto of
 * https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto; of it only the pieces are read:
 *
 *     field 1, repeated: SentencePiece { 1: text, 2: score (float32), 3: type }
 *
 * A protobuf is a row of fields, each a varint (number << 3 | kind) and a value whose length the kind tells. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "convert.h"

typedef struct spm_bytes {
    const uint8_t *at, *end;
} spm_bytes;

typedef struct spm_field {
    uint64_t number, value; /* value: of a varint or of 4 fixed bytes */
    spm_bytes bytes;        /* of a text or message */
    int kind;
} spm_field;

enum { SPM_VARINT = 0, SPM_FIXED64 = 1, SPM_BYTES = 2, SPM_FIXED32 = 5 };

/* At most ten bytes of 7 bits, lowest first. 0 or -1. */
static int spm_varint(spm_bytes *b, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 70 && b->at < b->end; shift += 7) {
        const uint8_t byte = *b->at++;
        if (shift < 64) *value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) return 0;
    }
    return -1;
}

/* 0 or -1. */
static int spm_next(spm_bytes *b, spm_field *field) {
    uint64_t key, length;
    if (spm_varint(b, &key)) return -1;
    *field = (spm_field){.number = key >> 3, .kind = (int)(key & 7)};
    switch (field->kind) {
    case SPM_VARINT: return spm_varint(b, &field->value);
    case SPM_BYTES:
        if (spm_varint(b, &length) || length > (uint64_t)(b->end - b->at)) return -1;
        break;
    case SPM_FIXED64: length = 8; break;
    case SPM_FIXED32: length = 4; break;
    default: return -1;
    }
    if (length > (uint64_t)(b->end - b->at)) return -1;
    field->bytes = (spm_bytes){b->at, b->at + length};
    for (uint64_t i = 0; field->kind == SPM_FIXED32 && i < length; i++) field->value |= (uint64_t)b->at[i] << 8 * i;
    b->at += length;
    return 0;
}

typedef struct spm_piece {
    spm_bytes text;
    float score;
    uint64_t type;
} spm_piece;

/* 0 or -1. */
static int spm_read_piece(spm_bytes bytes, spm_piece *piece) {
    *piece = (spm_piece){.type = CONVERT_NORMAL};
    while (bytes.at < bytes.end) {
        spm_field field;
        if (spm_next(&bytes, &field)) return -1;
        if (field.number == 1 && field.kind == SPM_BYTES) {
            piece->text = field.bytes;
        } else if (field.number == 2 && field.kind == SPM_FIXED32) {
            const uint32_t bits = (uint32_t)field.value;
            memcpy(&piece->score, &bits, sizeof bits);
        } else if (field.number == 3 && field.kind == SPM_VARINT) {
            piece->type = field.value;
        }
    }
    return 0;
}

/* Calls for every piece; with a vocabulary it is filled. *n gets their number. */
static int spm_read_pieces(const char *directory, const tool_bytes *file, convert_vocab *vocab, int *n) {
    spm_bytes bytes = {(const uint8_t *)file->data, (const uint8_t *)file->data + file->n};
    *n = 0;
    while (bytes.at < bytes.end) {
        spm_field field;
        spm_piece piece;
        const size_t at = (size_t)(bytes.at - (const uint8_t *)file->data);
        if (spm_next(&bytes, &field) ||
            (field.number == 1 && (field.kind != SPM_BYTES || spm_read_piece(field.bytes, &piece))))
            return tool_fail("%s/tokenizer.model: byte %zu: expected a field of a SentencePiece model", directory, at);
        if (field.number != 1) continue;
        if (!isfinite(piece.score))
            return tool_fail("%s/tokenizer.model: token %d: its score is not finite", directory, *n);
        const int id = (*n)++;
        if (!vocab || id >= vocab->n) continue;
        /* llama.cpp's converter takes the user's own tokens for normal ones here. */
        const int known = piece.type == CONVERT_UNKNOWN || piece.type == CONVERT_CONTROL ||
                          piece.type == CONVERT_UNUSED || piece.type == CONVERT_BYTE;
        const int code =
            convert_set_token(vocab, id, (const char *)piece.text.at, (size_t)(piece.text.end - piece.text.at),
                              piece.score, known ? (int)piece.type : CONVERT_NORMAL);
        if (code >= 0) return code;
    }
    return -1;
}

/* Is there a token of this id in the list? Others are left out, as llama.cpp's converter does. */
static int spm_in_range(const convert_model *model, const convert_vocab *vocab, json_int_t id, const char *file) {
    if (id >= 0 && id < vocab->n) return 1;
    convert_warn(model, "%s/%s: token %" JSON_INTEGER_FORMAT " is left out: vocab_size is %d", model->directory, file,
                 id, vocab->n);
    return 0;
}

/* added_tokens.json: {"text": id}. */
static int spm_add_list(const convert_model *model, convert_vocab *vocab) {
    static const char file[] = "added_tokens.json";
    const char *text;
    json_t *list, *value;
    int code = convert_read_json(model->directory, file, 0, &list);
    json_object_foreach(list, text, value) {
        if (code >= 0) break;
        if (!json_is_integer(value))
            code = tool_fail("%s/%s: %.80s: expected a token id", model->directory, file, text);
        else if (spm_in_range(model, vocab, json_integer_value(value), file))
            code = convert_set_token(vocab, (int)json_integer_value(value), text, strlen(text), -1000.0f, CONVERT_USER);
    }
    json_decref(list);
    return code;
}

/* One added token of tokenizer_config.json or tokenizer.json. Phi-3 believes their flags alone. */
static int spm_add(const convert_model *model, convert_vocab *vocab, json_int_t id, json_t *token, const char *file) {
    json_t *content = json_object_get(token, "content");
    const char *text = json_string_value(content);
    const int special = json_is_true(json_object_get(token, "special"));
    if (!text)
        return tool_fail("%s/%s: added token %" JSON_INTEGER_FORMAT ": expected a text", model->directory, file, id);
    if (!spm_in_range(model, vocab, id, file)) return -1;
    const size_t length = json_string_length(content);
    if (model->family->style != CONVERT_PHI3) return convert_add_token(vocab, (int)id, text, length, special, -1000.0f);
    return convert_set_token(vocab, (int)id, text, length, -1000.0f, special ? CONVERT_CONTROL : CONVERT_USER);
}

static int spm_add_decoder(const convert_model *model, convert_vocab *vocab) {
    const char *name;
    json_t *token;
    json_object_foreach(json_object_get(vocab->config, "added_tokens_decoder"), name, token) {
        char *end;
        const long long id = strtoll(name, &end, 10);
        if (end == name || *end)
            return tool_fail("%s/tokenizer_config.json: added_tokens_decoder: expected a token id, found \"%.40s\"",
                             model->directory, name);
        const int code = spm_add(model, vocab, id, token, "tokenizer_config.json");
        if (code >= 0) return code;
    }
    return -1;
}

static int spm_add_json(const convert_model *model, convert_vocab *vocab) {
    size_t i;
    json_t *token;
    json_array_foreach(json_object_get(vocab->tokenizer, "added_tokens"), i, token) {
        json_t *id = json_object_get(token, "id");
        if (!json_is_integer(id))
            return tool_fail("%s/tokenizer.json: added_tokens[%zu]: expected an id", model->directory, i);
        const int code = spm_add(model, vocab, json_integer_value(id), token, "tokenizer.json");
        if (code >= 0) return code;
    }
    return -1;
}

int convert_read_spm(const convert_model *model, const tool_bytes *file, convert_vocab *vocab) {
    int n;
    vocab->model = "llama";
    vocab->pre = "default";
    vocab->has_scores = 1;
    int code = spm_read_pieces(model->directory, file, NULL, &n);
    if (code < 0 && n == 0) code = tool_fail("%s/tokenizer.model: there are no tokens in it", model->directory);
    if (code < 0 && n > model->shape.n_vocab)
        convert_warn(model, "%s/tokenizer.model: tokens from %d on are left out, by vocab_size of config.json",
                     model->directory, model->shape.n_vocab);
    if (code < 0) code = convert_new_tokens(vocab, model->shape.n_vocab);
    if (code < 0) code = spm_read_pieces(model->directory, file, vocab, &n);
    if (code < 0) code = spm_add_list(model, vocab);
    if (code < 0) code = spm_add_decoder(model, vocab);
    if (code < 0 && model->family->style == CONVERT_PHI3) code = spm_add_json(model, vocab);
    return code;
}
