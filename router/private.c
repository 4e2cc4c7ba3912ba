/* private.c: see private.h and minim_private_find(). Every detector reads a cleaned copy once, left to right; where a
 * check digit exists it is checked. They would rather be wrong than late: a false alarm costs a better answer, a miss
 * cannot be taken back. */
#include "private.h"

#include <ctype.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { PRIVATE_MAX_PATTERNS = 256 };

struct private_rules {
    unsigned detect;
    size_t n_patterns;
    regex_t patterns[PRIVATE_MAX_PATTERNS];
};

/* ---- the cleaned copy ------------------------------------------------------------------------------------------- */

static unsigned private_code_point(const char *text, size_t length) {
    const unsigned char *s = (const unsigned char *)text;
    if (length == 2) return (s[0] & 0x1fu) << 6 | (s[1] & 0x3fu);
    if (length == 3) return (s[0] & 0x0fu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
    return 0x10000; /* nothing up there is looked for */
}

/* What a character stands for: an ASCII character, 0 for nothing, -1 for itself. */
static int private_plain(unsigned c) {
    if (c >= 0xff01 && c <= 0xff5e) return (int)(c - 0xff01 + '!');                                /* full width */
    if ((c >= 0x660 && c <= 0x669) || (c >= 0x6f0 && c <= 0x6f9)) return '0' + (int)(c & 15) % 10; /* Arabic digits */
    if (c >= 0x966 && c <= 0x96f) return '0' + (int)(c - 0x966); /* Devanagari digits */
    if (c == 0xa0 || (c >= 0x2000 && c <= 0x200a) || c == 0x202f || c == 0x205f || c == 0x3000) return ' ';
    if ((c >= 0x2010 && c <= 0x2015) || c == 0x2212 || c == 0xfe63) return '-';
    if (c == 0xad || (c >= 0x200b && c <= 0x200f) || (c >= 0x2060 && c <= 0x2064) || c == 0xfeff) return 0;
    return -1;
}

/* NUL-terminated, to be freed; NULL when memory is out. Never longer than the text. */
static char *private_clean(const char *text, size_t n) {
    char *clean = malloc(n + 1);
    size_t length, out = 0;
    for (size_t i = 0; clean && i < n; i += length) {
        if ((unsigned char)(text[i] - 1) < 0x7f) { /* ASCII stands for itself */
            clean[out++] = text[i];
            length = 1;
            continue;
        }
        length = router_utf8_length(text + i, n - i);
        if (!length) length = 1;
        int plain = length == 2 || length == 3 ? private_plain(private_code_point(text + i, length)) : -1;
        if (!text[i]) plain = ' ';
        if (plain > 0) clean[out++] = (char)plain;
        if (plain >= 0) continue;
        memcpy(clean + out, text + i, length);
        out += length;
    }
    if (clean) clean[out] = 0;
    return clean;
}

/* ---- characters ------------------------------------------------------------------------------------------------- */

static int private_is_digit(char c) {
    return c >= '0' && c <= '9';
}
static int private_is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
static int private_is_word(char c) {
    return private_is_digit(c) || private_is_letter(c) || c == '_' || (c & 0x80);
}

/* Is text[i] the first character of a word? */
static int private_starts(const char *text, size_t i) {
    return !i || !private_is_word(text[i - 1]);
}

/* ---- e-mail ----------------------------------------------------------------------------------------------------- */

static int private_has_email(const char *text) {
    for (const char *at = text; (at = strchr(at, '@')); at++) {
        const char *domain = at + 1, *dot = NULL, *end = domain;
        if (at == text || !(private_is_word(at[-1]) || strchr(".+-%\"", at[-1]))) continue;
        for (; private_is_word(*end) || *end == '-' || *end == '.'; end++) {
            if (*end == '.' && end > domain && (private_is_letter(end[1]) || (end[1] & 0x80))) dot = end;
        }
        if (dot && end - dot > 2) return 1; /* a dot and two letters at least */
        if (*domain == '[' && private_is_digit(domain[1])) return 1;
    }
    return 0;
}

/* ---- digits in groups ------------------------------------------------------------------------------------------- */

static int private_luhn(const char *digits, int n) {
    int sum = 0, any = 0;
    for (int i = 0; i < n; i++) {
        int d = digits[n - 1 - i] - '0';
        any |= d;
        if (i % 2) d = d > 4 ? 2 * d - 9 : 2 * d;
        sum += d;
    }
    return any && sum % 10 == 0;
}

/* A card's digits may stand in groups, and others may follow: every end of a group is tried. */
static int private_has_card(const char *text) {
    for (size_t i = 0; text[i]; i++) {
        char digits[19];
        int n = 0;
        if (!private_is_digit(text[i]) || (i && private_is_digit(text[i - 1]))) continue;
        for (size_t j = i; n < 19; j++) {
            if (!private_is_digit(text[j])) {
                if (!text[j] || !strchr(" -./\t\n", text[j]) || !private_is_digit(text[j + 1])) break;
                continue;
            }
            digits[n++] = text[j];
            if (n >= 13 && !private_is_digit(text[j + 1]) && private_luhn(digits, n)) return 1;
        }
    }
    return 0;
}

/* Groups of digits with separators in between, maybe a group in brackets. */
typedef struct private_number {
    int digits, groups, plus, brackets;
    int zero;       /* begins with a 0 that is not the whole first group */
    int shortest;   /* group, in digits */
    int group[8];   /* lengths of the first groups */
    char separator; /* the last one */
} private_number;

/* Returns the bytes it takes. */
static size_t private_read_number(const char *text, private_number *number) {
    size_t end = 0;
    int length = 0, bracket = 0;
    char separator = 0;
    memset(number, 0, sizeof *number);
    number->plus = text[0] == '+';
    for (size_t i = text[0] == '+'; text[i]; i++) {
        if (private_is_digit(text[i])) {
            if (!length) number->groups++;
            if (++length == 2 && number->groups == 1) number->zero = text[i - 1] == '0';
            number->digits++;
            number->brackets |= bracket;
            number->separator = separator;
            if (number->groups <= 8) number->group[number->groups - 1] = length;
            end = i + 1;
        } else if (strchr(" -./()", text[i]) && i + 1 - end <= 3) { /* ") " and " (" between two groups */
            if (text[i] == '(' || text[i] == ')') bracket = 1;
            separator = text[i];
            length = 0;
        } else {
            break;
        }
    }
    number->shortest = 99;
    for (int i = 0; i < number->groups && i < 8; i++) {
        if (number->group[i] < number->shortest) number->shortest = number->group[i];
    }
    return end;
}

/* 2026-11-21, 21.11.2026, 1.000.000 */
static int private_is_date_or_sum(const private_number *n) {
    const int *g = n->group;
    if (n->plus || n->brackets) return 0;
    if (n->groups == 3 && strchr("-./", n->separator)) {
        if (g[0] == 4 && g[1] <= 2 && g[2] <= 2) return 1;
        if (g[0] <= 2 && g[1] <= 2 && g[2] == 4) return 1;
    }
    if (n->separator != '.' || g[0] > 3 || n->zero) return 0;
    for (int i = 1; i < n->groups && i < 8; i++) {
        if (g[i] != 3) return 0;
    }
    return n->groups > 1;
}

static int private_is_phone(const private_number *n) {
    if (private_is_date_or_sum(n) || n->digits > 15) return 0;
    if (n->plus || n->brackets) return n->digits >= 7;
    if (n->zero) return n->digits >= 7 && (n->groups > 1 || n->digits >= 8);
    if (n->groups == 1) return n->digits == 10 || n->digits == 11;
    if (n->separator == '-') return n->groups > 2 ? n->digits >= 7 && n->shortest >= 2 : n->digits == 7;
    return n->groups > 2 && n->digits >= 9 && n->shortest >= 3;
}

static int private_has_phone(const char *text) {
    for (size_t i = 0; text[i];) {
        private_number n;
        int begins = private_is_digit(text[i]) || (text[i] == '+' && private_is_digit(text[i + 1]));
        if (begins && !(i && (private_is_word(text[i - 1]) || text[i - 1] == '.'))) {
            size_t end = private_read_number(text + i, &n);
            if (private_is_phone(&n)) return 1;
            i += end;
        } else {
            i++;
        }
    }
    return 0;
}

/* ---- IBAN ------------------------------------------------------------------------------------------------------- */

/* ISO 7064 mod 97-10 over the account number, then country and check digits. */
static int private_iban_is_valid(const char *iban, int n) {
    int rest = 0;
    for (int i = 4; i < n + 4; i++) {
        char c = (char)toupper((unsigned char)iban[i % n]);
        rest = private_is_digit(c) ? (rest * 10 + (c - '0')) % 97 : (rest * 100 + (c - 'A' + 10)) % 97;
    }
    return rest == 1;
}

static int private_has_iban(const char *text) {
    for (size_t i = 0; text[i]; i++) {
        char iban[34];
        int n = 0;
        if (!private_is_letter(text[i]) || !private_starts(text, i) || !private_is_letter(text[i + 1])) continue;
        if (private_is_letter(text[i + 2])) continue; /* most words end here */
        for (size_t j = i; n < 34; j++) {
            if ((text[j] == ' ' || text[j] == '-') && n >= 2) continue;
            if (!private_is_digit(text[j]) && !private_is_letter(text[j])) break;
            if ((n == 2 || n == 3) && !private_is_digit(text[j])) break;
            iban[n++] = text[j];
            if (n >= 15 && private_iban_is_valid(iban, n) && !(private_is_word(text[j + 1]))) return 1;
        }
    }
    return 0;
}

/* ---- keys ------------------------------------------------------------------------------------------------------- */

static size_t private_token_length(const char *text) {
    size_t n = 0;
    while (private_is_letter(text[n]) || private_is_digit(text[n]) || text[n] == '_' || text[n] == '-') n++;
    return n;
}

/* Long, of capital and small letters and digits in one word: nobody writes so. */
static int private_is_random(const char *text, size_t n) {
    int upper = 0, lower = 0, digit = 0;
    if (n < 32) return 0;
    for (size_t i = 0; i < n; i++) {
        upper += text[i] >= 'A' && text[i] <= 'Z';
        lower += text[i] >= 'a' && text[i] <= 'z';
        digit += private_is_digit(text[i]);
    }
    return upper >= 3 && lower >= 3 && digit >= 2;
}

/* "password: hunter22", "API_KEY=...", "secret is ..." */
static int private_names_secret(const char *text) {
    static const char *const names[] = {"password",   "passwd",      "passphrase",   "passwort",  "pwd",
                                        "secret",     "api_key",     "api-key",      "apikey",    "api key",
                                        "token",      "access_key",  "access-key",   "accesskey", "account_key",
                                        "accountkey", "private_key", "client_secret"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if ((text[0] | 32) != names[i][0] || (text[1] | 32) != names[i][1]) continue; /* most words end here */
        size_t n = strlen(names[i]);
        if (strncasecmp(text, names[i], n)) continue;
        const char *p = text + n;
        while (*p == '"' || *p == '\'' || *p == ' ' || *p == '*' || *p == '`') p++;
        int has_sign = *p == ':' || *p == '=';
        if (has_sign)
            p++;
        else if (!strncasecmp(p, "is ", 3))
            p += 3;
        else
            continue;
        while (*p == '"' || *p == '\'' || *p == ' ' || *p == '>' || *p == '=' || *p == '`') p++;
        size_t length = strcspn(p, " \t\r\n\"',;`"), digits = 0;
        for (size_t k = 0; k < length; k++) digits += (size_t)private_is_digit(p[k]);
        if (length >= 6 && (has_sign || digits)) return 1; /* "the secret is patience" is none */
    }
    return 0;
}

static int private_has_key(const char *text) {
    static const struct {
        const char *prefix;
        size_t least; /* characters behind it */
    } tokens[] = {{"sk-", 16},     {"sk_live_", 8}, {"sk_test_", 8},     {"rk_live_", 8},
                  {"pk_live_", 8}, {"ghp_", 20},    {"gho_", 20},        {"ghu_", 20},
                  {"ghs_", 20},    {"ghr_", 20},    {"github_pat_", 20}, {"glpat-", 16},
                  {"xoxb-", 10},   {"xoxp-", 10},   {"xoxa-", 10},       {"AKIA", 16},
                  {"ASIA", 16},    {"AIza", 30},    {"hf_", 20},         {"npm_", 20},
                  {"pypi-", 20},   {"dop_v1_", 20}, {"shpat_", 16},      {"SG.", 16},
                  {"gsk_", 20},    {"xai-", 20},    {"r8_", 20},         {"AGE-SECRET-KEY-", 20},
                  {"eyJ", 20}};
    if (strstr(text, "PRIVATE KEY-----")) return 1;
    for (size_t i = 0; text[i]; i++) {
        if (!private_is_word(text[i]) || !private_starts(text, i)) continue;
        size_t n = private_token_length(text + i);
        int is_long = n >= 15 || text[i + n] == '.'; /* the shortest is "xoxb-" and 10; one has a full stop in it */
        for (size_t k = 0; is_long && k < sizeof tokens / sizeof *tokens; k++) {
            if (text[i] != tokens[k].prefix[0]) continue;
            size_t m = strlen(tokens[k].prefix);
            if (!strncmp(text + i, tokens[k].prefix, m) && private_token_length(text + i + m) >= tokens[k].least)
                return 1;
        }
        if (private_is_random(text + i, n)) return 1;
        if ((text[i] | 32) == 'b' && !strncasecmp(text + i, "bearer ", 7) && private_token_length(text + i + 7) >= 16)
            return 1;
        /* "MY_API_KEY=": a name may end with the word */
        for (size_t j = 0; j < n; j++) {
            if ((!j || text[i + j - 1] == '_' || text[i + j - 1] == '-') && private_names_secret(text + i + j))
                return 1;
        }
        i += n ? n - 1 : 0;
    }
    return 0;
}

/* ---- a text, a request ------------------------------------------------------------------------------------------ */

static unsigned private_find_clean(const char *clean, unsigned wanted) {
    unsigned found = 0;
    if ((wanted & MINIM_PRIVATE_EMAIL) && private_has_email(clean)) found |= MINIM_PRIVATE_EMAIL;
    if ((wanted & MINIM_PRIVATE_PHONE) && private_has_phone(clean)) found |= MINIM_PRIVATE_PHONE;
    if ((wanted & MINIM_PRIVATE_CARD) && private_has_card(clean)) found |= MINIM_PRIVATE_CARD;
    if ((wanted & MINIM_PRIVATE_IBAN) && private_has_iban(clean)) found |= MINIM_PRIVATE_IBAN;
    if ((wanted & MINIM_PRIVATE_KEY) && private_has_key(clean)) found |= MINIM_PRIVATE_KEY;
    return found;
}

unsigned minim_private_find(const char *text, size_t n_bytes, unsigned wanted) {
    char *clean = text ? private_clean(text, n_bytes) : NULL;
    if (text && !clean) return wanted;
    unsigned found = clean ? private_find_clean(clean, wanted) : 0;
    free(clean);
    return found;
}

minim_status private_rules_new(const minim_router_config *config, private_rules **out, minim_error *error) {
    private_rules *rules = calloc(1, sizeof *rules);
    char pattern[sizeof config->private_patterns], why[128];
    if (!rules) return router_fail_memory(error, "the privacy rules");
    rules->detect = config->private_detect & MINIM_PRIVATE_ALL;
    for (const char *line = config->private_patterns; *line;) {
        size_t n = strcspn(line, "\n");
        memcpy(pattern, line, n);
        pattern[n] = 0;
        line += n + (line[n] == '\n');
        if (!n) continue;
        int code = rules->n_patterns < PRIVATE_MAX_PATTERNS
                       ? regcomp(&rules->patterns[rules->n_patterns], pattern, REG_EXTENDED | REG_NOSUB)
                       : REG_ESPACE;
        if (code) {
            regerror(code, NULL, why, sizeof why);
            private_rules_free(rules);
            return router_fail(error, MINIM_ERR_ARGUMENT, "privacy.patterns: \"%.80s\": %s", pattern, why);
        }
        rules->n_patterns++;
    }
    *out = rules;
    return MINIM_OK;
}

void private_rules_free(private_rules *rules) {
    if (!rules) return;
    for (size_t i = 0; i < rules->n_patterns; i++) regfree(&rules->patterns[i]);
    free(rules);
}

unsigned private_text(const private_rules *rules, const char *text) {
    char *clean = private_clean(text, strlen(text));
    if (!clean) return MINIM_PRIVATE_ALL | MINIM_PRIVATE_PATTERN;
    unsigned found = private_find_clean(clean, rules->detect);
    for (size_t i = 0; i < rules->n_patterns; i++) {
        /* Whatever is not a clear no (memory) counts as a yes. */
        if (regexec(&rules->patterns[i], text, 0, NULL, 0) != REG_NOMATCH ||
            regexec(&rules->patterns[i], clean, 0, NULL, 0) != REG_NOMATCH) {
            found |= MINIM_PRIVATE_PATTERN;
        }
    }
    free(clean);
    return found;
}

unsigned private_request(const private_rules *rules, const minim_router_request *request) {
    unsigned found = request->is_private ? MINIM_PRIVATE_REQUEST : 0;
    for (size_t i = 0; i < request->n_messages; i++) {
        found |= private_text(rules, request->messages[i].role);
        found |= private_text(rules, request->messages[i].content);
    }
    for (size_t i = 0; i < request->n_stop; i++) found |= private_text(rules, request->stop[i]);
    if (request->prefix) found |= private_text(rules, request->prefix);
    return found;
}
