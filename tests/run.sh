#!/bin/bash
# Runs test programs and scripts from the repository's root and sums up. usage: tests/run.sh PROGRAM...
#
# Programs of cmocka print TAP here ("ok 1 - name", "not ok 2 - name"), and so do the scripts; a program that prints no
# such line counts as one test, by its exit code. Output stays in build/tests/NAME.log and is shown for what failed. What is
# left out is told by a line with "# SKIP" and counts neither way.
set -u
export CMOCKA_MESSAGE_OUTPUT=TAP
export ASAN_OPTIONS=${ASAN_OPTIONS:-allocator_may_return_null=1}
limit=${TEST_TIMEOUT:-${SAN:+900}}
limit=${limit:-240}
passed=0 failed=0
started=$SECONDS

for program in "$@"; do
    name=$(basename "$program" .sh)
    log=$B/tests/$name.log
    begin=$(date +%s%N)
    case $program in
    *.sh) timeout -k 5 "$limit" bash "$program" >"$log" 2>&1 </dev/null ;;
    *) timeout -k 5 "$limit" "$program" >"$log" 2>&1 </dev/null ;;
    esac
    code=$?
    tenths=$((($(date +%s%N) - begin) / 100000000))
    good=$(grep -v '# SKIP' "$log" | grep -c '^ok ')
    bad=$(grep -v '# SKIP' "$log" | grep -c '^not ok ')
    word=ok
    if [ $((good + bad)) = 0 ] && [ $code = 0 ]; then
        if grep -q '# SKIP' "$log"; then word=skip; else good=1; fi
    fi
    # A crash, a sanitizer's report or a time-out fails although no line says so.
    if [ $code != 0 ] && [ "$bad" = 0 ]; then bad=1; fi
    [ "$bad" = 0 ] || word=FAIL
    passed=$((passed + good))
    failed=$((failed + bad))
    printf '%-6s%-22s %4d passed %3d failed %5d.%d s\n' "$word" "$name" "$good" "$bad" \
        $((tenths / 10)) $((tenths % 10))
    grep -h SKIP "$log" | sed 's/^.*# SKIP/        skipped:/' | head -n 10
    if [ "$bad" != 0 ]; then
        if [ $code = 124 ]; then echo "        stopped after $limit s"; else echo "        exit code $code"; fi
        { grep -A 8 '^not ok [0-9]* -' "$log" || tail -n 40 "$log"; } | head -n 60 | sed 's/^/        /'
        [ "$(wc -l <"$log")" -le 60 ] || echo "        (all of it: $log)"
    fi
done

echo
echo "$((SECONDS - started)) s for $# programs"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
