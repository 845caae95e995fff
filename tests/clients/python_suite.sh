#!/bin/sh
# python_suite.sh HOST PORT [PATTERN...] : the tests that the PyPI package "riak" 2.7.0 brings along, over PBC.
# python_env.sh says where it is installed and how a Python is picked. Time limit: CLIENTS_TIMEOUT seconds (300).
# Closing line: 'N passed, N failed, N skipped'; exit 0 only if none failed.
set -eu
[ $# -ge 2 ] || { sed -n 2,4p "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
. "$here/python_env.sh"
cd "$base"
exec timeout -k 5 "${CLIENTS_TIMEOUT:-300}" "$CLIENT_PYTHON" "$here/python_suite.py" "$@"
