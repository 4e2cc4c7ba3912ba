/* chat.h: chat formats as data. A conversation is a list of turns; a format says which text stands around each role's
 * content. Markers are the format's own text and are parsed for control tokens; contents never are. */
#ifndef MODELS_CHAT_H
#define MODELS_CHAT_H

#include <stddef.h>

typedef struct chat_format {
    const char *name;
    /* A file's tokenizer.chat_template is this format when it contains every one of these (NULL-terminated). */
    const char *mark[4];
    const char *system_before, *system_after; /* NULL: the format has no system role; it is folded into the first user
                                                 turn, followed by a blank line */
    const char *user_before, *user_after;
    const char *assistant_before, *assistant_after;
    int bos_each_turn; /* 1: BOS before every user turn (Llama 2), not only at the start */
} chat_format;

const chat_format *chat_format_find(const char *name);
const chat_format *chat_format_at(size_t index); /* NULL behind the last */
/* NULL when the template is none of ours. An empty or NULL template is "raw". */
const chat_format *chat_format_recognise(const char *chat_template);

#endif
