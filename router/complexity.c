/* complexity.c: how much a request asks for, from its text alone. */
#include <ctype.h>
#include <math.h>
#include <string.h>
#include <strings.h>

#include "minim_router.h"

/* What is counted in a text. */
typedef struct complexity_counts {
    double words, numbers, operators, questions, demands, code, sentences;
} complexity_counts;

/* Words that ask for more than recall, by their first letter; each ends with a space. */
static const char *const complexity_demands[26] = {
    ['a' - 'a'] = "analyze analyse algorithm argue ",
    ['c' - 'a'] = "compare contrast complexity critique calculate compute ",
    ['d' - 'a'] = "derive debug design ",
    ['e' - 'a'] = "evaluate explain equation estimate essay ",
    ['f' - 'a'] = "function ",
    ['i' - 'a'] = "implement integral ",
    ['o' - 'a'] = "optimize optimise ",
    ['p' - 'a'] = "prove probability plan ",
    ['r' - 'a'] = "refactor ",
    ['s' - 'a'] = "step steps strategy summarize summarise solve ",
    ['t' - 'a'] = "theorem translate ",
    ['w' - 'a'] = "why ",
};

static int complexity_is_demand(const char *word, size_t n) {
    unsigned first = (unsigned)(word[0] | 32) - 'a';
    const char *at = n > 2 && n < 12 && first < 26 ? complexity_demands[first] : NULL;
    for (; at && *at; at = strchr(at, ' ') + 1) {
        if (!strncasecmp(word, at, n) && at[n] == ' ') return 1;
    }
    return 0;
}

static int complexity_is_letter(unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0x80;
}

static void complexity_count(const char *text, complexity_counts *c) {
    for (size_t i = 0; text[i];) {
        unsigned char here = (unsigned char)text[i];
        size_t n = 0;
        if (complexity_is_letter(here)) {
            while (complexity_is_letter((unsigned char)text[i + n])) n++;
            c->words++;
            c->demands += complexity_is_demand(text + i, n);
        } else if (isdigit(here)) {
            while (isdigit((unsigned char)text[i + n]) || text[i + n] == '.') n++;
            c->numbers++;
        } else {
            n = 1;
            c->questions += here == '?';
            c->sentences += here == '.' || here == '!' || here == ';';
            if (here != ' ') c->operators += strchr("+*/=<>^%", here) != NULL;
            if (here != ' ') c->code += strchr("{}[]`\\|_#", here) != NULL;
        }
        i += n;
    }
}

/* From 0 to 1, half way at `half`. */
static double complexity_share(double value, double half) {
    return value / (value + half);
}

double minim_route_complexity(const minim_message *messages, size_t n_messages) {
    complexity_counts c = {0};
    for (size_t i = 0; messages && i < n_messages; i++) {
        int counts = messages[i].content && messages[i].role && strcmp(messages[i].role, "assistant") != 0;
        if (counts) complexity_count(messages[i].content, &c);
    }
    /* Any one of them alone can make a request hard: 1 - product of what each leaves. */
    double easy = 1;
    easy *= 1 - 0.6 * complexity_share(c.words, 150);
    easy *= 1 - 0.6 * complexity_share(c.demands, 1.5);
    easy *= 1 - 0.5 * complexity_share(c.code, 12);
    easy *= 1 - 0.5 * complexity_share(c.numbers + c.operators, 8);
    easy *= 1 - 0.3 * complexity_share(c.questions > 1 ? c.questions - 1 : 0, 2);
    easy *= 1 - 0.3 * complexity_share(c.sentences, 8);
    return 1 - easy;
}
