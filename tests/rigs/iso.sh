#!/bin/bash
# Makes a CD image that starts something through GRUB, on a PC with a BIOS.
#
#   tests/rigs/iso.sh IMAGE ARCHIVE OUT.iso
#       IMAGE by Multiboot2, with ARCHIVE as its module; ARCHIVE is `none` for an image without one.
#   tests/rigs/iso.sh --linux KERNEL INITRD OUT.iso COMMAND-LINE
#       A Linux kernel with its initial RAM disk.
#
# Needs GRUB for BIOS, xorriso and mtools; installs them as root, otherwise prints the command that does, and ends with 3.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../tools/packages.sh"

linux=0
if [ "${1:-}" = --linux ]; then
    linux=1
    shift
fi
if [ $# -ne $((linux == 0 ? 3 : 4)) ]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
fi
image=$1 archive=$2 out=$3
need grub-mkrescue:grub-common /usr/lib/grub/i386-pc:grub-pc-bin xorriso:xorriso mformat:mtools

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage/cd/boot/grub"
cp -L -- "$image" "$stage/cd/boot/image"
[ "$archive" = none ] || cp -L -- "$archive" "$stage/cd/boot/archive"
{
    echo 'set timeout=0'
    echo 'menuentry CD {'
    if [ "$linux" = 1 ]; then
        echo "  linux /boot/image $4"
        echo '  initrd /boot/archive'
    else
        echo '  multiboot2 /boot/image'
        [ "$archive" = none ] || echo '  module2 /boot/archive'
    fi
    echo '}'
} > "$stage/cd/boot/grub/grub.cfg"
# Without translations, fonts and themes, none of which anybody sees, the image is half as large.
grub-mkrescue -d /usr/lib/grub/i386-pc --locales= --fonts= --themes= -o "$stage/out.iso" "$stage/cd" > "$stage/log" 2>&1 || {
    tail -n 5 "$stage/log" >&2
    echo "grub-mkrescue could not make the CD image" >&2
    exit 1
}
mv -- "$stage/out.iso" "$out"
