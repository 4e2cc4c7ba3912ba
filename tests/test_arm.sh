#!/bin/bash
# minim for 64-bit Arm: cross-compiled, and run under qemu. Every kernel against ref, and logits against the golden ones
# and, bit for bit, against those of this machine, for every instruction set. Skipped where packages are missing;
# `make test-arm` (ARM=must) then fails.
set -u
B=${B:-build} number=0 code=0
cross=aarch64-linux-gnu

skip() {
    if [ "${ARM:-}" = must ]; then
        echo "not ok 1 - $1"
        exit 1
    fi
    echo "# SKIP Arm: $1"
    exit 0
}

[ "$(uname -m)" != aarch64 ] || skip "this machine is one, the other tests have run on it"
[ -z "${SAN:-}" ] || skip "not again with sanitizers"
missing=
command -v $cross-gcc >/dev/null || missing="$missing gcc-$cross"
command -v qemu-aarch64 >/dev/null || missing="$missing qemu-user"
[ -n "$missing" ] || echo '#include <stdio.h>' | $cross-gcc -fsyntax-only -x c - 2>/dev/null || missing=" libc6-dev-arm64-cross"
[ -z "$missing" ] || skip "missing:$missing"

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

check() { # NAME COMMAND...
    number=$((number + 1))
    local name=$1
    shift
    if output=$("$@" 2>&1); then
        echo "ok $number - $name"
    else
        echo "not ok $number - $name"
        echo "$output" | tail -n 20
        code=1
    fi
}

# Static, so that nothing of the target's system is needed; without the libraries that are there for this machine only.
arm=$B/arm64
check "everything compiles for Arm without warnings" env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS ${MAKE:-make} \
    B="$arm" CC=$cross-gcc AR=$cross-ar CFLAGS="-O3 -Werror" LDFLAGS=-static APT=no HAVE_CURL= HAVE_JANSSON= HAVE_EDIT= \
    HAVE_BLAS= HAVE_CMOCKA= HAVE_HTTPD= all "$arm/tests/checkkern" "$arm/tests/checkbits"
[ $code = 0 ] || exit 1

# The longest part goes on in the background; with a part of the cases, unless Arm is what is asked for.
[ "${ARM:-}" = must ] && percent=100 || percent=25
qemu-aarch64 -cpu max "$arm/tests/checkkern" --percent $percent >"$work/kernels.txt" 2>&1 &
kernels=$!

# ---- each processor takes the best it has ------------------------------------------------------------------------------

best() { # CPU
    qemu-aarch64 -cpu "$1" "$arm/tests/checkkern" 2>/dev/null | sed -n 's/^ok *no limit = best *\([a-z0-9_]*\).*/\1/p;q'
}
check "a Cortex-A72 takes neon" test "$(best cortex-a72)" = neon
check "a Neoverse N1 takes neon_dotprod" test "$(best neoverse-n1)" = neon_dotprod
check "a processor with everything takes neon_i8mm" test "$(best max)" = neon_i8mm

# ---- logits ------------------------------------------------------------------------------------------------------------

run_logits() { # CPU LEVEL OUTPUT OPTION...
    local cpu=$1 level=$2 output=$3
    shift 3
    qemu-aarch64 -cpu "$cpu" "$arm/minim" logits -q --isa "$level" -o "$output" "$@"
}

near() { # FILE GOLDEN: as many numbers, none further apart than 3e-4
    [ "$(wc -c <"$1")" = "$(wc -c <"$2")" ] &&
        paste <(od -An -v -w4 -tf4 "$1") <(od -An -v -w4 -tf4 "$2") |
        awk '{ d = $1 - $2; if ($1 !~ /^-?[0-9]/ || d > 3e-4 || d < -3e-4) { print "line " NR ": " $0; exit 1 } }'
}

tokens=tests/data/logits/llama/tokens.txt
for family in llama llama-ropefreqs llama-linear llama-bias; do
    data=tests/data/logits/$family
    "$B/minim" logits -q --kv f32 -m $data/model.gguf --tokens $data/tokens.txt -o "$work/here"
    for level in ref neon neon_dotprod neon_i8mm; do
        run_logits max $level "$work/arm" --kv f32 -m $data/model.gguf --tokens $data/tokens.txt
        check "$level: logits of $family are near the golden ones" near "$work/arm" $data/logits.f32
        check "$level: logits of $family have the bits of this machine" cmp "$work/arm" "$work/here"
        rm -f "$work/arm"
    done
done
"$B/minim" logits -q --tokens $tokens -o "$work/here"
for level in ref neon neon_dotprod neon_i8mm; do
    for batch in 1 3 40; do
        run_logits max $level "$work/arm" --tokens $tokens -b $batch
        check "$level: logits of stories260K, $batch tokens a step, have the bits of this machine" cmp "$work/arm" "$work/here"
        rm -f "$work/arm"
    done
done

# No instruction that an older processor lacks.
for processor in cortex-a72:neon neoverse-n1:neon_dotprod; do
    run_logits ${processor%:*} ${processor#*:} "$work/arm" --tokens $tokens
    check "logits of stories260K on a ${processor%:*} have the bits of this machine" cmp "$work/arm" "$work/here"
    rm -f "$work/arm"
done

# Models of every weight type; test_engine.c has their digests.
all_known() { # FILE MODEL LEVEL
    awk -v model="$2" -v level="$3" '$1 == model && $2 == level { print $6 }' "$1" >"$work/found"
    [ "$(wc -l <"$work/found")" -ge 2 ] || return 1
    while read -r digest; do
        grep -q "\"$digest\"" tests/test_engine.c || { echo "$digest is not in tests/test_engine.c"; return 1; }
    done <"$work/found"
}

check "checkbits runs" sh -c "qemu-aarch64 -cpu max '$arm/tests/checkbits' >'$work/bits.txt'"
for level in ref neon neon_dotprod neon_i8mm; do
    for model in Q4_0 Q8_0 F16 BF16 long long_q8; do
        check "$level: logits of the $model model have the bits that test_engine.c expects" \
            all_known "$work/bits.txt" $model $level
    done
done

# ---- kernels -----------------------------------------------------------------------------------------------------------

wait $kernels
check "checkkern ends well" test $? = 0
awk -v n=$number '/^ok /     { sub(/^ok */, "");     print "ok " ++n " - kernel " $0 }
                  /^FAILED / { sub(/^FAILED */, ""); print "not ok " ++n " - kernel " $0 }
                  /^FAILED: /{ print "not ok " ++n " - " $0 }' "$work/kernels.txt"
for level in neon neon_dotprod neon_i8mm; do
    grep -q "^ok  *matmul q4_0  *$level " "$work/kernels.txt" || { echo "not ok 0 - checkkern did not check $level"; code=1; }
done
exit $code
