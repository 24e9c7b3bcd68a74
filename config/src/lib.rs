//! The file that describes the guests: TOML in, a checked description out, or what is wrong with it in words for the
//! person who wrote it, each with its line, what to do, and what was perhaps meant.
//!
//! The hypervisor reads it with this crate when it starts, and `tools/check-guests` on the host before that. A file is
//! somebody else's: whatever its bytes, reading it ends, with bounded memory and recursion (see [`MAXIMUM_BYTES`]).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod complaint;
mod device_name;
mod guest;
mod limits;
mod members;
mod nearest;
mod section;
mod twice;

pub use complaint::{Complaint, MAXIMUM_COMPLAINTS, Quoted};
pub use device_name::DeviceName;
pub use guest::{Device, Guest, MAXIMUM_DEVICES, MAXIMUM_MODULES, Member};
pub use limits::MAXIMUM_BYTES;
pub use members::check_members;
pub use nearest::{DidYouMean, nearest};

use alloc::vec::Vec;
use section::Section;

/// Most guests that this version runs.
pub const MAXIMUM_GUESTS: usize = 1;

/// The configuration of the machine.
#[derive(Debug)]
pub struct Config {
    /// The hypervisor's own settings.
    pub hypervisor: Hypervisor,
    /// The guests, in the order of the file; at least one.
    pub guests: Vec<Guest>,
}

/// The hypervisor's own settings.
#[derive(Debug, Default)]
pub struct Hypervisor {
    /// The I/O port of QEMU's isa-debug-exit device, which ends the machine with a result. Without it the machine
    /// halts when its guests have ended.
    pub debug_exit_port: Option<u16>,
    /// DMA faults of one device within a second after which it is taken out of service. Default: 64.
    pub fault_limit: Option<u32>,
}

/// Reads and checks a configuration.
///
/// # Errors
/// All that is wrong with it, at least one thing and at most [`MAXIMUM_COMPLAINTS`]. An error of TOML's own syntax is
/// told alone, for what comes after it is guesswork.
pub fn parse(text: &str) -> Result<Config, Vec<Complaint>> {
    limits::check(text)?;
    section::read(text, read)
}

fn read(file: &Section<'_>) -> Config {
    file.check(&["hypervisor", "guest"]);
    let hypervisor = file.section("hypervisor").map(|section| Hypervisor::read(&section)).unwrap_or_default();
    let sections = file.sections("guest");
    if sections.is_empty() && !file.has_complaints() {
        file.complain(0, format_args!("there is no guest: a [[guest]] with name, kernel and memory_mib is wanted"));
    }
    if let Some(more) = sections.get(MAXIMUM_GUESTS) {
        more.complain_here(format_args!(
            "this version runs {MAXIMUM_GUESTS} guest, and here is another: take out all but one"
        ));
    }
    let guests: Vec<Guest> = sections.iter().map(Guest::read).collect();
    twice::check(&guests, &sections);
    Config { hypervisor, guests }
}

impl Hypervisor {
    fn read(section: &Section<'_>) -> Self {
        section.check(&["debug_exit_port", "fault_limit"]);
        Self {
            debug_exit_port: section.port("debug_exit_port"),
            fault_limit: section.number("fault_limit", 0, u32::MAX.into()).map(|limit| limit as u32),
        }
    }
}
