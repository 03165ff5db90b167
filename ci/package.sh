#!/usr/bin/env bash
# Builds the crates that are published from their packages alone, as who downloads them does.
set -euo pipefail
cd "$(dirname "$0")/.."

# A folder of its own each time: cargo keeps the sources of a package by the folder that it was made in and its version, and
# would build those of an earlier run.
target=$(mktemp -d)
trap 'rm -rf "$target"' EXIT
cargo package --target-dir "$target" --package ringloop-driver --package ringloop-macros --package ringloop
