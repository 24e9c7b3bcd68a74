//! PCI configuration space by ports: a host bridge, and nothing else.

use crate::list::{List, Verdict, ensure};
use core::arch::asm;
use guest_support::cpu::{read_port8, read_port32, write_port8, write_port32};

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;

pub fn probe(list: &mut List) {
    list.probe("pci-address", address);
    list.probe("pci-host-bridge", host_bridge);
    list.probe("pci-nothing-else", nothing_else);
    write_port32(ADDRESS, 0);
}

fn read_port16(port: u16) -> u16 {
    let value;
    // SAFETY: configuration space is read.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value) };
    value
}

fn read(bus: u32, device: u32, function: u32, offset: u32) -> u32 {
    write_port32(ADDRESS, ENABLE | bus << 16 | device << 11 | function << 8 | offset);
    read_port32(DATA)
}

fn address() -> Verdict {
    write_port32(ADDRESS, ENABLE | 0x1234);
    ensure!(read_port32(ADDRESS) == ENABLE | 0x1234, "the address reads {:#x}", read_port32(ADDRESS));
    // Bytes there are other registers of a chipset, which are not the address.
    write_port8(ADDRESS, 0xff);
    write_port8(ADDRESS + 3, 0);
    ensure!(read_port32(ADDRESS) == ENABLE | 0x1234, "bytes changed the address to {:#x}", read_port32(ADDRESS));
    write_port32(ADDRESS, 0);
    ensure!(read_port32(DATA) == u32::MAX, "not enabled, the data reads {:#x}", read_port32(DATA));
    Ok(())
}

fn host_bridge() -> Verdict {
    let id = read(0, 0, 0, 0);
    ensure!(id as u16 != 0xffff && id as u16 != 0, "id {id:#x}");
    ensure!(read_port16(DATA) == id as u16 && read_port16(DATA + 2) == (id >> 16) as u16, "words differ");
    for byte in 0..4u16 {
        let value = read_port8(DATA + byte);
        ensure!(u32::from(value) == id >> (8 * byte) & 0xff, "byte {byte} is {value:#x} of {id:#x}");
    }
    ensure!(read_port32(ADDRESS) == ENABLE, "reading changed the address to {:#x}", read_port32(ADDRESS));
    let class = read(0, 0, 0, 8) >> 16;
    ensure!(class == 0x0600, "class {class:#x}");
    // Nothing there can be written.
    for offset in (0..0x100).step_by(4) {
        let before = read(0, 0, 0, offset);
        write_port32(DATA, !before);
        let after = read_port32(DATA);
        ensure!(before == after, "{offset:#x} changed from {before:#x} to {after:#x}");
    }
    Ok(())
}

fn nothing_else() -> Verdict {
    for device in 1..32 {
        for function in [0, 7] {
            let id = read(0, device, function, 0);
            ensure!(id == u32::MAX, "id {id:#x} at 00:{device:02x}.{function}");
            write_port32(DATA, 0);
        }
    }
    for bus in [1, 0x80, 0xff] {
        let id = read(bus, 0, 0, 0);
        ensure!(id == u32::MAX, "id {id:#x} at {bus:02x}:00.0");
    }
    ensure!(read(0, 0, 1, 0) == u32::MAX, "the host bridge has a second function");
    // A dword at the last ports reaches beyond them.
    write_port32(ADDRESS, ENABLE);
    let beyond = read_port32(DATA + 3);
    write_port32(DATA + 3, 0);
    ensure!(beyond >> 8 == 0xff_ffff || beyond == u32::MAX, "a dword at the last port reads {beyond:#x}");
    Ok(())
}
