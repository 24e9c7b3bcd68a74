# Sourced, after packages.sh. Finds a Rust that builds for x86_64-unknown-none, and says in one line which it took.
#
#   find_toolchain        looks for it; ends the script with status 3 when there is none
#   cargo_host ARG...     cargo for this machine (tests)
#   cargo_image ARG...    cargo for x86_64-unknown-none; the caller names the packages and the profile
#
# In this order: rustup's toolchain of rust-toolchain.toml (added if rustup can); any other Rust on this machine that is new
# enough, with the target's library or with the library's sources; the distribution's packages. Sources are built on stable
# by RUSTC_BOOTSTRAP=1 and -Zbuild-std, so a machine that reaches no rustup server builds too.

_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
_target=x86_64-unknown-none
_cargo=cargo
_image_flags=()
_image_environment=()

find_toolchain() {
    # GCC links the build scripts and the tests of the host.
    need cc:gcc
    _minimum=$(sed -n 's/^rust-version *= *"1\.\([0-9]*\).*/\1/p' "$_root/Cargo.toml")
    _pinned_toolchain || _installed_toolchain || _packaged_toolchain || {
        echo "no Rust 1.$_minimum or newer for $_target: install rustup (https://rustup.rs), then run this again" >&2
        exit 3
    }
}

cargo_host() { "$_cargo" "$@"; }

cargo_image() {
    local command=$1
    shift
    env "${_image_environment[@]}" "$_cargo" "$command" --target "$_target" "${_image_flags[@]}" "$@"
}

# The toolchain that rust-toolchain.toml names, through rustup.
_pinned_toolchain() {
    command -v rustup > /dev/null || return 1
    local channel rustc
    channel=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' "$_root/rust-toolchain.toml")
    if ! rustc=$(rustup which --toolchain "$channel" rustc 2> /dev/null) || ! [ -x "$rustc" ]; then
        echo "toolchain: asking rustup for $channel" >&2
        timeout 300 rustup toolchain install "$channel" --profile minimal --target "$_target" --no-self-update \
            > /dev/null 2>&1 < /dev/null || return 1
        rustc=$(rustup which --toolchain "$channel" rustc 2> /dev/null) || return 1
    fi
    if ! _has_library "$rustc"; then
        echo "toolchain: asking rustup for $_target" >&2
        timeout 120 rustup target add --toolchain "$channel" "$_target" > /dev/null 2>&1 < /dev/null || return 1
        _has_library "$rustc" || return 1
    fi
    export RUSTUP_TOOLCHAIN=$channel
    echo "toolchain: rustup's $channel" >&2
}

# Any Rust that is here: first those with the target's library, then those with sources.
_installed_toolchain() {
    local rustcs=() rustc name test
    while read -r name _; do
        rustc=$(rustup which --toolchain "$name" rustc 2> /dev/null) && rustcs+=("$rustc")
    done < <(rustup toolchain list 2> /dev/null)
    # Debian's rustc-web, Ubuntu's rustc-1.NN (newest first), and one that somebody installed.
    while read -r rustc; do
        rustcs+=("$rustc")
    done < <(ls -d /usr/bin/rustc /usr/lib/rust-*/bin/rustc /usr/local/bin/rustc 2> /dev/null | sort -rV)
    for test in _has_library _has_sources; do
        for rustc in "${rustcs[@]}"; do
            _new_enough "$rustc" && [ -x "$(dirname "$rustc")/cargo" ] && $test "$rustc" && _take "$rustc" && return 0
        done
    done
    return 1
}

# The distribution's packages: Debian keeps a recent rustc-web in its stable releases, Ubuntu has rustc-1.NN.
_packaged_toolchain() {
    command -v apt-cache > /dev/null || return 1
    local packages
    packages=$(_packages_on_offer)
    if [ -z "$packages" ] && [ "$(id -u)" -eq 0 ]; then
        _apt apt-get update > /dev/null 2>&1
        packages=$(_packages_on_offer)
    fi
    [ -n "$packages" ] || return 1
    # shellcheck disable=SC2086  # a list
    install_packages $packages
    _installed_toolchain
}

_packages_on_offer() {
    local minor
    minor=$(_candidate rustc-web)
    if [ "${minor:-0}" -ge "$_minimum" ]; then
        echo rustc-web cargo-web rust-web-src
        return
    fi
    minor=$(apt-cache pkgnames rustc-1. | sed -n 's/^rustc-1\.\([0-9]*\)$/\1/p' | sort -n | tail -n 1)
    if [ "${minor:-0}" -ge "$_minimum" ]; then
        echo "rustc-1.$minor cargo-1.$minor rust-1.$minor-src"
        return
    fi
    minor=$(_candidate rustc)
    [ "${minor:-0}" -ge "$_minimum" ] && echo rustc cargo rust-src
}

# The minor version of the package that apt would install.
_candidate() { apt-cache policy "$1" 2> /dev/null | sed -n 's/^ *Candidate: \(.*:\)\{0,1\}1\.\([0-9]*\)\..*/\2/p'; }

_new_enough() {
    local minor
    minor=$("$1" --version 2> /dev/null | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p')
    [ "${minor:-0}" -ge "$_minimum" ]
}

_has_library() { [ -d "$("$1" --print sysroot 2> /dev/null)/lib/rustlib/$_target/lib" ]; }

_has_sources() { [ -f "$("$1" --print sysroot 2> /dev/null)/lib/rustlib/src/rust/library/core/Cargo.toml" ]; }

# Uses this rustc and the cargo beside it, whatever rustup and PATH say.
_take() {
    local bin sysroot how="its own library for $_target"
    bin=$(dirname "$1")
    sysroot=$("$1" --print sysroot)
    _cargo=$bin/cargo
    export RUSTC=$bin/rustc RUSTDOC=$bin/rustdoc
    # A rustup proxy that a build script calls must not look for the toolchain of rust-toolchain.toml.
    unset RUSTUP_TOOLCHAIN
    if ! _has_library "$1"; then
        how="the library built from its sources"
        _image_environment+=(RUSTC_BOOTSTRAP=1)
        _image_flags+=(-Zbuild-std=core,alloc,compiler_builtins -Zbuild-std-features=compiler-builtins-mem)
    fi
    # The target's own choice is rust-lld, which distributions leave out.
    if ! ls "$sysroot"/lib/rustlib/*/bin/rust-lld > /dev/null 2>&1 && ! command -v rust-lld > /dev/null; then
        need ld:binutils
        local linker=ld
        command -v ld.lld > /dev/null && linker=ld.lld
        _image_environment+=("CARGO_TARGET_X86_64_UNKNOWN_NONE_LINKER=$linker")
    fi
    echo "toolchain: $("$1" --version) in $bin, with $how" >&2
}
