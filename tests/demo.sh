#!/bin/bash
# `make demo`: the router in one terminal, without any outside network. The built-in model answers; a script on this machine
# plays the remote (tests/demo_remote.c). usage: demo.sh BUILD_FOLDER
set -eu
build=$(cd "$1" && pwd)
folder=$(mktemp -d)
cd "$folder"
mkfifo port
"$build/tests/demo_remote" >port &
remote=$!
trap 'kill $remote 2>/dev/null; rm -rf "$folder"' EXIT
read -r port <port

cat >demo.json <<JSON
{
  "threshold": 0.55, "gate_threshold": 0.9,
  "max_budget": 0.01, "budget_duration": "30d",
  "ledger": {"path": "ledger.db", "content": true},
  "cache": {"enabled": "on"},
  "remote": {
    "base_url": "http://127.0.0.1:$port/v1", "model": "big-script",
    "input_cost_per_token": 2.5e-6, "output_cost_per_token": 1e-5
  }
}
JSON

config=demo.json
ask() {
    local what=$1
    shift
    printf '\n\033[1m%s\033[0m\n$ minim ask --config %s' "$what" $config
    printf ' %q' "$@"
    echo
    "$build/minim" ask --config $config -n 48 "$@" 2>&1 | grep -v '^load ' || true
}

echo "minim.json:"
cat demo.json
ask "Cascade: the local answer is sure of itself and stands" "Once upon a time"
ask "Cascade: the local answer is not, the remote takes over" "What is the capital of France?"
ask "The same question again: from the cache" "What is the capital of France?"
ask "Race: both work, the first good answer is shown" --route race "Explain why the sky is blue."
ask "Private by what it holds: stays here, whatever the score" "Write to alice@example.com that the capital is Paris."
ask "Private by mode: no remote object exists" --route local "What is the capital of Spain?"
ask "Context: rules over the request" --route context "Prove step by step that f(x) = x*x + 3*x - 12 has two roots, and explain why."
# Other ways to be sure: one change of minim.json each.
sed 's/"threshold": 0.55/"threshold": 0.55, "confidence_method": "self_consistency", "self_consistency": {"samples": 5, "pattern": "^[^.]*"}/' \
    demo.json >votes.json
sed 's/"threshold": 0.55/"threshold": 0.55, "confidence_method": "verify"/' demo.json >verify.json
sed 's/"threshold": 0.55/"policy": "hybrid", "handover_threshold": 0.5, "handover_tokens": 6, "span_tokens": 6, "max_spans": 1/;
     s/"model": "big-script"/"model": "big-script", "continuation": "assistant"/' demo.json >hybrid.json
config=votes.json
ask "Self-consistency: five samples of one prompt; how many say the same first sentence?" "Lily and Tom went to the"
config=verify.json
ask "Verification: the remote says in one token that the local answer is right" "Once upon a time there was a cat"
config=hybrid.json
ask "Hybrid: the local model writes, the remote continues it where it loses its way" "One day, a dog named Spot"
printf '\n\033[1mWhat was saved\033[0m\n$ minim route report\n'
"$build/minim" route report --ledger ledger.db
printf '\n\033[1mWhat a threshold of 0.9 would have changed\033[0m\n$ minim route replay --threshold 0.9\n'
"$build/minim" route replay --ledger ledger.db --threshold 0.9
printf '\n\033[1mPairs for fine-tuning\033[0m\n$ minim route export\n'
"$build/minim" route export --ledger ledger.db
