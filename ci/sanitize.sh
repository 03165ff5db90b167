#!/usr/bin/env bash
# Runs the driver's and the stress tests under a sanitizer: ci/sanitize.sh address|thread
# Needs a nightly toolchain. With its rust-src the standard library is instrumented too; without, what the thread sanitizer
# says of the library's own synchronisation is left out (ci/tsan.supp).
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${1:?address or thread}
target=$(rustc -vV | sed -n 's/host: //p')
flags="-Zsanitizer=$kind"
build=()
if [ -d "$(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library" ]; then
    build=(-Zbuild-std)
elif [ "$kind" = thread ]; then
    flags="$flags -Cunsafe-allow-abi-mismatch=sanitizer"
    export TSAN_OPTIONS="suppressions=$PWD/ci/tsan.supp ${TSAN_OPTIONS:-}"
fi
# A child of a test is ended by `_exit`, and leaks by design what the kernel has not let go of.
export RUSTFLAGS="$flags"
cargo +nightly test "${build[@]}" --target "$target" --target-dir "target/sanitize-$kind" \
    -p ringloop-driver --lib --test driver -p ringloop-tests --test stress
