/* json.h: the little JSON that the tools need without a library: writing values, reading one string. RFC 8259. */
#ifndef TOOLS_JSON_H
#define TOOLS_JSON_H

#include <stddef.h>
#include <stdio.h>

/* A quoted string. Bytes that are no valid UTF-8 become U+FFFD, because JSON has no other way to hold them. */
void json_write_string(FILE *file, const char *text, size_t n);

/* "name": with the quotes and the colon. name is a plain word. A comma comes first unless *first, which is cleared. */
void json_write_name(FILE *file, const char *name, int *first);

/* A number; null when it is infinite or not a number. digits: significant ones; 9 give a float32 back exactly. */
void json_write_number(FILE *file, double number, int digits);

/* Decodes one JSON string, alone on its line but for white space, in place: line[0..n) becomes the *length bytes of the
 * text. Strict about quotes, escapes, control characters and surrogate pairs, but bytes >= 0x80 pass unchecked: a text
 * of invalid UTF-8 is something that one wants to tokenise. Returns NULL, or what is wrong. */
const char *json_read_string(char *line, size_t n, size_t *length);

#endif
