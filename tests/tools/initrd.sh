# Sourced. Parts of initial ramdisks for Linux: modules, QEMU, and the archive itself.

# archive FOLDER: its content as an initial ramdisk on standard output, the same bytes for the same content.
archive() {
    find "$1" -exec touch --no-dereference --date=@0 {} +
    (cd "$1" && find . | LC_ALL=C sort | cpio --create --format=newc --owner=0:0 --reproducible --quiet)
}

# put_modules PACKAGES TO MODULE...: modules of the unpacked kernel package in PACKAGES with all that they need, and in
# TO/order the order in which to load them.
put_modules() {
    local packages=$1 to=$2 version module file name
    shift 2
    version=$(basename "$packages"/lib/modules/*)
    mkdir -p "$to"
    /sbin/depmod -b "$packages" "$version"
    for module in "$@"; do
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

# put_qemu QEMU ROOT FIRMWARE...: the program as /usr/bin/qemu with its libraries where it looks for them (the dynamic linker
# is among them), and files of its firmware folders in /firmware. Returns 1 if QEMU is no dynamic program.
put_qemu() {
    local qemu=$1 root=$2 file folder name
    shift 2
    qemu=$(command -v "$qemu")
    mkdir -p "$root/usr/bin" "$root/firmware"
    cp -L "$qemu" "$root/usr/bin/qemu"
    local libraries
    libraries=$(ldd "$qemu" | grep -o '/[^ ]*' | sort -u) || return 1
    while read -r file; do
        mkdir -p "$root$(dirname "$file")"
        cp -L "$file" "$root$file"
    done <<< "$libraries"
    for name in "$@"; do
        while read -r folder; do
            [ -e "$folder/$name" ] && cp -L "$folder/$name" "$root/firmware/" && break
        done < <("$qemu" -L help)
    done
}
