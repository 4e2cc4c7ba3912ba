#!/bin/bash
# The public headers compile alone, as C11 and as C++17, without warnings.
set -u
CC=${CC:-gcc} number=0 code=0

check() { # NAME COMMAND...
    number=$((number + 1))
    local name=$1
    shift
    if output=$("$@" 2>&1) && [ -z "$output" ]; then
        echo "ok $number - $name"
    else
        echo "not ok $number - $name"
        echo "$output"
        code=1
    fi
}

strict=(-Wall -Wextra -Wpedantic -Werror -Wconversion -fsyntax-only)
for header in engine/minim.h router/minim_router.h router/minim_route_learn.h; do
    if [ ! -e $header ]; then
        echo "# SKIP $header is not there"
        continue
    fi
    check "$header compiles alone as C11" $CC -std=c11 -Wstrict-prototypes "${strict[@]}" -x c $header
    if $CC -fsyntax-only -x c++ /dev/null 2>/dev/null; then
        check "$header compiles alone as C++17" $CC -std=c++17 "${strict[@]}" -x c++ $header
    else
        echo "# SKIP no C++ compiler here (g++): $header was not compiled as C++17"
    fi
done
exit $code
