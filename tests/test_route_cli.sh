#!/bin/bash
# The learning subcommands of `minim route` as their users meet them: exit codes, files, what they say.
set -u
minim=${B:-build}/minim number=0 code=0
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT

check() { # NAME CODE PATTERN COMMAND...
    number=$((number + 1))
    local name=$1 expected=$2 pattern=$3 output got
    shift 3
    output=$("$@" 2>&1)
    got=$?
    if [ $got = "$expected" ] && grep -qE -- "$pattern" <<<"$output"; then
        echo "ok $number - $name"
    else
        printf 'not ok %d - %s\nexit code %d, expected %d and "%s"\n%s\n' $number "$name" $got "$expected" "$pattern" "$output"
        code=1
    fi
}

if ! "$minim" ask --help | grep -q -- --remote-url || "$minim" route train /dev/null 2>&1 | grep -q 'built without'; then
    echo "# SKIP minim was built without libcurl and jansson"
    exit 0
fi

{
    printf 'prompt\tweak\tstrong\n'
    for i in $(seq 1 60); do
        printf 'Add up %d apples and %d pears\t0\t1\n' $((i * 7 % 90 + 10)) $((i * 13 % 90 + 10))
        printf 'Tell me a story about rivers number %d\t1\t1\n' $((i + 10))
    done
} >"$folder/labels.tsv"
{
    printf 'prompt\tweak\tstrong\n'
    for i in $(seq 1 29); do # numbers of two digits that were not learned from
        printf 'Add up %d apples and %d pears\t%d\t1\n' $((i * 7 % 90 + 10)) $((i * 11 % 90 + 10)) $((i % 7 == 0))
        printf 'Tell me a story about rivers number %d\t%d\t1\n' $((i + 70)) $((i % 5 > 0))
    done
} >"$folder/fresh.tsv"
awk -F '\t' 'NR == 1 { print $0 "\tscore" } NR > 1 { print $0 "\t0." (NR * 7 % 10) }' "$folder/fresh.tsv" >"$folder/scored.tsv"
printf 'prompt\tweak\tstrong\nWas kostet das Brot?\t0\t1\nWo steht der Wagen?\t1\t1\n' >"$folder/other.tsv"
{
    printf 'prompt\texpect\n'
    for i in $(seq 1 30); do printf 'Once upon a time\t%s\n' "$([ $((i % 3)) = 0 ] && echo dragon || echo little)"; done
} >"$folder/prompts.tsv"

check 'route train writes a model' 0 '"beats_random": ?true' \
    "$minim" route train --json -o "$folder/model.json" "$folder/labels.tsv"
check 'and says what it chose from the labels' 0 '^ridges +words [0-9.]+, shape [0-9]+, chosen by cross-validation' \
    "$minim" route train "$folder/labels.tsv"
check 'route eval leaves out what was learned' 1 'learned from all of these prompts' \
    "$minim" route eval --model "$folder/model.json" "$folder/labels.tsv"
check 'route eval says that a model does not transfer' 0 'DOES NOT TRANSFER' \
    "$minim" route eval --model "$folder/model.json" --svg "$folder/curves.svg" "$folder/other.tsv"
check 'the curves are an SVG' 0 '</svg>' tail -n 1 "$folder/curves.svg"
check 'route eval needs no router for random and oracle' 0 '^random +APGR 0.5000, CPT50 50.00 %, CPT80 80.00 %' \
    "$minim" route eval "$folder/labels.tsv"
printf 'weak\tstrong\n1\t0\n1\t1\n' >"$folder/worse.tsv"
check 'route eval claims nothing where the remote is no better' 0 'APGR, CPT and PGR are n/a' \
    "$minim" route eval "$folder/worse.tsv"
check 'route eval prints every figure with its interval' 0 '"aiq": \[[0-9.]+,[0-9.]+,[0-9.]+\].*"aurc": \[[0-9.]+,.*"pgr": \[0,.*,1\]' \
    "$minim" route eval --json --model "$folder/model.json" "$folder/fresh.tsv"
check 'route eval compares two routers on the same resamples' 0 'is higher by -?0\.[0-9]+ \(-?0\.[0-9]+ to -?0\.[0-9]+\)' \
    "$minim" route eval --model "$folder/model.json" "$folder/scored.tsv"
check 'route eval trains on splits' 0 'mean of 3 splits, 60 labels each' \
    "$minim" route eval --train 60 --splits 3 "$folder/labels.tsv"
check 'route explain names what is hard' 0 'prompt score 0\.[3-9]' \
    "$minim" route explain --prompt-model "$folder/model.json" 'Add up 17 apples and 24 pears'
check 'route collect lets the model answer' 0 '^prompt.answer.expect.correct.*logprob_mean' \
    "$minim" route collect --match contains -n 8 "$folder/prompts.tsv"
"$minim" route collect --match contains -n 8 -o "$folder/answers.tsv" "$folder/prompts.tsv" 2>/dev/null
check 'route calibrate takes its answers' 0 '^labels +30, 66.7 % right' \
    "$minim" route calibrate -o "$folder/calibration.json" "$folder/answers.tsv"
check 'minim ask has a confidence then' 0 '"confidence": 0\.[0-9]+' \
    "$minim" ask --json --calibration "$folder/calibration.json" -n 8 'Once upon a time'
bash tests/stories.sh 40 >"$folder/stories.tsv" 2>/dev/null
"$minim" route collect --match start -n 6 -o "$folder/told.tsv" "$folder/stories.tsv" 2>/dev/null
check 'route calibrate measures on answers it did not see' 0 '^held out +AUROC 0\.[5-9][0-9]+, ECE 0\.0' \
    "$minim" route calibrate --resplits 20 --labels 100 --alpha 0.6 "$folder/told.tsv"
check 'and counts how often a promise was broken' 0 '"held_out": 1[0-9]{2}, .*"certified": [0-9]+, "broken": [0-9]+, "allowed": 2,' \
    "$minim" route calibrate --resplits 20 --labels 100 --alpha 0.6 --json "$folder/told.tsv"
check 'which needs answers to be held out' 1 'expected at least 4020' \
    "$minim" route calibrate --resplits 20 --labels 4000 "$folder/told.tsv"
check 'and writes nothing' 2 'goes without -o' \
    "$minim" route calibrate --resplits 20 -o "$folder/none.json" "$folder/told.tsv"
check 'a table is no calibration' 1 'answers\.tsv' \
    "$minim" ask --calibration "$folder/answers.tsv" -n 8 'Once upon a time'
# A gate that lets the beginning pass, and what another bar would have made of it.
printf '{"hold_tokens":4,"gate_threshold":0.01,"remote":{"base_url":"http://127.0.0.1:9/v1"}}' >"$folder/gate.json"
"$minim" ask --config "$folder/gate.json" --ledger "$folder/ledger.db" -n 8 'Once upon a time' >/dev/null 2>&1
if [ -e "$folder/ledger.db" ]; then
    check 'replay decides as before' 0 '1 decisions replayed, 0 would be different' \
        "$minim" route replay --ledger "$folder/ledger.db"
    check 'replay tries another gate' 0 '^1: after 4 tokens the gate would say hand_over, said show' \
        "$minim" route replay --ledger "$folder/ledger.db" --gate-threshold 1
fi
check 'no file is a usage error' 2 'expected a file' "$minim" route calibrate
check 'a file that is not there is named' 1 '/nonexistent' "$minim" route train /nonexistent
# What -o names: a pipe is no file that could be replaced, a link stays one, and no input is overwritten.
mkfifo "$folder/pipe"
timeout 20 cat "$folder/pipe" >"$folder/piped.json" &
check 'a model goes into a pipe' 0 '^APGR' "$minim" route train -o "$folder/pipe" "$folder/labels.tsv"
wait $!
check 'which stays one' 0 '^p' stat -c %A "$folder/pipe"
check 'and hands on all of the model' 0 '^$' cmp "$folder/piped.json" "$folder/model.json"
check 'a folder is no place for a model' 1 'expected a file name, found a directory' \
    "$minim" route train -o "$folder" "$folder/labels.tsv"
mkdir "$folder/there"
printf old >"$folder/there/model.json"
chmod 640 "$folder/there/model.json"
ln -s there/model.json "$folder/link.json"
"$minim" route train -o "$folder/link.json" "$folder/labels.tsv" >/dev/null 2>&1
check 'a link to a file stays a link' 0 'there/model\.json' readlink "$folder/link.json"
check 'and leads to the new model' 0 '^$' cmp "$folder/there/model.json" "$folder/model.json"
check 'which has the mode of the old one' 0 '^640$' stat -c %a "$folder/there/model.json"
(umask 077 && "$minim" route train -o "$folder/mine.json" "$folder/labels.tsv" >/dev/null 2>&1)
check 'a new model keeps to the umask' 0 '^600$' stat -c %a "$folder/mine.json"
check 'nothing is left beside it' 1 '^$' grep -l part <(ls "$folder" "$folder/there")
cp "$folder/labels.tsv" "$folder/input.tsv"
ln "$folder/input.tsv" "$folder/same.tsv"
check 'route train does not overwrite its labels' 1 'input\.tsv: -o would overwrite an input' \
    "$minim" route train -o "$folder/input.tsv" "$folder/input.tsv"
check 'nor does route eval' 1 'same\.tsv: --svg would overwrite an input' \
    "$minim" route eval --svg "$folder/same.tsv" "$folder/input.tsv"
check 'which spares the model too' 1 'model\.json: --svg would overwrite an input' \
    "$minim" route eval --model "$folder/model.json" --svg "$folder/model.json" "$folder/fresh.tsv"
check 'nor does route collect' 1 'same\.tsv: -o would overwrite an input' \
    "$minim" route collect -n 3 -o "$folder/same.tsv" "$folder/input.tsv"
check 'and the labels are still there' 0 '^$' cmp "$folder/labels.tsv" "$folder/input.tsv"

# A pattern is checked before there is any output.
check 'a bad pattern is refused where no sample needs it' 2 '--sample-pattern is "\(", expected a regular expression' \
    "$minim" route collect --sample-pattern '(' "$folder/prompts.tsv"
"$minim" route collect --samples 2 --sample-pattern '(' "$folder/prompts.tsv" >"$folder/header.tsv" 2>/dev/null
check 'and before the header' 1 '^0$' grep -c prompt "$folder/header.tsv"

# route check refuses what minim ask refuses, with the same words.
refuses() { # NAME PATTERN JSON
    printf '%s' "$3" >"$folder/bad.json"
    check "route check refuses $1" 1 "$2" "$minim" route check --config "$folder/bad.json"
    check "as minim ask does ($1)" 1 "$2" "$minim" ask --config "$folder/bad.json" -n 1 hi
}
remote='"remote":{"base_url":"http://127.0.0.1:9/v1","model":"x"}'
refuses 'a bad privacy pattern' 'privacy\.patterns' '{"privacy":{"patterns":["("]}}'
refuses 'a bad evidence pattern' 'evidence' '{"evidence":{"pattern":"["}}'
refuses 'a calibration that is not there' 'nosuch: No such file' '{"calibration":"nosuch"}'
printf '{}' >"$folder/j.json"
refuses 'a prompt model that is none' 'j\.json: found no' '{"prompt_model":"j.json"}'
refuses 'a hybrid that can not be' 'policy: found hybrid' "{\"policy\":\"hybrid\",$remote}"
refuses 'a budget without a ledger' 'max_budget: found no ledger' "{\"max_budget\":1,$remote}"
if "$minim" route report --ledger /nonexistent 2>&1 | grep -q 'there is none'; then
    refuses 'a folder as ledger' 'ledger .*there' '{"ledger":{"path":"there"}}'
    printf '{"ledger":{"path":"new.db"}}' >"$folder/good.json"
    check 'route check passes a ledger that is yet to be made' 0 '^mode +cascade' \
        "$minim" route check --config "$folder/good.json"
    check 'and makes none' 1 '^$' grep new.db <(ls "$folder")
fi
check 'no remote is said in plain words' 1 'only_remote allows no local answer, and no remote is configured' \
    env -u OPENAI_BASE_URL "$minim" ask --config "$folder/j.json" --route only_remote hi
exit $code
