//! A configuration space for tests: functions with read-only bytes, writable bits and a log of every write.

use crate::{ConfigSpace, Width};
use addr::{Bdf, PciAddress};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

/// The address of a function in segment 0.
pub fn at(bus: u8, device: u8, function: u8) -> PciAddress {
    PciAddress { segment: 0, bdf: Bdf::new(bus, device, function).unwrap() }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Write {
    pub function: PciAddress,
    pub offset: u16,
    pub width: Width,
    pub value: u32,
}

type Hook = Box<dyn FnMut(&mut FakeFunction, u16, u32)>;

pub struct FakeFunction {
    pub bytes: Vec<u8>,
    pub writable: Vec<u8>,
    pub on_write: Option<Hook>,
}

impl FakeFunction {
    pub fn header(&mut self, vendor: u16, device: u16, class: u32, header_type: u8) -> &mut Self {
        self.word(0, vendor).word(2, device).dword(8, class << 8).byte(0xE, header_type);
        self.allow(4, 0x0547, 2).allow(0x0C, 0xFFFF, 2).allow(0x3C, 0xFF, 1)
    }
    pub fn byte(&mut self, offset: u16, value: u8) -> &mut Self {
        self.bytes[usize::from(offset)] = value;
        self
    }
    pub fn word(&mut self, offset: u16, value: u16) -> &mut Self {
        self.byte(offset, value as u8).byte(offset + 1, (value >> 8) as u8)
    }
    pub fn dword(&mut self, offset: u16, value: u32) -> &mut Self {
        self.word(offset, value as u16).word(offset + 2, (value >> 16) as u16)
    }
    /// Makes bits of `bytes` bytes at `offset` writable.
    pub fn allow(&mut self, offset: u16, bits: u32, bytes: u16) -> &mut Self {
        for byte in 0..bytes {
            self.writable[usize::from(offset + byte)] = (bits >> (8 * byte)) as u8;
        }
        self
    }
    /// A base address register: value, and its writable bits.
    pub fn bar(&mut self, index: u16, value: u32, mask: u32) -> &mut Self {
        self.dword(0x10 + 4 * index, value).allow(0x10 + 4 * index, mask, 4)
    }
    /// Links a capability in front of the list.
    pub fn capability(&mut self, offset: u8, id: u8) -> &mut Self {
        let status = self.bytes[6] | 0x10;
        let first = self.bytes[0x34];
        self.byte(6, status).byte(0x34, offset).byte(offset.into(), id).byte(u16::from(offset) + 1, first)
    }
    pub fn buses(&mut self, primary: u8, secondary: u8, subordinate: u8) -> &mut Self {
        self.byte(0x18, primary).byte(0x19, secondary).byte(0x1A, subordinate)
    }
    /// A PCI Express capability of a device or port type at 0x40.
    pub fn express(&mut self, port_type: u16) -> &mut Self {
        self.capability(0x40, 0x10).word(0x42, 2 | port_type << 4)
    }
}

pub struct Fake {
    pub functions: BTreeMap<PciAddress, FakeFunction>,
    pub writes: Vec<Write>,
    /// What a read gives where no function is.
    pub nothing: u32,
}

impl Fake {
    pub fn new() -> Self {
        Self { functions: BTreeMap::new(), writes: Vec::new(), nothing: u32::MAX }
    }
    pub fn add(&mut self, address: PciAddress) -> &mut FakeFunction {
        self.functions.entry(address).or_insert_with(|| FakeFunction {
            bytes: vec![0; 4096],
            writable: vec![0; 4096],
            on_write: None,
        })
    }
}

impl ConfigSpace for Fake {
    fn read(&self, function: PciAddress, offset: u16, width: Width) -> u32 {
        assert_eq!(offset % width.bytes(), 0, "unaligned read");
        let Some(fake) = self.functions.get(&function) else { return self.nothing & width.mask() };
        (0..width.bytes()).rev().fold(0, |value, byte| value << 8 | u32::from(fake.bytes[usize::from(offset + byte)]))
    }
    fn write(&mut self, function: PciAddress, offset: u16, width: Width, value: u32) {
        assert_eq!(offset % width.bytes(), 0, "unaligned write");
        self.writes.push(Write { function, offset, width, value });
        let Some(fake) = self.functions.get_mut(&function) else { return };
        for byte in 0..width.bytes() {
            let index = usize::from(offset + byte);
            let mask = fake.writable[index];
            fake.bytes[index] = fake.bytes[index] & !mask | (value >> (8 * byte)) as u8 & mask;
        }
        if let Some(mut hook) = fake.on_write.take() {
            hook(fake, offset, value);
            fake.on_write = Some(hook);
        }
    }
}
