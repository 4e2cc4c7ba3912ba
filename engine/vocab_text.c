/* vocab_text.c: text to tokens and back, whatever the tokenizer kind: takes the text apart at its special tokens, hands
 * the stretches between them to the kind, and knows what a token looks like in text. See vocab.h. */
#include "vocab_impl.h"

#include <string.h>

/* ---- text to tokens --------------------------------------------------------------------------------------------- */

/* One text on its way to tokens. */
typedef struct vocab_reader {
    const vocab *v;
    special_reader special;
    vocab_work work;   /* the stretch since the last special token */
    token_list sealed; /* user-defined tokens that SEALED spans must not contain */
    token_list *out;
    int strip; /* the special token before swallows white space */
} vocab_reader;

static void vocab_work_free(vocab_work *w) {
    mem_free(w->merge.allocator, w->text, w->capacity, 1);
    vocab_unigram_work_free(w);
    merge_work_free(&w->merge);
}

static int vocab_is_white(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int vocab_add_text(vocab_reader *r, const char *text, size_t n) {
    vocab_work *w = &r->work;
    for (; r->strip && n && vocab_is_white(*text); n--) text++;
    if (n == 0) return 0;
    r->strip = 0;
    if (mem_grow(w->merge.allocator, &w->text, &w->capacity, VOCAB_WORK_BEFORE + w->n + n + VOCAB_WORK_BEHIND, 1))
        return -1;
    memcpy(w->text + VOCAB_WORK_BEFORE + w->n, text, n);
    w->n += n;
    return 0;
}

/* Turns the stretch into tokens. Before it is nothing or a special token, so it begins with the invented space. */
static int vocab_end_stretch(vocab_reader *r) {
    const vocab *v = r->v;
    int failed = 0;
    if (r->work.n && v->kind == VOCAB_SPM) failed = vocab_spm_encode(v, &r->work, v->add_space, r->out);
    if (r->work.n && v->kind == VOCAB_BPE) failed = vocab_bpe_encode(v, &r->work, r->out);
    if (r->work.n && v->kind == VOCAB_UNIGRAM) failed = vocab_unigram_encode(v, &r->work, v->add_space, r->out);
    r->work.n = 0;
    return failed;
}

static int vocab_add_token(vocab_reader *r, int32_t token) {
    if (vocab_end_stretch(r) || token_list_push(r->work.merge.allocator, r->out, token)) return -1;
    r->strip = (r->v->flag[token] & VOCAB_FLAG_STRIP) != 0;
    return 0;
}

static int vocab_add_span(vocab_reader *r, const vocab_span *s) {
    size_t from = 0;
    special_cut cut;
    int found;
    if (s->kind == VOCAB_SPAN_TOKEN) return vocab_add_token(r, s->token);
    special_begin(&r->special, s->kind, s->text, s->n);
    while ((found = special_next(&r->special, &cut)) > 0) {
        if (vocab_add_text(r, s->text + from, cut.at - from) || vocab_add_token(r, cut.token)) return -1;
        from = cut.at + cut.n;
    }
    return found ? -1 : vocab_add_text(r, s->text + from, s->n - from);
}

/* Remembers the user-defined tokens in a SPECIAL span, each once. */
static int vocab_seal_tokens(vocab_reader *r, const vocab_span *s) {
    special_cut cut;
    int found;
    special_begin(&r->special, s->kind, s->text, s->n);
    while ((found = special_next(&r->special, &cut)) > 0) {
        size_t i = 0;
        if (r->v->type[cut.token] != VOCAB_USER) continue;
        while (i < r->sealed.n && r->sealed.token[i] != cut.token) i++;
        if (i == r->sealed.n && token_list_push(r->work.merge.allocator, &r->sealed, cut.token)) return -1;
    }
    return found;
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
    vocab_reader r = {.v = v, .work = {.merge = {.allocator = a}}, .out = out};
    int any_sealed, failed = 0;
    const minim_status status = vocab_check_spans(v, spans, n_spans, &any_sealed, e);
    if (status) return status;
    r.special = (special_reader){.v = v, .sealed = &r.sealed, .work = {.allocator = a}};
    for (size_t i = 0; i < n_spans && any_sealed && !failed; i++)
        if (spans[i].kind == VOCAB_SPAN_SPECIAL) failed = vocab_seal_tokens(&r, &spans[i]);
    for (size_t i = 0; i < n_spans && !failed; i++) failed = vocab_add_span(&r, &spans[i]);
    if (!failed) failed = vocab_end_stretch(&r);
    vocab_work_free(&r.work);
    special_free(&r.special);
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
        if (v->kind == VOCAB_BPE) {
            text = vocab_bpe_piece(v, token, &n);
            return vocab_copy(text, n, buf, capacity);
        }
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
