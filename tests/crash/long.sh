#!/usr/bin/env bash
# tests/crash/long.sh : kill -9, for long. Run by hand.
#   under 64 connections that add members to one set, 10 rounds of 30 s   (OMBAK_CRASH_ROUNDS, OMBAK_CRASH_SECONDS)
#   under everything at random times, 200 rounds                          (OMBAK_CRASH_MIXED_ROUNDS, OMBAK_CRASH_SEED)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export OMBAK_CRASH_ROUNDS=${OMBAK_CRASH_ROUNDS:-10} OMBAK_CRASH_SECONDS=${OMBAK_CRASH_SECONDS:-30}
export OMBAK_CRASH_MIXED_ROUNDS=${OMBAK_CRASH_MIXED_ROUNDS:-200}
cargo test --release --test crash -- --exact mixed::everything_is_whole_after_a_kill_at_any_time --nocapture
cargo test --release --test crash -- --exact no_acknowledged_member_of_one_set_is_lost --nocapture
