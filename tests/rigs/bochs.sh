#!/bin/bash
# Bochs, a processor with VMX, EPT, APIC virtualization and posted interrupts in software: no VMX hardware is needed.
#
#   tests/rigs/bochs.sh build
#       Builds Bochs 3.0 from Debian 13's source package with the patches beside this script, once, in a minute or two.
#       It goes to $BOCHS_DIR (default: ~/.cache/postern/bochs); nothing is installed but compilers that are missing.
#
#   tests/rigs/bochs.sh run [OPTIONS] ISO
#       Boots the CD image, prints what it writes to the serial port, and ends with the run's result.
#         --cpu MODEL       a processor of `bochs.sh models` (default: corei7_skylake_x)
#         --memory MIB      the machine's memory, at most 2048 (default: 512)
#         --timeout S       the longest run, in seconds of this machine's time (default: 120)
#         --serial FILE     a copy of the serial output
#         --log FILE        Bochs's own log: a failed VM entry is there as `VMFAIL: ...` with the check that failed
#         --pass REGEX, --fail REGEX   the serial line that ends the run (default: `report: ... result=pass`, `... result=fail`)
#         --unknown-msrs    an unknown MSR reads as zero (default: #GP, as on a processor)
#
#   tests/rigs/bochs.sh models
#       Lists the processor models.
#
# Exit status: 0 passed, 1 failed or ended without a result, 124 no result in time, 2 wrong options, 3 Bochs cannot be had.
#
# The machine: one processor, i440FX, IDE CD, one serial port; no PCI Express, no MSI, no IOMMU. Each run of the same CD image
# is the same to the tick, and one tick of the TSC is one instruction, 100 MHz of them. CPUID's frequency is not the TSC's.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../tools/packages.sh"
. "$here/../tools/debian.sh"

dir=${BOCHS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/postern/bochs}
program=$dir/bochs
# VMX=2 has EPT and what came after it. The frequency display is off because its signal handler writes to the log and can
# wait for ever for a lock that the interrupted code holds. No plugins, because they would have to be found at run time.
configuration=(--with-nogui --disable-plugins --disable-debugger --disable-docbook --disable-show-ips --enable-x86-64
    --enable-cpu-level=6 --enable-smp --enable-vmx=2 --enable-avx --enable-evex --enable-pci --enable-long-phy-address
    --enable-memtype --enable-protection-keys --enable-cet --enable-uintr --enable-perfmon --enable-monitor-mwait
    --enable-configurable-msrs --enable-all-optimizations)

say() { echo "bochs: $*" >&2; }
usage() {
    say "$*"
    exit 2
}
unavailable() {
    say "Bochs cannot be had here: $*"
    exit 3
}

# What the program was built from: another patch or other options build it anew.
recipe() { { cat "$here"/bochs-*.patch; echo "${configuration[@]}"; } | sha256sum | cut -d' ' -f1; }
is_built() { [ -x "$program" ] && [ "$(cat "$dir/recipe" 2> /dev/null)" = "$(recipe)" ]; }

build() {
    is_built && return 0
    mkdir -p "$dir"
    exec 9> "$dir/lock"
    flock -w 900 9 || unavailable "another run holds $dir/lock"
    is_built && return 0
    [ "$(dpkg --print-architecture 2> /dev/null)" = amd64 ] || unavailable "needs Debian or Ubuntu on amd64"
    need g++:g++ make:make patch:patch xz:xz-utils dpkg-deb:dpkg

    say "fetching the source and the firmware of Debian 13"
    local log=$dir/log archive
    private_apt "$dir" trixie || unavailable "see above"
    cd "$dir"
    rm -rf source firmware ./*.deb ./*.tar.xz
    # apt checks each file against the signed package lists. Only the tarball counts: mirrors may refuse the .dsc beside it.
    timeout 300 apt-get -q source --download-only bochs > "$log" 2>&1 < /dev/null || true
    timeout 300 apt-get -q download bochsbios vgabios >> "$log" 2>&1 < /dev/null || true
    archive=$(find . -maxdepth 1 -name 'bochs_3.0+*.orig.tar.xz')
    { [ -n "$archive" ] && ls bochsbios_*.deb vgabios_*.deb > /dev/null 2>&1; } || {
        tail -n 3 "$log" >&2
        unavailable "the packages could not be fetched"
    }
    for package in bochsbios_*.deb vgabios_*.deb; do dpkg-deb -x "$package" firmware; done
    cp firmware/usr/share/bochs/BIOS-bochs-latest bios.bin
    cp firmware/usr/share/vgabios/vgabios.bin vgabios.bin
    mkdir source
    tar -x -f "$archive" -C source --strip-components=1
    cd source
    for patch in "$here"/bochs-*.patch; do
        patch -s -p1 < "$patch" >> "$log" 2>&1 || {
            tail -n 5 "$log" >&2
            unavailable "$(basename "$patch") does not fit $(basename "$archive")"
        }
    done
    say "building it, for a minute or two (log: $log)"
    export CFLAGS="-O2 -pipe" CXXFLAGS="-O2 -pipe"
    { ./configure "${configuration[@]}" && make -j"$(nproc)"; } >> "$log" 2>&1 < /dev/null || {
        grep -E 'error' "$log" | head -n 5 >&2
        unavailable "it does not build (log: $log)"
    }
    strip bochs
    mv bochs "$program"
    cd "$dir"
    rm -rf source firmware apt ./*.deb ./*.tar.xz
    recipe > "$dir/recipe"
    say "built $program in $SECONDS s"
}

# machine: the configuration of Bochs, on standard output.
machine() {
    cat << MACHINE
display_library: nogui
config_interface: textconfig
plugin_ctrl: unmapped=1, biosdev=1, serial=1, extfpuirq=1, parallel=0, speaker=0
cpu: model=$cpu, count=1, ips=100000000, reset_on_triple_fault=0, ignore_bad_msrs=$unknown_msrs
memory: guest=$memory, host=$memory
romimage: file="$dir/bios.bin", options=fastboot
vgaromimage: file="$dir/vgabios.bin"
vga: extension=vbe, update_freq=1, realtime=0
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path="$iso", status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev="$scratch/serial"
clock: sync=none, time0=1767225600, rtc_sync=0
log: "$log"
panic: action=fatal
error: action=report
info: action=report
debug: action=ignore
MACHINE
}

run() {
    cpu=corei7_skylake_x memory=512 unknown_msrs=0 iso=
    local timeout=120 serial= pass='^report:.* result=pass( |$)' fail='^report:.* result=fail( |$)'
    log=
    while [ $# -gt 0 ]; do
        case $1 in --cpu | --memory | --timeout | --serial | --log | --pass | --fail)
            [ $# -gt 1 ] || usage "$1 needs a value" ;;
        esac
        case $1 in
            --cpu) cpu=$2; shift ;;
            --memory) memory=$2; shift ;;
            --timeout) timeout=$2; shift ;;
            --serial) serial=$2; shift ;;
            --log) log=$2; shift ;;
            --pass) pass=$2; shift ;;
            --fail) fail=$2; shift ;;
            --unknown-msrs) unknown_msrs=1 ;;
            -*) usage "unknown option $1" ;;
            *) iso=$1 ;;
        esac
        shift
    done
    [ -r "$iso" ] || usage "cannot read the CD image '$iso'"
    iso=$(realpath "$iso")
    case $timeout$memory in *[!0-9]*) usage "--timeout and --memory take whole numbers" ;; esac
    [ "$memory" -le 2048 ] || usage "Bochs has at most 2048 MiB"
    build
    models | grep -qx -e "$cpu" || usage "no processor model $cpu (see bochs.sh models)"

    scratch=$(mktemp -d)
    trap 'stop; rm -rf "$scratch"' EXIT
    log=${log:-$scratch/bochs.log}
    : > "$scratch/serial"
    machine > "$scratch/bochsrc"
    # Bochs writes to the serial port's file byte by byte, and neither ends nor gives a status by what the image says: the file
    # is watched, and Bochs is stopped when the line is there that ends the run. On SIGINT it dumps the processor into its log.
    timeout --signal=INT --kill-after=5 "$timeout" "$program" -q -f "$scratch/bochsrc" < /dev/null > "$scratch/output" 2>&1 &
    bochs=$!
    local status=1 line
    while IFS= read -r line; do
        line=${line%$'\r'}
        printf '%s\n' "$line"
        [ -z "$serial" ] || printf '%s\n' "$line" >> "$scratch/copy"
        [[ $line =~ $pass ]] && { status=0; break; }
        [[ $line =~ $fail ]] && { status=10; break; }
    done < <(exec tail --lines=+1 --follow --sleep-interval=0.2 --pid="$bochs" "$scratch/serial")
    if [ "$status" != 1 ]; then
        # What it still says after the result, such as that it may be switched off, is of no use.
        stop
    else
        wait "$bochs" && status=1 || status=$?
        bochs=
    fi
    [ -z "$serial" ] || { touch "$scratch/copy"; cp "$scratch/copy" "$serial"; }
    case $status in
        0) return 0 ;;
        10) status=1 ;;
        124 | 137)
            say "no result within $timeout s"
            status=124
            ;;
        *)
            say "Bochs ended without a result (a triple fault, or the machine was switched off)"
            status=1
            ;;
    esac
    # Why a VM entry failed and why Bochs gave up: the best diagnosis there is.
    # Signal 2 is the one that it is stopped with.
    grep -ahE 'VMFAIL|VMABORT|PANIC|triple fault' "$log" 2> /dev/null | grep -v 'SIGNAL 2 caught' | sed 's/^[^[]*//' |
        sort -u | tail -n 10 >&2 || true
    return "$status"
}

stop() {
    [ -n "${bochs:-}" ] || return 0
    kill "$bochs" 2> /dev/null || true
    wait "$bochs" 2> /dev/null || true
    bochs=
}

models() { "$program" --help cpu 2>&1 | sed -n 's/^ *\([a-z0-9_]\{3,\}\)$/\1/p'; }

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
    build) build ;;
    run) run "$@" ;;
    models) build && models ;;
    *)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
        exit 2
        ;;
esac
