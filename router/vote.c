/* vote.c: see vote.h. */
#include "vote.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

minim_status vote_compile(const char *pattern, regex_t *compiled, minim_error *error) {
    char why[128];
    int code = regcomp(compiled, pattern, REG_EXTENDED | REG_NEWLINE);
    if (!code) return MINIM_OK;
    regerror(code, compiled, why, sizeof why);
    return router_fail(error, MINIM_ERR_ARGUMENT, "self_consistency.pattern: \"%.80s\": %s", pattern, why);
}

/* The last place that the pattern finds; an answer comes behind its reasons. */
static void vote_extract(const regex_t *pattern, const char **text, size_t *n) {
    regmatch_t match[2];
    const char *at = *text;
    int begun = 0;
    *n = 0;
    for (; !regexec(pattern, at, 2, match, begun ? REG_NOTBOL : 0); begun = 1) {
        const regmatch_t *m = pattern->re_nsub && match[1].rm_so >= 0 ? &match[1] : &match[0];
        const char *found = at + m->rm_so;
        size_t length = (size_t)(m->rm_eo - m->rm_so);
        const char *next = at + (match[0].rm_eo > 0 ? match[0].rm_eo : 1);
        int is_last = !*at || !*next;
        *text = found;
        *n = length;
        if (is_last) return;
        at = next;
    }
}

static int vote_is_edge(char c) {
    return strchr(" \t\r\n\"'`*.!?,;:", c) != NULL;
}

char *vote_normalise(const char *text, const regex_t *pattern) {
    size_t n = strlen(text), m = 0;
    if (pattern) vote_extract(pattern, &text, &n);
    while (n && vote_is_edge(text[0])) text++, n--;
    while (n && vote_is_edge(text[n - 1])) n--;
    char *clean = malloc(n + 1);
    if (!clean) return NULL;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        int in_number = i && i + 1 < n && isdigit((unsigned char)text[i - 1]) && isdigit((unsigned char)text[i + 1]);
        if (c == ',' && in_number) continue;
        if (strchr(" \t\r\n", (char)c))
            c = ' ';
        else if (c >= 'A' && c <= 'Z')
            c = (unsigned char)(c - 'A' + 'a');
        if (c == ' ' && m && clean[m - 1] == ' ') continue;
        clean[m++] = (char)c;
    }
    clean[m] = 0;
    return clean;
}

size_t vote_count(char *const *answers, size_t n, double *agreement) {
    size_t best = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        size_t same = 0;
        for (size_t k = 0; k < n && answers[i][0]; k++) same += !strcmp(answers[i], answers[k]);
        if (same > most) {
            most = same;
            best = i;
        }
    }
    *agreement = n ? (double)most / (double)n : 0;
    return best;
}
