#!/usr/bin/env bash
# tests/grpc/long.sh : kill -9 under 8 writers, 4 incrementers and 2 readers of maps, with a standby, for long: 10 rounds of
# 30 s. Run by hand.
#   OMBAK_CRASH_ROUNDS, OMBAK_CRASH_SECONDS   other numbers
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export OMBAK_CRASH_ROUNDS=${OMBAK_CRASH_ROUNDS:-10} OMBAK_CRASH_SECONDS=${OMBAK_CRASH_SECONDS:-30}
cargo test --release --test grpc -- --exact crash::the_invariants_hold_over_crashes_and_a_standby_is_equal --nocapture
