#!/bin/bash
# The engine as two files compiles without any flag but -std, links with a small program, and tells the same story as the
# minim program.
set -u
CC=${CC:-gcc} B=${B:-build} LIBS=${LIBS:--lm -pthread}
number=0 code=0
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

check() { # NAME COMMAND...; no output allowed
    number=$((number + 1))
    local name=$1
    shift
    if output=$("$@" 2>&1) && [ -z "$output" ]; then
        echo "ok $number - $name"
    else
        echo "not ok $number - $name"
        echo "$output" | head -n 20
        code=1
    fi
}

cat >"$work/program.c" <<'END'
#include "minim.h"
#include <stdio.h>
#include <string.h>

static int print(void *user, const char *text, size_t n) {
    (void)user;
    return fwrite(text, 1, n, stdout) != n;
}

int main(int argc, char **argv) {
    const char *prompt = "Once upon a time";
    int32_t tokens[64];
    size_t n = 0, size;
    const void *data = minim_default_model(&size);
    minim_error error = {MINIM_OK, ""};
    minim_model *model = NULL;
    minim_engine *engine = NULL;
    minim_seq *seq = NULL;
    minim_generate_options options;
    minim_generate_options_default(&options);
    options.on_text = print;
    options.max_tokens = 60;
    if ((data ? minim_model_load_memory(data, size, "built-in", NULL, &model, &error)
              : minim_model_load(argc > 1 ? argv[1] : "", NULL, &model, &error)) ||
        minim_engine_new(model, NULL, &engine, &error) || minim_seq_new(engine, &seq, &error) ||
        minim_tokenize(model, prompt, strlen(prompt), MINIM_ADD_SPECIAL, tokens, 64, &n, &error) ||
        minim_generate(seq, tokens, n, &options, NULL, &error))
        printf("%s", error.text);
    minim_seq_free(seq);
    minim_engine_free(engine);
    minim_model_free(model);
    return error.status != MINIM_OK;
}
END

check "amalgamation is made" sh -c "sh tools/amalgamate.sh '$work' >/dev/null"
check "minim.c compiles with -std=c11 and no other flag" $CC -std=c11 -c "$work/minim.c" -o "$work/minim.o"
if command -v readelf >/dev/null; then
    check "only the public functions are visible outside of a shared library" sh -c \
        "readelf -sW '$work/minim.o' | awk '\$5 == \"GLOBAL\" && \$6 == \"DEFAULT\" && \$7 != \"UND\" && \$8 !~ /^minim_/'"
    check "the public functions are" sh -c "readelf -sW '$work/minim.o' | grep -q 'GLOBAL *DEFAULT *[0-9]* minim_generate$'"
else
    echo "# SKIP visibility of functions: no readelf"
fi
check "a program of one call after the other links with it" \
    $CC -std=c11 -I"$work" "$work/program.c" "$work/minim.o" $LIBS -o "$work/program"
"$work/program" models/stories260K.gguf >"$work/amalgam.txt"
"$B/minim" run -q -n 60 -p "Once upon a time" >"$work/minim.txt" && truncate -s -1 "$work/minim.txt"
check "it tells the story of the minim program" cmp "$work/amalgam.txt" "$work/minim.txt"
check "the story has words" test "$(wc -w <"$work/amalgam.txt")" -gt 20
if [ -n "${SAN:-}" ]; then
    echo "# SKIP amalgamation with the model inside: not again with sanitizers"
    exit $code
fi
check "amalgamation with the model inside is made" sh -c "sh tools/amalgamate.sh '$work' models/stories260K.gguf >/dev/null"
check "it compiles without warnings, in another dialect and optimised" \
    $CC -std=gnu17 -O1 -Wall -Wextra -I"$work" "$work/program.c" "$work/minim.c" $LIBS -o "$work/program"
"$work/program" >"$work/inside.txt"
check "it tells the same story without a file" cmp "$work/inside.txt" "$work/minim.txt"
exit $code
