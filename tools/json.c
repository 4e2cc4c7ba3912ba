/* json.c: see json.h. */
#include "json.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* Length of the valid UTF-8 character that starts at s (1..4), or 0. Overlong forms, surrogates and what lies above
 * U+10FFFF are not valid (Unicode 15, table 3-7). */
static size_t json_utf8_length(const unsigned char *s, size_t n) {
    if (s[0] < 0x80) return 1;
    size_t length = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    if (s[0] < 0xC2 || s[0] > 0xF4 || length > n) return 0;
    unsigned char low = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80;
    unsigned char high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF;
    if (s[1] < low || s[1] > high) return 0;
    for (size_t i = 2; i < length; i++) {
        if (s[i] < 0x80 || s[i] > 0xBF) return 0;
    }
    return length;
}

static void json_write_escape(FILE *file, unsigned char c) {
    switch (c) {
    case '"': fputs("\\\"", file); break;
    case '\\': fputs("\\\\", file); break;
    case '\n': fputs("\\n", file); break;
    case '\r': fputs("\\r", file); break;
    case '\t': fputs("\\t", file); break;
    default: fprintf(file, "\\u%04x", c); break;
    }
}

void json_write_string(FILE *file, const char *text, size_t n) {
    const unsigned char *s = (const unsigned char *)text;
    putc('"', file);
    for (size_t i = 0; i < n;) {
        size_t length = json_utf8_length(s + i, n - i);
        if (length == 0) {
            fputs("\xEF\xBF\xBD", file);
            length = 1;
        } else if (s[i] < 0x20 || s[i] == '"' || s[i] == '\\' || s[i] == 0x7F) {
            json_write_escape(file, s[i]);
        } else if (s[i] == 0xC2 && s[i + 1] < 0xA0) { /* U+0080..U+009F, to which some terminals listen */
            json_write_escape(file, s[i + 1]);
        } else {
            fwrite(s + i, 1, length, file);
        }
        i += length;
    }
    putc('"', file);
}

void json_write_name(FILE *file, const char *name, int *first) {
    fprintf(file, "%s\"%s\": ", *first ? "" : ", ", name);
    *first = 0;
}

void json_write_number(FILE *file, double number, int digits) {
    if (isfinite(number))
        fprintf(file, "%.*g", digits, number);
    else
        fputs("null", file);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* The four hexadecimal digits of a \u escape; -1 if they are not. */
static int json_read_hex4(const unsigned char *s, const unsigned char *end) {
    int value = 0;
    if (end - s < 4) return -1;
    for (int i = 0; i < 4; i++) {
        const char *digits = "0123456789abcdef0123456789ABCDEF";
        const char *found = s[i] ? strchr(digits, s[i]) : NULL;
        if (!found) return -1;
        value = value * 16 + (int)((found - digits) % 16);
    }
    return value;
}

static size_t json_put_utf8(unsigned char *out, uint32_t c) {
    if (c < 0x80) {
        out[0] = (unsigned char)c;
        return 1;
    }
    size_t length = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = length - 1; i > 0; i--, c >>= 6) out[i] = (unsigned char)(0x80 | (c & 0x3F));
    out[0] = (unsigned char)(lead[length] | c);
    return length;
}

/* *s stands behind the "\u"; a high surrogate takes its low one with it. */
static const char *json_read_unicode(const unsigned char **s, const unsigned char *end, uint32_t *c) {
    int high = json_read_hex4(*s, end);
    if (high < 0) return "\\u needs four hexadecimal digits";
    *s += 4;
    *c = (uint32_t)high;
    if (high < 0xD800 || high > 0xDFFF) return NULL;
    int low = high < 0xDC00 && end - *s >= 6 && (*s)[0] == '\\' && (*s)[1] == 'u' ? json_read_hex4(*s + 2, end) : -1;
    if (low < 0xDC00 || low > 0xDFFF) return "a surrogate without its other half";
    *s += 6;
    *c = 0x10000 + (((uint32_t)high - 0xD800) << 10) + ((uint32_t)low - 0xDC00);
    return NULL;
}

/* One escape; *s stands behind the backslash. What is written is never longer than what was read. */
static const char *json_read_escape(const unsigned char **s, const unsigned char *end, unsigned char **out) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    if (*s == end) return "a backslash at the end";
    unsigned char name = *(*s)++;
    if (name == 'u') {
        uint32_t c;
        const char *wrong = json_read_unicode(s, end, &c);
        if (!wrong) *out += json_put_utf8(*out, c);
        return wrong;
    }
    const char *found = name ? strchr(names, name) : NULL;
    if (!found) return "an escape that JSON does not have";
    *(*out)++ = (unsigned char)values[found - names];
    return NULL;
}

static int json_is_space(unsigned char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

const char *json_read_string(char *line, size_t n, size_t *length) {
    const unsigned char *s = (const unsigned char *)line, *end = s + n;
    unsigned char *out = (unsigned char *)line;
    while (s < end && json_is_space(*s)) s++;
    while (s < end && json_is_space(end[-1])) end--;
    if (s == end || *s != '"') return "it does not start with a quote";
    s++;
    while (s < end && *s != '"') {
        if (*s < 0x20) return "a control character that is not escaped";
        if (*s != '\\') {
            *out++ = *s++;
            continue;
        }
        s++;
        const char *wrong = json_read_escape(&s, end, &out);
        if (wrong) return wrong;
    }
    if (s == end) return "the closing quote is missing";
    if (s + 1 != end) return "something follows the closing quote";
    *length = (size_t)(out - (unsigned char *)line);
    return NULL;
}
