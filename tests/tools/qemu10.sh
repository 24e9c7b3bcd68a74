#!/bin/bash
# Brings QEMU 10 of Debian 13 beside whatever QEMU this machine has, without installing it: the packages are unpacked into a
# folder and started through their own dynamic linker. QEMU 7.2 (Debian 12) has no x2APIC without KVM; this one has.
#   QEMU10_DIR   where it goes (default: ~/.cache/postern/qemu10)
# Prints the path of the program on standard output, and nothing else there. About 40 MB are fetched, once; they take 230 MB.
# Needs: apt on amd64, set up for a Debian archive. Changes nothing outside the folder.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${QEMU10_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/postern/qemu10}
program=$dir/qemu-system-x86_64
fail() {
    echo "qemu10: $*" >&2
    exit 1
}
major() { "$1" --version 2> /dev/null | sed -n 's/^QEMU emulator version \([0-9]*\)\..*/\1/p'; }

if [ -x "$program" ] && [ "$(major "$program")" -ge 10 ]; then
    echo "$program"
    exit 0
fi
if system=$(command -v qemu-system-x86_64) && [ "$(major "$system")" -ge 10 ]; then
    echo "$system"
    exit 0
fi

command -v apt-get > /dev/null && command -v dpkg-deb > /dev/null || fail "needs apt-get and dpkg-deb"
[ "$(dpkg --print-architecture)" = amd64 ] || fail "needs an amd64 machine"
# An apt of its own: nothing is installed in it, so it fetches QEMU with every library down to libc.
mkdir -p "$dir"
exec 9> "$dir/lock"
flock -w 900 9 || fail "another run holds $dir/lock"
[ -x "$program" ] && [ "$(major "$program")" -ge 10 ] && { echo "$program"; exit 0; }
echo "qemu10: fetching QEMU of Debian 13" >&2
. "$here/debian.sh"
log=$dir/log
private_apt "$dir" trixie || fail "Debian's packages cannot be had"
timeout 900 apt-get -q -y --no-install-recommends --download-only install qemu-system-x86 > "$log" 2>&1 < /dev/null ||
    { tail -n 3 "$log" >&2; fail "the packages could not be fetched (log: $log)"; }

echo "qemu10: unpacking" >&2
rm -rf "$dir/root"
mkdir "$dir/root"
for package in "$dir"/apt/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x -C "$dir/root" --keep-directory-symlink --no-same-owner 2>> "$log" ||
        fail "could not unpack $package (log: $log)"
done
rm -rf "$dir"/apt/cache/archives/*.deb "$dir"/root/usr/share/{doc,man,locale} "$dir"/apt/lists
root=$dir/root
linker=$(find "$root" -name 'ld-linux-x86-64.so.2' -not -type d | head -n 1)
[ -n "$linker" ] || fail "the packages hold no dynamic linker (log: $log)"
libraries=$(find "$root" -name '*.so*' -not -path '*/qemu/*' -not -path '*/gconv/*' -printf '%h\n' | sort -u | paste -sd:)
cat > "$program.new" <<WRAPPER
#!/bin/sh
# Made by tests/tools/qemu10.sh
export QEMU_MODULE_DIR='$root/usr/lib/x86_64-linux-gnu/qemu'
exec '$linker' --library-path '$libraries' '$root/usr/bin/qemu-system-x86_64' -L '$root/usr/share/seabios' -L '$root/usr/share/qemu' -L '$root/usr/lib/ipxe/qemu' "\$@"
WRAPPER
chmod +x "$program.new"
[ "$(major "$program.new")" -ge 10 ] || fail "the unpacked QEMU does not start: $("$program.new" --version 2>&1 | head -n 1)"
mv "$program.new" "$program"
echo "$program"
