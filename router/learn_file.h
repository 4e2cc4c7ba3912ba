/* learn_file.h: JSON files that are trusted to hold nothing: bounded, checked, written whole or not at all. */
#ifndef ROUTER_LEARN_FILE_H
#define ROUTER_LEARN_FILE_H

#include <jansson.h>

#include "support.h"

/* Reads a file whose root is an object that says {name: version}; *root is the caller's. The error names the file. */
minim_status learn_load_json(const char *path, const char *name, int version, json_t **root, minim_error *error);

/* Writes a document beside its place and renames it. Numbers get so many digits: 9 give a float32 back exactly, 17 a
 * double. root NULL is out of memory. */
minim_status learn_save_json(const char *path, const json_t *root, size_t digits, minim_error *error);

/* A member as a number between the two; 0, or -1 after the error names file, member, found and expected. `where` stands
 * before the name, for example "entries[2]."; may be "". */
int learn_get_number(const char *path, const char *where, const json_t *object, const char *name, double min,
                     double max, double *number, minim_error *error);

/* A member as an array of at most `most` numbers, each between the two; exactly *n unless that is SIZE_MAX, which gets
 * the number. *numbers is the caller's to free. 0 or -1 as above. */
int learn_get_numbers(const char *path, const char *where, const json_t *object, const char *name, size_t most,
                      double min, double max, double **numbers, size_t *n, minim_error *error);

/* A member as a text that fits. 0 or -1 as above. */
int learn_get_text(const char *path, const char *where, const json_t *object, const char *name, char *text,
                   size_t capacity, minim_error *error);

/* json_object_set_new() that also survives a NULL object or value; 0 or -1. */
int learn_set(json_t *object, const char *name, json_t *value);

/* An array of numbers; NULL when memory is short. */
json_t *learn_numbers(const double *numbers, size_t n);

#endif
