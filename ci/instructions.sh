#!/usr/bin/env bash
# Counts the instructions that a server spends in user space on each echoed message of 64 bytes, under callgrind, and fails if
# ringloop spends more than its ceiling. The count does not depend on how busy the machine is, as a time does.
#
# usage: ci/instructions.sh [PROTOCOL_CEILING STREAMS_CEILING SOCK_CEILING]
#
# callgrind delivers no signal to a process that sleeps in io_uring_enter, so the server is asked to end while the load still
# keeps it awake. Starting and ending are part of the count; over some ten thousand messages they do not show.
set -euo pipefail
cd "$(dirname "$0")/.."
protocol_ceiling=${1:-900}
streams_ceiling=${2:-1400}
sock_ceiling=${3:-1380}

command -v valgrind > /dev/null || {
    echo "valgrind is missing: install it (apt-get install valgrind)" >&2
    exit 2
}
cargo build --quiet --release -p ringloop-benches --bins
bin=${CARGO_TARGET_DIR:-target}/release
folder=$(mktemp -d)
server=
load=
clean_up() {
    for process in $server $load; do
        kill -KILL "$process" 2> /dev/null || true
    done
    rm -rf "$folder"
}
trap clean_up EXIT

# Prints the instructions per message of `server` with these arguments.
measure() {
    : > "$folder/out"
    valgrind --tool=callgrind --callgrind-out-file="$folder/profile" \
        "$bin/server" --stats "$@" > "$folder/out" 2> "$folder/err" &
    server=$!
    for _ in $(seq 300); do
        grep -q '^listening on ' "$folder/out" && break
        kill -0 "$server" 2> /dev/null || break
        sleep 0.1
    done
    local address
    address=$(sed -n 's/^listening on //p' "$folder/out")
    [ -n "$address" ] || { echo "server $* did not start:" >&2; cat "$folder/err" >&2; return 1; }
    "$bin/load" --addr "$address" --conns 64 --size 64 --warmup 0 --secs 12 > /dev/null 2>&1 &
    load=$!
    sleep 8
    kill -INT "$server"
    wait "$server" || { echo "server $* failed:" >&2; cat "$folder/err" >&2; return 1; }
    server=
    wait "$load" || true # It has lost its connections.
    load=
    local instructions bytes
    instructions=$(sed -n 's/.*Collected : *//p' "$folder/err" | tr -d ' ')
    bytes=$(tail -n 1 "$folder/out" | sed -n 's/.*"bytes_in":\([0-9]*\).*/\1/p')
    [ "${bytes:-0}" -ge 640000 ] || { echo "server $*: too few messages to tell" >&2; return 1; }
    echo $((instructions * 64 / bytes))
}

failed=0
# check NAME CEILING ARGUMENTS
check() {
    local name=$1 ceiling=$2 count
    shift 2
    count=$(measure "$@") || exit 1
    if [ "$ceiling" != none ] && [ "$count" -gt "$ceiling" ]; then
        echo "$name: $count instructions per message, more than $ceiling"
        failed=1
    else
        echo "$name: $count instructions per message (ceiling: $ceiling)"
    fi
}

check "bare ring" none --kind ring
check "ringloop, protocol" "$protocol_ceiling" --kind ringloop
check "ringloop, streams" "$streams_ceiling" --kind ringloop --face streams
check "ringloop, socket calls" "$sock_ceiling" --kind ringloop --face sock
exit "$failed"
