#!/usr/bin/env bash
# Licences, advisories and sources of the dependencies. Needs cargo-deny, and the network for its database.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo-deny > /dev/null || cargo install --locked cargo-deny
cargo deny check
