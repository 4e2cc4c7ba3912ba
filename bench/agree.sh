#!/bin/bash
# How far llama.cpp and minim are apart on files that `minim quantize` makes: for every type and method, the mean KL
# divergence of the next token over a text, in both directions of a triangle:
#
#   llama - minim   both read the file
#   exact - minim   "exact" is the same file with its weights as float32 (--type F32), and so with activations that are not rounded
#   llama - exact
#
# Both engines round activations to 8 bits, each in its way: the three are of the same size when that is all they differ in.
#
# usage: LLAMA_PERPLEXITY=... [LLAMA_ARGS=--no-repack] bench/agree.sh MODEL.gguf TEXT CALIBRATION [TYPE...]
set -eu
MINIM=${MINIM:-build/minim} llama=${LLAMA_PERPLEXITY:?the program llama-perplexity} n_ctx=${N_CTX:-128}
model=$1 text=$2 calibration=$3
shift 3
[ $# -gt 0 ] || set -- Q8_0 Q6_K Q5_K Q4_K Q3_K Q2_K Q5_1 Q5_0 Q4_1 Q4_0 IQ4_NL IQ4_XS Q4_K_M F16
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

kl() { # MODEL REFERENCE: mean KL divergence, and in how many of 100 positions the most likely token is the same
    "$MINIM" eval -q -m "$1" -f "$text" -c "$n_ctx" --reference-logits "$2" |
        awk '/^KL divergence, mean/ { kl = $4 } /^same most likely token/ { same = $5 } END { printf "%.6f | %.1f", kl, same }'
}

echo "| type | method | llama - minim | same token, % | exact - minim | same token, % | llama - exact | same token, % |"
echo "|---|---|---|---|---|---|---|---|"
for type; do
    for method in nearest search gptq; do
        [ "$type$method" != F16search ] && [ "$type$method" != F16gptq ] || continue
        more=()
        [ $method != gptq ] || more=(--calibrate "$calibration" -c "$n_ctx")
        "$MINIM" quantize -q --type "$type" --method $method "${more[@]}" "$model" "$folder/q.gguf"
        "$MINIM" quantize -q --type F32 "$folder/q.gguf" "$folder/exact.gguf"
        # shellcheck disable=SC2086
        "$llama" -m "$folder/q.gguf" -f "$text" -c "$n_ctx" ${LLAMA_ARGS:-} --save-all-logits "$folder/llama" >"$folder/log" 2>&1 ||
            { tail -n 5 "$folder/log" >&2; exit 1; }
        "$MINIM" eval -q -m "$folder/exact.gguf" -f "$text" -c "$n_ctx" --save-logits "$folder/exact" >/dev/null
        echo "| $type | $method | $(kl "$folder/q.gguf" "$folder/llama") | $(kl "$folder/q.gguf" "$folder/exact") |" \
            "$(kl "$folder/exact.gguf" "$folder/llama") |"
    done
done
