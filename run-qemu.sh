#!/bin/bash
# Builds the hypervisor and its test guest, and runs them in QEMU.
#
#   ./run-qemu.sh [OPTIONS] [-- QEMU-OPTIONS]
#   ./run-qemu.sh linux [--shell] [--suite SUITE] [--kernel FILE] [--initrd FILE] [--append TEXT] [--guest-memory SIZE]
#                 [OPTIONS] [-- QEMU-OPTIONS]
#
# The machine has VT-d (intel-iommu) and one network card (e1000e, 8086:10d3 at 00:03.0), which the guest gets. The serial
# port of the machine is this terminal. It ends by itself.
#
# With `linux`, the guest is Linux: the distribution's kernel with busybox (guests/linux/build.sh gets them, once). It brings the
# card up with its own driver, asks for a lease, pings, and switches itself off; the run passes if all of that went well.
#
#   --shell            a shell on the console before it switches off; control-] and s show the hypervisor's state
#   --suite SUITE      whose kernel: bookworm (6.1) or trixie (6.12) of Debian (default: bookworm)
#   --kernel FILE      another kernel: a bzImage, or an ELF image with a PVH entry
#   --initrd FILE      another initial ramdisk
#   --append TEXT      more of the kernel's command line, such as postern.url=URL (see guests/linux/init)
#   --guest-memory SIZE   the guest's memory in MiB (default: 256)
#
#   --engine tcg|kvm|nested   what executes the code: QEMU itself; this machine's KVM with nested VMX; or KVM with nested VMX in
#                      a Linux in Bochs, which needs no VMX hardware and is built when it is missing (tests/rigs/nested.sh);
#                      there, memory is at most 1024M
#                      (default: KVM where it has nested VMX, else TCG)
#   --kvm-options OPTION   with --engine nested: an option of the kvm-intel module there, such as enable_apicv=0; may be repeated
#   --nested-cpu MODEL with --engine nested: the processor that Bochs emulates (default: corei7_skylake_x)
#   --memory SIZE      the machine's memory (default: 256M)
#   --config FILE      which guests there are and what they get (default: guests/netprobe.toml)
#   --unchecked        boot with a configuration that tools/check-guests refuses: the hypervisor refuses it too
#   --file FILE        one more file for the archive, such as another guest's kernel; may be repeated
#   --archive FILE     a finished archive (guests/pack.sh) in place of --config and --file
#   --no-archive       no archive: a hypervisor without guests
#   --grub             start through GRUB (Multiboot2, from a CD image) and not through QEMU's -kernel (PVH)
#   --iommu OPTIONS    options of QEMU's intel-iommu, or none for a machine without VT-d
#                      (default: intremap=on,eim=on; with TCG before QEMU 9 intremap=on, because that has no x2APIC)
#   --timeout SECONDS  the longest run (default: 120; with --engine nested 900)
#   --serial FILE      a copy of the serial output
#   --trace FILE       QEMU's own record of VT-d commands, remapped interrupts and faults, and of delivered interrupts
#                      (not with --engine nested)
#   --qemu PATH        the QEMU to use (default: $QEMU, or qemu-system-x86_64; --engine nested always takes the latter)
#   --build-only       build, and print where the image, the guest and the archive are
#   --help             this text
#
# Exit status: 0 the run passed; 1 it failed or ended without a result; 124 it took too long; 2 QEMU could not run it or the
# options make no sense; 3 a program is missing and was not installed (the command that does it is printed).
# Needs: Rust (rustup, or a distribution's packages) and QEMU 7.2 or newer. As root, installs from Debian or Ubuntu what is missing.
set -euo pipefail

root=$(cd "$(dirname "$0")" && pwd)
. "$root/tests/tools/packages.sh"
. "$root/tests/tools/toolchain.sh"

step() { echo "run-qemu: $*" >&2; }
fail() {
    step "$*"
    exit 2
}

engine=auto memory=256M config=$root/guests/netprobe.toml archive= iommu= timeout= trace= serial=
linux= shell= suite=bookworm kernel= initrd= append= guest_memory=256
qemu=${QEMU:-qemu-system-x86_64} grub= build_only= unchecked= files=() nested_options=()
if [ "${1:-}" = linux ]; then
    linux=yes memory=
    shift
fi
while [ $# -gt 0 ]; do
    option=$1
    shift
    case $option in
        --suite | --kernel | --initrd | --append | --guest-memory | --shell)
            [ -n "$linux" ] || fail "$option goes with ./run-qemu.sh linux (see --help)"
            ;;
    esac
    case $option in
        --suite | --kernel | --initrd | --append | --guest-memory | \
        --engine | --memory | --config | --file | --archive | --iommu | --timeout | --serial | --trace | --qemu | \
            --kvm-options | --nested-cpu)
            [ $# -gt 0 ] || fail "$option needs a value (see --help)"
            value=$1
            shift
            ;;
    esac
    case $option in
        --engine) engine=$value ;;
        --memory) memory=$value ;;
        --shell) shell=yes ;;
        --suite) suite=$value ;;
        --kernel) kernel=$value ;;
        --initrd) initrd=$value ;;
        --append) append=$value ;;
        --guest-memory) guest_memory=$value ;;
        --config) config=$value ;;
        --file) files+=("$value") ;;
        --archive) archive=$value ;;
        --no-archive) archive=none ;;
        --grub) grub=yes ;;
        --iommu) iommu=$value ;;
        --timeout) timeout=$value ;;
        --serial) serial=$value ;;
        --trace) trace=$value ;;
        --qemu) qemu=$value ;;
        --kvm-options) nested_options+=(--kvm-options "$value") ;;
        --nested-cpu) nested_options+=(--cpu "$value") ;;
        --build-only) build_only=yes ;;
        --unchecked) unchecked=--unchecked ;;
        --help | -h)
            sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
            exit 0
            ;;
        --) break ;;
        *) fail "unknown option $option (see --help)" ;;
    esac
done
if [ -z "$timeout" ]; then
    timeout=120
    [ "$engine" != nested ] || timeout=900
fi
case $timeout in '' | *[!0-9]* | 0*) fail "--timeout takes a number of seconds" ;; esac
case $engine in auto | tcg | kvm | nested) ;; *) fail "--engine is tcg, kvm or nested" ;; esac
[ "$engine" = nested ] || [ ${#nested_options[@]} -eq 0 ] || fail "--kvm-options and --nested-cpu are for --engine nested"
if [ "$engine" = nested ]; then
    [ -z "$trace" ] || fail "--trace is not for --engine nested: QEMU's files stay in the machine that it runs in"
    qemu=qemu-system-x86_64
fi
case $guest_memory in '' | *[!0-9]* | 0*) fail "--guest-memory takes a number of MiB" ;; esac
case $append in *[\"\\]*) fail "--append takes no quotation mark and no backslash" ;; esac
# The guest's own memory, and the archive, which is there beside it until the guest is loaded.
memory=${memory:-$((guest_memory + 256))M}
for file in "$config" "${files[@]}" ${kernel:+"$kernel"} ${initrd:+"$initrd"} ${archive:+"$archive"}; do
    [ -r "$file" ] || [ "$file" = none ] || fail "cannot read $file"
done

# Build ----------------------------------------------------------------------------------------------------------------
find_toolchain
need strip:binutils
target=$(cd "$root" && realpath -m "${CARGO_TARGET_DIR:-target}")
images=$target/images
step "building"
# In the folder, because cargo looks for .cargo/config.toml from where it is called.
(cd "$root" && cargo_image build --release --quiet -p postern -p netprobe) || fail "the build failed"
mkdir -p "$images"
for name in postern netprobe; do
    strip --strip-all -o "$images/.$name.$$" "$target/x86_64-unknown-none/release/$name"
    mv "$images/.$name.$$" "$images/$name"
done
step "image $images/postern: $(stat -c %s "$images/postern") bytes"

scratch=$(mktemp -d)
terminal=
cleanup() {
    rm -rf "$scratch"
    # QEMU puts the terminal in raw mode, and leaves it so when it is killed.
    [ -z "$terminal" ] || stty "$terminal" 2> /dev/null || true
}
trap cleanup EXIT

# linux_guest: the files of the Linux guest, and the configuration that describes it.
linux_guest() {
    local folder
    if [ -z "$kernel" ] || [ -z "$initrd" ]; then
        folder=$("$root/guests/linux/build.sh" --suite "$suite") || exit $?
        kernel=${kernel:-$folder/vmlinuz} initrd=${initrd:-$folder/initrd}
    fi
    config=$scratch/linux.toml
    cat > "$config" <<CONFIG
[hypervisor]
debug_exit_port = 0xf4

[[guest]]
name = "linux"
kernel = "$(basename "$kernel")"
initrd = "$(basename "$initrd")"
memory_mib = $guest_memory
command_line = "console=ttyS0 quiet panic=-1${shell:+ postern.shell}${append:+ $append}"
devices = ["8086:10d3"]
CONFIG
}

if [ -z "$archive" ]; then
    # A run's own archive goes with the run: several may run at once with different configurations.
    archive=$scratch/archive.tar
    [ -z "$build_only" ] || archive=$images/archive.tar
    own=("$images/netprobe")
    if [ -n "$linux" ]; then
        linux_guest
        own=("$kernel" "$initrd")
    fi
    [ -n "$unchecked" ] || (cd "$root" && cargo_host build --quiet -p check-guests) || fail "the build failed"
    export CHECK_GUESTS=$target/debug/check-guests
    "$root/guests/pack.sh" $unchecked "$archive" "$config" "${own[@]}" "${files[@]}"
    step "archive: $(stat -c %s "$archive") bytes"
fi
if [ -n "$build_only" ]; then
    printf '%s\n' "$images/postern" "$images/netprobe"
    [ "$archive" = none ] || printf '%s\n' "$archive"
    exit 0
fi

# Machine --------------------------------------------------------------------------------------------------------------
[ "$qemu" != qemu-system-x86_64 ] || need qemu-system-x86_64:qemu-system-x86
version=$("$qemu" --version 2> /dev/null | sed -n 's/^QEMU emulator version \([0-9]*\)\..*/\1/p') || true
[ -n "$version" ] || fail "$qemu is not a QEMU that starts here"

# With "enforce", QEMU does not start if KVM cannot give its guest VMX.
kvm_has_vmx() {
    [ -w /dev/kvm ] && timeout 20 "$qemu" -accel kvm -cpu host,+vmx,enforce -M q35 -nodefaults -no-user-config \
        -display none -S -monitor stdio <<< quit > /dev/null 2>&1
}
case $engine in
    auto)
        engine=tcg
        ! kvm_has_vmx || engine=kvm
        ;;
    kvm)
        kvm_has_vmx || {
            engine=tcg
            step "there is no KVM with nested VMX here: using TCG (--engine nested needs none)"
        }
        ;;
esac
if [ -z "$iommu" ]; then
    iommu=intremap=on
    # Without KVM, QEMU takes eim=on (x2APIC ids) since its TCG has x2APIC.
    { [ "$engine" = tcg ] && [ "$version" -lt 9 ]; } || iommu+=,eim=on
fi

arguments=(-smp 1 -m "$memory")
[ "$iommu" = none ] || arguments+=(-device "intel-iommu,$iommu")
arguments+=(-netdev user,id=n0 -device e1000e,netdev=n0,addr=3,romfile= -device isa-debug-exit,iobase=0xf4,iosize=4)
if [ -n "$trace" ]; then
    arguments+=(-D "$trace" -msg timestamp=on)
    for event in vtd_ir_remap vtd_dmar_fault vtd_frr_new 'vtd_inv_desc*' apic_deliver_irq; do
        arguments+=(-trace "enable=$event")
    done
fi
# The files that the machine starts from. Nested, QEMU has them in the folder /files.
boot=() boot_options=()
boot_from() {
    boot+=("$2")
    [ "$engine" != nested ] || set -- "$1" "/files/$(basename "$2")"
    boot_options+=("$@")
}
if [ -n "$grub" ]; then
    step "making a CD with GRUB"
    status=0
    "$root/tests/rigs/iso.sh" "$images/postern" "$archive" "$scratch/postern.iso" || status=$?
    [ "$status" = 0 ] || exit $((status == 3 ? 3 : 2))
    boot_from -cdrom "$scratch/postern.iso"
else
    boot_from -kernel "$images/postern"
    [ "$archive" = none ] || boot_from -initrd "$archive"
fi

# Run, nested ----------------------------------------------------------------------------------------------------------
if [ "$engine" = nested ]; then
    nested_options+=(--timeout "$timeout" ${serial:+--serial "$serial"})
    step "QEMU $version on KVM in Linux in Bochs, $memory, intel-iommu $iommu, at most $timeout s"
    status=0
    "$root/tests/rigs/nested.sh" run "${nested_options[@]}" "${boot[@]}" -- "${arguments[@]}" "${boot_options[@]}" "$@" || status=$?
    case $status in
        0) step "passed" ;;
        124) step "FAILED: no result within $timeout s" ;;
        1) step "FAILED" ;;
        *) step "the nested rig ended with status $status" ;;
    esac
    exit "$status"
fi
arguments+=("${boot_options[@]}" -M q35,kernel-irqchip=split -nodefaults -no-user-config -display none -no-reboot)
case $engine in
    tcg) arguments+=(-accel tcg -cpu max) ;;
    kvm) arguments+=(-accel kvm -cpu host,+vmx) ;;
esac
# In the value of an option, QEMU reads ",," as a comma.
arguments+=(-chardev "stdio,id=serial0${serial:+,logappend=off,logfile=${serial//,/,,}}" -serial chardev:serial0)

# Run ------------------------------------------------------------------------------------------------------------------
# Standard input is the serial port's when it can be read without stopping QEMU: not when it is closed, and not when it is the
# terminal of a job in the background.
in_foreground() {
    local stat fields
    stat=$(< /proc/$$/stat)
    # After the command's name, which is in parentheses: state, parent, process group, session, terminal, foreground group.
    read -r -a fields <<< "${stat##*) }"
    [ "${fields[2]}" = "${fields[5]}" ]
}
if [ ! -e /proc/self/fd/0 ] || { [ -t 0 ] && ! in_foreground; }; then
    exec < /dev/null
elif [ -t 0 ]; then
    terminal=$(stty -g)
fi
step "QEMU $version, ${engine^^}, $memory, intel-iommu $iommu, at most $timeout s"
status=0
timeout --foreground --kill-after=5 "$timeout" "$qemu" "${arguments[@]}" "$@" || status=$?

# isa-debug-exit makes (value << 1) | 1 of what the image writes: 0x10 passed, 0x11 failed.
case $status in
    33)
        step "passed"
        exit 0
        ;;
    35)
        step "FAILED"
        exit 1
        ;;
    124 | 137)
        step "FAILED: no result within $timeout s"
        exit 124
        ;;
    0)
        step "FAILED: the machine was reset or powered off without a result"
        exit 1
        ;;
    *)
        fail "QEMU ended with status $status"
        ;;
esac
