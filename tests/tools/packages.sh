# Sourced. Programs that the scripts need, and the Debian or Ubuntu packages that bring them.

# need WHAT:PACKAGE...
# WHAT is a command, or a path that must exist. As root, installs the packages of what is missing; otherwise prints the one
# command that does it and ends the script with status 3.
need() {
    local item missing=()
    for item in "$@"; do
        _present "${item%%:*}" || missing+=("${item#*:}")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    install_packages "${missing[@]}"
    for item in "$@"; do
        _present "${item%%:*}" || {
            echo "${item%%:*} is still missing after the installation of ${item#*:}" >&2
            exit 3
        }
    done
}

# install_packages PACKAGE...: the same, without asking what is there.
install_packages() {
    local command="apt-get install -y --no-install-recommends $*"
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
        echo "missing packages; run: sudo $command" >&2
        exit 3
    fi
    echo "installing: $*" >&2
    local log
    log=$(mktemp)
    # The package lists may be absent (containers) or too old: then once more with fresh ones.
    if ! _apt $command > "$log" 2>&1; then
        _apt apt-get update > "$log" 2>&1 || true
        _apt $command >> "$log" 2>&1 || {
            tail -n 5 "$log" >&2
            rm -f "$log"
            echo "could not install the packages; run: $command" >&2
            exit 3
        }
    fi
    rm -f "$log"
}

_present() {
    case $1 in
        /*) [ -e "$1" ] ;;
        *) command -v "$1" > /dev/null ;;
    esac
}

_apt() { timeout 900 env DEBIAN_FRONTEND=noninteractive "$@" < /dev/null; }
