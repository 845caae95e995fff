#!/usr/bin/env bash
# stalls.sh steady | updates [OPTION...] : how long single requests wait while the server is busy with something else.
#
# steady: puts at an even rate, while what was put is carried to tables and these are merged, and beside them appends with fdatasync on
# the same disk. Lists the seconds whose longest put took more than --stall-ms. A second counts as a stall where as much is left after
# the longest fdatasync of this second and the one before is subtracted: a put that waits for the disk is answered after it.
#   --rate N       puts a second (default: 5000)             --seconds S   (default: 600)
#   --objects N    keys, all of which are there before (default: 1000000)      --value-random-percent P   (default: 50)
#   --stall-ms MS  (default: 100)
# updates: one client adds members to a set, very many in each update; 64 others put. First updates back to back: the 99th percentile of
# puts beside them and without, in windows that alternate. Then one update in each window: the longest put with and without.
#   --elements N   members that an update adds (default: 200000)
#   --updates N    windows of each kind (default: 3)         --seconds S   of each window (default: 10)
#   --objects N    (default: 10000)
# both: --memory BYTES  the server's store_memory_bytes_max      --dir DIR  directory on the disk (default: target)
#       --connections N  that put (default: 64)                  --results DIR  keeps there what each second saw
#       --check  fails where there was a stall; or where a 99th percentile (the median of windows) is more than twice that without, or
#                the longest put (the median of windows) 25 ms longer than the longest without
#   OMBAK   the program (default: target/release/ombak, which is built first)
# Linux only: what the server reads, writes and takes is told by /proc.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
usage() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { print substr($0, 3) }' "$0"; exit "$1"; }
what=${1:-}
case $what in
    steady) seconds=600 objects=1000000 ;;
    updates) seconds=10 objects=10000 ;;
    -h | --help) usage 0 ;;
    *) usage 2 >&2 ;;
esac
shift
rate=5000 stall_ms=100 random_percent=50 elements=200000 updates=3 connections=64 memory= dir=$root/target results= check=
while [ $# -gt 0 ]; do
    if [ "$1" = --check ]; then check=1; shift; continue; fi
    [ $# -gt 1 ] || usage 2 >&2
    case $1 in
        --rate) rate=$2 ;;
        --seconds) seconds=$2 ;;
        --objects) objects=$2 ;;
        --value-random-percent) random_percent=$2 ;;
        --stall-ms) stall_ms=$2 ;;
        --elements) elements=$2 ;;
        --updates) updates=$2 ;;
        --connections) connections=$2 ;;
        --memory) memory=$2 ;;
        --dir) dir=$2 ;;
        --results) results=$2 ;;
        *) usage 2 >&2 ;;
    esac
    shift 2
done

mkdir -p "$dir" ${results:+"$results"}
work=$(mktemp -d "$dir/stalls.XXXXXX")
kept=${results:-$work}
beside=
# shellcheck source=../tests/support/server.sh
. "$root/tests/support/server.sh"
# shellcheck source=measure.sh
. "$root/benches/measure.sh"
stop_beside() { [ -z "$beside" ] || { kill "$beside" && wait "$beside"; } 2>/dev/null || true; beside=; }
trap 'stop_beside; kill_server; rm -rf "$work"' EXIT
if [ -z "${OMBAK:-}" ]; then
    (cd "$root" && cargo build --locked --release)
    OMBAK=$root/target/release/ombak
fi
use_memory stalls.sh "$memory"

bench() { # workload argument...
    local workload=$1; shift
    "$OMBAK" bench "$workload" --host "127.0.0.1:$PORT" --json "$@"
}
put() { # argument...
    bench put --connections "$connections" --keys "$objects" --value-random-percent "$random_percent" "$@"
}

# Waits for what runs beside.
end_beside() {
    local pid=$beside
    beside=
    wait "$pid" || { echo "stalls.sh: what ran beside the puts failed:" >&2; cat "$work/beside" >&2; return 1; }
}

steady() {
    local before after
    thread_times "$SERVER_PID" >"$work/threads-before"
    before=$(io_counter "$SERVER_PID" write_bytes)
    # It lasts as long as the puts, their warm-up included, whose series begins with one of its seconds.
    "$OMBAK" bench fsync --dir "$work" --value-bytes 128 --warm-up-ms 0 --seconds $((seconds + 3)) --series "$kept/fsync.csv" --json \
        >"$work/beside" 2>&1 &
    beside=$!
    put --rate "$rate" --seconds "$seconds" --series "$kept/puts.csv" >"$work/puts"
    end_beside
    after=$(io_counter "$SERVER_PID" write_bytes)
    thread_times "$SERVER_PID" >"$work/threads-after"
    echo "puts a second: $(json_number requests_per_second <"$work/puts" | cut -d. -f1) of $rate, us: p50 $(json_number p50 <"$work/puts")," \
        "p99 $(json_number p99 <"$work/puts"), p99.9 $(json_number p999 <"$work/puts"), max $(json_number max <"$work/puts")"
    echo "fdatasync, us: p50 $(json_number p50 <"$work/beside"), p99 $(json_number p99 <"$work/beside")," \
        "p99.9 $(json_number p999 <"$work/beside"), max $(json_number max <"$work/beside")"
    echo "the server wrote $(((after - before) / 1048576)) MiB; processor time, as parts of the whole: $(
        thread_parts "$work/threads-before" "$work/threads-after" | cut -f2- | tr '\t' ' ')"
    awk -F, -v stall_us=$((stall_ms * 1000)) -v stall_ms="$stall_ms" '
        FNR == 1 { file++; next }
        file == 1 { floor[$1] = $5; next }
        {
            seconds++
            if ($5 > longest) longest = $5
            if ($5 <= stall_us) next
            disk = floor[$1] > floor[$1 - 1000] ? floor[$1] : floor[$1 - 1000]
            left = $5 - disk
            over++
            if (left > stall_us) stalls++
            printf "    second %d: longest put %.1f ms, longest fdatasync %.1f ms%s\n", seconds, $5 / 1000, disk / 1000, (left > stall_us ? ": a STALL" : "")
        }
        END {
            printf "%d seconds, the longest put took %.1f ms; %d seconds with one of more than %d ms, %d of them stalls\n", seconds, longest / 1000,
                over, stall_ms, stalls
            exit stalls > 0
        }' "$kept/fsync.csv" "$kept/puts.csv" || missed=1
}

median() { sort -g | awk '{ value[NR] = $1 } END { print NR % 2 ? value[(NR + 1) / 2] : (value[NR / 2] + value[NR / 2 + 1]) / 2 }'; }
p99() { json_number p99 <"$work/puts"; }
longest() { json_number max <"$work/puts"; }

updates() {
    local window
    for window in $(seq "$updates"); do
        put --seconds "$seconds" --series "$kept/without-$window.csv" >"$work/puts"
        p99 >>"$work/p99-without"
        # Longer than the puts, with their warm-up.
        bench bigset --bucket "back-to-back-$window" --connections 1 --elements "$elements" --keys $((elements * 1000)) --warm-up-ms 0 \
            --seconds $((seconds + 2)) >"$work/beside" 2>&1 &
        beside=$!
        put --seconds "$seconds" --series "$kept/beside-$window.csv" >"$work/puts"
        end_beside
        p99 >>"$work/p99-beside"
        echo "updates back to back, window $window: p99 of puts $(tail -1 "$work/p99-beside") us, without $(tail -1 "$work/p99-without") us;" \
            "$(json_number requests_with_warm_up <"$work/beside") updates, the longest took $(json_number max <"$work/beside") us"
    done
    for window in $(seq "$updates"); do
        put --seconds "$seconds" >"$work/puts"
        longest >>"$work/longest-without"
        {
            # In the midst of the puts.
            sleep $((seconds / 2))
            bench bigset --bucket "single-$window" --connections 1 --elements "$elements" --keys "$elements" --each-once
        } >"$work/beside" 2>&1 &
        beside=$!
        put --seconds "$seconds" >"$work/puts"
        end_beside
        longest >>"$work/longest-beside"
        echo "one update, window $window: longest put $(tail -1 "$work/longest-beside") us, without $(tail -1 "$work/longest-without") us;" \
            "the update took $(json_number max <"$work/beside") us"
    done
    awk -v beside="$(median <"$work/p99-beside")" -v without="$(median <"$work/p99-without")" \
        -v longest="$(median <"$work/longest-beside")" -v longest_without="$(sort -g "$work/longest-without" | tail -1)" 'BEGIN {
            printf "p99 of puts beside updates %d us, without %d us: %.2f x (at most 2)\n", beside, without, beside / without
            printf "longest put beside one update %.1f ms, the longest without %.1f ms: %.1f ms more (at most 25)\n", longest / 1000,
                longest_without / 1000, (longest - longest_without) / 1000
            exit beside > 2 * without || longest > longest_without + 25000
        }' || missed=1
}

start_server "$work/server"
echo "$("$OMBAK" --version), $(nproc) processors, $(uname -sr), on $(df --output=source,fstype "$work" | tail -1 | tr -s ' '); load before:" \
    "$(cut -d' ' -f1-3 /proc/loadavg)"
put --pipeline 16 --each-once >"$work/loaded"
missed=
"$what"
stop_server
echo "load after: $(cut -d' ' -f1-3 /proc/loadavg)"
[ -z "$missed" ] || [ -z "$check" ]
