/* chat.h: chat formats as data. A conversation is a list of messages; a format says which text stands around each
 * role's content. Markers are the format's own text and are parsed for control tokens; contents never are.
 *
 * In a marker, {bos} and {eos} stand for these tokens of the vocabulary, whatever their text is (left out where it has
 * none), {date} for today's date (UTC) as "21 November 2026" and {date us} for "November 21, 2026". A conversation
 * begins with BOS if the vocabulary asks for it or the file's template mentions it.
 *
 * Nothing of a template is executed. It is recognised by its marks, and only three things are read from it: whether it
 * begins with BOS, the system message that stands in for a missing one, and whether an empty one counts as missing.
 */
#ifndef MODELS_CHAT_H
#define MODELS_CHAT_H

#include <stddef.h>

typedef struct chat_turn {
    const char *before, *after; /* around the content of a message */
} chat_turn;

enum {
    /* There is no system turn: system.before, content and system.after stand between the `before` of a user turn, the
     * next one or the conversation's last, and its content. */
    CHAT_SYSTEM_IN_USER = 1,
    CHAT_SYSTEM_IN_LAST_USER = 2,
    /* White space around these contents is dropped. FOLDED: of a user turn with a system message in it only what is
     * behind both. */
    CHAT_TRIM_SYSTEM = 4,
    CHAT_TRIM_USER = 8,
    CHAT_TRIM_ASSISTANT = 16,
    CHAT_TRIM_FOLDED = 32,
    CHAT_TRIM = CHAT_TRIM_SYSTEM | CHAT_TRIM_USER | CHAT_TRIM_ASSISTANT,
    /* Of earlier answers the thoughts, all up to the last </think>, are dropped; also the newlines behind them. */
    CHAT_DROP_THOUGHTS = 64,
    CHAT_DROP_THOUGHTS_GAP = 128,
    CHAT_DROP_NEWLINES = 256, /* newlines that an earlier answer begins with are dropped */
    /* "/think" and "/no_think" in the system message choose the mode and are no part of it (see no_think). */
    CHAT_MODE_IN_SYSTEM = 512,
    CHAT_TEMPLATE_SYSTEM = 1024 /* the file's template may hold the system message of a conversation without one */
};

typedef struct chat_format {
    const char *name;
    const char *title; /* which models people know it by */
    /* A file's tokenizer.chat_template is this format when it contains every `with` and no `without`. Its
     * spaces are skipped where the mark has none, ' is also ", and a newline also "\n" as a template writes it. */
    const char *with[4], *without[8];
    const char *begin; /* before everything; NULL = nothing */
    chat_turn system, user, assistant;
    const char *answer; /* what stands before the answer that the model is to write */
    /* A system turn's content in a conversation that has none, and what stands before that of the first system message
     * of one that has; NULL = none. Both are markers. */
    const char *system_default, *system_preamble;
    const char *no_think; /* the format that is meant when the system message says /no_think */
    unsigned flags;
} chat_format;

/* A format as one file wants it. */
typedef struct chat_style {
    const chat_format *format;
    int bos;            /* 1: begins with BOS, whatever the vocabulary says */
    const char *system; /* from the template, with its escapes (\n); instead of system_default. NULL = none */
    size_t n_system;
    int skip_empty_system; /* 1: a system message without content is none */
} chat_style;

const chat_format *chat_format_find(const char *name);
const chat_format *chat_format_at(size_t index); /* NULL behind the last */
/* 0 when the template is none of ours. An empty or NULL template is "raw". *style points into the template. */
int chat_recognise(const char *chat_template, chat_style *style);

#endif
