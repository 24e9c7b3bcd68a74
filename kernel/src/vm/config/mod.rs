//! The configuration: which guests there are, and what belongs to each. TOML, in the archive's `postern.toml`.

mod section;

use addr::{Bdf, PciAddress};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use section::Section;

/// Longest configuration in bytes: reading it takes a multiple of its size from a small heap.
const MAXIMUM_BYTES: usize = 32 << 10;
/// Most guests in one configuration.
pub const MAXIMUM_GUESTS: usize = 8;
/// Most devices of one guest.
pub const MAXIMUM_DEVICES: usize = 8;
/// Smallest memory of a guest, in MiB.
const MINIMUM_MEMORY_MIB: u64 = 2;
/// Largest memory of a guest, in MiB: its memory ends below the window of its devices' registers.
const MAXIMUM_MEMORY_MIB: u64 = 2048;

/// The configuration of the machine.
#[derive(Debug)]
pub struct Config {
    /// The hypervisor's own settings.
    pub hypervisor: Hypervisor,
    /// The guests, in the order of the file.
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

/// One guest.
#[derive(Debug)]
pub struct Guest {
    /// Its name, in the log and the report.
    pub name: String,
    /// The archive's member that is its kernel: an ELF image with a PVH entry, or one with a Multiboot header.
    pub kernel: String,
    /// The archive's members that it gets beside its kernel, as the boot protocol's modules: names with spaces between.
    pub modules: String,
    /// Its memory in MiB.
    pub memory_mib: u64,
    /// The I/O port, if any, by which it ends with a status, as with QEMU's isa-debug-exit: 0 is success.
    pub debug_exit_port: Option<u16>,
    /// Its command line.
    pub command_line: String,
    /// An I/O port where its kernel asks for an interrupt that takes the way of a passed-through device's, for
    /// measurements and tests on machines that have no device to pass through. Without it there is no such port.
    pub doorbell_port: Option<u16>,
    /// The devices that belong to it.
    pub devices: Vec<DeviceName>,
}

/// How a configuration names a PCI function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceName {
    /// By its place: `"0000:00:03.0"` or `"00:03.0"`.
    Address(PciAddress),
    /// By vendor and device id: `"8086:10d3"`, the first such function that no guest has yet.
    Id {
        /// Vendor id.
        vendor: u16,
        /// Device id.
        device: u16,
    },
}

impl DeviceName {
    /// Reads a name; `None` if it has neither form.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |digits: &str, length: usize| {
            let plain = digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            plain.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
        };
        let mut parts = text.rsplit(':');
        let last = parts.next()?;
        let middle = parts.next()?;
        let Some((device, function)) = last.split_once('.') else {
            let id = DeviceName::Id { vendor: hex(middle, 4)?, device: hex(last, 4)? };
            return parts.next().is_none().then_some(id);
        };
        let segment = match parts.next() {
            Some(segment) => hex(segment, 4)?,
            None => 0,
        };
        let (bus, device, function) = (hex(middle, 2)?, hex(device, 2)?, hex(function, 1)?);
        let bdf = Bdf::new(bus as u8, device as u8, function as u8)?;
        parts.next().is_none().then_some(DeviceName::Address(PciAddress { segment, bdf }))
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Id { vendor, device } => write!(f, "{vendor:04x}:{device:04x}"),
        }
    }
}

impl Config {
    fn read(file: &Section<'_>) -> Result<Self, String> {
        let hypervisor = file.section("hypervisor", &["debug_exit_port", "fault_limit"])?;
        let hypervisor = hypervisor.map(|section| Hypervisor::read(&section)).transpose()?.unwrap_or_default();
        let keys =
            ["name", "kernel", "memory_mib", "modules", "command_line", "devices", "debug_exit_port", "doorbell_port"];
        let guests = file.sections("guest", &keys)?.map(|section| Guest::read(&section?)).collect::<Result<_, _>>()?;
        Ok(Self { hypervisor, guests })
    }
}

impl Hypervisor {
    fn read(section: &Section<'_>) -> Result<Self, String> {
        Ok(Self {
            debug_exit_port: section.number("debug_exit_port", u16::MAX.into())?.map(|port| port as u16),
            fault_limit: section.number("fault_limit", u32::MAX.into())?.map(|limit| limit as u32),
        })
    }
}

impl Guest {
    fn read(section: &Section<'_>) -> Result<Self, String> {
        const NO_DEVICE: &str =
            "names no device: write vendor:device such as \"8086:10d3\", or an address such as \"0000:00:03.0\"";
        Ok(Self {
            name: section.needed_text("name")?.to_string(),
            kernel: section.needed_text("kernel")?.to_string(),
            memory_mib: section.needed_number("memory_mib", u64::MAX)?,
            command_line: section.text("command_line")?.unwrap_or_default().to_string(),
            modules: section.text("modules")?.unwrap_or_default().to_string(),
            debug_exit_port: section.number("debug_exit_port", u16::MAX.into())?.map(|port| port as u16),
            doorbell_port: section.number("doorbell_port", u16::MAX.into())?.map(|port| port as u16),
            devices: section.texts("devices", NO_DEVICE, DeviceName::parse)?,
        })
    }
}

/// Reads and checks a configuration. The error is a sentence for the person who wrote the file.
pub fn parse(text: &str) -> Result<Config, String> {
    if text.len() > MAXIMUM_BYTES {
        return Err(format!("the configuration is {} bytes long; the limit is {MAXIMUM_BYTES}", text.len()));
    }
    let config = section::read(text, &["hypervisor", "guest"], Config::read)?;
    if config.guests.is_empty() {
        return Err("the configuration has no [[guest]]".to_string());
    }
    if config.guests.len() > MAXIMUM_GUESTS {
        return Err(format!("{} guests are too many; the limit is {MAXIMUM_GUESTS}", config.guests.len()));
    }
    for (index, guest) in config.guests.iter().enumerate() {
        check_guest(guest)?;
        let earlier = &config.guests[..index];
        if earlier.iter().any(|other| other.name == guest.name) {
            return Err(format!("two guests are called {:?}", guest.name));
        }
        for (number, device) in guest.devices.iter().enumerate() {
            // The same id twice means two such devices; the same address twice cannot be meant.
            let is_address = matches!(device, DeviceName::Address(_));
            let taken =
                guest.devices[..number].contains(device) || earlier.iter().any(|other| other.devices.contains(device));
            if is_address && taken {
                return Err(format!("device {device} is given out twice"));
            }
        }
    }
    Ok(config)
}

fn check_guest(guest: &Guest) -> Result<(), String> {
    let name = &guest.name;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
        return Err(format!("guest name {name:?}: use 1 to 32 letters, digits, '-' and '_'"));
    }
    if !(MINIMUM_MEMORY_MIB..=MAXIMUM_MEMORY_MIB).contains(&guest.memory_mib) {
        return Err(format!(
            "guest {name:?}: memory_mib is {}; it must be {MINIMUM_MEMORY_MIB} to {MAXIMUM_MEMORY_MIB}",
            guest.memory_mib
        ));
    }
    if guest.devices.len() > MAXIMUM_DEVICES {
        return Err(format!("guest {name:?}: at most {MAXIMUM_DEVICES} devices"));
    }
    if guest.command_line.len() > 2000 || guest.command_line.contains('\0') {
        return Err(format!("guest {name:?}: the command line is too long or contains a zero byte"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [hypervisor]
        debug_exit_port = 0xf4
        [[guest]]
        name = "netprobe"
        kernel = "netprobe"
        memory_mib = 16
        command_line = "attack"
        debug_exit_port = 0x501
        modules = "initrd.img environment"
        devices = ["8086:10d3", "0000:00:03.0", "1f:1f.7"]
    "#;

    #[test]
    fn a_configuration_is_read() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.hypervisor.debug_exit_port, Some(0xf4));
        let guest = &config.guests[0];
        assert_eq!((guest.name.as_str(), guest.memory_mib, guest.command_line.as_str()), ("netprobe", 16, "attack"));
        assert_eq!((guest.debug_exit_port, guest.modules.as_str()), (Some(0x501), "initrd.img environment"));
        let address = |bus, device, function| {
            DeviceName::Address(PciAddress { segment: 0, bdf: Bdf::new(bus, device, function).unwrap() })
        };
        let id = DeviceName::Id { vendor: 0x8086, device: 0x10d3 };
        assert_eq!(guest.devices, [id, address(0, 3, 0), address(0x1f, 0x1f, 7)]);
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let misspelt = parse(&GOOD.replace("memory_mib", "memory_mb")).unwrap_err();
        assert!(misspelt.contains("line 7") && misspelt.contains("memory_mib"), "{misspelt}");
        let device = parse(&GOOD.replace("8086:10d3", "8086")).unwrap_err();
        assert!(device.contains("line 11") && device.contains("names no device"), "{device}");
        assert!(parse("").unwrap_err().contains("no [[guest]]"));
        for (wrong, line, word) in [
            ("[[guest]\n", 1, ""),
            ("\n[guest]\n", 2, "a list"),
            ("hypervisor = 7\n", 1, "a table"),
            ("guest = [7]\n", 1, "a table"),
            ("[hypervisor]\ndebug_exit_port = 65536\n", 2, "0 to 65535"),
            ("[hypervisor]\nfault_limit = \"1\"\n", 2, "whole number"),
            ("[[guest]]\nname = 1\n", 2, "a text"),
            ("[[guest]]\nname = \"a\"\nkernel = \"a\"\n", 1, "\"memory_mib\" is missing"),
            ("[[guest]]\nname = \"a\"\nkernel = \"a\"\nmemory_mib = 2\ndevices = [1]\n", 5, "a text"),
            ("[[gest]]\n", 1, "hypervisor, guest"),
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(error.starts_with(&format!("line {line}: ")) && error.contains(word), "{wrong:?}: {error}");
        }
        assert!(parse(&GOOD.replace("16", "1")).unwrap_err().contains("memory_mib is 1"));
        assert!(parse(&GOOD.replace("16", "-1")).is_err());
        assert!(parse(&GOOD.replace("16", "99999999999999999999")).is_err());
        assert!(parse(&GOOD.replace("\"netprobe\"", "\"\"")).unwrap_err().contains("guest name"));
        assert!(parse(&GOOD.replace("1f:1f.7", "00:03.0")).unwrap_err().contains("given out twice"));
        let twice = format!("{GOOD}\n{}", &GOOD[GOOD.find("[[guest]]").unwrap()..]);
        assert!(parse(&twice).unwrap_err().contains("two guests"));
        assert!(parse(&"#".repeat(MAXIMUM_BYTES + 1)).is_err());
    }

    #[test]
    fn device_names_have_two_forms_and_no_other() {
        for text in
            ["", ":", ".", "8086:10d33", "8086:10g3", "00:20.0", "00:1f.8", "0:0000:00:03.0", "00:3.0", "+086:10d3"]
        {
            assert_eq!(DeviceName::parse(text), None, "{text}");
        }
    }
}
