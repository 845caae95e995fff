#!/usr/bin/env bash
# pack.sh [TARGET...] : makes the corpus in fuzz/corpus anew: of all inputs that runs and seeds.sh have left in FUZZ_DIR/corpus, the
# few that together reach every place which all of them reach. Run it after run.sh, which builds the targets.
#   FUZZ_DIR   where run.sh keeps inputs (default: target/fuzz)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
FUZZ_DIR=${FUZZ_DIR:-$PWD/../target/fuzz}
targets=${*:-$(basename -s .rs targets/*.rs)}
programs=../target/fuzz/$(rustc -vV | sed -n 's/^host: //p')/release
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ulimit -s 2048
for target in $targets; do
    mkdir -p "$work/$target" "$FUZZ_DIR/corpus/$target" corpus
    # How often a place is reached is not looked at: the corpus would be ten times as large.
    "$programs/$target" -set_cover_merge=1 -use_counters=0 -max_len=2048 "$work/$target" "$FUZZ_DIR/corpus/$target" \
        >"$work/$target.log" 2>&1 || { tail -20 "$work/$target.log" >&2; exit 1; }
    # Equal inputs make equal archives.
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$work/$target" -c . | gzip -9n >"corpus/$target.tar.gz"
    echo "$target: $(find "$work/$target" -type f | wc -l) inputs, $(stat -c %s "corpus/$target.tar.gz") bytes packed"
done
