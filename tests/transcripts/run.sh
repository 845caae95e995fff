#!/usr/bin/env bash
# run.sh [FILE...] : replays recorded conversations with Riak KV 3.2.0, each file (framing, kv, ...; default: all) against a
# fresh server, and prints 'FILE: N passed, N failed'. Failed scenarios are in $LOGS/FILE.log.
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

# misc_undefined holds conversations in which Riak itself crashes or hangs: nothing in it is compared.
files=${*:-framing kv bucket datatype_counter datatype_set datatype_map datatype_other index mapreduce misc}

if ! "$VENV/bin/python" -c 'import grpc_tools' 2>/dev/null; then
    python3 -m venv "$VENV"
    "$VENV/bin/python" -m pip install -q --disable-pip-version-check grpcio-tools
fi
mkdir -p "$LOGS"
work=$(mktemp -d)
trap 'kill_server; rm -rf "$work"' EXIT

status=0
for file in $files; do
    start_server "$work/$file"
    "$root/tests/clients/setup-types.sh" "$OMBAK" "$work/$file/data"
    log=$LOGS/$file.log
    "$VENV/bin/python" "$here/replay.py" 127.0.0.1 "$PORT" "$root/proto" "$here/$file.jsonl" >"$log" 2>&1 || status=1
    counts=$(sed -nE 's/^([0-9]+ passed, [0-9]+ failed).*/\1/p' "$log" | tail -1)
    echo "$file: ${counts:-did not run}"
    [ -n "$counts" ] || tail -5 "$log" >&2
    sed -nE 's/^FAIL ([^:]+):.*/    failed: \1/p' "$log"
    stop_server || status=1
    expect_no_warnings "$work/$file" || status=1
done
exit $status
