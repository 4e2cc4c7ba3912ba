/* config.h: the keys of a configuration as a table, which the file reader and the checks share. */
#ifndef ROUTER_CONFIG_H
#define ROUTER_CONFIG_H

#include "support.h"

typedef enum config_kind {
    CONFIG_REAL,      /* double */
    CONFIG_INTEGER,   /* int */
    CONFIG_BYTES,     /* uint64_t */
    CONFIG_BOOLEAN,   /* int */
    CONFIG_STRING,    /* char [max] */
    CONFIG_WORD,      /* an enum: int */
    CONFIG_DURATION,  /* double: seconds, -n = n months; a string such as "30d" */
    CONFIG_SET,       /* unsigned: an array of words, each a bit */
    CONFIG_ORDER,     /* int: an array of different words, each a decimal digit */
    CONFIG_ENDPOINTS, /* minim_router_endpoint [MINIM_ROUTER_FALLBACKS]: an array of objects */
    CONFIG_JSON,      /* char [max]: an object, as text */
    CONFIG_LINES      /* char [max]: an array of strings, a line each */
} config_kind;

typedef struct config_key {
    const char *section, *name; /* section "" is the top level */
    config_kind kind;
    size_t offset;
    double min, max; /* max of a string is the size of its buffer */
    const char *expected;
    int (*parse_word)(const char *word, int *value);
} config_key;

/* NULL when there is none of that name. section is "" at the top level, else the object's name. */
const config_key *config_find(const char *section, const char *name);
int config_is_section(const char *name);
/* "30s", "30m", "30h", "30d", "1mo" to seconds or minus months; 0, or -1 when it is none. */
int config_parse_duration(const char *text, double *value);
/* Writes *from to the caller's struct, as much as that has room for. */
void config_give_back(minim_router_config *to, minim_router_config *from);

#endif
