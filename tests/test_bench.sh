#!/bin/bash
# Measuring: files of `minim synth`, the outputs of `minim bench`, and the programs in bench/. Nothing here asserts a speed.
set -u
root=$PWD
M=$PWD/${B:-build}/minim
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
unset MINIM_ISA LLAMA_BENCH IK_BENCH IK_REPACK MINIM_ARGS
cd "$work" || exit 1
number=0 failures=0 code=0

# run ARGS...: the program with an empty standard input; then $code, and the files out and err.
run() {
    timeout 120 "$M" "$@" >out 2>err </dev/null
    code=$?
}
# check NAME CONDITION...: each condition is a command.
check() {
    local name=$1 condition
    shift
    number=$((number + 1))
    for condition in "$@"; do
        if ! eval "$condition"; then
            echo "not ok $number - $name"
            echo "  not so: $condition (exit code $code)"
            head -c 600 out | sed 's/^/  stdout: /'
            head -c 400 err | sed 's/^/  stderr: /'
            failures=$((failures + 1))
            return
        fi
    done
    echo "ok $number - $name"
}
exits() { [ "$code" = "$1" ]; }
quiet() { [ ! -s err ]; }
empty() { [ ! -s out ]; }
one_line() { [ "$(wc -l <err)" = 1 ]; }
says() { grep -qF -- "$1" err; }
prints() { grep -qF -- "$1" out; }
alone() { [ -z "$(find . -name "*.part")" ]; }

for command in bench synth; do
    run $command --help
    check "minim $command --help" 'exits 0' 'quiet' "prints 'usage: minim $command'" 'prints --help'
done

# ---- synth: good files

tiny=(--layers 2 --embd 64 --heads 4 --kv-heads 2 --ff 96 --vocab 700 --ctx 512)
run synth --list
check "synth --list names the shapes with their sizes" 'exits 0' 'quiet' 'prints tinyllama-1.1b' 'prints qwen3-4b' 'prints "619 MB"'
for type in f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 iq4_nl; do
    run synth "${tiny[@]}" --type $type $type.gguf
    check "a $type file is written and reported in one line" 'exits 0' 'one_line' 'empty' 'alone' "says $type.gguf"
    run inspect $type.gguf
    check "inspect finds its shape" 'exits 0' 'prints "2 layers of width 64"' 'prints "4 query heads, 2 key/value heads"' \
        'prints "700 tokens"' "prints $(echo $type | tr '[:lower:]' '[:upper:]')"
    run run -q -m $type.gguf -n 5 --json --logprobs 1 "babe cido"
    check "it runs, and its log-probabilities are finite" 'exits 0' 'prints "\"generated_tokens\": 5"' \
        '! grep -qE "nan|inf|null" out'
done
for type in q2_k q3_k q4_k q5_k q6_k iq4_xs; do
    run synth --layers 1 --embd 256 --heads 4 --kv-heads 2 --ff 512 --vocab 700 --ctx 512 --type $type -q $type.gguf
    check "a $type file is written" 'exits 0'
    run run -q -m $type.gguf -n 5 --json --logprobs 1 "babe cido"
    check "it runs, and its log-probabilities are finite" 'exits 0' 'prints "\"generated_tokens\": 5"' \
        '! grep -qE "nan|inf|null" out'
done
run synth "${tiny[@]}" --tied --output-type q8_0 tied.gguf
check "a tied file with an embedding of another type is written" 'exits 0'
run inspect --tensors tied.gguf
check "it has no output matrix, and norms are F32" '! grep -q "^  output.weight" out' 'grep -q "token_embd.weight.*Q8_0" out' \
    'grep -q "blk.0.ffn_up.weight.*Q4_0" out' 'grep -q "blk.1.attn_norm.weight.*F32" out'
run run -q -m tied.gguf -n 3 "babe"
check "it runs" 'exits 0' '[ -s out ]'
run synth "${tiny[@]}" -q one.gguf && run synth "${tiny[@]}" -q --seed 0 two.gguf && run synth "${tiny[@]}" -q --seed 1 other.gguf
check "the same seed gives the same file, another seed another" 'cmp -s one.gguf two.gguf' '! cmp -s one.gguf other.gguf' 'quiet'
run tokenize -m one.gguf "babe cido fugu 9?"
ids=$(cat out)
run tokenize -m one.gguf --ids "$ids"
check "text survives its vocabulary" 'exits 0' '[ "$(cat out)" = "babe cido fugu 9?" ]' '[ "$(echo "$ids" | wc -w)" -lt 17 ]'
run synth --shape smollm2-135m --layers 1 --vocab 600 --type q8_0 -q part.gguf
check "options change a known shape" 'exits 0'
run inspect part.gguf
check "the rest of it stays" 'prints "1 layers of width 576"' 'prints "9 query heads, 3 key/value heads"' 'prints "600 tokens"'

# ---- synth: bad requests leave nothing behind

rm -f part.gguf
cp one.gguf before.gguf
run synth "${tiny[@]}" one.gguf --seed 5
check "a file that exists is not overwritten" 'exits 1' 'one_line' 'says one.gguf' 'says --force' 'cmp -s one.gguf before.gguf'
run synth "${tiny[@]}" one.gguf --seed 5 --force
check "--force overwrites it" 'exits 0' '! cmp -s one.gguf before.gguf' 'alone'
run synth "${tiny[@]}" nowhere/x.gguf
check "a folder that is not there" 'exits 1' 'one_line' 'says nowhere/x.gguf'
mkdir folder
run synth "${tiny[@]}" folder --force
check "a folder as a file" 'exits 1' 'one_line' 'says folder'
(
    ulimit -f 40 # blocks of 1 KiB
    timeout 60 "$M" synth "${tiny[@]}" --vocab 5000 --type f32 full.gguf >out 2>err
)
code=$?
check "a disk that is full is an error, and no part of the file stays" 'exits 1' 'one_line' 'says full.gguf' '[ ! -e full.gguf ]' 'alone'
for bad in "" "--shape nonsense x.gguf" "--shape tinyllama-1.1b" "--layers 2 x.gguf" "${tiny[*]} --type q9 x.gguf" \
    "${tiny[*]} --embd 80 x.gguf" "${tiny[*]} --kv-heads 3 x.gguf" "${tiny[*]} --head-dim 7 x.gguf" "${tiny[*]} --vocab 100 x.gguf" \
    "${tiny[*]} --tied --untied x.gguf" "${tiny[*]} a.gguf b.gguf"; do
    eval "run synth $bad"
    check "a wrong request: synth $bad" 'exits 2' 'one_line' 'empty' '[ ! -e x.gguf ]'
done

# ---- bench

run bench -m q4_0.gguf -p 8,16 -n 4 -pg 8,2 -d 0,32 -r 2
check "Markdown has a row for each test" 'exits 0' 'quiet' '[ "$(grep -c "±" out)" = 8 ]' 'grep -q "| *pp16 |" out' \
    'grep -q "| *tg4 @ d32 |" out' 'grep -q "| *pp8+tg2 |" out' 'grep -q "^| model *| *size | *params | isa *| threads | *test | *t/s |$" out' \
    'grep -q "llama .* Q4_0" out'
run bench -p 8 -n 2 -r 3 -o json
check "the built-in model is measured without -m, and JSON has the fields of llama-bench" 'exits 0' \
    '[ "$(grep -c "\"avg_ts\": " out)" = 2 ]' 'prints build_commit' 'prints cpu_info' 'prints model_n_params' 'prints n_ubatch' 'prints type_k' \
    'prints test_time' 'prints stddev_ns' 'prints "\"n_depth\": 0"' 'prints median_ts' '[ "$(grep -c samples_ns out)" = 2 ]'
if command -v python3 >/dev/null; then
    check "the figures agree with the samples" 'python3 -c "
import json, statistics, sys
tests = json.load(open(\"out\"))
pp, tg = tests
for t in tests:
    ns = t[\"samples_ns\"]
    assert len(ns) == 3 and all(x > 0 for x in ns)
    assert abs(t[\"avg_ns\"] - statistics.mean(ns)) <= 1 and abs(t[\"median_ns\"] - statistics.median(ns)) <= 1
    assert abs(t[\"stddev_ns\"] - statistics.stdev(ns)) <= 1 + 1e-3 * statistics.stdev(ns)
    speed = [1e9 * (t[\"n_prompt\"] + t[\"n_gen\"]) / x for x in ns]
    assert abs(t[\"avg_ts\"] / statistics.mean(speed) - 1) < 1e-4
assert pp[\"n_prompt\"] == 8 and tg[\"n_gen\"] == 2
assert pp[\"weight_gb_per_second\"] is None and tg[\"weight_gb_per_second\"] > 0
assert pp[\"matrix_gops\"] > 0 and tg[\"matrix_gops\"] is None
"'
    run bench -p 8 -n 0 -r 1 -o jsonl -t 1-3 --isa ref
    check "jsonl has an object a line, and -t takes a range" 'exits 0' 'python3 -c "
import json
assert [json.loads(l)[\"n_threads\"] for l in open(\"out\")] == [1, 2, 3]
"'
    run bench -p 8 -n 2 -r 1 -o csv
    check "csv has as many values as names" 'exits 0' 'python3 -c "
import csv
rows = list(csv.reader(open(\"out\")))
assert len(rows) == 3 and len({len(r) for r in rows}) == 1
assert dict(zip(rows[0], rows[2]))[\"n_gen\"] == \"2\"
"'
    run bench -p 8 -n 2 -r 1 -o sql
    check "a data base takes the SQL" 'exits 0' 'python3 -c "
import sqlite3
d = sqlite3.connect(\":memory:\")
d.executescript(open(\"out\").read())
assert d.execute(\"select n_prompt, n_gen from minim_bench\").fetchall() == [(8, 0), (0, 2)]
"'
else
    echo "# SKIP no python3 here: the figures and formats of minim bench were not parsed"
fi
run bench -p 4 -n 2 -r 1 -ctk f16,f32 -ctv f16,f32 -b 2 -ub 4 --no-warmup --progress -oe csv
check "KV types, batches, --progress and -oe" 'exits 0' '[ "$(grep -c "±" out)" = 4 ]' 'grep -q "| f32 " out' 'grep -q n_batch out' \
    'says "test 4/4"' 'says "build_commit,"'
run bench -p 4 -n 0 -r 1 -ctk q8_0,f16 -ctv q4_0,f16 --no-warmup -oe csv
check "keys of 8 and values of 4 bits" 'exits 0' 'says "\"q8_0\",\"q4_0\""' '[ "$(grep -c "±" out)" = 2 ]' 'grep -q "| q8q4 " out' 'grep -q "| f16 " out'
for bad in "-p x" "-p 1,,2" "-p -5" "-n 4-2" "-n 0-8*2" "-d 1.5" "-t 9999" "-t 257" "-b 0" "-r 0" "-o xml" "-pg 5" "-pg 1,2,3" "-p 0 -n 0" "--kv f8" "--kv q8_1" \
    "-ctk f16 -ctv f32" "-ctk q4_0 -ctv q8_0" "--kv f16 -ctk f16" "--isa ''" "model.gguf"; do
    eval "run bench $bad"
    check "a wrong option: bench $bad" 'exits 2' 'one_line' 'empty'
done
run bench -m nowhere.gguf -p 4 -n 0
check "a model that is not there" 'exits 1' 'one_line' 'says nowhere.gguf'
run bench -p 4 -n 0 --isa nonsense
check "an instruction set that is not there" 'exits 1' 'one_line' 'says nonsense'
set -m # so that SIGINT is not ignored by the background job
timeout --foreground 100 "$M" bench -p 4 -n 200000 -r 1000 --no-warmup -o json --progress >out 2>err </dev/null &
pid=$!
for _ in $(seq 100); do grep -q "tg200000" err && break; sleep 0.1; done
kill -INT $pid
wait $pid
code=$?
check "Ctrl-C ends with 130, and what was measured is whole JSON" 'exits 130' '[ "$(grep -c "\"avg_ts\": " out)" = 1 ]' '[ "$(tail -n 1 out)" = "]" ]'
set +m
if [ -e /dev/full ]; then
    timeout 60 "$M" bench -p 4 -n 0 -r 1 >/dev/full 2>err
    code=$? && : >out
    check "a full disk under the table is an error" 'exits 1' 'says "No space left"'
fi

# ---- bench_kernels and plot

kernels=$root/${B:-build}/bench/bench_kernels
plot=$root/${B:-build}/bench/plot
if [ -x "$kernels" ]; then
    small=(--memory 8 --seconds 0.0005 -r 2 -t 2)
    timeout 120 "$kernels" "${small[@]}" -m q4_0.gguf --tokens 1,3 >out 2>err </dev/null
    code=$?
    check "bench_kernels prints limits, the products of a model and the other kernels" 'exits 0' 'quiet' 'prints "read, GB/s"' \
        'grep -q "matmul Q4_0 *| attn_q *| 64x64 *| *3 |" out' 'grep -q "^| rms_norm F32" out' 'grep -q "^| pv F16" out' '! grep -qE "nan|inf" out'
    timeout 120 "$kernels" "${small[@]}" -m q4_0.gguf --tokens 1,3 --json >kernels.json 2>err </dev/null
    code=$? && cp kernels.json out
    check "bench_kernels --json has the machine, the limits and every result" 'exits 0' 'quiet' 'prints cpu_flags' 'prints commit' \
        'prints read_gbs' 'prints "\"kernel\": \"softmax_part\""'
    timeout 60 "$kernels" "${small[@]}" --limits >out 2>err </dev/null
    code=$?
    check "bench_kernels --limits measures nothing else" 'exits 0' 'prints "read, GB/s"' '! grep -q matmul out'
    for bad in "--types q9" "--isa nonsense" "--tokens 0" "-t 0" "--shape nonsense" "-r x" "--only nonsense" "extra"; do
        timeout 60 "$kernels" --memory 8 $bad >out 2>err </dev/null
        code=$?
        check "a wrong option: bench_kernels $bad" 'exits 2' 'empty' '[ -s err ]'
    done
    timeout 60 "$kernels" -m nowhere.gguf >out 2>err </dev/null
    code=$?
    check "bench_kernels with a model that is not there" 'exits 1' 'one_line' 'says nowhere.gguf'
    if command -v python3 >/dev/null; then
        cp kernels.json out
        check "shares and rates of the JSON are positive numbers for every kernel of the table" 'python3 -c "
import json
o = json.load(open(\"out\"))
names = {r[\"kernel\"] for r in o[\"results\"]}
assert {\"matmul\", \"qk\", \"pv\", \"quantize\", \"add\", \"scale\", \"silu_mul\", \"softmax_join\", \"to_f16\"} <= names, names
for r in o[\"results\"]:
    for key in (\"gbs\", \"gops\", \"of_read\"):
        assert 0 < r[key][\"min\"] <= r[key][\"median\"] <= r[key][\"max\"], r
assert all(t[\"gops\"] > 0 for t in o[\"totals\"])
"'
    fi
else
    echo "# SKIP bench_kernels is not built (make build/bench/bench_kernels)"
fi
if [ -x "$plot" ] && [ -s kernels.json ]; then
    "$plot" kernels.json out.svg >out 2>err
    code=$?
    check "plot draws what was measured" 'exits 0' 'quiet' 'grep -q "</svg>" out.svg' 'grep -q "Q4_0, 3<" out.svg' 'grep -q "GB/s" out.svg' \
        '! grep -qE "nan|inf" out.svg'
    if command -v python3 >/dev/null; then
        check "the picture is well-formed XML" 'python3 -c "import xml.dom.minidom; xml.dom.minidom.parse(\"out.svg\")"'
    fi
    for bad in '' '[]' '{}' '{"limits": 3, "results": "x"}' '{"results": [1, 2]}'; do
        echo "$bad" | "$plot" >out 2>err
        code=$?
        check "plot of what is no measurement: $bad" 'exits 1' 'one_line' 'empty'
    done
else
    echo "# SKIP plot is not built (make build/bench/plot, needs libjansson-dev)"
fi

# ---- answers with given words

printf 'babe cido babe cido babe cido' >prompt.txt
printf 'babe cido babe cido babe cido babe cido babe cido babe cido' >answer.txt
run bench -m q4_0.gguf -t 1 -r 2 --text answer.txt --text-prompt prompt.txt --text-random 40
check "bench --text: a row for each text" 'exits 0' 'quiet' 'grep -qE "^\| answer.txt +\|.*\([0-9.]+ to [0-9.]+\)" out' \
    'prints "| random tokens | 256 | 40 |"'
run bench -m q4_0.gguf -t 1 -r 1 --text answer.txt --lookup off --draft q4_0.gguf --draft-min 2
check "and with a draft model" 'exits 0' 'quiet' 'prints "| answer.txt | 1 |"'
run bench --text-prompt prompt.txt --text answer.txt --text-prompt prompt.txt
check "a prompt without a text" 'exits 2' 'one_line' 'empty'
run bench --text nowhere.txt
check "a text that is not there" 'exits 1' 'one_line' 'says nowhere.txt' 'empty'

# ---- compare.sh, against programs that answer what llama-bench would

cat >fake-bench <<'END'
#!/bin/sh
# Half of a fixed speed each time, so that only the ratio to minim varies.
printf '[\n  {\n    "n_prompt": 8,\n    "n_gen": 0,\n    "n_depth": 0,\n    "avg_ts": 10.5\n  },\n'
printf '  {\n    "n_prompt": 0,\n    "n_gen": 2,\n    "n_depth": 0,\n    "avg_ts": 2.5\n  }\n]\n'
END
cat >fake-limits <<'END'
#!/bin/sh
printf '{\n  "limits": {"read_gbs": {"median": 20, "min": 1, "max": 30}, "peaks": [\n'
printf '    {"name": "a", "kind": "int8", "gops": {"median": 400, "min": 1}},\n    {"name": "b", "kind": "int8", "gops": {"median": 300}},\n'
printf '    {"name": "c", "kind": "float32", "gops": {"median": 900}}]}\n}\n'
END
chmod +x fake-bench fake-limits
MINIM=$M LIMITS=./fake-limits LLAMA_BENCH=./fake-bench IK_BENCH=./fake-bench "$root/bench/compare.sh" -m q4_0.gguf -p 8 -n 2 -t 1 -r 3 >out 2>err
code=$?
check "compare.sh sets medians, ratios and shares side by side" 'exits 0' 'prints "memory reads 20.0 GB/s (20.0 to 20.0), multiply-adds 400 GOPS"' \
    'grep -qE "^\| pp8 +\| llama.cpp +\| +10.50 \| +10.50 \| +10.50 \| +[0-9.]+x \|" out' 'grep -qE "^\| tg2 +\| ik_llama.cpp +\| +2.50 " out' \
    'grep -qE "^\| tg2 +\| minim .*[0-9]+ % reads \|$" out' 'grep -qE "^\| pp8 +\| minim .*[0-9]+ % +peak \|$" out'
MINIM=$M LIMITS=./fake-limits LLAMA_BENCH=/bin/false "$root/bench/compare.sh" -m q4_0.gguf -p 8 -n 2 -t 1 -r 1 >out 2>err
code=$?
check "compare.sh stops when a program fails" 'exits 1' 'says "llama.cpp failed"' 'empty'
"$root/bench/compare.sh" >out 2>err
code=$?
check "compare.sh without a model" 'exits 2' 'one_line'

run bench -p 8 -n 4 -r 1 -npl 1,3
check "several sequences are measured together" 'exits 0' 'prints "pp8 x3"' 'prints "tg4 x3"' 'prints " tg4 |"'
run bench -p 0 -n 4 -r 1 -npl 3 -d 20 -o json
check "with a depth, and the number in JSON" 'exits 0' 'prints "\"n_parallel\": 3"' 'prints "\"n_depth\": 20"'
run bench -npl 0
check "no sequences are refused" 'exits 2' 'says "-npl"'

echo "1..$number"
[ $failures = 0 ]
