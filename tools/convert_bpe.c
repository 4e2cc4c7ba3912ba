/* convert_bpe.c: tokens and merges from tokenizer.json. See convert.h. The file's format:
 * https://huggingface.co/docs/tokenizers
 *
 * Two kinds of model are called "BPE" there: byte-level ones (GPT-2's kind), and SentencePiece vocabularies that were
 * turned into one (byte_fallback). The latter become "llama" vocabularies; their scores are the ranks of the merges,
 * which makes the same tokens of a text. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "convert.h"

/* ---- the pre-tokenizer ------------------------------------------------------------------------------------------- */

/* Contractions of English are written in several ways. */
static const char *const bpe_contractions[] = {
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
    "'(?i:[sdmt]|ll|ve|re)",
    "(?i:'(?:[sdmt]|ll|ve|re))",
};

/* Steps of a pre-tokenizer as text: R = a regular expression (contractions are C, line ends \r and \n), D = every digit
 * alone, N = numbers, B = bytes with GPT-2's expression, b = bytes only. What is not known starts with "?". */
static const struct {
    const char *steps, *name;
} bpe_splits[] = {
    {"RC|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+\nb\n",
     "llama-bpe"},
    {"RC|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+\nb\n",
     "qwen2"},
    {"RC|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| "
     "?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
     "\nb\n",
     "qwen35"},
    {"R[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+C?|[^\\r\\n\\p{L}\\p{N}"
     "]?"
     "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*C?|\\p{N}{1,3}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|"
     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+\nb\n",
     "gpt-4o"},
    {"R[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?"
     "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|"
     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+\nb\n",
     "tekken"},
    {"B\n", "gpt-2"},
    {"D\nB\n", "smollm"},
    {"R[\\r\\n]\nR\\s?\\p{L}+\nR\\s?\\p{P}+\nR[\xE4\xB8\x80-\xE9\xBE\xA5\xE0\xA0\x80-\xE4\xB8\x80\xEA\xB0\x80-"
     "\xED\x9F\xBF]+"
     "\nD\nb\n",
     "deepseek-coder"},
};

static int bpe_append(tool_bytes *steps, const char *text, size_t n) {
    return tool_bytes_append(steps, text, n) ? EXIT_CODE_FAILED : -1;
}

static int bpe_append_expression(tool_bytes *steps, const char *expression) {
    int code = bpe_append(steps, "R", 1);
    while (*expression && code < 0) {
        size_t taken = 1;
        const char *text = expression;
        size_t n = 1;
        for (size_t i = 0; i < sizeof bpe_contractions / sizeof *bpe_contractions; i++) {
            const size_t length = strlen(bpe_contractions[i]);
            if (strncmp(expression, bpe_contractions[i], length) != 0) continue;
            taken = length;
            text = "C";
        }
        if (*expression == '\n' || *expression == '\r') {
            text = *expression == '\n' ? "\\n" : "\\r";
            n = 2;
        }
        code = bpe_append(steps, text, n);
        expression += taken;
    }
    return code < 0 ? bpe_append(steps, "\n", 1) : code;
}

static int bpe_append_steps(tool_bytes *steps, json_t *pre, int depth) {
    const char *type = json_string_value(json_object_get(pre, "type"));
    if (!type || depth > 8) return bpe_append(steps, "?\n", 2);
    if (!strcmp(type, "Sequence")) {
        int code = -1;
        size_t i;
        json_t *part;
        json_array_foreach(json_object_get(pre, "pretokenizers"), i, part) {
            if (code < 0) code = bpe_append_steps(steps, part, depth + 1);
        }
        return code;
    }
    if (!strcmp(type, "Split")) {
        /* Pieces that match, alone: "Isolated", or "Removed" where the text between them was meant. */
        const char *behavior = json_string_value(json_object_get(pre, "behavior"));
        const char *expression = json_string_value(json_object_get(json_object_get(pre, "pattern"), "Regex"));
        const int invert = json_is_true(json_object_get(pre, "invert"));
        if (!expression) expression = json_string_value(json_object_get(json_object_get(pre, "pattern"), "String"));
        if (expression && behavior && !strcmp(behavior, invert ? "Removed" : "Isolated"))
            return bpe_append_expression(steps, expression);
    }
    if (!strcmp(type, "ByteLevel"))
        return bpe_append(steps, json_is_false(json_object_get(pre, "use_regex")) ? "b\n" : "B\n", 2);
    if (!strcmp(type, "Digits"))
        return bpe_append(steps, json_is_true(json_object_get(pre, "individual_digits")) ? "D\n" : "N\n", 2);
    const int code = bpe_append(steps, "?", 1), named = code < 0 ? bpe_append(steps, type, strlen(type)) : code;
    return named < 0 ? bpe_append(steps, "\n", 1) : named;
}

static int bpe_has_token(const convert_vocab *vocab, const char *text) {
    size_t i;
    json_t *token;
    json_array_foreach(json_object_get(vocab->tokenizer, "added_tokens"), i, token) {
        const char *content = json_string_value(json_object_get(token, "content"));
        if (content && !strcmp(content, text)) return 1;
    }
    return 0;
}

/* Is a token put before a text? */
static int bpe_adds_first(json_t *processor) {
    size_t i;
    json_t *part;
    json_array_foreach(json_object_get(processor, "processors"), i, part) {
        if (bpe_adds_first(part)) return 1;
    }
    return json_object_get(json_array_get(json_object_get(processor, "single"), 0), "SpecialToken") != NULL;
}

/* The same expression has several names, which differ in what else they stand for. */
static const char *bpe_refine_name(convert_vocab *vocab, const char *name) {
    json_t *model = json_object_get(vocab->tokenizer, "model");
    if (!strcmp(name, "qwen2") && bpe_has_token(vocab, "<\xEF\xBD\x9C"
                                                       "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"))
        return "deepseek-r1-qwen";
    if (strcmp(name, "llama-bpe") != 0) return name;
    /* Engines put BOS before a text of "llama-bpe" unless they are told otherwise. */
    const int first = bpe_adds_first(json_object_get(vocab->tokenizer, "post_processor"));
    const int llama = bpe_has_token(vocab, "<|begin_of_text|>");
    vocab->no_bos = !first;
    if (json_is_true(json_object_get(model, "ignore_merges")) || (llama && first)) return name;
    return llama ? "smaug-bpe" : "dbrx";
}

static int bpe_find_pre(const convert_model *model, convert_vocab *vocab) {
    /* The second expression of this one lists letters for a whole page. */
    static const char deepseek[] = "R[\\r\\n]\nR\\s?[A-Za-z\xC2\xB5";
    tool_bytes steps = {0};
    int code = bpe_append_steps(&steps, json_object_get(vocab->tokenizer, "pre_tokenizer"), 0);
    if (code < 0) code = bpe_append(&steps, "", 1); /* terminated */
    for (size_t i = 0; code < 0 && i < sizeof bpe_splits / sizeof *bpe_splits; i++) {
        if (!strcmp(bpe_splits[i].steps, steps.data)) vocab->pre = bpe_splits[i].name;
    }
    if (code < 0 && !strncmp(steps.data, deepseek, sizeof deepseek - 1)) vocab->pre = "deepseek-llm";
    for (char *at = steps.data; code < 0 && *at; at++) { /* a message is one line */
        if (*at == '\n') *at = ' ';
    }
    if (code < 0 && !vocab->pre)
        code = tool_fail("%s/tokenizer.json: pre_tokenizer: its steps are none of the known ones: %.200s",
                         model->directory, steps.n > 1 ? steps.data : "there are none");
    else if (code < 0)
        vocab->pre = bpe_refine_name(vocab, vocab->pre);
    tool_bytes_free(&steps);
    return code;
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

static int bpe_bad_id(const convert_model *model, const char *where, const char *text, json_t *id, int n) {
    char *found = id ? json_dumps(id, JSON_ENCODE_ANY) : NULL;
    const int code =
        tool_fail("%s/tokenizer.json: %s: \"%.60s\": expected an id from 0 to %d (vocab_size - 1), found %.40s",
                  model->directory, where, text, n - 1, found ? found : "nothing");
    free(found);
    return code;
}

static int bpe_is_byte(const char *text) {
    return strlen(text) == 6 && !strncmp(text, "<0x", 3) && strspn(text + 3, "0123456789abcdefABCDEF") == 2 &&
           text[5] == '>';
}

/* model.vocab: {"text": id}. score: of tokens that no merge makes. */
static int bpe_read_vocab(const convert_model *model, convert_vocab *vocab, json_t *list, float score) {
    const char *text;
    json_t *id;
    if (!json_object_size(list))
        return tool_fail("%s/tokenizer.json: model.vocab: expected an object of tokens", model->directory);
    json_object_foreach(list, text, id) {
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= vocab->n)
            return bpe_bad_id(model, "model.vocab", text, id, vocab->n);
        const int type = vocab->has_scores && bpe_is_byte(text) ? CONVERT_BYTE : CONVERT_NORMAL;
        const int code = convert_set_token(vocab, (int)json_integer_value(id), text, strlen(text), score, type);
        if (code >= 0) return code;
    }
    return -1;
}

static int bpe_add(const convert_model *model, convert_vocab *vocab, const char *where, json_t *id, json_t *token) {
    json_t *content = json_object_get(token, "content");
    const char *text = json_string_value(content);
    if (!text) return tool_fail("%s/tokenizer.json: %s: an added token has no text", model->directory, where);
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= vocab->n)
        return bpe_bad_id(model, where, text, id, vocab->n);
    const convert_token *old = &vocab->tokens[json_integer_value(id)];
    return convert_add_token(vocab, (int)json_integer_value(id), text, json_string_length(content),
                             json_is_true(json_object_get(token, "special")), old->score);
}

static int bpe_read_added(const convert_model *model, convert_vocab *vocab) {
    const char *name;
    size_t i;
    json_t *token;
    json_array_foreach(json_object_get(vocab->tokenizer, "added_tokens"), i, token) {
        const int code = bpe_add(model, vocab, "added_tokens", json_object_get(token, "id"), token);
        if (code >= 0) return code;
    }
    /* tokenizer_config.json may know some more. */
    json_object_foreach(json_object_get(vocab->config, "added_tokens_decoder"), name, token) {
        char *end;
        const long long id = strtoll(name, &end, 10);
        if (end == name || *end || id < 0 || id >= vocab->n) continue;
        const int type = vocab->tokens[id].type;
        if (type == CONVERT_CONTROL || type == CONVERT_USER) continue;
        json_t *number = json_integer(id);
        const int code = bpe_add(model, vocab, "added_tokens_decoder of tokenizer_config.json", number, token);
        json_decref(number);
        if (code >= 0) return code;
    }
    return -1;
}

/* ---- merges ------------------------------------------------------------------------------------------------------ */

/* The two halves of a merge, "a b" or ["a", "b"]; 0 or -1. */
static int bpe_halves(json_t *merge, const char **a, size_t *na, const char **b, size_t *nb) {
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge), *space = strchr(text, ' ');
        if (!space) return -1;
        *a = text;
        *na = (size_t)(space - text);
        *b = space + 1;
        *nb = strlen(space + 1);
    } else {
        json_t *first = json_array_get(merge, 0), *second = json_array_get(merge, 1);
        if (json_array_size(merge) != 2 || !json_is_string(first) || !json_is_string(second)) return -1;
        *a = json_string_value(first);
        *na = json_string_length(first);
        *b = json_string_value(second);
        *nb = json_string_length(second);
    }
    return *na && *nb ? 0 : -1;
}

static int bpe_bad_merge(const convert_model *model, size_t i) {
    return tool_fail("%s/tokenizer.json: model.merges[%zu]: expected two texts", model->directory, i);
}

/* Spaces inside a half become U+0120, which stands for a space in these vocabularies: a space separates the halves. */
static int bpe_append_half(tool_bytes *text, const char *half, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const int code = half[i] == ' ' ? bpe_append(text, "\xC4\xA0", 2) : bpe_append(text, half + i, 1);
        if (code >= 0) return code;
    }
    return -1;
}

int convert_put_merges(const convert_model *model, const convert_vocab *vocab, gguf_head *head) {
    json_t *merges = json_object_get(json_object_get(vocab->tokenizer, "model"), "merges"), *merge;
    tool_bytes text = {0};
    size_t i;
    int code = -1;
    gguf_head_array(head, "tokenizer.ggml.merges", GGUF_WRITE_STRING, json_array_size(merges));
    json_array_foreach(merges, i, merge) {
        const char *a, *b;
        size_t na, nb;
        if (bpe_halves(merge, &a, &na, &b, &nb)) code = bpe_bad_merge(model, i);
        text.n = 0;
        if (code < 0) code = bpe_append_half(&text, a, na);
        if (code < 0) code = bpe_append(&text, " ", 1);
        if (code < 0) code = bpe_append_half(&text, b, nb);
        if (code >= 0) break;
        gguf_head_put_string(head, text.data, text.n);
    }
    tool_bytes_free(&text);
    return code;
}

/* The score of a token is the rank of the first merge that makes it. */
static int bpe_scores_of_merges(const convert_model *model, convert_vocab *vocab, json_t *list, json_t *merges) {
    tool_bytes text = {0};
    size_t i;
    json_t *merge;
    int code = -1;
    const float least = -(float)json_array_size(merges);
    json_array_foreach(merges, i, merge) {
        const char *a, *b;
        size_t na, nb;
        text.n = 0;
        if (bpe_halves(merge, &a, &na, &b, &nb)) code = bpe_bad_merge(model, i);
        if (code < 0) code = bpe_append(&text, a, na);
        if (code < 0) code = bpe_append(&text, b, nb);
        if (code < 0) code = bpe_append(&text, "", 1);
        if (code >= 0) break;
        json_t *id = json_object_get(list, text.data);
        if (!id) continue;
        convert_token *token = &vocab->tokens[json_integer_value(id)];
        if (token->score == least) token->score = -(float)i;
    }
    tool_bytes_free(&text);
    return code;
}

/* Does the tokenizer put a space before a text? */
static int bpe_prepends_space(json_t *object) {
    const char *type = json_string_value(json_object_get(object, "type"));
    const char *scheme = json_string_value(json_object_get(object, "prepend_scheme"));
    size_t i;
    json_t *part;
    if (type && !strcmp(type, "Prepend")) return 1;
    if (type && !strcmp(type, "Metaspace"))
        return scheme ? strcmp(scheme, "never") != 0 : json_is_true(json_object_get(object, "add_prefix_space"));
    json_array_foreach(json_object_get(object, "normalizers"), i, part) {
        if (json_object_size(part) && !json_object_get(part, "normalizers") && bpe_prepends_space(part)) return 1;
    }
    return 0;
}

int convert_read_bpe(const convert_model *model, convert_vocab *vocab) {
    json_t *object = json_object_get(vocab->tokenizer, "model");
    json_t *list = json_object_get(object, "vocab"), *merges = json_object_get(object, "merges");
    const char *type = json_string_value(json_object_get(object, "type"));
    const int from_spm = json_is_true(json_object_get(object, "byte_fallback"));
    int code = -1;
    if (type ? strcmp(type, "BPE") != 0 : !json_is_array(merges))
        return tool_fail("%s/tokenizer.json: model.type: expected \"BPE\", found \"%.40s\"", model->directory,
                         type ? type : "");
    if (!json_array_size(merges))
        return tool_fail("%s/tokenizer.json: model.merges: expected a list of merges", model->directory);
    vocab->model = from_spm ? "llama" : "gpt2";
    vocab->has_scores = from_spm;
    vocab->has_merges = !from_spm;
    if (from_spm) {
        vocab->pre = "default";
        vocab->space_prefix = bpe_prepends_space(json_object_get(vocab->tokenizer, "normalizer")) ||
                              bpe_prepends_space(json_object_get(vocab->tokenizer, "pre_tokenizer"));
    } else {
        code = bpe_find_pre(model, vocab);
    }
    if (code < 0) code = convert_new_tokens(vocab, model->shape.n_vocab);
    if (code < 0) code = bpe_read_vocab(model, vocab, list, -(float)json_array_size(merges));
    if (code < 0 && from_spm) code = bpe_scores_of_merges(model, vocab, list, merges);
    return code < 0 ? bpe_read_added(model, vocab) : code;
}
