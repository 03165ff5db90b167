#!/usr/bin/env bash
# Builds the crates that are published from their packages alone, as who downloads them does.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo package --package ringloop-driver --package ringloop-macros --package ringloop
