#!/bin/bash
# Makes a CD image that starts something through GRUB, on a PC with a BIOS. The same input gives the same bytes.
#
#   tests/rigs/iso.sh IMAGE ARCHIVE OUT.iso
#       IMAGE by Multiboot2, with ARCHIVE as its module; ARCHIVE is `none` for an image without one.
#   tests/rigs/iso.sh --linux KERNEL INITRD OUT.iso COMMAND-LINE
#       A Linux kernel with its initial RAM disk.
#
# Needs GRUB for BIOS and xorriso; installs them as root, otherwise prints the command that does, and ends with 3.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../tools/packages.sh"

linux=
[ "${1:-}" != --linux ] || { linux=yes; shift; }
if [ $# -ne "$([ -n "$linux" ] && echo 4 || echo 3)" ]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
fi
image=$1 archive=$2 out=$3
need grub-mkimage:grub-common /usr/lib/grub/i386-pc:grub-pc-bin xorriso:xorriso

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir "$stage/cd"
cp -L -- "$image" "$stage/cd/image"
[ "$archive" = none ] || cp -L -- "$archive" "$stage/cd/archive"
# The commands are part of GRUB here: it reads nothing but the files that it starts.
{
    if [ -n "$linux" ]; then
        echo "linux (cd)/image $4"
        echo 'initrd (cd)/archive'
    else
        echo 'multiboot2 (cd)/image'
        [ "$archive" = none ] || echo 'module2 (cd)/archive'
    fi
    echo boot
} > "$stage/commands"
# grub-mkrescue would do, but it writes the time of day into the image, and every run would be another one.
{
    grub-mkimage --format=i386-pc-eltorito --directory=/usr/lib/grub/i386-pc --prefix='(cd)/' --config="$stage/commands" \
        --output="$stage/cd/grub" biosdisk iso9660 boot multiboot2 linux &&
        find "$stage/cd" -exec touch --no-dereference --date=@0 {} + &&
        SOURCE_DATE_EPOCH=0 xorriso -as mkisofs -quiet -b grub -no-emul-boot -boot-load-size 4 -boot-info-table \
            --grub2-boot-info --modification-date=2026010100000000 --set_all_file_dates 2026010100000000 \
            -o "$stage/out.iso" "$stage/cd"
} > "$stage/log" 2>&1 || {
    tail -n 5 "$stage/log" >&2
    echo "the CD image could not be made" >&2
    exit 1
}
mv -- "$stage/out.iso" "$out"
