//! Functions like those of QEMU, for tests. Each records every write.

use ::pci::{ConfigSpace, FunctionDescription, Width};
use addr::{Bdf, PciAddress};

/// Where the real function is.
pub const HOST: PciAddress = PciAddress { segment: 0, bdf: Bdf::from_u16(0x0010) };
/// Where the guest finds it.
pub const GUEST: Bdf = Bdf::from_u16(3 << 3);

/// A real function.
pub struct Device {
    pub bytes: [u8; 4096],
    writable: [u8; 4096],
    /// Offset, width, value.
    pub writes: Vec<(u16, Width, u32)>,
}

impl Device {
    /// From dwords of configuration space, and the bits of dwords that can be written, beside the command register's.
    fn of(dwords: &[(usize, u32)], writable: &[(usize, u32)]) -> Self {
        let mut device = Self { bytes: [0; 4096], writable: [0; 4096], writes: Vec::new() };
        for (offset, value) in dwords {
            device.set(*offset, *value);
        }
        for (offset, bits) in [(0x04, 0x0000_0547)].iter().chain(writable) {
            device.writable[*offset..offset + 4].copy_from_slice(&u32::to_le_bytes(*bits));
        }
        device
    }

    /// 8086:10d3. BAR 0 and 1: 128 KiB of memory; BAR 2: 32 ports; BAR 3: 16 KiB of memory with the MSI-X table of 5 entries
    /// and, at 0x2000, the pending bits. Capabilities: power management at C8, MSI at D0, PCI Express at E0, MSI-X at A0;
    /// error reporting at 100, the serial number at 140.
    pub fn e1000e() -> Self {
        Self::of(
            &[
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
                (0x100, 0x1401_0001),
                (0x104, 0xBAD0_BAD0),
                (0x140, 0x0001_0003),
                (0x144, 0xFF12_3456),
                (0x148, 0x5254_00FF),
                (0x14C, 0x5EC2_E700),
            ],
            &[
                (0x10, 0xFFFE_0000),
                (0x14, 0xFFFE_0000),
                (0x18, 0xFFFF_FFE0),
                (0x1C, 0xFFFF_C000),
                (0xA0, 0xC000_0000),
                (0xD0, 0x0071_0000),
                (0xD4, 0xFFFF_FFFC),
                (0xD8, 0xFFFF_FFFF),
                (0xDC, 0x0000_FFFF),
                (0xE8, 0x0000_FFFF),
            ],
        )
    }

    /// 1b36:0010. BAR 0: 64-bit, 16 KiB, with the MSI-X table of 65 entries at 0x2000 and the pending bits at 0x3000.
    /// Capabilities: MSI-X at 40, PCI Express version 2 at 80, power management at 60.
    pub fn nvme() -> Self {
        Self::of(
            &[
                (0x00, 0x0010_1B36),
                (0x04, 0x0010_0002),
                (0x08, 0x0108_0202),
                (0x10, 0x8000_0004),
                (0x14, 0x0000_0048),
                (0x34, 0x0000_0040),
                (0x3C, 0x0000_010B),
                (0x40, 0x0040_8011),
                (0x44, 0x0000_2000),
                (0x48, 0x0000_3000),
                (0x60, 0x0003_0001),
                (0x64, 0x0000_0008),
                (0x80, 0x0002_6010),
                (0x84, 0x1000_8000),
                (0x88, 0x0000_2810),
            ],
            &[(0x10, 0xFFFF_C000), (0x14, 0xFFFF_FFFF), (0x40, 0xC000_0000), (0x88, 0x0000_7FFF)],
        )
    }

    /// 1b36:000d. BAR 0: 64-bit, 16 KiB, with the MSI-X table of 16 entries at 0x3000 and the pending bits in the same page.
    /// Capabilities: MSI-X at 90, PCI Express at A0.
    pub fn xhci() -> Self {
        Self::of(
            &[
                (0x00, 0x000D_1B36),
                (0x04, 0x0010_0002),
                (0x08, 0x0C03_3001),
                (0x10, 0xFEBF_0004),
                (0x34, 0x0000_0090),
                (0x90, 0x000F_A011),
                (0x94, 0x0000_3000),
                (0x98, 0x0000_3800),
                (0xA0, 0x0002_0010),
                (0xA4, 0x0000_8000),
            ],
            &[(0x10, 0xFFFF_C000), (0x14, 0xFFFF_FFFF), (0x90, 0xC000_0000)],
        )
    }

    /// 1234:11e8. BAR 0: 1 MiB; MSI at 40 with a 64-bit address and one vector; conventional.
    pub fn edu() -> Self {
        Self::of(
            &[
                (0x00, 0x11E8_1234),
                (0x04, 0x0010_0002),
                (0x08, 0x00FF_0010),
                (0x10, 0xFEA0_0000),
                (0x34, 0x0000_0040),
                (0x3C, 0x0000_010B),
                (0x40, 0x0080_0005),
            ],
            &[(0x10, 0xFFF0_0000), (0x40, 0x0071_0000), (0x44, 0xFFFF_FFFC), (0x48, 0xFFFF_FFFF), (0x4C, 0xFFFF)],
        )
    }

    /// 8086:10c9. BAR 0: 128 KiB; BAR 2: 32 ports; BAR 3: 16 KiB with the MSI-X table of 25 entries and the pending bits at
    /// 0x2000. Capabilities: power management at 40, MSI at 50 with masks, MSI-X at 70, PCI Express at A0; error reporting
    /// at 100, alternative routing ids at 150, virtual functions at 160.
    pub fn igb() -> Self {
        Self::of(
            &[
                (0x00, 0x10C9_8086),
                (0x04, 0x0010_0002),
                (0x08, 0x0200_0001),
                (0x10, 0xFEB8_0000),
                (0x18, 0x0000_C001),
                (0x1C, 0xFEBC_0000),
                (0x34, 0x0000_0040),
                (0x3C, 0x0000_010B),
                (0x40, 0xC823_5001),
                (0x44, 0x0000_2008),
                (0x50, 0x0180_7005),
                (0x70, 0x0018_A011),
                (0x74, 0x0000_0003),
                (0x78, 0x0000_2003),
                (0xA0, 0x0002_0010),
                (0xA4, 0x1000_8CC2),
                (0xA8, 0x0000_2810),
                (0x100, 0x1501_0001),
                (0x150, 0x1601_000E),
                (0x160, 0x0001_0010),
            ],
            &[
                (0x10, 0xFFFE_0000),
                (0x18, 0xFFFF_FFE0),
                (0x1C, 0xFFFF_C000),
                (0x50, 0x0071_0000),
                (0x54, 0xFFFF_FFFC),
                (0x58, 0xFFFF_FFFF),
                (0x5C, 0x0000_FFFF),
                (0x60, 0x0000_0001),
                (0x70, 0xC000_0000),
            ],
        )
    }

    /// A virtual function of 8086:10c9, without ids and registers of ranges of its own. Its range 3 has the MSI-X table of 3
    /// entries. Capabilities: MSI-X at 70, PCI Express at A0.
    pub fn igbvf() -> Self {
        let mut device = Self::of(
            &[
                (0x00, 0xFFFF_FFFF),
                (0x04, 0x0010_0000),
                (0x08, 0x0200_0001),
                (0x34, 0x0000_0070),
                (0x70, 0x0002_A011),
                (0x74, 0x0000_0003),
                (0x78, 0x0000_2003),
                (0xA0, 0x0002_0010),
                (0xA4, 0x1000_8CC2),
            ],
            &[(0x70, 0xC000_0000)],
        );
        device.allow(0x04, 0x0000_0004);
        device
    }

    pub fn set(&mut self, offset: usize, value: u32) {
        self.bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }

    pub fn allow(&mut self, offset: usize, bits: u32) {
        self.writable[offset..offset + 4].copy_from_slice(&bits.to_le_bytes());
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

impl ConfigSpace for Device {
    fn read(&self, function: PciAddress, offset: u16, width: Width) -> u32 {
        assert_eq!(offset % width.bytes(), 0, "unaligned read");
        if function != HOST {
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
