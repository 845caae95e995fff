#!/usr/bin/env bash
# run.sh [-n ROUNDS] [-s SECONDS] [-k OBJECTS] [-b BYTES] [-v PERCENT] [-m MEMORY] [-w WRITERS] [-d DIR] : Ombak's embedded store against
# RocksDB, at the level of rows and without a network. A put reads an object's row and replaces it, durably, one sync for all who write at
# the same time; a get reads it. Both engines have the same rows, values, keys, memory and disk, and take turns; each
# round gives ratios. RocksDB's puts are measured in two ways, and the faster one counts: each writer asks for a synced write
# (rocksdb), or a thread syncs for all who have written meanwhile, as Ombak does (rocksdb-gathered).
#   -n  rounds (default 5)            -s  seconds of each run, after one that is not counted (default 20)
#   -k  objects (default 1000000)     -b  bytes of a value (default 1024, at most 3072)
#   -v  percentage of a value that is random, and does not compress (default 50: text 8, random 100)
#   -m  bytes of memory for each engine: cache, filters and new rows (default 536870912)
#   -w  readers and writers at the same time (default 64)      -d  directory on the disk (default: target)
# The build takes twenty minutes and needs a C++ compiler and libclang (Debian: apt-get install g++ clang libclang-dev).
# CARGO_TARGET_DIR names a directory where it was built before, if not target here.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${CARGO_TARGET_DIR:-$here/target}
rounds=5 seconds=20 objects=1000000 bytes=1024 percent=50 memory=536870912 writers=64 dir=$here/target
usage() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { print substr($0, 3) }' "$0"; exit "$1"; }
while getopts n:s:k:b:v:m:w:d:h option; do
    case $option in
        n) rounds=$OPTARG ;;
        s) seconds=$OPTARG ;;
        k) objects=$OPTARG ;;
        b) bytes=$OPTARG ;;
        v) percent=$OPTARG ;;
        m) memory=$OPTARG ;;
        w) writers=$OPTARG ;;
        d) dir=$OPTARG ;;
        h) usage 0 ;;
        *) usage 2 >&2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# = 0 ] || usage 2 >&2

# Bindgen looks for libclang itself; what it says when there is none comes after minutes of building.
if ! ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib*/libclang*.so* /usr/lib/*/libclang*.so* "${LIBCLANG_PATH:-/none}"/libclang* >/dev/null 2>&1 &&
    ! find /usr/lib /usr/lib64 -name 'libclang*.so*' 2>/dev/null | grep -q .; then
    echo "run.sh: there is no libclang here: apt-get install clang libclang-dev (or set LIBCLANG_PATH)" >&2
    exit 1
fi
(cd "$here" && cargo build --locked --release)
mkdir -p "$dir"
work=$(mktemp -d "$dir/rocksdb.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Both ways of RocksDB's are at home in one directory.
measure() { # engine action seed
    local home=$1
    [ "$home" != rocksdb-gathered ] || home=rocksdb
    "$target/release/ombak-rocksdb" --engine "$1" --action "$2" --seed "$3" --dir "$work/$home" --objects "$objects" --value-bytes "$bytes" \
        --value-random-percent "$percent" --writers "$writers" --seconds "$seconds" --memory "$memory" | tee -a "$work/$2.$1"
}
value() { sed -nE "s/.*\b$1=([0-9.]+).*/\1/p"; }
row() { # name file format
    sort -g "$2" | awk -v name="$1" -v format="$3" '
        { value[NR] = $1 }
        END {
            median = NR % 2 ? value[(NR + 1) / 2] : (value[NR / 2] + value[NR / 2 + 1]) / 2
            printf "%-44s " format " " format " " format "\n", name, value[1], median, value[NR]
        }'
}
# Ratios of each round.
compare() { # action rival name
    local figure
    for figure in per_second p99_us p999_us; do
        paste <(value "$figure" <"$work/$1.ombak") <(value "$figure" <"$work/$1.$2") | awk '{ printf "%.3f\n", $1 / $2 }' >"$work/ratio"
        row "$1: $figure, ombak / $2" "$work/ratio" '%10.2f'
    done
}

echo "$rounds rounds of $seconds s, $objects objects of $bytes bytes, $percent % random, $writers writers, $memory bytes of memory each"
echo "$(nproc) processors, $(uname -sr), on $(df --output=source,fstype "$work" | tail -1 | tr -s ' '); load before: $(cut -d' ' -f1-3 /proc/loadavg)"
for engine in ombak rocksdb; do
    echo "load, $engine: $(measure "$engine" load 1)" >&2
done
for round in $(seq "$rounds"); do
    order='ombak rocksdb rocksdb-gathered'
    [ $((round % 2)) = 1 ] || order='rocksdb-gathered rocksdb ombak'
    for action in put get; do
        for engine in $order; do
            # Nobody writes while others only read.
            [ "$action-$engine" != get-rocksdb-gathered ] || continue
            echo "round $round, $action, $engine: $(measure "$engine" "$action" $((round + 1)))" >&2
        done
    done
done
printf '%-44s %10s %10s %10s\n' '' min median max
for engine in rocksdb rocksdb-gathered; do compare put "$engine"; done
compare get rocksdb
for action in put get; do
    for file in "$work/$action."*; do
        for figure in per_second p50_us p99_us p999_us rows_read rows_put row_bytes read_bytes written_bytes memory_bytes; do
            value "$figure" <"$file" >"$work/figures"
            row "    $(basename "$file"): $figure" "$work/figures" '%10.1f'
        done
    done
done
echo "disk: ombak $(du -sm "$work/ombak" | cut -f1) MiB, rocksdb $(du -sm "$work/rocksdb" | cut -f1) MiB; load after: $(cut -d' ' -f1-3 /proc/loadavg)"
