#!/bin/bash
# Gets a Linux guest: the distribution's kernel, and an initial ramdisk with busybox and the drivers of passed-through devices.
#
#   guests/linux/build.sh [--suite SUITE]
#
#   --suite SUITE   whose kernel: bookworm (6.1) or trixie (6.12) of Debian (default: bookworm)
#
# The result goes to $LINUX_DIR/SUITE (default: ~/.cache/postern/linux/SUITE) and is made once, in half a minute: vmlinuz and
# initrd. Prints that folder. Nothing is installed but tools that are missing. Exit status 3: it cannot be had here.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../tests/tools/packages.sh"
. "$here/../../tests/tools/debian.sh"

# What a guest may be given: network cards and their virtual functions, disks, and USB.
modules=(e1000e igb igbvf nvme xhci-pci usb-storage)

say() { echo "linux: $*" >&2; }
unavailable() {
    say "a Linux guest cannot be had here: $*"
    exit 3
}
suite=bookworm
while [ $# -gt 0 ]; do
    case $1 in
        --suite) suite=${2:?--suite needs a value}; shift ;;
        *)
            sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
            exit 2
            ;;
    esac
    shift
done
dir=${LINUX_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/postern/linux}/$suite
recipe() { sha256sum "$here"/* "$here/../../tests/tools/debian.sh" | cut -d ' ' -f 1 | sha256sum; }
is_built() { [ -e "$dir/initrd" ] && [ "$(cat "$dir/recipe" 2> /dev/null)" = "$(recipe)" ]; }

build() {
    mkdir -p "$dir"
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
    put_modules "$packages" "$version" "$root/modules"
    cp "$here/init" "$here/dhcp" "$root/"
    find "$root" -exec touch --no-dereference --date=@0 {} +
    (cd "$root" && find . | LC_ALL=C sort | cpio --create --format=newc --owner=0:0 --reproducible --quiet) > "$dir/initrd.new"
    cp "$packages"/boot/vmlinuz-* "$dir/vmlinuz"
    rm -rf "$packages" "$root" "$dir/apt"
    mv "$dir/initrd.new" "$dir/initrd"
    recipe > "$dir/recipe"
    say "built in $SECONDS s: $dir, Linux $version"
}

# put_modules PACKAGES VERSION TO: the modules and what they need, and their order.
put_modules() {
    local packages=$1 version=$2 to=$3 module file name
    /sbin/depmod -b "$packages" "$version"
    for module in "${modules[@]}"; do
        /sbin/modprobe -d "$packages" -S "$version" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
    done | awk '!seen[$0]++' | while read -r file; do
        name=$(basename "${file%.xz}")
        case $file in
            *.xz) xz --decompress --stdout "$file" > "$to/$name" ;;
            *) cp "$file" "$to/$name" ;;
        esac
        echo "$name"
    done > "$to/order"
}

is_built || build
echo "$dir"
