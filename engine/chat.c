/* chat.c: see chat.h. The prompt is put together as a list of spans, markers and contents by turns, and tokenized as
 * one text, so that the tokenizer sees what it saw in training: "[INST] " and "Hello" meet in one token "▁Hello". */
#include "chat.h"

#include <stdio.h>
#include <string.h>

/* ---- choosing a format ------------------------------------------------------------------------------------------ */

const char *minim_chat_format(size_t index) {
    const chat_format *f = chat_format_at(index);
    return f ? f->name : NULL;
}

/* "raw, llama2, ..." */
static void chat_list_names(char *buf, size_t n) {
    const chat_format *f;
    size_t used = 0;
    buf[0] = 0;
    for (size_t i = 0; (f = chat_format_at(i)) && used < n; i++)
        used += (size_t)snprintf(buf + used, n - used, "%s%s", i ? ", " : "", f->name);
}

minim_status chat_choose(const gguf_file *f, const char *name, const chat_format **out, minim_error *e) {
    gguf_str text = {"", 0};
    int found;
    char names[256];
    minim_status status;
    *out = NULL;
    chat_list_names(names, sizeof names);
    if (name) {
        *out = chat_format_find(name);
        if (*out) return err_ok(e);
        return err_set(e, MINIM_ERR_ARGUMENT, "chat format \"%.64s\" is not known; choose one of %s", name, names);
    }
    status = gguf_get_str(f, "tokenizer.chat_template", &text, &found, e);
    if (status) return status;
    *out = chat_format_recognise(text.s);
    if (*out) return err_ok(e);
    return err_set(e, MINIM_ERR_UNSUPPORTED,
                   "%s: the chat template is none that minim knows; choose a format (--chat-format NAME): %s",
                   gguf_path(f), names);
}

/* ---- putting a prompt together ---------------------------------------------------------------------------------- */

typedef struct chat_prompt {
    const vocab *v;
    const minim_allocator *a;
    const chat_format *format;
    vocab_span *span;
    size_t n, capacity;
    int failed; /* memory was short */
} chat_prompt;

static void chat_add_span(chat_prompt *p, vocab_span span) {
    if (p->n == p->capacity && mem_grow(p->a, &p->span, &p->capacity, p->n < 16 ? 16 : p->n + 1, sizeof *p->span))
        p->failed = 1;
    if (!p->failed) p->span[p->n++] = span;
}

static void chat_add_token(chat_prompt *p, int32_t token) {
    if (token >= 0) chat_add_span(p, (vocab_span){.kind = VOCAB_SPAN_TOKEN, .token = token});
}

/* At the start of the prompt one BOS is enough. */
static void chat_add_bos(chat_prompt *p) {
    const int32_t bos = vocab_bos(p->v);
    if (p->n == 1 && p->span[0].kind == VOCAB_SPAN_TOKEN && p->span[0].token == bos) return;
    chat_add_token(p, bos);
}

/* A marker: text, {bos} and {eos}. */
static void chat_add_marker(chat_prompt *p, const char *marker) {
    while (marker && *marker) {
        const char *brace = strstr(marker, "{bos}"), *const eos = strstr(marker, "{eos}");
        if (!brace || (eos && eos < brace)) brace = eos;
        if (brace != marker) {
            const size_t n = brace ? (size_t)(brace - marker) : strlen(marker);
            chat_add_span(p, (vocab_span){.kind = VOCAB_SPAN_SPECIAL, .text = marker, .n = n});
            marker += n;
        } else {
            if (marker == eos)
                chat_add_token(p, vocab_eos(p->v));
            else
                chat_add_bos(p);
            marker += 5;
        }
    }
}

static int chat_is_white(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void chat_add_content(chat_prompt *p, const char *content) {
    size_t n = strlen(content);
    if (p->format->trim) {
        for (; chat_is_white(*content); n--) content++;
        while (n && chat_is_white(content[n - 1])) n--;
    }
    chat_add_span(p, (vocab_span){.kind = VOCAB_SPAN_SEALED, .text = content, .n = n});
}

static void chat_add_turn(chat_prompt *p, const chat_turn *turn, const char *content) {
    chat_add_marker(p, turn->before);
    chat_add_content(p, content);
    chat_add_marker(p, turn->after);
}

/* A user turn that begins with the system messages messages[from..to), which have no turn of their own. content NULL:
 * it has nothing else. */
static void chat_add_user(chat_prompt *p, const minim_message *messages, size_t from, size_t to, const char *content) {
    chat_add_marker(p, p->format->user.before);
    for (size_t i = from; i < to; i++) chat_add_turn(p, &p->format->system, messages[i].content);
    if (content) chat_add_content(p, content);
    chat_add_marker(p, p->format->user.after);
}

static int chat_is_role(const minim_message *message, const char *role) {
    return strcmp(message->role, role) == 0;
}

static void chat_add_messages(chat_prompt *p, const minim_message *messages, size_t n_messages) {
    size_t waiting = 0; /* messages[waiting..i) are system messages that wait for a user turn */
    for (size_t i = 0; i < n_messages; i++) {
        const minim_message *message = &messages[i];
        const int system = chat_is_role(message, "system"), user = chat_is_role(message, "user");
        if (system && p->format->system_in_user) continue;
        if (!user && waiting < i) chat_add_user(p, messages, waiting, i, NULL);
        if (user)
            chat_add_user(p, messages, waiting, i, message->content);
        else
            chat_add_turn(p, system ? &p->format->system : &p->format->assistant, message->content);
        waiting = i + 1;
    }
    if (waiting < n_messages) chat_add_user(p, messages, waiting, n_messages, NULL);
}

static void chat_add_all(chat_prompt *p, const minim_message *messages, size_t n_messages) {
    size_t n_system = 0;
    for (size_t i = 0; i < n_messages; i++) n_system += (size_t)chat_is_role(&messages[i], "system");
    if (vocab_adds_bos(p->v)) chat_add_bos(p);
    if (!n_system && p->format->system_default) chat_add_turn(p, &p->format->system, p->format->system_default);
    chat_add_messages(p, messages, n_messages);
    chat_add_marker(p, p->format->answer);
}

static minim_status chat_check(const minim_message *messages, size_t n_messages, minim_error *e) {
    if (!messages || n_messages == 0) return err_set(e, MINIM_ERR_ARGUMENT, "the conversation has no messages");
    for (size_t i = 0; i < n_messages; i++) {
        const minim_message *m = &messages[i];
        if (!m->role || !m->content)
            return err_set(e, MINIM_ERR_ARGUMENT, "message %llu has no role or no content", (unsigned long long)i);
        if (!chat_is_role(m, "system") && !chat_is_role(m, "user") && !chat_is_role(m, "assistant"))
            return err_set(e, MINIM_ERR_ARGUMENT, "message %llu has role \"%.64s\", expected system, user or assistant",
                           (unsigned long long)i, m->role);
    }
    return MINIM_OK;
}

minim_status chat_tokenize(const vocab *v, const minim_allocator *a, const chat_format *format,
                           const minim_message *messages, size_t n_messages, token_list *out, minim_error *e) {
    chat_prompt p = {.v = v, .a = a, .format = format};
    minim_status status = chat_check(messages, n_messages, e);
    if (status) return status;
    chat_add_all(&p, messages, n_messages);
    if (p.failed)
        status = err_memory(e, "a chat prompt", (p.n + 1) * sizeof *p.span);
    else
        status = vocab_tokenize_spans(v, a, p.span, p.n, out, e);
    mem_free(a, p.span, p.capacity, sizeof *p.span);
    return status;
}
