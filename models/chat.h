/* chat.h: chat formats as data. A conversation is a list of messages; a format says which text stands around each
 * role's content. Markers are the format's own text and are parsed for control tokens; contents never are.
 *
 * In a marker, {bos} and {eos} stand for these tokens of the vocabulary, whatever their text is (left out where it has
 * none). A conversation begins with BOS if the vocabulary asks for it and the format does not begin with {bos} itself.
 */
#ifndef MODELS_CHAT_H
#define MODELS_CHAT_H

#include <stddef.h>

typedef struct chat_turn {
    const char *before, *after; /* around the content of a message */
} chat_turn;

typedef struct chat_format {
    const char *name;
    const char *title; /* which models people know it by */
    /* A file's tokenizer.chat_template is this format when it contains every `with` and no `without`. */
    const char *with[3], *without[6];
    chat_turn system, user, assistant;
    const char *answer;         /* what stands before the answer that the model is to write */
    const char *system_default; /* the system message of a conversation that has none; NULL = none */
    int system_in_user;         /* 1: there is no system turn; system.before, content and system.after go between the
                                   next user turn's `before` and its content */
    int trim;                   /* 1: white space around contents is dropped */
} chat_format;

const chat_format *chat_format_find(const char *name);
const chat_format *chat_format_at(size_t index); /* NULL behind the last */
/* NULL when the template is none of ours. An empty or NULL template is "raw". */
const chat_format *chat_format_recognise(const char *chat_template);

#endif
