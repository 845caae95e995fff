#!/usr/bin/env bash
# seeds.sh DIR : replays the transcripts against a server and keeps what is said as inputs for the fuzzer, in DIR/TARGET.
#   OMBAK   the program (default: target/release/ombak)
#   VENV    a Python environment with grpcio-tools; made on first use (default: ombak-transcripts in the temporary folder)
set -euo pipefail
[ $# = 1 ] || { sed -n 2,4p "$0" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
OMBAK=${OMBAK:-$root/target/release/ombak}
VENV=${VENV:-${TMPDIR:-/tmp}/ombak-transcripts}
out=$1
# shellcheck source=../tests/support/server.sh
. "$root/tests/support/server.sh"

if ! "$VENV/bin/python" -c 'import grpc_tools' 2>/dev/null; then
    python3 -m venv "$VENV"
    "$VENV/bin/python" -m pip install -q --disable-pip-version-check grpcio-tools
fi
work=$(mktemp -d)
recorder=
stop_recorder() { [ -z "$recorder" ] || kill "$recorder" 2>/dev/null || true; recorder=; }
trap 'stop_recorder; kill_server; rm -rf "$work"' EXIT
start_server "$work"
"$root/tests/clients/setup-types.sh" "$OMBAK" "$work/data"
python3 "$here/record.py" "$PORT" "$out" >"$work/port" &
recorder=$!
until [ -s "$work/port" ]; do kill -0 "$recorder"; sleep 0.05; done
# Whether the answers are the right ones is for the transcripts' own run to say.
"$VENV/bin/python" "$root/tests/transcripts/replay.py" 127.0.0.1 "$(cat "$work/port")" "$root/proto" \
    "$root"/tests/transcripts/*.jsonl >"$work/replayed" 2>&1 || true
tail -1 "$work/replayed"
stop_recorder
stop_server
for target in "$out"/*/; do
    echo "$(basename "$target"): $(find "$target" -type f | wc -l) inputs"
done
