//! What firmware would have done: bus numbers, and places in memory space.

use crate::machine::Machine;
use crate::ports::Ports;
use addr::{Bdf, PciAddress};
use pci::spec::header::{BAR0, PRIMARY_BUS, SECONDARY_BUS, SUBORDINATE_BUS, command};
use pci::{Bar, ConfigSpace, FunctionInfo, HeaderType, read_bars, set_command_bits};

/// Where the places begin, and how far apart they are: a bridge's window is counted in MiB, and no range of the devices
/// used here is larger than one.
const MEMORY_SPACE: u32 = 0xc000_0000;
const PLACE: u32 = 0x10_0000;
/// Type 1 header: memory base in 15:0, memory limit in 31:16, each the upper 12 bits of a 32-bit address.
const MEMORY_WINDOW: u16 = 0x20;

/// A function in segment 0.
pub fn function(bdf: Bdf) -> PciAddress {
    PciAddress { segment: 0, bdf }
}

/// Gives every bridge its bus numbers and its window, and every range of every function its place; lets all answer and
/// start transactions.
pub fn configure(machine: &Machine) {
    let mut next = Next { bus: 0, place: MEMORY_SPACE };
    configure_bus(&mut Ports(machine.clone()), 0, &mut next);
}

struct Next {
    bus: u8,
    place: u32,
}

fn configure_bus(config: &mut Ports, bus: u8, next: &mut Next) {
    for devfn in 0..=u8::MAX {
        let address = function(Bdf::from_u16(u16::from(bus) << 8 | u16::from(devfn)));
        let Some(found) = FunctionInfo::read(config, address) else { continue };
        for (index, range) in read_bars(config, address, found.header_type).iter() {
            let Bar::Memory { size, is_64_bit, .. } = range else { continue };
            assert!(size <= u64::from(PLACE), "{found}: BAR {index} is larger than anything here");
            config.write32(address, BAR0 + 4 * u16::from(index), next.place);
            if is_64_bit {
                config.write32(address, BAR0 + 4 * u16::from(index) + 4, 0);
            }
            next.place += PLACE;
        }
        if let HeaderType::Bridge { .. } = found.header_type {
            configure_bridge(config, address, next);
        }
        set_command_bits(config, address, command::MEMORY_SPACE | command::BUS_MASTER, 0);
    }
}

fn configure_bridge(config: &mut Ports, bridge: PciAddress, next: &mut Next) {
    next.bus += 1;
    let (bus, window) = (next.bus, next.place);
    config.write8(bridge, PRIMARY_BUS, bridge.bdf.bus());
    config.write8(bridge, SECONDARY_BUS, bus);
    // Everything may be below until it is known what is.
    config.write8(bridge, SUBORDINATE_BUS, u8::MAX);
    configure_bus(config, bus, next);
    config.write8(bridge, SUBORDINATE_BUS, next.bus);
    // A window with its limit below its base is none.
    let limit = next.place - 1;
    config.write32(bridge, MEMORY_WINDOW, window >> 16 | limit & 0xfff0_0000);
}
