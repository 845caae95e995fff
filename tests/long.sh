#!/usr/bin/env bash
# long.sh [PART...] : what `cargo test` does in short, for long. Run by hand; without a part, all of them in this order.
#   power      power failures at 2,000 points of one run               (OMBAK_POWER_POINTS, OMBAK_POWER_SEED)
#   mixed      kill -9 under everything at random times, 200 rounds    (OMBAK_CRASH_MIXED_ROUNDS, OMBAK_CRASH_SEED)
#   starts     kill -9 during first start, take-over and replay, 50 rounds of each
#              (OMBAK_CRASH_FIRST_START_ROUNDS, OMBAK_CRASH_TAKE_OVER_ROUNDS, OMBAK_CRASH_REPLAY_ROUNDS)
#   set        kill -9 under 64 connections that add members to one set, 10 rounds of 30 s
#   grpc       kill -9 under 8 writers, 4 incrementers and 2 readers of maps, with a standby, 10 rounds of 30 s
#              (of both: OMBAK_CRASH_ROUNDS, OMBAK_CRASH_SECONDS)
# Power failures need a C compiler and strace. Each part says what it came to; exit 0 only if all passed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
parts=(power mixed starts set grpc)

export OMBAK_POWER_POINTS=${OMBAK_POWER_POINTS:-2000}
export OMBAK_CRASH_MIXED_ROUNDS=${OMBAK_CRASH_MIXED_ROUNDS:-200}
export OMBAK_CRASH_FIRST_START_ROUNDS=${OMBAK_CRASH_FIRST_START_ROUNDS:-50}
export OMBAK_CRASH_TAKE_OVER_ROUNDS=${OMBAK_CRASH_TAKE_OVER_ROUNDS:-50}
export OMBAK_CRASH_REPLAY_ROUNDS=${OMBAK_CRASH_REPLAY_ROUNDS:-50}
export OMBAK_CRASH_ROUNDS=${OMBAK_CRASH_ROUNDS:-10} OMBAK_CRASH_SECONDS=${OMBAK_CRASH_SECONDS:-30}

run() { # binary filter...
    local binary=$1; shift
    cargo test --release --test "$binary" -- --nocapture --test-threads 1 "$@"
}

power() { run power; }
mixed() { run crash --exact mixed::everything_is_whole_after_a_kill_at_any_time; }
starts() { run crash starts:: mixed::everything_is_whole_after_kills_while_the_log_is_replayed; }
set_of_members() { run crash --exact no_acknowledged_member_of_one_set_is_lost; }
grpc() { run grpc --exact crash::the_invariants_hold_over_crashes_and_a_standby_is_equal; }

for part in "$@"; do
    case " ${parts[*]} " in
        *" $part "*) ;;
        *) sed -n '2,/^set/{/^#/p}' "$0" >&2; exit 2 ;;
    esac
done
[ $# -gt 0 ] || set -- "${parts[@]}"
for part in "$@"; do
    echo "== $part"
    case $part in
        set) set_of_members ;;
        *) "$part" ;;
    esac
done
echo "== passed in $SECONDS s: $*"
