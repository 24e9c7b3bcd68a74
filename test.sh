#!/bin/bash
# The one test command: host tests of every crate, then the real image on QEMU and on Bochs.
#
#   ./test.sh [--host | --machine]
#
#   --host       host tests only
#   --machine    only what needs an emulator: the driver on QEMU's remapping unit, and whole machines
#   --help       this text
#
# Prints a line a group and ends with `N passed, N failed` (and what was skipped, by name). Exit status 0 if nothing failed.
# Needs what run-qemu.sh needs, and Python 3.
set -uo pipefail

root=$(cd "$(dirname "$0")" && pwd)
cd "$root" || exit 2
. tests/tools/packages.sh
. tests/tools/toolchain.sh

host=yes machine=yes
for option in "$@"; do
    case $option in
        --host) machine= ;;
        --machine) host= ;;
        --help | -h)
            sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
            exit 0
            ;;
        *)
            echo "unknown option $option (see --help)" >&2
            exit 2
            ;;
    esac
done

passed=0 failed=0 skipped=()
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# check NAME COMMAND...: a check that passes or fails as a whole.
check() {
    local name=$1
    shift
    if "$@" > "$log" 2>&1; then
        passed=$((passed + 1))
        echo "check $name: ok"
    else
        failed=$((failed + 1))
        echo "check $name: FAILED"
        tail -n 40 "$log"
    fi
}

# count LABEL: adds up the `N passed; N failed` of cargo test in the log.
count() {
    local p f
    p=$(sed -n 's/^test result: .* \([0-9]*\) passed; .*/\1/p' "$log" | paste -sd+ | bc)
    f=$(sed -n 's/^test result: .* \([0-9]*\) failed; .*/\1/p' "$log" | paste -sd+ | bc)
    passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0}))
    echo "$1: ${p:-0} passed, ${f:-0} failed"
}

# tests LABEL ARG...: `cargo test ARG...`, counted, with its failures and what it skipped.
tests() {
    local label=$1 status=0
    shift
    cargo_host test --no-fail-fast "$@" > "$log" 2>&1 || status=$?
    count "$label"
    if [ "$status" -ne 0 ]; then
        grep -E '^(error|test .* FAILED|---- )' -A 12 "$log" | head -n 150
        # A crate that does not build has no result to count.
        grep -q '^error: could not compile' "$log" && failed=$((failed + 1))
    fi
    while read -r name; do skipped+=("$name"); done < <(sed -n 's/^SKIPPED: *//p' "$log")
}

find_toolchain
need python3:python3 bc:bc
if [ -n "$host" ]; then
    if cargo_host fmt --version > /dev/null 2>&1; then
        check "formatting" cargo_host fmt --all --check
    else
        skipped+=("formatting")
    fi
    if cargo_host clippy --version > /dev/null 2>&1; then
        check "clippy on the host" cargo_host clippy --quiet --workspace --all-targets -- -D warnings
        check "clippy on the image" cargo_image clippy --quiet --release -p postern -p netprobe -p exitprobe -- -D warnings
    else
        skipped+=("clippy on the host" "clippy on the image")
    fi
    tests "host tests" --workspace --exclude qtest
    # As others use it: the kernel's feature `small` is on above.
    tests "host tests of paging without the kernel" -p paging
    # An input that fails is kept in target, and its seed is told.
    mkdir -p target
    check "DMAR tables, mutated for 20 seconds" \
        cargo_host run --quiet --profile fuzz -p dmar-fuzz -- --seconds 20 --save target
    grep -E '^(seed|[0-9]+ inputs)' "$log"
fi

# machines SCRIPT ARG...: whole-machine tests of one script.
machines() {
    python3 "$@" | tee "$log"
    local result
    result=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/\1 \2/p' "$log" | tail -n 1)
    # No result is a failure of the tests themselves.
    [ -n "$result" ] || result="0 1"
    passed=$((passed + ${result% *})) failed=$((failed + ${result#* }))
    while read -r name; do skipped+=("$name"); done < <(sed -n 's/^SKIPPED: *//p' "$log")
}

if [ -n "$machine" ]; then
    ./run-qemu.sh --build-only > /dev/null || exit $?
    need qemu-system-x86_64:qemu-system-x86
    version=$(qemu-system-x86_64 --version | sed -n 's/^QEMU emulator version \([0-9.]*\).*/\1/p')
    # The other generation of QEMU, unpacked beside the system's own.
    newer=
    [ "${version%%.*}" -ge 10 ] || newer=$(tests/tools/qemu10.sh) ||
        skipped+=("the driver on QEMU 10, whole-machine tests on QEMU 10: it could not be had")
    export QTEST_QEMU=qemu-system-x86_64${newer:+:$newer}
    tests "the driver on QEMU's remapping unit" -p qtest
    machines tests/machine.py --label "QEMU $version"
    if [ -n "$newer" ]; then
        label=$("$newer" --version | sed -n 's/^QEMU emulator version \([0-9.]*\).*/QEMU \1/p')
        machines tests/machine.py --label "$label" --qemu "$newer"
    fi
    # VMX without VMX hardware: on Bochs, and with VT-d on QEMU on KVM in a Linux in Bochs.
    machines tests/bochs_machine.py
    # Linux as a guest, on each of these.
    machines tests/linux_machine.py --qemu "QEMU $version=qemu-system-x86_64" ${newer:+--qemu "$label=$newer"}
fi

for name in "${skipped[@]}"; do echo "skipped: $name"; done
[ ${#skipped[@]} -eq 0 ] && echo "$passed passed, $failed failed" ||
    echo "$passed passed, $failed failed, ${#skipped[@]} skipped"
[ "$failed" -eq 0 ]
