#!/bin/bash
# `minim eval`: its figures against the definitions (recomputed from the raw logits), the same bytes for every way to
# compute, and files of reference logits that are not what they should be.
set -u
M=$PWD/${B:-build}/minim
story=$PWD/models/stories260K.gguf
q4=$PWD/tests/data/logits-quant/q4_k_m/model.gguf
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
unset MINIM_ISA
cd "$work" || exit 1
number=0 failures=0 code=0

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
# value NAME: the figure in the JSON object, or its first member.
value() { sed -E "s/.*\"$1\": (\{\"[a-z]+\": )?([-+0-9.e]+).*/\2/" out; }

run eval --help
check "minim eval --help" 'exits 0' 'quiet' 'prints "usage: minim eval"' 'prints "--reference-logits"' '[ "$(grep -c ctx-size out)" = 1 ]'

for i in 1 2 3 4; do
    "$M" run -q -n 200 --temp 1 -s $i -m "$story" "One day" 2>/dev/null
    echo
done >text.txt
tiny=(--layers 2 --embd 64 --heads 4 --kv-heads 2 --ff 96 --vocab 700 --ctx 512)
run synth "${tiny[@]}" --type f32 a.gguf
run synth "${tiny[@]}" --type q4_0 b.gguf

# ---- figures

run eval -m "$story" -f text.txt -c 64 --save-logits story.logits --json
cp out first
check "a text is measured, its logits are kept" 'exits 0' 'quiet' 'alone' '[ -s story.logits ]' 'prints "\"n_ctx\": 64"'
check "the model knows the language of its own stories" 'awk "BEGIN { exit !($(value perplexity) > 1.5 && $(value perplexity) < 20) }"'
for how in "-t 1" "-t 3" "-b 7" "-b 1 --page-size 16" "--isa ref"; do
    run eval -m "$story" -f text.txt -c 64 --save-logits other.logits --json $how
    check "the same bytes with $how" 'exits 0' 'cmp -s out first' 'cmp -s other.logits story.logits'
done
run eval -m "$story" -f text.txt --reference-logits story.logits --json
check "a model is no distance from itself" 'exits 0' '[ "$(value kl_divergence)" = 0 ]' '[ "$(value delta_p)" = 0 ]' \
    '[ "$(value same_top)" = 1 ]' '[ "$(value perplexity_ratio)" = 1 ]' 'prints "\"n_ctx\": 64"'
run eval -m "$story" -f text.txt --reference-logits story.logits --kv f32 --chunks 2
check "fewer chunks than the reference has" 'exits 0' 'quiet' 'prints "62 positions in 2 chunks of 64 tokens"' 'prints "KL divergence, 99 %"'

run eval -m a.gguf -f text.txt -c 33 --chunks 3 --save-logits a.logits
check "lines for people" 'exits 0' 'quiet' 'prints "48 positions in 3 chunks of 33 tokens"' 'prints "+/-"'
run eval -m b.gguf -f text.txt --reference-logits a.logits --json
if command -v python3 >/dev/null; then
    cp out b.json
    "$M" tokenize -m a.gguf --special --json -f text.txt >ids.json
    cat >definition.py <<'END'
import array, json, math, subprocess, sys
program = sys.argv[1]
ids = json.load(open("ids.json"))
ids = ids["tokens"] if isinstance(ids, dict) else ids
n_ctx, vocab, rows = 33, 700, {"a": [], "b": []}
nexts = []
for chunk in range(3):
    part = ids[chunk * n_ctx:(chunk + 1) * n_ctx]
    run = [ids[0]] + part[1:]
    open("chunk.txt", "w").write(" ".join(map(str, run)))
    for name in rows:
        subprocess.run([program, "logits", "-m", name + ".gguf", "--tokens", "chunk.txt", "-o", "chunk.f32"], check=True)
        all = array.array("f", open("chunk.f32", "rb").read())
        for i in range(n_ctx // 2, n_ctx - 1):
            x = all[i * vocab:(i + 1) * vocab]
            m = max(x)
            s = m + math.log(math.fsum(math.exp(v - m) for v in x))
            rows[name].append([v - s for v in x])
    nexts += part[n_ctx // 2 + 1:]
n = len(nexts)
def mean(values):
    m = math.fsum(values) / n
    return m, math.sqrt(math.fsum((v - m) ** 2 for v in values) / n / (n - 1))
def quantile(values, f):
    values = sorted(values)
    at = f * (n - 1)
    i = int(at)
    return values[i] if i + 1 >= n else values[i] + (at - i) * (values[i + 1] - values[i])
nll = [-r[t] for r, t in zip(rows["b"], nexts)]
base = [-r[t] for r, t in zip(rows["a"], nexts)]
kl = [math.fsum(math.exp(p) * (p - q) for p, q in zip(a, b)) for a, b in zip(rows["a"], rows["b"])]
dp = [math.exp(-q) - math.exp(-p) for q, p in zip(nll, base)]
same = sum(a.index(max(a)) == b.index(max(b)) for a, b in zip(rows["a"], rows["b"])) / n
f = json.load(open("b.json"))
def close(found, expected, what):
    assert abs(found - expected) <= 1e-9 + 1e-7 * abs(expected), (what, found, expected)
m, e = mean(nll)
close(f["positions"], n, "positions")
close(f["perplexity"]["value"], math.exp(m), "perplexity")
close(f["perplexity"]["error"], math.exp(m) * e, "its error")
close(f["reference_perplexity"]["value"], math.exp(mean(base)[0]), "reference")
r, e = mean([a - b for a, b in zip(nll, base)])
close(f["log_perplexity_ratio"]["value"], r, "ratio")
close(f["log_perplexity_ratio"]["error"], e, "its error")
for name, values in ("kl_divergence", kl), ("delta_p", dp):
    m, e = mean(values)
    close(f[name]["mean"], m, name)
    close(f[name]["error"], e, name)
    for q, at in ("min", 0), ("p1", .01), ("median", .5), ("p99", .99), ("max", 1):
        close(f[name][q], quantile(values, at), name + q)
close(f["delta_p"]["rms"], math.sqrt(math.fsum(v * v for v in dp) / n), "rms")
close(f["same_top"]["value"], same, "same")
assert f["kl_divergence"]["mean"] > 0
END
    check "all figures follow from the raw logits" 'python3 definition.py "$M"'
else
    echo "# SKIP no python3 here: the figures of minim eval were not recomputed"
fi

# ---- what cannot be

run eval -m "$story"
check "no text" 'exits 2' 'one_line' 'empty' 'says "-f FILE"'
for bad in "-c 3" "--chunks 0" "--save-logits -" "--save-logits x --reference-logits story.logits"; do
    run eval -m "$story" -f text.txt $bad
    check "a wrong option: $bad" 'exits 2' 'one_line' 'empty'
done
run eval -m "$story" -f missing.txt
check "a text that is not there" 'exits 1' 'one_line' 'empty' 'says missing.txt'
head -c 300 text.txt >short.txt
run eval -m "$story" -f short.txt --save-logits short.logits
check "a text shorter than two contexts" 'exits 1' 'one_line' 'empty' 'says short.txt' 'says 1024' '[ ! -e short.logits ]'
: >empty.txt
run eval -m "$story" -f empty.txt -c 4
check "an empty text" 'exits 1' 'one_line' 'says empty.txt'
cp text.txt copy.txt
run eval -m "$story" -f copy.txt -c 64 --save-logits copy.txt
check "logits in place of the text" 'exits 1' 'one_line' 'says copy.txt' 'cmp -s copy.txt text.txt'
run eval -m "$story" -f text.txt -c 64 --save-logits nowhere/x
check "logits to a folder that is not there" 'exits 1' 'one_line' 'says nowhere/x' 'empty'
if [ -e /dev/full ]; then
    run eval -m "$story" -f text.txt -c 64 --save-logits /dev/full
    check "logits to a full disk" 'exits 1' 'one_line' 'says /dev/full' 'empty'
    (
        ulimit -f 40 # blocks of 1 KiB
        trap '' XFSZ
        echo old >kept.logits
        run eval -m "$story" -f text.txt -c 64 --save-logits kept.logits
        exits 1 && one_line && alone && [ "$(cat kept.logits)" = old ]
    )
    code=$?
    check "a disk that gets full keeps the old file" 'exits 0'
    timeout 60 "$M" eval -m "$story" -f text.txt -c 64 >/dev/full 2>err
    code=$?
    check "figures to a full disk" 'exits 1' 'one_line'
fi

# The same logits as llama-perplexity --save-all-logits keeps them: 16 bits over the 16 nats below the best.
if command -v python3 >/dev/null; then
    cat >to16.py <<'END'
import array, math, struct, sys
data = open(sys.argv[1], "rb").read()
vocab, ctx, chunks = struct.unpack_from("<III", data, 12)
start, out = 24 + 4 * ctx * chunks, open(sys.argv[2], "wb")
out.write(b"_logits_" + struct.pack("<III", ctx, vocab, chunks) + data[24:start])
logits = array.array("f", data[start:])
for at in range(0, len(logits), vocab):
    row = logits[at : at + vocab]
    best = max(row)
    least = max(min(row), best - 16)
    total = math.log(sum(math.exp(x - best) for x in row))
    scale = (best - least) / 65535
    codes = [max(0, round((x - least) / scale)) for x in row] + [0] * (vocab % 2)
    out.write(struct.pack("<ff", scale, least - best - total) + array.array("H", codes).tobytes())
END
    run synth "${tiny[@]}" --vocab 701 --type f32 c.gguf
    run eval -m c.gguf -f text.txt -c 33 --chunks 3 --save-logits c.logits
    for model in story c; do
        file=$story
        [ $model = story ] || file=c.gguf
        python3 to16.py $model.logits ${model}16.logits
        run eval -m "$file" -f text.txt --reference-logits ${model}16.logits --json
        check "what llama-perplexity keeps of $model is near" 'exits 0' 'quiet' 'prints "\"n_ctx\": "' \
            'awk "BEGIN { exit !($(value kl_divergence) < 2e-5 && $(value kl_divergence) > -1e-6) }"' \
            'awk "BEGIN { exit !($(value same_top) > 0.99) }"'
    done
    head -c -1 story16.logits >cut16.bad
    head -c 15 story16.logits >header16.bad
    { cat story16.logits; echo; } >long16.bad
    { head -c -1032 story16.logits; printf '\0\0\300\177'; tail -c 1028 story16.logits; } >nan16.bad
fi

# damage NAME OFFSET BYTES: a copy of the reference with some bytes replaced.
damage() {
    cp story.logits "$1" && printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
damage magic.bad 0 X
damage version.bad 8 '\002'
damage vocab.bad 12 '\377\377\377\377'
damage ctx0.bad 16 '\0\0\0\0'
damage ctx.bad 16 '\377\377\377\377'
damage chunks0.bad 20 '\0\0\0\0'
damage chunks.bad 20 '\377\377\377\177'
damage tokens.bad 28 '\377\377\377\377'
damage nan.bad $(($(stat -c %s story.logits) - 4)) '\0\0\300\177'
head -c 20 story.logits >header.bad
head -c -1 story.logits >cut.bad
head -c 100 story.logits >tokens2.bad
{ cat story.logits; echo; } >long.bad
: >empty.bad
for file in *.bad; do
    run eval -m "$story" -f text.txt --reference-logits "$file"
    check "reference logits: $file" 'exits 1' 'one_line' 'empty' "says '$file: '" 'says expected' 'says found'
done
timeout 60 "$M" eval -m "$story" -f text.txt --reference-logits <(head -c 60000 story.logits) >out 2>err
code=$?
check "reference logits that end in a pipe" 'exits 1' 'one_line' 'empty' 'says "end of the file"'
run eval -m "$q4" -f text.txt --reference-logits a.logits
check "reference logits of another vocabulary" 'exits 1' 'one_line' 'empty' 'says a.logits' 'says 700'
sed 's/day/dog/' text.txt >edited.txt
run eval -m "$story" -f edited.txt --reference-logits story.logits
check "reference logits of another text" 'exits 1' 'one_line' 'empty' 'says story.logits' 'says "token "'
run eval -m "$story" -f text.txt --reference-logits story.logits -c 32
check "reference logits of another context" 'exits 1' 'one_line' 'says 32' 'says 64'
run eval -m "$story" -f text.txt --reference-logits .
check "reference logits that are a folder" 'exits 1' 'one_line' 'empty'

[ $failures = 0 ]
