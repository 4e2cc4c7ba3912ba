/* chat.h: a conversation to tokens, in a format of models/chat.h. */
#ifndef ENGINE_CHAT_H
#define ENGINE_CHAT_H

#include "../models/chat.h"
#include "vocab.h"

/* The format with this name, as it is in the table; with name NULL the one that the file's tokenizer.chat_template is,
 * "raw" without one. An unknown name is MINIM_ERR_ARGUMENT, an unknown template MINIM_ERR_UNSUPPORTED; both texts
 * say how to choose one. *out may point into the file. */
minim_status chat_choose(const gguf_file *f, const char *name, chat_style *out, minim_error *e);

/* Appends the conversation and what stands before the answer. Contents are data: no text in them becomes a special
 * token of the format. System messages of a format without a system role go into a user turn. On failure the list keeps
 * its former length. */
minim_status chat_tokenize(const vocab *v, const minim_allocator *a, const chat_style *style,
                           const minim_message *messages, size_t n_messages, token_list *out, minim_error *e);

#endif
