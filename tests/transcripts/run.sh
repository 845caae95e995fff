#!/usr/bin/env bash
# run.sh [FILE...] : replays recorded conversations with Riak KV 3.2.0, each file (framing, kv, ...; default: all) against a
# fresh server, and prints 'FILE: N passed, N failed'. Fails when a scenario of a required file fails that
# expected-failures.txt does not list, or when that lists one that passes. Failed scenarios are in $LOGS/FILE.log.
#   OMBAK   the program (default: target/release/ombak)
#   VENV    a Python environment with grpcio-tools; made on first use (default: ombak-transcripts in the temporary folder)
#   LOGS    folder of the logs (default: target/transcripts)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
OMBAK=${OMBAK:-$root/target/release/ombak}
VENV=${VENV:-${TMPDIR:-/tmp}/ombak-transcripts}
LOGS=${LOGS:-$root/target/transcripts}
# shellcheck source=../support/server.sh
. "$root/tests/support/server.sh"
[ -x "$OMBAK" ] || { echo "no program $OMBAK: build it, or set OMBAK" >&2; exit 2; }

REQUIRED="framing kv bucket datatype_counter datatype_set datatype_map datatype_other misc"
# What the others cover is not served yet: index (secondary indexes), mapreduce.
SHOWN="index mapreduce"
# misc_undefined holds conversations in which Riak itself crashes or hangs: nothing in it is compared.
files=${*:-$REQUIRED $SHOWN}

if ! "$VENV/bin/python" -c 'import grpc_tools' 2>/dev/null; then
    python3 -m venv "$VENV"
    "$VENV/bin/python" -m pip install -q --disable-pip-version-check grpcio-tools
fi
mkdir -p "$LOGS"
work=$(mktemp -d)
trap 'kill_server; rm -rf "$work"' EXIT

expected_patterns() { sed -nE "s|^($1/[^ ]+) .*|\1|p" "$here/expected-failures.txt"; }

# Failures of a file that are not expected, and expectations that did not fail.
verdict() { # file log
    local failed pattern status=0
    failed=$(sed -nE 's/^FAIL ([^:]+):.*/\1/p' "$2")
    local unexpected=$failed
    for pattern in $(expected_patterns "$1"); do
        if grep -qxE "$pattern" <<<"$failed"; then
            unexpected=$(grep -vxE "$pattern" <<<"$unexpected" || true)
        else
            echo "    passes now, take it off expected-failures.txt: $pattern"
            status=1
        fi
    done
    [ -z "$unexpected" ] || { sed 's/^/    failed: /' <<<"$unexpected"; status=1; }
    return $status
}

status=0
for file in $files; do
    start_server "$work/$file"
    "$root/tests/clients/setup-types.sh" "$OMBAK" "$work/$file/data"
    log=$LOGS/$file.log
    # Its own status says whether anything failed; which failures count is decided here.
    "$VENV/bin/python" "$here/replay.py" 127.0.0.1 "$PORT" "$root/proto" "$here/$file.jsonl" >"$log" 2>&1 || true
    counts=$(sed -nE 's/^([0-9]+ passed, [0-9]+ failed).*/\1/p' "$log" | tail -1)
    echo "$file: ${counts:-did not run}"
    if [ -z "$counts" ]; then
        tail -5 "$log" >&2
        status=1
    elif [[ " $REQUIRED " == *" $file "* ]]; then
        verdict "$file" "$log" || status=1
    fi
    stop_server || status=1
    expect_no_warnings "$work/$file" || status=1
done
exit $status
