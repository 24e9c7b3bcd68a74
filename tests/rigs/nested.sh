#!/bin/bash
# VMX and VT-d in one machine without VMX hardware: Bochs runs Linux with KVM, and KVM runs QEMU with intel-iommu and nested VMX.
#
#   tests/rigs/nested.sh build
#       Builds the Linux in the middle, once: kernel and KVM of Debian 12, busybox, and this machine's QEMU. It goes to
#       $NESTED_DIR (default: ~/.cache/postern/nested). Builds Bochs too when that is missing (see bochs.sh).
#
#   tests/rigs/nested.sh run [OPTIONS] FILE... -- QEMU-OPTIONS...
#       Puts the FILEs in the folder /files of that Linux, runs QEMU there with `-accel kvm -cpu host,+vmx`, a serial port and
#       the QEMU-OPTIONS, and prints what QEMU's guest writes to the serial port, as it comes.
#         --timeout S           the longest run, in seconds of this machine's time (default: 900)
#         --serial FILE         a copy of the serial output
#         --log FILE            Bochs's own log: a failed VM entry, KVM's too, is there as `VMFAIL: ...`
#         --cpu MODEL           Bochs's processor (default: corei7_skylake_x; see bochs.sh models)
#         --memory MIB          memory of Bochs, in which Linux and QEMU's guest must fit (default: 1536)
#         --http PORT           serves /files by HTTP at this port of that Linux's loopback, which QEMU's user network has at 10.0.2.2
#         --stamp               puts the time before each line, in seconds of that Linux's clock, which is virtual as all there
#         --kvm-options OPTION  an option of the kvm-intel module, such as enable_apicv=0 for a processor without virtual-interrupt
#                               delivery and posted interrupts; may be repeated
#
# Exit status: that of QEMU's isa-debug-exit, 0 passed (33) or 1 failed (35), also for any other end; 124 no result in time;
# 2 wrong options; 3 the rig cannot be had.
#
# Bochs has one processor: with two, the nested KVM fails for reasons of its own. QEMU's -smp 2 inside is fine.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../tools/packages.sh"
. "$here/../tools/debian.sh"
. "$here/../tools/initrd.sh"

dir=${NESTED_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/postern/nested}
modules=(irqbypass kvm kvm-intel)
# What QEMU loads by itself: the BIOS, and the programs that start a -kernel.
firmware=(bios-256k.bin kvmvapic.bin linuxboot_dma.bin multiboot_dma.bin pvh.bin)

say() { echo "nested: $*" >&2; }
usage() {
    say "$*"
    exit 2
}
unavailable() {
    say "the nested rig cannot be had here: $*"
    exit 3
}

recipe() { sha256sum "$here/nested.sh" "$here"/../tools/{debian,initrd}.sh "$(command -v qemu-system-x86_64)" | cut -d' ' -f1 | sha256sum; }
is_built() { [ -e "$dir/initrd" ] && [ "$(cat "$dir/recipe" 2> /dev/null)" = "$(recipe)" ]; }

build() {
    "$here/bochs.sh" build
    need qemu-system-x86_64:qemu-system-x86
    is_built && return 0
    mkdir -p "$dir"
    exec 9> "$dir/lock"
    flock -w 900 9 || unavailable "another run holds $dir/lock"
    is_built && return 0
    need cpio:cpio xz:xz-utils dpkg-deb:dpkg

    say "fetching the kernel of Debian 12"
    # In a subshell: the rest of the script must keep this machine's apt.
    (
        private_apt "$dir" bookworm || exit 1
        cd "$dir/apt"
        kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
        rm -f ./*.deb
        timeout 600 apt-get -q download "$kernel" busybox-static > log 2>&1 < /dev/null || {
            tail -n 3 log >&2
            exit 1
        }
    ) || unavailable "see above"
    say "making its initial RAM disk"
    rm -rf "$dir/packages" "$dir/root"
    for package in "$dir"/apt/*.deb; do dpkg-deb -x "$package" "$dir/packages"; done
    fill_root "$dir/packages" "$dir/root"
    archive "$dir/root" > "$dir/initrd.new"
    cp "$dir"/packages/boot/vmlinuz-* "$dir/vmlinuz"
    rm -rf "$dir/packages" "$dir/root" "$dir/apt"
    mv "$dir/initrd.new" "$dir/initrd"
    recipe > "$dir/recipe"
    say "built in $SECONDS s: $dir, $(du -sh "$dir" | cut -f1)"
}

# fill_root PACKAGES ROOT: the files of the Linux in the middle.
fill_root() {
    local packages=$1 root=$2 name file
    mkdir -p "$root"/{bin,dev,modules,proc,sys,tmp,files}
    cp "$packages/bin/busybox" "$root/bin/"
    for name in "${modules[@]}"; do
        file=$(find "$packages/lib/modules" -name "$name.ko*" | head -n 1)
        case $file in
            *.xz) xz --decompress --stdout "$file" > "$root/modules/$name.ko" ;;
            *.ko) cp "$file" "$root/modules/" ;;
            *) unavailable "the kernel's package has no module $name" ;;
        esac
    done
    put_qemu qemu-system-x86_64 "$root" "${firmware[@]}" || unavailable "QEMU is no dynamic program"
    [ -e "$root/firmware/pvh.bin" ] || unavailable "QEMU's firmware was not found"
    cat > "$root/init" << 'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
now() { cut -d ' ' -f 1 /proc/uptime; }
. /options
insmod /modules/irqbypass.ko
insmod /modules/kvm.ko
insmod /modules/kvm-intel.ko nested=1 $kvm_options
echo "nested: Linux $(uname -r) with KVM at $(now) s"
if [ "$http" ]; then
    ip link set lo up
    httpd -p "127.0.0.1:$http" -h /files
fi
# The console is a slow serial line. A pipe between it and QEMU keeps the guest's processor from waiting for it.
mkfifo /tmp/serial /tmp/qemu
if [ "$stamp" ]; then
    while IFS= read -r line; do
        read -r up rest < /proc/uptime
        printf '%s %s\n' "$up" "$line"
    done < /tmp/serial &
else
    cat /tmp/serial &
fi
sed 's/^/nested: /' /tmp/qemu &
readers=$!
echo "nested: QEMU starts at $(now) s"
sh /start < /dev/null > /tmp/qemu 2>&1
status=$?
wait $readers
sleep 1
echo
echo "nested: QEMU ended with status $status at $(now) s"
sleep 10
poweroff -f
INIT
    chmod +x "$root/init"
}

run() {
    local timeout=900 serial= log= cpu=corei7_skylake_x memory=1536 http= stamp= kvm_options=() files=()
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        case $1 in --timeout | --serial | --log | --cpu | --memory | --http | --kvm-options)
            [ $# -gt 1 ] || usage "$1 needs a value" ;;
        esac
        case $1 in
            --timeout) timeout=$2; shift ;;
            --serial) serial=$2; shift ;;
            --log) log=$2; shift ;;
            --cpu) cpu=$2; shift ;;
            --memory) memory=$2; shift ;;
            --http) http=$2; shift ;;
            --stamp) stamp=yes ;;
            --kvm-options) kvm_options+=("$2"); shift ;;
            -*) usage "unknown option $1" ;;
            *) [ -r "$1" ] || usage "cannot read $1"; files+=("$1") ;;
        esac
        shift
    done
    [ $# -gt 0 ] || usage "QEMU's options come after --"
    shift
    build

    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    mkdir -p "$scratch/extra/files"
    [ ${#files[@]} -eq 0 ] || cp -L -- "${files[@]}" "$scratch/extra/files/"
    printf 'kvm_options=%q\nhttp=%q\nstamp=%q\n' "${kvm_options[*]}" "$http" "$stamp" > "$scratch/extra/options"
    {
        printf 'exec qemu'
        printf ' %q' -accel kvm -M q35,kernel-irqchip=split -cpu host,+vmx -nodefaults -no-user-config -display none -no-reboot \
            -L /firmware -chardev file,id=serial0,path=/tmp/serial -serial chardev:serial0 "$@"
        echo
    } > "$scratch/extra/start"
    # Two archives, one behind the other, are one initial RAM disk.
    { cat "$dir/initrd"; archive "$scratch/extra"; } > "$scratch/initrd"
    # The kernel is told the TSC's frequency, because CPUID and Bochs's timers disagree on it; and it leaves out the tests of its
    # cryptography, a third of the whole start.
    local command_line="console=ttyS0,115200 quiet loglevel=1 panic=-1 nokaslr mitigations=off tsc=reliable"
    command_line+=" tsc_early_khz=100000 nowatchdog random.trust_cpu=on cryptomgr.notests"
    "$here/iso.sh" --linux "$dir/vmlinuz" "$scratch/initrd" "$scratch/nested.iso" "$command_line"

    local status=0
    "$here/bochs.sh" run --cpu "$cpu" --memory "$memory" --timeout "$timeout" --unknown-msrs --log "${log:-$scratch/bochs.log}" \
        --pass '^nested: QEMU ended with status 33 ' --fail '^nested: QEMU ended with status ' "$scratch/nested.iso" |
        split_lines "$serial" || status=${PIPESTATUS[0]}
    return "$status"
}

# split_lines COPY: the lines of the rig to standard error, those of QEMU's guest to standard output and to the file COPY.
split_lines() {
    local line blank=
    [ -z "$1" ] || : > "$1"
    while IFS= read -r line; do
        case $line in
            # An empty line may be the rig's, before its last one.
            '') blank+=$'\n' ;;
            'nested: '*)
                printf '%s\n' "$line" >&2
                blank=
                ;;
            *)
                printf '%s%s\n' "$blank" "$line"
                [ -z "$1" ] || printf '%s%s\n' "$blank" "$line" >> "$1"
                blank=
                ;;
        esac
    done
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
    build) build ;;
    run) run "$@" ;;
    *)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
        exit 2
        ;;
esac
