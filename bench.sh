#!/bin/bash
# Measures a Linux guest on Postern, on Linux with KVM and VFIO (the peer), and on the machine itself (direct), in turn on the
# same QEMU with the same network card.
#
#   ./bench.sh [--rounds N] [--qemu PATH] [--engine tcg|nested] [--suite SUITE] [--svg FILE] [--keep FOLDER]
#
#   --rounds N       how often each is run; medians are printed (default: 3; 1 with --engine nested)
#   --qemu PATH      the QEMU to use (default: $QEMU, or qemu-system-x86_64)
#   --engine nested  Postern and the peer on VMX, in a Linux in Bochs (tests/rigs/nested.sh); times there are virtual and exact
#   --suite SUITE    whose Linux (see guests/linux/build.sh)
#   --svg FILE       a picture of the figures
#   --keep FOLDER    the consoles of all runs
#
# Prints a line a figure: `bench: NAME postern=... peer=... direct=... vs_peer=... vs_direct=...`, and where the exits went.
# Times are seconds. Under TCG they are of this machine's clock, and only the ratios within one call mean anything; the
# more else this machine does, the less.
# Exit status: 0 measured; 1 a run failed; 2 the options make no sense; 3 something is missing (it says what).
set -euo pipefail
root=$(cd "$(dirname "$0")" && pwd)
cd "$root"
. tests/tools/packages.sh
need python3:python3
exec python3 tests/linux_bench.py "$@"
