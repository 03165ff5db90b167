#!/usr/bin/env bash
# Boots Debian's kernels, of the oldest version that is supported and the newest that the archive has, in QEMU; runs the driver's
# tests and the traces on each; and prints a table. It is for Debian on x86-64, and installs what it needs: QEMU, a static busybox,
# cpio. The kernels are unpacked under target/, not installed. All of it takes about half an hour.
#
#     ci/kernels.sh            all boots
#     ci/kernels.sh 6.1-uring  those whose name has this in it
#
# TESTS="driver traces" says which test targets run, SKIP=whatever_goes_wrong leaves out tests with this in their names, and
# SECONDS_PER_BOOT=5400 says when a boot that does not end is given up. QEMU emulates the processor, which needs nothing of the
# machine; ACCEL=kvm is many times as fast where /dev/kvm is there and runs a guest.
set -euo pipefail
cd "$(dirname "$0")/.."

only=${1:-}
tests=${TESTS:-driver traces}
limit=${SECONDS_PER_BOOT:-5400}
skip=${SKIP:-}
accel=${ACCEL:-tcg}
# An emulated processor is slow: the tests are optimised, and keep their checks.
export CARGO_PROFILE_DEV_OPT_LEVEL=1
export CARGO_TARGET_DIR=$PWD/target/kernels/build
work=$PWD/target/kernels
results=$work/results
image=$work/initramfs.gz

main() {
    mkdir -p "$work"
    install_tools
    update_lists
    local oldest newest
    oldest=$(unpack_kernel "$(version_of '^6\.1\.')")
    newest=$(unpack_kernel "$(version_of .)")
    make_image

    echo "boot|kernel|tests|passed|failed|ignored|" > "$results"
    boot 6.1-uring "$oldest" RINGLOOP_DRIVER=uring "$tests"
    boot 6.1-epoll "$oldest" RINGLOOP_DRIVER=epoll "$tests"
    boot newest-uring "$newest" RINGLOOP_DRIVER=uring "$tests"
    boot newest-epoll "$newest" RINGLOOP_DRIVER=epoll "$tests"
    # Nobody chooses the driver here, and the kernel refuses io_uring.
    boot newest-refused "$newest" sysctl.kernel.io_uring_disabled=2 "echo traces"

    echo
    column -t -s '|' "$results"
    ! grep -q FAILED "$results"
}

install_tools() {
    local missing=()
    command -v qemu-system-x86_64 > /dev/null || missing+=(qemu-system-x86)
    [ "$(dpkg-query -W -f '${Status}' busybox-static 2> /dev/null)" = "install ok installed" ] || missing+=(busybox-static)
    command -v cpio > /dev/null || missing+=(cpio)
    command -v column > /dev/null || missing+=(bsdextrautils)
    if [ ${#missing[@]} -gt 0 ]; then
        timeout 300 apt-get update -qq
        timeout 900 apt-get install -y -qq --no-install-recommends "${missing[@]}" > "$work/install.log"
    fi
}

# Lists of our own: those of the system stay as they are.
update_lists() {
    mkdir -p "$work"/apt/lists/partial "$work"/apt/cache/archives/partial "$work"/apt/none
    local key=/usr/share/keyrings/debian-archive-keyring.gpg
    for suite in bookworm bookworm-security bookworm-backports trixie-backports; do
        local from=debian
        [[ $suite != *-security ]] || from=debian-security
        echo "deb [arch=amd64 signed-by=$key] http://deb.debian.org/$from $suite main"
    done > "$work/apt/sources.list"
    apt get update -qq
}

apt() {
    local command=apt-$1
    shift
    timeout 600 "$command" -o APT::Sandbox::User=root -o Dir::Etc::SourceParts="$work/apt/none" \
        -o Dir::Etc::SourceList="$work/apt/sources.list" \
        -o Dir::State::Lists="$work/apt/lists" -o Dir::Cache="$work/apt/cache" "$@"
}

# The newest version of the kernel's package that matches.
version_of() {
    apt cache madison linux-image-cloud-amd64 | awk -F ' *[|] *' '{print $2}' | grep -E "$1" | sort -V | tail -1
}

# Prints where the kernel of that version lies.
unpack_kernel() {
    local name place
    name=$(apt cache show "linux-image-cloud-amd64=$1" | grep -oE 'linux-image-[0-9][^ ,]*' | head -1)
    place=$work/$name
    if [ ! -d "$place" ]; then
        mkdir -p "$place.part"
        # Later releases have the kernel in a package of its own.
        local package
        for package in "$name" "${name/image/binary}"; do
            (cd "$place.part" && apt get download -qq "$package" 2> /dev/null) || true
        done
        local file
        for file in "$place.part"/*.deb; do
            dpkg-deb -x "$file" "$place.part"
            rm "$file"
        done
        mv "$place.part" "$place"
    fi
    find "$place" -name 'vmlinuz*' | grep . || { echo "no kernel in $name" >&2; return 1; }
}

# An initramfs: busybox, the tests, the libraries that they need, and what /init does.
make_image() {
    local root=$work/root built
    rm -rf "$root"
    mkdir -p "$root"/{bin,dev,etc,lib64,proc,sys,tests,tmp}
    cp /bin/busybox "$root/bin/"
    local names
    names=$(printf '%s\n' $tests traces | sort -u)
    # shellcheck disable=SC2046 # Words.
    built=$(cargo test --no-run -p ringloop-driver -p ringloop-tests $(printf -- '--test %s ' $names) 2>&1 | tee >(cat >&2) |
        sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
    cargo build -p ringloop --example echo
    local name file
    for name in $names; do
        file=$(printf '%s\n' "$built" | grep "/$name-")
        strip -o "$root/tests/$name" "$file"
        copy_libraries "$file"
    done
    strip -o "$root/tests/echo" "$CARGO_TARGET_DIR/debug/examples/echo"
    copy_libraries "$root/tests/echo"
    cp "$(command -v prlimit)" "$root/bin/"
    copy_libraries "$root/bin/prlimit"
    printf '127.0.0.1 localhost\n::1 localhost\n' > "$root/etc/hosts"
    echo 'hosts: files' > "$root/etc/nsswitch.conf"
    init > "$root/init"
    chmod +x "$root/init"
    (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) > "$image"
}

copy_libraries() {
    local library
    for library in $(ldd "$1" | grep -oE '/[^ ]+'); do
        mkdir -p "$work/root$(dirname "$library")"
        cp -L "$library" "$work/root$library"
    done
}

init() {
    cat << 'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin 2> /dev/null
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
ip link set lo up
ulimit -n 65536
echo "kernel: $(uname -r)"
for name in $(echo "$ringloop_tests" | tr , ' '); do
    echo "begin: $name"
    if [ "$name" != echo ]; then
        "/tests/$name" --color never ${ringloop_skip:+--skip "$ringloop_skip"}
    else
        # The automatic choice has to be epoll, what comes back has to be what was sent, and who must have io_uring is told why not.
        /tests/echo --port 0 > /tmp/out 2> /tmp/err &
        until grep -q listening /tmp/out; do usleep 100000; done
        port=$(sed -n 's/.*://p' /tmp/out)
        head -c 3000000 /dev/urandom > /tmp/sent
        nc 127.0.0.1 "$port" < /tmp/sent > /tmp/back
        cat /tmp/err
        reason='sysctl kernel.io_uring_disabled is 2'
        /tests/echo --port 0 --driver uring 2> /tmp/refused
        if [ $? = 1 ] && grep -q "error: .*$reason" /tmp/refused && grep -q '^remedy: set the sysctl' /tmp/refused &&
            cmp /tmp/sent /tmp/back && grep -q "on epoll, as there is no io_uring: .*$reason" /tmp/err; then
            echo 'test result: ok. 1 passed; 0 failed; 0 ignored'
        else
            echo 'test result: FAILED. 0 passed; 1 failed; 0 ignored'
        fi
    fi
    echo "end: $name"
done
poweroff -f
END
}

# Boots one kernel with one word for its command line, runs test targets there, and adds lines to the table.
boot() {
    local name=$1 kernel=$2 word=$3 targets=$4
    [[ $name == *"$only"* ]] || return 0
    local log=$work/$name.log
    echo "boot $name: $targets (log: $log)"
    # Where the host is busy, an emulated timer is late, and the kernel's check of it would end the boot.
    timeout "$limit" qemu-system-x86_64 -machine accel="$accel" -cpu max -smp 2 -m 6G -nic none -no-reboot \
        -display none -monitor none -serial stdio -kernel "$kernel" -initrd "$image" \
        -append "console=ttyS0 quiet panic=-1 no_timer_check RINGLOOP_PATIENCE=3 $word ringloop_tests=${targets// /,} ringloop_skip=$skip" < /dev/null > "$log" 2>&1 || true
    local release target
    release=$(sed -n 's/\r$//; s/^kernel: //p' "$log")
    for target in $targets; do
        sed -n "s/\r\$//; /^begin: $target\$/,/^end: $target\$/p" "$log" | count "$name|$release|$target"
    done >> "$results"
}

# Makes a line of the table of a target's output.
count() {
    awk -v line="$1" '
        /^test result:/ { for (i = 2; i <= NF; i++) count[$i] = $(i - 1) }
        /^test result: ok/ { said = "" ; ok = 1 }
        END {
            printf "%s|%s|%s|%s|%s\n", line, count["passed;"], count["failed;"], count["ignored;"] count["ignored"], ok ? "" : "FAILED"
        }'
}

main
