#!/bin/bash
# The minim program as its users meet it: answers on stdout, everything else on stderr, exit codes, bad input.
set -u
M=$PWD/${B:-build}/minim
data=$PWD/tests/data
story=$PWD/models/stories260K.gguf
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
unset OPENAI_BASE_URL OPENAI_API_KEY MINIM_ISA
export HOME=$work XDG_CONFIG_HOME=$work
cd "$work" || exit 1
number=0 failures=0 code=0
slow=${SAN:+10} # sanitizers need more time

# run ARGS...: the program with an empty standard input; then $code, and the files out and err.
run() {
    timeout 60 "$M" "$@" >out 2>err </dev/null
    code=$?
}
# The same with a text on standard input.
feed() {
    local input=$1
    shift
    printf '%b' "$input" | timeout 60 "$M" "$@" >out 2>err
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
            head -c 400 out | sed 's/^/  stdout: /'
            head -c 400 err | sed 's/^/  stderr: /'
            failures=$((failures + 1))
            return
        fi
    done
    echo "ok $number - $name"
}
exits() { [ "$code" = "$1" ]; }
prints() { [ "$(cat out)" = "$1" ]; }
quiet() { [ ! -s err ]; }
empty() { [ ! -s out ]; }
one_line() { [ "$(wc -l <err)" = 1 ]; }
says() { grep -qF -- "$1" err; }

read -r -d '' expected <<'END'
Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.
Lily's mom said, "Lily, let's go to the park." Lily was sad and didn't know what to do.
END

# ---- answers

run run -n 101
check "without a text the built-in model tells its story word for word" 'exits 0' 'prints "$expected"'
check "the statistics are one line on stderr" 'one_line' 'says "load "' 'says "first token"' 'says "prefill 5 tokens"' 'says GB/s'
run run -q -n 101 "Once upon a time"
check "with a text only what follows is printed" 'exits 0' 'prints "${expected#Once upon a time}"' 'quiet'
run run -q --echo -n 101 -p "Once upon a time"
check "--echo prints the text first" 'exits 0' 'prints "$expected"'
feed 'Once upon a time\n' run -q -n 101
check "a text on standard input loses one newline" 'exits 0' 'prints "${expected#Once upon a time}"'
printf 'Once upon a time' >prompt.txt
run run -q -n 101 -f prompt.txt
check "a text comes from a file" 'exits 0' 'prints "${expected#Once upon a time}"'
run run -q -n 101 -m "$story" "Once upon a time"
check "a model comes from a file" 'exits 0' 'prints "${expected#Once upon a time}"'
run run -q -n 101 --stop "girl" "Once upon a time"
check "a stop string ends the answer and is not printed" 'exits 0' 'prints ", there was a little "'
run run -q -n 20 --temp 0.8 --top-k 40 --top-p 0.9 --seed 7 "Once"
cp out first
run run -q -n 20 --temp 0.8 --top-k 40 --top-p 0.9 --seed 7 -t 1 -b 3 --page-size 16 "Once"
check "a seed gives the same text for any threads, batch and page size" 'exits 0' 'cmp -s out first' '[ -s out ]'
feed 'a \xff\xfe b \xc3' run -q -n 4
check "a text that is not UTF-8 is accepted" 'exits 0' 'quiet'
run run -q -n 101 --prompt-cache session "Once upon a time"
check "--prompt-cache leaves the tokens in a file" 'exits 0' '[ -s session ]' 'prints "${expected#Once upon a time}"'
run run -n 101 --prompt-cache session "Once upon a time"
check "and finds them there the next time" 'exits 0' 'prints "${expected#Once upon a time}"' 'says "prefill 1 tokens"'
head -c 3000 session >cut && run run -q -n 5 --prompt-cache cut "Once upon a time"
check "a damaged file is refused, and stays" 'exits 1' 'one_line' 'says "cut: "' '[ "$(wc -c <cut)" = 3000 ]'

run run --json -q -n 12 --logprobs 2 "Once upon a time"
check "--json is one object with text, tokens, stop reason, timings and log-probabilities" 'exits 0' \
    '[ "$(wc -l <out)" = 1 ]' 'grep -q "\"text\": \", there was a" out' 'grep -q "\"stop\": \"length\"" out' \
    'grep -q "\"generated_tokens\": 12" out' 'grep -q "\"decode_tokens_per_second\": " out' \
    'grep -q "\"logprobs\": \[{\"token\": " out' '[ "$(grep -o "\"margin\"" out | wc -l)" = 12 ]'
if command -v python3 >/dev/null; then
    check "python reads the JSON" 'python3 -c "import json, sys; o = json.load(open(\"out\")); sys.exit(len(o[\"tokens\"]) != 12)"'
else
    echo "# SKIP no python3 here: the JSON output was not parsed"
fi

# ---- bad input: one line, exit code 1

printf 'hello, this is no model' >other.txt
: >empty.gguf
head -c 100000 "$story" >cut.gguf
head -c 30 "$story" >cut-header.gguf
LC_ALL=C sed 's/llama/lzama/g' "$story" >unknown.gguf
LC_ALL=C sed 's/output_norm.weight/output_norm.weighd/' "$story" >missing.gguf
mkdir directory
run run -m nowhere.gguf hello
check "a model that is not there" 'exits 1' 'one_line' 'empty' 'says nowhere.gguf' 'says "No such file"'
run run -m directory hello
check "a directory" 'exits 1' 'one_line' 'empty' 'says "directory"'
for case in empty.gguf cut.gguf cut-header.gguf other.txt unknown.gguf missing.gguf; do
    run run -m $case hello
    check "a bad model file: $case" 'exits 1' 'one_line' 'empty' "says $case"
done
run run -m unknown.gguf hello
check "an unknown architecture is named, and the known ones" 'says lzama' 'says llama'
run run -m missing.gguf hello
check "a missing tensor is named" 'says output_norm.weight'
run run -f nowhere.txt
check "a text file that is not there" 'exits 1' 'one_line' 'says nowhere.txt'
run run -f directory
check "a directory as a text file" 'exits 1' 'one_line' 'says directory'
run run -c 4 "This text has more than four tokens."
check "a context too small for the text" 'exits 1' 'one_line' 'empty' 'says 4'
if [ "$(id -u)" = 0 ]; then
    echo "# SKIP running as root, who can read every file"
else
    cp "$story" secret.gguf && chmod 000 secret.gguf
    run run -m secret.gguf hello
    check "an unreadable file" 'exits 1' 'one_line' 'says secret.gguf' 'says "Permission denied"'
fi
if [ -e /dev/full ]; then
    timeout 60 "$M" run -n 5 hello >/dev/full 2>err
    code=$? && : >out
    check "a full disk is an error" 'exits 1' 'says "No space left"'
fi

# ---- the command line: exit code 2

run
check "no command shows the help" 'exits 2' 'says "usage: minim"' 'empty'
run frobnicate
check "an unknown command" 'exits 2' 'one_line' 'says frobnicate' 'says --help'
run run --frobnicate 3
check "an unknown option" 'exits 2' 'one_line' 'says --frobnicate' 'says "minim run --help"'
for bad in "-n x" "-n 3x" "-n 0" "-n -2" "--temp nan" "--temp -1" "--top-p 1.5" "--top-k -1" "--seed -1" "--kv f8" "-t 9999" "-c" \
    "--page-size 17" "--min-p ''" "--json=1" "--stop ''" "-p a -f b" "a b" "--logprobs 2"; do
    eval "run run $bad"
    check "a wrong option: $bad" 'exits 2' 'one_line' 'empty'
done
run run -n 5 -q -- -n
check "-- ends the options" 'exits 0' '[ -s out ]'
run run -n=5 hello
check "a short option takes no =" 'exits 2'
run run -q --predict=5 hello
check "a long option does" 'exits 0' '[ -s out ]'
run --version
check "--version" 'exits 0' 'grep -qE "^minim [0-9]+\.[0-9]+\.[0-9]+$" out' 'quiet'
run --help
check "--help lists the commands and exit codes" 'exits 0' 'quiet' 'grep -q tokenize out' 'grep -q "130 " out'
for command in run chat ask inspect tokenize logits; do
    run $command --help
    check "minim $command --help" 'exits 0' 'quiet' "grep -q 'usage: minim $command' out" 'grep -q -- --help out'
done

run route
check "minim route without a subcommand lists them" 'exits 2' 'empty' 'says "subcommands:"'
run route nonsense
check "minim route knows its subcommands" 'exits 2' 'empty' 'one_line' 'says "route nonsense"'

# ---- tokenize

run tokenize "Once upon a time"
check "tokenize prints ids on one line" 'exits 0' 'quiet' 'prints "403 407 261 378"'
run tokenize --special "Once upon a time"
check "--special adds BOS" 'prints "1 403 407 261 378"'
run tokenize --special "</s>"
cp out with
run tokenize "</s>"
check "--special reads control tokens, and text is only text without it" '[ "$(cat with)" = "1 2" ]' '[ "$(wc -w <out)" -gt 2 ]'
printf 'Zwölf Boxkämpfer, 日本語 🦙\n\n  and  spaces \n' >text.txt
timeout 60 "$M" tokenize -f text.txt >ids.txt && run tokenize --decode -f ids.txt
check "text survives the way there and back byte for byte" 'exits 0' 'cmp -s out text.txt'
run tokenize --ids "403 407"
check "--ids takes ids from the command line" 'exits 0' 'prints "Once upon"'
run tokenize --speed -f text.txt
check "--speed says how fast it is" 'exits 0' 'grep -q "^51 bytes, [0-9]* tokens: [0-9.]* MB/s" out'
run tokenize --speed --json "a"
check "--speed prints nothing else" 'exits 2'
feed '"Once upon a time"\n""\n"\\u0048\\u0069 \\ud83e\\udd99"\n"Hi \xf0\x9f\xa6\x99"' tokenize --jsonl
check "--jsonl answers every line with an array" 'exits 0' '[ "$(wc -l <out)" = 4 ]' \
    '[ "$(sed -n 1p out)" = "[403, 407, 261, 378]" ]' '[ "$(sed -n 2p out)" = "[]" ]' \
    '[ "$(sed -n 3p out)" = "$(sed -n 4p out)" ]'
feed '"a\xff\\u0000b"\n' tokenize --jsonl
check "--jsonl takes NUL and bytes that are not UTF-8" 'exits 0' '[ "$(wc -l <out)" = 1 ]'
for bad in 'hello' '"open' '"a" b' '"\\x"' '"\\ud800"' '"\\udc00\\ud800"' '"\\u12g4"' '"tab\there"' '' '["a"]' '3'; do
    feed "\"good\"\n$bad\n" tokenize --jsonl
    check "a line that is no JSON string: $bad" 'exits 1' 'one_line' 'says "line 2"' '[ "$(wc -l <out)" = 1 ]'
done
run tokenize --ids "403 512"
check "an id outside the vocabulary" 'exits 1' 'one_line' 'says 512' 'says 511'
run tokenize --ids "403 -1"
check "a negative id" 'exits 1' 'one_line'
run tokenize --json "Hi <s>"
check "tokenize --json has text, tokens and pieces" 'exits 0' 'grep -q "\"text\": \"Hi <s>\"" out' 'grep -q "\"pieces\": \[" out'
run tokenize -m cut-header.gguf hello
check "tokenize with a damaged file" 'exits 1' 'one_line' 'says cut-header.gguf'

# ---- inspect

run inspect "$story"
check "inspect shows the model, the memory plan, metadata and tensors" 'exits 0' 'quiet' 'grep -q "architecture *llama" out' \
    'grep -q "5 layers" out' 'grep -q "KV cache" out' 'grep -q "general.architecture" out' 'grep -q "token_embd.weight" out'
check "long arrays are shortened" '[ "$(wc -c <out)" -lt 20000 ]'
# U+009B begins a control sequence as ESC [ does.
LC_ALL=C sed 's/\(general\.name.\{12\}\)llama/\1a\xc2\x9b2J/' "$story" >steering.gguf
run inspect steering.gguf
check "inspect does not pass on what steers a terminal" 'exits 0' 'grep -q "name  *a??2J" out' \
    '! LC_ALL=C grep -q "$(printf "\302\233")" out'
run inspect --json steering.gguf
check "inspect --json does not either" 'exits 0' 'grep -q "\"name\": \"a.u009b2J\"" out' \
    '! LC_ALL=C grep -q "$(printf "\302\233")" out'
run inspect
check "inspect without a file shows the built-in model" 'exits 0' 'grep -q "built-in model" out'
check "inspect says what is special about the family" 'grep -q "^  special  " out' 'grep -q "^  heads .*2 queries share" out' \
    'grep -q "^  positions .*pairs side by side" out' 'grep -q "^  output .*its own" out'
run inspect --brief "$story"
check "inspect --brief is a screen" 'exits 0' '[ "$(wc -l <out)" -le 24 ]' 'grep -q "^  special  " out' \
    'grep -q "together  " out' 'grep -q "keys: --meta, 48 tensors: --tensors" out' '! grep -q token_embd out'
run inspect --json "$story"
check "inspect --json" 'exits 0' '[ "$(wc -l <out)" = 1 ]' 'grep -q "\"n_vocab\": 512" out' 'grep -q "\"kv_per_token\": " out'
if command -v python3 >/dev/null; then
    check "python reads that JSON" 'python3 -c "
import json, sys
o = json.load(open(\"out\"))
sys.exit(not (len(o[\"tensors\"]) == 48 and o[\"memory\"][\"n_ctx\"] == 128))"'
fi
run inspect --tensors "$story"
check "inspect --tensors leaves the rest out" 'exits 0' 'grep -q "blk.0.attn_q.weight" out' '! grep -q general.architecture out'
run inspect "$data/quants/iq3_s.gguf" --tensors
check "inspect says which types take the slower path" 'exits 0' 'grep -q "tailed.weight *IQ3_S *512 x 8 .*blocks" out'
run inspect "$data/quants/q4_k.gguf" --tensor plain.weight
check "inspect --tensor shows one" 'exits 0' 'grep -q plain.weight out' '! grep -q bits.weight out'
run inspect "$data/quants/q4_k.gguf" --tensor plain.weight --dump values.f32
check "inspect --dump writes its values" 'exits 0' 'quiet' 'empty' '[ "$(wc -c <values.f32)" = 3072 ]' \
    '[ "$(od -An -tf4 -N4 values.f32 | tr -d " ")" != 0 ]'
run inspect "$data/quants/q4_k.gguf" --tensor plain.weight --dump -
check "inspect --dump to standard output" 'exits 0' 'cmp -s out values.f32'
run inspect "$data/quants/q4_k.gguf" --tensor other --dump values.f32
check "inspect --dump of a tensor that is not there" 'exits 1' 'one_line' 'says "no tensor other"' '[ -s values.f32 ]'
run inspect "$data/quants/q4_k.gguf" --dump values.f32
check "inspect --dump without a tensor" 'exits 2' 'says "--tensor"'
run inspect unknown.gguf
check "inspect reads a model that minim cannot run" 'exits 0' 'grep -q lzama out' 'grep -q "no plan" out'
run inspect other.txt
check "inspect of another format" 'exits 1' 'one_line' 'says other.txt' 'empty'

# ---- logits

fixture=$data/logits/llama
run logits -m "$fixture/model.gguf" --tokens "$fixture/tokens.txt" -o all.f32 --kv f32 -c 256
check "logits writes one row a token" 'exits 0' '[ "$(stat -c %s all.f32)" = $((40 * 512 * 4)) ]' '[ "$(ls | grep -c part)" = 0 ]'
run logits -m "$fixture/model.gguf" --tokens "$fixture/tokens.txt" -o - --kv f32 -c 256 -b 7 -t 3 --page-size 16 --isa ref
check "the same bytes in chunks of 7, on 3 threads, by the reference kernels, to standard output" 'exits 0' 'cmp -s out all.f32'
run logits -m "$fixture/model.gguf" --tokens "$fixture/tokens.txt" -o q8.f32 --kv q8 -c 256
run logits -m "$fixture/model.gguf" --tokens "$fixture/tokens.txt" -o - --kv q8_0 -c 256 -b 7 -t 3 --page-size 16 --isa ref
check "so with int8 keys and values, which give other bytes" 'exits 0' 'cmp -s out q8.f32' '! cmp -s q8.f32 all.f32'
run logits -m "$fixture/model.gguf" --tokens "$fixture/tokens.txt" -o small.f32 -c 16
check "logits of more tokens than the context" 'exits 1' 'one_line' 'says 16' 'says 40' '[ ! -e small.f32 ]'
printf '1 2 three' >bad.txt
run logits -m "$fixture/model.gguf" --tokens bad.txt -o bad.f32
check "logits of what is no id" 'exits 1' 'one_line' 'says bad.txt' 'says three' '[ ! -e bad.f32 ]'
run logits -m "$fixture/model.gguf" --tokens "$fixture/tokens.txt" -o nowhere/x.f32
check "logits to a folder that is not there" 'exits 1' 'one_line' 'says nowhere/x.f32'
run logits -m "$fixture/model.gguf"
check "logits without --tokens" 'exits 2' 'one_line'

# ---- chat

feed 'Once upon a time\n/stats\n/reset\n\n/frobnicate\n/exit\nnever read\n' chat -n 5
check "chat answers lines from a pipe, without a prompt sign" 'exits 0' '[ "$(wc -l <out)" = 1 ]' '! grep -q ">" out' \
    'says "context: "' 'says "unknown command"'
feed 'Once upon a time\nand then\nand so on\n' chat -q -n 5
check "chat keeps going until the input ends" 'exits 0' '[ "$(wc -l <out)" = 3 ]' 'quiet'
feed 'Once upon a time\nA little more of this text.\nAnd a little more of it.\nAnd more.\n' chat -c 64 -n 10
check "chat forgets the oldest turns when the context is full" 'exits 0' '[ "$(wc -l <out)" -ge 4 ]' 'says forgot'
feed "$(printf 'word %.0s' {1..200})\nOnce upon\n" chat -q -c 64 -n 5
check "chat goes on after a message that does not fit" 'exits 0' 'one_line' 'says "does not fit"' '[ -s out ]'
run chat --chat-format nonsense
check "an unknown chat format" 'exits 2' 'one_line' 'says nonsense'
run run --chat-template nonsense hello
check "the same of minim run, by the option's other name" 'exits 2' 'one_line' 'says nonsense'
run chat --chat-format help
check "the chat formats are listed" 'exits 0' 'quiet' 'grep -qx llama2 out' 'grep -qx chatml out' 'grep -qx qwen3 out'
feed 'Once\n"""\n/help is\n\nno command  \n"""\n"""one"""\n/export saved.json\n' chat -q -n 4
check "a block of lines is one message, and the conversation is exported" 'exits 0' '[ "$(wc -l <out)" = 3 ]' \
    'grep -q "\"content\": \"/help is\\\\n\\\\nno command  \"}" saved.json' 'grep -q "\"content\": \"one\"" saved.json' \
    '[ "$(grep -c "\"assistant\"" saved.json)" = 3 ]' 'says "6 messages"'
feed 'Once\n/export\n/export nowhere/x.json\n/save\n/save nowhere/x\n/load\n"""\nnever ended' chat -q -n 4
check "a chat goes on after it cannot be saved, and answers an open block" 'exits 0' '[ "$(wc -l <out)" = 2 ]' \
    'says "/export needs"' 'says "nowhere/x.json: No such file"' 'says "/save needs"' 'says "/load needs"' \
    'says "nowhere/x: cannot be written: No such file"'
feed 'Once upon\n"""a\n12\n"""\nthere\n/export want.json\n' chat -q -n 4 -sys "A story"
cp out want
feed 'Once upon\n"""a\n12\n"""\n/save kept.chat\n' chat -q -n 4 -sys "A story"
check "a chat is saved" 'exits 0' 'says "5 messages saved in kept.chat"'
cp out got
feed 'something else\n/load kept.chat\n/stats\nthere\n/export got.json\n' chat -q -n 4 -sys "Another"
check "and goes on where it was, without computing anything again" 'exits 0' 'says "5 messages loaded"' \
    'cmp want.json got.json' '! says "context: 0 "' '[ "$(tail -c 9 out)" = "$(tail -c 9 want)" ]'
feed 'Once upon\n/save full.chat\nand then she went to the big red house\nwhat was it\n/load full.chat\n' chat -q -n 60 -c 128
check "also into a chat whose context is full" 'exits 0' 'says "context of 128 tokens is full"' 'says "2 messages loaded"'
# refused FILE TEXT: the chat says TEXT, and goes on with what it had
refused() {
    feed "Once upon\\n/load $1\\nand\\n/export got.json\\n" chat -q -n 4
    check "a chat that cannot be loaded goes on as it was ($2)" 'exits 0' '[ "$(wc -l <err)" = 2 ]' "says '$2'" \
        '[ "$(grep -c role got.json)" = 4 ]'
}
refused nowhere.chat "nowhere.chat: No such file"
refused saved.json "saved.json: is no saved sequence"
run run -q -n 2 --prompt-cache text.cache Once
refused text.cache "text.cache: holds no conversation"
head -c -1 kept.chat >cut.chat
refused cut.chat "cut.chat: has"
cp kept.chat other.chat
printf 'x' | dd of=other.chat bs=1 seek=200 conv=notrunc 2>/dev/null
refused other.chat "other.chat:"
feed 'Once\n/load kept.chat\n' chat -q -n 2 --kv q8
check "a chat fits one type of cache" 'exits 0' 'says "kept.chat: was saved with another KV type"'
feed 'Once\n"""\nupon\na time"""\n' chat -q --json -n 4 -sys "A story"
check "chat --json prints an object a line" 'exits 0' 'quiet' '[ "$(wc -l <out)" = 2 ]' \
    '[ "$(grep -c "^{\"text\": .*\"stop\": \"length\", \"prompt_tokens\": [0-9]*, .*\"generated_tokens\": 4}$" out)" = 2 ]'

# with_template TEXT FILE: the built-in model with a chat template of 85 bytes, which keep the tensors aligned.
with_template() {
    local key=tokenizer.chat_template
    {
        head -c 16 "$story"
        printf '\x14\0\0\0\0\0\0\0' # 19 keys and one more
        printf '\x17\0\0\0\0\0\0\0%s\x08\0\0\0\x55\0\0\0\0\0\0\0%-85s' "$key" "$1"
        tail -c +25 "$story"
    } >"$2"
}
with_template "{{ '<|im_start|>' + role + '\n' + content + '<|im_end|>' }}" chatml.gguf
with_template "{{ role + ': ' + content }}" odd.gguf
feed 'Once upon a time\n' chat -q -n 4 -m odd.gguf
check "a template that is not known ends the chat at once and says what to do" 'exits 1' 'one_line' 'empty' \
    'says odd.gguf' 'says "--chat-format NAME"'
feed 'Once upon a time\n' chat -q -n 4 -m odd.gguf --chat-format raw
check "--chat-format overrides it" 'exits 0' 'quiet' '[ -s out ]'
run run -q --json -n 2 -m chatml.gguf --chat "Once upon a time"
cp out answered
# ---- speculation: the same text, whatever is guessed

again="Lily saw a cat. Tim saw a dog. Lily saw a cat. Tim saw a dog. Lily saw a"
run run -q -n 40 --lookup off "$again"
cp out plain
check "run --lookup off" 'exits 0' 'quiet'
for option in "--lookup auto" "--lookup 3 --draft-min 3" "--draft $story" "--draft $story --draft-max 4 --draft-min 4"; do
    run run -q -n 40 $option "$again"
    check "run $option says the same" 'exits 0' 'quiet' 'cmp -s out plain'
done
run run -n 40 --lookup off --draft "$story" --draft-min 4 "$again"
check "the line of figures tells how many guesses were right" 'exits 0' 'one_line' 'says "100 % right"' 'says "tokens a step"'
run run -q -n 40 --json --lookup off --draft "$story" --draft-min 4 --accept-min-p 0.5 "$again"
check "and so does JSON" 'exits 0' 'grep -qE "\"guessed_tokens\": [1-9]" out' 'grep -qE "\"accepted_tokens\": [1-9]" out' \
    'grep -q "\"overruled_tokens\": 0" out' 'grep -qE "\"steps\": [1-9]" out'
for option in "--lookup 17" "--lookup x" "--lookup ''" "--draft-max 4" "--accept-min-p 0.5" "--draft $story --accept-min-p 2"; do
    eval run run $option x
    check "run $option is a mistake" 'exits 2' 'one_line' 'empty'
done
run run --draft nowhere.gguf x
check "a draft that is not there" 'exits 1' 'one_line' 'says nowhere.gguf'

run run -q --json -n 2 -m "$story" --chat-format chatml "Once upon a time"
check "run --chat takes the file's chat format" 'exits 0' 'quiet' '[ "$(sed "s/,.*//" out)" != "" ]' \
    '[ "$(grep -o "\"tokens\": [^]]*" out)" = "$(grep -o "\"tokens\": [^]]*" answered)" ]' \
    '[ "$(grep -o "\"prompt_tokens\": [0-9]*" out)" = "$(grep -o "\"prompt_tokens\": [0-9]*" answered)" ]'
run run -n 101 -m chatml.gguf "Once upon a time"
check "run continues the text even then, and says that there is --chat" 'exits 0' 'prints "${expected#Once upon a time}"' \
    'says "--chat makes it a message"'
run run -q -n 4 -m odd.gguf --chat "Once upon a time"
check "run --chat does not guess" 'exits 1' 'one_line' 'says "--chat-format NAME"'

# ---- memory

if [ -n "${SAN:-}" ]; then
    echo "# SKIP sanitizers are at work: not under valgrind as well"
elif command -v valgrind >/dev/null; then
    timeout 120 valgrind -q --leak-check=full --error-exitcode=9 --log-file=valgrind.txt "$M" run -q -n 3 hello >out 2>err </dev/null
    code=$?
    check "valgrind finds nothing wrong with minim run" 'exits 0' '[ ! -s valgrind.txt ]' '[ -s out ]'
else
    echo "# SKIP no valgrind here"
fi

# ---- Ctrl-C and pipes

# An answer that does not end, in a context that takes long to fill.
endless=(run -m "$fixture/model.gguf" -c 2000000 --ignore-eos "Once upon a time")
set -m # so that SIGINT is not ignored by the background job
timeout --foreground 100 "$M" "${endless[@]}" >out 2>err </dev/null &
pid=$!
for _ in $(seq 100); do [ -s out ] && break; sleep 0.1; done
begin=$SECONDS
kill -INT $pid
wait $pid
code=$?
check "Ctrl-C stops an answer with exit code 130 and its statistics" 'exits 130' '[ -s out ]' 'says "first token"' \
    '[ $((SECONDS - begin)) -lt ${slow:-5} ]'
set +m

timeout --foreground 100 "$M" "${endless[@]}" 2>err </dev/null | head -c 20 >out
code=${PIPESTATUS[0]}
check "a reader that closes the pipe ends the answer quietly" 'exits 0' '[ "$(wc -c <out)" = 20 ]' 'quiet'

yes '"hello there"' 2>/dev/null | head -n 20000 >many.jsonl
for command in "tokenize --jsonl -f many.jsonl" "inspect --full" "logits --tokens $fixture/tokens.txt -o -" "--help"; do
    timeout 60 "$M" $command 2>err </dev/null | head -c 10 >out
    code=${PIPESTATUS[0]}
    check "a closed pipe is no error of minim ${command%% *}" 'exits 0' '[ "$(wc -c <out)" = 10 ]' 'quiet'
    [ -e /dev/full ] || continue
    timeout 60 "$M" $command 2>err </dev/null >/dev/full
    code=$? && : >out
    check "a full disk is one of minim ${command%% *}" 'exits 1' 'one_line' 'says "No space left"'
done

mkfifo pipe
set -m
timeout --foreground 100 "$M" chat -q -m "$fixture/model.gguf" -c 2000000 --ignore-eos <pipe >out 2>err &
pid=$!
exec 3>pipe
echo "Once upon a time" >&3
for _ in $(seq 100); do [ -s out ] && break; sleep 0.1; done
kill -INT $pid
printf '/stats\n/exit\n' >&3
exec 3>&-
wait $pid
code=$?
check "Ctrl-C stops the answer and not the chat" 'exits 0' '[ -s out ]' 'says stopped' 'says "context: "'
set +m

yes "a long story " 2>/dev/null | head -n 100000 | tr -d '\n' >long.txt
set -m
"$M" run -m "$fixture/model.gguf" -c 2000000 -n 5 -f long.txt >out 2>err </dev/null &
pid=$!
sleep ${slow:-1}
kill -INT $pid
wait $pid
code=$?
check "Ctrl-C within a prompt makes up no speed" 'exits 130' 'says "ended within the prompt"'
set +m

# ---- what lies at the name of an output

cp "$story" own.gguf
echo "1 2 3" >ids
for command in "inspect own.gguf --tensor output.weight --dump own.gguf" "logits -m own.gguf --tokens ids -o own.gguf" \
    "logits --tokens ids -o ids"; do
    run $command
    check "minim $command does not overwrite its input" 'exits 1' 'says "would overwrite an input"' \
        'cmp -s own.gguf "$story"' '[ "$(cat ids)" = "1 2 3" ]'
done
feed '/save own.gguf\n/exit\n' chat -q -m own.gguf
check "/save does not overwrite the model" 'says "would overwrite"' 'cmp -s own.gguf "$story"'
feed '/save pipe\n/exit\n' chat -q
check "/save does not take the place of a pipe" 'says "found a directory, a pipe or a device"' '[ -p pipe ]'

echo old >real
ln -s real link
run logits --tokens ids -o link
check "the output goes where a link points to" 'exits 0' '[ -L link ]' '[ "$(wc -c <real)" -gt 4 ]'

for signal in TERM HUP; do
    "$M" synth --shape tinyllama-1.1b --quiet big.gguf 2>err </dev/null &
    pid=$!
    for _ in $(seq 100); do ls big.gguf.*.part >/dev/null 2>&1 && break; sleep 0.05; done
    kill -$signal $pid
    wait $pid 2>/dev/null
    code=$?
    check "SIG$signal ends a program that leaves nothing half-written" '[ $code -gt 128 ]' '[ -z "$(ls big.gguf* 2>/dev/null)" ]'
done

printf 'GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0' >none.gguf
run quantize --type Q8_0 none.gguf none.out
check "a file without tensors is nothing to quantise" 'exits 1' 'says "holds no tensors"' '[ ! -e none.out ]'
printf '\377\330' >bytes
run logits --tokens bytes -o x
check "a byte that is no text is shown by its number" 'exits 1' 'says "found the byte 0xff"'

[ $failures = 0 ]
