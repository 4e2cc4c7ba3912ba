#!/bin/bash
# What quantize, pack, imatrix and route train leave behind when they do not come to their end: the old file, to the byte, and
# nothing else. A disk that is full sooner or later, Ctrl-C at any moment, memory that runs out at any call.
set -u
root=$PWD
B=${B:-build} CC=${CC:-gcc}
case $B in /*) ;; *) B=$root/$B ;; esac
M=$B/minim story=$root/models/stories260K.gguf
[ -x "$M" ] || { echo "not ok 1 - $M is not there"; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
mkdir work
number=0 failed=0

report() { # NAME, after `problem` was set
    number=$((number + 1))
    if [ -z "$problem" ]; then
        echo "ok $number - $1"
    else
        echo "not ok $number - $1"
        printf '  %s\n  stderr: %s\n' "$problem" "$(head -c 300 err)"
        failed=1
    fi
}

for i in 1 2 3; do
    "$M" run -q -n 200 --temp 1 -s $i "One day" </dev/null
    echo
done >text.txt
gptq=(quantize --type Q4_0 --method gptq --calibrate "$folder/text.txt" -c 64 "$story" out)
with_gptq=gptq
cd work || exit 1
if ! "$M" "${gptq[@]}" 2>../err; then
    with_gptq=
    grep -q "left out when this minim was built" ../err || { echo "not ok 1 - gptq: $(cat ../err)"; exit 1; }
fi
cd ..
{
    printf 'prompt\tweak\tstrong\n'
    for i in {1..30}; do printf 'Add up %d pears\t0\t1\nTell of a river and %d fish\t1\t1\n' "$i" "$i"; done
} >labels.tsv
with_train=train
"$M" route train labels.tsv 2>&1 | grep -q 'built without' && with_train=
# The old file is none of the program's; a program that has not ended well must not have touched it.
old=$'the old one\n'
found=

# Hundreds of runs: only what is built into the shell looks at their files.
shopt -s dotglob nullglob
holds() { # FILE TEXT: nothing but the text, to the byte
    local text
    ! IFS= read -r -d '' text <"$1" && [ "$text" = "$2" ]
}

start() { # METHOD: the command line
    case $1 in
    gptq) line=("${gptq[@]}") ;;
    nearest | search) line=(quantize --type Q4_0 --method "$1" "$story" out) ;;
    pack) line=(pack "$story" out) ;;
    train) line=(route train -o out "$folder/labels.tsv") ;;
    imatrix) line=(imatrix -f "$folder/text.txt" -c 64 -o out) ;;
    esac
    [ "$found" = out ] || rm -rf work/*
    printf %s "$old" >work/out
}

# What is in the folder now, after exit code $1, of which those in $2 are allowed.
look() {
    local files=(work/*) lines
    found=${files[*]#work/}
    case " $2 " in *" $1 "*) ;; *) problem="$3: exit code $1, expected one of $2" && return ;; esac
    [ "$found" = out ] || problem="$3: left behind: $found"
    if [ "$1" = 0 ]; then
        cmp -s work/out "$good" || problem="$3: exit code 0, and another file than without"
    else
        holds work/out "$old" || problem="$3: exit code $1, and the old file is not what it was"
        mapfile lines <err
        [ "$1" = 130 ] || [ ${#lines[@]} = 1 ] || problem="$3: expected one line on stderr"
    fi
}

for what in nearest search $with_gptq pack imatrix $with_train; do
    start $what
    good=good.$what
    problem=
    (cd work && "$M" "${line[@]}") >out.txt 2>err </dev/null || problem="exit code $?"
    cp work/out $good
    report "$what: works with nothing in its way"
    size=$(($(stat -c %s $good) / 1024))

    problem=
    for blocks in 1 2 $((size / 9)) $((size / 3)) $((size / 2)) $((size - 1)) $size; do
        [ "$blocks" -gt 0 ] || continue
        start $what
        (cd work && ulimit -f "$blocks" && exec "$M" "${line[@]}") >out.txt 2>err </dev/null
        look $? "1" "a disk of $blocks kB"
    done
    report "$what: a full disk"

    problem=
    interrupted=0
    for delay in 0.001 0.002 0.004 0.006 0.008 0.01 0.015 0.02 0.03 0.05 0.1 0.3; do
        start $what
        # A program that a shell starts in the background ignores Ctrl-C, so another one sends it.
        (cd work && exec timeout -s INT --preserve-status $delay "$M" "${line[@]}") >out.txt 2>err </dev/null
        code=$?
        [ $code = 130 ] && interrupted=$((interrupted + 1))
        look $code "0 130" "Ctrl-C after $delay s"
    done
    report "$what: Ctrl-C ($interrupted of 12 in time)"
done

if [ -n "${SAN:-}" ]; then
    echo "# SKIP failing memory: not together with sanitizers, which have their own malloc()"
    exit $failed
fi

# The at-th call fails, or from then on all. Not for gptq: the Fortran library below OpenBLAS crashes where it has no memory to
# start with.
cat >failing.c <<'END'
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
static long at = -1, all;
static atomic_long calls;
__attribute__((constructor)) static void begin(void) {
    const char *text = getenv("FAIL_AT");
    at = text ? atol(text) : 0;
    all = getenv("FAIL_ALL") != 0;
    calls = 0;
}
static int fails(void) {
    const long n = atomic_fetch_add(&calls, 1) + 1;
    if (!(at > 0 && (n == at || (all && n > at)))) return 0;
    errno = ENOMEM;
    return 1;
}
void *malloc(size_t n) { return fails() ? 0 : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return fails() ? 0 : __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return fails() ? 0 : __libc_realloc(p, n); }
END
if ! $CC -shared -fPIC -o failing.so failing.c 2>/dev/null; then
    echo "# SKIP failing memory: no library can be put before the C library's malloc() here"
    exit $failed
fi
for what in nearest search pack imatrix $with_train; do
    good=good.$what
    for all in "" 1; do
        problem=
        survived=0
        for ((at = 1; at < 100000 && survived < 3; at += 1 + at / 40)); do
            start $what
            (cd work && ${all:+export FAIL_ALL=1} && FAIL_AT=$at LD_PRELOAD=$folder/failing.so exec "$M" "${line[@]}") >out.txt 2>err </dev/null
            code=$?
            [ $code = 0 ] && survived=$((survived + 1))
            look $code "0 1" "allocation $at${all:+ and all others}"
            [ -z "$problem" ] || break
        done
        report "$what: memory runs out${all:+ for good}, at call 1 to $at"
    done
done
exit $failed
