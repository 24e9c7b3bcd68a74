#!/bin/bash
# Gets a Linux guest: the distribution's kernel, and an initial ramdisk with busybox and the drivers of passed-through devices.
#
#   guests/linux/build.sh [--suite SUITE] [--peer] [--qemu PATH]
#
#   --suite SUITE   whose kernel: bookworm (6.1) or trixie (6.12) of Debian (default: bookworm)
#   --peer          also `peer`: the initial ramdisk of a Linux that hands the card by KVM and VFIO to the same guest in a QEMU
#                   of its own: what Postern is measured against
#   --qemu PATH     whose QEMU the peer has (default: qemu-system-x86_64)
#
# The result goes to $LINUX_DIR/SUITE (default: ~/.cache/postern/linux/SUITE) and is made once, in half a minute: vmlinuz and
# initrd. Prints that folder. Nothing is installed but tools that are missing. Exit status 3: it cannot be had here.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../tests/tools/packages.sh"
. "$here/../../tests/tools/debian.sh"
. "$here/../../tests/tools/initrd.sh"

# What a guest may be given: network cards and their virtual functions, disks, and USB.
modules=(e1000e igb igbvf nvme xhci-pci usb-storage sd_mod)
# What the peer hands a card over with. The one for the other processor does not load, and does no harm.
peer_modules=(kvm_intel kvm_amd vfio_iommu_type1 vfio_pci)
# What QEMU loads by itself: the BIOS, and the programs that start a -kernel.
firmware=(bios-256k.bin kvmvapic.bin linuxboot_dma.bin)

say() { echo "linux: $*" >&2; }
unavailable() {
    say "a Linux guest cannot be had here: $*"
    exit 3
}
suite=bookworm peer= qemu=qemu-system-x86_64
while [ $# -gt 0 ]; do
    case $1 in
        --suite) suite=${2:?--suite needs a value}; shift ;;
        --qemu) qemu=${2:?--qemu needs a value}; shift ;;
        --peer) peer=yes ;;
        *)
            sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
            exit 2
            ;;
    esac
    shift
done
dir=${LINUX_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/postern/linux}/$suite
recipe() {
    local files=("$here"/* "$here"/../../tests/tools/{debian,initrd}.sh)
    [ -z "$peer" ] || files+=("$(command -v "$qemu")")
    sha256sum "${files[@]}" | cut -d ' ' -f 1 | sha256sum
}
recipe_file=$dir/recipe${peer:+-peer}
is_built() { [ -e "$dir/initrd" ] && [ "$(cat "$recipe_file" 2> /dev/null)" = "$(recipe)" ]; }

build() {
    mkdir -p "$dir"
    [ -z "$peer" ] || need "$qemu":qemu-system-x86
    exec 9> "$dir/lock"
    flock -w 900 9 || unavailable "another run holds $dir/lock"
    is_built && return 0
    [ "$(dpkg --print-architecture 2> /dev/null)" = amd64 ] || unavailable "needs Debian or Ubuntu on amd64"
    need cpio:cpio xz:xz-utils dpkg-deb:dpkg /sbin/modprobe:kmod
    say "fetching the kernel of Debian's $suite"
    # In a subshell: the rest of the script must keep this machine's apt.
    (
        private_apt "$dir" "$suite" || exit 1
        cd "$dir/apt"
        kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
        rm -f ./*.deb
        timeout 600 apt-get -q download "$kernel" busybox-static > log 2>&1 < /dev/null || {
            tail -n 3 log >&2
            exit 1
        }
    ) || unavailable "see above"
    say "making its initial ramdisk"
    local packages=$dir/packages root=$dir/root version
    rm -rf "$packages" "$root"
    for package in "$dir"/apt/*.deb; do dpkg-deb -x "$package" "$packages"; done
    # The merged /usr of newer releases.
    [ -e "$packages/lib" ] || ln -s usr/lib "$packages/lib"
    version=$(basename "$packages"/lib/modules/*)
    mkdir -p "$root"/{bin,dev,modules,proc,sys,tmp}
    cp "$(find "$packages" -path '*bin/busybox' | head -n 1)" "$root/bin/busybox"
    put_modules "$packages" "$root/modules" "${modules[@]}"
    cp "$here/init" "$here/dhcp" "$root/"
    archive "$root" > "$dir/initrd.new"
    cp "$packages"/boot/vmlinuz-* "$dir/vmlinuz"
    if [ -n "$peer" ]; then
        say "making the peer's"
        mkdir -p "$root/guest"
        cp "$packages"/boot/vmlinuz-* "$root/guest/vmlinuz"
        cp "$dir/initrd.new" "$root/guest/initrd"
        rm -rf "$root/modules"
        put_modules "$packages" "$root/modules" "${peer_modules[@]}"
        put_qemu "$qemu" "$root" "${firmware[@]}" || unavailable "$qemu is no dynamic program"
        cp "$here/peer-init" "$root/init"
        archive "$root" > "$dir/peer.new"
        mv "$dir/peer.new" "$dir/peer"
    fi
    rm -rf "$packages" "$root" "$dir/apt"
    mv "$dir/initrd.new" "$dir/initrd"
    recipe > "$recipe_file"
    say "built in $SECONDS s: $dir, Linux $version"
}

is_built || build
echo "$dir"
