# For scripts that need a server of their own (sourced by bash). OMBAK is the program.
#   start_server DIR [flags of serve]   starts one on DIR/data and free ports; sets SERVER_PID, PORT and GRPC_PORT; log in DIR/log
#   stop_server                         SIGTERM, and waits; fails when the server does not end with 0
#   kill_server                         SIGKILL, and waits
#   expect_no_warnings DIR              fails when the log has a line of WARN or ERROR
# Callers set a trap on EXIT that calls kill_server, so that no server outlives its script.

SERVER_PID=

start_server() {
    local dir=$1; shift
    mkdir -p "$dir"
    : >"$dir/out"
    OMBAK_GRPC_LISTEN=${OMBAK_GRPC_LISTEN:-127.0.0.1:0} "$OMBAK" --data-dir "$dir/data" serve --pbc 127.0.0.1:0 "$@" >"$dir/out" 2>>"$dir/log" &
    SERVER_PID=$!
    # The last line that start-up prints says that everything listens.
    until grep -q '^data in ' "$dir/out"; do
        kill -0 "$SERVER_PID" 2>/dev/null || { echo "the server did not start:" >&2; cat "$dir/log" >&2; return 1; }
        sleep 0.05
    done
    PORT=$(sed -n 's/.* serves Riak clients on .*:\([0-9]*\)$/\1/p' "$dir/out")
    GRPC_PORT=$(sed -n 's/.* serves maps over gRPC on .*:\([0-9]*\)$/\1/p' "$dir/out")
}

stop_server() {
    local pid=$SERVER_PID
    SERVER_PID=
    kill -TERM "$pid"
    wait "$pid" || { echo "the server ended with $?" >&2; return 1; }
}

kill_server() {
    [ -n "$SERVER_PID" ] || return 0
    kill -KILL "$SERVER_PID" 2>/dev/null || true
    wait "$SERVER_PID" 2>/dev/null || true
    SERVER_PID=
}

# Prints what the server on DIR logged as a warning or an error, and fails if there is any.
expect_no_warnings() { # DIR
    if grep -E '^[^ ]+ +(WARN|ERROR) ' "$1/log"; then
        echo "the server warned (above)" >&2
        return 1
    fi
}
