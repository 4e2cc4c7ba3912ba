/* vocab_unigram.c: the unigram language model of SentencePiece (Kudo 2018), which T5 and its kin use: of all ways to
 * cut the text into tokens, the one whose scores have the largest sum (Viterbi 1967).
 *
 * The text is normalised first: the file's character map replaces characters (full-width letters, ligatures ...), "▁"
 * stands for a space, and runs of spaces may become one. This is not invertible; the text that comes back is the
 * normalised one. */
#include "vocab_impl.h"

#include <float.h>
#include <string.h>

enum { UNIGRAM_MAX_PIECE = 256 }; /* bytes of a token that is looked for in text */

struct vocab_unigram {
    int32_t *sorted; /* [n_sorted]: tokens that may come up, sorted by text */
    size_t n_sorted;
    uint32_t from[65537]; /* those whose first two bytes are b: sorted[from[b] .. from[b + 1]). One byte counts as 0 */
    float *score;         /* [tokens] */
    double unknown_score;
    /* The character map: a trie as an array (Kanda et al. 2017, XOR-compressed double array), then the replacements. */
    unsigned char *map;
    size_t map_bytes, n_nodes; /* map: a size, uint32_t[n_nodes], texts that end with NUL */
    int one_space;             /* runs of spaces become one */
};

/* The best way to the end of a stretch of text: its last token and where that begins. */
struct unigram_step {
    double score;
    size_t from;
    int32_t token;
};

/* ---- loading ---------------------------------------------------------------------------------------------------- */

static unsigned unigram_first_bytes(const char *text, size_t n) {
    return (unsigned)(unsigned char)text[0] << 8 | (n > 1 ? (unsigned char)text[1] : 0);
}

static int unigram_is_piece(const vocab *v, int32_t token) {
    size_t n;
    vocab_bytes(v, token, &n);
    return n > 0 && n <= UNIGRAM_MAX_PIECE && vocab_is_mergeable(v, token);
}

static minim_status unigram_sort(const vocab *v, vocab_unigram *u, minim_error *e) {
    const minim_allocator *a = &v->allocator;
    const size_t n = (size_t)v->n;
    int32_t *scratch = mem_alloc(a, n, sizeof *scratch);
    u->sorted = mem_alloc(a, n, sizeof *u->sorted);
    if (scratch && u->sorted) {
        for (int32_t i = 0; i < v->n; i++) {
            size_t length;
            const char *text = vocab_bytes(v, i, &length);
            if (!unigram_is_piece(v, i)) continue;
            u->sorted[u->n_sorted++] = i;
            u->from[unigram_first_bytes(text, length) + 1]++;
        }
        for (size_t b = 0; b < 65536; b++) u->from[b + 1] += u->from[b];
        vocab_sort(u->sorted, scratch, u->n_sorted, vocab_text_before, v);
    }
    mem_free(a, scratch, n, sizeof *scratch);
    return scratch && u->sorted ? MINIM_OK : err_memory(e, "the table of tokens", 2 * n * sizeof *scratch);
}

/* Scores that are no finite numbers become the largest there are, so that sums stay numbers. */
static minim_status unigram_read_scores(const vocab *v, vocab_unigram *u, const float *scores, minim_error *e) {
    float least = FLT_MAX;
    u->score = mem_alloc(&v->allocator, (size_t)v->n, sizeof *u->score);
    if (!u->score) return err_memory(e, "the scores of tokens", (uint64_t)v->n * sizeof *u->score);
    for (int32_t i = 0; i < v->n; i++) {
        const float s = scores[i];
        u->score[i] = v->type[i] == VOCAB_USER ? 0 : s >= FLT_MAX ? FLT_MAX : s >= -FLT_MAX ? s : -FLT_MAX;
        if (v->type[i] == VOCAB_NORMAL && u->score[i] < least) least = u->score[i];
    }
    u->unknown_score = least - 10.0F;
    return MINIM_OK;
}

static minim_status unigram_read_map(const vocab *v, vocab_unigram *u, const gguf_file *f, minim_error *e) {
    const char *const key = "tokenizer.ggml.precompiled_charsmap";
    const gguf_value *map = gguf_find(f, key);
    uint64_t nodes;
    minim_status status;
    int is_i8;
    if (!map) return MINIM_OK;
    is_i8 = map->type == GGUF_ARR && map->elem_type == GGUF_I8;
    status = gguf_get_array(f, key, is_i8 ? GGUF_I8 : GGUF_U8, &map, NULL, e);
    if (status) return status;
    nodes = map->count >= 4 ? gguf_little(map->data, 4) : 0;
    if (map->count < 4 || nodes % 4 || nodes >= map->count - 4)
        return err_set(e, MINIM_ERR_FORMAT, "%s: key '%s' has %llu bytes, expected a size (here %llu) and what follows",
                       gguf_path(f), key, (unsigned long long)map->count, (unsigned long long)nodes);
    u->map = mem_alloc(&v->allocator, (size_t)map->count, 1);
    if (!u->map) return err_memory(e, "the character map", map->count);
    u->map_bytes = (size_t)map->count;
    u->n_nodes = (size_t)nodes / 4;
    memcpy(u->map, map->data, u->map_bytes);
    return MINIM_OK;
}

minim_status vocab_unigram_new(const vocab *v, const gguf_file *f, const float *scores, vocab_unigram **out,
                               minim_error *e) {
    vocab_unigram *u = mem_zalloc(&v->allocator, 1, sizeof *u);
    minim_status status = u ? unigram_sort(v, u, e) : err_memory(e, "a vocabulary", sizeof *u);
    if (!status) status = unigram_read_scores(v, u, scores, e);
    if (!status) status = unigram_read_map(v, u, f, e);
    if (!status) status = gguf_get_bool(f, "tokenizer.ggml.remove_extra_whitespaces", &u->one_space, &(int){0}, e);
    if (status) {
        vocab_unigram_free(v, u);
        u = NULL;
    }
    *out = u;
    return status;
}

void vocab_unigram_free(const vocab *v, vocab_unigram *u) {
    if (!u) return;
    mem_free(&v->allocator, u->sorted, (size_t)v->n, sizeof *u->sorted);
    mem_free(&v->allocator, u->score, (size_t)v->n, sizeof *u->score);
    mem_free(&v->allocator, u->map, u->map_bytes, 1);
    mem_free(&v->allocator, u, 1, sizeof *u);
}

/* ---- normalising ------------------------------------------------------------------------------------------------ */

/* Node i of the map; a made-up one without children where there is none. Bits 0..7 and 31: the byte that leads here; 8:
 * it has a value; 9: base is shifted; 10..30: base, where its children are. A node with bit 31 is a value. */
static uint32_t unigram_node(const vocab_unigram *u, uint32_t i) {
    return i < u->n_nodes ? (uint32_t)gguf_little(u->map + 4 + 4 * (size_t)i, 4) : UINT32_C(1) << 31;
}

static uint32_t unigram_base(uint32_t node) {
    return node >> 10 << ((node & 1U << 9) >> 6);
}

/* The replacement of the longest beginning of text[n] that has one: *used bytes of text; NULL if none has. */
static const char *unigram_replace(const vocab_unigram *u, const char *text, size_t n, size_t *used) {
    const size_t texts = 4 + 4 * u->n_nodes;
    const char *found = NULL;
    uint32_t at = u->n_nodes ? unigram_base(unigram_node(u, 0)) : 0;
    for (size_t i = 0; u->n_nodes && i < n && text[i]; i++) {
        uint32_t node, value;
        at ^= (unsigned char)text[i];
        node = unigram_node(u, at);
        if ((node & (1U << 31 | 0xff)) != (unsigned char)text[i]) break;
        at ^= unigram_base(node);
        if (!(node >> 8 & 1)) continue;
        value = unigram_node(u, at) & ~(1U << 31);
        if (value >= u->map_bytes - texts || !memchr(u->map + texts + value, 0, u->map_bytes - texts - value)) continue;
        found = (const char *)u->map + texts + value;
        *used = i + 1;
    }
    return found;
}

/* Appends n bytes to the normalised text. */
static int unigram_put(vocab_work *w, const char *text, size_t n) {
    if (mem_grow(w->merge.allocator, &w->normal, &w->normal_capacity, w->n_normal + n, 1)) return -1;
    memcpy(w->normal + w->n_normal, text, n);
    w->n_normal += n;
    return 0;
}

/* Normalises text[n] to w->normal. */
static int unigram_normalise(const vocab_unigram *u, vocab_work *w, const char *text, size_t n, int add_space) {
    int in_word = 0, begun = 0;
    size_t used = 0;
    w->n_normal = 0;
    for (size_t i = 0; i < n; i += used) {
        const char *from = unigram_replace(u, text + i, n - i, &used);
        size_t length = from ? strlen(from) : 0;
        if (!from) {
            from = text + i;
            length = used = utf8_length(from, n - i);
            if (!used) from = "\xef\xbf\xbd", length = 3, used = 1;
        }
        for (size_t k = 0; k < length; k++) {
            const int space = from[k] == ' ';
            const int mark = space ? !u->one_space : !in_word && (u->one_space || (add_space && !begun));
            if (mark && unigram_put(w, VOCAB_SPACE_MARK, 3)) return -1;
            if (!space && unigram_put(w, from + k, 1)) return -1;
            in_word = !space;
            begun |= mark && !space;
        }
    }
    return 0;
}

/* ---- the best way through --------------------------------------------------------------------------------------- */

/* Offers a token that reaches from `from` to `to`. */
static void unigram_offer(struct unigram_step *step, size_t from, size_t to, int32_t token, double score) {
    const double sum = step[from].score + score;
    if (sum > step[to].score) step[to] = (struct unigram_step){sum, from, token};
}

/* Offers all tokens that text[at..n) begins with. The candidates are a range of the sorted list; each byte narrows it.
 */
static void unigram_offer_all(const vocab *v, struct unigram_step *step, const char *text, size_t n, size_t at) {
    const vocab_unigram *u = v->unigram;
    const size_t character = vocab_character(text + at, n - at);
    size_t low, high;
    int whole = 0;
    for (int pair = n - at > 1; pair >= 0; pair--) { /* texts of one byte are elsewhere in the list */
        const unsigned first = unigram_first_bytes(text + at, pair ? 2 : 1);
        if (!pair && n - at > 1 && text[at + 1] == 0) break;
        low = u->from[first];
        high = u->from[first + 1];
        for (size_t depth = 1; low < high && depth <= n - at; depth++) {
            size_t length;
            vocab_bytes(v, u->sorted[low], &length);
            if (length == depth) {
                unigram_offer(step, at, at + depth, u->sorted[low], u->score[u->sorted[low]]);
                whole |= depth == character;
            }
            while (low < high && (vocab_bytes(v, u->sorted[low], &length), length == depth)) low++;
            if (depth == n - at) break;
            low = vocab_narrow(v, u->sorted, low, high, depth, (unsigned char)text[at + depth]);
            high = vocab_narrow(v, u->sorted, low, high, depth, (unsigned char)text[at + depth] + 1);
        }
    }
    if (!whole) unigram_offer(step, at, at + character, -1, u->unknown_score);
}

int vocab_unigram_encode(const vocab *v, vocab_work *w, int add_space, token_list *out) {
    struct unigram_step *step;
    const size_t n_before = out->n;
    size_t at;
    int unknown = 0;
    if (unigram_normalise(v->unigram, w, w->text + VOCAB_WORK_BEFORE, w->n, add_space)) return -1;
    if (w->n_normal == 0) return 0;
    if (mem_grow(w->merge.allocator, &w->step, &w->step_capacity, w->n_normal + 1, sizeof *w->step)) return -1;
    step = w->step;
    for (size_t i = 0; i <= w->n_normal; i++) step[i].score = -DBL_MAX;
    step[0].score = 0;
    for (at = 0; at < w->n_normal; at += vocab_character(w->normal + at, w->n_normal - at))
        unigram_offer_all(v, step, w->normal, w->n_normal, at);
    for (at = w->n_normal; at > 0; at = step[at].from) { /* backwards; several unknown ones in a row are one */
        const int again = unknown && step[at].token < 0;
        unknown = step[at].token < 0;
        if (!again && vocab_push_token(v, w->merge.allocator, out, step[at].token)) return -1;
    }
    for (size_t i = n_before, k = out->n; i + 1 < k; i++) {
        const int32_t token = out->token[i];
        out->token[i] = out->token[--k];
        out->token[k] = token;
    }
    return 0;
}

void vocab_unigram_work_free(vocab_work *w) {
    mem_free(w->merge.allocator, w->normal, w->normal_capacity, 1);
    mem_free(w->merge.allocator, w->step, w->step_capacity, sizeof *w->step);
}
