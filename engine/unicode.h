/* unicode.h: what kind of character something is, as the splitting of text before byte-level BPE asks it: \p{L}, \p{N},
 * \p{P}, \p{S}, \p{M} and \s of regular expressions (Unicode 15.1, general categories; Unicode Standard Annex 44). */
#ifndef ENGINE_UNICODE_H
#define ENGINE_UNICODE_H

#include "base.h"

/* tools/unicode_table.sh has the same numbers. */
enum unicode_class {
    UNICODE_OTHER,           /* controls, formats, private and unassigned ones */
    UNICODE_UPPER,           /* Lu */
    UNICODE_LOWER,           /* Ll */
    UNICODE_TITLE,           /* Lt */
    UNICODE_MODIFIER_LETTER, /* Lm */
    UNICODE_OTHER_LETTER,    /* Lo: scripts without case, ideographs */
    UNICODE_MARK,            /* Mn Mc Me */
    UNICODE_NUMBER,          /* Nd Nl No */
    UNICODE_PUNCTUATION,     /* P. */
    UNICODE_SYMBOL,          /* S. */
    UNICODE_SPACE            /* white space: Zs Zl Zp, U+0009..000D, U+0085 */
};

/* Sets of classes are numbers with bit 1 << class. */
#define UNICODE_BIT(class) (1u << (class))
#define UNICODE_LETTERS                                                                                                \
    (UNICODE_BIT(UNICODE_UPPER) | UNICODE_BIT(UNICODE_LOWER) | UNICODE_BIT(UNICODE_TITLE) |                            \
     UNICODE_BIT(UNICODE_MODIFIER_LETTER) | UNICODE_BIT(UNICODE_OTHER_LETTER))
#define UNICODE_ALL (UNICODE_BIT(UNICODE_SPACE + 1) - 1)

/* 1 << class of code points below 128. */
extern const uint16_t unicode_ascii[128];

enum unicode_class unicode_class_of(uint32_t code);
/* The code point at s[n], n > 0; *length gets its bytes. What is not UTF-8 is U+FFFD, byte by byte. */
uint32_t unicode_decode(const char *s, size_t n, size_t *length);

/* 1 << class of the character at s[i], 0 when i >= n; *length gets its bytes. */
static inline unsigned unicode_bit_at(const char *s, size_t n, size_t i, size_t *length) {
    *length = 1;
    if (i >= n) return 0;
    if ((unsigned char)s[i] < 128) return unicode_ascii[(unsigned char)s[i]];
    return UNICODE_BIT(unicode_class_of(unicode_decode(s + i, n - i, length)));
}

#endif
