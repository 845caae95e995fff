#!/usr/bin/env bash
# compare.sh [-n ROUNDS] [-s SECONDS] [-k KEYS] [-d DIR] [-p PROGRAM] [-l] [CASE...] : Ombak against Redis at equal durability, or
# against another Ombak, on this machine. Starts both on empty data directories of one disk: Ombak as it is by default, redis-server
# with appendonly yes and appendfsync always. The two run in turn, and each round gives a ratio, so that a machine whose speed drifts
# is fair to both. Against another Ombak they take turns every second.
#   -n  rounds (default 5; against an Ombak 10)      -s  seconds of each in a round (default 5)      -k  different keys (default 10000)
#   -d  directory on the disk (default: target)      -l  lists the cases      CASE  names or patterns, as 'counter-*' (default: all)
#   -p  program of another Ombak, as of an earlier release, in place of Redis; load comes from the one that OMBAK names
#   OMBAK  the program (default: target/release/ombak, which is built first)
# A row is the minimum, median and maximum over the rounds. Installs redis-server and redis-tools where they are missing.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
rounds= seconds=5 keys=10000 dir=$root/target other=
usage() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { print substr($0, 3) }' "$0"; exit "$1"; }

# name | connections | pipelined | workload of `ombak bench` | arguments of redis-benchmark
cases() {
    local hincrby='HINCRBY counter:__rand_int__ n 1' set='-t set -d 1024' get='-t get -d 1024' connections
    for connections in 64 256; do
        echo "counter-$connections|$connections|1|counter|$hincrby"
        echo "put-$connections|$connections|1|put|$set"
        echo "map-$connections|$connections|1|map|$hincrby"
    done
    echo "get-64|64|1|get|$get"
    echo "ping-64|64|1|ping|-t ping_mbulk"
    echo "counter-64-pipelined|64|16|counter|$hincrby"
    echo "put-64-pipelined|64|16|put|$set"
    echo "map-64-pipelined|64|16|map|$hincrby"
    echo "p99-over-fsync|64|1|counter|$hincrby"
    # Without a ratio of requests.
    echo "writes-per-fsync||||"
}

while getopts n:s:k:d:p:lh option; do
    case $option in
        n) rounds=$OPTARG ;;
        s) seconds=$OPTARG ;;
        k) keys=$OPTARG ;;
        d) dir=$OPTARG ;;
        p) other=$OPTARG ;;
        l) cases | cut -d'|' -f1; exit ;;
        h) usage 0 ;;
        *) usage 2 >&2 ;;
    esac
done
shift $((OPTIND - 1))
patterns=("${@:-*}")
rival=redis
[ -z "$other" ] || rival=other
[ -n "$rounds" ] || rounds=$([ "$rival" = redis ] && echo 5 || echo 10)

wanted() { # name
    local pattern
    for pattern in "${patterns[@]}"; do
        # shellcheck disable=SC2053 # it is a pattern
        [[ $1 == $pattern ]] && return
    done
    return 1
}

install_missing() {
    local packages=()
    command -v redis-server >/dev/null || packages+=(redis-server)
    command -v redis-benchmark >/dev/null || packages+=(redis-tools)
    [ ${#packages[@]} -gt 0 ] || return 0
    local sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    if ! { $sudo apt-get update && $sudo apt-get install -y --no-install-recommends "${packages[@]}"; } >"$work/install" 2>&1; then
        tail -5 "$work/install" >&2
        echo "compare.sh: cannot install ${packages[*]} with apt-get (above): install them by hand" >&2
        exit 1
    fi
}

mkdir -p "$dir"
work=$(mktemp -d "$dir/compare.XXXXXX")
redis_pid=
# shellcheck source=../tests/support/server.sh
. "$root/tests/support/server.sh"
other_pid=
stop_other() { [ -z "$other_pid" ] || { kill -KILL "$other_pid" && wait "$other_pid"; } 2>/dev/null || true; other_pid=; }
stop_redis() { [ -z "$redis_pid" ] || { kill "$redis_pid" && wait "$redis_pid"; } 2>/dev/null || true; redis_pid=; }
trap 'stop_redis; stop_other; kill_server; rm -rf "$work"' EXIT
[ "$rival" = other ] || install_missing
if [ -z "${OMBAK:-}" ]; then
    (cd "$root" && cargo build --locked --release)
    OMBAK=$root/target/release/ombak
fi

# Redis cannot be asked for a free port.
start_redis() {
    local attempt
    for attempt in 1 2 3 4 5; do
        redis_port=$((20000 + RANDOM % 20000))
        mkdir -p "$work/redis"
        # Without snapshots and rewrites, which would only take from it.
        redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$work/redis" --save '' --appendonly yes --appendfsync always \
            --auto-aof-rewrite-percentage 0 --maxclients 2000 >"$work/redis.log" 2>&1 &
        redis_pid=$!
        for _ in $(seq 100); do
            # Another's port answers as well, so its word counts only while ours lives.
            sleep 0.05
            kill -0 "$redis_pid" 2>/dev/null || continue 2
            grep -q 'Ready to accept connections' "$work/redis.log" && return
        done
        stop_redis
    done
    cat "$work/redis.log" >&2
    echo "compare.sh: redis-server does not start (above)" >&2
    exit 1
}

# Every key is there before it is read.
fill_redis() {
    local value
    value=$(printf '%01024d' 0)
    awk -v keys="$keys" -v value="$value" 'BEGIN { for (i = 0; i < keys; i++) printf "SET key:%012d %s\r\n", i, value }' |
        redis-cli -p "$redis_port" --pipe >"$work/filled"
}

# A value of the JSON that `ombak bench` prints.
number() { # name
    sed -nE "s/^ *\"$1\": ([0-9.]+),?$/\1/p"
}

ombak_json() { # workload connections pipelined argument...
    local workload=$1 connections=$2 pipelined=$3; shift 3
    "$OMBAK" bench "$workload" --host "127.0.0.1:$PORT" --connections "$connections" --pipeline "$pipelined" \
        --seconds "$seconds" --keys "$keys" --json "$@"
}

ombak_rate() { # workload connections pipelined
    ombak_json "$@" | number requests_per_second
}

# redis-benchmark counts requests, not seconds: how many is known from the run before.
declare -A redis_known
redis_for_seconds() { # case connections pipelined argument...
    local name=$1 connections=$2 pipelined=$3; shift 3
    if [ -z "${redis_known[$name]:-}" ]; then
        redis_run "$connections" "$pipelined" $((connections * pipelined * 40)) "$@"
        redis_known[$name]=$redis_rate
    fi
    local requests
    requests=$(awk -v rate="${redis_known[$name]}" -v seconds="$seconds" 'BEGIN { printf "%d", rate * seconds }')
    redis_run "$connections" "$pipelined" "$requests" "$@"
    redis_known[$name]=$redis_rate
}
# Sets redis_rate, in requests a second, and redis_p99, in microseconds.
redis_run() { # connections pipelined requests argument...
    local connections=$1 pipelined=$2 requests=$3 figures; shift 3
    # Options go first: a command takes the rest of the line.
    figures=$(redis-benchmark -p "$redis_port" -c "$connections" -P "$pipelined" -n "$requests" -r "$keys" --csv "$@" |
        awk -F'","' 'NR > 1 { rate = $2; p99 = $7 } END { print rate, p99 * 1000 }')
    read -r redis_rate redis_p99 <<<"$figures"
}

ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f\n", a / b }'; }

row() { # name file format
    sort -g "$2" | awk -v name="$1" -v format="$3" '
        { value[NR] = $1 }
        END {
            median = NR % 2 ? value[(NR + 1) / 2] : (value[NR / 2] + value[NR / 2 + 1]) / 2
            printf "%-34s " format " " format " " format "\n", name, value[1], median, value[NR]
        }'
}
rows() { # case
    local name=$1 what
    [ -s "$work/$name.ratio" ] || return 0
    row "$name: ombak / $rival" "$work/$name.ratio" '%9.2f'
    [ ! -s "$work/$name.p99_ratio" ] || row "    p99 / p99 of $rival" "$work/$name.p99_ratio" '%9.2f'
    [ ! -s "$work/$name.own" ] || row "    / ombak unpipelined" "$work/$name.own" '%9.2f'
    for what in ombak $rival; do row "    $what, requests a second" "$work/$name.$what" '%9.0f'; done
}

versus_redis() { # name connections pipelined workload redis-arguments round
    local name=$1 connections=$2 pipelined=$3 workload=$4 round=$6 arguments ours alone
    read -ra arguments <<<"$5"
    # Who is first changes from round to round.
    if [ $((round % 2)) = 1 ]; then ours=$(ombak_rate "$workload" "$connections" "$pipelined"); fi
    redis_for_seconds "$name" "$connections" "$pipelined" "${arguments[@]}"
    if [ $((round % 2)) = 0 ]; then ours=$(ombak_rate "$workload" "$connections" "$pipelined"); fi
    echo "$ours" >>"$work/$name.ombak"
    echo "$redis_rate" >>"$work/$name.redis"
    ratio "$ours" "$redis_rate" >>"$work/$name.ratio"
    if [ "$pipelined" -gt 1 ]; then
        alone=$(ombak_rate "$workload" "$connections" 1)
        ratio "$ours" "$alone" >>"$work/$name.own"
    fi
}

# The other is asked by the same program, through windows of a second that alternate.
start_other() {
    OMBAK=$other start_server "$work/other"
    other_pid=$SERVER_PID other_port=$PORT
    SERVER_PID=
}
fill_ombak() { # port
    "$OMBAK" bench put --host "127.0.0.1:$1" --keys "$keys" --pipeline 16 --each-once --json >"$work/filled"
}
versus_other() { # name connections pipelined workload round
    local name=$1 connections=$2 pipelined=$3 workload=$4 round=$5 window program order port
    rm -f "$work"/window.*
    for window in $(seq "$seconds"); do
        # Who is first changes from window to window.
        order='ombak other'
        [ $(((round + window) % 2)) = 1 ] || order='other ombak'
        for program in $order; do
            port=$PORT
            [ "$program" = ombak ] || port=$other_port
            "$OMBAK" bench "$workload" --host "127.0.0.1:$port" --connections "$connections" --pipeline "$pipelined" --keys "$keys" \
                --filled --warm-up-ms 200 --seconds 1 --json >"$work/window"
            number requests_per_second <"$work/window" >>"$work/window.$program.rate"
            number p99 <"$work/window" >>"$work/window.$program.p99"
        done
    done
    for program in ombak other; do mean "$work/window.$program.rate" >>"$work/$name.$program"; done
    ratio "$(mean "$work/window.ombak.rate")" "$(mean "$work/window.other.rate")" >>"$work/$name.ratio"
    ratio "$(mean "$work/window.ombak.p99")" "$(mean "$work/window.other.p99")" >>"$work/$name.p99_ratio"
}
mean() { awk '{ sum += $1 } END { print sum / NR }' "$1"; }

# The tail of a durable write against that of the disk alone, in windows that alternate: with as many writes as replies allow,
# and at a rate that leaves the processors some rest. And Redis's with as many as replies allow, for comparison.
paced=10000
p99_over_fsync() { # name connections workload redis-arguments
    local ours ours_paced floor arguments
    floor=$("$OMBAK" bench fsync --value-bytes 128 --dir "$work" --seconds "$seconds" --json | number p99)
    ours=$(ombak_json "$3" "$2" 1 | number p99)
    ours_paced=$(ombak_json "$3" "$2" 1 --rate "$paced" | number p99)
    read -ra arguments <<<"$4"
    redis_for_seconds "$1" "$2" 1 "${arguments[@]}"
    echo "$floor" >>"$work/p99.floor"
    echo "$ours" >>"$work/p99.ombak"
    echo "$ours_paced" >>"$work/p99.paced"
    echo "$redis_p99" >>"$work/p99.redis"
    ratio "$ours" "$floor" >>"$work/p99.ratio"
    ratio "$ours_paced" "$floor" >>"$work/p99.paced_ratio"
    ratio "$redis_p99" "$floor" >>"$work/p99.redis_ratio"
}

# What `ombak status` counts: writes, or syncs.
counted() { # writes | syncs
    "$OMBAK" --data-dir "$work/ombak/data" status | sed -nE "s/^.*\b([0-9]+) $1\b.*/\1/p"
}

writes_per_fsync() {
    local connections rate writes syncs
    for connections in 1 4 16 64 256 1024; do
        writes=$(counted writes)
        syncs=$(counted syncs)
        rate=$(ombak_rate counter "$connections" 1)
        awk -v connections="$connections" -v rate="$rate" -v writes=$(($(counted writes) - writes)) -v syncs=$(($(counted syncs) - syncs)) 'BEGIN {
            printf "    %4d connections: %8.0f writes a second, %7.1f writes an fsync\n", connections, rate, writes / syncs
        }'
    done
}

load() { cut -d' ' -f1-3 /proc/loadavg; }

[ "$rival" = redis ] || start_other
start_server "$work/ombak"
if [ "$rival" = redis ]; then
    start_redis
    fill_redis
    rival_version=$(redis-server --version | sed -E 's/.*v=([^ ]*).*/Redis \1/')
else
    fill_ombak "$PORT"
    fill_ombak "$other_port"
    rival_version="$("$other" --version) at $other"
fi
echo "$("$OMBAK" --version), $rival_version, $(nproc) processors, $(uname -sr)"
echo "$rounds rounds of $seconds s, $keys keys, on $(df --output=source,fstype "$work" | tail -1 | tr -s ' '); load before: $(load)"
for round in $(seq "$rounds"); do
    while IFS='|' read -r name connections pipelined workload arguments; do
        wanted "$name" || continue
        case $rival-$name in
            *-writes-per-fsync | other-p99-over-fsync) ;;
            *-p99-over-fsync) p99_over_fsync "$name" "$connections" "$workload" "$arguments" ;;
            redis-*) versus_redis "$name" "$connections" "$pipelined" "$workload" "$arguments" "$round" ;;
            *) versus_other "$name" "$connections" "$pipelined" "$workload" "$round" ;;
        esac
    done < <(cases)
    echo "round $round is done, load: $(load)" >&2
done
printf '%-34s %9s %9s %9s\n' '' min median max
for name in $(cases | cut -d'|' -f1); do rows "$name"; done
if [ -s "$work/p99.ratio" ]; then
    row 'p99-over-fsync: counter / fsync' "$work/p99.ratio" '%9.2f'
    row "    at $paced a second / fsync" "$work/p99.paced_ratio" '%9.2f'
    row '    redis / fsync' "$work/p99.redis_ratio" '%9.2f'
    row '    counter, 64 connections, us' "$work/p99.ombak" '%9.0f'
    row "    at $paced a second, us" "$work/p99.paced" '%9.0f'
    row '    redis, 64 connections, us' "$work/p99.redis" '%9.0f'
    row '    append + fdatasync, us' "$work/p99.floor" '%9.0f'
fi
if [ "$rival" = redis ] && wanted writes-per-fsync; then
    echo "writes-per-fsync, counter updates:"
    writes_per_fsync
fi
echo "load after: $(load)"
