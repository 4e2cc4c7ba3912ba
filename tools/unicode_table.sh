#!/bin/sh
# Makes engine/unicode_table.h, the classes of all Unicode characters, from the UnicodeData.txt of the Unicode Character
# Database (https://www.unicode.org/Public/15.0.0/ucd/UnicodeData.txt; Debian's package unicode-data has it too).
#
# usage: tools/unicode_table.sh UnicodeData.txt > engine/unicode_table.h
#
# Version 15.1 differs from 15.0 by the ideographs and description characters that are added below; with them the table is
# that of 15.1. A newer file works as well, and changes the class of characters that were not assigned before.
set -eu
[ $# = 1 ] || { echo "usage: $0 UnicodeData.txt" >&2; exit 2; }
LC_ALL=C awk -F';' '
    function hex(text,    i, value) {
        value = 0
        for (i = 1; i <= length(text); i++) value = value * 16 + index("0123456789ABCDEF", substr(text, i, 1)) - 1
        return value
    }
    function fill(first, last, class,    c) { for (c = first; c <= last; c++) of[c] = class }
    # The number of this line among all different ones of its kind.
    function number(kind, line) {
        if (!((kind, line) in seen)) {
            seen[kind, line] = count[kind]++
            lines[kind, seen[kind, line]] = line
        }
        return seen[kind, line]
    }
    function print_table(kind, name, columns, largest,    i) {
        printf "static const %s %s[%d]%s = {\n", largest < 256 ? "uint8_t" : "uint16_t", name, count[kind], columns
        for (i = 0; i < count[kind]; i++) printf "    {%s},\n", lines[kind, i]
        print "};"
    }
    BEGIN { # as in engine/unicode.h; what is not named is UNICODE_OTHER, 0
        class["Lu"] = 1; class["Ll"] = 2; class["Lt"] = 3; class["Lm"] = 4; class["Lo"] = 5
        class["Mn"] = class["Mc"] = class["Me"] = 6
        class["Nd"] = class["Nl"] = class["No"] = 7
        class["Pc"] = class["Pd"] = class["Ps"] = class["Pe"] = class["Pi"] = class["Pf"] = class["Po"] = 8
        class["Sm"] = class["Sc"] = class["Sk"] = class["So"] = 9
        class["Zs"] = class["Zl"] = class["Zp"] = 10
        fill(hex("2FFC"), hex("2FFF"), 9); fill(hex("31EF"), hex("31EF"), 9); fill(hex("2EBF0"), hex("2EE5D"), 5)
    }
    $2 ~ /First>$/ { first = hex($1); next }
    $2 ~ /Last>$/ { fill(first, hex($1), class[$3]); next }
    { of[hex($1)] = class[$3] }
    END {
        fill(9, 13, 10); fill(hex("85"), hex("85"), 10) # the controls that are white space
        for (group = 0; group < 272; group++) {
            group_line = ""
            for (page = 0; page < 32; page++) {
                at = (group * 32 + page) * 128
                page_line = ""
                for (c = at; c < at + 128; c += 2) page_line = page_line (c > at ? "," : "") of[c] + 16 * of[c + 1]
                group_line = group_line (page ? "," : "") number("page", page_line)
            }
            plane = plane (group ? "," : "") (group % 16 ? "" : "\n    ") number("group", group_line)
        }
        print "/* unicode_table.h: made by tools/unicode_table.sh from UnicodeData.txt, see unicode.c; do not edit. */"
        print "#ifndef ENGINE_UNICODE_TABLE_H\n#define ENGINE_UNICODE_TABLE_H\n"
        print "#include <stdint.h>\n"
        print "/* clang-format off */"
        print "/* Of 4096 characters each: their row in unicode_group. */"
        print "static const uint8_t unicode_plane[272] = {" plane "\n};"
        print "/* Of 128 characters each: their row in unicode_page. */"
        print_table("group", "unicode_group", "[32]", count["page"] - 1)
        print "/* Two characters a byte, the first one in the low half. */"
        print_table("page", "unicode_page", "[64]", 255)
        print "/* ASCII again, as bits: 1 << class. */"
        printf "const uint16_t unicode_ascii[128] = {"
        for (c = 0; c < 128; c++) printf "%s%d", c ? (c % 16 ? ", " : ",\n    ") : "\n    ", 2 ^ of[c]
        print "};"
        print "/* clang-format on */\n"
        print "#endif"
    }' "$1"
