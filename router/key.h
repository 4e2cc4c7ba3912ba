/* key.h: the API key: where it comes from and what may be in it. */
#ifndef ROUTER_KEY_H
#define ROUTER_KEY_H

#include "minim_router.h"

/* Reads the key that "env:NAME" or "file:PATH" points to; "" gives an empty one. The key is one line of visible ASCII,
 * so that it can not carry a header of its own. A file must be a regular one that nobody but its owner may read. *key
 * has pages that core dumps leave out, and is freed with key_free(), which wipes it. Error texts name the place, never
 * the content. */
minim_status key_read(const char *reference, char **key, minim_error *error);
void key_free(char *key);

#endif
