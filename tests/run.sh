#!/bin/bash
# Runs test programs and scripts from the repository's root and sums up. usage: tests/run.sh PROGRAM...
#
# As many run side by side as there are CPUs (TESTJOBS=1: one after the other), and each has its line when it has ended. None
# may run longer than TEST_TIMEOUT seconds.
#
# Programs of cmocka print TAP here ("ok 1 - name", "not ok 2 - name"), and so do the scripts; a program that prints no
# such line counts as one test, by its exit code. Output stays in build/tests/NAME.log and is shown for what failed. What is
# left out is told by a line with "# SKIP" and counts neither way.
set -u
export CMOCKA_MESSAGE_OUTPUT=TAP
export ASAN_OPTIONS=${ASAN_OPTIONS:-allocator_may_return_null=1}
limit=${TEST_TIMEOUT:-${SAN:+900}}
limit=${limit:-240}
jobs=${TESTJOBS:-$(nproc 2>/dev/null || echo 2)}
passed=0 failed=0
started=$SECONDS

# What takes longest begins first. What measures time has the machine for itself, at the end.
longest="test_arm test_leftovers test_amalgam test_route_learn test_route_calibration"
alone="test_router_race"

run() { # PROGRAM: what there is to say about it is then in $results/NAME.done
    local name log begin code tenths good bad word=ok shell=
    name=${1##*/} name=${name%.sh} log=$B/tests/$name.log
    case $1 in *.sh) shell=bash ;; esac
    begin=$(date +%s%N)
    # In a session of its own: a script with `set -m` would wait for the terminal.
    setsid -w timeout -k 5 "$limit" $shell "$1" >"$log" 2>&1 </dev/null
    code=$?
    tenths=$((($(date +%s%N) - begin) / 100000000))
    good=$(grep -v '# SKIP' "$log" | grep -c '^ok ')
    bad=$(grep -v '# SKIP' "$log" | grep -c '^not ok ')
    if [ $((good + bad)) = 0 ] && [ $code = 0 ]; then
        if grep -q '# SKIP' "$log"; then word=skip; else good=1; fi
    fi
    # A crash, a sanitizer's report or a time-out fails although no line says so.
    if [ $code != 0 ] && [ "$bad" = 0 ]; then bad=1; fi
    [ "$bad" = 0 ] || word=FAIL
    {
        echo "$good $bad"
        printf '%-6s%-22s %4d passed %3d failed %5d.%d s\n' "$word" "$name" "$good" "$bad" \
            $((tenths / 10)) $((tenths % 10))
        grep -h SKIP "$log" | sed 's/^.*# SKIP/        skipped:/' | head -n 10
        if [ "$bad" != 0 ]; then
            if [ $code = 124 ]; then echo "        stopped after $limit s"; else echo "        exit code $code"; fi
            { grep -A 8 '^not ok [0-9]* -' "$log" || tail -n 40 "$log"; } | head -n 60 | sed 's/^/        /'
            [ "$(wc -l <"$log")" -le 60 ] || echo "        (all of it: $log)"
        fi
    } >"$results/$name"
    mv "$results/$name" "$results/$name.done"
}

wait_for_one() {
    local file good bad
    wait -n
    running=$((running - 1))
    for file in "$results"/*.done; do
        [ -e "$file" ] || continue
        { read -r good bad && cat; } <"$file"
        rm "$file"
        passed=$((passed + good)) failed=$((failed + bad)) ended=$((ended + 1))
    done
}

run_all() { # JOBS PROGRAM...
    local jobs=$1 program
    shift
    running=0
    for program in "$@"; do
        run "$program" &
        running=$((running + 1))
        [ $running -lt "$jobs" ] || wait_for_one
    done
    while [ $running -gt 0 ]; do wait_for_one; done
}

# On Ctrl-C: all that was started from here has this in its environment, also what a test has started.
export TEST_RUN=$$
stop() {
    trap '' INT TERM
    # shellcheck disable=SC2046
    kill $(grep -lszxF "TEST_RUN=$$" /proc/[0-9]*/environ | tr -dc '0-9\n') 2>/dev/null
    wait
    exit 130
}
ended=0
results=$(mktemp -d) || exit 1
export TMPDIR=$results # what a script that is killed leaves behind goes, too
trap 'rm -rf "$results"' EXIT
trap stop INT TERM

first=() rest=() last=()
for program in "$@"; do
    name=${program##*/} name=${name%.sh}
    case " $alone " in *" $name "*) last+=("$program") && continue ;; esac
    case " $longest " in *" $name "*) continue ;; esac
    rest+=("$program")
done
for name in $longest; do
    for program in "$@"; do case $program in */$name | */$name.sh) first+=("$program") ;; esac; done
done
run_all "$jobs" "${first[@]}" "${rest[@]}"
run_all 1 "${last[@]}"
if [ $ended != $# ]; then
    echo "FAIL  $(($# - ended)) programs have left no result"
    failed=$((failed + $# - ended))
fi

echo
echo "$((SECONDS - started)) s for $# programs"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
