#!/bin/bash
# Questions with known answers for the built-in model, for `minim route collect`: it samples a story; a beginning of it
# is a prompt, and right is how the story went on. usage: stories.sh [STORIES] > prompts.tsv
set -eu
minim=${B:-build}/minim
printf 'prompt\texpect\n'
for seed in $(seq 100 $((99 + ${1:-200}))); do
    { printf Once && "$minim" run -q -n 110 --temp 1 --seed "$seed" Once; } | tr '\n\t\\' '   '
    echo
done | LC_ALL=C awk '
    length($0) > 120 {
        for (cut = 0; cut < 7; cut++) { # the first 60 bytes are always much the same
            at = int(60 + (length($0) - 66) * cut / 7)
            while (at < length($0) && substr($0, at + 1, 1) != " ") at++ # at the end of a word
            if (at + 6 <= length($0)) print substr($0, 1, at) "\t" substr($0, at + 1, 6)
        }
    }'
