#!/usr/bin/env bash
# large.sh [OPTION...] : a server that holds more data than its memory, against the same server with little. Each data set gets an
# empty directory and a server of its own, which is filled and then goes through the phases, keys being drawn at random: put and get
# of objects of 1 KiB, list (puts of 64 KiB beside a listing of all keys that begins again and again), counter (adds one), and set
# (adds members to one set that has them already). First everything runs with few keys: what the ratios refer to.
#   --objects N,...       objects of a data set (default: 1000000,4000000,16000000); one that the disk has no room for is left out
#   --values KIND,...     text, which compresses to about a tenth, half, or random, which does not compress (default: all three)
#   --counters N          (default: 4000000)      --members N   of the set (default: 10000000)
#   --phases NAME,...     (default: put,get,list,counter,set)
#   --seconds S           of each phase at least (default: 600)
#   --rewrites N          a phase also goes on until there were so many requests for each key on average (default: 2)
#   --few N               keys of the reference (default: 10000; 0 for no reference)      --few-seconds S   (default: 60)
#   --connections N       (default: 64)
#   --memory BYTES        the server's store_memory_bytes_max (default: the server's own)
#   --dir DIR             directory on the disk (default: target)
#   --results DIR         keeps there what each second saw, and the figures as results.tsv (default: nothing is kept)
#   --check               fails where a bound of --bounds is missed      --bounds   prints them
#   OMBAK   the program (default: target/release/ombak, which is built first)
# Linux only: what the server reads, writes and takes is told by /proc. list needs a Python 3.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
objects=1000000,4000000,16000000 values=text,half,random counters=4000000 members=10000000 phases=put,get,list,counter,set
seconds=600 rewrites=2 few=10000 few_seconds=60 connections=64 memory= dir=$root/target results= check=
usage() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { print substr($0, 3) }' "$0"; exit "$1"; }

# phase | figure | how it is compared | bound | unit: whatever the number of keys
bounds() {
    echo "put|of the reference|at least|0.4|x"
    echo "get|of the reference|at least|0.6|x"
    echo "put|99th percentile|at most|20|ms"
    echo "get|read from tables a request|at most|8192|bytes"
    local phase
    for phase in put get counter set; do echo "$phase|slowest second of the mean|at least|0.5|x"; done
    [ -z "$memory" ] || echo "*|most memory|at most|$((memory * 3 / 2))|bytes"
}

while [ $# -gt 0 ]; do
    case $1 in
        --check) check=1; shift; continue ;;
        --bounds) bounds | tr '|' ' '; exit ;;
        -h | --help) usage 0 ;;
    esac
    [ $# -gt 1 ] || usage 2 >&2
    case $1 in
        --objects) objects=$2 ;;
        --values) values=$2 ;;
        --counters) counters=$2 ;;
        --members) members=$2 ;;
        --phases) phases=$2 ;;
        --seconds) seconds=$2 ;;
        --rewrites) rewrites=$2 ;;
        --few) few=$2 ;;
        --few-seconds) few_seconds=$2 ;;
        --connections) connections=$2 ;;
        --memory) memory=$2 ;;
        --dir) dir=$2 ;;
        --results) results=$2 ;;
        *) usage 2 >&2 ;;
    esac
    shift 2
done
[ -r /proc/self/io ] || { echo "large.sh: there is no /proc/self/io here: this needs Linux" >&2; exit 2; }

# How much of a value is random.
random_percent() { # kind
    case $1 in
        text) echo 8 ;;
        half) echo 48 ;;
        random) echo 100 ;;
        *) echo "large.sh: there are no values of kind $1" >&2; exit 2 ;;
    esac
}
for kind in ${values//,/ }; do random_percent "$kind" >/dev/null; done
for phase in ${phases//,/ }; do
    [[ $phase =~ ^(put|get|list|counter|set)$ ]] || { echo "large.sh: there is no phase $phase" >&2; exit 2; }
done

mkdir -p "$dir" ${results:+"$results"}
work=$(mktemp -d "$dir/large.XXXXXX")
lister=
# shellcheck source=../tests/support/server.sh
. "$root/tests/support/server.sh"
# shellcheck source=measure.sh
. "$root/benches/measure.sh"
stop_lister() { [ -z "$lister" ] || { kill "$lister" && wait "$lister"; } 2>/dev/null || true; lister=; }
trap 'stop_lister; kill_server; rm -rf "$work"' EXIT
if [ -z "${OMBAK:-}" ]; then
    (cd "$root" && cargo build --locked --release)
    OMBAK=$root/target/release/ombak
fi
use_memory large.sh "$memory"
kept=${results:-$work}
columns=(set phase keys requests seconds per_second p50_us p99_us p999_us max_us slowest_second memory_most_bytes memory_end_bytes
    disk_bytes read_bytes any_read_bytes table_read_bytes written_bytes write_amplification processor_us processor_parts)
(IFS=$'\t'; echo "${columns[*]}") >"$kept/results.tsv"

say() { echo "$(date +%T) $*" >&2; }

bench() { # workload argument...
    local workload=$1; shift
    "$OMBAK" bench "$workload" --host "127.0.0.1:$PORT" --connections "$connections" --json "$@"
}

# Runs a phase and writes a line of figures; those of reading and writing are for each request, warm-up included. The phase load asks
# for every key once.
phase() { # data set, phase, keys, bytes that a request brings, workload, argument...
    local set=$1 name=$2 keys=$3 brought=$4 workload=$5; shift 5
    local least=$((keys * rewrites)) lasts=$seconds series=$kept/$set-$name.csv data=$work/server/data before after
    if [[ $set == few-* ]]; then least=0 lasts=$few_seconds; fi
    local extent=(--seconds "$lasts" --requests-min "$least")
    [ "$name" != load ] || extent=(--pipeline 16 --each-once)
    say "    $name"
    # Where it cannot be done the peak is that of all phases up to this one.
    reset_peak "$SERVER_PID" || true
    thread_times "$SERVER_PID" >"$work/threads-before"
    before=$(counted_now)
    bench "$workload" --keys "$keys" "${extent[@]}" --series "$series" "$@" >"$work/bench" || {
        cat "$work/bench" >&2
        return 1
    }
    after=$(counted_now)
    thread_times "$SERVER_PID" >"$work/threads-after"
    local requests latency
    requests=$(json_number requests_with_warm_up <"$work/bench")
    for latency in p50 p99 p999 max; do json_number "$latency" <"$work/bench"; done >"$work/latencies"
    {
        printf '%s\t%s\t%s\t' "$set" "$name" "$keys"
        printf '%s\t' "$(json_number requests <"$work/bench")" "$(json_number seconds <"$work/bench")"
        printf '%s\t' "$(json_number requests_per_second <"$work/bench")"
        paste -s "$work/latencies" | tr '\n' '\t'
        printf '%s\t' "$(slowest_second "$series")" "$(memory_bytes "$SERVER_PID" VmHWM)" "$(memory_bytes "$SERVER_PID" VmRSS)"
        printf '%s\t' "$(disk_bytes "$data")"
        printf '%s\n%s\n' "$before" "$after" | awk -F'\t' -v OFS='\t' -v requests="$requests" -v brought="$brought" '
            NR == 1 { for (i = 1; i <= 4; i++) before[i] = $i }
            NR == 2 {
                for (i = 1; i <= 4; i++) each[i] = $i == "" ? "" : sprintf("%.1f", ($i - before[i]) / requests)
                amplification = brought > 0 ? sprintf("%.2f", ($4 - before[4]) / requests / brought) : ""
                printf "%s\t%s\t%s\t%s\t%s\t", each[1], each[2], each[3], each[4], amplification
            }'
        thread_parts "$work/threads-before" "$work/threads-after" |
            awk -F'\t' -v requests="$requests" '{
                printf "%.1f\t", $1 * 1e6 / requests
                for (i = 2; i < NF; i += 2) printf "%s%s %.0f %%", (i > 2 ? ", " : ""), $i, $(i + 1) * 100
                printf "\n"
            }'
    } >>"$kept/results.tsv"
}

# Bytes that the server has read from the disk, from any file, and from tables by its own count; and written to the disk.
counted_now() {
    printf '%s\t%s\t%s\t%s\n' "$(io_counter "$SERVER_PID" read_bytes)" "$(io_counter "$SERVER_PID" rchar)" \
        "$(status_counter "$work/server/data" 'bytes read from tables')" "$(io_counter "$SERVER_PID" write_bytes)"
}

with_server() { # data set, function, argument...
    say "$1"
    start_server "$work/server"
    "${@:2}"
    stop_server
    expect_no_warnings "$work/server"
    rm -rf "$work/server"
}

wanted() { # phase
    [[ ,$phases, == *,$1,* ]]
}

key_bytes=16 member_bytes=19 value_bytes=1024 wide_bytes=65536 members_each=100
object_phases() { # data set, number, percentage of values that is random
    local value=(--value-random-percent "$3")
    phase "$1" load "$2" $((key_bytes + value_bytes)) put "${value[@]}"
    # Gets come after puts: tables that were only filled are in a better state than they stay in.
    ! wanted put || phase "$1" put "$2" $((key_bytes + value_bytes)) put "${value[@]}"
    ! wanted get || phase "$1" get "$2" 0 get --filled
    if wanted list && [[ $1 != few-* ]]; then
        python3 "$root/benches/list_keys.py" "$PORT" bench >"$work/listed" 2>&1 &
        lister=$!
        # The same few objects again and again: the disk is to hold the data set, and this beside it.
        phase "$1" list 2000 $((key_bytes + wide_bytes)) put --bucket wide --value-bytes "$wide_bytes" "${value[@]}"
        kill -0 "$lister" 2>/dev/null || { cat "$work/listed" >&2; return 1; }
        stop_lister
        say "        $(wc -l <"$work/listed") listings ended, the last: $(tail -1 "$work/listed")"
    fi
}
counter_phases() { # data set, number
    phase "$1" load "$2" "$key_bytes" counter
    phase "$1" counter "$2" "$key_bytes" counter
}
set_phases() { # data set, number
    phase "$1" load "$2" $((member_bytes * members_each)) bigset --elements "$members_each"
    phase "$1" set "$2" "$member_bytes" bigset
}

# Whether the disk has room for a data set: what it holds, what it replaces that has not yet been merged, and the log.
has_room() { # bytes of the data
    [ "$(free_bytes "$work")" -gt $(($1 * 7 / 2 + 2000000000)) ]
}

data_sets() { # prefix, objects of each, counters, members
    local number kind
    if wanted put || wanted get || wanted list; then
        for number in ${2//,/ }; do
            if ! has_room $((number * value_bytes)); then
                say "$number objects: left out, the disk has no room for them ($(free_bytes "$work") bytes free)"
                continue
            fi
            for kind in ${values//,/ }; do
                with_server "$1$kind-$number" object_phases "$1$kind-$number" "$number" "$(random_percent "$kind")"
            done
        done
    fi
    ! wanted counter || with_server "${1}counters-$3" counter_phases "${1}counters-$3" "$3"
    ! wanted set || with_server "${1}set-$4" set_phases "${1}set-$4" "$4"
}

# Figures of all phases, each with its ratio to the one with few keys.
table() {
    awk -F'\t' -v OFS='\t' '
        function shown(value, format, divisor) { return value == "" ? "-" : sprintf(format, value / (divisor ? divisor : 1)) }
        function ratio(name, value) { return few[key, name] > 0 ? sprintf("%.2f", value / few[key, name]) : "-" }
        BEGIN {
            row = "%-22s %-8s %9s %6s %7s %7s %8s %8s %8s %8s %9s %9s %9s %9s %9s %7s %7s\n"
            printf row, "", "", "requests", "slow.", "p50", "p99", "p99.9", "max", "memory", "at end", "disk", "disk read", "any read", "tables", "written",
                "written", "proc."
            printf row, "data set", "phase", "a second", "second", "ms", "ms", "ms", "ms", "MiB", "MiB", "MiB", "B each", "B each", "B each", "B each", "x", "us"
        }
        NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
        {
            split($column["set"], parts, "-")
            is_few = parts[1] == "few"
            key = parts[is_few ? 2 : 1] " " $column["phase"]
            rate = $column["per_second"]
            p99 = $column["p99_us"]
            if (is_few) { few[key, "rate"] = rate; few[key, "p99"] = p99 }
            printf row, $column["set"], $column["phase"], shown(rate, "%.0f"), shown($column["slowest_second"], "%.2f"),
                shown($column["p50_us"], "%.2f", 1000), shown(p99, "%.2f", 1000), shown($column["p999_us"], "%.2f", 1000),
                shown($column["max_us"], "%.1f", 1000), shown($column["memory_most_bytes"], "%.0f", 1048576),
                shown($column["memory_end_bytes"], "%.0f", 1048576), shown($column["disk_bytes"], "%.0f", 1048576),
                shown($column["read_bytes"], "%.0f"), shown($column["any_read_bytes"], "%.0f"), shown($column["table_read_bytes"], "%.0f"),
                shown($column["written_bytes"], "%.0f"), shown($column["write_amplification"], "%.1f"), shown($column["processor_us"], "%.1f")
            if (few[key, "rate"] > 0 && !is_few) printf "%24s requests a second %s x, p99 %s x of the one with few\n", "", ratio("rate", rate), ratio("p99", p99)
            printf "%24s processor time: %s\n", "", $column["processor_parts"]
        }' "$kept/results.tsv"
}

# What each bound comes to, with one line for each data set that misses or keeps it. Fails where one is missed.
verdicts() {
    awk -F'\t' '
        function judge(figure, value,    i) {
            for (i = 1; i <= bounds; i++) {
                if (figure != name[i] || (of[i] != phase && of[i] != "*") || value == "") continue
                kept = how[i] == "at least" ? value >= bound[i] : value <= bound[i]
                if (!kept) missed++
                printf "%-6s %s %s: %s %s %s, %s %s\n", kept ? "kept" : "MISSED", set, phase, figure, value, unit[i], how[i], bound[i]
            }
        }
        FILENAME == ARGV[1] { split($0, b, "|"); bounds++; of[bounds] = b[1]; name[bounds] = b[2]; how[bounds] = b[3]; bound[bounds] = b[4] + 0; unit[bounds] = b[5]; next }
        FNR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
        {
            set = $column["set"]
            phase = $column["phase"]
            split(set, parts, "-")
            if (parts[1] == "few") { few[parts[2], phase] = $column["per_second"]; next }
            if (few[parts[1], phase] > 0) judge("of the reference", sprintf("%.3f", $column["per_second"] / few[parts[1], phase]))
            judge("99th percentile", sprintf("%.2f", $column["p99_us"] / 1000))
            judge("slowest second of the mean", $column["slowest_second"])
            judge("read from tables a request", $column["table_read_bytes"])
            judge("most memory", $column["memory_most_bytes"])
        }
        END { exit missed > 0 }' <(bounds) "$kept/results.tsv"
}

echo "$("$OMBAK" --version), $(nproc) processors, $(awk '/MemTotal/ { printf "%.1f GiB", $2 / 1048576 }' /proc/meminfo), $(uname -sr)"
echo "on $(df --output=source,fstype "$work" | tail -1 | tr -s ' '), store_memory_bytes_max ${memory:-as it is by default}; load before: $(cut -d' ' -f1-3 /proc/loadavg)"
[ "$few" = 0 ] || data_sets few- "$few" "$few" "$few"
data_sets '' "$objects" "$counters" "$members"
table
verdicts || [ -z "$check" ]
echo "load after: $(cut -d' ' -f1-3 /proc/loadavg)"
