#!/usr/bin/env bash
# idle.sh [CONNECTIONS] : what a connection costs the server that waits for its next request, in bytes of RSS (default: 10000
# connections). Each has done a ping and a get before. The client is a process of its own, in Python, so that its memory does not count.
#   OMBAK   the program (default: target/release/ombak)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
connections=${1:-10000}
OMBAK=${OMBAK:-$root/target/release/ombak}
ulimit -n "$(ulimit -Hn)"
# shellcheck source=../tests/support/server.sh
. "$root/tests/support/server.sh"
work=$(mktemp -d)
trap 'kill_server; rm -rf "$work"' EXIT
OMBAK_CONNECTIONS_MAX=$((connections + 10)) start_server "$work"
python3 - "$PORT" "$connections" "$SERVER_PID" <<'PYTHON'
import resource, socket, struct, sys, time

port, count, pid = (int(argument) for argument in sys.argv[1:4])
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if count + 50 > soft:
    sys.exit(f"idle.sh: only {soft} files may be open here; raise the hard limit on open files (ulimit -Hn)")

def frame(code, payload=b""):
    return struct.pack(">IB", 1 + len(payload), code) + payload

def answer(connection):
    length, = struct.unpack(">I", connection.recv(4, socket.MSG_WAITALL))
    connection.recv(length, socket.MSG_WAITALL)

def use(connection):
    # A ping, and a get of a key that is not there.
    for request in (frame(1), frame(9, b"\x0a\x01b\x12\x01k")):
        connection.sendall(request)
        answer(connection)

def rss():
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024

first = socket.create_connection(("127.0.0.1", port))
for _ in range(1000):
    use(first)
before = rss()
connections = []
for _ in range(count):
    connection = socket.create_connection(("127.0.0.1", port))
    use(connection)
    connections.append(connection)
time.sleep(1)
print(f"{count} idle connections: {(rss() - before) / count:.0f} bytes each")
for connection in connections:
    use(connection)
print("all of them are answered")
PYTHON
