#!/bin/bash
# minim batch: answers in order, the same ones as alone, and no line lost or repeated when it is killed.
set -u
M=$PWD/${B:-build}/minim
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
unset MINIM_ISA
cd "$work" || exit 1
number=0 failures=0
check() {
    local name=$1 condition
    shift
    number=$((number + 1))
    for condition in "$@"; do
        if ! eval "$condition"; then
            echo "not ok $number - $name"
            echo "  not so: $condition"
            head -c 400 err | sed 's/^/  stderr: /'
            failures=$((failures + 1))
            return
        fi
    done
    echo "ok $number - $name"
}

"$M" batch --help >out 2>err </dev/null
if ! grep -q jsonl out; then
    echo "ok 1 # SKIP minim batch: built without jansson"
    exit 0
fi

cat >few.jsonl <<'END'
{"id": 1, "prompt": "Once upon a time", "max_tokens": 20}
{"id": "two", "prompt": "A dog", "max_tokens": 15, "temperature": 1, "seed": 3}

not json
{"id": [3], "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
{"id": 4, "prompt": "The end", "max_tokens": "x"}
{"id": 5, "prompt": 5}
{"id": 6, "prompt": "Lily", "stop": [".", "!"]}
{"id": 7, "prompt": "Lily", "stop": "."}
END
"$M" batch few.jsonl >out 2>err </dev/null
code=$?
ids=$(sed 's/^{"id": \([^,]*\),.*/\1/' out | tr '\n' ' ')
check "answers come in the order of the prompts" '[ $code = 1 ]' '[ "$ids" = "1 \"two\" null [3] 4 5 6 7 " ]'
check "lines without an answer say why" '[ "$(grep -c error out)" = 3 ]' 'grep -q "max_tokens: expected" out' \
    'grep -q "line 4" out' 'grep -q "3 of 8 lines" err'
text=$("$M" run -q -n 15 --temp 1 --seed 3 "A dog" 2>/dev/null </dev/null)
check "an answer is that of minim run" 'sed -n 2p out | grep -qF -- "\"text\": \"$text\""'
check "stop strings of a line" 'sed -n 7p out | grep -q "\"stop\": \"stop\""' '[ "$(sed -n 7p out | grep -o "text.*tokens")" = "$(sed -n 8p out | grep -o "text.*tokens")" ]'
"$M" batch few.jsonl -o again >/dev/null 2>err </dev/null
"$M" batch few.jsonl -o again >/dev/null 2>err </dev/null
code=$?
check "lines without an answer are no success later, either" '[ $code = 1 ]' 'cmp -s out again' 'grep -q "3 of 8 lines" err' \
    'grep -q "5 answers are there already" err'
"$M" batch - <few.jsonl >piped 2>err
check "- is standard input" 'cmp -s out piped'
"$M" batch nothing.jsonl >out 2>err </dev/null
code=$?
check "a file that is not there" '[ $code = 1 ]' 'grep -q nothing.jsonl err'
"$M" batch >out 2>err </dev/null
code=$?
check "no file" '[ $code = 2 ]'

# Killed again and again, at any moment, it comes to the same file.
for i in $(seq 200); do echo "{\"id\": $i, \"prompt\": \"Number $i was\", \"max_tokens\": $((i % 40 + 1))}"; done >many.jsonl
"$M" batch -q -np 5 -t 1 many.jsonl -o whole >/dev/null 2>err </dev/null
check "-o writes a file" '[ "$(wc -l <whole)" = 200 ]' '! grep -q error whole'
kills=0
for i in $(seq 1 60); do
    "$M" batch -q -np 3 -t 1 many.jsonl -o parts >/dev/null 2>err </dev/null &
    pid=$!
    sleep "0.0$((i * 7 % 10))$((i % 10))"
    kill -9 $pid 2>/dev/null && kills=$((kills + 1))
    wait $pid 2>/dev/null
    [ "$(wc -l <parts 2>/dev/null || echo 0)" = 200 ] && break
done
"$M" batch -q -np 7 many.jsonl -o parts >/dev/null 2>err </dev/null
check "killed $kills times, it loses and repeats no line" 'cmp -s whole parts'
head -c $(($(wc -c <whole) / 2)) whole >parts
"$M" batch many.jsonl -o parts >/dev/null 2>err </dev/null
check "half a line at the end is written anew" 'cmp -s whole parts' 'grep -q "answers are there already" err'
"$M" batch -q many.jsonl -o parts >/dev/null 2>err </dev/null
code=$?
check "when all is done nothing is left to do" '[ $code = 0 ]' 'cmp -s whole parts'
"$M" batch -q -np 1 --lookup off many.jsonl -o plain >/dev/null 2>err </dev/null
check "guessing changes no answer" 'cmp -s whole plain'
"$M" batch --lookup 17 many.jsonl >out 2>err </dev/null
code=$?
check "17 guesses are too many" '[ $code = 2 ]' 'grep -q -e "--lookup" err'
"$M" batch -q few.jsonl -o parts >/dev/null 2>err </dev/null
code=$?
check "the answers of another file are not taken for its own" '[ $code = 1 ]' 'cmp -s whole parts' \
    'grep -q "parts: line 1 does not answer line 1 of few.jsonl" err'
head -n 199 many.jsonl >shorter.jsonl
"$M" batch -q shorter.jsonl -o parts >/dev/null 2>err </dev/null
code=$?
check "nor those of a longer file" '[ $code = 1 ]' 'cmp -s whole parts' 'grep -q "more answers than the 199 prompts" err'
# other NAME ARGS...: half of it is there, and the rest would be made otherwise
other() {
    local name=$1
    shift
    { head -n 100 whole && printf '{"id": 101, "te'; } >parts
    cp parts before
    "$M" batch -q "$@" -o parts >/dev/null 2>err </dev/null
    code=$?
    check "$name is not gone on with" '[ $code = 1 ]' 'cmp -s parts before' 'grep -q "parts: line $line does not answer line $line of" err'
}
sed '40s/Number/number/' many.jsonl >edited.jsonl
line=40 other "an edited prompt" edited.jsonl
sed '7d' many.jsonl >shifted.jsonl
line=7 other "a file with a line less" shifted.jsonl
line=1 other "what was made with another temperature" many.jsonl --temp 0.5
line=1 other "what was made with another cache" many.jsonl --kv q8
head -n 10 many.jsonl | sed 's/^/{"id": 1, "text": "/; s/$/"}/' >parts
"$M" batch -q many.jsonl -o parts >/dev/null 2>err </dev/null
code=$?
check "a file of something else stays as it is" '[ $code = 1 ]' '[ "$(wc -l <parts)" = 10 ]'
printf 'no newline' >parts
"$M" batch -q many.jsonl -o parts >/dev/null 2>err </dev/null
code=$?
check "also without a line in it" '[ $code = 1 ]' '[ "$(cat parts)" = "no newline" ]' 'grep -q "ends with something else" err'
"$M" batch -q many.jsonl >/dev/full 2>err </dev/null
code=$?
check "a full disk is an error" '[ $code = 1 ]' 'grep -q "No space" err'
exit $((failures > 0))
