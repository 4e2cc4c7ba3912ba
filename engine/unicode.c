/* unicode.c: see unicode.h. The classes of all 17 * 65536 code points take 17 KB: equal pages are stored once. */
#include "unicode.h"
#include "unicode_table.h"

enum unicode_class unicode_class_of(uint32_t code) {
    if (code > 0x10ffff) return UNICODE_OTHER;
    const unsigned page = unicode_group[unicode_plane[code >> 12]][code >> 7 & 31];
    return (enum unicode_class)(unicode_page[page][(code & 127) / 2] >> 4 * (code & 1) & 15);
}

uint32_t unicode_decode(const char *s, size_t n, size_t *length) {
    const unsigned char *c = (const unsigned char *)s;
    *length = utf8_length(s, n);
    switch (*length) {
    case 1: return c[0];
    case 2: return (uint32_t)(c[0] & 31) << 6 | (c[1] & 63);
    case 3: return (uint32_t)(c[0] & 15) << 12 | (uint32_t)(c[1] & 63) << 6 | (c[2] & 63);
    case 4: return (uint32_t)(c[0] & 7) << 18 | (uint32_t)(c[1] & 63) << 12 | (uint32_t)(c[2] & 63) << 6 | (c[3] & 63);
    default: *length = 1; return 0xfffd;
    }
}
