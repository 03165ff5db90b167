#!/usr/bin/env bash
# Runs the driver's tests, storms and misuse under a sanitizer: ci/sanitize.sh address|thread
# Needs a nightly toolchain. With its rust-src the standard library is instrumented too; without, what the thread sanitizer
# says of the library's own synchronisation is left out (ci/tsan.supp).
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${1:?address or thread}
target=$(rustc -vV | sed -n 's/host: //p')
flags="-Zsanitizer=$kind"
build=()
# These measure or limit memory, of which a sanitizer takes much itself.
skip=(--skip high_water_mark --skip bounded_memory --skip memory_is_used_again --skip larger_than_memory)
# These leak the memory that the kernel may still write to, as they must.
skip+=(--skip groups_outlive_a_driver)
if [ -d "$(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library" ]; then
    build=(-Zbuild-std)
elif [ "$kind" = thread ]; then
    flags="$flags -Cunsafe-allow-abi-mismatch=sanitizer"
    export TSAN_OPTIONS="suppressions=$PWD/ci/tsan.supp ${TSAN_OPTIONS:-}"
fi
if [ "$kind" = thread ]; then
    # It holds signals back while a thread waits in a system call that it does not know, and keeps a pipe after a fork.
    skip+=(--skip signals_of_many_threads --skip a_signal_interrupts --skip ring_of_any_thread)
    # It holds back the signal by which this test replaces a system call, too, so that the signal ends the process.
    skip+=(--skip forked_while_another_thread_handled_a_signal)
fi
export RUSTFLAGS="$flags"
cargo +nightly test "${build[@]}" --target "$target" --target-dir "target/sanitize-$kind" \
    -p ringloop-driver --test driver -p ringloop-tests --test stress -- "${skip[@]}"
# The programs of target misuse leave leases for ever, and a panic in a drop has Rust leak what a function was about to return, or
# the value that the panic carries.
export ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS:-}"
cargo +nightly test "${build[@]}" --target "$target" --target-dir "target/sanitize-$kind" \
    -p ringloop-driver --lib -p ringloop-tests --test misuse
