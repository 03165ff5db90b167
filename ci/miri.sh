#!/usr/bin/env bash
# Looks for undefined behaviour in what Miri can run: the slab, the counting of leases, the decoding of entries and
# datagrams, and the queues of bytes; not the system calls. Needs a nightly toolchain with the miri component.
set -euo pipefail
cd "$(dirname "$0")/.."

# Addresses of buffers are told to the kernel as numbers, which makes pointers of them elsewhere: permissive provenance.
export MIRIFLAGS="-Zmiri-permissive-provenance ${MIRIFLAGS:-}"
cargo +nightly miri test -p ringloop-driver --lib "$@"
