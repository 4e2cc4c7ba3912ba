/* chat.c: see chat.h. The prompt is put together as a list of spans, markers and contents by turns, and tokenized as
 * one text, so that the tokenizer sees what it saw in training: "[INST] " and "Hello" meet in one token "▁Hello". */
#include "chat.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- choosing a format ------------------------------------------------------------------------------------------ */

const char *minim_chat_format(size_t index) {
    const chat_format *f = chat_format_at(index);
    return f ? f->name : NULL;
}

minim_status chat_choose(const gguf_file *f, const char *name, chat_style *out, minim_error *e) {
    gguf_str text = {"", 0};
    int found;
    minim_status status;
    if (name) {
        *out = (chat_style){.format = chat_format_find(name)};
        if (out->format) return err_ok(e);
        return err_set(e, MINIM_ERR_ARGUMENT, "chat format \"%.64s\" is not known; --chat-format help lists the names",
                       name);
    }
    status = gguf_get_str(f, "tokenizer.chat_template", &text, &found, e);
    if (status) return status;
    if (chat_recognise(text.s, out)) return err_ok(e);
    return err_set(e, MINIM_ERR_UNSUPPORTED,
                   "%s: the chat template is none that minim knows; choose a format with --chat-format NAME, \"help\" "
                   "lists the names",
                   gguf_path(f));
}

/* ---- white space and dates -------------------------------------------------------------------------------------- */

/* The length of the white space character (UTF-8) that s[n] begins with, 0 if it begins with another. The set is that
 * of the templates' "trim": Python's str.strip(). */
static size_t chat_white(const char *s, size_t n) {
    static const char *const wide[] = {"\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\xa8",
                                       "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};
    if (n == 0) return 0;
    if (*s == ' ' || (*s >= '\t' && *s <= '\r') || (*s >= 0x1c && *s <= 0x1f)) return 1;
    if (n >= 3 && !memcmp(s, "\xe2\x80", 2) && (unsigned char)s[2] >= 0x80 && (unsigned char)s[2] <= 0x8a) return 3;
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++) {
        const size_t length = strlen(wide[i]);
        if (n >= length && !memcmp(s, wide[i], length)) return length;
    }
    return 0;
}

/* The same at the end of s[n]. */
static size_t chat_white_behind(const char *s, size_t n) {
    for (size_t k = 1; k <= 3 && k <= n; k++)
        if (chat_white(s + n - k, k) == k) return k;
    return 0;
}

/* Today (UTC). From days to a date of the Gregorian calendar, which repeats every 400 years = 146097 days; the year
 * begins with March here, so that the leap day is its last. */
static void chat_write_date(int us, char *buf, size_t n) {
    static const char *const months[] = {"January", "February", "March",     "April",   "May",      "June",
                                         "July",    "August",   "September", "October", "November", "December"};
    const int64_t days = (int64_t)(time(NULL) / 86400) + 719468; /* since 1 March of year 0 */
    const int64_t era = days / 146097, in_era = days % 146097;
    const int64_t year_of_era = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    const int64_t in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    const int from_march = (int)((5 * in_year + 2) / 153), month = (from_march + 2) % 12;
    const int day = (int)(in_year - (153 * from_march + 2) / 5) + 1,
              year = (int)(era * 400 + year_of_era) + (month < 2);
    if (us)
        snprintf(buf, n, "%s %02d, %d", months[month], day, year);
    else
        snprintf(buf, n, "%02d %s %d", day, months[month], year);
}

/* ---- putting a prompt together ---------------------------------------------------------------------------------- */

typedef struct chat_prompt {
    const vocab *v;
    const minim_allocator *a;
    const chat_format *format;
    vocab_span *span;
    size_t n, capacity;
    int failed;      /* memory was short */
    size_t n_system; /* system messages so far */
    char *moded;     /* the first one without the words that choose a mode; NULL = as it is */
    size_t moded_size;
    char date[2][24]; /* {date}, {date us} */
} chat_prompt;

static void chat_add_span(chat_prompt *p, vocab_span span) {
    if (p->n == p->capacity && mem_grow(p->a, &p->span, &p->capacity, p->n < 16 ? 16 : p->n + 1, sizeof *p->span))
        p->failed = 1;
    if (!p->failed) p->span[p->n++] = span;
}

static void chat_add_token(chat_prompt *p, int32_t token) {
    if (token >= 0) chat_add_span(p, (vocab_span){.kind = VOCAB_SPAN_TOKEN, .token = token});
}

static void chat_add_text(chat_prompt *p, const char *text, size_t n) {
    if (n) chat_add_span(p, (vocab_span){.kind = VOCAB_SPAN_SPECIAL, .text = text, .n = n});
}

/* At the start of the prompt one BOS is enough. */
static void chat_add_bos(chat_prompt *p) {
    const int32_t bos = vocab_bos(p->v);
    if (p->n == 1 && p->span[0].kind == VOCAB_SPAN_TOKEN && p->span[0].token == bos) return;
    chat_add_token(p, bos);
}

static void chat_add_date(chat_prompt *p, int us) {
    chat_write_date(us, p->date[us], sizeof p->date[us]);
    chat_add_text(p, p->date[us], strlen(p->date[us]));
}

/* What a marker has between braces, of n bytes. */
static void chat_add_name(chat_prompt *p, const char *name, size_t n) {
    if (n == 3 && !memcmp(name, "bos", n))
        chat_add_bos(p);
    else if (n == 3 && !memcmp(name, "eos", n))
        chat_add_token(p, vocab_eos(p->v));
    else
        chat_add_date(p, n > 4);
}

static void chat_add_marker(chat_prompt *p, const char *marker) {
    while (marker && *marker) {
        const size_t n = strcspn(marker, "{");
        chat_add_text(p, marker, n);
        marker += n;
        if (*marker) {
            const size_t length = strcspn(marker + 1, "}");
            chat_add_name(p, marker + 1, length);
            marker += length + 2;
        }
    }
}

/* Text out of a template, where a backslash makes the next character another one. */
static void chat_add_literal(chat_prompt *p, const char *text, size_t n) {
    static const char from[] = "nt'\"\\", *const to[] = {"\n", "\t", "'", "\"", "\\"};
    size_t start = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        const char *escape = text[i] == '\\' ? memchr(from, text[i + 1], sizeof from - 1) : NULL;
        if (!escape) continue;
        chat_add_text(p, text + start, i - start);
        chat_add_text(p, to[escape - from], 1);
        start = ++i + 1;
    }
    chat_add_text(p, text + start, n - start);
}

/* ---- contents --------------------------------------------------------------------------------------------------- */

typedef struct chat_content {
    const char *text;
    size_t n;
} chat_content;

static chat_content chat_trim(chat_content c, int before, int behind) {
    size_t k;
    for (; before && (k = chat_white(c.text, c.n)); c.n -= k) c.text += k;
    for (; behind && (k = chat_white_behind(c.text, c.n));) c.n -= k;
    return c;
}

static chat_content chat_skip_newlines(chat_content c) {
    for (; c.n && *c.text == '\n'; c.n--) c.text++;
    return c;
}

/* The answer without the thoughts before it. */
static chat_content chat_drop_thoughts(chat_content c, int gap) {
    static const char end[] = "</think>";
    const char *found = NULL, *next = c.text;
    while ((next = strstr(next, end))) found = next += sizeof end - 1;
    if (!found) return c;
    c.n -= (size_t)(found - c.text);
    c.text = found;
    return gap ? chat_skip_newlines(c) : c;
}

static void chat_add_sealed(chat_prompt *p, chat_content c) {
    if (c.n) chat_add_span(p, (vocab_span){.kind = VOCAB_SPAN_SEALED, .text = c.text, .n = c.n});
}

/* ---- system messages that choose a mode ------------------------------------------------------------------------- */

static int chat_is_role(const minim_message *message, const char *role) {
    return strcmp(message->role, role) == 0;
}

/* The first system message, NULL if there is none. */
static const char *chat_first_system(const minim_message *messages, size_t n_messages) {
    for (size_t i = 0; i < n_messages; i++)
        if (chat_is_role(&messages[i], "system")) return messages[i].content;
    return NULL;
}

/* Takes the mode out of the system message: p->moded becomes a copy of it without "/think", "/no_think" and white space
 * behind. */
static void chat_take_mode(chat_prompt *p, const char *text) {
    size_t n = 0;
    if (p->format->no_think && strstr(text, "/no_think")) p->format = chat_format_find(p->format->no_think);
    p->moded_size = strlen(text) + 1;
    p->moded = mem_alloc(p->a, p->moded_size, 1);
    if (!p->moded) {
        p->failed = 1;
        return;
    }
    while (*text) {
        const size_t word = !strncmp(text, "/no_think", 9) ? 9 : !strncmp(text, "/think", 6) ? 6 : 0;
        if (word)
            text += word;
        else
            p->moded[n++] = *text++;
    }
    p->moded[chat_trim((chat_content){p->moded, n}, 0, 1).n] = 0;
}

/* ---- messages --------------------------------------------------------------------------------------------------- */

static void chat_add_default_system(chat_prompt *p, const chat_style *style) {
    if (!style->system && !p->format->system_default) return;
    chat_add_marker(p, p->format->system.before);
    if (style->system)
        chat_add_literal(p, style->system, style->n_system);
    else
        chat_add_marker(p, p->format->system_default);
    chat_add_marker(p, p->format->system.after);
}

/* A system message with what stands around it. */
static void chat_add_system(chat_prompt *p, const char *text) {
    const int trim = (p->format->flags & CHAT_TRIM_SYSTEM) != 0, first = p->n_system++ == 0;
    const int only_mode = first && p->moded && !*p->moded;
    chat_add_marker(p, p->format->system.before);
    if (first) chat_add_marker(p, only_mode ? p->format->system_default : p->format->system_preamble);
    if (first && p->moded) text = p->moded;
    chat_add_sealed(p, chat_trim((chat_content){text, strlen(text)}, trim, trim));
    chat_add_marker(p, p->format->system.after);
}

static void chat_add_answer(chat_prompt *p, const char *text) {
    const unsigned flags = p->format->flags;
    const int trim = (flags & CHAT_TRIM_ASSISTANT) != 0;
    chat_content c = {text, strlen(text)};
    if (flags & CHAT_DROP_THOUGHTS) c = chat_drop_thoughts(c, (flags & CHAT_DROP_THOUGHTS_GAP) != 0);
    if (flags & CHAT_DROP_NEWLINES) c = chat_skip_newlines(c);
    chat_add_marker(p, p->format->assistant.before);
    chat_add_sealed(p, chat_trim(c, trim, trim));
    chat_add_marker(p, p->format->assistant.after);
}

/* A user turn that begins with the system messages among messages[from..to), which have no turn of their own. content
 * NULL: it has nothing else. */
static void chat_add_user(chat_prompt *p, const minim_message *messages, size_t from, size_t to, const char *content) {
    const unsigned flags = p->format->flags;
    const size_t n_before = p->n_system;
    chat_add_marker(p, p->format->user.before);
    for (size_t i = from; i < to; i++)
        if (chat_is_role(&messages[i], "system")) chat_add_system(p, messages[i].content);
    if (content) {
        const int folded = flags & CHAT_TRIM_FOLDED && p->n_system > n_before, trim = (flags & CHAT_TRIM_USER) != 0;
        chat_add_sealed(p, chat_trim((chat_content){content, strlen(content)}, trim && !folded, trim));
    }
    chat_add_marker(p, p->format->user.after);
}

/* With system messages in the next user turn: messages[waiting..i) are those that wait for it. */
static void chat_add_messages(chat_prompt *p, const minim_message *messages, size_t n_messages) {
    size_t waiting = 0;
    for (size_t i = 0; i < n_messages; i++) {
        const minim_message *message = &messages[i];
        const int system = chat_is_role(message, "system"), user = chat_is_role(message, "user");
        if (system && p->format->flags & CHAT_SYSTEM_IN_USER) continue;
        if (!user && waiting < i) chat_add_user(p, messages, waiting, i, NULL);
        if (user)
            chat_add_user(p, messages, waiting, i, message->content);
        else if (system)
            chat_add_system(p, message->content);
        else
            chat_add_answer(p, message->content);
        waiting = i + 1;
    }
    if (waiting < n_messages) chat_add_user(p, messages, waiting, n_messages, NULL);
}

/* With system messages in the last user turn. */
static void chat_add_messages_late(chat_prompt *p, const minim_message *messages, size_t n_messages) {
    size_t last = n_messages;
    for (size_t i = 0; i < n_messages; i++)
        if (chat_is_role(&messages[i], "user")) last = i;
    for (size_t i = 0; i < n_messages; i++) {
        if (chat_is_role(&messages[i], "user"))
            chat_add_user(p, messages, 0, i == last ? n_messages : 0, messages[i].content);
        else if (chat_is_role(&messages[i], "assistant"))
            chat_add_answer(p, messages[i].content);
    }
    if (last == n_messages && chat_first_system(messages, n_messages)) chat_add_user(p, messages, 0, n_messages, NULL);
}

static void chat_add_all(chat_prompt *p, const chat_style *style, const minim_message *messages, size_t n_messages) {
    const char *const system = chat_first_system(messages, n_messages);
    if (system && p->format->flags & CHAT_MODE_IN_SYSTEM) chat_take_mode(p, system);
    if (style->bos || vocab_adds_bos(p->v)) chat_add_bos(p);
    chat_add_marker(p, p->format->begin);
    if (!system) chat_add_default_system(p, style);
    if (p->format->flags & CHAT_SYSTEM_IN_LAST_USER)
        chat_add_messages_late(p, messages, n_messages);
    else
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

/* The messages of a template that takes an empty system message for none: a copy without those, [n_messages]. */
static minim_message *chat_without_empty_system(const minim_allocator *a, const minim_message *messages,
                                                size_t n_messages, size_t *n_kept) {
    minim_message *kept = mem_alloc(a, n_messages, sizeof *kept);
    *n_kept = 0;
    for (size_t i = 0; kept && i < n_messages; i++)
        if (*messages[i].content || !chat_is_role(&messages[i], "system")) kept[(*n_kept)++] = messages[i];
    return kept;
}

minim_status chat_tokenize(const vocab *v, const minim_allocator *a, const chat_style *style,
                           const minim_message *messages, size_t n_messages, token_list *out, minim_error *e) {
    chat_prompt p = {.v = v, .a = a, .format = style->format};
    minim_status status = chat_check(messages, n_messages, e);
    if (status) return status;
    size_t n = n_messages;
    minim_message *kept = style->skip_empty_system ? chat_without_empty_system(a, messages, n_messages, &n) : NULL;
    p.failed = style->skip_empty_system && !kept;
    if (!p.failed) chat_add_all(&p, style, kept ? kept : messages, n);
    mem_free(a, kept, n_messages, sizeof *kept);
    if (p.failed)
        status = err_memory(e, "a chat prompt", (p.n + 1) * sizeof *p.span);
    else
        status = vocab_tokenize_spans(v, a, p.span, p.n, out, e);
    mem_free(a, p.span, p.capacity, sizeof *p.span);
    mem_free(a, p.moded, p.moded_size, 1);
    return status;
}
