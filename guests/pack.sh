#!/bin/bash
# Makes the archive that the hypervisor gets as its ramdisk: what the guests are, and their files.
#
#   guests/pack.sh [--unchecked] OUT.tar CONFIG.toml FILE...
#
# CONFIG.toml is checked first, by tools/check-guests: that it makes sense, and that each FILE that it names is there.
# --unchecked leaves that to the hypervisor, which does the same when it starts.
#
# A plain ustar archive: postern.toml (CONFIG.toml), the files under their base names, and SHA256SUMS over all of them, in
# the form of sha256sum. The same input gives the same bytes: sorted names, time 0, owner 0.
set -euo pipefail
check=yes
if [ "${1-}" = --unchecked ]; then
    check=
    shift
fi
if [ $# -lt 2 ] || [ "$1" = --help ]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
fi
out=$1 config=$2
shift 2

if [ -n "$check" ]; then
    # run-qemu.sh has built the program already.
    program=${CHECK_GUESTS-}
    if [ -z "$program" ]; then
        root=$(cd "$(dirname "$0")/.." && pwd)
        . "$root/tests/tools/packages.sh"
        . "$root/tests/tools/toolchain.sh"
        find_toolchain
        (cd "$root" && cargo_host build --quiet -p check-guests)
        program=$(cd "$root" && realpath -m "${CARGO_TARGET_DIR:-target}")/debug/check-guests
    fi
    "$program" -- "$config" "$@"
fi
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
cp -- "$config" "$stage/postern.toml"
for file in "$@"; do
    name=$(basename -- "$file")
    # ustar has room for 100 bytes, and SHA256SUMS is read line by line.
    case $name in *[!A-Za-z0-9._+-]* | .* | -* | SHA256SUMS) echo "not a member name: $name" >&2; exit 2 ;; esac
    [ ${#name} -lt 100 ] || { echo "longer than 99 characters: $name" >&2; exit 2; }
    [ ! -e "$stage/$name" ] || { echo "two members are named $name" >&2; exit 2; }
    cp -L -- "$file" "$stage/$name"
done
export LC_ALL=C
cd "$stage"
names=(*)
sha256sum -- "${names[@]}" > SHA256SUMS
cd "$OLDPWD"
tar --create --file "$out.new" --directory "$stage" --format=ustar --sort=name --mtime=@0 --owner=0 --group=0 \
    --numeric-owner --mode=u=rw,go=r -- SHA256SUMS "${names[@]}"
mv -- "$out.new" "$out"
