/* private.h: whether a request may leave the machine. */
#ifndef ROUTER_PRIVATE_H
#define ROUTER_PRIVATE_H

#include "support.h"

typedef struct private_rules private_rules;

/* MINIM_ERR_ARGUMENT when a pattern is no regular expression. */
minim_status private_rules_new(const minim_router_config *config, private_rules **rules, minim_error *error);
void private_rules_free(private_rules *rules);

/* MINIM_PRIVATE_... found anywhere in the request: every role and content, every stop string, the
 * prefix. All bits when it can not
 * be told (no memory): what could not be looked through stays. */
unsigned private_request(const private_rules *rules, const minim_router_request *request);

/* The same of one text. */
unsigned private_text(const private_rules *rules, const char *text);

#endif
