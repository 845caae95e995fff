#!/usr/bin/env bash
# python.sh : the main job, with the unmodified PyPI package "riak" 2.7.0. A server of our own is started; profile_map.py
# builds and changes a user profile on it; the server is killed with SIGKILL and started again on the same directory;
# profile_map.py reads the same values and goes on. Prints 'N passed, N failed' twice; exit 0 only if none failed.
#   OMBAK   the program (default: target/release/ombak)
# python_env.sh says where the client is installed and how a Python is picked.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
OMBAK=${OMBAK:-$root/target/release/ombak}
# shellcheck source=../support/server.sh
. "$root/tests/support/server.sh"
[ -x "$OMBAK" ] || { echo "no program $OMBAK: build it, or set OMBAK" >&2; exit 2; }
# shellcheck source=python_env.sh
. "$here/python_env.sh"

work=$(mktemp -d)
trap 'kill_server; rm -rf "$work"' EXIT

start_server "$work"
echo "README.md's first session:"
awk '/^```python$/ { take = 1; next } /^```$/ { if (take) exit } take' "$root/README.md" |
    sed "s/8087/$PORT/" | "$CLIENT_PYTHON" -
"$CLIENT_PYTHON" "$here/profile_map.py" 127.0.0.1 "$PORT" build "$work/state"
kill_server
start_server "$work"
"$CLIENT_PYTHON" "$here/profile_map.py" 127.0.0.1 "$PORT" check "$work/state"
stop_server
expect_no_warnings "$work"
