//! One guest.

use crate::section::Section;
use crate::{DeviceName, Quoted};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Most devices of one guest.
pub const MAXIMUM_DEVICES: usize = 8;
/// Most virtual functions of one device.
const MAXIMUM_VIRTUAL_FUNCTIONS: u64 = 64;
/// Most modules of one guest beside its initial ramdisk.
pub const MAXIMUM_MODULES: usize = 7;
/// Smallest memory of a guest, in MiB.
const MINIMUM_MEMORY_MIB: u64 = 2;
/// Largest memory of a guest, in MiB: its memory ends below the window of its devices' registers.
const MAXIMUM_MEMORY_MIB: u64 = 2048;
/// Longest name, in bytes.
const LONGEST_NAME: usize = 32;
/// Longest command line, in bytes.
const LONGEST_COMMAND_LINE: usize = 2000;

/// A member of the archive that a guest needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// The line of the file that names it.
    pub line: u32,
}

/// A device that a guest needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Which.
    pub name: DeviceName,
    /// The line of the file that names it.
    pub line: u32,
}

/// One guest.
#[derive(Debug)]
pub struct Guest {
    /// Its name, in the log and the report: 1 to 32 letters, digits, `-` and `_`.
    pub name: String,
    /// Its kernel: an ELF image with a PVH entry, one with a Multiboot header, or a Linux bzImage.
    pub kernel: Member,
    /// Its initial ramdisk: Linux's initrd, and by other boot protocols the first module.
    pub initrd: Option<Member>,
    /// What it gets beside, as the boot protocol's modules, at most [`MAXIMUM_MODULES`].
    pub modules: Vec<Member>,
    /// Its memory in MiB.
    pub memory_mib: u64,
    /// The I/O port, if any, by which it ends with a status, as with QEMU's isa-debug-exit: 0 is success.
    pub debug_exit_port: Option<u16>,
    /// Its command line, at most 2000 bytes, none of them zero.
    pub command_line: String,
    /// An I/O port where its kernel asks for an interrupt that takes the way of a passed-through device's, for
    /// measurements and tests on machines that have no device to pass through. Without it there is no such port.
    pub doorbell_port: Option<u16>,
    /// The devices that belong to it, at most [`MAXIMUM_DEVICES`].
    pub devices: Vec<Device>,
    /// How many virtual functions each of its devices has that can have some (SR-IOV), at most [`MAXIMUM_VIRTUAL_FUNCTIONS`].
    pub virtual_functions: u16,
}

impl Guest {
    pub(crate) fn read(section: &Section<'_>) -> Self {
        section.check(&[
            "name",
            "kernel",
            "initrd",
            "modules",
            "memory_mib",
            "cpus",
            "command_line",
            "devices",
            "virtual_functions",
            "debug_exit_port",
            "doorbell_port",
        ]);
        for key in ["name", "kernel", "memory_mib"] {
            section.needs(key);
        }
        // What was complained of is replaced by nothing: nobody gets to see it.
        let member = |(name, line): (&str, u32)| Member { name: name.to_string(), line };
        let memory_mib = section.number("memory_mib", MINIMUM_MEMORY_MIB, MAXIMUM_MEMORY_MIB).unwrap_or(0);
        if section.number("cpus", 1, u8::MAX.into()).is_some_and(|cpus| cpus > 1) {
            section.complain_of(
                "cpus",
                format_args!("in this version a guest has one processor: write 1, or leave it out"),
            );
        }
        Self {
            name: name(section),
            kernel: member(section.text("kernel").unwrap_or_default()),
            initrd: section.text("initrd").map(member),
            modules: section.texts("modules", MAXIMUM_MODULES).into_iter().map(member).collect(),
            memory_mib,
            debug_exit_port: section.port("debug_exit_port"),
            command_line: command_line(section),
            doorbell_port: section.port("doorbell_port"),
            devices: devices(section),
            virtual_functions: section
                .number("virtual_functions", 0, MAXIMUM_VIRTUAL_FUNCTIONS)
                .map_or(0, |number| number as u16),
        }
    }

    /// What it needs of the archive, and under which key: the kernel first.
    pub fn members(&self) -> Vec<(&'static str, &Member)> {
        let mut members = Vec::from([("kernel", &self.kernel)]);
        members.extend(self.initrd.iter().map(|member| ("initrd", member)));
        members.extend(self.modules.iter().map(|member| ("modules", member)));
        members
    }
}

fn name(section: &Section<'_>) -> String {
    let Some((name, line)) = section.text("name") else { return String::new() };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(plain) {
        let what = Quoted(name);
        section.complain_at_line(
            line,
            format_args!("name: {what} cannot be one: use 1 to {LONGEST_NAME} letters, digits, '-' and '_'"),
        );
    }
    name.to_string()
}

fn command_line(section: &Section<'_>) -> String {
    let Some((text, line)) = section.text("command_line") else { return String::new() };
    if text.len() > LONGEST_COMMAND_LINE || text.contains('\0') {
        section.complain_at_line(
            line,
            format_args!(
                "command_line: it has {} bytes; it may have {LONGEST_COMMAND_LINE}, and no zero byte",
                text.len()
            ),
        );
    }
    text.to_string()
}

fn devices(section: &Section<'_>) -> Vec<Device> {
    let mut devices = Vec::new();
    for (text, line) in section.texts("devices", MAXIMUM_DEVICES) {
        match DeviceName::parse(text) {
            Some(name) => devices.push(Device { name, line }),
            None => section.complain_at_line(
                line,
                format_args!(
                    "devices: {} names no device: write vendor:device such as \"8086:10d3\", or an address such as \
                     \"0000:00:03.0\", with all their digits",
                    Quoted(text)
                ),
            ),
        }
    }
    devices
}
