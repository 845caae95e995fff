#!/usr/bin/env bash
# run.sh SECONDS [TARGET...] : builds the targets (default: all of targets/) and runs each for so long, from the corpus in
# fuzz/corpus and from what earlier runs have found. Prints the executions of each; fails at the first input that breaks something, and keeps it.
#   FUZZ_DIR   where inputs are kept: corpus/TARGET, broken/TARGET, and logs (default: target/fuzz)
set -euo pipefail
[ $# -ge 1 ] || { sed -n 2,5p "$0" >&2; exit 2; }
cd "$(dirname "${BASH_SOURCE[0]}")"
seconds=$1; shift
FUZZ_DIR=${FUZZ_DIR:-$PWD/../target/fuzz}
targets=${*:-$(basename -s .rs targets/*.rs)}

cargo build --locked --release
programs=../target/fuzz/$(rustc -vV | sed -n 's/^host: //p')/release
# What the server's threads have: recursion must not need more.
ulimit -s 2048
total=0
for target in $targets; do
    found=$FUZZ_DIR/corpus/$target broken=$FUZZ_DIR/broken/$target log=$FUZZ_DIR/$target.log
    mkdir -p "$found" "$broken"
    tar -C "$found" -xzf "corpus/$target.tar.gz"
    if ! "$programs/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="$broken/" "$found" >"$log" 2>&1; then
        tail -60 "$log"
        echo "$target: FAILED, the input is in $broken"
        exit 1
    fi
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "$target: $executions executions, $(sed -n 's/^stat::peak_rss_mb: *//p' "$log") MiB at most," \
        "$(sed -n 's/.*DONE *cov: \([0-9]*\).*/\1/p' "$log") places covered"
    total=$((total + executions))
done
echo "fuzz: $total executions passed"
