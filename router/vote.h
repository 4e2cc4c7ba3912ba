/* vote.h: which of several answers to one prompt most of them agree on (self-consistency, Wang et al. 2022). */
#ifndef ROUTER_VOTE_H
#define ROUTER_VOTE_H

#include <regex.h>

#include "support.h"

/* What of a text has to agree, to be freed: the last match of the pattern (its first group, if it has one), or all of
 * it where there is no pattern; in small letters, white space as one space, without commas between digits, and without
 * white space, quotation marks and full stops around it. "" when the pattern does not match or nothing is left; NULL
 * when memory is out. */
char *vote_normalise(const char *text, const regex_t *pattern);

/* Which of n answers, as vote_normalise() made them, is the most common; of equal ones the first. *agreement is its
 * share of all; answers of "" agree with nobody, and where all are "" it is 0. */
size_t vote_count(char *const *answers, size_t n, double *agreement);

/* Compiles a pattern. MINIM_ERR_ARGUMENT when it is no regular expression. */
minim_status vote_compile(const char *pattern, regex_t *compiled, minim_error *error);

#endif
