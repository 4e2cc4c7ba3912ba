#!/bin/bash
# `make install` puts everything where a program finds it, and the program that the README shows works with it.
set -u
CC=${CC:-gcc} B=${B:-build}
number=0 code=0
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

check() { # NAME COMMAND...
    number=$((number + 1))
    local name=$1
    shift
    if output=$("$@" 2>&1); then
        echo "ok $number - $name"
    else
        echo "not ok $number - $name"
        echo "$output" | tail -n 20
        code=1
    fi
}

check "make install with DESTDIR" ${MAKE:-make} install B="$B" CC="$CC" SAN="${SAN:-}" DESTDIR="$work/root" PREFIX=/opt/minim
root=$work/root/opt/minim
for file in bin/minim lib/libminim.a lib/libminim_router.a include/minim.h include/minim_router.h include/minim_route_learn.h \
    lib/pkgconfig/minim.pc lib/pkgconfig/minim_router.pc; do
    check "$file is there" test -s "$root/$file"
done
for header in minim_router minim_route_learn; do
    check "the installed $header.h compiles" $CC -std=c11 -fsyntax-only -I"$root/include" -x c "$root/include/$header.h"
done

awk '/^```c$/ { inside = 1; next } /^```$/ { inside = 0 } inside' README.md >"$work/program.c"
flags="-I$root/include -L$root/lib -lminim -lm -pthread"
if command -v pkg-config >/dev/null; then
    export PKG_CONFIG_PATH=$root/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$work/root
    check "pkg-config knows the version" test "minim $(pkg-config --modversion minim)" = "$("$B/minim" --version)"
    flags=$(pkg-config --cflags --libs minim)
else
    echo "# SKIP no pkg-config here: minim.pc was not used"
fi
# shellcheck disable=SC2086
check "the program of the README compiles without warnings" \
    $CC -std=c11 -Wall -Wextra -Wpedantic -Werror ${SAN:+-fsanitize=$SAN} "$work/program.c" $flags -o "$work/program"
"$work/program" models/stories260K.gguf >"$work/story.txt"
check "it tells the story" grep -q "Lily was sad and didn't know what to do\.$" "$work/story.txt"

# A program may use any name that minim uses inside.
printf 'int pool_run, time_now;\n' >"$work/names.c"
if command -v nm >/dev/null; then
    nm -g --defined-only "$B/libinternal.a" |
        awk '$2 ~ /[A-Z]/ && $3 !~ /^(minim_|_)/ && !seen[$3]++ { print "int " $3 ";" }' >>"$work/names.c"
else
    echo "# SKIP all internal names: no nm"
fi
# shellcheck disable=SC2086
check "a program with functions of the same names links with it" \
    $CC -std=c11 ${SAN:+-fsanitize=$SAN} "$work/program.c" "$work/names.c" $flags -o "$work/program"
check "and tells the story, too" sh -c "'$work/program' models/stories260K.gguf | cmp - '$work/story.txt'"
exit $code
