//! A function like QEMU's e1000e, for tests: it records every write.

use ::pci::{ConfigSpace, FunctionDescription, Width};
use addr::{Bdf, PciAddress};

/// Where the real function is.
pub const HOST: PciAddress = PciAddress { segment: 0, bdf: Bdf::from_u16(0x0010) };
/// Where the guest finds it.
pub const GUEST: Bdf = Bdf::from_u16(3 << 3);
/// Where the MSI-X table is.
pub const TABLE: u64 = 0xFEBD_0000;

/// The real function.
pub struct Nic {
    pub bytes: [u8; 256],
    writable: [u8; 256],
    /// Offset, width, value.
    pub writes: Vec<(u16, Width, u32)>,
}

impl Nic {
    /// BAR 0 and 1: 128 KiB of memory; BAR 2: 32 ports; BAR 3: 16 KiB of memory with the MSI-X table and, at 0x2000, the
    /// pending bits. Capabilities: power management at C8, MSI at D0, PCI Express at E0, MSI-X at A0.
    pub fn new() -> Self {
        let mut nic = Self { bytes: [0; 256], writable: [0; 256], writes: Vec::new() };
        for (offset, value) in [
            (0x00, 0x10D3_8086),
            (0x04, 0x0010_0103),
            (0x08, 0x0200_0000),
            (0x0C, 0x8080_4010),
            (0x10, 0xFEB8_0000),
            (0x14, 0xFEBA_0000),
            (0x18, 0x0000_C041),
            (0x1C, 0xFEBD_0000),
            (0x2C, 0x0000_8086),
            (0x30, 0xFEB4_0001),
            (0x34, 0x0000_00C8),
            (0x3C, 0x0000_010B),
            (0xA0, 0x0004_0011),
            (0xA4, 0x0000_0003),
            (0xA8, 0x0000_2003),
            (0xC8, 0xC823_D001),
            (0xCC, 0x0000_2000),
            (0xD0, 0x0080_E005),
            (0xD4, 0xDEAD_BEEF),
            (0xE0, 0x0001_A010),
            (0xE4, 0x1000_8001),
            (0xE8, 0x0010_2810),
            (0xF4, 0x5EC2_E700),
        ] {
            nic.set(offset, value);
        }
        for (offset, bits) in [
            (0x04, 0x0000_0547),
            (0x10, 0xFFFE_0000),
            (0x14, 0xFFFE_0000),
            (0x18, 0xFFFF_FFE0),
            (0x1C, 0xFFFF_C000),
            (0xA0, 0xC000_0000),
        ] {
            nic.writable[offset..offset + 4].copy_from_slice(&u32::to_le_bytes(bits));
        }
        nic
    }

    pub fn set(&mut self, offset: usize, value: u32) {
        self.bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }

    pub fn describe(&mut self) -> FunctionDescription {
        let description = FunctionDescription::read(self, HOST).unwrap();
        self.writes.clear();
        description
    }

    pub fn command(&self) -> u16 {
        self.read16(HOST, 4)
    }
}

impl ConfigSpace for Nic {
    fn read(&self, function: PciAddress, offset: u16, width: Width) -> u32 {
        assert_eq!(offset % width.bytes(), 0, "unaligned read");
        if function != HOST || offset >= 256 {
            return width.mask();
        }
        (0..width.bytes()).rev().fold(0, |value, byte| value << 8 | u32::from(self.bytes[usize::from(offset + byte)]))
    }

    fn write(&mut self, function: PciAddress, offset: u16, width: Width, value: u32) {
        assert_eq!(offset % width.bytes(), 0, "unaligned write");
        assert_eq!(function, HOST, "writes to another function");
        self.writes.push((offset, width, value));
        for byte in 0..width.bytes() {
            let index = usize::from(offset + byte);
            let bits = self.writable[index];
            self.bytes[index] = self.bytes[index] & !bits | (value >> (8 * byte)) as u8 & bits;
        }
    }
}
