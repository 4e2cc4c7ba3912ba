/* convert_special.c: tokens that play a role, and the chat template. See convert.h.
 *
 * The files say it in several places, and the later one wins: tokenizer.json's post-processor shows which tokens stand
 * around a text, tokenizer_config.json names tokens by their text and config.json by their ids. */
#include <stdlib.h>
#include <string.h>

#include "convert.h"

enum { ROLE_BOS, ROLE_EOS, ROLE_UNK, ROLE_SEP, ROLE_PAD, ROLE_CLS, ROLE_MASK, ROLE_EOT, ROLE_EOM, ROLES };

/* key: NULL = the format has none. */
static const struct {
    const char *name, *key, *add_key;
} roles[ROLES] = {
    {"bos", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.add_bos_token"},
    {"eos", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.add_eos_token"},
    {"unk", "tokenizer.ggml.unknown_token_id", NULL},
    {"sep", "tokenizer.ggml.seperator_token_id", "tokenizer.ggml.add_sep_token"},
    {"pad", "tokenizer.ggml.padding_token_id", NULL},
    {"cls", NULL, NULL},
    {"mask", "tokenizer.ggml.mask_token_id", NULL},
    {"eot", "tokenizer.ggml.eot_token_id", NULL},
    {"eom", "tokenizer.ggml.eom_token_id", NULL},
};

typedef struct role_set {
    const convert_model *model;
    const convert_vocab *vocab;
    const char *text[ROLES]; /* of the token; NULL = none */
    int add[ROLES];          /* -1 = nothing is said */
    json_int_t id[ROLES];    /* -1 = none */
} role_set;

/* A token's text: a string, or an object with "content". */
static const char *role_text(json_t *token) {
    const char *text = json_string_value(json_is_object(token) ? json_object_get(token, "content") : token);
    return text && *text ? text : NULL;
}

static json_t *role_member(json_t *object, const char *before, int role, const char *after) {
    char name[64];
    snprintf(name, sizeof name, "%s%s%s", before, roles[role].name, after);
    return json_object_get(object, name);
}

static int role_same(const char *a, const char *b) {
    return a && b && !strcmp(a, b);
}

/* ---- the post-processor ------------------------------------------------------------------------------------------ */

/* The control token that a step of a template stands for, or NULL. */
static const char *role_step(json_t *template, size_t index) {
    return json_string_value(json_object_get(json_object_get(json_array_get(template, index), "SpecialToken"), "id"));
}

static const char *role_sequence(json_t *template, size_t index) {
    return json_string_value(json_object_get(json_object_get(json_array_get(template, index), "Sequence"), "id"));
}

/* "single": what stands around one text. */
static void role_read_single(role_set *set, const char *first, const char *last) {
    if (first) {
        if (!set->text[ROLE_BOS]) set->text[ROLE_BOS] = first;
        if (!set->text[ROLE_CLS]) set->text[ROLE_CLS] = first;
        set->add[ROLE_BOS] = role_same(first, set->text[ROLE_BOS]) || role_same(first, set->text[ROLE_CLS]);
    }
    if (!last) return;
    /* Where a text ends otherwise than an answer, the token of the answer's end is that of a turn. */
    if (set->text[ROLE_EOS] && !role_same(last, set->text[ROLE_EOS]) && !set->text[ROLE_EOT])
        set->text[ROLE_EOT] = set->text[ROLE_EOS];
    set->text[ROLE_EOS] = last;
    set->add[ROLE_EOS] = 1;
}

/* "pair": is there a separator between two texts? first, last: those of "single". */
static void role_read_pair(role_set *set, json_t *pair, const char *first, const char *last) {
    size_t from = 0, to = json_array_size(pair);
    if (to && first && role_same(first, role_step(pair, 0))) from++;
    if (to > from && last && role_same(last, role_step(pair, to - 1))) to--;
    if (to < from + 3 || !role_same(role_sequence(pair, from), "A") || !role_same(role_sequence(pair, to - 1), "B"))
        return;
    const char *one = role_step(pair, from + 1), *two = to - from == 4 ? role_step(pair, from + 2) : NULL;
    const int is_one = role_same(one, set->text[ROLE_SEP]) || role_same(one, set->text[ROLE_EOS]);
    const int is_two = role_same(two, set->text[ROLE_SEP]) || role_same(two, set->text[ROLE_EOS]);
    set->add[ROLE_SEP] = (is_one && !last) || is_two;
    if (set->add[ROLE_SEP] && !set->text[ROLE_SEP]) set->text[ROLE_SEP] = set->text[ROLE_EOS];
}

static void role_read_processor(role_set *set, json_t *processor) {
    const char *type = json_string_value(json_object_get(processor, "type"));
    json_t *single = json_object_get(processor, "single");
    const size_t n = json_array_size(single);
    if (!type || strcmp(type, "TemplateProcessing") != 0) return;
    const char *first = n > 1 ? role_step(single, 0) : NULL, *last = n > 1 ? role_step(single, n - 1) : NULL;
    role_read_single(set, first, last);
    role_read_pair(set, json_object_get(processor, "pair"), first, last);
}

static void role_read_post_processor(role_set *set) {
    json_t *post = json_object_get(set->vocab->tokenizer, "post_processor"), *part;
    json_t *parts = json_object_get(post, "processors");
    size_t i;
    if (!parts) role_read_processor(set, post);
    json_array_foreach(parts, i, part) {
        role_read_processor(set, part);
    }
}

/* ---- ids --------------------------------------------------------------------------------------------------------- */

static void role_set_id(role_set *set, int role, json_int_t id) {
    if (set->id[role] >= 0) return;
    if (id >= 0 && id < set->vocab->n)
        set->id[role] = id;
    else
        convert_warn(set->model, "%s: %s_token_id %" JSON_INTEGER_FORMAT " is left out: there are %d tokens",
                     set->model->directory, roles[role].name, id, set->vocab->n);
}

/* tokenizer_config.json says the texts, the list of added tokens which ids they have. */
static void role_find_ids(role_set *set) {
    size_t i;
    json_t *token;
    json_array_foreach(json_object_get(set->vocab->tokenizer, "added_tokens"), i, token) {
        const char *content = json_string_value(json_object_get(token, "content"));
        json_t *id = json_object_get(token, "id");
        for (int role = 0; role < ROLES; role++) {
            if (json_is_integer(id) && role_same(content, set->text[role]))
                role_set_id(set, role, json_integer_value(id));
        }
    }
    for (int role = 0; role < ROLES; role++) {
        json_t *id = role_member(set->model->config, "", role, "_token_id");
        if (json_is_integer(id)) role_set_id(set, role, json_integer_value(id));
    }
}

/* ---- the chat template ------------------------------------------------------------------------------------------- */

/* A template's name as part of a key. Returns its length. */
static size_t template_name(const char *name, char *out, size_t size) {
    static const char allowed[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    size_t n = 0;
    for (; *name && n + 1 < size; name++) out[n++] = (char)(strchr(allowed, *name) ? *name : '_');
    out[n] = 0;
    return n;
}

/* A list of named templates: the one called "default" is the template, the names of the others are a list of their own.
 * Of two with one name the first is kept: a file may not have the same key twice. */
static int template_put_list(json_t *list, gguf_head *head) {
    json_t *names = json_object(), *choice, *unused;
    const char *written;
    size_t i;
    int failed = !names;
    json_array_foreach(list, i, choice) {
        const char *name = json_string_value(json_object_get(choice, "name"));
        json_t *text = json_object_get(choice, "template");
        char clean[96], key[128];
        if (failed || !name || !*name || !json_is_string(text)) continue;
        template_name(name, clean, sizeof clean);
        if (json_object_get(names, clean)) continue;
        failed = json_object_set_new(names, clean, json_null());
        const int is_default = !strcmp(clean, "default");
        snprintf(key, sizeof key, "tokenizer.chat_template%s%s", is_default ? "" : ".", is_default ? "" : clean);
        gguf_head_string(head, key, json_string_value(text), json_string_length(text));
    }
    json_object_del(names, "default");
    if (!failed && json_object_size(names)) {
        gguf_head_array(head, "tokenizer.chat_templates", GGUF_WRITE_STRING, json_object_size(names));
        json_object_foreach(names, written, unused) {
            gguf_head_put_string(head, written, strlen(written));
        }
    }
    json_decref(names);
    return failed ? tool_fail("out of memory") : -1;
}

/* tokenizer_config.json, chat_template.jinja, chat_template.json: the first that has one. */
static int template_put(const convert_model *model, const convert_vocab *vocab, gguf_head *head) {
    static const char key[] = "tokenizer.chat_template";
    json_t *template = json_object_get(vocab->config, "chat_template"), *file = NULL;
    tool_bytes text = {0};
    int code = -1;
    if (!template || json_is_null(template)) {
        const int missing = convert_read_file(model->directory, "chat_template.jinja", 16 << 20, &text, &code);
        if (code < 0 && !missing) gguf_head_string(head, key, text.data, text.n);
        if (code < 0 && missing) code = convert_read_json(model->directory, "chat_template.json", 0, &file);
        template = json_object_get(file, "chat_template");
    }
    if (code < 0 && json_is_string(template))
        gguf_head_string(head, key, json_string_value(template), json_string_length(template));
    if (code < 0 && json_is_array(template)) code = template_put_list(template, head);
    json_decref(file);
    tool_bytes_free(&text);
    return code;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

/* What the peers' converter knows of single models by the size of their vocabulary. */
static void role_known_models(role_set *set) {
    const int n = set->model->shape.n_vocab;
    const convert_style style = set->model->family->style;
    if (style == CONVERT_LLAMA && n == 32016) role_set_id(set, ROLE_EOT, 32010); /* CodeLlama */
    if (style == CONVERT_LLAMA && n == 49152) set->add[ROLE_BOS] = 0;            /* SmolLM and small Granites */
    if (style == CONVERT_GEMMA && n > 107) role_set_id(set, ROLE_EOT, 107);
}

int convert_put_special(const convert_model *model, const convert_vocab *vocab, gguf_head *head) {
    role_set set = {.model = model, .vocab = vocab};
    for (int role = 0; role < ROLES; role++) {
        set.add[role] = set.id[role] = -1;
        if (role < ROLE_EOT) set.text[role] = role_text(role_member(vocab->config, "", role, "_token"));
    }
    if (!set.text[ROLE_BOS]) set.text[ROLE_BOS] = set.text[ROLE_CLS];
    if (!set.text[ROLE_EOS]) set.text[ROLE_EOS] = set.text[ROLE_SEP];
    role_read_post_processor(&set);
    for (int role = 0; role < ROLES; role++) {
        json_t *add = role_member(vocab->config, "add_", role, "_token");
        if (json_is_boolean(add)) set.add[role] = json_is_true(add);
    }
    role_find_ids(&set);
    role_known_models(&set);
    if (vocab->no_bos && set.add[ROLE_BOS] < 0) set.add[ROLE_BOS] = 0;
    /* Engines take some token of their own for one that has no id (in a SentencePiece vocabulary, the right one). */
    if (!vocab->has_scores && set.id[ROLE_BOS] < 0 && set.add[ROLE_BOS] == 1) set.add[ROLE_BOS] = 0;
    if (!vocab->has_scores && set.id[ROLE_EOS] < 0 && set.add[ROLE_EOS] == 1) set.add[ROLE_EOS] = 0;
    for (int role = 0; role < ROLES; role++) {
        if (roles[role].key && set.id[role] >= 0) gguf_head_u32(head, roles[role].key, (uint32_t)set.id[role]);
    }
    for (int role = 0; role < ROLES; role++) {
        if (roles[role].add_key && set.add[role] >= 0) gguf_head_bool(head, roles[role].add_key, set.add[role]);
    }
    return template_put(model, vocab, head);
}
