#!/usr/bin/env bash
# Builds the servers of other runtimes, one after the other, where `compare` looks for them: target/peers. One that cannot be
# built is named, and left out of the comparison.
set -uo pipefail
cd "$(dirname "$0")"
target=$(cd ../.. && pwd)/target/peers
failed=()

for peer in monoio compio glommio nuclei; do
    cargo build --release --locked --package "peer-$peer" --target-dir "$target" || failed+=("$peer")
done

# uvloop stands in an environment of its own, beside the interpreter that measures asyncio, too.
python=${PYTHON:-python3}
{ [ -x "$target/venv/bin/python" ] || "$python" -m venv "$target/venv"; } &&
    "$target/venv/bin/python" -m pip install --quiet uvloop || failed+=("python")

for peer in "${failed[@]}"; do
    echo "not built: $peer (its messages are above)" >&2
done
[ "${#failed[@]}" = 0 ]
