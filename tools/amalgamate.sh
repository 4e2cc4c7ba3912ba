#!/bin/sh
# Joins kernels, models and engine into two files, DIR/minim.c and DIR/minim.h, for programs that want to carry the engine
# along. Every internal name is unique across the tree, so joining is only following each #include "..." once.
#
# usage: tools/amalgamate.sh DIR [MODEL.gguf]     from the repository's root; MODEL becomes the built-in model
set -eu
directory=$1 model=${2:-}
sources=$(find kernels models engine -name '*.c' | LC_ALL=C sort)
revision=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)

cp engine/minim.h "$directory/minim.h"
{
    cat <<END
/* minim: a CPU inference engine for small language models, in two files: minim.h is its interface, this is the rest.
 * Made by \`make amalgam\` from revision $revision; change the sources there, not this file.
 *
 *     cc -std=c11 -O2 -c minim.c        and link with -lm -pthread
 *     objcopy --localize-hidden minim.o (where the program has functions of the same names as the ones inside)
 *
 * gcc or clang. Not -ffast-math: results would no longer be the same on every machine.
 */
END
    sed 's|^/\* *||; s| *\*/$||; s|^| * |; 1s|^ \*|/*\n *|' LICENSE
    echo ' */'
    cat <<'END'
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
END
    [ -n "$model" ] || echo '#define MINIM_NO_DEFAULT_MODEL'
    echo '#include "minim.h"'
    echo '/* Only minim.h is exported by a shared library that holds this file. What system headers declare is elsewhere. */'
    echo '#pragma GCC visibility push(hidden)'
    # shellcheck disable=SC2086
    awk -v with_model="$model" '
        # "engine/../kernels/a.h" to "kernels/a.h"
        function clean(path) {
            while (match(path, /[^\/.]+\/\.\.\//)) path = substr(path, 1, RSTART - 1) substr(path, RSTART + RLENGTH)
            return path
        }
        # A header is taken once; anything else that is included, each time.
        function emit(path,    line, folder, name) {
            if (path in done) return
            if (path ~ /\.h$/) done[path] = 1
            folder = path
            sub(/[^\/]*$/, "", folder)
            print "\n/* ==== " path " ==== */"
            while ((status = (getline line < path)) > 0) {
                if (line ~ /^[ \t]*#[ \t]*include[ \t]*"/) {
                    name = line
                    sub(/^[^"]*"/, "", name)
                    sub(/".*/, "", name)
                    emit(clean(folder name))
                } else if (line ~ /^[ \t]*#[ \t]*include[ \t]*</) {
                    print "#pragma GCC visibility push(default)\n" line "\n#pragma GCC visibility pop"
                } else {
                    print line
                }
            }
            if (status < 0) { print path ": cannot be read" > "/dev/stderr"; exit 1 }
            close(path)
        }
        BEGIN {
            done["engine/minim.h"] = 1
            for (i = 1; i < ARGC; i++) if (!(with_model && ARGV[i] == "models/default.c")) emit(ARGV[i])
        }' $sources
    if [ -n "$model" ]; then
        printf '\n/* ==== %s ==== */\nstatic const unsigned char models_default_bytes[] __attribute__((aligned(64))) = {\n' "$model"
        od -An -v -tu1 "$model" | sed 's/^ *//; s/  */,/g; s/$/,/'
        cat <<'END'
};

const void *models_default_gguf(size_t *size) {
    *size = sizeof models_default_bytes;
    return models_default_bytes;
}
END
    fi
    printf '\n#pragma GCC visibility pop\n'
} > "$directory/minim.c.part"
mv "$directory/minim.c.part" "$directory/minim.c"
echo "$directory/minim.c ($(wc -l < "$directory/minim.c") lines) and $directory/minim.h"
