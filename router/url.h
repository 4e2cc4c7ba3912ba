/* url.h: the address of a remote, as libcurl itself reads it: what is checked is what is connected to. */
#ifndef ROUTER_URL_H
#define ROUTER_URL_H

#include "minim_router.h"

typedef struct url_parts {
    char endpoint[1200]; /* of POST: base_url with /chat/completions behind its path */
    char origin[400];    /* scheme://host:port, for messages: a query may hold secrets */
    int loopback;        /* the host is this machine: 127.0.0.0/8, [::1] or localhost */
} url_parts;

/* https, or http to this machine; no user or password; no fragment. A path that already ends in /chat/completions is
 * kept. The error does not quote the URL. */
minim_status url_read(const char *base_url, url_parts *parts, minim_error *error);

#endif
