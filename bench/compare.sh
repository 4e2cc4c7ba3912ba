#!/bin/bash
# Compares minim with llama.cpp and ik_llama.cpp from end to end: same file, same threads, interleaved.
#
#     LLAMA_BENCH=.../llama.cpp/build/bin/llama-bench IK_BENCH=.../ik_llama.cpp/build/bin/llama-bench \
#     bench/compare.sh -m model.gguf [-p 512] [-n 64] [-d 0] [-t 2] [-r ROUNDS]
#
# In each round every program runs all tests once (after its own warm-up), in turning order, with the bandwidth of memory
# and the peak of multiply-adds measured before and after. Ratios are taken within a round; what is printed is the median
# of the rounds and, as spread, smallest and largest. More names: MINIM, LIMITS (programs), IK_REPACK=1 (also run
# ik_llama.cpp with -rtr 1), MINIM_ARGS, LLAMA_ARGS, IK_ARGS (further options), PEAK (the multiply-add that prompts are held
# against; default "vpdpbusd zmm", and the fastest for int8 where that is missing).
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
MINIM=${MINIM:-$root/build/minim}
LIMITS=${LIMITS:-$root/build/bench/bench_kernels}
model='' prompt=512 gen=64 depth=0 rounds=5
threads=$(nproc 2>/dev/null || echo 1)

fail() {
    echo "compare.sh: $1" >&2
    exit "${2:-1}"
}

while getopts m:p:n:d:t:r:h option; do
    case $option in
    m) model=$OPTARG ;;
    p) prompt=$OPTARG ;;
    n) gen=$OPTARG ;;
    d) depth=$OPTARG ;;
    t) threads=$OPTARG ;;
    r) rounds=$OPTARG ;;
    h)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    *) exit 2 ;;
    esac
done
[ -n "$model" ] || fail "-m FILE is missing" 2
[ -r "$model" ] || fail "$model can not be read"
case $rounds in '' | *[!0-9]* | 0) fail "-r: expected a number, found \"$rounds\"" 2 ;; esac
[ -x "$MINIM" ] || fail "$MINIM is not there: make"
[ -x "$LIMITS" ] || fail "$LIMITS is not there: make build/bench/bench_kernels"
engines=(minim)
if [ -n "${LLAMA_BENCH:-}" ]; then
    [ -x "$LLAMA_BENCH" ] || fail "LLAMA_BENCH: $LLAMA_BENCH is no program"
    engines+=(llama.cpp)
fi
if [ -n "${IK_BENCH:-}" ] && [ "$depth" != 0 ]; then
    echo "compare.sh: the llama-bench of ik_llama.cpp knows no depth and is left out" >&2
elif [ -n "${IK_BENCH:-}" ]; then
    [ -x "$IK_BENCH" ] || fail "IK_BENCH: $IK_BENCH is no program"
    engines+=(ik_llama.cpp)
    [ "${IK_REPACK:-}" != 1 ] || engines+=(ik_llama.cpp-rtr)
fi
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

# Lines "round limit NAME VALUE": GB/s of reads, GOPS of a multiply-add of int8: PEAK if it is there, else the fastest.
limits() {
    "$LIMITS" --limits --json -t "$threads" -r 3 --seconds 0.05 >"$work/limits" || fail "$LIMITS failed"
    awk -v round="$1" -v wanted="\"${PEAK:-vpdpbusd zmm}\"" '
        function median(line) { sub(/.*"median": /, "", line); return line + 0 }
        /"read_gbs"/ { print round, "limit", "read", median($0) }
        /"kind": "int8"/ && !found {
            found = index($0, wanted)
            if (found || median($0) > peak) peak = median($0)
        }
        END { if (peak) print round, "limit", "peak", peak }' "$work/limits" >>"$work/samples"
}

# Lines "round ENGINE TEST TOKENS_PER_SECOND", and for minim "round gbs|gops TEST VALUE".
run() { # ROUND ENGINE PROGRAM ARGS...
    local round=$1 engine=$2
    shift 2
    "$@" -m "$model" -p "$prompt" -n "$gen" -t "$threads" -r 1 -o json >"$work/out" 2>"$work/err" || {
        tail -n 5 "$work/err" >&2
        fail "$engine failed: $*"
    }
    awk -v round="$round" -v engine="$engine" '
        function value(line) { sub(/^[^:]*: */, "", line); gsub(/[",]/, "", line); return line }
        function name() { return (p ? "pp" p : "") (g ? (p ? "+" : "") "tg" g : "") (d ? "@d" d : "") }
        /^ *[{]/ { p = g = d = 0; speed = gbs = gops = "" }
        /"n_prompt":/ { p = value($0) + 0 }
        /"n_gen":/ { g = value($0) + 0 }
        /"n_depth":/ { d = value($0) + 0 }
        /"avg_ts":/ { speed = value($0) }
        /"weight_gb_per_second":/ { gbs = value($0) + 0 }
        /"matrix_gops":/ { gops = value($0) + 0 }
        /^ *[}]/ && speed != "" {
            print round, engine, name(), speed + 0
            if (gbs) print round, "gbs", name(), gbs
            if (gops) print round, "gops", name(), gops
            speed = ""
        }' "$work/out" >>"$work/samples"
}

run_engine() { # ROUND ENGINE
    local depth_args=()
    [ "$depth" = 0 ] || depth_args=(-d "$depth")
    # Lists of options are meant to fall into words.
    # shellcheck disable=SC2086
    case $2 in
    minim) run "$1" "$2" "$MINIM" bench "${depth_args[@]}" ${MINIM_ARGS:-} ;;
    llama.cpp) run "$1" "$2" "$LLAMA_BENCH" "${depth_args[@]}" ${LLAMA_ARGS:-} ;;
    ik_llama.cpp) run "$1" "$2" "$IK_BENCH" ${IK_ARGS:-} ;;
    ik_llama.cpp-rtr) run "$1" "$2" "$IK_BENCH" -rtr 1 ${IK_ARGS:-} ;;
    esac
}

: >"$work/samples"
for ((round = 1; round <= rounds; round++)); do
    echo "round $round of $rounds" >&2
    limits "$round"
    # There and back again, so that a drift inside a round hits nobody alone.
    for ((i = 0; i < ${#engines[@]}; i++)); do
        if ((round % 2)); then at=$i; else at=$((${#engines[@]} - 1 - i)); fi
        run_engine "$round" "${engines[$at]}"
    done
    limits "$round"
done

echo "$(basename "$model"), $threads threads, $rounds rounds, minim $("$MINIM" --version | cut -d' ' -f2), $(date -u +%F)"
awk -v engines="${engines[*]}" '
    function sort(n,    i, k, x) {
        for (i = 2; i <= n; i++) {
            x = v[i]
            for (k = i - 1; k > 0 && v[k] > x; k--) v[k + 1] = v[k]
            v[k + 1] = x
        }
    }
    function median(n) { return (v[int((n + 1) / 2)] + v[int(n / 2) + 1]) / 2 }
    function collect(who, test,    r, n) {
        n = 0
        for (r = 1; r <= rounds; r++) if ((r, who, test) in sum) v[++n] = sum[r, who, test] / count[r, who, test]
        sort(n)
        return n
    }
    # minim over another one, round by round
    function collect_ratio(who, test,    r, n) {
        n = 0
        for (r = 1; r <= rounds; r++)
            if ((r, "minim", test) in sum && (r, who, test) in sum && sum[r, who, test] > 0)
                v[++n] = sum[r, "minim", test] / count[r, "minim", test] / (sum[r, who, test] / count[r, who, test])
        sort(n)
        return n
    }
    function collect_share(what, limit, test,    r, n) {
        n = 0
        for (r = 1; r <= rounds; r++)
            if ((r, what, test) in sum && (r, "limit", limit) in sum)
                v[++n] = 100 * sum[r, what, test] / (sum[r, "limit", limit] / count[r, "limit", limit])
        sort(n)
        return n
    }
    {
        sum[$1, $2, $3] += $4
        count[$1, $2, $3]++
        if ($1 > rounds) rounds = $1
        if ($2 == "minim" && !($3 in seen)) { seen[$3] = 1; tests[++n_tests] = $3 }
    }
    END {
        n_engines = split(engines, engine, " ")
        n = collect("limit", "read")
        if (n) printf "memory reads %.1f GB/s (%.1f to %.1f)", median(n), v[1], v[n]
        n = collect("limit", "peak")
        if (n) printf ", multiply-adds %.0f GOPS (%.0f to %.0f)", median(n), v[1], v[n]
        print "\n"
        print "| test         | engine           |      t/s |      min |      max | minim is | spread        | of the limit |"
        print "| ------------ | ---------------- | -------: | -------: | -------: | -------: | ------------- | -----------: |"
        for (t = 1; t <= n_tests; t++) for (e = 1; e <= n_engines; e++) {
            test = tests[t]
            n = collect(engine[e], test)
            if (!n) continue
            printf "| %-12s | %-16s | %8.2f | %8.2f | %8.2f |", test, engine[e], median(n), v[1], v[n]
            if (engine[e] == "minim") {
                printf " %8s | %-13s |", "", ""
                n = collect_share("gbs", "read", test)
                unit = "reads"
                if (!n) { n = collect_share("gops", "peak", test); unit = "peak" }
                if (n) printf " %4.0f %% %5s |\n", median(n), unit
                else printf " %12s |\n", ""
            } else {
                n = collect_ratio(engine[e], test)
                printf " %7.2fx | %5.2f to %5.2f | %12s |\n", median(n), v[1], v[n], ""
            }
        }
    }' "$work/samples"
