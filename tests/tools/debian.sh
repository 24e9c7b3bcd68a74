# Sourced. Packages and sources of Debian, fetched without installing anything: an apt with a folder of its own.
#
#   private_apt FOLDER SUITE    sets APT_CONFIG so that apt-get and apt-cache work on FOLDER/apt and SUITE only, and brings
#                               the package lists; returns 1, having said why, if that cannot be done
#
# Nothing counts as installed there, and /etc/apt is neither read nor written. How this machine reaches the archive (its
# address, a proxy) is taken from the machine's own apt.

private_apt() {
    local folder=$1 suite=$2 apt=$1/apt mirror
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    command -v apt-get > /dev/null || { echo "needs apt-get" >&2; return 1; }
    [ -r "$keyring" ] || { echo "needs the package debian-archive-keyring" >&2; return 1; }
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -E '/debian/?$' | head -n 1) || true
    [ -n "$mirror" ] || { echo "apt has no Debian archive configured here" >&2; return 1; }

    mkdir -p "$apt"/{lists/partial,cache/archives/partial,sources,preferences}
    cat > "$apt/sources/debian.sources" <<SOURCES
Types: deb deb-src
URIs: $mirror
Suites: $suite
Components: main
Signed-By: $keyring
SOURCES
    cat > "$apt/apt.conf" <<CONFIG
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$apt/sources";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "$apt/preferences";
Dir::State "$apt";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "2";
CONFIG
    : > "$apt/status"
    apt-config dump | grep -E '^Acquire::(http|https|ftp)::' >> "$apt/apt.conf" || true
    [ "$(id -u)" -ne 0 ] || echo 'APT::Sandbox::User "root";' >> "$apt/apt.conf"
    export APT_CONFIG=$apt/apt.conf
    # Otherwise a list that could not be fetched is a warning.
    timeout 300 apt-get -q -o APT::Update::Error-Mode=any update > "$apt/log" 2>&1 < /dev/null || {
        grep -E '^[EW]:' "$apt/log" | head -n 3 >&2
        echo "the package lists of $suite could not be fetched" >&2
        return 1
    }
}
