//! exitprobe: a guest without devices that takes every exit that the platform is made of, with hostile values too, and
//! says of each whether the answer was the one that hardware gives.
//!
//! Each probe is a line `report: NAME=ok` or `report: NAME=FAIL`; then come `report: probes=N/M` and `report: guest=done`,
//! and the guest powers off. A word on the command line makes it end by the hypervisor's hand instead (`command_line`).
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod bench;
#[cfg(target_os = "none")]
mod ends;
#[cfg(target_os = "none")]
mod guest;
#[cfg(target_os = "none")]
mod list;
#[cfg(target_os = "none")]
mod probes;
#[cfg(target_os = "none")]
mod stacks;
#[cfg(target_os = "none")]
mod trap;

/// On the host there is nothing to run: the tests are the library's.
#[cfg(not(target_os = "none"))]
fn main() {
    println!("exitprobe is a guest: build it for x86_64-unknown-none and boot it.");
}
