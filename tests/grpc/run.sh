#!/usr/bin/env bash
# run.sh : the map as a stock gRPC client sees it. Python's grpcio, with stubs that are generated now from proto/, runs every row
# of the specification's tables of operations and errors against a server of its own. Prints 'N passed, N failed'; exit 0 only if
# none failed. Where the packages cannot be installed it says SKIPPED, and exits with 0.
#   OMBAK   the program (default: target/release/ombak)
#   VENV    a Python environment with grpcio-tools; made on first use (default: ombak-transcripts in the temporary folder)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
OMBAK=${OMBAK:-$root/target/release/ombak}
VENV=${VENV:-${TMPDIR:-/tmp}/ombak-transcripts}
# shellcheck source=../support/server.sh
. "$root/tests/support/server.sh"
[ -x "$OMBAK" ] || { echo "no program $OMBAK: build it, or set OMBAK" >&2; exit 2; }

if ! "$VENV/bin/python" -c 'import grpc, grpc_tools' 2>/dev/null; then
    if ! { python3 -m venv "$VENV" && "$VENV/bin/python" -m pip install -q --disable-pip-version-check grpcio grpcio-tools; }; then
        echo "SKIPPED: grpcio and grpcio-tools cannot be installed"
        exit 0
    fi
fi
work=$(mktemp -d)
trap 'kill_server; rm -rf "$work"' EXIT
mkdir "$work/stubs"
protos=$(cd "$root/proto" && find atomix -name '*.proto')
# shellcheck disable=SC2086
"$VENV/bin/python" -m grpc_tools.protoc -I "$root/proto" --python_out "$work/stubs" --grpc_python_out "$work/stubs" $protos

start_server "$work"
PYTHONPATH=$work/stubs "$VENV/bin/python" "$here/acceptance.py" "127.0.0.1:$GRPC_PORT"
stop_server
expect_no_warnings "$work"
