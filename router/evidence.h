/* evidence.h: validators of an answer: rules that can be checked, in place of a model that judges itself. */
#ifndef ROUTER_EVIDENCE_H
#define ROUTER_EVIDENCE_H

#include "support.h"

typedef struct evidence_rules evidence_rules;

/* *rules is NULL when nothing is configured. MINIM_ERR_ARGUMENT for a pattern or schema that is none,
 * MINIM_ERR_UNSUPPORTED for a schema in a build without jansson. */
minim_status evidence_rules_new(const minim_router_config *config, evidence_rules **rules, minim_error *error);
void evidence_rules_free(evidence_rules *rules);

/* Whether an answer to the request is refused; then detail[n] says in one line what was missed. Without rules: no. What
 * can not be checked (no memory, a command that does not start) is refused. */
int evidence_refuses(const evidence_rules *rules, const minim_router_request *request, const char *answer, char *detail,
                     size_t n);

/* In evidence_json.c, with jansson. A schema is an object with any of: type, properties, required,
 * additionalProperties (false), items, enum, minItems, maxItems, minimum, maximum. */
minim_status evidence_json_check(const char *schema, minim_error *error);
int evidence_json_refuses(const char *schema, const char *answer, char *detail, size_t n);

#endif
