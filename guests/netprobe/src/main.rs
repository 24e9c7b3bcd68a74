//! netprobe: a guest that is given an e1000e, uses it as a driver should, and then attacks with it.
//!
//! It gets a DHCP lease, pings the gateway, halting between interrupts and never polling; then, if asked on the
//! command line, it points the NIC's DMA where it has no business. What it did goes to the serial port: sentences for
//! people, and lines that begin with `report:` for the hypervisor that runs it.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod attack;
#[cfg(target_os = "none")]
mod e1000e;
#[cfg(target_os = "none")]
mod guest;
#[cfg(target_os = "none")]
mod interrupts;
#[cfg(target_os = "none")]
mod network;
#[cfg(target_os = "none")]
mod pci;

#[cfg(target_os = "none")]
use guest_support::{apic, clock, cpu, memory, report};

/// On the host there is nothing to run: the tests are the library's.
#[cfg(not(target_os = "none"))]
fn main() {
    println!("netprobe is a guest: build it for x86_64-unknown-none and boot it.");
}
