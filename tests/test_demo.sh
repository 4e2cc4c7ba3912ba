#!/bin/bash
# `make demo` shows what it says: each policy, the report, without any outside network.
set -u
B=${B:-build} number=0 code=0
if [ ! -x "$B/tests/demo_remote" ]; then
    echo "# SKIP the demo needs libcurl, jansson and SQLite"
    exit 0
fi
output=$(bash tests/demo.sh "$B" 2>&1)
status=$?
check() { # NAME TEXT
    number=$((number + 1))
    if grep -qF -- "$2" <<<"$output"; then
        echo "ok $number - $1"
    else
        echo "not ok $number - $1"
        echo "  not found: $2"
        code=1
    fi
}
check "the demo's cascade keeps a good local answer" "answered by the local model: its score reaches the threshold"
check "the demo's cascade hands a weak one over" "answered by the remote model: the local score is below the threshold"
check "the demo's cache answers" "the same request was answered before"
check "the demo races" "--route race"
check "the demo keeps what is private" "answered by the local model: the request may not leave this machine"
check "the demo votes" "self_consistency"
check "the demo verifies" "answered by the local model: its score reaches the threshold; score 0.899 (verify, uncalibrated)"
check "the demo has one answer written by two hands" "1 span by the remote"
check "the demo reports what was saved" "all-remote (estimated)"
check "the demo replays" "decisions replayed"
check "the demo exports pairs" '{"messages":[{"role":"user"'
[ $status = 0 ] || { echo "not ok - the demo ends with $status"; echo "$output" | tail -20; code=1; }
exit $code
