/* vocab_text.c: text to tokens and back, whatever the tokenizer kind: cuts special tokens out of the text, hands the
 * stretches between them to the merges, and knows what a token looks like in text. See vocab.h. */
#include "vocab_impl.h"

#include <string.h>

/* ---- special tokens in text ------------------------------------------------------------------------------------- */

static int vocab_may_cut(const vocab *v, int32_t token, enum vocab_span_kind kind, const token_list *sealed) {
    if (v->type[token] != VOCAB_USER) return kind == VOCAB_SPAN_SPECIAL;
    if (kind != VOCAB_SPAN_SEALED) return 1;
    for (size_t i = 0; i < sealed->n; i++)
        if (sealed->token[i] == token) return 0;
    return !(v->flag[token] & VOCAB_FLAG_END);
}

/* The first of special[low..high) whose byte at `depth` is not less than `byte`. All are longer than depth and agree
 * before it. */
static size_t vocab_narrow(const vocab *v, size_t low, size_t high, size_t depth, int byte) {
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if ((unsigned char)v->text[v->at[v->special[middle]] + depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest special token that text[n] begins with, -1 if there is none. The candidates are a range of the sorted
 * list; each byte of text narrows it, so the work is bounded by the length of the longest special token. */
static int32_t vocab_longest_special(const vocab *v, const char *text, size_t n, enum vocab_span_kind kind,
                                     const token_list *sealed, size_t *length) {
    const unsigned char first = (unsigned char)text[0];
    size_t low = v->special_from[first], high = v->special_from[first + 1];
    int32_t found = -1;
    *length = 0;
    for (size_t depth = 1; low < high; depth++) {
        /* Texts that end here are sorted before those that go on, and the lowest id before equal ones. */
        for (; low < high; low++) {
            size_t n_token;
            vocab_bytes(v, v->special[low], &n_token);
            if (n_token > depth) break;
            if (*length == depth || !vocab_may_cut(v, v->special[low], kind, sealed)) continue;
            found = v->special[low];
            *length = depth;
        }
        if (depth == n) break;
        low = vocab_narrow(v, low, high, depth, (unsigned char)text[depth]);
        high = vocab_narrow(v, low, high, depth, (unsigned char)text[depth] + 1);
    }
    return found;
}

/* The next special token in text[n] at or behind *at, which becomes where it begins; -1 and n if there is none. */
static int32_t vocab_next_special(const vocab *v, const char *text, size_t n, enum vocab_span_kind kind,
                                  const token_list *sealed, size_t *at, size_t *length) {
    for (; *at < n; ++*at) {
        const unsigned char first = (unsigned char)text[*at];
        int32_t token;
        if (v->special_from[first] == v->special_from[first + 1]) continue;
        token = vocab_longest_special(v, text + *at, n - *at, kind, sealed, length);
        if (token >= 0) return token;
    }
    return -1;
}

/* ---- text to tokens --------------------------------------------------------------------------------------------- */

/* One text on its way to tokens. */
typedef struct vocab_reader {
    const vocab *v;
    vocab_work work;   /* the stretch since the last special token */
    token_list sealed; /* user-defined tokens that SEALED spans must not contain */
    token_list *out;
    int strip; /* the special token before swallows white space */
} vocab_reader;

void vocab_work_free(vocab_work *w) {
    mem_free(w->allocator, w->text, w->capacity, 1);
    vocab_spm_work_free(w);
}

static int vocab_is_white(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int vocab_add_text(vocab_reader *r, const char *text, size_t n) {
    vocab_work *w = &r->work;
    for (; r->strip && n && vocab_is_white(*text); n--) text++;
    if (n == 0) return 0;
    r->strip = 0;
    if (mem_grow(w->allocator, &w->text, &w->capacity, VOCAB_WORK_BEFORE + w->n + n + VOCAB_WORK_BEHIND, 1)) return -1;
    memcpy(w->text + VOCAB_WORK_BEFORE + w->n, text, n);
    w->n += n;
    return 0;
}

/* Turns the stretch into tokens. Before it is nothing or a special token, so it begins with the invented space. */
static int vocab_end_stretch(vocab_reader *r) {
    if (r->work.n && vocab_spm_encode(r->v, &r->work, r->v->add_space, r->out)) return -1;
    r->work.n = 0;
    return 0;
}

static int vocab_add_token(vocab_reader *r, int32_t token) {
    if (vocab_end_stretch(r) || token_list_push(r->work.allocator, r->out, token)) return -1;
    r->strip = (r->v->flag[token] & VOCAB_FLAG_STRIP) != 0;
    return 0;
}

static int vocab_add_span(vocab_reader *r, const vocab_span *s) {
    size_t from = 0, at = 0, length = 0;
    int32_t token;
    if (s->kind == VOCAB_SPAN_TOKEN) return vocab_add_token(r, s->token);
    while ((token = vocab_next_special(r->v, s->text, s->n, s->kind, &r->sealed, &at, &length)) >= 0) {
        if (vocab_add_text(r, s->text + from, at - from) || vocab_add_token(r, token)) return -1;
        from = at += length;
    }
    return vocab_add_text(r, s->text + from, s->n - from);
}

/* Remembers the user-defined tokens in a SPECIAL span, each once. */
static int vocab_seal_tokens(vocab_reader *r, const vocab_span *s) {
    size_t at = 0, length = 0, i;
    int32_t token;
    while ((token = vocab_next_special(r->v, s->text, s->n, s->kind, &r->sealed, &at, &length)) >= 0) {
        at += length;
        if (r->v->type[token] != VOCAB_USER) continue;
        i = 0;
        while (i < r->sealed.n && r->sealed.token[i] != token) i++;
        if (i == r->sealed.n && token_list_push(r->work.allocator, &r->sealed, token)) return -1;
    }
    return 0;
}

static minim_status vocab_check_spans(const vocab *v, const vocab_span *spans, size_t n_spans, int *any_sealed,
                                      minim_error *e) {
    uint64_t total = 0;
    *any_sealed = 0;
    for (size_t i = 0; i < n_spans; i++) {
        const vocab_span *s = &spans[i];
        if (s->kind == VOCAB_SPAN_TOKEN && (s->token < 0 || s->token >= v->n))
            return err_set(e, MINIM_ERR_ARGUMENT, "token %d, expected 0..%d", (int)s->token, (int)v->n - 1);
        if (s->kind == VOCAB_SPAN_SEALED) *any_sealed = 1;
        if (s->kind != VOCAB_SPAN_TOKEN && (size_add(total, s->n, &total) || total > VOCAB_MAX_TEXT))
            return err_set(e, MINIM_ERR_ARGUMENT, "the text is longer than %d bytes", VOCAB_MAX_TEXT);
        if (s->kind != VOCAB_SPAN_TOKEN && !s->text && s->n) return err_set(e, MINIM_ERR_ARGUMENT, "the text is NULL");
    }
    return MINIM_OK;
}

minim_status vocab_tokenize_spans(const vocab *v, const minim_allocator *a, const vocab_span *spans, size_t n_spans,
                                  token_list *out, minim_error *e) {
    const size_t n_before = out->n;
    vocab_reader r = {.v = v, .work = {.allocator = a}, .out = out};
    int any_sealed, failed = 0;
    const minim_status status = vocab_check_spans(v, spans, n_spans, &any_sealed, e);
    if (status) return status;
    for (size_t i = 0; i < n_spans && any_sealed && !failed; i++)
        if (spans[i].kind == VOCAB_SPAN_SPECIAL) failed = vocab_seal_tokens(&r, &spans[i]);
    for (size_t i = 0; i < n_spans && !failed; i++) failed = vocab_add_span(&r, &spans[i]);
    if (!failed) failed = vocab_end_stretch(&r);
    vocab_work_free(&r.work);
    token_list_free(a, &r.sealed);
    if (!failed) return err_ok(e);
    out->n = n_before;
    return err_set(e, MINIM_ERR_MEMORY, "out of memory while tokenizing");
}

minim_status vocab_tokenize(const vocab *v, const minim_allocator *a, const char *text, size_t n, unsigned flags,
                            token_list *out, minim_error *e) {
    const int special = (flags & MINIM_ADD_SPECIAL) != 0;
    vocab_span spans[3];
    size_t n_spans = 0;
    if (special && v->add_bos && v->bos >= 0)
        spans[n_spans++] = (vocab_span){.kind = VOCAB_SPAN_TOKEN, .token = v->bos};
    spans[n_spans++] =
        (vocab_span){.kind = flags & MINIM_PARSE_SPECIAL ? VOCAB_SPAN_SPECIAL : VOCAB_SPAN_PLAIN, .text = text, .n = n};
    if (special && v->add_eos && v->eos >= 0)
        spans[n_spans++] = (vocab_span){.kind = VOCAB_SPAN_TOKEN, .token = v->eos};
    return vocab_tokenize_spans(v, a, spans, n_spans, out, e);
}

/* ---- tokens to text --------------------------------------------------------------------------------------------- */

/* Copies text with "▁" as a space; writes what fits and returns the whole length. */
static size_t vocab_write_text(const char *text, size_t n, char *buf, size_t capacity) {
    size_t written = 0;
    for (size_t i = 0; i < n; written++) {
        const int mark = n - i >= 3 && memcmp(text + i, VOCAB_SPACE_MARK, 3) == 0;
        if (written < capacity) buf[written] = mark ? ' ' : text[i];
        i += mark ? 3 : 1;
    }
    return written;
}

static size_t vocab_copy(const char *text, size_t n, char *buf, size_t capacity) {
    if (capacity) memcpy(buf, text, n < capacity ? n : capacity);
    return n;
}

size_t vocab_piece(const vocab *v, int32_t token, int special, int at_start, char *buf, size_t capacity) {
    size_t n;
    const char *text = vocab_text(v, token, &n);
    int byte;
    switch (vocab_type(v, token)) {
    case VOCAB_NORMAL:
    case VOCAB_USER:
        if (at_start && v->add_space && n >= 3 && memcmp(text, VOCAB_SPACE_MARK, 3) == 0) text += 3, n -= 3;
        return vocab_write_text(text, n, buf, capacity);
    case VOCAB_BYTE:
        byte = vocab_byte_value(text, n);
        if (capacity) *buf = (char)byte;
        return 1;
    case VOCAB_UNKNOWN:
        if (!special && token == v->unknown) return vocab_copy("\xef\xbf\xbd", 3, buf, capacity);
        return special ? vocab_copy(text, n, buf, capacity) : 0;
    default: return special ? vocab_copy(text, n, buf, capacity) : 0;
    }
}

int vocab_next_at_start(const vocab *v, int32_t token, int special, int at_start) {
    size_t n;
    const char *text = vocab_text(v, token, &n);
    switch (vocab_type(v, token)) {
    case VOCAB_CONTROL: return special ? 1 : at_start;
    case VOCAB_UNKNOWN: return special || token == v->unknown ? 0 : at_start;
    case VOCAB_UNUSED: return special ? 0 : at_start;
    case VOCAB_USER: /* with "▁" it is a result of merging, no cut */
        for (size_t i = 0; i + 3 <= n; i++)
            if (memcmp(text + i, VOCAB_SPACE_MARK, 3) == 0) return 0;
        return 1;
    default: return 0;
    }
}
