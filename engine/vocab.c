/* vocab.c: reads a vocabulary from a GGUF file and answers questions about its tokens. See vocab.h.
 *
 * The keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (tokenizer.ggml.*). */
#include "vocab_impl.h"
#include "vocab_split.h"

#include <string.h>

/* ---- small things ----------------------------------------------------------------------------------------------- */

void token_list_free(const minim_allocator *a, token_list *l) {
    mem_free(a, l->token, l->capacity, sizeof *l->token);
    *l = (token_list){0};
}

int token_list_push(const minim_allocator *a, token_list *l, int32_t token) {
    if (l->n == l->capacity && mem_grow(a, &l->token, &l->capacity, l->n < 32 ? 32 : l->n + 1, sizeof *l->token))
        return -1;
    l->token[l->n++] = token;
    return 0;
}

/* Merges the sorted halves from[0..middle) and from[middle..n) into to[n]. */
static void vocab_merge(const int32_t *from, int32_t *to, size_t middle, size_t n,
                        int (*before)(const void *, int32_t, int32_t), const void *context) {
    size_t a = 0, b = middle;
    if (middle >= n || !before(context, from[middle], from[middle - 1])) { /* in order already, as most scores are */
        memcpy(to, from, n * sizeof *to);
        return;
    }
    for (size_t i = 0; i < n; i++)
        to[i] = a < middle && (b == n || !before(context, from[b], from[a])) ? from[a++] : from[b++];
}

/* Merge sort from the bottom up. qsort() may call malloc(), and is not stable. */
void vocab_sort(int32_t *ids, int32_t *scratch, size_t n, int (*before)(const void *context, int32_t a, int32_t b),
                const void *context) {
    int32_t *from = ids, *to = scratch;
    for (size_t width = 1; width < n; width *= 2) {
        int32_t *swap = from;
        for (size_t i = 0; i < n; i += 2 * width) {
            const size_t here = n - i < 2 * width ? n - i : 2 * width;
            vocab_merge(from + i, to + i, width < here ? width : here, here, before, context);
        }
        from = to;
        to = swap;
    }
    if (from != ids) memcpy(ids, from, n * sizeof *ids);
}

/* FNV-1a (Fowler, Noll, Vo) with a final shift, because only low bits are used. */
static uint64_t vocab_hash(const char *s, size_t n) {
    uint64_t h = 0xcbf29ce484222325;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 0x100000001b3;
    return h ^ h >> 29;
}

/* ---- questions -------------------------------------------------------------------------------------------------- */

int32_t vocab_size(const vocab *v) {
    return v->n;
}

int32_t vocab_bos(const vocab *v) {
    return v->bos;
}

int32_t vocab_eos(const vocab *v) {
    return v->eos;
}

int vocab_adds_bos(const vocab *v) {
    return v->add_bos && v->bos >= 0;
}

int vocab_is_end(const vocab *v, int32_t token) {
    return token >= 0 && token < v->n && (v->flag[token] & VOCAB_FLAG_END) != 0;
}

int32_t vocab_end_at(const vocab *v, size_t index) {
    return index < v->n_end ? v->end[index] : -1;
}

const char *vocab_text(const vocab *v, int32_t token, size_t *n) {
    if (token >= 0 && token < v->n) return vocab_bytes(v, token, n);
    *n = 0;
    return "";
}

int vocab_type(const vocab *v, int32_t token) {
    return token >= 0 && token < v->n ? v->type[token] : 0;
}

/* The slot that holds this text, or the free one where it belongs. *probes counts the slots looked at. */
static size_t vocab_find_slot(const vocab *v, const char *text, size_t n, uint64_t *probes) {
    for (size_t i = vocab_hash(text, n);; i++) {
        const int32_t id = v->slot[i & v->slot_mask];
        size_t length;
        const char *found;
        ++*probes;
        if (id < 0) return i & v->slot_mask;
        found = vocab_bytes(v, id, &length);
        if (length == n && memcmp(found, text, n) == 0) return i & v->slot_mask;
    }
}

int32_t vocab_find_counted(const vocab *v, const char *text, size_t n, uint64_t *probes) {
    return v->slot[vocab_find_slot(v, text, n, probes)];
}

int32_t vocab_find(const vocab *v, const char *text, size_t n) {
    return vocab_find_counted(v, text, n, &(uint64_t){0});
}

int vocab_text_before(const void *context, int32_t a, int32_t b) {
    size_t n_a, n_b;
    const char *text_a = vocab_bytes(context, a, &n_a), *text_b = vocab_bytes(context, b, &n_b);
    const int order = memcmp(text_a, text_b, n_a < n_b ? n_a : n_b);
    return order ? order < 0 : n_a < n_b;
}

size_t vocab_narrow(const vocab *v, const int32_t *sorted, size_t low, size_t high, size_t depth, int byte) {
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if ((unsigned char)v->text[v->at[sorted[middle]] + depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Bytes before the first "▁" of text[n], n if there is none. */
static size_t vocab_before_mark(const char *text, size_t n) {
    size_t i = 0;
    while (i < n && (n - i < 3 || memcmp(text + i, VOCAB_SPACE_MARK, 3) != 0)) i++;
    return i;
}

int vocab_is_mergeable(const vocab *v, int32_t token) {
    size_t n;
    const char *text = vocab_bytes(v, token, &n);
    if (memchr(text, ' ', n)) return 0;
    return v->type[token] == VOCAB_NORMAL || (v->type[token] == VOCAB_USER && vocab_before_mark(text, n) < n);
}

size_t vocab_short_spaces(char *text, size_t n) {
    const char *from = memchr(text, 0xe2, n), *const end = text + n;
    char *to = text + (from ? from - text : 0);
    if (!from) return n;
    while (from < end) {
        const int mark = end - from >= 3 && memcmp(from, VOCAB_SPACE_MARK, 3) == 0;
        *to++ = mark ? ' ' : *from;
        from += mark ? 3 : 1;
    }
    return (size_t)(to - text);
}

int vocab_push_token(const vocab *v, const minim_allocator *a, token_list *out, int32_t token) {
    if (token < 0 && v->unknown >= 0 && v->type[v->unknown] != VOCAB_CONTROL) token = v->unknown;
    return token < 0 ? 0 : token_list_push(a, out, token);
}

int vocab_push_byte(const vocab *v, const minim_allocator *a, token_list *out, unsigned char byte) {
    return vocab_push_token(v, a, out, v->byte[byte]);
}

/* ---- loading: texts --------------------------------------------------------------------------------------------- */

minim_status vocab_collision(const char *path, const char *what, minim_error *e) {
    return err_set(e, MINIM_ERR_FORMAT, "%s: the texts in key 'tokenizer.ggml.%s' are made to collide", path, what);
}

static minim_status vocab_wrong_count(const gguf_file *f, const char *key, uint64_t found, int32_t expected,
                                      minim_error *e) {
    return err_set(e, MINIM_ERR_FORMAT, "%s: key '%s' has %llu entries, expected %d, one for each token", gguf_path(f),
                   key, (unsigned long long)found, (int)expected);
}

static minim_status vocab_read_kind(vocab *v, const gguf_file *f, minim_error *e) {
    static const char *const names[] = {[VOCAB_SPM] = "llama", [VOCAB_BPE] = "gpt2", [VOCAB_UNIGRAM] = "t5"};
    gguf_str model;
    const minim_status status = gguf_get_str(f, "tokenizer.ggml.model", &model, NULL, e);
    if (status) return status;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (model.n != strlen(names[i]) || memcmp(model.s, names[i], model.n) != 0) continue;
        v->kind = (enum vocab_kind)i;
        return MINIM_OK;
    }
    return err_set(e, MINIM_ERR_UNSUPPORTED, "%s: key 'tokenizer.ggml.model' is \"%.*s\"; minim knows: llama, gpt2, t5",
                   gguf_path(f), (int)(model.n < 64 ? model.n : 64), model.s);
}

/* How text is cut into words. Files from before the key was invented have none. */
static minim_status vocab_read_split(const gguf_file *f, const split_kind **out, minim_error *e) {
    gguf_str name = {"default", 7};
    char known[384];
    int found;
    const minim_status status = gguf_get_str(f, "tokenizer.ggml.pre", &name, &found, e);
    if (status) return status;
    *out = split_find(name.s, name.n);
    if (*out) return MINIM_OK;
    split_list(known, sizeof known);
    return err_set(e, MINIM_ERR_UNSUPPORTED, "%s: key 'tokenizer.ggml.pre' is \"%.*s\"; minim knows: %s", gguf_path(f),
                   (int)(name.n < 64 ? name.n : 64), name.s, known);
}

/* Copies all texts into one block. */
static minim_status vocab_read_texts(vocab *v, const gguf_file *f, minim_error *e) {
    const char *const key = "tokenizer.ggml.tokens";
    const gguf_value *tokens;
    const gguf_str *s;
    uint64_t bytes = 0;
    minim_status status = gguf_get_array(f, key, GGUF_STR, &tokens, NULL, e);
    if (status) return status;
    if (tokens->count == 0 || tokens->count > INT32_MAX - 1)
        return err_set(e, MINIM_ERR_FORMAT, "%s: key '%s' has %llu entries, expected 1..%d", gguf_path(f), key,
                       (unsigned long long)tokens->count, INT32_MAX - 1);
    s = tokens->data;
    for (uint64_t i = 0; i < tokens->count; i++) {
        if (size_add(bytes, s[i].n, &bytes) || size_add(bytes, 1, &bytes) || bytes > UINT32_MAX)
            return err_set(e, MINIM_ERR_FORMAT, "%s: the texts in key '%s' take more than 4 GiB", gguf_path(f), key);
    }
    v->text = mem_alloc(&v->allocator, (size_t)bytes, 1);
    v->at = mem_alloc(&v->allocator, (size_t)tokens->count + 1, sizeof *v->at);
    v->n = (int32_t)tokens->count;
    v->text_bytes = (size_t)bytes;
    if (!v->text || !v->at) return err_memory(e, "the token texts", bytes + (tokens->count + 1) * sizeof *v->at);
    bytes = 0;
    for (int32_t i = 0; i < v->n; i++) {
        v->at[i] = (uint32_t)bytes;
        memcpy(v->text + bytes, s[i].s, s[i].n);
        v->text[bytes + s[i].n] = 0;
        bytes += s[i].n + 1;
    }
    v->at[v->n] = (uint32_t)bytes;
    return MINIM_OK;
}

/* The hash table from text to id, at most half full. Empty texts and all but the first of equal ones stay out. */
static minim_status vocab_hash_texts(vocab *v, const gguf_file *f, minim_error *e) {
    size_t slots = 16;
    uint64_t probes = 0;
    while (slots / 2 < (size_t)v->n) slots *= 2;
    v->slot = mem_alloc(&v->allocator, slots, sizeof *v->slot);
    v->slot_mask = slots - 1;
    if (!v->slot) return err_memory(e, "the table of tokens", slots * sizeof *v->slot);
    for (size_t i = 0; i < slots; i++) v->slot[i] = -1;
    for (int32_t i = 0; i < v->n; i++) {
        size_t n, slot;
        const char *text = vocab_bytes(v, i, &n);
        if (n == 0) continue;
        slot = vocab_find_slot(v, text, n, &probes);
        if (v->slot[slot] < 0) v->slot[slot] = i;
        if (probes > vocab_probe_limit((uint64_t)v->n)) return vocab_collision(gguf_path(f), "tokens", e);
    }
    return MINIM_OK;
}

/* ---- loading: types --------------------------------------------------------------------------------------------- */

/* Token types as the file has them; all normal without the key (*found = 0). */
static minim_status vocab_read_types(vocab *v, const gguf_file *f, int *found, minim_error *e) {
    const char *const key = "tokenizer.ggml.token_type";
    const gguf_value *types = gguf_find(f, key);
    minim_status status;
    int is_u32;
    v->type = mem_alloc(&v->allocator, (size_t)v->n, sizeof *v->type);
    v->flag = mem_zalloc(&v->allocator, (size_t)v->n, sizeof *v->flag);
    if (!v->type || !v->flag) return err_memory(e, "the token types", 2 * (uint64_t)v->n);
    memset(v->type, VOCAB_NORMAL, (size_t)v->n);
    *found = types != NULL;
    if (!types) return MINIM_OK;
    is_u32 = types->type == GGUF_ARR && types->elem_type == GGUF_U32;
    status = gguf_get_array(f, key, is_u32 ? GGUF_U32 : GGUF_I32, &types, NULL, e);
    if (status) return status;
    if (types->count != (uint64_t)v->n) return vocab_wrong_count(f, key, types->count, v->n, e);
    for (int32_t i = 0; i < v->n; i++) {
        int32_t type;
        memcpy(&type, (const char *)types->data + (size_t)i * sizeof type, sizeof type);
        if (type < 0 || type > VOCAB_BYTE)
            return err_set(e, MINIM_ERR_FORMAT, "%s: key '%s': token %d has type %d, expected 1..6", gguf_path(f), key,
                           (int)i, (int)type);
        if (type) v->type[i] = (uint8_t)type; /* 0 is "undefined" in llama.cpp: as good as normal */
    }
    return MINIM_OK;
}

static int vocab_hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int vocab_byte_value(const char *text, size_t n) {
    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    const int high = vocab_hex(text[3]), low = vocab_hex(text[4]);
    return high < 0 || low < 0 ? -1 : 16 * high + low;
}

/* The byte that a token of this kind and type may stand for, -1 for none. A user-defined "\u00ff" is that character;
 * only where it can be nothing else is it GPT-2's way to write a byte. */
static int vocab_byte_of(const vocab *v, int32_t token) {
    size_t n;
    const char *text = vocab_bytes(v, token, &n);
    const int value = v->kind == VOCAB_BPE && v->type[token] != VOCAB_BYTE ? vocab_bpe_byte_value(text, n)
                                                                           : vocab_byte_value(text, n);
    return v->type[token] == VOCAB_USER && value >= 0xa1 && value != 0xad ? -1 : value;
}

/* Finds the token of each byte: of several, that of the first type in the list. SentencePiece files may lack the mark
 * of a byte token; then the text says it. */
static minim_status vocab_read_bytes(vocab *v, const gguf_file *f, minim_error *e) {
    static const uint8_t types[][3] = {
        [VOCAB_SPM] = {VOCAB_BYTE, VOCAB_NORMAL},
        [VOCAB_BPE] = {VOCAB_NORMAL, VOCAB_USER, VOCAB_BYTE},
        [VOCAB_UNIGRAM] = {VOCAB_BYTE},
    };
    for (int b = 0; b < 256; b++) v->byte[b] = -1;
    for (int k = 0; k < 3 && types[v->kind][k]; k++) {
        const int type = types[v->kind][k];
        for (int32_t i = 0; i < v->n; i++) {
            const int value = v->type[i] == type ? vocab_byte_of(v, i) : -1;
            size_t n;
            const char *text = vocab_bytes(v, i, &n);
            if (v->type[i] == VOCAB_BYTE && type == VOCAB_BYTE && value < 0)
                return err_set(e, MINIM_ERR_FORMAT,
                               "%s: token %d is a byte token with the text \"%.*s\", expected <0xNN>", gguf_path(f),
                               (int)i, (int)(n < 64 ? n : 64), text);
            if (value < 0 || v->byte[value] >= 0) continue;
            v->byte[value] = i;
            if (v->kind == VOCAB_SPM) v->type[i] = VOCAB_BYTE;
        }
    }
    return MINIM_OK;
}

/* ---- loading: special tokens ------------------------------------------------------------------------------------ */

/* Reads a token id. 4294967295 means none, as does an id out of range unless it is strict. */
static minim_status vocab_read_id(const vocab *v, const gguf_file *f, const char *key, uint32_t fallback, int strict,
                                  int32_t *out, minim_error *e) {
    uint32_t id = 0;
    int found = 0;
    const minim_status status = gguf_get_u32(f, key, &id, &found, e);
    if (status) return status;
    if (!found) id = fallback < (uint32_t)v->n ? fallback : UINT32_MAX;
    if (id != UINT32_MAX && id >= (uint32_t)v->n && strict)
        return err_set(e, MINIM_ERR_FORMAT, "%s: key '%s' is %lu, expected less than %d, the number of tokens",
                       gguf_path(f), key, (unsigned long)id, (int)v->n);
    *out = id < (uint32_t)v->n ? (int32_t)id : -1;
    return MINIM_OK;
}

/* Ids and switches, and what they are without their keys. */
static minim_status vocab_read_ids(vocab *v, const gguf_file *f, const split_kind *split, minim_error *e) {
    static const struct {
        uint32_t bos, eos, unknown;
        int add_bos, add_eos, add_space;
    } defaults[] = {
        [VOCAB_SPM] = {1, 2, 0, 1, 0, 1},
        [VOCAB_BPE] = {11, 11, UINT32_MAX, 0, 0, 0}, /* Falcon's */
        [VOCAB_UNIGRAM] = {UINT32_MAX, 1, 2, 0, 1, 0},
    };
    uint32_t bos = defaults[v->kind].bos, eos = defaults[v->kind].eos;
    minim_status status;
    v->add_bos = defaults[v->kind].add_bos || (split && split->flags & SPLIT_ADD_BOS);
    v->add_eos = defaults[v->kind].add_eos;
    v->add_space = defaults[v->kind].add_space;
    if (v->kind == VOCAB_BPE && (v->n <= 11 || v->type[11] != VOCAB_CONTROL)) bos = eos = UINT32_MAX;
    if (split && split->flags & SPLIT_NO_BOS) bos = UINT32_MAX;
    status = vocab_read_id(v, f, "tokenizer.ggml.bos_token_id", bos, 1, &v->bos, e);
    if (!status) status = vocab_read_id(v, f, "tokenizer.ggml.eos_token_id", eos, 1, &v->eos, e);
    if (!status)
        status = vocab_read_id(v, f, "tokenizer.ggml.unknown_token_id", defaults[v->kind].unknown, 0, &v->unknown, e);
    if (!status) status = gguf_get_bool(f, "tokenizer.ggml.add_bos_token", &v->add_bos, &(int){0}, e);
    if (!status) status = gguf_get_bool(f, "tokenizer.ggml.add_eos_token", &v->add_eos, &(int){0}, e);
    if (!status) status = gguf_get_bool(f, "tokenizer.ggml.add_space_prefix", &v->add_space, &(int){0}, e);
    if (v->kind == VOCAB_BPE) v->add_space = 0; /* words have their own spaces */
    return status;
}

static void vocab_add_end(vocab *v, int32_t token) {
    if (token < 0 || v->flag[token] & VOCAB_FLAG_END || v->n_end == VOCAB_MAX_ENDS) return;
    v->flag[token] |= VOCAB_FLAG_END;
    v->end[v->n_end++] = token;
}

static minim_status vocab_add_end_keys(vocab *v, const gguf_file *f, const char *const *keys, size_t n,
                                       minim_error *e) {
    minim_status status = MINIM_OK;
    for (size_t i = 0; i < n && !status; i++) {
        int32_t token = -1;
        status = vocab_read_id(v, f, keys[i], UINT32_MAX, 0, &token, e);
        if (!status) vocab_add_end(v, token);
    }
    return status;
}

/* Only where the token is special: ordinary text may spell them. */
static void vocab_add_end_texts(vocab *v, const char *const *texts, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const int32_t token = vocab_find(v, texts[i], strlen(texts[i]));
        if (token >= 0 && (v->type[token] == VOCAB_CONTROL || v->type[token] == VOCAB_USER)) vocab_add_end(v, token);
    }
}

/* The tokens that end an answer, in this order. Many files name only one of theirs, so well-known texts count too. The
 * last ones belong to code models, which go on with another file behind the one that they were asked for. */
static minim_status vocab_read_ends(vocab *v, const gguf_file *f, minim_error *e) {
    static const char *const turn_keys[] = {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    static const char *const texts[] = {
        "<|eot_id|>",           "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>",
        "<|eom_id|>",           "<EOT>",      "_<EOT>",  "<|EOT|>",       "[EOT]",
        "<|end_of_text|>",      "</s>",       "<eos>",   "[EOS]",         "<end_of_utterance>",
        "<｜end▁of▁sentence｜>"};
    static const char *const file_keys[] = {"tokenizer.ggml.fim_pad_token_id", "tokenizer.ggml.fim_rep_token_id",
                                            "tokenizer.ggml.fim_sep_token_id"};
    static const char *const file_texts[] = {"<|fim_pad|>", "<fim_pad>",  "<fim-pad>",     "<|fim_repo|>",
                                             "<fim-repo>",  "<reponame>", "<|repo_name|>", "<|file_sep|>"};
    minim_status status;
    vocab_add_end(v, v->eos);
    status = vocab_add_end_keys(v, f, turn_keys, sizeof turn_keys / sizeof *turn_keys, e);
    if (status) return status;
    vocab_add_end_texts(v, texts, sizeof texts / sizeof *texts);
    status = vocab_add_end_keys(v, f, file_keys, sizeof file_keys / sizeof *file_keys, e);
    vocab_add_end_texts(v, file_texts, sizeof file_texts / sizeof *file_texts);
    return status;
}

/* 1 if text contains word, which is in lower case; letters of text may be in upper case. */
static int vocab_contains(gguf_str text, const char *word) {
    const size_t n = strlen(word);
    for (size_t i = 0; i + n <= text.n; i++) {
        size_t k = 0;
        while (k < n && (text.s[i + k] >= 'A' && text.s[i + k] <= 'Z' ? text.s[i + k] + 32 : text.s[i + k]) == word[k])
            k++;
        if (k == n) return 1;
    }
    return 0;
}

/* Phi-3's control tokens swallow the white space behind them. GGUF has no field for it; the model's name tells. */
static minim_status vocab_read_strip(vocab *v, const gguf_file *f, minim_error *e) {
    static const char *const keep[] = {"<unk>", "<s>", "<|endoftext|>"};
    gguf_str name = {"", 0};
    int found;
    int32_t token;
    const minim_status status = gguf_get_str(f, "general.name", &name, &found, e);
    if (status) return status;
    if (!vocab_contains(name, "phi3") && !vocab_contains(name, "phi-3")) return MINIM_OK;
    for (int32_t i = 0; i < v->n; i++)
        if (v->type[i] == VOCAB_CONTROL) v->flag[i] |= VOCAB_FLAG_STRIP;
    for (size_t i = 0; i < sizeof keep / sizeof *keep; i++) {
        token = vocab_find(v, keep[i], strlen(keep[i]));
        if (token >= 0) v->flag[token] &= (uint8_t)~VOCAB_FLAG_STRIP;
    }
    token = vocab_find(v, "</s>", 4);
    if (token >= 0) v->flag[token] |= VOCAB_FLAG_STRIP;
    return MINIM_OK;
}

/* ---- loading: the whole ----------------------------------------------------------------------------------------- */

static minim_status vocab_read_scores(vocab *v, const gguf_file *f, minim_error *e) {
    const char *const key = "tokenizer.ggml.scores";
    const gguf_value *scores;
    const minim_status status = gguf_get_array(f, key, GGUF_F32, &scores, NULL, e);
    if (status) return status;
    if (scores->count != (uint64_t)v->n) return vocab_wrong_count(f, key, scores->count, v->n, e);
    if (v->kind == VOCAB_SPM) return vocab_spm_new(v, scores->data, gguf_path(f), &v->spm, e);
    return vocab_unigram_new(v, f, scores->data, &v->unigram, e);
}

static minim_status vocab_load(vocab *v, const gguf_file *f, minim_error *e) {
    const split_kind *split = NULL;
    int has_types = 0;
    minim_status status = vocab_read_kind(v, f, e);
    if (!status && v->kind == VOCAB_BPE) status = vocab_read_split(f, &split, e);
    if (!status) status = vocab_read_texts(v, f, e);
    if (!status) status = vocab_hash_texts(v, f, e);
    if (!status) status = vocab_read_types(v, f, &has_types, e);
    if (!status) status = vocab_read_ids(v, f, split, e);
    if (!status && !has_types) {
        if (v->bos >= 0) v->type[v->bos] = VOCAB_CONTROL;
        if (v->eos >= 0) v->type[v->eos] = VOCAB_CONTROL;
        if (v->unknown >= 0) v->type[v->unknown] = VOCAB_UNKNOWN;
    }
    if (!status) status = vocab_read_bytes(v, f, e);
    if (!status) status = vocab_read_ends(v, f, e);
    if (!status) status = vocab_read_strip(v, f, e);
    if (!status) status = vocab_list_special(v, e);
    if (status) return status;
    return v->kind == VOCAB_BPE ? vocab_bpe_new(v, f, split, &v->bpe, e) : vocab_read_scores(v, f, e);
}

minim_status vocab_new(const minim_allocator *a, const gguf_file *f, vocab **out, minim_error *e) {
    minim_status status;
    vocab *v;
    *out = NULL;
    v = mem_zalloc(a, 1, sizeof *v);
    if (!v) return err_memory(e, "a vocabulary", sizeof *v);
    v->allocator = mem_allocator(a);
    status = vocab_load(v, f, e);
    if (status) {
        vocab_free(v);
        return status;
    }
    *out = v;
    return err_ok(e);
}

void vocab_free(vocab *v) {
    if (!v) return;
    const minim_allocator a = v->allocator;
    const size_t n = (size_t)v->n;
    vocab_spm_free(v, v->spm);
    vocab_bpe_free(v, v->bpe);
    vocab_unigram_free(v, v->unigram);
    mem_free(&a, v->special, v->n_special, sizeof *v->special);
    mem_free(&a, v->slot, v->slot_mask + 1, sizeof *v->slot);
    mem_free(&a, v->type, n, sizeof *v->type);
    mem_free(&a, v->flag, n, sizeof *v->flag);
    mem_free(&a, v->text, v->text_bytes, 1);
    mem_free(&a, v->at, n + 1, sizeof *v->at);
    mem_free(&a, v, 1, sizeof *v);
}
