#!/usr/bin/env bash
# tests/crash/long.sh : kill -9 under 64 connections that add members to one set, for long: 10 rounds of 30 s. Run by hand.
#   OMBAK_CRASH_ROUNDS, OMBAK_CRASH_SECONDS   other numbers
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export OMBAK_CRASH_ROUNDS=${OMBAK_CRASH_ROUNDS:-10} OMBAK_CRASH_SECONDS=${OMBAK_CRASH_SECONDS:-30}
cargo test --release --test crash -- --exact no_acknowledged_member_of_one_set_is_lost --nocapture
